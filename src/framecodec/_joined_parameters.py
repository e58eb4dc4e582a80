"""The parameters of `Codec.joined`, checked and turned into a layout."""

from __future__ import annotations

import dataclasses
from typing import Any

from ._joined import make_head
from ._layout import BCD, DIGITS, LARGEST_SIZE, NO_LIMIT, UINT, Joined, Layout, layout_of
from ._plain_parameters import LARGEST_OFFSET, check_bool, check_int
from .errors import FrameError

__all__ = ["joined_layout"]

_MOST_FRAGMENTS = 2**32


def joined_layout(parameters: dict[str, Any]) -> Layout:
    """Return the layout of messages of several frames.

    Args:
        parameters: All parameters. Those of `Codec.joined` alone are replaced by plain ones.

    Raises:
        ValueError, TypeError: The parameters contradict each other.
    """
    fragment = layout_of(parameters["fragments"])
    _check_fragments(fragment)
    strip = check_int(parameters, "strip", 0, LARGEST_OFFSET)
    if strip < fragment.message_lead:
        raise ValueError(
            f"strip={strip} leaves bytes of the fragment's lead in its content; strip must be at "
            f"least {fragment.message_lead}, the size of the lead"
        )
    keep_first = check_bool(parameters, "keep_first")
    if keep_first and not strip:
        raise ValueError("keep_first=True has no meaning with strip=0; remove one of them")
    head_size = fragment.header_size + strip - fragment.message_lead
    last_offset, mask, value = _check_last(parameters, fragment, head_size)
    counter = _check_counter(parameters, fragment, head_size, last_offset)
    largest = min(fragment.rest_max + fragment.message_lead - strip, LARGEST_SIZE)
    if largest < 1:
        raise ValueError(f"strip={strip} leaves no content in a fragment")
    full = -1
    if parameters["full"] is not None:
        full = check_int(parameters, "full", 1, largest)
    limit = parameters["max_message_size"]
    layout = dataclasses.replace(
        fragment,
        max_message_size=NO_LIMIT if limit is None else limit,
        joined=Joined(
            head_size,
            strip,
            strip if keep_first else 0,
            last_offset,
            mask,
            value,
            full,
            counter,
            _check_fragment_size(parameters, largest, full, fragment.unit),
            check_int(parameters, "max_fragments", 1, _MOST_FRAGMENTS),
            fragment.rest_max,
            _blank(fragment, strip, head_size),
        ),
    )
    _check_full_fragment(layout)
    return layout


def _check_fragments(fragment: Layout) -> None:
    if fragment.joined is not None:
        raise ValueError("fragments cannot be a codec of joined() itself")
    if fragment.kind not in (UINT, DIGITS, BCD) or fragment.wider:
        raise ValueError(
            "fragments must be a codec with a length field of fixed width, of uint(), struct() or "
            "digits(), without wider"
        )
    for name in ("specials", "check"):
        if getattr(fragment, name):
            raise ValueError(f"fragments of joined() cannot have {name}; remove it")
    if fragment.align > 1:
        raise ValueError("fragments of joined() cannot have align; remove it")


def _check_last(
    parameters: dict[str, Any], fragment: Layout, head_size: int
) -> tuple[int, int, int]:
    """Return the offset, the mask and the value of the byte that marks the last fragment."""
    last = parameters["last"]
    if (last is None) == (parameters["full"] is None):
        raise ValueError("joined() needs exactly one of last and full, which end a message")
    if last is None:
        return -1, 0, 0
    if not isinstance(last, tuple | list) or len(last) != 3:
        raise TypeError(f"last must be (offset, mask, value), not {last!r}")
    named: dict[str, Any] = dict(
        zip(("the offset of last", "the mask of last", "the value of last"), last, strict=True)
    )
    offset = check_int(named, "the offset of last", 0, LARGEST_OFFSET)
    mask = check_int(named, "the mask of last", 1, 0xFF)
    value = check_int(named, "the value of last", 0, 0xFF)
    if value & ~mask:
        raise ValueError(f"last: the value {value:#04x} has bits outside the mask {mask:#04x}")
    _check_place("last", fragment, head_size, offset, mask)
    parameters["last"] = (offset, mask, value)
    return offset, mask, value


def _check_counter(
    parameters: dict[str, Any], fragment: Layout, head_size: int, last_offset: int
) -> int:
    if parameters["counter"] is None:
        return -1
    offset = check_int(parameters, "counter", 0, LARGEST_OFFSET)
    _check_place("counter", fragment, head_size, offset, 0xFF)
    if offset == last_offset:
        raise ValueError(f"counter={offset} and last have the same byte; change one of them")
    return offset


def _check_place(name: str, fragment: Layout, head_size: int, offset: int, mask: int) -> None:
    """Raise unless bits of a frame's byte are in what `strip` takes off its message."""
    field_stop = fragment.field_offset + fragment.field_width
    in_field = fragment.field_offset <= offset < field_stop
    if in_field and offset - fragment.field_offset in fragment.kept:
        of_length = fragment.mask.to_bytes(fragment.field_width, fragment.byteorder)
        if not mask & of_length[offset - fragment.field_offset]:
            return
    if in_field or offset < len(fragment.magic) or offset >= head_size:
        what = "in bits of the length field" if in_field else "there"
        raise ValueError(
            f"{name}: the byte at offset {offset} of the frame cannot be {what}: it must be among "
            "the bytes that strip takes off each fragment's message"
        )
    for pos, constant in fragment.constants:
        if pos <= offset < pos + len(constant):
            raise ValueError(f"{name}: the byte at offset {offset} is a constant; remove one")


def _check_fragment_size(parameters: dict[str, Any], largest: int, full: int, unit: int) -> int:
    if parameters["fragment_size"] is None:
        if full > 0:
            return full
        return max(largest - largest % unit, 1) if unit <= largest else largest
    if full > 0:
        raise ValueError("fragment_size has no meaning with full, which is that size; remove it")
    return check_int(parameters, "fragment_size", 1, largest)


def _blank(fragment: Layout, strip: int, head_size: int) -> bytes:
    """Return the bytes before a content of zeros and the constants."""
    blank = bytearray(strip)
    for offset, constant in fragment.constants:
        if offset + len(constant) > head_size:
            raise ValueError(
                f"the constant at offset {offset} is in the content of the fragments; it must be "
                "among the bytes that strip takes off"
            )
        position = fragment.message_position(offset)
        blank[position : position + len(constant)] = constant
    return bytes(blank)


def _check_full_fragment(layout: Layout) -> None:
    assert layout.joined is not None
    size = layout.joined.fragment_size
    try:
        make_head(layout, size, layout.joined.blank, 0, False)
    except FrameError as error:
        raise ValueError(f"no fragment can have a content of {size} bytes: {error}") from None
