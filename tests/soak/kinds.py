"""Each kind of server, as the soak runs it: an echo of every message, with limits set."""

from __future__ import annotations

import asyncio
import contextlib
import socketserver
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import framecodec
import framecodec.asyncio
from framecodec import FrameError
from framecodec.socketserver import FrameRequestHandler
from tests.soak.clients import CODEC

__all__ = ["KINDS", "LIMITS", "LONG_LIMITS", "Kind", "Limits", "Served"]


@dataclass(frozen=True)
class Limits:
    """The limits of a server under attack, in seconds."""

    message: float = 1.0
    idle: float = 2.0
    call: float = 2.0  # of one call that sends, for a client that does not read

    @property
    def options(self) -> dict[str, Any]:
        return {"message_timeout": self.message, "idle_timeout": self.idle}


LIMITS = Limits()
LONG_LIMITS = Limits(4.0, 6.0, 6.0)  # for long runs, on a machine that has other work, too
MAX_CONNECTIONS = 500
# Where more clients wait than this, Linux drops the last packet of a handshake: the client is
# connected, the server is not, and no limit of the server can end that.
BACKLOG = 4096


@dataclass
class Served:
    """A server that runs."""

    port: int
    connections: Callable[[], int]
    tasks: Callable[[], int] = lambda: 0  # of its event loop, the server's own among them


Kind = Callable[[Limits], contextlib.AbstractContextManager[Served]]


# --- in threads -----------------------------------------------------------------------------------


@contextlib.contextmanager
def served_by_threads(limits: Limits) -> Iterator[Served]:
    def handler(conn: Any) -> None:
        conn.settimeout(limits.call)
        for message in conn:
            conn.send(message)

    options = limits.options | {"max_connections": MAX_CONNECTIONS, "backlog": BACKLOG}
    with framecodec.serve(handler, ("127.0.0.1", 0), CODEC, **options) as server:
        yield Served(server.address[1], lambda: len(server.connections))


@contextlib.contextmanager
def served_by_one_thread(limits: Limits) -> Iterator[Served]:
    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        return messages

    options = limits.options | {"max_connections": MAX_CONNECTIONS, "backlog": BACKLOG}
    with framecodec.serve_messages(handle, ("127.0.0.1", 0), CODEC, **options) as server:
        yield Served(server.address[1], lambda: len(server.connections))


class QuietServer(socketserver.ThreadingTCPServer):
    request_queue_size = BACKLOG
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: the base class prints a traceback for each hostile client."""


@contextlib.contextmanager
def served_by_socketserver(limits: Limits) -> Iterator[Served]:
    lock, handlers = threading.Lock(), [0]

    class Echo(FrameRequestHandler):
        codec = CODEC
        message_timeout = limits.message
        idle_timeout = limits.idle
        timeout = limits.call

        def setup(self) -> None:
            with lock:
                handlers[0] += 1
            super().setup()

        def handle_message(self, message: bytes) -> bytes:
            return message

        def finish(self) -> None:
            super().finish()
            with lock:
                handlers[0] -= 1

    with QuietServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Served(server.server_address[1], lambda: handlers[0])
        finally:
            server.shutdown()
            thread.join(20)


# --- in an event loop -----------------------------------------------------------------------------


@contextlib.contextmanager
def in_a_loop(serving: Callable[[], Any]) -> Iterator[Served]:
    """Run an event loop in a thread, with the server that this async context manager starts.

    It yields the port and a function that returns the number of connections.
    """
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        found["loop"], found["end"] = asyncio.get_running_loop(), asyncio.Event()
        async with serving() as (port, connections):
            found["served"] = Served(port, connections, count_tasks)
            ready.set()
            await found["end"].wait()

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1  # but for this one

    def count_tasks() -> int:
        return asyncio.run_coroutine_threadsafe(count(), found["loop"]).result(20)

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        yield found["served"]
    finally:
        found["loop"].call_soon_threadsafe(found["end"].set)
        thread.join(20)


def served_by_asyncio(limits: Limits) -> contextlib.AbstractContextManager[Served]:
    async def handler(stream: Any) -> None:
        async for message in stream:
            async with asyncio.timeout(limits.call):
                await stream.send(message)

    @contextlib.asynccontextmanager
    async def serving() -> AsyncIterator[tuple[int, Callable[[], int]]]:
        options = limits.options | {"max_connections": MAX_CONNECTIONS, "backlog": BACKLOG}
        async with framecodec.asyncio.start_server(
            handler, "127.0.0.1", 0, codec=CODEC, **options
        ) as server:
            yield server.sockets[0].getsockname()[1], lambda: len(server.connections)

    return in_a_loop(serving)


def served_by_protocols(limits: Limits) -> contextlib.AbstractContextManager[Served]:
    connected: set[Any] = set()

    class Echo(framecodec.asyncio.FrameProtocol[bytes]):
        end_of_patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            connected.add(self)

        def messages_received(self, messages: list[bytes]) -> None:
            self.send_many(messages)

        def pause_writing(self) -> None:  # send() never waits: read no more until replies leave
            self.transport.pause_reading()
            loop = asyncio.get_running_loop()
            self.end_of_patience = loop.call_later(limits.call, self.transport.abort)

        def resume_writing(self) -> None:
            self.stop_timer()
            self.transport.resume_reading()

        def connection_lost(self, error: BaseException | None) -> None:
            self.stop_timer()
            connected.discard(self)

        def stop_timer(self) -> None:
            if self.end_of_patience is not None:
                self.end_of_patience.cancel()
                self.end_of_patience = None

    @contextlib.asynccontextmanager
    async def serving() -> AsyncIterator[tuple[int, Callable[[], int]]]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        server = await loop.create_server(
            lambda: Echo(CODEC, **limits.options), "127.0.0.1", 0, backlog=BACKLOG
        )
        try:
            yield server.sockets[0].getsockname()[1], lambda: len(connected)
        finally:
            server.close()
            for connection in [*connected]:
                connection.transport.abort()
            await asyncio.sleep(0.05)

    return in_a_loop(serving)


def served_by_anyio(limits: Limits) -> contextlib.AbstractContextManager[Served]:
    import anyio

    import framecodec.anyio

    open_streams = [0]

    async def talk(stream: Any) -> None:
        while True:
            try:
                with anyio.fail_after(limits.idle):
                    message = await stream.receive()
            except anyio.EndOfStream:
                return
            with anyio.fail_after(limits.call):
                await stream.send(message)

    async def handler(client: Any) -> None:
        open_streams[0] += 1
        try:
            async with framecodec.anyio.FrameStream(client, CODEC) as stream:
                with contextlib.suppress(FrameError, TimeoutError, anyio.BrokenResourceError):
                    await talk(stream)
        except anyio.BrokenResourceError:
            pass
        finally:
            open_streams[0] -= 1

    @contextlib.asynccontextmanager
    async def serving() -> AsyncIterator[tuple[int, Callable[[], int]]]:
        listener = await anyio.create_tcp_listener(
            local_host="127.0.0.1", local_port=0, backlog=BACKLOG
        )
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, handler)
            yield port, lambda: open_streams[0]
            group.cancel_scope.cancel()

    return in_a_loop(serving)


KINDS: dict[str, Kind] = {
    "serve": served_by_threads,
    "serve_messages": served_by_one_thread,
    "socketserver": served_by_socketserver,
    "asyncio": served_by_asyncio,
    "protocol": served_by_protocols,
    "anyio": served_by_anyio,
}
