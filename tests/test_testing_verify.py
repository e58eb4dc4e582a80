"""`verify_codec` accepts what keeps the promises and catches what breaks one."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from framecodec import Check, Codec, FrameError, InvalidFrameError, formats
from framecodec.testing import BrokenPromiseError, Promise, verify_codec
from tests.helpers.broken_codecs import (
    BROKEN,
    MESSAGES,
    TinyCodec,
    TinySplitter,
    build_varint,
    parse_cut_varint,
)
from tests.helpers.broken_options import FullCodec, FullSplitter
from tests.helpers.engines import codecs_use
from tests.helpers.sample_codecs import CODECS, sample_messages
from tests.test_vectors import FILES, read_bytes

# --- what is broken -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("defect", BROKEN)
def test_verify_codec_catches_a_double_that(defect: str) -> None:
    promise, codec, messages = BROKEN[defect]
    with pytest.raises(AssertionError) as caught:
        verify_codec(codec, messages)
    assert isinstance(caught.value, BrokenPromiseError)
    assert caught.value.promise == promise, str(caught.value)
    assert f"breaks a promise: {promise}" in str(caught.value)


def test_the_doubles_break_every_promise() -> None:
    assert {promise for promise, _, _ in BROKEN.values()} == {*Promise}


def test_the_page_about_testing_lists_every_promise() -> None:
    page = (Path(__file__).parents[1] / "docs" / "testing.md").read_text("utf-8")
    rows = page.partition("| promise | checked by |\n")[2].partition("\n\n")[0].splitlines()[1:]
    names = [row.split(" | ")[0].removeprefix("| ").strip("`") for row in rows]
    assert sorted(names) == sorted(Promise)


def test_verify_codec_names_the_smallest_chunking() -> None:
    codec = Codec.custom(parse_cut_varint, build_varint)
    with pytest.raises(BrokenPromiseError) as caught:
        verify_codec(codec, [bytes(1000), bytes(200), b"hello"])
    # A number of two bytes, cut between them; a frame of 200 bytes begins b"\xc8\x01".
    assert caught.value.chunks == [b"\xc8", b"\x01"]
    assert str(caught.value).splitlines()[1] == (
        "  smallest chunking: [b'\\xc8', b'\\x01'] (2 bytes)"
    )
    assert "given by: feed()" in str(caught.value)
    assert "in one piece by feed(): " in str(caught.value)


def test_verify_codec_finds_a_defect_that_needs_two_cuts() -> None:
    class Third(TinySplitter):
        calls = 0

        def feed(self, data: Any) -> list[Any]:
            self.calls += 1
            messages = super().feed(data)
            return [b"wrong" for _ in messages] if self.calls == 3 else messages

    class Codec3(TinyCodec):
        splitter_class = Third

    with pytest.raises(BrokenPromiseError) as caught:
        verify_codec(Codec3(), [b"a message of some bytes"])
    assert caught.value.promise == Promise.CHUNKING
    assert len(caught.value.chunks) == 3


def test_verify_codec_shrinks_a_chunking_to_one_that_breaks_the_same_promise() -> None:
    class TwoDefects(TinySplitter):
        calls = 0

        def feed(self, data: Any) -> list[Any]:
            self.calls += 1
            messages = super().feed(data)
            if messages and self.calls == 2:
                raise KeyError("another defect")
            return [b"wrong" for _ in messages] if self.calls > 2 else messages

    class Codec2(TinyCodec):
        splitter_class = TwoDefects

    with pytest.raises(BrokenPromiseError) as caught:
        verify_codec(Codec2(), [b"a message of some bytes"])
    assert caught.value.promise == Promise.CHUNKING
    assert len(caught.value.chunks) == 3


class Sum:
    """A checksum that is not equal to its copies."""

    def __call__(self, data: Any) -> int:
        return sum(data)


def test_verify_codec_catches_a_copy_that_is_not_equal() -> None:
    with pytest.raises(BrokenPromiseError, match="the copy is Codec") as caught:
        verify_codec(Codec.uint(4, check=Check(Sum(), 1)), [b"hello"])
    assert caught.value.promise == Promise.PICKLING


def test_verify_codec_is_repeatable() -> None:
    _, codec, messages = BROKEN["counts the offset of an error from the start of the chunk"]
    texts = set()
    for _ in range(2):
        with pytest.raises(BrokenPromiseError) as caught:
            verify_codec(codec, messages, seed=7)
        texts.add(str(caught.value).partition(" breaks")[2])
    assert len(texts) == 1


KINDS = [
    "includes frame, all",
    "specials",
    "varint, lead",
    "headers, all",
    "tagged, magic, trailer",
]


# --- what is right --------------------------------------------------------------------------------


def test_verify_codec_accepts_a_correct_double() -> None:
    verify_codec(TinyCodec(), MESSAGES)


def test_verify_codec_accepts_a_correct_double_with_all_options() -> None:
    verify_codec(FullCodec(), MESSAGES)


def test_verify_codec_accepts_a_double_whose_options_have_no_counters() -> None:
    class Feed:
        def __init__(self, **options: Any) -> None:
            splitter = FullSplitter(FullCodec(), **options)
            self.feed, self.switch = splitter.feed, splitter.switch

    class Least:
        max_message_size = TinyCodec().max_message_size
        encode = staticmethod(TinyCodec().encode)

        def splitter(self, *, on_invalid: str = "raise", one_at_a_time: bool = False) -> Any:
            return Feed(on_invalid=on_invalid, one_at_a_time=one_at_a_time)

    verify_codec(Least(), MESSAGES)


def test_verify_codec_accepts_a_double_without_switch_detach_and_counters() -> None:
    class Feed:
        def __init__(self, **options: Any) -> None:
            splitter = FullSplitter(FullCodec(), **options)
            self.feed, self.feed_eof = splitter.feed, splitter.feed_eof

    class Least:
        encode = staticmethod(TinyCodec().encode)

        def splitter(self, **options: Any) -> Any:
            return Feed(**options)

    verify_codec(Least(), MESSAGES)


MARKED = ["lsp", "delimiter, prefixes", "cobs, magic", "magic"]


@pytest.mark.parametrize("name", MARKED)
def test_verify_codec_accepts_a_codec_that_continues_at_marks(
    engine: ModuleType, name: str
) -> None:
    with codecs_use(engine):
        codec = CODECS[name].replace()
        verify_codec(codec, sample_messages(codec)[:3])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CODECS][::9])
def test_verify_codec_accepts_a_part_of_the_samples(engine: ModuleType, name: str) -> None:
    with codecs_use(engine):
        codec = CODECS[name].replace()
        verify_codec(codec, sample_messages(codec)[:4])


OBJECTS: dict[str, tuple[Codec[Any], list[Any]]] = {
    "uint": (Codec.uint(4).as_json(), [{"a": 1}, [1], "text", None]),
    "delimiter": (Codec.delimiter().as_json(), [{"a": 1}, []]),
    "specials": (Codec.uint(1, specials={0: "ping"}).as_json(), ["ping", [1]]),
    "joined": (formats.oncrpc.replace(fragment_size=3).as_json(), [{"a": 1}, [1]]),
    "check": (Codec.digits(4, check=Check("crc32", 4)).as_json(), [{"a": 1}, 3]),
    "tagged": (
        Codec.choice(
            {
                "list": (ord("["), Codec.uint(1, length_offset=1)),
                "other": (None, Codec.uint(2, length_offset=1)),
            },
            tagged=True,
        ).as_json(),
        [("list", [1]), ("other", "x")],
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_verify_codec_accepts_codecs_with_objects(name: str) -> None:
    codec, messages = OBJECTS[name]
    verify_codec(codec, messages)


def test_verify_codec_catches_objects_that_do_not_come_back() -> None:
    with pytest.raises(BrokenPromiseError, match=r"\{1: 2\} came back as \{'1': 2\}"):
        verify_codec(Codec.uint(4).as_json(), [{1: 2}])


def test_verify_codec_damages_the_bytes_of_a_codec_with_objects() -> None:
    broken = Codec.custom(parse_cut_varint, build_varint).as_json()
    with pytest.raises(BrokenPromiseError, match="chunking is invisible") as caught:
        verify_codec(broken, ["x" * 200, "hello"])
    assert caught.value.chunks == [b"\xca", b"\x01"]


def test_verify_codec_does_not_look_for_lines_inside_messages() -> None:
    verify_codec(Codec.headers(), [b"Content-Length: 5\r\n\r\nhello", b""])


def test_verify_codec_checks_the_methods_that_a_double_has() -> None:
    class Least:
        def encode(self, message: bytes) -> bytes:
            return TinyCodec().encode(message)

        def splitter(self) -> Any:
            class Feed:
                def __init__(self) -> None:
                    self.feed = TinySplitter(TinyCodec()).feed

            return Feed()

    verify_codec(Least(), MESSAGES)


@pytest.mark.slow
def test_verify_codec_accepts_a_double_with_fewer_options() -> None:
    class Plain(TinyCodec):
        frame_parts = None  # type: ignore[assignment]

        def replace(self, *, max_message_size: int) -> TinyCodec:
            if max_message_size < 30:
                raise ValueError("at least 30")
            return Plain(max_message_size)

        def splitter(self) -> TinySplitter:  # type: ignore[override]
            return TinySplitter(self)

        def __getattribute__(self, name: str) -> Any:
            if name == "frame_parts":
                raise AttributeError(name)
            return super().__getattribute__(name)

    verify_codec(Plain(1000), [*MESSAGES, bytes(2000)])


def parse_flag(view: memoryview) -> tuple[int, int, bytes]:
    return 1, view[0] & 0x0F, bytes([view[0] & 0xF0])


def build_flag(message: memoryview) -> tuple[bytes, int]:
    if not message or message[0] not in (0, 0x10) or len(message) > 16:
        raise InvalidFrameError("a flag is 0 or 0x10")
    return bytes([message[0] | len(message) - 1]), 1


@pytest.mark.slow
def test_verify_codec_accepts_a_codec_that_reads_more_than_it_writes() -> None:
    verify_codec(Codec.custom(parse_flag, build_flag), [b"\0", b"\x10hello"])


@pytest.mark.parametrize("name", KINDS)
def test_verify_codec_accepts_a_codec_of_each_kind(engine: ModuleType, name: str) -> None:
    with codecs_use(engine):
        codec = CODECS[name].replace()
        verify_codec(codec, sample_messages(codec)[:2])


def vectors(name: str) -> Iterator[Any]:
    for valid in FILES[name]["valid"]:
        if valid.get("byteorder") in (None, sys.byteorder):
            yield from formats[name].split(read_bytes(valid["stream"]))[0]


@pytest.mark.slow
def test_verify_codec_accepts_stomp_whose_commands_have_capital_letters_only() -> None:
    # A damaged command of less than 13 bytes was read, and refused once more bytes had arrived.
    verify_codec(formats["stomp"], [b"\n", b"CONNECT\n\n\0"])
    with pytest.raises(InvalidFrameError, match="is not a command of STOMP"):
        formats["stomp"].split(b"C\xcfNNECT\n\n\0")


@pytest.mark.slow
@pytest.mark.parametrize("name", formats)
def test_verify_codec_accepts_the_catalogue_with_all_its_vectors(
    engine: ModuleType, name: str
) -> None:
    with codecs_use(engine):
        codec = formats[name].replace()
        verify_codec(codec, vectors(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_verify_codec_accepts_a_codec_of_each_kind_with_large_messages(
    engine: ModuleType, name: str
) -> None:
    with codecs_use(engine):
        codec = CODECS[name].replace(max_message_size=None)
        messages = sample_messages(codec)
        for size in (5_000, 70_000, 1_000_000):
            try:
                codec.encode(large := b"\x40" + bytes(size))
            except (FrameError, OverflowError):
                continue
            messages.append(large)
        verify_codec(codec, messages)


@pytest.mark.slow
def test_verify_codec_accepts_large_messages() -> None:
    verify_codec(Codec.uint(4, trailer=b"!"), [b"hello", bytes(3000)])


def unpicklable() -> Codec:
    return Codec.custom(lambda view: (1, view[0]), lambda message: bytes([len(message)]))


@pytest.mark.slow
def test_verify_codec_accepts_functions_that_cannot_be_pickled() -> None:
    verify_codec(unpicklable(), [b"", b"hello"])


@pytest.mark.slow
def test_verify_codec_works_while_memory_is_traced() -> None:
    tracemalloc.start()
    try:
        verify_codec(Codec.uint(4), [b"hello"])
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_verify_codec_passes_on_a_lack_of_memory() -> None:
    class Short(TinySplitter):
        def feed(self, data: Any) -> list[Any]:
            raise MemoryError

    class ShortCodec(TinyCodec):
        splitter_class = Short

    with pytest.raises(MemoryError):
        verify_codec(ShortCodec(), MESSAGES)


# --- messages -------------------------------------------------------------------------------------


def test_verify_codec_takes_any_bytes_like_messages_and_any_iterable() -> None:
    codec = Codec.uint(2, specials={0: None})
    verify_codec(codec, iter([bytearray(b"abc"), memoryview(b"de"), None]))


def test_verify_codec_leaves_out_messages_that_the_codec_refuses() -> None:
    verify_codec(Codec.uint(1), [b"hello", bytes(256)])


def test_verify_codec_needs_a_message_that_the_codec_encodes() -> None:
    with pytest.raises(ValueError, match=r"none of the 2 messages; the first one is .*256 bytes"):
        verify_codec(Codec.uint(1), [bytes(256), bytes(257)])


def test_verify_codec_accepts_a_codec_without_messages() -> None:
    verify_codec(Codec.digits(4), [])  # noise alone


def test_verify_codec_raises_what_encode_raises_of_a_wrong_message() -> None:
    with pytest.raises(TypeError):
        verify_codec(Codec.uint(1), [b"hello", "hello"])


def test_verify_codec_hides_its_own_lines() -> None:
    _, codec, messages = BROKEN["strips a message's end"]
    with pytest.raises(BrokenPromiseError) as caught:
        verify_codec(codec, messages)
    assert len(caught.traceback) == 2  # this test, and verify_codec, which pytest does not show
    assert [entry.name for entry in caught.traceback.filter(caught)] == [
        "test_verify_codec_hides_its_own_lines"
    ]


def test_BrokenPromiseError_tells_what_decided() -> None:
    class Refuses(TinyCodec):
        def decode(self, frame: Any) -> Any:
            raise InvalidFrameError("not today")

    with pytest.raises(BrokenPromiseError, match="InvalidFrameError: not today") as caught:
        verify_codec(Refuses(), [b""])
    assert isinstance(caught.value.__cause__, InvalidFrameError)
