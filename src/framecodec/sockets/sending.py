"""The slow path of sending: calls that wait, and bytes that an earlier call could not send."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, final

from .. import _error_texts
from .._layout import plain_codec
from .._outbox import Outbox
from .._peers import name_peer
from .._repeated_errors import for_this_thread
from .._states import SendState
from . import _fast_path_py
from .base import mark_started
from .files import OutgoingFile, file_too_short
from .receiving import count_lost, timed_out
from .waiting import WRITE
from .wire import Wire, hold_chunk, hold_trailer, hold_unsent

if TYPE_CHECKING:
    from ..codec import Codec

__all__ = ["SendSide"]

_IDLE, _HELD, _BUSY = SendState.IDLE, SendState.HELD, SendState.BUSY
_FAILED, _LOST, _CLOSED = SendState.FAILED, SendState.LOST, SendState.CLOSED


@final
class SendSide:
    """All that a connection needs to send.

    Args:
        wire: The socket.
        codec: The shape of the frames.
        fast_path: The twin of the fast path for this socket.
    """

    __slots__ = (
        "_failed_in",
        "codec",
        "dumps",
        "error",
        "failure",
        "file",
        "guard",
        "lock",
        "outbox",
        "sender",
        "wire",
    )

    def __init__(self, wire: Wire, codec: Codec[Any], fast_path: Any) -> None:
        self.wire = wire
        self.dumps: Any = codec._objects and codec._objects.dumps
        """The function that makes a message of an object; None for messages that are bytes."""
        self.codec = codec = plain_codec(codec)
        """The shape of the frames; the messages are bytes, also where the codec has objects."""
        self.lock = fast_path.Lock()
        self.guard: _fast_path_py.Guard = fast_path.Guard(self.lock, -1.0)
        """It calls functions under the lock, for which it waits no longer than the time-out."""
        self.sender: _fast_path_py.Sender = fast_path.Sender(wire.sock, self.lock, codec)
        """The fast path. It has the state, and the end of a message that it has begun."""
        self.outbox = Outbox(codec)
        self.file: OutgoingFile | None = None
        """The file that is sent after the outbox."""
        self.failure: BaseException | None = None
        """Why every later call fails."""
        self._failed_in = 0  # the thread
        self.error: BaseException | None = None
        """What the last failed call of an observed connection raised."""

    @property
    def unsent(self) -> int:
        """Bytes of accepted messages that are not sent yet."""
        file, outbox = self.file, self.outbox
        of_file = 0 if file is None else file.unsent + file.trailer_size
        return outbox.size - sum(outbox.sent_counts) + of_file + sum(map(len, self.sender.unsent))

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed the connection, or its sending direction."""
        return self.wire.closed or self.sender.state is _CLOSED

    def send_all(self, put: Callable[[Any], None], messages: Any) -> None:
        """Put messages into the outbox and send it."""
        self.guard.call(self._send_all, put, messages, self.wire.deadline())

    def _send_all(self, put: Callable[[Any], None], messages: Any, deadline: float | None) -> None:
        self._hold_later_messages(deadline)
        size = 0
        try:
            put(messages)
            size = self.outbox.size
            self.drain(deadline)
        except BaseException as error:
            self._keep_or_drop(error, size)
            raise

    def _hold_later_messages(self, deadline: float | None) -> None:
        """Send what is unsent, and let nothing be sent before the message that follows."""
        sender = self.sender
        if sender.state is not _IDLE or self.wire.torn:
            self.drain_before(deadline)
        if sender.state is _IDLE:
            sender.state = _HELD

    def send_file(self, file: OutgoingFile) -> None:
        """Send a message from a file."""
        self.guard.call(self._send_file, file, self.wire.deadline())

    def _send_file(self, file: OutgoingFile, deadline: float | None) -> None:
        self._hold_later_messages(deadline)
        size = 0
        try:
            self.file = file
            self.outbox.put_bytes(file.header)
            size = self.outbox.size
            self.drain(deadline)
        except BaseException as error:
            self._keep_or_drop(error, size)
            raise
        file.move_position()

    def drain_before(self, deadline: float | None) -> None:
        """Send what is held, before a message of which nothing was taken yet."""
        try:
            self.drain(deadline)
        except BaseException as error:
            self.mark_started(error, False)
            raise

    def drain_in_time(self) -> None:
        """Send what is held, within the time-out. The caller holds the lock."""
        self.drain(self.wire.deadline())

    def drain(self, deadline: float | None) -> None:
        """Send what is held."""
        outbox, sender = self.outbox, self.sender
        if sender.state is _BUSY:
            raise _error_texts.in_use("send()")
        if sender.unsent:  # of a message that was begun when nothing was held
            hold_unsent(sender, outbox)
        if self.wire.torn or (sender.state is not _IDLE and sender.state is not _HELD):
            self._refuse()
        sender.state = _BUSY
        try:
            self._write_or_wait(deadline)
        finally:
            if sender.state is _BUSY:
                sender.state = _HELD if outbox.size or self.file is not None else _IDLE

    def _refuse(self) -> NoReturn:
        """Raise the reason why no call may send."""
        if self.is_closed:
            raise self.wire.closed_error()
        if self.failure is not None:
            raise for_this_thread(self.failure, self._failed_in)
        self._fail(count_lost(self.wire, "sent"))

    def _fail(self, error: BaseException) -> NoReturn:
        """End sending for good."""
        self._failed_in = get_ident()
        self.failure = error
        self.sender.state = _FAILED
        raise error

    def _keep_or_drop(self, error: BaseException, size: int) -> None:
        """Keep the unsent bytes of a message that was begun, drop one that was not.

        Args:
            error: What ended the call; it gets the attribute ``message_started``.
            size: Bytes that the outbox held at first, or 0 if the message was refused.
        """
        outbox, sender = self.outbox, self.sender
        begun = True
        try:
            outbox.drop_sent()
            # A TLS record that was begun must be completed with the same bytes.
            begun = (
                sender.state is _LOST
                or self.wire.torn
                or outbox.size != size
                or (self.wire.tls is not None and size > 0)
            )
            self.mark_started(error, begun)
            if begun:
                outbox.own()
                if self.file is not None:
                    self.file.move_position()
                    self.file.own()
            else:
                outbox.clear()
                self.file = None
                if sender.state is _HELD:
                    sender.state = _IDLE
        except BaseException as another:
            # The message is held, but perhaps in memory or by a file that the caller may change.
            if outbox.borrows or self.file is not None or isinstance(another, MemoryError):
                sender.state = _LOST
            self.mark_started(another, begun or outbox.size > 0)
            raise

    def finish(self) -> None:
        """Send the end of a message that the fast path has begun."""
        try:
            self.guard.call(self.drain_in_time)
        except BaseException as error:
            self.mark_started(error, True)
            raise

    # --- one system call after another ------------------------------------------------------------

    def _write_or_wait(self, deadline: float | None) -> None:
        outbox, wire = self.outbox, self.wire
        while outbox.size or self.file is not None:
            event = 0
            try:
                if outbox.size:
                    self._write()
                    outbox.drop_sent()
                else:
                    assert self.file is not None
                    self._write_file(self.file)
            except OSError as error:
                event = self._event_after(error)
            if not event:
                # A peer that takes everything at once never makes the call wait.
                if wire.timeout and self._is_late(deadline):
                    raise timed_out("not all was sent", wire.timeout)
                continue
            if not wire.wait(event, deadline):
                raise timed_out("not all was sent", wire.timeout)
            if self.is_closed:
                raise self.wire.closed_error()

    def _is_late(self, deadline: float | None) -> bool:
        is_unfinished = bool(self.outbox.size) or self.file is not None
        return is_unfinished and deadline is not None and monotonic() >= deadline

    def _event_after(self, error: OSError) -> int:
        """Return the event to wait for after a send that failed; raise if waiting is no use."""
        try:
            event = self.wire.event_after(error, WRITE)
            if event:
                return event
            if self.is_closed:
                raise self.wire.closed_error() from None
            self.note_reset(error)
            raise error
        finally:
            del error  # which holds this frame: a cycle

    def mark_started(self, error: BaseException, started: bool) -> None:
        """Store in an error what `base.mark_started` stores, and the peer's name."""
        if isinstance(error, OSError):
            name_peer(error, self.wire.peer)
        mark_started(error, started)

    def note_reset(self, error: OSError) -> None:
        """Store that the peer reset the connection, which the kernel reports once."""
        if isinstance(error, ConnectionResetError):
            self.wire.was_reset = True

    def _write(self) -> None:
        """Send some of the outbox by one system call."""
        outbox = self.outbox
        buffers = outbox.buffers()
        if not buffers:
            if not outbox.size:  # an interrupted call has sent everything
                return
            self.sender.state = _LOST  # never wait for bytes that are counted and do not exist
            raise count_lost(self.wire, "sent")
        try:
            self.wire.send(outbox, buffers)
        except MemoryError:  # perhaps after bytes were sent
            self.sender.state = _LOST
            raise

    def _write_file(self, file: OutgoingFile) -> None:
        """Send some of a file by one system call, or put its next piece into the outbox."""
        outbox = self.outbox
        if not file.unsent:
            hold_trailer(self, outbox, file)
            file.close()
            return
        if file.chunk is None and self.wire.tls is None and file.sendfile is not None:
            self._send_from_file(file)
            return
        if file.chunk is None:
            self._read_chunk(file)
        if not file.chunk:
            self._fail_to_read(file)
        hold_chunk(file, outbox)

    def _send_from_file(self, file: OutgoingFile) -> None:
        try:
            has_bytes = self.wire.sendfile(file)
        except MemoryError:  # perhaps after bytes were sent
            self.sender.state = _LOST
            raise
        if not has_bytes:
            self._fail_to_read(file)

    def _read_chunk(self, file: OutgoingFile) -> None:
        try:
            self.wire.read_chunk(file)
        except BaseException as error:
            if file.loses(error):
                self.sender.state = _LOST
            raise

    def _fail_to_read(self, file: OutgoingFile) -> NoReturn:
        """End sending: the frame cannot be finished."""
        error = file_too_short(file.unsent)
        self.file = None
        file.close()
        self._fail(error)

    # --- the end ----------------------------------------------------------------------------------

    def switch(self, codec: Codec[Any]) -> None:
        """Encode with another codec from now on. The caller holds the lock, and nothing sends."""
        self.dumps = codec._objects and codec._objects.dumps
        self.codec = codec = plain_codec(codec)
        self.sender.switch(codec)
        self.outbox.use(codec)

    def check_detach(self) -> None:
        """Raise if the socket's next byte would not begin a frame."""
        state = self.sender.state
        if self.failure is not None:  # a frame was begun that no call can finish
            raise for_this_thread(self.failure, self._failed_in)
        if state is _LOST or self.wire.torn:
            raise count_lost(self.wire, "sent")
        if self.unsent:
            raise RuntimeError(
                f"{self.unsent} bytes of accepted messages are unsent; call flush() first"
            )
        if state is _BUSY:
            raise _error_texts.in_use("send()")
