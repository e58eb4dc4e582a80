"""The timer of a connection whose peer has time limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import final

from .._inbox import Inbox

__all__ = ["PeerTimer"]

# After this many iterations of the loop without a received byte, the kernel holds none. A callback
# that asks for the next iteration may run before that iteration's input: asyncio runs the waiting
# callbacks first, uvloop runs timers and callbacks before it polls. TLS may need one more.
_QUIET_ITERATIONS = 3
# After this many, everything was read that the kernel held when the time was over: at most 6 MiB
# (Linux's largest TCP receive buffer), of which an iteration reads 128 KiB. A read of less than a
# segment shows it at once: nothing more had arrived, and the window of the peer was open. So
# the drip of a byte in each iteration ends also where an iteration takes long. (TLS reads parts.)
_ALL_ITERATIONS = 64


@final
class PeerTimer:
    """Tell an inbox the time, and end receiving when the peer is too slow.

    There is one timer for both limits. It is not moved for every message: when it fires, it checks
    whether the time is over.

    Args:
        inbox: The receive side, with limits.
        end: Called with the failure when the peer's time is over.
        receiving: Whether the connection is received from before `start_waiting` is called.
    """

    __slots__ = (
        "_arrived_at",
        "_end",
        "_fires_at",
        "_handle",
        "_inbox",
        "_iterations",
        "_quiet_iterations",
        "_reading",
        "_receiving",
        "_started",
        "emptied",
    )

    def __init__(
        self, inbox: Inbox, end: Callable[[BaseException], None], *, receiving: bool
    ) -> None:
        self._inbox = inbox
        self._end = end
        self._receiving = receiving
        self._reading = True
        self._started = False
        self._arrived_at = 0.0  # the time at which bytes were received last
        self._handle: asyncio.Handle | None = None  # a timer, or a check in the next iteration
        self._fires_at = 0.0  # the time of the timer; 0 for a check
        self._iterations = 0  # since the peer is overdue
        self._quiet_iterations = 0  # of these, the last ones
        self.emptied = False
        """A small read since the peer is overdue has taken all that the kernels held."""

    def start(self) -> None:
        """Start: there is a connection."""
        self._started = True
        self.set_reading(True)

    def stop(self) -> None:
        """Stop: the connection has ended."""
        self._started = False
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def set_reading(self, reading: bool) -> None:
        """Say whether the transport reads; other time is not the peer's."""
        self._reading = reading
        if reading and self._receiving:
            self.start_waiting()
        elif self._started:
            self._inbox.pause(monotonic())

    def start_waiting(self) -> None:
        """Count time from now on: a task waits to receive."""
        self._receiving = True
        if self._reading and self._started:
            now = monotonic()
            self._inbox.resume(now)
            self._arm(now)

    def stop_waiting(self, has_message: bool) -> None:
        """Count no time: no task waits to receive.

        Args:
            has_message: Whether the wait has ended with a message. Then the time since its arrival
                was not the peer's.
        """
        self._receiving = False
        if self._started:
            self._inbox.pause(self._arrived_at if has_message else monotonic())

    def note_arrival(self) -> None:
        """Take notice of received bytes that were parsed."""
        self._quiet_iterations = 0
        if self._started:
            self._arrived_at = now = monotonic()
            self._inbox.note_arrival(now)
            self._arm(now)

    def _arm(self, now: float) -> None:
        """Start the timer, or move it if it would fire too late."""
        deadline, earlier = self._inbox.deadline(), self._handle
        if deadline is None or (earlier is not None and self._fires_at <= deadline):
            return
        # In this order: a signal handler that raises leaves one timer too many, and never none.
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(max(0.0, deadline - now), self._on_timer)
        self._fires_at = deadline
        if earlier is not None:
            earlier.cancel()

    def _on_timer(self) -> None:
        self._iterations = self._quiet_iterations = 0
        self.emptied = False
        self._check()

    def _check(self) -> None:
        """End receiving if the peer's time is over and the kernel holds no more bytes."""
        self._handle = None
        if not self._started:
            return
        inbox, now = self._inbox, monotonic()
        if not inbox.is_overdue(now):
            self._arm(now)
            return
        is_quiet = self.emptied or self._quiet_iterations >= _QUIET_ITERATIONS
        inbox.check_limits(now, drained=is_quiet or self._iterations >= _ALL_ITERATIONS)
        if inbox.failure is not None:
            self._end(inbox.failure)
            return
        self._iterations += 1
        self._quiet_iterations += 1
        self._handle = asyncio.get_running_loop().call_soon(self._check)
        self._fires_at = 0.0
