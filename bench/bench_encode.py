"""How fast are messages made into frames?

A batch of about 64 KiB in one call, and one call for each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

from . import native, remote_process, sources
from .contenders import Contender, Messages, everyone
from .harness import Case, Entry, Scale, expect, makers, run_in_pytest
from .sources import KIB, VARIANTS, size_name

SIZES = (16, 64, KIB, 64 * KIB)
BATCH = 64 * KIB


def cases(scale: Scale) -> Iterator[Case]:
    for size in SIZES:
        yield _case(size, "encode_many", "a batch of 64 KiB", _encode_batches)
    for size in SIZES:
        yield _case(size, "encode", "one call a message", _encode_each)


def test_how_fast_are_messages_encoded(benchmark, case: Case, name: str) -> None:
    run_in_pytest(benchmark, case, name)


def _encode_batches(
    encode_many: Callable[[Messages], bytes], messages: Messages, times: int
) -> bytes:
    for _ in repeat(None, times):
        frames = encode_many(messages)
    return frames


def _encode_each(encode: Callable[[bytes], bytes], messages: Messages, times: int) -> bytes:
    for _ in repeat(None, times):
        for message in messages:
            frame = encode(message)
    return frame


def _case(size: int, ability: str, how: str, run: Callable[..., bytes]) -> Case:
    def messages_of(variant: int) -> Messages:
        return sources.messages(size, BATCH, variant)

    def make(contender: Contender) -> Entry:
        encode = getattr(contender, ability)
        name, many = contender.name, ability == "encode_many"
        for variant in range(VARIANTS):
            messages = messages_of(variant)
            frames = encode(messages) if many else b"".join(map(encode, messages))
            expect(frames == contender.wire(messages), name, "other frames than on the wire")
        chosen = 0

        def setup(number: int, times: int) -> tuple[object, Messages, int]:
            nonlocal chosen
            chosen = number % VARIANTS
            return encode, messages_of(chosen), times

        def check(frames: bytes) -> None:
            messages = messages_of(chosen)
            right = frames == contender.wire(messages if many else messages[-1:])
            expect(right, name, "other frames than on the wire")

        return Entry(name, contender.role, setup, run, check, units=len(messages_of(0)))

    return Case(
        "encode",
        f"encode {size_name(size)}, {how}",
        {"size": size, "how": how},
        makers(ability, make),
        native={"tokio": lambda: _native_entry(messages_of(0))} if ability == "encode_many" else {},
    )


def _native_entry(messages: Messages) -> Entry:
    size = len(messages[0])
    path = remote_process.shared().file(
        f"native {size} {BATCH}", lambda: everyone()["C floor"].wire(messages)
    )
    return native.entry("tokio", "encode {}", path, len(messages), sum(map(len, messages)))
