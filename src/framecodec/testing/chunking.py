"""Ways to cut a byte string into chunks, as a network may cut a stream."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["chunkings"]

# 14 bytes have 2 ** 13 chunkings, few enough to try each of them.
_LARGEST_COMPOSED = 14
_RANDOM_COUNT = 50
_LARGEST_CHUNKS = (2, 5, 17, 90, 1000, 70_000)  # bytes, for random cuts of different scales


def chunkings(data: Buffer, *, limit: int | None = None, seed: int = 0) -> Iterator[list[bytes]]:
    """Return an iterator over ways to cut a byte string into chunks.

    Up to 14 bytes these are all ways, from the fewest cuts to the most. For longer data they are:
    no cut, one byte at a time, every single cut, and 50 ways with random cuts.

    Args:
        data: A contiguous bytes-like object.
        limit: The largest number of ways; None for no limit. A limited choice has the first two
            ways above and a random sample of the others.
        seed: A number that determines the random cuts and the random sample.

    Returns:
        An iterator that makes each way when it is asked for: a list of chunks, `bytes` that are not
        empty. Joined they are the data.

    Raises:
        ValueError: `limit` is negative.
        TypeError: `data` is not a contiguous bytes-like object, or `limit` is not an int.
    """
    whole = data if type(data) is bytes else bytes(memoryview(data).cast("B"))
    if limit is not None:
        limit = operator.index(limit)
        if limit < 0:
            raise ValueError(f"limit must be 0 or more, or None, not {limit}")
    rng = random.Random(f"chunkings {seed}")
    ways = _compositions if len(whole) <= _LARGEST_COMPOSED else _samples
    return itertools.islice(ways(whole, limit, rng), limit)


def cut(data: bytes, positions: tuple[int, ...]) -> list[bytes]:
    """Return the chunks between the positions, which are in order and inside the data."""
    marks = [0, *positions, len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(marks) if start < stop]


def _compositions(data: bytes, limit: int | None, rng: random.Random) -> Iterator[list[bytes]]:
    places = range(1, len(data))
    count = 1 << len(places)
    if limit is None or limit >= count:
        for cuts in range(len(places) + 1):
            for positions in itertools.combinations(places, cuts):
                yield cut(data, positions)
        return
    yield cut(data, ())
    yield cut(data, tuple(places))
    others = rng.sample(range(1, count - 1), max(0, min(limit, count) - 2))
    for marks in others:  # pragma: no branch (the caller takes no more than the limit)
        yield cut(data, tuple(place for place in places if marks >> (place - 1) & 1))


def _samples(data: bytes, limit: int | None, rng: random.Random) -> Iterator[list[bytes]]:
    yield cut(data, ())
    yield [data[pos : pos + 1] for pos in range(len(data))]
    places = range(1, len(data))
    singles, randoms = len(places), _RANDOM_COUNT
    if limit is not None and limit < 2 + singles + randoms:
        others = max(0, limit - 2)
        singles = min(singles, max(others // 2, others - randoms))
        randoms = others - singles
    for place in places if singles == len(places) else sorted(rng.sample(places, singles)):
        yield cut(data, (place,))
    scales = [scale for scale in _LARGEST_CHUNKS if scale < len(data)]
    for _ in range(randoms):
        largest, chunks, start = rng.choice(scales), [], 0
        while start < len(data):
            stop = start + rng.randint(1, largest)
            chunks.append(data[start:stop])
            start = stop
        yield chunks
