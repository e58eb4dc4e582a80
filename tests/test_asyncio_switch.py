"""Switch the codec or the protocol of a connection in an event loop: no byte is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from framecodec import Codec, IncompleteFrameError, InvalidFrameError
from framecodec.asyncio import FrameProtocol
from tests.helpers.event_loops import LOOPS, run
from tests.test_asyncio_protocol import Recorder, connected, read, write

U1, U2 = Codec.uint(1), Codec.uint(2)
NETSTRING = Codec.text(trailer=b",")
# Version 2 of the PROXY protocol, and the message of a header: command, family, addresses, ports.
PROXY = Codec.uint(2, magic=b"\r\n\r\n\0\r\nQUIT\n", length_offset=14)
HEADER = b"\x21\x11" + bytes((192, 0, 2, 1, 192, 0, 2, 2)) + b"\x13\x88\x00\x19"


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


class Switching(Recorder):
    """Calls `step` with each list of messages."""

    def __init__(self, codec: Codec, step: Any, **options: Any) -> None:
        FrameProtocol.__init__(self, codec, **options)
        self.told = []
        self.lost = asyncio.get_running_loop().create_future()
        self.step = step

    def messages_received(self, messages: list[Any]) -> None:
        self.told.append(messages)
        self.step(self, messages)


@LOOPS
@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_switch_in_messages_received_acts_from_the_end_of_its_list_on(
    loop: str, engine_in_use: Any, one_at_a_time: bool
) -> None:
    def step(protocol: Any, messages: list[Any]) -> None:
        protocol.send(b"old")
        if messages[-1] == b"u16":
            protocol.switch(U2)
            assert protocol.codec == U2
            protocol.send(b"new")

    async def main() -> None:
        protocol, peer = await connected(
            lambda: Switching(NETSTRING, step, one_at_a_time=one_at_a_time)
        )
        await write(peer, b"1:a,3:u16,\0\1b\0\2cc\0")
        assert await read(peer, 5) == b"3:old"  # and no error, although \0 is no digit
        await until(lambda: protocol.told[-1] == [b"cc"] or protocol.told[-1] == [b"b", b"cc"])
        await write(peer, b"\1d")
        await until(lambda: protocol.told[-1] == [b"d"])
        told = [message for messages in protocol.told[1:] for message in messages]
        assert told == [b"a", b"u16", b"b", b"cc", b"d"]
        if one_at_a_time:
            assert all(len(messages) == 1 for messages in protocol.told[1:])
        protocol.transport.close()
        rest = b""
        while more := await asyncio.get_running_loop().sock_recv(peer, 1000):
            rest += more
        if one_at_a_time:
            assert rest == b",3:old," + b"\0\3new" + b"\0\3old" * 3
        else:
            assert rest == b"," + b"\0\3new" + b"\0\3old" * 2
        peer.close()
        assert await protocol.lost is None

    run(loop, main())


@LOOPS
def test_switch_outside_of_messages_received_delivers_at_once(
    loop: str, engine_in_use: Any
) -> None:
    async def main() -> None:
        protocol, peer = await connected(lambda: Recorder(U2))
        await write(peer, b"\0\1a\1b\1c\5")
        await until(lambda: protocol._inbox.splitter.pending == 5)
        protocol.send(b"old")
        protocol.switch(U1)
        protocol.send(b"new")
        assert protocol.told == ["made", [b"a"], [b"b", b"c"]]
        await write(peer, b"ddddd")
        await until(lambda: protocol.told[-1] == [b"ddddd"])
        assert await read(peer, 9) == b"\0\3old\3new"
        peer.close()
        assert await protocol.lost is None

    run(loop, main())


@LOOPS
def test_switch_to_a_codec_whose_first_frame_is_bad_closes_the_connection(
    loop: str, engine_in_use: Any
) -> None:
    async def main() -> None:
        protocol, peer = await connected(
            lambda: Switching(U2, lambda protocol, _: protocol.switch(NETSTRING))
        )
        await write(peer, b"\0\1a\0\1b\0\3c")
        error = await protocol.lost
        assert isinstance(error, InvalidFrameError)
        assert error.stream_offset == 6
        assert protocol.told == ["made", [b"a", b"b"], "lost"]
        peer.close()

    run(loop, main())


@LOOPS
def test_switch_twice_reads_the_same_bytes_again(loop: str, engine_in_use: Any) -> None:
    def step(protocol: Any, messages: list[Any]) -> None:
        if messages == [b"a"]:
            protocol.switch(U1)
            protocol.switch(Codec.digits(1))

    async def main() -> None:
        protocol, peer = await connected(lambda: Switching(U2, step))
        await write(peer, b"\0\1a1b2cc3d")
        await until(lambda: len(protocol.told) > 2)
        assert protocol.told[1:] == [[b"a"], [b"b", b"cc"]]
        assert protocol._inbox.splitter.stream_offset == 8
        peer.close()
        assert isinstance(await protocol.lost, IncompleteFrameError)

    run(loop, main())


@LOOPS
def test_switch_of_a_closed_connection_raises(loop: str) -> None:
    async def main() -> None:
        protocol, peer = await connected()
        with pytest.raises(TypeError, match="codec must be a"):
            protocol.switch("u16be")
        protocol.transport.close()
        with pytest.raises(ConnectionError):
            protocol.switch(U1)
        assert await protocol.lost is None
        peer.close()

    run(loop, main())


@LOOPS
def test_one_at_a_time_stops_when_the_connection_is_closed(loop: str, engine_in_use: Any) -> None:
    async def main() -> None:
        protocol, peer = await connected(
            lambda: Switching(U1, lambda p, _: p.transport.close(), one_at_a_time=True)
        )
        await write(peer, b"\1a\1b\1c")
        assert await protocol.lost is None
        assert protocol.told == ["made", [b"a"], "lost"]
        peer.close()

    run(loop, main())


@LOOPS
def test_one_at_a_time_raises_a_bad_frame_after_the_messages_before_it(
    loop: str, engine_in_use: Any
) -> None:
    async def main() -> None:
        protocol, peer = await connected(
            lambda: Switching(NETSTRING, lambda p, m: p.send(b"ok"), one_at_a_time=True)
        )
        await write(peer, b"1:a,1:b,x")
        error = await protocol.lost
        assert isinstance(error, InvalidFrameError)
        assert error.stream_offset == 8
        assert protocol.told == ["made", [b"a"], [b"b"], "lost"]
        assert await read(peer, 10) == b"2:ok,2:ok,"
        peer.close()

    run(loop, main())


# --- another protocol -----------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("one_at_a_time", [False, True])
@pytest.mark.parametrize("calls_made", ["never", "before", "after"])
def test_set_protocol_hands_over_a_proxy_header_and_frames_in_one_segment(
    loop: str, engine_in_use: Any, one_at_a_time: bool, calls_made: str
) -> None:
    async def main() -> None:
        def step(protocol: Any, messages: list[Any]) -> None:
            nonlocal second
            protocol.send(b"\x20\x00")
            second = Recorder(U2)
            if calls_made == "before":
                second.connection_made(protocol.transport)
            protocol.transport.set_protocol(second)
            second.send(b"hello")
            if calls_made == "after":
                second.connection_made(protocol.transport)

        second: Any = None
        first, peer = await connected(lambda: Switching(PROXY, step, one_at_a_time=one_at_a_time))
        await write(peer, PROXY.encode(HEADER) + b"\0\1a\0\2bb\0")
        await until(lambda: second is not None and len(second.told) == 2)
        assert first.told == ["made", [HEADER]]
        assert second.told == ["made", [b"a", b"bb"]]
        await write(peer, b"\1c")
        await until(lambda: second.told[-1] == [b"c"])
        assert await read(peer, 23) == PROXY.encode(b"\x20\x00") + b"\0\5hello"
        with pytest.raises(ConnectionError):
            first.send(HEADER)
        peer.close()
        assert await second.lost is None
        assert not first.lost.done()

    run(loop, main())


class Bytes(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.data = b""
        self.buffer = bytearray(3)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]


@LOOPS
@pytest.mark.parametrize("other", [Bytes, Buffered])
@pytest.mark.parametrize("switched", [False, True])
def test_set_protocol_hands_unread_bytes_to_a_protocol_of_asyncio(
    loop: str, engine_in_use: Any, other: Any, switched: bool
) -> None:
    async def main() -> None:
        protocols: list[Any] = []

        def step(protocol: Any, messages: list[Any]) -> None:
            protocols.append(other())
            if switched:
                protocol.switch(U1)
            protocol.transport.set_protocol(protocols[0])

        first, peer = await connected(lambda: Switching(U2, step))
        await write(peer, b"\0\1a\1b\1cline")
        await until(lambda: protocols and len(protocols[0].data) == 8)
        await write(peer, b"s\n")
        await until(lambda: len(protocols[0].data) == 10)
        assert protocols[0].data == b"\1b\1clines\n"
        assert first.told == ["made", [b"a"]]
        first._sending.raw_transport.abort()
        peer.close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("other", [Bytes, Buffered])
def test_set_protocol_ends_a_connection_whose_next_protocol_raises(
    loop: str, engine_in_use: Any, other: Any
) -> None:
    class Failing(other):  # type: ignore[misc]
        def data_received(self, data: bytes) -> None:
            raise ValueError("not these bytes")

        def buffer_updated(self, nbytes: int) -> None:
            raise ValueError("not these bytes")

    async def main() -> None:
        contexts: list[dict[str, Any]] = []
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, context: contexts.append(context))
        second = Failing()

        def step(protocol: Any, messages: list[Any]) -> None:
            protocol.transport.set_protocol(second)

        first, peer = await connected(lambda: Switching(U2, step))
        await write(peer, b"\0\1arest")
        await until(lambda: contexts)
        assert str(contexts[0]["exception"]) == "not these bytes"
        assert first._sending.raw_transport.is_closing()
        peer.close()

    run(loop, main())


@LOOPS
def test_set_protocol_again_and_again_hands_each_the_rest(loop: str, engine_in_use: Any) -> None:
    async def main() -> None:
        seen: list[Any] = []

        class Next(FrameProtocol):
            def messages_received(self, messages: list[Any]) -> None:
                seen.append(messages)
                if len(seen) < 5:
                    self.transport.set_protocol(Next(U1, one_at_a_time=True))

        protocol, peer = await connected(lambda: Next(U1, one_at_a_time=True))
        await write(peer, b"\1a\1b\1c\1d\1e\1f")
        await until(lambda: len(seen) == 6)
        assert seen == [[letter] for letter in (b"a", b"b", b"c", b"d", b"e", b"f")]
        protocol._sending.raw_transport.abort()
        peer.close()

    run(loop, main())


@LOOPS
def test_set_protocol_writes_all_accepted_messages_to_a_slow_peer(loop: str) -> None:
    async def main() -> None:
        protocol, peer = await connected(lambda: Recorder(U2))
        message = bytes(60_000)
        for _ in range(50):
            protocol.send(message)
            await asyncio.sleep(0)
        protocol.send(b"last")
        assert "pause" in protocol.told
        protocol.transport.set_protocol(Bytes())
        protocol._sending.raw_transport.write(b"lines")
        size = 50 * 60_002 + 6 + 5
        assert (await read(peer, size))[-11:] == b"\0\4lastlines"
        protocol._sending.raw_transport.abort()
        peer.close()

    run(loop, main())
