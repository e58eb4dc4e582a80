"""Observers: objects of the program that are told of connections and frames.

A connection without an observer does nothing for this. One that has an observer gets another
splitter, `ObservedSplitter`, and other methods to send, once, when it is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, final

from . import _log
from .errors import MessageTooLargeError
from .splitter import Splitter

if TYPE_CHECKING:
    from .codec import Codec

__all__ = ["NOTHING_TOLD", "OBSERVER_METHODS", "ObservedSplitter", "Observer", "Told", "frame_size"]

_Method: TypeAlias = Callable[..., None] | None

OBSERVER_METHODS = (
    "frame_received",
    "frame_sent",
    "connection_opened",
    "connection_closed",
    "frame_discarded",
)


class Observer:
    """The methods that an observer has, each None where it has none. They raise nothing.

    Args:
        observer: An object with any of `OBSERVER_METHODS`, or None.
    """

    __slots__ = OBSERVER_METHODS

    frame_received: _Method
    frame_sent: _Method
    connection_opened: _Method
    connection_closed: _Method
    frame_discarded: _Method

    def __init__(self, observer: object) -> None:
        for name in OBSERVER_METHODS:
            method = getattr(observer, name, None) if observer is not None else None
            setattr(self, name, None if method is None else _guarded(name, method))

    @classmethod
    def of(cls, observer: object) -> Observer | None:
        """Return the methods of an observer, or None if there is no observer."""
        return observer if observer is None or isinstance(observer, Observer) else cls(observer)

    def of_frames(self) -> Observer | None:
        """Return the same observer without its methods about connections; None if no other is left.

        A connection with an observer is slower, so it must not get one that sees nothing.
        """
        if self.frame_received is self.frame_sent is self.frame_discarded is None:
            return None
        observer = Observer(None)
        observer.frame_received = self.frame_received
        observer.frame_sent = self.frame_sent
        observer.frame_discarded = self.frame_discarded
        return observer


def _guarded(name: str, method: Callable[..., Any]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        try:
            method(*arguments)
        except Exception as error:
            _log.observer_failed(name, error)

    return call


def frame_size(codec: Codec[Any], message: Any) -> int:
    """Return the size of a message's frame, in bytes.

    Raises:
        FrameError, TypeError, BufferError: As `Codec.encode`.
    """
    return sum(memoryview(part).nbytes for part in codec.frame_parts(message))


class Told(NamedTuple):
    """What an observer was told of bytes that are parsed once more."""

    frames: frozenset[tuple[int, int]]
    """Where frames begin and end in the stream."""

    bad_frame: int | None
    """Where a bad frame begins; None without one."""


NOTHING_TOLD = Told(frozenset(), None)


@final
class ObservedSplitter:
    """A splitter that tells an observer of each frame.

    The sizes are those of the frames as they travelled: one splitter delivers the frames, a second
    one their messages.

    Args:
        conn: The connection that the observer's methods get.
        codec: The shape of the frames.
        observer: It gets the events.
        keep_headers: As for `Splitter`.
        **options: As for `Splitter`.
    """

    def __init__(
        self,
        conn: object,
        codec: Codec[Any],
        observer: Observer,
        *,
        keep_headers: bool = False,
        **options: Any,
    ) -> None:
        self._conn = conn
        self._codec = codec
        self._frames: Any = Splitter(codec, raw=True, **options)
        self._keep_headers = keep_headers
        # It gets whole frames only.
        self._messages: Any = Splitter(codec, keep_headers=keep_headers)
        self._received = observer.frame_received
        self._discarded = observer.frame_discarded
        self._skipped = 0  # events that the observer knows
        self._resyncs = 0
        self._failed = False
        self._told: Told = NOTHING_TOLD
        self._last: list[tuple[int, int]] = []  # the frames of the last call, as in `Told`

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frames, name)

    @property
    def headers(self) -> Any:
        """As `Splitter.headers`."""
        return self._messages.headers

    @property
    def error(self) -> BaseException | None:
        """The sticky error, or None."""
        error: BaseException | None = self._frames.error or self._messages.error
        return error

    def feed(self, data: Any, /) -> list[Any]:
        """As `Splitter.feed`."""
        return self._deliver(self._frames.feed, data)

    def feed_again(self, data: Any, told: Told) -> list[Any]:
        """As `feed`, for bytes that were parsed before; the observer is not told again.

        Args:
            data: The bytes.
            told: What the observer was told of them.
        """
        self._told = told
        try:
            return self.feed(data)
        finally:
            self._told = NOTHING_TOLD

    def buffer_updated(self, count: int, /) -> list[Any]:
        """As `Splitter.buffer_updated`."""
        return self._deliver(self._frames.buffer_updated, count)

    def _switch(self, codec: Codec[Any], before: bytes = b"") -> list[Any]:
        bad_frame = self._frames.stream_offset if self._failed else None
        self._told, self._failed = Told(frozenset(self._last), bad_frame), False
        self._codec = codec
        self._messages = Splitter(codec, keep_headers=self._keep_headers)
        try:
            return self._deliver(functools.partial(self._frames._switch, codec), before)
        finally:
            self._told = NOTHING_TOLD

    def detach(self) -> bytes:
        """As `Splitter.detach`."""
        unfinished: bytes = self._frames.detach()
        return unfinished

    def _deliver(self, step: Callable[[Any], list[bytes]], argument: Any) -> list[Any]:
        try:
            frames = step(argument)
            messages: list[Any] = self._messages.feed(b"".join(frames))
        except BaseException:
            self._note_discarded()
            raise
        if self._received is not None:
            stops = list(accumulate(map(len, frames), initial=self._start_of(frames)))
            self._last = list(pairwise(stops))
            for start, stop in self._last:
                if (start, stop) not in self._told.frames:
                    self._received(self._conn, stop - start)
        self._note_discarded()
        return messages

    def _start_of(self, frames: list[bytes]) -> int:
        """Return the stream position of the first one of frames that were just read."""
        position: int = self._frames.stream_offset
        return position - sum(map(len, frames))

    def _note_discarded(self) -> None:
        splitter, discarded = self._frames, self._discarded
        if discarded is None:
            return
        while self._skipped < splitter.skipped:
            self._skipped += 1
            discarded(self._conn, _skipped(self._codec.layout.max_message_size))
        while self._resyncs < getattr(splitter, "resyncs", 0):
            self._resyncs += 1
            discarded(self._conn, splitter.last_invalid)
        if splitter.error is not None and not self._failed:
            self._failed = True
            if splitter.stream_offset != self._told.bad_frame:
                discarded(self._conn, splitter.error)


def _skipped(limit: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"message too large: it was skipped, the limit is {limit} (max_message_size)",
        limit=limit,
    )
