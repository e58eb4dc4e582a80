"""What the connections of an event loop share: memory to read into, tasks that run together."""

from __future__ import annotations

import asyncio
import weakref

from .._engine import asyncio_fast_path as fast_path

__all__ = ["SharedByLoop", "shared_by_loop"]

SharedByLoop = tuple[list[memoryview | None], fast_path.ReadyTasks]
"""A list of one item, the memory into which the transports read, one after the other (see
`Inbox.share_buffer`); and the tasks for which messages were read in one iteration."""

_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SharedByLoop]
_shared = weakref.WeakKeyDictionary()


def shared_by_loop() -> SharedByLoop | None:
    """Return what the connections of the running loop share.

    Returns:
        None outside of a loop, and for a loop that has no weak references.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return None
    try:
        return _shared.get(loop) or _shared.setdefault(loop, ([None], fast_path.ReadyTasks()))
    except TypeError:
        return None
