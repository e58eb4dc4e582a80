"""``framecodec formats``: the known protocols and the shapes of their frames."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import textwrap
from typing import Any

from .. import Codec
from .._layout import BCD, BER, COBS, CUSTOM, DIGITS, FIXED, HEADERS, TEXT, UINT, VARINT, Layout
from ..catalogue import Format, formats

__all__ = ["add_commands", "draw"]

_COLUMNS_OF_A_TABLE = 120  # of a terminal; in a narrower one each format has two rows
_MOST_DRAWN = 3  # alternatives of a choice

_OTHER_KINDS = {BCD: "bcd", BER: "ber", VARINT: "varint"}


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``formats``."""
    parser = commands.add_parser(
        "formats",
        help="the known protocols and the shapes of their frames",
        description="Print one line for each known protocol: its name, its frame, and what it is; "
        "or more about one of them. In the drawing of the frame, <n> means n bytes of the message; "
        "bytes without brackets are constant.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="one object a line for each format")
    parser.add_argument("name", metavar="NAME", nargs="?", type=_format, help="only this one")
    parser.set_defaults(run=_run)


def _format(name: str) -> Format:
    try:
        return formats.describe(name)
    except KeyError as error:
        raise argparse.ArgumentTypeError(str(error.args[0])) from None


def _run(arguments: argparse.Namespace) -> int:
    rows = formats.table() if arguments.name is None else [arguments.name]
    if arguments.json:
        for row in rows:
            print(json.dumps(_object(row)))
        return 0
    return _print_table() if arguments.name is None else _print_format(arguments.name)


def _object(row: Format) -> dict[str, object]:
    return {
        "name": row.name,
        "codec": str(row.codec),
        "frame": draw(row.codec),
        "max_message_size": row.codec.max_message_size,
        "description": row.description,
        "specification": row.specification,
    }


def _print_format(row: Format) -> int:
    limit = row.codec.max_message_size
    for label, text in (
        ("name", row.name),
        ("what it is", row.description),
        ("specification", row.specification),
        ("frame", draw(row.codec)),
        ("codec", str(row.codec)),
        ("in Python", repr(row.codec)),
        ("limit", "none" if limit is None else f"{limit:,} bytes of a message"),
    ):
        _print_row((f"{label:<13}",), text)
    return 0


def _print_table() -> int:
    rows = [("NAME", "FRAME", "WHAT IT IS")]
    for row in formats.table():
        rows.append((row.name, draw(row.codec), f"{row.description} ({row.specification})"))
    name_width, frame_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    columns = _terminal_columns()
    for name, frame, what in rows:
        if columns is None:
            print(f"{name:<{name_width}}  {frame:<{frame_width}}  {what}")
        elif columns < _COLUMNS_OF_A_TABLE:  # the frame, and what it is below it
            _print_row((f"{name:<{name_width}}",), frame)
            _print_row((" " * name_width,), what)
        else:
            width = min(frame_width, (columns - name_width) * 2 // 5)
            lines = textwrap.wrap(frame, width) or [""]
            _print_row((f"{name:<{name_width}}", *(f"{line:<{width}}" for line in lines)), what)
    return 0


def _terminal_columns() -> int | None:
    """Return the width of the terminal on standard output; None if it is another file."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return max(40, shutil.get_terminal_size().columns)


def _print_row(cells: tuple[str, ...], text: str) -> None:
    """Print a text after some cells, with its lines below each other in a terminal.

    Args:
        cells: The first cell, and the lines of the second one, if any; each padded.
        text: The last cell.
    """
    first, *second = cells
    columns = _terminal_columns()
    margin = len(first) + 2 + (len(second[0]) + 2 if second else 0)
    lines = [text] if columns is None else textwrap.wrap(text, max(20, columns - margin))
    for place, (middle, last) in enumerate(itertools.zip_longest(second, lines)):
        start = first if place == 0 else " " * len(first)
        if second:
            start += "  " + (middle or " " * len(second[0]))
        print(f"{start}  {last or ''}".rstrip())


def draw(codec: Codec[Any]) -> str:
    """Return a drawing of a codec's frame in one line, in the order of its bytes.

    ``<1> <u32be = rest+4> <rest>`` is a byte, a length that counts itself, and the rest.
    """
    return _draw(codec.layout)


def _draw(layout: Layout) -> str:
    if layout.choice is not None:
        drawn = list(dict.fromkeys(_draw(each) for each in layout.choice.layouts))
        more = f" | {len(drawn) - _MOST_DRAWN} others" if len(drawn) > _MOST_DRAWN + 1 else ""
        return " | ".join(drawn[: _MOST_DRAWN if more else None]) + more
    parts = [_draw_constant(layout.magic)] if layout.magic else []
    if layout.lead_size:
        parts.append(f"<{layout.lead_size}>")
    if layout.marks:
        content = "<stuffed>" if layout.kind == COBS else "<escaped>" if layout.escape else "<rest>"
        ends = "|".join(map(_draw_constant, layout.marks))
        return " ".join([*parts, content, ends])
    if layout.kind == FIXED:
        parts.append(f"<{layout.size}>")
    else:
        parts += [_draw_length(layout), "<rest>"]
    if layout.trailer:
        parts.append(_draw_constant(layout.trailer))
    drawn_parts = " ".join(parts)
    return f"[{drawn_parts}]*" if layout.joined else drawn_parts


def _draw_length(layout: Layout) -> str:
    if layout.kind == CUSTOM:
        return "<header>"
    counts = ""
    if layout.counts_frame:
        counts = " = frame"
    elif layout.adjustment:
        counts = f" = rest{-layout.adjustment:+}"
    if layout.kind == HEADERS:
        return f"{layout.name}: <decimal{counts}> 0d0a0d0a"
    digits = "hex" if layout.base == 16 else "decimal"
    if layout.kind == TEXT:
        return f"<{digits}{counts}> {_draw_constant(layout.end)}"
    if layout.kind == DIGITS:
        return f"<{layout.field_width} {digits} digits{counts}>"
    if layout.kind == UINT:
        order = "" if layout.field_width == 1 else "le" if layout.little else "be"
        sign = "i" if layout.signed else "u"
        return f"<{sign}{8 * layout.field_width}{order}{counts}>"
    return f"<{_OTHER_KINDS[layout.kind]}{counts}>"


def _draw_constant(constant: bytes) -> str:
    """Return text and punctuation as they are, else hexadecimal: ``ff*16`` is 16 bytes ff."""
    is_text = constant.isascii() and constant.decode().isprintable()
    if is_text and (len(constant) > 1 or not constant.isalnum()):
        return repr(constant.decode())
    if len(constant) > 2 and len(set(constant)) == 1:
        return f"{constant[:1].hex()}*{len(constant)}"
    return constant.hex()
