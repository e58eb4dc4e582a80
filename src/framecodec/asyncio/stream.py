"""`FrameStream`: one connection for tasks that wait, in an event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, overload

from .. import _error_texts, errors
from .._message_types import MessageT, OfMessages, SpecialT
from .._states import TransportState
from ..codec import Codec
from .back_pressure import WaitingSendSide
from .files import StreamFiles
from .lingering import linger_on
from .objects import ObjectCalls
from .sending import close_now
from .tls import start_tls
from .unframed import detach, recv_bytes, send_bytes, switch

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

    from .._objects import ObjectFunctions
    from .stream_protocol import StreamProtocol

__all__ = ["FrameStream", "ObjectStream"]

_FAILED, _CLOSING = TransportState.FAILED, TransportState.CLOSING
_CLOSED = TransportState.CLOSED


class FrameStream(OfMessages[MessageT], StreamFiles):
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

    _ready: Iterator[MessageT]  # of the messages that need no wait

    def __init__(self, protocol: StreamProtocol) -> None:
        self._protocol = protocol

    def _bind(self, sending: WaitingSendSide, functions: ObjectFunctions | None) -> None:
        self._sending = sending
        self._choose_calls(functions)

    def _choose_calls(self, functions: ObjectFunctions | None) -> None:
        self.send = self._sending.batch.send_and_wait  # type: ignore[method-assign]
        self._ready = self._protocol.ready

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __repr__(self) -> str:
        sending = self._sending
        state = "open"
        if sending.state >= _CLOSING:
            state = "closed" if sending.state >= _CLOSED else "closing"
        return (
            f"<{type(self).__name__} {state} peer={self._protocol._inbox.peer} codec={self.codec}>"
        )

    @property
    def codec(self) -> Codec[MessageT]:
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
        if protocol.is_unframed and protocol._recv_waiter is None:
            protocol.reframe()
        return len(protocol._message_iterator.head) + sum(
            len(batch[0]) for batch in protocol.batches
        )

    @property
    def pending_send(self) -> int:
        """The number of bytes that were accepted and that the kernel does not have yet."""
        return 0 if self._sending.state >= _CLOSED else self.transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows of the connection.

        Args:
            name: As for asyncio's transports: "peername", "sockname", "socket", "ssl_object", ...
            default: Returned if the transport does not know it.
        """
        return self.transport.get_extra_info(name, default)

    # --- sending ----------------------------------------------------------------------------------

    @overload
    def send(
        self: FrameStream[bytes | SpecialT], message: Buffer | SpecialT, /
    ) -> Coroutine[Any, Any, None]: ...

    @overload
    def send(self, message: MessageT, /) -> Coroutine[Any, Any, None]: ...

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

    @overload
    def send_many(
        self: FrameStream[bytes | SpecialT], messages: Iterable[Buffer | SpecialT], /
    ) -> Coroutine[Any, Any, None]: ...

    @overload
    def send_many(self, messages: Iterable[MessageT], /) -> Coroutine[Any, Any, None]: ...

    def send_many(self, messages: Iterable[Any], /) -> Coroutine[Any, Any, None]:
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
        if sending.state < _CLOSED:
            sending.check_thread()
            sending.write_batch()
        await sending.wait_for_space()
        if sending.state >= _FAILED and sending.state is not _CLOSING:
            raise sending.closed_error()

    def write_eof(self) -> None:
        """Tell the peer that no more will be sent, after all accepted messages.

        Receiving continues.

        Raises:
            NotImplementedError: The connection uses TLS, which cannot end one direction alone.
        """
        self._sending.write_eof()

    # --- receiving --------------------------------------------------------------------------------

    async def recv(self) -> MessageT:
        """Return the next message. Do not suspend while one is ready.

        Returns:
            `bytes`, or an object of the codec's ``specials``.

        Raises:
            EOFError: The peer closed the connection between two messages.
            IncompleteFrameError: The peer closed it inside a frame.
            InvalidMessageError: A codec with objects refuses the message; the next call continues.
            FrameError: A frame is invalid, or the peer exceeded a time limit of the stream. The
                error is raised after the messages before it, and again by every later call.
            OSError: The connection is lost.
            RuntimeError: Another `recv` of this stream waits.
        """
        for message in self._ready:
            return message
        protocol = self._protocol
        while True:
            if protocol._recv_waiter is not None:
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

    async def recv_many(self) -> list[MessageT]:
        """Return all messages that are ready; wait for the first one.

        Returns:
            At least one message, in order.

        Raises:
            EOFError, FrameError, OSError, RuntimeError: As `recv`.
        """
        protocol = self._protocol
        while True:
            if not protocol._message_iterator.head:
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

    def switch(self, codec: Codec[Any], /) -> None:
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

    def __aiter__(self) -> AsyncIterator[MessageT]:
        # It gives ready messages without a coroutine and calls __anext__ for the others.
        messages: AsyncIterator[Any] = self._protocol._message_iterator
        return messages

    async def __anext__(self) -> MessageT:
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
            while sending.transfers and sending.state < _CLOSED:
                await asyncio.wait(sending.transfers)
            if linger:
                await linger_on(self._protocol, linger)
            sending.close()
            await sending.wait_until_closed()
        except asyncio.CancelledError:
            if sending.state < _CLOSED:
                sending.abort()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: object, exc: BaseException | None, _: object) -> None:
        if isinstance(exc, (asyncio.CancelledError, TimeoutError)):
            # The time is over: the block ends, however slow the peer is.
            close_now(self._sending)
        else:
            await self.aclose()


class ObjectStream(ObjectCalls, FrameStream[Any]):
    """A `FrameStream` whose codec has objects; it becomes one when it gets such a codec."""

    __slots__ = ()
