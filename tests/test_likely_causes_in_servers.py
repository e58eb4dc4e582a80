"""The likely cause is what a server logs first, and what every other kind of connection raises."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import socket
import socketserver
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import framecodec
import framecodec.anyio
import framecodec.asyncio
from framecodec import Codec, FrameError, FramePipe
from framecodec.socketserver import FrameRequestHandler
from tests.helpers.event_loops import LOOPS, run
from tests.helpers.servers import LOOPBACK, PATIENCE, until
from tests.test_likely_causes import TABLE


def send_all(address: Any, stream: bytes) -> None:
    """Send a stream and its end, and wait for the end of the other side."""
    with socket.create_connection(address, PATIENCE) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.sendall(stream)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1000):
                pass
        except OSError:  # the server has reset the connection
            pass


class Warnings:
    """What the logger of the package has logged."""

    def __init__(self, caplog: Any) -> None:
        self.caplog = caplog
        caplog.set_level(logging.WARNING, "framecodec")

    def check(self, cause: str) -> None:
        """Check that there is one warning, which names the cause and the peer; forget it."""
        until(lambda: self.caplog.records)
        (record,) = self.caplog.records
        assert record.levelno == logging.WARNING
        text = record.getMessage()
        assert f": {cause}" in text
        assert text.startswith("the connection from 127.0.0.1:")
        assert record.exc_info is None
        self.caplog.clear()


@pytest.fixture
def warnings(caplog: Any) -> Iterator[Warnings]:
    yield Warnings(caplog)
    assert not caplog.records


def take_all(conn: Any) -> None:
    """Receive until the end; for a blocking server."""
    for _ in conn:
        pass


def test_serve_logs_the_likely_cause(warnings: Warnings) -> None:
    for cause, codec, stream in TABLE:
        with framecodec.serve(take_all, LOOPBACK, codec) as server:
            send_all(server.address, stream)
            warnings.check(cause)


def test_serve_messages_logs_the_likely_cause(warnings: Warnings) -> None:
    for cause, codec, stream in TABLE:
        with framecodec.serve_messages(lambda conn, messages: None, LOOPBACK, codec) as server:
            send_all(server.address, stream)
            warnings.check(cause)


@LOOPS
def test_frame_server_logs_the_likely_cause(warnings: Warnings, loop: str) -> None:
    async def take(stream: framecodec.asyncio.FrameStream[Any]) -> None:
        async for _ in stream:
            pass

    async def main() -> None:
        for cause, codec, stream in TABLE:
            async with framecodec.asyncio.start_server(take, LOOPBACK, codec) as server:
                await asyncio.to_thread(send_all, server.address, stream)
            warnings.check(cause)

    run(loop, main())


@LOOPS
def test_frame_protocol_gets_the_likely_cause(loop: str) -> None:
    async def main() -> None:
        for cause, codec, stream in TABLE:
            error = asyncio.get_running_loop().create_future()

            class Protocol(framecodec.asyncio.FrameProtocol):
                def connection_lost(self, exc: Exception | None, error: Any = error) -> None:
                    error.set_result(exc)

            ours, theirs = socket.socketpair()
            with theirs:
                theirs.sendall(stream)
                theirs.shutdown(socket.SHUT_WR)
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda kind=Protocol, codec=codec: kind(codec), ours
                )
                assert str(await error).startswith(cause)

    run(loop, main())


def test_frame_pipe_names_the_likely_cause() -> None:
    for cause, codec, stream in TABLE:
        reader, writer = os.pipe()
        os.write(writer, stream)
        os.close(writer)
        for file in (os.fdopen(reader, "rb", 0), io.BytesIO(stream)):
            with FramePipe(file, codec=codec) as conn, pytest.raises(FrameError) as caught:
                conn.recv()
            assert str(caught.value).startswith(cause)


@LOOPS
def test_asyncio_pipes_name_the_likely_cause(loop: str) -> None:
    async def main() -> None:
        for cause, codec, stream in TABLE:
            reader, writer = os.pipe()
            os.write(writer, stream)
            os.close(writer)
            file = os.fdopen(reader, "rb", 0)
            async with framecodec.asyncio.open_pipes(file, codec=codec) as conn:
                with pytest.raises(FrameError) as caught:
                    await conn.recv()
            assert str(caught.value).startswith(cause)

    run(loop, main())


def test_anyio_streams_name_the_likely_cause() -> None:
    async def main() -> None:
        for cause, codec, stream in TABLE:
            ours, theirs = socket.socketpair()
            with theirs:
                theirs.sendall(stream)
                theirs.shutdown(socket.SHUT_WR)
                under = await anyio.abc.SocketStream.from_socket(ours)
                async with framecodec.anyio.FrameStream(under, codec) as conn:
                    with pytest.raises(FrameError) as caught:
                        await conn.receive()
                assert str(caught.value).startswith(cause)

    anyio.run(main)


def test_frame_request_handler_raises_the_likely_cause() -> None:
    errors: list[Exception] = []

    class Handler(FrameRequestHandler):
        codec = Codec.uint(4)

        def handle(self) -> None:
            try:
                super().handle()
            except FrameError as error:
                errors.append(error)

        def handle_message(self, message: bytes) -> None:
            return None

    for cause, codec, stream in TABLE:
        Handler.codec = codec
        with socketserver.TCPServer(LOOPBACK, Handler) as server:
            server.timeout = PATIENCE
            with socket.create_connection(server.server_address, PATIENCE) as sock:
                sock.sendall(stream)
                sock.shutdown(socket.SHUT_WR)
                server.handle_request()
        (error,) = errors
        assert str(error).startswith(cause)
        errors.clear()


# --- nothing at all has come from the peer --------------------------------------------------------


def notes_of(error: BaseException) -> str:
    return "".join(getattr(error, "__notes__", ()))


@pytest.mark.parametrize("received", [b"", b"\1a"])
def test_an_end_or_a_time_out_before_the_first_byte_has_a_note(received: bytes) -> None:
    left, right = socket.socketpair()
    with right, framecodec.FrameSocket(left, Codec.uint(1)) as conn:
        right.sendall(received)
        conn.settimeout(0.01)
        for _ in received[1:]:
            conn.recv()
        with pytest.raises(TimeoutError) as late:
            conn.recv()
        right.close()
        with pytest.raises(EOFError) as ended:
            conn.recv()
        for error in (late.value, ended.value):
            assert ("check that both sides use the same codec" in notes_of(error)) is (not received)
            assert "codec" not in str(error)


@LOOPS
@pytest.mark.parametrize("received", [b"", b"\1a"])
def test_an_end_of_a_stream_before_the_first_byte_has_a_note(received: bytes, loop: str) -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        right.sendall(received)
        right.close()
        async with framecodec.asyncio.open_connection(sock=left, codec=Codec.uint(1)) as stream:
            for _ in received[1:]:
                await stream.recv()
            with pytest.raises(EOFError) as ended:
                await stream.recv()
            found = "check that both sides use the same codec" in notes_of(ended.value)
            assert found is (not received)

    run(loop, main())
