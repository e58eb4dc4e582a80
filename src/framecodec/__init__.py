"""Whole messages over byte streams: length-prefixed frames, in both directions.

    import framecodec

    with framecodec.connect(("127.0.0.1", 6000)) as conn:
        conn.send(b"hello")
        print(conn.recv())

A `Codec` describes the shape of a frame, `formats` has those of the known protocols, a `Splitter`
turns one connection's chunks into messages, and `FrameSocket` is a socket that sends and receives
them whole.
`framecodec.asyncio`, `framecodec.anyio`, `framecodec.socketserver` and `framecodec.testing` are
loaded when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ._check import Check
from .catalogue import formats
from .codec import DEFAULT_MAX_MESSAGE_SIZE, Codec
from .datagrams import DatagramSocket
from .errors import (
    ChecksumError,
    FrameError,
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    InvalidMessageError,
    MessageTimeoutError,
    MessageTooLargeError,
    TruncatedDatagramError,
)
from .notation import parse_codec
from .sockets import FramePipe, FrameSocket, Listener, connect, listen
from .splitter import ACCELERATED, Spans, Splitter

if TYPE_CHECKING:
    from . import anyio as anyio
    from . import asyncio as asyncio
    from . import socketserver as socketserver
    from . import testing as testing
    from ._guess import Guess as Guess
    from ._guess import guess as guess
    from .serving import serve as serve
    from .serving import serve_messages as serve_messages

__version__ = "0.2.0"

__all__ = [
    "ACCELERATED",
    "DEFAULT_MAX_MESSAGE_SIZE",
    "Check",
    "ChecksumError",
    "Codec",
    "DatagramSocket",
    "FrameError",
    "FramePipe",
    "FrameSocket",
    "Guess",
    "IdleTimeoutError",
    "IncompleteFrameError",
    "InvalidFrameError",
    "InvalidMessageError",
    "Listener",
    "MessageTimeoutError",
    "MessageTooLargeError",
    "Spans",
    "Splitter",
    "TruncatedDatagramError",
    "connect",
    "formats",
    "guess",
    "listen",
    "parse_codec",
    "serve",
    "serve_messages",
]

# There is no module of this name: let `import framecodec.formats` give the catalogue, too.
sys.modules[f"{__name__}.formats"] = formats  # type: ignore[assignment]

# Loaded when they are first used, because most programs do not need them.
_MODULES_ON_FIRST_USE = ("anyio", "asyncio", "socketserver", "testing")
_NAMES_ON_FIRST_USE = {
    "Guess": "_guess",
    "guess": "_guess",
    "serve": "serving",
    "serve_messages": "serving",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES_ON_FIRST_USE:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES_ON_FIRST_USE:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES_ON_FIRST_USE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES_ON_FIRST_USE, *_NAMES_ON_FIRST_USE})
