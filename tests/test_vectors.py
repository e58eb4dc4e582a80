"""The vectors of `tests/vectors`: streams of known protocols and what they hold.

Each stream is read by both engines whole, byte by byte and cut in two at every place; what the
messages encode to is compared with what travelled. The files are described in their README.

``python -m tests.test_vectors NAME`` begins the file of a new format, or adds to its vectors those
that follow from them: all frames in one stream, one byte too few, each error after a good frame.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
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


def for_each_vector(part: str) -> Callable[[Callable[..., None]], Any]:
    """Return a decorator: one test for each format, which does the same for each of its vectors."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, file in FILES.items():
        for vector in file.get(part, ()):
            if vector.get("byteorder") in (None, sys.byteorder):
                found.setdefault(name, []).append(vector)

    def decorate(test: Callable[..., None]) -> Any:
        def test_of_a_format(engine: ModuleType, name: str) -> None:
            for vector in found[name]:
                try:
                    test(engine, name, vector)
                except BaseException as error:
                    error.add_note(f"{name}: {vector['about']}")
                    raise

        return pytest.mark.parametrize("name", [*found])(test_of_a_format)

    return decorate


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
    missing, unknown = sorted(set(formats) - set(FILES)), sorted(set(FILES) - set(formats))
    assert not missing, "formats without vectors: run python -m tests.test_vectors NAME"
    assert not unknown, "vectors of formats that the catalogue does not have"
    for name, file in FILES.items():
        where = f"tests/vectors/{name}.json"
        assert file["format"] == name, where
        assert file["specification"] == formats.describe(name).specification, where
        assert len(file["valid"]) >= 2, f"{where} needs two vectors under valid"
        assert file["invalid"] or file["unencodable"], f"{where} needs a stream that breaks"


@for_each_vector("valid")
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


@for_each_vector("valid")
def test_raw_frames_of_vectors_are_the_stream(
    engine: ModuleType, name: str, vector: dict[str, Any]
) -> None:
    stream = read_bytes(vector["stream"])
    for pieces in ([stream], byte_by_byte(stream)):
        frames, error, _ = read_stream(engine, formats[name], pieces, raw=True)
        assert error is None
        assert len(frames) == len(vector["messages"])
        assert b"".join(frames) == stream


@for_each_vector("valid")
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


@for_each_vector("invalid")
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


@for_each_vector("unencodable")
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


# --- new files ------------------------------------------------------------------------------------


def new_file(name: str) -> dict[str, Any]:
    """Return a file with one vector of each kind, to be replaced by those of the specification."""
    specification = formats.describe(name).specification
    example = {"about": "what the vector shows", "source": specification}
    return {
        "format": name,
        "specification": specification,
        "valid": [example | {"stream": "00", "messages": ["00"]}],
        "invalid": [
            example | {"stream": "00", "messages": [], "error": "invalid", "stream_offset": 0}
        ],
        "unencodable": [example | {"message": "00", "error": "invalid"}],
    }


def with_those_that_follow(file: dict[str, Any]) -> dict[str, Any]:
    """Return a file with the vectors that follow from those in it, unless it has them.

    They are joined and cut from the streams of the file, so no codec takes part in them.
    """
    whole = [v for v in file["valid"] if isinstance(v["stream"], str) and not v.get("decode_only")]
    whole = [v for v in whole if not v["about"].startswith("all of these")]
    first, last = whole[0], max(whole, key=lambda vector: len(vector["stream"]))
    valid, invalid = list(file["valid"]), list(file["invalid"])
    joined = {
        "about": "all of these, one after the other",
        "source": first["source"],
        "stream": "".join(v["stream"] for v in whole),
        "messages": [message for v in whole for message in v["messages"]],
    }
    size = len(last["stream"]) // 2
    early = {
        "about": "the stream ends one byte early",
        "source": last["source"],
        "stream": first["stream"] + last["stream"][:-2],
        "messages": first["messages"] + last["messages"][:-1],
        "error": "incomplete",
        "stream_offset": len(first["stream"]) // 2,
        "received": size - 1,
        "needed": size,
    }
    added = [joined] if len(whole) > 1 else []
    valid += [v for v in added if v["stream"] not in [other["stream"] for other in valid]]
    known = [vector["stream"] for vector in invalid]
    later = [early] if len(last["messages"]) == 1 else []
    for vector in file["invalid"]:
        if vector["stream_offset"] == 0 and isinstance(vector["stream"], str):
            later.append(
                vector
                | {
                    "about": f"{vector['about']}, after a good frame",
                    "stream": first["stream"] + vector["stream"],
                    "messages": first["messages"] + vector["messages"],
                    "stream_offset": len(first["stream"]) // 2,
                }
            )
    invalid += [vector for vector in later if vector["stream"] not in known]
    return file | {"valid": valid, "invalid": invalid}


def as_text(file: dict[str, Any]) -> str:
    """Return the text of a file: one vector a line."""
    lines = [f'  "{key}": {json.dumps(file[key])},' for key in ("format", "specification")]
    for part in ("valid", "invalid", "unencodable"):
        vectors = ",\n".join(f"    {json.dumps(vector)}" for vector in file.get(part, ()))
        lines.append(f'  "{part}": [\n{vectors}\n  ],' if vectors else f'  "{part}": [],')
    return "{\n" + "\n".join(lines).removesuffix(",") + "\n}\n"


def test_vectors_that_follow_are_joined_and_cut_from_those_of_a_file() -> None:
    file = new_file("kafka")
    file["valid"] = [
        {"about": "one", "source": "s", "stream": "0000000161", "messages": ["61"]},
        {"about": "two", "source": "s", "stream": "000000026262", "messages": ["6262"]},
    ]
    file["invalid"][0] |= {"about": "negative", "stream": "ffffffff"}
    longer = with_those_that_follow(file)
    assert [(v["stream"], v["messages"]) for v in longer["valid"][2:]] == [
        ("0000000161000000026262", ["61", "6262"])
    ]
    early, negative = longer["invalid"][1:]
    assert (early["stream"], early["messages"]) == ("00000001610000000262", ["61"])
    assert (early["stream_offset"], early["received"], early["needed"]) == (5, 5, 6)
    assert (negative["stream"], negative["stream_offset"]) == ("0000000161ffffffff", 5)
    assert with_those_that_follow(longer) == longer
    assert json.loads(as_text(longer)) == longer


if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in formats]:
        sys.exit(f"{__doc__}\nNAME must be a format of the catalogue: framecodec formats")
    (name,) = sys.argv[1:]
    written = FOLDER / f"{name}.json"
    written.write_text(
        as_text(with_those_that_follow(FILES[name]) if name in FILES else new_file(name)), "ascii"
    )
    done = "has the vectors that follow" if name in FILES else "put vectors of the document there"
    print(f"{written}: {done}")
