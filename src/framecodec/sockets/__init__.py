"""Whole messages over blocking, timed and non-blocking sockets.

A received byte goes from the kernel through ``wire.py`` into the splitter of the receive side
(``receiving.py``, ``_inbox.py``), a message from there into the batch of the fast path
(``_fast_path.pyx``, ``_fast_path_py.py``), out of which `FrameSocket.recv` (``connection.py``)
takes it. A sent message goes straight to the kernel (fast path) or through the outbox of the send
side (``sending.py``, ``_outbox.py``). ``files.py`` is for messages that are never in memory as a
whole.
"""

from __future__ import annotations

from .._addresses import Address as Address
from ..codec import DEFAULT_CODEC as DEFAULT_CODEC
from .connecting import connect
from .connection import FrameSocket
from .datagrams import DatagramSocket as DatagramSocket
from .listener import Listener, listen
from .pipes import FramePipe

__all__ = ["Address", "FramePipe", "FrameSocket", "Listener", "connect", "listen"]

# Tracebacks and help() show the public import path.
for _public in (FramePipe, FrameSocket, Listener, connect, listen):
    _public.__module__ = __name__
