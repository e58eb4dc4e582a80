"""The part of the splitter in Python that reads the frames of a choice.

`_splitter.pyx` has the same functions as methods of its class: change both in the same commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._check_bytes import has_right_check
from ._checksums_py import update_checksum
from ._choice import NOTHING, Choice, check_start_of, choose, tagged, wrong_choice
from ._fields_py import reader_of, skip_frames
from ._marks_py import find_content

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = ["choose_layout", "read_chosen_frames", "unchoose", "with_names"]


def read_chosen_frames(
    reader: FrameReader, data: bytes, pos: int, messages: list[Any], choice: Choice
) -> int:
    """Take ordinary frames of the alternatives of a choice."""
    first_pos, size, count = pos, len(data), len(messages)
    layouts, tags, append = choice.layouts, choice.tags, messages.append
    reader._counting = True
    try:
        raw = reader._raw
        scanned = None if reader._spans is None else reader._spans.add
        keep_header = None if reader._headers is None else reader._headers.append
        offset = reader._stream_offset - first_pos  # of the chunk
        while True:
            number, _ = choose(choice, data, pos)
            if number is None or number < 0:
                break
            layout = layouts[number]
            found = reader_of(layout)(layout, data, pos + layout.field_offset)
            if found is None:
                marked = find_content(layout, data, pos)
                if marked is None:
                    break
                content, message, stop = marked
                if keep_header is not None:
                    keep_header(data[pos:stop])
                if scanned is not None:
                    inside = slice(pos, stop) if raw else content
                    scanned(offset + inside.start, offset + inside.stop)
                else:
                    append(data[pos:stop] if raw else tagged(tags[number], message))
                pos = stop
                continue
            value, rest_pos = found
            rest_stop = rest_pos + value * layout.unit + layout.adjustment
            stop = rest_stop + layout.tail_size
            low, span = layout.quick_range
            if stop > size or value < low or value > low + span:
                break
            if layout.extended:
                stop += layout.padding(stop - pos)
                if stop > size or not layout.has_constants(data, pos):
                    break
            if not data.startswith(layout.magic, pos):
                break
            if not data.startswith(layout.trailer, rest_stop + layout.end_check_size):
                break
            if layout.check and not has_right_check(
                layout, data, pos, rest_pos, rest_stop, update_checksum
            ):
                break
            if scanned is not None:
                if raw:
                    scanned(offset + pos, offset + stop)
                else:
                    scanned(offset + rest_pos, offset + rest_stop)
            elif raw:
                append(data[pos:stop])
            else:
                message = layout.lead_of(data, pos) + data[rest_pos:rest_stop]
                if layout.own_bits:
                    message = layout.without_own_bits(message)
                if tags[number]:
                    message = tagged(tags[number], message)
                if keep_header is not None:
                    keep_header(data[pos : max(rest_pos, pos + layout.prefix_size)])
                append(message)
            pos = stop
    except BaseException:
        pos = _skip_chosen(choice, data, first_pos, len(messages) - count)
        raise
    finally:
        try:
            reader._stream_offset += pos - first_pos
        except MemoryError:  # once more: the messages are in the list already
            reader._stream_offset += pos - first_pos
        reader._counting = False
    return pos


def _skip_chosen(choice: Choice, data: bytes, pos: int, count: int) -> int:
    """Return the same as `skip_frames`, for frames of alternatives of a choice."""
    for _ in range(count):
        number, _ = choose(choice, data, pos)
        assert number is not None
        layout = choice.layouts[number]
        marked = find_content(layout, data, pos)
        pos = skip_frames(layout, data, pos, 1) if marked is None else marked[2]
    return pos


def choose_layout(reader: FrameReader, data: bytes, pos: int, choice: Choice) -> int:
    """Gather the header up to the byte that chooses, and take the layout that it chooses."""
    header = reader._header
    while True:
        found, number = choose(choice, header)
        check_start_of(choice, number, bytes(header), reader._stream_offset)
        if found is not None:
            break
        piece = data[pos : pos + choice.nodes[number].offset + 1 - len(header)]
        if not piece:
            return pos
        pending = reader._pending + len(piece)  # first what can fail, as in _read_header()
        pos += len(piece)
        header += piece
        reader._pending = pending
    if found == NOTHING:
        seen = bytes(header[: choice.nodes[number].offset + 1])
        raise wrong_choice(choice, number, reader._stream_offset, seen)
    layout = choice.layouts[found]
    limit, tag = layout.longest_header, choice.tags[found]
    reader._magic, reader._trailer = layout.magic, layout.trailer
    reader._header_limit, reader._tag = limit, tag
    reader._layout = layout
    return pos


def unchoose(reader: FrameReader) -> None:
    """Take the layout of the choice again, until the next frame chooses one."""
    layout = reader._choice_layout
    reader._magic, reader._trailer = layout.magic, layout.trailer
    reader._header_limit = layout.longest_header
    reader._tag = ()
    reader._layout = layout


def with_names(reader: FrameReader, delivered: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what is delivered, with the names of the alternative of a tagged choice."""
    if not reader._tag or reader._raw:
        return delivered
    return tuple(tagged(reader._tag, message) for message in delivered)
