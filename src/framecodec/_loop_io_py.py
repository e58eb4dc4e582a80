"""The short way through an event loop, in Python: what a message costs that need not wait.

It reads as the specification of the compiled twin, `_loop_io.pyx`. Small messages of one turn
leave in one write; until then a message costs a place in a list. One that is at hand is received
without a coroutine. Whatever is unusual is left to the protocol and its stream: the first message
of a turn, a large one, a slow peer, a wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import get_ident
from typing import Any, final

__all__ = ["Done", "Messages", "Turn"]

_NOTHING: Iterator[None] = iter(())


@final
class Done:
    """An awaitable of something that is done. For ``create_task`` it passes for a coroutine."""

    __slots__ = ()

    def __await__(self) -> Iterator[None]:
        return _NOTHING

    def send(self, value: object) -> None:
        """As of a coroutine that ends at once."""
        raise StopIteration

    def throw(self, *error: Any) -> None:
        """As of a coroutine: a task that is cancelled before it has begun."""
        error[0].message_started = True
        raise error[0]

    def close(self) -> None:
        """As of a coroutine that has run to its end."""


DONE = Done()


@final
class Messages:
    """What ``async for`` goes through: messages at hand, and behind them those of the stream.

    Args:
        stream: Whose ``__anext__`` waits where none is at hand.
        emptied: Called when the last one at hand was taken.
    """

    __slots__ = ("_emptied", "_stream", "head")

    def __init__(self, stream: Any, emptied: Callable[[], None]) -> None:
        self._stream = stream
        self._emptied = emptied
        self.head: list[Any] = []
        """The messages at hand, the first one last."""

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Any:
        if self.head:
            message = self.head.pop()
            if not self.head:
                self._emptied()
            return message
        return await self._stream.__anext__()


@final
class Turn:
    """The small messages of one turn of an event loop.

    Args:
        protocol: Whose they are: its ``_put`` and ``_put_and_wait`` take all other messages.
        room: Bytes that a turn may gather.
    """

    __slots__ = ("_most", "_protocol", "messages", "paused", "queued", "quick", "room", "thread")

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
        self.queued = False
        """Others wait to send, and come first."""
        self.thread = 0
        """Whose loop it is, by its identifier; no other one may add a message."""

    def send(self, message: object, /) -> None:
        """Takes one message, as `FrameProtocol.send`."""
        if (
            type(message) is bytes
            and len(message) < self.quick
            and len(message) < self.room
            and self.thread == get_ident()
        ):
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
            and not self.queued
            and self.thread == get_ident()
        ):
            self.messages.append(message)
            self.room -= len(message) + 8
            return DONE
        return self._protocol._put_and_wait(message)

    def clear(self) -> None:
        """Forgets the messages: they have left, or never will."""
        self.messages.clear()
        self.room = self._most
