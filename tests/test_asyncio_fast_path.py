"""The short way through an event loop, in both twins: what simply waits, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import importlib
import pickle
import threading
from types import ModuleType
from typing import Any, NoReturn

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
        with pytest.raises(RuntimeError, match="recv"):
            await asyncio.create_task(second)

    asyncio.run(main())


@pytest.mark.c_extension
def test_a_path_that_was_never_opened_has_no_thread(compiled_fast_path: ModuleType) -> None:
    path = compiled_fast_path.ReceivePath.__new__(compiled_fast_path.ReceivePath)
    assert path.stop_waiting() is None


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


def refuse(message: Any, cause: BaseException) -> NoReturn:
    raise LookupError(message) from cause


def made(fast_path: ModuleType) -> dict[str, Any]:
    messages = fast_path.MessageIterator(Stream(), lambda: None)
    return {
        "CompletedAwaitable": fast_path.CompletedAwaitable(),
        "MessageIterator": messages,
        "ObjectIterator": fast_path.ObjectIterator(messages, bytes, refuse),
        "ObjectSender": fast_path.ObjectSender(str, bytes),
        "ReadyIterator": fast_path.ReadyIterator(messages),
        "ReadyObjects": fast_path.ReadyObjects(fast_path.ObjectIterator(messages, bytes, refuse)),
        "ReadyTasks": fast_path.ReadyTasks(),
        "SendBatch": fast_path.SendBatch(Owner(), 100),
    }


def test_classes_refuse_to_be_copied(fast_path: ModuleType) -> None:
    for name, part in made(fast_path).items():
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=f"{name}.*connection"):
                duplicate(part)


@pytest.mark.parametrize("name", ["MessageIterator", "ReadyIterator", "ReadyObjects", "SendBatch"])
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
            fast_path.ReadyObjects(wrong)
    with pytest.raises(TypeError):
        fast_path.SendBatch(Owner(), "much")
    batch = batch_of(fast_path, Owner())
    batch.fast_size = 10
    batch.send(b"a")
    with contextlib.suppress(TypeError):
        batch.__init__(Owner(), 7)
    assert (batch.messages, batch.budget, batch.fast_size) == ([b"a"], 91, 10)


@pytest.mark.c_extension
def test_ready_objects_stay_where_the_task_that_awaits_them_is_cancelled(
    compiled_fast_path: ModuleType,
) -> None:
    messages = compiled_fast_path.MessageIterator(Stream(), list)
    messages.head = [b"1"]

    async def main() -> None:
        task = asyncio.create_task(anext(compiled_fast_path.ObjectIterator(messages, int, refuse)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert messages.head == [b"1"]


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


def test_ready_objects_take_a_message_that_is_refused(fast_path: ModuleType) -> None:
    calls: list[int] = []
    messages = fast_path.MessageIterator(Stream(), lambda: calls.append(len(messages.head)))
    ready = fast_path.ReadyObjects(fast_path.ObjectIterator(messages, int, refuse))
    assert list(ready) == []
    messages.head = [b"3", b"x", b"1"]
    assert next(ready) == 1
    with pytest.raises(LookupError) as caught:
        next(ready)
    assert caught.value.args == (b"x",)
    assert isinstance(caught.value.__cause__, ValueError)
    assert list(ready) == [3]
    assert messages.head == []
    assert calls == [1]


def test_object_iterator_makes_objects_of_ready_messages_and_of_the_streams(
    fast_path: ModuleType,
) -> None:
    calls: list[int] = []
    messages = fast_path.MessageIterator(Stream(b"next"), lambda: calls.append(1))
    objects = aiter(fast_path.ObjectIterator(messages, int, refuse))
    messages.head = [b"x", b"2", b"1"]

    async def main() -> None:
        assert [await anext(objects), await anext(objects)] == [1, 2]
        with pytest.raises(LookupError) as caught:
            await anext(objects)
        assert caught.value.args == (b"x",)
        assert (messages.head, calls) == ([], [1])
        assert await anext(objects) == b"next"  # the stream makes the object

    asyncio.run(main())


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


# --- the wait of a task that receives -------------------------------------------------------------


async def note_wait(waiter: Any, notes: list[str]) -> None:
    notes.append("waits")
    await waiter
    notes.append("ended")


def waiter_of(fast_path: ModuleType) -> Any:
    return fast_path.Waiter(asyncio.get_running_loop(), asyncio.current_task)


def test_waiter_runs_the_task_at_once_between_tasks(fast_path: ModuleType) -> None:
    async def main() -> None:
        waiter, notes = waiter_of(fast_path), []
        task = asyncio.create_task(note_wait(waiter, notes))
        await asyncio.sleep(0)
        ran = asyncio.get_running_loop().create_future()

        def read() -> None:
            ran.set_result((waiter.run(), list(notes)))

        asyncio.get_running_loop().call_soon(read)
        assert await ran == (True, ["waits", "ended"])
        await task
        assert waiter.done()
        assert waiter.run() is False

    asyncio.run(main())


def test_waiter_runs_the_task_in_its_own_context(fast_path: ModuleType) -> None:
    async def main() -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
        waiter, seen = waiter_of(fast_path), []

        async def wait() -> None:
            variable.set("the task's")
            await waiter
            seen.append((variable.get(), asyncio.current_task() is task))

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(waiter.run)
        await task
        assert seen == [("the task's", True)]
        assert variable.get() == "none"

    asyncio.run(main())


def test_waiter_leaves_the_task_to_the_loop_while_another_one_runs(fast_path: ModuleType) -> None:
    async def main() -> None:
        waiter, notes = waiter_of(fast_path), []
        task = asyncio.create_task(note_wait(waiter, notes))
        await asyncio.sleep(0)
        assert waiter.run() is False
        assert waiter.done()
        assert notes == ["waits"]
        await task
        assert notes == ["waits", "ended"]

    asyncio.run(main())


def test_waiter_leaves_the_task_to_the_loop_while_its_context_is_in_use(
    fast_path: ModuleType,
) -> None:
    async def main() -> None:
        waiter, notes = waiter_of(fast_path), []
        context = contextvars.copy_context()
        task = asyncio.get_running_loop().create_task(note_wait(waiter, notes), context=context)
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(waiter.run, context=context)
        await task
        assert notes == ["waits", "ended"]

    asyncio.run(main())


@pytest.mark.parametrize("ended", [False, True])
def test_a_cancelled_wait_raises_in_the_task(fast_path: ModuleType, ended: bool) -> None:
    async def main() -> None:
        waiter, notes = waiter_of(fast_path), []
        task = asyncio.create_task(note_wait(waiter, notes))
        await asyncio.sleep(0)
        if ended:
            waiter.set_result(None)
        task.cancel("why")
        assert waiter.cancelled() is not ended
        assert waiter.run() is False
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
        assert notes == ["waits"]
        assert waiter.cancel() is False

    asyncio.run(main())


def test_waiter_is_a_future_for_asyncio(fast_path: ModuleType) -> None:
    async def main() -> None:
        waiter = waiter_of(fast_path)
        assert asyncio.isfuture(waiter)
        assert waiter.get_loop() is asyncio.get_running_loop()
        for question in (waiter.result, waiter.exception):
            with pytest.raises(asyncio.InvalidStateError):
                question()
        calls: list[Any] = []
        assert waiter.remove_done_callback(calls.append) == 0
        waiter.add_done_callback(calls.append)
        with pytest.raises(RuntimeError, match="another recv"):
            waiter.add_done_callback(print)
        assert waiter.remove_done_callback(calls.append) == 1
        waiter.set_result(None)
        waiter.add_done_callback(calls.append)
        await asyncio.sleep(0)
        assert calls == [waiter]
        assert (waiter.result(), waiter.exception(), waiter.cancelled()) == (None, None, False)
        assert await waiter is None
        for part in (waiter, waiter.__await__()):
            with pytest.raises(TypeError, match=r"Waiter|generator"):
                copy.copy(part)

    asyncio.run(main())


def test_the_await_of_a_waiter_is_a_generator(fast_path: ModuleType) -> None:
    async def main() -> None:
        waiter = waiter_of(fast_path)
        wait = iter(waiter.__await__())
        assert wait.send(None) is waiter
        waiter.set_result(None)
        with pytest.raises(StopIteration) as caught:
            wait.send(None)
        assert caught.value.value is None
        for forms in ([LookupError("a")], [LookupError]):
            with pytest.raises(LookupError):
                waiter.__await__().throw(*forms)
        wait.close()

    asyncio.run(main())


def test_an_error_that_ends_the_program_leaves_the_loop(fast_path: ModuleType) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        waiter = waiter_of(fast_path)

        async def end() -> None:
            await waiter
            raise SystemExit(7)

        tasks.append(asyncio.create_task(end()))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(waiter.run)
        await asyncio.wait(tasks)
        await asyncio.sleep(1)

    with pytest.raises(SystemExit, match="7"):
        asyncio.run(main())
    # An error that is never asked for is logged by a later collection, during another test.
    assert isinstance(tasks[0].exception(), SystemExit)


def test_waiter_leaves_the_task_to_a_loop_that_does_not_run(fast_path: ModuleType) -> None:
    loop = asyncio.new_event_loop()
    ended: list[Any] = []
    waiter = fast_path.Waiter(loop, asyncio.current_task)
    waiter.add_done_callback(ended.append, context=contextvars.copy_context())
    assert waiter.run() is False
    assert (ended, waiter.done()) == ([], True)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert ended == [waiter]


def test_connection_without_a_task_that_waits_is_not_put_off(fast_path: ModuleType) -> None:
    tasks = fast_path.ReadyTasks()
    for _ in range(100):
        assert tasks.put_off(fast_path.ReceivePath()) is False
    tasks.run()
