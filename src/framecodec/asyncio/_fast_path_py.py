"""The fast path of a message through an event loop, in Python.

Read it as the specification of the compiled twin, `_fast_path.pyx`. The small messages of one
iteration of the loop leave in one write; until then a message costs a place in a list. A message
that is ready is received without a coroutine. The send side of the connection and its stream handle
everything else: the first message of an iteration, a large one, a slow peer, a wait.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, final

from .. import _error_texts

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "CompletedAwaitable",
    "MessageIterator",
    "ObjectIterator",
    "ObjectSender",
    "ReadyIterator",
    "SendBatch",
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

    __slots__ = ("_on_drained", "_stream", "head")

    _stream: Any
    _on_drained: Callable[[], None]
    head: list[Any]
    """The ready messages; the first one is the last of the list."""

    def __new__(cls, stream: Any, on_drained: Callable[[], None]) -> Self:
        self = super().__new__(cls)
        self._stream = stream
        self._on_drained = on_drained
        self.head = []
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


@final
class Waiter:
    """What a task waits for that receives: a future that can run the task at once.

    `run` is called when the transport has read a message: between tasks. There the waiting task can
    run without another iteration of the loop, and what it sends can leave in the same one. All else
    is as in asyncio's own future, of which one task waits for the end.

    Args:
        loop: The loop of the task.
        current_task: asyncio's function of that name.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_cancelled_by",
        "_context",
        "_current_task",
        "_done",
        "_loop",
    )

    _asyncio_future_blocking: bool  # asyncio takes what has it for a future
    _callback: Callable[[Any], object] | None
    _cancelled_by: tuple[object] | None  # what `cancel` was given
    _context: Any
    _current_task: Callable[[], object]
    _done: bool
    _loop: Any

    def __new__(cls, loop: Any, current_task: Callable[[], object]) -> Self:
        self = super().__new__(cls)
        self._loop = loop
        self._current_task = current_task
        self._callback = self._context = self._cancelled_by = None
        self._asyncio_future_blocking = self._done = False
        return self

    def run(self) -> bool:
        """End the wait, and run the task that waits. Return False if it can only run later."""
        callback, context = self._callback, self._context
        if self._done or callback is None or context is None or not self._is_between_tasks():
            self.set_result(None)
            return False
        started = False

        def start() -> None:
            nonlocal started
            started = self._done = True
            self._callback = self._context = None
            callback(self)

        try:
            context.run(start)
        except BaseException as error:
            if not started:
                self.set_result(None)
                if not isinstance(error, RuntimeError):  # something runs in the context
                    raise
                return False
            self._loop.call_soon(raise_error, error)  # it ends the program
        return True

    def _is_between_tasks(self) -> bool:
        try:
            return self._current_task() is None
        except RuntimeError:  # no loop runs
            return False

    def set_result(self, result: None, /) -> None:
        """End the wait; the task runs in the next iteration of the loop."""
        if not self._done:
            self._schedule()

    def cancel(self, msg: object = None) -> bool:
        """Cancel the wait. Return whether it had not ended."""
        if self._done:
            return False
        self._cancelled_by = (msg,)
        self._schedule()
        return True

    def _schedule(self) -> None:
        if self._callback is not None:
            self._loop.call_soon(self._callback, self, context=self._context)
        self._done = True
        self._callback = self._context = None

    def result(self) -> None:
        """Return None, or raise the error of a wait that was cancelled."""
        if self._cancelled_by is not None:
            raise _cancelled_error(self._cancelled_by[0])
        if not self._done:
            raise _not_ended()

    def exception(self) -> None:
        """Return None, or raise as `result`."""
        self.result()

    def done(self) -> bool:
        """Return whether the wait has ended."""
        return self._done

    def cancelled(self) -> bool:
        """Return whether the wait was cancelled."""
        return self._cancelled_by is not None

    def get_loop(self) -> Any:
        """Return the loop of the task that waits."""
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        """Call a function at the end of the wait: one that wakes the only task that waits."""
        if self._done:
            self._loop.call_soon(callback, self, context=context)
        elif self._callback is not None:
            raise _error_texts.another_recv_waits()
        else:
            self._callback, self._context = callback, context

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Call the function no more. Return how many were removed."""
        if self._callback is None or self._callback != callback:
            return 0
        self._callback = self._context = None
        return 1

    def __await__(self) -> Generator[Any, None, None]:
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        self.result()

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


def raise_error(error: BaseException) -> NoReturn:
    """Raise an error, as a callback of the loop."""
    raise error


def _cancelled_error(message: object) -> BaseException:
    from asyncio import CancelledError

    return CancelledError() if message is None else CancelledError(message)


def _not_ended() -> BaseException:
    from asyncio import InvalidStateError

    return InvalidStateError("the wait has not ended")
