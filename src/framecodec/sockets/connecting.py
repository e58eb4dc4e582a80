"""Connect to a server; addresses of connections."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, TypeAlias

from ..codec import DEFAULT_CODEC, Codec
from .base import set_nodelay
from .connection import FrameSocket

__all__ = [
    "Address",
    "connect",
    "host_and_port",
    "new_unix_socket",
    "unix_path",
]

Address: TypeAlias = (
    tuple[str, int] | tuple[str, int, int, int] | str | bytes | os.PathLike[str] | Any
)


def connect(
    address: Address,
    codec: Codec = DEFAULT_CODEC,
    *,
    timeout: float | None = None,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
) -> FrameSocket:
    """Connect to a server. TCP_NODELAY is set: frames leave at once, Nagle's algorithm is off.

    Args:
        address: ``(host, port)``, IPv6 also with flow and scope, or the path of a Unix socket.
        codec: The shape of the frames.
        timeout: Seconds that connecting may take, and later every call; None: any time.
        message_timeout: As for `FrameSocket`.
        idle_timeout: As for `FrameSocket`.

    Returns:
        The connection.

    Raises:
        OSError: The connection cannot be made.
        TypeError, ValueError, OverflowError: An argument is invalid.
    """
    if isinstance(address, tuple):
        sock = _connect_tcp(address, timeout)
    else:
        sock = new_unix_socket(path := unix_path(address))
        try:
            sock.settimeout(timeout)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
    try:
        return FrameSocket(sock, codec, message_timeout=message_timeout, idle_timeout=idle_timeout)
    except BaseException:
        sock.close()
        raise


def _connect_tcp(address: tuple[Any, ...], timeout: float | None) -> socket.socket:
    host, port = host_and_port(address)
    if len(address) == 4:  # as an IPv6 socket gives it, scope included
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
    else:
        sock = socket.create_connection((host, port), timeout)
    set_nodelay(sock)
    return sock


# --- addresses ------------------------------------------------------------------------------------


def host_and_port(address: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return the first two parts of an address.

    Raises:
        TypeError, OverflowError: They are not a host and a port.
    """
    if len(address) not in (2, 4):
        raise _bad_address(address)
    host, port = address[:2]
    if isinstance(port, int) and not 0 <= port <= 65535:  # the system would take its lowest bits
        raise OverflowError(f"port must be 0-65535, not {port}")
    return host, port


def unix_path(address: object) -> str | bytes:
    """Return the path of a Unix socket.

    Raises:
        TypeError: It is not one.
    """
    if not isinstance(address, str | bytes | os.PathLike):
        raise _bad_address(address)
    return os.fspath(address)


def _bad_address(address: object) -> TypeError:
    return TypeError(
        "an address is (host, port), (host, port, flowinfo, scope_id) or the path of a Unix "
        f"socket, not {address!r:.80}"
    )


def new_unix_socket(_path: str | bytes) -> socket.socket:
    """Return a stream socket for a path.

    Raises:
        OSError: This system has no Unix sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets; use (host, port)")
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
