"""Messages that are objects, on a `FrameSocket`.

The connection below works with bytes. The calls here turn them into objects when they are
delivered, so that everything that is not delivered yet can be handed over as it travelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn, final

from .. import errors
from .._objects import is_refusal, last_frame_starts, refused

if TYPE_CHECKING:
    from .._objects import ObjectFunctions
    from .._states import SocketState
    from ._fast_path_py import Batch
    from .receiving import ReceiveSide
    from .sending import SendSide

__all__ = ["ObjectCalls", "ObjectSide", "UnobservedObjectCalls"]


@final
class ObjectSide:
    """What a connection needs for messages that are objects.

    Args:
        functions: Those of the codec.
    """

    __slots__ = ("_located", "_starts", "loads")

    def __init__(self, functions: ObjectFunctions) -> None:
        self.loads = functions.loads
        # The stream positions of the last messages of a batch: so that many refused messages of
        # one batch do not each cost a look at all messages after them.
        self._located: Batch | None = None
        self._starts: list[int] = []

    def refuse(self, side: ReceiveSide, message: Any, cause: BaseException) -> NoReturn:
        """Raise the error about a message that was taken and that `loads` has refused.

        Args:
            side: The receive side that it was taken from.
            message: The message.
            cause: What `loads` raised. If that says nothing about the message, it is ready again.
        """
        receiver, inbox = side.receiver, side.inbox
        batch, layout = receiver.ready, inbox.codec.layout
        header = batch.last_header
        rest = batch.rest()
        headers = None if header is None else [header, *(batch.headers() if rest else ())]
        try:
            if not is_refusal(cause):
                again = side.fast_path.Batch([message, *rest], headers)
                for _ in batch.take_all:  # an iteration that began with it must not give them, too
                    receiver.ready = again
                raise cause
            if self._located is not batch:
                messages = [message, *rest]
                self._starts = last_frame_starts(inbox.splitter, layout, messages, headers)
                self._located = batch
            start = self._starts[-1 - len(rest)]
            raise refused(cause, message, start, header, layout) from cause
        finally:
            del cause  # whose traceback holds this frame: a cycle


class ObjectCalls:
    """The calls of `FrameSocket` that differ where its codec has objects."""

    __slots__ = ()

    if TYPE_CHECKING:
        _receiving: ReceiveSide
        _receiver: Any
        _sender: Any
        _sending: SendSide
        _state: SocketState

        def _batches(self) -> Iterator[Iterator[Any]]: ...

    def recv(self) -> Any:
        """Return the next message.

        Raises:
            InvalidMessageError: The codec refuses the message; the next call continues.
            EOFError, FrameError, OSError: As for messages that are bytes.
        """
        side = self._receiving
        objects = side.objects
        while True:
            try:
                for message in self._receiver:
                    try:
                        return objects.loads(message)
                    except BaseException as cause:
                        objects.refuse(side, message, cause)
            except errors.InvalidMessageError:
                raise
            except (OSError, errors.FrameError) as error:
                side.fail_fast_path(error)
            side.guard.call(side.fill)

    def recv_many(self) -> list[Any]:
        """Return all ready messages, or if there are none, those of the next receive.

        Returns:
            At least one message; those before one that the codec refuses.

        Raises:
            InvalidMessageError: The codec refuses the first message; the next call continues.
            EOFError, FrameError, OSError: As `recv`.
        """
        side, receiver = self._receiving, self._receiver
        while not receiver.ready:
            try:
                receiver.fetch()
            except (OSError, errors.FrameError) as error:
                side.fail_fast_path(error)
            if not receiver.ready:
                side.guard.call(side.fill)
        batch, loads = receiver.ready, side.objects.loads
        headers = None if side.inbox.splitter.headers is None else batch.headers()
        objects: list[Any] = []
        messages = batch.rest()
        try:
            for message in messages:
                objects.append(loads(message))
        except BaseException as cause:
            if not is_refusal(cause):
                raise
            if not objects:
                for message in batch.take:  # one step
                    side.objects.refuse(side, message, cause)
            # The next call raises it again.
            count = len(objects)
            again = side.fast_path.Batch(messages[count:], headers and headers[count:])
            for _ in batch.take_all:
                receiver.ready = again
            return objects
        for _ in batch.take_all:  # one step
            break
        return objects

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the messages until the clean end of the stream; errors are those of `recv`.

        After a message that the codec refuses, another iteration continues.
        """
        side = self._receiving
        loads = side.objects.loads
        for message in chain.from_iterable(self._batches()):
            try:
                message = loads(message)
            except BaseException as cause:
                side.objects.refuse(side, message, cause)
            yield message

    def send(self, message: Any, /) -> None:
        """Send one message.

        Args:
            message: An object for the codec, whose function is called once, at once.

        Raises:
            BaseException: What the function raises; nothing was taken.
            FrameError, TypeError, OSError: As for messages that are bytes.
        """
        super().send(self._sending.dumps(message))  # type: ignore[misc]

    def _send_small_file(self, message: bytes) -> None:
        super().send(message)  # type: ignore[misc]

    def send_many(self, messages: Iterable[Any], /) -> None:
        """Send many messages, in as few system calls as possible.

        Args:
            messages: As for `send`; all are encoded before anything is sent.

        Raises:
            BaseException: As `send`.
        """
        dumps = self._sending.dumps
        super().send_many([dumps(message) for message in messages])  # type: ignore[misc]


class UnobservedObjectCalls(ObjectCalls):
    """The calls of a connection without an observer: sending costs no second Python call."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _fail_to_send(self, error: BaseException) -> NoReturn: ...

    def send(self, message: Any, /) -> None:
        """Send one message, as `ObjectCalls.send`."""
        dumps = self._sending.dumps  # by its attribute a call would cost as much again
        message = dumps(message)
        try:
            taken = self._sender.send(message)
        except (OSError, MemoryError) as error:
            self._fail_to_send(error)
        if not taken:
            self._sending.send_all(self._sending.outbox.put, message)
        elif self._sender.unsent:
            self._sending.finish()
