"""``framecodec dump`` and ``guess`` on captures of real peers, recorded by tshark.

bash tests/interop/install.sh installs the peers and tshark; without them the tests are skipped.
Recording needs the right to capture on the loopback interface (root has it).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framecodec import FrameSocket, formats
from tests.helpers.command import run
from tests.interop.processes import TIMEOUT, find, serving
from tests.test_interop import START, postgres_port, until_ready

pytest.importorskip("rich", reason="the extra cli is not installed")
pytestmark = pytest.mark.slow

__all__ = ["postgres_port"]


@contextlib.contextmanager
def recorded(port: int, file: Path) -> Iterator[None]:
    """Record the connections of a port while the block runs."""
    command = [find("tshark"), "-i", "lo", "-f", f"tcp port {port}", "-w", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "Capturing on" in line:
                    break
            else:
                pytest.skip("tshark may not capture on the loopback interface here")
            wait_for(lambda: file.exists() and file.stat().st_size > 0)
            time.sleep(0.5)  # tshark says so before the kernel gives it the first packet
            yield
            size = -1
            for _ in range(100):  # until no packet is on its way to the file
                time.sleep(0.2)
                if size == (size := file.stat().st_size):
                    break
        finally:
            process.send_signal(signal.SIGINT)
            process.stderr.read()
            process.wait(TIMEOUT)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def dumped(file: Path, codec: str) -> dict[tuple[int, str], list[bytes | None]]:
    """Return the messages of each stream by the connection's number and its source."""
    result = run("dump", "--json", "--codec", codec, str(file))
    found: dict[tuple[int, str], list[bytes | None]] = {}
    for line in result.output.splitlines():
        one = json.loads(line)
        message = one["message"] if one["message"] is None else bytes.fromhex(one["message"])
        found.setdefault((one["stream"], one["source"]), []).append(message)
    assert (result.status, result.errors) == (0, "")
    return found


def guessed(file: Path) -> list[dict[str, Any]]:
    """Return the best guess for each stream that has one."""
    result = run("guess", "--json", "--limit", "1", str(file))
    return [json.loads(line) for line in result.output.splitlines()]


def test_postgresql(postgres_port: int, tmp_path: Path) -> None:
    file = tmp_path / "capture.pcapng"
    with recorded(postgres_port, file), connected(postgres_port) as sock:
        sock.sendall(formats.postgres_startup.encode(START))
        with FrameSocket(sock, formats.postgres) as conn:
            until_ready(conn)
            for number in range(20):
                conn.send(b"Q" + b"SELECT generate_series(1, %d)\0" % number)
                until_ready(conn)
            conn.send(b"X")
    result = run("dump", "--json", "--codec", "postgres", str(file))
    # The client's stream opens with a message of another shape: its report must not end the other.
    rows = [json.loads(line) for line in result.output.splitlines()]
    served = [row for row in rows if row["source"] == f"127.0.0.1:{postgres_port}"]
    assert bytes.fromhex(served[0]["message"]) == b"R" + bytes(4)
    assert sum(bytes.fromhex(row["message"])[:1] == b"D" for row in served) == sum(range(20))
    best = {one["source"]: one for one in guessed(file)}
    assert "postgres" in best[f"127.0.0.1:{postgres_port}"]["names"]
    (client,) = (one for source, one in best.items() if not source.endswith(f":{postgres_port}"))
    assert "postgres" in client["names"]
    assert client["offset"] == len(formats.postgres_startup.encode(START))


def test_mosquitto(tmp_path: Path) -> None:
    program, configuration = find("mosquitto"), tmp_path / "mosquitto.conf"

    def command(port: int) -> list[str]:
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
        if os.geteuid() == 0:
            lines.append("user root")
        configuration.write_text("\n".join(lines) + "\n")
        return [program, "-c", str(configuration)]

    def text(string: bytes) -> bytes:
        return struct.pack("!H", len(string)) + string

    published = [b"\x30" + text(b"topic") + b"z" * (17 * size) for size in range(30)]
    file = tmp_path / "capture.pcapng"
    with (
        serving(command) as port,
        recorded(port, file),
        connected(port) as sock,
        FrameSocket(sock, formats.mqtt) as conn,
    ):
        conn.send(b"\x10" + text(b"MQTT") + b"\x04\x02\x00\x3c" + text(b"framecodec"))
        conn.send(b"\x82\x00\x01" + text(b"topic") + b"\x00")
        conn.send_many(published)
        answers = [conn.recv() for _ in range(2 + len(published))]
        conn.send(b"\xe0")
    streams = dumped(file, "mqtt")
    assert [m for (_, source), m in streams.items() if source == f"127.0.0.1:{port}"] == [answers]
    assert answers[2:] == published
    assert [one["names"][:1] for one in guessed(file)] == [["mqtt"], ["mqtt"]]


def test_git(tmp_path: Path) -> None:
    git = find("git")
    repository = tmp_path / "served" / "repository"
    repository.mkdir(parents=True)
    settings = ["-c", "user.name=me", "-c", "user.email=me@localhost", "-c", "commit.gpgsign=false"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def run_git(*arguments: str, folder: Path = repository) -> None:
        subprocess.run(
            [git, *settings, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=60,
            check=True,
        )

    run_git("init", "-q")
    for number in range(40):
        run_git("commit", "-q", "--allow-empty", "-m", f"commit {number}")
        run_git("tag", f"tag{number}")
    base = str(repository.parent)
    file = tmp_path / "capture.pcapng"

    def command(port: int) -> list[str]:
        options = ["--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--base-path={base}"]
        return [git, "daemon", *options, f"--port={port}"]

    with serving(command, env=environment) as port, recorded(port, file):
        url = f"git://127.0.0.1:{port}/repository"
        run_git("-c", "protocol.version=2", "clone", "-q", url, "clone", folder=tmp_path)
    streams = dumped(file, "pkt-line")
    served = next(m for (_, source), m in streams.items() if source == f"127.0.0.1:{port}")
    assert served[0] == b"version 2\n"
    assert None in served  # a flush
    assert "pkt-line" in guessed(file)[-1]["names"] or "pkt-line" in guessed(file)[0]["names"]


def test_redis(tmp_path: Path) -> None:
    program, file = find("redis-server"), tmp_path / "capture.pcapng"

    def command(port: int) -> list[str]:
        settings = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return [program, "--port", str(port), *settings, "--dir", str(tmp_path)]

    with (
        serving(command) as port,
        recorded(port, file),
        connected(port) as sock,
        FrameSocket(sock, formats.resp) as conn,
    ):
        answers = []
        for number in range(25):
            value = b"x" * (7 * number)
            conn.send(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$%d\r\n%b\r\n" % (len(value), value))
            conn.send(b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n")
            answers += [conn.recv(), conn.recv()]
    streams = dumped(file, "resp")
    assert [m for (_, source), m in streams.items() if source == f"127.0.0.1:{port}"] == [answers]
    assert answers[0] == b"+OK\r\n"
    assert [one["names"][:1] for one in guessed(file)] == [["resp"], ["resp"]]


def test_a_language_server(tmp_path: Path) -> None:
    pytest.importorskip("pylsp", reason="python-lsp-server is not installed")
    file = tmp_path / "capture.pcapng"

    def command(port: int) -> list[str]:
        program = [sys.executable, "-W", "ignore", "-m", "pylsp"]
        return [*program, "--tcp", "--host", "127.0.0.1", "--port", str(port)]

    def request(method: str, **rest: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "method": method, **rest}).encode()

    with (
        serving(command) as port,
        recorded(port, file),
        connected(port) as sock,
        FrameSocket(sock, formats.lsp) as conn,
    ):
        options = {"processId": None, "rootUri": None, "capabilities": {}}
        conn.send(request("initialize", id=0, params=options))
        assert b"capabilities" in conn.recv()
        conn.send(request("initialized", params={}))
        for number in range(1, 21):
            conn.send(request(f"unknown/method{number}", id=number, params={}))
        while json.loads(conn.recv()).get("id") != 20:
            pass
    streams = dumped(file, "lsp")
    (served,) = (m for (_, source), m in streams.items() if source == f"127.0.0.1:{port}")
    assert [json.loads(m)["id"] for m in served if m and b'"id"' in m][-1] == 20
    assert ["lsp" in one["names"] for one in guessed(file)] == [True, True]
