"""The campaign's command; see the package."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections import Counter

from tests.engines import ENGINES
from tests.fuzz import run_case


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, help="the first case's number (default: the time)")
    parser.add_argument("--cases", type=int, help="how many (default: 1 with --seed alone)")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    options = parser.parse_args()

    engines = [importlib.import_module(ENGINES[name]) for name in options.engine or ENGINES]
    first = int(time.time() * 1000) if options.seed is None else options.seed
    seconds, cases = options.seconds, options.cases
    if seconds is None and cases is None:
        seconds, cases = (10.0, None) if options.seed is None else (None, 1)
    end = None if seconds is None else time.monotonic() + seconds
    outcomes: Counter[str] = Counter()
    failures = 0
    seed = first
    while (cases is None or seed < first + cases) and (end is None or time.monotonic() < end):
        try:
            outcomes[run_case(engines, seed)] += 1
        except Exception:
            failures += 1
            traceback.print_exc()
            print(
                f"\ncase {seed} failed; again: python -m tests.fuzz --seed {seed}", file=sys.stderr
            )
            if not options.keep_going:
                break
        seed += 1
    print(f"cases {first} to {seed - 1}: {failures} failed")
    for outcome, count in sorted(outcomes.items()):
        print(f"  {count:7} {outcome}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
