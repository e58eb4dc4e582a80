"""Messages of a `FrameStream` from and to files and buffers, and in parts; those of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import logging
import os
import random
import socket
import tempfile
import threading
from typing import Any

import pytest

from framecodec import (
    Check,
    ChecksumError,
    Codec,
    FramePipe,
    FrameSocket,
    IncompleteFrameError,
    InvalidFrameError,
)
from framecodec.asyncio import FrameStream, open_connection
from framecodec.errors import MessageTimeoutError
from tests.helpers.event_loops import LOOPS, run, served, tls_contexts, wrapped
from tests.helpers.fault_injection import TIMEOUT, stream_pair

pytestmark = pytest.mark.usefixtures("engine_in_use")

CODECS = {
    "uint": Codec.uint(4),
    "netstring": Codec.text(b":", trailer=b","),
    "lead": Codec.uint(4, length_offset=3, trailer=b"!!"),
    "headers": Codec.headers(),
    "custom": Codec.custom(
        lambda view: (4, int.from_bytes(view[:4], "big"), b"") if len(view) >= 4 else None,
        lambda message: len(message).to_bytes(4, "big"),
    ),
}
SIZES = [3, 70, 5000, 70_000, 1_000_000, 200_000]


def contents() -> list[bytes]:
    rng = random.Random(2)
    return [rng.randbytes(size) for size in SIZES]


async def received(stream: FrameStream, way: str, size: int) -> bytes:
    if way == "parts":
        return b"".join([part async for part in stream.recv_parts()])
    if way == "file":
        target = io.BytesIO()
        assert await stream.recv_file(target) == size
        return target.getvalue()
    buffer = bytearray(size + 5)
    assert await stream.recv_into(buffer) == size
    assert buffer[size:] == bytes(5)
    return bytes(buffer[:size])


@LOOPS
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", CODECS)
def test_files_both_ways(loop: str, name: str, tls: bool) -> None:
    codec = CODECS[name].replace()
    messages = contents()

    async def handler(stream: FrameStream) -> None:
        for message in messages:
            with tempfile.TemporaryFile() as file:
                file.write(b"before" + message + b"after")
                file.seek(6)
                sending = asyncio.create_task(stream.send_file(file, len(message)))
                await asyncio.sleep(0)
                await stream.send(b"next to it")
                await sending
                assert file.tell() == 6 + len(message)
        await stream.send_file(io.BytesIO(messages[-1]), SIZES[-1])
        assert await stream.recv() == b"done"

    async def client(stream: FrameStream) -> None:
        for number, message in enumerate(messages):
            way = ["parts", "file", "buffer"][number % 3]
            assert await received(stream, way, len(message)) == message
            assert await stream.recv() == b"next to it"
        assert await stream.recv() == messages[-1]
        await stream.send(b"done")

    run(loop, served(handler, client, codec, tls_contexts() if tls else None))


@LOOPS
def test_two_peers_that_send_files_to_each_other_do_not_wait_for_ever(loop: str) -> None:
    data = os.urandom(8_000_000)

    async def both(stream: FrameStream) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            sending = asyncio.create_task(stream.send_file(file))
            assert await received(stream, "buffer", len(data)) == data
            await sending

    run(loop, served(both, both, Codec.uint(4).replace()))


@LOOPS
@pytest.mark.parametrize("way", ["parts", "file", "buffer"])
@pytest.mark.parametrize("name", ["netstring", "lead"])
def test_a_cancelled_call_loses_nothing(loop: str, name: str, way: str) -> None:
    codec = CODECS[name].replace()
    message = random.Random(1).randbytes(300_000)

    async def main() -> None:
        stream, peer = await wrapped(codec)
        wire = codec.encode(message) + codec.encode(b"next")
        with peer:
            async with stream:

                async def feed() -> None:
                    for position in range(0, len(wire), 10_000):
                        peer.sendall(wire[position : position + 10_000])
                        await asyncio.sleep(0.001)

                feeding = asyncio.create_task(feed())
                target, buffer, parts = io.BytesIO(), bytearray(len(message)), b""
                size = None
                while size is None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.002):
                            if way == "file":
                                size = await stream.recv_file(target)
                            elif way == "buffer":
                                size = await stream.recv_into(buffer)
                            else:
                                async for part in stream.recv_parts():
                                    parts += part
                                size = len(parts)
                    if size is None and stream._protocol._inbox.direct is not None:
                        with pytest.raises(RuntimeError, match="half received"):
                            await stream.recv()
                found = {"file": target.getvalue(), "buffer": bytes(buffer), "parts": parts}[way]
                assert found == message
                assert await stream.recv() == b"next"
                await feeding

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("cut", [100, 100_000, 200_011])
def test_a_stream_that_ends_inside_the_message(loop: str, cut: int) -> None:
    codec = Codec.uint(4, trailer=b"end.").replace()

    async def main() -> None:
        stream, peer = await wrapped(codec)
        async with stream:
            peer.setblocking(False)
            wire = codec.encode(bytes(200_000)) + codec.encode(b"x")
            event_loop = asyncio.get_running_loop()

            async def feed() -> None:
                await event_loop.sock_sendall(peer, wire[: min(cut, 200_006)])
                peer.close()

            feeding = asyncio.create_task(feed())
            with pytest.raises(IncompleteFrameError):
                await stream.recv_file(io.BytesIO())
            await feeding

    run(loop, main())


@LOOPS
def test_a_wrong_trailer_is_an_error(loop: str) -> None:
    codec = Codec.uint(4, trailer=b"end.").replace()

    async def main() -> None:
        stream, peer = await wrapped(codec)
        with peer:
            async with stream:
                peer.setblocking(False)
                wire = codec.encode(bytes(200_000))[:-2] + b"??"
                sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer, wire))
                with pytest.raises(InvalidFrameError, match="trailer"):
                    await stream.recv_file(io.BytesIO())
                with pytest.raises(InvalidFrameError, match="trailer"):
                    await stream.recv()
                await sending

    run(loop, main())


@LOOPS
def test_recv_into_a_buffer_that_is_too_small_loses_nothing(loop: str) -> None:
    async def main() -> None:
        codec = Codec.uint(4).replace()
        stream, peer = await wrapped(codec)
        with peer:
            async with stream:
                for size in (10, 100_000):
                    peer.sendall(codec.encode(bytes(size)))
                    with pytest.raises(ValueError, match="buffer too small"):
                        await stream.recv_into(bytearray(9))
                    assert await stream.recv() == bytes(size)

    run(loop, main())


@LOOPS
def test_recv_into_a_buffer_that_cannot_be_written_loses_nothing(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.uint(4).replace())
        with peer:
            async with stream:
                peer.sendall(b"\0\0\0\3one")
                with pytest.raises(TypeError, match="a writable buffer is required, not 'bytes'"):
                    await stream.recv_into(bytes(9))
                assert await stream.recv() == b"one"

    run(loop, main())


@LOOPS
def test_frames_after_recv_bytes_reach_each_way_of_receiving(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.uint(1).replace())
        with peer:
            async with stream:
                peer.sendall(b"a\3oneb\3twoc\5threed\4four")
                for before, way, message in [
                    (b"a", "buffer", b"one"),
                    (b"b", "file", b"two"),
                    (b"c", "parts", b"three"),
                ]:
                    assert await stream.recv_bytes(1) == before
                    assert await received(stream, way, len(message)) == message
                assert await stream.recv_bytes(1) == b"d"
                async for message in stream:
                    assert message == b"four"
                    break

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("size", [10, 100_000])
def test_recv_file_resumes_after_a_file_that_would_block(loop: str, size: int) -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""
            self.is_full = True

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int | None:
            self.is_full = not self.is_full
            if self.is_full:
                return None
            count = (len(data) + 1) // 2
            self.data += data[:count]
            return count

    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    async def main() -> None:
        codec = Codec.uint(4).replace()
        stream, peer = await wrapped(codec)
        sender = threading.Thread(target=peer.sendall, args=[codec.encode(message)])
        with peer:
            async with stream:
                sender.start()
                file = Slow()
                refusals: set[str] = set()
                while True:
                    try:
                        assert await stream.recv_file(file) == size
                        break
                    except BlockingIOError as error:
                        refusals.add(str(error))
                assert refusals == {
                    f"[Errno {errno.EAGAIN}] the file takes no more bytes now; nothing is lost"
                }
                assert file.data == message
        sender.join(TIMEOUT)

    run(loop, main())


@LOOPS
def test_a_file_that_becomes_shorter_aborts_the_connection(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: FrameStream) -> None:
        with pytest.raises(EOFError):
            await stream.recv()

    async def client(stream: FrameStream) -> None:
        with pytest.raises(OSError, match="shorter"):
            await stream.send_file(io.BytesIO(bytes(5000)), 100_000)
        with pytest.raises(ConnectionError):
            await stream.send(b"x")

    async def main() -> None:
        with contextlib.suppress(ConnectionError, AssertionError):
            await served(handler, client, Codec.uint(4).replace())

    with caplog.at_level(logging.CRITICAL, "framecodec"):
        run(loop, main())


@LOOPS
def test_a_cancelled_send_file_sends_the_rest(loop: str) -> None:
    data = os.urandom(3_000_000)

    async def main() -> None:
        codec = Codec.uint(4).replace()
        stream, peer = await wrapped(codec)
        with peer, tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            task = asyncio.create_task(stream.send_file(file))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert caught.value.message_started  # type: ignore[attr-defined]
            closing = asyncio.create_task(stream.aclose())
            expected, found = codec.encode(data), b""
            peer.setblocking(False)
            while len(found) < len(expected):
                found += await asyncio.get_running_loop().sock_recv(peer, 1 << 20)
            assert found == expected
            await closing

    run(loop, main())


@LOOPS
def test_large_messages_take_little_memory(loop: str) -> None:
    async def main() -> None:
        codec = Codec.uint(4, max_message_size=None).replace()
        stream, peer = await wrapped(codec)
        size = 30_000_000
        with peer:
            async with stream:
                peer.setblocking(False)
                event_loop = asyncio.get_running_loop()

                async def feed() -> None:
                    await event_loop.sock_sendall(peer, size.to_bytes(4, "big"))
                    for _ in range(30):
                        await event_loop.sock_sendall(peer, bytes(1_000_000))

                feeding = asyncio.create_task(feed())
                found = largest = 0
                async for part in stream.recv_parts():
                    found += len(part)
                    largest = max(largest, len(part), stream._protocol._held)
                assert found == size
                assert largest <= 512 * 1024
                await feeding

    run(loop, main())


# --- blocking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_recv_parts_of_a_socket(name: str, timeout: float | None) -> None:
    codec = CODECS[name].replace()
    messages = [*contents(), b"abc"]
    with stream_pair() as (left, right), FrameSocket(left, codec) as one:
        sender = threading.Thread(target=one.send_many, args=[messages])
        with FrameSocket(right, codec) as other:
            other.settimeout(timeout)
            sender.start()
            for message in messages:
                parts = list(other.recv_parts())
                assert b"".join(parts) == message
                assert all(parts)
                assert max(map(len, parts)) <= 1 << 19
            sender.join(TIMEOUT)
            one.shutdown(2)
            with pytest.raises(EOFError):
                next(other.recv_parts())


def test_recv_parts_obeys_the_limits_of_the_peer() -> None:
    with (
        stream_pair() as (peer, sock),
        FrameSocket(sock, Codec.uint(4).replace(), message_timeout=0.05) as conn,
    ):
        peer.sendall(b"\0\4\0\0" + bytes(100_000))
        parts = conn.recv_parts()
        assert not any(next(parts))
        with pytest.raises(MessageTimeoutError):
            list(parts)
        with pytest.raises(MessageTimeoutError):
            conn.recv()


def test_recv_parts_of_a_pipe() -> None:
    codec = Codec.uint(4, check=Check("crc32", 4)).replace()
    messages = contents()
    reader, writer = os.pipe()
    with (
        FramePipe(os.fdopen(reader, "rb", 0), codec=codec) as receiver,
        FramePipe(None, os.fdopen(writer, "wb", 0), codec=codec) as sender,
    ):
        receiver.settimeout(TIMEOUT)
        thread = threading.Thread(target=sender.send_many, args=[messages])
        thread.start()
        for message in messages:
            assert b"".join(receiver.recv_parts()) == message
        thread.join(TIMEOUT)
        sender.close()
        with pytest.raises(EOFError):
            next(receiver.recv_parts())


def test_recv_parts_of_a_socket_continues_after_a_time_out() -> None:
    codec = Codec.uint(4, trailer=b"end").replace()
    message = os.urandom(200_000)
    wire = codec.encode(message) + codec.encode(b"next")
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.setblocking(False)
        found, position, ended = b"", 0, False
        while not ended:
            try:
                for part in conn.recv_parts():
                    found += part
                ended = True
            except BlockingIOError:
                peer.sendall(wire[position : position + 30_000])
                position += 30_000
                if position > 30_000 and conn._receiving.inbox.direct is not None:
                    with pytest.raises(RuntimeError, match="half received"):
                        conn.recv()
        assert found == message
        peer.sendall(wire[position:])
        assert conn.recv() == b"next"


def test_recv_parts_that_was_left_is_continued() -> None:
    codec = Codec.uint(4).replace()
    message = os.urandom(300_000)
    with stream_pair() as (left, right), FrameSocket(left, codec) as one:
        sender = threading.Thread(target=one.send_many, args=[[message, b"", b"next"]])
        with FrameSocket(right, codec) as conn:
            sender.start()
            first = next(conn.recv_parts())
            assert first + b"".join(conn.recv_parts()) == message
            assert list(conn.recv_parts()) == []
            assert conn.recv() == b"next"
            sender.join(TIMEOUT)


@pytest.mark.parametrize("way", ["parts", "file", "buffer"])
@pytest.mark.parametrize(
    "codec",
    [
        Codec.uint(4, check=Check("crc32", 4)),
        Codec.uint(4, check=Check("crc32", 4, before=b"|"), trailer=b"end"),
        Codec.uint(4, check=Check("crc32", 4, position="front")),
    ],
    ids=["end", "trailer", "header"],
)
def test_a_check_is_verified_of_a_message_in_parts(codec: Codec, way: str) -> None:
    codec = codec.replace()
    message = random.Random(5).randbytes(200_000)
    good = codec.encode(message)
    bad = good[:100_000] + bytes([good[100_000] ^ 1]) + good[100_001:]

    def receive(conn: FrameSocket) -> bytes:
        if way == "parts":
            return b"".join(conn.recv_parts())
        if way == "file":
            target = io.BytesIO()
            conn.recv_file(target)
            return target.getvalue()
        buffer = bytearray(len(message))
        conn.recv_into(buffer)
        return bytes(buffer)

    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        sender = threading.Thread(target=peer.sendall, args=[good + codec.encode(b"x") + bad])
        sender.start()
        assert receive(conn) == message
        assert conn.recv() == b"x"
        for _ in range(2):
            with pytest.raises(ChecksumError):
                receive(conn)
        sender.join(TIMEOUT)


@LOOPS
def test_a_write_that_fails_loses_nothing(loop: str) -> None:
    class Failing(io.BytesIO):
        fails = True

        def write(self, data: Any) -> int:
            if self.fails:
                self.fails = False
                raise OSError("the disk is full")
            self.fails = True
            return super().write(data[:50_000])

    async def main() -> None:
        codec = Codec.uint(4, trailer=b"end").replace()
        for size in (10, 200_000):
            stream, peer = await wrapped(codec)
            message = random.Random(3).randbytes(size)
            with peer:
                async with stream:
                    peer.setblocking(False)
                    wire = codec.encode(message) + codec.encode(b"next")
                    event_loop = asyncio.get_running_loop()
                    sending = asyncio.create_task(event_loop.sock_sendall(peer, wire))
                    target, found = Failing(), None
                    while found is None:
                        try:
                            found = await stream.recv_file(target)
                        except OSError:
                            with pytest.raises(RuntimeError, match="half received"):
                                await stream.recv()
                    assert (found, target.getvalue()) == (size, message)
                    assert await stream.recv() == b"next"
                    await sending

    run(loop, main())


@LOOPS
def test_parts_that_were_left_do_not_hide_the_next_message(loop: str) -> None:
    async def main() -> None:
        codec = Codec.uint(4).replace()
        stream, peer = await wrapped(codec)
        with peer:
            async with stream:
                peer.sendall(codec.encode_many([b"one", b"two", b"", b"three"]))
                async for part in stream.recv_parts():
                    assert part == b"one"
                    break
                assert await stream.recv() == b"two"
                assert [part async for part in stream.recv_parts()] == []
                assert [part async for part in stream.recv_parts()] == [b"three"]

    run(loop, main())


def test_open_connection_gives_the_same_methods() -> None:
    names = {"send_file", "recv_file", "recv_into", "recv_parts", "recv_bytes", "send_bytes"}
    for kind in (FrameStream, FrameSocket, FramePipe):
        assert names <= {name for name in dir(kind) if not name.startswith("_")}
    assert open_connection


async def stuck_send(size: int = 3_000_000) -> tuple[FrameStream, Any, asyncio.Task[None]]:
    """Return a stream, its peer that reads nothing, and a send_file that waits for the peer."""
    stream, peer = await wrapped(Codec.uint(4).replace())
    file = io.BufferedReader(io.BytesIO(bytes(size)))  # type: ignore[arg-type]
    task = asyncio.create_task(stream.send_file(file, size))
    while not stream._sending.batch.paused:
        await asyncio.sleep(0.001)
    peer.setblocking(False)
    return stream, peer, task


async def read_messages(peer: Any, count: int) -> list[bytes]:
    splitter, messages = Codec.uint(4).splitter(), []
    while len(messages) < count:
        messages += splitter.feed(await asyncio.get_running_loop().sock_recv(peer, 1 << 20))
    return messages


@LOOPS
def test_files_that_are_sent_at_once_follow_each_other(loop: str) -> None:
    async def main() -> None:
        stream, peer, first = await stuck_send()
        with peer:
            async with stream:
                file = io.BufferedReader(io.BytesIO(bytes(400_000)))  # type: ignore[arg-type]
                second = asyncio.create_task(stream.send_file(file, 400_000))
                third = asyncio.create_task(stream.send_file(io.BytesIO(b"third")))
                await asyncio.sleep(0)
                second.cancel()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await second
                assert caught.value.message_started is False  # type: ignore[attr-defined]
                assert await read_messages(peer, 2) == [bytes(3_000_000), b"third"]
                await first
                await third

    run(loop, main())


@LOOPS
def test_send_file_raises_when_the_connection_ends_while_it_waits(loop: str) -> None:
    async def main() -> None:
        stream, peer, task = await stuck_send()
        peer.close()
        with pytest.raises(ConnectionError) as caught:
            await task
        assert caught.value.message_started is True  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            await stream.aclose()

    run(loop, main())


@LOOPS
def test_send_file_copies_a_file_for_which_the_kernel_has_no_sendfile(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSYS, "not for this file")

    async def main() -> None:
        data = os.urandom(2_000_000)
        stream, peer = await wrapped(Codec.uint(4).replace())
        peer.setblocking(False)
        with peer, tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            async with stream:
                task = asyncio.create_task(stream.send_file(file))
                assert await read_messages(peer, 1) == [data]
                await task

    if hasattr(os, "sendfile"):
        monkeypatch.setattr(os, "sendfile", refuse)
    run(loop, main())


@LOOPS
def test_a_file_on_disk_that_becomes_shorter_aborts_the_connection(loop: str) -> None:
    async def main() -> None:
        stream, peer, first = await stuck_send()
        with peer, tempfile.TemporaryFile() as file:
            file.write(bytes(5000))
            file.seek(0)
            second = asyncio.create_task(stream.send_file(file))
            await asyncio.sleep(0)
            file.truncate(1000)
            assert await read_messages(peer, 1) == [bytes(3_000_000)]
            await first
            with pytest.raises(OSError, match="shorter"):
                await second
            with pytest.raises(ConnectionError):
                await stream.send(b"x")
            with contextlib.suppress(OSError):
                await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_many_after_recv_bytes_parses_the_rest(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.uint(1).replace())
        with peer:
            async with stream:
                peer.sendall(b"x\3one\3two")
                assert await stream.recv_bytes(1) == b"x"
                assert await stream.recv_many() == [b"one", b"two"]

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("way", ["parts", "file", "buffer"])
def test_constants_after_the_length_are_in_the_message(loop: str, way: str) -> None:
    codec = Codec.uint(4, constants={4: b"V1"})
    message = b"V1" + os.urandom(300_000)

    async def main() -> None:
        stream, peer = await wrapped(codec.replace())
        with peer:
            async with stream:
                sending = asyncio.create_task(
                    asyncio.to_thread(peer.sendall, codec.encode(message))
                )
                assert await received(stream, way, len(message)) == message
                await sending

    run(loop, main())


@LOOPS
def test_send_file_leaves_reading_paused_that_the_user_has_paused(loop: str) -> None:
    async def main() -> None:
        stream, theirs = await wrapped()
        stream.transport.pause_reading()
        with FrameSocket(theirs, Codec.uint(4)) as peer, tempfile.TemporaryFile() as file:
            file.write(bytes(3_000_000))
            file.seek(0)
            taken = asyncio.create_task(asyncio.to_thread(peer.recv))
            await stream.send_file(file)
            assert await taken == bytes(3_000_000)
            assert not stream.transport.is_reading()
            peer.send(b"answer")
            stream.transport.resume_reading()
            assert await stream.recv() == b"answer"
        await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_file_ends_where_the_connection_goes_to_another_protocol(loop: str) -> None:
    class Reading(asyncio.Protocol):
        def __init__(self) -> None:
            self.received = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes) -> None:
            self.received.set_result(data)

    async def main() -> None:
        stream, peer = await wrapped()
        with peer:
            receiving = asyncio.create_task(stream.recv_file(io.BytesIO()))
            await asyncio.sleep(0.001)
            reading = Reading()
            transport = stream.transport
            transport.set_protocol(reading)
            with pytest.raises(ConnectionAbortedError, match="detached"):
                await receiving
            peer.sendall(b"unframed")
            assert await reading.received == b"unframed"
            with pytest.raises(ConnectionAbortedError, match="detached"):
                await stream.recv()
            transport.abort()
            await asyncio.sleep(0.001)

    run(loop, main())


@LOOPS
def test_send_file_waits_for_a_peer_that_has_ended_its_own_direction(loop: str) -> None:
    async def main() -> None:
        stream, peer, task = await stuck_send()
        with peer:
            peer.shutdown(socket.SHUT_WR)
            while not stream._protocol._has_ended:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            assert not task.done()
            assert await read_messages(peer, 1) == [bytes(3_000_000)]
            await task
            await stream.aclose()

    run(loop, main())


def changing_codec() -> Codec[bytes]:
    """A codec whose function finds a header of 4 bytes once, and none from then on."""
    answers = [(4, 1_000_000)]
    return Codec.custom(
        lambda view: answers.pop() if answers and len(view) >= 4 else None, lambda message: b"head"
    )


@LOOPS
def test_a_function_that_changes_its_answer_ends_a_stream(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(changing_codec())
        with peer:
            peer.sendall(b"head of a message")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.recv(), 0.05)
            for _ in range(2):
                with pytest.raises(InvalidFrameError, match="parse"):
                    await stream.recv_file(io.BytesIO())
        await stream.aclose()

    run(loop, main())
