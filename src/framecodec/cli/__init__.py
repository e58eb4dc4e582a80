"""The command line, ``framecodec COMMAND``.

Each family of commands is a file of this folder. Its `add_commands` tells the parser of each
command, and which function runs it: that takes the parsed arguments, writes to standard output and
returns the exit status. What all commands have in common stands here:

* bad usage and bad input are one line on standard error and a non-zero status, never a traceback
  (status 2 where the command line is at fault, 1 where what it names is, 130 after Ctrl-C);
* a reader that has seen enough (``framecodec formats | head -1``) is no error to be told about.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import ACCELERATED, FrameError, __version__
from . import demo, formats

__all__ = ["main"]

_FAMILIES = (demo, formats)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments behind the program's name; None for those of the process.

    Returns:
        The exit status: 0 where the command did what it says.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not have every character
        sys.stdout.reconfigure(errors="backslashreplace")
    status: int
    try:
        try:
            arguments = _make_parser().parse_args(argv)
        except SystemExit as end:  # argparse: 0 for --help and --version, 2 for bad usage
            status = end.code if isinstance(end.code, int) else 0
        else:
            status = arguments.run(arguments)
        _flush()
    except BrokenPipeError:
        _abandon_stdout()
        return 1
    except KeyboardInterrupt:
        return 130
    except (FrameError, OSError) as error:
        print(f"framecodec: {_one_line(str(error)) or type(error).__name__}", file=sys.stderr)
        try:
            _flush()  # what came before the error is delivered
        except OSError:
            _abandon_stdout()
        return 1
    return status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse would put its usage in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")


def _one_line(text: str) -> str:
    """A text may quote what the user gave, line ends and escape sequences too."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="framecodec",
        description="Whole messages over byte streams: length-prefixed frames.",
        allow_abbrev=False,
    )
    engine = "compiled" if ACCELERATED else "Python"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    parser.add_argument(
        "--version",
        action="version",
        version=f"framecodec {__version__}, {engine} engine, {python}",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for family in _FAMILIES:
        family.add_commands(commands)
    return parser


def _flush() -> None:
    if sys.stdout is not None:  # closed by the caller: `framecodec demo >&-`
        sys.stdout.flush()


def _abandon_stdout() -> None:
    """What could not be written is dropped, so that Python's own flush at exit fails not again."""
    with (
        contextlib.suppress(OSError, ValueError),  # it is no file: nothing to do
        open(os.devnull, "wb") as nowhere,
    ):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
