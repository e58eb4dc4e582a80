"""What is sent in one turn of an event loop, in Python.

It reads as the specification of the compiled twin, `_turn.pyx`. Small messages of one turn leave in
one write. Until then a message costs a place in a list: that is the short way, taken here. Whatever
is unusual is left to the protocol: the first message of a turn, a large or a full one, a slow peer.
"""

from __future__ import annotations

from typing import Any, final

__all__ = ["Turn"]


@final
class Turn:
    """The small messages of one turn of an event loop.

    Args:
        protocol: Whose they are: its ``_put`` and ``_put_and_wait`` take all other messages.
        room: Bytes that a turn may gather.
    """

    __slots__ = ("_most", "_protocol", "messages", "paused", "quick", "room", "sent")

    def __init__(self, protocol: Any, room: int) -> None:
        self._protocol = protocol
        self._most = room
        self.messages: list[bytes] = []
        """What waits, in order."""
        self.room = room
        """Bytes that may still be gathered."""
        self.quick = 0
        """Smaller messages of type `bytes` may simply wait; 0 while no flush is certain to come."""
        self.paused = True
        """The transport wants no more; true before there is one."""
        self.sent: Any = None
        """What `send_and_wait` returns where there is nothing to wait for."""

    def send(self, message: object, /) -> None:
        """Takes one message, as `FrameProtocol.send`."""
        if type(message) is bytes and len(message) < self.quick and len(message) < self.room:
            self.messages.append(message)
            self.room -= len(message) + 8
        else:
            self._protocol._put(message)

    def send_and_wait(self, message: object, /) -> Any:
        """Takes one message, as `FrameStream.send`."""
        if (
            type(message) is bytes
            and len(message) < self.quick
            and len(message) < self.room
            and not self.paused
        ):
            self.messages.append(message)
            self.room -= len(message) + 8
            return self.sent
        return self._protocol._put_and_wait(message)

    def clear(self) -> None:
        """Forgets the messages: they have left, or never will."""
        self.messages.clear()
        self.room = self._most
