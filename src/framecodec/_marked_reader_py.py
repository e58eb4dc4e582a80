"""The reader of frames that an end mark ends, in Python.

It reads for a `FrameReader` whose layout has marks. `_splitter.pyx` has the same functions, as
methods, under the same names and in the same order: change both in the same commit.

The phases are those of other frames: the header is the magic, the rest is the content up to the end
mark. The content is kept as it travelled, and its escapes are removed when the message is made. A
token that the chunk cuts off is not judged: its bytes are kept apart, in `_tail`, and are read
again before the next chunk. They are at most as many as the longest token has, less one, so that no
byte is searched twice for another reason.

After a mark that a longer one begins with, what the longer one has more is ignored if it comes
next: `_after` is then the mark that was read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _error_texts, _mark_texts
from ._check_bytes import has_right_content, inside_content, verify_content
from ._checksums_py import update_checksum
from ._chosen_frames_py import unchoose, with_names
from ._fields_py import common_size
from ._gaps_py import Gap, note_gap
from ._layout import COBS, Layout
from ._marks_py import MarkSearch, mark_search_of, unstuff
from ._split_frames_py import NOT_WALKED, PIECE_SIZE, SPLIT_SIZE, split_frames

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = ["STEP", "begin_marked", "consume_marked", "untake_tail"]

IN_HEADER, IN_REST, IN_PADDING = 0, 1, 3  # as in _plain_reader_py.py

STEP = 2048
"""With ``one_at_a_time``, this much is read in one step."""

# Bytes of the next chunk that a token is judged with whose first bytes ended the last chunk: more
# than any token has.
_JOINED = 32


def consume_marked(
    reader: FrameReader, data: bytes, messages: list[Any], pos: int = 0, *, one: bool = False
) -> int:
    """Take a chunk from `pos` on, as `FrameReader._consume` does; return where that ends.

    With `one`, it stops after the first message; in a choice after the pending frame.
    """
    search, can_split = mark_search_of(reader._layout), bool(reader._stops) and not one
    while pos < len(data) and not (one and messages) and reader._layout.marks:
        if reader._tail:
            pos = _join_tail(reader, data, pos, messages)
            continue
        if reader._after and search is not None:
            pos = _ignore_remainder(reader, search, data, pos)
            continue
        if can_split:
            pos = split_frames(reader, data, pos, messages, False)
            if pos == len(data):
                continue
            can_split = False  # what is odd may come often: the chunk is not split for each
        if not reader._pending and not one and reader._choice is None:
            if search is None:
                pos = _read_stuffed_frames(reader, data, pos, messages)
            else:
                pos = _read_marked_frames(reader, search, data, pos, messages)
            if pos == len(data) or reader._after:
                continue
        if reader._phase == IN_PADDING:  # of a frame before a switch
            pos = reader._read_padding(data, pos, messages)
            continue
        if reader._phase == IN_HEADER:
            pos = _read_magic(reader, data, pos)
        if reader._phase == IN_REST:
            if search is None:
                pos = _read_stuffed(reader, data, pos, messages)
            else:
                pos = _read_content(reader, search, data, pos, messages)
    return pos


def begin_marked(reader: FrameReader, in_chunk: int, messages: list[Any]) -> None:
    """Read again what was gathered to choose, as the start of a frame that an end mark ends.

    The last `in_chunk` bytes of it are in this chunk.
    """
    gathered = bytes(reader._header)
    earlier, header = gathered[: len(gathered) - in_chunk], bytearray()
    # No call in between.
    reader._surplus_bytes, reader._header, reader._pending = earlier, header, 0
    consume_marked(reader, gathered, messages)
    reader._surplus_bytes = b""


def untake_tail(reader: Any, held: bytearray) -> None:
    """Let the tail be read again, as a part of these held bytes."""
    pending = reader._pending - len(reader._tail)
    phase = reader._phase if pending else IN_HEADER
    # No call in between.
    reader._tail, reader._pending, reader._phase, reader._held = b"", pending, phase, held


# --- the fast path: frames that are whole in the chunk --------------------------------------------


def _read_marked_frames(
    reader: FrameReader, search: MarkSearch, data: bytes, pos: int, messages: list[Any]
) -> int:
    """Take whole, ordinary frames of all other codecs."""
    layout, first_pos = reader._layout, pos
    magic, raw, offset = layout.magic, reader._raw, reader._stream_offset - pos
    least, escaped = layout.min_message_size + layout.inner_check_size, bool(layout.escape)
    most = layout.max_message_size + layout.inner_check_size
    checked = layout.check is not None
    found: list[bytes] = []
    ends: list[bytes] = []
    spans: list[tuple[int, int]] = []
    ignored: list[Gap] = []
    after = b""
    while data.startswith(magic, pos):
        start = pos + len(magic)
        end = search.find_end(data, start)
        if end is None:
            break
        stop, mark = end
        content = data[start:stop]
        message = search.unescape(content) if escaped else content
        if not (layout.skip_empty and not message):
            if not least <= len(message) <= most:
                break
            if checked:
                inside = _right_message(layout, message)
                if inside is None:
                    break
                start, stop_of_message = start + inside.start, start + inside.stop
                message = message[inside]
            else:
                stop_of_message = stop
            if reader._spans is not None:
                frame_stop = stop + len(mark)
                spans.append((pos, frame_stop) if raw else (start, stop_of_message))
            else:
                found.append(data[pos : stop + len(mark)] if raw else message)
        frame_pos, pos, is_new = pos, stop + len(mark), len(ends) < len(found)
        if search.extensions[mark]:
            pos, after = _skip_remainder(search, data, pos, mark)
        if is_new:
            ends.append(data[frame_pos if escaped or checked else stop : pos])
        elif reader._notes_gaps:
            ignored.append((offset + frame_pos, offset + pos))
        if after:
            break
    if reader._spans is not None:
        for start, stop in spans:
            reader._spans.add(offset + start, offset + stop)
    stream_offset = reader._stream_offset + pos - first_pos
    _commit(reader, messages, found, ends, stream_offset, after, ignored)
    return pos


def _right_message(layout: Layout, content: bytes) -> slice | None:
    """Return where the message is in a content without escapes; None unless its check is right.

    None also for a message that is ignored, because it is empty.
    """
    if not has_right_content(layout, content, update_checksum):
        return None
    if layout.skip_empty and layout.kind != COBS and len(content) == layout.inner_check_size:
        return None
    return inside_content(layout, len(content))[0]


def _commit(
    reader: FrameReader,
    messages: list[Any],
    found: list[Any],
    ends: list[bytes],
    stream_offset: int,
    after: bytes,
    ignored: list[Gap],
) -> None:
    """Deliver messages. It makes no call: it cannot be interrupted in between."""
    gaps = reader._gaps
    if reader._headers is not None:
        headers = reader._headers
        headers += ends
    messages += found
    gaps += ignored
    reader._stream_offset = stream_offset
    reader._after = after


def _skip_remainder(search: MarkSearch, data: bytes, pos: int, mark: bytes) -> tuple[int, bytes]:
    """Return what follows a mark and the rest of a longer one; and the mark, if more may come."""
    while True:
        left = data[pos : pos + search.longest]
        for more in search.extensions[mark]:
            if left.startswith(more):
                pos, mark = pos + len(more), mark + more
                break
        else:
            may_come = any(more.startswith(left) for more in search.extensions[mark])
            return pos, mark if may_come else b""


def _read_stuffed_frames(reader: FrameReader, data: bytes, pos: int, messages: list[Any]) -> int:
    """Take whole, ordinary frames of byte stuffing."""
    layout, first_pos = reader._layout, pos
    magic, raw, offset = layout.magic, reader._raw, reader._stream_offset - pos
    most = layout.max_message_size + layout.inner_check_size
    least, checked = layout.min_message_size + layout.inner_check_size, layout.check is not None
    found: list[bytes] = []
    frames: list[bytes] = []
    spans: list[tuple[int, int]] = []
    ignored: list[Gap] = []
    while data.startswith(magic, pos):
        start = pos + len(magic)
        stop = data.find(b"\0", start)
        if stop < 0:
            break
        message = unstuff(data[start:stop])
        if message is None:
            break
        if stop > start:
            if not least <= len(message) <= most:
                break
            if checked:
                inside = _right_message(layout, message)
                if inside is None:
                    break
                message = message[inside]
            if reader._spans is not None:
                spans.append((offset + pos, offset + stop + 1))
            else:
                frames.append(data[pos : stop + 1])
                found.append(frames[-1] if raw else message)
        elif reader._notes_gaps:
            ignored.append((offset + pos, offset + stop + 1))
        pos = stop + 1
    for start, stop in spans:
        reader._spans.add(start, stop)  # type: ignore[union-attr]
    stream_offset = reader._stream_offset + pos - first_pos
    _commit(reader, messages, found, frames, stream_offset, b"", ignored)
    return pos


# --- the slow path: one frame, part by part -------------------------------------------------------


def _join_tail(reader: FrameReader, data: bytes, pos: int, messages: list[Any]) -> int:
    """Read the tail of the last chunk again, with what follows it; return where that ends."""
    tail = reader._tail
    taken = min(len(data) - pos, _JOINED)
    joined = tail + data[pos : pos + taken]
    pending = reader._pending - len(tail)
    reader._surplus_bytes, reader._pending, reader._tail = tail, pending, b""
    if not pending:
        reader._phase = IN_HEADER
    stop = consume_marked(reader, joined, messages)
    left = len(reader._tail)
    if stop < len(joined):  # the frame of a choice has ended
        taken = stop - len(tail)
    elif left and taken < len(data) - pos:  # it is in this chunk: read on from there
        taken -= left
        pending = reader._pending - left
        reader._pending, reader._tail = pending, b""
        if not pending:
            reader._phase = IN_HEADER
    reader._surplus_bytes = b""
    return pos + taken


def _ignore_remainder(reader: FrameReader, search: MarkSearch, data: bytes, pos: int) -> int:
    """Pass over the rest of a mark that is longer than the one that was read."""
    stop, after = _skip_remainder(search, data, pos, reader._after)
    offset = reader._stream_offset + stop - pos
    tail = data[stop:] if after else b""
    note_gap(reader, reader._stream_offset, offset)
    reader._stream_offset, reader._pending, reader._tail = offset, len(tail), tail
    reader._after = after
    return len(data) if after else stop


def _read_magic(reader: FrameReader, data: bytes, pos: int) -> int:
    magic, header = reader._magic, reader._header
    piece = data[pos : pos + len(magic) - len(header)]
    right = common_size(piece, magic[len(header) :])
    pending = reader._pending + len(piece)
    header += piece
    reader._pending = pending
    if right < len(piece):
        seen = bytes(header[: len(header) - len(piece) + right + 1])
        raise _error_texts.wrong_magic(magic, reader._stream_offset, seen)
    if len(header) == len(magic):
        if reader._raw:
            reader._piece += header
        reader._phase = IN_REST
    return pos + len(piece)


def _read_content(
    reader: FrameReader, search: MarkSearch, data: bytes, pos: int, messages: list[Any]
) -> int:
    """Read the content up to its mark, or to the chunk's end; deliver the message."""
    whole = len(data) - search.longest
    content_size, literal = reader._content_size, pos
    most = reader._layout.max_message_size + reader._layout.inner_check_size
    while True:
        start, token = search.find(data, literal) or (len(data), b"")
        if start > whole:
            # A token that is cut off may begin before, or here where only the escape byte is found.
            high = start + 1 if token == search.escape_byte else start
            cut_off = search.find_cut_off(data, max(literal, whole + 1), high)
            if cut_off >= 0:
                start, token = cut_off, b""
        content_size += start - literal
        if content_size > most and not reader._skipping:
            _refuse_or_skip(reader, data[pos : pos + 64])
        if not token or token in search.marks:
            break
        if token == search.escape_byte:
            _keep(reader, data[pos:start])
            wrong = search.wrong_escape(data, start)
            raise _mark_texts.unknown_escape(
                reader._layout, wrong, reader._stream_offset, *_seen(reader)
            )
        content_size += 1
        literal = start + len(token)
    tail = b"" if token else data[start:]
    _keep(reader, data[pos:start])
    reader._content_size = content_size
    if not token:
        pending = reader._pending + len(tail)
        reader._tail, reader._pending = tail, pending
        return len(data)
    stop, after = start + len(token), b""
    if search.extensions[token]:
        stop, after = _skip_remainder(search, data, stop, token)
    _end_marked(reader, content_size, token, data[start:stop], after, messages)
    return stop


def _read_stuffed(reader: FrameReader, data: bytes, pos: int, messages: list[Any]) -> int:
    """Do the same for byte stuffing; `_block_left` bytes of the last block are missing."""
    if reader._block_left == NOT_WALKED:
        walked = _walk(b"".join([*reader._pieces, reader._piece]), 0, -1, 0, 0, False)
        # No call in between.
        reader._content_size, reader._block_left, reader._zero_due = walked
        reader._block_begun = True
    found = data.find(b"\0", pos)
    stop = len(data) if found < 0 else found
    content_size, left, zero_due = _walk(
        data, pos, stop, reader._block_left, reader._content_size, reader._zero_due
    )
    begun = reader._block_begun or stop > pos
    most = reader._layout.max_message_size + reader._layout.inner_check_size
    if content_size > most and not reader._skipping:
        _refuse_or_skip(reader, data[pos:stop])
    _keep(reader, data[pos:stop])
    reader._content_size, reader._block_left = content_size, left
    reader._zero_due, reader._block_begun = zero_due, begun
    if found < 0:
        return stop
    if left:
        raise _mark_texts.cut_block(left, reader._stream_offset, *_seen(reader))
    _end_marked(reader, content_size if begun else -1, b"\0", b"\0", b"", messages)
    return stop + 1


def _walk(
    data: bytes, pos: int, stop: int, left: int, content_size: int, zero_due: bool
) -> tuple[int, int, bool]:
    """Go from block to block; return what `_content_size`, `_block_left` and `_zero_due` are."""
    if stop < 0:
        stop = len(data)
    code_pos = pos + left
    content_size += min(code_pos, stop) - pos
    while code_pos < stop:
        content_size += zero_due
        zero_due = data[code_pos] < 255
        next_pos = code_pos + data[code_pos]
        content_size += min(next_pos, stop) - code_pos - 1
        code_pos = next_pos
    return content_size, code_pos - stop, zero_due


def _refuse_or_skip(reader: FrameReader, more: bytes) -> None:
    """Raise the error about a message above the limit, or begin to discard it."""
    if not reader._skip:
        raise _mark_texts.content_too_large(
            reader._layout, reader._stream_offset, *_seen(reader, more)
        )
    gathered = bytearray()
    pieces: list[bytes] = []
    reader._skipping, reader._piece, reader._pieces = True, gathered, pieces


def _seen(reader: FrameReader, more: bytes = b"") -> tuple[bytes, bytes]:
    """Return the magic and the first bytes of the content, for the text of an error."""
    header = bytes(reader._header)
    before = len(header) if reader._raw else 0
    size, begun = before + 64, bytearray()
    for piece in (*reader._pieces, bytes(reader._piece[:size]), more):
        begun += piece[: size - len(begun)]
    return header, bytes(begun[before:])


def _keep(reader: FrameReader, piece: bytes) -> None:
    """Keep bytes of the content as they travelled, unless they are discarded."""
    pending = reader._pending + len(piece)
    wanted = reader._spans is None or reader._layout.check is not None
    if piece and wanted and not reader._skipping:
        if len(piece) < PIECE_SIZE and len(reader._piece) < SPLIT_SIZE:
            reader._piece += piece
        else:
            pieces = (bytes(reader._piece), piece)
            gathered = bytearray()
            reader._pieces += pieces
            reader._piece = gathered
    reader._pending = pending


def _end_marked(
    reader: FrameReader,
    content_size: int,
    mark: bytes,
    whole_mark: bytes,
    after: bytes,
    messages: list[Any],
) -> None:
    """Make the message and deliver it; the frame ends with this mark.

    Args:
        reader: The reader.
        content_size: Bytes of the message; negative for a frame that is ignored in any case.
        mark: The mark that ended the message.
        whole_mark: The same with the rest of a longer one, which followed.
        after: The whole mark if more of a longer one may follow.
        messages: The delivered ones.
    """
    layout = reader._layout
    ignored = content_size < 0 or (layout.skip_empty and layout.kind != COBS and not content_size)
    delivered: tuple[Any, ...] = ()
    travelled: tuple[bytes, ...] = ()
    skipped = reader._skipped + reader._skipping
    offset = reader._stream_offset + reader._pending + len(whole_mark)
    if not (ignored or reader._skipping):
        message_size = content_size - layout.inner_check_size
        if 0 <= message_size < layout.min_message_size:
            raise _mark_texts.content_too_small(
                message_size, layout.min_message_size, reader._stream_offset, *_seen(reader)
            )
        if layout.check is not None:
            _verify(reader)
            ignored = layout.skip_empty and layout.kind != COBS and not message_size
    if not (ignored or reader._skipping):
        if reader._spans is not None:
            start, stop = reader._stream_offset, reader._stream_offset + reader._pending
            if reader._raw:
                stop += len(mark)
            else:
                start += len(reader._header)
                if layout.check is not None:
                    inside = inside_content(layout, content_size)[0]
                    start, stop = start + inside.start, start + inside.stop
            reader._spans.add(start, stop)
        else:
            content = b"".join([*reader._pieces, reader._piece])
            pieces, piece = [content], bytearray()
            reader._pieces, reader._piece = pieces, piece
            delivered, travelled = _made(reader, content, mark, whole_mark)
            delivered = with_names(reader, delivered)
    headers: list[bytes] = reader._headers if reader._headers is not None else []
    header, piece = bytearray(), bytearray()
    pieces = []
    if ignored or reader._skipping:
        note_gap(reader, reader._stream_offset, offset)
    # No call from here on, as in FrameReader._end_frame.
    headers += travelled
    messages += delivered
    reader._skipped = skipped
    reader._stream_offset = offset
    reader._header = header
    reader._piece = piece
    reader._pieces = pieces
    reader._phase = IN_HEADER
    reader._pending = 0
    reader._skipping = False
    reader._content_size = 0
    reader._block_left = 0
    reader._zero_due = reader._block_begun = False
    reader._after = after
    if reader._choice is not None:
        unchoose(reader)


def _verify(reader: FrameReader) -> None:
    """Compare the check inside the content that was kept."""
    content = b"".join([*reader._pieces, reader._piece])
    pieces, piece = [content], bytearray()
    reader._pieces, reader._piece = pieces, piece
    if reader._raw:
        content = content[len(reader._header) :]
    layout, search = reader._layout, mark_search_of(reader._layout)
    plain = unstuff(content) if search is None else search.unescape(content)
    assert plain is not None
    verify_content(layout, plain, reader._stream_offset, *_seen(reader), update_checksum)


def _made(
    reader: FrameReader, content: bytes, mark: bytes, whole_mark: bytes
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the message of a content, and what is kept of how it travelled."""
    layout, search = reader._layout, mark_search_of(reader._layout)
    if reader._raw:
        return (content + mark,), ()
    message = unstuff(content) if search is None else search.unescape(content)
    assert message is not None
    if layout.check is not None:
        message = message[inside_content(layout, len(message))[0]]
    if reader._headers is None:
        return (message,), ()
    is_whole = search is None or layout.escape or layout.check is not None
    if is_whole or reader._choice is not None:
        return (message,), (layout.magic + content + whole_mark,)
    return (message,), (whole_mark,)
