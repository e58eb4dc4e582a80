"""``framecodec bench``: load on a framed echo server, every reply verified."""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from .. import Codec, FrameError, FrameSocket, connect
from .common import (
    CommandError,
    add_codec,
    add_command,
    address_name,
    console,
    read_address,
    write,
)

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["add_commands"]

_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
_BARS = 12
_TIMEOUT = 30.0  # seconds without a reply after which the server counts as gone


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``bench``."""
    parser = add_command(
        commands,
        "bench",
        _bench,
        help="load on a framed echo server: rates and latencies",
        description="Send messages to a server that sends each one back (framecodec listen "
        "--echo), verify every reply, and print rates and latencies.",
    )
    add_codec(parser, default="u32be")
    for option, default, what in (
        ("--connections", 1, "connections at the same time"),
        ("--in-flight", 1, "messages of a connection that wait for their reply"),
        ("--size", 64, "bytes of a message"),
    ):
        parser.add_argument(
            option, metavar="N", type=_positive, default=default, help=f"{what}; default {default}"
        )
    parser.add_argument(
        "--seconds", metavar="S", type=_seconds, default=5.0, help="how long; default 5"
    )
    parser.add_argument("--messages", metavar="N", type=_positive, help="end after N messages")
    parser.add_argument("--json", action="store_true", help="one object")
    parser.add_argument("address", metavar="ADDRESS", type=read_address)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:12]) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


class _Client:
    """One connection and its replies.

    Attributes:
        latencies: Seconds from sending to receiving, one for each reply.
        error: What ended it early.
    """

    def __init__(self, arguments: argparse.Namespace, number: int, share: int | None) -> None:
        self.latencies: list[float] = []
        self.error: Exception | None = None
        self._arguments = arguments
        self._share = share
        codec: Codec[Any] = arguments.codec
        self._conn: FrameSocket[Any] = connect(arguments.address, codec, timeout=_TIMEOUT)
        # Different bytes for each connection and message, so that a mixed-up reply is noticed.
        self._filler = random.Random(number).randbytes(arguments.size)
        self._count = number << 32

    def run(self, deadline: float) -> None:
        """Send and receive until the deadline or the last message."""
        try:
            with self._conn:
                self._run(deadline)
        except EOFError:
            self.error = CommandError("the server closed the connection before its last reply")
        except (FrameError, OSError, CommandError) as error:
            self.error = error

    def _next(self) -> bytes:
        self._count += 1
        number = self._count.to_bytes(8, "big")
        return (number + self._filler[8:])[-len(self._filler) :]

    def _run(self, deadline: float) -> None:
        conn, waiting = self._conn, collections.deque[tuple[bytes, float]]()
        clock, latencies = time.perf_counter, self.latencies
        unsent = self._share
        batch = self._arguments.in_flight
        while True:
            if clock() >= deadline:
                batch = 0
            if unsent is not None:
                batch = min(batch, unsent)
                unsent -= batch
            if batch:
                messages = [self._next() for _ in range(batch)]
                now = clock()
                waiting.extend((message, now) for message in messages)
                conn.send_many(messages)
            if not waiting:
                return
            replies = conn.recv_many()
            now = clock()
            for reply in replies:
                if not waiting or reply != waiting[0][0]:
                    raise CommandError(f"a wrong reply, after {len(latencies)} right ones")
                latencies.append(now - waiting.popleft()[1])
            batch = len(replies)


def _bench(arguments: argparse.Namespace) -> int:
    count = arguments.connections
    total = arguments.messages
    shares = [None if total is None else (total + i) // count for i in range(count)]
    try:
        clients = [_Client(arguments, i, share) for i, share in enumerate(shares)]
    except OSError as error:
        where = address_name(arguments.address)
        raise CommandError(f"{where}: {error.strerror or error}") from None
    began = time.perf_counter()
    deadline = began + (arguments.seconds if total is None else 1e9)
    threads = [threading.Thread(target=c.run, args=(deadline,), daemon=True) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)
    elapsed = time.perf_counter() - began
    latencies = sorted(latency for client in clients for latency in client.latencies)
    errors = [client.error for client in clients if client.error is not None]
    if latencies:
        _report(arguments, latencies, elapsed)
    if errors:
        raise CommandError(f"{len(errors)} of {count} connections failed: {errors[0]}")
    return 0


def _report(arguments: argparse.Namespace, latencies: list[float], elapsed: float) -> None:
    rate = len(latencies) / elapsed
    megabytes = rate * arguments.size / 1e6
    last = len(latencies) - 1
    at = {p: latencies[min(last, int(p / 100 * len(latencies)))] for p in _PERCENTILES}
    if arguments.json:
        shown: dict[str, object] = {
            "messages": len(latencies),
            "seconds": round(elapsed, 6),
            "rate": round(rate, 1),
            "bytes_per_second": round(rate * arguments.size),
            "latency_us": {f"{p:g}": round(at[p] * 1e6, 1) for p in _PERCENTILES},
        }
        write(json.dumps(shown) + "\n")
        return
    write(
        f"{len(latencies):,} replies in {elapsed:.2f} s, all verified\n"
        f"{rate:,.0f} messages/s, {megabytes:,.1f} MB/s in each direction\n"
    )
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("LATENCY")
    for p in _PERCENTILES:
        table.add_column("max" if p == 100 else f"{p:g} %", justify="right")
    table.add_row("µs", *(f"{at[p] * 1e6:,.0f}" for p in _PERCENTILES))
    screen = console()
    if sys.stdout is not None:
        screen.print(table)
        screen.print(_plot(latencies, at[99.0]))


def _plot(latencies: list[float], longest: float) -> Table:
    """Return a picture of how often which latency occurred, up to the 99th percentile."""
    from rich import box
    from rich.bar import Bar
    from rich.table import Table

    step = max(longest - latencies[0], 1e-6) / _BARS
    counts = [0] * _BARS
    for latency in latencies:
        if latency <= longest:
            counts[min(_BARS - 1, int((latency - latencies[0]) / step))] += 1
    picture = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True)
    picture.add_column("µs", justify="right")
    picture.add_column("REPLIES", justify="right")
    picture.add_column("up to the 99th percentile", ratio=1)
    for place, count in enumerate(counts):
        start = (latencies[0] + place * step) * 1e6
        picture.add_row(f"{start:,.0f}", f"{count:,}", Bar(max(counts), 0, count))
    return picture
