"""The two ends of a connection over files: pipes, standard streams, serial ports.

An end is one of two kinds:

* A *descriptor*: a file of Python's own (`io.FileIO`, with or without a buffer around it), or a
  serial port of pyserial, on a system with ``poll``. It is read and written with ``readv`` and
  ``writev`` on its descriptor, and waited for with ``poll``: so it has time-outs, and `close` wakes
  a thread that waits.
* Any other *object* with ``readinto`` or ``read``, or ``write``. Its own methods wait.

A blocking descriptor stays blocking, because other processes may share it. So it is read only after
``poll`` has found bytes, and a pipe gets at most ``PIPE_BUF`` bytes a call: POSIX promises that a
pipe that ``poll`` calls writable takes that many without a wait.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import socket
import stat
import time
import weakref
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, TypeAlias

from .waiting import READ

__all__ = [
    "DescriptorEnd",
    "End",
    "ObjectEnd",
    "Waker",
    "check_file",
    "close_files",
    "read_end",
    "take_buffered",
    "write_end",
]

# Bytes that a writable pipe takes without a wait.
_PIPE_SIZE: int = getattr(select, "PIPE_BUF", 512)
# A terminal promises nothing. This many wait for a short time at most.
_TERMINAL_SIZE = 256

_HAS_POLL = hasattr(select, "poll") and hasattr(os, "readv")

# Seconds between two attempts on an object that has nothing yet and cannot be waited for.
_PAUSE = 0.005


def _would_block() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class Waker:
    """A descriptor that becomes readable when a connection is closed."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        self.awake = False
        """`wake` was called: no call may touch the descriptors of the connection."""
        # Each can be called twice, and runs when the garbage collector finds this object.
        self._close_reader = weakref.finalize(self, os.close, self._reader)
        self._close_writer = weakref.finalize(self, os.close, writer)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader

    def wake(self) -> None:
        """Wake every thread that waits."""
        self.awake = True
        self._close_writer()  # the other end is readable from now on

    def close(self) -> None:
        """Close the descriptors; no thread waits any more."""
        self.wake()
        self._close_reader()


class DescriptorEnd:
    """One direction of a file that has a descriptor.

    Args:
        file: The user's file.
        raw: The `io.FileIO` in it.
        event: `READ` or `WRITE`.
        waker: It ends a wait.
    """

    can_wait = True

    def __init__(self, file: Any, raw: io.FileIO, event: int, waker: Waker) -> None:
        self.file = file
        self._fd = raw.fileno()
        self._waker = waker
        self._event = select.POLLIN if event == READ else select.POLLOUT
        self._poll = select.poll()
        self._poll.register(self._fd, self._event)
        self._poll.register(waker, select.POLLIN)
        self._is_ready = False  # a wait has shown it, and no call has made use of it
        mode = os.fstat(self._fd).st_mode
        self._always_ready = stat.S_ISREG(mode)
        self._limit = 0  # bytes of one write; 0: any number
        if os.get_blocking(self._fd) and not stat.S_ISREG(mode):
            self._limit = _TERMINAL_SIZE if stat.S_ISCHR(mode) else _PIPE_SIZE
        self._is_terminal = stat.S_ISCHR(mode) and os.isatty(self._fd)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def wait(self, milliseconds: float | None) -> bool:
        """Wait until the end can be used, or until the connection is closed."""
        if self._always_ready:
            return True
        self._is_ready = bool(self._poll.poll(milliseconds))
        return self._is_ready

    def check_ready(self) -> None:
        """Raise an error if a call would have to wait.

        Raises:
            BlockingIOError: It would.
            OSError: The connection was closed.
        """
        if self._waker.awake:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._is_ready:
            self._is_ready = False
        elif not (self._always_ready or self._poll.poll(0)):
            raise _would_block()
        if self._waker.awake:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _when_ready(self, buffer: Any) -> Any:
        self.check_ready()
        return buffer

    def counts(self, buffers: Iterator[Any]) -> Iterator[int]:
        """Return an iterator that reads into the next buffer and gives the number of bytes."""
        return map(os.readv, repeat(self._fd), zip(map(self._when_ready, buffers), strict=True))

    def write_counts(self, buffers: list[Any]) -> Iterator[int]:
        """Return an iterator whose step writes bytes of the buffers and gives their number."""
        self.check_ready()
        if self._limit:
            buffers = _first_bytes(buffers, self._limit)
        return map(os.writev, (self._fd,), (buffers,))

    def is_end(self, error: OSError) -> bool:
        """Return whether an error of reading is the end of the stream.

        A terminal whose other side was closed says EIO (Linux).
        """
        return self._is_terminal and error.errno == errno.EIO

    def wake(self) -> None:
        """Wake the thread that waits."""
        self._waker.wake()


def _first_bytes(buffers: list[Any], size: int) -> list[Any]:
    """Return the first buffers, up to a number of bytes."""
    first = []
    for buffer in buffers:
        if len(buffer) >= size:
            first.append(memoryview(buffer)[:size])
            break
        first.append(buffer)
        size -= len(buffer)
    return first


class ObjectEnd:
    """One direction of an object with the methods of a binary file.

    Args:
        file: The object.
    """

    can_wait = False

    def __init__(self, file: Any) -> None:
        self.file = file
        self._closed = False
        # readinto() and read() of a buffered file wait until all bytes are there; the methods with
        # a 1 return what one read of the kernel gives.
        self._readinto = getattr(file, "readinto1", None) or getattr(file, "readinto", None)
        self._read = getattr(file, "read1", None) or getattr(file, "read", None)
        self._is_serial_port = hasattr(file, "in_waiting")
        self._flush = getattr(file, "flush", None)

    def fileno(self) -> int:
        """Return the descriptor, if the object has one."""
        return int(self.file.fileno())

    def wait(self, milliseconds: float | None) -> bool:
        """Wait for a short time: the object cannot be waited for."""
        time.sleep(_PAUSE if milliseconds is None else min(_PAUSE, milliseconds / 1000))
        return True

    def counts(self, buffers: Iterator[Any]) -> Iterator[int]:
        """Return an iterator that reads into the next buffer and gives the number of bytes."""
        return map(self._read_into, buffers)

    def _read_into(self, buffer: memoryview) -> int:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._readinto is not None and not self._is_serial_port:
            count = self._readinto(buffer)
            if count is None:
                raise _would_block()
            return int(count)
        size = len(buffer)
        if self._is_serial_port:  # read(n) waits for n bytes
            size = min(max(self.file.in_waiting, 1), size)
        data = self._read(size)  # type: ignore[misc]
        if data is None or (self._is_serial_port and not data):  # its own time-out passed
            raise _would_block()
        buffer[: len(data)] = data
        return len(data)

    def write_counts(self, buffers: list[Any]) -> Iterator[int]:
        """Return an iterator whose step writes bytes of the buffers and gives their number."""
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return map(self._write, buffers[:1])

    def _write(self, buffer: Any) -> int:
        try:
            count = self.file.write(buffer)
        except BlockingIOError as error:  # of a buffered file whose raw file is non-blocking
            if not error.characters_written:
                raise
            count = error.characters_written
        if count is None:
            if isinstance(self.file, io.RawIOBase):
                raise _would_block()
            count = len(buffer)  # the object does not count
        if self._flush is not None:
            with contextlib.suppress(BlockingIOError):
                self._flush()
        return int(count)

    def is_end(self, error: OSError) -> bool:
        """Return whether an error of reading is the end of the stream."""
        return False

    def wake(self) -> None:
        """Wake the thread that waits, if the object can do that; let later calls raise."""
        self._closed = True
        for name in ("cancel_read", "cancel_write"):  # of pyserial
            with contextlib.suppress(AttributeError, OSError):
                getattr(self.file, name)()


End: TypeAlias = DescriptorEnd | ObjectEnd


def _raw_file(file: Any) -> io.FileIO | None:
    """Return the unbuffered file of one that can be waited for, or None."""
    raw = file
    if type(file) in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom):
        raw = file.raw
    is_serial_port = hasattr(file, "in_waiting")  # pyserial reads and writes its descriptor, too
    if not (type(raw) is io.FileIO or is_serial_port) or not _HAS_POLL:
        return None
    try:
        poll = select.poll()
        poll.register(raw.fileno(), select.POLLIN)
        if any(events & select.POLLNVAL for _, events in poll.poll(0)):
            return None  # macOS: a terminal
    except (AttributeError, OSError, TypeError, ValueError):  # it has no descriptor
        return None
    return raw  # type: ignore[no-any-return]


def read_end(file: Any, waker: Waker) -> tuple[End, bytes]:
    """Return the end that reads a file, and the bytes that the file's own buffer holds.

    Raises:
        TypeError: It is not a binary file that can be read.
    """
    check_file(file, "readinto", "readinto1", "read", "read1")
    raw = _raw_file(file)
    if raw is None:
        return ObjectEnd(file), b""
    buffered = b"" if raw is file else take_buffered(file, raw.fileno())
    return DescriptorEnd(file, raw, READ, waker), buffered


def write_end(file: Any, waker: Waker) -> End:
    """Return the end that writes to a file.

    Raises:
        TypeError: It is not a binary file that can be written to.
    """
    check_file(file, "write")
    raw = _raw_file(file)
    if raw is None:
        return ObjectEnd(file)
    if raw is not file:
        file.flush()
    return DescriptorEnd(file, raw, 0, waker)


def check_file(file: Any, *methods: str) -> None:
    """Check that an object is a binary file with one of these methods.

    Raises:
        TypeError: It is not.
    """
    if isinstance(file, io.TextIOBase):
        raise TypeError(
            f"a binary file is required, not {type(file).__name__!r}; take its buffer "
            "(sys.stdin.buffer), or open it in binary mode"
        )
    if not any(hasattr(file, method) for method in methods):
        raise TypeError(
            f"a binary file with {' or '.join(methods)} is required, not {type(file).__name__!r}"
            + _remedy(file)
        )


def _remedy(file: Any) -> str:
    """Return the part of an error's text that says what to pass instead."""
    if isinstance(file, socket.socket):
        return "; framecodec.FrameSocket takes sockets"
    if isinstance(file, int):
        return "; os.fdopen(descriptor, 'rb', 0) makes a file of a descriptor"
    if hasattr(file, "stdin") and hasattr(file, "stdout"):  # a process
        return "; write FramePipe(process.stdout, process.stdin)"
    return ""


def take_buffered(file: Any, fd: int) -> bytes:
    """Return what a buffered file has read from its descriptor already, without a wait."""
    if not hasattr(file, "peek"):
        return b""
    was_blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        size = len(file.peek())
        return bytes(file.read1(size)) if size else b""
    finally:
        os.set_blocking(fd, was_blocking)


def close_files(files: Iterable[Any]) -> None:
    """Close files, all of them; raise the first error."""
    failure: BaseException | None = None
    for file in files:
        try:
            file.close()
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
