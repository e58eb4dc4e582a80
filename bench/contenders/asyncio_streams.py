"""asyncio's streams, `readexactly` twice a message: on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket

from . import HEADER, Contender, Messages
from ._looping import AwaitCalls, AwaitEach, AwaitSends, new_runner, nonblocking


class AsyncioStreams(Contender):
    name = "asyncio streams"
    in_loop = True
    loop = "asyncio"

    def _open(self, sock: socket.socket):
        runner = new_runner(self.loop)
        reader, writer = runner.run(asyncio.open_connection(sock=nonblocking(sock)))

        async def end() -> None:
            writer.close()
            await writer.wait_closed()

        return runner, reader, writer, end

    def receiver(self, sock: socket.socket) -> AwaitEach:
        runner, reader, _, end = self._open(sock)
        readexactly, unpack = reader.readexactly, HEADER.unpack

        async def recv() -> bytes:
            (size,) = unpack(await readexactly(4))
            return await readexactly(size)

        return AwaitEach(runner, recv, end)

    def client(self, sock: socket.socket) -> AwaitCalls:
        runner, reader, writer, end = self._open(sock)
        readexactly, unpack, pack = reader.readexactly, HEADER.unpack, HEADER.pack

        async def call(message: bytes) -> bytes:
            writer.write(pack(len(message)) + message)
            (size,) = unpack(await readexactly(4))
            return await readexactly(size)

        return AwaitCalls(runner, call, end)

    def sender(self, sock: socket.socket) -> AwaitSends:
        runner, _, writer, end = self._open(sock)
        write, drain, pack = writer.write, writer.drain, HEADER.pack
        writer.transport.set_write_buffer_limits(high=0)  # drain() then waits for the last byte

        async def send_all(messages: Messages) -> None:
            for message in messages:
                write(pack(len(message)) + message)
            await drain()

        return AwaitSends(runner, send_all, end)


class UvloopStreams(AsyncioStreams):
    name = "uvloop streams"
    requires = ("uvloop",)
    loop = "uvloop"
