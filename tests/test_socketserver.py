"""The standard library's servers, with a handler of whole messages."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import socketserver
import struct
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

import framecodec
from framecodec import (
    Codec,
    DatagramSocket,
    FrameError,
    FrameSocket,
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
    MessageTooLargeError,
    TruncatedDatagramError,
)
from framecodec.socketserver import FrameRequestHandler
from tests.helpers.subprocesses import finish, printed_port, running

TIMEOUT = 20.0  # seconds; of every wait that a passing test does not need

STREAM_SERVERS = [
    socketserver.TCPServer,
    socketserver.ThreadingTCPServer,
    socketserver.UnixStreamServer,
    socketserver.ThreadingUnixStreamServer,
]
DATAGRAM_SERVERS = [
    socketserver.UDPServer,
    socketserver.ThreadingUDPServer,
    socketserver.UnixDatagramServer,
    socketserver.ThreadingUnixDatagramServer,
]


class Shout(FrameRequestHandler):
    """Answers in capitals; to nothing with nothing, and to "fail" not at all."""

    def handle_message(self, message: bytes) -> bytes | None:
        if message == b"fail":
            raise LookupError("the handler failed")
        return message.upper() or None


class Running(threading.Thread):
    """A server in a thread, and the errors of its handlers."""

    def __init__(self, server_class: type[Any], handler: type[FrameRequestHandler], folder: str):
        super().__init__()
        self.errors: list[BaseException] = []
        self.failed = threading.Semaphore(0)
        found = self

        class Server(server_class):  # type: ignore[misc]
            daemon_threads = False  # so that the end waits for them
            block_on_close = True
            request_queue_size = 128
            max_packet_size = 65507

            def handle_error(self, request: object, client_address: object) -> None:
                error = sys.exc_info()[1]
                assert error is not None
                found.errors.append(error.with_traceback(None))
                found.failed.release()

        family = server_class.address_family
        self.is_unix = family == socket.AF_UNIX
        self.type = server_class.socket_type
        self.server = Server(f"{folder}/server" if self.is_unix else ("127.0.0.1", 0), handler)
        self.folder = folder
        self.codec = handler.codec

    def run(self) -> None:
        self.server.serve_forever(poll_interval=0.01)

    @property
    def address(self) -> Any:
        return self.server.server_address

    def connect(self) -> Any:
        """A client, of the kind that the server serves."""
        if self.type == socket.SOCK_STREAM:
            codec = self.codec or Codec.uint(4)
            return framecodec.connect(self.address, codec, timeout=TIMEOUT)
        client = DatagramSocket(socket.socket(self.server.address_family, self.type), self.codec)
        name = f"{self.folder}/{client.fileno()}-{uuid.uuid4().hex[:8]}"  # threads call this
        client.bind(name if self.is_unix else ("127.0.0.1", 0))
        client.connect(self.address)
        client.settimeout(TIMEOUT)
        return client

    def error(self) -> BaseException:
        """The next error that a handler raised."""
        assert self.failed.acquire(timeout=TIMEOUT)
        return self.errors.pop(0)


@contextlib.contextmanager
def serving(server_class: type[Any], handler: type[FrameRequestHandler] = Shout) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder:
        running = Running(server_class, handler, folder)
        with running.server:
            running.start()
            try:
                yield running
            finally:
                running.server.shutdown()
                running.join(TIMEOUT)
        assert running.errors == []  # of which the test did not ask


def name_of(value: Any) -> str | None:
    return getattr(value, "__name__", None)


streams = pytest.mark.parametrize("server_class", STREAM_SERVERS, ids=name_of)
datagrams = pytest.mark.parametrize("server_class", DATAGRAM_SERVERS, ids=name_of)
all_servers = pytest.mark.parametrize(
    "server_class", STREAM_SERVERS + DATAGRAM_SERVERS, ids=name_of
)


# --- every server ---------------------------------------------------------------------------------


@all_servers
def test_handle_message_returns_the_reply(server_class: type[Any]) -> None:
    with serving(server_class) as server, server.connect() as client:
        for message in (b"hello", b"byebye", bytes(range(256)) * 30):
            client.send(message)
            assert client.recv() == message.upper()


@all_servers
def test_handle_message_may_return_none(server_class: type[Any]) -> None:
    with serving(server_class) as server, server.connect() as client:
        client.send(b"")
        client.send(b"next")
        assert client.recv() == b"NEXT"


@all_servers
def test_codec_of_the_class_is_used(server_class: type[Any], engine_in_use: ModuleType) -> None:
    class Digits(Shout):
        codec = Codec.digits(4)

    with serving(server_class, Digits) as server, server.connect() as client:
        client.send_many([b"hello", b"", b"byebye"])
        assert client.socket.recv(9, socket.MSG_PEEK) == b"0005HELLO"
        assert [client.recv(), client.recv()] == [b"HELLO", b"BYEBYE"]


@all_servers
def test_handle_may_be_overridden_and_use_the_frames(server_class: type[Any]) -> None:
    class Count(FrameRequestHandler):
        codec = Codec.uint(2)

        def handle(self) -> None:
            for number, message in enumerate(self.frames):
                self.frames.send(b"%d:%s" % (number, message))
            self.frames.send_many([b"the", b"end"])

    with serving(server_class, Count) as server, server.connect() as client:
        client.send_many([b"a", b"b"])
        if server.type == socket.SOCK_STREAM:
            client.shutdown(socket.SHUT_WR)
        assert [client.recv() for _ in range(4)] == [b"0:a", b"1:b", b"the", b"end"]


@all_servers
def test_recv_returns_messages_and_then_raises_the_end(server_class: type[Any]) -> None:
    class Two(FrameRequestHandler):
        codec = Codec.uint(2)

        def handle(self) -> None:
            first, second = self.frames.recv(), self.frames.recv()
            try:
                self.frames.recv()
            except EOFError:
                self.frames.send(second + first)

    with serving(server_class, Two) as server, server.connect() as client:
        client.send_many([b"a", b"b"])
        if server.type == socket.SOCK_STREAM:
            client.shutdown(socket.SHUT_WR)
        assert client.recv() == b"ba"


@all_servers
def test_handle_message_that_fails_ends_its_connection_only(server_class: type[Any]) -> None:
    class Together(Shout):
        codec = Codec.uint(4)

    with serving(server_class, Together) as server:
        with server.connect() as client:
            client.send_many([b"before", b"fail", b"after"])
            assert client.recv() == b"BEFORE"  # what was answered is sent all the same
            assert isinstance(server.error(), LookupError)
            if server.type == socket.SOCK_STREAM:
                with pytest.raises((EOFError, ConnectionResetError)):
                    client.recv()
        with server.connect() as client:
            client.send(b"the next one")
            assert client.recv() == b"THE NEXT ONE"


@all_servers
def test_handler_answers_many_clients_at_once(server_class: type[Any]) -> None:
    def talk(number: int) -> int:
        with server.connect() as client:
            for step in range(10):
                client.send(b"client %d, step %d" % (number, step))
                assert client.recv() == b"CLIENT %d, STEP %d" % (number, step)
        return number

    with serving(server_class) as server, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(talk, range(16))) == list(range(16))


@all_servers
def test_handle_message_that_is_missing_raises(server_class: type[Any]) -> None:
    with serving(server_class, FrameRequestHandler) as server, server.connect() as client:
        client.send(b"hello")
        error = server.error()
        assert isinstance(error, NotImplementedError)
        assert "handle_message" in str(error)


# --- streams --------------------------------------------------------------------------------------


@streams
def test_handler_takes_large_messages(server_class: type[Any]) -> None:
    class Digest(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            return hashlib.sha256(message).digest() + message

    message = os.urandom(1 << 16) * 80  # 5 MiB: more than any socket buffer holds
    with serving(server_class, Digest) as server, server.connect() as client:
        for _ in range(2):
            client.send(message)
            reply = client.recv()
            assert reply[:32] == hashlib.sha256(message).digest()
            assert reply[32:] == message


@streams
def test_handler_answers_messages_in_order(server_class: type[Any]) -> None:
    count = 5000
    messages = [b"message %d" % number * (number % 7) for number in range(1, count)]
    with serving(server_class) as server, server.connect() as client:
        sender = threading.Thread(target=client.send_many, args=(messages,))
        sender.start()
        wanted = [message.upper() for message in messages if message]
        assert [client.recv() for _ in wanted] == wanted
        sender.join(TIMEOUT)


@streams
def test_handler_answers_a_client_that_ended_its_direction(server_class: type[Any]) -> None:
    with serving(server_class) as server, server.connect() as client:
        client.send_many([b"one", b"two"])
        client.shutdown(socket.SHUT_WR)
        assert list(client) == [b"ONE", b"TWO"]


@streams
def test_reply_is_sent_before_the_next_message_is_handled(server_class: type[Any]) -> None:
    seen = threading.Event()

    class Waiting(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            if message == b"second":
                assert seen.wait(TIMEOUT)  # until the client has the first reply
            return message.upper()

    with serving(server_class, Waiting) as server, server.connect() as client:
        client.send_many([b"first", b"second"])  # both come in one read
        assert client.recv() == b"FIRST"
        seen.set()
        assert client.recv() == b"SECOND"


@streams
@pytest.mark.parametrize("together", [True, False])
def test_handle_message_may_receive_and_send_others(
    server_class: type[Any], together: bool
) -> None:
    class Storing(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes | None:
            if message == b"put":
                return b"got " + self.frames.recv()
            if message == b"many":
                self.frames.send(b"many 1")
                self.frames.send_many([b"many 2", b"many 3"])
                return None
            return message.upper()

    with serving(server_class, Storing) as server, server.connect() as client:
        messages = [b"a", b"put", b"body", b"many", b"b"]
        if together:
            client.send_many(messages)
        else:
            for message in messages:
                client.send(message)
                time.sleep(0.01)
        expected = [b"A", b"got body", b"many 1", b"many 2", b"many 3", b"B"]
        assert [client.recv() for _ in expected] == expected


BROKEN = {
    "in a header": (b"\x00\x00", IncompleteFrameError),
    "in a message": (b"\x00\x00\x00\x05he", IncompleteFrameError),
    "too large": (b"\xff\xff\xff\xff", MessageTooLargeError),
}


@streams
@pytest.mark.parametrize("how", BROKEN)
def test_handle_error_gets_a_broken_client(
    server_class: type[Any], how: str, engine_in_use: ModuleType
) -> None:
    data, expected = BROKEN[how]

    class Own(Shout):
        codec = Codec.uint(4)  # of the engine in use

    with serving(server_class, Own) as server:
        with server.connect() as client:
            client.send(b"before")
            assert client.recv() == b"BEFORE"
            client.socket.sendall(data)
            client.shutdown(socket.SHUT_WR)
            error = server.error()
            assert isinstance(error, expected)
            assert error.stream_offset == len(b"\x00\x00\x00\x06before")
            with pytest.raises((EOFError, ConnectionResetError)):
                client.recv()
        with server.connect() as client:
            client.send(b"next")
            assert client.recv() == b"NEXT"


@streams
def test_handle_error_gets_a_client_of_another_protocol(server_class: type[Any]) -> None:
    class Digits(Shout):
        codec = Codec.digits(4)

    with serving(server_class, Digits) as server, server.connect() as client:
        client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        error = server.error()
        assert isinstance(error, InvalidFrameError)
        assert "b'G'" in str(error)


@pytest.mark.parametrize(
    "server_class", [socketserver.TCPServer, socketserver.ThreadingTCPServer], ids=name_of
)
def test_handle_error_gets_a_reset(server_class: type[Any]) -> None:
    with serving(server_class) as server:
        client = server.connect()
        client.send(b"hello")
        assert client.recv() == b"HELLO"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert isinstance(server.error(), ConnectionResetError)
        with server.connect() as client:
            client.send(b"next")
            assert client.recv() == b"NEXT"


@pytest.mark.parametrize("nodelay", [True, False])
def test_replies_leave_at_once_unless_the_handler_says_otherwise(nodelay: bool) -> None:
    found = []

    class Own(Shout):
        def handle_message(self, message: bytes) -> bytes | None:
            found.append(self.frames.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            return message

    Own.nodelay = nodelay
    with serving(socketserver.TCPServer, Own) as running, running.connect() as client:
        client.send(b"hello")
        assert client.recv() == b"hello"
    assert found == [nodelay]


@streams
def test_message_timeout_of_the_class_cuts_off_slow_clients(server_class: type[Any]) -> None:
    class Strict(Shout):
        message_timeout = 0.05

    with serving(server_class, Strict) as server, server.connect() as client:
        client.socket.sendall(b"\x00")
        assert isinstance(server.error(), MessageTimeoutError)
        with pytest.raises(EOFError):
            client.recv()


@streams
def test_idle_timeout_of_the_class_cuts_off_quiet_clients(server_class: type[Any]) -> None:
    class Strict(Shout):
        idle_timeout = 0.05

    with serving(server_class, Strict) as server, server.connect() as client:
        assert isinstance(server.error(), IdleTimeoutError)
        with pytest.raises(EOFError):
            client.recv()


@streams
def test_timeout_of_the_class_ends_a_client_that_does_not_read(server_class: type[Any]) -> None:
    class Impatient(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            assert isinstance(self.frames, FrameSocket)
            self.frames.settimeout(0.05)
            return bytes(10_000_000)

    with serving(server_class, Impatient) as server, server.connect() as client:
        client.send(b"much, please")
        error = server.error()
        assert isinstance(error, TimeoutError)
        assert error.message_started is True  # type: ignore[attr-defined]


@streams
def test_frames_has_the_methods_of_a_frame_socket(server_class: type[Any]) -> None:
    seen: list[Any] = []

    class Look(FrameRequestHandler):
        timeout = TIMEOUT

        def handle_message(self, message: bytes) -> bytes:
            frames = self.frames
            assert isinstance(frames, FrameSocket)
            delay = None
            if frames.socket.family == socket.AF_INET:
                delay = frames.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            seen.append((frames.codec, frames.gettimeout(), delay, frames.getpeername()))
            return message

    with serving(server_class, Look) as server, server.connect() as client:
        client.send(b"look")
        client.recv()
        peer = client.getsockname()
    delay = None if server.is_unix else True
    assert seen == [(Codec.uint(4), TIMEOUT, delay, peer)]


# --- datagrams ------------------------------------------------------------------------------------


@datagrams
def test_handle_message_gets_an_empty_datagram(server_class: type[Any]) -> None:
    class Length(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            return b"%d" % len(message)

    with serving(server_class, Length) as server, server.connect() as client:
        client.send(b"")
        assert client.recv() == b"0"


@datagrams
def test_handle_message_gets_every_message_of_a_datagram(server_class: type[Any]) -> None:
    class Framed(Shout):
        codec = Codec.uint(1)

    with serving(server_class, Framed) as server, server.connect() as client:
        client.send_many([b"a", b"b", b"c"])
        assert [client.recv() for _ in range(3)] == [b"A", b"B", b"C"]


@datagrams
def test_handle_message_gets_messages_before_bad_bytes(
    server_class: type[Any], engine_in_use: ModuleType
) -> None:
    class Framed(Shout):
        codec = Codec.uint(1)

    with serving(server_class, Framed) as server, server.connect() as client:
        client.socket.send(b"\x01a\x05cut")
        assert client.recv() == b"A"
        error = server.error()
        assert isinstance(error, IncompleteFrameError)
        assert error.address == client.getsockname()
        client.socket.send(b"")  # no frame: no message, no error
        client.send(b"next")
        assert client.recv() == b"NEXT"


@datagrams
def test_handle_error_gets_a_truncated_datagram(server_class: type[Any]) -> None:
    class Length(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            return b"%d" % len(message)

    with serving(server_class, Length) as server, server.connect() as client:
        server.server.max_packet_size = 100
        for size in (99, 100, 101, 5000):
            client.send(b"x" * size)
            if size == 99:
                assert client.recv() == b"99"
            else:
                error = server.error()
                assert isinstance(error, TruncatedDatagramError)
                assert (error.received, error.size) == (100, None)
                assert error.address == client.getsockname()


def test_handle_message_gets_the_largest_datagram_of_udp() -> None:
    class Length(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            return b"%d" % len(message)

    with serving(socketserver.UDPServer, Length) as server, server.connect() as client:
        client.send(b"x" * 65507)
        assert client.recv() == b"65507"


def test_handle_error_gets_a_truncated_unix_datagram() -> None:
    with serving(socketserver.UnixDatagramServer) as server, server.connect() as client:
        server.server.max_packet_size = 80_000
        client.send(b"x" * 90_000)
        assert isinstance(server.error(), TruncatedDatagramError)


@pytest.mark.parametrize("server_class", DATAGRAM_SERVERS[2:], ids=name_of)
def test_getpeername_raises_for_a_sender_without_a_name(server_class: type[Any]) -> None:
    with serving(server_class) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"hello", server.address)
            error = server.error()
            assert isinstance(error, ValueError)
            assert "must bind()" in str(error)
        with server.connect() as client:
            client.send(b"next")
            assert client.recv() == b"NEXT"


@datagrams
def test_frames_give_the_address_of_the_sender(server_class: type[Any]) -> None:
    class Who(FrameRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            return repr(self.frames.getpeername()).encode()

    with serving(server_class, Who) as server, server.connect() as client:
        client.send(b"who am I?")
        assert client.recv() == repr(client.getsockname()).encode()


def test_iteration_over_a_bad_datagram_raises() -> None:
    raised: list[FrameError] = []

    class Each(FrameRequestHandler):
        codec = Codec.uint(1)

        def handle(self) -> None:
            try:
                for message in self.frames:
                    self.frames.send(message)
            except FrameError as error:
                raised.append(error)
                self.frames.send(b"bad")

    with serving(socketserver.UDPServer, Each) as server, server.connect() as client:
        client.socket.send(b"\x01a\x05cut")
        assert [client.recv(), client.recv()] == [b"a", b"bad"]
    assert [type(error) for error in raised] == [IncompleteFrameError]


# --- processes ------------------------------------------------------------------------------------

FORKING = """
import os, signal, socketserver, sys
import framecodec.socketserver

class Who(framecodec.socketserver.FrameRequestHandler):
    def handle_message(self, message):
        if message == b"crash":
            os.kill(os.getpid(), signal.SIGKILL)
        return b"%d: %s" % (os.getpid(), message.upper())

class Server(socketserver.ForkingTCPServer):
    request_queue_size = 64

with Server(("127.0.0.1", 0), Who) as server:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print("listening on port", server.server_address[1], flush=True)
    server.serve_forever(poll_interval=0.05)
"""


# --- the end of a server --------------------------------------------------------------------------


@pytest.mark.parametrize("noisy", [False, True], ids=["idle", "sending"])
def test_server_close_ends_while_clients_are_connected(noisy: bool) -> None:
    ended: list[str] = []
    begun = threading.Event()

    class Handler(FrameRequestHandler):
        def handle_message(self, message: Any) -> None:
            begun.set()

        def finish(self) -> None:
            super().finish()
            ended.append("finish")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    stop = threading.Event()
    with framecodec.connect(server.server_address, timeout=TIMEOUT) as client:
        client.send(b"a")
        assert begun.wait(TIMEOUT)

        def send() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    client.send(b"b")

        sending = threading.Thread(target=send)
        if noisy:
            sending.start()
        server.shutdown()
        closing = threading.Thread(target=server.server_close)
        closing.start()
        closing.join(TIMEOUT)
        assert not closing.is_alive()
        assert ended == ["finish"]
        stop.set()
        if noisy:
            sending.join(TIMEOUT)
    serving.join(TIMEOUT)


def test_shutdown_ends_a_server_whose_only_thread_is_in_an_idle_handler() -> None:
    begun = threading.Event()

    class Handler(FrameRequestHandler):
        def handle_message(self, message: Any) -> str:
            begun.set()
            return message

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        with framecodec.connect(server.server_address, timeout=TIMEOUT) as client:
            client.send(b"a")
            assert client.recv() == b"a"
            server.shutdown()
            serving.join(TIMEOUT)
            assert not serving.is_alive()


def test_shutdown_ends_idle_handlers_after_a_look_without_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = sys.modules[FrameRequestHandler.__module__]
    has_stopped, failed = module._has_stopped, threading.Event()

    def fail_once(server: Any) -> bool:
        if failed.is_set():
            return has_stopped(server)
        failed.set()
        raise MemoryError

    class Handler(FrameRequestHandler):
        def handle_message(self, message: Any) -> str:
            return message

    monkeypatch.setattr(module, "_has_stopped", fail_once)
    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        with framecodec.connect(server.server_address, timeout=TIMEOUT) as client:
            client.send(b"a")
            assert client.recv() == b"a"
            assert failed.wait(TIMEOUT)
            ending = threading.Thread(target=server.shutdown)
            ending.start()
            ending.join(TIMEOUT)
            assert not ending.is_alive()
        serving.join(TIMEOUT)


def test_a_handler_that_cannot_send_is_aborted_after_the_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = sys.modules[FrameRequestHandler.__module__]
    monkeypatch.setattr(module, "_GRACE", 0.1)
    begun = threading.Event()

    class Handler(FrameRequestHandler):
        def handle_message(self, message: Any) -> None:
            begun.set()
            self.frames.send(bytes(16_000_000))

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    with framecodec.connect(server.server_address) as client:
        client.send(b"a")
        assert begun.wait(TIMEOUT)
        server.shutdown()
        closing = threading.Thread(target=server.server_close)
        closing.start()
        closing.join(TIMEOUT)
        assert not closing.is_alive()
    serving.join(TIMEOUT)


def test_handler_works_in_forking_servers() -> None:
    def talk(number: int) -> bytes:
        with framecodec.connect(("127.0.0.1", port), timeout=TIMEOUT) as client:
            processes = set()
            for step in range(5):
                client.send(b"client %d, step %d" % (number, step))
                process, _, reply = client.recv().partition(b": ")
                assert reply == b"CLIENT %d, STEP %d" % (number, step)
                processes.add(process)
        (process,) = processes
        return process

    with running("-c", FORKING) as server:
        port = int(printed_port(server))
        with framecodec.connect(("127.0.0.1", port), timeout=TIMEOUT) as client:
            client.send(b"crash")
            with pytest.raises((EOFError, ConnectionResetError)):
                client.recv()
        with ThreadPoolExecutor(8) as pool:
            processes = list(pool.map(talk, range(8)))
        assert len(set(processes)) == 8
        assert str(server.pid).encode() not in processes
        server.send_signal(signal.SIGTERM)
        assert finish(server) == ""


# --- what is rare ---------------------------------------------------------------------------------


def test_DatagramReply_raises_the_error_of_a_datagram_after_its_messages() -> None:
    codec = Codec.uint(1)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", 1)
        reply = framecodec.socketserver.DatagramReply(b"\1a\1b\5c", sock, address, codec)
        assert reply.recv() == b"a"
        assert reply.recv_many() == [b"b"]
        with pytest.raises(framecodec.FrameError) as caught:
            reply.recv()
        assert caught.value.address == address
        with pytest.raises(EOFError):
            reply.recv_many()


def test_a_server_without_a_socket_has_not_stopped() -> None:
    from framecodec.socketserver import _has_stopped

    assert _has_stopped(object()) is False
    with socket.socket() as sock:

        class Server:
            socket = sock

        assert _has_stopped(Server()) is False
    assert _has_stopped(Server()) is True
