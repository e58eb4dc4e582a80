"""The peer's time in an event loop: what counts for `message_timeout` and `idle_timeout`.

Tests of time that must not count set the clock of the limits: no machine is too slow for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import framecodec
from framecodec import Codec, IdleTimeoutError, MessageTimeoutError
from framecodec._inbox import Inbox
from framecodec.asyncio import FrameProtocol, FrameStream, time_limits
from tests.helpers.event_loops import LOOPS, run, tls_contexts, wrapped

U4 = Codec.uint(4)
SHORT = 0.15  # seconds that a test lets pass
LONG = 1000.0  # seconds that no test lets pass, except by the clock


class Clock:
    """The clock of the time limits, which a test can set forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = time_limits.monotonic
        self._added = 0.0
        monkeypatch.setattr(time_limits, "monotonic", self.now)

    def now(self) -> float:
        return self._real() + self._added

    def pass_limit(self) -> None:
        """Let more seconds pass than the limits allow."""
        self._added += 2 * LONG


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def fire(protocol: Any) -> None:
    """Let the timer fire now."""
    timer = protocol._peer_timer
    if timer._handle is not None:
        timer._handle.cancel()
    timer._on_timer()


async def iterations(count: int = 10) -> None:
    """Let the loop run that many iterations."""
    for _ in range(count):
        await asyncio.sleep(0)


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


async def receive_by(stream: FrameStream, way: str) -> Any:
    if way == "iteration":
        return await anext(aiter(stream))
    return await (stream.recv() if way == "recv" else stream.recv_many())


WAYS = pytest.mark.parametrize("way", ["recv", "recv_many", "iteration"])


# --- FrameStream ----------------------------------------------------------------------------------


@LOOPS
@WAYS
def test_recv_in_slices_reaches_the_idle_timeout(loop: str, way: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(idle_timeout=SHORT)

        async def receive_in_slices() -> None:
            for _ in range(200):
                await given_up(lambda: receive_by(stream, way), SHORT / 3)

        with peer, pytest.raises(IdleTimeoutError):
            await receive_in_slices()
        with pytest.raises(IdleTimeoutError):
            await stream.recv()
        await stream.aclose()

    run(loop, main())


@LOOPS
def test_a_message_that_begins_moves_the_end_of_a_longer_limit(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(message_timeout=SHORT, idle_timeout=60)
        with peer:
            receiving = asyncio.create_task(stream.recv())
            await asyncio.sleep(0.01)
            peer.sendall(b"\0\0")
            with pytest.raises(MessageTimeoutError):
                await asyncio.wait_for(receiving, 20)
        await stream.aclose()

    run(loop, main())


@LOOPS
@WAYS
def test_recv_in_slices_reaches_the_message_timeout(loop: str, way: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(message_timeout=SHORT)

        async def receive_in_slices() -> None:
            for _ in range(200):
                await given_up(lambda: receive_by(stream, way), SHORT / 3)

        with peer:
            peer.sendall(b"\0\0")
            with pytest.raises(MessageTimeoutError):
                await receive_in_slices()
        await stream.aclose()

    run(loop, main())


@LOOPS
@WAYS
@pytest.mark.parametrize("begun", [0, 3], ids=["between messages", "inside a message"])
def test_recv_does_not_count_time_between_its_calls(
    loop: str, way: str, begun: int, clock: Clock
) -> None:
    frame = U4.encode(b"hello")

    async def main() -> None:
        stream, peer = await wrapped(message_timeout=LONG, idle_timeout=LONG)
        with peer:
            for _ in range(2):
                peer.sendall(frame[:begun])
                await pending(stream._protocol, begun)
                clock.pass_limit()
                await given_up(lambda: receive_by(stream, way), 0.001)
                clock.pass_limit()
                receiving = asyncio.ensure_future(receive_by(stream, way))
                await iterations()
                fire(stream._protocol)
                await iterations()
                peer.sendall(frame[begun:])
                assert await receiving in (b"hello", [b"hello"])
            peer.sendall(frame[:begun])
            await pending(stream._protocol, begun)
            receiving = asyncio.ensure_future(receive_by(stream, way))
            await iterations()
            clock.pass_limit()  # this time counts
            fire(stream._protocol)
            with pytest.raises(MessageTimeoutError if begun else IdleTimeoutError):
                await receiving
            await stream.aclose()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("pause_first", [False, True])
@pytest.mark.parametrize("begun", [0, 3], ids=["between messages", "inside a message"])
def test_recv_does_not_count_time_in_which_reading_is_paused(
    loop: str, begun: int, pause_first: bool, clock: Clock
) -> None:
    frame = U4.encode(b"hello")

    async def main() -> None:
        stream, peer = await wrapped(message_timeout=LONG, idle_timeout=LONG)
        with peer:
            peer.sendall(frame[:begun])
            await pending(stream._protocol, begun)
            if pause_first:
                stream.transport.pause_reading()
            receiving = asyncio.create_task(stream.recv())
            await iterations()
            if not pause_first:
                stream.transport.pause_reading()
            clock.pass_limit()
            fire(stream._protocol)
            await iterations()
            stream.transport.resume_reading()
            fire(stream._protocol)
            await iterations()
            assert not receiving.done()
            peer.sendall(frame[begun:])
            assert await receiving == b"hello"
            await stream.aclose()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_recv_returns_the_message_that_the_kernel_held_when_its_time_was_over(
    loop: str, encrypted: bool, clock: Clock
) -> None:
    """Other work holds the loop up for longer than the limit."""
    message = bytes(150_000)
    frame = U4.encode(message)

    async def main() -> None:
        server_side, client_side = tls_contexts()
        begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        received: list[Any] = []

        async def handler(stream: FrameStream) -> None:
            receiving = asyncio.create_task(stream.recv())
            await pending(stream._protocol, 6)
            begun.set_result(stream._protocol)
            received.append(await receiving)

        server = await framecodec.asyncio.start_server(
            handler,
            "127.0.0.1",
            0,
            message_timeout=LONG,
            ssl=server_side if encrypted else None,
        )
        async with await framecodec.asyncio.open_connection(
            *server.sockets[0].getsockname(),
            ssl=client_side if encrypted else None,
            server_hostname="localhost" if encrypted else None,
        ) as client:
            client.transport.write(frame[:6])
            protocol = await begun
            client.transport.write(frame[6:])
            # The kernel has the rest before the loop can read it: no other iteration is between.
            clock.pass_limit()
            fire(protocol)
            with pytest.raises(EOFError):
                await client.recv()
        assert received == [message]
        server.close()

    run(loop, main())


@LOOPS
def test_a_limit_that_was_exceeded_stays_the_reason_where_a_bad_frame_follows(
    loop: str, clock: Clock
) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.uint(4, max_message_size=10), idle_timeout=LONG)
        with peer:
            receiving = asyncio.create_task(stream.recv())
            await iterations()
            clock.pass_limit()
            fire(stream._protocol)
            with pytest.raises(IdleTimeoutError):
                await receiving
            stream._protocol.data_received(b"\xff" * 4)  # the transport had read it already
            with pytest.raises(IdleTimeoutError):
                await stream.recv()
            await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_returns_a_message_that_began_while_the_loop_was_held_up(
    loop: str, clock: Clock
) -> None:
    async def main() -> None:
        stream, peer = await wrapped(idle_timeout=LONG)
        with peer:
            receiving = asyncio.create_task(stream.recv())
            await iterations()
            peer.sendall(U4.encode(b"hello"))
            clock.pass_limit()
            fire(stream._protocol)
            assert await receiving == b"hello"
            await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_ends_a_peer_that_sends_all_the_time_and_too_slowly(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(message_timeout=SHORT)
        peer.setblocking(False)
        here = asyncio.get_running_loop()

        async def drip() -> None:
            await here.sock_sendall(peer, (1_000_000).to_bytes(4, "big"))
            while True:
                await here.sock_sendall(peer, b"x")
                await asyncio.sleep(SHORT / 20)

        dripping = asyncio.create_task(drip())
        with pytest.raises(MessageTimeoutError) as caught:
            await stream.recv()
        assert caught.value.timeout == SHORT
        dripping.cancel()
        await asyncio.wait([dripping])
        peer.close()
        await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_ends_a_peer_that_sends_a_byte_in_each_iteration(loop: str, clock: Clock) -> None:
    """Also where an iteration takes long: a read that took all that the kernel held shows it."""

    async def main() -> None:
        stream, peer = await wrapped(message_timeout=LONG)
        with peer:
            peer.sendall((1_000_000).to_bytes(4, "big"))
            receiving = asyncio.create_task(stream.recv())
            await pending(stream._protocol, 4)
            clock.pass_limit()
            fire(stream._protocol)
            for _ in range(3):
                peer.send(b"x")
                await iterations(2)  # one to receive it
            assert receiving.done()
            with pytest.raises(MessageTimeoutError):
                await receiving
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


async def recorder(limit: float) -> tuple[Recorder, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: Recorder(message_timeout=limit, idle_timeout=limit), sock=ours
    )
    return protocol, theirs


@LOOPS
@pytest.mark.parametrize(("begun", "expected"), [(0, IdleTimeoutError), (3, MessageTimeoutError)])
def test_protocol_ends_a_connection_whose_peer_is_too_slow(
    loop: str, begun: int, expected: type[Exception]
) -> None:
    async def main() -> None:
        frame = U4.encode(b"hello")
        protocol, peer = await recorder(SHORT)
        with peer:
            peer.sendall(frame + frame[:begun])
            assert type(await protocol.lost) is expected
            assert protocol.received == [b"hello"]
            assert peer.recv(10) == b""

    run(loop, main())


@LOOPS
@pytest.mark.parametrize(("begun", "expected"), [(0, IdleTimeoutError), (3, MessageTimeoutError)])
def test_protocol_does_not_count_time_in_which_reading_is_paused(
    loop: str, begun: int, expected: type[Exception], clock: Clock
) -> None:
    async def main() -> None:
        frame = U4.encode(b"hello")
        protocol, peer = await recorder(LONG)
        with peer:
            for _ in range(2):
                peer.sendall(frame[:begun])
                await pending(protocol, begun)
                protocol.transport.pause_reading()
                clock.pass_limit()
                protocol.transport.resume_reading()
                fire(protocol)
                await iterations()
                assert not protocol.lost.done()
                peer.sendall(frame[begun:])
                while not protocol.received:
                    await asyncio.sleep(0.001)
                assert protocol.received.pop() == b"hello"
            peer.sendall(frame[:begun])
            await pending(protocol, begun)
            clock.pass_limit()
            fire(protocol)
            assert type(await protocol.lost) is expected

    run(loop, main())


@LOOPS
def test_protocol_does_not_count_time_after_its_own_close(loop: str, clock: Clock) -> None:
    async def main() -> None:
        protocol, peer = await recorder(LONG)
        message = bytes(3_000_000)
        with peer:
            protocol.send(message)
            protocol.transport.close()
            clock.pass_limit()
            fire(protocol)
            await iterations()
            received, buffer = 0, bytearray(1 << 16)
            while count := await asyncio.to_thread(peer.recv_into, buffer):
                received += count
            assert received == 4 + len(message)
            assert await protocol.lost is None

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


def test_a_timer_without_a_connection_counts_no_time(clock: Clock) -> None:
    ended: list[BaseException] = []
    inbox = Inbox(U4, idle_timeout=LONG)
    timer = time_limits.PeerTimer(inbox, ended.append, receiving=True)
    timer.stop_waiting(has_message=False)
    timer.set_reading(False)
    timer.note_arrival()
    timer.set_reading(True)
    timer.stop()
    clock.pass_limit()
    assert not inbox.is_overdue(clock.now())
    timer._check()  # the connection has ended before its timer fires
    assert ended == []
