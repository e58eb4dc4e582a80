"""Chooses the engine: the compiled one where it was built, else the one in Python."""

from __future__ import annotations

import os

__all__ = ["ACCELERATED", "Encoder", "Spans", "Splitter", "scan"]

if os.environ.get("FRAMECODEC_NO_EXTENSIONS", "") not in ("", "0"):
    from ._splitter_py import Encoder, Spans, Splitter, scan

    ACCELERATED = False
else:
    try:
        from ._splitter import Encoder, Spans, Splitter, scan  # type: ignore[assignment]

        ACCELERATED = True
    except ImportError:
        from ._splitter_py import Encoder, Spans, Splitter, scan

        ACCELERATED = False
