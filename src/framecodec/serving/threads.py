"""`serve`: a thread for each connection.

The server's own thread accepts, and does nothing that a client can delay: the TLS handshake and all
else happens in the connection's thread. A connection's thread ends with its handler, logs what the
client did wrong, and never raises.

All threads are daemons: a thread cannot become one later, and `Server.close` must end in bounded
time even if a handler does not.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, final, overload

from .. import _error_texts
from .. import _log as log
from .._addresses import Address, find_place
from .._message_types import MessageT, OfMessages, SpecialT
from .._observer import Observer
from .._options import OnInvalid, OnOversize, check_options, check_server_context
from .._peers import peer_name
from ..codec import Codec
from ..sockets import FrameSocket, Listener
from ..sockets.accept_pause import AcceptPause
from ..sockets.base import check_keepalive, prepare
from ..sockets.listener import open_listening
from .common import (
    AFTER_ABORT,
    BACKLOG_LIMIT,
    BlockingServer,
    Ending,
    abort,
    check_connections,
    check_grace,
    check_handler,
    is_clean_end,
    is_clients_fault,
    stop_receiving,
)

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import ssl as ssl_module

    from typing_extensions import Buffer

__all__ = ["Server", "serve"]

Handler: TypeAlias = Callable[[FrameSocket[MessageT]], None]

HANDSHAKE_TIMEOUT = 60.0
"""Seconds that a TLS handshake may take; ``message_timeout`` if that is less."""

# Seconds that broadcast messages have to leave after the handler has returned.
_LAST_BROADCASTS = 5.0


def serve(
    handler: Handler[MessageT],
    address: Address,
    port: int | Codec[MessageT] | None = None,
    *,
    codec: Codec[MessageT] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    max_connections: int | None = None,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
    backlog: int = 128,
    reuse_port: bool = False,
    keepalive: bool | float | None = None,
) -> Server[MessageT]:
    """Start a server that calls `handler` with each connection, in a thread of the connection.

    The server accepts already when `serve` returns. What a client does wrong (a bad frame, a reset,
    an end inside a frame, a client gone before the answer) ends its connection alone, and is logged
    once as a WARNING on the logger ``framecodec``. What else a handler raises is logged with its
    traceback. A handler that returns has its connection closed.

    Args:
        handler: A function that takes a `FrameSocket`.
        address: ``(host, port)``, port 0 for any free one; the path of a Unix socket; or a URL:
            ``tcp://host:port``, ``tls://host:port``, ``unix:path``.
        port: A port, where `address` is a host; or the codec.
        codec: The shape of the frames; ``Codec.uint(4)`` where none is given.
        ssl: A context with the server's certificate. The handshake happens in the connection's
            thread, and may take `HANDSHAKE_TIMEOUT` seconds.
        max_connections: The number of connections that are served at a time; more clients wait
            unaccepted. None: no limit.
        message_timeout: As for `FrameSocket`.
        idle_timeout: As for `FrameSocket`.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: As for `FrameSocket`. The error of ``connection_closed`` may also be what the
            handler has raised.
        backlog: Connections that wait to be accepted before the system refuses more.
        reuse_port: Several processes may listen on the same port, and share its connections.
        keepalive: True, or seconds of quiet before the first probe of TCP.

    Returns:
        The server. It serves until its `Server.close`, or to the end of a ``with`` block.

    Raises:
        OSError: The address is not available.
        TypeError, ValueError, OverflowError: An argument is invalid.
    """
    check_handler(handler)
    place = find_place(address, port, codec)
    check_server_context(ssl, address, place.is_tls)
    check_keepalive(keepalive)
    options = check_options(
        place.codec,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
    )
    check_connections(max_connections)
    listener = Listener(
        open_listening(place.address, backlog=backlog, reuse_port=reuse_port), place.codec
    )
    try:
        return Server(
            listener,
            handler,
            ssl=ssl,
            max_connections=max_connections,
            keepalive=keepalive,
            options=options,
        )
    except BaseException:
        listener.close()
        raise


@final
class Server(OfMessages[MessageT], BlockingServer):
    """A server with a thread for each connection; made by `serve`.

    As a context manager it closes itself at the end of the block.
    """

    __slots__ = (
        "_address",
        "_changed",
        "_closing",
        "_handler",
        "_keepalive",
        "_listener",
        "_max_connections",
        "_observer",
        "_options",
        "_served",
        "_ssl",
        "_thread",
        "_wakeup",
    )

    def __init__(
        self,
        listener: Any,
        handler: Handler[MessageT],
        *,
        ssl: ssl_module.SSLContext | None,
        max_connections: int | None,
        keepalive: bool | float | None,
        options: dict[str, Any],
    ) -> None:
        self._listener = listener
        self._address = listener.address
        self._handler = handler
        self._ssl = ssl
        self._max_connections = max_connections
        # The server tells the observer of connections, each connection of its frames.
        self._observer = observer = options["observer"] or Observer(None)
        self._keepalive = keepalive
        self._options = {**options, "observer": observer.of_frames()}
        self._closing = False
        self._served: set[_Served] = set()
        # Reentrant: a signal handler may call close() while its thread is in another method.
        self._changed = threading.Condition(threading.RLock())
        self._wakeup = socket.socketpair()
        try:
            for sock in self._wakeup:
                sock.setblocking(False)
            listener.settimeout(0)
            self._ended = Ending()
            self._thread = threading.Thread(
                target=self._accept_all, name=f"framecodec serve {self._name}", daemon=True
            )
            self._thread.start()
        except BaseException:
            for sock in self._wakeup:
                sock.close()
            raise

    # --- what can be asked ------------------------------------------------------------------------

    @property
    def address(self) -> Any:
        """The address as bound: with the port that the system chose where 0 was asked for."""
        return self._address

    @property
    def connections(self) -> frozenset[FrameSocket[MessageT]]:
        """The connections whose handlers run at this moment."""
        with self._changed:
            return frozenset(served.conn for served in self._served if served.conn is not None)

    @property
    def _name(self) -> str:
        return peer_name(self._address, self._address)

    def __repr__(self) -> str:
        state = "closed" if self._closing else f"{len(self._served)} connections"
        return f"<Server {self._name}, {state}>"

    # --- accepting, in the server's thread --------------------------------------------------------

    def _accept_all(self) -> None:
        try:
            self._accept_until_closed()
        finally:
            self._listener.close()
            for sock in self._wakeup:
                sock.close()
            self._ended.set()

    def _accept_until_closed(self) -> None:
        """Accept connections until the server closes, or a fault of the listener is final."""
        pause = AcceptPause()
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wakeup[0], selectors.EVENT_READ)
            while self._has_place():
                selector.select()
                if self._closing:
                    return
                try:
                    if self._accept():
                        pause.reset()
                except (OSError, RuntimeError, MemoryError) as error:
                    # RuntimeError: the system starts no more threads.
                    seconds = pause.after(error, self._name)
                    if seconds is None:
                        return
                    self._sleep(seconds)

    def _has_place(self) -> bool:
        """Wait until another connection is allowed; return False where the server closes."""
        limit = self._max_connections
        with self._changed:
            while not self._closing and limit is not None and len(self._served) >= limit:
                self._changed.wait(1)
        return not self._closing

    def _sleep(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        with self._changed:
            while not self._closing and (left := deadline - monotonic()) > 0:
                self._changed.wait(left)

    def _accept(self) -> bool:
        """Accept a connection and start its thread; return False where no client waits."""
        try:
            sock, peer = self._listener.socket.accept()
        except (BlockingIOError, InterruptedError):  # another process was faster
            return False
        served = _Served(sock, peer_name(peer, self._address))
        try:
            thread = threading.Thread(
                target=self._serve, args=(served,), name=f"framecodec {served.peer}", daemon=True
            )
            served.thread = thread
            with self._changed:
                self._served.add(served)
            thread.start()
        except BaseException:
            self._forget(served)
            served.ended.set()
            sock.close()
            raise
        return True

    def _forget(self, served: _Served) -> None:
        with self._changed:
            self._served.discard(served)
            self._changed.notify_all()

    # --- a connection, in its thread --------------------------------------------------------------

    def _serve(self, served: _Served) -> None:
        try:
            try:
                conn = self._open(served)
            except Exception as error:  # in the handshake
                if not (self._closing or served.aborted):
                    log.connection_ended(served.peer, error)
                return
            self._handle(served, conn)
        except BaseException as error:  # no memory, or an exception set from another thread
            log.handler_failed(served.peer, error)
        finally:
            with contextlib.suppress(OSError):
                served.sock.close()
            self._forget(served)
            served.ended.set()

    def _open(self, served: _Served) -> FrameSocket[MessageT]:
        sock = served.sock
        prepare(sock, self._keepalive)
        if self._ssl is not None:
            sock.settimeout(min(HANDSHAKE_TIMEOUT, self._options["message_timeout"] or 1e9))
            served.sock = tls = self._wrap(sock, self._ssl)
            tls.do_handshake()
            sock = tls
        sock.settimeout(None)
        conn = FrameSocket(sock, self._listener.codec, **self._options)
        with self._changed:
            served.conn = conn
        if self._closing:  # close() may have looked before the connection was there
            served.stop_receiving()
        return conn

    def _wrap(self, sock: socket.socket, context: ssl_module.SSLContext) -> Any:
        """Return a TLS socket, before its handshake.

        OpenSSL answers the end of the stream that close() makes with an alert, after which nothing
        can be sent, unless it is told that such an end is legal. Frames show by themselves where
        a stream was cut.
        """
        with self._changed:
            before = context.options
            try:
                context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
                # The TLS socket takes a copy of the options.
                return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            finally:
                context.options = before

    def _handle(self, served: _Served, conn: FrameSocket[MessageT]) -> None:
        failure: BaseException | None = None
        observer = self._observer
        try:
            if observer.connection_opened is not None:
                observer.connection_opened(conn)
            try:
                self._handler(conn)
            except SystemExit:  # ends the thread, as everywhere
                pass
            except BaseException as error:
                failure = self._report(served, conn, error)
            served.finish_broadcasts()
        finally:
            with self._changed:
                served.conn = None
            conn.close()
            if observer.connection_closed is not None:
                observer.connection_closed(conn, served.fault or failure)
            failure = None  # its traceback holds this frame: a cycle

    def _report(
        self, served: _Served, conn: FrameSocket[Any], error: BaseException
    ) -> BaseException | None:
        """Log what the handler raised; return it, or None for a clean end."""
        try:
            if isinstance(error, KeyboardInterrupt):
                # With gevent, Ctrl-C interrupts the greenlet that runs, and not the main one.
                self._ended.interrupted = True
                return error
            if conn.closed or not is_clients_fault(error, conn):
                log.handler_failed(served.peer, error)
                return error
            if is_clean_end(error) or self._closing:
                return None
            served.end(error)
            return error
        finally:
            del error  # its traceback holds this frame: a cycle

    # --- what its owner calls ---------------------------------------------------------------------

    @overload
    def broadcast(self: Server[bytes | SpecialT], message: Buffer | SpecialT) -> int: ...

    @overload
    def broadcast(self, message: MessageT) -> int: ...

    def broadcast(self, message: Any) -> int:
        """Send one message to all connections.

        It is encoded once, and the call never waits: a thread of each connection sends it. A
        connection for which more than `BACKLOG_LIMIT` bytes wait is ended instead.

        Args:
            message: As for `FrameSocket.send`.

        Returns:
            The number of connections that took the message.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; no connection took it.
        """
        frames = {self._listener.codec: self._listener.codec.encode(message)}
        with self._changed:
            served = [one for one in self._served if one.conn is not None]
        count = 0
        for one in served:
            conn = one.conn
            if conn is None:
                continue
            codec = conn.codec
            if codec not in frames:  # the handler has switched to another codec
                frames[codec] = codec.encode(message)
            count += one.broadcast(frames[codec])
        return count

    def close(self, grace: float = 5.0) -> None:
        """End the server: it stops listening, and its connections stop receiving, at once.

        A handler that receives gets the end of the stream (`EOFError`, or the end of its loop) and
        may finish; what it sends still leaves.

        Args:
            grace: Seconds that running handlers have. After them their connections are aborted. A
                thread that does not end then is left, and a WARNING is logged.
        """
        check_grace(grace)
        deadline = monotonic() + grace
        with self._changed:
            already = self._closing
            self._closing = True
            self._changed.notify_all()
        if not already:
            with contextlib.suppress(OSError):
                self._wakeup[1].send(b"\0")
        if self._thread is not threading.current_thread():
            self._ended.wait(AFTER_ABORT)
        with self._changed:
            served = list(self._served)
        for one in served:
            one.stop_receiving()
        running = _join(served, deadline)
        for one in running:
            one.abort()
        if running:
            log.connections_aborted(self._name, len(running), grace)
            left = _join(running, monotonic() + AFTER_ABORT)
            if left:
                log.threads_left(self._name, len(left))


def _join(served: list[_Served], deadline: float) -> list[_Served]:
    """Wait for the threads of connections; return those that have not ended.

    The calling thread, whose handler may close the server, is left out.
    """
    me = threading.current_thread()
    running = []
    for one in served:
        if one.thread is not me and not one.ended.wait(deadline - monotonic()):
            running.append(one)
    return running


class _Served:
    """One connection of a server.

    Args:
        sock: The accepted socket.
        peer: The client's name, for the log.
    """

    __slots__ = (
        "_changed",
        "_finishing",
        "_frames",
        "_sender",
        "_size",
        "aborted",
        "conn",
        "ended",
        "fault",
        "peer",
        "sock",
        "thread",
    )

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.thread: threading.Thread | None = None
        self.ended = Ending()
        self.conn: FrameSocket[Any] | None = None  # while the handler runs
        self.aborted = False
        self.fault: BaseException | None = None  # what the client did wrong; logged already

        # Broadcasts: frames that wait, and the thread that sends them.
        self._changed = threading.Condition(threading.RLock())
        self._frames: list[bytes] = []
        self._size = 0  # of those, and of the frame that is being sent
        self._sender: threading.Thread | None = None
        self._finishing = False

    def stop_receiving(self) -> None:
        """End the receiving direction, also of a client that never pauses."""
        if self.conn is not None:
            # A shutdown alone does not stop what still arrives.
            self.conn._receiving.stop(EOFError("the server is closing"))
        stop_receiving(self.sock)

    def abort(self) -> None:
        """End both directions, and wake the threads that wait in them."""
        self.aborted = True
        abort(self.sock)

    def end(self, error: BaseException) -> None:
        """Log the client's fault and abort the connection; only the first fault counts."""
        with self._changed:
            if self.fault is not None or self.aborted:
                return
            self.fault = error.with_traceback(None)
        log.connection_ended(self.peer, error)

    # --- broadcasts -------------------------------------------------------------------------------

    def broadcast(self, frame: bytes) -> bool:
        """Hand over a frame to the connection's sending thread; return whether it was taken."""
        with self._changed:
            if self.fault is not None or self.aborted or self._finishing:
                return False
            if self._size <= BACKLOG_LIMIT:
                self._frames.append(frame)
                self._size += len(frame)
                if self._sender is None:
                    self._start_sender()
                self._changed.notify()
                return True
            waiting = self._size
        self.end(_error_texts.broadcast_backlog(waiting, BACKLOG_LIMIT))
        self.abort()
        return False

    def _start_sender(self) -> None:
        self._sender = threading.Thread(
            target=self._send_all, name=f"framecodec broadcasts to {self.peer}", daemon=True
        )
        self._sender.start()

    def _send_all(self) -> None:
        conn = self.conn
        try:
            while conn is not None:
                with self._changed:
                    while not (self._frames or self._finishing):
                        self._changed.wait(60)
                    if not self._frames:
                        return
                    frames, self._frames = self._frames, []
                _send_frames(conn, b"".join(frames))
                observer = conn._receiving.observer
                if observer is not None and observer.frame_sent is not None:
                    for frame in frames:
                        observer.frame_sent(conn, len(frame))
                with self._changed:
                    self._size -= sum(map(len, frames))
        except OSError as error:
            if not (conn is None or conn.closed or self._finishing):
                self.end(error)
                self.abort()  # wakes the handler
        except Exception as error:
            log.handler_failed(self.peer, error)
            self.abort()

    def finish_broadcasts(self) -> None:
        """Wait, for a bounded time, until the broadcast messages have left."""
        with self._changed:
            self._finishing = True
            sender = self._sender
            self._changed.notify()
        if sender is not None and self.fault is None:
            sender.join(_LAST_BROADCASTS)
            if sender.is_alive():
                self.abort()


def _send_frames(conn: FrameSocket[Any], frames: bytes) -> None:
    """Send whole frames through a connection, whatever time-out its handler has set."""
    side = conn._sending
    held = False
    while True:
        try:
            if held:
                conn.flush()
            else:
                side.send_all(side.outbox.put_bytes, frames)  # they are encoded already
            return
        except (TimeoutError, BlockingIOError) as error:
            held = held or getattr(error, "message_started", False)
        if conn.closed:
            raise ConnectionAbortedError("the connection is closed")
        with selectors.DefaultSelector() as selector:
            selector.register(conn, selectors.EVENT_WRITE)
            selector.select(1)
