"""The functions of text protocols whose frames no single field measures: one parse and one build.

A frame is a line or a block of lines, and for some of them a body whose size is a word of the text.
The message is the text as it travelled. `_shapes` says what the functions are and how they are
pickled.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from . import _error_texts

__all__ = [
    "LONGEST_LINE",
    "LONGEST_TEXT",
    "build_http1",
    "build_memcached_text",
    "build_nats",
    "build_resp",
    "build_stomp",
    "parse_http1",
    "parse_memcached_text",
    "parse_nats",
    "parse_resp",
    "parse_stomp",
]

LONGEST_TEXT = 1024 * 1024
"""Bytes of a frame that the functions must see: all of it but the last body."""

LONGEST_LINE = 64 * 1024
"""Bytes of the longest line of a protocol whose frames have one line before the body."""

# Up to this size of a frame, parse waits for the mark after the last body and checks it. Whether it
# is checked must not depend on how the stream is cut, so size decides.
_CHECKED_SIZE = 1024

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")

Parsed = tuple[int, int, bytes] | None


def _read_number(digits: bytes, what: str) -> int:
    if not _NUMBER.fullmatch(digits):
        raise ValueError(f"{what} must be a decimal number without leading zeros, not {digits!r}")
    return int(digits)


def _find_line_end(data: bytes, pos: int) -> int:
    """Return where the line from `pos` on ends with CR LF, or -1."""
    end = data.find(b"\n", pos)
    if end >= 0 and data[end - 1 : end] != b"\r":
        raise ValueError("a line ends with LF, and the CR before it is missing")
    return end - 1


def _with_body(data: bytes, pos: int, body_size: int, end_mark: bytes) -> Parsed:
    """Return the result for a header up to `pos`, then a body and a mark that ends the frame."""
    stop = pos + body_size
    if stop + len(end_mark) <= _CHECKED_SIZE:
        found = data[stop : stop + len(end_mark)]
        if found != end_mark[: len(found)]:
            raise ValueError(f"{found!r} follows the body instead of {end_mark!r}")
        if len(found) < len(end_mark):
            return None
    return pos, body_size + len(end_mark), data[:pos]


def _build_whole(
    message: memoryview, parse: Callable[[memoryview], Parsed], end_mark: bytes = b""
) -> tuple[bytes, int]:
    """Return the header of a message that is a whole frame already.

    Args:
        message: A frame, without the trailer of its codec.
        parse: The parse function of the shape.
        end_mark: What the message must end with if it has a body.
    """
    try:
        parsed = parse(message[:LONGEST_TEXT])
    except ValueError as error:
        raise _error_texts.unsayable_message(str(error)) from None
    if parsed is None or parsed[0] + parsed[1] != len(message):
        raise _error_texts.unsayable_message("it must be exactly one whole frame")
    header_size, rest_size, header = parsed
    if rest_size and bytes(message[len(message) - len(end_mark) :]) != end_mark:
        raise _error_texts.unsayable_message(f"it must end with {end_mark!r}")
    return header, header_size


# --- RESP -----------------------------------------------------------------------------------------
# A type byte and a line; after it a bulk string has as many bytes as the line says and CR LF, an
# aggregate as many values (a map: pairs). An attribute precedes the value that it belongs to.
_RESP_LINES = b"+-:_#,("
_RESP_STRINGS = b"$!="
_RESP_AGGREGATES = {0x2A: (1, 0), 0x7E: (1, 0), 0x3E: (1, 0), 0x25: (2, 0), 0x7C: (2, 1)}  # *~>%|


def parse_resp(view: memoryview) -> Parsed:
    data = bytes(view)
    pos, values_left = 0, 1
    while values_left:
        if pos >= len(data):
            return None
        kind = data[pos]
        if kind not in _RESP_LINES and kind not in _RESP_STRINGS and kind not in _RESP_AGGREGATES:
            raise ValueError(f"{data[pos : pos + 1]!r} is not a type of RESP")
        end = _find_line_end(data, pos)
        if end < 0:
            return None
        line, pos = data[pos + 1 : end], end + 2
        values_left -= 1
        if kind in _RESP_LINES:
            if b"\r" in line:
                raise ValueError("a line contains a CR")
        elif line == b"-1" and kind in b"$*":
            pass  # null
        elif kind in _RESP_AGGREGATES:
            factor, more = _RESP_AGGREGATES[kind]
            values_left += factor * _read_number(line, "the number of values") + more
        else:
            size = _read_number(line, "the size of a string")
            if not values_left:
                return _with_body(data, pos, size, b"\r\n")
            stop = pos + size
            if data[stop : stop + 2] != b"\r\n"[: max(0, min(2, len(data) - stop))]:
                raise ValueError(f"{data[stop : stop + 2]!r} follows a string instead of CR LF")
            pos = stop + 2
    return pos, 0, data[:pos]


def build_resp(message: memoryview) -> tuple[bytes, int]:
    return _build_whole(message, parse_resp, b"\r\n")


# --- NATS and memcached ---------------------------------------------------------------------------
# A line; after some verbs, a body whose size is a word of the line. Every frame ends with CR LF,
# which is the trailer of the codec: the line alone ends with it, or the body does.


def _parse_line(view: memoryview, size_of_body: Callable[[list[bytes]], bytes | None]) -> Parsed:
    data = bytes(view)
    end = _find_line_end(data, 0)
    if end < 0:
        return None
    size = size_of_body(data[:end].split())
    if size is None:
        return end, 0, data[:end]
    return end + 2, _read_number(size, "the size of the body"), data[: end + 2]


_NATS_SIZES = {b"PUB": (3, 4), b"HPUB": (4, 5), b"MSG": (4, 5), b"HMSG": (5, 6)}  # words of a line
_NATS_VERBS = frozenset(b"INFO CONNECT SUB UNSUB PING PONG +OK -ERR".split())


def _size_of_nats(words: list[bytes]) -> bytes | None:
    verb = words[0].upper() if words else b""
    if verb in _NATS_VERBS:
        return None
    if verb not in _NATS_SIZES:
        raise ValueError(f"{verb[:20]!r} is not a verb of NATS")
    if len(words) not in _NATS_SIZES[verb]:
        raise ValueError(f"{verb!r} with {len(words) - 1} words")
    return words[-1]


def parse_nats(view: memoryview) -> Parsed:
    return _parse_line(view, _size_of_nats)


def build_nats(message: memoryview) -> tuple[bytes, int]:
    return _build_line(message, _size_of_nats)


_MEMCACHED_SIZES = {  # where the size is among the words of the line
    **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), 4),
    b"VALUE": 3,
    b"ms": 2,
    b"VA": 1,
}


def _size_of_memcached(words: list[bytes]) -> bytes | None:
    if not words or not words[0].replace(b"_", b"").isalnum():
        raise ValueError(f"{b' '.join(words)[:20]!r} is neither a command nor an answer")
    if words[0].isupper() and words[-1].startswith(b"HTTP/1."):
        raise ValueError(f"{words[0]!r} with {words[-1]!r} is a request of HTTP")
    place = _MEMCACHED_SIZES.get(words[0])
    if place is None:
        return None
    if place >= len(words):
        raise ValueError(f"{words[0]!r} without the size of its data")
    return words[place]


def parse_memcached_text(view: memoryview) -> Parsed:
    return _parse_line(view, _size_of_memcached)


def build_memcached_text(message: memoryview) -> tuple[bytes, int]:
    return _build_line(message, _size_of_memcached)


def _build_line(
    message: memoryview, size_of_body: Callable[[list[bytes]], bytes | None]
) -> tuple[bytes, int]:
    line = bytes(message[:LONGEST_LINE]).partition(b"\r\n")[0]
    try:
        size = size_of_body(line.split())
        if b"\n" in line:
            raise ValueError("its line contains an LF")
        header_size = len(line) if size is None else len(line) + 2
        body_size = 0 if size is None else _read_number(size, "the size of the body")
    except ValueError as error:
        raise _error_texts.unsayable_message(str(error)) from None
    if header_size + body_size != len(message):
        raise _error_texts.unsayable_message(
            f"its line announces a body of {body_size} bytes, and {len(message) - header_size} "
            "follow"
        )
    return bytes(message[:header_size]), header_size


# --- STOMP ----------------------------------------------------------------------------------------
# A command, headers and an empty line, whose ends are LF or CR LF; the body: as long as the header
# content-length says, else up to the first NUL; a NUL. A line end between frames is a heart-beat.
_STOMP_COMMAND = re.compile(rb"[A-Z]{3,12}")
_STOMP_COMMAND_START = re.compile(rb"[A-Z]{1,12}\r?")
_STOMP_BLOCK_END = re.compile(rb"\n\r?\n")


def parse_stomp(view: memoryview) -> Parsed:
    data = bytes(view)
    if data in (b"\r", b"") or data[0] in b"\r\n":
        end = data.find(b"\n", 0, 2)
        if end < 0 and len(data) > 1:
            raise ValueError("a CR between two frames without an LF")
        return None if end < 0 else (end + 1, 0, data[: end + 1])
    command, line_end, _ = data.partition(b"\n")
    if line_end:
        is_command = _STOMP_COMMAND.fullmatch(command.removesuffix(b"\r"))
    else:
        is_command = _STOMP_COMMAND_START.fullmatch(command)
    if not is_command:
        raise ValueError(f"{command[:20]!r} is not a command of STOMP")
    block = _STOMP_BLOCK_END.search(data)
    if block is None:
        return None
    pos = block.end()
    for line in data[:pos].split(b"\n")[1:]:
        name, _, value = line.removesuffix(b"\r").partition(b":")
        if name == b"content-length":  # the first one counts
            return _with_body(data, pos, _read_number(value, "content-length"), b"\0")
    end = data.find(b"\0", pos)
    return None if end < 0 else (end + 1, 0, data[: end + 1])


def build_stomp(message: memoryview) -> tuple[bytes, int]:
    return _build_whole(message, parse_stomp, b"\0")


# --- HTTP/1.1 -------------------------------------------------------------------------------------
# A start line, headers and an empty line; then the body: Content-Length bytes, or chunks.
_HTTP_REQUEST = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~\x80-\xff]+ HTTP/1\.[01]")
_HTTP_RESPONSE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})( [\t -~\x80-\xff]*)?")
_HTTP_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HTTP_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t -~\x80-\xff]*)?")
_HTTP_FIRST = (
    frozenset(b"!#$%&'*+.^_`|~-0123456789")
    | frozenset(range(ord("A"), ord("Z") + 1))
    | frozenset(range(ord("a"), ord("z") + 1))
)


def parse_http1(view: memoryview) -> Parsed:
    data = bytes(view)
    if data and data[0] not in _HTTP_FIRST:
        raise ValueError(f"{data[:1]!r} begins no start line")
    end = _find_line_end(data, 0)
    if end < 0:
        return None
    status = _read_start_line(data[:end])
    pos = end + 2
    fields: dict[bytes, bytes] = {}
    while True:
        end = _find_line_end(data, pos)
        if end < 0:
            return None
        line, pos = data[pos:end], end + 2
        if not line:
            break
        _read_field(line, fields)
    if status[:1] == b"1" or status in (b"204", b"304"):
        return pos, 0, data[:pos]
    if b"transfer-encoding" in fields:
        return _read_chunks(data, pos, fields)
    if b"content-length" in fields:
        size = fields[b"content-length"]
        if not re.fullmatch(rb"[0-9]{1,18}", size):
            raise ValueError(f"Content-Length must be a decimal number, not {size!r}")
        return pos, int(size), data[:pos]
    if status:
        raise ValueError("the response has no Content-Length: its body ends with the connection")
    return pos, 0, data[:pos]


def _read_start_line(line: bytes) -> bytes:
    """Return the status of a response, or nothing for a request."""
    response = _HTTP_RESPONSE.fullmatch(line)
    if response is None and not _HTTP_REQUEST.fullmatch(line):
        raise ValueError(f"{line[:40]!r} is not a start line of HTTP/1.1")
    return response[1] if response else b""


def _read_field(line: bytes, fields: dict[bytes, bytes]) -> None:
    name, colon, value = line.partition(b":")
    if not colon or not _HTTP_NAME.fullmatch(name):
        raise ValueError(f"{line[:40]!r} is not a 'Name: value' header line")
    if b"\r" in value or b"\0" in value:
        raise ValueError(f"the {name.decode()} header contains a control character")
    name = name.lower()
    if name in fields and name in (b"content-length", b"transfer-encoding"):
        raise ValueError(f"two {name.decode()} headers")
    fields[name] = value.strip(b" \t")


def _read_chunks(data: bytes, pos: int, fields: dict[bytes, bytes]) -> Parsed:
    if b"content-length" in fields:
        raise ValueError("both Transfer-Encoding and Content-Length")
    if fields[b"transfer-encoding"].lower().split(b",")[-1].strip() != b"chunked":
        raise ValueError("a Transfer-Encoding that does not end with chunked")
    while True:
        end = _find_line_end(data, pos)
        if end < 0:
            return None
        chunk = _HTTP_CHUNK.fullmatch(data[pos:end])
        if chunk is None:
            raise ValueError(f"{data[pos:end][:40]!r} is not the size of a chunk")
        size, pos = int(chunk[1], 16), end + 2
        if not size:
            break
        stop = pos + size
        if data[stop : stop + 2] != b"\r\n"[: max(0, min(2, len(data) - stop))]:
            raise ValueError(f"{data[stop : stop + 2]!r} follows a chunk instead of CR LF")
        pos = stop + 2
    while True:  # trailer fields
        end = _find_line_end(data, pos)
        if end < 0:
            return None
        line, pos = data[pos:end], end + 2
        if not line:
            return pos, 0, data[:pos]
        _read_field(line, {})


def build_http1(message: memoryview) -> tuple[bytes, int]:
    return _build_whole(message, parse_http1)
