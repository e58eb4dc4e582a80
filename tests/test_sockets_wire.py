"""One system call on a socket: what to wait for after it, and a close that wakes a thread."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import sys
import threading
import time
from typing import Any

import pytest

from framecodec import Codec, FrameSocket
from framecodec._outbox import Outbox
from framecodec._states import ReceiveState, SendState, SocketState
from framecodec.sockets import waiting
from framecodec.sockets.base import close_locked, mark_started
from framecodec.sockets.waiting import READ, WRITE, wait
from framecodec.sockets.wire import Wire, is_time_out
from tests.helpers.cpython_internals import needs_cpython_3_11
from tests.helpers.fault_injection import (
    TIMEOUT,
    FaultySocket,
    Interruption,
    interrupted_after_opcode,
    lock_is_free,
    stream_pair,
)

DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)


def test_is_time_out_is_false_for_a_connection_that_died() -> None:
    assert is_time_out(TimeoutError("timed out"))
    assert not is_time_out(TimeoutError(errno.ETIMEDOUT, "no answer"))
    assert not is_time_out(BlockingIOError())


@pytest.mark.parametrize("event", [READ, WRITE])
def test_event_after_returns_the_event_to_wait_for(event: int) -> None:
    with stream_pair() as (_, sock):
        wire = Wire(sock)
        wire.settimeout(1.0, wait_in_poll=False)
        assert wire.event_after(BlockingIOError(), event) == event
        assert wire.event_after(InterruptedError(), event) == event
        assert wire.event_after(ssl.SSLWantReadError(), event) == READ
        assert wire.event_after(ssl.SSLWantWriteError(), event) == WRITE
        assert wire.event_after(ConnectionResetError(), event) == 0


@pytest.mark.parametrize("event", [READ, WRITE])
def test_event_after_raises_if_the_call_may_not_wait(event: int) -> None:
    with stream_pair() as (_, sock):
        wire = Wire(sock)
        wire.settimeout(0.0, wait_in_poll=False)
        refusal = BlockingIOError(errno.EAGAIN, "later")
        with pytest.raises(BlockingIOError) as caught:
            wire.event_after(refusal, event)
        assert caught.value is refusal
        for kind in (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            with pytest.raises(kind) as wanted:
                wire.event_after(kind("wanted"), event)
            assert isinstance(wanted.value, BlockingIOError)
            assert wanted.value.args == ("wanted",)


@pytest.mark.skipif(not DONTWAIT, reason="no call can be made non-blocking here")
@pytest.mark.parametrize(
    ("timeout", "wait_in_poll", "flags", "waits", "blocking"),
    [
        (None, False, (0, 0), (False, False), True),
        (None, True, (DONTWAIT, 0), (True, False), True),
        (1.0, False, (DONTWAIT, DONTWAIT), (True, True), True),
        (0.0, True, (0, 0), (False, False), False),
    ],
)
def test_settimeout_chooses_how_a_call_waits(
    timeout: float | None, wait_in_poll: bool, flags: Any, waits: Any, blocking: bool
) -> None:
    with stream_pair() as (_, sock):
        wire = Wire(sock)
        wire.settimeout(timeout, wait_in_poll=wait_in_poll)
        assert (wire.read_flags, wire.write_flags) == flags
        assert (wire.read_waits, wire.write_waits) == waits
        assert sock.getblocking() is blocking


@needs_cpython_3_11
@pytest.mark.skipif(sys.gettrace() is not None, reason="no instructions are traced here")
def test_send_stores_the_count_in_the_outbox_at_every_interruption() -> None:
    moment = 0
    while True:
        moment += 1
        with stream_pair() as (peer, sock):
            outbox = Outbox(Codec.uint(4))
            outbox.put_bytes(b"hello")
            wire = Wire(sock)
            buffers = outbox.buffers()
            with interrupted_after_opcode(moment) as passed, contextlib.suppress(Interruption):
                wire.send(outbox, buffers)
            peer.setblocking(False)
            sent = sum(outbox.sent_counts)
            try:
                assert len(peer.recv(100)) == sent
            except BlockingIOError:
                assert sent == 0
        if moment > passed[0]:
            break
    assert moment > 1


def test_wait_returns_false_at_its_deadline() -> None:
    with stream_pair() as (peer, sock):
        assert not wait(sock, READ, 0.0)
        assert wait(sock, WRITE, None)
        peer.send(b"x")
        assert wait(sock, READ, None)


def test_close_locked_wakes_only_a_thread_that_waits() -> None:
    first, second = threading.RLock(), threading.RLock()
    woken: list[str] = []
    answers: list[bool] = []
    close_locked((first, second), lambda: woken.append("no"), answers.append)
    assert answers == [True]
    assert not woken
    taken, done = threading.Event(), threading.Event()

    def work() -> None:
        with second:
            taken.set()
            done.wait(TIMEOUT)

    thread = threading.Thread(target=work)
    thread.start()
    assert taken.wait(TIMEOUT)
    close_locked((first, second), done.set, answers.append)
    assert answers == [True, False]
    thread.join(TIMEOUT)


def test_close_locked_ignores_an_error_of_the_wake() -> None:
    lock, taken, done = threading.RLock(), threading.Event(), threading.Event()

    def work() -> None:
        with lock:
            taken.set()
            done.wait(TIMEOUT)

    def wake() -> None:
        done.set()
        raise OSError(errno.ENOTCONN, "not connected")

    thread = threading.Thread(target=work)
    thread.start()
    assert taken.wait(TIMEOUT)
    answers: list[bool] = []
    close_locked((lock,), wake, answers.append)
    assert answers == [False]
    thread.join(TIMEOUT)


class InterruptedLock:
    """A lock whose acquire() is interrupted by a signal handler that raises: it is not taken."""

    def acquire(self, blocking: bool = True) -> bool:
        if not blocking:
            return False
        raise Interruption

    def release(self) -> None:
        raise RuntimeError("cannot release un-acquired lock")


def test_close_locked_raises_what_a_handler_raises_while_it_waits_for_a_lock() -> None:
    answers: list[bool] = []
    first = threading.RLock()
    with pytest.raises(Interruption):
        close_locked((first, InterruptedLock()), lambda: None, answers.append)
    assert not answers
    assert lock_is_free(first)


def test_call_tls_that_has_not_begun_leaves_the_connection_whole() -> None:
    with stream_pair() as (peer, sock):
        wire = Wire(sock)
        wire._tls_lock = InterruptedLock()  # type: ignore[assignment]
        with pytest.raises(Interruption):
            wire.call_tls(peer.send, b"x")
        assert not wire.torn
        wire._tls_lock = threading.RLock()
        assert wire.call_tls(peer.send, b"x") == 1


def test_wait_waits_on_where_the_system_cannot_wait_that_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_LONGEST_POLL", 0.001)
    with stream_pair() as (_, sock):
        deadline = time.monotonic() + 0.02
        assert not wait(sock, READ, deadline)
        assert time.monotonic() >= deadline


def test_recv_that_times_out_as_another_thread_closes_reports_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stream_pair() as (_, sock):
        conn = FrameSocket(FaultySocket(sock))
        conn.settimeout(TIMEOUT)

        def close(*_: object) -> bool:
            conn.close()
            return False

        monkeypatch.setattr(Wire, "wait", close)
        with pytest.raises(ConnectionAbortedError, match="closed"):
            conn.recv()


def test_mark_started_stores_whether_the_message_is_held() -> None:
    error = OSError()
    mark_started(error, True)
    assert error.message_started is True  # type: ignore[attr-defined]


def test_states_follow_the_calls() -> None:
    with stream_pair() as (peer, sock):
        conn = FrameSocket(sock)
        receiver, sender = conn._receiver, conn._sender
        assert (receiver.state, sender.state) == (ReceiveState.READY, SendState.IDLE)
        peer.sendall(conn.codec.encode(bytes(200_000))[:100_000])
        conn.settimeout(0)
        with pytest.raises(BlockingIOError):
            conn.recv_into(bytearray(200_000))
        assert receiver.state is ReceiveState.HALF_DELIVERED
        with pytest.raises(BlockingIOError):
            conn.send(bytes(10_000_000))
        assert sender.state is SendState.HELD
        peer.shutdown(socket.SHUT_WR)
        conn.settimeout(TIMEOUT)
        for receive in (lambda: conn.recv_into(bytearray(200_000)), conn.recv):
            with pytest.raises(EOFError):
                receive()
        assert receiver.state is ReceiveState.FAILED
        conn.close()
        assert (receiver.state, sender.state) == (ReceiveState.CLOSED, SendState.CLOSED)
        assert conn._state is SocketState.CLOSED
