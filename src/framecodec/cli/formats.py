"""``framecodec formats``: the known protocols and the shapes of their frames."""

from __future__ import annotations

import argparse
from typing import Any

from .. import Codec
from .._layout import CUSTOM, DIGITS, HEADERS, TEXT, UINT, Layout
from ..formats import formats

__all__ = ["add_commands", "draw"]


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "formats",
        help="the known protocols and the shapes of their frames",
        description="One line for each known protocol: its name, its frame, what it is and where "
        "that is written down. In the drawing, [n] are n bytes, and what is not in [ ] is constant.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=lambda _: _print_table())


def _print_table() -> int:
    rows = [
        (row.name, draw(row.codec), f"{row.description} ({row.specification})")
        for row in formats.table()
    ]
    for column in rows:
        pass
    return 0
