"""Unframed bytes of a blocking connection: what travels between frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._states import ReceiveState
from .._unframed import check_size

if TYPE_CHECKING:
    from .receiving import ReceiveSide

__all__ = ["parse_rest", "recv_bytes"]

_READY, _FAILED = ReceiveState.READY, ReceiveState.FAILED


def recv_bytes(side: ReceiveSide, size: int) -> bytes:
    """Receive unframed bytes, as `FrameSocket.recv_bytes`."""
    size = check_size(size)
    while True:
        offered = side.guard.call(_fill, side, size)
        # The `for` returns the bytes before a signal handler can run. Until then they can be
        # received again.
        for data in offered:  # one step
            return data  # type: ignore[no-any-return]


def _fill(side: ReceiveSide, size: int) -> Any:
    """Receive until this number of unframed bytes has arrived; return a batch with them."""
    unframed, inbox = side.unframe(), side.inbox
    while unframed.size < size:
        if inbox.failure is not None:
            inbox.raise_failure()
        inbox.expect_bytes(size)
        side.use_splitter()
        side.fill_as_it_is()
        side.unframe()
    return side.offer_bytes(size)


def parse_rest(side: ReceiveSide) -> None:
    """Parse what is left of the unframed bytes, unless another thread receives."""
    if side.lock.acquire(blocking=False):
        try:
            if side.inbox.unframed is not None and side.receiver.state in (_READY, _FAILED):
                side.reframe()
        finally:
            side.lock.release()
