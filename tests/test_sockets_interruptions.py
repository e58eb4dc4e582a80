"""A signal handler that raises, at every moment at which CPython runs one: nothing is lost without
an error that sticks, no frame is torn, no lock stays taken."""

from __future__ import annotations

import contextlib
import io
import random
import re
import select
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from framecodec import Codec, DatagramSocket, FrameSocket, IncompleteFrameError
from framecodec._states import SendState
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.fault_injection import (
    TIMEOUT,
    FaultySocket,
    Interruption,
    disturbed,
    interrupted_after_opcode,
    lock_is_free,
    needs_signals_to_threads,
    stream_pair,
)

pytestmark = pytest.mark.usefixtures("engine_in_use", "no_collection_callbacks")


def at_each_moment(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that needs each moment at which CPython runs a handler, and no others."""
    has_others = pytest.mark.skipif(
        sys.implementation.name != "cpython" or sys.gettrace() is not None,
        reason="no instructions are traced here",
    )
    marked: Callable[..., None] = needs_cpython_3_11(has_others(test))
    return marked


CODECS = {
    "uint": Codec.uint(4),
    "netstring": Codec.text(b":", trailer=b","),
    "hexadecimal": Codec.digits(4, base=16),
    "headers": Codec.headers(),
    "custom": Codec.custom(
        lambda view: (1, view[0]) if len(view) else None,
        lambda message: bytes([len(message)]),
    ),
}
FIRST, SECOND = [b"one", b"", b"a longer message"], [b"x" * 10, b"the end"]
TIMEOUTS = [None, TIMEOUT, 0.0]


def runs_python_code(engine: ModuleType, name: str) -> bool:
    """Whether bytes are cut into messages by Python code, at least in part."""
    return engine.__name__.endswith("_py") or name in ("headers", "custom")


def call(conn: FrameSocket, method: str, messages: list[Any]) -> None:
    """Receive by one call; what it gives is in `messages` at once."""
    if method == "recv":
        message = conn.recv()
        messages.append(message)
    elif method == "recv_many":
        batch = conn.recv_many()
        messages.extend(batch)
    elif method == "recv_into":
        buffer = bytearray(100)
        size = conn.recv_into(buffer)
        messages.append(bytes(buffer[:size]))
    else:
        for message in conn:
            messages.append(message)
            break


def receive_rest(conn: FrameSocket, messages: list[Any]) -> BaseException | None:
    """Receive what is missing, up to an error that says that something is lost."""
    try:
        while len(messages) < len(FIRST + SECOND):
            messages.append(conn.recv())
    except (ConnectionAbortedError, Interruption) as error:
        return error
    return None


@at_each_moment
@pytest.mark.slow
@pytest.mark.parametrize("method", ["recv", "recv_many", "iteration"])
@pytest.mark.parametrize(
    ("name", "timeout"),
    [*(("uint", timeout) for timeout in TIMEOUTS), *((name, TIMEOUT) for name in CODECS)],
)
def test_recv_loses_nothing_or_raises_for_ever(
    engine_in_use: ModuleType, name: str, timeout: float | None, method: str
) -> None:
    codec = CODECS[name].replace()
    may_end = runs_python_code(engine_in_use, name)
    moment, ended = 0, 0
    while True:
        moment += 1
        messages: list[Any] = []
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(timeout)
            peer.sendall(codec.encode_many(FIRST))
            with interrupted_after_opcode(moment) as passed, contextlib.suppress(Interruption):
                call(conn, method, messages)
                if conn.pending_messages:
                    call(conn, method, messages)
            assert lock_is_free(conn._receiving.lock)
            peer.sendall(codec.encode_many(SECOND))
            conn.settimeout(TIMEOUT)
            failure = receive_rest(conn, messages)
            if failure is not None:
                assert may_end
                ended += 1
                with pytest.raises(type(failure)) as again:
                    conn.recv_many()
                assert again.value is failure
            assert messages == (FIRST + SECOND)[: len(messages)]
            assert may_end or messages == FIRST + SECOND
        if moment > passed[0]:
            break
    assert moment > 1
    assert ended < moment  # most moments are harmless


def feed(peer: socket.socket, wire: bytes) -> None:
    """Send, to a connection that may be closed before it has received everything."""
    with contextlib.suppress(OSError):
        peer.sendall(wire)


@at_each_moment
@pytest.mark.slow
@pytest.mark.parametrize("size", [7, 900_000])
@pytest.mark.parametrize("name", ["uint", "netstring", "headers"])
@pytest.mark.parametrize("way", ["file", "buffer"])
def test_recv_file_resumes_or_raises_that_it_cannot(
    engine_in_use: ModuleType, way: str, name: str, size: int
) -> None:
    codec = CODECS[name].replace()
    message = bytes(range(250)) * (size // 250) + b"!" * (size % 250)
    moment = 0
    while True:
        moment += 1
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(TIMEOUT)
            wire = codec.encode_many([message, b"next"])
            feeder = threading.Thread(target=feed, args=[peer, wire])
            feeder.start()
            file, buffer = io.BytesIO(), bytearray(size)
            done = None

            receive = partial(conn.recv_into, buffer)
            if way == "file":
                receive = partial(conn.recv_file, file)
            with interrupted_after_opcode(moment) as passed, contextlib.suppress(Interruption):
                done = receive()
            assert lock_is_free(conn._receiving.lock)
            found = b""
            try:
                # At its very end the call may have finished although it was interrupted.
                if (
                    done is None
                    and conn._receiving.inbox.direct is None
                    and size == len(file.getvalue())
                ):
                    done = size
                if done is None and way == "buffer" and bytes(buffer) == message:
                    done = size if conn._receiving.inbox.direct is None else receive()
                if done is None:
                    done = receive()
                found = conn.recv()
            except (ConnectionAbortedError, Interruption):
                assert runs_python_code(engine_in_use, name)
            else:
                assert (done, found) == (size, b"next")
                assert (file.getvalue() if way == "file" else bytes(buffer)) == message
            conn.close()
            feeder.join(TIMEOUT)
        if moment > passed[0]:
            break
    assert moment > 1


def read_wire(sock: socket.socket, wire: list[bytes]) -> None:
    """Store all that arrives until the other end closes."""
    data = b""
    while chunk := sock.recv(1 << 20):
        data += chunk
    wire.append(data)


def sends(tmp_file: io.BufferedReader) -> dict[str, Callable[[FrameSocket], None]]:
    return {
        "send small": lambda conn: conn.send(b"hello"),
        "send large": lambda conn: conn.send(b"x" * 300_000),
        "send borrowed": lambda conn: conn.send(bytearray(b"x" * 300_000)),
        "send_many": lambda conn: conn.send_many([b"hello", b"x" * 300_000, b"hello"]),
        "send_file": lambda conn: conn.send_file(tmp_file),
    }


@at_each_moment
@pytest.mark.parametrize("way", sends(None))  # type: ignore[arg-type]
@pytest.mark.parametrize("timeout", [None, TIMEOUT, 0.0])
@pytest.mark.parametrize("name", ["uint", "netstring"])
def test_send_tears_no_frame(name: str, timeout: float | None, way: str, tmp_path: Any) -> None:
    codec = CODECS[name].replace()
    (tmp_path / "file").write_bytes(b"x" * 300_000)
    sizes = {"send small": 5}.get(way, 300_000)
    one = [b"hello"] if way == "send small" else [b"x" * sizes]
    sent = [b"hello", b"x" * 300_000, b"hello"] if way == "send_many" else one
    moment = 0
    while True:
        moment += 1
        with stream_pair() as (peer, sock), open(tmp_path / "file", "rb") as file:
            wire: list[bytes] = []
            reader = threading.Thread(target=read_wire, args=[peer, wire])
            reader.start()
            with FrameSocket(sock, codec) as conn:
                conn.send(b"before")
                conn.settimeout(timeout)
                taken: bool | None = True
                with interrupted_after_opcode(moment) as passed:
                    try:
                        sends(file)[way](conn)
                    except (Interruption, BlockingIOError) as error:
                        taken = getattr(error, "message_started", None)
                assert lock_is_free(conn._sending.lock)
                conn.settimeout(TIMEOUT)
                dead = False
                try:
                    conn.send(b"after")
                    assert conn.pending_send == 0
                except ConnectionAbortedError:
                    dead = True
                    with pytest.raises(ConnectionAbortedError):
                        conn.flush()
            reader.join(TIMEOUT)
            assert not reader.is_alive()
            messages, size = codec.split(wire[0])
            if dead:
                assert messages == [b"before", *sent][: len(messages)]
            else:
                assert size == len(wire[0])
                assert messages in ([b"before", *sent, b"after"], [b"before", b"after"])
                if taken is not None:
                    assert (sent[0] in messages) is taken
        if moment > passed[0]:
            break
    assert moment > 1


@at_each_moment
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
@pytest.mark.parametrize("codec", [None, Codec.uint(2)])
@pytest.mark.parametrize("method", ["recv", "recv_many", "recv_from", "iteration"])
def test_datagram_socket_loses_no_datagram(codec: Codec | None, method: str) -> None:
    codec = codec and codec.replace()
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    expected = [b"one", b"two", b"three", b"four"]
    moment = 0
    with left, DatagramSocket(right, codec) as conn:
        conn.settimeout(TIMEOUT)
        while True:
            moment += 1
            for pair in (expected[:2], expected[2:]):
                for data in [codec.encode_many(pair)] if codec else pair:
                    left.send(data)
            messages: list[Any] = []
            with interrupted_after_opcode(moment) as passed, contextlib.suppress(Interruption):
                if method == "recv_from":
                    message = conn.recv_from()[0]
                    messages.append(message)
                else:
                    call(conn, method, messages)  # type: ignore[arg-type]
            assert lock_is_free(conn._lock)
            while len(messages) < len(expected):
                messages.append(conn.recv())
            assert messages == expected
            assert not select.select([conn], [], [], 0)[0]
            if moment > passed[0]:
                break
    assert moment > 1


@at_each_moment
@pytest.mark.parametrize("timeout", [TIMEOUT, 0.0])
def test_flush_releases_its_lock(timeout: float) -> None:
    with stream_pair() as (_, sock), FrameSocket(sock, Codec.uint(4)) as conn:
        conn.settimeout(timeout)
        moment = 0
        while True:
            moment += 1
            conn._sender.state = SendState.HELD  # as if bytes were held: else it takes no lock
            with interrupted_after_opcode(moment) as passed, contextlib.suppress(Interruption):
                conn.flush()
            assert lock_is_free(conn._sending.lock)
            assert conn._sender.state in (SendState.HELD, SendState.IDLE)
            if moment > passed[0]:
                break
        assert moment > 1


@at_each_moment
def test_recv_raises_an_end_inside_a_frame_after_an_interruption() -> None:
    codec = CODECS["uint"].replace()
    moment = 0
    while True:
        moment += 1
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            peer.sendall(codec.encode(b"hello")[:-1])
            peer.close()
            expected = contextlib.suppress(Interruption, IncompleteFrameError)
            with interrupted_after_opcode(moment) as passed, expected:
                conn.recv()
            # The Python engine may have been interrupted itself.
            with pytest.raises((IncompleteFrameError, ConnectionAbortedError, Interruption)):
                conn.recv()
        if moment > passed[0]:
            break
    assert moment > 1


@at_each_moment
@needs_signals_to_threads
@pytest.mark.usefixtures("uninterrupted_engine")
@pytest.mark.c_extension
@pytest.mark.parametrize("mode", ["wb", "w+b"])
def test_recv_file_writes_each_byte_once_after_any_signal(mode: str, tmp_path: Any) -> None:
    rng = random.Random(1)
    sent = [rng.randbytes(rng.choice([10, 700_000])) for _ in range(40)]
    armed: list[bool] = []
    with stream_pair() as (left, right), FrameSocket(left) as one, FrameSocket(right) as other:
        sender = threading.Thread(target=one.send_many, args=[sent])
        sender.start()
        with disturbed(armed):
            for message in sent:
                with open(tmp_path / "file", mode) as file:
                    size = None
                    while size is None:
                        try:
                            armed.append(True)
                            size = other.recv_file(file)
                            armed.clear()
                        except Interruption:
                            armed.clear()
                    assert file.tell() == size
                assert (tmp_path / "file").read_bytes() == message
        sender.join(TIMEOUT)


@pytest.mark.parametrize("mode", ["wb", "w+b", "r+b"])
def test_recv_file_leaves_a_buffered_file_as_its_write_does(mode: str, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with stream_pair() as (left, right), FrameSocket(left) as one, FrameSocket(right) as other:
        one.send_many([b"hello", b"world"])
        with open(tmp_path / "file", mode) as file:
            if mode == "r+b":
                assert file.read(2) == b"01"
            else:
                file.write(b"AB")
            assert other.recv_file(file) == 5
            assert file.tell() == 7
            file.write(b"-")
            assert other.recv_file(file) == 5
            file.write(b".")
            file.seek(0)
            if mode != "wb":
                start = b"01" if mode == "r+b" else b"AB"
                assert file.read() == start + b"hello-world."
                file.seek(0)
            file.write(b"ab")
        assert (tmp_path / "file").read_bytes() == b"abhello-world."


class Unsure(io.BytesIO):
    """A file of Python's, which a handler interrupts when it has written or read a part."""

    armed = True

    def write(self, data: Any) -> int:
        if self.armed:
            self.armed = False
            super().write(data[:1])
            raise Interruption
        return super().write(data)

    def read(self, size: int | None = -1) -> bytes:
        if self.armed and size:
            self.armed = False
            super().read(1)
            raise Interruption
        return super().read(size)


def test_recv_file_ends_receiving_if_the_written_count_is_unknown() -> None:
    with stream_pair() as (left, right), FrameSocket(left) as one, FrameSocket(right) as other:
        one.send(b"hello")
        file = Unsure()
        with pytest.raises(Interruption):
            other.recv_file(file)
        for again in (lambda: other.recv_file(file), other.recv):
            with pytest.raises(ConnectionAbortedError, match="lost"):
                again()
        assert file.getvalue() == b"h"


def test_send_file_ends_sending_if_the_read_count_is_unknown() -> None:
    codec = CODECS["netstring"].replace()
    with stream_pair() as (left, right), FrameSocket(left, codec) as one:
        right.setblocking(False)
        file = Unsure(bytes(800_000))
        one.setblocking(False)
        with pytest.raises(Interruption) as caught:
            one.send_file(file, 700_000)
        assert caught.value.message_started  # type: ignore[attr-defined]
        for again in (one.flush, lambda: one.send(b"next")):
            with pytest.raises(ConnectionAbortedError, match="lost"):
                again()


class CallingSocket(socket.socket):
    """A connected socket that makes a call, as a signal handler would, inside its system calls."""

    inside: Callable[[], object] | None = None

    def _call(self) -> None:
        call, self.inside = self.inside, None
        if call is not None:
            call()

    def recv_into(self, *arguments: Any) -> int:
        self._call()
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        self._call()
        return super().send(*arguments)


@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("inner", ["recv", "send", "switch", "detach"])
@pytest.mark.parametrize("outer", ["recv", "send"])
def test_call_from_a_handler_that_has_interrupted_another_is_refused(
    outer: str, inner: str, timeout: float | None
) -> None:
    arguments = {"send": [b"x"], "switch": [Codec.uint(4)]}.get(inner, [])
    ours, theirs = socket.socketpair()
    sock = CallingSocket(ours.family, ours.type, ours.proto, ours.detach())
    refusals: list[BaseException] = []
    with FrameSocket(sock, Codec.uint(4)) as conn, theirs:
        conn.settimeout(timeout)
        theirs.sendall(b"\0\0\0\3one")

        def handle() -> None:
            try:
                getattr(conn, inner)(*arguments)
            except RuntimeError as error:
                refusals.append(error)

        sock.inside = handle
        if outer == "recv":
            assert conn.recv() == b"one"
        else:
            conn.send(b"two")
        assert sock.inside is None
        is_other = {outer, inner} == {"send", "recv"}
        assert bool(refusals) != is_other  # the other direction is free
        for refusal in refusals:
            assert re.match(rf"a signal handler interrupted {outer}\(\)", str(refusal))
        if outer == "send":
            assert theirs.recv(100) == b"\0\0\0\3two"


class ClosingSocket(FaultySocket):
    """A socket during whose send a signal handler closes the connection, after that many bytes."""

    closes_after = 0
    close_connection: Callable[[], object]

    def send(self, data: Any, flags: int = 0, /) -> int:  # type: ignore[override]
        count = super().send(data, flags)
        if self.bytes_written == self.closes_after:
            self.close_connection()
        return count


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_send_that_has_sent_all_succeeds_though_a_handler_has_closed(
    timeout: float | None,
) -> None:
    with stream_pair() as (peer, plain):
        sock = ClosingSocket(plain)
        conn = FrameSocket(sock, Codec.uint(4).replace())
        conn.settimeout(timeout)
        sock.closes_after, sock.close_connection = 18, conn.close
        conn.send_many([b"hello", b"world"])
        assert conn.closed
        assert peer.recv(100) == b"\0\0\0\5hello\0\0\0\5world"
        assert peer.recv(100) == b""


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_send_raises_if_a_handler_has_closed_after_the_held_message(
    timeout: float | None,
) -> None:
    with stream_pair() as (peer, plain):
        sock = ClosingSocket(plain, writing={5: [BlockingIOError]})
        conn = FrameSocket(sock, Codec.uint(4).replace())
        conn.settimeout(0)
        with pytest.raises(BlockingIOError):
            conn.send(b"hello")
        assert conn.pending_send == 4
        conn.settimeout(timeout)
        sock.closes_after, sock.close_connection = 9, conn.close
        with pytest.raises(ConnectionAbortedError, match="closed") as caught:
            conn.send(b"world")
        assert caught.value.message_started is False  # type: ignore[attr-defined]
        assert peer.recv(100) == b"\0\0\0\5hello"
        assert peer.recv(100) == b""
