"""What messages that chunks cut cost the Python engine: ``python -m bench.chunks``.

The Python engine splits a stream in chunks of 1460 bytes (TCP segments), 7 bytes and 64 KiB,
against a loop by hand for the same shape: the bytes of an unfinished message are gathered, nothing
is searched or parsed twice, and each message is cut out once. As a careful user's, it refuses
lengths that are malformed or over-long, messages above a limit, and unknown escapes. The figures
are ns a message, each the least of several runs that take turns.
``python -m bench.chunks delimiter cobs`` measures these shapes alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from framecodec import Codec
from framecodec._splitter_py import Splitter

from . import sources
from .contenders import Feed, Messages
from .contenders.tuned_python import LIMIT, TunedPython
from .harness import least

SIZES = (16, 64, 1024, 65536)
CHUNKS = (1460, 7, 65536)
# A run is so short that other processes do not interrupt most runs.
TOTAL = 64 * 1024
TOTAL_OF_TINY_CHUNKS = 8 * 1024
RUNS = 150
MAX_HEADER = 8192

Parse = Callable[[bytes, Messages], tuple[int, int]]


class ByLength:
    """Frames that begin with a length.

    `parse` appends the whole messages; it returns where they end, and the size of the next frame
    or 0 where its length is not whole.
    """

    def __init__(self, parse: Parse) -> None:
        self._parse = parse
        self._pieces: list[bytes] = []
        self._held = self._wanted = 0

    def feed(self, data: bytes) -> Messages:
        messages: Messages = []
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return messages
            data = b"".join(self._pieces)
        pos, self._wanted = self._parse(data, messages)
        rest = data[pos:]
        self._held = len(rest)
        self._pieces = [rest] if rest else []
        return messages


def parse_digits(data: bytes, messages: Messages) -> tuple[int, int]:
    pos, size, append = 0, len(data), messages.append
    while pos + 5 <= size:
        start = pos + 5
        digits = data[pos:start]
        if not digits.isdigit():
            raise ValueError("a length is not five digits")
        stop = start + int(digits)
        if stop > size:
            return pos, stop - pos
        append(data[start:stop])
        pos = stop
    return pos, 0


def parse_varint(data: bytes, messages: Messages) -> tuple[int, int]:
    pos, size, append = 0, len(data), messages.append
    while pos < size:
        value, shift, start = data[pos] & 127, 7, pos + 1
        if data[pos] > 127:
            while start < size:
                byte = data[start]
                start += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    if not byte:
                        raise ValueError("a length has more bytes than it needs")
                    break
                if shift == 70:
                    raise ValueError("a length has more than ten bytes")
            else:
                return pos, 0
        if value > LIMIT:
            raise ValueError(f"a message of {value} bytes is above the limit")
        stop = start + value
        if stop > size:
            return pos, stop - pos
        append(data[start:stop])
        pos = stop
    return pos, 0


def parse_netstring(data: bytes, messages: Messages) -> tuple[int, int]:
    pos, size, append, find = 0, len(data), messages.append, data.find
    while (colon := find(b":", pos, pos + 9)) >= 0:
        start = colon + 1
        digits = data[pos:colon]
        if not digits.isdigit() or (digits[0] == 48 and len(digits) > 1):
            raise ValueError("a length is not a number in the shortest form")
        value = int(digits)
        if value > LIMIT:
            raise ValueError(f"a message of {value} bytes is above the limit")
        stop = start + value
        if stop >= size:
            return pos, stop + 1 - pos
        if data[stop] != 44:
            raise ValueError("no comma ends the message")
        append(data[start:stop])
        pos = stop + 1
    if pos < size and not (size - pos < 9 and data[pos:].isdigit()):
        raise ValueError("no colon ends the length")
    return pos, 0


def parse_headers(data: bytes, messages: Messages) -> tuple[int, int]:
    pos, size, append, find = 0, len(data), messages.append, data.find
    while (stop := find(b"\r\n\r\n", pos, pos + MAX_HEADER)) >= 0:
        content_size = -1
        for line in data[pos:stop].split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if not colon:
                raise ValueError("a header line has no colon")
            if name.lower() == b"content-length":
                value = value.strip(b" \t")
                if content_size >= 0 or not value.isdigit():
                    raise ValueError("there is a second length, or it is not a number")
                content_size = int(value)
        if not 0 <= content_size <= LIMIT:
            raise ValueError("the length is missing or above the limit")
        start = stop + 4
        stop = start + content_size
        if stop > size:
            return pos, stop - pos
        append(data[start:stop])
        pos = stop
    if size - pos >= MAX_HEADER:
        raise ValueError("the header block does not end")
    return pos, 0


class ByMark:
    """Frames that a mark ends: the search continues where it ended."""

    def __init__(self, mark: bytes, message: Callable[[bytes], bytes] | None = None) -> None:
        self._mark, self._message = mark, message
        self._rest = bytearray()

    def feed(self, data: bytes) -> Messages:
        mark, rest = self._mark, self._rest
        mark_size = len(mark)
        if rest:
            searched = max(0, len(rest) - mark_size + 1)
            rest += data
            stop = rest.find(mark, searched)
            if stop < 0:
                if len(rest) > LIMIT:
                    raise ValueError("no mark ends the message within the limit")
                return []
            data = bytes(rest)
        else:
            stop = data.find(mark)
        messages: Messages = []
        append, find, message = messages.append, data.find, self._message
        pos = 0
        while stop >= 0:
            content = data[pos:stop]
            append(content if message is None else message(content))
            pos = stop + mark_size
            stop = find(mark, pos)
        self._rest = bytearray(data[pos:])
        return messages


def without_return(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\r") else line


def unescape(content: bytes) -> bytes:
    if b"\xdb" not in content:
        return content
    message = content.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
    if len(content) - len(message) != content.count(b"\xdb"):
        raise ValueError("an escape is unknown")
    return message


def unstuff(content: bytes) -> bytes:
    message, pos, size = bytearray(), 0, len(content)
    while pos < size:
        code = content[pos]
        stop = pos + code
        message += content[pos + 1 : stop]
        if code < 255 and stop < size:
            message.append(0)
        pos = stop
    if pos != size:
        raise ValueError("a block is cut off")
    return bytes(message)


SLIP = ((b"\xc0", b"\xdb\xdc"), (b"\xdb", b"\xdb\xdd"))

SHAPES: dict[str, tuple[Codec, Callable[[], Feed]]] = {
    "plain": (Codec.uint(4), lambda: TunedPython().splitter()),
    "varint": (Codec.varint(), lambda: ByLength(parse_varint).feed),
    "digits": (Codec.digits(5), lambda: ByLength(parse_digits).feed),
    "netstring": (Codec.text(trailer=b","), lambda: ByLength(parse_netstring).feed),
    "headers": (Codec.headers(), lambda: ByLength(parse_headers).feed),
    "delimiter": (Codec.delimiter(), lambda: ByMark(b"\n").feed),
    "lines": (Codec.delimiter(b"\n", b"\r\n"), lambda: ByMark(b"\n", without_return).feed),
    "two bytes": (Codec.delimiter(b"\r\n"), lambda: ByMark(b"\r\n").feed),
    "slip": (Codec.delimiter(b"\xc0", escape=dict(SLIP)), lambda: ByMark(b"\xc0", unescape).feed),
    "cobs": (Codec.cobs(), lambda: ByMark(b"\0", unstuff).feed),
}


def feed_all(feed: Feed, chunks: list[bytes]) -> int:
    count = 0
    for chunk in chunks:
        count += len(feed(chunk))
    return count


def measure(shape: str, size: int, chunk_size: int) -> dict[str, float]:
    """Return ns a message of both."""
    codec, by_hand = SHAPES[shape]
    total = max(TOTAL_OF_TINY_CHUNKS if chunk_size < 64 else TOTAL, 4 * size)
    made = sources.messages(size, total, 0)
    messages = [m.translate(None, b"\r\n").ljust(size, b".") for m in made]
    chunks = sources.cut(codec.encode_many(messages), chunk_size)
    feeds = {"Python engine": Splitter(codec).feed, "by hand": by_hand()}
    for name, feed in feeds.items():
        got = [message for chunk in chunks for message in feed(chunk)]
        assert got == messages, f"{shape}, {name}: other messages than were sent"
    works = {name: lambda feed=feed: feed_all(feed, chunks) for name, feed in feeds.items()}
    return least(works, len(messages), RUNS)


def main(shapes: list[str]) -> None:
    print("| shape | bytes | chunk | Python engine, ns | by hand, ns | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for shape in shapes or SHAPES:
        for chunk_size in CHUNKS:
            for size in SIZES:
                figures = measure(shape, size, chunk_size)
                ours, other = figures["Python engine"], figures["by hand"]
                print(
                    f"| {shape} | {size} | {chunk_size} "
                    f"| {ours:.0f} | {other:.0f} | {ours / other:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
