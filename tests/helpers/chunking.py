"""Ways to cut a byte string, and ways to pass the pieces to a splitter.

Unlike `framecodec.testing.chunkings`, most of them have empty pieces too.
"""

from __future__ import annotations

import array
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from framecodec.testing import chunkings

__all__ = [
    "byte_by_byte",
    "compositions",
    "cuts",
    "hand_overs",
    "random_cuts",
    "single_cuts",
]

# 2 ** 11 ways to cut are few enough to try each of them.
LARGEST_COMPOSED = 12


def compositions(data: bytes) -> Iterator[list[bytes]]:
    """Return all ways to cut a few bytes, the uncut one first and byte by byte last."""
    assert len(data) <= 14, "chunkings() gives all ways of 14 bytes at most"
    return chunkings(data) if data else iter([[data]])


def single_cuts(data: bytes) -> Iterator[list[bytes]]:
    """Yield all ways to cut in two, also with an empty piece at either end."""
    for pos in range(len(data) + 1):
        yield [data[:pos], data[pos:]]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[pos : pos + 1] for pos in range(len(data))]


def random_cuts(data: bytes, count: int, seed: int = 0) -> Iterator[list[bytes]]:
    """Yield that many random ways; the largest piece of each way is drawn from several scales."""
    rng = random.Random(seed)
    for _ in range(count):
        largest = rng.choice((2, 5, 17, 90, 1000, 70_000))
        pieces, start = [], 0
        while start < len(data):
            stop = start + rng.randint(0, largest)
            pieces.append(data[start:stop])
            start = stop
        yield pieces


def cuts(data: bytes, *, count: int = 20, seed: int = 0) -> Iterator[list[bytes]]:
    """Yield all ways to cut short data; of other data the single cuts and some random ways."""
    if len(data) <= LARGEST_COMPOSED:
        yield from compositions(data)
        return
    yield [data]
    yield byte_by_byte(data)
    if len(data) <= 400:
        yield from single_cuts(data)
    yield from random_cuts(data, count, seed)


# --- ways to pass a piece -------------------------------------------------------------------------


def by_buffer(splitter: Any, piece: bytes) -> list[Any]:
    """Read into the splitter's buffer as an event loop does, in several steps if it is small."""
    messages: list[Any] = []
    start = 0
    while True:
        with splitter.get_buffer(-1) as view:
            size = min(len(view), len(piece) - start)
            view[:size] = piece[start : start + size]
        messages += splitter.buffer_updated(size)
        start += size
        if start == len(piece) or splitter.error is not None:
            return messages


def _fed_as(convert: Callable[[bytes], Any]) -> Callable[[Any, bytes], list[Any]]:
    return lambda splitter, piece: splitter.feed(convert(piece))


class BytesOfMyOwn(bytes):
    """A subclass, which the engines must not treat as plain `bytes`."""


def _wide(piece: bytes) -> memoryview:
    """Return the bytes as 16-bit numbers in two dimensions, if their number is even."""
    if len(piece) % 2 or not piece:
        return memoryview(piece)
    return memoryview(piece).cast("B", (1, len(piece))).cast("B").cast("H")


hand_overs: dict[str, Callable[[Any, bytes], list[Any]]] = {
    "bytes": lambda splitter, piece: splitter.feed(piece),
    "buffer": by_buffer,
    "bytearray": _fed_as(bytearray),
    "memoryview": _fed_as(memoryview),
    "a slice of a larger view": _fed_as(lambda piece: memoryview(b"<" + piece + b">")[1:-1]),
    "a subclass of bytes": _fed_as(BytesOfMyOwn),
    "an array": _fed_as(lambda piece: array.array("b", piece)),
    "a view of 16-bit numbers": _fed_as(_wide),
    "a numpy array": _fed_as(lambda piece: numpy.frombuffer(piece, "u1")),
    "a big-endian numpy array": _fed_as(
        lambda piece: numpy.frombuffer(piece, ">u2" if len(piece) % 2 == 0 else "u1")
    ),
}
