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
FALLBACK_REASON = _engine.FALLBACK_REASON
"""Why the compiled engine is not in use; None where it is."""

Encoder = _engine.encoder.Encoder
ObjectEncoder = _engine.encoder.ObjectEncoder
Spans = _engine.splitter.Spans
Splitter = _engine.splitter.Splitter
scan = _engine.splitter.scan
