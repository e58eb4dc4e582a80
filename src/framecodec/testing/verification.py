"""Hold a codec to the promises of the documentation, and name the smallest case that breaks one.

A splitter that is given the first n bytes of a stream in one piece is the reference for every way
to cut these n bytes: both must show the same messages, the same error and the same numbers. Where a
stream is made of whole frames, the messages that went into it are known as well.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

from ..codec import Codec
from ..errors import FrameError, IncompleteFrameError, MessageTooLargeError
from .chunking import chunkings, cut
from .continuing import check_continuing
from .feeding import (
    FEED,
    WITH_BUFFER,
    WITH_REUSED_MEMORY,
    State,
    describe_error,
    feed_chunks,
    same,
    show,
    show_chunks,
)
from .memory import check_memory
from .promises import BrokenPromiseError, Problem, Promise
from .streams import NOT_CHECKED, Stream, shrink

__all__ = ["verify_codec"]

# Streams up to this many bytes are cut at every place; the references of all places cost the square
# of it.
_SMALL = 1000
_MOST_PLACES = 24  # where larger streams are cut
_MOST_STREAMS = 16  # single messages that are tried alone
_DAMAGED = 30  # frames with a wrong byte
_NOISE = 12  # streams of random bytes


def verify_codec(codec: Any, messages: Iterable[Any], *, seed: int = 0) -> None:
    """Check that a codec keeps the promises of framecodec, on the given messages.

    Every message is encoded and decoded in all ways. Streams of their frames, whole, cut off and
    damaged, are passed to splitters in many chunkings, also to those with
    ``on_oversize="skip"``, with ``on_invalid="resync"`` (if the frames have a mark) and with
    ``one_at_a_time=True``, and to `Splitter.switch`. The cost grows with the size of the messages:
    a few small ones (0, 1, 10 bytes) find most defects in about a second.

    Args:
        codec: A `Codec`, in particular one by `Codec.custom`, or an object with some of its methods
            (at least ``encode`` and ``splitter``). The methods that it has are checked. Of a codec
            with objects, damaged streams and limits are checked on the bytes that travel.
        messages: The messages. One that the codec refuses with a `FrameError` must be refused by
            every way to encode, and is left out of the streams.
        seed: A number that determines the random choices.

    Raises:
        BrokenPromiseError: A promise is broken: an `AssertionError` whose text names the promise
            and the smallest chunking found that breaks it.
        ValueError: The codec refused all messages.
    """
    __tracebackhide__ = True  # pytest shows the line of the test instead
    try:
        subject = _Subject(codec, list(messages), seed)
        subject.check_encoding()
        subject.check_decoding()
        subject.check_whole_streams()
        subject.check_exactly_one()
        subject.check_ends()
        subject.check_copies()
        if isinstance(codec, Codec) and codec._objects is not None:
            # `loads` may refuse a damaged message, which ends no stream: damage is for the bytes.
            codec = codec.without_objects()
            subject = _Subject(codec, [codec.decode(frame) for frame in subject.frames], seed)
        subject.check_damaged_streams()
        subject.check_limits()
        check_continuing(subject)
        with subject.reporting():
            check_memory(codec, subject.messages)
    except BrokenPromiseError as error:
        raise error.with_traceback(None)  # noqa: B904


class _Reporting:
    """A context that turns a `Problem` into the `BrokenPromiseError` that the user sees."""

    def __init__(self, codec: Any, chunks: list[bytes] | None = None, way: str = "") -> None:
        self.codec = codec
        self.chunks = chunks or []
        self.way = way

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Problem):
            lines = [f"{show(self.codec)} breaks a promise: {error.promise}"]
            if self.chunks:
                size = sum(map(len, self.chunks))
                lines.append(f"smallest chunking: {show_chunks(self.chunks)} ({size} bytes)")
                lines.append(f"given by: {self.way}")
            lines.append(f"found: {error.found}")
            raise BrokenPromiseError(
                "\n  ".join("\n".join(lines).splitlines()),
                promise=error.promise,
                chunks=self.chunks,
            ) from error.__cause__


class _Subject:
    """The codec under test with its messages and their frames."""

    def __init__(self, codec: Any, messages: list[Any], seed: int) -> None:
        self.codec = codec
        self.rng = random.Random(f"verify_codec {seed}")
        self.seed = seed
        has_buffer = hasattr(codec.splitter(), "get_buffer")
        self.ways = [WITH_REUSED_MEMORY, WITH_BUFFER if has_buffer else FEED]
        self.messages: list[Any] = []
        self.frames: list[bytes] = []
        self.refused: list[tuple[Any, FrameError]] = []
        for message in messages:
            try:
                frame = codec.encode(message)
            except FrameError as error:
                self.refused.append((message, error))
                continue
            if not isinstance(frame, bytes):
                with self.reporting():
                    raise Problem(Promise.ENCODING, f"encode() returned {show(frame)}, not bytes")
            plain = isinstance(message, bytearray | memoryview)
            self.messages.append(bytes(message) if plain else message)
            self.frames.append(frame)
        if messages and not self.messages:
            message, reason = self.refused[0]
            raise ValueError(
                f"the codec encodes none of the {len(messages)} messages; the first one is"
                f" {show(message)}: {reason}"
            ) from reason

    def reporting(self, chunks: list[bytes] | None = None, way: str = FEED) -> _Reporting:
        return _Reporting(self.codec, chunks, way)

    def new_splitter(self, **options: Any) -> Callable[[], Any]:
        return lambda: self.codec.splitter(**options)

    def has_option(self, **options: Any) -> bool:
        """Return whether a double takes an option of `splitter`; a `Codec` takes all."""
        if not isinstance(self.codec, Codec):
            try:
                self.codec.splitter(**options)
            except TypeError:
                return False
        return True

    # --- encode and decode ------------------------------------------------------------------------

    def check_encoding(self) -> None:
        """Compare all ways to encode: they make the same frames and refuse the same messages."""
        with self.reporting():
            for message, frame in zip(self.messages, self.frames, strict=True):
                self.check_encodings(message, frame)
            if hasattr(self.codec, "encode_many"):
                joined = b"".join(self.frames)
                for batch in (list(self.messages), iter(self.messages)):
                    found = self.codec.encode_many(batch)
                    if found != joined:
                        text = f"encode_many() of {len(self.messages)} messages made {show(found)}"
                        raise Problem(
                            Promise.ENCODING, f"{text}, the joined frames are {show(joined)}"
                        )
            for message, error in self.refused:
                self.check_refused(message, error)

    def check_encodings(self, message: Any, frame: bytes) -> None:
        try:
            for name, found in self.encodings(message):
                if found != frame:
                    text = f"{name} made {show(found)} of {show(message)}"
                    raise Problem(Promise.ENCODING, f"{text}, encode() made {show(frame)}")
        except FrameError as error:
            text = f"encode() took {show(message)}, another way raised {describe_error(error)}"
            raise Problem(Promise.ENCODING, text) from error

    def encodings(self, message: Any) -> Iterator[tuple[str, bytes]]:
        codec = self.codec
        yield "encode(), repeated,", codec.encode(message)
        if hasattr(codec, "encode_many"):
            yield "encode_many() of one", codec.encode_many([message])
        if hasattr(codec, "frame_parts"):
            parts = codec.frame_parts(message)
            if not all(len(memoryview(part)) for part in parts):
                raise Problem(Promise.ENCODING, f"frame_parts({show(message)}) has an empty buffer")
            yield "frame_parts()", b"".join(parts)
        if isinstance(message, bytes):
            yield "encode() of a bytearray", codec.encode(bytearray(message))
            yield "encode() of a memoryview", codec.encode(memoryview(message))

    def check_refused(self, message: Any, error: FrameError) -> None:
        for name in ("encode", "encode_many", "frame_parts"):
            if not hasattr(self.codec, name):
                continue
            try:
                getattr(self.codec, name)([message] if name == "encode_many" else message)
            except type(error):
                continue
            except FrameError as other:
                found = f"raised {describe_error(other)}"
            else:
                found = "accepted it"
            text = f"encode() refused {show(message)}: {describe_error(error)}"
            raise Problem(Promise.ENCODING, f"{text}\n{name}() {found}")

    def check_decoding(self) -> None:
        """Check the first law."""
        if not hasattr(self.codec, "decode"):
            return
        for message, frame in sorted(
            zip(self.messages, self.frames, strict=True), key=lambda pair: len(pair[1])
        ):
            with self.reporting([frame], "decode()"):
                self.check_first_law(message, frame)

    def check_exactly_one(self) -> None:
        """Check that `decode` takes one whole frame and nothing else."""
        for frame in self.frames if hasattr(self.codec, "decode") else ():
            for bad, what in ((frame[:-1], "a frame without its end"), (frame * 2, "two frames")):
                with self.reporting([bad] if bad else [], "decode()"):
                    try:
                        found = self.codec.decode(bad)
                    except FrameError:
                        continue
                    except Exception as error:
                        text = f"decode() of {what} raised {describe_error(error)}"
                        raise Problem(Promise.EXACTLY_ONE, text) from error
                    raise Problem(Promise.EXACTLY_ONE, f"decode() of {what} returned {show(found)}")

    def check_first_law(self, message: Any, frame: bytes) -> None:
        for data in (frame, bytearray(frame), memoryview(frame)):
            try:
                found = self.codec.decode(data)
            except Exception as error:
                text = f"decode() of the frame of {show(message)} raised {describe_error(error)}"
                raise Problem(Promise.FIRST_LAW, text) from error
            if not same([found], [message]):
                raise Problem(Promise.FIRST_LAW, f"{show(message)} came back as {show(found)}")

    # --- whole frames -----------------------------------------------------------------------------

    def batches(self) -> list[list[int]]:
        """Return which messages make a stream, the smallest streams first."""
        order = sorted(range(len(self.frames)), key=lambda index: len(self.frames[index]))
        chosen = order[:: max(1, len(order) // _MOST_STREAMS)]
        pairs = [[*pair] for pair in pairwise(chosen[:6])]
        twice = [[chosen[0], chosen[0]]] if chosen else []
        every = [list(range(len(self.frames)))] if len(order) > 1 else []
        return [[index] for index in chosen] + twice + pairs + every

    def stream_of(self, batch: list[int], *, raw: bool = False) -> Stream:
        frames = [self.frames[index] for index in batch]
        messages = frames if raw else [self.messages[index] for index in batch]
        sizes = [*map(len, frames)]
        return Stream(
            b"".join(frames),
            self.new_splitter(raw=True) if raw else self.new_splitter(),
            list(zip(sizes, messages, strict=True)),
            Promise.RAW if raw else Promise.PROMPT,
        )

    def check_whole_streams(self) -> None:
        """Check streams of whole frames in many chunkings, as messages and as raw frames."""
        for batch in self.batches():
            stream = self.stream_of(batch)
            self.check_chunkings(stream, _limit(len(stream.data), whole=len(batch) > 2))
            self.check_whole_buffer(stream, batch)
        if self.messages and self.has_option(raw=True):
            for batch in [*self.batches()[:4], *self.batches()[-1:]]:
                self.check_chunkings(self.stream_of(batch, raw=True), 40)

    def check_whole_buffer(self, stream: Stream, batch: list[int]) -> None:
        """Check `split` and `scan` on whole frames, and on the same with a cut-off frame after."""
        last = self.frames[batch[-1]]
        for data in (stream.data, stream.data + last[: len(last) // 2]):
            with self.reporting([data], "split() and scan()"):
                try:
                    if hasattr(self.codec, "split"):
                        self.check_split(data, stream)
                    if hasattr(self.codec, "scan"):
                        self.check_scan(data, stream, batch)
                except FrameError as error:
                    raise Problem(Promise.SCANNING, describe_error(error)) from error

    def check_split(self, data: bytes, stream: Stream) -> None:
        messages, consumed = self.codec.split(data)
        if not same(messages, stream.expected or []) or consumed != len(stream.data):
            text = f"split() returned {show(messages)} of {consumed} bytes"
            raise Problem(Promise.SCANNING, text)

    def check_scan(self, data: bytes, stream: Stream, batch: list[int]) -> None:
        frames = [self.frames[index] for index in batch]
        objects = getattr(self.codec, "_objects", None)
        for raw, expected in ((True, frames), (False, stream.expected or [])):
            try:
                spans = self.codec.scan(data, raw=raw)
            except ValueError as error:
                if raw:
                    text = f"scan(raw=True) raised {describe_error(error)}"
                    raise Problem(Promise.SCANNING, text) from error
                continue  # a message that is not one piece of the frame, or a special
            found = [bytes(span) for span in spans]
            if not raw and objects is not None:  # scan() finds what they are made of
                found = [objects.loads(message) for message in found]
            if not same(found, expected) or spans.consumed != len(stream.data):
                text = f"scan(raw={raw}) found {show(found)} in {spans.consumed} bytes"
                raise Problem(Promise.SCANNING, text)

    # --- cutting and shrinking --------------------------------------------------------------------

    def check_chunkings(self, stream: Stream, limit: int) -> None:
        for number, chunks in enumerate(self.ways_to_cut(stream, limit)):
            self.check_chunking(stream, chunks, FEED)
            if number % 4 < 2:
                self.check_chunking(stream, chunks, self.ways[number % 2])
            if number % 8 == 7:  # empty chunks change nothing
                empties = [piece for chunk in chunks for piece in (b"", chunk)]
                self.check_chunking(stream, [*empties, b""], self.ways[number // 8 % 2])

    def ways_to_cut(self, stream: Stream, limit: int) -> Iterator[list[bytes]]:
        data = stream.data
        if len(data) <= _SMALL:
            yield from chunkings(data, limit=limit, seed=self.seed)
            return
        # Cut near the ends of frames, in the first header, and anywhere.
        near = {end + step for end in stream.ends[:20] for step in (-1, 0, 1)} | {*range(1, 12)}
        places = [place for place in near if 0 < place < len(data)]
        places = self.rng.sample(places, min(len(places), _MOST_PLACES - 6))
        places = sorted({*places, *(self.rng.randrange(1, len(data)) for _ in range(6))})
        yield [data]
        yield cut(data, tuple(places))
        for place in places:
            yield cut(data, (place,))
        for _ in range(max(0, min(limit, 40) - len(places))):
            yield cut(data, tuple(sorted(self.rng.sample(places, self.rng.randint(2, 5)))))

    def check_chunking(self, stream: Stream, chunks: list[bytes], way: str) -> None:
        try:
            stream.check(chunks, way)
        except Problem as problem:
            chunks, problem = shrink(stream, chunks, way, problem)
            with self.reporting(chunks, way):
                raise problem from problem.__cause__

    # --- the end of a stream ----------------------------------------------------------------------

    def check_ends(self) -> None:
        """End the stream after every byte: only after a whole frame the end is clean."""
        for batch in [*self.batches()[:6], *self.batches()[-1:]]:
            stream = self.stream_of(batch)
            size = len(stream.data)
            near = {end + step for end in stream.ends for step in (-1, 0, 1)} | {*range(40)}
            stops = [stop for stop in sorted(near) if 0 <= stop <= size]
            for stop in range(size + 1) if size <= 200 else [*stops[:100], *stops[-50:]]:
                with self.reporting([stream.data[:stop]] if stop else []):
                    self.check_end(stream, stop)
            for stop in self.rng.sample(range(1, size), min(size - 1, 4)):
                part = Stream(stream.data[:stop], stream.new_splitter)
                self.check_chunkings(part, 12)

    def check_end(self, stream: Stream, stop: int) -> None:
        found = stream.end(stop)
        if found is NOT_CHECKED:
            return
        if stop == 0 or stop in stream.ends:
            if found is not None:
                text = f"feed_eof() after whole frames raised {describe_error(found)}"
                raise Problem(Promise.END, text)
        elif not isinstance(found, IncompleteFrameError):
            text = f"feed_eof() inside a frame raised {found!r}"
            raise Problem(Promise.END, f"{text}, not IncompleteFrameError")
        self.check_detach(stream, stop)

    def check_detach(self, stream: Stream, stop: int) -> None:
        splitter = stream.new_splitter()
        if not hasattr(splitter, "detach"):
            return
        count = sum(
            len(state.messages)
            for state in feed_chunks(splitter, [stream.data[:stop]] if stop else [], FEED)
        )
        start = [0, *stream.ends][count]
        if start > stop:
            return  # delivered before the padding, which is not checked here
        found = splitter.detach()
        if found != stream.data[start:stop]:
            text = f"detach() returned {show(found)} instead of {show(stream.data[start:stop])}"
            raise Problem(Promise.DETACHING, text)

    # --- damaged streams --------------------------------------------------------------------------

    def check_damaged_streams(self) -> None:
        """Check streams with wrong bytes: the same messages and error for every chunking."""
        for data in self.damaged():
            stream = Stream(data, self.new_splitter())
            if self.frames:
                self.check_after_good_frame(stream)
            self.check_chunkings(stream, 10)
            with self.reporting([data]):
                self.check_found_messages(stream.reference(len(data)))

    def damaged(self) -> Iterator[bytes]:
        small = [frame for frame in self.frames if len(frame) <= _SMALL] or [
            frame[:_SMALL] for frame in self.frames[:1]
        ]
        small = sorted(small, key=len)[:12]
        for _ in range(_DAMAGED if small else 0):
            frame = self.rng.choice(small)
            # Headers and trailers are more interesting than what is between them.
            start = self.rng.choice([0, max(0, len(frame) - 6)])
            pos = self.rng.randrange(start, min(len(frame), start + 24))
            byte = frame[pos]
            changed = self.rng.choice([0, 0xFF, 0x30, 0x0A, byte ^ 1, byte ^ 0x80, byte + 1 & 255])
            rest = self.rng.choice([b"", b"\0", frame])
            yield frame[:pos] + bytes([changed]) + frame[pos + 1 :] + rest
        for _ in range(_NOISE):
            yield self.rng.randbytes(self.rng.randint(1, 24))
        yield b"GET / HTTP/1.1\r\nHost: a.b\r\n\r\n"

    def check_found_messages(self, state: State) -> None:
        """Check the first law on messages that the damage has made."""
        if not hasattr(self.codec, "decode"):
            return
        for message in state.messages:
            try:
                frame = self.codec.encode(message)
            except Exception:  # refused, as the first law allows
                continue
            self.check_first_law(message, frame)

    def check_after_good_frame(self, stream: Stream) -> None:
        """Check that a good frame before the damage is delivered and changes nothing after it."""
        index = min(range(len(self.frames)), key=lambda index: len(self.frames[index]))
        good, message = self.frames[index], self.messages[index]
        data = good + stream.data
        after = Stream(data, stream.new_splitter)
        with self.reporting([data]):
            alone, found = stream.reference(len(stream.data)), after.reference(len(data))
            moved = dict(alone.counters)
            if "stream_offset" in moved:
                moved["stream_offset"] += len(good)
            if (
                not same(found.messages, [message, *alone.messages])
                or type(found.error) is not type(alone.error)
                or found.counters != moved
            ):
                text = f"{found}\nwithout the good frame {show(good)} before it: {alone}"
                raise Problem(Promise.MESSAGES_FIRST, text)
        self.check_chunkings(after, 3)

    # --- limits -----------------------------------------------------------------------------------

    def check_limits(self) -> None:
        """Lower the limit below some messages: they are refused, or skipped, and no others are."""
        if not hasattr(self.codec, "replace") or not all(
            isinstance(message, bytes) for message in self.messages
        ):
            return
        sizes = sorted({len(message) for message in self.messages})
        for limit in {size - 1 for size in (*sizes[1:3], *sizes[-1:]) if size > 0}:
            try:
                codec = self.codec.replace(max_message_size=limit)
            except (TypeError, ValueError):  # the codec has no such limit
                continue
            self.check_limit(codec, limit)

    def check_limit(self, codec: Any, limit: int) -> None:
        pairs = list(zip(self.messages, self.frames, strict=True))
        kept = [(message, frame) for message, frame in pairs if len(message) <= limit]
        for message, frame in [pair for pair in pairs if len(pair[0]) > limit][:8]:
            first = [pair[1] for pair in kept[:1]]
            data = b"".join([*first, frame])
            stream = Stream(data, lambda: codec.splitter())
            with self.reporting([data]):
                state = stream.reference(len(data))
                if not isinstance(state.error, MessageTooLargeError) or not same(
                    state.messages, [pair[0] for pair in kept[:1]]
                ):
                    text = f"with max_message_size={limit} a message of {len(message)} bytes"
                    raise Problem(Promise.LIMIT, f"{text}: {state}")
            with self.reporting():
                try:
                    codec.encode(message)
                except MessageTooLargeError:
                    pass
                else:
                    text = f"encode() took {len(message)} bytes with max_message_size={limit}"
                    raise Problem(Promise.LIMIT, text)
            self.check_chunkings(stream, 16)
        if self.has_option(on_oversize="skip"):
            self.check_skipping(codec, limit, pairs)

    def check_skipping(self, codec: Any, limit: int, pairs: list[tuple[bytes, bytes]]) -> None:
        pairs = pairs[:16]
        data = b"".join(frame for _, frame in pairs)
        kept = [message for message, _ in pairs if len(message) <= limit]
        stream = Stream(data, lambda: codec.splitter(on_oversize="skip"))
        with self.reporting([data]):
            state = stream.reference(len(data))
            skipped = state.counters.get("skipped", len(pairs) - len(kept))
            if (
                state.error is not None
                or not same(state.messages, kept)
                or skipped != len(pairs) - len(kept)
                or stream.end(len(data)) not in (None, NOT_CHECKED)
            ):
                text = f"with max_message_size={limit}: {state}\nexpected: {show(kept)}"
                raise Problem(Promise.SKIPPING, text)
        self.check_chunkings(stream, 40)

    # --- a codec as a value -----------------------------------------------------------------------

    def check_copies(self) -> None:
        """Check that a pickled codec is equal and makes the same frames."""
        if not isinstance(self.codec, Codec):
            return  # for other objects nothing is promised
        try:
            pickled = pickle.dumps(self.codec)
        except Exception:  # functions that cannot be pickled
            return
        twin = pickle.loads(pickled)
        with self.reporting():
            equal = twin == self.codec and hash(twin) == hash(self.codec)
            if not equal and self.codec.kind != "custom":
                raise Problem(Promise.PICKLING, f"the copy is {twin!r}")
            for message, frame in zip(self.messages[:8], self.frames[:8], strict=True):
                if twin.encode(message) != frame or not same([twin.decode(frame)], [message]):
                    text = f"the copy encodes {show(message)} as {show(twin.encode(message))}"
                    raise Problem(Promise.PICKLING, text)


def _limit(size: int, *, whole: bool) -> int:
    """Return how many chunkings of a stream are tried: all of a few bytes, some of many."""
    if size <= 10:
        return 1 << 9
    return 120 if whole else 40
