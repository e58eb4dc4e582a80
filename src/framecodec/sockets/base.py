"""The part of a socket's interface that all wrappers share, and a close that wakes a thread."""

from __future__ import annotations

import abc
import contextlib
import math
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias

from .. import _error_texts
from .._states import SocketState

__all__ = [
    "SocketWrapper",
    "TimedWrapper",
    "check_keepalive",
    "check_timeout",
    "close_locked",
    "is_unix",
    "mark_started",
    "prepare",
    "set_nodelay",
]

_Socket: TypeAlias = socket.socket  # for a class that has an attribute `socket`


class TimedWrapper(abc.ABC):
    """A wrapper that owns what it wraps until it is closed, and has its own time-out."""

    __slots__ = ()

    _state: SocketState
    _timeout: float | None

    @property
    def closed(self) -> bool:
        """Whether `close` or `detach` was called."""
        return self._state is not SocketState.OPEN

    def _check_open(self) -> None:
        if self._state is not SocketState.OPEN:
            raise _error_texts.connection_closed()

    @abc.abstractmethod
    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that a call may take.

        Args:
            timeout: Seconds; None waits for ever, 0 does not wait.
        """

    def gettimeout(self) -> float | None:
        """Return the seconds that a call may take; None means any time."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Set the time-out to None (True) or to 0 (False)."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Return whether calls wait."""
        return self._timeout != 0

    @abc.abstractmethod
    def close(self) -> None:
        """Close what is wrapped."""

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SocketWrapper(TimedWrapper):
    """A wrapper of a socket."""

    __slots__ = ("_sock", "_state", "_timeout")

    _sock: _Socket

    @property
    def socket(self) -> _Socket:
        """The socket underneath."""
        return self._sock

    def fileno(self) -> int:
        """Return the descriptor, for `selectors`; -1 after `close` or `detach`."""
        return self._sock.fileno() if self._state is SocketState.OPEN else -1

    def getpeername(self) -> Any:
        """Return the address of the other side, if the socket is connected."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """Return the address of this side."""
        return self._sock.getsockname()

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> Any:
        """Return a socket option, as `socket.socket.getsockopt`."""
        return self._sock.getsockopt(level, option, size)

    def setsockopt(self, level: int, option: int, value: Any, /) -> None:
        """Set a socket option, as `socket.socket.setsockopt`."""
        self._sock.setsockopt(level, option, value)


def close_locked(
    locks: tuple[Any, ...],
    wake: Callable[[], None],
    close: Callable[[bool], None],
    were_free: bool = True,
) -> None:
    """Take locks before their socket is closed, and wake the thread that holds one.

    After the close another file may get the descriptor's number, so every thread must have left
    the socket before.

    Args:
        locks: Reentrant locks of calls on the socket.
        wake: Ends the system call in which a thread waits. It is not called if no thread does: for
            a socket that other processes share, it would end their connection.
        close: Closes the socket, while the locks are taken. It gets whether all were free.
        were_free: Whether the locks that are taken already were.
    """
    if not locks:
        close(were_free)
        return
    lock = locks[0]
    try:
        if not lock.acquire(blocking=False):
            were_free = False
            with contextlib.suppress(OSError):
                wake()
            lock.acquire()
        close_locked(locks[1:], wake, close, were_free)
    finally:
        try:  # noqa: SIM105 (that would be a `with`, whose exit needs memory)
            lock.release()
        except RuntimeError:  # a signal handler has interrupted acquire()
            pass


def check_timeout(timeout: float | None) -> None:
    """Check the seconds that a call may take.

    Raises:
        ValueError: They are negative or not a number.
    """
    if timeout is not None and (timeout < 0 or math.isnan(timeout)):
        raise ValueError("Timeout value out of range")


def mark_started(error: BaseException, started: bool) -> None:
    """Store in an error whether the message of the failed call is held, to be sent later."""
    error.message_started = started  # type: ignore[attr-defined]


def is_unix(sock: socket.socket) -> bool:
    """Return whether this is a Unix socket."""
    return sock.family == getattr(socket, "AF_UNIX", None)


def check_keepalive(keepalive: bool | float | None) -> None:
    """Check when TCP probes a quiet peer.

    Raises:
        ValueError: It is neither None, a bool nor a positive number of seconds.
    """
    if keepalive is not None and not isinstance(keepalive, bool) and not keepalive > 0:
        raise ValueError(
            f"keepalive must be True, or a positive number of seconds, not {keepalive!r}"
        )


def prepare(sock: socket.socket, keepalive: bool | float | None) -> None:
    """Set the options of a new connection: frames leave at once, Nagle's algorithm is off.

    Args:
        sock: The connected socket.
        keepalive: True, or seconds of quiet before TCP's first probe; None or False: no probes.
    """
    set_nodelay(sock)
    if keepalive and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
        if keepalive is not True and idle is not None:
            sock.setsockopt(socket.IPPROTO_TCP, idle, max(1, round(keepalive)))


def set_nodelay(sock: socket.socket) -> None:
    """Switch Nagle's algorithm off."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
