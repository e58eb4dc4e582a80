"""`DatagramSocket`: whole messages over UDP and Unix datagrams."""

from __future__ import annotations

from .sockets.datagrams import DatagramSocket

__all__ = ["DatagramSocket"]

DatagramSocket.__module__ = __name__  # tracebacks and help() show the public import path
