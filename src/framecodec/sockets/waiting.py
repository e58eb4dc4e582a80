"""Wait for a socket until a deadline."""

from __future__ import annotations

import math
import select
import socket
from time import monotonic

__all__ = ["READ", "WRITE", "wait"]

READ, WRITE = 1, 2

_LONGEST_POLL = 2_000_000  # seconds; the kernel takes the time as an int of milliseconds


def wait(sock: socket.socket, event: int, deadline: float | None) -> bool:
    """Wait until the socket can be read or written.

    Args:
        sock: The socket.
        event: `READ` or `WRITE`.
        deadline: The time of `time.monotonic` when the wait ends; None waits for ever.

    Returns:
        False if the deadline passed.
    """
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
        milliseconds = None if seconds is None else math.ceil(min(seconds, _LONGEST_POLL) * 1000)
        return bool(poll.poll(milliseconds))

else:  # Windows

    def _poll(sock: socket.socket, event: int, seconds: float | None) -> bool:
        if event == READ:
            return any(select.select([sock], [], [], seconds))
        return any(select.select([], [sock], [sock], seconds))
