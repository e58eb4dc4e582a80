"""Marks: the bytes at which a frame can begin, for a splitter that looks for the next frame.

After a bad frame, a splitter with ``on_invalid="resync"`` discards up to the next mark:

============================ ==========================================================
a codec with a magic         the magic
`Codec.headers`              a header's name that holds the length, and its colon
`Codec.delimiter`, `cobs`    what follows the next end mark
============================ ==========================================================
"""

from __future__ import annotations

import functools
import re

from ._layout import HEADERS, Layout
from ._marks_py import mark_search_of

__all__ = ["check_marks", "check_on_invalid", "find_end_mark", "find_mark"]


def check_on_invalid(on_invalid: object, layout: Layout) -> bool:
    """Return whether to look for a mark after a bad frame; raise a ValueError if that cannot be."""
    if on_invalid not in ("raise", "resync"):
        raise ValueError(f'on_invalid must be "raise" or "resync", not {on_invalid!r}')
    if on_invalid == "resync":
        check_marks(layout)
    return on_invalid == "resync"


def check_marks(layout: Layout) -> None:
    """Raise a ValueError if the frames of a codec begin with no mark."""
    if not (layout.magic or layout.marks) and layout.kind != HEADERS:
        raise ValueError(
            'on_invalid="resync" needs a codec whose frames begin with a mark: a magic, header '
            "lines, or the end mark of the frame before; this one has none"
        )
    if layout.protocols and not layout.magic:
        raise ValueError(
            'on_invalid="resync" needs a mark at the start of each frame, and a start line can '
            "begin with any word; use start_line=True, which takes the line of the length as one, "
            "or a magic"
        )


def find_mark(layout: Layout, data: bytes | bytearray) -> tuple[int, bool]:
    """Return where the first mark begins in the bytes, and whether it is whole.

    A mark that is cut off by the end of the bytes is not whole. Without a mark it is their end.
    """
    if layout.magic:
        marks: tuple[bytes, ...] = (layout.magic,)
        found = data.find(layout.magic)
    else:
        marks = (layout.name.encode() + b":",)
        match = _pattern(marks).search(data)
        found = -1 if match is None else match.start()
    if found >= 0:
        return found, True
    longest = max(map(len, marks)) - 1
    end = bytes(data[max(0, len(data) - longest) :])
    if not layout.magic:
        end, marks = end.lower(), tuple(mark.lower() for mark in marks)
    for size in range(len(end), 0, -1):
        if any(mark.startswith(end[-size:]) for mark in marks):
            return len(data) - size, False
    return len(data), False


def find_end_mark(layout: Layout, data: bytes | bytearray) -> tuple[int, bytes]:
    """Return what follows the first end mark in the bytes, and the mark.

    Without one it is where the first mark begins that the end of the bytes may cut off. Escapes
    are passed over, as far as they are known.
    """
    search = mark_search_of(layout)
    if search is None:
        found = data.find(b"\0")
        return (len(data), b"") if found < 0 else (found + 1, b"\0")
    pos, whole = 0, len(data) - search.longest
    while True:
        start, token = search.find(data, pos) or (len(data), b"")
        if start > whole:
            high = start + 1 if token == search.escape_byte else start
            cut_off = search.find_cut_off(data, max(pos, whole + 1), high)
            if cut_off >= 0:
                return cut_off, b""
        if not token or token in search.marks:
            return start + len(token), token
        pos = start + len(token)


@functools.lru_cache(maxsize=64)
def _pattern(marks: tuple[bytes, ...]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(map(re.escape, marks)), re.IGNORECASE)
