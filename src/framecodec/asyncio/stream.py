"""`FrameStream`: one connection for tasks that wait, in an event loop.

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
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from .. import _error_texts, errors
from .._engine import asyncio_fast_path as fast_path
from ..codec import Codec
from .back_pressure import ObservedWaitingSendSide, WaitingSendSide
from .lingering import linger_on
from .observed import receive_rest
from .tls import start_tls
from .unframed import (
    Batch,
    UnframingProtocol,
    detach,
    for_recv,
    in_order,
    recv_bytes,
    send_bytes,
    switch,
)

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FrameStream", "StreamProtocol"]

# A stream stops reading above the high mark and reads again at the low one. Both count the bytes
# held for `recv`: the frames, and what a `bytes` object needs besides its content.
_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024
_MESSAGE_COST = 48


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
        codec: Codec,
        on_connection: Callable[[FrameStream], None] | None = None,
        **options: Any,
    ) -> None:
        self.stream = FrameStream(self)
        """The stream that the user sees."""
        super().__init__(codec, **options)
        self.batches: deque[Batch] = deque()
        """The messages of each read, what they count in `_held`, and their headers if the splitter
        keeps those."""
        self._head_headers: list[bytes] | None = None  # those of `messages.head`, the oldest first
        self._head_size = 0  # what `messages.head` counts in `_held`
        self._held = 0  # bytes held for recv, as _HIGH_WATER counts them
        self._taken = 0  # stream position up to which messages were counted
        self._reading_paused = False  # by the stream, and ...
        self._user_paused = False  # ... by its user
        self._waiter: asyncio.Future[None] | None = None  # of a recv that waits
        self._has_ended = False  # the peer sends no more
        self._on_connection = on_connection
        self.is_server = on_connection is not None
        """This side accepted the connection."""
        self.stream._bind(self._sending)
        self.messages = fast_path.MessageIterator(self.stream, self.release_head)
        """The stream's iterator."""
        self.stream._ready = fast_path.ReadyIterator(self.messages)

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
        taken = self._inbox.splitter.stream_offset
        size = taken - self._taken + _MESSAGE_COST * len(messages)
        self.batches.append((messages, size, self._inbox.splitter.headers))
        self._taken = taken
        self._held += size
        sending = self._sending
        if self._held > _HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            sending.raw_transport.pause_reading()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
            if not (sending.closing or sending.lost):
                sending.flush_soon()  # runs after the task's next step, in the same iteration

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
            elif self._sending.closing:
                inbox.fail(_error_texts.connection_closed())
            (error,) = super()._end(exc)
            if error is not None:
                inbox.fail(for_recv(error))
            return (error,)
        finally:
            self._wake_all()

    def _wake_all(self) -> None:
        """Wake all tasks that wait; if waking one of them fails, wake the others too."""
        waiters = self._sending.futures()
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
        if self._inbox.failure is not None or sending.lost or sending.closing:
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

    def start_waiting(self) -> asyncio.Future[None]:
        """Return what a recv waits for, or raise the failure; no message is ready.

        The recv calls `check_no_recv_waits` before and `stop_waiting` after it.
        """
        if self._inbox.failure is not None:
            self._inbox.raise_failure()
        if self._sending.lost:
            raise self._sending.closed_error()
        if self._reading_paused:  # an error in release_head() may have left it so
            self._resume_when_low()
        self._waiter = waiter = asyncio.get_running_loop().create_future()
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
        no_batches: deque[Batch] = deque()
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
                if not (sending.lost or sending.closing or self._user_paused):
                    sending.raw_transport.resume_reading()
            except BaseException:
                self._reading_paused = True
                raise


class FrameStream:
    """A connection that sends and receives whole messages.

    `open_connection` returns one, and a server's handler gets one. Iterate over it to receive
    messages until the peer closes; use it as an asynchronous context manager to close it.

    A cancelled or timed-out `recv` loses nothing: the next one continues. The stream holds at most
    256 KiB that were read and not received (frames, and 48 bytes for each message), and what one
    more read completes: up to 128 KiB and one message of the codec's largest size. Above that it
    stops reading, and TCP stops the peer. Over TLS asyncio holds up to 256 KiB more.

    One task may receive while others send. Small messages that are sent in one iteration of the
    loop leave in one write.
    """

    __slots__ = ("__dict__", "__weakref__", "_protocol", "_ready", "_sending")

    _ready: Iterator[Any]  # of the messages that need no wait

    def __init__(self, protocol: StreamProtocol) -> None:
        self._protocol = protocol

    def _bind(self, sending: WaitingSendSide) -> None:
        self._sending = sending
        self.send = sending.batch.send_and_wait  # type: ignore[method-assign]

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __repr__(self) -> str:
        sending = self._sending
        state = "closed" if sending.lost else "closing" if sending.closing else "open"
        return (
            f"<{type(self).__name__} {state} peer={self._protocol._inbox.peer} codec={self.codec}>"
        )

    @property
    def codec(self) -> Codec:
        """The shape of the frames."""
        return self._protocol.codec

    @property
    def transport(self) -> asyncio.Transport:
        """The connection's transport.

        Messages that were sent before leave before what its methods write.
        """
        return self._protocol.transport

    @property
    def pending_messages(self) -> int:
        """The number of messages that `recv` would return without a wait."""
        protocol = self._protocol
        if protocol.is_unframed and protocol._waiter is None:
            protocol.reframe()
        return len(protocol.messages.head) + sum(len(batch[0]) for batch in protocol.batches)

    @property
    def pending_send(self) -> int:
        """The number of bytes that were accepted and that the kernel does not have yet."""
        return 0 if self._sending.lost else self.transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows of the connection.

        Args:
            name: As for asyncio's transports: "peername", "sockname", "socket", "ssl_object", ...
            default: Returned if the transport does not know it.
        """
        return self.transport.get_extra_info(name, default)

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: object, /) -> Coroutine[Any, Any, None]:
        """Send one message. `__init__` replaces this method on the instance by a faster one.

        Await the result at once. That takes no time unless the peer is slow: then it waits until
        the transport accepts more, after all sends that came before. If it is cancelled before the
        message was accepted, nothing of the message is sent; later, all of it. The attribute
        ``message_started`` of the `asyncio.CancelledError` says which.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing is sent.
            ConnectionError: The connection is closed or lost.
        """
        sent: Coroutine[Any, Any, None] = self._sending.batch.send_and_wait(message)
        return sent

    def send_many(self, messages: Iterable[object], /) -> Coroutine[Any, Any, None]:
        """Send many messages, all or none; otherwise like `send`.

        Args:
            messages: As for `send`, in order.
        """
        return self._sending.call_and_wait(type(self._sending).put_many, messages)

    async def drain(self) -> None:
        """Write the messages of this iteration of the loop; wait until the transport accepts more.

        Raises:
            ConnectionError: The connection is lost.
        """
        sending = self._sending
        if not sending.lost:
            sending.write_batch()
        await sending.wait_for_space()
        if sending.lost:
            raise sending.closed_error()

    def write_eof(self) -> None:
        """Tell the peer that no more will be sent, after all accepted messages.

        Receiving continues.

        Raises:
            NotImplementedError: The connection uses TLS, which cannot end one direction alone.
        """
        self._sending.write_eof()

    # --- receiving --------------------------------------------------------------------------------

    async def recv(self) -> Any:
        """Return the next message. Do not suspend while one is ready.

        Returns:
            `bytes`, or an object of the codec's ``specials``.

        Raises:
            EOFError: The peer closed the connection between two messages.
            IncompleteFrameError: The peer closed it inside a frame.
            FrameError: A frame is invalid, or the peer exceeded a time limit of the stream. The
                error is raised after the messages before it, and again by every later call.
            OSError: The connection is lost.
            RuntimeError: Another `recv` of this stream waits.
        """
        for message in self._ready:
            return message
        protocol = self._protocol
        while True:
            if protocol._waiter is not None:
                protocol.check_no_recv_waits()
            if protocol.is_unframed:
                protocol.reframe()
            if not protocol.batches:
                try:
                    await protocol.start_waiting()
                finally:
                    protocol.stop_waiting()
            protocol.take_batch()
            for message in self._ready:
                return message

    async def recv_many(self) -> list[Any]:
        """Return all messages that are ready; wait for the first one.

        Returns:
            At least one message, in order.

        Raises:
            EOFError, FrameError, OSError, RuntimeError: As `recv`.
        """
        protocol = self._protocol
        while True:
            if not protocol.messages.head:
                protocol.check_no_recv_waits()
                if protocol.is_unframed:
                    protocol.reframe()
                if not protocol.batches:
                    try:
                        await protocol.start_waiting()
                    finally:
                        protocol.stop_waiting()
            messages = protocol.take_all()
            if messages:
                return messages

    # --- unframed bytes ---------------------------------------------------------------------------

    async def recv_bytes(self, size: int, /) -> bytes:
        """Receive unframed bytes: those that follow the last received message.

        Frames may follow them. A cancelled or timed-out call takes nothing: the next one, also
        `recv`, starts with the same byte. An error of the codec about these bytes is taken back.

        Args:
            size: The number of bytes, exactly.

        Raises:
            EOFError: The peer closed the connection before the first of them.
            IncompleteFrameError: It closed it after some of them; a call that asks for fewer
                returns those.
            RuntimeError: Another `recv` of this stream waits, or these bytes are part of what is
                discarded as an oversized frame (``on_oversize="skip"``).
            TypeError, ValueError: `size` is not a number of bytes.
            FrameError, OSError: As `recv`.
        """
        return await recv_bytes(self._protocol, size)

    def send_bytes(self, data: Any, /) -> Coroutine[Any, Any, None]:
        """Send unframed bytes, after all messages that were sent before; otherwise like `send`.

        Args:
            data: A contiguous bytes-like object.
        """
        return send_bytes(self._sending, data)

    def switch(self, codec: Codec, /) -> None:
        """Use another codec from now on, in both directions.

        Messages that were sent before leave in the old framing. What was read and not received is
        read again with the new codec; an error that it has raised is forgotten.

        Args:
            codec: The shape of the frames.

        Raises:
            TypeError: `codec` is not a `Codec`.
            RuntimeError: A `recv` or a `send` waits, or bytes after the last received message were
                discarded as an oversized frame.
            ConnectionError: The connection is closed or lost.
        """
        switch(self._protocol, codec)

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give up the transport, to be used with another protocol; the stream is closed then.

        Accepted messages leave before what is written to the transport afterwards.

        Returns:
            The event loop's transport, which has stopped reading, and the bytes that were read and
            not received as messages, exactly as they travelled. Give it a protocol
            (``transport.set_protocol``), then call ``transport.resume_reading()``.

        Raises:
            RuntimeError: A `recv` or a `send` waits.
            ConnectionError: The connection is closed or lost.
        """
        return detach(self._protocol)

    def __aiter__(self) -> AsyncIterator[Any]:
        # It gives ready messages without a coroutine and calls __anext__ for the others.
        messages: AsyncIterator[Any] = self._protocol.messages
        return messages

    async def __anext__(self) -> Any:
        try:
            return await self.recv()
        except EOFError as error:
            if isinstance(error, errors.FrameError):
                raise
            raise StopAsyncIteration from None

    # --- the connection's life --------------------------------------------------------------------

    async def start_tls(
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
    ) -> None:
        """Encrypt the connection from now on.

        The peer must have agreed, and no received byte may be unread: bytes that came in clear text
        must not pass for encrypted ones.

        Args:
            sslcontext: As for asyncio's ``loop.start_tls``.
            server_side: Whether this side is the TLS server; by default it is for the streams of
                `start_server` and `start_unix_server`.
            server_hostname: The name that the server's certificate must have.
            ssl_handshake_timeout: Seconds for the handshake.

        Raises:
            RuntimeError: Messages, or a part of one, were not received.
            ssl.SSLError, OSError: The handshake failed, and the connection is lost. It is also lost
                if `start_tls` was cancelled.
        """
        await start_tls(
            self._protocol,
            sslcontext,
            server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
        )

    async def aclose(self, linger: float | None = None) -> None:
        """Close the connection when all accepted messages are sent, and wait for that.

        A connection that is closed while bytes of the peer are unread is reset, and the peer can
        lose the last messages. With `linger` they are safe.

        Messages that were read already can still be received. A cancelled `aclose` drops what a
        slow peer has not taken. So does the end of an ``async with`` block that was cancelled or
        has raised a `TimeoutError`.

        Args:
            linger: Seconds in which, before the close, this side ends its sending and discards
                what still arrives, until the peer ends, too; None for none. TLS ignores it.
        """
        sending = self._sending
        try:
            if linger:
                await linger_on(self._protocol, linger)
            sending.close()
            await sending.wait_until_closed()
        except asyncio.CancelledError:
            if not sending.lost:
                sending.abort()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: object, exc: BaseException | None, _: object) -> None:
        if isinstance(exc, (asyncio.CancelledError, TimeoutError)):
            # The time is over: the block ends, however slow the peer is.
            self._sending.close_now()
        else:
            await self.aclose()
