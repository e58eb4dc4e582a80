"""The timer of a connection whose peer has time limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from .._inbox import Inbox

__all__ = ["PeerTimer"]

# After this many iterations of the loop without a received byte, the kernel holds none. A callback
# that asks for the next iteration may run before that iteration's input: asyncio runs the waiting
# callbacks first, uvloop runs timers and callbacks before it polls. TLS may need one more.
_QUIET_ITERATIONS = 3


@final
class PeerTimer:
    """Tell an inbox the time, and end receiving when the peer is too slow.

    There is one timer for both limits. It is not moved for every message: when it fires, it checks
    whether the time is over.

    Args:
        inbox: The receive side, with limits.
        end: Called with the failure when the peer's time is over.
        receiving: Whether the connection is received from before `set_receiving` is called.
    """

    __slots__ = (
        "_end",
        "_handle",
        "_inbox",
        "_loop",
        "_quiet_iterations",
        "_reading",
        "_receiving",
    )

    def __init__(
        self, inbox: Inbox, end: Callable[[BaseException], None], *, receiving: bool
    ) -> None:
        self._inbox = inbox
        self._end = end
        self._receiving = receiving
        self._reading = True
        self._loop: asyncio.AbstractEventLoop | None = None  # before start() and after stop()
        self._handle: asyncio.Handle | None = None  # a timer, or a check in the next iteration
        self._quiet_iterations = 0  # since the peer is overdue

    def start(self) -> None:
        """Start: there is a connection."""
        self._loop = asyncio.get_running_loop()
        self._update()

    def stop(self) -> None:
        """Stop: the connection has ended."""
        self._loop = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def set_receiving(self, receiving: bool) -> None:
        """Say whether the connection is received from; other time is not the peer's."""
        self._receiving = receiving
        self._update()

    def set_reading(self, reading: bool) -> None:
        """Say whether the transport reads; other time is not the peer's."""
        self._reading = reading
        self._update()

    def note_arrival(self) -> None:
        """Take notice of received bytes that were parsed."""
        self._quiet_iterations = 0
        if self._loop is not None:
            self._inbox.note_arrival(self._loop.time())
            self._arm()

    def _update(self) -> None:
        if self._loop is not None:
            if self._receiving and self._reading:
                self._inbox.resume(self._loop.time())
            else:
                self._inbox.pause(self._loop.time())
            self._arm()

    def _arm(self) -> None:
        """Start the timer, or move it if it would fire too late."""
        deadline, handle = self._inbox.deadline(), self._handle
        if deadline is None or self._loop is None:
            return
        if handle is not None:
            if not isinstance(handle, asyncio.TimerHandle) or handle.when() <= deadline:
                return
            handle.cancel()
        self._handle = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._quiet_iterations = 0
        self._check()

    def _check(self) -> None:
        """End receiving if the peer's time is over and the kernel holds no more bytes."""
        self._handle = None
        loop, inbox = self._loop, self._inbox
        if loop is None:
            return
        now = loop.time()
        if not inbox.is_overdue(now):
            self._arm()
            return
        inbox.check_limits(now, drained=self._quiet_iterations >= _QUIET_ITERATIONS)
        if inbox.failure is not None:
            self._end(inbox.failure)
            return
        self._quiet_iterations += 1
        self._handle = loop.call_soon(self._check)
