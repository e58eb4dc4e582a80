"""Classes that are generic in the type of their messages. Type checkers see it, programs do not."""

from __future__ import annotations

import pickle
import socket
from typing import Any

import pytest

import framecodec.anyio
import framecodec.asyncio
from framecodec import Codec, DatagramSocket, FramePipe, FrameSocket, Listener, Splitter
from framecodec.serving import MessageConnection, MessageServer, Server

GENERIC: list[Any] = [
    Codec,
    DatagramSocket,
    FramePipe,
    FrameSocket,
    Listener,
    Splitter,
    MessageConnection,
    MessageServer,
    Server,
    framecodec.anyio.FrameStream,
    framecodec.asyncio.DatagramStream,
    framecodec.asyncio.FrameProtocol,
    framecodec.asyncio.FrameServer,
    framecodec.asyncio.FrameStream,
]


@pytest.mark.parametrize("kind", GENERIC, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_class_with_messages_takes_their_type(kind: Any) -> None:
    assert kind[bytes].__origin__ is kind
    assert kind[bytes].__args__ == (bytes,)
    assert kind[bytes] == kind[bytes] != kind[str]


def test_splitters_of_both_engines_take_the_type_of_their_messages(engine_in_use: Any) -> None:
    kind = engine_in_use.Splitter
    assert kind[bytes].__origin__ is kind
    splitter = kind[Any](Codec.uint(1).as_json())
    assert splitter.feed(b"\x03[1]") == [[1]]


def test_a_codec_with_a_type_makes_codecs() -> None:
    made = Codec[bytes].uint(2)
    assert type(made) is Codec
    assert made == Codec.uint(2)
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_class_with_a_type_makes_instances() -> None:
    left, right = socket.socketpair()
    codec = Codec.uint(1)
    with FrameSocket[bytes](left, codec) as one, FrameSocket[Any](right, codec.as_json()) as two:
        one.send(b"[1]")
        assert two.recv() == [1]


def test_a_subclass_may_name_the_type() -> None:
    class Messages(framecodec.asyncio.FrameProtocol[bytes]):
        pass

    assert issubclass(Messages, framecodec.asyncio.FrameProtocol)
    assert Messages(Codec.uint(2)).codec == Codec.uint(2)
