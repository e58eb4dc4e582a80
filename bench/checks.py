"""What a check costs: ``python -m bench.checks``.

A codec with a `crc32` or `crc32c` check, against the same shape with 4 bytes in its place and
``zlib.crc32`` of each message in a loop. Split is a splitter that is fed all frames at once, encode
is encode_many(). The figures are ns a message, each the least of several runs that take turns.
"""

from __future__ import annotations

import zlib

from framecodec import Check, Codec

from .harness import least

SIZES = (16, 64, 1024, 65536)
TOTAL = 256 * 1024
RUNS = 40


def by_hand(messages: list[bytes]) -> None:
    crc32 = zlib.crc32
    for message in messages:
        crc32(message)


def measure(name: str, size: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the figures of split and of encode."""
    messages = [bytes([i % 256]) * size for i in range(max(4, TOTAL // size))]
    checked, plain = Codec.uint(4, check=Check(name, 4)), Codec.uint(4, trailer=b"abcd")
    frames, plain_frames = checked.encode_many(messages), plain.encode_many(messages)
    split, plain_split = checked.splitter().feed, plain.splitter().feed
    assert split(frames) == plain_split(plain_frames) == messages
    works = {
        "with the check": lambda: split(frames),
        "by hand": lambda: by_hand(plain_split(plain_frames)),
    }
    encoding = {
        "with the check": lambda: checked.encode_many(messages),
        "by hand": lambda: (by_hand(messages), plain.encode_many(messages)),
    }
    return least(works, len(messages), RUNS), least(encoding, len(messages), RUNS)


def main() -> None:
    print("| check | bytes | work | with the check, ns | shape and zlib.crc32, ns | ratio |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for name in ("crc32", "crc32c"):
        for size in SIZES:
            for work, figures in zip(("split", "encode"), measure(name, size), strict=True):
                ours, other = figures["with the check"], figures["by hand"]
                print(
                    f"| `{name}` | {size} | {work} "
                    f"| {ours:.0f} | {other:.0f} | {ours / other:.2f} |"
                )


if __name__ == "__main__":
    main()
