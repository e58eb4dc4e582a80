"""The two engines by name, and how a test puts one of them under the codecs that it makes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType

import pytest

import framecodec._inbox
import framecodec._objects
import framecodec._splitting
import framecodec.asyncio
import framecodec.codec
import framecodec.sockets
import framecodec.sockets.connection
import framecodec.sockets.pipes
import framecodec.sockets.wire
from framecodec.sockets import _fast_path_py as sockets_fast_path_py

__all__ = ["ENGINES", "codecs_use"]

ENGINES = {"python": "framecodec._splitter_py", "compiled": "framecodec._splitter"}


@contextlib.contextmanager
def codecs_use(engine: ModuleType) -> Iterator[None]:
    """Every `Codec`, socket and stream that is made inside uses this engine, and is to be used
    inside only. The fast path of an event loop stays as it is: its classes work with each other."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("Encoder", "Splitter", "scan"):
            patch.setattr(framecodec.codec, name, getattr(engine, name))
        for name in ("Encoder", "ObjectEncoder", "Splitter"):
            patch.setattr(framecodec._objects, name, getattr(engine, name))
        for module in (framecodec._inbox, framecodec._splitting, framecodec.asyncio.datagrams):
            patch.setattr(module, "Splitter", engine.Splitter)
        if engine.__name__ == ENGINES["python"]:
            sockets = framecodec.sockets
            for module in (sockets.connection, sockets.pipes, sockets.wire):
                patch.setattr(module, "_fast_path", sockets_fast_path_py)
        yield
