"""Frames whose end mark `bytes.split` finds, in Python: ordinary ones, also where chunks cut them.

It reads for a `FrameReader` whose frames have an end mark and nothing else: no magic and no check.
It continues the pending frame, and keeps the first bytes of one that the chunk cuts off. The
compiled engine leaves both to its slow path. What is odd is left to `_marked_reader_py.py`: a size
that is not allowed, an unknown escape, a token that the chunk cuts off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._layout import COBS, Layout
from ._marks_py import MarkSearch, mark_search_of, unstuff
from ._plain_reader_py import IN_HEADER, IN_PADDING, IN_REST, IS_WHOLE_BETWEEN_CALLS, SLICE_SIZE

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = [
    "NOT_WALKED",
    "PIECE_SIZE",
    "SPLIT_SIZE",
    "commit",
    "gather_end_of_marked",
    "split_frames",
]

SPLIT_SIZE = 64 * 1024
"""At most this much of a chunk is split in one step."""

PIECE_SIZE = 16 * 1024
"""Smaller pieces of a message are gathered, as in _frame_reader_py.py."""

# If so many contents end before this position, the marks are not rare.
_FEW, _DENSE = 4, 800

NOT_WALKED = -1
"""Instead of the bytes that are missing of a block: the kept blocks were not counted yet."""


def split_frames(reader: FrameReader, data: bytes, pos: int, messages: list[Any]) -> int:
    """Take frames from `pos` on; return where the first one begins, or is continued, that is odd.

    It returns the end of the data if there is none.
    """
    if reader._tail or reader._after or reader._skipping or reader._phase == IN_PADDING:
        return pos
    layout = reader._layout
    if layout.kind == COBS:
        return _split_stuffed(reader, layout, data, pos, messages)
    search = mark_search_of(layout)
    assert search is not None
    mark, escape_byte = search.cut_at, search.escape_byte
    most, least = layout.max_message_size, layout.min_message_size
    size = len(data)
    while pos < size:
        block = data if not pos and size <= SPLIT_SIZE else data[pos : pos + SPLIT_SIZE]
        contents = _split(block, mark)
        rest = contents.pop()
        if contents:
            before, empty = reader._pending, None
            if before:
                contents[0] = b"".join([*reader._pieces, reader._piece, contents[0]])
                pieces: list[bytes] = []
                empty = bytearray(), pieces
            found, ends = contents, contents
            if escape_byte:
                unescaped = _unescape(search, contents)
                if unescaped is None:
                    return pos
                found = unescaped
                if reader._headers is not None:
                    ends = [content + mark for content in contents]
            else:
                ends = [mark] * len(contents)
                if search.endings:
                    _move_endings(search, block, contents, ends)
            if (before + len(block) > most or least) and _has_wrong_size(layout, found):
                return pos
            if reader._raw:
                tail = [mark] * len(contents) if escape_byte else ends
                found = [
                    content + end
                    for content, end in zip(contents, tail, strict=True)
                    if content or not layout.skip_empty
                ]
            elif layout.skip_empty and not all(found):
                ends = [end for content, end in zip(found, ends, strict=True) if content]
                found = [*filter(None, found)]
            stop = len(block) - len(rest)
            offset = reader._stream_offset + before + stop
            commit(reader, messages, found, ends, offset, b"", empty)
            pos += stop
        if rest:
            content_size = reader._content_size + len(rest)
            if escape_byte and escape_byte in rest:
                content_size = reader._content_size + search.size_of_ordinary(rest)
                if content_size < reader._content_size:
                    return pos
            if content_size > most or (search.begun and rest.endswith(search.begun)):
                return pos
            _keep(reader, rest, content_size, most)
            pos += len(rest)
    return pos


def _split_stuffed(
    reader: FrameReader, layout: Layout, data: bytes, pos: int, messages: list[Any]
) -> int:
    """Do the same for byte stuffing."""
    most, least = layout.max_message_size, layout.min_message_size
    size = len(data)
    if reader._pending and reader._block_left != NOT_WALKED:
        return pos  # the slow path has begun with it
    while pos < size:
        block = data if not pos and size <= SPLIT_SIZE else data[pos : pos + SPLIT_SIZE]
        contents = _split(block, b"\0")
        rest = contents.pop()
        if contents:
            before, empty = reader._pending, None
            if before:
                contents[0] = b"".join([*reader._pieces, reader._piece, contents[0]])
                pieces: list[bytes] = []
                empty = bytearray(), pieces
            if not all(contents):
                contents = [*filter(None, contents)]
            found = [unstuff(content) for content in contents]
            if None in found:
                return pos
            if before + len(block) > most or least:
                sizes = [len(message) for message in found if message is not None]
                if sizes and (max(sizes) > most or min(sizes) < least):
                    return pos
            ends: list[bytes] = []
            if reader._raw or reader._headers is not None:
                ends = [content + b"\0" for content in contents]
            stop = len(block) - len(rest)
            offset = reader._stream_offset + before + stop
            commit(reader, messages, ends if reader._raw else found, ends, offset, b"", empty)
            pos += stop
        if rest:
            if reader._pending + len(rest) > most:
                return pos
            _keep(reader, rest, reader._pending + len(rest), most)  # at most so many bytes
            reader._block_left = NOT_WALKED
            pos += len(rest)
    return pos


def _split(block: bytes, mark: bytes) -> list[bytes]:
    """Do what `bytes.split` does, which looks at each byte: where marks are rare, find them."""
    contents: list[bytes] = []
    append, find, size = contents.append, block.find, len(mark)
    pos, stop = 0, find(mark)
    while stop >= 0:
        append(block[pos:stop])
        pos = stop + size
        if pos < _DENSE and len(contents) == _FEW:
            contents += block[pos:].split(mark)
            return contents
        stop = find(mark, pos)
    append(block[pos:])
    return contents


def _unescape(search: MarkSearch, contents: list[bytes]) -> list[bytes] | None:
    """Return the messages of these contents; None if an escape is unknown."""
    escape_byte, unescape, messages = search.escape_byte, search.unescape_ordinary, []
    for content in contents:
        if escape_byte not in content:
            messages.append(content)
            continue
        message = unescape(content)
        if message is None:
            return None
        messages.append(message)
    return messages


def _has_wrong_size(layout: Layout, found: list[bytes]) -> bool:
    sizes = [len(content) for content in found if content or not layout.skip_empty]
    most, least = layout.max_message_size, layout.min_message_size
    return bool(sizes) and (max(sizes) > most or min(sizes) < least)


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


def _keep(reader: FrameReader, rest: bytes, content_size: int, most: int) -> None:
    """Keep the bytes after the last mark. Where possible, let `feed` itself take what follows."""
    pending = reader._pending + len(rest)
    if len(rest) < PIECE_SIZE and len(reader._piece) < SPLIT_SIZE:
        # No call from here on, so that no byte is counted without being kept or the reverse.
        reader._piece += rest
    else:
        pieces, gathered = (bytes(reader._piece), rest), bytearray()
        # No call from here on.
        reader._pieces += pieces
        reader._piece = gathered
    reader._phase = IN_REST
    reader._content_size = content_size
    reader._pending = pending
    if IS_WHOLE_BETWEEN_CALLS and reader._headers is None:
        end = pending + most - content_size + 1
        merged_at = (pending // SLICE_SIZE + 1) * SLICE_SIZE
        reader._gather_end = end if end < merged_at else merged_at


def gather_end_of_marked(reader: FrameReader) -> int:
    """Return up to which number of pending bytes chunks without a stop byte are only gathered."""
    if not reader._stops or reader._tail or reader._after:
        return 0
    most = reader._layout.max_message_size
    if reader._layout.kind == COBS:
        return most + 1 if reader._block_left == NOT_WALKED else 0
    return reader._pending + most - reader._content_size + 1


def commit(
    reader: FrameReader,
    messages: list[Any],
    found: list[Any],
    ends: list[bytes],
    stream_offset: int,
    after: bytes,
    empty: tuple[bytearray, list[bytes]] | None = None,
) -> None:
    """Deliver messages. It makes no call: it cannot be interrupted in between.

    Where they include the pending frame, `empty` takes the place of its pieces.
    """
    if reader._headers is not None:
        headers = reader._headers
        headers += ends
    messages += found
    reader._stream_offset = stream_offset
    reader._after = after
    if empty is not None:
        reader._piece, reader._pieces = empty
        reader._phase = IN_HEADER
        reader._pending = reader._content_size = reader._block_left = 0
