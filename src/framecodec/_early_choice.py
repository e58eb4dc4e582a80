"""What the frame of a message will choose, found before it is written: for the compiled encoder.

A byte that was just written, in a piece of another size, can only be read again much later. For
most alternatives the bytes that choose them are known from few bits: of the message, of its size,
and of what all their frames have. Then nothing is read again.

A set of bytes is a number here: bit *n* says whether the byte *n* is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from ._choice import NOTHING, Choice
from ._layout import BCD, BER, DIGITS, FIXED, LARGEST_SIZE, TEXT, UINT, Layout

__all__ = ["MOST_NODES", "EarlyChoice", "early_choices"]

_EVERY = (1 << 256) - 1
MOST_NODES = 16  # whose bytes are looked for, and that are followed; as in _quick_heads.pxd


class EarlyChoice(NamedTuple):
    """How it is found whether the frames of an alternative choose it."""

    sure: frozenset[int]  # bytes of the message with which no earlier alternative can be meant
    # With one of them, and what follows, the frame chooses this one; if something of what follows
    # is missing, it does not.
    is_certain: bool
    # The smallest and the largest message of which this is said; all that are written early, if it
    # is not certain.
    least: int
    most: int
    required: dict[int, tuple[int, int]]  # of positions in the message: bits, and their values
    length_bits: tuple[int, int]  # the same of the value of the length field
    start: int  # the number of the node that is asked first
    positions: tuple[int, ...]  # of the first nodes' bytes in the message; -1: look at the frame


class _Byte(NamedTuple):
    """A byte of an alternative's frames."""

    possible: int  # the set of what it can be
    position: int = -1  # in the message; -1: it is not there
    message_bits: int = 0  # bits that the message has there
    length_bits: int = 0  # bits of the length field ...
    place: int = 0  # ... and of the lowest one the place in the field's value


class _Tree(NamedTuple):
    offsets: list[int]  # of each node
    branches: list[dict[int, int]]  # of each node: for each item of `nexts` the set of bytes
    reached: list[int]  # of each node: the set of alternatives


class _Paths(NamedTuple):
    """What bytes all frames have that come from a node to an alternative."""

    is_exact: bool  # all other frames do not come there
    sets: dict[int, int]  # by frame offset


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
    choice: Choice = layout.choice
    tree = _tree_of(choice)
    first_sets = [_EVERY if each is None else _set_of(each) for each in allowed]
    needs: list[dict[int, int]] = []  # of each alternative, by position in the message: a set
    found = []
    for number, each in enumerate(choice.layouts):
        least, most = ranges[number]
        early = EarlyChoice(
            sure=frozenset(),
            is_certain=False,
            least=least,
            most=most,
            required={},
            length_bits=(0, 0),
            start=_start(tree, each, least, most),
            positions=tuple(_positions(tree, each, least, most)),
        )
        sure = first_sets[number]
        for sizes in _size_ranges(each, least, most):
            conditions = _conditions(tree, number, each, sizes, known)
            if conditions is not None:
                good, required, length_bits = conditions
                sure &= good
                early = early._replace(
                    is_certain=True,
                    least=sizes[0],
                    most=sizes[1],
                    required=required,
                    length_bits=length_bits,
                )
                break
        for other in range(number):
            if not sure:
                break
            smallest, largest = _sizes(choice.layouts[other])
            if smallest > early.most or largest < early.least or not sure & first_sets[other]:
                continue
            if _excludes(early.required, needs[other]):
                continue
            if early.is_certain and smallest <= early.least and largest < early.most:
                early = early._replace(least=largest + 1)
            else:
                sure &= ~first_sets[other]
        needs.append(_needs(tree, number, each))
        found.append(
            early._replace(
                sure=frozenset(_members(sure)), is_certain=early.is_certain and bool(sure)
            )
        )
    return found


def _tree_of(choice: Choice) -> _Tree:
    branches: list[dict[int, int]] = []
    for node in choice.nodes:
        sets: dict[int, int] = {}
        for byte, target in enumerate(node.nexts):
            if target != NOTHING:
                sets[target] = sets.get(target, 0) | 1 << byte
        branches.append(sets)
    reached = [0] * len(branches)
    for number in range(len(branches) - 1, -1, -1):  # what a node leads to follows it
        for target in branches[number]:
            reached[number] |= 1 << target if target >= 0 else reached[-1 - target]
    return _Tree([node.offset for node in choice.nodes], branches, reached)


def _size_ranges(layout: Layout, least: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the smallest and largest message, of all and of fewer sizes.

    A length that is 0, or that one byte cannot hold, often chooses something else; so does 0x7F.
    """
    if least > LARGEST_SIZE:
        return
    yield least, most
    if layout.kind == UINT:
        before = layout.message_lead + layout.adjustment
        for first, last in ((1, 0xFF), (0, 0x7E)):
            small = max(least, before + first * layout.unit), min(most, before + last * layout.unit)
            if small[0] <= small[1] and small != (least, most):
                yield small


def _sizes(layout: Layout) -> tuple[int, int]:
    """Return the smallest and the largest message that a layout can have."""
    if layout.kind == FIXED:
        size = layout.size + layout.message_lead
        return size, size
    if layout.kind > BER or layout.joined is not None:
        return 0, layout.message_max
    return layout.rest_min + layout.message_lead, layout.message_max


def _byte(layout: Layout, offset: int, least: int, most: int) -> _Byte:
    """Return a byte of the frames of messages of some sizes."""
    if offset < len(layout.magic):
        return _Byte(1 << layout.magic[offset])
    for start, constant in layout.constants:
        if start <= offset < start + len(constant):
            return _Byte(1 << constant[offset - start])
    index = offset - layout.field_offset
    if index < 0 or index >= layout.field_width:
        return _message_byte(layout, offset, least)
    if layout.kind == UINT:
        return _field_byte(layout, index, least, most)
    return _digit(layout) if layout.kind == DIGITS else _Byte(_EVERY)


def _digit(layout: Layout) -> _Byte:
    return _Byte(_set_of(b"0123456789abcdef" if layout.base == 16 else b"0123456789"))


def _message_byte(layout: Layout, offset: int, least: int) -> _Byte:
    """Return a byte outside the length field."""
    end = layout.field_offset + layout.field_width
    if layout.marks or layout.keep:  # after the magic, frames begin as their messages
        position = offset - len(layout.magic)
        if position < least and not (layout.has_changed_content or layout.inner_check_size):
            return _Byte(_EVERY, position, 0xFF)
        return _Byte(_EVERY)
    if layout.kind == TEXT and offset == layout.field_offset:
        return _digit(layout)
    if offset >= layout.field_offset and (
        layout.kind not in (UINT, DIGITS, BCD, FIXED) or layout.wider or layout.front_check_size
    ):
        return _Byte(_EVERY)
    position = layout.message_position(offset)
    if offset < end or position < least:
        bits, value = _own(layout, offset)
        return _Byte(_with_bits(1 << value, 0xFF & ~bits), position, 0xFF & ~bits)
    return _Byte(_EVERY)  # perhaps of the trailer


def _field_byte(layout: Layout, index: int, least: int, most: int) -> _Byte:
    """Return a byte of a binary length field."""
    place = 8 * (index if layout.little else layout.field_width - 1 - index)
    before = layout.message_lead + layout.adjustment
    first = max(0, least - before) // layout.unit >> place
    last = max(0, most - before) // layout.unit >> place
    bits, value = _own(layout, layout.field_offset + index)
    lengths = _set_of(
        (number & 0xFF) | value for number in range(first, min(last, first + 255) + 1)
    )
    if index not in layout.kept:
        return _Byte(lengths, length_bits=0xFF, place=place)
    length_bits = layout.mask.to_bytes(layout.field_width, layout.byteorder)[index]
    message_bits = 0xFF & ~length_bits & ~bits
    position = layout.message_position(layout.field_offset + index)
    return _Byte(_with_bits(lengths, message_bits), position, message_bits, length_bits, place)


def _own(layout: Layout, offset: int) -> tuple[int, int]:
    """Return the bits of a frame's byte that belong to the codec, and their values."""
    bits = value = 0
    for own in layout.own_bits:
        if own.offset == offset:
            bits |= own.mask
            value |= own.value
    return bits, value


def _positions(tree: _Tree, layout: Layout, least: int, most: int) -> Iterator[int]:
    """Yield where the bytes of the first nodes are in the message as they are; else -1."""
    for offset in tree.offsets[:MOST_NODES]:
        byte = _byte(layout, offset, least, most)
        yield byte.position if byte.message_bits == 0xFF else -1


def _start(tree: _Tree, layout: Layout, least: int, most: int) -> int:
    """Return the first node whose byte can vary, or the last one."""
    number = 0
    while True:
        possible = _byte(layout, tree.offsets[number], least, most).possible
        for target, chosen_by in tree.branches[number].items():
            if target < 0 and not possible & ~chosen_by:
                number = -1 - target
                break
        else:
            return number


def _conditions(
    tree: _Tree, number: int, layout: Layout, sizes: tuple[int, int], known: int
) -> tuple[int, dict[int, tuple[int, int]], tuple[int, int]] | None:
    """Return what frames must have to choose an alternative, or None if it cannot be said so.

    Returns:
        A set for the known byte of the message; bits by the position in the message; and bits of
        the length.
    """

    def byte_at(offset: int) -> _Byte:
        return _byte(layout, offset, *sizes)

    paths = _paths(tree, number, 0, byte_at, {}, 0)
    if paths is None or not paths.is_exact:
        return None
    good = _EVERY
    required: dict[int, tuple[int, int]] = {}
    length_bits = length = 0
    for offset, needed in paths.sets.items():
        byte = byte_at(offset)
        if needed == byte.possible:
            continue
        if byte.position == known and not byte.length_bits:
            always, _ = _common_bits(byte.possible)
            good &= _set_of(
                each for each in range(256) if needed >> (each & byte.message_bits | always) & 1
            )
            continue
        bits, value = _bits_of(needed, byte.possible)
        if bits & ~(byte.message_bits | byte.length_bits) or needed != _with(
            byte.possible, bits, value
        ):
            return None
        if bits & byte.message_bits:
            more, wanted = required.get(byte.position, (0, 0))
            bits_there = bits & byte.message_bits
            required[byte.position] = more | bits_there, wanted | value & bits_there
        length_bits |= (bits & byte.length_bits) << byte.place
        length |= (value & byte.length_bits) << byte.place
    return good, required, (length_bits, length)


def _needs(tree: _Tree, number: int, layout: Layout) -> dict[int, int]:
    """Return by position in the message the bytes with which an alternative can be chosen."""

    def byte_at(offset: int) -> _Byte:
        byte = _byte(layout, offset, *_sizes(layout))
        if byte.length_bits:
            return byte._replace(possible=_EVERY)
        return byte

    paths = _paths(tree, number, 0, byte_at, {}, 0)
    needs: dict[int, int] = {}
    if paths is not None:
        for offset, needed in paths.sets.items():
            byte = byte_at(offset)
            if byte.position >= 0 and needed != byte.possible:
                found = {member & byte.message_bits for member in _members(needed)}
                values = (value for value in range(256) if value & byte.message_bits in found)
                needs[byte.position] = _set_of(values) & needs.get(byte.position, _EVERY)
    return needs


def _excludes(required: dict[int, tuple[int, int]], needs: dict[int, int]) -> bool:
    """Return whether no message has both what one alternative requires and what another needs."""
    return any(
        not _with(needs[position], bits, value)
        for position, (bits, value) in required.items()
        if position in needs
    )


def _paths(
    tree: _Tree,
    number: int,
    node: int,
    byte_at: Callable[[int], _Byte],
    before: dict[int, int],
    depth: int,
) -> _Paths | None:
    """Return what leads from a node to an alternative; None if nothing does.

    Args:
        tree: The tree.
        number: The alternative.
        node: The node.
        byte_at: A function of a frame offset.
        before: What led to the node: sets by frame offset.
        depth: How many nodes did.
    """
    if depth > MOST_NODES:
        return _Paths(False, {})
    offset = tree.offsets[node]
    possible = before[offset] if offset in before else byte_at(offset).possible
    for target, chosen_by in tree.branches[node].items():
        part = possible & chosen_by
        if not part:
            continue
        if target == number:
            return _Paths(True, {offset: part})
        if target < 0 and tree.reached[-1 - target] >> number & 1:
            paths = _paths(tree, number, -1 - target, byte_at, {**before, offset: part}, depth + 1)
            if paths is not None:  # no other branch leads there
                return _Paths(paths.is_exact, {offset: part, **paths.sets})
    return None


# --- sets -----------------------------------------------------------------------------------------


def _set_of(members: Iterable[int]) -> int:
    found = 0
    for member in members:
        found |= 1 << member
    return found


@lru_cache(256)
def _members(byte_set: int) -> tuple[int, ...]:
    return tuple([byte for byte in range(256) if byte_set >> byte & 1])


def _with_bits(byte_set: int, bits: int) -> int:
    """Return the set of the same bytes with any of some bits, which they do not have."""
    for place in range(8):
        if bits >> place & 1:
            byte_set |= byte_set << (1 << place)
    return byte_set


@lru_cache(256)
def _with(byte_set: int, bits: int, value: int) -> int:
    """Return those bytes of a set that have a value in some bits."""
    return _set_of(byte for byte in _members(byte_set) if byte & bits == value)


@lru_cache(256)
def _common_bits(byte_set: int) -> tuple[int, int]:
    """Return the bits that all bytes of a set have, and those that none of them has."""
    ones, zeros = 0xFF, 0xFF
    for byte in _members(byte_set):
        ones &= byte
        zeros &= ~byte
    return ones, zeros


def _bits_of(byte_set: int, among: int) -> tuple[int, int]:
    """Return the bits that vary in a larger set and not in this one, and their values here."""
    ones, zeros = _common_bits(byte_set)
    all_ones, all_zeros = _common_bits(among)
    bits = (ones | zeros) & ~(all_ones | all_zeros)
    return bits, ones & bits
