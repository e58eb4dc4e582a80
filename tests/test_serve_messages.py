"""`serve_messages`: one thread for all connections, and clients that do everything wrong.

Each test runs on both twins of the loop.
"""

# ruff: noqa: SIM117 (a server and its clients are two levels)

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec, FrameSocket
from framecodec.serving import _message_steps_py, _messages_loop_py
from framecodec.serving import messages as messages_module
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.fault_injection import reset
from tests.helpers.servers import (
    LOOPBACK,
    PATIENCE,
    AsyncHandler,
    dial,
    until,
)


@pytest.fixture(autouse=True)
def twin(message_loop: Any) -> Any:
    """The module of the loop."""
    return message_loop


def echo(conn: Any, messages: list[bytes]) -> list[bytes]:
    return messages


# --- serving --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codec",
    [
        Codec.uint(4),
        Codec.digits(5),
        Codec.varint(),
        Codec.headers(),
        Codec.text(b":", trailer=b","),
    ],
    ids=str,
)
def test_serve_messages_echoes_messages_of_every_size(codec: Codec) -> None:
    sizes = [0, 1, 2, 100, 5000, 65_535, 65_536, 99_999]
    if codec != Codec.digits(5):
        sizes += [200_000, 3_000_000]
    with framecodec.serve_messages(echo, LOOPBACK, codec) as server:
        with dial(server.address, codec=codec) as conn:
            for size in sizes:
                message = bytes(i & 0xFF for i in range(size)) if size < 1000 else b"xyz" * size
                message = message[:size]
                conn.send(message)
                assert conn.recv() == message
            conn.send_many([b"a", b"bc", b""] * 100)
            assert [conn.recv() for _ in range(300)] == [b"a", b"bc", b""] * 100


def test_the_handler_gets_all_messages_of_one_receive_and_may_reply_in_every_form() -> None:
    forms: list[Callable[[list[bytes]], Any]] = [
        lambda messages: messages,
        tuple,
        iter,
        lambda messages: (message for message in messages),
        lambda messages: [bytearray(message) for message in messages],
        lambda messages: [memoryview(message) for message in messages],
        lambda messages: None,
        lambda messages: [],
    ]
    got: list[int] = []

    def handle(conn: Any, messages: list[bytes]) -> Any:
        got.append(len(messages))
        return forms[conn.state](messages)

    class Opener:
        number = -1

        def connection_opened(self, conn: Any) -> None:
            Opener.number += 1
            conn.state = Opener.number

    with framecodec.serve_messages(handle, LOOPBACK, observer=Opener()) as server:
        for number in range(len(forms)):
            with dial(server.address) as conn:
                conn.send_many([b"one", b"two"])
                if number < 6:
                    assert [conn.recv(), conn.recv()] == [b"one", b"two"]
                conn.shutdown(socket.SHUT_WR)
                with pytest.raises(EOFError):
                    conn.recv()
    assert got == [2] * len(forms)


def test_the_handler_may_send_before_it_returns_replies() -> None:
    def handle(conn: Any, messages: list[bytes]) -> Any:
        conn.send(b"first")
        conn.send_many([b"second", b"third"])
        return [b"reply " + message for message in messages]

    with framecodec.serve_messages(handle, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"a")
        assert [conn.recv() for _ in range(4)] == [b"first", b"second", b"third", b"reply a"]


def test_the_connection_names_its_client_and_keeps_a_state() -> None:
    seen: list[Any] = []

    def handle(conn: Any, messages: list[bytes]) -> Any:
        conn.state = (conn.state or 0) + len(messages)
        seen.append((conn.peer, conn.closed, conn.pending_send, conn.fileno() > 0))
        return [b"%d" % conn.state]

    with framecodec.serve_messages(handle, LOOPBACK) as server, dial(server.address) as conn:
        for number in range(1, 4):
            conn.send(b"a")
            assert conn.recv() == b"%d" % number
        assert seen == [(conn.getsockname(), False, 0, True)] * 3
        (served,) = server.connections
        assert served.state == 3
        assert "open" in repr(served)
        with pytest.raises(TypeError):
            served.__reduce__()
    until(lambda: served.closed)
    assert served.fileno() == -1
    assert "closed" in repr(served)
    for call in (lambda: served.send(b"a"), lambda: served.send_many([b"a"])):
        with pytest.raises(ConnectionAbortedError):
            call()
    served.close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_serve_messages_on_a_unix_socket(tmp_path: Path, logged: Any) -> None:
    path = str(tmp_path / "s")
    with framecodec.serve_messages(echo, f"unix:{path}", codec=Codec.digits(4)) as server:
        assert server.address == path
        with dial(path, codec=Codec.digits(4)) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
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
        ((echo, "tls://127.0.0.1:0"), {}, ValueError, r"serve\(\)"),
        ((echo, LOOPBACK), {"ssl": object()}, ValueError, "start_server"),
        ((echo, LOOPBACK), {"max_connections": 0}, ValueError, "at least 1"),
        ((echo, LOOPBACK), {"idle_timeout": -1}, ValueError, "idle_timeout"),
        ((echo, LOOPBACK), {"message_timeout": 0}, ValueError, "message_timeout"),
        ((echo, LOOPBACK), {"on_oversize": "ignore"}, ValueError, "on_oversize"),
        ((echo, LOOPBACK), {"codec": "u4"}, TypeError, "codec"),
    ],
)
def test_serve_messages_refuses_a_wrong_argument_and_says_why(
    arguments: Any, named: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        framecodec.serve_messages(*arguments, **named)


def test_max_connections_leaves_more_clients_unaccepted() -> None:
    with framecodec.serve_messages(echo, LOOPBACK, max_connections=2) as server:
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


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT")
def test_two_servers_share_a_port_with_reuse_port() -> None:
    with framecodec.serve_messages(echo, LOOPBACK, reuse_port=True) as one:
        with framecodec.serve_messages(echo, one.address, reuse_port=True) as two:
            for _ in range(20):
                with dial(two.address) as conn:
                    conn.send(b"a")
                    assert conn.recv() == b"a"


# --- what clients do wrong ------------------------------------------------------------------------


def send_garbage(conn: FrameSocket) -> None:
    conn.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")


def end_inside_a_frame(conn: FrameSocket) -> None:
    conn.socket.sendall(b"0009half")
    conn.close()


def reset_inside_a_frame(conn: FrameSocket) -> None:
    conn.socket.sendall(b"0009half")
    reset(conn)


def drip(conn: FrameSocket) -> None:
    conn.socket.sendall(b"0")


def be_quiet(conn: FrameSocket) -> None:
    pass


@pytest.mark.parametrize(
    ("fault", "limits", "reason"),
    [
        (send_garbage, {}, "InvalidFrameError"),
        (end_inside_a_frame, {}, "IncompleteFrameError"),
        (reset_inside_a_frame, {}, "ConnectionResetError"),
        (drip, {"message_timeout": 0.05}, "MessageTimeoutError"),
        (be_quiet, {"idle_timeout": 0.4}, "IdleTimeoutError"),
    ],
)
def test_a_clients_fault_ends_its_connection_alone_and_is_logged_once(
    fault: Callable[[FrameSocket], None], limits: Any, reason: str, logged: Any
) -> None:
    codec = Codec.digits(4)
    with framecodec.serve_messages(echo, LOOPBACK, codec, **limits) as server:
        with dial(server.address, codec=codec) as good, dial(server.address, codec=codec) as bad:
            for conn in (good, bad):
                conn.send(b"a")
                assert conn.recv() == b"a"
            host, port = bad.getsockname()
            fault(bad)

            def only_one_is_left() -> bool:
                good.send(b"b")
                return good.recv() == b"b" and len(server.connections) == 1

            until(only_one_is_left)
    (text,) = logged()
    assert text.startswith(f"WARNING the connection from {host}:{port} ended: {reason}")


def test_messages_before_a_bad_frame_are_answered() -> None:
    codec = Codec.digits(4)
    with framecodec.serve_messages(echo, LOOPBACK, codec) as server:
        with dial(server.address, codec=codec) as conn:
            conn.socket.sendall(codec.encode_many([b"one", b"two"]) + b"nope" + b"x" * 100_000)
            assert [conn.recv(), conn.recv()] == [b"one", b"two"]
            with pytest.raises(EOFError):
                conn.recv()
        until(lambda: not server.connections)


def test_a_client_that_ends_its_sending_gets_all_its_replies(logged: Any) -> None:
    with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
        messages = [b"%d" % number * 1000 for number in range(5000)]
        sender = threading.Thread(
            target=lambda: (conn.send_many(messages), conn.shutdown(socket.SHUT_WR))
        )
        sender.start()
        assert list(conn) == messages
        sender.join()
    assert logged() == []


def test_a_slow_reader_is_not_read_from_until_its_replies_have_left(logged: Any) -> None:
    message = b"x" * 60_000
    count = 0

    def handle(conn: Any, messages: list[bytes]) -> Any:
        nonlocal count
        count += len(messages)
        return messages

    with framecodec.serve_messages(handle, LOOPBACK) as server:
        with dial(server.address) as slow, dial(server.address) as good:
            slow.settimeout(0)
            sent = 0
            quiet_since = time.monotonic()
            while time.monotonic() - quiet_since < 0.2:  # the server takes no more
                try:
                    slow.flush()
                    slow.send(message)
                    sent += 1
                except BlockingIOError as error:
                    sent += getattr(error, "message_started", False)
                    good.send(b"a")
                    assert good.recv() == b"a"  # others are served meanwhile
                    time.sleep(0.01)
                else:
                    quiet_since = time.monotonic()
                assert sent < 10_000
            served = [conn for conn in server.connections if conn.pending_send]
            assert len(served) == 1
            # The replies to one receive, of which the kernel has taken some.
            assert served[0].pending_send <= 128 * 1024 + 2 * len(message)
            slow.settimeout(PATIENCE)
            flusher = threading.Thread(target=slow.flush)
            flusher.start()
            for _ in range(sent):
                assert slow.recv() == message
            flusher.join()
            good.send(b"b")
            assert good.recv() == b"b"
    assert logged() == []


def test_a_flood_does_not_starve_another_client() -> None:
    stop = threading.Event()
    answered = []

    def handle(conn: Any, messages: list[bytes]) -> Any:
        return messages if messages[0] == b"ping" else None

    with framecodec.serve_messages(handle, LOOPBACK) as server:
        with dial(server.address) as flooding, dial(server.address) as polite:

            def flood() -> None:
                batch = [b"x" * 10] * 20_000
                with contextlib.suppress(OSError):
                    while not stop.is_set():
                        flooding.send_many(batch)

            thread = threading.Thread(target=flood)
            thread.start()
            try:
                for _ in range(50):
                    polite.send(b"ping")
                    answered.append(polite.recv())
            finally:
                stop.set()
                thread.join()
    assert answered == [b"ping"] * 50


def test_every_cut_of_the_stream_gives_the_same_replies() -> None:
    codec = Codec.digits(2)
    data = codec.encode_many([b"a", b"", b"bcd"])
    with framecodec.serve_messages(echo, LOOPBACK, codec) as server:
        for cut in range(1, len(data)):
            with dial(server.address, codec=codec) as conn:
                conn.socket.sendall(data[:cut])
                time.sleep(0.001)
                conn.socket.sendall(data[cut:])
                assert [conn.recv() for _ in range(3)] == [b"a", b"", b"bcd"]


def test_a_large_message_in_small_pieces_arrives_whole() -> None:
    message = bytes(range(256)) * 2000
    data = Codec.uint(4).encode(message)
    with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

        def send() -> None:
            for start in range(0, len(data), 7001):
                conn.socket.sendall(data[start : start + 7001])

        thread = threading.Thread(target=send)
        thread.start()
        assert conn.recv() == message
        thread.join()


# --- time limits ----------------------------------------------------------------------------------


def test_the_time_of_a_slow_handler_is_not_the_clients() -> None:
    inside = threading.Event()

    def handle(conn: Any, messages: list[bytes]) -> Any:
        if messages == [b"wait"]:
            inside.set()
            time.sleep(0.5)
        return messages

    with framecodec.serve_messages(handle, LOOPBACK, message_timeout=0.3) as server:
        with dial(server.address) as waiting, dial(server.address) as other:
            frame = Codec.uint(4).encode(b"in two parts")
            other.socket.sendall(frame[:6])
            until(lambda: len(server.connections) == 2)
            waiting.send(b"wait")
            assert inside.wait(PATIENCE)
            other.socket.sendall(frame[6:])  # in time; the server sees it late
            assert waiting.recv() == b"wait"
            assert other.recv() == b"in two parts"


def test_a_paused_client_is_not_idle(logged: Any) -> None:
    with framecodec.serve_messages(echo, LOOPBACK, idle_timeout=0.1) as server:
        with dial(server.address) as conn:
            message = b"x" * 8_000_000
            sender = threading.Thread(target=conn.send, args=(message,))
            sender.start()
            until(lambda: any(one.pending_send for one in server.connections))
            time.sleep(0.3)
            assert conn.recv() == message
            sender.join()
            with pytest.raises(EOFError):  # now it is idle
                conn.recv()
    assert len(logged()) == 1
    assert "IdleTimeoutError" in logged()[0]


# --- the handler ----------------------------------------------------------------------------------


class Leave(BaseException):
    pass


@pytest.mark.parametrize(
    "failure",
    [ValueError("of the handler"), ConnectionResetError(), MemoryError(), Leave(), SystemExit(3)],
    ids=lambda failure: type(failure).__name__,
)
def test_a_handlers_exception_is_logged_and_ends_its_connection_alone(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(conn: Any, messages: list[bytes]) -> Any:
        if messages == [b"fail"]:
            conn.send(b"before")
            raise failure
        return messages

    with framecodec.serve_messages(handle, LOOPBACK) as server:
        with dial(server.address) as good, dial(server.address) as bad:
            bad.send(b"fail")
            assert bad.recv() == b"before"
            with pytest.raises(EOFError):
                bad.recv()
            good.send(b"a")
            assert good.recv() == b"a"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.exc_info[1] is failure


@pytest.mark.parametrize(
    "reply",
    [
        lambda: ["text"],
        lambda: [b"x" * 100_000],
        lambda: 5,
        lambda: (1 // 0 for _ in "a"),
        lambda: [b"a", None],
    ],
)
def test_a_reply_that_cannot_be_sent_is_the_handlers_fault(
    reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with framecodec.serve_messages(lambda *_: reply(), LOOPBACK, Codec.uint(2)) as server:
        with dial(server.address, codec=Codec.uint(2)) as conn:
            conn.send(b"a")
            with pytest.raises(EOFError):
                conn.recv()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_handler_may_close_its_connection_and_its_replies_still_leave(logged: Any) -> None:
    def handle(conn: Any, messages: list[bytes]) -> Any:
        conn.send(b"before")
        conn.close()
        with pytest.raises(ConnectionAbortedError):
            conn.send(b"after")
        assert conn.closed
        return [b"bye" * 1_000_000]

    with framecodec.serve_messages(handle, LOOPBACK) as server, dial(server.address) as conn:
        conn.send_many([b"one", b"two"])
        assert conn.recv() == b"before"
        assert conn.recv() == b"bye" * 1_000_000
        with pytest.raises(EOFError):
            conn.recv()
        assert not server.connections
    assert logged() == []


def test_a_handler_may_close_other_connections_that_are_ready_in_the_same_turn() -> None:
    called: list[Any] = []

    def handle(conn: Any, messages: list[bytes]) -> Any:
        called.append(conn)
        time.sleep(0.05)  # until all are ready
        for other in server.connections - {conn}:
            other.close()
        return messages

    server = framecodec.serve_messages(handle, LOOPBACK)
    with server, contextlib.ExitStack() as stack:
        conns = [stack.enter_context(dial(server.address)) for _ in range(10)]
        until(lambda: len(server.connections) == 10)
        for conn in conns:
            conn.send(b"a")
        ends = []
        for conn in conns:
            try:
                ends.append(conn.recv())
            except (EOFError, OSError):
                ends.append(None)
        assert ends.count(b"a") == 1
        assert len(called) == 1
        until(lambda: len(server.connections) == 1)


def test_a_connection_that_only_the_handler_holds_is_freed() -> None:
    class State:
        pass

    states: list[Any] = []

    def handle(conn: Any, messages: list[bytes]) -> Any:
        conn.state = State()
        conn.state.conn = conn  # a cycle
        states.append(weakref.ref(conn.state))
        return messages

    with framecodec.serve_messages(handle, LOOPBACK) as server:
        for _ in range(3):
            with dial(server.address) as conn:
                conn.send(b"a")
                assert conn.recv() == b"a"
        until(lambda: not server.connections)
        with dial(server.address) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"

        def all_are_freed() -> bool:
            gc.collect()
            return [ref() for ref in states[:3]] == [None] * 3

        until(all_are_freed)


def test_a_custom_codec_whose_functions_use_the_connection() -> None:
    holder: list[Any] = []

    def parse(view: Any) -> Any:
        for server in holder:
            server.broadcast(b"x")
            for conn in server.connections:
                assert conn.pending_send >= 0
        return (1, view[0]) if len(view) else None

    def build(message: Any) -> bytes:
        for server in holder:
            assert server.connections
        return bytes([len(message)])

    codec = Codec.custom(parse, build)
    with framecodec.serve_messages(echo, LOOPBACK, codec) as server:
        with dial(server.address, codec=Codec.uint(1)) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
            holder.append(server)
            conn.send_many([b"b", b"c"])
            got = [conn.recv() for _ in range(3)]
            holder.clear()
            assert b"x" in got


# --- other threads --------------------------------------------------------------------------------


def test_other_threads_send_close_and_broadcast_while_messages_are_served() -> None:
    with framecodec.serve_messages(echo, LOOPBACK) as server:
        with contextlib.ExitStack() as stack:
            conns = [stack.enter_context(dial(server.address)) for _ in range(4)]
            until(lambda: len(server.connections) == 4)
            threads = []

            def push(served: Any) -> None:
                for number in range(300):
                    served.send(b"pushed %d" % number)

            def tell() -> None:
                for number in range(300):
                    assert server.broadcast(b"told %d" % number) == 4

            for served in server.connections:
                threads.append(threading.Thread(target=push, args=(served,)))
            threads.append(threading.Thread(target=tell))
            for thread in threads:
                thread.start()
            for conn in conns:
                for number in range(300):
                    conn.send(b"echo %d" % number)
            for conn in conns:
                got = [conn.recv() for _ in range(900)]
                for word in (b"pushed", b"told", b"echo"):
                    expected = [word + b" %d" % number for number in range(300)]
                    assert [message for message in got if message.startswith(word)] == expected
            for thread in threads:
                thread.join()
            for served in server.connections:
                served.send(b"last")
                served.close()
            for conn in conns:
                assert conn.recv() == b"last"
                with pytest.raises(EOFError):
                    conn.recv()


def test_broadcast_ends_a_client_that_does_not_receive(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages_module, "BACKLOG_LIMIT", 300_000)
    with framecodec.serve_messages(echo, LOOPBACK) as server:
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
    assert "the limit is 300000" in text


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
    with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"a")
        assert conn.recv() == b"a"
    pauses = [text.partition("in ")[2] for text in logged()]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s"]


def test_a_server_whose_listening_socket_fails_still_serves_its_connections(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, failures = socket.socket.accept, [0]

    def failing(self: socket.socket) -> Any:
        failures[0] += 1
        if failures[0] > 2:
            raise OSError(errno.EINVAL, "not listening")
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"a")
        assert conn.recv() == b"a"
        with contextlib.suppress(OSError), socket.create_connection(server.address, PATIENCE):
            until(logged)
        conn.send(b"b")
        assert conn.recv() == b"b"
    assert len(logged()) == 1
    assert "stopped listening" in logged()[0]


# --- the end --------------------------------------------------------------------------------------


def test_close_ends_idle_connections_at_once(logged: Any) -> None:
    server = framecodec.serve_messages(echo, LOOPBACK)
    with dial(server.address) as one, dial(server.address) as two:
        until(lambda: len(server.connections) == 2)
        began = time.monotonic()
        server.close(grace=PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2
        for conn in (one, two):
            with pytest.raises(EOFError):
                conn.recv()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, timeout=1).close()
    assert not server.connections
    assert server.broadcast(b"a") == 0
    assert logged() == []
    server.close()
    server.serve_forever()
    assert "closed" in repr(server)


def test_close_lets_what_was_sent_leave() -> None:
    server = framecodec.serve_messages(echo, LOOPBACK)
    with dial(server.address) as conn:
        until(lambda: server.connections)
        message = b"x" * 10_000_000
        assert server.broadcast(message) == 1
        closer = threading.Thread(target=server.close, args=(PATIENCE,))
        closer.start()
        assert conn.recv() == message
        with pytest.raises(EOFError):
            conn.recv()
        closer.join()


def test_close_aborts_a_client_that_does_not_take_what_was_sent(logged: Any) -> None:
    server = framecodec.serve_messages(echo, LOOPBACK)
    with dial(server.address):
        until(lambda: server.connections)
        assert server.broadcast(b"x" * 15_000_000) == 1
        server.close(grace=0.05)
        assert not server.connections
    (text,) = logged()
    assert "aborted 1 connections" in text


def test_close_leaves_a_handler_that_does_not_end_and_says_so(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages_module, "AFTER_ABORT", 0.05)
    inside, leave = threading.Event(), threading.Event()

    def handle(conn: Any, messages: list[bytes]) -> Any:
        inside.set()
        leave.wait(PATIENCE)

    server = framecodec.serve_messages(handle, LOOPBACK)
    with dial(server.address) as conn:
        conn.send(b"a")
        assert inside.wait(PATIENCE)
        server.close(grace=0)
        assert "1 threads, which are daemons" in logged()[1]
        with pytest.raises((EOFError, OSError)):
            conn.recv()
        leave.set()
        until(lambda: "closed" in repr(server))
    server.close()


def test_close_tells_of_no_connection_where_only_an_observer_does_not_return(
    logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages_module, "AFTER_ABORT", 0.05)
    inside, leave = threading.Event(), threading.Event()

    class Slow:
        def connection_closed(self, conn: Any, error: BaseException | None) -> None:
            inside.set()
            leave.wait(PATIENCE)

    server = framecodec.serve_messages(echo, LOOPBACK, observer=Slow())
    dial(server.address).close()
    assert inside.wait(PATIENCE)
    server.close(grace=0)
    (text,) = logged()
    assert "1 threads, which are daemons" in text
    leave.set()
    until(lambda: "closed" in repr(server))
    server.close()


def test_a_handler_may_close_its_server() -> None:
    def handle(conn: Any, messages: list[bytes]) -> Any:
        server.close()
        return [b"closed"]

    server = framecodec.serve_messages(handle, LOOPBACK)
    with dial(server.address) as conn:
        conn.send(b"stop")
        assert conn.recv() == b"closed"
        server.serve_forever()


SERVER = """
import threading
import framecodec
from framecodec.serving import messages
messages._loop_module = __import__(TWIN, fromlist=["MessageLoop"])
with framecodec.serve_messages(lambda conn, messages: messages, ("127.0.0.1", 0)) as server:
    # When the main thread waits in serve_forever().
    threading.Timer(0.3, print, (server.address[1],), {"flush": True}).start()
    server.serve_forever()
print("ended", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to another process")
def test_control_c_ends_serve_forever_while_a_client_is_idle(twin: Any) -> None:
    code = SERVER.replace("TWIN", repr(twin.__name__))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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


def test_no_descriptor_and_no_thread_is_left() -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("no /proc")

    def state() -> tuple[int, int]:
        gc.collect()
        return len(list(folder.iterdir())), threading.active_count()

    before = state()
    for _ in range(3):
        with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
    del server, conn
    # Descriptors and threads of earlier tests may end meanwhile.
    until(lambda: all(now <= then for now, then in zip(state(), before, strict=True)))


# --- observers ------------------------------------------------------------------------------------


def test_an_observer_sees_every_frame_with_its_size(caplog: pytest.LogCaptureFixture) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.seen: list[Any] = []
            self.connections: set[Any] = set()

        def connection_opened(self, conn: Any) -> None:
            self.seen.append("opened")
            self.connections.add(conn)

        def connection_closed(self, conn: Any, error: Any) -> None:
            self.seen.append(("closed", type(error)))

        def frame_received(self, conn: Any, size: int) -> None:
            self.seen.append(("received", size))
            raise RuntimeError("of the observer")

        def frame_sent(self, conn: Any, size: int) -> None:
            self.seen.append(("sent", size))
            self.connections.add(conn)

        def frame_discarded(self, conn: Any, error: Any) -> None:
            self.seen.append(("discarded", type(error)))
            self.connections.add(conn)

    watcher = Watcher()
    codec = Codec.digits(4, max_message_size=10)
    with framecodec.serve_messages(
        echo, LOOPBACK, codec, observer=watcher, on_oversize="skip"
    ) as server:
        with dial(server.address, codec=codec) as conn:
            conn.socket.sendall(b"0001a" + b"0011" + b"x" * 11 + b"0002bc")
            assert [conn.recv(), conn.recv()] == [b"a", b"bc"]
            assert server.broadcast(b"told") == 1
            (served,) = server.connections
            served.send(b"one")
            served.send_many([b"two", b""])
            assert [conn.recv() for _ in range(4)] == [b"told", b"one", b"two", b""]
            conn.socket.sendall(b"nope")
            with pytest.raises(EOFError):
                conn.recv()
        until(lambda: watcher.seen[-1][0] == "closed")
    assert watcher.seen == [
        "opened",
        ("received", 5),
        ("received", 6),
        ("discarded", framecodec.MessageTooLargeError),
        ("sent", 5),
        ("sent", 6),
        ("sent", 8),
        ("sent", 7),
        ("sent", 7),
        ("sent", 4),
        ("discarded", framecodec.InvalidFrameError),
        ("closed", framecodec.InvalidFrameError),
    ]
    assert watcher.connections == {served}
    failed = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert failed == ["the observer's method frame_received() failed"] * 2


def test_many_connections_come_and_go(logged: Any) -> None:
    with framecodec.serve_messages(echo, LOOPBACK) as server:
        for _ in range(10):
            with contextlib.ExitStack() as stack:
                conns = [stack.enter_context(dial(server.address)) for _ in range(40)]
                for number, conn in enumerate(conns):
                    conn.send(b"%d" % number)
                for number, conn in enumerate(conns):
                    if number % 3:
                        assert conn.recv() == b"%d" % number
                for conn in conns[::3]:
                    conn.close()
        until(lambda: not server.connections)
    # A connection that is closed with unread replies is reset: a fault, which is logged.
    assert all("ConnectionReset" in text or "BrokenPipe" in text for text in logged())


@pytest.mark.untraced
@needs_cpython_3_11
@pytest.mark.parametrize("failures", [1, 5])
def test_a_server_survives_when_memory_runs_out(failures: int, twin: Any, logged: Any) -> None:
    if failures > 1 and twin is _messages_loop_py:
        pytest.skip("Python code needs memory to handle an error")
    testcapi = pytest.importorskip("_testcapi")
    frame = Codec.uint(4).encode

    def handle(conn: Any, messages: list[bytes]) -> Any:
        if messages == [b"fail"]:
            testcapi.set_nomemory(conn.state, conn.state + failures)
            return [b"reply"] * 3
        return messages

    with framecodec.serve_messages(handle, LOOPBACK) as server:
        for number in range(1, 30):
            with socket.create_connection(server.address, PATIENCE) as failing:
                until(lambda: len(server.connections) == 1)
                for conn in server.connections:
                    conn.state = number
                try:
                    # An allocation of either thread fails.
                    failing.sendall(frame(b"fail"))
                    assert (frame(b"reply") * 3).startswith(failing.recv(100))
                except (MemoryError, ConnectionResetError):
                    pass
                finally:
                    testcapi.remove_mem_hooks()
            until(lambda: not server.connections)
            with dial(server.address) as good:
                good.send(b"hello")
                assert good.recv() == b"hello"
            until(lambda: not server.connections)


def test_silent_clients_are_ended_after_a_turn_without_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = [MemoryError(), MemoryError()]

    def fail_twice(hooks: Any, conn: Any, error: BaseException) -> None:
        if failures:
            raise failures.pop()

    # The look at the deadlines ends with the first client.
    monkeypatch.setattr(messages_module._Hooks, "fault", fail_twice)
    monkeypatch.setattr(messages_module._Hooks, "failed", fail_twice)
    with framecodec.serve_messages(echo, LOOPBACK, idle_timeout=0.1) as server:
        with dial(server.address) as one, dial(server.address) as two:
            for conn in (one, two):
                with pytest.raises(EOFError):
                    conn.recv()
    assert not failures


def test_the_loop_waits_without_using_the_processor() -> None:
    with framecodec.serve_messages(echo, LOOPBACK, idle_timeout=60) as server:
        with dial(server.address) as conn:
            conn.send(b"a")
            assert conn.recv() == b"a"
            before = time.process_time()
            time.sleep(0.3)
            assert time.process_time() - before < 0.15


# --- system calls that fail, in the Python loop ---------------------------------------------------


class Flaky:
    """A socket whose calls give what a test has planned first."""

    def __init__(self, sock: Any, **plans: list[Any]) -> None:
        self._sock = sock
        self._plans = plans

    def __getattr__(self, name: str) -> Any:
        plan = self._plans.get(name)
        method = getattr(self._sock, name)
        if not plan:
            return method

        def call(*arguments: Any) -> Any:
            step = plan.pop(0)
            if isinstance(step, BaseException):
                raise step
            if name == "send":
                return method(memoryview(arguments[0])[:step])
            return method(*arguments)

        return call


@pytest.fixture
def python_loop(twin: Any) -> None:
    if twin is not _messages_loop_py:
        pytest.skip("the compiled loop calls the kernel itself")


@pytest.mark.usefixtures("python_loop")
@pytest.mark.parametrize(
    "plan",
    [
        [BlockingIOError(errno.EAGAIN, "would block")],
        [3, BlockingIOError(errno.EAGAIN, "would block"), 2, 1],
        [InterruptedError(errno.EINTR, "interrupted"), 1],
    ],
)
def test_replies_that_the_kernel_takes_in_parts_arrive_whole(plan: list[Any]) -> None:
    plan = plan.copy()

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        if plan:
            conn._sock = Flaky(conn._sock, send=plan)
        return messages

    with framecodec.serve_messages(handle, LOOPBACK) as server, dial(server.address) as conn:
        for message in (b"first", b"second"):
            conn.send(message)
            assert conn.recv() == message
    assert plan == []


@pytest.mark.usefixtures("python_loop")
@pytest.mark.parametrize("taken", [0, 3])
def test_a_message_of_another_thread_follows_the_reply_that_is_being_sent(taken: int) -> None:
    class Sending:
        """A socket that takes a part of the reply, while another thread sends."""

        def __init__(self, conn: Any) -> None:
            self._conn, self._sock = conn, conn._sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

        def send(self, data: Any) -> int:
            self._conn._sock = self._sock
            thread = threading.Thread(target=self._conn.send, args=(b"meanwhile",))
            thread.start()
            thread.join()
            if not taken:
                raise BlockingIOError(errno.EAGAIN, "would block")
            return self._sock.send(data[:taken])

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        conn._sock = Sending(conn)
        return messages

    with framecodec.serve_messages(handle, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"reply")
        assert [conn.recv(), conn.recv()] == [b"reply", b"meanwhile"]


@pytest.mark.usefixtures("python_loop")
@pytest.mark.parametrize("plan", [[BrokenPipeError()], [1, ConnectionResetError()]])
def test_a_client_that_leaves_before_its_reply_is_its_own_fault(
    plan: list[Any], logged: Any
) -> None:
    plan = plan.copy()

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        conn._sock = Flaky(conn._sock, send=plan)
        return messages

    with framecodec.serve_messages(handle, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"a")
        with pytest.raises((EOFError, ConnectionError)):
            conn.recv()
        until(lambda: not server.connections)
    assert plan == []


@pytest.mark.usefixtures("python_loop")
@pytest.mark.parametrize(
    "plans",
    [
        {"shutdown": [OSError(errno.ENOTCONN, "not connected")]},
        {"recv_into": [BlockingIOError(), OSError(errno.ECONNRESET, "reset")]},
    ],
)
def test_a_connection_that_lingers_ends_with_the_first_error(
    plans: dict[str, list[Any]], logged: Any
) -> None:
    plans = {name: plan.copy() for name, plan in plans.items()}

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        conn._sock = Flaky(conn._sock, **plans)
        raise LookupError("no reply")

    with framecodec.serve_messages(handle, LOOPBACK) as server, dial(server.address) as conn:
        conn.send(b"a")
        until(logged)
        with contextlib.suppress(OSError):
            while server.connections:
                conn.send(b"more")
                time.sleep(0.001)
        until(lambda: not server.connections)
    assert not any(plans.values())
    assert "LookupError" in logged()[0] or "handler" in logged()[0]


@pytest.mark.usefixtures("python_loop")
@pytest.mark.parametrize("step", ["_receive", "_on_deadline", "_look_at"])
def test_an_error_of_one_connection_does_not_end_the_loop(
    step: str, monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    class Interrupted(BaseException):
        pass

    def fail(*_: Any) -> None:
        raise Interrupted

    idle = 0.05 if step == "_on_deadline" else None
    with framecodec.serve_messages(echo, LOOPBACK, idle_timeout=idle) as server:
        with monkeypatch.context() as patch, dial(server.address) as conn:
            patch.setattr(_messages_loop_py.MessageLoop, step, fail)
            if step == "_look_at":
                until(lambda: server.connections)
                for one in server.connections:
                    one.close()
            elif step == "_receive":
                conn.send(b"a")
            until(logged)
            until(lambda: not server.connections)
        if idle is None:
            with dial(server.address) as conn:
                conn.send(b"a")
                assert conn.recv() == b"a"


def test_a_loop_without_memory_is_logged_and_leaves_nothing_open(logged: Any) -> None:
    with framecodec.serve_messages(echo, LOOPBACK) as server, dial(server.address) as conn:
        until(lambda: server.connections)
        server._hooks.no_memory(MemoryError("no turn"))
        assert "has too little memory" in logged()[0]
        ours, theirs = socket.socketpair()
        with theirs:
            server._hooks._sockets[object()] = ours
            sockets, server._hooks._sockets = server._hooks._sockets, {1: ours}
            server._hooks.close_all()
            assert theirs.recv(1) == b""
            sockets.popitem()
            server._hooks._sockets = sockets
        assert conn is not None


# --- at the end of a time limit -------------------------------------------------------------------


@pytest.fixture
def at_deadline(
    python_loop: None, monkeypatch: pytest.MonkeyPatch
) -> list[Callable[[Any], object]]:
    """A list of functions, the next of which the loop calls before it acts on a deadline."""
    actions: list[Callable[[Any], object]] = []
    on_deadline = _messages_loop_py.MessageLoop._on_deadline

    def act_first(loop: Any, conn: Any) -> None:
        if actions:
            actions.pop()(conn)
        on_deadline(loop, conn)

    monkeypatch.setattr(_messages_loop_py.MessageLoop, "_on_deadline", act_first)
    return actions


def test_a_message_that_the_kernel_holds_at_the_deadline_is_in_time(
    at_deadline: list[Any], logged: Any
) -> None:
    with framecodec.serve_messages(echo, LOOPBACK, idle_timeout=0.05) as server:
        with dial(server.address) as conn:
            at_deadline.append(lambda _: conn.send(b"in time"))
            assert conn.recv() == b"in time"
            assert not logged()
            with pytest.raises(EOFError):
                conn.recv()
    assert "IdleTimeoutError" in logged()[0]


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_connection_that_is_closed_at_its_deadline_has_no_fault(
    side: str, at_deadline: list[Any], logged: Any
) -> None:
    with framecodec.serve_messages(echo, LOOPBACK, idle_timeout=0.05) as server:
        with dial(server.address) as conn:
            if side == "client":
                at_deadline.append(lambda _: conn.socket.shutdown(socket.SHUT_WR))
            else:
                at_deadline.append(lambda one: one.close())
            with pytest.raises(EOFError):
                conn.recv()
            until(lambda: not server.connections)
    assert not at_deadline
    assert not logged()


def test_a_message_that_drips_on_at_its_deadline_is_too_slow(
    at_deadline: list[Any], logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_message_steps_py, "LAST_READS", 1)
    with framecodec.serve_messages(echo, LOOPBACK, message_timeout=0.05) as server:
        with dial(server.address) as conn:
            at_deadline.append(lambda _: conn.socket.sendall(b"b"))
            conn.socket.sendall(b"\0\0\0\3a")
            with pytest.raises((EOFError, ConnectionError)):
                conn.recv()
    assert not at_deadline
    assert "MessageTimeoutError" in logged()[0]


def test_a_client_that_never_closes_is_closed(
    at_deadline: list[Any], logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(_message_steps_py, "LINGER_TIME", 0.05)
    with framecodec.serve_messages(echo, LOOPBACK) as server:
        with dial(server.address) as conn:
            at_deadline.append(ended.append)
            conn.socket.sendall(b"\xff\xff\xff\xff")
            with pytest.raises(EOFError):
                conn.recv()
            until(lambda: ended)
            until(lambda: not server._hooks._sockets)
    assert len(logged()) == 1
