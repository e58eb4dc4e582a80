"""Fail each allocation of each public call in turn; check that no byte is lost or doubled.

    python -m tests.fuzz shortage                     every case, on both engines
    python -m tests.fuzz shortage --case 12 --fail 3  the fourth allocation of one

A case makes a splitter, brings it into a phase of a frame, and makes one call while
`_testcapi.set_nomemory` fails one allocation of the interpreter, or every one from some on. What
may come of it is the contract's promise 8:

* the call raises MemoryError and nothing has changed: the call can be repeated, or
* the MemoryError is the splitter's sticky error, after the messages that came before it, and
  `detach` gives back every byte after the last message that was delivered, or
* the call succeeds in spite of it.

Then the splitter is used on to its end.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import framecodec.codec
from framecodec import Codec
from tests.fuzz.parsers import Builder, Parser
from tests.fuzz.shortage_options import all_plans, calls_of, outcome_of
from tests.helpers.engines import ENGINES
from tests.helpers.reference_parser import Outcome, expect
from tests.helpers.sample_codecs import Mark

try:
    import _testcapi

    set_nomemory: Callable[[int, int], None] | None = _testcapi.set_nomemory
    remove_mem_hooks = _testcapi.remove_mem_hooks
except (ImportError, AttributeError):  # another interpreter, or one without its test modules
    set_nomemory = None

__all__ = ["Case", "Shortage", "all_cases", "why_not"]

# No call of these makes more allocations.
MOST = 4000


def why_not() -> str:
    """Return why this Python cannot fail allocations, or ""."""
    return "" if set_nomemory else "this Python has no _testcapi.set_nomemory()"


class Shortage:
    """Make calls that run out of memory, and count them."""

    def __init__(self) -> None:
        self.calls = 0
        self.failed = 0  # calls that raised MemoryError

    def count(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
        """Return how many allocations a call makes."""
        return self._spare(int, ()) - self._spare(call, arguments)

    def _spare(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
        """Return how many of the first allocations are left after a call."""
        assert set_nomemory is not None
        spare: list[Any] = [None] * MOST
        pos = 0
        gc.collect()  # which empties the interpreter's lists of free objects
        # Only one fails: where all do, CPython aborts once its spare MemoryErrors are used up.
        set_nomemory(MOST, MOST + 1)
        try:
            with contextlib.suppress(Exception):
                call(*arguments)
            while pos < MOST:
                spare[pos] = object()
                pos += 1
        except MemoryError:
            pass
        finally:
            remove_mem_hooks()
        return pos

    def call(
        self, start: int, stop: int, call: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        """Return the outcome of a call whose allocations from `start` to `stop` fail."""
        assert set_nomemory is not None
        self.calls += 1
        error: BaseException
        gc.collect()
        set_nomemory(start, stop)
        try:
            result = call(*arguments)
        except BaseException as raised:
            error = raised
        else:
            return result
        finally:
            remove_mem_hooks()
        if isinstance(error, RuntimeError) and str(error) == "can't allocate lock":
            error = MemoryError()  # what threading.RLock() makes of it
        self.failed += isinstance(error, MemoryError)
        return error


def is_lost_exception(error: object) -> bool:
    """Return whether CPython 3.11 lost an exception.

    It drops the exception that is being raised where there is no memory for the frame object that
    the traceback needs.
    """
    return isinstance(error, SystemError) and "without exception set" in str(error)


# --- streams --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A codec, a stream, where it may be cut, and how a splitter reads it."""

    name: str
    codec: Codec
    stream: bytes
    cuts: tuple[int, ...]
    raw: bool = False
    skip: bool = False
    for_reference: Codec | None = None

    def expected(self, size: int | None = None) -> Outcome:
        codec = self.for_reference or self.codec
        return expect(codec, self.stream[:size], raw=self.raw, skip=self.skip)


def _shape(name: str, codec: Codec, messages: list[Any], **ways: bool) -> Shape:
    frames = [codec.encode(message) for message in messages]
    stream = b"".join(frames)
    cuts: set[int] = {0, len(stream)}
    start = 0
    for frame in frames:
        size = len(frame)
        marks = [1, 2, 3, 5, 8, 12, 20, size // 2, size - 2, size - 1, size]
        if size > 10_000:
            marks += [4000, 5000, 9000, 70_000, 140_000]
        cuts |= {start + mark for mark in marks if 0 < mark <= size}
        start += size
    return Shape(name, codec, stream, tuple(sorted(cuts)), **ways)


def shapes() -> Iterator[Shape]:
    small = [b"hello", b"", b"worlds"]
    large = [b"ab", bytes(range(256)) * 900, b"cd"]
    skipped = Codec.uint(1, max_message_size=40)
    yield _shape("plain", Codec.uint(4), small)
    yield _shape("plain, large", Codec.uint(4), large)
    yield _shape("plain, raw", Codec.uint(4), small, raw=True)
    yield _shape("plain, raw, large", Codec.uint(4, trailer=b"!!"), large, raw=True)
    all_of_it = {"magic": b"MAG", "length_offset": 5, "trailer": b"\r\n"}
    yield _shape("all parts", Codec.uint(2, "little", **all_of_it), small[:1] * 2 + [b"worlds"])
    yield _shape("specials", Codec.uint(1, specials={0: None, 9: Mark.PING}), [b"ab", None, b"c"])
    yield _shape("digits", Codec.digits(4, base=16), small)
    yield _shape("varint", Codec.varint(trailer=b"."), [*small, b"x" * 200])
    yield _shape("text", Codec.text(trailer=b","), small)
    yield _shape("text, large", Codec.text(trailer=b",,"), large)
    yield _shape("headers", Codec.headers(), small)
    yield _shape("headers, large", Codec.headers(trailer=b"!"), large)
    for look_ahead in (0, 6):
        parser = Parser(look_ahead=look_ahead, leads=True)
        codec = Codec.custom(parser, Builder(True), trailer=b"T", magic=b"M")
        yield _shape(f"custom, {look_ahead} ahead", codec, [b"@", b"hello", b"@llo", b"worlds!"])
    skipping = _shape("skip", Codec.uint(1), [b"ab", b"x" * 99, b"cd"])
    yield Shape("skip", skipped, skipping.stream, skipping.cuts, skip=True)
    yield Shape("too large", skipped, skipping.stream, skipping.cuts)
    broken = _shape("broken", Codec.uint(1, magic=b"M"), [b"ab", b"cd"])
    yield Shape("broken", broken.codec, broken.stream[:5] + b"?" * 12, (*range(17),))
    wrong = _shape("wrong trailer", Codec.text(trailer=b","), [b"ab", b"cdef"])
    yield Shape("wrong trailer", wrong.codec, wrong.stream[:-1] + b"??", wrong.cuts)


# --- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A call in one phase of a frame."""

    name: str
    run: Callable[[Shortage, int, int], int]  # from, to: which fail; returns the allocations made
    often: bool = False  # several allocations may fail


class _Stream:
    """A splitter in one phase of a stream, and the messages so far."""

    def __init__(self, engine: ModuleType, shape: Shape, fed: int, often: bool) -> None:
        self.shape, self.fed, self.often = shape, fed, often
        on_oversize = "skip" if shape.skip else "raise"
        self.splitter = engine.Splitter(shape.codec, raw=shape.raw, on_oversize=on_oversize)
        self.messages: list[Any] = []
        self.take(shape.stream[:fed])

    def take(self, data: bytes) -> None:
        """Feed bytes with enough memory; errors of the stream stick."""
        self.took(outcome_of(self.splitter.feed, data))

    def took(self, result: Any) -> None:
        if isinstance(result, list):
            self.messages += result
        else:
            assert result is self.splitter.error, f"{result!r} does not stick"

    def public(self) -> tuple[Any, ...]:
        splitter = self.splitter
        return (
            splitter.pending,
            splitter.stream_offset,
            splitter.pending_header,
            splitter.bytes_needed,
            splitter.skipped,
            splitter.error,
        )

    def after(self, before: tuple[Any, ...], result: Any, stop: int, repeat: Any) -> None:
        """Check the promise after a call that brings the stream to byte `stop`."""
        splitter = self.splitter
        if is_lost_exception(splitter.error) or is_lost_exception(result):
            return
        if isinstance(result, MemoryError) and not isinstance(splitter.error, MemoryError):
            if splitter.error is None:
                assert self.public() == before, f"neither repeatable nor sticky: {self.public()}"
            result = outcome_of(repeat)  # which raises the error that the stream has, if any
            assert not isinstance(result, MemoryError), "MemoryError with enough memory"
        if isinstance(result, list):
            self.messages += result
        elif isinstance(result, BaseException):
            # A second MemoryError may have come while the first one was handled.
            assert result is splitter.error or (
                isinstance(result, MemoryError) and isinstance(splitter.error, MemoryError)
            ), f"{result!r} is not the sticky error {splitter.error!r}"
        self.fed = stop
        if isinstance(splitter.error, MemoryError):
            self.ended()
        else:
            self.to_the_end()

    def ended(self) -> None:
        """Check that a splitter that ran out of memory has lost nothing."""
        splitter, shape = self.splitter, self.shape
        offset, whole = splitter.stream_offset, shape.expected()
        for call in (lambda: splitter.feed(b"x"), splitter.get_buffer, splitter.feed_eof):
            assert outcome_of(call) is splitter.error, "the MemoryError does not stick"
        delivered = [step for step in whole.steps if step[1] <= offset]
        count = delivered[-1][2] if delivered else 0
        assert offset == (delivered[-1][1] if delivered else 0), f"offset {offset}"
        assert self.messages == whole.messages[:count], "messages and offset do not agree"
        pending = splitter.pending
        unread = outcome_of(splitter.detach)
        if isinstance(unread, MemoryError):
            # The splitter had no memory to keep the bytes, and raises: the loss is reported.
            assert self.often, f"one allocation failed, and {unread}"
            return
        assert offset + pending == self.fed, "the offset has lost bytes"
        assert unread == shape.stream[offset : self.fed] or (shape.skip and not unread), (
            f"detach() gave {unread[:50]!r} of {shape.stream[offset : self.fed][:50]!r}"
        )

    def to_the_end(self) -> None:
        splitter, shape = self.splitter, self.shape
        expected = shape.expected()
        if splitter.error is None:
            assert splitter.stream_offset + splitter.pending == self.fed
        for pos in range(self.fed, len(shape.stream), 7000):
            if splitter.error is None:
                self.fed = min(pos + 7000, len(shape.stream))
                self.take(shape.stream[pos : self.fed])
        assert self.messages == expected.messages
        assert splitter.stream_offset == expected.stream_offset
        assert splitter.stream_offset + splitter.pending == self.fed
        assert (splitter.error and type(splitter.error)) == (
            expected.error if expected.decided is not None else None
        )
        assert splitter.detach() == shape.expected(self.fed).unread


def _feeding(engine: ModuleType, shape: Shape, start: int, stop: int, form: Any) -> Any:
    def run(shortage: Shortage, first: int, last: int) -> int:
        stream = _Stream(engine, shape, start, last - first > 1)
        chunk = form(shape.stream[start:stop])
        if first < 0:
            return shortage.count(stream.splitter.feed, (chunk,))
        before = stream.public()
        result = shortage.call(first, last, stream.splitter.feed, (chunk,))
        stream.after(before, result, stop, lambda: stream.splitter.feed(chunk))
        return 0

    return run


def _giving(engine: ModuleType, shape: Shape, start: int, stop: int, method: str) -> Any:
    """Make a case: get_buffer or get_room fails, then bytes arrive."""

    def run(shortage: Shortage, first: int, last: int) -> int:
        stream = _Stream(engine, shape, start, last - first > 1)
        splitter = stream.splitter
        give = getattr(splitter, method)
        if first < 0:
            return shortage.count(give, (70_000,))
        before = stream.public()
        view = shortage.call(first, last, give, (70_000,))
        if isinstance(view, MemoryError):
            if splitter.error is not None:
                stream.after(before, view, start, None)
                return 0
            assert stream.public() == before
            refused = outcome_of(splitter.buffer_updated, 1)
            assert isinstance(refused, ValueError), f"a {method} that failed counts as given"
            view = give(70_000)
        size = min(len(view), stop - start)
        view[:size] = shape.stream[start : start + size]
        stream.took(outcome_of(splitter.buffer_updated, size))
        stream.fed = start + size
        stream.to_the_end()
        return 0

    return run


def _updating(engine: ModuleType, shape: Shape, start: int, stop: int, method: str) -> Any:
    """Make a case: buffer_updated fails after get_buffer or get_room."""

    def run(shortage: Shortage, first: int, last: int) -> int:
        stream = _Stream(engine, shape, start, last - first > 1)
        splitter = stream.splitter
        view = getattr(splitter, method)(70_000)
        size = min(len(view), stop - start)
        view[:size] = shape.stream[start : start + size]
        del view
        if first < 0:
            return shortage.count(splitter.buffer_updated, (size,))
        before = stream.public()
        result = shortage.call(first, last, splitter.buffer_updated, (size,))
        repeat = lambda: splitter.buffer_updated(size)  # noqa: E731
        stream.after(before, result, start + size, repeat)
        return 0

    return run


def _ending(engine: ModuleType, shape: Shape, start: int, method: str) -> Any:
    """Make a case: feed_eof or detach fails."""

    def run(shortage: Shortage, first: int, last: int) -> int:
        stream = _Stream(engine, shape, start, last - first > 1)
        splitter = stream.splitter
        call = getattr(splitter, method)
        if first < 0:
            return shortage.count(call, ())
        before = stream.public()
        result = shortage.call(first, last, call, ())
        if is_lost_exception(result):
            return 0
        if isinstance(result, MemoryError) and not isinstance(splitter.error, MemoryError):
            if splitter.error is before[-1]:
                assert stream.public() == before
            result = outcome_of(call)
        expected = shape.expected(start)
        if isinstance(splitter.error, MemoryError):
            stream.ended()
        elif method == "detach":
            assert result == expected.unread
        elif expected.error is None:
            assert result is None
            stream.to_the_end()
        else:
            assert type(result) is expected.error
            assert splitter.error is result
            assert splitter.detach() == expected.unread
        return 0

    return run


def _stateless(make: Callable[[], Any], call: Callable[[Any], Any]) -> Any:
    """Make a case of a call without state: it may fail, and the next one succeeds."""

    def described_outcome(thing: Any) -> Any:
        result = outcome_of(call, thing)
        return (type(result), str(result)) if isinstance(result, Exception) else result

    def run(shortage: Shortage, first: int, last: int) -> int:
        expected = described_outcome(make())
        thing = make()
        if first < 0:
            return shortage.count(call, (thing,))
        result = shortage.call(first, last, call, (thing,))
        is_lost = is_lost_exception(result)
        if isinstance(result, Exception):
            result = type(result), str(result)
        if not is_lost and not (isinstance(result, tuple) and result and result[0] is MemoryError):
            assert result == expected, f"{result!r}, not {expected!r}"
        assert described_outcome(thing) == expected
        return 0

    return run


def _parts(encoder: Any, message: Any) -> bytes:
    return b"".join(encoder.frame_parts(message))


def _split_with(engine: ModuleType, shape: Shape) -> Callable[[Any], Any]:
    def call(data: Any) -> Any:
        before = framecodec.codec.Splitter
        framecodec.codec.Splitter = engine.Splitter  # type: ignore[misc]
        try:
            return shape.codec.split(data)
        finally:
            framecodec.codec.Splitter = before  # type: ignore[misc]

    return call


def _decode_with(engine: ModuleType, codec: Codec) -> Callable[[Any], Any]:
    def call(frame: Any) -> Any:
        before = framecodec.codec.Splitter
        framecodec.codec.Splitter = engine.Splitter  # type: ignore[misc]
        try:
            return codec.decode(frame)
        finally:
            framecodec.codec.Splitter = before  # type: ignore[misc]

    return call


def all_cases(engine: ModuleType) -> list[Case]:
    """Return every call in every phase of every shape."""
    often = engine.__name__ == ENGINES["compiled"]
    return [replace(case, often=often) for case in _all_cases(engine)]


def _all_cases(engine: ModuleType) -> Iterator[Case]:
    for plan in all_plans():
        for name, run in calls_of(engine, plan):
            yield Case(name, run)
    for shape in shapes():
        cuts = shape.cuts
        pairs = [(a, b) for a in cuts for b in cuts if a < b and _worth(cuts, a, b)]
        pairs = [pair for pair in pairs if shape.expected(pair[0]).decided is None]
        for start, stop in pairs:
            where = f"{shape.name}, bytes {start} to {stop}"
            for name, form in (("bytes", bytes), ("bytearray", bytearray), ("view", memoryview)):
                if name == "bytes" or (start + stop) % 3 == 0:
                    yield Case(f"feed({name}): {where}", _feeding(engine, shape, start, stop, form))
            for method in ("get_buffer", "get_room"):
                yield Case(
                    f"buffer_updated after {method}: {where}",
                    _updating(engine, shape, start, stop, method),
                )
        for start in cuts:
            where = f"{shape.name}, at byte {start}"
            if shape.expected(start).decided is None:
                for method in ("get_buffer", "get_room"):
                    yield Case(
                        f"{method}: {where}",
                        _giving(engine, shape, start, len(shape.stream), method),
                    )
                yield Case(f"feed_eof: {where}", _ending(engine, shape, start, "feed_eof"))
            yield Case(f"detach: {where}", _ending(engine, shape, start, "detach"))
        yield from _stateless_cases(engine, shape)


def _worth(cuts: tuple[int, ...], start: int, stop: int) -> bool:
    """Return whether a pair of cuts is a case: a few cuts apart, or to the end."""
    return cuts.index(stop) - cuts.index(start) in (1, 2, 5) or stop == cuts[-1]


def _stateless_cases(engine: ModuleType, shape: Shape) -> Iterator[Case]:
    codec, stream = shape.codec, shape.stream
    if not shape.raw and not shape.skip:
        messages = shape.expected().messages
        for message in messages:
            size = len(message) if isinstance(message, bytes) else 0
            for name in ("encode", "frame_parts"):
                for form in (bytes, bytearray):
                    yield Case(
                        f"{name} of {size} bytes: {shape.name}",
                        _stateless(
                            lambda form=form, message=message: (
                                engine.Encoder(codec),
                                form(message) if isinstance(message, bytes) else message,
                            ),
                            (lambda pair: pair[0].encode(pair[1]))
                            if name == "encode"
                            else lambda pair: _parts(*pair),
                        ),
                    )
            frame = codec.encode(message)
            yield Case(
                f"decode of {size} bytes: {shape.name}",
                _stateless(lambda frame=frame: frame, _decode_with(engine, codec)),
            )
        for form in (list, tuple):
            yield Case(
                f"encode_many of a {form.__name__}: {shape.name}",
                _stateless(
                    lambda form=form: (engine.Encoder(codec), form(messages)),
                    lambda pair: pair[0].encode_many(pair[1]),
                ),
            )
        yield Case(
            f"Encoder(): {shape.name}",
            _stateless(lambda: codec, lambda codec: type(engine.Encoder(codec))),
        )
    yield Case(
        f"Splitter(): {shape.name}",
        _stateless(lambda: codec, lambda codec: type(engine.Splitter(codec, raw=shape.raw))),
    )
    for stop in shape.cuts[::3]:
        data = stream[:stop]
        yield Case(
            f"split of {stop} bytes: {shape.name}",
            _stateless(lambda data=data: data, _split_with(engine, shape)),
        )
        yield Case(
            f"scan of {stop} bytes: {shape.name}",
            _stateless(
                lambda data=data: data,
                lambda data: _scanned(engine.scan(codec, data, raw=True)),
            ),
        )
    spans = engine.scan(Codec.uint(1), bytes(range(9)) * 2, raw=True)
    yield Case(
        "use of Spans",
        _stateless(lambda: spans, lambda spans: (len(spans), spans.consumed, _scanned(spans))),
    )


def _scanned(spans: Any) -> Any:
    views = [spans[pos] for pos in range(len(spans))]
    return [bytes(view) for view in views], [bytes(view) for view in spans[:2]], repr(spans)


def run_case(case: Case, shortage: Shortage, only: int | None = None) -> None:
    """Run a case with each allocation failed alone, and with some that follow it.

    Not with all that follow: where CPython has no memory for the number that an exception handler
    needs, it looks up that handler again, for ever (`lasti` in ceval.c, Python 3.11 to 3.13).
    Several fail for the compiled engine only: an exception handler in Python needs memory itself.

    Raises:
        AssertionError: The promise was broken; it says which allocation failed.
    """
    allocations = case.run(shortage, -1, 0)
    for first in range(allocations + 3) if only is None else [only]:
        for last in (first + 1, first + 3, first + 20)[: 3 if case.often else 1]:
            try:
                case.run(shortage, first, last)
            except BaseException as error:
                raise AssertionError(
                    f"{case.name}, without allocations {first} to {last - 1}: {error!r}"
                ) from error


def main(arguments: list[str]) -> int:
    import argparse
    import sys
    from collections import Counter

    from tests.fuzz.orders import load_engines
    from tests.fuzz.workers import run_cases

    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz shortage", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    parser.add_argument("--every", type=int, default=1, help="run every Nth case only")
    parser.add_argument("--only", default="", help="only cases with this text in their names")
    parser.add_argument("--case", type=int, help="only this one, in this process")
    parser.add_argument("--fail", type=int, help="... and only this allocation")
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    options = parser.parse_args(arguments)
    if why_not():
        print(why_not())
        return 0
    bad = 0
    for name in options.engine or ENGINES:
        (engine,) = load_engines([name])
        cases = [case for case in all_cases(engine) if options.only in case.name]
        cases = cases[:: options.every]
        gc.collect()
        gc.freeze()  # so that a collection goes through what a call leaves, and nothing else
        if options.case is not None:
            run_case(cases[options.case], Shortage(), options.fail)
            continue
        shown: Counter[str] = Counter()

        def show(failure: Any, shown: Counter[str] = shown, name: str = name) -> None:
            if failure.crashed and name == "python":
                return
            kind = failure.reason.partition(", without ")[2].partition(": ")[2][:60]
            shown[kind or failure.reason] += 1
            if shown[kind or failure.reason] <= 3:
                print(f"{name} case {failure.case}: {failure.reason[:600]}", flush=True)

        totals = Shortage()

        def run(number: int, cases: list[Case] = cases) -> tuple[int, int]:
            shortage = Shortage()
            run_case(cases[number], shortage)
            return shortage.calls, shortage.failed

        done, failures, totals = run_cases(
            run,
            first=0,
            count=len(cases),
            jobs=options.jobs,
            most_failures=10**6,
            report=show,
            quiet=True,  # CPython writes of objects that it could not free, and the like
        )
        if name == "python":  # Python code cannot crash, the interpreter can
            crashed = [failure for failure in failures if failure.crashed]
            failures = [failure for failure in failures if not failure.crashed]
            print(f"{name}: {len(crashed)} cases ended in a crash of the interpreter's own")
        bad += len(failures)
        calls, failed = totals
        print(
            f"{name}: {done} cases, {calls} calls short of memory, {failed} raised MemoryError: "
            f"{len(failures)} cases failed"
        )
        for kind, count in shown.most_common():
            print(f"  {count:6} {kind}")
    sys.stdout.flush()
    return 1 if bad else 0
