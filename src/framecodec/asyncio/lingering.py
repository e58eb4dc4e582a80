"""The lingering close of a stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from .. import _error_texts
from .._states import TransportState

if TYPE_CHECKING:
    from .stream_protocol import StreamProtocol

__all__ = ["linger_on"]


async def linger_on(protocol: StreamProtocol, seconds: float) -> None:
    """End sending, then discard what arrives until the peer ends, for a bounded time.

    Over TLS do nothing: it ends both directions at a time, and the event loop then waits for the
    peer's answer.

    Args:
        protocol: The protocol of the stream.
        seconds: How long this may take.
    """
    sending = protocol._sending
    if sending.state >= TransportState.CLOSING or sending.is_encrypted:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            sending.write_eof()
            protocol._inbox.fail(_error_texts.connection_closed())
            protocol._receiving_failed = True  # what is still read is ignored
            protocol._wake()
            sending.raw_transport.resume_reading()
            while sending.state < TransportState.CLOSED and not protocol._has_ended:
                await sending.waiters.wait()
