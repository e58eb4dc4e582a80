"""How much better a capture is explained with frame boundaries than without them, in bits.

The method is that of minimum description length. Without frames, a byte costs what a simple model
of the whole capture says: uniform, by its frequency, or by its frequency after the byte before it,
whichever fits best. With frames, the bytes at the same place of all frames (a *column*: the first
bytes of every frame, the second ones, ... and the last ones) are coded together by an adaptive
code. In a true framing the columns of the header are regular: constants, high bytes of lengths,
types. At wrong boundaries they look like any other bytes, and the adaptive code is no shorter.

By Kraft's inequality a gain of n bits has a chance of about 2 ** -n where there are no frames.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from math import lgamma, log, log2, pi
from operator import add
from typing import Any, Protocol

from .shapes import LONGEST_CHAIN

__all__ = ["Background", "columns_gain", "survival_bits", "text_bits"]

_FIRST_COLUMNS = 24
_LAST_COLUMNS = 3
_COLUMN_PRIOR = 2.0  # bits, for saying that a column is regular
_CONTEXT_WEIGHT = 8.0  # imagined bytes after each byte, distributed as all bytes
_MOST_TEXT_BITS = 60.0
_MOST_UNLIKE = 0.25  # of the lines of a stream of messages that are empty or indented
_POSITIONS = 500  # of which is tried whether a frame begins there
_LN2 = log(2)


class HasSplit(Protocol):
    """The part of a codec that is used here."""

    def split(self, data: memoryview, /) -> tuple[list[Any], int]:
        """Return the messages at the start of a buffer, and how many bytes their frames have."""


class Background:
    """The cost of a byte without knowledge of frames.

    Args:
        sample: The bytes of the capture, or many of its first ones.
    """

    def __init__(self, sample: bytes) -> None:
        singles, pairs = Counter(sample), Counter(itertools.pairwise(sample))
        total = len(sample)
        self._singles = [
            -log2((max(0, singles[byte] - 1) + 0.5) / (total + 127)) for byte in range(256)
        ]
        # Each count leaves out the byte that is coded: else a short capture would explain itself.
        self._pairs = {
            pair: -log2(
                (count - 1 + _CONTEXT_WEIGHT * 2 ** -self._singles[pair[1]])
                / (singles[pair[0]] - 1 + _CONTEXT_WEIGHT)
            )
            for pair, count in pairs.items()
        }
        averages = {
            "uniform": 8.0,
            "singles": sum(self._singles[byte] * n for byte, n in singles.items()) / max(1, total),
            "pairs": sum(self._pairs[pair] * n for pair, n in pairs.items()) / max(1, total - 1),
        }
        self._model = min(averages, key=lambda name: averages[name])
        self.bits_per_byte = averages[self._model]

    def cost(self, before: Sequence[int], column: Sequence[int]) -> float:
        """Return the bits of a column, given the byte before each of its bytes."""
        if self._model == "uniform":
            return 8.0 * len(column)
        if self._model == "singles":
            return sum(self._singles[byte] * n for byte, n in Counter(column).items())
        counted = Counter(zip(before, column, strict=True))
        pairs, singles = self._pairs, self._singles
        return sum(
            pairs.get(pair, singles[pair[1]] + 1.0) * count for pair, count in counted.items()
        )


def columns_gain(
    data: bytes,
    starts: Sequence[int],
    background: Background,
    columns: int = _FIRST_COLUMNS,
    mark: int = 0,
) -> float:
    """Return the bits that frame boundaries save.

    Args:
        data: The capture.
        starts: The position of each frame's first byte, and of the byte after the last frame.
        background: The cost without frames.
        columns: How many first bytes of each frame are looked at.
        mark: Bytes at the end of each frame that are there because the frames were cut by them:
            they prove nothing.
    """
    frames = [(start, stop - mark) for start, stop in itertools.pairwise(starts)]
    gain = 0.0
    for place in range(columns):
        at = [start + place for start, stop in frames if stop - start > place]
        if len(at) < 4:
            break
        gain += _column_gain(data, at, background)
    long = [stop for start, stop in frames if stop - start >= columns + _LAST_COLUMNS]
    if len(long) >= 4:
        for place in range(1, _LAST_COLUMNS + 1):
            gain += _column_gain(data, [stop - place for stop in long], background)
    return gain


def text_bits(data: bytes, starts: Sequence[int], mark: bytes) -> float | None:
    """Return the bits for end marks of a text; None if the frames are no text.

    The marks are the only control characters, except tabs. A document has empty and indented lines;
    a stream of messages has hardly any.

    Args:
        data: The capture.
        starts: The position of each frame's first byte, and of the byte after the last frame.
        mark: The end mark.
    """
    if not mark.isspace() and mark[0] >= 0x20:
        return None
    try:
        text = data[starts[0] : starts[-1]].replace(mark, b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    allowed = "\t\r" if b"\n" in mark else "\t" if b"\r" in mark else "\t\r\n"
    if any(char < " " and char not in allowed for char in text):
        return None
    lines = len(starts) - 1
    unlike = sum(
        stop - start <= len(mark) or data[start] in b" \t"
        for start, stop in itertools.pairwise(starts)
    )
    if unlike > _MOST_UNLIKE * lines:
        return 0.0
    return min(_MOST_TEXT_BITS, 6.0 * (lines - unlike))


def survival_bits(data: bytes, starts: Sequence[int], codec: HasSplit) -> float:
    """Return how unlikely it is that a chain of frames does not break by chance, in bits.

    At a wrong place a frame begins as at any other position of the capture. The share of positions
    at which the codec finds a frame not larger than the largest one is the chance of each step.

    Args:
        data: The capture.
        starts: The position of each frame's first byte, and of the byte after the last frame.
        codec: The codec that gives these frames.
    """
    largest = max(stop - start for start, stop in itertools.pairwise(starts))
    first, last = starts[0], starts[-1]
    step = max(1, (last - first) // _POSITIONS)
    if largest > 65536:
        step *= 8  # each look copies that many bytes
    hits = looks = 0
    for position in range(first, last, step):
        looks += 1
        try:
            hits += bool(codec.split(memoryview(data)[position : position + largest])[0])
        except Exception:  # a bad frame, or what a user's function raises
            continue
    # In a run of equal bytes one step says nothing about the next one, nor if all frames are equal.
    frames = [data[start:stop] for start, stop in itertools.pairwise(starts)]
    steps = sum(frame.count(frame[:1]) < len(frame) for frame in frames)
    steps = min(steps, 1 + 40 * (len(set(frames)) - 1))
    return steps * -log2((hits + 0.5) / (looks + 0.5))


def _column_gain(data: bytes, at: list[int], background: Background) -> float:
    column = [data[place] for place in at]
    before = [data[place - 1] if place else 0 for place in at]
    counts = Counter(column)
    cost = min(_few_values_cost(counts, len(at)), _number_cost(counts, len(at))) + 1.0
    return max(0.0, background.cost(before, column) - cost - _COLUMN_PRIOR)


# The logarithms of gamma functions that the two codes need, for counts up to the longest chain.
_COUNTS = range(LONGEST_CHAIN + 2)
_FEW = [lgamma(count + 1 / 256) - lgamma(1 / 256) for count in _COUNTS]
_WHOLE = [lgamma(count + 1) + log(pi) for count in _COUNTS]
_HALF = [lgamma(count + 0.5) for count in _COUNTS]
_INNER = [whole - half for whole, half in zip(_WHOLE, _HALF, strict=True)]


def _few_values_cost(counts: Counter[int], total: int) -> float:
    """Return the bits of a column by a code that is short for few different values."""
    return (lgamma(total + 1) - sum(map(_FEW.__getitem__, counts.values()))) / _LN2


def _number_cost(counts: Counter[int], total: int) -> float:
    """Return the bits of a column by a code that is short for numbers of similar size.

    A byte is coded bit by bit from the highest one; each bit by what followed the same higher bits
    before (the estimator of Krichevsky and Trofimov).
    """
    level = [0] * 256
    for byte, count in counts.items():
        level[byte] = count
    nats = _WHOLE[total] - sum(map(_HALF.__getitem__, level))
    for _ in range(7):
        level = list(map(add, level[::2], level[1::2]))
        nats += sum(map(_INNER.__getitem__, level))
    return nats / _LN2
