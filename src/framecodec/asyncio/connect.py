"""Ways to a `FrameStream`: connect to a server, or start one."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .. import errors
from .._inbox import Inbox
from ..codec import Codec
from .protocol import DEFAULT_CODEC
from .stream import FrameStream, StreamProtocol

__all__ = ["open_connection", "open_unix_connection", "start_server", "start_unix_server"]

_logger = logging.getLogger(__package__)

Handler = Callable[[FrameStream], Awaitable[object]]

_tasks: set[asyncio.Task[None]] = set()  # an event loop alone does not keep its tasks


def _start_serving(handler: Handler) -> Callable[[FrameStream], None]:
    """Return a function that starts a task with the handler for a new connection."""

    def start(stream: FrameStream) -> None:
        task = asyncio.get_running_loop().create_task(_serve(handler, stream))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    return start


async def _serve(handler: Handler, stream: FrameStream) -> None:
    """Run the handler of one connection and close its stream."""
    try:
        async with stream:
            await handler(stream)
    except Exception as error:
        if _is_expected_disconnect(error):
            if type(error) is not EOFError:
                _logger.info("connection %r ended: %s", stream.get_extra_info("peername"), error)
            return
        asyncio.get_running_loop().call_exception_handler(
            {
                "message": "a connection's handler failed",
                "exception": error,
                "transport": stream.transport,
            }
        )


def _is_expected_disconnect(error: BaseException) -> bool:
    """Return whether the error only means that the peer left or sent a bad frame.

    For an exception group, all members must.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_expected_disconnect, error.exceptions))
    return isinstance(error, (EOFError, errors.FrameError, ConnectionError, ssl.SSLError))


def _factory(
    codec: Codec,
    handler: Handler | None,
    message_timeout: float | None,
    idle_timeout: float | None,
) -> Callable[[], StreamProtocol]:
    # Reject invalid arguments before there is a connection.
    Inbox(codec, message_timeout=message_timeout, idle_timeout=idle_timeout)
    on_connection = None if handler is None else _start_serving(handler)
    return lambda: StreamProtocol(
        codec, on_connection, message_timeout=message_timeout, idle_timeout=idle_timeout
    )


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
    factory = _factory(codec, None, message_timeout, idle_timeout)
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
    factory = _factory(codec, None, message_timeout, idle_timeout)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_unix_connection(factory, _path(path), **kwargs)
    return protocol.stream


async def start_server(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    codec: Codec = DEFAULT_CODEC,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> asyncio.Server:
    """Start a server.

    Args:
        handler: ``async def handler(stream)`` serves one connection, in its own task; the stream is
            closed after it. If it raises an `EOFError`, a `FrameError`, a `ConnectionError` or an
            `ssl.SSLError`, the connection ends quietly; any other exception is given to the loop's
            exception handler.
        host: Name or address, or a sequence of them; None for all interfaces.
        port: TCP port; 0 for any that is free.
        codec: The shape of the frames.
        message_timeout: As for `open_connection`: against peers that send a byte now and then.
        idle_timeout: As for `open_connection`: against peers that send nothing.
        **kwargs: As for asyncio's ``loop.create_server``: ssl, reuse_port, backlog, sock, ...

    Returns:
        asyncio's own server, which listens already; its ``sockets`` have the port.

    Raises:
        OSError: The address is not available.
        TypeError, ValueError: An argument is invalid; nothing listens.
    """
    factory = _factory(codec, handler, message_timeout, idle_timeout)
    return await asyncio.get_running_loop().create_server(factory, host, port, **kwargs)


async def start_unix_server(
    handler: Handler,
    path: str | os.PathLike[str] | None = None,
    *,
    codec: Codec = DEFAULT_CODEC,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> asyncio.Server:
    """Start a server on a Unix socket at a path; otherwise like `start_server`.

    Args:
        handler: As for `start_server`.
        path: The path of the socket.
        codec: The shape of the frames.
        message_timeout: As for `open_connection`.
        idle_timeout: As for `open_connection`.
        **kwargs: As for asyncio's ``loop.create_unix_server``.
    """
    factory = _factory(codec, handler, message_timeout, idle_timeout)
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(factory, _path(path), **kwargs)


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
