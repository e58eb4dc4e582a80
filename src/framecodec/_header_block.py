"""Read a block of ``Name: value`` lines, the header of LSP, DAP and similar protocols.

Both engines call it. The compiled splitter reads whole blocks with nothing odd in them by itself
(`_block_scan.pxd`) and leaves all others, errors too, to this module.

A line is read once, when its end arrives, so a block that comes byte by byte costs no more than one
that comes whole. The grammar is that of HTTP header fields without folding
(RFC 9112, section 5): names in any case, no space before the colon, spaces and tabs around the
value ignored.
"""

from __future__ import annotations

import re

from . import _error_texts
from ._layout import MAX_VALUE, Layout
from .errors import InvalidFrameError

__all__ = ["check_block", "read_block", "read_lines"]

# Single character classes: no input makes them backtrack.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_DIGITS = re.compile(rb"[0-9]+")


def read_lines(
    layout: Layout,
    header: bytes | bytearray,
    line_pos: int,
    length: int,
    stream_offset: int,
    *,
    first: bool,
) -> tuple[int, int, bool]:
    """Read the lines that are complete.

    Args:
        layout: The layout of the codec.
        header: The frame from its first byte on, as far as it arrived (or as far as it may go).
        line_pos: Where the first line that was not read yet begins.
        length: The length found in an earlier line, or -1.
        stream_offset: Of the frame, for errors.
        first: That line is the first of the block.

    Returns:
        The position of the first line not read, the length found so far or -1, and whether the
        empty line that ends the block was reached.

    Raises:
        InvalidFrameError: A line is not a header line, its length is not a number, or the block has
            two lengths or none.
    """
    names, is_start_line = layout.lower_names, first and layout.start_line
    while (line_end := header.find(b"\n", line_pos)) >= 0:
        line = bytes(header[line_pos : line_end + 1])
        line_pos = line_end + 1
        content = _without_end(layout, line)
        if content is None:
            reason = _wrong_end(layout, line)
            raise _error_texts.invalid_frame(reason, stream_offset, bytes(header[:line_pos]))
        if is_start_line and layout.protocols and not _has_protocol(layout, content):
            allowed = b" or ".join(layout.protocols).decode("ascii")
            reason = (
                f"found {_error_texts.show(line)}, the codec expects a start line that begins or "
                f"ends with {allowed}"
            )
            raise _error_texts.invalid_frame(reason, stream_offset, bytes(header[:line_pos]))
        if not content:
            if length < 0 and not layout.keep:
                reason = f"the header block has no {layout.name}, which the codec needs"
                raise _error_texts.invalid_frame(reason, stream_offset, bytes(header[:line_pos]))
            return line_pos, max(length, 0), True
        if is_start_line:
            is_start_line = False
            continue
        found, colon, value = content.partition(b":")
        if not (colon and _NAME.fullmatch(found) and _VALUE.fullmatch(value)):
            reason = f"found {_error_texts.show(line)}, the codec expects a 'Name: value' line"
            raise _error_texts.invalid_frame(reason, stream_offset, bytes(header[:line_pos]))
        if found.lower() not in names:
            continue
        name = layout.name if len(names) == 1 else found.decode()
        if length >= 0:
            reason = f"found a second {name} in one header block, one is allowed"
            raise _error_texts.invalid_frame(reason, stream_offset, bytes(header[:line_pos]))
        length = _read_length(layout, name, value.strip(b" \t"), stream_offset, header[:line_pos])
    return line_pos, length, False


def read_block(
    layout: Layout, header: bytes | bytearray, line_pos: int, length: int, stream_offset: int
) -> tuple[int, int, bytes | None]:
    """Read the lines that are complete, as `read_lines`; `line_pos` may be 0 at first.

    Returns:
        As `read_lines`, but last the message's part of the header, None if the block is not whole.
    """
    start = len(layout.magic)
    pos = max(line_pos, start)
    pos, length, complete = read_lines(
        layout, header, pos, length, stream_offset, first=pos == start
    )
    lead = bytes(header[start:pos]) if layout.keep else b""
    return pos, length, lead if complete else None


def check_block(layout: Layout, message: bytes | memoryview) -> None:
    """Check a message that holds the header block and the body.

    Raises:
        InvalidFrameError: It is not one block whose length is that of the body.
    """
    block = bytes(message[: layout.max_header])
    try:
        stop, length, complete = read_lines(layout, block, 0, -1, 0, first=True)
    except InvalidFrameError as error:
        reason = str(error).partition(": ")[2].rpartition(" (frame begins")[0]
        raise _error_texts.unsayable_message(reason) from None
    if not complete:
        raise _error_texts.unsayable_message(
            f"no empty line ends its header block within {layout.max_header} bytes (max_header)"
        )
    if len(message) - stop != length:
        raise _error_texts.unsayable_message(
            f"its {layout.name} is {length}, and its body has {len(message) - stop} bytes"
        )


def _has_protocol(layout: Layout, start_line: bytes) -> bool:
    """Return whether a start line begins or ends with a protocol of the codec, in any case."""
    words = start_line.lower().split(b" ")
    return len(words) > 1 and any(
        protocol.lower() in (words[0], words[-1]) for protocol in layout.protocols
    )


def _without_end(layout: Layout, line: bytes) -> bytes | None:
    """Return a line without its end, or None if the codec does not read that end."""
    if line.endswith(b"\r\n"):
        return line[:-2] if layout.lenient or layout.line_end == b"\r\n" else None
    return line[:-1] if layout.lenient or layout.line_end == b"\n" else None


def _wrong_end(layout: Layout, line: bytes) -> str:
    if layout.line_end == b"\n":
        return f"{_error_texts.show(line)} ends with CR LF, the codec expects LF"
    return f"the CR is missing: {_error_texts.show(line)} ends with LF, the codec expects CR LF"


def _read_length(
    layout: Layout, name: str, digits: bytes, stream_offset: int, header: bytes | bytearray
) -> int:
    header = bytes(header)
    if not _DIGITS.fullmatch(digits):
        reason = f"{name} is not a decimal number: found {_error_texts.show(digits)}"
        raise _error_texts.invalid_frame(reason, stream_offset, header)
    if digits.startswith(b"0") and len(digits) > 1 and not layout.lenient:
        raise _error_texts.leading_zero(stream_offset, header)
    digits = digits.lstrip(b"0") or b"0"
    if len(digits) > 20 or int(digits) > MAX_VALUE:
        raise _error_texts.length_over_64_bits(stream_offset, header)
    return int(digits)
