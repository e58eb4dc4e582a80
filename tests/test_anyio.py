"""`framecodec.anyio.FrameStream`: on both loops of AnyIO, over every kind of byte stream."""

from __future__ import annotations

import importlib
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import framecodec
from framecodec import Codec, IncompleteFrameError, InvalidMessageError, MessageTooLargeError
from tests.helpers.event_loops import tls_contexts

anyio = pytest.importorskip("anyio")
pytest.importorskip("trio")

from anyio.streams.file import FileReadStream, FileWriteStream  # noqa: E402
from anyio.streams.stapled import StapledByteStream  # noqa: E402
from anyio.streams.tls import TLSListener, TLSStream  # noqa: E402

from framecodec.anyio import FrameStream  # noqa: E402

CODEC = Codec.uint(2)
PATIENCE = 60  # seconds; no test that passes needs them

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])
kinds = pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])


def run(backend: str, test: Callable[[], Awaitable[None]]) -> None:
    async def within_time() -> None:
        with anyio.fail_after(PATIENCE):
            await test()

    anyio.run(within_time, backend=backend)


@asynccontextmanager
async def byte_streams(kind: str = "tcp") -> AsyncIterator[tuple[Any, Any]]:
    """Two ends of a connection."""
    server_context, client_context = tls_contexts() if kind == "tls" else (None, None)
    if kind == "unix":
        async with anyio.TemporaryDirectory() as folder:
            path = f"{folder}/socket"
            async with connected(await anyio.create_unix_listener(path), path, None) as pair:
                yield pair
            return
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    if kind == "tls":
        listener = TLSListener(listener, server_context, standard_compatible=False)
    async with connected(listener, port, client_context) as pair:
        yield pair


@asynccontextmanager
async def connected(
    listener: Any, address: str | int, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[Any, Any]]:
    accepted: list[Any] = []
    came = anyio.Event()

    async def accept(stream: Any) -> None:
        accepted.append(stream)
        came.set()
        await anyio.sleep_forever()

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, accept)
        if isinstance(address, str):
            here: Any = await anyio.connect_unix(address)
        else:
            here = await anyio.connect_tcp("127.0.0.1", address)
        if context is not None:
            here = await TLSStream.wrap(
                here, hostname="localhost", ssl_context=context, standard_compatible=False
            )
        await came.wait()
        async with here, accepted[0]:
            yield here, accepted[0]
        group.cancel_scope.cancel()


@backends
@kinds
def test_messages_of_all_sizes_arrive_and_the_end_is_clean(backend: str, kind: str) -> None:
    messages = [b"", b"hello", bytes(65535), *(b"%d" % number for number in range(500))]

    async def test() -> None:
        async with byte_streams(kind) as (here, there):
            left, right = FrameStream(here, CODEC), FrameStream(there, CODEC)
            assert isinstance(left, anyio.abc.ObjectStream)

            async def send() -> None:
                for message in messages[:10]:
                    await left.send(message)
                await left.send_many([])
                await left.send_many(messages[10:])
                if kind != "tls":
                    await left.send_eof()

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                assert [await right.receive() for _ in messages] == messages
            if kind == "tls":
                with pytest.raises(NotImplementedError):
                    await left.send_eof()
                return
            for _ in "12":
                with pytest.raises(anyio.EndOfStream):
                    await right.receive()
            assert [message async for message in right] == []
            await right.send(b"goodbye")  # the other direction still works
            assert await left.receive_many() == [b"goodbye"]

    run(backend, test)


@backends
def test_a_cancelled_receive_loses_nothing_at_any_byte(backend: str) -> None:
    async def test() -> None:
        async with byte_streams() as (here, there):
            right = FrameStream(there, CODEC)
            wire = CODEC.encode(b"hello")
            for cut in range(len(wire)):
                if cut:
                    await here.send(wire[:cut])
                with anyio.move_on_after(0.01) as scope:
                    await right.receive()
                assert scope.cancelled_caught
                await here.send(wire[cut:])
                assert await right.receive() == b"hello"
            await here.send(wire)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await right.receive()
            assert await right.receive() == b"hello"

    run(backend, test)


@backends
@kinds
def test_a_cancelled_send_leaves_whole_frames(backend: str, kind: str) -> None:
    codec = Codec.uint(4, max_message_size=None)
    large = bytes(range(256)) * 120_000  # more than kernels hold

    async def test() -> None:
        async with byte_streams(kind) as (here, there):
            left, right = FrameStream(here, codec), FrameStream(there, codec)
            async with anyio.create_task_group() as group:
                group.start_soon(right.receive)  # AnyIO reads ahead until a receive has waited
                await anyio.wait_all_tasks_blocked()
                await left.send(b"first")
            with anyio.move_on_after(0.05) as scope:
                await left.send(large)  # the other end does not receive
            assert scope.cancelled_caught
            with anyio.move_on_after(0.05) as scope:
                await left.send(b"never sent")
            assert scope.cancelled_caught
            async with anyio.create_task_group() as group:
                group.start_soon(left.send, b"next")
                assert await right.receive() == large
                assert await right.receive() == b"next"

    run(backend, test)


@backends
def test_a_send_that_is_cancelled_before_its_turn_sends_nothing(backend: str) -> None:
    async def test() -> None:
        async with byte_streams() as (here, there):
            left, right = FrameStream(here, CODEC), FrameStream(there, CODEC)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await left.send(b"not sent")
            assert scope.cancelled_caught
            await left.send(b"sent")
            assert await right.receive() == b"sent"

    run(backend, test)


@backends
def test_sends_of_many_tasks_are_whole_frames_in_their_order(backend: str) -> None:
    async def test() -> None:
        async with byte_streams() as (here, there):
            left, right = FrameStream(here, CODEC), FrameStream(there, CODEC)
            batches = [[bytes([number]) * 60_000] * 4 for number in range(8)]
            async with anyio.create_task_group() as group:
                for batch in batches:
                    group.start_soon(left.send_many, batch)
                received = [await right.receive() for _ in range(32)]
            assert sorted(received) == sorted(message for batch in batches for message in batch)

    run(backend, test)


class FaultyStream(anyio.abc.ByteStream):
    """A stream whose peer sends `wire` in pieces of a size and then does something."""

    def __init__(self, wire: bytes, piece: int, fault: BaseException | None) -> None:
        self.wire, self.piece, self.fault = wire, piece, fault
        self.sent = bytearray()
        self.accepts = len(wire)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        data, self.wire = self.wire[: self.piece], self.wire[self.piece :]
        if data:
            return data
        raise self.fault or anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        for byte in item:
            await anyio.lowlevel.checkpoint()
            if len(self.sent) == self.accepts:
                raise anyio.BrokenResourceError
            self.sent.append(byte)

    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


@backends
def test_a_fault_at_each_byte_loses_no_message_before_it(backend: str) -> None:
    messages = [b"one", b"", b"three"]
    wire = CODEC.encode_many(messages)
    ends = [len(CODEC.encode_many(messages[:count])) for count in range(4)]

    async def test() -> None:
        for cut in range(len(wire) + 1):
            whole = sum(end <= cut for end in ends) - 1
            for piece in (1, 100):
                for fault in (None, anyio.BrokenResourceError()):
                    stream = FrameStream(FaultyStream(wire[:cut], piece, fault), CODEC)
                    received = [await stream.receive() for _ in range(whole)]
                    assert received == messages[:whole]
                    expected: Any = IncompleteFrameError
                    if fault is not None:
                        expected = anyio.BrokenResourceError
                    elif cut in ends:
                        expected = anyio.EndOfStream
                    for _ in "12":
                        with pytest.raises(expected):
                            await stream.receive()
                    await stream.aclose()

    run(backend, test)


@backends
def test_a_fault_at_each_sent_byte_ends_sending(backend: str) -> None:
    wire = CODEC.encode(b"hello")

    async def test() -> None:
        for cut in range(len(wire)):
            below = FaultyStream(b"", 1, None)
            below.accepts = cut
            stream = FrameStream(below, CODEC)
            for _ in "12":
                with pytest.raises(anyio.BrokenResourceError):
                    await stream.send(b"hello")
            assert bytes(below.sent) == wire[:cut]
            await stream.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await stream.send(b"x")
            with pytest.raises(anyio.ClosedResourceError):
                await stream.receive()

    run(backend, test)


@backends
def test_a_cancel_at_each_step_of_a_send_leaves_whole_frames(backend: str) -> None:
    async def test() -> None:
        for steps in range(30):
            below = FaultyStream(b"", 1, None)
            below.accepts = 1000
            stream = FrameStream(below, CODEC)
            async with anyio.create_task_group() as group:
                group.start_soon(stream.send, b"hello")
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            await stream.send(b"next")
            sent, size = CODEC.split(below.sent)
            assert sent in ([b"hello", b"next"], [b"next"])
            assert size == len(below.sent)

    run(backend, test)


@backends
def test_a_bad_frame_is_raised_after_the_messages_before_it(backend: str) -> None:
    codec = Codec.uint(2, max_message_size=100)

    async def test() -> None:
        stream = FrameStream(FaultyStream(b"\0\2ok\xff\xff", 100, None), codec)
        assert await stream.receive() == b"ok"
        for _ in "12":
            with pytest.raises(MessageTooLargeError):
                await stream.receive()
        stream = FrameStream(FaultyStream(b"\0\xffx" + bytes(254) + b"\0\2ok", 9, None), codec)
        skipping = FrameStream(stream._stream, codec, on_oversize="skip")
        assert await skipping.receive() == b"ok"

    run(backend, test)


@backends
def test_objects_are_sent_and_received_and_a_refused_one_does_not_stick(backend: str) -> None:
    codec = CODEC.as_json()

    async def test() -> None:
        below = FaultyStream(CODEC.encode_many([b"1", b"{bad", b"2", b"", b"[3]"]), 100, None)
        stream = FrameStream(below, codec)
        below.accepts = 100
        outcome: list[Any] = []
        while len(outcome) < 5:
            try:
                outcome.append(await stream.receive())
            except InvalidMessageError as error:
                outcome.append(error.stream_offset)
        assert outcome == [1, 3, 2, 12, [3]]
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.send({"a": 1})
        with pytest.raises(TypeError):
            await stream.send({1})
        assert codec.decode(below.sent) == {"a": 1}

    run(backend, test)


@backends
def test_a_process_is_a_peer(backend: str) -> None:
    program = """
import sys
from framecodec import Codec
codec = Codec.uint(2)
for message in codec.read(sys.stdin.buffer):
    sys.stdout.buffer.write(codec.encode(message.upper()))
    sys.stdout.buffer.flush()
"""

    async def test() -> None:
        command = [sys.executable, "-c", program]
        async with await anyio.open_process(command, stderr=None) as process:
            stream = FrameStream(StapledByteStream(process.stdin, process.stdout), CODEC)
            for message in (b"hello", b"x" * 5000):
                await stream.send(message)
                assert await stream.receive() == message.upper()
            await process.stdin.aclose()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()

    run(backend, test)


@backends
def test_files_are_byte_streams(backend: str, tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "file"
        async with FrameStream(await FileWriteStream.from_path(path), CODEC) as writer:
            await writer.send(b"one")
            await writer.send_many([b"two", b""])
            with pytest.raises(NotImplementedError, match="close it"):
                await writer.send_eof()
        async with FrameStream(await FileReadStream.from_path(path), CODEC) as reader:
            assert [message async for message in reader] == [b"one", b"two", b""]

    run(backend, test)


@backends
def test_two_tasks_cannot_receive_at_a_time(backend: str) -> None:
    async def test() -> None:
        async with byte_streams() as (here, _):
            stream = FrameStream(here, CODEC)
            async with anyio.create_task_group() as group:
                group.start_soon(stream.receive)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError):
                    await stream.receive()
                group.cancel_scope.cancel()

    run(backend, test)


@backends
def test_aclose_ends_what_a_cancelled_send_has_left(backend: str) -> None:
    async def test() -> None:
        async with byte_streams() as (here, _):
            stream = FrameStream(here, Codec.uint(4, max_message_size=None))
            with anyio.move_on_after(0.05):
                await stream.send(bytes(30_000_000))
            await stream.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await stream.send(b"x")

    run(backend, test)


def test_the_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match="must be a byte stream of AnyIO, not 'int'"):
        FrameStream(5, CODEC)
    with pytest.raises(TypeError, match=r"codec must be a framecodec\.Codec"):
        FrameStream(FaultyStream(b"", 1, None), "u16")
    assert framecodec.anyio.FrameStream is FrameStream
    assert "open" in repr(FrameStream(FaultyStream(b"", 1, None), CODEC))


@backends
@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_a_peer_that_sends_faster_than_it_is_received_from_has_to_wait(
    backend: str, kind: str
) -> None:
    total = 96 << 20  # bytes; far more than the kernel's buffers take
    message = bytes(60_000)
    sent = 0

    async def flood(stream: Any) -> None:
        nonlocal sent
        while sent < total:
            await stream.send(CODEC.encode(message))
            sent += len(message)

    async def test() -> None:
        async with byte_streams(kind) as (here, there), anyio.create_task_group() as group:
            stream = FrameStream(there, CODEC)
            group.start_soon(flood, here)
            for _ in range(20):
                for _ in range(100):  # a slow handler; the event loop turns
                    await anyio.lowlevel.checkpoint()
                assert await stream.receive() == message
            assert sent < total // 2
            group.cancel_scope.cancel()

    run(backend, test)


class Slow:
    """A byte stream whose `send` waits until a test lets it end; it cannot end one direction."""

    extra_attributes: Any = MappingProxyType({})

    def __init__(self) -> None:
        self.may_end = anyio.Event()
        self.sent: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self.sent.append(data)
        await self.may_end.wait()

    async def aclose(self) -> None:
        self.may_end.set()


@backends
def test_send_eof_comes_after_what_a_cancelled_send_has_left(backend: str) -> None:
    async def main() -> None:
        slow = Slow()
        stream = FrameStream(slow, Codec.uint(1))
        assert stream.codec == Codec.uint(1)
        assert stream.extra_attributes is slow.extra_attributes
        with anyio.move_on_after(0.01):
            await stream.send(b"a")
        assert slow.sent == [b"\1a"]
        ended: list[str] = []

        async def end() -> None:
            with pytest.raises(NotImplementedError, match="cannot end one direction alone"):
                await stream.send_eof()
            ended.append("refused")

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await anyio.sleep(0.01)
            assert ended == []
            slow.may_end.set()
        assert ended == ["refused"]
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send_eof()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"b")

    run(backend, main)


def test_a_loop_that_ends_while_a_send_waits_leaves_a_broken_stream() -> None:
    streams: list[FrameStream] = []

    async def main() -> None:
        stream = FrameStream(Slow(), Codec.uint(1))
        streams.append(stream)
        with anyio.move_on_after(0.01):
            await stream.send(b"a")

    anyio.run(main, backend="asyncio")  # cancels the task that writes
    assert isinstance(streams[0]._send_failure, anyio.BrokenResourceError)


def test_import_without_anyio_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyio", None)
    monkeypatch.delitem(sys.modules, "framecodec.anyio")
    with pytest.raises(ImportError, match=r'pip install "framecodec\[anyio\]"'):
        importlib.import_module("framecodec.anyio")
