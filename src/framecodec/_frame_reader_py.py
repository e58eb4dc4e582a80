"""The reader of a stream in Python: takes chunks, holds the pending frame, delivers messages.

It is the part of `Splitter` (`_splitter_py.py`) that parses. `_splitter.pyx` has both parts in one
class, under the same names and in the same order: change both in the same commit.

What a splitter must do
    Take the bytes of one connection in any chunks and return its messages. The messages, the error
    and its offset do not depend on the chunks; memory follows from the bytes that arrived and not
    from a declared length; a byte costs the same however much is pending.

How
    Most frames are ordinary and whole in the chunk. The fast path, `_read_whole_frames`, takes
    those only: it stops before the first frame that is cut off, special, too large or wrong in any
    way. The slow path reads that frame part by part, in `_read_header`, `_read_rest` and
    `_read_trailer`, which can stop and resume at any byte and raise all errors. Then the fast path
    continues.

    =========  =====================================================================
    phase      what the splitter holds of the pending frame
    =========  =====================================================================
    header     `_header`: its bytes so far, maybe none
    rest       `_header` whole; `_pieces`, `_piece`: the message so far. Of an ordinary
               frame that a chunk cut off, `_header` is empty; they begin with the header
    trailer    `_header` and message whole; `_trailer_pos` bytes of a check and the trailer
    padding    `_header` whole, the message delivered; `_padding`: the padding so far
    =========  =====================================================================

    `_stream_offset + _pending` is always the position in the stream up to which bytes were taken:
    after an error, the bytes from there on were not.
"""

from __future__ import annotations

from typing import Any

from . import _error_texts
from ._check_bytes import check_start, has_right_check
from ._checked_reader_py import matched_trailer, read_check, verify_check_of
from ._checksums_py import update_checksum
from ._chosen_frames_py import choose_layout, read_chosen_frames, unchoose, with_names
from ._custom_header import read_header
from ._fields_py import (
    PARSE_FIELD,
    check_constants,
    check_lead_constants,
    check_magic,
    check_rest_size,
    common_size,
    skip_frames,
)
from ._gaps_py import note_gap
from ._header_block import read_block
from ._joined_reader_py import (
    begin_fragment,
    check_fragment_size,
    end_fragment,
    heads_of,
    read_single_fragments,
    unfinished_fragments,
)
from ._layout import CHOICE, CUSTOM, HEADERS, Layout
from ._likely_causes import SAMPLE_SIZE
from ._marked_reader_py import begin_marked, consume_marked
from ._plain_reader_py import (
    IN_HEADER,
    IN_PADDING,
    IN_REST,
    IN_TRAILER,
    PIECE_SIZE,
    SLICE_SIZE,
    Numbers,
    PlainReader,
    numbers_for,
)
from ._quick_frames_py import read_quick_frames
from ._spans_py import Spans

__all__ = [
    "IN_HEADER",
    "IN_PADDING",
    "IN_REST",
    "IN_TRAILER",
    "PIECE_SIZE",
    "SLICE_SIZE",
    "FrameReader",
    "describe_pending",
    "header_of",
]

# A longer header is gathered by steps: this many bytes, then as many again as there are.
_FIRST_HEADER_STEP = 256

# Smaller pieces than this are merged after every SLICE_SIZE bytes of a frame.
_LARGE_PIECE_SIZE = 16 * 1024


class FrameReader(PlainReader):
    """The parsing part of a splitter, without its public interface."""

    __slots__ = (
        "_choice",
        "_choice_layout",
        "_content",
        "_end",
        "_followed",
        "_fragments",
        "_header_limit",
        "_headers",
        "_heads",
        "_lead_size",
        "_line_pos",
        "_magic",
        "_next_content",
        "_own_size",
        "_padding",
        "_parsed",
        "_pending_lead",
        "_raw",
        "_read_field",
        "_skip",
        "_skipped",
        "_spans",
        "_surplus_bytes",
        "_tag",
        "_trailer",
        "_trailer_pos",
        "_unpack",
        "_wants_headers",
    )

    def __init__(
        self, layout: Layout, raw: bool, skip: bool, stream_offset: int, keep_headers: bool
    ) -> None:
        super().__init__()
        self._raw, self._skip = raw, skip
        self._wants_headers = keep_headers and not raw
        self._use_layout(numbers_for(layout, raw, self._wants_headers))

        # The pending frame.
        self._phase = IN_HEADER
        self._stream_offset = stream_offset  # of its first byte
        self._pending = 0  # bytes of it that were taken
        self._header = bytearray()  # its header, as far as it was taken
        self._line_pos = 0  # HEADERS: where the first line that was not parsed begins
        self._parsed = -1  # HEADERS: the length in the lines parsed, or -1
        self._found = None  # the parsed header
        self._own_size = 0  # bytes of the header that are before the rest
        self._whole_size = 0  # past the header: bytes of the whole frame
        self._pending_lead = 0  # past the header: bytes of the message that came with it
        self._rest_end = 0  # past the header: bytes of the frame up to the end of its rest
        # In the rest: the number of pending bytes up to which chunks are only gathered.
        self._gather_end = 0
        self._skipping = False  # past the header: the frame is oversized and being discarded
        self._pieces = []  # the message (raw: the frame) so far, up to ...
        self._piece = bytearray()  # ... its last, small pieces
        self._trailer_pos = 0  # bytes of a check at the end and of the trailer that matched
        self._end = b""  # ... those of the check
        self._padding_size = 0  # past the header: bytes of the padding
        self._padding = b""  # after the message: bytes that align the next frame

        # Joined frames.
        self._fragments = 0  # of the pending message that are finished, ...
        self._heads = bytearray()  # ... their heads, ...
        self._content = 0  # ... and the bytes of their contents
        self._followed = False  # past the header: another fragment follows
        self._next_content = 0  # past the header: the bytes of its content, and of those before

        self._skipped = 0  # oversized frames discarded
        self._spans: Spans | None = None  # scanning: where the frames lie, instead of messages
        # CUSTOM: bytes of earlier chunks that parse() saw and that follow the header; they are read
        # before the chunk, which they end at.
        self._surplus_bytes = b""
        self._counting = False  # the stream offset is that of frames before those delivered

    def _use_layout(self, numbers: Numbers) -> None:
        """Read frames of another layout from now on."""
        (
            self._layout,
            self._header_limit,
            self._magic,
            self._trailer,
            self._lead_size,
            self._header_size,
            self._adjustment,
            self._quick_low,
            self._quick_high,
            self._read_field,
            self._unpack,
            self._quick,
            self._stops,
            self._headers,
            self._choice,
            self._choice_layout,
            self._tag,
        ) = numbers

    def _consume(self, data: bytes, messages: list[Any], pos: int = 0) -> None:
        if self._layout.marks:
            pos = consume_marked(self, data, messages, pos)
        while pos < len(data):
            if self._unpack is not None:
                pos = self._read_plain_frames(data, pos, messages, self._unpack)
            elif self._quick is not None:
                pos = read_quick_frames(self, data, pos, messages, self._quick)
            elif not self._pending:
                if self._layout.joined is not None:
                    pos = read_single_fragments(self, data, pos, messages, self._layout)
                elif self._choice is not None:
                    pos = read_chosen_frames(self, data, pos, messages, self._choice)
                else:
                    pos = self._read_whole_frames(data, pos, messages)
            if pos == len(data):
                break
            pos = self._read_header(data, pos, messages)
            if self._layout.marks:  # a choice has chosen such a frame
                pos = consume_marked(self, data, messages, pos)
                continue
            pos = self._read_rest(data, pos)
            pos = self._read_trailer(data, pos, messages)
            if self._phase == IN_PADDING:
                pos = self._read_padding(data, pos, messages)

    # --- the fast path: ordinary frames that are whole in the chunk -------------------------------

    def _read_whole_frames(self, data: bytes, pos: int, messages: list[Any]) -> int:
        """Take ordinary frames of all other shapes."""
        first_pos, size, count = pos, len(data), len(messages)
        low, high, adjustment = self._quick_low, self._quick_high, self._adjustment
        append = messages.append
        self._counting = True
        try:
            magic, trailer, raw = self._magic, self._trailer, self._raw
            scanned = None if self._spans is None else self._spans.add
            keep_header = None if self._headers is None else self._headers.append
            offset = self._stream_offset - first_pos  # of the chunk
            magic_size, lead_size = len(magic), self._lead_size
            tail_size = self._layout.tail_size
            read_field, layout = self._read_field, self._layout
            field_offset = magic_size + lead_size
            unit, kept, prefix_size = layout.unit, layout.kept, layout.prefix_size
            more = bool(layout.constants or layout.check) or layout.align > 1
            if layout.check:
                trailer = b""  # it is compared with the check
            while True:
                found = read_field(layout, data, pos + field_offset)
                if found is None:
                    break
                value, rest_pos = found
                rest_stop = rest_pos + value * unit + adjustment
                stop = rest_stop + tail_size
                if stop > size or value > high or value < low:
                    break
                if more:
                    stop += layout.padding(stop - pos)
                    if stop > size or not layout.has_constants(data, pos):
                        break
                    if layout.check and not has_right_check(
                        layout, data, pos, rest_pos, rest_stop, update_checksum
                    ):
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
                elif keep_header is not None:
                    keep_header(data[pos : max(rest_pos, pos + prefix_size)])
                    append(layout.lead_of(data, pos) + data[rest_pos:rest_stop])
                elif kept:
                    append(layout.lead_of(data, pos) + data[rest_pos:rest_stop])
                elif lead_size:
                    lead_pos = pos + magic_size
                    append(data[lead_pos : lead_pos + lead_size] + data[rest_pos:rest_stop])
                else:
                    append(data[rest_pos:rest_stop])
                pos = stop
        except BaseException:
            pos = skip_frames(self._layout, data, first_pos, len(messages) - count)
            raise
        finally:
            try:
                self._stream_offset += pos - first_pos
            except MemoryError:  # once more: the messages are in the list already
                self._stream_offset += pos - first_pos
            self._counting = False
        return pos

    # --- the slow path: one frame, part by part ---------------------------------------------------

    def _read_header(self, data: bytes, pos: int, messages: list[Any]) -> int:
        """Gather the header and parse it; deliver a special or prepare for a rest."""
        if self._phase != IN_HEADER:
            return pos
        past_magic = len(self._header) >= len(self._magic)
        if self._choice is not None and self._layout.kind == CHOICE:
            chosen = choose_layout(self, data, pos, self._choice)
            if self._layout.marks:
                begin_marked(self, chosen - pos, messages)
                return chosen
            pos = chosen
            if self._layout.kind == CHOICE:
                return pos
            past_magic = False  # what was gathered to choose is not parsed yet
        header = self._header
        step = min(self._header_limit - len(header), max(_FIRST_HEADER_STEP, len(header)))
        piece = data[pos : pos + max(0, step)]
        # Here as below: calls that can fail or be interrupted come first, then counts are stored,
        # so that no byte is counted without being kept or the reverse.
        pending = self._pending + len(piece)
        pos += len(piece)
        header += piece
        self._pending = pending
        in_line = past_magic and self._layout.kind == HEADERS and 10 not in piece
        limit = self._header_limit - self._layout.front_check_size
        if in_line and len(header) < limit and self._found is None:
            return pos  # a line is parsed when its end is in
        surplus = self._end_header(pos, messages)
        if surplus <= pos:
            return pos - surplus
        # parse() looked ahead: read what follows the header in earlier chunks, then this chunk.
        self._take_surplus(messages)
        return 0

    def _take_surplus(self, messages: list[Any]) -> None:
        self._consume(self._surplus_bytes, messages)
        self._surplus_bytes = b""

    def _end_header(self, in_chunk: int, messages: list[Any]) -> int:
        """Act on the header if it is whole; return how many bytes after it were gathered.

        `in_chunk` bytes of the chunk were gathered or read; if more follow the header, the others
        go into `_surplus_bytes`.
        """
        header = self._header
        layout = self._layout
        found = self._found or _parse_header(self, header)
        if found is None:
            limit = self._header_limit - layout.front_check_size
            if len(header) >= limit:
                raise _error_texts.header_too_long(
                    layout.max_header, self._stream_offset, bytes(header[:limit])
                )
            return 0
        self._found = found
        header_size, value, lead = found
        is_special = bool(layout.specials) and layout.is_special(header_size, value)
        rest_size, more_lead = 0, b""
        if not is_special:
            rest_size = _rest_size_of(self, header_size, value, len(lead))
            if layout.front_check_size:
                check_start(layout, header, header_size, self._stream_offset)
                header_size += layout.front_check_size
                if len(header) < header_size:
                    return 0
            self._own_size = header_size
            if layout.prefix_size:
                more_lead = check_constants(layout, header, header_size, self._stream_offset)
                if header_size + len(more_lead) < layout.prefix_size:
                    return 0
                header_size += len(more_lead)
        surplus = self._drop_surplus(header_size, in_chunk)
        header = self._header
        if is_special:
            special = layout.specials[value]
            delivered: tuple[Any, ...] = ()
            if self._spans is None:
                delivered = (bytes(header) if self._raw else special,)
            elif self._raw:
                self._spans.add(self._stream_offset, self._stream_offset + header_size)
            else:
                raise _error_texts.scan_of_special(special, self._stream_offset)
            self._end_frame(messages, with_names(self, delivered))
            return surplus
        if self._spans is not None:
            if lead and not self._raw:
                raise _error_texts.scan_with_lead()
            self._skipping = True  # its bytes are not needed, as those of a skipped frame
        rest_size -= len(more_lead)
        lead += more_lead
        if layout.own_bits:
            lead = layout.without_own_bits(lead)
        if layout.joined is not None:
            lead = begin_fragment(self, lead, rest_size)
        rest_end = self._pending + rest_size
        whole_size = rest_end + layout.tail_size
        padding_size = layout.padding(whole_size) if layout.align > 1 else 0
        whole_size += padding_size
        lead_size = len(lead)
        if not self._skipping:
            self._piece += header if self._raw else lead
            self._pending_lead = lead_size or self._pending_lead
        self._whole_size = whole_size
        self._padding_size = padding_size
        self._rest_end = rest_end
        self._phase = IN_REST
        return surplus

    def _drop_surplus(self, header_size: int, in_chunk: int) -> int:
        """Drop the gathered bytes that follow a header of varying size; return their number."""
        header = self._header
        surplus = len(header) - header_size
        if surplus:
            pending = self._pending - surplus
            looked_ahead = bytes(header[header_size : max(header_size, len(header) - in_chunk)])
            kept = header[:header_size]
            self._header, self._surplus_bytes, self._pending = kept, looked_ahead, pending
        return surplus

    def _read_rest(self, data: bytes, pos: int) -> int:
        """Keep the chunk's bytes of the rest, or discard them if the frame is skipped."""
        if self._phase != IN_REST:
            return pos
        taken = min(len(data) - pos, self._rest_end - self._pending)
        stop, pending = pos + taken, self._pending + taken
        if taken and not self._skipping:
            piece = data[pos:stop]
            if taken < PIECE_SIZE:
                self._piece += piece
            else:
                pieces = (bytes(self._piece), piece) if self._piece else (piece,)
                gathered = bytearray()
                self._pieces += pieces
                self._piece = gathered
        merges = pending // SLICE_SIZE > self._pending // SLICE_SIZE and not self._skipping
        self._pending = pending
        if merges:
            self._merge_pieces()
        if pending == self._rest_end:
            self._phase = IN_TRAILER
            if self._layout.front_check_size:
                verify_check_of(self, bytes(self._header[: self._own_size]))
        return stop

    def _merge_pieces(self) -> None:
        """Make one of the last small pieces, so that a large message has few objects."""
        pieces, first = self._pieces, len(self._pieces)
        while first and len(pieces[first - 1]) < _LARGE_PIECE_SIZE:
            first -= 1
        merged, piece = (b"".join((*pieces[first:], self._piece)),), bytearray()
        # No call in between.
        pieces[first:] = merged
        self._piece = piece

    def _read_trailer(self, data: bytes, pos: int, messages: list[Any]) -> int:
        """Compare the trailer byte by byte; deliver the message if it is whole."""
        if self._phase != IN_TRAILER:
            return pos
        end_check_size = self._layout.end_check_size
        if self._trailer_pos < end_check_size:
            pos = read_check(self, data, pos)
            if self._trailer_pos < end_check_size:
                return pos
        trailer, matched = self._trailer, self._trailer_pos - end_check_size
        found = data[pos : pos + len(trailer) - matched]
        right = common_size(found, trailer[matched:])
        pos, trailer_pos, pending = pos + right, self._trailer_pos + right, self._pending + right
        self._trailer_pos, self._pending = trailer_pos, pending
        if right < len(found):
            raise _error_texts.wrong_trailer(
                trailer,
                trailer[: matched + right] + found[right : right + 1],
                self._stream_offset,
                bytes(self._header),
            )
        if self._trailer_pos == self._layout.tail_size:
            self._deliver(messages)
        return pos

    def _read_padding(self, data: bytes, pos: int, messages: list[Any]) -> int:
        """Take the padding; a message is delivered before it, a raw frame with it."""
        taken = min(len(data) - pos, self._whole_size - self._pending)
        stop, pending = pos + taken, self._pending + taken
        padding = self._padding + data[pos:stop]
        self._padding, self._pending = padding, pending
        if pending == self._whole_size:
            if self._raw or self._spans is not None:
                self._deliver(messages)
            else:
                self._end_frame(messages, ())
        return stop

    def _deliver(self, messages: list[Any]) -> None:
        """Make the message, once, from its pieces."""
        padding = self._whole_size - self._pending
        if self._followed:
            end_fragment(self)
        elif padding and (self._raw or self._spans is not None):
            self._phase = IN_PADDING
        elif self._spans is not None:
            start, stop = self._stream_offset, self._stream_offset + self._pending
            if not self._raw:
                start += self._own_size
                stop -= self._layout.tail_size + len(self._padding)
            self._spans.add(start, stop)
            self._end_frame(messages, ())
        elif self._skipping:
            note_gap(self, self._stream_offset, self._stream_offset + self._whole_size)
            self._end_frame(messages, (), skipped=1)
        else:
            end = (self._end + self._trailer + self._padding) if self._raw else b""
            message = b"".join([*self._pieces, self._piece, end])
            self._end_frame(messages, with_names(self, (message,)))

    def _end_frame(self, messages: list[Any], delivered: tuple[Any, ...], skipped: int = 0) -> None:
        """Deliver a frame's message, if it has one, and prepare for the next frame."""
        offset, skipped = self._stream_offset + self._pending, self._skipped + skipped
        header, piece = bytearray(), bytearray()
        pieces: list[bytes] = []
        headers: list[bytes] = []
        kept: tuple[bytes, ...] = ()
        if self._headers is not None:
            headers = self._headers
            if delivered:
                kept = (heads_of(self) + bytes(self._header),)
        # A signal handler that raises can run at a call and at its return. No call from here on,
        # so that no message is delivered and also kept.
        headers += kept
        messages += delivered
        self._skipped = skipped
        if self._phase == IN_TRAILER and self._pending < self._whole_size:
            self._piece = piece
            self._pieces = pieces
            self._phase = IN_PADDING
            return
        self._stream_offset = offset
        self._header = header
        self._piece = piece
        self._pieces = pieces
        self._phase = IN_HEADER
        self._pending = 0
        self._line_pos = 0
        self._parsed = -1
        self._found = None
        self._skipping = False
        self._pending_lead = 0
        self._trailer_pos = 0
        self._end = b""
        self._padding = b""
        if self._fragments:
            self._fragments = self._content = 0
        if self._choice is not None:
            unchoose(self)


def _parse_header(reader: FrameReader, header: bytearray) -> tuple[int, int, bytes] | None:
    """Return header size, field value and lead, or None if more bytes are needed.

    Every byte is checked in the order of arrival, and the first wrong one raises, so that the
    error does not depend on the chunks.
    """
    layout, offset = reader._layout, reader._stream_offset
    magic = layout.magic
    check_magic(layout, header, offset)
    if len(header) < len(magic):
        return None
    if layout.constants:
        check_lead_constants(layout, header, offset)
    if layout.front_check_size and layout.kind in (HEADERS, CUSTOM):
        header = header[: reader._header_limit - layout.front_check_size]
    if layout.kind == HEADERS:
        reader._line_pos, reader._parsed, lead = read_block(
            layout, header, reader._line_pos, reader._parsed, offset
        )
        return None if lead is None else (reader._line_pos, reader._parsed, lead)
    if layout.kind == CUSTOM:
        return read_header(layout, bytes(header), offset) if len(header) > len(magic) else None

    found = PARSE_FIELD[layout.kind](layout, header, offset)
    if found is None:
        return None
    header_size, value = found
    if layout.kept:
        return header_size, value, layout.lead_of(header, 0)
    return header_size, value, bytes(header[len(magic) : layout.field_offset])


def _rest_size_of(reader: FrameReader, header_size: int, value: int, lead_size: int) -> int:
    """Return the size of the rest; raise or begin to skip if the frame is not allowed."""
    layout = reader._layout
    if layout.joined is not None:
        return check_fragment_size(reader, header_size, value)
    size = value * layout.unit + layout.adjustment
    if layout.rest_min <= size <= layout.rest_max and lead_size == layout.message_lead:
        return size
    header, offset = bytes(reader._header[:header_size]), reader._stream_offset
    size = check_rest_size(layout, header, value, lead_size, offset)
    if lead_size + size > layout.message_max:
        if not reader._skip:
            raise _error_texts.declared_too_large(
                lead_size + size, layout.message_max, offset, header
            )
        reader._skipping = True
    return size


def header_of(reader: FrameReader) -> bytes:
    """Return the header of the pending frame, as far as it arrived."""
    header, pieces = bytes(reader._header), reader._pieces
    if not header and pieces and reader._unpack is not None:
        return pieces[0][: reader._header_size]
    if not header and pieces and reader._quick is not None:
        return pieces[0][: reader._own_size]
    return header


def describe_pending(reader: FrameReader) -> _error_texts.PendingFrame:
    """Describe the pending frame, for the text of an error about what is missing of it."""
    where, needed = "header", None
    in_padding = reader._phase == IN_PADDING  # also after a switch to any codec
    header = header_of(reader)
    sample = [bytes(reader._header)]
    if reader._phase != IN_HEADER:
        where = "rest" if reader._phase == IN_REST else "trailer"
        is_open = bool(reader._layout.marks) or reader._followed
        needed = None if is_open and not in_padding else reader._whole_size
        if not reader._skipping and not in_padding:
            if reader._raw:  # the message begins with the header
                sample.clear()
            lead_size, left = 0 if reader._raw else reader._pending_lead, SAMPLE_SIZE
            for piece in (*reader._pieces, reader._piece):
                if left > 0:
                    sample.append(bytes(piece[lead_size : lead_size + left]))
                    left -= len(sample[-1])
                lead_size = 0
            sample += [reader._end, matched_trailer(reader)]
    if reader._fragments and not reader._skipping:
        sample = [b"".join(unfinished_fragments(reader))]
    if not reader._skipping:
        sample.append(reader._tail)
    if reader._layout.marks and not reader._layout.magic and not in_padding:
        where = "rest"
    return _error_texts.PendingFrame(
        reader._layout,
        where,
        reader._pending,
        needed,
        reader._stream_offset,
        header,
        b"".join(sample)[:SAMPLE_SIZE],
    )
