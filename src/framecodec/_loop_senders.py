"""Sends that wait in an event loop until the transport accepts more: first in, first out.

A transport that has called `resume_writing` can often accept one message only. If it woke every
send that waits, all but one of them would wait again, and n sends would cost n**2 / 2 futures. So
it wakes the first, and each send that leaves the queue wakes the next. Small messages are woken
together, because one write takes many of them.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import final

__all__ = ["LARGE", "SendQueue", "Sender"]

# Sends are woken together up to this number of bytes, which is also the size to state for a
# message of unknown size, ...
LARGE = 128 * 1024
# ... and up to this number of sends.
_MOST_WOKEN = 64


@final
class Sender:
    """A send that waits.

    Args:
        loop: The event loop.
        size: Bytes of the message.
    """

    __slots__ = ("_loop", "size", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self._loop = loop
        self.size = size
        self.waiting: asyncio.Future[None] = loop.create_future()
        """Done when the send is woken."""

    async def wait(self) -> None:
        """Wait until the send is woken. It can be called again: the place in the queue stays."""
        if self.waiting.done():
            self.waiting = self._loop.create_future()
        await self.waiting


@final
class SendQueue:
    """The sends that wait, the first one first."""

    __slots__ = ("_senders",)

    def __init__(self) -> None:
        self._senders: dict[Sender, None] = {}

    def __len__(self) -> int:
        return len(self._senders)

    def enter(self, sender: Sender) -> None:
        """Add a send at the end."""
        self._senders[sender] = None

    def leave(self, sender: Sender) -> None:
        """Remove a send that was accepted or that gave up. Call `wake_next` after it."""
        self._senders.pop(sender, None)

    def is_first(self, sender: Sender) -> bool:
        """Return whether no other send is before this one."""
        return next(iter(self._senders)) is sender

    def wake_next(self) -> None:
        """Wake the first send, and the small ones that follow it.

        If the first was woken already, it has yet to run and will call this when it leaves.
        """
        senders = self._senders
        if not senders or next(iter(senders)).waiting.done():
            return
        budget = LARGE
        for sender in list(islice(senders, _MOST_WOKEN)):
            try:
                if not sender.waiting.done():
                    sender.waiting.set_result(None)
            except BaseException:  # memory ran out, and no one can wake it any more
                self.leave(sender)
                raise
            budget -= sender.size
            if budget <= 0:
                break

    def futures(self) -> list[asyncio.Future[None]]:
        """Return what the sends wait for, to wake all of them at the end of a connection."""
        return [sender.waiting for sender in self._senders]
