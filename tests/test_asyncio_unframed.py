"""`recv_bytes`, `send_bytes` and `detach` of a `FrameStream`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from framecodec import (
    Codec,
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
)
from framecodec._inbox import Inbox
from framecodec.asyncio import FrameStream
from framecodec.asyncio.stream_protocol import StreamProtocol
from framecodec.asyncio.unframed import for_recv
from tests.helpers.event_loops import LOOPS, run, served, tls_contexts, wrapped
from tests.test_sockets_unframed import CODECS, codec_named, steps_of

pytestmark = pytest.mark.usefixtures("engine_in_use")

U1 = Codec.uint(1)


@contextlib.asynccontextmanager
async def connected(
    codec: Codec, **options: Any
) -> AsyncIterator[tuple[FrameStream, socket.socket]]:
    stream, peer = await wrapped(codec, **options)
    with peer:
        async with stream:
            yield stream, peer


async def receive(stream: FrameStream, steps: list[Any]) -> None:
    for step in steps:
        if isinstance(step, bytes):
            assert await stream.recv() == step
        else:
            assert await stream.recv_bytes(step[0]) == step[1]


@LOOPS
@pytest.mark.parametrize("name", CODECS)
def test_recv_bytes_takes_what_follows_a_message(loop: str, name: str) -> None:
    codec = codec_named(name)
    wire, steps = steps_of(codec)

    async def main() -> None:
        async with connected(codec) as (stream, peer):
            peer.sendall(wire)
            peer.close()
            await receive(stream, steps)
            for call in (stream.recv, lambda: stream.recv_bytes(1)):
                with pytest.raises(EOFError) as caught:
                    await call()
                assert type(caught.value) is EOFError

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("name", CODECS)
def test_recv_bytes_loses_nothing_to_a_cancellation_at_any_byte(loop: str, name: str) -> None:
    codec = codec_named(name)
    wire, steps = steps_of(codec)

    async def main() -> None:
        async with connected(codec) as (stream, peer):

            async def feed() -> None:
                for position in range(len(wire)):
                    peer.sendall(wire[position : position + 1])
                    for _ in range(3):
                        await asyncio.sleep(0)

            feeding = asyncio.create_task(feed())
            for step in steps:
                while True:
                    size = 4096 if random.random() < 0.3 else None
                    if size:
                        call: Any = stream.recv_bytes(size)  # never all there
                    elif isinstance(step, bytes):
                        call = stream.recv()
                    else:
                        call = stream.recv_bytes(step[0])
                    task = asyncio.create_task(call)
                    for _ in range(random.randint(1, 6)):
                        await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        found = await task
                        assert found == (step if isinstance(step, bytes) else step[1])
                        break
            await feeding

    random.seed(5)
    run(loop, main())


@LOOPS
@pytest.mark.parametrize("sent", range(6))
def test_recv_bytes_counts_what_came_before_the_end(loop: str, sent: int) -> None:
    async def main() -> None:
        async with connected(Codec.uint(2).replace()) as (stream, peer):
            peer.sendall(b"\0\1a" + b"12345"[:sent])
            peer.close()
            assert await stream.recv() == b"a"
            with pytest.raises(EOFError) as caught:
                await stream.recv_bytes(6)
            assert isinstance(caught.value, IncompleteFrameError) == (sent > 0)
            if isinstance(caught.value, IncompleteFrameError):
                found = caught.value.received, caught.value.needed, caught.value.stream_offset
                assert found == (sent, 6, 3)
            assert await stream.recv_bytes(sent) == b"12345"[:sent]
            for call in (stream.recv, lambda: stream.recv_bytes(1)):
                with pytest.raises(EOFError) as caught:
                    await call()
                assert type(caught.value) is EOFError

    run(loop, main())


@LOOPS
def test_recv_bytes_takes_the_error_of_a_frame_back(loop: str) -> None:
    async def main() -> None:
        async with connected(Codec.digits(3).replace()) as (stream, peer):
            peer.sendall(b"002hiSSH-2.0\r\n003abc")
            assert await stream.recv() == b"hi"
            with pytest.raises(InvalidFrameError, match="SSH"):
                await stream.recv()
            assert await stream.recv_bytes(9) == b"SSH-2.0\r\n"
            assert await stream.recv() == b"abc"
            peer.sendall(b"002ok")
            assert await stream.recv() == b"ok"

    run(loop, main())


@LOOPS
def test_recv_bytes_leaves_the_rest_to_any_call(loop: str) -> None:
    async def main() -> None:
        async with connected(U1.replace()) as (stream, peer):
            peer.sendall(b"\3abc\2xy")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await stream.recv_bytes(100)
            assert stream.pending_messages == 2
            assert await stream.recv_many() == [b"abc", b"xy"]
            peer.sendall(b"\3abc\2xyz")
            assert await stream.recv_bytes(2) == b"\3a"
            assert await stream.recv_bytes(0) == b""
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await stream.recv()
            peer.sendall(b"." * 97)
            assert await anext(aiter(stream)) == b"c\2xyz" + b"." * 93
            assert await stream.recv_bytes(4) == b"...."

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("tls", [False, True])
def test_recv_bytes_and_send_bytes_of_many_bytes(loop: str, tls: bool) -> None:
    data = random.Random(3).randbytes(1_000_000)

    async def handler(stream: FrameStream) -> None:
        await stream.send(b"first")
        await stream.send_bytes(bytearray(data))
        await stream.send(b"second")
        await stream.send_bytes(memoryview(b"12345678").cast("I"))
        await stream.send_bytes(b"")
        await stream.send(b"third")
        assert await stream.recv() == b"done"

    async def client(stream: FrameStream) -> None:
        await asyncio.sleep(0.05)  # the stream stops reading: it holds enough
        assert await stream.recv() == b"first"
        assert await stream.recv_bytes(len(data)) == data
        assert await stream.recv() == b"second"
        assert await stream.recv_bytes(8) == b"12345678"
        assert await stream.recv() == b"third"
        await stream.send(b"done")

    contexts = tls_contexts() if tls else None
    run(loop, served(handler, client, Codec.uint(2).replace(), contexts))


@LOOPS
def test_recv_bytes_reads_on_where_the_stream_had_stopped(loop: str) -> None:
    """What was parsed as small messages may be much more than the stream holds."""

    async def main() -> None:
        async with connected(U1.replace()) as (stream, peer):
            peer.setblocking(False)
            sending = asyncio.create_task(
                asyncio.get_running_loop().sock_sendall(peer, bytes(2_000_000) + b"\1x")
            )
            await asyncio.sleep(0.05)
            assert await stream.recv_bytes(1_000_000) == bytes(1_000_000)
            for _ in range(1000):
                assert await stream.recv_bytes(1000) == bytes(1000)
            assert await stream.recv() == b"x"
            await sending

    run(loop, main())


@LOOPS
def test_a_second_recv_is_refused_while_recv_bytes_waits(loop: str) -> None:
    async def main() -> None:
        async with connected(U1.replace()) as (stream, peer):
            task = asyncio.create_task(stream.recv_bytes(3))
            await asyncio.sleep(0)
            for call in (stream.recv, stream.recv_many, lambda: stream.recv_bytes(1)):
                with pytest.raises(RuntimeError, match="another recv"):
                    await call()
            peer.sendall(b"abc")
            assert await task == b"abc"

    run(loop, main())


@LOOPS
@pytest.mark.parametrize(
    ("limit", "arrived", "error"),
    [("message_timeout", b"ab", MessageTimeoutError), ("idle_timeout", b"", IdleTimeoutError)],
)
def test_recv_bytes_obeys_the_limits_of_the_peer(
    loop: str, limit: str, arrived: bytes, error: Any
) -> None:
    async def main() -> None:
        async with connected(U1.replace(), **{limit: 0.05}) as (stream, peer):
            peer.sendall(arrived)
            with pytest.raises(error):
                await stream.recv_bytes(3)

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("data", ["text", 5, memoryview(b"abcd")[::2]])
def test_send_bytes_refuses_what_has_no_bytes(loop: str, data: Any) -> None:
    async def main() -> None:
        async with connected(U1.replace()) as (stream, _):
            with pytest.raises((TypeError, BufferError)):
                await stream.send_bytes(data)
            with pytest.raises((TypeError, ValueError)):
                await stream.recv_bytes(-1)

    run(loop, main())


# --- detach ---------------------------------------------------------------------------------------


class Collector(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.ended.set_result(None)


@LOOPS
@pytest.mark.parametrize("name", CODECS)
def test_detach_returns_the_transport_and_the_unread_bytes(loop: str, name: str) -> None:
    codec = codec_named(name)
    wire, steps = steps_of(codec)

    async def main() -> None:
        stream, peer = await wrapped(codec)
        with peer:
            await detached(stream, peer)

    async def detached(stream: FrameStream, peer: socket.socket) -> None:
        peer.sendall(wire)
        await receive(stream, steps[:4])
        taken = len(steps[0][1])
        for step in steps[1:4]:
            taken += len(codec.encode(step)) if isinstance(step, bytes) else len(step[1])
        await stream.send(b"the last message")
        transport, unread = stream.detach()
        assert unread == wire[taken:]
        assert not transport.is_reading()
        for call in (stream.recv, lambda: stream.recv_bytes(1), lambda: stream.send(b"x")):
            with pytest.raises(ConnectionAbortedError, match="closed or detached"):
                await call()
        with pytest.raises(ConnectionAbortedError, match="closed or detached"):
            stream.detach()
        collector = Collector()
        transport.set_protocol(collector)
        transport.resume_reading()
        peer.sendall(b"another protocol")
        peer.shutdown(socket.SHUT_WR)
        transport.write(b"bytes")
        await collector.ended
        assert collector.data == b"another protocol"
        transport.close()
        found = b""
        while chunk := await asyncio.to_thread(peer.recv, 1000):
            found += chunk
        assert found == codec.encode(b"the last message") + b"bytes"

    run(loop, main())


@LOOPS
def test_detach_is_refused_while_a_send_or_a_recv_waits(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.uint(4).replace())
        assert stream.pending_messages == 0
        waiting = asyncio.create_task(stream.recv())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another recv"):
            stream.detach()
        waiting.cancel()
        sends = [asyncio.create_task(stream.send(bytes(1_000_000))) for _ in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="a send waits"):
            stream.detach()
        peer.close()
        for send in sends:
            with contextlib.suppress(OSError):
                await send
        await stream.aclose()

    run(loop, main())


def out_of_memory(*_: object) -> None:
    raise MemoryError


def test_recv_bytes_without_memory_to_take_bytes_back_leaves_the_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with connected(U1.replace()) as (stream, peer):
            peer.sendall(b"\1a\1b\1c")
            assert await stream.recv() == b"a"
            with monkeypatch.context() as patched:
                patched.setattr(Inbox, "unframe", out_of_memory)
                with pytest.raises(MemoryError):
                    await stream.recv_bytes(1)
            assert [await stream.recv(), await stream.recv()] == [b"b", b"c"]
            for _ in range(2):
                with pytest.raises(MemoryError):
                    await stream.recv()

    run("asyncio", main())


@pytest.mark.parametrize("is_unframed", [False, True])
def test_bytes_in_no_certain_place_come_once_or_end_receiving(
    is_unframed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with connected(U1.replace()) as (stream, peer):
            peer.sendall(b"\1a\1b\1c")
            assert await stream.recv() == b"a"
            if is_unframed:
                assert await stream.recv_bytes(1) == b"\1"
            with monkeypatch.context() as patched:
                patched.setattr(StreamProtocol, "_forget_messages", out_of_memory)
                with pytest.raises(MemoryError):
                    await stream.recv_bytes(1)
            for _ in range(2):
                for call in (partial(stream.recv_bytes, 1), stream.recv):
                    with pytest.raises(MemoryError):
                        await call()

    run("asyncio", main())


def test_bytes_that_cannot_be_parsed_for_lack_of_memory_end_receiving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with connected(U1.replace()) as (stream, peer):
            peer.sendall(b"\1aX\1b")
            assert await stream.recv() == b"a"
            assert await stream.recv_bytes(1) == b"X"
            with monkeypatch.context() as patched:
                patched.setattr(Inbox, "reframe", out_of_memory)
                with pytest.raises(MemoryError):
                    await stream.recv()
            assert await stream.recv() == b"b"
            for _ in range(2):
                with pytest.raises(MemoryError):
                    await stream.recv()

    run("asyncio", main())


@LOOPS
def test_calls_beside_a_half_received_message_are_refused(loop: str) -> None:
    async def main() -> None:
        codec = Codec.uint(4).replace()
        async with connected(codec) as (stream, peer):
            message = bytes(range(256)) * 1000
            wire = codec.encode_many([message, b"next"])
            peer.sendall(wire[:50_000])
            parts = stream.recv_parts()
            received = await anext(parts)
            assert 0 < len(received) < len(message)
            for call in (stream.recv, partial(stream.recv_bytes, 1)):
                with pytest.raises(RuntimeError, match="half received"):
                    await call()
            for refused in (stream.detach, partial(stream.switch, U1)):
                with pytest.raises(RuntimeError, match="half received"):
                    refused()
            sending = asyncio.create_task(asyncio.to_thread(peer.sendall, wire[50_000:]))
            async for part in parts:
                received += part
            assert received == message
            assert await stream.recv() == b"next"
            await sending

    run(loop, main())


@LOOPS
def test_message_timeout_counts_from_the_bytes_that_are_parsed_again(loop: str) -> None:
    async def main() -> None:
        async with connected(U1.replace(), message_timeout=0.05) as (stream, peer):
            peer.sendall(b"\1aX\5he")
            assert await stream.recv() == b"a"
            assert await stream.recv_bytes(1) == b"X"
            with pytest.raises(MessageTimeoutError):
                await stream.recv()

    run(loop, main())


def test_what_ends_the_program_does_so_in_one_task_only() -> None:
    error = OSError("by the peer")
    assert for_recv(error) is error
    assert isinstance(for_recv(KeyboardInterrupt()), ConnectionAbortedError)
    assert "KeyboardInterrupt" in str(for_recv(KeyboardInterrupt()))
