"""Ways to a `FrameStream`: `open_connection`, `start_server` and their Unix versions."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

import framecodec.asyncio
from framecodec import InvalidFrameError
from framecodec.asyncio import FrameStream
from tests.helpers.event_loops import LOOPS, U4, echo, run


@LOOPS
def test_open_connection_and_start_server_refuse_an_invalid_codec(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="Codec"):
            await framecodec.asyncio.open_connection("127.0.0.1", 9, codec="kafka")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Codec"):
            await framecodec.asyncio.start_server(echo, "127.0.0.1", 0, codec=4)  # type: ignore[arg-type]

    run(loop, main())


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (ValueError("a bug"), True),
        (EOFError(), False),
        (ConnectionResetError(), False),
        (InvalidFrameError("broken"), False),
        (ssl.SSLError("no handshake"), False),
        (BaseExceptionGroup("tasks", [EOFError(), ExceptionGroup("", [BrokenPipeError()])]), False),
        (ExceptionGroup("tasks", [EOFError(), ValueError("a bug")]), True),
    ],
)
def test_start_server_reports_bugs_of_handlers_to_the_loop(error: Exception, is_told: bool) -> None:
    async def main() -> list[Any]:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        async def handler(_: FrameStream) -> None:
            raise error

        server = await framecodec.asyncio.start_server(handler, "127.0.0.1", 0)
        stream = await framecodec.asyncio.open_connection(*server.sockets[0].getsockname())
        with pytest.raises((EOFError, ConnectionError)):
            await stream.recv()
        await stream.aclose()
        server.close()
        await asyncio.sleep(0)
        return [context["exception"] for context in told]

    assert run("asyncio", main()) == ([error] if is_told else [])


@LOOPS
def test_open_unix_connection_and_start_unix_server_take_a_path(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        server = await framecodec.asyncio.start_unix_server(echo, path)
        async with await framecodec.asyncio.open_unix_connection(path) as stream:
            await stream.send(b"hello")
            assert await stream.recv() == b"hello"
        server.close()

    run(loop, main())


@LOOPS
def test_start_server_serves_many_connections_at_once(loop: str) -> None:
    async def main() -> None:
        server = await framecodec.asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def talk(number: int) -> None:
            async with await framecodec.asyncio.open_connection(*address) as stream:
                for size in (1, 1000, 50_000):
                    await stream.send(bytes([number]) * size)
                    assert await stream.recv() == bytes([number]) * size

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(talk(number))
        server.close()

    run(loop, main())


@LOOPS
def test_start_unix_server_stays_quiet_about_a_client_that_leaves_early(
    loop: str, tmp_path: Path
) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        server = await framecodec.asyncio.start_unix_server(echo, path)
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(U4.encode(b"hello"))
        await asyncio.sleep(0.05)
        server.close()

    run(loop, main())


def can_use_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not can_use_ipv6(), reason="no IPv6")
@LOOPS
def test_open_connection_takes_the_scope_of_an_ipv6_address(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with framecodec.asyncio.start_server(echo, "::1", 0) as server:
            port = server.address[1]
            running = asyncio.get_running_loop()
            hosts: list[str] = []

            async def create_connection(factory: Any, host: str, port: int, **kwargs: Any) -> Any:
                hosts.append(host)
                return await connect(factory, "::1", port, **kwargs)

            if loop == "asyncio":  # the methods of uvloop cannot be replaced
                connect = running.create_connection
                monkeypatch.setattr(running, "create_connection", create_connection)
            async with framecodec.asyncio.open_connection(("::1", port, 0, 1)) as stream:
                await stream.send(b"hello")
                assert await stream.recv() == b"hello"
            assert hosts == (["::1%1"] if loop == "asyncio" else [])

    run(loop, main())


@LOOPS
def test_a_socket_that_cannot_be_used_raises_the_error_of_the_system(loop: str) -> None:
    class Refusing(socket.socket):
        def setblocking(self, flag: bool, /) -> None:
            raise PermissionError("not this socket")

        def listen(self, *_: int) -> None:
            raise PermissionError("not this socket")

    async def main() -> None:
        with Refusing() as sock:
            with pytest.raises(PermissionError) as caught:
                await framecodec.asyncio.open_connection(sock=sock, codec=U4)
            assert str(caught.value) == "not this socket"
        with Refusing() as sock:
            with pytest.raises(PermissionError) as caught:
                await framecodec.asyncio.start_server(echo, sock=sock, codec=U4)
            assert str(caught.value) == "not this socket"

    run(loop, main())
