"""The library's own servers and clients, with a `ChunkingProxy` between them."""

from __future__ import annotations

import asyncio
import contextlib
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import framecodec
import framecodec.asyncio
import framecodec.socketserver
from framecodec import Codec, formats
from pytest_framecodec import Proxies

TIMEOUT = 20.0  # seconds; no wait of a test that passes needs them

CODECS = {
    "uint": Codec.uint(4),
    "digits with a trailer": Codec.digits(4, magic=b"MM", trailer=b"\r\n"),
    "headers": formats.lsp,
    "custom": formats.multiprocessing,
}
MESSAGES = [b"hello", b"", b"\r\n\r\n", bytes(range(256)) * 8]


@contextlib.contextmanager
def serve_by_threads(codec: Codec) -> Iterator[Any]:
    def answer() -> None:
        for conn in listener:
            with conn:
                conn.settimeout(TIMEOUT)
                for message in conn:
                    conn.send(message)

    with framecodec.listen(("127.0.0.1", 0), codec) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listener.address
        finally:
            listener.close()
            thread.join(TIMEOUT)


@contextlib.contextmanager
def serve_by_socketserver(codec: Codec) -> Iterator[Any]:
    class Handler(framecodec.socketserver.FrameRequestHandler):
        def handle_message(self, message: Any) -> Any:
            return message

    Handler.codec = codec
    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        server.timeout = TIMEOUT
        thread.start()
        try:
            yield server.server_address
        finally:
            thread.join(TIMEOUT)


@contextlib.contextmanager
def serve_by_asyncio(codec: Codec) -> Iterator[Any]:
    addresses: list[Any] = []
    started, stopped = threading.Event(), threading.Event()

    async def answer(stream: framecodec.asyncio.FrameStream) -> None:
        async for message in stream:
            await stream.send(message)

    async def main() -> None:
        server = await framecodec.asyncio.start_server(answer, "127.0.0.1", 0, codec=codec)
        addresses.append(server.sockets[0].getsockname())
        started.set()
        await asyncio.get_running_loop().run_in_executor(None, stopped.wait, TIMEOUT)
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert started.wait(TIMEOUT)
        yield addresses[0]
    finally:
        stopped.set()
        thread.join(TIMEOUT)


@contextlib.contextmanager
def serve(codec: Codec) -> Iterator[Any]:
    def handler(conn: framecodec.FrameSocket) -> None:
        for message in conn:
            conn.send(message)

    with framecodec.serve(handler, ("127.0.0.1", 0), codec=codec) as server:
        yield server.address


@contextlib.contextmanager
def serve_messages(codec: Codec) -> Iterator[Any]:
    def handle(conn: Any, messages: list[Any]) -> list[Any]:
        return messages

    with framecodec.serve_messages(handle, ("127.0.0.1", 0), codec=codec) as server:
        yield server.address


SERVERS = {
    "serve": serve,
    "serve_messages": serve_messages,
    "threads": serve_by_threads,
    "socketserver": serve_by_socketserver,
    "asyncio": serve_by_asyncio,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_answers_through_a_proxy(chunking_proxy: Proxies, server: str, name: str) -> None:
    codec = CODECS[name]
    with SERVERS[server](codec) as address:
        proxy = chunking_proxy(address, sizes=(1, 5))
        with framecodec.connect(proxy.address, codec, timeout=TIMEOUT) as conn:
            conn.send_many(MESSAGES)
            assert [conn.recv() for _ in MESSAGES] == MESSAGES
            for message in MESSAGES:
                conn.send(message)
                assert conn.recv() == message


@pytest.mark.parametrize("name", CODECS)
def test_an_asyncio_client_reads_through_a_proxy(chunking_proxy: Proxies, name: str) -> None:
    codec = CODECS[name]

    async def ask(host: str, port: int) -> list[Any]:
        async with asyncio.timeout(TIMEOUT):
            async with await framecodec.asyncio.open_connection(host, port, codec=codec) as stream:
                await stream.send_many(MESSAGES)
                return [await stream.recv() for _ in MESSAGES]

    with serve_by_threads(codec) as address:
        proxy = chunking_proxy(address, sizes=(1, 5))
        assert asyncio.run(ask(*proxy.address)) == MESSAGES
