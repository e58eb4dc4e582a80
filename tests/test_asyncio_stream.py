"""`FrameStream`: messages, ends, errors, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import pickle
import socket
import struct
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest

import framecodec.asyncio
from framecodec import (
    Codec,
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
    MessageTooLargeError,
)
from framecodec._states import TransportState
from framecodec.asyncio import FrameStream, observed, open_connection
from framecodec.asyncio.stream_protocol import StreamProtocol
from framecodec.asyncio.transport import ProtocolTransport
from tests.helpers.event_loops import (
    LOOPS,
    Contexts,
    echo,
    run,
    served,
    tls_contexts,
    wrapped,
)

U4 = Codec.uint(4)


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    """The server's and the client's."""
    return tls_contexts()


@pytest.fixture(params=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, contexts: Contexts) -> Contexts | None:
    return contexts if request.param == "TLS" else None


# --- messages -------------------------------------------------------------------------------------


@LOOPS
def test_stream_echoes_messages_of_all_sizes(
    loop: str, tls: Contexts | None, engine_in_use: Any
) -> None:
    async def client(stream: FrameStream) -> None:
        messages = [os.urandom(size) for size in (0, 1, 70, 5000, 70_000, 1_000_000)]
        for message in messages:
            await stream.send(message)
            assert await stream.recv() == message
        async with asyncio.TaskGroup() as group:
            group.create_task(stream.send_many(messages))
            received = [await stream.recv() for _ in messages]
        assert received == messages

    run(loop, served(echo, client, tls=tls))


@LOOPS
def test_recv_recv_many_and_iteration_give_the_messages_in_order(loop: str) -> None:
    async def handler(stream: FrameStream) -> None:
        await stream.send_many([b"%d" % number for number in range(100)])

    async def client(stream: FrameStream) -> None:
        received = [await stream.recv()]
        received += await stream.recv_many()
        received.append(await anext(stream)) if len(received) < 100 else None
        received += [message async for message in stream]
        assert received == [b"%d" % number for number in range(100)]
        with pytest.raises(EOFError):
            await stream.recv()

    run(loop, served(handler, client))


@LOOPS
def test_send_keeps_the_order_of_small_and_large_messages(loop: str, tls: Contexts | None) -> None:
    messages = [bytes([number % 251]) * (number * 7919 % 40_000) for number in range(200)]

    async def handler(stream: FrameStream) -> None:
        for number in range(0, 200, 4):
            stream.send(messages[number])  # accepted by the call, awaited or not
            await stream.send_many(messages[number + 1 : number + 3])
            await stream.send(bytearray(messages[number + 3]))

    async def client(stream: FrameStream) -> None:
        assert [message async for message in stream] == messages

    run(loop, served(handler, client, tls=tls))


@LOOPS
def test_recv_does_not_suspend_while_messages_are_ready(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        peer.sendall(U4.encode_many([b"1", b"2", b"3"]))
        assert await stream.recv() == b"1"
        turns: list[None] = []
        asyncio.get_running_loop().call_soon(turns.append, None)
        assert [await stream.recv(), await stream.recv()] == [b"2", b"3"]
        assert not turns
        await stream.aclose()
        peer.close()

    run(loop, main())


@LOOPS
def test_send_writes_the_small_messages_of_one_iteration_at_once(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        writes: list[bytes] = []
        raw: Any = stream._sending.raw_transport

        class Counting:
            def write(self, data: bytes) -> None:
                writes.append(bytes(data))
                raw.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(raw, name)

        stream._sending.raw_transport, stream._sending.socket_fd = Counting(), -1
        messages = [b"%d" % number for number in range(500)]
        for message in messages:
            await stream.send(message)
        assert writes == []
        await stream.drain()
        assert writes == [U4.encode_many(messages)]
        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(stream.send(message))
        await asyncio.sleep(0)
        assert len(writes) <= 3
        await stream.aclose()
        peer.close()

    run(loop, main())


@LOOPS
def test_send_and_recv_take_specials(loop: str) -> None:
    codec = Codec.uint(2, specials={0: None, 1: "flush"})

    async def client(stream: FrameStream) -> None:
        await stream.send_many([None, b"abc", "flush"])
        await stream.send("flush")
        assert [await stream.recv() for _ in range(4)] == [None, b"abc", "flush", "flush"]

    run(loop, served(echo, client, codec))


# --- ends -----------------------------------------------------------------------------------------


@LOOPS
def test_recv_raises_eof_error_at_a_clean_end_after_the_messages(
    loop: str, tls: Contexts | None
) -> None:
    async def handler(stream: FrameStream) -> None:
        await stream.send(b"bye")

    async def client(stream: FrameStream) -> None:
        assert await stream.recv() == b"bye"
        for _ in range(2):
            with pytest.raises(EOFError) as caught:
                await stream.recv()
            assert not isinstance(caught.value, IncompleteFrameError)
            with pytest.raises(EOFError):
                await stream.recv_many()
        assert [message async for message in stream] == []

    run(loop, served(handler, client, tls=tls))


@LOOPS
def test_recv_reports_an_end_at_every_byte_of_a_frame(loop: str, engine_in_use: ModuleType) -> None:
    frame = U4.encode(b"hello")

    async def main() -> None:
        for size in range(1, len(frame)):
            stream, peer = await wrapped()
            peer.sendall(U4.encode(b"one") + frame[:size])
            peer.close()
            assert await stream.recv() == b"one"
            for _ in range(2):
                with pytest.raises(IncompleteFrameError) as caught:
                    await stream.recv()
                assert (caught.value.stream_offset, caught.value.received) == (7, size)
            with pytest.raises(IncompleteFrameError):
                async for _ in stream:
                    pass
            await stream.aclose()

    run(loop, main())


@LOOPS
def test_recv_raises_for_a_bad_frame_after_the_messages_and_again(
    loop: str, engine_in_use: ModuleType
) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.digits(4))
        peer.sendall(b"0001a0001b 1_0c")
        assert [await stream.recv(), await stream.recv()] == [b"a", b"b"]
        for _ in range(2):
            with pytest.raises(InvalidFrameError) as caught:
                await stream.recv()
            assert caught.value.stream_offset == 10
        await stream.send(b"not a number")  # the last word
        await stream.aclose()
        assert peer.recv(100) == b"0012not a number"
        peer.close()

    run(loop, main())


@LOOPS
def test_recv_raises_os_error_for_a_reset(loop: str) -> None:
    async def handler(stream: FrameStream) -> None:
        assert await stream.recv() == b"hello"
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await stream.recv()

    async def main() -> None:
        done = asyncio.Event()

        async def handle(stream: FrameStream) -> None:
            try:
                await handler(stream)
            finally:
                done.set()

        server = await framecodec.asyncio.start_server(handle, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname(), 10)
        peer.sendall(U4.encode(b"hello") + b"\0\0")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.sleep(0.05)
        peer.close()
        await done.wait()
        server.close()

    run(loop, main())


@LOOPS
def test_aclose_sends_accepted_messages_first(loop: str, tls: Contexts | None) -> None:
    messages = [b"small", bytes(3_000_000), b"end"]

    async def handler(stream: FrameStream) -> None:
        for message in messages:
            stream.send(message)

    async def client(stream: FrameStream) -> None:
        assert [message async for message in stream] == messages

    run(loop, served(handler, client, tls=tls))


@LOOPS
def test_send_after_aclose_raises(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(ConnectionError):
            await stream.send(b"late")
        with pytest.raises(ConnectionError):
            await stream.send_many([b"late"])
        assert peer.recv(10) == b""
        peer.close()

    run(loop, main())


# --- errors ---------------------------------------------------------------------------------------


@LOOPS
def test_recv_refuses_a_second_task(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        first = asyncio.create_task(stream.recv())
        await asyncio.sleep(0)
        for receive in (stream.recv, stream.recv_many):
            with pytest.raises(RuntimeError, match="recv"):
                await receive()
        peer.sendall(U4.encode(b"hello"))
        assert await first == b"hello"
        await stream.aclose()
        peer.close()

    run(loop, main())


@LOOPS
def test_send_raises_for_an_invalid_message_and_sends_nothing_of_it(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.uint(1))
        with pytest.raises(MessageTooLargeError):
            await stream.send(bytes(256))
        with pytest.raises(TypeError):
            await stream.send("text")
        with pytest.raises(MessageTooLargeError):
            await stream.send_many([b"good", bytes(256)])
        await stream.send(b"good")
        await stream.aclose()
        assert peer.recv(100) == b"\4good"
        peer.close()

    run(loop, main())


# --- limits ---------------------------------------------------------------------------------------


@LOOPS
def test_message_timeout_ends_a_dripping_peer_and_not_a_quiet_one(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(message_timeout=0.1)
        peer.sendall(U4.encode(b"one"))
        assert await stream.recv() == b"one"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.recv(), 0.3)  # quiet, which is not limited
        peer.sendall(b"\0\0")
        for _ in range(2):
            with pytest.raises(MessageTimeoutError):
                await stream.recv()
        await stream.aclose()
        peer.close()

    run(loop, main())


@LOOPS
def test_idle_timeout_ends_a_quiet_peer(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(idle_timeout=0.1)
        with pytest.raises(IdleTimeoutError):
            await stream.recv()
        await stream.aclose()
        peer.close()

    run(loop, main())


# --- cancellation ---------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("codec", [U4, Codec.digits(3, trailer=b";"), Codec.headers()], ids=str)
def test_recv_cancelled_at_every_byte_loses_nothing(
    loop: str, codec: Codec, engine: ModuleType
) -> None:
    messages = [b"hello", b"", b"byebye"]
    stream_bytes = codec.encode_many(messages)

    async def main() -> None:
        stream, peer = await wrapped(codec)
        received: list[Any] = []
        for offset in range(len(stream_bytes)):
            given_up = asyncio.create_task(stream.recv())
            await asyncio.sleep(0)
            given_up.cancel()
            peer.sendall(stream_bytes[offset : offset + 1])
            with contextlib.suppress(asyncio.CancelledError):
                received.append(await given_up)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    received.append(await stream.recv())
        while len(received) < len(messages):
            received.append(await stream.recv())
        assert received == messages
        await stream.aclose()
        peer.close()

    run(loop, main())


@LOOPS
def test_send_cancelled_leaves_whole_frames(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        begun: list[bytes] = []

        async def send(message: bytes) -> None:
            try:
                await stream.send(message)
            except asyncio.CancelledError as cancelled:
                if not cancelled.message_started:  # type: ignore[attr-defined]
                    return
            begun.append(message)

        for number, size in enumerate((50, 300_000, 2_000_000) * 3):
            sending = asyncio.create_task(send(bytes([number]) * size))
            await asyncio.sleep(0.005)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
        assert 1 < len(begun) < 9
        peer.setblocking(False)
        loop_now = asyncio.get_running_loop()

        async def read_all() -> bytes:
            data = bytearray()
            while chunk := await loop_now.sock_recv(peer, 1 << 20):
                data += chunk
            return bytes(data)

        reading = asyncio.create_task(read_all())
        await stream.aclose()
        data = await reading
        sent, size = U4.split(data)
        assert size == len(data)  # no frame was cut
        assert sent == begun
        peer.close()

    run(loop, main())


@LOOPS
def test_recv_timed_out_at_every_byte_of_tls_loses_nothing(loop: str, contexts: Contexts) -> None:
    messages = [b"hello", b"", b"byebye"]

    async def handler(stream: FrameStream) -> None:
        for byte in U4.encode_many(messages):
            stream.transport.write(bytes([byte]))
            assert await stream.recv() == b"next"

    async def client(stream: FrameStream) -> None:
        received: list[Any] = []
        while len(received) < len(messages):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.002):
                    received.append(await stream.recv())
            await stream.send(b"next")
        assert received == messages

    run(loop, served(handler, client, tls=contexts))


@LOOPS
def test_send_raises_when_it_is_awaited(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped(Codec.uint(1))
        closed, its_peer = await wrapped()
        await closed.aclose()
        sent = await asyncio.gather(
            closed.send(b"x"), stream.send(bytes(256)), stream.send(b"ok"), return_exceptions=True
        )
        assert [type(each) for each in sent] == [
            ConnectionAbortedError,
            MessageTooLargeError,
            type(None),
        ]
        await stream.drain()
        assert peer.recv(10) == b"\2ok"
        await stream.aclose()
        peer.close()
        its_peer.close()

    run(loop, main())


@LOOPS
def test_send_as_a_task_cancelled_before_it_ran_reports_message_started(
    loop: str, engine_in_use: ModuleType
) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        task = asyncio.create_task(stream.send(b"hello"))  # type: ignore[arg-type]
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.message_started is True  # type: ignore[attr-defined]
        await stream.drain()
        assert peer.recv(100) == U4.encode(b"hello")
        await stream.aclose()
        peer.close()

    run(loop, main())


@LOOPS
def test_anext_as_a_task_takes_the_next_message(loop: str, engine_in_use: ModuleType) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        peer.sendall(U4.encode_many([b"1", b"2", b"3", b"4"]))
        assert await stream.recv() == b"1"
        for message in (b"2", b"3"):
            assert await asyncio.create_task(anext(aiter(stream))) == message  # type: ignore[arg-type]
        given_up = asyncio.create_task(anext(aiter(stream)))  # type: ignore[arg-type]
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await asyncio.wait_for(anext(aiter(stream)), 5) == b"4"
        await stream.aclose()
        peer.close()

    run(loop, main())


class Delegating:
    """An awaitable of a user, which hands on to the event loop what another one yields."""

    def __init__(self, awaitable: Any) -> None:
        self._awaitable = awaitable

    def __await__(self) -> Any:
        return (yield from self._awaitable.__await__())


def task_in_c(awaitable: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(awaitable)


def task_in_python(awaitable: Any) -> asyncio.Task[Any]:
    """Return a task as it is where asyncio has no module in C: it calls methods of coroutines."""
    kind: Any = vars(asyncio.tasks)["_PyTask"]
    return kind(awaitable, loop=asyncio.get_running_loop())  # type: ignore[no-any-return]


def task_that_delegates(awaitable: Any) -> asyncio.Task[Any]:
    async def wait() -> Any:
        return await Delegating(awaitable)

    return asyncio.create_task(wait())


@pytest.mark.parametrize("task_of", [task_in_c, task_in_python, task_that_delegates])
@pytest.mark.parametrize("codec", [U4, U4.as_json()], ids=["bytes", "objects"])
@LOOPS
def test_every_kind_of_task_sends_and_receives(
    loop: str, codec: Codec, task_of: Callable[[Any], asyncio.Task[Any]]
) -> None:
    one, two, three = (b"1", b"2", b"3") if codec == U4 else (1, 2, 3)

    async def main() -> None:
        stream, peer = await wrapped(codec)
        messages: Any = aiter(stream)
        assert await task_of(stream.send(one)) is None
        assert U4.decode(peer.recv(100)) == b"1"
        waiting = task_of(anext(messages))
        await asyncio.sleep(0)
        assert not waiting.done()
        with pytest.raises(RuntimeError, match="another recv"):
            await task_of(anext(messages))
        peer.sendall(U4.encode_many([b"1", b"2", b"3"]))
        assert [await waiting, await task_of(anext(messages))] == [one, two]
        assert await task_of(stream.recv()) == three
        next_message = anext(messages)
        with pytest.raises(TypeError):
            copy.copy(next_message)
        given_up = task_of(next_message)
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        waiting = task_of(anext(messages))
        peer.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        await stream.aclose()

    run(loop, main())


# --- as asyncio has it ----------------------------------------------------------------------------


def test_stream_is_not_copied() -> None:
    async def client(stream: FrameStream) -> None:
        for how in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="a FrameStream belongs to one connection"):
                how(stream)

    run("asyncio", served(echo, client))


# --- a peer that is gone --------------------------------------------------------------------------


async def with_socket_pair(kind: str) -> tuple[FrameStream, socket.socket]:
    if kind == "unix":
        return await wrapped()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return await framecodec.asyncio.open_connection(sock=ours), theirs


@LOOPS
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("size", [10, 5000, 100_000, 1_000_000])
@pytest.mark.parametrize("way", ["send", "send and drain", "send_many"])
def test_send_raises_for_a_gone_peer_without_another_iteration_of_the_loop(
    loop: str, kind: str, size: int, way: str, engine_in_use: ModuleType
) -> None:
    async def main() -> None:
        stream, peer = await with_socket_pair(kind)
        peer.close()
        message = bytes(size)
        for _ in range(200_000_000 // (size + 1000)):  # no turn of the loop comes by itself
            try:
                if way == "send_many":
                    await stream.send_many([message])
                else:
                    await stream.send(message)
                if way == "send and drain":
                    await stream.drain()
            except ConnectionError:
                break
        else:
            raise AssertionError("all was accepted")
        with pytest.raises(ConnectionError):
            await stream.send(message)
        with pytest.raises(ConnectionError):
            await stream.drain()
        await stream.aclose()

    run(loop, main())


@LOOPS
def test_get_extra_info_works_on_a_closed_unix_connection(loop: str) -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        with peer:
            await stream.aclose()
        assert "closed" in repr(stream)
        stream.get_extra_info("peername")
        assert stream.get_extra_info("no such thing", 7) == 7

    run(loop, main())


# --- another thread -------------------------------------------------------------------------------


@LOOPS
def test_send_from_another_thread_with_run_coroutine_threadsafe(
    loop: str, engine_in_use: ModuleType
) -> None:
    messages = [
        bytes([number % 256]) * size for number, size in enumerate((3, 20_000, 200_000) * 9)
    ]

    async def main() -> None:
        stream, peer = await wrapped()
        running = asyncio.get_running_loop()

        def send_all() -> None:
            for number, message in enumerate(messages):
                sending = stream.send(message) if number % 2 else stream.send_many([message])
                asyncio.run_coroutine_threadsafe(sending, running).result(20)

        with framecodec.FrameSocket(peer) as other:
            received, _ = await asyncio.gather(
                asyncio.to_thread(lambda: [other.recv() for _ in messages]),
                asyncio.to_thread(send_all),
            )
            assert received == messages
            await stream.aclose()

    run(loop, main())


def test_send_refuses_the_loop_of_another_thread() -> None:
    async def main() -> None:
        stream, peer = await wrapped()
        with peer:
            with pytest.raises(RuntimeError, match="another thread"):
                await asyncio.to_thread(lambda: asyncio.run(awaited(stream.send, b"hello")))
            await stream.aclose()

    async def awaited(send: Callable[[bytes], Awaitable[None]], message: bytes) -> None:
        await send(message)

    run("asyncio", main())


class Writes(asyncio.Transport):
    """A transport that notes what it is given."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.written: list[bytes] = []

    def get_protocol(self) -> Any:
        return self.protocol

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Ignore it."""

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))


@LOOPS
@pytest.mark.parametrize("read_by", ["the loop", "a task"])
def test_a_handler_answers_the_messages_of_a_read_in_one_write(loop: str, read_by: str) -> None:
    async def main() -> None:
        async def echo(stream: Any) -> None:
            async for message in stream:
                await stream.send(message)

        protocol = StreamProtocol(
            Codec.uint(1), lambda stream: tasks.append(asyncio.create_task(echo(stream)))
        )
        tasks: list[asyncio.Task[None]] = []
        transport = Writes(protocol)
        protocol.connection_made(transport)
        await asyncio.sleep(0)
        written: list[list[bytes]] = []

        def read() -> None:
            for frames in (b"\x01a", b"\x01b\x02cd", b"\x01", b"e"):
                protocol.get_buffer(-1)[: len(frames)] = frames
                protocol.buffer_updated(len(frames))
                written.append(list(transport.written))
                transport.written.clear()

        if read_by == "the loop":
            asyncio.get_running_loop().call_soon(read)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert written == [[b"\x01a"], [b"\x01b\x02cd"], [], [b"\x01e"]]
        else:  # no task runs inside of another one
            read()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert written == [[], [], [], []]
            assert transport.written == [b"\x01a\x01b\x02cd\x01e"]
        tasks[0].cancel()

    run(loop, main())


@LOOPS
def test_a_task_that_detaches_gets_all_that_a_pipes_transport_has_read(loop: str) -> None:
    async def main() -> None:
        async def detach_after_one(stream: Any) -> None:
            assert await stream.recv() == b"first"
            unread.append(stream.detach()[1])

        protocol = StreamProtocol(
            Codec.uint(4),
            lambda stream: tasks.append(asyncio.create_task(detach_after_one(stream))),
        )
        tasks: list[asyncio.Task[None]] = []
        unread: list[bytes] = []
        protocol.connection_made(Writes(protocol))
        await asyncio.sleep(0)
        rest = Codec.uint(4).encode(bytes(400_000)) + b"no frame"
        read = Codec.uint(4).encode(b"first") + rest
        asyncio.get_running_loop().call_soon(protocol.data_received, read)
        await tasks[0]
        assert unread == [rest]

    run(loop, main())


# --- what is rare ---------------------------------------------------------------------------------


@LOOPS
def test_messages_after_unframed_bytes_are_iterated(loop: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            async with open_connection(sock=ours, codec=Codec.uint(1)) as stream:
                theirs.sendall(b"raw\1a")
                assert await stream.recv_bytes(3) == b"raw"
                async for message in stream:
                    assert message == b"a"
                    break
                await FrameStream.send(stream, b"by the class")
                theirs.setblocking(False)
                received = await asyncio.get_running_loop().sock_recv(theirs, 100)
                assert received == b"\x0cby the class"

    run(loop, main())


@LOOPS
def test_a_cancelled_aclose_drops_what_is_unsent(loop: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            stream = await open_connection(sock=ours, codec=Codec.uint(4))
            sending = asyncio.create_task(stream.send(bytes(10_000_000)))
            closing = asyncio.create_task(stream.aclose())
            await asyncio.sleep(0.01)
            assert not closing.done()
            closing.cancel()
            for task in (closing, sending):
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await task
            while stream._sending.state < TransportState.CLOSED:
                await asyncio.sleep(0.001)

    run(loop, main())


def test_extra_info_of_a_transport_that_has_lost_its_socket_is_the_default() -> None:
    class Raw:
        def get_extra_info(self, name: str, default: Any) -> Any:
            raise AttributeError(name)  # as uvloop's, for a Unix socket that is closed

    transport = ProtocolTransport(None, None, Raw())  # type: ignore[arg-type]
    assert transport.get_extra_info("peername", 5) == 5


# --- calls that fail inside -----------------------------------------------------------------------


class FailsOnce:
    """A transport one of whose methods fails once."""

    def __init__(self, transport: Any, name: str) -> None:
        self._transport = transport
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            self._name = ""
            raise MemoryError
        return getattr(self._transport, name)


@LOOPS
@pytest.mark.parametrize("bound", [0, 1])
def test_the_rest_of_a_broken_connection_is_read_up_to_a_bound(
    loop: str, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that always holds more must not hold up the loop."""
    monkeypatch.setattr(observed, "_LAST_READS", bound)
    messages = [b"1", b"2"]

    async def main() -> None:
        stream, peer = await wrapped()
        with peer:
            stream.transport.pause_reading()
            peer.sendall(U4.encode_many(messages))
            stream._protocol.connection_lost(ConnectionResetError("by the peer"))
            for message in messages[: 2 * bound]:
                assert await stream.recv() == message
            with pytest.raises(ConnectionResetError, match="by the peer"):
                await stream.recv()
            stream.transport.abort()
            await asyncio.sleep(0.001)

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("many", [False, True])
def test_a_stream_that_could_not_read_on_reads_on_later(
    loop: str, many: bool, engine_in_use: Any
) -> None:
    async def main() -> None:
        stream, peer = await wrapped(U4.replace())
        messages = [b"%05d" % number + bytes(10_000) for number in range(100)]
        sending = asyncio.create_task(asyncio.to_thread(peer.sendall, U4.encode_many(messages)))
        while not stream._protocol._reading_paused:
            await asyncio.sleep(0.001)
        sender = stream._sending
        sender.raw_transport = FailsOnce(sender.raw_transport, "resume_reading")
        received: list[bytes] = []
        failures = 0
        while len(received) < len(messages):
            try:
                received += await stream.recv_many() if many else [await stream.recv()]
            except MemoryError:
                failures += 1
        assert received == messages
        assert failures == 1
        await sending
        peer.close()
        with pytest.raises(EOFError):
            await stream.recv()
        await stream.aclose()

    run(loop, main())


def test_recv_many_refuses_another_thread(engine_in_use: Any) -> None:
    async def main() -> None:
        stream, peer = await wrapped(U4.replace())
        peer.sendall(U4.encode_many([b"a", b"b"]))
        while stream.pending_messages < 2:
            await asyncio.sleep(0.001)

        def take() -> None:
            with pytest.raises(RuntimeError, match="another thread"):
                stream._protocol.take_all()

        await asyncio.to_thread(take)
        assert await stream.recv_many() == [b"a", b"b"]
        peer.close()
        await stream.aclose()

    asyncio.run(main())


def test_the_end_wakes_every_task_if_one_cannot_be_woken(
    engine_in_use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unwakeable:
        def done(self) -> bool:
            raise LookupError("no such task")

    async def main() -> None:
        stream, peer = await wrapped(U4.replace())
        protocol = stream._protocol
        receiving = asyncio.create_task(stream.recv())
        await asyncio.sleep(0)
        monkeypatch.setattr(type(stream._sending), "futures", lambda _: [Unwakeable()])
        with pytest.raises(LookupError, match="no such task"):
            protocol.connection_lost(None)
        with pytest.raises(EOFError):
            await receiving
        monkeypatch.undo()
        stream._sending.raw_transport.abort()
        await asyncio.sleep(0)
        peer.close()

    asyncio.run(main())
