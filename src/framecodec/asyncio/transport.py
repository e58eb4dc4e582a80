"""The transport that a protocol's user sees."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .. import _error_texts
from .._peers import peer_name

if TYPE_CHECKING:
    from .protocol import FrameProtocol
    from .sending import SendSide

__all__ = ["ProtocolTransport", "is_uvloops", "is_vectored", "open_socket_fd", "transport_peer"]

# asyncio's own transports: whether `writelines` sends without joining, and respects the high-water
# mark (CVE-2024-12254, fixed in 3.12.9 and 3.13.2).
_WRITELINES_IS_SOUND: Final = sys.version_info >= (3, 13, 2) or (
    (3, 12, 9) <= sys.version_info < (3, 13)
)

_TRANSPORTS_OF_SOCKETS: Final = frozenset(
    {
        "asyncio.selector_events._SelectorSocketTransport",
        "uvloop.loop.TCPTransport",
        "uvloop.loop.UnixTransport",
    }
)


class ProtocolTransport(asyncio.Transport):
    """A transport that keeps the order: messages sent before leave before what it writes.

    Args:
        protocol: The protocol of the connection.
        sending: Its send side.
        raw: The transport of the event loop.
    """

    __slots__ = ("_protocol", "_sending", "raw")

    def __init__(self, protocol: FrameProtocol[Any], sending: SendSide, raw: Any) -> None:
        self._protocol = protocol
        self._sending = sending
        self.raw = raw

    def __getattr__(self, name: str) -> Any:
        # A loop that uses a private name would overtake the unsent messages.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.raw, name)

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.raw!r}>"

    def __eq__(self, other: object) -> bool:
        return bool(self.raw == (other.raw if isinstance(other, ProtocolTransport) else other))

    def __hash__(self) -> int:
        return hash(self.raw)

    def close(self) -> None:
        """Close the connection when all accepted messages are sent."""
        self._sending.close()

    def abort(self) -> None:
        """Close the connection at once and drop the unsent messages."""
        self._sending.abort()

    def write(self, data: Any) -> None:
        """Send bytes, after all messages that were sent before."""
        self._sending.write(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send bytes, after all messages that were sent before."""
        self._sending.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """End this direction when all accepted messages are sent."""
        self._sending.write_eof()

    def get_write_buffer_size(self) -> int:
        """Return the unsent bytes, those of the event loop's transport included."""
        size: int = self.raw.get_write_buffer_size()
        return size + self._sending.unsent_size()

    # asyncio.Transport defines the following methods itself, so __getattr__ does not get them.

    def is_closing(self) -> bool:
        """Return whether the connection is closing or closed."""
        return self._sending.closed_here or bool(self.raw.is_closing())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the event loop's transport knows of the connection."""
        try:
            return self.raw.get_extra_info(name, default)
        except AttributeError:  # uvloop, for a Unix socket that is closed
            return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another protocol, after all accepted messages."""
        self._protocol._hand_over(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol in use."""
        protocol: asyncio.BaseProtocol = self.raw.get_protocol()
        return protocol

    def is_reading(self) -> bool:
        """Return whether the transport reads."""
        return bool(self.raw.is_reading())

    def pause_reading(self) -> None:
        """Stop reading."""
        self._protocol._pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._protocol._resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the transport calls pause_writing() and resume_writing()."""
        self.raw.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks, the low one first."""
        limits: tuple[int, int] = self.raw.get_write_buffer_limits()
        return limits

    def can_write_eof(self) -> bool:
        """Return whether one direction can be ended."""
        return bool(self.raw.can_write_eof())


def transport_peer(transport: Any) -> str:
    """Return the name of a transport's peer; empty if it has none."""
    try:
        peer = transport.get_extra_info("peername")
        here = None if peer else transport.get_extra_info("sockname")
    except OSError:  # uvloop, for a pipe
        return ""
    return peer_name(peer, here if isinstance(here, str | bytes) else None)


def is_uvloops(transport: Any) -> bool:
    """Return whether the transport is one of uvloop's."""
    return type(transport).__module__.startswith("uvloop")


def is_vectored(transport: Any) -> bool:
    """Return whether the transport copies neither what `writelines` nor what `write` gets.

    A transport that encrypts does: it copies everything at once.
    """
    module = type(transport).__module__
    return is_uvloops(transport) or (module.startswith("asyncio.") and _WRITELINES_IS_SOUND)


def open_socket_fd(transport: Any) -> int:
    """Return the file descriptor of a transport that gives the kernel bytes as they are; else -1.

    Only such as asyncio and uvloop make for sockets of POSIX systems: bytes that are sent by the
    descriptor then leave after all that the transport has sent, if it holds none.
    """
    kind = type(transport)
    name = f"{kind.__module__}.{kind.__name__}"
    if name not in _TRANSPORTS_OF_SOCKETS or sys.platform == "win32":
        return -1
    fd: int = transport.get_extra_info("socket").fileno()
    return fd
