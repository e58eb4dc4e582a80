"""How fast are WebSocket frames split in memory? ``python -m bench.websocket``.

The format `websocket` against the parser of picows, which has no call for bytes in memory: its
protocol is connected over a socket pair, and is then given the bytes as an event loop gives them
(`get_buffer`, `buffer_updated`), with a listener that takes each payload as `bytes`. Both read the
frames of a server (RFC 6455, section 5.2, no mask). framecodec's messages are whole frames without
the length. The figures are ns a frame, each the least of several runs that take turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from framecodec import formats

from .contenders._websocket import wire

SIZES = (16, 64, 1024, 65536)
HOT = 64 * 1024
RUNS = 60


async def connected(got: Callable[[bytes], None]) -> Any:
    """Return a protocol of picows after its handshake, and what keeps it alive."""
    import picows

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            got(frame.get_payload_as_bytes())

    class Peer(picows.WSListener):
        pass

    server = await picows.ws_create_server(lambda request: Peer(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    transport, _ = await picows.ws_connect(
        Listener, f"ws://{host}:{port}/", max_frame_size=64 * 1024 * 1024
    )
    return transport.underlying_transport.get_protocol(), (server, transport)


def feed(protocol: Any, data: bytes) -> None:
    """Give a protocol bytes as an event loop does."""
    view, pos = memoryview(data), 0
    while pos < len(data):
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(data) - pos)
        buffer[:size] = view[pos : pos + size]
        protocol.buffer_updated(size)
        pos += size


def measure(protocol: Any, got: list[bytes], size: int) -> tuple[float, float]:
    messages = [bytes([97 + i % 20]) * size for i in range(max(4, HOT // size))]
    data = wire(messages)
    split = formats["websocket"].splitter().feed
    assert [message[2:] for message in split(data)] == messages
    got.clear()
    feed(protocol, data)
    assert got == messages
    ours = theirs = float("inf")
    for _ in range(RUNS):
        started = time.perf_counter_ns()
        split(data)
        ours = min(ours, time.perf_counter_ns() - started)
        got.clear()
        started = time.perf_counter_ns()
        feed(protocol, data)
        theirs = min(theirs, time.perf_counter_ns() - started)
    return ours / len(messages), theirs / len(messages)


async def compare() -> None:
    got: list[bytes] = []
    protocol, _alive = await connected(got.append)
    print("| bytes | framecodec, ns | picows, ns | times as fast |")
    print("| ---: | ---: | ---: | ---: |")
    for size in SIZES:
        ours, theirs = measure(protocol, got, size)
        print(f"| {size} | {ours:.0f} | {theirs:.0f} | {theirs / ours:.1f} |")


if __name__ == "__main__":
    asyncio.run(compare())
