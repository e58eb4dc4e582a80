"""How fast are messages made into frames?

A batch of about 64 KiB in one call, and one call for each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

from . import far_end, rivals, sources
from .harness import Case, Contender, Scale, expect, makers, run_in_pytest
from .peers import Messages, Peer, everyone
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

    def make(peer: Peer) -> Contender:
        encode = getattr(peer, ability)
        name, many = peer.name, ability == "encode_many"
        for variant in range(VARIANTS):
            messages = messages_of(variant)
            frames = encode(messages) if many else b"".join(map(encode, messages))
            expect(frames == peer.wire(messages), name, "other frames than on the wire")
        chosen = 0

        def setup(number: int, times: int) -> tuple[object, Messages, int]:
            nonlocal chosen
            chosen = number % VARIANTS
            return encode, messages_of(chosen), times

        def check(frames: bytes) -> None:
            messages = messages_of(chosen)
            right = frames == peer.wire(messages if many else messages[-1:])
            expect(right, name, "other frames than on the wire")

        return Contender(name, peer.role, setup, run, check, units=len(messages_of(0)))

    return Case(
        "encode",
        f"encode {size_name(size)}, {how}",
        {"size": size, "how": how},
        makers(ability, make),
        rivals={"tokio": lambda: _rival(messages_of(0))} if ability == "encode_many" else {},
    )


def _rival(messages: Messages) -> Contender:
    size = len(messages[0])
    path = far_end.shared().file(
        f"rival {size} {BATCH}", lambda: everyone()["C floor"].wire(messages)
    )
    return rivals.contender("tokio", "encode {}", path, len(messages), sum(map(len, messages)))
