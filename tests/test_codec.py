"""Test `Codec`: its constructors, its behaviour as a value, and its methods for whole frames."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import struct
import subprocess
import sys
from types import ModuleType

import pytest

from framecodec import (
    DEFAULT_MAX_MESSAGE_SIZE,
    Check,
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
)
from tests.helpers.sample_codecs import (
    CODECS,
    Mark,
    build_tagged,
    crc_of_crc,
    parse_tagged,
    sample_messages,
)


def test_codec_cannot_be_called() -> None:
    with pytest.raises(TypeError, match=r"Codec\.uint\(\).*Codec\.custom\(\)"):
        Codec()
    with pytest.raises(TypeError, match=r"Codec\.uint"):
        Codec(4)


def test_codec_constructors_have_the_documented_defaults() -> None:
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


# --- repr, pickle, copy and replace ---------------------------------------------------------------

NAMES = {
    **{"Codec": Codec, "Check": Check, "Mark": Mark, "crc_of_crc": crc_of_crc},
    **{"parse_tagged": parse_tagged, "build_tagged": build_tagged},
}


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
def test_repr_is_the_call_that_makes_the_codec(codec: Codec, text: str) -> None:
    assert repr(codec) == text
    assert eval(text, NAMES) == codec


@pytest.mark.parametrize("name", CODECS)
def test_repr_pickle_and_copy_return_an_equal_codec(name: str) -> None:
    codec = CODECS[name]
    if "short view" not in name:
        assert eval(repr(codec), NAMES) == codec
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copied = pickle.loads(pickle.dumps(codec, protocol))
        assert (copied, hash(copied)) == (codec, hash(codec))
        for message in sample_messages(codec)[:3]:
            assert copied.encode(message) == codec.encode(message)
    for copied in (copy.copy(codec), copy.deepcopy(codec), codec.replace()):
        assert (copied, hash(copied), repr(copied)) == (codec, hash(codec), repr(codec))
    assert all(codec != other for other_name, other in CODECS.items() if other_name != name)
    has_trailer = codec.kind not in ("choice", "delimiter", "cobs", "joined")
    changed = {"trailer": b"another"} if has_trailer else {"max_message_size": 12345}
    assert codec != codec.replace(**changed)
    assert codec != repr(codec)


def test_pickle_of_a_codec_loads_with_the_other_engine() -> None:
    codec = Codec.text(magic=b"$", specials={-1: None}, trailer=b"\r\n")
    program = (
        "import sys, pickle; codec = pickle.load(sys.stdin.buffer); import framecodec;"
        "print(framecodec.ACCELERATED, codec.decode(codec.encode(b'abc')), codec)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(codec),
        env={**os.environ, "FRAMECODEC_NO_EXTENSIONS": "1"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert process.stdout.decode().strip() == f"False b'abc' {codec}"


def test_codec_is_frozen() -> None:
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


def test_replace_changes_the_given_parameters_and_keeps_the_others() -> None:
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
    # A length field directly after the magic moves with the magic.
    assert Codec.uint(2, magic=b"M").replace(magic=b"MAGIC").encode(b"a") == b"MAGIC\0\1a"


def test_repr_shows_functions_without_a_name() -> None:
    codec = Codec.custom(functools.partial(parse_tagged), lambda message: b"")
    assert repr(codec).startswith("Codec.custom(functools.partial(<function parse_tagged")
    assert hash(codec) == hash(copy.copy(codec))


# --- encode, decode and split ---------------------------------------------------------------------


@pytest.mark.slow
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
        for extra in (b"?", frame, bytes(1000)):
            with pytest.raises(
                InvalidFrameError, match=f"{len(extra)} bytes after the frame"
            ) as invalid:
                codec.decode(frame + extra)
            assert frame.startswith(invalid.value.header)


def test_decode_counts_the_bytes_after_a_frame_that_encode_would_write_differently(
    engine_in_use: ModuleType,
) -> None:
    codec = Codec.headers()
    header = b"X-Other: something long\r\ncontent-length:1\r\n\r\n"
    with pytest.raises(InvalidFrameError, match="2 bytes after the frame") as caught:
        codec.decode(header + b"a" + b"zz")
    assert caught.value.header == header
    without_build = Codec.custom(lambda view: (1, 1), lambda message: 1 / 0)
    with pytest.raises(InvalidFrameError, match="3 bytes after the frame"):
        without_build.decode(b"ha" + b"zzz")


@pytest.mark.parametrize(
    ("codec", "frame", "error"),
    [
        (Codec.digits(2), b"0x", InvalidFrameError),
        (Codec.uint(1, magic=b"M"), b"N\1a", InvalidFrameError),
        (Codec.uint(1, trailer=b"T"), b"\1aX", InvalidFrameError),
        (Codec.uint(1, max_message_size=2), b"\3abc", MessageTooLargeError),
        (Codec.delimiter(b"\n", skip_empty=True), b"\n", IncompleteFrameError),
    ],
)
def test_decode_raises_the_error_of_a_bad_frame(
    engine_in_use: ModuleType, codec: Codec, frame: bytes, error: type[FrameError]
) -> None:
    with pytest.raises(error) as caught:
        codec.replace().decode(frame)
    assert caught.value.stream_offset == 0


def test_decode_and_split_return_specials(engine_in_use: ModuleType) -> None:
    codec = Codec.digits(4, base=16, length_includes="frame", specials={0: None, 1: Mark.PING})
    assert codec.decode(b"0000") is None
    assert codec.decode(b"0001") is Mark.PING
    assert codec.split(b"00000005a0001") == ([None, b"a", Mark.PING], 13)
    with pytest.raises(InvalidFrameError, match="4 bytes after the frame"):
        codec.decode(b"00000000")


def test_scan_of_a_special_needs_raw(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(1, specials={0: None})
    with pytest.raises(ValueError, match="offset 2 is the special None, which has no bytes"):
        codec.scan(b"\1a\0")
    assert list(map(bytes, codec.scan(b"\1a\0", raw=True))) == [b"\1a", b"\0"]


@pytest.mark.parametrize(("frame", "header"), [(b"\0!!", b"\0"), (b"\5", b"\5")])
def test_decode_returns_an_empty_message_that_equals_a_special(
    engine_in_use: ModuleType, frame: bytes, header: bytes
) -> None:
    codec = Codec.uint(1, trailer=b"!!", specials={5: b""})
    assert codec.decode(frame) == b""
    with pytest.raises(InvalidFrameError, match="1 bytes after the frame") as caught:
        codec.decode(frame + b"x")
    assert caught.value.header == header


def test_split_returns_the_messages_and_the_size_of_their_frames(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(1, trailer=b"\n")
    for form in (bytes, bytearray, memoryview):
        assert codec.split(form(b"")) == ([], 0)
        assert codec.split(form(b"\2a")) == ([], 0)
        assert codec.split(form(b"\1a\n\0\n\5b")) == ([b"a", b""], 5)
        # split() returns the messages before a bad frame, as feed() does.
        assert codec.split(form(b"\1a\n\1bX\1c\n")) == ([b"a"], 3)
        with pytest.raises(InvalidFrameError):
            codec.split(form(b"\1bX\1c\n"))


def test_split_raises_what_interrupts_it_also_after_whole_frames(engine_in_use: ModuleType) -> None:
    def parse(view: memoryview) -> tuple[int, int]:
        if view[0] == 0x21:
            raise KeyboardInterrupt
        return 1, 1

    codec = Codec.custom(parse, lambda message: b"h")
    assert codec.split(b"hahb") == ([b"a", b"b"], 4)
    with pytest.raises(KeyboardInterrupt):
        codec.split(b"hahb!c")


def test_codecs_are_equal_whatever_the_order_of_their_specials() -> None:
    one = Codec.uint(1, specials={254: b"a", 255: b"b"})
    other = Codec.uint(1, specials={255: b"b", 254: b"a"})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Codec.uint(1, specials={254: b"b", 255: b"a"})


def test_split_and_scan_read_a_large_buffer_to_its_end(engine_in_use: ModuleType) -> None:
    codec = Codec.uint(2)
    messages = [bytes([n % 256]) * (n % 700) for n in range(2000)]
    stream = codec.encode_many(messages)
    for form in (bytes, bytearray, memoryview):
        assert codec.split(form(stream + b"\1")) == (messages, len(stream))
        assert [bytes(span) for span in codec.scan(form(stream + b"\1"))] == messages


def test_splitter_passes_its_options_to_the_splitter(engine_in_use: ModuleType) -> None:
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
def test_struct_reads_and_writes_the_lengths_of_the_struct_module(
    engine_in_use: ModuleType, fmt: str
) -> None:
    codec = Codec.struct(fmt)
    message = b"hello"
    assert codec.encode(message) == struct.pack(fmt, 5) + message
    assert codec.decode(struct.pack(fmt, 5) + message) == message
    largest = min(2 ** (8 * struct.calcsize(fmt) - fmt[-1].islower()) - 1, 2**24)
    if largest < 70_000:
        assert len(codec.decode(codec.encode(bytes(largest)))) == largest
        with pytest.raises(MessageTooLargeError):
            codec.encode(bytes(largest + 1))


def test_digits_writes_the_header_of_the_tutorial(engine_in_use: ModuleType) -> None:
    codec = Codec.digits(4)
    for text in ("hello", "byebye", "你好", ""):
        message = text.encode()
        assert codec.encode(message) == str(len(message)).zfill(4).encode() + message


def test_the_types_of_replace_know_every_parameter() -> None:
    from framecodec._any_parameters import AnyParameters

    known = {*AnyParameters.__optional_keys__}
    assert known == {name for codec in CODECS.values() for name in codec.parameters}


def test_methods_of_the_class_write_the_same_as_those_of_the_codec() -> None:
    """An instance has faster methods of the same names; a subclass and `map` use these."""
    codec = Codec.uint(1)
    assert Codec.encode(codec, b"ab") == codec.encode(b"ab") == b"\2ab"
    assert Codec.encode_many(codec, [b"a", b""]) == codec.encode_many([b"a", b""]) == b"\1a\0"
    assert Codec.frame_parts(codec, b"ab") == codec.frame_parts(b"ab") == [b"\2", b"ab"]


def test_decode_names_what_padding_or_fragments_lack_or_have_more() -> None:
    padded = Codec.uint(1, align=4)
    assert padded.decode(b"\1a\0\0") == b"a"
    with pytest.raises(IncompleteFrameError):
        padded.decode(b"\1a\0")
    joined = Codec.joined(Codec.uint(1), full=2)
    assert joined.decode(b"\2ab\1c") == b"abc"
    with pytest.raises(InvalidFrameError, match="1 byte") as caught:
        joined.decode(b"\2ab\1cX")
    assert caught.value.header == b"\2"
