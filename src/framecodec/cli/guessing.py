"""``framecodec guess``: the codecs that explain a capture."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from typing import Any

from .. import Guess, formats, guess
from .captures import Direction, is_capture, pieces
from .common import add_command, address_name, console, open_input, write

__all__ = ["add_commands"]

_LARGEST = 16 * 1024 * 1024  # bytes of a stream that are looked at


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``guess``."""
    parser = add_command(
        commands,
        "guess",
        _guess,
        help="the codecs that explain a capture",
        description="Find the codecs that explain the bytes of a file, best first, with the "
        "evidence. It is a guess: a codec that explains all bytes can still be the wrong one. Of a "
        "pcap or pcapng file each direction of each TCP connection is looked at. The exit status "
        "is 1 if nothing explains the bytes.",
    )
    parser.add_argument("--json", action="store_true", help="one object a line for each guess")
    parser.add_argument(
        "--limit", metavar="N", type=_limit, default=5, help="show at most N guesses; default 5"
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="default: standard input")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) < 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 999")
    return int(text)


def _guess(arguments: argparse.Namespace) -> int:
    with open_input(arguments.file) as file:
        data = _read(file, 4)
        if is_capture(data):
            source = _Rest(data, file)
            return _guess_streams(source, arguments)
        data += _read(file, _LARGEST - len(data))
        cut = bool(_read(file, 1))
    found = guess(data, limit=arguments.limit)
    if arguments.json:
        _print_json(found, None)
    else:
        _print(found, len(data), cut)
    return 0 if found else 1


def _read(file: Any, size: int) -> bytes:
    parts = []
    while size > 0 and (part := file.read(min(size, 1024 * 1024))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Rest:
    """A file after some of its first bytes were read."""

    def __init__(self, head: bytes, file: Any) -> None:
        self._head = io.BytesIO(head)
        self._file = file

    def read(self, size: int) -> bytes:
        head = self._head.read(size)
        return head + _read(self._file, size - len(head))


def _guess_streams(source: _Rest, arguments: argparse.Namespace) -> int:
    streams: dict[Direction, bytearray] = {}
    closed: set[Direction] = set()
    for piece in pieces(source.read):
        stream = streams.setdefault(piece.direction, bytearray())
        if piece.lost or len(stream) >= _LARGEST:
            closed.add(piece.direction)  # what is after a gap cannot be followed
        if piece.direction not in closed:
            stream += piece.data
    any_found = False
    for direction, data in streams.items():
        if not data:
            continue
        found = guess(data, limit=arguments.limit)
        any_found = any_found or bool(found)
        ends = f"{address_name(direction.source)} > {address_name(direction.target)}"
        if arguments.json:
            _print_json(found, direction)
        else:
            write(f"tcp {direction.number}, {ends}\n")
            _print(found, len(data), direction in closed)
    if not streams and not arguments.json:
        write("none: the capture has no TCP connection\n")
    return 0 if any_found else 1


def _print_json(found: list[Guess], direction: Direction | None) -> None:
    for one in found:
        shown: dict[str, object] = {
            "codec": str(one.codec),
            "names": list(one.names),
            "frames": one.frames,
            "offset": one.offset,
            "explained": one.explained,
            "left": one.left,
            "bits": one.bits,
        }
        if direction is not None:
            shown["stream"] = direction.number
            shown["source"] = address_name(direction.source)
            shown["target"] = address_name(direction.target)
        write(json.dumps(shown) + "\n")


def _print(found: list[Guess], size: int, cut: bool) -> None:
    beginning = " at the beginning of the file" if cut else ""
    if not found:
        write(
            f"none: no codec explains the {size} bytes{beginning} better than chance. Frames must "
            "begin at the first byte, and there must be at least four of them.\n"
        )
        return
    write(f"A guess, for {size} bytes{beginning}; the best is first.\n")
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("CODEC", "KNOWN AS"):
        table.add_column(name, overflow="fold")
    for name in ("FRAMES", "BYTES LEFT", "BY CHANCE"):
        table.add_column(name, justify="right")
    for place, one in enumerate(found):
        table.add_row(
            str(one.codec),
            ", ".join(one.names),
            str(one.frames),
            str(one.left),
            _chance(one.bits),
            style="bold" if place == 0 else "",
        )
    screen = console()
    screen.soft_wrap = False
    if not screen.is_terminal:
        screen.width = 120
    if sys.stdout is not None:
        screen.print(table)
    best = found[0]
    if best.offset:
        write(f"The first frame begins at byte {best.offset}, after a greeting.\n")
    skip = f" --skip {best.offset}" if best.offset else ""
    write(f"See the frames: framecodec dump --codec {_shortest(best)}{skip} FILE\n")


def _shortest(one: Guess) -> str:
    """Return the name of a codec, or its notation in quotes."""
    known = [name for name in one.names if formats[name] == one.codec]
    return known[0] if known else f"'{one.codec}'"


def _chance(bits: float) -> str:
    digits = bits * math.log10(2)
    return "1 in a million" if digits < 6.5 else f"1 in 10^{digits:.0f}"
