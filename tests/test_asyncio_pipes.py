"""Streams and protocols over pipes in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from framecodec import Codec, IdleTimeoutError, IncompleteFrameError, InvalidMessageError
from framecodec.asyncio import (
    FrameProtocol,
    FrameStream,
    open_pipes,
    open_process,
)
from tests.helpers.descriptors import open_descriptors
from tests.helpers.event_loops import LOOPS, run
from tests.helpers.subprocesses import ROOT

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="no pipes with poll here"),
    pytest.mark.usefixtures("no_garbage"),
]

U4 = Codec.uint(4)
MESSAGES = [b"one", b"", b"a longer message", b"x" * 10]


@contextlib.asynccontextmanager
async def piped(codec: Codec = U4, **options: Any) -> AsyncIterator[tuple[FrameStream, int, int]]:
    """A stream, the descriptor whose bytes it receives, and the one that gets what it sends."""
    theirs, ours = os.pipe(), os.pipe()
    reader, writer = os.fdopen(theirs[0], "rb", 0), os.fdopen(ours[1], "wb", 0)
    try:
        async with open_pipes(reader, writer, codec=codec, **options) as stream:
            yield stream, theirs[1], ours[0]
    finally:
        for descriptor in (theirs[1], ours[0]):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@LOOPS
def test_messages_go_both_ways(loop: str, engine_in_use: Any) -> None:
    codec = U4.replace()

    async def main() -> None:
        one, other = os.pipe(), os.pipe()
        messages = [os.urandom(size) for size in (0, 1, 70, 5000, 70_000, 1_000_000)]
        left = await open_pipes(os.fdopen(one[0], "rb"), os.fdopen(other[1], "wb"), codec=codec)
        right = await open_pipes(os.fdopen(other[0], "rb"), os.fdopen(one[1], "wb"), codec=codec)

        async def echo() -> None:
            async for message in right:
                await right.send(message)
            right.write_eof()

        task = asyncio.create_task(echo())
        async with left, right:
            for message in messages:
                await left.send(message)
                assert await left.recv() == message
            sending = asyncio.create_task(left.send_many(messages))
            assert [await left.recv() for _ in messages] == messages
            await sending
            assert left.transport.get_extra_info("pipe") is not None
            left.write_eof()
            with pytest.raises(EOFError):
                await left.recv()
            await task

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("offset", range(0, 46, 5))
def test_recv_keeps_what_arrived_before_the_end(loop: str, offset: int) -> None:
    stream_bytes = U4.encode_many(MESSAGES)
    ends = [len(U4.encode_many(MESSAGES[:count])) for count in range(len(MESSAGES) + 1)]
    offset = min(offset, len(stream_bytes))

    async def main() -> None:
        async with piped() as (stream, feed, _):
            os.write(feed, stream_bytes[:offset])
            os.close(feed)
            whole = sum(end <= offset for end in ends) - 1
            assert [await stream.recv() for _ in range(whole)] == MESSAGES[:whole]
            with pytest.raises(EOFError) as caught:
                await stream.recv()
            assert isinstance(caught.value, IncompleteFrameError) == (offset not in ends)
            await stream.send(b"still open")

    before = open_descriptors()
    run(loop, main())
    assert open_descriptors() == before


@LOOPS
def test_a_cancelled_recv_loses_nothing(loop: str) -> None:
    async def main() -> None:
        async with piped() as (stream, feed, _):
            found = []
            for byte in U4.encode_many(MESSAGES):
                os.write(feed, bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.001):
                        found.append(await stream.recv())
            while len(found) < len(MESSAGES):
                found.append(await stream.recv())
            assert found == MESSAGES

    run(loop, main())


@LOOPS
def test_an_answer_that_came_before_the_output_broke_is_received(loop: str) -> None:
    async def main() -> None:
        async with piped() as (stream, feed, sink):
            os.write(feed, U4.encode(b"answer"))
            os.close(sink)
            with contextlib.suppress(ConnectionError):
                for _ in range(20):
                    await stream.send(bytes(100_000))
                    await asyncio.sleep(0)
            with pytest.raises(ConnectionError):
                await stream.send(b"x")
            assert await stream.recv() == b"answer"
            os.write(feed, U4.encode(b"more"))
            assert await stream.recv() == b"more"
            os.close(feed)
            with pytest.raises(EOFError):
                await stream.recv()

    run(loop, main())


@LOOPS
def test_a_send_to_a_full_pipe_waits(loop: str) -> None:
    async def main() -> None:
        async with piped() as (stream, _, sink):
            sending = asyncio.create_task(stream.send_many([bytes(200_000)] * 3))
            await asyncio.sleep(0.01)
            assert not sending.done()
            assert stream.pending_send > 100_000
            os.set_blocking(sink, False)
            received = b""
            while len(received) < 600_012:
                with contextlib.suppress(BlockingIOError):
                    received += os.read(sink, 1 << 20)
                await asyncio.sleep(0)
            await sending
            assert received == U4.encode(bytes(200_000)) * 3

    run(loop, main())


@LOOPS
def test_close_ends_the_tasks_that_wait(loop: str) -> None:
    async def main() -> None:
        async with piped() as (stream, _, _):
            task = asyncio.create_task(stream.recv())
            await asyncio.sleep(0)
            await stream.aclose()
            with pytest.raises(ConnectionAbortedError):
                await task

    run(loop, main())


@LOOPS
def test_limits_of_the_peer(loop: str) -> None:
    async def main() -> None:
        async with piped(idle_timeout=0.02) as (stream, _, _):
            with pytest.raises(IdleTimeoutError):
                await stream.recv()

    run(loop, main())


@LOOPS
def test_one_direction(loop: str) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        async with (
            open_pipes(os.fdopen(reader, "rb"), codec=U4) as receiver,
            open_pipes(None, os.fdopen(writer, "wb"), codec=U4) as sender,
        ):
            await sender.send(b"hello")
            assert await receiver.recv() == b"hello"
            with pytest.raises(io.UnsupportedOperation, match="only reads"):
                await receiver.send(b"x")
            with pytest.raises(io.UnsupportedOperation, match="only writes"):
                await sender.recv()
            await sender.aclose()
            with pytest.raises(EOFError):
                await receiver.recv()

    run(loop, main())


@LOOPS
def test_what_the_buffer_of_the_reader_holds_comes_first(loop: str) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        file = os.fdopen(reader, "rb")
        os.write(writer, b"a line\n" + U4.encode(b"one") + b"\0\0")
        assert file.readline() == b"a line\n"
        async with open_pipes(file, codec=U4) as stream:
            assert await stream.recv() == b"one"
            os.write(writer, U4.encode(b"two")[2:])
            assert await stream.recv() == b"two"
        os.close(writer)

    run(loop, main())


@LOOPS
def test_regular_files(loop: str) -> None:
    async def main() -> None:
        with tempfile.NamedTemporaryFile() as source, tempfile.NamedTemporaryFile() as target:
            source.write(U4.encode_many(MESSAGES))
            source.flush()
            reader, writer = open(source.name, "rb"), open(target.name, "wb")  # noqa: SIM115
            async with open_pipes(reader, writer, codec=U4) as stream:
                async for message in stream:
                    await stream.send(message)
            assert target.read() == U4.encode_many(MESSAGES)

    run(loop, main())


@LOOPS
def test_a_pseudo_terminal(loop: str) -> None:
    import tty

    async def main() -> None:
        master, slave = os.openpty()
        tty.setraw(slave)
        line, device = os.fdopen(master, "r+b", 0), os.fdopen(slave, "r+b", 0)
        async with (
            open_pipes(line, line, codec=U4) as host,
            open_pipes(device, device, codec=U4) as other,
        ):
            for message in (bytes(range(256)), b"", b"x" * 3000):
                await host.send(message)
                assert await other.recv() == message
                await other.send(message)
                assert await host.recv() == message

    run(loop, main())


@LOOPS
def test_bad_arguments(loop: str) -> None:
    async def main() -> None:
        for arguments in ((None,), (io.StringIO(),), (object(),)):
            with pytest.raises(TypeError):
                await open_pipes(*arguments)
        with pytest.raises(TypeError):
            open_process()
        with pytest.raises(TypeError, match="stdin"):
            open_process("cat", stdin=subprocess.PIPE)
        with pytest.raises(FileNotFoundError):
            await open_process("/nonexistent/program")

    before = open_descriptors()
    run(loop, main())
    assert open_descriptors() == before


# --- processes ------------------------------------------------------------------------------------


@LOOPS
def test_a_process_answers(loop: str) -> None:
    async def main() -> None:
        async with open_process("cat", codec=U4) as (process, stream):
            for message in MESSAGES:
                await stream.send(message)
                assert await stream.recv() == message
            stream.write_eof()
            with pytest.raises(EOFError):
                await stream.recv()
        assert await process.wait() == 0
        process, stream = await open_process("cat", codec=U4, stderr=subprocess.PIPE)
        await stream.aclose()
        assert await process.wait() == 0

    before = open_descriptors()
    run(loop, main())
    assert open_descriptors() <= before + 3  # the loop's own


@LOOPS
@pytest.mark.parametrize("observed", [False, True])
def test_objects_over_pipes_and_processes(loop: str, observed: bool) -> None:
    codec = U4.replace().as_json()
    objects = [{"a": [1, 2]}, None, "x" * 100_000, 7]
    sizes: list[int] = []

    class Observer:
        def frame_received(self, _conn: Any, size: int) -> None:
            sizes.append(size)

    options: dict[str, Any] = {"codec": codec, "observer": Observer() if observed else None}

    async def main() -> None:
        async with open_process("cat", **options) as (process, stream):
            await stream.send_many(objects)
            assert [await stream.recv() for _ in objects] == objects
            await stream.send(objects[0])
            stream.write_eof()
            assert [message async for message in stream] == [objects[0]]
        assert await process.wait() == 0
        async with piped(**options) as (stream, feed, _):
            os.write(feed, U4.encode(b"{}") + U4.encode(b"no") + U4.encode(b"1"))
            assert await stream.recv() == {}
            with pytest.raises(InvalidMessageError):
                await stream.recv()
            assert await stream.recv() == 1
            stream.switch(U4)
            os.write(feed, U4.encode(b"bytes"))
            assert await stream.recv() == b"bytes"

    run(loop, main())
    if observed:
        frames = [len(codec.encode(message)) for message in [*objects, objects[0]]]
        assert sizes == [*frames, 6, 6, 5, 9]


@LOOPS
def test_a_drain_after_the_output_broke_raises(loop: str) -> None:
    async def main() -> None:
        async with piped() as (stream, feed, sink):
            sending = asyncio.create_task(stream.send(bytes(300_000)))
            await asyncio.sleep(0.01)
            draining = asyncio.create_task(stream.drain())
            await asyncio.sleep(0)
            os.close(sink)
            for task in (sending, draining):
                with pytest.raises(ConnectionError):
                    await task
            with pytest.raises(ConnectionError):
                await stream.drain()
            os.write(feed, U4.encode(b"still open"))
            assert await stream.recv() == b"still open"

    run(loop, main())


@LOOPS
def test_a_close_with_unsent_messages_ends_when_the_output_breaks(loop: str) -> None:
    async def main() -> None:
        async with piped() as (stream, _, sink):
            sending = asyncio.create_task(stream.send_many([bytes(300_000)] * 4))
            await asyncio.sleep(0.01)
            closing = asyncio.create_task(stream.aclose())
            await asyncio.sleep(0.01)
            os.close(sink)
            await closing
            with pytest.raises(ConnectionError):
                await sending

    run(loop, main())


@LOOPS
def test_a_close_that_lingers_waits_for_the_end_of_the_peer(loop: str) -> None:
    async def main() -> None:
        process, stream = await open_process(
            "sh", "-c", "cat >/dev/null; head -c 300000 /dev/zero", codec=U4
        )
        await stream.aclose(linger=30)
        assert await process.wait() == 0  # not killed by SIGPIPE

    run(loop, main())


STDIO = """
import asyncio
from framecodec import Codec
from framecodec.asyncio import open_stdio

async def main():
    async with open_stdio(codec=Codec.uint(4)) as stream:
        async for message in stream:
            await stream.send(message.upper())

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pipes", "files", "nothing"])
def test_standard_streams(how: str) -> None:
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(U4.encode_many(MESSAGES))
        source.seek(0)
        command = [sys.executable, "-c", STDIO]
        options: dict[str, Any] = {"cwd": ROOT, "timeout": 30, "check": True}
        if how == "files":
            subprocess.run(command, stdin=source, stdout=target, **options)
            target.seek(0)
            found = target.read()
        elif how == "pipes":
            data = U4.encode_many(MESSAGES)
            found = subprocess.run(command, input=data, stdout=subprocess.PIPE, **options).stdout
        else:
            null = subprocess.DEVNULL
            subprocess.run(command, stdin=null, stdout=null, **options)
            return
    assert found == U4.encode_many([message.upper() for message in MESSAGES])


@LOOPS
def test_open_stdio_gives_what_waits_in_the_order_it_came(loop: str) -> None:
    program = STDIO.replace("asyncio.run(main())", "") + (
        "run = asyncio.run\n"
        f"if {loop!r} == 'uvloop': import uvloop; run = uvloop.run\n"
        "import sys; sys.stdin.buffer.peek()\n"
        "run(main())\n"
    )
    messages = [b"first", b"", b"x" * 300_000]
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=U4.encode_many(messages),
        capture_output=True,
        timeout=30,
        cwd=ROOT,
    )
    assert done.stderr == b""
    assert done.stdout == U4.encode_many([message.upper() for message in messages])


@LOOPS
def test_a_descriptor_for_both_directions_gives_all_bytes_to_the_reader(loop: str) -> None:
    """The loops' own transport for writing reads it, to find out that the peer has closed."""

    async def main() -> None:
        for _ in range(20):
            near, far = socket.socketpair()
            file = os.fdopen(near.detach(), "r+b", 0)
            with far:
                async with open_pipes(file, file, codec=U4) as stream:
                    far.sendall(U4.encode(b"one"))
                    assert await stream.recv() == b"one"
                    sending = asyncio.create_task(stream.send_many([bytes(400_000)] * 3))
                    await asyncio.sleep(0)
                    far.sendall(U4.encode(b"two"))
                    assert await stream.recv() == b"two"
                    assert not sending.done()
                    found, expected = bytearray(), U4.encode(bytes(400_000)) * 3
                    far.setblocking(False)
                    while len(found) < len(expected):
                        found += await asyncio.get_running_loop().sock_recv(far, 1 << 20)
                    await sending
                    assert found == expected

    before = open_descriptors()
    run(loop, main())
    assert open_descriptors() <= before


@LOOPS
def test_open_stdio_leaves_the_standard_streams_as_they_were(loop: str) -> None:
    program = STDIO.replace("asyncio.run(main())", "") + (
        "import os, sys\n"
        "run = asyncio.run\n"
        f"if {loop!r} == 'uvloop': import uvloop; run = uvloop.run\n"
        "run(main())\n"
        "print(os.get_blocking(0), os.get_blocking(1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=b"", capture_output=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == (b"True True\n", b"")


# --- protocols ------------------------------------------------------------------------------------


class Recorder(FrameProtocol):
    def __init__(self) -> None:
        super().__init__(U4)
        self.events: list[Any] = []
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.events.append("made")

    def messages_received(self, messages: list[Any]) -> None:
        self.events += messages
        for send in (self.send, lambda message: self.send_many([message])):
            with pytest.raises(io.UnsupportedOperation, match="only reads"):
                send(b"x")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@LOOPS
@pytest.mark.parametrize("cut", [0, 3])
def test_connect_read_pipe_takes_a_protocol(loop: str, cut: int) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        event_loop = asyncio.get_running_loop()
        file = os.fdopen(reader, "rb", 0)
        _, protocol = await event_loop.connect_read_pipe(Recorder, file)
        data = U4.encode_many(MESSAGES)
        for position in range(len(data) - cut):
            os.write(writer, data[position : position + 1])
            await asyncio.sleep(0)
        os.close(writer)
        lost = await protocol.lost
        assert isinstance(lost, IncompleteFrameError) == (cut > 0)
        assert protocol.events == ["made", *MESSAGES[: len(MESSAGES) - bool(cut)]]

    run(loop, main())


@LOOPS
def test_the_transport_of_a_read_pipe_can_be_closed_and_paused(loop: str) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        file = os.fdopen(reader, "rb", 0)
        _, protocol = await asyncio.get_running_loop().connect_read_pipe(Recorder, file)
        protocol.transport.pause_reading()
        os.write(writer, U4.encode(b"x"))
        await asyncio.sleep(0.01)
        assert protocol.events == ["made"]
        protocol.transport.resume_reading()
        while len(protocol.events) < 2:
            await asyncio.sleep(0)
        protocol.transport.close()
        assert await protocol.lost is None
        os.close(writer)

    run(loop, main())


@LOOPS
def test_connect_write_pipe_takes_a_protocol(loop: str) -> None:
    class Sender(FrameProtocol):
        def connection_made(self, transport: Any) -> None:
            self.send_many(MESSAGES)
            self.send(bytes(300_000))

    async def main() -> None:
        reader, writer = os.pipe()
        file = os.fdopen(writer, "wb", 0)
        _, protocol = await asyncio.get_running_loop().connect_write_pipe(lambda: Sender(U4), file)
        protocol.transport.close()
        expected = U4.encode_many([*MESSAGES, bytes(300_000)])
        with os.fdopen(reader, "rb") as source:
            assert await asyncio.to_thread(source.read) == expected

    run(loop, main())


class OpensMore(io.FileIO):
    """A file whose close() opens other descriptors first, as another thread may at any moment."""

    opened: tuple[int, ...] = ()

    def close(self) -> None:
        if not self.closed:
            self.opened = os.pipe()
        super().close()


@LOOPS
def test_the_end_of_a_stream_closes_no_descriptor_of_another_owner(loop: str) -> None:
    async def main() -> None:
        reader, far_writer = os.pipe()
        far_reader, writer = os.pipe()
        files = OpensMore(reader, "rb"), OpensMore(writer, "wb")
        async with open_pipes(*files, codec=Codec.uint(1)) as stream:
            os.write(far_writer, b"\1a")
            assert await stream.recv() == b"a"
            await stream.send(b"b")
        for _ in range(3):  # uvloop closes in the next turns
            await asyncio.sleep(0.01)
        assert all(file.closed for file in files)
        assert os.read(far_reader, 10) == b"\1b"
        assert os.read(far_reader, 10) == b""
        for descriptor in (far_writer, far_reader, *files[0].opened, *files[1].opened):
            os.close(descriptor)  # it is still open

    run(loop, main())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device here is always full")
@LOOPS
def test_a_full_disk_ends_sending_with_the_error_of_the_kernel(loop: str) -> None:
    async def main() -> None:
        reader, far_writer = os.pipe()
        full = io.FileIO("/dev/full", "w")
        async with open_pipes(os.fdopen(reader, "rb", 0), full, codec=U4) as stream:
            await stream.send(b"lost")
            await asyncio.sleep(0.01)
            with pytest.raises(OSError, match="No space left on device"):
                await stream.send(b"refused")
            os.write(far_writer, U4.encode(b"answer"))
            assert await stream.recv() == b"answer"
        assert full.closed
        os.close(far_writer)

    run(loop, main())
