"""The fast path of a message through a socket, in both twins."""

from __future__ import annotations

import contextlib
import copy
import errno
import importlib
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, FrameSocket, Splitter
from framecodec._states import ReceiveState, SendState
from framecodec.errors import InvalidFrameError, MessageTooLargeError
from framecodec.sockets._fast_path_py import _SharedTake
from tests.helpers.descriptors import no_more_descriptors
from tests.helpers.fault_injection import TIMEOUT, Interruption

CODEC = Codec.uint(2)
DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)


@pytest.fixture(params=["python", pytest.param("compiled", marks=pytest.mark.c_extension)])
def io(request: pytest.FixtureRequest) -> ModuleType:
    names = {
        "python": "framecodec.sockets._fast_path_py",
        "compiled": "framecodec.sockets._fast_path",
    }
    return importlib.import_module(names[request.param])


@pytest.fixture
def compiled_io() -> ModuleType:
    return importlib.import_module("framecodec.sockets._fast_path")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(10)
        yield left, right


def sender_of(io: ModuleType, sock: socket.socket, flags: int = DONTWAIT) -> Any:
    sender = io.Sender(sock, io.Lock(), CODEC)
    sender.use(flags)
    return sender


def receiver_of(io: ModuleType, sock: socket.socket, flags: int = DONTWAIT) -> Any:
    receiver = io.Receiver(sock, io.Lock())
    receiver.use(Splitter(CODEC), 65536, flags, 0.0)
    return receiver


# --- signals --------------------------------------------------------------------------------------


@contextlib.contextmanager
def alarms(handle: Callable[..., object]) -> Iterator[None]:
    """Call a handler every 10 milliseconds."""
    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def raising_handler() -> Iterator[None]:
    def handle(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


needs_masks = pytest.mark.skipif(
    not hasattr(signal, "pthread_sigmask"), reason="no signals are held here"
)


@needs_masks
@pytest.mark.usefixtures("raising_handler")
def test_held_signals_delay_a_signal(io: ModuleType) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    passed = False
    held = io.HeldSignals()
    try:
        try:
            held.hold()
            signal.raise_signal(signal.SIGUSR1)
            passed = True
        finally:
            for _ in held.release:
                break
        time.sleep(0)  # after a call at the latest
    except Interruption:
        assert passed
    else:
        raise AssertionError("it was never heard")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


@needs_masks
def test_held_signals_restore_the_mask_of_another_thread(io: ModuleType) -> None:
    masks: list[set[int]] = []

    def work() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        held = io.HeldSignals()
        held.hold()
        for _ in held.release:
            break
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert masks[0] == masks[1]


# --- the lock -------------------------------------------------------------------------------------


def test_lock_is_reentrant(io: ModuleType) -> None:
    lock = io.Lock()
    tried: list[bool] = []

    def attempt() -> None:
        taken = lock.acquire(blocking=False)
        tried.append(taken)
        if taken:
            lock.release()

    def attempt_elsewhere() -> bool:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(10)
        return tried.pop()

    assert attempt_elsewhere()
    with lock:
        assert lock.acquire(timeout=1)
        assert not attempt_elsewhere()
        lock.release()
        assert not attempt_elsewhere()
    assert attempt_elsewhere()


def test_lock_is_released_by_its_owner_only(io: ModuleType) -> None:
    lock = io.Lock()
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(10)
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0.01)
    done.set()
    assert lock.acquire(timeout=10)
    thread.join(10)
    lock.release()


def test_lock_lets_one_thread_in_at_a_time(io: ModuleType) -> None:
    lock, inside, most, total = io.Lock(), 0, 0, 0

    def work() -> None:
        nonlocal inside, most, total
        for _ in range(300):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                total += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, total) == (1, 1200)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_lock_wait_lets_signal_handlers_run(io: ModuleType) -> None:
    lock, taken, called = io.Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            called.wait(TIMEOUT)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(TIMEOUT)
    try:
        with alarms(lambda *_: called.set()), lock:
            assert called.is_set()
    finally:
        thread.join(TIMEOUT)


@pytest.mark.untraced  # the handler would raise between any two lines of acquire()
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_lock_wait_is_interrupted_by_a_signal(io: ModuleType) -> None:
    class Interruption(Exception):
        pass

    armed = [True]

    def interrupt(*_: object) -> None:
        if armed:
            armed.clear()
            raise Interruption

    lock, taken, done = io.Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(10)
    try:
        with pytest.raises(Interruption), alarms(interrupt):
            lock.acquire()
    finally:
        done.set()
        thread.join(10)
    assert lock.acquire(timeout=10)
    lock.release()


# --- the receiver ---------------------------------------------------------------------------------


def test_receiver_delivers_ready_messages_first_and_in_order(io: ModuleType, ends: Any) -> None:
    receiver = receiver_of(io, ends[1])
    receiver.ready = io.Batch([b"one", b"two"])
    ends[0].sendall(CODEC.encode(b"three"))
    assert next(receiver) == b"one"
    assert next(receiver) == b"two"


def test_receiver_reads_nothing_if_busy_or_without_a_splitter(io: ModuleType, ends: Any) -> None:
    frame = CODEC.encode(b"hello")
    ends[0].sendall(frame)
    receiver = receiver_of(io, ends[1])
    receiver.state = ReceiveState.BUSY
    assert list(receiver) == []
    receiver.state = ReceiveState.READY
    receiver.use(None, 0, 0, 0.0)
    assert list(receiver) == []
    assert ends[1].recv(100) == frame


@pytest.mark.c_extension
@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
def test_receiver_gives_all_messages_of_one_receive(compiled_io: ModuleType, ends: Any) -> None:
    receiver = receiver_of(compiled_io, ends[1])
    assert list(receiver) == []  # it would block
    stream = CODEC.encode_many([b"one", b"", b"three"])
    ends[0].sendall(stream[:-1])
    assert list(receiver) == [b"one", b""]
    ends[0].sendall(stream[-1:])
    assert list(receiver) == [b"three"]
    assert receiver.state is ReceiveState.READY
    ends[0].close()
    assert list(receiver) == []  # the end is for others to tell
    assert ends[1].recv(1) == b""


@pytest.mark.c_extension
@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
def test_receiver_raises_an_error_after_the_messages_before_it(
    compiled_io: ModuleType, ends: Any
) -> None:
    receiver = compiled_io.Receiver(ends[1], compiled_io.Lock())
    receiver.use(Splitter(Codec.digits(2)), 65536, DONTWAIT, 0.0)
    ends[0].sendall(b"01a0x")
    assert next(receiver) == b"a"
    for _ in range(2):
        with pytest.raises(InvalidFrameError):
            next(receiver)


@pytest.mark.c_extension
@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
def test_receiver_does_not_count_the_bytes_of_a_bad_frame_as_lost(
    compiled_io: ModuleType, ends: Any
) -> None:
    # Another thread may see the state before the call that has failed ends the connection.
    receiver = compiled_io.Receiver(ends[1], compiled_io.Lock())
    splitter = Splitter(Codec.digits(2))
    receiver.use(splitter, 65536, DONTWAIT, 0.0)
    ends[0].sendall(b"0x")
    with pytest.raises(InvalidFrameError):
        next(receiver)
    assert receiver.state is ReceiveState.READY
    assert splitter.detach() == b"0x"


@pytest.mark.c_extension
@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
def test_receiver_and_sender_raise_os_errors(compiled_io: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname(), 10)
        peer, _ = server.accept()
        receiver, sender = receiver_of(compiled_io, sock), sender_of(compiled_io, sock)
        with sock:
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            peer.close()  # a reset
            assert select.select([sock], [], [], 10)[0]
            with pytest.raises(ConnectionResetError):
                next(receiver)
            with pytest.raises(BrokenPipeError):
                sender.send(b"hello")
            assert receiver.state is ReceiveState.READY
            assert sender.state is SendState.IDLE
        with pytest.raises(OSError, match="descriptor"):
            next(receiver)
        with pytest.raises(OSError, match="descriptor"):
            sender.send(b"hello")


@pytest.mark.c_extension
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_receiver_loses_nothing_to_signals_while_it_waits(
    compiled_io: ModuleType, ends: Any
) -> None:
    receiver = receiver_of(compiled_io, ends[1], flags=0)
    ends[1].setblocking(True)
    calls: list[object] = []

    def handle(*_: object) -> None:
        calls.extend(receiver)  # inside already: nothing
        calls.append(None)
        if len(calls) == 3:
            ends[0].sendall(CODEC.encode(b"hello"))

    with alarms(handle):
        assert next(receiver) == b"hello"
    assert calls[:3] == [None] * 3


@pytest.mark.c_extension
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
@pytest.mark.parametrize("closes", [False, True])
def test_receiver_with_a_time_out_lets_signal_handlers_run(
    compiled_io: ModuleType, ends: Any, closes: bool
) -> None:
    receiver = compiled_io.Receiver(ends[1], compiled_io.Lock())
    receiver.use(Splitter(CODEC), 65536, DONTWAIT, 20.0)
    calls: list[None] = []

    def handle(*_: object) -> None:
        calls.append(None)
        if len(calls) == 3 and closes:
            ends[1].close()
        elif len(calls) == 3:
            ends[0].sendall(CODEC.encode(b"hello"))

    with alarms(handle):
        if closes:
            with pytest.raises(OSError, match="descriptor"):
                next(receiver)
        else:
            assert next(receiver) == b"hello"
    assert len(calls) >= 3


@pytest.mark.c_extension
@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
def test_receiver_keeps_its_time_out_while_bytes_are_always_there(
    compiled_io: ModuleType, ends: Any
) -> None:
    receiver = compiled_io.Receiver(ends[1], compiled_io.Lock())
    splitter = Splitter(CODEC)
    receiver.use(splitter, 8, DONTWAIT, 1e-9)
    frame = CODEC.encode(bytes(10_000))
    first = len(splitter.get_room(8))
    ends[0].sendall(frame[: first + 60])  # a read of the first bytes, and one of the others
    with pytest.raises(TimeoutError, match="no whole message"):
        next(receiver)
    assert splitter.pending == first + 60
    ends[0].sendall(frame[first + 60 :])
    receiver.use(splitter, 8, DONTWAIT, 10.0)
    assert next(receiver) == bytes(10_000)


def test_receive_raises_what_the_system_says_where_it_cannot_wait(
    engine_in_use: Any, ends: Any
) -> None:
    ends[1].settimeout(TIMEOUT)
    conn = FrameSocket(ends[1], CODEC)
    with no_more_descriptors(), pytest.raises(OSError, match="argument") as caught:
        conn.recv()
    assert caught.value.errno == errno.EINVAL


@pytest.mark.c_extension
@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
def test_receiver_waits_for_a_whole_message_until_its_time_out(
    compiled_io: ModuleType, ends: Any
) -> None:
    receiver = compiled_io.Receiver(ends[1], compiled_io.Lock())
    receiver.use(Splitter(CODEC), 65536, DONTWAIT, 0.05)
    frame = CODEC.encode(b"hello")
    for byte in frame[:-1]:
        ends[0].sendall(bytes([byte]))
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            next(receiver)
        assert receiver.state is ReceiveState.READY
    receiver.use(None, 0, 0, 0.0)
    splitter = Splitter(CODEC)
    receiver.use(splitter, 65536, DONTWAIT, 10.0)
    feeder = threading.Thread(target=lambda: [ends[0].sendall(frame[i : i + 1]) for i in range(7)])
    feeder.start()
    assert next(receiver) == b"hello"
    feeder.join(10)


# --- the sender -----------------------------------------------------------------------------------


def test_sender_sends_a_small_message_in_one_call(io: ModuleType, ends: Any) -> None:
    sender = sender_of(io, ends[1])
    assert sender.send(b"hello")
    assert sender.send(b"")
    assert ends[0].recv(100) == CODEC.encode_many([b"hello", b""])
    assert sender.state is SendState.IDLE
    assert sender.unsent == ()


@pytest.mark.skipif(not hasattr(socket.socket, "sendmsg"), reason="no sendmsg here")
@pytest.mark.parametrize("codec", [CODEC, Codec.uint(4, length_offset=3)])
def test_sender_sends_a_large_message_in_one_call(io: ModuleType, ends: Any, codec: Codec) -> None:
    sender = io.Sender(ends[1], io.Lock(), codec)
    sender.use(DONTWAIT)
    message = bytes(range(256)) * 16
    assert sender.send(message)
    assert sender.state is SendState.IDLE
    assert sender.unsent == ()
    assert ends[0].recv(10_000) == codec.encode(message)


@pytest.mark.parametrize("taken", [1, 3, 4, 5, 5000])
def test_sender_keeps_what_one_call_did_not_send(taken: int) -> None:
    class Reluctant:
        """As a socket with space for that many bytes."""

        def send(self, data: bytes, flags: int) -> int:
            raise AssertionError

        def sendmsg(self, buffers: list[bytes], ancillary: tuple[()], flags: int) -> int:
            return taken

    python_io = importlib.import_module("framecodec.sockets._fast_path_py")
    sender = python_io.Sender(Reluctant(), python_io.Lock(), Codec.uint(4))
    sender.use(0)
    message = bytes(range(250)) * 24
    assert sender.send(message)
    assert sender.state is SendState.HELD
    assert b"".join(sender.unsent) == Codec.uint(4).encode(message)[taken:]


def test_sender_leaves_other_messages_to_the_slow_path(io: ModuleType, ends: Any) -> None:
    with_trailer = io.Sender(ends[1], io.Lock(), Codec.uint(2, trailer=b"."))
    with_trailer.use(DONTWAIT)
    assert not with_trailer.send(bytes(4096))
    assert with_trailer.state is SendState.IDLE
    sender = sender_of(io, ends[1])
    assert not sender.send(bytearray(4))
    assert not sender.send("text")
    sender.state = SendState.BUSY  # as if a signal handler interrupted a call that sends
    assert not sender.send(b"hello")
    sender.state = SendState.HELD
    assert not sender.send(b"hello")
    ends[1].close()
    assert ends[0].recv(100) == b""


def test_sender_sends_nothing_of_an_invalid_message(io: ModuleType, ends: Any) -> None:
    sender = io.Sender(ends[1], io.Lock(), Codec.uint(1, max_message_size=3))
    sender.use(0)
    with pytest.raises(MessageTooLargeError):
        sender.send(b"four")
    assert sender.send(b"hey")
    assert ends[0].recv(100) == b"\3hey"


def test_sender_sends_nothing_if_its_lock_is_taken(io: ModuleType, ends: Any) -> None:
    lock = io.Lock()
    sender = io.Sender(ends[1], lock, CODEC)
    sender.use(0)
    answers: list[bool] = []
    with lock:
        thread = threading.Thread(target=lambda: answers.append(sender.send(b"hello")))
        thread.start()
        thread.join(10)
    assert answers == [False]


@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
def test_sender_keeps_the_begun_frame_if_the_buffer_is_full(io: ModuleType, ends: Any) -> None:
    ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    sender = sender_of(io, ends[1])
    message, taken = bytes(range(250)) * 12, 0
    while sender.send(message):
        taken += 1
        if sender.unsent:
            break
        assert taken < 10_000
    assert not sender.send(message)
    ends[0].setblocking(False)
    wire = b""
    while select.select([ends[0]], [], [], 0)[0]:
        wire += ends[0].recv(1 << 20)
    assert wire + b"".join(sender.unsent) == CODEC.encode_many([message] * taken)


@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
@pytest.mark.skipif(not hasattr(socket, "TCP_MAXSEG"), reason="segments have a fixed size here")
def test_sender_begins_a_small_message_and_keeps_its_end(io: ModuleType) -> None:
    with contextlib.ExitStack() as stack:
        server, sock = (stack.enter_context(socket.socket()) for _ in range(2))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        server.bind(("127.0.0.1", 0))
        server.listen()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        sock.connect(server.getsockname())
        peer = stack.enter_context(server.accept()[0])
        sender = io.Sender(sock, io.Lock(), CODEC)
        sender.use(DONTWAIT)
        message, taken = bytes(range(250)) * 12, 0
        while sender.state is SendState.IDLE and taken < 1000:
            assert sender.send(message)
            taken += 1
        unsent = b"".join(sender.unsent)
        assert sender.state is SendState.HELD
        assert 0 < len(unsent) < len(CODEC.encode(message))
        whole = CODEC.encode_many([message] * taken)
        peer.settimeout(10)
        wire = b""
        while len(wire) < len(whole) - len(unsent):
            wire += peer.recv(1 << 20)
        assert wire + unsent == whole


def test_sender_sends_nothing_where_its_codec_has_sent_meanwhile(io: ModuleType, ends: Any) -> None:
    """The encoder of a user may send, too; what it has left must go first."""

    class Sending:
        frame_parts = CODEC.frame_parts

        def encode(self, message: bytes) -> bytes:
            sender.state = SendState.HELD
            return CODEC.encode(message)

    sender = io.Sender(ends[1], io.Lock(), Sending())
    sender.use(DONTWAIT)
    assert sender.send(b"hello") is False
    assert not select.select([ends[0]], [], [], 0)[0]


@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
@pytest.mark.parametrize("codec", [Codec.uint(4), Codec.uint(4, length_offset=3)])
def test_sender_begins_a_large_message_and_keeps_its_end(io: ModuleType, codec: Codec) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname(), 10)
        peer, _ = server.accept()
    with sock, peer:
        sender = io.Sender(sock, io.Lock(), codec)
        sender.use(DONTWAIT)
        message = bytes(range(256)) * 65_000
        assert sender.send(message)
        unsent = b"".join(sender.unsent)
        assert sender.state is SendState.HELD
        assert not sender.send(b"next")
        frame = codec.encode(message)
        assert 0 < len(unsent) < len(frame)
        peer.settimeout(10)
        wire = b""
        while len(wire) < len(frame) - len(unsent):
            wire += peer.recv(1 << 20)
        assert wire + unsent == frame


# --- batches --------------------------------------------------------------------------------------


def test_batch_gives_each_message_once_and_keeps_none(io: ModuleType) -> None:
    messages = [b"one".upper(), b"two".upper(), b"three".upper()]
    headers = [b"1".center(5), b"2".center(5), b"3".center(5)]
    watched = [*messages, *headers]
    before = [sys.getrefcount(each) for each in watched]
    batch = io.Batch(list(messages), list(headers))
    assert len(batch) == 3
    assert batch.first is messages[0]
    assert batch.rest() == messages
    assert batch.headers() == headers
    assert next(iter(batch)) is messages[0]
    assert next(batch.take) is messages[1]
    assert len(batch) == 1
    assert (batch.rest(), batch.headers()) == (messages[2:], headers[2:])
    assert list(batch.take_all) == [messages[2:]]
    assert list(batch.take_all) == [[]]
    assert list(batch) == []
    assert [sys.getrefcount(each) for each in watched] == before
    with pytest.raises(IndexError):
        batch.first  # noqa: B018
    assert io.Batch([b"one"]).rest() == [b"one"]
    with pytest.raises(ValueError, match="1 headers for 2 messages"):
        io.Batch([b"one", b"two"], [b"1"])
    with pytest.raises(TypeError):
        io.Batch([b"one"]).headers()


@pytest.mark.untraced
def test_batch_gives_each_message_to_one_thread(io: ModuleType) -> None:
    batch = io.Batch([bytes([i & 255, i >> 8]) for i in range(20_000)])
    taken: list[list[bytes]] = [[] for _ in range(4)]

    def work(messages: list[bytes]) -> None:
        messages.extend(iter(batch))

    threads = [threading.Thread(target=work, args=[messages]) for messages in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = sorted(message for messages in taken for message in messages)
    assert found == sorted(bytes([i & 255, i >> 8]) for i in range(20_000))


def test_shared_take_ends_if_another_thread_emptied_the_queue() -> None:
    """The step that only a build without the GIL makes, with the other thread's part in between."""
    queue = deque([b"one", b"two"])
    first, second = _SharedTake(queue), _SharedTake(queue)
    assert next(first) == b"one"
    assert next(second) == b"two"
    assert list(first) == []
    queue.append(b"three")
    assert list(second) == [b"three"]
    assert list(first) == []


def test_batch_is_shared_between_threads_without_the_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    python_io = importlib.import_module("framecodec.sockets._fast_path_py")
    monkeypatch.setattr(python_io, "_HAS_GIL", False)
    batch = python_io.Batch([b"one", b"two", b"three"], [b"1", b"2", b"3"])
    assert next(batch.take) == b"one"
    assert batch.headers() == [b"2", b"3"]
    assert list(batch.take_all) == [[b"two", b"three"]]
    assert list(batch) == []


# --- internal objects in odd hands ----------------------------------------------------------------


@pytest.mark.c_extension
@pytest.mark.parametrize("name", ["Batch", "Guard", "Receiver", "Sender"])
def test_compiled_classes_refuse_missing_arguments(compiled_io: ModuleType, name: str) -> None:
    kind = getattr(compiled_io, name)
    with pytest.raises(TypeError):
        kind.__new__(kind)


@pytest.mark.c_extension
@pytest.mark.parametrize("name", ["Batch", "Guard", "HeldSignals", "Lock", "Receiver", "Sender"])
def test_compiled_classes_have_no_subclasses(compiled_io: ModuleType, name: str) -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (getattr(compiled_io, name),), {})


@pytest.mark.c_extension
def test_compiled_classes_refuse_odd_arguments(compiled_io: ModuleType, ends: Any) -> None:
    for lock in (None, threading.RLock(), object()):
        with pytest.raises(TypeError):
            compiled_io.Guard(lock, 1.0)
        with pytest.raises(TypeError):
            compiled_io.Receiver(ends[0], lock)
        with pytest.raises(TypeError):
            compiled_io.Sender(ends[0], lock, CODEC)
    with pytest.raises(TypeError):
        compiled_io.Batch(None)
    with pytest.raises(TypeError):
        compiled_io.Batch((b"one",))
    receiver = compiled_io.Receiver(ends[0], compiled_io.Lock())
    with pytest.raises(TypeError):
        receiver.ready = iter([b"one"])
    with pytest.raises(TypeError):
        receiver.ready = None
    with pytest.raises(ValueError, match="nan"):
        compiled_io.Lock().acquire(True, float("nan"))


class Forged:
    """As a splitter, with memory that must not be written to."""

    def get_room(self, size: int) -> Any:
        return b"constant"

    def buffer_updated(self, count: int) -> Any:
        return None


@pytest.mark.c_extension
def test_receiver_refuses_other_splitters(compiled_io: ModuleType, ends: Any) -> None:
    receiver = compiled_io.Receiver(ends[0], compiled_io.Lock())
    python = importlib.import_module("framecodec._splitter_py")
    for splitter in (Forged(), object(), 1, python.Splitter(CODEC)):
        with pytest.raises(TypeError, match="compiled splitter"):
            receiver.use(splitter, 65536, DONTWAIT, 0.0)
    for size in (-1, 0, 1, 10**9):
        receiver.use(Splitter(CODEC), size, DONTWAIT, float("nan"))
        assert list(receiver) == []
    with pytest.raises((TypeError, OverflowError)):
        receiver.use(Splitter(CODEC), 10**30, DONTWAIT, 0.0)


@pytest.mark.parametrize("name", ["Batch", "Guard", "HeldSignals", "Lock", "Receiver", "Sender"])
def test_internal_objects_are_neither_copied_nor_pickled(
    io: ModuleType, ends: Any, name: str
) -> None:
    lock = io.Lock()
    made = {
        "Batch": lambda: io.Batch([b"one"], [b"1"]),
        "Guard": lambda: io.Guard(lock, 1.0),
        "HeldSignals": io.HeldSignals,
        "Lock": io.Lock,
        "Receiver": lambda: io.Receiver(ends[0], lock),
        "Sender": lambda: io.Sender(ends[0], lock, CODEC),
    }[name]()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(made, protocol)
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(made)
    assert not hasattr(made, "__setstate_cython__")
    assert not hasattr(made, "__reduce_cython__")


def test_held_signals_are_held_once_and_released_once(io: ModuleType) -> None:
    if not hasattr(signal, "pthread_sigmask"):
        pytest.skip("no signals are held here")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    held = io.HeldSignals()
    assert list(held.release) == []
    held.hold()
    try:
        with pytest.raises(RuntimeError, match="already"):
            held.hold()
    finally:
        steps = len(list(held.release))
    assert steps == 1
    assert list(held.release) == []
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


# --- a time-out that the kernel counts ------------------------------------------------------------


def read_timeout(sock: socket.socket) -> float:
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    seconds, microseconds = struct.unpack("qq", found)
    return float(seconds + microseconds / 1e6)


needs_kernel_timeout = pytest.mark.skipif(
    not sys.platform.startswith("linux") or struct.calcsize("P") != 8,
    reason="the kernel's time-out is used on Linux; here its fields have 8 bytes",
)


@needs_kernel_timeout
@pytest.mark.c_extension
def test_receive_with_a_time_out_waits_in_one_call_and_keeps_it() -> None:
    codec = Codec.uint(4)
    with contextlib.ExitStack() as stack:
        left, right = map(stack.enter_context, socket.socketpair())
        conn = FrameSocket(left, codec)
        conn.settimeout(0.6)
        assert read_timeout(left) == 0
        right.send(codec.encode(b"ready"))
        assert conn.recv() == b"ready"
        assert read_timeout(left) == 0  # it did not wait
        for wait in range(2):  # the first one sets the option, ...
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                conn.recv()
            assert time.monotonic() - start >= 0.6, wait
            assert read_timeout(left) == pytest.approx(0.6)
        frame = codec.encode(b"cut off")
        right.send(frame[:5])
        with pytest.raises(TimeoutError, match="5 of 11 bytes"):
            conn.recv()
        right.send(frame[5:])
        assert conn.recv() == b"cut off"
        conn.settimeout(20)
        assert read_timeout(left) == 0
        waiting = threading.Timer(0.05, lambda: right.send(frame))
        waiting.start()
        assert conn.recv() == b"cut off"
        waiting.join()
        assert read_timeout(left) == 20
        conn.settimeout(None)
        assert read_timeout(left) == 0


@needs_kernel_timeout
@pytest.mark.c_extension
def test_detach_restores_the_time_out_of_the_kernel() -> None:
    codec = Codec.uint(4)
    with contextlib.ExitStack() as stack:
        left, right = map(stack.enter_context, socket.socketpair())
        conn = FrameSocket(left, codec)
        conn.settimeout(0.5)
        with pytest.raises(TimeoutError):
            conn.recv()
        assert read_timeout(left) == 0.5
        right.send(b"\0\0")
        sock, unread = conn.detach()
        assert (read_timeout(sock), unread, sock.gettimeout()) == (0, b"", 0.5)


@needs_kernel_timeout
@pytest.mark.c_extension
def test_time_out_that_the_user_has_set_in_the_kernel_stays() -> None:
    with contextlib.ExitStack() as stack:
        left, _ = map(stack.enter_context, socket.socketpair())
        left.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 7, 0))
        conn = FrameSocket(left, Codec.uint(4))
        conn.settimeout(0.5)
        with pytest.raises(TimeoutError):
            conn.recv()
        conn.settimeout(None)
        assert read_timeout(left) == 7


@needs_kernel_timeout
@pytest.mark.c_extension
@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_receive_that_waits_in_the_kernel_is_woken(how: str) -> None:
    with contextlib.ExitStack() as stack:
        left, right = map(stack.enter_context, socket.socketpair())
        conn = FrameSocket(left, Codec.uint(4))
        conn.settimeout(0.5)
        with pytest.raises(TimeoutError):
            conn.recv()
        conn.settimeout(20)
        right.send(b"\0\0\0\1x\0")
        assert conn.recv() == b"x"
        ended: list[type[BaseException]] = []

        def receive() -> None:
            try:
                conn.recv()
            except OSError as error:
                ended.append(type(error))
            except EOFError as error:
                ended.append(type(error))

        thread = threading.Thread(target=receive)
        thread.start()
        time.sleep(0.1)
        start = time.monotonic()
        if how == "close":
            conn.close()
        else:
            right.close()
        thread.join(10)
        assert not thread.is_alive()
        assert time.monotonic() - start < 5
        assert len(ended) == 1


def test_receiver_that_leaves_receiving_to_its_caller_ends_where_nothing_is_ready(
    io: ModuleType, ends: Any
) -> None:
    receiver = io.Receiver(ends[0], io.Lock())
    receiver.ready = io.Batch([b"one"])
    assert next(receiver) == b"one"
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(receiver)
