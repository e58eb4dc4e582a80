"""Kept headers and start offsets: what a connection needs to give bytes back exactly."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError, InvalidFrameError
from framecodec._kept_headers import frame_as_travelled, frames_as_travelled
from framecodec._layout import layout_of
from tests.helpers.chunking import by_buffer, cuts
from tests.helpers.sample_codecs import CODECS, sample_messages

# Frames that the codec reads and does not write.
VARIANTS: dict[str, tuple[Codec, bytes]] = {
    "hexadecimal digits": (
        Codec.digits(4, base=16, length_offset=2, trailer=b"!"),
        b"xy000A0123456789!zz000a0123456789!",
    ),
    "hexadecimal text": (Codec.text(base=16), b"A:0123456789a:01234567890:B:0123456789x"),
    "a special among hexadecimal digits": (
        Codec.digits(2, base=16, specials={10: b"0"}, trailer=b";"),
        b"0A0a010;0A",
    ),
    "header blocks": (
        Codec.headers(trailer=b"."),
        b"CONTENT-LENGTH:  2 \r\n\r\nab.A: b\r\nContent-Length: 0\r\nC:\r\n\r\n.",
    ),
    "a custom lead": (
        Codec.custom(
            lambda view: (2, view[1] & 15, bytes(view[:1])) if len(view) > 1 else None,
            lambda message: (bytes([message[0], len(message) - 1]), 1),
            magic=b"M",
            trailer=b"T",
        ),
        b"Mx\x23abcTMy\x13defTMz\xf0T",
    ),
}


def frames_and_messages(
    engine: ModuleType, codec: Codec, pieces: list[bytes], hand_over: Any
) -> tuple[list[bytes], list[Any]]:
    splitter = engine.Splitter(codec, keep_headers=True)
    frames: list[bytes] = []
    messages: list[Any] = []
    for piece in pieces:
        delivered = hand_over(splitter, piece)
        headers = splitter.headers or [None] * len(delivered)
        assert len(headers) == len(delivered)
        assert (splitter.headers is None) == layout_of(codec).canonical
        frames += map(frame_as_travelled, [codec] * len(headers), delivered, headers)
        messages += delivered
    assert splitter.pending == 0
    return frames, messages


@pytest.mark.parametrize("name", VARIANTS)
def test_frame_as_travelled_gives_the_bytes_that_arrived(engine: ModuleType, name: str) -> None:
    codec, stream = VARIANTS[name]
    expected = engine.Splitter(codec, raw=True).feed(stream)
    assert b"".join(expected) == stream
    assert stream != codec.encode_many(codec.split(stream)[0])
    for pieces in cuts(stream):
        frames, messages = frames_and_messages(
            engine, codec, pieces, lambda splitter, piece: splitter.feed(piece)
        )
        assert frames == expected
        assert messages == codec.split(stream)[0]


@pytest.mark.parametrize("name", CODECS)
def test_frame_as_travelled_gives_every_frame_of_every_shape(engine: ModuleType, name: str) -> None:
    codec = CODECS[name]
    messages = sample_messages(codec)
    frames = [codec.encode(message) for message in messages]
    for pieces in ([b"".join(frames)], frames):
        found = frames_and_messages(
            engine, codec, pieces, lambda splitter, piece: splitter.feed(piece)
        )
        assert found == (frames, messages)


def test_splitter_keeps_the_header_of_a_message_read_into_its_memory(engine: ModuleType) -> None:
    codec = Codec.digits(8, base=16)
    splitter = engine.Splitter(codec, keep_headers=True)
    message = bytes(0xABCDE)
    frame = b"000ABcdE" + message
    splitter.feed(frame[:100])
    view, pos = memoryview(frame), 100
    delivered: list[bytes] = []
    while pos < len(frame):
        memory = splitter.get_room()
        size = min(len(memory), len(frame) - pos)
        memory[:size] = view[pos : pos + size]
        delivered = splitter.buffer_updated(size)
        pos += size
    assert delivered == [message]
    assert splitter.headers == [b"000ABcdE"]


def test_splitter_has_no_headers_of_calls_before(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.digits(2, base=16), keep_headers=True)
    assert splitter.headers == []
    assert splitter.feed(b"01a0Fb") == [b"a"]
    first = splitter.headers
    assert first == [b"01"]
    assert splitter.feed(b"c") == []
    assert splitter.headers == []
    assert by_buffer(splitter, bytes(13)) == [b"bc" + bytes(13)]
    assert splitter.headers == [b"0F"]
    assert first == [b"01"]
    assert splitter.feed(b"00xx") == [b""]  # and an error, for the next call
    assert splitter.headers == [b"00"]


@pytest.mark.parametrize("ways", [{}, {"keep_headers": False}, {"keep_headers": True, "raw": True}])
def test_splitter_keeps_headers_only_where_they_are_needed(
    engine: ModuleType, ways: dict[str, bool]
) -> None:
    splitter = engine.Splitter(Codec.digits(2, base=16), **ways)
    splitter.feed(b"01a")
    assert splitter.headers is None


def test_frame_as_travelled_takes_a_layout(engine_in_use: ModuleType) -> None:
    codec = Codec.text(base=16)
    assert frame_as_travelled(codec.layout, b"0123456789", b"A:") == b"A:0123456789"
    assert frame_as_travelled(codec.layout, b"0123456789", None) == b"a:0123456789"


def test_frame_as_travelled_names_a_parser_that_changes_its_answer() -> None:
    answers = [(1, 1), (1, 9)]
    codec = Codec.custom(lambda view: answers.pop(0), lambda message: b"x")
    assert codec.splitter().feed(b"xy") == [b"y"]
    with pytest.raises(InvalidFrameError, match="the same bytes"):
        frame_as_travelled(codec, b"y", b"x")


# --- a start offset -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_stream_offset_moves_all_offsets_and_nothing_else(engine: ModuleType, name: str) -> None:
    codec = CODECS[name]
    stream = b"".join(map(codec.encode, sample_messages(codec)[:3])) + b"\xff\xff-\x01\x02\x03"
    for pieces in ([stream], [stream[:5], stream[5:]]):
        outcomes = []
        for offset in (0, 1000):
            splitter = engine.Splitter(codec, stream_offset=offset)
            assert splitter.stream_offset == offset
            messages, error = [], None
            try:
                for piece in pieces:
                    messages += splitter.feed(piece)
                splitter.feed_eof()
            except FrameError as raised:
                error = raised
            text = ""
            if name not in ("fixed", "fixed, constant"):  # whose frames may be any bytes
                assert error is not None
                assert error.stream_offset == splitter.stream_offset
                text = str(error).replace(f"stream offset {error.stream_offset}", "stream offset N")
                assert "stream offset N" in text
            outcomes.append((messages, type(error), text, splitter.stream_offset - offset))
        assert outcomes[0] == outcomes[1]


def test_stream_offset_is_taken_by_codec_splitter() -> None:
    assert Codec.uint(4).splitter(stream_offset=7).stream_offset == 7


@pytest.mark.parametrize("offset", [-1, 2**62 + 1, 2**70])
def test_splitter_refuses_a_stream_offset_out_of_range(engine: ModuleType, offset: int) -> None:
    with pytest.raises(ValueError, match=f"stream_offset must be from 0 .* not {offset}"):
        engine.Splitter(Codec.uint(4), stream_offset=offset)
    with pytest.raises(TypeError):
        engine.Splitter(Codec.uint(4), stream_offset="0")


def test_frame_as_travelled_gives_a_kept_header_block_of_a_choice(engine: ModuleType) -> None:
    codec = Codec.choice(
        {
            ord("C"): Codec.headers("C", keep=True, align=8),
            1: Codec.digits(2, base=16, length_offset=1),
        }
    )
    stream = b"C:  2 \r\n\r\nab" + bytes(4) + b"\1" + b"0Aabcdefghij"
    splitter = engine.Splitter(codec, keep_headers=True)
    messages = splitter.feed(stream)
    frames = map(frame_as_travelled, [codec] * 2, messages, splitter.headers)
    assert b"".join(frames) == stream


def test_frame_as_travelled_refuses_a_header_that_no_alternative_reads() -> None:
    codec = Codec.choice({1: Codec.digits(2, base=16, length_offset=1)})
    with pytest.raises(InvalidFrameError, match="parse"):
        frame_as_travelled(codec, b"\1abc", b"\x0203")


def test_frames_as_travelled_raises_if_parse_finds_no_header_any_more() -> None:
    codec = Codec.custom(lambda view: None, lambda message: bytes([len(message)]))
    with pytest.raises(InvalidFrameError, match="parse"):
        frames_as_travelled(codec, [b"ab"], [b"\2"], b"")


def test_frame_as_travelled_gives_the_mark_of_a_line_that_arrives_byte_by_byte(
    engine: ModuleType,
) -> None:
    codec = Codec.delimiter(b"\n", b"\r\n")
    splitter = engine.Splitter(codec, keep_headers=True)
    frames: list[bytes] = []
    for byte in b"ab\r\nc\n\r\n":
        messages = splitter.feed(bytes([byte]))
        frames += map(frame_as_travelled, [codec] * len(messages), messages, splitter.headers)
    assert frames == [b"ab\r\n", b"c\n", b"\r\n"]


SIZED = Codec.custom(lambda view: (1, view[0]) if len(view) else None, lambda message: b"?")


@pytest.mark.parametrize(
    ("codec", "message", "header"),
    [
        (Codec.choice({1: Codec.uint(2, length_offset=1)}), b"\1abc", b"\7\0\3"),
        (SIZED, b"a", b"\5"),
    ],
    ids=["of no alternative", "of another size"],
)
def test_a_header_that_is_not_that_of_the_message_is_refused(
    codec: Codec[Any], message: bytes, header: bytes
) -> None:
    with pytest.raises(InvalidFrameError, match="two results for the same bytes"):
        frame_as_travelled(codec, message, header)
    with pytest.raises(InvalidFrameError, match="two results for the same bytes"):
        frames_as_travelled(codec, [message], [header], b"")


def test_a_header_that_parse_reads_no_more_as_such_is_refused() -> None:
    with pytest.raises(InvalidFrameError, match="two results for the same bytes"):
        frames_as_travelled(SIZED, [b"a"], [b"\2\1"], b"")
