"""What is sent in one turn of an event loop, in both twins: what waits, and what does not."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(params=["python", pytest.param("compiled", marks=pytest.mark.c_extension)])
def turns(request: pytest.FixtureRequest) -> ModuleType:
    names = {"python": "framecodec._turn_py", "compiled": "framecodec._turn"}
    return importlib.import_module(names[request.param])


class Protocol:
    """Notes what is left to it."""

    def __init__(self) -> None:
        self.put: list[Any] = []

    def _put(self, message: object) -> None:
        if message == "bad":
            raise TypeError(message)
        self.put.append(message)

    def _put_and_wait(self, message: object) -> str:
        self._put(message)
        return "to be awaited"


def turn_of(turns: ModuleType, protocol: Protocol, room: int = 100) -> Any:
    turn = turns.Turn(protocol, room)
    turn.sent = "nothing to wait for"
    turn.paused = False
    return turn


def test_small_messages_wait_in_order_while_a_flush_is_certain_to_come(turns: ModuleType) -> None:
    protocol = Protocol()
    turn = turn_of(turns, protocol)
    turn.send(b"first")
    assert protocol.put == [b"first"]  # it has a flush scheduled
    turn.quick = 50
    turn.send(b"a")
    assert turn.send_and_wait(b"bc") == "nothing to wait for"
    assert turn.send(b"") is None
    assert turn.messages == [b"a", b"bc", b""]
    assert turn.room == 100 - 3 - 3 * 8
    assert protocol.put == [b"first"]
    turn.clear()
    assert (turn.messages, turn.room, turn.quick) == ([], 100, 50)


def test_what_is_large_or_no_bytes_is_left_to_the_protocol(turns: ModuleType) -> None:
    class Bytes(bytes):
        pass

    protocol = Protocol()
    turn = turn_of(turns, protocol)
    turn.quick = 5
    others: list[Any] = [b"large", bytearray(b"a"), memoryview(b"a"), Bytes(b"a"), "text", None]
    for message in others:
        turn.send(message)
        assert turn.send_and_wait(message) == "to be awaited"
    assert protocol.put == [message for message in others for _ in range(2)]
    assert turn.messages == []


def test_a_turn_that_is_full_is_left_to_the_protocol(turns: ModuleType) -> None:
    protocol = Protocol()
    turn = turn_of(turns, protocol, room=20)
    turn.quick = 50
    for message in (b"12345", b"12345678", b"1"):
        turn.send(message)
    assert turn.messages == [b"12345", b"1"]
    assert protocol.put == [b"12345678"]
    turn.send(b"2")
    assert protocol.put == [b"12345678", b"2"]


def test_while_the_peer_is_slow_only_send_and_wait_waits(turns: ModuleType) -> None:
    protocol = Protocol()
    turn = turn_of(turns, protocol)
    turn.quick = 50
    turn.paused = True
    assert turn.send_and_wait(b"a") == "to be awaited"
    turn.send(b"b")
    assert (protocol.put, turn.messages) == ([b"a"], [b"b"])


def test_what_the_protocol_raises_is_raised(turns: ModuleType) -> None:
    turn = turn_of(turns, Protocol())
    for send in (turn.send, turn.send_and_wait):
        with pytest.raises(TypeError, match="bad"):
            send("bad")
