"""The part of the splitter in Python that joins frames to messages.

A message of several frames is read as one long frame, by the slow path: its fragments' contents are
added to one message, and their heads to `_heads`, from which `_fragments.py` rebuilds what
travelled. The first `_fragments` heads count: what an interruption left after them does not.

`_splitter.pyx` has the same functions as methods of its class: change both in the same commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._fields_py import reader_of, skip_frames
from ._fragments import check_fragment, first_bytes, fragments_as_travelled, is_followed
from ._layout import Layout
from ._plain_reader_py import IN_HEADER

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = [
    "begin_fragment",
    "check_fragment_size",
    "end_fragment",
    "heads_of",
    "read_single_fragments",
    "unfinished_fragments",
]


def read_single_fragments(
    reader: FrameReader, data: bytes, pos: int, messages: list[Any], layout: Layout
) -> int:
    """Take ordinary messages of one fragment."""
    first_pos, size, count = pos, len(data), len(messages)
    joined = layout.joined
    assert joined is not None
    reader._counting = True
    try:
        raw, append = reader._raw, messages.append
        scanned = None if reader._spans is None else reader._spans.add
        keep_header = None if reader._headers is None else reader._headers.append
        offset = reader._stream_offset - first_pos  # of the chunk
        low, high = reader._quick_low, reader._quick_high
        magic, trailer, head_size = layout.magic, layout.trailer, joined.head_size
        field_offset, unit, adjustment = layout.field_offset, layout.unit, layout.adjustment
        read_field, has_first = reader_of(layout), joined.first_size > 0
        last_offset, last_mask, last_value = joined.last_offset, joined.last_mask, joined.last_value
        full, constants = joined.full, layout.constants
        in_one_piece = not (layout.message_lead or last_mask)
        while True:
            found = read_field(layout, data, pos + field_offset)
            if found is None:
                break
            value, rest_pos = found
            stop = rest_pos + value * unit + adjustment
            if value > high or value < low or stop + len(trailer) > size:
                break
            start = pos + head_size
            if full == stop - start:
                break
            if last_mask and data[pos + last_offset] & last_mask != last_value:
                break
            if not data.startswith(magic, pos) or not data.startswith(trailer, stop):
                break
            if constants and not layout.has_constants(data, pos):
                break
            end = stop + len(trailer)
            if scanned is not None:
                scanned(offset + pos, offset + end)
            elif raw:
                append(data[pos:end])
            else:
                if not has_first:
                    message = data[start:stop]
                elif in_one_piece:
                    message = data[rest_pos:stop]
                else:
                    stripped = layout.lead_of(data, pos) + data[rest_pos:start]
                    message = first_bytes(layout, stripped) + data[start:stop]
                if keep_header is not None:
                    keep_header(data[pos:start])
                append(message)
            pos = end
    except BaseException:
        pos = skip_frames(layout, data, first_pos, len(messages) - count)
        raise
    finally:
        try:
            reader._stream_offset += pos - first_pos
        except MemoryError:  # once more: the messages are in the list already
            reader._stream_offset += pos - first_pos
        reader._counting = False
    return pos


def check_fragment_size(reader: FrameReader, header_size: int, value: int) -> int:
    """Return the size of a fragment's rest; raise or begin to skip if it is not allowed."""
    header = bytes(reader._header[:header_size])
    size, error = check_fragment(
        reader._layout, header, value, reader._fragments, reader._content, reader._stream_offset
    )
    if error is not None and (reader._spans is not None or not reader._skipping):
        if not reader._skip:
            raise error
        heads, piece = bytearray(), bytearray()
        pieces: list[bytes] = []
        # No call in between.
        reader._skipping = True
        reader._piece = piece
        reader._pieces = pieces
        reader._heads = heads
    return size


def begin_fragment(reader: FrameReader, stripped: bytes, rest_size: int) -> bytes:
    """Note what a whole head says; return what the message has of the bytes before the content.

    Args:
        reader: The reader; its `_header` is the head.
        stripped: These bytes.
        rest_size: Bytes of the content.
    """
    layout = reader._layout
    followed = is_followed(layout, reader._header, rest_size)
    lead = b"" if reader._fragments else first_bytes(layout, stripped)
    next_content = reader._content + rest_size
    reader._followed = followed
    reader._next_content = next_content
    return lead


def end_fragment(reader: FrameReader) -> None:
    """Keep the head of a fragment that another follows, and expect that one."""
    heads = bytearray()
    if not reader._skipping:
        if reader._fragments:
            heads = reader._heads
        del heads[reader._fragments * len(reader._header) :]  # what an interruption left
    header = bytearray()
    trailer = reader._trailer if reader._raw else b""
    fragments = reader._fragments + 1
    # No call from here on.
    if not reader._skipping:
        heads += reader._header
        reader._piece += trailer
    reader._heads = heads
    reader._fragments = fragments
    reader._content = reader._next_content
    reader._header = header
    reader._found = None
    reader._followed = False
    reader._trailer_pos = 0
    reader._phase = IN_HEADER


def heads_of(reader: FrameReader) -> bytes:
    """Return the heads of a message's finished fragments."""
    joined = reader._layout.joined
    if joined is None:
        return b""
    return bytes(reader._heads[: reader._fragments * joined.head_size])


def unfinished_fragments(reader: FrameReader) -> list[Any]:
    """Return the parts of a pending message with finished fragments, as they travelled.

    What arrived of the last fragment's trailer is missing.
    """
    parts: list[Any] = [*reader._pieces, reader._piece]
    if reader._raw:
        return [*parts, reader._header] if reader._phase == IN_HEADER else parts
    content = memoryview(b"".join(parts))[reader._pending_lead :]
    whole, stop = fragments_as_travelled(reader._layout, heads_of(reader), content)
    return [*whole, reader._header, content[stop:]]
