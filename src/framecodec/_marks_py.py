"""End marks, escapes and byte stuffing in Python: how they are found, written and removed.

The compiled engine has the same in `_marks.pxd`. A frame's content is read as a row of tokens: an
end mark, an escape, or else one byte that means itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from . import _mark_texts
from ._layout import COBS, Layout

__all__ = [
    "MarkSearch",
    "MarkedState",
    "Stops",
    "check_message",
    "find_content",
    "has_one_of",
    "mark_search_of",
    "stops_of",
    "stuff",
    "unstuff",
]


# Bytes are numbers where `in` looks for them: it looks for others after an error that it drops.
Stops: TypeAlias = "tuple[()] | tuple[int, int | None, tuple[int, ...]]"


class MarkSearch:
    """What finds a layout's tokens; made once for each layout."""

    __slots__ = (
        "_anchor",
        "_byte_after",
        "_forbidden",
        "_sequence_of",
        "_sequences",
        "_to_escape",
        "_token",
        "begins_short",
        "begun",
        "changing",
        "cut_at",
        "endings",
        "escape_byte",
        "escape_code",
        "extensions",
        "find",
        "longest",
        "marks",
        "split_at",
        "splits_messages",
        "stops",
        "tokens",
        "unescaped",
    )

    def __init__(self, layout: Layout) -> None:
        marks = sorted(layout.marks, key=len)
        sequences = [sequence for _, sequence in layout.escape]
        self.marks = frozenset(marks)
        self.tokens = (*marks, *sequences)
        self.longest = max(map(len, self.tokens))
        # What a token begins with, where the chunk's end cuts it off.
        self.begun = tuple({token[:size] for token in self.tokens for size in range(1, len(token))})
        self.escape_code = sequences[0][0] if sequences else None
        self.begins_short = all(len(begun) == 1 for begun in self.begun)
        self.escape_byte = sequences[0][:1] if sequences else b""
        self.unescaped = {sequence: bytes([byte]) for byte, sequence in layout.escape}
        # What longer marks have after a mark that they begin with, shortest first.
        self.extensions = {
            mark: tuple(other[len(mark) :] for other in marks if other[: len(mark)] == mark)[1:]
            for mark in marks
        }
        # Where all marks end with one byte that is nowhere else in them, bytes.split() finds them;
        # what comes before may end with the rest of a longer one.
        last = marks[0][-1:]
        self._anchor = last if all(mark.find(last) == len(mark) - 1 for mark in marks) else b""
        self.split_at = b""
        self.endings: tuple[bytes, ...] = ()
        if not sequences and (len(marks) == 1 or (self._anchor and len(marks[0]) == 1)):
            self.split_at = marks[0]
            self.endings = tuple(mark[:-1] for mark in reversed(marks[1:]))
        self.find: Callable[[bytes | bytearray, int], tuple[int, bytes] | None] = self._find_any
        if self.split_at:
            self.find = self._find_last_byte if self.endings else self._find_one
        # What separates the contents: also a byte that no escape has, where all are known.
        self.cut_at = self.split_at
        tails = b"".join(sequence[1:] for sequence in sequences)
        if sequences and len(marks) == 1 and len(marks[0]) == 1:
            inside = marks[0] in b"".join(sequences) or self.escape_byte in tails
            self.cut_at = b"" if inside else marks[0]
        # What the byte after the escape byte means, where that is all of an escape.
        self._byte_after: dict[int, bytes] = {}
        if self.cut_at and all(len(sequence) == 2 for sequence in sequences):
            self._byte_after = {key[1]: byte for key, byte in self.unescaped.items()}
        # What it separates are the messages, if they have no wrong size and none of these bytes.
        self.splits_messages = bool(self.cut_at) and not (
            layout.skip_empty or layout.min_message_size
        )
        begins = {self.escape_byte} if sequences else {ending[:1] for ending in self.endings}
        self.changing = tuple(begin[0] for begin in begins)
        # Without one of these bytes, a chunk has no token.
        self.stops = tuple({token[0] for token in self.tokens}) if self.cut_at else ()
        # Shortest marks first: a message is delivered at once.
        alternatives = [*self.tokens, self.escape_byte] if sequences else self.tokens
        self._token = re.compile(b"|".join(map(re.escape, alternatives)))
        self._sequences = re.compile(b"|".join(map(re.escape, sequences))) if sequences else None
        self._sequence_of = {bytes([byte]): sequence for byte, sequence in layout.escape}
        keys = b"".join(map(re.escape, self._sequence_of))
        self._to_escape = re.compile(b"[" + keys + b"]") if sequences else None
        self._forbidden = re.compile(_forbidden(layout))

    # --- reading ----------------------------------------------------------------------------------

    def _find_one(self, data: bytes | bytearray, pos: int) -> tuple[int, bytes] | None:
        found = data.find(self.split_at, pos)
        return None if found < 0 else (found, self.split_at)

    def _find_last_byte(self, data: bytes | bytearray, pos: int) -> tuple[int, bytes] | None:
        mark = self.split_at
        found = data.find(mark, pos)
        if found < 0:
            return None
        for ending in self.endings:
            if data.endswith(ending, pos, found):
                return found - len(ending), ending + mark
        return found, mark

    def _find_any(self, data: bytes | bytearray, pos: int) -> tuple[int, bytes] | None:
        found = self._token.search(data, pos)
        return None if found is None else (found.start(), found[0])

    def find_cut_off(self, data: bytes | bytearray, low: int, high: int) -> int:
        """Return where the first token begins, from `low` to before `high`, that `data` cuts off.

        -1 if it cuts off no token.
        """
        for pos in range(low, high):
            piece = data[pos:]
            if any(len(piece) < len(token) and token.startswith(piece) for token in self.tokens):
                return pos
        return -1

    def find_end(self, data: bytes, pos: int) -> tuple[int, bytes] | None:
        """Return where the content ends that begins at `pos`, and its mark; None if unsure."""
        whole = len(data) - self.longest  # a token that begins up to here is not cut off
        while True:
            found = self.find(data, pos)
            if found is None:
                return None
            start, token = found
            if start > whole and self.find_cut_off(data, max(pos, whole + 1), start) >= 0:
                return None
            if token in self.marks:
                return start, token
            if token == self.escape_byte:  # cut off, or unknown
                return None
            pos = start + len(token)

    def unescape(self, content: bytes) -> bytes:
        """Return a content without its escapes, all of which are known."""
        if self._sequences is None:
            return content
        unescaped = self.unescaped
        return self._sequences.sub(lambda found: unescaped[found[0]], content)

    def unescape_ordinary(self, content: bytes) -> bytes | None:
        """Do the same where no escape has the escape byte in it twice; None if one is unknown."""
        byte_after = self._byte_after
        if not byte_after:
            assert self._sequences is not None
            unescaped = self.unescaped
            message, known = self._sequences.subn(lambda found: unescaped[found[0]], content)
            return message if known == content.count(self.escape_byte) else None
        # Several times as fast as bytes.replace() for each escape.
        first, *others = content.split(self.escape_byte)
        try:
            return b"".join([first, *[byte_after[part[0]] + part[1:] for part in others]])
        except LookupError:  # of a part that is empty, too
            return None

    def size_of_ordinary(self, content: bytes) -> int:
        """Return the size of a content without its escapes; -1 if one is unknown."""
        byte_after = self._byte_after
        if not byte_after:
            message = self.unescape_ordinary(content)
            return -1 if message is None else len(message)
        parts = content.split(self.escape_byte)
        for part in parts[1:]:
            if not part or part[0] not in byte_after:
                return -1
        return len(content) - len(parts) + 1

    def wrong_escape(self, data: bytes, pos: int) -> bytes:
        """Return an unknown escape up to its first wrong byte."""
        right = 0
        for token in self.tokens:
            size = 0
            while size < len(token) and data[pos + size : pos + size + 1] == token[size : size + 1]:
                size += 1
            right = max(right, size)
        return data[pos : pos + right + 1]

    # --- writing ----------------------------------------------------------------------------------

    def escape(self, message: Any) -> bytes:
        """Return a message with its escapes, of which the layout has some."""
        assert self._to_escape is not None
        sequence_of = self._sequence_of
        return self._to_escape.sub(lambda found: sequence_of[bytes(found[0])], message)

    def comes_back(self, message: Any) -> bool:
        """Return whether a message without escapes is read as it is, with a mark after it."""
        if self._to_escape is not None:
            return True
        if type(message) is bytes and len(self.marks) == 1 and len(self.split_at) == 1:
            return self.split_at[0] not in message
        return self._forbidden.search(message) is None


def _forbidden(layout: Layout) -> bytes:
    """Return a pattern of what a message must not contain: a mark, or what makes one at its end."""
    patterns = [re.escape(mark) for mark in layout.marks]
    end = layout.marks[0]
    for mark in layout.marks:
        for size in range(1, len(mark)):
            # The message's end and the written mark are a longer mark, or may become one.
            left = mark[size:]
            if left.startswith(end) or end.startswith(left):
                patterns.append(re.escape(mark[:size]) + rb"\Z")
    return b"|".join(patterns)


def mark_search_of(layout: Layout) -> MarkSearch | None:
    """Return what finds a layout's tokens, None where it has no marks or is stuffed."""
    if not layout.marks or layout.kind == COBS:
        return None
    search: MarkSearch | None = layout.mark_search
    if search is None:
        search = MarkSearch(layout)
        object.__setattr__(layout, "mark_search", search)
    return search


class MarkedState:
    """What a reader holds of a pending frame besides what it holds of other frames."""

    __slots__ = (
        "_after",
        "_block_begun",
        "_block_left",
        "_content_size",
        "_tail",
        "_zero_due",
    )

    def __init__(self) -> None:
        self._content_size = 0  # bytes of the message so far, without escapes
        self._tail = b""  # the first bytes of a token that the last chunk cut off
        self._after = b""  # the last mark, where the rest of a longer one may follow
        # COBS: bytes of the block that are missing. If it is NOT_WALKED (_split_frames_py.py),
        # this, the size and the two below follow from the kept bytes: the slow path counts them.
        self._block_left = 0
        self._block_begun = False  # COBS: there was a block
        self._zero_due = False  # COBS: a zero is before the next block


def stops_of(layout: Layout) -> Stops:
    """Return the bytes one of which is in each mark and escape; nothing if this cannot read them.

    A chunk without them belongs to the content as it is. They are the first one, the second one or
    None, and the others: most layouts have one or two.
    """
    if not layout.marks or layout.magic or layout.check is not None:
        return ()
    search = mark_search_of(layout)
    stops = (0,) if search is None else search.stops
    return (stops[0], stops[1] if len(stops) > 1 else None, stops[2:]) if stops else ()


def has_one_of(stops: tuple[int, ...], data: bytes) -> bool:
    """Return whether one of these bytes is in a chunk."""
    return any(stop in data for stop in stops)


def find_content(layout: Layout, data: bytes, pos: int) -> tuple[slice, bytes, int] | None:
    """Return the content of an ordinary frame at a position, its message, and the frame's end.

    None if no end mark ends the frames of this layout, or if the frame needs the slow path.
    """
    search = mark_search_of(layout)
    start = pos + len(layout.magic)
    if search is None or layout.check is not None or not data.startswith(layout.magic, pos):
        return None
    end = search.find_end(data, start)
    if end is None:
        return None
    stop, mark = end
    message = search.unescape(data[start:stop])
    if not layout.min_message_size <= len(message) <= layout.max_message_size:
        return None
    if layout.skip_empty and not message:
        return None
    return slice(start, stop), message, stop + len(mark)


# --- consistent-overhead byte stuffing ------------------------------------------------------------


def stuff(message: bytes) -> bytes:
    """Return a message as blocks: a code, one more than the bytes that follow it without a zero.

    A zero follows each block in the message, but a block of 254 bytes and the last one.
    """
    stuffed = bytearray()
    runs = message.split(b"\0")
    last = len(runs) - 1
    for index, run in enumerate(runs):
        for pos in range(0, len(run) - 253, 254):
            stuffed.append(255)
            stuffed += run[pos : pos + 254]
        left = len(run) % 254
        if left or index < last or not run:
            stuffed.append(left + 1)
            stuffed += run[len(run) - left :]
    return bytes(stuffed)


def unstuff(content: bytes) -> bytes | None:
    """Return the message of whole blocks; None if the last one is cut off."""
    message = bytearray(content)  # the codes become zeros, but the first and those after a 255
    runs: list[bytearray] = []
    pos, size, start = 0, len(content), 1
    while pos < size:
        code = content[pos]
        message[pos] = 0
        pos += code
        if code == 255:
            runs.append(message[start:pos])
            start = pos + 1
    if pos > size:
        return None
    if runs:
        return b"".join((*runs, message[start:]))
    del message[:1]
    return bytes(message)


def check_message(layout: Layout, message: Any) -> None:
    """Raise if a message of an allowed size has no frame."""
    search = mark_search_of(layout)
    if search is None:
        return
    if not search.comes_back(message):
        raise _mark_texts.message_holds_mark(layout)
