"""The fast path of a message through a socket, in Python: for calls that need not wait.

It reads as the specification of the compiled twin, `_fast_path.pyx`. Most calls of `recv` find a
message that is ready or bytes in the kernel, and most messages fit into the kernel's buffer at
once: they take this path. All others take the slow path, in `receiving` and `sending`, which knows
how to wait: a socket that would block, another thread, half a frame, an error.

CPython runs a signal handler when a Python function begins, after a call from Python code and at
the end of a loop. So iterators of C do what a handler must not interrupt, because there is no such
moment between an iterator's step and the next line: a ``for`` takes a lock or a message, a method
of C releases the lock.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat, starmap
from operator import length_hint
from socket import socket
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, final

from .. import _error_texts
from .._outbox import GATHER_SIZE
from .._states import ReceiveState, SendState

if TYPE_CHECKING:
    from ..codec import Codec
    from ..splitter import Splitter

__all__ = ["LONGEST_TURN", "Batch", "Guard", "HeldSignals", "Lock", "Receiver", "Sender"]

Lock = threading.RLock

_Result = TypeVar("_Result")

NO_BYTES = memoryview(b"")

# Python 3.11 calls a Python function to look up a member of an Enum class: not between two lines
# that belong together.
_IDLE, _HELD, _BUSY, _LOST = SendState.IDLE, SendState.HELD, SendState.BUSY, SendState.LOST

# Seconds after which a receive that always finds bytes checks its deadline.
LONGEST_TURN = 0.01


class Unique:
    """An object that is not copied."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


@final
class Guard(Unique):
    """Calls functions under a lock, for which it waits no longer than the socket's time-out.

    It is no context manager: the exit of a ``with`` may find no memory for its arguments, and the
    lock would stay taken. A negative time-out waits for ever.
    """

    __slots__ = ("_acquire", "_release", "_seconds", "_timeout")

    def __init__(self, lock: Any, timeout: float) -> None:
        self._acquire = lock.acquire
        self._release = lock.release
        self._timeout = timeout
        self._seconds = -1 if timeout < 0 else min(timeout, threading.TIMEOUT_MAX)

    def call(self, function: Callable[..., _Result], /, *arguments: Any) -> _Result:
        """Call a function while the lock is taken."""
        try:
            if not self._acquire(True, self._seconds):
                raise _error_texts.another_thread_is_inside(self._timeout)
            result = function(*arguments)
        finally:
            try:  # noqa: SIM105 (that would be a `with`)
                self._release()
            except RuntimeError:  # it is not taken: another thread is inside, or a signal handler
                pass
        return result


# That of `signal` makes an enum of each signal, which needs memory.
_set_mask: Any = getattr(sys.modules.get("_signal", signal), "pthread_sigmask", None)

# Signals for faults of the program itself are never held.
_HOLDABLE = (
    signal.valid_signals()
    - {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
    if hasattr(signal, "pthread_sigmask")
    else set()
)


@final
class HeldSignals(Unique):
    """Signals held back, if the system can: no handler runs until `release`.

    It is for calls that run signal handlers themselves before they return, as those of the `ssl`
    module do. A signal that the kernel gives to another thread meanwhile is not held: Python runs
    its handler here all the same.
    """

    __slots__ = ("_arguments", "release")

    def __init__(self) -> None:
        self._arguments: Iterator[Any] = iter(())
        self.release: Iterator[Any] = self._arguments
        """An iterator with one step, which lets signals through as before `hold`. No handler can
        run before the step if a ``for`` makes it."""

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
        before = _set_mask(signal.SIG_BLOCK, ())
        # An iterator, so that the step needs no memory before signals are let through.
        arguments = iter([(signal.SIG_SETMASK, iter(tuple(before)))])
        release = starmap(_set_mask, arguments)
        self._arguments = arguments
        self.release = release
        _set_mask(signal.SIG_BLOCK, _HOLDABLE)


# Without the GIL, several threads may step one iterator of C at a time.
_HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class _SharedTake:
    """An iterator that takes items out of a queue, for any number of threads.

    The threads share only the queue's own step.
    """

    __slots__ = ("_steps",)

    def __init__(self, queue: deque[Any]) -> None:
        self._steps = map(deque.popleft, repeat(queue))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            for item in self._steps:  # one step
                return item
        except IndexError:  # another thread was faster
            pass
        raise StopIteration


@final
class Batch(Unique):
    """The messages of one receive that are not delivered yet.

    Args:
        messages: The messages, in order. The list belongs to the batch from then on.
        headers: For each message what travelled before its rest, for `headers`; or None.

    Raises:
        ValueError: There are not as many headers as messages.
    """

    __slots__ = ("_headers", "_queue", "take")

    def __init__(self, messages: list[Any], headers: list[Any] | None = None) -> None:
        if headers is not None and len(headers) != len(messages):
            raise ValueError(f"{len(headers)} headers for {len(messages)} messages")
        self._queue = queue = deque(messages)
        self._headers = headers
        # Nothing else takes from the queue, so that with the GIL both end together.
        self.take: Iterator[Any] = (
            starmap(queue.popleft, repeat((), len(queue))) if _HAS_GIL else _SharedTake(queue)
        )
        """An iterator that takes the messages out of this batch, one each step."""

    def __iter__(self) -> Iterator[Any]:
        if not self._queue:
            self._headers = None
        return self.take

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def take_all(self) -> Iterator[list[Any]]:
        """An iterator with one step, which takes all messages out and gives their list."""
        return map(list, (self.take,))

    @property
    def first(self) -> Any:
        """The next message, which stays."""
        return self._queue[0]

    def rest(self) -> list[Any]:
        """Return a list of the messages, which stay."""
        return [*self._queue]

    def headers(self) -> list[Any]:
        """Return the headers of these messages, which stay.

        Raises:
            TypeError: The batch was made without headers.
        """
        if self._headers is None:
            raise TypeError("the batch has no headers")
        return self._headers[len(self._headers) - len(self._queue) :]

    @property
    def last_header(self) -> Any:
        """The header of the message that was taken last; None without headers."""
        headers = self._headers
        taken = 0 if headers is None else len(headers) - len(self._queue)
        return headers[taken - 1] if headers is not None and taken else None


@final
class Receiver(Unique):
    """The ready messages, and the receive that brings some if there are none.

    A step of its iteration takes a message. A signal handler that raises is never run between an
    iterator's step and the lines after it, so no message is lost to it. StopIteration means that
    the slow path must receive; the compiled twin, which is its own iterator, can be stepped again
    afterwards. (With a separate iterator for each call, a ready message costs 115 ns, not 81.)

    Args:
        sock: The socket, whose descriptor is looked up for every call.
        lock: The lock of calls that receive.
    """

    __slots__ = ("ready", "state")

    def __init__(self, sock: socket, lock: Any) -> None:
        self.ready = Batch([])
        """The batch that is being delivered."""
        self.state = ReceiveState.READY
        """Whether a call may receive. The fast path receives only if it is READY."""

    def use(self, splitter: Splitter | None, size: int, flags: int, timeout: float) -> None:
        """Choose how to receive. This twin leaves all receiving to its caller: it saves no call.

        Args:
            splitter: It gets the bytes; None leaves all receiving to the caller.
            size: Bytes to ask of one receive.
            flags: Those of recv().
            timeout: Seconds to wait for a message if a receive would block. 0 leaves the wait to
                the caller, a negative number is for a socket that waits in the receive itself.
        """

    def __iter__(self) -> Iterator[Any]:
        return self.ready.take

    def __next__(self) -> Any:
        for message in self.ready.take:
            return message
        raise StopIteration

    def fetch(self) -> None:
        """Receive if no message is ready."""


@final
class Sender(Unique):
    """A fast path for one message in one system call.

    Args:
        sock: The socket.
        lock: The lock of calls that send.
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
        "state",
        "unsent",
    )

    def __init__(self, sock: socket, lock: Any, codec: Codec[Any]) -> None:
        self._send = sock.send
        self._sendmsg = getattr(sock, "sendmsg", None)  # Windows has none
        self._acquire = lock.acquire
        self._release = lock.release
        self._encode = codec.encode
        self._frame_parts = codec.frame_parts
        self._flags: tuple[int] | None = None
        self.state = _IDLE
        """What a call that sends may do. The fast path sends only if it is IDLE."""
        self.unsent: tuple[bytes | memoryview, ...] = ()
        """The end of a frame that was begun: one buffer or two."""

    def switch(self, codec: Codec[Any], /) -> None:
        """Encode with another codec from now on."""
        self._encode, self._frame_parts = codec.encode, codec.frame_parts

    def use(self, flags: int | None) -> None:
        """Store the flags for send() and sendmsg(); None switches the fast path off."""
        self._flags = None if flags is None else (flags,)

    def send(self, message: object, /) -> bool:
        """Return whether the message was taken: sent, or begun and its end stored in `unsent`.

        A small message is one buffer with its header, a large one is not copied.

        Raises:
            FrameError: The message is invalid; nothing was sent.
            OSError: The system refused; nothing was sent.
        """
        flags = self._flags
        if self.state is not _IDLE or flags is None or type(message) is not bytes:
            return False
        rest = NO_BYTES
        first: Any
        if len(message) < GATHER_SIZE:
            first = self._encode(message)
            counts = map(self._send, (first,), flags)
        else:
            parts = self._frame_parts(message)
            if len(parts) != 2 or self._sendmsg is None:  # it has a trailer, too
                return False
            first, rest = memoryview(parts[0]), memoryview(parts[1])
            counts = map(self._sendmsg, (parts,), ((),), flags)
        for taken in map(self._acquire, (False,)):  # one step
            if not taken:
                break
            try:
                return self.state is _IDLE and self._transmit(counts, first, len(first), rest)
            except BlockingIOError:
                break
            except MemoryError:
                self.state = _LOST
                raise
            finally:
                self._release()
        return False

    def _transmit(
        self, counts: Iterator[int], first: Any, first_size: int, rest: memoryview
    ) -> bool:
        """Make the call and keep the bytes that it did not send."""
        rest_size = len(rest)
        self.state = _BUSY
        try:
            # No call between the count and what is made of it.
            for count in counts:
                if count != first_size + rest_size:
                    if count >= first_size:
                        self.unsent = (rest[count - first_size :],)
                    elif rest_size:
                        self.unsent = (first[count:], rest)
                    else:
                        self.unsent = (first[count:],)
                    if self.state is _BUSY:
                        self.state = _HELD
            return True
        finally:
            if self.state is _BUSY:
                self.state = _IDLE
