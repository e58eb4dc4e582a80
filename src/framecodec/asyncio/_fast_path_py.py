"""The fast path of a message through an event loop, in Python.

Read it as the specification of the compiled twin, `_fast_path.pyx`. The small messages of one
iteration of the loop leave in one write; until then a message costs a place in a list. A message
that is ready is received without a coroutine. The send side of the connection and its stream handle
everything else: the first message of an iteration, a large one, a slow peer, a wait.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, final

from .. import _error_texts
from .._event_loop_py import (
    FIRST_READ_SIZE,
    MESSAGE_COST,
    READ_SIZE,
    ReceivePath,
    SendPath,
    Waiter,
)

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "FIRST_READ_SIZE",
    "MESSAGE_COST",
    "READ_SIZE",
    "CompletedAwaitable",
    "MessageIterator",
    "ObjectIterator",
    "ObjectSender",
    "ReadyIterator",
    "ReadyObjects",
    "ReceivePath",
    "SendBatch",
    "SendPath",
    "Waiter",
]

_NOTHING: Iterator[None] = iter(())


@final
class CompletedAwaitable:
    """An awaitable whose work is done. ``create_task`` takes it for a coroutine."""

    __slots__ = ()

    def __await__(self) -> Iterator[None]:
        return _NOTHING

    def send(self, value: object) -> None:
        """End at once, as a coroutine without a wait does."""
        raise StopIteration

    def throw(self, *error: Any) -> None:
        """Raise the exception: a task was cancelled before its first step."""
        raised = _exception_of(error)
        raised.message_started = True
        raise raised

    def close(self) -> None:
        """Do nothing, as a coroutine that has ended does."""

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


def _exception_of(error: tuple[Any, ...]) -> Any:
    """Return the exception that throw() was given: as one, or as class, value and traceback."""
    raised = error[1] if len(error) > 1 and error[1] is not None else error[0]
    return raised() if isinstance(raised, type) else raised


COMPLETED = CompletedAwaitable()


@final
class MessageIterator:
    """The asynchronous iterator of a stream: first the ready messages, then those to wait for.

    Args:
        stream: The stream; its ``__anext__`` waits for a message.
        on_drained: Called just before the last ready message is taken.
    """

    __slots__ = ("_on_drained", "_stream", "head", "protocol")

    protocol: Any
    """The protocol of the stream, or None. The compiled twin waits without the stream then."""
    _stream: Any
    _on_drained: Callable[[], None]
    head: list[Any]
    """The ready messages; the first one is the last of the list."""

    def __new__(cls, stream: Any, on_drained: Callable[[], None]) -> Self:
        self = super().__new__(cls)
        self._stream = stream
        self._on_drained = on_drained
        self.head = []
        self.protocol = None
        return self

    def __aiter__(self) -> MessageIterator:
        return self

    async def __anext__(self) -> Any:
        if len(self.head) == 1:
            self._on_drained()  # before the message is taken: if that fails, nothing is lost
        head = self.head  # other code ran, and may have taken the message
        if head:
            # CPython runs signal handlers after a call: these lines make none.
            message = head[-1]
            del head[-1]
            return message
        return await self._stream.__anext__()

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


@final
class ObjectIterator:
    """The asynchronous iterator of a stream whose codec has objects.

    Args:
        messages: The iterator of the stream's messages, which are bytes.
        loads: Makes an object of a message.
        refuse: Called with a message and what `loads` raised for it; it raises.
    """

    __slots__ = ("_loads", "_messages", "_refuse")

    _messages: MessageIterator
    _loads: Callable[[Any], Any]
    _refuse: Callable[[Any, BaseException], Any]

    def __new__(
        cls,
        messages: MessageIterator,
        loads: Callable[[Any], Any],
        refuse: Callable[[Any, BaseException], Any],
    ) -> Self:
        self = super().__new__(cls)
        self._messages = messages
        self._loads = loads
        self._refuse = refuse
        return self

    def __aiter__(self) -> ObjectIterator:
        return self

    async def __anext__(self) -> Any:
        messages = self._messages
        if len(messages.head) == 1:
            messages._on_drained()
        head = messages.head
        if head:  # as in MessageIterator.__anext__
            message = head[-1]
            del head[-1]
            try:
                return self._loads(message)
            except BaseException as cause:
                self._refuse(message, cause)
        return await messages._stream.__anext__()

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


@final
class ObjectSender:
    """A function that makes a message of an object and sends it.

    Args:
        dumps: Makes a message of an object.
        send: Gets the message; what it returns is returned.
    """

    __slots__ = ("_dumps", "_send")

    _dumps: Callable[[Any], Any]
    _send: Callable[[Any], Any]

    def __new__(cls, dumps: Callable[[Any], Any], send: Callable[[Any], Any]) -> Self:
        self = super().__new__(cls)
        self._dumps = dumps
        self._send = send
        return self

    def send(self, message: Any, /) -> Any:
        """Send an object: this is ``send`` of a connection whose codec has objects."""
        return self._send(self._dumps(message))

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


@final
class ReadyIterator:
    """The ready messages of a stream; each step takes one.

    It is an iterator because CPython runs no signal handler between an iterator's step and the line
    that gets the value: a handler that raises loses no message. StopIteration means that no message
    is ready yet; a later step may return one.

    Args:
        messages: The stream's iterator, which holds the messages.
    """

    __slots__ = ("_messages",)

    _messages: MessageIterator

    def __new__(cls, messages: MessageIterator) -> Self:
        if not isinstance(messages, MessageIterator):
            raise TypeError(f"messages must be a MessageIterator, not {messages!r}")
        self = super().__new__(cls)
        self._messages = messages
        return self

    def __iter__(self) -> ReadyIterator:
        return self

    def __next__(self) -> Any:
        messages = self._messages
        if len(messages.head) == 1:
            messages._on_drained()
        head = messages.head
        if head:  # as in MessageIterator.__anext__
            message = head[-1]
            del head[-1]
            return message
        raise StopIteration

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


@final
class ReadyObjects:
    """The ready objects of a stream; each step takes one, as `ReadyIterator` does.

    Args:
        objects: The stream's iterator, which knows the messages and the functions.
    """

    __slots__ = ("_objects", "_ready")

    _objects: ObjectIterator
    _ready: ReadyIterator

    def __new__(cls, objects: ObjectIterator) -> Self:
        if not isinstance(objects, ObjectIterator):
            raise TypeError(f"objects must be an ObjectIterator, not {objects!r}")
        self = super().__new__(cls)
        self._objects, self._ready = objects, ReadyIterator(objects._messages)
        return self

    def __iter__(self) -> ReadyObjects:
        return self

    def __next__(self) -> Any:
        objects = self._objects
        for message in self._ready:
            try:
                return objects._loads(message)
            except BaseException as cause:
                objects._refuse(message, cause)
        raise StopIteration

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


@final
class SendBatch:
    """The small messages that were sent in one iteration of an event loop.

    Args:
        owner: The send side of the connection: its ``put`` and ``put_and_wait`` take the messages
            that cannot be added here.
        budget: Bytes that one batch can hold.
    """

    __slots__ = ("_owner", "_size", "budget", "fast_size", "messages", "paused", "queued", "thread")

    _owner: Any
    _size: int
    messages: list[bytes]
    """The messages, in order."""
    budget: int
    """Bytes that can still be added."""
    fast_size: int
    """`bytes` objects with fewer bytes than this can be added; 0 unless a flush is certain."""
    paused: bool
    """The transport accepts no more. True before there is a transport."""
    queued: bool
    """Other sends wait, and come first."""
    thread: int
    """The identifier of the loop's thread. No other thread may add a message."""

    def __new__(cls, owner: Any, budget: int) -> Self:
        self = super().__new__(cls)
        self._owner = owner
        self._size = self.budget = operator.index(budget)
        self.messages = []
        self.fast_size = self.thread = 0
        self.paused = True
        self.queued = False
        return self

    def send(self, message: object, /) -> None:
        """Accept one message; this is `FrameProtocol.send`."""
        if (
            type(message) is bytes
            and len(message) < self.fast_size
            and len(message) < self.budget
            and self.thread == get_ident()
        ):
            # The steps that can fail come first: either all or none of these lines take effect.
            budget = self.budget - len(message) - 8
            self.messages.append(message)
            self.budget = budget
        else:
            self._owner.put(message)

    def send_and_wait(self, message: object, /) -> Any:
        """Accept one message and return an awaitable; this is `FrameStream.send`."""
        if (
            type(message) is bytes
            and len(message) < self.fast_size
            and len(message) < self.budget
            and not self.paused
            and not self.queued
            and self.thread == get_ident()
        ):
            budget = self.budget - len(message) - 8
            self.messages.append(message)
            self.budget = budget
            return COMPLETED
        return self._owner.put_and_wait(message)

    def clear(self) -> None:
        """Drop the messages: they were written, or never will be."""
        self.messages.clear()
        self.budget = self._size

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)
