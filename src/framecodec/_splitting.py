"""The methods of `Codec` that give its messages out of a stream: `splitter` and `read`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, overload

from ._files import read_messages
from ._message_types import MessageT, OfMessages
from .splitter import Splitter

__all__ = ["Splitting"]


class Splitting(OfMessages[MessageT]):
    """The methods of `Codec` that give its messages out of a stream."""

    @overload
    def splitter(
        self,
        *,
        raw: Literal[True],
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
        one_at_a_time: bool = False,
        stream_offset: int = 0,
    ) -> Splitter[bytes]: ...

    @overload
    def splitter(
        self,
        *,
        raw: bool = False,
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
        one_at_a_time: bool = False,
        stream_offset: int = 0,
    ) -> Splitter[MessageT]: ...

    def splitter(
        self,
        *,
        raw: bool = False,
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
        one_at_a_time: bool = False,
        stream_offset: int = 0,
    ) -> Splitter[Any]:
        """Return the receiving state of a new connection; see `Splitter`."""
        codec: Any = self
        return Splitter(
            codec,
            raw=raw,
            on_oversize=on_oversize,
            on_invalid=on_invalid,
            one_at_a_time=one_at_a_time,
            stream_offset=stream_offset,
        )

    @overload
    def read(
        self,
        source: Any,
        /,
        *,
        raw: Literal[True],
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
    ) -> Iterator[bytes]: ...

    @overload
    def read(
        self,
        source: Any,
        /,
        *,
        raw: bool = False,
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
    ) -> Iterator[MessageT]: ...

    def read(
        self,
        source: Any,
        /,
        *,
        raw: bool = False,
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
    ) -> Iterator[Any]:
        """Return an iterator over the messages of a file, in constant memory.

        Args:
            source: A path, which is opened and closed; a binary file object, which stays open (a
                pipe, ``gzip.open()``, a serial port); a bytes-like object, or an iterable of them.
                A file without a byte is at its end; so is a serial port whose time-out passes.
            raw: Deliver whole frames instead of messages.
            on_oversize: As for `Splitter`.
            on_invalid: As for `Splitter`.

        Raises:
            FrameError: A frame is bad or cut off; the messages before it come first.
            TypeError: `source` is something else; at once.
            OSError: The file cannot be opened or read.
        """
        splitter = self.splitter(raw=raw, on_oversize=on_oversize, on_invalid=on_invalid)
        return read_messages(splitter, source)
