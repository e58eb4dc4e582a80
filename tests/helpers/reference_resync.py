"""What a stream with bad frames holds, for a splitter that continues at the next mark.

As `reference_parser.py`: it sees all of the stream at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from framecodec import Codec, IncompleteFrameError, InvalidFrameError, MessageTooLargeError
from tests.helpers.reference_parser import common_start, expect, magics

__all__ = ["State", "Trace", "expect_resync", "is_marked", "next_start"]


def _opening(codec: Codec) -> bytes:
    """What a frame begins with; empty where only an end mark comes before it."""
    if codec.kind == "joined":
        codec = codec.parameters["fragments"]
    magic = common_start(magics(codec))
    if magic or codec.kind != "headers":
        return magic
    if codec.parameters["start_line"] not in (False, True):
        return b""  # any word begins a start line, and a protocol may end it
    return codec.parameters["name"].encode() + b":"  # type: ignore[no-any-return]


def is_marked(codec: Codec) -> bool:
    """Whether a splitter of this codec can look for the next frame."""
    return bool(_opening(codec)) or codec.kind in ("delimiter", "cobs")


def next_start(codec: Codec, data: bytes, pos: int) -> tuple[int, bytes, bool]:
    """Where a frame can begin next, the end mark before it, and whether the mark is whole.

    A mark that the end of the data cuts off is not; without any mark it is the end of the data.
    """
    opening = _opening(codec)
    if opening:
        ignored = re.IGNORECASE if opening.endswith(b":") and codec.kind == "headers" else 0
        found = re.compile(re.escape(opening), ignored).search(data, pos)
        if found is not None:
            return found.start(), b"", True
        for start in range(max(pos, len(data) - len(opening) + 1), len(data)):
            if re.match(re.escape(data[start:]), opening, ignored):
                return start, b"", False
        return len(data), b"", False
    has = codec.parameters
    marks = sorted((has.get("end", b"\0"), *has.get("more_ends", ())), key=len)
    escapes = [*(has.get("escape") or {}).values()]
    while pos < len(data):
        for token in marks:
            if data.startswith(token, pos):
                return pos + len(token), token, True
        rest = data[pos:]
        if any(token != rest and token.startswith(rest) for token in (*marks, *escapes)):
            return pos, b"", False
        pos += next((len(token) for token in escapes if data.startswith(token, pos)), 1)
    return len(data), b"", False


@dataclass
class State:
    """What a caller sees of a splitter after a frame."""

    offset: int
    count: int  # messages
    resyncs: int
    discarded: int
    in_padding: bool = False


@dataclass
class Trace:
    """What came of a stream, up to its end."""

    messages: list[Any] = field(default_factory=list)
    states: list[State] = field(default_factory=list)  # after each frame
    last: State = field(default_factory=lambda: State(0, 0, 0, 0))
    bad: list[tuple[type[BaseException], int]] = field(default_factory=list)  # and the offset
    error: type[BaseException] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    searching: bool = False  # no mark was found since the last bad frame
    unread: bytes = b""


def expect_resync(
    codec: Codec,
    data: bytes,
    *,
    raw: bool = False,
    skip: bool = False,
    searching: bool = False,
    after: bytes = b"",
) -> Trace:
    """The outcome of a stream that ends after `data`.

    Args:
        searching: Whether the stream begins after a bad frame, before the next mark.
        after: The end mark just before the stream.
    """
    trace, pos, search, resyncs, discarded = Trace(), 0, 0, 0, 0
    while True:
        if searching:
            start, after, found = next_start(codec, data, search)
            discarded += start - pos
            pos = start
            trace.last = State(pos, len(trace.messages), resyncs, discarded)
            if not found:
                trace.searching, trace.unread = True, data[pos:]
                return trace
        outcome = expect(codec, data[pos:], raw=raw, skip=skip, after=after)
        offset = 0
        for _, stop, count in outcome.steps:
            padded = stop == offset and not raw
            offset = stop
            trace.states.append(
                State(pos + stop, len(trace.messages) + count, resyncs, discarded, padded)
            )
        trace.messages += outcome.messages
        bad = pos + outcome.stream_offset
        if outcome.error is None or not issubclass(
            outcome.error, InvalidFrameError | MessageTooLargeError
        ):
            in_padding = bool(outcome.steps) and trace.states[-1].in_padding
            trace.last = State(bad, len(trace.messages), resyncs, discarded, in_padding)
            trace.error, trace.attributes = outcome.error, outcome.attributes
            trace.unread = outcome.unread
            if issubclass(outcome.error or object, IncompleteFrameError):
                trace.attributes["stream_offset"] += pos
            return trace
        resyncs += 1
        trace.bad.append((outcome.error, bad))
        searching, pos, search = True, bad, bad + 1
        if skip and not outcome.unread and outcome.decided is not None:  # its bytes are gone
            decided = bad - outcome.stream_offset + outcome.decided
            search = decided - 1
            if outcome.bad_token is not None:
                search = max(bad + 1, bad - outcome.stream_offset + outcome.bad_token)
            header = outcome.attributes.get("header") or b""
            if codec.kind == "joined" and header and data[:decided].endswith(header):
                search = max(bad + 1, decided - len(header))  # the fragment's header is held
