"""``framecodec bench`` and the command ``formats``."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

import framecodec
from framecodec import Codec, cli, formats, parse_codec
from tests.helpers.command import run, started

rich = pytest.importorskip("rich", reason="the extra cli is not installed")


@pytest.fixture
def echo() -> Iterator[str]:
    """Serve a framed echo in threads; give its address."""
    with framecodec.listen(("127.0.0.1", 0), Codec.uint(4)) as listener:

        def serve(conn: framecodec.FrameSocket) -> None:
            with conn:
                for message in conn:
                    conn.send(message)

        def accept() -> None:
            try:
                for conn in listener:
                    threading.Thread(target=serve, args=(conn,), daemon=True).start()
            except (OSError, ValueError):
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_bench_verifies_every_reply_and_reports(echo: str) -> None:
    arguments = ["--messages", "100", "--connections", "3", "--in-flight", "4", "--size", "100"]
    result = run("bench", "--json", *arguments, echo)
    assert (result.status, result.errors) == (0, "")
    found = json.loads(result.output)
    assert found["messages"] == 100
    assert found["rate"] == pytest.approx(100 / found["seconds"], rel=0.01)
    latencies = list(found["latency_us"].values())
    assert latencies == sorted(latencies)
    assert list(found["latency_us"]) == ["50", "90", "99", "99.9", "100"]


@pytest.mark.parametrize("size", ["1", "8", "9"])
def test_bench_sends_any_size(size: str, echo: str) -> None:
    assert run("bench", "--json", "--messages", "300", "--size", size, echo).status == 0


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("color", [True, False])
def test_bench_draws_in_a_terminal(echo: str, columns: int, color: bool) -> None:
    arguments = ("bench", "--seconds", "0.2", echo)
    with started(*arguments, terminal=columns, color=color) as process:
        assert process.wait() == 0
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", process.output).decode().splitlines()
    assert "all verified" in lines[0]
    assert "messages/s" in lines[1]
    assert any("99.9 %" in line for line in lines)
    assert sum("█" in line for line in lines) >= 1
    assert max(map(len, lines)) <= columns


def test_bench_writes_a_table_and_a_picture(echo: str) -> None:
    result = run("bench", "--seconds", "0.1", echo)
    assert (result.status, result.errors) == (0, "")
    lines = result.output.decode().splitlines()
    assert lines[0].endswith(" s, all verified")
    assert lines[1].endswith(" MB/s in each direction")
    assert any("99.9 %" in line and "max" in line for line in lines)
    assert any("up to the 99th percentile" in line for line in lines)


def test_bench_runs_where_there_is_no_output(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["bench", "--messages", "10", echo]) == 0


def serve_once(answer: bytes) -> tuple[threading.Thread, str]:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server:
            conn, _ = server.accept()
            with conn:
                conn.recv(1000)
                conn.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(b"\0\0\0\5wrong", "wrong reply"), (b"", "closed"), (b"GET ", "1195725856")],
)
def test_a_bad_server_is_one_line(answer: bytes, complaint: str) -> None:
    thread, address = serve_once(answer)
    result = run("bench", "--messages", "5", address)
    thread.join()
    assert result.status == 1
    assert complaint in result.errors
    assert result.errors.count("\n") == 1


def test_bench_without_a_server_is_one_line() -> None:
    result = run("bench", "127.0.0.1:1")
    assert (result.status, result.output, result.errors.count("\n")) == (1, b"", 1)
    assert run("bench", "--seconds", "0", "127.0.0.1:1").status == 2
    assert run("bench", "--seconds", "soon", "127.0.0.1:1").status == 2
    assert run("bench", "--size", "-1", "127.0.0.1:1").status == 2


# --- formats --------------------------------------------------------------------------------------


def test_formats_json_has_an_object_for_each_format() -> None:
    result = run("formats", "--json")
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["name"] for row in rows] == list(formats)
    for row in rows:
        assert parse_codec(row["codec"]) == formats[row["name"]]
        assert row["specification"] == formats.describe(row["name"]).specification
        assert row["max_message_size"] == formats[row["name"]].max_message_size


def test_formats_tells_more_about_one() -> None:
    text = run("formats", "postgres").output.decode()
    row = formats.describe("postgres")
    for what in (row.description, row.specification, str(row.codec), repr(row.codec)):
        assert what in text
    assert json.loads(run("formats", "--json", "postgres").output)["name"] == "postgres"


# --- the extra ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "--codec", "u8"],
        ["decode", "--codec", "u8"],
        ["dump", "--codec", "u8"],
        ["guess"],
        ["listen", ":1"],
        ["connect", ":1"],
        ["send", "file", ":1"],
        ["receive", ":1"],
        ["bench", ":1"],
        ["proxy", "--listen", ":1", "--to", ":1"],
        ["wireshark", "--codec", "u8"],
    ],
)
def test_without_the_extra_a_command_says_how_to_install_it(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rich", None)
    result = run(*arguments)
    assert (result.status, result.output) == (1, b"")
    assert result.errors.count("\n") == 1
    assert 'pip install "framecodec[cli]"' in result.errors


def test_without_the_extra_formats_and_help_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rich", None)
    assert run("formats").status == 0
    help_text = run("--help").output.decode()
    for command in ("encode", "decode", "dump", "guess", "listen", "connect", "send", "receive"):
        assert f"\n    {command} " in help_text
