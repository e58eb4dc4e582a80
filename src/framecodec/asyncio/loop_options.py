"""The options that connections and servers pass on to the event loop, for type checkers.

The names are those of asyncio's documentation: ``loop.create_connection``, ``loop.create_server``
and their twins for Unix sockets.
"""

from __future__ import annotations

import socket
from typing import Any, TypedDict

__all__ = ["ConnectOptions", "ListenOptions", "UnixConnectOptions", "UnixListenOptions"]


class UnixConnectOptions(TypedDict, total=False):
    """The options of ``loop.create_unix_connection``."""

    sock: socket.socket | None
    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None


class ConnectOptions(UnixConnectOptions, total=False):
    """The options of ``loop.create_connection``."""

    family: int
    proto: int
    flags: int
    local_addr: Any
    happy_eyeballs_delay: float | None
    interleave: int | None
    all_errors: bool


class UnixListenOptions(TypedDict, total=False):
    """The options of ``loop.create_unix_server``."""

    sock: socket.socket | None
    backlog: int
    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None
    start_serving: bool
    cleanup_socket: bool


class ListenOptions(TypedDict, total=False):
    """The options of ``loop.create_server``."""

    family: int
    flags: int
    sock: socket.socket | None
    backlog: int
    reuse_address: bool | None
    reuse_port: bool | None
    keep_alive: bool | None
    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None
    start_serving: bool
