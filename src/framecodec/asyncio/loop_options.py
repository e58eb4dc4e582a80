"""The options that connections and servers pass on to the event loop, for type checkers.

The names are those of asyncio's documentation: ``loop.create_connection``, ``loop.create_server``
and their twins for Unix sockets.
"""

from __future__ import annotations

import difflib
import socket
from collections.abc import Iterable
from typing import Any, TypedDict

__all__ = [
    "ConnectOptions",
    "ListenOptions",
    "UnixConnectOptions",
    "UnixListenOptions",
    "check_names",
]

# The options that functions of this package have themselves.
_OWN_OPTIONS = (
    "codec",
    "idle_timeout",
    "keepalive",
    "max_connections",
    "message_timeout",
    "observer",
    "on_invalid",
    "on_oversize",
    "received",
    "server_hostname",
    "ssl",
)


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


def check_names(function: str, given: Iterable[str], known: type) -> None:
    """Check the names of the options that will be passed on to the event loop.

    The event loop refuses an unknown one itself, but only when it is called, and in a text that
    names none of this package's functions. An option of a newer asyncio is passed on.

    Args:
        function: The name of the function that the caller has called.
        given: The names.
        known: The class of the options that the event loop is documented to take.

    Raises:
        TypeError: A name is ``timeout``, or looks like another one that is misspelled.
    """
    names = [*_OWN_OPTIONS, *known.__annotations__]
    for name in given:
        if name in names:
            continue
        text = f"{function}() got an unexpected keyword argument {name!r}"
        if name == "timeout":
            raise TypeError(
                f"{text}; bound any wait by 'async with asyncio.timeout(seconds):', and the peer's"
                " time by message_timeout= and idle_timeout="
            )
        similar = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
        if similar:
            raise TypeError(f"{text}; did you mean {similar[0]!r}?")
