"""The pytest plugin of framecodec: the fixtures ``chunking_proxy`` and ``frame_pair``.

pytest loads this module at its start, whenever framecodec is installed. So it is outside of the
package and imports framecodec only inside the fixtures: the start of pytest costs nothing, and a
coverage measurement that begins later sees all of framecodec.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from framecodec import Codec, FrameSocket
    from framecodec.testing import ChunkingProxy

__all__ = ["FramePairs", "Proxies", "chunking_proxy", "frame_pair"]

_TIMEOUT = 10.0  # seconds; a test that waits longer fails instead of blocking the run


class Proxies:
    """Makes proxies, and closes them at the end of the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(
        self, upstream: Any, *, sizes: tuple[int, int] = (1, 7), **options: Any
    ) -> ChunkingProxy:
        """Return a new `framecodec.testing.ChunkingProxy`, which takes the same arguments."""
        from framecodec.testing import ChunkingProxy

        return self._stack.enter_context(ChunkingProxy(upstream, sizes=sizes, **options))


class FramePairs:
    """Makes connected pairs of `framecodec.FrameSocket`, and closes them at the end of the test.

    It is also the first pair itself: ``left, right = frame_pair``.
    """

    def __init__(self, stack: ExitStack, codec: Codec[Any] | None) -> None:
        self._stack = stack
        self._codec = codec
        self._first: tuple[FrameSocket, FrameSocket] | None = None

    def __call__(
        self, codec: Codec[Any] | None = None, *, timeout: float | None = _TIMEOUT, **options: Any
    ) -> tuple[FrameSocket, FrameSocket]:
        """Return a new pair.

        Args:
            codec: The codec of both ends. Default: the parameter of the fixture, else 4 bytes,
                big-endian.
            timeout: Seconds that a call may take; None for no limit.
            **options: Further parameters of both `FrameSocket` objects.
        """
        import socket

        import framecodec

        codec = codec or self._codec or framecodec.Codec.uint(4)
        ends = [self._stack.enter_context(end) for end in socket.socketpair()]
        for end in ends:
            end.settimeout(timeout)
        left, right = (
            self._stack.enter_context(framecodec.FrameSocket(end, codec, **options)) for end in ends
        )
        return left, right

    def __iter__(self) -> Iterator[FrameSocket]:
        if self._first is None:
            self._first = self()
        return iter(self._first)

    def __getitem__(self, index: int) -> FrameSocket:
        first: FrameSocket = [*self][index]
        return first

    def __len__(self) -> int:
        return 2


@pytest.fixture
def chunking_proxy() -> Iterator[Proxies]:
    """Make relays that cut and join a stream: ``chunking_proxy(server.address, sizes=(1, 7))``."""
    with ExitStack() as stack:
        yield Proxies(stack)


@pytest.fixture
def frame_pair(request: pytest.FixtureRequest) -> Iterator[FramePairs]:
    """Make connected pairs of FrameSocket: ``left, right = frame_pair``, ``frame_pair(codec)``."""
    with ExitStack() as stack:
        yield FramePairs(stack, getattr(request, "param", None))
