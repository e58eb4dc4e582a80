"""Slow readers and slow peers in an event loop: who waits, and how much memory that takes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

import framecodec.asyncio
from framecodec import Codec
from framecodec.asyncio import FrameProtocol, FrameStream, waiters
from tests.helpers.event_loops import LOOPS, run, tls_contexts, wrapped

KIB, MIB = 1 << 10, 1 << 20
FLOOD = 200 * MIB
CODEC = Codec.uint(4, max_message_size=64 * KIB)

# What the pages state: held for recv, by frames and a cost a message; one more read; over TLS, the
# buffers of asyncio. The rest is what the test itself needs, and the loop.
HELD, COST, READ, TLS, REST = 256 * KIB, 48, 128 * KIB, 256 * KIB, 192 * KIB


@pytest.fixture(scope="module", params=["plain", "TLS"])
def contexts(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The server's and the client's, or None twice."""
    if request.param == "plain":
        return None, None
    return tls_contexts()


class Flood:
    """A peer in a thread, which sends 200 MiB of messages as fast as it can."""

    def __init__(self, address: Any, context: ssl.SSLContext | None, size: int) -> None:
        self.sent = 0  # bytes
        self.size = size
        frame = CODEC.encode(bytes(size))
        self.frames = max(1, MIB // len(frame))  # of one batch
        self.batch = frame * self.frames
        self.batches = -(-FLOOD // len(self.batch))
        self.messages = self.batches * self.frames
        self.address, self.context = address, context
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with socket.create_connection(self.address, 30) as plain:
                if self.context is None:
                    self.send(plain)
                else:
                    with self.context.wrap_socket(plain, server_hostname="localhost") as sock:
                        self.send(sock)
                        sock.unwrap()  # a close over unread session tickets would be a reset
        except BaseException as failure:
            self.failure = failure

    def send(self, sock: socket.socket) -> None:
        pieces = memoryview(self.batch)
        for _ in range(self.batches):
            for start in range(0, len(pieces), 64 * KIB):
                piece = pieces[start : start + 64 * KIB]
                sock.sendall(piece)
                self.sent += len(piece)

    async def stalls(self) -> None:
        """Until it cannot send any more."""
        before, still = -1, 0
        while still < 5:
            await asyncio.sleep(0.05)
            still = still + 1 if self.sent == before else 0
            before = self.sent


@contextlib.contextmanager
def memory() -> Iterator[Any]:
    """What Python allocated at most since the beginning of the block, in bytes, when asked."""
    tracemalloc.start()
    try:
        begun = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - begun
    finally:
        tracemalloc.stop()


@LOOPS
@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "size"), [("recv", 4000), ("recv_many", 1000), ("async for", 60_000)]
)
def test_stream_keeps_memory_within_its_bound_while_200_mebibytes_come_and_the_reader_stalls(
    loop: str, contexts: tuple[Any, Any], size: int, way: str
) -> None:
    frame = 4 + size
    held = HELD + READ * (frame + COST) // frame + frame
    bound = held + REST + (0 if contexts[0] is None else TLS)

    async def main() -> None:
        connected: asyncio.Future[FrameStream] = asyncio.get_running_loop().create_future()
        finished = asyncio.Event()

        async def handler(stream: FrameStream) -> None:
            connected.set_result(stream)
            await finished.wait()

        server = await framecodec.asyncio.start_server(
            handler, "127.0.0.1", 0, codec=CODEC, ssl=contexts[0]
        )
        flood = Flood(server.sockets[0].getsockname(), contexts[1], size)
        flood.thread.start()
        stream = await connected
        with memory() as peak:
            await flood.stalls()
            assert flood.sent < FLOOD // 2  # TCP has stopped it
            assert peak() < bound
            count = 0
            if way == "recv":
                while count < flood.messages:
                    assert len(await stream.recv()) == size
                    count += 1
                    if count % 20_000 == 0:
                        await asyncio.sleep(0)
            elif way == "recv_many":
                while count < flood.messages:
                    messages = await stream.recv_many()  # which are the caller's from here on
                    assert {len(message) for message in messages} == {size}
                    count += len(messages)
            else:
                async for message in stream:
                    assert len(message) == size
                    count += 1
            # The caller holds what it was given; a frame that is arriving may take twice its bytes.
            given = held if way == "recv_many" else size
            assert peak() < bound + given + frame
        assert count == flood.messages
        with pytest.raises(EOFError):
            await stream.recv()
        finished.set()
        await asyncio.to_thread(flood.thread.join, 10)
        assert flood.failure is None
        server.close()

    run(loop, main())


@LOOPS
def test_recv_does_not_count_the_time_of_a_stalled_reader(loop: str) -> None:
    async def main() -> None:
        stream, theirs = await wrapped(CODEC, message_timeout=0.2, idle_timeout=0.2)
        messages = [bytes([number]) * 50_000 for number in range(40)]
        sender = threading.Thread(target=theirs.sendall, args=(CODEC.encode_many(messages),))
        sender.start()
        assert await stream.recv() == messages[0]
        await asyncio.sleep(0.5)  # reading has stopped inside a message
        assert sender.is_alive()
        assert [await stream.recv() for _ in messages[1:]] == messages[1:]
        sender.join(10)
        await stream.aclose()
        theirs.close()

    run(loop, main())


@pytest.mark.slow
@LOOPS
@pytest.mark.parametrize("size", [100, 60_000])
def test_send_waits_for_a_slow_peer(loop: str, contexts: tuple[Any, Any], size: int) -> None:
    count = 20 * MIB // (4 + size)
    message = bytes(size)

    async def main() -> None:
        ready = asyncio.Event()
        received = 0

        async def slow(stream: FrameStream) -> None:
            nonlocal received
            stream.transport.pause_reading()
            await ready.wait()
            stream.transport.resume_reading()
            async for messages in stream:
                assert len(messages) == size
                received += 1

        server = await framecodec.asyncio.start_server(
            slow, "127.0.0.1", 0, codec=CODEC, ssl=contexts[0]
        )
        stream = await framecodec.asyncio.open_connection(
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            codec=CODEC,
            ssl=contexts[1],
            server_hostname="localhost" if contexts[1] else None,
        )
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for _ in range(count):
                await stream.send(message)
                sent += 1

        sending = asyncio.create_task(send_all())
        with memory() as peak:
            before, since = -1, time.monotonic()
            while sent != before or time.monotonic() - since < 0.3:
                if sent != before:
                    before, since = sent, time.monotonic()
                await asyncio.sleep(0.01)
            assert sent < count
            assert stream.pending_send < MIB  # over TLS, asyncio takes half of it
            ready.set()
            await sending
            assert peak() < 2 * MIB
        await stream.aclose()
        while received < count:
            await asyncio.sleep(0.01)
        server.close()

    run(loop, main())


@LOOPS
def test_send_raises_when_the_connection_ends_while_it_waits(loop: str) -> None:
    async def main() -> None:
        stream, theirs = await wrapped()
        waiting = [asyncio.create_task(stream.send(bytes(3 * MIB))) for _ in range(3)]
        waiting.append(asyncio.create_task(stream.drain()))
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        theirs.close()
        for task in waiting:
            with pytest.raises(ConnectionError):
                await task
        await stream.aclose()

    run(loop, main())


@LOOPS
def test_send_does_not_copy_a_large_message(loop: str) -> None:
    async def main() -> None:
        stream, theirs = await wrapped(Codec.uint(4, max_message_size=64 * MIB))
        message = bytes(50 * MIB)
        buffer = bytearray(MIB)

        def read() -> None:
            left = 4 + len(message)
            while left and (count := theirs.recv_into(buffer)):
                left -= count

        reader = threading.Thread(target=read, daemon=True)
        with memory() as peak:
            reader.start()
            await stream.send(message)
            await stream.drain()
            await stream.aclose()
            assert peak() < 2 * MIB
        await asyncio.to_thread(reader.join, 10)
        assert not reader.is_alive()
        theirs.close()

    run(loop, main())


@LOOPS
def test_protocol_reports_a_slow_peer_and_keeps_accepted_messages(loop: str) -> None:
    events: list[str] = []

    class Sender(FrameProtocol):
        def pause_writing(self) -> None:
            events.append("pause")

        def resume_writing(self) -> None:
            events.append("resume")

    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        _, protocol = await asyncio.get_running_loop().create_connection(Sender, sock=ours)
        messages = [bytes([number % 256]) * (number * 37 % 5000) for number in range(2000)]
        for message in messages:
            protocol.send(message)
        await asyncio.sleep(0.05)
        assert events == ["pause"]
        protocol.transport.close()
        received: list[Any] = []
        splitter = framecodec.Splitter(Codec.uint(4))
        while data := await asyncio.get_running_loop().sock_recv(theirs, 64 * KIB):
            received += splitter.feed(data)
        assert received == messages
        theirs.close()

    run(loop, main())


@LOOPS
def test_send_serves_waiting_calls_first_in_first_out(loop: str) -> None:
    async def main() -> None:
        stream, theirs = await wrapped()
        theirs.setblocking(False)
        now = asyncio.get_running_loop()
        messages = [bytes(3 * MIB)]
        messages += [b"%d" % number * (number % 7 * 4000 + 1) for number in range(300)]

        async def send(message: bytes) -> None:
            await stream.send(message)

        sending = []
        for message in messages[:200]:
            sending.append(now.create_task(send(message)))
            await asyncio.sleep(0)
        given_up = sending.pop(150)
        given_up.cancel()
        del messages[150]
        splitter = framecodec.Splitter(Codec.uint(4))
        received: list[Any] = []
        while len(received) < len(messages):
            received += splitter.feed(await now.sock_recv(theirs, 64 * KIB))
            if len(sending) < len(messages):  # others come while these are woken
                sending.append(now.create_task(send(messages[len(sending)])))
        assert received == messages
        await asyncio.gather(*sending)
        assert given_up.cancelled()
        await stream.aclose()
        theirs.close()

    run(loop, main())


class CountedFutures:
    """Counts the futures that tasks wait for, until the end of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._create = waiters._create_future
        monkeypatch.setattr(waiters, "_create_future", self)

    def __call__(self) -> asyncio.Future[None]:
        self.count += 1
        return self._create()


@LOOPS
@pytest.mark.parametrize("size", [100, 70_000])
@pytest.mark.parametrize("cancelled", [False, True])
def test_send_wakes_each_waiting_call_once(
    loop: str, size: int, cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        stream, theirs = await wrapped()
        theirs.setblocking(False)
        here = asyncio.get_running_loop()
        counted = CountedFutures(monkeypatch)
        messages = [bytes(3 * MIB)]
        messages += [b"%d" % number + bytes(size) for number in range(400)]
        not_sent: set[bytes] = set(messages)

        async def send(message: bytes) -> None:
            try:
                await stream.send(message)
            except asyncio.CancelledError as error:
                if not error.message_started:  # type: ignore[attr-defined]
                    raise
            not_sent.remove(message)

        sending = [here.create_task(send(message)) for message in messages]
        await asyncio.sleep(0)
        if cancelled:  # before it is woken, ...
            for number in range(1, 401, 3):
                sending[number].cancel()
        splitter = framecodec.Splitter(Codec.uint(4))
        received: list[Any] = []

        async def read() -> None:
            while data := await here.sock_recv(theirs, 256 * KIB):
                received.extend(splitter.feed(data))
                if cancelled:  # ... or just when it is
                    for number in range(2, 401, 3):
                        if len(received) > number // 2:
                            sending[number].cancel()

        reading = here.create_task(read())
        await asyncio.wait(sending)
        expected = [message for message in messages if message not in not_sent]
        while len(received) < len(expected):
            await asyncio.sleep(0.001)
        same = received == expected  # no report of megabytes
        assert same
        assert cancelled == (len(expected) < len(messages))
        assert not stream._sending._queue
        # One to be accepted, one until the transport takes more, ...
        assert counted.count <= 2 * len(messages) + 10
        await stream.send(b"last")
        await stream.aclose()
        await reading
        assert received[-1] == b"last"
        theirs.close()

    run(loop, main())


@LOOPS
def test_datagram_send_wakes_each_waiting_call_once_and_keeps_the_order(
    loop: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        path = str(tmp_path / "far")
        theirs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.bind(path)
        theirs.setblocking(False)
        stream = await framecodec.asyncio.open_datagram_endpoint(remote_addr=path)
        stream.transport.set_write_buffer_limits(high=2000)
        here = asyncio.get_running_loop()
        counted = CountedFutures(monkeypatch)
        messages = [b"%4d" % number + bytes(996) for number in range(400)]
        sending = [here.create_task(stream.send(message)) for message in messages]
        await asyncio.sleep(0.01)
        assert stream._protocol.paused
        sending[350].cancel()
        received: list[bytes] = []
        while len(received) < 399:
            received.append(await here.sock_recv(theirs, 2000))
        same = received == messages[:350] + messages[351:]
        assert same
        await asyncio.wait(sending)
        assert sending[350].cancelled()
        assert counted.count <= 2 * len(messages)
        await stream.aclose()
        theirs.close()

    run(loop, main())


@LOOPS
def test_stream_leaves_the_loop_to_other_tasks_during_a_flood(loop: str) -> None:
    """A task that only receives gets no more than the stream holds in one turn of the loop."""

    async def main() -> None:
        stream, theirs = await wrapped()
        data = Codec.uint(4).encode_many([bytes(60)] * 16384)
        total = 16

        def flood() -> None:
            for _ in range(total):
                theirs.sendall(data)
            theirs.close()

        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        thread = threading.Thread(target=flood)
        thread.start()
        received = in_turn = most = last_turn = 0
        async for _ in stream:
            if turns != last_turn:
                last_turn, in_turn = turns, 0
            in_turn += 1
            most = max(most, in_turn)
            received += 1
        thread.join(10)
        counting.cancel()
        assert received == total * 16384
        # 256 KiB above which it stops reading, and one read; and one that is not full, whose
        # messages the task gets inside the read. A message counts 64 + 48 bytes.
        assert most * (64 + 48) <= 256 * KIB + 2 * (128 * KIB) // 64 * (64 + 48)
        await stream.aclose()

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("error", [TimeoutError, asyncio.CancelledError])
def test_aexit_does_not_wait_for_a_slow_peer_when_its_time_is_over(
    loop: str, contexts: tuple[Any, Any], error: type[BaseException]
) -> None:
    async def main() -> None:
        let_go = asyncio.Event()

        async def stalled(stream: FrameStream) -> None:
            stream.transport.pause_reading()
            await let_go.wait()
            stream.transport.abort()

        server = await framecodec.asyncio.start_server(stalled, "127.0.0.1", 0, ssl=contexts[0])
        stream = await framecodec.asyncio.open_connection(
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            ssl=contexts[1],
            server_hostname="localhost" if contexts[1] else None,
        )

        async def conversation() -> None:
            async with stream:
                sending = asyncio.create_task(stream.send_many([bytes(15 * MIB)] * 2))
                await asyncio.sleep(0.05)
                assert not sending.done()
                sending.cancel()
                raise error

        with pytest.raises(error):
            await asyncio.wait_for(conversation(), 10)
        assert stream.transport.is_closing()
        let_go.set()
        server.close()
        await asyncio.sleep(0.05)

    run(loop, main())


@LOOPS
def test_aclose_sends_accepted_messages_while_sends_wait(loop: str) -> None:
    async def main() -> None:
        stream, theirs = await wrapped()
        theirs.setblocking(False)
        begun = asyncio.create_task(stream.send(bytes(3 * MIB)))
        await asyncio.sleep(0.01)
        waits = asyncio.create_task(stream.send(b"later"))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(stream.aclose())
        received = 0
        while data := await asyncio.get_running_loop().sock_recv(theirs, MIB):
            received += len(data)
        assert received == 4 + 3 * MIB
        await begun
        with pytest.raises(ConnectionError) as caught:
            await waits
        assert caught.value.message_started is False  # type: ignore[attr-defined]
        await closing
        theirs.close()

    run(loop, main())


@LOOPS
def test_recv_stops_counting_a_message_that_it_returned(loop: str) -> None:
    async def main() -> None:
        stream, theirs = await wrapped()
        for take in (stream.recv, stream.recv_many, stream.__aiter__().__anext__):
            sender = threading.Thread(
                target=theirs.sendall, args=(Codec.uint(4).encode(bytes(MIB)),)
            )
            sender.start()
            while not stream.pending_messages:
                await asyncio.sleep(0.001)
            assert not stream.transport.is_reading()
            assert len(await take()) in (1, MIB)
            assert stream.transport.is_reading()
            sender.join(10)
        await stream.aclose()
        theirs.close()

    run(loop, main())


@LOOPS
def test_pause_reading_lasts_until_the_user_resumes(loop: str) -> None:
    async def main() -> None:
        stream, theirs = await wrapped()
        sender = threading.Thread(
            target=theirs.sendall, args=(Codec.uint(4).encode_many([bytes(MIB)] * 2),)
        )
        sender.start()
        while not stream.pending_messages:
            await asyncio.sleep(0.001)
        stream.transport.pause_reading()
        assert len(await stream.recv()) == MIB
        assert not stream.transport.is_reading()
        stream.transport.resume_reading()
        assert len(await stream.recv()) == MIB
        sender.join(10)
        await stream.aclose()
        theirs.close()

    run(loop, main())


def test_a_send_that_cannot_be_woken_leaves_the_queue() -> None:
    class Broken(asyncio.Future):  # type: ignore[type-arg]
        def set_result(self, result: Any) -> None:
            raise KeyboardInterrupt

    async def main() -> None:
        queue = waiters.SendQueue()
        first, second = waiters.QueuedSend(1), waiters.QueuedSend(1)
        first.waiting = Broken()
        queue.enter(first)
        queue.enter(second)
        with pytest.raises(KeyboardInterrupt):
            queue.wake_next()
        assert len(queue) == 1
        queue.wake_next()
        assert second.waiting.done()
        waiting = asyncio.create_task(second.wait())  # again: the place in the queue stays
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.wake_next()
        await waiting

    asyncio.run(main())


def test_a_send_that_cannot_be_woken_by_the_one_before_it_ends_the_connection() -> None:
    class Broken(asyncio.Future):  # type: ignore[type-arg]
        def set_result(self, result: Any) -> None:
            raise LookupError("not to be woken")

    async def main() -> None:
        stream, peer = await wrapped()
        with peer:
            sending = stream._sending
            first, second = waiters.QueuedSend(1), waiters.QueuedSend(1)
            await sending.enter_queue(first)
            second.waiting = Broken()
            sending._queue.enter(second)
            with pytest.raises(LookupError):
                sending.leave_queue(first)
            with pytest.raises(ConnectionError, match="sending failed: LookupError"):
                await stream.send(b"x")
            await asyncio.sleep(0)

    asyncio.run(main())
