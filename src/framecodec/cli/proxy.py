"""``framecodec proxy``: the test kit's relay, with a log of the frames."""

from __future__ import annotations

import argparse
import re
import sys
import threading
from typing import TYPE_CHECKING, Any

from .. import FrameError
from . import captures
from .common import (
    SIGNALS_WAIT,
    CommandError,
    add_codec,
    add_command,
    address_name,
    read_address,
)
from .dump import JsonReport, Stream, TextReport, complain

if TYPE_CHECKING:
    from ..testing import Direction

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``proxy``."""
    parser = add_command(
        commands,
        "proxy",
        _proxy,
        help="a relay that cuts and joins the stream anew, and logs the frames",
        description="Relay connections to a server. The bytes are passed on unchanged, in pieces "
        "of other sizes: programs that depend on how the network cuts a stream fail. With --dump "
        "the frames of both directions are shown as by framecodec dump.",
    )
    parser.add_argument("--listen", metavar="ADDRESS", type=read_address, required=True)
    parser.add_argument("--to", metavar="ADDRESS", type=read_address, required=True)
    parser.add_argument(
        "--sizes",
        metavar="A-B",
        type=_sizes,
        default=(1, 7),
        help="least and most bytes of a piece; default 1-7",
    )
    parser.add_argument(
        "--delay", metavar="S", type=_seconds, default=0.0, help="seconds between two pieces"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="for other random sizes; default 0"
    )
    parser.add_argument("--dump", action="store_true", help="show the frames of both directions")
    parser.add_argument("--json", action="store_true", help="with --dump: one object a line")
    add_codec(parser, default="u32be")


def _sizes(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
    if match is not None:
        least, most = int(match[1]), int(match[2] or match[1])
        if 1 <= least <= most:
            return least, most
    raise argparse.ArgumentTypeError(f"{text!r} is not a range of sizes; write 1-7")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return seconds


def _proxy(arguments: argparse.Namespace) -> int:
    from ..testing import ChunkingProxy

    log = _Log(arguments) if arguments.dump else None
    try:
        proxy = ChunkingProxy(
            arguments.to,
            sizes=arguments.sizes,
            delay=arguments.delay,
            seed=arguments.seed,
            listen=arguments.listen,
            observe=None if log is None else log.observe,
        )
    except OSError as error:
        where = address_name(arguments.listen)
        raise CommandError(f"{where}: {error.strerror or error}") from None
    with proxy:
        print(
            f"framecodec: listening on {address_name(proxy.address)}", file=sys.stderr, flush=True
        )
        closed = log.output_closed if log is not None else threading.Event()
        while not closed.wait(SIGNALS_WAIT):
            pass
    raise BrokenPipeError


class _Log:
    """The frames of all connections, as their pieces pass."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.output_closed = threading.Event()
        self._codec = arguments.codec
        self._server = arguments.to
        self._report = JsonReport() if arguments.json else TextReport(arguments.codec, None)
        self._streams: dict[tuple[int, str], Stream | None] = {}  # None: it is broken

    def observe(self, direction: Direction, data: bytes) -> None:
        """Show the frames that a piece completes; the relay calls this for one piece at a time."""
        key = direction.connection, direction.sender
        if key not in self._streams:
            self._streams[key] = Stream(self._codec, self._named(direction))
        stream = self._streams[key]
        try:
            if stream is not None:
                self._show(stream, data)
        except FrameError as error:
            assert stream is not None
            self._report.broken(stream, error)
            self._report.flush()
            complain(stream, error)
            self._streams[key] = None
        except OSError:  # the reader of the log is gone
            self.output_closed.set()
        if not data:
            self._streams[key] = None

    def _show(self, stream: Stream, data: bytes) -> None:
        for frame in stream.feed(data):
            self._report.frame(stream, *frame)
        self._report.flush()
        if not data:
            stream.feed_eof()

    def _named(self, direction: Direction) -> captures.Direction:
        client = direction.client or "a client"
        ends = (client, self._server)
        source, target = ends if direction.sender == "client" else ends[::-1]
        return captures.Direction(direction.connection - 1, source, target, from_start=True)
