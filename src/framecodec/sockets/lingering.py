"""The lingering close: end the sending, and discard what still arrives for a bounded time."""

from __future__ import annotations

import contextlib
import socket
from time import monotonic
from typing import TYPE_CHECKING

from .base import check_timeout
from .waiting import READ, wait

if TYPE_CHECKING:
    from .receiving import ReceiveSide
    from .sending import SendSide

__all__ = ["linger_on"]

_DISCARD_SIZE = 64 * 1024


def linger_on(receiving: ReceiveSide, sending: SendSide, seconds: float) -> None:
    """Send what is unsent, end the sending, and discard what arrives until the peer ends.

    Do nothing while another thread uses the connection: its close then wakes that thread.

    Args:
        receiving: The connection's receive side.
        sending: Its send side.
        seconds: How long this may take.

    Raises:
        ValueError: `seconds` is negative or not a number.
    """
    check_timeout(seconds)
    deadline = monotonic() + seconds
    if not receiving.lock.acquire(blocking=False):
        return
    try:
        if sending.lock.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError, ValueError):
                    _linger(sending, deadline)
            finally:
                sending.lock.release()
    finally:
        receiving.lock.release()


def _linger(sending: SendSide, deadline: float) -> None:
    wire = sending.wire
    wire.settimeout(max(deadline - monotonic(), 0.001), wait_in_poll=True)
    if sending.unsent:
        sending.drain(deadline)
    if wire.tls is not None:
        with contextlib.suppress(OSError, ValueError):
            wire.say_goodbye()
    # Not the methods of SSLSocket: what arrives is discarded as it travels.
    socket.socket.shutdown(wire.sock, socket.SHUT_WR)
    wire.sock.setblocking(False)
    buffer = bytearray(_DISCARD_SIZE)
    while wait(wire.sock, READ, deadline):
        with contextlib.suppress(BlockingIOError, InterruptedError):
            if not socket.socket.recv_into(wire.sock, buffer) or monotonic() >= deadline:
                return
