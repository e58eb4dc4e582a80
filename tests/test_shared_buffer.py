"""Splitters that share what `get_room` gives, as the connections of one event loop do."""

from __future__ import annotations

import random
import sys
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError

CODEC = Codec.uint(4)

pytestmark = pytest.mark.skipif(
    not hasattr(sys, "getrefcount"), reason="the Python engine shares nothing without it"
)


def two_splitters(engine: ModuleType, **options: Any) -> tuple[Any, Any, list[Any]]:
    spare: list[Any] = [None]
    pair = engine.Splitter(CODEC, **options), engine.Splitter(CODEC, **options)
    for splitter in pair:
        splitter._share_buffer(spare)
    return *pair, spare


def read(splitter: Any, data: bytes) -> list[Any]:
    buffer = splitter.get_room(1024)
    buffer[: len(data)] = data
    messages: list[Any] = splitter.buffer_updated(len(data))
    return messages


def test_splitters_that_read_by_turns_use_the_same_memory(engine: ModuleType) -> None:
    first, second, spare = two_splitters(engine)
    assert read(first, CODEC.encode(b"one")) == [b"one"]
    memory = id(spare[0].obj)
    assert read(second, CODEC.encode(b"two")[:5]) == []
    assert id(spare[0].obj) == memory
    assert read(first, CODEC.encode(b"three")) == [b"three"]
    assert read(second, CODEC.encode(b"two")[5:]) == [b"two"]
    assert id(spare[0].obj) == memory


def test_memory_that_is_being_read_into_belongs_to_one_splitter(engine: ModuleType) -> None:
    first, second, spare = two_splitters(engine)
    read(first, b"")
    ours, theirs = first.get_room(), second.get_room()
    assert ours.obj is not theirs.obj
    assert spare == [None]
    ours[:5], theirs[:5] = CODEC.encode(b"a"), CODEC.encode(b"b")
    assert first.buffer_updated(5) == [b"a"]
    assert second.buffer_updated(5) == [b"b"]


@pytest.mark.parametrize("part", [False, True])
def test_memory_of_which_a_view_is_kept_goes_to_no_other_splitter(
    engine: ModuleType, part: bool
) -> None:
    first, second, _ = two_splitters(engine)
    data = CODEC.encode(b"hello")
    given = first.get_room()
    kept = given[: len(data)] if part else memoryview(given)
    given[: len(data)] = data
    assert first.buffer_updated(len(data)) == [b"hello"]
    seen = bytes(kept[: len(data)])
    assert read(second, CODEC.encode(b"other")) == [b"other"]
    assert read(first, CODEC.encode(b"third")) == [b"third"]
    assert bytes(kept[: len(data)]) == seen == data


def test_memory_that_was_read_into_is_withdrawn(engine: ModuleType) -> None:
    first, *_ = two_splitters(engine)
    given = first.get_room()
    first.buffer_updated(0)
    with pytest.raises(ValueError, match="released"):
        given[0] = 1


def test_memory_of_a_splitter_that_fails_is_shared_again(engine: ModuleType) -> None:
    first, second, spare = two_splitters(engine)
    with pytest.raises(FrameError):
        read(first, b"\xff" * 8)
    memory = id(spare[0].obj)
    assert read(second, CODEC.encode(b"two")) == [b"two"]
    assert id(spare[0].obj) == memory
    with pytest.raises(FrameError):
        first.get_room()
    assert id(spare[0].obj) == memory


def test_buffers_of_get_buffer_are_not_shared(engine: ModuleType) -> None:
    first, second, spare = two_splitters(engine)
    read(second, b"")
    memory = id(spare[0].obj)
    given = first.get_buffer()
    assert id(given.obj) != memory
    given[:5] = CODEC.encode(b"a")
    assert first.buffer_updated(5) == [b"a"]
    assert id(spare[0].obj) == memory


@pytest.mark.parametrize("seed", range(6))
def test_no_stream_gets_bytes_of_another(engine: ModuleType, seed: int) -> None:
    rng = random.Random(seed)
    spare: list[Any] = [None]
    streams = []
    for fill in b"abcde":
        splitter = engine.Splitter(CODEC)
        splitter._share_buffer(spare)
        sizes = [rng.choice((0, 3, 900, 5000, 70_000, 300_000)) for _ in range(8)]
        messages = [bytes([fill]) * size for size in sizes]
        streams.append((splitter, CODEC.encode_many(messages), messages, [0], []))
    kept: list[tuple[memoryview, bytes]] = []
    left = list(streams)
    while left:
        stream = rng.choice(left)
        splitter, data, _, pos, got = stream
        way = rng.randrange(5)
        size = min(rng.choice((1, 700, 3000, 70_000)), len(data) - pos[0])
        if way == 0:
            splitter.get_room(size)  # and nothing has come
            got += splitter.feed(data[pos[0] : pos[0] + size])
        else:
            buffer = (splitter.get_buffer if way == 1 else splitter.get_room)(size)
            size = min(size, len(buffer))
            buffer[:size] = data[pos[0] : pos[0] + size]
            if way == 2:
                kept.append((buffer[:size], data[pos[0] : pos[0] + size]))
            got += splitter.buffer_updated(size)
            del buffer
        pos[0] += size
        if pos[0] == len(data):
            left.remove(stream)
    for _, _, messages, _, got in streams:
        assert got == messages
    assert len(kept) > 3
