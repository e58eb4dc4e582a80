"""The start of a message that travels in the header: checked and written, for both encoders."""

from __future__ import annotations

from . import _error_texts
from ._layout import Layout

__all__ = ["check_start", "join_header"]


def check_start(layout: Layout, start: bytes) -> None:
    """Raise if a message's start has other constants, or bits that belong to the codec."""
    for offset, constant in layout.constants:
        position = layout.message_position(offset)
        found = start[position : position + len(constant)]
        if found != constant:
            raise _error_texts.message_without_constant(position, constant, found)
    if layout.kept:
        mask = layout.mask.to_bytes(layout.field_width, layout.byteorder)
        for index, pos in enumerate(layout.kept, layout.lead_size):
            if start[index] & mask[pos]:
                raise _error_texts.length_bits_in_message(index, start[index], mask[pos])
    for own in layout.own_bits:
        position = layout.message_position(own.offset)
        if start[position] & own.mask:
            raise _error_texts.own_bits_in_message(position, start[position], own.mask)


def join_header(layout: Layout, start: bytes, field: bytes) -> bytes:
    """Return the magic, the lead and the length field, and what follows up to own bits."""
    marked = bytearray(field)
    for index, pos in enumerate(layout.kept, layout.lead_size):
        marked[pos] |= start[index]
    header = layout.magic + start[: layout.lead_size] + bytes(marked)
    if layout.own_bits:
        whole = bytearray(header + start[layout.message_lead :])
        for own in layout.own_bits:
            whole[own.offset] |= own.value
        return bytes(whole)
    return header
