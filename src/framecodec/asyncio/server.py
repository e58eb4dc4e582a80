"""`FrameServer`: a server in an event loop that survives its clients and ends in bounded time.

asyncio's own server makes the listening sockets, and this one accepts from them. So it knows every
connection from the beginning, those in a TLS handshake too: `FrameServer.aclose` can end each of
them, and `max_connections` leaves further clients unaccepted. A server of asyncio alone waits in
`wait_closed` until the last client leaves (Python 3.12 and later).

One task opens a connection (its handshake), and another one runs its handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, final, overload

from .. import _error_texts, errors
from .. import _log as log
from .._message_types import MessageT, OfMessages, SpecialT
from .._peers import peer_name
from .._states import TransportState
from ..codec import Codec
from ..serving.common import (
    AFTER_ABORT,
    BACKLOG_LIMIT,
    check_connections,
    check_grace,
    is_clean_end,
    is_clients_fault,
)
from ..sockets.accept_pause import AcceptPause
from ..sockets.base import prepare
from .observed import note_sent
from .stream import FrameStream
from .stream_protocol import StreamProtocol

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

__all__ = ["FrameServer", "Handler", "check_handler"]

Handler: TypeAlias = Callable[[FrameStream[MessageT]], Awaitable[object]]

# Connections that are accepted before the loop runs anything else.
_ACCEPTED_AT_ONCE = 16

# The loop's exception handler is not told of these.
_DISCONNECTS = (EOFError, errors.FrameError, ConnectionError, ssl.SSLError)


def check_handler(handler: Handler[MessageT]) -> Handler[MessageT]:
    """Return the handler.

    Raises:
        TypeError: It is not an async function.
    """
    called = getattr(handler, "__call__", None)  # noqa: B004
    if not (inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called)):
        raise TypeError(
            f"the handler must be an async function, not {handler!r};"
            " write async def handler(stream)"
        )
    return handler


@final
class FrameServer(OfMessages[MessageT], asyncio.AbstractServer):
    """A server in an event loop; `start_server` and `start_unix_server` return one.

    It has the interface of `asyncio.Server`. The end of an ``async with`` block is `aclose`.

    Args:
        handler: As for `start_server`.
        codec: The shape of the frames.
        max_connections: As for `start_server`.
        keepalive: As for `start_server`.
        options: The options of each connection, by their names.
    """

    def __init__(
        self,
        handler: Handler[MessageT],
        codec: Codec[MessageT],
        max_connections: int | None,
        keepalive: bool | float | None,
        options: dict[str, Any],
    ) -> None:
        self._handler = check_handler(handler)
        self._codec = codec
        self._keepalive = keepalive
        self._options = options
        self._max_connections = check_connections(max_connections)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._listening: Any = None  # asyncio's own server
        self._acceptor: _Acceptor | None = None  # None before there are sockets
        self._address: Any = None
        self._tls: dict[str, Any] = {}
        self._started = self._ending = False
        self._closed = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()  # in their handshake, for example
        self._served: dict[asyncio.Task[None], _Served] = {}

    async def _listen(
        self, create: Callable[..., Coroutine[Any, Any, Any]], *where: Any, **options: Any
    ) -> Self:
        """Make the listening sockets, and start unless the options say otherwise."""
        start = options.pop("start_serving", True)
        self._listening = await create(
            self._create_protocol, *where, start_serving=False, **options
        )
        try:
            self._address = self.sockets[0].getsockname()
            for name in ("ssl", "ssl_handshake_timeout", "ssl_shutdown_timeout"):
                if options.get(name) is not None:
                    self._tls[name] = options[name]
            self._acceptor = _Acceptor(self, self.sockets, options.get("backlog", 100))
            if start:
                await self.start_serving()
        except BaseException:
            self.close()
            raise
        return self

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "listening" if self._started else "open"
        return f"<{type(self).__name__} {state} on {self._name}, {len(self._served)} connections>"

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    @property
    def _name(self) -> str:
        return peer_name(self._address, self._address)

    # --- what its owner sees ----------------------------------------------------------------------

    @property
    def address(self) -> Any:
        """The bound address, the first one of several; also after the end."""
        return self._address

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets; empty after `close`."""
        return () if self._closed.is_set() else tuple(self._listening.sockets)

    @property
    def connections(self) -> frozenset[FrameStream[MessageT]]:
        """The streams whose handlers run at this moment."""
        served = [*self._served.values()]  # other threads may ask, also without a GIL
        return frozenset(one.stream for one in served if one.handled)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of the server."""
        return self._loop

    def is_serving(self) -> bool:
        """Return whether the server accepts connections."""
        return self._started and not self._closed.is_set()

    @overload
    def broadcast(self: FrameServer[bytes | SpecialT], message: Buffer | SpecialT) -> int: ...

    @overload
    def broadcast(self, message: MessageT) -> int: ...

    def broadcast(self, message: Any) -> int:
        """Send one message to all connections, and wait for none of them.

        It is encoded once. A connection for which more than 16 MiB wait is ended instead.

        Args:
            message: As for `FrameStream.send`.

        Returns:
            The number of connections that took the message.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; no connection took it.
            RuntimeError: The server belongs to an event loop in another thread.
        """
        if self._thread != threading.get_ident():
            raise RuntimeError(
                "this server belongs to an event loop in another thread;"
                " use loop.call_soon_threadsafe(server.broadcast, message)"
            )
        # A handler may have switched to another codec.
        codec = self._codec
        frames = {codec: codec.encode(message)}
        count = 0
        for one in list(self._served.values()):
            if one.handled:
                codec = one.stream.codec
                if codec not in frames:
                    frames[codec] = codec.encode(message)
                count += one.broadcast(frames[codec])
        return count

    async def start_serving(self) -> None:
        """Start to accept connections; do nothing if the server does so already.

        Raises:
            RuntimeError: The server is closed.
        """
        if self._closed.is_set():
            raise RuntimeError(f"the server on {self._name} is closed; start another one")
        if self._started:
            return
        assert self._acceptor is not None
        if not self._acceptor.start():
            if self._max_connections is not None:
                raise NotImplementedError(
                    f"max_connections needs an event loop with add_reader(), and"
                    f" {type(self._loop).__name__} has none; leave it out, or use a"
                    " SelectorEventLoop"
                )
            await self._listening.start_serving()
        self._started = True

    async def serve_forever(self) -> None:
        """Serve until the server is closed or this call is cancelled, and end as `aclose`.

        Ctrl-C cancels it, in a program that `asyncio.run` runs.

        Raises:
            RuntimeError: The server is closed already.
        """
        await self.start_serving()
        try:
            await self._closed.wait()
        finally:
            await self.aclose()

    def close(self) -> None:
        """Stop listening; connections continue. `wait_closed` and `aclose` end them."""
        if not self._closed.is_set():
            self._closed.set()
            if self._acceptor is not None:
                self._acceptor.close()
            self._listening.close()

    async def wait_closed(self) -> None:
        """Wait until `close` was called, then end as `aclose`."""
        await self._closed.wait()
        await self.aclose()

    async def aclose(self, grace: float = 5.0) -> None:
        """End the server: it stops listening, and its connections stop receiving, at once.

        A handler receives what has arrived, then the end of the stream (`EOFError`, or the end of
        its loop), and may finish; what it sends still leaves. Over TLS, what the stream has read is
        what has arrived. A cancelled `aclose` ends everything at once.

        Args:
            grace: Seconds that running handlers have. After them their connections are aborted and
                their tasks cancelled, and a WARNING is logged.
        """
        check_grace(grace)
        self.close()
        self._ending = True
        for task in self._opening:
            task.cancel()
        for one in self._served.values():
            one.stop_receiving()
        try:
            running = await self._wait(self._served, grace)
            if running:
                log.connections_aborted(self._name, len(running), grace)
        finally:
            # Cancelled or not, no connection is left.
            self._abort_all()
        left = await self._wait([*self._served, *self._opening], AFTER_ABORT)
        if left:
            log.tasks_left(self._name, len(left))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AFTER_ABORT):  # it waits for clients that it accepted
                await self._listening.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- the end ----------------------------------------------------------------------------------

    async def _wait(
        self, tasks: Iterable[asyncio.Task[None]], seconds: float
    ) -> set[asyncio.Task[None]]:
        """Wait for tasks, except the one that calls; return those that have not ended."""
        others = set(tasks) - {asyncio.current_task()}
        if not others:
            return set()
        _, running = await asyncio.wait(others, timeout=seconds)
        return running

    def _abort_all(self) -> None:
        me = asyncio.current_task()
        for task, one in self._served.items():
            if task is not me:
                one.abort()
                task.cancel()

    # --- connections ------------------------------------------------------------------------------

    def has_place(self) -> bool:
        """Return whether another connection may be accepted."""
        limit = self._max_connections
        return limit is None or len(self._opening) + len(self._served) < limit

    def take(self, sock: socket.socket, peer: Any) -> None:
        """Serve a connection that was accepted."""
        with contextlib.suppress(OSError):  # the client is gone already
            prepare(sock, self._keepalive)
        task = self._loop.create_task(self._open(sock, peer_name(peer, self._address)))
        self._opening.add(task)
        task.add_done_callback(self._forget)
        task.add_done_callback(functools.partial(_close_unopened, sock))

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._served.pop(task, None)
        assert self._acceptor is not None
        self._acceptor.resume()

    async def _open(self, sock: socket.socket, peer: str) -> None:
        """Open a connection, with its handshake; its protocol then calls `_start_handler`."""
        try:
            await self._loop.connect_accepted_socket(
                functools.partial(self._create_protocol, peer), sock, **self._tls
            )
        except Exception as error:
            sock.close()
            log.connection_ended(peer, error)

    def _create_protocol(self, peer: str = "") -> StreamProtocol:
        # A client that has left at once has no name any more, but accept() gave it.
        start = functools.partial(self._start_handler, peer)
        return StreamProtocol(self._codec, start, **self._options)

    def _start_handler(self, peer: str, stream: FrameStream[Any]) -> None:
        """Start the task of a connection that is open."""
        one = _Served(stream, stream._protocol._inbox.peer or peer or self._name)
        if self._ending:
            one.abort()
            return
        task = self._loop.create_task(self._handle(one))
        self._served[task] = one
        task.add_done_callback(self._forget)

    async def _handle(self, one: _Served) -> None:
        """Run the handler of one connection and close its stream."""
        reported: BaseException | None = None
        try:
            async with one.stream:
                try:
                    await self._handler(one.stream)
                except Exception as error:
                    reported = error
                    self._report(one, error)
                    if one.stream._protocol._observer is not None:
                        one.stream._protocol._handler_error = error
                    raise
                finally:
                    one.handled = False
            self._report_loss(one)
        except Exception as error:
            if error is not reported:  # closing has failed
                self._handler_failed(one, error)
                one.abort()
        finally:
            reported = None  # its traceback refers to this frame: a cycle

    def _report(self, one: _Served, error: Exception) -> None:
        """Log what the handler raised."""
        if not _is_clients_fault(error, one) or one.was_closed_by_handler(error, self._ending):
            self._handler_failed(one, error)
        elif not (self._ending or is_clean_end(error)):
            one.end(error)

    def _report_loss(self, one: _Served) -> None:
        """Log that the client has left before the last messages were sent."""
        error = one.stream._sending.error
        if error is not None and not self._ending:
            one.end(error)

    def _handler_failed(self, one: _Served, error: Exception) -> None:
        log.handler_failed(one.peer, error)
        if self._loop.get_exception_handler() is not None and not _is_disconnect(error):
            self._loop.call_exception_handler(
                {
                    "message": "a connection's handler failed",
                    "exception": error,
                    "transport": one.stream.transport,
                }
            )


def _close_unopened(sock: socket.socket, opening: asyncio.Task[None]) -> None:
    """Close the socket of a connection that does not open; its task may not have begun."""
    if opening.cancelled() or opening.exception() is not None:
        sock.close()


class _Served:
    """One connection of a server.

    Args:
        stream: The handler's stream.
        peer: The client's name, for the log.
    """

    __slots__ = ("ended", "handled", "peer", "stream")

    def __init__(self, stream: FrameStream[Any], peer: str) -> None:
        self.stream = stream
        self.peer = peer
        self.handled = True
        """Its handler has not returned."""
        self.ended = False
        """The server has ended it: aborted, or for a fault that is logged."""

    def stop_receiving(self) -> None:
        """Let the handler receive what has arrived, and then the end of the stream."""
        self.stream._protocol.stop_receiving()

    def abort(self) -> None:
        """End the connection at once."""
        self.ended = True
        self.stream._sending.abort()

    def end(self, error: BaseException) -> None:
        """Log why the connection has ended; only the first reason counts."""
        if not self.ended:
            self.ended = True
            log.connection_ended(self.peer, error)

    def broadcast(self, frame: bytes) -> bool:
        """Send a whole frame without a wait; return whether the connection took it."""
        sending = self.stream._sending
        if sending.state is not TransportState.OPEN:
            return False
        waiting = self.stream.pending_send
        if waiting <= BACKLOG_LIMIT:
            sending.write(frame)
            note_sent(self.stream._protocol, len(frame))
            return sending.state is TransportState.OPEN
        self.end(_error_texts.broadcast_backlog(waiting, BACKLOG_LIMIT))
        self.abort()
        return False

    def was_closed_by_handler(self, error: Exception, server_ends: bool) -> bool:
        """Return whether the error only says that the handler has closed the stream before."""
        sending = self.stream._sending
        return (
            isinstance(error, ConnectionAbortedError)
            and sending.closed_here
            and sending.error is None
            and not (self.ended or server_ends)
        )


def _is_clients_fault(error: BaseException, one: _Served) -> bool:
    stream = one.stream
    return is_clients_fault(error, stream, stream._protocol, stream._sending)


def _is_disconnect(error: BaseException) -> bool:
    """Return whether the error is of a type that says that a peer left or sent a bad frame."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_disconnect, error.exceptions))
    return isinstance(error, _DISCONNECTS)


class _Acceptor:
    """Accepts connections from listening sockets, as long as the server has a place for one.

    Args:
        server: Gets the connections.
        sockets: The listening sockets; they remain the loop's own.
        backlog: Connections that wait to be accepted before the system refuses more.
    """

    def __init__(self, server: FrameServer[Any], sockets: Iterable[Any], backlog: int) -> None:
        self._server = server
        self._loop = server.get_loop()
        self._backlog = backlog
        self._accept_pause = AcceptPause()
        self._timer: asyncio.TimerHandle | None = None  # of a pause after an error
        self._started = self._reading = False
        # Copies: a loop refuses add_reader() for a socket that it listens on itself.
        self._sockets = [
            socket.fromfd(sock.fileno(), sock.family, sock.type, sock.proto) for sock in sockets
        ]

    def start(self) -> bool:
        """Start to accept; return False if the event loop cannot wait for a socket."""
        for sock in self._sockets:
            sock.setblocking(False)
            sock.listen(self._backlog)
        self._started = True
        try:
            self.resume()
        except NotImplementedError:  # asyncio.ProactorEventLoop
            self.close()
            return False
        return True

    def resume(self) -> None:
        """Accept again, if the server has a place and no pause lasts."""
        if not self._reading and self._started and self._timer is None and self._server.has_place():
            for sock in self._sockets:
                self._loop.add_reader(sock, self._accept, sock)
            self._reading = True

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            for sock in self._sockets:
                self._loop.remove_reader(sock)

    def close(self) -> None:
        """Accept no more."""
        self._started = False
        self._stop_reading()
        if self._timer is not None:
            self._timer.cancel()
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if not self._server.has_place():
                self._stop_reading()
                return
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, InterruptedError):  # another process was faster
                return
            except (OSError, MemoryError) as error:
                self._pause_after(error)
                return
            self._accept_pause.reset()
            sock.setblocking(False)
            self._server.take(sock, peer)

    def _pause_after(self, error: BaseException) -> None:
        self._stop_reading()
        seconds = self._accept_pause.after(error, self._server._name)
        if seconds is None:
            self._started = False
        else:
            self._timer = self._loop.call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        self._timer = None
        self.resume()
