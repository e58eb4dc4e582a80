"""The short way through a socket, in Python: one call that has nothing in its way.

It reads as the specification of the compiled twin, `_socket_io.pyx`. Most calls of `recv` find a
message that is ready or bytes that are, and most messages fit the socket's buffer at once.
Those go this way. Whatever is unusual is left to `FrameSocket`, which knows how to wait, to whom
and for how long: a socket that would block, a thread that is inside, half a frame, an error.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from socket import socket
from typing import TYPE_CHECKING, Any, final

from . import errors
from ._outbox import GATHER_SIZE

if TYPE_CHECKING:
    from .codec import Codec
    from .splitter import Splitter

__all__ = ["Guard", "HeldSignals", "Lock", "Receiver", "Sender"]

Lock = threading.RLock

NO_BYTES = memoryview(b"")


@final
class Guard:
    """A lock as a context manager that waits no longer than the socket's time-out."""

    __slots__ = ("_lock", "_timeout")

    def __init__(self, lock: Any, timeout: float) -> None:
        self._lock = lock
        self._timeout = timeout

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=min(self._timeout, threading.TIMEOUT_MAX)):
            raise errors.another_thread_is_inside(self._timeout)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


# Those of a program's own faults are never held.
_HOLDABLE = (
    signal.valid_signals()
    - {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
    if hasattr(signal, "pthread_sigmask")
    else set()
)


@final
class HeldSignals:
    """A context in which signals wait, where the system has that: none finds its handler inside.

    For calls that run the handlers of signals themselves, between what they did and their return,
    as those of the `ssl` module do. A signal that the system gives to another thread meanwhile is
    not held: Python runs its handler here all the same.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before: set[Any] | None = None
        # Only there does Python run handlers.
        if _HOLDABLE and threading.current_thread() is threading.main_thread():
            self._before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                signal.pthread_sigmask(signal.SIG_BLOCK, _HOLDABLE)
            except BaseException:  # a handler whose turn it was
                signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
                raise

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


@final
class Receiver:
    """The messages that were received; where there are none, one receive that may bring some.

    An iterator, because a signal handler that raises is never run between an iterator's step and
    the lines behind it: no message is lost to it. It has no end, only nothing at hand.

    Args:
        sock: The socket, whose descriptor is looked up for every call.
        lock: Whoever holds it receives.
    """

    __slots__ = ("may_read", "ready")

    def __init__(self, sock: socket, lock: Any) -> None:
        self.ready: Iterator[Any] = iter(())
        """The batch that is being delivered."""
        self.may_read = True
        """Nothing forbids a receive: no failure, nobody inside."""

    def use(self, splitter: Splitter | None, size: int, flags: int, timeout: float) -> None:
        """Says where bytes go, how many are asked for, how, and how many seconds to wait for a
        message where a receive would block; None leaves all receiving to the caller, as this twin
        does in any case: it would save no call."""

    def __iter__(self) -> Receiver:
        return self

    def __next__(self) -> Any:
        return next(self.ready)


@final
class Sender:
    """Sends one small message by one system call.

    Args:
        sock: The socket.
        lock: Whoever holds it sends.
        codec: The shape of the frames.
    """

    __slots__ = (
        "_encode",
        "_flags",
        "_frame_parts",
        "_lock",
        "_send",
        "_sendmsg",
        "clear",
        "left",
        "sending",
    )

    def __init__(self, sock: socket, lock: Any, codec: Codec) -> None:
        self._send = sock.send
        self._sendmsg = getattr(sock, "sendmsg", None)  # Windows has none
        self._lock = lock
        self._encode = codec.encode
        self._frame_parts = codec.frame_parts
        self._flags: tuple[int] = (0,)
        self.clear = False
        """Nothing is ahead of the next message."""
        self.sending = False
        """Somebody is inside."""
        self.left: tuple[bytes | memoryview, ...] = ()
        """The end of a frame that was begun: one buffer or two."""

    def use(self, flags: int) -> None:
        """Says how to call send() and sendmsg()."""
        self._flags = (flags,)

    def send(self, message: object, /) -> bool:
        """Whether the message was taken: sent, or begun, with its end in `left`.

        A small message is one buffer with its header, a large one is not copied.

        Raises:
            FrameError: The message is invalid; nothing was sent.
            OSError: The system refused; nothing was sent.
        """
        if not self.clear or type(message) is not bytes:
            return False
        if len(message) < GATHER_SIZE:
            frame = self._encode(message)
            counts = map(self._send, (frame,), self._flags)
            return self._count(counts, frame, len(frame), NO_BYTES, 0)
        parts = self._frame_parts(message)
        if len(parts) != 2 or self._sendmsg is None:  # it has a trailer, too
            return False
        header, rest = memoryview(parts[0]), memoryview(parts[1])
        counts = map(self._sendmsg, (parts,), ((),), self._flags)
        return self._count(counts, header, len(header), rest, len(rest))

    def _count(
        self, counts: Iterator[int], first: Any, first_size: int, rest: memoryview, rest_size: int
    ) -> bool:
        """Makes the call, and keeps what it did not take."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if not self.clear or self.sending:
                return False
            self.sending = True
            # No call between the count and what is made of it.
            for count in counts:
                if count != first_size + rest_size:
                    self.clear = False
                    if count >= first_size:
                        self.left = (rest[count - first_size :],)
                    elif rest_size:
                        self.left = (first[count:], rest)
                    else:
                        self.left = (first[count:],)
            return True
        except BlockingIOError:
            return False
        finally:
            self.sending = False
            self._lock.release()
