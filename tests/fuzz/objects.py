"""Run random calls on codecs with objects, on both engines step by step.

    python -m tests.fuzz objects --minutes 10        as many cases as fit
    python -m tests.fuzz objects --seed 77 --cases 1 one case, again

A case is a codec, two functions that turn messages into objects and back, a stream, and calls. What
the functions do with a message depends on its bytes alone: they make an object of it, raise an
exception of any kind, call the splitter that calls them, or return what `encode` must refuse. A
case is one of three ways: the calls of a splitter, those of a `FrameSocket` that receives, or those
that encode, of which one is `send`.

Each call must do the same on each engine: results, types and texts of exceptions, every public
attribute. The reference (tests/helpers/reference_parser.py) knows the messages of the stream: all
calls together must deliver the object of each, or one error with the offset of its frame, in this
order, and then what the stream's end is.
"""

from __future__ import annotations

import contextlib
import random
import socket
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from types import ModuleType
from typing import Any

from framecodec import Codec, FrameError, FrameSocket, InvalidFrameError, InvalidMessageError
from tests.helpers.engines import codecs_use
from tests.helpers.fault_injection import Interruption
from tests.helpers.reference_parser import expect
from tests.helpers.sample_codecs import CODECS, damaged, sample_messages

__all__ = ["Case", "Mismatch", "draw_case", "run_case"]


class Mismatch(AssertionError):
    """The engines differ, or an engine and the reference do."""


# --- functions of the user ------------------------------------------------------------------------


class Now:
    """What the functions call meanwhile, and what came of it."""

    splitter: Any = None
    log: list[Any] = []  # noqa: RUF012 (replaced for each call)


@dataclass(frozen=True)
class Loads:
    """What makes an object of a message.

    Args:
        salt: Determines what it does with each message.
        wild: Whether it may raise what says nothing about the message, and call the splitter.
    """

    salt: int
    wild: bool

    def way(self, message: bytes) -> int:
        way = zlib.crc32(message, self.salt) % 24
        return way if way < 8 or (self.wild and way < 13) else 99

    def __call__(self, message: Any) -> Any:
        way = self.way(message)
        Now.log.append(way)
        if way in _RAISED:
            raise _RAISED[way]("of the user's")
        if way == 5:
            return None
        if way == 6:
            return [message]
        if way in (11, 12) and Now.splitter is not None:
            call = (Now.splitter.feed, Now.splitter.switch)[way - 11]
            try:
                call(b"x" if way == 11 else Codec.uint(1))
            except Exception as error:
                Now.log.append((type(error), str(error)))
            else:
                Now.log.append("a call from the inside was made")
        return Loaded(message)

    def refuses(self, message: Any) -> bool:
        return isinstance(message, bytes) and self.way(message) in _REFUSING


_RAISED: dict[int, type[BaseException]] = {
    0: ValueError,
    1: StopIteration,
    2: InvalidFrameError,
    3: OSError,
    4: EOFError,
    7: TimeoutError,
    8: Interruption,
    9: MemoryError,
    10: GeneratorExit,
}
_REFUSING = [way for way, kind in _RAISED.items() if way < 8 and issubclass(kind, Exception)]


@dataclass(frozen=True)
class Loaded:
    """An object."""

    message: Any


def dumps(message: Any) -> Any:
    """Return the bytes of an object; what it does with others is in them."""
    if isinstance(message, Loaded):
        return message.message
    if isinstance(message, BaseException):
        raise message
    return message


# --- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What a run is made from.

    Args:
        seed: Its number.
        name: Of the plain codec.
        loads: What makes objects.
        stream: The bytes that arrive.
        steps: Names of calls with their arguments.
        way: "splitter", "socket" or "encode".
        options: Of the splitter.
    """

    seed: int
    name: str
    loads: Loads
    stream: bytes
    steps: list[tuple[Any, ...]]
    way: str
    options: dict[str, Any]

    @property
    def plain(self) -> Codec:
        return CODECS[self.name]

    def codec(self) -> Codec[Any]:
        """Return a new codec, with the engine that is in use."""
        return self.plain.replace().with_objects(dumps, self.loads)


def draw_case(seed: int) -> Case:
    """Return the case of this number."""
    rng = random.Random(f"objects {seed}")
    name = rng.choice([*CODECS])
    plain = CODECS[name]
    stream = b""
    frames = [plain.encode(message) for message in sample_messages(plain)]
    for _ in range(rng.randint(0, 8) if frames else 0):
        stream += rng.choice(frames)
    if rng.random() < 0.3:
        stream = damaged(stream, plain, rng)
    way = rng.choice(("splitter", "splitter", "splitter", "socket", "socket", "encode"))
    loads = Loads(rng.randrange(2**32), rng.random() < 0.3)
    options: dict[str, Any] = {}
    if way == "splitter":
        options["one_at_a_time"] = rng.random() < 0.3
        options["keep_headers"] = rng.random() < 0.2
        options["stream_offset"] = rng.choice((0, 0, 1000))
    options["on_oversize"] = rng.choice(("raise", "raise", "skip"))
    draws = {"splitter": _SPLITTER_STEPS, "socket": _SOCKET_STEPS, "encode": _ENCODE_STEPS}[way]
    steps = [rng.choice(draws)(rng) for _ in range(rng.randint(2, 14))]
    return Case(seed, name, loads, stream, steps, way, options)


_SIZES = (0, 1, 1, 2, 3, 5, 8, 13, 40, 200, 1000)
_Draw = Callable[[random.Random], tuple[Any, ...]]
_SPLITTER_STEPS: list[_Draw] = [
    *[lambda rng: ("feed", rng.choice(_SIZES))] * 5,
    *[lambda rng: ("give", rng.choice(("get_buffer", "get_room")), rng.choice(_SIZES))] * 3,
    *[lambda rng: ("feed", 0)] * 2,
    lambda rng: ("eof",) if rng.random() < 0.3 else ("feed", 1),
    lambda rng: ("detach",) if rng.random() < 0.2 else ("feed", 3),
    lambda rng: ("switch", rng.random() < 0.7) if rng.random() < 0.3 else ("feed", 2),
]
_SOCKET_STEPS: list[_Draw] = [
    *[lambda rng: ("arrive", rng.choice(_SIZES))] * 4,
    lambda rng: ("recv",),
    lambda rng: ("recv_many",),
    lambda rng: ("next",),
]
_ENCODE_STEPS: list[_Draw] = [
    lambda rng: ("encode", rng.randrange(2**30)),
    lambda rng: ("encode_many", rng.randrange(2**30)),
    lambda rng: ("frame_parts", rng.randrange(2**30)),
    lambda rng: ("send", rng.randrange(2**30)),
    lambda rng: ("send_many", rng.randrange(2**30)),
]


# --- running --------------------------------------------------------------------------------------


def run_case(seed: int, engines: list[ModuleType]) -> None:
    """Run a case on the engines; raise `Mismatch` where something is wrong."""
    case = draw_case(seed)
    found = []
    for engine in engines:
        with codecs_use(engine):
            found.append(_RUNS[case.way](case, engine))
    for number, results in enumerate(zip_longest(*found)):
        for other in results[1:]:
            if other != results[0]:
                name = case.steps[number] if number < len(case.steps) else "the end"
                raise Mismatch(f"{name}: the engines differ: {results[0]}: {other}; {case}")


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns or raises."""
    try:
        return call(*arguments)
    except BaseException as error:
        if type(error) is KeyboardInterrupt:  # a campaign is to end
            raise
        return error


def described(result: Any) -> Any:
    """Return an error as plain data, anything else as it is."""
    if isinstance(result, memoryview):
        return bytes(result)
    if not isinstance(result, BaseException):
        return result
    attributes = vars(result) if isinstance(result, FrameError) else {}
    return type(result), str(result), {**attributes}, described(result.__cause__)


class Delivered:
    """What calls have delivered, in order: objects, and the offsets of refused messages."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.error: BaseException | None = None  # the one that ended it
        self.interrupted = False

    def take(self, result: Any) -> None:
        if isinstance(result, InvalidMessageError):
            self.all.append(("refused", result.stream_offset))
        elif isinstance(result, BaseException):
            self.error = result
        else:
            self.all += result


def run_splitter(case: Case, engine: ModuleType) -> list[Any]:
    """Make the calls of a splitter; return what each has done, and the state after it."""
    codec = case.codec()
    splitter = engine.Splitter(codec, **case.options)
    delivered, results, taken, is_whole = Delivered(), [], 0, True

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        Now.splitter, Now.log = splitter, []
        result = attempt(function, *arguments)
        Now.splitter = None
        results.append((described(result), Now.log, _public(splitter)))
        return result

    for step in [*case.steps, ("feed", len(case.stream))]:
        if step[0] in ("eof", "detach", "switch"):
            is_whole = False
        if step[0] == "feed":
            data = case.stream[taken : taken + step[1]]
            taken += len(data)
            delivered.take(call(splitter.feed, data))
        elif step[0] == "give":
            view = attempt(getattr(splitter, step[1]), 1000)
            if isinstance(view, memoryview):
                data = case.stream[taken : taken + min(step[2], len(view))]
                view[: len(data)] = data
                del view
                taken += len(data)
                delivered.take(call(splitter.buffer_updated, len(data)))
            else:
                results.append(described(view))
        elif step[0] == "eof":
            call(splitter.feed_eof)
        elif step[0] == "detach":
            call(splitter.detach)
        else:
            delivered.take(result := call(splitter.switch, codec if step[1] else case.plain))
            assert not isinstance(result, TypeError)
    before = -1
    while len(delivered.all) > before:  # also after an error, which comes after all messages
        before = len(delivered.all)
        delivered.take(call(splitter.feed, b""))
    end = attempt(splitter.feed_eof)
    results.append((described(end), described(attempt(splitter.detach))))
    if is_whole and not case.loads.wild:
        check(case, delivered.all, end)
    return results


def _public(splitter: Any) -> tuple[Any, ...]:
    return (
        splitter.pending,
        splitter.bytes_needed,
        splitter.stream_offset,
        splitter.pending_header,
        splitter.skipped,
        described(splitter.error),
        splitter.headers,
    )


def check(case: Case, found: list[Any], end: Any) -> None:
    """Compare what was delivered with the reference."""
    skip = case.options["on_oversize"] == "skip"
    outcome = expect(case.plain, case.stream, skip=skip)
    start = case.options.get("stream_offset", 0)
    starts = _starts(outcome.steps)
    expected = []
    for number, message in enumerate(outcome.messages):
        if case.loads.refuses(_innermost(message)):
            expected.append(("refused", start + starts[number]))
        else:
            expected.append(_object_of(case.loads, message))
    if found != expected:
        pairs = enumerate(zip_longest(found, expected, fillvalue="nothing"))
        number, pair = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
        raise Mismatch(f"number {number} is {pair[0]}, expected {pair[1]}; {case}")
    if (type(end) if isinstance(end, BaseException) else None) != outcome.error:
        raise Mismatch(f"the end is {end!r}, expected {outcome.error}; {case}")


def _starts(steps: list[tuple[int, int, int]]) -> list[int]:
    """Return where the frame of each message starts."""
    starts, before, count = [], 0, 0
    for _, stop, now in steps:
        if now > count:
            starts.append(before)
            count = now
        before = stop
    return starts


def _innermost(message: Any) -> Any:
    while type(message) is tuple:
        message = message[1]
    return message


def _object_of(loads: Loads, message: Any) -> Any:
    if type(message) is tuple:  # of a tagged choice
        return message[0], _object_of(loads, message[1])
    return loads(message) if isinstance(message, bytes) else message


def run_socket(case: Case, engine: ModuleType) -> list[Any]:
    """Make the calls of a connection that receives; return what each has done."""
    left, right = socket.socketpair()
    delivered, results, sent = Delivered(), [], 0
    with left, FrameSocket(right, case.codec(), **case.options) as conn:
        left.setblocking(False)
        conn.setblocking(False)
        messages = iter(conn)

        def call(name: str) -> Any:
            nonlocal messages
            if name == "next":
                result = attempt(next, messages)
                if isinstance(result, BaseException):
                    messages = iter(conn)
            else:
                result = attempt(getattr(conn, name))
            results.append(described(result))
            if not isinstance(result, BaseException):
                result = result if name == "recv_many" else [result]
            if not isinstance(result, BlockingIOError):
                delivered.take(result)
            return result

        for step in case.steps:
            if step[0] == "arrive":
                sent += left.send(case.stream[sent : sent + step[1]] or b"") if step[1] else 0
                results.append(sent)
            else:
                call(step[0])
        while sent < len(case.stream):
            sent += left.send(case.stream[sent : sent + 1000])
            call("recv")
        left.shutdown(socket.SHUT_WR)
        for _ in range(1000):
            result = call("recv")
            if isinstance(result, BaseException) and not isinstance(result, InvalidMessageError):
                break
        detached = attempt(conn.detach)
        if isinstance(detached, tuple):
            detached[0].close()
            detached = detached[1]
        results.append(described(detached))
    if not case.loads.wild:
        error = delivered.error
        is_clean = isinstance(error, EOFError) and not isinstance(error, FrameError)
        check(case, delivered.all, None if is_clean else error)
    return results


def run_encode(case: Case, engine: ModuleType) -> list[Any]:
    """Make the calls that encode; return what each has done."""
    codec = case.codec()
    known = [Loaded(message) for message in sample_messages(case.plain)]
    others: list[Any] = [
        Loaded(None),
        Loaded("text"),
        Loaded(bytearray(b"abc")),
        Loaded(memoryview(b"abcd")[1:]),
        Loaded(5),
        None,
        ("name", b"x"),
        ValueError("of the user's"),
        MemoryError(),
        StopIteration(),
        Interruption(),
    ]
    results: list[Any] = []
    left, right = socket.socketpair()
    with left, FrameSocket(right, codec) as conn:
        left.setblocking(False)
        for name, seed in case.steps:
            rng = random.Random(seed)
            batch = [
                rng.choice(known if known and rng.random() < 0.8 else others)
                for _ in range(rng.randint(1, 5))
            ]
            argument: Any = batch if name.endswith("_many") else batch[0]
            target = conn if name.startswith("send") else codec
            if name.endswith("_many") and rng.random() < 0.3:
                argument = iter(batch)
            result = attempt(getattr(target, name), argument)
            if name == "frame_parts" and isinstance(result, list):
                result = b"".join(result)
            arrived = b""
            with contextlib.suppress(BlockingIOError):
                arrived = left.recv(100_000)
            results.append((described(result), arrived))
            check_encoded(case, name, batch, result, arrived)
    return results


def check_encoded(case: Case, name: str, batch: list[Any], result: Any, arrived: bytes) -> None:
    """Check that whole batches leave, or nothing."""
    data = arrived if name.startswith("send") else result
    if isinstance(result, BaseException):
        if arrived:
            raise Mismatch(f"{name} raised {result!r} and sent {arrived!r}; {case}")
        return
    items = batch if name.endswith("_many") else batch[:1]
    messages = [item.message if isinstance(item, Loaded) else item for item in items]
    expected = b"".join(map(case.plain.encode, messages))
    if data != expected:
        raise Mismatch(f"{name} made {data!r}, expected {expected!r}; {case}")


_RUNS: dict[str, Callable[[Case, ModuleType], list[Any]]] = {
    "splitter": run_splitter,
    "socket": run_socket,
    "encode": run_encode,
}


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit status."""
    import argparse
    import time

    from tests.fuzz.orders import load_engines
    from tests.fuzz.workers import Failure, run_cases

    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz objects", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, help="how long (default: until --cases, or 1)")
    parser.add_argument("--seed", type=int, help="the first case's number (default: the time)")
    parser.add_argument("--cases", type=int, help="how many cases")
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument("--failures", type=int, default=1, help="how many end the campaign")
    options = parser.parse_args(arguments)
    first = int(time.time() * 1000) if options.seed is None else options.seed
    minutes = options.minutes
    if minutes is None and options.cases is None:
        minutes = 1.0
    engines = load_engines()

    def show(failure: Failure) -> None:
        print(f"case {failure.case}: {failure.reason[:3000]}", flush=True)

    began = time.monotonic()
    done, failures, _ = run_cases(
        lambda case: run_case(case, engines),
        first=first,
        count=options.cases,
        seconds=None if minutes is None else 60 * minutes,
        jobs=options.jobs,
        most_failures=options.failures,
        report=show,
    )
    rate = done / (time.monotonic() - began)
    print(f"{done} cases from {first} on, {rate:.0f} a second: {len(failures)} failed")
    return 1 if failures else 0
