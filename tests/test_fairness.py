"""A client that floods does not starve others: what is counted is messages, never time.

In each test a server's only thread is held while clients fill the buffers of the kernel, and one
more client sends a request. When the thread continues, that request must be answered after at most
what one or two turns take from each client that floods.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

import framecodec
import framecodec.asyncio
from framecodec import Codec
from framecodec.serving import messages as messages_module
from tests.helpers.event_loops import LOOPS, run
from tests.helpers.servers import (
    LOOPBACK,
    PATIENCE,
    dial,
    until,
)

CODEC = Codec.uint(4)
FLOODS = 4
SIZES = [0, 1000]  # bytes of a message of the flood
READ = 128 * 1024  # bytes that a client gives to one turn, at most
HELD = 256 * 1024  # bytes that a FrameStream holds for its task, and 48 for each message


def fill(sock: socket.socket, size: int = 1000) -> None:
    """Send messages of this size until the buffers of the kernel are full."""
    batch, sent = CODEC.encode_many([bytes(size)] * (1_000_000 // (size + 4))), 0
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(batch[sent % len(batch) :])
    assert sent > 2 * READ


@pytest.mark.usefixtures("message_loop")
@pytest.mark.parametrize("size", SIZES)
def test_serve_messages_takes_one_read_from_each_client_a_turn(size: int) -> None:
    held, released = threading.Event(), threading.Event()
    calls: list[int] = []  # the bytes of each call with messages of a flood
    before: list[int] = []  # the number of these calls before each request

    def handle(conn: Any, messages: list[bytes]) -> list[bytes] | None:
        if messages[0] == b"hold":
            held.set()
            assert released.wait(PATIENCE)
        elif messages[0] == b"ping":
            before.append(len(calls))
            return messages
        else:
            calls.append(len(messages) * (size + 4))
        return None

    with (
        framecodec.serve_messages(handle, LOOPBACK) as server,
        contextlib.ExitStack() as stack,
    ):
        floods = [stack.enter_context(dial(server.address)) for _ in range(FLOODS)]
        polite, holding = (stack.enter_context(dial(server.address)) for _ in range(2))
        for client in (*floods, polite):
            client.send(b"ping")
            assert client.recv() == b"ping"
        holding.send(b"hold")
        assert held.wait(PATIENCE)
        before.clear()
        for client in floods:
            fill(client.socket, size)
        polite.send(b"ping")
        released.set()
        assert polite.recv() == b"ping"
        until(lambda: len(calls) > FLOODS)  # there was more in the kernel
    assert before[0] <= FLOODS
    assert len(calls) > FLOODS
    assert max(calls) <= READ + size + 4  # the start of the first one came before


@pytest.mark.usefixtures("message_loop")
def test_serve_messages_ends_a_silent_client_while_others_flood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each call with messages of a flood takes a step of the clock; the limit is 8 of them."""
    step, steps, floods = 0.1, 8, 8
    calls: list[None] = []
    ended = threading.Event()
    before: list[int] = []  # the number of calls before the silent client was ended

    def fault(hooks: Any, conn: Any, error: BaseException) -> None:
        if isinstance(error, framecodec.IdleTimeoutError):
            before.append(len(calls))
            ended.set()

    def handle(conn: Any, messages: list[bytes]) -> None:
        if not ended.is_set():
            time.sleep(step)
            calls.append(None)

    monkeypatch.setattr(messages_module._Hooks, "fault", fault)
    with (
        framecodec.serve_messages(handle, LOOPBACK, idle_timeout=steps * step) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(dial(server.address)) for _ in range(floods + 1)]
        for client in clients[1:]:
            fill(client.socket)
        assert ended.wait(PATIENCE)
    assert before[0] <= steps + 2 * floods


async def count_floods_before_a_request(server_of: Any, size: int) -> int:
    """Return how many messages of floods a server handles before the request of another client.

    Args:
        size: Bytes of a message of the floods.
        server_of: A function that returns an async context manager, which starts a server that
            calls this function's argument with each message, and yields its address.
    """
    count, before = 0, -1
    answered = asyncio.Event()

    def on_message(message: bytes) -> None:
        nonlocal count, before
        if message == b"ping":
            before = count
            answered.set()
        else:
            count += 1

    async with server_of(on_message) as address:
        with contextlib.ExitStack() as stack:
            socks = [
                stack.enter_context(socket.create_connection(address, PATIENCE))
                for _ in range(FLOODS + 1)
            ]
            for sock in socks:
                answered.clear()
                sock.sendall(CODEC.encode(b"ping"))
                await asyncio.wait_for(answered.wait(), PATIENCE)
            answered.clear()
            for sock in socks[:-1]:  # the loop does not run until all of it has arrived
                fill(sock, size)
            socks[-1].sendall(CODEC.encode(b"ping"))
            await asyncio.wait_for(answered.wait(), PATIENCE)
    return before


@LOOPS
@pytest.mark.parametrize("size", SIZES)
def test_a_frame_stream_gives_way_after_what_it_holds(loop: str, size: int) -> None:
    @contextlib.asynccontextmanager
    async def server_of(on_message: Any) -> AsyncIterator[Any]:
        async def handler(stream: Any) -> None:
            with contextlib.suppress(OSError, EOFError):
                async for message in stream:
                    on_message(message)

        async with framecodec.asyncio.start_server(handler, "127.0.0.1", 0, codec=CODEC) as server:
            yield server.sockets[0].getsockname()
            await server.aclose(0.0)

    before = run(loop, count_floods_before_a_request(server_of, size))
    # What a task gets in one turn; the reads of the floods may all come before that of the request.
    assert before <= FLOODS * (HELD // (size + 48) + 2 * READ // (size + 4))


@LOOPS
@pytest.mark.parametrize("size", SIZES)
def test_a_frame_protocol_gives_way_after_one_read(loop: str, size: int) -> None:
    @contextlib.asynccontextmanager
    async def server_of(on_message: Any) -> AsyncIterator[Any]:
        connected = set()
        ended = asyncio.Event()

        class Protocol(framecodec.asyncio.FrameProtocol[bytes]):
            def connection_made(self, transport: Any) -> None:
                connected.add(self)

            def messages_received(self, messages: list[bytes]) -> None:
                for message in messages:
                    on_message(message)

            def connection_lost(self, error: BaseException | None) -> None:
                connected.discard(self)
                if not connected:
                    ended.set()

        running = asyncio.get_running_loop()
        server = await running.create_server(lambda: Protocol(CODEC), "127.0.0.1", 0)
        yield server.sockets[0].getsockname()
        server.close()
        for protocol in [*connected]:
            protocol.transport.abort()
        await asyncio.wait_for(ended.wait(), PATIENCE)

    before = run(loop, count_floods_before_a_request(server_of, size))
    assert before <= FLOODS * (READ // (size + 4) + 1)
