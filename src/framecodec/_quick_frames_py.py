"""The reader of ordinary frames that begin with a length, in Python, also where chunks cut them.

It reads for a `FrameReader` with a loop of `_quick_loops_py.py`. It ends the pending frame, takes
those that are whole in the chunk, and keeps the one that the chunk cuts off: its header and the
first bytes of its rest are one piece, and `_header` is empty. It makes all calls first and stores
everything then: it is interrupted before it has changed anything, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._plain_reader_py import (
    IN_HEADER,
    IN_REST,
    IN_TRAILER,
    IS_WHOLE_BETWEEN_CALLS,
    SLICE_SIZE,
    SMALL_SIZE,
)
from ._quick_loops_py import IN_ORDINARY_HEADER, Loop

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = ["read_quick_at_once", "read_quick_frames"]

# A pending header of fewer bytes is joined with the chunk. Only header blocks are longer.
_LONG_HEADER = 256


def read_quick_frames(
    reader: FrameReader, data: bytes, pos: int, messages: list[Any], loop: Loop
) -> int:
    """Take frames from `pos` on; return where the first one begins, or is continued, that is odd.

    It returns the end of the chunk if no frame is odd.
    """
    before = 0  # bytes of the pending frame that `data` begins with, before the chunk
    chunk_pos, chunk_size = pos, len(data)
    if reader._pending or reader._phase != IN_HEADER:
        phase, pending = reader._phase, reader._pending
        if phase == IN_HEADER:
            if pending >= _LONG_HEADER:
                return pos
            data = b"".join((reader._header, data[pos:] if pos else data))
            pos, before = 0, pending
        elif reader._skipping or phase > IN_TRAILER or reader._trailer_pos:
            return pos
        elif reader._whole_size - pending > chunk_size - pos:
            _give_header(reader)
            return pos
        elif not pos and pending < SMALL_SIZE and chunk_size < SMALL_SIZE:
            if reader._header or reader._piece:
                data = b"".join((reader._header, *reader._pieces, reader._piece, data))
            else:
                data = b"".join((*reader._pieces, data))
            before = pending
        else:
            pos = _end_frame(reader, data, pos, messages)
            if pos in (chunk_pos, chunk_size):
                return pos
    found: list[bytes] = []
    start, size = pos, len(data)
    pos, rest_pos, rest_stop = loop(reader, data, start, found)
    if pos > start:
        offset = reader._stream_offset + pos - start
        if before:
            header, piece = reader._header, reader._piece
            if header:
                header = bytearray()
            if piece:
                piece = bytearray()
            pieces: list[bytes] = []
        # No call from here on, so that no message is delivered and also kept.
        messages += found
        reader._stream_offset = offset
        if before:
            reader._header = header
            reader._piece = piece
            reader._pieces = pieces
            reader._phase = IN_HEADER
            reader._pending = reader._line_pos = 0
            reader._parsed = -1
            reader._found = None
        if pos == size:
            return chunk_size
    elif before and reader._phase != IN_HEADER:  # its trailer is wrong
        _give_header(reader)
        return chunk_pos
    if rest_stop == IN_ORDINARY_HEADER:
        header, pending = bytearray(data[pos:]), size - pos
        # No call from here on.
        reader._header = header
        reader._pending = pending
        return chunk_size
    if rest_stop < size:  # odd, or the chunk ends inside the trailer
        return max(chunk_pos, pos if not before else pos - before + chunk_pos)
    pieces, header, pending = [data[pos:]], reader._header, size - pos
    if header:
        header = bytearray()
    own_size, rest_end = rest_pos - pos, rest_stop - pos
    whole_size = rest_end + len(reader._trailer)
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


def read_quick_at_once(reader: FrameReader, data: bytes, messages: list[Any], loop: Loop) -> bool:
    """Take a chunk of ordinary frames; return whether it has only those. If not, take nothing."""
    header, pieces, piece = reader._header, reader._pieces, reader._piece
    pending, phase = reader._pending, reader._phase
    start = before = 0  # the first frame's start, bytes of the pending frame before `data`
    if phase != IN_HEADER:
        start, trailer = reader._whole_size - pending, reader._trailer
        if start > len(data) or phase > IN_TRAILER or reader._skipping or reader._trailer_pos:
            return False
        before, rest_stop = pending, reader._rest_end - pending
        if trailer and data[rest_stop:start] != trailer:
            return False
        if header:
            message = b"".join((*pieces, piece, data[:rest_stop]))
            header = bytearray()
        elif piece or len(pieces) > 1:
            first: Any = pieces[0] if pending < SMALL_SIZE else memoryview(pieces[0])
            message = b"".join((first[reader._own_size :], *pieces[1:], piece, data[:rest_stop]))
        else:
            message = pieces[0][reader._own_size :] + data[:rest_stop]
        messages.append(message)
        pieces = []
        if piece:
            piece = bytearray()
    elif pending:
        if pending >= _LONG_HEADER:
            return False
        data, header = b"".join((header, data)), bytearray()
    size = len(data)
    pos, rest_pos, rest_stop = loop(reader, data, start, messages)
    pending = size - pos
    gather_end = own_size = rest_end = 0
    phase = IN_HEADER
    if rest_stop >= size:
        pieces = [data[pos:]]
        own_size, rest_end, phase = rest_pos - pos, rest_stop - pos, IN_TRAILER
        if rest_stop > size:
            phase = IN_REST
            gather_end = rest_end if rest_end < SLICE_SIZE else SLICE_SIZE
    elif pending:
        if rest_stop != IN_ORDINARY_HEADER:
            return False  # it is odd, or the chunk ends inside the trailer
        header = bytearray(data[pos:])
    offset = reader._stream_offset + before + pos
    whole_size = rest_end + len(reader._trailer)
    if reader._turn is not messages:
        return False
    # No call from here on, so that the chunk is taken whole or not at all.
    reader._stream_offset = offset
    reader._header = header
    reader._pieces = pieces
    reader._piece = piece
    reader._pending = pending
    reader._phase = phase
    reader._own_size = own_size
    reader._whole_size = whole_size
    reader._padding_size = reader._line_pos = 0
    reader._rest_end = rest_end
    reader._parsed = -1
    reader._found = None
    reader._gather_end = gather_end
    reader._turn = None
    return True


def _give_header(reader: FrameReader) -> None:
    """Take the header of the pending frame out of its pieces, as the slow path needs it."""
    if reader._header or not (reader._own_size and reader._pieces):
        return
    first, size = reader._pieces[0], reader._own_size
    header, pieces = bytearray(first[:size]), [first[size:], *reader._pieces[1:]]
    # No call in between.
    reader._header = header
    reader._pieces = pieces


def _end_frame(reader: FrameReader, data: bytes, pos: int, messages: list[Any]) -> int:
    """Deliver the pending frame, whose last bytes begin at `pos`; return where it ends.

    `pos` itself if the slow path has to continue the frame.
    """
    trailer = reader._trailer
    rest_stop = pos + reader._rest_end - reader._pending
    stop = rest_stop + len(trailer)
    if trailer and data[rest_stop:stop] != trailer:
        _give_header(reader)
        return pos
    last: Any = data[pos:rest_stop]
    if rest_stop - pos >= SMALL_SIZE:
        last = memoryview(data)[pos:rest_stop]
    parts: list[Any] = [*reader._pieces, reader._piece, last]
    if not reader._header:
        parts[0] = memoryview(parts[0])[reader._own_size :]
    message = b"".join(parts)
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
