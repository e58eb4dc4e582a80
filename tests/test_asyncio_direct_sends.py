"""Small messages that go past the transport of an event loop, straight into its socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from framecodec.asyncio import FrameProtocol, FrameStream, open_connection
from tests.helpers.event_loops import LOOPS, TIMEOUT, U4, run, served, tls_contexts, wrapped

RESET = struct.pack("ii", 1, 0)


class Counting:
    """A transport that notes what is written to it."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.writes: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))
        self.transport.write(data)

    def writelines(self, buffers: list[Any]) -> None:
        self.write(b"".join(buffers))


class Ending(FrameProtocol[bytes]):
    def __init__(self) -> None:
        super().__init__(U4)
        self.received: list[bytes] = []
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def messages_received(self, messages: list[bytes]) -> None:
        self.received += messages

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def count_writes(stream: FrameStream[bytes]) -> list[bytes]:
    counting = Counting(stream._sending.raw_transport)
    stream._sending.raw_transport = counting
    return counting.writes


async def connected_to(listener: socket.socket) -> tuple[FrameStream[bytes], socket.socket]:
    address = listener.getsockname()
    stream = await open_connection(*address[:2], codec=U4)
    peer, _ = listener.accept()
    peer.settimeout(TIMEOUT)
    return stream, peer


def receive(peer: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        received = peer.recv(1 << 16)
        assert received, "the connection has ended"
        data += received
    return bytes(data)


@LOOPS
def test_small_messages_need_no_transport(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        writes = count_writes(stream)
        for number in range(5):
            messages = [b"%d" % number, b"x" * number]
            for message in messages:
                await stream.send(message)
            await stream.drain()
            frames = U4.encode_many(messages)
            assert receive(peer, len(frames)) == frames
        assert writes == []
        await stream.aclose()
        assert peer.recv(1) == b""
        peer.close()

    run(loop, main())


@LOOPS
def test_what_a_full_socket_refuses_waits_in_the_transport_and_keeps_its_place(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        sock = stream.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writes = count_writes(stream)
        messages = [bytes([number]) * 700 for number in range(60)]  # which the transport may hold
        for message in messages:
            await stream.send(message)
            await asyncio.sleep(0)
        assert writes
        assert stream._sending.raw_transport.get_write_buffer_size() > 0
        frames = U4.encode_many(messages)
        received = await asyncio.to_thread(receive, peer, len(frames))
        assert received == frames

        await stream.drain()
        while stream._sending.raw_transport.get_write_buffer_size():
            await asyncio.sleep(0)
        writes.clear()
        await stream.send(b"again")
        await stream.drain()
        assert receive(peer, 9) == U4.encode(b"again")
        assert writes == []
        await stream.aclose()
        peer.close()

    run(loop, main())


@LOOPS
def test_a_socket_that_takes_a_part_gets_the_rest_from_the_transport(loop: str) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream, peer = await connected_to(listener)
        stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writes = count_writes(stream)
        messages = [bytes([number]) * 1000 for number in range(60)]
        for message in messages:  # one batch, which is larger than both buffers
            await stream.send(message)
        await asyncio.sleep(0)
        frames = U4.encode_many(messages)
        assert writes
        assert 0 < len(writes[0]) < len(frames)
        assert frames.endswith(writes[0])
        assert await asyncio.to_thread(receive, peer, len(frames)) == frames
        await stream.aclose()
        peer.close()

    run(loop, main())


@LOOPS
def test_connection_lost_gets_the_error_of_the_socket(loop: str) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            protocol = Ending()
            await asyncio.get_running_loop().create_connection(
                lambda: protocol, *listener.getsockname()
            )
            peer, _ = listener.accept()
        protocol.transport.pause_reading()
        peer.sendall(U4.encode_many([b"before", b"the end"]))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.close()
        protocol.send(b"into the void")
        error = await protocol.lost
        assert isinstance(error, ConnectionResetError)
        assert error.errno == errno.ECONNRESET
        assert protocol.received == [b"before", b"the end"]

    run(loop, main())


@LOOPS
def test_a_stream_whose_peer_has_gone_says_so_in_recv_and_in_send(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        stream._sending.raw_transport.pause_reading()
        peer.sendall(U4.encode(b"farewell"))
        peer.close()
        await stream.send(b"lost")
        await asyncio.sleep(0.01)
        assert await stream.recv() == b"farewell"
        for call in (stream.recv, lambda: stream.send(b"more")):
            with pytest.raises(ConnectionError):
                await call()
        await stream.aclose()

    run(loop, main())


@LOOPS
def test_a_transport_that_encrypts_gets_every_byte(loop: str) -> None:
    contexts = tls_contexts()
    found: list[int] = []

    async def handler(stream: FrameStream[bytes]) -> None:
        found.append(stream._sending.socket_fd)
        async for message in stream:
            await stream.send(message)

    async def client(stream: FrameStream[bytes]) -> None:
        found.append(stream._sending.socket_fd)
        await stream.send(b"secret")
        assert await stream.recv() == b"secret"

    run(loop, served(handler, client, tls=contexts))
    assert found == [-1, -1]


@LOOPS
def test_the_socket_is_not_used_after_the_end(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        assert stream._sending.socket_fd == stream.get_extra_info("socket").fileno()
        await stream.aclose()
        assert stream._sending.socket_fd == -1
        peer.close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("held", [0, 60_000])
def test_a_connection_that_is_closing_sends_nothing_past_its_transport(
    loop: str, held: int
) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        raw = stream._sending.raw_transport
        stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        raw.write(bytes(held))
        raw.close()
        await stream.send(b"late")
        await asyncio.sleep(0)
        # A transport that holds bytes still takes more.
        expected = bytes(held) + (U4.encode(b"late") if held else b"")
        assert await asyncio.to_thread(receive, peer, len(expected)) == expected
        assert peer.recv(1) == b""
        await stream.aclose()
        peer.close()

    run(loop, main())


def test_nothing_goes_into_a_file_that_the_loop_sends(tmp_path: Path) -> None:
    """The transport refuses it: its buffer is empty, and the loop writes to the socket."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        raw, protocol = await loop.create_connection(lambda: Ending(), sock=ours)
        with theirs, (tmp_path / "file").open("w+b") as file:
            file.write(b"F" * 400_000)
            file.seek(0)
            sending = loop.create_task(loop.sendfile(raw, file))
            await asyncio.sleep(0.05)
            assert not sending.done()
            with pytest.raises(RuntimeError, match="sendfile"):
                protocol._sending.raw_transport.write(b"x")
            protocol.send(b"message")
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
            theirs.settimeout(0.2)
            received = bytearray()
            with contextlib.suppress(OSError):
                while data := theirs.recv(1 << 16):
                    received += data
            assert not received.strip(b"F")

    with contextlib.suppress(asyncio.InvalidStateError):  # of asyncio's transport
        asyncio.run(main())
