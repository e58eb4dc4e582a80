"""The parts of a frame: which bytes the codec owns, and which are the message's."""

from __future__ import annotations

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
        sizes = _sizes_by_field(codec, frame, message)
    parts, at = [], 0
    for name, count in sizes:
        if count > 0:
            part = frame[at : at + count]
            declared = read(part, codec) if read and name == "length" else None
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
_FIXED_WIDTH = ("uint", "struct", "digits")  # kinds whose length field always has the same size


def _sizes_by_field(codec: Codec[Any], frame: bytes, message: object) -> _Sizes:
    """Return the parts' sizes, for a length field at an offset."""
    parameters = codec.parameters
    magic = len(parameters.get("magic") or b"")
    offset = parameters.get("length_offset")
    lead = 0 if offset is None else offset - magic
    if not isinstance(message, bytes):  # a special value: a header without anything after it
        return [("magic", magic), ("lead", lead), ("length", len(frame) - magic - lead)]
    trailer, check = len(parameters.get("trailer") or b""), _check_size(parameters)
    rest = max(0, len(message) - lead - len(codec.layout.kept))
    field = len(frame) - magic - lead - rest - check - trailer
    padding = 0
    if codec.kind in _FIXED_WIDTH and codec.layout.align > 1:
        field, padding = codec.layout.field_width, field - codec.layout.field_width
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


def _read_binary(part: bytes, codec: Codec[Any]) -> int:
    layout = codec.layout
    field, wider = part[: layout.field_width], part[layout.field_width :]
    value = int.from_bytes(field, layout.byteorder, signed=layout.signed)
    value &= layout.mask or -1
    if wider:
        (little,) = (wide.little for wide in layout.wider if wide.key == value)
        return int.from_bytes(wider, "little" if little else "big")
    return value


def _read_digits(part: bytes, codec: Codec[Any]) -> int:
    base = codec.parameters["base"]
    return int(part.hex()) if base == "bcd" else int(part, base)


def _read_text(part: bytes, codec: Codec[Any]) -> int:
    return int(part.removesuffix(codec.parameters["end"]), codec.parameters["base"])


def _read_varint(part: bytes, codec: Codec[Any]) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(part))


def _read_ber(part: bytes, codec: Codec[Any]) -> int:
    return part[0] if len(part) == 1 else int.from_bytes(part[1:], "big")


def _read_headers(part: bytes, codec: Codec[Any]) -> int:
    known = (codec.parameters["name"], *codec.parameters["names"])
    names = {name.lower().encode() for name in known}
    lines = (line.partition(b":") for line in part.split(b"\n"))
    return next(int(value) for name, _, value in lines if name.lower() in names)


# A kind that is not in this table has a header whose inside is not shown.
_READ_LENGTH: dict[str, Callable[[bytes, Codec[Any]], int]] = {
    "uint": _read_binary,
    "struct": _read_binary,
    "digits": _read_digits,
    "text": _read_text,
    "varint": _read_varint,
    "ber": _read_ber,
    "headers": _read_headers,
}
