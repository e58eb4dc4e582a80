"""How fast do messages go out over a socket?

The other end discards them. The clock stops when it has every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from . import remote_process, sources
from .contenders import Contender, Messages, Sender
from .harness import Case, Entry, Scale, expect, makers, run_in_pytest
from .sources import KIB, MIB, VARIANTS, size_name

SIZES = (64, KIB, 64 * KIB)
BLOCK = MIB
PATIENCE = 4


def cases(scale: Scale) -> Iterator[Case]:
    for size in SIZES:
        yield send_case("send", "TCP", size, scale, in_loop=(False,))


def test_how_fast_do_messages_go_out(benchmark, case: Case, name: str) -> None:
    run_in_pytest(benchmark, case, name)


def send_case(
    question: str, family: str, size: int, scale: Scale, *, in_loop: tuple[bool, ...]
) -> Case:
    block_size = max(size, min(BLOCK, scale.stream))

    def make(contender: Contender) -> Entry:
        return _entry(contender, family, size, block_size)

    return Case(
        question,
        f"send {size_name(size)}, {family}",
        {"size": size, "family": family},
        makers(
            "sender", make, in_loop=in_loop, only=lambda contender: family in contender.families
        ),
    )


def _entry(contender: Contender, family: str, size: int, block_size: int) -> Entry:
    remote, name = remote_process.shared(), contender.name
    assert contender.sender is not None

    def messages_of(variant: int) -> Messages:
        return sources.messages(size, block_size, variant)

    sender: Sender | None = None
    frame_size = contender.request_size(messages_of(0)[0])
    result: dict[str, object] = {}

    def setup(number: int, times: int, *, keep: bool = False) -> tuple[Sender, Messages, int]:
        nonlocal sender
        close()
        messages = messages_of(number % VARIANTS)
        with remote.restarted_on_failure():
            address = remote.begin(
                family,
                do="sink",
                greeting=contender.greeting,
                size=frame_size * len(messages) * times,
                check=keep,
            )
            sender = contender.sender(remote_process.connect(family, address))
            remote.ready()
        if hasattr(sender, "prepare"):
            sender.prepare(messages)
        return sender, messages, times

    def run(sender: Sender, messages: Messages, times: int) -> dict[str, object]:
        sender.run(messages, times)
        return remote.got()

    def check(answer: dict[str, object]) -> None:
        expect(answer["missing"] == 0, name, "fewer bytes than were to be sent")

    def close() -> None:
        nonlocal sender
        if sender is not None:
            sender.close()
            sender = None
        remote.finish()

    try:
        for variant in range(VARIANTS):
            result = run(*setup(variant, 1, keep=True))
            check(result)
            if contender.greeting == "none":  # a WebSocket client masks what it sends, at random
                right = hashlib.sha256(contender.wire(messages_of(variant))).hexdigest()
                expect(result["sha256"] == right, name, "other bytes than the frames")
    finally:
        close()
    units = len(messages_of(0))
    return Entry(
        name, contender.role, setup, run, check, units=units, release=close, patience=PATIENCE
    )
