"""The parts of a frame: which bytes the codec owns, and which are the message's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import Codec

__all__ = ["Part", "dissect"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a frame.

    Attributes:
        name: ``"magic"``, ``"lead"``, ``"length"``, ``"header"``, ``"rest"``, ``"check"`` or
            ``"trailer"``.
        start: Its first byte, counted from the frame's first byte.
        stop: The byte after its last one.
        declared: The number that a length field says; None for other parts.
    """

    name: str
    start: int
    stop: int
    declared: int | None = None


def dissect(codec: Codec, frame: bytes, message: object) -> list[Part]:
    """Return the parts of a frame, from its first byte to its last.

    Args:
        codec: The codec of the frame.
        frame: One whole frame.
        message: What `Codec.decode` returns for it.
    """
    parameters = codec.parameters
    magic = len(parameters.get("magic") or b"")
    size = len(frame)
    if not isinstance(message, bytes):  # a special value: a header without anything after it
        trailer = check = 0
        rest = 0
    else:
        trailer = len(parameters.get("trailer") or b"")
        check = _check_size(parameters)
        rest = len(message)
    lead = 0
    read = _READ_LENGTH.get(codec.kind)
    if read is not None:
        offset = parameters.get("length_offset")
        lead = 0 if offset is None else offset - magic
        rest = max(0, rest - lead)
    elif codec.kind == "custom":
        rest = _common_end(frame[: size - trailer], message)
    stop = size - trailer - check
    header = stop - rest
    sizes = [
        ("magic", magic),
        ("lead", lead),
        ("length" if read else "header", header - magic - lead),
        ("rest", rest),
        ("check", check),
        ("trailer", trailer),
    ]
    parts, at = [], 0
    for name, count in sizes:
        if count > 0:
            part = frame[at : at + count]
            declared = read(part, parameters) if read and name == "length" else None
            parts.append(Part(name, at, at + count, declared))
            at += count
    return parts


def _check_size(parameters: Any) -> int:
    check = parameters.get("check")
    return 0 if check is None else check.width + len(check.before)


def _common_end(frame: bytes, message: object) -> int:
    """Return how many bytes at the end of a frame are also at the end of its message."""
    if not isinstance(message, bytes):
        return 0
    low, high = 0, min(len(frame), len(message))
    while low < high:  # comparing slices is faster than comparing bytes one by one
        middle = (low + high + 1) // 2
        if frame[-middle:] == message[-middle:]:
            low = middle
        else:
            high = middle - 1
    return low


# --- the number in a length field, by the kind of the codec ---------------------------------------


def _read_uint(part: bytes, parameters: Any) -> int:
    order = parameters["byteorder"]
    if order == "native":
        import sys

        order = sys.byteorder
    return int.from_bytes(part, order, signed=parameters["signed"])


def _read_struct(part: bytes, parameters: Any) -> int:
    import struct

    value: int = struct.unpack(parameters["fmt"], part)[0]
    return value


def _read_digits(part: bytes, parameters: Any) -> int | None:
    if parameters["base"] == "bcd":
        return int(part.hex())
    return int(part, parameters["base"])


def _read_text(part: bytes, parameters: Any) -> int:
    return int(part.removesuffix(parameters["end"]), parameters["base"])


def _read_varint(part: bytes, parameters: Any) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(part))


def _read_headers(part: bytes, parameters: Any) -> int | None:
    for line in part.split(b"\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == parameters["name"].lower().encode() and value.strip().isdigit():
            return int(value)
    return None


# A kind that is not in this table has a header whose inside is not shown.
_READ_LENGTH: dict[str, Callable[[bytes, Any], int | None]] = {
    "uint": _read_uint,
    "struct": _read_struct,
    "digits": _read_digits,
    "text": _read_text,
    "varint": _read_varint,
    "headers": _read_headers,
}
