"""`serve_messages`: what meets in one turn of its loop, and what the kernel refuses.

Each test runs on both twins of the loop.
"""

# ruff: noqa: SIM117 (a server and its clients are two levels)

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec
from framecodec.serving import messages as messages_module
from tests.helpers.descriptors import no_more_descriptors
from tests.helpers.fault_injection import reset
from tests.helpers.servers import LOOPBACK, PATIENCE, dial, refused_threads, until

U4 = Codec.uint(4)


pytestmark = pytest.mark.usefixtures("message_loop")


def echo(conn: Any, messages: list[bytes]) -> list[bytes]:
    return messages


class Busy:
    """Clients of a server whose handler waits while a message says so: what comes meanwhile is
    served in the turn after it, in the order in which it came."""

    def __init__(self, stack: contextlib.ExitStack, handle: Callable[..., Any], **options: Any):
        self.connections: dict[bytes, Any] = {}
        self._handle = handle
        self._is_waiting, self._may_continue = threading.Event(), threading.Event()
        self.server = stack.enter_context(
            framecodec.serve_messages(self._take, LOOPBACK, **options)
        )
        self._stack = stack

    def _take(self, conn: Any, messages: list[bytes]) -> Any:
        if messages == [b"wait"]:
            self._is_waiting.set()
            assert self._may_continue.wait(PATIENCE)
            return None
        return self._handle(self, conn, messages)

    @contextlib.contextmanager
    def waiting(self) -> Any:
        """Let the handler wait meanwhile."""
        self._is_waiting.clear()
        self._may_continue.clear()
        self._stack.enter_context(dial(self.server.address)).send(b"wait")
        assert self._is_waiting.wait(PATIENCE)
        try:
            yield
        finally:
            self._may_continue.set()

    def introduce(self, client: Any, name: bytes) -> None:
        """Let a client tell its name, under which `connections` has it."""
        client.send(name)
        until(lambda: name in self.connections)


# --- what the kernel takes ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_replies_to_a_client_that_does_not_read_arrive_whole(kind: str, tmp_path: Path) -> None:
    if kind == "unix" and not hasattr(socket, "AF_UNIX"):
        pytest.skip("no Unix sockets here")
    answered: list[Any] = []

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        answered.append(conn)
        return [bytes([len(answered) % 251]) * 1000 for _ in range(10)]

    address: Any = LOOPBACK if kind == "tcp" else str(tmp_path / "socket")
    with framecodec.serve_messages(handle, address, codec=U4) as server:
        with dial(server.address, codec=U4) as conn:
            while not answered or not answered[0].pending_send:
                before = len(answered)
                assert before < 5000
                conn.send(b"a")
                until(lambda before=before: len(answered) > before)
            more = [bytes([i % 251]) * 1000 for i in range(500)]
            for message in more:
                answered[0].send(message)
            for i in range(1, len(answered) + 1):
                assert [conn.recv() for _ in range(10)] == [bytes([i % 251]) * 1000] * 10
            assert [conn.recv() for _ in more] == more
            until(lambda: not answered[0].pending_send)


def test_a_client_that_has_read_late_has_no_time_limit_where_there_was_none() -> None:
    connections: list[Any] = []

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        connections.append(conn)
        return [b"x" * 1000] * 20_000

    with framecodec.serve_messages(handle, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"hello")
        until(lambda: connections and connections[0].pending_send)
        assert all(conn.recv() == b"x" * 1000 for _ in range(20_000))
        threading.Event().wait(1.5)
        assert not connections[0].closed
        conn.send(b"again")
        assert all(conn.recv() == b"x" * 1000 for _ in range(20_000))


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="of what the loop waits for, by epoll")
def test_a_connection_for_which_the_loop_cannot_wait_is_closed(logged: Any) -> None:
    unwatched, other = socket.socketpair()  # its other end is not read
    unwatched.setblocking(False)
    with unwatched, other:

        def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
            if messages == [b"hello"]:
                return messages
            os.dup2(unwatched.fileno(), conn.fileno())
            return [b"x" * 1000] * 20_000

        with framecodec.serve_messages(handle, LOOPBACK) as server:
            with dial(server.address) as conn:
                conn.send(b"change the descriptor")
                with pytest.raises((EOFError, ConnectionError)):
                    conn.recv()
            with dial(server.address) as conn:
                conn.send(b"hello")
                assert conn.recv() == b"hello"


def test_a_client_that_resets_before_its_replies_are_sent_is_closed(logged: Any) -> None:
    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        return [b"x" * 1000] * 20_000

    with framecodec.serve_messages(handle, LOOPBACK) as server:
        with dial(server.address) as conn:
            conn.send(b"a")
            until(lambda: any(one.pending_send for one in server.connections))
            reset(conn.socket)
            until(lambda: not server.connections)
    assert len(logged()) == 1


def test_a_client_that_resets_while_the_last_replies_are_sent_is_closed(logged: Any) -> None:
    served: list[Any] = []

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        served.append(conn)
        conn.close()
        return [b"x" * 1000] * 20_000

    with framecodec.serve_messages(handle, LOOPBACK) as server:
        with dial(server.address) as conn:
            conn.send(b"a")
            until(lambda: served and served[0].pending_send)
            until(lambda: "finishing" in repr(served[0]))
            reset(conn.socket)
            until(lambda: not server._hooks._sockets)
    assert not logged()  # the connection was closed here


def test_a_client_that_is_gone_before_it_is_served_is_dropped(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    prepare, failures = messages_module.prepare, [OSError(errno.EINVAL, "gone")]

    def failing(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        prepare(*arguments)

    monkeypatch.setattr(messages_module, "prepare", failing)
    with framecodec.serve_messages(echo, LOOPBACK) as server:
        with pytest.raises((EOFError, ConnectionError)):
            with dial(server.address) as gone:
                gone.recv()
        with dial(server.address) as conn:
            conn.send(b"hello")
            assert conn.recv() == b"hello"
    assert not logged()


def test_a_connection_that_fails_accepts_no_more_messages(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    monkeypatch.setattr(messages_module, "BACKLOG_LIMIT", 1000)
    taken: list[bool] = []
    told: list[Any] = []

    class Observer:
        def frame_sent(self, conn: Any, size: int) -> None:
            told.append((conn, size))

        def connection_closed(self, conn: Any, error: Any) -> None:
            told.append((conn, type(error)))

    def handle(conn: Any, messages: list[bytes]) -> None:
        conn.send_many([])
        conn.send(b"x" * 10_000_000)  # more than the kernel takes
        served.append(conn)
        taken.extend(server.broadcast(b"next") == 1 for _ in range(2))

    served: list[Any] = []
    with framecodec.serve_messages(handle, LOOPBACK, observer=Observer()) as server:
        with dial(server.address) as conn:
            conn.send(b"a")
            with contextlib.suppress(OSError, EOFError):
                while True:
                    conn.recv()
    assert taken == [False, False]
    assert told == [(served[0], 10_000_004), (served[0], ConnectionAbortedError)]
    assert len(logged()) == 1


@pytest.mark.parametrize("fails", [True, False])
def test_a_client_that_resets_while_its_handler_runs_is_closed(fails: bool, logged: Any) -> None:
    """Neither a reply can be sent then, nor the end that a client sees before the socket closes."""

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        is_called.set()
        assert is_reset.wait(PATIENCE)
        if fails:
            raise LookupError("no reply")
        return messages

    is_called, is_reset = threading.Event(), threading.Event()
    with framecodec.serve_messages(handle, LOOPBACK) as server:
        conn = dial(server.address)
        conn.send(b"a")
        assert is_called.wait(PATIENCE)
        reset(conn.socket)
        is_reset.set()
        until(lambda: not server.connections)
    (text,) = logged()
    assert ("the handler" in text) is fails


def test_a_client_that_stays_after_its_fault_is_closed(logged: Any) -> None:
    with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
        conn.socket.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(EOFError):
            conn.recv()
        until(lambda: not server._hooks._sockets)  # it waits 2 seconds for the client's end
    assert len(logged()) == 1


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals for threads here")
def test_a_signal_in_the_thread_of_the_loop_changes_nothing() -> None:
    handled = threading.Event()
    threads = {*threading.enumerate()}
    before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
    try:
        with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
            (thread,) = {*threading.enumerate()} - threads
            for number in range(3):
                conn.send(b"%d" % number)
                assert conn.recv() == b"%d" % number
                handled.clear()
                assert thread.ident is not None
                signal.pthread_kill(thread.ident, signal.SIGUSR1)
                until(handled.is_set)
    finally:
        signal.signal(signal.SIGUSR1, before)


class Ended(BaseException):
    """An error outside `Exception`: a user's function may let one through."""


def test_any_error_of_a_users_function_ends_its_connection_alone(logged: Any) -> None:
    def parse(header: memoryview) -> tuple[int, int]:
        if header[0] == ord("e"):
            raise Ended
        return 1, 1

    codec = Codec.custom(parse, lambda message: b"f")
    with framecodec.serve_messages(echo, LOOPBACK, codec) as server:
        with dial(server.address, codec=codec) as one, dial(server.address, codec=codec) as other:
            one.socket.sendall(b"e")
            with pytest.raises((EOFError, ConnectionError)):
                one.recv()
            other.socket.sendall(b"fx")
            assert other.recv() == b"x"
    assert len(logged()) == 1


# --- servers that cannot begin or go on -----------------------------------------------------------


def test_a_server_without_a_thread_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, fd_count: Callable[[], int]
) -> None:
    before = fd_count()
    with refused_threads(monkeypatch):
        framecodec.serve_messages(echo, LOOPBACK)
    gc.collect()  # the loop, which is in a cycle
    assert fd_count() == before


def test_a_server_without_descriptors_for_its_loop_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, fd_count: Callable[[], int]
) -> None:
    stack, make_pair = contextlib.ExitStack(), socket.socketpair

    def last_pair() -> Any:
        pair = make_pair()
        stack.enter_context(no_more_descriptors())
        return pair

    before = fd_count()
    with stack, monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", last_pair)
        with pytest.raises(OSError, match="open files") as caught:
            framecodec.serve_messages(echo, LOOPBACK)
    assert caught.value.errno == errno.EMFILE
    assert fd_count() == before


def test_a_server_that_fails_closes_its_clients(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    def accept(count: int) -> Any:
        raise Ended

    with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"hello")
        assert conn.recv() == b"hello"
        monkeypatch.setattr(server._hooks, "accept", accept)
        with pytest.raises((EOFError, ConnectionError)):
            with dial(server.address) as other:
                other.recv()
        with pytest.raises((EOFError, ConnectionError)):
            conn.recv()
    assert len(logged()) == 1


def test_a_client_for_whom_there_is_no_memory_is_closed_and_the_next_one_served(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    with framecodec.serve_messages(echo, LOOPBACK) as server:
        with monkeypatch.context() as patch:

            def splitter(conn: Any, sock: Any) -> Any:
                raise MemoryError

            patch.setattr(server._hooks, "splitter", splitter)
            with dial(server.address) as conn, pytest.raises((EOFError, ConnectionError)):
                conn.recv()
        with dial(server.address) as conn:
            conn.send(b"hello")
            assert conn.recv() == b"hello"
    assert "too little memory" in " ".join(logged())


def test_a_connection_whose_end_fails_is_closed_once_and_the_next_one_served(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    calls: list[Any] = []

    def closed(conn: Any, error: Any) -> None:
        calls.append(conn)
        raise MemoryError

    with framecodec.serve_messages(echo, LOOPBACK) as server:
        with monkeypatch.context() as patch:
            patch.setattr(server._hooks, "closed", closed)
            with dial(server.address) as conn:
                conn.send(b"hello")
                assert conn.recv() == b"hello"
            until(lambda: calls)
            until(lambda: not server.connections)
        with dial(server.address) as conn:
            conn.send(b"hello")
            assert conn.recv() == b"hello"
    assert len(calls) == 1


# --- what meets in one turn -----------------------------------------------------------------------


def test_a_message_to_a_client_that_leaves_in_the_same_turn_is_dropped(logged: Any) -> None:
    def handle(busy: Busy, conn: Any, messages: list[bytes]) -> Any:
        if messages != [b"tell the other"]:
            busy.connections[messages[0]] = conn
            return None
        busy.connections[b"other"].send(b"hello")
        return [b"told"]

    with contextlib.ExitStack() as stack:
        busy = Busy(stack, handle)
        one, other = (stack.enter_context(dial(busy.server.address)) for _ in range(2))
        busy.introduce(one, b"one")
        busy.introduce(other, b"other")
        with busy.waiting():
            one.send(b"tell the other")
            reset(other.socket)
        assert one.recv() == b"told"
        until(lambda: busy.connections[b"other"].closed)
        one.send(b"tell")  # the loop still runs
        until(lambda: b"tell" in busy.connections)


def test_a_connection_that_is_closed_here_gives_its_handler_no_more_messages() -> None:
    got: list[bytes] = []

    def handle(busy: Busy, conn: Any, messages: list[bytes]) -> None:
        busy.connections[messages[0]] = conn
        got.extend(messages)

    with contextlib.ExitStack() as stack:
        busy = Busy(stack, handle)
        one = stack.enter_context(dial(busy.server.address))
        busy.introduce(one, b"one")
        with busy.waiting():
            one.send(b"late")
            busy.connections[b"one"].close()
        with pytest.raises((EOFError, ConnectionError)):
            one.recv()
    assert got == [b"one"]


def test_a_connection_that_another_ones_handler_has_closed_in_the_turn_is_not_served() -> None:
    served: list[Any] = []

    def handle(busy: Busy, conn: Any, messages: list[bytes]) -> None:
        if messages != [b"close the other"]:
            busy.connections[messages[0]] = conn
            return
        served.append(conn)
        (other,) = {*busy.connections.values()} - {conn}
        other.close()

    with contextlib.ExitStack() as stack:
        busy = Busy(stack, handle)
        clients = [stack.enter_context(dial(busy.server.address)) for _ in range(2)]
        for client, name in zip(clients, (b"one", b"two"), strict=True):
            busy.introduce(client, name)
        with busy.waiting():
            for client in clients:
                client.send(b"close the other")
        until(lambda: served)
        closed = clients[served[0] is busy.connections[b"one"]]
        with pytest.raises((EOFError, ConnectionError)):
            closed.recv()
        assert len(served) == 1
        assert not served[0].closed


@pytest.mark.parametrize("ending", ["message", "end", "bad frame", "close"])
def test_what_the_kernel_holds_at_a_deadline_is_read_first(ending: str, logged: Any) -> None:
    """The turn in which the time of one client ends, another one's handler takes long."""
    clients: list[Any] = []

    def handle(busy: Busy, conn: Any, messages: list[bytes]) -> Any:
        if messages == [b"other"]:
            busy.connections[b"other"] = conn
            deadlines.append(busy.server._loop.clock + 1.0)
            return None
        if messages == [b"in time"]:
            return messages
        threading.Event().wait(0.1)  # by the clock it is a step
        if busy.server._loop.clock < deadlines[0]:
            clients[0].send(b"next")  # is there when the next turn begins
        elif ending == "message":
            clients[1].send(b"in time")
        elif ending == "end":
            clients[1].shutdown(socket.SHUT_WR)
        elif ending == "bad frame":
            clients[1].socket.sendall(b"\xff\xff\xff\xff")
        else:
            busy.connections[b"other"].close()
        return None

    deadlines: list[float] = []
    with contextlib.ExitStack() as stack:
        busy = Busy(stack, handle, idle_timeout=1.0)
        one, other = (stack.enter_context(dial(busy.server.address)) for _ in range(2))
        clients += [one, other]
        busy.introduce(other, b"other")
        one.send(b"next")
        if ending == "message":
            assert other.recv() == b"in time"
            assert not logged()
        else:
            with pytest.raises(EOFError):
                other.recv()
            assert len(logged()) == (ending == "bad frame")
            assert "IdleTimeoutError" not in " ".join(logged())
