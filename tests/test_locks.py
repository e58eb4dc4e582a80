"""Locks are released also where memory runs out: no other thread waits for ever."""

from __future__ import annotations

import ast
import socket
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import framecodec
from framecodec import Codec, FrameSocket
from framecodec._locks import call_locked
from framecodec.socketserver import _Watch
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.engines import ENGINES
from tests.helpers.fault_injection import TIMEOUT, fail_allocation, lock_is_free

PACKAGE = Path(framecodec.__file__).parent

# Programs and test tools of one user: they end with the MemoryError.
NOT_CHECKED = ("cli", "testing")


def calls_without_memory(make: Callable[[], Any], call: Callable[[Any], object]) -> list[Any]:
    """Make objects and call each while another one of the first allocations fails.

    Returns:
        The objects of which a call raised MemoryError.
    """
    failed: list[Any] = []
    for number in range(40):
        made = make()
        # The others are those of a call that has lost its MemoryError.
        if fail_allocation(number, call, made, (OSError, SystemError)):
            failed.append(made)
    return failed


def fast_path_of(engine: str) -> Any:
    if engine == "compiled":
        return pytest.importorskip("framecodec.sockets._fast_path")
    return import_module("framecodec.sockets._fast_path_py")


def take_with(lock: Any) -> None:
    with lock:
        pass


def take_for_call(lock: Any) -> None:
    call_locked(lock, bytes, 100)


@needs_cpython_3_11
@pytest.mark.forked
@pytest.mark.usefixtures("no_collection_callbacks")
@pytest.mark.parametrize(
    ("engine", "take"), [("compiled", take_with), *((engine, take_for_call) for engine in ENGINES)]
)
def test_a_lock_is_free_after_a_call_without_memory(
    engine: str, take: Callable[[Any], None]
) -> None:
    io = fast_path_of(engine)
    locks: list[Any] = []

    def make() -> Any:
        locks.append(io.Lock())
        return locks[-1]

    assert calls_without_memory(make, take) or take is take_with
    assert all(map(lock_is_free, locks))


def test_a_signal_handler_that_raises_in_acquire_leaves_the_lock_as_it_was() -> None:
    lock, called = threading.RLock(), list[None]()

    class Interrupted:
        def acquire(self) -> None:
            raise KeyboardInterrupt

        def release(self) -> None:
            lock.release()  # RuntimeError: it is not taken

    with pytest.raises(KeyboardInterrupt) as caught:
        call_locked(Interrupted(), called.append, None)
    assert caught.value.__context__ is None
    assert called == []
    assert lock_is_free(lock)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lock_that_is_dropped_while_it_is_held_leaves_nothing(engine: str) -> None:
    io = fast_path_of(engine)
    for _ in range(1000):
        lock = io.Lock()  # in the memory of the one before
        assert lock.acquire(blocking=False)
        assert not lock_is_free(lock)


@needs_cpython_3_11
@pytest.mark.forked
@pytest.mark.usefixtures("no_collection_callbacks")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("timeout", [-1.0, 1.0])
def test_a_guard_frees_its_lock_without_memory(engine: str, timeout: float) -> None:
    io = fast_path_of(engine)
    locks: list[Any] = []

    def make() -> Any:
        locks.append(io.Lock())
        return io.Guard(locks[-1], timeout)

    assert calls_without_memory(make, lambda guard: guard.call(bytes, 100))
    assert all(map(lock_is_free, locks))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_guard_waits_no_longer_than_its_time_out(engine: str) -> None:
    """The call is refused, and the thread that holds the lock keeps it."""
    io = fast_path_of(engine)
    lock, raised, answers = io.Lock(), [], []
    guard = io.Guard(lock, 0.01)

    def other() -> None:
        try:
            answers.append(guard.call(len, b"abc"))
        except OSError as error:
            raised.append(error)

    lock.acquire()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(TIMEOUT)
    assert not answers
    assert "another thread" in str(raised[0])
    assert not lock_is_free(lock)
    lock.release()
    assert guard.call(len, b"abc") == 3
    assert lock_is_free(lock)


CALLS: dict[str, Callable[[FrameSocket], object]] = {
    "recv": lambda conn: conn.recv(),
    "recv_many": lambda conn: conn.recv_many(),
    "recv_into": lambda conn: conn.recv_into(bytearray(10)),
    "recv_bytes": lambda conn: conn.recv_bytes(2),
    "recv_parts": lambda conn: list(conn.recv_parts()),
    "send of a large message": lambda conn: conn.send(bytes(100_000)),
    "flush": lambda conn: conn._sending.guard.call(conn._sending.drain_in_time),
    "switch": lambda conn: conn.switch(Codec.uint(1)),
    "read_ahead": lambda conn: setattr(conn, "read_ahead", False),
    "detach": lambda conn: conn.detach(),
    "close": lambda conn: conn.close(),
}


@needs_cpython_3_11
@pytest.mark.forked
@pytest.mark.usefixtures("engine_in_use", "no_collection_callbacks")
@pytest.mark.parametrize("name", CALLS)
def test_a_connection_can_be_closed_by_another_thread_after_a_call_without_memory(
    name: str,
) -> None:
    conns: list[FrameSocket] = []
    ends: list[Any] = []

    def make() -> FrameSocket:
        left, right = socket.socketpair()
        ends.extend((left, right))
        right.sendall(b"\0\0\0\3abc")
        conns.append(FrameSocket(left, Codec.uint(4)))
        conns[-1].settimeout(0.05)
        return conns[-1]

    try:
        calls_without_memory(make, CALLS[name])
        for conn in conns:
            assert lock_is_free(conn._receiving.lock)
            assert lock_is_free(conn._sending.lock)
            closing = threading.Thread(target=conn.close, daemon=True)
            closing.start()
            closing.join(TIMEOUT)
            assert not closing.is_alive()
    finally:
        for end in ends:
            end.close()


@needs_cpython_3_11
@pytest.mark.forked
@pytest.mark.usefixtures("no_collection_callbacks")
@pytest.mark.parametrize("name", ["add", "discard"])
def test_a_watched_server_serves_others_after_a_connection_without_memory(name: str) -> None:
    server: Any = SimpleNamespace(socket=None)
    watches: list[Any] = []

    def make() -> Any:
        watches.append(_Watch())
        watches[-1]._running = True  # no thread: one looks at it below
        return watches[-1]

    conn: Any = object()
    call: Any = {
        "add": lambda watch: watch.add(server, conn),
        "discard": lambda watch: watch.discard(conn),
    }[name]
    calls_without_memory(make, call)
    for watch in watches:
        other = threading.Thread(target=watch.add, args=(server, conn), daemon=True)
        other.start()
        other.join(TIMEOUT)
        assert not other.is_alive()
        assert watch._connections == {conn}


def test_no_with_statement_takes_a_lock() -> None:
    """Its exit needs memory for a tuple, and without that the lock stays taken."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE)
        if file.parts[0] in NOT_CHECKED:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.With | ast.AsyncWith):
                items = [ast.unparse(item.context_expr) for item in node.items]
                found += [f"{file}: {item}" for item in items if item.endswith(("lock", "guard"))]
    assert not found
