"""The states of a connection's two directions.

A call that receives or sends enters a direction that is READY (or IDLE or HELD), makes it BUSY and
leaves it in the state that follows. Each event that ends a direction stores its own state at once,
so a call that leaves changes the state only if it is still BUSY::

                     call                    call ends
    receiving  READY ------> BUSY ----------------------------> READY
                               |  half of a message delivered -> HALF_DELIVERED (recv_file again)
                               |  the stream or the peer fails -> FAILED
                               |  received bytes are lost      -> LOST
                  close(), detach(), from any state            -> CLOSED

    sending    IDLE ------> BUSY  all is sent                  -> IDLE
               HELD               bytes are unsent             -> HELD
                                  nothing more can be sent     -> FAILED
                                  the count of sent bytes is lost -> LOST
                  close(), detach(), from any state            -> CLOSED
"""

from __future__ import annotations

from enum import Enum

__all__ = ["ReceiveState", "SendState", "SocketState"]


class SocketState(Enum):
    """Who owns the socket of a wrapper."""

    OPEN = "the wrapper owns the socket"
    DETACHED = "the caller of detach() owns the socket"
    CLOSED = "the socket is closed"


class ReceiveState(Enum):
    """What the next call that receives may do."""

    READY = "a call may receive"
    BUSY = "a call is receiving"
    HALF_DELIVERED = "recv_file() or recv_into() has delivered a part of a message"
    FAILED = "the inbox holds the failure"
    LOST = "bytes were received and are lost"
    CLOSED = "the connection was closed or detached on this side"


class SendState(Enum):
    """What the next call that sends may do."""

    IDLE = "no bytes are held: a message may go straight to the kernel"
    HELD = "bytes may be held: they are sent before the next message"
    BUSY = "a call is sending"
    FAILED = "the sending side holds the failure"
    LOST = "bytes were sent and their number is lost"
    CLOSED = "the connection was closed or detached on this side"
