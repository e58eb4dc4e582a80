"""Short, repeatable runs of the campaigns; what they found before; and that they notice defects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from framecodec import Check, Codec, InvalidMessageError, formats
from tests.fuzz import collecting, guided, objects, orders, shortage, workers
from tests.fuzz.orders import Program, blob
from tests.fuzz.parsers import Builder, Parser
from tests.fuzz.workers import Failure, in_a_child, run_cases
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.sample_codecs import CODECS

ROOT = Path(__file__).resolve().parents[2]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="campaigns run in forked processes")


def campaign(*arguments: str) -> str:
    """Run a campaign in a child process, which may crash; return what it printed."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    printed = finished.stdout + finished.stderr
    assert finished.returncode == 0, printed[-6000:]
    return printed


@pytest.mark.slow
@needs_fork
def test_orders_of_calls_on_an_engine(engine: ModuleType) -> None:
    name = "python" if engine.__name__.endswith("_py") else "compiled"
    printed = campaign("orders", "--seed", "0", "--cases", "1000", "--engine", name)
    assert "1000 programs" in printed


@pytest.mark.slow
@needs_fork
@pytest.mark.c_extension
def test_orders_of_calls_on_both_engines_step_by_step() -> None:
    assert "2000 programs" in campaign("orders", "--seed", "100000", "--cases", "2000")


@pytest.mark.slow
@needs_fork
@pytest.mark.c_extension
def test_codecs_with_objects_on_both_engines_step_by_step() -> None:
    assert "1500 cases" in campaign("objects", "--seed", "0", "--cases", "1500")


def test_codecs_with_objects_on_an_engine(engine: ModuleType) -> None:
    for seed in range(10_000, 10_300):
        objects.run_case(seed, [engine])


@pytest.mark.parametrize("defect", ["loses what follows a refused message", "says another offset"])
def test_the_objects_campaign_notices_a_defect(engine: ModuleType, defect: str) -> None:
    class Wrong:
        def __init__(self, codec: Any, **options: Any) -> None:
            self.right = engine.Splitter(codec, **options)
            self.refused = False

        def __getattr__(self, name: str) -> Any:
            return getattr(self.right, name)

        def feed(self, data: Any) -> list[Any]:
            try:
                messages: list[Any] = self.right.feed(data)
            except InvalidMessageError as error:
                self.refused = True
                if defect == "says another offset" and error.stream_offset:
                    error.stream_offset -= 1
                raise
            return [] if self.refused and defect.startswith("loses") else messages

    wrong = ModuleType("wrong")
    vars(wrong).update(vars(engine))
    wrong.Splitter = Wrong  # type: ignore[attr-defined]
    with pytest.raises(objects.Mismatch):
        run_object_cases(wrong, 500)


def run_object_cases(engine: ModuleType, count: int) -> None:
    for seed in range(count):
        if objects.draw_case(seed).way == "splitter":
            objects.run_case(seed, [engine])


@pytest.mark.slow
@needs_fork
@pytest.mark.skipif(bool(shortage.why_not()), reason=shortage.why_not())
@needs_cpython_3_11
def test_each_allocation_fails_in_turn(engine: ModuleType) -> None:
    name = "python" if engine.__name__.endswith("_py") else "compiled"
    printed = campaign("shortage", "--engine", name, "--every", "59")
    assert " 0 raised MemoryError" not in printed


@needs_fork
@pytest.mark.skipif(bool(shortage.why_not()), reason=shortage.why_not())
@needs_cpython_3_11
@pytest.mark.untraced  # the tracer allocates, too
@pytest.mark.parametrize("case", ["feed: check, bytes 0 to 36", "feed: tagged choice"])
def test_each_allocation_fails_in_turn_where_one_was_not_survived(
    engine: ModuleType, case: str
) -> None:
    # CPython 3.11 lost the exception about a wrong check, and Cython's code crashed without one; a
    # message to which no name could be added was delivered, and again by detach().
    name = "python" if engine.__name__.endswith("_py") else "compiled"
    printed = campaign("shortage", "--engine", name, "--only", case)
    assert " 0 raised MemoryError" not in printed


@needs_fork
@pytest.mark.untraced
@pytest.mark.skipif(bool(shortage.why_not()), reason=shortage.why_not())
@needs_cpython_3_11
@pytest.mark.parametrize(
    "case", ["feed: resync, bytes 0 to 37", "feed: objects, refused, bytes 8 to 22"]
)
def test_each_allocation_fails_in_turn_where_bytes_were_lost(engine: ModuleType, case: str) -> None:
    # detach() gave bytes after a bad frame twice; messages after a refused one were lost.
    name = "python" if engine.__name__.endswith("_py") else "compiled"
    printed = campaign("shortage", "--engine", name, "--only", case)
    assert " 0 raised MemoryError" not in printed


@pytest.mark.slow
@needs_fork
@pytest.mark.skipif(bool(shortage.why_not()), reason=shortage.why_not())
@needs_cpython_3_11
def test_each_allocation_fails_in_turn_where_a_message_may_be_special(engine: ModuleType) -> None:
    name = "python" if engine.__name__.endswith("_py") else "compiled"
    printed = campaign("shortage", "--engine", name, "--only", "bytes: specials")
    assert " 0 raised MemoryError" not in printed


@pytest.mark.slow
@needs_fork
@needs_cpython_3_11
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="other collectors run elsewhere")
def test_collections_inside_calls_call_in(engine: ModuleType) -> None:
    name = "python" if engine.__name__.endswith("_py") else "compiled"
    printed = campaign("collecting", "--engine", name, "--every", "61")
    assert " 0 collections called in" not in printed


def test_an_end_that_a_collection_clears_by_a_switch_is_no_failure(engine: ModuleType) -> None:
    world = collecting.World(engine, collecting.CODECS["varint"], False, False, "")
    world.feed(50)

    def end_and_collect() -> None:
        try:
            world.splitter.feed_eof()
        finally:  # a collection, before the caller sees the error
            world.switch()

    world.attempt(end_and_collect)
    assert world.splitter.error is None
    assert world.splitter.pending == 50

    def end_of_another() -> None:
        raise EOFError

    with pytest.raises(EOFError):
        world.attempt(end_of_another)


# --- what campaigns found -------------------------------------------------------------------------

aligned = Codec.uint(1, align=4, check=Check("sum8", 1))
aligned_frame = aligned.encode(b"abcde")  # 7 bytes and one of padding
aligned_magic = Codec.uint(1, magic=b"M", align=8)  # a frame of 5 bytes and 3 of padding
late = Codec.custom(Parser(look_ahead=3), Builder(), max_header=4)

FOUND: dict[str, Program] = {
    "a parser that looks ahead, and single bytes": Program(
        late, bytes(6), [("feed", 1, 0), ("feed", 1, 0), ("give", "get_buffer", 0, 1, "view")]
    ),
    "a parser that looks ahead, after a magic": Program(
        Codec.custom(Parser(look_ahead=4), Builder(), max_header=5, magic=b"\0\1"),
        b"\0\1\0\0\1\0",
        [("feed", 2, 0), ("feed", 1, 0), ("feed", 1, 0), ("give", "get_room", 0, 2, "view")],
    ),
    "a parser that looks ahead, and split": Program(
        Codec.custom(Parser(look_ahead=3, trick="collect"), Builder(), max_header=4),
        b"\x9d\0\0\0\0\0\0\0\x9d",
        [("feed", 2, 0), ("split", 5), ("feed", 7, 0)],
    ),
    "a view of a view of what get_room gave is written to after delivery": Program(
        Codec.uint(4),
        Codec.uint(4).encode(blob(0, 140_000)),
        [
            ("feed", 4000, 0),
            ("give", "get_room", -1, 100_000, "obj"),
            ("give", "get_room", -1, 140_000, "slice"),
            ("scribble",),
        ],
    ),
    "get_room, then get_buffer": Program(
        Codec.uint(4),
        Codec.uint(4).encode(blob(0, 140_000)),
        [
            ("feed", 4000, 0),
            ("get", "get_room", 70_000, True),
            ("give", "get_buffer", 70_000, 140_000, "view"),
            ("scribble",),
        ],
    ),
    "get_room, then a chunk, then what get_room gave": Program(
        Codec.uint(8),
        Codec.uint(8).encode(blob(3, 66_000)) * 2,
        [
            ("feed given", "get_room", 0, 456, 0),
            ("get", "get_room", 0, False),
            ("feed", 2, 0),
            ("update", 5, "view"),
        ],
    ),
    "a part of what get_room gave is fed": Program(
        Codec.uint(4, length_offset=4),
        Codec.uint(4, length_offset=4).encode(blob(5, 300_000)),
        [("feed", 9000, 0), ("feed given", "get_room", 119_939, 60_000, 2), ("scribble",)],
    ),
    "a count that calls in": Program(CODECS["u8"], b"\1a", [("update wrongly", 8)]),
    "int subclasses whose operators lie": Program(
        Codec.custom(Parser(trick="liars"), Builder(trick=True)), b"\x8cabc\x81\2ab", []
    ),
    "a MemoryError of the user's": Program(
        Codec.custom(Parser(trick="MemoryError"), Builder(trick=True)), b"\4a\x8cabc", []
    ),
    "an interruption after messages": Program(
        Codec.custom(Parser(trick="Interruption"), Builder(trick=True)),
        b"\4a\4b\x8cabc",
        [("feed", 7, 0), ("get wrongly", "get_room", 3), ("detach",)],
    ),
    "spans and splitters found from the inside": Program(
        Codec.custom(Parser(trick="grab"), Builder(trick=True), magic=b"M"),
        b"M\x81\0M\x84aM\4b",
        [("scan", 11, False), ("scan", 11, True), ("split", 11)],
    ),
    "buffer_updated after one that failed, and switch": Program(
        Codec.uint(1, max_message_size=0),
        b"t@",
        [
            ("give", "get_buffer", 0, 2, "view"),
            ("switch", "check at the front, custom"),
            ("update wrongly", 1),
        ],
    ),
    "switch before the padding of a frame with a check": Program(
        aligned,
        aligned_frame + CODECS["varint, specials"].encode(b"abc") * 2,
        [("until", 7), ("switch", "varint, specials")],
    ),
    "switch before padding, after a search for a mark": Program(
        aligned_magic,
        b"?" + aligned_magic.encode(b"abc") * 2,
        [("until", 6), ("switch", ""), ("rest", "feed", 0)],
        resync=True,
    ),
    "switch before padding, to frames of unknown size": Program(
        Codec.fixed(1, align=8), b"\0" * 8, [("until", 1), ("switch", "cobs")]
    ),
    "switch in a choice, one message a call": Program(
        formats["fix"], b"=FIXT.9=1", [("feed", 1, 0), ("eof",), ("switch", "")], one=True
    ),
    "one message a call, and the longer end mark": Program(
        CODECS["delimiter, prefixes"],
        b"a\r\nb\rc\r\0\1d\r\0",
        [("feed", 2, 0), ("drain",), ("rest", "feed", 0), ("drain",), ("eof",)],
        one=True,
    ),
    "headers of a choice, one of whose frames has padding that is not zero": Program(
        Codec.choice(
            {0: Codec.uint(2, length_offset=2), 64: Codec.uint(2, length_offset=2, align=4)}
        ),
        b"@\0\0\5hello???" + b"\0\0\0\1a",
        [("rest", "feed", 0)],
        keep=True,
    ),
    "headers of a parser that looks ahead": Program(
        late, b"\x81\xff" + blob(0, 255) + b"\4a\0", [("rest", "feed", 0)], keep=True
    ),
    "the end of a stream with a mark that is cut off": Program(
        CODECS["magic"],
        b"MAG\1aMAxMA" + CODECS["magic"].encode(b"b"),
        [("until", 10), ("eof",), ("rest", "get_buffer", 0)],
        resync=True,
        start=1000,
    ),
    "a bad frame that is skipped": Program(
        CODECS["cobs, check by a function"],
        b"xM\x40" + b"y" * 30 + b"\0M" + CODECS["cobs, check by a function"].encode(b"b"),
        [("rest", "feed", 0)],
        skip=True,
        resync=True,
    ),
    "the end asks a parser that raises": Program(
        Codec.custom(Parser(trick="SystemExit"), Builder(trick=True)),
        b"\4a\x84b\4c",
        [("rest", "feed", 0), ("eof",), ("switch", "u8")],
        one=True,
    ),
}


@pytest.mark.parametrize("program", FOUND.values(), ids=FOUND)
@pytest.mark.parametrize("end", [(), ("eof",), ("rest", "get_buffer", -1), ("rest", "feed", -1)])
def test_what_was_found_before(engine: ModuleType, program: Program, end: tuple[Any, ...]) -> None:
    steps = [*program.steps, *([end] if end else []), ("rest", "get_room", -1), ("detach",)]
    orders.run(orders.replace(program, steps=steps), [engine])


@pytest.mark.c_extension
@pytest.mark.parametrize("program", FOUND.values(), ids=FOUND)
def test_what_was_found_before_is_the_same_on_both_engines(program: Program) -> None:
    orders.run(orders.replace(program, steps=[*program.steps, ("rest", "feed", -1), ("detach",)]))


# --- that they notice defects ---------------------------------------------------------------------


def broken_engine(engine: ModuleType, defect: str) -> ModuleType:
    """Return an engine with one defect."""

    class Wrong:
        def __init__(self, codec: Any, **choices: Any) -> None:
            self.right = engine.Splitter(codec, **choices)
            self.buffer = bytearray(100_000)

        def __getattr__(self, name: str) -> Any:
            value = getattr(self.right, name)
            if name == "bytes_needed" and defect == "needs too much":
                return value + 1
            if name == "pending" and defect == "forgets what is pending":
                return min(value, 40)
            return value

        def feed(self, data: Any) -> list[Any]:
            messages: list[Any] = self.right.feed(data)
            if defect == "loses a message":
                return messages[:3]
            if defect == "delivers what changes":
                return [bytearray(m) if isinstance(m, bytes) else m for m in messages]
            return messages

        def detach(self) -> bytes:
            unread: bytes = self.right.detach()
            return unread[:20] if defect == "gives too little back" else unread

        def feed_eof(self) -> None:
            if defect != "takes every end":
                self.right.feed_eof()

        def get_buffer(self, hint: Any = -1) -> memoryview:
            if defect == "gives after an error":
                return memoryview(self.buffer)
            view: memoryview = self.right.get_buffer(hint)
            return view

    module = ModuleType("wrong")
    vars(module).update(vars(engine))
    module.Splitter = Wrong  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    "defect",
    [
        "needs too much",
        "forgets what is pending",
        "loses a message",
        "gives too little back",
        "takes every end",
        "gives after an error",
    ],
)
def test_the_orders_campaign_notices_a_defect(engine: ModuleType, defect: str) -> None:
    wrong = broken_engine(engine, defect)
    orders.run_seed(0, [engine])
    with pytest.raises(orders.Mismatch):
        run_many(wrong, 1500)


def run_many(engine: ModuleType, count: int) -> None:
    for seed in range(count):
        orders.run_seed(7 * seed, [engine])


def test_a_failing_program_is_made_smaller_and_printed_so_that_it_fails_again(
    engine: ModuleType,
) -> None:
    wrong = broken_engine(engine, "loses a message")
    stream = b"".join(Codec.uint(1).encode(blob(n, n)) for n in range(30))
    steps = [("feed", 5, 0), ("scribble",), ("give", "get_buffer", -1, 30, "slice")]
    program = Program(Codec.uint(1, max_message_size=99), stream, [*steps, ("feed", 400, 1)])

    def fails(candidate: Program) -> bool:
        return bool(orders.outcome_of(candidate, [wrong]))

    assert fails(program)
    small = orders.shrink(program, fails)
    assert len(small.steps) == 1
    assert len(small.stream) <= 12
    assert not orders.outcome_of(small, [engine])
    names: dict[str, Any] = {}
    printed = str(small).replace("run(", "printed = (")
    exec(printed, names)
    assert names["printed"] == small


def test_a_long_stream_is_printed_in_a_short_form() -> None:
    program = Program(Codec.uint(4), b"\0\1\x86\xa0" + blob(7, 100_000) + b"end")
    assert len(str(program)) < 200
    names: dict[str, Any] = {}
    exec(str(program).replace("run(", "printed = ("), names)
    assert names["printed"] == program


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_survive_cases_that_crash_fail_or_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.5)

    def run(case: int) -> tuple[int, int]:
        if case == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if case == 5:
            raise ValueError("five")
        if case == 7:
            signal.pause()
        return 1, case

    for jobs in (1, 2):
        shown: list[Failure] = []
        done, failures, totals = run_cases(
            run, first=0, count=12, jobs=jobs, block=3, most_failures=9, report=shown.append
        )
        assert done == 12
        assert totals == (9, sum(range(12)) - 3 - 5 - 7)
        assert shown == failures
        found = {failure.case: failure for failure in failures}
        assert sorted(found) == [3, 5, 7]
        assert found[3] == Failure(3, "ended by SIGKILL", True)
        assert found[5] == Failure(5, "ValueError: five", False)
        assert found[7].reason.startswith("hung")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_last_failure_that_is_wanted_ends_all_workers() -> None:
    def run(case: int) -> None:
        if case:
            signal.pause()
        raise ValueError("zero")

    _, failures, _ = run_cases(run, first=0, jobs=3)
    assert failures == [Failure(0, "ValueError: zero", False)]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_gives_back_what_it_found_or_how_it_ended() -> None:
    assert in_a_child(lambda: "text" * 50_000) == ("text" * 50_000, "")
    assert in_a_child(lambda: os._exit(3)) == ("", "ended with status 3")
    assert in_a_child(lambda: os.kill(os.getpid(), signal.SIGKILL))[1] == "ended by SIGKILL"  # type: ignore[func-returns-value]
    assert in_a_child(signal.pause, 0.2) == ("", "hung")  # type: ignore[arg-type]


# --- inputs of the guided fuzzer ------------------------------------------------------------------


def test_kept_inputs_of_the_guided_fuzzer_run_on_an_engine(engine: ModuleType) -> None:
    inputs = list(guided.read_seeds())
    assert len(inputs) >= 100
    for data in inputs:
        guided.run_input(data, [engine])


@pytest.mark.c_extension
def test_kept_inputs_of_the_guided_fuzzer_run_on_both_engines_step_by_step() -> None:
    engines = orders.load_engines()
    for data in guided.read_seeds():
        guided.run_input(data, engines)


def test_an_input_of_the_guided_fuzzer_is_always_the_same_program() -> None:
    for data in (b"", b"\0" * 400, b"\xff" * 400, bytes(range(256))):
        program, _ = guided.draw(data)
        assert str(guided.draw(data)[0]) == str(program)
        assert program.steps


def test_a_failure_of_the_guided_fuzzer_shows_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> None:
        raise orders.Mismatch("the engines differ")

    monkeypatch.setattr(orders, "run_of", fails)
    with pytest.raises(orders.Mismatch) as caught:
        guided.run_input(b"\1\2", [])
    (note,) = caught.value.__notes__
    assert note.startswith("the input 0102 is:\nfrom tests.fuzz.orders import *\nrun(Program(")
