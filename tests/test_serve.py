"""`serve`: a thread for each connection, and clients that do everything wrong."""

# ruff: noqa: SIM117 (a server and its clients are two levels)

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import logging
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec, FrameSocket
from framecodec.serving import common, messages, threads
from tests.helpers.fault_injection import reset
from tests.helpers.servers import (
    LOOPBACK,
    PATIENCE,
    AsyncHandler,
    dial,
    refused_threads,
    until,
)


def echo(conn: FrameSocket) -> None:
    for message in conn:
        conn.send(message)


# --- serving --------------------------------------------------------------------------------------


def test_serve_accepts_at_once_and_serves_several_clients_at_a_time() -> None:
    with framecodec.serve(echo, LOOPBACK) as server:
        assert server.address[0] == "127.0.0.1"
        with dial(server.address) as one, dial(server.address) as two:
            for conn in (two, one, two):
                conn.send(b"hello")
                assert conn.recv() == b"hello"
            assert len(server.connections) == 2
            assert isinstance(server.connections, frozenset)
            assert all(isinstance(conn, FrameSocket) for conn in server.connections)
        until(lambda: not server.connections)


@pytest.mark.parametrize(
    "form",
    [
        lambda: ((("127.0.0.1", 0), Codec.uint(2)), {}),
        lambda: (("127.0.0.1", 0), {"codec": Codec.uint(2)}),
        lambda: (("tcp://127.0.0.1:0",), {"codec": Codec.uint(2)}),
        lambda: (("tcp://127.0.0.1:0", Codec.uint(2)), {}),
    ],
)
def test_serve_takes_every_form_of_address(form: Any) -> None:
    positional, named = form()
    with framecodec.serve(echo, *positional, **named) as server:
        with dial(server.address, codec=Codec.uint(2)) as conn:
            conn.send(b"x" * 300)
            assert conn.recv() == b"x" * 300


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
@pytest.mark.parametrize("prefix", ["", "unix:"])
def test_serve_on_a_unix_socket_names_its_path_and_removes_the_file(
    tmp_path: Path, prefix: str, logged: Any
) -> None:
    path = str(tmp_path / "s")
    with framecodec.serve(echo, prefix + path, Codec.digits(4)) as server:
        assert server.address == path
        with dial(path, codec=Codec.digits(4)) as conn:
            conn.socket.sendall(b"nope")
            with pytest.raises(EOFError):
                conn.recv()
        until(logged)
        assert logged()[0].startswith(f"WARNING the connection from {path} ended: InvalidFrame")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("arguments", "named", "kind", "text"),
    [
        ((None, LOOPBACK), {}, TypeError, "handler must be callable"),
        ((asyncio.sleep, LOOPBACK), {}, TypeError, "plain function.*start_server"),
        ((AsyncHandler(), LOOPBACK), {}, TypeError, "plain function.*start_server"),
        ((echo, "localhost:6000"), {}, ValueError, "looks like a host and a port"),
        ((echo, "tls://127.0.0.1:0"), {}, ValueError, "ssl="),
        ((echo, "tcp://127.0.0.1"), {}, ValueError, "tcp://HOST:PORT"),
        ((echo, LOOPBACK), {"max_connections": 0}, ValueError, "at least 1"),
        ((echo, LOOPBACK), {"max_connections": "2"}, TypeError, "integer"),
        ((echo, LOOPBACK), {"message_timeout": 0}, ValueError, "message_timeout"),
        ((echo, LOOPBACK), {"idle_timeout": -1}, ValueError, "idle_timeout"),
        ((echo, LOOPBACK), {"on_oversize": "ignore"}, ValueError, "on_oversize"),
        ((echo, LOOPBACK), {"codec": "u4"}, TypeError, "codec"),
        ((echo, LOOPBACK, Codec.uint(2)), {"codec": Codec.uint(2)}, TypeError, "twice"),
    ],
)
def test_serve_refuses_a_wrong_argument_and_says_why(
    arguments: Any, named: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        framecodec.serve(*arguments, **named)


def test_max_connections_leaves_more_clients_unaccepted() -> None:
    with framecodec.serve(echo, LOOPBACK, max_connections=2) as server:
        with contextlib.ExitStack() as stack:
            conns = [stack.enter_context(dial(server.address)) for _ in range(3)]
            for conn in conns:
                conn.send(b"a")
            assert [conn.recv() for conn in conns[:2]] == [b"a", b"a"]
            conns[2].settimeout(0.05)
            with pytest.raises(TimeoutError):
                conns[2].recv()
            assert len(server.connections) == 2
            conns[0].close()
            conns[2].settimeout(PATIENCE)
            assert conns[2].recv() == b"a"


# --- what clients do wrong ------------------------------------------------------------------------


def send_garbage(conn: FrameSocket) -> None:
    conn.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")


def end_inside_a_frame(conn: FrameSocket) -> None:
    conn.socket.sendall(b"0009half")
    conn.close()


def reset_inside_a_frame(conn: FrameSocket) -> None:
    conn.socket.sendall(b"0009half")
    reset(conn)


def leave_before_the_answer(conn: FrameSocket) -> None:
    conn.send(b"answer much")
    reset(conn)


def drip(conn: FrameSocket) -> None:
    conn.socket.sendall(b"0")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (send_garbage, "InvalidFrameError"),
        (end_inside_a_frame, "IncompleteFrameError"),
        (reset_inside_a_frame, "ConnectionResetError"),
        (leave_before_the_answer, "ConnectionResetError|BrokenPipeError"),
        (drip, "MessageTimeoutError"),
    ],
)
def test_a_clients_fault_ends_its_connection_alone_and_is_logged_once(
    fault: Callable[[FrameSocket], None], reason: str, logged: Any
) -> None:
    def handler(conn: FrameSocket) -> None:
        for message in conn:
            for _ in range(2000 if message == b"answer much" else 1):
                conn.send(message * 100)
                time.sleep(0)

    options: Any = {"message_timeout": 0.05} if fault is drip else {}
    codec = Codec.digits(4)
    with framecodec.serve(handler, LOOPBACK, codec, **options) as server:
        with dial(server.address, codec=codec) as good, dial(server.address, codec=codec) as bad:
            good.send(b"a")
            assert good.recv() == b"a" * 100
            host, port = bad.getsockname()
            until(lambda: len(server.connections) == 2)
            fault(bad)
            until(lambda: len(server.connections) == 1)
            good.send(b"b")
            assert good.recv() == b"b" * 100
    (text,) = logged()
    assert text.startswith(f"WARNING the connection from {host}:{port} ended: ")
    assert any(kind in text for kind in reason.split("|"))


def test_a_clean_end_is_not_logged(logged: Any) -> None:
    def handler(conn: FrameSocket) -> None:
        while True:
            conn.send(conn.recv())  # which raises EOFError at the end

    with framecodec.serve(handler, LOOPBACK) as server:
        with dial(server.address) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
        until(lambda: not server.connections)
    assert logged() == []


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("of the handler"),
        ConnectionRefusedError(errno.ECONNREFUSED, "of a database"),
        EOFError("of another stream"),
        framecodec.InvalidFrameError("of another stream", stream_offset=0),
    ],
)
def test_a_handlers_own_exception_is_logged_with_its_traceback(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(conn: FrameSocket) -> None:
        conn.recv()
        raise failure

    with framecodec.serve(handler, LOOPBACK) as server:
        with dial(server.address) as conn:
            conn.send(b"a")
            with pytest.raises(EOFError):
                conn.recv()
        until(lambda: not server.connections)
        with dial(server.address) as conn:  # the server still serves
            conn.send(b"a")
            with pytest.raises(EOFError):
                conn.recv()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert all(r.exc_info and r.exc_info[1] is failure for r in caplog.records)


def test_a_message_that_the_handler_cannot_send_is_its_own_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(conn: FrameSocket) -> None:
        conn.send(b"x" * 10_000)

    with framecodec.serve(handler, LOOPBACK, Codec.digits(4)) as server:
        with dial(server.address) as conn, pytest.raises(EOFError):
            conn.recv()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.exc_info[0] is framecodec.MessageTooLargeError


# --- accepting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED])
def test_accepting_resumes_after_a_fault_of_the_system(
    number: int, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, failures = socket.socket.accept, [number] * 3

    def failing(self: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "not now")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with framecodec.serve(echo, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"a")
        assert conn.recv() == b"a"
    assert len(logged()) == 3
    pauses = [text.partition("in ")[2] for text in logged()]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s"]


def test_accepting_resumes_where_no_thread_can_be_started(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with framecodec.serve(echo, LOOPBACK) as server:
        start, failures = threading.Thread.start, [1]

        def failing(self: threading.Thread) -> None:
            if failures:
                failures.pop()
                raise RuntimeError("can't start new thread")
            start(self)

        monkeypatch.setattr(threading.Thread, "start", failing)
        with dial(server.address) as conn, pytest.raises((EOFError, OSError)):
            conn.recv()
        with dial(server.address) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
    assert "can't start new thread" in logged()[0]


# --- broadcasts -----------------------------------------------------------------------------------


def test_broadcast_reaches_all_connections_and_counts_them() -> None:
    with framecodec.serve(echo, LOOPBACK, Codec.uint(2)) as server:
        with contextlib.ExitStack() as stack:
            conns = [
                stack.enter_context(dial(server.address, codec=Codec.uint(2))) for _ in range(3)
            ]
            until(lambda: len(server.connections) == 3)
            for number in range(50):
                assert server.broadcast(b"%d" % number) == 3
                conns[0].send(b"between")
            for conn in conns:
                told = []
                while len(told) < 50:
                    message = conn.recv()
                    if message != b"between":
                        told.append(message)
                assert told == [b"%d" % number for number in range(50)]
        with pytest.raises(framecodec.MessageTooLargeError):
            server.broadcast(b"x" * 70_000)


def test_broadcast_never_waits_and_ends_a_client_that_does_not_receive(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "BACKLOG_LIMIT", 300_000)
    with framecodec.serve(echo, LOOPBACK) as server:
        with dial(server.address) as slow, dial(server.address) as good:
            until(lambda: len(server.connections) == 2)
            message = b"x" * 100_000
            sent = 0
            while server.broadcast(message) == 2:
                sent += 1
                assert good.recv() == message
                assert sent < 1000
            assert good.recv() == message
            until(lambda: len(server.connections) == 1)
            # What had left arrives.
            with contextlib.suppress(OSError, EOFError):
                assert set(slow) <= {message}
    (text,) = logged()
    assert "broadcast messages wait" in text
    assert "the limit is 300000" in text


def test_what_was_broadcast_before_the_close_arrives() -> None:
    with framecodec.serve(echo, LOOPBACK) as server, dial(server.address) as conn:
        until(lambda: server.connections)
        assert server.broadcast(b"good-bye") == 1
        server.close()
        assert conn.recv() == b"good-bye"
        with pytest.raises(EOFError):
            conn.recv()


def test_broadcast_survives_a_time_out_that_the_handler_has_set() -> None:
    def handler(conn: FrameSocket) -> None:
        conn.settimeout(0.01)
        while True:
            with contextlib.suppress(TimeoutError):
                conn.recv()

    with framecodec.serve(handler, LOOPBACK) as server, dial(server.address) as conn:
        until(lambda: server.connections)
        message = b"x" * 10_000_000
        assert server.broadcast(message) == 1
        time.sleep(0.1)
        assert conn.recv() == message


# --- the end --------------------------------------------------------------------------------------


def test_close_ends_idle_connections_at_once_and_handlers_see_the_end_of_the_stream(
    logged: Any,
) -> None:
    ends: list[str] = []

    def handler(conn: FrameSocket) -> None:
        try:
            conn.recv()
        except EOFError:
            ends.append("EOFError")
            conn.send(b"bye")

    server = framecodec.serve(handler, LOOPBACK)
    with dial(server.address) as one, dial(server.address) as two:
        until(lambda: len(server.connections) == 2)
        began = time.monotonic()
        server.close(grace=PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2
        assert ends == ["EOFError"] * 2
        assert one.recv() == two.recv() == b"bye"
        with pytest.raises(EOFError):
            one.recv()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, timeout=1).close()
    assert not server.connections
    assert logged() == []
    server.close()


def test_close_lets_a_running_handler_finish() -> None:
    inside, leave = threading.Event(), threading.Event()

    def handler(conn: FrameSocket) -> None:
        message = conn.recv()
        inside.set()
        leave.wait(PATIENCE)
        conn.send(b"done " + message)

    server = framecodec.serve(handler, LOOPBACK)
    with dial(server.address) as conn:
        conn.send(b"it")
        assert inside.wait(PATIENCE)
        threading.Timer(0.05, leave.set).start()
        server.close(grace=PATIENCE)
        assert conn.recv() == b"done it"


def test_close_stops_receiving_from_a_client_that_never_pauses(logged: Any) -> None:
    received = 0

    def handler(conn: FrameSocket) -> None:
        nonlocal received
        for _ in conn:
            received += 1
        conn.send(b"bye")

    server = framecodec.serve(handler, LOOPBACK)
    with dial(server.address) as conn:
        stop = threading.Event()

        def flood() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    conn.send_many([b"x" * 1000] * 100)

        thread = threading.Thread(target=flood)
        thread.start()
        until(lambda: received > 1000)
        server.close(grace=PATIENCE / 2)
        stop.set()
        thread.join()
    assert logged() == []


def test_close_aborts_what_does_not_end_within_the_grace(logged: Any) -> None:
    inside = threading.Event()

    def handler(conn: FrameSocket) -> None:
        inside.set()
        while True:
            conn.send(b"x" * 100_000)  # to a client that does not receive

    server = framecodec.serve(handler, LOOPBACK)
    with dial(server.address):
        assert inside.wait(PATIENCE)
        server.close(grace=0.05)
        assert not server.connections
    (text,) = logged()
    assert "aborted 1 connections" in text
    assert "grace of 0.05 s" in text


def test_close_leaves_a_thread_that_does_not_end_and_says_so(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "AFTER_ABORT", 0.05)
    inside, leave = threading.Event(), threading.Event()

    def handler(conn: FrameSocket) -> None:
        inside.set()
        leave.wait(PATIENCE)

    server = framecodec.serve(handler, LOOPBACK)
    with dial(server.address):
        assert inside.wait(PATIENCE)
        server.close(grace=0)
        assert "1 threads, which are daemons" in logged()[1]
        leave.set()
        until(lambda: not server.connections)


def test_a_handler_may_close_its_server() -> None:
    def handler(conn: FrameSocket) -> None:
        conn.recv()
        server.close()
        conn.send(b"closed")

    server = framecodec.serve(handler, LOOPBACK)
    with dial(server.address) as conn:
        conn.send(b"stop")
        assert conn.recv() == b"closed"
    server.serve_forever()  # returns, because the server is closed


def test_close_refuses_a_grace_that_is_not_a_number_of_seconds() -> None:
    with framecodec.serve(echo, LOOPBACK) as server:
        for grace in (-1, float("nan")):
            with pytest.raises(ValueError, match="grace"):
                server.close(grace)


SERVER = """
import threading
import framecodec

def echo(conn):
    for message in conn:
        conn.send(message)

with framecodec.serve(echo, ("127.0.0.1", 0)) as server:
    # When the main thread waits in serve_forever().
    threading.Timer(0.3, print, (server.address[1],), {"flush": True}).start()
    server.serve_forever()
print("ended", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to another process")
def test_control_c_ends_serve_forever_while_a_client_is_idle() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with dial(("127.0.0.1", port)) as conn:
                conn.send(b"a")
                assert conn.recv() == b"a"
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (output, errors, process.returncode) == ("ended\n", "", 0)


def test_no_descriptor_is_left(fd_count: Callable[[], int]) -> None:
    before = fd_count()
    for _ in range(3):
        with framecodec.serve(echo, LOOPBACK) as server, dial(server.address) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
            server.broadcast(b"b")
    until(lambda: fd_count() == before)


# --- observers ------------------------------------------------------------------------------------


def test_an_observer_sees_connections_and_what_it_raises_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def connection_opened(self, conn: Any) -> None:
            self.seen.append("opened")
            raise RuntimeError("of the observer")

        def connection_closed(self, conn: Any, error: Any) -> None:
            self.seen.append(type(error))

    watcher = Watcher()
    with framecodec.serve(echo, LOOPBACK, observer=watcher) as server:
        with dial(server.address) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
        until(lambda: len(watcher.seen) == 2)
        with dial(server.address) as conn:
            conn.socket.sendall(b"\0")
        until(lambda: len(watcher.seen) == 4)
    assert watcher.seen == [
        "opened",
        type(None),
        "opened",
        framecodec.IncompleteFrameError,
    ]
    texts = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert texts == ["the observer's method connection_opened() failed"] * 2


@pytest.mark.parametrize("with_observer", [False, True])
def test_connections_of_which_no_frame_is_observed_are_plain_ones(with_observer: bool) -> None:
    """A connection that tells an observer of each frame takes twice the time."""

    class Watcher:
        def connection_opened(self, conn: object) -> None:
            opened.append(conn)

    kinds: list[type] = []
    opened: list[object] = []

    def handler(conn: framecodec.FrameSocket) -> None:
        kinds.append(type(conn))
        echo(conn)

    observer = Watcher() if with_observer else None
    with framecodec.serve(handler, LOOPBACK, observer=observer) as server:
        with framecodec.connect(server.address) as conn:
            conn.send(b"hello")
            assert conn.recv() == b"hello"
            assert type(conn) is framecodec.FrameSocket
    assert kinds == [framecodec.FrameSocket]
    assert len(opened) == with_observer


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def test_serve_over_tls_survives_clients_that_do_not_speak_it(
    contexts: tuple[Any, Any], logged: Any
) -> None:
    server_context, client_context = contexts
    with framecodec.serve(echo, "tls://127.0.0.1:0", ssl=server_context) as server:
        with (
            socket.create_connection(server.address) as silent,
            socket.create_connection(server.address) as plain,
            socket.create_connection(server.address) as raw,
        ):
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            # The silent one holds up nothing.
            with FrameSocket(client_context.wrap_socket(raw, server_hostname="localhost")) as conn:
                conn.settimeout(PATIENCE)
                for size in (1, 100_000):
                    conn.send(b"x" * size)
                    assert conn.recv() == b"x" * size
                until(logged)
                assert logged()[0].startswith("WARNING the connection from 127.0.0.1:")
                assert "SSL" in logged()[0]
                server.close(grace=PATIENCE)
                with pytest.raises(EOFError):
                    conn.recv()
            assert silent.recv(100) == b""
    assert len(logged()) == 1


def test_backlog_limit_is_what_the_documentation_says() -> None:
    assert common.BACKLOG_LIMIT == 16 * 1024 * 1024


def test_an_interrupt_in_a_handler_ends_serve_forever(caplog: Any) -> None:
    """With gevent, Ctrl-C interrupts the greenlet that runs."""

    def handler(conn: FrameSocket) -> None:
        conn.recv()
        raise KeyboardInterrupt

    with framecodec.serve(handler, LOOPBACK) as server:
        with framecodec.connect(server.address, timeout=PATIENCE) as client:
            client.send(b"Ctrl-C")
            server.serve_forever()
            assert list(client) == []
    assert "failed" not in caplog.text


PATCHED = """
import sys, types
monkey = types.ModuleType("gevent.monkey")
monkey.is_module_patched = lambda name: name == "threading"
sys.modules["gevent.monkey"] = monkey
import framecodec
from framecodec.serving import _messages_loop_py
with framecodec.serve_messages(lambda conn, messages: messages, ("127.0.0.1", 0)) as server:
    with framecodec.connect(server.address, timeout=30) as client:
        client.send(b"hello")
        print(client.recv(), type(server._loop).__module__)
"""


def test_serve_messages_waits_in_python_where_gevent_has_patched_threading() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PATCHED], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "b'hello' framecodec.serving._messages_loop_py\n"


@pytest.mark.c_extension
@pytest.mark.skipif(
    sys.platform != "linux" or "t" in sys.abiflags, reason="the compiled loop needs epoll and a GIL"
)
def test_serve_messages_warns_where_the_compiled_loop_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> Any:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.warns(RuntimeWarning, match=r"slower, because .*_messages_loop cannot be loaded"):
        module = messages._choose_loop()
    assert module.__name__ == "framecodec.serving._messages_loop_py"


# --- what is rare ---------------------------------------------------------------------------------


def test_serve_forever_continues_while_no_interrupt_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait, waits = common.Ending.wait, []

    def short_wait(ending: common.Ending, timeout: float) -> bool:
        waits.append(timeout)
        return wait(ending, 0.001)

    with framecodec.serve(echo, LOOPBACK) as server:
        with monkeypatch.context() as patch:
            patch.setattr(common.Ending, "wait", short_wait)
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            until(lambda: len(waits) > 3)
            assert serving.is_alive()
        server.close()
        serving.join(PATIENCE)
        assert not serving.is_alive()


def test_repr_names_the_address_and_the_state() -> None:
    with framecodec.serve(echo, LOOPBACK) as server:
        host, port = server.address
        assert repr(server) == f"<Server {host}:{port}, 0 connections>"
    assert repr(server) == f"<Server {host}:{port}, closed>"


def test_a_server_whose_thread_cannot_start_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, fd_count: Callable[[], int]
) -> None:
    before = fd_count()
    with refused_threads(monkeypatch):
        framecodec.serve(echo, LOOPBACK)
    assert fd_count() == before


def test_another_process_that_was_faster_is_no_fault(logged: Any) -> None:
    with framecodec.serve(echo, LOOPBACK) as server:
        assert server._accept() is False
    assert logged() == []


def test_a_server_accepts_after_another_process_was_faster(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    accept, results = threads.Server._accept, [False]

    def accept_second(server: Any) -> bool:
        return results.pop() if results else accept(server)

    monkeypatch.setattr(threads.Server, "_accept", accept_second)
    with framecodec.serve(echo, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"a")
        assert conn.recv() == b"a"
    assert results == logged() == []


def test_a_log_handler_may_close_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in the thread that accepts, which close() cannot wait for."""

    def fail(server: Any) -> bool:
        raise OSError(errno.EMFILE, "too many open files")

    class Closing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            server.close()

    monkeypatch.setattr(threads.Server, "_accept", fail)
    handler = Closing()
    logger = logging.getLogger("framecodec")
    logger.addHandler(handler)
    try:
        server = framecodec.serve(echo, LOOPBACK)
        with contextlib.suppress(OSError), dial(server.address):
            assert server._ended.wait(PATIENCE)
    finally:
        logger.removeHandler(handler)
    assert repr(server).endswith("closed>")


def test_a_listening_socket_that_fails_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    def fail(server: Any) -> bool:
        raise OSError(errno.EBADF, "bad file descriptor")

    monkeypatch.setattr(threads.Server, "_accept", fail)
    with framecodec.serve(echo, LOOPBACK) as server:
        with contextlib.suppress(OSError), dial(server.address):
            pass
        assert server._ended.wait(PATIENCE)
    assert "stopped listening" in logged()[0]


def test_a_connection_that_comes_while_the_server_closes_receives_nothing() -> None:
    with framecodec.serve(echo, LOOPBACK) as server:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"\0\0\0\1a")
            server._closing = True
            conn = server._open(threads._Served(ours, "a client"))
            with conn, pytest.raises(EOFError):
                conn.recv()
            server._closing = False


def test_a_failure_outside_of_the_handler_is_logged(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    class Interrupted(BaseException):
        pass

    def fail(*_: Any) -> None:
        raise Interrupted

    with framecodec.serve(echo, LOOPBACK) as server:
        with monkeypatch.context() as patch:
            patch.setattr(threads.Server, "_handle", fail)
            with dial(server.address) as conn, pytest.raises((EOFError, ConnectionError)):
                conn.recv()
            until(logged)
        with dial(server.address) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
    assert len(logged()) == 1


def test_SystemExit_of_a_handler_ends_its_connection_quietly(logged: Any) -> None:
    def leave(conn: FrameSocket) -> None:
        conn.recv()
        sys.exit(1)

    with framecodec.serve(leave, LOOPBACK) as server:
        with dial(server.address) as conn:
            conn.send(b"a")
            with pytest.raises(EOFError):
                conn.recv()
    assert logged() == []


def test_broadcast_uses_the_codec_that_a_handler_has_chosen() -> None:
    switched = threading.Event()

    def switch(conn: FrameSocket) -> None:
        conn.switch(Codec.uint(1))
        switched.set()
        conn.recv()

    with framecodec.serve(switch, LOOPBACK) as server:
        with dial(server.address, codec=Codec.uint(1)) as conn:
            assert switched.wait(PATIENCE)
            assert server.broadcast(b"hello") == 1
            assert conn.recv() == b"hello"


def test_broadcast_passes_over_connections_that_have_ended(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    class Gone:
        """A connection that ends while a broadcast looks at it."""

        looks = 0

        @property
        def conn(self) -> Any:
            self.looks += 1
            return object() if self.looks == 1 else None

    with framecodec.serve(echo, LOOPBACK) as server:
        gone: Any = Gone()
        server._served.add(gone)
        assert server.broadcast(b"a") == 0
        server._served.discard(gone)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            served = threads._Served(ours, "a client")
            served.conn = FrameSocket(ours)
            served.abort()
            assert served.broadcast(b"a") is False
    assert logged() == []


def test_a_failure_of_the_sending_thread_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("no frames")

    monkeypatch.setattr(threads, "_send_frames", fail)
    with framecodec.serve(echo, LOOPBACK) as server, dial(server.address) as conn:
        until(lambda: server.connections)
        assert server.broadcast(b"a") == 1
        with pytest.raises((EOFError, ConnectionError)):
            conn.recv()
        until(logged)
    assert "LookupError" in logged()[0] or "handler" in logged()[0]


def test_broadcasts_that_do_not_leave_end_with_their_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_LAST_BROADCASTS", 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        served = threads._Served(ours, "a client")
        served.conn = FrameSocket(ours)
        while served.broadcast(bytes(100_000)):
            if served._size > 500_000:
                break
        served.finish_broadcasts()
        assert served.aborted
        assert served._sender is not None
        served._sender.join(PATIENCE)
        assert not served._sender.is_alive()


def test_a_broadcast_to_a_connection_that_has_just_ended_is_dropped() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        served = threads._Served(ours, "a client")  # whose handler has returned
        served.broadcast(b"late")
        assert served._sender is not None
        served._sender.join(PATIENCE)
        assert not served._sender.is_alive()
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_frames_are_not_sent_on_a_connection_that_its_handler_has_closed() -> None:
    class Closed:
        closed = True

        class _sending:
            class outbox:
                put_bytes = None

            @staticmethod
            def send_all(*_: Any) -> None:
                raise TimeoutError

    with pytest.raises(ConnectionAbortedError, match="closed"):
        threads._send_frames(Closed(), b"")  # type: ignore[arg-type]
