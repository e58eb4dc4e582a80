"""Calls from several threads are serialised or refused; they never corrupt a thing."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError
from tests import stress_threads
from tests.helpers.sample_codecs import CODECS, build_tagged, parse_tagged

TIMEOUT = 60.0  # seconds, far beyond what a thread here needs


@pytest.fixture(autouse=True)
def _threads_that_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run the work in that many threads at once; the first failure is the test's."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            barrier.wait(TIMEOUT)
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


@pytest.mark.untraced
@pytest.mark.parametrize("kind", ["uint", "digits", "tagged"])
def test_feed_of_whole_frames_from_many_threads(engine: ModuleType, kind: str) -> None:
    codec = {
        "uint": Codec.uint(2, trailer=b"\n"),
        "digits": Codec.digits(4),
        "tagged": Codec.custom(parse_tagged, build_tagged),
    }[kind]
    splitter = engine.Splitter(codec)
    found: list[list[bytes]] = [[] for _ in range(4)]
    sent: list[list[bytes]] = [[] for _ in range(4)]

    def work(number: int) -> None:
        for turn in range(300):
            messages = [b"\x40" + f"{number}:{turn}:{n}".encode() * n for n in range(4)]
            stream = codec.encode_many(messages)
            while True:
                try:
                    found[number] += splitter.feed(stream)
                except RuntimeError:  # refused: another thread is inside
                    continue
                sent[number] += messages
                break

    in_threads(4, work)
    assert splitter.pending == 0
    assert splitter.error is None
    assert Counter(chain(*found)) == Counter(chain(*sent))


@pytest.mark.untraced  # the tracer lets other threads in between any two lines
def test_feed_of_any_bytes_from_many_threads_loses_none(engine: ModuleType) -> None:
    # Whichever thread is first: every byte is a message of one, or a length, or pending.
    splitter = engine.Splitter(Codec.uint(1))
    fed, got = [0] * 4, [0] * 4

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(2000):
            data = b"\1" * rng.randint(0, 7)
            try:
                if rng.random() < 0.5:
                    messages = splitter.feed(data)
                else:
                    messages = splitter.feed(bytearray(data))
            except RuntimeError:
                continue
            assert set(messages) <= {b"\1"}
            fed[number] += len(data)
            got[number] += len(messages)

    in_threads(4, work)
    assert splitter.stream_offset + splitter.pending == sum(fed)
    assert splitter.stream_offset == 2 * sum(got)


@pytest.mark.untraced
def test_splitter_survives_every_call_from_every_thread(engine: ModuleType) -> None:
    for name in ("trailer", "netstring", "lsp", "tagged", "specials", "varint"):
        codec = CODECS[name]
        shared = [engine.Splitter(codec)]

        def work(number: int, codec: Codec = codec, shared: list[Any] = shared) -> None:
            rng = random.Random(number)
            for _ in range(600):
                splitter = shared[0]
                way = rng.randrange(9)
                try:
                    if way < 4:
                        splitter.feed(rng.choice((b"\x01a\r\n", b"1:a,", b"\0", rng.randbytes(5))))
                    elif way < 6:
                        view = splitter.get_buffer(rng.choice((-1, 2000, 100_000)))
                        view[:3] = rng.randbytes(3)
                        splitter.buffer_updated(rng.randint(0, 3))
                    elif way == 6:
                        assert splitter.bytes_needed >= 1
                        assert splitter.pending >= 0
                        assert isinstance(splitter.pending_header, bytes)
                        assert splitter.skipped == 0
                    elif way == 7:
                        splitter.feed_eof()
                    elif rng.random() < 0.1:
                        assert isinstance(splitter.detach(), bytes)
                except (FrameError, ValueError, RuntimeError, BufferError):
                    shared[0] = engine.Splitter(codec)

        in_threads(4, work)


@pytest.mark.untraced  # a garbage collection would come between any two lines
@pytest.mark.skipif(not hasattr(gc, "callbacks"), reason="no calls at a garbage collection")
@pytest.mark.parametrize("way", ["feed", "feed_eof", "detach"])
def test_splitter_refuses_or_serves_a_call_inside_another(engine: ModuleType, way: str) -> None:
    # A garbage collection may come at any allocation. Its callback is the other thread here:
    # it comes at the same places, and each time.
    for allocations in range(1, 60):
        splitter = engine.Splitter(Codec.uint(1, max_message_size=1))
        slipped_in: list[bytes] = []

        def slip_in(
            phase: str, info: object, splitter: Any = splitter, slipped_in: list[bytes] = slipped_in
        ) -> None:
            with suppress(FrameError, RuntimeError, ValueError):  # broken, refused, detached
                slipped_in += splitter.feed(b"\1\1")

        if way != "feed":
            splitter.feed(b"\1")
        before = splitter.pending
        error, unfinished = None, b""
        thresholds = gc.get_threshold()
        gc.callbacks.append(slip_in)
        gc.set_threshold(allocations)
        try:
            if way == "feed":
                splitter.feed(b"\2\2\2")
            elif way == "feed_eof":
                splitter.feed_eof()
            else:
                unfinished = splitter.detach()
        except FrameError as raised:
            error = raised
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(slip_in)
        assert splitter.stream_offset == 2 * len(slipped_in)
        if way == "detach":
            assert unfinished == b"\1"
        else:
            assert error is not None
            assert error is splitter.error
            assert error.stream_offset == splitter.stream_offset
            assert splitter.pending == (3 if way == "feed" else before)
            assert splitter.detach() == (b"\2\2\2" if way == "feed" else b"\1")


def test_splitters_of_one_codec_are_independent(engine: ModuleType) -> None:
    codec = Codec.custom(parse_tagged, build_tagged, magic=b"M", trailer=b"T")

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(60):
            messages = [b"\x40" + rng.randbytes(rng.randint(0, 300)) for _ in range(5)]
            stream = engine.Encoder(codec).encode_many(messages)
            splitter = engine.Splitter(codec)
            found = []
            while stream:
                size = rng.randint(1, 100)
                found += splitter.feed(stream[:size])
                stream = stream[size:]
            assert found == messages

    in_threads(4, work)


@pytest.mark.parametrize("makes", [bytes, bytearray], ids=["bytes", "objects"])
def test_splitter_lets_a_call_wait_while_another_thread_parses(
    engine: ModuleType, makes: type
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def parse(view: memoryview) -> tuple[int, int]:
        inside.set()
        assert go_on.wait(TIMEOUT)
        return 1, view[0]

    codec: Codec[Any] = Codec.custom(parse, lambda message: bytes([len(message)]))
    if makes is not bytes:
        codec = codec.with_objects(bytes, makes)
    splitter = engine.Splitter(codec)
    results: list[Any] = []
    first = threading.Thread(target=lambda: results.append(splitter.feed(b"\1a")), daemon=True)
    first.start()
    assert inside.wait(TIMEOUT)

    def second_call() -> None:
        try:
            results.append(splitter.feed(b"\1b"))
        except RuntimeError as refusal:
            results.append(refusal)

    second = threading.Thread(target=second_call, daemon=True)
    second.start()
    second.join(0.1)
    go_on.set()
    for thread in (first, second):
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    results.remove([b"a"])
    (other,) = results
    assert other == [b"b"] or (isinstance(other, RuntimeError) and "in use" in str(other))
    assert isinstance(other, RuntimeError) or type(other[0]) is makes
    assert splitter.pending == 0


def test_encode_in_many_threads(engine: ModuleType) -> None:
    codec = Codec.text(trailer=b",", specials={7: None})
    encoder = engine.Encoder(codec)

    def work(number: int) -> None:
        message = bytes([number]) * (number + 1)
        expected = b"%d:%b," % (len(message), message)
        for _ in range(500):
            assert encoder.encode(message) == expected
            assert encoder.encode_many([message, None]) == expected + b"7:"

    in_threads(4, work)


@pytest.mark.untraced
def test_encode_many_survives_a_list_that_changes(engine: ModuleType) -> None:
    encoder = engine.Encoder(Codec.uint(1))
    shared: list[Any] = [b"a", b"bc", bytearray(b"d")] * 10
    stop = threading.Event()

    def change() -> None:
        rng = random.Random(0)
        while not stop.is_set():
            shared[:] = [rng.choice((b"a", b"bc", bytearray(b"d")))] * rng.randint(0, 50)

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        for _ in range(3000):
            frames = encoder.encode_many(shared)
            assert set(frames) <= set(b"\1\2abcd")
    finally:
        stop.set()
        thread.join(TIMEOUT)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", stress_threads.SCENARIOS)
def test_stress_threads_finds_nothing_wrong(scenario: str, engine_in_use: ModuleType) -> None:
    rounds, _, wrong = stress_threads.stress(stress_threads.SCENARIOS[scenario], 0.2)
    assert rounds
    assert not wrong
