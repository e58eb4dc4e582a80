"""``framecodec encode`` and ``decode``: lines to frames, frames to lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from framecodec import cli, formats
from framecodec.cli import convert
from tests.helpers.command import environment, run, run_process, started

pytest.importorskip("rich", reason="the extra cli is not installed")


def test_encode_writes_a_frame_for_each_line() -> None:
    result = run("encode", "--codec", "digits4", stdin=b"hello\nbyebye\n")
    assert result == (0, b"0005hello0006byebye", "")


def test_encode_takes_a_last_line_without_its_end_and_empty_lines() -> None:
    assert run("encode", "--codec", "u8", stdin=b"\na\r\nb").output == b"\0\2a\r\1b"


def test_encode_of_nothing_writes_nothing() -> None:
    assert run("encode", "--codec", "u8") == (0, b"", "")


def test_decode_writes_a_line_for_each_frame() -> None:
    result = run("decode", "--codec", "digits4", stdin=b"0005hello0006byebye")
    assert result == (0, b"hello\nbyebye\n", "")


def test_decode_shows_binary_messages_readably() -> None:
    messages = ["你好".encode(), b"\xff\0a\tb", b"two\nlines", b"\x1b[2J", b"a\\b"]
    frames = formats.erlang1.encode_many(messages)
    lines = run("decode", "--codec", "u8", stdin=frames).output.decode().splitlines()
    assert lines == ["你好", "\\xff\\x00a\tb", "two\\nlines", "\\x1b[2J", "a\\b"]


@pytest.mark.parametrize("form", ["--hex", "--json"])
def test_decode_and_encode_lose_nothing(form: str) -> None:
    frames = formats["pkt-line"].encode_many([b"\xff\0\n", b"x" * 300])
    frames += b"0000" if form == "--json" else b""
    decoded = run("decode", form, "--codec", "pkt-line", stdin=frames)
    assert decoded.status == 0
    assert run("encode", form, "--codec", "pkt-line", stdin=decoded.output).output == frames


def test_decode_json_has_the_place_of_each_frame() -> None:
    result = run("decode", "--json", "--codec", "digits4", stdin=b"0005hello0001a")
    assert [json.loads(line) for line in result.output.splitlines()] == [
        {"index": 0, "offset": 0, "size": 9, "message": "68656c6c6f"},
        {"index": 1, "offset": 9, "size": 5, "message": "61"},
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "output", "complaint"),
    [
        (["encode", "--codec", "u8"], b"good\n" + b"x" * 300 + b"\nlate\n", b"\4good", "line 2:"),
        (["encode", "--hex", "--codec", "u8"], b"00\n0g\n", b"\1\0", "line 2: '0g' is not hex"),
        (["encode", "--json", "--codec", "u8"], b'{"message": 1}\n', b"", "line 1:"),
        (["encode", "--json", "--codec", "u8"], b"[" * 99999 + b"\n", b"", "line 1:"),
        (["decode", "--codec", "digits4"], b"0001ax", b"a\n", "stream offset 5"),
        (["decode", "--codec", "digits4"], b"0001a00", b"a\n", "stream"),
        (["decode", "--json", "--codec", "u32be"], b"GET / HTTP/1.1", b"", "1195725856"),
    ],
)
def test_bad_input_is_one_line_after_what_was_good(
    arguments: list[str], stdin: bytes, output: bytes, complaint: str
) -> None:
    result = run(*arguments, stdin=stdin)
    assert result.status == 1
    assert result.output == output
    assert complaint in result.errors
    assert result.errors.count("\n") == 1
    assert result.errors.startswith("framecodec: ")


def test_a_file_that_is_missing_or_a_folder_is_one_line(tmp_path) -> None:
    for name in (tmp_path / "missing", tmp_path):
        result = run("decode", "--codec", "u8", str(name))
        assert (result.status, result.output) == (1, b"")
        assert str(name) in result.errors
        assert result.errors.count("\n") == 1


def test_bad_codecs_are_bad_usage() -> None:
    result = run("encode", "--codec", "u33be")
    assert (result.status, result.output) == (2, b"")
    assert "u33be" in result.errors
    assert run("encode").status == 2


def test_frames_pass_through_processes() -> None:
    lines = b"".join(b"line %d\n" % number for number in range(1000))
    frames = run_process("encode", "--codec", "varint", stdin=lines)
    assert (frames.status, frames.errors) == (0, "")
    assert run_process("decode", "--codec", "varint", stdin=frames.output) == (0, lines, "")


def test_each_line_is_a_frame_at_once() -> None:
    # The command must not wait for more lines: a person or a program may be typing them.
    with started("encode", "--codec", "digits4") as process:
        process.type(b"hello\n")
        process.read_until(b"0005hello")
        process.type(b"a")
        process.close_input()
        assert process.wait() == 0
        assert process.output == b"0005hello0001a"


@pytest.mark.parametrize("command", ["decode", "encode"])
def test_a_closed_pipe_ends_the_command_without_a_word(command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "framecodec", command, "--codec", "digits1", "--hex"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    try:
        process.stdin.write((b"1a" if command == "decode" else b"61\n") * 100_000)
        process.stdin.close()
    except BrokenPipeError:
        pass
    with process:
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_stream() -> None:
    program = """
import resource, sys
from framecodec.cli import main
status = main(sys.argv[1:])
sys.stderr.write(f"{status} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
"""
    frame = formats.erlang2.encode(b"x" * 1000)
    peaks = {}
    for command, unit in (
        (["decode", "--codec", "u16be"], frame),
        (["dump", "--codec", "u16be", "--bytes", "4"], frame),
        (["encode", "--codec", "u16be"], b"x" * 1000 + b"\n"),
    ):
        for count in (1000, 60_000):
            with open(os.devnull, "wb") as nowhere:
                process = subprocess.Popen(
                    [sys.executable, "-c", program, *command],
                    stdin=subprocess.PIPE,
                    stdout=nowhere,
                    stderr=subprocess.PIPE,
                )
                _, said = process.communicate(unit * count, timeout=60)
            status, peak = said.split()
            assert status == b"0"
            peaks[count] = int(peak)
        assert peaks[60_000] - peaks[1000] < 10_000, command  # KiB; the stream has 60 MB


def test_encode_reads_no_more_of_a_line_than_a_message_can_have() -> None:
    given = []

    def endless() -> Iterator[bytes]:
        while True:
            given.append(b"x" * 100)
            yield given[-1]

    ((line,),) = convert._lines(endless(), 250)
    assert line == b"".join(given) == b"x" * 300


def test_encode_refuses_a_line_without_an_end_before_all_of_it_has_arrived() -> None:
    result = run("encode", "--codec", "u8", stdin=b"x" * 1_000_000)
    assert (result.status, result.output) == (1, b"")
    assert result.errors.startswith("framecodec: line 1: message too large: ")


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_standard_stream_that_is_closed_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, name, None)
    assert cli.main(["encode", "--codec", "u8"]) == 1
    what = "input" if name == "stdin" else "output"
    assert f"there is no standard {what}" in capsys.readouterr().err


def test_special_messages_of_any_kind_are_shown_and_read_back() -> None:
    stream = formats["pkt-line"].encode_many(
        [b"a", *(formats["pkt-line"].parameters["specials"] or {}).values()]
    )
    lines = run("decode", "--codec", "pkt-line", "--json", stdin=stream).output
    assert b'"special"' in lines
    assert run("encode", "--codec", "pkt-line", "--json", stdin=lines).output == stream
    assert run("decode", "--codec", "pkt-line", stdin=stream).output.count(b"\n") >= 2
