"""Measure the memory of idle connections: open many of one kind, print the bytes of each.

Each connection has received one message. Each kind needs a new process (``python -m bench.idle
"asyncio streams" 10000``); the figure is the growth of that process divided by the number of
connections. The sockets exist before the measurement begins, and the kernel's memory for them is
not part of it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from . import floor
from .contenders import HEADER, everyone
from .contenders.ours import attribute, codec

MESSAGE = b"m" * 64
FRAME = HEADER.pack(len(MESSAGE)) + MESSAGE

Pairs = list[tuple[socket.socket, socket.socket]]


def resident() -> int:
    """Bytes of memory that the process holds."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def most_connections() -> int:
    """Both ends of each are in this process."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (hard - 200) // 2 if hard != resource.RLIM_INFINITY else 1 << 20


_gaps: list[bytes] = []


def baseline() -> int:
    """As `resident`, after taking what the allocator has free: what comes then is new memory."""
    _gaps.extend(bytes(size) for size in range(0, 480, 16) for _ in range(2000))
    return resident()


def _splitters(make: Callable[[], Any], count: int) -> int:
    kept = []
    before = baseline()
    for _ in range(count):
        splitter = make()
        assert splitter.feed(FRAME) == [MESSAGE]
        kept.append(splitter)
    return resident() - before


def _through_buffers(count: int) -> int:
    """As a socket or a protocol uses them."""
    splitter_class = attribute("framecodec._splitter", "Splitter")
    kept = []
    before = baseline()
    for _ in range(count):
        splitter = splitter_class(codec())
        splitter.get_buffer(65536)[: len(FRAME)] = FRAME
        assert splitter.buffer_updated(len(FRAME)) == [MESSAGE]
        kept.append(splitter)
    return resident() - before


def _sockets(pairs: Pairs) -> int:
    frame_socket = attribute("framecodec", "FrameSocket")
    kept = []
    before = baseline()
    for near, far in pairs:
        far.sendall(FRAME)
        connection = frame_socket(near, codec())
        assert connection.recv() == MESSAGE
        kept.append(connection)
    return resident() - before


async def _asyncio_streams(pairs: Pairs) -> int:
    kept = []
    before = baseline()
    for near, far in pairs:
        far.sendall(FRAME)
        near.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=near)
        assert (await reader.readexactly(len(FRAME)))[4:] == MESSAGE
        kept.append((reader, writer))
    return resident() - before


async def _frame_streams(pairs: Pairs) -> int:
    open_connection = attribute("framecodec.asyncio", "open_connection")
    kept = []
    before = baseline()
    for near, far in pairs:
        far.sendall(FRAME)
        near.setblocking(False)
        stream = await open_connection(sock=near, codec=codec())
        assert await stream.recv() == MESSAGE
        kept.append(stream)
    return resident() - before


async def _protocols(pairs: Pairs, make: Callable[[asyncio.Event], asyncio.BaseProtocol]) -> int:
    kept = []
    loop = asyncio.get_running_loop()
    before = baseline()
    for near, far in pairs:
        far.sendall(FRAME)
        near.setblocking(False)
        arrived = asyncio.Event()
        kept.append(await loop.create_connection(lambda arrived=arrived: make(arrived), sock=near))
        await arrived.wait()
    return resident() - before


async def _frame_protocols(pairs: Pairs) -> int:
    base = attribute("framecodec.asyncio", "FrameProtocol")

    class Receiving(base):
        arrived: asyncio.Event

        def messages_received(self, messages: list[bytes]) -> None:
            assert messages == [MESSAGE]
            self.arrived.set()

    def make(arrived: asyncio.Event) -> asyncio.BaseProtocol:
        protocol = Receiving(codec())
        protocol.arrived = arrived
        return protocol

    return await _protocols(pairs, make)


class _Counts(asyncio.Protocol):
    def __init__(self, arrived: asyncio.Event) -> None:
        self._arrived = arrived

    def data_received(self, data: bytes) -> None:
        self._arrived.set()


def _in_loop(work: Callable[[Pairs], Any], loop: str = "asyncio") -> Callable[[Pairs], int]:
    def run(pairs: Pairs) -> int:
        from .contenders._looping import new_runner

        with new_runner(loop) as runner:
            return runner.run(work(pairs))

    return run


def _engine(module: str) -> Callable[[int], int]:
    return lambda count: _splitters(lambda: attribute(module, "Splitter")(codec()), count)


SPLITTERS: dict[str, tuple[str, Callable[[int], int]]] = {
    "C floor, splitter": ("floor", lambda n: _splitters(lambda: floor.load().Splitter(), n)),
    "framecodec, splitter fed": ("ours", _engine("framecodec._splitter")),
    "framecodec, Python splitter fed": ("ours", _engine("framecodec._splitter_py")),
    "framecodec, splitter read into": ("ours", _through_buffers),
    "tuned Python, splitter": (
        "alternative",
        lambda n: _splitters(lambda: everyone()["tuned Python"].splitter().__self__, n),
    ),
}
CONNECTIONS: dict[str, tuple[str, Callable[[Pairs], int]]] = {
    "FrameSocket": ("ours", _sockets),
    "FrameStream": ("ours", _in_loop(_frame_streams)),
    "FrameStream (uvloop)": ("ours", _in_loop(_frame_streams, "uvloop")),
    "FrameProtocol": (
        "ours",
        _in_loop(_frame_protocols),
    ),
    "asyncio streams": ("alternative", _in_loop(_asyncio_streams)),
    "uvloop streams": ("alternative", _in_loop(_asyncio_streams, "uvloop")),
    "asyncio transport alone": ("reference", _in_loop(lambda pairs: _protocols(pairs, _Counts))),
}


def main(name: str, count: int) -> None:
    if name in SPLITTERS:
        total = SPLITTERS[name][1](count)
    else:
        count = min(count, most_connections())
        pairs = [socket.socketpair() for _ in range(count)]
        total = CONNECTIONS[name][1](pairs)
    print(total / count, flush=True)
    os._exit(0)  # none of them is closed in order: that is not the question


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
