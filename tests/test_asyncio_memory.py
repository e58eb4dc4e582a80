"""A connection of an event loop holds nothing that it has delivered, and nothing that it has sent.

Memory is what `tracemalloc` counts while the connection rests; references are counted where one
object matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import sysconfig
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

import framecodec.asyncio
from framecodec import Codec, FrameError
from framecodec._states import TransportState
from framecodec.asyncio import FrameProtocol, FrameStream
from tests.helpers.event_loops import LOOPS, run, wrapped

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="reference counts are CPython's"
)

MIB = 1 << 20
LARGE = 8 * MIB

# What a connection may hold: the memory that it reads into, objects, and the test's own.
LITTLE = MIB

CODECS = {
    "uint": Codec.uint(4),
    "headers": Codec.headers(),
    "trailer": Codec.digits(8, trailer=b"\n"),
    "lead": Codec.uint(4, length_offset=2),
}


class Meter:
    """Bytes that are held more than at the start."""

    def __init__(self) -> None:
        self._start = tracemalloc.get_traced_memory()[0]

    def held(self) -> int:
        return tracemalloc.get_traced_memory()[0] - self._start


@pytest.fixture
def _counted() -> Iterator[None]:
    """Counts memory, without the help of the garbage collector."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


async def send_all(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(stream: FrameStream, way: str) -> int:
    """The size of what is received; nothing of it is kept."""
    if way == "recv":
        return len(await stream.recv())
    if way == "recv_many":
        return sum(map(len, await stream.recv_many()))
    return len(await anext(aiter(stream)))


@LOOPS
@pytest.mark.parametrize("way", ["recv", "recv_many", "iteration"])
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.usefixtures("_counted", "engine_in_use")
def test_recv_leaves_no_delivered_message_in_memory(loop: str, way: str, name: str) -> None:
    codec = CODECS[name].replace()

    async def main() -> None:
        stream, theirs = await wrapped(codec)
        theirs.setblocking(False)
        data = codec.encode_many([bytes(LARGE), b"small", bytes(100_000)])
        meter = Meter()
        sending = asyncio.create_task(send_all(theirs, data))
        received = 0
        while received < LARGE + 5 + 100_000:
            received += await receive(stream, way)
        await sending
        del sending
        assert meter.held() < LITTLE
        resting = asyncio.create_task(receive(stream, way))
        await asyncio.sleep(0.01)
        assert meter.held() < LITTLE
        theirs.sendall(codec.encode(b"end"))
        assert await resting == 3
        await stream.aclose()
        theirs.close()

    run(loop, main())


@LOOPS
@pytest.mark.usefixtures("_counted", "engine_in_use")
def test_protocol_keeps_no_delivered_message(loop: str) -> None:
    sizes: list[int] = []

    class Measure(FrameProtocol):
        def messages_received(self, messages: list[Any]) -> None:
            sizes.extend(map(len, messages))

    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        _, protocol = await asyncio.get_running_loop().create_connection(Measure, sock=ours)
        meter = Meter()
        await send_all(theirs, Codec.uint(4).encode_many([bytes(LARGE), b"small"]))
        while len(sizes) < 2:
            await asyncio.sleep(0)
        assert meter.held() < LITTLE
        protocol.transport.abort()
        theirs.close()
        await asyncio.sleep(0.01)

    run(loop, main())


@LOOPS
@pytest.mark.usefixtures("_counted", "engine_in_use")
def test_recv_raises_an_error_that_holds_no_received_bytes(loop: str) -> None:
    codec = Codec.digits(8)

    async def main() -> None:
        stream, theirs = await wrapped(codec)
        theirs.setblocking(False)
        data = codec.encode(bytes(LARGE)) + b"no digits" + bytes(100_000)
        meter = Meter()
        sending = asyncio.create_task(send_all(theirs, data))
        assert len(await stream.recv()) == LARGE
        for _ in range(2):
            with pytest.raises(FrameError):
                await stream.recv()
        await asyncio.sleep(0.01)
        assert meter.held() < LITTLE + len(data) - LARGE
        error = stream._protocol._inbox.failure
        assert error is not None
        frames = []
        traceback = error.__traceback__
        while traceback is not None:
            frames.append(traceback.tb_frame.f_code.co_filename)
            traceback = traceback.tb_next
        # Where it was raised last, and not where it came from.
        assert not any("_splitter" in name or "_fast_path" in name for name in frames)
        stream.transport.abort()
        theirs.close()
        with contextlib.suppress(OSError):
            await sending

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("streaming", [False, True], ids=["protocol", "stream"])
@pytest.mark.usefixtures("_counted", "engine_in_use")
def test_connection_lost_releases_an_unfinished_message(loop: str, streaming: bool) -> None:
    async def main() -> None:
        theirs: socket.socket
        if streaming:
            stream, theirs = await wrapped()
            protocol: Any = stream._protocol
        else:
            ours, theirs = socket.socketpair()
            _, protocol = await asyncio.get_running_loop().create_connection(
                FrameProtocol, sock=ours
            )
        theirs.setblocking(False)
        meter = Meter()
        await send_all(theirs, Codec.uint(4).encode(bytes(LARGE))[:-1])
        while protocol._inbox.splitter.pending < LARGE:
            await asyncio.sleep(0)
        assert meter.held() > LARGE
        if streaming:
            stream.transport.abort()
        else:
            theirs.close()
        while protocol._sending.state < TransportState.CLOSED:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert meter.held() < LITTLE
        theirs.close()

    run(loop, main())


@LOOPS
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="a free-threaded Python may count references later",
)
@pytest.mark.parametrize("size", [20_000, 3 * MIB])
@pytest.mark.usefixtures("engine_in_use")
def test_send_releases_a_message_that_was_sent(loop: str, size: int) -> None:
    """Also not by a send that waits until the transport takes more."""
    if loop == "asyncio" and size > MIB and sys.version_info >= (3, 12):
        pytest.skip("from Python 3.12 on, asyncio's transport itself keeps a view of the message")

    async def main() -> None:
        stream, theirs = await wrapped()
        theirs.setblocking(False)
        here = asyncio.get_running_loop()
        protocol: Any = stream._protocol
        first, second = bytes(3 * MIB), b"x" + bytes(size)
        alone = sys.getrefcount(second)
        sending = [here.create_task(stream.send(message)) for message in (first, second)]
        checked = received = 0
        while received < len(first) + len(second) + 8:
            with contextlib.suppress(BlockingIOError):
                received += len(theirs.recv(10_000))
            await asyncio.sleep(0)
            accepted = sending[0].done() and not protocol._sending._queue
            # uvloop's transport refers to what it has not sent.
            if accepted and not (
                stream.pending_send if loop == "uvloop" else protocol._sending.unsent_size()
            ):
                assert sys.getrefcount(second) == alone
                checked += 1
        await asyncio.gather(*sending)
        assert checked
        assert sys.getrefcount(second) == alone
        small = b"y" * 100
        alone = sys.getrefcount(small)
        await stream.send(small)
        await stream.send_many([small, small])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sys.getrefcount(small) == alone
        await stream.aclose()
        theirs.close()

    run(loop, main())


@pytest.mark.usefixtures("engine_in_use")
def test_connection_lost_keeps_no_frame_of_the_transport() -> None:
    async def main() -> None:
        protocol = FrameProtocol()
        transport = asyncio.Transport()
        protocol.connection_made(transport)
        try:
            raise ConnectionResetError
        except OSError as error:
            protocol.connection_lost(error)
        lost = protocol._sending.error
        assert isinstance(lost, ConnectionResetError)
        assert lost.__traceback__ is None
        stream = await framecodec.asyncio.open_datagram_endpoint(("127.0.0.1", 0))
        try:
            raise ConnectionRefusedError
        except OSError as error:
            stream._protocol.error_received(error)
        assert stream._protocol.queue[0][0].__traceback__ is None
        with pytest.raises(ConnectionRefusedError):
            await stream.recv()
        await stream.aclose()

    asyncio.run(main())


@LOOPS
@pytest.mark.usefixtures("_counted", "engine_in_use")
def test_connections_that_have_received_keep_no_memory_to_read_into(loop: str) -> None:
    """Each of them has filled one read, so each would keep the large memory for it."""

    async def main() -> None:
        pairs = [await wrapped(Codec.uint(4)) for _ in range(20)]
        meter = Meter()
        for stream, theirs in pairs:
            theirs.setblocking(False)
            sending = asyncio.create_task(send_all(theirs, Codec.uint(4).encode(bytes(300_000))))
            assert len(await stream.recv()) == 300_000
            await sending
            theirs.sendall(Codec.uint(4).encode(b"small"))
            assert await stream.recv() == b"small"
        del sending
        assert meter.held() < 300_000  # of 20 connections, and the memory that they share
        for stream, theirs in pairs:
            await stream.aclose()
            theirs.close()

    run(loop, main())
