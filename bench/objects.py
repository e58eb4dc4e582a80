"""What messages that are objects cost more than their two functions, by each call.

``python -m bench.objects`` measures a connection without objects and one with ``bytes`` as both
functions, in turn, and subtracts what ``bytes`` itself costs. The rest is to be at most 60 ns.

Each connection has its own copies of the loops below, as in a program that has one kind of them:
CPython adapts a function's instructions to the class that it meets, and one that meets two classes
by turns is slow for the second.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
from collections.abc import Callable
from time import perf_counter
from types import FunctionType
from typing import Any

from framecodec import Codec, FrameSocket
from framecodec.asyncio import FrameStream, open_connection

MESSAGES = [b"x" * 16] * 100
PLAIN: Codec[Any] = Codec.uint(4)
CODECS = (PLAIN, PLAIN.with_objects(bytes, bytes))
WIRE = PLAIN.encode_many(MESSAGES)
ROUNDS = 400


def cost_of_bytes() -> float:
    """Return the seconds that a call of ``bytes`` takes."""
    costs: list[float] = []
    for _ in range(ROUNDS):
        start = perf_counter()
        for message in MESSAGES:
            bytes(message)
        middle = perf_counter()
        for _ in MESSAGES:
            pass
        costs.append(2 * middle - start - perf_counter())
    return statistics.median(costs) / len(MESSAGES)


def copies(call: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return a copy of a function for each connection."""
    return [FunctionType(call.__code__.replace(), globals()) for _ in CODECS]


def report(call: str, pairs: list[tuple[float, float]]) -> None:
    """Print what a call costs more with objects."""
    more = statistics.median(objects - plain for plain, objects in pairs) / len(MESSAGES)
    own = more - cost_of_bytes()
    print(f"{call:24} {more * 1e9:5.0f} ns more, without bytes() {own * 1e9:5.0f} ns", flush=True)


# --- blocking -------------------------------------------------------------------------------------


def send(conn: FrameSocket[Any]) -> None:
    """Send the messages, one a call."""
    for message in MESSAGES:
        conn.send(message)


def recv(conn: FrameSocket[Any]) -> None:
    """Receive the messages, one a call."""
    for _ in MESSAGES:
        conn.recv()


def recv_many(conn: FrameSocket[Any]) -> None:
    """Receive the messages, those of a receive in one call."""
    count = 0
    while count < len(MESSAGES):
        count += len(conn.recv_many())


def iterate(conn: FrameSocket[Any]) -> None:
    """Receive the messages in a loop."""
    for _ in zip(MESSAGES, conn, strict=False):
        pass


def blocking() -> None:
    """Measure the calls of a `FrameSocket`."""
    ends = [socket.socketpair() for _ in CODECS]
    conns: list[FrameSocket[Any]] = [
        FrameSocket(near, codec) for (near, _), codec in zip(ends, CODECS, strict=True)
    ]

    def seconds(number: int, calls: list[Callable[..., Any]], receives: bool) -> float:
        far, call = ends[number][1], calls[number]
        if receives:
            far.sendall(WIRE)
        start = perf_counter()
        call(conns[number])
        took = perf_counter() - start
        if not receives:
            far.recv(1 << 20)
        return took

    for name, call, receives in (
        ("send", send, False),
        ("send_many", lambda conn: conn.send_many(MESSAGES), False),
        ("recv", recv, True),
        ("recv_many", recv_many, True),
        ("for", iterate, True),
    ):
        calls = copies(call)
        report(
            name,
            [(seconds(0, calls, receives), seconds(1, calls, receives)) for _ in range(ROUNDS)],
        )


# --- event loops ----------------------------------------------------------------------------------


async def stream_send(stream: FrameStream[Any]) -> None:
    """Send the messages, one a call."""
    for message in MESSAGES:
        await stream.send(message)


async def stream_recv(stream: FrameStream[Any]) -> None:
    """Receive the messages, one a call."""
    for _ in MESSAGES:
        await stream.recv()


async def stream_recv_many(stream: FrameStream[Any]) -> None:
    """Receive the messages that are ready in one call."""
    count = 0
    while count < len(MESSAGES):
        count += len(await stream.recv_many())


async def stream_iterate(stream: FrameStream[Any]) -> None:
    """Receive the messages in a loop."""
    count = 0
    async for _ in stream:
        count += 1
        if count == len(MESSAGES):
            return


async def in_event_loop() -> None:
    """Measure the calls of a `FrameStream`."""
    loop = asyncio.get_running_loop()
    ends = [socket.socketpair() for _ in CODECS]
    streams: list[FrameStream[Any]] = [
        await open_connection(sock=near, codec=codec)
        for (near, _), codec in zip(ends, CODECS, strict=True)
    ]
    for _, far in ends:
        far.setblocking(False)

    async def seconds(number: int, calls: list[Callable[..., Any]], receives: bool) -> float:
        stream, far, call = streams[number], ends[number][1], calls[number]
        if receives:
            await loop.sock_sendall(far, WIRE)
            while stream.pending_messages < len(MESSAGES):
                await asyncio.sleep(0)
        start = perf_counter()
        await call(stream)
        took = perf_counter() - start
        if not receives:
            await asyncio.sleep(0)
            await loop.sock_recv(far, 1 << 20)
        return took

    for name, call, receives in (
        ("send", stream_send, False),
        ("send_many", lambda stream: stream.send_many(MESSAGES), False),
        ("recv", stream_recv, True),
        ("recv_many", stream_recv_many, True),
        ("async for", stream_iterate, True),
    ):
        calls = copies(call)
        pairs = [
            (await seconds(0, calls, receives), await seconds(1, calls, receives))
            for _ in range(ROUNDS)
        ]
        report(f"asyncio {name}", pairs)


if __name__ == "__main__":
    blocking()
    asyncio.run(in_event_loop())
