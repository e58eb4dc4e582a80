"""The loops over ordinary frames that begin with a length, in Python: one for each kind of field.

A loop takes ``(reader, data, pos, found)``. From `pos` on, it appends the messages of the frames
that are ordinary and whole in `data` to `found`. It returns where the first frame begins that is
not, where the rest of that frame begins, and where the rest ends: after the end of `data` if the
chunk cuts the frame off. Instead of the rest's end it returns

* ``IN_ORDINARY_HEADER`` if the chunk ends inside the header, or before it, and nothing in it is
  wrong so far;
* ``IS_ODD`` if the slow path has to read the frame: it is special, too large or wrong in any way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ._fields_py import reader_of
from ._layout import BCD, BER, DIGITS, FIXED, HEADERS, TEXT, UINT, VARINT, Layout

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = ["IN_ORDINARY_HEADER", "IS_ODD", "Loop", "loop_of"]

IN_ORDINARY_HEADER, IS_ODD = -1, 0

Loop = Callable[["FrameReader", bytes, int, list[bytes]], tuple[int, int, int]]

# Fewer digits, or bytes of a varint, than any length over 64 bits has.
_MOST_DIGITS, _MOST_BYTES = 18, 9

# As in _header_block.py.
_LINE = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n"


def loop_of(layout: Layout) -> Loop | None:
    """Return the loop for a layout; None if its frames have more than length, rest and trailer."""
    if layout.field_offset or layout.extended:
        return None
    if layout.kind == HEADERS:
        strict = not (layout.lenient or layout.start_line or layout.keep or layout.magic)
        return _take_headers if strict and layout.line_end == b"\r\n" else None
    if layout.kind == VARINT:
        return _take_varint
    if layout.kind in (DIGITS, TEXT) and layout.base == 10 and not layout.trailing_blanks:
        return _take_digits if layout.kind == DIGITS else _take_text
    return _take_others if layout.kind in (UINT, DIGITS, TEXT, BCD, BER, FIXED) else None


def _take_digits(
    reader: FrameReader, data: bytes, pos: int, found: list[bytes]
) -> tuple[int, int, int]:
    size, append, trailer = len(data), found.append, reader._trailer
    low, high, adjustment = reader._quick_low, reader._quick_high, reader._adjustment
    width, tail_size = reader._header_size, len(trailer)
    if high >= size and not (low or adjustment or tail_size) and width <= _MOST_DIGITS:
        # The same with four steps less: a length that is too large goes past the end of the data.
        while True:
            rest_pos = pos + width
            digits = data[pos:rest_pos]
            if rest_pos > size or not digits.isdigit():
                break
            stop = rest_pos + int(digits)
            if stop > size:
                return pos, rest_pos, stop if stop - rest_pos <= high else IS_ODD
            append(data[rest_pos:stop])
            pos = stop
    while True:
        rest_pos = pos + width
        digits = data[pos:rest_pos]
        if rest_pos > size:
            ordinary = not digits or (digits.isdigit() and width <= _MOST_DIGITS)
            return pos, 0, IN_ORDINARY_HEADER if ordinary else IS_ODD
        if not digits.isdigit():
            return pos, 0, IS_ODD
        value = int(digits)
        if value > high or value < low:
            return pos, 0, IS_ODD
        rest_stop = rest_pos + value + adjustment
        stop = rest_stop + tail_size
        if stop > size:
            return pos, rest_pos, rest_stop
        if tail_size and data[rest_stop:stop] != trailer:
            return pos, 0, IS_ODD
        append(data[rest_pos:rest_stop])
        pos = stop


def _take_varint(
    reader: FrameReader, data: bytes, pos: int, found: list[bytes]
) -> tuple[int, int, int]:
    size, append, trailer = len(data), found.append, reader._trailer
    low, high, adjustment = reader._quick_low, reader._quick_high, reader._adjustment
    width, tail_size = reader._layout.field_width, len(trailer)
    if high >= size and not (low or adjustment or tail_size):  # as in _take_digits
        while pos < size:
            value, rest_pos = data[pos], pos + 1
            if value > 127:
                second = data[rest_pos] if rest_pos < size else 0
                if not 0 < second < 128 or width == 1:
                    break
                value += (second << 7) - 128
                rest_pos += 1
            stop = rest_pos + value
            if stop > size:
                return pos, rest_pos, stop if value <= high else IS_ODD
            append(data[rest_pos:stop])
            pos = stop
    while pos < size:
        value, rest_pos = data[pos], pos + 1
        if value > 127:
            second = data[rest_pos] if rest_pos < size else 0
            if 0 < second < 128 and width > 1:  # two bytes, as most have
                value += (second << 7) - 128
                rest_pos += 1
            else:
                value, rest_pos = _read_long_varint(data, pos, width)
                if not rest_pos:
                    return pos, 0, value
        if value > high or value < low:
            return pos, 0, IS_ODD
        rest_stop = rest_pos + value + adjustment
        stop = rest_stop + tail_size
        if stop > size:
            return pos, rest_pos, rest_stop
        if tail_size and data[rest_stop:stop] != trailer:
            return pos, 0, IS_ODD
        append(data[rest_pos:rest_stop])
        pos = stop
    return pos, 0, IN_ORDINARY_HEADER


def _read_long_varint(data: bytes, pos: int, width: int) -> tuple[int, int]:
    """Return the value and where it ends; if it is not whole, what a loop returns, and 0."""
    value = shift = 0
    for byte in data[pos : pos + min(width, _MOST_BYTES)]:
        value |= (byte & 127) << shift
        pos += 1
        if byte < 128:
            return (value, pos) if byte else (IS_ODD, 0)
        shift += 7
    is_cut = pos == len(data) and shift < 7 * min(width, _MOST_BYTES)
    return IN_ORDINARY_HEADER if is_cut else IS_ODD, 0


def _take_text(
    reader: FrameReader, data: bytes, pos: int, found: list[bytes]
) -> tuple[int, int, int]:
    size, append, trailer, find = len(data), found.append, reader._trailer, data.find
    low, high, adjustment = reader._quick_low, reader._quick_high, reader._adjustment
    layout, tail_size = reader._layout, len(trailer)
    end, zeros, most_digits = layout.end, layout.leading_zeros, layout.max_digits
    end_size = len(end)
    most = most_digits + end_size
    if high >= size and not (low or adjustment or zeros) and tail_size == 1:
        tail = trailer[0]  # as in _take_digits
        while True:
            end_pos = find(end, pos, pos + most)
            if end_pos < 0:
                break
            digits = data[pos:end_pos]
            if not digits.isdigit() or (data[pos] == 0x30 and end_pos > pos + 1):
                break
            rest_pos = end_pos + end_size
            stop = rest_pos + int(digits)
            if stop >= size:
                return pos, rest_pos, stop if stop - rest_pos <= high else IS_ODD
            if data[stop] != tail:
                return pos, 0, IS_ODD
            append(data[rest_pos:stop])
            pos = stop + 1
    while True:
        end_pos = find(end, pos, pos + most)
        if end_pos < 0:
            digits = data[pos : pos + most]
            ordinary = not digits or (
                digits.isdigit()
                and len(digits) <= min(most_digits, _MOST_DIGITS)
                and (digits[0] != 0x30 or zeros or len(digits) == 1)
            )
            return pos, 0, IN_ORDINARY_HEADER if ordinary else IS_ODD
        digits = data[pos:end_pos]
        if not digits.isdigit() or (data[pos] == 0x30 and end_pos > pos + 1 and not zeros):
            return pos, 0, IS_ODD
        value = int(digits)
        if value > high or value < low:
            return pos, 0, IS_ODD
        rest_pos = end_pos + end_size
        rest_stop = rest_pos + value + adjustment
        stop = rest_stop + tail_size
        if stop > size:
            return pos, rest_pos, rest_stop
        if tail_size and data[rest_stop:stop] != trailer:
            return pos, 0, IS_ODD
        append(data[rest_pos:rest_stop])
        pos = stop


def _take_headers(
    reader: FrameReader, data: bytes, pos: int, found: list[bytes]
) -> tuple[int, int, int]:
    size, append, trailer = len(data), found.append, reader._trailer
    low, high, adjustment = reader._quick_low, reader._quick_high, reader._adjustment
    layout, tail_size = reader._layout, len(trailer)
    (match, match_begun), most = _block(layout.lower_names), layout.max_header
    while True:
        block = match(data, pos, pos + most)
        if block is None:
            ordinary = size - pos < most and (
                data.find(b"\n", pos) < 0 or match_begun(data, pos) is not None
            )
            return pos, 0, IN_ORDINARY_HEADER if ordinary else IS_ODD
        value = int(block[1])
        if value > high or value < low:
            return pos, 0, IS_ODD
        rest_pos = block.end()
        rest_stop = rest_pos + value + adjustment
        stop = rest_stop + tail_size
        if stop > size:
            return pos, rest_pos, rest_stop
        if tail_size and data[rest_stop:stop] != trailer:
            return pos, 0, IS_ODD
        append(data[rest_pos:rest_stop])
        pos = stop


@lru_cache(maxsize=64)
def _block(names: tuple[bytes, ...]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what matches a block with one length, and what matches all that begins such a block.

    No repetition is tried a second time.
    """
    name = b"(?i:" + b"|".join(map(re.escape, names)) + b"):"
    other_lines = b"(?:(?!" + name + b")" + _LINE + b")*+"
    length = name + rb"[ \t]*+(0|[1-9][0-9]{0,17}+)[ \t]*+\r\n"
    whole = re.compile(other_lines + length + other_lines + rb"\r\n")
    begun = re.compile(other_lines + b"(?:" + length + other_lines + rb")?+[^\n]*+\Z")
    return whole.match, begun.match


def _take_others(
    reader: FrameReader, data: bytes, pos: int, found: list[bytes]
) -> tuple[int, int, int]:
    size, append, trailer = len(data), found.append, reader._trailer
    low, high, adjustment = reader._quick_low, reader._quick_high, reader._adjustment
    layout, tail_size = reader._layout, len(trailer)
    read_field = reader_of(layout)
    while pos < size:
        field = read_field(layout, data, pos)
        if field is None:
            return pos, 0, IS_ODD
        value, rest_pos = field
        if value > high or value < low:
            return pos, 0, IS_ODD
        rest_stop = rest_pos + value + adjustment
        stop = rest_stop + tail_size
        if stop > size:
            return pos, rest_pos, rest_stop
        if tail_size and data[rest_stop:stop] != trailer:
            return pos, 0, IS_ODD
        append(data[rest_pos:rest_stop])
        pos = stop
    return pos, 0, IN_ORDINARY_HEADER
