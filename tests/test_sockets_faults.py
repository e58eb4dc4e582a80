"""A fault at every byte of a stream, and at every moment: nothing is lost, no frame is torn.

``python -m tests.test_sockets_faults`` runs this file and prints what it injected.
"""

from __future__ import annotations

import contextlib
import io
import random
import select
import signal
import socket
import sys
import threading
from typing import Any

import pytest

from framecodec import Codec, FrameSocket, IncompleteFrameError, InvalidFrameError
from framecodec._outbox import Outbox
from framecodec._states import SendState
from framecodec.sockets.sending import SendSide
from tests.helpers.fault_injection import (
    PASSING,
    PASSING_ERRORS,
    TALLY,
    TIMEOUT,
    FaultySocket,
    Interruption,
    disturbed,
    interrupted_at,
    needs_signals_to_threads,
    reset,
    stream_pair,
)

pytestmark = pytest.mark.usefixtures("engine_in_use")

CODECS = {
    "uint": Codec.uint(4),
    "netstring": Codec.text(b":", trailer=b","),
    "hexadecimal": Codec.digits(4, base=16),
    "headers": Codec.headers(),
    "with a lead": Codec.uint(4, length_offset=1, length_includes="rest"),
    "exact": Codec.uint(2),
}
MESSAGES = [b"one", b"?", b"a longer message", b"x" * 10]
TIMEOUTS = [None, TIMEOUT, 0.0]


def codec_named(name: str) -> Codec:
    """Made anew, so that it uses the engine of this test."""
    return CODECS[name].replace()


def received(conn: FrameSocket, count: int) -> tuple[list[Any], int]:
    """Return that many messages, and how many failures were raised meanwhile."""
    messages: list[Any] = []
    failures = 0
    while len(messages) < count:
        try:
            messages.append(conn.recv())
        except PASSING_ERRORS:
            failures += 1
            assert failures < 10_000
            if conn.gettimeout() == 0:
                select.select([conn], [], [], TIMEOUT)
    return messages, failures


def wire_of(sock: socket.socket) -> bytes:
    """All that arrives until the other end closes."""
    data = b""
    while chunk := sock.recv(1 << 20):
        data += chunk
    return data


# --- receiving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("name", CODECS)
def test_recv_loses_nothing_to_a_fault_at_any_byte(
    name: str, fault: str, timeout: float | None
) -> None:
    codec = codec_named(name)
    stream = codec.encode_many(MESSAGES)
    plans = [{offset: [PASSING[fault]]} for offset in range(len(stream) + 1)]
    plans.append({offset: [PASSING[fault]] * 2 for offset in range(len(stream) + 1)})
    for plan in plans:
        with stream_pair() as (peer, sock):
            conn = FrameSocket(FaultySocket(sock, reading=plan), codec, read_ahead=name != "exact")
            with conn:
                conn.settimeout(timeout)
                peer.sendall(stream)
                peer.shutdown(socket.SHUT_WR)
                messages, _ = received(conn, len(MESSAGES))
                TALLY.account(messages, MESSAGES)
                for _ in range(2):  # the plan's faults after the last byte
                    with contextlib.suppress(*PASSING_ERRORS, EOFError):
                        conn.recv()
                with pytest.raises(EOFError, match="the last frame was whole"):
                    conn.recv()
        TALLY.fault(f"receive: {fault}", sum(map(len, plan.values())))


@pytest.mark.parametrize("method", ["recv", "recv_many", "iteration"])
@pytest.mark.parametrize("timeout", [0.0, 0.001])
@pytest.mark.parametrize("name", CODECS)
def test_recv_loses_nothing_to_a_pause_at_any_byte(name: str, timeout: float, method: str) -> None:
    """The system's own time-outs and would-blocks, which the compiled short way meets too."""
    codec = codec_named(name)
    stream = codec.encode_many(MESSAGES)
    step = 1 if timeout == 0 else 7
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        messages: list[Any] = []
        conn.settimeout(timeout)
        for offset in range(0, len(stream), step):
            with contextlib.suppress(TimeoutError, BlockingIOError):
                while len(messages) < len(MESSAGES):
                    if method == "recv":
                        messages.append(conn.recv())
                    elif method == "recv_many":
                        messages += conn.recv_many()
                    else:
                        messages.append(next(iter(conn)))
            peer.sendall(stream[offset : offset + step])
            TALLY.fault("receive: a peer that pauses")
        messages += received(conn, len(MESSAGES) - len(messages))[0]
        TALLY.account(messages, MESSAGES)


@pytest.mark.parametrize("name", CODECS)
def test_recv_counts_right_if_the_peer_closes_at_any_byte(name: str) -> None:
    codec = codec_named(name)
    stream = codec.encode_many(MESSAGES)
    ends = [len(codec.encode_many(MESSAGES[:count])) for count in range(len(MESSAGES) + 1)]
    for offset in range(len(stream) + 1):
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            peer.sendall(stream[:offset])
            peer.close()
            whole = sum(end <= offset for end in ends) - 1
            TALLY.account(received(conn, whole)[0], MESSAGES[:whole])
            TALLY.fault("receive: close")
            with pytest.raises(EOFError) as caught:
                conn.recv()
            for again in (conn.recv, conn.recv_many):
                with pytest.raises(EOFError) as later:
                    again()
                assert later.value is caught.value
            if offset in ends:
                assert type(caught.value) is EOFError
                assert list(conn) == []
            else:
                assert isinstance(caught.value, IncompleteFrameError)
                assert caught.value.received == offset - ends[whole]
                assert caught.value.stream_offset == ends[whole]


@pytest.mark.parametrize("name", ["uint", "headers"])
def test_recv_raises_a_reset_after_the_messages_before_it(name: str) -> None:
    codec = codec_named(name)
    stream = codec.encode_many(MESSAGES)
    ends = [len(codec.encode_many(MESSAGES[:count])) for count in range(len(MESSAGES) + 1)]
    for offset in range(len(stream) + 1):
        with stream_pair("tcp") as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(TIMEOUT)
            peer.sendall(stream[:offset])
            whole = sum(end <= offset for end in ends) - 1
            TALLY.account(received(conn, whole)[0], MESSAGES[:whole])
            reset(peer)
            TALLY.fault("receive: reset")
            with pytest.raises(ConnectionResetError) as caught:
                conn.recv()
            with pytest.raises(ConnectionResetError) as again:
                conn.recv()
            assert again.value is caught.value


@pytest.mark.parametrize("size", [5, 70_000])  # by one system call and nothing around it, or not
@pytest.mark.parametrize("arrived", [b"", b"\0\0"])
def test_recv_raises_a_reset_that_only_a_send_was_told(size: int, arrived: bytes) -> None:
    with stream_pair("tcp") as (peer, sock), FrameSocket(sock, codec_named("uint")) as conn:
        conn.settimeout(0.05)
        peer.sendall(arrived)
        with pytest.raises(TimeoutError):
            conn.recv()
        reset(peer)
        TALLY.fault("send: reset")
        with pytest.raises(ConnectionResetError):
            conn.send(bytes(size))
        with pytest.raises(ConnectionResetError, match="the peer reset the connection") as caught:
            conn.recv()
        with pytest.raises(ConnectionResetError) as again:
            conn.recv_many()
        assert again.value is caught.value


def test_recv_ends_with_a_frame_error_that_the_socket_itself_raises() -> None:
    codec = codec_named("uint")
    error = InvalidFrameError("not of this splitter")
    with stream_pair() as (peer, sock):
        peer.sendall(codec.encode_many([b"one", b"two"]))
        faulty = FaultySocket(sock, reading={7: [lambda: error]})
        with FrameSocket(faulty, codec) as conn:
            conn.settimeout(TIMEOUT)
            assert conn.recv() == b"one"
            for receive in (conn.recv, conn.recv_many):
                with pytest.raises(InvalidFrameError) as caught:
                    receive()
                assert caught.value is error


@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_recv_without_memory_in_the_system_call_ends_receiving(timeout: float | None) -> None:
    codec = codec_named("uint")
    with stream_pair() as (peer, sock):
        peer.sendall(codec.encode_many([b"one", b"two"]))
        faulty = FaultySocket(sock, reading={7: [MemoryError]})
        with FrameSocket(faulty, codec) as conn:
            conn.settimeout(timeout)
            assert conn.recv() == b"one"
            with pytest.raises(MemoryError):
                conn.recv()
            for again in (conn.recv, conn.detach, lambda: conn.switch(codec), conn.recv_many):
                with pytest.raises(ConnectionAbortedError, match="lost"):
                    again()


# --- sending --------------------------------------------------------------------------------------


def sent(conn: FrameSocket, messages: list[bytes]) -> None:
    """Sends each message until it is held or out, however often that fails."""
    for message in messages:
        for _ in range(10_000):
            try:
                conn.send(message)
            except PASSING_ERRORS as error:
                if getattr(error, "message_started", None):
                    break
                # A signal's own exception does not always say it; these come before the call.
                if not isinstance(error, Interruption) and error.message_started is not False:
                    raise
                if conn.gettimeout() == 0:
                    select.select([], [conn], [], TIMEOUT)
            else:
                break
    while conn.pending_send:
        with contextlib.suppress(*PASSING_ERRORS):
            conn.flush()


@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("name", ["uint", "netstring", "headers"])
def test_send_tears_no_frame_after_a_fault_at_any_byte(
    name: str, fault: str, timeout: float | None
) -> None:
    codec = codec_named(name)
    stream = codec.encode_many(MESSAGES)
    plans = [{offset: [PASSING[fault]]} for offset in range(len(stream) + 1)]
    plans.append({offset: [PASSING[fault]] * 2 for offset in range(len(stream) + 1)})
    for plan in plans:
        # Many pieces of one byte fill a Unix socket's buffer; not TCP's.
        with stream_pair("socketpair" if len(plan) == 1 else "tcp") as (peer, sock):
            faulty = FaultySocket(sock, writing=plan)
            with FrameSocket(faulty, codec) as conn:
                conn.settimeout(timeout)
                sent(conn, MESSAGES)
            TALLY.account(wire_of(peer), stream)
        TALLY.fault(f"send: {fault}", sum(map(len, plan.values())))


@pytest.mark.parametrize("fault", PASSING)
def test_send_many_sends_all_or_none_after_a_fault_at_any_byte(fault: str) -> None:
    codec = codec_named("netstring")
    stream = codec.encode_many(MESSAGES)
    for offset in range(len(stream) + 1):
        with stream_pair() as (peer, sock):
            with FrameSocket(FaultySocket(sock, writing={offset: [PASSING[fault]]}), codec) as conn:
                conn.settimeout(0.0)
                try:
                    conn.send_many(MESSAGES)
                except PASSING_ERRORS as error:
                    started = error.message_started  # type: ignore[union-attr]
                    assert started == (offset > 0)
                    assert conn.pending_send == (len(stream) - offset if started else 0)
                    if not started:
                        conn.send_many(MESSAGES)
                    TALLY.fault(f"send_many: {fault}")
                conn.flush()
                assert conn.pending_send == 0
            TALLY.account(wire_of(peer), stream)


@pytest.mark.parametrize("offset", range(0, 28, 3))
def test_send_to_a_peer_that_resets_gives_it_a_prefix_of_the_frames(offset: int) -> None:
    codec = codec_named("uint")
    stream = codec.encode_many(MESSAGES)
    broken = [lambda: BrokenPipeError(32, "gone")] * 100
    with stream_pair() as (peer, sock):
        with FrameSocket(FaultySocket(sock, writing={offset: broken}), codec) as conn:
            for message in MESSAGES:
                with contextlib.suppress(BrokenPipeError):
                    conn.send(message)
                    continue
                TALLY.fault("send: reset")
            with pytest.raises(BrokenPipeError):
                conn.send(b"more")
        TALLY.account(wire_of(peer), stream[:offset])


def test_send_to_a_full_buffer_keeps_a_begun_message_only() -> None:
    """Random sizes through a small buffer of the system's own, on the compiled short way too."""
    rng = random.Random(4)
    codec = codec_named("uint")
    with stream_pair() as (peer, sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        wire, accepted = b"", []
        with FrameSocket(sock, codec) as conn:
            conn.setblocking(False)
            faults = 0
            while faults < 300:
                message = rng.randbytes(rng.choice([1, 100, 3000, 4095, 4096, 20_000]))
                try:
                    conn.send(message)
                    accepted.append(message)
                except BlockingIOError as error:
                    faults += 1
                    TALLY.fault("send: full buffer")
                    if error.message_started:  # type: ignore[attr-defined]
                        assert conn.pending_send
                        accepted.append(message)
                    wire += peer.recv(rng.randint(1, 30_000))
            conn.settimeout(TIMEOUT)
            thread = threading.Thread(target=conn.flush)
            thread.start()
            total = len(codec.encode_many(accepted))
            while len(wire) < total:
                wire += peer.recv(1 << 20)
            thread.join(TIMEOUT)
            assert conn.pending_send == 0
        TALLY.account(wire + wire_of(peer), codec.encode_many(accepted))


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_signal_while_a_failed_send_is_stored_tears_no_frame(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython runs a handler at the entry of a Python function, such as `drop_sent`."""
    message = kind(b"m" * 2_000_000)
    drop_sent, wants_signal = Outbox.drop_sent, False

    def interrupted(outbox: Outbox) -> None:
        nonlocal wants_signal
        if wants_signal:
            wants_signal = False
            raise Interruption
        drop_sent(outbox)

    def fail(side: Any, deadline: Any) -> None:
        nonlocal wants_signal
        try:
            write_or_wait(side, deadline)
        finally:
            wants_signal = True

    write_or_wait = SendSide._write_or_wait
    with stream_pair() as (peer, sock), FrameSocket(sock, codec_named("uint")) as conn:
        conn.setblocking(False)
        with monkeypatch.context() as patched:
            patched.setattr(Outbox, "drop_sent", interrupted)
            patched.setattr(SendSide, "_write_or_wait", fail)
            with pytest.raises(Interruption) as caught:
                conn.send_many([message])
        assert caught.value.message_started  # type: ignore[attr-defined]
        conn.settimeout(TIMEOUT)
        reader = threading.Thread(target=lambda: received_bytes.append(wire_of(peer)))
        received_bytes: list[bytes] = []
        reader.start()
        frame = codec_named("uint").encode(message)
        if kind is bytes:
            conn.send(b"next")
            frame += codec_named("uint").encode(b"next")
        else:  # the caller may have changed it meanwhile
            for again in (conn.flush, lambda: conn.send(b"next")):
                with pytest.raises(ConnectionAbortedError, match="lost"):
                    again()
        conn.close()
        reader.join()
        assert frame.startswith(received_bytes[0])
        assert (received_bytes[0] == frame) == (kind is bytes)


@pytest.mark.parametrize("has_sent_all", [True, False])
def test_bytes_that_an_interrupted_call_has_sent_are_never_awaited(has_sent_all: bool) -> None:
    """Where an outbox counts bytes that it does not hold, sending ends for good."""
    with stream_pair() as (peer, sock), FrameSocket(sock, codec_named("uint")) as conn:
        outbox = conn._sending.outbox
        outbox.size = 5
        conn._sender.state = SendState.HELD
        if has_sent_all:
            outbox.small, outbox.sent_counts = [b"hello"], [5]
            conn.flush()
            conn.send(b"next")
            conn.close()
            assert wire_of(peer) == codec_named("uint").encode(b"next")
        else:
            for again in (conn.flush, conn.flush, lambda: conn.send(b"next")):
                with pytest.raises(ConnectionAbortedError, match="lost"):
                    again()


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("uninterrupted_engine")
@pytest.mark.c_extension
@pytest.mark.parametrize("method", ["recv", "recv_many", "iteration"])
@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("name", ["uint", "netstring", "hexadecimal"])
def test_recv_loses_nothing_to_an_interruption_at_any_moment(
    name: str, timeout: float | None, method: str
) -> None:
    codec = codec_named(name)
    stream = codec.encode_many(MESSAGES)
    moment = 0
    while True:
        moment += 1
        messages: list[Any] = []
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(timeout)
            peer.sendall(stream)
            iterator = iter(conn)
            was_interrupted = False
            with interrupted_at(moment) as passed:
                try:
                    if method == "recv":
                        message = conn.recv()
                        messages.append(message)
                        message = conn.recv()
                        messages.append(message)
                    elif method == "recv_many":
                        messages = conn.recv_many()
                    else:
                        for message in iterator:
                            messages.append(message)
                            if len(messages) == 2:
                                break
                except Interruption:
                    was_interrupted = True
            conn.settimeout(TIMEOUT)
            while len(messages) < len(MESSAGES):
                messages.append(conn.recv())
            TALLY.account(messages, MESSAGES)
        if not was_interrupted:
            break
        TALLY.fault("receive: interruption at every moment")
    assert moment > passed[0]
    assert moment > 1


@pytest.mark.parametrize("message", [b"hello", b"x" * 100_000], ids=len)
@pytest.mark.parametrize("timeout", TIMEOUTS)
def test_send_without_memory_in_the_system_call_ends_sending(
    timeout: float | None, message: bytes
) -> None:
    with stream_pair() as (_, sock):
        faulty = FaultySocket(sock, writing={0: [MemoryError]})
        with FrameSocket(faulty, codec_named("uint")) as conn:
            conn.settimeout(timeout)
            with pytest.raises(MemoryError) as caught:
                conn.send(message)
            assert caught.value.message_started is True  # type: ignore[attr-defined]
            for again in (conn.detach, lambda: conn.send(b"x"), conn.flush, conn.detach):
                with pytest.raises(ConnectionAbortedError, match="lost"):
                    again()


@pytest.mark.untraced
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
def test_send_tears_no_frame_at_an_interruption_at_any_moment(
    timeout: float | None, large: bool
) -> None:
    codec = codec_named("netstring")
    message = b"x" * 5000 if large else b"hello"
    moment = 0
    while True:
        moment += 1
        with stream_pair() as (peer, sock):
            with FrameSocket(sock, codec) as conn:
                conn.settimeout(timeout)
                conn.send(b"before")
                taken: bool | None = True
                with interrupted_at(moment) as passed:
                    try:
                        conn.send(message)
                    except Interruption as error:
                        taken = getattr(error, "message_started", None)
                        TALLY.fault("send: interruption at every moment")
                conn.send(b"after")
                assert conn.pending_send == 0
            messages = list(codec.split(wire_of(peer))[0])
            # Whole frames, in order, none twice; where the library said so, with the message.
            assert messages in ([b"before", message, b"after"], [b"before", b"after"])
            if taken is not None:
                assert (message in messages) is taken
            TALLY.account(messages[0] + messages[-1], b"beforeafter")
        if moment > passed[0]:
            break
    assert moment > 1


@needs_signals_to_threads
@pytest.mark.usefixtures("uninterrupted_engine")
@pytest.mark.c_extension
@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("name", ["uint", "netstring", "hexadecimal"])
def test_recv_loses_nothing_to_a_signal_at_any_byte(name: str, timeout: float | None) -> None:
    """Real signals, into the system call or wherever else they find the thread."""
    codec = codec_named(name)
    stream = codec.encode_many(MESSAGES)
    main = threading.get_ident()
    armed = False

    def handle(*_: object) -> None:
        if armed:
            raise Interruption

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
            conn.settimeout(timeout)
            go = threading.Semaphore(0)

            def disturb() -> None:
                for byte in stream:
                    peer.sendall(bytes([byte]))
                    signal.pthread_kill(main, signal.SIGUSR1)
                    go.acquire(timeout=0.002)

            thread = threading.Thread(target=disturb)
            messages: list[Any] = []
            faults = 0
            thread.start()
            while len(messages) < len(MESSAGES):
                try:
                    armed = True
                    message = conn.recv()
                    armed = False
                    messages.append(message)
                except Interruption:
                    armed = False
                    faults += 1
                    go.release()
            TALLY.account(messages, MESSAGES)
            TALLY.fault("receive: real signals", faults)
    finally:
        armed = False
        thread.join(TIMEOUT)
        signal.signal(signal.SIGUSR1, before)


@needs_signals_to_threads
@pytest.mark.usefixtures("uninterrupted_engine")
@pytest.mark.c_extension
@pytest.mark.parametrize("way", ["file", "buffer"])
@pytest.mark.parametrize("seed", range(4))
def test_recv_file_continues_after_any_signal(way: str, seed: int) -> None:
    rng = random.Random(seed)
    sent = [rng.randbytes(rng.choice([10, 70_000, 700_000])) for _ in range(20)]
    armed: list[bool] = []
    with stream_pair() as (left, right), FrameSocket(left) as one, FrameSocket(right) as other:
        sender = threading.Thread(target=one.send_many, args=[sent])
        sender.start()
        with disturbed(armed):
            for message in sent:
                file, buffer, size = io.BytesIO(), bytearray(len(message)), None
                while size is None:
                    try:
                        armed.append(True)
                        size = other.recv_file(file) if way == "file" else other.recv_into(buffer)
                        armed.clear()
                    except Interruption:
                        armed.clear()
                assert size == len(message)
                TALLY.account([file.getvalue() if way == "file" else bytes(buffer)], [message])
        sender.join(TIMEOUT)


if __name__ == "__main__":
    status = pytest.main([__file__, "-q", "-p", "no:cacheprovider"])
    for kind, count in sorted(TALLY.by_kind.items()):
        print(f"{count:7} {kind}")
    print(f"faults injected {TALLY.faults}, bytes {TALLY.bytes}, bytes lost {TALLY.lost}")
    sys.exit(status)
