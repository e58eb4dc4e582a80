"""Datagrams: every message comes out as it went in, or an error says that it cannot."""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import pickle
import random
import selectors
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Codec,
    DatagramSocket,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
    TruncatedDatagramError,
    formats,
)
from framecodec.sockets import datagrams as datagrams_module
from tests.helpers.sample_codecs import CODECS, sample_messages

TIMEOUT = 20.0  # seconds; of every wait that a passing test does not need
LARGEST = {"udp4": 65507, "udp6": 65527}
KINDS = ["udp4", "udp6", "unix", "socketpair"]


@contextlib.contextmanager
def two_sockets(kind: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two datagram sockets, each connected to the other."""
    if kind == "socketpair":
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with left, right:
            yield left, right
        return
    with contextlib.ExitStack() as stack:
        family = {"udp4": socket.AF_INET, "udp6": socket.AF_INET6, "unix": socket.AF_UNIX}[kind]
        left, right = (stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in "12")
        if kind == "unix":  # a separate path: pytest's may be longer than the system takes
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            addresses: list[Any] = [f"{folder}/left", f"{folder}/right"]
        else:
            addresses = [("127.0.0.1" if kind == "udp4" else "::1", 0)] * 2
        try:
            left.bind(addresses[0])
        except OSError as error:
            pytest.skip(f"no {kind} here: {error}")
        right.bind(addresses[1])
        left.connect(right.getsockname())
        right.connect(left.getsockname())
        yield left, right


@contextlib.contextmanager
def pair(
    kind: str, codec: Codec | None = None, **options: Any
) -> Iterator[tuple[DatagramSocket, DatagramSocket]]:
    """The same as `DatagramSocket` objects; ``max_size`` is the right one's."""
    with two_sockets(kind) as (one, other):
        left, right = DatagramSocket(one, codec), DatagramSocket(other, codec, **options)
        for end in (left, right):
            end.settimeout(TIMEOUT)
        yield left, right


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Runs a call in a thread; what is returned waits for it and gives its result or its error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the thread waits for ever"
        return outcome[0]

    return result


# --- a message is a datagram ----------------------------------------------------------------------


def test_recv_returns_a_datagram_the_empty_one_included(kind: str) -> None:
    messages = [b"hello", b"", b"byebye", b"", bytes(range(256)) * 8]
    with pair(kind) as (left, right):
        for message in messages:
            left.send(message)
        assert [right.recv() for _ in messages] == messages


def test_send_works_in_both_directions(kind: str) -> None:
    with pair(kind) as (left, right):
        for number in range(50):
            left.send(b"%d" % number)
            right.send(right.recv() + b"!")
            assert left.recv() == b"%d!" % number


def test_send_many_without_a_codec_sends_a_datagram_each(kind: str) -> None:
    with pair(kind) as (left, right):
        left.send_many(message for message in (b"one", b"", b"three"))
        assert right.recv_many() == [b"one"]
        assert right.recv_many() == [b""]
        assert right.recv_many() == [b"three"]


@pytest.mark.parametrize("codec", [None, Codec.uint(2)], ids=["none", "uint"])
def test_send_takes_every_bytes_like_object(codec: Codec | None) -> None:
    with pair("socketpair", codec) as (left, right):
        for message in (
            bytearray(b"mutable"),
            memoryview(b"a view"),
            memoryview(b"-every other-")[1:-1],
            array.array("H", [1, 2, 3]),
        ):
            left.send(message)
            assert right.recv() == bytes(message)


@pytest.mark.parametrize("message", ["text", 5, None, memoryview(b"abcdef")[::2]])
def test_send_refuses_other_objects_and_sends_nothing(message: object) -> None:
    with pair("socketpair") as (left, right):
        with pytest.raises((TypeError, BufferError)):
            left.send(message)
        with pytest.raises((TypeError, BufferError)):
            left.send_many([b"not sent either", message])
        right.setblocking(False)
        with pytest.raises(BlockingIOError):
            right.recv()


def test_recv_returns_a_message_that_never_changes() -> None:
    # The buffer that datagrams are read into is used again for the next one.
    with pair("socketpair") as (left, right):
        left.send_many([b"first", b"later"])
        first = right.recv()
        assert (right.recv(), first) == (b"later", b"first")


# --- any number of frames in a datagram -----------------------------------------------------------


def test_send_many_with_a_codec_shares_a_datagram(kind: str, engine_in_use: ModuleType) -> None:
    with pair(kind, Codec.digits(4)) as (left, right):
        left.send_many([b"hello", b"", b"byebye"])
        left.send(b"alone")
        assert right.socket.recv(100) == b"0005hello00000006byebye"
        left.send_many([b"1", b"2", b"3"])
        assert right.recv() == b"alone"
        assert right.recv() == b"1"
        assert right.pending_messages == 2
        assert right.recv_many() == [b"2", b"3"]
        assert right.pending_messages == 0


@pytest.mark.parametrize("name", [name for name, codec in CODECS.items() if sample_messages(codec)])
def test_datagram_socket_works_with_every_codec(name: str, engine_in_use: ModuleType) -> None:
    codec = CODECS[name].replace()
    messages = sample_messages(codec)
    with pair("socketpair", codec) as (left, right):
        left.send_many(messages)
        assert right.socket.recv(100_000, socket.MSG_PEEK) == codec.encode_many(messages)
        assert right.recv_many() == messages
        for message in messages:
            left.send(message)
            assert right.recv() == message


def test_send_many_sends_the_list_as_it_was_when_a_build_changes_it(
    engine_in_use: ModuleType,
) -> None:
    messages = [b"a", b"bb", b"ccc"]
    with pair("socketpair", changing_codec(messages)) as (left, right):
        left.send_many(messages)
        assert right.recv_many() == [b"a", b"bb", b"ccc"]
    assert messages == []


def changing_codec(messages: list[bytes]) -> Codec:
    """A codec that drops a message of this list for each one that it encodes."""

    def parse(data: memoryview) -> tuple[int, int] | None:
        return (1, data[0]) if data else None

    def build(message: memoryview) -> bytes:
        del messages[:1]
        return bytes([len(message)])

    return Codec.custom(parse, build)


def test_send_takes_specials(engine_in_use: ModuleType) -> None:
    flush = formats.PktLine.FLUSH
    with pair("socketpair", formats.pkt_line.replace()) as (left, right):
        left.send(flush)
        left.send_many([b"line", flush])
        assert [right.recv(), *right.recv_many()] == [flush, b"line", flush]


def test_send_many_of_nothing_sends_no_datagram(kind: str) -> None:
    for codec in (None, Codec.uint(2)):
        with pair(kind, codec) as (left, right):
            left.send_many([])
            left.send(b"next")
            assert right.recv() == b"next"


def test_recv_skips_a_datagram_without_a_frame(kind: str, engine_in_use: ModuleType) -> None:
    with pair(kind, Codec.uint(2)) as (left, right):
        for data in (b"", b"", Codec.uint(2).encode(b"here")):
            left.socket.send(data)
        assert right.recv() == b"here"


def test_recv_keeps_its_time_out_with_datagrams_without_a_frame() -> None:
    stop = threading.Event()

    def knock(sock: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(BlockingIOError):
                sock.send(b"", socket.MSG_DONTWAIT)
            stop.wait(0.002)

    with pair("socketpair", Codec.uint(2)) as (left, right):
        thread = threading.Thread(target=knock, args=(left.socket,))
        thread.start()
        try:
            right.settimeout(0.1)
            with pytest.raises(TimeoutError):
                right.recv()
        finally:
            stop.set()
            thread.join()


def test_recv_keeps_its_time_out_while_datagrams_without_a_frame_are_there() -> None:
    with pair("socketpair", Codec.uint(2)) as (left, right):
        left.socket.send(b"")
        right.settimeout(1e-9)
        with pytest.raises(TimeoutError, match="no message within"):
            right.recv()


def test_send_many_takes_several_datagrams(kind: str, engine_in_use: ModuleType) -> None:
    codec = Codec.uint(2)
    messages = [bytes([number]) * 20_000 for number in range(7)]
    with pair(kind, codec) as (left, right):
        sent = in_thread(lambda: left.send_many(messages))
        arrived: list[bytes] = []
        datagrams = 0
        while len(arrived) < len(messages):
            arrived += right.recv_many()
            datagrams += 1
        assert (sent(), arrived) == (None, messages)
        assert 1 < datagrams < len(messages)


# --- too large ------------------------------------------------------------------------------------


@pytest.mark.parametrize("udp", LARGEST)
def test_send_takes_the_largest_datagram_and_not_one_byte_more(udp: str) -> None:
    largest = LARGEST[udp]
    with pair(udp) as (left, right):
        left.send(b"x" * largest)
        assert right.recv() == b"x" * largest
        with pytest.raises(MessageTooLargeError) as caught:
            left.send(b"x" * (largest + 1))
        assert (caught.value.size, caught.value.limit) == (largest + 1, largest)
        assert str(largest) in str(caught.value)
        assert caught.value.stream_offset is None
        with pytest.raises(MessageTooLargeError):
            left.send_many([b"not sent", b"x" * (largest + 1)])
        with pytest.raises(MessageTooLargeError):
            left.send_to(bytearray(largest + 1), right.getsockname())
        left.send(b"next")
        assert right.recv() == b"next"


@pytest.mark.parametrize("udp", LARGEST)
def test_send_with_a_codec_counts_the_frame(udp: str, engine_in_use: ModuleType) -> None:
    codec = Codec.uint(4, trailer=b";")
    largest_message = LARGEST[udp] - 5
    with pair(udp, codec) as (left, right):
        left.send(b"x" * largest_message)
        assert right.recv() == b"x" * largest_message
        with pytest.raises(MessageTooLargeError) as caught:
            left.send(b"x" * (largest_message + 1))
        assert (caught.value.size, caught.value.limit) == (largest_message + 1, largest_message)


@pytest.mark.parametrize("unix", ["unix", "socketpair"])
def test_send_raises_one_error_for_each_limit_of_the_system(unix: str) -> None:
    with pair(unix) as (left, right):
        size = left.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) + 1
        with pytest.raises(MessageTooLargeError, match="SO_SNDBUF") as caught:
            left.send(b"x" * size)
        assert caught.value.size == size
        left.send(b"next")
        assert right.recv() == b"next"


def test_max_message_size_holds_both_ways(engine_in_use: ModuleType) -> None:
    wide, narrow = Codec.uint(2), Codec.uint(2, max_message_size=3)
    with two_sockets("socketpair") as (one, other):
        left, right = DatagramSocket(one, wide), DatagramSocket(other, narrow)
        with pytest.raises(MessageTooLargeError):
            right.send(b"four")
        left.send(b"four")
        left.send(b"two")
        with pytest.raises(MessageTooLargeError) as caught:
            right.recv()
        assert (caught.value.size, caught.value.limit) == (4, 3)
        assert right.recv() == b"two"


# --- what is wrong with a datagram ----------------------------------------------------------------


@pytest.mark.parametrize("codec", [None, Codec.uint(2)], ids=["none", "uint"])
def test_max_size_makes_a_truncated_datagram_an_error(kind: str, codec: Codec | None) -> None:
    header = 2 if codec else 0
    with pair(kind, codec, max_size=8) as (left, right):
        sent = [b"6bytes", b"9 bytes..", b"x" * 1000, b"after"]
        for message in sent:
            left.send(message)
        assert right.recv() == b"6bytes"
        for message in sent[1:3]:
            with pytest.raises(TruncatedDatagramError) as caught:
                right.recv()
            assert caught.value.received == 8
            assert caught.value.size == len(message) + header
            assert f"{len(message) + header} bytes was cut short" in str(caught.value)
        assert right.recv() == b"after"


def test_max_size_allows_a_datagram_of_just_this_size(kind: str) -> None:
    with pair(kind, max_size=8) as (left, right):
        left.send(b"8 bytes!")
        assert right.recv() == b"8 bytes!"


def test_max_size_fits_every_datagram_of_udp_by_default() -> None:
    with pair("udp6") as (left, right):
        left.send(b"x" * LARGEST["udp6"])
        assert len(right.recv()) == LARGEST["udp6"]


# Bytes after two whole frames, and the type of their error.
BAD = {
    "a cut header": (b"\xab\x00", IncompleteFrameError, "header"),
    "a cut rest": (b"\xab\x00\x05hell", IncompleteFrameError, "rest"),
    "no trailer": (b"\xab\x00\x05hello", IncompleteFrameError, "trailer"),
    "a wrong trailer": (b"\xab\x00\x05hello!", InvalidFrameError, None),
    "a wrong magic": (b"HTTP/1.1", InvalidFrameError, None),
    "a length above the limit": (b"\xab\xff\xff", MessageTooLargeError, None),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("good", [0, 2])
def test_recv_raises_bad_bytes_after_the_messages(
    bad: str, good: int, kind: str, engine_in_use: ModuleType
) -> None:
    codec = Codec.uint(2, magic=b"\xab", trailer=b";", max_message_size=1000)
    data, expected, where = BAD[bad]
    front = codec.encode_many([b"one", b"two"][:good])
    with pair(kind, codec) as (left, right):
        left.socket.send(front + data)
        left.send(b"next")
        assert [right.recv() for _ in range(good)] == [b"one", b"two"][:good]
        with pytest.raises(expected) as caught:
            right.recv()
        assert isinstance(caught.value, FrameError)
        assert caught.value.stream_offset == len(front)
        assert getattr(caught.value, "where", None) == where
        assert right.recv() == b"next"  # the error was that datagram's alone


def test_recv_many_returns_messages_before_bad_bytes() -> None:
    codec = Codec.uint(1)
    with pair("socketpair", codec) as (left, right):
        left.socket.send(b"\x01a\x01b\x05cut")
        left.send(b"next")
        assert right.recv() == b"a"
        assert right.pending_messages == 1
        assert right.recv_many() == [b"b"]
        assert right.pending_messages == 0
        with pytest.raises(IncompleteFrameError):
            right.recv_many()
        assert right.recv_many() == [b"next"]


def test_iteration_raises_bad_bytes() -> None:
    with pair("socketpair", Codec.uint(1)) as (left, right):
        left.socket.send(b"\x01a\x05cut")
        left.send(b"b")
        arrived: list[bytes] = []
        with pytest.raises(IncompleteFrameError):  # which is an EOFError too
            arrived.extend(right)
        arrived.append(next(iter(right)))
        assert arrived == [b"a", b"b"]


def test_errors_have_the_address_of_the_sender(engine_in_use: ModuleType) -> None:
    with two_sockets("udp4") as (one, other):
        right = DatagramSocket(other, Codec.uint(2), max_size=9)
        for data in (b"\x00\x05cut", b"x" * 10):
            one.send(data)
            with pytest.raises(FrameError) as caught:
                right.recv_from()
            assert caught.value.address == one.getsockname()
            copy = pickle.loads(pickle.dumps(caught.value))
            assert (str(copy), copy.address) == (str(caught.value), caught.value.address)


def test_recv_raises_frames_of_another_shape(engine_in_use: ModuleType) -> None:
    with two_sockets("socketpair") as (one, other):
        left, right = DatagramSocket(one, Codec.struct("<I")), DatagramSocket(other, Codec.uint(4))
        left.send(b"hello")
        with pytest.raises(MessageTooLargeError):
            right.recv()


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
@pytest.mark.parametrize("codec", [None, Codec.uint(2)], ids=["none", "uint"])
def test_send_to_answers_each_client(family: str, host: str, codec: Codec | None) -> None:
    def new() -> DatagramSocket:
        sock = DatagramSocket(socket.socket(getattr(socket, family), socket.SOCK_DGRAM), codec)
        sock.settimeout(TIMEOUT)
        stack.callback(sock.close)
        try:
            sock.bind((host, 0))
        except OSError as error:
            pytest.skip(f"no {family} here: {error}")
        return sock

    with contextlib.ExitStack() as stack:
        server, *clients = [new() for _ in range(4)]
        for number, client in enumerate(clients):
            client.send_to(b"%d" % number, server.getsockname())
        for _ in clients:
            message, address = server.recv_from()
            assert address == clients[int(message)].getsockname()
            server.send_to(message + b"!", address)
            server.send_many_to([b"more", b"still more"], address)
        for number, client in enumerate(clients):
            assert client.recv_from() == (b"%d!" % number, server.getsockname())
            assert [client.recv(), client.recv()] == [b"more", b"still more"]


def test_recv_from_gives_the_address_for_every_message(engine_in_use: ModuleType) -> None:
    with two_sockets("udp4") as (one, other):
        left, right = DatagramSocket(one, Codec.uint(2)), DatagramSocket(other, Codec.uint(2))
        left.send_many([b"a", b"b"])
        assert [right.recv_from() for _ in "ab"] == [
            (b"a", left.getsockname()),
            (b"b", left.getsockname()),
        ]


def test_send_to_takes_paths() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server, client, nameless = (
            stack.enter_context(DatagramSocket(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
            for _ in range(3)
        )
        for sock in (server, client, nameless):
            sock.settimeout(TIMEOUT)
        server.bind(folder / "server")
        client.bind(str(folder / "client"))
        client.send_to(b"hello", folder / "server")
        message, address = server.recv_from()
        assert (message, address) == (b"hello", str(folder / "client"))
        server.send_to(b"answer", address)
        assert client.recv_from() == (b"answer", str(folder / "server"))
        nameless.connect(folder / "server")
        nameless.send(b"who?")
        assert server.recv_from() == (b"who?", None)
        with pytest.raises(OSError, match=r"."):
            server.send_to(b"to no address", None)
        with pytest.raises(FileNotFoundError) as caught:
            client.send_to(b"hello", folder / "nowhere")
        assert caught.value.message_started is False


def test_send_needs_a_connected_socket() -> None:
    with DatagramSocket(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        with pytest.raises(OSError, match=r"is not connected; use send_to\(\)") as caught:
            sock.send(b"where to?")
        assert caught.value.message_started is False
        assert caught.value.messages_sent == 0


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_send_names_send_to_on_a_unix_socket_without_a_peer(kind: int) -> None:
    with DatagramSocket(socket.socket(socket.AF_UNIX, kind)) as sock:
        with pytest.raises(OSError, match=r"is not connected; use send_to\(\)"):
            sock.send(b"where to?")
        with pytest.raises(OSError, match=r"is not connected; use send_to\(\)"):
            sock.send_many([b"where to?"])


def send_until_refused(sock: DatagramSocket) -> None:
    for _ in range(1000):
        sock.send(b"not sent")
        time.sleep(0.001)


def test_send_raises_connection_refused_once() -> None:
    # ICMP's "port unreachable" comes back as an error of a later call, sending or receiving.
    with two_sockets("udp4") as (one, other):
        port = other.getsockname()
        other.close()
        sock = DatagramSocket(one)
        sock.settimeout(TIMEOUT)
        sock.send(b"lost")
        with pytest.raises(ConnectionRefusedError):
            sock.recv()
        sock.send(b"lost")
        with pytest.raises(ConnectionRefusedError) as caught:
            send_until_refused(sock)
        assert caught.value.message_started is False
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(port)
            with contextlib.suppress(ConnectionRefusedError):  # of the sends just now
                sock.send(b"may be lost")
            sock.send(b"a socket is there")
            again.settimeout(TIMEOUT)
            while (data := again.recv(100)) != b"a socket is there":
                assert data == b"may be lost"


# --- waiting --------------------------------------------------------------------------------------


def test_recv_loses_nothing_to_a_time_out(kind: str) -> None:
    with pair(kind) as (left, right):
        right.settimeout(0.01)
        for _ in range(3):
            with pytest.raises(TimeoutError, match=r"no message within 0.01 s; nothing is lost"):
                right.recv()
        left.send(b"late")
        right.settimeout(TIMEOUT)
        assert right.recv() == b"late"
        assert (right.gettimeout(), right.getblocking()) == (TIMEOUT, True)


@pytest.mark.parametrize("codec", [None, Codec.uint(2)], ids=["none", "uint"])
def test_recv_without_waiting_raises(kind: str, codec: Codec | None) -> None:
    with pair(kind, codec) as (left, right):
        right.setblocking(False)
        with pytest.raises(BlockingIOError):
            right.recv()
        with pytest.raises(BlockingIOError):
            right.recv_many()
        if codec:
            left.socket.send(b"")  # a datagram without a message
            with pytest.raises(BlockingIOError):
                right.recv()
        left.send(b"there")
        assert right.recv() == b"there"
        assert right.getblocking() is False


def test_fileno_works_with_selectors(kind: str) -> None:
    with pair(kind) as (left, right), selectors.DefaultSelector() as selector:
        selector.register(right, selectors.EVENT_READ)
        right.setblocking(False)
        assert selector.select(0) == []
        left.send(b"there")
        ((key, _),) = selector.select(TIMEOUT)
        assert key.fileobj is right
        assert right.recv() == b"there"


def full(left: DatagramSocket) -> int:
    """Fill a Unix datagram socket's buffer; return how many messages it took."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            left.send(b"%d" % count)
            count += 1
    return count


def test_send_many_to_a_full_socket_counts_messages() -> None:
    with pair("socketpair") as (left, right):
        left.setblocking(False)
        messages = [b"%d" % number for number in range(1000)]
        done = 0
        arrived: list[bytes] = []
        while done < len(messages):
            try:
                left.send_many(messages[done:])
                done = len(messages)
            except BlockingIOError as error:
                done += error.messages_sent
                assert 0 < done < len(messages)
                arrived += [right.recv() for _ in range(done - len(arrived))]
        arrived += [right.recv() for _ in range(done - len(arrived))]
        assert arrived == messages
        assert left.pending_send == 0
        left.flush()


def test_send_many_with_a_codec_counts_messages_and_not_datagrams() -> None:
    with pair("socketpair", Codec.uint(2)) as (left, right):
        left.setblocking(False)
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        messages = [b"%04d" % number * 500 for number in range(200)]
        with pytest.raises(BlockingIOError) as caught:
            left.send_many(messages)
        sent = caught.value.messages_sent
        assert 1 < sent < len(messages)
        arrived = [right.recv() for _ in range(sent)]
        assert arrived == messages[:sent]
        right.setblocking(False)
        with pytest.raises(BlockingIOError):
            right.recv()


def test_send_with_a_time_out_has_sent_nothing() -> None:
    with pair("socketpair") as (left, right):
        left.setblocking(False)
        count = full(left)
        left.settimeout(0.01)
        with pytest.raises(TimeoutError) as caught:
            left.send(b"late")
        assert caught.value.message_started is False
        assert [right.recv() for _ in range(count)] == [b"%d" % number for number in range(count)]
        right.setblocking(False)
        with pytest.raises(BlockingIOError):
            right.recv()


def test_send_to_a_full_socket_keeps_its_time_out() -> None:
    # Not connected: the system calls it writable, and cannot tell when the other one has space.
    sent: list[bytes] = []

    def send_until_full() -> None:
        while len(sent) < 10_000:
            left.send_to(b"%d" % len(sent), address)
            sent.append(b"%d" % len(sent))

    with (
        tempfile.TemporaryDirectory() as folder,
        DatagramSocket(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as left,
        DatagramSocket(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as right,
    ):
        address = f"{folder}/right"
        right.bind(address)
        right.settimeout(TIMEOUT)
        left.settimeout(0.01)
        with pytest.raises(TimeoutError) as caught:
            send_until_full()
        assert caught.value.message_started is False
        left.settimeout(TIMEOUT)
        sender = threading.Thread(target=left.send_to, args=(b"late", address), daemon=True)
        sender.start()
        assert [right.recv() for _ in range(len(sent) + 1)] == [*sent, b"late"]
        sender.join(TIMEOUT)
        assert not sender.is_alive()


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 13),
    reason="what a signal handler raises at a loop's end passes its `try` by (cpython#130279)",
)
@pytest.mark.skipif(
    sys.gettrace() is not None,
    reason="a trace function adds a moment for a signal handler",
)
def test_recv_loses_and_doubles_nothing_after_an_interruption() -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    def send_all(sock: DatagramSocket) -> None:
        # So that it is the receiving thread that each signal comes to, and at once.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        for first in range(0, count, 4):
            sock.send_many([b"%d" % number for number in range(first, first + 4)])

    count, interruptions = 4000, 0
    arrived: list[bytes] = []
    rng = random.Random(5)
    with pair("socketpair", Codec.uint(2)) as (left, right):
        sender = threading.Thread(target=send_all, args=(left,))
        old = signal.signal(signal.SIGALRM, interrupt)
        gc.disable()  # what is raised inside a callback of the collector is lost
        try:
            sender.start()
            patience, before = 1.0, 0
            while len(arrived) < count:
                # Where nothing came through, as on a slow machine, the next one comes later.
                patience = 1.0 if len(arrived) > before else patience * 1.5
                before = len(arrived)
                delay = rng.uniform(0.000_005, 0.000_2) * patience
                try:
                    # One interruption at most, and none outside.
                    signal.setitimer(signal.ITIMER_REAL, delay)
                    while len(arrived) < count:
                        arrived += (right.recv(),)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Interrupted:
                    interruptions += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
            gc.enable()
            sender.join(TIMEOUT)
    assert arrived == [b"%d" % number for number in range(count)]
    assert interruptions


def test_recv_in_a_signal_handler_works() -> None:
    with pair("socketpair") as (left, right):
        inside: list[bytes] = []

        def handle(*_: object) -> None:
            left.send_many([b"for the handler", b"for the call"])
            inside.append(right.recv())

        old = signal.signal(signal.SIGALRM, handle)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert right.recv() == b"for the call"
        finally:
            signal.signal(signal.SIGALRM, old)
        assert inside == [b"for the handler"]


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, TIMEOUT], ids=["blocking", "timed"])
@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_close_wakes_a_thread_that_waits(kind: str, timeout: float | None, end: str) -> None:
    with pair(kind) as (_, right):
        right.settimeout(timeout)
        results = [in_thread(right.recv) for _ in range(3)]
        time.sleep(0.03)  # so that they wait; before that they must find the end too
        if end == "close":
            right.close()
            wanted: type[Exception] = ConnectionAbortedError
        else:
            right.shutdown(socket.SHUT_RDWR)
            wanted = EOFError
        assert [type(result()) for result in results] == [wanted] * 3


def test_close_wakes_a_thread_on_a_socket_without_a_peer() -> None:
    for _ in range(20):
        sock = DatagramSocket(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("127.0.0.1", 0))
        result = in_thread(lambda sock=sock: list(sock))
        time.sleep(0.001)
        sock.close()
        assert result() == []  # an iteration ends without an error


def test_send_and_recv_in_two_threads() -> None:
    count = 3000
    with pair("socketpair", Codec.uint(4)) as ends:

        def send(end: DatagramSocket) -> None:
            for number in range(count):
                end.send(struct.pack("!I", number) * (number % 50 + 1))

        def receive(end: DatagramSocket) -> list[bytes]:
            return [end.recv() for _ in range(count)]

        results = [in_thread(lambda end=end: receive(end)) for end in ends]
        senders = [in_thread(lambda end=end: send(end)) for end in ends]
        assert [sender() for sender in senders] == [None, None]
        wanted = [struct.pack("!I", n) * (n % 50 + 1) for n in range(count)]
        assert [result() for result in results] == [wanted, wanted]


@pytest.mark.parametrize("codec", [None, Codec.uint(2)], ids=["none", "uint"])
def test_recv_in_many_threads_gives_each_message_once(codec: Codec | None) -> None:
    senders, receivers, count = 4, 4, 600
    with pair("socketpair", codec) as (left, right):

        def send(number: int) -> None:
            for index in range(0, count, 3):
                left.send_many([b"%d:%d" % (number, index + step) for step in range(3)])

        def receive() -> list[bytes]:
            return [right.recv() for _ in range(senders * count // receivers)]

        results = [in_thread(receive) for _ in range(receivers)]
        work = [in_thread(lambda number=number: send(number)) for number in range(senders)]
        assert [done() for done in work] == [None] * senders
        arrived = [message for result in results for message in result()]
        assert sorted(arrived) == sorted(
            b"%d:%d" % (number, index) for number in range(senders) for index in range(count)
        )


# --- the end, and handing over --------------------------------------------------------------------


def test_close_lets_later_calls_raise(kind: str) -> None:
    with pair(kind) as (left, right):
        left.send(b"too late")
        right.close()
        right.close()
        for call in (right.recv, right.recv_many, right.detach, lambda: right.send(b"x")):
            with pytest.raises(ConnectionAbortedError):
                call()
        assert list(right) == []
        assert (right.closed, right.fileno()) == (True, -1)
        assert "closed" in repr(right)


def test_shutdown_delivers_what_arrived_before(kind: str) -> None:
    with pair(kind) as (left, right):
        for message in (b"one", b"two"):
            left.send(message)
        right.shutdown(socket.SHUT_RD)
        assert list(right) == [b"one", b"two"]
        for _ in range(2):
            with pytest.raises(EOFError, match="shut down on this side"):
                right.recv()


def test_detach_returns_what_was_not_delivered(engine_in_use: ModuleType) -> None:
    codec = Codec.digits(2)
    with pair("socketpair", codec) as (left, right):
        left.send_many([b"mine", b"yours", b"yours too"])
        left.send(b"still in the socket")
        assert right.recv() == b"mine"
        sock, unread = right.detach()
        assert unread == b"05yours09yours too"
        assert sock.recv(100) == b"19still in the socket"
        assert right.closed
        with pytest.raises(ConnectionAbortedError):
            right.recv()
        right.close()  # leaves the socket open: it is not its own any more
        assert sock.fileno() >= 0


def test_with_block_closes_the_socket() -> None:
    with two_sockets("socketpair") as (one, _):
        with DatagramSocket(one) as sock:
            assert str(sock.fileno()) in repr(sock)
        assert one.fileno() == -1


def test_close_leaves_no_descriptor_open(fd_count: Callable[[], int]) -> None:
    before = fd_count()
    for _ in range(50):
        with pair("udp4") as (left, right):
            left.send(b"x")
            right.recv()
            right.close()
    assert fd_count() == before


# --- what it is made of ---------------------------------------------------------------------------


def test_datagram_socket_refuses_a_stream_socket() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        pytest.raises(ValueError, match="FrameSocket is for streams"),
    ):
        DatagramSocket(stream)
    with pytest.raises(TypeError, match="datagram socket is required"):
        DatagramSocket("127.0.0.1")  # type: ignore[arg-type]


def test_datagram_socket_checks_its_arguments() -> None:
    with two_sockets("socketpair") as (one, _):
        with pytest.raises(TypeError, match=r"framecodec\.Codec"):
            DatagramSocket(one, "u16")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="max_size must be at least 1"):
            DatagramSocket(one, max_size=0)


def test_datagram_socket_has_the_methods_of_a_socket(kind: str) -> None:
    with pair(kind, Codec.uint(2)) as (left, right):
        assert left.fileno() == left.socket.fileno()
        assert left.getsockname() == left.socket.getsockname()
        assert left.getpeername() == right.getsockname()
        left.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert left.codec == Codec.uint(2)
        assert left.closed is False


def test_datagram_socket_has_three_import_paths() -> None:
    import framecodec.sockets

    assert framecodec.sockets.DatagramSocket is DatagramSocket


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_settimeout_refuses_an_invalid_time_out(timeout: float) -> None:
    with pair("socketpair") as (left, _):
        with pytest.raises(ValueError, match="out of range"):
            left.settimeout(timeout)
        assert left.gettimeout() == TIMEOUT


def test_recv_works_after_shutdown_of_sending() -> None:
    with pair("socketpair") as (left, right):
        left.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError) as caught:
            left.send(b"too late")
        assert caught.value.message_started is False
        right.send(b"hello")
        assert left.recv() == b"hello"


# --- SOCK_SEQPACKET -------------------------------------------------------------------------------

needs_seqpacket = pytest.mark.skipif(
    not hasattr(socket, "SOCK_SEQPACKET") or not hasattr(socket, "AF_UNIX"),
    reason="no SOCK_SEQPACKET",
)


def seqpacket_pair(**options: Any) -> tuple[DatagramSocket, DatagramSocket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.settimeout(20)
    return DatagramSocket(near, **options), DatagramSocket(far, **options)


@needs_seqpacket
def test_seqpacket_sockets_carry_messages_until_the_peer_ends() -> None:
    near, far = seqpacket_pair()
    with near, far:
        far.send(b"a")
        far.send_many([b"b" * 1000, b"c"])
        assert [near.recv(), near.recv()] == [b"a", b"b" * 1000]
        near.send(b"d")
        assert far.recv_from()[0] == b"d"
        far.close()
        assert near.recv() == b"c"
        for _ in range(2):
            with pytest.raises(EOFError, match="the peer closed the connection"):
                near.recv()
        assert list(near) == []
        with pytest.raises(BrokenPipeError):
            near.send(b"x")


@needs_seqpacket
def test_seqpacket_sockets_refuse_an_empty_message() -> None:
    near, far = seqpacket_pair()
    with near, far, pytest.raises(ValueError, match="an empty message cannot be sent"):
        near.send(b"")


@needs_seqpacket
def test_seqpacket_sockets_take_a_codec() -> None:
    near, far = seqpacket_pair(codec=Codec.uint(2))
    with near, far:
        far.send_many([b"", b"a"])
        far.send(b"")
        far.close()
        assert list(near) == [b"", b"a", b""]


@needs_seqpacket
def test_close_wakes_a_thread_that_receives_from_a_seqpacket_socket() -> None:
    near, far = seqpacket_pair()
    failed: list[BaseException] = []

    def receive() -> None:
        try:
            near.recv()
        except OSError as error:
            failed.append(error)

    with far:
        thread = threading.Thread(target=receive)
        thread.start()
        time.sleep(0.02)
        near.close()
        thread.join(20)
    assert isinstance(failed[0], ConnectionAbortedError)


class DisturbedSocket(socket.socket):
    """A datagram socket during whose next receive something else happens."""

    meanwhile: Callable[[], object] | None = None

    def recvmsg_into(self, *arguments: Any) -> Any:
        call, self.meanwhile = self.meanwhile, None
        if call is not None:
            call()
        return super().recvmsg_into(*arguments)


@contextlib.contextmanager
def disturbed_pair(
    codec: Codec | None = None,
) -> Iterator[tuple[socket.socket, DisturbedSocket, DatagramSocket]]:
    """The peer, the socket and its `DatagramSocket`."""
    with two_sockets("socketpair") as (peer, plain):
        sock = DisturbedSocket(plain.family, plain.type, plain.proto, plain.detach())
        with DatagramSocket(sock, codec) as conn:
            conn.settimeout(TIMEOUT)
            yield peer, sock, conn


def test_recv_during_which_a_handler_closes_reports_the_close() -> None:
    with disturbed_pair() as (_, sock, conn):
        sock.meanwhile = conn.close
        with pytest.raises(ConnectionAbortedError, match="closed"):
            conn.recv()


def test_iteration_raises_an_aborted_connection_that_is_not_closed() -> None:
    def abort() -> None:
        raise ConnectionAbortedError(errno.ECONNABORTED, "aborted by the system")

    with disturbed_pair() as (peer, sock, conn):
        sock.meanwhile = abort
        with pytest.raises(ConnectionAbortedError, match="by the system"):
            next(iter(conn))
        peer.send(b"later")
        assert next(iter(conn)) == b"later"


def test_detach_after_an_interruption_returns_the_messages_of_the_datagram() -> None:
    interruptions = [KeyboardInterrupt]

    def parse(view: memoryview) -> tuple[int, int] | None:
        if len(view) and interruptions:
            raise interruptions.pop()
        return (1, view[0]) if len(view) else None

    codec = Codec.custom(parse, lambda message: bytes([len(message)]))
    with disturbed_pair(codec) as (peer, _, conn):
        peer.send(b"\3one\3two")
        with pytest.raises(KeyboardInterrupt):
            conn.recv()
        sock, unread = conn.detach()
        assert unread == b"\3one\3two"
        sock.close()


# --- many datagrams by one call -------------------------------------------------------------------

SEGMENTED = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the system has no UDP_SEGMENT"
)


@contextlib.contextmanager
def counted_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the datagrams of each call that sends many."""
    calls: list[int] = []
    real = datagrams_module.send_segments

    def send_segments(sock: Any, segments: Any, flags: int, address: Any) -> None:
        real(sock, segments, flags, address)
        calls.append(len(segments))

    monkeypatch.setattr(datagrams_module, "send_segments", send_segments)
    yield calls


SIZES_OF_MANY = [
    [64] * 200,
    [64] * 63 + [10] + [64] * 3,
    [1, 2, 3, 2, 2, 1, 1],
    [100, 100, 0, 100, 0, 0, 100, 100, 50, 50],
    [1400] * 50,
    [20_000] * 7,  # larger than the path's packets, or than one call takes
    [65_507, 65_507, 3],
    [],
]


@pytest.mark.parametrize("sizes", SIZES_OF_MANY, ids=lambda sizes: f"{len(sizes)} of {sum(sizes)}")
@pytest.mark.parametrize("udp", ["udp4", "udp6"])
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "to an address"])
def test_send_many_sends_each_message_in_its_own_datagram(
    udp: str, connected: bool, sizes: list[int]
) -> None:
    messages: list[Any] = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    messages = [memoryview(m) if n % 3 == 0 else m for n, m in enumerate(messages)]
    with two_sockets(udp) as (one, other):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        other.settimeout(TIMEOUT)
        sender = DatagramSocket(one)
        # In parts, which the receiver's buffer holds.
        for start in range(0, len(messages), 70):
            part = messages[start : start + 70]
            if connected:
                sender.send_many(part)
            else:
                sender.send_many_to(part, other.getsockname())
            for message in part:
                assert other.recv(70_000) == message


@SEGMENTED
def test_send_many_sends_equal_datagrams_by_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted_calls(monkeypatch) as calls, two_sockets("udp4") as (one, _):
        sender = DatagramSocket(one)
        if not sender._may_segment:
            pytest.skip("this kernel has no UDP_SEGMENT")
        sender.send_many([bytes(64)] * 100 + [b"end"])
        assert calls == [64, 37]
        sender.send_many([b"a", b"bc", b"", b"", b"d"])
        assert calls == [64, 37]


@SEGMENTED
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.EMSGSIZE])
def test_send_many_sends_each_alone_where_the_kernel_takes_no_segments(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tries = 0

    def refuse(*_: Any) -> None:
        nonlocal tries
        tries += 1
        raise OSError(number, "no segments")

    monkeypatch.setattr(datagrams_module, "send_segments", refuse)
    with two_sockets("udp4") as (one, other):
        other.settimeout(TIMEOUT)
        sender = DatagramSocket(one)
        sender._may_segment = True
        for _ in range(2):
            sender.send_many([b"ab", b"cd"])
            assert [other.recv(10), other.recv(10)] == [b"ab", b"cd"]
    assert tries == 1


@SEGMENTED
def test_send_many_sends_each_alone_where_the_buffer_takes_no_segments_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = []

    def refuse(*arguments: Any) -> None:
        tries.append(len(arguments[1]))
        raise BlockingIOError(errno.EAGAIN, "no space for all of these")

    monkeypatch.setattr(datagrams_module, "send_segments", refuse)
    with two_sockets("udp4") as (one, other):
        other.settimeout(TIMEOUT)
        sender = DatagramSocket(one)
        sender._may_segment = True
        sender.send_many([b"ab", b"cd"])
        assert [other.recv(10), other.recv(10)] == [b"ab", b"cd"]
        assert sender._may_segment
    assert tries == [2]


@SEGMENTED
def test_send_many_counts_what_was_sent_before_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = datagrams_module.send_segments
    results: list[Any] = [None, ConnectionRefusedError(errno.ECONNREFUSED, "refused")]

    def send(*arguments: Any) -> None:
        result = results.pop(0)
        if result is not None:
            raise result
        real(*arguments)

    monkeypatch.setattr(datagrams_module, "send_segments", send)
    with two_sockets("udp4") as (one, _):
        sender = DatagramSocket(one)
        if not sender._may_segment:
            pytest.skip("this kernel has no UDP_SEGMENT")
        with pytest.raises(ConnectionRefusedError) as caught:
            sender.send_many([bytes(64)] * 100)
        assert caught.value.messages_sent == 64  # type: ignore[attr-defined]


@SEGMENTED
def test_send_many_leaves_the_segment_size_of_a_user_alone() -> None:
    with two_sockets("udp4") as (one, other):
        try:
            one.setsockopt(17, 103, 2)  # UDP_SEGMENT
        except OSError:
            pytest.skip("this kernel has no UDP_SEGMENT")
        other.settimeout(TIMEOUT)
        DatagramSocket(one).send_many([b"abcd", b"efgh"])
        assert [other.recv(10) for _ in range(4)] == [b"ab", b"cd", b"ef", b"gh"]


@SEGMENTED
def test_send_many_works_where_the_kernel_does_not_tell_the_protocol() -> None:
    class Plain(socket.socket):
        def getsockopt(self, *arguments: Any) -> Any:
            raise OSError(errno.ENOPROTOOPT, "no such option")

    with two_sockets("udp4") as (one, other):
        plain = Plain(one.family, one.type, one.proto, one.detach())
        other.settimeout(TIMEOUT)
        with DatagramSocket(plain) as sender:
            assert not sender._may_segment
            sender.send_many([b"ab", b"cd"])
            assert [other.recv(10), other.recv(10)] == [b"ab", b"cd"]
