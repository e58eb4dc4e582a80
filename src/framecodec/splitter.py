"""The engine in use: the compiled one, or the one in Python."""

from __future__ import annotations

from . import _engine

__all__ = [
    "ACCELERATED",
    "FALLBACK_REASON",
    "Encoder",
    "ObjectEncoder",
    "Spans",
    "Splitter",
    "scan",
]

ACCELERATED = _engine.ACCELERATED
"""True where the compiled engine is in use, False where the one in Python is.

`FALLBACK_REASON` says why it is False. After "the compiled modules are not installed": the wheel
was one for all platforms, or its build found no C compiler. With a compiler, ``pip install
--force-reinstall --no-binary framecodec framecodec`` gives the compiled engine.
"""
FALLBACK_REASON = _engine.FALLBACK_REASON
"""Why the compiled engine is not in use; None where it is."""

Encoder = _engine.encoder.Encoder
ObjectEncoder = _engine.encoder.ObjectEncoder
Spans = _engine.splitter.Spans
Splitter = _engine.splitter.Splitter
scan = _engine.splitter.scan
