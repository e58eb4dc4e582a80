"""Measure contenders against each other: in rounds, in random order, with checked results.

A machine's clock, caches and neighbours drift, so two figures compare only when they were taken at
the same time. A round takes one sample of every contender, in a new random order; a ratio is the
median of the rounds' ratios. No figure is the best of several samples.

A `Case` is one table: some work at one size. Each contender has an `Entry` in it. An entry is made
when the case runs, is checked for right results before it is timed, and is skipped with a reason if
the contender cannot take part.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .contenders import Contender, Missing, able


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    rounds: int
    seconds: float  # of one sample, at least
    source: int  # bytes of a cold source
    stream: int  # bytes, at least, sent over a socket for one sample
    trips: int  # round trips of a sample
    idle: int  # connections held for the measure of memory


FULL = Scale(7, 0.03, 8 << 20, 16 << 20, 4000, 10_000)
QUICK = Scale(5, 0.01, 2 << 20, 4 << 20, 1000, 1_000)
SMOKE = Scale(1, 0.0, 64 << 10, 64 << 10, 5, 20)  # a test: only the results count


class WrongResult(AssertionError):
    """A contender did not do the work."""


# These errors remove one contender from a case and do not end the run: it is not installed, or its
# remote process has ended or is too slow.
FAILURES = (Missing, ImportError, OSError, EOFError, subprocess.TimeoutExpired)


@dataclass
class Entry:
    """One contender in one case.

    Attributes:
        setup: Returns the arguments of `run`; not timed. Its arguments are the round's number,
            which selects the source, and how many times `run` does the work.
        run: The work.
        check: Checks the result of `run`, not timed; raises `WrongResult`.
        units: Messages (or what else the case counts) in the work done once.
        release: Frees what `setup` took, because all contenders share one remote process. `setup`
            does so first, too.
        close: Frees everything.
        measured_elsewhere: Set for a native program, which measures its own time. Its arguments are
            the round's number and the seconds to run; it returns ns a unit for each variant.
        patience: How many times longer a sample takes than one of other entries.
        times: How many times a sample does the work; set by `calibrate`.
    """

    name: str
    role: str
    setup: Callable[[int, int], tuple[Any, ...]]
    run: Callable[..., Any]
    check: Callable[[Any], None]
    units: int
    release: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None
    measured_elsewhere: Callable[[int, float], dict[str, float]] | None = None
    patience: float = 1
    times: int = 1

    def sample(self, number: int) -> float:
        """Take one sample, in ns a unit."""
        try:
            arguments = self.setup(number, self.times)
            began = time.perf_counter_ns()
            result = self.run(*arguments)
            ended = time.perf_counter_ns()
            self.check(result)
        finally:
            self.release()
        return (ended - began) / (self.units * self.times)

    def calibrate(self, seconds: float) -> None:
        """Find how many times one sample does the work; this also warms up."""
        self.times = 1
        for attempt in range(3):
            taken = self.sample(attempt) * self.units * self.times / 1e9
            if taken >= seconds * self.patience:
                return
            self.times = max(
                1,
                math.ceil(self.times * min(1.2 * seconds * self.patience / max(taken, 1e-7), 1000)),
            )


@dataclass
class Case:
    """One table: a question, at one size.

    Attributes:
        question: The benchmark's file name without `bench_`.
        label: What is done, for people.
        axes: The same for programs, for example ``{"size": 64, "chunk": "64 KiB"}``.
        makers: Makes the entry of each contender, by name; may raise `Missing`.
        native: The same for native programs; pytest leaves them out.
        unit: The unit of the figures.
    """

    question: str
    label: str
    axes: dict[str, Any]
    makers: dict[str, Callable[[], Entry]]
    unit: str = "ns a message"
    native: dict[str, Callable[[], Entry]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.question}: {self.label}"


@dataclass
class Result:
    """The samples of a case."""

    question: str
    label: str
    axes: dict[str, Any]
    unit: str
    samples: dict[str, list[float]] = field(default_factory=dict)  # ns a unit, round by round
    roles: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def spread(self, name: str) -> float:
        """Return half the distance between the quartiles, as a fraction of the median."""
        values = self.samples[name]
        if len(values) < 3:
            return (max(values) - min(values)) / 2 / self.median(name)
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return (high - low) / 2 / self.median(name)

    def ratio(self, name: str, other: str) -> float:
        """Return how many times as long as the other it takes: the median of the rounds' ratios."""
        pairs = zip(self.samples[name], self.samples[other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def named(self, role: str) -> list[str]:
        return [name for name in self.samples if self.roles[name] == role]

    @property
    def floor(self) -> str | None:
        named = self.named("floor")
        return "C floor" if "C floor" in named else self.fastest("floor")

    @property
    def best_alternative(self) -> str | None:
        return self.fastest("alternative")

    def fastest(self, *roles: str) -> str | None:
        names = [name for role in roles for name in self.named(role)]
        return min(names, key=self.median, default=None)

    def table(self) -> str:
        """Return a Markdown table of the contenders, fastest first."""
        floor, best = self.floor, self.best_alternative
        rows = [
            f"| {self.label} | {self.unit} | spread | to the floor | to the best alternative |",
            "|---|---:|---:|---:|---:|",
        ]
        for name in sorted(self.samples, key=self.median):
            to_floor = f"{self.ratio(name, floor):.2f}" if floor else ""
            to_best = f"{self.ratio(name, best):.2f}" if best else ""
            bold = "**" if self.roles[name] == "ours" else ""
            rows.append(
                f"| {bold}{name}{bold} | {figure(self.median(name))} | ±{self.spread(name):.0%} | "
                f"{to_floor} | {to_best} |"
            )
        return "\n".join(rows)

    def as_json(self) -> dict[str, Any]:
        return vars(self)


class Results:
    """All results of a run."""

    def __init__(self, results: list[Result]) -> None:
        self._results = results

    def find(self, question: str, **axes: Any) -> Iterator[Result]:
        for result in self._results:
            same = all(result.axes.get(name) == value for name, value in axes.items())
            if result.question == question and same:
                yield result


def first_of(result: Result, pattern: str) -> str | None:
    """Return the contender of this name. ``name*`` is the fastest one whose name begins so."""
    names = [
        name
        for name in result.samples
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
    ]
    return min(names, key=result.median, default=None)


def figure(value: float) -> str:
    """Return the value with three significant digits."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def measure(case: Case, scale: Scale, rng: random.Random) -> Result:
    """Run a case."""
    rounds, seconds = scale.rounds, scale.seconds
    result = Result(case.question, case.label, case.axes, case.unit)
    entries: list[Entry] = []
    samples: dict[str, dict[str, list[float]]] = {}  # by entry; a native program has variants

    def drop(name: str, failure: Exception) -> None:
        result.skipped[name] = str(failure) or type(failure).__name__
        for entry in [one for one in entries if one.name == name]:
            entries.remove(entry)
            with contextlib.suppress(*FAILURES):
                entry.close()

    try:
        for name, make in (case.makers | case.native).items():
            try:
                entry = make()
                entries.append(entry)
                if entry.measured_elsewhere is None:
                    entry.calibrate(seconds)
            except FAILURES as failure:
                drop(name, failure)
        gc.collect()
        gc.disable()
        for number in range(rounds):
            for entry in rng.sample(entries, len(entries)):
                try:
                    if entry.measured_elsewhere is None:
                        figures = {entry.name: entry.sample(number)}
                    else:
                        figures = entry.measured_elsewhere(number, seconds)
                except FAILURES as failure:
                    drop(entry.name, failure)
                    continue
                for name, value in figures.items():
                    samples.setdefault(entry.name, {}).setdefault(name, []).append(value)
                gc.collect()
        for entry in entries:
            result.samples |= samples.get(entry.name, {})
            result.roles |= dict.fromkeys(samples.get(entry.name, ()), entry.role)
    finally:
        gc.enable()
        for entry in entries:
            entry.close()
    return result


def least(works: dict[str, Callable[[], Any]], count: int, runs: int) -> dict[str, float]:
    """Return the time of the fastest run of each work, in ns a message; the works take turns.

    Args:
        works: What is measured, by name.
        count: Messages in one run.
        runs: Runs of each.
    """
    best = dict.fromkeys(works, math.inf)
    for _ in range(runs):
        for name, work in works.items():
            began = time.perf_counter_ns()
            work()
            best[name] = min(best[name], (time.perf_counter_ns() - began) / count)
    return best


def makers(
    ability: str,
    make: Callable[[Contender], Entry],
    *,
    in_loop: Iterable[bool] = (False,),
    only: Callable[[Contender], bool] = lambda contender: True,
) -> dict[str, Callable[[], Entry]]:
    """Return what makes an entry, for each contender that has the method `ability`."""

    def maker(contender: Contender) -> Callable[[], Entry]:
        def made() -> Entry:
            contender.ready()
            return make(contender)

        return made

    found: dict[str, Callable[[], Entry]] = {}
    for looped in in_loop:
        for name, contender in able(ability, in_loop=looped).items():
            if only(contender):
                found[name] = maker(contender)
    return found


def expect(condition: bool, contender: str, what: str) -> None:
    if not condition:
        raise WrongResult(f"{contender}: {what}")


# --- pytest ---------------------------------------------------------------------------------------


def each(cases: Iterable[Case]) -> Iterator[Any]:
    """Yield a pytest parameter for every contender of every case."""
    import pytest

    for case in cases:
        for name in case.makers:
            yield pytest.param(case, name, id=f"{case.label}-{name}".replace(" ", "_"))


def run_in_pytest(benchmark: Any, case: Case, name: str) -> None:
    """Run one contender of a case under pytest-benchmark, and always check its results."""
    import pytest

    try:
        entry = case.makers[name]()
    except Missing as reason:
        pytest.skip(str(reason))
    try:
        benchmark.group = case.key
        number = iter(range(sys.maxsize))
        if not benchmark.disabled and entry.measured_elsewhere is None:
            entry.calibrate(FULL.seconds)
        benchmark.extra_info.update(
            case.axes, contender=name, role=entry.role, units=entry.units * entry.times
        )
        result = benchmark.pedantic(
            entry.run,
            setup=lambda: (entry.setup(next(number), entry.times), {}),
            rounds=1 if benchmark.disabled else 10,
        )
        entry.check(result)
    finally:
        entry.release()
        entry.close()


# --- the machine ----------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Return the facts of the machine and the versions, which belong to every figure."""
    import framecodec

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    facts = {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "C compiler of Python": platform.python_compiler(),
        "framecodec": f"{framecodec.__version__}"
        f" ({'compiled' if framecodec.ACCELERATED else 'Python'} engine), commit {commit()}",
    }
    for package in (
        "Cython",
        "msgpack",
        "picows",
        "pyzmq",
        "Twisted",
        "uvloop",
        "websockets",
    ):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    if hasattr(os, "getloadavg"):
        facts["load when it began"] = f"{os.getloadavg()[0]:.2f}"
    return facts


def commit() -> str:
    """Return the checkout's commit, with a mark if files differ from it."""
    try:
        ran = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except OSError:
        return "unknown"
    return ran.stdout.strip() or "unknown"


def save(path: Path, results: Iterable[Result], facts: dict[str, str]) -> None:
    path.write_text(
        json.dumps({"machine": facts, "results": [r.as_json() for r in results]}, indent=1)
    )


def load(path: Path) -> tuple[list[Result], dict[str, str]]:
    found = json.loads(path.read_text())
    return [Result(**result) for result in found["results"]], found["machine"]
