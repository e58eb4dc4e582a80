"""`guess`: the codecs that explain a capture, with the evidence for them.

How it works
    1. Many shapes are followed from frame to frame through the first frames (`shapes`); nearly all
       of them break at once. The codecs of the catalogue are tried as well.
    2. Shapes with the same frame boundaries are one *framing*. `evidence` says how many bits the
       boundaries save in the description of the capture; a framing must save more than chance can.
    3. In a framing the codecs are put in order: names of the catalogue whose frames look as that
       protocol's, then simpler shapes before others. Bytes that are constant at the beginning and
       end of all frames can be a magic and a trailer.
    4. The best codecs are run over the whole capture, to count frames and the bytes left.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING

from ..catalogue import Format, formats
from ..codec import Codec
from ..errors import FrameError
from .checks import checked_codecs
from .evidence import Background, columns_gain, survival_bits, text_bits
from .known import PREFACES, sign, sign_bits
from .shapes import MARKED_KINDS, Shape, all_chains, codec_chain

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Guess", "guess"]

_SAMPLE = 128 * 1024  # bytes for the statistics
_CATALOGUE_SAMPLE = 64 * 1024 * 1024  # bytes for the codecs of the catalogue
_THRESHOLD = 18.0  # bits that a framing must save beyond its own description
_RIVAL = 0.5  # of the best framing's bits; a framing with less is not mentioned
_FRAMINGS = 4
_FULLY_TRIED = 24  # framings; others look worse at a quick look, and are not in the catalogue
_SHAPES_WITH_CHECKS = 8
_CUT_SHARE = 0.5  # of the bits of columns that count for a mark: fields are cut as well as frames
_CODED_BONUS = 3.0  # of codecs that also verify how the content is coded
_CHECK_BONUS = 20.0  # of a codec whose checksum is right in every frame
_QUICK_COLUMNS = 10
_QUICK_FRAMES = 48


@dataclass(frozen=True, slots=True)
class Guess:
    """A codec that explains a capture.

    Attributes:
        codec: The codec.
        names: The formats of the catalogue with this shape, the likeliest first.
        frames: The number of whole frames.
        offset: The position of the first frame; other bytes can come before it.
        explained: Bytes in whole frames.
        left: Bytes after the last whole frame.
        bits: How many bits shorter the capture is described with these frames than without. The
            chance that bytes without frames look like this is about 2 ** -bits.
        complete: Whether the capture ends with a frame's last byte.
    """

    codec: Codec
    names: tuple[str, ...]
    frames: int
    offset: int
    explained: int
    left: int
    bits: float
    complete: bool


def guess(data: Buffer, /, *, limit: int = 10) -> list[Guess]:
    """Return the codecs that explain a capture, best first.

    It is a guess: frames whose length fields do not differ from other bytes are not found, and
    several codecs can explain the same bytes.

    Args:
        data: What one end of a connection received, from a frame's first byte on; at least four
            frames. A capture of a known protocol can begin with that protocol's greeting.
        limit: How many codecs are returned at most.

    Returns:
        The guesses; none if nothing explains the bytes better than chance.

    Raises:
        TypeError, BufferError: `data` is not a contiguous bytes-like object.
    """
    capture = bytes(memoryview(data).cast("B")) if not isinstance(data, bytes) else data
    found = [framings for start in _beginnings(capture) if (framings := _framings(capture, start))]
    best = max(found, key=lambda framings: framings[0].bits, default=[])
    return _guesses(capture, best, limit)


def _beginnings(data: bytes) -> Iterator[int]:
    """Yield where the first frame can be: at the first byte, or after a known greeting."""
    yield 0
    for preface in PREFACES:
        found = preface.match(data)
        if found is not None:
            yield found.end()


# --- framings -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Framing:
    """Frame boundaries, and all shapes that give them."""

    starts: tuple[int, ...]
    shapes: list[Shape]
    rows: list[Format]
    bits: float = 0.0

    def mark_size(self) -> int:
        """Return the bytes at the end of each frame that made these boundaries; 0 for lengths."""
        if not self.shapes or any(shape.kind not in MARKED_KINDS for shape in self.shapes):
            return 0
        return min(len(dict(shape.arguments)["end"]) for shape in self.shapes)


def _framings(data: bytes, start: int) -> list[_Framing]:
    """Return the framings that chance does not explain, best first."""
    found: dict[tuple[int, ...], _Framing] = {}
    for chain in all_chains(data, start):
        _framing_of(found, chain.starts).shapes.append(chain.shape)
    rows: dict[tuple[object, ...], list[Format]] = {}
    for row in formats.table():
        rows.setdefault(_key(row.codec), []).append(row)
    for same in rows.values():
        starts = codec_chain(same[0].codec, data, start, _CATALOGUE_SAMPLE)
        if starts is None:
            continue
        if same[0].codec.kind in MARKED_KINDS:  # any text has lines
            same = [row for row in same if sign(row.name, data, starts) is not False]
        _framing_of(found, starts).rows.extend(same)
    background = Background(data[start : start + _SAMPLE])
    candidates = list(found.values())
    if len(candidates) > _FULLY_TRIED:
        for framing in candidates:
            quick = framing.starts[: _QUICK_FRAMES + 1]
            mark = framing.mark_size()
            framing.bits = columns_gain(data, quick, background, _QUICK_COLUMNS, mark)
        candidates.sort(
            key=lambda framing: (not (framing.rows or framing.mark_size()), -framing.bits)
        )
        del candidates[_FULLY_TRIED:]
    for framing in candidates:
        framing.bits = _bits(data, framing, background)
    candidates = [framing for framing in candidates if framing.bits > _THRESHOLD]
    candidates.sort(key=lambda framing: -framing.bits)
    return [f for f in candidates[:_FRAMINGS] if f.bits >= _RIVAL * candidates[0].bits]


def _framing_of(found: dict[tuple[int, ...], _Framing], starts: tuple[int, ...]) -> _Framing:
    return found.setdefault(starts, _Framing(starts, [], []))


def _key(codec: Codec) -> tuple[object, ...]:
    """Return what decides a codec's frames: all but its limit and the sign of its field."""
    parameters = dict(codec.parameters)
    parameters.pop("max_message_size", None)
    parameters.pop("signed", None)
    if parameters.get("byteorder") == "native":
        import sys

        parameters["byteorder"] = sys.byteorder
    kind = codec.kind
    if kind == "struct" and (same := _struct_as_uint(codec)) is not None:
        return _key(same)
    return kind, *((name, _hashable(value)) for name, value in sorted(parameters.items()))


def _hashable(value: object) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _struct_as_uint(codec: Codec) -> Codec | None:
    """Return the codec of `uint` that reads the same frames as one of `struct`."""
    import struct

    parameters = dict(codec.parameters)
    fmt = parameters.pop("fmt")
    try:
        width = struct.calcsize(fmt)
        order = "little" if struct.pack(fmt, 1)[0] else "big"
        return Codec.uint(width, order, **parameters)  # type: ignore[arg-type]
    except (struct.error, TypeError, ValueError):
        return None


def _bits(data: bytes, framing: _Framing, background: Background) -> float:
    codecs = [row.codec for row in framing.rows] + [shape.codec() for shape in framing.shapes[:1]]
    marked = [codec for codec in codecs if codec.kind in MARKED_KINDS]
    counted = [codec for codec in codecs if codec.kind not in MARKED_KINDS]
    if marked:
        bits = max(_mark_bits(data, framing.starts, background, codec) for codec in marked)
    else:
        bits = columns_gain(data, framing.starts, background)
    if counted:
        bits = max(bits, survival_bits(data, framing.starts, counted[0]) - 1.0)
    frames = len(framing.starts) - 1
    if framing.starts[-1] == len(data):  # a chain by chance ends anywhere
        bits += log2((framing.starts[-1] - framing.starts[0]) / frames)
    simplest = min((_description(shape) for shape in framing.shapes), default=12.0)
    return bits - (min(6.0, simplest) if framing.rows else simplest)


def _mark_bits(data: bytes, starts: tuple[int, ...], background: Background, codec: Codec) -> float:
    """Return the bits of frames that end with a mark: any bytes can be cut at a mark."""
    mark = b"\0" if codec.kind == "cobs" else codec.parameters["end"]
    text = text_bits(data, starts, mark)
    if text is not None:
        return text
    bits = _CUT_SHARE * columns_gain(data, starts, background, mark=len(mark))
    if codec.kind == "cobs" or codec.parameters["magic"]:  # they verify more than the mark
        bits = max(bits, survival_bits(data, starts, codec))
    if codec.kind == "cobs":
        return bits
    used = data[starts[0] : starts[-1]]
    escapes = sum(used.count(value[:1]) for value in (codec.parameters["escape"] or {}).values())
    return max(bits, 6.0 * min(10, escapes))


def _description(shape: Shape) -> float:
    """Return the bits that it takes to name a shape."""
    if shape.kind in MARKED_KINDS:
        return 8.0
    bits = 5.0 + 1.5 * log2(1 + shape.offset) + (4.0 if shape.mask else 0.0)
    own_size = shape.offset + shape.width
    if shape.adjustment not in (0, -own_size):
        bits += 2.0 if shape.adjustment == -shape.width else 3.0 + log2(1 + abs(shape.adjustment))
    return bits + (2.0 if shape.unit != 1 else 0.0)


# --- codecs of a framing --------------------------------------------------------------------------


def _guesses(data: bytes, framings: list[_Framing], limit: int) -> list[Guess]:
    guesses: list[Guess] = []
    seen = set()
    for framing in framings:
        for codec, names in _codecs(data, framing):
            key = _key(codec)
            if key in seen:
                continue
            seen.add(key)
            found = _count(data, framing, codec, names)
            if found is not None:
                guesses.append(found)
            if len(guesses) >= limit:
                return guesses
    return guesses


def _codecs(data: bytes, framing: _Framing) -> Iterator[tuple[Codec, tuple[str, ...]]]:
    """Yield the codecs of a framing and their names in the catalogue, the likeliest first."""
    ranked: list[tuple[float, Codec, tuple[str, ...]]] = []
    known = set()
    by_key: dict[tuple[object, ...], list[Format]] = {}
    for row in framing.rows:
        by_key.setdefault(_key(row.codec), []).append(row)
    for key, rows in by_key.items():
        known.add(key)
        signs = {row.name: sign(row.name, data, framing.starts) for row in rows}
        rows.sort(key=lambda row: {True: 0, None: 1, False: 2}[signs[row.name]])
        cost = _codec_cost(rows[0].codec) - 4.0 - 3.5 * min(3, _constant_bytes(rows[0].codec))
        best = signs[rows[0].name]
        if best is not None:
            cost += -_sign_bonus(rows[0].name, data, framing.starts) if best else 2.0
        if rows[0].codec.kind == "cobs" or rows[0].codec.parameters.get("escape"):
            cost -= _CODED_BONUS
        if rows[0].codec.parameters.get("check"):
            cost -= _CHECK_BONUS
        codec = rows[0].codec if best or len(rows) == 1 else _plainest(rows)
        ranked.append((cost, codec, tuple(row.name for row in rows)))
    prefix, suffix = _constants(data, framing.starts)
    for shape in framing.shapes:
        for magic, trailer in _owned(shape, prefix, suffix):
            codec = shape.codec(magic, trailer)
            if _key(codec) not in known:
                ranked.append((_codec_cost(codec) - 1.5 * len(trailer), codec, ()))
    shapes = sorted(framing.shapes, key=_description)[:_SHAPES_WITH_CHECKS]
    if any(shape.kind != "cobs" for shape in shapes):
        for codec in checked_codecs(data, framing.starts, shapes, prefix):
            ranked.append((_codec_cost(codec) - _CHECK_BONUS, codec, ()))
    ranked.sort(key=lambda entry: entry[0])
    for _, codec, names in ranked[:12]:
        yield codec, names


def _constant_bytes(codec: Codec) -> int:
    """Return how many bytes of each frame a codec verifies."""
    constants = codec.parameters.get("constants") or {}
    return len(codec.parameters.get("magic") or b"") + sum(map(len, constants.values()))


def _sign_bonus(name: str, data: bytes, starts: tuple[int, ...]) -> float:
    """Return how much a sign that all frames have says: more if other positions do not have it."""
    return 2.0 + min(3.0, sign_bits(name, data, starts) / 3.0)


def _plainest(rows: list[Format]) -> Codec:
    return min((row.codec for row in rows), key=lambda codec: len(repr(codec)))


def _owned(shape: Shape, prefix: bytes, suffix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the magics and trailers that constant bytes around all frames can be."""
    magics = {prefix[: shape.offset], b""}
    trailers = {b""}
    for size in range(1, min(len(suffix), max(0, shape.adjustment), 3) + 1):
        trailers.add(suffix[-size:])
    for magic in magics:
        for trailer in trailers:
            yield magic, trailer


def _constants(data: bytes, starts: tuple[int, ...]) -> tuple[bytes, bytes]:
    """Return the bytes with which all frames begin, and those with which all end."""
    frames = [data[start:stop] for start, stop in itertools.pairwise(starts)]
    prefix, suffix = frames[0][:32], frames[0][-4:]
    for frame in frames:
        while not frame.startswith(prefix):
            prefix = prefix[:-1]
        while not frame.endswith(suffix):
            suffix = suffix[1:]
    return prefix, suffix


def _codec_cost(codec: Codec) -> float:
    """Return how far-fetched a codec is: the less, the likelier."""
    parameters = codec.parameters
    magic = parameters.get("magic") or b""
    offset = parameters.get("length_offset")
    lead = 0 if offset is None else offset - len(magic)
    cost = 1.2 * lead + 0.5 * len(magic)
    if magic and not magic.strip(b"\0"):
        cost += 3.0
    adjustment = parameters.get("length_adjustment") or 0
    width = parameters.get("width") or 0
    if adjustment:
        is_mask = abs(adjustment) >= 1 << 16  # a flag in the field, which is always set
        near = adjustment == -width or is_mask
        cost += 1.5 if near else 3.0 + log2(1 + abs(adjustment))
    if parameters.get("length_includes") == "frame":
        cost += 0.5
    if parameters.get("length_mask"):
        cost += 2.0
    if codec.kind == "choice":  # many alternatives explain anything
        cost += 1.0 + 2.0 * log2(len(codec.layout.choice.layouts))
    if codec.kind == "custom":
        cost += 1.0
    if codec.kind == "struct":
        cost -= 2.4
    if codec.kind in ("uint", "digits"):  # zeros that a wider field explains
        cost -= 0.6 * min(4, width)
    return cost + (0.5 if parameters.get("base") == 16 else 0.0)


def _count(data: bytes, framing: _Framing, codec: Codec, names: Iterable[str]) -> Guess | None:
    start = framing.starts[0]
    try:
        spans = codec.scan(memoryview(data)[start:], raw=True)
        frames, explained = len(spans), spans.consumed
    except (FrameError, ValueError, TypeError):
        return None
    left = len(data) - start - explained
    sample = framing.starts[-1] - start
    if explained < sample:
        return None
    return Guess(
        codec, tuple(names), frames, start, explained, left, round(framing.bits, 1), left == 0
    )
