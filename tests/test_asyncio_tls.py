"""`FrameStream.start_tls`: a connection that begins in clear text."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from framecodec.asyncio import FrameStream
from tests.helpers.event_loops import LOOPS, Contexts, echo, run, served, tls_contexts, wrapped


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    """The server's and the client's."""
    return tls_contexts()


@LOOPS
def test_start_tls_encrypts_a_connection(loop: str, contexts: Contexts) -> None:
    async def handler(stream: FrameStream) -> None:
        assert await stream.recv() == b"STARTTLS"
        await stream.send(b"go")
        await stream.start_tls(contexts[0])
        await echo(stream)

    async def client(stream: FrameStream) -> None:
        await stream.send(b"STARTTLS")
        assert await stream.recv() == b"go"
        await stream.start_tls(contexts[1], server_hostname="localhost")
        assert stream.get_extra_info("ssl_object") is not None
        await stream.send(b"secret")
        assert await stream.recv() == b"secret"

    run(loop, served(handler, client))


@LOOPS
def test_start_tls_holds_messages_of_other_tasks_until_it_is_done(
    loop: str, contexts: Contexts
) -> None:
    async def handler(stream: FrameStream) -> None:
        assert await stream.recv() == b"STARTTLS"
        stream.transport.pause_reading()
        await stream.send(b"go")
        await asyncio.sleep(0.02)  # the client's hello waits
        await stream.start_tls(contexts[0])
        await echo(stream)

    async def client(stream: FrameStream) -> None:
        await stream.send(b"STARTTLS")
        assert await stream.recv() == b"go"

        async def send(message: bytes) -> None:
            await stream.send(message)

        async with asyncio.TaskGroup() as group:
            group.create_task(stream.start_tls(contexts[1], server_hostname="localhost"))
            for number in range(20):
                await asyncio.sleep(0.0005)
                group.create_task(send(b"secret %d" % number))
        assert [await stream.recv() for _ in range(20)] == [
            b"secret %d" % number for number in range(20)
        ]

    run(loop, served(handler, client))


@LOOPS
def test_start_tls_that_fails_or_is_cancelled_ends_the_connection(
    loop: str, contexts: Contexts
) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        peer.sendall(b"HTTP/1.0 400 no\r\n\r\n")
        with pytest.raises((ssl.SSLError, RuntimeError)):
            await stream.start_tls(contexts[1], server_hostname="localhost")
        await asyncio.wait_for(stream.aclose(), 5)
        peer.close()

        stream, peer = await wrapped()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await stream.start_tls(contexts[1], server_hostname="localhost")
        with pytest.raises(ConnectionError):
            await stream.send(b"hello")
        with pytest.raises(ConnectionAbortedError):
            await stream.recv()
        await asyncio.wait_for(stream.aclose(), 5)
        peer.close()

    run(loop, main())
