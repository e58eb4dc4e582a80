"""Bytes of a stream that are in no message, in Python.

They are skipped frames, bytes that ``on_invalid="resync"`` discards, and empty frames that are
ignored. Only a splitter with ``keep_headers=True`` notes them, or one whose messages are objects:
`frame_starts` of `_objects.py` finds the frame of a message by them.

A piece may be noted before the reader has passed it: that its bytes are in no message is certain.
"""

from __future__ import annotations

from typing import Any

__all__ = ["NO_GAPS", "Gap", "Gaps", "ignored_gaps", "note_gap"]

Gap = tuple[int, int]
"""Where a piece of the stream begins and ends."""

Gaps = tuple[int, list[Gap]]
"""How many noted pieces stay, and those that follow."""

NO_GAPS: Gaps = (0, [])


def note_gap(reader: Any, start: int, stop: int) -> None:
    """Note that a piece of the stream is in no message."""
    gaps: list[Gap] = reader._gaps
    if not reader._notes_gaps or start == stop:
        return
    if gaps and gaps[-1][1] == start:
        gaps[-1] = gaps[-1][0], stop
    else:
        gaps.append((start, stop))


def ignored_gaps(reader: Any, contents: list[bytes], ends: list[bytes]) -> Gaps:
    """Return what is noted after these successive frames, of which the empty ones are ignored.

    It changes nothing: its caller stores this together with all else.

    Args:
        reader: The reader, whose pending frame is the first one.
        contents: What the frames have before their ends.
        ends: What ends each of them.
    """
    stay, more, start = len(reader._gaps), [*reader._gaps[-1:]], reader._stream_offset
    if not reader._notes_gaps:
        return stay, []
    for content, end in zip(contents, ends, strict=True):
        stop = start + len(content) + len(end)
        if content:
            pass
        elif more and more[-1][1] == start:
            more[-1] = more[-1][0], stop
        else:
            more.append((start, stop))
        start = stop
    return max(0, stay - 1), more
