"""A codec whose `parse` looks further than the header, and one whose `parse` fails, on a socket."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest

from framecodec import Codec, FrameSocket, InvalidFrameError
from tests.helpers.fault_injection import TIMEOUT, Interruption, stream_pair

pytestmark = pytest.mark.usefixtures("engine_in_use")


def parse_with_longest(view: memoryview) -> tuple[int, int, bytes] | None:
    """Wait for the longest header, then decide: 8 bytes after a 1, else 4 with a lead of 1."""
    if len(view) < 8:
        return None
    if view[0] == 1:
        return 8, int.from_bytes(view[1:8], "big"), b""
    return 4, int.from_bytes(view[1:4], "big"), bytes(view[:1])


def build_short(message: memoryview) -> tuple[bytes, int]:
    return bytes(message[:1]) + (len(message) - 1).to_bytes(3, "big"), 1


def looking_ahead(**options: Any) -> Codec:
    return Codec.custom(parse_with_longest, build_short, max_header=8, **options)


LARGE = b"\0" + bytes(range(250)) * 800
MESSAGES = [b"\0next", b"\2" + b"x" * 7, b"\0" + b"the end"]

PIECES = [[], [10], [1] * 12, [3, 3, 3, 3], [7, 1, 1, 1], [100_000]]


def receive_last(conn: FrameSocket, way: str, file: io.BytesIO, buffer: bytearray) -> bytes | None:
    """Receive; None where the call would block."""
    with contextlib.suppress(BlockingIOError):
        if way == "recv":
            return conn.recv()  # type: ignore[no-any-return]
        if way == "file":
            conn.recv_file(file)
            return file.getvalue()
        return bytes(buffer[: conn.recv_into(buffer)])
    return None


@pytest.mark.parametrize("trailer", [b"", b"END"])
@pytest.mark.parametrize("magic", [b"", b"MAGIC"])
@pytest.mark.parametrize("message", [LARGE, b"\0small one"])
@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("way", ["recv", "file", "buffer"])
def test_recv_gives_surplus_bytes_back_for_every_chunking(
    way: str, pieces: list[int], message: bytes, magic: bytes, trailer: bytes
) -> None:
    codec = looking_ahead(magic=magic, trailer=trailer)
    wire = codec.encode_many([message, *MESSAGES])
    file, buffer = io.BytesIO(), bytearray(len(message))
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(0.0)
        found, position = None, 0
        for size in pieces:
            peer.sendall(wire[position : position + size])
            position += size
            if found is None:
                found = receive_last(conn, way, file, buffer)
        peer.settimeout(TIMEOUT)
        peer.sendall(wire[position:])
        conn.settimeout(TIMEOUT)
        if found is None:
            found = receive_last(conn, way, file, buffer)
        assert found == message
        assert [conn.recv() for _ in MESSAGES] == MESSAGES


@pytest.mark.parametrize("missing", [1, 2, 100_000])
def test_recv_into_keeps_a_message_whose_lead_makes_it_too_large(missing: int) -> None:
    """Only the bytes after the header say that its lead makes the message too large."""
    codec = looking_ahead()
    wire = codec.encode_many([LARGE, *MESSAGES])
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(TIMEOUT)
        peer.settimeout(TIMEOUT)
        peer.sendall(wire[:20])
        for _ in range(2):
            with pytest.raises(ValueError, match=f"{len(LARGE)} bytes|{len(LARGE) - 1} bytes"):
                conn.recv_into(bytearray(len(LARGE) - missing))
        peer.sendall(wire[20:])
        assert conn.recv() == LARGE
        assert [conn.recv() for _ in MESSAGES] == MESSAGES


def test_detach_returns_bytes_that_parse_looked_at() -> None:
    codec = looking_ahead()
    wire = codec.encode_many([*MESSAGES, LARGE])
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(wire[:40])
        assert conn.recv() == MESSAGES[0]
        detached, unread = conn.detach()
        with detached:
            assert codec.encode(MESSAGES[0]) + unread == wire[:40]


# --- a parse that fails ---------------------------------------------------------------------------


class Parse:
    """A parse function of one length byte that raises at its nth call."""

    def __init__(self, moment: int, raised: BaseException) -> None:
        self.moment, self.raised, self.calls = moment, raised, 0

    def __call__(self, view: memoryview) -> tuple[int, int] | None:
        self.calls += 1
        if self.calls == self.moment:
            raise self.raised
        return 1, view[0]


def build_byte(message: memoryview) -> bytes:
    return bytes([len(message)])


@pytest.mark.parametrize("method", ["recv", "recv_many", "iteration"])
@pytest.mark.parametrize("kind", [Interruption, KeyboardInterrupt, MemoryError, ValueError])
def test_recv_loses_no_message_if_parse_raises(kind: type[BaseException], method: str) -> None:
    sent = [b"one", b"two", b"three", b"four"]
    moment, failures = 0, 1
    while failures:
        moment += 1
        parse = Parse(moment, kind())
        codec = Codec.custom(parse, build_byte)
        messages: list[bytes] = []
        failures = 0
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(TIMEOUT)
            peer.sendall(codec.encode_many(sent))
            peer.shutdown(1)
            while len(messages) < len(sent) and failures < 5:
                try:
                    if method == "recv":
                        messages.append(conn.recv())
                    elif method == "recv_many":
                        messages += conn.recv_many()
                    else:
                        messages.append(next(iter(conn)))
                except (Interruption, KeyboardInterrupt, MemoryError, InvalidFrameError):
                    failures += 1
                except (EOFError, StopIteration, ConnectionAbortedError):
                    failures = 5
        # What was delivered is a beginning of what was sent; where something is missing, a call
        # has raised.
        assert messages == sent[: len(messages)]
        assert failures or messages == sent
        assert moment < 100
    assert moment > 4
    assert messages == sent


class Liar:
    """A parse function of one length byte that calls a frame empty when it sees it once more."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def __call__(self, view: memoryview) -> tuple[int, int] | None:
        data = bytes(view)
        again = data in self.seen
        self.seen.add(data)
        return 1, 0 if again else view[0]


def test_recv_asks_parse_once_for_each_frame() -> None:
    codec = Codec.custom(Liar(), build_byte)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(codec.encode_many([b"one", b"three"]))
        assert [conn.recv(), conn.recv()] == [b"one", b"three"]


def test_detach_fails_if_parse_changes_its_answer() -> None:
    codec = Codec.custom(Liar(), build_byte)
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(codec.encode_many([b"one", b"three"]))
        assert conn.recv() == b"one"
        with pytest.raises(InvalidFrameError, match="parse"):
            conn.detach()
