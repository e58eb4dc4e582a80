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
def fast_path(request: pytest.FixtureRequest) -> ModuleType:
    names = {
        "python": "framecodec.asyncio._fast_path_py",
        "compiled": "framecodec.asyncio._fast_path",
    }
    return importlib.import_module(names[request.param])


@pytest.fixture
def compiled_fast_path() -> ModuleType:
    return importlib.import_module("framecodec.asyncio._fast_path")


class Owner:
    """Notes what is left to it."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def put(self, message: object) -> None:
        if message == "bad":
            raise TypeError(message)
        self.taken.append(message)

    def put_and_wait(self, message: object) -> str:
        self.put(message)
        return "to be awaited"


def batch_of(fast_path: ModuleType, owner: Owner, budget: int = 100) -> Any:
    batch = fast_path.SendBatch(owner, budget)
    batch.paused = False
    batch.thread = threading.get_ident()
    return batch


def test_send_batch_keeps_small_messages_in_order_while_a_flush_is_certain(
    fast_path: ModuleType,
) -> None:
    owner = Owner()
    batch = batch_of(fast_path, owner)
    batch.send(b"first")
    assert owner.taken == [b"first"]  # it has a flush scheduled
    batch.fast_size = 50
    batch.send(b"a")
    assert isinstance(batch.send_and_wait(b"bc"), fast_path.CompletedAwaitable)
    assert batch.send(b"") is None
    assert batch.messages == [b"a", b"bc", b""]
    assert batch.budget == 100 - 3 - 3 * 8
    assert owner.taken == [b"first"]
    batch.clear()
    assert (batch.messages, batch.budget, batch.fast_size) == ([], 100, 50)


def test_send_batch_leaves_large_messages_and_other_types_to_its_owner(
    fast_path: ModuleType,
) -> None:
    class Bytes(bytes):
        pass

    owner = Owner()
    batch = batch_of(fast_path, owner)
    batch.fast_size = 5
    others: list[Any] = [b"large", bytearray(b"a"), memoryview(b"a"), Bytes(b"a"), "text", None]
    for message in others:
        batch.send(message)
        assert batch.send_and_wait(message) == "to be awaited"
    assert owner.taken == [message for message in others for _ in range(2)]
    assert batch.messages == []


def test_send_batch_leaves_messages_beyond_its_budget_to_its_owner(fast_path: ModuleType) -> None:
    owner = Owner()
    batch = batch_of(fast_path, owner, budget=20)
    batch.fast_size = 50
    for message in (b"12345", b"12345678", b"1"):
        batch.send(message)
    assert batch.messages == [b"12345", b"1"]
    assert owner.taken == [b"12345678"]
    batch.send(b"2")
    assert owner.taken == [b"12345678", b"2"]


def test_send_and_wait_asks_the_owner_while_the_peer_is_slow(fast_path: ModuleType) -> None:
    owner = Owner()
    batch = batch_of(fast_path, owner)
    batch.fast_size = 50
    batch.paused = True
    assert batch.send_and_wait(b"a") == "to be awaited"
    batch.send(b"b")
    assert (owner.taken, batch.messages) == ([b"a"], [b"b"])


def test_send_raises_what_the_owner_raises(fast_path: ModuleType) -> None:
    batch = batch_of(fast_path, Owner())
    for send in (batch.send, batch.send_and_wait):
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


def test_completed_awaitable_works_with_every_way_to_await(fast_path: ModuleType) -> None:
    async def main() -> None:
        done = fast_path.CompletedAwaitable()
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


def test_message_iterator_gives_ready_messages_before_those_of_the_stream(
    fast_path: ModuleType,
) -> None:
    async def main() -> None:
        messages = fast_path.MessageIterator(Stream(b"3", b"4"), list)
        messages.head = [b"2", b"1"]
        assert [message async for message in messages] == [b"1", b"2", b"3", b"4"]
        messages.head = [None, b"6", b"5"]
        assert await anext(messages) == b"5"
        assert await asyncio.wait_for(anext(messages), 10) == b"6"
        assert await anext(messages) is None
        with pytest.raises(StopAsyncIteration):
            await anext(messages)

    asyncio.run(main())


def test_message_iterator_gives_ready_messages_without_suspending(fast_path: ModuleType) -> None:
    async def main() -> None:
        messages = fast_path.MessageIterator(Stream(), list)
        messages.head = [b"2", b"1"]
        turns: list[None] = []
        asyncio.get_running_loop().call_soon(turns.append, None)
        assert [await anext(messages), await anext(messages)] == [b"1", b"2"]
        assert not turns

    asyncio.run(main())


def test_message_iterator_takes_a_message_when_it_is_awaited(fast_path: ModuleType) -> None:
    async def main() -> None:
        messages = fast_path.MessageIterator(Stream(), list)
        messages.head = [b"1"]
        unawaited = anext(messages)
        if hasattr(unawaited, "close"):
            unawaited.close()
        assert messages.head == [b"1"]

    asyncio.run(main())


@pytest.mark.c_extension
def test_message_iterator_refuses_a_second_await_for_one_ready_message(
    compiled_fast_path: ModuleType,
) -> None:
    async def main() -> None:
        messages = compiled_fast_path.MessageIterator(Stream(), list)
        messages.head = [b"1"]
        first, second = anext(messages), anext(messages)
        assert await first == b"1"
        with pytest.raises(RuntimeError, match="recv"):
            await second

    asyncio.run(main())


def test_send_batch_leaves_messages_of_another_thread_to_its_owner(
    fast_path: ModuleType,
) -> None:
    owner = Owner()
    batch = batch_of(fast_path, owner)
    batch.fast_size = 50
    thread = threading.Thread(target=lambda: (batch.send(b"a"), batch.send_and_wait(b"b")))
    thread.start()
    thread.join(10)
    assert batch.messages == []
    assert owner.taken == [b"a", b"b"]


# --- odd use --------------------------------------------------------------------------------------


def made(fast_path: ModuleType) -> dict[str, Any]:
    messages = fast_path.MessageIterator(Stream(), lambda: None)
    return {
        "CompletedAwaitable": fast_path.CompletedAwaitable(),
        "MessageIterator": messages,
        "ReadyIterator": fast_path.ReadyIterator(messages),
        "SendBatch": fast_path.SendBatch(Owner(), 100),
    }


@pytest.mark.parametrize(
    "name", ["CompletedAwaitable", "MessageIterator", "ReadyIterator", "SendBatch"]
)
def test_classes_refuse_to_be_copied(fast_path: ModuleType, name: str) -> None:
    part = made(fast_path)[name]
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=f"{name}.*connection"):
            duplicate(part)


@pytest.mark.parametrize("name", ["MessageIterator", "ReadyIterator", "SendBatch"])
def test_classes_are_made_whole_or_not_at_all(fast_path: ModuleType, name: str) -> None:
    kind = getattr(fast_path, name)
    with pytest.raises(TypeError):
        kind.__new__(kind)
    with pytest.raises(TypeError):
        kind()
    for wrong in (None, 1, object()):
        with pytest.raises(TypeError):
            fast_path.ReadyIterator(wrong)
    with pytest.raises(TypeError):
        fast_path.SendBatch(Owner(), "much")
    batch = batch_of(fast_path, Owner())
    batch.fast_size = 10
    batch.send(b"a")
    with contextlib.suppress(TypeError):
        batch.__init__(Owner(), 7)
    assert (batch.messages, batch.budget, batch.fast_size) == ([b"a"], 91, 10)


def test_completed_awaitable_throws_an_exception_in_every_form(fast_path: ModuleType) -> None:
    for forms in ([LookupError("a")], [LookupError, LookupError("a"), None], [LookupError]):
        with pytest.raises(LookupError) as caught:
            fast_path.CompletedAwaitable().throw(*forms)
        assert caught.value.message_started is True  # type: ignore[attr-defined]
    assert not hasattr(LookupError, "message_started")


# --- what is taken --------------------------------------------------------------------------------


def test_ready_iterator_reports_the_last_message_before_it_takes_it(fast_path: ModuleType) -> None:
    fails = [True]
    calls: list[int] = []

    def on_drained() -> None:
        calls.append(len(messages.head))
        if fails:
            raise MemoryError

    messages = fast_path.MessageIterator(Stream(), on_drained)
    ready = fast_path.ReadyIterator(messages)
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


def test_ready_iterator_allows_its_callback_to_take_the_last_message(fast_path: ModuleType) -> None:
    messages: Any = None

    def on_drained() -> None:
        messages.head.clear()

    messages = fast_path.MessageIterator(Stream(b"next"), on_drained)
    messages.head = [b"gone"]
    assert list(fast_path.ReadyIterator(messages)) == []
    messages.head = [b"gone"]

    async def take() -> Any:
        try:
            return await anext(aiter(messages))
        except RuntimeError as error:  # the compiled twin has begun already
            return error

    result = asyncio.run(take())
    assert result == b"next" or "another recv" in str(result)
