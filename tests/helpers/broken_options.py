"""A correct splitter with all options of `Splitter`, and doubles of it that each have one defect.

They are in `BROKEN` with those of `broken_codecs`. `verify_codec` must accept `FullCodec`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

from framecodec import FrameError, InvalidFrameError
from framecodec.testing import Promise
from tests.helpers import broken_codecs
from tests.helpers.broken_codecs import MAGIC, TinyCodec, TinySplitter

__all__ = ["FullCodec", "FullSplitter"]


class FullSplitter(TinySplitter):
    """The splitter of `FullCodec`: it continues after a bad frame, a message, and a switch."""

    def __init__(
        self,
        codec: TinyCodec,
        raw: bool = False,
        on_oversize: str = "raise",
        on_invalid: str = "raise",
        one_at_a_time: bool = False,
    ) -> None:
        super().__init__(codec, raw, on_oversize)
        self.on_invalid = on_invalid
        self.one_at_a_time = one_at_a_time
        self.searching = False
        self.resyncs = self.discarded = 0
        self.last_invalid: FrameError | None = None

    def feed(self, data: Any) -> list[Any]:
        if self.error is not None:
            raise self.error
        self.held += bytes(data)
        messages: list[Any] = []
        try:
            while (found := self.step()) is not None:
                messages += found
                if self.one_at_a_time and messages:
                    break
        except FrameError as error:
            self.error = error
            if not messages:
                raise
        return messages

    def step(self) -> list[Any] | None:
        if self.searching and not self.search():
            return None
        try:
            return self.take()
        except FrameError as error:
            if self.on_invalid == "raise":
                raise
            self.begin_search(error)
            return []

    def begin_search(self, error: FrameError) -> None:
        self.resyncs += 1
        self.last_invalid = error
        self.searching = True
        self.discard(1)

    def search(self) -> bool:
        """Discard up to the next mark; return whether there is one."""
        found = self.held.find(MAGIC)
        self.discard(found if found >= 0 else len(self.held))
        self.searching = found < 0
        return found >= 0

    def discard(self, size: int) -> None:
        self.held = self.held[size:]
        self.stream_offset += size
        self.discarded += size

    def feed_eof(self) -> None:
        if self.one_at_a_time and self.error is None:
            twin = copy.copy(self)
            with contextlib.suppress(FrameError):
                if FullSplitter.feed(twin, b""):
                    return
        super().feed_eof()

    def switch(self, codec: TinyCodec) -> list[Any]:
        self.codec, self.error, self.searching = codec, None, False
        return self.feed(b"")


class FullCodec(TinyCodec):
    """`TinyCodec`, with all options of its splitter."""

    splitter_class: type[FullSplitter] = FullSplitter  # type: ignore[assignment]

    def splitter(  # type: ignore[override]
        self,
        *,
        raw: bool = False,
        on_oversize: str = "raise",
        on_invalid: str = "raise",
        one_at_a_time: bool = False,
    ) -> Any:
        return self.splitter_class(self, raw, on_oversize, on_invalid, one_at_a_time)


def broken(defect: str, promise: Promise) -> Callable[[type], type]:
    """Add a splitter to `BROKEN`."""
    return broken_codecs.broken(defect, promise, FullCodec)


# --- on_invalid="resync" --------------------------------------------------------------------------


@broken("raises at a bad frame in spite of resync", Promise.RESYNC)
class RaisesAnyway(FullSplitter):
    def begin_search(self, error: FrameError) -> None:
        raise error


@broken("finds no frame after a bad one", Promise.RESYNC)
class FindsNothing(FullSplitter):
    def search(self) -> bool:
        self.discard(len(self.held))
        return False


@broken("skips the frame after a bad one", Promise.RESYNC)
class SkipsNext(FullSplitter):
    def search(self) -> bool:
        found = super().search()
        if found:
            self.discard(1)
            found = super().search()
        return found


@broken("loses the messages before a bad frame", Promise.RESYNC)
class LosesEarlier(FullSplitter):
    def feed(self, data: Any) -> list[Any]:
        resyncs = self.resyncs
        messages = super().feed(data)
        return messages if self.resyncs == resyncs else messages[len(messages) :]


@broken("does not count a bad frame", Promise.RESYNC)
class CountsNoResyncs(FullSplitter):
    def begin_search(self, error: FrameError) -> None:
        super().begin_search(error)
        self.resyncs = 0


@broken("counts no discarded bytes", Promise.RESYNC)
class CountsNoBytes(FullSplitter):
    def discard(self, size: int) -> None:
        super().discard(size)
        self.discarded = 0


@broken("counts the first discarded byte twice", Promise.RESYNC)
class CountsTwice(FullSplitter):
    def begin_search(self, error: FrameError) -> None:
        super().begin_search(error)
        self.discarded += 1


@broken("forgets what was bad", Promise.RESYNC)
class ForgetsReason(FullSplitter):
    def begin_search(self, error: FrameError) -> None:
        super().begin_search(error)
        self.last_invalid = None


@broken("reports a bad frame with another offset", Promise.RESYNC)
class ReportsElsewhere(FullSplitter):
    def begin_search(self, error: FrameError) -> None:
        super().begin_search(InvalidFrameError(str(error), stream_offset=self.stream_offset + 1))


@broken("raises at the end of garbage", Promise.RESYNC)
class RaisesAfterGarbage(FullSplitter):
    def feed_eof(self) -> None:
        if self.searching and self.error is None:
            self.error = InvalidFrameError("the stream ends in garbage")
        super().feed_eof()


@broken("holds garbage after the end", Promise.RESYNC)
class HoldsGarbage(FullSplitter):
    @property
    def bytes_needed(self) -> int:
        return 1 if self.searching else super().bytes_needed

    def search(self) -> bool:
        if MAGIC not in self.held:
            return False
        return super().search()

    def feed_eof(self) -> None:
        if not self.searching:
            super().feed_eof()


@broken("reads whole frames in another way with resync", Promise.RESYNC)
class SkipsEmpty(FullSplitter):
    def take(self) -> list[Any] | None:
        found = super().take()
        return [] if found == [b""] and self.on_invalid == "resync" else found


@broken("discards a chunk that begins with a mark", Promise.CHUNKING)
class DiscardsChunks(FullSplitter):
    def feed(self, data: Any) -> list[Any]:
        if self.searching and bytes(data[:1]) == MAGIC and len(data) == 1:
            self.held += bytes(data)
            self.discard(1)
            data = b""
        return super().feed(data)


# --- one_at_a_time --------------------------------------------------------------------------------


@broken("returns two messages a call", Promise.ONE_AT_A_TIME)
class ReturnsTwo(FullSplitter):
    def feed(self, data: Any) -> list[Any]:
        messages = super().feed(data)
        if self.one_at_a_time and messages and self.error is None:
            messages += super().feed(b"")
        return messages


@broken("returns nothing to a call without bytes", Promise.ONE_AT_A_TIME)
class NeedsBytes(FullSplitter):
    def feed(self, data: Any) -> list[Any]:
        if self.one_at_a_time and not len(data) and self.error is None:
            return []
        return super().feed(data)


@broken("counts undelivered messages in the offset", Promise.ONE_AT_A_TIME)
class CountsUndelivered(FullSplitter):
    def feed(self, data: Any) -> list[Any]:
        messages = super().feed(data)
        if self.one_at_a_time and self.held:
            self.stream_offset += len(self.held)
        return messages


@broken("counts a message when the next one is asked for", Promise.ONE_AT_A_TIME)
class CountsLate(FullSplitter):
    late = 0

    @property  # type: ignore[override]
    def stream_offset(self) -> int:
        return self.exact - (self.late if self.one_at_a_time else 0)

    @stream_offset.setter
    def stream_offset(self, offset: int) -> None:
        self.exact = offset

    @property
    def pending(self) -> int:
        return super().pending + (self.late if self.one_at_a_time else 0)

    def feed(self, data: Any) -> list[Any]:
        before = self.exact
        self.late = 0
        messages = super().feed(data)
        self.late = self.exact - before if messages else 0
        return messages


@broken("raises something else for the next message", Promise.ONE_AT_A_TIME)
class RaisesOther(FullSplitter):
    def feed(self, data: Any) -> list[Any]:
        if self.one_at_a_time and not len(data) and self.held:
            raise ValueError("no bytes")
        return super().feed(data)


@broken("calls an end before undelivered messages incomplete", Promise.ONE_AT_A_TIME)
class EndsEarly(FullSplitter):
    def feed_eof(self) -> None:
        TinySplitter.feed_eof(self)


@broken("drops undelivered messages at the end", Promise.ONE_AT_A_TIME)
class DropsAtEnd(FullSplitter):
    def feed_eof(self) -> None:
        super().feed_eof()
        self.stream_offset += len(self.held)
        self.held = b""


@broken("gives no undelivered messages back", Promise.ONE_AT_A_TIME)
class KeepsUndelivered(FullSplitter):
    def detach(self) -> bytes:
        return b"" if self.one_at_a_time else super().detach()


# --- switch ---------------------------------------------------------------------------------------


@broken("drops the bytes that are unread at a switch", Promise.SWITCHING)
class DropsUnread(FullSplitter):
    def switch(self, codec: TinyCodec) -> list[Any]:
        self.stream_offset += len(self.held)
        self.held = b""
        return super().switch(codec)


@broken("delivers nothing in a switch", Promise.SWITCHING)
class SwitchesLater(FullSplitter):
    def switch(self, codec: TinyCodec) -> list[Any]:
        self.codec = codec
        return []


@broken("counts offsets anew after a switch", Promise.SWITCHING)
class CountsAnew(FullSplitter):
    def switch(self, codec: TinyCodec) -> list[Any]:
        self.stream_offset = 0
        return super().switch(codec)


@broken("is incomplete after a switch and whole frames", Promise.SWITCHING)
class EndsAfterSwitch(FullSplitter):
    switched = False

    def switch(self, codec: TinyCodec) -> list[Any]:
        self.switched = True
        return super().switch(codec)

    def feed_eof(self) -> None:
        if self.switched:
            raise InvalidFrameError("another codec began")
        super().feed_eof()


@broken("counts a delivered byte as pending after a switch", Promise.SWITCHING)
class HoldsBack(FullSplitter):
    held_back = 0

    @property
    def pending(self) -> int:
        return super().pending + self.held_back

    def switch(self, codec: TinyCodec) -> list[Any]:
        self.held_back = 1
        self.stream_offset -= 1
        return super().switch(codec)
