"""The end of a connection loses no answer: failed sends, and closes that linger."""

# ruff: noqa: SIM117 (a server and its clients are two levels)

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from typing import Any

import pytest

import framecodec
from framecodec import Codec, FrameSocket
from framecodec.asyncio import FrameProtocol, FrameStream, open_connection, start_server
from tests.helpers.event_loops import LOOPS, run, tls_contexts
from tests.helpers.servers import LOOPBACK, PATIENCE, dial

CODEC = Codec.uint(4)


def answer_and_break(far: socket.socket, answers: list[bytes]) -> None:
    """Send answers, then close with unread bytes: the kernel resets the connection."""
    far.settimeout(PATIENCE)
    far.recv(1)  # more are there
    far.sendall(CODEC.encode_many(answers))
    far.close()


ANSWERS = [[b"why"], [b"why", b"x" * 60_000], [b"y" * 100_000]]


@pytest.mark.parametrize("answers", ANSWERS, ids=len)
def test_recv_gets_an_answer_that_came_before_a_send_failed(answers: list[bytes]) -> None:
    with socket.create_server(LOOPBACK) as server:
        with dial(server.getsockname(), codec=CODEC) as conn:
            conn.send(b"request")
            answer_and_break(server.accept()[0], answers)
            with pytest.raises(ConnectionError):  # noqa: PT012
                for _ in range(100):
                    conn.send(b"x")
                    time.sleep(0.001)
            assert [conn.recv() for _ in answers] == answers
            with pytest.raises((EOFError, ConnectionError)):
                conn.recv()


@LOOPS
@pytest.mark.parametrize("answers", ANSWERS, ids=len)
def test_a_stream_gets_an_answer_that_came_before_a_send_failed(
    loop: str, answers: list[bytes]
) -> None:
    async def main() -> None:
        with socket.create_server(LOOPBACK) as server:
            stream = await open_connection(server.getsockname(), CODEC)
            await stream.send(b"request")
            await stream.drain()
            answer_and_break(server.accept()[0], answers)
            # Without another iteration of the loop, which would read.
            stream._sending.put(b"x")
            stream._sending.flush()
            stream._sending.put(b"x")
            stream._sending.flush()
            assert [await stream.recv() for _ in answers] == answers
            for _ in range(2):
                with pytest.raises((EOFError, ConnectionError)):
                    await stream.recv()
            await stream.aclose()

    run(loop, main())


@LOOPS
def test_a_protocol_gets_an_answer_that_came_before_a_send_failed(loop: str) -> None:
    async def main() -> None:
        events: list[Any] = []

        class Protocol(FrameProtocol):
            def messages_received(self, messages: list[bytes]) -> None:
                events.extend(messages)
                self.send(b"one more")

            def connection_lost(self, exc: Any) -> None:
                events.append(isinstance(exc, ConnectionError))

        with socket.create_server(LOOPBACK) as server:
            _, protocol = await asyncio.get_running_loop().create_connection(
                lambda: Protocol(CODEC), *server.getsockname()
            )
            protocol.send(b"request")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            answer_and_break(server.accept()[0], [b"a", b"b"])
            for _ in range(2):
                protocol.send(b"x")
                protocol._sending.flush()
            while True not in events:
                await asyncio.sleep(0.001)
        assert events == [b"a", b"b", True]

    run(loop, main())


# --- a close that lingers -------------------------------------------------------------------------


def flood_and_receive(address: Any, outcome: list[Any], *, ends: bool) -> None:
    """Send much more than the server reads, then receive its answer."""
    with socket.create_connection(address) as sock:
        sock.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            for _ in range(200):
                sock.sendall(bytes(50_000))
            if ends:
                sock.shutdown(socket.SHUT_WR)
        splitter = CODEC.splitter()
        try:
            while not outcome and (data := sock.recv(1000)):
                outcome += splitter.feed(data)
        except OSError as error:
            outcome.append(error)


@pytest.mark.parametrize("ends", [True, False])
def test_close_with_linger_does_not_lose_the_last_message(ends: bool) -> None:
    outcome: list[Any] = []
    with framecodec.listen(LOOPBACK, CODEC) as listener:
        client = threading.Thread(
            target=flood_and_receive, args=(listener.address, outcome), kwargs={"ends": ends}
        )
        client.start()
        conn = listener.accept()
        conn.socket.recv(1)
        time.sleep(0.05)  # the client's buffers are full
        conn.send(b"enough")
        conn.close(linger=PATIENCE)
        assert conn.closed
        client.join(PATIENCE)
    assert outcome == [b"enough"]


def test_close_with_linger_ends_in_bounded_time_and_sends_what_is_unsent() -> None:
    near, far = socket.socketpair()
    conn = FrameSocket(near, CODEC)
    conn.settimeout(0)
    message = bytes(3_000_000)
    with pytest.raises(BlockingIOError):
        conn.send(message)
    received: list[Any] = []

    def receive() -> None:
        with FrameSocket(far, CODEC) as other:
            received.extend(other)
            received.append("end")

    thread = threading.Thread(target=receive)
    thread.start()
    conn.close(linger=PATIENCE)
    thread.join(PATIENCE)
    assert received == [message, "end"]
    # A peer that never ends: the time is over.
    near, far = socket.socketpair()
    with far:
        FrameSocket(near).close(linger=0.02)
        assert near.fileno() == -1
    near, far = socket.socketpair()
    with far, FrameSocket(near) as conn, pytest.raises(ValueError, match="out of range"):
        conn.close(linger=-1)


def test_close_with_linger_wakes_a_thread_that_receives() -> None:
    near, far = socket.socketpair()
    conn = FrameSocket(near)
    failed: list[Any] = []

    def receive() -> None:
        try:
            conn.recv()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    time.sleep(0.02)
    with far:
        conn.close(linger=PATIENCE)
        thread.join(PATIENCE)
    assert isinstance(failed[0], ConnectionAbortedError)


def test_close_with_linger_wakes_a_thread_that_sends() -> None:
    near, far = socket.socketpair()
    conn = FrameSocket(near)
    failed: list[Any] = []

    def send() -> None:
        try:
            conn.send(bytes(10_000_000))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    with far:
        far.recv(1)  # the thread has begun
        time.sleep(0.02)
        conn.close(linger=PATIENCE)
        thread.join(PATIENCE)
    assert isinstance(failed[0], ConnectionAbortedError)


def test_close_with_linger_over_tls() -> None:
    server_context, client_context = tls_contexts()
    with framecodec.listen(LOOPBACK, CODEC, ssl=server_context) as listener:

        def serve() -> None:
            conn = listener.accept()
            conn.recv()
            conn.send(b"enough")
            conn.close(linger=PATIENCE)

        thread = threading.Thread(target=serve)
        thread.start()
        with dial(
            listener.address, codec=CODEC, ssl=client_context, server_hostname="localhost"
        ) as conn:
            conn.send_many([b"x", bytes(1_000_000)])
            assert conn.recv() == b"enough"
            with pytest.raises(EOFError):
                conn.recv()
        thread.join(PATIENCE)


@LOOPS
@pytest.mark.parametrize("ends", [True, False])
def test_aclose_with_linger_does_not_lose_the_last_message(loop: str, ends: bool) -> None:
    outcome: list[Any] = []

    async def main() -> None:
        async def handler(stream: FrameStream) -> None:
            await asyncio.sleep(0.05)  # the client's buffers are full, and the stream's too
            await stream.send(b"enough")
            await stream.aclose(linger=PATIENCE)

        async with start_server(handler, *LOOPBACK, codec=CODEC) as server:
            client = threading.Thread(
                target=flood_and_receive, args=(server.address, outcome), kwargs={"ends": ends}
            )
            client.start()
            while client.is_alive():
                await asyncio.sleep(0.005)

    run(loop, main())
    assert outcome == [b"enough"]


@LOOPS
def test_aclose_with_linger_ends_in_bounded_time(loop: str) -> None:
    async def main() -> None:
        with socket.create_server(LOOPBACK) as server:
            stream = await open_connection(server.getsockname(), CODEC)
            with server.accept()[0] as far:
                receiving = asyncio.create_task(stream.recv())
                await asyncio.sleep(0)
                await stream.aclose(linger=0.02)
                with pytest.raises(ConnectionAbortedError):
                    await receiving
                far.settimeout(PATIENCE)
                assert far.recv(10) == b""
            await stream.aclose(linger=1)  # again: nothing happens

    run(loop, main())


@LOOPS
def test_aclose_with_linger_over_tls_is_a_close(loop: str) -> None:
    server_context, client_context = tls_contexts()

    async def main() -> None:
        async def handler(stream: FrameStream) -> None:
            await stream.recv()
            await stream.send(b"enough")
            await stream.aclose(linger=PATIENCE)

        async with start_server(handler, *LOOPBACK, codec=CODEC, ssl=server_context) as server:
            async with open_connection(
                server.address, CODEC, ssl=client_context, server_hostname="localhost"
            ) as stream:
                await stream.send(b"x")
                assert await stream.recv() == b"enough"
                with pytest.raises((EOFError, ssl.SSLError)):
                    await stream.recv()

    run(loop, main())
