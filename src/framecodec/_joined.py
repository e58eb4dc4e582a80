"""Messages of several frames: their fragments, for both encoders.

A fragment is ``[ head ][ content ][ trailer ]``; see `_fragments.py`.
"""

from __future__ import annotations

from typing import Any

from . import _error_texts
from ._layout import BCD, UINT, Layout
from ._message_start import check_start

__all__ = ["joined_parts", "make_head"]


def joined_parts(layout: Layout, data: Any) -> list[Any]:
    """Return the fragments of a message as buffers: heads, pieces of the message, trailers.

    Args:
        layout: The layout.
        data: The message: `bytes`, or a flat memoryview of bytes.

    Raises:
        InvalidFrameError: The message needs too many fragments, or has no such frames.
        MessageTooLargeError: It is larger than ``max_message_size``.
    """
    joined = layout.joined
    assert joined is not None
    size, step = len(data), joined.fragment_size
    start = _start_of(layout, data)
    content_size = size - joined.first_size
    count = content_size // step + 1 if joined.full >= 0 else max(1, -(-content_size // step))
    if count > joined.max_fragments:
        raise _error_texts.unsayable_message(
            f"its {size} bytes need {count} fragments, the limit is {joined.max_fragments} "
            "(max_fragments)"
        )
    pieces = [min(step, content_size - number * step) for number in range(count)]
    heads = [
        make_head(layout, piece, start, number, number + 1 == count)
        for number, piece in enumerate(pieces)
    ]
    # Nothing can be wrong any more: an error could not release `data` while there are views of it.
    parts: list[Any] = []
    pos = joined.first_size
    for head, piece in zip(heads, pieces, strict=True):
        parts.append(head)
        if piece:
            parts.append(data if piece == size else memoryview(data)[pos : pos + piece])
        if layout.trailer:
            parts.append(layout.trailer)
        pos += piece
    return parts


def _start_of(layout: Layout, data: Any) -> bytes:
    """Return the bytes before the first content; raise if the message cannot begin or is large."""
    joined = layout.joined
    assert joined is not None
    size, first_size = len(data), joined.first_size
    if size < first_size:
        raise _error_texts.unsayable_message(
            f"it has {size} bytes, at least {first_size} are needed, which travel before the "
            "content of the first fragment (strip)"
        )
    if size > layout.message_max:
        raise _error_texts.message_too_large(size, layout.message_max, "max_message_size")
    if not first_size:
        return joined.blank
    start = bytes(data[:first_size])
    check_start(layout, start)
    if joined.last_mask:
        position = layout.message_position(joined.last_offset)
        if start[position] & joined.last_mask:
            raise _error_texts.unsayable_message(
                f"the bits {joined.last_mask:#04x} of its byte {position} mark the last fragment "
                f"(last), and must be 0 in a message; the byte is {start[position]:#04x}"
            )
    return start


def make_head(layout: Layout, content_size: int, start: bytes, number: int, is_last: bool) -> bytes:
    """Return the head of a fragment.

    Args:
        layout: The layout.
        content_size: Bytes of its content.
        start: What it has before the content, with the bits 0 that mark the last fragment, and with
            the number of the first fragment.
        number: How many fragments of the message come before it.
        is_last: No fragment follows.
    """
    joined = layout.joined
    assert joined is not None
    before = bytearray(start)
    if joined.counter >= 0:
        position = layout.message_position(joined.counter)
        before[position] = before[position] + number & 0xFF
    if joined.last_mask:
        other = 0 if joined.last_value else joined.last_mask
        position = layout.message_position(joined.last_offset)
        before[position] |= joined.last_value if is_last else other
    lead_size, message_lead = layout.lead_size, layout.message_lead
    field = bytearray(_field(layout, joined.strip - message_lead + content_size))
    for index, pos in enumerate(layout.kept, lead_size):
        field[pos] |= before[index]
    return bytes(layout.magic + before[:lead_size] + field + before[message_lead:])


def _field(layout: Layout, rest_size: int) -> bytes:
    """Return the length field for a rest of a size."""
    value = rest_size - layout.adjustment
    if value < 0:
        raise _error_texts.unsayable_length(value, rest_size)
    if rest_size + layout.message_lead < layout.min_message_size:
        raise _error_texts.message_too_small(
            rest_size + layout.message_lead, layout.min_message_size
        )
    if value % layout.unit:
        raise _error_texts.not_in_units(rest_size, layout.adjustment, layout.unit)
    value //= layout.unit
    if not layout.holds(value):
        raise _error_texts.length_not_held(value, layout.mask)
    if layout.kind == UINT:
        return value.to_bytes(layout.field_width, layout.byteorder, signed=layout.signed)
    digits = f"{value:x}" if layout.base == 16 else str(value)
    if layout.kind == BCD:
        return bytes.fromhex(digits.zfill(2 * layout.field_width))
    return digits.zfill(layout.field_width).encode()
