"""`switch` of `FrameSocket` and `FramePipe`: another codec both ways, and no byte is lost."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from framecodec import Codec, FramePipe, FrameSocket, InvalidFrameError
from tests.helpers.event_loops import tls_contexts

pytestmark = pytest.mark.usefixtures("engine_in_use")

# Version 2 of the PROXY protocol, and the message of a header: command, family, addresses, ports.
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER = b"\x21\x11" + bytes((192, 0, 2, 1, 192, 0, 2, 2)) + b"\x13\x88\x00\x19"


def uint(width: int, **options: Any) -> Codec:
    return Codec.uint(width, **options)  # made in the test, so that it uses the test's engine


def proxy() -> Codec:
    return Codec.uint(2, magic=SIGNATURE, length_offset=14)


Connect: TypeAlias = Callable[..., tuple[Any, socket.socket]]


@pytest.fixture(params=["socket", "pipe"])
def connected(request: pytest.FixtureRequest) -> Connect:
    """What makes a connection, and the socket of its peer."""

    def connect(codec: Codec, **options: Any) -> tuple[Any, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        theirs.settimeout(10)
        if request.param == "socket":
            return FrameSocket(ours, codec, **options), theirs
        ours.setblocking(True)
        conn = FramePipe(os.fdopen(ours.detach(), "r+b", 0), codec=codec, **options)
        conn.settimeout(10)
        return conn, theirs

    return connect


@pytest.mark.parametrize("options", [{}, {"read_ahead": False}, {"message_timeout": 10}])
def test_switch_reads_a_proxy_header_and_frames_in_one_segment(
    connected: Connect, options: Any
) -> None:
    conn, peer = connected(proxy(), **options)
    with conn, peer:
        peer.sendall(proxy().encode(HEADER) + b"\0\1a\0\2bb\0")
        assert conn.recv() == HEADER
        conn.switch(uint(2))
        assert conn.codec == uint(2)
        assert conn.recv_many()[0] == b"a"
        peer.sendall(b"\1c")
        while (message := conn.recv()) != b"c":
            assert message == b"bb"


@pytest.mark.parametrize("first", ["uint", "hexadecimal", "headers"])
def test_switch_reads_messages_that_were_not_delivered_again(
    connected: Connect, first: str
) -> None:
    codec, start, rest = {
        "uint": (uint(1), b"\1a", b"\0\1b\0\2cc"),
        "hexadecimal": (Codec.digits(2, base=16), b"01a", b"0A0123456789\x00\x001"),
        "headers": (Codec.headers("L"), b"L: 1\r\n\r\na", b"l:2\r\nX: y\r\n\r\nbbl: 1\r\n"),
    }[first]
    conn, peer = connected(codec)
    with conn, peer:
        peer.sendall(start + rest)
        assert conn.recv() == b"a"
        conn.switch(Codec.fixed(len(rest)))
        assert conn.recv() == rest
        assert conn._receiving.inbox.splitter.stream_offset == len(start + rest)


def test_switch_forgets_an_error_that_was_raised(connected: Connect) -> None:
    conn, peer = connected(Codec.text(trailer=b","))
    with conn, peer:
        peer.sendall(b"1:a,\0\1b\0\2c")
        assert conn.recv() == b"a"
        for _ in range(2):
            with pytest.raises(InvalidFrameError):
                conn.recv()
        conn.switch(uint(2))
        assert conn.recv() == b"b"
        peer.sendall(b"c")
        assert conn.recv() == b"cc"


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("observed", [True, False])
def test_switch_short_of_memory_changes_nothing(
    connected: Connect, observed: bool, again: bool
) -> None:
    shortages = [MemoryError(), MemoryError()]

    def parse(view: memoryview) -> tuple[int, int]:
        if shortages:
            raise shortages.pop()
        return 1, view[0] - 1

    custom = Codec.custom(parse, lambda message: bytes([len(message) + 1]), max_header=1)
    events: list[Any] = []
    options: dict[str, Any] = {}
    if observed:
        options["observer"] = SimpleNamespace(
            frame_received=lambda conn, *frame: events.append(frame)
        )
    conn, peer = connected(uint(1), **options)
    with conn, peer:
        peer.sendall(b"\1a\2bb\1c")
        assert conn.recv() == b"a"
        for _ in range(2):
            with pytest.raises(MemoryError):
                conn.switch(custom)
            assert conn.codec == uint(1)
        if again:
            conn.switch(custom)
            assert conn.recv_many()[0] == b"b"
            assert conn.codec == custom
        else:
            assert [conn.recv(), conn.recv()] == [b"bb", b"c"]
            assert len(events) == (3 if observed else 0)


def test_recv_after_a_switch_raises_what_the_new_codec_finds(connected: Connect) -> None:
    conn, peer = connected(uint(1))
    with conn, peer:
        peer.sendall(b"\1a\5x")
        assert conn.recv() == b"a"
        conn.switch(Codec.digits(2))
        for _ in range(2):
            with pytest.raises(InvalidFrameError) as caught:
                conn.recv()
            assert caught.value.stream_offset == 2


def test_switch_after_the_end_of_the_stream_finds_the_end_again(connected: Connect) -> None:
    conn, peer = connected(uint(1))
    with conn:
        peer.sendall(b"\1a\5bb")
        peer.close()
        assert conn.recv() == b"a"
        with pytest.raises(EOFError):
            conn.recv()
        conn.switch(Codec.fixed(3))
        assert conn.recv() == b"\5bb"
        with pytest.raises(EOFError, match="last frame was whole"):
            conn.recv()


def test_switch_changes_the_framing_of_what_is_sent_after_it(connected: Connect) -> None:
    conn, peer = connected(uint(4))
    with conn, peer:
        conn.settimeout(0)
        large = bytes(10_000_000)
        with pytest.raises(BlockingIOError):
            conn.send(large)
        assert conn.pending_send
        conn.switch(Codec.digits(4))

        def finish() -> None:
            conn.settimeout(30)
            conn.send(b"small")
            conn.send_many([b"a", bytes(5000)])

        thread = threading.Thread(target=finish)
        thread.start()
        expected = b"0005small0001a5000" + bytes(5000)
        received = bytearray()
        while len(received) < 4 + len(large) + len(expected):
            received += peer.recv(1 << 20)
        thread.join()
        assert received[-len(expected) :] == expected


def test_switch_changes_the_framing_of_small_messages(connected: Connect) -> None:
    conn, peer = connected(uint(2))
    with conn, peer:
        conn.send(b"old")
        conn.switch(uint(1))
        conn.send(b"new")
        assert peer.recv(100) == b"\0\3old\3new"


def test_switch_inside_a_skipped_frame_raises(connected: Connect) -> None:
    conn, peer = connected(uint(1, max_message_size=3), on_oversize="skip")
    with conn, peer:
        peer.sendall(b"\1a\5bb")
        assert conn.recv() == b"a"
        with pytest.raises(RuntimeError, match="too large"):
            conn.switch(uint(2))
        peer.sendall(b"bbb\1c")
        assert conn.recv() == b"c"


def test_switch_while_a_message_is_half_received_raises(connected: Connect) -> None:
    conn, peer = connected(uint(4))
    with conn, peer:
        conn.settimeout(0.05)
        peer.sendall(uint(4).encode(bytes(200_000))[:100_000])
        buffer = bytearray(200_000)
        with pytest.raises(TimeoutError):
            conn.recv_into(buffer)
        with pytest.raises(RuntimeError, match="half received"):
            conn.switch(uint(2))
        peer.sendall(uint(4).encode(bytes(200_000))[100_000:])
        conn.settimeout(10)
        assert conn.recv_into(buffer) == 200_000


def test_switch_refuses_what_is_no_codec_and_a_closed_connection(connected: Connect) -> None:
    conn, peer = connected(uint(1))
    with peer:
        with pytest.raises(TypeError, match="codec must be a"):
            conn.switch("u8")  # type: ignore[arg-type]
        peer.sendall(b"\1a")
        assert conn.recv() == b"a"
        conn.close()
        with pytest.raises(OSError, match="closed"):
            conn.switch(uint(2))


def test_switch_tells_an_observer_of_the_frames_of_both_codecs(connected: Connect) -> None:
    class Observer:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def frame_received(self, conn: Any, size: int) -> None:
            self.sizes.append(size)

        def frame_sent(self, conn: Any, size: int) -> None:
            self.sizes.append(-size)

    observer = Observer()
    conn, peer = connected(uint(1), observer=observer)
    with conn, peer:
        peer.sendall(b"\1a\0\3bbb")
        assert conn.recv() == b"a"
        conn.send(b"x")
        conn.switch(uint(2))
        conn.send(b"x")
        assert conn.recv() == b"bbb"
        assert observer.sizes[-2:] == [5, -3]
        assert [size for size in observer.sizes if size < 0] == [-2, -3]


def test_a_proxy_header_before_tls_leaves_the_hello_in_the_kernel() -> None:
    server_side, client_side = tls_contexts()
    ours, peer = socket.socketpair()
    conn = FrameSocket(ours, proxy(), read_ahead=False)
    result: list[Any] = []

    def client() -> None:
        bridge_in, bridge_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_side.wrap_bio(bridge_in, bridge_out, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        peer.sendall(proxy().encode(HEADER) + bridge_out.read())  # one segment
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                bridge_in.write(peer.recv(1 << 16))
        tls.write(uint(2).encode(b"hello"))
        peer.sendall(bridge_out.read())
        result.append("done")

    thread = threading.Thread(target=client)
    thread.start()
    assert conn.recv() == HEADER
    sock, unread = conn.detach()
    assert unread == b""
    with FrameSocket(server_side.wrap_socket(sock, server_side=True), uint(2)) as encrypted:
        assert encrypted.recv() == b"hello"
    thread.join()
    assert result == ["done"]
    peer.close()


@pytest.mark.parametrize("observed", [False, True])
def test_switch_to_a_codec_with_objects_and_back(connected: Connect, observed: bool) -> None:
    class Events(list[tuple[str, int]]):
        def frame_received(self, _conn: Any, size: int) -> None:
            self.append(("received", size))

        def frame_sent(self, _conn: Any, size: int) -> None:
            self.append(("sent", size))

    events = Events()
    conn, peer = connected(uint(2), observer=events if observed else None)
    with conn, peer:
        peer.sendall(uint(2).encode(b"go") + uint(1).encode(b"[1,2]") + uint(2).encode(b"end"))
        assert conn.recv() == b"go"
        conn.switch(uint(1).as_json())
        conn.send({"a": 1})
        assert conn.recv() == [1, 2]
        conn.switch(uint(2))
        assert conn.recv() == b"end"
        conn.send(b"raw")
        sent = uint(1).encode(b'{"a":1}') + uint(2).encode(b"raw")
        found = b""
        while len(found) < len(sent):
            found += peer.recv(100)
        assert found == sent
    if observed:
        assert [event for event in events if event[0] == "sent"] == [("sent", 8), ("sent", 5)]
        # The frames that were read again with another codec are told again.
        assert events[-2:] == [("received", 5), ("sent", 5)]
