"""The README is true: its programs run as printed, its examples give what they show."""

from __future__ import annotations

import contextlib
import doctest
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import framecodec
from framecodec import Codec
from tests.helpers.subprocesses import ROOT, finish, running

README = (ROOT / "README.md").read_text(encoding="utf-8")
PORT = 6000  # of the README's server


class Block(NamedTuple):
    language: str
    text: str
    line: int  # of its first line in the README, from 0


BLOCKS = [
    Block(match[1], match[2], README.count("\n", 0, match.start(2)))
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
]
PROGRAMS = [block.text for block in BLOCKS if block.language == "python"]
SERVER, CLIENT, *OTHERS = PROGRAMS


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    assert README.count("\n```") == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} <= {"console", "python", "pycon", "text"}


# --- the first screen -----------------------------------------------------------------------------


def commands() -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in BLOCKS
        if block.language == "console"
        for line in block.text.splitlines()
    ]


def test_one_command_installs_and_runs_the_demo() -> None:
    assert commands()[0] == "pip install . && framecodec demo"
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not metadata["dependencies"]
    assert "framecodec" in metadata["scripts"]


def test_one_command_installs_and_passes_the_tests() -> None:
    _, marked = README.split("<!-- test-command -->\n")
    assert marked.startswith(
        '```console\n$ pip install ".[test]" && pytest -n 2 -m "not slow"\n```\n'
    )
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any(wanted.startswith("pytest ") for wanted in metadata["optional-dependencies"]["test"])


def test_the_first_screen_has_the_purpose_the_commands_and_the_programs() -> None:
    screen = "\n".join(README.splitlines()[:50])
    for text in ["sticky packet", *commands()[:2], SERVER, CLIENT]:
        assert text in screen


def test_the_server_and_the_client_have_ten_lines() -> None:
    assert len([line for line in (SERVER + CLIENT).splitlines() if line.strip()]) == 10


@contextlib.contextmanager
def serving(program: Path, port: int) -> Iterator[None]:
    """The README's server, ready: it says nothing, so it is asked until it answers."""
    with running(program) as server:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            assert server.poll() is None, server.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
        assert server.poll() is None  # it still serves


def test_the_server_and_the_client_run_as_they_stand_there(tmp_path: Path) -> None:
    port = free_port(PORT)
    for name, program in ("server.py", SERVER), ("client.py", CLIENT):
        assert program.count(str(PORT)) == 1
        # As printed, except where another program on this machine has its port.
        text = program.replace(str(PORT), str(port))
        (tmp_path / name).write_text(text, encoding="utf-8")
    with serving(tmp_path / "server.py", port):
        for _ in range(2):
            with running(tmp_path / "client.py") as client:
                assert finish(client) == "b'you said hello' b'you said byebye'\n"
    assert "prints `b'you said hello' b'you said byebye'`" in README


def free_port(wanted: int) -> int:
    """The wanted port, or any other where that one is taken."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as probe:
            chosen: int = probe.getsockname()[1]
            return chosen
    raise AssertionError("no port is free")


# --- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", OTHERS, ids=lambda text: text.split()[1])
def test_a_program_prints_what_it_says(program: str) -> None:
    expected = "".join(f"{text}\n" for text in re.findall(r"# prints (.*)$", program, re.MULTILINE))
    assert expected
    with running("-c", program) as process:
        assert finish(process) == expected


def test_the_interactive_examples_give_what_they_show() -> None:
    # One session from top to bottom; each block at its own line, so that a failure names it.
    lines = [""] * README.count("\n")
    for block in BLOCKS:
        if block.language == "pycon":
            text = block.text.splitlines()
            lines[block.line : block.line + len(text)] = text
    session = doctest.DocTestParser().get_doctest("\n".join(lines), {}, "README.md", "README.md", 0)
    assert len(session.examples) >= 10
    report: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(session, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def codec_rows() -> list[tuple[str, str]]:
    return re.findall(r"^\| [^|]* \| `(Codec\.[^`]*)` \| `(b\"[^`]*)` \|$", README, re.MULTILINE)


def test_the_table_of_codecs_is_read_whole() -> None:
    assert len(codec_rows()) == README.count("| `Codec.") >= 10


@pytest.mark.parametrize(("codec", "frame"), codec_rows())
def test_a_codec_of_the_table_draws_its_frame(codec: str, frame: str) -> None:
    made = eval(codec, {"Codec": Codec})
    assert made.encode(b"hello") == eval(frame)
    assert made.decode(eval(frame)) == b"hello"


def test_the_names_in_the_text_exist() -> None:
    for name in set(re.findall(r"`framecodec\.(\w+)[`\[(]", README)):
        assert hasattr(framecodec, name), name
    assert framecodec.formats["kafka"].encode(b"hello") == b"\x00\x00\x00\x05hello"
    assert len(framecodec.formats) > 60  # "and more than fifty others"
    assert framecodec.parse_codec("u16le,offset=2,includes=frame") == Codec.uint(
        2, "little", length_offset=2, length_includes="frame"
    )


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_a_link_leads_to_a_file(target: str) -> None:
    assert "://" in target or (ROOT / target).exists()


def test_the_commands_of_the_text_run() -> None:
    mentioned = {
        text
        for text in re.findall(r"`framecodec ([^`]+)`", README)
        if text != "demo"  # it has its own test file
    }
    assert mentioned == {"--version", "formats"}
    for text in mentioned:
        process = subprocess.run(
            [sys.executable, "-m", "framecodec", *shlex.split(text)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=True,
        )
        assert process.stdout
        assert process.stderr == b""


def test_the_place_of_the_benchmarks_is_marked_once() -> None:
    assert README.count("<!-- benchmarks -->") == README.count("<!-- /benchmarks -->") == 1
    assert README.index("<!-- benchmarks -->") < README.index("<!-- /benchmarks -->")
