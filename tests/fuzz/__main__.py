"""The commands of the campaigns.

python -m tests.fuzz [OPTIONS]          random streams; see the package
python -m tests.fuzz orders [OPTIONS]   random orders of calls; see orders.py
python -m tests.fuzz shortage [OPTIONS] failing allocations; see shortage.py
python -m tests.fuzz collecting [OPTIONS]
                                        calls from collections; see collecting.py
python -m tests.fuzz objects [OPTIONS]  codecs with objects; see objects.py
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections import Counter

from tests.fuzz import collecting, objects, orders, run_case, shortage
from tests.fuzz.workers import Failure, in_a_child, run_cases
from tests.helpers.engines import ENGINES


def main() -> int:
    if sys.argv[1:2] == ["orders"]:
        return run_orders(sys.argv[2:])
    if sys.argv[1:2] == ["shortage"]:
        return shortage.main(sys.argv[2:])
    if sys.argv[1:2] == ["collecting"]:
        return collecting.main(sys.argv[2:])
    if sys.argv[1:2] == ["objects"]:
        return objects.main(sys.argv[2:])
    return run_streams(sys.argv[1:])


def run_orders(arguments: list[str]) -> int:
    """Run programs of calls; print those that fail as Python, made smaller."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz orders", description=orders.__doc__.partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, help="how long (default: until --cases, or 1)")
    parser.add_argument("--seed", type=int, help="the first program's number (default: the time)")
    parser.add_argument("--cases", type=int, help="how many programs")
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    parser.add_argument("--failures", type=int, default=1, help="how many end the campaign")
    parser.add_argument("--as-drawn", action="store_true", help="do not make failures smaller")
    parser.add_argument("--print", action="store_true", help="print the program, do not run it")
    options = parser.parse_args(arguments)
    first = int(time.time() * 1000) if options.seed is None else options.seed
    if options.print:
        print(orders.draw_program(first))
        return 0
    engines = orders.load_engines(options.engine)
    minutes = options.minutes
    if minutes is None and options.cases is None:
        minutes = 1.0

    def show(failure: Failure) -> None:
        print(f"\nprogram {failure.case}: {failure.reason}", file=sys.stderr)
        program = orders.draw_program(failure.case)
        if not options.as_drawn:
            text, ended = in_a_child(lambda: smaller(program, failure), 60.0)
            print(text or ended, flush=True)
        else:
            print(program, flush=True)

    def smaller(program: orders.Program, failure: Failure) -> str:
        """Return a smaller program with the same failure; each try of a crash is a process."""
        kind = failure.reason.split(":")[1:2]

        def fails(candidate: orders.Program) -> bool:
            if failure.crashed:
                return bool(in_a_child(lambda: orders.outcome_of(candidate, engines), 5.0)[1])
            return orders.outcome_of(candidate, engines).split(":")[1:2] == kind

        program = orders.shrink(program, fails)
        if failure.crashed:
            return str(program)
        return f"{orders.outcome_of(program, engines)}\n{program}\n"

    began = time.monotonic()
    done, failures, _ = run_cases(
        lambda case: orders.run_seed(case, engines),
        first=first,
        count=options.cases,
        seconds=None if minutes is None else 60 * minutes,
        jobs=options.jobs,
        block=orders.PROGRAMS_PER_CODEC,
        most_failures=options.failures,
        report=show,
    )
    rate = done / (time.monotonic() - began)
    print(f"{done} programs from {first} on, {rate:.0f} a second: {len(failures)} failed")
    return 1 if failures else 0


def run_streams(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, help="the first case's number (default: the time)")
    parser.add_argument("--cases", type=int, help="how many (default: 1 with --seed alone)")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    options = parser.parse_args(arguments)

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
