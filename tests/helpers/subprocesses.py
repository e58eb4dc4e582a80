"""Programs as real processes: started, read and ended within a bound, whatever they do."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

LIFETIME = 30.0  # seconds after which a process is ended; no test that passes needs them


@contextlib.contextmanager
def running(*arguments: str | Path, typed: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A Python process, with pipes for its output and its errors; ended when the block is.

    Args:
        arguments: The program and its arguments.
        typed: Whether it has an input, to which `say` writes.
    """
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.PIPE if typed else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    watchdog = threading.Timer(LIFETIME, process.kill)
    watchdog.start()
    try:
        with process:
            try:
                yield process
            finally:
                end(process)
    finally:
        watchdog.cancel()
        watchdog.join()


def end(process: subprocess.Popen[str]) -> None:
    """Ends a process by a signal, and by another one if that does not help."""
    process.terminate()  # coverage's handler saves what the process ran
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()


def say(process: subprocess.Popen[str], line: str) -> None:
    """Types a line into a process."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().removesuffix("\n")


def finish(process: subprocess.Popen[str]) -> str:
    """What a process printed that ends by itself, with success and without a word of error."""
    output, complaints = process.communicate()
    if (process.returncode, complaints) != (0, ""):
        raise AssertionError(f"status {process.returncode}:\n{output}\n{complaints}")
    return output


def printed_port(server: subprocess.Popen[str]) -> str:
    """The port of a server that was started with port 0, from the first line that it prints."""
    assert server.stdout is not None
    line = server.stdout.readline()
    match = re.fullmatch(r"listening on port (\d+)\n", line)
    if match is None:
        server.kill()
        raise AssertionError(f"the server printed {line!r} and {server.communicate()[1]!r}")
    return match[1]
