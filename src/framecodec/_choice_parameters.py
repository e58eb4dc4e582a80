"""The alternatives of a choice, checked and turned into one tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ._choice import NOTHING, Choice, Condition, Node, Places
from ._layout import (
    BER,
    CHOICE,
    COBS,
    FIXED,
    HEADERS,
    NO_LIMIT,
    TEXT,
    UINT,
    VARINT,
    Layout,
    OwnBits,
    layout_of,
)
from ._plain_parameters import check_bool

__all__ = ["choice_layout", "smallest_frame"]

_MOST_ALTERNATIVES = 4096
_MOST_OWN_BITS = 4  # as in _numbers.pxd


def choice_layout(parameters: dict[str, Any]) -> Layout:
    """Return the layout of a choice.

    Args:
        parameters: All parameters. Those of the choice alone are replaced by plain ones.

    Raises:
        ValueError, TypeError: The alternatives contradict each other.
    """
    limit = parameters["max_message_size"]
    if limit is None:
        limit = NO_LIMIT
    choice, magic = _make_choice(parameters, limit)
    for layout in choice.layouts:
        if layout.kind == FIXED and layout.size > limit:
            raise ValueError(
                f"max_message_size={limit} refuses an alternative whose messages have "
                f"{layout.size} bytes; raise it, or remove the alternative"
            )
    largest = max(layout.message_max for layout in choice.layouts)
    return Layout(
        kind=CHOICE,
        magic=magic,
        field_offset=len(magic),
        max_header=max(
            *(node.offset + 1 for node in choice.nodes),
            *(layout.longest_header for layout in choice.layouts),
        ),
        max_message_size=min(limit, largest),
        choice=choice,
    )


class _Alternative(NamedTuple):
    name: Any
    values: int | bytes | None
    layout: Layout


def _make_choice(parameters: dict[str, Any], limit: int) -> tuple[Choice, bytes]:
    """Check the parameters of a choice.

    Args:
        parameters: All parameters of the choice.
        limit: The largest message.

    Returns:
        The tree, and the first bytes that all alternatives have in common.

    Raises:
        ValueError, TypeError: The alternatives contradict each other.
    """
    offset, mask = parameters["offset"], parameters["mask"]
    keep, tagged = check_bool(parameters, "keep"), check_bool(parameters, "tagged")
    plain, alternatives = _alternatives(parameters["alternatives"], tagged)
    parameters["alternatives"] = plain
    nodes: list[Node] = []
    layouts: list[Layout] = []
    tags: list[tuple[Any, ...]] = []
    conditions: list[tuple[Condition, ...]] = []
    nexts = [NOTHING] * 256
    nodes.append(Node(offset, mask, (), b""))
    taken: set[int] = set()
    others: list[int] = []
    for alternative in alternatives:
        values = _values(alternative, mask, keep)
        if values & taken:
            shown = ", ".join(f"{value:#04x}" for value in sorted(values & taken))
            raise ValueError(f"alternatives overlap: {shown} chooses two of them")
        taken |= values
        if alternative.values is None:
            others = [byte for byte in range(256)]
        _check_end_marks(alternative.layout.marks)
        if alternative.layout.joined is not None:
            raise ValueError("a codec of joined() cannot be an alternative of a choice")
        _check_offset(alternative, offset)
        bytes_of_values = frozenset(byte for byte in range(256) if byte & mask in values)
        own = None
        if not keep:
            (value,) = values
            own = OwnBits(offset, mask, value)
        target = _add(alternative, own, limit, nodes, layouts, tags, conditions)
        if alternative.values is None:
            others_target, first_other = target, len(layouts)
            own_layouts = range(first_other - _size_of(alternative.layout), first_other)
        else:
            for byte in bytes_of_values:
                nexts[byte] = target
            if own is None:
                _add_condition(
                    conditions, layouts, alternative, Condition(offset, mask, bytes_of_values)
                )
    if others:
        rest = frozenset(byte for byte in others if byte & mask not in taken)
        if not rest:
            raise ValueError("the alternative None (all other values) is never chosen; remove it")
        for byte in rest:
            nexts[byte] = others_target
        for number in own_layouts:
            conditions[number] = (Condition(offset, mask, rest), *conditions[number])
    for byte, found in enumerate(nexts):
        inner = nodes[-1 - found] if NOTHING < found < 0 else None
        if inner is not None and inner.offset == offset and inner.nexts[byte] != NOTHING:
            nexts[byte] = inner.nexts[byte]  # one step instead of two
    nodes[0] = Node(offset, mask, tuple(nexts), _common_magic(layouts))
    if len(layouts) > _MOST_ALTERNATIVES:
        raise ValueError(f"a choice can have {_MOST_ALTERNATIVES} alternatives, not {len(layouts)}")
    places = tuple(map(_places, layouts, conditions))
    choice = Choice(tuple(nodes), tuple(layouts), tuple(tags), tuple(conditions), places)
    return choice, nodes[0].magic


def _check_end_marks(marks: tuple[bytes, ...]) -> None:
    for mark in marks:
        for other in marks:
            if mark in other[:-1]:
                raise ValueError(
                    f"an alternative of a choice has the end marks {mark!r} and {other!r}, which "
                    "continues after the first one: what follows that could be the rest of the "
                    "mark or the next frame; remove one of them"
                )


def _alternatives(alternatives: Any, tagged: bool) -> tuple[Mapping[Any, Any], list[_Alternative]]:
    if not isinstance(alternatives, Mapping):
        raise TypeError(f"alternatives must be a mapping, not {alternatives!r}")
    if not alternatives:
        raise ValueError("alternatives is empty; a choice needs at least one codec")
    found = []
    plain: dict[Any, Any] = {}
    for key, value in alternatives.items():
        if tagged:
            if not isinstance(value, tuple | list) or len(value) != 2:
                raise TypeError(
                    f"with tagged=True an alternative is name: (values, codec), not {value!r}"
                )
            values, codec = value
            name: Any = key
        else:
            name, values, codec = None, key, value
        if isinstance(values, bytearray | memoryview):
            values = bytes(values)
        if isinstance(values, bool) or not (values is None or isinstance(values, int | bytes)):
            raise TypeError(f"a value that chooses must be an int, bytes or None, not {values!r}")
        values = int(values) if isinstance(values, int) else values
        found.append(_Alternative(name, values, layout_of(codec)))
        if getattr(codec, "_objects", None) is not None:
            raise ValueError(
                f"an alternative of a choice has objects: {codec!r}; give objects to the choice:"
                " Codec.choice(...).as_json()"
            )
        plain[name if tagged else values] = (values, codec) if tagged else codec
    if sum(alternative.values is None for alternative in found) > 1:
        raise ValueError("alternatives overlap: two of them are for all other values (None)")
    return MappingProxyType(plain), found


def _values(alternative: _Alternative, mask: int, keep: bool) -> set[int]:
    if not keep and not isinstance(alternative.values, int):
        raise ValueError(
            f"keep=False needs an int for each alternative, not {alternative.values!r}: the codec "
            "writes the bits"
        )
    if alternative.values is None:
        return set()
    values = {alternative.values} if isinstance(alternative.values, int) else {*alternative.values}
    if not values:
        raise ValueError("an alternative has no values (b''); it is never chosen")
    for value in values:
        if not 0 <= value <= 0xFF:
            raise ValueError(f"a value that chooses must be from 0 to 255, not {value}")
        if value & ~mask:
            raise ValueError(f"the value {value:#04x} has bits outside the mask {mask:#04x}")
    return values


def _size_of(layout: Layout) -> int:
    return 1 if layout.choice is None else len(layout.choice.layouts)


def _add(
    alternative: _Alternative,
    own: OwnBits | None,
    limit: int,
    nodes: list[Node],
    layouts: list[Layout],
    tags: list[tuple[Any, ...]],
    conditions: list[tuple[Condition, ...]],
) -> int:
    """Add an alternative to the tree; return what the items of `nexts` that choose it are."""
    names = () if alternative.name is None else (alternative.name,)
    inner: Choice | None = alternative.layout.choice
    first, first_node = len(layouts), len(nodes)
    if inner is None:
        layouts.append(_limited(alternative.layout, own, limit))
        tags.append(names)
        conditions.append(())
        return first
    layouts += [_limited(layout, own, limit) for layout in inner.layouts]
    tags += [(*names, *tag) for tag in inner.tags]
    conditions += inner.conditions
    for node in inner.nodes:
        moved = tuple(
            found if found == NOTHING else found + first if found >= 0 else found - first_node
            for found in node.nexts
        )
        nodes.append(Node(node.offset, node.mask, moved, node.magic))
    return -1 - first_node


def _add_condition(
    conditions: list[tuple[Condition, ...]],
    layouts: list[Layout],
    alternative: _Alternative,
    condition: Condition,
) -> None:
    for number in range(len(layouts) - _size_of(alternative.layout), len(layouts)):
        conditions[number] = (condition, *conditions[number])


def _limited(layout: Layout, own: OwnBits | None, limit: int) -> Layout:
    """Return the layout of an alternative, with the limit and the bits that belong to the codec."""
    changes: dict[str, Any] = {}
    if limit < layout.max_message_size:
        changes["max_message_size"] = limit
    if own is not None:
        _check_own_bits(layout, own)
        changes["own_bits"] = (*layout.own_bits, own)
    if not changes:
        return layout
    if changes.get("max_message_size", layout.max_message_size) < layout.min_message_size:
        raise ValueError(
            f"max_message_size={limit} is less than min_message_size={layout.min_message_size} of "
            "an alternative"
        )
    changed = dataclasses.replace(layout, **changes)
    if changed.quick_range[1] < 0 <= layout.quick_range[1]:
        raise ValueError(f"max_message_size={limit} leaves an alternative no message; raise it")
    return changed


def _check_own_bits(layout: Layout, own: OwnBits) -> None:
    if layout.marks:
        raise ValueError(
            "keep=False excludes an alternative of delimiter() or cobs(): its frames hold the "
            "message without a place for the codec's bits; use keep=True, or a magic"
        )
    place = _place(layout, own.offset, own.mask)
    if place is None:
        raise ValueError(
            f"keep=False needs the byte at offset {own.offset} in the message of each alternative, "
            "at a fixed place outside magic, length field and trailer"
        )
    if isinstance(place, bytes):
        raise ValueError(
            f"keep=False excludes a constant at offset {own.offset} (constants); remove one of them"
        )
    if layout.check is not None:
        raise ValueError("keep=False excludes an alternative with a check; remove one of them")
    if len(layout.own_bits) == _MOST_OWN_BITS:
        raise ValueError(f"at most {_MOST_OWN_BITS} nested choices can have keep=False")
    if any(other.offset == own.offset and other.mask & own.mask for other in layout.own_bits):
        raise ValueError(f"two choices own the same bits of the byte at offset {own.offset}")


def _place(layout: Layout, offset: int, mask: int) -> int | bytes | None:
    """Return where a byte of the frame is in the message.

    Returns:
        Its position in the message; a constant byte; or None if it is elsewhere or varies.
    """
    if offset < len(layout.magic):
        return layout.magic[offset : offset + 1]
    for at, constant in layout.constants:
        if at <= offset < at + len(constant):
            return constant[offset - at : offset - at + 1]
    if offset < layout.field_offset:
        return layout.message_position(offset)
    if layout.marks:
        has_front = layout.check is not None and layout.check.position == "front"
        return (
            None
            if layout.kind == COBS or layout.escape or has_front
            else offset - layout.field_offset
        )
    if layout.kind == FIXED:
        first = layout.field_offset + layout.front_check_size
        in_message = first <= offset < first + layout.size
        return layout.message_position(offset) if in_message else None
    index = offset - layout.field_offset
    if index < layout.field_width and layout.kind == UINT and index in layout.kept:
        order = layout.byteorder
        owned = layout.mask.to_bytes(layout.field_width, order)[index]
        return None if owned & mask else layout.message_position(offset)
    if not layout.header_size or offset < layout.header_size + layout.front_check_size:
        return None
    if offset >= smallest_frame(layout) - len(layout.trailer):
        return None
    return layout.message_position(offset)


def _check_offset(alternative: _Alternative, offset: int) -> None:
    least = smallest_frame(alternative.layout)
    if offset >= least:
        raise ValueError(
            f"offset={offset} is beyond the smallest frame of an alternative, which has "
            f"{least} bytes; lower the offset, or raise min_message_size of the alternative"
        )


def _places(layout: Layout, conditions: tuple[Condition, ...]) -> Places:
    """Return where the bytes that choose a layout are in its message, as far as that is fixed."""
    places = []
    for offset, mask, values in conditions:
        place = _place(layout, offset, mask)
        if isinstance(place, bytes) and place[0] not in values:
            raise ValueError(
                f"an alternative is never chosen: its frames have the constant {place[0]:#04x} at "
                f"offset {offset}, and it is for other values of that byte"
            )
        if place is None and layout.kind == HEADERS and layout.keep:
            place = offset - len(layout.magic)
        if isinstance(place, int):
            places.append((place, values))
    return tuple(places)


def smallest_frame(layout: Layout) -> int:
    """Return how many bytes each frame of a layout has, at least."""
    if layout.choice is not None:
        return min(map(smallest_frame, layout.choice.layouts))
    rest_min = layout.rest_min
    if layout.marks:
        least = len(layout.magic) + min(map(len, layout.marks))
        return least if layout.skip_empty else least + rest_min + layout.inner_check_size
    if layout.kind == UINT or layout.header_size or layout.kind == FIXED:
        header = layout.field_offset + layout.field_width
    elif layout.kind in (VARINT, BER):
        header = layout.field_offset + 1
    elif layout.kind == TEXT:
        header = layout.field_offset + 1 + len(layout.end)
    elif layout.kind == HEADERS:
        header = len(layout.magic) + len(layout.name) + len(": 0\r\n\r\n") - 1
    else:  # unknown, but each has at least a byte
        return max(len(layout.magic) + 1, layout.min_message_size)
    if layout.specials:
        return header
    return header + layout.front_check_size + rest_min + len(layout.trailer)


def _common_magic(layouts: list[Layout]) -> bytes:
    magics = [layout.magic for layout in layouts]
    first, last = min(magics), max(magics)
    size = next((pos for pos in range(len(first)) if first[pos] != last[pos]), len(first))
    return first[:size]
