"""`recv_bytes` and `send_bytes` of a `FrameSocket`: unframed bytes in order with the messages."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
import threading
from typing import Any

import pytest

from framecodec import (
    Codec,
    FrameSocket,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
)
from framecodec._unframed import UnframedBytes
from framecodec.errors import IdleTimeoutError
from tests.helpers.event_loops import tls_contexts
from tests.helpers.fault_injection import (
    PASSING,
    PASSING_ERRORS,
    TIMEOUT,
    FaultySocket,
    Interruption,
    disturbed,
    interrupted_at,
    lock_is_free,
    needs_signals_to_threads,
    stream_pair,
)

pytestmark = pytest.mark.usefixtures("engine_in_use")

CODECS = {
    "uint": Codec.uint(2),
    "netstring": Codec.text(b":", trailer=b","),
    "hexadecimal": Codec.digits(4, base=16),
    "headers": Codec.headers(),
    "lead": Codec.uint(1, length_offset=2),
}


def codec_named(name: str) -> Codec:
    return CODECS[name].replace()  # made anew, so that it uses the engine of this test


def steps_of(codec: Codec) -> tuple[bytes, list[Any]]:
    """A stream of messages and unframed bytes, and how to receive it."""
    rng = random.Random(7)
    # Bytes that look like frames, like bad frames, and like the beginning of large ones.
    unframed = [b"PROXY\r\n", codec.encode(b"looks framed"), b"\xff" * 9, b"\0" * 40, b"F", b"00fF"]
    steps: list[Any] = [(7, unframed[0])]
    stream = unframed[0]
    for data in unframed[1:]:
        message = rng.randbytes(rng.randint(2, 30))
        stream += codec.encode(message) + data
        steps += [message, (len(data), data)]
    stream += codec.encode(b"the last")
    return stream, [*steps, b"the last"]


def repeated(call: Any, conn: FrameSocket) -> Any:
    for _ in range(10_000):
        try:
            return call()
        except PASSING_ERRORS:
            if conn.gettimeout() == 0:
                select.select([conn], [], [], 0.01)
    raise AssertionError("the call never ends")


def receive(conn: FrameSocket, steps: list[Any]) -> None:
    for step in steps:
        if isinstance(step, bytes):
            assert repeated(conn.recv, conn) == step
        else:
            size, data = step
            assert repeated(lambda size=size: conn.recv_bytes(size), conn) == data


@pytest.mark.parametrize("read_ahead", [True, False])
@pytest.mark.parametrize("name", CODECS)
def test_recv_bytes_takes_what_follows_a_message(name: str, read_ahead: bool) -> None:
    codec = codec_named(name)
    stream, steps = steps_of(codec)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec, read_ahead=read_ahead) as conn:
        peer.sendall(stream)
        peer.shutdown(socket.SHUT_WR)
        receive(conn, steps)
        for call in (conn.recv, lambda: conn.recv_bytes(1)):
            with pytest.raises(EOFError) as caught:
                call()
            assert type(caught.value) is EOFError


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [None, TIMEOUT, 0.0])
@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("name", CODECS)
def test_recv_bytes_loses_nothing_to_a_fault_at_any_byte(
    name: str, fault: str, timeout: float | None
) -> None:
    codec = codec_named(name)
    stream, steps = steps_of(codec)
    for offset in range(0, len(stream) + 1, 7 if timeout == 0 else 23):
        with stream_pair() as (peer, sock):
            faulty = FaultySocket(sock, reading={offset: [PASSING[fault]]})
            with FrameSocket(faulty, codec) as conn:
                conn.settimeout(timeout)
                peer.sendall(stream)
                receive(conn, steps)


@pytest.mark.parametrize("name", CODECS)
def test_recv_bytes_loses_nothing_to_a_pause_at_any_byte(name: str) -> None:
    codec = codec_named(name)
    stream, steps = steps_of(codec)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(0)
        position = 0
        for step in steps:
            while True:
                with contextlib.suppress(BlockingIOError):
                    if isinstance(step, bytes):
                        assert conn.recv() == step
                    else:
                        # A call that asks for more takes nothing.
                        with contextlib.suppress(BlockingIOError):
                            if position < len(stream):
                                conn.recv_bytes(len(stream) + 1)
                        assert conn.recv_bytes(step[0]) == step[1]
                    break
                peer.sendall(stream[position : position + 1])
                position += 1
        assert position == len(stream)


def test_recv_bytes_that_timed_out_leaves_the_bytes_to_any_call() -> None:
    codec = Codec.uint(1)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec.replace()) as conn:
        peer.sendall(b"\3abc\2xy")
        conn.settimeout(0.01)
        with pytest.raises(TimeoutError):
            conn.recv_bytes(100)
        assert conn.pending_messages == 2
        assert conn.recv() == b"abc"
        with pytest.raises(TimeoutError):
            conn.recv_bytes(100)
        assert conn.recv_bytes(2) == b"\2x"
        assert conn.recv_bytes(0) == b""
        with pytest.raises(TimeoutError):
            conn.recv_bytes(2)
        peer.sendall(b"z" * 121)
        assert conn.recv() == b"z" * 121  # "y" is the length
        assert conn.detach()[1] == b""


def test_recv_bytes_then_detach_returns_what_was_not_taken() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, Codec.uint(1).replace()) as conn:
        peer.sendall(b"\1a\1b\1c\xff")
        assert conn.recv() == b"a"
        assert conn.recv_bytes(1) == b"\1"
        assert conn.detach() == (sock, b"b\1c\xff")


@pytest.mark.parametrize("sent", range(6))
def test_recv_bytes_counts_what_came_before_the_end(sent: int) -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, Codec.uint(2).replace()) as conn:
        peer.sendall(b"\0\1a" + b"12345"[:sent])
        peer.close()
        assert conn.recv() == b"a"
        with pytest.raises(EOFError) as caught:
            conn.recv_bytes(6)
        assert isinstance(caught.value, IncompleteFrameError) == (sent > 0)
        if isinstance(caught.value, IncompleteFrameError):
            found = caught.value.received, caught.value.needed, caught.value.stream_offset
            assert found == (sent, 6, 3)
        assert conn.recv_bytes(sent) == b"12345"[:sent]
        with pytest.raises(EOFError) as caught:
            conn.recv_bytes(1)
        assert type(caught.value) is EOFError
        with pytest.raises(EOFError):
            conn.recv()


def test_recv_bytes_short_of_memory_for_its_result_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: UnframedBytes, size: int) -> bytes:
        raise MemoryError

    with stream_pair() as (peer, sock), FrameSocket(sock, Codec.uint(1)) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(b"\1aunframed\1b")
        assert conn.recv() == b"a"
        assert conn.recv_bytes(2) == b"un"
        monkeypatch.setattr(UnframedBytes, "first", fail)
        for _ in range(2):
            with pytest.raises(MemoryError):
                conn.recv_bytes(6)
        monkeypatch.undo()
        assert conn.recv_bytes(6) == b"framed"
        assert conn.recv() == b"b"


def test_recv_bytes_takes_the_error_of_a_frame_back() -> None:
    codec = Codec.digits(3)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec.replace()) as conn:
        peer.sendall(b"002hiSSH-2.0\r\n003abc")
        assert conn.recv() == b"hi"
        with pytest.raises(InvalidFrameError, match="SSH"):
            conn.recv()
        assert conn.recv_bytes(9) == b"SSH-2.0\r\n"
        assert conn.recv() == b"abc"


def test_pending_messages_does_not_wait_for_a_thread_in_recv_bytes() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, codec_named("uint")) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(b"\0\1a12")
        assert conn.recv() == b"a"
        assert conn.recv_bytes(1) == b"1"
        thread = threading.Thread(target=conn.recv_bytes, args=[3])
        thread.start()
        while lock_is_free(conn._receiving.lock):
            pass
        assert conn.pending_messages == 0
        peer.sendall(b"34\0\1b")
        thread.join(TIMEOUT)
        assert conn.recv() == b"b"


def test_pending_messages_after_close_parses_nothing() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, codec_named("uint")) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(b"x\0\1a")
        assert conn.recv_bytes(1) == b"x"
        conn.close()
        assert conn.pending_messages == 0


def test_recv_bytes_of_bytes_that_are_skipped_is_refused() -> None:
    codec = Codec.uint(2, max_message_size=10)
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, codec.replace(), on_oversize="skip")
        with conn:
            peer.sendall(b"\0\1a" + b"\0\x0fdis")
            assert conn.recv() == b"a"
            conn.settimeout(0.01)
            with pytest.raises(TimeoutError):
                conn.recv()
            with pytest.raises(RuntimeError, match="on_oversize"):
                conn.recv_bytes(1)
            peer.sendall(b"carded bytes" + b"\0\1b")
            assert conn.recv() == b"b"


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_recv_bytes_and_send_bytes_of_many_bytes(timeout: float | None) -> None:
    data = random.Random(3).randbytes(1_000_000)
    with stream_pair() as (peer, sock):
        codec = Codec.uint(2).replace()
        with FrameSocket(sock, codec) as conn, FrameSocket(peer, codec) as other:
            other.settimeout(timeout)
            conn.settimeout(timeout)

            def send() -> None:
                other.send_bytes(bytearray(data))
                other.send(b"a")
                other.send_bytes(memoryview(b"12345678").cast("I"))
                other.send_bytes(b"")
                other.send(b"b")

            thread = threading.Thread(target=send)
            thread.start()
            assert conn.recv_bytes(len(data)) == data
            assert conn.recv() == b"a"
            assert conn.recv_bytes(8) == b"12345678"
            assert conn.recv() == b"b"
            thread.join(TIMEOUT)


def test_many_small_recv_bytes_take_linear_time_and_memory() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, Codec.uint(1).replace()) as conn:
        peer.sendall(b"\0" + bytes(range(256)) * 16)
        assert conn.recv() == b""
        assert b"".join(conn.recv_bytes(1) for _ in range(4096)) == bytes(range(256)) * 16


def test_send_bytes_keeps_the_order_after_a_held_message() -> None:
    codec = Codec.uint(4).replace()
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(0)
        sent = b""
        while not conn.pending_send:
            with contextlib.suppress(BlockingIOError):
                conn.send(b"x" * 1_000_000)
            sent += codec.encode(b"x" * 1_000_000)
        with pytest.raises(BlockingIOError) as refused:
            conn.send_bytes(b"raw")
        assert refused.value.message_started is False  # type: ignore[attr-defined]
        conn.settimeout(TIMEOUT)
        thread = threading.Thread(target=conn.send_bytes, args=[b"raw"])
        thread.start()
        wire = b""
        while len(wire) < len(sent) + 3:
            wire += peer.recv(1 << 20)
        thread.join(TIMEOUT)
        assert wire == sent + b"raw"


@pytest.mark.parametrize("data", ["text", 5, None, memoryview(b"abcd")[::2]])
def test_send_bytes_refuses_what_has_no_bytes(data: Any) -> None:
    with stream_pair() as (_, sock), FrameSocket(sock) as conn:
        with pytest.raises((TypeError, BufferError)):
            conn.send_bytes(data)
        assert conn.pending_send == 0


@pytest.mark.parametrize("size", [-1, "1", None, 1.0])
def test_recv_bytes_refuses_what_is_no_number_of_bytes(size: Any) -> None:
    with (
        stream_pair() as (_, sock),
        FrameSocket(sock) as conn,
        pytest.raises((TypeError, ValueError)),
    ):
        conn.recv_bytes(size)


@pytest.mark.parametrize(
    ("limit", "arrived", "error"),
    [("message_timeout", b"ab", MessageTimeoutError), ("idle_timeout", b"", IdleTimeoutError)],
)
def test_recv_bytes_obeys_the_limits_of_the_peer(limit: str, arrived: bytes, error: Any) -> None:
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, Codec.uint(1).replace(), **{limit: 0.05})
        with conn:
            peer.sendall(arrived)
            for _ in range(2):
                with pytest.raises(error):
                    conn.recv_bytes(3)


def test_recv_bytes_after_close_raises() -> None:
    with stream_pair() as (_, sock):
        conn = FrameSocket(sock)
        conn.close()
        for call in (lambda: conn.recv_bytes(1), lambda: conn.send_bytes(b"x")):
            with pytest.raises(ConnectionAbortedError, match="closed or detached"):
                call()


def test_close_wakes_a_thread_in_recv_bytes() -> None:
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, Codec.uint(1).replace())
        errors: list[BaseException] = []

        def receive() -> None:
            try:
                conn.recv_bytes(5)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=receive)
        thread.start()
        peer.sendall(b"abc")
        while conn._receiving.inbox.unframed is None and thread.is_alive():
            pass
        conn.close()
        thread.join(TIMEOUT)
        assert [type(error) for error in errors] == [ConnectionAbortedError]


def test_recv_bytes_over_tls() -> None:
    server, client = tls_contexts()
    codec = Codec.uint(2).replace()
    left, right = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(left, server_side=True) as sock, FrameSocket(sock, codec) as conn:
            conn.send(b"hello")
            conn.send_bytes(b"raw" * 50_000)
            conn.send(b"bye")
            assert conn.recv_bytes(3) == b"end"

    thread = threading.Thread(target=serve)
    thread.start()
    sock: ssl.SSLSocket = client.wrap_socket(right, server_hostname="localhost")
    with FrameSocket(sock, codec) as conn:
        assert conn.recv() == b"hello"
        assert conn.recv_bytes(150_000) == b"raw" * 50_000
        assert conn.recv() == b"bye"
        conn.send_bytes(b"end")
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_recv_bytes_loses_nothing_without_an_error_to_an_interruption_at_any_moment() -> None:
    moment, kept = 0, 0
    while True:
        moment += 1
        with stream_pair() as (peer, sock), FrameSocket(sock, Codec.uint(1).replace()) as conn:
            peer.sendall(b"\1a123\1b")
            message = data = None
            with interrupted_at(moment) as passed, contextlib.suppress(Interruption):
                message = conn.recv()
                data = conn.recv_bytes(3)
            if moment > passed[0] or data is not None:
                break
            with contextlib.suppress(ConnectionAbortedError):  # it is lost, and that is said
                _, rest = conn.detach()
                with contextlib.suppress(BlockingIOError):
                    rest += sock.recv(100, socket.MSG_DONTWAIT)
                assert rest == (b"\1a123\1b" if message is None else b"123\1b")
                kept += 1
    assert kept > 10


@needs_signals_to_threads
@pytest.mark.usefixtures("uninterrupted_engine")
@pytest.mark.c_extension
def test_recv_bytes_continues_after_any_signal() -> None:
    rng = random.Random(5)
    pieces = [rng.randbytes(rng.choice([1, 100, 70_000])) for _ in range(30)]
    armed: list[bool] = []
    codec = Codec.uint(2).replace()
    pair = stream_pair()
    with pair as (left, right), FrameSocket(left, codec) as one, FrameSocket(right, codec) as other:

        def send() -> None:
            for piece in pieces:
                one.send_bytes(piece)

        sender = threading.Thread(target=send)
        sender.start()
        with disturbed(armed):
            for piece in pieces:
                data = None
                while data is None:
                    try:
                        armed.append(True)
                        data = other.recv_bytes(len(piece))
                        armed.clear()
                    except Interruption:
                        armed.clear()
                assert data == piece
        sender.join(TIMEOUT)
