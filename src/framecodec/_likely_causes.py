"""Guess why a peer's bytes are not the frames that the codec expects.

A wrong codec seldom raises an error that says so: the length is too large, or the rest of a frame
never arrives. This module looks at the frame's first bytes for another protocol, and for another
byte order, width or notation of the length that makes sense of them. Only errors call it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ._layout import CHOICE, COBS, CUSTOM, DELIMITER, DIGITS, HEADERS, TEXT, UINT, VARINT, Layout

__all__ = ["SAMPLE_SIZE", "likely_cause"]

# A splitter passes at most this many bytes of a frame that is not complete.
SAMPLE_SIZE = 4096

_HTTP = "the peer seems to speak HTTP"
_PROXY = "the stream seems to begin with a PROXY protocol header"

# The first bytes of other protocols, and what they mean.
_OPENINGS = [
    *((f"{method} ".encode(), _HTTP) for method in ("GET", "POST", "PUT", "HEAD", "DELETE")),
    *((f"{method} ".encode(), _HTTP) for method in ("OPTIONS", "PATCH", "CONNECT", "TRACE")),
    (b"HTTP/", _HTTP),
    (b"SSH-", "the peer seems to speak SSH"),
    (b"PROXY ", f"{_PROXY} (version 1)"),
    (b"\r\n\r\n\x00\r\nQUIT\n", f"{_PROXY} (version 2)"),
]
# Records of TLS: change of cipher, alert, handshake, data; then the version 3.0 to 3.4.
_TLS = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]|[\x15\x16]\x03\Z")
# The signature of ZMTP: a length of 1 to 256 in the long form of version 1, then the flags 7f. The
# next byte is the version.
_ZMTP = re.compile(rb"\xff\x00{6}(?:\x00[\x01-\xff]|\x01\x00)(?:\Z|\x7f)(.?)", re.DOTALL)
# The whole first line of HTTP or SSH, and no more.
_FIRST_LINE = re.compile(
    rb"(?:[A-Z]+ [^ \r\n]+ HTTP/1\.[01]|(?:HTTP/1\.[01] |SSH-[12]\.)[^\n]*)\r?\n"
)
_JSON = re.compile(rb"""[\[{]\s*["\[{\]}]|[\[{]\s+""")
# What a single first byte may be the start of.
_FIRST_BYTES = {
    **dict.fromkeys(b"GHDOCT", "HTTP"),
    **dict.fromkeys(b"P", "HTTP or a PROXY protocol header"),
    **dict.fromkeys(b"S", "SSH"),
    **dict.fromkeys(b"[{", "JSON without a length"),
    **dict.fromkeys(b"\r", "a PROXY protocol header"),
    **dict.fromkeys(b"\x16", "TLS or a binary length"),
}

_ASCII_DIGITS = re.compile(rb"[0-9]{1,19}")
_TEXT_LENGTH = re.compile(rb"([1-9][0-9]{0,18})(?::|\r\n|\n| )")
_WIDTHS = (8, 4, 3, 2, 1)

# Reads the frame at a position: the length's value and the frame's size, None if it is invalid.
_Read = Callable[[bytes, int], "tuple[int, int] | None"]


def likely_cause(data: bytes, layout: Layout | None = None, received: int | None = None) -> str:
    """Return a clause about the likely cause of an error, empty if nothing is likely.

    Args:
        data: The frame's first bytes: up to the byte that decided if the frame is invalid, else
            what arrived of it, at most `SAMPLE_SIZE` bytes.
        layout: What the frame should look like; None looks for other protocols only.
        received: How many bytes of the frame arrived before the stream ended or a time-out; None
            if the frame is invalid.
    """
    if not data:
        return ""
    if layout is None:
        return _protocol(data)
    zmtp = _ZMTP.match(data)
    if zmtp and received is None:
        version = {b"": "2 or later", b"\x01": "2.0"}.get(zmtp[1], "3")
        return f"the stream seems to begin with a greeting of ZMTP {version} (ZeroMQ)"
    if _may_be_another_protocol(data, layout, received is not None):
        cause = _protocol(data)
        if cause:
            return cause
    if layout.kind in (DELIMITER, COBS):
        return ""
    if layout.kind == HEADERS:
        return _other_than_text(data)
    if received is not None:
        has_number = layout.kind in (UINT, VARINT) and _counts_bytes(layout)
        return _other_frames(data, layout, received) if has_number else ""
    if layout.kind == UINT:
        cause = _other_number(data, layout) if _counts_bytes(layout) else ""
        return cause or _start_of(data, 0)
    if layout.kind in (DIGITS, TEXT):
        return _other_than_digits(data, layout)
    if layout.kind == CHOICE and data in (b"\xff", b"\xff\x00"):
        return f"{data!r} may be the start of a greeting of ZMTP (ZeroMQ)"
    return _start_of(data, 0)


def _counts_bytes(layout: Layout) -> bool:
    """Return whether all of the length field is a number of bytes."""
    return layout.unit == 1 and not layout.mask and not layout.wider


# --- other protocols ------------------------------------------------------------------------------


def _protocol(data: bytes) -> str:
    if _TLS.match(data):
        return "the peer seems to speak TLS"
    if _JSON.match(data):
        return "the peer seems to send JSON without a length"
    for opening, cause in _OPENINGS:
        if data.startswith(opening) or (len(data) >= 3 and opening.startswith(data)):
            return cause
    return ""


def _may_be_another_protocol(data: bytes, layout: Layout, waiting: bool) -> bool:
    """Return whether the first bytes cannot be a valid frame's magic or lead."""
    if layout.magic and data.startswith(layout.magic):
        return False
    if layout.kind == DELIMITER and not layout.magic:  # lines of text may look like any other text
        return _TLS.match(data) is not None
    if layout.kind == CUSTOM:  # a parse() that refuses later bytes has accepted these
        return not waiting and (len(data) <= 8 or _FIRST_LINE.fullmatch(data) is not None)
    if _TLS.match(data):
        return layout.field_offset != 3  # where a record of TLS has its length
    if not waiting:
        return True
    # The lead of a valid frame may look like anything; a binary length is seldom printable.
    text = re.match(rb"[\t\r\n -~]+(\x00\r)?", data)
    return text is not None and text.end() > layout.field_offset


def _start_of(data: bytes, position: int) -> str:
    """Return what the byte at a position, the first that was read, may be the start of."""
    first = data[position : position + 2]
    if position or len(data) > 2 or not first:
        return ""
    cause = _FIRST_BYTES.get(first[0], "")
    return f"{first!r} may be the start of {cause}" if cause else ""


# --- another byte order, width or notation of the length ------------------------------------------


def _other_number(data: bytes, layout: Layout) -> str:
    """Return a plausible reading of a binary length that is too large, negative or too small."""
    field = data[layout.field_offset :]
    if len(field) < layout.field_width:
        return ""
    if layout.field_width > 1 and field.isdigit():
        return f"the length field holds ASCII digits, as digits the length is {int(field)}"
    found = int.from_bytes(field, layout.byteorder)
    if _is_plausible(found, layout, layout.field_width):
        return ""  # the frame is invalid for another reason
    if layout.counts_frame and 0 < found <= -layout.adjustment and len(field) > 1:
        return 'the length may count only the bytes after it (length_includes="rest")'
    readings = []
    for name, little, width in _other_fields(layout):
        value = int.from_bytes(field[:width], "little" if little else "big")
        if width > len(field) or not _is_plausible(value, layout, width):
            continue
        # The more of its bytes are 0, the likelier is a reading. A message of some megabytes may
        # just be too large.
        zeros, zeros_found = width - _bytes_used(value), len(field) - _bytes_used(found)
        if _is_text(field[width:]):
            is_likelier = zeros >= zeros_found
        elif width > 1 and little != layout.little and width != len(field):
            is_likelier = False  # two mistakes need better evidence
        else:
            is_likelier = zeros > zeros_found or (zeros == zeros_found and found >= 2**32)
        if is_likelier and (value < 2**16 or found >= 2**28):
            readings.append((zeros, -value, width, name))
    if not readings:
        return ""
    _, value, _, name = max(readings)
    return f"read {name} the length is {-value}"


def _bytes_used(value: int) -> int:
    return (value.bit_length() + 7) // 8


def _is_text(data: bytes) -> bool:
    return bool(data) and data.isascii() and data.decode("ascii").isprintable()


def _other_fields(layout: Layout) -> Iterator[tuple[str, bool, int]]:
    """Yield the other binary fields: a name, whether it is little-endian, its width."""
    for width in _WIDTHS:
        for little in (False, True):
            if (little, width) == (layout.little, layout.field_width) or (little and width == 1):
                continue
            if width == layout.field_width == 1:
                continue
            order = "little-endian" if little else "big-endian"
            names = [] if little == layout.little or width == 1 else [order]
            if width != layout.field_width:
                names.append(f"with {width} byte{'s' if width > 1 else ''}")
            yield " ".join(names), little, width


def _is_plausible(value: int, layout: Layout, width: int) -> bool:
    rest_size = value + _adjustment(layout, width)
    return value > 0 and layout.rest_min <= rest_size <= layout.rest_max


def _adjustment(layout: Layout, width: int) -> int:
    """Return the adjustment of the same codec with a length field of another width."""
    return layout.adjustment - (width - layout.field_width if layout.counts_frame else 0)


def _other_frames(data: bytes, layout: Layout, received: int) -> str:
    """Return a reading of the length that makes whole frames of what arrived."""
    if len(data) < layout.field_offset + layout.field_width and layout.kind == UINT:
        return ""
    accepted = ""
    for name, read in _other_readings(data, layout):
        found = read(data, 0)
        frames, exact = _count_frames(data, received, layout.magic, read)
        if found is None or not frames:
            continue
        if "1 byte " in name and not (exact and frames <= 3):
            continue  # any bytes can be read as frames with lengths of one byte
        cause = name.format(found[0])
        if exact:
            return cause
        accepted = accepted or cause
    return accepted


def _other_readings(data: bytes, layout: Layout) -> Iterator[tuple[str, _Read]]:
    """Yield the other readings, the likeliest first: a text with a place for the length."""
    offset = layout.field_offset
    trailer_size = layout.front_check_size + layout.tail_size

    def binary(little: bool, width: int, adjustment: int, least: int = 1) -> _Read:
        def read(data: bytes, pos: int) -> tuple[int, int] | None:
            field = data[pos + offset : pos + offset + width]
            value = int.from_bytes(field, "little" if little else "big")
            if len(field) < width or not least <= value + adjustment <= layout.rest_max:
                return None
            return value, offset + width + value + adjustment + trailer_size

        return read

    def digits(width: int) -> _Read:
        def read(data: bytes, pos: int) -> tuple[int, int] | None:
            field = data[pos + offset : pos + offset + width]
            if len(field) < width or not field.isdigit() or not int(field):
                return None
            return int(field), offset + width + int(field) + layout.adjustment + trailer_size

        return read

    def text(data: bytes, pos: int) -> tuple[int, int] | None:
        found = _TEXT_LENGTH.match(data, pos + offset)
        if found is None:
            return None
        value = int(found[1])
        size = found.end() - pos + value + layout.adjustment + trailer_size
        # A netstring ends with a comma.
        return value, size + (data[pos + size : pos + size + 1] == b",")

    if layout.kind == UINT:
        fields = sorted(_other_fields(layout), key=lambda field: field[2] != layout.field_width)
        for name, little, width in fields:
            yield (
                f"read {name} the length is {{}}",
                binary(little, width, _adjustment(layout, width)),
            )
        overhead = offset + layout.field_width + trailer_size
        if not layout.counts_frame and overhead >= 4:
            # Of a small message, as many bytes may be missing by chance.
            adjustment = layout.adjustment - overhead
            yield (
                'the length {} may count the whole frame (length_includes="frame")',
                binary(layout.little, layout.field_width, adjustment, least=overhead),
            )
    run = _ASCII_DIGITS.match(data, offset)
    if run is not None:
        yield "the length field holds ASCII digits, as text the length is {}", text
        for width in range(len(run[0]), 1, -1):
            yield "the length field holds ASCII digits, as digits the length is {}", digits(width)


def _count_frames(data: bytes, received: int, magic: bytes, read: _Read) -> tuple[int, bool]:
    """Return how many whole frames another reading finds, and whether they are all that arrived.

    The number is 0 if the reading is unlikely: a frame is invalid, or only one is found.
    """
    pos = frames = 0
    while pos < received and pos < len(data):
        found = read(data, pos)
        if found is None or found[1] <= 0 or not data.startswith(magic, pos):
            return 0, False
        if pos + found[1] > received:
            break
        pos += found[1]
        frames += 1
    exact = pos == received
    return (frames if exact or frames > 1 or len(data) < received else 0), exact


def _other_than_digits(data: bytes, layout: Layout) -> str:
    """Return why a length may not be a number in digits."""
    start = layout.field_offset
    if len(data) <= start:
        return _start_of(data, 0)
    digits, last = data[start:-1], data[-1:]
    if data[start:].isdigit():
        if layout.kind == TEXT and data[start:].startswith(b"0") and not layout.leading_zeros:
            return "the length has a fixed number of digits, as Codec.digits writes it"
        return ""
    if not digits:
        if 0x20 <= last[0] < 0x7F or last in b"\t\r\n":
            return _start_of(data, start)
        return _start_of(data, start) or f"{last!r} may be the start of a binary length"
    if not digits.isdigit():
        return ""
    if last in b":\r\n ," and last != layout.end[:1]:
        return f"the length seems to be the digits up to {last!r}, as Codec.text reads it"
    if layout.base == 10 and last in b"abcdefABCDEF" and not int(digits):
        return f"{last!r} is a digit with base=16"
    if layout.kind == DIGITS and int(digits):
        return f"read with {len(digits)} digits the length is {int(digits, layout.base)}"
    return ""


def _other_than_text(data: bytes) -> str:
    """Return why a header block may not be text."""
    digits = _ASCII_DIGITS.match(data)
    if digits:
        return f"the frame seems to begin with a length in digits, {digits[0]!r}"
    if data[0] in b"\t\r\n" or 0x20 <= data[0] < 0x7F:
        return ""
    return f"{data[:1]!r} may be the start of a binary length"
