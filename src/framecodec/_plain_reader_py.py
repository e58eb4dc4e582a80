"""The reader of the commonest frames in Python: a binary length and a rest only.

It is a part of `FrameReader` (`_frame_reader_py.py`), which says what readers do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from ._choice import Choice
from ._fields_py import Reader, reader_of, skip_frames, unpacker
from ._layout import Layout
from ._marked_reader_py import MarkedState

__all__ = [
    "IN_HEADER",
    "IN_PADDING",
    "IN_REST",
    "IN_TRAILER",
    "Numbers",
    "PlainReader",
    "Unpack",
    "numbers_for",
]

IN_HEADER, IN_REST, IN_TRAILER, IN_PADDING = range(4)

Unpack = Callable[[bytes, int], tuple[int]]


class Numbers(NamedTuple):
    """What a reader stores of a layout."""

    layout: Layout
    header_limit: int  # how many bytes of a header to gather
    magic: bytes
    trailer: bytes
    lead_size: int
    header_size: int
    adjustment: int
    quick_low: int
    quick_high: int
    read_field: Reader
    unpack: Unpack | None
    # For the headers of the messages of the last call, if they are kept.
    headers: list[bytes] | None
    # A choice: `layout` becomes that of the pending frame as soon as its byte is in.
    choice: Choice | None
    choice_layout: Layout
    tag: tuple[Any, ...]  # the names of the alternative


def numbers_for(layout: Layout, raw: bool, keep_headers: bool) -> Numbers:
    """Return what a reader stores of a layout."""
    low, span = layout.quick_range
    return Numbers(
        layout,
        layout.longest_header,
        layout.magic,
        layout.trailer,
        layout.lead_size,
        layout.header_size,
        layout.adjustment,
        low,
        low + span,
        reader_of(layout),
        unpacker(layout) if layout.plain and not raw else None,
        [] if keep_headers and not layout.canonical else None,
        layout.choice,
        layout,
        (),
    )


class PlainReader(MarkedState):
    """What the fast path for plain frames needs."""

    __slots__ = (
        "_adjustment",
        "_counting",
        "_header_size",
        "_layout",
        "_quick_high",
        "_quick_low",
        "_stream_offset",
    )

    _layout: Layout
    _adjustment: int
    _header_size: int
    _quick_low: int
    _quick_high: int
    _stream_offset: int
    _counting: bool

    def _read_plain_frames(
        self,
        data: bytes,
        pos: int,
        messages: list[Any],
        unpack: Unpack,
    ) -> int:
        """Take frames of a binary length and a rest only.

        It returns where the first frame begins that needs the slow path.
        """
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
            pos = skip_frames(self._layout, data, first_pos, len(messages) - count)
            raise
        finally:
            try:
                self._stream_offset += pos - first_pos
            except MemoryError:  # once more: the messages are in the list already
                self._stream_offset += pos - first_pos
            self._counting = False
        return pos
