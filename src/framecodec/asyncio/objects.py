"""Messages that are objects, on a `FrameStream`.

The stream below works with bytes. The calls here turn them into objects when they are received, so
that what is not received yet can be handed over as it travelled, and counts with its own size.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from .._engine import asyncio_fast_path as fast_path
from .._objects import frame_starts, is_refusal, refused

if TYPE_CHECKING:
    from .._objects import ObjectFunctions
    from ..codec import Codec
    from .stream_protocol import StreamProtocol

__all__ = ["ObjectCalls"]


class ObjectCalls:
    """The calls of `FrameStream` that differ where its codec has objects."""

    if not TYPE_CHECKING:
        __slots__ = ()

    if TYPE_CHECKING:
        _dumps: Callable[[Any], Any]
        _loads: Callable[[Any], Any]
        _objects: Any
        _protocol: StreamProtocol
        _ready: Iterator[Any]  # of the objects that need no wait
        # The stream positions of the last messages of a batch, and where it ends: so that many
        # refused messages of one batch do not each cost a look at all messages after them.
        _starts: tuple[int, list[int]]
        codec: Codec[Any]
        send: Any

    def _choose_calls(self, functions: ObjectFunctions | None) -> None:
        assert functions is not None
        self._dumps, self._loads = functions.dumps, functions.loads
        protocol = self._protocol
        self._objects = fast_path.ObjectIterator(
            protocol._message_iterator, self._loads, self._refuse
        )
        self._ready = fast_path.ReadyObjects(self._objects)
        self._starts = -1, []
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

    async def recv_many(self) -> list[Any]:
        """Return all messages that are ready; wait for the first one.

        Returns:
            At least one message, in order; those before one that the codec refuses.

        Raises:
            InvalidMessageError: The codec refuses the first message; the next call continues.
            EOFError, FrameError, OSError, RuntimeError: As `recv`.
        """
        protocol, loads = self._protocol, self._loads
        while not (protocol._message_iterator.head or protocol.batches):
            protocol.check_no_recv_waits()
            if protocol.is_unframed:
                protocol.reframe()
            if not protocol.batches:
                try:
                    await protocol.start_waiting()
                finally:
                    protocol.stop_waiting()
        objects: list[Any] = []
        messages = [
            reversed(protocol._message_iterator.head),
            *(reversed(one[0]) for one in protocol.batches),
        ]
        try:
            for message in chain.from_iterable(messages):
                objects.append(loads(message))
        except Exception as cause:
            if not is_refusal(cause):
                raise  # nothing was taken
            for _ in objects or (None,):  # after other messages, the next call raises it again
                protocol.take_batch()
                for message in protocol.ready:  # one step
                    if not objects:
                        self._refuse(message, cause)
                    break
        else:
            protocol.take_all()
        return objects

    def _refuse(self, message: Any, cause: BaseException) -> NoReturn:
        """Raise the error about a message that was taken and that `loads` has refused."""
        protocol = self._protocol
        head, layout = protocol._message_iterator.head, self.codec.layout
        try:
            if not is_refusal(cause):  # it says nothing about the message, which is ready again
                head.append(message)
                raise cause
            end, headers = protocol.end_of_head(), protocol._head_headers
            if self._starts[0] != end:
                rest = head[::-1]
                kept = None if headers is None else headers[-1 - len(rest) :]
                gaps = protocol._head_gaps or []
                self._starts = end, frame_starts(layout, end, [message, *rest], kept, gaps)
            position = -1 - len(head)
            header = None if headers is None else headers[position]
            raise refused(cause, message, self._starts[1][position], header, layout) from cause
        finally:
            del cause  # whose traceback holds this frame: a cycle

    def __aiter__(self) -> AsyncIterator[Any]:
        objects: AsyncIterator[Any] = self._objects
        return objects
