"""Signal handlers that raise inside the Python engine: nothing is lost silently.

CPython runs a handler at the entry of a Python function and after a call. A profile function is
called at the same places, so that a test can raise at each of them in turn. Compiled code runs no
handler inside a call, unless it calls Python functions: those about messages that are objects.
"""

from __future__ import annotations

import contextlib
import sys
from types import FrameType, ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError, InvalidMessageError, _plain_reader_py, _splitter_py

takes_chunks_at_once = pytest.mark.skipif(
    not _plain_reader_py.IS_WHOLE_BETWEEN_CALLS, reason="all chunks take the lock"
)

MESSAGES = [b"a", b"bc" * 200, b"", b"d" * 20_000, b"e" * 3, b"f" * 70_000, b"g"]
CODECS = {
    "plain": Codec.uint(4),
    "magic, lead and trailer": Codec.uint(2, magic=b"M", length_offset=2, trailer=b"END"),
    "padding": Codec.uint(4, align=8),
    "specials": Codec.uint(4, signed=True, specials={-1: None}),
    "text": Codec.text(trailer=b","),
    "headers": Codec.headers(),
    "varint": Codec.varint(),
    "lines": Codec.delimiter(b"\n", b"\r\n"),
    "slip": Codec.delimiter(b"\xc0", escape={b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}),
    "custom": Codec.custom(
        lambda view: None if len(view) < 9 else (4, int.from_bytes(view[:4], "big")),
        lambda message: len(message).to_bytes(4, "big"),
    ),
    "choice": Codec.choice(
        {
            1: Codec.uint(4, length_offset=1),
            2: Codec.uint(3, length_offset=1, trailer=b"!"),
            3: Codec.delimiter(b"\n", max_message_size=100_000),
        }
    ),
    "joined": Codec.joined(Codec.uint(2), full=30_000),
    "joined by a bit": Codec.joined(
        Codec.uint(4, length_mask=0x7FFFFFFF, max_message_size=None),
        last=(0, 0x80, 0x80),
        strip=1,
        fragment_size=30_000,
    ),
    "delimiter": Codec.delimiter(b"\n", max_message_size=100_000),
    "cobs": Codec.cobs(max_message_size=100_000),
}


# The modules of the splitter.
PARTS = (
    "_splitter_py.py",
    *("_hand_over_py.py", "_read_memory_py.py"),
    *("_keeping_reader_py.py", "_frame_reader_py.py", "_plain_reader_py.py"),
    *("_fields_py.py", "_header_block.py", "_check_bytes.py"),
    *("_chosen_frames_py.py", "_joined_reader_py.py", "_marked_reader_py.py", "_marks_py.py"),
    *("_quick_frames_py.py", "_quick_loops_py.py", "_split_frames_py.py"),
    *("_object_messages_py.py", "_objects.py", "_repeated_errors.py"),
)


class Interrupted(BaseException):
    pass


class Handler:
    """Raises at the entry of a Python function, or after a call, when it has seen that many."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.endswith(PARTS):
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                raise Interrupted


def interrupted_at(number: int, call: Any, *arguments: Any) -> tuple[Any, bool, bool]:
    """The call's result; whether it raised; whether the handler raised at all."""
    handler = Handler(number)
    sys.setprofile(handler)
    try:
        result = call(*arguments)
    except Interrupted:
        return [], True, True
    finally:
        sys.setprofile(None)
    return result, False, handler.left < 0


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", CODECS)
def test_splitter_interrupted_anywhere_loses_and_doubles_nothing(name: str, raw: bool) -> None:
    codec = CODECS[name]
    if name == "specials":
        messages: list[Any] = [*MESSAGES, None, b"x", None]
    elif name == "choice":
        messages = [bytes([1 + n % 3]) + message for n, message in enumerate(MESSAGES)]
    elif codec.layout.lead_size:
        messages = [b"12" + message for message in MESSAGES if len(message) < 60_000]
    else:
        messages = list(MESSAGES)
    frames = [codec.encode(message) for message in messages]
    stream = b"".join(frames)
    starts, stop = {0}, 0
    padding = 0  # bytes of a frame after which its message is delivered
    if codec.layout.align > 1:
        padding = codec.layout.align - 1
    for frame, message in zip(frames, messages, strict=True):
        if padding:
            starts.add(stop + 4 + len(message))
        stop += len(frame)
        starts.add(stop)
    cuts = [(0, len(stream)), (3, len(stream)), (3, 10), (500, 15_000), (30_000, len(stream))]
    seen = 0
    for first, last in cuts:
        for number in range(2000):
            splitter = _splitter_py.Splitter(codec, raw=raw)
            before = splitter.feed(stream[:first])
            got, raised, interrupted = interrupted_at(number, splitter.feed, stream[first:last])
            if not interrupted:
                break
            seen += 1
            if splitter.error is None:
                taken = splitter.stream_offset + splitter.pending
                assert taken in (first, last), (number, first)
                assert raised
                assert not got
                rest = splitter.feed(stream[taken:])
                expected = frames if raw else messages
                assert [*before, *rest] == expected[: len(before) + len(rest)]
                whole = _splitter_py.Splitter(codec, raw=raw)
                assert [*before, *rest] == whole.feed(stream)
                continue
            with pytest.raises((Interrupted, FrameError)):
                splitter.feed(b"")
            unfinished = splitter.detach()
            assert stream[:last].endswith(unfinished)
            assert last - len(unfinished) in starts
            if not raised:  # the messages before the error were delivered
                delivered = sum(map(len, frames[: len(before) + len(got)]))
                assert 0 <= delivered - (last - len(unfinished)) <= padding
        else:
            pytest.fail("the call never came to its end")
    assert seen > 50


JSON = Codec.uint(4).as_json()
REFUSED = "an error about a message"
OBJECTS = [1, 2, REFUSED, 3, REFUSED, 4, 5, REFUSED, REFUSED, 6, 7]
_wire = [Codec.uint(4).encode(b"{" if item == REFUSED else b"%d" % item) for item in OBJECTS]
OBJECT_CHUNKS = [b"".join(_wire[:6]), b"", b"", b"", b"".join(_wire[6:10]), b"", b"", _wire[10]]


def objects_of(call: Any, *arguments: Any) -> list[Any]:
    try:
        return call(*arguments)  # type: ignore[no-any-return]
    except InvalidMessageError:
        return [REFUSED]


@pytest.mark.parametrize("way", ["feed", "feed a bytearray", "buffer_updated", "switch"])
@pytest.mark.parametrize("turn", range(len(OBJECT_CHUNKS)))
def test_splitter_of_objects_interrupted_anywhere_loses_and_doubles_nothing(
    engine: ModuleType, way: str, turn: int
) -> None:
    stream = b"".join(OBJECT_CHUNKS)
    chunk, before = OBJECT_CHUNKS[turn], len(b"".join(OBJECT_CHUNKS[:turn]))
    for number in range(2000):
        splitter = engine.Splitter(JSON)
        got: list[Any] = []
        for early in OBJECT_CHUNKS[:turn]:
            got += objects_of(splitter.feed, early)
        call, argument = splitter.feed, bytearray(chunk) if "array" in way else chunk
        if way == "switch" and not chunk:
            call, argument = splitter.switch, JSON
        elif way == "buffer_updated" and chunk:
            splitter.get_buffer(len(chunk))[: len(chunk)] = chunk
            call, argument = splitter.buffer_updated, len(chunk)
        objects, raised, interrupted = interrupted_at(number, objects_of, call, argument)
        got += objects
        later = OBJECT_CHUNKS[turn + 1 :] + [b""] * 9
        if raised and splitter.error is None and splitter.stream_offset == before:
            later = [chunk, *later]  # nothing was taken: the call can be repeated
        sticks = False
        for data in later:
            try:
                got += objects_of(splitter.feed, data)
            except (Interrupted, MemoryError):
                sticks = True
        assert got == OBJECTS[: len(got)]
        if not sticks:
            assert got == OBJECTS
            assert splitter.error is None
        end = splitter.stream_offset + splitter.pending
        with contextlib.suppress(MemoryError):  # messages are lost
            unread = splitter.detach()
            assert stream[:end].endswith(unread)
            start = len(b"".join(_wire[: len(got)]))
            if chunk or way == "switch":  # what was parsed is lost, which the error says
                assert len(unread) <= end - start
            else:
                assert unread == stream[start:end]
        if not interrupted:
            break
    else:
        pytest.fail("the call never came to its end")


@pytest.mark.parametrize("way", ["feed a bytearray", "buffer_updated"])
def test_interruption_after_a_chunk_was_taken_is_sticky(way: str) -> None:
    """The caller does not get the messages: no later call may return the next ones."""
    stream = b"".join(map(Codec.uint(4).encode, [b"a", b"bc"]))
    outcomes = set()
    for number in range(2000):
        splitter = _splitter_py.Splitter(Codec.uint(4))
        if way == "buffer_updated":
            splitter.get_buffer(len(stream))[: len(stream)] = stream
            call, argument = splitter.buffer_updated, len(stream)
        else:
            call, argument = splitter.feed, bytearray(stream)
        got, raised, interrupted = interrupted_at(number, call, argument)
        if not interrupted:
            assert got == [b"a", b"bc"]
            break
        outcomes.add((splitter.error is None, splitter.stream_offset))
        if not raised:  # messages first, then the error
            assert got == [b"a", b"bc"][: len(got)]
            assert splitter.error is not None
        if splitter.error is None:
            assert splitter.stream_offset + splitter.pending == 0
            assert call(argument) == [b"a", b"bc"]
        else:
            with pytest.raises(Interrupted):
                splitter.feed(b"")
    else:
        pytest.fail("the call never came to its end")
    assert (True, 0) in outcomes
    assert (False, len(stream)) in outcomes


def test_detach_interrupted_anywhere_can_be_repeated() -> None:
    for number in range(2000):
        splitter = _splitter_py.Splitter(Codec.uint(4))
        assert splitter.feed(b"\0\0\0\5hel") == []
        got, raised, interrupted = interrupted_at(number, splitter.detach)
        if not interrupted:
            assert got == b"\0\0\0\5hel"
            assert number > 2
            return
        assert raised
        assert splitter.detach() == b"\0\0\0\5hel"
    pytest.fail("the call never came to its end")


@pytest.mark.parametrize(
    "step", ["_take", pytest.param("_read_plain_at_once", marks=takes_chunks_at_once)]
)
def test_splitter_that_is_detached_while_feed_begins_takes_nothing(step: str) -> None:
    splitter = _splitter_py.Splitter(Codec.uint(4))
    detached: list[bytes] = []

    def detach(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == step:
            sys.setprofile(None)
            detached.append(splitter.detach())  # as a finalizer could, which has the same thread

    assert splitter.feed(b"\0\0") == []
    if step == "_take":
        splitter._detours = -1
    sys.setprofile(detach)
    try:
        with pytest.raises(ValueError, match="detached"):
            splitter.feed(b"\0\1a")
    finally:
        sys.setprofile(None)
    assert detached == [b"\0\0"]


BAD_STREAM = b"M\0\2ab" + b"junk M" + b"M\xff\xffM\0\1c" + b"M\0\3def"


def test_resync_interrupted_anywhere_loses_bytes_only_with_an_error() -> None:
    codec = Codec.uint(2, magic=b"M", max_message_size=100)
    whole = _splitter_py.Splitter(codec, on_invalid="resync").feed(BAD_STREAM)
    assert whole == [b"ab", b"c", b"def"]
    lost = 0
    for number in range(2000):
        splitter = _splitter_py.Splitter(codec, on_invalid="resync")
        got, raised, interrupted = interrupted_at(number, splitter.feed, BAD_STREAM)
        if not interrupted:
            assert got == whole
            break
        assert got == whole[: len(got)]
        if splitter.error is None:
            assert raised
            assert splitter.stream_offset + splitter.pending in (0, len(BAD_STREAM))
            continue
        with pytest.raises((Interrupted, FrameError)):
            splitter.feed(b"")
        try:
            assert BAD_STREAM.endswith(splitter.detach())
        except MemoryError as error:
            assert "detach() returns none" in str(error)  # noqa: PT017
            lost += 1
    else:
        pytest.fail("the call never came to its end")
    assert lost


def test_switch_interrupted_anywhere_loses_bytes_only_with_an_error() -> None:
    stream = Codec.uint(4).encode(b"one") + b"M\0\1xM\0"
    for number in range(2000):
        splitter = _splitter_py.Splitter(Codec.uint(4), one_at_a_time=True)
        assert splitter.feed(stream) == [b"one"]
        got, raised, interrupted = interrupted_at(
            number, splitter.switch, Codec.uint(2, magic=b"M")
        )
        if not interrupted:
            assert got == [b"x"]
            assert number > 5
            return
        assert got == [b"x"][: len(got)]
        if splitter.error is None:
            assert raised
            assert splitter.detach() == stream[7:]
            continue
        with pytest.raises(Interrupted):
            splitter.feed(b"")
        with contextlib.suppress(MemoryError):
            assert stream.endswith(splitter.detach())
    pytest.fail("the call never came to its end")


AT_ONCE = {
    "plain": (Codec.uint(2), b"\0\1a\0", b"\2bc\0\0\0\4de", b"\0\1"),
    "varint": (Codec.varint(), b"\3a", b"bc\0\1d\2e", b"\1\1"),
    "headers": (
        Codec.headers(),
        b"Content-Length: 1\r\n",
        b"\r\naContent-Length: 5\r\n\r\nbc",
        b"\r\n",
    ),
    "lines": (Codec.delimiter(b"\n", b"\r\n"), b"a", b"b\nc\r\nd", b"e\n"),
    "two bytes": (Codec.delimiter(b"\r\n"), b"ab\r", b"\nc\r\nd\r", b"\n"),
    "two bytes, no end mark": (Codec.delimiter(b"\r\n"), b"ab\r", b"c\r", b"\n"),
    "slip, no end mark": (CODECS["slip"], b"a\xdb\xdcb", b"c\xdb\xddd", b"e\xc0"),
    "cobs": (CODECS["cobs"], b"\3a", b"b\0\2c\0\4d", b"\1\0"),
}


@takes_chunks_at_once
@pytest.mark.parametrize("action", ["feed", "feed a bytearray", "feed_eof", "switch", "detach"])
@pytest.mark.parametrize("name", AT_ONCE)
def test_call_of_another_thread_comes_before_a_chunk_that_is_taken_at_once(
    name: str, action: str
) -> None:
    codec, first, chunk, other = AT_ONCE[name]

    def act(splitter: Any, results: list[Any]) -> None:
        try:
            if action == "feed":
                results.append(splitter.feed(other))
            elif action == "feed a bytearray":
                results.append(splitter.feed(bytearray(other)))
            elif action == "switch":
                results.append(splitter.switch(Codec.uint(1)))
            else:
                results.append(getattr(splitter, action)())
        except (FrameError, ValueError) as error:
            results.append(str(error))

    def feed_chunk(splitter: Any, results: list[Any]) -> None:
        try:
            results.append(splitter.feed(chunk))
        except (FrameError, ValueError) as error:
            results.append(str(error))

    def state_of(splitter: Any) -> tuple[Any, ...]:
        return splitter.stream_offset, splitter.pending, splitter.pending_header

    expected: list[Any] = []
    in_turn = _splitter_py.Splitter(codec)
    in_turn.feed(first)
    act(in_turn, expected)
    feed_chunk(in_turn, expected)
    came_before = 0
    for number in range(200):
        splitter, results = _splitter_py.Splitter(codec), []
        splitter.feed(first)
        left = number

        def hook(
            frame: FrameType,
            event: str,
            argument: object,
            splitter: Any = splitter,
            results: list[Any] = results,
        ) -> None:
            nonlocal left
            if event in ("call", "c_return") and frame.f_code.co_filename.endswith(PARTS):
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    act(splitter, results)

        sys.setprofile(hook)
        try:
            feed_chunk(splitter, results)
        finally:
            sys.setprofile(None)
        if left >= 0:
            break
        assert results == expected, number
        assert state_of(splitter) == state_of(in_turn), number
        came_before += 1
    assert came_before > 3


@takes_chunks_at_once
@pytest.mark.parametrize("name", AT_ONCE)
def test_chunks_that_are_taken_at_once_need_no_lock(name: str) -> None:
    class NoLock:
        def acquire(self) -> None:
            raise AssertionError("the lock was taken")

        def release(self) -> None:
            raise RuntimeError

    codec = AT_ONCE[name][0]
    messages = [bytes([65 + i % 26]) * (i % 300) for i in range(400)]
    stream = codec.encode_many(messages)
    for size in (1, 7, 100, 1460):
        splitter: Any = _splitter_py.Splitter(codec)
        splitter._lock = NoLock()
        got: list[bytes] = []
        for pos in range(0, len(stream), size):
            got += splitter.feed(stream[pos : pos + size])
        assert got == messages
