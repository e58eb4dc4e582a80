"""`FramePipe`: whole messages over pipes, standard streams, serial ports and other files."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any, NoReturn, final

from .._engine import sockets_fast_path as _fast_path
from .._message_types import MessageT
from .._observer import Observer
from .._options import OnInvalid, OnOversize
from .._states import SendState, SocketState
from ..codec import DEFAULT_CODEC, Codec, check_codec
from .base import TimedWrapper, check_timeout, close_locked
from .calls import BlockingCalls, ObservedCalls
from .objects import ObjectCalls, UnobservedObjectCalls
from .pipe_ends import End, Waker, close_files, read_end, write_end
from .receiving import ReceiveSide
from .sending import SendSide
from .waiting import READ
from .wire import Wire

__all__ = ["FramePipe"]

_LONGEST_POLL = 2_000_000  # seconds; the kernel takes the time as an int of milliseconds


class _Files:
    """The files of a `FramePipe`, where the sides of a connection expect a socket."""

    family = None
    send = sendmsg = None  # for the fast path, which is switched off

    def __init__(self, reader: End | None, writer: End | None) -> None:
        self.reader = reader
        self.writer = writer

    def fileno(self) -> int:
        """Return the descriptor to read from, or else the one to write to."""
        end = self.reader or self.writer
        assert end is not None
        return end.fileno()

    def getpeername(self) -> NoReturn:
        """Raise an OSError: a pipe has no address."""
        raise OSError(errno.ENOTSOCK, "a pipe has no address")


@final
class PipeWire(Wire):
    """The system calls on the files of a `FramePipe`.

    Args:
        files: The files.
    """

    __slots__ = ("files",)

    is_socket = False

    def __init__(self, files: _Files) -> None:
        super().__init__(files)  # type: ignore[arg-type]
        self.files = files

    def settimeout(self, timeout: float | None, *, wait_in_poll: bool) -> None:
        """Store the time-out; no call waits in the kernel but in ``poll``."""
        self.timeout = timeout
        self.read_waits = self.write_waits = timeout != 0

    def wait(self, event: int, deadline: float | None) -> bool:
        """Wait until a file can be read or written, as `waiting.wait`."""
        end = self.files.reader if event == READ else self.files.writer
        assert end is not None
        while True:
            milliseconds = None
            if deadline is not None:
                seconds = min(max(0.0, deadline - monotonic()), _LONGEST_POLL)
                milliseconds = math.ceil(seconds * 1000)
            if end.wait(milliseconds):
                return True
            if deadline is not None and monotonic() >= deadline:
                return False

    def counts(self, buffers: Iterator[Any]) -> Iterator[int]:
        """Return an iterator that reads into the next buffer and gives the number of bytes."""
        if self.files.reader is None:
            return map(_refuse_to_read, buffers)
        return self.files.reader.counts(buffers)

    def is_end_of_stream(self, error: OSError) -> bool:
        """Return whether an error is the end of the stream."""
        return self.files.reader is not None and self.files.reader.is_end(error)

    def send(self, outbox: Any, buffers: list[Any]) -> None:
        """Write some of an outbox's buffers. The outbox counts the bytes."""
        if self.files.writer is None:
            raise io.UnsupportedOperation("this FramePipe has no writer, it can only receive")
        outbox.sent_counts.extend(self.files.writer.write_counts(buffers))

    def sendfile(self, file: Any) -> bool:
        """Let the caller read the file: the kernel could wait in a copy into a pipe."""
        file.sendfile = None
        return True

    def wake(self) -> None:
        """Wake the threads that wait."""
        for end in (self.files.reader, self.files.writer):
            if end is not None:
                end.wake()


def _refuse_to_read(_: object) -> NoReturn:
    raise io.UnsupportedOperation("this FramePipe has no reader, it can only send")


class FramePipe(BlockingCalls[MessageT], TimedWrapper):
    """Whole messages over binary files: pipes, standard streams, FIFOs, serial ports.

    It has the methods of `FrameSocket`, and promises the same: a time-out, an interruption or a
    would-block loses nothing. It owns the files from then on.

    Time-outs, the time limits for the peer, and a `close` that wakes a waiting thread need files
    of Python's own (`open`, `os.fdopen`, `subprocess`, `sys.stdin.buffer`) and a system with
    ``poll``. Other objects wait as their own methods do.

    Args:
        reader: A binary file to read from: an object with ``readinto`` or ``read``. None: the
            connection only sends.
        writer: A binary file to write to: an object with ``write``. None: `reader`, if it can be
            written to (a serial port, a terminal); else the connection only receives.
        codec: The shape of the frames.
        message_timeout: As for `FrameSocket`.
        idle_timeout: As for `FrameSocket`.
        read_ahead: As for `FrameSocket`.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        received: Bytes that were read before: they come first.
        observer: As for `FrameSocket`.

    Raises:
        TypeError, ValueError: A file or an argument is invalid.
        io.UnsupportedOperation: A time limit, for an object that cannot be waited for.
    """

    __slots__ = (
        "__weakref__",
        "_files",
        "_receiver",
        "_receiving",
        "_sender",
        "_sending",
        "_state",
        "_timeout",
        "_waker",
        "_wire",
    )

    def __init__(
        self,
        reader: Any,
        writer: Any = None,
        codec: Codec[MessageT] = DEFAULT_CODEC,  # type: ignore[assignment]
        *,
        message_timeout: float | None = None,
        idle_timeout: float | None = None,
        read_ahead: bool = True,
        on_oversize: OnOversize = "raise",
        on_invalid: OnInvalid = "raise",
        received: Any = b"",
        observer: object = None,
    ) -> None:
        check_codec(codec)
        if isinstance(writer, Codec):
            raise TypeError("writer must be a binary file; pass the codec by keyword: codec=...")
        if reader is None and writer is None:
            raise TypeError("a reader or a writer is required")
        if writer is None and _is_writable(reader):
            writer = reader
        self._state = SocketState.OPEN
        self._waker = Waker()
        read, buffered = (None, b"") if reader is None else read_end(reader, self._waker)
        write = None if writer is None else write_end(writer, self._waker)
        self._files = _Files(read, write)
        self._wire = PipeWire(self._files)
        self._receiving = ReceiveSide(
            self._wire,
            codec,
            _fast_path,
            self,
            message_timeout=message_timeout,
            idle_timeout=idle_timeout,
            on_oversize=on_oversize,
            on_invalid=on_invalid,
            observer=Observer.of(observer),
            read_ahead=read_ahead,
        )
        self._sending = SendSide(self._wire, codec, _fast_path)
        self._receiver = self._receiving.receiver
        self._sender = self._sending.sender
        if self._receiving.inbox.has_limits:
            self._check_can_wait(read)
        self.settimeout(None)
        if codec._objects is not None or observer is not None:
            self._use_class_for(codec)
        if observer is not None:
            _ObservedFramePipe._notify(self, "connection_opened")  # type: ignore[arg-type]
        received = bytes(received) + buffered
        if received:
            self._receiving.take_received(received)

    @property
    def reader(self) -> Any:
        """The file that is read, or None."""
        return None if self._files.reader is None else self._files.reader.file

    @property
    def writer(self) -> Any:
        """The file that is written to, or None."""
        return None if self._files.writer is None else self._files.writer.file

    def _check_can_wait(self, *ends: Any) -> None:
        for end in ends:
            if end is not None and not end.can_wait:
                raise io.UnsupportedOperation(
                    f"a time-out needs a file that can be waited for, and {end.file!r} cannot; "
                    "only calls without a time-out are possible"
                )

    # --- as on a socket ---------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor of the reader (else the writer); -1 after `close` or `detach`."""
        return self._files.fileno() if self._state is SocketState.OPEN else -1

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that a call may take.

        Args:
            timeout: Seconds; None waits for ever, 0 does not wait.

        Raises:
            ValueError: It is negative.
            io.UnsupportedOperation: A file cannot be waited for.
        """
        check_timeout(timeout)
        self._check_open()
        if timeout is not None:
            self._check_can_wait(self._files.reader, self._files.writer)
        self._wire.settimeout(timeout, wait_in_poll=True)
        self._timeout = timeout
        self._receiving.use_splitter()
        self._use_guards(timeout)

    def shutdown(self, how: int, /) -> None:
        """Close one of the files, or both: ``socket.SHUT_WR`` closes the writer.

        The peer then reads the end of the stream. Bytes that an earlier `send` left unsent are not
        sent.

        Raises:
            OSError: One file is both, a serial port for example: its directions cannot be ended
                one by one.
        """
        self._check_open()
        if how == socket.SHUT_RDWR:
            self.close()
            return
        if self.reader is self.writer:
            raise OSError(errno.EOPNOTSUPP, "one file is the reader and the writer; call close()")
        if how == socket.SHUT_WR:
            self._sending.guard.call(self._close_writer)
        elif how == socket.SHUT_RD:
            raise OSError(errno.EOPNOTSUPP, "a reader cannot be ended alone; call close()")
        else:
            raise ValueError(f"how must be SHUT_WR or SHUT_RDWR, not {how!r}")

    def _close_writer(self) -> None:
        writer = self.writer
        if writer is not None and self._sender.state is not SendState.CLOSED:
            self._sender.state = SendState.CLOSED
            writer.close()

    def detach(self) -> tuple[tuple[Any, Any], bytes]:
        """Give up the files, to be used with another protocol.

        Returns:
            The reader and the writer (or None), and the bytes that were received and not delivered
            as messages, exactly as they travelled.

        Raises:
            RuntimeError: There are unsent bytes of accepted messages (`flush` first), or a message
                is half received into a file or a buffer.
            OSError: The connection was closed on this side, a frame was begun that cannot be
                finished, or it is unknown which bytes were sent or received.
        """
        return self._call_guarded(self._detach)

    def _detach(self) -> tuple[tuple[Any, Any], bytes]:
        self._check_open()
        self._sending.check_detach()
        self._receiving.check_detach()
        unread = self._receiving.detach()
        self._end(SocketState.DETACHED)
        self._waker.close()
        return (self.reader, self.writer), unread

    def close(self) -> None:
        """Close both files; a thread that waits in the connection gets a `ConnectionAbortedError`.

        Bytes that an earlier `send` left unsent are dropped. If another thread waits inside the
        method of an object that cannot be waited for, this waits for it.
        """
        if self._state is not SocketState.OPEN:
            return
        self._end(SocketState.CLOSED)
        locks = self._receiving.lock, self._sending.lock
        close_locked(locks, self._wire.wake, self._close)

    def _close(self, _were_free: bool) -> None:
        receiving, sending = self._receiving, self._sending
        self._end(SocketState.CLOSED)  # a call that ended may have stored its state after that
        if sending.file is not None:
            sending.file.close()
        receiving.inbox.failure = sending.failure = sending.error = None
        self._waker.close()
        files = {id(file): file for file in (self.writer, self.reader) if file is not None}
        with contextlib.suppress(BrokenPipeError):  # of what the file's own buffer holds
            close_files(files.values())

    def __repr__(self) -> str:
        if self._state is not SocketState.OPEN:
            return f"<FramePipe closed, {self.codec!r}>"
        return f"<FramePipe reader={self.reader!r} writer={self.writer!r}, {self.codec!r}>"


class _ObservedFramePipe(ObservedCalls, FramePipe[Any]):
    """A connection with an observer."""

    __slots__ = ()


@final
class _ObjectPipe(UnobservedObjectCalls, FramePipe[Any]):
    """A `FramePipe` whose codec has objects."""

    __slots__ = ()


@final
class _ObservedObjectPipe(ObjectCalls, _ObservedFramePipe):
    """The same with an observer."""

    __slots__ = ()


FramePipe._CLASSES = {
    (False, False): FramePipe,
    (False, True): _ObservedFramePipe,
    (True, False): _ObjectPipe,
    (True, True): _ObservedObjectPipe,
}


def _is_writable(file: Any) -> bool:
    """Return whether a file to read from can be written to, too."""
    if not hasattr(file, "write"):
        return False
    writable = getattr(file, "writable", None)
    return writable is None or bool(writable())
