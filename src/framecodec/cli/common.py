"""What several commands have in common: arguments, input, output, and the extra ``cli``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from .. import Codec, parse_codec
from ..sockets.base import set_nodelay

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "CHUNK_SIZE",
    "SIGNALS_WAIT",
    "CommandError",
    "add_codec",
    "add_command",
    "address_name",
    "chunks",
    "console",
    "escape_controls",
    "open_input",
    "open_socket",
    "parse_hex",
    "read_address",
    "readable",
    "watched",
    "write",
]

CHUNK_SIZE = 64 * 1024  # bytes of one read; as many are held at a time
SIGNALS_WAIT = 0.2
"""Seconds of one wait of the main thread. A signal that comes just before a wait does not end it
(on Windows, none does): its handler runs after the wait, so that a long one would lose Ctrl-C."""

_LONG_FILE = 16 * 1024 * 1024  # bytes from which on a file's progress is shown

Address = tuple[str, int] | str


class CommandError(Exception):
    """A command cannot continue. `main` prints the text in one line and returns the status.

    Args:
        message: The line, without the program's name.
        status: The exit status.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


# --- arguments ------------------------------------------------------------------------------------


def add_command(
    commands: argparse._SubParsersAction[Any],
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,
    description: str,
    needs: str = "rich",
) -> argparse.ArgumentParser:
    """Add a command that needs the extra ``cli`` and return its parser.

    Args:
        commands: The commands of the program.
        name: The command's name.
        run: The function that runs it and returns the exit status.
        help: One line for the list of commands.
        description: The text of ``framecodec NAME --help``.
        needs: The module without which the command says how to install the extra.
    """

    def run_with_extra(arguments: argparse.Namespace) -> int:
        try:
            importlib.import_module(needs)
        except ImportError:
            raise CommandError(
                f'the command {name} needs the extra "cli", which is not installed: run '
                'pip install "framecodec[cli]"'
            ) from None
        return run(arguments)

    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=description, allow_abbrev=False
    )
    parser.set_defaults(run=run_with_extra)
    return parser


def add_codec(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add the option ``--codec``; it is required unless there is a default."""
    parser.add_argument(
        "--codec",
        metavar="C",
        type=_read_codec,
        required=default is None,
        default=default and parse_codec(default),
        help="the shape of a frame: a name (framecodec formats lists them) or a notation such as "
        "u32be or u16le,offset=2,includes=frame" + (f"; default {default}" if default else ""),
    )


def _read_codec(text: str) -> Codec:
    try:
        return parse_codec(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def read_address(text: str) -> Address:
    """Return the address of ``HOST:PORT``, ``[::1]:PORT`` or ``unix:PATH``."""
    if text.startswith("unix:"):
        if not text[5:]:
            raise argparse.ArgumentTypeError(f"{text!r} has no path; write unix:PATH")
        return text[5:]
    match = re.fullmatch(r"(?:tcp://)?(?:\[([^\]]*)\]|([^\[\]:/]*)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an address; write HOST:PORT, [::1]:PORT or unix:PATH"
        )
    return match[1] or match[2] or "127.0.0.1", int(match[3])


def open_socket(address: Address) -> socket.socket:
    """Return a connected stream socket.

    Raises:
        CommandError: The address cannot be reached.
    """
    try:
        if isinstance(address, tuple):
            sock = socket.create_connection(address)
            set_nodelay(sock)
            return sock
        if not hasattr(socket, "AF_UNIX"):
            raise CommandError("this system has no Unix sockets")
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock
    except OSError as error:
        raise CommandError(f"{address_name(address)}: {error.strerror or error}") from None


def address_name(address: Any) -> str:
    """Return an address as `read_address` reads it."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    path = os.fsdecode(address) if address else "unnamed"
    return f"unix:{path}"


# --- input ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_input(name: str | None) -> Iterator[BinaryIO]:
    """Open a file to read; ``-`` and None are standard input."""
    if name is None or name == "-":
        if sys.stdin is None:
            raise CommandError("there is no standard input; name a file")
        yield sys.stdin.buffer
        return
    with open(name, "rb", buffering=0) as file:
        yield file


def chunks(source: BinaryIO | socket.socket, size: int = CHUNK_SIZE) -> Iterator[bytes]:
    """Yield what a file or a socket has, as it arrives, at most `size` bytes at a time."""
    if isinstance(source, socket.socket):
        while data := source.recv(size):
            yield data
        return
    read: Callable[[int], bytes | None] = getattr(source, "read1", source.read)
    while data := read(size) or b"":
        yield data


@contextlib.contextmanager
def watched(file: BinaryIO, what: str) -> Iterator[Callable[[int], None]]:
    """Show the progress in a long file on standard error while a person watches.

    Yields:
        The function to call with the number of bytes that were read.
    """
    size = 0
    with contextlib.suppress(OSError, ValueError):
        status = os.fstat(file.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    # Output on the same terminal shows the progress, and a bar would be in its way.
    if size < _LONG_FILE or not _is_terminal(sys.stderr) or _is_terminal(sys.stdout):
        yield lambda count: None
        return
    from rich.progress import Progress

    # Rich would send what is written to standard output to the terminal of the bar.
    bar = Progress(console=console(stderr=True), transient=True, redirect_stdout=False)
    with bar as progress:
        task = progress.add_task(what, total=size)
        yield lambda count: progress.update(task, advance=count)


def parse_hex(text: str) -> bytes:
    """Return the bytes of hexadecimal digits; spaces and colons between them are ignored.

    Raises:
        ValueError: The text is something else.
    """
    try:
        return bytes.fromhex(text.replace(":", " "))
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is not hexadecimal; write two digits for each byte"
        ) from None


# --- output ---------------------------------------------------------------------------------------


def console(*, stderr: bool = False) -> Console:
    """Return rich's console for an output, which decides about colour and width."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def write(text: str) -> None:
    """Write text to standard output, if there is one."""
    if sys.stdout is not None:
        sys.stdout.write(text)


def readable(message: object) -> str:
    r"""Return a message in one line: UTF-8 text as it is, all other bytes as ``\xff``.

    Control characters and line ends are escaped, so that no message can control a terminal or look
    like two.
    """
    if not isinstance(message, bytes | bytearray | memoryview):
        return repr(message)
    return escape_controls(bytes(message).decode(errors="backslashreplace"))


def escape_controls(text: str) -> str:
    """Escape the characters of a text that control a terminal; a tab stays."""
    return text if text.isprintable() else text.translate(_ESCAPES)


class _Escapes(dict[int, str]):
    """What each character is shown as, computed when it first occurs."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        shown = char
        if not char.isprintable() and char != "\t":
            shown = char.encode("unicode_escape", "surrogatepass").decode()
        self[code] = shown
        return shown


_ESCAPES = _Escapes()


def _is_terminal(stream: Any) -> bool:
    return stream is not None and not stream.closed and stream.isatty()
