"""The promises by name, and how a broken one is reported."""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = ["BrokenPromiseError", "Problem", "Promise"]


class Promise(enum.StrEnum):
    """What framecodec promises of a codec and its splitters."""

    FIRST_LAW = "decode(encode(message)) == message"
    ENCODING = "every way to encode has the same result"
    EXACTLY_ONE = "decode() takes exactly one whole frame"
    CHUNKING = "chunking is invisible"
    PROMPT = "a message is delivered with its last byte"
    MESSAGES_FIRST = "messages before an error are delivered first"
    STICKY = "an error is sticky"
    END = "an end inside a frame is an error, an end between frames is clean"
    RAW = "raw frames join to the stream"
    SCANNING = "split() and scan() find what a splitter finds"
    DETACHING = "detach() returns the bytes that were not delivered"
    LIMIT = "max_message_size holds in both directions"
    SKIPPING = "on_oversize='skip' discards exactly the oversized frames"
    RESYNC = "on_invalid='resync' reports each bad frame, loses no other and accounts for each byte"
    ONE_AT_A_TIME = "one_at_a_time returns the same messages, one a call"
    SWITCHING = "switch() reads on after the last delivered message"
    PICKLING = "a pickled codec is equal"
    ERRORS = "errors are frame errors"
    BOOKKEEPING = "the counters are exact"
    BUFFERS = "every way to pass bytes has the same result"
    MEMORY = "memory follows from what arrived"


class Problem(Exception):
    """A promise that a run has broken.

    Attributes:
        promise: The name of the promise.
        found: What the run has shown, one line or several.
    """

    def __init__(self, promise: Promise, found: str) -> None:
        super().__init__(promise, found)
        self.promise = promise
        self.found = found


class BrokenPromiseError(AssertionError):
    """A codec or its splitter broke a promise.

    Attributes:
        promise: The name of the promise.
        chunks: The smallest chunking that breaks it; empty where no stream is involved.
    """

    def __init__(self, text: str, *, promise: Promise, chunks: Iterable[bytes] = ()) -> None:
        super().__init__(text)
        self.promise = promise
        self.chunks = list(chunks)
