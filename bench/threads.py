"""What a second thread gives: ``python -m bench.threads``, for a Python without the GIL.

Two threads split separate streams, each with a splitter for itself; then one thread splits as much
alone. The figure is the time of the two threads as a part of the time of the one: 0.5 is twice as
fast, 1 is what the GIL allows. Each time is that of the fastest of
many short runs that take turns. The processor time, of the busier thread, is what to look at where
other programs are busy, too: it grows where threads wait for each other's memory.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from time import perf_counter, thread_time

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


def measure(codec: Codec, size: int) -> tuple[float, float]:
    """Return the times of two threads as parts of those of one thread for the same work."""
    shares = [share_of(codec, size) for _ in range(2)]
    halves = [lambda share=share: split(*share) for share in shares]
    both = [(math.inf, math.inf)]
    one = [(math.inf, math.inf)]
    for _ in range(RUNS):
        both.append(times(*halves))
        one.append(times(lambda: [half() for half in halves]))
    seconds, used = (
        min(run[column] for run in both) / min(run[column] for run in one) for column in (0, 1)
    )
    return seconds, used


def main() -> None:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    engine = "compiled" if framecodec.ACCELERATED else "Python"
    print(f"Python {sys.version.split()[0]}, GIL {'on' if gil else 'off'}, {engine} engine\n")
    print("| codec | bytes | two threads, of one thread's time | of its processor time |")
    print("| --- | ---: | ---: | ---: |")
    for name, codec in CODECS.items():
        for size in SIZES:
            seconds, used = measure(codec, size)
            print(f"| {name} | {size} | {seconds:.2f} | {used:.2f} |", flush=True)


if __name__ == "__main__":
    main()
