"""The shapes that `guess` tries, and the chains of frames that they give.

A *chain* is the positions of the frames that a shape gives when it is followed from frame to frame.
Most shapes break after a few frames. A new kind of length field needs one entry in `_CHAINS`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .._check import Check
from ..codec import Codec
from ..errors import FrameError

__all__ = ["MARKED_KINDS", "Chain", "Shape", "all_chains", "codec_chain"]

LONGEST_CHAIN = 256  # frames
_FEWEST = 4  # frames; with fewer, nothing can be said
_LARGEST = 64 * 1024 * 1024  # bytes of a frame
_LONGEST_LINE = 64 * 1024  # bytes up to an end mark

# Kinds whose frames end with a mark and have no length.
MARKED_KINDS = ("delimiter", "cobs")

Order = Literal["big", "little"]


@dataclass(frozen=True, slots=True)
class Chain:
    """Frames one after the other.

    Attributes:
        shape: What gives them.
        starts: The position of each frame's first byte, and of the byte after the last frame.
    """

    shape: Shape
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A length field and its place, as the arguments of a constructor.

    Attributes:
        kind: The constructor's name.
        arguments: Its own arguments.
        offset: Where the length field starts in a frame.
        adjustment: The bytes after the field are its value times the unit and this many.
        unit: Bytes that the field counts in.
        width: Bytes of the field; 0 if they vary.
        mask: The bits of the field that hold the length; 0 for all.
    """

    kind: str
    arguments: tuple[tuple[str, Any], ...]
    offset: int = 0
    adjustment: int = 0
    unit: int = 1
    width: int = 0
    mask: int = 0

    def codec(self, magic: bytes = b"", trailer: bytes = b"", check: Check | None = None) -> Codec:
        """Return the codec with this shape.

        Args:
            magic: Constant first bytes, at most as many as there are before the length field.
            trailer: Constant last bytes.
            check: A checksum between the message and the trailer.

        Raises:
            ValueError: There is no such codec.
        """
        parameters: dict[str, Any] = dict(self.arguments)
        if magic:
            parameters["magic"] = magic
        if trailer:
            parameters["trailer"] = trailer
        if check is not None:
            parameters["check"] = check
        if self.kind in MARKED_KINDS:
            return self._make(parameters)
        if self.offset != len(magic):
            parameters["length_offset"] = self.offset
        if self.width and self.adjustment == -(self.offset + self.width) and self.unit == 1:
            parameters["length_includes"] = "frame"
        elif adjustment := self.adjustment - len(trailer) - (check.width if check else 0):
            parameters["length_adjustment"] = adjustment
        if self.unit != 1:
            parameters["length_unit"] = self.unit
        if self.mask:
            parameters["length_mask"] = self.mask
        return self._make(parameters)

    def _make(self, parameters: dict[str, Any]) -> Codec:
        make: Callable[..., Codec] = getattr(Codec, self.kind)
        return make(**parameters)


# --- chains of a codec ----------------------------------------------------------------------------


def codec_chain(codec: Codec, data: bytes, start: int, size: int) -> tuple[int, ...] | None:
    """Return the chain of any codec in the first `size` bytes from `start`; None if it breaks."""
    if codec.parameters.get("skip_empty"):
        return _chain_without_empty_frames(codec, data, start, size)
    splitter = codec.splitter(raw=True)
    starts = [start]
    stop = min(len(data), start + size)
    for at in range(start, stop, 65536):
        try:
            frames = splitter.feed(data[at : min(at + 65536, stop)])
        except Exception:  # a bad frame, or what a user's function raises
            return None
        for frame in frames:
            starts.append(starts[-1] + len(frame))
            if len(starts) > LONGEST_CHAIN:
                return tuple(starts)
        if splitter.error is not None:
            return None
    return tuple(starts) if len(starts) > _FEWEST else None


def _chain_without_empty_frames(
    codec: Codec, data: bytes, start: int, size: int
) -> tuple[int, ...] | None:
    """Return the chain of a codec that delivers no empty frame: they belong to the next one."""
    splitter = codec.splitter(one_at_a_time=True)
    starts = [start]
    size = min(size, LONGEST_CHAIN * _LONGEST_LINE // 64)
    chunk = memoryview(data)[start : start + size]
    try:
        while splitter.feed(chunk) and len(starts) <= LONGEST_CHAIN:
            starts.append(start + splitter.stream_offset)
            chunk = memoryview(b"")
    except FrameError:
        return None
    return tuple(starts) if len(starts) > _FEWEST else None


# --- chains of lengths ----------------------------------------------------------------------------

# Reads the field at a position: its value and its width; None if it is not a length.
_Reader = Callable[[int], "tuple[int, int] | None"]


def _follow(data: bytes, start: int, shape: Shape, read: _Reader) -> Chain | None:
    """Follow a shape from frame to frame until the end of the data or the longest chain."""
    end, offset, unit, adjustment = len(data), shape.offset, shape.unit, shape.adjustment
    starts, position = [start], start
    while len(starts) <= LONGEST_CHAIN:
        if position + offset >= end:
            break
        field = read(position + offset)
        if field is None:
            return None
        value, width = field
        rest = value * unit + adjustment
        if not 0 <= rest <= _LARGEST:
            return None
        position += offset + width + rest
        if position > end:
            break
        starts.append(position)
    if position != end and len(starts) <= LONGEST_CHAIN and len(starts) < 2 * _FEWEST:
        return None
    return Chain(shape, tuple(starts)) if len(starts) > _FEWEST else None


_BINARY_FIELDS: tuple[tuple[int, Order], ...] = (
    (1, "big"),
    (2, "big"),
    (2, "little"),
    (3, "big"),
    (3, "little"),
    (4, "big"),
    (4, "little"),
    (8, "big"),
    (8, "little"),
)


def _binary_chains(data: bytes, start: int) -> Iterator[Chain]:
    for width, order in _BINARY_FIELDS:
        read = _binary_reader(data, width, order)
        for shape in _binary_shapes(data, start, width, order):
            chain = _follow(data, start, shape, read)
            if chain is not None:
                yield chain


def _binary_shapes(data: bytes, start: int, width: int, order: Order) -> Iterator[Shape]:
    """Yield the shapes of a binary field whose first length is not larger than the data."""
    arguments = (("width", width), ("byteorder", order))
    for offset in range(9 if width == 1 else 33):
        if start + offset + width > len(data):
            return
        first = int.from_bytes(data[start + offset : start + offset + width], order)
        for unit in UNITS:
            if first * unit > len(data):
                continue
            for adjustment in _adjustments(offset, width):
                yield Shape("uint", arguments, offset, adjustment, unit, width)


def _binary_reader(data: bytes, width: int, order: Order, mask: int = -1) -> _Reader:
    from_bytes = int.from_bytes
    last = len(data) - width

    def read(at: int) -> tuple[int, int]:
        if at > last:  # the header is cut off: such a frame is too long
            return 1 << 25, width
        return from_bytes(data[at : at + width], order) & mask, width

    return read


# The bits that hold the length in fields that also hold flags, by the width of the field.
_LENGTH_BITS = {1: (7, 6, 5, 4), 2: (15, 14, 13, 12, 11, 10), 4: (31, 30, 28, 24)}


def _masked_chains(data: bytes, start: int) -> Iterator[Chain]:
    """Yield chains of fields with flags that differ: constant ones are no flags."""
    for width, order in _BINARY_FIELDS:
        for bits in _LENGTH_BITS.get(width, ()):
            mask = (1 << bits) - 1
            read = _binary_reader(data, width, order, mask)
            arguments = (("width", width), ("byteorder", order))
            for offset, adjustment in itertools.product(range(5), (0, -width, 1, 2, 4)):
                shape = Shape("uint", arguments, offset, adjustment, 1, width, mask)
                chain = _follow(data, start, shape, read)
                if chain is None:
                    continue
                fields = (data[at + offset : at + offset + width] for at in chain.starts[:-1])
                if len({int.from_bytes(field, order) & ~mask for field in fields}) > 1:
                    yield chain


# The length in frames that count words instead of bytes.
UNITS: tuple[int, ...] = (1, 2, 4) if "length_unit" in Codec.uint().parameters else (1,)


def _adjustments(offset: int, width: int) -> list[int]:
    """Return the numbers of bytes by which a length differs from the bytes after it."""
    own = {0, -width, -offset, -(offset + width)}
    if offset <= 8 and width > 1:
        own.update(range(1, 25), range(-(offset + width), 0))
    else:
        own.update((1, 2, 3, 4, 8, 12, 16, 20))
    return sorted(own, key=abs)


def _digits_chains(data: bytes, start: int) -> Iterator[Chain]:
    for base, pattern in ((10, rb"[0-9]+"), (16, rb"[0-9a-fA-F]+")):
        digits = re.compile(pattern)
        for shape in _digits_shapes(data, start, base, digits):
            read = _digits_reader(data, shape.width, base, digits)
            chain = _follow(data, start, shape, read)
            if chain is not None:
                yield chain


def _digits_shapes(
    data: bytes, start: int, base: int, digits: re.Pattern[bytes]
) -> Iterator[Shape]:
    """Yield the shapes of a field of digits that are in the first frame, of every width."""
    for offset in range(17):
        first = digits.match(data, start + offset, start + offset + 10)
        if first is None:
            continue
        for width in range(1, len(first[0]) + 1):
            arguments = (("width", width), ("base", base))
            own = {0, -width, -offset, -(offset + width), 1, 2, 3, 4}
            for adjustment in sorted(own, key=abs):
                yield Shape("digits", arguments, offset, adjustment, 1, width)


def _digits_reader(data: bytes, width: int, base: int, digits: re.Pattern[bytes]) -> _Reader:
    def read(at: int) -> tuple[int, int] | None:
        found = digits.match(data, at, at + width)
        if found is None or (len(found[0]) < width and at + width <= len(data)):
            return None
        return int(found[0], base), width

    return read


def _varint_chains(data: bytes, start: int) -> Iterator[Chain]:
    def read(at: int) -> tuple[int, int] | None:
        value = shift = 0
        for place in range(at, min(at + 5, len(data))):
            byte = data[place]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return None if byte == 0 and place > at else (value, place - at + 1)
        return None if at + 5 <= len(data) else (1 << 25, 5)

    for offset in range(9):
        for adjustment in (0, 1, 2, 4):
            shape = Shape("varint", (), offset, adjustment)
            chain = _follow(data, start, shape, read)
            if chain is not None:
                yield chain


_TEXT = re.compile(rb"([^0-9A-Za-z]{0,4}?)([0-9a-fA-F]{1,10})((?:\r\n|[^0-9A-Za-z])[^0-9A-Za-z]?)")


def _text_chains(data: bytes, start: int) -> Iterator[Chain]:
    first = _TEXT.match(data, start)
    if first is None:
        return
    marks = {first[3], first[3][:1], first[3][:2]}
    for end in sorted(marks, key=len):
        for base, digits in ((10, rb"(?:0|[1-9][0-9]{0,9})"), (16, rb"[0-9a-fA-F]{1,10}")):
            field = re.compile(digits + re.escape(end))

            def read(
                at: int, field: re.Pattern[bytes] = field, end: bytes = end, base: int = base
            ) -> tuple[int, int] | None:
                found = field.match(data, at)
                if found is None:
                    return (1 << 25, 1) if at + 16 > len(data) else None
                return int(found[0][: -len(end)], base), len(found[0])

            for adjustment in (0, 1, 2, 3):
                shape = Shape("text", (("end", end), ("base", base)), len(first[1]), adjustment)
                chain = _follow(data, start, shape, read)
                if chain is not None:
                    yield chain


_HEADER = re.compile(rb"([A-Za-z][A-Za-z0-9-]{0,40}):[ \t]*([0-9]{1,10})[ \t]*\r\n")


def _headers_chains(data: bytes, start: int) -> Iterator[Chain]:
    block = data[start : start + 8192].partition(b"\r\n\r\n")[0] + b"\r\n"
    for found in _HEADER.finditer(block):
        shape = Shape("headers", (("name", found[1].decode()),))
        starts = codec_chain(shape.codec(), data, start, 1 << 20)
        if starts is not None:
            yield Chain(shape, starts)


_USUAL_MARKS = (b"\n", b"\r\n", b"\r", b"\0", b"\x03", b"\x1c\r")


def _marked_chains(data: bytes, start: int) -> Iterator[Chain]:
    """Yield the chains of the usual end marks, and of those that the capture ends with."""
    counts = {mark: data.count(mark) for mark in (*_USUAL_MARKS, data[-1:], data[-2:]) if mark}
    for mark, count in counts.items():
        if any(mark in other and mark != other and counts[other] == count for other in counts):
            continue  # it is a part of a longer mark
        starts = [start]
        while len(starts) <= LONGEST_CHAIN:
            stop = data.find(mark, starts[-1], starts[-1] + _LONGEST_LINE)
            if stop < 0:
                break
            starts.append(stop + len(mark))
        if len(starts) > _FEWEST:
            yield Chain(Shape("delimiter", (("end", mark),)), tuple(starts))


_CHAINS: tuple[Callable[[bytes, int], Iterator[Chain]], ...] = (
    _headers_chains,
    _text_chains,
    _digits_chains,
    _varint_chains,
    _binary_chains,
    _masked_chains,
    _marked_chains,
)


def all_chains(data: bytes, start: int) -> Iterator[Chain]:
    """Yield the chains of all shapes that do not break.

    Args:
        data: The capture.
        start: The position of the first frame.
    """
    for chains in _CHAINS:
        yield from chains(data, start)
