"""The short way through an event loop, in Python: what a message costs that need not wait.

It reads as the specification of the compiled twin, `_loop_io.pyx`. Small messages of one turn
leave in one write; until then a message costs a place in a list. One that is at hand is received
without a coroutine. Whatever is unusual is left to the protocol and its stream: the first message
of a turn, a large one, a slow peer, a wait.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, final

from . import _error_texts

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Done", "Messages", "Ready", "Turn"]

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
        raised = _exception_of(error)
        raised.message_started = True
        raise raised

    def close(self) -> None:
        """As of a coroutine that has run to its end."""

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


def _exception_of(error: tuple[Any, ...]) -> Any:
    """The exception that throw() was given: as one, or as its class, a value and a traceback."""
    raised = error[1] if len(error) > 1 and error[1] is not None else error[0]
    return raised() if isinstance(raised, type) else raised


DONE = Done()


@final
class Messages:
    """What ``async for`` goes through: messages at hand, and behind them those of the stream.

    Args:
        stream: Whose ``__anext__`` waits where none is at hand.
        emptied: Called when the last one at hand is about to be taken.
    """

    __slots__ = ("_emptied", "_stream", "head")

    _stream: Any
    _emptied: Callable[[], None]
    head: list[Any]
    """The messages at hand, the first one last."""

    def __new__(cls, stream: Any, emptied: Callable[[], None]) -> Self:
        self = super().__new__(cls)
        self._stream = stream
        self._emptied = emptied
        self.head = []
        return self

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Any:
        if len(self.head) == 1:
            self._emptied()  # before it is taken: where that fails, nothing is lost
        head = self.head  # other code ran, and may have taken it
        if head:
            # A signal handler that raises may do so after a call, so there is none.
            message = head[-1]
            del head[-1]
            return message
        return await self._stream.__anext__()

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


@final
class Ready:
    """The messages at hand, each taken by the step that gives it.

    An iterator, because a signal handler that raises is never run between an iterator's step and
    the line after it: no message is lost to it. It has no end, only nothing at hand.

    Args:
        messages: What they are taken from.
    """

    __slots__ = ("_messages",)

    _messages: Messages

    def __new__(cls, messages: Messages) -> Self:
        if not isinstance(messages, Messages):
            raise TypeError(f"Ready is of Messages, not of {messages!r}")
        self = super().__new__(cls)
        self._messages = messages
        return self

    def __iter__(self) -> Ready:
        return self

    def __next__(self) -> Any:
        messages = self._messages
        if len(messages.head) == 1:
            messages._emptied()
        head = messages.head
        if head:  # as in Messages.__anext__
            message = head[-1]
            del head[-1]
            return message
        raise StopIteration

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


@final
class Turn:
    """The small messages of one turn of an event loop.

    Args:
        protocol: Whose they are: its ``_put`` and ``_put_and_wait`` take all other messages.
        room: Bytes that a turn may gather.
    """

    __slots__ = ("_most", "_protocol", "messages", "paused", "queued", "quick", "room", "thread")

    _protocol: Any
    _most: int
    messages: list[bytes]
    """What waits, in order."""
    room: int
    """Bytes that may still be gathered."""
    quick: int
    """Smaller messages of type `bytes` may simply wait; 0 while no flush is certain to come."""
    paused: bool
    """The transport wants no more; true before there is one."""
    queued: bool
    """Others wait to send, and come first."""
    thread: int
    """Whose loop it is, by its identifier; no other one may add a message."""

    def __new__(cls, protocol: Any, room: int) -> Self:
        self = super().__new__(cls)
        self._protocol = protocol
        self._most = self.room = operator.index(room)
        self.messages = []
        self.quick = self.thread = 0
        self.paused = True
        self.queued = False
        return self

    def send(self, message: object, /) -> None:
        """Takes one message, as `FrameProtocol.send`."""
        if (
            type(message) is bytes
            and len(message) < self.quick
            and len(message) < self.room
            and self.thread == get_ident()
        ):
            # What can fail comes first: it is taken or it is not.
            room = self.room - len(message) - 8
            self.messages.append(message)
            self.room = room
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
            room = self.room - len(message) - 8
            self.messages.append(message)
            self.room = room
            return DONE
        return self._protocol._put_and_wait(message)

    def clear(self) -> None:
        """Forgets the messages: they have left, or never will."""
        self.messages.clear()
        self.room = self._most

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)
