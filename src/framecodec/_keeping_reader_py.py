"""The unread bytes of a splitter in Python: one message a call, switching codecs, errors.

It is the part of `Splitter` (`_splitter_py.py`) that keeps received bytes which are in no message:

* with ``one_at_a_time``, all bytes after the last delivered message. No call looks at them before
  the caller asks for the next message, so that it can be of another protocol;
* after an error, all bytes from the start of the bad frame;
* all of them are read again after a switch to another codec;
* with ``on_invalid="resync"``, the bytes after a bad frame's first one, in which the next mark is
  looked for.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

from . import _error_texts, errors
from ._checked_reader_py import matched_trailer
from ._chosen_frames_py import unchoose
from ._frame_reader_py import (
    IN_HEADER,
    IN_PADDING,
    SLICE_SIZE,
    FrameReader,
    describe_pending,
    header_of,
)
from ._gaps_py import note_gap
from ._joined_reader_py import unfinished_fragments
from ._layout import Layout
from ._marked_reader_py import STEP, consume_marked, untake_tail
from ._marks_py import mark_search_of
from ._plain_reader_py import IS_WHOLE_BETWEEN_CALLS, numbers_for
from ._resync import check_marks, find_end_mark, find_mark
from ._split_frames_py import gather_end_of_marked

__all__ = ["KeepingReader"]

# Held bytes are parsed in pieces of this size: what follows a bad frame is copied once more.
_PIECE_SIZE = 16 * 1024


class KeepingReader(FrameReader):
    """A reader that keeps unread bytes."""

    __slots__ = (
        "_discarded",
        "_ended",
        "_error",
        "_failed_in",
        "_held",
        "_held_offset",
        "_holds_chunk",
        "_last_invalid",
        "_lost",
        "_not_taken",
        "_one_at_a_time",
        "_resync",
        "_resyncs",
        "_searching",
    )

    _detached: bool
    _lock: Any  # serialises calls from several threads

    def __init__(
        self, layout: Layout, raw: bool, skip: bool, stream_offset: int, keep_headers: bool
    ) -> None:
        super().__init__(layout, raw, skip, stream_offset, keep_headers)
        self._gaps, self._notes_gaps = [], keep_headers
        # The list of the call that takes a chunk at once; another one, or None, if any other call
        # has begun meanwhile.
        self._turn = None
        self._detours = -1  # chunks before `feed` tries that again; -1: never
        self._one_at_a_time = False
        # One message a call: bytes after the last delivered message that no call has looked at.
        self._held = bytearray()
        self._held_offset = 0  # during a call: their position in the stream
        self._holds_chunk = False  # during a call: its bytes are among them
        self._ended = False  # feed_eof() found undelivered messages
        self._error: BaseException | None = None  # the sticky error
        self._failed_in = 0  # the thread that met it; 0 if that is not certain
        self._not_taken = b""  # after an error: what followed the byte that decided
        self._lost = False  # after an error: the bytes for detach() are not certain
        self._resync = False  # a bad frame is no error
        self._searching = False  # after a bad frame, until the next mark
        self._resyncs = 0  # bad frames
        self._discarded = 0  # bytes
        self._last_invalid: errors.FrameError | None = None

    # --- the pending frame ------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Bytes that arrived and are in no message yet (after an error: from the bad frame on)."""
        return self._pending + len(self._held)

    @property
    def bytes_needed(self) -> int:
        """Bytes that finish the pending frame: a lower bound, at least 1.

        It is exact once the header is in, where that declares a size.
        """
        try:
            self._lock.acquire()  # the numbers belong together
            if self._held:
                return max(1, self._layout.header_size - len(self._held))
            if self._phase != IN_HEADER and self._error is None:
                sized = not self._layout.marks or self._phase == IN_PADDING
                missing = self._whole_size - self._pending if sized else 1
                if self._phase != IN_PADDING and not self._raw:
                    missing -= self._padding_size  # the message comes before it
                # At least 1 also for a finalizer that asks while a message is delivered.
                return max(1, missing)
            return max(1, self._layout.header_size - len(self.pending_header))
        finally:
            try:  # noqa: SIM105 (that would be a `with`)
                self._lock.release()
            except RuntimeError:  # a signal handler has interrupted acquire()
                pass

    @property
    def stream_offset(self) -> int:
        """Position in the stream, in bytes, of the pending frame's first byte."""
        return self._stream_offset

    @property
    def pending_header(self) -> bytes:
        """The pending frame's header, as far as it arrived.

        After an error: up to the byte that decided.
        """
        error = self._error
        if isinstance(error, errors.FrameError) and not self._detached:
            return error.header  # the splitter may have gathered more, depending on the chunks
        return header_of(self)

    def _set_gather_end(self) -> None:
        """Let `feed` itself take the chunks that do not end the rest."""
        if (
            IS_WHOLE_BETWEEN_CALLS
            and not self._skipping
            and self._headers is None
            and not self._one_at_a_time
            and not self._resync
        ):
            merged_at = (self._pending // SLICE_SIZE + 1) * SLICE_SIZE
            end = gather_end_of_marked(self) if self._layout.marks else self._rest_end
            self._gather_end = min(end, merged_at)

    def _choose_detours(self) -> None:
        """Let `feed` take chunks at once if they may hold ordinary frames only."""
        ordinary = self._unpack is not None or self._quick is not None or bool(self._stops)
        never = self._one_at_a_time or self._resync or self._notes_gaps
        self._detours = 0 if ordinary and not never and IS_WHOLE_BETWEEN_CALLS else -1

    # --- what was discarded, what travelled -------------------------------------------------------

    @property
    def skipped(self) -> int:
        """How many oversized frames were discarded."""
        return self._skipped

    @property
    def resyncs(self) -> int:
        """How many bad frames were discarded under ``on_invalid="resync"``."""
        return self._resyncs

    @property
    def discarded(self) -> int:
        """How many bytes were discarded with them, up to the next frames."""
        return self._discarded

    @property
    def last_invalid(self) -> errors.FrameError | None:
        """The error of the last bad frame, or None."""
        return self._last_invalid

    @property
    def headers(self) -> list[bytes] | None:
        """The headers of the messages that the last call returned, if the splitter keeps them.

        With ``keep_headers=True``, and a codec that reads other frames than it writes: what
        travelled before each message's rest, in the same order. `frame_as_travelled` rebuilds a
        frame from it. None for other codecs, whose messages have one frame, and with ``raw=True``.
        """
        return self._headers

    # --- one message a call -----------------------------------------------------------------------

    def _take_one(self, data: bytes | memoryview, messages: list[Any]) -> None:
        """Take a chunk up to the end of its first message, and hold what follows."""
        tail = self._tail
        if tail:  # it is read again
            untake_tail(self, bytearray(tail) + self._held)
        self._held_offset = self._stream_offset + self._pending
        self._held += data
        self._holds_chunk = True
        if len(data):
            self._ended = False
        self._consume_one(messages)
        if self._ended and self._pending and not messages:
            raise _error_texts.incomplete_frame(describe_pending(self))

    def _consume_one(self, messages: list[Any]) -> None:
        """Take held bytes up to the end of the first message, and its padding."""
        pos = 0
        while pos < len(self._held) and not messages:
            if self._layout.marks:
                pos = self._take_one_marked(pos, messages)
                continue
            held: Any = self._held  # slices of it are as good as bytes
            pos = self._read_header(held, pos, messages)
            held = self._held  # which _take_surplus() has replaced
            if self._layout.marks:  # a choice has chosen such a frame
                continue
            pos = self._read_rest(held, pos)
            pos = self._read_trailer(held, pos, messages)
            if self._phase == IN_PADDING:
                pos = self._read_padding(held, pos, messages)
        # No call in between.
        offset = self._held_offset + pos
        del self._held[:pos]
        self._held_offset = offset

    def _take_one_marked(self, pos: int, messages: list[Any]) -> int:
        """Do the same for frames that an end mark ends, in steps; return where the step ends."""
        piece = bytes(self._held[pos : pos + STEP])
        pos += consume_marked(self, piece, messages, one=True)
        if pos < len(self._held):
            pos -= len(self._tail)
            untake_tail(self, self._held)
        return pos

    def _take_surplus(self, messages: list[Any]) -> None:
        if not self._one_at_a_time:
            super()._take_surplus(messages)
            return
        # Read them before the held bytes.
        held = bytearray(self._surplus_bytes) + self._held
        offset = self._held_offset - len(self._surplus_bytes)
        # No call in between.
        self._held = held
        self._held_offset = offset
        self._surplus_bytes = b""

    # --- after a bad frame ------------------------------------------------------------------------

    def _take_resync(self, data: bytes | memoryview, messages: list[Any]) -> None:
        """Take a chunk; after a bad frame discard the bytes before the next mark."""
        if len(data):
            self._ended = False
        self._stops = ()  # a whole piece would be split for each bad frame
        if self._one_at_a_time and self._tail:  # it is read again
            untake_tail(self, bytearray(self._tail) + self._held)
        self._held_offset = self._stream_offset + self._pending
        self._held += data
        self._holds_chunk = True
        while self._held and not (self._one_at_a_time and messages):
            self._held_offset = self._stream_offset + self._pending
            if self._searching and not self._search():
                break
            try:
                if self._one_at_a_time:
                    self._consume_one(messages)
                else:
                    self._consume_held(messages)
            except (errors.InvalidFrameError, errors.MessageTooLargeError) as error:
                self._discard_bad_frame(error)
        if self._ended and self._searching:
            self._end_search()
        if self._ended and self._pending and not messages:
            raise _error_texts.incomplete_frame(describe_pending(self))

    def _consume_held(self, messages: list[Any]) -> None:
        piece = bytes(self._held[:_PIECE_SIZE])
        self._consume(piece, messages)
        # No call in between.
        offset = self._held_offset + len(piece)
        del self._held[: len(piece)]
        self._held_offset = offset

    def _search(self) -> bool:
        """Discard held bytes up to the first mark; return whether there is a whole one."""
        after = b""
        if self._layout.marks and not self._layout.magic:
            size, after = find_end_mark(self._layout, self._held)
            found = bool(after)
            if not self._is_begun(after):
                after = b""
        else:
            size, found = find_mark(self._layout, self._held)
        offset, discarded = self._stream_offset + size, self._discarded + size
        note_gap(self, self._stream_offset, offset)
        del self._held[:size]  # first: it may need memory
        # No call in between.
        self._held_offset = self._stream_offset = offset
        self._discarded = discarded
        self._after = after
        self._searching = not found
        return found

    def _is_begun(self, mark: bytes) -> bool:
        """Return whether a longer end mark begins with one; what it has more is then ignored."""
        search = mark_search_of(self._layout)
        return search is not None and bool(search.extensions.get(mark))

    def _discard_bad_frame(self, error: errors.FrameError) -> None:
        """Discard the first byte of a bad frame, and of one that was skipped all that is gone."""
        _error_texts.complete_text(error, self._layout, self._fragments)
        error.with_traceback(None)
        try:
            gone, taken = 1, self._stream_offset + self._pending - self._held_offset
            if self._skipping and self._fragments and self._phase == IN_HEADER:
                gone = self._pending - len(self._header)
                held = self._header + self._held[taken:]
            elif self._skipping and self._phase != IN_HEADER:
                gone, held = self._pending, self._held_from(taken)
            elif taken >= self._pending:  # it began in the held bytes
                held = self._held
                del held[: taken - self._pending + 1]
            else:
                self._skipping = False
                held = bytearray(self._unfinished()[: self._pending]) + self._held_from(taken)
                del held[:1]
            self._held = held
            self._forget_frame(bytearray(), bytearray(), [])
            note_gap(self, self._stream_offset, self._stream_offset + gone)
            self._surplus_bytes = b""
            self._skipping = False
            self._stream_offset += gone
            self._discarded += gone
            self._resyncs += 1
            self._last_invalid = error
            self._searching = True
        except BaseException as interruption:
            self._error, self._lost = interruption, True
            raise

    def _held_from(self, taken: int) -> bytearray:
        """Return the held bytes after these, from the bytes before them on if it is negative."""
        surplus = self._surplus_bytes[taken:] if taken < 0 else b""
        return bytearray(surplus) + self._held[max(0, taken) :]

    def _forget_frame(self, header: bytearray, piece: bytearray, pieces: list[bytes]) -> None:
        """Drop the bytes of the pending frame; the arguments are empty and new."""
        self._header, self._piece, self._pieces = header, piece, pieces
        self._phase = IN_HEADER
        self._pending = self._line_pos = self._pending_lead = self._trailer_pos = 0
        self._parsed = -1
        self._found = None
        self._padding = self._end = self._tail = self._after = b""
        self._content_size = self._block_left = 0
        self._zero_due = self._block_begun = False
        self._fragments = self._content = 0
        self._followed = False
        if self._choice is not None:
            unchoose(self)

    def _end_search(self) -> None:
        """Discard what is held at the end of the stream, where no mark was found."""
        size = len(self._held)
        self._discarded += size
        self._stream_offset += size
        self._held = bytearray()

    # --- another codec ----------------------------------------------------------------------------

    def _restart(self, layout: Layout, before: bytes) -> bytes:
        """Expect a frame of another layout next; return the bytes to read again.

        Args:
            layout: The layout.
            before: Bytes before the unread ones that are read again, too.
        """
        in_padding = self._phase == IN_PADDING and not self._raw  # its message is delivered
        in_padding = in_padding and not before  # ... unless that is read again
        if self._skipping and not in_padding:
            raise _error_texts.switch_in_skipped_frame()
        unread = b"".join((self._not_taken, self._held)) if in_padding else self._unfinished()
        unread = before + unread
        if self._resync:
            check_marks(layout)
        numbers = numbers_for(layout, self._raw, self._wants_headers)
        header, piece, held = bytearray(), bytearray(), bytearray()
        pieces: list[bytes] = []
        offset = self._stream_offset - len(before)
        try:
            self._use_layout(numbers)
            self._choose_detours()
            self._stream_offset = offset
            self._gaps = []
            self._error = None
            self._failed_in = 0
            self._not_taken = self._surplus_bytes = b""
            self._lost = self._ended = False
            self._held = held
            self._searching = False
            if not in_padding:
                self._forget_frame(header, piece, pieces)
            self._tail = self._after = b""
        except BaseException as error:  # an interruption
            self._error, self._lost = error, True
            raise
        return unread

    # --- errors -----------------------------------------------------------------------------------

    def _take_failed(
        self, error: BaseException, data: bytes | memoryview, pos: int, taken_before: int
    ) -> None:
        if self._lost and self._error is error:
            return  # it was interrupted while bytes were moved
        self._error, self._lost = error, True
        if self._one_at_a_time or self._resync:
            held, no_bytes = self._held, bytearray()
            if self._holds_chunk:
                self._fail(error, held, self._stream_offset + self._pending - self._held_offset)
            else:  # there was no memory for it
                self._fail(error, held + data, 0)
            self._held = no_bytes
        elif not self._counting:  # pragma: no branch (memory ran out twice)
            taken = self._stream_offset + self._pending - taken_before
            self._fail(error, data, taken, pos)

    def _keep_interruption(self, error: BaseException) -> None:
        """Make an interruption sticky that came after a chunk was taken.

        The caller does not get the messages, and cannot see that the chunk was taken.
        """
        self._gather_end, self._turn = 0, None
        if self._error is None:
            self._error = error
            if isinstance(error, MemoryError):  # pragma: no cover (tested without the tracer)
                self._lost, self._failed_in = True, get_ident()

    def _fail(
        self, error: BaseException, chunk: bytes | bytearray | memoryview, taken: int, pos: int = 0
    ) -> None:
        """Make the error sticky, and keep the bytes that arrived for detach().

        Of the chunk, `taken` bytes were taken; a negative count is that of bytes before the chunk
        that were not. Those are in `_surplus_bytes`, which ends at `pos` in the chunk.
        """
        self._error, self._lost = error, True
        self._gather_end = 0
        self._pending += len(chunk) - taken
        if self._keeps_bytes():
            if taken >= 0:
                self._not_taken = bytes(chunk[taken:]) if chunk else b""
            else:
                stop = len(self._surplus_bytes) - pos
                self._not_taken = self._surplus_bytes[stop + taken : stop] + chunk
        self._surplus_bytes = b""
        self._lost = False

    def _keeps_bytes(self) -> bool:
        return not self._skipping and self._spans is None

    def _unfinished(self) -> bytes:
        """Return the bytes of the pending frame as they travelled, and after an error all later."""
        if not self._keeps_bytes():
            return b""
        if self._lost:
            raise _error_texts.unfinished_lost()
        if self._phase == IN_PADDING and not self._raw:  # its message is delivered
            return self._padding + self._not_taken + self._held
        parts: list[Any] = [*self._pieces, self._piece]
        if self._fragments:
            parts = unfinished_fragments(self)
        elif not self._raw or self._phase == IN_HEADER:
            parts[0] = memoryview(parts[0])[self._pending_lead :]
            parts.insert(0, self._header)
        end = self._end + matched_trailer(self)
        return b"".join([*parts, end, self._tail, self._padding, self._not_taken, self._held])
