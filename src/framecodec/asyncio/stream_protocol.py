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
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any

from .. import _error_texts
from .._engine import asyncio_fast_path as fast_path
from .._objects import end_of_frames
from .._states import TransportState
from ..codec import Codec
from .back_pressure import ObservedWaitingSendSide, WaitingSendSide
from .observed import receive_rest
from .stream import FrameStream, ObjectStream
from .unframed import (
    MESSAGE_COST,
    ReadMessages,
    UnframingProtocol,
    for_recv,
    in_order,
)

__all__ = ["StreamProtocol"]

# A stream stops reading above the high mark and reads again at the low one. Both count the bytes
# held for `recv`: the frames, and what a `bytes` object needs besides its content.
_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024

_OPEN, _CLOSING, _CLOSED = TransportState.OPEN, TransportState.CLOSING, TransportState.CLOSED


class StreamProtocol(UnframingProtocol):
    """The protocol of a `FrameStream`: a queue of messages, and the task that receives them.

    `recv` takes from ``messages.head``, a reversed list: the oldest message is at the end.
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
        "_waiter",
        "is_server",
        "messages",
        "stream",
    )

    _send_side = WaitingSendSide
    _observed_send_side = ObservedWaitingSendSide
    _always_receives = False  # a peer's time counts while a recv waits
    _keeps_headers = True
    _sending: WaitingSendSide

    def __init__(
        self,
        codec: Codec[Any],
        on_connection: Callable[[FrameStream], None] | None = None,
        **options: Any,
    ) -> None:
        self.stream = FrameStream(self)
        """The stream that the user sees."""
        super().__init__(codec, **options)
        self.batches: deque[ReadMessages] = deque()
        """The messages of each read, what they count in `_held`, and their headers if the splitter
        keeps those."""
        self._head_headers: list[bytes] | None = None  # those of `messages.head`, the oldest first
        self._head_size = 0  # what `messages.head` counts in `_held`
        self._held = 0  # bytes held for recv, as _HIGH_WATER counts them
        self._taken = 0  # stream position up to which messages were counted
        self._reading_paused = False  # by the stream, and ...
        self._user_paused = False  # ... by its user
        self._waiter: fast_path.Waiter | None = None  # of a recv that waits
        self._has_ended = False  # the peer sends no more
        self._on_connection = on_connection
        self.is_server = on_connection is not None
        """This side accepted the connection."""
        self.stream._bind(self._sending)
        self.messages = fast_path.MessageIterator(self.stream, self.release_head)
        """The stream's iterator."""
        self.stream._ready = fast_path.ReadyIterator(self.messages)
        if self._objects is not None:
            self._use_codec(codec)

    def _use_codec(self, codec: Codec[Any]) -> None:
        super()._use_codec(codec)
        if hasattr(self, "messages"):  # else __init__ does it later
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

    def _deliver(self, messages: list[Any]) -> None:
        messages.reverse()
        splitter = self._inbox.splitter
        taken = splitter.stream_offset
        if self._objects is not None:
            taken = end_of_frames(splitter, self.codec.layout)
        size = taken - self._taken + MESSAGE_COST * len(messages)
        self.batches.append((messages, size, splitter.headers))
        self._taken = taken
        self._held += size
        sending = self._sending
        if self._held > _HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            sending.raw_transport.pause_reading()
        if not self._receiving:
            self._wake()

    def buffer_updated(self, nbytes: int) -> None:
        """As `FrameProtocol.buffer_updated`. A task that waits for a message runs inside."""
        super().buffer_updated(nbytes)
        waiter = self._waiter
        if waiter is None or not self.batches or waiter.done():
            return
        # What the task sends leaves when its step is over, as what messages_received() sends.
        sending = self._sending
        flush_scheduled = sending.flush_scheduled
        if sending.state is _OPEN:
            sending.flush_scheduled = True
            sending.batch.fast_size = sending.fast_size
        has_run = False
        try:
            has_run = waiter.run()
        finally:
            if not flush_scheduled:
                if sending.state >= _CLOSED:
                    sending.batch.fast_size = 0
                elif has_run:
                    sending.flush()
                else:
                    sending.flush_scheduled = False
                    sending.batch.fast_size = 0
                    if sending.state < _CLOSING:
                        sending.flush_soon()  # runs after the task's next step

    def _receive(self, data: bytes) -> None:
        super()._receive(data)
        if self.batches:
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
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
        if self._waiter is not None:
            waiters.append(self._waiter)
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
        if self._waiter is not None:
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
        return bool(self.messages.head or self.batches or inbox.splitter.pending or unparsed)

    def start_waiting(self) -> fast_path.Waiter:
        """Return what a recv waits for, or raise the failure; no message is ready.

        The recv calls `check_no_recv_waits` before and `stop_waiting` after it.
        """
        if self._inbox.failure is not None:
            self._inbox.raise_failure()
        if self._sending.state >= _CLOSED:
            raise self._sending.closed_error()
        if self._reading_paused:  # an error in release_head() may have left it so
            self._resume_when_low()
        loop = asyncio.get_running_loop()
        self._waiter = waiter = fast_path.Waiter(loop, asyncio.current_task)
        if self._peer_timer is not None:
            self._peer_timer.start_waiting()
        return waiter

    def stop_waiting(self) -> None:
        """End the wait of a recv, also one that was cancelled or that did not start."""
        self._waiter = None
        if self._peer_timer is not None:
            self._peer_timer.stop_waiting(bool(self.batches))

    # No call separates the lines that belong together, and none of them allocates: a signal handler
    # that raises, or a garbage collection that receives, finds each batch in one place.

    def take_batch(self) -> None:
        """Move the next batch to `messages.head`, if that is empty."""
        batches = self.batches
        if batches and not self.messages.head:
            self.messages.head, self._head_size, self._head_headers = batches[0]
            del batches[0]

    def take_all(self) -> list[Any]:
        """Return all messages that are there, in order."""
        messages = self.messages
        no_messages: list[Any] = []
        no_batches: deque[ReadMessages] = deque()
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

    def release_head(self) -> None:
        """Count the last message of `messages.head` as taken."""
        self._held -= self._head_size
        self._head_size = 0
        if self._reading_paused:
            self._resume_when_low()

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
