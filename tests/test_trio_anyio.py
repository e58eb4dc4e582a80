"""Trio and AnyIO: the very code of the page about asyncio, at work over real connections."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import framecodec
from framecodec import Codec
from tests.helpers.subprocesses import ROOT

anyio = pytest.importorskip("anyio")
trio = pytest.importorskip("trio")

PAGE = (ROOT / "docs" / "asyncio.md").read_text("utf-8")
CODEC = Codec.uint(2)
PATIENCE = 20  # seconds; no test that passes needs them


def frame_stream(heading: str) -> Any:
    """The class in a section of the page."""
    section = PAGE[PAGE.index(f"\n## {heading}\n") :]
    code = re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(compile(code[1], f"docs/asyncio.md, {heading}", "exec"), names)
    return names["FrameStream"]


class Trio:
    """What the tests need of either library."""

    stream = staticmethod(frame_stream("Trio"))
    move_on_after = staticmethod(trio.move_on_after)

    @staticmethod
    def run(test: Callable[..., Any]) -> None:
        async def with_connection() -> None:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            here = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
            there = await listeners[0].accept()
            await listeners[0].aclose()
            with trio.fail_after(PATIENCE):
                async with here, there, trio.open_nursery() as nursery:
                    await test(here, there, nursery.start_soon)

        trio.run(with_connection)

    @staticmethod
    async def write(stream: Any, data: bytes) -> None:
        await stream.send_all(data)

    @staticmethod
    async def end(stream: Any) -> None:
        await stream.send_eof()


class AnyIO:
    stream = staticmethod(frame_stream("AnyIO"))
    move_on_after = staticmethod(anyio.move_on_after)

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def run(self, test: Callable[..., Any]) -> None:
        async def with_connection() -> None:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
            accepted: list[Any] = []
            came = anyio.Event()

            async def accept(stream: Any) -> None:
                accepted.append(stream)
                came.set()

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as group:
                    group.start_soon(listener.serve, accept)
                    port = listener.extra(anyio.abc.SocketAttribute.local_port)
                    here = await anyio.connect_tcp("127.0.0.1", port)
                    await came.wait()
                    group.cancel_scope.cancel()
                await listener.aclose()
                async with here, accepted[0] as there, anyio.create_task_group() as group:
                    await test(here, there, group.start_soon)

        anyio.run(with_connection, backend=self.backend)

    @staticmethod
    async def write(stream: Any, data: bytes) -> None:
        await stream.send(data)

    @staticmethod
    async def end(stream: Any) -> None:
        await stream.send_eof()


libraries = pytest.mark.parametrize(
    "library",
    [Trio(), AnyIO("asyncio"), AnyIO("trio")],
    ids=["trio", "anyio on asyncio", "anyio on trio"],
)


@libraries
def test_trio_and_anyio_send_and_recv_messages_of_all_sizes(library: Any) -> None:
    messages = [b"", b"hello", bytes(65535), *(b"%d" % number for number in range(1000))]

    async def test(here: Any, there: Any, start_soon: Any) -> None:
        left, right = library.stream(here, CODEC), library.stream(there, CODEC)

        async def send() -> None:
            await left.send_many(messages)
            await library.end(here)

        start_soon(send)
        assert [await right.recv() for _ in messages] == messages
        for _ in "12":
            with pytest.raises(EOFError, match="the peer closed") as caught:
                await right.recv()
            assert not isinstance(caught.value, framecodec.FrameError)
        await right.send_many([b"goodbye"])  # the other direction still works
        assert await left.recv() == b"goodbye"

    library.run(test)


@libraries
def test_trio_and_anyio_cancelled_recv_loses_nothing_at_any_byte(library: Any) -> None:
    async def test(here: Any, there: Any, start_soon: Any) -> None:
        right = library.stream(there, CODEC)
        wire = CODEC.encode(b"hello")
        for cut in range(len(wire)):
            await library.write(here, wire[:cut])
            with library.move_on_after(0.01) as scope:
                await right.recv()
            assert scope.cancelled_caught
            await library.write(here, wire[cut:])
            assert await right.recv() == b"hello"

    library.run(test)


@libraries
def test_trio_and_anyio_sends_of_many_tasks_are_whole_frames(library: Any) -> None:
    async def test(here: Any, there: Any, start_soon: Any) -> None:
        left, right = library.stream(here, CODEC), library.stream(there, CODEC)
        batches = [[bytes([number]) * 60_000] * 10 for number in range(8)]
        for batch in batches:
            start_soon(left.send_many, batch)
        received = [await right.recv() for _ in range(80)]
        assert sorted(received) == sorted(message for batch in batches for message in batch)

    library.run(test)


@libraries
@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"\0\2ok\0\5hel", framecodec.IncompleteFrameError),
        (b"\0\2ok\0\x65", framecodec.MessageTooLargeError),
    ],
    ids=["cut", "too large"],
)
def test_trio_and_anyio_recv_raises_a_broken_frame_after_the_messages(
    library: Any, wire: bytes, error: type[Exception]
) -> None:
    async def test(wire: bytes, here: Any, there: Any, start_soon: Any) -> None:
        right = library.stream(there, Codec.uint(2, max_message_size=100))
        await library.write(here, wire)
        await library.end(here)
        assert await right.recv() == b"ok"
        for _ in "12":
            with pytest.raises(error):
                await right.recv()

    library.run(partial(test, wire))
