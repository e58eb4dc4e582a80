"""What the connections of an event loop share: memory to read into, tasks that run together."""

from __future__ import annotations

import asyncio
import weakref

from .._engine import asyncio_fast_path as fast_path

__all__ = ["ready_tasks", "spare_buffer"]

_Shared = tuple[list[memoryview | None], fast_path.ReadyTasks]

_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared]
_shared = weakref.WeakKeyDictionary()


def _of_loop() -> _Shared | None:
    loop = asyncio._get_running_loop()
    if loop is None:
        return None
    try:
        shared = _shared.get(loop)
        return shared or _shared.setdefault(loop, ([None], fast_path.ReadyTasks()))
    except TypeError:
        return None


def spare_buffer() -> list[memoryview | None] | None:
    """Return the memory into which the transports read, one after the other.

    Returns:
        A list of one item, see `Inbox.share_buffer`; None outside of a loop, and for a loop that
        has no weak references.
    """
    shared = _of_loop()
    return None if shared is None else shared[0]


def ready_tasks() -> fast_path.ReadyTasks | None:
    """Return the tasks for which messages were read in one iteration; None as for the memory."""
    shared = _of_loop()
    return None if shared is None else shared[1]
