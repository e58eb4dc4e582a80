"""The short way through a socket, in Python: one call that has nothing in its way.

It reads as the specification of the compiled twin, `_socket_io.pyx`. Most calls of `recv` find a
message that is ready or bytes that are, and most messages fit the socket's buffer at once.
Those go this way. Whatever is unusual is left to `FrameSocket`, which knows how to wait, to whom
and for how long: a socket that would block, a thread that is inside, half a frame, an error.

A signal handler that raises is run by CPython when a Python function begins, after a call of C and
at a loop's end. So what must not be cut in two is done by C iterators, from whose step to the next
line there is no such moment: a lock is taken in a ``for``, released by a method of C, and a message
is taken out of its batch by the ``for`` that gives it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from itertools import starmap
from operator import length_hint
from socket import socket
from typing import TYPE_CHECKING, Any, final

from . import _error_texts
from ._batch import Batch, Unique
from ._outbox import GATHER_SIZE

if TYPE_CHECKING:
    from .codec import Codec
    from .splitter import Splitter

__all__ = ["LONGEST_TURN", "Batch", "Guard", "HeldSignals", "Lock", "Receiver", "Sender"]

Lock = threading.RLock

NO_BYTES = memoryview(b"")

# Seconds after which a receive that always finds bytes looks at its deadline.
LONGEST_TURN = 0.01


@final
class Guard(Unique):
    """A lock as a context manager that waits no longer than the socket's time-out."""

    # The slot makes `__exit__` the lock's own, which is of C: a handler finds no moment before it.
    __slots__ = ("__exit__", "_acquire", "_timeout")

    def __init__(self, lock: Any, timeout: float) -> None:
        self._acquire = lock.acquire
        self.__exit__ = lock.__exit__
        self._timeout = timeout

    def __enter__(self) -> None:
        timeout = min(self._timeout, threading.TIMEOUT_MAX)
        for taken in map(self._acquire, (True,), (timeout,)):
            if taken:
                return
        raise _error_texts.another_thread_is_inside(self._timeout)


# Those of a program's own faults are never held.
_HOLDABLE = (
    signal.valid_signals()
    - {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
    if hasattr(signal, "pthread_sigmask")
    else set()
)


@final
class HeldSignals(Unique):
    """Holds signals back, where the system has that: none finds its handler until `release`.

    For calls that run the handlers of signals themselves, between what they did and their return,
    as those of the `ssl` module do. A signal that the system gives to another thread meanwhile is
    not held: Python runs its handler here all the same.
    """

    __slots__ = ("_arguments", "release")

    def __init__(self) -> None:
        self._arguments: Iterator[Any] = iter(())
        self.release: Iterator[Any] = self._arguments
        """An iterator whose only step lets signals through as before `hold`: no handler comes
        before it where a ``for`` makes that step."""

    def hold(self) -> None:
        """Hold signals back from now on.

        Raises:
            RuntimeError: They are held already.
        """
        if length_hint(self._arguments):
            raise RuntimeError("signals are held already")
        # Only there does Python run handlers.
        if not _HOLDABLE or threading.current_thread() is not threading.main_thread():
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        arguments = iter([(signal.SIG_SETMASK, before)])
        release = starmap(signal.pthread_sigmask, arguments)
        self._arguments = arguments
        self.release = release
        signal.pthread_sigmask(signal.SIG_BLOCK, _HOLDABLE)


@final
class Receiver(Unique):
    """The messages that were received; where there are none, one receive that may bring some.

    An iterable, because a signal handler that raises is never run between an iterator's step and
    the lines after it: no message is lost to it.

    Args:
        sock: The socket, whose descriptor is looked up for every call.
        lock: Whoever holds it receives.
    """

    __slots__ = ("broken", "may_read", "ready")

    def __init__(self, sock: socket, lock: Any) -> None:
        self.ready = Batch([])
        """The batch that is being delivered."""
        self.may_read = True
        """Nothing forbids a receive: no failure, nobody inside."""
        self.broken = False
        """Bytes were received and are lost: memory ran out before they were stored."""

    def use(self, splitter: Splitter | None, size: int, flags: int, timeout: float) -> None:
        """Store where bytes go, how many are asked for, how, and how many seconds to wait for a
        message where a receive would block: 0 leaves it to the caller to wait, a negative number
        is for a socket that waits in the receive itself. A splitter of None leaves all receiving
        to the caller, as this twin does in any case: it would save no call."""

    def __iter__(self) -> Iterator[Any]:
        return self.ready.take

    def __next__(self) -> Any:
        for message in self.ready.take:
            return message
        raise StopIteration

    def fetch(self) -> None:
        """Receive where no message is ready, as far as that is done here."""


@final
class Sender(Unique):
    """Sends one small message by one system call.

    Args:
        sock: The socket.
        lock: Whoever holds it sends.
        codec: The shape of the frames.
    """

    __slots__ = (
        "_acquire",
        "_encode",
        "_flags",
        "_frame_parts",
        "_release",
        "_send",
        "_sendmsg",
        "broken",
        "clear",
        "left",
        "sending",
    )

    def __init__(self, sock: socket, lock: Any, codec: Codec) -> None:
        self._send = sock.send
        self._sendmsg = getattr(sock, "sendmsg", None)  # Windows has none
        self._acquire = lock.acquire
        self._release = lock.release
        self._encode = codec.encode
        self._frame_parts = codec.frame_parts
        self._flags: tuple[int] = (0,)
        self.clear = False
        """Nothing is ahead of the next message."""
        self.broken = False
        """Bytes have left, and their number is lost: memory ran out before it was stored."""
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
        """Make the call, and keep what it did not take."""
        for taken in map(self._acquire, (False,)):
            if not taken:
                return False
            try:
                if not self.clear or self.sending:
                    return False
                self.sending = True
                try:
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
                finally:
                    self.sending = False
            except BlockingIOError:
                return False
            except MemoryError:
                self.clear = False
                self.broken = True
                raise
            finally:
                self._release()
        return False
