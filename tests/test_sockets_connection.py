"""`FrameSocket`, `connect` and `listen`: whole messages over stream sockets of every kind."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import selectors
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import framecodec
from framecodec import (
    Codec,
    FrameSocket,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
    connect,
    formats,
    listen,
)
from framecodec.sockets import listener as listener_module
from framecodec.sockets.calls import BlockingCalls
from tests.helpers.fault_injection import KINDS, TIMEOUT, stream_pair
from tests.helpers.sample_codecs import CODECS, sample_messages

pytestmark = pytest.mark.usefixtures("engine_in_use")


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[FrameSocket, FrameSocket]]:
    with stream_pair(request.param) as (left, right):
        right.settimeout(TIMEOUT)
        with FrameSocket(left) as one, FrameSocket(right) as other:
            yield one, other


@pytest.fixture
def half() -> Iterator[tuple[socket.socket, FrameSocket]]:
    """A plain socket, and a connection with four-byte lengths."""
    with stream_pair() as (peer, sock), FrameSocket(sock, Codec.uint(4)) as conn:
        conn.settimeout(TIMEOUT)
        yield peer, conn


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# --- messages -------------------------------------------------------------------------------------


def test_send_many_and_recv_many_keep_messages_whole_and_in_order(pair: Any) -> None:
    one, other = pair
    messages = [b"", b"hello", "你好".encode(), bytes(5000), b"x" * 70_000]
    one.send(messages[0])
    one.send_many(messages[1:3])
    one.send_many(iter(messages[3:]))
    assert [other.recv() for _ in messages] == messages
    for message in messages:
        other.send(message)
    found: list[bytes] = []
    while len(found) < len(messages):
        found += one.recv_many()
    assert found == messages


def test_send_of_the_largest_message_both_ways_at_once(pair: Any) -> None:
    message = os.urandom(1 << 20) * 16
    found: list[bytes] = []

    def answer() -> None:
        found.append(pair[1].recv())

    thread = threading.Thread(target=answer)
    thread.start()
    pair[0].send(message)
    thread.join(TIMEOUT)
    assert found[0] == message


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 50_000])
def test_send_takes_any_bytes_like_object(half: Any, make: Any, size: int) -> None:
    peer, conn = half
    message = os.urandom(size)
    conn.send(make(message))
    conn.send_many([make(message)] * 2)
    with FrameSocket(peer) as other:
        assert [other.recv() for _ in range(3)] == [message] * 3


@pytest.mark.parametrize("name", list(CODECS))
def test_frame_socket_works_with_every_codec(name: str) -> None:
    codec = CODECS[name].replace()
    messages = list(sample_messages(codec))
    with stream_pair() as (left, right):
        right.settimeout(TIMEOUT)
        with FrameSocket(left, codec) as one, FrameSocket(right, codec) as other:
            found: list[Any] = []
            for message in messages:  # one at a time: some are large
                thread = threading.Thread(target=one.send, args=(message,))
                thread.start()
                found.append(other.recv())
                thread.join(TIMEOUT)
    assert found == messages


def test_recv_returns_specials_as_their_objects() -> None:
    codec = formats.pkt_line
    flush = formats.PktLine.FLUSH
    with stream_pair() as (left, right), FrameSocket(left, codec) as one:
        one.send_many([b"a", flush])
        one.send(flush)
        one.close()
        with FrameSocket(right, codec) as other:
            assert list(other) == [b"a", flush, flush]


def test_frame_socket_has_a_default_codec() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock) as conn:
        assert conn.codec == Codec.uint(4)
        conn.send(b"hello")
        assert peer.recv(100) == b"\0\0\0\5hello"


def test_send_refuses_an_invalid_message_and_sends_nothing(half: Any) -> None:
    peer, conn = half
    for wrong in ("text", 5, None, [b"x"]):
        with pytest.raises(TypeError):
            conn.send(wrong)
    with pytest.raises(BufferError):
        conn.send(memoryview(b"abcd")[::2])
    with pytest.raises(MessageTooLargeError):
        conn.send(bytes((16 << 20) + 1))
    with pytest.raises(TypeError):
        conn.send_many([b"good", "bad"])
    assert conn.pending_send == 0
    conn.send(b"!")
    assert peer.recv(100) == b"\0\0\0\1!"


# --- ends and errors ------------------------------------------------------------------------------


def test_recv_raises_a_clean_end_in_each_way(half: Any) -> None:
    peer, conn = half
    peer.sendall(b"\0\0\0\1a\0\0\0\1b")
    peer.close()
    assert conn.recv() == b"a"
    assert conn.pending_messages == 1
    assert list(conn) == [b"b"]
    assert list(conn) == []
    for receive in (conn.recv, conn.recv_many):
        with pytest.raises(EOFError) as caught:
            receive()
        assert not isinstance(caught.value, IncompleteFrameError)


def test_iteration_raises_an_end_inside_a_frame(half: Any) -> None:
    peer, conn = half
    peer.sendall(b"\0\0\0\1a\0\0\0\5b")
    peer.close()
    found = []
    with pytest.raises(IncompleteFrameError) as caught:
        found.extend(conn)
    assert found == [b"a"]
    error = caught.value
    assert (error.where, error.received, error.needed, error.stream_offset) == ("rest", 5, 9, 5)
    assert pickle.loads(pickle.dumps(error)).args == error.args


def test_recv_raises_a_broken_frame_after_the_messages_for_ever() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, Codec.digits(2)) as conn:
        conn.settimeout(TIMEOUT)
        peer.sendall(b"01a01b0x02cd")
        assert conn.recv_many() == [b"a", b"b"]
        for receive in (conn.recv, conn.recv_many, conn.recv):
            with pytest.raises(InvalidFrameError) as caught:
                receive()
            assert caught.value.stream_offset == 6
        conn.send(b"sending works!!")
        assert peer.recv(100) == b"15sending works!!"


def test_on_oversize_refuses_or_skips_a_message() -> None:
    codec = Codec.uint(1, max_message_size=3)
    for on_oversize, expected in (("raise", [b"a"]), ("skip", [b"a", b"b"])):
        with stream_pair() as (peer, sock):
            conn = FrameSocket(sock, codec, on_oversize=on_oversize)  # type: ignore[arg-type]
            with conn:
                peer.sendall(b"\1a\4long\1b")
                peer.close()
                found = []
                broken = contextlib.suppress(MessageTooLargeError)
                with broken:
                    found.extend(conn)
                assert found == expected


def test_frame_socket_refuses_wrong_arguments() -> None:
    for wrong in (5, None, object()):
        with pytest.raises(TypeError, match="stream socket"):
            FrameSocket(wrong)  # type: ignore[arg-type]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="DatagramSocket"),
    ):
        FrameSocket(sock)
    with stream_pair() as (_, sock):
        with pytest.raises(TypeError, match="Codec"):
            FrameSocket(sock, "u32be")  # type: ignore[arg-type]
        for seconds in (0, -1, float("nan")):
            with pytest.raises(ValueError, match="positive"):
                FrameSocket(sock, message_timeout=seconds)
            with pytest.raises(ValueError, match="positive"):
                FrameSocket(sock, idle_timeout=seconds)
        with pytest.raises(ValueError, match="on_oversize"):
            FrameSocket(sock, on_oversize="ignore")  # type: ignore[arg-type]
        conn = FrameSocket(sock)
        for timeout in (-1, float("nan")):
            with pytest.raises(ValueError, match="out of range"):
                conn.settimeout(timeout)


# --- waiting --------------------------------------------------------------------------------------


def test_gettimeout_is_that_of_the_socket_until_set(half: Any) -> None:
    _, conn = half
    assert conn.gettimeout() == TIMEOUT
    conn.setblocking(False)
    assert (conn.gettimeout(), conn.getblocking()) == (0.0, False)
    conn.setblocking(True)
    assert (conn.gettimeout(), conn.getblocking()) == (None, True)
    with stream_pair() as (left, _), FrameSocket(left) as other:
        assert other.gettimeout() == TIMEOUT


def test_recv_that_would_wait_raises_and_loses_nothing(half: Any) -> None:
    peer, conn = half
    for timeout, kind in ((0.0, BlockingIOError), (0.01, TimeoutError)):
        conn.settimeout(timeout)
        for receive in (conn.recv, conn.recv_many, lambda: next(iter(conn))):
            peer.sendall(b"\0\0\0")
            with pytest.raises(kind):
                receive()
            peer.sendall(b"\1x\0\0\0\1y")
            assert conn.recv() == b"x"
            assert conn.recv() == b"y"


def test_flush_or_the_next_send_finishes_a_message(half: Any) -> None:
    peer, conn = half
    large = os.urandom(3 << 20)
    for finish in ("flush", "send"):
        conn.settimeout(0.01)
        with pytest.raises(TimeoutError) as caught:
            conn.send(large)
        assert caught.value.message_started is True  # type: ignore[attr-defined]
        left = conn.pending_send
        assert 0 < left < len(large) + 4
        with pytest.raises(TimeoutError) as caught:
            conn.send(b"refused")
        assert caught.value.message_started is False  # type: ignore[attr-defined]
        assert conn.pending_send == left
        conn.settimeout(TIMEOUT)
        work = conn.flush if finish == "flush" else lambda: conn.send(b"next")
        thread = threading.Thread(target=work)
        thread.start()
        expected = len(large) + 4 + (8 if finish == "send" else 0)
        wire = b""
        while len(wire) < expected:
            wire += peer.recv(1 << 20)
        thread.join(TIMEOUT)
        assert conn.pending_send == 0
        assert wire == Codec.uint(4).encode_many([large, b"next"] if finish == "send" else [large])


def test_send_copies_a_borrowed_message_if_it_fails(half: Any) -> None:
    peer, conn = half
    message = bytearray(os.urandom(3 << 20))
    copy = bytes(message)
    conn.setblocking(False)
    with pytest.raises(BlockingIOError):
        conn.send(message)
    message[:] = bytes(len(message))
    conn.settimeout(TIMEOUT)
    thread = threading.Thread(target=conn.flush)
    thread.start()
    with FrameSocket(peer) as other:
        assert other.recv() == copy
    thread.join(TIMEOUT)


def test_fileno_works_with_selectors() -> None:
    clients = 20
    with listen(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        results: list[list[bytes]] = []

        def ask(number: int) -> None:
            with connect(listener.address, timeout=TIMEOUT) as conn:
                for turn in range(5):
                    conn.send(b"%d:%d" % (number, turn))
                results.append([conn.recv() for _ in range(5)])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        ended = 0
        while ended < clients:
            events = selector.select(TIMEOUT)
            assert events
            for key, _ in events:
                if key.fileobj is listener:
                    conn = listener.accept()
                    conn.setblocking(False)
                    selector.register(conn, selectors.EVENT_READ)
                    continue
                conn = key.fileobj  # type: ignore[assignment]
                try:
                    conn.send_many(conn.recv_many())
                except BlockingIOError:
                    pass
                except EOFError:
                    selector.unregister(conn)
                    conn.close()
                    ended += 1
        for thread in threads:
            thread.join(TIMEOUT)
    assert sorted(results) == sorted(
        [[b"%d:%d" % (number, turn) for turn in range(5)] for number in range(clients)]
    )


# --- closing and handing over ---------------------------------------------------------------------


def test_close_may_be_called_twice_and_later_calls_raise(half: Any) -> None:
    peer, conn = half
    peer.sendall(b"\0\0\0\1a\0\0\0\1b")
    assert conn.recv() == b"a"
    conn.close()
    conn.close()
    assert conn.closed
    assert conn.fileno() == -1
    assert "closed" in repr(conn)
    for call in (conn.flush, lambda: conn.send(b"x"), lambda: conn.send_many([b"x"]), conn.detach):
        with pytest.raises(ConnectionAbortedError, match="closed"):
            call()
    with contextlib.suppress(ConnectionAbortedError):
        assert conn.recv() == b"b"  # what was received before may be had
    with pytest.raises(ConnectionAbortedError, match="closed"):
        conn.recv()


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("kind", KINDS)
def test_close_from_another_thread_wakes_a_recv_that_waits(
    kind: str, timeout: float | None
) -> None:
    with stream_pair(kind) as (_, sock), FrameSocket(sock) as conn:
        conn.settimeout(timeout)
        found: list[BaseException] = []

        def wait() -> None:
            try:
                conn.recv()
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.02)
        conn.close()
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        assert isinstance(found[0], ConnectionAbortedError)


DETACHED = {
    "lengths": (Codec.uint(2), b"\0\3one", b"\0\5three\0\3ab"),
    "upper-case hexadecimal": (Codec.digits(2, base=16), b"03one", b"0Aten bytes.0a0123456789"),
    "headers": (
        Codec.headers(),
        b"Content-Length: 3\r\n\r\none",
        b"X: y\r\ncontent-length:  2\r\n\r\nab",
    ),
    "a tail that is not a frame": (Codec.digits(2), b"03one", b"03two0"),
}


@pytest.mark.parametrize("name", DETACHED)
def test_detach_returns_the_socket_and_the_unread_bytes(name: str) -> None:
    codec, first, unread = DETACHED[name]
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, codec.replace())
        conn.settimeout(TIMEOUT)
        peer.sendall(first + unread)
        assert conn.recv() == b"one"
        found, rest = conn.detach()
        assert found is sock
        assert found.gettimeout() == TIMEOUT
        assert conn.closed
        assert conn.fileno() == -1
        assert rest == unread
        peer.sendall(b"clear text")
        assert found.recv(100) == b"clear text"
        with pytest.raises(ConnectionAbortedError):
            conn.recv()
        conn.close()  # the socket is not its own any more
        assert found.fileno() >= 0


def test_detach_returns_whole_frames_after_a_broken_one() -> None:
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, Codec.digits(2))
        peer.sendall(b"03oneEHLO there")
        assert conn.recv() == b"one"
        with pytest.raises(InvalidFrameError):
            conn.recv()
        assert conn.detach()[1] == b"EHLO there"


@pytest.mark.parametrize("method", ["recv", "recv_many"])
def test_detach_returns_a_broken_frame_that_came_alone(method: str) -> None:
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, Codec.digits(2))
        peer.sendall(b"EHLO there")
        for _ in range(2):
            with pytest.raises(InvalidFrameError):
                getattr(conn, method)()
        assert conn.detach()[1] == b"EHLO there"


def test_detach_with_unsent_bytes_is_refused(half: Any) -> None:
    _, conn = half
    conn.setblocking(False)
    with pytest.raises(BlockingIOError):
        conn.send(bytes(4 << 20))
    with pytest.raises(RuntimeError, match="flush"):
        conn.detach()


@pytest.mark.parametrize("name", DETACHED)
def test_read_ahead_off_takes_nothing_after_the_frame(name: str) -> None:
    codec, first, unread = DETACHED[name]
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, codec.replace(), read_ahead=False)
        conn.settimeout(TIMEOUT)
        peer.sendall(first + unread)
        assert conn.recv() == b"one"
        assert conn.detach() == (sock, b"")
        assert sock.recv(1000) == unread


def test_read_ahead_may_be_switched(half: Any) -> None:
    peer, conn = half
    assert conn.read_ahead
    conn.read_ahead = False
    peer.sendall(Codec.uint(4).encode_many([b"a", b"b", b"c"]))
    assert conn.recv() == b"a"
    assert conn.pending_messages == 0
    conn.read_ahead = True
    assert conn.recv() == b"b"
    assert conn.pending_messages == 1


def test_frame_socket_has_the_methods_of_a_socket(half: Any) -> None:
    peer, conn = half
    assert conn.fileno() == conn.socket.fileno()
    assert conn.getsockname() == peer.getpeername()
    assert conn.getpeername() == peer.getsockname()
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert f"fd={conn.fileno()}" in repr(conn)
    conn.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    peer.sendall(b"\0\0\0\1x")
    assert conn.recv() == b"x"
    assert select.select([], [conn], [], TIMEOUT)[1] == [conn]


# --- connecting and listening ---------------------------------------------------------------------


def test_connect_and_listen_work_as_documented() -> None:
    with listen(("127.0.0.1", 0), Codec.digits(4)) as listener:

        def serve() -> None:
            for conn in listener:
                with conn:
                    for message in conn:
                        conn.send(message.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(3):
            with connect(listener.address, Codec.digits(4), timeout=TIMEOUT) as conn:
                assert conn.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert conn.gettimeout() == TIMEOUT
                conn.send(b"hello")
                assert conn.recv() == b"HELLO"
        listener.close()  # which ends the iteration
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.parametrize("make", [str, Path, os.fsencode])
def test_listen_makes_replaces_and_removes_a_unix_socket(folder: Path, make: Any) -> None:
    path = folder / "socket"
    with listen(make(path)) as listener:
        assert stat.S_ISSOCK(path.stat().st_mode)
        with connect(make(path), timeout=TIMEOUT) as one, listener.accept() as other:
            one.send(b"hello")
            assert other.recv() == b"hello"
        with pytest.raises(OSError, match="in use"):
            listen(path)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # the probe has not connected
            listener.accept()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    with listen(path), connect(path, timeout=TIMEOUT):
        pass
    assert not path.exists()


def test_listen_does_not_replace_another_file(folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"precious")
    with pytest.raises(OSError, match="in use"):
        listen(path)
    assert path.read_bytes() == b"precious"


def test_close_does_not_remove_the_path_of_another_listener(folder: Path) -> None:
    path = folder / "socket"
    first = listen(path)
    path.unlink()
    with listen(path):
        first.close()
        assert path.exists()


def test_connect_takes_ipv6_addresses_of_two_and_of_four_parts() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = listen(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with listener:
        assert len(listener.address) == 4
        for address in (listener.address, listener.address[:2]):
            with connect(address, timeout=TIMEOUT) as one, listener.accept() as other:
                other.send(b"hello")
                assert one.recv() == b"hello"


def test_connect_refuses_an_invalid_address() -> None:
    for wrong in (5, None, ("127.0.0.1",), ["127.0.0.1", 0], ("a", 1, 2)):
        with pytest.raises(TypeError, match="an address is"):
            connect(wrong)
        with pytest.raises(TypeError, match="an address is"):
            listen(wrong)


def test_connect_raises_the_error_of_the_system(folder: Path) -> None:
    with listen(("127.0.0.1", 0)) as listener:
        address = listener.address
    with pytest.raises(ConnectionRefusedError):
        connect(address, timeout=TIMEOUT)
    with pytest.raises(FileNotFoundError):
        connect(folder / "unused", timeout=TIMEOUT)


def test_connect_with_a_wrong_codec_leaves_no_socket_open() -> None:
    with listen(("127.0.0.1", 0)) as listener:
        with pytest.raises(TypeError):
            connect(listener.address, "u32be", timeout=TIMEOUT)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="positive"):
            connect(listener.address, message_timeout=0)


def test_accept_keeps_its_time_out() -> None:
    with listen(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.01)
        assert listener.gettimeout() == 0.01
        with pytest.raises(TimeoutError):
            listener.accept()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert listener.fileno() == listener.socket.fileno()
    assert listener.fileno() == -1
    with pytest.raises(ConnectionAbortedError, match="closed"):
        listener.accept()
    assert list(listener) == []
    listener.close()


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_close_wakes_a_thread_in_accept(kind: str, timeout: float | None, folder: Path) -> None:
    listener = listen(("127.0.0.1", 0) if kind == "tcp" else folder / "socket")
    listener.settimeout(timeout)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(list(listener)))
    thread.start()
    thread.join(0.02)
    listener.close()
    thread.join(TIMEOUT)
    assert found == [[]]


def test_listen_with_reuse_port_shares_a_port() -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("no SO_REUSEPORT here")
    with listen(("127.0.0.1", 0), reuse_port=True) as one:
        with listen(one.address, reuse_port=True) as other:
            assert one.address == other.address
        with pytest.raises(OSError, match="in use"):
            listen(one.address)


def test_public_names_are_those_of_the_modules() -> None:
    assert framecodec.FrameSocket is FrameSocket
    assert framecodec.connect is connect


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((("127.0.0.1", 70_000),), {}, OverflowError),
        ((("127.0.0.1", 0), "kafka"), {}, TypeError),
        ((("127.0.0.1", 0),), {"message_timeout": -1}, ValueError),
        ((("127.0.0.1", 0),), {"idle_timeout": "soon"}, TypeError),
    ],
)
def test_listen_refuses_invalid_options_at_once(
    arguments: Any, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        listen(*arguments, **options)


def test_connect_refuses_an_invalid_port() -> None:
    with pytest.raises(OverflowError, match="0-65535, not 70000"):
        connect(("127.0.0.1", 70_000))


def test_detach_sets_the_time_out_and_gives_up_the_socket(
    half: tuple[socket.socket, FrameSocket],
) -> None:
    peer, conn = half
    conn.settimeout(float("inf"))
    peer.sendall(conn.codec.encode_many([b"mine", b"theirs"]))
    assert conn.recv() == b"mine"
    sock, unread = conn.detach()
    with sock:
        assert unread == conn.codec.encode(b"theirs")
        sock.settimeout(7)
        with pytest.raises(ConnectionAbortedError):
            conn.settimeout(0)
        assert sock.gettimeout() == 7


SKIPPING = {
    "uint": Codec.uint(2, max_message_size=100),
    "netstring": Codec.text(b":", trailer=b",", max_message_size=100),
    "hexadecimal": Codec.digits(4, base=16, max_message_size=100),
    "headers": Codec.headers(max_message_size=100),
    "custom": Codec.custom(
        lambda view: (2, int.from_bytes(view[:2], "big")) if len(view) >= 2 else None,
        lambda message: len(message).to_bytes(2, "big"),
        max_message_size=100,
    ),
}


@pytest.mark.parametrize("name", SKIPPING)
def test_detach_under_skip_returns_all_that_was_not_discarded(name: str) -> None:
    codec = SKIPPING[name].replace()
    small = [codec.encode(message) for message in (b"one", b"", b"three")]
    large = codec.replace(max_message_size=None).encode(bytes(120))
    header_size = len(large) - 120 - len(codec.layout.trailer)
    before, wire = b"".join(small[:2]), b"".join([*small[:2], large, *small[2:]])
    for size in range(len(small[0]), len(wire) + 1):
        with stream_pair() as (peer, sock):
            conn = FrameSocket(sock, codec, on_oversize="skip")
            conn.settimeout(TIMEOUT)
            peer.sendall(wire[:size])
            assert conn.recv() == b"one"
            _, unread = conn.detach()
        if size < len(before) + header_size:
            expected = wire[len(small[0]) : size]
        else:  # the large frame is discarded as far as it arrived
            expected = before[len(small[0]) :] + wire[len(before + large) : size]
        assert unread == expected, size


@pytest.mark.parametrize("upper", [b"000A", b"000a"])
def test_detach_returns_frames_as_they_travelled(upper: bytes) -> None:
    codec = SKIPPING["hexadecimal"].replace()
    wire = codec.encode(b"one") + upper + bytes(10) + b"00Ff" + b"half"
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock, codec.replace(max_message_size=1000))
        conn.settimeout(TIMEOUT)
        peer.sendall(wire)
        assert conn.recv() == b"one"
        assert conn.pending_messages == 1
        assert conn.detach()[1] == wire[7:]


def test_detach_lets_every_later_call_raise() -> None:
    with stream_pair() as (_, sock):
        conn = FrameSocket(sock)
        assert (conn.closed, conn.fileno()) == (False, sock.fileno())
        assert conn.detach() == (sock, b"")
        assert (conn.closed, conn.fileno()) == (True, -1)
        for call in (conn.recv, conn.flush, conn.recv_many, lambda: conn.send(b"x"), conn.detach):
            with pytest.raises(ConnectionAbortedError, match="closed or detached"):
                call()
        assert sock.fileno() >= 0


def test_send_has_one_time_out_for_held_and_new_bytes(
    half: tuple[socket.socket, FrameSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, conn = half
    deadlines: list[float | None] = []

    def drain_the_peer(sock: object, wanted: int, deadline: float | None) -> bool:
        deadlines.append(deadline)
        peer.recv(1 << 20)
        return True

    conn.settimeout(0)
    with pytest.raises(BlockingIOError):
        conn.send(bytes(5_000_000))
    conn.settimeout(TIMEOUT)
    before = conn.pending_send
    monkeypatch.setattr("framecodec.sockets.wire.wait", drain_the_peer)
    conn.send(bytes(5_000_000))
    assert before > 0
    assert len(deadlines) > before // (1 << 20) + 1
    assert len(set(deadlines)) == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_close_in_a_signal_handler_sends_no_byte_to_another_socket() -> None:
    """Another socket may get its descriptor's number at once."""
    others: list[socket.socket] = []

    def send_until_it_is_closed() -> None:
        for _ in range(100_000):
            conn.send(bytes(1000))

    def close_and_open(*_: object) -> None:
        conn.close()
        if not others:
            others.extend(socket.socketpair())

    before = signal.signal(signal.SIGALRM, close_and_open)
    try:
        with stream_pair() as (_, sock), FrameSocket(sock) as conn:
            conn.settimeout(None)
            # Again, because a signal just before the system call does not end it.
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
            with pytest.raises(ConnectionAbortedError):
                send_until_it_is_closed()
        for other in others:
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for other in others:
            other.close()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no signals for the user here")
@pytest.mark.parametrize(
    ("interrupted", "called"),
    [
        *(("recv", name) for name in ("recv", "recv_many", "detach", "switch")),
        *(("send", name) for name in ("send", "send_many", "detach", "switch", "flush")),
    ],
)
def test_a_call_in_a_signal_handler_that_needs_the_interrupted_one_is_refused(
    half: tuple[socket.socket, FrameSocket],
    interrupted: str,
    called: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer, conn = half
    arguments = {"send": (b"again",), "send_many": ([b"again"],), "switch": (Codec.uint(2),)}
    errors: list[str] = []
    buffer = bytearray(10)

    def handle(*_: object) -> None:
        with pytest.raises(RuntimeError) as caught:
            getattr(conn, called)(*arguments.get(called, ()))
        errors.append(str(caught.value))

    def wait_and_interrupt(sock: object, wanted: int, deadline: float | None) -> bool:
        if not errors:
            signal.raise_signal(signal.SIGUSR1)
        if interrupted == "recv":
            peer.sendall(b"\0\0\0\5hello")
        else:
            peer.recv(1 << 20)
        return True

    monkeypatch.setattr("framecodec.sockets.wire.wait", wait_and_interrupt)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        result = conn.recv_into(buffer) if interrupted == "recv" else conn.send(bytes(5_000_000))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (result, buffer[:5]) == ((5, b"hello") if interrupted == "recv" else (None, bytes(5)))
    text = f"a signal handler interrupted {interrupted}() and called the same connection; "
    if (interrupted, called) == ("send", "detach"):
        assert "bytes of accepted messages are unsent" in errors[0]
    else:
        assert errors == [f"{text}call it after the handler"]


@pytest.mark.untraced
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_send_that_is_interrupted_releases_its_lock(engine: ModuleType) -> None:
    if engine.__name__.endswith("_py"):
        pytest.skip("the Python engine is Python code")

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    def swallow() -> None:
        while peer.recv(1 << 20):
            pass

    def send_until_interrupted(seconds: float) -> None:
        # Not in the block that catches it: a loop's end may lie outside (cpython#130279).
        signal.setitimer(signal.ITIMER_REAL, seconds)
        for _ in range(5000):
            conn.send(bytearray(100))
        signal.setitimer(signal.ITIMER_REAL, 0)

    gc.disable()  # what is raised while it calls back is only told of
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with stream_pair() as (peer, sock):
            peer.settimeout(TIMEOUT)
            swallower = threading.Thread(target=swallow, daemon=True)
            # So that each signal comes to this thread, and at once.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            swallower.start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
            with FrameSocket(sock) as conn:
                conn.settimeout(TIMEOUT)
                for number in range(800):
                    with contextlib.suppress(Interrupted):
                        send_until_interrupted(1e-4 + number % 50 * 1e-5)
                another = threading.Thread(target=conn.send, args=(b"from another",), daemon=True)
                another.start()
                another.join(TIMEOUT)
                assert not another.is_alive()
            swallower.join(TIMEOUT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


# --- subclasses -----------------------------------------------------------------------------------


class Shouting(FrameSocket):  # type: ignore[misc]
    """A subclass that overrides `recv` alone."""

    def recv(self) -> Any:
        message = super().recv()
        return message.upper()


class QuietlyShouting(Shouting):
    """A subclass of it, with an attribute."""

    volume = 1


@pytest.mark.parametrize("kind", [Shouting, QuietlyShouting])
@pytest.mark.parametrize("observer", [None, object()], ids=["", "observed"])
@pytest.mark.parametrize(
    "codec", [Codec.uint(1), Codec.uint(1).with_objects(str.encode, bytes.decode)]
)
def test_iteration_calls_the_recv_of_a_subclass(kind: Any, observer: object, codec: Codec) -> None:
    left, right = socket.socketpair()
    with FrameSocket(left, Codec.uint(1)) as peer, kind(right, codec, observer=observer) as conn:
        peer.send_many([b"a", b"b"])
        assert isinstance(conn, kind)
        assert next(iter(conn)) in (b"A", "A")
        conn.switch(Codec.uint(1))
        assert isinstance(conn, kind)
        assert conn.recv() == b"B"
        peer.send(b"c")
        peer.close()
        assert list(conn) == [b"C"]


def test_iteration_of_a_subclass_raises_an_end_inside_a_frame() -> None:
    left, right = socket.socketpair()
    with Shouting(right, Codec.uint(1)) as conn:
        left.sendall(b"\1a\2b")
        left.close()
        messages = iter(conn)
        assert next(messages) == b"A"
        with pytest.raises(IncompleteFrameError):
            next(messages)


def test_a_connection_of_the_package_iterates_without_a_python_call_a_message() -> None:
    assert FrameSocket.__iter__ is BlockingCalls.__iter__
    left, right = socket.socketpair()
    left.close()
    with FrameSocket(right, observer=object()) as conn:
        assert type(conn).__iter__ is BlockingCalls.__iter__


# --- what is rare ---------------------------------------------------------------------------------


def test_repr_of_a_listener_names_its_address() -> None:
    with framecodec.listen(("127.0.0.1", 0), Codec.uint(1)) as listener:
        assert repr(listener) == f"<Listener {listener.address!r}, {Codec.uint(1)!r}>"
    assert repr(listener) == f"<Listener closed, {Codec.uint(1)!r}>"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_a_listener_removes_only_its_own_file(folder: Path) -> None:
    name = f"\0framecodec test {folder}"
    with framecodec.listen(name) as listener, framecodec.connect(name) as conn:
        conn.send(b"a")
        with listener.accept() as accepted:
            assert accepted.recv() == b"a"
    path = folder / "socket"
    with framecodec.listen(str(path)):
        path.unlink()
    assert not path.exists()


def test_accept_closes_a_connection_whose_options_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(22, "invalid argument")

    with (
        framecodec.listen(("127.0.0.1", 0)) as listener,
        framecodec.connect(listener.address, timeout=10) as conn,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(listener_module, "prepare", fail)
            with pytest.raises(OSError, match="invalid argument"):
                listener.accept()
        with pytest.raises((EOFError, ConnectionError)):
            conn.recv()
