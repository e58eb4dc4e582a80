"""The two engines side by side: everything that can be seen of one is the same of the other.

What each does is tested elsewhere, on both; here they are compared, on more input than a person
would write: results, exception types, texts, every public attribute, and the faces themselves.
"""

from __future__ import annotations

import inspect
import pickle
from types import ModuleType
from typing import Any

import numpy
import pytest

from framecodec import Codec, FrameError
from tests.helpers.chunking import by_buffer, byte_by_byte, hand_overs, random_cuts
from tests.helpers.observe import observe_encoder, observe_splitter, outcome_of
from tests.helpers.sample_codecs import CODECS, Mark, sample_messages, streams

pytestmark = pytest.mark.c_extension

Engines = tuple[ModuleType, ModuleType]


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize("name", ["Splitter", "Encoder", "Spans"])
def test_their_classes_have_the_same_names(both_engines: Engines, name: str) -> None:
    python, compiled = (getattr(engine, name) for engine in both_engines)
    internal = {"add"} if name == "Spans" else set()  # the Python engine's own way to grow one
    assert public(python) - internal == public(compiled) - internal
    assert python.__name__ == compiled.__name__ == name


@pytest.mark.parametrize("name", ["Splitter", "Encoder"])
def test_their_methods_have_the_same_signatures(both_engines: Engines, name: str) -> None:
    python, compiled = (getattr(engine, name) for engine in both_engines)
    for member in public(python):
        one, other = (getattr(cls, member) for cls in (python, compiled))
        if callable(one):
            shapes = [
                [
                    (p.name, p.kind, p.default)
                    for p in inspect.signature(method).parameters.values()
                ][1:]
                for method in (one, other)
            ]
            assert shapes[0] == shapes[1], member


def test_their_modules_offer_the_same(both_engines: Engines) -> None:
    python, compiled = both_engines
    assert python.__all__ == compiled.__all__


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_they_tell_the_same_story_of_every_stream(both_engines: Engines, name: str) -> None:
    codec = CODECS[name]
    for number, stream in enumerate(streams(codec, size=60, count=15, seed=6)):
        ways = {
            "raw": number % 2 == 1,
            "on_oversize": "skip" if number % 3 == 1 else "raise",
            "stream_offset": 1000 * (number % 2),
            "keep_headers": number % 4 < 2,
        }
        hand_over = list(hand_overs.values())[number % len(hand_overs)]
        for pieces in ([stream], byte_by_byte(stream), *random_cuts(stream, 2, number)):
            python, compiled = (
                observe_splitter(engine, codec, pieces, ways, hand_over) for engine in both_engines
            )
            assert python == compiled


@pytest.mark.parametrize("name", CODECS)
def test_they_encode_the_same_and_refuse_in_the_same_words(
    both_engines: Engines, name: str
) -> None:
    codec = CODECS[name]
    messages = [
        *sample_messages(codec),
        *(
            bytes([0x40]) * size
            for size in (0, 1, 2, 5, 6, 9, 10, 99, 127, 128, 200, 201, 256, 301)
        ),
        *(bytearray(size) for size in (0, 3, 300)),
        *(None, "text", 5, [], {}, Mark.PING, Mark.FLUSH, memoryview(b"abcd")[::2], object),
        numpy.arange(6, dtype="u2"),
        numpy.arange(6, dtype="u1").reshape(2, 3).T,
    ]
    python, compiled = (observe_encoder(engine.Encoder(codec), messages) for engine in both_engines)
    assert python == compiled


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", CODECS)
def test_they_scan_the_same(both_engines: Engines, name: str, raw: bool) -> None:
    codec = CODECS[name]
    for stream in streams(codec, size=80, count=20, seed=7):
        python, compiled = (
            outcome_of(seen_of_spans, engine, codec, stream, raw) for engine in both_engines
        )
        assert python == compiled


def seen_of_spans(engine: ModuleType, codec: Codec, stream: bytes, raw: bool) -> Any:
    spans = engine.scan(codec, stream, raw=raw)
    array = numpy.asarray(spans)
    return (
        [bytes(span) for span in spans],
        len(spans),
        spans.consumed,
        repr(spans),
        (array.shape, array.dtype, array.tolist(), array.flags.writeable),
        [bytes(span) for span in spans[::-1]],
        *(
            outcome_of(lambda i: bytes(spans[i]), i)
            for i in (0, -1, 1000, -1000, 10**30, "0", 0.5, None)
        ),
    )


@pytest.mark.parametrize("name", ["Splitter", "Encoder", "Spans"])
def test_they_document_the_same(both_engines: Engines, name: str) -> None:
    python, compiled = (getattr(engine, name) for engine in both_engines)
    assert inspect.getdoc(compiled) == inspect.getdoc(python)
    shown = [member for member in vars(python) if not member.startswith("_")]
    for member in {*shown} - {"add"}:  # which is scan()'s
        assert inspect.getdoc(getattr(compiled, member)) == inspect.getdoc(getattr(python, member))
    if name == "Spans":  # scan() makes it
        return
    parameters = [inspect.signature(of).parameters for of in (python, compiled)]
    assert [*parameters[0]] == [*parameters[1]]
    for one, other in zip(*(of.values() for of in parameters), strict=True):
        assert (one.kind, one.default) == (other.kind, other.default)


BAD_CALLS: dict[str, Any] = {
    "a splitter of no codec": lambda engine: engine.Splitter(None),
    "an encoder of no codec": lambda engine: engine.Encoder(4),
    "a third choice": lambda engine: engine.Splitter(Codec.uint(1), on_oversize="drop"),
    "an unhashable choice": lambda engine: engine.Splitter(Codec.uint(1), on_oversize=[]),
    "no buffer": lambda engine: engine.Splitter(Codec.uint(1)).buffer_updated(0),
    "a scan of no bytes": lambda engine: engine.scan(Codec.uint(1), "text"),
    "a scan of no codec": lambda engine: engine.scan(None, b""),
    "a scan with a lead": lambda engine: engine.scan(Codec.uint(1, length_offset=2), b""),
    "a scan of a special": lambda engine: engine.scan(
        Codec.uint(1, specials={0: "nothing"}), b"\1a\0"
    ),
    "feeding a text": lambda engine: engine.Splitter(Codec.uint(1)).feed("text"),
    "feeding a view with gaps": lambda e: e.Splitter(Codec.uint(1)).feed(memoryview(b"abcd")[::2]),
    "a fraction as a size": lambda engine: engine.Splitter(Codec.uint(1)).get_buffer(1.5),
    "a text as a size": lambda engine: engine.Splitter(Codec.uint(1)).get_buffer("1"),
    "a text as a count": lambda engine: engine.Splitter(Codec.uint(1)).buffer_updated("1"),
    "many of nothing": lambda engine: engine.Encoder(Codec.uint(1)).encode_many(None),
    "a number among many": lambda engine: engine.Encoder(Codec.uint(1)).encode_many(b"ab"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_they_refuse_a_bad_call_in_the_same_words(both_engines: Engines, name: str) -> None:
    python, compiled = (outcome_of(BAD_CALLS[name], engine) for engine in both_engines)
    assert isinstance(python, tuple)
    assert issubclass(python[0], Exception)
    assert python == compiled


@pytest.mark.parametrize(
    "attribute",
    ["error", "pending", "bytes_needed", "stream_offset", "skipped", "pending_header", "new"],
)
def test_what_can_be_asked_cannot_be_set(both_engines: Engines, attribute: str) -> None:
    for engine in both_engines:
        with pytest.raises(AttributeError):
            setattr(engine.Splitter(Codec.uint(1)), attribute, 1)


def test_an_error_of_one_engine_pickles_like_that_of_the_other(both_engines: Engines) -> None:
    found = []
    for engine in both_engines:
        with pytest.raises(FrameError) as caught:
            engine.Splitter(Codec.uint(4, magic=b"M")).feed(b"M\xff\xff\xff\xff")
        error = pickle.loads(pickle.dumps(caught.value))
        found.append((type(error), str(error), vars(error)))
    assert found[0] == found[1]


def test_their_buffers_have_the_same_size(both_engines: Engines) -> None:
    for hints in ([-1], [1], [5000, 100], [100, 5000], [10**9, -1]):
        sizes = []
        for engine in both_engines:
            splitter = engine.Splitter(Codec.uint(1))
            sizes.append([len(splitter.get_buffer(hint)) for hint in hints])
        assert sizes[0] == sizes[1]


def test_a_large_stream_by_buffer_comes_to_the_same(both_engines: Engines) -> None:
    codec = Codec.uint(4, trailer=b"T", max_message_size=150_000)
    messages = [bytes([n]) * size for n, size in enumerate((0, 1, 70_000, 150_000, 5, 65_536))]
    stream = codec.encode_many(messages) + b"\xff\xff\xff\xff"
    for size in (700, 40_000, 65_536):
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        python, compiled = (
            observe_splitter(engine, codec, pieces, {}, by_buffer) for engine in both_engines
        )
        assert python == compiled
