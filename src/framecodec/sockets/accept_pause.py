"""The pauses of a listener whose `accept` fails."""

from __future__ import annotations

import errno

from .. import _log

__all__ = ["AcceptPause"]

# accept() fails with these where the listening socket itself is unusable.
_NOT_LISTENING = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)


class AcceptPause:
    """The seconds to wait after accept() has failed: more each time, few after a success."""

    FIRST, LONGEST = 0.01, 1.0

    def __init__(self) -> None:
        self._next = self.FIRST

    def reset(self) -> None:
        """Start anew, after a connection was accepted."""
        self._next = self.FIRST

    def after(self, error: BaseException, address: str) -> float | None:
        """Log the error and return the seconds to wait; None where listening is over."""
        if isinstance(error, OSError) and error.errno in _NOT_LISTENING:
            _log.listening_failed(address, error)
            return None
        pause, self._next = self._next, min(self._next * 2, self.LONGEST)
        _log.accept_failed(address, error, pause)
        return pause
