"""Forms of an address, peers named in errors and `repr`, TLS of `connect` and `listen`."""

# ruff: noqa: SIM117 (a listener and its connections are two levels)

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import framecodec
from framecodec import Codec, FrameSocket
from framecodec._peers import name_address, name_peer, peer_name
from framecodec.asyncio import (
    FrameProtocol,
    FrameStream,
    open_connection,
    open_unix_connection,
    start_server,
)
from framecodec.sockets import listener as listener_module
from tests.helpers.event_loops import LOOPS, echo, run
from tests.helpers.fault_injection import reset
from tests.helpers.servers import LOOPBACK, PATIENCE, dial

CODEC = Codec.digits(2)


def free_port() -> int:
    with socket.create_server(LOOPBACK) as sock:
        port: int = sock.getsockname()[1]
        return port


# --- forms ----------------------------------------------------------------------------------------

Call = tuple[tuple[Any, ...], dict[str, Any]]

FORMS: dict[str, Callable[[str, int], Call]] = {
    "tuple": lambda host, port: (((host, port),), {"codec": CODEC}),
    "tuple, codec": lambda host, port: (((host, port), CODEC), {}),
    "host, port": lambda host, port: ((host, port), {"codec": CODEC}),
    "url": lambda host, port: ((f"tcp://{host}:{port}",), {"codec": CODEC}),
    "url, codec": lambda host, port: ((f"tcp://{host}:{port}", CODEC), {}),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@every_form
def test_connect_and_listen_take_every_form(form: Callable[[str, int], Call]) -> None:
    positional, named = form("127.0.0.1", 0)
    with framecodec.listen(*positional, **named) as listener:
        assert listener.codec == CODEC
        positional, named = form(*listener.address)
        with framecodec.connect(*positional, **named) as conn, listener.accept() as other:
            conn.send(b"x")
            assert other.recv() == b"x"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
@pytest.mark.parametrize("prefix", ["", "unix:"])
def test_connect_and_listen_take_paths(tmp_path: Path, prefix: str) -> None:
    path = str(tmp_path / "s:1")  # a colon and digits after a slash are no port
    with framecodec.listen(prefix + path, CODEC) as listener:
        with framecodec.connect(prefix + path, CODEC) as conn, listener.accept() as other:
            conn.send(b"x")
            assert other.recv() == b"x"
            assert f"peer={path}" in repr(conn)
            assert f"peer={path}" in repr(other)


@pytest.mark.parametrize("function", [framecodec.connect, framecodec.listen])
@pytest.mark.parametrize("address", ["127.0.0.1:6000", "localhost:6000", ":6000", "[::1]:6000"])
def test_a_plain_text_like_host_and_port_is_refused(
    function: Callable[..., Any], address: str
) -> None:
    with pytest.raises(ValueError, match="looks like a host and a port") as caught:
        function(address)
    assert f"'tcp://{address}'" in str(caught.value)


@pytest.mark.parametrize("function", [framecodec.connect, framecodec.listen])
@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("localhost", "tcp://localhost:PORT"),
        ("127.0.0.1", "tcp://127.0.0.1:PORT"),
        ("::1", "tcp://[::1]:PORT"),
    ],
)
def test_a_plain_host_without_a_port_is_refused(
    function: Callable[..., Any], address: str, url: str
) -> None:
    with pytest.raises(ValueError, match="is a host without a port") as caught:
        function(address)
    assert f"({address!r}, PORT), {url!r}, or 'unix:{address}'" in str(caught.value)


@pytest.mark.parametrize("function", [framecodec.connect, framecodec.listen])
def test_an_unknown_scheme_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="unknown scheme; write tcp://HOST:PORT"):
        function("http://localhost:80")


@pytest.mark.parametrize("function", [framecodec.connect, framecodec.listen])
@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1", "tcp://h:1/x", "tcp://h:99999", "tls://u@h:1", "tcp://h:1?x"]
)
def test_a_bad_url_is_refused(function: Callable[..., Any], address: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a server"):
        function(address)


@pytest.mark.parametrize("function", [framecodec.connect, framecodec.listen])
def test_other_objects_are_no_addresses(function: Callable[..., Any]) -> None:
    for bad in (17, None, ("h",), ("h", 1, 2)):
        with pytest.raises(TypeError, match="an address is"):
            function(bad)
    with pytest.raises(TypeError, match="the codec was given twice"):
        function(LOOPBACK, CODEC, codec=CODEC)
    with pytest.raises(TypeError, match="codec"):
        function("127.0.0.1", "6000")
    with pytest.raises(OverflowError):
        function("127.0.0.1", 70_000)


# --- names ----------------------------------------------------------------------------------------


def test_a_refused_connection_names_the_address(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(ConnectionRefusedError, match=f"127.0.0.1:{port}"):
        framecodec.connect("127.0.0.1", port)
    path = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=path):
        framecodec.connect(path)
    with framecodec.listen(LOOPBACK) as listener:
        with pytest.raises(OSError, match=f"127.0.0.1:{listener.address[1]}"):
            framecodec.listen(listener.address)


def test_peer_name() -> None:
    assert peer_name(("10.0.0.1", 5), None) == "10.0.0.1:5"
    assert peer_name(("::1", 5, 0, 0), None) == "[::1]:5"
    assert peer_name("", b"/run/s") == "/run/s"
    assert peer_name("", None) == ""


def test_name_peer_appends_once_and_survives_pickling() -> None:
    for error in (
        OSError(errno.ECONNRESET, "reset"),
        EOFError("the end"),
        framecodec.InvalidFrameError("bad", stream_offset=3),
        framecodec.MessageTimeoutError("slow", timeout=2.0),
        ssl.SSLError(1, "tls"),
    ):
        text = str(error)
        for _ in range(2):
            assert name_peer(error, "h:1") is error
        assert str(error) == f"{text} (peer h:1)"
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert str(name_peer(error, "")) == f"{text} (peer h:1)"
    assert str(name_address(EOFError("no h:1"), "h:1")) == "no h:1"
    assert name_address(ValueError("two", "parts"), "h:1").args == ("two", "parts")
    assert str(name_peer(BlockingIOError(errno.EAGAIN, "later"), "h:1")).endswith("later")


@pytest.fixture
def pair() -> Iterator[tuple[FrameSocket, FrameSocket]]:
    with framecodec.listen(LOOPBACK, CODEC) as listener:
        with dial(listener.address, codec=CODEC) as near, listener.accept() as far:
            yield near, far


def test_repr_names_the_peer_and_so_it_does_when_closed(
    pair: tuple[FrameSocket, FrameSocket],
) -> None:
    near, far = pair
    port = far.getsockname()[1]
    assert f"peer=127.0.0.1:{port}, Codec" in repr(near)
    near.close()
    assert f"closed peer=127.0.0.1:{port}," in repr(near)


def of_a_bad_frame(near: FrameSocket, far: FrameSocket) -> Any:
    far.socket.sendall(b"no")
    return near.recv


def of_a_clean_end(near: FrameSocket, far: FrameSocket) -> Any:
    far.close()
    return near.recv


def of_an_end_inside_a_frame(near: FrameSocket, far: FrameSocket) -> Any:
    far.socket.sendall(b"05a")
    far.close()
    return near.recv_many


def of_an_end_in_recv_into(near: FrameSocket, far: FrameSocket) -> Any:
    far.socket.sendall(b"05a")
    far.close()
    return lambda: near.recv_into(bytearray(10))


def of_a_reset(near: FrameSocket, far: FrameSocket) -> Any:
    reset(far.socket)
    return lambda: list(near)


def of_a_time_out(near: FrameSocket, far: FrameSocket) -> Any:
    near.settimeout(0.01)
    return near.recv


def of_a_failed_send(near: FrameSocket, far: FrameSocket) -> Any:
    reset(far.socket)
    time.sleep(0.05)  # the reset has arrived
    return lambda: near.send(b"x")


def of_a_failed_send_of_many(near: FrameSocket, far: FrameSocket) -> Any:
    reset(far.socket)
    time.sleep(0.05)
    return lambda: near.send_many([b"x", b"y"])


def of_a_close_on_this_side(near: FrameSocket, far: FrameSocket) -> Any:
    near.close()
    return near.recv


def of_a_send_after_a_close(near: FrameSocket, far: FrameSocket) -> Any:
    near.close()
    return lambda: near.send(b"x")


FAILURES = [
    of_a_bad_frame,
    of_a_clean_end,
    of_an_end_inside_a_frame,
    of_an_end_in_recv_into,
    of_a_reset,
    of_a_time_out,
    of_a_failed_send,
    of_a_failed_send_of_many,
    of_a_close_on_this_side,
    of_a_send_after_a_close,
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: one.__name__[3:])
def test_every_error_of_a_connection_names_the_peer_once(
    failure: Any, pair: tuple[FrameSocket, FrameSocket]
) -> None:
    near, far = pair
    name = f"(peer 127.0.0.1:{near.getpeername()[1]})"
    call = failure(near, far)
    for _ in range(2):
        with pytest.raises((EOFError, OSError, framecodec.FrameError)) as caught:
            call()
        assert str(caught.value).count("peer 127") == 1
        assert name in str(caught.value)


def test_errors_of_a_nameless_peer_have_no_suffix() -> None:
    near, far = socket.socketpair()
    far.close()
    with FrameSocket(near) as conn:
        with pytest.raises(EOFError) as caught:
            conn.recv()
        assert "peer " not in repr(conn)
    assert str(caught.value) == "the peer closed the connection; the last frame was whole"


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts() -> tuple[Any, Any]:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def echo_one(listener: framecodec.Listener, outcome: list[Any]) -> None:
    with listener.accept() as conn:
        conn.settimeout(PATIENCE)
        try:
            conn.send(conn.recv())
        except Exception as error:
            outcome.append(error)


@pytest.mark.parametrize(("hostname", "timeout"), [(None, PATIENCE), ("localhost", None)])
def test_connect_and_listen_over_tls(
    contexts: tuple[Any, Any], hostname: str | None, timeout: float | None
) -> None:
    server_context, client_context = contexts
    outcome: list[Any] = []
    with framecodec.listen("tls://127.0.0.1:0", ssl=server_context) as listener:
        thread = threading.Thread(target=echo_one, args=(listener, outcome))
        thread.start()
        with framecodec.connect(
            listener.address, ssl=client_context, server_hostname=hostname, timeout=timeout
        ) as conn:
            conn.send(b"x" * 100_000)
            assert conn.recv() == b"x" * 100_000
        thread.join(PATIENCE)
    assert not outcome


def test_accept_does_not_wait_for_a_handshake(contexts: tuple[Any, Any]) -> None:
    with framecodec.listen(LOOPBACK, ssl=contexts[0]) as listener:
        listener.settimeout(PATIENCE)
        with socket.create_connection(listener.address) as silent:
            with listener.accept() as conn:  # while the client says nothing
                conn.settimeout(0.01)
                with pytest.raises(TimeoutError):
                    conn.recv()
                silent.sendall(b"this is no handshake")
                conn.settimeout(PATIENCE)
                with pytest.raises(ssl.SSLError, match="peer 127"):
                    conn.recv()


def test_connect_refuses_a_wrong_certificate_and_names_the_address(
    contexts: tuple[Any, Any],
) -> None:
    server_context, _ = contexts
    outcome: list[Any] = []
    with framecodec.listen(LOOPBACK, ssl=server_context) as listener:
        thread = threading.Thread(target=echo_one, args=(listener, outcome))
        thread.start()
        host, port = listener.address
        with pytest.raises(ssl.SSLCertVerificationError, match=f"127.0.0.1:{port}"):
            framecodec.connect(f"tls://{host}:{port}", timeout=PATIENCE)
        thread.join(PATIENCE)
    assert isinstance(outcome[0], ssl.SSLError)


def test_connect_bounds_the_handshake_by_the_timeout(contexts: tuple[Any, Any]) -> None:
    with socket.create_server(LOOPBACK) as silent:
        with pytest.raises(TimeoutError, match="address 127"):
            framecodec.connect(silent.getsockname(), ssl=contexts[1], timeout=0.05)


def test_arguments_of_tls_are_checked() -> None:
    with pytest.raises(ValueError, match="needs a certificate"):
        framecodec.listen("tls://127.0.0.1:0")
    with pytest.raises(ValueError, match="server_hostname is for TLS"):
        framecodec.connect(LOOPBACK, server_hostname="localhost")


# --- a listener that cannot accept ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOBUFS", "ECONNABORTED"])
def test_iteration_over_a_listener_continues_after_a_passing_failure(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(listener_module, "sleep", pauses.append)
    number = getattr(errno, name)
    with framecodec.listen(LOOPBACK, CODEC) as listener:
        accept = listener._accept
        failures = [OSError(number, "injected") for _ in range(3)]

        def failing(_self: Any) -> Any:
            if failures:
                raise failures.pop()
            return accept()

        monkeypatch.setattr(framecodec.Listener, "_accept", failing)
        with pytest.raises(OSError, match="injected"):
            listener.accept()
        with dial(listener.address, codec=CODEC) as conn:
            conn.send(b"x")
            with next(iter(listener)) as other:
                assert other.recv() == b"x"
    assert pauses == [0.01, 0.02]
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert all(text.startswith("cannot accept a connection on 127.0.0.1:") for text in texts)


def test_iteration_over_a_listener_raises_other_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_self: Any) -> Any:
        raise OSError(errno.EPERM, "injected")

    with framecodec.listen(LOOPBACK) as listener:
        monkeypatch.setattr(framecodec.Listener, "_accept", failing)
        with pytest.raises(PermissionError):
            next(iter(listener))


# --- event loops ----------------------------------------------------------------------------------


@every_form
@LOOPS
def test_open_connection_and_start_server_take_every_form(
    loop: str, form: Callable[[str, int], Call]
) -> None:
    async def main() -> None:
        positional, named = form("127.0.0.1", 0)
        async with start_server(echo, *positional, **named) as server:
            positional, named = form(*server.address)
            async with open_connection(*positional, **named) as stream:
                assert stream.codec == CODEC
                await stream.send(b"x")
                assert await stream.recv() == b"x"

    run(loop, main())


@LOOPS
@pytest.mark.parametrize("prefix", ["", "unix:"])
def test_open_connection_and_start_server_take_paths(
    loop: str, prefix: str, tmp_path: Path
) -> None:
    async def main() -> None:
        path = str(tmp_path / "s:1")
        async with start_server(echo, prefix + path, CODEC) as server:
            assert server.address == path
            async with open_connection(prefix + path, CODEC) as stream:
                await stream.send(b"x")
                assert await stream.recv() == b"x"
                assert f"peer={path}" in repr(stream)

    run(loop, main())


@LOOPS
def test_start_server_takes_hosts_as_asyncio_does(loop: str) -> None:
    async def main() -> None:
        for host in (None, ["127.0.0.1"], ("127.0.0.1", "localhost")):
            async with start_server(echo, host, 0, codec=CODEC) as server:
                assert server.address[1]

    run(loop, main())


@LOOPS
def test_open_connection_is_a_coroutine_for_who_needs_one(loop: str) -> None:
    async def main() -> None:
        async with start_server(echo, *LOOPBACK) as server:
            streams = [
                await open_connection(server.address),
                await asyncio.wait_for(open_connection(server.address), PATIENCE),
                await asyncio.create_task(open_connection(server.address)),
                *await asyncio.gather(open_connection(server.address)),
            ]
            for stream in streams:
                await stream.send(b"x")
                assert await stream.recv() == b"x"
                await stream.aclose()
            async with await open_connection(server.address) as stream:
                await stream.send(b"x")
            server.close()

    run(loop, main())


@LOOPS
def test_async_with_open_connection_closes_the_stream_and_raises(loop: str) -> None:
    async def main() -> None:
        async with start_server(echo, *LOOPBACK) as server:
            with pytest.raises(LookupError):
                async with open_connection(server.address) as stream:
                    raise LookupError
            with pytest.raises(ConnectionError):
                await stream.send(b"x")
        with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1"):
            async with open_connection(server.address):
                pass

    run(loop, main())


@LOOPS
def test_an_unused_address_is_named_in_event_loops(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        with pytest.raises(OSError, match=f"{port}"):
            await open_connection("127.0.0.1", port)
        path = str(tmp_path / "missing")
        for opening in (open_connection(path), open_unix_connection(path)):
            with pytest.raises(FileNotFoundError, match=path):
                await opening
        async with start_server(echo, *LOOPBACK) as server:
            with pytest.raises(OSError, match=f"{server.address[1]}"):
                await start_server(echo, server.address)

    run(loop, main())


@pytest.mark.parametrize("function", [open_connection, functools.partial(start_server, echo)])
def test_bad_addresses_are_refused_in_event_loops(function: Any) -> None:
    with pytest.raises(ValueError, match="looks like a host and a port"):
        function("127.0.0.1:6000")
    with pytest.raises(ValueError, match="is not the address of a server"):
        function("tcp://127.0.0.1")
    with pytest.raises(TypeError, match="an address is"):
        function(17)
    with pytest.raises(TypeError, match="the codec was given twice"):
        function(LOOPBACK, CODEC, codec=CODEC)
    with pytest.raises(ValueError, match="keepalive must be True"):
        function(LOOPBACK, keepalive=-1)


def test_start_server_needs_a_certificate_for_a_tls_url() -> None:
    with pytest.raises(ValueError, match="needs a certificate"):
        start_server(echo, "tls://127.0.0.1:0")


@LOOPS
def test_event_loops_speak_tls_by_url(loop: str, contexts: tuple[Any, Any]) -> None:
    server_context, client_context = contexts

    async def main() -> None:
        async with start_server(echo, "tls://127.0.0.1:0", ssl=server_context) as server:
            port = server.address[1]
            async with open_connection(
                f"tls://127.0.0.1:{port}", ssl=client_context, server_hostname="localhost"
            ) as stream:
                await stream.send(b"x")
                assert await stream.recv() == b"x"
            with pytest.raises(ssl.SSLCertVerificationError, match=f"127.0.0.1:{port}"):
                await open_connection(f"tls://127.0.0.1:{port}")

    run(loop, main())


async def stream_and_peer() -> tuple[FrameStream, socket.socket]:
    with socket.create_server(LOOPBACK) as server:
        stream = await open_connection(server.getsockname(), CODEC)
        return stream, server.accept()[0]


@LOOPS
@pytest.mark.parametrize("failure", ["frame", "end", "half", "reset", "send", "closed"])
def test_every_error_of_a_stream_names_the_peer_once(loop: str, failure: str) -> None:
    async def main() -> None:
        stream, far = await stream_and_peer()
        name = "(peer {}:{})".format(*far.getsockname())
        assert f"peer={name[6:-1]}" in repr(stream)
        if failure == "frame":
            far.sendall(b"no")
        elif failure == "half":
            far.sendall(b"05a")
        if failure in ("reset", "send"):
            reset(far)
        elif failure in ("end", "half"):
            far.close()
        elif failure == "closed":
            await stream.aclose()
        if failure == "send":
            with contextlib.suppress(EOFError, OSError):
                await stream.recv()
        for _ in range(2):
            call = stream.send(b"x") if failure == "send" else stream.recv()
            with pytest.raises((EOFError, OSError, framecodec.FrameError)) as caught:
                await call
            assert str(caught.value).count("peer 127") == 1
            assert name in str(caught.value)
        await stream.aclose()
        far.close()

    run(loop, main())


@LOOPS
def test_connection_lost_gets_an_error_that_names_the_peer(loop: str) -> None:
    async def main() -> None:
        ended: list[Any] = []

        class Protocol(FrameProtocol):
            def connection_lost(self, exc: Any) -> None:
                ended.append(exc)

        with socket.create_server(LOOPBACK) as server:
            address = server.getsockname()
            for data in (b"no", b"05a"):
                await asyncio.get_running_loop().create_connection(
                    lambda: Protocol(CODEC), *address
                )
                with server.accept()[0] as far:
                    far.sendall(data)
        while len(ended) < 2:
            await asyncio.sleep(0.001)
        for error in ended:
            assert str(error).endswith(f"(peer {address[0]}:{address[1]})")

    run(loop, main())
