"""`Codec.delimiter` and `Codec.cobs`: which bytes end a message, and which messages have a frame.

The tests of all codecs (test_splitter.py, test_engines_equal.py, ...) draw them, too.
"""

from __future__ import annotations

import functools
import itertools
import operator
import pickle
import random
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Check,
    ChecksumError,
    Codec,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
    parse_codec,
)
from framecodec._kept_headers import frames_as_travelled
from tests.helpers import reference_parser
from tests.helpers.sample_codecs import CODECS

LINES = Codec.delimiter(b"\n", b"\r\n")
SLIP = Codec.delimiter(
    b"\xc0", escape={b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}, skip_empty=True
)
DLE = Codec.delimiter(b"\x10\x03", magic=b"\x10\x02", escape={b"\x10": b"\x10\x10"})
ANY_NEWLINE = Codec.delimiter(b"\r\n", b"\r", b"\n")


def fed(engine: ModuleType, codec: Codec, *chunks: bytes, **options: Any) -> list[Any]:
    splitter = engine.Splitter(codec, **options)
    return [splitter.feed(chunk) for chunk in chunks]


# --- end marks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "stream", "messages"),
    [
        (Codec.delimiter(), b"a\n\nb\r\nc", [b"a", b"", b"b\r"]),
        (LINES, b"a\n\r\nb\r\rc\r\nd", [b"a", b"", b"b\r\rc"]),
        (Codec.delimiter(b"\0", skip_empty=True), b"\0\0a\0\0b\0", [b"a", b"b"]),
        (Codec.cobs(), b"\2a\0\0\0\2b\0", [b"a", b"b"]),
        (Codec.delimiter(b"\x1c\r", magic=b"\x0b"), b"\x0ba\rb\x1c\x1c\r", [b"a\rb\x1c"]),
        (Codec.delimiter(b"aab"), b"aaaab", [b"aa"]),
        (Codec.delimiter(b"b", b"aab"), b"xaab", [b"x"]),
        (Codec.delimiter(b"bc", b"abcd"), b"zabcd", [b"z"]),
        (Codec.delimiter(b"bc", b"abcd"), b"zabce", [b"za"]),
        (ANY_NEWLINE, b"a\rb\nc\r\nd\n\re\r\r\n", [b"a", b"b", b"c", b"d", b"", b"e", b""]),
    ],
)
def test_the_earliest_mark_ends_a_message_however_the_stream_is_cut(
    engine: ModuleType, codec: Codec, stream: bytes, messages: list[bytes]
) -> None:
    for size in range(len(stream) + 1):
        for other in range(size, len(stream) + 1):
            chunks = stream[:size], stream[size:other], stream[other:]
            delivered = fed(engine, codec, *chunks)
            assert list(itertools.chain(*delivered)) == messages, chunks


def test_a_message_is_delivered_at_the_shorter_mark_and_the_rest_of_a_longer_one_is_ignored(
    engine: ModuleType,
) -> None:
    splitter = engine.Splitter(ANY_NEWLINE)
    assert splitter.feed(b"a\r") == [b"a"]
    assert (splitter.pending, splitter.stream_offset) == (0, 2)
    assert splitter.feed(b"\n") == []
    assert (splitter.pending, splitter.stream_offset) == (0, 3)
    assert splitter.feed(b"\r") == [b""]
    splitter.feed_eof()
    assert splitter.detach() == b""


def test_an_undecided_remainder_belongs_to_the_next_frame_until_it_is_whole(
    engine: ModuleType,
) -> None:
    codec = Codec.delimiter(b"!", b"a", b"abc")
    splitter = engine.Splitter(codec)
    assert splitter.feed(b"xab") == [b"x"]
    assert (splitter.pending, splitter.stream_offset) == (1, 2)
    assert splitter.feed(b"!") == [b"b"]
    assert splitter.feed(b"ya") == [b"y"]
    assert splitter.feed(b"b") == splitter.feed(b"c") == []
    assert (splitter.pending, splitter.stream_offset) == (0, 8)
    assert splitter.feed(b"ab") == [b""]
    assert splitter.detach() == b"b"


@pytest.mark.parametrize("seed", range(4))
def test_marks_that_overlap_are_read_as_the_reference_reads_them(
    engine: ModuleType, seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        marks = {"".join(rng.choices("ab", k=rng.randint(1, 4))).encode() for _ in range(3)}
        ordered = rng.sample(sorted(marks), len(marks))
        try:
            codec = Codec.delimiter(*ordered, max_message_size=9)
        except ValueError:  # the first mark begins another
            continue
        stream = bytes(rng.choices(b"abc", weights=(3, 3, 1), k=16))
        ways = [[stream], [stream[i : i + 1] for i in range(16)]]
        ways += [[stream[:size], stream[size:]] for size in range(1, 16)]
        for raw, skip in itertools.product((False, True), repeat=2):
            reference_parser.check(engine, codec, stream, ways, raw=raw, skip=skip)
        message = bytes(rng.choices(b"abc", k=rng.randint(0, 6)))
        comes_back = reference_parser.expect(codec, message + ordered[0])
        is_whole = comes_back.messages == [message] and comes_back.error is None
        encoder = engine.Encoder(codec)
        for verb in (encoder.encode, lambda m, e=encoder: e.encode_many([m])):
            if is_whole:
                assert verb(message) == message + ordered[0]
            else:
                with pytest.raises(InvalidFrameError, match="contains the end mark"):
                    verb(message)


# --- messages that have no frame ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "message", "text"),
    [
        (Codec.delimiter(), b"a\nb", "contains the end mark"),
        (LINES, b"a\r", "contains the end mark"),
        (Codec.delimiter(b"aba"), b"ab", "contains the end mark"),
        (Codec.delimiter(b"bc", b"abcd"), b"a", "contains the end mark"),
        (Codec.delimiter(b"\0", skip_empty=True), b"", "empty"),
        (SLIP, b"", "empty"),
        (Codec.delimiter(min_message_size=2), b"a", "message too small"),
        (Codec.cobs(min_message_size=2), b"a", "message too small"),
    ],
)
def test_a_message_that_would_not_come_back_cannot_be_encoded(
    engine: ModuleType, codec: Codec, message: bytes, text: str
) -> None:
    encoder = engine.Encoder(codec)
    for form in (bytes, bytearray, memoryview):
        for verb in (encoder.encode, encoder.frame_parts, lambda m: encoder.encode_many([m])):
            with pytest.raises(InvalidFrameError, match=text):
                verb(form(message))


@pytest.mark.parametrize("name", [n for n in CODECS if CODECS[n].kind in ("delimiter", "cobs")])
def test_every_message_comes_back_or_is_refused(engine: ModuleType, name: str) -> None:
    codec = CODECS[name]
    rng, encoder = random.Random(name), engine.Encoder(codec)
    letters = b"".join(
        [codec.parameters.get("end", b"\0"), *codec.parameters.get("more_ends", ()), b"a\0\x01"]
    )
    encoded = 0
    for _ in range(300):
        message = bytes(rng.choices(letters, k=rng.randint(0, 8)))
        try:
            frame = encoder.encode(message)
        except (InvalidFrameError, MessageTooLargeError):
            continue
        encoded += 1
        assert b"".join(encoder.frame_parts(bytearray(message))) == frame
        assert encoder.encode_many([message] * 2) == frame * 2
        assert fed(engine, codec, frame * 2) == [[message] * 2]
    assert encoded


@pytest.mark.parametrize("name", [n for n in CODECS if CODECS[n].kind in ("delimiter", "cobs")])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 33, 253, 254, 255, 300, 5000])
def test_a_batch_is_the_frames_of_its_messages_wherever_an_odd_byte_is(
    engine: ModuleType, name: str, size: int
) -> None:
    codec = CODECS[name].replace(max_message_size=None, min_message_size=0)
    encoder = engine.Encoder(codec)
    if codec.kind == "cobs":
        marks = [b"\0"]
    else:
        marks = [codec.parameters["end"], *codec.parameters["more_ends"]]
    odd = {mark[at : at + 1] for mark in marks for at in range(len(mark))}
    odd |= {*(codec.parameters.get("escape") or {})}
    quiet = b"a" * size
    for byte, at in itertools.product(sorted(odd), {0, size // 2, size - 1}):
        message = quiet[:at] + byte + quiet[at + 1 :]
        batch = [quiet, message, quiet]
        try:
            frames = [*map(encoder.encode, batch)]
        except InvalidFrameError:
            with pytest.raises(InvalidFrameError):
                encoder.encode_many(batch)
        else:
            assert encoder.encode_many(batch) == b"".join(frames)
            assert b"".join(encoder.frame_parts(message)) == frames[1]
            assert fed(engine, codec, b"".join(frames)) == [batch]


# --- limits ---------------------------------------------------------------------------------------


def test_a_message_above_the_limit_is_an_error_as_soon_as_that_is_certain(
    engine: ModuleType,
) -> None:
    splitter = engine.Splitter(LINES.replace(max_message_size=3))
    assert splitter.feed(b"ab\nabc\r") == [b"ab"]
    with pytest.raises(MessageTooLargeError) as caught:
        splitter.feed(b"\r")
    error = caught.value
    assert (error.size, error.limit, error.stream_offset, error.header) == (None, 3, 3, b"")
    assert "no end mark within 3 bytes" in str(error)
    assert r"begins b'abc\r'" in str(error)
    assert splitter.detach() == b"abc\r\r"


def test_an_endless_stream_without_a_mark_is_skipped_in_constant_memory(
    engine: ModuleType,
) -> None:
    import tracemalloc

    splitter = engine.Splitter(LINES.replace(max_message_size=1000), on_oversize="skip")
    chunk = b"x" * 4096
    splitter.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(2000):
            assert splitter.feed(chunk) == []
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()
    assert splitter.skipped == 0
    assert splitter.feed(b"y\r\nz\r\n") == [b"z"]
    assert splitter.skipped == 1


def test_text_of_an_end_inside_a_message_shows_its_first_bytes(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.delimiter(b"\x1c\r", magic=b"\x0b"))
    assert splitter.feed(b"\x0bMSH|\x1c") == []
    with pytest.raises(IncompleteFrameError) as caught:
        splitter.feed_eof()
    assert (caught.value.where, caught.value.received, caught.value.needed) == ("rest", 6, None)
    assert r"(frame begins b'\x0bMSH|\x1c')" in str(caught.value)


def test_the_smallest_size_counts_at_the_end_mark(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.delimiter(min_message_size=2))
    assert splitter.feed(b"ab\na") == [b"ab"]
    with pytest.raises(InvalidFrameError, match="1 bytes, the smallest has 2"):
        splitter.feed(b"\n")


def test_a_pending_message_is_not_searched_again(engine: ModuleType) -> None:
    """Its bytes are fed one by one: searching them again would take minutes."""
    splitter = engine.Splitter(Codec.delimiter(b"ab", b"xab", b"\r\n"))
    feed = splitter.feed
    for _ in range(150_000):
        feed(b"a")
    assert splitter.feed(b"b") == [b"a" * 149_999]


# --- escapes --------------------------------------------------------------------------------------


def test_slip_reads_and_writes_the_frames_of_rfc_1055(engine: ModuleType) -> None:
    message = b"a\xc0b\xdbc"
    frame = b"a\xdb\xdcb\xdb\xddc\xc0"
    assert engine.Encoder(SLIP).encode(message) == frame
    assert fed(engine, SLIP, b"\xc0" + frame + b"\xc0" + frame) == [[message, message]]


def test_an_end_mark_inside_an_escape_ends_nothing(engine: ModuleType) -> None:
    message = b"\x10\x03\x10"
    frame = b"\x10\x02\x10\x10\x03\x10\x10\x10\x03"
    assert engine.Encoder(DLE).encode(message) == frame
    for size in range(len(frame)):
        assert fed(engine, DLE, frame[:size], frame[size:]) == [[], [message]]


@pytest.mark.parametrize(
    ("codec", "stream", "found"),
    [
        (SLIP, b"ab\xdb\xc0", r"\\xdb\\xc0"),
        (SLIP, b"ab\xdbx\xc0", r"\\xdbx"),
        (DLE, b"\x10\x02ab\x10\x04", r"\\x10\\x04"),
        # It ends with the start of an end mark.
        (
            Codec.delimiter(b"\r\n.", escape={b"\r": rb"\r", b"\\": rb"\\"}),
            b"ab\\\r",
            r"\\\\\\r",
        ),
    ],
)
def test_an_unknown_escape_is_invalid(
    engine: ModuleType, codec: Codec, stream: bytes, found: str
) -> None:
    for size in range(4):
        splitter = engine.Splitter(codec)
        splitter.feed(stream[:size])
        with pytest.raises(InvalidFrameError, match=f"unknown escape b'{found}', the codec has"):
            splitter.feed(stream[size:])
        assert splitter.detach() == stream


def test_the_limit_counts_a_message_without_its_escapes(engine: ModuleType) -> None:
    codec = SLIP.replace(max_message_size=3)
    frame = b"\xdb\xdc\xdb\xdd\xdb\xdd\xc0"
    assert fed(engine, codec, frame) == [[b"\xc0\xdb\xdb"]]
    with pytest.raises(MessageTooLargeError):
        fed(engine, codec, b"\xdb\xdc" + frame)
    assert fed(engine, codec, b"\xdb\xdc" + frame * 2, on_oversize="skip") == [[b"\xc0\xdb\xdb"]]


# --- byte stuffing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (b"", b"\x01\x00"),
        (b"\0", b"\x01\x01\x00"),
        (b"\0\0", b"\x01\x01\x01\x00"),
        (b"\x11\x22\0\x33", b"\x03\x11\x22\x02\x33\x00"),
        (bytes(range(1, 255)), b"\xff" + bytes(range(1, 255)) + b"\0"),
        (bytes(range(255)), b"\x01\xff" + bytes(range(1, 255)) + b"\0"),
        (bytes(range(1, 256)), b"\xff" + bytes(range(1, 255)) + b"\x02\xff\0"),
        (bytes(range(1, 255)) + b"\0", b"\xff" + bytes(range(1, 255)) + b"\x01\x01\0"),
    ],
)
def test_cobs_writes_and_reads_blocks(engine: ModuleType, message: bytes, frame: bytes) -> None:
    codec = Codec.cobs()
    assert engine.Encoder(codec).encode(message) == frame
    assert fed(engine, codec, b"\0" + frame + b"\0\0" + frame) == [[message, message]]
    for size in range(1, len(frame)):
        assert fed(engine, codec, frame[:size], frame[size:]) == [[], [message]]


def test_cobs_reads_a_last_code_that_is_not_needed(engine: ModuleType) -> None:
    message = bytes(range(1, 255))
    assert fed(engine, Codec.cobs(), b"\xff" + message + b"\x01\0") == [[message]]


@pytest.mark.parametrize(("frame", "missing"), [(b"\x02\0", 1), (b"\x02\x11\x05\x22\0", 3)])
def test_a_zero_inside_a_block_is_invalid(engine: ModuleType, frame: bytes, missing: int) -> None:
    for size in range(len(frame)):
        splitter = engine.Splitter(Codec.cobs())
        splitter.feed(frame[:size])
        with pytest.raises(InvalidFrameError, match=f"ends {missing} bytes before the end of a"):
            splitter.feed(frame[size:])
        assert splitter.detach() == frame


def test_cobs_discards_a_message_above_the_limit(engine: ModuleType) -> None:
    codec = Codec.cobs(max_message_size=2)
    with pytest.raises(MessageTooLargeError) as caught:
        fed(engine, codec, b"\x04abc\0")
    assert caught.value.size is None
    splitter = engine.Splitter(codec, on_oversize="skip")
    assert splitter.feed(b"\x04ab") + splitter.feed(b"c\0\x02x\0") == [b"x"]
    assert splitter.skipped == 1


def test_cobs_delivers_a_message_that_ends_where_a_chunk_with_an_oversized_one_begins(
    engine: ModuleType,
) -> None:
    splitter = engine.Splitter(Codec.cobs(max_message_size=4), on_oversize="skip")
    assert splitter.feed(b"\x04abc") == []
    assert splitter.feed(b"\0\x06large\0\x03de\0") == [b"abc", b"de"]
    assert splitter.skipped == 1


def test_cobs_ignores_what_has_no_block_also_one_message_at_a_time(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.cobs(), one_at_a_time=True)
    assert splitter.feed(b"\0\0\0") == []
    assert splitter.feed(b"\x02a\0") == [b"a"]
    assert splitter.feed(b"\0\0\x02b\0\x01\0") == [b"b"]
    assert [splitter.feed(b""), splitter.feed(b"")] == [[b""], []]


# --- the codec as a value -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "text", "notation"),
    [
        (Codec.delimiter(), "Codec.delimiter()", "delimiter"),
        (Codec.delimiter(b"\0"), r"Codec.delimiter(b'\x00')", "delimiter,end=%00"),
        (
            Codec.delimiter(b"\n", b"\r\n", skip_empty=True, magic=b"$"),
            r"Codec.delimiter(b'\n', b'\r\n', skip_empty=True, magic=b'$')",
            "delimiter,more_ends=%0D%0A,skip_empty=yes,magic=$",
        ),
        (
            Codec.delimiter(b"|", b";", b"=", max_message_size=64),
            "Codec.delimiter(b'|', b';', b'=', max_message_size=64)",
            "delimiter,end=|,more_ends=%3B;%3D,max=64",
        ),
        (Codec.cobs(max_message_size=None), "Codec.cobs(max_message_size=None)", None),
    ],
)
def test_repr_notation_and_pickle(codec: Codec, text: str, notation: str | None) -> None:
    assert repr(codec) == text
    assert eval(text) == codec
    assert notation in (None, str(codec))
    assert parse_codec(str(codec)) == pickle.loads(pickle.dumps(codec)) == codec
    assert hash(parse_codec(str(codec))) == hash(codec)


def test_a_codec_with_escapes_can_be_replaced_and_pickled() -> None:
    changed = SLIP.replace(max_message_size=5)
    assert changed != SLIP
    assert pickle.loads(pickle.dumps(changed)) == changed
    assert eval(repr(changed)) == changed


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((b"",), {}, "1 to 16 bytes"),
        ((b"x" * 17,), {}, "1 to 16 bytes"),
        ((b"a", b""), {}, "1 to 16 bytes"),
        ((b"a", b"a"), {}, "given twice"),
        (tuple(bytes([n]) for n in range(9)), {}, "8 end marks, not 9"),
        ((b"\r", b"\r\n"), {}, "is how the end mark"),
        ((b"\n",), {"trailer": b"x"}, "trailer has no meaning"),
        ((b"\n",), {"length_offset": 2}, "length_offset has no meaning"),
        ((b"\n",), {"length_includes": "frame"}, "length_includes has no meaning"),
        ((b"\n",), {"align": 4}, "align has no meaning"),
        ((b"\n",), {"constants": {0: b"a"}}, "constants has no meaning"),
        ((b"\n",), {"specials": {0: None}}, "specials has no meaning"),
        ((b"\n",), {"escape": {b"\\": b"\\\\"}}, "begins an end mark"),
        ((b"\n",), {"escape": {b"\n": b"\\n"}}, "begins the escapes"),
        ((b"\n",), {"escape": {b"\n": b"\\n", b"\\": b"/\\"}}, "must begin with one byte"),
        ((b"\n",), {"escape": {b"\n": b"\\n", b"\\": b"\\n"}}, "cannot be told from"),
        ((b"\n",), {"escape": {b"\n": b"\\n", b"\\": b"\\nn"}}, "cannot be told from"),
        ((b"\\n",), {"escape": {b"\\": b"\\n"}}, "cannot be told from"),
        ((b"\n",), {"escape": {b"\n": b"\\", b"\\": b"\\\\"}}, "2 to 16 bytes"),
        ((b"\n",), {"escape": {b"ab": b"\\a"}}, "must be one byte"),
        ((b"\n",), {"magic": bytes(1025)}, "at most 1024 bytes each, not 1025 and 0"),
    ],
)
def test_a_contradictory_description_is_refused(
    arguments: tuple[bytes, ...], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Codec.delimiter(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((1,), {}), ((b"a", 2), {}), ((b"a",), {"escape": 3}), ((b"a",), {"skip_empty": 1})],
)
def test_arguments_of_another_type_are_refused(arguments: Any, options: Any) -> None:
    with pytest.raises(TypeError):
        Codec.delimiter(*arguments, **options)


def test_replace_takes_more_ends_as_a_tuple_only() -> None:
    with pytest.raises(TypeError, match=r"more_ends must be a tuple of bytes, not b'\\r\\n'"):
        Codec.delimiter().replace(more_ends=b"\r\n")


def test_an_empty_mapping_of_escapes_is_none() -> None:
    assert Codec.delimiter(escape={}) == Codec.delimiter()


def test_cobs_takes_only_what_has_a_meaning() -> None:
    with pytest.raises(ValueError, match=r"trailer has no meaning for Codec.cobs\(\)"):
        Codec.cobs(trailer=b"x")


# --- checks ---------------------------------------------------------------------------------------


def nmea(sentence: Any) -> int:
    """The two hexadecimal digits of NMEA 0183: the bytes before ``*``, by exclusive or."""
    return int.from_bytes(b"%02X" % functools.reduce(operator.xor, bytes(sentence), 0))


NMEA = Codec.delimiter(b"\r\n", magic=b"$", check=Check(nmea, 2, before=b"*"), max_message_size=79)
SLIP_CHECKED = SLIP.replace(check=Check("crc16-xmodem", 2))


@pytest.mark.parametrize(
    ("codec", "message", "frame"),
    [
        # A sentence of a receiver of positions, as manuals of several makers show it.
        (
            NMEA,
            b"GPGLL,5300.97914,N,00259.98174,E,125926,A",
            b"$GPGLL,5300.97914,N,00259.98174,E,125926,A*28\r\n",
        ),
        # The check is stuffed with the message: that of nothing is two zeros.
        (Codec.cobs(check=Check("crc16-xmodem", 2)), b"", b"\x01\x01\x01\0"),
        (Codec.cobs(check=Check("crc16-xmodem", 2)), b"123456789", b"\x0c123456789\x31\xc3\0"),
        (Codec.cobs(check=Check("sum8", 1, position="front")), b"ab", b"\x04\xc3ab\0"),
        (Codec.cobs(magic=b"M", check=Check("xor8", 1, covers="frame")), b"a", b"M\x03a\x2c\0"),
        (Codec.delimiter(b"!", check=Check("sum8", 3, digits=True, before=b"#")), b"a", b"a#097!"),
        (
            Codec.delimiter(
                b"\xc0",
                escape={b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"},
                check=Check("sum8", 1),
            ),
            b"\xc0",
            b"\xdb\xdc\xdb\xdc\xc0",
        ),
    ],
)
def test_a_check_is_a_part_of_the_content(
    engine: ModuleType, codec: Codec, message: bytes, frame: bytes
) -> None:
    encoder = engine.Encoder(codec)
    assert encoder.encode(message) == frame == b"".join(encoder.frame_parts(bytearray(message)))
    assert encoder.encode_many([message] * 3) == frame * 3
    for size in range(len(frame)):
        assert fed(engine, codec, frame[:size], frame[size:]) == [[], [message]]
    assert fed(engine, codec, frame * 2, raw=True) == [[frame] * 2]


def feed_all(splitter: Any, data: bytes, size: int, found: list[Any]) -> None:
    for pos in range(0, len(data) + size, size):
        found += splitter.feed(data[pos : pos + size])


@pytest.mark.parametrize(
    "codec", [NMEA, SLIP_CHECKED.replace(skip_empty=False), Codec.cobs(check=Check("crc8", 1))]
)
@pytest.mark.parametrize("size", range(3))
def test_a_message_that_is_too_small_is_invalid_also_where_its_check_is_right(
    engine: ModuleType, codec: Codec, size: int
) -> None:
    good, bad = (engine.Encoder(codec).encode(b"A" * number) for number in (3, size))
    limited = codec.replace(min_message_size=3)
    for chunk_size in (1, len(good) - 1, len(good), len(good + bad)):
        splitter, found = engine.Splitter(limited), list[bytes]()
        with pytest.raises(InvalidFrameError, match=f"a message of {size} bytes, the smallest"):
            feed_all(splitter, good + bad, chunk_size, found)
        assert found == [b"AAA"]
        assert splitter.detach() == bad


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("codec", [NMEA, SLIP_CHECKED, Codec.cobs(check=Check("crc8", 1))])
def test_a_wrong_check_before_an_end_mark_is_an_error(
    engine: ModuleType, codec: Codec, place: int
) -> None:
    messages = [b"first", b"middle", b"last"]
    frames = [engine.Encoder(codec).encode(message) for message in messages]
    frames[place] = frames[place].replace(messages[place], messages[place].capitalize())
    offset = len(b"".join(frames[:place]))
    for size in (1, 3, 100):
        data = b"".join(frames)
        splitter, found = engine.Splitter(codec), []
        with pytest.raises(ChecksumError, match=f"at stream offset {offset}: found") as caught:
            feed_all(splitter, data, size, found)
        assert found == messages[:place]
        assert caught.value.expected != caught.value.found
        assert data[offset:].startswith(splitter.detach())


@pytest.mark.parametrize(
    ("codec", "frame", "text"),
    [
        (NMEA, b"$*0\r\n", "2 bytes before the end mark, the check alone has 3"),
        (NMEA, b"$abc+61\r\n", r"the check of a frame begins with b'\*', found b'\+'"),
        (Codec.cobs(check=Check("crc32", 4)), b"\x02a\0", "1 bytes before the end mark"),
        (
            Codec.delimiter(check=Check("crc8", 3, digits=True)),
            b"a0x0\n",
            "the check is not a number of 3 decimal digits: found b'0x0'",
        ),
    ],
)
def test_a_check_that_is_missing_or_no_number_is_invalid(
    engine: ModuleType, codec: Codec, frame: bytes, text: str
) -> None:
    for pieces in ([frame], [frame[pos : pos + 1] for pos in range(len(frame))]):
        with pytest.raises(InvalidFrameError, match=text):
            fed(engine, codec, *pieces)


def test_a_message_whose_check_contains_the_mark_cannot_be_encoded(engine: ModuleType) -> None:
    encoder = engine.Encoder(Codec.delimiter(b"a", check=Check("sum8", 1)))
    assert encoder.encode(b"b") == b"bba"
    for verb in (encoder.encode, encoder.frame_parts, lambda m: encoder.encode_many([m])):
        with pytest.raises(InvalidFrameError, match="it or its check contains the end mark b'a'"):
            verb(b"\x60\x01")


def test_the_limit_and_the_smallest_size_do_not_count_the_check(engine: ModuleType) -> None:
    codec = Codec.cobs(check=Check("crc32", 4), min_message_size=2, max_message_size=3)
    encoder = engine.Encoder(codec)
    assert fed(engine, codec, encoder.encode(b"abc")) == [[b"abc"]]
    for message in (b"a", b"abcd"):
        frame = engine.Encoder(codec.replace(min_message_size=0, max_message_size=9)).encode(
            message
        )
        with pytest.raises((InvalidFrameError, MessageTooLargeError)):
            encoder.encode(message)
        with pytest.raises((InvalidFrameError, MessageTooLargeError), match="message"):
            fed(engine, codec, frame)


def test_resync_continues_after_the_next_end_mark(engine: ModuleType) -> None:
    for codec in (SLIP_CHECKED, Codec.cobs(check=Check("crc16-xmodem", 2))):
        good = engine.Encoder(codec).encode(b"good")
        bad = good.replace(b"oo", b"00")
        for size in (1, 5, 100):
            data = good + bad + good
            splitter = engine.Splitter(codec, on_invalid="resync")
            found = [splitter.feed(data[at : at + size]) for at in range(0, len(data), size)]
            assert [message for messages in found for message in messages] == [b"good"] * 2
            assert (splitter.resyncs, splitter.discarded) == (1, len(bad))
            splitter.feed_eof()


# --- whole frames ---------------------------------------------------------------------------------


def test_decode_refuses_bytes_after_the_frame(engine_in_use: ModuleType) -> None:
    assert ANY_NEWLINE.replace().decode(b"a\r\n") == b"a"
    assert SLIP.replace().decode(b"\xc0a\xc0") == b"a"
    for codec, frame, count in (
        (ANY_NEWLINE, b"a\r\n\n", 1),
        (SLIP, b"\xc0a\xc0\xc0", 1),
        (Codec.cobs(), b"\x01\0\0\0", 2),
    ):
        with pytest.raises(InvalidFrameError, match=f"{count} bytes after the frame"):
            codec.replace().decode(frame)


def test_scan_spans_the_messages_of_marks_and_needs_whole_frames_with_escapes(
    engine_in_use: ModuleType,
) -> None:
    spans = engine_in_use.scan(LINES, b"ab\r\n\nc\nd")
    assert [bytes(view) for view in spans] == [b"ab", b"", b"c"]
    assert spans.consumed == 7
    raw = engine_in_use.scan(SLIP, b"\xc0a\xdb\xdc\xc0\xc0b\xc0", raw=True)
    assert [bytes(view) for view in raw] == [b"a\xdb\xdc\xc0", b"b\xc0"]
    for codec in (SLIP, Codec.cobs()):
        with pytest.raises(ValueError, match="scan whole frames with raw=True"):
            engine_in_use.scan(codec, b"")


def test_a_choice_refuses_end_marks_that_continue_after_another_one() -> None:
    # In a choice, what follows the shorter one could be the next frame.
    for ends in ((b"\r\n", b"\r"), (b"bcd", b"c")):
        with pytest.raises(ValueError, match="continues after the first one"):
            Codec.choice({b"a": Codec.delimiter(*ends), 1: Codec.uint(1, length_offset=1)})
    with pytest.raises(ValueError, match=r"keep=False excludes an alternative of delimiter\(\)"):
        Codec.choice({1: Codec.delimiter(min_message_size=1)}, keep=False)
    with pytest.raises(ValueError, match="beyond the smallest frame"):
        Codec.choice({1: Codec.delimiter(b"\r\n", min_message_size=1)}, offset=3)


def test_a_choice_mixes_lines_and_counts(engine: ModuleType) -> None:
    codec = Codec.choice(
        {b"0123456789": Codec.text(b" "), b"<": Codec.delimiter(b"\n", b"\r\n")},
        max_message_size=9,
    )
    stream = b"2 hi<1>a\n<2>b\r\n4 <3>c<4>\n"
    messages = [b"hi", b"<1>a", b"<2>b", b"<3>c", b"<4>"]
    for size in range(1, len(stream)):
        splitter = engine.Splitter(codec, keep_headers=True)
        found = [splitter.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
        assert [*itertools.chain.from_iterable(found)] == messages
    assert engine.Splitter(codec, raw=True).feed(stream)[:3] == [b"2 hi", b"<1>a\n", b"<2>b\r\n"]
    splitter = engine.Splitter(codec, keep_headers=True)
    travelled = frames_as_travelled(codec, splitter.feed(stream), splitter.headers, b"")
    assert travelled == stream
    assert [bytes(span) for span in engine.scan(codec, stream)] == messages
    assert engine.Encoder(codec).encode(b"<1>a") == b"4 <1>a"
    assert codec == eval(repr(codec), {"Codec": Codec}) == pickle.loads(pickle.dumps(codec))
    splitter = engine.Splitter(codec)
    assert splitter.feed(b"2 hi<1>a") == [b"hi"]
    assert (splitter.pending, splitter.pending_header, splitter.bytes_needed) == (4, b"", 1)
    assert splitter.switch(Codec.fixed(2)) == [b"<1", b">a"]
    with pytest.raises(MessageTooLargeError, match="no end mark within 9 bytes"):
        engine.Splitter(codec).feed(b"<234567890")
    skipping = engine.Splitter(codec, on_oversize="skip")
    assert skipping.feed(b"<234567890 and more\n<1>\n") == [b"<1>"]
    assert skipping.skipped == 1
    one = engine.Splitter(codec, one_at_a_time=True)
    assert [one.feed(stream), one.feed(b""), one.feed(b"")] == [[b"hi"], [b"<1>a"], [b"<2>b"]]
    assert one.detach() == b"4 <3>c<4>\n"


def test_a_frame_of_a_choice_searches_its_end_mark_near_its_beginning(engine: ModuleType) -> None:
    # The first bytes of the other marks are nowhere in the stream.
    lines = Codec.delimiter(b"\n", b"xy", b"\0", b"zz")
    codec = Codec.choice({b"<": lines, b"a": lines}, max_message_size=9000)
    messages = [
        b"<" + bytes([65 + index % 20]) * size for index, size in enumerate((1, 4095, 9, 8999))
    ]
    stream = b"".join(message + b"\n" for message in messages) * 3
    assert engine.Splitter(codec).feed(stream) == messages * 3
    skipping = engine.Splitter(codec.replace(max_message_size=10), on_oversize="skip")
    assert skipping.feed(stream) == [messages[0], messages[2]] * 3
    plain = engine.Splitter(lines.replace(max_message_size=10), on_oversize="skip")
    assert plain.feed(stream) == [messages[0], messages[2]] * 3


# --- the tools ------------------------------------------------------------------------------------


def test_tools_draw_and_dissect_frames_that_an_end_mark_ends() -> None:
    from framecodec.cli.anatomy import dissect
    from framecodec.cli.formats import draw
    from framecodec.cli.wireshark import dissector

    assert draw(LINES) == "<rest> 0a|0d0a"
    assert draw(SLIP) == "<escaped> c0"
    assert draw(Codec.cobs()) == "<stuffed> 00"
    for codec, frame, message, stops in (
        (LINES, b"ab\r\n", b"ab", [2, 4]),
        (LINES, b"\n", b"", [1]),
        (Codec.delimiter(b"\x1c\r", magic=b"\x0b"), b"\x0bab\x1c\r", b"ab", [1, 3, 5]),
        (SLIP, b"a\xdb\xdc\xc0", b"a\xc0", [3, 4]),
        (Codec.cobs(), b"\x02a\0", b"a", [2, 3]),
    ):
        assert [part.stop for part in dissect(codec, frame, message)] == stops
    for codec in (LINES, SLIP, Codec.cobs()):
        assert "dissector" in dissector(codec)


def test_a_message_of_a_check_alone_is_ignored_like_an_empty_one(engine: ModuleType) -> None:
    codec = Codec.delimiter(b"\n", skip_empty=True, check=Check("crc8", 1))
    stream = b"\0\n" + codec.encode(b"a") + b"\0\n\n" + codec.encode(b"b")
    for pieces in ([stream], [stream[:1], stream[1:]], [bytes([byte]) for byte in stream]):
        splitter = engine.Splitter(codec)
        assert [message for piece in pieces for message in splitter.feed(piece)] == [b"a", b"b"]


@pytest.mark.parametrize("before", range(24, 40))
def test_mark_that_is_cut_off_twice_is_found(engine: ModuleType, before: int) -> None:
    """The tail of a chunk is read again with a few bytes of the next, which can end in a mark."""
    codec = Codec.delimiter(b"\r\n")
    for second in (b"x" * before + b"\r\nlast\r\n", b"\n" + b"y" * before + b"\r\n\r\nz\r\n\r"):
        splitter = engine.Splitter(codec)
        messages = splitter.feed(b"a\r") + splitter.feed(second + bytes(100))
        assert messages == (b"a\r" + second).split(b"\r\n")[:-1]
        assert splitter.pending == 100 + second.endswith(b"\r")


def test_scan_finds_checked_messages_across_slices(engine: ModuleType) -> None:
    codec = Codec.delimiter(b"\n", check=Check("crc32", 10, digits=True))
    messages = [b"x" * (number * 37 % 3000) for number in range(200)]
    data = codec.encode_many(messages)
    assert len(data) > 4 * 64 * 1024
    assert [bytes(span) for span in engine.scan(codec, data)] == messages
    assert b"".join(engine.scan(codec, data, raw=True)) == data


def test_a_line_that_is_too_large_comes_after_those_before_it(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.delimiter(max_message_size=5))
    assert splitter.feed(b"abc\nde\nabcdefgh\nx\n") == [b"abc", b"de"]
    with pytest.raises(MessageTooLargeError) as caught:
        splitter.feed(b"")
    assert caught.value.stream_offset == 7


@pytest.mark.parametrize("cut", [0, 1, 7, 12])
def test_escapes_of_three_bytes_come_back(engine: ModuleType, cut: int) -> None:
    codec = Codec.delimiter(b"\n", escape={b"\n": b"/nl", b"/": b"/sl"})
    messages = [b"a\nb", b"/", b"plain", b"", b"\n/\n"]
    stream = engine.Encoder(codec).encode_many(messages)
    splitter = engine.Splitter(codec)
    assert splitter.feed(stream[:cut]) + splitter.feed(stream[cut:] + b"x/nl") == messages
    assert splitter.feed(b"y\n") == [b"x\ny"]
    assert splitter.feed(b"good\nb/xx\nmore\n") == [b"good"]
    with pytest.raises(InvalidFrameError):
        splitter.feed(b"")
