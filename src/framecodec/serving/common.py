"""What the servers share: addresses, accepting, observers, the clients' faults."""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

from .. import errors
from ..sockets.base import set_nodelay
from . import log

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

__all__ = [
    "AFTER_ABORT",
    "BACKLOG_LIMIT",
    "OBSERVER_METHODS",
    "AcceptPause",
    "BlockingServer",
    "Ending",
    "Observer",
    "abort",
    "check_connections",
    "check_grace",
    "is_clients_fault",
    "peer_name",
    "prepare",
    "stop_receiving",
    "where_to_listen",
]

BACKLOG_LIMIT = 16 * 1024 * 1024
"""Bytes of broadcast messages that may wait for one client. `broadcast` ends a connection that has
more."""

AFTER_ABORT = 1.0
"""Seconds that the end of a server waits for what it has aborted."""

# accept() fails with these where the listening socket itself is unusable.
_NOT_LISTENING = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)

_LONGEST_WAIT = 1e6  # seconds

# A send or a receive fails with these where the client or the network broke the connection.
_BROKEN = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET)


# --- arguments ------------------------------------------------------------------------------------


def check_grace(grace: float) -> None:
    """Check the seconds that what runs has before it is aborted.

    Raises:
        ValueError: They are negative or not a number.
    """
    if not grace >= 0:
        raise ValueError(f"grace must be a number of seconds that is at least 0, not {grace!r}")


def check_connections(max_connections: int | None) -> int | None:
    """Return the number.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is below 1.
    """
    if max_connections is None:
        return None
    if not isinstance(max_connections, int):
        raise TypeError(
            f"max_connections must be an integer or None, not {type(max_connections).__name__!r}"
        )
    if max_connections < 1:
        raise ValueError(f"max_connections must be at least 1 (or None), not {max_connections}")
    return max_connections


def where_to_listen(address: Any, port: Any, codec: Any) -> tuple[Any, Any, bool]:
    """Return the address as `listen` takes it, the codec, and whether the address demands TLS.

    Args:
        address: ``(host, port)``, a host, a path, or a URL.
        port: The second positional argument: a port, a codec, or None.
        codec: The codec that was given by name, or None.
    """
    if isinstance(port, int):
        address = (address, port)
    elif port is not None:
        if codec is not None:
            raise TypeError("the codec was given twice, by position and by name")
        codec = port
    if not isinstance(address, str):
        return address, codec, False
    if address.startswith("unix:"):
        return address.removeprefix("unix:"), codec, False
    if re.match(r"(tcp|tls)://", address):
        parts = urlsplit(address)
        try:
            host, number = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"{address!r} is not the address of a server: {error}") from None
        if number is None or parts.path or parts.query or parts.fragment or parts.username:
            raise ValueError(
                f"{address!r} is not the address of a server; write tcp://HOST:PORT or tls://HOST:PORT"
            )
        return (host or "", number), codec, parts.scheme == "tls"
    if re.fullmatch(r"[^/]*:\d+", address):
        host, _, number_text = address.rpartition(":")
        raise ValueError(
            f"{address!r} looks like a host and a port, and would be the path of a Unix socket;"
            f" write ({host!r}, {number_text}), 'tcp://{address}', or 'unix:{address}'"
        )
    return address, codec, False


# --- sockets --------------------------------------------------------------------------------------


def peer_name(peer: Any, address: Any) -> str:
    """Return the name of a client for the log.

    It is ``host:port``; for a Unix socket, whose clients have no name, the server's path.
    """
    if isinstance(peer, tuple) and len(peer) >= 2:
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    name = peer or address
    return os.fsdecode(name) if isinstance(name, str | bytes) else str(name)


def prepare(sock: socket.socket, keepalive: float | bool | None) -> None:
    """Set the options of an accepted connection: frames leave at once, Nagle's algorithm is off."""
    set_nodelay(sock)
    if keepalive and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
        if keepalive is not True and idle is not None:
            sock.setsockopt(socket.IPPROTO_TCP, idle, max(1, round(keepalive)))


def stop_receiving(sock: socket.socket) -> None:
    """End the receiving direction: a thread that waits to receive sees the end of the stream."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RD)  # past TLS, which cannot end one direction


def abort(sock: socket.socket) -> None:
    """End both directions at once, without what is unsent; threads that wait in it are woken.

    The descriptor stays open until its owner closes it.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Ending:
    """The end of a thread, for which others wait.

    `threading.Thread.join` does not do: before Python 3.13, a Ctrl-C in it marks a thread that
    runs as ended. An `Event` does not do either: a signal handler that waits for the event in which
    its thread waits hangs.
    """

    __slots__ = ("_lock", "done")

    def __init__(self) -> None:
        self.done = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let all waits end; for the thread, at its end."""
        self.done = True
        self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait at most that many seconds; return whether the thread has ended."""
        if not self.done and self._lock.acquire(timeout=min(max(timeout, 0.0), _LONGEST_WAIT)):
            self._lock.release()
        return self.done


class BlockingServer(abc.ABC):
    """A server that the calling thread closes or waits for; it closes itself after a ``with``."""

    __slots__ = ("__weakref__", "_ended")

    _ended: Ending

    @abc.abstractmethod
    def close(self, grace: float = 5.0) -> None:
        """End the server, within `grace` seconds for what runs."""

    def serve_forever(self) -> None:
        """Wait until the server is closed. Ctrl-C (`KeyboardInterrupt`) closes it."""
        try:
            while not self._ended.wait(1):
                pass
        except KeyboardInterrupt:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AcceptPause:
    """The seconds to wait after accept() has failed: more each time, few after a success."""

    FIRST, LONGEST = 0.01, 1.0

    def __init__(self) -> None:
        self._next = self.FIRST

    def reset(self) -> None:
        """Start anew, after a connection was accepted."""
        self._next = self.FIRST

    def after(self, error: BaseException, address: str) -> float | None:
        """Log the error and return the seconds to wait; None where listening is over."""
        if isinstance(error, OSError) and error.errno in _NOT_LISTENING:
            log.listening_failed(address, error)
            return None
        pause, self._next = self._next, min(self._next * 2, self.LONGEST)
        log.accept_failed(address, error, pause)
        return pause


# --- observers ------------------------------------------------------------------------------------

_Method: TypeAlias = Callable[..., None] | None

OBSERVER_METHODS = (
    "frame_received",
    "frame_sent",
    "connection_opened",
    "connection_closed",
    "frame_discarded",
)


class Observer:
    """The methods that an observer has, each None where it has none. They raise nothing.

    Args:
        observer: An object with any of `OBSERVER_METHODS`, or None.
    """

    __slots__ = OBSERVER_METHODS

    frame_received: _Method
    frame_sent: _Method
    connection_opened: _Method
    connection_closed: _Method
    frame_discarded: _Method

    def __init__(self, observer: object) -> None:
        for name in OBSERVER_METHODS:
            method = getattr(observer, name, None) if observer is not None else None
            setattr(self, name, None if method is None else _guarded(name, method))


def _guarded(name: str, method: Callable[..., Any]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:
            log.observer_failed(name, error)

    return call


# --- faults ---------------------------------------------------------------------------------------


def is_clients_fault(error: BaseException, *parts: object) -> bool:
    """Return whether an exception that left a handler is the fault of the connection's client.

    It is, where it only means that the client left, sent a bad frame or was too slow; of an
    exception group, all members must.

    An error of the same type that the handler met elsewhere, such as a database that refuses its
    connection, is not the client's: the traceback must pass through a method of one of `parts`,
    the connection or an object that belongs to it.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_clients_fault(member, *parts) for member in error.exceptions)
    if isinstance(error, errors.FrameError):
        # A message that the handler could not send has no offset in a stream.
        known = error.stream_offset is not None
    elif isinstance(error, OSError):
        known = (
            isinstance(error, EOFError | ConnectionError | TimeoutError)
            or error.errno in _BROKEN
            or (ssl is not None and isinstance(error, ssl.SSLError))
        )
    else:
        known = isinstance(error, EOFError)
    return known and any(instance is part for instance in _instances(error) for part in parts)


def _instances(error: BaseException) -> Iterator[object]:
    """Yield the `self` of each method that the exception passed through."""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_argcount and code.co_varnames[:1] == ("self",):
            yield traceback.tb_frame.f_locals.get("self")
        traceback = traceback.tb_next
