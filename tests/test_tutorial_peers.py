"""Peers that know nothing of framecodec: the code that tutorials show for sticky packets.

They send the length and the message by two calls of `sendall`, and receive by ``recv(header size)``
and ``recv(n)``. The length is ``str(len(m)).zfill(4)`` or ``struct.pack("i", n)``. Each of them
talks with a `FrameSocket`, in both directions and both roles.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from framecodec import Codec
from framecodec.sockets import FrameSocket, connect, listen

TIMEOUT = 10.0  # seconds

MESSAGES = [b"hello", b"byebye", "你好".encode(), b"", b"x" * 3000, b"0005hello"]


# --- the tutorials' code, unchanged ---------------------------------------------------------------


def send_with_digits(conn: socket.socket, message: bytes) -> None:
    conn.sendall(str(len(message)).zfill(4).encode())
    conn.sendall(message)


def recv_with_digits(conn: socket.socket) -> bytes:
    size = int(conn.recv(4).decode())
    return conn.recv(size)


def send_with_struct(conn: socket.socket, message: bytes) -> None:
    conn.sendall(struct.pack("i", len(message)))
    conn.sendall(message)


def recv_with_struct(conn: socket.socket) -> bytes:
    size = struct.unpack("i", conn.recv(4))[0]
    return conn.recv(size)


TUTORIALS = [
    pytest.param(send_with_digits, recv_with_digits, Codec.digits(4), id="zfill"),
    pytest.param(send_with_struct, recv_with_struct, Codec.struct("i"), id="struct"),
]
Send = Callable[[socket.socket, bytes], None]
Recv = Callable[[socket.socket], bytes]


# --- both ends ------------------------------------------------------------------------------------


@pytest.fixture
def in_background() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs the other end in a thread; at the end of the test it has ended, and without an error."""
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []

    def start(work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


Background = Callable[[Callable[[], None]], None]


@pytest.mark.parametrize(("send", "recv", "codec"), TUTORIALS)
def test_a_tutorial_server_talks_with_a_framecodec_client(
    send: Send, recv: Recv, codec: Codec, in_background: Background
) -> None:
    answers = []

    def serve() -> None:
        conn, _ = listener.accept()
        with conn:
            conn.settimeout(TIMEOUT)
            for message in MESSAGES:
                send(conn, message)
            for _ in MESSAGES:
                answers.append(recv(conn))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        in_background(serve)
        with connect(listener.getsockname(), codec, timeout=TIMEOUT) as client:
            received = [client.recv() for _ in MESSAGES]
            client.send_many(MESSAGES)
            with pytest.raises(EOFError):
                client.recv()
    assert received == answers == MESSAGES


@pytest.mark.parametrize(("send", "recv", "codec"), TUTORIALS)
def test_a_tutorial_client_talks_with_a_framecodec_server(
    send: Send, recv: Recv, codec: Codec, in_background: Background
) -> None:
    received = []

    def serve() -> None:
        with listener.accept() as conn:
            conn.settimeout(TIMEOUT)
            for message in conn:
                received.append(message)
                conn.send(message)

    with listen(("127.0.0.1", 0), codec) as listener:
        in_background(serve)
        with socket.create_connection(listener.address, TIMEOUT) as client:
            echoes = []
            for message in MESSAGES:
                send(client, message)
                echoes.append(recv(client))
    assert echoes == received == MESSAGES


@pytest.mark.parametrize(("send", "recv", "codec"), TUTORIALS)
def test_two_sends_without_a_pause_arrive_as_two_messages(
    send: Send, recv: Recv, codec: Codec
) -> None:
    ours, theirs = socket.socketpair()
    with theirs, FrameSocket(ours, codec) as frames:
        frames.settimeout(TIMEOUT)
        send(theirs, b"hello")
        send(theirs, b"byebye")
        theirs.shutdown(socket.SHUT_WR)
        assert list(frames) == [b"hello", b"byebye"]


@pytest.mark.parametrize(("send", "recv", "codec"), TUTORIALS)
def test_a_message_larger_than_the_tutorials_recv_gives_arrives_whole(
    send: Send, recv: Recv, codec: Codec, in_background: Background
) -> None:
    # Where the tutorial's own recv(n) would come back with a part of it.
    large = bytes(range(256)) * (39 if codec.kind == "digits" else 8000)

    def serve() -> None:
        conn, _ = listener.accept()
        with conn:
            conn.settimeout(TIMEOUT)
            send(conn, large)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        in_background(serve)
        with connect(listener.getsockname(), codec, timeout=TIMEOUT) as client:
            assert list(client) == [large]
