"""Codec.custom: parsers that look ahead, raise, lie, or cost a lot.

A user's function may do anything; what it does must not harm another message or another connection.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError, InvalidFrameError
from tests.helpers.chunking import byte_by_byte, compositions, cuts

# --- parsers that look ahead ----------------------------------------------------------------------


def looking_ahead(wanted: int, **more: Any) -> Codec:
    """A length of one byte; its parser waits for `wanted` bytes before it decides."""

    def parse(view: memoryview) -> tuple[int, int] | None:
        return None if len(view) < wanted else (1, view[0])

    return Codec.custom(parse, lambda message: bytes([len(message)]), **more)


def feed_all(splitter: Any, pieces: list[bytes]) -> list[Any]:
    messages: list[Any] = []
    for piece in pieces:
        messages += splitter.feed(piece)
    return messages


def feed_until_error(splitter: Any, pieces: list[bytes]) -> tuple[list[Any], FrameError]:
    messages: list[Any] = []
    try:
        for piece in [*pieces, b""]:
            messages += splitter.feed(piece)
    except FrameError as error:
        return messages, error
    raise AssertionError(f"no error in {pieces!r}")


def test_custom_parse_that_looks_ahead_gives_the_surplus_back(engine: ModuleType) -> None:
    stream = b"\x01A\x02BC"
    splitter = engine.Splitter(looking_ahead(4, max_header=4))
    got = feed_all(splitter, [stream[:1], stream[1:2], stream[2:3], stream[3:]])
    assert got == [b"A"]
    assert (splitter.pending, splitter.stream_offset) == (3, 2)
    assert splitter.feed(b"D") == [b"BC"]
    assert splitter.detach() == b"D"


@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 7])
def test_custom_parse_that_looks_ahead_works_for_every_chunking(
    engine: ModuleType, wanted: int
) -> None:
    codec = looking_ahead(wanted)
    messages = [b"", b"a", b"", b"bcd", b"e"]
    stream = codec.encode_many(messages)
    assert len(stream) == 10
    # The last frames wait for the bytes that the parser needs to see.
    whole = engine.Splitter(codec)
    expected = whole.feed(stream)
    assert expected == messages[: len(expected)]
    assert len(expected) >= 2
    unfinished = whole.detach()
    for pieces in compositions(stream):
        splitter = engine.Splitter(codec)
        assert feed_all(splitter, pieces) == expected, pieces
        assert splitter.stream_offset == whole.stream_offset
        assert splitter.detach() == unfinished


@pytest.mark.parametrize(
    "parts", [{"magic": b"MM"}, {"trailer": b"\r\n"}, {"magic": b"M", "trailer": b"T"}]
)
@pytest.mark.parametrize("raw", [False, True])
def test_custom_parse_that_looks_ahead_works_beside_magic_and_trailer(
    engine: ModuleType, parts: dict[str, bytes], raw: bool
) -> None:
    rng = random.Random(1)
    codec = looking_ahead(60, **parts)
    messages = [rng.randbytes(rng.choice((0, 1, 5, 30, 200))) for _ in range(40)]
    stream = codec.encode_many(messages)
    frames = [codec.encode(message) for message in messages]
    whole = engine.Splitter(codec, raw=raw)
    expected = whole.feed(stream)
    assert expected == (frames if raw else messages)[: len(expected)]
    assert len(expected) > 30
    unfinished = whole.detach()
    for pieces in cuts(stream, count=60):
        splitter = engine.Splitter(codec, raw=raw)
        assert feed_all(splitter, pieces) == expected
        assert splitter.detach() == unfinished


@pytest.mark.slow
@pytest.mark.parametrize("size", [300, 5000, 200_000])
def test_custom_parse_that_looks_very_far_ahead_works_in_buffers_of_any_kind(
    engine: ModuleType, size: int
) -> None:
    codec = looking_ahead(size, max_header=1 << 20)
    stream = codec.encode_many([b"x" * (n % 200) for n in range(1, 3000)]) + bytes(size)
    splitter = engine.Splitter(codec)
    plain = splitter.feed(stream)
    assert plain == [b"x" * (n % 200) for n in range(1, 3000)] + [b""]
    for step in (70_000, 65_536, 1_000_000):
        splitter = engine.Splitter(codec)
        got: list[Any] = []
        for pos in range(0, len(stream), step):
            got += splitter.feed(memoryview(stream)[pos : pos + step])
        assert got == plain


@pytest.mark.parametrize("bad", [b"\xff", b"\xfe"])
def test_custom_errors_among_bytes_looked_at_have_the_same_place_for_every_chunking(
    engine: ModuleType, bad: bytes
) -> None:
    def parse(view: memoryview) -> tuple[int, int] | None:
        if view[0] == 0xFF:
            raise KeyError("bad")
        if view[0] == 0xFE:
            return (1, 1000)  # too large
        return None if len(view) < 5 else (1, view[0])

    codec = Codec.custom(parse, lambda message: b"", max_message_size=100)
    stream = b"\x01a\x02bc" + bad + b"123456"
    for pieces in compositions(stream):
        splitter = engine.Splitter(codec)
        got, error = feed_until_error(splitter, pieces)
        assert got == [b"a", b"bc"], pieces
        assert (error.stream_offset, error.header) == (5, bad)


def test_custom_detach_gives_all_bytes_from_the_bad_frame_on_after_looking_ahead(
    engine: ModuleType,
) -> None:
    def parse(view: memoryview) -> tuple[int, int] | None:
        if view[0] == 0xFF:
            raise KeyError("bad")
        return None if len(view) < 5 else (1, view[0])

    codec = Codec.custom(parse, lambda message: b"")
    stream = b"\x01a\x02bc\xff123456"
    for pieces in compositions(stream):
        splitter = engine.Splitter(codec)
        fed, got = b"", []
        for piece in pieces:
            fed += piece
            got += splitter.feed(piece)
            if splitter.error is not None:
                break
        if splitter.error is None:
            continue  # the error came with no message before it
        assert got == [b"a", b"bc"]
        assert splitter.detach() == fed[5:]


def test_custom_scan_accepts_a_parser_that_looks_ahead(engine: ModuleType) -> None:
    codec = looking_ahead(50)
    stream = codec.encode_many([b"abc"] * 40_000)  # more than one slice of the Python engine
    for data in (stream, bytearray(stream)):
        spans = engine.scan(codec, data)
        assert len(spans) == (len(stream) - 50) // 4 + 1
        assert all(bytes(span) == b"abc" for span in (spans[0], spans[16_500], spans[-1]))


# --- parsers that raise ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit])
def test_custom_parse_that_is_interrupted_after_messages_delivers_them_and_then_raises(
    engine: ModuleType, kind: type[BaseException]
) -> None:
    def parse(view: memoryview) -> tuple[int, int]:
        if view[0] == 9:
            raise kind
        return 1, view[0]

    splitter = engine.Splitter(Codec.custom(parse, lambda message: b""))
    assert splitter.feed(b"\1a\1b\x09xyz") == [b"a", b"b"]
    assert type(splitter.error) is kind
    with pytest.raises(kind):
        splitter.feed(b"")
    with pytest.raises(kind):
        splitter.feed_eof()
    assert splitter.detach() == b"\x09xyz"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
def test_split_raises_what_is_not_about_frames_even_after_messages(
    engine_in_use: ModuleType, kind: type[BaseException]
) -> None:
    def parse(view: memoryview) -> tuple[int, int]:
        if view[0] == 9:
            raise kind
        return 1, view[0]

    codec = Codec.custom(parse, lambda message: b"")
    with pytest.raises(kind):
        codec.split(b"\1a\1b\x09xyz")


def test_split_leaves_a_bad_frame_after_messages_to_the_caller(engine_in_use: ModuleType) -> None:
    assert Codec.text(trailer=b",").split(b"1:a,1:b,x") == ([b"a", b"b"], 8)


def test_custom_parse_out_of_memory_is_not_blamed_on_the_peer(engine: ModuleType) -> None:
    def parse(view: memoryview) -> tuple[int, int]:
        raise MemoryError("parse")

    splitter = engine.Splitter(Codec.custom(parse, lambda message: b""))
    with pytest.raises(MemoryError, match="parse"):
        splitter.feed(b"abc")
    assert splitter.detach() == b"abc"


def test_custom_lead_out_of_memory_is_not_blamed_on_the_peer(engine: ModuleType) -> None:
    class Lead:
        def __iter__(self) -> Any:
            raise MemoryError("lead")

    splitter = engine.Splitter(Codec.custom(lambda view: Lead(), lambda message: b""))
    with pytest.raises(MemoryError, match="lead"):
        splitter.feed(b"abc")


# --- parsers that lie -----------------------------------------------------------------------------


class Liar(int):
    """An int whose operators say anything but its value."""

    def _lie(self, *_: object) -> Any:
        return True

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _lie

    def _huge(self, *_: object) -> Any:
        return -(1 << 40)

    __add__ = __radd__ = __sub__ = __rsub__ = __neg__ = _huge

    def __index__(self) -> int:
        return 1 << 40

    def __int__(self) -> int:
        return 1 << 40

    def __hash__(self) -> int:
        raise ZeroDivisionError


@pytest.mark.parametrize("raw", [False, True])
def test_custom_parse_that_returns_lying_ints_is_taken_at_their_value(
    engine: ModuleType, raw: bool
) -> None:
    codec = Codec.custom(lambda view: (Liar(1), Liar(view[0])), lambda message: b"")
    stream = b"\3abc\0\2de"
    for pieces in compositions(stream):
        splitter = engine.Splitter(codec, raw=raw)
        got = feed_all(splitter, pieces)
        assert got == ([b"\3abc", b"\0", b"\2de"] if raw else [b"abc", b"", b"de"])
        assert splitter.stream_offset == len(stream)


@pytest.mark.parametrize("answer", [(Liar(-1), Liar(3)), (Liar(1), Liar(-3)), (Liar(70), Liar(1))])
def test_custom_parse_that_returns_lying_ints_out_of_range_is_refused(
    engine: ModuleType, answer: tuple[int, int]
) -> None:
    splitter = engine.Splitter(Codec.custom(lambda view: answer, lambda message: b""))
    with pytest.raises(InvalidFrameError, match=r"parse\(\) must return"):
        splitter.feed(bytes(100))


# --- parsers that cost a lot ----------------------------------------------------------------------


def counting(refuses: Callable[[int], bool], max_header: int) -> tuple[Codec, list[int]]:
    shown: list[int] = []

    def parse(view: memoryview) -> None:
        shown.append(len(view))
        if refuses(len(view)):
            raise ValueError("no")

    return Codec.custom(parse, lambda message: b"", max_header=max_header), shown


@pytest.mark.parametrize("size", [100, 5000, 16_384, 1 << 20])
def test_custom_header_that_is_refused_costs_work_in_proportion_to_its_bytes(
    engine: ModuleType, size: int
) -> None:
    codec, shown = counting(lambda shown: shown >= size, size)
    splitter = engine.Splitter(codec)
    with pytest.raises(InvalidFrameError) as caught:
        splitter.feed(bytes(size))
    assert len(caught.value.header) == size
    assert sum(shown) <= 14 * size + 64 * 64
    assert len(shown) <= 64 + 200


@pytest.mark.parametrize("refused_from", [1, 2, 63, 64, 65, 72, 73, 100, 300, 1000])
def test_custom_header_that_is_refused_gives_the_same_error_for_every_chunking(
    engine: ModuleType, refused_from: int
) -> None:
    codec, _ = counting(lambda shown: shown >= refused_from, 2000)
    stream = bytes(2500)
    seen = set()
    for pieces in ([stream], byte_by_byte(stream), [stream[:70], stream[70:]], *cuts(stream)):
        splitter = engine.Splitter(codec)
        _, error = feed_until_error(splitter, list(pieces))
        seen.add((type(error), len(error.header), str(error)))
    assert len(seen) == 1
    ((kind, size, _text),) = seen
    assert kind is InvalidFrameError
    assert refused_from <= size <= max(64, refused_from * 9 // 8 + 1)


def test_pending_header_after_an_error_is_the_same_for_every_chunking(engine: ModuleType) -> None:
    def parse(view: memoryview) -> None:
        if len(view) >= 4:
            raise ValueError("no")

    stream = bytes(70_000)
    for pieces in ([stream], [stream[:65_537], stream[65_537:]], [stream[:1], stream[1:]]):
        for form in (bytes, bytearray):
            splitter = engine.Splitter(Codec.custom(parse, lambda message: b"", max_header=1000))
            _, error = feed_until_error(splitter, [form(piece) for piece in pieces])
            assert splitter.pending_header == error.header == bytes(4)


def test_bytes_needed_after_an_error_is_the_same_for_every_chunking(engine: ModuleType) -> None:
    codec = Codec.uint(4, magic=b"MAGIC", length_offset=16)
    stream = codec.encode(bytes(65_510)) + b"no magic" * 10
    seen = set()
    for pieces in ([stream], byte_by_byte(stream)):
        for form in (bytes, bytearray):
            splitter = engine.Splitter(codec)
            _, error = feed_until_error(splitter, [form(piece) for piece in pieces])
            seen.add((splitter.bytes_needed, splitter.pending_header, error.header))
    assert seen == {(19, b"n", b"n")}


def test_parse_that_refuses_what_it_takes_later_is_named(engine: ModuleType) -> None:
    refused = [False]

    def parse(view: memoryview) -> tuple[int, int]:
        if refused.pop():
            refused.append(False)
            raise ValueError("not now")
        refused.append(False)
        return 1, view[0]

    codec = Codec.custom(parse, lambda message: bytes([len(message)]))
    splitter = engine.Splitter(codec, one_at_a_time=True)
    assert splitter.feed(b"\1a\1b") == [b"a"]
    refused[:] = [True]
    with pytest.raises(InvalidFrameError, match="parse"):
        splitter.feed_eof()
