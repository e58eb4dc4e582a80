"""The command line, ``framecodec COMMAND``.

Each family of commands is a module of this folder. Its `add_commands` adds the parser of each
command and sets the function that runs it. That function takes the parsed arguments, writes to
standard output and returns the exit status. This module does what all commands have in common:

* Bad usage and bad input are one line on standard error and a non-zero status, never a traceback:
  status 2 for a bad command line, 1 for a bad input, 130 after Ctrl-C.
* A reader that closes the pipe early (``framecodec formats | head -1``) is not reported.
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
from . import convert, demo, dump, formats, guessing, load, proxy, talk, transfer, wireshark
from .common import CommandError

__all__ = ["main"]

_FAMILIES = (
    demo,
    formats,
    convert,
    dump,
    guessing,
    talk,
    transfer,
    load,
    proxy,
    wireshark,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name; None for those of the process.

    Returns:
        The exit status, 0 for success.
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
    except (CommandError, FrameError, OSError) as error:
        try:
            _flush()  # deliver the output before the error
        except OSError:
            _abandon_stdout()
        print(f"framecodec: {_one_line(str(error)) or type(error).__name__}", file=sys.stderr)
        return error.status if isinstance(error, CommandError) else 1
    return status


class _Parser(argparse.ArgumentParser):
    """A parser that reports bad usage in one line; argparse would print its usage before it."""

    def error(self, message: str) -> NoReturn:
        """Print one line to standard error and exit with status 2."""
        self.exit(2, f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")


def _one_line(text: str) -> str:
    """Escape a text that can quote user input with line ends and control sequences."""
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
    if sys.stdout is not None:  # None if the caller closed it: `framecodec demo >&-`
        sys.stdout.flush()


def _abandon_stdout() -> None:
    """Point stdout at the null device, so that Python's flush at exit does not fail again."""
    with (
        contextlib.suppress(OSError, ValueError),  # stdout is not a file
        open(os.devnull, "wb") as nowhere,
    ):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
