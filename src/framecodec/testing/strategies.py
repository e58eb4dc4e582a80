"""Hypothesis strategies for codecs and their messages; imported when they are first used."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from .._check import Check
from ..catalogue import formats
from ..codec import Codec
from ..errors import FrameError

__all__ = ["codecs", "messages"]

_LONGEST_SEARCH = 100  # bytes of a frame that is made byte by byte
_LARGEST_SEED = 300  # bytes; of a message that is found by trying

# Messages that trying does not find: with a checksum, several fixed bytes, or lines of text.
_EXAMPLES = [
    b"+OK\r\n",
    b"$5\r\nhello\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"PING",
    b"PUB subject 5\r\nhello",
    b"set key 0 0 5\r\nhello",
    b"CONNECT\n\n\0",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    # D-Bus: a call with serial 2, without header fields, with a body of 5 bytes
    bytes.fromhex("4202000100000002 00000000 68656c6c6f"),
    # CQL native protocol 5: the header with its CRC-24, the payload and its CRC-32
    bytes.fromhex("001c284b 05000000bb16db6d"),
    bytes.fromhex("016a36c4 d37e7744"),
]

_small_bytes = st.binary(max_size=4)

_CHECKS = st.sampled_from(
    [
        Check("crc32", 4),
        Check("crc32c", 4, "little", covers="frame"),
        Check("crc16-x25", 2, "little", covers="body"),
        Check("xor8", 1, position="front"),
        Check("sum8", 3, digits=True, before=b"*"),
    ]
)


@st.composite
def _common(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {"magic": draw(_small_bytes), "trailer": draw(_small_bytes)}
    if draw(st.booleans()):
        parameters["max_message_size"] = draw(st.one_of(st.none(), st.integers(20, 5000)))
    if draw(st.integers(0, 3)) == 0:
        parameters["check"] = draw(_CHECKS)
    if kind in ("delimiter", "cobs"):
        del parameters["trailer"]
        return parameters
    if kind in ("fixed", "headers"):
        return parameters
    if draw(st.booleans()):
        parameters["length_offset"] = len(parameters["magic"]) + draw(st.integers(0, 4))
    elif draw(st.integers(0, 3)) == 0:
        objects = st.sampled_from([None, "special", (1, 2)])
        parameters["specials"] = draw(
            st.dictionaries(st.integers(0, 9), objects, min_size=1, max_size=2)
        )
    if kind in ("uint", "struct", "digits") and draw(st.integers(0, 2)) == 0:
        parameters["length_includes"] = "frame"
    else:
        parameters["length_adjustment"] = draw(st.integers(-8, 8))
    return parameters


_OWN: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "uint": st.fixed_dictionaries(
        {
            "width": st.integers(1, 8),
            "byteorder": st.sampled_from(["big", "little", "native"]),
            "signed": st.booleans(),
        }
    ),
    "struct": st.fixed_dictionaries({"fmt": st.sampled_from(["i", "!I", "<H", ">Q", "B", "@l"])}),
    "digits": st.fixed_dictionaries(
        {"width": st.integers(2, 12), "base": st.sampled_from([10, 16, "bcd"])}
    ),
    "varint": st.fixed_dictionaries({"max_width": st.integers(1, 10)}),
    "ber": st.fixed_dictionaries({"max_width": st.integers(1, 8)}),
    "fixed": st.fixed_dictionaries({"size": st.integers(1, 40)}),
    "text": st.fixed_dictionaries(
        {
            "end": st.sampled_from([b":", b"\r\n", b" ", b"\0", b";;"]),
            "base": st.sampled_from([10, 16]),
        }
    ),
    "delimiter": st.fixed_dictionaries(
        {
            "end": st.sampled_from([b"\n", b"\r\n", b"\0", b"--"]),
            "skip_empty": st.booleans(),
            "escape": st.none(),
        }
    ),
    "cobs": st.just({}),
    "headers": st.fixed_dictionaries(
        {
            "name": st.sampled_from(["Content-Length", "L"]),
            "names": st.sampled_from([(), ("n",)]),
            "line_end": st.sampled_from([b"\r\n", b"\n"]),
            "lenient": st.booleans(),
            "keep": st.booleans(),
            "start_line": st.sampled_from([False, False, True, b"HTTP/1.1", (b"A/1", b"B/2")]),
            "max_header": st.integers(60, 200),
        }
    ),
}


@st.composite
def _made(draw: st.DrawFn) -> Codec | None:
    kind = draw(st.sampled_from([*_OWN]))
    parameters = {**draw(_OWN[kind]), **draw(_common(kind))}
    make: Callable[..., Codec] = getattr(Codec, kind)
    try:
        codec = make(**parameters)
        return codec if _seeds(codec) else None
    except ValueError:  # the parameters contradict each other
        return None


@st.composite
def _choices(draw: st.DrawFn) -> Codec:
    """Draw a choice by the first byte: all values have a codec, or some."""
    made = [
        st.builds(Codec.uint, st.integers(1, 8), length_offset=st.integers(1, 4)),
        st.builds(Codec.varint, length_offset=st.just(1)),
        st.builds(Codec.uint, st.just(2), length_offset=st.just(1), check=_CHECKS),
        st.builds(Codec.fixed, st.integers(1, 9)),
        st.builds(Codec.delimiter, st.sampled_from([b"\n", b"\r\n", b"a\0"])),
    ]
    alternatives = draw(st.lists(st.one_of(made), min_size=1, max_size=3))
    keys: list[Any] = [0, b"a\x80", draw(st.sampled_from([None, 0xFF]))]
    return Codec.choice(
        dict(zip(keys, alternatives, strict=False)), max_message_size=draw(st.integers(20, 5000))
    )


@st.composite
def _joined(draw: st.DrawFn) -> Codec:
    lead_size = draw(st.integers(0, 2))
    fragments = Codec.uint(draw(st.integers(1, 4)), length_offset=lead_size)
    strip = lead_size + draw(st.integers(0, 2))
    keeps: dict[str, Any] = {"strip": strip, "keep_first": draw(st.booleans()) and strip > 0}
    if lead_size and draw(st.booleans()):
        size = draw(st.integers(1, 50))
        return Codec.joined(fragments, last=(0, 0x80, 0x80), fragment_size=size, **keeps)
    return Codec.joined(fragments, full=draw(st.integers(1, 50)), **keeps)


def codecs() -> st.SearchStrategy[Codec]:
    """Return a strategy for codecs; see `framecodec.testing.codecs`."""
    known = st.sampled_from([*formats.values()])
    made = st.one_of(_made(), _joined()).filter(lambda codec: codec is not None)
    return st.one_of(made, _choices().filter(_seeds), known)


def messages(codec: Codec[Any], max_size: int) -> st.SearchStrategy[Any]:
    """Return a strategy for messages; see `framecodec.testing.messages`."""
    seeds = _seeds(codec)
    if not seeds:
        raise ValueError(
            f"no message was found that {codec!r} encodes; write a strategy for its messages"
        )
    return _messages(codec, seeds, max_size)


@st.composite
def _messages(draw: st.DrawFn, codec: Codec[Any], seeds: tuple[Any, ...], max_size: int) -> Any:
    seed = draw(st.sampled_from(seeds))
    if not isinstance(seed, bytes):
        return seed
    # Keep as much of a message that is right as the codec needs.
    tail = draw(st.binary(max_size=max_size))
    kept = draw(st.integers(0, min(len(seed), 64)))
    starts = (b"", seed[:kept], seed)
    changed = seed[:kept] + tail[: len(seed) - kept]
    for content in (*(start + tail for start in starts), changed + seed[len(changed) :]):
        message = _with_constants(codec, content)
        if _encodes(codec, message):
            return message
    return seed


def _encodes(codec: Codec[Any], message: object) -> bool:
    try:
        codec.encode(message)
    except (FrameError, TypeError, ValueError, ArithmeticError, LookupError):
        return False
    return True


@functools.lru_cache(maxsize=256)
def _seeds(codec: Codec[Any]) -> tuple[Any, ...]:
    """Return some messages that a codec encodes, the simplest first; empty if none was found."""
    specials = codec.parameters.get("specials") or {}
    found: list[Any] = [*specials.values()]
    sizes = [*range(41), 64, 127, 128, 255, 256, _LARGEST_SEED]
    if codec.kind == "fixed":
        sizes = [codec.parameters["size"]]
    if codec.layout.keep:
        found += _kept_blocks(codec)
    plain = (_with_constants(codec, bytes(size)) for size in sizes)
    found += [message for message in plain if _encodes(codec, message)]
    if codec.kind == "choice" and not codec.parameters["tagged"]:
        found += [m for m in _seeds_of_alternatives(codec) if _encodes(codec, m)]
    if codec.layout.marks:
        found += [m for m in (b"a" * size for size in sizes) if _encodes(codec, m)]
    if not found or codec.kind in ("custom", "choice"):
        for first in range(1, 256):
            tries = (bytes([first]) + bytes(size) for size in range(40))
            found += [*filter(functools.partial(_encodes, codec), tries)][:4]
        found += [message for message in _EXAMPLES if _encodes(codec, message)]
    if not found:
        found += _search(codec)
    return tuple(found)


def _seeds_of_alternatives(codec: Codec[Any]) -> Iterator[Any]:
    """Yield messages of a choice's alternatives, with the byte that chooses the alternative."""
    offset = codec.parameters["offset"]
    for values, alternative in codec.parameters["alternatives"].items():
        value = next(iter(values)) if isinstance(values, bytes) else values or 0
        place = alternative.layout.message_position(offset)
        for message in _seeds(alternative):
            yield message
            if isinstance(message, bytes) and 0 <= place < len(message):
                yield message[:place] + bytes([value]) + message[place + 1 :]


def _kept_blocks(codec: Codec[Any]) -> Iterator[bytes]:
    """Yield messages that are a header block and a body."""
    layout, end = codec.layout, codec.layout.line_end
    first_lines = [b"start line"] if layout.start_line else [b""]
    if layout.protocols:
        first_lines = [b"PING * " + layout.protocols[0], layout.protocols[-1] + b" 200 OK"]
    for first_line in first_lines:
        first = first_line + end if first_line else b""
        for body in (b"", b"hello"):
            message = first + b"%b: %d" % (layout.name.encode(), len(body)) + end + end + body
            if _encodes(codec, message):
                yield message


def _with_constants(codec: Codec[Any], message: bytes) -> bytes:
    """Return a message with the constants that each frame of a codec has, as far as it has them."""
    layout = codec.layout
    filled = bytearray(message)
    for offset, constant in layout.constants:
        pos = layout.message_position(offset)
        if pos + len(constant) <= len(filled):
            filled[pos : pos + len(constant)] = constant
    return bytes(filled)


def _search(codec: Codec[Any]) -> Iterator[Any]:
    """Yield messages of frames that are made byte by byte, without the bytes that are errors."""
    rng = random.Random(0)
    count = 0
    for _ in range(10):
        for message in _grow(codec, rng):
            yield message
            count += 1
        if count >= 4:
            return


def _grow(codec: Codec[Any], rng: random.Random) -> list[Any]:
    data = b""
    while len(data) < _LONGEST_SEARCH:
        choices = [*rng.sample([0, 1, 2, 4], 4), *rng.sample(range(256), 256)]
        for byte in choices:
            splitter = codec.splitter()
            try:
                found = splitter.feed(data + bytes([byte]))
            except FrameError:
                continue
            if found:
                return [message for message in found if _encodes(codec, message)]
            if splitter.error is None and splitter.bytes_needed <= _LARGEST_SEED:
                break
        else:
            return []
        data += bytes([byte])
    return []
