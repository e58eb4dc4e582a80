"""Messages in datagrams: pack them, split them, and the largest size of a datagram."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import errors
from ._files import Refusal

if TYPE_CHECKING:
    from .codec import Codec

__all__ = ["largest_payload", "not_connected", "pack_frames", "split_datagram"]

# The largest payloads of UDP, by the width of its length field. (IPv6 does not count its own header
# in that length. Unix datagrams are limited by the socket's send buffer.)
_LARGEST_PAYLOADS = {socket.AF_INET: 65507, socket.AF_INET6: 65527}


def largest_payload(sock: socket.socket) -> int | None:
    """Return how many bytes fit into a datagram of this socket; None if only sending shows it."""
    return _LARGEST_PAYLOADS.get(sock.family)


def pack_frames(frames: Iterable[bytes], size: int) -> list[tuple[bytes, int]]:
    """Return datagrams with as many whole frames as fit, and the number of frames in each.

    Args:
        frames: The frames. One that is larger than `size` has its own datagram.
        size: The largest datagram, in bytes.
    """
    datagrams: list[tuple[bytes, int]] = []
    together: list[bytes] = []
    used = 0
    for frame in frames:
        if together and used + len(frame) > size:
            datagrams.append((b"".join(together), len(together)))
            together, used = [], 0
        together.append(frame)
        used += len(frame)
    if together:
        datagrams.append((b"".join(together), len(together)))
    return datagrams


def split_datagram(
    data: bytes, codec: Codec[Any] | None
) -> tuple[list[Any], tuple[errors.FrameError, ...]]:
    """Return the messages of one datagram, and the error that follows them, if there is one.

    A `Refusal` is in the place of each message that a codec with objects refuses.

    Args:
        data: The datagram.
        codec: The shape of the frames; None: the datagram is one message.
    """
    if codec is None:
        return [data], ()
    splitter = codec.splitter()
    messages: list[Any] = []
    again = True
    while again:
        again = False
        try:
            messages += splitter.feed(data)
            again = isinstance(splitter.error, errors.InvalidMessageError)
            if not again:
                splitter.feed_eof()
        except errors.InvalidMessageError as error:
            messages.append(Refusal(error.with_traceback(None)))
            again = True
        except errors.FrameError as error:
            return messages, (error.with_traceback(None),)
        data = b""
    return messages, ()


def not_connected(number: int) -> OSError:
    """Return the error about a datagram without an address on a socket that is not connected."""
    return OSError(
        number, "the datagram socket is not connected; use send_to(), or connect the socket first"
    )
