"""`FrameProtocol`: what a loop's callbacks see, and when what they send leaves."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import pickle
import socket
from collections.abc import Callable
from typing import Any

import pytest

from framecodec import Check, Codec, FrameError, IncompleteFrameError, InvalidFrameError
from framecodec.asyncio import FrameProtocol, FrameStream, open_connection, start_server
from tests.helpers.event_loops import LOOPS, run, tls_contexts

U2 = Codec.uint(2)
MIB = 1 << 20


class Recorder(FrameProtocol):
    """Writes down what it is told."""

    def __init__(self, codec: Codec = U2) -> None:
        super().__init__(codec)
        self.told: list[Any] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")
        assert transport is self.transport

    def messages_received(self, messages: list[Any]) -> None:
        self.told.append(messages)

    def eof_received(self) -> bool | None:
        self.told.append("eof")
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


async def connected(
    factory: Callable[[], Any] = Recorder,
) -> tuple[Any, socket.socket]:
    """A protocol, and the plain non-blocking socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, protocol = await asyncio.get_running_loop().create_connection(factory, sock=ours)
    return protocol, theirs


async def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        assert more
        data += more
    return data


async def write(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


@LOOPS
def test_protocol_gets_its_callbacks_in_order_with_all_messages_of_a_read(
    loop: str, engine_in_use: Any
) -> None:
    async def main() -> None:
        protocol, peer = await connected()
        await write(peer, U2.encode_many([b"1", b"22", b""]) + b"\0")
        while len(protocol.told) < 2:
            await asyncio.sleep(0)
        await write(peer, b"\1x")
        peer.close()
        assert await protocol.lost is None
        assert protocol.told == ["made", [b"1", b"22", b""], [b"x"], "eof", "lost"]

    run(loop, main())


class OwnNames(Recorder):
    """A protocol with attributes of a user, named as such protocols often do."""

    def __init__(self) -> None:
        super().__init__()
        self.messages = self._messages = self.batches = self.queue = ["mine"]
        self._waiter = self.waiter = asyncio.get_running_loop().create_future()
        self._buffer = self.buffer = self._lock = self._closed = self._loop = self._peer = object()


@LOOPS
def test_users_may_take_common_names_for_attributes_of_a_protocol(loop: str) -> None:
    async def talk() -> None:
        protocol, peer = await connected(OwnNames)
        with peer:
            await write(peer, U2.encode(b"a") + U2.encode(b"b"))
            while not protocol.told[1:]:
                await asyncio.sleep(0.01)
            protocol.send(b"c")
            assert await read(peer, 3) == U2.encode(b"c")
            protocol.transport.close()
            await protocol.lost
        assert protocol.told[:2] == ["made", [b"a", b"b"]]

    run(loop, talk())


@LOOPS
def test_connection_lost_says_that_the_peer_closed_inside_a_frame(
    loop: str, engine_in_use: Any
) -> None:
    async def main() -> None:
        protocol, peer = await connected()
        await write(peer, b"\0\1a\0\5hel")
        peer.close()
        error = await protocol.lost
        assert isinstance(error, IncompleteFrameError)
        assert (error.stream_offset, error.received, error.needed) == (3, 5, 7)
        assert protocol.told == ["made", [b"a"], "eof", "lost"]

    run(loop, main())


@LOOPS
def test_protocol_closes_for_a_bad_frame_after_the_messages_and_the_answers(
    loop: str, engine_in_use: Any
) -> None:
    class Answers(Recorder):
        def messages_received(self, messages: list[Any]) -> None:
            super().messages_received(messages)
            self.send_many(messages)

    async def main() -> None:
        protocol, peer = await connected(lambda: Answers(Codec.digits(2)))
        await write(peer, b"01a02bb 1c01d")
        error = await protocol.lost
        assert isinstance(error, InvalidFrameError)
        assert error.stream_offset == 7
        assert protocol.told == ["made", [b"a", b"bb"], "lost"]
        assert await read(peer, 7) == b"01a02bb"
        assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""
        peer.close()

    run(loop, main())


@LOOPS
def test_protocol_callbacks_may_call_super_or_not(loop: str) -> None:
    class Calls(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            FrameProtocol.connection_made(self, transport)
            super().connection_made(transport)
            self.send(b"hello")

        def eof_received(self) -> bool | None:
            FrameProtocol.eof_received(self)
            return super().eof_received()

        def connection_lost(self, exc: Exception | None) -> None:
            FrameProtocol.connection_lost(self, exc)
            super().connection_lost(exc)

    async def main() -> None:
        protocol, peer = await connected(Calls)
        assert await read(peer, 7) == b"\0\5hello"
        await write(peer, b"\0")
        peer.close()
        assert isinstance(await protocol.lost, IncompleteFrameError)
        assert protocol.told == ["made", "eof", "lost"]

    run(loop, main())


@LOOPS
def test_send_before_connection_made_leaves_with_the_connection(loop: str) -> None:
    class Early(Recorder):
        def __init__(self) -> None:
            super().__init__()
            assert self.transport is None
            self.send(b"early")

    async def main() -> None:
        protocol, peer = await connected(Early)
        protocol.send(b"late")
        assert await read(peer, 13) == b"\0\5early\0\4late"
        protocol.transport.close()
        assert await protocol.lost is None
        peer.close()

    run(loop, main())


@LOOPS
def test_transport_write_keeps_the_order_with_messages(loop: str) -> None:
    async def main() -> None:
        protocol, peer = await connected()
        protocol.send(b"1")
        protocol.transport.write(b"[2]")
        protocol.send_many([b"3", bytes(60_000)])
        protocol.transport.writelines([b"[", b"", bytearray(b"4"), memoryview(b"]")])
        protocol.send(b"5")
        with pytest.raises(TypeError):
            protocol.transport.write(5)
        protocol.transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            protocol.send(b"6")
        expected = b"\0\x011[2]\0\x013" + U2.encode(bytes(60_000)) + b"[4]\0\x015"
        assert await read(peer, len(expected)) == expected
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        await write(peer, b"\0\1x")
        peer.close()
        assert await protocol.lost is None
        assert protocol.told == ["made", [b"x"], "eof", "lost"]

    run(loop, main())


@LOOPS
def test_send_after_write_eof_raises_also_while_messages_are_delivered(loop: str) -> None:
    class Ending(Recorder):
        def messages_received(self, messages: list[Any]) -> None:
            try:
                self.send(b"late")
            except RuntimeError as error:
                self.told.append(str(error))
            super().messages_received(messages)

    async def main() -> None:
        protocol, theirs = await connected(Ending)
        protocol.transport.write_eof()
        theirs.sendall(U2.encode(b"request"))
        theirs.close()
        assert await protocol.lost is None
        refused = "nothing can be sent after write_eof()"
        assert protocol.told == ["made", refused, [b"request"], "eof", "lost"]

    run(loop, main())


@LOOPS
def test_send_after_the_end_raises_and_transport_write_is_ignored(loop: str) -> None:
    async def main() -> None:
        for end in ("close", "abort"):
            protocol, peer = await connected()
            getattr(protocol.transport, end)()
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    protocol.send(b"late")
                with pytest.raises(ConnectionError):
                    protocol.send_many([b"late"])
                protocol.transport.write(b"late")  # as of any transport
                assert protocol.transport.is_closing()
                await protocol.lost
            peer.close()

    run(loop, main())


@LOOPS
def test_abort_inside_messages_received_drops_messages_sent_there(loop: str) -> None:
    class Aborts(Recorder):
        def messages_received(self, messages: list[Any]) -> None:
            self.send(b"never")
            self.transport.abort()
            with pytest.raises(ConnectionError):
                self.send(b"never")

    async def main() -> None:
        protocol, peer = await connected(Aborts)
        await write(peer, b"\0\1x")
        await protocol.lost
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""
        peer.close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("keeps", [False, True])
def test_eof_received_lets_a_large_answer_leave(loop: str, keeps: bool) -> None:
    codec = Codec.uint(4)

    class Answers(Recorder):
        def __init__(self) -> None:
            super().__init__(codec)

        def eof_received(self) -> bool | None:
            super().eof_received()
            for letter in b"abc":
                self.send(bytes([letter]) * (2 * MIB))
            if keeps:
                asyncio.get_running_loop().call_later(0.05, self.last)
            return keeps

        def last(self) -> None:
            self.send(b"last")
            self.transport.close()

    async def main() -> None:
        protocol, peer = await connected(Answers)
        peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.1)
        expected = codec.encode_many(
            [letter * (2 * MIB) for letter in (b"a", b"b", b"c")] + [b"last"] * keeps
        )
        assert await read(peer, len(expected)) == expected
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        assert await protocol.lost is None
        peer.close()

    run(loop, main())


@LOOPS
def test_pause_writing_is_always_followed_by_resume_writing(loop: str) -> None:
    codec = Codec.uint(4)

    async def main() -> None:
        protocol, peer = await connected(lambda: Recorder(codec))
        messages = [bytes([letter]) * (3 * MIB) for letter in b"abcd"]
        for message in messages:
            protocol.send(message)
        await asyncio.sleep(0.02)
        expected = codec.encode_many(messages)
        assert await read(peer, len(expected)) == expected
        await asyncio.sleep(0.02)
        assert protocol.told == ["made", "pause", "resume"]
        protocol.transport.close()
        assert await protocol.lost is None
        peer.close()

    run(loop, main())


@LOOPS
def test_messages_received_that_raises_reaches_the_loop_and_later_messages_are_delivered(
    loop: str,
) -> None:
    class Fails(Recorder):
        def messages_received(self, messages: list[Any]) -> None:
            super().messages_received(messages)
            self.send(b"answer")
            if messages == [b"bad"]:
                raise ValueError("a bug")

    async def main() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        protocol, peer = await connected(Fails)
        await write(peer, U2.encode(b"bad"))
        error = await protocol.lost  # as of every protocol of theirs, both loops close then
        assert isinstance(error, ValueError)
        assert isinstance(complaints[0]["exception"], ValueError)
        peer.close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_function_of_the_codec_may_end_the_program(loop: str, error: type[BaseException]) -> None:
    def parse(header: memoryview) -> None:
        raise error

    async def main() -> None:
        ours, theirs = socket.socketpair()
        codec = Codec.custom(parse, bytes)
        make = functools.partial(FrameProtocol, codec)
        with theirs:
            await asyncio.get_running_loop().create_connection(make, sock=ours)
            theirs.sendall(b"end")
            await asyncio.sleep(20)

    with pytest.raises(error):
        run(loop, main())


@LOOPS
def test_protocol_works_over_tls(loop: str) -> None:
    server_side, client_side = tls_contexts()

    class Echo(Recorder):
        def messages_received(self, messages: list[Any]) -> None:
            super().messages_received(messages)
            self.send_many(messages)

    async def main() -> None:
        protocols: list[Echo] = []

        def factory() -> Echo:
            protocols.append(Echo(Codec.uint(4)))
            return protocols[0]

        server = await asyncio.get_running_loop().create_server(
            factory, "127.0.0.1", 0, ssl=server_side
        )
        port = server.sockets[0].getsockname()[1]
        messages = [b"", b"small", bytes(5 * MIB), b"last"]
        async with await open_connection(
            "127.0.0.1", port, ssl=client_side, server_hostname="localhost"
        ) as stream:
            async with asyncio.TaskGroup() as group:
                group.create_task(stream.send_many(messages))
                assert [await stream.recv() for _ in messages] == messages
            buffer = protocols[0].get_buffer(-1)
            assert isinstance(buffer, memoryview)  # asyncio's TLS slices it
            with pytest.raises(NotImplementedError, match="TLS"):
                stream.write_eof()
            await stream.send(b"still")  # which changed nothing
            assert await stream.recv() == b"still"
        assert await protocols[0].lost is None
        server.close()

    run(loop, main())


@LOOPS
def test_set_protocol_hands_the_connection_over(loop: str) -> None:
    class Lines(asyncio.Protocol):
        def __init__(self) -> None:
            self.received = b""

        def data_received(self, data: bytes) -> None:
            self.received += data

    async def main() -> None:
        taken = asyncio.Event()
        streams: list[FrameStream] = []

        async def handler(stream: FrameStream) -> None:
            assert await stream.recv() == b"lines"
            await stream.send(b"yes")
            transport = stream.transport
            transport.set_protocol(lines)
            raw.append(transport)
            streams.append(stream)
            taken.set()

        raw: list[Any] = []
        lines = Lines()
        server = await start_server(handler, "127.0.0.1", 0, codec=U2)
        peer = socket.create_connection(server.sockets[0].getsockname())
        peer.setblocking(False)
        await write(peer, U2.encode(b"lines"))
        assert await read(peer, 5) == b"\0\3yes"
        await taken.wait()
        await asyncio.wait_for(streams[0].aclose(), 5)  # nothing is left to wait for
        with pytest.raises(ConnectionError):
            await streams[0].send(b"frame")
        await write(peer, b"a line\n")
        while lines.received != b"a line\n":
            await asyncio.sleep(0.001)
        raw[0].abort()
        peer.close()
        server.close()

    run(loop, main())


@LOOPS
def test_send_does_not_write_to_a_transport_that_start_tls_has_replaced(loop: str) -> None:
    server_side, client_side = tls_contexts()

    async def main() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))

        async def handler(stream: FrameStream) -> None:
            await stream.start_tls(server_side)
            async for message in stream:
                await stream.send(message.upper())

        server = await start_server(handler, "127.0.0.1", 0, codec=U2)
        here = asyncio.get_running_loop()
        address = server.sockets[0].getsockname()
        transport, protocol = await here.create_connection(Recorder, *address)
        with pytest.raises(TypeError):  # it would go past what waits in the protocol
            await here.start_tls(protocol.transport, protocol, client_side)
        encrypted = await here.start_tls(
            transport, protocol, client_side, server_hostname="localhost"
        )
        protocol.send(b"in clear text?")
        await asyncio.sleep(0.01)
        assert "protocol.transport" in str(complaints.pop()["exception"])
        protocol.transport = encrypted
        protocol.send(b"secret")
        while protocol.told[-1] != [b"SECRET"]:
            await asyncio.sleep(0.001)
        protocol.transport.close()
        await protocol.lost
        assert not complaints
        server.close()

    run(loop, main())


def test_protocol_works_with_the_transport_of_a_test_and_without_a_loop() -> None:
    class Memory(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written = b""

        def write(self, data: Any) -> None:
            self.written += data

    class Echo(FrameProtocol):
        def messages_received(self, messages: list[Any]) -> None:
            self.send_many(messages)
            self.send(b"end")

    protocol, transport = Echo(U2), Memory()
    protocol.connection_made(transport)
    buffer = protocol.get_buffer(-1)
    buffer[:5] = b"\0\3abc"
    protocol.buffer_updated(5)
    assert transport.written == b"\0\3abc\0\3end"


# --- what users of asyncio do ---------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("sends_at_once", [False, True])
def test_protocol_may_store_its_transport_itself(
    loop: str, sends_at_once: bool, engine_in_use: Any
) -> None:
    class Keeping(FrameProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport  # as every tutorial of asyncio has it
            if sends_at_once:
                self.send(b"welcome")

        def messages_received(self, messages: list[Any]) -> None:
            self.send_many(messages)
            self.transport.close()

    async def main() -> None:
        _, peer = await connected(lambda: Keeping(U2))
        expected = U2.encode(b"welcome") if sends_at_once else b""
        await write(peer, U2.encode(b"hello"))
        expected += U2.encode(b"hello")
        assert await read(peer, len(expected)) == expected
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        peer.close()

    run(loop, main())


@LOOPS
def test_protocol_and_its_transport_are_not_copied(loop: str) -> None:
    async def main() -> None:
        protocol, peer = await connected()
        for part in (protocol, protocol.transport):
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot be copied or pickled"):
                    duplicate(part)
        protocol.transport.abort()
        await protocol.lost
        peer.close()

    run(loop, main())


@LOOPS
def test_abort_inside_pause_writing_drops_everything(loop: str) -> None:
    class Aborts(Recorder):
        def pause_writing(self) -> None:
            self.transport.abort()

    async def main() -> None:
        protocol, peer = await connected(Aborts)
        protocol.send(bytes(65_000))
        protocol.send_many([bytes(65_000)] * 30)
        assert await protocol.lost is None
        with pytest.raises(ConnectionError):
            protocol.send(b"late")
        peer.close()

    run(loop, main())


@LOOPS
def test_transport_equals_that_of_the_loop(loop: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: FrameProtocol(U2), sock=ours
            )
            assert protocol.transport == transport
            assert transport == protocol.transport
            assert hash(transport) == hash(protocol.transport)
            assert protocol.transport != theirs
            protocol.transport.close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("size", [3, 30_000])
def test_send_refuses_another_thread_before_it_accepts_anything(
    loop: str, size: int, engine_in_use: Any
) -> None:
    async def main() -> None:
        protocol, peer = await connected()
        message = bytes(size)
        for call in (
            lambda: protocol.send(message),
            lambda: protocol.send_many([message]),
            lambda: protocol.transport.write(message),
        ):
            with pytest.raises(RuntimeError, match="another thread"):
                await asyncio.to_thread(call)
        await asyncio.to_thread(
            asyncio.get_running_loop().call_soon_threadsafe, protocol.send, message
        )
        expected = U2.encode(message)
        assert await read(peer, len(expected)) == expected  # once, and nothing of the others
        protocol.transport.close()
        assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
        peer.close()

    run(loop, main())


# --- calls from inside a call that encodes or writes ----------------------------------------------


def acting_codec(actions: list[Callable[[], object]]) -> Codec:
    """Return a codec whose function for writing does the next action first."""

    def build(message: memoryview) -> bytes:
        if actions:
            actions.pop(0)()
        return bytes([len(message)])

    return Codec.custom(lambda view: (1, view[0]), build)


INSIDE: dict[str, tuple[Callable[[Any], object], bytes]] = {
    "send": (lambda protocol: protocol.send(b"in"), b"\3out\2in\4last"),
    "send_many": (lambda protocol: protocol.send_many([b"a", b"b"]), b"\3out\1a\1b\4last"),
    "transport.write": (lambda protocol: protocol.transport.write(b"raw"), b"\3outraw\4last"),
    "close": (lambda protocol: protocol.transport.close(), b"\3out"),
    "write_eof": (lambda protocol: protocol.transport.write_eof(), b"\3out"),
}


@LOOPS
@pytest.mark.parametrize("name", INSIDE)
def test_calls_from_the_function_that_encodes_follow_its_message(loop: str, name: str) -> None:
    inside, expected = INSIDE[name]

    async def main() -> None:
        actions: list[Callable[[], object]] = []
        protocol, peer = await connected(lambda: Recorder(acting_codec(actions)))
        with peer:
            actions.append(lambda: inside(protocol))
            protocol.send(b"out")
            with contextlib.suppress(RuntimeError, ConnectionError):
                protocol.send(b"last")
            assert await read(peer, len(expected)) == expected
            if name in ("close", "write_eof"):
                assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""
            protocol.transport.write_eof()
            protocol.transport.write_eof()  # changes nothing
            protocol.transport.close()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("name", ["close", "write_eof"])
def test_the_end_that_a_failed_function_has_asked_for_still_comes(loop: str, name: str) -> None:
    async def main() -> None:
        actions: list[Callable[[], object]] = []
        protocol, peer = await connected(lambda: Recorder(acting_codec(actions)))

        def fail() -> None:
            getattr(protocol.transport, name)()
            raise LookupError("no such message")

        with peer:
            protocol.send(b"out")
            actions.append(fail)
            with pytest.raises((LookupError, FrameError)):
                protocol.send(b"never")
            assert await read(peer, 4) == b"\3out"
            assert await asyncio.get_running_loop().sock_recv(peer, 10) == b""
            protocol.transport.close()

    run(loop, main())


@LOOPS
def test_switch_from_the_function_that_encodes_is_refused(loop: str) -> None:
    async def main() -> None:
        actions: list[Callable[[], object]] = []
        protocol, peer = await connected(lambda: Recorder(acting_codec(actions)))

        def switch() -> None:
            with pytest.raises(RuntimeError, match="has not returned yet"):
                protocol.switch(U2)

        with peer:
            actions.append(switch)
            protocol.send(b"out")
            assert await read(peer, 4) == b"\3out"
            protocol.transport.close()

    run(loop, main())


@LOOPS
def test_a_check_of_a_function_is_computed_at_once(loop: str) -> None:
    def check(data: Any) -> int:
        if bytes(data) == b"bad":
            raise LookupError("no such check")
        return len(bytes(data))

    async def main() -> None:
        codec = Codec.uint(1, check=Check(check, 1))
        protocol, peer = await connected(lambda: Recorder(codec))
        with peer:
            with pytest.raises(InvalidFrameError, match="no such check"):
                protocol.send(b"bad")
            protocol.send(b"good")
            assert await read(peer, 6) == b"\4good\4"
            protocol.transport.close()

    run(loop, main())


class BreakingTransport(asyncio.Transport):
    """A transport whose writes fail."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: Any) -> None:
        raise LookupError("no such transport")

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"")

    def abort(self) -> None:
        self.aborted = True


def test_a_transport_that_fails_ends_the_connection() -> None:
    async def main() -> None:
        for size in (10, 1_000_000):
            protocol, transport = Recorder(), BreakingTransport()
            protocol.connection_made = lambda transport: None  # type: ignore[method-assign]
            FrameProtocol.connection_made(protocol, transport)
            message = bytes(min(size, 60_000))
            complaints: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, told, complaints=complaints: complaints.append(told["exception"])
            )
            with contextlib.suppress(LookupError):
                for _ in range(size // len(message)):
                    protocol.send(message)
            await asyncio.sleep(0)
            assert transport.aborted
            with pytest.raises(ConnectionError, match="sending failed: LookupError"):
                protocol.send(b"x")

    asyncio.run(main())


@LOOPS
def test_the_transport_gives_the_methods_of_the_loops_own(loop: str) -> None:
    async def main() -> None:
        protocol, peer = await connected()
        transport = protocol.transport
        with peer:
            transport.set_write_buffer_limits(1000, 10)
            assert transport.get_write_buffer_limits() == (10, 1000)
            assert transport.can_write_eof()
            assert transport.get_protocol() is protocol
            assert transport.get_extra_info("no such name", 5) == 5
            with pytest.raises(AttributeError):
                transport.no_such_method  # noqa: B018
            with pytest.raises(AttributeError):
                transport._private  # noqa: B018
            transport.writelines([b"a", b"b"])
            assert await read(peer, 2) == b"ab"
            transport.close()
            await protocol.lost

    run(loop, main())


class MemoryTransport(asyncio.Transport):
    """A transport that keeps what is written, and whose protocol may be replaced."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_protocol(self) -> Any:
        return self.protocol

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def made_in_memory(protocol: Any) -> MemoryTransport:
    transport = MemoryTransport(protocol)
    protocol.connection_made(transport)
    return transport


def give(protocol: Any, data: bytes) -> None:
    """Give a protocol bytes, as a transport does."""
    protocol.get_buffer(-1)[: len(data)] = data
    protocol.buffer_updated(len(data))


def test_a_transport_that_fails_in_resume_writing_ends_the_connection(engine_in_use: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport = made_in_memory(protocol)
        protocol.pause_writing()
        protocol.send(b"hello")
        transport.write = BreakingTransport().write  # type: ignore[method-assign]
        await asyncio.sleep(0)
        with pytest.raises(LookupError, match="no such transport"):
            protocol.resume_writing()
        assert transport.aborted
        assert protocol.told == ["made", "pause"]
        with pytest.raises(ConnectionError, match="sending failed: LookupError"):
            protocol.send(b"x")
        protocol.resume_writing()  # changes nothing
        assert transport.written == b""

    asyncio.run(main())


def test_a_transport_that_pauses_and_resumes_in_write_gets_all_messages_in_order(
    engine_in_use: Any,
) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport = made_in_memory(protocol)

        def write(data: Any) -> None:
            transport.written += data
            protocol.pause_writing()
            protocol.resume_writing()

        transport.write = write  # type: ignore[method-assign]
        messages = [bytes([i]) * 1000 for i in range(100)]
        protocol.pause_writing()
        for message in messages[:50]:
            protocol.send(message)
        protocol.resume_writing()
        for message in messages[50:]:
            protocol.send(message)
        await asyncio.sleep(0)
        assert transport.written == b"".join(map(U2.encode, messages))

    asyncio.run(main())


def test_resume_writing_sends_nothing_to_a_transport_that_another_protocol_has(
    engine_in_use: Any,
) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport = made_in_memory(protocol)
        protocol.pause_writing()
        protocol.send(b"secret")
        await asyncio.sleep(0)
        transport.protocol = asyncio.Protocol()
        with pytest.raises(RuntimeError, match="has another protocol now"):
            protocol.resume_writing()
        assert (transport.written, transport.aborted) == (b"", False)

    asyncio.run(main())


def test_connection_lost_that_fails_has_ended_the_connection(engine_in_use: Any) -> None:
    class FailsOnce(Recorder):
        fails = True

        def _on_eof(self) -> None:
            if self.fails:
                self.fails = False
                raise LookupError("no end")
            super()._on_eof()

    async def main() -> None:
        protocol = FailsOnce()
        transport = made_in_memory(protocol)
        with pytest.raises(LookupError, match="no end"):
            protocol.connection_lost(None)
        with pytest.raises(ConnectionError):
            protocol.send(b"x")
        assert transport.written == b""

    asyncio.run(main())


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_an_error_of_messages_received_loses_no_later_message(
    engine_in_use: Any, one_at_a_time: bool
) -> None:
    class Refusing(FrameProtocol):
        def messages_received(self, messages: list[Any]) -> None:
            received.append(messages)
            if messages == [b"bad"]:
                raise LookupError("no such message")

    async def main() -> None:
        protocol = Refusing(U2, one_at_a_time=one_at_a_time, message_timeout=60)
        transport = made_in_memory(protocol)
        give(protocol, U2.encode(b"good"))
        with pytest.raises(LookupError, match="no such message"):
            give(protocol, U2.encode(b"bad"))
        give(protocol, U2.encode(b"later"))
        assert received == [[b"good"], [b"bad"], [b"later"]]
        protocol.connection_lost(None)
        assert not transport.aborted

    received: list[list[bytes]] = []
    asyncio.run(main())


def test_bytes_after_a_bad_frame_are_read_and_ignored(engine_in_use: Any) -> None:
    async def main() -> None:
        protocol = Recorder(Codec.uint(1, magic=b"M"))
        transport = made_in_memory(protocol)
        transport.close = lambda: None  # type: ignore[method-assign]
        give(protocol, b"M\1aM\1bwrong")
        give(protocol, b"M\1c")
        assert protocol.told == ["made", [b"a", b"b"]]
        with pytest.raises(ConnectionError):
            protocol.send(b"x")

    asyncio.run(main())


def test_a_transport_that_calls_inside_a_read_is_refused(engine_in_use: Any) -> None:
    refusals: list[str] = []

    def parse(view: memoryview) -> tuple[int, int]:
        with pytest.raises(RuntimeError) as caught:
            protocols[0].buffer_updated(0)
        refusals.append(str(caught.value))
        return 1, view[0]

    async def main() -> None:
        protocols.append(Recorder(Codec.custom(parse, lambda message: bytes([len(message)]))))
        made_in_memory(protocols[0])
        give(protocols[0], b"\1a")
        assert protocols[0].told == ["made", [b"a"]]

    protocols: list[Any] = []
    asyncio.run(main())
    assert len(refusals) == 1


def test_send_outside_of_the_loop_keeps_the_message(engine_in_use: Any) -> None:
    async def begin() -> tuple[Any, MemoryTransport]:
        protocol = Recorder()
        return protocol, made_in_memory(protocol)

    async def send(protocol: Any) -> None:
        protocol.send(b"second")
        await asyncio.sleep(0)

    protocol, transport = asyncio.run(begin())
    with pytest.raises(RuntimeError, match="no running event loop"):
        protocol.send(b"first" * 1000)
    assert transport.written == b""
    asyncio.run(send(protocol))
    assert transport.written == U2.encode_many([b"first" * 1000, b"second"])
    assert not transport.aborted


@pytest.mark.parametrize("call", ["write_eof", "close"])
def test_the_end_comes_after_what_a_paused_transport_has_not_taken(
    call: str, engine_in_use: Any
) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport = made_in_memory(protocol)
        calls: list[bytes] = []
        for name in ("write_eof", "close"):
            setattr(transport, name, lambda: calls.append(transport.written))
        protocol.pause_writing()
        protocol.send(b"hello")
        getattr(protocol.transport, call)()
        await asyncio.sleep(0)
        assert (transport.written, calls) == (b"", [])
        with pytest.raises((ConnectionError, RuntimeError)):
            protocol.send(b"more")
        protocol.resume_writing()
        await asyncio.sleep(0)
        assert calls == [U2.encode(b"hello")]

    asyncio.run(main())


def test_close_of_a_transport_that_is_closing_pauses_nothing(engine_in_use: Any) -> None:
    async def main() -> None:
        protocol = Recorder()
        transport = made_in_memory(protocol)
        protocol.pause_writing()
        protocol.send(b"hello")
        transport.aborted = True
        transport.pause_reading = pytest.fail  # type: ignore[method-assign]
        protocol.transport.close()
        with pytest.raises(ConnectionError, match="closed"):
            protocol.send(b"more")

    asyncio.run(main())


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_batch_that_cannot_be_encoded_ends_the_connection(
    size: int, engine_in_use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> bytes:
        raise MemoryError

    async def main() -> None:
        protocol = Recorder(Codec.uint(4))
        transport = made_in_memory(protocol)
        protocol.pause_writing()
        protocol.send(b"small")
        monkeypatch.setattr(protocol._sending, "_encode_many", fail)
        with pytest.raises(MemoryError) as caught:
            protocol.transport.write(bytes(size))
        assert caught.value.message_started  # type: ignore[attr-defined]
        assert transport.aborted
        assert transport.written == b""
        with pytest.raises(ConnectionError, match="sending failed"):
            protocol.send(b"x")

    asyncio.run(main())
