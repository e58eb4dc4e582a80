"""Judge the tests by mutants: small mistakes that mutmut puts into the Python engine.

``python -m tests.mutants [PATTERN]...`` runs mutmut on the mutants whose names match, from the
folder of the project, with the settings of ``tool.mutmut`` in pyproject.toml. The names follow from
the code: ``framecodec._inbox.*`` are the mutants of a module, ``*__mutmut_*[05]`` are a fifth of
all, the same in every run.

A mutant that no test notices is a gap in the tests, or no mistake. ``tests/mutants_explained.txt``
has those that are none, each with the reason. The exit code is 1 if another one is left.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

EXPLAINED = Path(__file__).with_name("mutants_explained.txt")
SEPARATOR = "__mutmut_"

# What mutmut notes of a mutant: the exit code of its tests, or the signal that ended them.
FAILED = (1, 3)
TIME_OVER = (-24, 24, 152, 36)
NO_TESTS = (5, 33)

Change = tuple[str, tuple[str, ...]]
"""A function, and the lines of the difference: removed ones begin with -, added ones with +."""


def verdicts(patterns: list[str]) -> Iterator[tuple[str, int | None]]:
    """Yield the names of the mutants that match a pattern, and how their tests ended."""
    for file in sorted(Path("mutants").rglob("*.meta")):
        codes = json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
        for name, code in codes.items():
            if any(fnmatch(name, pattern) for pattern in patterns):
                yield name, code


def function_of(name: str) -> str:
    """Return the function that a mutant changes: ``framecodec._inbox: Inbox.fail``."""
    module, _, mangled = name.partition(SEPARATOR)[0].rpartition(".")
    return f"{module}: {mangled.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"


def change_of(name: str) -> Change:
    """Return what a mutant changes, without the line numbers."""
    shown = subprocess.run(
        ["mutmut", "show", name], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    lines = shown.stdout.splitlines()[3:]  # after the name and the names of the files
    return function_of(name), tuple(
        f"{line[0]} {line[1:].strip()}" for line in lines if line.startswith(("-", "+"))
    )


def explained(text: str) -> dict[Change, str]:
    """Return the reasons of the mutants that are no mistakes, from the text of the list."""
    reasons: dict[Change, str] = {}
    for entry in text.split("\n\n"):
        lines = [line for line in entry.splitlines() if not line.startswith("#")]
        if not lines:
            continue
        change = tuple(line for line in lines[1:] if line.startswith(("- ", "+ ")))
        reason = " ".join(line.strip() for line in lines[1 + len(change) :])
        if not change or not reason:
            raise ValueError(f"an entry of {EXPLAINED.name} lacks a change or a reason:\n{entry}")
        reasons[lines[0], change] = reason
    return reasons


def main(arguments: list[str]) -> int:
    """Run mutmut and print what is left; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], metavar="PATTERN")
    parser.add_argument("--jobs", default="2", help="mutants at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="print the results of the last run")
    options = parser.parse_args(arguments)
    if not options.list:
        command = ["mutmut", "run", "--max-children", options.jobs, *options.patterns]
        subprocess.run(command, check=True)
    reasons = explained(EXPLAINED.read_text(encoding="utf-8"))
    counts: Counter[str] = Counter()
    left = []
    for name, code in verdicts(options.patterns):
        if code is None:
            counts["not tried"] += 1
        elif code in FAILED:
            counts["killed by a test"] += 1
        elif code in TIME_OVER:
            counts["ended by the time limit"] += 1
        elif (change := change_of(name)) in reasons:
            counts["explained"] += 1
        else:
            counts["left: no test calls the function" if code in NO_TESTS else "left"] += 1
            left.append((name, code, change))
    for name, code, (function, lines) in left:
        print(f"# {name} ({code})", function, *lines, "", sep="\n")
    print(
        f"{counts.total()} mutants:", *(f"  {n:5} {what}" for what, n in counts.items()), sep="\n"
    )
    return 1 if left or not counts else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
