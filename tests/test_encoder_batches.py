"""Test that batches have the frames of their messages, whatever loop of the engine writes them.

The slow path, `Encoder.frame_parts`, says what the frames are. Messages are made for each
alternative of a choice: of sizes around the limits of its length field, and with a bit changed, so
that some choose another alternative, or have no frame.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError, formats
from framecodec._choice import choose
from framecodec._early_choice import early_choices
from framecodec._encoder_py import Encoder
from framecodec._layout import BER, CUSTOM, FIXED, TEXT, VARINT, Described, Layout
from tests.helpers.sample_codecs import CODECS

LIMITS = (8, 16, 24, 64, 127, 129, 131, 255, 257, 504, 1018, 1021, 4078, 65536)

LONG_LEADS = [
    Codec.uint(2, length_offset=17, magic=b"magic"),
    Codec.uint(2, length_offset=32, magic=b"a magic of 20 bytes!"),
    Codec.uint(4, "little", length_offset=16, constants={0: b"ab", 9: b"cd", 20: b"ef"}),
    Codec.varint(max_width=2, length_offset=9),
    Codec.text(b"\r\n", length_offset=10, trailer=b"long trailer"),
    Codec.text(b"end of 14 byte"),
    Codec.digits(4, length_offset=9, base=16),
    Codec.digits(6, magic=b"a magic of 20 bytes!"),
    Codec.fixed(5, magic=b"a magic of 20 bytes!"),
    Codec.fixed(1, trailer=b"a trailer of 22 bytes!"),
    Codec.uint(2, length_offset=1, align=8, trailer=b"end"),
    Codec.uint(2, length_mask=0x3FFF, length_offset=1),
    Codec.uint(4, "little", length_mask=0xFFF, length_unit=4, length_offset=2),
    Codec.uint(1, length_offset=70),
]


def heads_after(magic: bytes) -> list[Codec]:
    """Return codecs for each loop of the compiled engine, and around what decides on it."""
    at, each = len(magic), {"magic": magic}
    return [
        Codec.uint(1, **each),
        Codec.uint(4, "little", trailer=b"\r\n", **each),
        Codec.uint(3, length_unit=4, **each),
        Codec.uint(2, "little", length_unit=2, length_adjustment=-6, **each),
        Codec.uint(2, length_mask=0x3FFF, length_offset=at + 1, **each),
        Codec.uint(2, "little", length_mask=0x3FFF, length_offset=at + 9, **each),
        Codec.uint(2, "little", length_mask=0x3FFF, length_offset=at + 1, **each),
        Codec.uint(2, length_offset=at + 6, **each),
        Codec.uint(4, "little", length_offset=at + 8, align=4, **each),
        Codec.uint(4, constants={at + 5: b"a", at + 17: b"bc", at + 31: b"d"}, **each),
        Codec.uint(2, length_offset=at + 5, constants={at + 30: b"a"}, **each),
        Codec.uint(4, length_offset=at + 12, constants={at + 2: b"a", at + 30: b"b"}, **each),
        Codec.varint(max_width=2, length_offset=at + 1, **each),
        Codec.varint(align=4, **each),
        Codec.text(b":", trailer=b",", **each),
        Codec.text(b"\r\n", base=16, length_offset=at + 2, **each),
        Codec.digits(4, base=16, **each),
        Codec.digits(3, length_offset=at + 1, align=2, **each),
        Codec.fixed(40, **each),
        Codec.fixed(40, constants={at + 3: b"a", at + 20: b"b"}, **each),
    ]


ALL_HEADS = [
    *(codec for magic in (b"", b"ab", b"abcdefg", b"abcdefghijkl") for codec in heads_after(magic)),
    *(
        formats[name]
        for name in formats
        if formats[name].layout.choice is None
        and formats[name].layout.kind <= FIXED
        and formats[name].layout.check is None
    ),
]
SHORT_MESSAGES = [
    *[Codec.fixed(size) for size in range(1, 10)],
    Codec.fixed(3, magic=b"a", trailer=b"\r\n"),
    Codec.fixed(5, constants={1: b"bc"}),
    Codec.uint(2, "little", length_offset=1),
    Codec.uint(4, length_offset=2, length_includes="frame"),
    Codec.uint(2, length_mask=0x0FFF, length_offset=1),
    Codec.uint(1, length_offset=7),
    Codec.varint(length_offset=3),
    Codec.text(length_offset=1),
    Codec.digits(4, base=16, length_offset=2, trailer=b"\n"),
    formats["socks5-method"],
    formats["amqp-header"],
]
RARE_CHOICES = {
    "own bits before a byte that chooses": Codec.choice(
        {
            1: Codec.choice(
                {5: Codec.uint(1, length_offset=2), 6: Codec.uint(2, length_offset=2)}, offset=1
            ),
            2: Codec.uint(1, length_offset=2),
        },
        keep=False,
    ),
    "one alternative is never chosen": Codec.choice(
        {1: Codec.digits(2), 2: Codec.uint(1, length_offset=1), b"01": Codec.digits(4)}
    ),
}
CHOICES = {
    name: codec
    for name, codec in [
        *CODECS.items(),
        *RARE_CHOICES.items(),
        *((name, formats[name]) for name in formats),
    ]
    if codec.layout.choice is not None
    and not any(codec.layout.choice.tags)
    and all(each.kind != CUSTOM for each in codec.layout.choice.layouts)
}
LINES_AND_BLOCKS = {
    "lines": b"<34>1 2003-10-11T22:14:15.003Z mymachine su",
    "empty line": b"",
    "proxy": b"TCP4 255.255.255.255 255.255.255.255 65535 65535",
    "block": b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 3\r\n\r\nabc",
    "short block": b"SIP/2.0 200 OK\r\nCSeq: 314159 INVITE\r\n\r\n",
    "block without its body": b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 3\r\n\r\n",
    "block with more": b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 3\r\n\r\nabcd",
    "block with spaces": b"OPTIONS sip:a SIP/2.0\r\nContent-Length :  3 \r\n\r\nabc",
    "ping": b"\r\n",
}


def messages_of(layout: Layout, places: Any, rng: random.Random) -> Iterator[bytes]:
    """Yield messages for an alternative, most of which have a frame."""
    lead = layout.message_lead
    least = layout.rest_min + lead
    sizes = {*range(least, least + 10)}
    for limit in LIMITS:
        sizes |= {*range(max(least, limit - 3), limit + 4)}
    sizes = {size for size in sizes if size <= layout.message_max}
    for size in sorted(sizes, key=lambda size: (size > 4096, rng.random()))[:60]:
        message = bytearray(rng.choice([0, 0, 97, 255]) for _ in range(min(size, 40)))
        message += bytes(size - len(message))
        for offset, constant in layout.constants:
            position = layout.message_position(offset)
            message[position : position + len(constant)] = constant
        for position, values in places:
            if position < size:
                message[position] = rng.choice(sorted(values))
        for own in layout.own_bits:
            message[layout.message_position(own.offset)] &= ~own.mask
        if layout.kept:
            mask = layout.mask.to_bytes(layout.field_width, layout.byteorder)
            for at, position in enumerate(layout.kept, layout.lead_size):
                message[at] &= ~mask[position]
        yield bytes(message)
        if message:
            message[rng.randrange(min(size, 24))] ^= 1 << rng.randrange(8)
            yield bytes(message)


def frame_or_error(encoder: Any, message: bytes) -> bytes | type:
    try:
        return b"".join(encoder.frame_parts(message))
    except FrameError as error:
        return type(error)


def check_batches(encoder: Any, messages: list[bytes], rng: random.Random) -> None:
    """Check that a batch in any order, and each message alone, has the frames of the slow path."""
    found = {message: frame_or_error(encoder, message) for message in messages}
    frames = {message: frame for message, frame in found.items() if isinstance(frame, bytes)}
    assert frames
    orders = [list(frames), sorted(frames), sorted(frames, key=len)]
    rng.shuffle(orders[0])
    for order in orders:
        assert encoder.encode_many(order) == b"".join(map(frames.__getitem__, order))
    first = orders[1][0]
    for message, frame in found.items():
        if isinstance(frame, bytes):
            assert encoder.encode(message) == frame
            assert encoder.encode_many([message]) == frame
            assert encoder.encode_many([message, first, message]) == frame + frames[first] + frame
            continue
        for batch in ([message], [first, message], [first, first, message, first]):
            with pytest.raises(frame):
                encoder.encode_many(batch)
        with pytest.raises(frame):
            encoder.encode(message)


@pytest.mark.parametrize("name", CHOICES)
def test_batches_of_choices_have_the_frames_of_the_slow_path(engine: ModuleType, name: str) -> None:
    codec, rng = CHOICES[name], random.Random(name)
    choice = codec.layout.choice
    numbers = list(range(len(choice.layouts)))
    if len(numbers) > 6:
        numbers = sorted({*numbers[:2], *rng.sample(numbers, 4)})
    messages = list(LINES_AND_BLOCKS.values())
    for number in numbers:
        made = list(messages_of(choice.layouts[number], choice.places[number], rng))
        messages += made if len(numbers) < 4 else rng.sample(made, min(len(made), 30))
    check_batches(engine.Encoder(codec), messages, rng)


@pytest.mark.parametrize("codec", SHORT_MESSAGES, ids=str)
def test_batches_of_short_messages_have_the_frames_of_the_slow_path(
    engine: ModuleType, codec: Codec
) -> None:
    rng = random.Random(4)
    messages = list(messages_of(codec.layout, (), rng))
    check_batches(engine.Encoder(codec), [each for each in messages if len(each) < 20], rng)


@pytest.mark.parametrize("codec", LONG_LEADS, ids=str)
def test_batches_of_long_heads_have_the_frames_of_the_slow_path(
    engine: ModuleType, codec: Codec
) -> None:
    rng = random.Random(1)
    check_batches(engine.Encoder(codec), list(messages_of(codec.layout, (), rng)), rng)


@pytest.mark.parametrize("codec", ALL_HEADS, ids=repr)
def test_batches_of_all_heads_have_the_frames_of_the_slow_path(
    engine: ModuleType, codec: Codec
) -> None:
    rng = random.Random(5)
    check_batches(engine.Encoder(codec), list(messages_of(codec.layout, (), rng))[:60], rng)


@pytest.mark.parametrize("name", ["sip", "rtsp", "proxy-protocol", "syslog"])
def test_batches_of_lines_and_header_blocks_have_the_frames_of_the_slow_path(
    engine: ModuleType, name: str
) -> None:
    encoder, rng = engine.Encoder(formats[name]), random.Random(2)
    messages = list(LINES_AND_BLOCKS.values())
    for message in LINES_AND_BLOCKS.values():
        messages += [message[:size] for size in range(len(message))]
        messages += [message.replace(b"\r\n", b"\n"), message.lower(), message + bytes(1100)]
    check_batches(encoder, messages, rng)


def test_a_byte_of_the_trailer_can_choose(engine: ModuleType) -> None:
    codec = Codec.choice(
        {
            0x61: Codec.uint(1, trailer=bytes(14) + b"a" + bytes(5)),
            0x62: Codec.uint(1, trailer=bytes(14) + b"b" + bytes(5)),
        },
        offset=15,
    )
    messages = [b"c" * size for size in range(12)] + [b"c" * 14 + byte for byte in (b"a", b"b")]
    check_batches(engine.Encoder(codec), messages, random.Random(3))


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n.\r\n"])
def test_a_line_that_ends_with_the_start_of_its_end_has_no_frame(
    engine: ModuleType, end: bytes
) -> None:
    codec = Codec.choice({b"a": Codec.delimiter(end), None: Codec.uint(2)})
    lines = [b"a" * size for size in range(24, 40)]
    odd = [line + end[:size] for line in lines for size in range(1, len(end))]
    check_batches(engine.Encoder(codec), [*lines, *odd], random.Random(5))


def early_range(layout: Layout) -> tuple[int, int]:
    """Return the smallest and largest message whose frame has the plain form of the length.

    Of lines and header blocks: the sizes of which it is known what begins the message.
    """
    low, span = layout.quick_range
    if layout.marks or layout.keep:
        return max(24, low), min(low + span, layout.message_max)
    if layout.kind > FIXED or layout.check is not None or span < 0:
        return 2**63, 2**63
    most = {VARINT: 0x3FFF, BER: 0x7F, TEXT: 9999}.get(layout.kind, layout.plain_max)
    most = min(low + span, most, layout.mask or most, *(wide.key - 1 for wide in layout.wider))
    before = layout.adjustment + layout.message_lead
    return low * layout.unit + before, min(most * layout.unit + before, layout.message_max)


@pytest.mark.parametrize("name", CHOICES)
def test_what_a_frame_chooses_is_known_early(name: str) -> None:
    """Test the numbers that the compiled engine has instead of a walk through the tree."""
    rng = random.Random(name)
    layout = CHOICES[name].layout
    choice = layout.choice
    ranges = list(map(early_range, choice.layouts))
    encoders = [Encoder(Described(each)) for each in choice.layouts]
    for known in (0, 1, 4):
        places = [dict(each).get(known) for each in choice.places]
        found = early_choices(layout, known, places, ranges)
        for number in rng.sample(range(len(found)), min(len(found), 5)):
            early, each = found[number], choice.layouts[number]
            for message in messages_of(each, choice.places[number], rng):
                frame = frame_or_error(encoders[number], message)
                if not early.least <= len(message) <= early.most or not isinstance(frame, bytes):
                    continue
                for node, position in zip(choice.nodes, early.positions, strict=False):
                    assert position < 0 or frame[node.offset] == message[position]
                chosen, _ = choose(choice, frame)
                has_bits = all(
                    message[position] & bits == value
                    for position, (bits, value) in early.required.items()
                )
                bits, value = early.length_bits
                length = (len(message) - each.adjustment - each.message_lead) // each.unit
                has_bits = has_bits and length & bits == value
                is_sure = known < len(message) and message[known] in early.sure
                if not has_bits:
                    assert chosen != number
                elif is_sure and early.is_certain:
                    assert chosen == number
                    for other in range(max(0, number - 3), number):
                        frame = frame_or_error(encoders[other], message)
                        assert isinstance(frame, type) or choose(choice, frame)[0] != other


BY_LENGTH = {
    "digits": Codec.choice({b"0123456789": Codec.digits(4)}),
    "hexadecimal digits": Codec.choice({b"0123456789abcdef": Codec.digits(4, base=16)}),
    "a length of one byte": Codec.choice({bytes(range(1, 256)): Codec.uint(2)}, offset=1),
    "the first bit of a length": Codec.choice(
        {0: Codec.uint(2, max_message_size=40_000)}, mask=0x80
    ),
}
# Of formats: the alternatives that are found early, and what must hold for the last of them: how
# many bytes its message can begin with, its smallest and largest size, bits in the message, by
# position, and of the length; the node of the tree that is asked first; and where the bytes of the
# nodes are in the message.
FOUND_EARLY: dict[str, tuple[Any, ...]] = {
    "digits": ([0], 256, 0, 9999, {}, (0, 0), 0, (-1,)),
    "hexadecimal digits": ([0], 256, 0, 65535, {}, (0, 0), 0, (-1,)),
    "a length of one byte": ([0], 256, 1, 255, {}, (0, 0), 0, (-1,)),
    "the first bit of a length": ([0], 256, 0, 40000, {}, (32768, 0), 0, (-1,)),
    "multiprocessing": ([0], 256, 0, 16777216, {}, (0, 0), 0, (-1,)),
    "grpc": ([0], 2, 1, 16777216, {}, (0, 0), 0, (0,)),
    "syslog": ([0], 256, 0, 9999, {}, (0, 0), 0, (-1,)),
    "giop": ([0, 1], 256, 4, 16777216, {2: (0xFD, 1)}, (0, 0), 1, (-1, 2, 2)),
    "dcerpc": ([0, 1], 256, 14, 65533, {4: (0xF0, 0)}, (0, 0), 0, (4,)),
    "postgres": ([0], 31, 1, 16777216, {}, (0, 0), 0, (0,)),
    "postgres-startup": ([0, 2], 256, 4, 4, {}, (0, 0), 1, (-1, -1)),
    "mongodb": ([0], 256, 12, 48000000, {8: (0xFF, 1)}, (0, 0), 0, (8,)),
    "couchbase": ([0], 6, 20, 16777216, {}, (0, 0), 0, (0,)),
    "amqp1": ([0], 254, 4, 16777216, {1: (0xFE, 0)}, (0, 0), 0, (0, 1)),
    "mqtt": ([0], 26, 1, 16384, {}, (0, 0), 0, (0,)),
    "zmtp": ([0, 1], 6, 257, 16777216, {}, (0, 0), 0, (-1, -1)),
    "zmtp1": ([0, 1, 2], 1, 255, 16777216, {}, (0, 0), 2, (-1, -1, 0)),
    "smpp": ([0], 2, 12, 16777216, {1: (0xFE, 0)}, (0, 0), 0, (0, 1)),
    "stun": ([0], 64, 18, 65553, {}, (3, 0), 0, (0, -1)),
    "turn": ([0, 1], 16, 2, 65537, {}, (0, 0), 0, (0, 0, -1)),
    "diameter": ([0], 256, 16, 16777211, {}, (3, 0), 0, (-1,)),
    "ber": (
        [0, 1, 2, 3, 4, 5],
        8,
        6,
        133,
        {1: (0x80, 0x80), 2: (0x80, 0x80), 3: (0x80, 0x80), 4: (0x80, 0x80), 5: (0x80, 0)},
        (0, 0),
        0,
        (0, 1, 2, 3, 4, 5),
    ),
    "adb": ([0], 256, 20, 16777216, {}, (0, 0), 0, (-1,)),
    "tls": ([0], 5, 3, 18435, {}, (0, 0), 0, (0,)),
    "websocket": ([0, 2, 4, 5], 24, 6, 131, {1: (0x80, 0x80)}, (0, 0), 0, (0, -1, 2, 2, -1)),
    "kerberos": ([0], 5, 2, 16777216, {}, (0, 0), 1, (-1, 0)),
    "rtsp": ([0, 1], 230, 1, 65536, {}, (0, 0), 1, (-1, 0)),
    "sip": ([0, 1], 230, 2, 2, {}, (0, 0), 0, (-1,)),
    "proxy-protocol": ([0, 1], 1, 2, 65537, {}, (0, 0), 2, (-1, -1, 0, 1)),
    "coap-tcp": (
        list(range(144)),
        16,
        65815,
        16777216,
        {},
        (0, 0),
        0,
        (-1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
    ),
    "bgp": ([0, 1, 2, 3, 4], 1, 5, 4078, {}, (0, 0), 0, (0,)),
    "ssh": ([0], 252, 12, 16777216, {}, (7, 4), 0, (-1, 0)),
    "mtproto": ([0, 1], 256, 1021, 16777216, {}, (0, 0), 0, (-1,)),
    "socks5": ([0, 1, 2], 256, 22, 22, {3: (0xFF, 4)}, (0, 0), 0, (3,)),
    "mavlink": ([0, 1, 2], 1, 263, 279, {1: (0xFF, 1)}, (0, 0), 0, (0, 1)),
    "x11": ([0, 3, 4], 1, 2, 262138, {}, (1, 1), 0, (0, -1, -1, -1, -1, -1)),
}


@pytest.mark.parametrize("name", FOUND_EARLY)
def test_what_a_format_chooses_is_found_early(name: str) -> None:
    """Test that nothing is lost of what makes these formats fast; what is found is tested above."""
    layout = (BY_LENGTH.get(name) or formats[name]).layout
    places = [dict(each).get(0) for each in layout.choice.places]
    ranges = list(map(early_range, layout.choice.layouts))
    found = early_choices(layout, 0, places, ranges)
    certain = [number for number, early in enumerate(found) if early.is_certain]
    last = found[certain[-1]]
    assert (certain, len(last.sure), *last[2:]) == FOUND_EARLY[name]
