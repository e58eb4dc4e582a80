"""Check that memory follows from the bytes that arrived, not from what a header declares."""

from __future__ import annotations

from typing import Any

from .feeding import FEED, feed_chunks, show
from .promises import Problem, Promise

__all__ = ["check_memory"]

_DECLARED = 4 * 1024 * 1024  # bytes
# max_message_size in bytes, where the message is skipped: without a length in the header a splitter
# must hold that much before it knows.
_LIMIT = 64 * 1024
_CHUNK = 64 * 1024  # bytes
_CONSTANT = 256 * 1024  # bytes that a splitter may take in any case


def check_memory(codec: Any, messages: list[Any]) -> None:
    """Check what a splitter allocates for a large frame: for its start, and while it skips it.

    The check is left out where no message is `bytes`, where the codec takes no message of 4 MiB,
    and on a Python that cannot trace its memory.

    Raises:
        Problem: The splitter has allocated more than a constant and twice the bytes that it holds.
    """
    frame = _large_frame(codec, messages)
    if frame is None:
        return
    start = frame[: len(frame) - _DECLARED + 16]
    used = _traced(codec.splitter(), [start])
    if used > _CONSTANT + 2 * len(start):
        text = f"{len(start)} bytes ({show(start)}) made the splitter allocate {used} bytes"
        raise Problem(Promise.MEMORY, text)
    splitter = _skipping_splitter(codec)
    if splitter is None:
        return
    chunks = [frame[pos : pos + _CHUNK] for pos in range(0, len(frame), _CHUNK)]
    used = _traced(splitter, chunks)
    if used > _CONSTANT + 2 * _CHUNK:
        text = f"on_oversize='skip' allocated {used} bytes for a frame of {len(frame)}"
        raise Problem(Promise.MEMORY, text)


def _traced(splitter: Any, chunks: list[bytes]) -> int:
    """Return how many bytes are allocated at most while a splitter is fed; 0 after an error."""
    try:
        import tracemalloc
    except ImportError:  # PyPy
        return 0
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        error = None
        for state in feed_chunks(splitter, chunks, FEED):
            error = state.error
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not was_tracing:
            tracemalloc.stop()
    return 0 if error is not None else peak - before


def _skipping_splitter(codec: Any) -> Any:
    """Return a splitter that skips the large frame, or None."""
    try:
        return codec.replace(max_message_size=_LIMIT).splitter(on_oversize="skip")
    except (AttributeError, TypeError, ValueError):
        return None


def _large_frame(codec: Any, messages: list[Any]) -> bytes | None:
    """Return the frame of a message that ends with 4 MiB of zero bytes, or None."""
    for message in sorted({message for message in messages if isinstance(message, bytes)}, key=len):
        try:
            frame = codec.encode(message + bytes(_DECLARED))
        except Exception:  # the codec takes no such message
            continue
        return bytes(frame)
    return None
