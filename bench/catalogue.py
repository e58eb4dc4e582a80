"""The table of the catalogue, with what a message costs: ``python -m bench.catalogue [NAME...]``.

The shape is that of docs/formats.md. The engine is "compiled" or "python" (as this installation
has it), and "functions" where a call of two Python functions is added to each message. The message
has 64 bytes, or the size nearest to it that the format allows, which is printed; it begins as the
first message of the format's vectors does. Each figure is the least of several runs, in ns a
message: a splitter that is fed 1000 frames at once, and encode_many() of 1000 messages. "Mixed" are
1000 messages of 16 to 112 bytes in random order, as far as the format allows these sizes. The last
columns are those figures divided by the ones of a plain 4-byte length, measured in the same way.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from framecodec import Codec, FrameError, formats, splitter

VECTORS = Path(__file__).parents[1] / "tests" / "vectors"
SIZE = 64
MIXED = range(16, 113)
COUNT = 1000
RUNS = 15


def read_bytes(piece: Any) -> bytes:
    if isinstance(piece, str):
        return bytes.fromhex(piece)
    if isinstance(piece, dict):
        return bytes.fromhex(piece["repeat"]) * piece["count"]
    return b"".join(map(read_bytes, piece))


def resized(codec: Codec, message: bytes, size: int) -> bytes | None:
    """Return a message of a size that begins as another one, or None if the codec has none."""
    other = message[:size].ljust(size, b"a")
    try:
        return other if codec.decode(codec.encode(other)) == other else None
    except FrameError:
        return None


def sample(name: str) -> bytes:
    """Return a message of 64 bytes, or of the nearest size; else the one of the vectors."""
    file = json.loads((VECTORS / f"{name}.json").read_text("ascii"))
    found = [
        read_bytes(message)
        for vector in file["valid"]
        for message in vector["messages"]
        if not (isinstance(message, dict) and "special" in message)
    ]
    for size in sorted(MIXED, key=lambda size: abs(size - SIZE)):
        for message in found:
            other = resized(formats[name], message, size)
            if other is not None:
                return other
    return min(found, key=lambda message: abs(len(message) - SIZE))


def mixed(codec: Codec, message: bytes) -> list[bytes]:
    """Return messages of sizes that change from each one to the next."""
    found = [resized(codec, message, size) for size in MIXED]
    allowed = [each for each in found if each is not None] or [message]
    return random.Random(7).choices(allowed, k=COUNT)


def least(run: Any) -> float:
    """Return the ns a message of the fastest run."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - started)
    return min(times) / COUNT


def measure(codec: Codec, messages: list[bytes]) -> list[float]:
    """Return the ns of splitting and of encoding a message."""
    frames = codec.encode_many(messages)
    splitter = codec.splitter()
    assert splitter.feed(frames) == messages
    return [least(lambda: splitter.feed(frames)), least(lambda: codec.encode_many(messages))]


def measure_all(codec: Codec, message: bytes) -> list[float]:
    """Return the same for messages of one size, and then for mixed ones."""
    return measure(codec, [message] * COUNT) + measure(codec, mixed(codec, message))


def shape(name: str) -> str:
    """Return the notation of a format, or of a codec that has none what docs/formats.md says."""
    notation, kind = str(formats[name]), formats[name].kind
    if notation not in formats:
        return f"`{notation}`"
    return "code" if kind == "custom" else kind


def engine(name: str) -> str:
    if formats[name].kind == "custom":
        return "functions"
    return "compiled" if splitter.ACCELERATED else "python"


def main(names: list[str]) -> None:
    plain = measure_all(Codec.uint(4), b"a" * SIZE)
    texts = ("split", "encode", "split mixed", "encode mixed")
    print("plain 4-byte length, ns:", *map("{} {:.0f},".format, texts, plain))
    heads = ["name", "shape", "engine", "bytes", *(f"{text}, ns" for text in texts), *texts]
    print(f"| {' | '.join(heads)} |")
    print("| --- | --- | --- | ---: |" + " ---: |" * 8)
    for name in names or formats:
        codec, message = formats[name], sample(name)
        times = measure_all(codec, message)
        cells = [f"`{name}`", shape(name), engine(name), str(len(message))]
        cells += [f"{each:.0f}" for each in times]
        cells += [f"{each / base:.1f}" for each, base in zip(times, plain, strict=True)]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
