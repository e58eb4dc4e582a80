"""One message in parts, as it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._states import ReceiveState
from .files import NO_BYTES, IncomingMessage, begin_message, finish_message, receive_some

if TYPE_CHECKING:
    from .receiving import ReceiveSide

__all__ = ["recv_parts"]


def recv_parts(side: ReceiveSide) -> Iterator[bytes]:
    """Receive a message in parts, as `FrameSocket.recv_parts`."""
    message: IncomingMessage | None = None
    while True:
        message = side.guard.call(_fill_part, side, message)
        part = bytes(message.chunk)
        if not part:
            return
        # No call from here to the caller: a signal handler that raises loses nothing.
        message.chunk = NO_BYTES
        yield part


def _fill_part(side: ReceiveSide, begun: IncomingMessage | None) -> IncomingMessage:
    """Receive the next part of a message, the one that was begun; none is left at its end."""
    receiver, inbox = side.receiver, side.inbox
    if begun is not None and inbox.direct is not begun:  # another call has finished it
        return IncomingMessage(layout=inbox.codec.layout, size=0)
    message = begin_message(side)
    receiver.state = ReceiveState.BUSY
    try:
        if not message.chunk and message.missing and not message.in_trailer:
            receive_some(side, message, message.buffer[: message.missing])
        if message.in_trailer or not message.chunk:
            finish_message(side, message)
        else:
            message.add_to_check(message.chunk)
        return message
    finally:
        if receiver.state is ReceiveState.BUSY:
            is_done = inbox.direct is None
            receiver.state = ReceiveState.READY if is_done else ReceiveState.HALF_DELIVERED
        if inbox.receiving:
            side.stop_clock()
