"""The receive side of a connection: one for every way to wait.

What an inbox must do
    Decide what a receive gives when no message is ready: nothing yet, or the failure that ends
    receiving. It decides when the stream has ended well or badly, when the peer was too slow, and
    what another protocol gets to read.

How
    An inbox has the splitter. It has no socket and no clock: its owner, who receives, gives it the
    time in seconds, of any clock that does not go back. For each receive the owner

    1. reads into ``splitter.get_room`` and parses with ``splitter.buffer_updated``,
    2. queues the messages itself: in ``Receiver.ready`` of a `FrameSocket`, in
       ``StreamProtocol.batches`` of a `FrameStream`,
    3. calls `fail` with the splitter's error, or `feed_eof` at the end of the stream,
    4. calls `note_arrival` where the peer's time is limited.

    The first failure sticks. The owner delivers the messages before it, then raises it every time.

    One stopwatch measures the peer: while a frame is unfinished it counts the time of the message,
    between two frames the quiet. It runs only while the owner receives, from `resume` to `pause`::

        received bytes        limit              set to 0 by
        an unfinished frame   message_timeout    the first byte of a frame
        only whole frames     idle_timeout       every byte
"""

from __future__ import annotations

import contextlib
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, final

from . import _error_texts, errors
from ._kept_headers import frames_as_travelled
from ._layout import plain_codec
from ._objects import frame_starts
from ._observer import NOTHING_TOLD, ObservedSplitter, Observer, Told
from ._peers import name_peer, note_silence
from ._repeated_errors import for_this_thread
from ._unframed import PIECE_SIZE, UnframedBytes, pieces_of
from .splitter import Splitter

if TYPE_CHECKING:
    from .codec import Codec

__all__ = [
    "DirectMessage",
    "Inbox",
    "check_seconds",
]


# Bytes that an overdue peer may still deliver while each receive finds some: at least as many as
# the kernel can hold of one connection (6 MiB is Linux's largest TCP receive buffer). A peer that
# sends faster than it is read never leaves the kernel empty and is cut off after these.
_KERNEL_SIZE = 6 * 1024 * 1024


class DirectMessage(Protocol):
    """A message that its owner receives without the splitter: into a file, for example."""

    offset: int
    """The stream position of its frame."""

    header: bytes

    def received(self) -> int:
        """Return how many bytes of its frame were received."""

    def pending_frame(self) -> _error_texts.PendingFrame:
        """Return what arrived of its frame."""


@final
class Inbox:
    """The unfinished bytes of one connection, how its receiving ends, and its peer's time.

    Args:
        codec: The shape of the frames. The messages are bytes, also where it has objects.
        message_timeout: Seconds from a message's first byte to its last in which the owner
            receives; None for no limit.
        idle_timeout: Seconds without a byte between two messages in which the owner receives;
            several waits add up. None for no limit.
        on_oversize: As for `Splitter`.
        one_at_a_time: As for `Splitter`.
        on_invalid: As for `Splitter`.
        keep_headers: As for `Splitter`.

    Raises:
        TypeError, ValueError: An argument is invalid.
    """

    __slots__ = (
        "_counted",
        "_failed_in",
        "_keep_headers",
        "_last_position",
        "_limit",
        "_message_offset",
        "_observed",
        "_options",
        "_spare_buffer",
        "_started_at",
        "_told",
        "codec",
        "direct",
        "ended",
        "failure",
        "has_limits",
        "idle_timeout",
        "message_timeout",
        "peer",
        "receiving",
        "splitter",
        "unframed",
    )

    def __init__(
        self,
        codec: Codec[Any],
        *,
        message_timeout: float | None = None,
        idle_timeout: float | None = None,
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
        one_at_a_time: bool = False,
        keep_headers: bool = False,
    ) -> None:
        self.codec = codec
        self._keep_headers = keep_headers
        self._options: dict[str, Any] = {"on_oversize": on_oversize}
        if on_invalid != "raise":
            self._options["on_invalid"] = on_invalid
        if one_at_a_time:
            self._options["one_at_a_time"] = True
        self._observed: tuple[object, Observer] | None = None
        self._spare_buffer: list[memoryview | None] | None = None
        self._told = NOTHING_TOLD  # what the observer knows of the unframed bytes
        self.peer = ""
        """The peer's name, which errors get; empty if it has none."""
        self.splitter: Splitter = self.new_splitter(0)
        self.failure: BaseException | None = None
        """The reason why receiving ended, or None; set it by `fail`."""
        self._failed_in = 0  # the thread that called `fail`
        self.direct: DirectMessage | None = None
        """The message that the owner receives without the splitter, or None."""
        self.unframed: UnframedBytes | None = None
        """The received bytes that are not parsed, from `unframe` to `reframe`. The splitter then
        gives pieces that follow them."""
        self.ended = False
        """The stream has ended: `feed_eof` was called."""
        self.message_timeout = check_seconds("message_timeout", message_timeout)
        self.idle_timeout = check_seconds("idle_timeout", idle_timeout)
        self.has_limits = message_timeout is not None or idle_timeout is not None
        self.receiving = False
        """Whether the owner receives: from `resume` to `pause`."""
        # The stopwatch, and what it measures.
        self._started_at = 0.0  # while it runs
        self._counted = 0.0  # seconds of earlier runs
        self._limit = self.idle_timeout
        self._message_offset = -1  # of the unfinished frame; -1 between two frames
        self._last_position: int | None = None  # up to which an overdue peer may still send

    # --- received bytes ---------------------------------------------------------------------------

    def feed_eof(self) -> None:
        """Take the end of the stream: a clean one after a whole frame, else a broken one."""
        self.ended = True
        if self.failure is not None:
            return
        try:
            if self.direct is not None:
                self.fail(_error_texts.incomplete_frame(self.direct.pending_frame()))
                return
            if self.unframed is not None:
                received = self.unframed.size + self.splitter.pending
                self.fail(self.unframed.incomplete(received))
                return
            self.splitter.feed_eof()
        except errors.FrameError as error:
            self.fail(error)
        else:
            end = EOFError("the peer closed the connection; the last frame was whole")
            if not self.splitter.stream_offset:
                note_silence(end)
            self.fail(end)

    def fail(self, error: BaseException) -> None:
        """End receiving with an error, after the ready messages. The first one sticks."""
        if self.failure is None:
            name_peer(error, self.peer)
            self._failed_in = get_ident()
            error.__suppress_context__ = True  # see raise_failure; no other thread has it yet
            self.failure = error.with_traceback(None)  # whose frames hold what was received

    def observe(self, conn: object, observer: Observer) -> None:
        """Tell an observer of received and discarded frames; call it before any byte has arrived.

        Args:
            conn: The connection that the observer gets.
            observer: Gets the events.
        """
        if observer.frame_received is not None or observer.frame_discarded is not None:
            self._observed = conn, observer
            self.splitter = self.new_splitter(0)

    def new_splitter(self, stream_offset: int) -> Any:
        """Return a splitter as this inbox needs it, for the stream from this position on."""
        options = {
            **self._options,
            "stream_offset": stream_offset,
            "keep_headers": self._keep_headers,
        }
        codec = plain_codec(self.codec)
        splitter: Any
        if self._observed is not None:
            conn, observer = self._observed
            splitter = ObservedSplitter(conn, codec, observer, **options)
        else:
            splitter = Splitter(codec, **options)
        if self._spare_buffer is not None:
            splitter._share_buffer(self._spare_buffer)
        return splitter

    def share_buffer(self, spare: list[memoryview | None]) -> None:
        """Share the memory to read into with other inboxes, whose owners read by turns.

        Args:
            spare: A list of one item, the memory or None. One thread uses it.
        """
        self._spare_buffer = spare
        self.splitter._share_buffer(spare)

    @property
    def has_own_splitter(self) -> bool:
        """Whether `splitter` is the engine's own, which compiled code may call directly."""
        return self._observed is None

    def drop_unfinished(self) -> None:
        """Release the memory of an unfinished message: the connection has ended."""
        if self.splitter.pending and self.unframed is None:
            self.splitter = self.new_splitter(self.splitter.stream_offset)

    # --- what a receive gives ---------------------------------------------------------------------

    def raise_failure(self) -> NoReturn:
        """Raise `failure`, which must be set."""
        assert self.failure is not None
        error = for_this_thread(self.failure, self._failed_in)
        # The error of the caller's own receive, and not one that a `try` around it handles. `from`
        # would store the cause again, which another thread reads when it copies the error.
        if not error.__suppress_context__:
            error.__suppress_context__ = True
        try:
            raise error
        finally:
            del error  # which holds this frame: a cycle

    # --- the peer's time --------------------------------------------------------------------------

    def pause(self, now: float) -> None:
        """Stop the stopwatch: the owner does not receive."""
        if self.receiving:
            self.receiving = False
            self._counted += now - self._started_at

    def resume(self, now: float) -> None:
        """Let the stopwatch run: the owner receives."""
        if not self.receiving:
            self.receiving = True
            self._started_at = now

    def note_arrival(self, now: float) -> None:
        """Set the stopwatch after bytes were received and parsed."""
        if self.direct is not None:
            return
        splitter, unframed = self.splitter, self.unframed
        offset = -1
        if splitter.pending or (unframed is not None and unframed.size):
            offset = splitter.stream_offset if unframed is None else unframed.offset
            if offset == self._message_offset:
                return
            self._limit = self.message_timeout
        else:
            self._limit = self.idle_timeout
        self._message_offset = offset
        self._last_position = None
        self._counted = 0.0
        self._started_at = now

    def deadline(self) -> float | None:
        """Return when the peer's time is over, or None if no limit runs."""
        if self._limit is None or not self.receiving or self.failure is not None:
            return None
        return self._started_at + self._limit - self._counted

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds until `deadline`, at most the whole limit; 0.0 when it is over.

        The difference of two points in time would be rounded, to more than the limit at times.
        """
        if self._limit is None or self.deadline() is None:
            return None
        return max(0.0, self._limit - self._counted - (now - self._started_at))

    def is_overdue(self, now: float) -> bool:
        """Return whether the peer's time is over. It is not cut off before `check_limits`."""
        deadline = self.deadline()
        return deadline is not None and now >= deadline

    def check_limits(self, now: float, *, drained: bool) -> None:
        """Fail if the peer's time is over and the kernel holds no byte that would have helped.

        Args:
            now: The time in seconds.
            drained: True if the last attempt to receive, made when the time was over, found the
                kernel without bytes. False if it found some: the peer may then deliver as many
                bytes as a kernel can hold before it is cut off.
        """
        if not self.is_overdue(now):
            return
        if not drained:
            position = self._position()
            if self._last_position is None:
                self._last_position = position + _KERNEL_SIZE
            if position < self._last_position:
                return
        splitter, direct = self.splitter, self.direct
        unframed = self.unframed
        received = splitter.pending + (0 if unframed is None else unframed.size)
        if direct is not None or received:
            if direct is not None:
                pending = direct.pending_frame()
            elif unframed is not None:
                pending = unframed.pending_frame(received)
            else:
                pending = splitter._pending_frame()
            self.fail(_error_texts.message_too_slow(self.message_timeout or 0.0, pending))
        else:
            limit = self.idle_timeout or 0.0
            self.fail(_error_texts.idle_too_long(limit, splitter.stream_offset))

    def _position(self) -> int:
        """Return how many bytes of the stream were received."""
        if self.direct is not None:
            return self.direct.offset + self.direct.received()
        return self.splitter.stream_offset + self.splitter.pending

    # --- handing over -----------------------------------------------------------------------------

    def switch(self, codec: Codec[Any], before: bytes = b"") -> list[Any]:
        """Read the bytes that are in no message yet with another codec.

        An error that they have raised is forgotten; one that they raise now is the splitter's.

        Args:
            codec: The shape of the frames from there on.
            before: Bytes before those, which are read again, too.

        Returns:
            The messages that are complete under it.

        Raises:
            TypeError, ValueError: As `Splitter.switch`; nothing has changed.
        """
        error = self.splitter.error
        messages = self.splitter._switch(codec, before)
        if self.failure is error:
            self.failure = None
        self.codec = codec
        return messages

    def detach(self, messages: list[Any], headers: list[bytes] | None = None) -> bytes:
        """Return the bytes that were received and not delivered as messages, as they travelled.

        The inbox is of no use afterwards.

        Args:
            messages: The messages that the owner has queued and not delivered.
            headers: The items of ``Splitter.headers`` for these messages, if the splitter keeps
                headers.
        """
        if self.unframed is not None:
            self._collect_pieces(messages)
            return self.unframed.first(self.unframed.size)
        # Padding of the last message that is here is among the bytes after it.
        padding = self.splitter._delivered_padding()[1] if messages else 0
        unfinished = self.splitter.detach()
        frames = frames_as_travelled(self.codec, messages, headers, unfinished)
        return frames[: len(frames) - padding] + unfinished

    # --- unframed bytes ---------------------------------------------------------------------------

    def check_unframe(self) -> None:
        """Raise if the bytes after the delivered messages are discarded already.

        Raises:
            RuntimeError: They are part of an oversized frame that is being skipped.
        """
        if self.is_skipping():
            raise RuntimeError(
                "the bytes after the last message are discarded as a frame that is too large; "
                'set on_oversize="raise" or read_ahead=False where unframed bytes follow'
            )

    def is_skipping(self) -> bool:
        """Return whether the pending frame is too large and is being discarded."""
        header = self.splitter.pending_header
        if not header or self.unframed is not None or self._options["on_oversize"] != "skip":
            return False
        probe = Splitter(plain_codec(self.codec))
        with contextlib.suppress(errors.FrameError):
            probe.feed(header)
        return isinstance(probe.error, errors.MessageTooLargeError)

    def unframe(self, messages: list[Any], headers: list[bytes] | None = None) -> UnframedBytes:
        """Take back the bytes after the delivered messages, exactly as they travelled.

        They are not parsed until `reframe`; what arrives meanwhile follows in pieces. An error that
        parsing them has raised is taken back, too.

        Args:
            messages: As for `detach`; pieces, if the bytes are unframed already.
            headers: As for `detach`.
        """
        if self.unframed is None:
            end = self.splitter.stream_offset + self.splitter.pending
            was_parsed = self.failure is not None and self.failure is self.splitter.error
            if self._observed is not None:
                self._told = self._what_was_told(messages, headers)
            unread = self.detach(messages, headers)
            unframed = UnframedBytes(unread, end - len(unread))
        else:
            was_parsed = False
            self._collect_pieces(messages)
            unframed = self.unframed
        if was_parsed or (self.ended and isinstance(self.failure, EOFError)):
            self.failure = None
        self.unframed = unframed
        self.expect_bytes()
        return unframed

    def _what_was_told(self, messages: list[Any], headers: list[bytes] | None) -> Told:
        """Return what the observer was told of the bytes after the delivered messages."""
        splitter = self.splitter
        end = splitter.stream_offset
        starts = frame_starts(plain_codec(self.codec).layout, end, messages, headers)
        frames = frozenset(zip(starts, [*starts[1:], end], strict=False))
        return Told(frames, None if splitter.error is None else end)

    def _collect_pieces(self, messages: list[Any]) -> None:
        """Add what was received in pieces to the unframed bytes."""
        unframed = self.unframed
        assert unframed is not None
        unframed.take_back()
        unframed.append(b"".join((*messages, self.splitter.detach())))

    def expect_bytes(self, wanted: int = 0) -> None:
        """Receive in pieces from now on, after the unframed bytes.

        Args:
            wanted: Bytes that a call waits for, so that the last piece ends with them; 0: any.
        """
        unframed = self.unframed
        assert unframed is not None
        unframed.wanted = wanted
        missing = wanted - unframed.size
        self.splitter = Splitter(
            pieces_of(min(missing, PIECE_SIZE) if missing > 0 else PIECE_SIZE),
            stream_offset=unframed.offset + unframed.size,
        )

    def reframe(self) -> list[Any]:
        """Parse the unframed bytes that were not taken, and all that follow.

        The owner has called `unframe` just before, so that no piece is anywhere else.

        Returns:
            The messages. Their headers are those of the splitter.
        """
        unframed = self.unframed
        assert unframed is not None
        splitter: Any = self.new_splitter(unframed.offset)
        messages: list[Any] = []
        with contextlib.suppress(errors.FrameError):  # the splitter holds it
            data = unframed.first(unframed.size)
            if self._observed is None:
                messages = splitter.feed(data)
            else:
                messages = splitter.feed_again(data, self._told)
        self.splitter, self.unframed = splitter, None
        if splitter.error is not None:
            self.fail(splitter.error)
        elif self.ended:
            self.feed_eof()
        return messages


def check_seconds(name: str, seconds: float | None) -> float | None:
    """Return a time limit.

    Raises:
        ValueError: It is not a positive number.
    """
    if seconds is not None and not seconds > 0:
        raise _error_texts.bad_seconds(name, seconds)
    return seconds
