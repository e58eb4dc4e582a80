"""How fast do messages come in over a socket?

The sender is a separate process that writes ready-made frames as fast as the kernel takes them.
The receiver loops over every message. Blocking contenders and those inside an event loop run side
by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import remote_process, sources
from .contenders import Contender, Messages, Receiver
from .harness import Case, Entry, Scale, expect, makers, run_in_pytest
from .sources import KIB, MIB, VARIANTS, size_name

SIZES = (16, 64, KIB, 64 * KIB, MIB, 16 * MIB)
BLOCK = MIB  # bytes that the sender sends over and over, at least one message
PATIENCE = 4  # a sample is that many times longer than one in memory: the kernel varies more


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
    only: Callable[[Contender], bool] = lambda contender: True,
) -> Case:
    block_size = max(size, min(BLOCK, scale.stream))

    def make(contender: Contender) -> Entry:
        return _entry(contender, family, size, block_size)

    return Case(
        question,
        f"{'receive' if question != 'stream' else 'stream'} {size_name(size)}, {family}",
        {"size": size, "family": family},
        makers(
            "receiver",
            make,
            in_loop=in_loop,
            only=lambda contender: family in contender.families and only(contender),
        ),
    )


def _entry(contender: Contender, family: str, size: int, block_size: int) -> Entry:
    remote = remote_process.shared()
    name = contender.name

    def messages_of(variant: int) -> Messages:
        return sources.messages(size, block_size, variant)

    receiver: Receiver | None = None
    chosen = 0

    def setup(number: int, times: int) -> tuple[Receiver, int]:
        nonlocal receiver, chosen
        close()
        chosen = number % VARIANTS
        path = remote.file(
            f"{contender.wire.__module__} {size} {block_size} {chosen}",
            lambda: contender.wire(messages_of(chosen)),
        )
        with remote.restarted_on_failure():
            address = remote.begin(
                family, do="stream", greeting=contender.greeting, path=path, times=times
            )
            receiver = contender.dial(family, address)
            remote.ready()
        return receiver, len(messages_of(chosen)) * times

    def run(receiver: Receiver, count: int) -> bytes:
        remote.go()
        return receiver.run(count)

    def check(last: bytes) -> None:
        if contender.role != "reference":
            right = last == messages_of(chosen)[-1]
            expect(right, name, "the last message is not the last that was sent")

    def close() -> None:
        nonlocal receiver
        if receiver is not None:
            receiver.close()
            receiver = None
        remote.finish()

    try:
        for variant in range(1 if size > MIB else VARIANTS):
            opened, count = setup(variant, 1)
            remote.go()
            right = opened.collect(count) == messages_of(chosen)
            expect(right, name, "other messages than were sent")
    finally:
        close()
    units = len(messages_of(0))
    return Entry(
        name, contender.role, setup, run, check, units=units, release=close, patience=PATIENCE
    )
