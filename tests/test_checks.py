"""Checks: the functions, where a check is, what it covers, and what a wrong one does."""

from __future__ import annotations

import copy
import pickle
import random
import zlib
from types import ModuleType
from typing import Any

import pytest

import framecodec
from framecodec import (
    Check,
    ChecksumError,
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
)
from framecodec._check import CHECKSUMS
from framecodec._kept_headers import frame_as_travelled
from tests.helpers.chunking import cuts
from tests.helpers.sample_codecs import CODECS, crc_of_crc, sample_messages

# The published check values: of the ASCII digits 1 to 9.
CHECK_VALUES = {
    "crc32": 0xCBF43926,
    "crc32c": 0xE3069283,
    "adler32": 0x091E01DE,
    "crc16-modbus": 0x4B37,
    "crc16-xmodem": 0x31C3,
    "crc16-ccitt-false": 0x29B1,
    "crc16-x25": 0x906E,
    "crc8": 0xF4,
    "sum8": 0xDD,
    "xor8": 0x31,
    "fletcher16": 0x1EDE,
}


# --- the functions --------------------------------------------------------------------------------


def test_every_function_has_its_published_check_value(engine_in_use: ModuleType) -> None:
    assert CHECK_VALUES.keys() == CHECKSUMS.keys()
    for name, value in CHECK_VALUES.items():
        width = CHECKSUMS[name].bits // 8
        codec = Codec.fixed(9, check=Check(name, width))
        frame = b"123456789" + value.to_bytes(width, "big")
        assert codec.encode(b"123456789") == frame
        assert b"".join(codec.frame_parts(b"123456789")) == frame
        assert codec.decode(frame) == b"123456789"


@pytest.mark.parametrize("name", CHECKSUMS)
def test_functions_give_the_same_for_bytes_in_pieces(engine: ModuleType, name: str) -> None:
    rng = random.Random(name)
    checksum, update = CHECKSUMS[name], engine.update_checksum
    for size in (*range(140), 4095, 4096, 4097, 20_000):
        data = rng.randbytes(size) if size % 3 else b"\xff" * size
        cut = rng.randint(0, size)
        state = update(checksum.number, checksum.first, memoryview(data)[:cut])
        whole = update(checksum.number, checksum.first, data)
        assert update(checksum.number, state, data[cut:]) == whole
        if name == "crc32":
            assert whole == zlib.crc32(data)
        if name == "adler32":
            assert whole == zlib.adler32(data)


@pytest.mark.c_extension
@pytest.mark.parametrize("name", CHECKSUMS)
def test_both_engines_compute_the_same(name: str) -> None:
    from framecodec import _encoder, _encoder_py

    rng, checksum = random.Random(0), CHECKSUMS[name]
    for size in (*range(0, 200, 3), 1023, 70_001):
        data = rng.randbytes(size)
        for first in (checksum.first, checksum.first ^ 1):
            found = _encoder.update_checksum(checksum.number, first, data)
            assert found == _encoder_py.update_checksum(checksum.number, first, data)


def test_a_function_of_the_user_gets_all_covered_bytes_at_once(engine_in_use: ModuleType) -> None:
    seen: list[bytes] = []

    def remember(data: Any) -> int:
        seen.append(bytes(data))
        return -1

    codec = Codec.uint(1, magic=b"M", length_offset=2, check=Check(remember, 3, covers="frame"))
    frame = codec.encode(b"lhello")
    assert frame == b"Ml\x05hello\xff\xff\xff"
    assert codec.splitter().feed(frame) == [b"lhello"]
    assert seen == [b"Ml\x05hello"] * 2
    del seen[:]
    splitter = codec.splitter()
    assert [splitter.feed(frame[i : i + 1]) for i in range(len(frame))][-1] == [b"lhello"]
    assert seen == [b"Ml\x05hello"]


@pytest.mark.parametrize("position", ["front", "end"])
def test_a_function_that_raises_makes_the_frame_invalid(
    engine_in_use: ModuleType, position: Any
) -> None:
    def fail(data: Any) -> int:
        raise LookupError("no key")

    codec = Codec.uint(1, check=Check(fail, 2, position=position))
    with pytest.raises(InvalidFrameError, match="LookupError: no key") as caught:
        codec.encode(b"x")
    assert isinstance(caught.value.__cause__, LookupError)
    for pieces in ([b"\x01abc"], [b"\x01", b"ab", b"c"]):
        splitter = codec.splitter()
        for piece in pieces[:-1]:
            splitter.feed(piece)
        with pytest.raises(InvalidFrameError, match="LookupError: no key") as caught:
            splitter.feed(pieces[-1])
        assert isinstance(caught.value.__cause__, LookupError)
        assert type(caught.value) is InvalidFrameError
        assert splitter.detach() == b"\x01abc"


def test_a_function_that_returns_no_int_makes_the_frame_invalid(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(1, check=Check(lambda data: "four", 4))  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidFrameError, match="must return an int, not 'four'"):
        codec.encode(b"x")
    with pytest.raises(InvalidFrameError, match="must return an int, not 'four'"):
        codec.decode(b"\x01abcde")


@pytest.mark.parametrize("raised", [MemoryError, KeyboardInterrupt])
def test_what_is_not_the_peers_fault_passes_through(
    engine_in_use: ModuleType, raised: type[BaseException]
) -> None:
    def fail(data: Any) -> int:
        raise raised

    codec = Codec.uint(1, check=Check(fail, 1))
    with pytest.raises(raised):
        codec.encode(b"x")
    splitter = codec.splitter()
    with pytest.raises(raised):
        splitter.feed(b"\x01xc")
    assert splitter.detach() == b"\x01xc"


# --- the frame ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "message", "frame"),
    [
        (Codec.uint(2, check=Check("xor8", 1)), b"ab", b"\0\2ab\3"),
        (Codec.uint(1, check=Check("sum8", 1, covers="body")), b"ab", b"\2ab\xc5"),
        (Codec.uint(1, magic=b"\1", check=Check("sum8", 1, covers="frame")), b"ab", b"\1\2ab\xc6"),
        (Codec.uint(1, magic=b"\1", check=Check("sum8", 1, covers="body")), b"ab", b"\1\2ab\xc5"),
        (Codec.uint(1, length_offset=1, check=Check("sum8", 1)), b"\1ab", b"\1\2ab\xc4"),
        (
            Codec.uint(1, length_offset=1, check=Check("sum8", 1, covers="rest")),
            b"\1ab",
            b"\1\2ab\xc3",
        ),
        (Codec.uint(1, check=Check("sum8", 1, position="front")), b"ab", b"\2\xc3ab"),
        (
            Codec.uint(1, length_offset=1, check=Check("sum8", 1, position="front")),
            b"\1ab",
            b"\1\2\xc3ab",
        ),
        (Codec.fixed(2, magic=b"M", check=Check("sum8", 1, position="front")), b"ab", b"M\xc3ab"),
        (
            Codec.uint(1, length_includes="frame", trailer=b"!", check=Check("sum8", 1)),
            b"ab",
            b"\5ab\xc3!",
        ),
        (
            Codec.uint(1, check=Check("sum8", 4, digits=True, before=b"10=")),
            b"ab",
            b"\2ab10=0195",
        ),
        (Codec.uint(1, check=Check("fletcher16", 2, "little")), b"ab", b"\2ab\xc3\x25"),
        (Codec.uint(1, align=4, check=Check("xor8", 1)), b"ab", b"\2ab\3"),
        (Codec.uint(1, specials={0: None}, check=Check("xor8", 1)), None, b"\0"),
    ],
)
def test_where_the_check_is_and_what_it_covers(
    engine_in_use: ModuleType, codec: Codec, message: Any, frame: bytes
) -> None:
    codec = codec.replace()
    assert codec.encode(message) == frame
    assert codec.encode_many([message] * 3) == frame * 3
    assert b"".join(codec.frame_parts(message)) == frame
    assert codec.decode(frame) == message
    assert codec.split(frame * 2 + b"\2") == ([message] * 2, 2 * len(frame))
    assert [bytes(span) for span in codec.scan(frame * 2, raw=True)] == [frame] * 2


CHECKED = [name for name in CODECS if "check" in name]


@pytest.mark.parametrize("name", CHECKED)
def test_every_changed_byte_is_found(engine_in_use: ModuleType, name: str) -> None:
    codec = CODECS[name].replace()
    message = next(
        m for m in reversed(sample_messages(codec)) if isinstance(m, bytes) and len(m) > 2
    )
    frame = codec.encode(message)
    padding = len(frame) - len(frame.rstrip(b"\0")) if codec.layout.align > 1 else 0
    for pos in range(len(frame) - padding):
        bad = frame[:pos] + bytes([frame[pos] ^ 0x11]) + frame[pos + 1 :]
        try:
            found = codec.decode(bad)
        except FrameError:
            continue
        assert found != message or codec.layout.padding(1)
        # Only what the check does not cover can change unseen.
        assert codec.layout.check.covers != "frame"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", CHECKED)
def test_scan_verifies_checks(engine_in_use: ModuleType, name: str) -> None:
    codec = CODECS[name].replace()
    messages = [m for m in sample_messages(codec) if isinstance(m, bytes) and m]
    frames = [codec.encode(message) for message in messages]
    spans = codec.scan(b"".join(frames), raw=True)
    assert [bytes(span) for span in spans] == frames
    width = codec.layout.check.width  # type: ignore[union-attr]
    end = codec.layout.marks[0] if codec.layout.marks else codec.parameters["trailer"]
    stop = len(frames[0]) - len(end)
    in_front = codec.parameters["check"].position == "front"
    if codec.layout.align > 1 or in_front or codec.layout.escape or codec.kind == "cobs":
        return
    wrong = frames[0][: stop - width] + b"9" * width + frames[0][stop:]
    with pytest.raises(ChecksumError):
        codec.scan(wrong, raw=True)
    assert len(codec.scan(frames[1] + wrong, raw=True)) == 1


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("check", [Check("crc32", 4), Check(crc_of_crc, 4, position="front")])
def test_a_wrong_check_comes_after_the_messages_before_it(
    engine: ModuleType, check: Check, place: int
) -> None:
    codec = Codec.uint(1, check=check)
    messages = [b"first", b"middle", b"last"]
    frames = [codec.encode(message) for message in messages]
    good = b"".join(frames[:place])
    frames[place] = frames[place].replace(messages[place], messages[place].upper())
    texts = set()
    for pieces in cuts(b"".join(frames), count=10):
        splitter, found, error = engine.Splitter(codec), [], None
        for piece in pieces:
            try:
                found += splitter.feed(piece)
            except ChecksumError as raised:
                error = raised
        if error is None:
            with pytest.raises(ChecksumError) as caught:
                splitter.feed(b"")
            error = caught.value
        assert found == messages[:place]
        assert error.stream_offset == splitter.stream_offset == len(good)
        expected = check.function if callable(check.function) else zlib.crc32
        assert error.expected == expected(messages[place].upper()) % 2**32
        assert error.found == expected(messages[place]) % 2**32
        texts.add(str(error))
        with pytest.raises(ChecksumError):
            splitter.feed(b"")
    assert len(texts) == 1


def test_the_text_of_a_wrong_check(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(2, check=Check("crc16-modbus", 2, covers="body"))
    with pytest.raises(ChecksumError) as caught:
        codec.decode(b"\0\1a\0\1")
    assert str(caught.value) == (
        "wrong check in the frame at stream offset 0: found 0x0001, computed 0xb8b1 "
        "(crc16-modbus of the body); its bytes changed on their way, or the peer computes another "
        "check (frame begins b'\\x00\\x01')"
    )
    assert isinstance(caught.value, InvalidFrameError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.expected, again.found, again.header) == (0xB8B1, 1, b"\0\1")
    codec = Codec.uint(1, check=Check("sum8", 3, digits=True, before=b"10="))
    with pytest.raises(ChecksumError, match="found 098, computed 097"):
        codec.decode(b"\1a10=098")
    with pytest.raises(InvalidFrameError, match="not a number of 3 decimal digits: found b'09 '"):
        codec.decode(b"\1a10=09 ")
    with pytest.raises(InvalidFrameError, match="begins with b'10=', found b'11'"):
        codec.decode(b"\1a11=097")


def test_a_stream_that_ends_inside_a_check(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(1, check=Check("crc32", 4), trailer=b"!")
    frame = codec.encode(b"a")
    for size in range(1, len(frame)):
        splitter = codec.splitter()
        splitter.feed(frame[:size])
        with pytest.raises(IncompleteFrameError) as caught:
            splitter.feed_eof()
        assert caught.value.received == size
        assert caught.value.needed == len(frame)
        assert splitter.detach() == frame[:size]


def test_a_skipped_frame_is_not_computed(engine: ModuleType) -> None:
    codec = Codec.uint(1, check=Check("crc32", 4), max_message_size=3)
    wide = codec.replace(max_message_size=9)
    data = codec.encode(b"a") + b"\5hello????" + codec.encode(b"b") + wide.encode(b"hello")
    for pieces in cuts(data, count=10):
        splitter, found = engine.Splitter(codec, on_oversize="skip"), []
        for piece in pieces:
            found += splitter.feed(piece)
        assert (found, splitter.skipped, splitter.pending) == ([b"a", b"b"], 2, 0)


@pytest.mark.parametrize("covers", ["message", "frame"])
def test_a_large_frame_in_small_pieces_is_computed_once(
    engine_in_use: ModuleType, covers: Any
) -> None:
    calls = []

    def count(data: Any) -> int:
        calls.append(len(data))
        return 0

    codec = Codec.uint(4, check=Check(count, 1, covers=covers))
    frame = codec.encode(bytes(200_000))
    calls.clear()
    splitter = codec.splitter()
    for pos in range(0, len(frame), 1000):
        splitter.feed(frame[pos : pos + 1000])
    assert len(calls) == 1


# --- the description ------------------------------------------------------------------------------


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, data: Any) -> int:
        return 0


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Check("crc33", 4), ValueError, "callable or one of crc32, crc32c, .*'crc33'"),
        (lambda: Check("crc32", 2), ValueError, "width=2 does not fit crc32, which has 4 bytes"),
        (lambda: Check("sum8", 2, digits=True), ValueError, "width=2 is too small: sum8"),
        (lambda: Check(4, 4), TypeError, "a name or callable, not 4"),
        (lambda: Check(Unhashable(), 4), TypeError, "function must be hashable"),
        (lambda: Check("crc32", 0), ValueError, "width must be from 1"),
        (lambda: Check("crc32", True), TypeError, "width must be an int, not True"),
        (lambda: Check("crc32", "4"), TypeError, "width must be an int, not '4'"),
        (lambda: Check("crc32", 4, "middle"), ValueError, 'byteorder must be one of "big"'),
        (lambda: Check("crc32", 4, covers="all"), ValueError, "covers must be one of .*'all'"),
        (lambda: Check("crc32", 4, position=1), ValueError, "position must be one of .* not 1"),
        (lambda: Check("crc32", 4, before="10="), TypeError, "before must be bytes, not '10='"),
        (lambda: Check("crc32", 4, before=bytes(65)), ValueError, "before can have at most"),
        (lambda: Check("crc32", 10, digits=1), TypeError, "digits must be a bool, not 1"),
        (lambda: Check("crc32", 10, "little", digits=True), ValueError, "no meaning for digits"),
        (
            lambda: Check("crc32", 4, covers="frame", position="front"),
            ValueError,
            'covers="frame".*position="front"',
        ),
        (
            lambda: Codec.uint(1, constants={2: b"x"}, check=Check("crc32", 4, position="front")),
            ValueError,
            "constant at offset 2 overlaps the length field and the check, which is at 0 to 4",
        ),
        (
            lambda: Codec.uint(
                1, length_includes="frame", check=Check(crc_of_crc, 64), trailer=bytes(255)
            ),
            ValueError,
            "no message fits.*a check of 64 bytes",
        ),
    ],
)
def test_contradictory_checks_are_refused(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_a_check_is_a_value() -> None:
    check = Check("crc32", 4, covers="frame", before=bytearray(b"x"))  # type: ignore[arg-type]
    assert check == Check("crc32", 4, "big", covers="frame", before=b"x")
    assert hash(check) == hash(Check("crc32", 4, covers="frame", before=b"x"))
    assert check != Check("crc32c", 4, covers="frame", before=b"x")
    assert repr(check) == "Check('crc32', 4, covers='frame', before=b'x')"
    assert repr(Check(crc_of_crc, 4, "little")) == "Check(crc_of_crc, 4, byteorder='little')"
    assert pickle.loads(pickle.dumps(check)) == check == copy.deepcopy(check)
    with pytest.raises(AttributeError):
        check.width = 5  # type: ignore[misc]
    codec = Codec.uint(4, check=check)
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert repr(codec) == f"Codec.uint(4, check={check!r})"
    assert eval(repr(codec), {"Codec": Codec, "Check": Check}) == codec
    assert codec.replace(check=None) == Codec.uint(4)
    own = Codec.uint(4, check=Check(crc_of_crc, 4))
    assert pickle.loads(pickle.dumps(own)) == own
    assert str(own) == repr(own)


def test_the_names_are_exported() -> None:
    assert framecodec.Check is Check
    assert framecodec.ChecksumError is ChecksumError
    assert {"Check", "ChecksumError"} <= set(framecodec.__all__)


def test_a_function_that_raises_for_marked_content_makes_its_frame_invalid(
    engine: ModuleType,
) -> None:
    failing: list[Exception] = []

    def function(data: Any) -> int:
        if failing:
            raise failing[0]
        return len(bytes(data))

    codec = Codec.delimiter(b"\n", check=Check(function, 2, digits=True))
    assert engine.Splitter(codec).feed(b"abc03\n") == [b"abc"]
    failing.append(LookupError("no such check"))
    with pytest.raises(InvalidFrameError, match="no such check"):
        engine.Splitter(codec).feed(b"abc03\n")


def test_frame_as_travelled_names_a_function_that_raises() -> None:
    def function(data: Any) -> int:
        raise LookupError("no such check")

    codec = Codec.digits(2, base=16, check=Check(function, 2))
    with pytest.raises(InvalidFrameError, match="no such check"):
        frame_as_travelled(codec, b"abc", b"03")


def test_a_choice_reads_a_short_content_with_a_check_in_the_slow_path(engine: ModuleType) -> None:
    checked = Codec.delimiter(b"\n", check=Check("sum8", 3, digits=True), magic=b"c")
    codec = Codec.choice({ord("c"): checked, 1: Codec.uint(1, length_offset=1)})
    assert engine.Splitter(codec).feed(b"\1\1x" + checked.encode(b"ab")) == [b"\1x", b"ab"]
    with pytest.raises(InvalidFrameError, match="the check alone has 3"):
        engine.Splitter(codec).feed(b"c1\n")
