"""Run numbered cases in child processes, which may crash or hang.

Each worker writes the number of its case to shared memory before it runs it. So the parent knows
which case ended a worker, and starts another one with the next case.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Failure", "in_a_child", "run_cases"]

PATIENCE = 120.0  # seconds without a new case after which a worker hangs


@dataclass
class Failure:
    """A case that failed.

    Args:
        case: Its number.
        reason: What it raised, the signal that ended its worker, or that it hung.
        crashed: Whether it ended its worker.
    """

    case: int
    reason: str
    crashed: bool


class _Worker:
    """A child process that runs every `jobs`th block of cases.

    Shared with it: the case it is in, the cases that it has done, and whether it has ended well.
    """

    def __init__(
        self,
        run: Callable[[int], object],
        first: int,
        jobs: int,
        block: int,
        stop: int | None,
        end: float,
        quiet: bool,
    ) -> None:
        self.shared = mmap.mmap(-1, 4096)
        self.totals = (0, 0)  # sums of what the cases return
        self.write(first, 0, 0)
        self.first, self.seen, self.seen_at = first, -1, time.monotonic()
        self.reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        status = 70
        try:
            os.close(self.reader)
            if quiet:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            status = self.work(run, first, jobs, block, stop, end, writer)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def work(
        self,
        run: Callable[[int], object],
        case: int,
        jobs: int,
        block: int,
        stop: int | None,
        end: float,
        writer: int,
    ) -> int:
        done = 0
        while (stop is None or case < stop) and time.monotonic() < end:
            self.write(case, done, 0)
            try:
                result = run(case)
                if isinstance(result, tuple):
                    self.totals = (self.totals[0] + result[0], self.totals[1] + result[1])
            except BaseException as error:
                if type(error) is KeyboardInterrupt:
                    break
                text = "".join(traceback.format_exception_only(error)).strip()
                if text == "AssertionError":
                    text += f": {traceback.extract_tb(error.__traceback__)[-1].line}"
                os.write(writer, f"{case} {text[:3000]}".encode() + b"\0")
                done += 1
                self.write(case, done, 1)
                return 71
            case = _next(case, jobs, block)
            done += 1
        self.write(case, done, 1)
        return 0

    def write(self, case: int, done: int, ended: int) -> None:
        struct.pack_into("QQQQQ", self.shared, 0, case, done, ended, *self.totals)

    def read(self) -> tuple[int, int, int, int, int]:
        return struct.unpack_from("QQQQQ", self.shared, 0)

    def hangs(self) -> bool:
        case = self.read()[0]
        if case != self.seen:
            self.seen, self.seen_at = case, time.monotonic()
        return time.monotonic() - self.seen_at > PATIENCE


def run_cases(
    run: Callable[[int], object],
    *,
    first: int,
    count: int | None = None,
    seconds: float | None = None,
    jobs: int = 1,
    block: int = 1,
    most_failures: int = 1,
    report: Callable[[Failure], None] = lambda failure: None,
    quiet: bool = False,
) -> tuple[int, list[Failure], tuple[int, int]]:
    """Run cases until the count, the time or the number of failures is reached.

    Args:
        run: Runs a case by its number; may return two numbers, which are added up.
        block: Neighbours that share what is expensive to make, so that one worker runs them.
        quiet: Nothing that the workers write to the standard error is shown.

    Returns:
        How many ran, those that failed, and the sums.
    """
    end = float("inf") if seconds is None else time.monotonic() + seconds
    stop = None if count is None else first + count
    failures: list[Failure] = []
    done = 0
    totals = (0, 0)
    workers = {}
    for number in range(jobs):
        start = first if not number else (first // block + number) * block
        worker = _Worker(run, start, jobs, block, stop, end, quiet)
        workers[worker.pid] = worker
    try:
        while workers:
            time.sleep(0.01)
            for pid, worker in list(workers.items()):
                hung = worker.hangs()
                if hung:
                    os.kill(pid, signal.SIGKILL)
                ended, status = os.waitpid(pid, 0 if hung else os.WNOHANG)
                if not ended:
                    continue
                del workers[pid]
                case, ran, well, *sums = worker.read()
                totals = (totals[0] + sums[0], totals[1] + sums[1])
                with os.fdopen(worker.reader, "rb") as pipe:
                    output = pipe.read().decode(errors="replace").rstrip("\0")
                worker.shared.close()
                done += ran
                if well and not output:
                    continue
                if not well:
                    done += 1
                    failure = Failure(case, _reason(status, hung), True)
                else:
                    failure = Failure(case, output.partition(" ")[2], False)
                failures.append(failure)
                report(failure)
                if len(failures) < most_failures:
                    worker = _Worker(run, _next(case, jobs, block), jobs, block, stop, end, quiet)
                    workers[worker.pid] = worker
                else:
                    _end(workers)
                    break
    finally:
        _end(workers)
    return done, failures, totals


def _next(case: int, jobs: int, block: int) -> int:
    return case + 1 if (case + 1) % block else case + 1 + (jobs - 1) * block


def _end(workers: dict[int, _Worker]) -> None:
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    for pid, worker in workers.items():
        os.waitpid(pid, 0)
        os.close(worker.reader)
        worker.shared.close()
    workers.clear()


def _reason(status: int, hung: bool) -> str:
    if hung:
        return f"hung for {PATIENCE:.0f} s"
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)}"


def in_a_child(run: Callable[[], str], seconds: float = 20.0) -> tuple[str, str]:
    """Return what a call in a child process returns, and how it ended the process, or ""."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 71
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(run().encode(errors="replace"))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    output, end = b"", time.monotonic() + seconds
    with os.fdopen(reader, "rb") as pipe:
        while select.select([pipe], [], [], max(0, end - time.monotonic()))[0]:
            piece = os.read(pipe.fileno(), 65_536)
            if not piece:
                break
            output += piece
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "", "hung"
    _, status = os.waitpid(pid, 0)
    return output.decode(errors="replace"), _reason(status, False) if status else ""
