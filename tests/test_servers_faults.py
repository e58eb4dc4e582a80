"""A client that ends, resets or lies at any byte: the server answers what was whole, and continues.

The servers are `serve`, `serve_messages` with both loops, and `start_server` on both event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import framecodec
import framecodec.asyncio
from framecodec import Codec
from framecodec.serving import _messages_loop_py
from framecodec.serving import messages as messages_module
from tests.helpers.fault_injection import reset
from tests.helpers.servers import LOOPBACK, PATIENCE, until

MESSAGES = [b"a", b"", b"bcd", b"efghij"]
CODECS = {
    "uint": (Codec.uint(2, max_message_size=100), b"\xff\xff"),
    "digits": (Codec.digits(3), b"x12"),
    "magic and check": (
        Codec.uint(1, magic=b"\xaa", check=framecodec.Check("crc8", 1)),
        b"\xaa\1z\0",
    ),
    "lines": (Codec.delimiter(b"\n", max_message_size=20), b"z" * 30),
}


class Running(NamedTuple):
    """A server that runs, its address, and how to end it."""

    address: Any
    connections: Callable[[], Any]
    close: Callable[[], None]


@contextlib.contextmanager
def threads(codec: Codec[Any], _: Any) -> Iterator[Running]:
    def echo(conn: Any) -> None:
        for message in conn:
            conn.send(message)

    with framecodec.serve(echo, LOOPBACK, codec, backlog=1024) as server:
        yield Running(server.address, lambda: server.connections, lambda: server.close(1))


@contextlib.contextmanager
def one_thread(codec: Codec[Any], loop: Any) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages_module, "_loop_module", importlib.import_module(loop))
        with framecodec.serve_messages(lambda conn, messages: messages, LOOPBACK, codec) as server:
            yield Running(server.address, lambda: server.connections, lambda: server.close(1))


@contextlib.contextmanager
def event_loop(codec: Codec[Any], name: str) -> Iterator[Running]:
    factory = None if name == "asyncio" else pytest.importorskip(name).new_event_loop

    async def echo(stream: framecodec.asyncio.FrameStream[Any]) -> None:
        async for message in stream:
            await stream.send(message)

    started = threading.Event()
    box: list[Any] = []

    async def main() -> None:
        server = await framecodec.asyncio.start_server(echo, LOOPBACK, codec, backlog=1024)
        box[:] = server, asyncio.get_running_loop()
        started.set()
        await server.wait_closed()

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    server, loop = box

    def close() -> None:
        if not loop.is_closed():
            asyncio.run_coroutine_threadsafe(server.aclose(1), loop).result(PATIENCE)
        thread.join(PATIENCE)
        assert not thread.is_alive()

    yield Running(server.address, lambda: server.connections, close)
    close()


SERVERS: dict[str, tuple[Callable[..., Any], Any]] = {
    "serve": (threads, None),
    "serve_messages, python": (one_thread, _messages_loop_py.__name__),
    "serve_messages": (one_thread, messages_module._loop_module.__name__),
    "start_server": (event_loop, "asyncio"),
    "start_server, uvloop": (event_loop, "uvloop"),
}


def answers(address: Any, data: bytes) -> bytes:
    """Send bytes and their end; return what the server sends."""
    with socket.create_connection(address, PATIENCE) as sock:
        sock.settimeout(PATIENCE)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(1000), b""))


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Check that a block leaves no descriptor open."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        yield
        return
    with contextlib.suppress(ImportError):  # the first loop of uvloop keeps two for ever
        import uvloop

        uvloop.new_event_loop().close()
    before = len(list(folder.iterdir()))
    yield
    until(lambda: len(list(folder.iterdir())) <= before)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("server", SERVERS)
def test_a_client_that_ends_resets_or_lies_at_any_byte(
    server: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "framecodec")
    (codec, wrong), (serve, option) = CODECS[name], SERVERS[server]
    frames = [codec.encode(message) for message in MESSAGES]
    stream = b"".join(frames)
    ends = [len(b"".join(frames[:count])) for count in range(len(frames) + 1)]

    def check_log(warnings: int) -> None:
        until(lambda: len(caplog.records) >= warnings and not running.connections())
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings
        caplog.clear()

    with no_descriptor_left(), serve(codec, option) as running:
        idle = []
        for offset in range(len(stream) + 1):
            whole = b"".join(frames[: sum(end <= offset for end in ends) - 1])
            assert answers(running.address, stream[:offset]) == whole
            check_log(offset not in ends)
            if offset in ends:
                assert answers(running.address, stream[:offset] + wrong) == whole
                check_log(1)
        for offset in range(len(stream) + 1):
            sock = socket.create_connection(running.address, PATIENCE)
            sock.sendall(stream[:offset])
            reset(sock)
        # The connections of all resets are gone, and the server still serves.
        assert answers(running.address, stream) == stream
        until(lambda: not running.connections())
        own = f"from {running.address[0]}:{running.address[1]} "
        assert not [record for record in caplog.records if own in record.getMessage()]
        caplog.clear()
        for offset in range(len(stream) + 1):
            sock = socket.create_connection(running.address, PATIENCE)
            sock.sendall(stream[:offset])
            idle.append(sock)
        until(lambda: len(running.connections()) == len(idle))
        running.close()
        for offset, sock in enumerate(idle):
            whole = b"".join(frames[: sum(end <= offset for end in ends) - 1])
            with sock:
                sock.settimeout(PATIENCE)
                received = b""
                with contextlib.suppress(ConnectionResetError):
                    while data := sock.recv(1000):
                        received += data
                assert whole.startswith(received)
