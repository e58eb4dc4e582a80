"""Whether bytes are exactly one frame: the errors of `Codec.decode`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _error_texts, errors
from .splitter import Splitter

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["is_longer", "not_one_frame"]


def not_one_frame(
    codec: Any, frame: Buffer, splitter: Splitter[Any], messages: list[Any]
) -> errors.FrameError:
    """Return the error of `Codec.decode` for bytes that are less or more than one frame.

    Args:
        codec: The codec.
        frame: The bytes.
        splitter: The splitter that was fed with them.
        messages: What it delivered.

    Raises:
        IncompleteFrameError: The splitter reports how much is missing.
    """
    if not messages:
        splitter.feed_eof()
        return _error_texts.incomplete("header", 0, None, 0, b"")
    frames = Splitter(codec, raw=True).feed(frame)
    if not frames:  # the padding is not whole
        splitter.feed_eof()
    raw = frames[0]
    stop = _first_stop(codec, frame) if codec.layout.has_marks else len(raw)
    return _error_texts.bytes_after_frame(memoryview(frame).nbytes - stop, _header_of(codec, raw))


def is_longer(codec: Any, frame: Buffer) -> bool:
    """Return whether ignored frames follow the first one."""
    layout = codec.layout
    ignores = layout.skip_empty or (layout.choice is not None and layout.has_marks)
    return ignores and _first_stop(codec, frame) < memoryview(frame).nbytes


def _first_stop(codec: Any, data: Buffer) -> int:
    """Return where the first frame ends that an end mark ends and that is not ignored."""
    layout, content, stop = codec.layout, bytes(data), 0
    if layout.choice is not None:
        splitter = Splitter(codec, raw=True, one_at_a_time=True)
        splitter.feed(data)
        return splitter.stream_offset
    marks = sorted(layout.marks, key=len, reverse=True)
    while layout.skip_empty:  # frames before it that are ignored
        empty = [mark for mark in marks if content.startswith(layout.magic + mark, stop)]
        if not empty:
            break
        stop += len(layout.magic + empty[0])
    raw = Splitter(codec, raw=True).feed(data)[0]
    stop += len(raw)
    for mark in marks:  # the rest of a longer mark
        for size in range(1, len(mark)):
            is_begun = mark[:size] in marks and raw.endswith(mark[:size])
            if is_begun and content.startswith(mark, stop - size):
                return stop - size + len(mark)
    return stop


def _header_of(codec: Any, raw: bytes) -> bytes:
    """Return the header of a whole frame, exactly as it is in `raw`; of joined frames the first."""
    if codec.layout.joined is not None:
        return raw[: codec.layout.joined.head_size]
    # A splitter that has all bytes but the last one reports the header in its error.
    splitter = Splitter(codec)
    splitter.feed(raw[:-1])
    try:
        splitter.feed_eof()
    except errors.IncompleteFrameError as error:
        if error.where != "header":
            return error.header
    return raw
