"""The unread bytes of a splitter in Python: one message a call, switching codecs, errors.

It is the part of `Splitter` (`_splitter_py.py`) that keeps received bytes which are in no message:

* with ``one_at_a_time``, all bytes after the last delivered message. No call looks at them before
  the caller asks for the next message, so that it can be of another protocol;
* after an error, all bytes from the start of the bad frame;
* all of them are read again after a switch to another codec.
"""

from __future__ import annotations

from typing import Any

from . import _error_texts
from ._frame_reader_py import (
    IN_HEADER,
    IN_PADDING,
    FrameReader,
    describe_pending,
    matched_trailer,
)
from ._layout import Layout
from ._marked_reader_py import STEP, consume_marked, untake_tail
from ._plain_reader_py import numbers_for

__all__ = ["KeepingReader"]


class KeepingReader(FrameReader):
    """A reader that keeps unread bytes."""

    __slots__ = (
        "_ended",
        "_error",
        "_held",
        "_held_offset",
        "_lost",
        "_not_taken",
        "_one_at_a_time",
    )

    def __init__(
        self, layout: Layout, raw: bool, skip: bool, stream_offset: int, keep_headers: bool
    ) -> None:
        super().__init__(layout, raw, skip, stream_offset, keep_headers)
        self._one_at_a_time = False
        # One message a call: bytes after the last delivered message that no call has looked at.
        self._held = bytearray()
        self._held_offset = 0  # during a call: their position in the stream
        self._ended = False  # feed_eof() found undelivered messages
        self._error: BaseException | None = None  # the sticky error
        self._not_taken = b""  # after an error: what followed the byte that decided
        self._lost = False  # after an error: the bytes for detach() are not certain

    # --- one message a call -----------------------------------------------------------------------

    def _take_one(self, data: bytes | memoryview, messages: list[Any]) -> None:
        """Take a chunk up to the end of its first message, and hold what follows."""
        tail = self._tail
        if tail:  # it is read again
            untake_tail(self, bytearray(tail) + self._held)
        self._held_offset = self._stream_offset + self._pending
        self._held += data
        if len(data):
            self._ended = False
        pos = 0
        while pos < len(self._held) and not messages:
            if self._layout.marks:
                pos = self._take_one_marked(pos, messages)
                continue
            held: Any = self._held  # slices of it are as good as bytes
            pos = self._read_header(held, pos, messages)
            held = self._held  # which _take_surplus() has replaced
            pos = self._read_rest(held, pos)
            pos = self._read_trailer(held, pos, messages)
            if self._phase == IN_PADDING:
                pos = self._read_padding(held, pos, messages)
        # No call in between.
        offset = self._held_offset + pos
        del self._held[:pos]
        self._held_offset = offset
        if self._ended and self._pending and not messages:
            raise _error_texts.incomplete_frame(describe_pending(self))

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

    # --- another codec ----------------------------------------------------------------------------

    def _restart(self, layout: Layout, before: bytes) -> bytes:
        """Expect a frame of another layout next; return the bytes to read again.

        Args:
            layout: The layout.
            before: Bytes before the unread ones that are read again, too.
        """
        in_padding = self._phase == IN_PADDING and not self._raw  # its message is delivered
        if self._skipping and not in_padding:
            raise _error_texts.switch_in_skipped_frame()
        unread = b"".join((self._not_taken, self._held)) if in_padding else self._unfinished()
        unread = before + unread
        numbers = numbers_for(layout, self._raw, self._wants_headers)
        header, piece, held = bytearray(), bytearray(), bytearray()
        pieces: list[bytes] = []
        offset = self._stream_offset - len(before)
        try:
            self._use_layout(numbers)
            self._stream_offset = offset
            self._error = None
            self._not_taken = self._surplus_bytes = b""
            self._lost = self._ended = False
            self._held = held
            if not in_padding:
                self._header, self._piece, self._pieces = header, piece, pieces
                self._phase = IN_HEADER
                self._pending = self._line_pos = self._pending_lead = self._trailer_pos = 0
                self._parsed = -1
                self._found = None
                self._padding = self._end = b""
            self._tail = self._after = b""
            self._content_size = self._block_left = 0
            self._zero_due = self._block_begun = False
        except BaseException as error:  # an interruption
            self._error, self._lost = error, True
            raise
        return unread

    # --- errors -----------------------------------------------------------------------------------

    def _take_failed(
        self, error: BaseException, data: bytes | memoryview, pos: int, taken_before: int
    ) -> None:
        self._error, self._lost = error, True
        if self._one_at_a_time:
            held, no_bytes = self._held, bytearray()
            self._fail(error, held, self._stream_offset + self._pending - self._held_offset)
            self._held = no_bytes
        elif not self._counting:
            taken = self._stream_offset + self._pending - taken_before
            self._fail(error, data, taken, pos)

    def _keep_interruption(self, error: BaseException) -> None:
        """Make an interruption sticky that came after a chunk was taken.

        The caller does not get the messages, and cannot see that the chunk was taken.
        """
        if self._error is None:
            self._error = error

    def _fail(
        self, error: BaseException, chunk: bytes | bytearray | memoryview, taken: int, pos: int = 0
    ) -> None:
        """Make the error sticky, and keep the bytes that arrived for detach().

        Of the chunk, `taken` bytes were taken; a negative count is that of bytes before the chunk
        that were not. Those are in `_surplus_bytes`, which ends at `pos` in the chunk.
        """
        self._error, self._lost = error, True
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
        if not self._raw or self._phase == IN_HEADER:
            parts[0] = memoryview(parts[0])[self._pending_lead :]
            parts.insert(0, self._header)
        end = self._end + matched_trailer(self)
        return b"".join([*parts, end, self._tail, self._padding, self._not_taken, self._held])
