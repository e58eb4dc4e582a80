"""Waiting for one socket: until it can be read or written, or a point in time."""

from __future__ import annotations

import math
import select
import socket
from time import monotonic

__all__ = ["READ", "WRITE", "wait"]

READ, WRITE = 1, 2


def wait(sock: socket.socket, event: int, deadline: float | None) -> bool:
    """Waits until the socket can be read or written; False where the deadline passed."""
    while True:
        seconds = None if deadline is None else max(0.0, deadline - monotonic())
        if _poll(sock, event, seconds):
            return True
        if deadline is not None and monotonic() >= deadline:
            return False


if hasattr(select, "poll"):

    def _poll(sock: socket.socket, event: int, seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(sock, select.POLLIN if event == READ else select.POLLOUT)
        # A month at most: the system takes an int of milliseconds.
        milliseconds = None if seconds is None else math.ceil(min(seconds, 2_000_000) * 1000)
        return bool(poll.poll(milliseconds))

else:

    def _poll(sock: socket.socket, event: int, seconds: float | None) -> bool:
        if event == READ:
            return any(select.select([sock], [], [], seconds))
        return any(select.select([], [sock], [sock], seconds))
