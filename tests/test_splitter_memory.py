"""Memory is bounded by what arrived, at every moment, and work by what is new.

Nothing here is timed: memory is what `tracemalloc` counts, work is counted in calls and copies.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError, IncompleteFrameError, InvalidFrameError
from tests.helpers.sample_codecs import build_tagged, parse_tagged

MIB = 2**20

# What a splitter may hold beside the message: itself, its buffer, an error, a started allocation.
CONSTANT = 200_000


def parse_wide(view: memoryview) -> tuple[int, int, bytes] | None:
    return (8, int.from_bytes(view[1:8], "big"), bytes(view[:1])) if len(view) >= 8 else None


def build_wide(message: memoryview) -> tuple[bytes, int]:
    return bytes(message[:1]) + (len(message) - 1).to_bytes(7, "big"), 1


# Every kind, with and without a lead and a trailer, all without a limit that could save them.
KINDS = {
    "uint": Codec.uint(4, max_message_size=None),
    "uint, all parts": Codec.uint(
        8, "little", magic=b"M", length_offset=3, trailer=b"TT", max_message_size=None
    ),
    "struct": Codec.struct("!q", length_adjustment=-8, max_message_size=None),
    "digits": Codec.digits(12, trailer=b"\n", max_message_size=None),
    "varint": Codec.varint(max_width=10, max_message_size=None),
    "text": Codec.text(trailer=b",", max_message_size=None),
    "headers": Codec.headers(max_message_size=None),
    "custom": Codec.custom(parse_wide, build_wide, trailer=b"T", max_message_size=None),
}


class Meter:
    """How much is held more than at the start."""

    def __init__(self) -> None:
        self.start = tracemalloc.get_traced_memory()[0]

    def held(self) -> int:
        return tracemalloc.get_traced_memory()[0] - self.start

    def peak(self) -> int:
        """The most since this was last asked."""
        peak = tracemalloc.get_traced_memory()[1] - self.start
        tracemalloc.reset_peak()
        return peak


@contextmanager
def metered() -> Iterator[Meter]:
    gc.collect()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        yield Meter()
    finally:
        tracemalloc.stop()


def header_of(codec: Codec, size: int) -> bytes:
    """A header that declares a message of this size; no such message is made."""
    message = codec.encode(bytes(10))
    small, large = 10 - codec.layout.lead_size, size - codec.layout.lead_size
    if codec.kind == "custom":
        return b"\0" + (size - 1).to_bytes(7, "big")
    if codec.kind in ("uint", "struct"):
        pos, width = codec.layout.field_offset, codec.layout.field_width
        value = large - codec.layout.adjustment
        return message[:pos] + value.to_bytes(width, codec.layout.byteorder)
    if codec.kind == "varint":
        field = bytearray()
        while large > 127:
            field.append(large & 127 | 128)
            large >>= 7
        return bytes([*field, large])
    written, wanted = str(small).encode(), str(large).encode()
    head = message[: codec.layout.header_size or message.index(b"\0")]
    if codec.kind == "digits":
        return wanted.zfill(codec.layout.field_width)
    return head.replace(written, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("raw", [False, True])
def test_feed_allocates_nothing_for_a_declared_size(
    engine: ModuleType, name: str, raw: bool
) -> None:
    codec = KINDS[name]
    for size in (2**32 - 1, 2**31, 2**30):
        header = header_of(codec, size)
        with metered() as meter:
            splitters = []
            for _ in range(50):  # as many liars
                splitter = engine.Splitter(codec, raw=raw)
                assert splitter.feed(header + b"some") == []
                assert splitter.bytes_needed > size - 100
                splitters.append(splitter)
            assert meter.peak() < 50 * 10_000


def ways_to_arrive() -> dict[str, Callable[[Any, bytes], list[Any]]]:
    def by_buffer(splitter: Any, piece: bytes) -> list[Any]:
        view = splitter.get_buffer(-1)
        view[: len(piece)] = piece
        return splitter.buffer_updated(len(piece))  # type: ignore[no-any-return]

    return {
        "bytes": lambda splitter, piece: splitter.feed(piece),
        "bytearray": lambda splitter, piece: splitter.feed(bytearray(piece)),
        "buffer": by_buffer,
    }


@pytest.mark.slow
@pytest.mark.parametrize("arrive", ways_to_arrive())
@pytest.mark.parametrize("piece_size", [1500, 65_536])
@pytest.mark.parametrize("name", KINDS)
def test_feed_of_a_large_message_takes_at_most_twice_what_arrived(
    engine: ModuleType, name: str, piece_size: int, arrive: str
) -> None:
    codec, size = KINDS[name], MIB
    lead_size = 1 if codec.kind == "custom" else codec.layout.lead_size
    frame = header_of(codec, size) + bytes(size - lead_size) + codec.layout.trailer
    take = ways_to_arrive()[arrive]
    with metered() as meter:
        splitter = engine.Splitter(codec)
        messages: list[Any] = []
        for start in range(0, len(frame), piece_size):
            # The piece itself is the caller's, up to three times: sliced, as given, in the buffer.
            messages = take(splitter, frame[start : start + piece_size])
            arrived = min(start + piece_size, len(frame))
            assert meter.peak() < CONSTANT + 3 * piece_size + 2 * arrived
            if not messages:
                assert meter.held() < CONSTANT + 2 * arrived
        assert [len(message) for message in messages] == [size]
        assert meter.held() < size + CONSTANT  # the message, and nothing of it anywhere else


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uint, all parts", "text", "custom"])
def test_feed_of_small_chunks_takes_at_most_twice_what_arrived(
    engine: ModuleType, name: str
) -> None:
    codec, size = KINDS[name], 70_000
    header = header_of(codec, size)
    with metered() as meter:
        splitter = engine.Splitter(codec)
        splitter.feed(header)
        for arrived in range(size - 10):
            splitter.feed(b"x")
            if arrived % 997 == 0:
                assert meter.peak() < CONSTANT + 2 * arrived


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("fail", ["the end", "the trailer", "detach"])
def test_feed_that_fails_in_a_large_message_takes_at_most_twice_what_arrived(
    engine: ModuleType, fail: str, raw: bool
) -> None:
    size, piece = 4 * MIB, 65_536
    codec = Codec.uint(4, trailer=b"T", max_message_size=None)
    declared = size if fail == "the trailer" else 2 * size
    with metered() as meter:
        splitter = engine.Splitter(codec, raw=raw)
        splitter.feed(declared.to_bytes(4, "big"))
        for _ in range(size // piece):
            splitter.feed(bytes(bytearray(piece)))
        meter.peak()
        if fail == "the end":
            with pytest.raises(IncompleteFrameError):
                splitter.feed_eof()
        elif fail == "the trailer":
            with pytest.raises(InvalidFrameError):
                splitter.feed(b"X")
        else:  # what it gives back is the caller's
            assert len(splitter.detach()) == size + 4
        assert meter.peak() < CONSTANT + (3 if fail == "detach" else 2) * size


def test_on_oversize_skip_takes_constant_memory(engine: ModuleType) -> None:
    codec = Codec.uint(4, max_message_size=10)
    with metered() as meter:
        splitter = engine.Splitter(codec, on_oversize="skip")
        splitter.feed((64 * MIB).to_bytes(4, "big"))
        for _ in range(64):
            assert splitter.feed(bytes(MIB)) == []
            assert meter.peak() < CONSTANT + 2 * MIB  # the piece, and a slice of it
        assert splitter.skipped == 1
        assert meter.held() < CONSTANT
    frame = (64 * MIB).to_bytes(4, "big") + bytes(64 * MIB)
    for chunk in (frame, bytearray(frame), memoryview(frame)):
        with metered() as meter:
            assert splitter.feed(chunk) == []
            assert meter.peak() < CONSTANT  # though it came in one piece
    assert splitter.skipped == 4


@pytest.mark.parametrize(
    ("codec", "endless"),
    [
        (Codec.varint(max_width=10), b"\x80"),
        (Codec.text(), b"1"),
        (Codec.digits(64), b"9"),
        (Codec.headers(), b"a"),
        (Codec.headers(), b"X: a\r\n"),
        (Codec.custom(lambda view: None, lambda message: b""), b"a"),
    ],
    ids=["varint", "text", "digits", "one line", "many lines", "custom"],
)
def test_feed_of_an_endless_header_raises_an_error_of_constant_size(
    engine: ModuleType, codec: Codec, endless: bytes
) -> None:
    with metered() as meter:
        splitter = engine.Splitter(codec)
        fed = 0
        while splitter.error is None:
            assert fed < 10_000
            try:
                splitter.feed(endless)
            except FrameError:
                break
            fed += len(endless)
        assert meter.peak() < CONSTANT


@pytest.mark.parametrize("whole", [False, True])
def test_feed_of_a_large_chunk_raises_a_small_error(engine: ModuleType, whole: bool) -> None:
    splitter = engine.Splitter(Codec.digits(4))
    chunk = (b"0001a" if whole else b"") + b"x" * (2 * MIB)
    if whole:
        assert splitter.feed(chunk) == [b"a"]
    with pytest.raises(InvalidFrameError) as caught:
        splitter.feed(b"" if whole else chunk)
    assert len(caught.value.header) == 1
    assert len(str(caught.value)) < 500
    assert len(splitter.detach()) == 2 * MIB


def test_splitter_frees_all_memory(engine: ModuleType) -> None:
    codec = Codec.uint(2, trailer=b"T", max_message_size=50)

    def live() -> None:
        for stream in (b"\0\1aT\0\2b", b"\0\1aT\xff\xff", b"\0\1aX", b"\0\1aT\0\1aX"):
            splitter = engine.Splitter(codec)
            splitter.get_buffer(-1)
            with suppress(FrameError):
                splitter.feed(stream)
            with suppress(FrameError):
                splitter.feed_eof()
        codec.encode_many([b"a"] * 10)

    live()
    with metered() as meter:
        for _ in range(200):
            live()
        gc.collect()
        assert meter.held() < 20_000


# --- linear work ----------------------------------------------------------------------------------


def test_custom_parse_is_called_once_for_a_whole_message(engine: ModuleType) -> None:
    calls = []

    def parse(view: memoryview) -> Any:
        calls.append(len(view))
        return parse_tagged(view)

    codec = Codec.custom(parse, build_tagged)
    messages = [b"\x40" + bytes(100)] * 1000
    stream = b"".join(codec.encode(message) for message in messages)
    assert engine.Splitter(codec).feed(stream) == messages
    assert len(calls) == 1000
    # It is shown no more than a header can have, however much is there.
    assert max(calls) <= 64


def test_custom_parse_is_not_called_again_while_the_rest_arrives(engine: ModuleType) -> None:
    calls = []

    def parse(view: memoryview) -> Any:
        calls.append(len(view))
        return parse_wide(view)

    splitter = engine.Splitter(Codec.custom(parse, build_wide))
    splitter.feed(build_wide(memoryview(bytes(50_001)))[0])
    before = len(calls)
    for _ in range(50_000):
        splitter.feed(b"x")
    assert len(calls) == before
    assert splitter.pending == 0


def test_feed_of_one_byte_allocates_the_same_however_much_is_pending(
    engine: ModuleType,
) -> None:
    # A gather of all that is pending would show as an allocation of that size.
    splitter = engine.Splitter(Codec.uint(4, max_message_size=None))
    splitter.feed((8 * MIB).to_bytes(4, "big"))
    growths = 0
    with metered() as meter:
        for _ in range(60):
            splitter.feed(bytes(bytearray(65_536)))
            for _ in range(100):
                held = meter.held()
                meter.peak()
                splitter.feed(b"x")
                growths += meter.peak() - held > 100_000
    # The capacity grows by factors, so a few steps of 6000 may take more.
    assert growths <= 8


@pytest.mark.slow
def test_headers_line_allocates_the_same_however_many_are_pending(
    engine: ModuleType,
) -> None:
    splitter = engine.Splitter(Codec.headers(max_header=MIB))
    growths = 0
    with metered() as meter:
        for _ in range(3):
            splitter.feed(b"a: b\r\n" * 20_000)
            for byte in b"a: b\r\n" * 20:
                held = meter.held()
                meter.peak()
                splitter.feed(bytes((byte,)))
                growths += meter.peak() - held > 50_000
    assert splitter.pending > 300_000
    assert growths <= 2  # the capacity grows by factors


def test_scan_grows_its_array_by_factors(engine: ModuleType) -> None:
    codec = Codec.uint(1)
    data = bytes(50_000)
    with metered() as meter:
        spans = engine.scan(codec, data)
        assert len(spans) == 50_000
        assert meter.held() < 2 * 16 * 50_000 + CONSTANT
