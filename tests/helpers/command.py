"""The command line: in this process, also with a user, as a process, or in a pseudo-terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

import framecodec
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


# --- a command and its user in this process -------------------------------------------------------


class Notes(io.StringIO):
    """Standard error that another thread can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def write(self, text: str) -> int:
        with self._changed:
            self._changed.notify_all()
            return super().write(text)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a pattern, and return its first match."""
        with self._changed:
            found = self._changed.wait_for(lambda: re.search(pattern, self.getvalue()), LIFETIME)
        assert found, self.getvalue()
        return found


class User:
    """The user of a command that runs in the main thread of this process."""

    def __init__(self, keyboard: int) -> None:
        self._keyboard = keyboard
        self.notes = Notes()

    def type(self, text: bytes) -> None:
        """Write to the command's standard input."""
        os.write(self._keyboard, text)

    def end_input(self) -> None:
        """End the command's standard input."""
        if self._keyboard >= 0:
            os.close(self._keyboard)
            self._keyboard = -1

    def interrupt(self) -> None:
        """Type Ctrl-C."""
        ident = threading.main_thread().ident
        assert ident is not None
        signal.pthread_kill(ident, signal.SIGINT)

    def address(self) -> tuple[str, int]:
        """Return the address that the command listens on."""
        found = self.notes.wait_for(r"listening on (\S+):([0-9]+)\n")
        return found[1], int(found[2])

    def connect(self, **options: Any) -> framecodec.FrameSocket:
        """Connect to the command, and wait until it has noticed that."""
        conn = framecodec.connect(self.address(), **options)
        conn.settimeout(20)
        self.notes.wait_for(rf"127\.0\.0\.1:{conn.getsockname()[1]} connected\n")
        return conn


def run_with_user(
    use: Callable[[User], object],
    *arguments: str,
    output: TextIO | None = None,
    terminal: bool = False,
) -> Result:
    """Run a command in this process while a function, in another thread, is its user.

    Args:
        use: The function; if it fails, the command is interrupted.
        arguments: Those of the command.
        output: Standard output; if None, the result has what was written.
        terminal: The user types in a terminal.
    """
    read_end, write_end = os.openpty()[::-1] if terminal else os.pipe()
    user, written, failed = User(write_end), io.BytesIO(), list[BaseException]()

    def use_or_interrupt() -> None:
        try:
            use(user)
        except BaseException as error:
            failed.append(error)
            user.interrupt()

    thread = threading.Thread(target=use_or_interrupt)
    saved = sys.stdin, sys.stdout, sys.stderr
    with open(read_end, "rb", buffering=0) as keyboard:
        sys.stdin = keyboard  # type: ignore[assignment]
        sys.stdout = output or io.TextIOWrapper(written, encoding="utf-8")
        sys.stderr = user.notes
        try:
            thread.start()
            status = cli.main(list(arguments))
        finally:
            if output is None:
                sys.stdout.detach()
            sys.stdin, sys.stdout, sys.stderr = saved
            thread.join(LIFETIME)
            user.end_input()
            for reader in threading.enumerate():
                if reader.name.endswith("(read)"):  # of this file descriptor
                    reader.join(LIFETIME)
    if failed:
        raise failed[0]
    return Result(status, written.getvalue(), user.notes.getvalue())


@contextlib.contextmanager
def closed_output() -> Iterator[TextIO]:
    """Give a standard output that nothing reads."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w") as output:
        yield output
