"""A codec: what it refuses when it is made, what it is as a value, and whole frames by it."""

from __future__ import annotations

import copy
import enum
import functools
import os
import pickle
import re
import struct
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy
import pytest

from framecodec import (
    DEFAULT_MAX_MESSAGE_SIZE,
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
)
from tests.zoo import CODECS, Mark, build_tagged, parse_tagged, sample_messages

KINDS = {
    "uint": lambda **has: Codec.uint(2, **has),
    "struct": lambda **has: Codec.struct("!H", **has),
    "digits": lambda **has: Codec.digits(4, **has),
    "varint": lambda **has: Codec.varint(**has),
    "text": lambda **has: Codec.text(**has),
    "headers": lambda **has: Codec.headers(**has),
    "custom": lambda **has: Codec.custom(parse_tagged, build_tagged, **has),
}

# --- refused when made ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("has", "error", "said"),
    [
        ({"magic": "M"}, TypeError, "magic must be bytes, not 'M'"),
        ({"magic": 3}, TypeError, "magic must be bytes, not 3"),
        ({"magic": None}, TypeError, "magic must be bytes, not None"),
        ({"trailer": [1]}, TypeError, r"trailer must be bytes, not \[1\]"),
        ({"length_offset": -1}, ValueError, "length_offset"),
        ({"length_offset": "2"}, TypeError, "length_offset must be an int, not '2'"),
        ({"length_offset": True}, TypeError, "length_offset must be an int, not True"),
        ({"length_offset": 1.0}, TypeError, "length_offset must be an int, not 1.0"),
        ({"magic": b"MM", "length_offset": 1}, ValueError, "length_offset=1 .*magic of 2 bytes"),
        ({"length_offset": 10**9}, ValueError, "length_offset must be from 0 to"),
        ({"length_adjustment": 1.5}, TypeError, "length_adjustment must be an int"),
        ({"length_adjustment": None}, TypeError, "length_adjustment must be an int"),
        ({"length_adjustment": 2**64}, ValueError, "length_adjustment must be from"),
        ({"length_adjustment": -(2**64)}, ValueError, "length_adjustment must be from"),
        ({"length_includes": "message"}, ValueError, '"rest" or "frame", not \'message\''),
        ({"length_includes": None}, ValueError, '"rest" or "frame", not None'),
        (
            {"length_includes": "frame", "length_adjustment": 3},
            ValueError,
            'length_includes="frame".*length_adjustment=3',
        ),
        ({"max_message_size": -1}, ValueError, "max_message_size must be at least 0"),
        ({"max_message_size": "5"}, TypeError, "max_message_size must be an int"),
        ({"max_message_size": 1e6}, TypeError, "max_message_size must be an int"),
        ({"max_message_size": True}, TypeError, "max_message_size must be an int"),
        ({"specials": [0]}, TypeError, "specials must be a mapping"),
        ({"specials": {"0": None}}, TypeError, "special field value must be an int, not '0'"),
        ({"specials": {True: None}}, TypeError, "special field value must be an int, not True"),
        ({"specials": {0: []}}, TypeError, r"hashable, \[\] is not"),
        ({"specials": {0: None, 1: None}}, ValueError, "1 and 0 both stand for None"),
        ({"specials": {2**64: None}}, ValueError, "18446744073709551616|no sense"),
        ({"unknown": 1}, TypeError, "unknown"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(
    kind: str, has: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        KINDS[kind](**has)


@pytest.mark.parametrize("kind", KINDS)
def test_specials_stand_alone_so_there_is_no_lead(kind: str) -> None:
    with pytest.raises(ValueError, match=r"specials|length_offset"):
        KINDS[kind](specials={0: None}, length_offset=3)


@pytest.mark.parametrize("kind", ["varint", "text", "headers", "custom"])
def test_only_a_field_of_known_width_can_count_the_whole_frame(kind: str) -> None:
    with pytest.raises(ValueError, match=rf'length_includes="frame".*Codec\.{kind}'):
        KINDS[kind](length_includes="frame")


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Codec.uint(0), ValueError, "width must be from 1 to 8, not 0"),
        (lambda: Codec.uint(9), ValueError, "width must be from 1 to 8, not 9"),
        (lambda: Codec.uint("4"), TypeError, "width must be an int, not '4'"),
        (lambda: Codec.uint(4.0), TypeError, "width must be an int, not 4.0"),
        (lambda: Codec.uint(True), TypeError, "width must be an int, not True"),
        (lambda: Codec.uint(4, "middle"), ValueError, "byteorder must be .*not 'middle'"),
        (lambda: Codec.uint(4, None), ValueError, "byteorder must be .*not None"),
        (lambda: Codec.uint(4, signed=1), TypeError, "signed must be a bool, not 1"),
        (lambda: Codec.uint(4, "big", True), TypeError, "positional"),
        (lambda: Codec.struct(""), ValueError, "struct notation"),
        (lambda: Codec.struct("II"), ValueError, "one integer.*'II'"),
        (lambda: Codec.struct("2I"), ValueError, "one integer"),
        (lambda: Codec.struct("f"), ValueError, "one integer"),
        (lambda: Codec.struct("?"), ValueError, "one integer"),
        (lambda: Codec.struct("c"), ValueError, "one integer"),
        (lambda: Codec.struct("x"), ValueError, "one integer"),
        (lambda: Codec.struct("P"), ValueError, "one integer"),
        (lambda: Codec.struct("!"), ValueError, "one integer"),
        (lambda: Codec.struct("!n"), ValueError, "one integer"),
        (lambda: Codec.struct(b"I"), TypeError, "fmt must be a str"),
        (lambda: Codec.struct(4), TypeError, "fmt must be a str"),
        (lambda: Codec.digits(0), ValueError, "width must be from 1"),
        (lambda: Codec.digits(1000), ValueError, "width must be from 1"),
        (lambda: Codec.digits(4, base=8), ValueError, "base must be 10 or 16, not 8"),
        (lambda: Codec.digits(4, base="10"), (TypeError, ValueError), "base"),
        (lambda: Codec.digits(4, base=16.0), (TypeError, ValueError), "base"),
        (lambda: Codec.varint(max_width=0), ValueError, "max_width must be from 1 to 10"),
        (lambda: Codec.varint(max_width=11), ValueError, "max_width must be from 1 to 10"),
        (lambda: Codec.text(end=b""), ValueError, "end must have 1 to"),
        (lambda: Codec.text(end=bytes(100)), ValueError, "end must have 1 to"),
        (lambda: Codec.text(end=b"5"), ValueError, "may stand in a base 10 length"),
        (lambda: Codec.text(end=b"a", base=16), ValueError, "may stand in a base 16 length"),
        (lambda: Codec.text(end=b"-"), ValueError, "may stand in"),
        (lambda: Codec.text(end=":"), TypeError, "end must be bytes"),
        (lambda: Codec.headers("Content Length"), ValueError, "no name of a header"),
        (lambda: Codec.headers(""), ValueError, "no name of a header"),
        (lambda: Codec.headers("L:"), ValueError, "no name of a header"),
        (lambda: Codec.headers("L\n"), ValueError, "no name of a header"),
        (lambda: Codec.headers(b"L"), TypeError, "name must be a str"),
        (lambda: Codec.headers(max_header=0), ValueError, "max_header must be from 1"),
        (lambda: Codec.headers(max_header=10), ValueError, "max_header=10 does not hold"),
        (lambda: Codec.headers(length_offset=4), ValueError, r"length_offset.*headers"),
        (lambda: Codec.custom(None, build_tagged), TypeError, "parse must be callable"),
        (lambda: Codec.custom(parse_tagged, b"x"), TypeError, "build must be callable"),
        (lambda: Codec.custom(parse_tagged), TypeError, "build"),
        (
            lambda: Codec.custom(parse_tagged, build_tagged, max_header=0),
            ValueError,
            "max_header must be from 1",
        ),
        (
            lambda: Codec.custom(parse_tagged, build_tagged, length_adjustment=1),
            ValueError,
            "length_adjustment.*custom",
        ),
        (
            lambda: Codec.custom(parse_tagged, build_tagged, specials={0: None}),
            ValueError,
            "specials.*custom",
        ),
        # values that the field cannot hold
        (lambda: Codec.uint(1, specials={256: None}), ValueError, "256 does not fit.* 0 to 255"),
        (lambda: Codec.uint(1, specials={-1: None}), ValueError, "-1 does not fit"),
        (
            lambda: Codec.uint(1, signed=True, specials={128: None}),
            ValueError,
            "128 does not fit.* -128 to 127",
        ),
        (lambda: Codec.digits(2, specials={100: None}), ValueError, "100 does not fit"),
        (lambda: Codec.digits(2, specials={-1: None}), ValueError, "-1 does not fit"),
        (lambda: Codec.varint(max_width=1, specials={128: 0}), ValueError, "128 does not fit"),
        # codecs that could hold no message
        (lambda: Codec.uint(4, length_offset=9, max_message_size=8), ValueError, "no message fits"),
        (lambda: Codec.uint(1, length_adjustment=-256), ValueError, "no message fits"),
        (
            lambda: Codec.uint(1, length_adjustment=9, max_message_size=8),
            ValueError,
            "length_adjustment=9.*max_message_size=8",
        ),
        (
            lambda: Codec.digits(1, length_includes="frame", trailer=b"123456789"),
            ValueError,
            'no message fits: width=1, length_includes="frame", a trailer of 9 bytes',
        ),
        (
            lambda: Codec.uint(1, length_includes="frame", length_offset=255),
            ValueError,
            'length_offset=255, length_includes="frame"',
        ),
        (
            lambda: Codec.varint(max_width=1, length_adjustment=-200),
            ValueError,
            "max_width=1, length_adjustment=-200",
        ),
        (
            lambda: Codec.uint(1, specials=dict(zip(range(256), range(256), strict=True))),
            ValueError,
            "only special values",
        ),
        (
            lambda: Codec.uint(1, specials={0: None}, max_message_size=0),
            ValueError,
            "only special values",
        ),
    ],
)
def test_a_contradiction_is_refused_when_it_is_made(
    make: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=re.compile(said, re.DOTALL)):
        make()


def test_the_text_of_a_refusal_names_the_parameters() -> None:
    with pytest.raises(ValueError, match="length_offset") as caught:
        Codec.uint(2, magic=b"MAGIC", length_offset=4)
    assert "magic" in str(caught.value)
    with pytest.raises(ValueError, match="lead of 3 bytes"):
        Codec.uint(2, length_offset=3, specials={0: None})


def test_a_codec_is_made_by_its_kind() -> None:
    with pytest.raises(TypeError, match=r"Codec\.uint\(\).*Codec\.custom\(\)"):
        Codec()
    with pytest.raises(TypeError, match=r"Codec\.uint"):
        Codec(4)


def test_the_defaults_are_the_documented_ones() -> None:
    assert Codec.uint() == Codec.uint(
        4,
        "big",
        signed=False,
        length_offset=None,
        length_adjustment=0,
        length_includes="rest",
        magic=b"",
        trailer=b"",
        specials=None,
        max_message_size=16 * 1024 * 1024,
    )
    assert DEFAULT_MAX_MESSAGE_SIZE == 16 * 1024 * 1024
    assert Codec.varint() == Codec.varint(max_width=5)
    assert Codec.text() == Codec.text(b":", base=10)
    assert Codec.headers() == Codec.headers("Content-Length", max_header=8192)
    custom = Codec.custom(parse_tagged, build_tagged)
    assert custom == Codec.custom(parse_tagged, build_tagged, max_header=64)
    assert Codec.digits(4) == Codec.digits(4, base=10)


# --- a codec is a value ---------------------------------------------------------------------------

NAMES = {"Codec": Codec, "Mark": Mark, "parse_tagged": parse_tagged, "build_tagged": build_tagged}


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (Codec.uint(), "Codec.uint(4)"),
        (Codec.uint(2, "little"), "Codec.uint(2, byteorder='little')"),
        (Codec.uint(1, magic=b"M", length_offset=1), "Codec.uint(1, magic=b'M')"),
        (Codec.uint(1, specials={}), "Codec.uint(1)"),
        (Codec.uint(1, specials={0: None}), "Codec.uint(1, specials={0: None})"),
        (Codec.uint(8, max_message_size=None), "Codec.uint(8, max_message_size=None)"),
        (Codec.struct("!I", trailer=b"\r\n"), r"Codec.struct('!I', trailer=b'\r\n')"),
        (Codec.digits(4, base=16), "Codec.digits(4, base=16)"),
        (Codec.varint(), "Codec.varint()"),
        (Codec.text(end=b"\n"), r"Codec.text(end=b'\n')"),
        (Codec.headers(), "Codec.headers()"),
        (Codec.custom(parse_tagged, build_tagged), "Codec.custom(parse_tagged, build_tagged)"),
    ],
)
def test_repr_is_the_call_that_makes_it(codec: Codec, text: str) -> None:
    assert repr(codec) == text
    assert eval(text, NAMES) == codec


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_comes_back_from_repr_pickle_and_copy(name: str) -> None:
    codec = CODECS[name]
    if "short view" not in name:
        assert eval(repr(codec), NAMES) == codec
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(codec, protocol))
        assert (again, hash(again)) == (codec, hash(codec))
        for message in sample_messages(codec)[:3]:
            assert again.encode(message) == codec.encode(message)
    for again in (copy.copy(codec), copy.deepcopy(codec), codec.replace()):
        assert (again, hash(again), repr(again)) == (codec, hash(codec), repr(codec))
    assert all(codec != other for other_name, other in CODECS.items() if other_name != name)
    assert codec != codec.replace(trailer=b"another")
    assert codec != repr(codec)


def test_a_pickle_is_read_by_the_other_engine() -> None:
    codec = Codec.text(magic=b"$", specials={-1: None}, trailer=b"\r\n")
    read = (
        "import sys, pickle; codec = pickle.load(sys.stdin.buffer); import framecodec;"
        "print(framecodec.ACCELERATED, codec.decode(codec.encode(b'abc')), codec)"
    )
    done = subprocess.run(
        [sys.executable, "-c", read],
        input=pickle.dumps(codec),
        env={**os.environ, "FRAMECODEC_NO_EXTENSIONS": "1"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode().strip() == f"False b'abc' {codec}"


def test_a_codec_is_frozen() -> None:
    codec = Codec.uint(4, specials={0: None})
    for name in ("kind", "parameters", "layout", "encode", "anything"):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(codec, name, 1)
        with pytest.raises(AttributeError, match="frozen"):
            delattr(codec, name)
    with pytest.raises(TypeError):
        codec.parameters["width"] = 5  # type: ignore[index]
    with pytest.raises(TypeError):
        codec.parameters["specials"][1] = "one"


def test_what_was_given_may_change_afterwards() -> None:
    magic, specials = bytearray(b"M"), {0: None}
    codec = Codec.uint(1, magic=magic, specials=specials)
    magic[0] = 0
    specials[1] = "late"  # type: ignore[assignment]
    assert codec == Codec.uint(1, magic=b"M", specials={0: None})
    assert codec.encode(b"a") == b"M\1a"


class Width(enum.IntEnum):
    WIDE = 4


def test_numbers_of_other_types_become_plain_ones() -> None:
    codec = Codec.uint(Width.WIDE, max_message_size=Width.WIDE)
    assert codec == Codec.uint(4, max_message_size=4)
    assert repr(codec) == "Codec.uint(4, max_message_size=4)"


@pytest.mark.parametrize("number", [numpy.int64(4), numpy.uint8(4)])
def test_numpy_integers_are_integers_or_refused_with_a_reason(number: Any) -> None:
    try:
        codec = Codec.uint(number)
    except TypeError as error:
        refused = str(error)
    else:
        refused = "width must be an int" if repr(codec) == "Codec.uint(4)" else ""
    assert "width must be an int" in refused


def test_replace_changes_and_keeps() -> None:
    codec = Codec.uint(2, "little", length_offset=3, magic=b"M", specials=None)
    changed = codec.replace(width=3, trailer=b"T", max_message_size=None)
    assert changed == Codec.uint(
        3, "little", length_offset=3, magic=b"M", trailer=b"T", max_message_size=None
    )
    assert codec == Codec.uint(2, "little", length_offset=3, magic=b"M")
    with pytest.raises(TypeError, match=r"no parameter width.*has fmt"):
        Codec.struct("!I").replace(width=2)
    with pytest.raises(ValueError, match="inside the magic"):
        codec.replace(magic=b"longer")
    # A field right behind the magic stays there.
    assert Codec.uint(2, magic=b"M").replace(magic=b"MAGIC").encode(b"a") == b"MAGIC\0\1a"


def test_functions_without_a_name_have_a_repr() -> None:
    codec = Codec.custom(functools.partial(parse_tagged), lambda message: b"")
    assert repr(codec).startswith("Codec.custom(functools.partial(<function parse_tagged")
    assert hash(codec) == hash(copy.copy(codec))


# --- whole frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_decode_takes_exactly_one_whole_frame(engine_in_use: ModuleType, name: str) -> None:
    codec = CODECS[name].replace()
    for message in sample_messages(codec):
        frame = codec.encode(message)
        for form in (bytes, bytearray, memoryview):
            assert codec.decode(form(frame)) == message
        for size in {0, len(frame) // 2, len(frame) - 1}:
            with pytest.raises(IncompleteFrameError) as caught:
                codec.decode(frame[:size])
            assert (caught.value.received, caught.value.stream_offset) == (size, 0)
            assert caught.value.needed in (None, len(frame))
        for behind in (b"?", frame, bytes(1000)):
            with pytest.raises(InvalidFrameError, match=f"{len(behind)} bytes behind") as invalid:
                codec.decode(frame + behind)
            assert frame.startswith(invalid.value.header)


def test_decode_counts_what_is_behind_a_frame_that_it_would_write_otherwise(
    engine_in_use: ModuleType,
) -> None:
    codec = Codec.headers()
    header = b"X-Other: something long\r\ncontent-length:1\r\n\r\n"
    with pytest.raises(InvalidFrameError, match="2 bytes behind") as caught:
        codec.decode(header + b"a" + b"zz")
    assert caught.value.header == header
    silent = Codec.custom(lambda view: (1, 1), lambda message: 1 / 0)
    with pytest.raises(InvalidFrameError, match="3 bytes behind"):
        silent.decode(b"ha" + b"zzz")


@pytest.mark.parametrize(
    ("codec", "frame", "error"),
    [
        (Codec.digits(2), b"0x", InvalidFrameError),
        (Codec.uint(1, magic=b"M"), b"N\1a", InvalidFrameError),
        (Codec.uint(1, trailer=b"T"), b"\1aX", InvalidFrameError),
        (Codec.uint(1, max_message_size=2), b"\3abc", MessageTooLargeError),
    ],
)
def test_decode_of_a_bad_frame_raises_what_is_wrong(
    engine_in_use: ModuleType, codec: Codec, frame: bytes, error: type[FrameError]
) -> None:
    with pytest.raises(error) as caught:
        codec.replace().decode(frame)
    assert caught.value.stream_offset == 0


def test_a_special_is_a_whole_frame(engine_in_use: ModuleType) -> None:
    codec = Codec.digits(4, base=16, length_includes="frame", specials={0: None, 1: Mark.PING})
    assert codec.decode(b"0000") is None
    assert codec.decode(b"0001") is Mark.PING
    assert codec.split(b"00000005a0001") == ([None, b"a", Mark.PING], 13)
    with pytest.raises(InvalidFrameError, match="4 bytes behind"):
        codec.decode(b"00000000")


@pytest.mark.parametrize(("frame", "header"), [(b"\0!!", b"\0"), (b"\5", b"\5")])
def test_an_empty_message_is_not_taken_for_a_special_of_its_value(
    engine_in_use: ModuleType, frame: bytes, header: bytes
) -> None:
    codec = Codec.uint(1, trailer=b"!!", specials={5: b""})
    assert codec.decode(frame) == b""
    with pytest.raises(InvalidFrameError, match="1 bytes behind") as caught:
        codec.decode(frame + b"x")
    assert caught.value.header == header


def test_a_special_value_is_a_plain_number() -> None:
    class Value(enum.IntEnum):
        NONE = 7

    codec = Codec.uint(1, specials={Value.NONE: None})
    assert repr(codec) == "Codec.uint(1, specials={7: None})"
    assert str(codec) == "u8,specials=7:None"


def test_a_codec_of_functions_that_have_no_hash_is_refused_when_it_is_made() -> None:
    class Parse:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, view: memoryview) -> tuple[int, int]:
            return 1, view[0]

    with pytest.raises(TypeError, match="parse must be hashable"):
        Codec.custom(Parse(), build_tagged)


def test_split_gives_the_whole_frames_and_where_they_end(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(1, trailer=b"\n")
    for form in (bytes, bytearray, memoryview):
        assert codec.split(form(b"")) == ([], 0)
        assert codec.split(form(b"\2a")) == ([], 0)
        assert codec.split(form(b"\1a\n\0\n\5b")) == ([b"a", b""], 5)
        # A broken stream: what came before, as feed.
        assert codec.split(form(b"\1a\n\1bX\1c\n")) == ([b"a"], 3)
        with pytest.raises(InvalidFrameError):
            codec.split(form(b"\1bX\1c\n"))


def test_a_large_buffer_is_split_to_its_end(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(2)
    messages = [bytes([n % 256]) * (n % 700) for n in range(2000)]
    stream = codec.encode_many(messages)
    for form in (bytes, bytearray, memoryview):
        assert codec.split(form(stream + b"\1")) == (messages, len(stream))
        assert [bytes(span) for span in codec.scan(form(stream + b"\1"))] == messages


def test_the_codec_hands_its_choices_to_the_splitter(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(1, max_message_size=1)
    splitter = codec.splitter(raw=True, on_oversize="skip")
    assert isinstance(splitter, engine_in_use.Splitter)
    assert splitter.feed(b"\2ab\1c") == [b"\1c"]
    assert splitter.skipped == 1
    with pytest.raises(TypeError):
        codec.splitter(True)  # type: ignore[misc]


@pytest.mark.parametrize(
    "fmt", [*"bBhHiIlLqQnN", *("@" + c for c in "ihlqn"), "=i", "<i", ">i", "!i", "=Q"]
)
def test_struct_reads_and_writes_what_struct_does(engine_in_use: ModuleType, fmt: str) -> None:
    codec = Codec.struct(fmt)
    message = b"hello"
    assert codec.encode(message) == struct.pack(fmt, 5) + message
    assert codec.decode(struct.pack(fmt, 5) + message) == message
    largest = min(2 ** (8 * struct.calcsize(fmt) - fmt[-1].islower()) - 1, 2**24)
    if largest < 70_000:
        assert len(codec.decode(codec.encode(bytes(largest)))) == largest
        with pytest.raises(MessageTooLargeError):
            codec.encode(bytes(largest + 1))


def test_the_tutorials_header_is_spoken(engine_in_use: ModuleType) -> None:
    codec = Codec.digits(4)
    for text in ("hello", "byebye", "你好", ""):
        message = text.encode()
        assert codec.encode(message) == str(len(message)).zfill(4).encode() + message
