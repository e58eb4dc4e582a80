"""Connections over transports that a program makes itself, which may call back inside a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from framecodec import Check, Codec, InvalidFrameError, MessageTooLargeError
from framecodec.asyncio import FrameProtocol
from framecodec.asyncio.stream_protocol import StreamProtocol

U2 = Codec.uint(2)

pytestmark = pytest.mark.usefixtures("engine_in_use")


class MemoryTransport(asyncio.Transport):
    """A transport that keeps what is written, and calls a function inside each write."""

    def __init__(self, protocol: Any, inside: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.protocol = protocol
        self.inside = inside
        self.written: list[bytes] = []
        self.calls: list[str] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))
        self.inside()

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_reading(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")


def give(protocol: Any, *messages: bytes) -> None:
    """Give a protocol messages, as a transport does that has read them."""
    data = U2.encode_many(messages)
    protocol.get_buffer(-1)[: len(data)] = data
    protocol.buffer_updated(len(data))


def opened(protocol: Any, inside: Callable[[], object] = lambda: None) -> MemoryTransport:
    transport = MemoryTransport(protocol, inside)
    protocol.connection_made(transport)
    return transport


class Answering(FrameProtocol):
    def messages_received(self, messages: list[Any]) -> None:
        self.send(b"answer to " + messages[0][:10])


@pytest.mark.parametrize("size", [5, 5000, 200_000])
def test_an_answer_inside_a_write_leaves_without_another_send(size: int) -> None:
    codec = Codec.uint(4)

    async def main() -> None:
        questions = [b"first", b"second"]
        protocol = Answering(codec)

        def deliver() -> None:
            if questions:
                data = codec.encode(questions.pop(0))
                protocol.get_buffer(-1)[: len(data)] = data
                protocol.buffer_updated(len(data))

        transport = opened(protocol, deliver)
        protocol.send(bytes(size))
        protocol.send(b"last")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        splitter = codec.splitter()
        arrived = splitter.feed(b"".join(transport.written))
        assert (len(arrived), splitter.pending) == (4, 0)
        sent = [message for message in arrived if not message.startswith(b"answer")]
        answers = [message for message in arrived if message.startswith(b"answer")]
        assert sent == [bytes(size), b"last"]
        assert answers == [b"answer to first", b"answer to second"]

    asyncio.run(main())


def test_what_a_finalizer_sends_while_a_flush_is_scheduled_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        inside = [lambda: protocol.send(b"nested")]

        def build(message: Any) -> bytes:
            if inside and bytes(message) == b"outer":
                inside.pop()()
            return bytes([len(message)])

        codec = Codec.custom(lambda view: (1, view[0]), build)
        protocol = FrameProtocol(codec)
        transport = opened(protocol)
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon

        def collect(*arguments: Any, **options: Any) -> Any:  # the handle is an allocation
            monkeypatch.setattr(loop, "call_soon", call_soon)
            protocol.send(b"finalizer")
            return call_soon(*arguments, **options)

        monkeypatch.setattr(loop, "call_soon", collect)
        protocol.send(b"outer")
        protocol.send(b"next")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        arrived = codec.splitter().feed(b"".join(transport.written))
        assert arrived == [b"outer", b"nested", b"finalizer", b"next"]

    asyncio.run(main())


def test_a_send_inside_which_a_finalizer_ends_the_connection_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        protocol = FrameProtocol(U2)
        transport = opened(protocol)
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon

        def collect(*arguments: Any, **options: Any) -> Any:  # the handle is an allocation
            monkeypatch.setattr(loop, "call_soon", call_soon)
            protocol.transport.abort()
            return call_soon(*arguments, **options)

        monkeypatch.setattr(loop, "call_soon", collect)
        with pytest.raises(ConnectionAbortedError, match="on this side"):
            protocol.send(b"hello")
        await asyncio.sleep(0)
        assert (transport.calls, transport.written) == (["abort"], [])

    asyncio.run(main())


def test_a_nested_send_that_cannot_leave_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both messages were accepted, and without memory no flush can be scheduled for them."""

    async def main() -> None:
        inside = [lambda: protocol.send(b"nested")]

        def build(message: Any) -> bytes:
            if inside:
                inside.pop()()
            return bytes([len(message)])

        protocol = FrameProtocol(Codec.custom(lambda view: (1, view[0]), build))
        transport = opened(protocol)

        def fail(*_: Any, **__: Any) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "call_soon", fail)
            with pytest.raises(MemoryError):
                protocol.send(b"outer")
        assert (transport.calls, transport.written) == (["abort"], [])
        with pytest.raises(ConnectionError, match="sending failed"):
            protocol.send(b"next")

    asyncio.run(main())


def test_a_send_that_has_failed_before_the_connection_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(messages: object) -> bytes:
        raise MemoryError

    async def main() -> None:
        protocol = FrameProtocol(U2)
        protocol.send(b"accepted")
        with monkeypatch.context() as patch:
            patch.setattr(protocol._sending, "_encode_many", fail)
            with pytest.raises(MemoryError):
                protocol.send(bytes(5000))
        transport = opened(protocol)
        await asyncio.sleep(0)
        assert (transport.calls, transport.written) == (["abort"], [])
        with pytest.raises(ConnectionError, match="sending failed"):
            protocol.send(b"next")

    asyncio.run(main())


def test_an_end_inside_a_write_closes_after_it() -> None:
    async def main() -> None:
        protocol = FrameProtocol(U2)
        ended: list[Any] = []
        transport = opened(protocol, lambda: ended.append(protocol.eof_received()))
        protocol.send(b"hello")
        await asyncio.sleep(0)
        assert transport.written == [U2.encode(b"hello")]
        assert ended == [False]  # the transport closes itself

    asyncio.run(main())


def test_messages_that_are_left_in_memory_are_lost_with_the_connection() -> None:
    async def main() -> None:
        protocol = FrameProtocol(U2)
        transport = opened(protocol)
        protocol.pause_writing()
        protocol.send(b"hello")
        protocol.transport.close()
        assert "pause_reading" in transport.calls
        protocol.connection_lost(None)
        protocol.resume_writing()
        await asyncio.sleep(0)
        assert transport.written == []

    asyncio.run(main())


def test_write_eof_of_a_transport_that_fails_ends_no_direction() -> None:
    async def main() -> None:
        protocol = FrameProtocol(U2)

        def fail() -> None:
            raise OSError("no transport")

        transport = opened(protocol, fail)
        protocol.send(b"hello")
        with pytest.raises(OSError, match="no transport"):
            protocol.transport.write_eof()
        assert transport.calls == ["abort"]
        with pytest.raises(ConnectionError, match="sending failed"):
            protocol.send(b"x")

    asyncio.run(main())


def test_write_eof_inside_which_the_program_aborts_ends_no_direction() -> None:
    async def main() -> None:
        protocol = FrameProtocol(U2)
        transport = opened(protocol, lambda: protocol.transport.abort())
        protocol.send(b"hello")
        protocol.transport.write_eof()
        assert transport.calls == ["abort"]

    asyncio.run(main())


def test_close_inside_which_the_program_aborts_has_aborted() -> None:
    async def main() -> None:
        protocol = FrameProtocol(U2)
        transport = opened(protocol, lambda: protocol.transport.abort())
        protocol.send(b"hello")
        protocol.transport.close()
        assert transport.calls[0] == "abort"
        protocol.connection_lost(None)
        with pytest.raises(ConnectionAbortedError, match="on this side"):
            protocol.send(b"x")

    asyncio.run(main())


def test_a_bad_frame_stays_the_reason_where_the_last_messages_cannot_be_sent() -> None:
    async def main() -> None:
        def fail() -> None:
            raise OSError("no transport")

        protocol = FrameProtocol(Codec.uint(2, max_message_size=10))
        transport = opened(protocol, fail)
        protocol.send(b"hello")
        with pytest.raises(OSError, match="no transport"):
            give(protocol, b"eleven byte")
        assert transport.calls == ["abort"]
        assert isinstance(protocol._sending.error, MessageTooLargeError)

    asyncio.run(main())


def test_a_send_that_has_failed_stays_the_reason_where_a_bad_frame_follows() -> None:
    class Sending(FrameProtocol):
        def messages_received(self, messages: list[Any]) -> None:
            self.send(b"hello")
            with pytest.raises(OSError, match="no transport"):
                self._sending.flush()

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    lost: list[Exception | None] = []

    async def main() -> None:
        def fail() -> None:
            raise OSError("no transport")

        protocol = Sending(Codec.uint(2, max_message_size=10))
        transport = opened(protocol, fail)
        give(protocol, b"question", b"eleven byte")
        assert transport.calls[0] == "abort"
        protocol.connection_lost(None)
        (error,) = lost
        assert isinstance(error, ConnectionAbortedError)
        assert "sending failed" in str(error)

    asyncio.run(main())


def test_the_end_of_a_connection_inside_a_write_ends_it_once() -> None:
    async def main() -> None:
        lost: list[Any] = []

        class Losing(FrameProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.append(exc)

        protocol = Losing(U2)
        error = ConnectionResetError("by the peer")
        opened(protocol, lambda: protocol.connection_lost(error))
        protocol.send(b"hello")
        await asyncio.sleep(0)
        assert lost == [error]
        with pytest.raises(ConnectionError, match="by the peer"):
            protocol.send(b"x")

    asyncio.run(main())


def test_set_protocol_writes_what_a_paused_transport_has_not_taken() -> None:
    async def main() -> None:
        protocol = FrameProtocol(U2)
        transport = opened(protocol)
        protocol.pause_writing()
        protocol.send(b"hello")
        protocol.send(b"large" * 1000)
        after = asyncio.Protocol()
        protocol.transport.set_protocol(after)
        assert b"".join(transport.written) == U2.encode_many([b"hello", b"large" * 1000])
        assert transport.protocol is after

    asyncio.run(main())


# --- tasks that wait ------------------------------------------------------------------------------


async def receiving(protocol: Any, received: list[Any]) -> asyncio.Task[None]:
    """Start a task that receives; it waits."""

    async def receive() -> None:
        async for message in protocol.stream:
            received.append(message)

    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


def test_a_message_that_comes_while_a_stream_closes_is_received_without_a_write() -> None:
    async def main() -> None:
        protocol = StreamProtocol(U2)
        transport = opened(protocol)
        received: list[Any] = []
        task = await receiving(protocol, received)
        protocol.pause_writing()
        protocol._sending.put(b"unsent")
        protocol._sending.close()  # waits for the transport
        give(protocol, b"late")  # this task runs: the other one can only run later
        assert received == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert received == [b"late"]
        assert transport.written == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        protocol.connection_lost(None)

    asyncio.run(main())


@pytest.mark.parametrize("data_first", [False, True])
def test_bytes_for_a_stream_that_is_closing_wake_its_task(data_first: bool) -> None:
    async def main() -> None:
        protocol = StreamProtocol(U2)
        transport = opened(protocol)
        received: list[Any] = []
        task = await receiving(protocol, received)
        protocol.pause_writing()
        protocol._sending.put(b"unsent")
        if not data_first:
            protocol._sending.close()
        protocol.data_received(U2.encode_many([b"a", b"b"]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert received == [b"a", b"b"]
        assert transport.written == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        protocol.connection_lost(None)

    asyncio.run(main())


def test_reading_that_the_program_has_paused_stays_paused_above_the_mark() -> None:
    async def main() -> None:
        protocol = StreamProtocol(Codec.uint(4))
        transport = opened(protocol)
        frame = Codec.uint(4).encode(bytes(100_000))
        protocol.data_received(frame * 3)  # above the mark: the stream has stopped reading
        assert transport.calls == ["pause_reading"]
        protocol._pause_reading()
        protocol._resume_reading()
        assert "resume_reading" not in transport.calls
        assert len(await protocol.stream.recv_many()) == 3
        assert transport.calls[-1] == "resume_reading"
        protocol.connection_lost(None)

    asyncio.run(main())


def test_recv_after_the_end_of_a_protocol_raises_its_error() -> None:
    async def main() -> None:
        protocol = StreamProtocol(U2)
        opened(protocol)
        protocol.connection_lost(ConnectionResetError("by the peer"))
        with pytest.raises(ConnectionError, match="by the peer"):
            await protocol.stream.recv()
        with pytest.raises(ConnectionError):
            await protocol.stream.send(b"x")

    asyncio.run(main())


def test_recv_after_an_end_that_was_interrupted_does_not_wait() -> None:
    class Interrupted(StreamProtocol):
        def _on_eof(self) -> None:
            raise KeyboardInterrupt

    async def main() -> None:
        protocol = Interrupted(U2)
        opened(protocol)
        with pytest.raises(KeyboardInterrupt):
            protocol.connection_lost(None)
        with pytest.raises(ConnectionError):
            await protocol.stream.recv()

    asyncio.run(main())


def test_a_queued_send_whose_write_fails_was_started() -> None:
    async def main() -> None:
        protocol = StreamProtocol(Codec.uint(4))
        transport = opened(protocol)
        protocol.pause_writing()
        task = asyncio.create_task(protocol.stream.send(b"large" * 50_000))
        await asyncio.sleep(0)

        def fail() -> None:
            raise OSError("no transport")

        transport.inside = fail
        protocol.resume_writing()
        with pytest.raises(OSError, match="no transport") as caught:
            await task
        assert caught.value.message_started is True  # type: ignore[attr-defined]
        assert transport.calls == ["abort"]

    asyncio.run(main())


def test_a_loop_that_has_no_weak_references_is_served(
    monkeypatch: pytest.MonkeyPatch, engine_in_use: ModuleType
) -> None:
    class Slotted:
        __slots__ = ()

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "_get_running_loop", Slotted)
            protocol = StreamProtocol(U2)
            opened(protocol)
        give(protocol, b"a", b"b")
        assert await protocol.stream.recv_many() == [b"a", b"b"]
        protocol.connection_lost(None)

    asyncio.run(main())


def test_a_check_of_a_users_function_may_refuse_a_message() -> None:
    def check(data: Any) -> int:
        if bytes(data) == b"refused":
            raise LookupError("no check for this")
        return len(data)

    async def main() -> None:
        codec = Codec.uint(2, check=Check(check, 1))
        protocol = FrameProtocol(codec)
        transport = opened(protocol)
        protocol.send(b"first")
        with pytest.raises(InvalidFrameError, match="LookupError: no check for this"):
            protocol.send(b"refused")
        protocol.send(b"last")
        await asyncio.sleep(0)
        assert codec.split(b"".join(transport.written))[0] == [b"first", b"last"]

    asyncio.run(main())


def test_bytes_for_a_protocol_whose_connection_is_aborted_are_dropped() -> None:
    async def main() -> None:
        first, second = FrameProtocol(U2), Answering(U2)
        transport = opened(first)
        data = U2.encode(b"question")[:-1]
        first.get_buffer(-1)[: len(data)] = data
        first.buffer_updated(len(data))
        first.transport.set_protocol(second)
        transport.abort()
        await asyncio.sleep(0)
        assert transport.protocol is second
        assert transport.written == []
        assert "resume_reading" not in transport.calls

    asyncio.run(main())
