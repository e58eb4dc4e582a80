"""picows, a WebSocket library in Cython: binary frames, read as a client (no masking)."""

from __future__ import annotations

import asyncio
import socket

from . import Contender, Messages
from ._looping import AwaitCalls, AwaitSends, CalledBack, Inbox, new_runner, nonblocking, written
from ._websocket import masked_size, wire

LIMIT = 64 * 1024 * 1024


def _connect(runner: asyncio.Runner, sock: socket.socket, got):
    """Return a connection that passes the payloads of its frames to `got`, as bytes."""
    import picows

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport, frame) -> None:
            got(frame.get_payload_as_bytes())

        def pause_writing(self) -> None:
            """Without these two it logs a warning each time."""

        def resume_writing(self) -> None:
            pass

    async def connect():
        transport, _ = await picows.ws_connect(
            Listener,
            "ws://localhost/",
            socket_factory=lambda _url: nonblocking(sock),
            max_frame_size=LIMIT,
        )
        return transport

    return runner.run(connect())


class Picows(Contender):
    name = "picows"
    requires = ("picows",)
    in_loop = True
    loop = "asyncio"
    greeting = "websocket"
    families = ("TCP",)
    wire = staticmethod(wire)
    request_size = staticmethod(masked_size)

    def receiver(self, sock: socket.socket) -> CalledBack:
        runner, inbox = new_runner(self.loop), Inbox()
        transport = _connect(runner, sock, inbox.put)
        return CalledBack(runner, inbox, transport.disconnect)

    def client(self, sock: socket.socket) -> AwaitCalls:
        import picows

        runner = new_runner(self.loop)
        waiting: list[asyncio.Future[bytes]] = []
        transport = _connect(runner, sock, lambda reply: waiting.pop().set_result(reply))
        loop, binary = runner.get_loop(), picows.WSMsgType.BINARY

        async def call(message: bytes) -> bytes:
            reply = loop.create_future()
            waiting.append(reply)
            transport.send(binary, message)
            return await reply

        return AwaitCalls(runner, call, transport.disconnect)

    def sender(self, sock: socket.socket) -> AwaitSends:
        import picows

        runner = new_runner(self.loop)
        transport = _connect(runner, sock, lambda reply: None)
        send, binary = transport.send, picows.WSMsgType.BINARY

        async def send_all(messages: Messages) -> None:
            for message in messages:
                send(binary, message)
            await written(transport.underlying_transport)

        return AwaitSends(runner, send_all, transport.disconnect)


class PicowsUvloop(Picows):
    name = "picows (uvloop)"
    requires = ("picows", "uvloop")
    loop = "uvloop"
