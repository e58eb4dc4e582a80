"""Ways to a `FrameStream`: connect to a server, or start one."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as ssl_module
from collections.abc import Callable, Sequence
from typing import Any, Unpack, cast, final

from .._addresses import Address, Place, find_place
from .._message_types import MessageT
from .._options import OnInvalid, OnOversize, check_options, check_server_context
from .._peers import name_address, peer_name
from ..codec import Codec
from ..sockets.base import check_keepalive, prepare
from .loop_options import (
    ConnectOptions,
    ListenOptions,
    UnixConnectOptions,
    UnixListenOptions,
    check_names,
)
from .opening import Opening
from .server import FrameServer, Handler, check_handler
from .stream import FrameStream
from .stream_protocol import StreamProtocol

__all__ = ["open_connection", "open_unix_connection", "start_server", "start_unix_server"]


def _find_place(
    host: Any, port: Any, codec: Codec[Any] | None, has_socket: bool, tls: Any
) -> tuple[Place, Any]:
    """Return where to connect or listen, and the `ssl` argument.

    The address is as for `find_place`, or as for asyncio: None or a sequence of hosts, with a port.
    """
    is_host = host is None or (
        isinstance(host, Sequence)
        and not isinstance(host, str | bytes)
        and all(isinstance(one, str) for one in host)
    )
    if has_socket or is_host:
        if isinstance(port, Codec):
            port, codec = None, port
        place = find_place("", None, codec)._replace(address=(host, port))
    else:
        place = find_place(host, port, codec)
    return place, (True if place.is_tls and tls is None else tls)


def open_connection(
    host: Address = None,
    port: int | Codec[MessageT] | None = None,
    *,
    codec: Codec[MessageT] | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    keepalive: bool | float | None = None,
    received: Any = b"",
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
    **kwargs: Unpack[ConnectOptions],
) -> Opening[FrameStream[MessageT]]:
    """Connect to a server: ``await`` it, or use it in ``async with``.

    Args:
        host: A host, with `port`; or the address: ``(host, port)``, the path of a Unix socket, or a
            URL: ``tcp://host:port``, ``tls://host:port``, ``unix:path``.
        port: TCP port; or the codec, after an address.
        codec: The shape of the frames; ``Codec.uint(4)`` where none is given.
        ssl: A context, or True for ``ssl.create_default_context()``, which is also the default for
            a ``tls://`` URL: the connection is encrypted.
        server_hostname: The name that the server's certificate must have; the host where none is
            given.
        keepalive: True, or seconds of quiet before TCP's first probe.
        received: Bytes that were read from the connection before (with ``sock=``): they come first.
        message_timeout: Seconds that a message may take from its first byte to its last; then
            `FrameStream.recv` raises `MessageTimeoutError`. Only the time in which a `recv` waits
            counts, and only while reading is not paused.
        idle_timeout: Seconds without a byte between two messages while a `recv` waits; then it
            raises `IdleTimeoutError`. Several waits add up.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: As for `FrameSocket`; its methods get the stream.
        **kwargs: As for asyncio's ``loop.create_connection``: sock, local_addr, ...

    Returns:
        The connected stream, when it is awaited.

    Raises:
        OSError, ssl.SSLError: The connection could not be made; the error names the address.
        TypeError, ValueError, OverflowError: An argument is invalid; nothing was connected.
    """
    check_names("open_connection", kwargs, ConnectOptions)
    place, tls = _find_place(host, port, codec, kwargs.get("sock") is not None, ssl)
    check_keepalive(keepalive)
    options = check_options(
        place.codec,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
    )
    options["received"] = received
    passed_on: dict[str, Any] = {**kwargs}
    if tls:
        passed_on["ssl"] = tls
    if server_hostname is not None:
        passed_on["server_hostname"] = server_hostname
    return Opening(_open(place, options, keepalive, passed_on))


async def _open(
    place: Place, options: dict[str, Any], keepalive: bool | float | None, kwargs: dict[str, Any]
) -> FrameStream[Any]:
    def factory() -> StreamProtocol:
        return StreamProtocol(place.codec, **options)

    loop = asyncio.get_running_loop()
    try:
        if _is_unix(place, kwargs.get("sock")):
            path = None if isinstance(place.address, tuple) else place.address
            _, protocol = await loop.create_unix_connection(factory, path, **kwargs)
        else:
            host, port = place.address[:2]
            if len(place.address) == 4 and place.address[3] and "%" not in host:
                host = f"{host}%{place.address[3]}"  # the scope of an IPv6 address
            _, protocol = await loop.create_connection(factory, host, port, **kwargs)
    except OSError as error:
        if kwargs.get("sock") is None:
            name_address(error, peer_name(place.address, None))
        raise
    stream: FrameStream[Any] = protocol.stream
    sock = stream.get_extra_info("socket")
    if keepalive and sock is not None:
        prepare(sock, keepalive)
    return stream


def open_unix_connection(
    path: str | os.PathLike[str] | None = None,
    codec: Codec[MessageT] | None = None,
    *,
    ssl: ssl_module.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    received: Any = b"",
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
    **kwargs: Unpack[UnixConnectOptions],
) -> Opening[FrameStream[MessageT]]:
    """Connect to the Unix socket at a path; otherwise like `open_connection`.

    Args:
        path: The path of the server's socket; None with ``sock=``.
        codec: As for `open_connection`.
        ssl: As for `open_connection`.
        server_hostname: As for `open_connection`.
        received: As for `open_connection`.
        message_timeout: As for `open_connection`.
        idle_timeout: As for `open_connection`.
        on_oversize: As for `open_connection`.
        on_invalid: As for `open_connection`.
        observer: As for `open_connection`.
        **kwargs: As for asyncio's ``loop.create_unix_connection``.
    """
    check_names("open_unix_connection", kwargs, UnixConnectOptions)
    return open_connection(
        None if path is None else _UnixPath(path),
        codec,
        ssl=ssl,
        server_hostname=server_hostname,
        received=received,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
        **kwargs,
    )


def start_server(
    handler: Handler[MessageT],
    host: Address = None,
    port: int | Codec[MessageT] | None = None,
    *,
    codec: Codec[MessageT] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    keepalive: bool | float | None = None,
    max_connections: int | None = None,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
    **kwargs: Unpack[ListenOptions],
) -> Opening[FrameServer[MessageT]]:
    """Start a server: ``await`` it, or use it in ``async with``.

    What a client does wrong (a bad frame, a reset, an end inside a frame, a client gone before the
    answer, a failed TLS handshake) ends its connection alone, and is logged once as a WARNING on
    the logger ``framecodec``. What else the handler raises is logged there with its traceback. An
    exception handler that the program has set with ``loop.set_exception_handler`` gets it, too,
    unless it is an `EOFError`, a `FrameError`, a `ConnectionError` or an `ssl.SSLError`.

    Args:
        handler: ``async def handler(stream)`` serves one connection, in its own task; the stream is
            closed after it.
        host: A host, with `port`, or a sequence of hosts; None for all interfaces. Or the address,
            as for `open_connection`.
        port: TCP port; 0 for any that is free; or the codec, after an address.
        codec: The shape of the frames; ``Codec.uint(4)`` where none is given.
        ssl: A context with the server's certificate: connections are encrypted.
        keepalive: True, or seconds of quiet before TCP's first probe.
        max_connections: The number of connections that are served at a time; more clients wait
            unaccepted. None: no limit.
        message_timeout: As for `open_connection`: against peers that send a byte now and then.
        idle_timeout: As for `open_connection`: against peers that send nothing.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: As for `open_connection`. The error of ``connection_closed`` may also be what the
            handler has raised.
        **kwargs: As for asyncio's ``loop.create_server``: reuse_port, backlog, sock, ...

    Returns:
        The server, when it is awaited. It listens already; its ``address`` has the port.

    Raises:
        OSError: The address is not available; the error names it.
        TypeError, ValueError, OverflowError: An argument is invalid; nothing listens.
        NotImplementedError: `max_connections`, in an event loop without ``add_reader`` (asyncio's
            ``ProactorEventLoop``).
    """
    check_names("start_server", kwargs, ListenOptions)
    place, _ = _find_place(host, port, codec, kwargs.get("sock") is not None, ssl)
    check_server_context(ssl, host, place.is_tls)
    check_keepalive(keepalive)
    options = check_options(
        place.codec,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
    )
    passed_on: dict[str, Any] = {**kwargs}
    if ssl is not None:
        passed_on["ssl"] = ssl
    make = _server_maker(handler, place.codec, max_connections, keepalive, options)
    return Opening(_start(make, place, passed_on))


def _server_maker(handler: Handler[Any], *arguments: Any) -> Callable[[], FrameServer[Any]]:
    """Return a function that makes the server, in the event loop."""
    check_handler(handler)
    return lambda: FrameServer(handler, *arguments)


async def _start(
    make: Callable[[], FrameServer[Any]], place: Place, kwargs: dict[str, Any]
) -> FrameServer[Any]:
    server = make()
    loop = server.get_loop()
    try:
        if _is_unix(place, kwargs.get("sock")):
            path = None if isinstance(place.address, tuple) else place.address
            return await server._listen(loop.create_unix_server, path, **kwargs)
        return await server._listen(loop.create_server, *place.address[:2], **kwargs)
    except OSError as error:
        if kwargs.get("sock") is None:
            name_address(error, peer_name(place.address, None))
        raise


def start_unix_server(
    handler: Handler[MessageT],
    path: str | os.PathLike[str] | None = None,
    codec: Codec[MessageT] | None = None,
    *,
    ssl: ssl_module.SSLContext | None = None,
    max_connections: int | None = None,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
    **kwargs: Unpack[UnixListenOptions],
) -> Opening[FrameServer[MessageT]]:
    """Start a server on a Unix socket at a path; otherwise like `start_server`.

    Args:
        handler: As for `start_server`.
        path: The path of the socket; None with ``sock=``.
        codec: As for `start_server`.
        ssl: As for `start_server`.
        max_connections: As for `start_server`.
        message_timeout: As for `open_connection`.
        idle_timeout: As for `open_connection`.
        on_oversize: As for `open_connection`.
        on_invalid: As for `open_connection`.
        observer: As for `start_server`.
        **kwargs: As for asyncio's ``loop.create_unix_server``.
    """
    check_names("start_unix_server", kwargs, UnixListenOptions)
    return start_server(
        handler,
        None if path is None else _UnixPath(path),
        codec,
        ssl=ssl,
        max_connections=max_connections,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
        **cast(ListenOptions, kwargs),
    )


@final
class _UnixPath(os.PathLike[str]):
    """A path that is nothing else, whatever it looks like."""

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def __fspath__(self) -> str:
        return self._path


def _is_unix(place: Place, sock: Any) -> bool:
    if sock is not None:
        return bool(sock.family == getattr(socket, "AF_UNIX", None))
    return not isinstance(place.address, tuple)
