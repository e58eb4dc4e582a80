"""`FrameStream.start_tls`: a connection that begins in clear text."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest

from framecodec import Codec
from framecodec.asyncio import FrameStream, start_server
from tests.helpers.event_loops import LOOPS, U4, Contexts, echo, run, served, tls_contexts, wrapped


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
def test_start_tls_begins_when_all_clear_text_has_left(loop: str, contexts: Contexts) -> None:
    large = b"x" * 5_000_000

    async def handler(stream: FrameStream) -> None:
        assert await stream.recv() == b"STARTTLS"
        sending = asyncio.create_task(stream.send(large))
        while not stream._protocol._sending.batch.paused:
            await asyncio.sleep(0)
        upgrading = asyncio.create_task(stream.start_tls(contexts[0]))
        await asyncio.sleep(0.01)
        may_read.set()
        await asyncio.gather(sending, upgrading)
        await echo(stream)

    async def client(stream: FrameStream) -> None:
        await stream.send(b"STARTTLS")
        await may_read.wait()
        assert await stream.recv() == large
        await stream.start_tls(contexts[1], server_hostname="localhost")
        await stream.send(b"secret")
        assert await stream.recv() == b"secret"

    may_read = asyncio.Event()
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


PROXY = Codec.delimiter(b"\r\n", max_message_size=105)
"""Version 1 of the PROXY protocol: one line."""


@LOOPS
@pytest.mark.parametrize("size", [1, 2, 10, None], ids=lambda size: f"first {size}")
def test_start_tls_after_a_proxy_header_and_the_hello_in_one_segment(
    loop: str, contexts: Contexts, size: int | None
) -> None:
    async def handler(stream: FrameStream) -> None:
        assert await stream.recv() == b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 6000"
        stream.switch(U4)
        await stream.start_tls(contexts[0])
        await echo(stream)

    def client(address: tuple[str, int]) -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = contexts[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        with socket.create_connection(address, 10) as sock:
            sock.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 6000\r\n" + hello[:size])
            if size is not None:
                time.sleep(0.05)
                sock.sendall(hello[size:])
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(1 << 16))
            tls.write(U4.encode(b"hello"))
            sock.sendall(outgoing.read())
            while True:
                try:
                    return tls.read(100)
                except ssl.SSLWantReadError:
                    incoming.write(sock.recv(1 << 16))

    async def main() -> None:
        async with start_server(handler, "127.0.0.1", 0, codec=PROXY) as server:
            assert await asyncio.to_thread(client, server.address) == U4.encode(b"hello")

    run(loop, main())


@LOOPS
def test_start_tls_takes_a_hello_that_the_codec_of_the_header_refuses(
    loop: str, contexts: Contexts
) -> None:
    """Version 2 of the PROXY protocol has a magic, which the hello lacks."""
    header = Codec.uint(2, magic=b"\r\n\r\n\0\r\nQUIT\n", length_offset=14)

    async def main() -> None:
        stream, peer = await wrapped(header)
        peer.sendall(header.encode(b"\x21\x11" + bytes(12)) + b"\x16\x03\x01\0\x05wrong")
        assert await stream.recv() == b"\x21\x11" + bytes(12)
        with pytest.raises(ssl.SSLError):
            await stream.start_tls(contexts[0], server_side=True)
        await asyncio.wait_for(stream.aclose(), 5)
        peer.close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("iterations", range(1, 4))
def test_start_tls_that_is_cancelled_at_once_drops_the_hello(
    loop: str, iterations: int, contexts: Contexts
) -> None:
    async def main() -> None:
        outgoing = ssl.MemoryBIO()
        tls = contexts[1].wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        stream, peer = await wrapped()
        with peer:
            peer.sendall(U4.encode(b"first") + outgoing.read())
            assert await stream.recv() == b"first"
            upgrading = asyncio.create_task(stream.start_tls(contexts[0], server_side=True))
            for _ in range(iterations):
                await asyncio.sleep(0)
            upgrading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upgrading
            with pytest.raises(ConnectionError):
                await stream.send(b"in clear text")
            await stream.aclose()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("server_side", [False, True])
def test_start_tls_refuses_clear_text_and_leaves_it_unread(
    loop: str, contexts: Contexts, server_side: bool
) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        # A client speaks first in TLS: what its server has sent before is no handshake.
        data = U4.encode(b"injected") if server_side else b"\x16\x03\x01\0" * 3
        peer.sendall(U4.encode(b"go") + data)
        assert await stream.recv() == b"go"
        with pytest.raises(RuntimeError, match="clear text"):
            await stream.start_tls(contexts[1 - server_side], server_side=server_side)
        if server_side:
            assert await stream.recv() == b"injected"
        await stream.aclose()
        peer.close()

    run(loop, main())
