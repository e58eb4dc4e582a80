"""The splitter's memory: kept views, collections that call in, failed allocations, no cycles.

Whatever a caller keeps, writes to or interrupts, no message that was delivered changes, no byte
comes from elsewhere, and the splitter works afterwards or raises a clear error.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import hashlib
import pickle
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.engines import ENGINES
from tests.helpers.fault_injection import fail_allocation, without_tracer

KIB = 1024
FRAME = Codec.uint(4).encode(bytes(range(256)) * 2000)  # 512,000 bytes of payload
PAYLOAD = FRAME[4:]


@pytest.fixture
def failing(no_collection_callbacks: None) -> Iterator[Callable[[int, int], Any]]:
    """A context manager in which that many allocations fail, after a number that succeed.

    Never all later ones: a Python function whose cleanup has no memory at all can loop for ever
    inside CPython 3.11, which repeats a handler that it cannot enter.
    """
    testcapi = pytest.importorskip("_testcapi")

    @contextlib.contextmanager
    def allocations(number: int, count: int) -> Iterator[None]:
        with without_tracer():
            testcapi.set_nomemory(number, number + count)
            try:
                yield
            finally:
                testcapi.remove_mem_hooks()

    yield allocations
    testcapi.remove_mem_hooks()


# --- views that the caller keeps ------------------------------------------------------------------


def fill(splitter: Any, memory: memoryview, data: bytes, pos: int) -> tuple[list[Any], int]:
    size = min(len(memory), len(data) - pos)
    memory[:size] = data[pos : pos + size]
    return splitter.buffer_updated(size), pos + size


KEEPERS: dict[str, Callable[[memoryview], Any]] = {
    "the view": lambda memory: memory,
    "a view of the view": lambda memory: memory[:],
    "a view of the view's owner": lambda memory: memoryview(memory.obj),
    "the view's owner": lambda memory: memory.obj,
}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("codec", [Codec.uint(4), Codec.uint(4, trailer=b"END")], ids=str)
@pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS.keys())
def test_get_room_kept_by_the_caller_never_changes_a_delivered_message(
    engine: ModuleType, codec: Codec, raw: bool, keep: Callable[[memoryview], Any]
) -> None:
    frame = codec.encode(PAYLOAD)
    splitter, kept, got, pos = engine.Splitter(codec, raw=raw), [], [], 0
    got += splitter.feed(frame[:100_000])
    pos = 100_000
    while pos < len(frame):
        memory = splitter.get_room(256 * KIB)
        kept.append(keep(memory))
        messages, pos = fill(splitter, memory, frame, pos)
        got += messages
    assert got == [frame if raw else PAYLOAD]
    for owner in kept:
        with contextlib.suppress(ValueError):  # the splitter released the view
            view = memoryview(owner)
            view[:] = b"\xee" * len(view)
    assert got == [frame if raw else PAYLOAD]


@pytest.mark.parametrize("last", ["feed", "get_buffer"])
def test_get_room_followed_by_other_calls_never_changes_a_delivered_message(
    engine: ModuleType, last: str
) -> None:
    splitter = engine.Splitter(Codec.uint(4))
    assert splitter.feed(FRAME[:100_000]) == []
    memory = splitter.get_room(1 << 20)
    if last == "feed":
        got = splitter.feed(FRAME[100_000:])
    else:
        pos, got = 100_000, []
        while pos < len(FRAME):
            messages, pos = fill(splitter, splitter.get_buffer(1 << 20), FRAME, pos)
            got += messages
    with contextlib.suppress(ValueError):
        memory[:] = b"\xee" * len(memory)
    assert got == [PAYLOAD]


@pytest.mark.parametrize("shift", [0, 1, 5000])
def test_feed_accepts_a_view_of_the_message_that_is_being_filled(
    engine: ModuleType, shift: int
) -> None:
    codec = Codec.uint(4)
    tail = codec.encode(b"next") * 3
    for size in (66_000, 100_000):
        message = bytes(range(256)) * 1000
        stream = codec.encode(message) + tail
        splitter = engine.Splitter(codec)
        assert splitter.feed(stream[:150_000]) == []
        memory = splitter.get_room(size)
        view = memoryview(memory)[shift:]
        rest = stream[150_000 : 150_000 + len(view)]
        view[: len(rest)] = rest
        got = splitter.feed(view[: len(rest)])
        got += splitter.feed(stream[150_000 + len(rest) :])
        assert got == [message, b"next", b"next", b"next"]


def test_get_room_is_withdrawn_by_feed(engine: ModuleType) -> None:
    for arrived in (0, 2, 100_000):
        splitter = engine.Splitter(Codec.uint(4))
        splitter.feed(FRAME[:arrived])
        splitter.get_room(64 * KIB)
        splitter.feed(FRAME[arrived : arrived + 5])
        with pytest.raises(ValueError, match="without a get_buffer"):
            splitter.buffer_updated(3)
        assert splitter.pending == arrived + 5


def test_get_buffer_is_not_withdrawn_by_feed(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(1))
    view = splitter.get_buffer()
    view[:3] = b"\2cd"
    assert splitter.feed(b"\1a") == [b"a"]
    assert splitter.buffer_updated(3) == [b"cd"]


# --- collections that call in ---------------------------------------------------------------------


class CallsIn:
    """Cyclic garbage whose finalizer calls the splitter."""

    def __init__(self, calls: list[Callable[[], Any]], outcomes: list[str]) -> None:
        self.itself = self
        self.calls = calls
        self.outcomes = outcomes

    def __del__(self) -> None:
        for call in self.calls:
            try:
                call()
            except RuntimeError as error:
                self.outcomes.append(str(error))
            else:
                self.outcomes.append("done")


@needs_cpython_3_11
@pytest.mark.parametrize(
    "way",
    ["feed", "get_buffer", "get_room", "buffer_updated", "get_room, buffer_updated", "detach"],
)
def test_splitter_survives_collections_that_call_in_at_any_allocation(
    engine: ModuleType, way: str
) -> None:
    """Before Python 3.12 a collection runs inside the allocation itself."""
    codec = Codec.uint(4)
    outcomes: list[str] = []
    thresholds = gc.get_threshold()
    try:
        for _ in range(20):
            gc.disable()
            splitter = engine.Splitter(codec)
            got = list(splitter.feed(FRAME[:100_000]))
            if way == "buffer_updated":
                view = splitter.get_buffer(64 * KIB)
                view[:1000] = FRAME[100_000:101_000]
            elif way == "get_room, buffer_updated":
                view = splitter.get_room(64 * KIB)
                view[:1000] = FRAME[100_000:101_000]
            calls: list[Callable[[], Any]] = [
                lambda splitter=splitter: splitter.get_buffer(1 << 20).release(),  # type: ignore[misc]
                lambda splitter=splitter: splitter.get_room(1 << 20).release(),  # type: ignore[misc]
                lambda splitter=splitter: splitter.feed(b""),  # type: ignore[misc]
            ]
            CallsIn(calls, outcomes)
            gc.enable()
            gc.set_threshold(1, 1, 1)
            if way == "feed":
                got += splitter.feed(FRAME[100_000:101_000])
            elif way == "get_buffer":
                splitter.get_buffer(128 * KIB).release()
            elif way == "get_room":
                splitter.get_room(128 * KIB).release()
            elif way == "detach":
                assert splitter.detach() == FRAME[:100_000]
            else:
                with contextlib.suppress(ValueError):  # a finalizer took the memory away before
                    got += splitter.buffer_updated(1000)
            gc.set_threshold(*thresholds)
            if way == "detach":
                continue
            taken = splitter.stream_offset + splitter.pending
            assert taken in (100_000, 101_000)
            got += splitter.feed(FRAME[taken:])
            assert got == [PAYLOAD]
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
        gc.collect()
    assert outcomes


# --- memory that runs out -------------------------------------------------------------------------


@needs_cpython_3_11
@pytest.mark.parametrize("count", [1, 2, 5])
def test_get_room_without_memory_leaves_the_message_as_it_was(
    engine: ModuleType, failing: Callable[[int, int], Any], count: int
) -> None:
    failures = 0
    for number in range(8):
        splitter = engine.Splitter(Codec.uint(4))
        assert splitter.feed(FRAME[:200_000]) == []
        failed = False
        with failing(number, count):
            try:
                splitter.get_room(1 << 20)
            except MemoryError:
                failed = True
        failures += failed
        assert splitter.pending == 200_000
        assert splitter.feed(FRAME[200_000:]) == [PAYLOAD]
    assert failures


@needs_cpython_3_11
@pytest.mark.parametrize("count", [1, 2, 5])
def test_feed_without_memory_can_be_repeated_or_fails_for_good(
    engine: ModuleType, failing: Callable[[int, int], Any], count: int
) -> None:
    stream = FRAME + Codec.uint(4).encode(b"next")
    for first in (0, 3, 200_000, len(FRAME) - 1):
        failures = 0
        for number in range(200):
            splitter = engine.Splitter(Codec.uint(4))
            assert splitter.feed(stream[:first]) == []
            got: list[Any] = []
            chunk = stream[first:]
            failed = False
            with failing(number, count):
                try:
                    got = splitter.feed(chunk)
                except MemoryError:
                    failed = True
            if not failed and splitter.error is None:
                break
            failures += 1
            if splitter.error is None:  # it can be repeated
                assert splitter.stream_offset + splitter.pending == first
                assert splitter.feed(chunk) == [PAYLOAD, b"next"]
                continue
            with pytest.raises(MemoryError):
                splitter.feed(b"")
            delivered = b"".join(Codec.uint(4).encode(message) for message in got)
            try:
                assert delivered + splitter.detach() == stream
            except MemoryError as error:
                assert "memory ran out" in str(error)  # noqa: PT017
        assert got == [PAYLOAD, b"next"]
        assert 0 < failures < 100


@needs_cpython_3_11
def test_a_message_without_memory_for_its_name_is_not_delivered(
    engine: ModuleType, failing: Callable[[int, int], Any]
) -> None:
    codec = Codec.choice({"small": (0, Codec.uint(1, length_offset=1))}, tagged=True)
    stream = codec.encode(("small", b"\0abc"))
    failures = 0
    for number in range(60):
        splitter = engine.Splitter(codec)
        assert splitter.feed(stream[:3]) == []
        got: list[Any] = []
        rest = stream[3:]
        with failing(number, 1):
            try:
                got = splitter.feed(rest)
            except MemoryError:
                failures += 1
        assert got in ([], [("small", b"\0abc")])
        if splitter.error is not None:
            assert splitter.detach() == (b"" if got else stream)
    assert failures


@needs_cpython_3_11
@pytest.mark.parametrize("count", [1, 2, 5])
def test_detach_without_memory_can_be_repeated(
    engine: ModuleType, failing: Callable[[int, int], Any], count: int
) -> None:
    failures = 0
    for number in range(6):
        splitter = engine.Splitter(Codec.uint(4))
        assert splitter.feed(FRAME[:200_000]) == []
        unfinished = b""
        with failing(number, count):
            try:
                unfinished = splitter.detach()
            except MemoryError:
                failures += 1
                failed = True
            else:
                failed = False
        if failed:
            unfinished = splitter.detach()
        assert unfinished == FRAME[:200_000]
    assert failures


PAIRS = Codec.uint(4).with_objects(lambda message: (message, 0), lambda pair: pair[0])

LOCKING: dict[str, tuple[Codec[Any], Callable[[Any], Any]]] = {
    "feed": (Codec.uint(4), lambda splitter: splitter.feed(FRAME[4:8])),
    "feed of a view": (Codec.uint(4), lambda splitter: splitter.feed(PART)),
    "feed with objects": (PAIRS, lambda splitter: splitter.feed(FRAME[4:8])),
    "get_buffer": (Codec.uint(4), lambda splitter: splitter.get_buffer()),
    "get_room": (Codec.uint(4), lambda splitter: splitter.get_room()),
    "buffer_updated": (Codec.uint(4), lambda splitter: splitter.buffer_updated(4)),
    "buffer_updated with objects": (PAIRS, lambda splitter: splitter.buffer_updated(4)),
    "feed_eof": (Codec.uint(4), lambda splitter: splitter.feed_eof()),
    "switch": (Codec.uint(4), lambda splitter: splitter.switch(WIDER)),
    "switch with objects": (PAIRS, lambda splitter: splitter.switch(PAIRS)),
    "bytes_needed": (Codec.uint(4), lambda splitter: splitter.bytes_needed),
    "detach": (Codec.uint(4), lambda splitter: splitter.detach()),
    "the unread bytes": (Codec.uint(4), lambda splitter: splitter._unread()),
    "the padding": (Codec.uint(4), lambda splitter: splitter._delivered_padding()),
}
PART, WIDER = memoryview(FRAME)[4:8], Codec.uint(8)


@needs_cpython_3_11
@pytest.mark.parametrize("name", LOCKING)
def test_a_call_without_memory_keeps_no_lock(
    engine: ModuleType, no_collection_callbacks: None, name: str
) -> None:
    """Another thread that uses the splitter afterwards does not wait for ever."""
    codec, call = LOCKING[name]
    begun = FRAME[:4] if "feed" in name or "buffer" in name or name == "get_room" else FRAME[:8]
    failures = 0
    for number in range(40):
        splitter = engine.Splitter(codec)
        assert splitter.feed(begun) == []
        if name.startswith("buffer_updated"):
            splitter.get_buffer()[:4] = PART
        failures += fail_allocation(number, call, splitter, (FrameError,))
        answers: list[int] = []
        other = threading.Thread(
            target=lambda ask=splitter, told=answers: told.append(ask.bytes_needed), daemon=True
        )
        other.start()
        other.join(20)
        assert answers, f"allocation {number} failed"
    if engine.__name__.endswith("_py") and name not in ("bytes_needed", "the padding"):
        assert failures  # these two need no memory, as some calls of the compiled engine


# --- nothing is held ------------------------------------------------------------------------------


CODECS = [
    Codec.uint(4),
    Codec.digits(8),
    Codec.varint(),
    Codec.text(trailer=b","),
    Codec.headers(),
    Codec.custom(lambda view: (1, view[0]), lambda message: bytes([len(message)])),
]


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_splitter_is_free_as_soon_as_the_last_reference_goes(
    engine: ModuleType, codec: Codec
) -> None:
    frame = codec.encode(bytes(200_000)) if codec.kind != "custom" else b"\xff" + bytes(200)
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            splitter = engine.Splitter(codec)
            splitter.get_buffer()
            splitter.feed(frame[: len(frame) // 2])
            del splitter
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held < 60_000


@pytest.mark.parametrize("fails", [False, True])
def test_scan_holds_nothing_after_its_spans_are_gone(engine: ModuleType, fails: bool) -> None:
    codec = Codec.text(trailer=b",")
    data = bytearray(codec.encode(b"hello") * 10 + (b"x" if fails else b""))
    gc.collect()
    gc.disable()
    try:
        spans = engine.scan(codec, data)
        gone = weakref.ref(spans)
        if sys.version_info >= (3, 12) or engine.__name__ == ENGINES["compiled"]:
            with memoryview(spans) as view:
                assert view.shape == (10, 2)
            del view
        del spans
        assert gone() is None
        data.append(1)  # no export is left
    finally:
        gc.enable()


def test_splitter_error_holds_no_chunk(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.text(trailer=b",", max_message_size=10))
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        try:
            splitter.feed(bytearray(b"999:") + bytes(1_000_000))
        except FrameError as error:
            kept = error.with_traceback(None)
        splitter.detach()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept.header == b"999:"
    assert held < 100_000


# --- internal objects -----------------------------------------------------------------------------


def test_internal_objects_of_a_splitter_are_neither_copied_nor_pickled(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(4))
    splitter.feed(FRAME[:200_000])
    owner = splitter.get_room(64 * KIB).obj
    spans = engine.scan(Codec.uint(4), FRAME)
    internals = [splitter, spans]
    if engine.__name__ == ENGINES["compiled"]:
        internals.append(owner)
    for thing in internals:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                attempt(thing)


@pytest.mark.c_extension
def test_an_internal_object_made_by_its_class_shows_no_memory() -> None:
    from framecodec import _splitter

    splitter = _splitter.Splitter(Codec.uint(4))
    splitter.feed(FRAME[:200_000])
    kind = type(splitter.get_room(64 * KIB).obj)
    for made in (kind(), kind.__new__(kind)):
        with pytest.raises((TypeError, BufferError)):
            memoryview(made)


def living(kind: type) -> list[Any]:
    """Return all objects of a type that the collector knows, such as those of earlier tests."""
    return [thing for thing in gc.get_objects() if type(thing) is kind]


def new_ones(kind: type, before: list[Any]) -> list[Any]:
    """Return the objects that were not in `before`, which keeps those alive."""
    return [thing for thing in living(kind) if all(thing is not other for other in before)]


def test_spans_are_not_exported_while_scan_runs(engine: ModuleType) -> None:
    found: list[Any] = []
    others = living(engine.Spans)

    def parse(view: memoryview) -> tuple[int, int]:
        found.extend(new_ones(engine.Spans, others)[:1] if not found else ())
        if found and len(refusals) < 2:
            for call in (memoryview, lambda spans: spans.__array_interface__["data"]):
                try:
                    call(found[0])
                except (BufferError, TypeError, AttributeError) as error:
                    refusals.append(type(error))
        return 1, view[0]

    refusals: list[type[Exception]] = []
    codec = Codec.custom(parse, lambda message: bytes([len(message)]))
    spans = engine.scan(codec, codec.encode(b"a") * 100)
    assert [bytes(span) for span in spans] == [b"a"] * 100
    if found:
        assert len(refusals) == 2


def test_scan_refuses_calls_to_the_splitter_that_it_uses(engine: ModuleType) -> None:
    refusals: list[str] = []
    others = living(engine.Splitter)

    def parse(view: memoryview) -> tuple[int, int]:
        for thing in new_ones(engine.Splitter, others):
            if thing.pending:
                try:
                    thing.feed(b"ab")
                except RuntimeError as error:
                    refusals.append(str(error))
                else:
                    refusals.append("taken")
        return 1, view[0]

    codec = Codec.custom(parse, lambda message: bytes([len(message)]))
    spans = engine.scan(codec, codec.encode(b"a") * 3)
    assert [bytes(span) for span in spans] == [b"a"] * 3
    assert "taken" not in refusals


def test_spans_are_flat_bytes_where_no_shape_is_asked_for(engine: ModuleType) -> None:
    codec = Codec.uint(1)
    spans = engine.scan(codec, codec.encode(b"abc") * 5)
    if engine.__name__ == ENGINES["python"] and sys.version_info < (3, 12):
        pytest.skip("classes of Python have no buffers before 3.12")
    assert hashlib.sha256(spans).digest() == hashlib.sha256(memoryview(spans).tobytes()).digest()


def test_buffer_updated_asks_for_the_number_once(engine: ModuleType) -> None:
    class Number:
        asked = 0

        def __index__(self) -> int:
            self.asked += 1
            return 1 << 40

    splitter, number = engine.Splitter(Codec.uint(1)), Number()
    splitter.get_buffer()
    with pytest.raises(ValueError, match=str(1 << 40)):
        splitter.buffer_updated(number)
    assert number.asked == 1
