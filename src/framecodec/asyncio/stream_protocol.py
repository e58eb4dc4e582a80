"""The protocol of a `FrameStream`: it queues messages, and stops a peer that is faster.

The protocol appends the messages of each read to a queue, from which `FrameStream.recv` takes them.
A slow reader stops its peer through TCP: above a mark the stream stops reading. Nothing is removed
from the queue before the caller has it: this is all that cancellation needs. One step without a
call removes each message, so that neither a signal handler that raises nor a garbage collection
that receives loses or doubles one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from itertools import chain
from threading import get_ident
from typing import Any

from .. import _error_texts
from .._engine import asyncio_fast_path as fast_path
from .._objects import end_of_frames
from .._states import TransportState
from ..codec import Codec
from .back_pressure import ObservedWaitingSendSide, WaitingSendSide
from .observed import receive_rest
from .pipe_transport import give_bytes
from .stream import FrameStream, ObjectStream
from .unframed import (
    ReadMessages,
    UnframingProtocol,
    for_recv,
    in_order,
)

__all__ = ["StreamProtocol"]

# A stream that has stopped reading reads again at this mark. It counts as the high one of
# `_fast_path_py`.
_LOW_WATER = 64 * 1024

_OPEN, _CLOSING, _CLOSED = TransportState.OPEN, TransportState.CLOSING, TransportState.CLOSED


if sys.version_info >= (3, 12):
    _current_task = asyncio.current_task  # pragma: no cover (the session of coverage runs on 3.11)
else:  # that of Python 3.11 is slow: it is asked before each task that a read wakes

    def _current_task(
        tasks: dict[Any, Any] = asyncio.tasks._current_tasks,  # type: ignore[attr-defined]
        running_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.get_running_loop,
    ) -> asyncio.Task[Any] | None:
        return tasks.get(running_loop())


class StreamProtocol(UnframingProtocol):
    """The protocol of a `FrameStream`: a queue of messages, and the task that receives them.

    `recv` takes from ``_message_iterator.head``, a reversed list: the oldest message is at the end.
    `batches` are the later batches, the oldest first, each reversed in the same way. Their sizes
    are counted by the batch, not by the message.

    Args:
        codec: The shape of the frames.
        on_connection: Called with the stream when the connection is open; or None.
        **options: As for `FrameProtocol`.
    """

    __slots__ = (
        "_has_ended",
        "_on_connection",
        "_user_paused",
        "is_server",
        "ready",
        "stream",
    )

    _send_side = WaitingSendSide
    _observed_send_side = ObservedWaitingSendSide
    _always_receives = False  # a peer's time counts while a recv waits
    _keeps_headers = True
    _sending: WaitingSendSide
    _running_loop = staticmethod(asyncio.get_running_loop)
    _current_task = staticmethod(_current_task)

    def __init__(
        self,
        codec: Codec[Any],
        on_connection: Callable[[FrameStream], None] | None = None,
        **options: Any,
    ) -> None:
        # CPython finds the methods of an object faster if its class was never changed.
        objects = getattr(codec, "_objects", None) is not None
        self.stream: FrameStream[Any] = ObjectStream(self) if objects else FrameStream(self)
        """The stream that the user sees."""
        super().__init__(codec, **options)
        self._user_paused = False  # reading, by the stream's user
        self._has_ended = False  # the peer sends no more
        self._on_connection = on_connection
        self.is_server = on_connection is not None
        """This side accepted the connection."""
        self._message_iterator = fast_path.MessageIterator(self.stream, self.release_head)
        self._message_iterator.protocol = self
        self.ready = fast_path.ReadyIterator(self._message_iterator)
        self._forget_messages(0, 0)
        self.stream._bind(self._sending, self._objects)
        self._queues = True

    def _use_codec(self, codec: Codec[Any]) -> None:
        super()._use_codec(codec)
        if self._queues:  # __init__ has made the stream
            self.stream.__class__ = FrameStream if self._objects is None else ObjectStream
            self.stream._choose_calls(self._objects)

    # --- calls of the event loop ------------------------------------------------------------------

    def _begin(self, transport: Any) -> tuple[Any]:
        begun = super()._begin(transport)
        received, self._received = self._received, b""
        self._receive(received)
        on_connection, self._on_connection = self._on_connection, None
        if on_connection is not None:
            on_connection(self.stream)
        return begun

    def eof_received(self) -> bool:
        """Keep the connection open: the peer may still read."""
        self._has_ended = True
        self._sending.waiters.wake()  # an `aclose` that lingers
        return True

    def _end_of_frames(self) -> int:
        return end_of_frames(self._inbox.splitter, self.codec.layout)

    def data_received(self, data: bytes) -> None:
        """Take what a transport has read into its own memory.

        It is taken in pieces. No task runs between two of them: it could detach the connection, and
        the rest would be lost.
        """
        waiter, self._recv_waiter = self._recv_waiter, None
        try:
            give_bytes(self, data)
        finally:
            self._recv_waiter = waiter
            if waiter is not None:
                self._wake()
                if self._sending.state < _CLOSING:
                    self._sending.flush_soon()  # runs after the task's next step

    def _receive(self, data: bytes) -> None:
        super()._receive(data)
        if self.batches:
            self._wake()

    def _wake(self) -> None:
        waiter = self._recv_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _end_receiving(self, error: BaseException) -> None:
        inbox = self._inbox
        if inbox.failure is None or inbox.failure is error:
            inbox.fail(for_recv(error))
            try:
                if not self._reading_paused:
                    self._reading_paused = True
                    self._sending.raw_transport.pause_reading()
            finally:
                self._wake()

    def _on_eof(self) -> None:
        self._inbox.feed_eof()
        self._wake()

    def _end(self, exc: BaseException | None) -> tuple[BaseException | None]:
        inbox = self._inbox
        try:
            exc = self._sending.cause_of_end(exc)
            receive_rest(self, exc)
            if exc is not None:
                inbox.fail(for_recv(exc))
            elif self._sending.closed_here:
                inbox.fail(_error_texts.connection_closed())
            (error,) = super()._end(exc)
            if error is not None:
                inbox.fail(for_recv(error))
            return (error,)
        finally:
            self._wake_all()

    def _wake_all(self) -> None:
        """Wake all tasks that wait; if waking one of them fails, wake the others too."""
        waiters: list[Any] = [*self._sending.futures()]
        if self._recv_waiter is not None:
            waiters.append(self._recv_waiter)
        failure: BaseException | None = None
        for waiter in waiters:
            try:
                if not waiter.done():
                    waiter.set_result(None)
            except BaseException as error:
                failure = error
        if failure is not None:
            raise failure

    # --- calls of the stream ----------------------------------------------------------------------

    def _pause_reading(self) -> None:
        self._user_paused = True
        super()._pause_reading()

    def _resume_reading(self) -> None:
        self._user_paused = False
        if not self._reading_paused:
            super()._resume_reading()

    def check_no_recv_waits(self) -> None:
        """Raise a RuntimeError if a task waits in `recv`."""
        if self._recv_waiter is not None:
            raise _error_texts.another_recv_waits()

    def stop_receiving(self) -> None:
        """Let `recv` find the end of the stream after what has arrived; sending continues."""
        sending = self._sending
        if self._inbox.failure is not None or sending.state >= _CLOSING:
            return
        sock = sending.raw_transport.get_extra_info("socket")
        if os.name == "posix" and not sending.is_encrypted and sock is not None:
            # The loop reads what the kernel holds, and then the end. uvloop's socket has no
            # shutdown(), but a copy of it does.
            with (
                contextlib.suppress(OSError),  # the client was faster
                socket.fromfd(sock.fileno(), sock.family, sock.type) as copy,
            ):
                copy.shutdown(socket.SHUT_RD)
            return
        # TLS cannot end one direction alone: end it here.
        self._receiving_failed = True  # what is still read is ignored
        self._inbox.feed_eof()
        try:
            if not self._reading_paused:
                self._reading_paused = True
                sending.raw_transport.pause_reading()
        finally:
            self._wake()

    def _take_unread(self) -> bytes:
        return self.detach()

    @property
    def has_unread_bytes(self) -> bool:
        """Whether bytes were read that `recv` has not returned."""
        inbox = self._inbox
        unparsed = 0 if inbox.unframed is None else inbox.unframed.size
        return bool(
            self._message_iterator.head or self.batches or inbox.splitter.pending or unparsed
        )

    def start_waiting(self) -> fast_path.Waiter:
        """Return what a recv waits for, or raise the failure; no message is ready.

        The recv calls `check_no_recv_waits` before and `stop_waiting` after it.
        """
        if self._inbox.failure is not None:
            self._inbox.raise_failure()
        if self._sending.state >= _CLOSED:
            raise self._sending.closed_error()
        return self.begin_waiting()

    def take_all(self) -> list[Any]:
        """Return all messages that are there, in order."""
        if self._sending.batch.thread != get_ident():
            self._sending.check_thread()
        messages = self._message_iterator
        no_messages: list[Any] = []
        no_batches: list[ReadMessages] = []
        head, batches, held, head_size = (
            messages.head,
            self.batches,
            self._held,
            self._head_size,
        )
        messages.head, self.batches = no_messages, no_batches
        self._held = self._head_size = 0
        try:
            if head or len(batches) != 1:
                later = chain.from_iterable(map(in_order, batches))
                taken = list(chain(reversed(head), later))
            else:
                taken = batches[0][0][::-1]
            self._resume_when_low()
        except BaseException:
            messages.head, self.batches = head, batches
            self._held, self._head_size = held, head_size
            raise
        return taken

    def _resume_when_low(self) -> None:
        if self._reading_paused and self._held <= _LOW_WATER and self._inbox.failure is None:
            self._reading_paused = False
            sending = self._sending
            try:
                if sending.state < _CLOSING and not self._user_paused:
                    sending.raw_transport.resume_reading()
            except BaseException:
                self._reading_paused = True
                raise
