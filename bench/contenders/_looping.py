"""The user's loop around a contender in an event loop, which runs only while messages are due."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from itertools import repeat
from typing import Any

from . import Messages

TIMEOUT = 30.0  # seconds; nothing here should ever take so long


def new_runner(loop: str) -> asyncio.Runner:
    if loop == "uvloop":
        import uvloop

        return asyncio.Runner(loop_factory=uvloop.new_event_loop)
    return asyncio.Runner()


class _InLoop:
    def __init__(self, runner: asyncio.Runner, end: Callable[[], object]) -> None:
        self._runner = runner
        self._end = end

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(asyncio.wait_for(work, TIMEOUT))

    def close(self) -> None:
        async def end() -> None:
            ended = self._end()
            if isinstance(ended, Awaitable):
                await ended
            await asyncio.sleep(0.001)  # transports close in a later turn of the loop

        self._runner.run(end())
        self._runner.close()


class AwaitEach(_InLoop):
    """A contender that is awaited for each message."""

    def __init__(
        self,
        runner: asyncio.Runner,
        recv: Callable[[], Awaitable[bytes]],
        end: Callable[[], object],
    ) -> None:
        super().__init__(runner, end)
        self._recv = recv

    def run(self, count: int) -> bytes:
        async def receive() -> bytes:
            recv = self._recv
            for _ in repeat(None, count):
                message = await recv()
            return message

        return self._wait(receive())

    def collect(self, count: int) -> Messages:
        async def receive() -> Messages:
            return [await self._recv() for _ in range(count)]

        return self._wait(receive())


class AwaitBatches(_InLoop):
    """A contender that is awaited for a list."""

    def __init__(
        self,
        runner: asyncio.Runner,
        recv_many: Callable[[], Awaitable[Messages]],
        end: Callable[[], object],
    ) -> None:
        super().__init__(runner, end)
        self._recv_many = recv_many

    def run(self, count: int) -> bytes:
        async def receive() -> bytes:
            recv_many, remaining = self._recv_many, count
            while remaining > 0:
                messages = await recv_many()
                remaining -= len(messages)
                for message in messages:  # noqa: B007 - the user's loop
                    pass
            return message

        return self._wait(receive())

    def collect(self, count: int) -> Messages:
        async def receive() -> Messages:
            kept: Messages = []
            while len(kept) < count:
                kept += await self._recv_many()
            return kept

        return self._wait(receive())


class AsyncIteration(_InLoop):
    """A contender that is iterated over, `async for`, until the stream ends."""

    def __init__(self, runner: asyncio.Runner, stream: Any, end: Callable[[], object]) -> None:
        super().__init__(runner, end)
        self._stream = stream

    def run(self, count: int) -> bytes:
        async def receive() -> bytes:
            async for message in self._stream:  # noqa: B007 - the user's loop
                pass
            return message

        return self._wait(receive())

    def collect(self, count: int) -> Messages:
        async def receive() -> Messages:
            kept: Messages = []
            async for message in self._stream:
                kept.append(message)
                if len(kept) == count:
                    break
            return kept

        return self._wait(receive())


class Inbox:
    """Where callbacks put messages: counts them, keeps them on request, says when all are there."""

    def __init__(self) -> None:
        self._left = 0
        self._kept: Messages | None = None
        self._last = b""
        self._complete = False
        self._done: asyncio.Future[None] | None = None
        self.resume: Callable[[], object] = lambda: None

    def expect(self, count: int, *, keep: bool) -> None:
        """Before the loop runs: uvloop may read before the first step of a task."""
        self._left = count
        self._kept = [] if keep else None
        self._complete = False
        self._done = None

    async def wait(self) -> None:
        self.resume()
        if not self._complete:
            self._done = asyncio.get_running_loop().create_future()
            await self._done

    def put(self, message: bytes) -> None:
        if self._kept is not None:
            self._kept.append(message)
        self._left -= 1
        if not self._left:
            self._finish(message)

    def put_many(self, messages: Messages) -> None:
        if self._kept is not None:
            self._kept += messages
        for message in messages:  # noqa: B007 - the user's loop
            pass
        self._left -= len(messages)
        if not self._left and messages:
            self._finish(message)

    def _finish(self, message: bytes) -> None:
        self._last = message
        self._complete = True
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    @property
    def last(self) -> bytes:
        return self._last

    @property
    def kept(self) -> Messages:
        return self._kept or []


class CalledBack(_InLoop):
    """A contender that calls a method for each message or list of messages."""

    def __init__(self, runner: asyncio.Runner, inbox: Inbox, end: Callable[[], object]) -> None:
        super().__init__(runner, end)
        self._inbox = inbox

    def run(self, count: int) -> bytes:
        self._inbox.expect(count, keep=False)
        self._wait(self._inbox.wait())
        return self._inbox.last

    def collect(self, count: int) -> Messages:
        self._inbox.expect(count, keep=True)
        self._wait(self._inbox.wait())
        return self._inbox.kept


class AwaitCalls(_InLoop):
    """Round trips by a coroutine function that sends a request and returns its reply."""

    def __init__(
        self,
        runner: asyncio.Runner,
        call: Callable[[bytes], Awaitable[bytes]],
        end: Callable[[], object],
    ) -> None:
        super().__init__(runner, end)
        self._call = call

    def run(self, message: bytes, count: int) -> bytes:
        async def exchange() -> bytes:
            call = self._call
            for _ in repeat(None, count):
                reply = await call(message)
            return reply

        return self._wait(exchange())


class AwaitSends(_InLoop):
    """Sends a list of messages in one turn of the loop, then waits until the kernel has them."""

    def __init__(
        self,
        runner: asyncio.Runner,
        send_all: Callable[[Messages], Awaitable[object]],
        end: Callable[[], object],
    ) -> None:
        super().__init__(runner, end)
        self._send_all = send_all

    def run(self, messages: Messages, times: int) -> None:
        async def send() -> None:
            for _ in repeat(None, times):
                await self._send_all(messages)

        self._wait(send())


async def written(transport: Any) -> None:
    """Until the transport's buffer is empty."""
    while transport.get_write_buffer_size():
        await asyncio.sleep(0)


def nonblocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock
