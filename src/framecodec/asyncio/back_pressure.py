"""Back-pressure on senders: the calls that wait while the peer is slow, first in, first out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

from .._engine import asyncio_fast_path as fast_path
from .._states import TransportState
from .observed import ObservedSendSide
from .sending import SENDS, SendSide
from .waiters import LARGE, QueuedSend, SendQueue, Waiters

if TYPE_CHECKING:
    from ..codec import Codec
    from .protocol import FrameProtocol

__all__ = ["ObservedWaitingSendSide", "WaitingSendSide"]

_CLOSED = TransportState.CLOSED

# Callers may treat it as a coroutine that has ended.
_COMPLETED: Coroutine[Any, Any, None] = cast(
    "Coroutine[Any, Any, None]", fast_path.CompletedAwaitable()
)


class WaitingSendSide(SendSide):
    """A send side whose callers wait while the peer is slow, first in, first out."""

    __slots__ = ("_queue", "transfers", "waiters")

    def __init__(self, protocol: FrameProtocol[Any], codec: Codec[Any]) -> None:
        super().__init__(protocol, codec)
        self._queue = SendQueue()  # sends that wait until the transport accepts more
        self.transfers: list[asyncio.Task[None]] = []
        """The files that are being sent."""
        self.waiters = Waiters()
        """Other tasks that wait, for space or for the end."""

    def put_and_wait(self, message: object) -> Coroutine[Any, Any, None]:
        """Accept one message that the batch did not take; return what to await."""
        batch = self.batch
        if batch.paused or batch.queued or batch.thread != get_ident():
            return self.call_and_wait(type(self).put, message)
        try:  # as call_and_wait(), without another call: most messages of a round trip come here
            self.put(message)
        except Exception as error:
            return _raise(error)
        return self._wait_after() if batch.paused else _COMPLETED

    def call_and_wait(
        self, put: Callable[[Any, Any], None], messages: Any
    ) -> Coroutine[Any, Any, None]:
        """Call `put`, at once unless the peer is slow; return what to await, errors included."""
        batch = self.batch
        if batch.thread != get_ident():
            return self._call_in_loop(put, messages)
        if batch.paused or batch.queued:
            return self._call_later(put, messages)
        try:
            put(self, messages)
        except Exception as error:
            return _raise(error)
        return self._wait_after() if batch.paused else _COMPLETED

    def _wait_after(self) -> Coroutine[Any, Any, None]:
        # The message is accepted: without memory to wait, do not wait.
        try:
            return self._finish_sending()
        except MemoryError:
            return _COMPLETED

    async def _call_in_loop(self, put: Callable[[Any, Any], None], messages: Any) -> None:
        """Send for another thread, which uses `asyncio.run_coroutine_threadsafe`."""
        self.check_thread()
        await self.call_and_wait(put, messages)

    async def _call_later(self, put: Callable[[Any, Any], None], messages: Any) -> None:
        send = QueuedSend(len(messages) if type(messages) is bytes else LARGE)
        try:
            await self._wait_in_queue(send)
            put(self, messages)
        except (asyncio.CancelledError, OSError) as error:
            if not hasattr(error, "message_started"):
                error.message_started = False  # type: ignore[union-attr]
            raise
        finally:
            del messages  # accepted: this frame does not keep it while the send waits
            self.leave_queue(send)
        if self.batch.paused:
            await self._finish_sending()

    async def _wait_in_queue(self, send: QueuedSend) -> None:
        """Wait until the transport accepts more and no send that came before waits."""
        batch, queue = self.batch, self._queue
        queue.enter(send)
        batch.queued = True
        while self.state in SENDS:
            await send.wait()
            if not batch.paused and queue.is_first(send):
                return

    async def enter_queue(self, send: QueuedSend) -> None:
        """Wait until no other send is before this one; those after it wait for `leave_queue`."""
        queue = self._queue
        if self.batch.paused or queue:
            await self._wait_in_queue(send)
        else:
            send.waiting.set_result(None)
            queue.enter(send)
            self.batch.queued = True

    def leave_queue(self, send: QueuedSend) -> None:
        """Let the next send follow."""
        queue = self._queue
        queue.leave(send)
        self.batch.queued = bool(queue)
        try:
            if not self.batch.paused:
                queue.wake_next()
        except BaseException as error:  # those that wait would do so for ever
            self.fail(error)
            raise

    async def _finish_sending(self) -> None:
        try:
            await self.wait_for_space()
        except asyncio.CancelledError as error:
            error.message_started = True  # type: ignore[attr-defined]
            raise
        except MemoryError:  # as in _wait_after()
            return
        if self.dropped:
            lost = self.closed_error()
            lost.message_started = True  # type: ignore[attr-defined]
            raise lost

    async def wait_for_space(self) -> None:
        """Wait until the transport has all messages and accepts more, or for the end."""
        if self.batch.paused and self.state in SENDS:
            await self.waiters.wait()

    async def wait_until_closed(self) -> None:
        """Wait for the end of the connection."""
        while self.state < _CLOSED:
            await self.waiters.wait()

    def _on_drained(self) -> None:
        super()._on_drained()
        # Tasks that have sent come first: the sends in the queue may fill the transport again.
        self.waiters.wake()
        self._queue.wake_next()

    def futures(self) -> list[asyncio.Future[None]]:
        """Return what all tasks wait for, to wake them at the end of the connection."""
        return [*self._queue.futures(), *self.waiters]


class ObservedWaitingSendSide(ObservedSendSide, WaitingSendSide):
    """The same for a connection with an observer."""

    __slots__ = ()


async def _raise(error: Exception) -> None:
    raise error
