"""How many replies a second does an echo server give, and how long does a client wait?

Each server is a process on one core. The clients are one program in C (`native/load`) on another
core: it keeps a fixed number of messages on the way on each connection, and compares every reply
with its message. So these are servers under full load: with more requests on the way than it can
answer at once, a server's latency follows from its rate.

Four tables a load: the rate, as time a reply; the processor time that the server used for a reply,
which a busy machine disturbs less; and the median and the 99th percentile of the latency.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import native
from .contenders import Missing
from .harness import Case, Entry, Scale, expect
from .sources import KIB, size_name

ROOT = Path(__file__).parents[1]
TIMEOUT = 30.0  # seconds that a server may take to start

# (connections, messages in flight on each, size)
LOADS = (
    (50, 1, 64),
    (50, 16, 64),
    (10, 100, 64),
    (50, 16, KIB),
    (10, 4, 64 * KIB),
)
LEAST_SECONDS = 0.02
SECONDS = 20  # a sample is that many times longer than one in memory

OURS = (
    "serve_messages",
    "serve",
    "serve, recv_many",
    "FrameProtocol, uvloop",
    "FrameProtocol, asyncio",
    "FrameStream, uvloop",
    "FrameStream, asyncio",
    "FrameSocket, selectors",
    "FrameSocket, threads",
)
ALTERNATIVES = (
    "Protocol by hand, uvloop",
    "Protocol by hand, asyncio",
    "uvloop streams",
    "asyncio streams",
)
NATIVE = {"C by hand": ("c_echo", "floor"), "tokio-util": ("tokio_echo", "native")}

Figures = dict[str, float]


def cases(scale: Scale) -> Iterator[Case]:
    for connections, in_flight, size in LOADS:
        yield from load_cases(connections, in_flight, size)


def load_cases(connections: int, in_flight: int, size: int) -> Iterator[Case]:
    """Yield a case that measures, and those that show its other figures."""
    label = f"echo {size_name(size)}, {connections} connections, {in_flight} in flight"
    axes = {"connections": connections, "in_flight": in_flight, "size": size}
    question = f"{connections} {in_flight} {size}"
    recorded: dict[str, list[Figures]] = {}

    def makers(make: Callable[[str, str], Entry]) -> dict[str, Callable[[], Entry]]:
        roles = {name: "ours" for name in OURS} | {name: "alternative" for name in ALTERNATIVES}
        roles |= {name: role for name, (_, role) in NATIVE.items()}
        return {name: lambda n=name, r=role: make(n, r) for name, role in roles.items()}

    def measured(name: str, role: str) -> Entry:
        return _entry(name, role, question, recorded.setdefault(name, []))

    yield Case("server", label, axes, {}, "ns a reply", makers(measured))
    for figure, what, unit in (
        ("cpu", "the server's processor time", "ns a reply"),
        ("p50", "median latency", "µs"),
        ("p99", "99th percentile of the latency", "µs"),
    ):

        def shown(name: str, role: str, figure: str = figure) -> Entry:
            return _shown(name, role, figure, recorded)

        title = f"{what}: {label}"
        yield Case("server", title, {"figure": figure} | axes, {}, unit, makers(shown))


# --- a server in its process ----------------------------------------------------------------------


class Server:
    """A running server."""

    def __init__(self, name: str) -> None:
        command = _command(name)
        with _on_core(0):  # which all its threads inherit
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        try:
            assert self._process.stdout is not None
            ready = select.select([self._process.stdout], [], [], TIMEOUT)[0]
            line = self._process.stdout.readline() if ready else ""
            if not line:
                raise Missing(f"{name}: the server does not start")
            self.port = int(line)
        except BaseException:
            self.close()
            raise

    def processor_time(self) -> float:
        """Return the ns of processor time that all its threads have used, also those that ended."""
        if sys.platform != "linux":
            return 0.0
        # As clock_getcpuclockid() makes it: Python has only that of the own process.
        clock = (~self._process.pid << 3) | 2
        return time.clock_gettime_ns(clock)

    def close(self) -> None:
        native.stop(self._process)


def _command(name: str) -> list[str]:
    if name in NATIVE:
        return shlex.split(native.build(NATIVE[name][0]))
    if "uvloop" in name:
        try:
            import uvloop  # noqa: F401
        except ImportError:
            raise Missing("uvloop is not installed") from None
    return [sys.executable, "-m", "bench.echo_servers", name]


@contextlib.contextmanager
def _on_core(number: int) -> Iterator[None]:
    """Keep the processes that are started inside on one core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


# --- entries --------------------------------------------------------------------------------------


def ask(load: Any, port: int, question: str, seconds: float) -> Figures:
    """Load a server for that long and return the figures."""
    answer: Any = load.ask(f"echo {port} {question} {seconds}")
    if "error" in answer:
        raise EOFError(answer["error"])
    return answer


def _entry(name: str, role: str, question: str, recorded: list[Figures]) -> Entry:
    with _on_core(1):
        load = native.get("load")
    server = Server(name)

    def measure(number: int, seconds: float) -> Figures:
        before = server.processor_time()
        answer = ask(load, server.port, question, max(seconds * SECONDS, LEAST_SECONDS))
        used = server.processor_time() - before
        expect(answer["replies"] > 0, name, "no reply")
        # The warm-up of the load generator, a fifth, is in the processor's time only.
        answer["cpu"] = used / 1.2 / answer["replies"]
        answer["p50"] /= 1e3
        answer["p99"] /= 1e3
        recorded.append(answer)
        return {name: answer["seconds"] * 1e9 / answer["replies"]}

    try:
        ask(load, server.port, question, LEAST_SECONDS)  # every reply is compared
    except BaseException:
        server.close()
        raise
    return _measured_elsewhere(name, role, measure, server.close)


def _shown(name: str, role: str, figure: str, recorded: dict[str, list[Figures]]) -> Entry:
    """Return an entry that measures nothing: it gives a figure of a case that was measured."""
    figures = [answer[figure] for answer in recorded.get(name, ())]
    if not figures or not all(figures):
        raise Missing(f"{name}: not measured")
    return _measured_elsewhere(
        name, role, lambda number, seconds: {name: figures[number % len(figures)]}
    )


def _measured_elsewhere(
    name: str,
    role: str,
    measure: Callable[[int, float], dict[str, float]],
    close: Callable[[], None] = lambda: None,
) -> Entry:
    """Return an entry whose figures another program gives."""
    return Entry(
        name,
        role,
        lambda number, times: (),
        lambda: None,
        lambda result: None,
        units=1,
        close=close,
        measured_elsewhere=measure,
    )
