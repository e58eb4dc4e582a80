"""The short way through an event loop, in both twins: what simply waits, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import pickle
import threading
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(params=["python", pytest.param("compiled", marks=pytest.mark.c_extension)])
def loop_io(request: pytest.FixtureRequest) -> ModuleType:
    names = {"python": "framecodec._loop_io_py", "compiled": "framecodec._loop_io"}
    return importlib.import_module(names[request.param])


@pytest.fixture
def compiled_loop_io() -> ModuleType:
    return importlib.import_module("framecodec._loop_io")


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


def turn_of(loop_io: ModuleType, protocol: Protocol, room: int = 100) -> Any:
    turn = loop_io.Turn(protocol, room)
    turn.paused = False
    turn.thread = threading.get_ident()
    return turn


def test_small_messages_wait_in_order_while_a_flush_is_certain_to_come(loop_io: ModuleType) -> None:
    protocol = Protocol()
    turn = turn_of(loop_io, protocol)
    turn.send(b"first")
    assert protocol.put == [b"first"]  # it has a flush scheduled
    turn.quick = 50
    turn.send(b"a")
    assert isinstance(turn.send_and_wait(b"bc"), loop_io.Done)
    assert turn.send(b"") is None
    assert turn.messages == [b"a", b"bc", b""]
    assert turn.room == 100 - 3 - 3 * 8
    assert protocol.put == [b"first"]
    turn.clear()
    assert (turn.messages, turn.room, turn.quick) == ([], 100, 50)


def test_what_is_large_or_no_bytes_is_left_to_the_protocol(loop_io: ModuleType) -> None:
    class Bytes(bytes):
        pass

    protocol = Protocol()
    turn = turn_of(loop_io, protocol)
    turn.quick = 5
    others: list[Any] = [b"large", bytearray(b"a"), memoryview(b"a"), Bytes(b"a"), "text", None]
    for message in others:
        turn.send(message)
        assert turn.send_and_wait(message) == "to be awaited"
    assert protocol.put == [message for message in others for _ in range(2)]
    assert turn.messages == []


def test_a_turn_that_is_full_is_left_to_the_protocol(loop_io: ModuleType) -> None:
    protocol = Protocol()
    turn = turn_of(loop_io, protocol, room=20)
    turn.quick = 50
    for message in (b"12345", b"12345678", b"1"):
        turn.send(message)
    assert turn.messages == [b"12345", b"1"]
    assert protocol.put == [b"12345678"]
    turn.send(b"2")
    assert protocol.put == [b"12345678", b"2"]


def test_while_the_peer_is_slow_only_send_and_wait_waits(loop_io: ModuleType) -> None:
    protocol = Protocol()
    turn = turn_of(loop_io, protocol)
    turn.quick = 50
    turn.paused = True
    assert turn.send_and_wait(b"a") == "to be awaited"
    turn.send(b"b")
    assert (protocol.put, turn.messages) == ([b"a"], [b"b"])


def test_what_the_protocol_raises_is_raised(loop_io: ModuleType) -> None:
    turn = turn_of(loop_io, Protocol())
    for send in (turn.send, turn.send_and_wait):
        with pytest.raises(TypeError, match="bad"):
            send("bad")


# --- awaitables -----------------------------------------------------------------------------------


class Stream:
    """Has messages that must be waited for."""

    def __init__(self, *waiting: bytes) -> None:
        self.waiting = list(waiting)

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if not self.waiting:
            raise StopAsyncIteration
        return self.waiting.pop(0)


def test_what_is_done_is_awaited_in_every_way(loop_io: ModuleType) -> None:
    async def main() -> None:
        done = loop_io.Done()
        assert await done is None
        assert await done is None
        assert await asyncio.wait_for(done, 10) is None
        assert await asyncio.create_task(done) is None
        assert await asyncio.gather(done, done) == [None, None]
        async with asyncio.TaskGroup() as group:
            group.create_task(done)
        task = asyncio.create_task(done)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done.close()

    asyncio.run(main())


def test_messages_at_hand_are_given_first_and_then_those_of_the_stream(loop_io: ModuleType) -> None:
    async def main() -> None:
        messages = loop_io.Messages(Stream(b"3", b"4"), list)
        messages.head = [b"2", b"1"]
        assert [message async for message in messages] == [b"1", b"2", b"3", b"4"]
        messages.head = [None, b"6", b"5"]
        assert await anext(messages) == b"5"
        assert await asyncio.wait_for(anext(messages), 10) == b"6"
        assert await anext(messages) is None
        with pytest.raises(StopAsyncIteration):
            await anext(messages)

    asyncio.run(main())


def test_messages_at_hand_are_given_without_a_turn_of_the_loop(loop_io: ModuleType) -> None:
    async def main() -> None:
        messages = loop_io.Messages(Stream(), list)
        messages.head = [b"2", b"1"]
        turns: list[None] = []
        asyncio.get_running_loop().call_soon(turns.append, None)
        assert [await anext(messages), await anext(messages)] == [b"1", b"2"]
        assert not turns

    asyncio.run(main())


def test_a_message_is_taken_when_it_is_awaited_and_not_before(loop_io: ModuleType) -> None:
    async def main() -> None:
        messages = loop_io.Messages(Stream(), list)
        messages.head = [b"1"]
        unawaited = anext(messages)
        if hasattr(unawaited, "close"):
            unawaited.close()
        assert messages.head == [b"1"]

    asyncio.run(main())


@pytest.mark.c_extension
def test_two_that_wait_for_one_message_at_hand_are_an_error(
    compiled_loop_io: ModuleType,
) -> None:
    async def main() -> None:
        messages = compiled_loop_io.Messages(Stream(), list)
        messages.head = [b"1"]
        first, second = anext(messages), anext(messages)
        assert await first == b"1"
        with pytest.raises(RuntimeError, match="recv"):
            await second

    asyncio.run(main())


def test_a_message_of_another_thread_does_not_wait_with_those_of_the_loop(
    loop_io: ModuleType,
) -> None:
    protocol = Protocol()
    turn = turn_of(loop_io, protocol)
    turn.quick = 50
    thread = threading.Thread(target=lambda: (turn.send(b"a"), turn.send_and_wait(b"b")))
    thread.start()
    thread.join(10)
    assert turn.messages == []
    assert protocol.put == [b"a", b"b"]


# --- odd use --------------------------------------------------------------------------------------


def made(loop_io: ModuleType) -> dict[str, Any]:
    messages = loop_io.Messages(Stream(), lambda: None)
    return {
        "Done": loop_io.Done(),
        "Messages": messages,
        "Ready": loop_io.Ready(messages),
        "Turn": loop_io.Turn(Protocol(), 100),
    }


@pytest.mark.parametrize("name", ["Done", "Messages", "Ready", "Turn"])
def test_a_part_of_a_connection_is_not_copied(loop_io: ModuleType, name: str) -> None:
    part = made(loop_io)[name]
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=f"a {name} belongs to one connection"):
            duplicate(part)


@pytest.mark.parametrize("name", ["Messages", "Ready", "Turn"])
def test_a_part_of_a_connection_is_made_whole_or_not_at_all(loop_io: ModuleType, name: str) -> None:
    kind = getattr(loop_io, name)
    with pytest.raises(TypeError):
        kind.__new__(kind)
    with pytest.raises(TypeError):
        kind()
    for wrong in (None, 1, object()):
        with pytest.raises(TypeError):
            loop_io.Ready(wrong)
    with pytest.raises(TypeError):
        loop_io.Turn(Protocol(), "much")
    turn = turn_of(loop_io, Protocol())
    turn.quick = 10
    turn.send(b"a")
    with contextlib.suppress(TypeError):
        turn.__init__(Protocol(), 7)
    assert (turn.messages, turn.room, turn.quick) == ([b"a"], 91, 10)


def test_an_exception_is_thrown_in_every_form(loop_io: ModuleType) -> None:
    for forms in ([LookupError("a")], [LookupError, LookupError("a"), None], [LookupError]):
        with pytest.raises(LookupError) as caught:
            loop_io.Done().throw(*forms)
        assert caught.value.message_started is True  # type: ignore[attr-defined]
    assert not hasattr(LookupError, "message_started")


# --- what is taken --------------------------------------------------------------------------------


def test_the_last_message_is_taken_only_when_it_is_counted(loop_io: ModuleType) -> None:
    fails = [True]
    calls: list[int] = []

    def emptied() -> None:
        calls.append(len(messages.head))
        if fails:
            raise MemoryError

    messages = loop_io.Messages(Stream(), emptied)
    ready = loop_io.Ready(messages)
    assert list(ready) == []
    assert not calls
    messages.head = [b"c", b"b", b"a"]
    assert [next(ready), next(ready)] == [b"a", b"b"]

    async def take() -> Any:
        return await anext(aiter(messages))

    with pytest.raises(MemoryError):
        next(ready)
    with pytest.raises(MemoryError):
        asyncio.run(take())
    assert messages.head == [b"c"]
    fails.clear()
    assert next(ready) == b"c"
    messages.head = [b"d"]
    assert asyncio.run(take()) == b"d"
    assert messages.head == []
    assert calls == [1, 1, 1, 1]


def test_what_is_called_in_between_may_take_the_last_message(loop_io: ModuleType) -> None:
    messages: Any = None

    def emptied() -> None:
        messages.head.clear()

    messages = loop_io.Messages(Stream(b"next"), emptied)
    messages.head = [b"gone"]
    assert list(loop_io.Ready(messages)) == []
    messages.head = [b"gone"]

    async def take() -> Any:
        try:
            return await anext(aiter(messages))
        except RuntimeError as error:  # the compiled twin has begun already
            return error

    result = asyncio.run(take())
    assert result == b"next" or "another recv" in str(result)
