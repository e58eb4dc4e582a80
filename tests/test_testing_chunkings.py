"""`chunkings`: all ways to cut a few bytes, many ways to cut more."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from framecodec.testing import chunkings


@pytest.mark.parametrize("size", range(11))
def test_chunkings_of_a_few_bytes_are_all_there_are(size: int) -> None:
    data = bytes(range(size))
    ways = [*chunkings(data)]
    assert len(ways) == 2 ** max(0, size - 1)
    assert len({tuple(way) for way in ways}) == len(ways)
    assert all(b"".join(way) == data and b"" not in way for way in ways)
    counts = [len(way) for way in ways]
    assert counts == sorted(counts)  # from the fewest cuts to the most


def test_chunkings_of_14_bytes_are_all_and_of_15_a_choice() -> None:
    assert sum(1 for _ in chunkings(bytes(14))) == 2**13
    assert sum(1 for _ in chunkings(bytes(15))) < 2**13


def test_chunkings_of_more_bytes_are_no_cut_single_bytes_single_cuts_and_random_cuts() -> None:
    data = bytes(range(200))
    ways = [*chunkings(data)]
    assert all(b"".join(way) == data and b"" not in way for way in ways)
    assert ways[0] == [data]
    assert ways[1] == [bytes([byte]) for byte in data]
    assert ways[2:201] == [[data[:pos], data[pos:]] for pos in range(1, 200)]
    assert len(ways) == 2 + 199 + 50
    assert len({len(way) for way in ways[201:]}) > 10  # cuts of several scales


def test_chunkings_are_repeatable_by_their_seed() -> None:
    data = bytes(100)
    first = [*chunkings(data, seed=1)]
    assert [*chunkings(data, seed=1)] == first
    assert [*chunkings(data, seed=2)] != first


@pytest.mark.parametrize("size", [0, 1, 5, 14, 15, 16, 40, 500])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 10, 60, 10_000])
def test_chunkings_keep_a_limit(size: int, limit: int) -> None:
    data = bytes(range(256)) * 2
    data = data[:size]
    ways = [*chunkings(data, limit=limit)]
    assert len(ways) == min(limit, sum(1 for _ in chunkings(data)))
    assert all(b"".join(way) == data for way in ways)
    if limit >= 2 and size > 2:
        lengths = [len(way) for way in ways]
        assert 1 in lengths
        assert size in lengths
    if size == 500 and limit == 60:
        assert sum(len(way) == 2 for way in ways) >= 20
        assert sum(2 < len(way) < size for way in ways) >= 20


def test_chunkings_are_made_when_they_are_asked_for() -> None:
    ways = chunkings(bytes(10_000_000))
    assert len(next(ways)) == 1
    short = chunkings(bytes(14))
    assert len([*itertools.islice(short, 14)]) == 14


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
def test_chunkings_take_any_bytes_like_object(convert: Any) -> None:
    data = convert(b"abc")
    assert [*chunkings(data)] == [
        [b"abc"],
        [b"a", b"bc"],
        [b"ab", b"c"],
        [b"a", b"b", b"c"],
    ]
    assert all(type(chunk) is bytes for way in chunkings(data) for chunk in way)


def test_chunkings_refuse_invalid_arguments_at_once() -> None:
    with pytest.raises(ValueError, match="limit must be 0 or more, or None, not -1"):
        chunkings(b"abc", limit=-1)
    with pytest.raises(TypeError):
        chunkings(b"abc", limit=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        chunkings("abc")  # type: ignore[arg-type]
