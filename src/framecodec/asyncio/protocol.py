"""`FrameProtocol`: what the event loop calls, and what a user overrides.

The transport reads into the inbox's splitter, and the messages go to
`FrameProtocol.messages_received`. What it sends leaves when it returns. What a task sends that a
message has woken leaves after that task's step. Neither costs the loop another iteration.

Memory can run out, a signal handler can raise and a garbage collection can call the same
connection, at any call or allocation. If bytes were read and their messages did not reach the user,
receiving ends with that error.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from .. import _error_texts, errors
from .._engine import asyncio_fast_path as fast_path
from .._inbox import Inbox
from .._message_types import MessageT, SpecialT
from .._observer import Observer
from .._options import OnInvalid, OnOversize
from .._peers import name_peer
from .._states import TransportState
from ..codec import DEFAULT_CODEC, Codec, check_codec
from .object_delivery import ObjectDelivery
from .observed import ObservedSendSide, conn_of, end_reason, receive_rest
from .pipe_transport import give_bytes
from .sending import SendSide, encode_all, stays_open, write_all
from .shared_by_loop import shared_by_loop
from .time_limits import PeerTimer
from .transport import is_uvloops, transport_peer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FrameProtocol"]

_logger = logging.getLogger(__package__)

_OPEN, _CLOSING, _CLOSED = TransportState.OPEN, TransportState.CLOSING, TransportState.CLOSED

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _wrap_callback(step: str, overridden: _Method) -> _Method:
    """Return a callback that runs the protocol's own `step` before the overridden callback.

    Users of asyncio override callbacks without super(), because the base classes do nothing there.
    If the step returns None, the user is not told. No loop repeats a callback that has raised: a
    step that is interrupted ends the connection.
    """
    if getattr(overridden, "_framecodec_step", None) == step:
        return overridden

    @functools.wraps(overridden)
    def callback(self: FrameProtocol[Any], *arguments: Any) -> Any:
        try:
            passed_on = getattr(self, step)(*arguments)
        except RuntimeError:  # the transport has another protocol
            raise
        except BaseException as error:
            self._sending.fail(error)
            if step == "_end":
                self._end(*arguments)
            raise
        if passed_on is None:
            return None
        result = overridden(self, *passed_on)
        if self._received and arguments[0] is not self._sending.transport:  # not called by super()
            received, self._received = self._received, b""
            self._receive(received)
        return result

    callback._framecodec_step = step  # type: ignore[attr-defined]
    return callback  # type: ignore[return-value]


def _wrap_eof_received(overridden: _Method) -> _Method:
    """Return an `eof_received` that runs the overridden one between the protocol's own steps."""
    if getattr(overridden, "_framecodec_step", None) == "eof":
        return overridden

    @functools.wraps(overridden)
    def eof_received(self: FrameProtocol[Any]) -> bool | None:
        self._on_eof()
        return stays_open(self._sending, overridden(self))

    eof_received._framecodec_step = "eof"  # type: ignore[attr-defined]
    return eof_received  # type: ignore[return-value]


class FrameProtocol(ObjectDelivery[MessageT], asyncio.BufferedProtocol):
    """A connection that receives and sends whole messages; a base class.

    Override `messages_received`, and any callback of asyncio's protocols: `connection_made`,
    `connection_lost`, `eof_received`, `pause_writing`, `resume_writing`. You need not call super()
    there.

    An invalid frame closes the connection, after the messages before it were delivered and the
    accepted ones were sent; `connection_lost` then gets the error. If the peer closed inside a
    frame, it gets an `IncompleteFrameError`.

    Args:
        codec: The shape of the frames.
        message_timeout: Seconds that a message may take from its first byte to its last; then the
            connection ends with a `MessageTimeoutError`. Time in which reading is paused does not
            count.
        idle_timeout: Seconds without a byte between two messages; then the connection ends with an
            `IdleTimeoutError`. Time in which reading is paused does not count.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        received: Bytes that were read from the connection before: they come first, after
            `connection_made`.
        observer: As for `FrameSocket`; its methods get this protocol.
        one_at_a_time: `messages_received` gets one message a call, and `switch` and
            ``transport.set_protocol`` act from the end of that message on.

    Raises:
        TypeError, ValueError: An argument is invalid.
    """

    __slots__ = (
        "__weakref__",
        "_handler_error",
        "_observer",
        "_received",
        "codec",
    )

    codec: Codec[Any]
    """The shape of the frames."""

    # What subclasses of this package change.
    _send_side: type[SendSide] = SendSide
    _observed_send_side: type[SendSide] = ObservedSendSide
    _always_receives = True  # a peer's time counts whenever the transport reads
    _keeps_headers = False  # for bytes that are handed over as they travelled
    data_received = give_bytes  # for transports with their own memory: those of pipes

    def __init__(
        self,
        codec: Codec[MessageT] = DEFAULT_CODEC,  # type: ignore[assignment]
        *,
        message_timeout: float | None = None,
        idle_timeout: float | None = None,
        on_oversize: OnOversize = "raise",
        on_invalid: OnInvalid = "raise",
        received: Any = b"",
        observer: object = None,
        one_at_a_time: bool = False,
    ) -> None:
        self._inbox = inbox = Inbox(
            codec,
            keep_headers=self._keeps_headers or getattr(codec, "_objects", None) is not None,
            message_timeout=message_timeout,
            idle_timeout=idle_timeout,
            on_oversize=on_oversize,
            on_invalid=on_invalid,
            one_at_a_time=one_at_a_time,
        )
        self._one_at_a_time = bool(one_at_a_time)
        # After a switch(): the messages to deliver, and the bytes that were unread then.
        self._switched: tuple[list[Any], bytes] | None = None
        self._peer_timer = (
            PeerTimer(inbox, self._end_receiving, receiving=self._always_receives)
            if inbox.has_limits
            else None
        )
        self._received = bytes(received)
        self._handler_error: BaseException | None = None  # for an observer
        self._observer = Observer.of(observer)
        side = self._send_side if observer is None else self._observed_send_side
        self._sending = side(self, codec)
        if self._observer is not None:
            inbox.observe(conn_of(self), self._observer)
        self._read_size = fast_path.FIRST_READ_SIZE
        self._receiving = False  # bytes were read, and their messages are not delivered yet
        self._delivering = False  # messages_received() is being called
        self._receiving_failed = False  # the bytes that are still read are ignored
        self._use_codec(codec)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, step in (
            ("connection_made", "_begin"),
            ("connection_lost", "_end"),
            ("pause_writing", "_pause"),
            ("resume_writing", "_resume"),
        ):
            method = getattr(cls, name)
            if method is not getattr(FrameProtocol, name):
                setattr(cls, name, _wrap_callback(step, method))
        if cls.eof_received is not FrameProtocol.eof_received:
            cls.eof_received = _wrap_eof_received(cls.eof_received)  # type: ignore[method-assign]

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    @property
    def transport(self) -> asyncio.Transport:
        """The connection's transport; None before `connection_made`.

        Messages that were sent before leave before what its methods write, and before they close
        the connection. Use this transport: the one that ``loop.create_connection`` returns does not
        know the unsent messages. Like asyncio's, it ignores what is written after the end.

        Set it to the transport that ``loop.start_tls`` returns.
        """
        return self._sending.transport  # type: ignore[return-value]

    @transport.setter
    def transport(self, transport: asyncio.Transport) -> None:
        if transport is not self._sending.transport:  # connection_made() may set what it got
            self._sending.attach(transport)

    # --- to override ------------------------------------------------------------------------------

    def messages_received(self, messages: list[MessageT]) -> None:
        """Handle the messages that one read completed, at least one.

        What this method sends leaves in one write when it returns.

        Args:
            messages: The messages in order; the list belongs to this method.
        """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: the connection is open, and `transport` is set."""

    connection_made = _wrap_callback("_begin", connection_made)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop: the connection has ended.

        Args:
            exc: Why it ended: a `FrameError` if a frame was invalid, an `IncompleteFrameError` if
                the peer closed inside a frame, an `OSError` from the system; None if either side
                closed it properly.
        """

    connection_lost = _wrap_callback("_end", connection_lost)

    def eof_received(self) -> bool | None:
        """Handle the peer's end: it sends no more.

        Returns:
            True to keep the connection open for sending. TLS always ends both directions.
        """
        self._on_eof()
        return stays_open(self._sending, None)

    def pause_writing(self) -> None:
        """Handle a slow peer: the transport is full, and what is sent now waits in memory."""

    pause_writing = _wrap_callback("_pause", pause_writing)

    def resume_writing(self) -> None:
        """Handle the end of a pause: the transport accepts more."""

    resume_writing = _wrap_callback("_resume", resume_writing)

    # --- sending ----------------------------------------------------------------------------------

    @overload
    def send(self: FrameProtocol[bytes | SpecialT], message: Buffer | SpecialT, /) -> None: ...

    @overload
    def send(self, message: MessageT, /) -> None: ...

    def send(self, message: object, /) -> None:
        """Send one message. `__init__` replaces this method on the instance by a faster one.

        The message leaves at the end of this iteration of the loop, or earlier. If the peer is
        slow, it waits in memory.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing is sent.
            ConnectionError: The connection is closed or lost.
            RuntimeError: The connection belongs to an event loop in another thread.
        """
        self._send(message)

    def switch(self, codec: Codec[Any], /) -> None:
        """Use another codec from now on, in both directions.

        Messages that were sent before leave in the old framing. Receiving: in `messages_received`,
        from the end of the last message of its list on, else from the end of the last message that
        was delivered; what arrived after it is read again, and its messages are delivered when
        `messages_received` has returned (outside of it, before this method returns).

        Args:
            codec: The shape of the frames.

        Raises:
            TypeError: `codec` is not a `Codec`.
            ConnectionError: The connection is closed or lost.
            RuntimeError: The connection belongs to an event loop in another thread.
        """
        check_codec(codec)
        sending, inbox = self._sending, self._inbox
        sending.check_thread()
        if sending.state >= _CLOSING:
            raise sending.closed_error()
        encode_all(sending)
        is_nested = self._delivering
        unread, before = inbox.splitter._unread(), b""
        if self._switched is not None:  # twice: the bytes of those messages are read again
            _, read_before = self._switched
            before = read_before[: len(read_before) - len(unread)]
            unread = read_before
        messages = inbox.switch(codec, before)
        sending.use(codec)
        self._use_codec(codec)
        self._switched = messages, unread
        if not is_nested:
            self._read_switched()

    # --- the connection's life --------------------------------------------------------------------

    # Each of these steps returns the arguments of the user's callback, or None not to call it.

    def _begin(self, transport: Any) -> tuple[Any]:
        if transport is self._sending.transport:  # super() in an overridden connection_made()
            return (transport,)
        self._inbox.peer = transport_peer(transport)
        shared = shared_by_loop()
        if shared is not None:
            spare, self._ready_tasks = shared
            self._inbox.share_buffer(spare)
            self._read_size = fast_path.READ_SIZE  # which costs a connection that waits nothing
        self._sending.begin(transport)
        if self._peer_timer is not None:
            self._peer_timer.start()
        if self._observer is not None and self._observer.connection_opened is not None:
            self._observer.connection_opened(conn_of(self))
        return (self._sending.transport,)

    def _pause(self) -> tuple[()] | None:
        return () if self._sending.pause() else None

    def _resume(self) -> tuple[()] | None:
        return () if self._sending.resume() else None

    def _end(self, exc: BaseException | None) -> tuple[BaseException | None]:
        sending = self._sending
        if sending.state < _CLOSED:
            exc = sending.cause_of_end(exc)
            receive_rest(self, exc)
            sending.lose_transport()
            self._stop_peer_timer()
            if isinstance(exc, OSError):
                exc.with_traceback(None)  # the transport's frames would keep what they sent
                name_peer(exc, self._inbox.peer)
            failure = self._inbox.failure
            try:
                if sending.error is None and exc is None and not sending.closed_here:
                    # Over TLS a connection may end without eof_received().
                    self._on_eof()
            except MemoryError as error:
                exc = error
            sending.end(exc)
            if self._always_receives or sending.closed_here or not self._inbox.ended:
                self._inbox.drop_unfinished()
            if self._observer is not None and self._observer.connection_closed is not None:
                self._observer.connection_closed(conn_of(self), end_reason(self, failure))
        return (sending.error,)

    def _stop_peer_timer(self) -> None:
        """End the time limits: the connection has ended, or this side has closed it."""
        if self._peer_timer is not None:
            self._peer_timer.stop()

    def _hand_over(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol continue with the connection; for this one it has ended."""
        _hand_over(self, protocol)

    def _take_unread(self) -> bytes:
        """Return the received bytes after the delivered messages; receiving has ended."""
        unread = self._inbox.splitter.detach()
        if self._switched is not None:
            _, unread = self._switched
            self._switched = None
        return unread

    # --- receiving --------------------------------------------------------------------------------

    def _pause_reading(self) -> None:
        self._sending.raw_transport.pause_reading()
        if self._peer_timer is not None:
            self._peer_timer.set_reading(False)

    def _resume_reading(self) -> None:
        self._sending.raw_transport.resume_reading()
        if self._peer_timer is not None:
            self._peer_timer.set_reading(True)

    def _read_switched(self) -> None:
        self._read(_no_messages, 0)

    def _read(self, parse: Callable[[Any], list[Any]], data: Any) -> None:
        """Parse bytes and deliver the messages, also those after a switch, or one at a time."""
        self._receiving = True
        messages: list[Any] = []
        try:
            messages = parse(data) or self._following_messages()
            while messages:
                self._deliver(messages)
                messages = self._following_messages()
        except BaseException as error:
            if not self._receiving:  # raised by messages_received()
                raise
            self._receiving = False
            messages = []
            _fail_receiving(self, error)
            return
        self._receiving = False
        if self._sending.state >= _CLOSING:
            return
        if self._inbox.splitter.error is not None:
            _fail_receiving(self, self._inbox.splitter.error)
        elif self._peer_timer is not None:
            self._peer_timer.note_arrival()

    def _following_messages(self) -> list[Any]:
        """Return the messages to deliver after a call of `messages_received`."""
        if self._sending.state >= _CLOSING:  # by messages_received()
            return []
        self._receiving = True
        if self._switched is not None:
            (messages, _), self._switched = self._switched, None
            if messages:
                return messages
        splitter = self._inbox.splitter
        if self._one_at_a_time and splitter.error is None:
            return splitter.feed(b"")
        return []

    def _receive(self, data: bytes) -> None:
        """Take bytes that another protocol has read before."""
        if data and not self._receiving_failed:
            self._read(self._inbox.splitter.feed, data)

    def _fail_receiving(self, error: BaseException) -> None:
        _fail_receiving(self, error)

    def _end_receiving(self, error: BaseException) -> None:
        """Close the connection when the accepted messages are sent."""
        sending = self._sending
        if sending.error is None:
            sending.error = name_peer(error, self._inbox.peer)
        sending.close()
        if isinstance(error, Exception) and not isinstance(error, errors.FrameError):
            _logger.error("receiving on %r failed", sending.raw_transport, exc_info=error)

    def _on_eof(self) -> None:
        sending, inbox = self._sending, self._inbox
        if sending.error is None:
            inbox.feed_eof()
            if isinstance(inbox.failure, errors.FrameError):
                sending.error = inbox.failure


def _no_messages(_: object) -> list[Any]:
    return []


def _continue(
    protocol: asyncio.BaseProtocol, transport: Any, unread: bytes, was_reading: bool
) -> None:
    """Give a protocol, to which a connection was handed over, what was read before."""
    if transport.is_closing():
        return
    try:
        if isinstance(protocol, FrameProtocol):
            if protocol._sending.raw_transport is None:
                protocol.connection_made(transport)
            protocol._receive(unread)
        elif isinstance(protocol, asyncio.BufferedProtocol):
            give_bytes(protocol, unread)
        else:
            protocol.data_received(unread)  # type: ignore[attr-defined]
    except BaseException:
        transport.abort()
        raise
    finally:
        if was_reading and not transport.is_closing():
            transport.resume_reading()


def _hand_over(before: FrameProtocol[Any], protocol: asyncio.BaseProtocol) -> None:
    """Let another protocol continue with the connection; for this one it has ended."""
    sending = before._sending
    write_all(sending)
    unread = before._take_unread()
    transport = sending.raw_transport
    transport.set_protocol(protocol)
    sending.set_closed_here()
    before._end(None)
    if unread or isinstance(protocol, FrameProtocol):
        # Later, because the caller may have to call connection_made(); and before what is read.
        was_reading = transport.is_reading()
        transport.pause_reading()
        asyncio.get_running_loop().call_soon(_continue, protocol, transport, unread, was_reading)


def _fail_receiving(protocol: FrameProtocol[Any], error: BaseException) -> None:
    """End receiving; the messages before the error are delivered."""
    protocol._receiving_failed = True
    # The frames that raised would keep what was read.
    if isinstance(error, errors.FrameError):
        error.with_traceback(None)
    else:
        traceback.clear_frames(error.__traceback__)
    protocol._end_receiving(error)
    ends_program = isinstance(error, (KeyboardInterrupt, SystemExit))
    if ends_program and is_uvloops(protocol._sending.raw_transport):  # it would not let it out
        asyncio.get_running_loop().call_soon(_throw, error)
    elif ends_program or error is not protocol._inbox.splitter.error:
        raise error


def _throw(error: BaseException) -> NoReturn:
    raise error
