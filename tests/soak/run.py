"""The soak: client and server threads, each connection with its own conversation.

A client sends messages of random sizes, in random ways, and expects each of them back. On the way
there is a relay that cuts the stream at random, pauses, and ends some connections in mid-frame:
then what came back must be a prefix of what was sent. Both ends have time-outs so short that they
fail all the time, and go on.
"""

from __future__ import annotations

import contextlib
import gc
import random
import select
import socket
import threading
import time
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

from framecodec import Codec, FrameSocket
from tests.helpers.descriptors import open_descriptors
from tests.helpers.fault_injection import TIMEOUT

__all__ = ["Found", "soak"]

CODECS = [Codec.uint(4), Codec.text(b":", trailer=b","), Codec.digits(8), Codec.headers()]
SIZES = [0, 1, 10, 10, 100, 100, 1000, 4095, 4096, 30_000, 200_000]
WORKERS = 6


@dataclass
class Found:
    """What a soak did, and what it found."""

    connections: int = 0
    tls: int = 0
    messages: int = 0
    bytes: int = 0
    faults: int = 0
    lost: int = 0
    descriptors: int = 0
    memory: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"connections {self.connections} ({self.tls} over TLS), messages {self.messages}, "
            f"bytes {self.bytes}, faults {self.faults}, bytes lost {self.lost}, "
            f"descriptors left {self.descriptors}, memory left {self.memory} bytes"
            + "".join(f"\n{failure}" for failure in self.failures)
        )


def soak(seconds: float, seed: int = 0) -> Found:
    """Runs conversations until the time is up."""
    found, lock = Found(), threading.Lock()
    contexts = _contexts()
    _converse(random.Random(seed), contexts, Found(), lock)  # what is made once
    gc.collect()
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    memory, descriptors = tracemalloc.get_traced_memory()[0], open_descriptors()
    stop = time.monotonic() + seconds

    def work(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        while time.monotonic() < stop and not found.failures:
            try:
                _converse(rng, contexts, found, lock)
            except BaseException as error:
                found.failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del threads, thread
    gc.collect()
    found.memory = max(0, tracemalloc.get_traced_memory()[0] - memory)
    if not tracing:
        tracemalloc.stop()
    found.descriptors = open_descriptors() - descriptors
    return found


def _contexts() -> tuple[Any, Any] | None:
    try:
        import ssl

        import trustme
    except ImportError:
        return None
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


def _converse(
    rng: random.Random, contexts: tuple[Any, Any] | None, found: Found, lock: threading.Lock
) -> None:
    """One connection from its beginning to its end."""
    codec = rng.choice(CODECS).replace()  # made anew: with the engine in use
    encrypted = contexts is not None and rng.random() < 0.2
    messages = [rng.randbytes(rng.choice(SIZES)) for _ in range(rng.randint(1, 40))]
    total = len(codec.encode_many(messages))
    # Where the relay ends the connection; of an encrypted one it cannot tell where frames are.
    cut = rng.randrange(total) if rng.random() < 0.3 else None
    near, relay_near = socket.socketpair()
    relay_far, far = socket.socketpair()
    faults = [0]
    relays = [
        threading.Thread(target=_relay, args=(relay_near, relay_far, rng.random(), cut, faults)),
        threading.Thread(target=_relay, args=(relay_far, relay_near, rng.random(), None, faults)),
    ]
    for thread in relays:
        thread.start()
    echoed: list[bytes] = []
    came_back: list[bytes] = []
    server = threading.Thread(target=_serve, args=(far, codec, contexts, encrypted, echoed, faults))
    server.start()
    accepted = 0
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(near)
            sock: Any = near
            sock.settimeout(TIMEOUT)
            if encrypted:
                assert contexts is not None
                sock = stack.enter_context(
                    contexts[1].wrap_socket(near, server_hostname="localhost")
                )
            conn = stack.enter_context(FrameSocket(sock, codec))
            receiver = threading.Thread(
                target=_receive, args=(conn, len(messages), came_back, faults)
            )
            conn.settimeout(rng.choice([0.0, 0.001]))
            receiver.start()
            try:
                accepted = _send(conn, messages, faults)
            finally:
                receiver.join()
    except (OSError, EOFError):
        if cut is None:
            raise
    finally:
        server.join()
        for thread in relays:
            thread.join()
        relay_near.close()
        relay_far.close()
    whole = cut is None
    ok = echoed == messages[: len(echoed)] and came_back == messages[: len(came_back)]
    if whole:
        ok = ok and len(came_back) == len(messages) == accepted
    elif not encrypted:  # just the frames before the cut
        assert cut is not None
        ok = ok and echoed == codec.split(codec.encode_many(messages)[:cut])[0]
    with lock:
        found.connections += 1
        found.tls += encrypted
        found.messages += len(came_back) + len(echoed)
        found.bytes += sum(map(len, came_back)) + sum(map(len, echoed))
        found.faults += faults[0] + (cut is not None)
        if not ok:
            found.lost += max(1, sum(map(len, messages)) - sum(map(len, came_back)))
            found.failures.append(f"{codec}, cut {cut}, {len(came_back)} of {len(messages)} back")


def _relay(
    source: socket.socket, sink: socket.socket, seed: float, cut: int | None, faults: list[int]
) -> None:
    """Carries bytes on in pieces of random sizes; after `cut` bytes it ends the connection."""
    rng = random.Random(seed)
    carried = 0
    with contextlib.suppress(OSError):
        while cut is None or carried < cut:
            limit = rng.choice([1, 3, 100, 5000, 100_000])
            data = source.recv(limit if cut is None else min(limit, cut - carried))
            if not data:
                break
            sink.sendall(data)
            carried += len(data)
            if rng.random() < 0.01:
                faults[0] += 1
                time.sleep(0.002)  # longer than the time-outs at both ends
    for sock, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            sock.shutdown(how)
    if cut is not None:
        with contextlib.suppress(OSError):
            while source.recv(1 << 20):  # so that the sender sees an end, not a full buffer
                pass


def _serve(
    sock: socket.socket,
    codec: Codec,
    contexts: tuple[Any, Any] | None,
    encrypted: bool,
    echoed: list[bytes],
    faults: list[int],
) -> None:
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError, EOFError):
        stack.enter_context(sock)
        sock.settimeout(TIMEOUT)
        wrapped: Any = sock
        if encrypted:
            assert contexts is not None
            wrapped = stack.enter_context(contexts[0].wrap_socket(sock, server_side=True))
        conn = stack.enter_context(FrameSocket(wrapped, codec))
        conn.settimeout(0.001)
        while True:
            try:
                messages = conn.recv_many()
            except (TimeoutError, BlockingIOError):
                faults[0] += 1
                continue
            echoed += messages
            _send(conn, messages, faults)


def _send(conn: FrameSocket, messages: list[bytes], faults: list[int]) -> int:
    """Sends all of them, however often that fails; how many were accepted."""
    stop = time.monotonic() + TIMEOUT
    for message in messages:
        while True:
            try:
                conn.send(message)
            except (TimeoutError, BlockingIOError) as error:
                faults[0] += 1
                if error.message_started:  # type: ignore[union-attr]
                    break
                assert time.monotonic() < stop
                select.select([], [conn], [], 0.01)
            else:
                break
    while conn.pending_send:
        try:
            conn.flush()
        except (TimeoutError, BlockingIOError):
            faults[0] += 1
            assert time.monotonic() < stop
            select.select([], [conn], [], 0.01)
    return len(messages)


def _receive(conn: FrameSocket, count: int, messages: list[bytes], faults: list[int]) -> None:
    stop = time.monotonic() + TIMEOUT
    with contextlib.suppress(OSError, EOFError):
        while len(messages) < count:
            try:
                messages.append(conn.recv())
            except (TimeoutError, BlockingIOError):
                faults[0] += 1
                assert time.monotonic() < stop
                select.select([conn], [], [], 0.01)
