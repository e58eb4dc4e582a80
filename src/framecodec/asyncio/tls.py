"""The upgrade of a stream's connection to TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from .._states import TransportState
from ..errors import FrameError
from .pipe_transport import give_bytes

if TYPE_CHECKING:
    from .stream_protocol import StreamProtocol

__all__ = ["start_tls"]

# How the record of TLS begins that has a handshake message: its type, and the major version.
# RFC 8446, 5.1.
_HANDSHAKE = b"\x16\x03"


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
    if server_side is None:
        server_side = protocol.is_server
    hello = _take_hello(protocol, server_side)
    raw, batch = sending.raw_transport, sending.batch
    raw.pause_reading()  # the next bytes are the peer's handshake
    try:
        sending.write_batch()
        while batch.paused:
            await sending.wait_for_space()
            sending.check_open()
            sending.write_batch()
        batch.paused = True  # what other tasks send from here on waits for the encryption
        loop = asyncio.get_running_loop()
        upgrade = loop.start_tls(raw, protocol, sslcontext, server_side=server_side, **options)
        encrypted = await (_start_with(hello, upgrade, raw) if hello else upgrade)
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


def _take_hello(protocol: StreamProtocol, server_side: bool) -> bytes:
    """Take the unread bytes, if they are the start of the client's handshake.

    A load balancer's PROXY header and the handshake can come in one segment. The handshake is then
    unread bytes, or a frame that the codec of the header refuses.

    Raises:
        RuntimeError: There are unread bytes that are not a handshake; they stay unread.
    """
    is_refused = isinstance(protocol._inbox.failure, FrameError)
    if not (protocol.has_unread_bytes or is_refused):
        return b""
    unframed = protocol.unframe()
    unread = unframed.first(unframed.size)
    if server_side and unread[:2] == _HANDSHAKE[: len(unread)]:
        protocol.take_bytes(len(unread))
        protocol.reframe()
        return unread
    protocol.reframe()
    raise RuntimeError(
        "start_tls: the peer sent clear text after the last message, which must not pass for "
        "encrypted; receive it first, or close the connection"
    )


async def _start_with(hello: bytes, upgrade: Coroutine[Any, Any, Any], raw: Any) -> Any:
    """Encrypt a connection whose first encrypted bytes were read before."""
    loop = asyncio.get_running_loop()
    own = raw.get_protocol()

    def deliver() -> None:
        tls = raw.get_protocol()
        if tls is not own and not raw.is_closing():
            give_bytes(tls, hello)

    task = loop.create_task(upgrade)
    # In its first step the task sets the protocol of TLS, and schedules its connection_made() and
    # the reading. deliver() is scheduled after these two, and comes before the loop reads.
    loop.call_soon(loop.call_soon, deliver)
    return await task
