"""Ways to a `FrameStream`: connect to a server, or start one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

from .._inbox import Inbox
from ..codec import DEFAULT_CODEC, Codec
from .server import FrameServer, Handler
from .stream import FrameStream, StreamProtocol

__all__ = ["open_connection", "open_unix_connection", "start_server", "start_unix_server"]


def _factory(
    codec: Codec, message_timeout: float | None, idle_timeout: float | None
) -> Callable[[], StreamProtocol]:
    # Reject invalid arguments before there is a connection.
    Inbox(codec, message_timeout=message_timeout, idle_timeout=idle_timeout)
    return lambda: StreamProtocol(codec, message_timeout=message_timeout, idle_timeout=idle_timeout)


async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    codec: Codec = DEFAULT_CODEC,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> FrameStream:
    """Connect to a server.

    Args:
        host: Name or address.
        port: TCP port.
        codec: The shape of the frames.
        message_timeout: Seconds that a message may take from its first byte to its last; then
            `FrameStream.recv` raises `MessageTimeoutError`. Only the time in which a `recv` waits
            counts, and only while reading is not paused.
        idle_timeout: Seconds without a byte between two messages while a `recv` waits; then it
            raises `IdleTimeoutError`. Several waits add up.
        **kwargs: As for asyncio's ``loop.create_connection``: ssl, server_hostname, sock, ...

    Returns:
        The connected stream.

    Raises:
        OSError, ssl.SSLError: The connection could not be made.
        TypeError, ValueError: An argument is invalid; nothing was connected.
    """
    factory = _factory(codec, message_timeout, idle_timeout)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(factory, host, port, **kwargs)  # type: ignore[arg-type]
    return protocol.stream


async def open_unix_connection(
    path: str | os.PathLike[str] | None = None,
    *,
    codec: Codec = DEFAULT_CODEC,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> FrameStream:
    """Connect to the Unix socket at a path; otherwise like `open_connection`.

    Args:
        path: The path of the server's socket.
        codec: The shape of the frames.
        message_timeout: As for `open_connection`.
        idle_timeout: As for `open_connection`.
        **kwargs: As for asyncio's ``loop.create_unix_connection``.
    """
    factory = _factory(codec, message_timeout, idle_timeout)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_unix_connection(factory, _path(path), **kwargs)
    return protocol.stream


async def start_server(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    codec: Codec = DEFAULT_CODEC,
    max_connections: int | None = None,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> FrameServer:
    """Start a server.

    What a client does wrong (a bad frame, a reset, an end inside a frame, a client gone before the
    answer, a failed TLS handshake) ends its connection alone, and is logged once as a WARNING on
    the logger ``framecodec``. What else the handler raises is logged there with its traceback. An
    exception handler that the program has set with ``loop.set_exception_handler`` gets it, too,
    unless it is an `EOFError`, a `FrameError`, a `ConnectionError` or an `ssl.SSLError`.

    Args:
        handler: ``async def handler(stream)`` serves one connection, in its own task; the stream is
            closed after it.
        host: Name or address, or a sequence of them; None for all interfaces.
        port: TCP port; 0 for any that is free.
        codec: The shape of the frames.
        max_connections: The number of connections that are served at a time; more clients wait
            unaccepted. None: no limit.
        message_timeout: As for `open_connection`: against peers that send a byte now and then.
        idle_timeout: As for `open_connection`: against peers that send nothing.
        **kwargs: As for asyncio's ``loop.create_server``: ssl, reuse_port, backlog, sock, ...

    Returns:
        The server, which listens already; its ``address`` has the port.

    Raises:
        OSError: The address is not available.
        TypeError, ValueError: An argument is invalid; nothing listens.
        NotImplementedError: `max_connections`, in an event loop without ``add_reader`` (asyncio's
            ``ProactorEventLoop``).
    """
    limits = {"message_timeout": message_timeout, "idle_timeout": idle_timeout}
    server = FrameServer(handler, codec, max_connections, limits)
    return await server._listen(server.get_loop().create_server, host, port, **kwargs)


async def start_unix_server(
    handler: Handler,
    path: str | os.PathLike[str] | None = None,
    *,
    codec: Codec = DEFAULT_CODEC,
    max_connections: int | None = None,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> FrameServer:
    """Start a server on a Unix socket at a path; otherwise like `start_server`.

    Args:
        handler: As for `start_server`.
        path: The path of the socket.
        codec: The shape of the frames.
        max_connections: As for `start_server`.
        message_timeout: As for `open_connection`.
        idle_timeout: As for `open_connection`.
        **kwargs: As for asyncio's ``loop.create_unix_server``.
    """
    limits = {"message_timeout": message_timeout, "idle_timeout": idle_timeout}
    server = FrameServer(handler, codec, max_connections, limits)
    return await server._listen(server.get_loop().create_unix_server, _path(path), **kwargs)


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
