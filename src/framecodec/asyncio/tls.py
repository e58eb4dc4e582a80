"""The upgrade of a stream's connection to TLS."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from .._states import TransportState

if TYPE_CHECKING:
    from .stream_protocol import StreamProtocol

__all__ = ["start_tls"]


async def start_tls(
    protocol: StreamProtocol,
    sslcontext: ssl.SSLContext,
    server_side: bool | None,
    **options: Any,
) -> None:
    """Encrypt a connection from now on, as `FrameStream.start_tls`.

    Args:
        protocol: The protocol of the stream.
        sslcontext: As for asyncio's ``loop.start_tls``.
        server_side: Whether this side is the TLS server; None if it is for accepted connections.
        **options: As for ``loop.start_tls``.
    """
    sending = protocol._sending
    sending.check_open()
    protocol.check_no_recv_waits()
    if protocol.has_unread_bytes:
        raise RuntimeError(
            "start_tls: the peer sent clear text after the last message, which must not pass for "
            "encrypted; receive it first, or close the connection"
        )
    raw, batch = sending.raw_transport, sending.batch
    raw.pause_reading()  # the next bytes are the peer's handshake
    try:
        sending.write_batch()
        while batch.paused:
            await sending.wait_for_space()
            sending.check_open()
            sending.write_batch()
        batch.paused = True  # what other tasks send from here on waits for the encryption
        encrypted = await asyncio.get_running_loop().start_tls(
            raw,
            protocol,
            sslcontext,
            server_side=protocol.is_server if server_side is None else server_side,
            **options,
        )
    except BaseException as error:
        # A connection whose TLS upgrade failed is unusable, and not every loop then calls
        # connection_lost().
        raw.abort()
        sending.stop(TransportState.ABORTED)
        protocol.connection_lost(error if isinstance(error, Exception) else None)
        raise
    sending.attach(encrypted)
    batch.paused = False
    sending.flush()
