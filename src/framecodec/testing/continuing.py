"""Check splitters that continue where others end: after a bad frame, a message, or a switch.

These are the splitters with ``on_invalid="resync"``, those with ``one_at_a_time=True``, and
`Splitter.switch`. A codec whose frames have no mark, and an object of the user's without an option,
are not checked for that option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Any

from ..codec import Codec
from ..errors import FrameError, IncompleteFrameError, InvalidFrameError, MessageTooLargeError
from .chunking import chunkings
from .feeding import FEED, WAYS, State, describe_error, error_key, feed_chunks, same, show
from .promises import Problem, Promise
from .streams import Stream

__all__ = ["check_continuing"]

_BAD_BYTES = (b"\0", b"\xff", b"?", b"\r")  # before whole frames, where they begin no frame
_MOST_DAMAGED = 16  # streams
_LARGEST = 1000  # bytes of a frame that is put into the streams of this module
# What is read after a switch, by a codec that no codec under test is likely to be.
_OTHER = Codec.uint(2, magic=b"\xa5\x5a")
_OTHER_MESSAGE = b"after the switch"
# Kinds of codecs that ignore bytes between frames: no message and no count shows them.
_IGNORE_BYTES = ("delimiter", "cobs", "choice", "joined")


def check_continuing(subject: Any) -> None:
    """Check the options of a splitter with which it continues.

    Args:
        subject: What `verify_codec` has made of the codec and the messages.

    Raises:
        BrokenPromiseError: A promise is broken.
    """
    frames = [frame for frame in subject.frames if len(frame) <= _LARGEST]
    if not frames:
        return
    if _takes(subject.codec, on_invalid="resync"):
        _Resync(subject).check()
    if _takes(subject.codec, one_at_a_time=True):
        _OneAtATime(subject).check()
        if hasattr(subject.codec.splitter(), "switch"):
            _Switching(subject).check()


def _takes(codec: Any, **options: Any) -> bool:
    try:
        codec.splitter(**options)
    except (TypeError, ValueError):
        return False
    return True


class _Checks:
    def __init__(self, subject: Any) -> None:
        self.subject = subject
        self.codec = subject.codec
        pairs = [
            (message, frame)
            for message, frame in zip(subject.messages, subject.frames, strict=True)
            if len(frame) <= _LARGEST
        ]
        self.pairs: list[tuple[Any, bytes]] = sorted(pairs, key=lambda pair: len(pair[1]))[:6]


# --- after a bad frame ----------------------------------------------------------------------------


class _Resync(_Checks):
    """Splitters that discard the bytes of a bad frame and continue at the next mark."""

    def new_splitter(self, *, raw: bool = False) -> Any:
        options = {"raw": True} if raw else {}
        return self.codec.splitter(on_invalid="resync", **options)

    def check(self) -> None:
        for batch in [*self.subject.batches()[:4], *self.subject.batches()[-1:]]:
            self.check_whole(self.subject.stream_of(batch))
        message, frame = self.pairs[0]
        for data in islice(self.subject.damaged(), _MOST_DAMAGED):
            self.check_damaged(frame + data + frame)
            with self.subject.reporting([frame + data]):
                self.check_end(frame + data)
        for message, frame in self.pairs[:3]:
            for bad in _BAD_BYTES:
                self.check_next_frames(bad, message, frame)

    def check_whole(self, whole: Stream) -> None:
        """Check that whole frames are read as without the option."""
        stream = Stream(whole.data, self.new_splitter)
        with self.subject.reporting([stream.data]):
            self.same_as_without(stream, whole.reference(len(whole.data)))
        self.subject.check_chunkings(stream, 12)

    def same_as_without(self, stream: Stream, plain: State) -> None:
        found = stream.reference(len(stream.data))
        if (
            not same(found.messages, plain.messages)
            or error_key(found.error) != error_key(plain.error)
            or found.counters != plain.counters
        ):
            text = f"{found}\nwithout on_invalid='resync': {plain}"
            raise Problem(Promise.RESYNC, text)

    def check_damaged(self, data: bytes) -> None:
        plain = Stream(data, self.codec.splitter).reference(len(data))
        stream = Stream(data, self.new_splitter)
        with self.subject.reporting([data]):
            if isinstance(plain.error, InvalidFrameError | MessageTooLargeError):
                self.check_report(data, plain)
            else:
                self.same_as_without(stream, plain)
            if not isinstance(self.codec, Codec) or self.codec.kind not in _IGNORE_BYTES:
                self.check_account(data)
        self.subject.check_chunkings(stream, 8)

    def check_report(self, data: bytes, plain: State) -> None:
        """Check what is said of a bad frame, and that the messages before it are delivered."""
        splitter = self.new_splitter()
        (found,) = feed_chunks(splitter, [data], FEED)
        problem = ""
        if isinstance(found.error, InvalidFrameError | MessageTooLargeError):
            problem = "the bad frame is an error"
        elif not same(found.messages[: len(plain.messages)], plain.messages):
            problem = f"the messages before the bad frame are {show(plain.messages)}"
        elif getattr(splitter, "resyncs", 1) < 1:
            problem = "the bad frame is not counted in `resyncs`"
        elif getattr(splitter, "discarded", 1) < 1:
            problem = "its bytes are not counted in `discarded`"
        elif hasattr(splitter, "last_invalid"):
            problem = _wrong_report(splitter, plain.error)
        if problem:
            text = f"{found}\n{problem}\nwithout on_invalid='resync': {plain}"
            raise Problem(Promise.RESYNC, text)

    def check_end(self, data: bytes) -> None:
        """Check that no byte is left after a clean end."""
        splitter = self.new_splitter()
        (state,) = feed_chunks(splitter, [data], FEED)
        if state.error is not None or not hasattr(splitter, "feed_eof"):
            return
        try:
            splitter.feed_eof()
        except IncompleteFrameError:
            return
        except Exception as error:
            text = f"feed_eof() raised {describe_error(error)} after {state}"
            raise Problem(Promise.RESYNC, text) from error
        if getattr(splitter, "pending", 0):
            text = f"{splitter.pending} bytes are pending after a clean feed_eof(), and {state}"
            raise Problem(Promise.RESYNC, text)

    def check_account(self, data: bytes) -> None:
        """Check that each byte is in a frame, discarded, or pending."""
        if not self.subject.has_option(raw=True):
            return
        splitter = self.new_splitter(raw=True)
        (state,) = feed_chunks(splitter, [data], FEED)
        if not hasattr(splitter, "discarded") or not hasattr(splitter, "stream_offset"):
            return
        size = sum(map(len, state.messages))
        if size + splitter.discarded != splitter.stream_offset:
            text = f"{state}\n{size} bytes are in raw frames and {splitter.discarded} discarded"
            raise Problem(Promise.RESYNC, text)

    def check_next_frames(self, bad: bytes, message: Any, frame: bytes) -> None:
        """Check that frames after a byte that begins none are found."""
        (plain,) = feed_chunks(self.codec.splitter(), [bad + frame], FEED)
        error = plain.error
        if plain.messages or not isinstance(error, InvalidFrameError) or error.stream_offset != 0:
            return  # the byte is a part of a frame
        if self.has_another_mark(frame):
            return
        data = bad + frame * 3
        with self.subject.reporting([data]):
            (found,) = feed_chunks(self.new_splitter(), [data], FEED)
            # Up to the next end mark or header line, a part of the first frame may be discarded.
            is_first_lost = isinstance(self.codec, Codec) and not self.codec.parameters["magic"]
            least = [message] if is_first_lost else [message] * 3
            if found.error is not None or not same(found.messages[-len(least) :], least):
                text = f"after {bad!r}, {len(least)} of three frames must be found: {found}"
                raise Problem(Promise.RESYNC, text)

    def has_another_mark(self, frame: bytes) -> bool:
        """Return whether a frame may be found elsewhere than at its first line, or not at all."""
        if not isinstance(self.codec, Codec) or self.codec.kind != "headers":
            return False
        has = self.codec.parameters
        name = re.escape(has["name"].encode()) + b":"
        return bool(has["start_line"]) or len(re.findall(name, frame, re.IGNORECASE)) != 1


def _wrong_report(splitter: Any, error: FrameError | None) -> str:
    """Return what is wrong with the last bad frame that a splitter reports, or ""."""
    found = splitter.last_invalid
    if not isinstance(found, InvalidFrameError | MessageTooLargeError):
        return f"last_invalid is {found!r}"
    assert error is not None
    is_same = type(found) is type(error) and found.stream_offset == error.stream_offset
    if getattr(splitter, "resyncs", 2) == 1 and not is_same:
        return f"last_invalid is {describe_error(found)}"
    return ""


# --- one message a call ---------------------------------------------------------------------------


class _OneByOne:
    """A splitter with ``one_at_a_time=True``, and what it has returned."""

    def __init__(self, splitter: Any, ends: list[int], promise: Promise) -> None:
        self.splitter = splitter
        self.ends = ends  # of the frames, where they are known exactly
        self.promise = promise
        self.fed = 0
        self.messages: list[Any] = []
        self.error: FrameError | None = None

    def __str__(self) -> str:
        return str(State(self.fed, self.messages, self.error, {}))

    def take(self, chunk: bytes, way: str) -> Iterator[None]:
        """Pass bytes; yield after each message."""
        rest = chunk
        while self.error is None:
            size, call = WAYS[way](self.splitter, rest)
            self.fed += size
            rest = rest[size:]
            while self.took(call):
                yield
                call = self.next_message
            if not rest:
                return

    def next_message(self) -> Any:
        return self.splitter.feed(b"")

    def took(self, call: Any) -> bool:
        """Make a call; return whether it has returned a message."""
        try:
            found = call()
        except FrameError as error:
            self.error = error
            return False
        except Exception as error:
            text = f"a call raised {describe_error(error)}, not a FrameError, after {self}"
            raise Problem(self.promise, text) from error
        self.messages += found
        if len(found) > 1:
            raise Problem(self.promise, f"one call returned {len(found)} messages: {show(found)}")
        if found:
            self.check_position()
        else:
            self.error = getattr(self.splitter, "error", None)
        return bool(found)

    def check_position(self) -> None:
        splitter, count = self.splitter, len(self.messages)
        if not (hasattr(splitter, "stream_offset") and hasattr(splitter, "pending")):
            return
        offset, pending = splitter.stream_offset, splitter.pending
        if offset + pending != self.fed:
            text = f"stream_offset {offset} + pending {pending} after {self.fed} bytes: {self}"
            raise Problem(self.promise, text)
        if count <= len(self.ends) and offset != self.ends[count - 1]:
            text = f"stream_offset is {offset} after the message that ends at byte"
            raise Problem(self.promise, f"{text} {self.ends[count - 1]}: {self}")


class _OneAtATime(_Checks):
    """Splitters that return at most one message a call."""

    def __init__(self, subject: Any) -> None:
        super().__init__(subject)
        self.is_padded = any(_is_padded(self.codec, frame) for _, frame in self.pairs)

    def new_splitter(self) -> Any:
        return self.codec.splitter(one_at_a_time=True)

    def check(self) -> None:
        frames = [frame for _, frame in self.pairs]
        ends = [] if self.is_padded else [*accumulate(map(len, frames))]
        self.check_chunkings(b"".join(frames), ends, 12)
        for data in islice(self.subject.damaged(), _MOST_DAMAGED):
            first = self.pairs[0][1] * 2
            self.check_chunkings(first + data, [], 4)
        self.check_undelivered()

    def check_chunkings(self, data: bytes, ends: list[int], limit: int) -> None:
        (plain,) = feed_chunks(self.codec.splitter(), [data], FEED)
        for number, chunks in enumerate(chunkings(data, limit=limit, seed=self.subject.seed)):
            way = [FEED, *self.subject.ways][number % 3]
            found = _OneByOne(self.new_splitter(), ends, Promise.ONE_AT_A_TIME)
            with self.subject.reporting(chunks, way):
                for chunk in chunks:
                    for _ in found.take(chunk, way):
                        pass
                if not same(found.messages, plain.messages) or error_key(found.error) != error_key(
                    plain.error
                ):
                    text = f"{found}\nwithout one_at_a_time: {plain}"
                    raise Problem(Promise.ONE_AT_A_TIME, text)

    def check_undelivered(self) -> None:
        """Check the end of the stream, and `detach`, while messages are undelivered."""
        message, frame = self.pairs[-1]
        data = frame * 3
        with self.subject.reporting([data]):
            found = _OneByOne(self.new_splitter(), [], Promise.ONE_AT_A_TIME)
            found.fed = len(data)
            found.took(lambda: found.splitter.feed(data))
            if hasattr(found.splitter, "feed_eof"):
                self.check_early_end(found)
            while found.took(found.next_message):
                pass
            if found.error is not None or not same(found.messages, [message] * 3):
                text = f"after an early feed_eof(): {found}"
                raise Problem(Promise.ONE_AT_A_TIME, text)
            splitter = self.new_splitter()
            if hasattr(splitter, "detach") and not self.is_padded:
                splitter.feed(data)
                unread = splitter.detach()
                if unread != frame * 2:
                    text = f"detach() after one of three messages returned {show(unread)}"
                    raise Problem(Promise.ONE_AT_A_TIME, text)

    def check_early_end(self, found: _OneByOne) -> None:
        try:
            found.splitter.feed_eof()
        except Exception as error:
            text = f"feed_eof() raised {describe_error(error)} while messages were undelivered"
            raise Problem(Promise.ONE_AT_A_TIME, text) from error


def _is_padded(codec: Any, frame: bytes) -> bool:
    """Return whether a message comes before the last bytes of its frame."""
    try:
        return bool(codec.splitter().feed(frame[:-1]))
    except FrameError:  # pragma: no cover (such a splitter breaks a promise that is checked before)
        return False


# --- another codec --------------------------------------------------------------------------------


class _Switching(_Checks):
    """Splitters that read on with another codec."""

    def check(self) -> None:
        message, _ = self.pairs[-1]
        if isinstance(self.codec, Codec):
            other, second = _OTHER, _OTHER_MESSAGE
            self.check_switch(self.codec, other, [message, second, second])
            self.check_switch(other, self.codec, [second, message, message])
        else:
            self.check_switch(self.codec, self.codec, [message] * 3)

    def check_switch(self, first: Any, then: Any, expected: list[Any]) -> None:
        """Switch after the first message, in many chunkings; check all that comes then."""
        begin = first.encode(expected[0])
        data = begin + then.encode(expected[1]) + then.encode(expected[2])
        for chunks in chunkings(data, limit=24, seed=self.subject.seed):
            with self.subject.reporting(chunks, f"{FEED}, with switch() after the first message"):
                found = _OneByOne(first.splitter(one_at_a_time=True), [], Promise.SWITCHING)
                self.take_all(found, chunks, then)
                if found.error is not None or not same(found.messages, expected):
                    text = f"{found}\nexpected: {show(expected)}"
                    raise Problem(Promise.SWITCHING, text)
                self.check_all_read(found)
        with self.subject.reporting([data]):
            splitter = first.splitter(one_at_a_time=True)
            splitter.feed(data)
            if not same(returned := splitter.switch(then), expected[1:2]):
                text = f"switch() returned {show(returned)}, not {show(expected[1:2])}"
                raise Problem(Promise.SWITCHING, text)

    def take_all(self, found: _OneByOne, chunks: list[bytes], then: Any) -> None:
        has_switched = False
        for chunk in chunks:
            for _ in found.take(chunk, FEED):
                if has_switched:
                    continue
                has_switched = True
                found.took(lambda: found.splitter.switch(then))

    def check_all_read(self, found: _OneByOne) -> None:
        splitter = found.splitter
        if getattr(splitter, "stream_offset", found.fed) != found.fed:
            text = f"stream_offset is {splitter.stream_offset} after {found.fed} bytes: {found}"
            raise Problem(Promise.SWITCHING, text)
        if hasattr(splitter, "feed_eof"):
            try:
                splitter.feed_eof()
            except Exception as error:
                text = f"feed_eof() raised {describe_error(error)} after whole frames: {found}"
                raise Problem(Promise.SWITCHING, text) from error
