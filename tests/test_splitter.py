"""Test `Splitter` of both engines.

The first half splits streams of every kind of codec into chunks in many ways and compares the
results with the reference parser, which reads the whole stream. The second half tests each promise
by an example that a reader can check.
"""

from __future__ import annotations

import copy
import pickle
import struct
import sys
import tracemalloc
from types import ModuleType
from typing import Any

import numpy
import pytest

from framecodec import (
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
)
from tests.helpers.chunking import byte_by_byte, compositions, cuts, hand_overs, single_cuts
from tests.helpers.reference_parser import check, expect
from tests.helpers.sample_codecs import CODECS, sample_messages, streams

LONG_FRAMES = {
    "choice, a line after a magic",
    "adjustment far up",
    "digits20",
    "packed, large",
    "digits17 base 16",
    "lsp",
    "headers, all",
    "headers, names",
    "headers, LF",
    "headers, lenient",
    "headers, LF, lenient",
    "headers, start line",
    "headers, protocols",
    "headers, kept, all",
    "check, frame, all",
    "check in digits",
    "check, headers",
    "check at the front, headers",
    "check by a function, frame",
    "check by a function, front",
    "delimiter, check by a function",
    "joined, everything",
}

# --- every chunking -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_feed_of_a_short_stream_gives_the_same_outcome_for_every_chunking(
    engine: ModuleType, name: str
) -> None:
    outcomes = [
        check(engine, CODECS[name], stream, compositions(stream))
        for stream in streams(CODECS[name], size=8, count=14)
    ]
    # The streams must hold both whole and bad frames, or this test would prove little.
    assert any(outcome.messages for outcome in outcomes) or name in LONG_FRAMES
    assert any(outcome.error for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_feed_with_raw_or_skip_gives_the_same_outcome_for_every_chunking(
    engine: ModuleType, name: str
) -> None:
    for number, stream in enumerate(streams(CODECS[name], size=7, count=12, seed=1)):
        raw, skip = [(True, False), (False, True), (True, True)][number % 3]
        check(engine, CODECS[name], stream, compositions(stream), raw=raw, skip=skip)


@pytest.mark.slow
@pytest.mark.parametrize("hand_over", hand_overs)
def test_feed_and_buffer_updated_give_the_same_outcome(engine: ModuleType, hand_over: str) -> None:
    for number, codec in enumerate(CODECS.values()):
        for stream in streams(codec, size=12, count=3, seed=2):
            chunkings = [[stream], byte_by_byte(stream), *single_cuts(stream)]
            raw, skip = number % 2 == 1, number % 3 == 1
            check(
                engine,
                codec,
                stream,
                chunkings,
                raw=raw,
                skip=skip,
                hand_over=hand_overs[hand_over],
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_feed_of_a_long_stream_gives_the_same_outcome_for_many_chunkings(
    engine: ModuleType, name: str
) -> None:
    for number, stream in enumerate(streams(CODECS[name], size=700, count=10, seed=3)):
        raw, skip = number % 2 == 1, number % 3 == 1
        chunkings = cuts(stream, count=10) if number % 5 == 0 else [[stream], byte_by_byte(stream)]
        check(engine, CODECS[name], stream, chunkings, raw=raw, skip=skip)


# Streams of exactly twelve bytes, the longest that are tested in all chunkings: 2048.
TWELVE_BYTES = {
    "u16le": (Codec.uint(2, "little"), b"\x01\x00a\x00\x00\x02\x00bc\x01\x00d"),
    "broken after two": (Codec.uint(1, trailer=b"\r\n"), b"\x01a\r\n\x00\r\n\x02bc\rX"),
    "digits": (Codec.digits(4), b"0005hello 00"),
    "magic and lead": (
        Codec.uint(1, magic=b"M", length_offset=2),
        b"Mt\x01aMu\x00Mv\x02bc",
    ),
    "netstring": (Codec.text(trailer=b","), b"3:abc,0:,12:"),
    "varint": (Codec.varint(), b"\x01a\x80\x80\x01\x00\x00\x00\x00\x00\x00\x00"),
    "specials": (
        Codec.digits(2, specials={0: None, 99: "end"}, trailer=b"!"),
        b"0001a!9902bc",
    ),
    "headers": (Codec.headers("L", max_header=20, max_message_size=9), b"L: 1\r\n\r\naL:2"),
    "tagged": (CODECS["tagged"], b"\x40\x01a\x51\x00\x02bc\x50\x00\x40\x01"),
    "oversized": (Codec.uint(1, max_message_size=2, trailer=b";"), b"\x01a;\x04abcd;\x02bc"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TWELVE_BYTES)
def test_feed_of_twelve_bytes_gives_the_same_outcome_for_all_chunkings(
    engine: ModuleType, name: str
) -> None:
    codec, stream = TWELVE_BYTES[name]
    assert len(stream) == 12
    check(engine, codec, stream, compositions(stream))
    check(engine, codec, stream, compositions(stream), skip=True, raw=name < "m")


# --- bad input ------------------------------------------------------------------------------------

TWO_FRAMES = b"0001a0002bc"  # before the bad frame, so that its offset is not 0

BAD_DIGITS = {
    "a sign": b"+012",
    "a space": b" 012",
    "a minus": b"-001",
    "an underscore": b"1_00",
    "an underscored zero": b" 1_0",
    "a prefix": b"0x12",
    "an exponent": b"1e02",
    "a point": b"1.00",
    "NULs": b"\0\0\0\0",
    "a NUL after the digits": b"012\0",
    "a newline after the digits": b"012\n",
    "full-width digits": "０１２３".encode()[:4],
    "Arabic digits": "١٢".encode(),
    "superscripts": "²²".encode(),
    "the byte above 9": b"012:",
    "the byte below 0": b"012/",
}


@pytest.mark.parametrize("field", BAD_DIGITS.values(), ids=BAD_DIGITS.keys())
def test_digits_refuses_a_length_field_with_other_characters(
    engine: ModuleType, field: bytes
) -> None:
    splitter = engine.Splitter(Codec.digits(4))
    assert splitter.feed(TWO_FRAMES) == [b"a", b"bc"]
    with pytest.raises(InvalidFrameError, match="stream offset 11") as caught:
        splitter.feed(field + b"x" * 20)
    assert caught.value.stream_offset == 11
    # The header ends with the first byte that is not a digit.
    good = len(field) - len(field.lstrip(b"0123456789"))
    assert caught.value.header == field[: good + 1]
    assert repr(field[good : good + 1]) in str(caught.value)


@pytest.mark.parametrize("fmt", ["i", "<i", ">i", "q", "<q", ">q", "h", "b", "!l", "n"])
@pytest.mark.parametrize("value", [-1, -2, -100])
def test_struct_refuses_a_negative_length(engine: ModuleType, fmt: str, value: int) -> None:
    header = struct.pack(fmt, value)
    for on_oversize in ("raise", "skip"):
        splitter = engine.Splitter(Codec.struct(fmt), on_oversize=on_oversize)
        assert splitter.feed(struct.pack(fmt, 1) + b"a") == [b"a"]
        with pytest.raises(InvalidFrameError, match=f"negative: {value} ") as caught:
            splitter.feed(header)
        assert caught.value.stream_offset == len(header) + 1
        assert caught.value.header == header


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("byteorder", ["big", "little", "native"])
def test_uint_reads_the_extremes_of_every_width(
    engine: ModuleType, width: int, byteorder: Any
) -> None:
    for signed in (False, True):
        codec = Codec.uint(width, byteorder, signed=signed, max_message_size=10)
        low = -(2 ** (8 * width - 1)) if signed else 0
        for value in (low, -1 if signed else 0, 2 ** (8 * width - signed) - 1, 11, 10, 0):
            order = sys.byteorder if byteorder == "native" else byteorder
            stream = value.to_bytes(width, order, signed=signed) + b"0123456789"
            check(engine, codec, stream, [[stream], byte_by_byte(stream)])


@pytest.mark.parametrize(
    ("codec", "stream", "deciding"),
    [
        # varints: too long, without an end, not the shortest, over 64 bits
        (Codec.varint(), b"\x80\x80\x80\x80\x80\x01", 5),
        (Codec.varint(max_width=10, max_message_size=None), b"\x80" * 12, 10),
        (Codec.varint(), b"\x80\x00", 2),
        (Codec.varint(), b"\x81\x80\x00", 3),
        (Codec.varint(max_width=10, max_message_size=None), b"\xff" * 9 + b"\x02", 10),
        # text: leading zeros, no digits, other characters, over 64 bits
        (Codec.text(), b"01:", 2),
        (Codec.text(), b"00:", 2),
        (Codec.text(), b":", 1),
        (Codec.text(), b"+1:", 1),
        (Codec.text(), b"-1:", 1),
        (Codec.text(), b"1 :", 2),
        (Codec.text(max_message_size=None), b"18446744073709551616:", 20),
        (Codec.text(max_message_size=None), b"9" * 100, 20),
        (Codec.text(base=16, max_message_size=None), b"f" * 100, 17),
        (Codec.text(end=b"\r\n"), b"1\rX", 3),
        (Codec.digits(20, max_message_size=None), b"18446744073709551616", 20),
        (Codec.digits(64, base=16, max_message_size=None), b"1" + b"0" * 63, 17),
        # header blocks
        (Codec.headers(), b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 38),
        (Codec.headers(), b"content-length: 1\r\nCONTENT-LENGTH: 2\r\n\r\n", 38),
        (Codec.headers(), b"X: 1\r\n\r\n", 8),
        (Codec.headers(), b"\r\n", 2),
        (Codec.headers(), b"Content-Length: 1\n\r\n", 18),
        (Codec.headers(), b"Content-Length : 1\r\n\r\n", 20),
        (Codec.headers(), b"Content-Length: +1\r\n\r\n", 20),
        (Codec.headers(), b"Content-Length: 01\r\n\r\n", 20),
        (Codec.headers(), b"Content-Length: 1_0\r\n\r\n", 21),
        (Codec.headers(), b"Content-Length: 0x1\r\n\r\n", 21),
        (Codec.headers(), b"Content-Length: \r\n\r\n", 18),
        (Codec.headers(), b"Content-Length: -1\r\n\r\n", 20),
        (Codec.headers(), "Content-Length: １\r\n\r\n".encode(), 21),
        (Codec.headers(), b"Content-Length: 18446744073709551616\r\n\r\n", 38),
        (Codec.headers(), b"no colon\r\n", 10),
        (Codec.headers(), b": 1\r\n", 5),
        (Codec.headers(), b" folded: 1\r\n", 12),
        (Codec.headers(), b"X: a\0b\r\n", 8),
        (Codec.headers(max_header=30, max_message_size=9), b"X: " + b"a" * 100, 30),
    ],
)
def test_feed_refuses_a_bad_length_at_its_first_wrong_byte(
    engine: ModuleType, codec: Codec, stream: bytes, deciding: int
) -> None:
    outcome = check(engine, codec, stream, cuts(stream))
    assert outcome.error is InvalidFrameError
    assert outcome.attributes == {"header": stream[:deciding], "stream_offset": 0}
    for on_oversize in ("raise", "skip"):
        splitter = engine.Splitter(codec, on_oversize=on_oversize)
        assert splitter.feed(stream[: deciding - 1]) == []
        with pytest.raises(InvalidFrameError):
            splitter.feed(stream[deciding - 1 : deciding])


@pytest.mark.parametrize("bad", range(3))
def test_feed_refuses_a_wrong_magic_at_its_first_wrong_byte(engine: ModuleType, bad: int) -> None:
    splitter = engine.Splitter(Codec.uint(1, magic=b"MAG"))
    magic = bytearray(b"MAG")
    magic[bad] = 0
    assert splitter.feed(b"MAG\x01a" + magic[:bad]) == [b"a"]
    with pytest.raises(InvalidFrameError, match="magic b'MAG'") as caught:
        splitter.feed(magic[bad:])
    assert (caught.value.stream_offset, caught.value.header) == (5, bytes(magic[: bad + 1]))


@pytest.mark.parametrize("bad", range(3))
def test_feed_refuses_a_wrong_trailer_at_its_first_wrong_byte(engine: ModuleType, bad: int) -> None:
    splitter = engine.Splitter(Codec.uint(1, trailer=b"END"))
    trailer = bytearray(b"END")
    trailer[bad] = 0
    assert splitter.feed(b"\x01aEND\x01b" + trailer[:bad]) == [b"a"]
    with pytest.raises(InvalidFrameError, match="trailer b'END'") as caught:
        splitter.feed(trailer[bad:])
    assert (caught.value.stream_offset, caught.value.header) == (5, b"\x01")


@pytest.mark.parametrize(
    ("value", "adjustment", "text"),
    [
        (0, -1, "adjustment -1"),
        (3, -4, "leaves -1 bytes"),
        (0, -(2**62) + 1, f"leaves {-(2**62) + 1} bytes"),
    ],
)
def test_length_adjustment_that_makes_a_length_negative_is_refused(
    engine: ModuleType, value: int, adjustment: int, text: str
) -> None:
    codec = Codec.uint(8, length_adjustment=adjustment, max_message_size=None)
    with pytest.raises(InvalidFrameError, match=text):
        engine.Splitter(codec).feed(value.to_bytes(8, "big"))


@pytest.mark.parametrize("value", range(8))
def test_length_includes_frame_refuses_a_length_below_the_smallest_frame(
    engine: ModuleType, value: int
) -> None:
    codec = Codec.uint(2, length_offset=3, length_includes="frame", magic=b"M", trailer=b"TT")
    header = b"Mab" + value.to_bytes(2, "big")
    splitter = engine.Splitter(codec)
    if value == 7:
        assert splitter.feed(header + b"TT") == [b"ab"]
        return
    with pytest.raises(InvalidFrameError, match="at least 7 bytes") as caught:
        splitter.feed(header)
    assert caught.value.header == header


# --- arguments that are not bytes -----------------------------------------------------------------

NOT_BYTES: dict[str, Any] = {
    "str": "text",
    "int": 5,
    "None": None,
    "list": [1, 2],
    "float": 1.5,
    "every second byte": memoryview(b"abcdef")[::2],
    "backwards": memoryview(b"abcdef")[::-1],
    "columns first": numpy.asfortranarray(numpy.ones((2, 3), "u1")),
    "every second number": numpy.arange(6, dtype="u1")[::2],
}


def released_view() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


@pytest.mark.parametrize("name", [*NOT_BYTES, "a released view"])
def test_feed_takes_nothing_from_an_argument_that_is_not_contiguous_bytes(
    engine: ModuleType, name: str
) -> None:
    data = NOT_BYTES[name] if name in NOT_BYTES else released_view()
    splitter = engine.Splitter(Codec.uint(1))
    assert splitter.feed(b"\x02a") == []
    with pytest.raises((TypeError, BufferError, ValueError)):
        splitter.feed(data)
    assert (splitter.error, splitter.pending, splitter.stream_offset) == (None, 2, 0)
    assert splitter.feed(b"b") == [b"ab"]


def test_feed_refuses_a_str_with_advice(engine: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"text\.encode\(\)"):
        engine.Splitter(Codec.uint(1)).feed("text")


# --- no byte is lost to an error ------------------------------------------------------------------

BROKEN = {
    "a bad length": (Codec.digits(1), b"1a", b"x"),
    "an oversized message": (Codec.uint(1, max_message_size=2), b"\x01a", b"\x03"),
    "a wrong magic": (Codec.uint(1, magic=b"M"), b"M\x01a", b"N"),
    "a wrong trailer": (Codec.uint(1, trailer=b"T"), b"\x01aT", b"\x01bX"),
    "a failed parse": (CODECS["tagged"], b"\x40\x01a", b"\x00"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_feed_returns_the_messages_before_a_bad_frame_first(engine: ModuleType, name: str) -> None:
    codec, good, bad = BROKEN[name]
    splitter = engine.Splitter(codec)
    messages = splitter.feed(good + good + bad + b"excess")
    assert len(messages) == 2
    error = splitter.error
    assert isinstance(error, FrameError)
    assert error.stream_offset == splitter.stream_offset == 2 * len(good)
    with pytest.raises(type(error)) as caught:
        splitter.feed(good)
    assert caught.value is error


@pytest.mark.parametrize("name", BROKEN)
def test_feed_without_messages_before_a_bad_frame_raises_at_once(
    engine: ModuleType, name: str
) -> None:
    codec, good, bad = BROKEN[name]
    splitter = engine.Splitter(codec)
    assert len(splitter.feed(good)) == 1
    with pytest.raises(FrameError) as caught:
        splitter.feed(bad)
    assert splitter.error is caught.value


@pytest.mark.parametrize("name", BROKEN)
def test_splitter_raises_the_same_error_from_every_later_call(
    engine: ModuleType, name: str
) -> None:
    codec, good, bad = BROKEN[name]
    splitter = engine.Splitter(codec)
    splitter.get_buffer(-1)
    splitter.feed(good + bad + b"excess")
    error = splitter.error
    calls = [
        lambda: splitter.feed(good),
        lambda: splitter.feed(b""),
        lambda: splitter.feed(bytearray(good)),
        lambda: splitter.get_buffer(-1),
        lambda: splitter.buffer_updated(0),
        splitter.feed_eof,
    ] * 2
    for call in calls:
        with pytest.raises(FrameError) as caught:
            call()
        assert caught.value is error
    assert splitter.stream_offset == len(good)
    assert splitter.pending == len(bad + b"excess")


@pytest.mark.parametrize("name", BROKEN)
def test_detach_after_an_error_returns_all_bytes_from_the_bad_frame_on(
    engine: ModuleType, name: str
) -> None:
    codec, good, bad = BROKEN[name]
    for data in (bytes, bytearray, memoryview):
        splitter = engine.Splitter(codec)
        splitter.feed(data(good + bad + b"excess" * 30_000))
        assert splitter.error is not None
        assert splitter.detach() == bad + b"excess" * 30_000


def test_error_does_not_keep_the_delivered_messages_alive(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(4, max_message_size=1 << 20))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        messages = splitter.feed(b"\0\x10\0\0" + bytes(1 << 20) + b"\xff\xff\xff\xff")
        assert len(messages) == 1
        del messages
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()


# --- pending, pending_header, bytes_needed and stream_offset --------------------------------------


def test_pending_stream_offset_and_bytes_needed_count_every_byte(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(2, trailer=b"\n"))
    states = []
    for byte in byte_by_byte(b"\0\2ab\n\0\0\n"):
        splitter.feed(byte)
        states.append((splitter.stream_offset, splitter.pending, splitter.bytes_needed))
    assert states == [
        (0, 1, 1),
        (0, 2, 3),
        (0, 3, 2),
        (0, 4, 1),
        (5, 0, 2),
        (5, 1, 1),
        (5, 2, 1),
        (8, 0, 2),
    ]


@pytest.mark.parametrize("name", CODECS)
def test_bytes_needed_is_exact_after_the_header(engine: ModuleType, name: str) -> None:
    codec = CODECS[name]
    for message in sample_messages(codec):
        frame = codec.encode(message)
        # The splitter returns the message before the padding arrives.
        unpadded = len(codec.replace(align=1).encode(message))
        splitter = engine.Splitter(codec)
        for pos, byte in enumerate(byte_by_byte(frame)):
            missing = (unpadded if pos < unpadded else len(frame)) - pos
            assert 1 <= splitter.bytes_needed <= missing
            # The header has its final size as soon as it is complete.
            has_length = not codec.layout.has_marks
            if codec.layout.joined is not None:  # of a fragment
                content_size = len(message) - codec.layout.joined.first_size
                has_length = content_size < codec.layout.joined.fragment_size
            if len(splitter.pending_header) < pos and has_length:
                assert splitter.bytes_needed == missing
            assert splitter.feed(byte) == ([message] if pos + 1 == unpadded else [])


def test_pending_header_is_the_part_of_the_header_that_arrived(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(2, magic=b"M"))
    states = []
    for byte in byte_by_byte(b"M\0\2abM"):
        splitter.feed(byte)
        states.append(splitter.pending_header)
    assert states == [b"M", b"M\0", b"M\0\2", b"M\0\2", b"", b"M"]


def test_stream_offset_counts_beyond_32_bits(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(8, max_message_size=5), on_oversize="skip")
    splitter.feed((2**33).to_bytes(8, "big"))
    block = bytes(2**20)
    assert splitter.bytes_needed == 2**33
    for _ in range(2**13 - 1):
        assert splitter.feed(block) == []
    assert splitter.bytes_needed == 2**20
    assert splitter.pending == 2**33 + 8 - 2**20
    assert splitter.feed(block + b"\0\0\0\0\0\0\0\1a") == [b"a"]
    assert splitter.stream_offset == 2**33 + 17
    assert splitter.skipped == 1


# --- feed_eof -------------------------------------------------------------------------------------


def test_feed_eof_between_two_frames_raises_no_error(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    splitter.feed_eof()
    assert splitter.feed(b"\x01a") == [b"a"]
    splitter.feed_eof()
    assert splitter.error is None


@pytest.mark.parametrize(
    ("stream", "where", "received", "needed", "header"),
    [
        (b"M", "header", 1, None, b"M"),
        (b"Ma\0", "header", 3, None, b"Ma\0"),
        (b"Ma\0\2", "rest", 4, 8, b"Ma\0\2"),
        (b"Ma\0\2b", "rest", 5, 8, b"Ma\0\2"),
        (b"Ma\0\2bc", "trailer", 6, 8, b"Ma\0\2"),
        (b"Ma\0\2bcT", "trailer", 7, 8, b"Ma\0\2"),
        (b"Ma\0\0", "trailer", 4, 6, b"Ma\0\0"),
    ],
)
def test_feed_eof_inside_a_frame_raises_an_error_that_names_the_part(
    engine: ModuleType, stream: bytes, where: str, received: int, needed: int, header: bytes
) -> None:
    codec = Codec.uint(2, magic=b"M", length_offset=2, trailer=b"TT")
    splitter = engine.Splitter(codec)
    assert splitter.feed(b"Mz\0\0TT" + stream) == [b"z"]
    with pytest.raises(IncompleteFrameError, match=f"inside the {where} ") as caught:
        splitter.feed_eof()
    error = caught.value
    assert isinstance(error, EOFError)
    attributes = (error.where, error.received, error.needed, error.header, error.stream_offset)
    assert attributes == (where, received, needed, header, 6)
    with pytest.raises(IncompleteFrameError) as repeated:
        splitter.feed(b"more")
    assert repeated.value is error
    assert splitter.detach() == stream


# --- max_message_size and on_oversize -------------------------------------------------------------


def test_max_message_size_is_checked_when_the_header_is_complete(engine: ModuleType) -> None:
    codec = Codec.uint(4, length_offset=1, max_message_size=10)
    splitter = engine.Splitter(codec)
    assert splitter.feed(b"t\0\0\0") == []
    with pytest.raises(
        MessageTooLargeError, match=r"message too large: 11 bytes, the limit is 10 "
    ) as caught:
        splitter.feed(b"\x0a")
    # The lead belongs to the message.
    assert (caught.value.size, caught.value.limit, caught.value.stream_offset) == (11, 10, 0)
    assert caught.value.header == b"t\0\0\0\x0a"


def test_on_oversize_skip_discards_exactly_the_oversized_frames(engine: ModuleType) -> None:
    codec = Codec.uint(1, trailer=b"\n", max_message_size=2)
    stream = b"\x03abc\n\x02de\n\xff" + b"x" * 255 + b"\n\x00\n"
    for pieces in cuts(stream):
        splitter = engine.Splitter(codec, on_oversize="skip")
        assert [m for piece in pieces for m in splitter.feed(piece)] == [b"de", b""]
        assert splitter.skipped == 2
        assert splitter.stream_offset == len(stream)
        splitter.feed_eof()


def test_on_oversize_skip_refuses_a_wrong_trailer(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, trailer=b"\n", max_message_size=2), on_oversize="skip")
    with pytest.raises(InvalidFrameError, match="trailer") as caught:
        splitter.feed(b"\x03abcX")
    assert caught.value.header == b"\x03"
    assert splitter.skipped == 0
    assert splitter.detach() == b""


@pytest.mark.parametrize("value", [2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("adjustment", [0, 1, 2**62 - 5, -(2**62) + 1])
def test_max_message_size_does_not_overflow_at_the_largest_lengths(
    engine: ModuleType, value: int, adjustment: int
) -> None:
    header = b"lead" + value.to_bytes(8, "big")
    size = 4 + value + adjustment
    unlimited = Codec.uint(
        8, length_offset=4, length_adjustment=adjustment, trailer=b"TT", max_message_size=None
    )
    limited = unlimited.replace(max_message_size=size - 1)
    with pytest.raises(MessageTooLargeError) as caught:
        engine.Splitter(limited).feed(header)
    assert (caught.value.size, caught.value.limit) == (size, size - 1)
    for codec, on_oversize in [
        (limited, "skip"),
        (unlimited, "raise"),
        (unlimited.replace(max_message_size=size), "raise"),
    ]:
        splitter = engine.Splitter(codec, on_oversize=on_oversize)
        assert splitter.feed(header + bytes(1000)) == []
        assert splitter.bytes_needed == value + adjustment + 2 - 1000
        with pytest.raises(IncompleteFrameError) as incomplete:
            splitter.feed_eof()
        assert incomplete.value.needed == 12 + value + adjustment + 2
        assert incomplete.value.received == 1012


@pytest.mark.parametrize("value", [2**62 - 1, 2**62, 2**63, 2**64 - 1])
@pytest.mark.parametrize("raw", [False, True])
def test_max_message_size_none_accepts_the_largest_length_without_memory(
    engine: ModuleType, value: int, raw: bool
) -> None:
    splitter = engine.Splitter(Codec.uint(8, max_message_size=None), raw=raw)
    stream = value.to_bytes(8, "big") + b"abc"
    assert splitter.feed(stream) == []
    assert splitter.bytes_needed == value - 3
    view = splitter.get_buffer(1 << 20)
    view[:5] = b"defgh"
    assert splitter.buffer_updated(5) == []
    assert splitter.bytes_needed == value - 8
    assert splitter.detach() == stream + b"defgh"


def test_custom_parse_that_returns_more_than_64_bits_is_refused(engine: ModuleType) -> None:
    codec = Codec.custom(
        lambda view: (1, 2 ** (60 + view[0])), lambda message: b"", max_message_size=None
    )
    splitter = engine.Splitter(codec)
    assert splitter.feed(b"\x03") == []
    assert splitter.bytes_needed == 2**63
    with pytest.raises(InvalidFrameError, match="more than 64 bits") as caught:
        engine.Splitter(codec).feed(b"\x04")
    assert caught.value.header == b"\x04"


@pytest.mark.slow
def test_custom_parse_receives_views_in_proportion_to_the_header(
    engine: ModuleType,
) -> None:
    sizes: list[int] = []

    def parse(view: memoryview) -> tuple[int, int] | None:
        sizes.append(len(view))
        return (1000, 1) if len(view) >= 1000 and view[0] else (1, 0) if not view[0] else None

    codec = Codec.custom(parse, lambda message: bytes(1000), max_header=1 << 20)
    splitter = engine.Splitter(codec)
    assert splitter.feed(bytes(100_000)) == [b""] * 100_000
    assert max(sizes) <= 256  # not the whole chunk for each header
    sizes.clear()
    assert splitter.feed(b"\x01" * 1001 + bytes(100_000)) == [b"\x01"] + [b""] * 100_000
    assert sizes[:3] == [256, 512, 1024]


# --- views of the data are released ---------------------------------------------------------------


def test_feed_errors_keep_no_view_of_the_data(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, trailer=b"T"))
    for _ in range(2):  # the second call raises the stored error
        data = bytearray(b"\x01aX")
        with pytest.raises(InvalidFrameError) as caught:
            splitter.feed(data)
        data.clear()
        assert caught.value is splitter.error
    splitter.detach()
    data = bytearray(b"\x01aT")
    with pytest.raises(ValueError, match="detached") as detached:
        splitter.feed(data)
    data.clear()
    assert detached.value is not None


def test_get_buffer_returns_memory_that_the_caller_cannot_resize(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    view = splitter.get_buffer(-1)
    buffer = view.obj
    view[:3] = b"\x02ab"
    view.release()
    with pytest.raises(BufferError):
        buffer.clear()
    assert splitter.buffer_updated(3) == [b"ab"]


# --- specials -------------------------------------------------------------------------------------


def test_feed_returns_a_special_as_its_object_or_as_raw_bytes(engine: ModuleType) -> None:
    value = object()
    codec = Codec.digits(2, specials={0: value, 99: None}, magic=b"#", trailer=b";")
    stream = b"#00#02ab;#99#00"
    for pieces in cuts(stream):
        splitter = engine.Splitter(codec)
        messages = [m for piece in pieces for m in splitter.feed(piece)]
        assert messages == [value, b"ab", None, value]
        raw = engine.Splitter(codec, raw=True)
        assert [m for piece in pieces for m in raw.feed(piece)] == [
            b"#00",
            b"#02ab;",
            b"#99",
            b"#00",
        ]


def test_feed_returns_a_special_none_before_an_error(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.digits(1, specials={0: None}))
    assert splitter.feed(b"0x") == [None]
    with pytest.raises(InvalidFrameError):
        splitter.feed(b"")


# --- get_buffer and buffer_updated ----------------------------------------------------------------


@pytest.mark.parametrize("sizehint", [-1, 0, 1, 1000, 65_536, 10**6, 10**30, -(10**30), True])
def test_get_buffer_returns_writable_memory_of_bounded_size(
    engine: ModuleType, sizehint: int
) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    view = splitter.get_buffer(sizehint)
    assert isinstance(view, memoryview)
    assert not view.readonly
    assert view.format == "B"
    assert view.ndim == 1
    assert min(max(1, sizehint), 2**20) <= len(view) <= 2**20
    view[:3] = b"\x02ab"
    assert splitter.buffer_updated(3) == [b"ab"]


def test_get_buffer_views_that_are_kept_never_change_a_delivered_message(
    engine: ModuleType,
) -> None:
    size = 200_000
    codec = Codec.uint(4)
    splitter = engine.Splitter(codec)
    stream = codec.encode(b"a" * size) + codec.encode(b"b" * size) + codec.encode(b"c" * 100)
    kept, messages, start = [], [], 0
    while start < len(stream):
        view = splitter.get_buffer(-1)
        kept.append(view[1:])
        kept.append(view)
        count = min(len(view), len(stream) - start)
        view[:count] = stream[start : start + count]
        messages += splitter.buffer_updated(count)
        start += count
        for kept_view in kept:  # after the splitter took the bytes
            kept_view[:] = b"\xee" * len(kept_view)
    assert messages == [b"a" * size, b"b" * size, b"c" * 100]


def test_get_buffer_views_never_change_the_pending_bytes(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1, magic=b"MM", trailer=b"TT"))
    for piece in byte_by_byte(b"MM\x02abTTMM\x00TT"):
        view = splitter.get_buffer(10)
        view[:1] = piece
        messages = splitter.buffer_updated(1)
        view[:] = b"\xee" * len(view)
    assert messages == [b""]


def test_buffer_updated_refuses_a_count_that_does_not_fit_the_buffer(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    with pytest.raises(ValueError, match="without a get_buffer"):
        splitter.buffer_updated(0)
    size = len(splitter.get_buffer(-1))
    for count in (size + 1, -1, 10**30, -(10**30)):
        with pytest.raises(ValueError, match=rf"buffer_updated\({count}\)"):
            splitter.buffer_updated(count)
    for count in ("1", 1.0, None):
        with pytest.raises(TypeError):
            splitter.buffer_updated(count)
    splitter.get_buffer(-1)[:2] = b"\x01a"
    assert splitter.buffer_updated(numpy.int64(2)) == [b"a"]
    with pytest.raises(ValueError, match="without a get_buffer"):
        splitter.buffer_updated(1)
    assert splitter.stream_offset == 2


def test_feed_and_buffer_updated_can_alternate(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    view = splitter.get_buffer(-1)
    assert splitter.feed(b"\x03a") == []
    view[:1] = b"b"
    assert splitter.buffer_updated(1) == []
    assert splitter.feed(b"c") == [b"abc"]


class RaisingIndex:
    def __index__(self) -> int:
        raise ZeroDivisionError("no index today")


def test_get_buffer_and_buffer_updated_change_nothing_if_an_index_raises(
    engine: ModuleType,
) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    view = splitter.get_buffer(-1)
    view[:2] = b"\x01a"
    with pytest.raises(ZeroDivisionError):
        splitter.get_buffer(RaisingIndex())
    with pytest.raises(ZeroDivisionError):
        splitter.buffer_updated(RaisingIndex())
    assert splitter.buffer_updated(2) == [b"a"]


# --- detach ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_detach_returns_exactly_the_unread_bytes(engine: ModuleType, name: str) -> None:
    for stream in streams(CODECS[name], size=30, count=6, seed=5):
        for raw in (False, True):
            outcome = expect(CODECS[name], stream, raw=raw)
            if outcome.error not in (None, IncompleteFrameError):
                continue
            for pieces in ([stream], byte_by_byte(stream)):
                splitter = engine.Splitter(CODECS[name], raw=raw)
                for piece in pieces:
                    splitter.feed(piece)
                assert splitter.detach() == outcome.unread


def test_detach_makes_every_later_call_raise_value_error(engine: ModuleType) -> None:
    for broken in (False, True):
        splitter = engine.Splitter(Codec.digits(1))
        view = splitter.get_buffer(-1)
        splitter.feed(b"0x" if broken else b"2a")
        assert splitter.detach() == (b"x" if broken else b"2a")
        calls: list[tuple[Any, ...]] = [
            (splitter.feed, b""),
            (splitter.feed, memoryview(b"0")),
            (splitter.get_buffer, -1),
            (splitter.buffer_updated, 0),
            (splitter.feed_eof,),
            (splitter.detach,),
        ]
        for call, *arguments in calls:
            with pytest.raises(ValueError, match="detached"):
                call(*arguments)
        view[:] = bytes(len(view))  # the caller's view stays valid
        assert (splitter.pending, splitter.skipped) == (0, 0)


# --- the constructor ------------------------------------------------------------------------------


def test_splitter_refuses_anything_but_a_codec(engine: ModuleType) -> None:
    for value in (None, 4, "u32be", Codec, Codec.uint(1).layout, object()):
        with pytest.raises(TypeError, match=r"framecodec\.Codec"):
            engine.Splitter(value)
    with pytest.raises(TypeError):
        engine.Splitter()
    with pytest.raises(TypeError):
        engine.Splitter(Codec.uint(1), True)


@pytest.mark.parametrize("value", ["drop", "", None, "RAISE", True, b"skip"])
def test_on_oversize_accepts_raise_and_skip_only(engine: ModuleType, value: Any) -> None:
    with pytest.raises(ValueError, match=r'"raise" or "skip", not '):
        engine.Splitter(Codec.uint(1), on_oversize=value)


def test_splitter_refuses_copy_and_pickle(engine: ModuleType) -> None:
    # Two splitters that share state would corrupt each other.
    splitter = engine.Splitter(Codec.uint(1))
    for function in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            function(splitter)


# --- Codec.custom ---------------------------------------------------------------------------------

INVALID_RESULTS: dict[str, Any] = {
    "a number": 3,
    "a text": "ab",
    "True": True,
    "too few": (1,),
    "too many": (1, 2, b"", 4),
    "a size that is not a number": ("1", 2),
    "a fraction": (1, 2.0),
    "a bool": (True, 2),
    "no header": (0, 2),
    "a negative header": (-1, 2),
    "a header above the limit": (65, 2),
    "a negative rest": (1, -1),
    "a lead of text": (1, 2, "lead"),
    "a lead that is a number": (1, 2, 5),
    "nothing at all": (),
}


@pytest.mark.parametrize("result", INVALID_RESULTS.values(), ids=INVALID_RESULTS.keys())
def test_custom_parse_that_returns_an_invalid_result_makes_the_frame_invalid(
    engine: ModuleType, result: Any
) -> None:
    codec = Codec.custom(lambda view: result if view[0] else (1, 0), lambda message: b"\0")
    splitter = engine.Splitter(codec)
    assert splitter.feed(b"\0\0\1abc") == [b"", b""]
    with pytest.raises(InvalidFrameError, match=r"parse\(\) must return") as caught:
        splitter.feed(b"")
    assert (caught.value.stream_offset, caught.value.header) == (2, b"\1")
    assert splitter.detach() == b"\1abc"


def test_custom_parse_that_raises_makes_the_frame_invalid(engine: ModuleType) -> None:
    def parse(view: memoryview) -> tuple[int, int]:
        if view[0] == 2:
            raise KeyError("the reason")
        return 1, 0

    splitter = engine.Splitter(Codec.custom(parse, lambda message: b"\0"))
    assert splitter.feed(b"\0") == [b""]
    with pytest.raises(InvalidFrameError, match="KeyError: 'the reason'") as caught:
        splitter.feed(b"\2")
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.stream_offset == 1


def test_custom_parse_that_never_ends_stops_at_max_header(engine: ModuleType) -> None:
    codec = Codec.custom(lambda view: None, lambda message: b"", magic=b"MM", max_header=5)
    stream = b"MM" + b"x" * 50
    outcome = check(engine, codec, stream, cuts(stream))
    assert outcome.error is InvalidFrameError
    assert outcome.attributes["header"] == b"MMxxxxx"


def test_custom_parse_receives_a_view_that_it_may_keep(engine: ModuleType) -> None:
    kept: list[memoryview] = []

    def parse(view: memoryview) -> tuple[int, int] | None:
        kept.append(view)
        return (2, 1) if len(view) >= 2 else None

    splitter = engine.Splitter(Codec.custom(parse, lambda message: b"ab", magic=b"M"))
    view = splitter.get_buffer(-1)
    view[:2] = b"Ma"
    assert splitter.buffer_updated(2) == []
    view = splitter.get_buffer(-1)
    view[:2] = b"bc"
    assert splitter.buffer_updated(2) == [b"c"]
    view[:] = bytes(len(view))
    assert [bytes(view) for view in kept] == [b"a", b"abc"]
    assert all(view.readonly for view in kept)


def test_custom_parse_that_calls_its_splitter_is_refused_and_changes_nothing(
    engine: ModuleType,
) -> None:
    refusals: list[str] = []

    def parse(view: memoryview) -> tuple[int, int]:
        for call in (
            lambda: splitter.feed(b"\5"),
            lambda: splitter.get_buffer(-1),
            lambda: splitter.buffer_updated(1),
            splitter.feed_eof,
            splitter.detach,
        ):
            with pytest.raises(RuntimeError, match="in use") as caught:
                call()
            refusals.append(str(caught.value))
        return 1, view[0]

    splitter = engine.Splitter(Codec.custom(parse, lambda message: bytes([len(message)])))
    splitter.get_buffer(-1)
    assert splitter.feed(b"\1a\2b") == [b"a"]
    assert splitter.feed(b"c\1") == [b"bc"]
    assert splitter.feed(b"d") == [b"d"]
    assert splitter.stream_offset == 7
    assert len(refusals) >= 15


def test_custom_parse_that_does_not_catch_the_refusal_makes_the_frame_invalid(
    engine: ModuleType,
) -> None:
    splitter = engine.Splitter(Codec.custom(lambda view: splitter.feed(b"x"), lambda m: b""))
    with pytest.raises(InvalidFrameError, match="RuntimeError: the splitter is in use"):
        splitter.feed(b"a")
    assert splitter.detach() == b"a"


def test_feed_of_fixed_messages_waits_for_the_magic(engine: ModuleType) -> None:
    codec = Codec.fixed(4, magic=b"MAG")
    for pieces in cuts(codec.encode(b"abcd") + codec.encode(b"efgh"), count=0):
        splitter = engine.Splitter(codec)
        assert [message for piece in pieces for message in splitter.feed(piece)] == [
            b"abcd",
            b"efgh",
        ]
        assert splitter.pending == 0
    splitter = engine.Splitter(codec)
    splitter.feed(b"MA")
    assert (splitter.pending, splitter.pending_header, splitter.bytes_needed) == (2, b"MA", 1)


# --- repr -----------------------------------------------------------------------------------------


def test_repr_says_the_codec_the_bytes_held_and_the_state(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(2, max_message_size=5)
    splitter = engine_in_use.Splitter(codec)
    assert repr(splitter) == f"<Splitter {codec!r}, 0 bytes pending at stream offset 0>"
    splitter.feed(b"\x00\x01a\x00\x05he")
    assert repr(splitter) == f"<Splitter {codec!r}, 4 bytes pending at stream offset 3>"
    wider = Codec.uint(4)
    splitter.switch(wider)
    assert repr(splitter) == f"<Splitter {wider!r}, 4 bytes pending at stream offset 3>"
    splitter.switch(codec)
    assert splitter.feed(b"llo\x00\x06") == [b"hello"]
    state = "the next call raises MessageTooLargeError, 2 bytes pending"
    assert repr(splitter) == f"<Splitter {codec!r}, {state}>"
    splitter.detach()
    assert repr(splitter) == f"<Splitter {codec!r}, detached>"


def test_repr_inside_a_call_and_of_objects(engine_in_use: ModuleType) -> None:
    shown: list[str] = []

    def loads(data: bytes) -> str:
        shown.append(repr(splitter))
        return data.decode()

    codec = Codec.uint(1).with_objects(str.encode, loads)
    splitter = engine_in_use.Splitter(codec)
    assert splitter.feed(b"\x01a") == ["a"]
    assert shown == [f"<Splitter {codec!r}, 0 bytes pending at stream offset 2>"]
    splitter.feed(b"\x01b\x01\xff")
    assert "the next call raises InvalidMessageError" in repr(splitter)


def test_second_call_of_init_changes_nothing(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(2))
    assert splitter.feed(b"\0\2a") == []
    splitter.__init__(Codec.uint(8), raw=True)  # type: ignore[misc]
    assert splitter.feed(b"b") == [b"ab"]


def test_feed_takes_a_buffer_that_cast_does_not_take(engine: ModuleType) -> None:
    nothing = numpy.zeros((0, 3), "u1")
    with pytest.raises(TypeError, match="zeros in shape"):
        memoryview(nothing).cast("B")
    assert engine.Splitter(Codec.uint(1)).feed(nothing) == []
    assert engine.Encoder(Codec.uint(1)).encode(nothing) == b"\0"


def test_growing_spans_give_no_array() -> None:
    import gc

    from framecodec import _splitter_py

    found: list[str] = []
    gc.collect()
    others = {id(one) for one in gc.get_objects() if type(one) is _splitter_py.Spans}

    def parse(view: memoryview) -> tuple[int, int]:
        for one in gc.get_objects():
            if type(one) is _splitter_py.Spans and id(one) not in others:
                with pytest.raises(BufferError) as caught:
                    numpy.asarray(one)
                found.append(str(caught.value))
        return 1, view[0]

    codec = Codec.custom(parse, lambda message: bytes([len(message)]))
    assert list(map(bytes, _splitter_py.scan(codec, b"\1a"))) == [b"a"]
    assert found
