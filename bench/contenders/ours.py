"""framecodec: both engines, its sockets, its asyncio streams and protocols."""

from __future__ import annotations

import functools
import importlib
import socket
from collections.abc import Callable
from typing import Any

from . import Contender, Feed, Messages, Missing
from ._blocking import Batches, Calls, Iteration, OneByOne, Sends, SendsMany, nodelay
from ._looping import (
    AsyncIteration,
    AwaitBatches,
    AwaitCalls,
    AwaitEach,
    AwaitSends,
    CalledBack,
    Inbox,
    new_runner,
    nonblocking,
    written,
)

LIMIT = 64 * 1024 * 1024


@functools.cache
def codec() -> Any:
    """One serves every connection."""
    import framecodec

    return framecodec.Codec.uint(4, max_message_size=LIMIT)


def attribute(module: str, name: str) -> Any:
    """Something that this state of the package may not have (compare.py)."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Missing(f"{module}.{name}: {error}") from None


class Compiled(Contender):
    name = "framecodec"
    role = "ours"
    engine = "framecodec._splitter"

    def ready(self) -> None:
        attribute(self.engine, "Splitter")

    def splitter(self) -> Feed:
        return attribute(self.engine, "Splitter")(codec()).feed

    @property
    def _encoder(self) -> Any:
        return attribute(self.engine, "Encoder")(codec())

    @property
    def encode(self) -> Callable[[bytes], bytes]:
        return self._encoder.encode

    @property
    def encode_many(self) -> Callable[[Messages], bytes]:
        return self._encoder.encode_many


class PurePython(Compiled):
    name = "framecodec, Python engine"
    engine = "framecodec._splitter_py"

    def receiver(self, sock: socket.socket) -> Batches:
        feed, recv = self.splitter(), nodelay(sock).recv
        return Batches(lambda: feed(recv(65536)), sock.close)


class ThroughBuffer(Compiled):
    """`get_buffer` and `buffer_updated`, with a copy where a receiver has a read."""

    name = "framecodec, get_buffer"

    def splitter(self) -> Feed:
        splitter = attribute(self.engine, "Splitter")(codec())
        get_buffer, buffer_updated = splitter.get_buffer, splitter.buffer_updated

        def take(data: bytes) -> Messages:
            messages: Messages = []
            view = memoryview(data)
            while view:
                buffer = get_buffer(65536)
                size = min(len(buffer), len(view))
                buffer[:size] = view[:size]
                messages += buffer_updated(size)
                view = view[size:]
            return messages

        return take

    encode = encode_many = None


class _OnSocket(Contender):
    role = "ours"

    def ready(self) -> None:
        attribute("framecodec", "FrameSocket")

    def _open(self, sock: socket.socket):
        return attribute("framecodec", "FrameSocket")(nodelay(sock), codec())


class SocketMany(_OnSocket):
    name = "framecodec, recv_many"

    def receiver(self, sock: socket.socket) -> Batches:
        connection = self._open(sock)
        return Batches(connection.recv_many, connection.close)


class SocketIteration(_OnSocket):
    name = "framecodec, for m in conn"

    def receiver(self, sock: socket.socket) -> Iteration:
        connection = self._open(sock)
        return Iteration(connection, connection.close)


class SocketOne(_OnSocket):
    name = "framecodec, recv"
    timeouts = True

    def receiver(self, sock: socket.socket) -> OneByOne:
        connection = self._open(sock)
        return OneByOne(connection.recv, connection.close)

    def client(self, sock: socket.socket) -> Calls:
        connection = self._open(sock)
        send, recv = connection.send, connection.recv

        def call(message: bytes) -> bytes:
            send(message)
            return recv()

        return Calls(call, connection.close)


class SocketSendMany(_OnSocket):
    name = "framecodec, send_many 64 KiB"
    batch = 64 * 1024

    def sender(self, sock: socket.socket) -> Any:
        return _SendManyBySize(self._open(sock), self.batch)


class SocketSendManyLarge(SocketSendMany):
    name = "framecodec, send_many 256 KiB"
    batch = 256 * 1024


class _SendManyBySize:
    """`send_many` of lists whose messages have about `batch_size` bytes."""

    def __init__(self, connection: Any, batch_size: int) -> None:
        self._connection = connection
        self._batch_size = batch_size
        self.close = connection.close

    def run(self, messages: Messages, times: int) -> None:
        batch = max(1, self._batch_size // (len(messages[0]) + 4))
        SendsMany(self._connection.send_many, batch, self.close).run(messages, times)


class SocketSend(_OnSocket):
    name = "framecodec, send"

    def sender(self, sock: socket.socket) -> Sends:
        connection = self._open(sock)
        return Sends(connection.send, connection.close)


class _InLoop(Contender):
    role = "ours"
    in_loop = True
    loop = "asyncio"

    def ready(self) -> None:
        for module in self.requires:
            importlib.import_module(module)
        attribute("framecodec.asyncio", "FrameStream")
        attribute("framecodec.asyncio", "FrameProtocol")

    def _open(self, sock: socket.socket) -> tuple[Any, Any]:
        module = importlib.import_module("framecodec.asyncio")
        runner = new_runner(self.loop)
        stream = runner.run(module.open_connection(sock=nonblocking(sock), codec=codec()))
        return runner, stream


class StreamMany(_InLoop):
    name = "FrameStream, recv_many"

    def receiver(self, sock: socket.socket) -> AwaitBatches:
        runner, stream = self._open(sock)
        return AwaitBatches(runner, stream.recv_many, stream.aclose)


class StreamManyUvloop(StreamMany):
    name = "FrameStream, recv_many (uvloop)"
    requires = ("uvloop",)
    loop = "uvloop"


class StreamIteration(_InLoop):
    name = "FrameStream, async for"

    def receiver(self, sock: socket.socket) -> AsyncIteration:
        runner, stream = self._open(sock)
        return AsyncIteration(runner, stream, stream.aclose)


class StreamOne(_InLoop):
    name = "FrameStream, recv"

    def receiver(self, sock: socket.socket) -> AwaitEach:
        runner, stream = self._open(sock)
        return AwaitEach(runner, stream.recv, stream.aclose)

    def client(self, sock: socket.socket) -> AwaitCalls:
        runner, stream = self._open(sock)
        send, recv = stream.send, stream.recv

        async def call(message: bytes) -> bytes:
            await send(message)
            return await recv()

        return AwaitCalls(runner, call, stream.aclose)


class StreamOneUvloop(StreamOne):
    name = "FrameStream, recv (uvloop)"
    requires = ("uvloop",)
    loop = "uvloop"


class StreamSendMany(_InLoop):
    name = "FrameStream, send_many"

    def sender(self, sock: socket.socket) -> AwaitSends:
        """`send_many` of all of them."""
        runner, stream = self._open(sock)

        async def send_all(messages: Messages) -> None:
            await stream.send_many(messages)
            await _sent(stream)

        return AwaitSends(runner, send_all, stream.aclose)


class StreamSendManyUvloop(StreamSendMany):
    name = "FrameStream, send_many (uvloop)"
    requires = ("uvloop",)
    loop = "uvloop"


class StreamSend(_InLoop):
    name = "FrameStream, send"

    def sender(self, sock: socket.socket) -> AwaitSends:
        """One `send` a message."""
        runner, stream = self._open(sock)
        send = stream.send

        async def send_all(messages: Messages) -> None:
            for message in messages:
                await send(message)
            await _sent(stream)

        return AwaitSends(runner, send_all, stream.aclose)


class StreamSendUvloop(StreamSend):
    name = "FrameStream, send (uvloop)"
    requires = ("uvloop",)
    loop = "uvloop"


class ProtocolMany(_InLoop):
    name = "FrameProtocol"

    def _connect(self, sock: socket.socket, got: Callable[[Messages], object]):
        base = attribute("framecodec.asyncio", "FrameProtocol")

        class Receiving(base):
            def messages_received(self, messages: Messages) -> None:
                got(messages)

        runner = new_runner(self.loop)

        async def connect() -> Any:
            import asyncio

            loop = asyncio.get_running_loop()
            _, protocol = await loop.create_connection(
                lambda: Receiving(codec()), sock=nonblocking(sock)
            )
            return protocol

        return runner, runner.run(connect())

    def receiver(self, sock: socket.socket) -> CalledBack:
        inbox = Inbox()
        runner, protocol = self._connect(sock, inbox.put_many)
        return CalledBack(runner, inbox, lambda: protocol.transport.close())

    def sender(self, sock: socket.socket) -> AwaitSends:
        """One `send` a message."""
        import asyncio

        runner, protocol = self._connect(sock, lambda messages: None)
        send = protocol.send

        async def send_all(messages: Messages) -> None:
            for message in messages:
                send(message)
            await asyncio.sleep(0)
            await written(protocol.transport)

        return AwaitSends(runner, send_all, lambda: protocol.transport.close())


class ProtocolManyUvloop(ProtocolMany):
    name = "FrameProtocol (uvloop)"
    requires = ("uvloop",)
    loop = "uvloop"


async def _sent(stream: Any) -> None:
    """Until the kernel has every byte: what the stream gathered leaves in a later turn."""
    import asyncio

    await asyncio.sleep(0)
    transport = getattr(stream, "transport", None) or stream.get_extra_info("transport")
    if transport is not None:
        await written(transport)
