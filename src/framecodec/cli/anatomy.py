"""The parts of a frame: which bytes the codec owns, and which are the message's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import Codec

__all__ = ["Part", "alternatives", "dissect"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a frame.

    Attributes:
        name: ``"magic"``, ``"lead"``, ``"length"``, ``"header"``, ``"rest"``, ``"check"``,
            ``"trailer"`` or ``"padding"``.
        start: Its first byte, counted from the frame's first byte.
        stop: The byte after its last one.
        declared: The number that a length field says; None for other parts.
    """

    name: str
    start: int
    stop: int
    declared: int | None = None


def dissect(codec: Codec[Any], frame: bytes, message: object) -> list[Part]:
    """Return the parts of a frame, from its first byte to its last.

    Args:
        codec: The codec of the frame.
        frame: One whole frame.
        message: What `Codec.decode` returns for it.
    """
    if codec.kind == "choice" and (chosen := _chosen(codec, frame)) is not None:
        return dissect(chosen, frame, chosen.decode(frame))
    if "fragments" in codec.parameters:
        return list(_dissect_fragments(codec.parameters["fragments"], frame))
    parameters = codec.parameters
    read = _READ_LENGTH.get(codec.kind)
    if codec.layout.marks:
        sizes = _sizes_by_mark(codec, frame, message)
    elif read is None:
        sizes = _sizes_by_message(frame, message, parameters)
    else:
        sizes = _sizes_by_field(codec.kind, frame, message, parameters)
    parts, at = [], 0
    for name, count in sizes:
        if count > 0:
            part = frame[at : at + count]
            declared = read(part, parameters) if read and name == "length" else None
            parts.append(Part(name, at, at + count, declared))
            at += count
    return parts


def alternatives(codec: Codec[Any]) -> Iterator[tuple[frozenset[int], Codec[Any]]]:
    """Yield the codecs of a choice, and the values of the whole byte that choose each.

    Args:
        codec: A choice.
    """
    parameters = codec.parameters
    mask, left = parameters["mask"], set(range(256))
    others = None
    for key, value in parameters["alternatives"].items():
        values, alternative = value if parameters["tagged"] else (key, value)
        if values is None:
            others = alternative
            continue
        wanted = {values} if isinstance(values, int) else set(values)
        bytes_ = frozenset(byte for byte in range(256) if byte & mask in wanted)
        left -= bytes_
        yield bytes_, alternative
    if others is not None:
        yield frozenset(left), others


def _chosen(codec: Codec[Any], frame: bytes) -> Codec[Any] | None:
    """Return the alternative of a choice that reads a frame."""
    offset = codec.parameters["offset"]
    for values, alternative in alternatives(codec):
        if frame[offset : offset + 1] and frame[offset] in values:
            return alternative
    return None


def _dissect_fragments(codec: Codec[Any], frames: bytes) -> Iterator[Part]:
    """Yield the parts of the frames of a joined message."""
    start = 0
    for frame in map(bytes, codec.scan(frames, raw=True)):
        for part in dissect(codec, frame, codec.decode(frame)):
            yield Part(part.name, start + part.start, start + part.stop, part.declared)
        start += len(frame)


_Sizes = list[tuple[str, int]]


def _sizes_by_field(kind: str, frame: bytes, message: object, parameters: Any) -> _Sizes:
    """Return the parts' sizes, for a length field at an offset."""
    magic = len(parameters.get("magic") or b"")
    offset = parameters.get("length_offset")
    lead = 0 if offset is None else offset - magic
    if not isinstance(message, bytes):  # a special value: a header without anything after it
        return [("magic", magic), ("lead", lead), ("length", len(frame) - magic - lead)]
    trailer, check = len(parameters.get("trailer") or b""), _check_size(parameters)
    rest = max(0, len(message) - lead - _kept_bytes(parameters))
    field = len(frame) - magic - lead - rest - check - trailer
    padding = 0
    width = _field_width(kind, frame[magic + lead :], parameters)
    if width is not None and (parameters.get("align") or 1) > 1:
        field, padding = width, field - width
    after = [("rest", rest), ("check", check)]
    if check and parameters["check"].position == "front":
        after.reverse()
    ends = [("trailer", trailer), ("padding", padding)]
    return [("magic", magic), ("lead", lead), ("length", field), *after, *ends]


def _sizes_by_message(frame: bytes, message: Any, parameters: Any) -> _Sizes:
    """Return the parts' sizes, for a header whose inside is not known: from the message's place.

    The message is bytes: only a length field has special values.
    """
    magic = len(parameters.get("magic") or b"")
    trailer, end = len(parameters.get("trailer") or b""), _check_size(parameters)
    front = end if end and parameters["check"].position == "front" else 0
    end -= front
    start = frame.find(message, magic) if message else len(frame) - trailer - end
    if start < 0:  # bytes of the message are before the length, or changed
        stop = len(frame) - trailer - end
        start = stop - _common_end(frame[:stop], message)
    else:
        stop = start + len(message)
        trailer = len(frame) - stop - end
    own = [("magic", magic), ("header", start - magic - front), ("check", front)]
    return [*own, ("rest", stop - start), ("check", end), ("trailer", trailer)]


def _sizes_by_mark(codec: Codec[Any], frame: bytes, message: object) -> _Sizes:
    """Return the parts' sizes for a frame that an end mark ends."""
    magic = len(codec.layout.magic)
    mark = max((mark for mark in codec.layout.marks if frame.endswith(mark)), key=len, default=b"")
    stop = len(frame) - len(mark)
    check = codec.layout.inner_check_size
    if check and isinstance(message, bytes) and stop - magic == len(message) + check:
        front = check if codec.parameters["check"].position == "front" else 0
        return [
            ("magic", magic),
            ("check", front),
            ("rest", len(message)),
            ("check", check - front),
            ("trailer", len(frame) - stop),
        ]
    if isinstance(message, bytes) and frame.startswith(message, magic):
        stop = magic + len(message)  # not escaped: the rest is the mark
    return [("magic", magic), ("rest", stop - magic), ("trailer", len(frame) - stop)]


def _kept_bytes(parameters: Any) -> int:
    """Return how many bytes of a masked length field are in the message, too."""
    mask, width = parameters.get("length_mask"), parameters.get("width") or 8
    if mask is None:
        return 0
    return sum((mask >> 8 * place) & 0xFF != 0xFF for place in range(width))


def _field_width(kind: str, field: bytes, parameters: Any) -> int | None:
    """Return the bytes of a length field of fixed width; None for other kinds."""
    if kind == "struct":
        import struct

        return struct.calcsize(parameters["fmt"])
    width: int | None = parameters.get("width") if kind in ("uint", "digits") else None
    return width


def _check_size(parameters: Any) -> int:
    check = parameters.get("check")
    return 0 if check is None else check.width + len(check.before)


def _common_end(frame: bytes, message: bytes) -> int:
    """Return how many bytes at the end of a frame are also at the end of its message."""
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
    order = sys.byteorder if parameters["byteorder"] == "native" else parameters["byteorder"]
    width, mask = parameters["width"], parameters["length_mask"]
    if len(part) > width:  # the length is in the wider field
        field = parameters["wider"][int.from_bytes(part[:width], order) & (mask or -1)]
        little = field.endswith("le") or (field.endswith("native") and sys.byteorder == "little")
        return int.from_bytes(part[width:], "little" if little else "big")
    value = int.from_bytes(part, order, signed=parameters["signed"])
    return value if mask is None else value & mask


def _read_struct(part: bytes, parameters: Any) -> int:
    import struct

    value: int = struct.unpack(parameters["fmt"], part)[0]
    return value


def _read_digits(part: bytes, parameters: Any) -> int:
    if parameters["base"] == "bcd":
        return int(part.hex())
    return int(part, parameters["base"])


def _read_text(part: bytes, parameters: Any) -> int:
    return int(part.removesuffix(parameters["end"]), parameters["base"])


def _read_varint(part: bytes, parameters: Any) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(part))


def _read_ber(part: bytes, parameters: Any) -> int:
    return part[0] if len(part) == 1 else int.from_bytes(part[1:], "big")


def _read_headers(part: bytes, parameters: Any) -> int:
    names = {known.lower().encode() for known in (parameters["name"], *parameters["names"])}
    lines = (line.partition(b":") for line in part.split(b"\n"))
    return next(int(value) for name, _, value in lines if name.lower() in names)


# A kind that is not in this table has a header whose inside is not shown.
_READ_LENGTH: dict[str, Callable[[bytes, Any], int]] = {
    "uint": _read_uint,
    "struct": _read_struct,
    "digits": _read_digits,
    "text": _read_text,
    "varint": _read_varint,
    "ber": _read_ber,
    "headers": _read_headers,
}
