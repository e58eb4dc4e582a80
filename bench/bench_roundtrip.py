"""How long does a request and its reply take, both ends on one core?

The other end answers every request with ready-made bytes. With one core the scheduler has no
choice, so the figures are steady; the kernel's part is the same for all. A second table has a
time-out set on the socket, as a careful program does: Python's own socket methods then poll before
every call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from . import far_end, sources
from .harness import Case, Contender, Scale, expect, makers, run_in_pytest
from .peers import Exchange, Peer
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
    def make(peer: Peer) -> Contender:
        return _contender(peer, family, size, scale.trips, timeout)

    return Case(
        question,
        f"round trip {size_name(size)}, {family}{', with a time-out' if timeout else ''}",
        {"size": size, "family": family, "timeout": bool(timeout)},
        makers(
            "client",
            make,
            in_loop=in_loop,
            only=lambda peer: family in peer.families and (peer.timeouts or not timeout),
        ),
        unit="ns a round trip",
    )


def _contender(peer: Peer, family: str, size: int, trips: int, timeout: float | None) -> Contender:
    far, name = far_end.shared(), peer.name
    assert peer.client is not None
    if hasattr(os, "sched_setaffinity"):
        core = min(far_end.all_processors())
        os.sched_setaffinity(0, {core})
        far.pin(core)
    requests = [sources.messages(size, size, variant)[0] for variant in range(VARIANTS)]
    exchange: Exchange | None = None
    chosen = 0

    def setup(number: int, times: int) -> tuple[Exchange, bytes, int]:
        nonlocal exchange, chosen
        hang_up()
        chosen = number % VARIANTS
        request = requests[chosen]
        path = far.file(
            f"{peer.wire.__module__} reply {size} {chosen}", lambda: peer.wire([request])
        )
        with far.restarted_on_failure():
            address = far.begin(
                family,
                do="echo",
                greeting=peer.greeting,
                request_size=peer.request_size(request),
                path=path,
            )
            sock = far_end.connect(family, address)
            if timeout:
                sock.settimeout(timeout)
            exchange = peer.client(sock)
            far.ready()
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
        far.finish()

    def close() -> None:
        hang_up()
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, far_end.all_processors())
            far.pin(None)

    return Contender(name, peer.role, setup, run, check, units=trips, release=hang_up, close=close)
