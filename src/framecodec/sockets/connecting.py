"""Connect to a server."""

from __future__ import annotations

import errno
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any

from .._addresses import Address, find_place, host_and_port, unix_path
from .._message_types import MessageT
from .._options import OnInvalid, OnOversize, check_options
from .._peers import name_address, peer_name
from ..codec import Codec
from .base import check_keepalive, prepare
from .connection import FrameSocket

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import ssl as ssl_module

__all__ = ["connect", "new_unix_socket"]


def connect(
    address: Address,
    port: int | Codec[MessageT] | None = None,
    *,
    codec: Codec[MessageT] | None = None,
    timeout: float | None = None,
    ssl: ssl_module.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    keepalive: bool | float | None = None,
    received: Any = b"",
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
) -> FrameSocket[MessageT]:
    """Connect to a server. TCP_NODELAY is set: frames leave at once, Nagle's algorithm is off.

    Args:
        address: ``(host, port)``, IPv6 also with flow and scope; a host, with `port`; the path of
            a Unix socket; or a URL: ``tcp://host:port``, ``tls://host:port``, ``unix:path``.
        port: A port, where `address` is a host; or the codec.
        codec: The shape of the frames; ``Codec.uint(4)`` where none is given.
        timeout: Seconds that connecting may take, and later every call; None: any time.
        ssl: A context, or True for ``ssl.create_default_context()``, which is also the default for
            a ``tls://`` URL: the connection is encrypted, the handshake is part of connecting.
        server_hostname: The name that the server's certificate must have; the host where none is
            given.
        keepalive: True, or seconds of quiet before TCP's first probe.
        received: As for `FrameSocket`.
        message_timeout: As for `FrameSocket`.
        idle_timeout: As for `FrameSocket`.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: As for `FrameSocket`.

    Returns:
        The connection.

    Raises:
        OSError: The connection cannot be made; the error names the address. An `ssl.SSLError` if
            the handshake failed.
        TypeError, ValueError, OverflowError: An argument is invalid.
    """
    place = find_place(address, port, codec)
    check_keepalive(keepalive)
    options = check_options(
        place.codec,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
    )
    context = _client_context(ssl, place.is_tls, server_hostname)
    deadline = None if timeout is None else monotonic() + timeout
    try:
        sock = _connect(place.address, timeout)
        try:
            prepare(sock, keepalive)
            if context is not None:
                host = place.address[0] if isinstance(place.address, tuple) else None
                sock = _wrap(sock, context, server_hostname or host, deadline)
                sock.settimeout(timeout)
            return FrameSocket(sock, place.codec, received=received, **options)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        name_address(error, peer_name(place.address, None))
        raise


def _connect(address: Any, timeout: float | None) -> socket.socket:
    if isinstance(address, tuple):
        if len(address) == 2:
            return socket.create_connection(host_and_port(address), timeout)
        # as an IPv6 socket gives it, scope included
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    else:
        address = unix_path(address)
        sock = new_unix_socket(address)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _client_context(
    context: ssl_module.SSLContext | bool | None, is_tls: bool, server_hostname: str | None
) -> ssl_module.SSLContext | None:
    """Return the context of a TLS connection, or None for a plain one."""
    if not context and not is_tls:
        if server_hostname is not None:
            raise ValueError("server_hostname is for TLS; give ssl=, too, or a tls:// URL")
        return None
    if ssl is None:  # a Python without OpenSSL
        raise OSError(errno.EPROTONOSUPPORT, "this Python has no ssl module")
    return ssl.create_default_context() if not context or context is True else context


def _wrap(
    sock: socket.socket,
    context: ssl_module.SSLContext,
    server_hostname: str | None,
    deadline: float | None,
) -> socket.socket:
    """Return the encrypted connection, after its handshake."""
    encrypted = context.wrap_socket(
        sock, server_hostname=server_hostname, do_handshake_on_connect=False
    )
    try:
        if deadline is not None:
            encrypted.settimeout(max(deadline - monotonic(), 0.001))
        encrypted.do_handshake()
    except BaseException:
        encrypted.close()
        raise
    return encrypted


def new_unix_socket(_path: str | bytes) -> socket.socket:
    """Return a stream socket for a path.

    Raises:
        OSError: This system has no Unix sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets; use (host, port)")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
