"""The length fields: for each kind a function that reads a whole one, and one that raises errors.

A reader of the fast path, `reader_of(layout)`, takes ``(layout, data, pos)``. It returns the value
and the position after the field, or None for everything that is not whole and ordinary.

A parser of the slow path, `PARSE_FIELD`, takes ``(layout, header, stream_offset)``: the frame from
its first byte on, as far as it arrived. It returns the header's size and the field's value, or None
if more bytes are needed. It checks the bytes in the order of arrival, and raises an
`InvalidFrameError` at the first wrong one, so that the error does not depend on the chunks.

`check_constants`, `check_lead_constants` and `check_rest_size` are the other checks of a header.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from . import _error_texts
from ._encoder_py import STRUCT_FORMATS, struct_format
from ._layout import (
    BCD,
    BER,
    CHOICE,
    COBS,
    CUSTOM,
    DELIMITER,
    DIGITS,
    FIXED,
    HEADERS,
    MAX_VALUE,
    TEXT,
    UINT,
    VARINT,
    Layout,
)

__all__ = [
    "PARSE_FIELD",
    "Reader",
    "check_constants",
    "check_lead_constants",
    "check_magic",
    "check_rest_size",
    "common_size",
    "reader_of",
    "skip_frames",
    "unpacker",
]

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


def _read_wide(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    """Read a field with a mask, or with wider ones after it."""
    stop = pos + layout.field_width
    if stop > len(data):
        return None
    value = int.from_bytes(data[pos:stop], layout.byteorder)
    if layout.mask:
        value &= layout.mask
    for wide in layout.wider:
        if wide.key == value:
            wide_stop = stop + wide.width
            if wide_stop > len(data):
                return None
            value = int.from_bytes(data[stop:wide_stop], "little" if wide.little else "big")
            if layout.wider_strict and (value < wide.least or layout.holds(value)):
                return None
            return value, wide_stop
    return value, stop


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
    stop = data.find(end, pos, pos + layout.max_digits + len(end))
    if stop < 0 or (data[pos] == 0x30 and stop > pos + 1 and not layout.leading_zeros):
        return None
    digits = data[pos:stop]
    value = _to_int(digits.rstrip(b" \t") if layout.trailing_blanks else digits, layout.base)
    return None if value is None else (value, stop + len(end))


def _read_bcd(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    stop = pos + layout.field_width
    digits = data[pos:stop].hex()
    return (int(digits), stop) if stop <= len(data) and digits.isdigit() else None


def _read_ber(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    if pos >= len(data):
        return None
    size = data[pos] - 0x80
    if size < 0:
        return size + 0x80, pos + 1
    stop = pos + 1 + size
    if not 0 < size < layout.field_width or stop > len(data):
        return None
    return int.from_bytes(data[pos + 1 : stop], "big"), stop


def _read_fixed(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    return layout.size, pos


def _read_nothing(layout: Layout, data: bytes, pos: int) -> None:
    return None


_READ_FIELD: dict[int, Reader] = {
    UINT: _read_uint,
    DIGITS: _read_digits,
    VARINT: _read_varint,
    TEXT: _read_text,
    BCD: _read_bcd,
    BER: _read_ber,
    FIXED: _read_fixed,
    HEADERS: _read_nothing,
    CUSTOM: _read_nothing,
    DELIMITER: _read_nothing,
    COBS: _read_nothing,
    CHOICE: _read_nothing,  # its alternatives have readers
}


def _read_front(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    """Read a field with a check after it."""
    found = _reader_of_field(layout)(layout, data, pos)
    if found is None or found[1] + layout.front_check_size > len(data):
        return None
    return found[0], found[1] + layout.front_check_size


def reader_of(layout: Layout) -> Reader:
    """Return the reader of what is before a layout's rest: the length field, a check."""
    return _read_front if layout.front_check_size else _reader_of_field(layout)


def _reader_of_field(layout: Layout) -> Reader:
    return _read_wide if layout.mask or layout.wider else _READ_FIELD[layout.kind]


def unpacker(layout: Layout) -> Callable[[bytes, int], tuple[int]] | None:
    """Return the fastest reader of the commonest fields, or None.

    It reads a negative value as one over any limit.
    """
    if layout.kind != UINT or layout.field_width not in STRUCT_FORMATS:
        return None
    return struct.Struct(struct_format(layout)).unpack_from


# --- the slow path --------------------------------------------------------------------------------


def _parse_uint(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int] | None:
    pos, stop = layout.field_offset, layout.field_offset + layout.field_width
    if len(header) < stop:
        return None
    value = int.from_bytes(header[pos:stop], layout.byteorder, signed=layout.signed)
    if layout.mask:
        value &= layout.mask
    if not layout.wider:
        return stop, value
    wide = next((wide for wide in layout.wider if wide.key == value), None)
    if wide is None:
        return stop, value
    pos, stop = stop, stop + wide.width
    if len(header) < stop:
        return None
    value = int.from_bytes(header[pos:stop], "little" if wide.little else "big")
    if layout.wider_strict and (value < wide.least or layout.holds(value)):
        raise _error_texts.wider_than_needed(value, stream_offset, bytes(header[:stop]))
    return stop, value


def _parse_digits(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int] | None:
    value = 0
    for pos in range(layout.field_offset, min(len(header), layout.header_size)):
        digit = _digit(header[pos], layout.base)
        if digit < 0:
            raise _error_texts.not_a_digit(
                layout.base, b"", pos, stream_offset, bytes(header[: pos + 1])
            )
        value = value * layout.base + digit
        if value > MAX_VALUE:
            raise _error_texts.length_over_64_bits(stream_offset, bytes(header[: pos + 1]))
    return (layout.header_size, value) if len(header) >= layout.header_size else None


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
        if pos - first_pos == layout.max_digits:
            seen = bytes(header[: pos + 1])
            raise _error_texts.too_many_digits(layout.max_digits, stream_offset, seen)
        leading = pos > first_pos and not value and not layout.leading_zeros
        if leading or (negative and not digit and not value):
            raise _error_texts.leading_zero(stream_offset, bytes(header[: pos + 1]))
        value = value * layout.base + digit
        if value > MAX_VALUE:
            raise _error_texts.length_over_64_bits(stream_offset, bytes(header[: pos + 1]))
        pos += 1
    else:
        return None
    if pos == first_pos and header[pos] == layout.end[0]:
        raise _error_texts.no_digits(pos, stream_offset, bytes(header[: pos + 1]))
    if layout.trailing_blanks and pos > first_pos:
        while header[pos] in b" \t":
            if pos - first_pos == layout.max_digits:
                seen = bytes(header[: pos + 1])
                raise _error_texts.too_many_digits(layout.max_digits, stream_offset, seen)
            pos += 1
            if pos == len(header):
                return None
    right = common_size(header[pos:], layout.end)
    if right == len(layout.end):
        return pos + right, -value if negative else value
    if pos + right == len(header):
        return None
    pos += right
    raise _error_texts.not_a_digit(
        layout.base, layout.end, pos, stream_offset, bytes(header[: pos + 1])
    )


def _parse_bcd(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int] | None:
    value = 0
    for pos in range(layout.field_offset, min(len(header), layout.header_size)):
        tens, ones = header[pos] >> 4, header[pos] & 15
        if tens > 9 or ones > 9:
            raise _error_texts.not_packed_decimal(pos, stream_offset, bytes(header[: pos + 1]))
        value = value * 100 + 10 * tens + ones
        if value > MAX_VALUE:
            raise _error_texts.length_over_64_bits(stream_offset, bytes(header[: pos + 1]))
    return (layout.header_size, value) if len(header) >= layout.header_size else None


def _parse_ber(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int] | None:
    pos = layout.field_offset
    if len(header) <= pos:
        return None
    if header[pos] < 0x80:
        return pos + 1, header[pos]
    size = header[pos] - 0x80
    if not 0 < size < layout.field_width:
        seen = bytes(header[: pos + 1])
        raise _error_texts.bad_ber_length(layout.field_width - 1, stream_offset, seen)
    stop = pos + 1 + size
    return (stop, int.from_bytes(header[pos + 1 : stop], "big")) if len(header) >= stop else None


def _parse_fixed(layout: Layout, header: bytearray, stream_offset: int) -> tuple[int, int]:
    return layout.field_offset, layout.size


PARSE_FIELD: dict[int, Parser] = {
    UINT: _parse_uint,
    DIGITS: _parse_digits,
    VARINT: _parse_varint,
    TEXT: _parse_text,
    BCD: _parse_bcd,
    BER: _parse_ber,
    FIXED: _parse_fixed,
}


# --- constants and sizes --------------------------------------------------------------------------


def check_magic(layout: Layout, header: bytearray, stream_offset: int) -> None:
    """Check the magic, as far as the header arrived."""
    magic = layout.magic
    if not header.startswith(magic[: len(header)]):
        right = common_size(header, magic)
        raise _error_texts.wrong_magic(magic, stream_offset, bytes(header[: right + 1]))


def check_lead_constants(layout: Layout, header: bytearray, stream_offset: int) -> None:
    """Check the constants in the lead, as far as the header arrived."""
    for pos, constant in layout.constants:
        if pos < layout.field_offset:
            _check_constant(header, pos, constant, stream_offset)


def check_constants(
    layout: Layout, header: bytearray, header_size: int, stream_offset: int
) -> bytes:
    """Check the constants in the rest; return its gathered bytes, up to the last constant."""
    for pos, constant in layout.constants:
        if pos >= header_size:
            _check_constant(header, pos, constant, stream_offset)
    return bytes(header[header_size : layout.prefix_size])


def _check_constant(header: bytearray, pos: int, constant: bytes, stream_offset: int) -> None:
    found = header[pos : pos + len(constant)]
    right = common_size(found, constant)
    if right < len(found):
        seen = bytes(header[: pos + right + 1])
        raise _error_texts.wrong_constant(pos, constant, stream_offset, seen)


def check_rest_size(
    layout: Layout, header: bytes, value: int, lead_size: int, stream_offset: int
) -> int:
    """Return the size of the rest, which may be too large; raise if it is too small."""
    rest_size = value * layout.unit + layout.adjustment
    if rest_size < 0 and value >= 0 and layout.counts_frame:
        least = len(header) + layout.front_check_size + layout.tail_size
        raise _error_texts.smaller_than_frame(value, least, stream_offset, header)
    if rest_size < 0 or value < 0:
        raise _error_texts.negative_length(
            value, layout.unit, layout.adjustment, stream_offset, header
        )
    if lead_size + rest_size < layout.min_message_size:
        raise _error_texts.declared_too_small(
            lead_size + rest_size, layout.min_message_size, stream_offset, header
        )
    least = layout.prefix_size - len(header) - layout.front_check_size
    if rest_size < least:
        raise _error_texts.rest_before_constant(rest_size, least, stream_offset, header)
    return rest_size


def skip_frames(layout: Layout, data: bytes, pos: int, count: int) -> int:
    """Return where the next frame begins after `count` frames that a fast path took.

    An interruption can come after the delivery of a message and before it is counted.
    """
    read_field = reader_of(layout)
    for _ in range(count):
        found = read_field(layout, data, pos + layout.field_offset)
        assert found is not None
        value, rest_pos = found
        stop = rest_pos + value * layout.unit + layout.adjustment + layout.tail_size
        pos = stop + layout.padding(stop - pos)
    return pos


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
    pos, size = 0, min(len(data), len(expected))
    while pos < size and data[pos] == expected[pos]:  # a generator could swallow an interruption
        pos += 1
    return pos
