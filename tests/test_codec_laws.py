"""Laws that hold for every codec: tried on codecs of all kinds that are made at random.

A law says what is true of any codec and any bytes, so it names no protocol and no number. Both
engines obey each of them, and come to the same in everything that can be seen.
"""

from __future__ import annotations

import copy
import pickle
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from framecodec import Check, Codec
from framecodec.notation import parse_codec
from tests.helpers.chunking import hand_overs
from tests.helpers.engines import codecs_use
from tests.helpers.observe import observe_encoder, observe_splitter
from tests.helpers.reference_parser import check, expect
from tests.helpers.sample_codecs import (
    CODECS,
    Mark,
    build_tagged,
    crc_of_crc,
    parse_tagged,
    suited,
)
from tests.helpers.strategies import codecs, cut_streams, descriptions, make, some_messages

lawful = settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


# --- round trip -----------------------------------------------------------------------------------


@lawful
@given(st.data())
def test_encode_then_decode_returns_the_message(engine: ModuleType, data: st.DataObject) -> None:
    codec = data.draw(codecs())
    encoder = engine.Encoder(codec)
    for message in data.draw(some_messages(codec)):
        frame = encoder.encode(message)
        assert same(engine.Splitter(codec).feed(frame), [message])
        assert engine.Splitter(codec, raw=True).feed(frame) == [frame]
        assert same([codec.decode(frame)], [message])


@lawful
@given(st.data())
def test_encode_encode_many_and_frame_parts_agree(engine: ModuleType, data: st.DataObject) -> None:
    codec = data.draw(codecs())
    encoder = engine.Encoder(codec)
    messages = data.draw(some_messages(codec))
    frames = [encoder.encode(message) for message in messages]
    assert encoder.encode_many(messages) == b"".join(frames)
    assert encoder.encode_many(iter(messages)) == b"".join(frames)
    for message, frame in zip(messages, frames, strict=True):
        parts = encoder.frame_parts(message)
        assert b"".join(parts) == frame
        assert all(len(part) for part in parts)
        if isinstance(message, bytes):
            for alike in (bytearray(message), memoryview(message)):
                assert encoder.encode(alike) == frame


@lawful
@given(st.data())
def test_encode_writes_the_parts_that_the_codec_names(
    engine: ModuleType, data: st.DataObject
) -> None:
    codec = data.draw(codecs())
    has = codec.parameters
    for message in data.draw(some_messages(codec)):
        frame = engine.Encoder(codec).encode(message)
        assert frame.startswith(has["magic"])
        if isinstance(message, bytes):
            unpadded = codec.replace(align=1).encode(message)
            assert unpadded.endswith(has["trailer"])
            assert frame == unpadded.ljust(len(frame), b"\0")
            assert not len(frame) % has["align"]
        # The reference, which knows no layout, reads the same message out of it.
        outcome = expect(codec, frame)
        assert outcome.error is None
        assert same(outcome.messages, [message])


# --- chunking -------------------------------------------------------------------------------------


@lawful
@given(st.data())
def test_feed_gives_what_the_reference_gives_for_any_chunking(
    engine: ModuleType, data: st.DataObject
) -> None:
    codec = data.draw(codecs())
    pieces = data.draw(cut_streams(codec))
    stream = b"".join(pieces)
    check(
        engine,
        codec,
        stream,
        [pieces, [stream]],
        raw=data.draw(st.booleans()),
        skip=data.draw(st.booleans()),
        hand_over=hand_overs[data.draw(st.sampled_from(sorted(hand_overs)))],
    )


@lawful
@given(st.data())
def test_feed_of_noise_gives_what_the_reference_gives(
    engine: ModuleType, data: st.DataObject
) -> None:
    codec = CODECS[data.draw(st.sampled_from(sorted(CODECS)))]
    noise = data.draw(st.binary(max_size=60))
    pos = data.draw(st.integers(0, len(noise)))
    check(engine, codec, noise, [[noise[:pos], noise[pos:]], [noise]])


@lawful
@given(st.data())
def test_split_and_scan_find_what_feed_finds(engine: ModuleType, data: st.DataObject) -> None:
    codec = data.draw(codecs())
    stream = b"".join(data.draw(cut_streams(codec)))
    with codecs_use(engine):
        outcome, raw = expect(codec, stream), expect(codec, stream, raw=True)
        broken = outcome.error is not None and not issubclass(outcome.error, EOFError)
        codec = codec.replace()  # made anew, with the engine under test
        if broken and not outcome.messages:
            for call in (codec.split, lambda stream: codec.scan(stream, raw=True)):
                with pytest.raises(outcome.error) as caught:  # type: ignore[arg-type]
                    call(stream)
                assert caught.value.stream_offset == outcome.stream_offset
            return
        messages, consumed = codec.split(stream)
        del outcome.messages[len(raw.messages) :]  # of a frame whose padding is not whole
        assert (consumed, same(messages, outcome.messages)) == (outcome.stream_offset, True)
        spans = codec.scan(stream, raw=True)
        assert [bytes(span) for span in spans] == raw.messages
        assert spans.consumed == raw.stream_offset
        is_escaped = codec.kind in ("cobs", "joined") or codec.layout.escape
        if codec.kind == "custom" or codec.layout.message_lead or is_escaped:
            return
        specials = (codec.parameters["specials"] or {}).values()
        if any(message is special for message in messages for special in specials):
            with pytest.raises(ValueError, match="is the special"):
                codec.scan(stream)
        else:
            assert [bytes(span) for span in codec.scan(stream)] == messages


# --- a codec is a value ---------------------------------------------------------------------------


@lawful
@given(descriptions())
@example(("uint", {"width": 8, "length_adjustment": 2**62, "max_message_size": None}))
@example(
    ("delimiter", {"end": b";", "more_ends": (), "skip_empty": True, "max_message_size": None})
)
@example(("cobs", {"max_message_size": 0, "check": Check("crc32", 4)}))
def test_codec_is_refused_when_it_is_made_or_never(
    description: tuple[str, dict[str, Any]],
) -> None:
    codec = make(description)
    if codec is None:
        return
    layout = codec.layout
    assert 0 <= layout.rest_min <= layout.rest_max
    low, span = layout.quick_range
    assert span >= 0  # there is a message that it can hold
    if codec.kind != "custom" and codec.parameters["length_mask"] is None:
        size = layout.message_lead + low * layout.unit + layout.adjustment
        if layout.marks:  # a content with its check, and empty ones may be ignored
            size = max(low - layout.inner_check_size, layout.skip_empty)
            if size > layout.rest_max:  # only empty messages, which are ignored
                return
        if size < 10_000:
            message = suited(codec, bytes(size))
            assert codec.decode(codec.encode(message)) == message


@lawful
@given(codecs())
def test_codec_survives_repr_pickle_copy_and_replace(codec: Codec) -> None:
    names = {
        "Codec": Codec,
        "Mark": Mark,
        "parse_tagged": parse_tagged,
        "build_tagged": build_tagged,
        "Check": Check,
        "crc_of_crc": crc_of_crc,
    }
    alike = [
        eval(repr(codec), names),
        *(pickle.loads(pickle.dumps(codec, protocol)) for protocol in range(2, 6)),
        copy.copy(codec),
        copy.deepcopy(codec),
        codec.replace(),
        codec.replace(**codec.parameters),
        getattr(Codec, codec.kind)(**codec.parameters),
    ]
    for other in alike:
        assert other == codec
        assert hash(other) == hash(codec)
        assert repr(other) == repr(codec)
        assert other.parameters == codec.parameters


@lawful
@given(codecs(), codecs())
def test_codec_equality_is_that_of_its_parameters(one: Codec, other: Codec) -> None:
    same = one.kind == other.kind and one.parameters == other.parameters
    assert (one == other) is same
    assert (one != other) is not same
    if same:
        assert hash(one) == hash(other)


@lawful
@given(codecs())
def test_parse_codec_of_str_returns_the_codec(codec: Codec) -> None:
    text = str(codec)
    if text.startswith("Codec."):  # functions and most special objects have no notation
        assert text == repr(codec)
        check = codec.parameters["check"]
        own_function = check is not None and callable(check.function)
        escape = codec.parameters.get("escape")
        has_no_notation = codec.kind in ("custom", "joined")
        assert has_no_notation or codec.parameters["specials"] or own_function or escape
    else:
        assert parse_codec(text) == codec


# --- both engines ---------------------------------------------------------------------------------


@pytest.mark.c_extension
@lawful
@given(st.data())
def test_engines_agree_on_every_stream(
    both_engines: tuple[ModuleType, ModuleType], data: st.DataObject
) -> None:
    codec = data.draw(codecs())
    pieces = data.draw(cut_streams(codec))
    ways = {
        "raw": data.draw(st.booleans()),
        "on_oversize": data.draw(st.sampled_from(["raise", "skip"])),
    }
    hand_over = hand_overs[data.draw(st.sampled_from(sorted(hand_overs)))]
    python, compiled = (
        observe_splitter(engine, codec, pieces, ways, hand_over) for engine in both_engines
    )
    assert python == compiled


@pytest.mark.c_extension
@lawful
@given(st.data())
def test_engines_agree_on_every_message(
    both_engines: tuple[ModuleType, ModuleType], data: st.DataObject
) -> None:
    codec = data.draw(codecs())
    messages = data.draw(
        st.lists(
            st.one_of(
                st.binary(max_size=50),
                st.binary(max_size=5).map(bytearray),
                st.binary(max_size=5).map(lambda message: memoryview(message)[::2]),
                st.sampled_from([None, "text", 7, Mark.PING, [], True, 1.5, bytes(300)]),
            ),
            max_size=4,
        )
    )
    python, compiled = (observe_encoder(engine.Encoder(codec), messages) for engine in both_engines)
    assert python == compiled


def same(found: list[Any], wanted: list[Any]) -> bool:
    """Equal in type too: 0, False and 0.0 are different special objects."""
    return list(map(type, found)) == list(map(type, wanted)) and found == wanted
