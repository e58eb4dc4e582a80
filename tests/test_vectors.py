"""The vectors of `tests/vectors`: streams of known protocols and what they hold.

Each stream is read by both engines whole, byte by byte and cut in two at every place; what the
messages encode to is compared with what travelled. The files are described in their README.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from framecodec import ChecksumError, Codec, FrameError, IncompleteFrameError, InvalidFrameError
from framecodec.catalogue import formats
from framecodec.errors import MessageTooLargeError
from tests.helpers.chunking import byte_by_byte, single_cuts

FOLDER = Path(__file__).parent / "vectors"
FILES = {path.stem: json.loads(path.read_text("ascii")) for path in sorted(FOLDER.glob("*.json"))}
KINDS: dict[str, type[FrameError]] = {
    "invalid": InvalidFrameError,
    "checksum": ChecksumError,
    "too-large": MessageTooLargeError,
    "incomplete": IncompleteFrameError,
}
ATTRIBUTES = ("size", "limit", "stream_offset", "where", "received", "needed")

# A longer stream is cut only near its ends, where its headers and trailers are.
LONGEST_CUT_EVERYWHERE = 700


def vectors(part: str) -> list[Any]:
    return [
        pytest.param(name, vector, id=f"{name}: {vector['about']}")
        for name, file in FILES.items()
        for vector in file.get(part, ())
        if vector.get("byteorder") in (None, sys.byteorder)
    ]


def read_bytes(piece: Any) -> bytes:
    if isinstance(piece, str):
        return bytes.fromhex(piece)
    if isinstance(piece, dict):
        return bytes.fromhex(piece["repeat"]) * piece["count"]
    return b"".join(map(read_bytes, piece))


def read_message(message: Any, codec: Codec) -> Any:
    if isinstance(message, dict) and "special" in message:
        return codec.parameters["specials"][message["special"]]
    return read_bytes(message)


def ways_to_cut(stream: bytes) -> Iterator[list[bytes]]:
    yield [stream]
    yield byte_by_byte(stream)
    if len(stream) <= LONGEST_CUT_EVERYWHERE:
        yield from single_cuts(stream)
    else:
        for pos in (*range(40), *range(len(stream) - 40, len(stream))):
            yield [stream[:pos], stream[pos:]]


def read_stream(
    engine: ModuleType, codec: Codec, pieces: list[bytes], **options: Any
) -> tuple[list[Any], FrameError | None, Any]:
    """The messages of a stream to its end, the error that ended it, and the splitter."""
    splitter = engine.Splitter(codec, **options)
    messages: list[Any] = []
    try:
        for piece in pieces:
            messages += splitter.feed(piece)
        splitter.feed_eof()
    except FrameError as error:
        return messages, error, splitter
    return messages, None, splitter


def test_formats_have_one_file_of_vectors_each() -> None:
    assert set(FILES) == set(formats)
    for name, file in FILES.items():
        assert file["format"] == name
        assert file["specification"] == formats.describe(name).specification
        assert len(file["valid"]) >= 2
        assert file["invalid"] or file["unencodable"]


@pytest.mark.parametrize(("name", "vector"), vectors("valid"))
def test_feed_of_vectors_returns_their_messages_for_any_chunking(
    engine: ModuleType, name: str, vector: dict[str, Any]
) -> None:
    codec, stream = formats[name], read_bytes(vector["stream"])
    messages = [read_message(message, codec) for message in vector["messages"]]
    for pieces in ways_to_cut(stream):
        found, error, splitter = read_stream(engine, codec, pieces)
        assert error is None, f"cut at {len(pieces[0])}"
        assert found == messages, f"cut at {len(pieces[0])}"
        assert (splitter.stream_offset, splitter.pending) == (len(stream), 0)


@pytest.mark.parametrize(("name", "vector"), vectors("valid"))
def test_raw_frames_of_vectors_are_the_stream(
    engine: ModuleType, name: str, vector: dict[str, Any]
) -> None:
    stream = read_bytes(vector["stream"])
    for pieces in ([stream], byte_by_byte(stream)):
        frames, error, _ = read_stream(engine, formats[name], pieces, raw=True)
        assert error is None
        assert len(frames) == len(vector["messages"])
        assert b"".join(frames) == stream


@pytest.mark.parametrize(("name", "vector"), vectors("valid"))
def test_encode_many_of_vectors_returns_the_stream(
    engine: ModuleType, name: str, vector: dict[str, Any]
) -> None:
    codec, stream = formats[name], read_bytes(vector["stream"])
    encoder = engine.Encoder(codec)
    messages = [read_message(message, codec) for message in vector["messages"]]
    frames = encoder.encode_many(messages)
    if vector.get("decode_only"):
        assert frames != stream
        assert read_stream(engine, codec, [frames])[:2] == (messages, None)
        return
    assert frames == stream
    assert b"".join(encoder.encode(message) for message in messages) == stream
    for message in messages:
        parts = [bytes(part) for part in encoder.frame_parts(message)]
        assert b"".join(parts) == encoder.encode(message)
        assert all(parts)


@pytest.mark.parametrize(("name", "vector"), vectors("invalid"))
def test_feed_of_broken_vectors_raises_the_same_for_any_chunking(
    engine: ModuleType, name: str, vector: dict[str, Any]
) -> None:
    codec, stream = formats[name], read_bytes(vector["stream"])
    messages = [read_message(message, codec) for message in vector["messages"]]
    texts = set()
    for pieces in ways_to_cut(stream):
        found, error, splitter = read_stream(engine, codec, pieces)
        assert found == messages, f"cut at {len(pieces[0])}"
        assert type(error) is KINDS[vector["error"]], f"cut at {len(pieces[0])}: {error!r}"
        assert splitter.error is error
        for attribute in ATTRIBUTES:
            if attribute in vector:
                assert getattr(error, attribute) == vector[attribute], attribute
        texts.add((str(error), error.header))
        with pytest.raises(KINDS[vector["error"]]) as again:
            splitter.feed(b"more")
        assert again.value is error
    assert len(texts) == 1


@pytest.mark.parametrize(("name", "vector"), vectors("unencodable"))
def test_encode_of_impossible_vectors_is_refused(
    engine: ModuleType, name: str, vector: dict[str, Any]
) -> None:
    encoder, message = engine.Encoder(formats[name]), read_bytes(vector["message"])
    for encode in (encoder.encode, encoder.frame_parts, lambda m: encoder.encode_many([m])):
        with pytest.raises(KINDS[vector["error"]]) as caught:
            encode(message)
        assert caught.value.stream_offset is None
        for attribute in ("size", "limit"):
            if attribute in vector:
                assert getattr(caught.value, attribute) == vector[attribute]
