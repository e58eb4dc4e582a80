"""What the servers share: arguments, their end, the clients' faults."""

from __future__ import annotations

import abc
import contextlib
import errno
import inspect
import socket
import struct
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from .. import errors

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

__all__ = [
    "AFTER_ABORT",
    "BACKLOG_LIMIT",
    "BlockingServer",
    "Ending",
    "abort",
    "check_connections",
    "check_grace",
    "check_handler",
    "is_clean_end",
    "is_clients_fault",
    "stop_receiving",
]

BACKLOG_LIMIT = 16 * 1024 * 1024
"""Bytes of broadcast messages that may wait for one client. `broadcast` ends a connection that has
more."""

AFTER_ABORT = 1.0
"""Seconds that the end of a server waits for what it has aborted."""

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


def check_handler(handler: Any) -> None:
    """Refuse a handler that a thread cannot call.

    Raises:
        TypeError: It is not callable, or an async function: its coroutine would never run.
    """
    if not callable(handler):
        raise TypeError(f"the handler must be callable, not {type(handler).__name__!r}")
    called = getattr(handler, "__call__", None)  # noqa: B004 (an object's may be async)
    if any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (handler, called)
    ):
        raise TypeError(
            f"the handler must be a plain function, not the async function {handler!r}; write "
            "def instead of async def, or use framecodec.asyncio.start_server()"
        )


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


# --- sockets --------------------------------------------------------------------------------------


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

    __slots__ = ("_lock", "done", "interrupted")

    def __init__(self) -> None:
        self.done = False
        self.interrupted = False  # Ctrl-C came to another thread than the one that waits
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
                if self._ended.interrupted:
                    raise KeyboardInterrupt
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


def is_clean_end(error: BaseException) -> bool:
    """Return whether an exception only means that the client closed between two messages.

    Of an exception group, all members must.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_clean_end, error.exceptions))
    return isinstance(error, EOFError) and not isinstance(error, errors.IncompleteFrameError)
