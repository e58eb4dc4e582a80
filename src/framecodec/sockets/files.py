"""Messages that are never in memory as a whole: files, and buffers of the caller."""

from __future__ import annotations

import errno
import io
import mmap
import os
import stat
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, final

from .. import _error_texts
from .._custom_header import read_header
from .._likely_causes import SAMPLE_SIZE
from .._outbox import GATHER_SIZE
from .._states import ReceiveState
from . import checks

if TYPE_CHECKING:
    from .._check_bytes import RunningCheck
    from .._layout import Layout
    from ..codec import Codec
    from .receiving import ReceiveSide

__all__ = [
    "IncomingMessage",
    "OutgoingFile",
    "TargetFile",
    "begin_message",
    "check_binary_file",
    "check_capacity",
    "file_too_short",
    "finish_message",
    "receive_some",
    "recv_file",
    "recv_into",
]

# Bytes read from a file at a time, if the kernel does not copy from it by itself.
_CHUNK_SIZE = 256 * 1024

# Bytes asked of one receive into a buffer of the caller.
_DIRECT_READ_SIZE = 1024 * 1024

NO_BYTES = memoryview(b"")

# Python 3.11 calls a Python function to look up a member of an Enum class.
_READY, _BUSY, _LOST = ReceiveState.READY, ReceiveState.BUSY, ReceiveState.LOST
_HALF_DELIVERED = ReceiveState.HALF_DELIVERED

# Files whose read() and write() move nothing if a signal handler interrupts them. (Python's
# buffered files run handlers after each of the system calls that they make.)
_CERTAIN = (io.BytesIO, io.FileIO)


def check_binary_file(file: Any, method: str) -> None:
    """Raise a TypeError if an object is not a file opened in binary mode, with this method."""
    if isinstance(file, io.TextIOBase) or not hasattr(file, method):
        raise TypeError(f"a file opened in binary mode is required, not {type(file).__name__!r}")


# --- receiving ------------------------------------------------------------------------------------


@final
class TargetFile:
    """A file to write to in such a way that every written byte is counted.

    Args:
        file: The user's file. Bytes that its buffer holds are written first.

    Attributes:
        write: Writes bytes and returns their number, or None if the file would block.
        certain: Whether an interrupted `write` has written nothing.
    """

    __slots__ = ("_moved", "certain", "write")

    def __init__(self, file: Any) -> None:
        self._moved: Any = None
        if type(file) in (io.BufferedWriter, io.BufferedRandom) and type(file.raw) is io.FileIO:
            file.flush()
            self._moved = file if type(file) is io.BufferedRandom else None
            file = file.raw
        self.write = file.write
        self.certain = type(file) in _CERTAIN

    def close(self) -> None:
        """Show the user's file where the written bytes end; the file stays open."""
        if self._moved is not None:
            self._moved.tell()  # which asks the kernel: the file's own position is out of date


@final
class IncomingMessage:
    """A message that is received without the splitter: into a file, or into a caller's buffer."""

    __slots__ = (
        "buffer",
        "check",
        "chunk",
        "frame_size",
        "header",
        "in_trailer",
        "layout",
        "lead",
        "missing",
        "offset",
        "sample",
        "size",
        "tail",
        "tail_size",
        "unfinished",
    )

    def __init__(
        self,
        *,
        layout: Layout,
        size: int,
        chunk: memoryview = NO_BYTES,
        missing: int = 0,
        tail_size: int = 0,
        header: bytes = b"",
        lead: bytes | None = b"",
        offset: int = 0,
        frame_size: int = 0,
        buffer: memoryview = NO_BYTES,
    ) -> None:
        self.layout = layout
        self.size = size
        """Bytes of the message."""
        self.chunk = chunk
        """Bytes of it that were received and not delivered."""
        self.missing = missing
        """Bytes that were not received: of the rest, later of the tail."""
        self.tail_size = tail_size
        """Bytes after the rest: a check, the trailer, padding."""
        self.tail = b""
        """Those that were received and verified."""
        self.in_trailer = False
        self.check: RunningCheck | None = None
        self.header = header
        self.lead = lead
        """None is not known before `join`."""
        self.sample = header
        """The frame's first bytes, as they travelled."""
        self.offset = offset
        """The stream position of its frame."""
        self.frame_size = frame_size
        """Bytes of its frame; 0 if the splitter had the whole frame, and verified its check."""
        self.buffer = buffer
        """Memory to receive into."""
        self.unfinished: bytes | None = None
        """Bytes that the splitter gave up, until `join`."""

    @classmethod
    def whole(cls, message: object, layout: Layout, capacity: int | None) -> IncomingMessage:
        """Return a message that is ready; raise a ValueError if it has no bytes, or too many."""
        if not isinstance(message, bytes):
            raise ValueError(f"the next message is {message!r}, which has no bytes; use recv()")
        check_capacity(len(message), capacity)
        return cls(layout=layout, size=len(message), chunk=memoryview(message))

    def join(self, lead: bytes) -> None:
        """Turn the bytes that the splitter gave up into the message's first bytes."""
        if self.unfinished is None:
            return
        chunk = memoryview(lead + self.unfinished[len(self.header) :])
        size = self.size + (len(lead) if self.lead is None else 0)
        self.sample = self.unfinished[:SAMPLE_SIZE]
        self.chunk = chunk
        self.size = size
        self.lead = lead
        self.unfinished = None

    def unread(self) -> bytes:
        """Return the received bytes of the frame, as they travelled; none was delivered yet."""
        return self.header + bytes(self.chunk[len(self.lead or b"") :])

    def received(self) -> int:
        """Return how many bytes of the frame were received."""
        return self.frame_size - self.missing - (0 if self.in_trailer else self.tail_size)

    def add_to_check(self, data: Any) -> None:
        """Let the check see the message's bytes, which end with the last received one."""
        if self.check is not None:
            self.check.add(self.size - self.missing - len(data), data)

    def pending_frame(self) -> _error_texts.PendingFrame:
        """Return what arrived of the frame, for an error's text."""
        return _error_texts.PendingFrame(
            self.layout,
            "trailer" if self.in_trailer else "rest",
            self.received(),
            self.frame_size,
            self.offset,
            self.header,
            self.sample,
        )


def recv_file(side: ReceiveSide, file: Any) -> int:
    """Receive a message into a file, as `FrameSocket.recv_file`."""
    check_binary_file(file, "write")
    return side.guard.call(_recv_file, side, file)


def _recv_file(side: ReceiveSide, file: Any) -> int:
    receiver, inbox = side.receiver, side.inbox
    message = begin_message(side)
    receiver.state = _BUSY
    try:
        target = TargetFile(file)
        try:
            _copy_to_file(side, message, target)
        finally:
            target.close()
        return finish_message(side, message)
    finally:
        if receiver.state is _BUSY:
            receiver.state = _READY if inbox.direct is None else _HALF_DELIVERED
        if inbox.receiving:
            side.stop_clock()


def recv_into(side: ReceiveSide, buffer: Any) -> int:
    """Receive a message into a buffer, as `FrameSocket.recv_into`."""
    return side.guard.call(_recv_into, side, buffer)


def _recv_into(side: ReceiveSide, buffer: Any) -> int:
    receiver, inbox = side.receiver, side.inbox
    with memoryview(buffer) as whole, whole.cast("B") as target:
        if target.readonly:
            raise TypeError(f"a writable buffer is required, not {type(buffer).__name__!r}")
        message = begin_message(side, len(target))
        receiver.state = _BUSY
        try:
            _fill_buffer(side, message, target)
            message.add_to_check(target[: message.size])
            return finish_message(side, message)
        finally:
            if receiver.state is _BUSY:
                receiver.state = _READY if inbox.direct is None else _HALF_DELIVERED
            if inbox.receiving:
                side.stop_clock()


def begin_message(side: ReceiveSide, capacity: int | None = None) -> IncomingMessage:
    """Return the message that an earlier call has begun, or the next one.

    Args:
        side: Where it comes from.
        capacity: The largest size of the message; None for any size.
    """
    begun = side.inbox.direct
    if begun is None:
        side.stops_at_large = side.may_divert and checks.can_run(side.inbox.codec)
        try:
            side.fill()
        finally:
            side.stops_at_large = False
        message = (_take_ready if side.receiver.ready else _divert)(side, capacity)
    elif side.receiver.state is not _HALF_DELIVERED or side.wire.torn:
        side.refuse()
    else:
        assert isinstance(begun, IncomingMessage)
        message = begun
        _join(side, message)
        check_capacity(message.size, capacity)
    return message


def _take_ready(side: ReceiveSide, capacity: int | None) -> IncomingMessage:
    """Take a message that is whole and ready."""
    first = side.receiver.ready.first
    message = IncomingMessage.whole(first, side.inbox.codec.layout, capacity)
    side.intake.take_first(side.receiver, side.inbox, message)
    return message


def _divert(side: ReceiveSide, capacity: int | None) -> IncomingMessage:
    """Take the pending frame from the splitter; another splitter gets what follows it."""
    inbox = side.inbox
    old = inbox.splitter
    layout = old._pending_frame().layout  # of a choice, that of the alternative
    header, received, offset = old.pending_header, old.pending, old.stream_offset
    frame_size = received + old.bytes_needed
    lead: bytes | None
    if layout.parse is not None:
        shown = header[: len(header) - layout.front_check_size]
        parsed = read_header(layout, shown, offset)
        lead = None if parsed is None else parsed[2]
    else:
        lead = layout.begun_message(header)
    padding_size = layout.padding(frame_size)
    frame_size += padding_size
    tail_size = layout.tail_size + padding_size
    message = IncomingMessage(
        size=len(lead or b"") + frame_size - len(header) - tail_size,
        missing=frame_size - received - tail_size,
        layout=layout,
        tail_size=tail_size,
        header=header,
        lead=lead,
        offset=offset,
        frame_size=frame_size,
        buffer=memoryview(bytearray(side.read_size)),
    )
    check_capacity(message.size, capacity)
    receiver, splitter = side.receiver, inbox.new_splitter(offset + frame_size)
    side.use_fast_path(False)
    get_buffer = side.get_buffer(splitter)
    receiver.state = _BUSY
    try:
        side.intake.divert(
            inbox, receiver, message, splitter, get_buffer, side.read_size, side.wire
        )
    except MemoryError:  # perhaps after the splitter gave its bytes up
        receiver.state = _LOST
        raise
    finally:
        if receiver.state is _BUSY:  # pragma: no cover (tested without the tracer)
            receiver.state = _READY
    _join(side, message)
    if lead is None:
        _check_capacity_for_lead(side, message, capacity)
    return message


def _join(side: ReceiveSide, message: IncomingMessage) -> None:
    """Store the first bytes of a message that was taken from the splitter, and begin its check."""
    lead = message.lead
    if lead is None and message.unfinished is not None:
        # parse() looks further than the header, which the splitter has given back by now.
        layout = message.layout
        seen = message.unfinished[: len(layout.magic) + layout.max_header]
        parsed = read_header(layout, seen, message.offset)
        if parsed is None or parsed[0] + layout.front_check_size != len(message.header):
            side.end(_error_texts.parse_changed_its_answer(message.offset))
        lead = parsed[2]
    message.join(lead or b"")
    if message.check is None and message.frame_size:
        message.check = checks.new_check(message)


def check_capacity(size: int, capacity: int | None) -> None:
    """Raise a ValueError if a message is larger than a buffer; None for no buffer."""
    if capacity is not None and size > capacity:
        raise ValueError(
            f"buffer too small: the message has {size} bytes, the buffer {capacity}; nothing is "
            "lost, call again with a larger buffer"
        )


def _check_capacity_for_lead(
    side: ReceiveSide, message: IncomingMessage, capacity: int | None
) -> None:
    """Check the size of a message whose lead only the bytes after its header could give.

    A message that is too large becomes the splitter's again.
    """
    try:
        check_capacity(message.size, capacity)
    except ValueError:
        splitter = side.inbox.new_splitter(message.offset)
        splitter.feed(message.unread())
        side.intake.give_back(
            side.inbox,
            side.receiver,
            splitter,
            side.get_buffer(splitter),
            side.read_size,
            side.wire,
        )
        side.use_fast_path()
        raise


def _copy_to_file(side: ReceiveSide, message: IncomingMessage, file: TargetFile) -> None:
    while not message.in_trailer:
        message.add_to_check(message.chunk)
        while message.chunk:
            _write_chunk(side, message, file)
        if not message.missing:
            return
        receive_some(side, message, message.buffer[: message.missing])


def _write_chunk(side: ReceiveSide, message: IncomingMessage, file: TargetFile) -> None:
    try:
        could_write = side.wire.write_chunk(message, file.write)
    except BaseException as error:  # perhaps after bytes were written
        interrupted = not (file.certain or isinstance(error, Exception))
        if interrupted or isinstance(error, MemoryError):
            side.receiver.state = _LOST
        raise
    if not could_write:
        raise BlockingIOError(errno.EAGAIN, "the file takes no more bytes now; nothing is lost")


def _fill_buffer(side: ReceiveSide, message: IncomingMessage, target: memoryview) -> None:
    while not message.in_trailer and (message.chunk or message.missing):
        position = message.size - message.missing - len(message.chunk)
        if message.chunk:
            target[position : position + len(message.chunk)] = message.chunk
            message.chunk = NO_BYTES
            continue
        stop = position + min(message.missing, _DIRECT_READ_SIZE)
        with target[position:stop] as view:
            receive_some(side, message, view, keep=False)


def receive_some(
    side: ReceiveSide, message: IncomingMessage, view: memoryview, *, keep: bool = True
) -> None:
    """Receive into `view` once. The message counts the bytes."""
    wire = side.wire
    deadline = wire.deadline()
    while True:
        try:
            if wire.tls is None:
                has_bytes = wire.receive_direct(message, view, keep)
            else:
                has_bytes = wire.call_tls(wire.receive_direct, message, view, keep)
        except OSError as error:
            event = side.event_after(error)
        except MemoryError:  # perhaps after bytes were received
            side.receiver.state = _LOST
            raise
        else:
            if not has_bytes:
                side.end(None)
            if message.missing:  # a peer that never pauses may be late
                side.check_limits(drained=False)
            return
        side.wait(event, deadline)


def finish_message(side: ReceiveSide, message: IncomingMessage) -> int:
    """Receive and verify the check and the trailer; return the message's size."""
    if not message.in_trailer:
        checks.verify_front(side, message)
        message.missing = message.tail_size
        message.in_trailer = True
    while message.missing or message.chunk:
        checks.verify_tail(side, message)
        message.chunk = NO_BYTES
        if message.missing:
            receive_some(side, message, memoryview(bytearray(message.missing)))
    side.use_fast_path()
    side.inbox.direct = None
    if message.frame_size and side.observer is not None and side.observer.frame_received:
        side.observer.frame_received(side.conn, message.frame_size)  # the splitter did not see it
    if side.inbox.has_limits:
        side.inbox.note_arrival(monotonic())
    return message.size


# --- sending --------------------------------------------------------------------------------------


def file_too_short(missing: int) -> OSError:
    """Return the error of a file that ends before the size that its frame has announced."""
    return OSError(
        errno.EIO,
        f"the file became shorter while it was sent: {missing} bytes that its frame announced are "
        "missing; close the connection, nothing more can be sent on it",
    )


def _file_has_not(size: int, available: int) -> ValueError:
    return ValueError(
        f"file too short: it has {available} bytes from its position on, not {size} (size)"
    )


def _blank_message(size: int, first: bytes) -> memoryview:
    """Return a message of which only the first bytes are right; its pages take no memory."""
    message = mmap.mmap(-1, size)
    message[: len(first)] = first
    return memoryview(message)


@final
class OutgoingFile:
    """A message from a file, and how much of it is unsent."""

    __slots__ = (
        "chunk",
        "end",
        "file",
        "fileno",
        "header",
        "owned",
        "position",
        "read_some",
        "sendfile",
        "trailer",
        "trailer_size",
        "unsent",
    )

    def __init__(
        self, file: Any, fileno: int, position: int, unsent: int, header: bytes, trailer: bytes
    ) -> None:
        self.file = file
        self.fileno = fileno
        """The descriptor of a regular file; -1 if only `file` can be read."""
        self.position = position
        self.unsent = unsent
        """Bytes of the file that are neither sent nor in the outbox."""
        self.end = position + unsent
        self.header = header
        self.trailer = (trailer,) if trailer else ()
        self.trailer_size = len(trailer)
        self.chunk: bytes | None = None
        """Bytes that were read and are not in the outbox yet."""
        self.sendfile: Any = getattr(os, "sendfile", None) if fileno >= 0 else None
        self.owned = False
        """Whether `close` closes the descriptor."""
        # At most one system call, of which a signal handler loses nothing.
        self.read_some = file.read1 if type(file) is io.BufferedReader else file.read

    @classmethod
    def open(cls, file: Any, size: int | None, codec: Codec[Any]) -> OutgoingFile | bytes:
        """Return a message from a file, or bytes if the message is small.

        Raises:
            TypeError, ValueError, FrameError: As `FrameSocket.send_file`.
        """
        check_binary_file(file, "read")
        if size is not None and size < 0:
            raise ValueError(f"size must be 0 or more, not {size}")
        # Not every object with a fileno() gives the bytes of that descriptor: gzip does not.
        if isinstance(getattr(file, "raw", file), io.FileIO):
            fileno = file.fileno()
            status = os.fstat(fileno)
            if stat.S_ISREG(status.st_mode) and hasattr(os, "pread"):
                if file.writable():
                    file.flush()
                    status = os.fstat(fileno)
                return cls._open_regular(file, fileno, size, status.st_size, codec)
        if size is None:
            return bytes(file.read())
        return cls._open_readable(file, size, codec)

    @classmethod
    def _open_regular(
        cls, file: Any, fileno: int, size: int | None, file_size: int, codec: Codec[Any]
    ) -> OutgoingFile | bytes:
        position = file.tell()
        available = max(0, file_size - position)
        if size is None:
            size = available
        elif not 0 <= size <= available:
            raise _file_has_not(size, available)
        layout = codec.layout
        needs_all = bool(layout.check and (layout.build or not checks.can_run(codec)))
        needs_all = needs_all or layout.joined is not None
        if size < GATHER_SIZE or layout.choice or layout.marks or needs_all:
            return bytes(file.read(size))
        if layout.check is not None:
            first = os.pread(fileno, layout.message_prefix, position)
            outgoing = cls._around(file, fileno, position, _blank_message(size, first), codec)
            checks.compute_check(outgoing, layout)
            return outgoing
        # The codec sees the message as a memory map, of which it reads only a few pages.
        aligned = position - position % mmap.ALLOCATIONGRANULARITY
        message = memoryview(
            mmap.mmap(fileno, position - aligned + size, access=mmap.ACCESS_READ, offset=aligned)
        )[position - aligned :]
        return cls._around(file, fileno, position, message, codec)

    @classmethod
    def _open_readable(cls, file: Any, size: int, codec: Codec[Any]) -> OutgoingFile | bytes:
        layout = codec.layout
        needs_all = layout.build or layout.choice or layout.constants
        needs_all = needs_all or layout.check or layout.marks or layout.joined
        if size < GATHER_SIZE or needs_all:
            data = bytearray()
            while len(data) < size and (chunk := file.read(size - len(data))):
                data += chunk
            if len(data) < size:
                raise _file_has_not(size, len(data))
            return bytes(data)
        message = mmap.mmap(-1, size)  # only the lead is written; other pages take no memory
        message[: layout.message_lead] = file.read(layout.message_lead)
        return cls._around(file, -1, 0, memoryview(message), codec)

    @classmethod
    def _around(
        cls, file: Any, fileno: int, position: int, message: memoryview, codec: Codec[Any]
    ) -> OutgoingFile:
        parts = codec.frame_parts(message)
        place = 0  # no generator, which CPython cannot end without memory
        while place < len(parts) and not isinstance(parts[place], memoryview):
            place += 1
        header, trailer = b"".join(parts[:place]), b"".join(parts[place + 1 :])
        unsent = sum([memoryview(part).nbytes for part in parts]) - len(header) - len(trailer)
        return cls(file, fileno, position + len(message) - unsent, unsent, header, trailer)

    def read(self) -> Iterable[bytes]:
        """Return an iterator whose step reads one piece."""
        size = min(self.unsent, _CHUNK_SIZE)
        if self.fileno < 0:
            return map(self.read_some, (size,))
        return map(os.pread, (self.fileno,), (size,), (self.position,))

    def loses(self, error: BaseException) -> bool:
        """Return whether a `read` that has failed in this way may have lost bytes."""
        if self.fileno >= 0:
            return False  # a regular file is read at a position
        raw = self.file.raw if type(self.file) is io.BufferedReader else self.file
        certain = type(raw) in _CERTAIN
        return isinstance(error, MemoryError) or not (certain or isinstance(error, Exception))

    def move_position(self) -> None:
        """Move the user's file to the end of the message."""
        if self.fileno >= 0 and not self.owned:
            self.file.seek(self.end)

    def own(self) -> None:
        """Keep the file open even if the user closes it."""
        if self.fileno >= 0 and not self.owned:
            self.fileno = os.dup(self.fileno)
            self.owned = True

    def close(self) -> None:
        """Close the descriptor if it is owned."""
        if self.owned:
            self.owned = False
            os.close(self.fileno)
