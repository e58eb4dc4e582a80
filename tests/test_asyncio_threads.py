"""Streams that a thread uses which is not that of their event loop: refused, and never a crash."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from framecodec import Codec
from framecodec.asyncio import FrameStream, open_connection, start_server
from tests.helpers.servers import LOOPBACK, PATIENCE

CODEC = Codec.uint(2)

CALLS: dict[str, Callable[[FrameStream], Any]] = {
    "recv": lambda stream: stream.recv(),
    "recv_many": lambda stream: stream.recv_many(),
    "anext": lambda stream: anext(aiter(stream)),
    "recv_bytes": lambda stream: stream.recv_bytes(1),
    "recv_into": lambda stream: stream.recv_into(bytearray(9)),
    "recv_file": lambda stream: stream.recv_file(io.BytesIO()),
    "send": lambda stream: stream.send(b"x"),
    "send_many": lambda stream: stream.send_many([b"x"]),
    "send_bytes": lambda stream: stream.send_bytes(b"x"),
    "drain": lambda stream: stream.drain(),
    "aclose": lambda stream: stream.aclose(),
}
PLAIN_CALLS: dict[str, Callable[[FrameStream], Any]] = {
    "write_eof": lambda stream: stream.write_eof(),
    "switch": lambda stream: stream.switch(CODEC),
    "detach": lambda stream: stream.detach(),
    "transport.close": lambda stream: stream.transport.close(),
    "transport.abort": lambda stream: stream.transport.abort(),
    "transport.write": lambda stream: stream.transport.write(b"x"),
}


class LoopThread:
    """An event loop in a thread, with a server that echoes and a stream to it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._exits = contextlib.AsyncExitStack()
        self.stream: FrameStream[bytes] = self.run(self._open())

    async def _open(self) -> FrameStream[bytes]:
        async def echo(stream: FrameStream[bytes]) -> None:
            async for message in stream:
                await stream.send(message)

        self.server = await start_server(echo, LOOPBACK, codec=CODEC)
        await self._exits.enter_async_context(self.server)
        stream = open_connection(self.server.address, codec=CODEC)
        return await self._exits.enter_async_context(stream)

    def run(self, work: Any) -> Any:
        """Run a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def close(self) -> None:
        self.run(self._exits.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()


@pytest.fixture
def far() -> Iterator[LoopThread]:
    loop_thread = LoopThread()
    yield loop_thread
    loop_thread.close()


async def await_it(call: Callable[[FrameStream], Any], stream: FrameStream) -> Any:
    return await asyncio.wait_for(call(stream), PATIENCE)


@pytest.mark.parametrize("name", [*CALLS, *PLAIN_CALLS])
def test_a_call_of_another_thread_is_refused_and_changes_nothing(
    name: str, far: LoopThread
) -> None:
    stream = far.stream
    waiting = asyncio.run_coroutine_threadsafe(stream.recv(), far.loop)
    while stream._protocol._recv_waiter is None:
        far.run(asyncio.sleep(0))

    def call() -> None:
        if name in CALLS:
            asyncio.run(await_it(CALLS[name], stream))
        else:
            PLAIN_CALLS[name](stream)

    with pytest.raises(RuntimeError, match=r"event loop in another thread|another recv"):
        call()
    far.run(stream.send(b"hello"))
    assert waiting.result(PATIENCE) == b"hello"


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_another_thread_is_refused_where_no_task_waits(
    name: str, far: LoopThread
) -> None:
    stream = far.stream
    with pytest.raises(RuntimeError, match="event loop in another thread"):
        asyncio.run(await_it(CALLS[name], stream))
    far.run(stream.send(b"hello"))
    assert far.run(stream.recv()) == b"hello"


def test_any_thread_may_ask_for_the_state(far: LoopThread) -> None:
    assert len(far.server.connections) == 1
    assert far.stream.pending_messages == far.stream.pending_send == 0
    assert "open" in repr(far.stream)


def test_a_loop_may_run_in_another_thread_later() -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[Any, FrameStream[bytes]]:
        async def echo(stream: FrameStream[bytes]) -> None:
            async for message in stream:
                await stream.send(message)

        server = await start_server(echo, LOOPBACK, codec=CODEC)
        stream = await open_connection(server.address, codec=CODEC)
        await stream.send(b"one")
        assert await stream.recv() == b"one"
        return server, stream

    async def resume(server: Any, stream: FrameStream[bytes]) -> bytes:
        async with server, stream:
            await stream.send(b"two")
            return await stream.recv()

    server, stream = loop.run_until_complete(begin())
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(loop.run_until_complete(resume(server, stream)))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert results == [b"two"]
    loop.close()
