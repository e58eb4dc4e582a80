"""Test `Codec.choice`: what it promises beyond the tests that all kinds of codec share."""

from __future__ import annotations

import contextlib
import pickle
import random
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Check,
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
    formats,
    parse_codec,
)
from framecodec._early_choice import MOST_NODES, early_choices
from framecodec._splitter_py import Splitter as PythonSplitter
from tests.helpers.chunking import byte_by_byte
from tests.helpers.sample_codecs import Mark

BY_FLAG = Codec.choice(
    {
        0: Codec.uint(4, magic=b"GIOP", length_offset=8),
        1: Codec.uint(4, "little", magic=b"GIOP", length_offset=8),
    },
    offset=6,
)
LONG_FLAG = Codec.choice(
    {0: Codec.uint(1, length_offset=1), 2: Codec.uint(8, length_offset=1)},
    mask=0x02,
    keep=False,
)
TAGGED = Codec.choice(
    {
        "data": (b"$", Codec.uint(2, length_offset=2)),
        "text": (None, Codec.text(b" ")),
    },
    tagged=True,
)


def split(engine: ModuleType, codec: Codec, data: bytes, **how: Any) -> list[Any]:
    splitter = engine.Splitter(codec, **how)
    return [message for byte in byte_by_byte(data) for message in splitter.feed(byte)]


def encoded(engine: ModuleType, codec: Codec, message: Any) -> bytes:
    """Return a message's frame, which all three ways of encoding must agree on."""
    encoder = engine.Encoder(codec)
    frame: bytes = encoder.encode(message)
    assert encoder.encode_many([message, message]) == 2 * frame
    assert b"".join(encoder.frame_parts(message)) == frame
    return frame


def test_choice_of_byte_order_by_a_flag(engine: ModuleType) -> None:
    big, little = b"\1\2\0\7hello", b"\1\2\1\7hello"
    assert encoded(engine, BY_FLAG, big) == b"GIOP\1\2\0\7\0\0\0\5hello"
    assert encoded(engine, BY_FLAG, little) == b"GIOP\1\2\1\7\5\0\0\0hello"
    stream = BY_FLAG.encode_many([big, little])
    assert split(engine, BY_FLAG, stream) == [big, little]
    assert b"".join(split(engine, BY_FLAG, stream, raw=True)) == stream


def test_choice_that_owns_its_bits_writes_the_first_form_that_fits(engine: ModuleType) -> None:
    assert encoded(engine, LONG_FLAG, b"\1abc") == b"\1\3abc"
    long = b"\1" + bytes(256)
    assert encoded(engine, LONG_FLAG, long) == b"\3" + (256).to_bytes(8, "big") + bytes(256)
    # A form that is longer than needed is read.
    assert split(engine, LONG_FLAG, b"\3" + (3).to_bytes(8, "big") + b"abc") == [b"\1abc"]
    assert split(engine, LONG_FLAG, b"\3\0\0\0\0\0\0\0\1x", raw=True) == [b"\3\0\0\0\0\0\0\0\1x"]
    with pytest.raises(InvalidFrameError, match="0x02 of byte 0 of the message belong"):
        engine.Encoder(LONG_FLAG).encode(b"\2abc")


def test_frame_parts_of_a_choice_copies_no_message(engine: ModuleType) -> None:
    message = b"\1" + bytes(1000)
    parts = engine.Encoder(LONG_FLAG).frame_parts(message)
    assert [memoryview(part).obj is message for part in parts] == [False, True]


def test_tagged_choice_has_pairs_in_both_directions(engine: ModuleType) -> None:
    pairs = [("data", b"$\7hello"), ("text", b"hi")]
    frames = [encoded(engine, TAGGED, pair) for pair in pairs]
    assert frames == [b"$\7\0\5hello", b"2 hi"]
    assert split(engine, TAGGED, b"".join(frames)) == pairs
    assert engine.Splitter(TAGGED).feed(b"".join(frames)) == pairs
    assert split(engine, TAGGED, b"".join(frames), raw=True) == frames
    for bad in (b"hi", ("data", b"", b""), 3):
        with pytest.raises(TypeError, match=r"\(name, message\)"):
            engine.Encoder(TAGGED).encode(bad)
    with pytest.raises(InvalidFrameError, match="'nothing'; the names are 'data', 'text'"):
        engine.Encoder(TAGGED).encode(("nothing", b""))
    with pytest.raises(InvalidFrameError, match="would choose"):
        engine.Encoder(TAGGED).encode(("data", b"x\7hello"))


def test_specials_of_an_alternative_pass_through_a_choice(engine: ModuleType) -> None:
    codec = Codec.choice(
        {0: Codec.uint(1, specials={0: None}), b"\1\2\3": Codec.uint(1, specials={1: Mark.PING})}
    )
    assert encoded(engine, codec, None) == b"\0"
    assert encoded(engine, codec, Mark.PING) == b"\1"
    assert encoded(engine, codec, b"ab") == b"\2ab"
    assert split(engine, codec, b"\0\1\2ab") == [None, Mark.PING, b"ab"]


def test_encode_raises_the_error_of_the_alternative_that_the_message_names(
    engine: ModuleType,
) -> None:
    codec = Codec.choice(
        {
            1: Codec.uint(1, length_offset=1, max_message_size=4),
            2: Codec.uint(1, length_offset=1, length_unit=2),
        }
    )
    encoder = engine.Encoder(codec)
    with pytest.raises(MessageTooLargeError, match="the limit is 4"):
        encoder.encode(b"\1abcde")
    with pytest.raises(InvalidFrameError, match="length_unit"):
        encoder.encode(b"\2abcde")
    with pytest.raises(InvalidFrameError, match="would choose no alternative"):
        encoder.encode(b"\3abcde")
    with pytest.raises(InvalidFrameError):
        encoder.encode(b"")


def test_encode_raises_the_error_of_the_header_block_that_the_message_names(
    engine: ModuleType,
) -> None:
    codec = Codec.choice(
        {
            1: Codec.uint(1, magic=b"\1", min_message_size=100),
            b"AB": Codec.headers(start_line=True, keep=True),
        }
    )
    with pytest.raises(InvalidFrameError, match="no empty line ends its header block"):
        engine.Encoder(codec).encode(b"A block without an end")


def test_the_smaller_limit_holds(engine: ModuleType) -> None:
    codec = Codec.choice(
        {
            1: Codec.uint(1, length_offset=1, max_message_size=4),
            2: Codec.uint(1, length_offset=1, max_message_size=100),
        },
        max_message_size=10,
    )
    assert codec.max_message_size == 10
    for frame, limit in ((b"\1\4", 4), (b"\2\12", 10)):
        with pytest.raises(MessageTooLargeError, match=f"the limit is {limit}"):
            engine.Splitter(codec).feed(frame)
    splitter = engine.Splitter(codec, on_oversize="skip")
    assert splitter.feed(b"\1\4abcd\2\12abcdefghij\1\1a") == [b"\1a"]
    assert splitter.skipped == 2


def test_a_byte_that_chooses_nothing_is_invalid(engine: ModuleType) -> None:
    splitter = engine.Splitter(BY_FLAG)
    assert splitter.feed(BY_FLAG.encode(b"\1\2\0\7")) == [b"\1\2\0\7"]
    with pytest.raises(InvalidFrameError, match="byte 0x05 at offset 6") as caught:
        split(engine, BY_FLAG, b"GIOP\1\2\5\7\0\0")
    assert "allowed are 0x00, 0x01" in str(caught.value)
    assert caught.value.header == b"GIOP\1\2\5"
    # What all frames begin with is checked before the byte is there.
    with pytest.raises(InvalidFrameError, match="magic b'GIOP'"):
        engine.Splitter(BY_FLAG).feed(b"GET")


def test_a_stream_that_ends_before_the_byte_is_incomplete(engine: ModuleType) -> None:
    splitter = engine.Splitter(BY_FLAG)
    splitter.feed(b"GIOP\1")
    with pytest.raises(IncompleteFrameError) as caught:
        splitter.feed_eof()
    assert (caught.value.where, caught.value.received, caught.value.needed) == ("header", 5, None)
    assert splitter.detach() == b"GIOP\1"


def test_choice_after_the_header_gives_the_bytes_back(engine: ModuleType) -> None:
    # The byte that chooses is in the rest: what was gathered to see it is read again.
    codec = Codec.choice(
        {
            ord("a"): Codec.uint(1, min_message_size=5),
            ord("b"): Codec.varint(min_message_size=5, trailer=b"."),
        },
        offset=4,
    )
    messages = [b"xyzab", b"xyzb" * 2, b"xyzacd"]
    stream = b"\5xyzab\10xyzbxyzb.\6xyzacd"
    assert split(engine, codec, stream) == messages
    for pos in range(len(stream)):
        splitter = engine.Splitter(codec)
        splitter.feed(stream[:pos])
        offset = splitter.stream_offset
        assert splitter.detach() == stream[offset:pos]


def test_a_byte_that_chooses_can_be_the_end_of_the_frame(engine: ModuleType) -> None:
    line = Codec.delimiter(b"\n", min_message_size=2)
    codec = Codec.choice({b"\n": line, None: Codec.uint(2, min_message_size=1)}, offset=2)
    stream, messages = b"ab\n\0\2hicd\n\0\1\n", [b"ab", b"hi", b"cd", b"\0\1"]
    assert split(engine, codec, stream) == messages
    for pos in range(len(stream)):
        splitter = engine.Splitter(codec)
        assert splitter.feed(stream[:pos]) + splitter.feed(stream[pos:]) == messages


@pytest.mark.parametrize(
    ("alternatives", "how", "text"),
    [
        ({}, {}, "alternatives is empty"),
        ({b"": Codec.uint(1)}, {}, "no values"),
        ({1: Codec.uint(2), b"\1\2": Codec.uint(1)}, {}, "overlap: 0x01"),
        ({256: Codec.uint(1)}, {}, "from 0 to 255"),
        ({3: Codec.uint(1)}, {"mask": 1}, "0x03 has bits outside the mask 0x01"),
        ({1: Codec.uint(1)}, {"mask": 0}, "mask"),
        ({1: Codec.uint(1)}, {"offset": -1}, "offset"),
        ({1: Codec.uint(1), 2: Codec.uint(4)}, {"offset": 1}, "beyond the smallest frame"),
        ({1: Codec.uint(2, magic=b"\2")}, {}, "never chosen"),
        ({1: Codec.uint(2, length_offset=1, constants={0: b"x"})}, {}, "never chosen"),
        ({b"a": Codec.uint(1, length_offset=1)}, {"keep": False}, "keep=False needs an int"),
        ({1: Codec.uint(1)}, {"keep": False}, "keep=False needs the byte at offset 0"),
        ({bytes(range(256)): Codec.uint(1), None: Codec.uint(1)}, {}, "never chosen"),
        ({1: Codec.uint(1)}, {"trailer": b"x"}, "trailer has no meaning"),
        ({1: Codec.uint(1, min_message_size=9)}, {"max_message_size": 5}, "max_message_size=5"),
        ({"a": (1, Codec.uint(1)), "b": (1, Codec.uint(1))}, {"tagged": True}, "overlap"),
        (
            {"a": (None, Codec.uint(1)), "b": (None, Codec.uint(2))},
            {"tagged": True},
            "two of them are for all other values",
        ),
        (
            {1: Codec.uint(1, length_unit=4), 2: Codec.uint(2, length_adjustment=3)},
            {"max_message_size": 2},
            "max_message_size=2 leaves an alternative no message; raise it",
        ),
        ({1: Codec.delimiter(b"\n")}, {"keep": False}, "excludes an alternative of delimiter"),
        ({1: Codec.uint(1, magic=b"\1")}, {"keep": False}, "excludes a constant at offset 0"),
        (
            {1: Codec.uint(1, length_offset=1, check=Check("crc32", 4))},
            {"keep": False},
            "excludes an alternative with a check",
        ),
        (
            {1: Codec.uint(1, constants={1: b"\1"})},
            {"keep": False, "offset": 1},
            "excludes a constant at offset 1",
        ),
        ({1: Codec.uint(1, trailer=b"\1")}, {"keep": False, "offset": 1}, "at a fixed place"),
        (
            {1: Codec.choice({1: Codec.uint(1, length_offset=1)}, keep=False)},
            {"keep": False},
            "two choices own the same bits of the byte at offset 0",
        ),
        (
            dict.fromkeys(
                [bytes([n]) for n in range(17)],
                Codec.choice(
                    dict.fromkeys([bytes([n]) for n in range(255)], Codec.uint(1, length_offset=2)),
                    offset=1,
                ),
            ),
            {},
            "at most|4096 alternatives, not 4335",
        ),
    ],
)
def test_contradictory_alternatives_are_refused(
    alternatives: Any, how: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Codec.choice(alternatives, **how)


@pytest.mark.parametrize(
    ("alternatives", "how"),
    [
        ([], {}),
        ({1: "u8"}, {}),
        ({"a": Codec.uint(1)}, {}),
        ({True: Codec.uint(1)}, {}),
        ({"a": Codec.uint(1)}, {"tagged": True}),
        ({1: Codec.uint(1)}, {"keep": 1}),
        ({1: Codec.uint(1)}, {"offset": "0"}),
    ],
)
def test_wrong_types_are_refused(alternatives: Any, how: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Codec.choice(alternatives, **how)


def test_nested_choices_that_own_bits_are_at_most_four() -> None:
    codec = Codec.uint(1, length_offset=1)
    for bit in range(4):
        codec = Codec.choice({0: codec}, mask=1 << bit, keep=False)
    with pytest.raises(ValueError, match="at most 4 nested choices can have keep=False"):
        Codec.choice({0: codec}, mask=0x10, keep=False)


def test_nested_choices_each_own_the_bits_of_another_byte(engine: ModuleType) -> None:
    short, long = Codec.fixed(4), Codec.uint(2, length_offset=2)
    inner = Codec.choice({0: short, 0x80: long}, offset=1, mask=0x80, keep=False)
    codec = Codec.choice({0: inner, 0x80: long}, mask=0x80, keep=False)
    frames = {
        b"\1\2\3\4": b"\1\2\3\4",
        b"\1\2\3": b"\1\x82\0\1\3",
        b"\1\2abc": b"\1\x82\0\3abc",
    }
    assert [encoded(engine, codec, message) for message in frames] == [*frames.values()]
    assert engine.Encoder(codec).encode_many([*frames]) == b"".join(frames.values())
    assert split(engine, codec, b"".join(frames.values())) == [*frames]
    with pytest.raises(InvalidFrameError):
        engine.Encoder(codec).encode(b"\1")


def test_an_alternative_that_the_choice_around_it_excludes_is_never_written(
    engine: ModuleType,
) -> None:
    inner = Codec.choice({0: Codec.fixed(3), 1: Codec.uint(1, length_offset=1)})
    codec = Codec.choice({1: inner, 2: Codec.uint(1, length_offset=1)})
    messages = [b"\1ab", b"\2ab", b"\1"]
    stream = engine.Encoder(codec).encode_many(messages)
    assert stream == b"\1\2ab\2\2ab\1\0"
    assert b"".join(encoded(engine, codec, message) for message in messages) == stream
    assert split(engine, codec, stream) == messages
    with pytest.raises(InvalidFrameError, match="allowed are 0x01, 0x02"):
        engine.Encoder(codec).encode(b"\0ab")


def test_values_that_choose_can_be_in_any_buffer() -> None:
    one, other = Codec.uint(1, length_offset=1), Codec.uint(2, length_offset=1)
    tagged = {"a": (bytearray(b"\1\3"), one), "b": (memoryview(b"\2"), other)}
    codec = Codec.choice(tagged, tagged=True)
    assert codec == Codec.choice({"a": (b"\1\3", one), "b": (b"\2", other)}, tagged=True)
    assert codec.decode(b"\3\1x") == ("a", b"\3x")


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_encode_of_a_choice_takes_any_buffer(engine_in_use: ModuleType, make: Any) -> None:
    one, other = Codec.uint(1, length_offset=1), Codec.uint(2, length_offset=1)
    codec = Codec.choice({1: one, 2: other})
    assert codec.encode(make(b"\2abc")) == b"\2\0\3abc"
    with pytest.raises(InvalidFrameError, match="would choose no alternative"):
        codec.encode(make(b"\3abc"))
    with pytest.raises(TypeError, match="bytes-like object"):
        codec.encode(3)  # type: ignore[arg-type]


def test_choice_is_a_value() -> None:
    for codec in (BY_FLAG, LONG_FLAG, TAGGED):
        copies = (eval(repr(codec)), pickle.loads(pickle.dumps(codec)), codec.replace())
        assert all(copy == codec and hash(copy) == hash(codec) for copy in copies)
        assert str(codec) == repr(codec)
    # The order matters: encode() takes the first alternative that fits.
    one, other = Codec.uint(1, length_offset=1), Codec.uint(2, length_offset=1)
    assert Codec.choice({1: one, 2: other}) != Codec.choice({2: other, 1: one})
    assert parse_codec("zmtp,max=1KiB").max_message_size == 1024


def test_scan_of_a_choice_needs_raw_where_messages_are_not_in_one_piece(
    engine: ModuleType,
) -> None:
    for codec in (BY_FLAG, LONG_FLAG, TAGGED):
        with pytest.raises(ValueError, match="raw=True"):
            engine.scan(codec, b"")
    plain = Codec.choice({bytes(range(128)): Codec.uint(1), None: Codec.uint(2, magic=b"\xff")})
    stream = b"\3abc\xff\0\2de"
    assert [bytes(span) for span in engine.scan(plain, stream)] == [b"abc", b"de"]
    assert [bytes(span) for span in engine.scan(plain, stream, raw=True)] == [
        b"\3abc",
        b"\xff\0\2de",
    ]


def test_a_limit_that_refuses_a_fixed_alternative_is_an_error() -> None:
    codec = Codec.choice({1: Codec.fixed(10), 2: Codec.uint(1, length_offset=1)})
    with pytest.raises(ValueError, match=r"max_message_size=9 .* 10 bytes"):
        codec.replace(max_message_size=9)
    codec.replace(max_message_size=10)


def second_byte(mask: int, adjustment: int = 0, least: int = 0) -> Codec:
    return Codec.uint(
        1,
        length_offset=1,
        length_mask=mask,
        length_adjustment=adjustment,
        min_message_size=2 + least,
        max_message_size=None,
    )


SECOND_BYTES = {
    "websocket": formats["websocket"],
    "two choices": Codec.choice(
        {
            1: Codec.choice(
                {0: second_byte(0x7F), 0x80: second_byte(0x7F, 4, 4)}, offset=1, mask=0x80
            ),
            2: Codec.choice({0: second_byte(0x7F, least=3)}, offset=1, mask=0x80),
            3: second_byte(0x3F),
        }
    ),
    "other bits": Codec.choice(
        {
            1: Codec.choice({0: second_byte(0x7F), 0x80: second_byte(0x3F)}, offset=1, mask=0x80),
            2: Codec.choice({None: second_byte(0x1F)}, offset=1),
        }
    ),
    "a longer header": Codec.choice(
        {
            1: Codec.choice(
                {
                    0: second_byte(0x7F),
                    0x80: Codec.uint(2, length_offset=1, length_mask=0x7FFF, max_message_size=None),
                },
                offset=1,
                mask=0x80,
            ),
        }
    ),
    "the second byte first": Codec.choice(
        {0: Codec.choice({1: second_byte(0x7F)}), 0x80: second_byte(0x7F)}, offset=1, mask=0x80
    ),
    "the second byte alone": Codec.choice({0: second_byte(0x7F)}, offset=1, mask=0x80),
}


@pytest.mark.parametrize("name", SECOND_BYTES)
def test_lengths_in_the_second_byte_are_read_as_python_reads_them(
    engine: ModuleType, name: str
) -> None:
    codec, rng = SECOND_BYTES[name], random.Random(name)
    for _ in range(300):
        stream = b""
        for _ in range(rng.randint(1, 6)):
            first, second = (
                rng.choice((0x81, 0x82, 0x89, 1, 1, 2, 3)),
                rng.choice(
                    (0, 1, 4, 9, 31, 63, 124, 125, 126, 127, 128, 130, 133, 200, 253, 254, 255)
                ),
            )
            rest = rng.choice((second & 127, (second & 127) + 4, second & 63, second & 31, 2))
            stream += bytes([first, second]) + rng.randbytes(rest)
        outcomes = []
        for splitter in (PythonSplitter(codec), engine.Splitter(codec)):
            found = []
            with contextlib.suppress(FrameError):
                for pos in range(0, len(stream), 150):
                    found += splitter.feed(stream[pos : pos + 150])
            outcomes.append((found, splitter.stream_offset, splitter.pending, str(splitter.error)))
        assert outcomes[0] == outcomes[1]


def test_alternatives_that_many_bytes_choose(engine: ModuleType) -> None:
    """More bytes than the compiled encoder follows: it looks at the frame that it has written."""
    codec = Codec.uint(1, length_offset=MOST_NODES + 4)
    for offset in reversed(range(MOST_NODES + 2)):
        codec = Codec.choice({1: codec, 2: Codec.uint(2, length_offset=20)}, offset=offset)
    layout = codec.layout
    count = len(layout.choice.layouts)
    early = early_choices(layout, 0, [None] * count, [(20, 200)] * count)
    # The deepest ones come first.
    assert [each.is_certain for each in early[:4]] == [False, False, True, True]
    for depth in range(MOST_NODES + 3):
        message = (b"\1" * depth + b"\2")[: MOST_NODES + 2].ljust(20, b"x") + b"end"
        length = b"\3" if depth >= MOST_NODES + 2 else b"\0\3"
        assert encoded(engine, codec, message) == message[:20] + length + b"end"


@pytest.mark.parametrize(
    "fixed",
    [
        Codec.fixed(7, trailer=b"\n", align=2),
        Codec.fixed(7, trailer=b"\n\n", align=3),
        Codec.fixed(7, trailer=b"\n", constants={3: b"\0"}),
        Codec.fixed(7, trailer=b"\n", check=Check("xor8", 1)),
        Codec.fixed(1, trailer=b"\n\n", align=2),
        Codec.fixed(7, trailer=b"\n"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"raw": True}, {"one_at_a_time": True}])
def test_a_frame_of_fixed_size_is_whole_with_its_trailer_however_it_is_cut(
    engine: ModuleType, fixed: Codec, options: dict[str, Any]
) -> None:
    codec = Codec.choice({None: fixed}, offset=2)
    message = b"u".ljust(fixed.parameters["size"], b"\0")
    frame = codec.encode(message)
    end = len(message) + fixed.layout.tail_size
    expected = [frame] * 2 if options.get("raw") else [message] * 2
    for first in range(1, len(frame)):
        for second in range(first, len(frame)):
            splitter = engine.Splitter(codec, **options)
            early = splitter.feed(frame[:first]) + splitter.feed(frame[first:second])
            assert not early or second >= end
            found = early + splitter.feed(frame[second:] + frame) + splitter.feed(b"")
            assert found == expected
            assert splitter.stream_offset == 2 * len(frame) or not options.get("raw")


@pytest.mark.parametrize(
    "changed",
    [Codec.cobs(), Codec.delimiter(b"\n", escape={b"\n": b"\\n", b"\\": b"\\\\"})],
)
def test_scan_of_a_choice_refuses_messages_that_are_changed_in_their_frames(
    engine: ModuleType, changed: Codec
) -> None:
    codec = Codec.choice({0x07: Codec.uint(1, magic=b"\x07", max_message_size=1), None: changed})
    stream = codec.encode(b"\n-") + codec.encode(b"\n")
    assert [bytes(span) for span in engine.scan(codec, stream, raw=True)] == [
        codec.encode(b"\n-"),
        codec.encode(b"\n"),
    ]
    with pytest.raises(ValueError, match="the messages are escaped"):
        engine.scan(codec, stream)


@pytest.mark.parametrize(
    "codec",
    [
        Codec.choice({None: Codec.fixed(1, magic=b"M", align=8)}),
        Codec.choice({0: Codec.fixed(7), None: Codec.uint(1, magic=b"M", align=4)}),
        formats.turn,
    ],
)
def test_split_leaves_a_frame_without_its_whole_padding(
    engine_in_use: ModuleType, codec: Codec
) -> None:
    message = b"\x40\0abc" if codec == formats.turn else b"k"
    codec = codec.replace()  # of this engine
    frame = codec.encode(message)
    for size in range(len(frame)):
        assert codec.split(frame + frame[:size]) == ([message], len(frame))
    assert codec.split(frame * 2) == ([message] * 2, 2 * len(frame))
    with pytest.raises(IncompleteFrameError):
        codec.decode(frame[:-1])
