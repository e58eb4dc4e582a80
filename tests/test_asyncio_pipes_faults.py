"""Faults of pipes in event loops, at every byte: no byte is lost, no descriptor is left.

Each fault happens after each byte of the stream, in each direction, and each connection ends within
`GRACE` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tty
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from framecodec import Codec, FrameError, IncompleteFrameError
from framecodec.asyncio import FrameStream, open_pipes, open_process
from tests.helpers.descriptors import open_descriptors
from tests.helpers.event_loops import LOOPS, run

pytestmark = [
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc to count descriptors"),
    pytest.mark.usefixtures("engine_in_use", "no_garbage"),
]

GRACE = 5.0

MESSAGES = [b"one", b"", b"a longer message", b"four"]

CODECS = pytest.mark.parametrize(
    "codec",
    [Codec.uint(4, trailer=b"!"), Codec.text(b":", trailer=b","), Codec.delimiter(b"\r\n")],
    ids=["uint", "netstring", "lines"],
)


async def settle(before: int) -> None:
    """Wait until the event loop has closed what it has to close."""
    async with asyncio.timeout(GRACE):
        while open_descriptors() > before:
            await asyncio.sleep(0)
    assert open_descriptors() == before


async def open_what_the_loop_needs() -> None:
    """Open and close a stream: a loop opens descriptors for itself when it first needs them."""
    peer = Peer()
    await (await open_pipes(*peer.files())).aclose()
    peer.close()
    await asyncio.sleep(0.01)


class Peer:
    """The other ends of a stream's two pipes."""

    def __init__(self) -> None:
        self._reader, self.feed = os.pipe()
        self.sink, self._writer = os.pipe()

    def files(self) -> tuple[Any, Any]:
        return os.fdopen(self._reader, "rb", 0), os.fdopen(self._writer, "wb", 0)

    def write(self, data: bytes) -> None:
        if data:
            os.write(self.feed, data)

    def close(self, *names: str) -> None:
        for name in names or ("feed", "sink"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)


@contextlib.asynccontextmanager
async def connected(codec: Codec) -> AsyncIterator[tuple[FrameStream, Peer]]:
    """A stream and its peer; at the end, everything is closed in time."""
    before = open_descriptors()
    peer = Peer()
    stream = await open_pipes(*peer.files(), codec=codec)
    try:
        async with asyncio.timeout(GRACE):
            yield stream, peer
    finally:
        async with asyncio.timeout(GRACE):
            await stream.aclose()
        peer.close()
    await settle(before)


def whole(codec: Codec, offset: int) -> list[bytes]:
    """The messages of `MESSAGES` whose frames end at or before an offset."""
    ends = [len(codec.encode_many(MESSAGES[: count + 1])) for count in range(len(MESSAGES))]
    return [message for message, end in zip(MESSAGES, ends, strict=True) if end <= offset]


def is_between(codec: Codec, offset: int) -> bool:
    return len(codec.encode_many(whole(codec, offset))) == offset


async def received(stream: FrameStream) -> tuple[list[bytes], BaseException]:
    """All messages up to the error that ends them."""
    messages: list[bytes] = []
    try:
        while True:
            messages.append(await stream.recv())
    except (EOFError, OSError, FrameError) as error:
        return messages, error


def at_every_byte(
    loop: str,
    codec: Codec,
    trial: Callable[[Codec, bytes, int, FrameStream, Peer], Coroutine[Any, Any, None]],
    *,
    first: int = 0,
) -> None:
    """Run a trial with a new stream for each place in the wire bytes of `MESSAGES`, ends included.

    Args:
        loop: Whose event loop.
        codec: The shape of the frames.
        trial: Gets the codec, the wire bytes, the place, the stream and its peer.
        first: The first place.
    """
    codec = codec.replace()
    wire = codec.encode_many(MESSAGES)

    async def main() -> None:
        await open_what_the_loop_needs()
        for offset in range(first, len(wire) + 1):
            async with connected(codec) as (stream, peer):
                await trial(codec, wire, offset, stream, peer)

    run(loop, main())


@LOOPS
@CODECS
def test_a_cancellation_at_any_byte_loses_nothing(loop: str, codec: Codec) -> None:
    async def trial(
        codec: Codec, wire: bytes, offset: int, stream: FrameStream, peer: Peer
    ) -> None:
        peer.write(wire[:offset])
        found: list[bytes] = []
        task = asyncio.create_task(receive_into(stream, found))
        while len(found) < len(whole(codec, offset)):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        peer.write(wire[offset:])
        peer.close("feed")
        rest, error = await received(stream)
        assert found + rest == MESSAGES
        assert type(error) is EOFError

    at_every_byte(loop, codec, trial)


async def send_until_it_fails(stream: FrameStream) -> None:
    while True:
        await stream.send(b"x")
        await asyncio.sleep(0)


async def receive_into(stream: FrameStream, messages: list[bytes]) -> None:
    while True:
        messages.append(await stream.recv())


@LOOPS
@CODECS
def test_an_end_at_any_byte_comes_after_the_whole_messages(loop: str, codec: Codec) -> None:
    async def trial(
        codec: Codec, wire: bytes, offset: int, stream: FrameStream, peer: Peer
    ) -> None:
        peer.write(wire[:offset])
        peer.close("feed")
        found, error = await received(stream)
        assert found == whole(codec, offset)
        clean = is_between(codec, offset)
        assert type(error) is (EOFError if clean else IncompleteFrameError)
        await stream.send(b"the output is open")

    at_every_byte(loop, codec, trial)


@LOOPS
@CODECS
def test_an_output_that_breaks_at_any_byte_of_the_input(loop: str, codec: Codec) -> None:
    async def trial(
        codec: Codec, wire: bytes, offset: int, stream: FrameStream, peer: Peer
    ) -> None:
        peer.write(wire[:offset])
        peer.close("sink")
        with pytest.raises(ConnectionError):
            await send_until_it_fails(stream)
        peer.write(wire[offset:])
        peer.close("feed")
        found, error = await received(stream)
        assert found == MESSAGES
        assert isinstance(error, (EOFError, BrokenPipeError))

    at_every_byte(loop, codec, trial)


@LOOPS
@CODECS
def test_a_bad_byte_at_any_place_ends_receiving_after_the_messages(loop: str, codec: Codec) -> None:
    codec = codec.replace()
    wire = codec.encode_many(MESSAGES)

    async def main() -> None:
        await open_what_the_loop_needs()
        for offset in range(len(wire)):
            bad = wire[:offset] + bytes([wire[offset] ^ 0x80]) + wire[offset + 1 :]
            async with connected(codec) as (stream, peer):
                peer.write(bad)
                peer.close("feed")
                found, error = await received(stream)
                before = whole(codec, offset)
                assert found[: len(before)] == before
                assert isinstance(error, EOFError | FrameError)

    run(loop, main())


@LOOPS
@CODECS
def test_a_peer_that_closes_its_input_at_any_byte_has_read_a_prefix(
    loop: str, codec: Codec
) -> None:
    async def trial(
        codec: Codec, wire: bytes, offset: int, stream: FrameStream, peer: Peer
    ) -> None:
        for message in MESSAGES:
            await stream.send(message)
        found = b""
        while len(found) < offset:
            await asyncio.sleep(0)
            os.set_blocking(peer.sink, False)
            with contextlib.suppress(BlockingIOError):
                found += os.read(peer.sink, 1)
        peer.close("sink")
        assert found == wire[:offset]
        with pytest.raises(ConnectionError):
            await send_until_it_fails(stream)
        peer.write(wire)
        assert [await stream.recv() for _ in MESSAGES] == MESSAGES

    at_every_byte(loop, codec, trial, first=1)


@pytest.mark.slow
@LOOPS
@CODECS
@pytest.mark.parametrize("way", ["aclose", "abort", "detach", "cancelled block"])
def test_a_close_at_any_byte_leaves_no_descriptor(loop: str, codec: Codec, way: str) -> None:
    codec = codec.replace()
    wire = codec.encode_many(MESSAGES)

    async def main() -> None:
        await open_what_the_loop_needs()
        for offset in range(len(wire) + 1):
            before = open_descriptors()
            peer = Peer()
            stream = await open_pipes(*peer.files(), codec=codec)
            peer.write(wire[:offset])
            expected = whole(codec, offset)
            async with asyncio.timeout(GRACE):
                found = [await stream.recv() for _ in expected]
                assert found == expected
                await asyncio.sleep(0)
                if way == "aclose":
                    await stream.aclose()
                elif way == "abort":
                    stream.transport.abort()
                elif way == "detach":
                    transport, unread = stream.detach()
                    assert wire.startswith(codec.encode_many(found) + unread)
                    transport.close()
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.001), stream:
                            await stream.send_many([b"x" * 100_000] * 3)
            peer.close()
            await settle(before)

    run(loop, main())


@LOOPS
@CODECS
def test_a_line_that_hangs_up_at_any_byte(loop: str, codec: Codec) -> None:
    """Of a pseudo-terminal that is hung up, Linux reports an input/output error to the reader."""
    codec = codec.replace()
    wire = codec.encode_many(MESSAGES)

    async def main() -> None:
        await open_what_the_loop_needs()
        for offset in range(len(wire) + 1):
            before = open_descriptors()
            device, line = os.openpty()
            tty.setraw(line)
            file = os.fdopen(device, "r+b", 0)
            stream = await open_pipes(file, file, codec=codec)
            if offset:
                os.write(line, wire[:offset])
            expected = whole(codec, offset)
            async with asyncio.timeout(GRACE):
                assert [await stream.recv() for _ in expected] == expected
                os.close(line)
                with pytest.raises((EOFError, OSError)):
                    await stream.recv()
                await stream.aclose()
            await settle(before)

    run(loop, main())


@pytest.mark.slow
@LOOPS
@CODECS
def test_a_process_that_is_killed_after_any_byte(loop: str, codec: Codec) -> None:
    codec = codec.replace()
    wire = codec.encode_many(MESSAGES)

    async def main() -> None:
        await (await open_process("true"))[0].wait()  # the loop opens what it needs for processes
        await asyncio.sleep(0.05)
        before = open_descriptors()
        for offset in range(len(wire) + 1):
            text = "".join(f"\\{byte:03o}" for byte in wire[:offset])
            process, stream = await open_process(
                "sh", "-c", f"printf '{text}'; kill -9 $$", codec=codec
            )
            async with asyncio.timeout(GRACE):
                found, error = await received(stream)
                assert found == whole(codec, offset)
                clean = is_between(codec, offset)
                assert type(error) is (EOFError if clean else IncompleteFrameError)
                assert await process.wait() == -signal.SIGKILL
                await stream.aclose()
            del process
            await settle(before)

    run(loop, main())
