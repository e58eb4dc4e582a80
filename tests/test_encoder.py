"""Test `Encoder` of both engines: frames, parts of frames, and messages that have no frame."""

from __future__ import annotations

import array
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy
import pytest

from framecodec import Check, Codec, FrameError, InvalidFrameError, MessageTooLargeError, formats
from tests.helpers.sample_codecs import CODECS, Mark, build_tagged, parse_tagged, sample_messages

FRAMES_BY_HAND = [
    (Codec.uint(1), b"ab", b"\x02ab"),
    (Codec.uint(4), b"", b"\0\0\0\0"),
    (Codec.uint(3, "little"), b"abc", b"\x03\0\0abc"),
    (Codec.uint(2, length_offset=1), b"Qrest", b"Q\0\x04rest"),
    (Codec.uint(4, length_offset=1, length_adjustment=-4), b"Qsql", b"Q\0\0\0\x07sql"),
    (Codec.uint(2, length_includes="frame", magic=b"<", trailer=b">"), b"a", b"<\0\x05a>"),
    (Codec.uint(1, magic=b"MM", length_offset=4, trailer=b"T"), b"abc", b"MMab\x01cT"),
    (Codec.uint(1, length_adjustment=2), b"ab", b"\0ab"),
    (Codec.uint(1, specials={0: None}), None, b"\0"),
    (Codec.uint(1, specials={0: None}, magic=b"M", trailer=b"T"), None, b"M\0"),
    (Codec.uint(2, signed=True, specials={-1: Mark.PING}), Mark.PING, b"\xff\xff"),
    (Codec.struct("<h"), b"a", b"\x01\0a"),
    (Codec.struct("!Q"), b"a", b"\0\0\0\0\0\0\0\x01a"),
    (Codec.digits(4), b"hello", b"0005hello"),
    (Codec.digits(4, base=16), bytes(255), b"00ff" + bytes(255)),
    (Codec.digits(20), b"a", b"00000000000000000001a"),
    (Codec.varint(), bytes(127), b"\x7f" + bytes(127)),
    (Codec.varint(), bytes(128), b"\x80\x01" + bytes(128)),
    (Codec.varint(), bytes(300), b"\xac\x02" + bytes(300)),
    (Codec.text(trailer=b","), b"abc", b"3:abc,"),
    (Codec.text(end=b"\r\n", base=16), bytes(26), b"1a\r\n" + bytes(26)),
    (Codec.text(), b"", b"0:"),
    (Codec.text(magic=b"$", end=b"\r\n", specials={-1: None}), None, b"$-1\r\n"),
    (Codec.headers(), b"{}", b"Content-Length: 2\r\n\r\n{}"),
    (Codec.custom(parse_tagged, build_tagged, magic=b"M"), b"\x40ab", b"M\x40\x02ab"),
    (Codec.custom(parse_tagged, build_tagged), b"\x40", b"\x40\x00"),
]


@pytest.mark.parametrize(("codec", "message", "frame"), FRAMES_BY_HAND)
def test_encode_encode_many_and_frame_parts_match_frames_written_by_hand(
    engine: ModuleType, codec: Codec, message: Any, frame: bytes
) -> None:
    encoder = engine.Encoder(codec)
    assert encoder.encode(message) == frame
    assert type(encoder.encode(message)) is bytes
    assert encoder.encode_many([message, message]) == 2 * frame
    parts = encoder.frame_parts(message)
    assert b"".join(parts) == frame
    assert type(parts) is list
    assert all(len(part) for part in parts)


@pytest.mark.parametrize("name", CODECS)
def test_encode_encode_many_and_frame_parts_agree_at_boundary_sizes(
    engine: ModuleType, name: str
) -> None:
    encoder = engine.Encoder(CODECS[name])
    messages = sample_messages(CODECS[name])
    frames = [encoder.encode(message) for message in messages]
    for message, frame in zip(messages, frames, strict=True):
        assert b"".join(encoder.frame_parts(message)) == frame
        assert CODECS[name].decode(frame) == message
    assert encoder.encode_many(messages) == b"".join(frames)
    assert encoder.encode_many(message for message in messages) == b"".join(frames)


class BytesWithFalseLength(bytes):
    def __len__(self) -> int:
        return 1  # not the number of bytes that it stores


class ListWithOtherIterator(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([b"from iter"])


BYTES_LIKE: dict[str, Any] = {
    "bytearray": bytearray(b"abcd"),
    "memoryview": memoryview(b"abcd"),
    "a subclass with another len": BytesWithFalseLength(b"abcd"),
    "array of 16-bit numbers": array.array("H", b"abcd"),
    "numpy, two dimensions": numpy.frombuffer(b"abcd", "u1").reshape(2, 2),
    "numpy, big-endian numbers": numpy.frombuffer(b"abcd", ">u4"),
    "numpy, records": numpy.frombuffer(b"abcd", [("a", "u1"), ("b", "u1"), ("c", "<u2")]),
    "numpy, a single number": numpy.frombuffer(b"abcd", "u4")[0],
    "a slice of a view": memoryview(b"<abcd>")[1:-1],
}


@pytest.mark.parametrize(
    "codec",
    [
        Codec.uint(4),
        Codec.uint(1, length_offset=8, magic=b"magic", trailer=b"end"),
        Codec.digits(3),
        Codec.text(b": ", trailer=b","),
    ],
    ids=str,
)
def test_encode_encode_many_and_frame_parts_agree_at_small_sizes(
    engine: ModuleType, codec: Codec
) -> None:
    encoder = engine.Encoder(codec)
    messages = [bytes(range(1, size + 1)) for size in range(codec.layout.lead_size, 200)]
    frames = [b"".join(encoder.frame_parts(message)) for message in messages]
    assert [encoder.encode(message) for message in messages] == frames
    assert encoder.encode_many(messages) == b"".join(frames)
    assert engine.Splitter(codec).feed(b"".join(frames)) == messages
    assert engine.Splitter(codec, raw=True).feed(b"".join(frames)) == frames


def _near(codec: Codec, message: bytes, rng: random.Random) -> list[bytes]:
    """Return messages of other sizes and with other first bytes, in an order that mixes them."""
    found = [message]
    for size in (*range(0, 48), 63, 64, 65, 130, 300):
        changed = bytearray(message[:size].ljust(size, b"a"))
        found.append(bytes(changed))
        if changed:
            changed[rng.randrange(min(len(changed), 12))] ^= 1 << rng.randrange(8)
            found.append(bytes(changed))
    rng.shuffle(found)
    return found


@pytest.mark.parametrize("name", [*formats, *CODECS])
def test_batches_of_messages_of_all_sizes_and_first_bytes_are_their_frames(
    engine: ModuleType, name: str
) -> None:
    codec = formats[name] if name in formats else CODECS[name]
    if codec.kind == "custom":
        return
    encoder = engine.Encoder(codec)
    rng = random.Random(5)
    plain, frames = [], []
    for message in sample_messages(codec)[:3]:
        if type(message) is not bytes:
            continue
        for each in _near(codec, message, rng):
            try:
                frame = b"".join(encoder.frame_parts(each))
            except (FrameError, ValueError) as error:  # the latter of a function of the sample's
                with pytest.raises(type(error)):
                    encoder.encode_many([each])
                continue
            plain.append(each)
            frames.append(frame)
            assert encoder.encode_many([each]) == frame
            assert encoder.encode_many([each] * 3) == frame * 3
    assert encoder.encode_many(plain) == b"".join(frames)


@pytest.mark.parametrize("position", ["end", "front"])
@pytest.mark.parametrize(
    "kind",
    [
        lambda check: Codec.cobs(check=check),
        lambda check: Codec.delimiter(b"\r\n", magic=b"$", skip_empty=True, check=check),
        lambda check: Codec.delimiter(
            b"\xc0", escape={b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}, check=check
        ),
    ],
)
def test_a_check_before_an_end_mark_is_written_alike_by_encode_encode_many_and_frame_parts(
    engine: ModuleType, kind: Callable[[Check], Codec], position: Any
) -> None:
    encoder = engine.Encoder(kind(Check("crc32", 4, position=position)))
    rng = random.Random(2)
    for size in (0, 1, 20, 249, 250, 254, 600, 2000):
        for message in (rng.randbytes(size), bytes(size), b"\xc0" * size):
            try:
                frame = b"".join(encoder.frame_parts(message))
            except FrameError as error:
                for encode in (encoder.encode, lambda each: encoder.encode_many([b"a", each])):
                    with pytest.raises(type(error)):
                        encode(message)
            else:
                assert encoder.encode(message) == frame
                assert encoder.encode_many([message, message]) == 2 * frame


@pytest.mark.parametrize("kind", BYTES_LIKE)
def test_encode_encode_many_and_frame_parts_accept_contiguous_bytes_like_objects(
    engine: ModuleType, kind: str
) -> None:
    message = BYTES_LIKE[kind]
    for codec in (Codec.uint(1), Codec.uint(1, length_offset=2, trailer=b"T"), CODECS["netstring"]):
        encoder = engine.Encoder(codec)
        expected = encoder.encode(b"abcd")
        assert encoder.encode(message) == expected
        assert encoder.encode_many([message]) == expected
        assert (
            encoder.encode_many([b"", message] if not codec.layout.lead_size else [message])[
                -len(expected) :
            ]
            == expected
        )
        assert b"".join(encoder.frame_parts(message)) == expected


def test_frame_parts_do_not_copy_a_large_message(engine: ModuleType) -> None:
    message = bytes(1000)
    header, middle, trailer = engine.Encoder(Codec.uint(4, trailer=b"T")).frame_parts(message)
    assert (header, trailer) == (b"\0\0\x03\xe8", b"T")
    assert middle is message
    mutable = bytearray(1000)
    _, view, _ = engine.Encoder(Codec.uint(4, trailer=b"T")).frame_parts(mutable)
    mutable[5] = 9
    assert view[5] == 9
    _, rest = engine.Encoder(Codec.uint(4, length_offset=3)).frame_parts(mutable)
    mutable[7] = 8
    assert rest[4] == 8


@pytest.mark.parametrize(
    ("codec", "size", "limit"),
    [
        (Codec.uint(1), 256, 255),
        (Codec.uint(1, length_offset=3), 259, 258),
        (Codec.uint(1, length_adjustment=-10), 246, 245),
        (Codec.uint(2, signed=True), 32768, 32767),
        (Codec.uint(1, length_includes="frame", trailer=b"12"), 253, 252),
        (Codec.uint(4, max_message_size=5), 6, 5),
        (Codec.uint(4, length_offset=2, max_message_size=5), 6, 5),
        (Codec.struct("b"), 128, 127),
        (Codec.digits(2), 100, 99),
        (Codec.digits(2, base=16), 256, 255),
        (Codec.varint(max_width=1), 128, 127),
        (Codec.text(max_message_size=0), 1, 0),
        (Codec.headers(max_message_size=3), 4, 3),
        (Codec.custom(parse_tagged, build_tagged, max_message_size=3), 4, 3),
    ],
)
def test_encode_encode_many_and_frame_parts_refuse_a_message_above_the_limit(
    engine: ModuleType, codec: Codec, size: int, limit: int
) -> None:
    encoder = engine.Encoder(codec)
    message = b"\x40" * size
    if codec.kind != "custom" or limit:
        encoder.encode(message[:limit])
    for call in (
        encoder.encode,
        encoder.frame_parts,
        lambda m: encoder.encode_many([m[:limit], m]),
    ):
        for form in (message, bytearray(message)):
            with pytest.raises(MessageTooLargeError) as caught:
                call(form)
            error = caught.value
            assert (error.size, error.limit, error.stream_offset) == (size, limit, None)


def test_encode_error_names_max_message_size_or_the_length_field(engine: ModuleType) -> None:
    with pytest.raises(MessageTooLargeError, match="max_message_size"):
        engine.Encoder(Codec.uint(4, max_message_size=5)).encode(bytes(6))
    with pytest.raises(MessageTooLargeError, match="length field"):
        engine.Encoder(Codec.uint(1)).encode(bytes(256))


@pytest.mark.parametrize(
    ("codec", "message", "text"),
    [
        (Codec.uint(1, length_offset=3), b"ab", "2 bytes.* 3 bytes"),
        (Codec.uint(1, magic=b"M", length_offset=2), b"", "0 bytes.* 1 bytes"),
        (Codec.uint(1, length_adjustment=4), b"abc", "negative"),
        (Codec.varint(length_adjustment=4), b"abc", "negative"),
        (Codec.uint(1, specials={3: None}), b"abc", "means None"),
        (Codec.digits(2, specials={0: Mark.PING}), b"", "means Mark.PING"),
    ],
)
def test_encode_encode_many_and_frame_parts_refuse_a_message_without_a_frame(
    engine: ModuleType, codec: Codec, message: bytes, text: str
) -> None:
    encoder = engine.Encoder(codec)
    for call in (encoder.encode, encoder.frame_parts, lambda m: encoder.encode_many([m])):
        for form in (message, bytearray(message)):
            with pytest.raises(InvalidFrameError, match=text) as caught:
                call(form)
            assert caught.value.stream_offset is None


def test_encode_finds_specials_by_equality_and_refuses_other_objects(engine: ModuleType) -> None:
    codec = Codec.uint(1, specials={0: None, 1: "one", 2: (1, 2), 3: b"\r"})
    encoder = engine.Encoder(codec)
    assert encoder.encode("".join(["o", "ne"])) == b"\x01"
    assert encoder.encode((1, 2)) == b"\x02"
    for form in (b"\r", memoryview(b"\r")):
        assert encoder.encode(form) == b"\x03"
    for value in ([1, 2], {}, "two", 1, object(), ...):
        with pytest.raises(TypeError, match="bytes-like"):
            encoder.encode(value)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, lambda b: array.array("B", b)])
def test_encode_and_encode_many_find_bytes_specials_in_any_form(
    engine: ModuleType, form: Any
) -> None:
    encoder = engine.Encoder(Codec.uint(1, specials={0: b""}))
    assert encoder.encode(form(b"")) == b"\0"
    assert encoder.encode_many([form(b""), form(b"a")]) == b"\0\1a"


# --- encode_many ----------------------------------------------------------------------------------


def test_encode_many_takes_any_iterable(engine: ModuleType) -> None:
    encoder = engine.Encoder(Codec.uint(1))
    for messages in ([], (), iter([]), {}, (m for m in ())):
        assert encoder.encode_many(messages) == b""
    for messages in ([b"a", b"b"], (b"a", b"b"), iter([b"a", b"b"]), {b"a": 1, b"b": 2}):
        assert encoder.encode_many(messages) == b"\1a\1b"
    assert encoder.encode_many(ListWithOtherIterator([b"ignored"])) == b"\x09from iter"
    for value in (None, 5, b"ab", object()):
        with pytest.raises(TypeError):
            encoder.encode_many(value)


@pytest.mark.parametrize(
    "codec",
    [Codec.uint(4), Codec.uint(2, length_offset=1, trailer=b"!"), Codec.digits(4), Codec.varint()],
    ids=str,
)
def test_encode_small_returns_none_for_a_large_message_or_another_type(
    engine: ModuleType, codec: Codec
) -> None:
    encoder = engine.Encoder(codec)
    messages = [b"a", b"large", b"ab"]
    assert encoder.encode_small(messages, 5) == encoder.encode_many(messages)
    assert encoder.encode_small(messages, 4) is None
    assert encoder.encode_small([*messages, bytearray(b"ab")], 5) is None
    assert encoder.encode_small([*messages, "text", None], 5) is None
    assert encoder.encode_small([], 5) == b""


def test_encode_many_raises_the_error_of_a_generator(engine: ModuleType) -> None:
    def messages(first: Any) -> Iterator[Any]:
        yield first
        raise ZeroDivisionError("midway")

    encoder = engine.Encoder(Codec.uint(1))
    with pytest.raises(ZeroDivisionError):
        encoder.encode_many(messages(b"a"))


@pytest.mark.c_extension
def test_encode_many_raises_the_same_of_two_errors_in_both_engines(
    both_engines: tuple[ModuleType, ModuleType],
) -> None:
    def messages() -> Iterator[Any]:
        yield "no bytes"
        raise ZeroDivisionError("midway")

    found = []
    for engine in both_engines:
        with pytest.raises((TypeError, ZeroDivisionError)) as caught:
            engine.Encoder(Codec.uint(1)).encode_many(messages())
        found.append(caught.type)
    assert found[0] is found[1]


def test_encode_many_survives_a_build_that_clears_the_list(engine: ModuleType) -> None:
    messages: list[Any] = [b"a", b"bb", b"ccc"] * 5

    def build(message: memoryview) -> bytes:
        messages.clear()
        return bytes([len(message)])

    encoder = engine.Encoder(Codec.custom(lambda view: (1, view[0]), build))
    assert encoder.encode_many(messages)[:2] == b"\1a"


def clear(messages: list[Any]) -> None:
    messages.clear()


def extend(messages: list[Any]) -> None:
    if len(messages) < 1000:  # an engine that reads the changed list must not run for ever
        messages.append(b"x")


def delete_first(messages: list[Any]) -> None:
    del messages[:1]


def replace_all(messages: list[Any]) -> None:
    messages[:] = [b"other"] * len(messages)


CHANGES = [clear, extend, delete_first, replace_all]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", ["encode_many", "encode_small"])
def test_encode_many_and_encode_small_ignore_changes_of_the_list_by_a_build(
    engine: ModuleType, change: Callable[[list[Any]], None], method: str
) -> None:
    messages: list[Any] = [bytes([n]) * n for n in range(1, 10)]

    def build(message: memoryview) -> bytes:
        change(messages)
        return bytes([len(message)])

    encoder = engine.Encoder(Codec.custom(lambda view: (1, view[0]), build))
    expected = b"".join(bytes([n]) + bytes([n]) * n for n in range(1, 10))
    more = (100,) if method == "encode_small" else ()
    assert getattr(encoder, method)(messages, *more) in (expected, None)
    assert method == "encode_small" or len(messages) != 9 or messages[0] == b"other"


@pytest.mark.parametrize("change", CHANGES)
def test_encode_many_ignores_changes_of_the_list_by_a_message(
    engine: ModuleType, change: Callable[[list[Any]], None]
) -> None:
    class Special:
        def __hash__(self) -> int:
            if armed:
                change(messages)
            return 1

    armed = False
    messages: list[Any] = [Special(), b"ab", bytearray(b"abc"), b"abcd"]
    encoder = engine.Encoder(Codec.uint(1, specials={0: messages[0]}))
    armed = True
    assert encoder.encode_many(messages) == b"\0\2ab\3abc\4abcd"


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="a class in Python has a buffer from 3.12 on"
)
@pytest.mark.parametrize("change", CHANGES)
def test_encode_many_ignores_changes_of_the_list_by_a_buffer(
    engine: ModuleType, change: Callable[[list[Any]], None]
) -> None:
    class Owner:
        def __buffer__(self, flags: int) -> memoryview:
            change(messages)
            return memoryview(b"owner")

        def __release_buffer__(self, view: memoryview) -> None:
            change(messages)

    messages: list[Any] = [b"a", Owner(), b"ab", Owner(), b"abc"]
    encoder = engine.Encoder(Codec.uint(1))
    assert encoder.encode_many(messages) == b"\1a\5owner\2ab\5owner\3abc"


def test_encode_many_returns_no_frame_if_one_message_is_bad(engine: ModuleType) -> None:
    encoder = engine.Encoder(Codec.uint(1))
    for bad, kind in [("text", TypeError), (bytes(256), MessageTooLargeError)]:
        with pytest.raises(kind):
            encoder.encode_many([b"a", bad, b"b"])


# --- custom ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "result",
    [
        None,
        "text",
        5,
        [1, 2],
        (b"h", 1, 2),
        (b"h",),
        (b"h", -1),
        (b"h", 4),
        (b"h", "1"),
        (b"h", 1.0),
        b"",
        (b"", 0),
        ("text", 0),
        memoryview(b"abcd")[::2],
    ],
)
def test_custom_build_that_returns_an_invalid_result_is_refused(
    engine: ModuleType, result: Any
) -> None:
    encoder = engine.Encoder(Codec.custom(lambda view: None, lambda message: result))
    for call in (encoder.encode, encoder.frame_parts, lambda m: encoder.encode_many([m])):
        with pytest.raises(InvalidFrameError, match=r"build\(\) must return"):
            call(b"abc")


def test_custom_build_that_returns_too_long_a_header_is_refused(engine: ModuleType) -> None:
    codec = Codec.custom(lambda view: None, lambda message: bytes(5), magic=b"MM", max_header=4)
    with pytest.raises(InvalidFrameError, match="5 bytes, max_header is 4"):
        engine.Encoder(codec).encode(b"")


def test_custom_build_errors_reach_the_caller(engine: ModuleType) -> None:
    codec = Codec.custom(lambda view: None, lambda message: 1 / 0)
    for call in (engine.Encoder(codec).encode, lambda m: engine.Encoder(codec).encode_many([m])):
        with pytest.raises(ZeroDivisionError):
            call(b"a")


def test_custom_build_receives_the_message_as_a_flat_view_of_bytes(engine: ModuleType) -> None:
    views: list[memoryview] = []

    def build(message: memoryview) -> tuple[bytearray, int]:
        views.append(message)
        return bytearray(b"h" + bytes(message[:2])), 2

    encoder = engine.Encoder(Codec.custom(lambda view: None, build, magic=b"M", trailer=b"T"))
    for message in (b"abcd", bytearray(b"abcd"), array.array("H", b"abcd")):
        assert encoder.encode(message) == b"MhabcdT"
    for view in views:
        assert isinstance(view, memoryview)
        assert (view.format, view.ndim, view.readonly) == ("B", 1, True)
        assert bytes(view) == b"abcd"


class LyingInt(int):
    """Compare as equal, smaller and larger than any number, and return 1 as index."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __le__(self, other: int) -> bool:
        return True

    def __ge__(self, other: int) -> bool:
        return True

    __lt__ = __gt__ = __le__

    def __index__(self) -> int:
        return 1

    __int__ = __index__


@pytest.mark.parametrize("carried", [-1, 4, 2**63, -(2**63)])
def test_custom_build_that_returns_a_lying_int_out_of_range_is_refused(
    engine: ModuleType, carried: int
) -> None:
    codec = Codec.custom(lambda view: None, lambda message: (b"h", LyingInt(carried)))
    encoder = engine.Encoder(codec)
    for call in (encoder.encode, encoder.frame_parts, lambda m: encoder.encode_many([m])):
        with pytest.raises(InvalidFrameError, match=r"build\(\) must return"):
            call(b"abc")


def test_custom_build_that_returns_a_lying_int_is_taken_at_its_value(
    engine: ModuleType,
) -> None:
    codec = Codec.custom(lambda view: None, lambda message: (b"h", LyingInt(2)))
    assert engine.Encoder(codec).encode(b"abc") == b"hc"


def test_custom_build_that_returns_a_tuple_with_a_false_length_is_refused(
    engine: ModuleType,
) -> None:
    class LyingTuple(tuple[Any, ...]):
        def __len__(self) -> int:
            return 2

    for result in (LyingTuple((b"h",)), LyingTuple((b"h", 0, 1)), LyingTuple()):
        codec = Codec.custom(lambda view: None, lambda message, result=result: result)
        with pytest.raises(InvalidFrameError, match=r"build\(\) must return"):
            engine.Encoder(codec).encode(b"abc")


# --- memory errors --------------------------------------------------------------------------------


class RaisesMemoryError:
    """Raise MemoryError in the given methods, and always in `__buffer__`."""

    def __init__(self, *methods: str) -> None:
        self.methods = methods

    def __hash__(self) -> int:
        if "hash" in self.methods:
            raise MemoryError("of the user's hash")
        return 1

    def __eq__(self, other: object) -> bool:
        if "eq" in self.methods:
            raise MemoryError("of the user's eq")
        return self is other

    def __buffer__(self, flags: int) -> memoryview:
        raise MemoryError("of the user's buffer")


@pytest.mark.parametrize(
    "where",
    [
        "build",
        "hash",
        "eq",
        pytest.param(
            "buffer",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="a class has no buffer"),
        ),
    ],
)
def test_encode_encode_many_and_frame_parts_keep_a_memory_error_of_user_code(
    engine: ModuleType, where: str
) -> None:
    def build(message: memoryview) -> bytes:
        raise MemoryError("of the user's build")

    if where == "build":
        codec, message = Codec.custom(lambda view: None, build), b"abc"
    else:
        stored = RaisesMemoryError("eq") if where == "eq" else RaisesMemoryError()
        codec, message = Codec.uint(1, specials={7: stored}), RaisesMemoryError(where)
    encoder = engine.Encoder(codec)
    for call in (encoder.encode, encoder.frame_parts, lambda m: encoder.encode_many([b"a", m])):
        with pytest.raises(MemoryError, match=f"of the user's {where}"):
            call(message)


# No case raises in a Python function: CPython 3.11 turns some of those errors into SystemError.
FAIL_EACH_ALLOCATION = """
import _testcapi, importlib, sys
from framecodec import Codec

engine = importlib.import_module(sys.argv[1])

def outcome(call, message, number):
    _testcapi.set_nomemory(number, number + 1)
    try:
        return call(message)
    except BaseException as error:
        _testcapi.remove_mem_hooks()
        return type(error).__name__
    finally:
        _testcapi.remove_mem_hooks()

def build(message):
    return bytes(message[:2]) + bytes([len(message)]), 1

bytes_special, object_special = Codec.uint(2, specials={0: b"PING"}), Codec.uint(2, specials={0: 1})
for codec, message, found in [
    (bytes_special, b"PING", b"\\0\\0"),
    (bytes_special, bytearray(b"PING"), b"\\0\\0"),
    (bytes_special, memoryview(bytearray(b"abc")), b"\\0\\3abc"),
    (object_special, 1, b"\\0\\0"),
    (object_special, bytearray(b"abc"), b"\\0\\3abc"),
    (Codec.custom(lambda view: None, build), bytearray(b"abc"), b"ab\\3bc"),
    (Codec.headers(), b"abc", b"Content-Length: 3\\r\\n\\r\\nabc"),
    (Codec.digits(4, specials={}), b"abc", b"0003abc"),
]:
    encoder = engine.Encoder(codec)
    many = lambda message: encoder.encode_many([message])
    parts = lambda message: b"".join(encoder.frame_parts(message))
    for call in (encoder.encode, many, parts):
        outcomes = [outcome(call, message, number) for number in range(60)]
        assert set(outcomes) == {found, "MemoryError"}, (message, set(outcomes))
        assert outcomes[-1] == found
        assert outcome(call, message, 10**9) == found
print("held")
"""


@pytest.mark.untraced
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="a free-threaded CPython crashes by itself where allocations are made to fail (3.13.5)",
)
def test_encode_encode_many_and_frame_parts_work_after_a_memory_error(engine: ModuleType) -> None:
    pytest.importorskip("_testcapi")
    process = subprocess.run(
        [sys.executable, "-c", FAIL_EACH_ALLOCATION, engine.__name__],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (process.returncode, process.stdout) == (0, "held\n"), process.stderr


# --- views of messages are released ---------------------------------------------------------------


def test_encode_encode_many_and_frame_parts_errors_keep_no_view_of_a_message(
    engine: ModuleType,
) -> None:
    encoder = engine.Encoder(Codec.uint(1))
    first, large = bytearray(b"first"), bytearray(300)
    for call in (
        encoder.encode,
        encoder.frame_parts,
        lambda message: encoder.encode_many([first, message]),
    ):
        with pytest.raises(MessageTooLargeError) as caught:
            call(large)
        first.append(0)  # a bytearray with a view cannot change its size
        large.append(0)
        assert caught.value.size == len(large) - 1


# --- the constructor ------------------------------------------------------------------------------


def test_encoder_refuses_anything_but_a_codec(engine: ModuleType) -> None:
    for value in (None, 4, "u32be", Codec):
        with pytest.raises(TypeError, match=r"framecodec\.Codec"):
            engine.Encoder(value)


@pytest.mark.parametrize(
    "codec",
    [
        *(Codec.text(b"\r\n", base=base, trailer=b",") for base in (10, 16)),
        *(Codec.digits(width, base=base) for base in (10, 16) for width in (1, 2, 3, 4, 5)),
        *(Codec.digits(4, base=base, length_offset=2) for base in (10, 16)),
        *(
            Codec.varint(max_width=width, magic=magic)
            for magic in (b"", b"<begin>")
            for width in (1, 3)
        ),
        Codec.varint(max_width=3, length_offset=2),
        Codec.ber(max_width=3, length_offset=1),
        *(Codec.uint(width, byteorder="little", trailer=b"<end>") for width in (1, 2, 3)),
        *(Codec.uint(width, length_includes="frame", magic=b"ab") for width in (1, 2, 3)),
        Codec.uint(1, wider={254: "u16be", 255: "u32be"}),
    ],
    ids=str,
)
def test_batches_have_lengths_of_all_sizes_of_the_field(engine: ModuleType, codec: Codec) -> None:
    encoder = engine.Encoder(codec)
    messages = []
    for limit in (2, 9, 10, 16, 99, 100, 127, 128, 254, 256, 999, 1000, 4096, 9999, 16383, 65535):
        for size in range(max(0, limit - 8), limit + 9):
            try:
                codec.encode(bytes(size))
            except FrameError:
                continue
            messages.append(bytes([size % 251]) * size)
    frames = [b"".join(encoder.frame_parts(message)) for message in messages]
    assert encoder.encode_many(messages) == b"".join(frames)
    assert [encoder.encode(message) for message in messages] == frames
    for message, frame in zip(messages, frames, strict=True):
        assert encoder.encode_many([message]) == frame
    assert codec.splitter().feed(b"".join(frames)) == messages


@pytest.mark.parametrize("magic", [b"", b"ab", b"magic of 18 bytes!"])
def test_batches_have_zeros_and_escapes_at_every_position(engine: ModuleType, magic: bytes) -> None:
    slip = {b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}
    codecs = [Codec.cobs(magic=magic), Codec.delimiter(b"\xc0", escape=slip, magic=magic)]
    sizes = [*range(20), 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 97, 253, 254, 255]
    rng = random.Random(3)
    messages = [bytes(size) for size in sizes] + [b"a" * size for size in sizes]
    for size in sizes:
        for position in {0, 15, 16, 31, 32, size // 2, size - 17, size - 16, size - 1}:
            if 0 <= position < size:
                for odd in (b"\0", b"\xc0", b"\xdb"):
                    messages.append((b"a" * position + odd).ljust(size, b"b"))
        messages.append(bytes(rng.choices(b"\0\0a\xc0\xdb", k=size)))
    for codec in codecs:
        encoder = engine.Encoder(codec)
        frames = [b"".join(encoder.frame_parts(message)) for message in messages]
        assert codec.splitter().feed(b"".join(frames)) == messages
        assert encoder.encode_many(messages) == b"".join(frames)
        for message, frame in zip(messages, frames, strict=True):
            assert encoder.encode(message) == frame
            assert encoder.encode_many([message]) == frame
            assert encoder.encode_many([b"b" * 16, message]) == encoder.encode(b"b" * 16) + frame


@pytest.mark.parametrize("base", [10, 16])
def test_lengths_of_all_digits_are_written(engine: ModuleType, base: int) -> None:
    for length in (base**15 - 1, base**15, 2**62 - 1):
        codec = Codec.text(base=base, length_adjustment=1 - length)
        digits = f"{length:x}" if base == 16 else str(length)
        encoder = engine.Encoder(codec)
        assert encoder.encode(b"a") == digits.encode() + b":a"
        assert encoder.encode_many([b"a"] * 2) == (digits.encode() + b":a") * 2


@pytest.mark.parametrize(
    "codec", [Codec.uint(2), Codec.delimiter(b"\n"), Codec.text(), Codec.fixed(2)]
)
def test_encode_returns_bytes_of_each_kind_of_message(engine: ModuleType, codec: Any) -> None:
    encoder = engine.Encoder(codec)
    frame = encoder.encode(b"ab")
    for form in (bytes, bytearray, memoryview):
        for made in (encoder.encode(form(b"ab")), encoder.encode_many([form(b"ab")])):
            assert type(made) is bytes
            assert made == frame


@pytest.mark.parametrize("far", [2**55, 2**56, 2**60, 2**62 - 1])
def test_a_length_of_as_many_bytes_as_ber_has(engine: ModuleType, far: int) -> None:
    codec = Codec.ber(max_width=8, length_adjustment=-far)
    field = (far + 3).to_bytes(8, "big").lstrip(b"\0")
    frame = bytes([0x80 + len(field)]) + field + b"abc"
    encoder = engine.Encoder(codec)
    assert encoder.encode(b"abc") == frame
    assert encoder.encode_many([b"abc"] * 2) == frame * 2
    assert codec.decode(frame) == b"abc"
