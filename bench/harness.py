"""Contenders against each other: in one process, in rounds, in random order, results checked.

A machine's clock, caches and neighbours drift, so two figures compare only when they were taken at
the same time. A round takes one sample of every contender, in an order drawn anew; a ratio is the
median of the rounds' own ratios. Nothing here takes the best of anything.

A `Case` is one question (a table): some work at one size. Its contenders are made when they are
wanted, give the right results before they are timed, and are skipped with a reason where they
cannot take part.
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

from .peers import Missing, Peer, able
from .sources import size_name


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


# What ends a contender's part in a case, and not the run: it is not installed, or its far end is
# gone or too slow.
FAILURES = (Missing, ImportError, OSError, EOFError, subprocess.TimeoutExpired)


@dataclass
class Contender:
    """One contender in one case.

    Attributes:
        setup: Makes what `run` is given; outside the clock. Told the round, for the choice of the
            source, and how many times over the work is wanted.
        run: The work.
        check: Looks at what came out, outside the clock; raises `WrongResult`.
        units: Messages (or what the case counts) in the work done once.
        release: Gives back what `setup` took (there is one far end for all); `setup` does so, too.
        close: Gives back everything.
        measured_elsewhere: A rival in a process of its own takes its own time: told the round and
            the seconds wanted, gives ns a unit for each of its variants.
        patience: Its samples take so many times longer than others.
        times: How many times over a sample does the work; settled by `calibrate`.
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
        """One sample, in ns a unit."""
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
        """How many times over one sample does the work; also the warm-up."""
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
        question: The file that asks, without `bench_`.
        label: What is done, for people.
        axes: The same for programs, for example ``{"size": 64, "chunk": "64 KiB"}``.
        makers: By contender's name, what makes it; it may raise `Missing`.
        rivals: The same for programs outside Python; pytest leaves them out.
        unit: What the figures are per.
    """

    question: str
    label: str
    axes: dict[str, Any]
    makers: dict[str, Callable[[], Contender]]
    unit: str = "ns a message"
    rivals: dict[str, Callable[[], Contender]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.question}: {self.label}"


@dataclass
class Result:
    """What came out of a case."""

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
        """Half the distance between the quartiles, as a fraction of the median."""
        values = self.samples[name]
        if len(values) < 3:
            return (max(values) - min(values)) / 2 / self.median(name)
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return (high - low) / 2 / self.median(name)

    def ratio(self, name: str, other: str) -> float:
        """How many times as long as the other, round by round."""
        pairs = zip(self.samples[name], self.samples[other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def named(self, role: str) -> list[str]:
        return [name for name in self.samples if self.roles[name] == role]

    @property
    def floor(self) -> str | None:
        named = self.named("floor")
        return "C floor" if "C floor" in named else self.fastest("floor")

    @property
    def best_peer(self) -> str | None:
        return self.fastest("peer")

    def fastest(self, *roles: str) -> str | None:
        names = [name for role in roles for name in self.named(role)]
        return min(names, key=self.median, default=None)

    def table(self) -> str:
        """Markdown: the contenders, fastest first."""
        floor, peer = self.floor, self.best_peer
        rows = [
            f"| {self.label} | {self.unit} | spread | to the floor | to the best peer |",
            "|---|---:|---:|---:|---:|",
        ]
        for name in sorted(self.samples, key=self.median):
            to_floor = f"{self.ratio(name, floor):.2f}" if floor else ""
            to_peer = f"{self.ratio(name, peer):.2f}" if peer else ""
            bold = "**" if self.roles[name] == "ours" else ""
            rows.append(
                f"| {bold}{name}{bold} | {figure(self.median(name))} | ±{self.spread(name):.0%} | "
                f"{to_floor} | {to_peer} |"
            )
        return "\n".join(rows)

    def as_json(self) -> dict[str, Any]:
        return vars(self)


class Results:
    """Finds results."""

    def __init__(self, results: list[Result]) -> None:
        self._results = results

    def find(self, question: str, **axes: Any) -> Iterator[Result]:
        for result in self._results:
            same = all(result.axes.get(name) == value for name, value in axes.items())
            if result.question == question and same:
                yield result

    def ratios(
        self,
        question: str,
        ours: str | tuple[str, ...],
        theirs: str | None,
        *,
        sizes: tuple[int, ...] = (),
        faster: bool = False,
        prefix: str = "",
        **axes: Any,
    ) -> dict[str, float]:
        """By size, how many times as long as the other (or as fast as it).

        `theirs` None is the best peer; a name that ends in ``*`` the fastest of that beginning.
        """
        found = {}
        for result in self.find(question, **axes):
            size = result.axes.get("size")
            if sizes and size not in sizes:
                continue
            label = prefix or size_name(size)
            names = (ours,) if isinstance(ours, str) else ours
            here = [name for name in names if name in result.samples]
            other = result.best_peer if theirs is None else first_of(result, theirs)
            if here and other is not None:
                name = min(here, key=result.median)
                pair = (other, name) if faster else (name, other)
                found[label] = result.ratio(*pair)
        return found


def first_of(result: Result, pattern: str) -> str | None:
    """The contender of a name; the fastest of that beginning where it ends in ``*``."""
    names = [
        name
        for name in result.samples
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))
    ]
    return min(names, key=result.median, default=None)


def figure(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def measure(case: Case, scale: Scale, rng: random.Random) -> Result:
    """Runs a case."""
    rounds, seconds = scale.rounds, scale.seconds
    result = Result(case.question, case.label, case.axes, case.unit)
    contenders: list[Contender] = []
    samples: dict[str, dict[str, list[float]]] = {}  # by contender; a rival has several variants

    def drop(name: str, failure: Exception) -> None:
        result.skipped[name] = str(failure) or type(failure).__name__
        for contender in [one for one in contenders if one.name == name]:
            contenders.remove(contender)
            with contextlib.suppress(*FAILURES):
                contender.close()

    try:
        for name, make in (case.makers | case.rivals).items():
            try:
                contender = make()
                contenders.append(contender)
                if contender.measured_elsewhere is None:
                    contender.calibrate(seconds)
            except FAILURES as failure:
                drop(name, failure)
        gc.collect()
        gc.disable()
        for number in range(rounds):
            for contender in rng.sample(contenders, len(contenders)):
                try:
                    if contender.measured_elsewhere is None:
                        figures = {contender.name: contender.sample(number)}
                    else:
                        figures = contender.measured_elsewhere(number, seconds)
                except FAILURES as failure:
                    drop(contender.name, failure)
                    continue
                for name, value in figures.items():
                    samples.setdefault(contender.name, {}).setdefault(name, []).append(value)
                gc.collect()
        for contender in contenders:
            result.samples |= samples.get(contender.name, {})
            result.roles |= dict.fromkeys(samples.get(contender.name, ()), contender.role)
    finally:
        gc.enable()
        for contender in contenders:
            contender.close()
    return result


def makers(
    ability: str,
    make: Callable[[Peer], Contender],
    *,
    in_loop: Iterable[bool] = (False,),
    only: Callable[[Peer], bool] = lambda peer: True,
) -> dict[str, Callable[[], Contender]]:
    """A maker for each contender that has the ability."""

    def maker(peer: Peer) -> Callable[[], Contender]:
        def made() -> Contender:
            peer.ready()
            return make(peer)

        return made

    found: dict[str, Callable[[], Contender]] = {}
    for looped in in_loop:
        for name, peer in able(ability, in_loop=looped).items():
            if only(peer):
                found[name] = maker(peer)
    return found


def expect(condition: bool, contender: str, what: str) -> None:
    if not condition:
        raise WrongResult(f"{contender}: {what}")


# --- pytest ---------------------------------------------------------------------------------------


def each(cases: Iterable[Case]) -> Iterator[Any]:
    """A pytest parameter for every contender of every case."""
    import pytest

    for case in cases:
        for name in case.makers:
            yield pytest.param(case, name, id=f"{case.label}-{name}".replace(" ", "_"))


def run_in_pytest(benchmark: Any, case: Case, name: str) -> None:
    """One contender of a case as a pytest-benchmark; its results are checked in any event."""
    import pytest

    try:
        contender = case.makers[name]()
    except Missing as reason:
        pytest.skip(str(reason))
    try:
        benchmark.group = case.key
        number = iter(range(sys.maxsize))
        if not benchmark.disabled and contender.measured_elsewhere is None:
            contender.calibrate(FULL.seconds)
        benchmark.extra_info.update(
            case.axes, contender=name, role=contender.role, units=contender.units * contender.times
        )
        result = benchmark.pedantic(
            contender.run,
            setup=lambda: (contender.setup(next(number), contender.times), {}),
            rounds=1 if benchmark.disabled else 10,
        )
        contender.check(result)
    finally:
        contender.release()
        contender.close()


# --- the machine ----------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Where and with what: belongs beside every figure."""
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
    """The checkout's commit, with a mark where files differ from it."""
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
