"""A small correct codec with its splitter, and doubles of it that each have one defect.

`BROKEN` has them by a phrase that describes the defect, with the promise that each one breaks and
messages that show it.
`verify_codec` must catch them all, and must accept `TinyCodec`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from framecodec import (
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
)
from framecodec.testing import Promise

__all__ = ["BROKEN", "MESSAGES", "TinyCodec"]

MESSAGES = [b"hello", b"", b"a", b"MM\0!", b"a longer message of 33 bytes ...\n", bytes(70)]

MAGIC, END = b"M", b"!"


class TinySplitter:
    """The splitter of `TinyCodec`: correct, and plain enough that a defect is one line."""

    def __init__(self, codec: TinyCodec, raw: bool = False, on_oversize: str = "raise") -> None:
        self.codec = codec
        self.raw = raw
        self.on_oversize = on_oversize
        self.held = b""
        self.skipped_header = b""
        self.to_skip = self.dropped = 0  # bytes of the frame that is skipped
        self.stream_offset = 0
        self.skipped = 0
        self.error: FrameError | None = None
        self.buffer: bytearray | None = None

    @property
    def pending(self) -> int:
        return self.dropped + len(self.held)

    @property
    def bytes_needed(self) -> int:
        if self.to_skip:
            return self.to_skip
        if len(self.held) < 5:
            return 5 - len(self.held)
        return max(1, 6 + int.from_bytes(self.held[1:5], "big") - len(self.held))

    def feed(self, data: Any) -> list[Any]:
        if self.error is not None:
            raise self.error
        self.held += bytes(data)
        messages: list[Any] = []
        try:
            while (message := self.take()) is not None:
                messages += message
        except FrameError as error:
            self.error = error
            if not messages:
                raise
        return messages

    def take(self) -> list[Any] | None:
        """Return the next message in a list; an empty list for a skipped frame, None for none."""
        if self.to_skip:
            return self.skip()
        if self.held[:1] not in (b"", MAGIC):
            raise InvalidFrameError(f"no magic at {self.stream_offset}", **self.place(1))
        if len(self.held) < 5:
            return None
        size = int.from_bytes(self.held[1:5], "big")
        is_oversized = size > self.codec.max_message_size
        if is_oversized and self.on_oversize == "raise":
            limit = self.codec.max_message_size
            text = f"too large: {size}"
            raise MessageTooLargeError(text, size=size, limit=limit, **self.place(5))
        if is_oversized:
            self.to_skip, self.skipped_header = size + 6, self.held[:5]
            return self.skip()
        if len(self.held) < size + 6:
            return None
        if self.held[size + 5 : size + 6] != END:
            raise InvalidFrameError(f"no end at {self.stream_offset}", **self.place(5))
        frame, self.held = self.held[: size + 6], self.held[size + 6 :]
        self.stream_offset += len(frame)
        return [frame if self.raw else frame[5:-1]]

    def skip(self) -> list[Any] | None:
        """Drop bytes of an oversized frame, but not the end mark before it is checked."""
        size = min(len(self.held), self.to_skip - 1)
        self.held = self.held[size:]
        self.dropped += size
        self.to_skip -= size
        if self.to_skip > 1 or not self.held:
            return None
        if self.held[:1] != END:
            raise InvalidFrameError(f"no end at {self.stream_offset}", **self.place(5))
        self.held = self.held[1:]
        self.stream_offset += self.dropped + 1
        self.to_skip = self.dropped = 0
        self.skipped_header = b""
        self.skipped += 1
        return []

    def place(self, size: int) -> dict[str, Any]:
        header = (self.skipped_header or self.held)[:size]
        return {"stream_offset": self.stream_offset, "header": header}

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        if self.error is not None:
            raise self.error
        self.buffer = bytearray(64)
        return memoryview(self.buffer)

    def buffer_updated(self, count: int) -> list[Any]:
        assert self.buffer is not None
        return self.feed(self.buffer[:count])

    def feed_eof(self) -> None:
        if self.error is None and self.pending:
            self.error = IncompleteFrameError(
                f"{self.pending} bytes", received=self.pending, **self.place(5)
            )
        if self.error is not None:
            raise self.error

    def detach(self) -> bytes:
        return self.held


class TinyCodec:
    """A magic, 4 bytes of length, the message, an end mark."""

    splitter_class: type[TinySplitter] = TinySplitter

    def __init__(self, max_message_size: int = 16 * 1024 * 1024) -> None:
        self.max_message_size = max_message_size

    def replace(self, *, max_message_size: int) -> TinyCodec:
        return type(self)(max_message_size)

    def splitter(self, *, raw: bool = False, on_oversize: str = "raise") -> TinySplitter:
        return self.splitter_class(self, raw, on_oversize)

    def encode(self, message: Any) -> bytes:
        data = bytes(message)
        if len(data) > self.max_message_size:
            limit = self.max_message_size
            raise MessageTooLargeError("too large", size=len(data), limit=limit)
        return MAGIC + len(data).to_bytes(4, "big") + data + END

    def encode_many(self, messages: Iterable[Any]) -> bytes:
        return b"".join(map(self.encode, messages))

    def frame_parts(self, message: Any) -> list[Any]:
        frame = self.encode(message)
        return [part for part in (frame[:5], frame[5:-1], END) if part]

    # By the correct splitter: a double with another one has a single defect.

    def decode(self, frame: Any) -> Any:
        splitter = TinySplitter(self)
        messages = splitter.feed(frame)
        splitter.feed_eof()
        if len(messages) != 1:
            raise InvalidFrameError("not one frame")
        return messages[0]

    def split(self, data: bytes) -> tuple[list[Any], int]:
        splitter = TinySplitter(self)
        return splitter.feed(data), splitter.stream_offset

    def scan(self, data: bytes, *, raw: bool = False) -> Any:
        splitter = TinySplitter(self, raw)
        spans = Spans(splitter.feed(data))
        spans.consumed = splitter.stream_offset
        return spans


class Spans(list[Any]):
    consumed = 0


# defect -> the promise that it breaks, the codec, the messages that show it
BROKEN: dict[str, tuple[Promise, Any, list[bytes]]] = {}


def broken(
    defect: str, promise: Promise, base: type[TinyCodec] = TinyCodec
) -> Callable[[type], type]:
    """Add a class to `BROKEN`: a codec, or a splitter for which a codec is made of `base`."""

    def add(kind: type) -> type:
        codec: Any = kind
        if issubclass(kind, TinySplitter):
            codec = type(kind.__name__, (base,), {"splitter_class": kind})
        BROKEN[defect] = (promise, codec(), MESSAGES)
        return kind

    return add


# --- splitters ------------------------------------------------------------------------------------


@broken("drops what is left of a chunk that ends in a header", Promise.CHUNKING)
class DropsHeaders(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        messages = super().feed(data)
        if 0 < len(self.held) < 5:
            self.stream_offset += len(self.held)
            self.held = b""
        return messages


@broken("reads a header that is not whole", Promise.ERRORS)
class ReadsHeadersEarly(TinySplitter):
    def take(self) -> list[Any] | None:
        if self.held:
            self.held[4]
        return super().take()


@broken("returns one message a call and forgets the others", Promise.PROMPT)
class OneMessageACall(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        return super().feed(data)[:1]


@broken("delivers a message when the next one begins", Promise.PROMPT)
class DeliversLate(TinySplitter):
    def take(self) -> list[Any] | None:
        size = int.from_bytes(self.held[1:5], "big")
        return super().take() if len(self.held) > size + 6 or self.held[:1] != MAGIC else None


@broken("delivers an empty message twice", Promise.PROMPT)
class DeliversTwice(TinySplitter):
    def take(self) -> list[Any] | None:
        found = super().take()
        return found * 2 if found == [b""] else found


@broken("returns the same list each time", Promise.BOOKKEEPING)
class ReturnsOneList(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        self.__dict__.setdefault("all", []).extend(super().feed(data))
        everything: list[Any] = self.__dict__["all"]
        return everything


@broken("loses the messages before an error in the same chunk", Promise.MESSAGES_FIRST)
class LosesMessages(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        messages = super().feed(data)
        if self.error is not None:
            raise self.error
        return messages


@broken("drops a bad frame without an error when a good one came before", Promise.MESSAGES_FIRST)
class ForgetsErrors(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        messages = super().feed(data)
        self.error = None
        return messages


@broken("raises another error of the same kind after the first", Promise.STICKY)
class RaisesAnother(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        if self.error is not None:
            raise InvalidFrameError("another error", **self.place(1))
        return super().feed(data)


@broken("starts anew after an error", Promise.STICKY)
class StartsAnew(TinySplitter):
    raised = False

    def feed(self, data: Any) -> list[Any]:
        if self.error is not None and self.raised:
            return []
        self.raised = self.error is not None
        return super().feed(data)


@broken("accepts more bytes after an error through get_buffer()", Promise.STICKY)
class GivesBuffers(TinySplitter):
    def get_buffer(self, sizehint: int = -1) -> memoryview:
        self.buffer = bytearray(64)
        return memoryview(self.buffer)


@broken("counts the offset of an error from the start of the chunk", Promise.CHUNKING)
class OffsetsInChunks(TinySplitter):
    chunk_start = 0
    fed = 0

    def feed(self, data: Any) -> list[Any]:
        self.chunk_start, self.fed = self.fed, self.fed + len(data)
        return super().feed(data)

    def place(self, size: int) -> dict[str, Any]:
        place = super().place(size)
        place["stream_offset"] -= self.chunk_start
        return place


@broken("describes an error by what it holds", Promise.CHUNKING)
class ShowsWhatItHolds(TinySplitter):
    def place(self, size: int) -> dict[str, Any]:
        return {**super().place(size), "header": self.held}


@broken("ends silently inside a frame", Promise.END)
class EndsSilently(TinySplitter):
    def feed_eof(self) -> None:
        if self.error is not None:
            raise self.error


@broken("ends inside a frame as a file does", Promise.ERRORS)
class EndsAsFiles(TinySplitter):
    def feed_eof(self) -> None:
        if self.held and self.error is None:
            raise EOFError("the end")
        super().feed_eof()


@broken("calls an end inside a frame invalid", Promise.END)
class EndsInvalid(TinySplitter):
    def feed_eof(self) -> None:
        if self.held and self.error is None:
            self.error = InvalidFrameError("the end")
        super().feed_eof()


@broken("calls a clean end incomplete", Promise.END)
class NeverEnds(TinySplitter):
    def feed_eof(self) -> None:
        if self.error is None:
            self.error = IncompleteFrameError("the end")
        raise self.error


@broken("raises at the end only once", Promise.STICKY)
class EndsOnce(TinySplitter):
    def feed_eof(self) -> None:
        held, self.held = self.held, b""
        if held and self.error is None:
            raise IncompleteFrameError("the end")
        super().feed_eof()


@broken("counts pending bytes of the chunk only", Promise.BOOKKEEPING)
class CountsChunks(TinySplitter):
    chunk_size = 0

    def feed(self, data: Any) -> list[Any]:
        self.chunk_size = len(data)
        return super().feed(data)

    @property
    def pending(self) -> int:
        return min(len(self.held), self.chunk_size)


@broken("needs no bytes", Promise.BOOKKEEPING)
class NeedsNothing(TinySplitter):
    bytes_needed = 0  # type: ignore[assignment]


@broken("needs more bytes than the frame has", Promise.BOOKKEEPING)
class NeedsTooMuch(TinySplitter):
    @property
    def bytes_needed(self) -> int:
        return super().bytes_needed + 1


@broken("takes the whole buffer instead of what was read", Promise.BOOKKEEPING)
class TakesWholeBuffers(TinySplitter):
    def buffer_updated(self, count: int) -> list[Any]:
        return super().buffer_updated(64)


@broken("loses the messages of a buffer that ends in a frame", Promise.BUFFERS)
class LosesBuffers(TinySplitter):
    def buffer_updated(self, count: int) -> list[Any]:
        messages = super().buffer_updated(count)
        return [] if self.held else messages


@broken("keeps a view of the caller's memory", Promise.BUFFERS)
class KeepsViews(TinySplitter):
    views: tuple[Any, ...] = ()

    def feed(self, data: Any) -> list[Any]:
        if isinstance(data, bytearray):
            self.views += (data,)
            if self.held:  # read once more, from memory that the caller has overwritten
                size = len(self.held)
                known = b"".join(bytes(view) for view in self.views[:-1])
                self.held = known[-size:] if known else self.held
        return super().feed(data)


@broken("delivers views of its memory", Promise.PROMPT)
class DeliversViews(TinySplitter):
    def take(self) -> list[Any] | None:
        found = super().take()
        return found and [memoryview(found[0])]


@broken("delivers a message that changes later", Promise.BUFFERS)
class ChangesMessages(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        messages = self.__dict__.setdefault("all", [])
        for message in messages:
            message.text = b"?"
        new = [Mutable(message) for message in super().feed(data)]
        messages += new
        return new


class Mutable(bytes):
    """`bytes` whose comparison can change, as memory that an engine writes to after delivery."""

    def __init__(self, text: bytes) -> None:
        self.text = bytes(text)

    def __eq__(self, other: object) -> bool:
        return self.text == (other.text if isinstance(other, Mutable) else other)

    __hash__ = bytes.__hash__


@broken("allocates what a header declares", Promise.MEMORY)
class Allocates(TinySplitter):
    memory = b""

    def take(self) -> list[Any] | None:
        size = int.from_bytes(self.held[1:5], "big")
        if 2**20 < size < 2**24 and not self.memory:
            self.memory = bytes(size)
        return super().take()


@broken("keeps the frame that it skips", Promise.MEMORY)
class KeepsSkipped(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        self.__dict__.setdefault("all", []).append(data)
        return super().feed(data) if len(data) < 2**15 else super().feed(bytes(bytearray(data)))

    def skip(self) -> list[Any] | None:
        self.__dict__.setdefault("skipped_bytes", bytearray()).extend(self.held)
        return super().skip()


@broken("has an empty buffer", Promise.BUFFERS)
class EmptyBuffer(TinySplitter):
    def get_buffer(self, sizehint: int = -1) -> memoryview:
        super().get_buffer()
        return memoryview(b"")


@broken("has no buffer in the middle of a frame", Promise.BUFFERS)
class NoBuffer(TinySplitter):
    def get_buffer(self, sizehint: int = -1) -> memoryview:
        if self.held:
            raise ValueError("not now")
        return super().get_buffer()


@broken("raises another error for a second end", Promise.STICKY)
class EndsDifferently(TinySplitter):
    def feed_eof(self) -> None:
        try:
            super().feed_eof()
        except IncompleteFrameError:
            self.error = InvalidFrameError("ended already")
            raise


@broken("raises at the end and keeps no error", Promise.STICKY)
class KeepsNoError(TinySplitter):
    def feed_eof(self) -> None:
        try:
            super().feed_eof()
        finally:
            if isinstance(self.error, IncompleteFrameError):
                self.error = None


@broken("is a ValueError after an error", Promise.STICKY)
class OtherErrors(TinySplitter):
    def get_buffer(self, sizehint: int = -1) -> memoryview:
        if self.error is not None:
            raise ValueError("no buffer")
        return super().get_buffer()


@broken("is a frame error of another kind after an error", Promise.STICKY)
class OtherFrameErrors(TinySplitter):
    def feed_eof(self) -> None:
        if self.error is not None:
            raise IncompleteFrameError("the end")
        super().feed_eof()


@broken("raises after the last byte of a good frame", Promise.PROMPT)
class RaisesAfterGood(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        messages = super().feed(data)
        if messages and not self.held:
            self.error = InvalidFrameError("what now?")
        return messages


@broken("leaves the end mark out of raw frames", Promise.RAW)
class ShortensRawFrames(TinySplitter):
    def take(self) -> list[Any] | None:
        found = super().take()
        return [found[0][:-1]] if found and self.raw else found


@broken("forgets what it holds when a chunk is empty", Promise.BOOKKEEPING)
class ForgetsOnEmpty(TinySplitter):
    def feed(self, data: Any) -> list[Any]:
        if not len(data):
            self.held = b""
        return super().feed(data)


@broken("gives nothing back", Promise.DETACHING)
class GivesNothingBack(TinySplitter):
    def detach(self) -> bytes:
        return b""


@broken("refuses a message of the largest size", Promise.SKIPPING)
class SkipsTooMuch(TinySplitter):
    def take(self) -> list[Any] | None:
        size = int.from_bytes(self.held[1:5], "big")
        found = super().take()
        if found and self.on_oversize == "skip" and size == self.codec.max_message_size:
            self.skipped += 1
            return []
        return found


@broken("counts no skipped frame", Promise.SKIPPING)
class CountsNoSkips(TinySplitter):
    def take(self) -> list[Any] | None:
        found = super().take()
        self.skipped = 0
        return found


@broken("reads messages of any size", Promise.LIMIT)
class ReadsAnySize(TinySplitter):
    def __init__(self, codec: TinyCodec, raw: bool = False, on_oversize: str = "raise") -> None:
        super().__init__(TinyCodec() if on_oversize == "raise" else codec, raw, on_oversize)


# --- codecs ---------------------------------------------------------------------------------------


@broken("strips a message's end", Promise.FIRST_LAW)
class Strips(TinyCodec):
    def encode(self, message: Any) -> bytes:
        return super().encode(bytes(message).rstrip())


@broken("decodes to a bytearray", Promise.FIRST_LAW)
class DecodesToBytearray(TinyCodec):
    def decode(self, frame: Any) -> Any:
        return bytearray(super().decode(frame))


@broken("leaves out empty messages of a batch", Promise.ENCODING)
class LeavesOutEmpty(TinyCodec):
    def encode_many(self, messages: Iterable[Any]) -> bytes:
        return super().encode_many(filter(None, messages))


@broken("reads a batch twice", Promise.ENCODING)
class ReadsTwice(TinyCodec):
    def encode_many(self, messages: Iterable[Any]) -> bytes:
        max(map(len, messages), default=0)
        return super().encode_many(messages)


@broken("has empty buffers in a frame's parts", Promise.ENCODING)
class EmptyParts(TinyCodec):
    def frame_parts(self, message: Any) -> list[Any]:
        return [MAGIC, len(message).to_bytes(4, "big"), message, END]


@broken("encodes a bytearray as text", Promise.ENCODING)
class EncodesText(TinyCodec):
    def encode(self, message: Any) -> bytes:
        return super().encode(message if isinstance(message, bytes) else repr(message).encode())


@broken("numbers its frames", Promise.ENCODING)
class NumbersFrames(TinyCodec):
    count = 0

    def encode(self, message: Any) -> bytes:
        self.count += 1
        return super().encode(b"%d" % self.count + bytes(message))


@broken("ignores bytes after a frame", Promise.EXACTLY_ONE)
class IgnoresMore(TinyCodec):
    def decode(self, frame: Any) -> Any:
        return self.splitter().feed(frame)[0] if len(frame) > 5 else super().decode(frame)


@broken("decodes a frame without its end", Promise.EXACTLY_ONE)
class DecodesShort(TinyCodec):
    def decode(self, frame: Any) -> Any:
        whole = bytes(frame).endswith(END) or len(frame) < 5
        return super().decode(frame if whole else bytes(frame) + END)


@broken("counts the bytes of an unfinished frame as read", Promise.SCANNING)
class CountsTooMuch(TinyCodec):
    def split(self, data: bytes) -> tuple[list[Any], int]:
        return super().split(data)[0], len(data)


@broken("splits nothing if a frame is cut off", Promise.SCANNING)
class SplitsWholeOnly(TinyCodec):
    def split(self, data: bytes) -> tuple[list[Any], int]:
        messages, consumed = super().split(data)
        if consumed < len(data):
            raise InvalidFrameError("more bytes follow")
        return messages, consumed


@broken("does not scan whole frames", Promise.SCANNING)
class ScansMessagesOnly(TinyCodec):
    def scan(self, data: bytes, *, raw: bool = False) -> Any:
        if raw:
            raise ValueError("raw must be False")
        return super().scan(data)


@broken("encodes to a bytearray", Promise.ENCODING)
class EncodesToBytearray(TinyCodec):
    def encode(self, message: Any) -> Any:
        return bytearray(super().encode(message))


@broken("refuses bytearrays", Promise.ENCODING)
class RefusesBytearrays(TinyCodec):
    def encode(self, message: Any) -> bytes:
        if isinstance(message, bytearray):
            raise InvalidFrameError("bytes only")
        return super().encode(message)


@broken("refuses a message with different errors", Promise.ENCODING)
class RefusesDifferently(TinyCodec):
    def encode(self, message: Any) -> bytes:
        if message == b"a":
            raise MessageTooLargeError("not this one")
        return super().encode(message)

    def frame_parts(self, message: Any) -> list[Any]:
        if message == b"a":
            raise InvalidFrameError("not this one")
        return super().frame_parts(message)


@broken("does not find the last frame", Promise.SCANNING)
class OverlooksFrames(TinyCodec):
    def scan(self, data: bytes, *, raw: bool = False) -> Any:
        spans = super().scan(data, raw=raw)
        del spans[1:]
        return spans


@broken("writes messages of any size", Promise.LIMIT)
class WritesAnySize(TinyCodec):
    def encode(self, message: Any) -> bytes:
        return MAGIC + len(message).to_bytes(4, "big") + bytes(message) + END


@broken("refuses a message in one way to encode only", Promise.ENCODING)
class RefusesSometimes(TinyCodec):
    def encode(self, message: Any) -> bytes:
        if message == b"a":
            raise InvalidFrameError("not this one")
        return super().encode(message)

    def frame_parts(self, message: Any) -> list[Any]:
        return [MAGIC, len(message).to_bytes(4, "big") + bytes(message) + END]


# --- descriptions of the user's, for a real `Codec` -----------------------------------------------


def build_varint(message: memoryview) -> bytes:
    size = len(message)
    return bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])


def parse_cut_varint(view: memoryview) -> Any:
    """Take a number whose second byte has not arrived for one of a single byte."""
    if view[0] < 0x80 or len(view) < 2:
        return 1, view[0] & 0x7F
    return 2, view[0] & 0x7F | view[1] << 7


def parse_to_the_end(view: memoryview) -> Any:
    """Take what is there for the whole rest."""
    return 1, len(view) - 1


def parse_one_too_many(view: memoryview) -> Any:
    return 1, view[0] + 1


def build_short(message: memoryview) -> bytes:
    return bytes([len(message) & 0xFF])


def parse_short(view: memoryview) -> Any:
    return 1, view[0]


class Counting:
    """A parser with a memory: each frame is read in another way."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, view: memoryview) -> Any:
        self.count += 1
        return 1, view[0] if self.count % 5 else 0


class Forgetful:
    """A function that loses what it knows when it is pickled."""

    def __init__(self, mask: int = 0) -> None:
        self.mask = mask

    def __getstate__(self) -> dict[str, int]:
        return {"mask": 0}

    def __call__(self, message: memoryview) -> bytes:
        return bytes([len(message) ^ self.mask])


class ForgetfulParse(Forgetful):
    def __call__(self, view: memoryview) -> Any:  # type: ignore[override]
        return 1, view[0] ^ self.mask


BROKEN |= {
    "takes a cut number for a short one": (
        Promise.CHUNKING,
        Codec.custom(parse_cut_varint, build_varint),
        [*MESSAGES, bytes(200)],
    ),
    "takes the chunk's end for the frame's": (
        Promise.PROMPT,
        Codec.custom(parse_to_the_end, build_short),
        [b"", b"hello"],
    ),
    "reads one byte too many": (
        Promise.FIRST_LAW,
        Codec.custom(parse_one_too_many, build_short),
        MESSAGES,
    ),
    "has a number that wraps around": (
        Promise.FIRST_LAW,
        Codec.custom(parse_short, build_short),
        [*MESSAGES, bytes(300)],
    ),
    "has a parser with a memory": (
        Promise.FIRST_LAW,
        Codec.custom(Counting(), build_short),
        MESSAGES,
    ),
    "changes when it is pickled": (
        Promise.PICKLING,
        Codec.custom(ForgetfulParse(0x55), Forgetful(0x55)),
        [b"", b"hello"],
    ),
}
