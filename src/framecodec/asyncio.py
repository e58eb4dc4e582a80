"""Whole messages in an event loop: protocols, streams and datagrams; asyncio's loops and uvloop.

What must hold
    No byte is lost to a cancellation or a timeout, in either direction. Small messages of one turn
    of the loop leave in one write, large ones are not copied, and whatever was accepted is sent
    before a close. Memory stays at a stated bound both ways: a slow reader stops its peer through
    TCP, a slow peer makes `FrameStream.send` wait.

How
    `FrameProtocol` is what the loop calls. In: the transport reads into the splitter's buffer and
    the messages go to `FrameProtocol.messages_received`. Out, in the order a message meets them::

        send() -> _turn     small `bytes` of this turn, encoded together when it ends
               -> _outbox   all else, and what the transport is too full to take
               -> transport, which has its own buffer and its own high-water mark

    The transport gets more only while it has not called `pause_writing`: so a large message waits
    here, where it is only referred to, and not in the transport, where it might be a copy.

    `FrameStream` puts a queue behind it and a coroutine in front of it. Nothing in between is
    taken out before the caller has it in hand: this is all that cancellation needs.

When something raises inside
    Memory can run out, a signal handler can raise and a garbage collection can call this very
    connection, at any call or allocation. Receiving: one step without a call takes each message out
    of the queue. If bytes were read and their messages did not reach the queue, receiving ends with
    that error. Sending: an error before the message was accepted is the caller's alone. An error
    after it, or one of the transport, ends the connection, because the number of bytes that left is
    unknown. Messages that are sent while `_busy` is set wait in `_late`.

When gathered messages leave
    Sends inside `messages_received` leave when it returns, sends of a task that a message woke up
    leave right behind its step: neither costs the loop another turn. All others leave through
    `call_soon`, in the turn that follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import ssl as ssl_module
import sys
import traceback
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from itertools import chain
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

from . import _error_texts, errors
from ._engine import loop_io as _loop_io
from ._layout import CUSTOM
from ._loop_datagrams import DatagramStream, open_datagram_endpoint
from ._loop_senders import LARGE, Sender, SendQueue
from ._outbox import GATHER_SIZE, Outbox
from .codec import Codec
from .splitter import Splitter

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "DatagramStream",
    "FrameProtocol",
    "FrameStream",
    "open_connection",
    "open_datagram_endpoint",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]

# What is written elsewhere and offered here is at home here, in a traceback and in help().
DatagramStream.__module__ = open_datagram_endpoint.__module__ = __name__

_logger = logging.getLogger(__name__)

_DEFAULT_CODEC = Codec.uint(4)

# A connection reads into little memory until a read fills it: of 10,000 connections most are idle.
_FIRST_READ_SIZE = 4 * 1024
_READ_SIZE = 128 * 1024

# A turn's small messages are written before it ends when they come to this many bytes.
_TURN_SIZE = 128 * 1024

# A transport that copies what it cannot send at once gets so much at a time.
_PIECE_SIZE = 256 * 1024
# There the small frames ahead of a large message are joined with so much of it: one system call
# and one packet for the header and the beginning.
_JOIN_SIZE = 16 * 1024

# A stream stops reading above the high mark and goes on at the low one. Both count bytes held for
# `recv`: the frames', and what a `bytes` object costs beside its content.
_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024
_MESSAGE_COST = 48

# asyncio's own transports: whether `writelines` sends without joining, and minds the high-water
# mark (CVE-2024-12254, fixed in 3.12.9 and 3.13.2).
_WRITELINES_IS_SOUND: Final = sys.version_info >= (3, 13, 2) or (
    (3, 12, 9) <= sys.version_info < (3, 13)
)

# To its users it is a coroutine that has ended.
_DONE: Coroutine[Any, Any, None] = cast("Coroutine[Any, Any, None]", _loop_io.Done())

_Method = TypeVar("_Method", bound=Callable[..., Any])


# --------------------------------------------------------------------------------------------------
# The protocol
# --------------------------------------------------------------------------------------------------


class _Transport(asyncio.Transport):
    """The transport as a protocol's user sees it: what was gathered leaves ahead of all else."""

    __slots__ = ("_protocol", "_transport")

    def __init__(self, protocol: FrameProtocol, transport: Any) -> None:
        self._protocol = protocol
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        # What loops do with a private name would go past all that waits here.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._transport, name)

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._transport!r}>"

    def __eq__(self, other: object) -> bool:
        mine, its = self._transport, other._transport if isinstance(other, _Transport) else other
        return bool(mine == its)

    def __hash__(self) -> int:
        return hash(self._transport)

    def close(self) -> None:
        self._protocol._close()

    def abort(self) -> None:
        self._protocol._abort()

    def write(self, data: Any) -> None:
        self._protocol._write(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self._protocol._write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self._protocol._write_eof()

    def get_write_buffer_size(self) -> int:
        size: int = self._transport.get_write_buffer_size()
        return size + self._protocol._unsent()

    # What asyncio.Transport defines itself does not come to __getattr__.

    def is_closing(self) -> bool:
        return self._protocol._closing or bool(self._transport.is_closing())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        try:
            return self._transport.get_extra_info(name, default)
        except AttributeError:  # uvloop, of a Unix socket that is closed
            return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol._hand_over(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._transport.get_protocol()
        return protocol

    def is_reading(self) -> bool:
        return bool(self._transport.is_reading())

    def pause_reading(self) -> None:
        self._protocol._pause_reading()

    def resume_reading(self) -> None:
        self._protocol._resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        limits: tuple[int, int] = self._transport.get_write_buffer_limits()
        return limits

    def can_write_eof(self) -> bool:
        return bool(self._transport.can_write_eof())


def _around_eof(overridden: _Method) -> _Method:
    """An overridden `eof_received` between the protocol's own steps."""
    if getattr(overridden, "_framecodec_step", None) == "eof":
        return overridden

    @functools.wraps(overridden)
    def eof_received(self: FrameProtocol) -> bool | None:
        self._end_of_stream()
        return self._stays_open(overridden(self))

    eof_received._framecodec_step = "eof"  # type: ignore[attr-defined]
    return eof_received  # type: ignore[return-value]


def _behind(step: str, overridden: _Method) -> _Method:
    """An overridden callback that runs after the protocol's own `step`, called or not by super().

    Users of asyncio override callbacks without super(), and rightly: the bases do nothing there.
    A step that returns None says that there is nothing to tell. No loop calls again what has
    raised: a step that is cut off ends the connection.
    """
    if getattr(overridden, "_framecodec_step", None) == step:
        return overridden

    @functools.wraps(overridden)
    def callback(self: FrameProtocol, *arguments: Any) -> Any:
        try:
            told = getattr(self, step)(*arguments)
        except RuntimeError:  # the transport has another protocol
            raise
        except BaseException as error:
            self._tear(error)
            if step == "_end":
                self._end(*arguments)
            raise
        return None if told is None else overridden(self, *told)

    callback._framecodec_step = step  # type: ignore[attr-defined]
    return callback  # type: ignore[return-value]


class FrameProtocol(asyncio.BufferedProtocol):
    """A connection that receives and sends whole messages; to be subclassed.

    Override `messages_received`, and any callback of asyncio's protocols: `connection_made`,
    `connection_lost`, `eof_received`, `pause_writing`, `resume_writing`. Calling super() there is
    not needed.

    A broken frame closes the connection, after the messages in front of it were delivered and what
    was accepted was sent; `connection_lost` is then given the error. It is given an
    `IncompleteFrameError` where the peer closed inside a frame.

    Args:
        codec: The shape of the frames.
    """

    __slots__ = (
        "__weakref__",
        "_busy",
        "_closing",
        "_deaf",
        "_dropped",
        "_encode_many",
        "_encrypted",
        "_eof_wanted",
        "_error",
        "_knows_us",
        "_late",
        "_lost",
        "_outbox",
        "_quick_size",
        "_raw_is_closing",
        "_raw_transport",
        "_read_size",
        "_receiving",
        "_resuming",
        "_scheduled",
        "_splitter",
        "_transport",
        "_turn",
        "_vectored",
        "codec",
    )

    codec: Codec
    """The shape of the frames."""

    def __init__(self, codec: Codec = _DEFAULT_CODEC) -> None:
        self._splitter = Splitter(codec)
        self.codec = codec
        self._read_size = _FIRST_READ_SIZE
        self._outbox = Outbox(codec)
        self._encode_many = codec.encode_many
        self._turn = turn = _loop_io.Turn(self, _TURN_SIZE)  # small messages of this turn
        self._quick_size = _quick_size(codec)  # of `_turn`, while a flush is certain to come
        self._scheduled = False  # a flush is certain to come: small frames may wait
        self._closing = False  # closed from this side: nothing more is accepted
        self._dropped = False  # not all that was accepted is sent, nor will be
        self._eof_wanted = False  # write_eof() waits for the outbox
        self._busy = False  # the outbox or the transport is in use: others must not touch them
        self._late: list[bytes] = []  # encoded frames that were sent meanwhile
        self._receiving = False  # bytes were read, and their messages are not delivered yet
        self._deaf = False  # receiving has failed: what is still read is ignored
        self._raw_transport: Any = None
        self._raw_is_closing: Callable[[], object] = bool  # False where it cannot be asked
        self._transport: Any = None
        self._encrypted = self._vectored = self._knows_us = False  # what the transport does
        self._resuming = False  # the transport has room, and what waited here goes first
        self._lost = False  # the connection is gone
        self._error: BaseException | None = None  # why the connection ends
        if type(self).send is FrameProtocol.send and hasattr(self, "__dict__"):
            self.send = turn.send  # type: ignore[method-assign]  # the same without a frame of Python

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
                setattr(cls, name, _behind(step, method))
        if cls.eof_received is not FrameProtocol.eof_received:
            cls.eof_received = _around_eof(cls.eof_received)  # type: ignore[method-assign]

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    @property
    def transport(self) -> asyncio.Transport:
        """Of the connection; None before `connection_made`. What was sent leaves ahead of what its
        methods write, and before they close. (The transport that ``loop.create_connection`` returns
        knows nothing of it: use this one.) As asyncio's, it ignores what is written after the end.

        To be set to what ``loop.start_tls`` returns.
        """
        return self._transport  # type: ignore[no-any-return]

    @transport.setter
    def transport(self, transport: asyncio.Transport) -> None:
        if transport is not self._transport:  # connection_made() may keep what it is given
            self._attach(transport)

    # --- to be overridden -------------------------------------------------------------------------

    def messages_received(self, messages: list[Any]) -> None:
        """Takes the messages that one read completed, at least one. What it sends leaves in one
        write when it returns.

        Args:
            messages: In order; the list is the callee's to keep.
        """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, and `transport` is set."""

    connection_made = _behind("_begin", connection_made)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone.

        Args:
            exc: What ended it: a `FrameError` where a frame was broken, an `IncompleteFrameError`
                where the peer closed inside a frame, an `OSError` from the system; None where
                either side closed it properly.
        """

    connection_lost = _behind("_end", connection_lost)

    def eof_received(self) -> bool | None:
        """The peer sends no more. Returning True keeps the connection open for sending (but not
        over TLS, which ends both directions)."""
        self._end_of_stream()
        return self._stays_open(None)

    def pause_writing(self) -> None:
        """The transport is full; what is sent from now on waits in memory."""

    pause_writing = _behind("_pause", pause_writing)

    def resume_writing(self) -> None:
        """The transport has room again."""

    resume_writing = _behind("_resume", resume_writing)

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: object, /) -> None:
        """Sends one message. It leaves at the end of this turn of the loop at the latest, unless
        the peer is slow: then it waits in memory.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing is sent.
            ConnectionError: The connection is closed or lost.
            RuntimeError: The connection is one of an event loop in another thread.
        """
        self._turn.send(message)

    def send_many(self, messages: Iterable[object], /) -> None:
        """Sends many messages, all or none.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`, about the first message that is
                invalid; nothing is sent of any.
            ConnectionError: The connection is closed or lost.
        """
        self._check_open()
        if type(messages) is not list:
            messages = list(messages)
        if self._busy:
            self._late.append(self._encode_many(messages))
        else:
            self._accept(self._outbox.put_many, messages)

    def _put(self, message: object) -> None:
        """As `send`, for what cannot simply wait in `_turn`."""
        self._check_open()
        if self._busy:
            self._late.append(self.codec.encode(message))
        elif type(message) is bytes and len(message) < self._quick_size:
            self._schedule()
            if self._closing:  # by a garbage collection
                self._check_open()
            turn = self._turn
            room = turn.room - len(message) - 8
            turn.messages.append(message)
            turn.room = room
            if room < 0:
                self._write_turn()
        else:
            self._accept(self._outbox.put, message)

    def _write(self, data: Any) -> None:
        data = data if type(data) is bytes else bytes(memoryview(data))
        if not (self._closing or self._lost or self._dropped):
            self._check_open()
            if self._busy:
                self._late.append(data)
            else:
                self._accept(self._outbox.put_bytes, data, 0)

    def _accept(
        self, put: Callable[[Any], None], messages: Any, pump_size: int = _TURN_SIZE
    ) -> None:
        """Puts messages into the outbox, after all that was sent before. From `pump_size` bytes up,
        the transport gets them at once."""
        self._leave_turn()
        accepted = False
        self._busy, self._turn.quick = True, 0
        try:
            put(messages)
            accepted = True
            self._outbox.own()  # a mutable message may change before it leaves
            self._end_work()
            if self._outbox.size >= pump_size:
                self._pump()
            else:
                self._schedule()
        except BaseException as error:
            if not accepted:
                self._end_work()
                if self._closing or self._eof_wanted:  # meanwhile
                    self._schedule()
            elif not isinstance(error, RuntimeError):  # there is no loop, or another transport
                self._tear(error)
            raise

    def _end_work(self) -> None:
        """Undoes `_busy`; what was sent meanwhile follows."""
        if self._late:
            try:
                self._take_late()
                self._schedule()
            except BaseException as error:
                self._tear(error)
                raise
        self._busy = False
        if self._scheduled:
            self._turn.quick = self._quick_size

    def _take_late(self) -> None:
        late = self._late
        while late:
            self._outbox.put_bytes(late[0])
            del late[0]

    def _tear(self, error: BaseException) -> None:
        """Ends the connection, because nobody knows which bytes have left."""
        self._busy = False
        if self._dropped:
            return
        self._dropped = True
        self._turn.paused, self._turn.quick = True, 0
        try:
            error.message_started = True  # type: ignore[attr-defined]
            if self._error is None:
                self._error = _error_texts.sending_failed(error)
            self._forget_unsent()
        finally:
            if self._raw_transport is not None:
                self._raw_transport.abort()

    def _forget_unsent(self) -> None:
        self._turn.clear()
        self._late.clear()
        self._outbox.clear()

    def _check_thread(self) -> None:
        if self._turn.thread not in (0, get_ident()):
            raise _error_texts.another_threads_loop()

    def _check_open(self) -> None:
        self._check_thread()
        if self._closing or self._lost or self._dropped:
            raise _closed(self._error, not self._closing)
        if self._eof_wanted:
            raise _error_texts.sending_ended()

    def _check_transport(self) -> None:
        # After loop.start_tls() the transport is another, and this one would send in clear text.
        if self._knows_us and self._raw_transport.get_protocol() is not self:
            raise _error_texts.handed_over()

    def _schedule(self) -> None:
        if not self._scheduled:
            # Before there is a connection, connection_made() flushes.
            if self._raw_transport is not None:
                asyncio.get_running_loop().call_soon(self._flush)
            self._scheduled = True
        self._turn.quick = self._quick_size

    def _leave_turn(self) -> None:
        """Keeps the order: what waits in `_turn` goes ahead of what is put into the outbox."""
        turn = self._turn
        if turn.messages:
            self._busy, turn.quick = True, 0
            try:
                self._outbox.put_bytes(self._encode_many(turn.messages))
                turn.clear()
                self._end_work()
            except BaseException as error:
                self._tear(error)
                raise

    def _flush(self) -> None:
        """The turn ends: what was gathered is written."""
        self._scheduled = False
        self._turn.quick = 0
        self._write_turn()

    def _write_turn(self) -> None:
        if self._busy:  # what is inside writes all that there is
            return
        turn, outbox = self._turn, self._outbox
        if turn.messages:
            if turn.paused or outbox.size:
                self._leave_turn()
            else:
                try:
                    self._check_transport()
                except RuntimeError:  # what was for another transport is not for this one
                    turn.clear()
                    raise
                self._busy, turn.quick = True, 0
                try:
                    data = self._encode_many(turn.messages)
                    turn.clear()
                    self._raw_transport.write(data if len(data) < _JOIN_SIZE else memoryview(data))
                    self._look_for_end()
                    if self._late or self._scheduled:
                        self._end_work()
                    self._busy = False
                except BaseException as error:
                    self._tear(error)
                    raise
                if not (outbox.size or self._closing or self._eof_wanted):
                    return
        self._pump()

    def _pump(self) -> None:
        """Gives the transport what it has room for."""
        if self._busy:
            return
        outbox, turn = self._outbox, self._turn
        ready = bool(outbox.size) and not turn.paused
        if ready:
            self._check_transport()
        try:
            if ready:
                self._busy, turn.quick = True, 0
                self._feed_transport()
                self._end_work()
            if not (outbox.size or turn.paused or self._lost or self._dropped):
                self._emptied()
        except BaseException as error:
            self._tear(error)
            raise

    def _feed_transport(self) -> None:
        outbox, turn = self._outbox, self._turn
        while outbox.size and not turn.paused:
            buffers = outbox.buffers()
            if len(buffers) > 1 and self._vectored:
                size = sum(map(len, buffers))
                self._raw_transport.writelines(buffers)
            else:
                data = buffers[0] if self._vectored else _first_piece(buffers)
                size = len(data)
                self._raw_transport.write(data)
            if self._dropped or self._lost:  # an abort from pause_writing()
                return
            outbox.sent(size)
            self._take_late()
            self._look_for_end()

    def _look_for_end(self) -> None:
        """A transport whose connection breaks in a write tells of it in a later turn: until then it
        takes no more. Else a task that does nothing but send would never let that turn come."""
        if self._raw_is_closing() is True and not self._closing:
            self._turn.paused = True

    def _emptied(self) -> None:
        """The transport has all and room for more: what waited for that is done."""
        # Not from here: a transport that calls resume_writing() is in the midst of its own work.
        if self._closing:
            asyncio.get_running_loop().call_soon(self._raw_transport.close)
        elif self._eof_wanted:
            asyncio.get_running_loop().call_soon(self._raw_transport.write_eof)

    def _unsent(self) -> int:
        return self._outbox.size + sum(map(len, chain(self._turn.messages, self._late)))

    # --- the connection's life --------------------------------------------------------------------

    def _begin(self, transport: Any) -> tuple[Any]:
        if isinstance(transport, _Transport):  # from super() in an overridden connection_made()
            return (transport,)
        self._attach(transport)
        self._turn.thread = get_ident()
        self._turn.paused = False
        if self._turn.messages or self._outbox.size:
            self._flush()
        return (self.transport,)

    def _attach(self, transport: Any) -> None:
        if isinstance(transport, _Transport):
            transport = transport._transport
        self._raw_transport = transport
        # Remembered, as a closed TLS transport cannot be asked.
        self._encrypted = transport.get_extra_info("sslcontext") is not None
        self._vectored = not self._encrypted and _is_vectored(transport)
        self._knows_us, self._raw_is_closing = False, bool
        with contextlib.suppress(AttributeError, NotImplementedError):  # such as a test's
            self._knows_us = transport.get_protocol() is self
        with contextlib.suppress(AttributeError, NotImplementedError):
            transport.is_closing()
            self._raw_is_closing = transport.is_closing
        self._transport = _Transport(self, transport)

    def _pause(self) -> tuple[()] | None:
        self._turn.paused = True
        return None if self._resuming else ()

    def _resume(self) -> tuple[()] | None:
        if self._turn.paused and not (self._lost or self._dropped):
            self._turn.paused = False
            self._resuming = True
            try:
                self._pump()
            finally:
                self._resuming = False
            if self._turn.paused:  # what had waited here has filled the transport again
                return None
        return ()

    def _close(self) -> None:
        if self._closing or self._lost:
            return
        if self._busy:
            self._closing = True  # what is inside closes when all has left
            return
        self._flush()
        self._closing = True
        if not self._outbox.size:
            self._raw_transport.close()
        elif not self._raw_transport.is_closing():
            self._raw_transport.pause_reading()

    def _close_now(self) -> None:
        """As `_close`; what the system does not take at once is dropped."""
        self._close()
        if not self._lost and self.transport.get_write_buffer_size():
            self._abort()

    def _abort(self) -> None:
        self._closing = self._dropped = True
        self._turn.paused, self._turn.quick = True, 0
        try:
            self._forget_unsent()
        finally:
            self._raw_transport.abort()

    def _write_eof(self) -> None:
        if self._closing or self._lost or self._eof_wanted:
            return
        if self._encrypted:
            raise _error_texts.tls_ends_both()
        if self._busy:
            self._eof_wanted = True
            return
        self._flush()
        self._eof_wanted = True
        if not self._outbox.size:
            self._raw_transport.write_eof()

    def _fail_receiving(self, error: BaseException) -> None:
        """Ends receiving, after the messages before the error were delivered."""
        self._deaf = True
        # The frames that raised would keep what was read.
        if isinstance(error, errors.FrameError):
            error.with_traceback(None)
        else:
            traceback.clear_frames(error.__traceback__)
        self._break(error)
        ends_program = isinstance(error, (KeyboardInterrupt, SystemExit))
        if ends_program and _is_uvloops(self._raw_transport):  # which would not let it out
            asyncio.get_running_loop().call_soon(_throw, error)
        elif ends_program or error is not self._splitter.error:
            raise error

    def _break(self, error: BaseException) -> None:
        """Nothing more can be received: what was accepted is sent, then the connection closes."""
        if self._error is None:
            self._error = error
        self._close()
        if isinstance(error, Exception) and not isinstance(error, errors.FrameError):
            _logger.error("receiving on %r failed", self._raw_transport, exc_info=error)

    def _end_of_stream(self) -> None:
        if self._error is None:
            try:
                self._splitter.feed_eof()
            except errors.FrameError as error:
                self._error = error.with_traceback(None)

    def _stays_open(self, wanted: bool | None) -> bool:
        """What `eof_received` tells the transport; by itself it would close over the outbox."""
        if not (wanted or self._closing or self._lost):
            self._flush()
            wanted = bool(self._outbox.size)
            if wanted:
                self._close()
        return bool(wanted) and not self._encrypted

    def _end(self, exc: BaseException | None) -> tuple[BaseException | None]:
        if not self._lost:
            self._lost = True
            self._turn.quick = 0
            if isinstance(exc, OSError):
                exc.with_traceback(None)  # the transport's frames would keep what they sent
            try:
                if self._error is None and exc is None and not self._closing:
                    # Over TLS a connection may end without eof_received().
                    self._end_of_stream()
            except MemoryError as error:
                exc = error
            if self._error is None:
                self._error = exc
            if exc is not None or self._unsent():
                self._dropped = True
            self._forget_unsent()
            if self._splitter.pending:  # what it holds serves nobody
                self._splitter = Splitter(self.codec)
        return (self._error,)

    def _hand_over(self, protocol: asyncio.BaseProtocol) -> None:
        """Another protocol goes on with the connection; for this one it is over."""
        self._flush()
        self._raw_transport.set_protocol(protocol)
        self._closing = True
        self._end(None)

    # --- receiving --------------------------------------------------------------------------------

    def _pause_reading(self) -> None:
        self._raw_transport.pause_reading()

    def _resume_reading(self) -> None:
        self._raw_transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Gives the transport memory to read into. The hint is of no use: asyncio gives -1, uvloop
        64 KiB, TLS what is encrypted."""
        try:
            return self._splitter.get_room(self._read_size)
        except BaseException:
            if self._splitter.error is None:
                raise
            return memoryview(bytearray(_FIRST_READ_SIZE))  # it reads on while it closes

    def buffer_updated(self, nbytes: int) -> None:
        """Takes what the transport has read, and delivers the messages that it completed."""
        if nbytes >= self._read_size:
            self._read_size = _READ_SIZE
        if self._deaf:
            return
        if self._receiving:
            raise _error_texts.reentered()
        splitter = self._splitter
        self._receiving = True
        try:
            messages = splitter.buffer_updated(nbytes)
            if messages:
                self._deliver(messages)
        except BaseException as error:
            if not self._receiving:  # it is one of messages_received()
                raise
            self._receiving = False
            messages = []
            self._fail_receiving(error)
            return
        self._receiving = False
        if splitter.error is not None:
            self._fail_receiving(splitter.error)

    def _deliver(self, messages: list[Any]) -> None:
        scheduled = self._scheduled
        if not (self._closing or self._lost):
            self._scheduled = True
            self._turn.quick = self._quick_size
        self._receiving = False  # no call from here to the user's own function
        try:
            self.messages_received(messages)
        finally:
            if not scheduled:
                if self._lost:
                    self._turn.quick = 0
                else:
                    self._flush()


def _for_recv(error: BaseException) -> Exception:
    """What ends a program or a task must not do so again in each task that receives."""
    return error if isinstance(error, Exception) else _error_texts.receiving_failed(error)


def _throw(error: BaseException) -> NoReturn:
    raise error


async def _raise(error: Exception) -> None:
    raise error


def _closed(cause: BaseException | None, lost: bool) -> ConnectionError:
    return _error_texts.connection_lost(cause) if lost else _error_texts.connection_closed()


def _quick_size(codec: Codec) -> int:
    """Messages of type `bytes` with fewer bytes than this can be encoded, whatever is in them."""
    layout = codec.layout
    if layout.kind == CUSTOM or layout.specials or layout.lead_size or layout.rest_min:
        return 0
    return min(GATHER_SIZE, layout.message_max + 1)


def _is_vectored(transport: Any) -> bool:
    """Whether `writelines` gathers without a copy, and a large `write` is not copied either. It is
    not so where the transport encrypts, which is a copy of all it is given at once."""
    module = type(transport).__module__
    return _is_uvloops(transport) or (module.startswith("asyncio.") and _WRITELINES_IS_SOUND)


def _is_uvloops(transport: Any) -> bool:
    return type(transport).__module__.startswith("uvloop")


def _first_piece(buffers: list[Any]) -> Any:
    """What a transport that copies gets next. A view where it is large: TLS cuts records off it."""
    first = buffers[0]
    if len(first) >= _JOIN_SIZE:
        return memoryview(first)[:_PIECE_SIZE]
    if len(buffers) > 1:
        return b"".join((first, memoryview(buffers[1])[: _JOIN_SIZE - len(first)]))
    return first


# --------------------------------------------------------------------------------------------------
# The stream
# --------------------------------------------------------------------------------------------------

Handler = Callable[["FrameStream"], Awaitable[object]]


class _StreamProtocol(FrameProtocol):
    """What a `FrameStream` stands on: a queue of messages, and who waits for what.

    ``_at_hand.head`` is the batch that `recv` takes from, its first message last; ``_batches`` are
    the ones after it, in the same order. Their sizes are counted by the batch, not by the message.
    """

    __slots__ = (
        "_at_hand",
        "_batches",
        "_ended",
        "_handler",
        "_head_size",
        "_held",
        "_loop",
        "_reading_paused",
        "_senders",
        "_taken",
        "_user_paused",
        "_waiter",
        "_waiting",
        "is_server",
        "stream",
    )

    def __init__(self, codec: Codec, handler: Handler | None) -> None:
        super().__init__(codec)
        self._batches: deque[tuple[list[Any], int]] = deque()
        self._head_size = 0  # what the batch at hand counts in `_held`
        self._held = 0  # bytes held for recv, as _HIGH_WATER counts them
        self._taken = 0  # stream position up to which messages were counted
        self._reading_paused = False  # by the stream, and ...
        self._user_paused = False  # ... by its user
        self._waiter: asyncio.Future[None] | None = None  # a recv that waits
        self._senders = SendQueue()  # sends that wait for the transport
        self._waiting: set[asyncio.Future[None]] = set()  # others that wait for room, or the end
        self._ended: BaseException | None = None  # what recv raises when no message is left
        self._handler = handler
        self.is_server = handler is not None
        self.stream = FrameStream(self)
        self._at_hand = _loop_io.Messages(self.stream, self.release_head)
        self.stream._ready = _loop_io.Ready(self._at_hand)

    # --- the loop's side --------------------------------------------------------------------------

    def _begin(self, transport: Any) -> tuple[Any]:
        begun = super()._begin(transport)
        self._loop = asyncio.get_running_loop()
        handler, self._handler = self._handler, None
        if handler is not None:
            task = self._loop.create_task(_serve(handler, self.stream))
            _serving.add(task)
            task.add_done_callback(_serving.discard)
        return begun

    def eof_received(self) -> bool:
        return True  # the peer may still read

    def _deliver(self, messages: list[Any]) -> None:
        messages.reverse()
        taken = self._splitter.stream_offset
        size = taken - self._taken + _MESSAGE_COST * len(messages)
        self._batches.append((messages, size))
        self._taken = taken
        self._held += size
        if self._held > _HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self._raw_transport.pause_reading()
        if self._wake() and not (self._closing or self._lost):
            self._schedule()  # runs right behind the task's next step, and not a turn later

    def _wake(self) -> bool:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return False
        waiter.set_result(None)
        return True

    def _break(self, error: BaseException) -> None:
        if self._ended is None:
            self._ended = _for_recv(error)
            try:
                if not self._reading_paused:
                    self._reading_paused = True
                    self._raw_transport.pause_reading()
            finally:
                self._wake()

    def _end_of_stream(self) -> None:
        if self._ended is None:
            try:
                self._splitter.feed_eof()
                self._ended = EOFError("the peer closed the connection")
            except errors.FrameError as error:
                self._ended = error.with_traceback(None)
        self._wake()

    def _end(self, exc: BaseException | None) -> tuple[BaseException | None]:
        try:
            if self._ended is None:
                if exc is not None:
                    self._ended = _for_recv(exc)
                elif self._closing:
                    self._ended = _error_texts.connection_closed()
            (error,) = super()._end(exc)
            if self._ended is None and error is not None:
                self._ended = _for_recv(error)
            return (error,)
        finally:
            self._wake_all()

    def _emptied(self) -> None:
        super()._emptied()
        # Those that have sent come first: the transport has room, which the next ones may take.
        self._wake_waiting()
        if not self._turn.paused:
            self._senders.wake_next()

    def _wake_waiting(self) -> None:
        if self._waiting:
            for waiting in list(self._waiting):
                if not waiting.done():
                    waiting.set_result(None)

    def _wake_all(self) -> None:
        """At the end. A wake-up that fails keeps none of the others waiting."""
        waiters = [*self._senders.futures(), *self._waiting]
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

    def _pause_reading(self) -> None:
        self._user_paused = True
        super()._pause_reading()

    def _resume_reading(self) -> None:
        self._user_paused = False
        if not self._reading_paused:
            super()._resume_reading()

    # --- the stream's side ------------------------------------------------------------------------

    async def wait_for_messages(self) -> None:
        """Until there is a batch in `_batches`; no message is at hand."""
        if self._waiter is not None:
            raise _error_texts.another_recv_waits()
        while not self._batches:
            if self._ended is not None:
                raise self._ended.with_traceback(None)
            if self._lost:
                raise _closed(self._error, not self._closing)
            if self._reading_paused:  # what raised in release_head() may have left it so
                self._resume_when_low()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    # No call separates the lines that belong together, and none of them allocates: a signal handler
    # that raises, or a garbage collection that receives, finds each batch in one place.

    def take_batch(self) -> None:
        """Makes the next batch the one at hand."""
        batches = self._batches
        if batches and not self._at_hand.head:
            self._at_hand.head, self._head_size = batches[0]
            del batches[0]

    def take_all(self) -> list[Any]:
        """All messages that are there, in order."""
        at_hand = self._at_hand
        no_messages: list[Any] = []
        no_batches: deque[tuple[list[Any], int]] = deque()
        head, batches, held, head_size = (
            at_hand.head,
            self._batches,
            self._held,
            self._head_size,
        )
        at_hand.head, self._batches = no_messages, no_batches
        self._held = self._head_size = 0
        try:
            if head or len(batches) != 1:
                later = chain.from_iterable(map(_in_order, batches))
                messages = list(chain(reversed(head), later))
            else:
                messages = batches[0][0][::-1]
            self._resume_when_low()
        except BaseException:
            at_hand.head, self._batches = head, batches
            self._held, self._head_size = held, head_size
            raise
        return messages

    def release_head(self) -> None:
        """The last of the messages at hand is taken."""
        self._held -= self._head_size
        self._head_size = 0
        if self._reading_paused:
            self._resume_when_low()

    def _resume_when_low(self) -> None:
        if self._reading_paused and self._held <= _LOW_WATER and self._ended is None:
            self._reading_paused = False
            try:
                if not (self._lost or self._closing or self._user_paused):
                    self._raw_transport.resume_reading()
            except BaseException:
                self._reading_paused = True
                raise

    def _put_and_wait(self, message: object) -> Coroutine[Any, Any, None]:
        """As `FrameStream.send`, for what cannot simply wait in `_turn`."""
        return self.send_when_there_is_room(FrameProtocol._put, message)

    def send_when_there_is_room(
        self, send: Callable[[FrameProtocol, Any], None], messages: Any
    ) -> Coroutine[Any, Any, None]:
        """Calls `send`, now if the peer is not slow; what to await then, errors included."""
        turn = self._turn
        if turn.thread != get_ident():
            return self._send_in_loop(send, messages)
        if turn.paused or turn.queued:
            return self._send_later(send, messages)
        try:
            send(self, messages)
        except Exception as error:
            return _raise(error)
        if turn.paused:
            # The message is accepted: where there is no memory to wait with, it is not waited.
            with contextlib.suppress(MemoryError):
                return self._finish_sending()
        return _DONE

    async def _send_in_loop(
        self, send: Callable[[FrameProtocol, Any], None], messages: Any
    ) -> None:
        """For another thread, which gives it to `asyncio.run_coroutine_threadsafe`."""
        self._check_thread()
        await self.send_when_there_is_room(send, messages)

    async def _send_later(self, send: Callable[[FrameProtocol, Any], None], messages: Any) -> None:
        sender = Sender(self._loop, len(messages) if type(messages) is bytes else LARGE)
        try:
            await self._wait_to_send(sender)
            send(self, messages)
        except (asyncio.CancelledError, OSError) as error:
            if not hasattr(error, "message_started"):
                error.message_started = False  # type: ignore[union-attr]
            raise
        finally:
            del messages  # it is accepted: nothing here keeps it while the send waits
            self._leave_queue(sender)
        if self._turn.paused:
            await self._finish_sending()

    async def _wait_to_send(self, sender: Sender) -> None:
        """Wait until the transport accepts more and no send that came before waits."""
        turn, senders = self._turn, self._senders
        senders.enter(sender)
        turn.queued = True
        while not self._lost:
            await sender.wait()
            if not turn.paused and senders.is_first(sender):
                return

    def _leave_queue(self, sender: Sender) -> None:
        senders = self._senders
        senders.leave(sender)
        self._turn.queued = bool(senders)
        try:
            if not self._turn.paused:
                senders.wake_next()
        except BaseException as error:  # those that wait would do so for ever
            self._tear(error)
            raise

    async def _finish_sending(self) -> None:
        try:
            await self.wait_for_room()
        except asyncio.CancelledError as error:
            error.message_started = True  # type: ignore[attr-defined]
            raise
        except MemoryError:  # as in send_when_there_is_room()
            return
        if self._dropped:
            lost = _closed(self._error, not self._closing)
            lost.message_started = True  # type: ignore[attr-defined]
            raise lost

    async def wait_for_room(self) -> None:
        """Until the transport has taken all that waited for it, or the end."""
        if self._turn.paused and not self._lost:
            await self._wait()

    async def start_tls(
        self, sslcontext: ssl_module.SSLContext, server_side: bool | None, **options: Any
    ) -> None:
        """As `FrameStream.start_tls`."""
        self._check_open()
        if self._waiter is not None:
            raise _error_texts.another_recv_waits()
        if self._at_hand.head or self._batches or self._splitter.pending:
            raise _error_texts.clear_text_left()
        raw, turn = self._raw_transport, self._turn
        raw.pause_reading()  # what comes next is the peer's handshake
        try:
            self._write_turn()
            while turn.paused:
                await self.wait_for_room()
                self._check_open()
                self._write_turn()
            turn.paused = True  # what others send from here on waits for the encryption
            encrypted = await self._loop.start_tls(
                raw,
                self,
                sslcontext,
                server_side=self.is_server if server_side is None else server_side,
                **options,
            )
        except BaseException as error:
            # Between two encodings there is no way on, nor is the protocol always told of the end.
            raw.abort()
            self._closing = self._dropped = True
            self.connection_lost(error if isinstance(error, Exception) else None)
            raise
        self._attach(encrypted)
        turn.paused = False
        self._flush()

    async def wait_until_closed(self) -> None:
        while not self._lost:
            await self._wait()

    async def _wait(self) -> None:
        waiting = self._loop.create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)


def _in_order(batch: tuple[list[Any], int]) -> list[Any]:
    return batch[0][::-1]


class _TimedStreamProtocol(_StreamProtocol):
    """With a limit on the time that a message takes, and on the time between two.

    One timer stands for both. It is not moved for every message: when it runs out, it looks whether
    there was a reason.
    """

    __slots__ = (
        "_frame_offset",
        "_idle_since",
        "_idle_timeout",
        "_message_since",
        "_message_timeout",
        "_timer",
    )

    def __init__(
        self,
        codec: Codec,
        handler: Handler | None,
        message_timeout: float | None,
        idle_timeout: float | None,
    ) -> None:
        super().__init__(codec, handler)
        self._message_timeout = message_timeout
        self._idle_timeout = idle_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._frame_offset = -1  # of the pending frame whose time is running
        self._message_since = 0.0  # loop time of its first byte
        self._idle_since = 0.0  # loop time of the last byte, or when recv began to wait

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        self._idle_since = now = self._loop.time()
        splitter = self._splitter
        if splitter.pending and splitter.stream_offset != self._frame_offset:
            self._frame_offset = splitter.stream_offset
            self._message_since = now
        self._watch()

    async def wait_for_messages(self) -> None:
        if self._waiter is None:
            self._idle_since = self._loop.time()
            self._loop.call_soon(self._watch)
        await super().wait_for_messages()

    def _resume_when_low(self) -> None:
        paused = self._reading_paused
        super()._resume_when_low()
        if paused and not self._reading_paused:
            # What the peer could not send meanwhile is not its fault.
            self._idle_since = self._message_since = self._loop.time()
            self._watch()

    def _end(self, exc: BaseException | None) -> tuple[BaseException | None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return super()._end(exc)

    def _deadline(self) -> float | None:
        if self._ended is not None or self._lost or self._reading_paused:
            return None
        if self._splitter.pending:
            timeout = self._message_timeout
            return None if timeout is None else self._message_since + timeout
        if self._idle_timeout is None or self._waiter is None or self._waiter.done():
            return None
        return self._idle_since + self._idle_timeout

    def _watch(self) -> None:
        deadline = self._deadline()
        timer = self._timer
        if deadline is None or (timer is not None and timer.when() <= deadline):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        deadline = self._deadline()
        if deadline is None:
            return
        if self._loop.time() < deadline:
            self._watch()
            return
        splitter = self._splitter
        offset = splitter.stream_offset
        if splitter.pending:
            self._break(
                _error_texts.message_took_too_long(
                    self._message_timeout or 0.0,
                    splitter.pending,
                    offset,
                    splitter.pending_header,
                )
            )
        else:
            self._break(_error_texts.idle_too_long(self._idle_timeout or 0.0, offset))


class FrameStream:
    """A connection of whole messages, from `open_connection` or in a server's handler.

    Iterates over the messages until the peer closes, and closes itself as an asynchronous context
    manager.

    A cancelled or timed-out `recv` loses nothing: the next one takes up where it was. What was read
    and not yet received counts at most 256 KiB (frames, and 48 bytes for each message) and what one
    more read completes, up to 128 KiB and one message of the codec's largest size; above it the
    stream stops reading and TCP stops the peer. Over TLS asyncio holds up to 256 KiB more.

    One task may receive while others send. Small messages that are sent in one turn of the loop
    leave in one write.
    """

    __slots__ = ("__dict__", "__weakref__", "_protocol", "_ready")

    _ready: Iterator[Any]  # of the messages at hand

    def __init__(self, protocol: _StreamProtocol) -> None:
        self._protocol = protocol
        # The same without a frame of Python.
        self.send = protocol._turn.send_and_wait  # type: ignore[method-assign]

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __repr__(self) -> str:
        protocol = self._protocol
        state = "closed" if protocol._lost else "closing" if protocol._closing else "open"
        peer = self.get_extra_info("peername")
        return f"<{type(self).__name__} {state} peer={peer!r} codec={protocol.codec}>"

    @property
    def codec(self) -> Codec:
        """The shape of the frames."""
        return self._protocol.codec

    @property
    def transport(self) -> asyncio.Transport:
        """The connection's transport. What was sent leaves ahead of what its methods write."""
        return self._protocol.transport

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` would give without waiting."""
        protocol = self._protocol
        return len(protocol._at_hand.head) + sum(len(messages) for messages, _ in protocol._batches)

    @property
    def pending_send(self) -> int:
        """Bytes that were accepted and are not with the system yet."""
        protocol = self._protocol
        return 0 if protocol._lost else protocol.transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of asyncio's transports: "peername", "sockname", "socket", "ssl_object", ..."""
        return self._protocol.transport.get_extra_info(name, default)

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: object, /) -> Coroutine[Any, Any, None]:
        """Sends one message; to be awaited at once.

        The await takes no time, unless the peer is slow: then it waits until there is room, behind
        all that waited before. Cancelled before the message was accepted, nothing of it is sent;
        later, all of it. The attribute ``message_started`` of the `asyncio.CancelledError` tells.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing is sent.
            ConnectionError: The connection is closed or lost.
        """
        sent: Coroutine[Any, Any, None] = self._protocol._turn.send_and_wait(message)
        return sent

    def send_many(self, messages: Iterable[object], /) -> Coroutine[Any, Any, None]:
        """Sends many messages, all or none; otherwise as `send`."""
        return self._protocol.send_when_there_is_room(FrameProtocol.send_many, messages)

    async def drain(self) -> None:
        """Writes what this turn of the loop has gathered, and waits until there is room for more.

        Raises:
            ConnectionError: The connection is lost.
        """
        protocol = self._protocol
        if not protocol._lost:
            protocol._write_turn()
        await protocol.wait_for_room()
        if protocol._lost:
            raise _closed(protocol._error, not protocol._closing)

    def write_eof(self) -> None:
        """Says that no more will be sent, after all that was; receiving goes on.

        Raises:
            NotImplementedError: TLS cannot end one direction alone.
        """
        self._protocol._write_eof()

    # --- receiving --------------------------------------------------------------------------------

    async def recv(self) -> Any:
        """The next message: `bytes`, or an object of the codec's ``specials``.

        Does not suspend while there are messages at hand.

        Raises:
            EOFError: The peer closed the connection between two messages.
            IncompleteFrameError: The peer closed it inside a frame.
            FrameError: The stream is broken: a bad frame, or a time-out of the stream. This is
                raised behind the messages in front of it, and again by every later call.
            OSError: The connection is lost.
            RuntimeError: Another `recv` of this stream waits.
        """
        for message in self._ready:
            return message
        protocol = self._protocol
        while True:
            if protocol._waiter is not None or not protocol._batches:
                await protocol.wait_for_messages()
            protocol.take_batch()
            for message in self._ready:
                return message

    async def recv_many(self) -> list[Any]:
        """At least one message: all that are there without another wait.

        Raises:
            As `recv`.
        """
        protocol = self._protocol
        while True:
            if not protocol._at_hand.head and (
                protocol._waiter is not None or not protocol._batches
            ):
                await protocol.wait_for_messages()
            messages = protocol.take_all()
            if messages:
                return messages

    def __aiter__(self) -> AsyncIterator[Any]:
        # Those at hand without a coroutine; __anext__ is called for the others.
        messages: AsyncIterator[Any] = self._protocol._at_hand
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
        sslcontext: ssl_module.SSLContext,
        *,
        server_side: bool | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
    ) -> None:
        """Encrypts the connection from here on.

        The peer must have agreed to it, and nothing it sent may be left: what came in clear text
        must not pass for encrypted.

        Args:
            sslcontext: As for asyncio's ``loop.start_tls``.
            server_side: True where this side is the server; by default it is for streams of
                `start_server` and `start_unix_server`.
            server_hostname: The name that the server's certificate must have.
            ssl_handshake_timeout: In seconds.

        Raises:
            RuntimeError: There are messages, or a part of one, that were not received.
            ssl.SSLError, OSError: The handshake failed; the connection is lost. So it is where
                `start_tls` was cancelled.
        """
        await self._protocol.start_tls(
            sslcontext,
            server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
        )

    async def aclose(self) -> None:
        """Closes the connection when all that was accepted is sent, and waits for that.

        Messages that were read already can still be received. A cancelled `aclose` drops what a
        slow peer has not taken, and so does the end of an ``async with`` block that was cancelled
        or has raised a `TimeoutError`.
        """
        protocol = self._protocol
        protocol._close()
        try:
            await protocol.wait_until_closed()
        except asyncio.CancelledError:
            if not protocol._lost:
                protocol._abort()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: object, exc: BaseException | None, _: object) -> None:
        if isinstance(exc, (asyncio.CancelledError, TimeoutError)):
            # The time is over: the block ends, however slow the peer is.
            self._protocol._close_now()
        else:
            await self.aclose()


_serving: set[asyncio.Task[None]] = set()  # an event loop alone does not keep its tasks


async def _serve(handler: Handler, stream: FrameStream) -> None:
    """One connection of a server: whatever becomes of the handler, the stream is closed."""
    try:
        async with stream:
            await handler(stream)
    except Exception as error:
        if _is_peers_doing(error):
            if type(error) is not EOFError:
                _logger.info("connection %r ended: %s", stream.get_extra_info("peername"), error)
            return
        asyncio.get_running_loop().call_exception_handler(
            {
                "message": "a connection's handler failed",
                "exception": error,
                "transport": stream.transport,
            }
        )


def _is_peers_doing(error: BaseException) -> bool:
    """Whether it is nothing for a server to fail of; of a task group's errors, each."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_peers_doing, error.exceptions))
    return isinstance(error, (EOFError, errors.FrameError, ConnectionError, ssl_module.SSLError))


# --------------------------------------------------------------------------------------------------
# Ways to a stream
# --------------------------------------------------------------------------------------------------


def _factory(
    codec: Codec,
    handler: Handler | None,
    message_timeout: float | None,
    idle_timeout: float | None,
) -> Callable[[], _StreamProtocol]:
    for name, timeout in (("message_timeout", message_timeout), ("idle_timeout", idle_timeout)):
        if timeout is not None and not timeout > 0:
            raise _error_texts.bad_seconds(name, timeout)
    Splitter(codec)  # a codec that is none is refused before there is a connection
    if message_timeout is None and idle_timeout is None:
        return lambda: _StreamProtocol(codec, handler)
    return lambda: _TimedStreamProtocol(codec, handler, message_timeout, idle_timeout)


async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    codec: Codec = _DEFAULT_CODEC,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> FrameStream:
    """Connects to a server.

    Args:
        host: Name or address.
        port: TCP port.
        codec: The shape of the frames.
        message_timeout: Seconds that a message may take from its first byte to its last; then
            `FrameStream.recv` raises `MessageTimeoutError`. The time is not counted while the
            stream has stopped reading.
        idle_timeout: Seconds that a `FrameStream.recv` may wait for the first byte of a message;
            then it raises `IdleTimeoutError`.
        **kwargs: As of asyncio's ``loop.create_connection``: ssl, server_hostname, sock, ...

    Returns:
        The connected stream.

    Raises:
        OSError, ssl.SSLError: There is no connection to be had.
        TypeError, ValueError: An argument is invalid; nothing was connected.
    """
    factory = _factory(codec, None, message_timeout, idle_timeout)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(factory, host, port, **kwargs)  # type: ignore[arg-type]
    return protocol.stream


async def open_unix_connection(
    path: str | os.PathLike[str] | None = None,
    *,
    codec: Codec = _DEFAULT_CODEC,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> FrameStream:
    """As `open_connection`, to the Unix socket at a path."""
    factory = _factory(codec, None, message_timeout, idle_timeout)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_unix_connection(factory, _path(path), **kwargs)
    return protocol.stream


async def start_server(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    codec: Codec = _DEFAULT_CODEC,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> asyncio.Server:
    """Starts a server.

    Args:
        handler: ``async def handler(stream)`` serves one connection, in a task of its own; the
            stream is closed after it. An `EOFError`, a `FrameError`, a `ConnectionError` or an
            `ssl.SSLError` that it lets out ends the connection quietly; any other exception goes to
            the loop's exception handler.
        host: Name or address, or a sequence of them; None for all interfaces.
        port: TCP port; 0 for any that is free.
        codec: The shape of the frames.
        message_timeout: See `open_connection`: against peers that send a byte now and then.
        idle_timeout: See `open_connection`: against peers that send nothing.
        **kwargs: As of asyncio's ``loop.create_server``: ssl, reuse_port, backlog, sock, ...

    Returns:
        asyncio's own server, which listens already; its ``sockets`` tell on which port.

    Raises:
        OSError: The address is not to be had.
        TypeError, ValueError: An argument is invalid; nothing listens.
    """
    factory = _factory(codec, handler, message_timeout, idle_timeout)
    return await asyncio.get_running_loop().create_server(factory, host, port, **kwargs)


async def start_unix_server(
    handler: Handler,
    path: str | os.PathLike[str] | None = None,
    *,
    codec: Codec = _DEFAULT_CODEC,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    **kwargs: Any,
) -> asyncio.Server:
    """As `start_server`, on a Unix socket at a path."""
    factory = _factory(codec, handler, message_timeout, idle_timeout)
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(factory, _path(path), **kwargs)


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
