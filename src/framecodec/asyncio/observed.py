"""What is done only for a connection that has an observer, or that has failed to send."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import errors
from .._bytes_like import list_of_messages
from .._observer import frame_size
from .._states import TransportState
from .sending import SendSide

if TYPE_CHECKING:
    from ..codec import Codec
    from .protocol import FrameProtocol

__all__ = ["ObservedSendSide", "conn_of", "end_reason", "note_sent", "receive_rest"]

# Reads of what the kernel holds after a failed send; one gets at least 4 KiB.
_LAST_READS = 2048


class ObservedSendSide(SendSide):
    """The send side of a connection with an observer. No message takes the fast path."""

    __slots__ = ()

    def __init__(self, protocol: FrameProtocol[Any], codec: Codec[Any]) -> None:
        super().__init__(protocol, codec)
        self.fast_size = 0

    def use(self, codec: Codec[Any]) -> None:
        """As `SendSide.use`."""
        super().use(codec)
        self.fast_size = self.batch.fast_size = 0

    def put(self, message: object) -> None:
        """As `SendSide.put`."""
        size = frame_size(self.codec, message)
        super().put(message)
        note_sent(self._protocol, size)

    def put_many(self, messages: Iterable[object]) -> None:
        """As `SendSide.put_many`."""
        messages = list_of_messages(messages)
        sizes = [frame_size(self.codec, message) for message in messages]
        super().put_many(messages)
        for size in sizes:
            note_sent(self._protocol, size)


def conn_of(protocol: FrameProtocol[Any]) -> object:
    """Return the connection as an observer gets it: a stream, or the protocol itself."""
    return getattr(protocol, "stream", protocol)


def note_sent(protocol: FrameProtocol[Any], size: int) -> None:
    """Tell the observer, if there is one, of a frame that was accepted."""
    observer = protocol._observer
    if observer is not None and observer.frame_sent is not None:
        observer.frame_sent(conn_of(protocol), size)


def end_reason(protocol: FrameProtocol[Any], failure: BaseException | None) -> BaseException | None:
    """Return why a connection ends, for an observer; None if one side has closed it.

    Args:
        protocol: The protocol of the connection.
        failure: The inbox's failure before the end.
    """
    sending, handler_error = protocol._sending, protocol._handler_error
    if sending.closed_here and isinstance(failure, ConnectionAbortedError):
        failure = None  # the end of a stream that was closed here
    reason = sending.error or failure or handler_error
    protocol._handler_error = None  # its traceback refers to this connection
    is_clean = isinstance(reason, EOFError) and not isinstance(reason, errors.FrameError)
    return None if is_clean else reason


def receive_rest(protocol: FrameProtocol[Any], exc: BaseException | None) -> None:
    """Receive what the kernel holds, if a send has failed: a transport reads no more then.

    Args:
        protocol: The protocol of the connection.
        exc: Why the connection ends.
    """
    sending = protocol._sending
    is_open = sending.state < TransportState.CLOSING
    if not isinstance(exc, OSError) or not is_open or sending.is_encrypted:
        return
    sock = sending.raw_transport.get_extra_info("socket")
    if os.name != "posix" or sock is None:
        return
    with (
        contextlib.suppress(OSError),
        # uvloop's socket has no recv_into(), but a copy of it does.
        socket.fromfd(sock.fileno(), sock.family, sock.type) as copy,
    ):
        for _ in range(_LAST_READS):
            count = copy.recv_into(protocol.get_buffer(-1), 0, socket.MSG_DONTWAIT)
            if not count:
                return
            protocol.buffer_updated(count)
