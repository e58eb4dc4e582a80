"""The event loop's own limit: protocols that do only what they must.

`raw protocol` reads and counts bytes and finds no message in them; `raw protocol + C floor` splits
with the C floor; `raw protocol + tuned Python` is what a person writes who needs speed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from . import HEADER, Contender, Feed, Messages
from ._looping import (
    AwaitCalls,
    AwaitSends,
    CalledBack,
    Inbox,
    new_runner,
    nonblocking,
    written,
)
from .floor import Floor
from .tuned_python import TunedPython


class _Reads(asyncio.BufferedProtocol):
    """Reads into one buffer, again and again."""

    def __init__(self, taken: Callable[[memoryview], object], ended: Callable[[], object]) -> None:
        self._buffer = memoryview(bytearray(65536))
        self._taken = taken
        self._ended = ended

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.pause_reading()  # until messages are wanted

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        self._taken(self._buffer[:count])

    def connection_lost(self, error: Exception | None) -> None:
        self._ended()


class _Resumable(Inbox):
    """An inbox that starts reading when the benchmark first asks for messages."""

    def attach(self, transport: asyncio.Transport) -> None:
        self.resume = lambda: transport.is_reading() or transport.resume_reading()


def connect(runner: asyncio.Runner, sock: socket.socket, factory):
    async def connect():
        loop = asyncio.get_running_loop()
        return await loop.create_connection(factory, sock=nonblocking(sock))

    return runner.run(connect())


class _WithSplitter(Contender):
    in_loop = True
    loop = "asyncio"

    def feeder(self) -> Feed:
        raise NotImplementedError

    def receiver(self, sock: socket.socket) -> CalledBack:
        runner, inbox, feed = new_runner(self.loop), _Resumable(), self.feeder()
        put_many = inbox.put_many

        def factory() -> _Reads:
            return _Reads(lambda view: put_many(feed(view)), lambda: None)

        transport, _ = connect(runner, sock, factory)
        inbox.attach(transport)
        return CalledBack(runner, inbox, transport.close)


class ProtocolFloor(_WithSplitter):
    name = "raw protocol + C floor"
    role = "floor"
    ready = Floor.ready

    def feeder(self) -> Feed:
        return Floor().splitter()


class ProtocolTunedPython(_WithSplitter):
    name = "raw protocol + tuned Python"

    def feeder(self) -> Feed:
        feed = TunedPython().splitter()
        return lambda view: feed(bytes(view))

    def client(self, sock: socket.socket) -> AwaitCalls:
        runner, feed, pack = new_runner(self.loop), self.feeder(), HEADER.pack
        waiting: list[asyncio.Future[bytes]] = []

        def taken(view: memoryview) -> None:
            for message in feed(view):
                waiting.pop().set_result(message)

        transport, _ = connect(runner, sock, lambda: _Reads(taken, lambda: None))
        transport.resume_reading()
        loop = runner.get_loop()

        async def call(message: bytes) -> bytes:
            waiting.append(loop.create_future())
            reply = waiting[-1]
            transport.write(pack(len(message)) + message)
            return await reply

        return AwaitCalls(runner, call, transport.close)


class RawProtocol(Contender):
    name = "raw protocol"
    role = "reference"
    in_loop = True
    loop = "asyncio"

    def receiver(self, sock: socket.socket) -> CalledBack:
        runner, inbox = new_runner(self.loop), _UntilEnd()
        inbox.wire_splitter = TunedPython().splitter()
        transport, _ = connect(runner, sock, lambda: _Reads(inbox.taken, inbox.ended))
        inbox.attach(transport)
        return CalledBack(runner, inbox, transport.close)

    def sender(self, sock: socket.socket) -> AwaitSends:
        """One write of all frames."""
        runner = new_runner(self.loop)
        transport, _ = connect(runner, sock, asyncio.Protocol)
        return _OneWrite(runner, transport)


class _OneWrite(AwaitSends):
    """The frames are made beforehand."""

    def __init__(self, runner: asyncio.Runner, transport: asyncio.WriteTransport) -> None:
        async def send_all(messages: Messages) -> None:
            transport.write(self._frames)
            await written(transport)

        super().__init__(runner, send_all, transport.close)

    def prepare(self, messages: Messages) -> None:
        self._frames = Contender().wire(messages)


class _UntilEnd(_Resumable):
    """Counts bytes, not messages, so it is done when the stream ends."""

    wire_splitter: Feed

    def taken(self, view: memoryview) -> None:
        if self._kept is not None:
            self._kept += self.wire_splitter(bytes(view))

    def ended(self) -> None:
        self._finish(b"")


class RawProtocolUvloop(RawProtocol):
    name = "raw protocol (uvloop)"
    requires = ("uvloop",)
    loop = "uvloop"
