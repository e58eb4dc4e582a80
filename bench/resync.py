"""What going on after bad frames costs: ``python -m bench.resync``.

A stream without damage, split with ``on_invalid="resync"`` and without; then the same stream with
some of its bytes changed, which is split with it alone. The figures are ns for each message that
was sent, the least of several runs that take turns.
"""

from __future__ import annotations

import random
from typing import Any

from framecodec import Check, Codec

from .harness import least

CODECS = {
    "magic": Codec.uint(4, magic=b"\xf9\xbe\xb4\xd9", max_message_size=65536),
    "magic and crc32": Codec.uint(
        4, magic=b"\xf9\xbe\xb4\xd9", max_message_size=65536, check=Check("crc32", 4)
    ),
    "cobs and crc32": Codec.cobs(check=Check("crc32", 4)),
}
SIZE = 64
COUNT = 1000
RUNS = 30
DAMAGED = 20  # bytes, in the whole stream


def damaged(stream: bytes) -> bytes:
    rng = random.Random(7)
    changed = bytearray(stream)
    for _ in range(DAMAGED):
        changed[rng.randrange(len(changed))] ^= 0xFF
    return bytes(changed)


def run(codec: Codec, chunk: bytes, on_invalid: Any) -> int:
    return len(codec.splitter(on_invalid=on_invalid).feed(chunk))


def main() -> None:
    print(
        "| codec | stopped at a bad frame, ns | resync, ns | resync, 20 bytes damaged, ns | got |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, codec in CODECS.items():
        rng = random.Random(3)
        stream = codec.encode_many([rng.randbytes(SIZE) for _ in range(COUNT)])
        bad = damaged(stream)
        assert run(codec, stream, "raise") == run(codec, stream, "resync") == COUNT
        works = {
            "raise": lambda c=codec, s=stream: run(c, s, "raise"),
            "resync": lambda c=codec, s=stream: run(c, s, "resync"),
            "damaged": lambda c=codec, s=bad: run(c, s, "resync"),
        }
        figures = least(works, COUNT, RUNS)
        print(
            f"| {name} | {figures['raise']:.0f} | {figures['resync']:.0f} "
            f"| {figures['damaged']:.0f} | {works['damaged']()} of {COUNT} |"
        )


if __name__ == "__main__":
    main()
