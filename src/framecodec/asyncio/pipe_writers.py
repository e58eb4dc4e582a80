"""Transports for outputs that the event loops' own ones do not write to, or not only write to."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from .pipe_transport import WriteHalf

__all__ = ["DescriptorWriter", "FileWriter"]

# Unsent bytes above which the protocol is told to pause, and at which it is told to resume.
_HIGH_WATER = 64 * 1024
_LOW_WATER = 16 * 1024


@final
class FileWriter(asyncio.WriteTransport):
    """A transport that writes to a regular file, which takes everything at once.

    Args:
        file: The file.
        half: It is told of the end.
    """

    def __init__(self, file: Any, half: WriteHalf) -> None:
        super().__init__()
        self._file = file
        self._half = half
        self._is_closing = False
        half.connection_made(self)

    def write(self, data: Any) -> None:
        """Write bytes."""
        try:
            with memoryview(data) as view:
                position = 0
                while position < len(view):
                    position += os.write(self._file.fileno(), view[position:])
        except OSError as error:
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._file.close()
            asyncio.get_running_loop().call_soon(self._half.connection_lost, error)

    def close(self) -> None:
        """Close the file."""
        self._close(None)

    def abort(self) -> None:
        """Close the file."""
        self._close(None)

    def is_closing(self) -> bool:
        """Return whether the file is closed."""
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        """Return 0."""
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return (0, 0)."""
        return 0, 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing."""


@final
class DescriptorWriter(asyncio.WriteTransport):
    """A transport that writes to a descriptor and never reads from it.

    The event loops' own transport watches the descriptor for input, and uvloop's reads it, to find
    out that the peer has closed. From a terminal, a serial port or a socket that would take bytes
    that are the reader's.

    Args:
        file: The file.
        half: It is told of full and empty buffers, and of the end.
    """

    def __init__(self, file: Any, half: WriteHalf) -> None:
        super().__init__({"pipe": file})
        self._file = file
        self._fd = file.fileno()
        self._half = half
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._limits = _LOW_WATER, _HIGH_WATER
        self._is_paused = False
        self._is_closing = False
        os.set_blocking(self._fd, False)
        half.connection_made(self)

    def write(self, data: Any) -> None:
        """Write bytes; hold those that the descriptor does not take now."""
        if self._is_closing:
            return
        with memoryview(data) as view, view.cast("B") as unsent:
            count = 0 if self._unsent else self._write_some(unsent)
            if count == len(unsent) or self._is_closing:
                return
            if not self._unsent:
                self._loop.add_writer(self._fd, self._write_rest)
            self._unsent += unsent[count:]
        if len(self._unsent) > self._limits[1] and not self._is_paused:
            self._is_paused = True
            self._half.pause_writing()

    def _write_some(self, data: Any) -> int:
        """Return how many bytes the descriptor has taken."""
        try:
            return os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._is_closing = True
            self._end(error)
            return 0

    def _write_rest(self) -> None:
        count = self._write_some(self._unsent)
        del self._unsent[:count]
        if self._file is None:  # the write failed
            return
        if not self._unsent:
            self._loop.remove_writer(self._fd)
            if self._is_closing:
                self._end(None)
                return
        if self._is_paused and len(self._unsent) <= self._limits[0] and not self._is_closing:
            self._is_paused = False
            self._half.resume_writing()

    def _end(self, error: BaseException | None) -> None:
        if self._file is not None:
            if self._unsent:
                self._loop.remove_writer(self._fd)
            self._unsent.clear()
            self._file.close()
            self._file = None
            self._loop.call_soon(self._half.connection_lost, error)

    def close(self) -> None:
        """Close the descriptor when it has taken all bytes."""
        if not self._is_closing:
            self._is_closing = True
            if not self._unsent:
                self._end(None)

    def abort(self) -> None:
        """Close the descriptor; drop the unsent bytes."""
        self._is_closing = True
        self._end(None)

    def is_closing(self) -> bool:
        """Return whether the descriptor is closed, or will be."""
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        """Return the number of unsent bytes."""
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks, the low one first."""
        return self._limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the half's `pause_writing` and `resume_writing` are called."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        low = high // 4 if low is None else low
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._limits = low, high
