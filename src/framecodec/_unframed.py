"""Received bytes that are not parsed: the unframed part of a stream, between frames.

A connection receives ahead, so what follows a message may be in its splitter before the program
asks for it as unframed. `Inbox.unframe` takes these bytes back as they travelled, and
`Inbox.reframe` parses what was not taken. In between, a splitter of fixed-size pieces receives.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, final

from ._error_texts import PendingFrame
from .codec import Codec
from .errors import IncompleteFrameError

__all__ = ["PIECE_SIZE", "UnframedBytes", "check_size", "pieces_of"]

PIECE_SIZE = 64 * 1024
"""Bytes that are received in one piece, at most."""


@functools.lru_cache(maxsize=64)
def pieces_of(size: int) -> Codec:
    """Return the codec for pieces of this size, in bytes."""
    return Codec.fixed(size)


def check_size(size: Any) -> int:
    """Return a number of bytes that a caller asks for.

    Raises:
        TypeError, ValueError: It is not an integer, or negative.
    """
    size = operator.index(size)
    if size < 0:
        raise ValueError(f"the number of bytes must be 0 or more, not {size}")
    return int(size)


@final
class UnframedBytes:
    """A queue of received bytes.

    Args:
        data: The first bytes.
        offset: Their position in the stream.
    """

    __slots__ = ("_memory", "_start", "offered", "offset", "wanted")

    def __init__(self, data: bytes, offset: int) -> None:
        self._memory = bytearray(data)
        self._start = 0  # position in the memory of the first byte that was not taken
        self.offset = offset
        """The position of the first byte in the stream."""
        self.offered: Any = None
        """A batch whose bytes come before these, if a caller has not taken them; or None."""
        self.wanted = 0
        """Bytes that the call in progress asks for."""

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self._memory) - self._start

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        if self._start > PIECE_SIZE and self._start > len(self._memory) // 2:
            rest = self._memory[self._start :]
            self._memory, self._start = rest, 0
        self._memory += data

    def take_back(self) -> None:
        """Add the bytes that were offered at the front, if no caller has taken them."""
        data = b"".join(self.offered.rest()) if self.offered is not None else b""
        if data:
            memory, offset = bytearray(data), self.offset - len(data)
            memory += self._memory[self._start :]
            self._memory, self._start, self.offset = memory, 0, offset
        self.offered = None

    def first(self, size: int) -> bytes:
        """Return the first bytes, which stay. There are that many."""
        with memoryview(self._memory) as view:
            return bytes(view[self._start : self._start + size])

    def drop(self, size: int) -> None:
        """Remove the first bytes."""
        start, offset = self._start + size, self.offset + size
        memory = self._memory if start < len(self._memory) else bytearray()
        # No call between these: a signal handler that raises finds all of them done, or none.
        self._memory, self._start, self.offset = memory, start if memory else 0, offset

    def pending_frame(self, received: int) -> PendingFrame:
        """Describe the bytes for the text of an error about what is missing of them.

        Args:
            received: Bytes that came.
        """
        size = max(self.wanted, received)
        return PendingFrame(
            layout=pieces_of(PIECE_SIZE).layout,
            where="rest",
            received=received,
            needed=size,
            stream_offset=self.offset,
            header=b"",
            sample=b"",
        )

    def incomplete(self, received: int) -> EOFError:
        """Return the error about a stream that ended before a call had its bytes.

        Args:
            received: Bytes that came.
        """
        if not received:
            return EOFError("the peer closed the connection; no unframed byte came before that")
        return IncompleteFrameError(
            f"incomplete unframed bytes at stream offset {self.offset}: the stream ended after "
            f"{received} of {self.wanted} bytes; recv_bytes({received}) returns them",
            where="rest",
            received=received,
            needed=self.wanted,
            stream_offset=self.offset,
            header=b"",
        )
