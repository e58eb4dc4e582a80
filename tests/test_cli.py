"""The command line: usage, exit statuses and complaints; and the table of formats."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import framecodec
from framecodec import Codec, cli
from framecodec.catalogue import formats
from framecodec.cli import formats as formats_command
from tests.helpers.command import started
from tests.helpers.subprocesses import ROOT, finish, running


@pytest.fixture
def add_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], int]], None]:
    """Adds the command ``try`` to the command line: a family of one."""

    def add(run: Callable[[Any], int]) -> None:
        def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
            commands.add_parser("try").set_defaults(run=run)

        family = SimpleNamespace(add_commands=add_commands)
        monkeypatch.setattr(cli, "_FAMILIES", (*cli._FAMILIES, family))

    return add


# --- usage ----------------------------------------------------------------------------------------


def test_the_version_names_the_package_the_engine_and_the_python(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--version"]) == 0
    engine = "compiled" if framecodec.ACCELERATED else "Python"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    output = capsys.readouterr()
    assert output.out == f"framecodec {framecodec.__version__}, {engine} engine, {python}\n"
    assert output.err == ""


def test_the_module_is_the_same_command() -> None:
    with running("-m", "framecodec", "--version") as process:
        assert finish(process).startswith(f"framecodec {framecodec.__version__}, ")


def test_the_package_declares_the_command() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, name = declared["project"]["scripts"]["framecodec"].partition(":")
    assert getattr(importlib.import_module(module), name) is cli.main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert {"demo", "formats"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["demo", "formats"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: framecodec {command}")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["--nonsense"], "COMMAND"),
        (["demo", "--nonsense"], "--nonsense"),
        (["formats", "kafak"], "did you mean kafka"),
        (["formats", "a\nb\x1b[2J"], r"a\nb\x1b[2J"),
        (["--vers"], "COMMAND"),  # no abbreviations: they would change with every new option
    ],
)
def test_bad_usage_is_one_clear_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("framecodec")
    assert output.err.count("\n") == 1
    assert complaint in output.err


def test_a_process_with_bad_usage_ends_with_status_2() -> None:
    with running("-m", "framecodec", "nonsense") as process:
        output, complaints = process.communicate()
    assert (process.returncode, output, complaints.count("\n")) == (2, "", 1)


# --- what a command may run into ------------------------------------------------------------------


def test_a_command_gives_its_status(add_command: Callable[[Callable[[Any], int]], None]) -> None:
    add_command(lambda _: 7)
    assert cli.main(["try"]) == 7


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "capture.bin"),
        framecodec.InvalidFrameError("no frame"),
        TimeoutError(),
        OSError("a name\nof two lines"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_goes_wrong_is_one_line_behind_what_was_printed_before(
    error: Exception,
    add_command: Callable[[Callable[[Any], int]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_: object) -> int:
        print("the first message")
        raise error

    add_command(run)
    assert cli.main(["try"]) == 1
    output = capsys.readouterr()
    assert output.out == "the first message\n"
    said = str(error).replace("\n", r"\n") or "TimeoutError"
    assert output.err == f"framecodec: {said}\n"


def test_ctrl_c_is_no_traceback(
    add_command: Callable[[Callable[[Any], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        raise KeyboardInterrupt

    add_command(run)
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err == ""


def test_a_defect_is_not_hidden(add_command: Callable[[Callable[[Any], int]], None]) -> None:
    def run(_: object) -> int:
        raise ZeroDivisionError

    add_command(run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["try"])


def test_characters_that_the_terminal_lacks_are_escaped(
    add_command: Callable[[Callable[[Any], int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    add_command(lambda _: print("你") or 0)
    assert cli.main(["try"]) == 0
    assert written.getvalue().split() == [b"\\u4f60"]


def test_without_standard_output_a_command_still_runs(
    add_command: Callable[[Callable[[Any], int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    add_command(lambda _: print("no one reads this") or 0)
    assert cli.main(["try"]) == 0


def test_after_a_reader_went_away_the_output_goes_nowhere(
    add_command: Callable[[Callable[[Any], int]], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def run(_: object) -> int:
        raise BrokenPipeError

    add_command(run)
    with (tmp_path / "output").open("w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert cli.main(["try"]) == 1
        print("what Python would flush at its exit")
        output.flush()
    assert (tmp_path / "output").read_bytes() == b""


def run_command(argument: str, stdout: int) -> tuple[int, bytes]:
    process = subprocess.run(
        [sys.executable, "-m", "framecodec", argument],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    return process.returncode, process.stderr


PRINTING = ["formats", "--version", "--help"]


@pytest.mark.parametrize("argument", PRINTING)
def test_a_reader_that_went_away_is_no_error_to_be_told_about(argument: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run_command(argument, writer) == (1, b"")
    finally:
        os.close(writer)


@pytest.mark.parametrize("argument", PRINTING)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device here is always full")
def test_a_full_disk_is_one_line(argument: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        status, complaints = run_command(argument, full)
    finally:
        os.close(full)
    assert status == 1
    assert complaints.startswith(b"framecodec: ")
    assert os.strerror(errno.ENOSPC).encode() in complaints
    assert complaints.count(b"\n") == 1


# --- formats --------------------------------------------------------------------------------------


def test_the_table_has_a_line_for_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["formats"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAME", "FRAME", "WHAT", "IT", "IS"]
    assert [line.split()[0] for line in lines] == list(formats)
    frame, what = heading.index("FRAME"), heading.index("WHAT")
    for line, row in zip(lines, formats.table(), strict=True):
        assert line[frame:what].strip() == formats_command.draw(row.codec)
        assert line[what:] == f"{row.description} ({row.specification})"


@pytest.mark.parametrize(
    ("codec", "drawing"),
    [
        (Codec.uint(4), "<u32be> <rest>"),
        (Codec.uint(1), "<u8> <rest>"),
        (Codec.struct("<q"), "<i64le> <rest>"),
        (Codec.uint(3, "little", length_adjustment=1), "<u24le = rest-1> <rest>"),
        (Codec.uint(4, length_offset=1, length_adjustment=-4), "<1> <u32be = rest+4> <rest>"),
        (
            Codec.uint(2, magic=b"\xff" * 16, length_includes="frame"),
            "ff*16 <u16be = frame> <rest>",
        ),
        (Codec.uint(4, magic=b"\xf9\xbe", length_offset=14), "f9be <12> <u32be> <rest>"),
        (Codec.uint(4, magic=b"h", trailer=b"GIOP"), "68 <u32be> <rest> 'GIOP'"),
        (Codec.digits(4), "<4 decimal digits> <rest>"),
        (Codec.digits(4, base=16, length_includes="frame"), "<4 hex digits = frame> <rest>"),
        (Codec.text(b":", trailer=b","), "<decimal> ':' <rest> ','"),
        (Codec.text(b"\r\n", base=16), "<hex> 0d0a <rest>"),
        (Codec.varint(length_offset=1), "<1> <varint> <rest>"),
        (Codec.headers("Size"), "Size: <decimal> 0d0a0d0a <rest>"),
        (Codec.custom(lambda view: None, lambda message: b"", magic=b"$"), "'$' <header> <rest>"),
    ],
    ids=str,
)
def test_a_frame_is_drawn_as_it_travels(codec: Codec, drawing: str) -> None:
    assert formats_command.draw(codec) == drawing


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("arguments", [[], ["postgres"]])
def test_the_formats_fit_a_terminal(columns: int, arguments: list[str]) -> None:
    with started("formats", *arguments, terminal=columns) as process:
        assert process.wait() == 0
    lines = process.output.decode().splitlines()
    assert max(map(len, lines)) <= columns
    shown = " ".join(" ".join(lines).split())
    assert formats.describe("postgres").description in shown or columns > 120
    if not arguments:
        assert {line.split()[0] for line in lines if line[:1].strip()} == {"NAME", *formats}


# --- no standard streams --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["decode", "--codec", "u8"],
        ["decode", "--codec", "u8", "--json"],
        ["dump", "--codec", "u8"],
        ["dump", "--codec", "u8", "--json"],
        ["guess"],
        ["formats"],
    ],
    ids=" ".join,
)
def test_commands_run_where_there_are_no_standard_streams(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows gives none to a program without a console; nor do some services."""
    file = tmp_path / "frames"
    file.write_bytes(Codec.uint(1).encode_many([b"one", b"three"] * 10))
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert cli.main([*arguments, *([] if arguments == ["formats"] else [str(file)])]) == 0


@pytest.mark.parametrize("command", ["decode", "encode", "dump"])
def test_standard_input_is_asked_for_where_there_is_none(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main([command, "--codec", "u8"]) != 0
    assert "there is no standard input; name a file" in capsys.readouterr().err
