"""Send ten million messages through each engine, and count what stays afterwards.

    python -m tests.soak.leaks                          ten million messages on each engine
    python -m tests.soak.leaks --messages 1e6 --engine python --way feed

The messages are shared equally by the ways: a splitter that is fed or fills its buffer, the options
of a splitter, `encode_many`, a `FrameSocket`, a `FrameStream`. After the first tenth of a way, and
at its end, the process counts references (on an interpreter that counts them all), allocated
blocks and resident memory. Then the way runs once more, for a hundredth, under tracemalloc. What is
more than `BOUNDS` is a leak, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import framecodec.asyncio
from framecodec import Codec, FrameError, FrameSocket
from tests.helpers.engines import ENGINES, codecs_use

__all__ = ["BOUNDS", "WAYS", "Found", "measure"]

# A leak of one object in a hundred thousand messages is found.
BOUNDS = {"references": 2000, "blocks": 2000, "traced": 64 << 10, "resident": 8 << 20}

BATCH = 1000  # messages
MESSAGES = [bytes([number % 251]) * (number % 97) for number in range(BATCH)]
CODECS = [
    Codec.uint(4, max_message_size=1000),
    Codec.text(trailer=b",", max_message_size=1000),
    Codec.headers(max_message_size=1000),
    Codec.delimiter(b"\r\n", b"\n", escape={b"\r": b"\\r", b"\n": b"\\n", b"\\": b"\\\\"}),
    Codec.uint(2, magic=b"MG", align=4),
    Codec.custom(lambda view: (1, view[0]), lambda message: bytes([len(message)])),
]
STREAMS = [(codec, codec.encode_many(MESSAGES)) for codec in CODECS]
PIECE = 4000  # bytes


@dataclass
class Found:
    """What stayed of the messages of a way, beyond what its first tenth left.

    Args:
        messages: How many were sent.
        seconds: The time they took.
        more: What stayed, by what is counted: the names of `BOUNDS`.
    """

    engine: str
    way: str
    messages: int
    seconds: float
    more: dict[str, int]

    @property
    def leaks(self) -> bool:
        return any(self.more[name] > BOUNDS[name] for name in self.more)

    def __str__(self) -> str:
        more = ", ".join(f"{name} {number:+}" for name, number in self.more.items())
        return (
            f"{self.engine}, {self.way}: {self.messages} messages in {self.seconds:.0f} s: {more}"
            + (": a leak" if self.leaks else "")
        )


# --- ways -----------------------------------------------------------------------------------------


def by_feed(engine: ModuleType) -> int:
    """Feed each codec's stream in pieces to a new splitter, and end it in the middle of a frame."""
    count = 0
    for codec, stream in STREAMS:
        splitter = engine.Splitter(codec)
        for pos in range(0, len(stream), PIECE):
            count += len(splitter.feed(stream[pos : pos + PIECE]))
        splitter.feed(stream[:7])
        try:
            splitter.feed_eof()
        except FrameError:
            splitter.detach()
    return count


def by_buffer(engine: ModuleType) -> int:
    """Fill the splitters' own memory; every other time that of the message."""
    count = 0
    for codec, stream in STREAMS:
        splitter = engine.Splitter(codec)
        for number, pos in enumerate(range(0, len(stream), PIECE)):
            piece = stream[pos : pos + PIECE]
            while piece:
                view = splitter.get_room(PIECE) if number % 2 else splitter.get_buffer(PIECE)
                size = min(len(view), len(piece))
                view[:size] = piece[:size]
                piece = piece[size:]
                del view
                count += len(splitter.buffer_updated(size))
    return count


def by_options(engine: ModuleType) -> int:
    """Use one_at_a_time, resync and kept headers, and switch between the codecs."""
    count = 0
    splitter = engine.Splitter(CODECS[2], one_at_a_time=True, keep_headers=True)
    for codec, stream in STREAMS:
        found = splitter.switch(codec) or splitter.feed(stream)
        while found:
            count += len(found)
            found = splitter.feed(b"")
    for codec, stream in STREAMS[2:5]:
        splitter = engine.Splitter(codec, on_invalid="resync", raw=True)
        count += len(splitter.feed(b"bad\r\n" + stream[:PIECE] + b"bad\r\n" + stream))
    return count


def by_encoder(engine: ModuleType) -> int:
    """Encode batches, and a message that is refused."""
    count = 0
    for codec in CODECS:
        encoder = engine.Encoder(codec)
        encoder.encode_many(MESSAGES)
        count += BATCH
        with contextlib.suppress(TypeError):
            encoder.encode_many([*MESSAGES[:3], 5])
    return count


def by_socket(engine: ModuleType) -> int:
    """Send over a pair of sockets from a thread, for each codec a new pair."""
    count = 0
    for codec in CODECS:
        near, far = socket.socketpair()
        with FrameSocket(near, codec.replace()) as out, FrameSocket(far, codec.replace()) as back:
            out.settimeout(60.0)
            back.settimeout(60.0)
            thread = threading.Thread(target=out.send_many, args=(MESSAGES * 10,))
            thread.start()
            for _ in range(10 * BATCH):
                count += len(back.recv()) >= 0
            thread.join()
    return count


def by_stream(engine: ModuleType) -> int:
    """Send over a pair of streams of an event loop, for each codec a new pair."""

    async def talk(codec: Codec) -> int:
        near, far = socket.socketpair()
        out = await framecodec.asyncio.open_connection(sock=near, codec=codec.replace())
        back = await framecodec.asyncio.open_connection(sock=far, codec=codec.replace())
        sending = asyncio.ensure_future(out.send_many(MESSAGES * 10))
        count = 0
        while count < 10 * BATCH:
            count += len(await asyncio.wait_for(back.recv_many(), 60.0))
        await sending
        await out.aclose()
        await back.aclose()
        return count

    async def all_codecs() -> int:
        return sum([await talk(codec) for codec in CODECS])

    return asyncio.run(all_codecs())


WAYS: dict[str, Callable[[ModuleType], int]] = {
    "feed": by_feed,
    "get_buffer": by_buffer,
    "options": by_options,
    "encode_many": by_encoder,
    "FrameSocket": by_socket,
    "FrameStream": by_stream,
}


# --- counting -------------------------------------------------------------------------------------


def counts() -> dict[str, int]:
    """Return what this process holds, by name."""
    for _ in range(3):
        gc.collect()
    found = {"blocks": sys.getallocatedblocks(), "resident": resident()}
    total = getattr(sys, "gettotalrefcount", None)
    return found if total is None else found | {"references": total()}


def resident() -> int:
    """Return the resident memory in bytes, or 0 where it is unknown."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


def measure(engine_name: str, way: str, messages: int) -> Found:
    """Send messages in a way on an engine; count what stays of them."""
    engine, send = importlib.import_module(ENGINES[engine_name]), WAYS[way]

    def send_some(least: int) -> int:
        count = 0
        while count < least:
            count += send(engine)
        return count

    with codecs_use(engine):
        began = time.monotonic()
        sent = send_some(messages // 10)
        before = counts()
        sent += send_some(messages - sent)
        more = {name: number - before[name] for name, number in counts().items()}
        tracemalloc.start()
        try:
            send_some(1)
            counts()
            traced = tracemalloc.get_traced_memory()[0]
            sent += send_some(messages // 100)
            counts()
            more["traced"] = tracemalloc.get_traced_memory()[0] - traced
        finally:
            tracemalloc.stop()
    return Found(engine_name, way, sent, time.monotonic() - began, more)


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.leaks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--messages", type=float, default=1e7, help="on each engine (default: 1e7)")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this one")
    options = parser.parse_args(arguments)
    ways = options.way or list(WAYS)
    status = 0
    for engine in options.engine or ENGINES:
        for way in ways:
            found = measure(engine, way, int(options.messages) // len(ways))
            print(found, flush=True)
            status |= found.leaks
    print(f"bounds: {', '.join(f'{name} {number}' for name, number in BOUNDS.items())}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
