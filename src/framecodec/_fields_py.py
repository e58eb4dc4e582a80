"""The length fields: one function for each kind that reads a whole one, and one that knows errors.

A reader of the fast path, `READ_FIELD`, takes ``(layout, data, pos)`` and returns the field's value
and the position after it, or None for everything that is not whole and ordinary.

A parser of the slow path, `PARSE_FIELD`, takes ``(layout, header, stream_offset)``: the frame from
its first byte on, as far as it arrived. It returns the header's size and the field's value, or None
if more bytes are needed. It checks the bytes in the order of arrival, and raises an
`InvalidFrameError` at the first wrong one, so that the error does not depend on the chunks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from . import _error_texts
from ._encoder_py import STRUCT_FORMATS, struct_format
from ._layout import CUSTOM, DIGITS, HEADERS, MAX_VALUE, TEXT, UINT, VARINT, Layout

__all__ = ["PARSE_FIELD", "READ_FIELD", "Reader", "common_size", "unpacker"]

Reader = Callable[[Layout, bytes, int], tuple[int, int] | None]
Parser = Callable[[Layout, bytearray, int], tuple[int, int] | None]

_DECIMAL = b"0123456789"
_HEXADECIMAL = b"0123456789abcdefABCDEF"


# --- the fast path --------------------------------------------------------------------------------


def _read_uint(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    stop = pos + layout.field_width
    if stop > len(data):
        return None
    return int.from_bytes(data[pos:stop], layout.byteorder), stop


def _read_digits(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    stop = pos + layout.field_width
    value = _to_int(data[pos:stop], layout.base) if stop <= len(data) else None
    return None if value is None else (value, stop)


def _read_varint(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    value = 0
    for index, byte in enumerate(data[pos : pos + layout.field_width]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return None if not byte and index else (value, pos + index + 1)
    return None


def _read_text(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    end = layout.end
    stop = data.find(end, pos, pos + 20 + len(end))
    if stop < 0 or (data[pos] == 0x30 and stop > pos + 1):
        return None
    value = _to_int(data[pos:stop], layout.base)
    return None if value is None else (value, stop + len(end))


def _read_nothing(layout: Layout, data: bytes, pos: int) -> None:
    return None


READ_FIELD: dict[int, Reader] = {
    UINT: _read_uint,
    DIGITS: _read_digits,
    VARINT: _read_varint,
    TEXT: _read_text,
    HEADERS: _read_nothing,
    CUSTOM: _read_nothing,
}


def unpacker(layout: Layout) -> Callable[[bytes, int], tuple[int]] | None:
    """Return the fastest reader of the commonest fields, or None.

    It reads a negative value as one over any limit.
    """
    if layout.kind != UINT or layout.field_width not in STRUCT_FORMATS:
        return None
    return struct.Struct(struct_format(layout)).unpack_from


# --- the slow path --------------------------------------------------------------------------------


def _parse_uint(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int] | None:
    if len(header) < layout.header_size:
        return None
    field = header[layout.field_offset : layout.header_size]
    return layout.header_size, int.from_bytes(field, layout.byteorder, signed=layout.signed)


def _parse_digits(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int] | None:
    value = 0
    for pos in range(layout.field_offset, len(header)):
        digit = _digit(header[pos], layout.base)
        if digit < 0:
            raise _error_texts.not_a_digit(
                layout.base, b"", pos, stream_offset, bytes(header[: pos + 1])
            )
        value = value * layout.base + digit
        if value > MAX_VALUE:
            raise _error_texts.length_over_64_bits(stream_offset, bytes(header[: pos + 1]))
    return (layout.header_size, value) if len(header) == layout.header_size else None


def _parse_varint(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int] | None:
    value = 0
    for pos in range(layout.field_offset, len(header)):
        byte, index = header[pos], pos - layout.field_offset
        if index == 9 and byte & 0x7E:
            raise _error_texts.length_over_64_bits(stream_offset, bytes(header[: pos + 1]))
        value |= (byte & 0x7F) << 7 * index
        if byte >= 0x80:
            if index + 1 == layout.field_width:
                raise _error_texts.varint_too_long(
                    layout.field_width, stream_offset, bytes(header[: pos + 1])
                )
        elif not byte and index:
            raise _error_texts.varint_not_shortest(stream_offset, bytes(header[: pos + 1]))
        else:
            return pos + 1, value
    return None


def _parse_text(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int] | None:
    pos = layout.field_offset
    # A minus sign is allowed only if the codec has negative special values.
    negative = len(header) > pos and header[pos] == 0x2D and min(layout.specials, default=0) < 0
    pos = first_pos = pos + negative
    value = 0
    while pos < len(header):
        digit = _digit(header[pos], layout.base)
        if digit < 0:
            break
        if (pos > first_pos and not value) or (negative and not digit and not value):
            raise _error_texts.leading_zero(stream_offset, bytes(header[: pos + 1]))
        value = value * layout.base + digit
        if value > MAX_VALUE:
            raise _error_texts.length_over_64_bits(stream_offset, bytes(header[: pos + 1]))
        pos += 1
    else:
        return None
    if pos == first_pos and header[pos] == layout.end[0]:
        raise _error_texts.no_digits(pos, stream_offset, bytes(header[: pos + 1]))
    right = common_size(header[pos:], layout.end)
    if right == len(layout.end):
        return pos + right, -value if negative else value
    if pos + right == len(header):
        return None
    pos += right
    raise _error_texts.not_a_digit(
        layout.base, layout.end, pos, stream_offset, bytes(header[: pos + 1])
    )


PARSE_FIELD: dict[int, Parser] = {
    UINT: _parse_uint,
    DIGITS: _parse_digits,
    VARINT: _parse_varint,
    TEXT: _parse_text,
}


# --- digits and bytes -----------------------------------------------------------------------------


def _to_int(digits: bytes, base: int) -> int | None:
    # int() alone would also read signs, spaces and underscores.
    if base == 10:
        return int(digits) if digits.isdigit() else None
    return int(digits, 16) if digits and not digits.strip(_HEXADECIMAL) else None


def _digit(byte: int, base: int) -> int:
    """Return the digit's value, or -1."""
    digits = _DECIMAL if base == 10 else _HEXADECIMAL
    found = digits.find(byte)
    return found if found < 16 else found - 6


def common_size(data: bytes | bytearray, expected: bytes) -> int:
    """Return how many first bytes are the same."""
    size = min(len(data), len(expected))
    return next((pos for pos in range(size) if data[pos] != expected[pos]), size)
