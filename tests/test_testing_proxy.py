"""`ChunkingProxy` passes on bytes, half-closes and resets, cut anew, and leaves nothing open."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec
from framecodec.testing import ChunkingProxy, Direction
from framecodec.testing import proxy as proxy_module
from tests.helpers.descriptors import open_descriptors
from tests.helpers.fault_injection import reset

TIMEOUT = 20.0  # seconds; no wait of a test that passes needs them
STREAM = bytes(range(256)) * 12

needs_unix_sockets = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets"
)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        yield listener


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail if a thread or a descriptor of a proxy is open after the test."""
    count = open_descriptors()
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert "framecodec ChunkingProxy" not in names
    assert open_descriptors() == count


class Pieces:
    """An observer that keeps what it is called with, by direction."""

    def __init__(self) -> None:
        self.by_sender: dict[tuple[int, str], list[bytes]] = {}

    def __call__(self, direction: Direction, data: bytes) -> None:
        key = (direction.connection, direction.sender)
        self.by_sender.setdefault(key, []).append(data)


class Ends:
    """Both ends of a connection through a proxy, and the proxy."""

    def __init__(self, server: socket.socket, **options: Any) -> None:
        upstream = options.pop("upstream", server.getsockname())
        self.proxy = ChunkingProxy(upstream, **{"sizes": (1, 7), **options})
        self.client = framecodec.connect(self.proxy.address, timeout=TIMEOUT).socket
        self.upstream, _ = server.accept()
        self.upstream.settimeout(TIMEOUT)

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.upstream.close()
        self.proxy.close()


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def connect_and_read(address: Any) -> bytes:
    """Return a byte; a reset can come while the connection is still being made."""
    with socket.create_connection(address, TIMEOUT) as client:
        return client.recv(1)


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (5, 1000), (4096, 70_000)])
def test_ChunkingProxy_passes_on_both_directions(
    server: socket.socket, sizes: tuple[int, int]
) -> None:
    pieces = Pieces()
    with Ends(server, sizes=sizes, observe=pieces) as ends:
        for sender, receiver, stream in (
            (ends.client, ends.upstream, STREAM),
            (ends.upstream, ends.client, STREAM[::-1]),
        ):
            sender.sendall(stream)
            sender.shutdown(socket.SHUT_WR)
            assert read_to_end(receiver) == stream
    least, most = sizes
    for name, stream in (("client", STREAM), ("upstream", STREAM[::-1])):
        *found, end = pieces.by_sender[1, name]
        assert end == b""
        assert b"".join(found) == stream
        assert all(len(piece) <= most for piece in found)
        if len(stream) > 2 * most:
            assert max(map(len, found)) >= least


def test_ChunkingProxy_sends_pieces_that_the_receiver_sees(server: socket.socket) -> None:
    with Ends(server, sizes=(2, 2), delay=1000.0) as ends:
        ends.client.sendall(b"abcdef")
        assert ends.upstream.recv(100) == b"ab"


def observed_pieces(server: socket.socket, **options: Any) -> dict[tuple[int, str], list[bytes]]:
    pieces = Pieces()
    with ChunkingProxy(server.getsockname(), observe=pieces, **options) as proxy:
        for _ in range(2):
            with socket.create_connection(proxy.address, TIMEOUT) as client:
                upstream, _ = server.accept()
                with upstream:
                    client.sendall(STREAM[:1000])
                    client.shutdown(socket.SHUT_WR)
                    assert read_to_end(upstream) == STREAM[:1000]
                    upstream.sendall(STREAM[:1000])
                    upstream.shutdown(socket.SHUT_WR)
                    assert read_to_end(client) == STREAM[:1000]
    return pieces.by_sender


def test_ChunkingProxy_cuts_by_its_seed(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "_JOIN_WAIT", TIMEOUT)  # no piece leaves early
    first = observed_pieces(server, sizes=(1, 50), seed=3)
    assert observed_pieces(server, sizes=(1, 50), seed=3) == first
    assert observed_pieces(server, sizes=(1, 50), seed=4) != first
    # Each direction of each connection has its own cuts.
    assert len({tuple(pieces) for pieces in first.values()}) == 4


def test_ChunkingProxy_joins_what_arrives_in_pieces(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "_JOIN_WAIT", TIMEOUT)
    pieces = Pieces()
    with Ends(server, sizes=(6, 6), observe=pieces) as ends:
        for piece in (b"ab", b"cd", b"ef"):
            ends.client.sendall(piece)
        assert ends.upstream.recv(100) == b"abcdef"
    assert pieces.by_sender[1, "client"][0] == b"abcdef"


def test_ChunkingProxy_does_not_wait_for_ever_for_a_piece(server: socket.socket) -> None:
    with Ends(server, sizes=(1000, 1000)) as ends:
        for _ in range(3):
            ends.client.sendall(b"ping")
            assert ends.upstream.recv(100) == b"ping"
            ends.upstream.sendall(b"pong")
            assert ends.client.recv(100) == b"pong"


def test_ChunkingProxy_waits_between_pieces_as_long_as_delay_says() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(TIMEOUT)
        pump = proxy_module._Pump(ours, ours, lambda: 2, 1000.0, lambda data: None)
        pump.waiting += b"abcd"
        assert pump.write() == pump.not_before
        assert pump.not_before > 1000
        assert theirs.recv(100) == b"ab"
        assert pump.write() == pump.not_before
        assert pump.waiting == b"cd"
        pump.not_before = 0.0
        assert pump.write() is None
        assert theirs.recv(100) == b"cd"


def test_ChunkingProxy_holds_few_bytes_while_the_receiver_does_not_read(
    server: socket.socket,
) -> None:
    with Ends(server, sizes=(1000, 9000)) as ends:
        ends.client.setblocking(False)
        sent, tries = 0, 0
        while sent < 2**26 and tries < 20:
            try:
                sent += ends.client.send(bytes(2**16))
                tries = 0
            except BlockingIOError:
                tries += 1
                threading.Event().wait(0.01)  # the proxy may still read
        assert sent < 2**26  # what the kernel holds of two connections
        ends.client.setblocking(True)
        ends.client.settimeout(TIMEOUT)
        thread = threading.Thread(target=lambda: ends.client.shutdown(socket.SHUT_WR))
        thread.start()
        assert len(read_to_end(ends.upstream)) == sent
        thread.join(TIMEOUT)


# --- ends -----------------------------------------------------------------------------------------


def test_ChunkingProxy_passes_on_a_half_close(server: socket.socket) -> None:
    with Ends(server) as ends:
        ends.client.sendall(b"question")
        ends.client.shutdown(socket.SHUT_WR)
        assert read_to_end(ends.upstream) == b"question"
        ends.upstream.sendall(b"answer")
        ends.upstream.close()
        assert read_to_end(ends.client) == b"answer"


@pytest.mark.parametrize("name", ["client", "upstream"])
def test_ChunkingProxy_passes_on_a_reset(server: socket.socket, name: str) -> None:
    with Ends(server) as ends:
        broken, other = ends.client, ends.upstream
        if name == "upstream":
            broken, other = other, broken
        broken.sendall(b"hello")
        assert other.recv(1) == b"h"
        reset(broken)
        with pytest.raises(ConnectionResetError):
            read_to_end(other)


@pytest.mark.parametrize("name", ["client", "upstream"])
def test_ChunkingProxy_ends_both_sides_when_one_is_closed_with_unread_bytes(
    server: socket.socket, name: str
) -> None:
    with Ends(server) as ends:
        gone, other = ends.client, ends.upstream
        if name == "upstream":
            gone, other = other, gone
        gone.sendall(b"last words")
        other.sendall(bytes(100_000))
        gone.close()
        # The kernel turns this close into a reset. It may come before the last words.
        try:
            found = read_to_end(other)
        except ConnectionError:
            return
        assert b"last words".startswith(found)
        with pytest.raises(ConnectionError):
            other.sendall(bytes(2**26))


def test_ChunkingProxy_resets_a_client_whose_server_refuses(server: socket.socket) -> None:
    address = server.getsockname()
    server.close()
    with ChunkingProxy(address, sizes=(1, 7)) as proxy, pytest.raises(ConnectionError):
        connect_and_read(proxy.address)


def test_close_resets_open_connections_and_refuses_new_ones(server: socket.socket) -> None:
    with Ends(server, delay=1000.0) as ends:
        ends.client.sendall(b"hello")
        assert ends.upstream.recv(7)
        ends.proxy.close()
        for sock in (ends.client, ends.upstream):
            with pytest.raises(ConnectionResetError):
                sock.recv(7)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(ends.proxy.address, TIMEOUT)
        ends.proxy.close()  # a second time: nothing happens
        assert "closed" in repr(ends.proxy)


def test_close_passes_on_the_end_of_a_client_that_has_closed(server: socket.socket) -> None:
    for _ in range(20):
        with Ends(server, delay=1000.0) as ends:
            ends.client.sendall(b"hello, and good bye")
            assert ends.upstream.recv(1)
            ends.client.close()
            ends.proxy.close()
            assert b"hello, and good bye".endswith(read_to_end(ends.upstream))


def test_close_is_not_for_the_observer(server: socket.socket) -> None:
    errors: list[BaseException] = []
    seen = threading.Event()

    def observe(direction: Direction, data: bytes) -> None:
        try:
            ends.proxy.close()
        except RuntimeError as error:
            errors.append(error)
        seen.set()

    with Ends(server, observe=observe) as ends:
        ends.client.sendall(b"hello")
        assert seen.wait(TIMEOUT)
    assert "must not close" in str(errors[0])


def test_close_warns_of_a_thread_that_does_not_end(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "_CLOSE_TIMEOUT", 0.05)
    entered, leave = threading.Event(), threading.Event()

    def observe(direction: Direction, data: bytes) -> None:
        entered.set()
        leave.wait(TIMEOUT)

    ends = Ends(server, observe=observe)
    try:
        ends.client.sendall(b"hello")
        assert entered.wait(TIMEOUT)
        with pytest.warns(ResourceWarning, match="1 threads of <ChunkingProxy"):
            ends.proxy.close()
    finally:
        leave.set()
        ends.client.close()
        ends.upstream.close()
        for thread in threading.enumerate():
            if thread.name == "framecodec ChunkingProxy":
                thread.join(TIMEOUT)
        ends.proxy._stop_reader.close()


# --- addresses ------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def exchange(proxy: ChunkingProxy, server: Any) -> None:
    with framecodec.connect(proxy.address, timeout=TIMEOUT) as conn:
        conn.send(b"hello")
        peer = server.accept()
        with peer:
            peer.settimeout(TIMEOUT)
            peer.send(peer.recv().upper())
        assert conn.recv() == b"HELLO"


@pytest.mark.skipif(not has_ipv6(), reason="the system has no IPv6")
def test_ChunkingProxy_takes_IPv6_addresses() -> None:
    with (
        framecodec.listen(("::1", 0)) as server,
        ChunkingProxy(server.address, sizes=(1, 7), listen=("::1", 0)) as proxy,
    ):
        assert proxy.address[0] == "::1"
        exchange(proxy, server)
    with (
        framecodec.listen(("::1", 0)) as server,
        ChunkingProxy(server.address[:2], sizes=(1, 7)) as proxy,
    ):
        assert proxy.address[0] == "127.0.0.1"
        exchange(proxy, server)


@needs_unix_sockets
def test_ChunkingProxy_takes_paths_of_Unix_sockets(tmp_path: Path) -> None:
    with (
        framecodec.listen(str(tmp_path / "server")) as server,
        ChunkingProxy(str(tmp_path / "server"), sizes=(1, 7)) as proxy,
    ):
        exchange(proxy, server)
    with (
        framecodec.listen(("127.0.0.1", 0)) as server,
        ChunkingProxy(server.address, sizes=(1, 7), listen=tmp_path / "proxy") as proxy,
    ):
        assert proxy.address == str(tmp_path / "proxy")
        exchange(proxy, server)
    assert not (tmp_path / "proxy").exists()


def test_ChunkingProxy_listens_on_loopback_or_on_a_chosen_address(server: socket.socket) -> None:
    with ChunkingProxy(server.getsockname(), sizes=(1, 7)) as proxy:
        host, port = proxy.address
        assert host == "127.0.0.1"
        assert f"('127.0.0.1', {port}) to {server.getsockname()!r}, pieces of 1 to 7" in repr(proxy)
    with ChunkingProxy(server.getsockname(), sizes=(1, 7), listen=("127.0.0.1", port)) as proxy:
        assert proxy.address == (host, port)
        with pytest.raises(OSError, match="in use"):
            ChunkingProxy(server.getsockname(), sizes=(1, 7), listen=proxy.address)


# --- many connections, observers, arguments -------------------------------------------------------


def test_ChunkingProxy_serves_many_connections() -> None:
    codec = Codec.varint()
    messages = [b"", b"hello", bytes(300)]

    def answer(conn: framecodec.FrameSocket) -> None:
        with conn:
            conn.settimeout(TIMEOUT)
            for message in conn:
                conn.send(message)

    def ask(address: Any) -> list[bytes]:
        with framecodec.connect(address, codec, timeout=TIMEOUT) as conn:
            conn.send_many(messages)
            return [conn.recv() for _ in messages]

    with framecodec.listen(("127.0.0.1", 0), codec) as listener, ThreadPoolExecutor(64) as pool:
        accepting = pool.submit(lambda: [pool.submit(answer, conn) for conn in listener])
        with ChunkingProxy(listener.address, sizes=(1, 40)) as proxy:
            asked = [pool.submit(ask, proxy.address) for _ in range(60)]
            assert all(future.result(TIMEOUT) == messages for future in asked)
            assert proxy.connections == 60
            listener.close()
            answered = [future.result(TIMEOUT) for future in accepting.result(TIMEOUT)]
        assert answered == [None] * 60


def test_ChunkingProxy_names_connections_and_senders(server: socket.socket) -> None:
    seen: list[tuple[Direction, bytes]] = []
    with ChunkingProxy(
        server.getsockname(), sizes=(100, 100), observe=lambda *piece: seen.append(piece)
    ) as proxy:
        for number in (1, 2):
            with socket.create_connection(proxy.address, TIMEOUT) as client:
                upstream, _ = server.accept()
                with upstream:
                    client.sendall(b"a")
                    assert upstream.recv(1) == b"a"
                    upstream.sendall(b"b")
                    assert client.recv(1) == b"b"
                found = [one for one in seen if one[0].connection == number and one[1]]
                assert [(direction.sender, data) for direction, data in found] == [
                    ("client", b"a"),
                    ("upstream", b"b"),
                ]
                assert {direction.client for direction, _ in found} == {client.getsockname()}


def test_ChunkingProxy_logs_what_its_observer_raises(
    server: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    def observe(direction: Direction, data: bytes) -> None:
        raise ValueError("the observer's own")

    with caplog.at_level(logging.ERROR, "framecodec"), Ends(server, observe=observe) as ends:
        ends.client.sendall(STREAM)
        ends.client.shutdown(socket.SHUT_WR)
        assert read_to_end(ends.upstream) == STREAM
    assert "the observer's own" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"sizes": 7}, TypeError, r"\(1, 7\), not 7"),
        ({"sizes": (1, 2, 3)}, TypeError, "pair"),
        ({"sizes": (1.5, 2)}, TypeError, "pair"),
        ({"sizes": (0, 7)}, ValueError, r"at least 1 and in this order, not \(0, 7\)"),
        ({"sizes": (7, 1)}, ValueError, "in this order"),
        ({"sizes": (1, 7), "delay": -1}, ValueError, "delay must be 0 or more seconds, not -1"),
        ({"sizes": (1, 7), "delay": "1"}, TypeError, "delay must be a number of seconds, not '1'"),
        ({"sizes": (1, 7), "delay": float("nan")}, ValueError, "delay"),
        ({"sizes": (1, 7), "listen": ("127.0.0.1", 70_000)}, Exception, "70000"),
    ],
)
def test_ChunkingProxy_refuses_invalid_arguments(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        ChunkingProxy(("127.0.0.1", 1), **options)


@pytest.mark.parametrize(
    ("upstream", "error", "text"),
    [
        ("127.0.0.1:80", ValueError, "looks like a host and a port"),
        (80, TypeError, "an address is .*, not 80"),
        (("127.0.0.1", 65536), OverflowError, "port must be 0-65535"),
        ("tls://127.0.0.1:443", ValueError, "upstream must be an address without TLS"),
    ],
)
def test_ChunkingProxy_refuses_an_upstream_before_a_client_comes(
    upstream: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        ChunkingProxy(upstream, sizes=(1, 7))


def test_ChunkingProxy_leaves_nothing_open_if_it_cannot_start(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="new thread"):
        ChunkingProxy(server.getsockname(), sizes=(1, 7))

    def fail_to_open() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socketpair", fail_to_open)
    with pytest.raises(OSError, match="too many"):
        ChunkingProxy(server.getsockname(), sizes=(1, 7))


def test_ChunkingProxy_survives_a_lack_of_descriptors(server: socket.socket) -> None:
    class Failing:
        def __init__(self, listener: Any) -> None:
            self.listener = listener
            self.failures = 3

        def accept(self) -> Any:
            self.failures -= 1
            if self.failures >= 0:
                raise OSError(errno.EMFILE, "too many open files")
            return self.listener.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.listener, name)

    with ChunkingProxy(server.getsockname(), sizes=(1, 7)) as proxy:
        proxy._listener = failing = Failing(proxy._listener)
        assert connect_and_read_hello(proxy.address, server) == b"h"
        assert failing.failures == -1


def connect_and_read_hello(address: Any, server: socket.socket) -> bytes:
    with socket.create_connection(address, TIMEOUT) as client:
        client.sendall(b"hello")
        upstream, _ = server.accept()
        with upstream:
            return upstream.recv(1)


def test_ChunkingProxy_survives_a_lack_of_threads(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ChunkingProxy(server.getsockname(), sizes=(1, 7)) as proxy:
        start: Callable[..., None] = threading.Thread.start

        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(ConnectionError):
                connect_and_read(proxy.address)
        assert threading.Thread.start is start
        assert "cannot start a thread" in caplog.text
        assert connect_and_read_hello(proxy.address, server) == b"h"
