"""The messages that the benchmarks split, encode and send, and ways to cut a stream.

No benchmark reads one block of memory over and over unless its case says so: `VARIANTS` of
each source exist, with other bytes at other addresses, and each round takes the next one. A case
whose source is "hot" feeds one chunk again and again within a round, as a receiver does that reads
into one buffer; one whose source is "cold" walks through memory larger than the processor's caches.
"""

from __future__ import annotations

import functools
import random

VARIANTS = 3

KIB = 1024
MIB = 1024 * 1024


def size_name(size: int) -> str:
    if size >= MIB and size % MIB == 0:
        return f"{size // MIB} MiB"
    return f"{size // KIB} KiB" if size >= KIB and size % KIB == 0 else f"{size} B"


@functools.lru_cache(maxsize=8)
def messages(size: int, total: int, variant: int) -> list[bytes]:
    """Random messages of one size, together about `total` bytes, at least one."""
    rng = random.Random(f"{size} {total} {variant}")
    count = max(1, total // max(size, 1))
    block = rng.randbytes(size * min(count, 4096) + 1)
    made = []
    for index in range(count):  # beyond 4096 messages their bytes repeat, at an odd distance
        start = index * size % max(1, len(block) - size)
        made.append(block[start : start + size])
    return made


def cut(stream: bytes, chunk_size: int | None) -> list[bytes]:
    """Return the stream in chunks of this size, each a separate `bytes`; whole if it is None."""
    if chunk_size is None:
        return [stream]
    return [stream[at : at + chunk_size] for at in range(0, len(stream), chunk_size)]
