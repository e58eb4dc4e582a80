"""Real peers over pipes and serial lines: `FramePipe`, and streams in both event loops.

As in `tests/test_interop.py`, a test whose peer is not installed is skipped; `nox -s interop`
installs all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from framecodec import Check, Codec, FramePipe, formats
from framecodec.asyncio import FrameStream, open_pipes, open_process
from framecodec.catalogue import PktLine
from tests.helpers.event_loops import LOOPS, run
from tests.interop.processes import TIMEOUT, find, running
from tests.test_interop import PROGRAMS, repository, watchdog

pytest.importorskip("pwd", reason="the peers are those of a Unix system")

__all__ = ["repository"]

WORLDS = pytest.mark.parametrize("world", ["blocking", *LOOPS.args[1]])


class Blocking:
    """A `FramePipe` with the coroutines of a `FrameStream`, which never wait for the loop."""

    def __init__(self, pipe: FramePipe) -> None:
        self._pipe = pipe

    async def send(self, message: Any) -> None:
        self._pipe.send(message)

    async def send_many(self, messages: list[Any]) -> None:
        self._pipe.send_many(messages)

    async def recv(self) -> Any:
        return self._pipe.recv()

    async def rest(self) -> list[Any]:
        return list(self._pipe)


class Streaming:
    """A `FrameStream`, with the same coroutines."""

    def __init__(self, stream: FrameStream) -> None:
        self.send = stream.send
        self.send_many = stream.send_many
        self.recv = stream.recv
        self._stream = stream

    async def rest(self) -> list[Any]:
        return [message async for message in self._stream]


Talk = Callable[[Any], Awaitable[None]]


def converse(
    world: str, command: list[str], codec: Codec, talk: Talk, environment: dict[str, str]
) -> int:
    """Start a program, speak to it, close its standard input; return its exit status."""
    environment = {**os.environ, **environment}
    if world == "blocking":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with running(command, env=environment, **pipes) as process, watchdog(process):
            assert process.stdin is not None
            assert process.stdout is not None
            with FramePipe(process.stdout, process.stdin, codec) as pipe:
                pipe.settimeout(TIMEOUT)
                asyncio.run(talk(Blocking(pipe)))  # type: ignore[arg-type]
            return process.wait(TIMEOUT)

    async def main() -> int:
        process, stream = await open_process(*command, codec=codec, env=environment)
        try:
            async with stream:
                await talk(Streaming(stream))
            return await asyncio.wait_for(process.wait(), TIMEOUT)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    status: int = run(world, main())
    return status


@WORLDS
def test_a_language_server(world: str) -> None:
    pytest.importorskip("pylsp", reason="python-lsp-server is not installed")

    async def talk(conn: Any) -> None:
        async def call(identity: int, method: str, params: Any = None) -> Any:
            request = {"jsonrpc": "2.0", "id": identity, "method": method, "params": params or {}}
            await conn.send(request)
            while (message := await conn.recv()).get("id") != identity:
                pass  # a notification
            return message["result"]

        options = {"processId": None, "rootUri": None, "capabilities": {}}
        assert "capabilities" in await call(1, "initialize", options)
        await conn.send({"jsonrpc": "2.0", "method": "initialized", "params": {}})
        assert await call(2, "shutdown") is None
        await conn.send({"jsonrpc": "2.0", "method": "exit"})
        await conn.rest()

    command = [sys.executable, "-W", "ignore", "-m", "pylsp"]
    assert converse(world, command, formats.lsp.as_json(), talk, {}) == 0


@WORLDS
def test_a_debug_adapter(world: str) -> None:
    pytest.importorskip("debugpy", reason="debugpy is not installed")

    async def talk(conn: Any) -> None:
        async def call(number: int, command: str, **arguments: Any) -> Any:
            request = {"seq": number, "type": "request", "command": command}
            await conn.send({**request, "arguments": arguments})
            while (message := await conn.recv()).get("request_seq") != number:
                assert message["type"] == "event"
            assert message["success"], message
            return message

        answer = await call(1, "initialize", adapterID="python", pathFormat="path")
        assert answer["body"]["supportsConfigurationDoneRequest"]
        await call(2, "disconnect")

    command = [sys.executable, "-W", "ignore", "-m", "debugpy.adapter"]
    converse(world, command, formats.dap.as_json(), talk, {})


@WORLDS
def test_git_sends_a_pack(world: str, repository: Path) -> None:
    async def talk(conn: Any) -> None:
        async def until_flush() -> list[bytes]:
            lines = []
            while (line := await conn.recv()) is not PktLine.FLUSH:
                lines.append(line)
            return lines

        assert (await until_flush())[0] == b"version 2\n"
        await conn.send_many([b"command=ls-refs\n", PktLine.DELIM, PktLine.FLUSH])
        references = dict(reversed(line.split()[:2]) for line in await until_flush())
        commit = references[b"refs/tags/v1"]
        want = [b"command=fetch\n", PktLine.DELIM, b"want " + commit + b"\n", b"done\n"]
        await conn.send_many([*want, PktLine.FLUSH])
        lines = await until_flush()
        assert lines[0] == b"packfile\n"
        pack = b"".join(line[1:] for line in lines[1:] if line[:1] == b"\x01")
        assert pack[:4] == b"PACK"
        assert int.from_bytes(pack[8:12], "big") == 2  # a commit and its tree
        await conn.send(PktLine.FLUSH)
        assert await conn.rest() == []

    command = [find("git"), "upload-pack", str(repository)]
    environment = {"GIT_PROTOCOL": "version=2", "GIT_CONFIG_NOSYSTEM": "1"}
    assert converse(world, command, formats.pkt_line, talk, environment) == 0


@WORLDS
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_port_of_erlang(world: str, size: int) -> None:
    program = [sys.executable, str(PROGRAMS / "echo_program.py"), world, f"erlang{size}"]
    script = str(PROGRAMS / "erlang_port.escript")
    environment = {**os.environ, "HOME": os.environ.get("HOME", "/tmp")}
    environment["ERL_CRASH_DUMP_SECONDS"] = "0"  # it would write one into this folder
    done = subprocess.run(
        [find("escript"), script, str(size), *program],
        capture_output=True,
        timeout=TIMEOUT,
        env=environment,
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"ok\n", b"", 0)


@WORLDS
def test_a_browser_starts_a_native_messaging_host(world: str) -> None:
    """As browsers do: a length in the machine's byte order, JSON, and two arguments of theirs."""
    command = [sys.executable, str(PROGRAMS / "echo_program.py"), world, "native-messaging"]
    command += ["/path/of/the/manifest.json", "extension@example.org"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(command, **pipes) as process, watchdog(process):
        assert process.stdin is not None
        assert process.stdout is not None
        for value in ({"text": "h\u00e9llo"}, [], "x" * 100_000):
            text = json.dumps(value).encode()
            process.stdin.write(struct.pack("=I", len(text)) + text)
            process.stdin.flush()
            (length,) = struct.unpack("=I", process.stdout.read(4))
            assert json.loads(process.stdout.read(length)) == value
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(TIMEOUT) == 0


# --- a serial line --------------------------------------------------------------------------------

# What a device sends: frames with a mark and a check, and noise between them.
DEVICE = Codec.uint(1, magic=b"\xaa\x55", check=Check("crc16-modbus", 2, byteorder="little"))


@contextlib.contextmanager
def serial_line() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: the descriptor of the device's end, the path of the other one."""
    import tty

    device, line = os.openpty()
    tty.setraw(line)
    try:
        yield device, os.ttyname(line)
    finally:
        os.close(line)
        with contextlib.suppress(OSError):
            os.close(device)


@WORLDS
def test_a_port_of_pyserial_finds_the_frames_after_noise(world: str) -> None:
    serial = pytest.importorskip("serial", reason="pyserial is not installed")
    broken = bytearray(DEVICE.encode(b"broken"))
    broken[4] ^= 1
    wire = b"noise" + DEVICE.encode(b"one") + bytes(broken) + b"\xaa" + DEVICE.encode(b"two")

    async def talk(device: int, conn: Any) -> None:
        os.write(device, wire)
        assert [await conn.recv(), await conn.recv()] == [b"one", b"two"]
        for message in (bytes(range(256))[:255], b""):
            await conn.send(message)
            expected, found = DEVICE.encode(message), b""
            while len(found) < len(expected):
                await asyncio.sleep(0)
                found += os.read(device, 1000)
            assert found == expected

    with serial_line() as (device, path):
        port = serial.Serial(path, 115200)
        if world == "blocking":
            with FramePipe(port, codec=DEVICE, on_invalid="resync") as pipe:
                pipe.settimeout(TIMEOUT)
                asyncio.run(talk(device, Blocking(pipe)))
            return

        async def main() -> None:
            async with open_pipes(port, port, codec=DEVICE, on_invalid="resync") as stream:
                await talk(device, Streaming(stream))

        run(world, main())
