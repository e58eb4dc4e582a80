"""Starts and ends the peers: each on a port of 127.0.0.1, each ended by its own process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from typing import Any

import pytest

__all__ = ["TIMEOUT", "find", "read_line", "running", "serving"]

# Of everything that waits for a peer, in seconds: far more than any of them needs.
TIMEOUT = 30.0

HINT = "tests/interop/install.sh installs it"
SERVER_FOLDERS = ("/usr/sbin", "/usr/local/sbin", *sorted(glob("/usr/lib/postgresql/*/bin")))


def find(command: str) -> str:
    """Return the path of a program; skip the test if it is not installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SERVER_FOLDERS))
    found = shutil.which(command, path=path)
    if found is None:
        pytest.skip(f"{command} is not installed; {HINT}")
    return found


@contextlib.contextmanager
def running(
    arguments: Sequence[str], *, stop: signal.Signals = signal.SIGTERM, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process and end it with the block; if the block fails, show what it printed."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(arguments, stderr=errors, **options)
        try:
            yield process
        except BaseException as error:
            errors.seek(0)
            output = errors.read()[-2000:].decode(errors="replace")
            error.add_note(f"{arguments[0]} (exit {process.poll()}) printed: {output}")
            raise
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(stop)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read_line(process: subprocess.Popen[bytes]) -> str:
    """The next line of a peer's standard output."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the peer ended early"
    return line.decode().strip()


@contextlib.contextmanager
def serving(command: Callable[[int], Sequence[str]], **options: Any) -> Iterator[int]:
    """Start a server that takes its port as an argument; yield the port.

    Args:
        command: From a port, the arguments that start the server there.
        options: Of `running`.
    """
    for attempt in range(3):  # between finding a port and using it, another process may take it
        port = _free_port()
        with running(command(port), **options) as process:
            if _is_there(port, process):
                yield port
                return
            assert attempt < 2, "the server did not come up"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _is_there(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return process.poll() is None
    return False
