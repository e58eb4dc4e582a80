"""Hostile clients against each kind of server; honest clients between them must not notice.

    python -m tests.soak.hostile --connections 20000     for each kind of server
    python -m tests.soak.hostile --kind asyncio

The clients run in a process of their own. Each does one thing: it declares 4 GiB, sends a byte now
and then, resets the connection in the middle of a frame, ends its side there, floods without
reading, sends random bytes, or says nothing. The server must end each connection that does not end
itself. Afterwards threads, descriptors and memory must be what they were.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import framecodec
import framecodec.asyncio
from framecodec import Codec

__all__ = ["KINDS", "Found", "attack", "soak"]

ROOT = Path(__file__).resolve().parents[2]
CODEC = Codec.uint(4, max_message_size=64 * 1024)
LIMITS: dict[str, Any] = {"message_timeout": 1.0, "idle_timeout": 2.0, "max_connections": 500}
PATIENCE = 30.0  # seconds until a connection that the server has not ended is a failure
AT_ONCE = 200


@dataclass
class Found:
    """What a soak did, and what it found."""

    kind: str
    ended: Counter[str] = field(default_factory=Counter)  # connections, by what their client did
    left: Counter[str] = field(default_factory=Counter)  # those that the server did not end
    honest: int = 0  # answers of honest clients
    slowest: float = 0.0  # seconds, of one of those
    connections: int = 0  # that the server still has
    threads: int = 0  # more than before
    descriptors: int = 0
    memory: int = 0  # bytes that Python allocated, more than after the first tenth
    resident: int = 0  # KiB of the process, more than then; the C library keeps what is freed

    @property
    def failed(self) -> bool:
        """Whether something is left that must not be."""
        kept = self.left or self.connections or self.threads or self.descriptors
        return bool(kept) or self.memory > 1 << 20 or not self.honest

    def __str__(self) -> str:
        ended = f"{self.ended.total()} hostile connections {dict(sorted(self.ended.items()))}"
        return (
            f"{self.kind}: {ended}, not ended {dict(self.left)}; {self.honest} honest answers, "
            f"the slowest after {self.slowest * 1000:.0f} ms; left: connections "
            f"{self.connections}, threads {self.threads}, descriptors {self.descriptors}, "
            f"memory {self.memory} bytes, resident {self.resident} KiB"
        )


# --- the clients ----------------------------------------------------------------------------------

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def lie(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Declare 4 GiB."""
    writer.write(b"\xff\xff\xff\xff" + rng.randbytes(20))
    await until_the_end(reader)


async def drip(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send a frame a byte at a time."""
    writer.write(b"\0\0\x10\0")
    ended = asyncio.ensure_future(until_the_end(reader))
    try:
        while not ended.done():
            writer.write(b"x")
            await asyncio.wait([ended], timeout=0.1)
        await ended
    finally:
        ended.cancel()


async def reset(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Reset the connection in the middle of a frame."""
    writer.write(CODEC.encode(b"hello") + b"\0\0\0\x05he")
    await writer.drain()
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def end_early(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """End one side in the middle of a frame, and wait for the other."""
    writer.write(b"\0\0\0\x05he")
    writer.write_eof()
    await until_the_end(reader)


async def flood(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send as much as the server takes, read nothing, and go."""
    batch = CODEC.encode_many([b"x" * 1000] * 60)
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(0.3):
            while True:
                writer.write(batch)
                await writer.drain()
    writer.transport.abort()


async def babble(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send random bytes."""
    writer.write(rng.randbytes(rng.randint(1, 3000)))
    await until_the_end(reader)


async def be_silent(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send nothing."""
    await until_the_end(reader)


WAYS: list[Callable[[random.Random, Reader, Writer], Awaitable[None]]] = [
    lie,
    drip,
    reset,
    end_early,
    flood,
    babble,
    be_silent,
]


async def until_the_end(reader: Reader) -> None:
    while await reader.read(65536):
        pass


async def attack(port: int, connections: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Make hostile connections; return how many ended, and how many the server left open."""
    ended: Counter[str] = Counter()
    left: Counter[str] = Counter()
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        way = WAYS[number % len(WAYS)]
        rng = random.Random(f"{seed} {number}")
        async with places:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                async with asyncio.timeout(PATIENCE):
                    await way(rng, reader, writer)
                ended[way.__name__] += 1
            except TimeoutError:
                left[way.__name__] += 1
            except ConnectionError:  # the server's end, too
                ended[way.__name__] += 1
            finally:
                writer.transport.abort()

    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(one(number))
    return ended, left


# --- the servers ----------------------------------------------------------------------------------


@contextlib.contextmanager
def served_by_threads() -> Iterator[tuple[int, Callable[[], int]]]:
    def handler(conn: Any) -> None:
        conn.settimeout(1)  # also for a client that does not read
        for message in conn:
            conn.send(message)

    with framecodec.serve(handler, ("127.0.0.1", 0), CODEC, **LIMITS) as server:
        yield server.address[1], lambda: len(server.connections)


@contextlib.contextmanager
def served_by_one_thread() -> Iterator[tuple[int, Callable[[], int]]]:
    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        return messages

    with framecodec.serve_messages(handle, ("127.0.0.1", 0), CODEC, **LIMITS) as server:
        yield server.address[1], lambda: len(server.connections)


@contextlib.contextmanager
def served_by_asyncio() -> Iterator[tuple[int, Callable[[], int]]]:
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def handler(stream: Any) -> None:
        async for message in stream:
            await stream.send(message)

    async def main() -> None:
        found["loop"], found["end"] = asyncio.get_running_loop(), asyncio.Event()
        async with framecodec.asyncio.start_server(
            handler, "127.0.0.1", 0, codec=CODEC, **LIMITS
        ) as server:
            found["server"] = server
            ready.set()
            await found["end"].wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(20)
        server = found["server"]
        yield server.sockets[0].getsockname()[1], lambda: len(server.connections)
    finally:
        found["loop"].call_soon_threadsafe(found["end"].set)
        thread.join(20)


KINDS: dict[str, Callable[[], contextlib.AbstractContextManager[tuple[int, Callable[[], int]]]]] = {
    "serve": served_by_threads,
    "serve_messages": served_by_one_thread,
    "asyncio": served_by_asyncio,
}


def soak(kind: str, connections: int, seed: int = 0) -> Found:
    """Attack a server of this kind; return what came of it."""
    found = Found(kind)
    logging.getLogger("framecodec").setLevel(logging.CRITICAL)
    if not (tracing := tracemalloc.is_tracing()):
        tracemalloc.start()
    threads, descriptors = threading.active_count(), _descriptors()
    try:
        with KINDS[kind]() as (port, count), honest_client(port, found):
            attack_from_a_process(port, connections // 10, seed + 1)
            gc.collect()
            before, resident = tracemalloc.get_traced_memory()[0], _resident()
            found.ended, found.left = attack_from_a_process(port, connections, seed)
            deadline = time.monotonic() + 10
            while count() > 1 and time.monotonic() < deadline:  # the honest one stays
                time.sleep(0.05)
            found.connections = count() - 1
            gc.collect()
            found.memory = max(0, tracemalloc.get_traced_memory()[0] - before)
            found.resident = max(0, _resident() - resident)
    finally:
        if not tracing:
            tracemalloc.stop()
        logging.getLogger("framecodec").setLevel(logging.NOTSET)
    found.threads = threading.active_count() - threads
    found.descriptors = _descriptors() - descriptors
    return found


def attack_from_a_process(port: int, connections: int, seed: int) -> tuple[Any, Any]:
    command = [sys.executable, "-m", "tests.soak.hostile", "--attack", str(port)]
    command += ["--connections", str(connections), "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ended, left = json.loads(done.stdout)
    return Counter(ended), Counter(left)


@contextlib.contextmanager
def honest_client(port: int, found: Found) -> Iterator[None]:
    """Have a client that sends messages one by one and measures how long the answers take."""
    stop = threading.Event()

    def talk() -> None:
        with framecodec.connect(("127.0.0.1", port), CODEC, timeout=PATIENCE) as conn:
            while not stop.wait(0.01):
                began = time.monotonic()
                conn.send(b"honest %d" % found.honest)
                assert conn.recv() == b"honest %d" % found.honest
                found.honest += 1
                found.slowest = max(found.slowest, time.monotonic() - began)

    failures: list[BaseException] = []

    def run() -> None:
        try:
            talk()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE + 5)
    if failures:
        raise failures[0]


def _descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # no such folder here
        return 0


def _resident() -> int:
    """Return the memory that the process has now, in KiB; 0 where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.hostile")
    parser.add_argument("--connections", type=int, default=1000, help="for each kind of server")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attack", type=int, metavar="PORT", help="be the clients of this server")
    options = parser.parse_args()
    if options.attack:
        print(json.dumps(asyncio.run(attack(options.attack, options.connections, options.seed))))
        return 0
    status = 0
    for kind in options.kind or KINDS:
        found = soak(kind, options.connections, options.seed)
        print(found, flush=True)
        status |= found.failed
    return status


if __name__ == "__main__":
    sys.exit(main())
