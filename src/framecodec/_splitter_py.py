"""The engine in Python: bytes in, messages out; messages in, bytes out.

It reads as the specification of the compiled engine, `_splitter.pyx`, which has the same rooms in
the same order under the same names. Whoever changes one changes the other.

What a splitter must do
    Take the bytes of one connection in any chunks and give back its messages. Whatever the chunks,
    the messages, the error and its offset are the same; what a peer declares costs nothing before
    it arrives; a byte costs the same however much is pending.

How
    Most frames lie whole and unremarkable in the chunk at hand. `_read_whole_frames`, the hot loop,
    takes those and no others: it stops in front of the first frame that is cut off, special, too
    large or wrong in any way. That one goes the careful way, part by part and byte by byte if need
    be, through `_read_header`, `_read_rest` and `_read_trailer`, which can stop and go on anywhere
    and know every error. Then the hot loop goes on.

    =========  =====================================================================
    phase      what the splitter holds of the pending frame
    =========  =====================================================================
    header     `_header`: its bytes so far, maybe none
    rest       `_header` whole; `_pieces`, `_piece`: the message so far
    trailer    `_header` and message whole; `_trailer_pos` bytes of the trailer matched
    =========  =====================================================================

    `_stream_offset + _pending` is at all times the number of bytes taken from the stream: when
    something raises, that says where, and what was not taken yet.
"""

from __future__ import annotations

import array
import operator
import struct
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NoReturn, SupportsIndex, final, overload

from . import _error_texts, errors
from ._bytes_like import view_bytes
from ._custom_header import build_header, read_header
from ._header_block import read_lines
from ._layout import (
    CUSTOM,
    DIGITS,
    HEADERS,
    MAX_VALUE,
    TEXT,
    UINT,
    VARINT,
    HasLayout,
    Layout,
)
from ._likely_causes import SAMPLE_SIZE

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Encoder", "Spans", "Splitter", "scan"]

_IN_HEADER, _IN_REST, _IN_TRAILER = range(3)

# What get_buffer() or get_room() gave and buffer_updated() has not reported yet. feed() withdraws
# what get_room() gave.
_NOTHING, _A_BUFFER, _A_ROOM = range(3)

# The buffer that get_buffer() gives when the caller has no wish, and the least and most it may
# wish.
_BUFFER_SIZE = 64 * 1024
_SMALLEST_BUFFER_SIZE = 1024
_LARGEST_BUFFER_SIZE = 1024 * 1024

# Other buffers than bytes are taken in slices of this size, so that no large one is copied whole.
_SLICE_SIZE = 64 * 1024

# A header that may be longer is gathered by steps: so many bytes, then as many again as there are.
_FIRST_HEADER = 256

# Pieces of a message from this size up are kept as they came; smaller ones are gathered first, so
# that a message that drips in byte by byte does not cost an object a byte.
_PIECE_SIZE = 16 * 1024

_DECIMAL = b"0123456789"
_HEXADECIMAL = b"0123456789abcdefABCDEF"


def _layout_of(codec: HasLayout) -> Layout:
    layout = getattr(codec, "layout", None)
    if not isinstance(layout, Layout):
        raise _error_texts.not_a_codec(codec)
    return layout


@final
class Splitter:
    """One connection's receiving state: bytes in, any chunking; messages out.

    Args:
        codec: The shape of the frames.
        raw: Deliver whole frames as they travelled (proxies, captures) instead of messages.
        on_oversize: What happens to a frame whose message is larger than the codec's
            ``max_message_size``: ``"raise"`` fails as soon as its header is in; ``"skip"`` discards
            exactly that frame in constant memory, counts it in `skipped`, and goes on.

    Raises:
        TypeError: `codec` is not a `Codec`.
        ValueError: `on_oversize` is neither of the two.
    """

    __slots__ = (
        "_adjustment",
        "_buffer",
        "_busy",
        "_counting",
        "_detached",
        "_error",
        "_given",
        "_header",
        "_header_size",
        "_layout",
        "_lead_size",
        "_line_pos",
        "_lock",
        "_looked_ahead",
        "_lost",
        "_magic",
        "_not_taken",
        "_parsed",
        "_pending",
        "_pending_lead",
        "_phase",
        "_piece",
        "_pieces",
        "_quick_high",
        "_quick_low",
        "_raw",
        "_rest_left",
        "_skip",
        "_skipped",
        "_skipping",
        "_spans",
        "_stream_offset",
        "_trailer",
        "_trailer_pos",
        "_try_length",
        "_unpack",
        "_wanted",
        "_whole_size",
    )

    def __init__(
        self,
        codec: HasLayout,
        *,
        raw: bool = False,
        on_oversize: Literal["raise", "skip"] = "raise",
    ) -> None:
        if hasattr(self, "_lock"):
            return  # a second call changes nothing, as in the compiled engine
        self._layout = layout = _layout_of(codec)
        if on_oversize not in ("raise", "skip"):
            raise _error_texts.bad_on_oversize(on_oversize)
        self._raw = bool(raw)
        self._skip = on_oversize == "skip"

        # The layout's numbers that the hot loop needs.
        self._magic = layout.magic
        self._trailer = layout.trailer
        self._lead_size = layout.lead_size
        self._header_size = layout.header_size
        self._adjustment = layout.adjustment
        low, span = layout.quick_range
        self._quick_low = low
        self._quick_high = low + span
        self._try_length = _TRY_LENGTH[layout.kind]
        plain = not (raw or layout.magic or layout.lead_size or layout.trailer)
        self._unpack = _unpacker(layout) if plain else None

        # The pending frame.
        self._phase = _IN_HEADER
        self._stream_offset = 0  # of its first byte
        self._pending = 0  # bytes of it that were taken
        self._header = bytearray()  # its header, as far as it was taken
        self._wanted = layout.header_size or self._longest_header()  # size up to which to gather it
        self._line_pos = 0  # HEADERS: where the first line that was not judged begins
        self._parsed = -1  # HEADERS: the length found in the lines judged, or -1
        self._whole_size = 0  # past the header: bytes of the whole frame
        self._pending_lead = 0  # past the header: bytes of the message that came with it
        self._rest_left = 0  # in the rest: bytes of it that are missing
        self._skipping = False  # past the header: the frame is oversized and being discarded
        self._pieces: list[bytes] = []  # the message (raw: the frame) so far, up to ...
        self._piece = bytearray()  # ... its last, small pieces
        self._trailer_pos = 0  # bytes of the trailer that matched

        self._skipped = 0  # oversized frames discarded
        self._spans: Spans | None = None  # scanning: where the frames lie, instead of messages
        # What get_buffer() gives: an export of it, so that nobody resizes it.
        self._buffer: memoryview | None = None
        self._given = _NOTHING  # what get_buffer() or get_room() gave last
        self._error: BaseException | None = None  # the sticky error
        self._not_taken = b""  # after an error: what followed the byte that decided
        # CUSTOM: bytes of earlier chunks that parse() saw and that follow the header; they are read
        # before the chunk, which they end at.
        self._looked_ahead = b""
        self._lost = False  # after an error: the bytes for detach() are not certain
        self._detached = False
        self._busy = False  # inside a call during which other code may run
        self._counting = False  # the stream offset is that of frames before those delivered
        self._lock = threading.RLock()  # serialises calls from several threads

    # --- bytes in ---------------------------------------------------------------------------------

    def feed(self, data: Buffer, /) -> list[Any]:
        """Takes the next bytes of the stream.

        Args:
            data: Any contiguous bytes-like object, of any length, cut anywhere.

        Returns:
            The messages that were completed, in order: `bytes`, or the objects of the codec's
            ``specials``. Messages in front of a bad frame are returned first; the error is then in
            `error`, and raised by the next call.

        Raises:
            FrameError: The stream is broken. Every later call raises the same error.
            TypeError, BufferError: `data` is not a contiguous bytes-like object; nothing was taken.
            ValueError: The splitter is detached.
        """
        if type(data) is not bytes:
            # Released even where an error keeps this call's frame alive.
            try:
                with view_bytes(data) as view:
                    return self._feed(view)
            except BaseException as error:
                if error is self._error:
                    error.with_traceback(None)  # as below
                    del self, data, view
                raise
        messages: list[Any] = []
        taken = False
        try:
            with self._lock:
                self._check_usable()
                if self._given == _A_ROOM:
                    self._given = _NOTHING
                self._take(data, messages)
                taken = True
        except BaseException as error:
            if taken:
                self._keep_interruption(error)
            if error is self._error:
                # Its frames would hold the chunk, and the splitter, which holds the error.
                error.with_traceback(None)
                del self, data, messages
            raise
        return messages

    def _feed(self, view: memoryview) -> list[Any]:
        messages: list[Any] = []
        taken = False
        try:
            with self._lock:
                self._check_usable()
                if self._given == _A_ROOM:
                    self._given = _NOTHING
                self._take(view, messages)
                taken = True
        except BaseException as error:
            if taken:
                self._keep_interruption(error)
            if error is self._error:
                error.with_traceback(None)  # as in feed()
                del self, view, messages
            raise
        return messages

    def get_buffer(self, sizehint: SupportsIndex = -1, /) -> memoryview:
        """Gives memory to read the next bytes of the stream into.

        Args:
            sizehint: Bytes wanted, from 1 KiB to 1 MiB; -1 or 0 leaves it to the splitter (64 KiB).
                The buffer may be larger.

        Returns:
            A writable buffer that is never empty, to be filled from its start and reported with
            `buffer_updated`. Messages are copied out of it: one that was delivered never changes.

        Raises:
            FrameError: The stream is broken.
            ValueError: The splitter is detached.
        """
        return self._give_buffer(operator.index(sizehint), _A_BUFFER)

    def _give_buffer(self, size: int, given: int) -> memoryview:
        try:
            with self._lock:
                self._check_usable()
                self._busy = True  # what a garbage collection calls may come in here
                try:
                    self._given = _NOTHING
                    if size <= 0:
                        size = _BUFFER_SIZE
                    size = min(max(size, _SMALLEST_BUFFER_SIZE), _LARGEST_BUFFER_SIZE)
                    buffer = self._buffer
                    if buffer is None or len(buffer) < size:
                        buffer = memoryview(bytearray(size))
                    view = memoryview(buffer)
                    # Nothing can fail any more.
                    self._buffer = buffer
                    self._given = given
                finally:
                    self._busy = False
                return view
        except BaseException as error:
            if error is self._error:
                error.with_traceback(None)  # as in feed()
                del self
            raise

    def get_room(self, sizehint: SupportsIndex = -1, /) -> memoryview:
        """As `get_buffer`, for a caller who lets go of the memory at once.

        The compiled engine may give the memory of the message itself, so that the bytes of a large
        one are never copied; Python cannot fill a `bytes`.
        """
        return self._give_buffer(operator.index(sizehint), _A_ROOM)

    def buffer_updated(self, count: SupportsIndex, /) -> list[Any]:
        """Takes what was read into the buffer that `get_buffer` gave.

        Args:
            count: Bytes that were read, from the buffer's start.

        Returns:
            The messages that were completed, as `feed` does.

        Raises:
            FrameError: The stream is broken.
            ValueError: There is no such buffer, `count` does not fit it, or the splitter is
                detached.
        """
        size = operator.index(count)
        messages: list[Any] = []
        taken, buffer = False, None
        try:
            with self._lock:
                self._check_usable()
                buffer = self._buffer
                if buffer is None or self._given == _NOTHING:
                    raise _error_texts.no_buffer_given()
                if not 0 <= size <= len(buffer):
                    raise _error_texts.updated_beyond_buffer(size, len(buffer))
                self._take(buffer[:size], messages)
                taken = True
                self._given = _NOTHING
        except BaseException as error:
            if taken:
                self._keep_interruption(error)
            if error is self._error:
                error.with_traceback(None)  # as in feed()
                del self, buffer, messages
            raise
        return messages

    def feed_eof(self) -> None:
        """Says that the stream has ended.

        Raises:
            IncompleteFrameError: It ended inside a frame. Every later call raises the same error.
            FrameError: It was broken before.
            ValueError: The splitter is detached.
        """
        try:
            with self._lock:
                self._check_usable()
                self._busy = True  # what a garbage collection calls may come in here
                try:
                    self._end_stream()
                finally:
                    self._busy = False
        except BaseException as error:
            if error is self._error:
                error.with_traceback(None)  # as in feed()
                del self
            raise

    def _end_stream(self) -> None:
        if not self._pending:
            return
        error = _error_texts.incomplete_frame(self._pending_frame())
        self._fail(error, b"", 0)
        raise error

    def detach(self) -> bytes:
        """Ends the splitter and gives back what it holds, for a hand-over to another protocol.

        Returns:
            The bytes of the unfinished frame; after an error every byte from the bad frame's first
            one on. Of an oversized frame that is being discarded nothing is left: ``b""``.

        Raises:
            ValueError: The splitter is detached already, as for every later call.
        """
        begun = False
        try:
            with self._lock:
                if self._busy:
                    raise _error_texts.reentered()
                if self._detached:
                    raise _error_texts.detached()
                self._busy = begun = True  # as in feed_eof()
                unfinished = self._unfinished()
                header, piece = bytearray(), bytearray()
                pieces: list[bytes] = []
        except BaseException:  # also from releasing the lock: the call can be repeated
            if begun:
                self._busy = False
            raise
        self._header, self._piece, self._pieces = header, piece, pieces
        self._phase, self._pending, self._given = _IN_HEADER, 0, _NOTHING
        self._not_taken = self._looked_ahead = b""
        self._buffer = None
        self._detached = True
        self._busy = False
        return unfinished

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    # --- what can be asked ------------------------------------------------------------------------

    def _pending_frame(self) -> _error_texts.PendingFrame:
        """Describe the pending frame, for the text of an error about what is missing of it."""
        where, needed = "header", None
        header = bytes(self._header)
        sample = [header]
        if self._phase != _IN_HEADER:
            where = "rest" if self._phase == _IN_REST else "trailer"
            needed = self._whole_size
            if not self._skipping:
                if self._raw:  # the message begins with the header
                    sample.clear()
                lead_size, left = 0 if self._raw else self._pending_lead, SAMPLE_SIZE
                for piece in (*self._pieces, self._piece):
                    if left > 0:
                        sample.append(bytes(piece[lead_size : lead_size + left]))
                        left -= len(sample[-1])
                    lead_size = 0
                sample.append(self._trailer[: self._trailer_pos])
        return _error_texts.PendingFrame(
            self._layout,
            where,
            self._pending,
            needed,
            self._stream_offset,
            header,
            b"".join(sample)[:SAMPLE_SIZE],
        )

    @property
    def pending(self) -> int:
        """Bytes that arrived of an unfinished frame (after an error: from the bad frame on)."""
        return self._pending

    @property
    def bytes_needed(self) -> int:
        """At least 1: a lower bound, exact once the header is in, of the bytes that finish the
        pending frame."""
        with self._lock:  # the numbers belong together
            if self._phase != _IN_HEADER and self._error is None:
                # At least 1 also for a finalizer that asks while a message is delivered.
                return max(1, self._whole_size - self._pending)
            return max(1, self._layout.header_size - len(self.pending_header))

    @property
    def stream_offset(self) -> int:
        """Position in the stream, in bytes, of the pending frame's first byte."""
        return self._stream_offset

    @property
    def pending_header(self) -> bytes:
        """The pending frame's header, as far as it arrived (after an error: up to the byte that
        decided)."""
        error = self._error
        if isinstance(error, errors.FrameError) and not self._detached:
            return error.header  # the splitter may have gathered more, depending on the chunks
        return bytes(self._header)

    @property
    def error(self) -> BaseException | None:
        """The error that ended the stream, or None."""
        return self._error

    @property
    def skipped(self) -> int:
        """How many oversized frames were discarded."""
        return self._skipped

    # --- the way of a chunk -----------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._busy:
            raise _error_texts.reentered()
        if self._detached:
            raise _error_texts.detached()
        if self._error is not None:
            raise self._error.with_traceback(None)

    def _take(self, data: bytes | memoryview, messages: list[Any]) -> None:
        """Takes a chunk; keeps an error for the next call where there are messages to deliver."""
        pos = 0
        taken_before = self._stream_offset + self._pending
        self._busy = True
        if self._detached or self._error is not None:  # by a finalizer, since the caller's check
            self._busy = False
            self._check_usable()
        try:
            try:
                if isinstance(data, bytes):
                    self._consume(data, messages)
                else:
                    for pos in range(0, len(data), _SLICE_SIZE):
                        self._consume(bytes(data[pos : pos + _SLICE_SIZE]), messages)
            except errors.FrameError as bad_frame:
                _error_texts.add_likely_cause(bad_frame, self._layout)
                raise
        except BaseException as error:
            # Whatever it is, an interruption in parse() too: messages first, then the error.
            self._take_failed(error, data, pos, taken_before)
            if not messages:
                raise
            error.with_traceback(None)  # it would keep the chunk and the messages alive
        finally:
            self._busy = False

    def _take_failed(
        self, error: BaseException, data: bytes | memoryview, pos: int, taken_before: int
    ) -> None:
        self._error, self._lost = error, True
        if not self._counting:
            taken = self._stream_offset + self._pending - taken_before
            self._fail(error, data, taken, pos)

    def _keep_interruption(self, error: BaseException) -> None:
        """Makes an error stick that came after a chunk was taken and before the call returned: the
        caller does not get the messages, and does not learn that the chunk was taken."""
        if self._error is None:
            self._error = error

    def _consume(self, data: bytes, messages: list[Any]) -> None:
        pos = 0
        while pos < len(data):
            if not self._pending:
                if self._unpack is not None:
                    pos = self._read_plain_frames(data, pos, messages, self._unpack)
                else:
                    pos = self._read_whole_frames(data, pos, messages)
                if pos == len(data):
                    break
            pos = self._read_header(data, pos, messages)
            pos = self._read_rest(data, pos)
            pos = self._read_trailer(data, pos, messages)

    # --- the hot loop: frames that lie whole and unremarkable in the chunk ------------------------

    def _read_plain_frames(
        self,
        data: bytes,
        pos: int,
        messages: list[Any],
        unpack: Callable[[bytes, int], tuple[int]],
    ) -> int:
        """Takes frames that are nothing but a binary length and a rest, from `pos` on; returns
        where the first one begins that wants a second look."""
        first_pos, size, count = pos, len(data), len(messages)
        low, high, adjustment = self._quick_low, self._quick_high, self._adjustment
        header_size, append = self._header_size, messages.append
        self._counting = True
        try:
            if low or adjustment:
                while True:
                    (value,) = unpack(data, pos)
                    rest_pos = pos + header_size
                    stop = rest_pos + value + adjustment
                    if stop > size or value > high or value < low:
                        break
                    append(data[rest_pos:stop])
                    pos = stop
            else:  # the same with two steps less
                while True:
                    (value,) = unpack(data, pos)
                    rest_pos = pos + header_size
                    stop = rest_pos + value
                    if stop > size or value > high:
                        break
                    append(data[rest_pos:stop])
                    pos = stop
        except struct.error:  # the chunk ends in a header: cheaper than to compare for every frame
            pass
        except BaseException:
            pos = self._skip_frames(data, first_pos, len(messages) - count)
            raise
        finally:
            try:
                self._stream_offset += pos - first_pos
            except MemoryError:  # once more: the messages are in the list already
                self._stream_offset += pos - first_pos
            self._counting = False
        return pos

    def _read_whole_frames(self, data: bytes, pos: int, messages: list[Any]) -> int:
        """The same for every other shape."""
        first_pos, size, count = pos, len(data), len(messages)
        low, high, adjustment = self._quick_low, self._quick_high, self._adjustment
        append = messages.append
        self._counting = True
        try:
            magic, trailer, raw = self._magic, self._trailer, self._raw
            scanned = None if self._spans is None else self._spans.add
            offset = self._stream_offset - first_pos  # of the chunk
            magic_size, trailer_size, lead_size = len(magic), len(trailer), self._lead_size
            try_length, layout = self._try_length, self._layout
            field_offset = magic_size + lead_size
            while True:
                found = try_length(layout, data, pos + field_offset)
                if found is None:
                    break
                value, rest_pos = found
                rest_stop = rest_pos + value + adjustment
                stop = rest_stop + trailer_size
                if stop > size or value > high or value < low:
                    break
                if not data.startswith(magic, pos) or not data.startswith(trailer, rest_stop):
                    break
                if scanned is not None:
                    if raw:
                        scanned(offset + pos, offset + stop)
                    else:
                        scanned(offset + rest_pos, offset + rest_stop)
                elif raw:
                    append(data[pos:stop])
                elif lead_size:
                    lead_pos = pos + magic_size
                    append(data[lead_pos : lead_pos + lead_size] + data[rest_pos:rest_stop])
                else:
                    append(data[rest_pos:rest_stop])
                pos = stop
        except BaseException:
            pos = self._skip_frames(data, first_pos, len(messages) - count)
            raise
        finally:
            try:
                self._stream_offset += pos - first_pos
            except MemoryError:  # once more: the messages are in the list already
                self._stream_offset += pos - first_pos
            self._counting = False
        return pos

    def _skip_frames(self, data: bytes, pos: int, count: int) -> int:
        """Where the next frame begins after `count` frames that a hot loop has taken: an
        interruption may come between the delivery of a message and its being counted."""
        offset = len(self._magic) + self._lead_size
        for _ in range(count):
            found = self._try_length(self._layout, data, pos + offset)
            assert found is not None
            value, rest_pos = found
            pos = rest_pos + value + self._adjustment + len(self._trailer)
        return pos

    # --- the careful way: one frame, part by part -------------------------------------------------

    def _read_header(self, data: bytes, pos: int, messages: list[Any]) -> int:
        """Gathers the header and judges it; delivers a special, prepares for a rest."""
        if self._phase != _IN_HEADER:
            return pos
        header = self._header
        piece = data[pos : pos + min(self._wanted - len(header), max(_FIRST_HEADER, len(header)))]
        judged = len(header) >= len(self._magic)
        # Here as below: what can fail or be interrupted comes first, then counts are stored, so
        # that no byte is counted without being kept or the reverse.
        pending = self._pending + len(piece)
        pos += len(piece)
        header += piece
        self._pending = pending
        in_line = judged and self._layout.kind == HEADERS and b"\n" not in piece
        if in_line and len(header) < self._wanted:
            return pos  # nothing can be judged before the line's end
        surplus = self._settle_header(pos, messages)
        if surplus <= pos:
            return pos - surplus
        # parse() looked ahead: read what follows the header in earlier chunks, then this chunk.
        self._consume(self._looked_ahead, messages)
        self._looked_ahead = b""
        return 0

    def _settle_header(self, in_chunk: int, messages: list[Any]) -> int:
        """Acts on the header, if it is whole; returns how many bytes after it were gathered.

        `in_chunk` bytes of the chunk were gathered or read; where more follow the header, the rest
        of them goes into `_looked_ahead`.
        """
        header = self._header
        found = self._judge_header(header)
        if found is None:
            if len(header) == self._wanted:
                raise _error_texts.header_too_long(
                    self._layout.max_header, self._stream_offset, bytes(header)
                )
            return 0
        header_size, value, lead = found
        surplus = self._drop_surplus(header_size, in_chunk)
        header = self._header
        if value in self._layout.specials:
            special = self._layout.specials[value]
            delivered: tuple[Any, ...] = ()
            if self._spans is None:
                delivered = (bytes(header) if self._raw else special,)
            elif self._raw:
                self._spans.add(self._stream_offset, self._stream_offset + header_size)
            else:
                raise _error_texts.scan_of_special(special, self._stream_offset)
            self._end_frame(messages, delivered)
            return surplus
        rest_size = self._settle_rest_size(value, len(lead))
        if self._spans is not None:
            if lead and not self._raw:
                raise _error_texts.scan_with_lead()
            self._skipping = True  # its bytes are wanted no more than those of a skipped frame
        whole_size = header_size + rest_size + len(self._trailer)
        lead_size = len(lead)
        if not self._skipping:
            self._piece += header if self._raw else lead
            self._pending_lead = lead_size
        self._whole_size = whole_size
        self._rest_left = rest_size
        self._phase = _IN_REST
        return surplus

    def _drop_surplus(self, header_size: int, in_chunk: int) -> int:
        """A header of varying size was not as long as it might have been: how much too much."""
        header = self._header
        surplus = len(header) - header_size
        if surplus:
            pending = self._pending - surplus
            looked_ahead = bytes(header[header_size : max(header_size, len(header) - in_chunk)])
            kept = header[:header_size]
            self._header, self._looked_ahead, self._pending = kept, looked_ahead, pending
        return surplus

    def _judge_header(self, header: bytearray) -> tuple[int, int, bytes] | None:
        """Header size, field value and lead; None where more bytes are wanted.

        Looks at every byte in the order of arrival and raises at the first that cannot be right, so
        that what decides does not depend on the chunks.
        """
        layout, offset = self._layout, self._stream_offset
        magic = layout.magic
        if not header.startswith(magic[: len(header)]):
            right = _common_size(header, magic)
            raise _error_texts.wrong_magic(magic, offset, bytes(header[: right + 1]))
        if len(header) < len(magic):
            return None
        if layout.kind == HEADERS:
            self._line_pos, self._parsed, complete = read_lines(
                header, max(self._line_pos, len(magic)), self._parsed, layout.name, offset
            )
            return (self._line_pos, self._parsed, b"") if complete else None
        if layout.kind == CUSTOM:
            return read_header(layout, bytes(header), offset) if len(header) > len(magic) else None

        if layout.kind == UINT:
            found = self._judge_uint(header)
        elif layout.kind == DIGITS:
            found = self._judge_digits(header)
        elif layout.kind == VARINT:
            found = self._judge_varint(header)
        else:
            found = self._judge_text(header)
        if found is None:
            return None
        header_size, value = found
        return header_size, value, bytes(header[len(magic) : layout.field_offset])

    def _judge_uint(self, header: bytearray) -> tuple[int, int] | None:
        layout = self._layout
        if len(header) < self._header_size:
            return None
        field = header[layout.field_offset : self._header_size]
        return self._header_size, int.from_bytes(field, layout.byteorder, signed=layout.signed)

    def _judge_digits(self, header: bytearray) -> tuple[int, int] | None:
        layout, value = self._layout, 0
        for pos in range(layout.field_offset, len(header)):
            digit = _digit(header[pos], layout.base)
            if digit < 0:
                raise _error_texts.not_a_digit(
                    layout.base, b"", pos, self._stream_offset, bytes(header[: pos + 1])
                )
            value = value * layout.base + digit
            if value > MAX_VALUE:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, bytes(header[: pos + 1])
                )
        return (self._header_size, value) if len(header) == self._header_size else None

    def _judge_varint(self, header: bytearray) -> tuple[int, int] | None:
        layout, value = self._layout, 0
        for pos in range(layout.field_offset, len(header)):
            byte, index = header[pos], pos - layout.field_offset
            if index == 9 and byte & 0x7E:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, bytes(header[: pos + 1])
                )
            value |= (byte & 0x7F) << 7 * index
            if byte >= 0x80:
                if index + 1 == layout.field_width:
                    raise _error_texts.varint_too_long(
                        layout.field_width, self._stream_offset, bytes(header[: pos + 1])
                    )
            elif not byte and index:
                raise _error_texts.varint_not_shortest(
                    self._stream_offset, bytes(header[: pos + 1])
                )
            else:
                return pos + 1, value
        return None

    def _judge_text(self, header: bytearray) -> tuple[int, int] | None:
        layout = self._layout
        pos = layout.field_offset
        # A sign is a digit's place taken by nothing but the special values below 0.
        negative = len(header) > pos and header[pos] == 0x2D and min(layout.specials, default=0) < 0
        pos = first_pos = pos + negative
        value = 0
        while pos < len(header):
            digit = _digit(header[pos], layout.base)
            if digit < 0:
                break
            if (pos > first_pos and not value) or (negative and not digit and not value):
                raise _error_texts.leading_zero(self._stream_offset, bytes(header[: pos + 1]))
            value = value * layout.base + digit
            if value > MAX_VALUE:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, bytes(header[: pos + 1])
                )
            pos += 1
        else:
            return None
        if pos == first_pos and header[pos] == layout.end[0]:
            raise _error_texts.no_digits(pos, self._stream_offset, bytes(header[: pos + 1]))
        right = _common_size(header[pos:], layout.end)
        if right == len(layout.end):
            return pos + right, -value if negative else value
        if pos + right == len(header):
            return None
        pos += right
        raise _error_texts.not_a_digit(
            layout.base, layout.end, pos, self._stream_offset, bytes(header[: pos + 1])
        )

    def _settle_rest_size(self, value: int, lead_size: int) -> int:
        """The size of the rest; raises or begins to skip where the frame may not be."""
        layout, offset = self._layout, self._stream_offset
        header = bytes(self._header)
        rest_size = value + self._adjustment
        if rest_size < 0 and value >= 0 and layout.counts_frame:
            least = len(header) + len(self._trailer)
            raise _error_texts.smaller_than_frame(value, least, offset, header)
        if rest_size < 0 or value < 0:
            raise _error_texts.negative_length(value, self._adjustment, offset, header)
        if lead_size + rest_size > layout.message_max:
            if not self._skip:
                raise _error_texts.declared_too_large(
                    lead_size + rest_size, layout.message_max, offset, header
                )
            self._skipping = True
        return rest_size

    def _read_rest(self, data: bytes, pos: int) -> int:
        """Keeps what the chunk holds of the rest; discards it where the frame is skipped."""
        if self._phase != _IN_REST:
            return pos
        taken = min(len(data) - pos, self._rest_left)
        stop, pending, rest_left = pos + taken, self._pending + taken, self._rest_left - taken
        if taken and not self._skipping:
            piece = data[pos:stop]
            if taken < _PIECE_SIZE and len(self._piece) < _SLICE_SIZE:
                self._piece += piece  # gathered, so that small ones do not cost an object each
            else:
                large = taken >= _PIECE_SIZE
                pieces = (bytes(self._piece), piece) if large else (bytes(self._piece),)
                gathered = bytearray() if large else bytearray(piece)
                self._pieces += pieces
                self._piece = gathered
        self._pending = pending
        self._rest_left = rest_left
        if not rest_left:
            self._phase = _IN_TRAILER
        return stop

    def _read_trailer(self, data: bytes, pos: int, messages: list[Any]) -> int:
        """Matches the trailer byte for byte; the message is delivered when it is whole."""
        if self._phase != _IN_TRAILER:
            return pos
        trailer = self._trailer
        found = data[pos : pos + len(trailer) - self._trailer_pos]
        right = _common_size(found, trailer[self._trailer_pos :])
        pos, trailer_pos, pending = pos + right, self._trailer_pos + right, self._pending + right
        self._trailer_pos, self._pending = trailer_pos, pending
        if right < len(found):
            raise _error_texts.wrong_trailer(
                trailer,
                trailer[: self._trailer_pos] + found[right : right + 1],
                self._stream_offset,
                bytes(self._header),
            )
        if self._trailer_pos == len(trailer):
            self._deliver(messages)
        return pos

    def _deliver(self, messages: list[Any]) -> None:
        """Makes the message, once, from its pieces."""
        if self._spans is not None:
            start, stop = self._stream_offset, self._stream_offset + self._pending
            if not self._raw:
                start += len(self._header)
                stop -= len(self._trailer)
            self._spans.add(start, stop)
            self._end_frame(messages, ())
        elif self._skipping:
            self._end_frame(messages, (), skipped=1)
        else:
            trailer = self._trailer if self._raw else b""
            self._end_frame(messages, (b"".join([*self._pieces, self._piece, trailer]),))

    def _end_frame(self, messages: list[Any], delivered: tuple[Any, ...], skipped: int = 0) -> None:
        """Delivers a frame's message, if it has one, and makes ready for the next frame."""
        offset, skipped = self._stream_offset + self._pending, self._skipped + skipped
        header, piece = bytearray(), bytearray()
        pieces: list[bytes] = []
        # A signal handler that raises can run at a call and at its return. No call from here on,
        # so that no message is delivered and also kept.
        messages += delivered
        self._stream_offset = offset
        self._skipped = skipped
        self._header = header
        self._piece = piece
        self._pieces = pieces
        self._phase = _IN_HEADER
        self._pending = 0
        self._line_pos = 0
        self._parsed = -1
        self._skipping = False
        self._pending_lead = 0
        self._trailer_pos = 0

    # --- errors -----------------------------------------------------------------------------------

    def _fail(
        self, error: BaseException, chunk: bytes | memoryview, taken: int, pos: int = 0
    ) -> None:
        """Makes the error stick, and keeps what arrived for detach().

        Of the chunk, `taken` bytes were taken; a negative count is that of bytes before the chunk
        that were not. Those are in `_looked_ahead`, which ends at `pos` in the chunk.
        """
        self._error, self._lost = error, True
        self._pending += len(chunk) - taken
        if self._keeps_bytes():
            if taken >= 0:
                self._not_taken = bytes(chunk[taken:]) if chunk else b""
            else:
                stop = len(self._looked_ahead) - pos
                self._not_taken = self._looked_ahead[stop + taken : stop] + chunk
        self._looked_ahead = b""
        self._lost = False

    def _keeps_bytes(self) -> bool:
        return not self._skipping and self._spans is None

    def _unfinished(self) -> bytes:
        """The pending frame's bytes, as they travelled, and after an error all that follow them."""
        if not self._keeps_bytes():
            return b""
        if self._lost:
            raise _error_texts.unfinished_lost()
        parts: list[Any] = [*self._pieces, self._piece]
        if not self._raw or self._phase == _IN_HEADER:
            parts[0] = memoryview(parts[0])[self._pending_lead :]
            parts.insert(0, self._header)
        return b"".join([*parts, self._trailer[: self._trailer_pos], self._not_taken])

    def _longest_header(self) -> int:
        layout = self._layout
        if layout.kind == VARINT:
            return layout.field_offset + layout.field_width
        if layout.kind == TEXT:  # a sign, digits up to the one that is too many, the end mark
            return layout.field_offset + 1 + 21 + len(layout.end)
        return len(layout.magic) + layout.max_header


@final
class Spans(Sequence[memoryview]):
    """Where the frames of a buffer lie: a sequence of `memoryview`\\ s that are made on demand.

    It also exports its positions, an ``(n, 2)`` buffer of int64 (start, stop), so that
    ``numpy.asarray(spans)`` copies nothing. (The Python engine needs Python 3.12 for
    ``memoryview(spans)``; numpy understands it everywhere.)
    """

    __slots__ = ("__weakref__", "_consumed", "_growing", "_positions", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._positions = array.array("q")
        self._consumed = 0
        self._growing = False  # while scan() adds to it

    def add(self, start: int, stop: int) -> None:
        self._positions.append(start)
        self._positions.append(stop)

    @property
    def consumed(self) -> int:
        """Bytes of the whole frames; what follows is unfinished or bad."""
        return self._consumed

    def __len__(self) -> int:
        return len(self._positions) // 2

    @overload
    def __getitem__(self, index: SupportsIndex) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> list[memoryview]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> memoryview | list[memoryview]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        pos = operator.index(index)
        if pos < 0:
            pos += len(self)
        if not 0 <= pos < len(self):
            raise _error_texts.no_such_span(len(self))
        return self._view[self._positions[2 * pos] : self._positions[2 * pos + 1]]

    def __repr__(self) -> str:
        return f"<Spans of {len(self)} frames, {self._consumed} bytes>"

    def __reduce__(self) -> NoReturn:
        raise _error_texts.spans_not_copied()

    def __buffer__(self, flags: int) -> memoryview:
        if self._growing:
            raise _error_texts.spans_growing()
        if not len(self):  # cast() makes no view of nothing, a slice does
            return memoryview(bytes(16)).cast("q", (1, 2))[:0]
        return memoryview(self._positions).toreadonly().cast("B").cast("q", (len(self), 2))

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if self._growing:
            raise _error_texts.spans_growing()
        order = "<" if sys.byteorder == "little" else ">"
        return {
            "version": 3,
            "shape": (len(self), 2),
            "typestr": f"{order}i8",
            "data": memoryview(self._positions).toreadonly(),
        }


def scan(codec: HasLayout, data: Buffer, *, raw: bool = False) -> Spans:
    """Every whole frame at the front of a buffer, without making a message; see `Codec.scan`."""
    layout = _layout_of(codec)
    if not raw and layout.lead_size:
        raise _error_texts.scan_with_lead()
    view = view_bytes(data)
    splitter = Splitter(codec, raw=raw)
    splitter._spans = spans = Spans(view)
    spans._growing = True
    splitter._unpack = None
    splitter._busy = True  # a user's parse() that finds it cannot feed it
    try:
        for pos in range(0, len(view), _SLICE_SIZE):
            splitter._consume(bytes(view[pos : pos + _SLICE_SIZE]), [])
    except BaseException as error:
        if not spans or not isinstance(error, errors.FrameError):
            if isinstance(error, errors.FrameError):
                _error_texts.add_likely_cause(error, layout)
            view.release()  # the traceback would hold it
            raise
    spans._consumed = splitter.stream_offset
    spans._growing = False
    return spans


@final
class Encoder:
    """The way out: messages in, frames out. It has no state; one serves every connection.

    Args:
        codec: The shape of the frames.

    Raises:
        TypeError: `codec` is not a `Codec`.
    """

    __slots__ = ("_bytes_are_special", "_layout", "_message_max", "_pack", "_special_values")

    def __init__(self, codec: HasLayout) -> None:
        self._layout = layout = _layout_of(codec)
        self._message_max = layout.message_max
        self._special_values = layout.special_values
        self._bytes_are_special = layout.bytes_are_special
        self._pack = _packer(layout)

    def encode(self, message: object, /) -> bytes:
        """One frame.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            MessageTooLargeError: The message is larger than ``max_message_size`` or than the length
                field can say.
            InvalidFrameError: The message is shorter than its lead, or its length cannot be said.
            TypeError, BufferError: `message` is not a contiguous bytes-like object.
        """
        if self._pack is not None and type(message) is bytes and len(message) <= self._message_max:
            return self._pack(len(message)) + message
        return b"".join(self.frame_parts(message))

    def encode_many(self, messages: Iterable[object], /) -> bytes:
        """The frames of many messages, one after the other, in one allocation.

        Raises:
            As `encode`; then nothing is returned of any message.
        """
        batch = list(messages)
        frames = self._encode_batch(batch, self._message_max)
        return self._encode_many_carefully(batch) if frames is None else frames

    def encode_small(self, messages: list[Any], largest: int, /) -> bytes | None:
        """`encode_many` of `bytes` of at most so many bytes each; None where some are not."""
        # A copy, because the user's code and other threads may change the list.
        batch = messages.copy()
        frames = self._encode_batch(batch, largest)
        if frames is None and _are_small(batch, largest):
            return self._encode_many_carefully(batch)
        return frames

    def _encode_batch(self, batch: list[Any], largest: int) -> bytes | None:
        """The frames of ordinary messages of the commonest shape; None leaves them to
        `frame_parts`."""
        pack = self._pack
        if pack is None or not _are_small(batch, min(largest, self._message_max)):
            return None
        return b"".join(chain.from_iterable(zip(map(pack, map(len, batch)), batch, strict=True)))

    def _encode_many_carefully(self, messages: list[Any]) -> bytes:
        parts: list[Any] = []
        try:
            for message in messages:
                parts += self.frame_parts(message)
            return b"".join(parts)
        except BaseException:
            parts.clear()  # the traceback would hold them
            raise

    def frame_parts(self, message: object, /) -> list[Buffer]:
        """Buffers whose concatenation is the frame, for ``sendmsg`` or ``writelines``.

        The message is not copied and none of the buffers is empty.

        Raises:
            As `encode`.
        """
        layout = self._layout
        if self._special_values and (self._bytes_are_special or type(message) is not bytes):
            special = self._special_value(message)
            if special is not None:
                return [layout.magic + self._field(special)]
        data: Any = message if type(message) is bytes else view_bytes(message)
        size = len(data)
        try:
            if layout.kind == CUSTOM:
                self._check_size(size)
                header, carried = build_header(layout, memoryview(data))
            else:
                carried = layout.lead_size
                value = self._settle_value(size)
                header = layout.magic + bytes(data[:carried]) + self._field(value)
        except BaseException:
            if data is not message:
                data.release()  # the traceback would hold it
            raise
        parts: list[Any] = [header]
        if carried < size:
            parts.append(data if not carried else memoryview(data)[carried:])
        if layout.trailer:
            parts.append(layout.trailer)
        return parts

    def _special_value(self, message: Hashable) -> int | None:
        try:
            return self._special_values.get(message)
        except (TypeError, ValueError):  # no usable hash: special only as the bytes that it has
            if not self._bytes_are_special:
                return None
            return self._special_values.get(bytes(view_bytes(message)))

    def _check_size(self, size: int) -> None:
        if size > self._message_max:
            layout = self._layout
            by_limit = self._message_max >= layout.max_message_size
            raise _error_texts.message_too_large(
                size, self._message_max, "max_message_size" if by_limit else "length field"
            )

    def _settle_value(self, size: int) -> int:
        """The field's value for a message of so many bytes."""
        layout = self._layout
        if size < layout.lead_size:
            raise _error_texts.shorter_than_lead(size, layout.lead_size)
        self._check_size(size)
        rest_size = size - layout.lead_size
        value = rest_size - layout.adjustment
        if value < 0:
            raise _error_texts.unsayable_length(value, rest_size)
        if value in layout.specials:
            raise _error_texts.length_is_special(value, layout.specials[value])
        return value

    def _field(self, value: int) -> bytes:
        """The length field of a value."""
        layout = self._layout
        if layout.kind == UINT:
            return value.to_bytes(layout.field_width, layout.byteorder, signed=layout.signed)
        if layout.kind == VARINT:
            field = bytearray()
            while value > 0x7F:
                field.append(value & 0x7F | 0x80)
                value >>= 7
            field.append(value)
            return bytes(field)
        digits = f"{value:x}" if layout.base == 16 else str(value)
        if layout.kind == DIGITS:
            return digits.zfill(layout.field_width).encode()
        if layout.kind == TEXT:
            return digits.encode() + layout.end
        return f"{layout.name}: {value}\r\n\r\n".encode()


# --- numbers --------------------------------------------------------------------------------------


# A length field that is whole and plainly right: its value and the position after it. None leaves
# everything else, errors too, to _judge_header.


def _try_uint(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    stop = pos + layout.field_width
    if stop > len(data):
        return None
    return int.from_bytes(data[pos:stop], layout.byteorder), stop


def _try_digits(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    stop = pos + layout.field_width
    value = _to_int(data[pos:stop], layout.base) if stop <= len(data) else None
    return None if value is None else (value, stop)


def _try_varint(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    value = 0
    for index, byte in enumerate(data[pos : pos + layout.field_width]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return None if not byte and index else (value, pos + index + 1)
    return None


def _try_text(layout: Layout, data: bytes, pos: int) -> tuple[int, int] | None:
    end = layout.end
    stop = data.find(end, pos, pos + 20 + len(end))
    if stop < 0 or (data[pos] == 0x30 and stop > pos + 1):
        return None
    value = _to_int(data[pos:stop], layout.base)
    return None if value is None else (value, stop + len(end))


def _try_nothing(layout: Layout, data: bytes, pos: int) -> None:
    return None


_TRY_LENGTH: dict[int, Callable[[Layout, bytes, int], tuple[int, int] | None]] = {
    UINT: _try_uint,
    DIGITS: _try_digits,
    VARINT: _try_varint,
    TEXT: _try_text,
    HEADERS: _try_nothing,
    CUSTOM: _try_nothing,
}


_STRUCT_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _struct_format(layout: Layout) -> str:
    return ("<" if layout.little else ">") + _STRUCT_FORMATS[layout.field_width]


def _unpacker(layout: Layout) -> Callable[[bytes, int], tuple[int]] | None:
    """`struct` reads the commonest fields fastest; a negative value reads as one over any limit."""
    if layout.kind != UINT or layout.field_width not in _STRUCT_FORMATS:
        return None
    return struct.Struct(_struct_format(layout)).unpack_from


def _packer(layout: Layout) -> Callable[[int], bytes] | None:
    """Makes the header of the commonest shape: a length, a rest, nothing else to look at."""
    if (
        layout.kind != UINT
        or layout.field_width not in _STRUCT_FORMATS
        or layout.field_offset
        or layout.adjustment
        or layout.trailer
        or layout.specials
    ):
        return None
    return struct.Struct(_struct_format(layout)).pack


def _are_small(messages: list[Any], largest: int) -> bool:
    """Whether all are `bytes` of at most so many bytes."""
    if not set(map(type, messages)) <= {bytes}:
        return False
    return max(map(len, messages), default=0) <= largest


def _to_int(digits: bytes, base: int) -> int | None:
    # int() alone would also read signs, spaces and underscores.
    if base == 10:
        return int(digits) if digits.isdigit() else None
    return int(digits, 16) if digits and not digits.strip(_HEXADECIMAL) else None


def _digit(byte: int, base: int) -> int:
    """The digit's value, or -1."""
    digits = _DECIMAL if base == 10 else _HEXADECIMAL
    found = digits.find(byte)
    return found if found < 16 else found - 6


def _common_size(data: bytes | bytearray, wanted: bytes) -> int:
    """How many first bytes are the same."""
    size = min(len(data), len(wanted))
    return next((pos for pos in range(size) if data[pos] != wanted[pos]), size)
