"""The other end of a connection: a separate process that sends, answers or discards bytes.

It does so as cheaply as the kernel allows, and it is the same for every contender, so only the
contender makes a difference. Commands are lines of JSON on its standard input::

    stream  listen; send the bytes of a file `times` times on the command "go"; close
    echo    listen; answer every `request_size` bytes with the bytes of a file
    sink    listen; read `size` bytes and print that they are complete

If a contender's protocol begins with a greeting (WebSocket, ZeroMQ), the process sends it. It knows
nothing else of the protocols.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import hashlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TIMEOUT = 30.0  # seconds, far more than any wait here takes

FAMILIES = {"TCP": socket.AF_INET, "Unix": getattr(socket, "AF_UNIX", None)}


# --- this end: called by the benchmarks -----------------------------------------------------------


class RemoteProcess:
    """A running remote process; it has one connection at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="framecodec-bench-")
        self._files: dict[str, str] = {}
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.remote_process"],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._pending = b""
        self._busy = False

    def file(self, name: str, make: Callable[[], bytes]) -> str:
        """Write bytes to a file for the remote process, once for each name; return its path."""
        if name not in self._files:
            path = Path(self._folder.name) / f"{len(self._files)}.bin"
            path.write_bytes(make())
            self._files[name] = str(path)
        return self._files[name]

    @contextlib.contextmanager
    def restarted_on_failure(self) -> Iterator[None]:
        """Restart the process if a contender fails to connect: the others still need it."""
        try:
            yield
        except BaseException:
            self._stop(patience=0)
            self._start()
            raise

    def begin(self, family: str, **command: Any) -> Any:
        """Start a command; return the address to connect to."""
        self.finish()
        self._busy = True
        self._write({"family": family, "folder": self._folder.name, **command})
        return self._read()["address"]

    def ready(self) -> None:
        """Wait until the process has accepted the connection and sent the greeting."""
        assert self._read() == {"ready": True}

    def go(self) -> None:
        self._write({"do": "go"})

    def got(self) -> dict[str, Any]:
        """Wait until a sink has all its bytes; return its answer."""
        return self._read()

    def finish(self) -> None:
        """Wait until the connection is closed at both ends; close this end first."""
        if self._busy:
            while not self._read().get("closed"):
                pass
            self._busy = False

    def pin(self, processor: int | None) -> None:
        """Bind the process to one processor, or to all if `processor` is None."""
        self.finish()
        processors = all_processors() if processor is None else {processor}
        os.sched_setaffinity(self._process.pid, processors)

    def close(self) -> None:
        self._stop(patience=5)
        self._folder.cleanup()

    def _stop(self, patience: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _write(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([descriptor], [], [], TIMEOUT)[0]:
                raise TimeoutError(f"no answer from the remote process within {TIMEOUT:g} s")
            data = os.read(descriptor, 65536)
            if not data:
                raise EOFError("the remote process has ended")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)


@functools.cache
def shared() -> RemoteProcess:
    """Return the remote process that all benchmarks of this process share."""
    process = RemoteProcess()
    atexit.register(process.close)
    return process


@functools.cache
def all_processors() -> set[int]:
    return os.sched_getaffinity(0)


def connect(family: str, address: Any) -> socket.socket:
    """Return a blocking socket whose calls fail after half a minute.

    The kernel has a time-out for this; Python's own would add a poll to each call.
    """
    sock = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
    sock.connect(tuple(address) if family == "TCP" else address)
    if hasattr(socket, "SO_RCVTIMEO") and sys.platform == "linux":
        seconds = int(TIMEOUT).to_bytes(8, sys.byteorder) + bytes(8)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
    return sock


# --- the other end --------------------------------------------------------------------------------


def _answer(**result: Any) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _commands() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    commands = _commands()
    for number, command in enumerate(commands):
        family = FAMILIES[command["family"]]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            if family == socket.AF_INET:
                listener.bind(("127.0.0.1", 0))
            else:
                listener.bind(os.path.join(command["folder"], f"{os.getpid()}-{number}"))
            listener.listen(1)
            listener.settimeout(TIMEOUT)
            _answer(address=listener.getsockname())
            sock, _ = listener.accept()
        with sock:
            sock.settimeout(TIMEOUT)
            if family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            GREETINGS[command["greeting"]](sock)
            sock.setblocking(True)
            _answer(ready=True)
            try:
                WORK[command["do"]](sock, command, commands)
            except OSError as error:
                print(f"remote process: {command['do']}: {error}", file=sys.stderr)
        _answer(closed=True)


def _stream(
    sock: socket.socket, command: dict[str, Any], commands: Iterator[dict[str, Any]]
) -> None:
    block = Path(command["path"]).read_bytes()
    assert next(commands) == {"do": "go"}
    try:
        for _ in range(command["times"]):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        return
    _discard(sock)


def _discard(sock: socket.socket) -> None:
    sock.settimeout(TIMEOUT)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass


def _echo(sock: socket.socket, command: dict[str, Any], commands: Iterator[dict[str, Any]]) -> None:
    reply, size = Path(command["path"]).read_bytes(), command["request_size"]
    received = 0
    recv, send = sock.recv, sock.sendall
    try:
        while data := recv(65536):
            received += len(data)
            while received >= size:
                received -= size
                send(reply)
    except (BrokenPipeError, ConnectionResetError):
        pass


def _sink(sock: socket.socket, command: dict[str, Any], commands: Iterator[dict[str, Any]]) -> None:
    left, buffer = command["size"], bytearray(1 << 20)
    keep = hashlib.sha256() if command["check"] else None
    while left:
        count = sock.recv_into(buffer, min(left, len(buffer)))
        if not count:
            break
        left -= count
        if keep is not None:
            keep.update(memoryview(buffer)[:count])
    _answer(missing=left, sha256=keep.hexdigest() if keep is not None else None)
    _discard(sock)


WORK = {"stream": _stream, "echo": _echo, "sink": _sink}


# --- greetings ------------------------------------------------------------------------------------


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the contender closed the connection")
        data += more
    return data


def send_no_greeting(sock: socket.socket) -> None:
    pass


def greet_websocket(sock: socket.socket) -> None:
    """RFC 6455, section 4.2.2: the server's part of the opening handshake."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += _receive_exactly(sock, 1)
    key = next(
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def greet_zmtp(sock: socket.socket) -> None:
    """ZMTP 3.0, mechanism NULL: both greetings, then both READY commands."""
    sock.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    _receive_exactly(sock, 64)
    properties = b"\x0bSocket-Type\x00\x00\x00\x04PUSH\x08Identity\x00\x00\x00\x00"
    ready = b"\x05READY" + properties
    sock.sendall(bytes((0x04, len(ready))) + ready)
    _, size = _receive_exactly(sock, 2)
    _receive_exactly(sock, size)


GREETINGS = {"none": send_no_greeting, "websocket": greet_websocket, "zmtp": greet_zmtp}

if __name__ == "__main__":
    main()
