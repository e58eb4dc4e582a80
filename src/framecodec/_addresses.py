"""The forms of an address that all functions take which connect or listen."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from .codec import DEFAULT_CODEC, Codec, check_codec

__all__ = ["Address", "Place", "find_place", "host_and_port", "unix_path"]

Address: TypeAlias = (
    tuple[str, int] | tuple[str, int, int, int] | str | bytes | os.PathLike[str] | Any
)


class Place(NamedTuple):
    """Where to connect or to listen, and with which codec."""

    address: Any
    """``(host, port)``, ``(host, port, flowinfo, scope_id)`` or the path of a Unix socket."""
    codec: Codec[Any]
    is_tls: bool
    """Whether the address is a ``tls://`` URL."""


def find_place(address: Any, port: Any, codec: Codec[Any] | None) -> Place:
    """Read the arguments of a function that connects or listens.

    Args:
        address: ``(host, port)``, a host, the path of a Unix socket, or a URL:
            ``tcp://host:port``, ``tls://host:port``, ``unix:path``.
        port: The second positional argument: a port, a codec, or None.
        codec: The codec that was given by name, or None.

    Raises:
        TypeError, ValueError, OverflowError: An argument is invalid.
    """
    if isinstance(port, int):
        address = (address, port)
    elif port is not None:
        if codec is not None:
            raise TypeError("the codec was given twice, by position and by name")
        codec = port
    codec = check_codec(DEFAULT_CODEC if codec is None else codec)
    address, is_tls = _read_url(address) if isinstance(address, str) else (address, False)
    if isinstance(address, tuple):
        host_and_port(address)
    else:
        address = unix_path(address)
    return Place(address, codec, is_tls)


def _read_url(address: str) -> tuple[Any, bool]:
    """Return the address that a text means, and whether it demands TLS."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:"), False
    if re.match(r"(tcp|tls)://", address):
        parts = urlsplit(address)
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"{address!r} is not the address of a server: {error}") from None
        if port is None or parts.path or parts.query or parts.fragment or parts.username:
            raise ValueError(
                f"{address!r} is not the address of a server; "
                "write tcp://HOST:PORT or tls://HOST:PORT"
            )
        return (host or "", port), parts.scheme == "tls"
    if re.match(r"[a-z][a-z0-9+.-]*://", address):
        raise ValueError(
            f"{address!r} has an unknown scheme; "
            "write tcp://HOST:PORT, tls://HOST:PORT, or unix:PATH"
        )
    if address == "localhost" or _is_ip(address):
        host = f"[{address}]" if ":" in address else address
        raise ValueError(
            f"{address!r} is a host without a port, and would be the path of a Unix socket;"
            f" write ({address!r}, PORT), 'tcp://{host}:PORT', or 'unix:{address}'"
        )
    if re.fullmatch(r"[^/]*:\d+", address):
        host, _, number = address.rpartition(":")
        raise ValueError(
            f"{address!r} looks like a host and a port, and would be the path of a Unix socket;"
            f" write ({host!r}, {number}), 'tcp://{address}', or 'unix:{address}'"
        )
    return address, False


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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
        "an address is (host, port), (host, port, flowinfo, scope_id), the path of a Unix socket, "
        f"or a URL (tcp://host:port, tls://host:port, unix:path), not {address!r:.80}"
    )
