"""``framecodec listen`` and ``connect``: TCP, TLS, Unix sockets, datagrams, commands; chats."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import select
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec
from framecodec.cli import talk
from tests.helpers.command import (
    User,
    closed_output,
    run,
    run_process,
    run_with_user,
    started,
)

pytest.importorskip("rich", reason="the extra cli is not installed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals, Unix sockets")

ANY = "127.0.0.1:0"


def test_two_terminals_chat() -> None:
    with started("listen", "--codec", "digits4", ANY, terminal=80) as left:
        address = left.address()
        with started("connect", "--codec", "digits4", address, terminal=80) as right:
            left.read_until(b" connected")
            right.type(b"hello from the right\n")
            left.read_until(b"hello from the right\r\n")
            left.type("你好 from the left\n".encode())
            right.read_until("你好 from the left\r\n".encode())
            right.type(b"\x04")  # Ctrl-D ends sending
            left.read_until(b" left\r\n")
            assert right.wait() == 0
        left.type(b"\x04")
        assert left.wait() == 0


@pytest.mark.parametrize("command", ["listen", "connect"])
def test_ctrl_c_ends_without_a_traceback(command: str) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{server.getsockname()[1]}" if command == "connect" else ANY
        with started(command, address, terminal=80) as process:
            if command == "listen":
                process.address()
            else:
                conn, _ = server.accept()
                stack.enter_context(conn)
                conn.sendall(b"\0\0\0\5ready")
                process.read_until(b"ready")
            process.type(b"\x03")
            assert process.wait() == 130
            assert b"Traceback" not in process.output


@pytest.mark.parametrize("command", ["connect", "proxy"])
def test_ctrl_c_that_does_not_end_a_wait_ends_the_command(command: str) -> None:
    """As one that comes just before the wait: another thread receives the signal."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def use(user: User) -> None:
            if command == "connect":
                stack.enter_context(server.accept()[0])
            else:
                user.address()
            time.sleep(0.5)  # the command waits
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        address = f"127.0.0.1:{server.getsockname()[1]}"
        arguments = [address] if command == "connect" else ["--listen", ANY, "--to", address]
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with contextlib.ExitStack() as stack:
                assert run_with_user(use, command, *arguments).status == 130
        finally:
            signal.signal(signal.SIGINT, before)


def test_the_frames_are_those_of_the_library() -> None:
    with started("listen", "--echo", "--codec", "varint", ANY) as process:
        host, _, port = process.address().rpartition(":")
        with framecodec.connect((host, int(port)), Codec.varint()) as conn:
            conn.settimeout(20)
            messages = [b"hello", b"", b"\xff\0\n", b"x" * 1000]
            conn.send_many(messages)
            assert [conn.recv() for _ in messages] == messages
        process.read_until(b"hello\n\n" + rb"\xff\x00\n" + b"\nxxxx")


def test_echo_serves_several_clients_and_survives_bad_ones() -> None:
    with started("listen", "--echo", ANY) as process:
        host, _, port = process.address().rpartition(":")
        with socket.create_connection((host, int(port))) as bad:
            bad.sendall(b"GET / HTTP/1.1\r\n")
            assert bad.recv(1) == b""
        with (
            framecodec.connect((host, int(port))) as one,
            framecodec.connect((host, int(port))) as two,
        ):
            for conn in (one, two, one):
                conn.settimeout(20)
                conn.send(b"again")
                assert conn.recv() == b"again"
        process.read_until(b"left: ")


def test_lines_of_a_pipe_are_sent_and_the_answers_printed() -> None:
    with started("listen", "--echo", "--once", ANY) as server:
        result = run_process("connect", server.address(), stdin=b"hello\nbyebye")
        assert result == (0, b"hello\nbyebye\n", "")
        assert server.wait() == 0


def test_once_ends_after_the_first_message() -> None:
    with (
        started("listen", "--echo", ANY) as server,
        started("connect", "--once", server.address()) as client,
    ):
        client.type(b"hello\n")
        assert client.wait() == 0
        assert client.output == b"hello\n"


@pytest.mark.slow
def test_hexadecimal_lines_in_both_directions() -> None:
    with started("listen", "--echo", ANY) as server:
        result = run_process("connect", "--hex", server.address(), stdin=b"00 ff\nxyz\n0a\n")
    assert (result.status, result.output) == (0, b"00ff\n0a\n")
    assert result.errors.count("\n") == 1
    assert "'xyz' is not hexadecimal" in result.errors


def test_a_line_that_is_too_long_is_not_sent() -> None:
    with started("listen", "--echo", "--codec", "u8", ANY) as server:
        lines = b"x" * 300 + b"\nshort\n"
        result = run_process("connect", "--codec", "u8", server.address(), stdin=lines)
    assert (result.status, result.output) == (0, b"short\n")
    assert "not sent: " in result.errors


@pytest.mark.slow
def test_a_stream_that_breaks_is_an_error_after_what_was_good() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                conn.sendall(b"0005hello00x")
                conn.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with started("connect", "--codec", "digits4", address) as process:
            assert process.wait() == 1
        thread.join()
    assert process.output.startswith(b"hello\nframecodec: ")
    assert b"Traceback" not in process.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["connect", "127.0.0.1:1"],
        ["connect", "unix:/nonexistent/socket"],
        ["connect", "--udp", "nosuchhost.invalid:1"],
        ["listen", "192.0.2.1:1"],
        ["listen", "unix:/nonexistent/socket"],
        ["listen", "--cert", "/nonexistent", ANY],
        ["connect", "--pipe", "/nonexistent/command"],
        ["connect", "--pipe", "'"],
    ],
)
def test_what_cannot_be_reached_is_one_line(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.status, result.output) == (1, b"")
    assert result.errors.startswith("framecodec: ")
    assert result.errors.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["connect"],
        ["connect", ANY, "--pipe", "cat"],
        ["listen"],
        ["connect", "host"],
        ["listen", ":x"],
    ],
)
def test_a_missing_or_bad_address_is_bad_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.status == 2
    assert result.errors.count("\n") == 1


@pytest.mark.slow
def test_unix_sockets(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    with started("listen", "--echo", "--once", address) as server:
        assert server.address() == address
        assert run_process("connect", address, stdin=b"hello").output == b"hello\n"
        assert server.wait() == 0


@pytest.mark.slow
def test_tls(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    cert, ca = str(tmp_path / "cert.pem"), str(tmp_path / "ca.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        cert
    )
    authority.cert_pem.write_to_path(ca)
    with started("listen", "--echo", "--cert", cert, ANY) as server:
        address = server.address()
        trusted = run_process("connect", "--ca", ca, address, stdin=b"hello")
        unverified = run_process("connect", "--insecure", address, stdin=b"hello")
        unknown = run_process("connect", "--tls", address, stdin=b"hello")
        plain = run_process("connect", address, stdin=b"hello")
    assert trusted == (0, b"hello\n", "")
    assert unverified.output == b"hello\n"
    assert (unknown.status, unknown.output, unknown.errors.count("\n")) == (1, b"", 1)
    assert "certificate" in unknown.errors
    assert plain.output == b""


def test_datagrams() -> None:
    with started("listen", "--udp", "--echo", ANY) as server:
        result = run_process("connect", "--udp", "--once", server.address(), stdin=b"hello\n")
    assert result == (0, b"hello\n", "")


def test_typed_lines_go_to_the_last_sender_of_a_datagram() -> None:
    def use(user: User) -> None:
        address = user.address()
        user.type(b"early\n")
        user.notes.wait_for("not sent: no datagram has arrived, so there is no receiver")
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(b"\5he", address)
            user.notes.wait_for("bad datagram: ")
            sock.sendto(b"\5hello\2ok", address)
            sock.sendto(b"\7another", address)
            with socket.socket(type=socket.SOCK_DGRAM) as last:
                last.settimeout(20)
                last.sendto(b"\4last", address)
                for _ in range(200):  # until one is typed after the last datagram was printed
                    user.type(b"reply\n")
                    if select.select([last], [], [], 0.1)[0]:
                        break
                assert last.recv(100) == b"\5reply"
        user.interrupt()

    result = run_with_user(use, "listen", "--udp", "--codec", "u8", ANY)
    assert (result.status, result.output) == (130, b"hello\nok\nanother\nlast\n")


def test_datagrams_are_printed_after_the_end_of_the_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # not a terminal
    events, arguments = talk._Events(), argparse.Namespace(echo=False, once=True)
    events.put(("end of lines", None))
    events.put(("message", (b"hello", None)))
    sock = talk._datagram_socket(("127.0.0.1", 0), None, listening=True)
    with sock, contextlib.closing(talk._Screen(as_hex=False)) as screen:
        talk._print_and_answer_datagrams(sock, events, arguments, screen)
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize("arguments", [["--udp"], []])
def test_ctrl_d_in_a_terminal_ends_listen(arguments: list[str]) -> None:
    def use(user: User) -> None:
        user.address()
        user.type(b"\x04")

    assert run_with_user(use, "listen", *arguments, ANY, terminal=True)[:2] == (0, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="free names of Unix sockets")
def test_a_unix_datagram_is_answered(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(20)

        def use(user: User) -> None:
            user.type(b"hello\n")
            message, sender = sock.recvfrom(100)
            sock.sendto(message.upper(), sender)

        result = run_with_user(use, "connect", "--udp", "--once", f"unix:{path}")
    assert result == (0, b"HELLO\n", "")


def test_unix_datagrams_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with started("listen", "--udp", "--once", f"unix:{path}") as server:
        server.address()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"hello", str(path))
        server.read_until(b"hello\n")
        assert server.wait() == 0
    assert not os.path.exists(path)


def test_a_command_is_talked_to_by_its_input_and_output() -> None:
    # cat sends every frame back.
    assert run_process("connect", "--pipe", "cat", stdin=b"hello\nbyebye\n") == (
        0,
        b"hello\nbyebye\n",
        "",
    )


@pytest.mark.parametrize("ignored", [False, True])
def test_a_command_that_does_not_end_is_ended(
    ignored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "_LAST_WAIT", 0.3)
    program = f"""
import os, signal, sys, time
if {ignored}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
text = str(os.getpid()).encode()
sys.stdout.buffer.write(len(text).to_bytes(4) + text)
sys.stdout.flush()
time.sleep(600)
"""
    result = run("connect", "--once", "--pipe", shlex.join([sys.executable, "-c", program]))
    assert (result.status, result.errors) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.output), 0)


# --- the ends of a command in this process --------------------------------------------------------


def test_the_end_of_the_lines_ends_sending_to_all_clients() -> None:
    def use(user: User) -> None:
        with user.connect() as one, user.connect() as two:
            user.type(b"hello\nbye")
            user.end_input()
            for conn in (one, two):
                assert list(conn) == [b"hello", b"bye"]
            with user.connect() as late:
                assert list(late) == []
                late.send(b"still received")
            user.notes.wait_for(" left\n")
        user.interrupt()

    result = run_with_user(use, "listen", ANY)
    assert (result.status, result.output) == (130, b"still received\n")


def test_the_end_of_listen_closes_its_connections() -> None:
    with contextlib.ExitStack() as stack:

        def use(user: User) -> None:
            conns.extend(stack.enter_context(user.connect()) for _ in range(2))
            user.interrupt()

        conns: list[framecodec.FrameSocket] = []
        assert run_with_user(use, "listen", "--echo", ANY).status == 130
        assert [list(conn) for conn in conns] == [[], []]


def test_ctrl_c_ends_a_wait_for_events_and_what_is_sent() -> None:
    events = talk._Events()
    with events.with_interrupts():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            events.take()
        with pytest.raises(KeyboardInterrupt), events.sending():
            signal.raise_signal(signal.SIGINT)


def test_an_error_of_the_listening_socket_ends_listen() -> None:
    class Broken:
        def __iter__(self) -> Iterator[framecodec.FrameSocket]:
            raise OSError("no more")

    arguments = argparse.Namespace(echo=True, once=False)
    server = talk._Server(Broken(), arguments, talk._Screen(as_hex=False), None)
    with pytest.raises(OSError, match="no more"):
        server.run()


def test_a_client_without_tls_is_named_and_ends_listen_once(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    cert = str(tmp_path / "cert.pem")
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(cert)

    def use(user: User) -> None:
        with socket.create_connection(user.address(), 20) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while sock.recv(1000):
                    pass

    result = run_with_user(use, "listen", "--once", "--cert", cert, ANY)
    assert (result.status, result.output) == (0, b"")
    assert ": no TLS: " in result.errors
    assert "connected" not in result.errors


def test_a_closed_output_ends_listen() -> None:
    def use(user: User) -> None:
        with user.connect() as conn:
            conn.send(b"hello")
            assert list(conn) == []

    with closed_output() as output:
        result = run_with_user(use, "listen", ANY, output=output)
    assert result.status == 1
    assert result.errors.endswith(" connected\n")


def test_a_closed_output_ends_connect() -> None:
    with closed_output() as output, framecodec.listen(("127.0.0.1", 0)) as listener:

        def use(user: User) -> None:
            with listener.accept() as conn:
                conn.send(b"hello")
                assert list(conn) == []

        address = f"127.0.0.1:{listener.getsockname()[1]}"
        result = run_with_user(use, "connect", address, output=output)
    assert (result.status, result.errors) == (1, "")


def test_messages_are_received_where_there_is_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def recv(self) -> bytes:
            return b"hello"

        def send(self, message: bytes) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", None)
    events: list[tuple[str, Any]] = []
    conn, screen = Gone(), talk._Screen(as_hex=False)
    talk._receive(conn, screen, events.append, echo=False, once=True)
    # The peer is gone, not the reader of the output.
    talk._receive(conn, screen, events.append, echo=True, once=False)
    (first, (_, no_error)), (second, (_, error)) = events
    assert (first, no_error, second, type(error)) == ("end", None, "end", BrokenPipeError)


@pytest.mark.slow
def test_a_closed_output_ends_the_command() -> None:
    with started("listen", "--echo", ANY) as server:
        import subprocess

        from tests.helpers.command import environment

        process = subprocess.Popen(
            [sys.executable, "-m", "framecodec", "connect", server.address()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        try:
            assert process.wait(20) == 1
        finally:
            process.kill()
        with process:
            assert process.stderr is not None
            assert process.stderr.read() == b""
