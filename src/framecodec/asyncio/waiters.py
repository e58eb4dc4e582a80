"""Futures that tasks wait for in an event loop: until the peer takes more, or until the end.

A transport that has called `resume_writing` can often accept one message only. If it woke every
send that waits, all but one of them would wait again, and n sends would cost n**2 / 2 futures. So
it wakes the first, and each send that leaves the queue wakes the next. Small messages are woken
together, because one write takes many of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import final

__all__ = ["LARGE", "QueuedSend", "SendQueue", "Waiters"]

# Sends are woken together up to this number of bytes, which is also the size to state for a
# message of unknown size, ...
LARGE = 128 * 1024
# ... and up to this number of sends.
_MOST_WOKEN = 64


def _create_future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@final
class QueuedSend:
    """A send that waits in a queue.

    Args:
        size: Bytes of the message.
    """

    __slots__ = ("size", "waiting")

    def __init__(self, size: int) -> None:
        self.size = size
        self.waiting = _create_future()
        """Done when the send is woken."""

    async def wait(self) -> None:
        """Wait until the send is woken. It can be called again: the place in the queue stays."""
        if self.waiting.done():
            self.waiting = _create_future()
        await self.waiting


@final
class SendQueue:
    """The sends that wait, the first one first."""

    __slots__ = ("_sends",)

    def __init__(self) -> None:
        self._sends: dict[QueuedSend, None] = {}

    def __len__(self) -> int:
        return len(self._sends)

    def enter(self, send: QueuedSend) -> None:
        """Add a send at the end."""
        self._sends[send] = None

    def leave(self, send: QueuedSend) -> None:
        """Remove a send that was accepted or that gave up. Call `wake_next` after it."""
        self._sends.pop(send, None)

    def is_first(self, send: QueuedSend) -> bool:
        """Return whether no other send is before this one."""
        return next(iter(self._sends)) is send

    def wake_next(self) -> None:
        """Wake the first send, and the small ones that follow it.

        If the first was woken already, it has yet to run and will call this when it leaves.
        """
        sends = self._sends
        if not sends or next(iter(sends)).waiting.done():
            return
        budget = LARGE
        for send in list(islice(sends, _MOST_WOKEN)):
            try:
                if not send.waiting.done():
                    send.waiting.set_result(None)
            except BaseException:  # memory ran out, and nothing else can wake it
                self.leave(send)
                raise
            budget -= send.size
            if budget <= 0:
                break

    def futures(self) -> list[asyncio.Future[None]]:
        """Return what the sends wait for, to wake all of them at the end of a connection."""
        return [send.waiting for send in self._sends]


@final
class Waiters:
    """The tasks that wait for the same event."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[None]] = []  # a set takes four times the memory

    def __iter__(self) -> Iterator[asyncio.Future[None]]:
        return iter(self._futures)

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        future = _create_future()
        self._futures.append(future)
        try:
            await future
        finally:
            self._futures.remove(future)

    def wake(self) -> None:
        """Wake the tasks that wait now."""
        if self._futures:
            for future in list(self._futures):
                if not future.done():
                    future.set_result(None)
