"""websockets: its sans-I/O parser in memory, and its asyncio client."""

from __future__ import annotations

import socket

from . import Contender, Feed, Messages
from ._looping import AwaitCalls, AwaitEach, AwaitSends, new_runner, nonblocking, written
from ._websocket import masked_size, wire


class Websockets(Contender):
    name = "websockets"
    requires = ("websockets.asyncio.client", "websockets.client")
    in_loop = True
    loop = "asyncio"
    greeting = "websocket"
    families = ("TCP",)
    wire = staticmethod(wire)
    request_size = staticmethod(masked_size)

    def splitter(self) -> Feed:
        from websockets.client import ClientProtocol
        from websockets.protocol import State
        from websockets.uri import parse_uri

        protocol = ClientProtocol(parse_uri("ws://localhost/"), max_size=None, state=State.OPEN)
        receive, received = protocol.receive_data, protocol.events_received

        def take(data: bytes) -> Messages:
            receive(data)
            return [bytes(frame.data) for frame in received()]

        return take

    def _open(self, sock: socket.socket):
        from websockets.asyncio.client import connect

        runner = new_runner(self.loop)

        async def open_connection():
            return await connect(
                "ws://localhost/",
                sock=nonblocking(sock),
                compression=None,
                max_size=None,
                ping_interval=None,
                close_timeout=0.1,
                proxy=None,
            )

        connection = runner.run(open_connection())

        async def end() -> None:
            connection.transport.abort()

        return runner, connection, end

    def receiver(self, sock: socket.socket) -> AwaitEach:
        runner, connection, end = self._open(sock)
        return AwaitEach(runner, connection.recv, end)

    def client(self, sock: socket.socket) -> AwaitCalls:
        runner, connection, end = self._open(sock)

        async def call(message: bytes) -> bytes:
            await connection.send(message)
            return await connection.recv()

        return AwaitCalls(runner, call, end)

    def sender(self, sock: socket.socket) -> AwaitSends:
        runner, connection, end = self._open(sock)

        async def send_all(messages: Messages) -> None:
            for message in messages:
                await connection.send(message)
            await written(connection.transport)

        return AwaitSends(runner, send_all, end)
