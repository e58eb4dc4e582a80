"""The send side of a connection in an event loop: messages → batch → outbox → transport.

A message takes this way, in order::

    send() -> batch      small `bytes` of this iteration of the loop, encoded together at its end
           -> outbox     all other messages, and what a full transport does not accept
           -> transport, which has its own buffer and its own high-water mark

A batch goes past a transport that holds nothing, straight into its socket: `_send_at_once`.

The transport gets more only while it has not called `pause_writing`: so a large message waits in
the outbox, which refers to it, and not in the transport, which may copy it.

Memory can run out, a signal handler can raise and a garbage collection can call the same
connection, at any call or allocation. An error before a message was accepted is raised to the
caller and nothing else happens. An error after it, or one of the transport, ends the connection,
because the number of bytes that left is unknown. `_states.py` has the states and what changes them.
While `busy` is set, the outbox or the transport is in use: messages that are sent then are encoded
at once and wait in `_late`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from itertools import chain
from threading import get_ident
from typing import TYPE_CHECKING, Any

from .. import _error_texts
from .._bytes_like import list_of_messages
from .._engine import asyncio_fast_path as fast_path
from .._layout import CUSTOM, plain_codec
from .._outbox import GATHER_SIZE, Outbox
from .._peers import name_peer
from .._states import TransportState
from .pipe_transport import PipeTransport, is_read_only, refused
from .transport import ProtocolTransport, is_vectored, open_socket_fd

if TYPE_CHECKING:
    from ..codec import Codec
    from .protocol import FrameProtocol

__all__ = ["SENDS", "SendSide", "close_now", "encode_all", "stays_open", "write_all"]

# A batch is written before the iteration of the loop ends when it has this many bytes.
_BATCH_SIZE = 128 * 1024

# A transport that copies what it cannot send at once gets at most this many bytes a call.
_PIECE_SIZE = 256 * 1024
# For such a transport, small frames are joined with this much of the large message that follows:
# one system call and one packet for the header and the beginning.
_JOIN_SIZE = 16 * 1024


_OPEN, _ENDING, _FAILED = TransportState.OPEN, TransportState.ENDING, TransportState.FAILED
_CLOSING, _ABORTED = TransportState.CLOSING, TransportState.ABORTED
_CLOSED, _LOST = TransportState.CLOSED, TransportState.LOST

SENDS = (_OPEN, _ENDING, _CLOSING)
"""The states in which the accepted messages are sent; in all others they were dropped."""


class SendSide(fast_path.SendPath):
    """The unsent messages of one connection, its transport and its state.

    Args:
        protocol: The protocol that the transport calls.
        codec: The shape of the frames.
    """

    __slots__ = (
        "_loop",
        "_resuming",
        "_vectored",
        "codec",
        "dropped",
        "error",
        "is_encrypted",
        "transport",
    )

    def __init__(self, protocol: FrameProtocol[Any], codec: Codec[Any]) -> None:
        self._protocol = protocol
        self.codec = codec = plain_codec(codec)
        self._encode_many = codec.encode_many
        self.batch = fast_path.SendBatch(self, _BATCH_SIZE)
        """Small messages of this iteration of the loop."""
        self.fast_size = _fast_size(codec)
        """The `fast_size` of the batch while a flush is certain."""
        self.flush_scheduled = False
        """A flush is certain: small messages may wait in the batch."""
        self._outbox = Outbox(codec)
        self._late: list[bytes] = []  # encoded frames that were sent while `busy` was set
        self.busy = False
        """The outbox or the transport is in use: no other call may touch them."""
        self._loop: asyncio.AbstractEventLoop | None = None  # of the connection
        self._resuming = False  # the transport accepts more, and the outbox comes first
        self.raw_transport: Any = None
        """The loop's transport; None before there is one."""
        self.socket_errno = 0
        self.socket_fd = -1
        self.transport: ProtocolTransport | None = None
        """The transport that the protocol's user sees."""
        self._vectored = False  # whether the transport copies nothing
        self.is_encrypted = False
        """The transport encrypts."""
        self._get_protocol: Callable[[], object] | None = None  # None if it cannot be asked
        self._is_closing: Callable[[], object] = bool  # returns False if it cannot be asked
        self.state = _OPEN
        """What this side still does with the transport."""
        self.dropped = False
        """Some accepted messages were not sent, or it is unknown."""
        self.error: BaseException | None = None
        """Why the connection ends."""

    @property
    def closed_here(self) -> bool:
        """This side has closed the connection, or given it to others."""
        return _CLOSING <= self.state <= _CLOSED

    # --- messages ---------------------------------------------------------------------------------

    def put(self, message: object) -> None:
        """Accept one message that the batch did not take.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing is sent.
            ConnectionError: The connection is closed or lost.
            RuntimeError: The connection belongs to an event loop in another thread.
        """
        batch = self.batch
        if batch.thread != get_ident() or self.state is not _OPEN:
            self.check_open()
        if self.busy:
            self._late.append(self.codec.encode(message))
        elif type(message) is bytes and len(message) < self.fast_size:
            self.flush_soon()
            if self.state is not _OPEN:  # because of a garbage collection
                self.check_open()
            budget = batch.budget - len(message) - 8
            batch.messages.append(message)
            batch.budget = budget
            if budget < 0:
                self.write_batch()
        else:
            self._accept(self._outbox.put, message)

    def put_many(self, messages: Iterable[object]) -> None:
        """Accept many messages, all or none.

        Raises:
            FrameError, TypeError, BufferError, ConnectionError, RuntimeError: As `put`.
        """
        self.check_open()
        if type(messages) is not list:
            messages = list_of_messages(messages)
        if self.busy:
            self._late.append(self._encode_many(messages))
        else:
            self._accept(self._outbox.put_many, messages)

    def write(self, data: Any) -> None:
        """Accept bytes that are encoded already; ignore them after the end, as asyncio does."""
        data = data if type(data) is bytes else bytes(memoryview(data))
        if self.state < _FAILED:
            self.check_open()
            self.put_encoded(data, 0)

    def put_encoded(self, data: bytes, flush_size: int = _BATCH_SIZE) -> None:
        """Accept bytes as they are, with `flush_size` as for `_accept`; the connection is open."""
        if self.busy:
            self._late.append(data)
        else:
            self._accept(self._outbox.put_unframed, data, flush_size)

    def _accept(
        self, put: Callable[[Any], None], messages: Any, flush_size: int = _BATCH_SIZE
    ) -> None:
        """Put messages into the outbox, after all that were sent before.

        If the outbox then has at least `flush_size` bytes, the transport gets them at once.
        """
        self._move_batch()
        accepted = False
        self.busy, self.batch.fast_size = True, 0
        try:
            put(messages)
            accepted = True
            self._outbox.own()  # a mutable message may change before it leaves
            self._finish_work()
            if self._outbox.size >= flush_size:
                self.flush_outbox()
            else:
                self.flush_soon()
        except BaseException as error:
            if not accepted:
                self._finish_work()
                if self.state in (_ENDING, _CLOSING):  # meanwhile
                    self.flush_soon()
            elif not isinstance(error, RuntimeError):  # no loop runs, or it is another transport
                self.fail(error)
            raise

    def check_thread(self) -> None:
        """Raise a RuntimeError if the connection's event loop is in another thread."""
        if self.batch.thread not in (0, get_ident()):
            if self._loop is None or _running_loop() is not self._loop:
                raise RuntimeError(
                    "this connection belongs to an event loop in another thread; "
                    "use loop.call_soon_threadsafe()"
                )
            self.batch.thread = get_ident()  # the loop has stopped, and runs in this thread now

    def check_open(self) -> None:
        """Raise an error if the connection accepts no more messages from this thread."""
        self.check_thread()
        if self.state >= _FAILED:
            raise self.closed_error()
        if self.state is _ENDING:
            raise refused(self.raw_transport)

    def closed_error(self) -> ConnectionError:
        """Return the error of a call that came after the end."""
        if self.closed_here:
            return name_peer(_error_texts.connection_closed(), self._protocol._inbox.peer)
        return name_peer(_error_texts.connection_lost(self.error), self._protocol._inbox.peer)

    # --- from the batch to the transport ----------------------------------------------------------

    def flush_soon(self) -> None:
        """Let the loop write the accepted messages in its next iteration."""
        if not self.flush_scheduled:
            # Before there is a connection, begin() flushes.
            if self.raw_transport is not None:
                asyncio.get_running_loop().call_soon(self.flush)
            self.flush_scheduled = True
        if self.state is _OPEN:
            self.batch.fast_size = self.fast_size

    def _handed_over(self) -> RuntimeError:
        # After loop.start_tls() the old transport would send in clear text.
        return RuntimeError(
            "the transport has another protocol now; after loop.start_tls(), set "
            "protocol.transport to the transport that it returned"
        )

    def flush_outbox(self) -> None:
        """Write the outbox as far as the transport accepts it."""
        if self.busy:
            return
        outbox, batch = self._outbox, self.batch
        ready = bool(outbox.size) and not batch.paused
        if ready and self._get_protocol is not None and self._get_protocol() is not self._protocol:
            raise self._handed_over()
        try:
            if ready:
                self.busy, batch.fast_size = True, 0
                self._feed_transport()
                self._finish_work()
            if not (outbox.size or batch.paused) and self.state in SENDS:
                self._on_drained()
        except BaseException as error:
            self.fail(error)
            raise

    def _feed_transport(self) -> None:
        outbox, batch = self._outbox, self.batch
        while outbox.size and not batch.paused:
            buffers = outbox.buffers()
            if len(buffers) > 1 and self._vectored:
                size = sum(map(len, buffers))
                self.raw_transport.writelines(buffers)
            else:
                data = buffers[0] if self._vectored else _first_piece(buffers)
                size = len(data)
                self.raw_transport.write(data)
            if self.state not in SENDS:  # an abort from pause_writing()
                return
            outbox.sent(size)
            self._take_late()
            # If the connection breaks in a write, the transport reports it in a later iteration of
            # the loop. Until then it gets no more: otherwise a task that only sends would never let
            # that iteration come.
            if self._is_closing() is True and not self.closed_here:
                batch.paused = True

    def _move_batch(self) -> None:
        """Move the batch to the outbox, before anything else is put there: this keeps the order."""
        batch = self.batch
        if batch.messages:
            self.busy, batch.fast_size = True, 0
            try:
                self._outbox.put_bytes(self._encode_many(batch.messages))
                batch.clear()
                self._finish_work()
            except BaseException as error:
                self.fail(error)
                raise

    def _finish_work(self) -> None:
        """Reset `busy`; what was sent meanwhile follows."""
        while self._late:  # again: a garbage collection in flush_soon() can send, too
            try:
                self._take_late()
                self.flush_soon()
            except BaseException as error:
                self.fail(error)
                raise
        self.busy = False
        if self.flush_scheduled and self.state is _OPEN:
            self.batch.fast_size = self.fast_size

    def _take_late(self) -> None:
        late = self._late
        while late:
            self._outbox.put_bytes(late[0])
            del late[0]

    def _on_drained(self) -> None:
        """Do what waited until the transport has everything and accepts more."""
        # Later: a transport that calls resume_writing() has not finished its own work.
        if self.state is _CLOSING:
            asyncio.get_running_loop().call_soon(self.raw_transport.close)
        elif self.state is _ENDING:
            asyncio.get_running_loop().call_soon(self.raw_transport.write_eof)

    def unsent_size(self) -> int:
        """Return the bytes that were accepted and that the transport does not have yet."""
        size: int = self._outbox.size
        return size + sum(map(len, chain(self.batch.messages, self._late)))

    def use(self, codec: Codec[Any]) -> None:
        """Encode messages with another codec from now on, after `encode_all`."""
        self._outbox.use(codec)
        self.codec = codec = plain_codec(codec)
        self._encode_many = codec.encode_many
        self.fast_size = _fast_size(codec)
        self.batch.fast_size = self.fast_size if self.batch.fast_size else 0

    # --- the transport ----------------------------------------------------------------------------

    def attach(self, transport: Any) -> None:
        """Use this transport from now on."""
        self.check_thread()
        if isinstance(transport, ProtocolTransport):
            transport = transport.raw
        transport = PipeTransport.of(self._protocol, transport)
        if is_read_only(transport):
            self.state, self.fast_size = _ENDING, 0
        self.raw_transport = transport
        # Stored, because a closed TLS transport cannot be asked.
        self.is_encrypted = transport.get_extra_info("sslcontext") is not None
        self._vectored = not self.is_encrypted and is_vectored(transport)
        self.socket_fd = open_socket_fd(transport)
        self._get_protocol, self._is_closing = None, bool
        with contextlib.suppress(AttributeError, NotImplementedError):  # such as a test's
            if transport.get_protocol() is self._protocol:
                self._get_protocol = transport.get_protocol
        with contextlib.suppress(AttributeError, NotImplementedError):
            transport.is_closing()
            self._is_closing = transport.is_closing
        self.transport = ProtocolTransport(self._protocol, self, transport)

    def begin(self, transport: Any) -> None:
        """Start sending: there is a connection."""
        self.attach(transport)
        self._loop = _running_loop()
        self.batch.thread = get_ident()
        if self.state not in SENDS:  # a send has failed before there was a connection
            self.raw_transport.abort()
            return
        self.batch.paused = False
        if self.batch.messages or self._outbox.size:
            self.flush()

    def pause(self) -> bool:
        """Keep further messages here; return whether the protocol's user must be told."""
        self.batch.paused = True
        return not self._resuming

    def resume(self) -> bool:
        """Write again; return False if the outbox has filled the transport again."""
        if self.batch.paused and self.state in SENDS:
            self.batch.paused = False
            self._resuming = True
            try:
                self.flush_outbox()
            finally:
                self._resuming = False
            return not self.batch.paused
        return True

    # --- the end ----------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """End the connection, because the number of bytes that left is unknown."""
        self.busy = False
        if self.state not in SENDS:
            return
        self.stop(_ABORTED if self.state is _CLOSING else _FAILED)
        try:
            error.message_started = True  # type: ignore[attr-defined]
            if self.error is None:
                # Without the error itself, whose traceback refers to the message.
                self.error = ConnectionAbortedError(
                    errno.ECONNABORTED, f"sending failed: {error!r}"
                )
            self.drop_unsent()
        finally:
            if self.raw_transport is not None:
                self.raw_transport.abort()

    def stop(self, state: TransportState) -> None:
        """Send nothing more, from this state on or a later one; the unsent messages are lost."""
        if self.state < state:
            self.state = state
        self.dropped = True
        self.batch.paused, self.batch.fast_size = True, 0

    def drop_unsent(self) -> None:
        """Release the memory of the unsent messages."""
        self.batch.clear()
        self._late.clear()
        self._outbox.clear()

    def close(self) -> None:
        """Close the transport when it has all messages."""
        if self.state >= _CLOSING:
            return
        self.check_thread()
        self._protocol._stop_peer_timer()
        if self.busy:
            self.set_closed_here()  # the call that is in progress closes when all is written
            return
        self.flush()
        self.set_closed_here()
        if not self._outbox.size:
            self.raw_transport.close()
        elif not self.raw_transport.is_closing():
            self.raw_transport.pause_reading()

    def set_closed_here(self) -> None:
        """Accept no more messages: this side has closed the connection, or given it to others."""
        if self.state < _CLOSING:
            self.state = _ABORTED if self.state is _FAILED else _CLOSING

    def abort(self) -> None:
        """Close the transport at once and drop the unsent messages."""
        self.check_thread()
        self.stop(_ABORTED)
        try:
            self.drop_unsent()
        finally:
            self.raw_transport.abort()

    def write_eof(self) -> None:
        """End this direction when the transport has all messages."""
        if self.state is not _OPEN:
            return
        self.check_thread()
        if self.is_encrypted:
            raise NotImplementedError(
                "write_eof: TLS cannot end one direction alone; close the connection"
            )
        if self.busy:
            self.state = _ENDING
            return
        self.flush()
        if self.state is not _OPEN:  # the flush failed
            return
        self.state = _ENDING
        if not self._outbox.size:
            self.raw_transport.write_eof()

    def cause_of_end(self, exc: BaseException | None) -> BaseException | None:
        """Return why the connection ends; the transport has said `exc`."""
        if exc is None and self.socket_errno:
            return OSError(self.socket_errno, os.strerror(self.socket_errno))
        return exc

    def lose_transport(self) -> None:
        """Accept no more messages: the connection has ended."""
        self.state = _CLOSED if self.closed_here else _LOST
        self.batch.fast_size = 0
        self.socket_fd = -1  # the number may soon be another file's

    def end(self, exc: BaseException | None) -> None:
        """Drop everything: the connection has ended, with this error."""
        if self.error is None:
            self.error = exc
        if exc is not None or self.unsent_size():
            self.dropped = True
        self.drop_unsent()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def stays_open(side: SendSide, wanted: bool | None) -> bool:
    """Return what `eof_received` returns to the transport, which would drop the outbox."""
    if not wanted and side.state < _CLOSING:
        side.flush()
        wanted = bool(side._outbox.size)
        if wanted:
            side.close()
    return bool(wanted) and not side.is_encrypted


def close_now(side: SendSide) -> None:
    """Close the transport; drop what the kernel does not take at once."""
    side.close()
    transport = side.transport
    if side.state < _CLOSED and transport is not None and transport.get_write_buffer_size():
        side.abort()


def encode_all(side: SendSide) -> None:
    """Encode all accepted messages.

    Raises:
        RuntimeError: The call comes from inside a call that encodes or writes.
    """
    if side.busy:
        raise RuntimeError(
            "the connection is encoding or writing messages in a call that has not returned yet; "
            "call this one later, for example by loop.call_soon()"
        )
    side._move_batch()


def write_all(side: SendSide) -> None:
    """Give the transport all accepted messages, also if it is full: it gets no more.

    Raises:
        RuntimeError: As for `encode_all`.
    """
    encode_all(side)
    outbox = side._outbox
    while outbox.size:
        data = b"".join(outbox.buffers())
        side.raw_transport.write(data)
        outbox.sent(len(data))


def _fast_size(codec: Codec[Any]) -> int:
    """Return a size below which each `bytes` message can be encoded, whatever its content is."""
    layout = codec.layout
    may_refuse = layout.specials or layout.lead_size or layout.rest_min or layout.extended
    if layout.kind == CUSTOM or layout.keep or may_refuse:
        return 0  # a user's function, also that of a check, can raise
    if layout.marks:  # a message must not contain them
        return 0
    return min(GATHER_SIZE, layout.message_max + 1)


def _first_piece(buffers: list[Any]) -> Any:
    """Return what a transport that copies gets next.

    A large piece is a view, because TLS cuts records off it.
    """
    first = buffers[0]
    if len(first) >= _JOIN_SIZE:
        return memoryview(first)[:_PIECE_SIZE]
    if len(buffers) > 1:
        return b"".join((first, memoryview(buffers[1])[: _JOIN_SIZE - len(first)]))
    return first
