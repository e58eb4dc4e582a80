"""Messages that are objects, on a `FrameStream`.

The stream below works with bytes. The calls here turn them into objects when they are received, so
that what is not received yet can be handed over as it travelled, and counts with its own size.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from .._engine import asyncio_fast_path as fast_path
from .._objects import frame_starts, is_refusal, refused

if TYPE_CHECKING:
    from ..codec import Codec
    from .stream import StreamProtocol

__all__ = ["ObjectCalls", "Origin"]

Origin: TypeAlias = tuple[int, list[bytes] | None] | None
"""Where the last message of a batch ends in the stream, and the headers, if those are kept."""


class ObjectCalls:
    """The calls of `FrameStream` that differ where its codec has objects.

    Args:
        protocol: As for `FrameStream`.
    """

    if TYPE_CHECKING:
        _protocol: StreamProtocol
        _ready: Iterator[Any]
        codec: Codec
        send: Any

    def __init__(self, protocol: StreamProtocol) -> None:
        super().__init__(protocol)  # type: ignore[call-arg]
        functions = protocol.codec._objects
        assert functions is not None
        self._dumps = functions.dumps
        self._loads = functions.loads
        self._objects: Any = None
        # The stream positions of the last messages of a batch: so that many refused messages of
        # one batch do not each cost a look at all messages after them.
        self._starts: tuple[Origin, list[int]] = (None, [])
        send = protocol._sending.batch.send_and_wait
        self.send = fast_path.ObjectSender(self._dumps, send).send

    def send_many(self, messages: Iterable[Any], /) -> Coroutine[Any, Any, None]:
        """Send many messages, all or none.

        Args:
            messages: Objects for the codec, in order.
        """
        dumps = self._dumps
        sent: Coroutine[Any, Any, None] = super().send_many(  # type: ignore[misc]
            [dumps(message) for message in messages]
        )
        return sent

    async def recv(self) -> Any:
        """Return the next message. Do not suspend while one is ready.

        Raises:
            InvalidMessageError: The codec refuses the message; the next call continues.
            EOFError, FrameError, OSError, RuntimeError: As for messages that are bytes.
        """
        for message in self._ready:
            try:
                return self._loads(message)
            except BaseException as cause:
                self._refuse(message, cause)
        message = await super().recv()  # type: ignore[misc]
        try:
            return self._loads(message)
        except BaseException as cause:
            self._refuse(message, cause)

    async def recv_many(self) -> list[Any]:
        """Return all messages that are ready; wait for the first one.

        Returns:
            At least one message, in order; those before one that the codec refuses.

        Raises:
            EOFError, FrameError, OSError, RuntimeError: As `recv`.
        """
        messages = [await self.recv()]
        protocol, loads = self._protocol, self._loads
        while True:
            protocol.take_batch()
            head = protocol.messages.head
            if not head:
                return messages
            try:
                messages.append(loads(head[-1]))
            except Exception as cause:  # the next call raises it again
                if not is_refusal(cause):
                    raise
                return messages
            for _ in self._ready:
                break

    def _refuse(self, message: Any, cause: BaseException) -> NoReturn:
        """Raise the error about a message that was taken and that `loads` has refused."""
        protocol = self._protocol
        head, origin, layout = protocol.messages.head, protocol.head_origin, self.codec.layout
        try:
            if not is_refusal(cause):  # it says nothing about the message, which is ready again
                head.append(message)
                raise cause
            assert origin is not None
            end, headers = origin
            if self._starts[0] is not origin:
                rest = head[::-1]
                kept = None if headers is None else headers[-1 - len(rest) :]
                self._starts = origin, frame_starts(layout, end, [message, *rest], kept)
            position = -1 - len(head)
            header = None if headers is None else headers[position]
            raise refused(cause, message, self._starts[1][position], header, layout) from cause
        finally:
            del cause  # whose traceback holds this frame: a cycle

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._objects is None:
            messages = self._protocol.messages
            self._objects = fast_path.ObjectIterator(messages, self._loads, self._refuse)
        objects: AsyncIterator[Any] = self._objects
        return objects
