"""The splitter in Python: bytes in, messages out.

`Splitter` is the public interface of a connection's receiving state: buffers, the sticky error, the
hand-over to another protocol. It inherits the parsing from `FrameReader` (`_frame_reader_py.py`),
the unread bytes from `KeepingReader` (`_keeping_reader_py.py`), and the end of a stream from
`HandOver` (`_hand_over_py.py`). Together they are the specification of the compiled splitter,
`_splitter.pyx`.
"""

from __future__ import annotations

import operator
import threading
from typing import TYPE_CHECKING, Any, Literal, NoReturn, SupportsIndex, final

from . import _error_texts, _mark_texts, errors
from ._bytes_like import view_bytes
from ._encoder_py import Encoder as Encoder  # this module offers a whole engine
from ._encoder_py import ObjectEncoder as ObjectEncoder
from ._encoder_py import update_checksum as update_checksum
from ._fragments import not_in_one_piece
from ._frame_reader_py import (
    IN_REST,
    PIECE_SIZE,
    SLICE_SIZE,
    describe_pending,
)
from ._hand_over_py import HandOver
from ._layout import describe_splitter, layout_of
from ._marks_py import has_one_of
from ._message_types import MessageT
from ._plain_reader_py import AT_ONCE_SIZE
from ._quick_frames_py import read_quick_at_once, read_quick_frames
from ._read_memory_py import GIVEN_BY_GET_ROOM, NOT_GIVEN
from ._resync import check_on_invalid
from ._spans_py import Spans
from ._split_frames_py import split_at_once, split_frames

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .codec import Codec

__all__ = ["Spans", "Splitter", "scan"]

# After a chunk that `feed` cannot take at once, it tries again after that many that it could.
_DETOURS = 2


@final
class Splitter(HandOver[MessageT]):
    """The receiving state of one connection: bytes in any chunks in, messages out.

    Args:
        codec: The shape of the frames.
        raw: Deliver whole frames as they travelled (proxies, captures) instead of messages.
        on_oversize: What happens to a frame whose message is larger than the codec's
            ``max_message_size``: ``"raise"`` fails as soon as its header is in; ``"skip"`` discards
            exactly that frame in constant memory, counts it in `skipped`, and continues.
        on_invalid: What happens to a frame that is invalid or, under ``on_oversize="raise"``, too
            large: ``"raise"`` ends the stream; ``"resync"`` discards bytes up to the next one at
            which a frame can begin, and continues; see `resyncs`, `discarded`, `last_invalid`. The
            work is then linear in the bytes times the frames that begin in them.
        one_at_a_time: A call returns at most one message, and the bytes after it stay unread:
            ``feed(b"")`` returns the next one. So the caller can `switch` after any message.
        stream_offset: The position of the first byte in the stream, in bytes: offsets count from
            it. A caller who has read a part of the stream by other means gives its size.
        keep_headers: Keep the headers of messages in `headers`.

    Raises:
        TypeError: `codec` is not a `Codec`.
        ValueError: `on_oversize`, `on_invalid` or `stream_offset` has another value than these, or
            the frames of the codec begin with no mark that ``"resync"`` could look for.
    """

    __slots__ = ()

    def __init__(
        self,
        codec: Codec[MessageT],
        *,
        raw: bool = False,
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
        one_at_a_time: bool = False,
        stream_offset: SupportsIndex = 0,
        keep_headers: bool = False,
    ) -> None:
        if hasattr(self, "_lock"):
            return  # a second call changes nothing, as in the compiled engine
        self._codec, layout = codec, layout_of(codec)
        if on_oversize not in ("raise", "skip"):
            raise _error_texts.bad_on_oversize(on_oversize)
        resync = check_on_invalid(on_invalid, layout)
        offset = operator.index(stream_offset)
        if not 0 <= offset <= 1 << 62:
            raise _error_texts.bad_stream_offset(offset)
        self._objects = objects = None if raw else getattr(codec, "_objects", None)
        self._undelivered = None
        self._objects_thread = 0
        keep_headers = keep_headers or objects is not None
        super().__init__(layout, bool(raw), on_oversize == "skip", offset, keep_headers)
        self._init_memory()
        self._one_at_a_time = bool(one_at_a_time)
        self._resync = resync
        self._detached = False
        self._busy = False  # inside a call during which other code may run
        # Serialises calls from several threads. Each takes it inside a `try` and releases it in the
        # `finally`: the exit of a `with` may find no memory for its arguments.
        self._lock = threading.RLock()
        self._choose_detours()

    # --- bytes in ---------------------------------------------------------------------------------

    def feed(self, data: Buffer, /) -> list[MessageT]:
        """Take the next bytes of the stream.

        Args:
            data: Any contiguous bytes-like object, of any length, cut anywhere.

        Returns:
            The messages that were completed, in order: `bytes`, or the objects of the codec's
            ``specials``, or those that ``Codec.with_objects`` makes. Messages before a bad frame
            are returned first; the error is then in `error`, and raised by the next call.

        Raises:
            InvalidMessageError: A codec with objects refuses a message. The bytes are taken, and
                ``feed(b"")`` returns the messages after it.
            FrameError: The stream is broken. Every later call raises the same error, in another
                thread a copy of it.
            TypeError, BufferError: `data` is not a contiguous bytes-like object; nothing was taken.
            ValueError: The splitter is detached.
        """
        if self._objects is not None and self._objects_thread != threading.get_ident():
            return self._take_objects(self.feed, data)
        if type(data) is not bytes:
            # Released even where an error keeps this call's frame alive.
            delivered: list[MessageT] | None = None
            try:
                with view_bytes(data) as view:
                    delivered = self._feed(view)
                return delivered
            except BaseException as error:
                if delivered is not None:  # a signal handler, while the view was released
                    self._keep_interruption(error)
                if error is self._error:
                    error.with_traceback(None)  # as below
                    del self, data, view
                raise
        messages: list[MessageT] = []  # first: there may be no memory for it later
        size = len(data)
        pending = self._pending + size
        if pending < self._gather_end and not self._busy:
            # No call from here on, so that no byte is counted without being kept or the reverse.
            stops = self._stops
            if stops:
                first, second, others = stops
                if first not in data and (second is None or second not in data):
                    if others and (
                        has_one_of(others, data)
                        # Other code may have run in that call, but not from here on.
                        or self._pending + size != pending
                        or pending >= self._gather_end
                        or self._busy
                        or stops is not self._stops
                    ):
                        pending = -1
                    if pending >= 0:
                        self._piece += data
                        self._pending = pending
                        self._content_size += size
                        return messages
            elif size < PIECE_SIZE:
                self._piece += data
                self._pending = pending
                return messages
            elif not self._piece:
                self._pieces += (data,)
                self._pending = pending
                return messages
        if (
            not self._detours
            and size < AT_ONCE_SIZE
            and not (self._busy or self._detached or self._given)
            and self._error is None
        ):
            # Without the lock: if any other call changes something meanwhile, this takes nothing.
            self._gather_end = 0
            self._turn = messages
            try:
                if self._unpack is not None:
                    if self._read_plain_at_once(data, messages, self._unpack):
                        return messages
                elif self._quick is not None:
                    if read_quick_at_once(self, data, messages, self._quick):
                        return messages
                elif split_at_once(self, data, messages):
                    return messages
            except Exception:  # pragma: no cover (no memory, or another thread in the same call)
                if self._turn is messages:
                    raise  # it does not come from what another call has changed meanwhile
            messages.clear()
            if self._detours >= 0:  # pragma: no branch (after a switch() in another thread)
                self._detours = _DETOURS
        taken = False
        try:
            try:
                self._lock.acquire()
                if self._busy or self._detached or self._error is not None:
                    self._check_usable()
                if self._given == GIVEN_BY_GET_ROOM:
                    self._given = NOT_GIVEN
                self._take(data, messages)
                taken = True
            finally:
                try:  # noqa: SIM105 (that would be a `with`)
                    self._lock.release()
                except RuntimeError:  # pragma: no cover (a signal handler in acquire())
                    pass
        except BaseException as error:
            if taken:
                self._keep_interruption(error)
            if error is self._error:
                # Its frames would hold the chunk, and the splitter, which holds the error.
                error.with_traceback(None)
                del self, data, messages
            raise
        return messages

    def _feed(self, view: memoryview) -> list[MessageT]:
        messages: list[MessageT] = []
        taken = False
        try:
            try:
                self._lock.acquire()
                self._check_usable()
                if self._given == GIVEN_BY_GET_ROOM:
                    self._given = NOT_GIVEN
                self._take(view, messages)
                taken = True
            finally:
                try:  # noqa: SIM105 (that would be a `with`)
                    self._lock.release()
                except RuntimeError:  # a signal handler has interrupted acquire()
                    pass
        except BaseException as error:
            if taken:
                self._keep_interruption(error)
            if error is self._error:
                error.with_traceback(None)  # as in feed()
                del self, view, messages
            raise
        return messages

    def buffer_updated(self, count: SupportsIndex, /) -> list[MessageT]:
        """Take the bytes that were read into the buffer from `get_buffer`.

        Args:
            count: Bytes that were read, from the buffer's start.

        Returns:
            The messages that were completed, as `feed` does.

        Raises:
            FrameError: The stream is broken.
            ValueError: There is no such buffer, `count` does not fit it, or the splitter is
                detached.
        """
        if self._objects is not None and self._objects_thread != threading.get_ident():
            return self._take_objects(self.buffer_updated, count)
        size = operator.index(count)
        messages: list[MessageT] = []
        taken, buffer, given = False, None, NOT_GIVEN
        try:
            try:
                self._lock.acquire()
                self._check_usable()
                buffer = self._buffer
                if buffer is None or self._given == NOT_GIVEN:
                    raise _error_texts.no_buffer_given()
                if not 0 <= size <= len(buffer):
                    raise _error_texts.updated_beyond_buffer(size, len(buffer))
                given, self._given = self._given, NOT_GIVEN
                try:
                    self._take(buffer[:size], messages)
                    taken = True
                finally:
                    given_view, spare = self._given_view, self._spare
                    if given_view is not None and spare is not None:
                        buffer = None
                        self._put_buffer_back(given_view, spare)
            finally:
                try:  # noqa: SIM105 (that would be a `with`)
                    self._lock.release()
                except RuntimeError:  # a signal handler has interrupted acquire()
                    pass
        except BaseException as error:
            if taken:
                self._keep_interruption(error)
            elif given and self._error is None:  # nothing was taken: the call can be repeated
                self._given = given
            if error is self._error:
                error.with_traceback(None)  # as in feed()
                del self, buffer, messages
            raise
        return messages

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __repr__(self) -> str:
        return describe_splitter(self, self._codec, self._detached)

    # --- its state --------------------------------------------------------------------------------

    def _pending_frame(self) -> _error_texts.PendingFrame:
        """Describe the pending frame, for the text of an error about what is missing of it."""
        return describe_pending(self)

    @property
    def error(self) -> BaseException | None:
        """The error that ended the stream, or that the next call raises for a message; or None."""
        return self._error if self._undelivered is None else self._undelivered.error

    # --- taking a chunk ---------------------------------------------------------------------------

    def _take(self, data: bytes | memoryview, messages: list[Any]) -> None:
        """Take a chunk; keep an error for the next call if there are messages to deliver."""
        pos, taken_before = 0, self._stream_offset + self._pending
        self._busy, self._turn, self._holds_chunk = True, None, False
        self._gather_end = 0
        if self._detached or self._error is not None:  # by a finalizer, since the caller's check
            self._busy = False
            self._check_usable()
        try:
            if self._headers is not None:
                self._headers = []
            if self._gaps:
                self._gaps = []
            try:
                if self._resync:
                    self._take_resync(data, messages)
                elif self._one_at_a_time:
                    self._take_one(data, messages)
                elif isinstance(data, bytes):
                    start = 0
                    if self._unpack is not None:
                        start = self._read_plain_frames(data, 0, messages, self._unpack)
                    elif self._quick is not None:
                        start = read_quick_frames(self, data, 0, messages, self._quick)
                    elif self._stops:
                        start = split_frames(self, data, 0, messages, False)
                    if start < len(data):
                        self._consume(data, messages, start)
                    elif self._detours > 0:
                        self._detours -= 1
                else:
                    for pos in range(0, len(data), SLICE_SIZE):
                        self._gather_end = 0
                        self._consume(bytes(data[pos : pos + SLICE_SIZE]), messages)
                if self._phase != IN_REST:
                    self._gather_end = 0
                elif not self._gather_end:
                    self._set_gather_end()
            except errors.FrameError as bad_frame:
                _error_texts.complete_text(bad_frame, self._layout, self._fragments)
                raise
        except BaseException as error:
            # Whatever it is, an interruption in parse() too: messages first, then the error.
            self._take_failed(error, data, pos, taken_before)
            self._failed_in = threading.get_ident()
            if not messages:
                raise
            error.with_traceback(None)  # it would keep the chunk and the messages alive
        finally:
            self._busy = False


def scan(codec: Codec[Any], data: Buffer, *, raw: bool = False) -> Spans:
    """Find all whole frames at the start of a buffer; see `Codec.scan`."""
    layout = layout_of(codec)
    if not raw and layout.joined is not None:
        raise not_in_one_piece()
    if not raw and (layout.message_lead or (layout.choice and layout.choice.has_lead)):
        raise _error_texts.scan_with_lead()
    if not raw and layout.has_changed_content:
        raise _mark_texts.not_in_one_piece()
    view = view_bytes(data)
    splitter = Splitter(codec, raw=raw)
    splitter._spans = spans = Spans(view)
    spans._growing = True
    splitter._unpack = splitter._quick = None
    splitter._stops = ()
    splitter._objects = None
    splitter._busy = True  # a user's parse() that finds it cannot feed it
    try:
        for pos in range(0, len(view), SLICE_SIZE):
            splitter._consume(bytes(view[pos : pos + SLICE_SIZE]), [])
    except BaseException as error:
        if not spans or not isinstance(error, errors.FrameError):
            if isinstance(error, errors.FrameError):
                _error_texts.complete_text(error, layout, splitter._fragments)
            view.release()  # the traceback would hold it
            raise
    spans._consumed = splitter.stream_offset
    spans._growing = False
    return spans
