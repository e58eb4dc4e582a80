"""Servers that survive their clients.

`serve` runs a handler in a thread for each connection. `serve_messages` serves all connections in
one thread, for handlers that do not wait.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import MessageConnection, MessageServer, serve_messages
    from .threads import Server, serve

__all__ = ["MessageConnection", "MessageServer", "Server", "serve", "serve_messages"]

# Loaded when they are first used: the asyncio servers need `common` and `log` of this folder only.
_MODULES = {
    "MessageConnection": "messages",
    "MessageServer": "messages",
    "Server": "threads",
    "serve": "threads",
    "serve_messages": "messages",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
