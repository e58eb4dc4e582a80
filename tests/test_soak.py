"""A short run of the soak; ``python -m tests.soak --seconds 60`` is a long one."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.soak import hostile, leaks
from tests.soak.run import soak


@pytest.mark.slow
@pytest.mark.usefixtures("engine_in_use")
def test_a_short_soak_loses_no_byte_and_leaves_nothing_behind() -> None:
    found = soak(1.5, seed=1)
    assert not found.failures
    assert found.connections > 0
    assert found.messages > 0
    assert found.lost == 0
    assert found.descriptors == 0
    assert found.memory < 2 << 20


@pytest.mark.slow
@pytest.mark.usefixtures("engine_in_use")
@pytest.mark.skipif(sys.platform == "win32", reason="a reset is made by an option of Unix sockets")
@pytest.mark.parametrize("kind", hostile.KINDS)
def test_hostile_clients_are_ended_and_leave_nothing_behind(kind: str) -> None:
    found = hostile.soak(kind, 70)
    assert not found.failed, found
    assert found.ended == {way.__name__: 10 for way in hostile.WAYS}


@pytest.mark.slow
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="it counts CPython's blocks")
@pytest.mark.parametrize("way", leaks.WAYS)
def test_a_short_run_of_messages_leaks_nothing(engine: ModuleType, way: str) -> None:
    name = "python" if engine.__name__.endswith("_py") else "compiled"
    found = leaks.measure(name, way, 100_000)
    assert not found.leaks, found


def test_the_leak_command_notices_a_leak(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def leak(engine: ModuleType) -> int:
        kept.append([bytes([n]) * 100 for n in range(100)])
        return 1000

    monkeypatch.setitem(leaks.WAYS, "leak", leak)
    name = "python" if engine.__name__.endswith("_py") else "compiled"
    found = leaks.measure(name, "leak", 100_000)
    assert found.leaks
    assert "a leak" in str(found)
    assert found.more["blocks"] > 8000
