"""How fast do messages come in over a socket?

The sender is a process of its own that writes ready-made frames as fast as the kernel takes them.
The receiver loops over every message. Blocking contenders and those inside an event loop run side
by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import far_end, sources
from .harness import Case, Contender, Scale, expect, makers, run_in_pytest
from .peers import Messages, Peer, Receiver
from .sources import KIB, MIB, VARIANTS, size_name

SIZES = (16, 64, KIB, 64 * KIB, MIB, 16 * MIB)
BLOCK = MIB  # bytes that the sender sends over and over, at least one message
PATIENCE = 4  # a sample takes so many times longer than one in memory: the kernel is less even


def cases(scale: Scale) -> Iterator[Case]:
    for family in ("TCP", "Unix"):
        for size in SIZES:
            yield stream_case("stream", family, size, scale, in_loop=(False, True))


def test_how_fast_do_messages_come_in(benchmark, case: Case, name: str) -> None:
    run_in_pytest(benchmark, case, name)


def stream_case(
    question: str,
    family: str,
    size: int,
    scale: Scale,
    *,
    in_loop: tuple[bool, ...],
    only: Callable[[Peer], bool] = lambda peer: True,
) -> Case:
    block_size = max(size, min(BLOCK, scale.stream))

    def make(peer: Peer) -> Contender:
        return _contender(peer, family, size, block_size)

    return Case(
        question,
        f"{'receive' if question != 'stream' else 'stream'} {size_name(size)}, {family}",
        {"size": size, "family": family},
        makers(
            "receiver",
            make,
            in_loop=in_loop,
            only=lambda peer: family in peer.families and only(peer),
        ),
    )


def _contender(peer: Peer, family: str, size: int, block_size: int) -> Contender:
    far = far_end.shared()
    name = peer.name

    def messages_of(variant: int) -> Messages:
        return sources.messages(size, block_size, variant)

    receiver: Receiver | None = None
    chosen = 0

    def setup(number: int, times: int) -> tuple[Receiver, int]:
        nonlocal receiver, chosen
        close()
        chosen = number % VARIANTS
        path = far.file(
            f"{peer.wire.__module__} {size} {block_size} {chosen}",
            lambda: peer.wire(messages_of(chosen)),
        )
        with far.restarted_on_failure():
            address = far.begin(family, do="stream", greeting=peer.greeting, path=path, times=times)
            receiver = peer.dial(family, address)
            far.ready()
        return receiver, len(messages_of(chosen)) * times

    def run(receiver: Receiver, count: int) -> bytes:
        far.go()
        return receiver.run(count)

    def check(last: bytes) -> None:
        if peer.role != "reference":
            right = last == messages_of(chosen)[-1]
            expect(right, name, "the last message is not the last that was sent")

    def close() -> None:
        nonlocal receiver
        if receiver is not None:
            receiver.close()
            receiver = None
        far.finish()

    try:
        for variant in range(1 if size > MIB else VARIANTS):
            opened, count = setup(variant, 1)
            far.go()
            right = opened.collect(count) == messages_of(chosen)
            expect(right, name, "other messages than were sent")
    finally:
        close()
    units = len(messages_of(0))
    return Contender(
        name, peer.role, setup, run, check, units=units, release=close, patience=PATIENCE
    )
