"""``framecodec dump``: every frame of a stream, with the codec's parts marked."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from .. import Codec, FrameError, IncompleteFrameError
from .anatomy import Part, dissect
from .captures import Direction, Piece, is_capture, pieces
from .common import (
    CommandError,
    add_codec,
    add_command,
    address_name,
    chunks,
    console,
    escape_controls,
    open_input,
    open_socket,
    read_address,
    watched,
    write,
)
from .convert import frame_object

__all__ = ["JsonReport", "Report", "Stream", "TextReport", "add_commands", "complain"]

_AROUND = 16  # bytes that are shown before and after a bad place
_KEPT = 4096  # bytes of the stream that are kept to show them

# A part's colour; the message's own bytes have none.
_STYLES = {
    "magic": "magenta",
    "lead": "cyan",
    "length": "bold yellow",
    "header": "yellow",
    "check": "green",
    "padding": "dim",
    "trailer": "blue",
}


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``dump``."""
    parser = add_command(
        commands,
        "dump",
        _dump,
        help="every frame of a stream or capture, with the codec's parts marked",
        description="Show every frame: its offset in the stream, its size, the number in its "
        "length field, and its bytes part by part. Of a pcap or pcapng file every direction of "
        "every TCP connection is a stream. After a bad frame the bytes around it are shown and "
        "the exit status is 1.",
    )
    add_codec(parser)
    parser.add_argument("--json", action="store_true", help="one object a line for each frame")
    parser.add_argument(
        "--bytes", metavar="N", type=_count, help="show at most N bytes of each part"
    )
    parser.add_argument(
        "--port", metavar="N", type=_count, help="of a capture, only connections with this port"
    )
    parser.add_argument(
        "--raw", action="store_true", help="the file is a stream even if it looks like a capture"
    )
    parser.add_argument(
        "--resync", action="store_true", help="after a bad frame continue at the next one"
    )
    parser.add_argument(
        "--skip", metavar="N", type=_count, default=0, help="bytes before the first frame"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--connect", metavar="ADDRESS", type=read_address, help="read from a socket"
    )
    source.add_argument("file", metavar="FILE", nargs="?", help="default: standard input")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return int(text)


def _dump(arguments: argparse.Namespace) -> int:
    show = JsonReport() if arguments.json else TextReport(arguments.codec, arguments.bytes)
    if arguments.connect is not None:
        with open_socket(arguments.connect) as sock:
            return _dump_stream(_new_stream(arguments), chunks(sock), show)
    with open_input(arguments.file) as file, watched(file, "dump") as advance:
        reader = _Reader(file, advance)
        if not arguments.raw and is_capture(reader.head(4)):
            found = pieces(reader.read, arguments.port)
            return _dump_capture(arguments, found, show)
        return _dump_stream(_new_stream(arguments), reader.chunks(), show)


def _new_stream(arguments: argparse.Namespace, direction: Direction | None = None) -> Stream:
    try:
        return Stream(arguments.codec, direction, skip=arguments.skip, resync=arguments.resync)
    except ValueError as error:  # the codec has no mark to look for
        raise CommandError(str(error)) from None


class _Reader:
    """A file that can be read in exact sizes or as it arrives, after a look at its first bytes."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._chunks = self._counted(file, advance)
        self._unread = b""

    def _counted(self, file: BinaryIO, advance: Callable[[int], None]) -> Iterator[bytes]:
        for chunk in chunks(file):
            yield chunk
            advance(len(chunk))

    def head(self, size: int) -> bytes:
        """Return the first bytes without reading them."""
        while len(self._unread) < size and (chunk := next(self._chunks, b"")):
            self._unread += chunk
        return self._unread[:size]

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        if len(self._unread) < size:
            parts, missing = [self._unread], size - len(self._unread)
            while missing > 0 and (chunk := next(self._chunks, b"")):
                parts.append(chunk)
                missing -= len(chunk)
            self._unread = b"".join(parts)
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def chunks(self) -> Iterator[bytes]:
        """Return the unread bytes as they arrive."""
        first = [self._unread] if self._unread else []
        return itertools.chain(first, self._chunks)


# --- streams --------------------------------------------------------------------------------------


class Stream:
    """One stream of bytes and its position.

    Args:
        codec: The shape of its frames.
        direction: Which stream of a capture; None if there is only one.
        skip: Bytes before its first frame.
        resync: After a bad frame, continue at the next one.
    """

    def __init__(
        self,
        codec: Codec[Any],
        direction: Direction | None = None,
        *,
        skip: int = 0,
        resync: bool = False,
    ) -> None:
        self.codec = codec
        self.direction = direction
        self.index = 0
        self.skip = skip
        self.offset = skip  # of the next frame
        self.received = 0
        self.recent = b""  # the last bytes that were received
        self.discarded = 0  # bytes before the next frame, with `resync`
        self._resync = resync
        self._splitter = codec.splitter(raw=True)
        if resync:  # frames one by one, for their positions
            self._splitter = codec.splitter(
                raw=True, on_invalid="resync", one_at_a_time=True, stream_offset=skip
            )

    @property
    def last_invalid(self) -> FrameError | None:
        """The error of the last bad frame, with `resync`."""
        return self._splitter.last_invalid

    def feed(self, chunk: bytes) -> Iterator[tuple[int, int, bytes, object]]:
        """Yield index, offset, frame and message of each frame that a chunk completes.

        Raises:
            FrameError: The next frame is bad.
        """
        self.recent = self.recent[-_KEPT:] + chunk
        if self.received < self.skip:
            self.received += len(chunk)
            chunk = chunk[len(chunk) - max(0, self.received - self.skip) :]
        else:
            self.received += len(chunk)
        frames = self._splitter.feed(chunk)
        while frames:
            for frame in frames:
                if self._resync:
                    offset = self._splitter.stream_offset - len(frame)
                    self.discarded, self.offset = offset - self.offset, offset
                yield self.index, self.offset, frame, self.codec.decode(frame)
                self.index += 1
                self.offset += len(frame)
            frames = self._splitter.feed(b"") if self._resync else []
        if self._splitter.error is not None:
            raise self._splitter.error

    def feed_eof(self) -> None:
        """Raise an error if the stream ends inside a frame."""
        self._splitter.feed_eof()
        if self._resync:
            offset = self._splitter.stream_offset
            self.discarded, self.offset = offset - self.offset, offset


def _show_frames(stream: Stream, chunk: bytes, show: Report) -> None:
    for frame in stream.feed(chunk):
        _show_discarded(stream, show)
        show.frame(stream, *frame)


def _show_discarded(stream: Stream, show: Report) -> None:
    if stream.discarded and stream.last_invalid is not None:
        show.discarded(stream, stream.offset - stream.discarded, stream.last_invalid)


def _dump_stream(stream: Stream, data: Iterable[bytes], show: Report) -> int:
    try:
        for chunk in data:
            _show_frames(stream, chunk, show)
            show.flush()
        stream.feed_eof()
    except FrameError as error:
        show.broken(stream, error)
        raise
    _show_discarded(stream, show)
    show.end()
    return int(stream.last_invalid is not None)


def _dump_capture(arguments: argparse.Namespace, found: Iterable[Piece], show: Report) -> int:
    streams: dict[Direction, Stream | None] = {}  # None: the rest of it cannot be read
    status = 0
    for piece in found:
        direction = piece.direction
        if direction not in streams:
            streams[direction] = _new_stream(arguments, direction)
        stream = streams[direction]
        if stream is None:
            continue
        try:
            if piece.lost:
                raise FrameError(
                    f"the capture lacks {piece.lost} bytes of the stream at offset "
                    f"{stream.received}; what follows them is not shown",
                    stream_offset=stream.received,
                )
            _show_frames(stream, piece.data, show)
            if piece.ended:
                stream.feed_eof()
                _show_discarded(stream, show)
            status = max(status, int(stream.last_invalid is not None))
        except FrameError as error:
            show.broken(stream, error)
            complain(stream, error)
            streams[direction] = None
            status = 1
    show.end()
    return status


def complain(stream: Stream, error: FrameError) -> None:
    """Print an error of one stream of several."""
    show = _name(stream.direction) if stream.direction else ""
    print(f"framecodec: {show}: {escape_controls(str(error))}", file=sys.stderr)


def _name(direction: Direction) -> str:
    late = "" if direction.from_start else " (from the middle)"
    ends = f"{address_name(direction.source)} > {address_name(direction.target)}"
    return f"tcp {direction.number}, {ends}{late}"


# --- reports --------------------------------------------------------------------------------------


class Report:
    """What is printed."""

    def frame(self, stream: Stream, index: int, offset: int, frame: bytes, message: object) -> None:
        """Print a frame."""
        raise NotImplementedError

    def broken(self, stream: Stream, error: FrameError) -> None:
        """Print the bytes around a bad place."""

    def discarded(self, stream: Stream, offset: int, error: FrameError) -> None:
        """Print where bytes were discarded, and why the last bad frame among them is bad."""

    def end(self) -> None:
        """Print the sum."""

    def flush(self) -> None:
        """Let a reader see what was printed."""
        if sys.stdout is not None:
            sys.stdout.flush()


class JsonReport(Report):
    """An object a line."""

    def frame(self, stream: Stream, index: int, offset: int, frame: bytes, message: object) -> None:
        """Print an object."""
        found = frame_object(index, offset, len(frame), message)
        if (direction := stream.direction) is not None:
            found["stream"] = direction.number
            found["source"] = address_name(direction.source)
            found["target"] = address_name(direction.target)
        write(json.dumps(found) + "\n")

    def discarded(self, stream: Stream, offset: int, error: FrameError) -> None:
        """Print an object."""
        found = {"offset": offset, "discarded": stream.discarded, "error": str(error)}
        write(json.dumps(found) + "\n")


class TextReport(Report):
    """Frames part by part, for people.

    Args:
        codec: The shape of the frames.
        limit: The most bytes of a part that are shown; None for all.
    """

    def __init__(self, codec: Codec[Any], limit: int | None) -> None:
        self._codec = codec
        self._limit = limit
        screen = console()
        # In a pipe no line has to fit a terminal.
        self._row = 16 if not screen.is_terminal or screen.width >= 88 else 8
        self._paint = _painter(screen)
        self._shown: Direction | None = None  # the stream of the last frame
        self._frames = self._bytes = 0

    def frame(self, stream: Stream, index: int, offset: int, frame: bytes, message: object) -> None:
        """Print the parts of a frame."""
        self._announce(stream)
        parts = dissect(self._codec, frame, message)
        said = [f", length {part.declared}" for part in parts if part.declared is not None]
        what = f"message {len(message)}" if isinstance(message, bytes) else f"special {message!r}"
        lines = [f"frame {index} at {offset}: size {len(frame)}{''.join(said)}, {what}\n"]
        for part in parts:
            lines += self._rows(part, offset, frame)
        write("".join(lines))
        self._frames += 1
        self._bytes += len(frame)

    def discarded(self, stream: Stream, offset: int, error: FrameError) -> None:
        """Print where bytes were discarded, and why the last bad frame among them is bad."""
        self._announce(stream)
        text = f"{stream.discarded} bytes at {offset} discarded: {escape_controls(str(error))}"
        write(self._paint(text, "bold red") + "\n")

    def _announce(self, stream: Stream) -> None:
        if stream.direction is not None and stream.direction is not self._shown:
            self._shown = stream.direction
            write(self._paint(_name(stream.direction), "bold") + "\n")

    def _rows(self, part: Part, offset: int, frame: bytes) -> Iterator[str]:
        stop = part.stop if self._limit is None else min(part.stop, part.start + self._limit)
        style = _STYLES.get(part.name, "")
        name = part.name
        for at in range(part.start, stop, self._row):
            row = frame[at : min(at + self._row, stop)]
            shown = f"{row.hex(' '):<{3 * self._row}} {_printable(row)}"
            yield f"  {offset + at:08x}  {name:<7} {self._paint(shown, style)}\n"
            name = ""
        if stop < part.stop:
            yield f"            {name:<7} ... {part.stop - stop} more bytes\n"

    def broken(self, stream: Stream, error: FrameError) -> None:
        """Print the bytes around a bad place."""
        self._announce(stream)
        start, bad = _bad_place(self._codec, stream, error)
        if isinstance(error, IncompleteFrameError):
            text = (
                f"the stream ends inside the frame that begins at byte {start} (^^), at byte {bad}"
            )
        elif start == bad:
            text = f"the frame that begins at byte {start} is bad from there (!!)"
        else:
            text = f"the frame that begins at byte {start} (^^) is bad from byte {bad} (!!)"
        write(self._paint(text, "bold red") + "\n")
        first = stream.received - len(stream.recent)
        begin = max(first, (min(start, bad) - _AROUND) // 16 * 16)
        end = min(stream.received, bad + _AROUND + 1)
        skipping = False
        for at in range(begin - begin % 16, end, 16):
            near = any(abs(place - at) <= 2 * _AROUND for place in (start, bad))
            if not near and not skipping:
                write("  ...\n")
            skipping = not near
            if near:
                write(self._context_row(stream, at, first, end, start, bad))

    def _context_row(
        self, stream: Stream, at: int, first: int, end: int, start: int, bad: int
    ) -> str:
        cells, marks, text = [], [], []
        for place in range(at, at + 16):
            known = first <= place < end
            byte = stream.recent[place - first : place - first + 1] if known else b""
            cells.append(byte.hex() or "  ")
            text.append(_printable(byte) or " ")
            marks.append("!!" if place == bad else "^^" if place == start else "  ")
        row = f"  {at:08x}  {' '.join(cells)}  {''.join(text)}".rstrip() + "\n"
        line = " ".join(marks).rstrip()
        return row + (f"            {self._paint(line, 'bold red')}\n" if line else "")

    def end(self) -> None:
        """Print the sum."""
        plural = "" if self._frames == 1 else "s"
        write(f"{self._frames} frame{plural}, {self._bytes} bytes\n")


def _bad_place(codec: Codec[Any], stream: Stream, error: FrameError) -> tuple[int, int]:
    """Return the position of the bad frame's first byte, and of the first byte that is wrong."""
    start = stream.offset
    if isinstance(error, IncompleteFrameError):
        return start, stream.received
    bad = start + max(0, len(error.header) - 1)
    try:  # the error of a trailer or check has a good header
        codec.decode(error.header)
    except IncompleteFrameError as cut:
        if cut.where != "header" and cut.needed is not None:
            bad = start + cut.needed - len(codec.parameters.get("trailer") or b"")
    except FrameError:
        pass
    return start, bad


_DOTS = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in range(256))


def _printable(data: bytes) -> str:
    return data.decode("latin-1").translate(_DOTS)


def _painter(screen: Any) -> Callable[[str, str], str]:
    """Return the function that gives a text a style, if the output has colours."""
    from rich.style import Style

    if screen.color_system is None or screen.no_color or not screen.is_terminal:
        return lambda text, style: text
    from rich.color import ColorSystem

    systems = {"truecolor": ColorSystem.TRUECOLOR, "256": ColorSystem.EIGHT_BIT}
    system = systems.get(screen.color_system, ColorSystem.STANDARD)
    styles = {style: Style.parse(style) for style in {*_STYLES.values(), "bold", "bold red", ""}}
    return lambda text, style: styles[style].render(text, color_system=system)
