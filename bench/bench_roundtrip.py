"""How long does a request and its reply take, both ends on one core?

The other end answers every request with ready-made bytes. With one core the scheduler has no
choice, so the figures vary little; the kernel's part is the same for all. A second table has a
time-out set on the socket, as a careful program does: Python's own socket methods then poll before
every call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from . import remote_process, sources
from .contenders import Contender, Exchange
from .harness import Case, Entry, Scale, expect, makers, run_in_pytest
from .sources import KIB, VARIANTS, size_name

SIZES = (64, KIB)


def cases(scale: Scale) -> Iterator[Case]:
    for family in ("TCP", "Unix"):
        for size in SIZES:
            yield roundtrip_case("roundtrip", family, size, scale, None, in_loop=(False, True))
    for size in SIZES:
        yield roundtrip_case("roundtrip", "TCP", size, scale, 30.0, in_loop=(False,))


def test_how_long_does_a_round_trip_take(benchmark, case: Case, name: str) -> None:
    run_in_pytest(benchmark, case, name)


def roundtrip_case(
    question: str,
    family: str,
    size: int,
    scale: Scale,
    timeout: float | None,
    *,
    in_loop: tuple[bool, ...],
) -> Case:
    def make(contender: Contender) -> Entry:
        return _entry(contender, family, size, scale.trips, timeout)

    return Case(
        question,
        f"round trip {size_name(size)}, {family}{', with a time-out' if timeout else ''}",
        {"size": size, "family": family, "timeout": bool(timeout)},
        makers(
            "client",
            make,
            in_loop=in_loop,
            only=lambda contender: (
                family in contender.families and (contender.timeouts or not timeout)
            ),
        ),
        unit="ns a round trip",
    )


def _entry(
    contender: Contender, family: str, size: int, trips: int, timeout: float | None
) -> Entry:
    remote, name = remote_process.shared(), contender.name
    assert contender.client is not None
    if hasattr(os, "sched_setaffinity"):
        core = min(remote_process.all_processors())
        os.sched_setaffinity(0, {core})
        remote.pin(core)
    requests = [sources.messages(size, size, variant)[0] for variant in range(VARIANTS)]
    exchange: Exchange | None = None
    chosen = 0

    def setup(number: int, times: int) -> tuple[Exchange, bytes, int]:
        nonlocal exchange, chosen
        hang_up()
        chosen = number % VARIANTS
        request = requests[chosen]
        path = remote.file(
            f"{contender.wire.__module__} reply {size} {chosen}", lambda: contender.wire([request])
        )
        with remote.restarted_on_failure():
            address = remote.begin(
                family,
                do="echo",
                greeting=contender.greeting,
                request_size=contender.request_size(request),
                path=path,
            )
            sock = remote_process.connect(family, address)
            if timeout:
                sock.settimeout(timeout)
            exchange = contender.client(sock)
            remote.ready()
        return exchange, request, trips * times

    def run(exchange: Exchange, request: bytes, count: int) -> bytes:
        return exchange.run(request, count)

    def check(reply: bytes) -> None:
        expect(reply == requests[chosen], name, "another reply than was sent")

    def hang_up() -> None:
        nonlocal exchange
        if exchange is not None:
            exchange.close()
            exchange = None
        remote.finish()

    def close() -> None:
        hang_up()
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, remote_process.all_processors())
            remote.pin(None)

    return Entry(name, contender.role, setup, run, check, units=trips, release=hang_up, close=close)
