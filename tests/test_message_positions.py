"""Test the stream offset of refused messages where bytes between the frames are in no message.

Such bytes are skipped frames, what ``on_invalid="resync"`` discards, empty frames that are ignored,
and the rest of an end mark that is longer than the one that was read.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from framecodec import Check, Codec, FrameSocket, InvalidMessageError, formats
from framecodec.asyncio import FrameProtocol, open_connection
from tests.helpers.event_loops import LOOPS, run

pytestmark = pytest.mark.usefixtures("engine_in_use")

TIMEOUT = 10.0
SKIP = {"on_oversize": "skip"}
RESYNC = {"on_invalid": "resync"}

SMALL = Codec.uint(1, max_message_size=9)
LINE = Codec.delimiter(b"\n", skip_empty=True)
TWO_MARKS = Codec.delimiter(b"\r\n", b"\r", skip_empty=True)
STUFFED = Codec.cobs()


def large(size: int) -> bytes:
    return bytes([size]) + b"x" * size


# For each case a codec, options, and pieces of a stream: messages as text, other bytes as they are.
CASES: dict[str, tuple[Codec, dict[str, Any], list[str | bytes]]] = {
    "skipped": (SMALL, SKIP, ["1", large(20), "bad", large(10), large(30), "2", "bad", large(12)]),
    "skipped at first": (SMALL, SKIP, [large(40), "bad", "[2]", large(10), "bad"]),
    "skipped with padding": (
        Codec.uint(1, align=4, max_message_size=9),
        SKIP,
        ["bad", large(20) + bytes(3), "1", "bad", large(12) + bytes(3), large(10) + b"\0", "bad"],
    ),
    "skipped with a check": (
        Codec.uint(1, max_message_size=9, check=Check("sum8", 1)),
        SKIP,
        ["1", large(20) + b"?", "bad", large(10) + b"?", "bad"],
    ),
    "skipped headers": (
        Codec.headers(max_message_size=9),
        SKIP,
        ["1", b"Content-Length:  10\r\n\r\n0123456789", "bad", "2", "bad"],
    ),
    "skipped lines": (
        Codec.delimiter(b"\n", max_message_size=9),
        SKIP,
        ["1", b"0123456789\n", "bad", b"0123456789" * 3 + b"\n", "bad"],
    ),
    "skipped in a choice": (
        Codec.choice(
            {b"0123456789[b": Codec.delimiter(b"\n"), 7: Codec.uint(1, length_offset=1)},
            max_message_size=9,
        ),
        SKIP,
        ["1", b"\7" + large(20), "bad", b"0123456789\n", "bad"],
    ),
    "skipped fragments": (
        Codec.joined(
            Codec.uint(1, length_mask=0x7F), last=(0, 0x80, 0x80), strip=1, max_message_size=9
        ),
        SKIP,
        ["1", b"\x05abcde\x85abcde", "bad", "bad"],
    ),
    "discarded": (
        Codec.uint(1, magic=b"ab", constants={3: b"{"}, max_message_size=9),
        RESYNC,
        ["{}", b"ab\7zzz", b"garbage", "{bad", b"abab\x09", '{"a":1}', "{bad", b"more", "{}"],
    ),
    "discarded and skipped": (
        Codec.uint(1, magic=b"ab", constants={3: b"{"}, max_message_size=9),
        {**RESYNC, **SKIP},
        ["{}", b"garbage", b"ab\x0c{12345678901", b"?", "{bad", b"more", "{bad"],
    ),
    "discarded lines": (
        Codec.delimiter(b"\n", max_message_size=9),
        RESYNC,
        ["1", b"0123456789\n", "bad", b"0123456789" * 3 + b"\n", "bad"],
    ),
    "empty lines": (LINE, {}, [b"\n\n", "1", b"\n", "bad", b"\n\n\n", "2", "bad", b"\n", "bad"]),
    "empty lines with a magic": (
        Codec.delimiter(b"\n", magic=b"K", skip_empty=True),
        {},
        ["1", b"K\nK\n", "bad", b"K\n", "bad"],
    ),
    "empty lines with escapes": (formats["slip"], {}, ["1", b"\xc0" * 3, "bad", b"\xc0", "bad"]),
    "empty lines with checks": (
        Codec.delimiter(b"\n", skip_empty=True, check=Check("sum8", 3, digits=True)),
        {},
        ["1", b"\n\n", "bad", b"\n000\n", "bad"],
    ),
    "empty lines of two kinds": (
        TWO_MARKS,
        {},
        ["1", b"\r", "bad", b"\r\n\r\r\r\n", "2", b"\r", "bad", b"\r\n\r\n", "bad"],
    ),
    "empty stuffed frames": (STUFFED, {}, [b"\0", "1", b"\0\0", "bad", b"\0", "2", "bad"]),
    "empty lines in a choice": (
        Codec.choice({b"0123456789[b\n": LINE, 7: Codec.uint(1, length_offset=1)}),
        {},
        ["1", b"\n\n", "bad", b"\n", "bad"],
    ),
}


def loads(message: bytes) -> Any:
    return json.loads(message)


def objects_of(plain: Codec) -> Codec[Any]:
    return plain.with_objects(lambda message: json.dumps(message).encode(), loads)


def stream_of(plain: Codec, pieces: list[str | bytes]) -> tuple[bytes, list[Any]]:
    """Return a stream, and what is delivered: objects, and for a bad message its offset."""
    stream, expected = b"", []
    for piece in pieces:
        if isinstance(piece, bytes):
            stream += piece
            continue
        try:
            expected.append(loads(piece.encode()))
        except ValueError:
            expected.append(("refused", len(stream)))
        stream += plain.encode(piece.encode())
    return stream, expected


def collect(splitter: Any, call: Callable[[Any], list[Any]], argument: Any) -> list[Any]:
    """Return what a call delivers, and those after it that have no new bytes."""
    outcome: list[Any] = []
    while True:
        try:
            found = call(argument)
        except InvalidMessageError as error:
            outcome.append(("refused", error.stream_offset))
        else:
            outcome += found
            if not found:
                return outcome
        call, argument = splitter.feed, b""


@pytest.mark.parametrize("one_at_a_time", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_splitter_tells_where_a_refused_message_is(
    engine: ModuleType, name: str, one_at_a_time: bool
) -> None:
    plain, options, pieces = CASES[name]
    stream, expected = stream_of(plain, pieces)
    rng = random.Random(name)
    for largest in (len(stream), 1, 2, 3, 5, 9, 20):
        splitter = engine.Splitter(objects_of(plain), one_at_a_time=one_at_a_time, **options)
        outcome, pos = [], 0
        while pos < len(stream):
            size = rng.randint(1, largest) if largest < len(stream) else largest
            outcome += collect(splitter, splitter.feed, stream[pos : pos + size])
            pos += size
        assert outcome == expected, largest


def test_a_wrong_trailer_does_not_move_the_frames_before_it(engine: ModuleType) -> None:
    plain = Codec.uint(1, trailer=b"!", align=4)
    splitter = engine.Splitter(objects_of(plain))
    with pytest.raises(InvalidMessageError) as caught:
        splitter.feed(plain.encode(b"b") + plain.encode(b"1") + b"\1b?\0")
    assert caught.value.stream_offset == 0


@pytest.mark.parametrize("name", CASES)
def test_a_socket_tells_where_a_refused_message_is(name: str) -> None:
    plain, options, pieces = CASES[name]
    stream, expected = stream_of(plain, pieces)
    a, b = socket.socketpair()
    outcome: list[Any] = []
    with a, FrameSocket(b, objects_of(plain), **options) as conn:
        conn.settimeout(TIMEOUT)
        a.sendall(stream)
        while len(outcome) < len(expected):
            try:
                outcome.append(conn.recv())
            except InvalidMessageError as error:
                outcome.append(("refused", error.stream_offset))
    assert outcome == expected


@LOOPS
@pytest.mark.parametrize("name", CASES)
def test_a_stream_tells_where_a_refused_message_is(name: str, loop: str) -> None:
    plain, options, pieces = CASES[name]
    stream, expected = stream_of(plain, pieces)
    a, b = socket.socketpair()

    async def receive() -> list[Any]:
        outcome: list[Any] = []
        with a:
            conn = await open_connection(sock=b, codec=objects_of(plain), **options)
            # Two reads, of which the second comes before anything of the first is received.
            a.sendall(stream[: len(stream) // 2])
            await asyncio.sleep(0.02)
            a.sendall(stream[len(stream) // 2 :])
            await asyncio.sleep(0.02)
            while len(outcome) < len(expected):
                try:
                    outcome.append(await asyncio.wait_for(conn.recv(), TIMEOUT))
                except InvalidMessageError as error:
                    outcome.append(("refused", error.stream_offset))
            await conn.aclose()
        return outcome

    assert run(loop, receive()) == expected


@pytest.mark.parametrize("name", CASES)
def test_a_protocol_tells_where_a_refused_message_is(name: str) -> None:
    plain, options, pieces = CASES[name]
    stream, expected = stream_of(plain, pieces)
    a, b = socket.socketpair()
    outcome: list[Any] = []

    class Receiver(FrameProtocol[Any]):
        def messages_received(self, messages: list[Any]) -> None:
            outcome.extend(messages)

        def message_invalid(self, error: InvalidMessageError) -> None:
            outcome.append(("refused", error.stream_offset))

    async def receive() -> None:
        loop = asyncio.get_running_loop()
        with a:
            transport, _ = await loop.create_connection(
                lambda: Receiver(objects_of(plain), **options), sock=b
            )
            a.sendall(stream)
            async with asyncio.timeout(TIMEOUT):
                while len(outcome) < len(expected):
                    await asyncio.sleep(0.001)
            transport.close()

    asyncio.run(receive())
    assert outcome == expected


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case[1]])
def test_split_tells_how_many_bytes_the_messages_before_a_refused_one_have(name: str) -> None:
    plain, _, pieces = CASES[name]
    stream, expected = stream_of(plain, pieces)
    codec, outcome, pos = objects_of(plain), [], 0
    while len(outcome) < len(expected):
        try:
            messages, size = codec.split(stream[pos:])
        except InvalidMessageError:
            refused = expected[len(outcome)]
            outcome.append(refused)
            pos = refused[1] + len(plain.encode(b"bad"))
        else:
            outcome += messages
            pos += size
    assert outcome == expected


@pytest.mark.parametrize("name", CASES)
def test_an_observer_is_told_of_each_frame_once_though_frames_are_read_again(name: str) -> None:
    plain, options, pieces = CASES[name]
    stream, expected = stream_of(plain, pieces)
    sizes: list[int] = []

    class Sizes:
        def frame_received(self, _: Any, size: int) -> None:
            sizes.append(size)

    a, b = socket.socketpair()
    with a, FrameSocket(b, plain, observer=Sizes(), **options) as conn:
        conn.settimeout(TIMEOUT)
        a.sendall(stream)
        conn.recv()
        once = list(sizes)
        conn.switch(plain)
        for _ in expected[1:]:
            conn.recv()
    assert sizes == once
    assert len(sizes) == len(expected)


def refuse_bad(message: bytes) -> bytes:
    if message == b"bad":
        raise ValueError("refused")
    return message


@pytest.mark.parametrize(
    ("codec", "stream", "offset"),
    [
        (Codec.delimiter(b"\n", magic=b"$"), b"$bad\n\x02", 0),
        (Codec.delimiter(b"\n", magic=b"$"), b"\x02$bad\n\x02", 1),
        (Codec.uint(1, magic=b"M"), b"M\x03bad\x02", 0),
    ],
)
def test_a_bad_frame_of_one_byte_after_a_refused_message_counts(
    engine: ModuleType, codec: Codec[bytes], stream: bytes, offset: int
) -> None:
    objects = codec.with_objects(bytes, refuse_bad)
    splitter = engine.Splitter(objects, on_invalid="resync")
    with pytest.raises(InvalidMessageError) as raised:
        splitter.feed(stream)
    assert raised.value.stream_offset == offset


def test_ignored_frames_count_after_a_switch_to_objects(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    splitter.switch(Codec.delimiter(b"\n", skip_empty=True).with_objects(bytes, refuse_bad))
    with pytest.raises(InvalidMessageError) as raised:
        splitter.feed(b"\n\nbad\n\n\n")
    assert raised.value.stream_offset == 2
