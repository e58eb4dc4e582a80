"""The slow path of receiving: calls that wait, the peer's limits, the end of the stream."""

from __future__ import annotations

import errno
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, final

from .. import _error_texts, errors
from .._inbox import Inbox
from .._peers import name_peer, note_silence
from .._states import ReceiveState
from . import _fast_path_py
from .base import is_unix
from .objects import ObjectSide
from .waiting import READ
from .wire import Intake, Wire, is_time_out

if TYPE_CHECKING:
    from .._observer import Observer
    from .._options import OnInvalid, OnOversize
    from .._unframed import UnframedBytes
    from ..codec import Codec

__all__ = ["LARGE_SIZE", "ReceiveSide", "count_lost", "timed_out"]

_Result = TypeVar("_Result")

_READY, _BUSY = ReceiveState.READY, ReceiveState.BUSY
_HALF_DELIVERED, _FAILED = ReceiveState.HALF_DELIVERED, ReceiveState.FAILED
_LOST = ReceiveState.LOST

# Bytes asked of one receive. More than this gains nothing that could be measured. A Unix socket
# gives more at a time than TCP does.
_READ_SIZE = 128 * 1024
_UNIX_READ_SIZE = 256 * 1024

# recv_file() and recv_into() receive a message without the splitter if more than this is missing.
LARGE_SIZE = 64 * 1024


def timed_out(what: str, timeout: float | None) -> TimeoutError:
    """Return the error of a call whose time-out passed."""
    return _error_texts.timed_out(what, timeout or 0.0)


def count_lost(wire: Wire, done: str) -> OSError:
    """Return the error for a socket whose number of received, or sent, bytes is lost."""
    if wire.tls is None:
        return ConnectionAbortedError(
            errno.ECONNABORTED,
            "an earlier call failed (out of memory, or a signal handler raised) after bytes were "
            f"{done}, and their number is lost; close the connection",
        )
    return ConnectionAbortedError(
        errno.ECONNABORTED,
        "an earlier call failed (out of memory, or a signal handler raised) inside a TLS record, "
        "and its progress is lost; close the connection",
    )


@final
class ReceiveSide:
    """All that a connection needs to receive.

    Args:
        wire: The socket.
        codec: The shape of the frames.
        fast_path: The twin of the fast path for this socket.
        message_timeout: As for `Inbox`.
        idle_timeout: As for `Inbox`.
        conn: The connection, which an observer gets.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: It is told of frames; or None.
        read_ahead: As for `FrameSocket`.
    """

    __slots__ = (
        "conn",
        "fast_path",
        "guard",
        "inbox",
        "intake",
        "lock",
        "may_divert",
        "objects",
        "observer",
        "read_ahead",
        "read_size",
        "receiver",
        "stops_at_large",
        "wire",
    )

    def __init__(
        self,
        wire: Wire,
        codec: Codec[Any],
        fast_path: Any,
        conn: object,
        *,
        message_timeout: float | None,
        idle_timeout: float | None,
        on_oversize: OnOversize,
        on_invalid: OnInvalid,
        observer: Observer | None,
        read_ahead: bool,
    ) -> None:
        self.wire = wire
        self.inbox = Inbox(
            codec,
            message_timeout=message_timeout,
            idle_timeout=idle_timeout,
            on_oversize=on_oversize,
            on_invalid=on_invalid,
            keep_headers=True,
        )
        self.use_objects(codec)
        if observer is not None:
            self.inbox.observe(conn, observer)
        self.inbox.peer = wire.peer
        self.conn, self.observer = conn, observer
        self.may_divert = on_oversize == on_invalid == "raise"
        """A message may be received without the splitter: nothing is discarded."""
        self.fast_path = fast_path
        self.lock = fast_path.Lock()
        self.guard: _fast_path_py.Guard = fast_path.Guard(self.lock, -1.0)
        """It calls functions under the lock, for which it waits no longer than the time-out."""
        self.receiver: _fast_path_py.Receiver = fast_path.Receiver(wire.sock, self.lock)
        """The fast path. It has the ready messages and the state."""
        self.intake = Intake()
        self.read_ahead = read_ahead
        self.read_size = _UNIX_READ_SIZE if is_unix(wire.sock) else _READ_SIZE
        self.stops_at_large = False
        """Receiving stops before a large message, which a call receives without the splitter."""

    def use_objects(self, codec: Codec[Any]) -> None:
        """Prepare for messages that are objects, or bytes."""
        functions = codec._objects
        self.objects: Any = None if functions is None else ObjectSide(functions)
        """What a codec with objects needs; None for messages that are bytes."""

    # --- how to receive ---------------------------------------------------------------------------

    def use_splitter(self) -> None:
        """Receive into the inbox's splitter, with the wire's time-out, from now on."""
        self.intake.use(self.inbox.splitter, self.get_buffer(), self.read_size, self.wire)
        self.use_fast_path()

    def get_buffer(self, splitter: Any = None) -> Any:
        """Return the function that gives a splitter's memory."""
        splitter = splitter or self.inbox.splitter
        if self.read_ahead and self.inbox.unframed is None:
            return splitter.get_room

        def get_exact_buffer(size: int) -> memoryview:
            # No more than what belongs to the pending frame for certain.
            buffer: memoryview = splitter.get_buffer(size)
            return buffer[: min(splitter.bytes_needed, size)]

        return get_exact_buffer

    def use_fast_path(self, enabled: bool = True) -> None:
        """Let the fast path receive, if it can do so by itself."""
        wire, inbox = self.wire, self.inbox
        own = inbox.has_own_splitter and inbox.unframed is None and wire.is_socket
        enabled = enabled and own and wire.tls is None and self.read_ahead
        if enabled and not inbox.has_limits:
            timeout = -1.0 if wire.timeout is None else wire.timeout
            self.receiver.use(inbox.splitter, self.read_size, wire.read_flags, timeout)
        else:
            self.receiver.use(None, 0, 0, 0.0)

    def take_received(self, received: Any) -> None:
        """Take bytes that were read from the socket before this connection was made."""
        splitter = self.inbox.splitter
        try:
            messages = splitter.feed(received)
        except errors.FrameError as error:
            self.inbox.fail(error)
        else:
            self.receiver.ready = self.fast_path.Batch(messages, splitter.headers)
            if splitter.error is not None:
                self.inbox.fail(splitter.error)
        if self.inbox.failure is not None:
            self.receiver.state = _FAILED
        elif self.inbox.has_limits:
            self.inbox.note_arrival(monotonic())

    # --- the slow path ----------------------------------------------------------------------------

    def fill(self) -> None:
        """Receive until a message is ready, or raise. The caller holds the lock."""
        if self.inbox.unframed is not None and self.receiver.state in (_READY, _FAILED):
            self.reframe()
            if self.receiver.ready:
                return
        self.fill_as_it_is()

    def fill_as_it_is(self) -> None:
        """Receive as `fill`; while bytes are unframed, receive pieces."""
        receiver = self.receiver
        if receiver.state is not _READY or self.wire.torn:
            self.refuse()
        if receiver.ready:  # another thread has received
            return
        receiver.state = _BUSY
        try:
            if self.intake.parsing:
                self._end_parsing()
            if self.intake.arrived:
                self.intake.deliver(receiver)  # pragma: no cover (a handler raised before)
            elif not (self.stops_at_large and self._is_large()):
                self._receive_or_wait()
        finally:
            if receiver.state is _BUSY:
                receiver.state = _READY
            if self.inbox.receiving:
                self.stop_clock()

    def stop_clock(self) -> None:
        """Stop the peer's time until the next call that waits.

        It runs on if the time-out is 0: calls never wait then, the caller waits in between.
        """
        if self.wire.timeout != 0:
            self.inbox.pause(monotonic())

    def _end_parsing(self) -> None:
        """Find out what became of bytes that the Python engine had when a handler raised."""
        if self.inbox.splitter.error is None:  # pragma: no cover (tested without the tracer)
            self.end(
                ConnectionAbortedError(
                    errno.ECONNABORTED,
                    "a signal handler raised while the Python engine parsed received bytes, and "
                    "messages are lost; close the connection (signal handlers do not interrupt "
                    "the compiled engine)",
                )
            )
        self.intake.parsing = False  # the splitter raises its error again

    def _receive_or_wait(self) -> None:
        deadline: float | None = None
        watch = self._note_chunk if self.inbox.has_limits or self.stops_at_large else None
        while True:
            event = 0
            arrived: bool | None = False
            try:
                if self.wire.tls is None:
                    arrived = self.intake.receive(self.receiver, watch)
                else:
                    arrived = self.wire.call_tls(self.intake.receive, self.receiver, watch)
            except OSError as error:
                event = self.event_after(error)
            except errors.FrameError as error:
                if self.inbox.splitter.error is error:
                    self.intake.parsing = False  # no messages came with it
                self.end(error)
            except MemoryError:  # perhaps after bytes were received
                self.receiver.state = _LOST
                raise
            if arrived is None:
                self.end(None)
            if arrived:
                if self.inbox.has_limits:
                    self.inbox.note_arrival(monotonic())
                return
            if deadline is None:
                deadline = self.wire.deadline()
            if event:
                self.wait(event, deadline)
            else:  # the peer never pauses
                self.check_limits(drained=False)
                self._check_deadline(deadline)

    def _note_chunk(self) -> bool:
        """Set the peer's time; return whether a message begins that is too large to go on."""
        if self.inbox.has_limits:
            now = monotonic()
            self.inbox.note_arrival(now)
            self.inbox.resume(now)
        return self.stops_at_large and self._is_large()

    def _is_large(self) -> bool:
        return self.inbox.splitter.bytes_needed > LARGE_SIZE

    def event_after(self, error: OSError) -> int:
        """Return the event to wait for after a receive that failed; raise if waiting is no use."""
        wire = self.wire
        try:
            if wire.would_block(error):
                self.check_limits(drained=True)
            event = wire.event_after(error, READ)
            if event:
                return event
            if wire.is_end_of_stream(error):
                self.end(None)
            if is_time_out(error):  # one that was set on the socket itself
                raise name_peer(error, wire.peer)
            self.end(error)
        finally:
            del error  # which holds this frame: a cycle

    def wait(self, event: int, deadline: float | None) -> None:
        """Wait for the socket or the peer's limit, at most until the call's deadline."""
        limit = self.inbox.deadline()
        limit_first = limit is not None and (deadline is None or limit < deadline)
        if self.wire.wait(event, limit if limit_first else deadline):
            return
        if self.wire.closed:
            raise self.wire.closed_error()
        if not limit_first:
            raise self.timed_out()
        # Else the next attempt to receive shows what the kernel holds now.

    def check_limits(self, *, drained: bool) -> None:
        """Raise if the peer's time is over. From now on it runs until the call ends.

        Args:
            drained: Whether the kernel held no bytes when a call tried to receive.
        """
        inbox = self.inbox
        if inbox.has_limits:
            now = monotonic()
            inbox.resume(now)
            inbox.check_limits(now, drained=drained)
            if inbox.failure is not None:
                self.end(inbox.failure)

    def _check_deadline(self, deadline: float | None) -> None:
        """End a call that has always found bytes, and no whole message, when its time is over."""
        wire = self.wire
        if wire.timeout == 0:
            # A selector does not show what TLS has decrypted already.
            if wire.tls is None or not wire.tls.pending():
                raise BlockingIOError(
                    errno.EAGAIN,
                    "no whole message yet, and the peer sends without a pause; call again",
                )
        elif deadline is not None and monotonic() >= deadline:
            raise self.timed_out()

    def timed_out(self) -> TimeoutError:
        """Return the error of a call during which no message became whole."""
        direct, timeout = self.inbox.direct, self.wire.timeout or 0.0
        pending = self.inbox.splitter._pending_frame() if direct is None else direct.pending_frame()
        error = _error_texts.no_whole_message(timeout, pending)
        if not (pending.received or pending.stream_offset):
            note_silence(error)
        return name_peer(error, self.wire.peer)

    # --- failures ---------------------------------------------------------------------------------

    def fail_fast_path(self, error: BaseException) -> NoReturn:
        """Raise what the fast path has raised. All but a time-out ends receiving for good."""
        try:
            if is_time_out(error) and not self.wire.closed:
                # The fast path's own error has no number; it does not say how much arrived.
                raise error if getattr(error, "errno", None) else self.timed_out() from None
            self.end(error)
        finally:
            del error  # which holds this frame: a cycle

    def end(self, error: BaseException | None) -> NoReturn:
        """End receiving for good and raise its failure.

        Args:
            error: What ended it; None is the end of the stream.
        """
        inbox = self.inbox
        if self.wire.closed:
            error = None
            raise self.wire.closed_error() from None
        if error is not None:
            inbox.fail(error)
        else:
            inbox.feed_eof()
        if self.wire.was_reset and isinstance(inbox.failure, EOFError):
            # The kernel reports a reset once; the end that it shows now is not the peer's.
            inbox.failure = ConnectionResetError(errno.ECONNRESET, "the peer reset the connection")
        self.receiver.state = _LOST if self.receiver.state is _LOST else _FAILED  # no way back
        error = None  # which holds this frame: a cycle
        inbox.raise_failure()

    def stop(self, error: Exception) -> None:
        """Let every later receive raise an error; a thread that waits is not woken.

        Any thread may call it.
        """
        self.inbox.fail(error)
        if self.receiver.state in (_READY, _BUSY):
            self.receiver.state = _FAILED

    def refuse(self) -> NoReturn:
        """Raise the reason why no call may receive."""
        state = self.receiver.state
        if self.wire.closed:
            raise self.wire.closed_error()
        if self.inbox.failure is not None:
            self.inbox.raise_failure()
        if state is _LOST or self.wire.torn:
            self.end(count_lost(self.wire, "received"))
        if state is _HALF_DELIVERED:
            raise half_received()
        raise _error_texts.in_use("recv()")

    # --- handing over -----------------------------------------------------------------------------

    def check_detach(self) -> None:
        """Raise if the unread bytes are not certain, or belong to a call that has begun."""
        state = self.receiver.state
        if self.inbox.direct is not None:
            raise half_received()
        if state is _LOST or self.wire.torn or self.intake.parsing:
            raise count_lost(self.wire, "received")
        if state not in (_READY, _FAILED):
            raise _error_texts.in_use("recv()")

    def detach(self) -> bytes:
        """Return the received bytes that were not delivered, as they travelled."""
        unread = self.inbox.detach(*self._undelivered())
        self.intake.clear(self.receiver)
        return unread

    def _undelivered(self) -> tuple[list[Any], list[Any] | None]:
        """Return the messages that were received and not delivered, and their headers."""
        intake, batch = self.intake, self.receiver.ready
        messages = [*batch.rest(), *intake.arrived]
        headers = None
        if self.inbox.splitter.headers is not None:
            headers = [*(batch.headers() if batch else ()), *(intake.headers or ())]
        return messages, headers

    # --- unframed bytes ---------------------------------------------------------------------------

    def unframe(self) -> UnframedBytes:
        """Take back the bytes after the delivered messages. The caller holds the lock."""
        receiver = self.receiver
        if receiver.state not in (_READY, _FAILED) or self.wire.torn or self.intake.parsing:
            self.refuse()
        unframed = self.inbox.unframed
        if unframed is not None and not (
            receiver.ready or self.intake.arrived or self.inbox.splitter.pending or self.inbox.ended
        ):
            unframed.take_back()
            return unframed
        self.inbox.check_unframe()
        return self._move_unread(self._unframe)

    def _unframe(self) -> UnframedBytes:
        unframed = self.inbox.unframe(*self._undelivered())
        self.intake.clear(self.receiver)
        self.use_splitter()
        return unframed

    def reframe(self) -> None:
        """Parse the unframed bytes that were not taken. The caller holds the lock."""
        self.unframe()
        self._move_unread(self._reframe)

    def _reframe(self, codec: Codec[Any] | None = None) -> None:
        inbox = self.inbox
        codec_before, objects_before = inbox.codec, self.objects
        try:
            if codec is not None:
                inbox.codec = codec
                self.use_objects(codec)
            messages = inbox.reframe()
        except BaseException:  # memory is short, or a function of the user's has raised
            if inbox.unframed is not None:  # pragma: no branch (a handler raised after the move)
                inbox.codec, self.objects = codec_before, objects_before  # it can be repeated
                self.receiver.state = _READY if inbox.failure is None else _FAILED
            raise
        if messages:
            self.receiver.ready = self.fast_path.Batch(messages, inbox.splitter.headers)
        if inbox.has_limits:
            inbox.note_arrival(monotonic())
        self.use_splitter()

    def switch(self, codec: Codec[Any]) -> None:
        """Read what was not delivered with another codec. The caller holds the lock."""
        self.unframe()
        self._move_unread(lambda: self._reframe(codec))

    def offer_bytes(self, size: int) -> Any:
        """Move that many unframed bytes into a batch, out of which the caller takes them."""
        unframed = self.inbox.unframed
        assert unframed is not None

        batch = self.fast_path.Batch([unframed.first(size)])  # no byte moves if memory is short

        def offer() -> Any:
            unframed.drop(size)
            unframed.offered = batch
            return batch

        return self._move_unread(offer)

    def _move_unread(self, move: Callable[[], _Result]) -> _Result:
        """Call a function between whose steps received bytes are in no place of their own."""
        receiver = self.receiver
        held = self.fast_path.HeldSignals()
        try:
            held.hold()
            receiver.state = _LOST  # it stays so if the function fails
            result = move()
            receiver.state = _READY if self.inbox.failure is None else _FAILED
            return result
        finally:
            for _ in held.release:
                break


def half_received() -> RuntimeError:
    """Return the error of a call that may not interrupt recv_file() or recv_into()."""
    return RuntimeError(
        "a message is half received; call recv_file() or recv_into() again to finish it"
    )
