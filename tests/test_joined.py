"""`Codec.joined`: messages of several frames."""

from __future__ import annotations

import pickle
import re
import tracemalloc
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
    parse_codec,
)
from tests.helpers.chunking import byte_by_byte
from tests.helpers.reference_parser import check

RECORD = Codec.uint(4, length_mask=0x7FFFFFFF, max_message_size=None)
RPC = Codec.joined(RECORD, last=(0, 0x80, 0x80), strip=1, fragment_size=4, max_message_size=20)
SEQUENCED = Codec.uint(1, length_adjustment=1)
PACKETS = Codec.joined(SEQUENCED, full=4, strip=1, keep_first=True, counter=1, max_fragments=4)
# As TDS: type, status with the last bit, size of the whole packet, 4 bytes with a number.
TDS = Codec.joined(
    Codec.uint(2, length_offset=2, length_includes="frame"),
    last=(1, 0x01, 0x01),
    strip=6,
    keep_first=True,
    counter=6,
    fragment_size=3,
)


@pytest.mark.parametrize(
    ("codec", "message", "frame"),
    [
        (RPC, b"", b"\x80\0\0\0"),
        (RPC, b"abcd", b"\x80\0\0\4abcd"),
        (RPC, b"abcdef", b"\0\0\0\4abcd\x80\0\0\2ef"),
        (PACKETS, b"\7", b"\0\7"),
        (PACKETS, b"\7abc", b"\3\7abc"),
        (PACKETS, b"\7abcd", b"\4\7abcd\0\x08"),
        (PACKETS, b"\xffabcdefgh", b"\4\xffabcd\4\0efgh\0\1"),
        (
            TDS,
            b"\x12\0\1\2\xfe\0abcdefg",
            b"\x12\0\0\x0b\1\2\xfe\0abc\x12\0\0\x0b\1\2\xff\0def\x12\1\0\x09\1\2\0\0g",
        ),
    ],
)
def test_a_message_is_cut_into_fragments(
    engine: ModuleType, codec: Codec, message: bytes, frame: bytes
) -> None:
    encoder = engine.Encoder(codec)
    assert encoder.encode(message) == frame
    assert encoder.encode_many([message, bytearray(message)]) == 2 * frame
    assert b"".join(encoder.frame_parts(memoryview(message))) == frame
    splitter = engine.Splitter(codec)
    assert [m for byte in byte_by_byte(2 * frame) for m in splitter.feed(byte)] == [message] * 2
    assert engine.Splitter(codec).feed(2 * frame) == [message] * 2
    assert engine.Splitter(codec, raw=True).feed(2 * frame) == [frame] * 2


def test_frame_parts_copies_no_content(engine: ModuleType) -> None:
    parts = engine.Encoder(RPC).frame_parts(b"abcdef")
    assert parts == [b"\0\0\0\4", b"abcd", b"\x80\0\0\2", b"ef"]
    assert [type(part) for part in parts[1::2]] == [memoryview] * 2


def test_fragments_of_any_size_are_read(engine: ModuleType) -> None:
    stream = b"\0\0\0\0" + b"\0\0\0\1a" + b"\0\0\0\0" + b"\0\0\0\7bcdefgh" + b"\x80\0\0\0"
    check(engine, RPC, stream + stream, [[2 * stream], byte_by_byte(2 * stream)])
    assert engine.Splitter(RPC).feed(stream) == [b"abcdefgh"]


def test_counters_are_not_verified(engine: ModuleType) -> None:
    assert engine.Splitter(PACKETS).feed(b"\4\7abcd\1\x63e") == [b"\7abcde"]


def test_the_bits_of_the_last_fragment_are_the_codecs(engine: ModuleType) -> None:
    for status in (0, 1):
        frame = b"\x12%c\0\x08\1\2\3\0" % status
        stream = frame if status else frame + b"\x12\1\0\x08\1\2\3\0"
        assert engine.Splitter(TDS).feed(stream) == [b"\x12\0\1\2\3\0"]
    with pytest.raises(InvalidFrameError, match=r"0x01 of its byte 1 mark the last fragment"):
        engine.Encoder(TDS).encode(b"\x12\1\1\2\3\0")


# --- limits ---------------------------------------------------------------------------------------


def test_the_sum_of_the_fragments_is_limited_as_soon_as_it_is_declared(engine: ModuleType) -> None:
    splitter = engine.Splitter(RPC, stream_offset=100)
    assert splitter.feed(b"\0\0\0\x0aabcdefghij" + b"\0\0\0") == []
    with pytest.raises(MessageTooLargeError) as raised:
        splitter.feed(b"\x0b")
    error = raised.value
    assert (error.size, error.limit, error.stream_offset) == (21, 20, 100)
    assert error.header == b"\0\0\0\x0b"
    assert splitter.pending == 18
    assert splitter.detach() == b"\0\0\0\x0aabcdefghij\0\0\0\x0b"
    with pytest.raises(MessageTooLargeError, match="21 bytes, the limit is 20"):
        engine.Encoder(RPC).encode(bytes(21))


MARKED = Codec.joined(
    Codec.uint(2, magic=b"M", length_mask=0x7FFF, trailer=b"\n"),
    last=(1, 0x80, 0x80),
    strip=1,
    max_message_size=9,
    max_fragments=2,
)


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"M\x80\0\nM\0\x0a", r"the frame at stream offset 104 begins b'M\x00\n'; check"),
        (
            b"M\x80\0\nM\0\5abcde\nM\x80\6",
            r"fragment 2 of the message at stream offset 104 begins b'M\x80\x06'; check",
        ),
        (b"M\0\1aX", r"(frame begins b'M\x00\x01')"),
        (b"M\0\1a\nN", "invalid frame at stream offset 100: wrong first bytes"),
        (b"M\0\1a\nN", "(fragment 2 begins b'N')"),
        (b"M\0\1a\nM\x80\1bX", r"(fragment 2 begins b'M\x80\x01')"),
        (b"M\0\1a\nM\0\1b\nM\0\1", r"(fragment 3 begins b'M\x00\x01')"),
    ],
)
def test_errors_name_the_fragment_whose_bytes_they_show(
    engine: ModuleType, stream: bytes, text: str
) -> None:
    for pieces in ([stream], [stream[n : n + 1] for n in range(len(stream))]):
        for options in ({}, {"raw": True}, {"one_at_a_time": True}):
            splitter = engine.Splitter(MARKED, stream_offset=100, **options)
            with pytest.raises(FrameError, match=re.escape(text)):
                [splitter.feed(piece) for piece in [*pieces, b"", b""]]
    splitter = engine.Splitter(MARKED, stream_offset=100, on_invalid="resync")
    splitter.feed(stream)
    if splitter.resyncs == 1:  # else a later fragment was read as a message, and is bad as well
        assert text in str(splitter.last_invalid)
    if stream.startswith(b"M\0"):  # decode and scan begin at 0
        for call in (MARKED.decode, MARKED.split, lambda data: [*MARKED.scan(data, raw=True)]):
            with pytest.raises(FrameError, match=re.escape(text.replace("100", "0"))):
                call(stream)


def test_a_fragment_is_held_to_its_own_limit(engine: ModuleType) -> None:
    codec = Codec.joined(RECORD.replace(max_message_size=5), last=(0, 0x80, 0x80), strip=1)
    assert engine.Splitter(codec).feed(b"\0\0\0\4abcd\x80\0\0\4efgh") == [b"abcdefgh"]
    with pytest.raises(MessageTooLargeError, match="6 bytes, the limit is 5"):
        engine.Splitter(codec).feed(b"\x80\0\0\5")


@pytest.mark.parametrize("content", [b"", b"a"])
def test_fragments_without_end_are_invalid(engine: ModuleType, content: bytes) -> None:
    codec = RPC.replace(max_fragments=3)
    fragment = b"\0\0\0%c" % len(content) + content
    splitter = engine.Splitter(codec, stream_offset=7)
    assert splitter.feed(3 * fragment) == []
    with pytest.raises(InvalidFrameError, match=r"fragment 4 of one message, the limit is 3") as r:
        splitter.feed(fragment)
    assert r.value.stream_offset == 7
    assert splitter.detach() == 4 * fragment
    with pytest.raises(InvalidFrameError, match="need 4 fragments, the limit is 3"):
        engine.Encoder(codec).encode(bytes(13))
    assert len(engine.Encoder(codec).encode(bytes(12))) == 24


def test_a_fragment_shorter_than_what_is_stripped_is_invalid(engine: ModuleType) -> None:
    codec = Codec.joined(Codec.uint(1), full=5, strip=2)
    with pytest.raises(InvalidFrameError, match=r"a fragment of 1 bytes, but each has 2 bytes"):
        engine.Splitter(codec).feed(b"\1")


def test_an_oversized_message_is_skipped_whole_in_constant_memory(engine: ModuleType) -> None:
    codec = RPC.replace(max_message_size=100_000, max_fragments=10_000)
    splitter = engine.Splitter(codec, on_oversize="skip")
    fragment = b"\0\0\xff\xff" + bytes(0xFFFF)
    tracemalloc.start()
    try:
        for _ in range(100):
            assert splitter.feed(fragment) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert splitter.feed(b"\x80\0\0\1z" + b"\x80\0\0\1y") == [b"y"]
    assert splitter.skipped == 1


def test_a_declared_size_reserves_nothing(engine: ModuleType) -> None:
    codec = RPC.replace(max_message_size=None)
    splitter = engine.Splitter(codec)
    tracemalloc.start()
    try:
        splitter.feed(b"\0\0\0\4abcd" + b"\x7f\xff\xff\xff" + bytes(1000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000
    assert splitter.pending == 1012


# --- the rest of the splitter's interface ---------------------------------------------------------


def test_pending_detach_and_the_end_count_all_fragments(engine: ModuleType) -> None:
    frame = b"\0\0\0\4abcd" + b"\0\0\0\2ef" + b"\x80\0\0\3ghi"
    for raw in (False, True):
        for stop in range(1, len(frame)):
            splitter = engine.Splitter(RPC, raw=raw)
            splitter.feed(frame[:stop])
            assert splitter.pending == stop
            assert splitter.stream_offset == 0
            with pytest.raises(IncompleteFrameError, match=r"frame begins b'\\x00") as raised:
                splitter.feed_eof()
            assert raised.value.received == stop
            assert splitter.detach() == frame[:stop]


def test_one_message_a_call_and_switch_between_fragments(engine: ModuleType) -> None:
    frame = b"\0\0\0\1a\x80\0\0\1b"
    splitter = engine.Splitter(RPC, one_at_a_time=True)
    assert splitter.feed(3 * frame) == [b"ab"]
    assert splitter.feed(b"") == [b"ab"]
    assert splitter.stream_offset == 2 * len(frame)
    assert splitter.detach() == frame
    splitter = engine.Splitter(RPC)
    assert splitter.feed(frame + frame[:6]) == [b"ab"]
    assert splitter.switch(Codec.uint(4)) == [b"a"]
    assert splitter.stream_offset == len(frame) + 5


def test_headers_rebuild_what_travelled(engine: ModuleType) -> None:
    from framecodec._kept_headers import frames_as_travelled

    stream = b"\0\0\0\1a\0\0\0\0\x80\0\0\1b" + b"\x80\0\0\1c"
    for pieces in ([stream], byte_by_byte(stream)):
        splitter = engine.Splitter(RPC, keep_headers=True)
        messages, headers = [], []
        for piece in pieces:
            found = splitter.feed(piece)
            messages += found
            headers += splitter.headers or [] if found else []
        assert messages == [b"ab", b"c"]
        assert frames_as_travelled(RPC, messages, headers, b"") == stream


def test_scan_finds_whole_messages(engine: ModuleType) -> None:
    frame = b"\0\0\0\1a\x80\0\0\1b"
    spans = engine.scan(RPC, frame + b"\x80\0\0\0" + frame[:7], raw=True)
    assert [bytes(span) for span in spans] == [frame, b"\x80\0\0\0"]
    assert spans.consumed == len(frame) + 4
    with pytest.raises(ValueError, match="in several pieces of the data"):
        engine.scan(RPC, frame)


def test_resync_looks_for_the_magic_of_the_fragments(engine: ModuleType) -> None:
    codec = Codec.joined(
        Codec.uint(1, length_offset=3, magic=b"JJ"), last=(2, 0xFF, 1), strip=1, max_message_size=5
    )
    good = b"JJ\0\1aJJ\1\1b"
    bad = b"JJ\0\1xJJ\1\x09"  # too large
    for pieces in ([bad + good], byte_by_byte(bad + good)):
        splitter = engine.Splitter(codec, on_invalid="resync")
        # The bad message's second fragment is the first one that is looked at again.
        assert [m for piece in pieces for m in splitter.feed(piece)] == [b"ab"]
        assert splitter.resyncs == 2
        assert splitter.discarded == len(bad)
    with pytest.raises(ValueError, match="begin with a mark"):
        engine.Splitter(RPC, on_invalid="resync")


def test_objects_of_joined_frames(engine: ModuleType) -> None:
    codec = RPC.with_objects(lambda text: text.encode(), lambda data: data.decode())
    splitter = engine.Splitter(codec)
    assert splitter.feed(b"\0\0\0\1a\x80\0\0\1b") == ["ab"]
    assert codec.encode("abcdef") == b"\0\0\0\4abcd\x80\0\0\2ef"


# --- the codec as a value -------------------------------------------------------------------------


def test_a_joined_codec_is_a_value() -> None:
    same = eval(repr(PACKETS), {"Codec": Codec})
    assert same == PACKETS
    assert hash(same) == hash(PACKETS)
    assert pickle.loads(pickle.dumps(RPC)) == RPC
    assert RPC.replace(fragment_size=5) != RPC
    assert RPC.replace(fragment_size=5).encode(b"abcdef") == b"\0\0\0\5abcde\x80\0\0\1f"
    assert str(RPC) == repr(RPC)
    assert parse_codec(str(Codec.uint(4))) == Codec.uint(4)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, "exactly one of last and full"),
        ({"last": (0, 0x80, 0x80), "full": 5}, "exactly one of last and full"),
        ({"last": (0, 0x80)}, r"last must be \(offset, mask, value\)"),
        ({"last": (0, 0x80, 1)}, "0x01 has bits outside the mask 0x80"),
        ({"last": (0, 0x40, 0x40)}, "bits of the length field"),
        ({"last": (9, 0x80, 0x80)}, "among the bytes that strip takes off"),
        ({"last": (0, 0x80, 0x80), "strip": 0}, "at least 1, the size of the lead"),
        ({"last": (0, 0x80, 0x80), "counter": 0}, "counter: the byte at offset 0"),
        ({"last": (0, 0x80, 0x80), "strip": 3, "counter": 9}, "counter: the byte at offset 9"),
        ({"full": 5, "fragment_size": 5}, "fragment_size has no meaning with full"),
        ({"full": 5, "strip": 1, "max_fragments": 0}, "max_fragments must be from 1"),
        ({"last": (0, 0x80, 0x80), "fragment_size": 0}, "fragment_size must be from 1"),
        ({"last": (0, 0x80, 0x80), "magic": b"a"}, "magic has no meaning"),
        ({"last": (0, 0x80, 0x80), "keep_first": 1}, "keep_first must be a bool"),
        ({"last": (5, 1, 1), "strip": 3, "counter": 5}, "counter=5 and last have the same byte"),
    ],
)
def test_contradictory_parameters_are_named(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        Codec.joined(RECORD, **{"strip": 1, **parameters})


@pytest.mark.parametrize(
    ("fragments", "text"),
    [
        (Codec.varint(), "length field of fixed width"),
        (Codec.uint(1, wider={255: "u16be"}), "without wider"),
        (Codec.uint(1, specials={0: None}), "cannot have specials"),
        (Codec.uint(1, align=4), "cannot have align"),
        (RPC, "cannot be a codec of joined"),
        (Codec.choice({None: Codec.uint(1)}), "length field of fixed width"),
        (Codec.uint(2, constants={4: b"x"}), "in the content of the fragments"),
        (Codec.uint(1, max_message_size=1), "leaves no content"),
    ],
)
def test_fragments_that_cannot_be_joined(fragments: Codec, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Codec.joined(fragments, full=5, strip=1)
    with pytest.raises(ValueError, match="cannot be an alternative of a choice"):
        Codec.choice({None: RPC})


def test_keep_first_needs_bytes_that_are_stripped() -> None:
    with pytest.raises(ValueError, match="keep_first=True has no meaning with strip=0"):
        Codec.joined(Codec.uint(2), full=5, strip=0, keep_first=True)


def test_the_byte_that_marks_the_last_fragment_cannot_be_a_constant() -> None:
    fragments = Codec.uint(2, constants={2: b"\1"})
    with pytest.raises(ValueError, match="last: the byte at offset 2 is a constant"):
        Codec.joined(fragments, last=(2, 1, 1), strip=1)


def test_a_full_fragment_must_have_a_length() -> None:
    fragments = Codec.uint(2, length_unit=4)
    with pytest.raises(ValueError, match=r"a content of 6 bytes: .* units of 4"):
        Codec.joined(fragments, full=6)


def test_fragments_must_be_a_codec() -> None:
    with pytest.raises(TypeError, match=r"must be a framecodec\.Codec"):
        Codec.joined("u32be", full=5)  # type: ignore[arg-type]


def test_fragments_with_packed_digits_have_a_smallest_size(engine: ModuleType) -> None:
    packed = Codec.joined(Codec.digits(1, base="bcd"), full=12)
    assert engine.Encoder(packed).encode(b"abcdefghijklmn") == b"\x12abcdefghijkl\x02mn"
    assert engine.Splitter(packed).feed(b"\x12abcdefghijkl\x02mn") == [b"abcdefghijklmn"]
    least = Codec.joined(Codec.uint(1, min_message_size=2), full=4)
    with pytest.raises(InvalidFrameError, match="too small"):
        engine.Encoder(least).encode(b"a")


@pytest.mark.parametrize(
    ("codec", "good", "bad", "reason"),
    [
        (Codec.joined(Codec.uint(1, trailer=b"!"), full=4), b"\2ab!", b"\2ab?", "trailer"),
        (
            Codec.joined(Codec.uint(1, constants={1: b"c"}), full=4, strip=1),
            b"\3cab",
            b"\3xab",
            "byte 1 of a frame is b'c', found b'x'",
        ),
    ],
)
def test_a_wrong_fragment_is_an_error_after_the_messages_before_it(
    engine: ModuleType, codec: Codec, good: bytes, bad: bytes, reason: str
) -> None:
    splitter = engine.Splitter(codec)
    assert splitter.feed(good + bad + good) == [b"ab"]
    with pytest.raises(InvalidFrameError, match=reason):
        splitter.feed(b"")
    assert splitter.detach() == bad + good
