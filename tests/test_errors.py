"""What errors carry, how they pickle, and that their texts can be acted on."""

from __future__ import annotations

import copy
import inspect
import pathlib
import pickle
import re
from types import ModuleType
from typing import Any

import pytest

import framecodec
from framecodec import (
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
    _error_texts,
    errors,
)

FAMILY = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, FrameError)
]


def test_errors_have_the_documented_base_classes() -> None:
    assert issubclass(FrameError, Exception)
    assert issubclass(IncompleteFrameError, EOFError)
    assert issubclass(errors.MessageTimeoutError, TimeoutError)
    assert issubclass(errors.IdleTimeoutError, TimeoutError)
    assert {error.__name__ for error in FAMILY} == set(errors.__all__)
    assert all(getattr(framecodec, error.__name__) is error for error in FAMILY)
    # None of them is a ValueError, which says that a call was wrong and not the peer.
    assert not any(issubclass(error, ValueError | TypeError) for error in FAMILY)


@pytest.mark.parametrize("family", FAMILY, ids=lambda family: family.__name__)
def test_errors_can_be_made_from_a_text_alone(family: type[FrameError]) -> None:
    # By tests of users, and by pickle.
    error = family("what happened")
    assert str(error) == "what happened"
    assert error.args == ("what happened",)
    assert error.stream_offset is None
    assert error.header == b""


def raised(engine: ModuleType) -> list[FrameError]:
    """An error of each cause, by a splitter and an encoder."""
    found = []
    for codec, stream in [
        (Codec.uint(1, magic=b"M"), b"N"),
        (Codec.digits(4), b"12x4"),
        (Codec.text(), b":"),
        (Codec.text(), b"01:"),
        (Codec.text(max_message_size=None), b"9" * 30),
        (Codec.varint(), b"\xff" * 9),
        (Codec.varint(), b"\x80\x00"),
        (Codec.struct("!h"), b"\xff\xff"),
        (Codec.uint(1, length_adjustment=-2), b"\x01"),
        (Codec.uint(1, length_includes="frame"), b"\x00"),
        (Codec.uint(1, trailer=b"T"), b"\x00X"),
        (Codec.headers(), b"bad line\r\n"),
        (Codec.headers(), b"Content-Length: x\r\n\r\n"),
        (Codec.headers(), b"Content-Length: 1\r\ncontent-length: 1\r\n\r\n"),
        (Codec.headers(), b"\r\n"),
        (Codec.headers(), b"a" * 9000),
        (Codec.custom(lambda view: 1 / 0, lambda message: b""), b"a"),
        (Codec.custom(lambda view: "no", lambda message: b""), b"a"),
        (Codec.uint(4, max_message_size=10), b"\x7f\xff\xff\xff"),
        (Codec.uint(4), b"\0\0\0\x09abc"),
    ]:
        splitter = engine.Splitter(codec)
        with pytest.raises(FrameError) as caught:
            splitter.feed(stream) or splitter.feed_eof()
        found.append(caught.value)
    for codec, message in [
        (Codec.uint(1), bytes(256)),
        (Codec.uint(4, max_message_size=2), b"abc"),
        (Codec.uint(1, length_offset=2), b"a"),
        (Codec.uint(1, length_adjustment=3), b"a"),
        (Codec.uint(1, specials={1: None}), b"a"),
        (Codec.custom(lambda view: None, lambda message: "no"), b"a"),
        (Codec.custom(lambda view: None, lambda message: bytes(65)), b"a"),
    ]:
        with pytest.raises(FrameError) as caught:
            engine.Encoder(codec).encode(message)
        assert caught.value.stream_offset is None
        found.append(caught.value)
    return found


def test_errors_pickle_and_copy_with_all_they_carry(engine: ModuleType) -> None:
    for error in raised(engine):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert alike(pickle.loads(pickle.dumps(error, protocol)), error)
        assert alike(copy.copy(error), error)
        assert alike(copy.deepcopy(error), error)


def alike(error: FrameError, other: FrameError) -> bool:
    return (type(error), str(error), error.args, vars(error)) == (
        type(other),
        str(other),
        other.args,
        vars(other),
    )


def test_errors_say_what_and_where_in_one_line(engine: ModuleType) -> None:
    for error in raised(engine):
        text = str(error)
        assert 20 < len(text) < 400
        assert "\n" not in text
        assert text.isprintable()
        if error.stream_offset is not None:
            assert f"stream offset {error.stream_offset}" in text
        if isinstance(error, MessageTooLargeError):
            assert str(error.size) in text
            assert str(error.limit) in text


def test_errors_have_no_more_than_the_header(engine: ModuleType) -> None:
    for error in raised(engine):
        assert type(error.header) is bytes
        assert len(error.header) <= 8192


def test_error_texts_are_all_used() -> None:
    # A text that nothing raises is a text that no test sees.
    package = pathlib.Path(errors.__file__).parent
    used = "\n".join(
        path.read_text(encoding="utf-8")
        for path in package.rglob("*.py*")
        if path.suffix in (".py", ".pyx")
    )
    functions = [
        name
        for name, value in vars(_error_texts).items()
        if inspect.isfunction(value) and value.__module__ == _error_texts.__name__
    ]
    assert functions
    for name in functions:
        wanted = rf"\b{name}\(" if name.startswith("_") else rf"_error_texts\.{name}\("
        assert re.search(wanted, used), f"_error_texts.{name}() is used nowhere"


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        ("text", TypeError, "not 'str'; encode the text first"),
        (5, TypeError, "not 'int'"),
        (None, TypeError, "not 'NoneType'"),
        (memoryview(b"abcd")[::2], BufferError, "not contiguous"),
    ],
)
def test_bytes_like_arguments_are_refused_with_the_same_text_everywhere(
    engine_in_use: ModuleType, data: Any, kind: type[Exception], text: str
) -> None:
    codec = Codec.uint(2)
    for call in (
        codec.encode,
        codec.frame_parts,
        lambda data: codec.encode_many([b"fine", data]),
        codec.decode,
        codec.split,
        codec.scan,
        codec.splitter().feed,
    ):
        with pytest.raises(kind, match=text):
            call(data)
    assert not issubclass(kind, FrameError)
    assert issubclass(InvalidFrameError, FrameError)
