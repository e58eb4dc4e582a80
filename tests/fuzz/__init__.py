"""A campaign of random streams against random codecs: both engines, and the reference parser.

    python -m tests.fuzz --seconds 60           the next minute's cases
    python -m tests.fuzz --seed 1234            one case, again
    python -m tests.fuzz --seed 0 --cases 5000  the same cases every time

A case is a number: it makes a codec, messages, a stream that may be damaged, ways to cut it and to
hand it over. It passes where the reference, the Python engine and the compiled engine come to the
same: messages, the error's type, text and attributes, offsets, what is left; and where every
encoder writes what the reference reads. Whatever fails is printed with its number.
"""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

from framecodec import Codec, FrameError
from tests.helpers.chunking import hand_overs, random_cuts
from tests.helpers.observe import observe_encoder, observe_splitter
from tests.helpers.reference_parser import check, expect
from tests.helpers.sample_codecs import Mark, build_tagged, damaged, parse_tagged, sample_messages
from tests.helpers.strategies import CHECKS

__all__ = ["run_case"]

NUMBERS = [
    *range(-10, 300, 7),
    *(sign * (2**bits + step) for sign in (1, -1) for bits in range(66) for step in (-1, 0, 1)),
]
OBJECTS: list[Any] = [None, Mark.FLUSH, Mark.PING, "text", (1, 2), 7.5, frozenset()]


def random_codec(rng: random.Random) -> Codec:
    """A codec; descriptions that are refused are drawn again."""
    while True:
        kind = rng.choice(
            [
                *("uint", "uint", "uint", "struct", "digits", "varint", "text", "headers"),
                *("custom", "ber", "fixed"),
            ]
        )
        has = random_parameters(kind, rng)
        try:
            codec: Codec = getattr(Codec, kind)(**has)
        except ValueError:
            continue
        return codec


def random_parameters(kind: str, rng: random.Random) -> dict[str, Any]:
    has: dict[str, Any] = {
        "magic": rng.choice((b"", b"", b"M", rng.randbytes(rng.randint(0, 5)))),
        "trailer": rng.choice((b"", b"", b"\r\n", rng.randbytes(rng.randint(0, 5)))),
        "max_message_size": rng.choice((None, 0, 1, 2**70, rng.randint(0, 300), 2**16, 2**24)),
    }
    if rng.random() < 0.2:
        has["align"] = rng.choice((2, 3, 4, 8))
    if rng.random() < 0.25:
        has["check"] = rng.choice(CHECKS)
    if rng.random() < 0.2:
        has["min_message_size"] = rng.randint(0, 9)
    if kind == "fixed":
        offset = len(has["magic"]) + rng.randint(0, 3)
        constants = rng.choice((None, {offset: rng.randbytes(rng.randint(1, 3))}))
        return {**has, "size": rng.randint(1, 40), "constants": constants}
    if kind == "custom":
        return {
            **has,
            "parse": parse_tagged,
            "build": build_tagged,
            "max_header": rng.randint(2, 9),
        }
    if rng.random() < 0.3:
        keys = rng.sample([*range(12), *NUMBERS], rng.randint(1, 4))
        objects = rng.sample(OBJECTS, len(keys))
        has["specials"] = dict(zip(keys, objects, strict=True))
    elif rng.random() < 0.4 and kind != "headers":
        has["length_offset"] = len(has["magic"]) + rng.randint(0, 5)
    if kind in ("uint", "struct", "digits") and rng.random() < 0.3:
        has["length_includes"] = "frame"
    elif rng.random() < 0.4:
        has["length_adjustment"] = rng.choice((rng.randint(-9, 9), rng.choice(NUMBERS)))
    if rng.random() < 0.3:
        has["length_unit"] = rng.choice((2, 3, 4, 8, 1000))
    if kind != "headers" and rng.random() < 0.25:
        offsets = rng.sample(range(len(has["magic"]), len(has["magic"]) + 12), rng.randint(1, 2))
        has["constants"] = {pos: rng.randbytes(rng.randint(1, 2)) for pos in offsets}
    if kind in ("uint", "struct") and rng.random() < 0.25:
        has["length_mask"] = rng.choice((0x7F, 0x7FFF, 0x7FFFFFFF, 0xFF00, rng.randrange(1, 2**16)))
    if kind in ("uint", "struct") and rng.random() < 0.25:
        fields = rng.sample(("u8", "u16be", "u16le", "u24be", "u32native", "u64be"), 2)
        keys = rng.sample((1, 2, 100, 126, 127, 253, 254, 255), 2)
        has["wider"] = dict(zip(keys, fields, strict=True))
        has["wider_than_needed"] = rng.choice(("invalid", "accept"))
    own: dict[str, dict[str, Any]] = {
        "uint": {
            "width": rng.randint(1, 8),
            "byteorder": rng.choice(("big", "little", "native")),
            "signed": rng.random() < 0.3,
        },
        "struct": {"fmt": rng.choice(("", *"@=<>!")) + rng.choice("bBhHiIlLqQ")},
        "digits": {
            "width": rng.choice((1, 2, 4, 9, 16, 17, 19, 20, 30)),
            "base": rng.choice((10, 16, "bcd")),
        },
        "varint": {"max_width": rng.randint(1, 10)},
        "ber": {"max_width": rng.randint(1, 8)},
        "text": {
            "leading_zeros": rng.random() < 0.3,
            "trailing_blanks": rng.random() < 0.2,
            "max_digits": rng.choice((20, 20, 1, 3, 25)),
            "end": rng.choice(
                (b":", b"\r\n", b" ", b"\0", b"::", b"x0", b"\xff", rng.randbytes(3))
            ),
            "base": rng.choice((10, 16)),
        },
        "headers": {"name": rng.choice(("L", "Content-Length")), "max_header": rng.randint(6, 80)},
    }
    return has | own[kind]


def random_stream(codec: Codec, rng: random.Random, seed: int) -> bytes:
    known = sample_messages(codec, seed)
    stream = b""
    for _ in range(rng.randint(0, 6) if known else 0):
        stream += codec.encode(rng.choice(known))
    for _ in range(rng.choice((0, 1, 1, 2))):
        stream = damaged(stream, codec, rng)
    return stream


def run_case(engines: list[ModuleType], seed: int) -> str:
    """Runs a case; raises AssertionError, or whatever a defect raises.

    Returns:
        What came of it, for the campaign's statistics.
    """
    rng = random.Random(seed)
    codec = random_codec(rng)
    stream = random_stream(codec, rng, seed)
    raw, skip = rng.random() < 0.3, rng.random() < 0.3
    ways = [[stream], *random_cuts(stream, 2, seed)]
    name = rng.choice(sorted(hand_overs))
    for engine in engines:
        outcome = check(engine, codec, stream, ways, raw=raw, skip=skip, hand_over=hand_overs[name])

    choices = {"raw": raw, "on_oversize": "skip" if skip else "raise"}
    for pieces in ways:
        same(
            observe_splitter(engine, codec, pieces, choices, hand_overs[name]) for engine in engines
        )

    messages = [
        *sample_messages(codec, seed)[:6],
        rng.randbytes(rng.randint(0, 400)),
        bytearray(rng.randint(0, 40)),
        rng.choice((None, "text", 5, [], Mark.PING)),
    ]
    same(observe_encoder(engine.Encoder(codec), messages) for engine in engines)
    for message in messages:
        for engine in engines:
            try:
                frame = engine.Encoder(codec).encode(message)
            except (FrameError, TypeError, ValueError):
                continue
            assert expect(codec, frame).messages == [message], f"{codec!r}: {message!r}"
    return f"{codec.kind}, {outcome.error.__name__ if outcome.error else 'whole'}"


def same(observations: Any) -> None:
    first, *others = observations
    for other in others:
        for step, (one, two) in enumerate(zip(first, other, strict=True)):
            assert one == two, f"step {step}: {one!r} and {two!r}"
