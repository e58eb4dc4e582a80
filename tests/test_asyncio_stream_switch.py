"""`FrameStream.switch`: another codec in both directions, and no byte is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from framecodec import Codec, InvalidFrameError
from tests.helpers.event_loops import LOOPS, run, wrapped

pytestmark = pytest.mark.usefixtures("engine_in_use")

# Version 2 of the PROXY protocol, and the message of a header: command, family, addresses, ports.
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER = b"\x21\x11" + bytes((192, 0, 2, 1, 192, 0, 2, 2)) + b"\x13\x88\x00\x19"


def uint(width: int, **options: Any) -> Codec:
    return Codec.uint(width, **options)  # made in the test, so that it uses the test's engine


@LOOPS
def test_switch_reads_a_proxy_header_and_frames_in_one_segment(loop: str) -> None:
    async def main() -> None:
        proxy = Codec.uint(2, magic=SIGNATURE, length_offset=14)
        stream, peer = await wrapped(proxy)
        async with stream:
            peer.sendall(proxy.encode(HEADER) + b"\0\1a\0\2bb\0")
            assert await stream.recv() == HEADER
            await asyncio.sleep(0.01)  # the error about the bytes after it was noticed
            stream.switch(uint(2))
            assert stream.codec == uint(2)
            assert [await stream.recv(), await stream.recv()] == [b"a", b"bb"]
            peer.sendall(b"\1c\0\1d")
            assert [await stream.recv(), await stream.recv()] == [b"c", b"d"]
        peer.close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("first", ["uint", "hexadecimal", "headers"])
def test_switch_reads_messages_that_were_not_received_again(loop: str, first: str) -> None:
    async def main() -> None:
        codec, start, rest = {
            "uint": (uint(1), b"\1a", b"\0\1b\0\2cc"),
            "hexadecimal": (Codec.digits(2, base=16), b"01a", b"0A0123456789\x00\x001"),
            "headers": (Codec.headers("L"), b"L: 1\r\n\r\na", b"l:2\r\nX: y\r\n\r\nbbl: 1\r\n"),
        }[first]
        stream, peer = await wrapped(codec)
        async with stream:
            peer.sendall(start + rest)
            assert await stream.recv() == b"a"
            stream.switch(Codec.fixed(len(rest)))
            assert await stream.recv() == rest
            peer.close()
            with pytest.raises(EOFError):
                await stream.recv()

    run(loop, main())


@LOOPS
def test_switch_forgets_an_error_that_was_raised(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.text(trailer=b","))
        async with stream:
            peer.sendall(b"1:a,\0\1b\0\2c")
            assert await stream.recv() == b"a"
            with pytest.raises(InvalidFrameError):
                await stream.recv()
            stream.switch(uint(2))
            assert await stream.recv() == b"b"
            peer.sendall(b"c")
            assert await stream.recv() == b"cc"
            stream.switch(Codec.digits(1))
            peer.sendall(b"x")
            with pytest.raises(InvalidFrameError) as caught:
                await stream.recv()
            assert caught.value.stream_offset == 11
        peer.close()

    run(loop, main())


@LOOPS
def test_switch_changes_the_framing_of_what_is_sent_after_it(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(uint(2))
        async with stream:
            await stream.send(b"old")
            stream.switch(uint(1))
            await stream.send(b"new")
            await stream.send_many([b"a", bytes(100)])
            await stream.drain()
            assert peer.recv(1000) == b"\0\3old\3new\1a\x64" + bytes(100)
        peer.close()

    run(loop, main())


@LOOPS
def test_switch_while_a_recv_waits_raises(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(uint(2))
        async with stream:
            task = asyncio.create_task(stream.recv())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another recv"):
                stream.switch(uint(1))
            peer.sendall(b"\0\1a")
            assert await task == b"a"
            with pytest.raises(TypeError, match="codec must be a"):
                stream.switch("u8")
        with pytest.raises(ConnectionError):
            stream.switch(uint(1))
        peer.close()

    run(loop, main())


@LOOPS
def test_switch_inside_a_skipped_frame_raises(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(uint(1, max_message_size=3), on_oversize="skip")
        async with stream:
            peer.sendall(b"\1a\5bb")
            assert await stream.recv() == b"a"
            with pytest.raises(RuntimeError, match="too large"):
                stream.switch(uint(2))
            peer.sendall(b"bbb\1c")
            assert await stream.recv() == b"c"
        peer.close()

    run(loop, main())
