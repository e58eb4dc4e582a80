"""Frames whose end mark `bytes.split` finds, in Python: ordinary ones, also where chunks cut them.

It reads for a `FrameReader` whose frames have an end mark and nothing else: no magic and no check.
It continues the pending frame, and keeps the first bytes of one that the chunk cuts off. The
compiled engine leaves both to its slow path. What is odd is left to `_marked_reader_py.py`: a size
that is not allowed, an unknown escape, a token that the chunk cuts off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._gaps_py import NO_GAPS, Gaps, ignored_gaps
from ._layout import COBS, Layout
from ._marks_py import MarkSearch, unstuff
from ._plain_reader_py import IN_HEADER, IN_PADDING, IN_REST, SLICE_SIZE

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = [
    "NOT_WALKED",
    "PIECE_SIZE",
    "SPLIT_SIZE",
    "gather_end_of_marked",
    "split_at_once",
    "split_frames",
]

SPLIT_SIZE = 64 * 1024
"""At most this much of a chunk is split in one step."""

PIECE_SIZE = 16 * 1024
"""Smaller pieces of a message are gathered, as in _frame_reader_py.py."""

# Where the first two contents end before this position, or that many before that one, the marks are
# not rare. In a smaller block it does not matter.
_NEAR, _FEW, _DENSE, _TINY = 200, 4, 800, 100

NOT_WALKED = -1
"""Instead of the bytes that are missing of a block: the kept blocks were not counted yet."""


def split_at_once(reader: FrameReader, chunk: bytes, messages: list[Any]) -> bool:
    """Take a chunk of ordinary frames; return whether it has only those. If not, take nothing.

    It does what `split_frames` does, in fewer steps where the chunk has the messages as they are.
    A token of one byte that ended the last chunk is read with it, and one at its end is kept apart.
    """
    layout, data, before, tail = reader._layout, chunk, reader._pending, reader._tail
    search, size = layout.mark_search, len(chunk)
    if search is None or not search.splits_messages:
        return split_frames(reader, chunk, 0, messages, True) == size
    for byte in search.changing:
        if byte in chunk or tail:
            return split_frames(reader, chunk, 0, messages, True) == size
    if tail:
        before -= len(tail)
        data = tail + chunk
    if (
        reader._raw
        or reader._after
        or reader._skipping
        or reader._content_size != before
        or (tail and not search.begins_short)
        or before + size >= layout.max_message_size
        or reader._phase == IN_PADDING
    ):
        return split_frames(reader, chunk, 0, messages, True) == size
    mark, find = search.cut_at, data.find
    append, pieces, piece = messages.append, reader._pieces, reader._piece
    stop = find(mark)
    if stop < 0:
        return _keep_at_once(reader, search, data, before, messages)
    message, pos = data[:stop], stop + len(mark)
    if before:
        if piece:
            message = b"".join((*pieces, piece, message))
            piece = bytearray()
        elif len(pieces) == 1:
            message = pieces[0] + message
        else:
            message = b"".join((*pieces, message))
        pieces = []
    append(message)
    if pos < size:
        mark_size = len(mark)
        stop = find(mark, pos)
        if 0 <= stop < _NEAR:
            messages += data[pos:].split(mark)
            rest = messages.pop()
        else:
            while stop >= 0:
                append(data[pos:stop])
                pos = stop + mark_size
                stop = find(mark, pos)
            rest = data[pos:]
    else:
        rest = data[pos:]
    pending = len(rest)
    offset = reader._stream_offset + before + len(data) - pending
    content_size, gather_end, phase, tail = pending, 0, IN_HEADER, b""
    if pending:
        phase = IN_REST
        if search.begun and rest.endswith(search.begun):
            if not search.begins_short:
                return False
            tail, rest, content_size = rest[-1:], rest[:-1], pending - 1
        elif len(message) >= size:  # the next chunk may have no mark
            most = layout.max_message_size
            gather_end = SLICE_SIZE if most > SLICE_SIZE else most + 1
        if rest:
            pieces = [rest]
    if reader._turn is not messages:
        return False
    # No call from here on, so that the chunk is taken whole or not at all.
    reader._stream_offset = offset
    reader._piece = piece
    reader._pieces = pieces
    reader._tail = tail
    reader._phase = phase
    reader._pending = pending
    reader._content_size = content_size
    reader._block_left = 0
    reader._gather_end = gather_end
    reader._turn = None
    return True


def _keep_at_once(
    reader: FrameReader, search: MarkSearch, rest: bytes, before: int, messages: list[Any]
) -> bool:
    """Keep bytes without a mark that are fewer than a message may have; return whether it did."""
    pending, tail, gather_end = before + len(rest), b"", 0
    content_size = pending
    if search.begun and rest.endswith(search.begun):
        if not search.begins_short:
            return False
        tail, rest, content_size = rest[-1:], rest[:-1], pending - 1
    elif pending < SLICE_SIZE:
        most = reader._layout.max_message_size
        gather_end = SLICE_SIZE if most > SLICE_SIZE else most + 1
    if len(rest) >= PIECE_SIZE or pending >= SPLIT_SIZE or reader._turn is not messages:
        return False
    # No call from here on, so that the chunk is taken whole or not at all.
    reader._piece += rest
    reader._tail = tail
    reader._phase = IN_REST
    reader._pending = pending
    reader._content_size = content_size
    reader._block_left = 0
    reader._gather_end = gather_end
    reader._turn = None
    return True


def split_frames(
    reader: FrameReader, data: bytes, pos: int, messages: list[Any], at_once: bool
) -> int:
    """Take frames from `pos` on; return where the first one begins, or is continued, that is odd.

    It returns the end of the data if no frame is odd. With `at_once`, it takes nothing if one is,
    or if another call has begun meanwhile.
    """
    if reader._tail or reader._after or reader._skipping or reader._phase == IN_PADDING:
        return pos
    layout, size = reader._layout, len(data)
    search = layout.mark_search
    if search is None:
        if reader._pending and reader._block_left != NOT_WALKED:
            return pos  # the slow path has begun with it
        mark, escape, begun, splits_messages = b"\0", None, (), False
    else:
        mark, escape, begun = search.cut_at, search.escape_code, search.begun
        splits_messages = search.splits_messages and not reader._raw and reader._headers is None
    if at_once and begun and data.endswith(begun):
        return pos  # before anything is made of it
    most = layout.max_message_size
    while pos < size:
        block = data if not pos and size <= SPLIT_SIZE else data[pos : pos + SPLIT_SIZE]
        found = _split(block, mark)
        rest, before = found.pop(), reader._pending
        stop = len(block) - len(rest)
        if not found:
            if not _keep(reader, search, rest, messages if at_once else None):
                return pos
            if at_once:
                return size  # without a call: nothing may run after the chunk is taken
            pos += len(rest)
            continue
        if before:
            found[0] = b"".join((*reader._pieces, reader._piece, found[0]))
        ends, as_they_are = found, splits_messages
        if as_they_are and search.changing:
            as_they_are = reader._content_size == before or not before  # no escape is pending
            for byte in search.changing:
                if byte in block:
                    as_they_are = False
        stay, more = NO_GAPS
        if not as_they_are:
            may_be_wrong = before + stop > most or layout.min_message_size > 0
            made = _make(reader, layout, block, found, may_be_wrong)
            if made is None:
                return pos
            found, ends, (stay, more) = made
        elif before + stop > most and _has_wrong_size(layout, found):
            return pos
        content_size = pending = len(rest)
        if rest:
            if not as_they_are and escape is not None and escape in rest:
                content_size = search.size_of_ordinary(rest)
            if not 0 <= content_size <= most or (begun and rest.endswith(begun)):
                content_size = pending = 0  # it is odd
        offset = reader._stream_offset + before + stop
        pieces = [rest] if pending else []
        piece = reader._piece
        if piece:
            piece = bytearray()
        gather_end = 0  # but for a chunk that is taken at once, the caller sets it at the end
        if at_once and pending:
            gather_end = SLICE_SIZE if most > SLICE_SIZE else most + 1
        if at_once and (reader._turn is not messages or (rest and not pending)):
            return pos
        # No call from here on, so that no message is delivered and also kept.
        reader._turn = None
        if reader._headers is not None:
            headers = reader._headers
            headers += ends
        messages += found
        if more:
            gaps = reader._gaps
            gaps[stay:] = more
        reader._stream_offset = offset
        reader._piece = piece
        reader._pieces = pieces
        reader._phase = IN_REST if pending else IN_HEADER
        reader._pending = pending
        reader._content_size = content_size
        reader._block_left = NOT_WALKED if pending and search is None else 0
        reader._gather_end = gather_end
        if at_once:
            return size  # the chunk is taken: what fails from here on would take it twice
        pos += stop + pending
        if rest and not pending:
            return pos
    return pos


def _make(
    reader: FrameReader, layout: Layout, block: bytes, contents: list[bytes], may_be_wrong: bool
) -> tuple[list[Any], list[bytes], Gaps] | None:
    """Return the messages of these contents, what is kept of how they travelled, and the gaps.

    None if one is odd: an escape or a block is wrong, or a size is not allowed, which is possible
    if it `may_be_wrong`.
    """
    search = layout.mark_search
    mark = b"\0" if search is None else search.cut_at
    found: list[Any] | None = contents
    ends = [mark] * len(contents)
    gaps = NO_GAPS
    if search is None:
        if not all(contents):
            gaps = ignored_gaps(reader, contents, ends)
            contents = [*filter(None, contents)]
        found = [unstuff(content) for content in contents]
        if None in found:
            return None
    elif search.escape_byte:
        found = _unescape(search, contents)
    elif search.endings:
        _move_endings(search, block, contents, ends)
    if found is None or (may_be_wrong and _has_wrong_size(layout, found)):
        return None
    if layout.skip_empty and search is not None and not all(contents):
        gaps = ignored_gaps(reader, contents, ends)
        ends = [end for content, end in zip(contents, ends, strict=True) if content]
        found = [*filter(None, found)]
        contents = [*filter(None, contents)]
    if reader._raw or search is None or search.escape_byte:
        if reader._raw or reader._headers is not None:
            ends = [content + end for content, end in zip(contents, ends, strict=False)]
        if reader._raw:
            found = ends
    return found, ends, gaps


def _split(block: bytes, mark: bytes) -> list[bytes]:
    """Do what `bytes.split` does, which looks at each byte: where marks are rare, find them."""
    size = len(mark)
    if size > 1 or len(block) < _TINY:  # it finds longer marks itself
        return block.split(mark)
    find, contents, pos = block.find, [], 0
    stop = find(mark)
    if 0 <= stop < _NEAR:
        contents.append(block[:stop])
        pos = stop + 1
        stop = find(mark, pos)
        if 0 <= stop < _NEAR:
            return block.split(mark)
    append = contents.append
    while stop >= 0:
        append(block[pos:stop])
        pos = stop + 1
        if pos < _DENSE and len(contents) == _FEW:
            contents += block[pos:].split(mark)
            return contents
        stop = find(mark, pos)
    append(block[pos:])
    return contents


def _unescape(search: MarkSearch, contents: list[bytes]) -> list[bytes] | None:
    """Return the messages of these contents; None if an escape is unknown."""
    escape, unescape, messages = search.escape_byte[0], search.unescape_ordinary, []
    for content in contents:
        if escape not in content:
            messages.append(content)
            continue
        message = unescape(content)
        if message is None:
            return None
        messages.append(message)
    return messages


def _has_wrong_size(layout: Layout, found: list[bytes]) -> bool:
    ignores = layout.skip_empty and layout.kind != COBS
    sizes = [len(message) for message in found if message or not ignores]
    return bool(sizes) and (
        max(sizes) > layout.max_message_size or min(sizes) < layout.min_message_size
    )


def _move_endings(search: MarkSearch, block: bytes, found: list[bytes], ends: list[bytes]) -> None:
    """Move what longer marks begin with from the ends of these contents to their marks."""
    mark = search.split_at
    for ending in search.endings:
        if block.find(ending[:1]) < 0 or block.find(ending + mark) < 0:  # one byte is faster
            continue
        size, longer = len(ending), ending + mark
        for index, content in enumerate(found):
            if ends[index] is mark and content.endswith(ending):
                found[index], ends[index] = content[:-size], longer


def _keep(
    reader: FrameReader, search: MarkSearch | None, rest: bytes, turn: list[Any] | None
) -> bool:
    """Keep bytes without a mark; return whether nothing in them is odd.

    A size that is not allowed is, an escape that is unknown, and a token that is cut off. Nothing
    is kept if the turn is now that of another call.
    """
    pending, most = reader._pending + len(rest), reader._layout.max_message_size
    content_size = pending  # COBS: at most
    if search is not None:
        size = len(rest)
        if search.escape_code is not None and search.escape_code in rest:
            size = search.size_of_ordinary(rest)
        content_size = reader._content_size + size
        if size < 0 or (search.begun and rest.endswith(search.begun)):
            return False
    if content_size > most:
        return False
    block_left, pieces = NOT_WALKED if search is None else 0, None
    if len(rest) >= PIECE_SIZE or len(reader._piece) >= SPLIT_SIZE:
        pieces, gathered = (bytes(reader._piece), rest), bytearray()
    gather_end = 0
    if turn is not None:
        end = pending + most - content_size + 1
        merged_at = (pending // SLICE_SIZE + 1) * SLICE_SIZE
        gather_end = end if end < merged_at else merged_at
    if turn is not None and reader._turn is not turn:
        return False
    # No call from here on, so that no byte is counted without being kept or the reverse.
    if pieces is None:
        reader._piece += rest
    else:
        reader._pieces += pieces
        reader._piece = gathered
    reader._phase = IN_REST
    reader._content_size = content_size
    reader._block_left = block_left
    reader._pending = pending
    reader._gather_end = gather_end
    reader._turn = None
    return True


def gather_end_of_marked(reader: FrameReader) -> int:
    """Return up to which number of pending bytes chunks without a stop byte are only gathered."""
    if not reader._stops or reader._tail or reader._after:
        return 0
    most = reader._layout.max_message_size
    if reader._layout.kind == COBS:
        return most + 1 if reader._block_left == NOT_WALKED else 0
    return reader._pending + most - reader._content_size + 1
