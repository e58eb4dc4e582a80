"""Echo servers for `bench_server.py`, which starts ``python -m bench.echo_servers NAME``.

The process prints its port, and ends with its standard input. Frames have a length of 4 bytes,
big-endian. Each server is written as its documentation shows, with nothing left out to be faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import selectors
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

import framecodec

HEADER = struct.Struct(">I")
CODEC = framecodec.Codec.uint(4)
SERVERS: dict[str, Callable[[], None]] = {}


def server(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(function: Callable[[], None]) -> Callable[[], None]:
        SERVERS[name] = function
        return function

    return add


def announce(port: int) -> None:
    """Print the port, and end the process when standard input ends."""
    print(port, flush=True)

    def wait() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


# --- blocking -------------------------------------------------------------------------------------


@server("serve_messages")
def run_serve_messages() -> None:
    with framecodec.serve_messages(
        lambda conn, messages: messages, ("127.0.0.1", 0), CODEC
    ) as running:
        announce(running.address[1])
        running.serve_forever()


def echo(conn: framecodec.FrameSocket) -> None:
    for message in conn:
        conn.send(message)


@server("serve")
def run_serve() -> None:
    with framecodec.serve(echo, ("127.0.0.1", 0), CODEC) as running:
        announce(running.address[1])
        running.serve_forever()


def echo_many(conn: framecodec.FrameSocket) -> None:
    try:
        while True:
            conn.send_many(conn.recv_many())
    except EOFError:
        pass


@server("serve, recv_many")
def run_serve_many() -> None:
    with framecodec.serve(echo_many, ("127.0.0.1", 0), CODEC) as running:
        announce(running.address[1])
        running.serve_forever()


@server("FrameSocket, threads")
def run_threads() -> None:
    def handle(conn: framecodec.FrameSocket) -> None:
        with conn, contextlib.suppress(OSError):
            echo(conn)

    with framecodec.listen(("127.0.0.1", 0), CODEC) as listener:
        announce(listener.address[1])
        for conn in listener:
            threading.Thread(target=handle, args=(conn,), daemon=True).start()


@server("FrameSocket, selectors")
def run_selectors() -> None:
    selector = selectors.DefaultSelector()
    with framecodec.listen(("127.0.0.1", 0), CODEC) as listener:
        announce(listener.address[1])
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, None)
        while True:
            for key, mask in selector.select():
                conn: Any = key.fileobj
                if key.data is None:
                    conn = listener.accept()
                    conn.setblocking(False)
                    selector.register(conn, selectors.EVENT_READ, conn)
                    continue
                try:
                    if mask & selectors.EVENT_WRITE:
                        conn.flush()
                        selector.modify(conn, selectors.EVENT_READ, conn)
                    else:
                        conn.send_many(conn.recv_many())
                except BlockingIOError as error:
                    if getattr(error, "message_started", False) or mask & selectors.EVENT_WRITE:
                        selector.modify(conn, selectors.EVENT_WRITE, conn)
                except (EOFError, OSError, framecodec.FrameError):
                    selector.unregister(conn)
                    conn.close()


# --- an event loop --------------------------------------------------------------------------------


def run_in(loop: str, main: Any) -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())


class ByHand(asyncio.Protocol):
    """What a careful programmer writes with a bytearray."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        replies = []
        position, size = 0, len(buffer)
        unpack = HEADER.unpack_from
        while size - position >= 4:
            (length,) = unpack(buffer, position)
            end = position + 4 + length
            if end > size:
                break
            message = bytes(buffer[position + 4 : end])
            replies.append(HEADER.pack(len(message)))
            replies.append(message)
            position = end
        del buffer[:position]
        if replies:
            self.transport.write(b"".join(replies))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Echo(framecodec.asyncio.FrameProtocol):
    def messages_received(self, messages: Any) -> None:
        for message in messages:
            self.send(message)


def run_protocol(loop: str, make: Callable[[], Any]) -> None:
    async def main() -> None:
        running = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        announce(running.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    run_in(loop, main)


def run_streams(loop: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = HEADER.unpack(await reader.readexactly(4))
                message = await reader.readexactly(size)
                writer.write(HEADER.pack(len(message)) + message)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        running = await asyncio.start_server(handle, "127.0.0.1", 0)
        announce(running.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    run_in(loop, main)


def run_frame_stream(loop: str) -> None:
    async def handle(stream: Any) -> None:
        async for message in stream:
            await stream.send(message)

    async def main() -> None:
        running = await framecodec.asyncio.start_server(handle, "127.0.0.1", 0, codec=CODEC)
        announce(running.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    run_in(loop, main)


for name in ("asyncio", "uvloop"):
    SERVERS[f"Protocol by hand, {name}"] = functools.partial(run_protocol, name, ByHand)
    SERVERS[f"FrameProtocol, {name}"] = functools.partial(run_protocol, name, lambda: Echo(CODEC))
    SERVERS[f"{name} streams"] = functools.partial(run_streams, name)
    SERVERS[f"FrameStream, {name}"] = functools.partial(run_frame_stream, name)


if __name__ == "__main__":
    SERVERS[sys.argv[1]]()
