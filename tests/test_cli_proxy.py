"""``framecodec proxy``: bytes pass unchanged, frames of both directions are logged."""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import framecodec
from framecodec import Codec, cli
from framecodec.cli import proxy
from framecodec.testing.proxy import Direction
from tests.helpers.command import User, closed_output, run, run_with_user, started

pytest.importorskip("rich", reason="the extra cli is not installed")

ANY = "127.0.0.1:0"


@pytest.fixture
def upstream() -> Iterator[str]:
    """Serve one connection that answers in capitals; give its address."""
    with framecodec.listen(("127.0.0.1", 0), Codec.digits(4)) as listener:

        def serve() -> None:
            # The proxy that is ended with the test resets its connections.
            with contextlib.suppress(OSError), listener.accept() as conn:
                for message in conn:
                    conn.send(message.upper())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(20)


def connect(address: str) -> framecodec.FrameSocket:
    host, _, port = address.rpartition(":")
    conn = framecodec.connect((host, int(port)), Codec.digits(4))
    conn.settimeout(20)
    return conn


def test_frames_pass_unchanged_and_are_shown(upstream: str) -> None:
    arguments = ("proxy", "--listen", ANY, "--to", upstream, "--sizes", "1-3", "--dump")
    with started(*arguments, "--codec", "digits4") as proxy:
        with connect(proxy.address()) as conn:
            for message in (b"hello", b"byebye" * 20):
                conn.send(message)
                assert conn.recv() == message.upper()
        proxy.read_until(b"frame 1 at 9: size 124")
        proxy.read_until(b"BYEBYE")
        proxy.interrupt()
        assert proxy.wait() == 130
    assert b"tcp 0, " in proxy.output
    assert f" > {upstream}".encode() in proxy.output
    assert b"Traceback" not in proxy.output


def test_the_log_as_objects(upstream: str) -> None:
    arguments = ("proxy", "--listen", ANY, "--to", upstream, "--dump", "--json")
    with started(*arguments, "--codec", "digits4") as proxy:
        with connect(proxy.address()) as conn:
            conn.send(b"hello")
            assert conn.recv() == b"HELLO"
        proxy.read_until(b"48454c4c4f")
        rows = [json.loads(line) for line in proxy.output.splitlines() if line.startswith(b"{")]
    assert [(row["index"], row["offset"], row["size"]) for row in rows] == [(0, 0, 9)] * 2
    assert {row["source"] == upstream: row["message"] for row in rows} == {
        False: b"hello".hex(),
        True: b"HELLO".hex(),
    }


def test_a_broken_stream_is_reported_and_still_passed_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        arguments = ("proxy", "--listen", ANY, "--to", address, "--dump", "--codec", "digits4")
        with started(*arguments) as proxy:
            host, _, port = proxy.address().rpartition(":")
            with socket.create_connection((host, int(port)), timeout=20) as client:
                conn, _ = server.accept()
                with conn:
                    client.sendall(b"0002okGET / HTTP/1.1")
                    client.shutdown(socket.SHUT_WR)
                    received = b""
                    while chunk := conn.recv(1000):
                        received += chunk
            assert received == b"0002okGET / HTTP/1.1"
            proxy.read_until(b"begins at byte 6")
            proxy.read_until(b"framecodec: tcp 0")


def test_bad_usage_is_one_line() -> None:
    for arguments in (
        ["--listen", ANY],
        ["--listen", ANY, "--to", ANY, "--sizes", "7-1"],
        ["--listen", ANY, "--to", ANY, "--sizes", "0-1"],
        ["--listen", ANY, "--to", ANY, "--delay", "-1"],
        ["--listen", ANY, "--to", ANY, "--delay", "long"],
        ["--listen", ANY, "--to", "unix:"],
    ):
        result = run("proxy", *arguments)
        assert (result.status, result.output, result.errors.count("\n")) == (2, b"", 1)
    result = run("proxy", "--listen", "192.0.2.1:1", "--to", ANY)
    assert (result.status, result.output, result.errors.count("\n")) == (1, b"", 1)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals")
def test_a_closed_output_ends_the_proxy_and_its_connections(upstream: str) -> None:
    def use(user: User) -> None:
        with connect(":".join(map(str, user.address()))) as conn:
            conn.send(b"hello")
            with contextlib.suppress(ConnectionError):
                assert list(conn) in ([], [b"HELLO"])

    arguments = ["--listen", ANY, "--to", upstream, "--sizes", "4", "--delay", "0.001", "--dump"]
    with closed_output() as output:
        result = run_with_user(use, "proxy", *arguments, "--codec", "digits4", output=output)
    assert (result.status, result.errors.count("\n")) == (1, 1)


def test_the_end_of_the_reader_of_the_log_ends_the_proxy(upstream: str) -> None:
    arguments = argparse.Namespace(codec=Codec.digits(4), to=("127.0.0.1", 1), json=True)
    log = proxy._Log(arguments)
    direction = Direction(1, "client", ("127.0.0.1", 2))

    def broken(*_: Any) -> None:
        raise BrokenPipeError

    log._report.frame = broken  # type: ignore[method-assign]
    log.observe(direction, b"0002o")
    assert not log.output_closed.is_set()
    log.observe(direction, b"k")
    assert log.output_closed.is_set()


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        *(("--sizes", text, "is not a range of sizes; write 1-7") for text in ("x", "0", "3-2")),
        *(
            ("--delay", text, "is not a number of seconds, 0 or more")
            for text in ("x", "-1", "nan", "1e6")
        ),
    ],
)
def test_wrong_sizes_and_delays_are_usage_errors(
    option: str, value: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["proxy", "--listen", ANY, "--to", ANY, f"{option}={value}"]
    assert cli.main(arguments) == 2
    assert f"{value!r} {complaint}" in capsys.readouterr().err


def test_an_address_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert cli.main(["proxy", "--listen", where, "--to", ANY]) == 1
    assert f"{where}: " in capsys.readouterr().err
