"""Compare two commits: build each in a temporary folder and sample them in turns.

    python -m bench.compare HEAD~1 HEAD
    python -m bench.compare main my-branch --only split encode --match "16 B"

The benchmarks of this checkout measure both, each in a separate process, so a benchmark needs to
exist only here. A round takes one sample of each in random order. Where the memory of a process
lies moves its times by up to 10 %, for all of its life, so both are measured in several pairs of
processes: the ratio is the median of theirs, each the median of its rounds. Compare a commit with
itself to see the noise of the machine. This environment must have what framecodec's build needs
(setuptools, Cython); no network is used.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import select
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import harness
from .contenders import Missing
from .harness import FULL, QUICK, Case, Entry, Scale

ROOT = Path(__file__).parent.parent
Pair = tuple[str, str]  # a case and a contender
TIMEOUT = 300.0  # seconds, for a sample with all that it needs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "revisions", nargs="*", metavar="REVISION", help="two commits, as git names them"
    )
    parser.add_argument("--only", nargs="+", default=["split", "encode"], help="these questions")
    parser.add_argument("--match", default="", help="cases whose label contains this")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sources")
    parser.add_argument("--rounds", type=int, help="rounds of every case")
    parser.add_argument(
        "--processes", type=int, default=3, help="pairs of processes that share the rounds"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else FULL
    if options.worker:
        _work(options, scale)
        return 0
    if len(options.revisions) != 2:
        parser.error(f"got {len(options.revisions)} revisions: give two")
    rounds = options.rounds or scale.rounds
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="framecodec-compare-") as folder:
        installed = [
            _install(revision, Path(folder) / str(index))
            for index, revision in enumerate(options.revisions)
        ]
        samples: dict[Pair, list[list[list[float]]]] = {}
        for turn in range(options.processes):
            with contextlib.ExitStack() as stack:
                workers = [
                    stack.enter_context(contextlib.closing(_Worker(path, options)))
                    for path in installed
                ]
                _sample(workers, -(-rounds // options.processes), rng, samples)
            print(f"processes {turn + 1} of {options.processes}", file=sys.stderr, flush=True)
        _print(options.revisions, samples)
    return 0


def _sample(
    workers: list[_Worker],
    rounds: int,
    rng: random.Random,
    samples: dict[Pair, list[list[list[float]]]],
) -> None:
    """Add what one process of each commit measures: for each pair a list of both lists."""
    for pair in [pair for pair in workers[0].pairs if pair in workers[1].pairs]:
        if not all([worker.ask("begin", pair) for worker in workers]):
            continue
        both: list[list[float]] = [[], []]
        for number in range(rounds):
            for index in rng.sample((0, 1), 2):
                both[index].append(workers[index].ask("sample", number))
        for worker in workers:
            worker.ask("end", None)
        samples.setdefault((pair[0], pair[1]), []).append(both)


def _print(revisions: list[str], samples: dict[Pair, list[list[list[float]]]]) -> None:
    """Print a row for each pair; the last cell is the ratio of each pair of processes."""
    first, second = revisions
    print(f"| | {first}, ns | spread | {second}, ns | spread | {second} : {first} | processes |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for pair, turns in samples.items():
        cells = []
        for index in (0, 1):
            values = [value for both in turns for value in both[index]]
            result = harness.Result("", "", {}, "", {"": values})
            cells.append(f"{harness.figure(result.median(''))} | ±{result.spread(''):.0%}")
        ratios = [statistics.median(b / a for a, b in zip(*both, strict=True)) for both in turns]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        median = statistics.median(ratios)
        print(f"| {pair[0]}: {pair[1]} | {cells[0]} | {cells[1]} | {median:.3f} | {each} |")


def _install(revision: str, folder: Path) -> Path:
    """Build a commit from its own files; return the folder to import it from."""
    source, target = folder / "source", folder / "installed"
    archive = subprocess.run(
        ["git", "archive", "--format=tar", revision], cwd=ROOT, check=True, capture_output=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(source, filter="data")
    print(f"building {revision} ...", file=sys.stderr, flush=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--target", str(target), str(source)),
        ],
        check=True,
        env=os.environ | {"FRAMECODEC_REQUIRE_EXTENSIONS": "1"},
    )
    return target


class _Worker:
    """The process of one commit."""

    def __init__(self, installed: Path, options: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "bench.compare", "--worker", "--match", options.match]
        command += ["--quick"] if options.quick else []
        self._process = subprocess.Popen(
            [*command, "--only", *options.only],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(installed)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        hello = self._read()
        assert hello["file"].startswith(str(installed)), (
            f"another framecodec was imported: {hello['file']}"
        )
        self.pairs: list[list[str]] = hello["pairs"]

    def ask(self, what: str, argument: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, argument]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], TIMEOUT)[0]:
            raise TimeoutError("no answer from a commit's process")
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("a commit's process has ended")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


# --- the process of one commit --------------------------------------------------------------------


def _cases(options: argparse.Namespace, scale: Scale) -> Iterator[Case]:
    from .report import QUESTIONS

    for question in options.only:
        for case in QUESTIONS[question].cases(scale):
            if options.match in case.label:
                yield case


def _is_ours(case: Case, name: str) -> bool:
    return case.question == "shapes" or name.startswith(("framecodec", "Frame"))


def _work(options: argparse.Namespace, scale: Scale) -> None:
    import framecodec

    cases = {case.label: case for case in _cases(options, scale)}
    pairs = [
        (label, name)
        for label, case in cases.items()
        for name in case.makers
        if _is_ours(case, name)
    ]
    answer: Any = {"file": framecodec.__file__, "pairs": pairs}
    entry: Entry | None = None
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        what, argument = json.loads(line)
        if what == "begin":
            label, name = argument
            try:
                entry = cases[label].makers[name]()
                if entry.measured_elsewhere is None:
                    entry.calibrate(scale.seconds)
                answer = True
            except Missing:  # this commit does not have that part
                answer = False
        elif what == "sample":
            assert entry is not None
            if entry.measured_elsewhere is not None:
                answer = entry.measured_elsewhere(argument, scale.seconds)[entry.name]
            else:
                answer = entry.sample(argument)
        else:
            assert entry is not None
            entry.close()
            entry, answer = None, True
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    sys.exit(main())
