"""The memory into which the transports of one event loop read, one after the other."""

from __future__ import annotations

import asyncio
import weakref

__all__ = ["spare_buffer"]

_spares: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[memoryview | None]]
_spares = weakref.WeakKeyDictionary()


def spare_buffer() -> list[memoryview | None] | None:
    """Return what the connections of the running loop share; see `Inbox.share_buffer`.

    Returns:
        A list of one item; None outside of a loop, and for a loop that has no weak references.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return None
    try:
        return _spares.setdefault(loop, [None])
    except TypeError:
        return None
