"""A stream under test: every chunking of it must have the result of its reference."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from ..errors import FrameError
from .feeding import (
    FEED,
    State,
    describe_error,
    error_key,
    feed_chunks,
    not_a_frame_error,
    same,
    show,
)
from .promises import Problem, Promise

__all__ = ["NOT_CHECKED", "Stream", "shrink"]


class Stream:
    """Bytes for a splitter, and what is known of them.

    Args:
        data: The bytes.
        new_splitter: A function without arguments that returns a new splitter.
        frames: The (size, message) pairs of whole frames; None if the bytes are damaged.
    """

    def __init__(
        self,
        data: bytes,
        new_splitter: Callable[[], Any],
        frames: list[tuple[int, Any]] | None = None,
        promise: Promise = Promise.PROMPT,
    ) -> None:
        self.data = data
        self.new_splitter = new_splitter
        self.expected = None if frames is None else [message for _, message in frames]
        self.ends = list(accumulate(size for size, _ in frames or ()))
        self.promise = promise
        self._references: dict[int, State] = {}

    def reference(self, size: int) -> State:
        """Return the state after the first bytes in one piece; it is checked when it is made."""
        if size not in self._references:
            (state,) = feed_chunks(self.new_splitter(), [self.data[:size]], FEED)
            self._check_expected(state)
            self._references[size] = state
        return self._references[size]

    def _check_expected(self, state: State) -> None:
        if self.expected is None:
            return
        least = bisect.bisect_right(self.ends, state.fed)
        most = bisect.bisect_left([0, *self.ends][: len(self.ends)], state.fed)
        count = len(state.messages)
        if not least <= count <= most or not same(state.messages, self.expected[:count]):
            wanted = ", ".join(show(message) for message in self.expected[:least][-5:])
            raise Problem(self.promise, f"{state}\nexpected: [{wanted}]")
        if state.error is not None:
            raise Problem(self.promise, f"{state}\nexpected: no error")

    def check(self, chunks: list[bytes], way: str) -> None:
        """Compare a chunking with the references, the end of the stream included.

        Raises:
            Problem: It shows something else, or an error that is not sticky.
        """
        splitter, seen, state = self.new_splitter(), 0, State(0, [], None, {})
        for state in feed_chunks(splitter, chunks, way):
            reference = self.reference(state.fed)
            if not agree(state, reference, seen):
                if way != FEED:
                    self.check(chunks, FEED)  # raises if the way does not matter
                text = f"{state}\nin one piece by feed(): {reference}"
                raise Problem(Promise.CHUNKING if way == FEED else Promise.BUFFERS, text)
            seen = len(state.messages)
        if state.error is not None:  # it may have come later in one piece, but it is the same
            whole = self.reference(len(self.data))
            if error_key(whole.error) != error_key(state.error):
                text = f"{state}\nin one piece by feed(): {whole}"
                raise Problem(Promise.CHUNKING, text)
        if not same(state.messages, self.reference(state.fed).messages):
            raise Problem(Promise.BUFFERS, f"a delivered message has changed: {state}")
        check_sticky(splitter, state)
        if state.error is None and (reference_end := self.end(state.fed)) is not NOT_CHECKED:
            found = end_of(splitter)
            if error_key(found) != error_key(reference_end):
                text = f"feed_eof() raised {found!r}\nin one piece by feed(): {reference_end!r}"
                raise Problem(Promise.CHUNKING, text)

    def end(self, size: int) -> FrameError | None:
        """Return what ``feed_eof`` raises after the first bytes in one piece."""
        splitter = self.new_splitter()
        if not hasattr(splitter, "feed_eof"):
            return NOT_CHECKED
        for _ in feed_chunks(splitter, [self.data[:size]] if size else [], FEED):
            pass
        return end_of(splitter)


NOT_CHECKED = FrameError()


def agree(state: State, reference: State, seen: int) -> bool:
    """Return whether two states are equal; the first `seen` messages are compared already."""
    count = len(state.messages)
    return (
        state.counters == reference.counters
        and count == len(reference.messages)
        and (count == seen or same(state.messages[seen:], reference.messages[seen:]))
        and error_key(state.error) == error_key(reference.error)
    )


def end_of(splitter: Any) -> FrameError | None:
    """Return what ``feed_eof`` raises.

    Raises:
        Problem: It raises another error the next time, or something else than a `FrameError`.
    """
    errors: list[FrameError | None] = []
    for _ in range(2):
        try:
            splitter.feed_eof()
            errors.append(None)
        except FrameError as error:
            errors.append(error)
        except MemoryError:
            raise
        except Exception as error:
            raise not_a_frame_error("feed_eof()", error) from error
    first, second = errors
    if error_key(first) != error_key(second):
        raise Problem(Promise.STICKY, f"feed_eof() raised {first!r}, and the next time {second!r}")
    if first is not None and getattr(splitter, "error", first) is None:
        raise Problem(Promise.STICKY, f"feed_eof() raised {first!r}, and splitter.error is None")
    return first


def check_sticky(splitter: Any, state: State) -> None:
    """Check that each later call raises the error of the state."""
    if state.error is None or getattr(splitter, "error", state.error) is None:
        return
    calls: dict[str, Callable[[], object]] = {
        "feed(b'')": lambda: splitter.feed(b""),
        "feed(b'0')": lambda: splitter.feed(b"0"),
        "get_buffer()": lambda: splitter.get_buffer(-1),
        "feed_eof()": lambda: splitter.feed_eof(),
    }
    for name, call in calls.items():
        if not hasattr(splitter, name.partition("(")[0]):
            continue
        try:
            found = f"returned {show(call())}"
        except FrameError as error:
            if error_key(error) == error_key(state.error):
                continue
            found = f"raised {describe_error(error)}"
        except Exception as error:
            found = f"raised {describe_error(error)}"
        raise Problem(Promise.STICKY, f"{state}\nthen {name} {found}")


def shrink(
    stream: Stream, chunks: list[bytes], way: str, problem: Problem
) -> tuple[list[bytes], Problem]:
    """Return a chunking that breaks the same promise and cannot lose a cut or its last bytes."""
    smaller = True
    while smaller:
        smaller = False
        candidates = [chunks[:-1]] if len(chunks) > 1 else []
        candidates += [
            [*chunks[:pos], chunks[pos] + chunks[pos + 1], *chunks[pos + 2 :]]
            for pos in range(len(chunks) - 1)
        ]
        candidates += [[*chunks[:-1], chunks[-1][:size]] for size in _halves(len(chunks[-1]))]
        for candidate in candidates:
            try:
                stream.check(candidate, way)
            except Problem as found:
                if found.promise == problem.promise:
                    chunks, problem, smaller = candidate, found, True
                    break
    return chunks, problem


def _halves(size: int) -> Iterator[int]:
    """Yield smaller sizes, the smallest first."""
    step = size // 2
    while step:
        yield size - step
        step //= 2
