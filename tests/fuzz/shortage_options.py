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


# --- cases ----------------------------------------------------------------------------------------


class Reader:
    """A splitter of a plan, and what it has delivered.

    Delivered are messages, and errors that do not stick, as their stream offset.
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
    return isinstance(error, SystemError) and "without exception set" in str(error)


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
    headers_wanted = plan.options.get("keep_headers")
    before = reader.public()
    result = shortage.call(first, last, call, ())
    if _lost(result) or _lost(splitter.error):
        return 0
    if isinstance(result, MemoryError) and not isinstance(splitter.error, MemoryError):
        assert reader.public() == before, f"neither repeatable nor sticky: {reader.public()}"
        result = outcome_of(call)
        assert not isinstance(result, MemoryError), "MemoryError with enough memory"
    reader.fed += size
    if isinstance(result, MemoryError):
        _check_sticky(engine, plan, reader)
        return 0
    if headers_wanted and isinstance(result, list):
        assert len(splitter.headers) == len(result)
    reader.took(result)
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
    splitter = reader.splitter
    for call in (lambda: splitter.feed(b"x"), splitter.get_buffer, splitter.feed_eof):
        assert outcome_of(call) is splitter.error, "the MemoryError does not stick"
    offset = splitter.stream_offset - plan.options.get("stream_offset", 0)
    delivered = _undisturbed(engine, plan, 0)[0]
    is_padded = plan.codec.parameters["align"] > 1  # a message may come before its frame's end
    if plan.then is None and not is_padded:
        replay = Reader(engine, plan)
        replay.take(offset)
        replay.drain()
        delivered = replay.delivered
    assert reader.delivered == delivered[: len(reader.delivered)], "a message is doubled"
    if plan.then is None and not is_padded:
        assert reader.delivered == delivered, "a message is lost"
    pending = splitter.pending
    unread = outcome_of(splitter.detach)
    if isinstance(unread, MemoryError):
        return  # the splitter had no memory to keep the bytes, and says so
    assert offset + pending == reader.fed, "the offset has lost bytes"
    if is_padded:
        return
    is_skipping = plan.options.get("on_oversize") == "skip"
    assert unread == plan.stream[offset : reader.fed] or (is_skipping and not unread), (
        f"detach() gave {unread!r}"
    )


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
