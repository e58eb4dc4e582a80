"""Frames that chunks cut off: the shortcuts of the Python engine give what the slow path gives."""

from __future__ import annotations

import random
import sys
import threading
from contextlib import suppress
from itertools import repeat
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Codec,
    IncompleteFrameError,
    InvalidFrameError,
    InvalidMessageError,
    MessageTooLargeError,
    _frame_reader_py,
    _keeping_reader_py,
    _marked_reader_py,
    _plain_reader_py,
    _quick_frames_py,
)
from framecodec import _splitter_py as python_engine
from framecodec._layout import DIGITS
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.engines import codecs_use

KIB = 1024
CODECS = {
    "plain": Codec.uint(4, max_message_size=KIB * KIB),
    "adjustment": Codec.uint(4, length_includes="frame", max_message_size=KIB * KIB),
    "trailer": Codec.uint(2, trailer=b"\r\n"),
    "lines": Codec.delimiter(),
    "two bytes": Codec.delimiter(b"\r\n"),
    "two marks": Codec.delimiter(b"\n", b"\r\n"),
    "three bytes": Codec.uint(3, length_includes="frame"),
    "digits": Codec.digits(5),
    "hexadecimal": Codec.digits(5, base=16, trailer=b"\n"),
    "varint": Codec.varint(),
    "netstring": Codec.text(trailer=b","),
    "leading zeros": Codec.text(end=b"\r\n", leading_zeros=True),
    "headers": Codec.headers(),
    "fixed": Codec.fixed(7),
    "slip": Codec.delimiter(b"\xc0", escape={b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}),
    "many escapes": Codec.delimiter(
        b"~", escape={bytes([byte]): bytes([125, byte ^ 32]) for byte in b"~}ABCD"}
    ),
    "cobs": Codec.cobs(),
}
# Chunks that drip, pieces that are gathered and pieces that are kept, around every limit.
SIZES = [1, 3, 7, 100, 255, 256, 1023, 1024, 1460, 16_383, 16_384, 65_535, 65_536, 70_000, 200_000]


def messages_for(codec: Codec, rng: random.Random) -> list[bytes]:
    layout = codec.layout
    if layout.size:
        return [rng.randbytes(layout.size) for _ in range(5000)]
    small = layout.field_width == 2 or layout.marks or layout.kind == DIGITS
    sizes = [0, 1, 16, 64, KIB, 5000, 20_000, 60_000 if small else 300_000]
    messages = [bytes([65 + i % 26]) * rng.choice(sizes) for i in range(20)]
    if layout.marks and codec.layout.has_changed_content:
        for i in range(0, 20, 2):
            messages[i] = rng.randbytes(len(messages[i]))
    return messages


def header_of(codec: Codec, frame: bytes, message: bytes) -> bytes:
    layout = codec.layout
    return b"" if layout.marks else frame[: len(frame) - len(message) - len(layout.trailer)]


@pytest.fixture(params=["whole between calls", "interrupted anywhere"])
def _interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    is_whole = request.param == "whole between calls"
    modules = (_plain_reader_py, _keeping_reader_py, _quick_frames_py)
    for module in modules:
        monkeypatch.setattr(module, "IS_WHOLE_BETWEEN_CALLS", is_whole)


@pytest.mark.usefixtures("_interpreter")
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", CODECS)
def test_feed_counts_and_keeps_every_byte_for_chunks_of_all_sizes(
    engine: ModuleType, name: str, raw: bool
) -> None:
    codec = CODECS[name]
    for seed in range(6):
        rng = random.Random(seed)
        messages = messages_for(codec, rng)
        frames = [codec.encode(message) for message in messages]
        headers = [*map(header_of, repeat(codec), frames, messages), b""]
        stream = b"".join(frames)
        splitter = engine.Splitter(codec, raw=raw)
        got: list[Any] = []
        pos = delivered = 0
        sizes = SIZES if seed % 2 else SIZES[6:]  # the small ones alone would take long
        while pos < len(stream):
            form: Any = rng.choice([bytes, bytes, bytearray])
            chunk = stream[pos : pos + rng.choice(sizes)]
            new = splitter.feed(form(chunk))
            pos += len(chunk)
            delivered += sum(map(len, frames[len(got) : len(got) + len(new)]))
            got += new
            assert splitter.stream_offset == delivered
            assert splitter.pending == pos - delivered
            assert splitter.pending_header == headers[len(got)][: pos - delivered]
            if seed % 3 == 0 and rng.random() < 0.01:
                assert splitter.feed(b"") == []
        assert got == (frames if raw else messages)


@pytest.mark.usefixtures("_interpreter")
@pytest.mark.parametrize("arrived", [2, 4, 5, 30, 2000, 20_000])
def test_end_inside_a_frame_that_dripped_in_says_what_arrived(
    engine: ModuleType, arrived: int
) -> None:
    codec = CODECS["plain"]
    frame = codec.encode(bytes(30_000))
    splitter = engine.Splitter(codec)
    for pos in range(0, arrived, 7):
        splitter.feed(frame[pos : min(pos + 7, arrived)])
    assert splitter.bytes_needed == (len(frame) if arrived >= 4 else 4) - arrived
    with pytest.raises(IncompleteFrameError) as raised:
        splitter.feed_eof()
    whole = engine.Splitter(codec)
    whole.feed(frame[:arrived])
    with pytest.raises(IncompleteFrameError) as expected:
        whole.feed_eof()
    assert str(raised.value) == str(expected.value)
    assert raised.value.header == expected.value.header == frame[: min(4, arrived)]
    with pytest.raises(IncompleteFrameError):
        splitter.feed(b"1")
    assert splitter.detach() == frame[:arrived]


@pytest.mark.parametrize("size", [10, 100_000])
def test_small_chunks_in_the_rest_are_refused_after_detach_and_kept_by_it(
    engine: ModuleType, size: int
) -> None:
    codec = CODECS["plain"]
    splitter = engine.Splitter(codec)
    frame = codec.encode(bytes(size))
    splitter.feed(frame[:6])
    splitter.feed(frame[6:8])
    assert splitter.detach() == frame[:8]
    with pytest.raises(ValueError, match="detached"):
        splitter.feed(b"1")


def test_headers_are_those_of_the_last_call_after_a_small_chunk(engine: ModuleType) -> None:
    codec = Codec.headers(max_message_size=5000)
    splitter = engine.Splitter(codec, keep_headers=True)
    frame = codec.encode(bytes(2000))
    assert splitter.feed(frame + frame[:500]) == [bytes(2000)]
    assert splitter.headers == [frame[:-2000]]
    assert splitter.feed(frame[500:600]) == []
    assert splitter.headers == []


def test_large_chunk_that_is_sliced_leaves_no_shortcut_of_an_earlier_frame(
    engine: ModuleType,
) -> None:
    codec = CODECS["plain"]
    small = codec.encode(bytes(40_000))
    splitter = engine.Splitter(codec)
    # The first slice of 64 KiB ends inside the second frame, and the chunk at its end.
    assert len(splitter.feed(bytearray(small * 2))) == 2
    assert splitter.feed(small[:3]) == []
    assert splitter.pending_header == small[:3]
    assert splitter.feed(small[3:]) == [bytes(40_000)]


def test_switch_inside_a_frame_reads_small_chunks_with_the_new_codec(engine: ModuleType) -> None:
    splitter = engine.Splitter(CODECS["plain"])
    splitter.feed(b"\0\0\x20\0ab")
    splitter.feed(b"cd")
    assert splitter.switch(CODECS["lines"]) == []
    assert splitter.feed(b"e") == []
    assert splitter.feed(b"\n") == [b"\0\0\x20\0abcde"]


def test_interrupted_feed_in_python_keeps_no_lock() -> None:
    """A signal handler that raises when the lock was just taken does not block other threads."""
    codec = CODECS["plain"]
    frame = codec.encode(bytes(100))

    class Interrupted(BaseException):
        pass

    interruptions = 0
    for number in range(200):
        left = number

        def handler(frame: Any, event: str, argument: object) -> None:
            nonlocal left
            if event in ("call", "c_return") and "_py.py" in frame.f_code.co_filename:
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    raise Interrupted

        splitter = python_engine.Splitter(codec)
        splitter.feed(frame[:50])
        sys.setprofile(handler)
        try:
            splitter.feed(frame[50:])
        except Interrupted:
            interruptions += 1
        finally:
            sys.setprofile(None)
        taken: list[bool] = []
        acquire = splitter._lock.acquire
        other = threading.Thread(target=lambda t=taken, a=acquire: t.append(a(False)))
        other.start()
        other.join()
        assert taken == [True], number
        if left >= 0:
            break
    assert interruptions > 5


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "name",
    ["lines", "two marks", "cobs", "digits", "varint", "netstring", "headers"],
)
def test_ordinary_frames_that_chunks_cut_never_take_the_slow_path(
    name: str, raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_path(*arguments: object) -> int:
        raise AssertionError(f"the slow path was taken: {arguments!r}")

    codec = CODECS[name]
    if raw and not codec.layout.marks:
        pytest.skip("whole frames of lengths are read by another path")
    monkeypatch.setattr(_marked_reader_py, "_read_content", slow_path)
    monkeypatch.setattr(_marked_reader_py, "_read_stuffed", slow_path)
    monkeypatch.setattr(_frame_reader_py, "_parse_header", slow_path)
    messages = [bytes([65 + i % 26]) * size for i, size in enumerate([0, 1, 40, 3000, 90_000, 7])]
    stream = codec.encode_many(messages)
    for chunk_size in (1, 7, 1460, 70_000):
        splitter = python_engine.Splitter(codec, raw=raw)
        got: list[Any] = []
        for pos in range(0, len(stream), chunk_size):
            got += splitter.feed(stream[pos : pos + chunk_size])
        assert got == ([codec.encode(message) for message in messages] if raw else messages)
        assert (splitter.pending, splitter.stream_offset) == (0, len(stream))


@pytest.mark.parametrize("chunk_size", [1, 3, 50, 51, 52, 200])
def test_line_above_the_limit_is_refused_where_chunks_cut_it(
    engine: ModuleType, chunk_size: int
) -> None:
    codec = Codec.delimiter(b"\n", b"\r\n", max_message_size=50)
    stream = b"a" * 50 + b"\r\n" + b"b" * 50 + b"\n" + b"c" * 51 + b"\n" + b"d\n"
    chunks = [stream[pos : pos + chunk_size] for pos in range(0, len(stream), chunk_size)]
    splitter = engine.Splitter(codec)
    got: list[Any] = []
    for chunk in chunks:
        try:
            got += splitter.feed(chunk)
        except MessageTooLargeError:
            break
    assert got == [b"a" * 50, b"b" * 50]
    assert isinstance(splitter.error, MessageTooLargeError)
    assert splitter.error.stream_offset == 103
    skipping = engine.Splitter(codec, on_oversize="skip")
    got = [message for chunk in chunks for message in skipping.feed(chunk)]
    assert (got, skipping.skipped) == ([b"a" * 50, b"b" * 50, b"d"], 1)


@pytest.mark.parametrize("stream", [b"cccc\rcccaaa", b"\rcc\r\rcc\rccc", b"ccccccccc\rc"])
def test_line_with_part_of_a_mark_is_refused_at_the_byte_above_the_limit(
    engine: ModuleType, stream: bytes
) -> None:
    codec = Codec.delimiter(b"\r\n", max_message_size=len(stream) - 1)
    for first in range(1, len(stream)):
        for second in range(first, len(stream)):
            splitter = engine.Splitter(codec)
            assert splitter.feed(stream[:first]) == []
            assert splitter.feed(stream[first:second]) == []
            with pytest.raises(MessageTooLargeError):
                splitter.feed(stream[second:])


@pytest.mark.parametrize(
    ("name", "bad", "right"),
    [
        ("digits", b"000x3abc", 4),
        ("varint", b"\x81\x80\x00", 3),
        ("varint", b"\xff" * 10, 5),
        ("netstring", b"003:abc,", 2),
        ("netstring", b"3:abc;", 6),
        ("netstring", b"123456789012345678901:", 21),
        ("headers", b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 38),
        ("headers", b"A: b\r\n\r\n", 8),
        ("headers", b"Content-Length: 3\n\nabc", 18),
        ("slip", b"ab\xdbcd\xc0", 4),
        ("slip", b"ab\xdb\xdb\xdc\xc0", 4),
        ("slip", b"ab\xdb\xc0", 4),
        ("cobs", b"\x05abc\0", 5),
    ],
)
def test_odd_frame_is_refused_at_its_first_wrong_byte_where_chunks_cut_it(
    engine: ModuleType, name: str, bad: bytes, right: int
) -> None:
    """After `right` of its bytes the error is there, not earlier."""
    codec = CODECS[name]
    before = codec.encode(b"first") + codec.encode(b"second")
    for start in range(1, len(before) + right):
        splitter = engine.Splitter(codec)
        got = splitter.feed((before + bad)[:start])
        for pos in range(start, len(before) + right - 1):
            got += splitter.feed((before + bad)[pos : pos + 1])
            assert splitter.error is None
        with suppress(InvalidFrameError):
            got += splitter.feed((before + bad)[max(start, len(before) + right - 1) :])
        assert got == [b"first", b"second"], start
        assert isinstance(splitter.error, InvalidFrameError)
        assert splitter.error.stream_offset == len(before)
        assert splitter.detach() == bad


@pytest.mark.parametrize("name", ["cobs", "slip"])
@pytest.mark.parametrize("chunk_size", [1, 20, 47, 48, 49, 50, 51, 500])
def test_frame_with_escapes_above_the_limit_is_refused_where_chunks_cut_it(
    engine: ModuleType, name: str, chunk_size: int
) -> None:
    """The limit is that of the message, which has fewer bytes than its frame."""
    codec = CODECS[name].replace(max_message_size=50)
    messages = [b"\xdb\0" * 25, b"c" * 50, b"\xc0" * 30, b"", b"d" * 9]
    too_large = CODECS[name].encode(b"\xdb\0" * 26)
    stream = codec.encode_many(messages) + too_large + codec.encode(b"last")
    chunks = [stream[pos : pos + chunk_size] for pos in range(0, len(stream), chunk_size)]
    splitter = engine.Splitter(codec, on_oversize="skip")
    got = [message for chunk in chunks for message in splitter.feed(chunk)]
    assert (got, splitter.skipped) == ([*messages, b"last"], 1)
    refusing = engine.Splitter(codec)
    got = []
    for chunk in chunks:
        try:
            got += refusing.feed(chunk)
        except MessageTooLargeError:
            break
    assert got == messages
    assert refusing.error is not None
    assert refusing.error.stream_offset == len(codec.encode_many(messages))


@pytest.mark.parametrize("name", sorted(CODECS.keys() - {"fixed"}))
def test_large_chunks_after_small_ones_continue_a_message(engine: ModuleType, name: str) -> None:
    """Small chunks are joined in one piece, a large one is a piece."""
    message = bytes(range(33, 91)) * 200
    stream = CODECS[name].encode_many([message, message])
    for sizes in ((100, 100, 2000), (100, 2000, 100), (2000, 100, 2000, 100), (100, 100, 5000)):
        splitter, got, pos = engine.Splitter(CODECS[name]), [], 0
        for size in (*sizes, len(stream)):
            got += splitter.feed(stream[pos : pos + size])
            pos += size
            assert splitter.stream_offset + splitter.pending == min(pos, len(stream))
        assert got == [message, message]


@pytest.mark.parametrize("mark", [b"\n", b"\r\n", b"\0\n", b"\xff\n"])
def test_each_of_many_marks_ends_a_message_that_came_in_pieces(
    engine: ModuleType, mark: bytes
) -> None:
    splitter = engine.Splitter(Codec.delimiter(b"\n", b"\r\n", b"\0\n", b"\xff\n"))
    for _ in range(3):
        assert splitter.feed(b"part ") == []
    assert splitter.feed(b"end" + mark[:-1]) == []
    assert splitter.pending == 18 + len(mark) - 1
    assert splitter.feed(b"\nnext") == [b"part part part end"]
    assert splitter.feed(mark) == [b"next"]


@pytest.mark.parametrize("name", ["plain", "trailer", "digits", "varint", "netstring", "headers"])
@pytest.mark.parametrize("chunk_size", [10, 100, 1460, 10_000])
def test_length_above_the_limit_is_refused_with_the_chunk_that_ends_it(
    engine: ModuleType, name: str, chunk_size: int
) -> None:
    """The limit is larger than most of the chunks, and smaller than the largest."""
    codec = CODECS[name].replace(max_message_size=3000)
    messages = [b"a" * size for size in (3000, 1, 0, 150, 2999, 7)]
    too_large = CODECS[name].encode(b"b" * 3001)
    header = len(too_large) - 3001 - len(codec.layout.trailer)
    stream = codec.encode_many(messages) + too_large
    splitter = engine.Splitter(codec)
    got: list[bytes] = []
    for pos in range(0, len(stream), chunk_size):
        with suppress(MessageTooLargeError):  # it is raised if there is no message before it
            got += splitter.feed(stream[pos : pos + chunk_size])
        if pos + chunk_size >= len(stream) - len(too_large) + header:
            break
        assert splitter.error is None
    assert got == messages
    assert isinstance(splitter.error, MessageTooLargeError)
    assert splitter.error.stream_offset == len(stream) - len(too_large)


# --- frames after which a chunk continues ---------------------------------------------------------

ROUND = 65_536  # the Python engine splits so much of a chunk in one step
CRLF, LONG_MARK = Codec.delimiter(b"\r\n"), Codec.delimiter(b"aXb")


@pytest.mark.parametrize(
    ("codec", "chunks", "expected"),
    [
        (CRLF, [b"x\r\n" * 21_845 + b"yyyy\r", b"more", b"\r\n"], [b"yyyy\rmore"]),
        (CRLF, [b"\n", b"q\r", b"g" * 31 + b"\r", b"\n"], [b"\nq\r" + b"g" * 31]),
        (LONG_MARK, [b"a", b"Xb" + b"z" * 31 + b"a", b"Xb"], [b"", b"z" * 31]),
        (Codec.cobs(), [b"\2x\0" * 21_845 + b"\3ab\0", b"\2y", b"\0"], [b"ab", b"y"]),
        (Codec.cobs(), [b"\2x\0" * 21_845 + b"\3ab\0", b"\2", b"y\0"], [b"ab", b"y"]),
        (
            Codec.delimiter(b"\n", min_message_size=1),
            [b"x\n" * (ROUND // 2) + b"yy", b"y", b"y\n"],
            [b"yyyy"],
        ),
    ],
    ids=["token cut off", "small chunks", "long mark", "cobs", "cobs, its first byte", "a piece"],
)
def test_a_chunk_whose_steps_end_in_different_ways_is_read_as_one(
    engine: ModuleType, codec: Codec[Any], chunks: list[bytes], expected: list[bytes]
) -> None:
    splitter = engine.Splitter(codec)
    messages: list[bytes] = []
    for chunk in chunks:
        messages += splitter.feed(chunk)
    assert messages[-len(expected) :] == expected
    assert splitter.pending == 0
    splitter.feed_eof()
    assert messages == engine.Splitter(codec).feed(b"".join(chunks))


@needs_cpython_3_11
@pytest.mark.untraced
@pytest.mark.parametrize(
    "codec", [Codec.cobs(), Codec.delimiter(b"\n", skip_empty=True), Codec.delimiter(b"\n")]
)
def test_a_chunk_for_which_memory_fails_is_taken_once_or_not_at_all(
    engine: ModuleType, codec: Codec[Any]
) -> None:
    testcapi = pytest.importorskip("_testcapi")
    frames = [codec.encode(b"m%d" % number * 100) for number in range(6)]
    chunk, rest = b"".join(frames[:5]) + frames[5][:100], frames[5][100:]
    whole = engine.Splitter(codec)
    expected = whole.feed(chunk) + whole.feed(rest)
    for number in range(1, 80):
        splitter = engine.Splitter(codec)
        received = None
        testcapi.set_nomemory(number, number + 1)
        try:
            received = splitter.feed(chunk)
        except MemoryError:
            pass
        finally:
            testcapi.remove_mem_hooks()
        if received is None or splitter.error is not None:
            continue
        assert received + splitter.feed(rest) == expected
        assert splitter.stream_offset == whole.stream_offset


def test_a_wrong_trailer_of_several_bytes_comes_after_the_messages(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.text(b":", trailer=b",;"))
    for _ in range(3):
        assert splitter.feed(b"3:abc,;1:x,;") == [b"abc", b"x"]
    assert splitter.feed(b"3:abc,;1:x,,") == [b"abc"]
    with pytest.raises(InvalidFrameError, match="trailer"):
        splitter.feed(b"")


def test_a_message_whose_header_came_in_two_chunks_ends_with_others(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(4))
    for _ in range(3):
        found = [splitter.feed(b"\0\0"), splitter.feed(b"\0\5"), splitter.feed(b"ab")]
        assert found == [[], [], []]
        assert splitter.feed(b"cde\0\0\0\1x") == [b"abcde", b"x"]


def test_a_chunk_that_ends_inside_a_long_mark(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.delimiter(b"<end>"))
    for _ in range(3):
        assert splitter.feed(b"one<end>two<en") == [b"one"]
        assert splitter.feed(b"d>three<end>") == [b"two", b"three"]


@pytest.mark.parametrize("make", [bytes, bytearray])
def test_a_long_frame_whose_header_was_cut_ends_in_a_short_chunk(
    engine: ModuleType, make: Any
) -> None:
    codec = Codec.uint(4)
    message = random.Random(3).randbytes(50_000)
    stream = codec.encode_many([message, b"next", b""])
    splitter = engine.Splitter(codec)
    assert splitter.feed(make(stream[:2])) == []
    assert splitter.feed(make(stream[2:45_000])) == []
    assert splitter.feed(make(stream[45_000:])) == [message, b"next", b""]
    assert (splitter.pending, splitter.stream_offset) == (0, len(stream))


def test_a_mark_that_was_cut_is_followed_by_a_message_that_begins_as_one(
    engine: ModuleType,
) -> None:
    codec = Codec.delimiter(b"END")
    for size in range(20, 36):
        messages = [b"a", b"x" * size, b"ENthird", b"y" * 40]
        stream = codec.encode_many(messages)
        for cut in range(1, len(stream)):
            splitter = engine.Splitter(codec)
            assert splitter.feed(stream[:cut]) + splitter.feed(stream[cut:]) == messages
            assert (splitter.pending, splitter.stream_offset) == (0, len(stream))


def test_scan_of_many_lines_finds_those_that_its_pieces_cut(engine: ModuleType) -> None:
    codec = Codec.delimiter(b"\r\n")
    messages = [b"%d" % number * 10 for number in range(5000)]
    with codecs_use(engine):
        spans = engine.scan(codec.replace(), codec.encode_many(messages))
    assert [*map(bytes, spans)] == messages


def test_the_offset_of_a_refused_message_counts_frames_that_are_ignored(
    engine: ModuleType,
) -> None:
    plain, ignored = Codec.cobs(magic=b"!"), b"!\0"
    before = plain.encode(b"1") + ignored * 2
    stream = before + plain.encode(b"{bad") + ignored + plain.encode(b"2")
    splitter = engine.Splitter(plain.as_json())
    assert splitter.feed(stream) == [1]
    with pytest.raises(InvalidMessageError) as caught:
        splitter.feed(b"")
    assert caught.value.stream_offset == len(before)
    assert splitter.feed(b"") == [2]


class InterruptedLock:
    """A lock whose acquire() is interrupted by a signal handler that raises: it is not taken."""

    def acquire(self) -> bool:
        raise KeyboardInterrupt

    def release(self) -> None:
        raise RuntimeError("cannot release un-acquired lock")


def test_bytes_needed_raises_what_a_handler_raises_while_it_waits() -> None:
    splitter = python_engine.Splitter(Codec.uint(4))
    splitter.feed(b"\0")
    lock = splitter._lock
    splitter._lock = InterruptedLock()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        splitter.bytes_needed  # noqa: B018
    splitter._lock = lock
    assert splitter.bytes_needed == 3
