"""The states of a connection: of each direction of a socket, and of a transport in an event loop.

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

In an event loop the transport reads and writes by itself, and one state says what this side still
does with it. A state only ever changes to one with a larger number::

    OPEN                   write_eof()         -> ENDING
    OPEN, ENDING           sending fails       -> FAILED
    OPEN, ENDING           close(), detach()   -> CLOSING
    FAILED                 close(), detach()   -> ABORTED
    CLOSING                sending fails       -> ABORTED
    all of the above       abort()             -> ABORTED
    CLOSING, ABORTED       connection_lost()   -> CLOSED
    OPEN, ENDING, FAILED   connection_lost()   -> LOST
"""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["ReceiveState", "SendState", "SocketState", "TransportState"]


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


class TransportState(IntEnum):
    """What this side still does with a transport.

    From CLOSING on no message is delivered; from FAILED on none is accepted; from CLOSED on the
    transport has ended.
    """

    OPEN = 0
    """Messages are accepted and delivered."""
    ENDING = 1
    """As OPEN, but write_eof() was called: accepted messages are sent, and no more are accepted."""
    FAILED = 2
    """Sending failed and unsent messages are dropped; what arrived before is delivered."""
    CLOSING = 3
    """Closed by this side: accepted messages are sent."""
    ABORTED = 4
    """Closed by this side: unsent messages are dropped."""
    CLOSED = 5
    """The connection has ended after this side had closed it."""
    LOST = 6
    """The connection has ended, and this side had not closed it."""
