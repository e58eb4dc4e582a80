"""What a second thread gives: ``python -m bench.threads``, for a Python without the GIL.

    python -m bench.threads              all codecs and sizes
    python -m bench.threads uint 1024    one codec, and these sizes in bytes

Two threads split separate streams, each with a splitter for itself; then one thread splits as much
alone. The figure is the time of the two threads as a part of the time of the one: 0.5 is twice as
fast, 1 is what the GIL allows. Each time is that of the fastest of
many short runs that take turns. The processor time, of the busier thread, is what to look at where
other programs are busy, too: it grows where threads wait for each other's memory.

Two processes do the same. They share no object, so their figure is what the machine allows: two
processors may share a core, its caches and the way to the memory. Each thread and each process is
bound to a separate processor (Linux): on a busy machine the kernel often starts two threads of a
process on the same one, which says nothing of the threads.
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
PROCESSORS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SECONDS = 0.004  # about the time of a run: so short that other programs leave some alone
RUNS = 100


def shares_of(codec: Codec, size: int) -> list[tuple[Codec, bytes, int]]:
    """Return what each of two threads splits in a run: a chunk of whole frames, and how often.

    Both split equally often: with one measurement for each, of about 0.1 milliseconds, one of them
    had up to half as much more to do than the other, and their time was its time.
    """
    chunks = [codec.encode_many([b"m" * size] * max(1, CHUNK // size)) for _ in range(2)]
    feed = codec.splitter().feed
    seconds = []
    for _ in range(100):
        began = perf_counter()
        feed(chunks[0])
        seconds.append(perf_counter() - began)
    turns = max(1, round(SECONDS / 2 / min(seconds)))
    return [(codec, chunk, turns) for chunk in chunks]


def split(codec: Codec, chunk: bytes, turns: int) -> None:
    feed = codec.splitter().feed
    for _ in range(turns):
        feed(chunk)


def use_processor(number: int) -> None:
    """Let the calling thread run on one processor only, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {PROCESSORS[number % len(PROCESSORS)]})


def times(*works: Callable[[], None]) -> tuple[float, float]:
    """Run works in threads; return the seconds of all, and the most processor time of one."""
    barrier = threading.Barrier(len(works))
    taken: list[tuple[float, float, float]] = []

    def run(number: int, work: Callable[[], None]) -> None:
        use_processor(number)
        work()  # from then on, the thread has memory
        barrier.wait()
        began, used = perf_counter(), thread_time()
        work()
        taken.append((began, perf_counter(), thread_time() - used))

    threads = [threading.Thread(target=run, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begins, ends, used = zip(*taken, strict=True)
    return max(ends) - min(begins), max(used)


def run_process(number: int, share: tuple[Codec, bytes, int], barrier: Any, pipe: Any) -> None:
    """Split once for each object that arrives, together with another process."""
    use_processor(number)
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
    shares = shares_of(codec, size)
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
    print("Of the time of one thread, and of its processor time:\n")
    print("| codec | bytes | two threads | processor | two processes | processor |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    names, sizes = sys.argv[1:2] or CODECS, sys.argv[2:] or SIZES
    for name in names:
        for size in map(int, sizes):
            figures = " | ".join(f"{figure:.2f}" for figure in measure(CODECS[name], size))
            print(f"| {name} | {size} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
