"""Whole messages for the servers of the standard library's `socketserver`.

A handler class defines the answers; the server class defines how connections are served: one after
the other, in threads, in processes, over TCP, Unix sockets or UDP. The handler checks which kind of
socket it was given, so that one class serves all of them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from socketserver import BaseRequestHandler
from typing import Any, ClassVar, NoReturn

from . import _error_texts, errors
from ._datagrams import largest_payload, split_datagram
from ._files import Refusal
from ._locks import call_locked
from ._options import OnInvalid, OnOversize
from .codec import DEFAULT_CODEC, Codec, check_codec
from .serving.common import abort, stop_receiving
from .sockets.base import set_nodelay
from .sockets.connection import FrameSocket
from .sockets.datagrams import DatagramSocket

__all__ = ["FrameRequestHandler"]


class FrameRequestHandler(BaseRequestHandler):
    """The handler of one connection of a `socketserver` server, or of one datagram.

    Override `handle_message`, which is called with every message and returns the reply or None::

        class Shout(FrameRequestHandler):
            codec = Codec.uint(2)

            def handle_message(self, message):
                return message.upper()

        with socketserver.ThreadingTCPServer(("127.0.0.1", 6000), Shout) as server:
            server.serve_forever()

    Or override `handle`, and use `frames` as on any connection.

    A connection ends with the peer's clean end of the stream. A peer's error (an invalid frame, a
    message that is too large or too slow, a connection that breaks) is raised out of `handle`,
    ends this connection only, and the server's ``handle_error`` reports it.

    When the server is shut down or closed, its connections receive no more, within half a second: a
    handler that waits gets the end of the stream. It may finish and send; after 5 seconds its
    connection is aborted. So ``server_close()`` of a `socketserver.ThreadingTCPServer`, which waits
    for all handlers, ends.

    Over UDP a request is one datagram, and as with `DatagramSocket` that is one message, or with a
    codec any number of whole frames. A `socketserver.UDPServer` reads 8192 bytes of a datagram and
    silently drops the rest: set its ``max_packet_size`` to 65507 (no datagram of UDP is larger) if
    messages may be longer. A datagram that fills it to the last byte counts as truncated.
    """

    codec: ClassVar[Codec[Any] | None] = None
    """The shape of the frames. None: ``Codec.uint(4)`` on a stream; a datagram is a message."""

    message_timeout: ClassVar[float | None] = None
    """Seconds that one message may take from its first byte to its last; None: no limit."""

    idle_timeout: ClassVar[float | None] = None
    """Seconds that a connection may be quiet between two messages; None: no limit."""

    on_oversize: ClassVar[OnOversize] = "raise"
    """As for `Splitter`; streams only, as the next two."""

    on_invalid: ClassVar[OnInvalid] = "raise"
    """As for `Splitter`."""

    observer: ClassVar[object] = None
    """As for `FrameSocket`."""

    timeout: ClassVar[float | None] = None
    """Seconds that any one call may take, sending included; None: any time."""

    nodelay: ClassVar[bool] = True
    """Whether TCP sends every reply at once."""

    frames: FrameSocket[Any] | DatagramReply
    """The connection; for a datagram, an object whose `send` answers the sender."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        codec = cls.__dict__.get("codec")
        if codec is not None and not hasattr(codec, "__get__"):  # a property computes it
            check_codec(codec)

    def setup(self) -> None:
        """Make `frames`."""
        if isinstance(self.request, tuple):
            data, sock = self.request
            self.frames = DatagramReply(data, sock, self.client_address, self.codec, self.server)
            return
        sock = self.request
        if self.timeout is not None:
            sock.settimeout(self.timeout)
        if self.nodelay:
            set_nodelay(sock)
        self.frames = FrameSocket(
            sock,
            self.codec or DEFAULT_CODEC,
            message_timeout=self.message_timeout,
            idle_timeout=self.idle_timeout,
            on_oversize=self.on_oversize,
            on_invalid=self.on_invalid,
            observer=self.observer,
        )
        _watch_of(self.server).add(self.server, self.frames)

    def handle(self) -> None:
        """Answer every message until the clean end of the stream.

        A reply is sent before the next message is handled, so `handle_message` may receive and
        send by `frames`, too.
        """
        for message in self.frames:
            reply = self.handle_message(message)
            if reply is not None:
                self.frames.send(reply)
            del message, reply  # a connection that waits keeps neither

    def handle_message(self, message: Any) -> Any:
        """Answer one message; override it.

        Args:
            message: The peer's message.

        Returns:
            The reply, or None for no reply.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handle_message()")

    def finish(self) -> None:
        """Forget the connection, which the server shuts down and closes."""
        if isinstance(self.frames, FrameSocket):
            _watch_of(self.server).discard(self.frames)
            if self.observer is not None:
                self.frames.close()


# --- the end of a server --------------------------------------------------------------------------

_LOOK_PAUSE = 0.1  # seconds between two looks at a server
_GRACE = 5.0  # seconds that handlers have after their server has stopped
_LAST_LOOKS = 50  # looks of a thread that has no connection to watch any more


class _Watch:
    """The connections of one server, which end when the server stops.

    The servers of the standard library have no hook for their end, so a thread looks at them while
    there are connections.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connections: set[FrameSocket] = set()
        self._running = False

    def add(self, server: Any, conn: FrameSocket[Any]) -> None:
        """Watch a connection."""
        call_locked(self._lock, self._add, server, conn)

    def _add(self, server: Any, conn: FrameSocket[Any]) -> None:
        self._connections.add(conn)
        if not self._running:
            name = "framecodec watches a socketserver"
            thread = threading.Thread(target=self._run, args=(server,), name=name, daemon=True)
            thread.start()
            self._running = True

    def discard(self, conn: FrameSocket[Any]) -> None:
        """Watch a connection no longer."""
        call_locked(self._lock, self._connections.discard, conn)

    def _run(self, server: Any) -> None:
        looks, stopped_at = _LAST_LOOKS, 0.0
        while looks:
            try:
                time.sleep(_LOOK_PAUSE)
                looks, stopped_at = self._look(server, looks, stopped_at)
            except MemoryError:  # the next look may have it
                pass

    def _look(self, server: Any, looks: int, stopped_at: float) -> tuple[int, float]:
        """End the connections if the server has stopped.

        Args:
            server: The server.
            looks: Looks that are left, unless there are connections.
            stopped_at: When the server was first seen to have stopped; 0 if it was not.

        Returns:
            The new values of the last two: 0 looks where this was the last one.
        """
        connections, looks = call_locked(self._lock, self._watched, looks)
        if not looks:
            return 0, stopped_at
        if not _has_stopped(server):
            return looks, 0.0
        now = time.monotonic()
        stopped_at = stopped_at or now
        for conn in connections:
            conn._receiving.stop(EOFError("the server is closing"))
            stop_receiving(conn.socket)
            if now > stopped_at + _GRACE:
                abort(conn.socket)
        return looks, stopped_at

    def _watched(self, looks: int) -> tuple[list[FrameSocket[Any]], int]:
        """Return the connections, and how many looks are left; none ends the thread."""
        connections = list(self._connections)
        looks = _LAST_LOOKS if connections else looks - 1
        if not looks:
            self._running = False
        return connections, looks


_watches: weakref.WeakKeyDictionary[Any, _Watch] = weakref.WeakKeyDictionary()
_watches_lock = threading.RLock()


def _watch_of(server: Any) -> _Watch:
    return call_locked(_watches_lock, _watches.setdefault, server, _Watch())


def _has_stopped(server: Any) -> bool:
    """Return whether a server was told to stop, or has stopped or closed."""
    # The only traces of shutdown() are these two attributes of BaseServer.
    has_ended = getattr(server, "_BaseServer__is_shut_down", None)
    if getattr(server, "_BaseServer__shutdown_request", False) or (
        has_ended and has_ended.is_set()
    ):
        return True
    with contextlib.suppress(AttributeError, OSError, ValueError):  # a server without a socket
        return bool(server.socket.fileno() < 0)
    return False


class DatagramReply:
    """One received datagram with the interface of a connection: its messages, then the end.

    Args:
        data: The datagram.
        sock: The server's socket.
        address: The sender, to which replies are sent.
        codec: The shape of the frames in it; None: it is one message.
        server: The server, whose ``max_packet_size`` limits how much of a datagram it reads.
    """

    def __init__(
        self,
        data: bytes,
        sock: socket.socket,
        address: Any,
        codec: Codec[Any] | None = None,
        server: Any = None,
    ) -> None:
        self._socket = DatagramSocket(sock, codec, max_size=1)  # to send only
        self._address = address
        limit = getattr(server, "max_packet_size", None)
        largest = largest_payload(sock)
        messages: list[Any] = []
        failures: tuple[errors.FrameError, ...]
        if limit is not None and limit <= len(data) and (largest is None or len(data) < largest):
            failures = (_error_texts.datagram_truncated(len(data), None),)
        else:
            messages, failures = split_datagram(data, codec)
        for error in failures:
            error.address = address
        for message in messages:
            if type(message) is Refusal:
                message.error.address = address
        self._messages: Iterator[Any] = iter(messages)
        self._errors = iter(failures)

    def recv(self) -> Any:
        """Return the datagram's next message.

        Raises:
            EOFError, FrameError: As `recv_many`.
        """
        for message in self._messages:
            return _or_raise(message)
        self._end()

    def recv_many(self) -> list[Any]:
        """Return the datagram's messages.

        Raises:
            EOFError: They were returned already, or there are none.
            TruncatedDatagramError: The datagram fills the server's ``max_packet_size``, so its end
                may be missing.
            FrameError: The datagram has bytes that are not a whole frame. The messages before them
                are returned first.
        """
        messages: list[Any] = []
        for message in self._messages:
            if type(message) is Refusal and messages:
                self._messages = chain([message], self._messages)
                break
            messages.append(_or_raise(message))
        return messages or self._end()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the datagram's messages."""
        for message in self._messages:
            yield _or_raise(message)
        for error in self._errors:
            try:
                raise error
            finally:
                del error  # which holds this frame: a cycle

    def _end(self) -> NoReturn:
        for error in self._errors:
            try:
                raise error
            finally:
                del error  # which holds this frame: a cycle
        raise EOFError("the datagram has no more messages")

    def send(self, message: object, /) -> None:
        """Answer with one message, in one datagram.

        Raises:
            ValueError: The sender is a Unix socket without a name and cannot be answered.
            FrameError, TypeError, BufferError, OSError: As `DatagramSocket.send_to`.
        """
        self._socket.send_to(message, self.getpeername())

    def send_many(self, messages: Iterable[object], /) -> None:
        """Answer with many messages.

        Raises:
            ValueError, FrameError, TypeError, BufferError, OSError: As `send`.
        """
        self._socket.send_many_to(messages, self.getpeername())

    def getpeername(self) -> Any:
        """Return the sender's address.

        Raises:
            ValueError: The sender has no name and cannot be answered.
        """
        if not self._address:
            raise _error_texts.nameless_sender()
        return self._address


def _or_raise(message: Any) -> Any:
    """Return a message, or raise the error about one that a codec with objects refuses."""
    if type(message) is Refusal:
        raise message.error
    return message
