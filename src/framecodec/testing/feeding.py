"""Give a stream to a splitter in chunks, and record what the caller can see after each chunk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import FrameError
from .promises import Problem, Promise

__all__ = [
    "WAYS",
    "State",
    "describe_error",
    "error_key",
    "feed_chunks",
    "not_a_frame_error",
    "same",
    "show",
    "show_chunks",
]

FILLER = 0xA5  # what the caller's memory holds after the splitter has taken the bytes

# Numbers that describe a splitter. A double can leave them out.
COUNTERS = ("stream_offset", "pending", "skipped", "resyncs", "discarded")


@dataclass(slots=True)
class State:
    """What a caller can see of a splitter after a chunk."""

    fed: int  # bytes
    messages: list[Any]  # all so far
    error: FrameError | None
    counters: dict[str, int]

    def __str__(self) -> str:
        shown = [show(message) for message in self.messages[-5:]]
        earlier = len(self.messages) - len(shown)
        prefix = f"{earlier} messages, " if earlier else ""
        error = "no error" if self.error is None else describe_error(self.error)
        counters = "".join(
            f", {name} {value}"
            for name, value in self.counters.items()
            if value or name not in ("resyncs", "discarded")  # which few splitters count
        )
        return f"{prefix}[{', '.join(shown)}], {error}{counters}"


# --- ways to pass bytes to a splitter -------------------------------------------------------------
# Each prepares a call that passes bytes, and returns their number and the call.

_Prepared: TypeAlias = tuple[int, Callable[[], Any]]


def _prepare_feed(splitter: Any, data: bytes) -> _Prepared:
    return len(data), lambda: splitter.feed(data)


def _prepare_reused_memory(splitter: Any, data: bytes) -> _Prepared:
    memory = bytearray(data)

    def call() -> Any:
        try:
            return splitter.feed(memory)
        finally:
            memory[:] = _filler(len(memory))

    return len(data), call


@functools.lru_cache(maxsize=8)
def _filler(size: int) -> bytes:
    return bytes([FILLER]) * size


def _prepare_buffer(splitter: Any, data: bytes) -> _Prepared:
    try:
        buffer = memoryview(splitter.get_buffer(-1))
    except Exception as error:
        text = f"get_buffer() raised {describe_error(error)}"
        raise Problem(Promise.BUFFERS, text) from error
    with buffer as view:
        if not len(view):
            raise Problem(Promise.BUFFERS, "get_buffer() returned an empty buffer")
        size = min(len(view), len(data))
        view[:] = _filler(len(view))
        view[:size] = data[:size]
    return size, lambda: splitter.buffer_updated(size)


FEED = "feed()"
WITH_REUSED_MEMORY = "feed() of memory that is used again"
WITH_BUFFER = "get_buffer() and buffer_updated()"

WAYS: dict[str, Callable[[Any, bytes], _Prepared]] = {
    FEED: _prepare_feed,
    WITH_REUSED_MEMORY: _prepare_reused_memory,
    WITH_BUFFER: _prepare_buffer,
}


def feed_chunks(splitter: Any, chunks: Iterable[bytes], way: str) -> Iterator[State]:
    """Yield the state after each chunk, up to the first error.

    A chunk that is larger than the splitter's buffer is passed in several steps, each with its
    state. All states share one list of messages, so that a message that changes later is noticed.

    Raises:
        Problem: The splitter's numbers disagree with the bytes that it was given, or it raised
            something else than a `FrameError`.
    """
    names = [name for name in COUNTERS if hasattr(splitter, name)]
    prepare, messages, fed = WAYS[way], [], 0
    for chunk in chunks:
        rest = chunk
        while True:
            needed = getattr(splitter, "bytes_needed", 1)
            resyncs = getattr(splitter, "resyncs", 0)
            size, call = prepare(splitter, rest)
            found, error = _call(splitter, call, way)
            if getattr(splitter, "resyncs", 0) > resyncs:
                needed = min(needed, 1)  # a bad frame may hold one that ends before it
            fed += size
            messages += found
            counters = {name: getattr(splitter, name) for name in names}
            state = State(fed, messages, error, counters)
            _check_counters(state, needed, size, len(found))
            yield state
            if error is not None:
                return
            if size == len(rest):
                break
            rest = rest[size:]


def _call(splitter: Any, call: Callable[[], Any], way: str) -> tuple[list[Any], FrameError | None]:
    messages: list[Any] = []
    try:
        messages += call()
        if not hasattr(splitter, "error"):  # a double: only the next call shows an error
            messages += splitter.feed(b"")
        return messages, getattr(splitter, "error", None)
    except FrameError as error:
        return messages, error
    except MemoryError:
        raise
    except Exception as error:
        raise not_a_frame_error(way, error) from error


def not_a_frame_error(way: str, error: Exception) -> Problem:
    """Return the problem that a call of a splitter raised something else than a `FrameError`."""
    return Problem(Promise.ERRORS, f"{way} raised {describe_error(error)}, not a FrameError")


def _check_counters(state: State, needed: int, size: int, count: int) -> None:
    counters = state.counters
    if "stream_offset" in counters and "pending" in counters:
        total = counters["stream_offset"] + counters["pending"]
        if total != state.fed:
            text = f"stream_offset + pending is {total} after {state.fed} bytes: {state}"
            raise Problem(Promise.BOOKKEEPING, text)
    if needed < 1:
        raise Problem(Promise.BOOKKEEPING, f"bytes_needed was {needed}, which is less than 1")
    if count and size < needed:
        text = f"bytes_needed was {needed}, and {size} bytes completed a message"
        raise Problem(Promise.BOOKKEEPING, text)


# --- comparing and showing ------------------------------------------------------------------------


def same(found: list[Any], expected: list[Any]) -> bool:
    """Return whether messages are equal; where `bytes` are expected, nothing else passes for it."""
    return (
        len(found) == len(expected)
        and all(
            isinstance(other, bytes) or not isinstance(one, bytes)
            for one, other in zip(expected, found, strict=True)
        )
        and bool(found == expected)
    )


def error_key(error: BaseException | None) -> object:
    """Return what two equal errors have in common: type, text and attributes."""
    if error is None:
        return None
    attributes = {name: value for name, value in vars(error).items() if name[:1] != "_"}
    return type(error), str(error), attributes


def describe_error(error: BaseException) -> str:
    """Return an error's type and text."""
    return f"{type(error).__name__}: {error}"


def show(value: object) -> str:
    """Return the repr of a value, shortened if it is long."""
    if isinstance(value, bytes) and len(value) > 60:
        return f"{value[:24]!r}...({len(value)} bytes)"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}..."


def show_chunks(chunks: list[bytes]) -> str:
    """Return a chunking as a list of its chunks, shortened if there are many."""
    shown = [show(chunk) for chunk in chunks[:24]]
    more = f", ... {len(chunks) - 24} more" if len(chunks) > 24 else ""
    return f"[{', '.join(shown)}{more}]"
