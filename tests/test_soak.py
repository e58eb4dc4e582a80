"""A short run of the soak; ``python -m tests.soak --seconds 60`` is a long one."""

from __future__ import annotations

import sys

import pytest

from tests.soak import hostile
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
