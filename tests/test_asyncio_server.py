"""`FrameServer`: what asyncio's server has, and clients that do everything wrong."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
import functools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec
from framecodec.asyncio import (
    FrameServer,
    FrameStream,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from framecodec.asyncio import server as server_module
from tests.helpers.event_loops import LOOPS, TIMEOUT, U4, echo, run, tls_contexts


async def until(condition: Callable[[], Any]) -> None:
    """Wait for the condition; `run` bounds the time."""
    while not condition():
        await asyncio.sleep(0.002)


def dial(server: FrameServer, **options: Any) -> Any:
    return open_connection(*server.address, **options)


# --- the interface of asyncio.Server --------------------------------------------------------------


@LOOPS
def test_a_server_has_the_interface_of_asyncios(loop: str) -> None:
    async def main() -> None:
        server = await start_server(echo, "127.0.0.1", 0, start_serving=False)
        assert isinstance(server, asyncio.AbstractServer)
        assert server.get_loop() is asyncio.get_running_loop()
        assert not server.is_serving()
        address = server.address
        assert server.sockets[0].getsockname() == address
        with pytest.raises(ConnectionRefusedError):
            await open_connection(*address)
        async with server as entered:
            assert entered is server
            await server.start_serving()
            await server.start_serving()
            assert server.is_serving()
            async with await dial(server) as stream:
                await stream.send(b"hello")
                assert await stream.recv() == b"hello"
        assert not server.is_serving()
        assert server.sockets == ()
        assert server.address == address
        with pytest.raises(ConnectionRefusedError):
            await open_connection(*address)
        with pytest.raises(RuntimeError, match="closed"):
            await server.start_serving()

    run(loop, main())


@LOOPS
def test_close_only_stops_listening_and_wait_closed_ends_idle_clients(loop: str) -> None:
    async def main() -> None:
        server = await start_server(echo, "127.0.0.1", 0)
        stream = await dial(server)
        await stream.send(b"before")
        assert await stream.recv() == b"before"
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        assert not waiting.done()
        server.close()
        server.close()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(server.address):
            pass
        await waiting
        with pytest.raises(EOFError):
            await stream.recv()
        await stream.aclose()
        assert server.connections == frozenset()

    run(loop, main())


@LOOPS
def test_close_alone_leaves_connections_open(loop: str) -> None:
    async def main() -> None:
        server = await start_server(echo, "127.0.0.1", 0)
        async with await dial(server) as stream:
            await stream.send(b"before")
            assert await stream.recv() == b"before"
            server.close()
            await stream.send(b"after")
            assert await stream.recv() == b"after"
        await server.wait_closed()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("how", ["cancel", "close"])
def test_serve_forever_ends_while_a_client_is_idle(loop: str, how: str) -> None:
    async def main() -> None:
        server = await start_server(echo, "127.0.0.1", 0)
        serving = asyncio.create_task(server.serve_forever())
        async with await dial(server) as stream:
            await stream.send(b"a")
            assert await stream.recv() == b"a"
            if how == "cancel":
                serving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await serving
            else:
                server.close()
                await serving
            with pytest.raises(EOFError):
                await stream.recv()

    run(loop, main())


SERVER = """
import asyncio
import contextlib

from framecodec.asyncio import start_server

async def echo(stream):
    async for message in stream:
        await stream.send(message)

async def main():
    async with await start_server(echo, "127.0.0.1", 0) as server:
        print(server.address[1], flush=True)
        await server.serve_forever()

with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
print("ended", flush=True)
"""


def interpreter(version: str) -> str:
    """Return the path of another Python; skip the test if it is missing."""
    folders = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    python = str(folders[0]) if folders else shutil.which(f"python{version}")
    if python is None:
        pytest.skip(f"no Python {version}")
    asked = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if answer.stdout.strip() != version:
        pytest.skip(f"no Python {version}")
    return python


PACKAGES = str(Path(framecodec.__file__).parents[1])


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to another process")
@pytest.mark.parametrize("version", ["", "3.12", "3.13", "3.14"])
def test_control_c_ends_a_server_while_a_client_is_idle(version: str) -> None:
    python = interpreter(version) if version else sys.executable
    with subprocess.Popen(
        [python, "-c", SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PACKAGES},
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with framecodec.connect(("127.0.0.1", port), timeout=TIMEOUT) as conn:
                conn.send(b"a")
                assert conn.recv() == b"a"
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (output, errors, process.returncode) == ("ended\n", "", 0)


# --- arguments ------------------------------------------------------------------------------------


def not_async(stream: FrameStream) -> None:
    """Return None, as an ordinary function does."""


class Handler:
    """Objects with an async ``__call__`` and an async method."""

    async def __call__(self, stream: FrameStream) -> None:
        await echo(stream)

    async def method(self, stream: FrameStream) -> None:
        await echo(stream)


@pytest.mark.parametrize("handler", [not_async, None, "echo", lambda stream: echo(stream)])
def test_a_handler_that_is_not_an_async_function_is_refused(handler: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="async def handler"):
            await start_server(handler, "127.0.0.1", 0)

    run("asyncio", main())


@pytest.mark.parametrize("handler", [Handler(), Handler().method, functools.partial(echo)])
def test_everything_that_is_an_async_function_is_a_handler(handler: Any) -> None:
    async def main() -> None:
        async with (
            await start_server(handler, "127.0.0.1", 0) as server,
            await dial(server) as stream,
        ):
            await stream.send(b"a")
            assert await stream.recv() == b"a"

    run("asyncio", main())


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"max_connections": 0}, ValueError, "max_connections must be at least 1"),
        ({"max_connections": "2"}, TypeError, "max_connections must be an integer"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout"),
        ({"ssl": True}, TypeError, "ssl"),
    ],
)
def test_start_server_refuses_a_wrong_argument_and_says_why(
    options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    async def main() -> None:
        with pytest.raises(kind, match=text):
            await start_server(echo, "127.0.0.1", 0, **options)

    run("asyncio", main())


def test_aclose_refuses_a_grace_that_is_not_a_number_of_seconds() -> None:
    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0) as server:
            for grace in (-1, float("nan")):
                with pytest.raises(ValueError, match="grace must be"):
                    await server.aclose(grace)
            assert server.is_serving()

    run("asyncio", main())


# --- connections ----------------------------------------------------------------------------------


@LOOPS
def test_connections_is_a_snapshot(loop: str) -> None:
    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0) as server:
            assert server.connections == frozenset()
            async with await dial(server), await dial(server):
                await until(lambda: len(server.connections) == 2)
                snapshot = server.connections
                assert isinstance(snapshot, frozenset)
                assert all(isinstance(stream, FrameStream) for stream in snapshot)
            await until(lambda: not server.connections)
            assert len(snapshot) == 2

    run(loop, main())


@LOOPS
def test_max_connections_leaves_more_clients_unaccepted(loop: str) -> None:
    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0, max_connections=2) as server:
            streams = [await dial(server) for _ in range(3)]
            for stream in streams:
                await stream.send(b"a")
            assert [await stream.recv() for stream in streams[:2]] == [b"a", b"a"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await streams[2].recv()
            assert len(server.connections) == 2
            await streams[0].aclose()
            assert await streams[2].recv() == b"a"
            for stream in streams[1:]:
                await stream.aclose()

    run(loop, main())


@LOOPS
def test_accepting_resumes_after_a_fault_of_the_system(
    loop: str, monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    faults = [OSError(errno.EMFILE, "too many"), OSError(errno.ENOBUFS, "no memory")]

    class Socket(socket.socket):
        def accept(self) -> Any:
            if faults:
                raise faults.pop(0)
            return super().accept()

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(
                server_module.socket, "fromfd", lambda fd, *kind: Socket(*kind, os.dup(fd))
            )
            server = await start_server(echo, "127.0.0.1", 0)
        async with server, await dial(server) as stream:
            await stream.send(b"a")
            assert await stream.recv() == b"a"

    run(loop, main())
    first, second = logged()
    assert first.startswith("WARNING cannot accept a connection on 127.0.0.1:")
    assert "0.01 s" in first
    assert "0.02 s" in second


# --- broadcasts -----------------------------------------------------------------------------------


@LOOPS
def test_broadcast_reaches_all_connections_and_counts_them(loop: str) -> None:
    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0) as server:
            assert server.broadcast(b"to no client") == 0
            streams = [await dial(server) for _ in range(3)]
            await until(lambda: len(server.connections) == 3)
            assert server.broadcast(b"news") == 3
            for stream in streams:
                await stream.send(b"a")
                assert [await stream.recv(), await stream.recv()] == [b"news", b"a"]
            await streams[0].aclose()
            await until(lambda: len(server.connections) == 2)
            assert server.broadcast(b"x" * 1_000_000) == 2
            assert await streams[1].recv() == await streams[2].recv() == b"x" * 1_000_000
            with pytest.raises(TypeError):
                server.broadcast(4)
            with pytest.raises(RuntimeError, match="another thread"):
                await asyncio.to_thread(server.broadcast, b"a")
            for stream in streams:
                await stream.aclose()

    run(loop, main())


@LOOPS
def test_broadcast_encodes_once(loop: str) -> None:
    encoded: list[Any] = []

    def build(message: Any) -> bytes:
        encoded.append(len(message))
        return bytes([len(message)])

    def parse(data: Any) -> tuple[int, int] | None:
        return (1, data[0]) if len(data) else None

    codec = Codec.custom(parse, build)

    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0, codec=codec) as server:
            streams = [await dial(server, codec=codec) for _ in range(3)]
            await until(lambda: len(server.connections) == 3)
            encoded.clear()
            assert server.broadcast(b"news") == 3
            assert encoded == [4]
            for stream in streams:
                assert await stream.recv() == b"news"
                await stream.aclose()

    run(loop, main())


@LOOPS
def test_broadcast_ends_a_client_that_does_not_receive(
    loop: str, monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    monkeypatch.setattr(server_module, "BACKLOG_LIMIT", 1_000_000)

    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0) as server:
            with socket.create_connection(server.address):
                await until(lambda: server.connections)
                for _ in range(1000):
                    if not server.broadcast(bytes(100_000)):
                        break
                else:
                    pytest.fail("the client's backlog was never too long")
                await until(lambda: not server.connections)

    run(loop, main())
    (text,) = logged()
    assert text.startswith("WARNING the connection from 127.0.0.1:")
    assert "the limit is 1000000" in text


# --- what clients do wrong ------------------------------------------------------------------------


def send_garbage(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")


def end_inside_a_frame(sock: socket.socket) -> None:
    sock.sendall(b"0009half")
    sock.close()


def reset_inside_a_frame(sock: socket.socket) -> None:
    sock.sendall(b"0009half")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def leave_before_the_answer(sock: socket.socket) -> None:
    sock.sendall(b"0011answer much")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def drip(sock: socket.socket) -> None:
    sock.sendall(b"0")


@LOOPS
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (send_garbage, "InvalidFrameError"),
        (end_inside_a_frame, "IncompleteFrameError"),
        (reset_inside_a_frame, "ConnectionResetError"),
        (leave_before_the_answer, "ConnectionResetError|BrokenPipeError"),
        (drip, "MessageTimeoutError"),
    ],
)
def test_a_clients_fault_ends_its_connection_alone_and_is_logged_once(
    loop: str, fault: Callable[[socket.socket], None], reason: str, logged: Any
) -> None:
    codec = Codec.digits(4)

    async def handler(stream: FrameStream) -> None:
        async for message in stream:
            for _ in range(2000 if message == b"answer much" else 1):
                await stream.send(message * 100)
                await asyncio.sleep(0)

    async def main() -> None:
        options: Any = {"message_timeout": 0.05} if fault is drip else {}
        server = await start_server(handler, "127.0.0.1", 0, codec=codec, **options)
        async with server, await dial(server, codec=codec) as good:
            await good.send(b"a")
            assert await good.recv() == b"a" * 100
            with socket.create_connection(server.address) as bad:
                ports.append(bad.getsockname()[1])
                await until(lambda: len(server.connections) == 2)
                fault(bad)
                await until(lambda: len(server.connections) == 1)
            await good.send(b"b")
            assert await good.recv() == b"b" * 100

    ports: list[int] = []
    run(loop, main())
    (text,) = logged()
    assert text.startswith(f"WARNING the connection from 127.0.0.1:{ports[0]} ended: ")
    assert any(kind in text for kind in reason.split("|"))


@LOOPS
def test_a_clean_end_is_not_logged(loop: str, logged: Any) -> None:
    async def handler(stream: FrameStream) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(forward(stream))

    async def forward(stream: FrameStream) -> None:
        while True:
            await stream.send(await stream.recv())  # which raises EOFError at the end

    async def main() -> None:
        async with await start_server(handler, "127.0.0.1", 0) as server:
            async with await dial(server) as stream:
                await stream.send(b"a")
                assert await stream.recv() == b"a"
            await until(lambda: not server.connections)

    run(loop, main())
    assert logged() == []


@LOOPS
@pytest.mark.parametrize(
    "failure",
    [
        ValueError("of the handler"),
        ConnectionRefusedError(errno.ECONNREFUSED, "of a database"),
        framecodec.InvalidFrameError("of another stream", stream_offset=0),
    ],
)
def test_a_handlers_own_exception_is_logged_with_its_traceback(
    loop: str, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: FrameStream) -> None:
        await stream.recv()
        raise failure

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(None)
        async with await start_server(handler, "127.0.0.1", 0) as server:
            for _ in range(2):  # the server still serves
                async with await dial(server) as stream:
                    await stream.send(b"a")
                    with pytest.raises(EOFError):
                        await stream.recv()

    run(loop, main())
    assert [(r.name, r.levelname) for r in caplog.records] == [("framecodec", "ERROR")] * 2
    assert all(r.exc_info and r.exc_info[1] is failure for r in caplog.records)


@LOOPS
@pytest.mark.parametrize("own_close", [False, True], ids=["too large", "after its own close"])
def test_a_message_that_the_handler_cannot_send_is_its_own_fault(
    loop: str, own_close: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: FrameStream) -> None:
        if own_close:
            await stream.aclose()
        await stream.send(b"x" * 10_000)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(None)
        codec = Codec.digits(4)
        async with (
            await start_server(handler, "127.0.0.1", 0, codec=codec) as server,
            await dial(server, codec=codec) as stream,
        ):
            with pytest.raises(EOFError):
                await stream.recv()

    run(loop, main())
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@LOOPS
def test_a_unix_servers_path_is_its_address_and_names_its_clients(
    loop: str, tmp_path: Path, logged: Any
) -> None:
    path = str(tmp_path / "socket")

    async def main() -> None:
        async with await start_unix_server(echo, path) as server:
            assert server.address == path
            async with await open_unix_connection(path) as stream:
                stream.transport.write(b"\0\0\0\7half")
                stream.write_eof()
                with pytest.raises(EOFError):
                    await stream.recv()

    run(loop, main())
    (text,) = logged()
    assert text.startswith(f"WARNING the connection from {path} ended: IncompleteFrameError")


@LOOPS
def test_a_failed_handshake_is_logged_and_one_without_an_end_does_not_delay_the_close(
    loop: str, logged: Any
) -> None:
    contexts = tls_contexts()

    async def main() -> None:
        server = await start_server(echo, "127.0.0.1", 0, ssl=contexts[0])
        with socket.create_connection(server.address) as silent:
            async with server:
                with socket.create_connection(server.address) as plain:
                    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    await until(logged)
                tls: Any = {"ssl": contexts[1], "server_hostname": "localhost"}
                stream = await dial(server, **tls)
                await stream.send(b"a")
                assert await stream.recv() == b"a"
                assert len(server.connections) == 1
            with pytest.raises((EOFError, OSError)):
                await stream.recv()
            await stream.aclose()
            silent.settimeout(TIMEOUT)
            with contextlib.suppress(ConnectionResetError):
                assert silent.recv(1) == b""

    run(loop, main())
    (text,) = logged()
    assert text.startswith("WARNING the connection from 127.0.0.1:")
    assert "SSL" in text


# --- the end --------------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_aclose_lets_a_running_handler_finish(loop: str, tls: bool, logged: Any) -> None:
    contexts = tls_contexts() if tls else None

    async def main() -> None:
        going = asyncio.Event()
        ending = asyncio.Event()

        async def handler(stream: FrameStream) -> None:
            async for _ in stream:
                going.set()
            ending.set()
            await asyncio.sleep(0.02)
            await stream.send(b"goodbye")

        server = await start_server(handler, "127.0.0.1", 0, ssl=contexts and contexts[0])
        options: Any = {"ssl": contexts[1], "server_hostname": "localhost"} if contexts else {}
        async with await dial(server, **options) as stream:
            await stream.send(b"a")
            await going.wait()
            await server.aclose()
            assert ending.is_set()
            assert await stream.recv() == b"goodbye"
            with pytest.raises(EOFError):
                await stream.recv()

    run(loop, main())
    assert logged() == []


@LOOPS
def test_aclose_over_tls_leaves_what_was_read_to_a_handler_that_is_slow(loop: str) -> None:
    contexts = tls_contexts()
    message = bytes(1000)
    received: list[bytes] = []

    async def main() -> None:
        served: list[FrameStream] = []
        may_receive = asyncio.Event()

        async def handler(stream: FrameStream) -> None:
            served.append(stream)
            await may_receive.wait()
            with contextlib.suppress(EOFError):  # in a frame, or after one
                while True:
                    received.append(await stream.recv())

        async def flood(stream: FrameStream) -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await stream.send(message)

        server = await start_server(handler, "127.0.0.1", 0, ssl=contexts[0])
        tls: Any = {"ssl": contexts[1], "server_hostname": "localhost"}
        async with await dial(server, **tls) as stream:
            flooding = asyncio.create_task(flood(stream))
            await until(lambda: served and served[0]._protocol._reading_paused)
            count = served[0]._protocol._inbox.splitter.stream_offset // len(U4.encode(message))
            closing = asyncio.create_task(server.aclose())
            await asyncio.sleep(0)
            may_receive.set()
            await closing
            await flooding
            assert len(received) >= count > 0
            assert set(received) == {message}

    run(loop, main())


@LOOPS
def test_aclose_aborts_what_does_not_end_within_the_grace(loop: str, logged: Any) -> None:
    cancelled = []

    async def handler(stream: FrameStream) -> None:
        await stream.send(b"a")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(stream)
            raise

    async def main() -> None:
        server = await start_server(handler, "127.0.0.1", 0)
        async with await dial(server) as stream:
            assert await stream.recv() == b"a"
            await server.aclose(grace=0.02)
            assert len(cancelled) == 1
            with pytest.raises((EOFError, ConnectionError)):
                await stream.recv()

    run(loop, main())
    (text,) = logged()
    assert text.startswith("WARNING the server on 127.0.0.1:")
    assert text.endswith(" aborted 1 connections that did not end within the grace of 0.02 s")


@LOOPS
def test_aclose_leaves_a_task_that_does_not_end_and_says_so(
    loop: str, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "AFTER_ABORT", 0.02)

    async def main() -> None:
        allowed = asyncio.Event()

        async def handler(stream: FrameStream) -> None:
            await stream.send(b"a")
            while not allowed.is_set():
                try:
                    await allowed.wait()
                except asyncio.CancelledError:
                    continue

        server = await start_server(handler, "127.0.0.1", 0)
        async with await dial(server) as stream:
            assert await stream.recv() == b"a"
            await server.aclose(grace=0)
            assert len(logged()) == 2
            allowed.set()
            await until(lambda: not server.connections)

    run(loop, main())
    assert logged()[1].endswith(" ended while handlers still run in 1 tasks, which were cancelled")


@LOOPS
def test_a_cancelled_aclose_ends_everything_at_once(loop: str) -> None:
    async def main() -> None:
        async def handler(stream: FrameStream) -> None:
            await stream.send(b"a")
            await asyncio.Event().wait()

        server = await start_server(handler, "127.0.0.1", 0)
        async with await dial(server) as stream:
            assert await stream.recv() == b"a"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await server.aclose(grace=TIMEOUT * 10)
            with pytest.raises((EOFError, ConnectionError)):
                await stream.recv()
            await until(lambda: not server.connections)

    run(loop, main())


@LOOPS
def test_a_handler_may_close_its_server(loop: str, logged: Any) -> None:
    async def main() -> None:
        async def handler(stream: FrameStream) -> None:
            await stream.recv()
            await server.aclose()
            await stream.send(b"closed")

        server = await start_server(handler, "127.0.0.1", 0)
        async with await dial(server) as stream:
            await stream.send(b"close")
            assert await stream.recv() == b"closed"
        await server.wait_closed()

    run(loop, main())
    assert logged() == []


@LOOPS
def test_a_client_that_leaves_during_the_last_send_is_logged(loop: str, logged: Any) -> None:
    async def main() -> None:
        async def handler(stream: FrameStream) -> None:
            await stream.recv()
            reset.set()
            with pytest.raises(ConnectionError):
                await stream.send(bytes(16_000_000))
            failed.set()

        reset, failed = asyncio.Event(), asyncio.Event()
        async with await start_server(handler, "127.0.0.1", 0) as server:
            with socket.create_connection(server.address) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(U4.encode(b"a"))
                await reset.wait()
            await failed.wait()
            await until(lambda: not server.connections)
            await until(logged)

    run(loop, main())
    (text,) = logged()
    assert text.startswith("WARNING the connection from 127.0.0.1:")


@LOOPS
def test_no_descriptor_is_left(loop: str, fd_count: Callable[[], int]) -> None:
    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0) as server, await dial(server) as stream:
            await stream.send(b"a")
            assert await stream.recv() == b"a"

    run(loop, main())
    before = fd_count()
    for _ in range(3):
        run(loop, main())
    assert fd_count() == before


# --- what is rare ---------------------------------------------------------------------------------


@LOOPS
def test_repr_names_the_address_and_the_state(loop: str) -> None:
    async def main() -> None:
        server = await start_server(echo, "127.0.0.1", 0, start_serving=False)
        name = f"127.0.0.1:{server.address[1]}"
        assert repr(server) == f"<FrameServer open on {name}, 0 connections>"
        await server.start_serving()
        assert repr(server) == f"<FrameServer listening on {name}, 0 connections>"
        with pytest.raises(TypeError, match="copied"):
            copy.copy(server)
        await server.aclose()
        assert repr(server) == f"<FrameServer closed on {name}, 0 connections>"

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("method", ["__init__", "start"])
def test_a_server_that_cannot_start_leaves_nothing_open(
    loop: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(server_module._Acceptor, method, fail)

    async def main() -> None:
        with pytest.raises(OSError, match="too many open files"):
            await start_server(echo, "127.0.0.1", 0)

    run(loop, main())  # a socket that is left open warns


@LOOPS
def test_a_loop_that_cannot_wait_for_sockets_accepts_itself(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(server_module._Acceptor, "resume", refuse)

    async def main() -> None:
        with pytest.raises(NotImplementedError, match="max_connections needs an event loop with"):
            await start_server(echo, "127.0.0.1", 0, max_connections=1)
        async with await start_server(echo, "127.0.0.1", 0) as server:
            async with await dial(server) as stream:
                await stream.send(b"a")
                assert await stream.recv() == b"a"
            monkeypatch.undo()

    run(loop, main())


@LOOPS
def test_a_connection_that_opens_while_the_server_ends_is_aborted(loop: str) -> None:
    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0) as server:
            server._ending = True
            async with await dial(server) as stream:
                with pytest.raises((EOFError, ConnectionError)):
                    await stream.recv()
            assert not server.connections
            server._ending = False

    run(loop, main())


@LOOPS
def test_a_client_that_is_accepted_when_the_server_ends_is_closed(loop: str) -> None:
    async def main() -> None:
        server = await start_server(echo, "127.0.0.1", 0)
        accepted, client = socket.socketpair()
        with client:
            server.take(accepted, ("127.0.0.1", 1))
            await server.aclose()
            assert accepted.fileno() == -1
            client.settimeout(TIMEOUT)
            assert client.recv(1) == b""

    run(loop, main())


@LOOPS
def test_broadcast_passes_over_a_connection_whose_handler_has_returned(loop: str) -> None:
    large = bytes(8_000_000)  # more than the kernel takes

    async def main() -> None:
        async def handler(stream: FrameStream) -> None:
            await stream.recv()
            assert server.broadcast(large) == 1

        async with (
            await start_server(handler, "127.0.0.1", 0) as server,
            await dial(server) as stream,
        ):
            await stream.send(b"begin")
            await until(lambda: len(server._served) == 1 and not server.connections)
            assert server.broadcast(b"too late") == 0
            assert await stream.recv() == large
            with pytest.raises(EOFError):
                await stream.recv()

    run(loop, main())


@LOOPS
def test_broadcast_uses_the_codec_that_a_handler_has_chosen(loop: str) -> None:
    async def main() -> None:
        switched = asyncio.Event()

        async def switch(stream: FrameStream) -> None:
            stream.switch(Codec.uint(1))
            switched.set()
            with contextlib.suppress(EOFError):
                await stream.recv()

        async with (
            await start_server(switch, "127.0.0.1", 0) as server,
            await dial(server, codec=Codec.uint(1)) as stream,
        ):
            await switched.wait()
            assert server.broadcast(b"hello") == 1
            assert await stream.recv() == b"hello"
            (served,) = server.connections
            served.transport.close()
            assert server.broadcast(b"too late") == 0

    run(loop, main())


@LOOPS
def test_what_happens_after_the_handler_is_logged_as_its_failure(
    loop: str, monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    async def fail(*_: Any) -> None:
        raise LookupError("no end")

    async def main() -> None:
        complaints: list[Any] = []
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, told: complaints.append(told["message"]))
        monkeypatch.setattr(FrameStream, "__aexit__", fail)
        async with await start_server(echo, "127.0.0.1", 0) as server:
            stream = await dial(server)
            stream.write_eof()
            await until(logged)
            monkeypatch.undo()
            stream.transport.close()
            await asyncio.sleep(0.01)
        assert complaints == ["a connection's handler failed"]

    run(loop, main())
    assert "ERROR" in logged()[0]


@LOOPS
def test_a_listening_socket_that_fails_stops_accepting(
    loop: str, monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    async def main() -> None:
        async with await start_server(echo, "127.0.0.1", 0) as server:
            acceptor = server._acceptor
            assert acceptor is not None
            acceptor._pause_after(OSError(errno.EMFILE, "too many open files"))
            assert acceptor._timer is not None  # which close() cancels
            acceptor._end_pause()
            assert acceptor._reading
            acceptor._pause_after(OSError(errno.EBADF, "bad file descriptor"))
            assert not acceptor._started
            acceptor.resume()
            assert not acceptor._reading
            acceptor._started = True
            acceptor._pause_after(OSError(errno.EMFILE, "too many open files"))

    run(loop, main())
    assert sum("stopped listening" in line for line in logged()) == 1


@LOOPS
def test_an_opening_can_be_driven_like_a_coroutine(loop: str) -> None:
    async def main() -> None:
        opening = open_connection("127.0.0.1", 1)
        with pytest.raises(KeyError):
            opening.throw(KeyError("no place"))
        opening = open_connection("127.0.0.1", 1)
        opening.close()
        with pytest.raises(RuntimeError, match="already"):
            await opening

    run(loop, main())


@LOOPS
def test_a_codec_can_take_the_place_of_the_port_beside_a_socket(loop: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            async with open_connection(None, Codec.uint(1), sock=ours) as stream:
                await stream.send(b"a")
                theirs.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(theirs, 10) == b"\1a"

    run(loop, main())
