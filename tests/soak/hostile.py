"""Hostile clients against each kind of server; correct clients between them must not notice.

    python -m tests.soak.hostile --connections 20000                each server on each engine
    python -m tests.soak.hostile --connections 20000 --minutes 60   and again until the time is up
    python -m tests.soak.hostile --kind asyncio --engine python --seed 7
    python -m tests.soak.hostile --held                             the memory of one connection

The clients run in a process of their own. Each hostile one does one thing: it declares too much,
sends a byte now and then, sends all but the last byte, resets the connection in the middle of a
frame, ends its side there or after whole frames, floods without reading, floods with empty messages
and reads, sends random bytes, says nothing, or leaves at once. The server must end each connection
that does not end itself. The replies to correct clients are compared with what they sent.
Afterwards threads, tasks, descriptors and memory must be what they were after the first tenth.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import framecodec
from tests.helpers.descriptors import open_descriptors
from tests.soak.clients import HOLDS, WAYS, held
from tests.soak.kinds import KINDS, LIMITS, LONG_LIMITS, Limits

__all__ = ["KINDS", "WAYS", "Found", "measure_held", "soak"]

ROOT = Path(__file__).resolve().parents[2]
ROUND = 2000  # connections of one process of clients
SETTLED = 15.0  # seconds that a server may take to end the last connections
MEMORY = 1 << 20  # bytes that Python may have allocated more
RESIDENT = 32 << 10  # KiB that the process may have more: the C library keeps freed memory
# Of glibc: with them, what the process has after 300 threads differs by 50 MB from time to time.
FEW_CACHES = {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.pthread.stack_cache_size=0"}
HELD_AT_ONCE = 50  # connections, whose memory is measured
ENGINES: dict[str, dict[str, str]] = {"compiled": {}, "python": {"FRAMECODEC_NO_EXTENSIONS": "1"}}


@dataclass
class Found:
    """What a soak did, and what it found."""

    kind: str
    ended: Counter[str] = field(default_factory=Counter)  # connections, by what their client did
    left: Counter[str] = field(default_factory=Counter)  # those that the server did not end
    answers: int = 0  # of correct clients, compared with what they sent
    slowest: float = 0.0  # seconds, of one round of requests and answers
    slowest_new: float = 0.0  # on a connection that is made for it
    failures: list[str] = field(default_factory=list)
    connections: int = 0  # that the server still has
    threads: int = 0  # more than before
    tasks: int = 0
    descriptors: int = 0
    memory: int = 0  # bytes that Python allocated, more than after the first tenth
    resident: int = 0  # KiB of the process, more than then
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether something is left that must not be."""
        kept = self.left or self.connections or self.threads or self.tasks or self.descriptors
        grown = self.memory > MEMORY or self.resident > RESIDENT
        return bool(kept or self.failures) or grown or not self.answers

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.ended.total()} hostile connections in {self.seconds:.0f} s, not "
            f"ended {dict(self.left)}; {self.answers} correct answers, the slowest after "
            f"{self.slowest * 1000:.0f} ms, on a new connection "
            f"{self.slowest_new * 1000:.0f} ms; left: connections {self.connections}, threads "
            f"{self.threads}, tasks {self.tasks}, descriptors {self.descriptors}, memory "
            f"{self.memory} bytes, resident {self.resident} KiB"
        ) + "".join(f"\n    {failure}" for failure in self.failures[:25])


def soak(
    kind: str, connections: int, seed: int = 0, seconds: float = 0.0, limits: Limits = LIMITS
) -> Found:
    """Attack a server of this kind; return what came of it.

    Args:
        kind: A name of `KINDS`.
        connections: The least number of hostile connections.
        seed: Determines what each client does.
        seconds: While this time is not up, there are more of them, with other seeds.
        limits: Those of the server.
    """
    found = Found(kind)
    began = time.monotonic()
    threads, descriptors = threading.active_count(), open_descriptors()
    with last_warnings() as warnings, tracing(), KINDS[kind](limits) as served:
        with _talking(served.port, seed - 1, Found(kind)):
            _attack(served.port, max(len(WAYS), connections // 10), seed - 1, Found(kind))
        _wait_until(lambda: not served.connections())
        tasks = served.tasks()
        before, resident_before = traced(), _resident()
        with _talking(served.port, seed, found):
            remaining = connections
            while remaining > 0 or time.monotonic() - began < seconds:
                _attack(served.port, min(connections, ROUND), seed, found)
                remaining -= ROUND
                seed += 1
                if found.left or found.failures:
                    break
        _wait_until(lambda: not served.connections() and served.tasks() <= tasks)
        found.connections = served.connections()
        found.tasks = max(0, served.tasks() - tasks)
        ports = set(re.findall(r", ([0-9]+)\)", " ".join(found.failures)))
        found.failures += [text for text in warnings if ports & {*re.findall("[0-9]+", text)}]
        warnings.clear()
        found.memory = max(0, traced() - before)
        found.resident = max(0, _resident() - resident_before)
    _wait_until(lambda: threading.active_count() <= threads)
    found.threads = threading.active_count() - threads
    found.descriptors = open_descriptors() - descriptors
    found.seconds = time.monotonic() - began
    return found


def measure_held(kind: str, way: str, connections: int, measure: Callable[[], int]) -> int:
    """Return how much `measure` grows for each connection, while they are open at the same time.

    Args:
        kind: A name of `KINDS`.
        way: A name of `HOLDS`: what the clients send before they wait.
        connections: The number of connections.
        measure: Returns a number of bytes, `traced` or `resident`.
    """
    limits = Limits(message=300.0, idle=300.0, call=300.0)
    traces = tracing() if measure is traced else contextlib.nullcontext()
    with last_warnings(), traces, KINDS[kind](limits) as served:
        with held(served.port, way, 2):  # what is made once
            pass
        _wait_until(lambda: not served.connections())
        before = measure()
        with held(served.port, way, connections):
            _wait_until(lambda: served.connections() == connections)
            assert served.connections() == connections
            _wait_until_steady(measure)
            return (measure() - before) // connections


@contextlib.contextmanager
def _talking(port: int, seed: int, found: Found) -> Iterator[None]:
    """Have correct clients meanwhile."""
    command = [sys.executable, "-m", "tests.soak.clients", "talk", str(port), "--seed", str(seed)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as clients:
        try:
            yield
        finally:
            output, errors = clients.communicate("", timeout=120)
        _add(found, clients.returncode, output, errors)


def _attack(port: int, connections: int, seed: int, found: Found) -> None:
    command = [sys.executable, "-m", "tests.soak.clients", "attack", str(port)]
    command += ["--connections", str(connections), "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    _add(found, done.returncode, done.stdout, done.stderr)


def _add(found: Found, status: int, output: str, errors: str) -> None:
    """Add the report of a process of clients."""
    if status:
        found.failures.append(errors)
        return
    report = json.loads(output)
    found.ended += Counter(report["ended"])
    found.left += Counter(report["left"])
    found.failures += report["failures"]
    found.answers += report["answers"]
    found.slowest = max(found.slowest, report["slowest"])
    found.slowest_new = max(found.slowest_new, report["slowest_new"])


# --- measuring ------------------------------------------------------------------------------------


@contextlib.contextmanager
def last_warnings() -> Iterator[deque[str]]:
    """Print no warnings, one for each hostile connection; keep the last ones."""
    texts: deque[str] = deque(maxlen=5000)

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(f"{record.levelname}: {record.getMessage()}"[:200])

    logger, handler = logging.getLogger("framecodec"), Keep()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    traced = tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    try:
        yield
    finally:
        if not traced:
            tracemalloc.stop()


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLED
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)


def _wait_until_steady(measure: Callable[[], int]) -> None:
    """Wait until the memory has not changed much for a while."""
    sizes: list[int] = []
    for _ in range(100):
        time.sleep(0.1)
        sizes.append(measure())
        if len(sizes) > 5 and max(sizes[-5:]) - min(sizes[-5:]) < 100_000:
            return


def traced() -> int:
    """Return the bytes that Python has allocated now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def resident() -> int:
    """Return the resident bytes of the process."""
    return _resident() * 1024


def _resident() -> int:
    """Return the memory that the process has now, in KiB; 0 where the system does not say."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


# --- the command ----------------------------------------------------------------------------------


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.hostile")
    parser.add_argument(
        "--connections", type=int, default=1000, help="at least, for each server and engine"
    )
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="for all; each server is attacked for its share"
    )
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this server")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", action="store_true", help="measure the memory of a connection")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds: list[str] = options.kind or [*KINDS]
    engines: list[str] = options.engine or [*ENGINES]
    if options.one:
        return _run_one(kinds[0], options)
    end = time.monotonic() + options.minutes * 60
    runs = [(engine, kind) for kind in kinds for engine in engines]
    status = 0
    for number, (engine, kind) in enumerate(runs):
        seconds = max(0.0, end - time.monotonic()) / (len(runs) - number)
        arguments = ["--one", "--kind", kind, "--minutes", str(seconds / 60)]
        arguments += ["--connections", str(options.connections), "--seed", str(options.seed)]
        arguments += ["--held"] if options.held else []
        command = [sys.executable, "-m", "tests.soak.hostile", *arguments]
        # A process for each: its memory is that of one server on one engine.
        environment = os.environ | FEW_CACHES | ENGINES[engine]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        status |= done.returncode != 0
    return status


def _run_one(kind: str, options: Any) -> int:
    engine = "compiled" if framecodec.ACCELERATED else "python"
    if options.held:
        for way in HOLDS:
            kept = measure_held(kind, way, HELD_AT_ONCE, traced)
            grown = measure_held(kind, way, HELD_AT_ONCE, resident)
            print(f"{engine} {kind}, {way}: {kept} bytes allocated, {grown} resident", flush=True)
        return 0
    limits = LONG_LIMITS if options.minutes else LIMITS
    found = soak(kind, options.connections, options.seed, options.minutes * 60, limits)
    print(f"{engine} {found}", flush=True)
    return found.failed


if __name__ == "__main__":
    sys.exit(main())
