"""Servers that survive their clients.

`serve` runs a handler in a thread for each connection. `serve_messages` serves all connections in
one thread, for handlers that do not wait.
"""

from __future__ import annotations

from .messages import MessageConnection, MessageServer, serve_messages
from .threads import Server, serve

__all__ = ["MessageConnection", "MessageServer", "Server", "serve", "serve_messages"]
