"""Memory that runs out at any one allocation of a call: no byte is lost or doubled without an error
that sticks, no frame is torn, and no call waits for ever."""

from __future__ import annotations

import contextlib
import gc
import io
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from framecodec import Check, Codec, DatagramSocket, FrameSocket
from framecodec.sockets import _fast_path_py
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.fault_injection import (
    TIMEOUT,
    stream_pair,
    without_tracer,
)

testcapi = pytest.importorskip("_testcapi", reason="CPython's own tests are not installed")

pytestmark = [pytest.mark.usefixtures("engine_in_use"), needs_cpython_3_11, pytest.mark.forked]

CODECS = {
    "uint": Codec.uint(4),
    "netstring": Codec.text(b":", trailer=b","),
    "hexadecimal": Codec.digits(8, base=16),
    "headers": Codec.headers(),
}
FIRST, SECOND = [b"one", b"", b"a longer message"], [b"x" * 10, b"the end"]

# After that many allocations that may fail without any harm, the call has no more of them.
ENOUGH = 40


def allocations() -> Iterator[int]:
    """Numbers of an allocation that is to fail, until `ENOUGH` of them made no difference."""
    number = 0
    quiet = [0]
    while quiet[0] < ENOUGH:
        number += 1
        assert number < 5000
        quiet[0] += 1
        yield number
        if FAILED.pop(number, None):
            quiet[0] = 0
    FAILED.clear()


FAILED: dict[int, BaseException] = {}


@contextlib.contextmanager
def without_memory(number: int) -> Iterator[list[BaseException]]:
    """Lets the block's allocation of this number fail.

    Yields:
        A list for the error that the block raised, where it raised one.
    """
    raised: list[BaseException] = []
    gc.disable()  # what other tests left is not to be freed without memory
    try:
        with without_tracer():
            testcapi.set_nomemory(number, number + 1)
            try:
                yield raised
            finally:
                testcapi.remove_mem_hooks()
    except Exception as error:
        testcapi.remove_mem_hooks()
        raised.append(error)
        # As a lock and PyErr_SetFromErrno() of CPython say it:
        is_lost = isinstance(error, SystemError) and str(error).endswith("exception set")
        is_lost |= "without setting an exception" in str(error)
        is_lost |= "NULL result without error" in str(error)  # the same in Cython's words
        if isinstance(error, MemoryError) or is_lost or str(error) == "can't allocate lock":
            FAILED[number] = error
        elif not isinstance(error, OSError):
            raise
    finally:
        testcapi.remove_mem_hooks()
        gc.enable()


def test_set_nomemory_makes_an_allocation_fail() -> None:
    with without_memory(1) as raised:
        bytes(1000)
    assert isinstance(raised[0], MemoryError)
    FAILED.clear()


def receiving(conn: FrameSocket, method: str) -> Callable[..., Any]:
    """A call that receives, with all that it needs."""
    if method == "iteration":
        return iter(conn).__next__
    return getattr(conn, method)  # type: ignore[no-any-return]


@pytest.mark.untraced
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("method", ["recv", "recv_many", "iteration", "recv_into"])
@pytest.mark.parametrize("name", CODECS)
def test_recv_without_memory_loses_nothing_or_raises_for_ever(
    name: str, method: str, timeout: float | None
) -> None:
    codec = CODECS[name].replace()
    wire = codec.encode_many(FIRST), codec.encode_many(SECOND)
    dead = 0
    for number in allocations():
        messages: list[Any] = []
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(timeout)
            peer.sendall(wire[0])
            call, found = receiving(conn, method), None
            buffer = bytearray(100)
            with without_memory(number):
                found = call(buffer) if method == "recv_into" else call()
            if isinstance(found, int):
                found = bytes(buffer[:found])
            elif method == "recv_into" and conn._receiving.inbox.direct is not None:
                with contextlib.suppress(ConnectionAbortedError, MemoryError):
                    found = bytes(buffer[: call(buffer)])
            if found is not None:
                messages += found if method == "recv_many" else [found]
            conn.settimeout(TIMEOUT)
            peer.sendall(wire[1])
            try:
                while len(messages) < len(FIRST + SECOND):
                    messages.append(conn.recv())
            except (ConnectionAbortedError, MemoryError) as error:
                dead += 1
                FAILED[number] = error  # the splitter kept it: the failure made a difference
                for again in (conn.recv, conn.recv_many, lambda: next(iter(conn))):
                    with pytest.raises((ConnectionAbortedError, MemoryError)):
                        again()
            assert messages == (FIRST + SECOND)[: len(messages)]
    assert dead < number


class Watcher:
    """An observer with all methods."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("frame_", "connection_")):
            return lambda *arguments: None
        raise AttributeError(name)


MARKED = Codec.uint(1, magic=b"MA")
# What sticks. CPython 3.11 loses the exception where there is no memory for a traceback.
OVER = (ConnectionAbortedError, MemoryError, SystemError)
# The codec, the options, and what travels before the second message.
OPTIONS: dict[str, tuple[Codec, dict[str, Any], bytes]] = {
    "skip": (Codec.uint(1, max_message_size=20), {"on_oversize": "skip"}, b"\x40" + bytes(64)),
    "resync": (MARKED, {"on_invalid": "resync"}, b"??M"),
    "time limits": (
        Codec.uint(4),
        {"message_timeout": TIMEOUT, "idle_timeout": TIMEOUT},
        b"",
    ),
    "observer": (Codec.text(trailer=b","), {"observer": Watcher()}, b""),
    "observer, skip": (
        Codec.uint(1, max_message_size=20),
        {"observer": Watcher(), "on_oversize": "skip"},
        b"\x40" + bytes(64),
    ),
    "check": (Codec.uint(2, check=Check("crc32", 4)), {}, b""),
    "lines": (Codec.delimiter(b"\n", b"\r\n"), {}, b""),
    "received": (Codec.uint(4), {"received": b"\0\0\0\5first\0\0\0"}, b""),
}


@pytest.mark.untraced
@pytest.mark.parametrize("method", ["recv", "recv_many", "iteration"])
@pytest.mark.parametrize("name", OPTIONS)
def test_recv_with_options_and_without_memory_loses_nothing_or_raises_for_ever(
    name: str, method: str
) -> None:
    plain, options, between = OPTIONS[name]
    codec = plain.replace()
    wire = [*map(codec.encode, FIRST), codec.encode_many(SECOND)]
    wire[1:1] = [between]
    expected = [*FIRST, *SECOND]
    if "received" in options:
        expected.insert(0, b"first")
        wire[0] = wire[0][3:]
    for number in allocations():
        messages: list[Any] = []
        with stream_pair() as (peer, sock), FrameSocket(sock, codec, **options) as conn:
            conn.settimeout(TIMEOUT)
            peer.sendall(b"".join(wire[:-1]))
            call, found = receiving(conn, method), None
            with without_memory(number):
                found = call()
            if found is not None:
                messages += found if method == "recv_many" else [found]
            peer.sendall(wire[-1])
            try:
                while len(messages) < len(expected):
                    messages.append(conn.recv())
            except OVER as error:
                FAILED[number] = error
                for again in (conn.recv, conn.recv_many, lambda: next(iter(conn))):
                    with pytest.raises(OVER):
                        again()
            assert messages == expected[: len(messages)]


@pytest.mark.untraced
def test_unframed_bytes_without_memory_are_whole_or_raise_for_ever() -> None:
    codec = Codec.uint(4).replace()
    for number in allocations():
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(TIMEOUT)
            peer.sendall(codec.encode(b"hello") + b"unframed" * 100 + codec.encode(b"bye"))
            assert conn.recv() == b"hello"
            found = None
            with without_memory(number):
                found = conn.recv_bytes(800)
            try:
                if found is None:
                    found = conn.recv_bytes(800)
                assert found == b"unframed" * 100
                assert conn.recv() == b"bye"
            except OVER as error:
                FAILED[number] = error
                with pytest.raises(OVER):
                    conn.recv()


@pytest.mark.parametrize("part", ["beginning", "middle", "end"])
@pytest.mark.parametrize("way", ["recv", "file", "buffer"])
@pytest.mark.parametrize("name", ["uint", "netstring", "headers"])
def test_recv_file_without_memory_is_whole_or_raises_for_ever(
    name: str, way: str, part: str
) -> None:
    codec = CODECS[name].replace()
    message = bytes(range(250)) * 400
    wire = codec.encode_many([message, b"next"])
    pieces = {"beginning": wire[:20_000], "middle": wire[20_000:50_000], "end": wire[50_000:]}
    for number in allocations():
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(0.0)
            file, buffer, found = io.BytesIO(), bytearray(len(message)), None
            calls = {
                "recv": conn.recv,
                "file": partial(conn.recv_file, file),
                "buffer": partial(conn.recv_into, buffer),
            }
            call = calls[way]
            for each, piece in pieces.items():
                peer.sendall(piece)
                if each == part:
                    with without_memory(number):
                        found = call()
                if found is None and each != "end":
                    with contextlib.suppress(BlockingIOError, ConnectionAbortedError, MemoryError):
                        found = call()
            conn.settimeout(TIMEOUT)
            try:
                if (
                    found is None
                    and way != "recv"
                    and conn._receiving.inbox.direct is None
                    and part == "end"
                ):
                    # The last step of a call that was finished may have failed.
                    done = (file.getvalue() if way == "file" else bytes(buffer)) == message
                    found = len(message) if done else None
                found = call() if found is None else found
                delivered = {"recv": found, "file": file.getvalue(), "buffer": bytes(buffer)}[way]
                assert delivered == message
                assert conn.recv() == b"next"
            except (ConnectionAbortedError, MemoryError):
                for again in (conn.recv, call):
                    with pytest.raises((ConnectionAbortedError, MemoryError)):
                        again()


def sends() -> dict[str, tuple[Callable[[FrameSocket, Any], None], list[bytes]]]:
    large = b"x" * 400_000
    return {
        "send": (lambda conn, file: conn.send(b"hello"), [b"hello"]),
        "send bytearray": (lambda conn, file: conn.send(bytearray(b"hello")), [b"hello"]),
        "send large": (lambda conn, file: conn.send(large), [large]),
        "send borrowed": (lambda conn, file: conn.send(bytearray(large)), [large]),
        "send_many": (
            lambda conn, file: conn.send_many([b"hello", large, b"hello"]),
            [b"hello", large, b"hello"],
        ),
        "send_file": (lambda conn, file: conn.send_file(file), [large]),
        "send_file pipe": (lambda conn, file: conn.send_file(io.BytesIO(large), 400_000), [large]),
    }


def drained(sock: socket.socket) -> bytes:
    """What is there."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := sock.recv(1 << 20):
            data += chunk
    return data


@pytest.mark.slow
@pytest.mark.parametrize("way", sends())
@pytest.mark.parametrize("name", ["uint", "netstring", "headers"])
@pytest.mark.parametrize("full", [False, True])
def test_send_without_memory_tears_no_frame(name: str, way: str, full: bool, tmp_path: Any) -> None:
    codec = CODECS[name].replace()
    call, sent = sends()[way]
    (tmp_path / "file").write_bytes(b"x" * 400_000)
    for number in allocations():
        with stream_pair() as (peer, sock), open(tmp_path / "file", "rb") as file:
            peer.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192 if full else 1 << 21)
            with FrameSocket(sock, codec) as conn:
                conn.send(b"before")
                conn.settimeout(0.0)
                with without_memory(number) as raised:
                    call(conn, file)
                started = getattr(raised[0], "message_started", None) if raised else True
                chunks = [drained(peer)]
                dead = False
                try:
                    flush(conn, peer, chunks)
                    conn.send(b"after")
                    flush(conn, peer, chunks)
                except ConnectionAbortedError:
                    dead = True
                    with pytest.raises(ConnectionAbortedError):
                        conn.flush()
            wire = b"".join(chunks) + drained(peer)
            messages, size = codec.split(wire)
            if dead:
                assert messages == [b"before", *sent][: len(messages)]
                assert codec.encode_many([b"before", *sent]).startswith(wire)
            else:
                assert size == len(wire)
                assert messages in ([b"before", *sent, b"after"], [b"before", b"after"])
                if started is not None:
                    assert (len(messages) > 2) is started


def flush(conn: FrameSocket, peer: socket.socket, chunks: list[bytes]) -> None:
    """Send all that is held, and store what arrives."""
    for _ in range(10_000):
        try:
            conn.flush()
        except BlockingIOError:
            chunks.append(drained(peer))
        else:
            return
    raise AssertionError("it spins")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
@pytest.mark.parametrize("method", ["recv", "recv_many", "recv_from"])
@pytest.mark.parametrize("codec", [None, Codec.uint(2)])
def test_datagram_socket_without_memory_delivers_or_raises(
    codec: Codec | None, method: str
) -> None:
    codec = codec and codec.replace()
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, DatagramSocket(right, codec) as conn:
        conn.settimeout(0.0)
        for number in allocations():
            for data in (b"one", b"two"):
                left.send(codec.encode(data) if codec else data)
            found: Any = []
            with without_memory(number) as raised:
                found = getattr(conn, method)()
            messages = [found[0]] if method == "recv_from" and found else found
            messages = [messages] if isinstance(messages, bytes) else messages
            with contextlib.suppress(BlockingIOError):
                while True:
                    messages.append(conn.recv())
            if raised:
                assert messages in ([b"one", b"two"], [b"two"])
            else:
                assert messages == [b"one", b"two"]


@pytest.mark.untraced
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signals are held here")
def test_held_signals_are_let_through_without_memory() -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for number in allocations():
        held = _fast_path_py.HeldSignals()
        try:
            with without_memory(number):
                try:
                    held.hold()
                finally:
                    for _ in held.release:
                        break
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
