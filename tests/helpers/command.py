"""The command line: run in this process, as a process, or in a pseudo-terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from framecodec import cli

LIFETIME = 30.0  # seconds after which a process is ended; no test that passes needs them


class Result(NamedTuple):
    """What a command did."""

    status: int
    output: bytes
    errors: str


def run(*arguments: str, stdin: bytes = b"") -> Result:
    """Run a command in this process, with pipes instead of the standard streams."""
    output, errors = io.BytesIO(), io.StringIO()
    saved = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)))
    sys.stdout = io.TextIOWrapper(output, encoding="utf-8")
    sys.stderr = errors
    try:
        status = cli.main(list(arguments))
        sys.stdout.flush()
        return Result(status, output.getvalue(), errors.getvalue())
    finally:
        sys.stdout.detach()
        sys.stdin, sys.stdout, sys.stderr = saved


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command: that of the tests without settings of a terminal."""
    left_out = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {"PYTHONIOENCODING": "utf-8"} | more


def run_process(*arguments: str, stdin: bytes = b"") -> Result:
    """Run a command as a process with pipes."""
    done = subprocess.run(
        [sys.executable, "-m", "framecodec", *arguments],
        input=stdin,
        capture_output=True,
        timeout=LIFETIME,
        check=False,
        env=environment(),
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


class Process:
    """A command that runs while the test talks to it; standard error comes with the output."""

    def __init__(self, process: subprocess.Popen[bytes], read_end: int, write_end: int) -> None:
        self._process = process
        self._read_end = read_end
        self._write_end = write_end
        self.output = b""

    def type(self, text: bytes) -> None:
        """Write to the command's standard input."""
        os.write(self._write_end, text)

    def close_input(self) -> None:
        """End the command's standard input; in a terminal type Ctrl-D."""
        os.close(self._write_end)

    def read_until(self, text: bytes) -> bytes:
        """Read the output until it has a text, and return all of it."""
        deadline = time.monotonic() + LIFETIME
        while text not in self.output:
            chunk = self._read(deadline)
            if not chunk:
                raise AssertionError(f"the command ended after {self.output!r}")
            self.output += chunk
        return self.output

    def _read(self, deadline: float) -> bytes:
        """Return the next output; empty at its end."""
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._read_end], [], [], left)[0]:
            raise AssertionError(f"the command hangs after {self.output!r}")
        try:
            return os.read(self._read_end, 65536)
        except OSError:  # Linux: the last process has closed the terminal
            return b""

    def address(self) -> str:
        """Return the address that the command listens on."""
        self.read_until(b"listening on ")
        while (match := re.search(rb"listening on (\S+)\r?\n", self.output)) is None:
            self.read_until(self.output + b"\n" if self.output.endswith(b"\r") else b"\n")
        return match[1].decode()

    def interrupt(self) -> None:
        """Send the signal of Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the command as a power failure would."""
        self._process.kill()
        self._process.wait(LIFETIME)

    def wait(self) -> int:
        """Return the exit status; the rest of the output is in `output`."""
        deadline = time.monotonic() + LIFETIME
        while chunk := self._read(deadline):
            self.output += chunk
        return self._process.wait(LIFETIME)


def started(
    *arguments: str, terminal: int | None = None, color: bool = True
) -> contextlib.AbstractContextManager[Process]:
    """Start a command of framecodec; see `started_command`."""
    command = [sys.executable, "-m", "framecodec", *arguments]
    return started_command(command, terminal=terminal, color=color)


@contextlib.contextmanager
def started_command(
    command: list[str], *, terminal: int | None = None, color: bool = True
) -> Iterator[Process]:
    """Start a command; it is ended when the block is.

    Args:
        command: The program and its arguments.
        terminal: The columns of the pseudo-terminal that it runs in; None for pipes.
        color: Whether the terminal has colours.
    """
    settings = environment(TERM="xterm-256color", **({} if color else {"NO_COLOR": "1"}))
    if terminal is None:
        read_end, stdout = os.pipe()
        stdin, write_end = os.pipe()
        ends = [read_end, write_end]
        prepare = None
    else:
        import fcntl
        import pty
        import struct
        import termios

        read_end, stdout = pty.openpty()
        fcntl.ioctl(stdout, termios.TIOCSWINSZ, struct.pack("HHHH", 40, terminal, 0, 0))
        stdin, write_end = stdout, read_end
        ends = [read_end]

        def take_terminal() -> None:  # so that a typed Ctrl-C is a signal
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        prepare = take_terminal
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stdout,
        env=settings,
        start_new_session=True,
        preexec_fn=prepare,
    )
    for end in {stdin, stdout}:
        os.close(end)
    try:
        yield Process(process, read_end, write_end)
    finally:
        process.terminate()  # coverage's handler saves what the process ran
        try:
            process.wait(LIFETIME)
        finally:
            process.kill()
            process.wait()
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)
