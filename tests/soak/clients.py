"""The clients of the soak: hostile ones, correct ones, and ones that only hold a connection.

    python -m tests.soak.clients attack PORT --connections 1000 --seed 1
    python -m tests.soak.clients talk PORT --seed 1

The soak starts this module as processes, so that the memory and the descriptors of the server's
process are those of the server, and so that correct clients are not slow because hostile ones are
busy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from framecodec import Codec

__all__ = ["CODEC", "CORRECT", "HOLDS", "LARGEST", "PATIENCE", "WAYS", "held"]

LARGEST = 64 * 1024  # bytes of a message
CODEC = Codec.uint(4, max_message_size=LARGEST)
# Seconds until a connection that the server has not ended is a failure. They are many, because the
# time limits of serve_messages do not count the time that it takes for other clients.
PATIENCE = float(os.environ.get("FRAMECODEC_SOAK_PATIENCE", "300"))
AT_ONCE = 300  # hostile connections
CORRECT = 3  # correct clients
WINDOW = 8000  # bytes that a client which floods with empty messages has sent without a reply

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


# --- hostile clients ------------------------------------------------------------------------------


async def lie(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Declare more than the limit, up to 4 GiB."""
    declared = rng.choice((LARGEST + 1, 1 << 24, 1 << 31, (1 << 32) - 1))
    writer.write(declared.to_bytes(4, "big") + rng.randbytes(20))
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


async def almost(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send the largest message but for its last byte."""
    writer.write(LARGEST.to_bytes(4, "big") + bytes(LARGEST - 1))
    await until_the_end(reader)


async def reset(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Reset the connection in the middle of a frame, or with its replies unread."""
    requests = CODEC.encode_many([b"hello"] * rng.choice((1, 1, 500)))
    writer.write(requests + b"\0\0\0\x05he"[: rng.randrange(7)])
    await writer.drain()
    reset_now(writer)


async def end_early(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """End one side in the middle of a frame, and wait for the other."""
    writer.write(b"\0\0\0\x05he")
    writer.write_eof()
    await until_the_end(reader)


async def half_close(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """End one side after whole frames; all replies must arrive before the other side's end."""
    requests = CODEC.encode_many([rng.randbytes(rng.randrange(2000)) for _ in range(20)])
    writer.write(requests)
    writer.write_eof()
    replies = await reader.read(-1)
    if replies != requests:
        raise AssertionError(f"{len(replies)} bytes of {len(requests)} came back")


async def flood(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send as much as the server takes, read nothing, and go."""
    size, most = rng.choice(((0, 200_000), (10, 500_000), (1000, 4 << 20), (20_000, 8 << 20)))
    batch = CODEC.encode_many([bytes(size)] * (60_000 // (size + 4)))
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(rng.choice((0.1, 0.3, 0.6))):
            for _ in range(most // len(batch)):
                writer.write(batch)
                await writer.drain()
            await asyncio.sleep(1)
    reset_now(writer)


async def flood_empty(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send empty messages without an end, read the replies, and go.

    At most `WINDOW` bytes wait for replies: each of these bytes costs the server a quarter of a
    call, so that many such clients keep it busy all the same.
    """
    batch, waiting = CODEC.encode_many([b""] * 1000), 0
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(rng.choice((0.1, 0.5, 1.0))):
            while True:
                writer.write(batch)
                await writer.drain()
                waiting += len(batch)
                while waiting >= WINDOW:
                    replies = await reader.read(65536)
                    if not replies:
                        return
                    if any(replies):
                        raise AssertionError(f"a reply is not empty: {replies[:100]!r}")
                    waiting -= len(replies)
    reset_now(writer)


async def babble(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send random bytes."""
    writer.write(rng.randbytes(rng.randint(1, 3000)))
    await until_the_end(reader)


async def be_silent(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Send nothing."""
    await until_the_end(reader)


async def leave_at_once(rng: random.Random, reader: Reader, writer: Writer) -> None:
    """Connect and reset the connection."""
    reset_now(writer)


WAYS: list[Callable[[random.Random, Reader, Writer], Awaitable[None]]] = [
    lie,
    drip,
    almost,
    reset,
    end_early,
    half_close,
    flood,
    flood_empty,
    babble,
    be_silent,
    leave_at_once,
]


def reset_now(writer: Writer) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until_the_end(reader: Reader) -> None:
    while await reader.read(65536):
        pass


# --- correct clients ------------------------------------------------------------------------------


@dataclass
class Report:
    """What clients did, and what they found."""

    ended: Counter[str] = field(default_factory=Counter)  # connections, by what their client did
    left: Counter[str] = field(default_factory=Counter)  # those that the server did not end
    answers: int = 0  # that correct clients got, each compared with what they sent
    slowest: float = 0.0  # seconds, of one round of requests and answers
    slowest_new: float = 0.0  # with the making of a new connection
    failures: list[str] = field(default_factory=list)


async def ask(rng: random.Random, reader: Reader, writer: Writer, count: int) -> None:
    """Send this many messages in pieces of random sizes; check that the replies are the same."""
    sizes = (0, 1, 10, 100, 1000, LARGEST // count)
    requests = CODEC.encode_many([rng.randbytes(rng.choice(sizes)) for _ in range(count)])
    pos = 0
    while pos < len(requests):
        size = rng.choice((1, 3, 100, len(requests)))
        writer.write(requests[pos : pos + size])
        pos += size
        if size < 100:
            await asyncio.sleep(0)
        if pos > 50_000:  # one byte at a time would take too long from here on
            writer.write(requests[pos:])
            break
    replies = await reader.readexactly(len(requests))
    if replies != requests:
        raise AssertionError(f"wrong replies to {requests[:100]!r}...: {replies[:100]!r}")


async def be_correct(port: int, number: int, seed: int, report: Report, end: asyncio.Event) -> None:
    """Talk until the event: one client on one connection, the others on a new one now and then."""
    rng = random.Random(f"{seed} correct {number}")
    while not end.is_set():
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        name, new = writer.get_extra_info("sockname"), True
        try:
            rounds = sys.maxsize if number == 0 else rng.randint(1, 50)
            while rounds and not end.is_set():
                rounds -= 1
                count = rng.choice((1, 1, 2, 10, 100))
                async with asyncio.timeout(PATIENCE):
                    await ask(rng, reader, writer, count)
                seconds = time.monotonic() - began
                if new:
                    report.slowest_new = max(report.slowest_new, seconds)
                else:
                    report.slowest = max(report.slowest, seconds)
                new = False
                report.answers += count
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(end.wait(), 0.01)
                began = time.monotonic()
            writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                rest = await reader.read()
            if rest:
                raise AssertionError(f"more replies than requests: {rest[:100]!r}")
        except Exception as error:
            report.failures.append(f"a correct client, {name}: {type(error).__name__}: {error}")
            return
        finally:
            writer.transport.abort()


async def talk(port: int, seed: int) -> Report:
    """Be correct clients until standard input ends; return what they found."""
    report, end = Report(), asyncio.Event()
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    ended.add_done_callback(lambda future: end.set())
    async with asyncio.TaskGroup() as group:
        for number in range(CORRECT):
            group.create_task(be_correct(port, number, seed, report, end))
    return report


async def attack(port: int, connections: int, seed: int) -> Report:
    """Make hostile connections; return what became of them.

    Each hostile way is taken as often as the others, in an order that the seed determines.
    """
    report = Report()
    places = asyncio.Semaphore(AT_ONCE)
    ways = [WAYS[number % len(WAYS)] for number in range(connections)]
    random.Random(seed).shuffle(ways)

    async def one(number: int) -> None:
        way, rng = ways[number], random.Random(f"{seed} {number}")
        name = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            name = writer.get_extra_info("sockname")
            try:
                async with asyncio.timeout(PATIENCE):
                    await way(rng, reader, writer)
            finally:
                writer.transport.abort()
            report.ended[way.__name__] += 1
        except TimeoutError:
            report.left[way.__name__] += 1
        except ConnectionError as error:  # the server's end, too
            report.ended[way.__name__] += 1
            if way is half_close:
                report.failures.append(f"{way.__name__}, {name}: {error}")
        except AssertionError as error:
            report.failures.append(f"{way.__name__}, {name}: {error}")
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            await places.acquire()  # so that there are never more tasks than connections
            group.create_task(one(number))
    return report


# --- clients that hold a connection ---------------------------------------------------------------

# What a client sends before it waits.
HOLDS: dict[str, Callable[[], bytes]] = {
    "silent": lambda: b"",
    "declared": lambda: LARGEST.to_bytes(4, "big"),
    "half": lambda: LARGEST.to_bytes(4, "big") + bytes(LARGEST // 2),
    "almost": lambda: LARGEST.to_bytes(4, "big") + bytes(LARGEST - 1),
    "answered": lambda: CODEC.encode(bytes(LARGEST)),
    "flooding": lambda: CODEC.encode_many([bytes(1000)] * 500),  # and its replies are not read
}


@contextlib.contextmanager
def held(port: int, way: str, connections: int) -> Iterator[None]:
    """Bring this many connections into one state, and keep them.

    A connection that floods sends until the server has taken nothing for a while.
    """
    data = HOLDS[way]()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(small_buffers(port)) for _ in range(connections)]
        for sock in socks:
            if way != "flooding":
                sock.sendall(data)
            if way == "answered":
                unread = len(data)
                while unread:
                    unread -= len(sock.recv(unread))
        if way == "flooding":
            flood_until_it_stalls(socks, data)
        yield


def small_buffers(port: int) -> socket.socket:
    """Connect with small buffers of the kernel, which are soon full."""
    sock = socket.socket()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 8192)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    return sock


def flood_until_it_stalls(socks: list[socket.socket], data: bytes) -> None:
    for sock in socks:
        sock.setblocking(False)
    sent, quiet_since = dict.fromkeys(socks, 0), time.monotonic()
    while time.monotonic() - quiet_since < 0.3:
        for sock in socks:
            with contextlib.suppress(BlockingIOError):
                sent[sock] += sock.send(data[sent[sock] % len(data) :])
                quiet_since = time.monotonic()
        time.sleep(0.001)


def main(arguments: Any = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.clients")
    parser.add_argument("what", choices=["attack", "talk"])
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.what == "talk":
        report = asyncio.run(talk(options.port, options.seed))
    else:
        report = asyncio.run(attack(options.port, options.connections, options.seed))
    print(json.dumps(vars(report)))


if __name__ == "__main__":
    main()
