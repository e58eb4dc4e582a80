"""Native contenders: programs in other languages that split and encode the same bytes.

The folder of a program has a `build.sh` that prints the command to start it, or fails with the
reason why it cannot be built. The program answers lines on its standard input with lines of JSON,
`{"variant": ns a message, ...}`:

    split FILE CHUNK SECONDS     the file, CHUNK bytes at a time (0: whole), again and again
    encode FILE SECONDS          the file's messages, as one batch

It counts what it split: "messages" and "bytes" of the answer must be what the file holds.

The programs of `bench_server.py` are others: `load` answers other lines, and the echo servers
`c_echo` and `tokio_echo` print their port and end with their standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import re
import select
import shlex
import subprocess
import zipfile
from pathlib import Path

from ..contenders import Missing
from ..harness import Entry, expect

HERE = Path(__file__).parent
TIMEOUT = 120.0  # seconds
LEAST_SECONDS = 0.2


@functools.cache
def _build(folder: str) -> str | Missing:
    script = HERE / folder / "build.sh"
    try:
        built = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Missing(f"{folder}: {error}")
    if built.returncode:
        last = (built.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Missing(f"{folder}: {last}")
    return built.stdout.strip().splitlines()[-1]


def build(folder: str) -> str:
    """Build the program on the first call; return the command that starts it."""
    built = _build(folder)
    if isinstance(built, Missing):
        raise built
    return built


class NativeProgram:
    """A running program."""

    def __init__(self, folder: str) -> None:
        self.command = build(folder)
        self._process = subprocess.Popen(
            shlex.split(self.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        atexit.register(self.close)

    def ask(self, question: str) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.poll() is not None:
            raise EOFError("the program has ended")
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], TIMEOUT)[0]:
            self._process.kill()  # its late answer must not be taken for the next one
            self._process.wait()
            raise TimeoutError(f"no answer to: {question}")
        answer = self._process.stdout.readline()
        if not answer:
            raise EOFError("the program has ended")
        return json.loads(answer)

    def close(self) -> None:
        stop(self._process)


def stop(process: subprocess.Popen[str]) -> None:
    """End a program that ends with its standard input, and close its pipes."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


@functools.cache
def start(folder: str) -> NativeProgram | Missing:
    """Start the program on the first call; return it, or the reason why it cannot run."""
    try:
        return NativeProgram(folder)
    except Missing as reason:
        return reason


def get(folder: str) -> NativeProgram:
    found = start(folder)
    if isinstance(found, Missing):
        raise found
    return found


def versions() -> dict[str, str]:
    """Return the versions of the programs that were built, and of their compilers."""
    found = {}
    if isinstance(start("tokio"), NativeProgram):
        found["Rust"] = _output_of(r"rustc (\S+)", "rustc", "--version")
        lock = HERE / "tokio" / "build" / "crate" / "Cargo.lock"
        if lock.exists():
            found["tokio-util"] = _first_group(
                r'name = "tokio-util"\nversion = "(.+)"', lock.read_text()
            )
    netty = start("netty")
    if isinstance(netty, NativeProgram):
        found["Java"] = _output_of(r'version "(.+?)"', "java", "-version")
        (jars,) = (word for word in shlex.split(netty.command) if "netty-" in word)
        with zipfile.ZipFile(jars.split(":")[0]) as classes:
            manifest = classes.read("META-INF/MANIFEST.MF").decode()
        found["Netty"] = _first_group(r"Implementation-Version: (\S+)", manifest)
    return found


def _output_of(pattern: str, *command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return _first_group(pattern, ran.stdout + ran.stderr)


def _first_group(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else "unknown"


def entry(folder: str, question: str, path: str, messages: int, size: int) -> Entry:
    """Return the entry of a native program in a case.

    Args:
        folder: The program's folder.
        question: The program's command without the seconds, for example ``split {} 0``.
        path: The file with the frames, which replaces the ``{}``.
        messages: How many messages the file holds.
        size: The size of all messages together, in bytes.
    """
    program = get(folder)

    def measure(number: int, seconds: float) -> dict[str, float]:
        # Longer than others: first its heap and, in Java, its compiler must warm up.
        answer = program.ask(f"{question.format(path)} {max(seconds, LEAST_SECONDS)}")
        right = (answer.pop("messages"), answer.pop("bytes")) == (messages, size)
        expect(right, folder, "other messages than the file holds")
        return answer

    measure(0, 0.0)
    return Entry(
        folder,
        "native",
        lambda number, times: (),
        lambda: None,
        lambda result: None,
        units=messages,
        measured_elsewhere=measure,
    )
