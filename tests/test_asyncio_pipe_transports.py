"""The transports of pipes, called by hand: their marks, their ends, and what breaks them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from framecodec import Codec
from framecodec.asyncio import FrameProtocol
from framecodec.asyncio.pipe_transport import PipeTransport, ReadHalf, WriteHalf
from framecodec.asyncio.pipe_writers import DescriptorWriter, FileWriter
from framecodec.asyncio.pipes import open_pipes, open_stdio
from framecodec.asyncio.stream_protocol import StreamProtocol
from tests.helpers.event_loops import LOOPS, run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no pipes with poll here")

U4 = Codec.uint(4)


class Recorder(asyncio.Protocol):
    """Records the calls of a transport."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.lost = asyncio.get_running_loop().create_future()

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


def pair() -> tuple[Any, socket.socket]:
    """Return a file that is one end of a connection, whose buffer is small, and the other end."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.setblocking(False)
    return os.fdopen(ours.detach(), "wb", 0), theirs


async def read_all(sock: socket.socket) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while chunk := await loop.sock_recv(sock, 65536):
        data += chunk
    return data


@LOOPS
def test_DescriptorWriter_pauses_and_resumes_at_its_marks(loop: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        whole = PipeTransport(protocol)
        file, theirs = pair()
        writer = DescriptorWriter(file, WriteHalf(whole))
        with theirs:
            assert writer.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
            writer.set_write_buffer_limits(high=400_000)
            assert writer.get_write_buffer_limits() == (100_000, 400_000)
            writer.set_write_buffer_limits(low=1000)
            assert writer.get_write_buffer_limits() == (1000, 4000)
            writer.set_write_buffer_limits()
            assert writer.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
            with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\)"):
                writer.set_write_buffer_limits(1, 2)
            data = os.urandom(1_000_000)
            writer.write(data)
            assert protocol.calls == ["pause"]
            assert 0 < writer.get_write_buffer_size() < len(data)
            writer.write(b"more")
            writer.close()
            assert writer.is_closing()
            writer.write(b"after the end")
            assert await read_all(theirs) == data + b"more"
            assert protocol.calls == ["pause"]  # nothing resumes after close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("how", ["abort", "the peer leaves", "the peer leaves with unsent bytes"])
def test_DescriptorWriter_ends_with_the_error_of_its_descriptor(loop: str, how: str) -> None:
    async def main() -> None:
        protocol = Recorder()
        whole = PipeTransport(protocol)
        whole._begun = True
        file, theirs = pair()
        writer = DescriptorWriter(file, WriteHalf(whole))
        assert whole.writer is writer
        with theirs:
            if how != "the peer leaves":
                writer.write(bytes(1_000_000))
                assert writer.get_write_buffer_size() > 0
            if how == "abort":
                writer.abort()
            else:
                theirs.close()
                if how == "the peer leaves":
                    writer.write(b"x")
            error = await protocol.lost
        assert writer.get_write_buffer_size() == 0
        assert writer.is_closing()
        assert file.closed
        assert whole.writer is None
        assert (error is None) if how == "abort" else isinstance(error, BrokenPipeError)

    run(loop, main())


@LOOPS
def test_FileWriter_has_no_buffer(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        for end in ("close", "abort"):
            protocol = Recorder()
            whole = PipeTransport(protocol)
            whole._begun = True
            path = tmp_path / end
            writer = FileWriter(path.open("wb", 0), WriteHalf(whole))
            writer.set_write_buffer_limits(10, 5)
            assert writer.get_write_buffer_limits() == (0, 0)
            writer.write(b"one")
            writer.write(memoryview(b"two"))
            assert writer.get_write_buffer_size() == 0
            assert not writer.is_closing()
            whole.eof_written = True
            getattr(writer, end)()
            assert writer.is_closing()
            writer.close()
            assert await protocol.lost is None
            assert path.read_bytes() == b"onetwo"

    run(loop, main())


@LOOPS
def test_a_full_disk_ends_a_FileWriter(loop: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")

    async def main() -> None:
        protocol = Recorder()
        whole = PipeTransport(protocol)
        whole._begun = True
        file = open("/dev/full", "wb", 0)  # noqa: SIM115 (the writer closes it)
        writer = FileWriter(file, WriteHalf(whole))
        writer.write(b"x")
        assert writer.is_closing()
        error = await protocol.lost
        assert isinstance(error, OSError)
        assert "space" in str(error)

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("ends", ["both", "reader", "writer", "none"])
def test_PipeTransport_tells_of_its_ends(loop: str, ends: str) -> None:
    async def main() -> None:
        theirs, ours = os.pipe(), os.pipe()
        reader = os.fdopen(theirs[0], "rb", 0) if ends in ("both", "reader") else None
        writer = os.fdopen(ours[1], "wb", 0) if ends in ("both", "writer") else None
        if ends == "none":
            whole = PipeTransport(protocol := Recorder())
            whole._begun = True
            assert (whole.get_write_buffer_limits(), whole.can_write_eof()) == ((0, 0), False)
            whole.set_write_buffer_limits(10)
            whole.write(b"to nowhere")
            whole.abort()
            assert await protocol.lost is None
            for descriptor in (*theirs, *ours):
                os.close(descriptor)
            return
        async with open_pipes(reader, writer, codec=U4) as stream:
            whole = stream._sending.raw_transport
            assert whole.can_write_eof() == (writer is not None)
            whole.set_write_buffer_limits(1000, 10)
            assert whole.get_write_buffer_limits() == ((10, 1000) if writer else (0, 0))
            assert whole.get_write_buffer_size() == 0
            whole.writelines([b"\0\0\0\1", b"a"])
            if writer is not None:
                assert os.read(ours[0], 100) == b"\0\0\0\1a"
            assert whole.get_protocol() is stream._protocol
            whole.abort()
            assert whole.is_closing()
        os.close(theirs[1])
        os.close(ours[0])
        for descriptor in (theirs[0], ours[1]):
            with contextlib.suppress(OSError):
                if (descriptor == theirs[0]) == (reader is None):
                    os.close(descriptor)

    run(loop, main())


@LOOPS
def test_a_protocol_can_take_over_a_pipe(loop: str) -> None:
    async def main() -> None:
        first: Any = Recorder()
        second: Any = Recorder()
        received: list[bytes] = []
        second.data_received = received.append
        whole = PipeTransport(first)
        whole.set_protocol(second)
        assert whole.get_protocol() is second
        whole.data_received(b"one")
        assert received == [b"one"]
        second.eof_received = lambda: None
        whole._begun = True
        whole.eof_received()  # a protocol that returns nothing closes
        assert whole.is_closing()
        assert await second.lost is None
        assert not first.lost.done()

    run(loop, main())


@LOOPS
def test_what_was_opened_is_closed_if_the_rest_cannot_be_opened(loop: str) -> None:
    async def main() -> None:
        theirs, ours = os.pipe(), os.pipe()
        reader, writer = os.fdopen(theirs[1], "wb", 0), os.fdopen(ours[1], "wb", 0)
        running = asyncio.get_running_loop()

        async def refuse(*_: Any) -> Any:
            raise OSError("no more pipes")

        running.connect_read_pipe = refuse  # type: ignore[method-assign]
        with pytest.raises(OSError, match="no more pipes"):
            await open_pipes(reader, writer, codec=U4)
        reader.close()
        await asyncio.sleep(0.01)
        assert os.read(ours[0], 10) == b""  # the writer is closed
        os.close(theirs[0])
        os.close(ours[0])

    if loop == "uvloop":
        pytest.skip("the methods of uvloop cannot be replaced")
    run(loop, main())


@LOOPS
def test_standard_streams_that_are_closed_are_refused(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(OSError, match="standard input or standard output is closed"):
            await open_stdio(codec=U4)

    run(loop, main())


@LOOPS
def test_DescriptorWriter_keeps_the_bytes_of_a_write_that_would_block(loop: str) -> None:
    async def main() -> None:
        whole = PipeTransport(Recorder())
        file, theirs = pair()
        with theirs:
            writer = DescriptorWriter(file, WriteHalf(whole))
            filled = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    filled += os.write(file.fileno(), bytes(1000))
            writer.write(b"last")
            assert writer.get_write_buffer_size() == 4
            writer.close()
            assert await read_all(theirs) == bytes(filled) + b"last"
            assert file.closed

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("how", ["close", "abort"])
def test_DescriptorWriter_ends_once(loop: str, how: str) -> None:
    async def main() -> None:
        losses: list[BaseException | None] = []
        half = WriteHalf(PipeTransport(Recorder()))
        half.connection_lost = losses.append  # type: ignore[method-assign]
        file, theirs = pair()
        with theirs:
            writer = DescriptorWriter(file, half)
            getattr(writer, how)()
            getattr(writer, how)()
            await asyncio.sleep(0)
            assert losses == [None]

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("closes", [False, True], ids=["stays open", "closes in connection_made"])
def test_an_output_that_broke_before_the_input_was_open_is_reported(
    loop: str, closes: bool
) -> None:
    async def main() -> None:
        protocol: Any = Recorder()
        protocol.connection_made = lambda whole: whole.close() if closes else None
        whole = PipeTransport(protocol)
        broken = BrokenPipeError("the peer has gone")
        whole.writer_lost(broken)
        assert not protocol.lost.done()
        whole.begin()
        assert whole.is_closing()
        assert await protocol.lost is broken

    run(loop, main())


@LOOPS
def test_a_stream_whose_output_broke_before_its_input_was_open_receives_and_refuses_sends(
    loop: str,
) -> None:
    async def main() -> None:
        protocol = StreamProtocol(U4)
        whole = PipeTransport(protocol)
        whole.writer_lost(BrokenPipeError("the peer has gone"))
        read_end, write_end = os.pipe()
        with os.fdopen(write_end, "wb", 0) as far:
            await asyncio.get_running_loop().connect_read_pipe(
                lambda: ReadHalf(whole), os.fdopen(read_end, "rb", 0)
            )
            async with protocol.stream as stream:
                with pytest.raises(ConnectionError, match="the peer has gone"):
                    await stream.send(b"question")
                far.write(U4.encode(b"an answer of before"))
                assert await stream.recv() == b"an answer of before"

    run(loop, main())


@LOOPS
def test_a_broken_output_leaves_a_send_that_was_woken_already(loop: str) -> None:
    async def main() -> None:
        theirs, ours = os.pipe(), os.pipe()
        near = os.fdopen(theirs[0], "rb", 0), os.fdopen(ours[1], "wb", 0)
        async with open_pipes(*near, codec=U4) as stream:
            sending = stream._sending
            stream._protocol.pause_writing()
            sends = [asyncio.create_task(stream.send(b"large" * 50_000)) for _ in range(2)]
            await asyncio.sleep(0)
            stream._protocol.resume_writing()  # wakes the first, which has not run yet
            assert [future.done() for future in sending.futures()] == [True, False]
            sending.raw_transport.writer_lost(None)
            for error in await asyncio.gather(*sends, return_exceptions=True):
                assert isinstance(error, BrokenPipeError | ConnectionError)
        os.close(theirs[1])
        os.close(ours[0])

    run(loop, main())


@LOOPS
def test_an_error_of_the_output_after_the_close_is_the_reason_of_the_end(loop: str) -> None:
    async def main() -> None:
        for before in (None, OSError("first")):
            protocol = Recorder()
            whole = PipeTransport(protocol)
            whole._begun = True
            whole.reader = types.SimpleNamespace(close=lambda: None)
            whole._error = before
            whole.close()
            later = OSError("the last bytes")
            whole.writer_lost(later)
            whole.reader_lost(None)
            assert await protocol.lost is (before or later)

    run(loop, main())


@LOOPS
def test_a_protocol_with_a_buffer_can_take_over_a_pipe(loop: str) -> None:
    class Buffered(asyncio.BufferedProtocol):
        data, buffer = b"", bytearray(3)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]

    async def main() -> None:
        protocol = Buffered()
        whole = PipeTransport(Recorder())
        whole.set_protocol(protocol)
        whole.data_received(b"in pieces")
        assert protocol.data == b"in pieces"

    run(loop, main())


@LOOPS
def test_the_pipe_of_a_loop_can_be_handed_to_another_protocol(loop: str) -> None:
    async def main() -> None:
        second: Any = Recorder()
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        second.data_received = received.set_result
        read_end, write_end = os.pipe()
        with os.fdopen(write_end, "wb", 0) as far:
            _, first = await asyncio.get_running_loop().connect_read_pipe(
                lambda: FrameProtocol(U4), os.fdopen(read_end, "rb", 0)
            )
            first.transport.set_protocol(second)
            far.write(b"for the second")
            assert await received == b"for the second"
        assert await second.lost is None

    run(loop, main())


@LOOPS
def test_a_regular_file_is_read_through_a_pipe(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        messages = [b"one", b"two" * 50_000, b""]
        path = tmp_path / "messages"
        path.write_bytes(U4.encode_many(messages))
        async with open_pipes(path.open("rb", 0), None, codec=U4) as stream:
            assert [message async for message in stream] == messages

    run(loop, main())
