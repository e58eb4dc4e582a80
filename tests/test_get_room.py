"""`get_room` gives the memory in which a large message will be delivered.

The messages are right whatever the caller does with that memory, and no delivered message changes.
"""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec

CODECS = {
    "plain": Codec.uint(4),
    "lead and trailer": Codec.uint(4, length_offset=2, trailer=b"!!"),
    "netstring": Codec.text(trailer=b","),
}
TAGGED = Codec.choice(
    {"a": (1, Codec.uint(4, length_offset=1)), "b": (2, Codec.uint(4, length_offset=1))},
    tagged=True,
)
SIZES = (2, 1000, 66_000, 200_000, 1_500_000)


def read_by_get_room(splitter: Any, data: bytes, hint: int, kept: list[memoryview]) -> list[Any]:
    messages, pos = [], 0
    while pos < len(data):
        buffer = splitter.get_room(hint)
        count = min(len(buffer), len(data) - pos)
        buffer[:count] = data[pos : pos + count]
        messages += splitter.buffer_updated(count)
        kept.append(buffer)
        pos += count
    return messages


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("seed", range(4))
def test_get_room_get_buffer_and_feed_in_any_order_give_the_messages(
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
        elif way == 1:  # other bytes come first
            splitter.get_room(100_000)
            got += splitter.feed(stream[pos : pos + size])
        else:
            give = splitter.get_room if way == 2 else splitter.get_buffer
            buffer = give(size)
            size = min(size, len(buffer))
            buffer[:size] = stream[pos : pos + size]
            got += splitter.buffer_updated(size)
        pos += size
        assert splitter.stream_offset + splitter.pending == pos
    assert got == ([codec.encode(message) for message in messages] if raw else messages)
    assert splitter.detach() == b""


@pytest.mark.parametrize("hint", [-1, 65_536, 200_000])
def test_get_room_is_withdrawn_so_that_no_delivered_message_changes(
    engine: ModuleType, hint: int
) -> None:
    codec = Codec.uint(4)
    messages = [bytes([n]) * 700_000 for n in range(3)]
    kept: list[memoryview] = []
    splitter = engine.Splitter(codec)
    got = read_by_get_room(splitter, codec.encode_many(messages), hint, kept)
    for buffer in kept:
        with contextlib.suppress(ValueError):  # it was released
            buffer[:] = b"\xee" * len(buffer)
    assert got == messages


@pytest.mark.parametrize("codec", [*CODECS.values(), TAGGED], ids=[*CODECS, "tagged"])
def test_get_room_may_be_kept_in_other_views(engine: ModuleType, codec: Codec) -> None:
    message: Any = b"\2" + random.Random(0).randbytes(700_000)
    if codec is TAGGED:
        message = ("b", message)
    frame = codec.encode(message)
    splitter, got, views, pos = engine.Splitter(codec), [], [], 0
    while pos < len(frame):
        buffer = splitter.get_room(65_536)
        size = min(len(buffer), len(frame) - pos)
        buffer[:size] = frame[pos : pos + size]
        views.append(buffer[:size])
        got += splitter.buffer_updated(size)
        pos += size
    del buffer
    assert got == [message]
    del splitter
    assert sum(map(len, views)) == len(frame)
    for view in views:
        view[:] = bytes(len(view))  # its memory is still there, and not that of the message
        view.release()
    assert got == [message]


def test_get_room_gives_memory_that_outlives_its_splitter(engine: ModuleType) -> None:
    codec = Codec.uint(4)
    splitter = engine.Splitter(codec)
    read_by_get_room(splitter, codec.encode(b"x" * 500_000)[:300_000], 65_536, [])
    buffer = splitter.get_room(65_536)
    del splitter
    buffer[:] = b"y" * len(buffer)
    assert bytes(buffer) == b"y" * len(buffer)


def test_detach_returns_what_get_room_received(engine: ModuleType) -> None:
    codec = Codec.uint(4)
    frame = codec.encode(random.Random(0).randbytes(500_000))
    kept: list[memoryview] = []
    splitter = engine.Splitter(codec)
    assert read_by_get_room(splitter, frame[:450_000], 65_536, kept) == []
    splitter.get_room(65_536)
    assert splitter.pending == 450_000
    assert splitter.bytes_needed == len(frame) - 450_000
    assert splitter.detach() == frame[:450_000]
    with pytest.raises(ValueError, match="detached"):
        splitter.get_room(65_536)
    with pytest.raises(ValueError, match="detached"):
        splitter.buffer_updated(1)


def test_buffer_updated_beyond_get_room_takes_nothing(engine: ModuleType) -> None:
    codec = Codec.uint(4)
    frame = codec.encode(b"x" * 500_000)
    splitter = engine.Splitter(codec)
    assert splitter.feed(frame[:150_000]) == []
    size = len(splitter.get_room(65_536))
    with pytest.raises(ValueError, match="get_buffer"):
        splitter.buffer_updated(size + 1)
    assert splitter.pending == 150_000


def test_get_room_gives_memory_in_proportion_to_what_arrived(engine: ModuleType) -> None:
    codec = Codec.uint(8, max_message_size=None)
    splitter = engine.Splitter(codec)
    splitter.get_buffer(65_536)  # which it keeps
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        header = (1 << 40).to_bytes(8, "big")
        assert read_by_get_room(splitter, header + bytes(100), 65_536, []) == []
        for received in range(108, 600_000, 20_000):
            assert tracemalloc.get_traced_memory()[0] - before <= 2 * received + 150_000
            buffer = splitter.get_room(65_536)
            assert len(buffer) <= received + 150_000
            del buffer
            assert splitter.buffer_updated(20_000) == []
    finally:
        tracemalloc.stop()
