"""Messages that are never held in memory: from a file into a socket, and past the splitter."""

from __future__ import annotations

import io
import mmap
import os
import stat
from collections.abc import Iterable
from typing import Any, final

from . import _error_texts, errors
from ._outbox import GATHER_SIZE
from .codec import Codec

__all__ = ["NO_BYTES", "IncomingMessage", "OutgoingFile", "TargetFile", "check_binary_file"]

# Bytes read from a file at a time, where the system does not copy from it by itself.
_CHUNK_SIZE = 256 * 1024

NO_BYTES = memoryview(b"")


def check_binary_file(file: Any, method: str) -> None:
    """Before anything is sent or received."""
    if isinstance(file, io.TextIOBase) or not hasattr(file, method):
        raise _error_texts.not_a_binary_file(file)


# Files whose read() and write() move nothing where a signal handler interrupts them. (Python's
# buffered files run handlers after each of the system calls that they make.)
_CERTAIN = (io.BytesIO, io.FileIO)


@final
class TargetFile:
    """A file to write to in such a way that every written byte is counted.

    Args:
        file: The user's file. Bytes that its buffer holds are written first.

    Attributes:
        write: Writes bytes and returns their number, or None where the file would block.
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
        """Let the user's file see where the written bytes end; the file stays open."""
        if self._moved is not None:
            self._moved.tell()  # which asks the system: the file's own position is out of date


@final
class IncomingMessage:
    """A message on its way past the splitter: into a file, or into a buffer of the caller's."""

    __slots__ = (
        "buffer",
        "chunk",
        "frame_size",
        "header",
        "in_trailer",
        "lead",
        "left",
        "offset",
        "size",
        "stop",
        "trailer",
        "unfinished",
    )

    def __init__(
        self,
        *,
        size: int,
        chunk: memoryview = NO_BYTES,
        left: int = 0,
        trailer: bytes = b"",
        header: bytes = b"",
        lead: bytes | None = b"",
        offset: int = 0,
        frame_size: int = 0,
        buffer: memoryview = NO_BYTES,
    ) -> None:
        self.size = size  # of the message
        self.chunk = chunk  # bytes of it that were received and not delivered
        self.left = left  # bytes that were not received: of the rest, later of the trailer
        self.trailer = trailer
        self.in_trailer = False
        self.header = header
        self.lead = lead  # None: not known before `settle`
        self.offset = offset  # of the frame in the stream
        self.frame_size = frame_size
        self.buffer = buffer  # to receive into
        self.unfinished: bytes | None = None  # what the splitter gave back, once
        self.stop: float | None = None  # when a peer that is late and never pauses is cut off

    def settle(self, lead: bytes) -> None:
        """Turn what the splitter gave back into the message's first bytes."""
        if self.unfinished is None:
            return
        chunk = memoryview(lead + self.unfinished[len(self.header) :])
        size = self.size + (len(lead) if self.lead is None else 0)
        self.chunk = chunk
        self.size = size
        self.lead = lead
        self.unfinished = None

    def unread(self) -> bytes:
        """Return the bytes of the frame that arrived, as they travelled; none was delivered yet."""
        return self.header + bytes(self.chunk[len(self.lead or b"") :])

    def received(self) -> int:
        """Bytes of the frame that arrived."""
        return self.frame_size - self.left - (0 if self.in_trailer else len(self.trailer))

    def incomplete(self) -> errors.IncompleteFrameError:
        where = "trailer" if self.in_trailer else "rest"
        return _error_texts.incomplete(
            where, self.received(), self.frame_size, self.offset, self.header
        )


@final
class OutgoingFile:
    """What is left to send of a file."""

    __slots__ = (
        "chunk",
        "end",
        "file",
        "fileno",
        "header",
        "left",
        "owned",
        "position",
        "read_some",
        "sendfile",
        "trailer",
        "trailer_size",
    )

    def __init__(
        self, file: Any, fileno: int, position: int, left: int, header: bytes, trailer: bytes
    ) -> None:
        self.file = file
        self.fileno = fileno  # of a regular file; -1: only `file` can be read
        self.position = position
        self.left = left
        self.end = position + left
        self.header = header
        self.trailer = (trailer,) if trailer else ()
        self.trailer_size = len(trailer)
        self.chunk: bytes | None = None  # read and not handed on
        self.sendfile: Any = getattr(os, "sendfile", None) if fileno >= 0 else None
        self.owned = False  # the descriptor is ours to close
        # At most one call of the system's, of which nothing is lost to a signal handler.
        self.read_some = file.read1 if type(file) is io.BufferedReader else file.read

    @classmethod
    def open(cls, file: Any, size: int | None, codec: Codec) -> OutgoingFile | bytes:
        """A message from a file; bytes where there is nothing to be gained."""
        check_binary_file(file, "read")
        if size is not None and size < 0:
            raise _error_texts.negative_size(size)
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
        cls, file: Any, fileno: int, size: int | None, file_size: int, codec: Codec
    ) -> OutgoingFile | bytes:
        position = file.tell()
        there = max(0, file_size - position)
        if size is None:
            size = there
        elif not 0 <= size <= there:
            raise _error_texts.file_has_not(size, there)
        if size < GATHER_SIZE:
            return bytes(file.read(size))
        # The codec sees the message through memory that is only read where it looks.
        aligned = position - position % mmap.ALLOCATIONGRANULARITY
        message = memoryview(
            mmap.mmap(fileno, position - aligned + size, access=mmap.ACCESS_READ, offset=aligned)
        )[position - aligned :]
        return cls._around(file, fileno, position, message, codec)

    @classmethod
    def _open_readable(cls, file: Any, size: int, codec: Codec) -> OutgoingFile | bytes:
        layout = codec.layout
        if size < GATHER_SIZE or layout.build is not None:
            data = bytearray()
            while len(data) < size and (chunk := file.read(size - len(data))):
                data += chunk
            if len(data) < size:
                raise _error_texts.file_has_not(size, len(data))
            return bytes(data)
        message = mmap.mmap(-1, size)  # never touched but for the lead, so never there
        message[: layout.lead_size] = file.read(layout.lead_size)
        return cls._around(file, -1, 0, memoryview(message), codec)

    @classmethod
    def _around(
        cls, file: Any, fileno: int, position: int, message: memoryview, codec: Codec
    ) -> OutgoingFile:
        parts = codec.frame_parts(message)
        header, trailer = bytes(parts[0]), codec.layout.trailer
        left = sum(memoryview(part).nbytes for part in parts) - len(header) - len(trailer)
        return cls(file, fileno, position + len(message) - left, left, header, trailer)

    def read(self) -> Iterable[bytes]:
        """One piece, read when it is asked for."""
        size = min(self.left, _CHUNK_SIZE)
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
        if self.fileno >= 0 and not self.owned:
            self.file.seek(self.end)

    def own(self) -> None:
        """Makes it independent of whether the user closes the file."""
        if self.fileno >= 0 and not self.owned:
            self.fileno = os.dup(self.fileno)
            self.owned = True

    def close(self) -> None:
        if self.owned:
            self.owned = False
            os.close(self.fileno)
