"""Whole messages in datagrams, in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from framecodec import Codec, IncompleteFrameError, InvalidFrameError, MessageTooLargeError
from framecodec.asyncio import DatagramStream, datagrams, open_datagram_endpoint
from tests.helpers.event_loops import LOOPS, run

U2 = Codec.uint(2)
LOOPBACK = ("127.0.0.1", 0)


async def pair(codec: Codec | None = None) -> tuple[DatagramStream, DatagramStream, Any]:
    """One that is bound, one that is connected to it, and the first one's address."""
    server = await open_datagram_endpoint(LOOPBACK, codec=codec)
    address = server.get_extra_info("sockname")
    return server, await open_datagram_endpoint(remote_addr=address, codec=codec), address


def with_pair(
    loop: str,
    test: Callable[[DatagramStream, DatagramStream, Any], Awaitable[None]],
    codec: Codec | None = None,
) -> None:
    async def main() -> None:
        server, client, address = await pair(codec)
        async with server, client:
            await test(server, client, address)

    run(loop, main())


def test_an_address_in_use_is_an_error() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(OSError, match="in use"):
                await open_datagram_endpoint(taken.getsockname())

    run("asyncio", main())  # uvloop leaves the transport open, and warns


@LOOPS
def test_recv_from_gives_each_datagram_and_its_address(loop: str) -> None:
    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        for message in (b"hello", b"", bytes(65507), bytearray(b"mutable"), memoryview(b"view")):
            await client.send(message)
            received, sender = await server.recv_from()
            assert received == bytes(message)
            assert sender == client.get_extra_info("sockname")
            await server.send_to(received, sender)
            assert await client.recv() == bytes(message)
        await client.send_many([b"1", b"2"])
        await server.recv()
        assert await server.recv_many() == [b"2"]

    with_pair(loop, test)


@LOOPS
def test_send_many_packs_frames_into_datagrams(loop: str, engine_in_use: Any) -> None:
    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        messages = [bytes([number]) * 1000 for number in range(100)]
        await client.send_many(messages)  # in two datagrams
        received = [await server.recv()]
        while len(received) < len(messages):
            received += await server.recv_many()
        assert received == messages
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with plain:
            plain.bind(LOOPBACK)
            plain.settimeout(10)
            await server.send_many_to(messages[:3], plain.getsockname())
            assert plain.recv(65535) == U2.encode_many(messages[:3])

    with_pair(loop, test, U2)


@LOOPS
def test_send_many_sends_the_list_as_it_was_when_a_build_changes_it(
    loop: str, engine_in_use: Any
) -> None:
    messages = [b"a", b"bb", b"ccc"]

    def build(message: memoryview) -> bytes:
        del messages[:1]
        return bytes([len(message)])

    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        await client.send_many(messages)
        assert await server.recv_many() == [b"a", b"bb", b"ccc"]
        assert messages == []

    with_pair(loop, test, Codec.custom(lambda view: (1, view[0]) if view else None, build))


@LOOPS
def test_recv_raises_once_for_a_broken_datagram(loop: str, engine_in_use: Any) -> None:
    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        client.transport.sendto(b"\0\1a\0\5hel")
        await client.send(b"next")
        assert await server.recv() == b"a"
        with pytest.raises(IncompleteFrameError):
            await server.recv()
        assert await server.recv() == b"next"

    with_pair(loop, test, U2)


@LOOPS
def test_send_refuses_a_message_too_large_for_a_datagram(loop: str) -> None:
    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        with pytest.raises(MessageTooLargeError) as caught:
            await client.send(bytes(65508))
        assert (caught.value.size, caught.value.limit) == (65508, 65507)
        with pytest.raises(MessageTooLargeError):
            await client.send_many([b"good", bytes(65508)])
        with pytest.raises(TypeError):
            await client.send("text")
        await client.send(b"only this")
        assert await server.recv() == b"only this"
        assert server.pending_messages == 0

    with_pair(loop, test)


@LOOPS
def test_stream_drops_unreceived_datagrams_above_a_bound(loop: str) -> None:
    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        for _ in range(100):
            for _ in range(20):
                await client.send(bytes(1000))
            await asyncio.sleep(0.001)
        while not server.dropped:
            await client.send(bytes(1000))
            await asyncio.sleep(0)
        assert server.pending_messages * 1000 < 300_000
        received = 0
        while server.pending_messages:
            received += len(await server.recv_many())
        await client.send(b"again")
        while await server.recv() != b"again":
            pass

    with_pair(loop, test)


@LOOPS
def test_recv_raises_errors_of_the_system_up_to_a_bound(loop: str) -> None:
    async def main() -> None:
        server, client, _ = await pair()
        await server.aclose()
        await client.send(b"to a closed port")
        with pytest.raises(ConnectionRefusedError):
            await client.recv()
        for _ in range(10_000):
            await client.send(b"to a closed port")
            await asyncio.sleep(0)
        assert client.pending_messages < 1500
        await client.aclose()

    run(loop, main())


@LOOPS
def test_recv_loses_nothing_when_cancelled_and_refuses_a_second_task(loop: str) -> None:
    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        for number in range(50):
            given_up = asyncio.create_task(server.recv())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="recv"):
                await server.recv()
            await client.send(b"%d" % number)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            assert await server.recv() == b"%d" % number

    with_pair(loop, test)


@LOOPS
def test_aclose_ends_waiting_tasks(loop: str) -> None:
    async def main() -> None:
        server, client, _ = await pair()
        await client.send(b"one")

        async def iterate() -> list[Any]:
            return [message async for message in server]

        iterating = asyncio.create_task(iterate())
        await asyncio.sleep(0.05)
        await server.aclose()
        assert await iterating == [b"one"]
        with pytest.raises(ConnectionError):
            await server.recv()
        with pytest.raises(ConnectionError):
            await server.send_to(b"late", ("127.0.0.1", 9))
        await server.aclose()
        await client.aclose()

    run(loop, main())


@LOOPS
def test_open_datagram_endpoint_takes_paths_of_unix_sockets(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        there, here = tmp_path / "there", str(tmp_path / "here")
        server = await open_datagram_endpoint(there, codec=U2)
        client = await open_datagram_endpoint(here, there, codec=U2)
        await client.send(bytes(60_000))
        message, sender = await server.recv_from()
        assert (message, sender) == (bytes(60_000), here)
        await server.send_many_to([b"a", b"b"], sender)
        assert [await client.recv(), await client.recv()] == [b"a", b"b"]
        await client.aclose()
        await server.aclose()
        with pytest.raises(FileNotFoundError):
            await open_datagram_endpoint(remote_addr=tmp_path / "nowhere" / "there")

    run(loop, main())


@LOOPS
def test_open_datagram_endpoint_refuses_an_invalid_codec(loop: str) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="Codec"):
            await open_datagram_endpoint(LOOPBACK, codec=4)  # type: ignore[arg-type]

    run(loop, main())


@LOOPS
def test_recv_many_takes_the_messages_before_the_first_error(loop: str, engine_in_use: Any) -> None:
    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        protocol = server._protocol
        for data in (b"1a1b", b"1cx", b"1d", b"1e"):
            protocol.datagram_received(data, address)
        assert server.pending_messages == 6
        assert await server.recv_many() == [b"a", b"b", b"c"]
        assert server.pending_messages == 3
        with pytest.raises(InvalidFrameError):
            await server.recv_many()
        assert await server.recv_many() == [b"d", b"e"]
        assert (server.pending_messages, protocol.held) == (0, 0)

    with_pair(loop, test, Codec.digits(1))


@LOOPS
def test_send_without_a_peer_raises_and_the_stream_continues(loop: str) -> None:
    async def main() -> None:
        async with await open_datagram_endpoint(LOOPBACK) as stream:
            for send in (stream.send(b"where to?"), stream.send_many([b"where to?"])):
                with pytest.raises(OSError, match=r"is not connected; use send_to\(\)"):
                    await send
            await stream.send_to(b"here", stream.get_extra_info("sockname"))
            assert await stream.recv() == b"here"

    run(loop, main())


@LOOPS
def test_stream_over_a_pair_of_sockets_without_names(loop: str) -> None:
    async def main() -> None:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        left.setblocking(False)
        right.setblocking(False)
        one, two = await open_datagram_endpoint(sock=left), await open_datagram_endpoint(sock=right)
        async with one, two:
            await one.send(b"hello")
            assert await two.recv() == b"hello"
            assert one.get_extra_info("peername") == ""

    run(loop, main())


@LOOPS
def test_stream_and_protocol_are_not_copied(loop: str) -> None:
    async def test(server: DatagramStream, client: DatagramStream, address: Any) -> None:
        for part in (server, server._protocol):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                copy.copy(part)

    with_pair(loop, test)


@LOOPS
def test_stream_of_datagrams_is_iterated_until_it_is_closed(loop: str, engine_in_use: Any) -> None:
    codec = Codec.uint(1)

    async def main() -> None:
        async with await open_datagram_endpoint(("127.0.0.1", 0), codec=codec) as stream:
            assert stream.codec is codec
            address = stream.transport.get_extra_info("sockname")
            await stream.send_to(b"one", address)
            found = []
            async for message in stream:
                found.append(message)
                stream.transport.close()
            assert found == [b"one"]
            with pytest.raises(ConnectionAbortedError):
                await stream.recv()

    run(loop, main())


@LOOPS
def test_an_endpoint_that_cannot_be_opened_leaves_no_socket(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises((TypeError, ValueError)):
            await open_datagram_endpoint(str(tmp_path / "socket"), no_such_option=1)
        with pytest.raises(OSError, match=r"."):
            await open_datagram_endpoint(str(tmp_path / "missing" / "socket"))

    run(loop, main())  # a ResourceWarning of an open socket would fail


@LOOPS
def test_take_messages_loses_nothing_to_an_interruption(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with await open_datagram_endpoint(("127.0.0.1", 0)) as stream:
            protocol = stream._protocol
            protocol.datagram_received(b"one", ("127.0.0.1", 1))
            held = protocol.held
            with monkeypatch.context() as patch:

                def interrupt(queue: Any) -> Any:
                    raise KeyboardInterrupt

                patch.setattr(datagrams, "_split", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    protocol.take_messages()
            assert protocol.held == held
            assert await stream.recv() == b"one"

    run(loop, main())


@LOOPS
def test_iteration_raises_what_does_not_end_the_socket(loop: str) -> None:
    async def main() -> None:
        async with await open_datagram_endpoint(("127.0.0.1", 0)) as stream:
            stream._protocol.error_received(ConnectionAbortedError("by a firewall"))
            with pytest.raises(ConnectionAbortedError, match="by a firewall"):
                async for _ in stream:
                    pass
            stream._protocol.error = OSError("the network is gone")
            assert "the network is gone" in str(stream._protocol.ended())
            stream._protocol.error = None

    run(loop, main())


@LOOPS
def test_a_send_waits_again_where_the_socket_is_full_when_its_turn_comes(loop: str) -> None:
    async def main() -> None:
        async with await open_datagram_endpoint(("127.0.0.1", 0)) as stream:
            protocol = stream._protocol
            protocol.pause_writing()  # as a transport does whose socket takes no more
            sending = asyncio.create_task(
                stream.send_to(b"late", stream.get_extra_info("sockname"))
            )
            await asyncio.sleep(0)
            protocol.resume_writing()
            protocol.pause_writing()  # what another task has sent has filled it again
            await asyncio.sleep(0.001)
            assert not sending.done()
            protocol.resume_writing()
            await sending
            assert await stream.recv() == b"late"

    run(loop, main())


@LOOPS
def test_a_cancelled_aclose_aborts(loop: str) -> None:
    async def main() -> None:
        stream = await open_datagram_endpoint(("127.0.0.1", 0))
        protocol = stream._protocol
        closing = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0)
        if not protocol.lost:
            closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        while not protocol.lost:
            await asyncio.sleep(0.001)

    run(loop, main())


@LOOPS
def test_a_cancelled_aclose_aborts_a_socket_that_still_sends(loop: str) -> None:
    class Slow:
        """A transport whose close() waits for ever for what it has to send."""

        def close(self) -> None:
            pass

        def abort(self) -> None:
            real.abort()

    async def main() -> None:
        nonlocal real
        stream = await open_datagram_endpoint(("127.0.0.1", 0))
        real = stream._protocol.transport
        stream._protocol.transport = Slow()
        closing = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(20):
            while not stream._protocol.lost:
                await asyncio.sleep(0.001)

    real: Any = None
    run(loop, main())


@LOOPS
def test_a_send_that_waits_raises_when_the_socket_is_lost(loop: str) -> None:
    async def main() -> None:
        stream = await open_datagram_endpoint(("127.0.0.1", 0))
        peer = stream.get_extra_info("sockname")
        stream._protocol.pause_writing()  # as a transport does whose socket takes no more
        sending = asyncio.create_task(stream.send_to(b"late", peer))
        await asyncio.sleep(0)
        assert not sending.done()
        await stream.aclose()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(sending, 20)

    run(loop, main())
