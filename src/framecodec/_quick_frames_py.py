"""The reader of ordinary frames that begin with a length, in Python, also where chunks cut them.

It reads for a `FrameReader` with a loop of `_quick_loops_py.py`. It ends the pending frame, takes
those that are whole in the chunk, and keeps the one that the chunk cuts off as the slow path would.
It makes all calls first and stores everything then: it is interrupted before it has changed
anything, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._plain_reader_py import (
    IN_HEADER,
    IN_REST,
    IN_TRAILER,
    IS_WHOLE_BETWEEN_CALLS,
    SLICE_SIZE,
)
from ._quick_loops_py import IN_ORDINARY_HEADER, Loop

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = ["read_quick_frames"]

# A pending header of fewer bytes is joined with the chunk. Only header blocks are longer.
_LONG_HEADER = 256

# Fewer bytes are copied: a view of them costs more.
_SMALL = 16 * 1024


def read_quick_frames(
    reader: FrameReader, data: bytes, pos: int, messages: list[Any], loop: Loop
) -> int:
    """Take frames from `pos` on; return where the first one begins, or is continued, that is odd.

    It returns the end of the chunk if there is none.
    """
    before = 0  # bytes of the pending header that `data` begins with, before the chunk
    chunk_pos, chunk_size = pos, len(data)
    if reader._pending:
        if reader._phase == IN_REST or (reader._phase == IN_TRAILER and not reader._trailer_pos):
            pos = _end_frame(reader, data, pos, messages)
            if pos in (chunk_pos, chunk_size):
                return pos
        elif reader._phase == IN_HEADER and reader._pending < _LONG_HEADER:
            before = reader._pending
            data = b"".join((reader._header, data[pos:] if pos else data))
            pos = 0
        else:
            return pos
    elif reader._phase != IN_HEADER:
        return pos
    found: list[bytes] = []
    start, size = pos, len(data)
    pos, rest_pos, rest_stop = loop(reader, data, start, found)
    if pos > start:
        offset = reader._stream_offset + pos - start
        header = bytearray() if before else reader._header
        # No call from here on.
        messages += found
        reader._stream_offset = offset
        if before:
            reader._header = header
            reader._pending = reader._line_pos = 0
            reader._parsed = -1
        if pos == size:
            return chunk_size
    if rest_stop == IN_ORDINARY_HEADER:
        header, pending = bytearray(data[pos:]), size - pos
        # No call from here on.
        reader._header = header
        reader._pending = pending
        return chunk_size
    if rest_stop < size:  # odd, or the chunk ends inside the trailer
        return max(chunk_pos, pos if not before else pos - before + chunk_pos)
    header, rest = bytearray(data[pos:rest_pos]), data[rest_pos:]
    pieces = [rest] if rest else []
    pending, rest_end = size - pos, rest_stop - pos
    own_size, whole_size = rest_pos - pos, rest_end + len(reader._trailer)
    # No call from here on.
    reader._header = header
    reader._pieces = pieces
    reader._pending = pending
    reader._own_size = own_size
    reader._whole_size = whole_size
    reader._padding_size = 0
    reader._rest_end = rest_end
    reader._phase = IN_REST if rest_stop > size else IN_TRAILER
    if IS_WHOLE_BETWEEN_CALLS and rest_end < SLICE_SIZE:
        reader._gather_end = rest_end
    return chunk_size


def _end_frame(reader: FrameReader, data: bytes, pos: int, messages: list[Any]) -> int:
    """Deliver the pending frame if its last bytes are in the chunk; return where it ends.

    `pos` itself if the slow path has to continue the frame.
    """
    trailer = reader._trailer
    rest_stop = pos + reader._rest_end - reader._pending
    stop = rest_stop + len(trailer)
    if stop > len(data) or reader._skipping or (trailer and data[rest_stop:stop] != trailer):
        return pos
    last: Any = data[pos:rest_stop]
    if rest_stop - pos >= _SMALL:
        last = memoryview(data)[pos:rest_stop]
    message = b"".join([*reader._pieces, reader._piece, last])
    offset = reader._stream_offset + reader._whole_size
    header, piece = bytearray(), bytearray()
    pieces: list[bytes] = []
    # No call from here on, so that no message is delivered and also kept.
    messages += (message,)
    reader._stream_offset = offset
    reader._header = header
    reader._piece = piece
    reader._pieces = pieces
    reader._phase = IN_HEADER
    reader._pending = reader._line_pos = 0
    reader._parsed = -1
    reader._found = None
    return stop
