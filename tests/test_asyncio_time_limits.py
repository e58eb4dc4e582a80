"""The peer's time in an event loop: what counts for `message_timeout` and `idle_timeout`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import framecodec
from framecodec import Codec, IdleTimeoutError, MessageTimeoutError
from framecodec.asyncio import FrameProtocol, FrameStream
from tests.helpers.event_loops import LOOPS, run, tls_contexts, wrapped

U4 = Codec.uint(4)
LIMIT = 0.15  # seconds; every longer time below is the test's own


async def pending(protocol: Any, count: int) -> None:
    """Wait until that many bytes of an unfinished frame were read."""
    while protocol._inbox.splitter.pending < count:
        await asyncio.sleep(0.001)


async def given_up(receive: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Wait for a message that does not come; raise what `receive` raises."""
    receiving = asyncio.ensure_future(receive())
    await asyncio.wait([receiving], timeout=seconds)
    receiving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        raise AssertionError(f"{await receiving} came")


@LOOPS
def test_recv_in_slices_reaches_the_idle_timeout(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(idle_timeout=LIMIT)

        async def receive_in_slices() -> None:
            for _ in range(200):
                await given_up(stream.recv, LIMIT / 3)

        with peer, pytest.raises(IdleTimeoutError):
            await receive_in_slices()
        with pytest.raises(IdleTimeoutError):
            await stream.recv_many()
        await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_does_not_count_quiet_time_between_its_calls(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(idle_timeout=LIMIT)
        with peer:
            for number in range(3):
                await given_up(stream.recv, LIMIT / 10)
                await asyncio.sleep(2 * LIMIT)
                peer.sendall(U4.encode(b"%d" % number))
                assert await stream.recv() == b"%d" % number
            await stream.aclose()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("way", ["recv", "recv_many", "iteration"])
def test_recv_does_not_count_message_time_between_its_calls(loop: str, way: str) -> None:
    async def receive(stream: FrameStream) -> Any:
        if way == "iteration":
            return await anext(aiter(stream))
        return await (stream.recv() if way == "recv" else stream.recv_many())

    async def main() -> None:
        stream, peer = await wrapped(message_timeout=LIMIT)
        frame = U4.encode(b"hello")
        with peer:
            peer.sendall(frame[:3])
            await pending(stream._protocol, 3)
            await given_up(lambda: receive(stream), LIMIT / 10)
            await asyncio.sleep(2 * LIMIT)
            peer.sendall(frame[3:6])
            await pending(stream._protocol, 6)
            await asyncio.sleep(2 * LIMIT)
            await given_up(lambda: receive(stream), LIMIT / 10)
            peer.sendall(frame[6:])
            assert await receive(stream) in (b"hello", [b"hello"])
            peer.sendall(frame[:3])
            with pytest.raises(MessageTimeoutError):
                await receive(stream)
            await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_does_not_count_time_in_which_reading_is_paused(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(message_timeout=LIMIT, idle_timeout=LIMIT)
        frame = U4.encode(b"hello")
        with peer:
            for begun in (0, 3):
                peer.sendall(frame[:begun])
                await pending(stream._protocol, begun)
                stream.transport.pause_reading()
                receiving = asyncio.create_task(stream.recv())
                await asyncio.sleep(2 * LIMIT)
                assert not receiving.done()
                peer.sendall(frame[begun:])
                stream.transport.resume_reading()
                assert await receiving == b"hello"
            await stream.aclose()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_recv_gives_the_message_that_the_kernel_held_when_its_time_was_over(
    loop: str, encrypted: bool
) -> None:
    """The loop is held up by other work for longer than the limit."""
    message = bytes(150_000)
    frame = U4.encode(message)

    async def main() -> None:
        server_side, client_side = tls_contexts()
        ready = asyncio.Event()
        received: list[Any] = []

        async def handler(stream: FrameStream) -> None:
            receiving = asyncio.create_task(stream.recv())
            await pending(stream._protocol, 6)
            ready.set()
            received.append(await receiving)

        server = await framecodec.asyncio.start_server(
            handler,
            "127.0.0.1",
            0,
            message_timeout=LIMIT,
            idle_timeout=LIMIT,
            ssl=server_side if encrypted else None,
        )
        async with await framecodec.asyncio.open_connection(
            *server.sockets[0].getsockname(),
            ssl=client_side if encrypted else None,
            server_hostname="localhost" if encrypted else None,
        ) as client:
            client.transport.write(frame[:6])
            await ready.wait()
            client.transport.write(frame[6:])
            while client.pending_send:  # the kernel has it before the server reads again
                await asyncio.sleep(0)
            time.sleep(2 * LIMIT)
            with pytest.raises(EOFError):
                await client.recv()
        assert received == [message]
        server.close()

    run(loop, main())


@LOOPS
def test_recv_reads_a_message_that_began_while_the_loop_was_held_up(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(idle_timeout=LIMIT)
        with peer:
            receiving = asyncio.create_task(stream.recv())
            await asyncio.sleep(0)
            peer.sendall(U4.encode(b"hello"))
            time.sleep(2 * LIMIT)
            assert await receiving == b"hello"
            await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_cuts_a_peer_off_that_sends_all_the_time_and_too_slowly(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(message_timeout=LIMIT)
        peer.setblocking(False)
        here = asyncio.get_running_loop()

        async def drip() -> None:
            await here.sock_sendall(peer, (1000).to_bytes(4, "big"))
            while True:
                await here.sock_sendall(peer, b"x")
                await asyncio.sleep(LIMIT / 20)

        dripping = asyncio.create_task(drip())
        with pytest.raises(MessageTimeoutError) as caught:
            await stream.recv()
        assert caught.value.timeout == LIMIT
        dripping.cancel()
        await asyncio.wait([dripping])
        peer.close()
        await stream.aclose()

    run(loop, main())


# --- FrameProtocol --------------------------------------------------------------------------------


class Recorder(FrameProtocol):
    def __init__(self, **limits: float) -> None:
        super().__init__(**limits)  # type: ignore[arg-type]
        self.received: list[Any] = []
        self.lost = asyncio.get_running_loop().create_future()

    def messages_received(self, messages: list[Any]) -> None:
        self.received += messages

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def recorder(**limits: float) -> tuple[Recorder, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: Recorder(**limits), sock=ours)
    return protocol, theirs


@LOOPS
def test_protocol_ends_a_connection_whose_peer_is_too_slow(loop: str) -> None:
    async def main() -> None:
        frame = U4.encode(b"hello")
        for begun, expected in ((0, IdleTimeoutError), (3, MessageTimeoutError)):
            protocol, peer = await recorder(message_timeout=LIMIT, idle_timeout=LIMIT)
            with peer:
                peer.sendall(frame + frame[:begun])
                assert type(await protocol.lost) is expected
                assert protocol.received == [b"hello"]
                assert peer.recv(10) == b""

    run(loop, main())


@LOOPS
def test_protocol_does_not_count_time_in_which_reading_is_paused(loop: str) -> None:
    async def main() -> None:
        frame = U4.encode(b"hello")
        protocol, peer = await recorder(message_timeout=LIMIT, idle_timeout=LIMIT)
        with peer:
            for begun in (0, 3):
                peer.sendall(frame[:begun])
                await pending(protocol, begun)
                protocol.transport.pause_reading()
                await asyncio.sleep(2 * LIMIT)
                assert not protocol.lost.done()
                protocol.transport.resume_reading()
                peer.sendall(frame[begun:])
            assert type(await protocol.lost) is IdleTimeoutError
            assert protocol.received == [b"hello"] * 2

    run(loop, main())


@pytest.mark.parametrize("name", ["message_timeout", "idle_timeout"])
def test_protocol_refuses_a_limit_that_is_not_positive(name: str) -> None:
    for seconds in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=name):
            FrameProtocol(**{name: seconds})  # type: ignore[arg-type]


# --- the end --------------------------------------------------------------------------------------


@LOOPS
def test_recv_reports_a_clean_end_as_on_a_blocking_socket(loop: str) -> None:
    async def main() -> str:
        stream, peer = await wrapped()
        peer.close()
        with pytest.raises(EOFError) as caught:
            await stream.recv()
        await stream.aclose()
        return str(caught.value)

    ours, theirs = socket.socketpair()
    theirs.close()
    with framecodec.FrameSocket(ours) as conn, pytest.raises(EOFError) as caught:
        conn.recv()
    assert run(loop, main()) == str(caught.value)
