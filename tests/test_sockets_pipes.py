"""`FramePipe`: messages over pipes, standard streams, terminals and other objects."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framecodec import (
    Codec,
    FramePipe,
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
)
from framecodec.sockets import pipes
from framecodec.sockets.pipe_ends import DescriptorEnd, ObjectEnd, Waker, take_buffered, write_end
from framecodec.sockets.waiting import READ
from tests.helpers.descriptors import open_descriptors
from tests.helpers.fault_injection import (
    TALLY,
    TIMEOUT,
    Interruption,
    disturbed,
    interrupted_at,
    needs_signals_to_threads,
)

pytestmark = [
    pytest.mark.usefixtures("engine_in_use"),
    pytest.mark.skipif(not hasattr(os, "readv"), reason="no pipes with poll here"),
]

U4 = Codec.uint(4)
MESSAGES = [b"one", b"", b"a longer message", b"x" * 10]
CODECS = {
    "uint": Codec.uint(4),
    "netstring": Codec.text(b":", trailer=b","),
    "hexadecimal": Codec.digits(4, base=16),
    "headers": Codec.headers(),
}


def descriptors() -> int:
    gc.collect()
    return open_descriptors()


@contextlib.contextmanager
def pipe_pair(codec: Codec = U4, buffering: int = 0) -> Iterator[tuple[FramePipe, FramePipe]]:
    """Two connections, joined by two pipes."""
    one, other = os.pipe(), os.pipe()
    codec = codec.replace()
    with (
        os.fdopen(one[0], "rb", buffering) as left_reader,
        os.fdopen(other[1], "wb", buffering) as left_writer,
        os.fdopen(other[0], "rb", buffering) as right_reader,
        os.fdopen(one[1], "wb", buffering) as right_writer,
        FramePipe(left_reader, left_writer, codec) as left,
        FramePipe(right_reader, right_writer, codec) as right,
    ):
        yield left, right


@contextlib.contextmanager
def reading(codec: Codec, **options: Any) -> Iterator[tuple[FramePipe, int]]:
    """A connection that reads a pipe, and the descriptor to write to."""
    reader, writer = os.pipe()
    try:
        with FramePipe(os.fdopen(reader, "rb", 0), codec=codec.replace(), **options) as conn:
            yield conn, writer
    finally:
        with contextlib.suppress(OSError):
            os.close(writer)


@contextlib.contextmanager
def writing(codec: Codec, **options: Any) -> Iterator[tuple[FramePipe, int]]:
    reader, writer = os.pipe()
    try:
        file = os.fdopen(writer, "wb", 0)
        with FramePipe(None, file, codec=codec.replace(), **options) as conn:
            yield conn, reader
    finally:
        os.close(reader)


def read_all(descriptor: int) -> bytes:
    data = b""
    while chunk := os.read(descriptor, 1 << 16):
        data += chunk
    return data


# --- what it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_messages_of_all_sizes_go_both_ways(buffering: int, timeout: float | None) -> None:
    messages = [os.urandom(size) for size in (0, 1, 70, 4095, 5000, 70_000, 1_000_000)]
    with pipe_pair(buffering=buffering) as (left, right):
        left.settimeout(timeout)
        right.settimeout(timeout)

        def echo() -> None:
            for message in right:
                right.send(message)
            right.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=echo)
        thread.start()
        for message in messages:
            left.send(message)
            assert left.recv() == message
        sender = threading.Thread(target=left.send_many, args=[messages])
        sender.start()
        found: list[bytes] = []
        while len(found) < len(messages):
            found += left.recv_many()
        assert found == messages
        sender.join(TIMEOUT)
        left.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            left.recv()
        thread.join(TIMEOUT)


def test_a_process_of_subprocess_answers() -> None:
    program = (
        "import sys, framecodec\n"
        "pipe = framecodec.FramePipe(sys.stdin.buffer, sys.stdout.buffer)\n"
        "for message in pipe: pipe.send(message.upper())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with FramePipe(process.stdout, process.stdin) as conn:
        conn.settimeout(TIMEOUT)
        conn.send_many([b"hello", b"byebye"])
        assert [conn.recv(), conn.recv()] == [b"HELLO", b"BYEBYE"]
        conn.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            conn.recv()
    assert process.wait(TIMEOUT) == 0


def test_what_the_buffer_of_a_file_holds_comes_first() -> None:
    reader, writer = os.pipe()
    file = os.fdopen(reader, "rb")
    os.write(writer, b"a line\n" + U4.encode_many([b"one", b"two"]))
    assert file.readline() == b"a line\n"
    with FramePipe(file, codec=U4.replace()) as conn:
        conn.settimeout(0)
        assert os.get_blocking(reader)
        assert [conn.recv(), conn.recv()] == [b"one", b"two"]
        with pytest.raises(BlockingIOError):
            conn.recv()
        os.write(writer, U4.encode(b"three"))
        assert conn.recv() == b"three"
    os.close(writer)


def test_received_bytes_come_first() -> None:
    with reading(U4, received=U4.encode(b"zero") + b"\0") as (conn, writer):
        os.write(writer, U4.encode(b"one")[1:])
        assert [conn.recv(), conn.recv()] == [b"zero", b"one"]


@pytest.mark.parametrize("kind", ["BytesIO", "read only", "read1", "regular file", "no fileno"])
def test_other_objects_are_read_by_their_own_methods(kind: str) -> None:
    stream = U4.encode_many(MESSAGES)
    file: Any = io.BytesIO(stream)

    class Reader:
        def __init__(self, name: str) -> None:
            setattr(self, name, lambda size: file.read(min(size, 3)))

        def close(self) -> None: ...

    with tempfile.TemporaryFile() as regular:
        regular.write(stream)
        regular.seek(0)
        readers: dict[str, Any] = {
            "BytesIO": lambda: file,
            "read only": lambda: Reader("read"),
            "read1": lambda: Reader("read1"),
            "regular file": lambda: regular,
            "no fileno": lambda: io.BufferedReader(file),
        }
        reader = readers[kind]()
        with FramePipe(reader, codec=U4.replace()) as conn:
            assert list(conn) == MESSAGES
            if kind != "regular file":
                with pytest.raises(io.UnsupportedOperation, match="cannot"):
                    conn.settimeout(1)


def test_other_objects_are_written_by_their_own_methods() -> None:
    class Writer:
        def __init__(self, count: bool) -> None:
            self.data = b""
            self.flushes = 0
            self.count = count

        def write(self, data: Any) -> int | None:
            size = min(len(data), 3) if self.count else len(data)
            self.data += bytes(data[:size])
            return size if self.count else None

        def flush(self) -> None:
            self.flushes += 1

        def close(self) -> None: ...

    for count in (True, False):
        writer = Writer(count)
        with FramePipe(None, writer, codec=U4.replace()) as conn:
            conn.send_many(MESSAGES)
            conn.send(b"y" * 10_000)
        assert writer.data == U4.encode_many([*MESSAGES, b"y" * 10_000])
        assert writer.flushes


def test_one_direction_only() -> None:
    with reading(U4) as (conn, writer):
        os.write(writer, U4.encode(b"x"))
        assert conn.recv() == b"x"
        for send in (lambda: conn.send(b"x"), lambda: conn.send_bytes(b"x")):
            with pytest.raises(io.UnsupportedOperation, match="no writer"):
                send()
        assert conn.writer is None
        assert conn.pending_send == 0
    with writing(U4) as (conn, reader):
        conn.send(b"x")
        assert os.read(reader, 100) == U4.encode(b"x")
        for receive in (conn.recv, conn.recv_many, lambda: next(iter(conn))):
            with pytest.raises(io.UnsupportedOperation, match="no reader"):
                receive()


@pytest.mark.parametrize(
    "arguments",
    [(None,), (object(),), (io.StringIO(),), (io.BytesIO(), io.StringIO()), (io.BytesIO(), U4)],
)
def test_what_is_no_binary_file_is_refused(arguments: Any) -> None:
    with pytest.raises(TypeError):
        FramePipe(*arguments)
    with pytest.raises(TypeError, match="codec"):
        FramePipe(io.BytesIO(), codec="u32be")  # type: ignore[arg-type]


def test_bytes_between_frames_and_files() -> None:
    data = os.urandom(300_000)
    with pipe_pair() as (left, right), tempfile.TemporaryFile() as source:
        source.write(data)
        source.seek(0)

        def send() -> None:
            left.send_bytes(b"raw bytes")
            left.send_file(source)
            left.send(data)
            left.send(b"end")

        thread = threading.Thread(target=send)
        thread.start()
        assert right.recv_bytes(9) == b"raw bytes"
        target = io.BytesIO()
        assert right.recv_file(target) == len(data)
        assert target.getvalue() == data
        buffer = bytearray(len(data))
        assert right.recv_into(buffer) == len(data)
        assert buffer == data
        assert right.recv() == b"end"
        thread.join(TIMEOUT)


def test_detach_returns_the_files_and_the_unread_bytes() -> None:
    with reading(U4) as (conn, writer):
        os.write(writer, U4.encode_many([b"one", b"two"]) + b"\xff")
        assert conn.recv() == b"one"
        (reader, none), unread = conn.detach()
        assert (none, unread) == (None, U4.encode(b"two") + b"\xff")
        os.write(writer, b"more")
        assert reader.read(4) == b"more"
        with pytest.raises(ConnectionAbortedError, match="closed or detached"):
            conn.recv()
        reader.close()


def test_a_pseudo_terminal_is_a_serial_line() -> None:
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    with FramePipe(os.fdopen(master, "r+b", 0), codec=CODECS["netstring"].replace()) as host:
        device = FramePipe(os.fdopen(slave, "r+b", 0), codec=CODECS["netstring"].replace())
        with device:
            host.settimeout(TIMEOUT)
            device.settimeout(TIMEOUT)
            messages = [bytes(range(256)), b"", b"x" * 3000]
            for message in messages:
                host.send(message)
                assert device.recv() == message
                device.send(message)
                assert host.recv() == message
            with pytest.raises(OSError, match="one file"):
                host.shutdown(socket.SHUT_WR)
        if sys.platform == "linux":
            with pytest.raises(EOFError):  # the other side hung up
                host.recv()


def test_a_fifo(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    found: list[bytes] = []

    def receive() -> None:
        with FramePipe(open(path, "rb"), codec=U4.replace()) as conn:
            found.extend(conn)

    thread = threading.Thread(target=receive)
    thread.start()
    with FramePipe(None, open(path, "wb"), codec=U4.replace()) as conn:
        conn.send_many(MESSAGES)
    thread.join(TIMEOUT)
    assert found == MESSAGES


class Serial:
    """The interface of pyserial's ports: read(n) waits for n bytes, or for its own time-out."""

    def __init__(self, data: bytes, timeouts: int) -> None:
        self._data = data
        self._timeouts = timeouts
        self.written = b""

    @property
    def in_waiting(self) -> int:
        return min(len(self._data), 3)

    def read(self, size: int) -> bytes:
        assert size <= 3
        if self._timeouts:
            self._timeouts -= 1
            return b""
        found, self._data = self._data[:size], self._data[size:]
        return found

    def write(self, data: Any) -> int:
        self.written += bytes(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_a_serial_port_without_a_descriptor() -> None:
    port = Serial(U4.encode_many(MESSAGES), 3)
    with FramePipe(port, codec=U4.replace()) as conn:
        assert conn.writer is port
        assert [conn.recv() for _ in MESSAGES] == MESSAGES
        conn.send(b"hello")
        assert port.written == U4.encode(b"hello")


def test_repr_names_the_files_and_the_codec() -> None:
    with reading(U4) as (conn, _):
        assert repr(conn).startswith("<FramePipe reader=<_io.FileIO")
        assert "Codec.uint(4)" in repr(conn)
        assert conn.fileno() == conn.reader.fileno()
        assert not conn.closed
    assert repr(conn) == f"<FramePipe closed, {U4!r}>"
    assert conn.fileno() == -1
    assert conn.closed


def test_an_observer_is_told_of_frames() -> None:
    events: list[Any] = []

    class Observer:
        def frame_received(self, conn: object, size: int) -> None:
            events.append(("received", size))

        def frame_sent(self, conn: object, size: int) -> None:
            events.append(("sent", size))

        def connection_closed(self, conn: object, error: object) -> None:
            events.append(("closed", error))

    one = os.pipe()
    with FramePipe(os.fdopen(one[0], "rb"), os.fdopen(one[1], "wb"), observer=Observer()) as conn:
        conn.send(b"hello")
        assert conn.recv() == b"hello"
    assert events == [("sent", 9), ("received", 9), ("closed", None)]


# --- time -----------------------------------------------------------------------------------------


def test_time_outs_lose_nothing() -> None:
    with reading(U4) as (conn, writer):
        conn.settimeout(0.01)
        os.write(writer, b"\0\0")
        with pytest.raises(TimeoutError, match="2 bytes"):
            conn.recv()
        conn.setblocking(False)
        with pytest.raises(BlockingIOError):
            conn.recv()
        os.write(writer, b"\0\1x")
        assert conn.recv() == b"x"
        assert conn.gettimeout() == 0
    with writing(U4) as (conn, reader):
        conn.settimeout(0.01)
        with pytest.raises(TimeoutError) as caught:
            conn.send(bytes(200_000))
        assert caught.value.message_started  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError) as caught:
            conn.send(b"next")
        assert caught.value.message_started is False  # type: ignore[attr-defined]
        conn.settimeout(TIMEOUT)
        thread = threading.Thread(target=conn.flush)
        thread.start()
        data = b""
        while len(data) < 200_004:
            data += os.read(reader, 1 << 16)
        thread.join(TIMEOUT)
        assert data == U4.encode(bytes(200_000))


@pytest.mark.parametrize(
    ("limit", "arrived", "error"),
    [("message_timeout", b"\0\0", MessageTimeoutError), ("idle_timeout", b"", IdleTimeoutError)],
)
def test_the_limits_of_the_peer(limit: str, arrived: bytes, error: Any) -> None:
    with reading(U4, **{limit: 0.02}) as (conn, writer):
        os.write(writer, arrived)
        with pytest.raises(error):
            conn.recv()
    with pytest.raises(io.UnsupportedOperation):
        FramePipe(io.BytesIO(), codec=U4, **{limit: 0.02})  # type: ignore[arg-type]


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.0, 0.001])
@pytest.mark.parametrize("nonblocking", [False, True])
@pytest.mark.parametrize("name", CODECS)
def test_recv_loses_nothing_to_a_pause_at_any_byte(
    name: str, nonblocking: bool, timeout: float
) -> None:
    codec = CODECS[name]
    stream = codec.encode_many(MESSAGES)
    with reading(codec) as (conn, writer):
        os.set_blocking(conn.fileno(), not nonblocking)
        conn.settimeout(timeout)
        messages: list[Any] = []
        for offset in range(len(stream)):
            if timeout == 0 or offset % 7 == 0:
                with contextlib.suppress(TimeoutError, BlockingIOError):
                    while len(messages) < len(MESSAGES):
                        messages.append(conn.recv())
            os.write(writer, stream[offset : offset + 1])
            TALLY.fault("pipe: a peer that pauses")
        while len(messages) < len(MESSAGES):
            messages.append(conn.recv())
        TALLY.account(messages, MESSAGES)


@pytest.mark.parametrize("name", CODECS)
def test_recv_counts_right_if_the_peer_closes_at_any_byte(name: str) -> None:
    codec = CODECS[name]
    stream = codec.encode_many(MESSAGES)
    ends = [len(codec.encode_many(MESSAGES[:count])) for count in range(len(MESSAGES) + 1)]
    before = descriptors()
    for offset in range(len(stream) + 1):
        with reading(codec) as (conn, writer):
            os.write(writer, stream[:offset])
            os.close(writer)
            whole = sum(end <= offset for end in ends) - 1
            TALLY.account([conn.recv() for _ in range(whole)], MESSAGES[:whole])
            TALLY.fault("pipe: close")
            with pytest.raises(EOFError) as caught:
                conn.recv()
            assert isinstance(caught.value, IncompleteFrameError) == (offset not in ends)
            writer = os.dup(conn.fileno())  # so that the block has one to close
            os.close(writer)
    assert descriptors() <= before


@pytest.mark.parametrize("capacity", [4096])
@pytest.mark.parametrize("nonblocking", [False, True])
def test_send_tears_no_frame_in_a_full_pipe(capacity: int, nonblocking: bool) -> None:
    rng = random.Random(4)
    with writing(U4) as (conn, reader):
        import fcntl

        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, capacity)
        os.set_blocking(conn.fileno(), not nonblocking)
        conn.setblocking(False)
        wire, accepted, faults = b"", [], 0
        while faults < 300:
            message = rng.randbytes(rng.choice([1, 100, 3000, 4095, 4096, 20_000]))
            try:
                conn.send(message)
                accepted.append(message)
            except BlockingIOError as error:
                faults += 1
                TALLY.fault("pipe: full")
                if error.message_started:  # type: ignore[attr-defined]
                    accepted.append(message)
                wire += os.read(reader, rng.randint(1, 30_000))
        conn.settimeout(TIMEOUT)
        thread = threading.Thread(target=conn.flush)
        thread.start()
        total = len(U4.encode_many(accepted))
        while len(wire) < total:
            wire += os.read(reader, 1 << 16)
        thread.join(TIMEOUT)
        assert conn.pending_send == 0
        TALLY.account(wire, U4.encode_many(accepted))


@pytest.mark.parametrize("offset", range(0, 40, 3))
def test_recv_and_send_keep_what_arrived_before_a_broken_pipe(offset: int) -> None:
    stream = U4.encode_many(MESSAGES)
    one, other = os.pipe(), os.pipe()
    reader, writer = os.fdopen(one[0], "rb", 0), os.fdopen(other[1], "wb", 0)
    with FramePipe(reader, writer, U4.replace()) as conn:
        os.write(one[1], stream[:offset])
        os.close(one[1])
        os.close(other[0])
        TALLY.fault("pipe: broken")
        for _ in range(2):
            with pytest.raises(BrokenPipeError):
                conn.send(b"x")
        ends = [len(U4.encode_many(MESSAGES[:count])) for count in range(len(MESSAGES) + 1)]
        whole = sum(end <= offset for end in ends) - 1
        TALLY.account([conn.recv() for _ in range(whole)], MESSAGES[:whole])
        with pytest.raises(EOFError):
            conn.recv()


def test_a_bad_frame_is_an_error_after_the_messages_before_it() -> None:
    codec = Codec.digits(3)
    with reading(codec) as (conn, writer):
        os.write(writer, b"002hi<?>")
        assert conn.recv() == b"hi"
        for _ in range(2):
            with pytest.raises(InvalidFrameError):
                conn.recv()


@pytest.mark.parametrize("direction", ["recv", "send"])
def test_close_wakes_a_thread_of_a_pipe_with_one_direction(direction: str) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            if direction == "recv":
                conn.recv()
            else:
                conn.send(bytes(10_000_000))
        except OSError as error:
            failed.append(error)

    with (reading if direction == "recv" else writing)(U4) as (conn, other):
        if direction == "recv":
            os.write(other, b"\0\0")
        thread = threading.Thread(target=work)
        thread.start()
        if direction == "send":
            os.read(other, 1)  # the thread has begun
        time.sleep(0.02)
        conn.close()
        thread.join(TIMEOUT)
    assert [type(error) for error in failed] == [ConnectionAbortedError]


def test_recv_of_a_pipe_waits_on_where_the_system_cannot_wait_that_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipes, "_LONGEST_POLL", 0.001)
    with reading(U4) as (conn, writer):
        conn.settimeout(0.02)
        with pytest.raises(TimeoutError, match=r"within 0\.02 s"):
            conn.recv()
        os.write(writer, U4.encode(b"late"))
        conn.settimeout(TIMEOUT)
        assert conn.recv() == b"late"


def test_check_ready_raises_if_the_connection_is_closed_while_it_looks() -> None:
    class ClosedLater(Waker):
        """The connection is closed between the first look and the second."""

        looks = 0

        @property
        def awake(self) -> bool:  # type: ignore[override]
            self.looks += 1
            return self.looks > 1

        @awake.setter
        def awake(self, value: bool) -> None:
            pass

    reader, writer = os.pipe()
    waker = ClosedLater()
    with os.fdopen(reader, "rb", 0) as file:
        os.write(writer, b"x")
        end = DescriptorEnd(file, file, READ, waker)
        with pytest.raises(OSError, match="descriptor") as caught:
            end.check_ready()
        assert caught.value.errno == errno.EBADF
    os.close(writer)
    waker.close()


@pytest.mark.usefixtures("uninterrupted_engine")
@pytest.mark.c_extension
@pytest.mark.parametrize("method", ["recv", "recv_many", "iteration"])
@pytest.mark.parametrize("timeout", [None, TIMEOUT, 0.0])
def test_recv_loses_nothing_to_an_interruption_at_any_moment(
    timeout: float | None, method: str
) -> None:
    moment = 0
    while True:
        moment += 1
        messages: list[Any] = []
        with reading(U4) as (conn, writer):
            conn.settimeout(timeout)
            os.write(writer, U4.encode_many(MESSAGES))
            iterator = iter(conn)
            with interrupted_at(moment) as passed, contextlib.suppress(Interruption):
                if method == "recv":
                    message = conn.recv()
                    messages.append(message)
                    message = conn.recv()
                    messages.append(message)
                elif method == "recv_many":
                    messages = conn.recv_many()
                else:
                    for message in iterator:
                        messages.append(message)
                        if len(messages) == 2:
                            break
            conn.settimeout(TIMEOUT)
            while len(messages) < len(MESSAGES):
                messages.append(conn.recv())
            TALLY.account(messages, MESSAGES)
        if moment > passed[0]:
            break
        TALLY.fault("pipe: interruption at every moment")
    assert moment > 5


@pytest.mark.untraced
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_send_tears_no_frame_at_an_interruption_at_any_moment(
    timeout: float | None, large: bool
) -> None:
    message = b"x" * 9000 if large else b"hello"
    moment = 0
    while True:
        moment += 1
        with writing(U4) as (conn, reader):
            conn.settimeout(timeout)
            conn.send(b"before")
            taken: bool | None = True
            with interrupted_at(moment) as passed:
                try:
                    conn.send(message)
                except Interruption as error:
                    taken = getattr(error, "message_started", None)
                    TALLY.fault("pipe: send: interruption at every moment")
            conn.send(b"after")
            assert conn.pending_send == 0
            conn.writer.close()
            messages = list(U4.split(read_all(reader))[0])
        assert messages in ([b"before", message, b"after"], [b"before", b"after"])
        if taken is not None:
            assert (message in messages) is taken
        if moment > passed[0]:
            break
    assert moment > 5


@needs_signals_to_threads
@pytest.mark.usefixtures("uninterrupted_engine")
@pytest.mark.c_extension
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_messages_survive_signals_in_both_directions(timeout: float | None) -> None:
    rng = random.Random(1)
    sent = [rng.randbytes(rng.choice([10, 5000, 100_000])) for _ in range(30)]
    armed: list[bool] = []
    with pipe_pair() as (left, right):
        right.settimeout(timeout)
        sender = threading.Thread(target=left.send_many, args=[sent])
        sender.start()
        with disturbed(armed):
            for message in sent:
                found = None
                while found is None:
                    try:
                        armed.append(True)
                        found = right.recv()
                        armed.clear()
                    except Interruption:
                        armed.clear()
                TALLY.account([found], [message])
        sender.join(TIMEOUT)


def test_a_system_call_that_a_signal_interrupts_is_made_again() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with reading(U4) as (conn, writer):
            main = threading.get_ident()

            def disturb() -> None:
                for byte in U4.encode(b"hello"):
                    signal.pthread_kill(main, signal.SIGUSR1)
                    time.sleep(0.001)
                    os.write(writer, bytes([byte]))

            thread = threading.Thread(target=disturb)
            thread.start()
            assert conn.recv() == b"hello"
            thread.join(TIMEOUT)
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- threads and the end --------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("way", ["recv", "recv_bytes", "send"])
def test_close_wakes_the_thread_that_waits(way: str, timeout: float | None) -> None:
    before = descriptors()
    with pipe_pair() as (left, _):
        left.settimeout(timeout)
        results: queue.Queue[Any] = queue.Queue()
        calls: Any = {
            "recv": left.recv,
            "recv_bytes": lambda: left.recv_bytes(3),
            "send": lambda: left.send(bytes(1_000_000)),
        }
        entered = threading.Event()

        def call() -> None:
            entered.set()
            try:
                results.put(calls[way]())
            except BaseException as error:
                results.put(error)

        thread = threading.Thread(target=call)
        thread.start()
        entered.wait(TIMEOUT)
        time.sleep(0.02)
        left.close()
        assert isinstance(results.get(timeout=TIMEOUT), ConnectionAbortedError)
        thread.join(TIMEOUT)
        left.close()
        with pytest.raises(ConnectionAbortedError):
            left.recv()
    assert descriptors() <= before


def test_messages_of_several_threads_stay_whole() -> None:
    with pipe_pair() as (left, right):

        def send(number: int) -> None:
            for count in range(50):
                left.send(bytes([number]) * (count * 97))

        threads = [threading.Thread(target=send, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        found = [right.recv() for _ in range(200)]
        for thread in threads:
            thread.join(TIMEOUT)
        for number in range(4):
            mine = [message for message in found if message and message[0] == number]
            assert mine == [bytes([number]) * (count * 97) for count in range(1, 50)]


def test_no_descriptor_is_left() -> None:
    before = descriptors()
    for _ in range(5):
        with pipe_pair() as (left, right):
            left.send(b"x")
            assert right.recv() == b"x"
        reader, writer = os.pipe()
        file = os.fdopen(reader, "rb", 0)
        conn = FramePipe(file, codec=U4)
        conn.detach()
        file.close()
        os.close(writer)
        with pytest.raises(ValueError, match="idle_timeout"):
            FramePipe(io.BytesIO(), codec=U4, idle_timeout=-1)
    assert descriptors() <= before


if __name__ == "__main__":
    status = pytest.main([__file__, "-q", "-p", "no:cacheprovider"])
    for kind, count in sorted(TALLY.by_kind.items()):
        print(f"{count:7} {kind}")
    print(f"faults injected {TALLY.faults}, bytes {TALLY.bytes}, bytes lost {TALLY.lost}")
    sys.exit(status)


@pytest.mark.parametrize("observer", [None, object()])
def test_messages_of_a_pipe_can_be_objects(engine_in_use: Any, observer: object) -> None:
    codec = Codec.uint(4).as_json()
    reader, writer = os.pipe()
    with (
        FramePipe(None, os.fdopen(writer, "wb", 0), codec=codec, observer=observer) as left,
        FramePipe(os.fdopen(reader, "rb", 0), codec=codec, observer=observer) as right,
    ):
        left.send({"n": 1})
        left.send_many([[2], None])
        assert right.recv() == {"n": 1}
        assert [right.recv(), right.recv()] == [[2], None]
        left.shutdown(socket.SHUT_WR)
        assert list(right) == []


# --- the ends, called by hand ---------------------------------------------------------------------


class Device(io.RawIOBase):
    """A non-blocking object without a descriptor, whose answers a test chooses."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.ended: list[str] = []

    def _answer(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def readinto(self, buffer: Any) -> Any:
        data = self._answer()
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> Any:
        return self._answer()

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def cancel_read(self) -> None:
        self.ended.append("read")

    def cancel_write(self) -> None:
        self.ended.append("write")
        raise OSError("the port is closed")


def test_an_object_that_has_nothing_now_is_asked_again() -> None:
    device = Device(None, b"\0\0\0\1", None, b"a", b"")
    with FramePipe(device, codec=U4) as conn:  # type: ignore[arg-type]
        assert conn.recv() == b"a"
        with pytest.raises(EOFError):
            conn.recv()
        with pytest.raises(io.UnsupportedOperation):
            conn.fileno()


def test_an_object_that_takes_a_part_or_nothing_is_asked_again() -> None:
    partly = BlockingIOError(11, "partly", 2)
    device = Device(None, BlockingIOError(11, "not now", 0), partly, 1, 2)
    with FramePipe(None, device, codec=U4) as conn:  # type: ignore[arg-type]
        conn.send(b"a")
    assert device.answers == []


def test_an_object_without_flush_takes_messages() -> None:
    class Plain:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: Any) -> int:
            self.data += data
            return len(data)

        def close(self) -> None:
            """Nothing is open."""

    plain = Plain()
    with FramePipe(None, plain, codec=U4) as conn:  # type: ignore[arg-type]
        conn.send(b"abc")
    assert plain.data == b"\0\0\0\3abc"


def test_the_end_of_a_closed_object_refuses_to_read_and_write() -> None:
    device = Device()
    end = ObjectEnd(device)
    assert not end.is_end(OSError(5, "input/output error"))
    end.wake()
    assert device.ended == ["read", "write"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(end.counts(iter([memoryview(bytearray(1))])))
    with pytest.raises(OSError, match="Bad file descriptor"):
        end.write_counts([b"x"])


def test_the_end_of_a_regular_file_is_always_ready(tmp_path: Path) -> None:
    with contextlib.closing(Waker()) as waker, (tmp_path / "file").open("wb", 0) as file:
        end = write_end(file, waker)
        assert end.wait(0)
        assert sum(end.write_counts([b"ab", b"c"])) == 3
        waker.wake()
        with pytest.raises(OSError, match="Bad file descriptor"):
            end.write_counts([b"d"])
    assert (tmp_path / "file").read_bytes() == b"abc"


def test_close_of_a_pipe_forgets_a_file_that_is_not_sent_whole(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(1_000_000))
    reader, writer = os.pipe()
    before = descriptors()
    with os.fdopen(reader, "rb", 0), path.open("rb") as file:
        conn = FramePipe(None, os.fdopen(writer, "wb", 0), codec=U4)
        conn.settimeout(0)
        with pytest.raises(BlockingIOError) as caught:
            conn.send_file(file)
        assert caught.value.message_started is True  # type: ignore[attr-defined]
        conn.close()
    assert descriptors() <= before - 2


def test_close_closes_each_file_and_raises_the_first_error() -> None:
    class Failing(io.BytesIO):
        def close(self) -> None:
            super().close()
            raise OSError(5, "the disk is gone")

    reader, writer = Failing(), Failing()
    conn = FramePipe(reader, writer, U4)
    with pytest.raises(OSError, match="the disk is gone"):
        conn.close()
    assert (reader.closed, writer.closed, conn.closed) == (True, True, True)


def test_shutdown_ends_the_writer_or_both() -> None:
    with pipe_pair() as (left, right):
        with pytest.raises(OSError, match="a reader cannot be ended alone"):
            left.shutdown(socket.SHUT_RD)
        with pytest.raises(ValueError, match="how must be SHUT_WR or SHUT_RDWR, not 7"):
            left.shutdown(7)
        left.shutdown(socket.SHUT_RDWR)
        assert left.closed
        with pytest.raises(EOFError):
            right.recv()


def test_take_buffered_takes_nothing_of_a_file_without_a_buffer() -> None:
    assert take_buffered(io.BytesIO(b"abc"), -1) == b""
