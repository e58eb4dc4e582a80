"""How fast are messages inside an event loop, and what does an idle connection hold?

Receiving, sending many messages in one iteration of the loop, round trips; on asyncio's loop and
on uvloop. The figures of the blocking contenders for the same work are in the other files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from . import idle
from .bench_roundtrip import roundtrip_case
from .bench_send import send_case
from .bench_stream import stream_case
from .contenders import Missing, everyone
from .harness import Case, Entry, Scale, run_in_pytest
from .sources import KIB


def cases(scale: Scale) -> Iterator[Case]:
    for size in (64, KIB, 64 * KIB):
        yield stream_case("asyncio", "TCP", size, scale, in_loop=(True,))
    for size in (64, KIB, 64 * KIB):
        yield send_case("asyncio", "TCP", size, scale, in_loop=(True,))
    yield roundtrip_case("asyncio", "TCP", 64, scale, None, in_loop=(True,))
    if Path("/proc/self/statm").exists():
        yield _memory("splitter", idle.SPLITTERS, scale)
        yield _memory("connection", idle.CONNECTIONS, scale)


def test_how_fast_are_messages_in_an_event_loop(benchmark, case: Case, name: str) -> None:
    run_in_pytest(benchmark, case, name)


def _memory(what: str, kinds: dict[str, tuple[str, object]], scale: Scale) -> Case:
    return Case(
        "asyncio",
        f"memory of an idle {what}",
        {"what": what, "count": scale.idle},
        {name: _weigher(name, role, scale.idle) for name, (role, _) in kinds.items()},
        unit=f"bytes a {what}",
    )


def _weigher(name: str, role: str, count: int) -> Callable[[], Entry]:
    def make() -> Entry:
        contender = everyone().get(name)
        if contender is not None:
            contender.ready()
        elif name.startswith("Frame") and name != "FrameSocket":
            everyone()[
                "FrameStream, recv (uvloop)" if "uvloop" in name else "FrameProtocol"
            ].ready()

        def weigh() -> float:
            ran = subprocess.run(
                [sys.executable, "-m", "bench.idle", name, str(count)],
                cwd=Path(__file__).parent.parent,
                capture_output=True,
                text=True,
                timeout=300,
                env=os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"},
            )
            if ran.returncode:
                raise Missing((ran.stderr.strip().splitlines() or ["no reason given"])[-1])
            return float(ran.stdout)

        def check(weight: float) -> None:
            assert weight >= 0

        return Entry(
            name,
            role,
            lambda number, times: (),
            weigh,
            check,
            units=1,
            measured_elsewhere=lambda number, seconds: {name: weigh()},
        )

    return make
