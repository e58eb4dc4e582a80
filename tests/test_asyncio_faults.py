"""What raises inside a connection of an event loop: no message is lost without an error.

Errors of the codec's own functions, signal handlers that raise, memory that runs out, and garbage
collections that call the same connection: at each moment, on both engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import itertools
import logging
import socket
import time
from collections.abc import Callable, Iterator
from threading import get_ident
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameError
from framecodec.asyncio import FrameProtocol, FrameStream, open_connection
from framecodec.asyncio.stream_protocol import StreamProtocol
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.event_loops import LOOPS, TIMEOUT, close
from tests.helpers.fault_injection import interrupted_at

pytestmark = [
    pytest.mark.slow,
    needs_cpython_3_11,
    pytest.mark.usefixtures("no_collection_callbacks"),
]

U2 = Codec.uint(2)
KIB = 1 << 10


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "uvloop":
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
        return loop
    return asyncio.new_event_loop()


@contextlib.contextmanager
def looping(kind: str) -> Iterator[tuple[asyncio.AbstractEventLoop, list[Any]]]:
    """A loop that can be run again after something has stopped it, and what its exception handler
    was told."""
    reported: list[Any] = []
    loop = new_loop(kind)
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        yield loop, reported
    finally:
        for _ in range(3):
            loop.call_soon(loop.stop)
            loop.run_forever()
        close(loop)


def bounded(coroutine: Any) -> Any:
    return asyncio.wait_for(coroutine, TIMEOUT)


def run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    limit = loop.call_later(TIMEOUT, loop.stop)
    try:
        loop.run_forever()
    finally:
        limit.cancel()


# --- errors that wait in the splitter -------------------------------------------------------------

U1 = Codec.uint(1)


class Failing:
    """A splitter that fails as soon as a message of 255 bytes begins."""

    def __init__(self, splitter: Any, error: BaseException) -> None:
        self._splitter = splitter
        self._failure = error
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._splitter, name)

    def get_room(self, size: int) -> memoryview:
        if self.error is not None:
            raise self.error
        memory: memoryview = self._splitter.get_room(size)
        return memory

    def buffer_updated(self, count: int) -> list[Any]:
        if self.error is None:
            messages: list[Any] = self._splitter.buffer_updated(count)
            if self._splitter.pending_header == b"\xff":
                self.error = self._failure
            if messages:
                return messages
        if self.error is not None:
            raise self.error
        return []


class Recorder(FrameProtocol):
    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self.received: list[Any] = []
        self.lost: list[BaseException | None] = []

    def messages_received(self, messages: list[Any]) -> None:
        self.received += messages
        self.send(b"answer")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


ERRORS: list[BaseException] = [
    FrameError("what the peer sent"),
    RuntimeError("a bug"),
    MemoryError(),
    KeyboardInterrupt(),
    SystemExit(3),
    asyncio.CancelledError(),
]


def stops_the_loop(error: BaseException) -> bool:
    return isinstance(error, (KeyboardInterrupt, SystemExit))


@LOOPS
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("ahead", [0, 2], ids=["first", "after messages"])
def test_protocol_ends_with_an_error_of_the_splitter_after_the_messages(
    loop: str,
    error: BaseException,
    ahead: int,
    engine_in_use: ModuleType,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with looping(loop) as (here, reported), caplog.at_level(logging.ERROR):
        ours, theirs = socket.socketpair()

        async def main() -> Recorder:
            _, protocol = await here.create_connection(lambda: Recorder(U1), sock=ours)
            protocol._inbox.splitter = Failing(protocol._inbox.splitter, error)  # type: ignore[assignment]
            return protocol

        async def end(protocol: Recorder) -> None:
            while not protocol.lost:
                await asyncio.sleep(0)

        with theirs:
            protocol = here.run_until_complete(main())
            theirs.sendall(U1.encode(b"message") * ahead + b"\xff")
            if stops_the_loop(error):
                with pytest.raises(type(error)) as caught:
                    run_until_stopped(here)
                assert caught.value is error
            here.run_until_complete(bounded(end(protocol)))
            assert protocol.received == [b"message"] * ahead
            assert protocol.lost == [error]
            assert reported == []
            theirs.settimeout(TIMEOUT)
            answers = b"".join(iter(lambda: theirs.recv(100), b""))
            assert answers == (U1.encode(b"answer") if ahead else b"")
        logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
        assert logged == ([error] if isinstance(error, (RuntimeError, MemoryError)) else [])


@LOOPS
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("ahead", [0, 2], ids=["first", "after messages"])
def test_recv_raises_an_error_of_the_splitter_after_the_messages_and_sending_continues(
    loop: str, error: BaseException, ahead: int, engine_in_use: ModuleType
) -> None:
    with looping(loop) as (here, reported):
        ours, theirs = socket.socketpair()
        received: list[Any] = []

        async def receive(stream: FrameStream) -> None:
            while True:
                received.append(await stream.recv())

        with theirs:
            stream = here.run_until_complete(open_connection(sock=ours, codec=U1))
            protocol: Any = stream._protocol
            protocol._inbox.splitter = Failing(protocol._inbox.splitter, error)
            theirs.sendall(U1.encode(b"message") * ahead + b"\xff")
            receiving = here.create_task(receive(stream))
            if stops_the_loop(error):
                with pytest.raises(type(error)) as stopped:
                    run_until_stopped(here)
                assert stopped.value is error
            expected = type(error) if isinstance(error, Exception) else ConnectionError
            for trial in (receiving, stream.recv(), stream.recv()):
                with pytest.raises(expected) as caught:
                    here.run_until_complete(bounded(trial))
                if isinstance(error, Exception):
                    assert caught.value is error
                else:
                    assert type(error).__name__ in str(caught.value)
            assert received == [b"message"] * ahead

            async def part() -> None:
                await stream.send(b"last word")
                await stream.aclose()

            here.run_until_complete(part())
            assert theirs.recv(100) == U1.encode(b"last word")
            assert reported == []


# --- signal handlers that raise -------------------------------------------------------------------


class Interruption(KeyboardInterrupt):
    """What a signal handler raises here; event loops let it out of a callback."""


def outcome(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> BaseException | None:
    """How the task ends, however often the loop is interrupted in its callbacks."""
    limit = time.monotonic() + TIMEOUT
    while not task.done():
        if time.monotonic() > limit:
            return TimeoutError()
        stop = loop.call_later(0.001, loop.stop)
        with contextlib.suppress(Interruption):
            loop.run_forever()
        stop.cancel()
    return None if task.cancelled() else task.exception()


async def by_recv(stream: FrameStream, received: list[Any]) -> None:
    while True:
        received.append(await stream.recv())


async def by_recv_many(stream: FrameStream, received: list[Any]) -> None:
    while True:
        received += await stream.recv_many()


async def by_iteration(stream: FrameStream, received: list[Any]) -> None:
    async for message in stream:
        received.append(message)


@LOOPS
@pytest.mark.parametrize(
    ("receive", "limits"),
    [
        (by_recv, {}),
        (by_recv_many, {}),
        (by_iteration, {}),
        (by_recv, {"message_timeout": 1000.0, "idle_timeout": 1000.0}),
    ],
    ids=["recv", "recv_many", "iteration", "recv with limits"],
)
def test_recv_interrupted_at_every_moment_loses_nothing_or_raises(
    loop: str, receive: Callable[..., Any], limits: dict[str, float], engine_in_use: ModuleType
) -> None:
    pieces = [
        [b"%d" % number for number in range(7)],
        [b"large" * 10_000, b"x"],
        [b"y" * 70_000] * 5,  # above the mark: the stream pauses reading
        [b"last"],
    ]
    messages = [message for piece in pieces for message in piece]
    codec = Codec.uint(4)
    wire = [codec.encode_many(piece) for piece in pieces]
    outcomes = {"whole": 0, "error": 0}
    moment = 1
    while True:
        with looping(loop) as (here, _):
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            received: list[Any] = []

            async def feed(sock: socket.socket = theirs) -> None:
                for data in wire:
                    await asyncio.get_running_loop().sock_sendall(sock, data)
                    await asyncio.sleep(0)
                sock.shutdown(socket.SHUT_WR)

            with theirs:
                connecting = open_connection(sock=ours, codec=codec, **limits)
                stream = here.run_until_complete(connecting)
                feeding = here.create_task(feed())
                failure: BaseException | None = None
                with interrupted_at(moment, Interruption, inside=True) as passed:
                    receiving = here.create_task(receive(stream, received))
                    while failure is None:
                        failure = outcome(here, receiving)
                        if isinstance(failure, Interruption):
                            failure = None
                            receiving = here.create_task(receive(stream, received))
                        elif failure is None:
                            failure = EOFError()  # where the iteration ends
                assert not isinstance(failure, TimeoutError)
                feeding.cancel()
                outcome(here, feeding)
                stream._sending.raw_transport.abort()
            assert received == messages[: len(received)]
            whole = type(failure) is EOFError
            assert not whole or len(received) == len(messages)
            outcomes["whole" if whole else "error"] += 1
        if passed[0] < moment:
            break
        moment += 1
    assert moment > 30
    assert outcomes["whole"] > 5


@LOOPS
def test_send_interrupted_at_every_moment_leaves_whole_frames_or_ends_the_connection(
    loop: str, engine_in_use: ModuleType
) -> None:
    codec = Codec.uint(4)
    batches: list[Any] = [
        b"a",
        b"b" * 5000,
        bytearray(b"c" * 20_000),
        [b"d", b"e" * 5000, b"f"],
        b"g" * 400_000,  # waits for the peer, and with it ...
        b"h",
        [b"i", b"j" * 200_000],
        b"k",
    ]
    outcomes = {"whole": 0, "ended": 0}
    moment = 1
    while True:
        with looping(loop) as (here, _):
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            wire = bytearray()

            async def drain(sock: socket.socket = theirs, wire: bytearray = wire) -> None:
                while data := await asyncio.get_running_loop().sock_recv(sock, 64 * KIB):
                    wire += data

            expected: list[tuple[bytes, bool]] = []  # and whether it was surely accepted
            ended = False
            with theirs:
                stream = here.run_until_complete(open_connection(sock=ours, codec=codec))
                draining = here.create_task(drain())
                with interrupted_at(moment, Interruption, inside=True) as passed:
                    for batch in batches:
                        many = isinstance(batch, list)

                        async def send(what: Any = batch, many: bool = many) -> None:
                            await (stream.send_many if many else stream.send)(what)  # noqa: B023

                        sending = here.create_task(send())
                        failure = outcome(here, sending)
                        certain = failure is None
                        ended = isinstance(failure, OSError)
                        assert certain or ended or isinstance(failure, Interruption)
                        assert not isinstance(failure, TimeoutError)
                        expected += [
                            (bytes(each), certain) for each in (batch if many else [batch])
                        ]
                        if ended:
                            break
                assert outcome(here, here.create_task(stream.aclose())) is None
                # An abort of ours reaches the peer as an end or as a reset.
                assert not isinstance(outcome(here, draining), TimeoutError)
            ended = ended or stream._sending.dropped
            outcomes["ended" if ended else "whole"] += 1
            splitter = codec.splitter()
            left = iter(splitter.feed(wire))
            following = next(left, None)
            for message, certain in expected:
                if following == message:
                    following = next(left, None)
                else:
                    assert ended or not certain
            assert following is None, "nothing arrives twice, nor out of order"
            assert ended or splitter.pending == 0
        if passed[0] < moment:
            break
        moment += 1
    assert moment > 50
    assert outcomes["whole"] > 5


# --- memory that runs out -------------------------------------------------------------------------


class Memory(asyncio.Transport):
    """A transport that keeps what it is given, and whose own calls fail for want of memory too."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False
        self.reading = True
        self.full = False

    def write(self, data: Any) -> None:
        self.written += (bytes(data),)

    def abort(self) -> None:
        self.aborted = True

    close = abort

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


@pytest.fixture
def no_memory() -> Iterator[Callable[[int, int], Any]]:
    """``with no_memory(first, count): ...``: that many allocations fail, from the first one on.

    Not all that follow: then CPython 3.11 can loop for ever where it looks for an exception's
    handler.
    """
    testcapi = pytest.importorskip("_testcapi")
    if not hasattr(testcapi, "set_nomemory"):
        pytest.skip("no set_nomemory()")

    class Failing:
        __slots__ = ("first", "stop")

        def __init__(self, first: int, count: int) -> None:
            self.first, self.stop = first, first + count

        def __enter__(self) -> None:
            testcapi.set_nomemory(self.first, self.stop)

        def __exit__(self, kind: object, error: object, where: object) -> None:  # no new tuple
            testcapi.remove_mem_hooks()

    gc.disable()
    yield Failing
    testcapi.remove_mem_hooks()
    gc.enable()


# CPython's own deque, among others, forgets to say which error it was.
OUT_OF_MEMORY = (MemoryError, SystemError)

# What a call allocates at most; the test sees to it that this is enough.
MOST_ALLOCATIONS = 250

SENDS: dict[str, tuple[Callable[[Any], Any], list[bytes]]] = {
    "small": (lambda p: p.send(b"small"), [b"small"]),
    "4 KiB": (lambda p: p.send(b"x" * 5000), [b"x" * 5000]),
    "bytearray": (lambda p: p.send(bytearray(b"y" * 5000)), [b"y" * 5000]),
    "128 KiB": (lambda p: p.send(b"z" * 200_000), [b"z" * 200_000]),
    "many": (lambda p: p.send_many([b"1", b"2"]), [b"1", b"2"]),
    "many, large": (
        lambda p: p.send_many([b"1", b"2" * 100_000, bytearray(b"3" * 100_000)]),
        [b"1", b"2" * 100_000, b"3" * 100_000],
    ),
    "write": (lambda p: p.transport.write(Codec.uint(4).encode(b"written")), [b"written"]),
    "fills the turn": (
        lambda p: [p.send(b"%4d" % n + b"t" * 4000) for n in range(40)],
        [b"%4d" % n + b"t" * 4000 for n in range(40)],
    ),
}


@pytest.mark.parametrize("failures", [1, 4])
@pytest.mark.parametrize("name", SENDS)
def test_send_without_memory_sends_or_not_or_ends_the_connection(
    name: str, failures: int, engine_in_use: ModuleType, no_memory: Any
) -> None:
    codec = Codec.uint(4)
    do, messages = SENDS[name]

    async def trial(number: int) -> bool:
        """Whether an allocation failed."""
        protocol, transport = FrameProtocol(codec), Memory()
        protocol.connection_made(transport)
        protocol.send(b"before")
        ended = failed = False
        with no_memory(number, failures):
            try:
                do(protocol)
            except OUT_OF_MEMORY:
                failed = True
        try:
            if failed and name != "fills the turn":
                do(protocol)  # it may be repeated, or the connection is over
            protocol.send(b"after")
        except ConnectionError:
            ended = True
        for _ in range(3):
            await asyncio.sleep(0)
        splitter = codec.splitter()
        arrived = splitter.feed(b"".join(transport.written))
        expected = [b"before", *messages, b"after"]
        if ended:
            assert transport.aborted
            assert arrived == expected[: len(arrived)]
        elif failed and name == "fills the turn":
            assert arrived == [message for message in expected if message in arrived]
        else:
            assert arrived == expected
            assert splitter.pending == 0
        return failed

    async def main() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, reported: complaints.append(reported)
        )
        failed = [await trial(number) for number in range(1, MOST_ALLOCATIONS)]
        assert any(failed) or name == "small"  # which allocates next to nothing
        assert name == "fills the turn" or not any(failed[-5:])

    asyncio.run(main())


@pytest.mark.parametrize("failures", [1, 4])
@pytest.mark.parametrize("what", ["turn", "outbox", "resume"])
def test_flush_without_memory_sends_all_or_ends_the_connection(
    what: str, failures: int, engine_in_use: ModuleType, no_memory: Any
) -> None:
    codec = Codec.uint(4)

    async def trial(number: int) -> bool:
        protocol, transport = FrameProtocol(codec), Memory()
        protocol.connection_made(transport)
        messages = [b"1", b"2" * 1000]
        if what == "resume":
            protocol.pause_writing()
        if what != "turn":
            messages += [b"3" * 6000, b"4", bytearray(b"5" * 5000)]
        for message in messages:
            protocol.send(message)
        failed = False
        with no_memory(number, failures):
            try:
                if what == "resume":
                    protocol.resume_writing()
                else:
                    protocol._sending.flush()
            except OUT_OF_MEMORY:
                failed = True
        ended = False
        try:
            protocol.send(b"after")
        except ConnectionError:
            ended = True
        for _ in range(3):
            await asyncio.sleep(0)
        splitter = codec.splitter()
        arrived = splitter.feed(b"".join(transport.written))
        if ended:
            assert failed
            assert transport.aborted
            assert arrived == messages[: len(arrived)]
        else:
            assert arrived == [*messages, b"after"]
        return failed

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        failed = [await trial(number) for number in range(1, MOST_ALLOCATIONS)]
        assert any(failed)
        assert not any(failed[-5:])

    asyncio.run(main())


@pytest.mark.parametrize("failures", [1, 4])
@pytest.mark.parametrize("streaming", [False, True], ids=["protocol", "stream"])
def test_buffer_updated_without_memory_delivers_all_or_is_an_error(
    streaming: bool, failures: int, engine_in_use: ModuleType, no_memory: Any
) -> None:
    """The test is the transport: it does what asyncio's does with an error of a callback."""
    codec = Codec.uint(4)
    messages = [b"%d" % number * 100 for number in range(10)]
    reads = [codec.encode_many(messages[:4]), codec.encode_many(messages[4:])]

    async def trial(number: int) -> bool:
        transport = Memory()
        protocol: Any = StreamProtocol(codec) if streaming else Recorder(codec)
        protocol.connection_made(transport)
        error: BaseException | None = None
        for data in reads:
            buffer = None
            with no_memory(number, failures):
                try:
                    buffer = protocol.get_buffer(-1)
                except OUT_OF_MEMORY as failure:
                    error = failure
            if buffer is not None:
                buffer[: len(data)] = data
                size = len(data)
                with no_memory(number, failures):
                    try:
                        protocol.buffer_updated(size)
                    except OUT_OF_MEMORY as failure:
                        error = failure
            del buffer
            if error is not None:
                protocol.connection_lost(error)
                break
        received: list[Any] = []
        if streaming:
            stream = protocol.stream
            if error is None:
                protocol.eof_received()
            try:
                while True:
                    received.append(await bounded(stream.recv()))
            except EOFError:
                pass
            except (*OUT_OF_MEMORY, OSError) as failure:
                error = failure
        else:
            await asyncio.sleep(0)
            received = protocol.received
            error = error or protocol._sending.error
        if error is None:
            assert received == messages
        else:
            assert received == messages[: len(received)]
        return error is not None

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        failed = [await trial(number) for number in range(1, MOST_ALLOCATIONS)]
        assert any(failed)
        assert not any(failed[-5:])

    asyncio.run(main())


@pytest.mark.parametrize("failures", [1, 4])
@pytest.mark.parametrize("way", ["recv", "recv_many", "iteration"])
def test_recv_without_memory_can_be_repeated(
    way: str, failures: int, engine_in_use: ModuleType, no_memory: Any
) -> None:
    codec = Codec.uint(4)
    messages = [b"%d" % number * 40_000 for number in range(10)]  # above the mark: it is paused

    async def trial(number: int) -> bool:
        transport = Memory()
        protocol = StreamProtocol(codec)
        protocol.connection_made(transport)
        for data in (codec.encode_many(messages[:4]), codec.encode_many(messages[4:])):
            for start in range(0, len(data), 4 * KIB):
                piece = data[start : start + 4 * KIB]
                protocol.get_buffer(-1)[: len(piece)] = piece
                protocol.buffer_updated(len(piece))
        stream = protocol.stream
        assert not transport.reading
        received: list[Any] = []
        failed = False
        while len(received) < len(messages):
            result: Any = None
            with no_memory(number, failures):
                try:
                    if way == "recv_many":
                        result = await stream.recv_many()
                    elif way == "recv":
                        result = await stream.recv()
                    else:
                        result = await anext(aiter(stream))
                except OUT_OF_MEMORY:
                    failed = True
            if result is None:  # then with memory
                assert stream.pending_messages
                result = await (stream.recv_many() if way == "recv_many" else stream.recv())
            received += result if way == "recv_many" else [result]
        assert received == messages
        assert transport.reading
        return failed

    async def main() -> None:
        failed = [await trial(number) for number in range(1, MOST_ALLOCATIONS)]
        assert any(failed)
        assert not any(failed[-5:])

    asyncio.run(main())


# --- garbage collections that call the same connection --------------------------------------------


@contextlib.contextmanager
def collecting(call: Callable[[], object]) -> Iterator[list[int]]:
    """A garbage collection at every allocation that can have one; each calls the function.

    Yields:
        A list with one number: how many there were.
    """
    count, inside, thread = [0], [False], get_ident()

    def collected(phase: str, info: object) -> None:
        # Not in the thread by which pytest's processes talk to each other.
        if phase == "start" and not inside[0] and get_ident() == thread:
            inside[0] = True
            count[0] += 1
            try:
                call()
            finally:
                inside[0] = False

    before = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        yield count
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collected)


@pytest.mark.parametrize("nested", ["send", "send large", "send_many", "write", "flush"])
def test_send_loses_nothing_when_a_collection_inside_it_sends(
    nested: str, engine_in_use: ModuleType
) -> None:
    codec = Codec.uint(4)
    sent: list[bytes] = []

    async def main() -> None:
        protocol, transport = FrameProtocol(codec), Memory()
        protocol.connection_made(transport)

        def call() -> None:
            message = b"n%d" % len(sent)
            if nested == "send large":
                message = message.ljust(5000)
            if nested == "flush":
                protocol._sending.flush()
                return
            if nested == "send_many":
                protocol.send_many([message, message])
                sent.append(message)
            elif nested == "write":
                protocol.transport.write(codec.encode(message))
            else:
                protocol.send(message)
            sent.append(message)

        mine = []
        collections = itertools.count()
        # Not each of them: each send would cause the next one.
        with collecting(lambda: next(collections) % 11 or call()) as count:
            for number in range(50):
                message = b"m%d" % number
                for what in (message, message.ljust(6000), bytearray(message.ljust(7000))):
                    protocol.send(what)
                    mine.append(bytes(what))
                batch = [message, message.ljust(4500), bytearray(message.ljust(5500))]
                protocol.send_many(batch)
                mine += map(bytes, batch)
                protocol._sending.flush()
        for _ in range(3):
            await asyncio.sleep(0)
        assert count[0] > 100
        splitter = codec.splitter()
        arrived = splitter.feed(b"".join(transport.written))
        assert splitter.pending == 0
        assert [message for message in arrived if message.startswith(b"m")] == mine
        assert [message for message in arrived if message.startswith(b"n")] == sent
        assert protocol._sending.unsent_size() == 0

    asyncio.run(main())


@pytest.mark.parametrize("how", ["close", "abort", "write_eof"])
def test_send_closes_when_a_collection_inside_it_closes(
    how: str, engine_in_use: ModuleType
) -> None:
    codec = Codec.uint(4)

    class Ended(Memory):
        eof = False

        def write_eof(self) -> None:
            self.eof = True

    async def trial(number: int) -> bool:
        """Whether the collection came before the send was over."""
        protocol, transport = FrameProtocol(codec), Ended()
        protocol.connection_made(transport)
        protocol.send(b"first")
        left = [number]
        accepted = [b"first"]

        def call() -> None:
            left[0] -= 1
            if not left[0]:
                getattr(protocol.transport, how)()

        with collecting(call):
            for message in (bytearray(b"second" * 1000), b"third" * 1000):
                try:
                    protocol.send(message)
                except (ConnectionError, RuntimeError):
                    break
                accepted.append(bytes(message))
        for _ in range(4):
            await asyncio.sleep(0)
        if left[0] > 0:
            return False
        assert transport.eof if how == "write_eof" else transport.aborted
        arrived = codec.splitter().feed(b"".join(transport.written))
        if how != "abort":
            assert arrived == accepted
        assert arrived == accepted[: len(arrived)]
        return True

    async def main() -> None:
        number = 1
        while await trial(number):
            number += 1
        assert number > 3

    asyncio.run(main())


@pytest.mark.parametrize("nested", ["recv", "recv_many", "iteration", "read"])
@pytest.mark.parametrize("way", ["recv", "recv_many", "iteration"])
def test_recv_loses_nothing_when_a_collection_inside_it_or_a_read_receives(
    way: str, nested: str, engine_in_use: ModuleType
) -> None:
    codec = Codec.uint(4)
    messages = [b"%d" % number * 1000 for number in range(400)]
    data = codec.encode_many(messages)

    async def main() -> None:
        transport = Memory()
        protocol = StreamProtocol(codec)
        protocol.connection_made(transport)
        stream = protocol.stream
        received: list[Any] = []
        position = [0]
        refused = [0]

        def take(how: str) -> None:
            if not stream.pending_messages:
                return
            if how == "iteration":
                awaitable = anext(aiter(stream))
            else:
                awaitable = stream.recv() if how == "recv" else stream.recv_many()
            steps = awaitable.__await__()
            try:
                next(steps)
            except StopIteration as stop:
                received.extend(stop.value if how == "recv_many" else [stop.value])
            except RuntimeError as error:
                assert "another recv" in str(error)  # noqa: PT017
                refused[0] += 1
            else:
                # The other one has taken all.
                steps.close()
                awaitable.close()

        def read() -> None:
            piece = data[position[0] : position[0] + 1500]
            try:
                buffer = protocol.get_buffer(-1)
            except RuntimeError:  # inside of another call
                refused[0] += 1
                return
            buffer[: len(piece)] = piece
            size = len(piece)
            try:
                protocol.buffer_updated(size)
            except RuntimeError:
                refused[0] += 1
            else:
                position[0] += size

        with collecting(lambda: take(nested) if nested != "read" else stream.pending_messages):
            while position[0] < len(data):
                read()
                take(way)
        while stream.pending_messages:
            take(way)
        assert sorted(received, key=messages.index) == messages
        assert refused[0] < 10

    asyncio.run(main())
