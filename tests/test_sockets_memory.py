"""Nothing of a message is held by the connection that delivered it or has sent it completely."""

from __future__ import annotations

import gc
import io
import socket
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from framecodec import Codec, DatagramSocket, FrameSocket
from framecodec.socketserver import FrameRequestHandler
from tests.helpers.fault_injection import TIMEOUT, stream_pair

pytestmark = pytest.mark.usefixtures("engine_in_use")

MIB = 2**20

CODECS = {
    "uint": Codec.uint(4),
    "trailer": Codec.text(b":", trailer=b","),
    "lead": Codec.uint(4, length_offset=1),
    "hexadecimal": Codec.digits(8, base=16),
    "headers": Codec.headers(),
    "custom": Codec.custom(
        lambda view: (2, int.from_bytes(view[:2], "big")) if len(view) > 1 else None,
        lambda message: len(message).to_bytes(2, "big"),
    ),
}
WAYS = ["recv", "recv_many", "iteration", "recv_into", "recv_file"]


def references(message: Any) -> int:
    """How many references there are but for the caller's own."""
    return sys.getrefcount(message) - 3  # the caller's variable, the parameter, the argument


def new_codec(name: str) -> Codec:
    """Made anew, so that it uses the engine of this test."""
    return CODECS[name].replace()


@pytest.mark.parametrize("timeout", [None, TIMEOUT, 0.0])
@pytest.mark.parametrize("way", ["recv", "iteration"])
@pytest.mark.parametrize("name", CODECS)
def test_recv_keeps_no_reference_to_the_message(name: str, way: str, timeout: float | None) -> None:
    codec = new_codec(name)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(timeout)
        peer.sendall(codec.encode_many([b"first", b"second", b"third"]))
        messages = iter(conn)
        for size in (5, 6, 5):
            message = conn.recv() if way == "recv" else next(messages)
            assert len(message) == size
            assert references(message) == 0


@pytest.mark.parametrize("name", CODECS)
def test_recv_many_keeps_no_reference_to_its_messages(name: str) -> None:
    codec = new_codec(name)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        peer.sendall(codec.encode_many([b"first", b"second", b"third"]))
        while conn.pending_messages < 2:
            assert conn.recv() == b"first"
        messages = conn.recv_many()
        assert messages == [b"second", b"third"]
        for message in messages:
            assert references(message) - 1 == 0  # but for the list's


def take(conn: FrameSocket, way: str) -> int:
    """Receive one message and drop it; return its size."""
    if way == "recv":
        return len(conn.recv())
    if way == "recv_many":
        return sum(map(len, conn.recv_many()))
    if way == "recv_into":
        return conn.recv_into(bytearray(5 * MIB))
    if way == "recv_file":
        return conn.recv_file(io.BytesIO())
    return len(next(iter(conn)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["uint", "trailer", "lead", "hexadecimal", "headers"])
def test_frame_socket_is_small_again_after_a_large_message(name: str, way: str) -> None:
    codec = new_codec(name)
    frame = codec.encode(bytes(4 * MIB))
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(TIMEOUT)
        peer.settimeout(TIMEOUT)
        gc.collect()
        tracemalloc.start()
        try:
            thread = threading.Thread(target=peer.sendall, args=[frame])
            thread.start()
            assert take(conn, way) == 4 * MIB
            thread.join(TIMEOUT)
            # The receive buffer and the machinery, and no page of the message.
            assert tracemalloc.get_traced_memory()[0] < MIB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", ["uint", "headers"])
def test_iteration_that_waits_holds_no_message(name: str) -> None:
    codec = new_codec(name)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(0.0)
        peer.sendall(codec.encode(b"a message"))
        messages = iter(conn)
        message = next(messages)
        with pytest.raises(BlockingIOError) as caught:
            next(messages)
        del caught
        assert references(message) == 0


class _Array(bytearray):
    """A bytearray with weak references."""


def sends() -> dict[str, Callable[[FrameSocket, Any], None]]:
    return {
        "send": lambda conn, message: conn.send(message),
        "send_many": lambda conn, message: conn.send_many([b"small", message]),
        "again": lambda conn, message: (conn.send(message), conn.send(b"small"))[0],
    }


@pytest.mark.parametrize("size", [10, 5000, 3 * MIB])
@pytest.mark.parametrize("way", sends())
@pytest.mark.parametrize("name", ["uint", "trailer", "lead", "headers"])
def test_send_keeps_no_reference_to_a_sent_message(name: str, way: str, size: int) -> None:
    codec = new_codec(name)
    for kind in (bytes, _Array):
        message: Any = kind(size)
        watched = None if kind is bytes else weakref.ref(message)
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            reader = threading.Thread(target=read_to_end, args=[peer])
            reader.start()
            sends()[way](conn, message)
            assert conn.pending_send == 0
            assert references(message) == 0
            del message
            assert watched is None or watched() is None
            conn.shutdown(socket.SHUT_WR)
            reader.join(TIMEOUT)


def read_to_end(sock: socket.socket) -> None:
    while sock.recv(1 << 20):
        pass


def test_flush_drops_a_message_after_its_end() -> None:
    message = bytes(8 * MIB)
    with stream_pair() as (peer, sock), FrameSocket(sock, new_codec("uint")) as conn:
        conn.settimeout(0.0)
        with pytest.raises(BlockingIOError) as caught:
            conn.send(message)
        assert caught.value.message_started  # type: ignore[attr-defined]
        del caught
        assert conn.pending_send
        reader = threading.Thread(target=read_to_end, args=[peer])
        reader.start()
        conn.settimeout(TIMEOUT)
        conn.flush()
        assert references(message) == 0
        conn.shutdown(socket.SHUT_WR)
        reader.join(TIMEOUT)


def test_close_drops_the_frames_of_the_failure() -> None:
    def receive(conn: FrameSocket) -> weakref.ref[_Array]:
        seen = _Array(10)
        try:  # pytest.raises() would make a cycle
            conn.recv()
        except EOFError:
            return weakref.ref(seen)
        raise AssertionError("there was no end")

    with stream_pair() as (peer, sock), FrameSocket(sock, new_codec("uint")) as conn:
        peer.close()
        gc.collect()
        gc.disable()
        try:
            seen = receive(conn)
            conn.close()
            assert seen() is None
        finally:
            gc.enable()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
@pytest.mark.parametrize("codec", [None, Codec.uint(2)])
@pytest.mark.parametrize("way", ["recv", "recv_from", "recv_many", "iteration"])
def test_datagram_socket_keeps_no_delivered_datagram(codec: Codec | None, way: str) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, DatagramSocket(right, codec and codec.replace()) as conn:
        conn.settimeout(TIMEOUT)
        left.send(codec.encode_many([b"one", b"two"]) if codec else b"one")
        message = {
            "recv": conn.recv,
            "recv_from": lambda: conn.recv_from()[0],
            "recv_many": lambda: conn.recv_many()[0],
            "iteration": lambda: next(iter(conn)),
        }[way]()
        assert message == b"one"
        assert references(message) == 0
        if codec and way != "recv_many":
            assert conn.pending_messages == 1


def test_frame_request_handler_does_not_hold_the_last_message() -> None:
    held: list[int] = []
    seen: list[int] = []

    class Frames:
        """As a connection that gives two messages."""

        def __iter__(self) -> Any:
            message = b"a message".upper()
            seen.append(id(message))
            yield message
            held.append(references(message))

        def send(self, reply: bytes) -> None:
            seen.append(len(reply))

    class Handler(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            return message

    handler = Handler.__new__(Handler)
    handler.frames = Frames()  # type: ignore[assignment]
    handler.handle()
    assert len(seen) == 2
    assert held == [0]
