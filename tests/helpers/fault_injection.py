"""Connected sockets of every kind, and faults on them: at each byte, at each moment, counted.

Two ways to make a fault:

* `FaultySocket` is a socket that moves bytes only up to the next offset of its plan and fails
  there, once for each failure that the plan has for that offset. What it wraps are the calls of
  Python's own socket, so the bytes are real and so is the other end.
* `interrupted_at` raises inside the code under test as a signal handler does, at the nth of the
  moments at which CPython would run one: when a function begins, and when a call of C has returned.

`TALLY` counts faults and bytes; ``python -m tests.test_sockets_faults`` prints it.
"""

from __future__ import annotations

import contextlib
import dis
import errno
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import framecodec

__all__ = [
    "KINDS",
    "PASSING",
    "PASSING_ERRORS",
    "TALLY",
    "TIMEOUT",
    "FaultySocket",
    "Interruption",
    "disturbed",
    "fail_allocation",
    "interrupted_after_opcode",
    "interrupted_at",
    "lock_is_free",
    "needs_signals_to_threads",
    "reset",
    "stream_pair",
    "without_tracer",
]

PACKAGE = str(Path(framecodec.__file__).parent) + os.sep

TIMEOUT = 20.0  # seconds; of every wait that a test which passes does not need

KINDS = ["tcp", "unix", "socketpair"]


class Interruption(BaseException):
    """What a signal handler raises here, as Ctrl-C raises KeyboardInterrupt."""


# Faults after which the same call can be made again.
PASSING: dict[str, Callable[[], BaseException]] = {
    "would block": lambda: BlockingIOError(errno.EAGAIN, "would block"),
    "interrupted call": lambda: InterruptedError(errno.EINTR, "interrupted"),
    "time-out": lambda: TimeoutError("timed out"),
    "signal": Interruption,
}
PASSING_ERRORS = (TimeoutError, BlockingIOError, InterruptedError, Interruption)
"""What a call raises after such a fault."""


@dataclass
class Tally:
    """What was injected, and what came of it."""

    faults: int = 0
    bytes: int = 0
    lost: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)

    def fault(self, kind: str, count: int = 1) -> None:
        self.faults += count
        self.by_kind[kind] = self.by_kind.get(kind, 0) + count

    def account(self, found: Any, expected: Any) -> None:
        """Counts bytes, and fails where any is missing, more than there were, or another."""
        size = _size(expected)
        self.bytes += size
        if found != expected:
            self.lost += max(1, abs(size - _size(found)))
        assert found == expected


def _size(what: Any) -> int:
    if isinstance(what, bytes):
        return len(what)
    return sum(len(message) for message in what if isinstance(message, bytes))


TALLY = Tally()


class FaultySocket(socket.socket):
    """A connected socket that takes over another one, with failures at offsets of its streams.

    Args:
        sock: The socket to take over.
        reading: Failures for receiving, by stream offset: functions that make what is raised.
        writing: The same for sending.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        reading: Mapping[int, list[Callable[[], BaseException]]] | None = None,
        writing: Mapping[int, list[Callable[[], BaseException]]] | None = None,
    ) -> None:
        timeout = sock.gettimeout()
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.settimeout(timeout)
        self._reading = {offset: list(faults) for offset, faults in (reading or {}).items()}
        self._writing = {offset: list(faults) for offset, faults in (writing or {}).items()}
        self.bytes_read = 0
        self.bytes_written = 0

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        with memoryview(buffer) as view:
            limit = self._bytes_allowed(self._reading, self.bytes_read, len(view))
            count = super().recv_into(view[:limit], 0, flags)
        self.bytes_read += count
        return count

    def send(self, data: Any, flags: int = 0, /) -> int:  # type: ignore[override]
        with memoryview(data) as view:
            limit = self._bytes_allowed(self._writing, self.bytes_written, len(view))
            count = super().send(view[:limit], flags)
        self.bytes_written += count
        return count

    def sendmsg(
        self, buffers: Any, ancillary: Any = (), flags: int = 0, address: Any = None
    ) -> int:
        return self.send(b"".join(buffers), flags)

    def _bytes_allowed(self, plan: dict[int, list[Any]], position: int, size: int) -> int:
        """How many bytes may move now; raises where the plan has a failure for this place."""
        if plan.get(position):
            raise plan[position].pop(0)()
        ahead = [offset for offset, faults in plan.items() if faults and offset > position]
        return min([size, *(offset - position for offset in ahead)])


def _is_ours(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(PACKAGE)


# Methods of the library's future that asyncio's tasks call, from C: the frame before theirs is that
# of the library, which runs the task.
_CALLED_BY_TASKS = ("get_loop", "add_done_callback")


@contextlib.contextmanager
def interrupted_at(
    moment: int, error: type[BaseException] = Interruption, *, inside: bool = False
) -> Iterator[list[int]]:
    """Raise an error at that moment of what the block calls, counted from 1.

    A moment is the beginning of a function of the library, or a return from C to one. What the
    standard library's functions do inside is theirs.

    Args:
        moment: Which one; 0 for none.
        error: What to raise.
        inside: Leave out the beginnings of functions that others than the library call. An event
            loop that calls one has lost the callback then, and maybe bytes that it read.

    Yields:
        A list with one number: how many moments have passed.
    """
    passed = [0]

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "c_return") or not _is_ours(frame):
            return
        if inside and event == "call":
            by_task = frame.f_code.co_name in _CALLED_BY_TASKS
            if by_task or not _is_ours(frame.f_back):
                return
        passed[0] += 1
        if passed[0] == moment:
            raise error

    sys.setprofile(look)
    try:
        yield passed
    finally:
        sys.setprofile(None)


# After these, and after every jump backwards that is taken, CPython runs the handlers of signals.
_CHECKING = ("RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX")


@contextlib.contextmanager
def interrupted_after_opcode(moment: int) -> Iterator[list[int]]:
    """As `interrupted_at`, but after each single instruction of the library's Python code after
    which CPython would run a handler: loops and calls that return from C to Python included.

    Yields:
        A list with one number: how many moments have passed.
    """
    passed = [0]
    last: dict[FrameType, tuple[str, int]] = {}

    def begin(frame: FrameType, event: str, argument: object) -> Any:
        # A call from Python to Python returns without a look at the signals.
        if frame.f_back in last and last[frame.f_back][0] in ("CALL", "CALL_KW"):
            last[frame.f_back] = "", 0
        if not _is_ours(frame):
            return None
        frame.f_trace_opcodes = True
        return look

    def look(frame: FrameType, event: str, argument: object) -> Any:
        if event == "exception":  # so does a call that raises: its handler is next
            last[frame] = "", 0
        if event != "opcode":
            return look
        name, place = last.get(frame, ("", 0))
        last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]], frame.f_lasti
        if name in _CHECKING or ("JUMP_BACKWARD" in name and frame.f_lasti < place):
            passed[0] += 1
            if passed[0] == moment:
                raise Interruption
        return look

    before = sys.gettrace()  # coverage's
    sys.settrace(begin)
    try:
        yield passed
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def without_tracer() -> Iterator[None]:
    """Run the block without a trace function.

    After a failed allocation, coverage's tracer counts no line of this process any more.
    """
    before = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


def fail_allocation(
    number: int,
    call: Callable[[Any], object],
    argument: Any,
    expected: tuple[type[Exception], ...],
) -> bool:
    """Call a function while one allocation, counted from its beginning, fails.

    Args:
        number: Allocations before it succeed, and so do all after it.
        call: The function.
        argument: Its argument.
        expected: Other errors that the call may raise, besides MemoryError.

    Returns:
        Whether it raised MemoryError.
    """
    testcapi = pytest.importorskip("_testcapi")
    with without_tracer():
        # CPython keeps up to 2000 tuples of three items, for which it needs no memory.
        kept = [(number, index, index) for index in range(2100)]
        testcapi.set_nomemory(number, number + 1)
        try:
            call(argument)
        except MemoryError:
            testcapi.remove_mem_hooks()
            return True
        except expected:
            testcapi.remove_mem_hooks()
        finally:
            testcapi.remove_mem_hooks()
            del kept
    return False


def lock_is_free(lock: Any) -> bool:
    """Whether another thread can take it."""
    taken: list[bool] = []

    def attempt() -> None:
        taken.append(lock.acquire(blocking=False))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(TIMEOUT)
    return taken == [True]


needs_signals_to_threads = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="no signals to threads here"
)


@contextlib.contextmanager
def disturbed(armed: list[bool]) -> Iterator[None]:
    """Signals to this thread, over and over; their handler raises while `armed` holds something."""
    this_thread = threading.get_ident()
    ended = threading.Event()

    def handle(*_: object) -> None:
        if armed:
            raise Interruption

    def disturb() -> None:
        while not ended.wait(0.0005):
            signal.pthread_kill(this_thread, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        armed.clear()
        ended.set()
        thread.join(TIMEOUT)
        signal.signal(signal.SIGUSR1, before)


def reset(sock: Any) -> None:
    """End the TCP connection of a socket or a `FrameSocket` at once: the peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextlib.contextmanager
def stream_pair(kind: str = "socketpair") -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected stream sockets, the first one with a time-out."""
    if kind == "socketpair":
        left, right = socket.socketpair()
    else:
        with contextlib.ExitStack() as stack:
            if kind == "tcp":
                server = socket.create_server(("127.0.0.1", 0))
                address: Any = server.getsockname()
            else:  # a separate path: pytest's may be longer than the system takes
                address = stack.enter_context(tempfile.TemporaryDirectory()) + "/socket"
                server = socket.socket(socket.AF_UNIX)
                server.bind(address)
                server.listen()
            stack.enter_context(server)
            server.settimeout(TIMEOUT)
            left = socket.socket(server.family)
            left.settimeout(TIMEOUT)
            left.connect(address)
            right, _ = server.accept()
            right.settimeout(None)
    with left, right:
        left.settimeout(TIMEOUT)
        yield left, right
