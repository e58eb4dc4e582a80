"""What an observer is told: each frame once, by whatever call it is sent or received."""

# ruff: noqa: SIM117 (a server and its clients are two levels)

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import framecodec
from framecodec import Codec, FramePipe, FrameSocket
from framecodec.asyncio import FrameProtocol, FrameStream, open_connection, start_server
from tests.helpers.event_loops import LOOPS, run
from tests.helpers.servers import LOOPBACK, PATIENCE, until

CODEC = Codec.uint(4)
MESSAGES = [b"one", bytes(100_000), b"three"]
SIZES = [7, 100_004, 9]
WIRE = CODEC.encode_many(MESSAGES)


class Recorder:
    """An observer that keeps the sizes of frames, and the discarded ones."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.sent: list[int] = []
        self.discarded: list[str] = []

    def frame_received(self, _: object, size: int) -> None:
        self.received.append(size)

    def frame_sent(self, _: object, size: int) -> None:
        self.sent.append(size)

    def frame_discarded(self, _: object, error: Exception) -> None:
        self.discarded.append(type(error).__name__)


# --- blocking connections -------------------------------------------------------------------------


def take(count: int, receive: Callable[[], Any]) -> list[Any]:
    return [receive() for _ in range(count)]


def recv_many(conn: Any) -> list[bytes]:
    messages: list[bytes] = []
    while len(messages) < len(MESSAGES):
        messages += conn.recv_many()
    return messages


def recv_into(conn: Any) -> bytes:
    buffer = bytearray(200_000)
    return bytes(buffer[: conn.recv_into(buffer)])


def recv_file(conn: Any) -> bytes:
    file = io.BytesIO()
    conn.recv_file(file)
    return file.getvalue()


def recv_parts(conn: Any) -> bytes:
    return b"".join(conn.recv_parts())


def switch(conn: Any) -> bytes:
    conn.switch(CODEC.replace(max_message_size=200_000))
    message: bytes = conn.recv()
    return message


def no_bytes(conn: Any) -> bytes:
    assert conn.recv_bytes(0) == b""
    message: bytes = conn.recv()
    return message


RECEIVING: dict[str, Callable[[Any], list[bytes]]] = {
    "recv": lambda conn: take(3, conn.recv),
    "recv_many": recv_many,
    "iteration": lambda conn: [message for _, message in zip(range(3), conn, strict=False)],
    "recv_into": lambda conn: take(3, lambda: recv_into(conn)),
    "recv_file": lambda conn: take(3, lambda: recv_file(conn)),
    "recv_parts": lambda conn: take(3, lambda: recv_parts(conn)),
    "recv, recv_parts, recv_into": lambda conn: [conn.recv(), recv_parts(conn), recv_into(conn)],
    "recv_bytes": lambda conn: take(3, lambda: no_bytes(conn)),
    "switch": lambda conn: take(3, lambda: switch(conn)),
}


def send_files(conn: Any, path: Path) -> None:
    path.write_bytes(b"".join(MESSAGES))
    with path.open("rb") as file:
        for message in MESSAGES:
            conn.send_file(file, len(message))


SENDING: dict[str, Callable[[Any, Path], Any]] = {
    "send": lambda conn, _: [conn.send(message) for message in MESSAGES],
    "send of a buffer": lambda conn, _: [conn.send(bytearray(message)) for message in MESSAGES],
    "send_many": lambda conn, _: conn.send_many(iter(MESSAGES)),
    "send_file": send_files,
    "send_bytes": lambda conn, _: [conn.send_bytes(b""), conn.send_many(MESSAGES)],
}


class Peer:
    """The other side of a connection: it sends `WIRE`, and reads all that comes."""

    def __init__(self, kind: str, codec: Codec[Any], recorder: Recorder) -> None:
        near, far = socket.socketpair()
        self.far = far
        self.got = bytearray()
        if kind == "socket":
            self.conn: Any = FrameSocket(near, codec, observer=recorder)
        else:
            reader, writer = (os.fdopen(os.dup(near.fileno()), mode, 0) for mode in ("rb", "wb"))
            near.close()
            self.conn = FramePipe(reader, writer, codec=codec, observer=recorder)
        self.threads = [
            threading.Thread(target=step, daemon=True) for step in (self.send, self.read)
        ]

    def send(self) -> None:
        with contextlib.suppress(OSError):  # the connection has closed
            self.far.sendall(WIRE)

    def read(self) -> None:
        with contextlib.suppress(OSError):
            while len(self.got) < len(WIRE):
                data = self.far.recv(65536)
                if not data:
                    return
                self.got += data


@pytest.fixture(params=["socket", "pipe"])
def open_peer(request: pytest.FixtureRequest) -> Iterator[Callable[..., Peer]]:
    peers: list[Peer] = []

    def make(recorder: Recorder, codec: Codec[Any] = CODEC) -> Peer:
        peers.append(Peer(request.param, codec, recorder))
        for thread in peers[-1].threads:
            thread.start()
        return peers[-1]

    yield make
    for peer in peers:
        peer.conn.close()
        with contextlib.suppress(OSError):
            peer.far.shutdown(socket.SHUT_RDWR)
        for thread in peer.threads:
            thread.join(PATIENCE)
        peer.far.close()


@pytest.mark.parametrize("call", RECEIVING)
def test_each_received_frame_is_told_once(open_peer: Callable[..., Peer], call: str) -> None:
    recorder = Recorder()
    assert RECEIVING[call](open_peer(recorder).conn) == MESSAGES
    assert recorder.received == SIZES
    assert recorder.discarded == recorder.sent == []


@pytest.mark.parametrize("methods", [{"frame_received"}, {"frame_discarded"}])
def test_an_observer_can_have_one_method_of_received_frames(methods: set[str]) -> None:
    recorder = Recorder()
    observer = SimpleNamespace(**{name: getattr(recorder, name) for name in methods})
    near, far = socket.socketpair()
    codec = Codec.uint(1, magic=b"M")
    with far, FrameSocket(near, codec, observer=observer, on_invalid="resync") as conn:
        far.sendall(b"M\1a??M\1b")
        assert take(2, conn.recv) == [b"a", b"b"]
    assert recorder.received == ([3, 3] if "frame_received" in methods else [])
    assert len(recorder.discarded) == ("frame_discarded" in methods)


@pytest.mark.parametrize("call", SENDING)
def test_each_sent_frame_is_told_once(
    open_peer: Callable[..., Peer], call: str, tmp_path: Path
) -> None:
    recorder = Recorder()
    peer = open_peer(recorder)
    SENDING[call](peer.conn, tmp_path / "file")
    peer.threads[1].join(PATIENCE)
    assert peer.got == WIRE
    assert recorder.sent == SIZES


def test_each_frame_of_an_object_is_told_once(
    open_peer: Callable[..., Peer], tmp_path: Path
) -> None:
    recorder = Recorder()
    conn = open_peer(recorder, CODEC.with_objects(bytes.upper, bytes)).conn
    conn.send(b"a")
    conn.send_many([b"bc", b""])
    path = tmp_path / "file"
    path.write_bytes(b"file")
    with path.open("rb") as file:
        conn.send_file(file)
    assert recorder.sent == [5, 6, 4, 8]
    assert [conn.recv(), recv_parts(conn), *conn.recv_many()] == MESSAGES
    assert recorder.received == SIZES


def test_a_frame_that_unframed_bytes_have_hidden_is_told_once() -> None:
    recorder = Recorder()
    near, far = socket.socketpair()
    data = Codec.digits(2).encode_many([b"a", b"bc"])
    with far, FrameSocket(near, Codec.digits(2), observer=recorder) as conn:
        far.sendall(b"01x" + b"raw" + data)  # whose parsing fails at b"ra"
        assert conn.recv() == b"x"
        assert conn.recv_bytes(3) == b"raw"
        assert [conn.recv(), conn.recv()] == [b"a", b"bc"]
        assert recorder.received == [3, 3, 4]
    assert recorder.received == [3, 3, 4]
    assert recorder.discarded == ["InvalidFrameError"]  # b"ra"


def test_a_bad_frame_after_a_switch_is_told_once() -> None:
    recorder = Recorder()
    near, far = socket.socketpair()
    with far, FrameSocket(near, Codec.digits(2), observer=recorder) as conn:
        far.sendall(b"01x02yzno")
        assert conn.recv() == b"x"
        conn.switch(Codec.digits(2, max_message_size=50))
        assert conn.recv() == b"yz"
        with pytest.raises(framecodec.InvalidFrameError):
            conn.recv()
    assert recorder.received == [3, 4]
    assert recorder.discarded == ["InvalidFrameError"]


# --- servers --------------------------------------------------------------------------------------


def test_broadcasts_of_serve_are_told() -> None:
    recorder = Recorder()
    with (
        framecodec.serve(lambda conn: conn.recv(), LOOPBACK, CODEC, observer=recorder) as server,
        framecodec.connect(server.address, CODEC) as client,
    ):
        until(lambda: len(server.connections) == 1)
        for message in MESSAGES:
            assert server.broadcast(message) == 1
        assert take(3, client.recv) == MESSAGES
        until(lambda: len(recorder.sent) == 3)
    assert recorder.sent == SIZES


def test_the_frames_of_serve_messages_are_told() -> None:
    recorder = Recorder()

    def handle(conn: Any, messages: list[bytes]) -> list[bytes]:
        if messages == [b"three"]:
            conn.send_many(MESSAGES)
            conn.send(b"one")
        return messages

    with (
        framecodec.serve_messages(handle, LOOPBACK, CODEC, observer=recorder) as server,
        framecodec.connect(server.address, CODEC) as client,
    ):
        for message in MESSAGES:
            client.send(message)
            if message != b"three":
                assert client.recv() == message
        assert take(5, client.recv) == [*MESSAGES, b"one", b"three"]
        assert server.broadcast(b"one") == 1
        assert client.recv() == b"one"
        until(lambda: len(recorder.sent) == 8)
    assert recorder.received == SIZES
    assert sorted(recorder.sent) == sorted([*SIZES, *SIZES, 7, 7])


# --- event loops ----------------------------------------------------------------------------------


async def all_of(items: Any) -> bytes:
    return b"".join([item async for item in items])


async def stream_recv_many(stream: FrameStream) -> list[bytes]:
    messages: list[bytes] = []
    while len(messages) < len(MESSAGES):
        messages += await stream.recv_many()
    return messages


async def stream_iteration(stream: FrameStream) -> list[bytes]:
    messages: list[bytes] = []
    async for message in stream:
        messages.append(message)
        if len(messages) == len(MESSAGES):
            break
    return messages


async def stream_recv_into(stream: FrameStream) -> bytes:
    buffer = bytearray(200_000)
    return bytes(buffer[: await stream.recv_into(buffer)])


async def stream_recv_file(stream: FrameStream, path: Path) -> bytes:
    with path.open("wb") as file:
        await stream.recv_file(file)
    return path.read_bytes()


async def stream_switch(stream: FrameStream) -> bytes:
    stream.switch(CODEC.replace(max_message_size=200_000))
    return await stream.recv()


async def stream_no_bytes(stream: FrameStream) -> bytes:
    assert await stream.recv_bytes(0) == b""
    return await stream.recv()


async def three(step: Callable[[], Awaitable[bytes]]) -> list[bytes]:
    return [await step() for _ in range(3)]


STREAM_RECEIVING: dict[str, Callable[[FrameStream, Path], Awaitable[list[bytes]]]] = {
    "recv": lambda stream, _: three(stream.recv),
    "recv_many": lambda stream, _: stream_recv_many(stream),
    "iteration": lambda stream, _: stream_iteration(stream),
    "recv_into": lambda stream, _: three(lambda: stream_recv_into(stream)),
    "recv_file": lambda stream, path: three(lambda: stream_recv_file(stream, path)),
    "recv_parts": lambda stream, _: three(lambda: all_of(stream.recv_parts())),
    "recv_bytes": lambda stream, _: three(lambda: stream_no_bytes(stream)),
    "switch": lambda stream, _: three(lambda: stream_switch(stream)),
}


async def stream_send(stream: FrameStream, _: Path) -> None:
    for message in MESSAGES:
        await stream.send(message)


async def stream_send_many(stream: FrameStream, _: Path) -> None:
    await stream.send_many(iter(MESSAGES))


async def stream_send_bytes(stream: FrameStream, _: Path) -> None:
    await stream.send_bytes(b"")
    await stream.send_many(MESSAGES)


async def stream_send_file(stream: FrameStream, path: Path) -> None:
    path.write_bytes(b"".join(MESSAGES))
    with path.open("rb") as file:
        for message in MESSAGES:
            await stream.send_file(file, len(message))


STREAM_SENDING = {
    "send": stream_send,
    "send_many": stream_send_many,
    "send_bytes": stream_send_bytes,
    "send_file": stream_send_file,
}


async def read_all(sock: socket.socket) -> bytes:
    got = b""
    while len(got) < len(WIRE):
        got += await asyncio.get_running_loop().sock_recv(sock, 65536)
    return got


@LOOPS
@pytest.mark.parametrize("call", STREAM_RECEIVING)
def test_each_received_frame_is_told_once_in_event_loops(
    loop: str, call: str, tmp_path: Path
) -> None:
    async def main() -> None:
        recorder = Recorder()
        near, far = socket.socketpair()
        far.setblocking(False)
        with far:
            async with open_connection(sock=near, codec=CODEC, observer=recorder) as stream:
                sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(far, WIRE))
                assert await STREAM_RECEIVING[call](stream, tmp_path / "file") == MESSAGES
                await sending
        assert recorder.received == SIZES
        assert recorder.discarded == recorder.sent == []

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("call", STREAM_SENDING)
def test_each_sent_frame_is_told_once_in_event_loops(loop: str, call: str, tmp_path: Path) -> None:
    async def main() -> None:
        recorder = Recorder()
        near, far = socket.socketpair()
        far.setblocking(False)
        with far:
            async with open_connection(sock=near, codec=CODEC, observer=recorder) as stream:
                reading = asyncio.create_task(read_all(far))
                await STREAM_SENDING[call](stream, tmp_path / "file")
                assert await reading == WIRE
        assert recorder.sent == SIZES

    run(loop, main())


@LOOPS
def test_broadcasts_of_a_server_in_an_event_loop_are_told_once(loop: str) -> None:
    async def main() -> None:
        recorder = Recorder()

        async def handler(stream: FrameStream) -> None:
            await stream.recv()

        async with start_server(handler, *LOOPBACK, codec=CODEC, observer=recorder) as server:
            async with open_connection(server.address, CODEC) as stream:
                while not server.connections:
                    await asyncio.sleep(0)
                for message in MESSAGES:
                    assert server.broadcast(message) == 1
                assert await three(stream.recv) == MESSAGES
        assert recorder.sent == SIZES

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("switches", [0, 1, 2])
def test_a_protocol_that_switches_tells_of_each_frame_once(loop: str, switches: int) -> None:
    async def main() -> None:
        recorder = Recorder()
        near, far = socket.socketpair()
        done = asyncio.get_running_loop().create_future()

        class Switching(FrameProtocol[bytes]):
            def messages_received(self, messages: list[bytes]) -> None:
                for number in range(switches):
                    self.switch(Codec.digits(2, max_message_size=80 + number))
                if messages[-1] == b"end":
                    done.set_result(None)

        def make() -> Switching:
            return Switching(Codec.digits(2), observer=recorder, one_at_a_time=True)

        with far:
            transport, _ = await asyncio.get_running_loop().create_connection(make, sock=near)
            far.sendall(Codec.digits(2).encode_many([b"a", b"bc", b"def", b"end"]))
            await asyncio.wait_for(done, PATIENCE)
            transport.close()
        assert recorder.received == [3, 4, 5, 5]
        assert recorder.discarded == []

    run(loop, main())
