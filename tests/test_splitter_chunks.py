"""Frames that chunks cut off: the shortcuts of the Python engine give what the slow path gives."""

from __future__ import annotations

import random
import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Codec,
    IncompleteFrameError,
    MessageTooLargeError,
    _keeping_reader_py,
    _marked_reader_py,
    _plain_reader_py,
)
from framecodec import _splitter_py as python_engine

KIB = 1024
CODECS = {
    "plain": Codec.uint(4, max_message_size=KIB * KIB),
    "adjustment": Codec.uint(4, length_includes="frame", max_message_size=KIB * KIB),
    "trailer": Codec.uint(2, trailer=b"\r\n"),
    "lines": Codec.delimiter(),
    "two bytes": Codec.delimiter(b"\r\n"),
    "two marks": Codec.delimiter(b"\n", b"\r\n"),
}
# Chunks that drip, pieces that are gathered and pieces that are kept, around every limit.
SIZES = [1, 3, 7, 100, 255, 256, 1023, 1024, 1460, 16_383, 16_384, 65_535, 65_536, 70_000, 200_000]


def messages_for(codec: Codec, rng: random.Random) -> list[bytes]:
    most = 60_000 if codec.layout.field_width == 2 or codec.layout.marks else 300_000
    sizes = [0, 1, 16, 64, KIB, 5000, 20_000, most]
    return [bytes([65 + i % 26]) * rng.choice(sizes) for i in range(20)]


@pytest.fixture(params=["whole between calls", "interrupted anywhere"])
def _interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    is_whole = request.param == "whole between calls"
    for module in (_plain_reader_py, _keeping_reader_py):
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
            header_size = codec.layout.header_size
            assert splitter.pending_header == stream[delivered : min(pos, delivered + header_size)]
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
@pytest.mark.parametrize("name", ["lines", "two marks"])
def test_ordinary_lines_that_chunks_cut_never_take_the_slow_path(
    name: str, raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_path(*arguments: object) -> int:
        raise AssertionError(f"the slow path was taken: {arguments!r}")

    monkeypatch.setattr(_marked_reader_py, "_read_content", slow_path)
    codec = CODECS[name]
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
