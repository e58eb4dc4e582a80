"""Cases of `tests.fuzz.shortage`: the options of a splitter, and the newer kinds of codecs.

What must come of a stream is what the same splitter makes of it while memory is sufficient. (That
this is right, other campaigns show.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

from framecodec import Check, Codec, InvalidMessageError

__all__ = ["Plan", "all_plans", "calls_of"]


@dataclass(frozen=True)
class Plan:
    """A splitter with options, and its stream.

    Args:
        name: What a failure shows.
        codec: The shape of the frames.
        stream: The bytes.
        cuts: Where it is cut.
        options: Of the splitter.
        then: The codec of a `switch`, if there is one at each cut.
    """

    name: str
    codec: Codec[Any]
    stream: bytes
    cuts: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    then: Codec[Any] | None = None


class Travels(bytes):
    """Bytes of a stream, which may be no frame."""


def dumps(message: tuple[bytes]) -> bytes:
    """Return the bytes of an object of these plans."""
    return message[0]


def loads(message: bytes) -> tuple[bytes]:
    """Return the object of a message; refuse one."""
    if message == b"bad":
        raise ValueError("bad")
    return (message,)


def _plan(name: str, codec: Codec[Any], *parts: Any, **more: Any) -> Plan:
    """Return a plan; its parts are messages, and bytes that travel as they are."""
    frames = [part if isinstance(part, Travels) else codec.encode(part) for part in parts]
    cuts, start = {0}, 0
    for frame in frames:
        size = len(frame)
        marks = (1, 3, size // 2, size - 1, size)
        cuts |= {start + mark for mark in marks if 0 < mark <= size}
        start += size
    return Plan(name, codec, b"".join(frames), tuple(sorted(cuts)), **more)


def all_plans() -> Iterator[Plan]:
    """Return the splitters that are brought into a shortage."""
    small = (b"hello", b"", b"worlds")
    one = {"one_at_a_time": True}
    yield _plan("one at a time", Codec.uint(2), *small, options=one)
    yield _plan("one at a time, lines", Codec.delimiter(b"\n", b"\r\n"), *small, options=one)
    fragments = Codec.uint(1, length_offset=1)
    records = Codec.joined(fragments, last=(0, 0x80, 0x80), strip=1, fragment_size=3)
    yield _plan("joined", records, b"hello world", b"", b"abc")
    yield _plan("joined, raw", records, b"hello world", b"", options={"raw": True})
    skip = {"on_oversize": "skip"}
    too_large = Travels(records.encode(b"x" * 20))
    short = records.replace(max_message_size=5)
    yield _plan("joined, skip", short, too_large, b"abc", options=skip)
    choice = Codec.choice({b"$": Codec.uint(2, length_offset=1), None: Codec.delimiter(b"\n")})
    yield _plan("choice", choice, b"$hello", b"a line", b"$", b"another")
    kinds = {"small": (0, Codec.uint(1, length_offset=1)), "line": (None, Codec.delimiter(b"\n"))}
    tagged = (("small", b"\0abc"), ("line", b"a line"), ("small", b"\0"))
    yield _plan("tagged choice", Codec.choice(kinds, tagged=True), *tagged)
    wrong = Travels(b"\0\1abcde")
    yield _plan("check", Codec.uint(2, check=Check("crc32", 4)), *small, wrong)
    yield _plan("cobs", Codec.cobs(max_message_size=600), b"a\0b", b"", b"x" * 300, b"\0\0")
    too_large = Travels(Codec.cobs().encode(b"x" * 40))
    yield _plan("cobs, skip", Codec.cobs(max_message_size=5), too_large, b"cd", options=skip)
    escape = {b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}
    slip = Codec.delimiter(b"\xc0", escape=escape, skip_empty=True)
    yield _plan("escapes", slip, b"a\xc0b", b"\xdb" * 20, b"c")
    first, other = Codec.uint(1, magic=b"MA", trailer=b"!"), Codec.uint(1, magic=b"S")
    begin = first.encode(b"ab")
    stream = begin + other.encode(b"cde") + other.encode(b"")
    yield Plan("switch", first, stream, (len(begin), len(stream) - 4, len(stream)), one, other)
    yield from _plans_of_resync()
    yield from _plans_of_headers_and_padding()
    yield from _plans_of_objects()


def _plans_of_resync() -> Iterator[Plan]:
    resync, one = {"on_invalid": "resync"}, {"one_at_a_time": True}
    marked = Codec.uint(1, magic=b"MA", trailer=b"!", max_message_size=20)
    bad = (b"ab", Travels(b"junk"), b"", Travels(b"MA\5xM"), b"hello", Travels(b"MA\x40?"), b"c")
    yield _plan("resync", marked, *bad, options=resync)
    yield _plan("resync, one at a time", marked, *bad, options={**resync, **one})
    lines = Codec.delimiter(b"\n", b"\r\n", max_message_size=6)
    parts = (b"ab", Travels(b"much too long\r\n"), b"cd", b"")
    yield _plan("resync, lines", lines, *parts, options=resync)
    cobs = Codec.cobs(check=Check("crc32", 4))
    yield _plan("resync, cobs", cobs, b"ab", Travels(b"\5x\0\0"), b"cd", options=resync)


def _plans_of_headers_and_padding() -> Iterator[Plan]:
    keep, one = {"keep_headers": True}, {"one_at_a_time": True}
    block = Travels(b"X: y\r\ncontent-length: 2\r\n\r\nab")
    yield _plan("kept header blocks", Codec.headers(), block, b"", b"hello", options=keep)
    parts = (b"hello", Travels(b"0A0123456789"), b"")
    yield _plan("kept digits", Codec.digits(2, base=16), *parts, options=keep)
    parts = (b"hello", Travels(b"003:abc,"), b"")
    netstrings = Codec.text(leading_zeros=True, trailer=b",")
    yield _plan("kept text", netstrings, *parts, options=keep)
    lines = Codec.delimiter(b"\n", b"\r\n")
    yield _plan("kept marks", lines, b"a", Travels(b"b\r\n"), b"", options=keep)
    aligned = Codec.uint(1, align=4)
    yield _plan("padded", aligned, b"hello", b"", b"abc", b"abcd")
    yield _plan("padded, one at a time", aligned, b"hello", b"", b"abc", options=one)
    yield _plan("padded, raw", aligned, b"hello", b"abc", b"", options={"raw": True})
    checked = Codec.uint(2, align=8, magic=b"M", check=Check("sum8", 1), trailer=b"!")
    yield _plan("padded, check", checked, b"hello", b"", b"x" * 20)


def _plans_of_objects() -> Iterator[Plan]:
    plain, one = Codec.uint(1), {"one_at_a_time": True}
    codec = plain.with_objects(dumps, loads)
    bad = Travels(plain.encode(b"bad"))
    yield _plan("objects", codec, (b"hello",), (b"",), (b"worlds",))
    yield _plan("objects, refused", codec, (b"ab",), bad, (b"",), bad, bad, (b"cd",), (b"ef",))
    yield _plan("objects, many", codec, *[(b"%d" % n,) for n in range(20)], bad, (b"last",))
    yield _plan("objects, one at a time", codec, (b"ab",), bad, (b"cd",), options=one)
    lines = Codec.delimiter(b"\n", b"\r\n")
    parts = ((b"ab",), Travels(b"bad\r\n"), (b"",), Travels(b"cd\r\n"))
    yield _plan("objects, lines", lines.with_objects(dumps, loads), *parts)
    aligned = Codec.uint(1, align=4).with_objects(dumps, loads)
    parts = ((b"hello",), Travels(b"\3bad"), (b"",), (b"abc",))
    yield _plan("objects, padded", aligned, *parts)
    other = Codec.uint(1, magic=b"S")
    stream = codec.encode((b"ab",)) + bad + other.encode(b"cde") + other.encode(b"")
    cuts = (3, len(stream) - 5, len(stream))
    skip = Codec.fixed(4).with_objects(dumps, loads)
    yield Plan("switch, from objects", codec, stream[:3] + stream[7:], cuts[:1], {}, other)
    yield Plan("switch, after a refused object", codec, stream, cuts, {}, skip)


# --- cases ----------------------------------------------------------------------------------------


class Reader:
    """A splitter of a plan, and what it has delivered.

    Delivered are messages, with their headers if the splitter keeps them, and errors that do not
    stick, as their stream offset.
    """

    def __init__(self, engine: ModuleType, plan: Plan) -> None:
        self.plan, self.fed, self.switched = plan, 0, False
        self.splitter = engine.Splitter(plan.codec, **plan.options)
        self.delivered: list[Any] = []

    @property
    def is_over(self) -> bool:
        """Whether an error sticks. One about a refused message is raised once."""
        error = self.splitter.error
        return error is not None and not isinstance(error, InvalidMessageError)

    def take(self, stop: int) -> None:
        self.took(outcome_of(self.splitter.feed, self.plan.stream[self.fed : stop]))
        self.fed = stop

    def took(self, result: Any) -> None:
        if isinstance(result, InvalidMessageError):
            self.delivered.append(("refused", result.stream_offset))
        elif isinstance(result, list):
            headers = self.splitter.headers if self.plan.options.get("keep_headers") else None
            if headers is not None:
                assert len(headers) == len(result), "headers and messages do not agree"
                result = [*zip(result, headers, strict=True)]
            self.delivered += result
        else:
            assert result is self.splitter.error, f"{result!r} does not stick"

    def drain(self) -> None:
        """Take what is undelivered."""
        before = -1
        while not self.is_over and len(self.delivered) > before:
            before = len(self.delivered)
            self.took(outcome_of(self.splitter.feed, b""))

    def switch(self) -> None:
        if self.plan.then is not None and not self.switched and self.delivered:
            self.took(outcome_of(self.splitter.switch, self.plan.then))
            self.switched = True

    def finish(self) -> tuple[Any, ...]:
        """Read the rest; return what can be seen."""
        self.drain_and_switch()
        for stop in range(self.fed + 3, len(self.plan.stream) + 3, 3):
            if not self.is_over:
                self.take(min(stop, len(self.plan.stream)))
                self.drain_and_switch()
        public = self.public()
        if self.is_over:  # how much was fed after it is no one's concern
            return self.delivered, public[1:3], public[4:]
        return self.delivered, public, outcome_of(self.splitter.detach)

    def drain_and_switch(self) -> None:
        if not self.switched and self.plan.then is not None:
            if not self.delivered:
                self.drain_one()
            self.switch()
        self.drain()

    def drain_one(self) -> None:
        self.took(outcome_of(self.splitter.feed, b""))

    def public(self) -> tuple[Any, ...]:
        splitter = self.splitter
        return (
            splitter.pending,
            splitter.stream_offset,
            splitter.pending_header,
            splitter.bytes_needed,
            splitter.skipped,
            _described(splitter.error),
            splitter.resyncs,
            splitter.discarded,
            _described(splitter.last_invalid),
        )


def outcome_of(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns or raises."""
    try:
        return call(*arguments)
    except Exception as error:
        return error


def _described(error: BaseException | None) -> Any:
    return error and (type(error), str(error))


def _lost(error: object) -> bool:
    texts = ("without exception set", "without setting an exception")
    return isinstance(error, SystemError) and any(text in str(error) for text in texts)


def _run(
    engine: ModuleType,
    plan: Plan,
    start: int,
    prepare: Callable[[Reader], tuple[Callable[[], Any], int]],
    shortage: Any,
    first: int,
    last: int,
) -> int:
    """Fail allocations of a call that brings a splitter from byte `start` on.

    Args:
        prepare: Returns the call, and how many bytes it takes.
    """
    reader = Reader(engine, plan)
    reader.take(start)
    call, size = prepare(reader)
    if first < 0:
        return shortage.count(call, ())  # type: ignore[no-any-return]
    splitter = reader.splitter
    before, pending = reader.public(), splitter.error
    result = shortage.call(first, last, call, ())
    if _lost(result) or _lost(splitter.error):
        return 0
    if isinstance(result, MemoryError) and not isinstance(splitter.error, MemoryError):
        # CPython raises one in the place of an exception for whose traceback it has no memory.
        for refused in (result.__context__, pending if pending is not splitter.error else None):
            if isinstance(refused, InvalidMessageError):
                result = refused
    if isinstance(result, MemoryError) and not isinstance(splitter.error, MemoryError):
        assert reader.public() == before, f"neither repeatable nor sticky: {reader.public()}"
        result = outcome_of(call)
        assert not isinstance(result, MemoryError), "MemoryError with enough memory"
    reader.fed += size
    if isinstance(result, MemoryError):
        _check_sticky(engine, plan, reader)
        return 0
    reader.took(result)
    if plan.codec._objects is not None and plan.then is None:
        reader.drain()  # a MemoryError may follow objects
        if _lost(splitter.error):
            return 0
    if isinstance(splitter.error, MemoryError):
        _check_sticky(engine, plan, reader)
        return 0
    found, expected = reader.finish(), _undisturbed(engine, plan, start)
    assert found == expected, f"{found}, not {expected}"
    return 0


def _undisturbed(engine: ModuleType, plan: Plan, start: int) -> tuple[Any, ...]:
    reader = Reader(engine, plan)
    reader.take(start)
    return reader.finish()


def _check_sticky(engine: ModuleType, plan: Plan, reader: Reader) -> None:
    """Check that a splitter whose error is a MemoryError has lost nothing."""
    splitter, stream = reader.splitter, plan.stream
    has_objects = plan.codec._objects is not None
    # What `loads` raised sticks in the calls that return objects.
    calls = [lambda: splitter.feed(b"")] * 2
    if not has_objects:
        calls += [lambda: splitter.feed(b"x"), splitter.get_buffer, splitter.feed_eof]
    for call in calls:
        outcome = outcome_of(call)
        assert outcome is splitter.error, f"the MemoryError does not stick: {outcome!r}"
    delivered = _undisturbed(engine, plan, 0)[0]
    assert reader.delivered == delivered[: len(reader.delivered)], "a message is doubled"
    offset = splitter.stream_offset - plan.options.get("stream_offset", 0)
    # A message may come before the padding of its frame, and a frame before its object.
    is_exact = plan.codec.parameters["align"] == 1 and not has_objects
    if plan.then is None and is_exact:
        assert reader.delivered == _delivered_up_to(engine, plan, offset), "a message is lost"
    pending = splitter.pending
    unread = outcome_of(splitter.detach)
    if isinstance(unread, MemoryError):
        return  # the splitter had no memory to keep the bytes, and says so
    told = f"the offset has lost bytes: {offset}, {pending}, {unread!r} of {reader.fed}"
    assert offset + pending == reader.fed, told
    if plan.options.get("on_oversize") == "skip" and not unread:
        return
    start = reader.fed - len(unread)
    assert unread == stream[start : reader.fed], f"detach() gave {unread!r}"
    if is_exact:
        assert start == offset, f"detach() gave the bytes from {start} on, not from {offset} on"
    elif plan.then is None:
        expected = _delivered_up_to(engine, plan, start)
        assert reader.delivered == expected, f"{reader.delivered} and {unread!r}"


def _delivered_up_to(engine: ModuleType, plan: Plan, stop: int) -> list[Any]:
    replay = Reader(engine, plan)
    replay.take(stop)
    replay.drain()
    return replay.delivered


def _feed(reader: Reader, stop: int, form: Callable[[bytes], Any]) -> Any:
    data = form(reader.plan.stream[reader.fed : stop])
    return partial(reader.splitter.feed, data), stop - reader.fed


def _update(reader: Reader, stop: int, method: str) -> Any:
    view = getattr(reader.splitter, method)(1000)
    data = reader.plan.stream[reader.fed : stop][: len(view)]
    view[: len(data)] = data
    return partial(reader.splitter.buffer_updated, len(data)), len(data)


def _feed_nothing(reader: Reader) -> Any:
    return partial(reader.splitter.feed, b""), 0


def _switch(reader: Reader) -> Any:
    if not reader.delivered:
        reader.drain_one()
    reader.switched = True
    return partial(reader.splitter.switch, reader.plan.then), 0


def calls_of(
    engine: ModuleType, plan: Plan
) -> Iterator[tuple[str, Callable[[Any, int, int], int]]]:
    """Return the calls of a plan that are brought into a shortage, with their names."""
    cuts = plan.cuts
    for index, start in enumerate(cuts):
        if plan.then is None:
            for stop in {*cuts[index + 1 : index + 3], *cuts[-1:]} - {start}:
                yield (
                    f"feed: {plan.name}, bytes {start} to {stop}",
                    partial(
                        _run,
                        engine,
                        plan,
                        start,
                        partial(_feed, stop=stop, form=(bytes, bytearray)[index % 2]),
                    ),
                )
                method = ("get_buffer", "get_room")[index % 2]
                yield (
                    f"buffer_updated after {method}: {plan.name}, bytes {start} to {stop}",
                    partial(_run, engine, plan, start, partial(_update, stop=stop, method=method)),
                )
            if plan.options.get("one_at_a_time"):
                yield (
                    f"feed(b''): {plan.name}, at byte {start}",
                    partial(_run, engine, plan, start, _feed_nothing),
                )
        else:
            yield (
                f"switch: {plan.name}, at byte {start}",
                partial(_run, engine, plan, start, _switch),
            )
