"""Memory is free when the last reference goes, without a garbage collection; errors hold no data.

The collector is off in these tests, so that a reference cycle would keep what it reaches.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError
from tests.test_splitter_memory import KINDS, MIB

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="reference counts are CPython's"
)

# What 200 splitters of nothing may hold, and the bookkeeping of the test itself.
LITTLE = 200_000


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def held_by(act: Callable[[], object]) -> int:
    """Return how many more bytes are held after a call than before."""
    act()  # what is made once
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        act()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def frame_of(codec: Codec, size: int) -> bytes:
    return codec.encode(b"@" + bytes(size - 1))


@pytest.mark.parametrize("codec", KINDS.values(), ids=KINDS)
def test_splitter_holds_nothing_after_its_last_reference(engine: ModuleType, codec: Codec) -> None:
    part = frame_of(codec, 2 * MIB)[:MIB]

    def use_splitters() -> None:
        for number in range(200):
            splitter = engine.Splitter(codec, raw=number % 3 == 0)
            splitter.feed(part)
            if number % 4 == 1:
                splitter.get_room(-1)

    assert held_by(use_splitters) < LITTLE


@pytest.mark.parametrize("codec", KINDS.values(), ids=KINDS)
def test_splitter_that_failed_holds_nothing_after_its_last_reference(
    engine: ModuleType, codec: Codec
) -> None:
    part = frame_of(codec, 2 * MIB)[:MIB]
    header_size = len(frame_of(codec, 2 * MIB)) - 2 * MIB
    small = codec.replace(max_message_size=MIB)

    def use_splitters() -> None:
        for _ in range(50):
            splitter = engine.Splitter(codec)
            splitter.feed(part)
            with pytest.raises(FrameError):
                splitter.feed_eof()
            splitter = engine.Splitter(small)
            with pytest.raises(FrameError):
                splitter.feed(part)
            del splitter

    assert header_size < 100
    assert held_by(use_splitters) < LITTLE


def test_feed_holds_no_delivered_message(engine: ModuleType) -> None:
    for codec in KINDS.values():
        frame = frame_of(codec, MIB)
        splitters = []

        def deliver(codec: Codec = codec, frame: bytes = frame, kept: Any = splitters) -> None:
            splitter = engine.Splitter(codec)
            for pos in range(0, len(frame), 50_000):
                splitter.feed(frame[pos : pos + 50_000])
            kept.append(splitter)
            assert splitter.pending == 0

        assert held_by(deliver) < LITTLE, codec


def test_get_buffer_holds_no_splitter(engine: ModuleType) -> None:
    codec = Codec.uint(4)

    def keep_views() -> None:
        views = []
        for _ in range(20):
            splitter = engine.Splitter(codec)
            splitter.feed(frame_of(codec, 2 * MIB)[:MIB])
            views.append(splitter.get_buffer(1024))
            del splitter
        assert len(views) == 20

    assert held_by(keep_views) < LITTLE


def test_scan_frees_spans_and_exports_with_their_last_reference(engine: ModuleType) -> None:
    codec = Codec.uint(4)
    data = codec.encode_many([b"abc"] * 5000)
    for use in (len, list, lambda spans: spans[5:9], repr, lambda spans: spans.count(b"abc")):
        spans = engine.scan(codec, data)
        gone = weakref.ref(spans)
        used = use(spans)
        del spans
        assert gone() is None, use
        del used

    def scan() -> None:
        for _ in range(20):
            spans = engine.scan(codec, bytearray(data))
            if sys.version_info >= (3, 12) or engine.__name__.endswith("_splitter"):
                assert memoryview(spans).shape == (5000, 2)
            del spans

    assert held_by(scan) < LITTLE


def test_scan_export_keeps_the_positions_of_freed_spans(engine: ModuleType) -> None:
    if sys.version_info < (3, 12) and engine.__name__.endswith("_py"):
        pytest.skip("a class in Python exports no buffer before Python 3.12")
    codec = Codec.uint(4)
    spans = engine.scan(codec, codec.encode_many([b"abc"] * 1000))
    export = memoryview(spans)
    gone = weakref.ref(spans)
    expected = export.tolist()
    del spans
    assert export.tolist() == expected
    assert len(expected) == 1000
    del export
    assert gone() is None


def bad_chunks(codec: Codec) -> Iterator[bytes]:
    """Yield large chunks: a good frame or nothing, then bytes that are invalid."""
    for good in (b"", codec.encode(b"@bc")):
        yield good + b"\xff" * MIB


SMALL_KINDS = {name: codec.replace(max_message_size=100) for name, codec in KINDS.items()}


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview], ids=lambda form: form.__name__)
@pytest.mark.parametrize("codec", SMALL_KINDS.values(), ids=SMALL_KINDS)
def test_feed_error_holds_no_chunk_in_its_traceback(
    engine: ModuleType, codec: Codec, form: Any
) -> None:
    for data in bad_chunks(codec):
        splitter = engine.Splitter(codec)
        chunk = form(data)
        references = sys.getrefcount(data), sys.getrefcount(chunk)
        try:
            splitter.feed(chunk)
        except FrameError as error:
            raised: FrameError | None = error
        else:
            raised = None
        assert splitter.error is not None
        assert raised in (None, splitter.error)
        splitter.detach()  # the unread bytes are the splitter's until then
        assert _frames_of(splitter.error.__traceback__, engine) == []
        if form is bytearray:
            chunk.extend(b"x")  # nothing exports it
        assert (sys.getrefcount(data), sys.getrefcount(chunk)) == references


def _frames_of(traceback: Any, engine: ModuleType) -> list[str]:
    """Return the variables of the engine's frames that hold data."""
    found = []
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").startswith("framecodec"):
            for name, value in frame.f_locals.items():
                if isinstance(value, bytes | bytearray) and len(value) > 10_000:
                    found.append(f"{frame.f_code.co_name}: {name}")
        traceback = traceback.tb_next
    return found


def test_scan_and_split_errors_export_no_chunk(engine_in_use: ModuleType) -> None:
    for codec in SMALL_KINDS.values():
        chunk = bytearray(b"\xff" * MIB)
        for call in (codec.scan, codec.split):
            kept = None
            try:
                call(chunk) if call == codec.split else codec.scan(chunk, raw=True)
            except FrameError as error:
                kept = error
            assert kept is not None, codec
            chunk.extend(b"x")  # nothing exports it
            chunk.pop()


def test_encode_error_exports_no_message(engine: ModuleType) -> None:
    encoder = engine.Encoder(Codec.uint(4, max_message_size=100))
    message = bytearray(MIB)
    for call in (encoder.encode, encoder.frame_parts, lambda m: encoder.encode_many([b"ab", m])):
        kept = None
        try:
            call(message)
        except FrameError as error:
            kept = error
        assert kept is not None
        message.extend(b"x")  # nothing exports it
        message.pop()
