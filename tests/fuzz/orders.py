"""Run random orders of calls on one splitter, on both engines step by step.

    python -m tests.fuzz orders --minutes 10        as many as fit
    python -m tests.fuzz orders --seed 77 --cases 1 one program, again

A program is a codec, a stream and steps. Each step is made on each engine before the next one is,
and what comes of it is compared: results, types and texts of exceptions, every public attribute.
The reference (tests/helpers/reference_parser.py) has seen the whole stream beforehand and says what
each call must deliver. Delivered messages are compared once more at the end, after every view that
was kept has been written to.

The memory that `get_room` gives may have another size on each engine. A step fills only as much as
all of them gave, so that all see the same chunks.

A program that fails is made smaller and printed as a few lines of Python; a program that crashes or
hangs too, because campaigns run in processes of their own (tests/fuzz/workers.py).
"""

from __future__ import annotations

import array
import contextlib
import copy
import functools
import gc
import pickle
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import framecodec.codec
from framecodec import Codec, FrameError, formats
from framecodec._kept_headers import frames_as_travelled
from tests.fuzz.model import Model
from tests.fuzz.parsers import NOW, TRICKS, Builder, Parser
from tests.helpers.reference_resync import is_marked
from tests.helpers.sample_codecs import (
    CODECS,
    Mark,
    build_tagged,
    damaged,
    parse_tagged,
    sample_messages,
)

__all__ = [
    "CODECS",
    "Builder",
    "Codec",
    "Mark",
    "Parser",
    "Program",
    "blob",
    "build_tagged",
    "draw_program",
    "formats",
    "load_engines",
    "parse_tagged",
    "run",
    "run_seed",
    "shrink",
]

# This many programs in a row share a codec: making one costs more than running a program.
PROGRAMS_PER_CODEC = 100

PATTERN = bytes(range(251))
_BLOB = PATTERN * 8000


def blob(first: int, size: int) -> bytes:
    """Return `size` bytes of the pattern from this value on; long streams print in this form."""
    return _BLOB[first : first + size]


@dataclass(frozen=True)
class Program:
    """A program: what a run is made from.

    Args:
        codec: The codec as Python source, for `print`, and as itself.
        steps: Names of `STEPS` with their arguments.
        skip: Whether oversized frames are skipped.
        resync: Whether the splitter continues after bad frames.
        one: Whether a call returns at most one message.
        keep: Whether the splitter keeps headers.
        start: The offset of the stream's first byte.
    """

    codec: Codec
    stream: bytes
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    raw: bool = False
    skip: bool = False
    source: str = field(default="", compare=False)
    resync: bool = False
    one: bool = False
    keep: bool = False
    start: int = 0

    def __str__(self) -> str:
        steps = "".join(f"\n    {step!r}," for step in self.steps)
        values = {name: getattr(self, name) for name in ("resync", "one", "keep", "start")}
        more = "".join(f", {name}={value}" for name, value in values.items() if value)
        return (
            "from tests.fuzz.orders import *\n"
            f"run(Program({self.source or repr(self.codec)}, {_show_bytes(self.stream)}, "
            f"[{steps}\n], raw={self.raw}, skip={self.skip}{more}))"
        )

    def splitter(self, engine: ModuleType) -> Any:
        """Return a splitter of an engine for the program."""
        return engine.Splitter(
            self.codec,
            raw=self.raw,
            on_oversize="skip" if self.skip else "raise",
            on_invalid="resync" if self.resync else "raise",
            one_at_a_time=self.one,
            keep_headers=self.keep,
            stream_offset=self.start,
        )


def _show_bytes(data: bytes) -> str:
    if len(data) < 200:
        return repr(data)
    parts, plain, pos = [], b"", 0
    while pos < len(data):
        if data[pos : pos + 64] == blob(data[pos], 64):
            stop = pos + 64
            while stop < len(data) and data[stop] == (data[stop - 1] + 1) % 251:
                stop += 1
            parts += [repr(plain)] if plain else []
            parts.append(f"blob({data[pos]}, {stop - pos})")
            plain, pos = b"", stop
        else:
            plain += data[pos : pos + 1]
            pos += 1
    return " + ".join(parts + ([repr(plain)] if plain else [])) or "b''"


# --- drawing --------------------------------------------------------------------------------------


@dataclass
class Stock:
    """A codec, and what is made from it once for many programs."""

    codec: Codec
    source: str
    for_reference: Codec
    frames: list[bytes]
    large: list[bytes]


LARGE_SIZES = (4096, 20_000, 65_535, 66_000, 70_000, 131_072, 150_000, 400_000)


def _roomy(rng: random.Random) -> Codec:
    """Return a codec for large messages, whose memory get_room gives."""
    owned = {"magic": rng.choice((b"", b"", b"MG")), "trailer": rng.choice((b"", b"", b"!!"))}
    way = rng.randrange(5)
    if way == 0:
        return Codec.uint(4, max_message_size=rng.choice((None, 2**24, 140_000)))
    if way == 1:
        return Codec.uint(rng.choice((3, 4, 8)), "little", **owned)
    if way == 2:
        return Codec.uint(4, length_offset=len(owned["magic"]) + 3, **owned)
    if way == 3:
        return Codec.text(**owned)
    return Codec.headers(max_message_size=rng.choice((2**24, 140_000)), **owned)


def _custom(rng: random.Random) -> Codec:
    trick, leads = rng.choice(TRICKS), rng.random() < 0.4
    parser = Parser(
        look_ahead=rng.choice((0, 0, 2, 3, 4, 8, 40, 300)),
        early=rng.random() < 0.2,
        leads=leads,
        trick=trick,
    )
    return Codec.custom(
        parser,
        Builder(leads, bool(trick)),
        max_header=rng.choice((4, 5, 8, 64, 1000)),
        magic=rng.choice((b"", b"", b"M", b"\0\1")),
        trailer=rng.choice((b"", b"", b"T", b"\r\n")),
        max_message_size=rng.choice((None, 40, 300, 2**24)),
    )


def _draw_codec(rng: random.Random) -> tuple[Codec, str]:
    from tests.fuzz import random_codec

    way = rng.random()
    if way < 0.3:
        return random_codec(rng), ""
    if way < 0.4:
        name = rng.choice(list(CODECS))
        return CODECS[name], f"CODECS[{name!r}]"
    if way < 0.5:
        name = rng.choice(list(formats))
        return formats[name], f"formats[{name!r}]"
    return (_custom(rng) if way < 0.8 else _roomy(rng)), ""


def draw_stock(rng: random.Random, number: int) -> Stock:
    """Return a codec, drawn by `rng`, with frames of the messages of this number."""
    codec, source = _draw_codec(rng)
    for_reference = codec
    if isinstance(parse := codec.parameters.get("parse"), Parser):
        for_reference = codec.replace(parse=replace(parse, plain=True))
    NOW.splitter = None
    frames = [codec.encode(message) for message in sample_messages(codec, number)]
    large = []
    for size in LARGE_SIZES:
        message = blob(rng.randrange(251), size)
        with contextlib.suppress(FrameError, ValueError, TypeError, OverflowError):
            large.append(codec.encode(message))
    return Stock(codec, source, for_reference, frames, large)


_stocks: dict[int, Stock] = {}


def stock_of(seed: int) -> Stock:
    number = seed // PROGRAMS_PER_CODEC
    if number not in _stocks:
        _stocks.clear()
        _stocks[number] = draw_stock(random.Random(number * 7919 + 1), number)
    return _stocks[number]


SCRIBBLE = 500  # bytes

SIZES = (0, 1, 1, 2, 2, 3, 4, 5, 7, 9, 17, 40, 100, 300, 1024)
LARGE = (1024, 4000, 65_536, 66_000, 80_000, 140_000, 500_000)
HINTS = (*(-1, 0, 1, 1024, 5000, 65_536, 70_000, -(2**70)) * 4, 200_000, 1_048_576, 2**40, 2**70)


def draw_program(seed: int) -> Program:
    """Return the program of this number."""
    return draw_program_of(stock_of(seed), random.Random(seed))


def draw_program_of(stock: Stock, rng: random.Random) -> Program:
    """Return a program of a codec, drawn by `rng`."""
    random_, choice = rng.random, rng.choice
    large = bool(stock.large) and random_() < 0.12
    stream = b""
    if stock.frames:
        stream = b"".join([choice(stock.frames) for _ in range(int(random_() * 7))])
    if large:
        for _ in range(1 + int(random_() * 2)):
            stream += choice(stock.large)
            if stock.frames and random_() < 0.6:
                stream += choice(stock.frames)
    way = random_()
    if way < 0.35:
        stream = damaged(stream, stock.codec, rng)
    elif way < 0.45:
        stream = rng.randbytes(int(random_() * 30)) + stream
    elif way < 0.6:
        stream += rng.randbytes(int(random_() * 12))
    sizes = LARGE if large else SIZES
    if not large and random_() < 0.2:
        sizes = (1, 1, 2)
    steps: list[tuple[Any, ...]] = []
    left = len(stream)
    for _ in range(2 + int(random_() * 12)):
        draw = _DRAWS[int(random_() * len(_DRAWS))]
        step = draw(rng, choice(sizes) if random_() < 0.85 else left)
        steps.append(step)
    steps.append(("rest", choice(("feed", "get_buffer", "get_room")), choice(HINTS)))
    way = random_()
    if way < 0.5:
        steps.append(("eof",))
    if way < 0.8:
        steps.append(("detach",))
    program = Program(
        stock.codec, stream, steps, random_() < 0.25, random_() < 0.3, source=stock.source
    )
    return with_options(program, large, rng)


def with_options(program: Program, large: bool, rng: random.Random) -> Program:
    """Return a program with more options of the splitter, and with other codecs in its stream.

    These draws come last, so that an input of `tests.fuzz.guided` remains the same in the rest.
    """
    random_, choice = rng.random, rng.choice
    resync = random_() < 0.3 and not large and is_marked(program.codec)
    one = random_() < 0.3
    keep = random_() < 0.3
    start = choice((0, 0, 0, 1000, 2**40))
    stream, steps = program.stream, [*program.steps]
    if random_() < 0.35 and not large:  # many small frames take the reference too long
        name = choice(_MARKED if resync and random_() < 0.9 else _NAMES)
        frames = [*_frames_of(name), b""]
        place = int(random_() * (len(stream) + 1)) if random_() < 0.3 else len(stream)
        others = b"".join([choice(frames) for _ in range(1 + int(random_() * 4))])
        if random_() < 0.2:
            others = damaged(others, CODECS[name], rng)
        stream = stream[:place] + others + stream[place:]
        at = int(random_() * len(steps))
        more: list[tuple[Any, ...]] = [("until", place)] if random_() < 0.6 else []
        if one and random_() < 0.7:
            more.append(("drain",))
        steps[at:at] = [*more, ("switch", name)]
        if random_() < 0.3:
            at += int(random_() * (len(steps) - at))
            steps.insert(at, ("switch", choice(("", "", name, choice(_NAMES)))))
    for _ in range(int(random_() * 3) if one else 0):
        steps.insert(int(random_() * (len(steps) + 1)), ("drain",))
    return replace(
        program, stream=stream, steps=steps, resync=resync, one=one, keep=keep, start=start
    )


_NAMES = [*CODECS]
_MARKED = [name for name, codec in CODECS.items() if is_marked(codec)]


@functools.cache
def _frames_of(name: str) -> list[bytes]:
    codec = CODECS[name]
    return [codec.encode(message) for message in sample_messages(codec)]


FORMS: list[Callable[[bytes], Any]] = [
    lambda data: data,
    bytearray,
    memoryview,
    lambda data: memoryview(b"<" + data + b">")[1:-1],
    lambda data: memoryview(bytearray(b"<" + data + b">"))[1:-1],
    lambda data: array.array("B", data),
    lambda data: memoryview(data).cast("B", (1, len(data))) if data else memoryview(data),
    lambda data: _Bytes(data),
]


class _Bytes(bytes):
    """A subclass, which the engines must not treat as plain `bytes`."""


class Index:
    """A number whose `__index__` calls the splitter."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def __index__(self) -> int:
        from tests.fuzz.parsers import attempt

        attempt(NOW.splitter.get_buffer, 1024)
        attempt(NOW.splitter.get_room, 1024)
        return self.number  # type: ignore[no-any-return]


BAD_DATA: list[Callable[[], Any]] = [
    lambda: None,
    lambda: "text",
    lambda: 5,
    lambda: memoryview(b"abcdef")[::2],
    lambda: [1, 2],
    lambda: memoryview(bytearray(b"abcdef"))[::-1],
    lambda: _released(),
]


def _released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


COUNTS: list[Callable[[int], Any]] = [
    lambda size: -1,
    lambda size: size + 1,
    lambda size: 2**62,
    lambda size: 2**70,
    lambda size: -(2**70),
    lambda size: "1",
    lambda size: None,
    lambda size: 1.5,
    lambda size: Index("1"),
]

ALIASES = ("view", "view of it", "slice", "cast", "obj")

_give = ("get_buffer", "get_room")
_DRAWS: list[Callable[[random.Random, int], tuple[Any, ...]]] = [
    *[lambda rng, n: ("feed", n, int(rng.random() ** 2 * len(FORMS)))] * 9,
    *[lambda rng, n: ("give", rng.choice(_give), rng.choice(HINTS), n, rng.choice(ALIASES))] * 9,
    *[lambda rng, n: ("get", rng.choice(_give), rng.choice(HINTS), rng.random() < 0.5)] * 4,
    *[lambda rng, n: ("update", n, rng.choice(ALIASES))] * 3,
    lambda rng, n: ("update wrongly", rng.randrange(len(COUNTS))),
    *[lambda rng, n: ("feed given", rng.choice(_give), rng.choice(HINTS), n, rng.choice(SIZES))]
    * 2,
    *[lambda rng, n: ("scribble",)] * 3,
    lambda rng, n: ("eof",) if rng.random() < 0.3 else ("collect",),
    lambda rng, n: ("detach",) if rng.random() < 0.3 else ("drop",),
    lambda rng, n: ("feed wrongly", rng.randrange(len(BAD_DATA))),
    lambda rng, n: ("get wrongly", rng.choice(_give), rng.randrange(4)),
    lambda rng, n: ("scan", n, rng.random() < 0.5),
    lambda rng, n: ("split", n),
    lambda rng, n: ("copy", rng.randrange(len(COPIES))),
    lambda rng, n: ("encode", rng.randrange(2**30)),
]


# --- running --------------------------------------------------------------------------------------


class Mismatch(AssertionError):
    """The engines differ, or an engine and the reference do."""


class Side:
    """A splitter on one engine, and everything that it gave."""

    def __init__(self, engine: ModuleType, program: Program) -> None:
        self.engine = engine
        self.splitter: Any = program.splitter(engine)
        self.messages: list[Any] = []
        self.copies: list[Any] = []  # of them, as they were
        self.needed = 1  # bytes_needed before the call
        self.resyncs = 0  # before the call
        self.given: memoryview | None = None  # what was given last
        self.kept: list[Any] = []  # views of what was given, their objects
        self.spans: list[tuple[Any, Any]] = []
        self.log: list[Any] = []

    def attempt(
        self, call: Callable[..., Any], *arguments: Any, chunk: Any = None, beside: bool = False
    ) -> Any:
        """Return the result or the exception of a call.

        Args:
            beside: The call is not one of the splitter, so tricks get no splitter to call.
        """
        NOW.splitter = None if beside else self.splitter
        NOW.engine, NOW.chunk, NOW.log = self.engine, chunk, self.log
        self.needed, self.resyncs = self.splitter.bytes_needed, self.splitter.resyncs
        try:
            return call(*arguments)
        except BaseException as error:
            if type(error) is KeyboardInterrupt:  # a campaign is to end
                raise
            return error
        finally:
            NOW.splitter = NOW.chunk = None

    def public(self, tainted: bool = False) -> tuple[Any, ...]:
        splitter = self.splitter
        return (
            splitter.pending,
            splitter.bytes_needed,
            splitter.stream_offset,
            splitter.pending_header,
            splitter.skipped,
            _described(splitter.error, tainted),
            splitter.resyncs,
            splitter.discarded,
            _described(splitter.last_invalid, tainted),
            None if tainted else splitter.headers,
        )


def _described(result: Any, tainted: bool = False) -> Any:
    """Return an error as plain data, anything else as it is.

    A text shows the first bytes of the unfinished frame, which are anything if it is tainted.
    """
    if isinstance(result, BaseException):
        if isinstance(result, FrameError):
            return type(result), "" if tainted else str(result), {**vars(result)}
        return type(result), str(result)
    return result


_NUMBER = re.compile(r"\d+")


def _layouts(codec: Codec) -> list[Any]:
    choice = codec.layout.choice
    return [*choice.layouts] if choice else [codec.layout]


def _is_checked(codec: Codec) -> bool:
    return any(layout.check is not None for layout in _layouts(codec))


class Run:
    """One run of a program."""

    def __init__(self, program: Program, engines: list[ModuleType], for_reference: Codec) -> None:
        self.program = program
        self.for_reference = for_reference
        self.model = Model(for_reference, program)
        self.sides = [Side(engine, program) for engine in engines]
        self.wanted: list[Any] = []  # the messages that were delivered
        self.tainted = False  # the unfinished frame was written to, its bytes are anything
        self.dropped = False  # what was given last is gone
        self.sliced = False  # the chunk was a long one

    @property
    def left(self) -> int:
        return len(self.program.stream) - self.model.taken

    def fail(self, what: str, *seen: Any) -> None:
        raise Mismatch(": ".join([what, *map(_short, seen)]))

    def same(self, what: str, results: list[Any]) -> Any:
        """Check that all results are the same; return the first one."""
        first = _described(results[0], self.tainted)
        for other in results[1:]:
            if (described := _described(other, self.tainted)) != first:
                self.fail(f"{what}: the engines differ", first, described)
        return results[0]

    # --- calls that take bytes

    def check_taken(self, what: str, size: int, results: list[Any]) -> bool:
        """Check a call that was given `size` bytes; return whether the stream can continue."""
        model = self.model
        if model.detached or model.failed:
            self.check_refused(what, results)
            return False
        expected = model.take(size)
        if isinstance(expected, list) and expected:
            for side in self.sides:
                # A frame that turns out bad before its end may hold one that ends before it.
                is_bad = side.splitter.resyncs > side.resyncs
                waits = self.program.one and side.needed == 1
                if size < side.needed and not (is_bad or waits):
                    self.fail(f"{what}: bytes_needed was no lower bound", side.needed, size)
        return self.check_delivered(what, expected, results)

    def check_delivered(
        self,
        what: str,
        expected: list[Any] | type[BaseException],
        results: list[Any],
    ) -> bool:
        """Check what a call returned; return whether the stream can continue."""
        model = self.model
        if isinstance(expected, type):
            result = self.same(what, results)
            if type(result) is not expected:
                self.fail(f"{what} at byte {model.taken}", expected, result)
            is_frame_error = isinstance(result, FrameError) and not self.tainted
            if is_frame_error and vars(result) != model.attributes:
                self.fail(f"{what} at byte {model.taken}", model.attributes, vars(result))
            for side, error in zip(self.sides, results, strict=True):
                if side.splitter.error is not error:
                    self.fail(f"{what}: the error does not stick", side.splitter.error)
            return False
        for side, result in zip(self.sides, results, strict=True):
            if type(result) is not list:
                self.fail(f"{what} at byte {model.taken}", expected, result)
            if self.tainted and result and expected:
                if isinstance(expected[0], bytes) and isinstance(result[0], bytes):
                    if len(result[0]) != len(expected[0]):
                        self.fail(f"{what} at byte {model.taken}", expected, result)
                    expected = [bytes(memoryview(result[0])), *expected[1:]]
                if result != expected:
                    self.fail(f"{what} at byte {model.taken}", expected, result)
                side.copies += expected
            elif result != expected:
                self.fail(f"{what} at byte {model.taken}", expected, result)
            else:
                side.copies += expected
            side.messages += result
        if not self.tainted:
            self.check_headers(what, results)
        if expected or not model.pending:
            self.tainted = False
        return not model.failed

    def check_headers(self, what: str, results: list[list[Any]]) -> None:
        """Check the headers that are kept of the messages that a call returned."""
        model, program = self.model, self.program
        kept = program.keep and not program.raw and not model.codec.layout.canonical
        if model.next is not None:
            return
        frames = model.frames() if kept and results[0] else []
        for side, messages in zip(self.sides, results, strict=True):
            headers = side.splitter.headers
            if (headers is not None) != kept or (kept and len(headers) != len(messages)):
                self.fail(f"headers after {what}", messages, headers)
            NOW.splitter = None
            has_align = max(layout.align for layout in _layouts(model.codec))
            for (frame, stop), message, header in zip(
                frames, messages, headers or (), strict=False
            ):
                after = program.stream[stop : model.taken]
                found = frames_as_travelled(model.codec, [message], [header], after)
                if model.codec.kind == "delimiter":  # a longer end mark may be whole
                    frame = program.stream[stop - len(frame) :][: max(len(frame), len(found))]
                size = len(frame) - has_align + 1  # the padding is not kept
                if found[:size] != frame[:size] or len(found) != len(frame):
                    self.fail(f"headers after {what}", frame, found)

    def check_refused(self, what: str, results: list[Any]) -> None:
        """Check a call to a splitter that is detached or has failed."""
        result = self.same(what, results)
        if self.model.detached:
            if type(result) is not ValueError or "detached" not in str(result):
                self.fail(f"{what} after detach()", result)
            return
        for side, error in zip(self.sides, results, strict=True):
            if side.splitter.error is not error:
                self.fail(f"{what} after an error", error)

    def check_public(self, what: str) -> None:
        """Check that all public attributes are the same and fit the stream."""
        seen = [side.public(self.tainted) for side in self.sides]
        public = self.same(f"attributes after {what}", seen)
        model = self.model
        place = model.pending, model.offset + self.program.start
        if not model.detached and (public[0], public[2]) != place:
            self.fail(f"pending, stream_offset after {what}", place, public)
        counts = (
            model.resyncs_before + model.resyncs,
            model.discarded_before + model.discarded,
            model.last_bad and model.last_bad[0],
            model.last_bad and model.last_bad[1],
        )
        bad = public[8]
        found = *public[6:8], bad and bad[0], bad and bad[2]["stream_offset"]
        if found != counts:
            self.fail(f"resyncs, discarded, last_invalid after {what}", counts, found)
        if (public[5] and public[5][0]) != model.failed or public[1] < 1:
            self.fail(f"error, bytes_needed after {what}", model.failed, public)
        if len(self.sides) > 1 and any(side.log for side in self.sides):
            logs = [side.log for side in self.sides]
            if not self.sliced:
                self.same(f"what the tricks saw in {what}", logs)
            for side in self.sides:
                side.log = []

    def run(self) -> None:
        NOW.own = [side.splitter for side in self.sides]
        NOW.holds = self.program.one or self.program.resync or self.program.keep
        try:
            for step in self.program.steps:
                name, *arguments = step
                taken = self.model.taken
                STEPS[name](self, *arguments)
                # The Python engine takes long chunks in slices, and a trick sees where it is.
                self.sliced = self.model.taken - taken > 65_536
                self.check_public(name)
            for side in self.sides:
                self.scribble(side)
            self.check_messages()
            for side in self.sides:
                side.splitter = None
                self.scribble(side)
                side.given = None
                side.kept.clear()
                for spans, found in side.spans:
                    if _listed(spans) != found:
                        self.fail("spans have changed", found, _listed(spans))
            self.check_messages()
        finally:
            for kept in NOW.kept:  # read what was taken from the inside
                if isinstance(kept, memoryview):
                    bytes(kept)
            NOW.kept.clear()
            NOW.own = []

    def check_messages(self) -> None:
        for side in self.sides:
            if side.messages != side.copies:
                self.fail("a delivered message has changed", side.copies, side.messages)

    def scribble(self, side: Side) -> None:
        """Write to both ends of all memory that was given."""
        for thing in side.kept:
            try:
                with memoryview(thing) as view:
                    view[:SCRIBBLE] = b"\xee" * min(SCRIBBLE, len(view))
                    view[-SCRIBBLE:] = b"\xed" * min(SCRIBBLE, len(view))
            except (ValueError, TypeError, BufferError):  # it was released, or is not writable
                pass

    # --- steps

    def feed(self, size: int, form: int) -> None:
        data = self.next_bytes(size)
        results = []
        for side in self.sides:
            chunk = FORMS[form](data)
            results.append(side.attempt(side.splitter.feed, chunk, chunk=chunk))
            if isinstance(chunk, bytearray):  # nothing may hold it, and its bytes may change now
                chunk[:] = b"\xee" * len(chunk)
                chunk.clear()
        self.check_taken("feed", len(data), results)

    def next_bytes(self, size: int) -> bytes:
        return self.program.stream[self.model.taken : self.model.taken + size]

    def get(self, method: str, hint: Any, keep: bool) -> bool:
        """Get memory from each side; return whether there is some."""
        results = [side.attempt(getattr(side.splitter, method), hint) for side in self.sides]
        if self.model.detached or self.model.failed:
            self.check_refused(method, results)
            return False
        for side, view in zip(self.sides, results, strict=True):
            if type(view) is not memoryview or view.readonly or not len(view) or view.ndim != 1:
                self.fail(f"{method}({hint})", view)
            side.given = view
            if keep:
                side.kept += [view, view[:], view.obj]
        self.dropped = False
        return True

    def fill(self, size: int, alias: str, start: int = 0) -> int:
        """Write the next bytes of the stream into the given memory; return how many."""
        views = [side.given for side in self.sides]
        try:
            size = min([size, self.left, *(len(view) - start for view in views if view)])
        except ValueError:  # one was taken back
            size = min(size, self.left)
        size = max(size, 0)
        data = self.next_bytes(size)
        for view in views:
            if view is not None:
                with contextlib.suppress(ValueError):
                    _alias(view, alias)[start : start + size] = data
        return size

    def update(self, size: int, alias: str) -> bool:
        """Fill the given memory and report it; return whether the stream can continue."""
        if self.dropped:
            return False
        size = self.fill(size, alias)
        results = [side.attempt(side.splitter.buffer_updated, size) for side in self.sides]
        if self.model.detached or self.model.failed:
            self.check_refused("buffer_updated", results)
            return False
        if isinstance(results[0], ValueError):  # there is nothing given
            self.same("buffer_updated", results)
            for side in self.sides:
                side.given = None
            return False
        goes_on = self.check_taken("buffer_updated", size, results)
        for side in self.sides:
            side.given = None
        return goes_on

    def give(self, method: str, hint: Any, size: int, alias: str) -> None:
        """Pass `size` bytes through given memory, as a socket does, in several calls if needed."""
        size = min(size, self.left)
        stop = self.model.taken + size
        while True:
            if not self.get(method, hint, alias != "view"):
                return
            before = self.model.taken
            if not self.update(stop - before, alias) or self.model.taken >= stop:
                return
            if self.model.taken == before:
                self.fail("the given memory is empty")

    def rest(self, way: str, hint: Any) -> None:
        if way == "feed":
            self.feed(self.left, 0)
        else:
            self.give(way, hint, self.left, "view")

    def update_wrongly(self, which: int) -> None:
        if self.dropped:  # what is too much is not known
            return
        results = []
        for side in self.sides:
            size = 0
            with contextlib.suppress(ValueError, TypeError):
                size = len(side.given)  # type: ignore[arg-type]
            count = COUNTS[which](size)
            results.append(side.attempt(side.splitter.buffer_updated, count))
        if not isinstance(results[0], BaseException):
            self.fail("buffer_updated took a wrong count", results[0])
        if type(results[0]) is ValueError:  # the size may be each engine's own
            results = [(type(error), _NUMBER.sub("N", str(error))) for error in results]
        self.same("buffer_updated of a wrong count", results)
        if which == 8:  # it got memory
            self.drop()

    def feed_given(self, method: str, hint: Any, size: int, start: int) -> None:
        """Feed a part of the memory that was given for reading."""
        if not self.get(method, hint, True):
            return
        size = self.fill(size, "view", start)
        results = []
        for side in self.sides:
            assert side.given is not None
            part = side.given[start : start + size]
            results.append(side.attempt(side.splitter.feed, part))
            del part
        self.check_taken("feed of what was given", size, results)

    def write_to_all(self) -> None:
        if (_is_checked(self.model.codec) or self.program.resync) and self.model.pending:
            return  # its check would be wrong where an engine parses in the memory that it gave
        for side in self.sides:
            self.scribble(side)
        if self.model.pending and any(side.kept for side in self.sides):
            self.tainted = True

    def eof(self) -> None:
        model = self.model
        results = [side.attempt(side.splitter.feed_eof) for side in self.sides]
        if model.detached or model.failed:
            self.check_refused("feed_eof", results)
            return
        result = self.same("feed_eof", results)
        expected = model.end()
        if expected is None:
            if result is not None:
                self.fail("feed_eof between two frames, or before messages", result)
        elif type(result) is not expected or (
            isinstance(result, FrameError) and vars(result) != model.attributes and not self.tainted
        ):
            self.fail(
                "feed_eof", expected, model.attributes, result, getattr(result, "__dict__", None)
            )

    def detach(self) -> None:
        model = self.model
        results = [side.attempt(side.splitter.detach) for side in self.sides]
        if model.detached:
            self.check_refused("detach", results)
            return
        unread = model.unread()
        for result in results:
            if result != unread and not (
                self.tainted and isinstance(result, bytes) and len(result) == len(unread)
            ):
                self.fail(f"detach at byte {model.taken}", unread, result)
        model.detached = True

    def switch(self, name: str) -> None:
        model = self.model
        if self.tainted:  # the bytes that are read again are anything
            return
        codec = CODECS[name] if name else self.program.codec
        results = [side.attempt(side.splitter.switch, codec) for side in self.sides]
        if model.detached:
            self.check_refused("switch", results)
            return
        expected = model.switch(CODECS[name] if name else self.for_reference)
        if expected is ValueError:
            result = self.same("switch", results)
            if type(result) is not ValueError:
                self.fail(f"switch at byte {model.taken}", expected, result)
            return
        self.check_delivered("switch", expected, results)

    def until(self, place: int) -> None:
        """Feed the bytes up to a place of the stream."""
        if place > self.model.taken:
            self.feed(place - self.model.taken, 0)

    def drain(self) -> None:
        """Take undelivered messages."""
        for _ in range(40):
            results = [side.attempt(side.splitter.feed, b"") for side in self.sides]
            if not self.check_taken("feed", 0, results) or not results[0]:
                return

    def collect(self) -> None:
        gc.collect(1)

    def drop(self) -> None:
        """Drop all given memory; what was given last cannot be filled any more."""
        for side in self.sides:
            side.given = None
            side.kept.clear()
        self.dropped = True

    def feed_wrongly(self, which: int) -> None:
        self.refuse("feed of what has no bytes", "feed", BAD_DATA[which])

    def get_wrongly(self, method: str, which: int) -> None:
        hint = ("1", None, 1.5, Index("x"))[which]
        self.refuse(f"{method} of no number", method, lambda: hint)
        self.drop()  # the number may have got memory

    def refuse(self, what: str, method: str, argument: Callable[[], Any]) -> None:
        results = [side.attempt(getattr(side.splitter, method), argument()) for side in self.sides]
        if not isinstance(self.same(what, results), BaseException):
            self.fail(f"{what} was taken")

    def scan(self, size: int, raw: bool) -> None:
        data = bytearray(self.next_bytes(size))
        results, found = [], []
        for side in self.sides:
            spans = side.attempt(
                lambda engine=side.engine: engine.scan(self.program.codec, data, raw=raw),
                beside=True,
            )
            results.append(spans if isinstance(spans, BaseException) else _listed(spans))
            if not isinstance(spans, BaseException):
                found.append((side, spans, spans.consumed, [bytes(view) for view in spans]))
        self.same("scan", results)
        self.same("spans", [entry[2:] for entry in found] or [None])
        for side, spans, _, _ in found:
            side.spans.append((_export(spans), _listed(spans)))

    def split(self, size: int) -> None:
        data = self.next_bytes(size)
        results = []
        for side in self.sides:
            before = framecodec.codec.Splitter
            framecodec.codec.Splitter = side.engine.Splitter  # type: ignore[misc]
            try:
                results.append(side.attempt(self.program.codec.split, data, beside=True))
            finally:
                framecodec.codec.Splitter = before  # type: ignore[misc]
        self.same("split", results)

    def copy(self, which: int) -> None:
        results = []
        for side in self.sides:
            for thing in (side.splitter, *(spans for spans, _ in side.spans[:1])):
                if thing is not side.splitter:
                    side.attempt(COPIES[which], thing)
                    continue
                result = side.attempt(COPIES[which], thing)
                results.append(type(result) if isinstance(result, Exception) else "copied")
            if side.given is not None:
                with contextlib.suppress(ValueError):  # it was withdrawn
                    if not isinstance(side.given.obj, bytearray):
                        side.attempt(COPIES[which], side.given.obj)
        if self.same("copying", results) == "copied":
            self.fail("a splitter was copied")

    def encode(self, seed: int) -> None:
        rng = random.Random(seed)
        known = stock_messages(self.program.codec)
        batch = [rng.choice(known) for _ in range(rng.randint(0, 4))] if known else []
        batch += [
            rng.choice((b"", bytearray(b"ab"), memoryview(b"abc"), "text", None, 5, b"x" * 99))
        ]
        rng.shuffle(batch)
        results = []
        for side in self.sides:
            encoder = side.attempt(side.engine.Encoder, self.program.codec)
            items = list(batch)
            one = side.attempt(encoder.encode, items[0], beside=True)
            changing = _Changing(items) if seed & 1 else items
            many = side.attempt(encoder.encode_many, changing, beside=True)
            parts = side.attempt(encoder.frame_parts, items[0], beside=True)
            if isinstance(parts, list):
                parts = b"".join(parts)
            results.append((_described(one), _described(many), _described(parts)))
        self.same("encode", results)


class _Changing(list[Any]):
    """A batch that grows while it is read."""

    def __iter__(self) -> Iterator[Any]:
        for item in list.__iter__(self):
            yield item
            if len(self) < 9:
                self.append(item)


_messages: dict[int, list[Any]] = {}


def stock_messages(codec: Codec) -> list[Any]:
    if id(codec) not in _messages:
        _messages.clear()
        _messages[id(codec)] = sample_messages(codec)
    return _messages[id(codec)]


STEPS: dict[str, Callable[..., Any]] = {
    "feed": Run.feed,
    "get": Run.get,
    "update": Run.update,
    "give": Run.give,
    "rest": Run.rest,
    "update wrongly": Run.update_wrongly,
    "feed given": Run.feed_given,
    "scribble": Run.write_to_all,
    "eof": Run.eof,
    "detach": Run.detach,
    "switch": Run.switch,
    "until": Run.until,
    "drain": Run.drain,
    "collect": Run.collect,
    "drop": Run.drop,
    "feed wrongly": Run.feed_wrongly,
    "get wrongly": Run.get_wrongly,
    "scan": Run.scan,
    "split": Run.split,
    "copy": Run.copy,
    "encode": Run.encode,
}

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda thing, n=n: pickle.dumps(thing, n) for n in (0, 2, 5)),
    lambda thing: thing.__reduce__(),
    lambda thing: thing.__reduce_ex__(4),
]


def _alias(view: memoryview, name: str) -> Any:
    if name == "view of it":
        return memoryview(view)
    if name == "slice":
        return view[:]
    if name == "cast":
        return view.cast("b").cast("B")
    if name == "obj" and isinstance(view.obj, bytearray):
        return memoryview(view.obj)
    return view


def _listed(spans: Any) -> Any:
    if isinstance(spans, memoryview):
        return spans.tolist() if spans.shape and spans.shape[0] else []
    return [[len(view), bytes(view)] for view in spans]


def _export(spans: Any) -> Any:
    return spans


def _short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) < 300 else f"{text[:280]}... ({len(text)} characters)"


def load_engines(names: list[str] | None = None) -> list[ModuleType]:
    import importlib

    from tests.helpers.engines import ENGINES

    return [importlib.import_module(ENGINES[name]) for name in names or ENGINES]


def run(program: Program, engines: list[ModuleType] | None = None) -> None:
    """Run a program; raise `Mismatch` where something is wrong."""
    codec = program.codec
    if isinstance(parse := codec.parameters.get("parse"), Parser):
        codec = codec.replace(parse=replace(parse, plain=True))
    Run(program, engines or load_engines(), codec).run()


def run_seed(seed: int, engines: list[ModuleType]) -> None:
    run_of(draw_program(seed), stock_of(seed), engines)


def run_of(program: Program, stock: Stock, engines: list[ModuleType]) -> None:
    """Run a program of this stock; raise `Mismatch` where something is wrong."""
    Run(program, engines, stock.for_reference).run()


def outcome_of(program: Program, engines: list[ModuleType]) -> str:
    """Return what is wrong with a program, or ""."""
    try:
        run(program, engines)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


# --- making a failure smaller ---------------------------------------------------------------------


def shrink(program: Program, fails: Callable[[Program], bool], seconds: float = 20.0) -> Program:
    """Return the smallest program that still fails and is found in this time."""
    end = time.monotonic() + seconds
    for _ in range(6):
        before = program
        for candidates in (_fewer_steps, _simpler_choices, _less_stream, _simpler_steps):
            pos = 0
            while time.monotonic() < end and (options := list(candidates(program)))[pos:]:
                if fails(options[pos]):
                    program = options[pos]
                else:
                    pos += 1
        if program == before:
            break
    return program


def _fewer_steps(program: Program) -> Iterator[Program]:
    steps = program.steps
    for size in (8, 4, 2, 1):
        for pos in range(0, len(steps), size):
            if len(steps) > size or size == 1:
                yield replace(program, steps=steps[:pos] + steps[pos + size :])


def _simpler_choices(program: Program) -> Iterator[Program]:
    if program.raw:
        yield replace(program, raw=False)
    for name, plain in (
        ("skip", False),
        ("resync", False),
        ("one", False),
        ("keep", False),
        ("start", 0),
    ):
        if getattr(program, name) != plain:
            yield replace(program, **{name: plain})  # type: ignore[arg-type]
    has = program.codec.parameters
    for name, plain in (
        ("magic", b""),
        ("trailer", b""),
        ("specials", None),
        ("length_adjustment", 0),
        ("length_offset", None),
        ("length_includes", "rest"),
        ("max_message_size", None),
    ):
        if has[name] != plain:
            with contextlib.suppress(ValueError, TypeError):
                yield replace(program, codec=program.codec.replace(**{name: plain}), source="")
    if isinstance(parse := has.get("parse"), Parser):
        for change in ({"look_ahead": 0}, {"early": False}, {"leads": False}, {"trick": ""}):
            if replace(parse, **change) != parse:  # type: ignore[arg-type]
                changed = replace(parse, **change)  # type: ignore[arg-type]
                yield replace(program, codec=program.codec.replace(parse=changed), source="")


def _less_stream(program: Program) -> Iterator[Program]:
    stream = program.stream
    size = len(stream)
    step = 1 << max(0, size.bit_length() - 1)
    while step:
        if size // step < 200:
            for pos in range(0, size, step):
                yield replace(program, stream=stream[:pos] + stream[pos + step :])
        step //= 4
    if size < 200:
        for pos in range(size):
            if stream[pos]:
                yield replace(program, stream=stream[:pos] + b"\0" + stream[pos + 1 :])


def _simpler_steps(program: Program) -> Iterator[Program]:
    for pos, step in enumerate(program.steps):
        for index, argument in enumerate(step[1:], 1):
            options: tuple[Any, ...] = ()
            if isinstance(argument, bool):
                options = (False,) if argument else ()
            elif isinstance(argument, int):
                options = tuple(n for n in (0, 1, argument // 2, argument - 1) if 0 <= n < argument)
            elif argument in ALIASES[1:]:
                options = ("view",)
            for option in options:
                changed = (*step[:index], option, *step[index + 1 :])
                yield replace(
                    program, steps=[*program.steps[:pos], changed, *program.steps[pos + 1 :]]
                )
