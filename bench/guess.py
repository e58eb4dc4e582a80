"""What `framecodec.guess` finds, claims and costs: ``python -m bench.guess [--random N]``.

Prints how many captures of the catalogue's protocols have the right codec first and among the first
three, how many files of random bytes get a claim, and how long a capture of 10 MB takes.
A codec is right if it reads the same messages as the protocol's.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

from tests.helpers.format_captures import repeated, varied

from framecodec import ACCELERATED, Codec, formats, guess

FRAMES = 24
SIZE = 10_000_000


def rank(data: bytes, codec: Codec) -> int | None:
    """Return the place of the first guess that reads the same messages as a codec."""
    messages = codec.split(data)
    for place, one in enumerate(guess(data)):
        if not one.offset and one.codec.split(data) == messages:
            return place
    return None


def catalogue(
    make: Callable[[str, int, int], list[bytes]], seed: int
) -> tuple[list[str], list[str]]:
    """Return the protocols whose codec is not first, and not among the first three."""
    first, third = [], []
    for name, codec in formats.items():
        place = rank(b"".join(make(name, FRAMES, seed)), codec)
        if place != 0:
            first.append(name)
        if place is None or place > 2:
            third.append(name)
    return first, third


def claims(count: int) -> int:
    """Return how many files of random bytes get a guess."""
    found = 0
    for seed in range(count):
        r = random.Random(seed)
        found += bool(guess(r.randbytes(r.choice([100, 300, 1000, 3000, 10_000, 50_000]))))
    return found


def large() -> dict[str, bytes]:
    """Return captures of 10 MB."""
    r = random.Random(0)
    count = SIZE // 1000
    return {
        "random bytes": r.randbytes(SIZE),
        "kafka": formats.kafka.encode_many(r.randbytes(r.randrange(2000)) for _ in range(count)),
        "small frames": formats.erlang1.encode_many(
            r.randbytes(r.randrange(40)) for _ in range(50 * count)
        ),
        "zeros": bytes(SIZE),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--random", type=int, default=1000, help="files of random bytes")
    parser.add_argument("--seeds", type=int, default=1, help="captures of each protocol and kind")
    arguments = parser.parse_args()
    print(f"engine: {'compiled' if ACCELERATED else 'Python'}")
    for kind, make in (("varied", varied), ("repeated", repeated)):
        for seed in range(arguments.seeds):
            first, third = catalogue(make, seed)
            total = len(formats)
            print(
                f"{kind} captures, seed {seed}: first {total - len(first)}, "
                f"first three {total - len(third)} of {total}"
            )
            print(f"  not first: {', '.join(first)}; not among the first three: {', '.join(third)}")
    for name, data in large().items():
        began, used = time.perf_counter(), time.process_time()
        guess(data)
        took = time.perf_counter() - began
        print(
            f"{name}, {len(data)} bytes: {took:.2f} s ({time.process_time() - used:.2f} s of CPU)"
        )
    print(f"claims in {arguments.random} random files: {claims(arguments.random)}")


if __name__ == "__main__":
    main()
