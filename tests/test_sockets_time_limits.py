"""Time limits for the peer: for one message, and for the quiet between two messages."""

# ruff: noqa: SIM117

from __future__ import annotations

import io
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from framecodec import Codec, FrameSocket
from framecodec.errors import IdleTimeoutError, MessageTimeoutError
from tests.helpers.fault_injection import TIMEOUT, stream_pair

pytestmark = pytest.mark.usefixtures("engine_in_use")

CODEC = Codec.uint(2)


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("sent", [1, 2, 4])
def test_message_timeout_cuts_off_a_peer_that_stops_inside_a_message(
    sent: int, timeout: float | None
) -> None:
    frame = CODEC.encode(b"hello")
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, CODEC, message_timeout=0.03)
        with conn:
            conn.settimeout(timeout)
            peer.sendall(frame + frame[:sent])
            assert conn.recv() == b"hello"
            for _ in range(2):
                with pytest.raises(MessageTimeoutError, match=f"{sent} (of 7 )?bytes") as caught:
                    conn.recv()
            assert caught.value.stream_offset == len(frame)
            assert caught.value.timeout == 0.03


def test_message_timeout_cuts_off_a_peer_that_drips() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, CODEC, message_timeout=0.1) as conn:
        conn.settimeout(TIMEOUT)
        stop = threading.Event()

        def drip() -> None:
            peer.sendall(b"\xff\xff")
            while not stop.wait(0.01):
                peer.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(MessageTimeoutError):
                conn.recv()
        finally:
            stop.set()
            thread.join(TIMEOUT)


def test_message_timeout_does_not_count_time_between_calls() -> None:
    large = bytes(1_000_000)  # more than the kernel holds
    codec = Codec.uint(4)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec, message_timeout=0.1) as conn:
        conn.settimeout(TIMEOUT)
        thread = threading.Thread(
            target=peer.sendall, args=(codec.encode_many([b"small", large]),), daemon=True
        )
        thread.start()
        assert conn.recv() == b"small"
        time.sleep(0.3)
        assert conn.recv() == large
        thread.join(TIMEOUT)


def test_message_timeout_does_not_count_between_messages() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, CODEC, message_timeout=0.01) as conn:
        conn.settimeout(0.05)
        for _ in range(2):
            with pytest.raises(TimeoutError) as caught:
                conn.recv()
            assert not isinstance(caught.value, MessageTimeoutError)
        peer.sendall(CODEC.encode(b"late"))
        assert conn.recv() == b"late"


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_idle_timeout_cuts_off_a_quiet_peer(timeout: float | None) -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, CODEC, idle_timeout=0.03) as conn:
        conn.settimeout(timeout)
        peer.sendall(CODEC.encode(b"hello"))
        assert conn.recv() == b"hello"
        for receive in (conn.recv, conn.recv_many, lambda: next(iter(conn))):
            with pytest.raises(IdleTimeoutError) as caught:
                receive()
            assert caught.value.stream_offset == 7
        assert isinstance(caught.value, TimeoutError)
        conn.send(b"goodbye")  # sending is not hurt
        assert peer.recv(100) == CODEC.encode(b"goodbye")


def test_seconds_left_is_the_time_out_for_a_selector() -> None:
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, CODEC, message_timeout=0.03, idle_timeout=TIMEOUT)
        with conn:
            conn.setblocking(False)
            left = conn.seconds_left
            assert left is not None
            assert 0 < left <= TIMEOUT
            peer.sendall(b"\0")
            with pytest.raises(BlockingIOError):
                conn.recv()
            left = conn.seconds_left
            assert left is not None
            assert 0 <= left <= 0.03
            while conn.seconds_left:
                select.select([conn], [], [], conn.seconds_left)
            with pytest.raises(MessageTimeoutError):
                conn.recv()
    with stream_pair() as (_, sock), FrameSocket(sock, CODEC) as conn:
        assert conn.seconds_left is None


@pytest.mark.parametrize("way", ["file", "buffer"])
def test_message_timeout_holds_for_recv_file_and_recv_into(way: str) -> None:
    codec = Codec.uint(4)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec, message_timeout=0.05) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(codec.encode(bytes(200_000))[:100_000])
        target: Any = io.BytesIO() if way == "file" else bytearray(200_000)
        with pytest.raises(MessageTimeoutError) as caught:
            conn.recv_file(target) if way == "file" else conn.recv_into(target)
        assert caught.value.stream_offset == 0
        with pytest.raises(MessageTimeoutError):
            conn.recv()


def test_listen_and_connect_take_time_limits() -> None:
    from framecodec import connect, listen

    with listen(("127.0.0.1", 0), idle_timeout=0.03) as listener:
        with connect(listener.address, timeout=TIMEOUT) as one, listener.accept() as other:
            with pytest.raises(IdleTimeoutError):
                other.recv()
            one.send(b"too late")
            with pytest.raises(IdleTimeoutError):
                other.recv()


def test_idle_timeout_adds_up_over_several_calls_and_not_between_them() -> None:
    with stream_pair() as (_, sock), FrameSocket(sock, CODEC, idle_timeout=0.3) as conn:
        conn.settimeout(0.125)
        for _ in range(2):
            with pytest.raises(TimeoutError, match="nothing is lost"):
                conn.recv()
            time.sleep(0.2)  # time in which no call receives does not count
        with pytest.raises(IdleTimeoutError):
            conn.recv()


def test_message_timeout_adds_up_over_several_calls_and_not_between_them() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, CODEC, message_timeout=0.3) as conn:
        conn.settimeout(0.125)
        peer.sendall(b"\0")
        for _ in range(2):
            with pytest.raises(TimeoutError, match="nothing is lost"):
                conn.recv()
            time.sleep(0.2)
        with pytest.raises(MessageTimeoutError):
            conn.recv()


class HeldUp(socket.socket):
    """A socket after whose first receive the program is held up, until its peer has sent the rest.

    It gives at most as many bytes at a time as `piece`.
    """

    piece = 6
    after_first: Callable[[], None] | None = None

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        with memoryview(buffer) as view:
            count = super().recv_into(view[: self.piece], 0, flags)
        if self.after_first is not None:
            after_first, self.after_first, self.piece = self.after_first, None, 10_000
            after_first()
        return count


@pytest.mark.parametrize("way", ["recv", "file", "buffer"])
def test_message_timeout_reads_what_the_kernel_holds_before_it_decides(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Codec.uint(4)
    now = [1000.0]

    def clock() -> float:
        now[0] += 0.004
        return now[0]

    for name in ("receiving", "wire", "waiting"):
        monkeypatch.setattr(f"framecodec.sockets.{name}.monotonic", clock)
    message = bytes(range(250)) * 600
    wire = codec.encode(message)
    with stream_pair() as (peer, sock):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        held_up = HeldUp(sock.family, sock.type, sock.proto, sock.detach())
        with FrameSocket(held_up, codec, message_timeout=0.1) as conn:

            def hold_up() -> None:
                peer.sendall(wire[6:])
                now[0] += 10.0

            held_up.after_first = hold_up
            peer.sendall(wire[:6])
            file, buffer = io.BytesIO(), bytearray(len(message))
            if way == "recv":
                received = conn.recv()
            elif way == "file":
                conn.recv_file(file)
                received = file.getvalue()
            else:
                conn.recv_into(buffer)
                received = bytes(buffer)
            assert received == message


def test_seconds_left_runs_while_the_caller_waits_in_a_selector() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, CODEC, message_timeout=0.1) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(CODEC.encode(b"one") + b"\0")
        assert conn.recv() == b"one"
        assert 0 < (conn.seconds_left or 0) <= 0.1
        for _ in range(1000):
            if not conn.seconds_left:
                break
            select.select([conn], [], [], conn.seconds_left)
        with pytest.raises(MessageTimeoutError):
            conn.recv()
