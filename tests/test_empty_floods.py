"""Clients that send empty messages without an end: each server answers others, and holds little.

How much of a flood comes before a request is counted in test_fairness.py.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

import framecodec
from tests.soak.clients import CODEC
from tests.soak.hostile import last_warnings, tracing
from tests.soak.kinds import KINDS, Limits

FLOODS = 2
REQUESTS = 2
PATIENCE = 60.0  # seconds; only a test that fails waits that long
# Bytes for each client that floods: its messages of one read (32,768 times a list's place), their
# replies, and where the handler limits each call, 200 bytes of asyncio for each such limit.
HELD = 8 << 20

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("engine_in_use")]


@contextlib.contextmanager
def flooded(port: int) -> Iterator[list[int]]:
    """Have clients that flood and read the replies.

    Yields:
        The number of bytes that each has got.
    """
    batch, received, ended = CODEC.encode_many([b""] * 20_000), [0] * FLOODS, threading.Event()

    def send(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                sock.sendall(batch)

    def receive(sock: socket.socket, number: int) -> None:
        buffer = bytearray(1 << 14)
        with contextlib.suppress(OSError):
            while count := sock.recv_into(buffer):
                assert not any(buffer[:count])
                received[number] += count

    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            for _ in range(FLOODS)
        ]
        for sock in socks:
            # Closed, it is reset. Else a server whose replies have filled the window of a client
            # hears of the end only when the client's kernel forgets the connection, after a minute.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        threads = [threading.Thread(target=send, args=(sock,)) for sock in socks]
        threads += [
            threading.Thread(target=receive, args=(sock, number))
            for number, sock in enumerate(socks)
        ]
        for thread in threads:
            thread.start()
        try:
            yield received
        finally:
            ended.set()
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(PATIENCE)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_endless_empty_messages_starve_no_one_and_hold_a_constant(kind: str) -> None:
    limits = Limits(message=PATIENCE, idle=PATIENCE, call=PATIENCE)
    with last_warnings(), tracing(), KINDS[kind](limits) as served:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        with flooded(served.port) as received:
            until(lambda: min(received) > 0)
            address = ("127.0.0.1", served.port)
            with framecodec.connect(address, codec=CODEC, timeout=PATIENCE) as polite:
                for number in range(REQUESTS):
                    polite.send(b"%d" % number)
                    assert polite.recv() == b"%d" % number
            _, peak = tracemalloc.get_traced_memory()
        until(lambda: not served.connections())
    assert peak - before <= FLOODS * HELD
