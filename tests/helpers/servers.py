"""Clients of the blocking servers, and waits for what the servers do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import framecodec
from framecodec import FrameSocket

__all__ = ["LOOPBACK", "PATIENCE", "AsyncHandler", "dial", "until"]

LOOPBACK = ("127.0.0.1", 0)
PATIENCE = 20.0  # seconds; only a test that fails waits that long


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def dial(address: Any, **options: Any) -> FrameSocket:
    """Return a client of a server."""
    return framecodec.connect(address, timeout=PATIENCE, **options)


class AsyncHandler:
    """An object that is called as an async function is: a server with threads must refuse it."""

    async def __call__(self, *args: object) -> None:
        """Do nothing."""
