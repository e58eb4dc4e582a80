"""Length fields: the largest and smallest values, and what each refusal says of a later frame."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, InvalidFrameError

MOST = 2**64 - 1  # as large as a length can be

END = "expects a digit or the end mark"
OVER = "the length has more than 64 bits; no codec allows that"
FRAME = 'it counts the whole frame, which has at least {} bytes (length_includes="frame")'

# A codec, the wrong bytes of a frame up to the one that decides, and the reason in the error.
REFUSALS: list[tuple[Codec[Any], bytes, str]] = [
    (
        Codec.digits(4),
        b"12x",
        "the length is not a base 10 number: found b'x' at byte 2 of the frame, "
        "the codec expects a digit",
    ),
    (
        Codec.digits(16, base=16),
        b"0123456789abcdeg",
        "the length is not a base 16 number: found b'g' at byte 15 of the frame, "
        "the codec expects a digit",
    ),
    (Codec.digits(20, max_message_size=None), b"18446744073709551616", OVER),
    (
        Codec.digits(3, base="bcd"),
        b"\x12\x3a",
        "the byte 0x3a at byte 1 of the frame is not two packed decimal digits",
    ),
    (
        Codec.digits(3, base="bcd"),
        b"\xa0",
        "the byte 0xa0 at byte 0 of the frame is not two packed decimal digits",
    ),
    (Codec.digits(12, base="bcd", max_message_size=None), b"\x99" * 10, OVER),
    (
        Codec.varint(),
        b"\x80" * 5,
        "the varint length does not end within 5 bytes (max_width)",
    ),
    (
        Codec.varint(max_width=10, max_message_size=None),
        b"\xff" * 9 + b"\x81",
        "the varint length does not end within 10 bytes (max_width)",
    ),
    (Codec.varint(max_width=10, max_message_size=None), b"\xff" * 9 + b"\x02", OVER),
    (Codec.varint(), b"\x81\x00", "the varint length is not in its shortest form"),
    (
        Codec.ber(),
        b"\x80",
        "the length has the indefinite form (0x80), only the definite one is read",
    ),
    (
        Codec.ber(),
        b"\x85",
        "the length begins with 0x85; a length of more than 127 begins with "
        "0x81 to 0x84 (max_width=4)",
    ),
    (Codec.text(), b"00", "the length has a leading zero"),
    (
        Codec.text(),
        b":",
        "the length has no digits: found the end mark at byte 0 of the frame",
    ),
    (
        Codec.text(end=b"\r\n"),
        b"12\rx",
        "the length is not a base 10 number: found b'x' at byte 3 of the frame, "
        f"the codec {END} b'\\r\\n'",
    ),
    (
        Codec.text(base=16, end=b";"),
        b"fg",
        "the length is not a base 16 number: found b'g' at byte 1 of the frame, "
        f"the codec {END} b';'",
    ),
    (
        Codec.text(),
        b"-",
        "the length is not a base 10 number: found b'-' at byte 0 of the frame, "
        f"the codec {END} b':'",
    ),
    (
        Codec.text(max_digits=3),
        b"1234",
        "the length has more than 3 digits (max_digits)",
    ),
    (Codec.text(max_message_size=None), b"18446744073709551616", OVER),
    (Codec.text(specials={-1: None}), b"-2:", "the length is negative: -2"),
    (Codec.text(specials={-1: None}), b"-0", "the length has a leading zero"),
    (
        Codec.text(specials={-1: None}),
        b"--",
        "the length is not a base 10 number: found b'-' at byte 1 of the frame, "
        f"the codec {END} b':'",
    ),
    (
        Codec.uint(1, signed=True, specials={-1: None}),
        b"\xfe",
        "the length is negative: -2",
    ),
    (
        Codec.uint(1, wider={254: "u16be", 255: "u32le"}),
        b"\xff\xff\xff\0\0",
        'the length 65535 is in a wider field than it needs (wider_than_needed="accept" reads it)',
    ),
    (
        Codec.uint(1, wider={254: "u16be", 255: "u32le"}),
        b"\xfe\0\xfd",
        'the length 253 is in a wider field than it needs (wider_than_needed="accept" reads it)',
    ),
    (
        Codec.uint(2, length_includes="frame"),
        b"\0\x01",
        f"the length 1 is too small: {FRAME.format(2)}",
    ),
    (
        Codec.uint(2, length_includes="frame", trailer=b"end"),
        b"\0\x04",
        f"the length 4 is too small: {FRAME.format(5)}",
    ),
    (
        Codec.uint(2, length_adjustment=-5),
        b"\0\x04",
        "the length 4 is too small: with the adjustment -5 it leaves -1 bytes",
    ),
]


@pytest.mark.parametrize(
    ("by", "after"),
    [(1, b""), (100, b""), (1000, bytes(300)), (1000, b"1:" * 150)],
    ids=["byte by byte", "whole", "before zeros", "before digits"],
)
@pytest.mark.parametrize(("codec", "wrong", "reason"), REFUSALS)
def test_feed_says_of_a_later_frame_where_and_why_its_length_is_refused(
    engine: ModuleType, codec: Codec[Any], wrong: bytes, reason: str, by: int, after: bytes
) -> None:
    first = codec.encode(b"first one")
    stream = first + wrong + after
    splitter = engine.Splitter(codec)
    messages = []
    with contextlib.suppress(InvalidFrameError):  # it sticks, and comes after the messages
        for start in range(0, len(stream), by):
            messages += splitter.feed(stream[start : start + by])
    with pytest.raises(InvalidFrameError) as caught:
        splitter.feed(b"")
    assert messages == [b"first one"]
    assert caught.value.stream_offset == len(first)
    assert caught.value.header == wrong
    text = f"invalid frame at stream offset {len(first)}: {reason} (frame begins {wrong!r})"
    assert str(caught.value).endswith(text)


@pytest.mark.parametrize(
    "codec",
    [
        Codec.uint(2, trailer=b"\n"),
        Codec.digits(4, trailer=b"\n"),
        Codec.varint(trailer=b"\n"),
        Codec.text(trailer=b"\n"),
        Codec.headers(trailer=b"\n"),
    ],
    ids=["uint", "digits", "varint", "text", "headers"],
)
def test_feed_of_several_frames_refuses_a_wrong_trailer_of_a_later_one(
    engine: ModuleType, codec: Codec[Any]
) -> None:
    frames = [codec.encode(message) for message in (b"one", b"two", b"three", b"four")]
    splitter = engine.Splitter(codec)
    assert splitter.feed(b"".join([*frames[:2], frames[2][:-1] + b"x", frames[3]])) == [
        b"one",
        b"two",
    ]
    with pytest.raises(InvalidFrameError, match=r"found b'x', a frame ends with the trailer"):
        splitter.feed(b"")
    assert splitter.stream_offset == len(frames[0] + frames[1])


# A codec, the bytes of a length, and that length.
LENGTHS: list[tuple[Codec[Any], bytes, int]] = [
    (Codec.digits(20, max_message_size=None), b"%d" % MOST, MOST),
    (Codec.digits(16, base=16, max_message_size=None), b"f" * 16, MOST),
    (Codec.digits(16, base=16, max_message_size=None), b"F" * 16, MOST),
    (Codec.digits(10, base="bcd", max_message_size=None), bytes.fromhex(f"{MOST:020}"), MOST),
    (Codec.text(max_message_size=None), b"%d:" % MOST, MOST),
    (Codec.text(base=16, max_message_size=None), b"f" * 16 + b":", MOST),
    (Codec.text(max_message_size=None, leading_zeros=True), b"007:", 7),
    (Codec.text(max_message_size=None, trailing_blanks=True), b"7 \t :", 7),
    (Codec.text(max_message_size=None, trailing_blanks=True, max_digits=3), b"7  :", 7),
    (Codec.text(max_message_size=None), b"10:", 10),
    (Codec.text(max_message_size=None, max_digits=3), b"100:", 100),
    (Codec.varint(max_width=10, max_message_size=None), b"\xff" * 9 + b"\x01", MOST),
    (Codec.varint(max_message_size=None), b"\x80\x80\x80\x80\x01", 1 << 28),
    (Codec.ber(max_width=8, max_message_size=None), b"\x88" + b"\xff" * 8, MOST),
    (Codec.ber(max_message_size=None), b"\x84\x00\x00\x00\x05", 5),
    (Codec.ber(max_message_size=None), b"\x82\x01\x02", 0x102),
    (Codec.uint(8, max_message_size=None), b"\xff" * 8, MOST),
]


@pytest.mark.parametrize("by", [1, 100], ids=["byte by byte", "whole"])
@pytest.mark.parametrize(("codec", "field", "size"), LENGTHS)
def test_feed_waits_for_as_many_bytes_as_the_largest_lengths_say(
    engine: ModuleType, codec: Codec[Any], field: bytes, size: int, by: int
) -> None:
    splitter = engine.Splitter(codec)
    for start in range(0, len(field), by):
        assert splitter.feed(field[start : start + by]) == []
    assert splitter.pending_header == field
    assert splitter.pending == len(field)
    if size < 2**30:
        message = bytes(size) if size < 2**20 else b""
        assert splitter.feed(message) == ([message] if message else [])
    else:
        assert splitter.feed(b"some") == []
        assert splitter.pending == len(field) + 4


@pytest.mark.parametrize("by", [1, 100], ids=["byte by byte", "whole"])
def test_feed_reads_a_negative_special_length_after_a_sign(engine: ModuleType, by: int) -> None:
    splitter = engine.Splitter(Codec.text(specials={-12: None, 0: "nothing"}))
    stream = b"-12:0:1:a-12:"
    messages = []
    for start in range(0, len(stream), by):
        messages += splitter.feed(stream[start : start + by])
    assert messages == [None, "nothing", b"a", None]


@pytest.mark.parametrize("by", [1, 10_000], ids=["byte by byte", "whole"])
def test_feed_reads_wider_lengths_in_their_own_byte_order(engine: ModuleType, by: int) -> None:
    codec = Codec.uint(1, wider={254: "u16le", 255: "u32be"})
    message, larger = b"m" * 0x0102, b"l" * 0x010203
    stream = b"\xfe\2\1" + message + b"\xff\0\1\2\3" + larger + b"\0"
    assert codec.encode_many([message, larger, b""]) == stream
    splitter = engine.Splitter(codec)
    messages = []
    for start in range(0, len(stream), by):
        messages += splitter.feed(stream[start : start + by])
    assert messages == [message, larger, b""]


@pytest.mark.parametrize("by", [1, 100], ids=["byte by byte", "whole"])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (b"12 ", "has more than 2 digits"),
        (b"1  ", "has more than 2 digits"),
        (b" 1:", "is not a base 10 number"),
        (b"1 1:", "is not a base 10 number"),
        (b":", "has no digits"),
    ],
)
def test_feed_refuses_blanks_that_are_too_many_or_elsewhere(
    engine: ModuleType, wrong: bytes, reason: str, by: int
) -> None:
    splitter = engine.Splitter(Codec.text(max_digits=2, trailing_blanks=True))
    stream = b"1 :a" + wrong + b"mm"
    messages, error = [], None
    try:
        for start in range(0, len(stream), by):
            messages += splitter.feed(stream[start : start + by])
    except InvalidFrameError as raised:
        error = raised
    assert messages == [b"a"]
    assert reason in str(error or splitter.error)
    assert (error or splitter.error).stream_offset == 4


def test_feed_refuses_more_digits_than_allowed_also_of_a_whole_frame(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.text(max_digits=2, leading_zeros=True))
    assert splitter.feed(b"09:" + b"m" * 9 + b"009:" + b"m" * 9) == [b"m" * 9]
    with pytest.raises(InvalidFrameError, match="more than 2 digits"):
        splitter.feed(b"")
