"""get_room: the bytes of a large message are read to where they will be delivered from.

Whatever the caller does with the memory, the messages are right and nothing that was delivered
changes.
"""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec

CODECS = {
    "plain": Codec.uint(4),
    "lead and trailer": Codec.uint(4, length_offset=2, trailer=b"!!"),
    "netstring": Codec.text(trailer=b","),
}
SIZES = (2, 1000, 66_000, 200_000, 1_500_000)


def read_into_room(splitter: Any, data: bytes, hint: int, kept: list[memoryview]) -> list[Any]:
    messages, pos = [], 0
    while pos < len(data):
        room = splitter.get_room(hint)
        count = min(len(room), len(data) - pos)
        room[:count] = data[pos : pos + count]
        kept.append(room)
        del room
        messages += splitter.buffer_updated(count)
        pos += count
    return messages


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("seed", range(4))
def test_rooms_buffers_and_chunks_in_any_order_give_the_messages(
    engine: ModuleType, codec: Codec, raw: bool, seed: int
) -> None:
    rng = random.Random(seed)
    messages = [rng.randbytes(rng.choice(SIZES)) for _ in range(6)]
    stream = codec.encode_many(messages)
    splitter = engine.Splitter(codec, raw=raw)
    got: list[Any] = []
    pos = 0
    while pos < len(stream):
        way = rng.randrange(4)
        size = min(rng.choice((1, 3000, 70_000, 150_000)), len(stream) - pos)
        if way == 0:
            got += splitter.feed(stream[pos : pos + size])
        elif way == 1:  # other bytes come between the giving and the report
            room = splitter.get_room(100_000)
            size = min(size, len(room), len(stream) - pos)
            first = size // 2
            got += splitter.feed(stream[pos : pos + first])
            room[: size - first] = stream[pos + first : pos + size]
            del room
            got += splitter.buffer_updated(size - first)
        else:
            give = splitter.get_room if way == 2 else splitter.get_buffer
            room = give(size)
            size = min(size, len(room))
            room[:size] = stream[pos : pos + size]
            del room
            got += splitter.buffer_updated(size)
        pos += size
        assert splitter.stream_offset + splitter.pending == pos
    assert got == ([codec.encode(message) for message in messages] if raw else messages)
    assert splitter.detach() == b""


@pytest.mark.parametrize("hint", [-1, 65_536, 200_000])
def test_a_delivered_message_never_changes_though_every_room_was_kept(
    engine: ModuleType, hint: int
) -> None:
    codec = Codec.uint(4)
    messages = [bytes([n]) * 700_000 for n in range(3)]
    kept: list[memoryview] = []
    splitter = engine.Splitter(codec)
    got = read_into_room(splitter, codec.encode_many(messages), hint, kept)
    for room in kept:
        room[:] = b"\xee" * len(room)
    assert got == messages


def test_a_room_outlives_its_splitter(engine: ModuleType) -> None:
    codec = Codec.uint(4)
    kept: list[memoryview] = []
    splitter = engine.Splitter(codec)
    read_into_room(splitter, codec.encode(b"x" * 500_000)[:400_000], 65_536, kept)
    kept.append(splitter.get_room(65_536))
    del splitter
    for room in kept:
        room[:] = b"y" * len(room)
        assert bytes(room) == b"y" * len(room)


def test_an_unfinished_message_is_handed_over_from_its_room(engine: ModuleType) -> None:
    codec = Codec.uint(4)
    frame = codec.encode(random.Random(0).randbytes(500_000))
    kept: list[memoryview] = []
    splitter = engine.Splitter(codec)
    assert read_into_room(splitter, frame[:450_000], 65_536, kept) == []
    splitter.get_room(65_536)
    assert splitter.pending == 450_000
    assert splitter.bytes_needed == len(frame) - 450_000
    assert splitter.detach() == frame[:450_000]
    with pytest.raises(ValueError, match="detached"):
        splitter.get_room(65_536)
    with pytest.raises(ValueError, match="detached"):
        splitter.buffer_updated(1)


def test_a_count_beyond_the_room_takes_nothing(engine: ModuleType) -> None:
    codec = Codec.uint(4)
    frame = codec.encode(b"x" * 500_000)
    splitter = engine.Splitter(codec)
    assert splitter.feed(frame[:150_000]) == []
    size = len(splitter.get_room(65_536))
    with pytest.raises(ValueError, match="get_buffer"):
        splitter.buffer_updated(size + 1)
    assert splitter.pending == 150_000
