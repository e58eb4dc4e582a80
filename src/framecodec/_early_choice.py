"""What the frame of a message will choose, found before it is written: for the compiled encoder.

A byte that was just written, in a piece of another size, can only be read again much later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ._choice import NOTHING
from ._layout import BER, FIXED, Layout

__all__ = ["EarlyChoice", "early_choices"]


_NOWHERE = -2  # the position of no byte: -1 means one that is not in the message


class EarlyChoice(NamedTuple):
    """How it is found whether the frames of an alternative choose it."""

    sure: frozenset[int]  # bytes of the message with which no earlier alternative can be meant
    is_certain: bool  # with one of them, the frame chooses this one
    start: int  # the number of the node that is asked first
    positions: tuple[int, ...]  # of each node's byte in the message; -1: only the frame has it


def early_choices(
    layout: Layout,
    known: int,
    allowed: Sequence[frozenset[int] | None],
    ranges: Sequence[tuple[int, int]],
) -> list[EarlyChoice]:
    """Return an item for each alternative.

    Args:
        layout: The layout of a choice.
        known: The position of a byte in the message.
        allowed: For each alternative the bytes that it can have there; None: all.
        ranges: For each alternative the smallest and the largest message that is written early.
    """
    choice = layout.choice
    assert choice is not None
    every = frozenset(range(256))
    found = []
    for number, each in enumerate(choice.layouts):
        sure = every if allowed[number] is None else allowed[number]
        assert sure is not None
        least, most = ranges[number]
        for other in range(number):
            smallest, largest = _sizes(choice.layouts[other])
            if smallest <= most and least <= largest and sure:
                sure -= every if allowed[other] is None else allowed[other] or frozenset()
        chosen = {_walk(choice.nodes, each, known, byte)[1] for byte in sure}
        start, _ = _walk(choice.nodes, each, _NOWHERE, 0)
        positions = tuple(_position(each, node.offset) for node in choice.nodes)
        found.append(EarlyChoice(sure, chosen == {number}, start, positions))
    return found


def _sizes(layout: Layout) -> tuple[int, int]:
    """Return the smallest and the largest message that a layout can have."""
    if layout.kind == FIXED:
        size = layout.size + layout.message_lead
        return size, size
    if layout.kind > BER or layout.joined is not None:
        return 0, layout.message_max
    return layout.rest_min + layout.message_lead, layout.message_max


def _position(layout: Layout, offset: int) -> int:
    """Return where a byte of the frame is in the message, or -1 if it is another one there."""
    in_field = layout.field_offset <= offset and not layout.field_offset < layout.header_size <= (
        offset
    )
    if offset < len(layout.magic) or in_field or layout.front_check_size:
        return -1
    if any(own.offset == offset for own in layout.own_bits):
        return -1
    return layout.message_position(offset)


def _byte(layout: Layout, offset: int, known: int, byte: int) -> int | None:
    """Return a byte of all frames whose message has a byte at the known position, or None."""
    if offset < len(layout.magic):
        return layout.magic[offset]
    for start, constant in layout.constants:
        if start <= offset < start + len(constant):
            return constant[offset - start]
    value = byte if _position(layout, offset) == known else None
    for own in layout.own_bits:
        if own.offset == offset and layout.message_position(offset) == known:
            value = byte & ~own.mask | own.value
    return value


def _walk(nodes: Sequence[Any], layout: Layout, known: int, byte: int) -> tuple[int, int | None]:
    """Return the last node that is asked, and what it chooses; None if its byte can vary."""
    number = 0
    while True:
        value = _byte(layout, nodes[number].offset, known, byte)
        found: int | None = None if value is None else nodes[number].nexts[value]
        if found is None or found >= 0 or found == NOTHING:
            return number, found
        number = -1 - found
