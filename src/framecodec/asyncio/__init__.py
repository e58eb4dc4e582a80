"""Whole messages in an event loop: protocols, streams and datagrams; asyncio's loops and uvloop.

What must hold
    No byte is lost to a cancellation or a time-out, in either direction. The small messages of one
    iteration of the loop leave in one write, large ones are not copied, and accepted messages are
    sent before a close. Memory stays within a stated limit both ways: a slow reader stops its peer
    through TCP, a slow peer makes `FrameStream.send` wait.

How
    A received byte goes from the loop's transport through `FrameProtocol.buffer_updated`
    (``protocol.py``) to the splitter, and a message from there to `messages_received` or into the
    queue of a `FrameStream` (``stream.py``). A sent message goes through the send side
    (``sending.py``) to the transport. ``_fast_path`` has what most messages need, compiled.
"""

from .connect import open_connection, open_unix_connection, start_server, start_unix_server
from .datagrams import DatagramStream, open_datagram_endpoint
from .pipes import open_pipes, open_process, open_stdio
from .protocol import FrameProtocol
from .server import FrameServer
from .stream import FrameStream

__all__ = [
    "DatagramStream",
    "FrameProtocol",
    "FrameServer",
    "FrameStream",
    "open_connection",
    "open_datagram_endpoint",
    "open_pipes",
    "open_process",
    "open_stdio",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]

# Tracebacks and help() show the public import path.
for _public in (
    DatagramStream,
    FrameProtocol,
    FrameServer,
    FrameStream,
    open_connection,
    open_datagram_endpoint,
    open_pipes,
    open_process,
    open_stdio,
    open_unix_connection,
    start_server,
    start_unix_server,
):
    _public.__module__ = __name__
