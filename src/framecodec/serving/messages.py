"""`serve_messages`: one thread serves all connections.

The loop is in `_messages_loop.pyx`, or its twin in Python. Here is what is not done for every
message: accepting, observers, logging, and the server's public methods.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, final, overload

from .. import _log as log
from .._addresses import Address, find_place
from .._engine import ACCELERATED
from .._message_types import MessageT, OfMessages, SpecialT
from .._observer import ObservedSplitter, Observer
from .._options import OnInvalid, OnOversize, check_options
from .._peers import peer_name
from ..codec import Codec
from ..sockets import Listener
from ..sockets.accept_pause import AcceptPause
from ..sockets.base import check_keepalive, prepare
from ..sockets.listener import open_listening
from ..splitter import Splitter
from . import _messages_loop_py
from .common import (
    AFTER_ABORT,
    BACKLOG_LIMIT,
    BlockingServer,
    Ending,
    abort,
    check_connections,
    check_grace,
    check_handler,
)

__all__ = ["MessageConnection", "MessageServer", "serve_messages"]

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._messages_loop_py import MessageConnection

Handle: TypeAlias = (
    "Callable[[MessageConnection[MessageT], list[MessageT]], Iterable[Buffer | MessageT] | None]"
)


def _choose_loop() -> ModuleType:
    """Return the compiled loop where the compiled engine is in use, else its twin."""
    # The compiled loop waits with epoll, which only Linux has, and relies on the GIL, which a
    # free-threaded Python may not have. In a program that gevent has patched, its wait would stop
    # all greenlets; the twin waits with what gevent has patched.
    gevent_monkey = sys.modules.get("gevent.monkey")
    is_patched = gevent_monkey is not None and gevent_monkey.is_module_patched("threading")
    is_built = sys.platform == "linux" and "t" not in sys.abiflags
    if is_patched or not (ACCELERATED and is_built):
        return _messages_loop_py
    name = f"{__package__}._messages_loop"
    try:
        return importlib.import_module(name)
    except ImportError as error:
        warnings.warn(
            f"serve_messages() is slower, because {name} cannot be loaded ({error})."
            " Install framecodec again.",
            RuntimeWarning,
            stacklevel=1,
        )
        return _messages_loop_py


_loop_module = _choose_loop()
if not TYPE_CHECKING:
    MessageConnection = _loop_module.MessageConnection


def serve_messages(
    handle: Handle[MessageT],
    address: Address,
    port: int | Codec[MessageT] | None = None,
    *,
    codec: Codec[MessageT] | None = None,
    ssl: None = None,
    max_connections: int | None = None,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
    backlog: int = 1024,
    reuse_port: bool = False,
    keepalive: bool | float | None = None,
) -> MessageServer[MessageT]:
    """Start a server that calls `handle` with the messages of each receive, in one thread.

    It is for handlers that do not wait: while one runs, no other client is served. The server
    accepts already when `serve_messages` returns. Faults of clients and exceptions of the handler
    are logged, and end their connections, as with `serve`.

    A client whose replies pile up is not read from until they have left. So at most the replies to
    one receive (128 KiB of requests) wait for a client, beside what the program itself sends with
    `MessageConnection.send` and `MessageServer.broadcast`.

    Args:
        handle: A function that takes a `MessageConnection` and a list of its messages, at least
            one, and returns an iterable of replies, or None.
        address: As for `serve`.
        port: As for `serve`.
        codec: The shape of the frames; ``Codec.uint(4)`` where none is given.
        ssl: None: this server has no TLS.
        max_connections: The number of connections that are served at a time; more clients wait
            unaccepted. None: no limit.
        message_timeout: Seconds that one message may take from its first byte to its last.
        idle_timeout: Seconds that a client may be quiet between two messages. Neither counts the
            time in which the client is not read from, or that a handler takes.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: An object with any of the methods ``connection_opened(conn)``,
            ``connection_closed(conn, error)``, ``frame_received(conn, size)``,
            ``frame_sent(conn, size)`` and ``frame_discarded(conn, error)``.
        backlog: Connections that wait to be accepted before the system refuses more.
        reuse_port: Several processes may listen on the same port, and share its connections.
        keepalive: True, or seconds of quiet before the first probe of TCP.

    Returns:
        The server. It serves until its `MessageServer.close`, or to the end of a ``with`` block.

    Raises:
        OSError: The address is not available.
        TypeError, ValueError, OverflowError: An argument is invalid.
    """
    check_handler(handle)
    place = find_place(address, port, codec)
    if ssl is not None or place.is_tls:
        raise ValueError(
            "serve_messages() has no TLS; use serve(), or framecodec.asyncio.start_server(),"
            " which take ssl="
        )
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
        return MessageServer(
            listener,
            handle,
            keepalive=keepalive,
            options=options,
            limits={
                "max_connections": max_connections,
                "message_timeout": message_timeout,
                "idle_timeout": idle_timeout,
            },
        )
    except BaseException:
        listener.close()
        raise


@final
class MessageServer(OfMessages[MessageT], BlockingServer):
    """A server whose connections share one thread; made by `serve_messages`.

    As a context manager it closes itself at the end of the block.
    """

    __slots__ = ("_address", "_hooks", "_loop", "_thread", "_wakeup")

    def __init__(
        self,
        listener: Any,
        handle: Handle[MessageT],
        *,
        keepalive: bool | float | None,
        options: dict[str, Any],
        limits: dict[str, Any],
    ) -> None:
        self._address = listener.address
        self._hooks = hooks = _Hooks(listener, options, keepalive)
        listener.settimeout(0)
        self._wakeup = socket.socketpair()
        try:
            for sock in self._wakeup:
                sock.setblocking(False)
            self._loop = hooks.loop = _loop_module.MessageLoop(
                hooks,
                handle,
                listener.codec,
                listener.socket,
                self._wakeup,
                limit=BACKLOG_LIMIT,
                observed=hooks.observer.frame_sent is not None,
                **limits,
            )
            self._ended = Ending()
            self._thread = threading.Thread(
                target=self._run, name=f"framecodec serve_messages {hooks.name}", daemon=True
            )
            self._thread.start()
        except BaseException:
            for sock in self._wakeup:
                sock.close()
            raise

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException as error:
            log.listening_failed(self._hooks.name, error)
            self._hooks.abort_all()
        finally:
            for sock in self._wakeup:
                sock.close()
            self._ended.set()

    @property
    def address(self) -> Any:
        """The address as bound: with the port that the system chose where 0 was asked for."""
        return self._address

    @property
    def connections(self) -> frozenset[MessageConnection[MessageT]]:
        """The connections that are open at this moment."""
        return frozenset(self._loop.connections())

    @overload
    def broadcast(self: MessageServer[bytes | SpecialT], message: Buffer | SpecialT) -> int: ...

    @overload
    def broadcast(self, message: MessageT) -> int: ...

    def broadcast(self, message: Any) -> int:
        """Send one message to all connections; it is encoded once. The call never waits.

        A connection for which more than 16 MiB wait is ended instead.

        Args:
            message: As for `FrameSocket.send`.

        Returns:
            The number of connections that took the message.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; no connection took it.
        """
        taken: int = self._loop.broadcast(self._hooks.codec.encode(message))
        return taken

    def close(self, grace: float = 5.0) -> None:
        """End the server: it stops listening, and its connections stop receiving, at once.

        A handler that runs may finish, and what was sent still leaves.

        Args:
            grace: Seconds that a running handler and unsent messages have. After them the
                connections are aborted. If the thread does not end then, it is left, and a WARNING
                is logged.
        """
        check_grace(grace)
        deadline = monotonic() + grace
        self._loop.stop(False)
        if self._thread is threading.current_thread():  # the handler closes its server
            return
        if not self._ended.wait(deadline - monotonic()):
            self._abort(grace)
        if self._ended.done:
            self._hooks.close_all()

    def _abort(self, grace: float) -> None:
        count = self._hooks.count
        self._loop.stop(True)
        if count:
            log.connections_aborted(self._hooks.name, count, grace)
        if not self._ended.wait(AFTER_ABORT):  # the handler does not end
            self._hooks.abort_all()
            log.threads_left(self._hooks.name, 1)

    def __repr__(self) -> str:
        state = "closed" if self._ended.done else f"{self._hooks.count} connections"
        return f"<MessageServer {self._hooks.name}, {state}>"


class _Hooks:
    """What the loop leaves to Python, because it is not done for every message."""

    def __init__(
        self, listener: Any, options: dict[str, Any], keepalive: bool | float | None
    ) -> None:
        self.listener = listener
        self.codec: Codec[Any] = listener.codec
        self.name = peer_name(listener.address, listener.address)
        self.observer = options["observer"] or Observer(None)
        self.loop: Any = None
        self._keepalive = keepalive
        self._splitting = {name: options[name] for name in ("on_oversize", "on_invalid")}
        if options["on_invalid"] == "raise":
            del self._splitting["on_invalid"]
        self._pause = AcceptPause()
        self._sockets: dict[Any, socket.socket] = {}

    @property
    def count(self) -> int:
        """Connections that are not closed."""
        return len(self._sockets)

    # --- accepting --------------------------------------------------------------------------------

    def accept(self, limit: int) -> list[tuple[socket.socket, Any]]:
        """Return accepted connections, at most that many."""
        accepted: list[tuple[socket.socket, Any]] = []
        try:
            while len(accepted) < limit:
                sock, peer = self.listener.socket.accept()
                try:
                    sock.setblocking(False)
                    prepare(sock, self._keepalive)
                except OSError:  # the client is gone already
                    sock.close()
                    continue
                accepted.append((sock, peer))
        except (BlockingIOError, InterruptedError):
            self._pause.reset()
        except (OSError, MemoryError) as error:
            seconds = self._pause.after(error, self.name)
            self.loop.pause_accepting(1e9 if seconds is None else seconds)
        return accepted

    def stop_listening(self) -> None:
        """Close the listening socket; remove the file of a Unix socket."""
        self.listener.close()

    def close_all(self) -> None:
        """Close what is left by a loop that ended because it had no memory."""
        self.stop_listening()
        while self._sockets:
            self.close_socket(self._sockets.popitem()[1])

    def abort_all(self) -> None:
        """Abort all connections, from another thread than the loop's."""
        for sock in list(self._sockets.values()):
            abort(sock)

    @staticmethod
    def close_socket(sock: socket.socket) -> None:
        """Close the socket of a connection."""
        with contextlib.suppress(OSError):
            sock.close()

    @staticmethod
    def reset_on_close(sock: socket.socket) -> None:
        """Let close() drop what is unsent, and reset the connection."""
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    # --- a connection -----------------------------------------------------------------------------

    def splitter(self, conn: Any, sock: socket.socket) -> Any:
        """Return the splitter of a new connection."""
        self._sockets[conn] = sock
        if self.observer.frame_received is None and self.observer.frame_discarded is None:
            return Splitter(self.codec, **self._splitting)
        return ObservedSplitter(conn, self.codec, self.observer, **self._splitting)

    def opened(self, conn: Any) -> None:
        """Report a new connection."""
        if self.observer.connection_opened is not None:
            self.observer.connection_opened(conn)

    def closed(self, conn: Any, error: BaseException | None) -> None:
        """Report a connection that was closed."""
        self._sockets.pop(conn, None)
        if self.observer.connection_closed is not None:
            self.observer.connection_closed(conn, error)

    def fault(self, conn: Any, error: BaseException) -> None:
        """Report what a client did wrong."""
        log.connection_ended(self._name_of(conn), error)

    def handler_failed(self, conn: Any, error: BaseException) -> None:
        """Report what the handler raised."""
        log.handler_failed(self._name_of(conn), error)

    failed = handler_failed

    def no_memory(self, error: BaseException) -> None:
        """Report a turn of the loop for which the memory was too small, and wait a little."""
        log.turn_failed(self.name, error)
        time.sleep(0.01)

    def _name_of(self, conn: Any) -> str:
        return peer_name(conn.peer, self.listener.address)

    # --- what an observer sees --------------------------------------------------------------------

    def frames(self, conn: Any, messages: Iterable[object]) -> list[bytes]:
        """Encode messages and report each frame."""
        frames = [self.codec.encode(message) for message in messages]
        for frame in frames:
            self.sent(conn, len(frame))
        return frames

    def sent(self, conn: Any, size: int) -> None:
        """Report a frame that was accepted for sending; the loop asks only where it is observed."""
        assert self.observer.frame_sent is not None
        self.observer.frame_sent(conn, size)
