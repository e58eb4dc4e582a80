"""Check that memory follows from the bytes that arrived, not from what a header declares."""

from __future__ import annotations

from typing import Any

from .feeding import FEED, feed_chunks, show
from .promises import Problem, Promise

__all__ = ["check_memory"]

_DECLARED = 4 * 1024 * 1024  # bytes
_CONSTANT = 256 * 1024  # bytes that a splitter may take in any case


def check_memory(codec: Any, messages: list[Any]) -> None:
    """Feed the start of a large frame, and check what the splitter allocates.

    The check is left out where no message is `bytes`, where the codec takes no message of 4 MiB,
    and on a Python that cannot trace its memory.

    Raises:
        Problem: The splitter has allocated more than a constant and twice the received bytes.
    """
    try:
        import tracemalloc
    except ImportError:  # PyPy
        return
    frame = _large_frame(codec, messages)
    if frame is None:
        return
    start = frame[: len(frame) - _DECLARED + 16]
    splitter = codec.splitter()
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        states = list(feed_chunks(splitter, [start], FEED))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not was_tracing:
            tracemalloc.stop()
    if states[-1].error is None and peak - before > _CONSTANT + 4 * len(start):
        text = f"{len(start)} bytes ({show(start)}) made the splitter allocate {peak - before}"
        raise Problem(Promise.MEMORY, f"{text} bytes")


def _large_frame(codec: Any, messages: list[Any]) -> bytes | None:
    """Return the frame of a message that ends with 4 MiB of zero bytes, or None."""
    for message in sorted({message for message in messages if isinstance(message, bytes)}, key=len):
        try:
            frame = codec.encode(message + bytes(_DECLARED))
        except Exception:  # the codec takes no such message
            continue
        return bytes(frame)
    return None
