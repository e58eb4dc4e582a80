"""The name of a connection's peer, in errors, logs and `repr`."""

from __future__ import annotations

import os
import socket
from typing import Any, TypeVar

__all__ = ["name_address", "name_peer", "note_silence", "peer_name", "peer_of"]

_Error = TypeVar("_Error", bound=BaseException)


def peer_name(peer: Any, address: Any) -> str:
    """Return the name of a peer.

    Args:
        peer: The peer's address.
        address: This side's address, used where the peer has none.

    Returns:
        ``host:port``; for a Unix socket, whose clients have no name, the server's path. Empty if
        neither side has a name.
    """
    if isinstance(peer, tuple) and len(peer) >= 2:
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    name = peer or address
    if not name:
        return ""
    return os.fsdecode(name) if isinstance(name, str | bytes) else str(name)


def peer_of(sock: socket.socket) -> str:
    """Return the name of a socket's peer; empty if the socket is not connected or has none."""
    try:
        peer = sock.getpeername()
        return peer_name(peer, None if peer else sock.getsockname())
    except OSError:
        return ""


def name_peer(error: _Error, peer: str) -> _Error:
    """Append ``(peer host:port)`` to the text of an error, once.

    A `BlockingIOError` stays as it is: it is no failure, and programs raise it often.

    Args:
        error: The error of a connection.
        peer: The peer's name; if it is empty nothing is appended.

    Returns:
        The same error.
    """
    if not peer or isinstance(error, BlockingIOError):
        return error
    return _append(error, suffix := f"(peer {peer})", suffix)


def name_address(error: _Error, address: str) -> _Error:
    """Append the address that a function could not use to its error, once.

    Args:
        error: The error of a function that connects or listens.
        address: The address as text.

    Returns:
        The same error.
    """
    return _append(error, f"(address {address})", address)


def note_silence(error: BaseException) -> None:
    """Add a note to an error: nothing has come from the peer so far, which has a likely cause."""
    error.add_note(
        "The peer has sent nothing on this connection. If it should have answered, it may have"
        " refused what it got: check that both sides use the same codec, and look at its log."
    )


def _append(error: _Error, suffix: str, name: str) -> _Error:
    """Append to the text of an error that does not say a name yet."""
    if name in str(error):
        return error
    if isinstance(error, OSError) and error.strerror is not None:
        error.strerror = text = f"{error.strerror} {suffix}"
        error.args = (error.args[0], text, *error.args[2:])
    elif len(error.args) <= 1:
        error.args = (f"{error} {suffix}".lstrip(),)
    return error
