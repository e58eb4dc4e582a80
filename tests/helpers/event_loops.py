"""Event loops by name, coroutines run on one of them within a bound, and connections in them."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import ssl
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from framecodec import Codec
from framecodec.asyncio import FrameStream, open_connection, start_server

TIMEOUT = 60.0  # seconds after which a test has failed; none that passes needs them

U4 = Codec.uint(4)

# The first loop of uvloop keeps two descriptors for ever: they must not count as a test's.
if importlib.util.find_spec("uvloop") is not None:
    import uvloop

    uvloop.new_event_loop().close()

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
"""TLS contexts of a server and of a client."""

LOOPS = pytest.mark.parametrize(
    "loop",
    [
        "asyncio",
        pytest.param(
            "uvloop",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
            ),
        ),
    ],
)


def run(loop: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What the coroutine returns; an exception that reached the loop's handler fails the test."""
    complaints: list[dict[str, Any]] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async with asyncio.timeout(TIMEOUT):
            return await coroutine

    factory = None
    if loop == "uvloop":
        factory = uvloop.new_event_loop
    runner = asyncio.Runner(loop_factory=factory)
    unclosed: list[warnings.WarningMessage] = []
    try:
        result = runner.run(main())
    finally:
        unclosed += close(runner)
    assert not complaints, complaints
    assert not unclosed, unclosed
    return result


def close(closable: Any) -> list[warnings.WarningMessage]:
    """Close a runner or a loop; return its warnings about handles that were left open.

    Where such a warning is an error, as pytest makes it, uvloop leaves the handle open after it and
    then waits for ever in `Loop.close` for it to close: a test that fails would hang.
    """
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always")
        closable.close()
    return unclosed


def tls_contexts() -> Contexts:
    """A server's, with a certificate for localhost, and that of a client who trusts it."""
    authority = pytest.importorskip("trustme").CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def wrapped(codec: Codec = U4, **options: Any) -> tuple[FrameStream, socket.socket]:
    """A stream, and the plain socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    return await open_connection(sock=ours, codec=codec, **options), theirs


async def served(
    handler: Callable[[FrameStream], Awaitable[None]],
    client: Callable[[FrameStream], Awaitable[None]],
    codec: Codec = U4,
    tls: Contexts | None = None,
    **limits: float,
) -> None:
    """Run a connection, with `handler` on the server's side and `client` on the other."""
    server_options = {"ssl": tls[0]} if tls else {}
    client_options = {"ssl": tls[1], "server_hostname": "localhost"} if tls else {}
    server = await start_server(handler, "127.0.0.1", 0, codec=codec, **limits, **server_options)
    port = server.sockets[0].getsockname()[1]
    async with await open_connection("127.0.0.1", port, codec=codec, **client_options) as stream:
        await client(stream)
    server.close()


async def echo(stream: FrameStream) -> None:
    """Send each message back, until the peer closes."""
    async for message in stream:
        await stream.send(message)
