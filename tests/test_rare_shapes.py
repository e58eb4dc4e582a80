"""Codecs that combine what few formats combine: batches, chunks, and what travels around messages.

The engines have ways of their own for many of these, and few streams take them.
"""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

import pytest

from framecodec import Check, Codec, FrameError

U2 = Codec.uint(2, length_offset=1)
XOR = Check("xor8", 1)


def parse(header: memoryview) -> tuple[int, int] | None:
    """Read more bytes than the header has."""
    return None if len(header) < 4 else (1, 1)


KEPT = Codec.joined(
    Codec.uint(2, length_offset=3, constants={0: b"A"}),
    last=(1, 0x80, 0x80),
    strip=5,
    keep_first=True,
)

KEPT_DIGITS = Codec.joined(
    Codec.digits(4, length_offset=3, constants={0: b"A"}),
    last=(1, 0x80, 0x80),
    strip=7,
    keep_first=True,
)
KEPT_LONG = Codec.joined(
    Codec.uint(2, length_offset=300, constants={0: b"A"}),
    last=(1, 0x80, 0x80),
    strip=302,
    keep_first=True,
)
LONG = Codec.choice({1: Codec.uint(2, length_offset=1, min_message_size=9), 2: U2})

RARE: dict[str, tuple[Codec[Any], list[bytes]]] = {
    "fragments with a constant in a kept lead": (KEPT, [b"A\0\0hello", b"A\1\2" + b"x" * 20]),
    "fragments with a long kept lead": (KEPT_LONG, [b"A" + bytes(301), b"A" + bytes(400)]),
    "fragments with digits after a kept lead": (
        KEPT_DIGITS,
        [b"A\0\0hello", b"A\1\2" + b"x" * 20],
    ),
    "fragments with a length in packed digits": (
        Codec.joined(Codec.digits(4, base="bcd"), full=100),
        [b"x" * 50, b"y" * 100, b"x" * 250],
    ),
    "fragments with a trailer": (
        Codec.joined(Codec.uint(2, trailer=b"!!!!"), full=10),
        [b"", b"abc", b"x" * 10, bytes(range(45))],
    ),
    "an alternative with a wider field, and bits that choose": (
        Codec.choice(
            {0: Codec.uint(1, length_offset=1, wider={255: "u16be"}, align=2), 1: U2},
            mask=3,
            keep=False,
        ),
        [b"\0" + b"a" * size for size in (0, 5, 253, 254, 255, 300, 65_535)],
    ),
    "an alternative with constants in many places": (
        Codec.choice(
            {
                1: Codec.uint(
                    2,
                    length_offset=1,
                    constants={at: b"zz" for at in (10, 30, 50, 70, 90, 110, 130)},
                ),
                2: U2,
            }
        ),
        [b"\2abcdefghi", b"\1" + b"z" * 150],
    ),
    "an alternative with a constant at its end": (
        Codec.choice(
            {
                1: Codec.uint(2, length_offset=2, constants={9: b"z"}, max_message_size=11),
                2: Codec.uint(2, length_offset=2),
            }
        ),
        [b"\2abcdefghi", b"\1a" + b"z" * 9],
    ),
    "an alternative with a constant beyond its first bytes": (
        Codec.choice(
            {
                1: Codec.uint(2, length_offset=2, constants={12: b"z"}, max_message_size=13),
                2: Codec.uint(2, length_offset=2),
            }
        ),
        [b"\2abcdefghi", b"\1a" + b"z" * 9, b"\1a" + b"z" * 11],
    ),
    "a choice in a choice, by a byte beyond the first ones": (
        Codec.choice(
            {
                1: Codec.choice(
                    {
                        5: Codec.uint(2, length_offset=1, min_message_size=12, max_message_size=13),
                        6: Codec.uint(2, length_offset=1, min_message_size=12, trailer=b"."),
                    },
                    offset=13,
                ),
                2: U2,
            }
        ),
        [b"\2abcdefghi", b"\1" + b"a" * 10 + b"\5", b"\1" + b"a" * 10 + b"\6" + b"a" * 9],
    ),
    "an alternative that is lines with a check": (
        Codec.choice({b"$": Codec.delimiter(b"\r\n", check=XOR), None: Codec.uint(2)}),
        [b"$abcdefghijklmnop", b"$", b"\0" * 30],
    ),
    "an alternative of long messages": (
        LONG,
        [b"\2abcd", b"\1" + b"z" * 10],
    ),
    "many end marks": (
        Codec.delimiter(b"\1abc", more_ends=[b"\2abc", b"\3abc", b"\4abc", b"\5abc"]),
        [b"hello" * 4, b"\1\2\xc0abcdefgh", b"", b"abc"],
    ),
    "alternatives that are lines with one mark": (
        Codec.choice({b"a": Codec.delimiter(b"\r\n"), None: Codec.uint(2)}),
        [b"abcdefghijklmnop\r", b"abcdefghijklmnopqrstuvwxyz\r", b"a" + b"b" * 40, b"\0" * 30],
    ),
    "an alternative that is lines with a magic": (
        Codec.choice({b"a": Codec.delimiter(b"\n", magic=b"ab"), None: Codec.delimiter(b"\n")}),
        [b"world", b"wide"],
    ),
}


def chunked(splitter: Any, data: bytes, size: int) -> list[Any]:
    got = []
    for start in range(0, len(data), size):
        got += splitter.feed(data[start : start + size])
        while more := splitter.feed(b""):  # with one_at_a_time
            got += more
    return got


@pytest.fixture(params=RARE)
def rare(request: pytest.FixtureRequest, engine_in_use: ModuleType) -> tuple[Codec[Any], list[Any]]:
    """A codec whose encoder is of the engine, and messages of it."""
    codec, messages = RARE[request.param]
    return codec.replace(), messages


@pytest.mark.parametrize("count", [1, 2, 40])
def test_batches_are_the_frames_of_their_messages(
    rare: tuple[Codec[Any], list[Any]], count: int
) -> None:
    codec, messages = rare
    for message in messages:
        frame = codec.encode(message)
        assert b"".join(codec.frame_parts(message)) == frame
        assert codec.decode(frame) == message
        assert codec.encode_many([message] * count) == frame * count
    frames = b"".join(map(codec.encode, messages))
    assert codec.encode_many(messages * count) == frames * count


def test_chunks_of_all_sizes_give_the_messages_and_their_frames(
    rare: tuple[Codec[Any], list[Any]], engine: ModuleType
) -> None:
    codec, messages = rare
    messages = [message for message in messages if len(message) < 1000] * 3
    frames = list(map(codec.encode, messages))
    data = b"".join(frames)
    for size in (1, 2, 3, 5, 7, 64, len(data)):
        for one_at_a_time in (False, True):
            options = {"one_at_a_time": one_at_a_time}
            assert chunked(engine.Splitter(codec, **options), data, size) == messages
            raw = chunked(engine.Splitter(codec, raw=True, **options), data, size)
            assert raw == frames


@pytest.mark.parametrize("size", range(4084, 4100))  # the memory of a message has 4096 at first
@pytest.mark.parametrize(
    "codec",
    [
        Codec.joined(Codec.uint(2, trailer=b"!!!!"), last=(2, 0x80, 0x80), strip=1),
        Codec.delimiter(b"<end>"),
    ],
    ids=["fragments", "lines"],
)
def test_a_trailer_has_memory_whatever_the_content_fills(
    engine: ModuleType, codec: Codec[bytes], size: int
) -> None:
    message = b"x" * size
    frame = codec.encode(message)
    if codec.kind == "joined":  # in two fragments, of which the first has all
        one = Codec.uint(2, trailer=b"!!!!")
        frame = one.encode(b"\0" + message) + one.encode(b"\x80")
    for chunk in (64, 1000, len(frame)):
        assert chunked(engine.Splitter(codec, raw=True), frame * 3, chunk) == [frame] * 3


def test_the_shorter_of_two_marks_ends_a_frame_with_a_check(engine: ModuleType) -> None:
    codec = Codec.delimiter(b"\r\n", more_ends=[b"\r"], check=XOR)
    frame = codec.encode(b"hello")
    data = (frame + frame[:-1]) * 5 + b"next"
    for size in range(1, len(data) + 1):
        splitter = engine.Splitter(codec, keep_headers=True)
        assert chunked(splitter, data, size) == [b"hello"] * 10
        assert splitter.error is None


def test_a_function_that_looks_ahead_is_read_after_bad_frames(engine: ModuleType) -> None:
    codec = Codec.custom(parse, lambda message: b"M", magic=b"MM")
    data = b"xxMMMaMMMbxMMMcMMMdMMMeMMMfMM"
    for size in range(1, len(data) + 1):
        for one_at_a_time in (False, True):
            splitter = engine.Splitter(codec, on_invalid="resync", one_at_a_time=one_at_a_time)
            got = chunked(splitter, data, size)
            assert got == [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_a_line_of_an_alternative_must_begin_with_its_magic(engine: ModuleType) -> None:
    codec, _ = RARE["an alternative that is lines with a magic"]
    for size in (1, 2, 100):
        splitter = engine.Splitter(codec)
        assert chunked(splitter, b"xx\nabcc\n", size) == [b"xx", b"cc"]
        with pytest.raises(FrameError, match="magic"):
            chunked(splitter, b"adcc\n", size)


def test_a_batch_with_a_check_may_have_messages_that_are_no_bytes(
    engine_in_use: ModuleType,
) -> None:
    codec = Codec.delimiter(b"\r\n", check=XOR)
    frames = codec.encode(b"one") + codec.encode(b"two") + codec.encode(b"three")
    assert codec.encode_many([b"one", bytearray(b"two"), memoryview(b"three")]) == frames


@pytest.mark.parametrize(
    ("codec", "good", "bad"),
    [
        (KEPT, b"A\0\0hello", b"B\0\0hello"),
        (KEPT, b"A\0\0hello", b"A\x80\0hello"),
        (KEPT_DIGITS, b"A\0\0hello", b"B\0\0hello"),
        (KEPT_DIGITS, b"A\0\0hello", b"A\x80\0hello"),
        (KEPT_LONG, b"A" + bytes(310), b"B" + bytes(310)),
        (KEPT_LONG, b"A" + bytes(310), b"A\x80" + bytes(310)),
        (LONG, b"\1" + bytes(10), b"\1abc"),
    ],
)
def test_a_batch_with_a_bad_message_is_refused(
    engine_in_use: ModuleType, codec: Codec[bytes], good: bytes, bad: bytes
) -> None:
    codec = codec.replace()
    frame = codec.encode(good)
    assert codec.encode_many([good] * 3) == frame * 3
    for batch in ([good, bad, bad], [bad, good], [bad] * 5):
        with pytest.raises(FrameError):
            codec.encode_many(batch)


def test_spans_are_a_read_only_sequence(engine: ModuleType) -> None:
    spans = engine.scan(Codec.uint(4), Codec.uint(4).encode_many([b"a", b"bb", b"a"]))
    assert spans.index(spans[1]) == 1
    with pytest.raises(TypeError, match="read-write"):
        io.BytesIO(b"xx").readinto(spans)
