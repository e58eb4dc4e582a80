"""Streams of one event loop that are ready together: read all, run all, write all."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from framecodec import Codec
from framecodec.asyncio import FrameStream, open_connection
from framecodec.asyncio.stream_protocol import StreamProtocol
from tests.helpers.event_loops import LOOPS, run

U4 = Codec.uint(4)
COUNT = 40  # more than run before the first of them is written


class Streams:
    """Streams, each with a task that runs `handle`, and their blocking peers."""

    def __init__(self) -> None:
        self.peers: list[socket.socket] = []
        self.streams: list[FrameStream] = []
        self.tasks: list[asyncio.Task[None]] = []

    def ask(self, *indices: int) -> None:
        """Send one message to each of these streams, all before the loop reads."""
        for index in indices or range(len(self.peers)):
            self.peers[index].sendall(U4.encode(b"%d" % index))

    def has_reply(self, index: int) -> bool:
        return bool(select.select([self.peers[index]], [], [], 0)[0])

    async def reply(self, index: int) -> bytes:
        """Return the next reply to a peer; b"" at the end."""
        async with asyncio.timeout(10):
            while not self.has_reply(index):
                await asyncio.sleep(0.001)
        head = self.peers[index].recv(4, socket.MSG_WAITALL)
        size = int.from_bytes(head)
        return self.peers[index].recv(size, socket.MSG_WAITALL) if size else b""

    async def replies(self, *indices: int) -> None:
        for index in indices or range(len(self.peers)):
            assert await self.reply(index) == b"%d" % index

    async def warm_up(self) -> None:
        """Let the loop find out that many are ready together."""
        for _ in range(20):
            self.ask()
            await self.replies()


@contextlib.asynccontextmanager
async def opened(
    handle: Callable[[Streams, int], Coroutine[Any, Any, None]], count: int = COUNT
) -> AsyncIterator[Streams]:
    made = Streams()
    for index in range(count):
        ours, theirs = socket.socketpair()
        made.peers.append(theirs)
        made.streams.append(await open_connection(sock=ours, codec=U4))
        made.tasks.append(asyncio.create_task(handle(made, index)))
    try:
        yield made
    finally:
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
        for stream in made.streams:
            stream._protocol._sending.abort()
        await asyncio.sleep(0.01)  # the transports close
        for peer in made.peers:
            peer.close()


async def echo(made: Streams, index: int) -> None:
    stream = made.streams[index]
    async for message in stream:
        await stream.send(message)


@LOOPS
def test_each_message_is_answered_once_however_many_streams_are_ready(loop: str) -> None:
    async def main() -> None:
        async with opened(echo) as made:
            await made.warm_up()
            for number in range(40):  # alone, some, all
                some = range(number % COUNT, min(COUNT, number % COUNT + 1 + number % 5))
                made.ask(*some)
                await made.replies(*some)
            for index in range(COUNT):
                assert not made.has_reply(index)

    run(loop, main())


@LOOPS
def test_tasks_run_before_what_the_first_of_them_has_sent_is_written(loop: str) -> None:
    written: list[list[int]] = []
    order: list[int] = []

    async def handle(made: Streams, index: int) -> None:
        stream = made.streams[index]
        async for message in stream:
            written.append([other for other in order if made.has_reply(other)])
            order.append(index)
            await stream.send(message)

    async def main() -> None:
        async with opened(handle) as made:
            await made.warm_up()
            written.clear()
            order.clear()
            made.ask()
            await made.replies()
            assert sorted(order) == list(range(COUNT))
            assert written[1] == []  # both were read, and the first is not written yet
            # Some are written before the last ones run.
            assert 0 < len(written[-1]) < COUNT

    run(loop, main())


@LOOPS
def test_a_stream_that_alone_is_ready_is_answered_in_the_iteration_that_reads(loop: str) -> None:
    iterations = 0

    async def handle(made: Streams, index: int) -> None:
        nonlocal iterations
        stream = made.streams[index]
        async for message in stream:
            iterations = 0
            await stream.send(message)

    async def main() -> None:
        nonlocal iterations
        async with opened(handle, 2) as made:
            taken: list[int] = []
            for _ in range(64):
                made.ask(0)
                iterations = -1000
                while iterations < 0 or not made.has_reply(0):
                    await asyncio.sleep(0)
                    iterations += 1
                taken.append(iterations)
                await made.replies(0)
            # One in 16 waits to see whether another one is ready.
            assert len(taken) - taken.count(min(taken)) <= 4

    run(loop, main())


@LOOPS
def test_a_task_whose_wake_up_fails_once_runs_in_the_next_iteration(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[BaseException] = []
    told: list[Any] = []
    current_task = StreamProtocol._current_task

    def fail_once() -> Any:
        if failures:
            raise failures.pop()
        return current_task()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with opened(echo) as made:
            await made.warm_up()
            failures.append(MemoryError())
            made.ask()
            await made.replies()
            assert not failures
            assert [type(context["exception"]) for context in told] == [MemoryError]

    monkeypatch.setattr(StreamProtocol, "_current_task", staticmethod(fail_once))
    run(loop, main())


@LOOPS
def test_a_write_that_fails_ends_its_own_connection_only(loop: str) -> None:
    class Broken:
        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self.transport, name)

        def write(self, data: object) -> None:
            raise ZeroDivisionError("a write that fails")

    async def main() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context.get("exception"))
        )
        async with opened(echo) as made:
            await made.warm_up()
            sending: Any = made.streams[3]._sending
            sending.raw_transport, sending.socket_fd = Broken(sending.raw_transport), -1
            made.ask()
            others = [index for index in range(COUNT) if index != 3]
            await made.replies(*others)
            assert await made.reply(3) == b""
            assert [type(error) for error in reported] == [ZeroDivisionError]
            made.ask(*others)
            await made.replies(*others)

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("how", ["abort", "cancel", "close"])
def test_a_task_may_end_the_others_that_are_ready(loop: str, how: str) -> None:
    to_end: list[int] = []

    async def handle(made: Streams, index: int) -> None:
        stream = made.streams[index]
        async for message in stream:
            for other in to_end if index == 0 else ():
                if how == "abort":
                    made.streams[other]._protocol._sending.abort()
                elif how == "cancel":
                    made.tasks[other].cancel()
                else:
                    made.streams[other].transport.close()
            await stream.send(message)

    async def main() -> None:
        async with opened(handle, 5) as made:
            await made.warm_up()
            to_end.extend([1, 2])
            made.ask()
            await made.replies(0, 3, 4)
            to_end.clear()
            for _ in range(20):
                made.ask(0, 3, 4)
                await made.replies(0, 3, 4)

    run(loop, main())


def test_streams_of_two_loops_do_not_wait_for_each_other() -> None:
    async def main() -> None:
        async with opened(echo, 3) as made:
            await made.warm_up()

    for _ in range(2):
        asyncio.run(main())
