"""Read a block of ``Name: value`` lines, the header of LSP, DAP and similar protocols.

Both engines call it: such a frame's cost lies in its lines, not in the language that splits them.

A line is read once, when its end arrives, so a block that comes byte by byte costs no more than one
that comes whole. The grammar is that of HTTP header fields without folding
(RFC 9112, section 5): names in any case, no space before the colon, spaces and tabs around the
value ignored.
"""

from __future__ import annotations

import re

from . import _error_texts
from ._layout import MAX_VALUE

__all__ = ["read_lines"]

# Single character classes: no input makes them backtrack.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_DIGITS = re.compile(rb"[0-9]+")


def read_lines(
    header: bytes | bytearray, line_pos: int, length: int, name: str, stream_offset: int
) -> tuple[int, int, bool]:
    """Read the lines that are complete.

    Args:
        header: The frame from its first byte on, as far as it arrived (or as far as it may go).
        line_pos: Where the first line that was not read yet begins.
        length: The length found in an earlier line, or -1.
        name: The header that holds the length.
        stream_offset: Of the frame, for errors.

    Returns:
        The position of the first line not read, the length found so far or -1, and whether the
        empty line that ends the block was reached.

    Raises:
        InvalidFrameError: A line is not a header line, its length is not a number, or the block has
            two lengths or none.
    """
    wanted = name.lower().encode()
    while (line_end := header.find(b"\n", line_pos)) >= 0:
        line = bytes(header[line_pos : line_end + 1])
        line_pos = line_end + 1
        if line == b"\r\n":
            if length < 0:
                reason = f"the header block has no {name}, which the codec needs"
                raise _error_texts.invalid_frame(reason, stream_offset, bytes(header[:line_pos]))
            return line_pos, length, True
        found, colon, value = line[:-2].partition(b":")
        if not (
            line.endswith(b"\r\n") and colon and _NAME.fullmatch(found) and _VALUE.fullmatch(value)
        ):
            reason = _why_bad(line)
            raise _error_texts.invalid_frame(reason, stream_offset, bytes(header[:line_pos]))
        if found.lower() != wanted:
            continue
        if length >= 0:
            reason = f"found a second {name} in one header block, one is allowed"
            raise _error_texts.invalid_frame(reason, stream_offset, bytes(header[:line_pos]))
        length = _read_length(name, value.strip(b" \t"), stream_offset, bytes(header[:line_pos]))
    return line_pos, length, False


def _why_bad(line: bytes) -> str:
    if line.endswith(b"\r\n"):
        return f"found {_error_texts.show(line)}, the codec expects a 'Name: value' line"
    return f"the CR is missing: {_error_texts.show(line)} ends with LF, the codec expects CR LF"


def _read_length(name: str, digits: bytes, stream_offset: int, header: bytes) -> int:
    if not _DIGITS.fullmatch(digits):
        reason = f"{name} is not a decimal number: found {_error_texts.show(digits)}"
        raise _error_texts.invalid_frame(reason, stream_offset, header)
    if digits.startswith(b"0") and len(digits) > 1:
        raise _error_texts.leading_zero(stream_offset, header)
    if len(digits) > 20 or int(digits) > MAX_VALUE:
        raise _error_texts.length_over_64_bits(stream_offset, header)
    return int(digits)
