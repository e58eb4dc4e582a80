"""The table of the catalogue, with what a message costs: ``python -m bench.catalogue [NAME...]``.

The shape is that of docs/formats.md. The engine is "compiled" or "python" (as this installation
has it), and "functions" where a call of two Python functions is added to each message. The message
has 64 bytes where the format allows it, else the size that is printed; it begins as the first
message of the format's vectors does. Each figure is the least of several runs, in ns a message: a
splitter that is fed 1000 frames at once, and encode_many() of 1000 messages. The last columns are
those figures divided by the ones of a plain 4-byte length, measured in the same way.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from framecodec import Codec, FrameError, formats, splitter

VECTORS = Path(__file__).parents[1] / "tests" / "vectors"
SIZE = 64
COUNT = 1000
RUNS = 15


def read_bytes(piece: Any) -> bytes:
    if isinstance(piece, str):
        return bytes.fromhex(piece)
    if isinstance(piece, dict):
        return bytes.fromhex(piece["repeat"]) * piece["count"]
    return b"".join(map(read_bytes, piece))


def sample(name: str) -> bytes:
    """Return a message of 64 bytes, or the one of the vectors that comes nearest to that."""
    file = json.loads((VECTORS / f"{name}.json").read_text("ascii"))
    found = [
        read_bytes(message)
        for vector in file["valid"]
        for message in vector["messages"]
        if not (isinstance(message, dict) and "special" in message)
    ]
    for message in found:
        longer = message[:SIZE].ljust(SIZE, b"a")
        try:
            if formats[name].decode(formats[name].encode(longer)) == longer:
                return longer
        except FrameError:
            continue
    return min(found, key=lambda message: abs(len(message) - SIZE))


def least(run: Any) -> float:
    """Return the ns a message of the fastest run."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - started)
    return min(times) / COUNT


def measure(codec: Codec, message: bytes) -> tuple[float, float]:
    messages = [message] * COUNT
    frames = codec.encode_many(messages)
    splitter = codec.splitter()
    assert splitter.feed(frames) == messages
    return least(lambda: splitter.feed(frames)), least(lambda: codec.encode_many(messages))


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
    plain = measure(Codec.uint(4), b"a" * SIZE)
    print(f"plain 4-byte length: split {plain[0]:.0f} ns, encode {plain[1]:.0f} ns")
    print("| name | shape | engine | bytes | split, ns | encode, ns | split | encode |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in names or formats:
        codec, message = formats[name], sample(name)
        split, encode = measure(codec, message)
        print(
            f"| `{name}` | {shape(name)} | {engine(name)} | {len(message)} "
            f"| {split:.0f} | {encode:.0f} "
            f"| {split / plain[0]:.1f} | {encode / plain[1]:.1f} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
