"""Messages that are objects, in a `FrameProtocol`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, overload

from .. import errors
from .._engine import asyncio_fast_path as fast_path
from .._kept_headers import frames_as_travelled
from .._message_types import MessageT, OfMessages, SpecialT
from .._objects import is_refusal, last_frame_starts, refused
from .._states import TransportState

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .._inbox import Inbox
    from .._objects import ObjectFunctions
    from ..codec import Codec
    from .sending import SendSide

__all__ = ["ObjectDelivery"]

_CLOSING = TransportState.CLOSING


class ObjectDelivery(fast_path.ReceivePath, OfMessages[MessageT]):
    """The part of `FrameProtocol` that makes objects of messages, and messages of objects."""

    if not TYPE_CHECKING:
        __slots__ = ("_send",)

    if TYPE_CHECKING:
        codec: Codec[Any]
        _inbox: Inbox
        _objects: ObjectFunctions | None  # None for messages that are bytes
        _send: Any
        _sending: SendSide
        send: Any

    def message_invalid(self, error: errors.InvalidMessageError) -> None:
        """Handle a message that a codec with objects refuses; the default closes the connection.

        It is called between the messages before and after that one. Override it to go on.

        Args:
            error: What is wrong; by default, `connection_lost` gets it.
        """
        self._receiving_failed = True
        self._end_receiving(error.with_traceback(None))

    def _use_codec(self, codec: Codec[Any]) -> None:
        """Use this codec: with its functions, where it has objects."""
        self.codec = codec
        self._objects = functions = codec._objects
        self._send = self._sending.batch.send
        if functions is not None:
            self._send = fast_path.ObjectSender(functions.dumps, self._send).send
        is_overridden = type(self).send.__qualname__ != "FrameProtocol.send"
        if not is_overridden and hasattr(self, "__dict__"):
            self.send = self._send

    @overload
    def send_many(
        self: ObjectDelivery[bytes | SpecialT], messages: Iterable[Buffer | SpecialT], /
    ) -> None: ...

    @overload
    def send_many(self, messages: Iterable[MessageT], /) -> None: ...

    def send_many(self, messages: Iterable[Any], /) -> None:
        """Send many messages, all or none.

        Args:
            messages: As for `send`, in order.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`, for the first invalid message;
                nothing is sent.
            ConnectionError: The connection is closed or lost.
            RuntimeError: The connection belongs to an event loop in another thread.
        """
        self._sending.put_many(self._messages_of(messages))

    # --- another codec ----------------------------------------------------------------------------

    def _messages_of(self, objects: Iterable[Any]) -> Iterable[Any]:
        """Return what is sent."""
        functions = self._objects
        if functions is None:
            return objects
        dumps = functions.dumps
        return [dumps(message) for message in objects]

    def _deliver_objects(self, messages: list[Any]) -> None:
        """Deliver the objects of messages, each refused one as an error in its place."""
        assert self._objects is not None
        loads, sending, codec = self._objects.loads, self._sending, self.codec
        headers = self._inbox.splitter.headers
        start = 0
        starts: list[int] | None = None
        while start < len(messages):
            objects: list[Any] = []
            error: errors.InvalidMessageError | None = None
            self._receiving = True
            for position in range(start, len(messages)):
                try:
                    objects.append(loads(messages[position]))
                except Exception as cause:
                    if not is_refusal(cause):
                        raise
                    if starts is None:
                        starts = self._frame_starts(messages)
                    error = self._refused(cause, messages[position], starts[position], position)
                    break
            start += len(objects) + 1
            self._receiving = False
            if objects:
                self.messages_received(objects)
            if self._switched is None and error is not None and sending.state < _CLOSING:
                self.message_invalid(error)
            if sending.state >= _CLOSING:
                return
            if self._switched is not None:
                if error is not None and objects:
                    start -= 1
                self._read_again(
                    codec, messages[start:], None if headers is None else headers[start:]
                )
                return

    def _read_again(
        self, codec: Codec[Any], messages: list[Any], headers: list[bytes] | None
    ) -> None:
        """Read messages that were not delivered before a switch with the codec after it."""
        assert self._switched is not None
        if not messages:
            return
        _, unread = self._switched
        splitter = self._inbox.splitter
        before = frames_as_travelled(codec, messages, headers, unread)
        before = before[: len(before) - splitter._delivered_padding()[1]]  # it is in `unread`
        read_again = before + unread[: len(unread) - len(splitter._unread())]
        self._switched = self._inbox.switch(self.codec, read_again), before + unread

    def _frame_starts(self, messages: list[Any]) -> list[int]:
        splitter = self._inbox.splitter
        return last_frame_starts(splitter, self.codec.layout, messages, splitter.headers)

    def _refused(
        self, cause: BaseException, message: Any, start: int, position: int
    ) -> errors.InvalidMessageError:
        headers = self._inbox.splitter.headers
        header = None if headers is None else headers[position]
        return refused(cause, message, start, header, self.codec.layout)
