"""Several threads use one connection: frames stay whole, and no thread waits for ever."""

# ruff: noqa: SIM117

from __future__ import annotations

import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from framecodec import Codec, FrameSocket
from framecodec._states import ReceiveState, SendState
from tests.helpers.fault_injection import KINDS, TIMEOUT, stream_pair

pytestmark = pytest.mark.usefixtures("engine_in_use")


def run(*work: Callable[[], Any]) -> list[BaseException]:
    """Run each function in a separate thread; return what they raised."""
    failures: list[BaseException] = []

    def guarded(job: Callable[[], Any]) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    return failures


@pytest.mark.parametrize(
    ("timeout", "error", "text"),
    [
        (0.0, BlockingIOError, "another thread is in the same call, and this socket does not wait"),
        (0.01, TimeoutError, "another thread did not finish its call"),
    ],
)
def test_recv_beside_a_thread_in_recv_waits_no_longer_than_its_time_out(
    timeout: float, error: type[OSError], text: str
) -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, Codec.uint(4)) as conn:
        with conn._receiving.lock:
            failures: list[BaseException] = []

            def attempt() -> None:
                conn.settimeout(timeout)
                try:
                    conn.recv()
                except OSError as raised:
                    failures.append(raised)

            assert not run(attempt)
        assert type(failures[0]) is error
        assert text in str(failures[0])
        conn.settimeout(TIMEOUT)
        peer.sendall(b"\0\0\0\1a")
        assert conn.recv() == b"a"


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("kind", KINDS)
def test_send_and_recv_in_two_threads(kind: str, timeout: float | None) -> None:
    messages = [bytes([n % 256]) * (n * 37 % 9000) for n in range(200)]
    with stream_pair(kind) as (left, right):
        with FrameSocket(left) as one, FrameSocket(right) as other:
            for conn in (one, other):
                conn.settimeout(timeout)
            found: dict[FrameSocket, list[bytes]] = {one: [], other: []}

            def receive(conn: FrameSocket) -> None:
                found[conn] += [conn.recv() for _ in messages]

            def send(conn: FrameSocket) -> None:
                for message in messages:
                    conn.send(message)

            assert not run(*(lambda w=w, c=c: w(c) for w in (receive, send) for c in (one, other)))  # type: ignore[misc]
            assert found == {one: messages, other: messages}


@pytest.mark.parametrize("size", [20, 5000, 100_000])
def test_send_from_many_threads_keeps_frames_whole_and_in_order(size: int) -> None:
    senders, count = 6, 40 if size < 10_000 else 10
    with stream_pair() as (left, right):
        with FrameSocket(left) as one, FrameSocket(right) as other:
            one.settimeout(TIMEOUT)
            other.settimeout(TIMEOUT)

            def send(number: int) -> None:
                for turn in range(count):
                    message = bytes([number, turn]) + bytes([number]) * size
                    if turn % 3:
                        one.send(message)
                    else:
                        one.send_many([message])

            found: list[bytes] = []
            jobs = [lambda number=number: send(number) for number in range(senders)]  # type: ignore[misc]
            failures = run(
                *jobs, lambda: found.extend(other.recv() for _ in range(senders * count))
            )
            assert not failures
            for number in range(senders):
                of_one = [message for message in found if message[0] == number]
                assert of_one == [
                    bytes([number, turn]) + bytes([number]) * size for turn in range(count)
                ]


def test_recv_in_many_threads_gives_each_message_to_one() -> None:
    messages = [b"%d" % n for n in range(400)]
    with stream_pair() as (left, right):
        with FrameSocket(left) as one, FrameSocket(right) as other:
            other.settimeout(TIMEOUT)
            found: list[bytes] = []

            def receive() -> None:
                for _ in range(100):
                    found.append(other.recv())

            assert not run(*[receive] * 4, lambda: [one.send(message) for message in messages])
            assert Counter(found) == Counter(messages)


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_close_wakes_a_send_that_waits(timeout: float | None) -> None:
    with stream_pair() as (_, sock), FrameSocket(sock) as conn:
        conn.settimeout(timeout)
        begun = threading.Event()

        def send() -> None:
            begun.set()
            conn.send(bytes(8 << 20))

        def close() -> None:
            begun.wait(TIMEOUT)
            threading.Event().wait(0.02)
            conn.close()

        (error,) = run(send, close)
        assert isinstance(error, OSError)
        assert not isinstance(error, TimeoutError)


CALLS: dict[str, Callable[[FrameSocket], Any]] = {
    "recv": FrameSocket.recv,
    "recv_many": FrameSocket.recv_many,
    "iteration": list,
    "recv_bytes": lambda conn: conn.recv_bytes(9),
    "recv_into": lambda conn: conn.recv_into(bytearray(9)),
    "recv_file": lambda conn: conn.recv_file(io.BytesIO()),
    "recv_parts": lambda conn: list(conn.recv_parts()),
    "send": lambda conn: conn.send(bytes(8 << 20)),
    "send_many": lambda conn: conn.send_many([bytes(8 << 20)]),
    "send_bytes": lambda conn: conn.send_bytes(bytes(8 << 20)),
}


@pytest.mark.parametrize("sent", [b"", b"\0\0\0\t123"], ids=["nothing", "half a frame"])
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_close_wakes_reports_the_close(
    name: str, timeout: float | None, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The state of a direction is stored by each of its calls. A call of another thread may do so
    # just after `close` has stored its own; `close` then wakes the call that waits.
    wake = FrameSocket._shutdown

    def store_and_wake(conn: FrameSocket, how: int = socket.SHUT_RDWR) -> None:
        conn._receiver.state = ReceiveState.READY
        conn._sender.state = SendState.IDLE
        wake(conn, how)

    monkeypatch.setattr(FrameSocket, "_shutdown", store_and_wake)
    with stream_pair() as (peer, sock), FrameSocket(sock) as conn:
        conn.settimeout(timeout)
        peer.sendall(sent)
        lock = (conn._sending if "send" in name else conn._receiving).lock

        def close() -> None:
            while lock.acquire(blocking=False):
                lock.release()
                time.sleep(0.001)
            time.sleep(0.01)
            conn.close()

        (error,) = run(lambda: CALLS[name](conn), close)
        assert type(error) is ConnectionAbortedError


def test_close_wakes_both_directions_at_once() -> None:
    with stream_pair("tcp") as (_, sock), FrameSocket(sock) as conn:
        conn.settimeout(None)
        failures = run(
            conn.recv,
            lambda: [conn.send(bytes(1 << 20)) for _ in range(100)],
            lambda: (threading.Event().wait(0.05), conn.close()),
        )
        assert len(failures) == 2
        assert all(isinstance(error, OSError) for error in failures)


def test_recv_waits_for_another_thread_until_its_time_out() -> None:
    with stream_pair() as (_, sock), FrameSocket(sock) as conn:
        conn.settimeout(0.05)
        failures = run(conn.recv, conn.recv, conn.recv)
        assert [type(error) for error in failures] == [TimeoutError] * 3


def test_shutdown_in_one_thread_ends_the_peers_recv_cleanly() -> None:
    with stream_pair() as (left, right):
        with FrameSocket(left) as one, FrameSocket(right, Codec.uint(4)) as other:
            found: list[bytes] = []
            failures = run(
                lambda: found.extend(other),
                lambda: (one.send(b"last"), one.shutdown(socket.SHUT_WR)),
            )
            assert (failures, found) == ([], [b"last"])
