"""What a second thread gives: ``python -m bench.threads``, for a Python without the GIL.

    python -m bench.threads              all codecs and sizes
    python -m bench.threads uint 1024    one codec, and these sizes in bytes

Two threads split separate streams, each with a splitter for itself; then one thread splits as much
alone. The figure is the time of the two threads as a part of the time of the one: 0.5 is twice as
fast, 1 is what the GIL allows. Each time is that of the fastest of
many short runs that take turns. The processor time, of the busier thread, is what to look at where
other programs are busy, too: it grows where threads wait for each other's memory.

Two processes do the same, each on a separate processor. They share no object, so their figure is
what the machine allows: two processors may share a core, its caches and the way to the memory. Two
threads of a program cannot be faster.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from time import perf_counter, process_time, thread_time
from typing import Any

import framecodec
from framecodec import Check, Codec

CODECS = {
    "uint": Codec.uint(4),
    "crc32": Codec.uint(4, check=Check("crc32", 4)),
    "digits": Codec.digits(6),
    "lines": Codec.delimiter(b"\n"),
}
SIZES = (16, 64, 1024, 16384)
CHUNK = 64 << 10
SECONDS = 0.004  # about the time of a run: so short that other programs leave some alone
RUNS = 60


def share_of(codec: Codec, size: int) -> tuple[Codec, bytes, int]:
    """Return what one thread splits in a run: a chunk of whole frames, and how often."""
    chunk = codec.encode_many([b"m" * size] * max(1, CHUNK // size))
    feed = codec.splitter().feed
    began = perf_counter()
    for _ in range(20):
        feed(chunk)
    return codec, chunk, max(1, round(SECONDS / 2 / ((perf_counter() - began) / 20)))


def split(codec: Codec, chunk: bytes, turns: int) -> None:
    feed = codec.splitter().feed
    for _ in range(turns):
        feed(chunk)


def times(*works: Callable[[], None]) -> tuple[float, float]:
    """Run works in threads; return the seconds of all, and the most processor time of one."""
    barrier = threading.Barrier(len(works))
    taken: list[tuple[float, float, float]] = []

    def run(work: Callable[[], None]) -> None:
        work()  # from then on, the thread has memory
        barrier.wait()
        began, used = perf_counter(), thread_time()
        work()
        taken.append((began, perf_counter(), thread_time() - used))

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begins, ends, used = zip(*taken, strict=True)
    return max(ends) - min(begins), max(used)


def run_process(number: int, share: tuple[Codec, bytes, int], barrier: Any, pipe: Any) -> None:
    """Split once for each object that arrives, together with another process."""
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[number % len(processors)]})
    while pipe.recv():
        split(*share)
        barrier.wait()
        began, used = perf_counter(), process_time()
        split(*share)
        pipe.send((began, perf_counter(), process_time() - used))


class Processes:
    """Two processes that split when they are asked to."""

    def __init__(self, shares: list[tuple[Codec, bytes, int]]) -> None:
        barrier = multiprocessing.Barrier(len(shares))
        self.pipes = []
        self.processes = []
        for number, share in enumerate(shares):
            here, there = multiprocessing.Pipe()
            arguments = (number, share, barrier, there)
            self.processes.append(multiprocessing.Process(target=run_process, args=arguments))
            self.pipes.append(here)
        for process in self.processes:
            process.start()

    def times(self) -> tuple[float, float]:
        """Return the seconds of both, and the most processor time of one."""
        for pipe in self.pipes:
            pipe.send(True)
        begins, ends, used = zip(*[pipe.recv() for pipe in self.pipes], strict=True)
        return max(ends) - min(begins), max(used)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(False)
        for process in self.processes:
            process.join()


def measure(codec: Codec, size: int) -> list[float]:
    """Return times as parts of those of one thread: of two threads, and of two processes.

    Of each first the seconds, then the processor time.
    """
    shares = [share_of(codec, size) for _ in range(2)]
    halves = [lambda share=share: split(*share) for share in shares]
    runs: dict[str, list[tuple[float, float]]] = {"one": [], "threads": [], "processes": []}
    processes = Processes(shares)
    for _ in range(RUNS):
        runs["threads"].append(times(*halves))
        runs["one"].append(times(lambda: [half() for half in halves]))
        runs["processes"].append(processes.times())
    processes.close()
    return [
        min(run[column] for run in runs[name]) / min(run[column] for run in runs["one"])
        for name in ("threads", "processes")
        for column in (0, 1)
    ]


def main() -> None:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    engine = "compiled" if framecodec.ACCELERATED else "Python"
    print(f"Python {sys.version.split()[0]}, GIL {'on' if gil else 'off'}, {engine} engine\n")
    print("| codec | bytes | two threads, of one thread's time | processor time | two processes |")
    print("| --- | ---: | ---: | ---: | ---: |")
    names, sizes = sys.argv[1:2] or CODECS, sys.argv[2:] or SIZES
    for name in names:
        for size in map(int, sizes):
            seconds, used, apart, _ = measure(CODECS[name], size)
            print(f"| {name} | {size} | {seconds:.2f} | {used:.2f} | {apart:.2f} |", flush=True)


if __name__ == "__main__":
    main()
