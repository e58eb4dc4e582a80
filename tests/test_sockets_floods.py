"""A peer that never pauses: deadlines, limits and signal handlers hold all the same.

No time is measured here: a flood ends by itself after `FLOOD` bytes, in an error that fails the
test.
"""

from __future__ import annotations

import contextlib
import io
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from framecodec import Codec, FrameSocket
from framecodec.errors import MessageTimeoutError
from framecodec.sockets import wire as wire_module
from tests.helpers.fault_injection import TIMEOUT, FaultySocket, Interruption, stream_pair

pytestmark = pytest.mark.usefixtures("engine_in_use")

CODECS = {
    "uint": Codec.uint(8, max_message_size=1000),
    "netstring": Codec.text(b":", trailer=b",", max_message_size=1000),
    "hexadecimal": Codec.digits(12, base=16, max_message_size=1000),
}
FLOOD = 2**30
KINDS = ["large", "small"]
HEADERS = {
    "uint": FLOOD.to_bytes(8, "big"),
    "netstring": b"%d:" % FLOOD,
    "hexadecimal": b"%012x" % FLOOD,
}


@contextlib.contextmanager
def flooded(name: str, kind: str = "large", **options: Any) -> Iterator[FrameSocket]:
    """A connection whose peer sends without end what is skipped as it comes: one message, or small
    ones. Those take longer to skip than to send, so that the socket always has bytes."""
    codec = CODECS[name].replace()
    if kind == "small":
        codec = codec.replace(max_message_size=0)
        first, size, chunk = (
            b"",
            FLOOD // 8,
            codec.replace(max_message_size=1).encode(b"x") * 10_000,
        )
    else:
        first, size, chunk = HEADERS[name], FLOOD, bytes(1 << 18)
    with stream_pair() as (peer, sock):

        def flood() -> None:
            with contextlib.suppress(OSError):
                peer.sendall(first)
                for _ in range(size // len(chunk)):
                    peer.sendall(chunk)
            peer.close()

        thread = threading.Thread(target=flood)
        with FrameSocket(sock, codec, on_oversize="skip", **options) as conn:
            thread.start()
            yield conn
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def call(conn: FrameSocket, method: str) -> Any:
    if method == "iteration":
        return next(iter(conn))
    return getattr(conn, method)()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind"),
    [("recv", "large"), ("recv_many", "large"), ("iteration", "large"), ("recv", "small")],
)
@pytest.mark.parametrize("name", CODECS)
def test_recv_keeps_its_time_out_in_a_flood(name: str, method: str, kind: str) -> None:
    with flooded(name, kind) as conn:
        conn.settimeout(0.05)
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
                call(conn, method)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CODECS)
def test_recv_without_waiting_returns_in_a_flood(name: str, kind: str) -> None:
    with flooded(name, kind) as conn:
        conn.setblocking(False)
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                conn.recv()


@pytest.mark.parametrize("timeout", [None, TIMEOUT, 0.0])
@pytest.mark.parametrize("name", CODECS)
def test_message_timeout_holds_in_a_flood(name: str, timeout: float | None) -> None:
    with flooded(name, message_timeout=0.05) as conn:
        conn.settimeout(timeout)
        for _ in range(2):
            with pytest.raises(MessageTimeoutError):
                until_it_would_not_block(conn)


def test_recv_keeps_its_time_out_while_bytes_arrive_in_every_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire_module, "LONGEST_TURN", 0.0)  # each turn ends after two receives
    codec = Codec.text(b":", trailer=b",").replace()
    message = bytes(10_000)
    frame = codec.encode(message)
    with stream_pair() as (peer, sock), FrameSocket(FaultySocket(sock), codec) as conn:
        conn.read_ahead = False  # a header is received byte by byte
        peer.sendall(frame[:5])
        conn.settimeout(1e-9)
        with pytest.raises(TimeoutError, match="2 bytes of a frame"):
            conn.recv()
        conn.settimeout(TIMEOUT)
        peer.sendall(frame[5:])
        assert conn.recv() == message


def until_it_would_not_block(conn: FrameSocket) -> None:
    for _ in range(100_000):
        with contextlib.suppress(BlockingIOError):
            conn.recv()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CODECS)
def test_recv_lets_signal_handlers_run_in_a_flood(
    name: str, kind: str, timeout: float | None
) -> None:
    runs: list[None] = []

    def handle(*_: object) -> None:
        runs.append(None)
        if len(runs) == 3:
            raise Interruption

    with flooded(name, kind) as conn:
        conn.settimeout(timeout)
        before = signal.signal(signal.SIGALRM, handle)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            with pytest.raises(Interruption):
                conn.recv()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class Endless(socket.socket):
    """A socket that always has bytes, without a peer: of a message of `size`, in small pieces."""

    size = 2**29
    first = size.to_bytes(4, "big")

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        piece, self.first = self.first or bytes(min(1000, len(buffer))), b""
        with memoryview(buffer) as view:
            view[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("way", ["file", "buffer"])
def test_message_timeout_holds_for_recv_file_in_a_flood(way: str) -> None:
    codec = Codec.uint(4, max_message_size=2**30)
    with stream_pair() as (peer, sock):
        endless = Endless(sock.family, sock.type, sock.proto, sock.detach())
        with FrameSocket(endless, codec, message_timeout=0.05) as conn:
            conn.settimeout(TIMEOUT)
            target: Any = io.BytesIO() if way == "file" else bytearray(Endless.size)
            with pytest.raises(MessageTimeoutError) as caught:
                conn.recv_file(target) if way == "file" else conn.recv_into(target)
            with pytest.raises(MessageTimeoutError) as again:
                conn.recv()
            assert again.value is caught.value
        peer.close()


class Zeros(io.RawIOBase):
    """A file of zeros that is not a file of the system's."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return len(buffer)


def test_send_file_keeps_its_time_out_if_the_peer_takes_everything() -> None:
    codec = Codec.uint(8, max_message_size=None)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(0.03)

        def drain() -> None:
            with contextlib.suppress(OSError):
                while peer.recv(1 << 20):
                    pass

        thread = threading.Thread(target=drain)
        thread.start()
        with pytest.raises(TimeoutError) as caught:
            conn.send_file(Zeros(), 2**30)
        assert caught.value.message_started  # type: ignore[attr-defined]
        assert conn.pending_send
        conn.close()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
