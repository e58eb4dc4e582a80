"""The reader of the commonest frames in Python: a binary length and a rest only.

It is a part of `FrameReader` (`_frame_reader_py.py`), which says what readers do.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from ._choice import Choice
from ._fields_py import Reader, reader_of, skip_frames, unpacker
from ._gaps_py import Gap
from ._layout import Layout
from ._marks_py import MarkedState, Stops, stops_of
from ._quick_loops_py import Loop, loop_of

__all__ = [
    "AT_ONCE_SIZE",
    "IN_HEADER",
    "IN_PADDING",
    "IN_REST",
    "IN_TRAILER",
    "IS_WHOLE_BETWEEN_CALLS",
    "PIECE_SIZE",
    "SLICE_SIZE",
    "SMALL_SIZE",
    "Numbers",
    "PlainReader",
    "Unpack",
    "numbers_for",
]

IN_HEADER, IN_REST, IN_TRAILER, IN_PADDING = range(4)

# Whether no other thread and no signal handler runs between two instructions that call nothing: so
# it is in CPython with its GIL.
IS_WHOLE_BETWEEN_CALLS = (
    sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
)

SLICE_SIZE = 64 * 1024
"""Other buffers than bytes are taken in slices of this size: no large one is copied whole."""

PIECE_SIZE = 1024
"""Pieces of a message from this size up are kept as they came, until several are merged.

Smaller ones are gathered first, so that a message that drips in byte by byte does not cost an
object a byte.
"""

AT_ONCE_SIZE = 16 * 1024
"""`feed` tries to take smaller chunks at once, without the lock."""

SMALL_SIZE = 16 * 1024
"""A pending frame and a chunk under this size are joined.

Two slices and their bookkeeping cost more than to copy the chunk, and so does a view of it.
"""

# In fewer bytes, the position is compared for every frame: to catch an error costs as much as that
# does for 50 frames.
_FEW = 256

Unpack = Callable[[bytes, int], tuple[int]]


class Numbers(NamedTuple):
    """What a reader stores of a layout."""

    layout: Layout
    header_limit: int  # how many bytes of a header to gather
    magic: bytes
    trailer: bytes
    lead_size: int
    header_size: int
    adjustment: int
    quick_low: int
    quick_high: int
    read_field: Reader
    unpack: Unpack | None
    quick: Loop | None
    stops: Stops
    # For the headers of the messages of the last call, if they are kept.
    headers: list[bytes] | None
    # A choice: `layout` becomes that of the pending frame as soon as its byte is in.
    choice: Choice | None
    choice_layout: Layout
    tag: tuple[Any, ...]  # the names of the alternative


def numbers_for(layout: Layout, raw: bool, keep_headers: bool) -> Numbers:
    """Return what a reader stores of a layout."""
    low, span = layout.quick_range
    headers: list[bytes] | None = [] if keep_headers and not layout.canonical else None
    return Numbers(
        layout,
        layout.longest_header,
        layout.magic,
        layout.trailer,
        layout.lead_size,
        layout.header_size,
        layout.adjustment,
        low,
        low + span,
        reader_of(layout),
        None if raw or not layout.plain else unpacker(layout),
        None if raw or headers is not None else loop_of(layout),
        stops_of(layout),
        headers,
        layout.choice,
        layout,
        (),
    )


class PlainReader(MarkedState):
    """What the fast path for plain frames needs."""

    __slots__ = (
        "_adjustment",
        "_counting",
        "_detours",
        "_found",
        "_gaps",
        "_gather_end",
        "_header",
        "_header_size",
        "_layout",
        "_notes_gaps",
        "_padding_size",
        "_pending",
        "_phase",
        "_piece",
        "_pieces",
        "_quick",
        "_quick_high",
        "_quick_low",
        "_rest_end",
        "_skipping",
        "_stops",
        "_stream_offset",
        "_turn",
        "_whole_size",
    )

    _layout: Layout
    _adjustment: int
    _header_size: int
    _quick: Loop | None
    _quick_low: int
    _quick_high: int
    _stops: Stops
    _stream_offset: int
    _counting: bool
    _detours: int
    _turn: list[Any] | None
    _gaps: list[Gap]  # of the last call
    _notes_gaps: bool

    # The pending frame; see FrameReader.
    _found: tuple[int, int, bytes] | None
    _gather_end: int
    _header: bytearray
    _padding_size: int
    _pending: int
    _phase: int
    _piece: bytearray
    _pieces: list[bytes]
    _rest_end: int
    _skipping: bool
    _whole_size: int

    def _read_plain_frames(
        self,
        data: bytes,
        pos: int,
        messages: list[Any],
        unpack: Unpack,
    ) -> int:
        """Take frames of a binary length and a rest only, whole or cut off.

        The pending frame is completed first, if the chunk has all of it. A frame that the chunk
        cuts off is left as the slow path would leave it. It returns where the first frame begins,
        or is continued, that needs the slow path.
        """
        before = 0  # bytes of the pending frame that `data` begins with, before the chunk
        if self._pending:
            left = self._rest_end - self._pending
            if self._phase != IN_HEADER and (
                left > len(data) - pos or self._phase != IN_REST or self._skipping
            ):
                return pos
            if not pos and self._pending < SMALL_SIZE and len(data) < SMALL_SIZE:
                before = self._pending
                no_header, no_pieces, no_piece = self._header, self._pieces, self._piece
                if no_header or no_piece:
                    data = b"".join([no_header, *no_pieces, no_piece, data])
                    no_header, no_piece = bytearray(), bytearray()
                else:
                    data = b"".join([*no_pieces, data])
                no_pieces = []
            elif self._phase == IN_HEADER:
                return pos
            else:
                pos = self._end_plain_frame(data, pos, messages)
        first_pos, size, count = pos, len(data), len(messages)
        low, high, adjustment = self._quick_low, self._quick_high, self._adjustment
        header_size, append = self._header_size, messages.append
        self._counting = True
        try:
            if size < _FEW:
                last = size - header_size
                while pos <= last:
                    (value,) = unpack(data, pos)
                    rest_pos = pos + header_size
                    stop = rest_pos + value + adjustment
                    if stop > size or value > high or value < low:
                        break
                    append(data[rest_pos:stop])
                    pos = stop
                else:
                    rest_pos = stop = size
                    value = low
            elif low or adjustment:
                while True:
                    (value,) = unpack(data, pos)
                    rest_pos = pos + header_size
                    stop = rest_pos + value + adjustment
                    if stop > size or value > high or value < low:
                        break
                    append(data[rest_pos:stop])
                    pos = stop
            else:  # the same with two steps less
                while True:
                    (value,) = unpack(data, pos)
                    rest_pos = pos + header_size
                    stop = rest_pos + value
                    if stop > size or value > high:
                        break
                    append(data[rest_pos:stop])
                    pos = stop
        except struct.error:  # the chunk ends in a header: see _FEW
            rest_pos = stop = size
            value = low
        except BaseException:
            pos = skip_frames(self._layout, data, first_pos, len(messages) - count)
            raise
        finally:
            try:
                self._stream_offset += pos - first_pos
            except MemoryError:  # once more: the messages are in the list already
                self._stream_offset += pos - first_pos
            if before and pos:  # the pending frame is delivered
                self._header, self._piece, self._pieces = no_header, no_piece, no_pieces
                self._pending, self._phase = 0, IN_HEADER
            self._counting = False
        if pos == size:
            return size - before
        if not low <= value <= high:
            return max(0, pos - before)
        # The frame is cut off.
        rest, pending, taken = data[pos:], size - pos, size - before
        if stop == size:  # in the header
            header = bytearray(rest)
            # No call in between, here and below, so that no byte is counted without being kept.
            self._header = header
            self._pending = pending
            return taken
        pieces, whole_size = [rest], stop - pos
        header = self._header
        if header:
            header = bytearray()
        self._header = header
        self._pieces = pieces
        self._pending = pending
        self._whole_size = whole_size
        self._padding_size = 0
        self._rest_end = whole_size
        self._phase = IN_REST
        if IS_WHOLE_BETWEEN_CALLS and whole_size < SLICE_SIZE:
            self._gather_end = whole_size
        return taken

    def _read_plain_at_once(self, data: bytes, messages: list[Any], unpack: Unpack) -> bool:
        """Take a chunk of such frames; return whether it has only those. If not, take nothing."""
        before, header, pieces, piece = self._pending, self._header, self._pieces, self._piece
        pos = 0
        if not before:
            pass
        elif self._phase == IN_HEADER:
            data, header, before = b"".join((header, data)), bytearray(), 0
        else:
            pos = self._rest_end - before
            if pos > len(data) or self._phase != IN_REST or self._skipping:
                return False
            if header:
                message = b"".join((*pieces, piece, data[:pos]))
                header = bytearray()
            elif piece or len(pieces) > 1:
                first: Any = pieces[0] if before < SMALL_SIZE else memoryview(pieces[0])
                message = b"".join((first[self._header_size :], *pieces[1:], piece, data[:pos]))
            else:
                message = pieces[0][self._header_size :] + data[:pos]
            messages.append(message)
            pieces = []
            if piece:
                piece = bytearray()
        size = len(data)
        low, high, adjustment = self._quick_low, self._quick_high, self._adjustment
        header_size, append = self._header_size, messages.append
        try:
            if size < _FEW:
                last = size - header_size
                while pos <= last:
                    (value,) = unpack(data, pos)
                    rest_pos = pos + header_size
                    stop = rest_pos + value + adjustment
                    if stop > size or value > high or value < low:
                        break
                    append(data[rest_pos:stop])
                    pos = stop
                else:
                    stop, value = size, low
            elif low or adjustment:
                while True:
                    (value,) = unpack(data, pos)
                    rest_pos = pos + header_size
                    stop = rest_pos + value + adjustment
                    if stop > size or value > high or value < low:
                        break
                    append(data[rest_pos:stop])
                    pos = stop
            else:  # the same with two steps less
                while True:
                    (value,) = unpack(data, pos)
                    rest_pos = pos + header_size
                    stop = rest_pos + value
                    if stop > size or value > high:
                        break
                    append(data[rest_pos:stop])
                    pos = stop
        except struct.error:
            stop, value = size, low
        if not low <= value <= high:
            return False
        pending, whole_size, gather_end, phase = size - pos, stop - pos, 0, IN_HEADER
        if stop > size:
            pieces, phase = [data[pos:]], IN_REST
            gather_end = whole_size if whole_size < SLICE_SIZE else SLICE_SIZE
        elif pending:  # the chunk ends in a header
            header = bytearray(data[pos:])
        offset = self._stream_offset + before + pos
        if self._turn is not messages:
            return False
        # No call from here on, so that the chunk is taken whole or not at all.
        self._stream_offset = offset
        self._header = header
        self._pieces = pieces
        self._piece = piece
        self._pending = pending
        self._phase = phase
        self._whole_size = self._rest_end = whole_size
        self._padding_size = 0
        self._gather_end = gather_end
        self._turn = None
        return True

    def _end_plain_frame(self, data: bytes, pos: int, messages: list[Any]) -> int:
        """Deliver the pending frame, whose last bytes begin at `pos`; return where it ends."""
        left = self._rest_end - self._pending
        stop = pos + left
        last: Any = data[pos:stop] if left < SMALL_SIZE else memoryview(data)[pos:stop]
        pieces: list[Any] = [*self._pieces, self._piece, last]
        if not self._header:
            pieces[0] = memoryview(pieces[0])[self._header_size :]
        message = b"".join(pieces)
        no_pieces: list[bytes] = []
        offset, header, piece = self._stream_offset + self._whole_size, bytearray(), bytearray()
        # No call from here on, so that no message is delivered and also kept.
        messages += (message,)
        self._stream_offset = offset
        self._header = header
        self._piece = piece
        self._pieces = no_pieces
        self._phase = IN_HEADER
        self._pending = 0
        self._found = None
        return stop
