"""Every program on the pages runs, or the page says where it is run.

Most programs print what they say, or are examples with a prompt: tests/test_docs.py runs them. The
programs here are servers, and parts that need what is around them: a device, a process, a stream.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import cli
from tests import test_docs
from tests.test_docs import LESSONS, PAGES, TRANSLATED, page_name

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"^(?:<!-- run by (?P<where>\S+) -->\n)?```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
HERE = "tests/test_docs_programs.py"


def blocks(page: Path) -> Iterator[re.Match[str]]:
    return BLOCK.finditer(page.read_text("utf-8"))


def run_here(name: str) -> list[str]:
    """Return the programs of a page that this file runs."""
    return [block["text"] for block in blocks(ROOT / "docs" / name) if block["where"] == HERE]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_program_of_a_page_is_run(page: Path) -> None:
    name = page_name(page)
    for block in blocks(page):
        if block["language"] not in ("python", "pycon") or name in TRANSLATED:
            continue  # a translation has the code of its original
        if block["where"] is not None:
            assert (ROOT / block["where"]).exists()
        elif "# prints " in block["text"]:
            assert name in {*LESSONS, *test_docs.PROGRAMS}, block["text"]
        else:
            assert ">>> " in block["text"], f"no test runs this program:\n{block['text']}"


# --- servers --------------------------------------------------------------------------------------

TALKS = [  # what each server answers to b"hello"
    b"you said hello",
    b"HELLO",
    b"you said hello",
    b"hello",
]


@contextlib.contextmanager
def started(program: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a program that serves on a port of its page; yield its server, on a free port."""
    servers: queue.Queue[Any] = queue.Queue()
    program = re.sub(r'\("(127\.0\.0\.1|0\.0\.0\.0)", 6000\)', '("127.0.0.1", 0)', program)

    def kept(function: Callable[..., Any]) -> Callable[..., Any]:
        def start(*arguments: Any, **options: Any) -> Any:
            servers.put(function(*arguments, **options))
            return servers.queue[0]

        return start

    for name in ("serve", "serve_messages"):
        monkeypatch.setattr(framecodec, name, kept(getattr(framecodec, name)))
    thread = threading.Thread(target=exec, args=(program, {"framecodec": framecodec}), daemon=True)
    thread.start()
    server = servers.get(timeout=20)
    try:
        yield server
    finally:
        server.close()
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("number", range(len(TALKS)))
def test_a_server_of_the_page_about_servers_answers(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = run_here("servers.md")
    assert len(programs) == len(TALKS)
    program = programs[number]
    if "serve" not in program:  # a handler only
        program += '\nframecodec.serve(handler, ("127.0.0.1", 6000))\n'
    with (
        started(program, monkeypatch) as server,
        framecodec.connect(server.address, timeout=10) as conn,
    ):
        conn.send(b"hello")
        assert conn.recv() == TALKS[number]


# --- parts of programs ----------------------------------------------------------------------------

LANGUAGE_SERVER = f"""#!{sys.executable}
import json, sys
from framecodec import FramePipe, formats
with FramePipe(sys.stdin.buffer, sys.stdout.buffer, formats.lsp) as client:
    request = json.loads(client.recv())
    assert request["method"] == "initialize"
    client.send(json.dumps({{"method": "window/logMessage"}}).encode())
    result = {{"serverInfo": {{"name": "pylsp"}}}}
    client.send(json.dumps({{"id": request["id"], "result": result}}).encode())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the replacement of pylsp is a Unix script")
def test_the_client_of_a_language_server_prints_its_name(tmp_path: Path) -> None:
    program, _ = run_here("pipes.md")
    script = tmp_path / "pylsp"
    script.write_text(LANGUAGE_SERVER, "utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "{'name': 'pylsp'}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a socket is no file there")
def test_the_program_of_a_serial_device_finds_the_answer_after_noise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, program = run_here("pipes.md")
    port, device = socket.socketpair()

    def open_port(name: str, baud_rate: int) -> Any:
        """Return a device that is used as pyserial's port is."""
        assert (name, baud_rate) == ("/dev/ttyUSB0", 115200)
        return open(port.detach(), "r+b", buffering=0)

    monkeypatch.setitem(sys.modules, "serial", types.SimpleNamespace(Serial=open_port))
    device.settimeout(10)
    device.sendall(b"noise\xaa\x55\x02ok\n")
    with device:
        exec(program, {})
        assert device.recv(100) == b"\xaa\x55\x07status?\n"
    assert capsys.readouterr().out == "b'ok'\n"


def test_the_lines_that_give_a_connection_to_the_next_protocol_do() -> None:
    (lines,) = run_here("asyncio.md")
    program = f"""
import asyncio
import framecodec.asyncio

class NextProtocol(asyncio.Protocol):
    def __init__(self, unread):
        self.text, self.ended = unread, asyncio.Event()
    def data_received(self, data):
        self.text += data
    def connection_lost(self, error):
        self.ended.set()

async def main():
    found = asyncio.get_running_loop().create_future()

    async def upgrade(stream):
        assert await stream.recv() == b"upgrade"
{textwrap.indent(lines, "        ")}
        await protocol.ended.wait()
        found.set_result(protocol.text)

    async with await framecodec.asyncio.start_server(upgrade, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()[:2]
        stream = await framecodec.asyncio.open_connection(host, port)
        await stream.send(b"upgrade")
        await stream.send_bytes(b"plain text")
        await stream.aclose()
        return await asyncio.wait_for(found, 10)

text = asyncio.run(main())
"""
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["text"] == b"plain text"


def test_the_typed_program_moves_a_point() -> None:
    pytest.importorskip("msgspec", reason="the extra msgspec is not installed")
    (program,) = run_here("objects.md")
    answers: queue.Queue[bytes] = queue.Queue()

    def handler(conn: framecodec.FrameSocket) -> None:
        conn.send(b'{"x":1,"y":2}')
        answers.put(conn.recv())

    program = re.sub(r"\n.*# error: .*", "", program)
    with framecodec.serve(handler, ("127.0.0.1", 0)) as server:
        exec(program.replace('("localhost", 6000)', repr(server.address)), {"__name__": __name__})
        assert answers.get(timeout=20) == b'{"x":2,"y":2}'


@pytest.mark.slow
def test_the_typed_program_has_the_type_errors_that_it_says(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (program,) = run_here("objects.md")
    (tmp_path / "page.py").write_text(program, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    found = [int(line) for line in re.findall(r"^page\.py:(\d+): error", done.stdout, re.MULTILINE)]
    said = [n for n, line in enumerate(program.splitlines(), 1) if "# error: " in line]
    assert found == said, done.stdout


# --- commands -------------------------------------------------------------------------------------


def command_lines() -> list[str]:
    """Return the commands of this package on all pages that are not run by test_docs."""
    found = set()
    for page in (*PAGES, ROOT / "README.md"):
        for block in blocks(page):
            if block["language"] not in ("text", "console") or "$ printf" in block["text"]:
                continue
            for line in re.findall(r"(?:^|\$ )(framecodec [^$\n]*)", block["text"], re.MULTILINE):
                found.add(re.split(r"  +|[|>&#]|$", line)[0].strip())
    return sorted(found)


@pytest.mark.parametrize("line", command_lines())
def test_a_command_of_a_page_is_accepted(line: str) -> None:
    arguments = cli._make_parser().parse_args(shlex.split(line)[1:])
    assert callable(arguments.run)


def test_the_pages_have_commands() -> None:
    assert len(command_lines()) >= 15
