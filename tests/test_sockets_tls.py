"""The same interface over real TLS, with certificates made here."""

# ruff: noqa: SIM117

from __future__ import annotations

import contextlib
import io
import os
import random
import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

ssl = pytest.importorskip("ssl")
trustme = pytest.importorskip("trustme")

from framecodec import (  # noqa: E402
    Codec,
    FrameSocket,
    IncompleteFrameError,
    connect,
    listen,
)
from framecodec.sockets import wire as wire_module  # noqa: E402
from tests.helpers.fault_injection import (  # noqa: E402
    TIMEOUT,
    Interruption,
    disturbed,
    needs_signals_to_threads,
    reset,
    stream_pair,
)

pytestmark = pytest.mark.usefixtures("engine_in_use")


@pytest.fixture(scope="module")
def contexts() -> tuple[Any, Any]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


@contextlib.contextmanager
def tls_pair(contexts: tuple[Any, Any], kind: str = "tcp") -> Iterator[tuple[Any, Any]]:
    """Two ends of a TLS connection: the server's and the client's."""
    with stream_pair(kind) as (left, right):
        right.settimeout(TIMEOUT)
        found: list[Any] = []
        thread = threading.Thread(
            target=lambda: found.append(contexts[0].wrap_socket(left, server_side=True))
        )
        thread.start()
        client = contexts[1].wrap_socket(right, server_hostname="localhost")
        thread.join(TIMEOUT)
        with found[0] as server, client:
            yield server, client


@pytest.mark.parametrize("kind", ["tcp", "socketpair"])
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_tls_keeps_messages_of_every_size_whole(contexts: Any, kind: str, timeout: Any) -> None:
    messages = [os.urandom(size) for size in (0, 1, 100, 4096, 16_384, 70_000, 2_000_000)]
    with tls_pair(contexts, kind) as (left, right):
        with FrameSocket(left) as one, FrameSocket(right) as other:
            one.settimeout(timeout)
            other.settimeout(timeout)

            def send() -> None:
                for message in messages:
                    one.send(message)
                one.send_many(messages)

            thread = threading.Thread(target=send)
            thread.start()
            assert [other.recv() for _ in messages * 2] == messages * 2
            thread.join(TIMEOUT)


def test_tls_works_both_ways_at_once(contexts: Any) -> None:
    rng = random.Random(7)
    messages = [rng.randbytes(rng.choice([10, 5000, 100_000])) for _ in range(60)]
    with tls_pair(contexts) as (left, right):
        with FrameSocket(left) as one, FrameSocket(right) as other:
            found: dict[str, list[bytes]] = {"one": [], "other": []}

            def receive(name: str, conn: FrameSocket) -> None:
                found[name] += [conn.recv() for _ in messages]

            threads = [
                threading.Thread(target=receive, args=("one", one)),
                threading.Thread(target=receive, args=("other", other)),
                threading.Thread(target=lambda: [one.send(message) for message in messages]),
                threading.Thread(target=lambda: [other.send(message) for message in messages]),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT)
            assert found == {"one": messages, "other": messages}


def test_tls_recv_that_would_wait_raises_both_kinds_of_error(contexts: Any) -> None:
    with tls_pair(contexts) as (left, right):
        with FrameSocket(left) as one, FrameSocket(right) as other:
            one.setblocking(False)
            with pytest.raises(BlockingIOError) as caught:
                one.recv()
            assert isinstance(caught.value, ssl.SSLWantReadError)
            one.settimeout(0.01)
            with pytest.raises(TimeoutError):
                one.recv()
            large = os.urandom(8 << 20)
            with pytest.raises(TimeoutError) as late:
                one.send(large)
            assert late.value.message_started is True  # type: ignore[attr-defined]
            one.settimeout(TIMEOUT)
            thread = threading.Thread(target=one.send, args=(b"next",))
            thread.start()
            assert other.recv() == large
            assert other.recv() == b"next"
            thread.join(TIMEOUT)


def test_tls_recv_finds_decrypted_messages(
    contexts: Any,
) -> None:
    messages = [b"%d" % number * 50 for number in range(400)]
    with tls_pair(contexts) as (left, right):
        with FrameSocket(left) as one, FrameSocket(right, read_ahead=False) as other:
            one.send_many(messages)
            assert [other.recv() for _ in messages] == messages


def test_tls_send_file_and_recv_file(contexts: Any) -> None:
    data = os.urandom(1_000_000)
    with tls_pair(contexts) as (left, right), tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        with FrameSocket(left) as one, FrameSocket(right) as other:
            thread = threading.Thread(target=lambda: [one.send_file(file), one.send(data)])
            thread.start()
            copy, buffer = io.BytesIO(), bytearray(len(data))
            assert other.recv_file(copy) == len(data)
            assert other.recv_into(buffer) == len(data)
            thread.join(TIMEOUT)
            assert (copy.getvalue(), buffer) == (data, data)


def test_tls_clean_close_is_a_clean_end(contexts: Any) -> None:
    with tls_pair(contexts) as (left, right), FrameSocket(right) as other:
        with FrameSocket(left) as one:
            one.send(b"last")
        assert list(other) == [b"last"]


@pytest.mark.parametrize("cut", [0, 2, 6])
def test_tls_end_without_a_goodbye_depends_on_the_frames(contexts: Any, cut: int) -> None:
    frame = Codec.uint(4).encode(b"hello")
    with tls_pair(contexts) as (left, right), FrameSocket(right) as other:
        left.sendall(frame + frame[:cut])
        socket.socket.shutdown(left, socket.SHUT_RDWR)
        assert other.recv() == b"hello"
        with pytest.raises(IncompleteFrameError if cut else EOFError) as caught:
            other.recv()
        assert isinstance(caught.value, IncompleteFrameError) == bool(cut)


def test_tls_close_wakes_a_thread_and_a_half_close_is_refused(contexts: Any) -> None:
    with tls_pair(contexts) as (left, _), FrameSocket(left) as one:
        with pytest.raises(OSError, match="one direction"):
            one.shutdown(socket.SHUT_WR)
        found: list[BaseException] = []

        def wait() -> None:
            try:
                one.recv()
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.02)
        one.close()
        thread.join(TIMEOUT)
        assert isinstance(found[0], ConnectionAbortedError)


@pytest.mark.parametrize("data", [b"", b"\x16\3\1"], ids=["at once", "after some bytes"])
def test_tls_listener_drops_a_client_that_has_left(contexts: Any, data: bytes) -> None:
    def dial() -> None:
        with connect(listener.address, ssl=contexts[1], server_hostname="localhost") as conn:
            conn.send(b"hello")

    with listen(("127.0.0.1", 0), ssl=contexts[0]) as listener:
        listener.settimeout(TIMEOUT)
        for _ in range(2):
            gone = socket.create_connection(listener.address)
            gone.sendall(data)
            reset(gone)
        client = threading.Thread(target=dial)
        client.start()
        for conn in listener:
            with conn:
                conn.settimeout(TIMEOUT)
                assert conn.recv() == b"hello"
            break
        client.join(TIMEOUT)


class RefusingContext(ssl.SSLContext):
    def wrap_socket(self, *arguments: Any, **options: Any) -> Any:
        raise ssl.SSLError("no more sessions")


def test_tls_listener_raises_what_its_context_refuses() -> None:
    with listen(("127.0.0.1", 0), ssl=RefusingContext(ssl.PROTOCOL_TLS_SERVER)) as listener:
        with socket.create_connection(listener.address):
            with pytest.raises(ssl.SSLError, match="no more sessions"):
                listener.accept()


def test_tls_recv_without_waiting_parses_what_is_decrypted(
    contexts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "LONGEST_TURN", 0.0)  # each turn ends after two receives
    codec = Codec.text(b":", trailer=b",")
    with tls_pair(contexts) as (left, right), FrameSocket(right, codec) as other:
        other.read_ahead = False  # a header is received byte by byte
        left.sendall(codec.encode(b"x" * 1000))
        other.settimeout(0)
        while True:
            with contextlib.suppress(BlockingIOError):
                assert other.recv() == b"x" * 1000
                break
            select.select([right], [], [], TIMEOUT)
        with pytest.raises(BlockingIOError):
            other.recv()


def test_tls_starttls_after_detach(contexts: Any) -> None:
    with stream_pair("tcp") as (left, right):
        right.settimeout(TIMEOUT)
        one, other = FrameSocket(left), FrameSocket(right, read_ahead=False)
        one.send(b"STARTTLS")
        assert other.recv() == b"STARTTLS"
        found: list[Any] = []

        def wrap() -> None:
            found.append(contexts[0].wrap_socket(other.detach()[0], server_side=True))

        thread = threading.Thread(target=wrap)
        thread.start()
        plain, unread = one.detach()
        assert unread == b""
        client = contexts[1].wrap_socket(plain, server_hostname="localhost")
        thread.join(TIMEOUT)
        with FrameSocket(client) as one, FrameSocket(found[0]) as other:
            one.send(b"secret")
            assert other.recv() == b"secret"


def test_tls_under_selectors_waits_for_whole_messages(contexts: Any) -> None:
    frame = Codec.uint(4).encode(b"in many records")
    with tls_pair(contexts) as (left, right), FrameSocket(right) as other:
        other.setblocking(False)
        found: list[bytes] = []
        for byte in frame:
            left.sendall(bytes([byte]))
            assert select.select([other], [], [], TIMEOUT)[0]
            with contextlib.suppress(BlockingIOError):
                found.append(other.recv())
        assert found == [b"in many records"]


def test_tls_clean_end_sticks(contexts: Any) -> None:
    with tls_pair(contexts) as (left, right), FrameSocket(right) as other:
        with FrameSocket(left) as one:
            one.send_many([b"hello", b"byebye"])
        assert [other.recv(), other.recv()] == [b"hello", b"byebye"]
        for call in (other.recv, other.recv_many, lambda: other.recv_into(bytearray(10))) * 2:
            with pytest.raises(EOFError) as caught:
                call()
            assert type(caught.value) is EOFError
        assert list(other) == []


@pytest.mark.parametrize("way", ["file", "buffer"])
@pytest.mark.parametrize("at", [4, 1004, 500_000, 1_000_004])
def test_tls_end_inside_a_large_message_is_an_error(contexts: Any, way: str, at: int) -> None:
    stream = Codec.uint(4).encode(bytes(1_000_000)) + b"T"
    codec = Codec.uint(4, trailer=b"T")
    with tls_pair(contexts) as (left, right), FrameSocket(right, codec) as other:
        other.settimeout(TIMEOUT)

        def send() -> None:
            left.sendall(stream[:at])
            socket.socket.close(left)  # without the goodbye of TLS

        thread = threading.Thread(target=send)
        thread.start()
        for _ in range(2):
            receive, target = {
                "file": (other.recv_file, io.BytesIO()),
                "buffer": (other.recv_into, bytearray(1_000_000)),
            }[way]
            with pytest.raises(IncompleteFrameError) as caught:
                receive(target)
            assert caught.value.where == ("trailer" if at == 1_000_004 else "rest")
            assert (caught.value.received, caught.value.needed) == (at, len(stream))
        with pytest.raises(IncompleteFrameError):
            other.recv()
        thread.join(TIMEOUT)


# --- signals whose handlers raise -----------------------------------------------------------------


def numbered_messages(seed: int) -> Iterator[bytes]:
    """Yield many messages: a test takes 100, and more until it was interrupted."""
    rng = random.Random(seed)
    for number in range(5_000):
        yield b"%04d" % number + rng.randbytes(rng.choice([0, 1000, 30_000, 300_000]))


@needs_signals_to_threads
@pytest.mark.parametrize("seed", range(3))
def test_tls_send_tears_no_frame_if_a_handler_raises(contexts: Any, seed: int) -> None:
    sent: list[bytes] = []
    whole: list[bytes] = []
    none: list[bytes] = []
    got: list[bytes] = []
    armed: list[bool] = []
    interruptions = 0
    with tls_pair(contexts) as (left, right), FrameSocket(left) as one, FrameSocket(right) as other:
        one.settimeout(TIMEOUT)
        thread = threading.Thread(target=lambda: got.extend(iter(other.recv, b"end")))
        thread.start()
        with disturbed(armed):
            for message in numbered_messages(seed):
                if len(sent) >= 100 and interruptions:
                    break
                sent.append(message)
                try:
                    armed.append(True)
                    one.send(message)
                    armed.clear()
                    whole.append(message)
                except Interruption as interruption:
                    armed.clear()
                    interruptions += 1
                    # It has no such attribute if it came before or after the call.
                    started = getattr(interruption, "message_started", None)
                    if started is not None:
                        (whole if started else none).append(message)
        one.send(b"end")
        thread.join(TIMEOUT)
    assert interruptions
    assert got == [message for message in sent if message in set(got)]
    assert set(whole) <= set(got)
    assert not set(none) & set(got)


@needs_signals_to_threads
@pytest.mark.parametrize("seed", range(3))
def test_tls_recv_loses_nothing_if_a_handler_raises(contexts: Any, seed: int) -> None:
    sent: list[bytes] = []
    armed: list[bool] = []
    got: list[bytes] = []
    interruptions = 0

    def send_all() -> None:
        for message in numbered_messages(seed):
            if len(sent) >= 100 and interruptions:
                break
            sent.append(message)
            one.send(message)
        one.send(b"end")

    with tls_pair(contexts) as (left, right), FrameSocket(left) as one, FrameSocket(right) as other:
        one.settimeout(TIMEOUT)
        other.settimeout(TIMEOUT)
        thread = threading.Thread(target=send_all)
        thread.start()
        with disturbed(armed):
            while got[-1:] != [b"end"]:
                try:
                    armed.append(True)
                    message = other.recv()
                    armed.clear()
                    got.append(message)
                except Interruption:
                    armed.clear()
                    interruptions += 1
        thread.join(TIMEOUT)
    assert got == [*sent, b"end"]
    assert interruptions


class RaisingAfter:
    """The C-level object of a TLS connection, where a handler raises after the next call."""

    def __init__(self, tls: Any, kind: type[BaseException]) -> None:
        self._tls = tls
        self._kind = kind
        self.shutdown = tls.shutdown

    def read(self, *arguments: Any) -> int:
        self._tls.read(*arguments)
        raise self._kind

    def write(self, *arguments: Any) -> int:
        self._tls.write(*arguments)
        raise self._kind


@pytest.mark.parametrize("kind", [Interruption, MemoryError])
@pytest.mark.parametrize("direction", ["send", "recv", "recv_into"])
def test_tls_ends_both_directions_if_its_progress_is_unknown(
    contexts: Any, direction: str, kind: type[BaseException]
) -> None:
    with tls_pair(contexts) as (left, right), FrameSocket(left) as one, FrameSocket(right) as other:
        other.send(b"hello")
        if direction == "recv_into":  # after the bytes that the splitter has taken
            other.send(bytes(1_000_000))
            assert one.recv() == b"hello"
        one._wire.tls = RaisingAfter(one._wire.tls, kind)
        one.settimeout(TIMEOUT)
        call = {
            "send": lambda: one.send(b"hello"),
            "recv": one.recv,
            "recv_into": lambda: one.recv_into(bytearray(1_000_000)),
        }[direction]
        with pytest.raises(kind):
            call()
        for again in (call, lambda: one.send(b"x"), one.recv):
            with pytest.raises(ConnectionAbortedError, match="inside a TLS record"):
                again()
