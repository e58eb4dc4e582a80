"""A short run of the soak; ``python -m tests.soak --seconds 60`` is a long one."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

import framecodec
from tests.soak import hostile, leaks
from tests.soak.clients import CODEC, LARGEST
from tests.soak.kinds import Limits, Served
from tests.soak.run import soak

BATCH = 64 << 10
# Bytes that a connection may hold without a byte of its client. A thread has 128 KiB to receive
# into, and receives the first 64 KiB of a message without a copy.
HELD = dict.fromkeys(hostile.KINDS, 24 << 10) | dict.fromkeys(["serve", "socketserver"], 224 << 10)
# What a client has sent of the pending frame, or of the ones whose replies it does not read; with a
# batch of these replies, which is being written.
PENDING = {"silent": 0, "almost": LARGEST, "flooding": 3 * LARGEST + BATCH}


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
    found = hostile.soak(kind, 10 * len(hostile.WAYS), seed=1)
    assert not found.failed, found
    assert found.ended == {way.__name__: 10 for way in hostile.WAYS}


@pytest.mark.slow
@pytest.mark.usefixtures("engine_in_use")
@pytest.mark.skipif(sys.platform != "linux", reason="the clients count on the buffers of Linux")
@pytest.mark.parametrize("way", ["silent", "almost", "flooding"])
@pytest.mark.parametrize("kind", hostile.KINDS)
def test_a_hostile_connection_holds_a_constant_and_twice_what_it_has_sent(
    kind: str, way: str
) -> None:
    held = hostile.measure_held(kind, way, 20, hostile.traced)
    assert held <= HELD[kind] + 2 * PENDING[way]


class Broken:
    """A server of the soak with one defect."""

    def __init__(self, defect: str) -> None:
        self.defect = defect
        self.kept: list[object] = []

    @contextlib.contextmanager
    def __call__(self, limits: Limits) -> Iterator[Served]:
        def handler(conn: framecodec.FrameSocket) -> None:
            if self.defect != "ends no connection":
                conn.settimeout(limits.call)
            for message in conn:
                if self.defect == "keeps memory":
                    self.kept.append(bytearray(100_000))
                elif self.defect == "keeps descriptors":
                    self.kept.append(open(os.devnull))  # noqa: SIM115
                conn.send(message[1:] if self.defect == "wrong answers" else message)

        options = {} if self.defect == "ends no connection" else limits.options
        with framecodec.serve(handler, ("127.0.0.1", 0), CODEC, **options) as server:
            yield Served(server.address[1], lambda: len(server.connections))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it counts descriptors in /proc")
@pytest.mark.parametrize(
    ("defect", "noticed"),
    [
        ("keeps memory", lambda found: found.memory > 1 << 20),
        ("keeps descriptors", lambda found: found.descriptors > 0),
        ("wrong answers", lambda found: "a correct client" in str(found)),
        ("ends no connection", lambda found: set(found.left) >= {"be_silent", "almost"}),
    ],
)
def test_the_hostile_soak_notices_a_defect(
    defect: str, noticed: Callable[[hostile.Found], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Broken(defect)
    monkeypatch.setitem(hostile.KINDS, "broken", server)
    monkeypatch.setenv("FRAMECODEC_SOAK_PATIENCE", "3")
    found = hostile.soak("broken", len(hostile.WAYS))
    for thing in server.kept:
        if hasattr(thing, "close"):
            thing.close()
    assert found.failed
    assert noticed(found), found


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
