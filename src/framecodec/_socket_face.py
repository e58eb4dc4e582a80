"""What every wrapper of a socket has as the socket itself has it."""

from __future__ import annotations

import abc
import socket
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias

from . import _error_texts

__all__ = ["SocketFace"]

_Socket: TypeAlias = socket.socket  # for a class that has an attribute `socket`


class SocketFace(abc.ABC):
    """A wrapper that owns a socket, with a time-out of its own."""

    __slots__ = ("_closed", "_sock", "_timeout")

    _sock: _Socket
    _closed: bool
    _timeout: float | None

    @property
    def socket(self) -> _Socket:
        """The socket underneath."""
        return self._sock

    @property
    def closed(self) -> bool:
        """Whether `close` or `detach` was called."""
        return self._closed

    @abc.abstractmethod
    def settimeout(self, timeout: float | None) -> None:
        """Sets the seconds that a call may take; None waits for ever, 0 does not wait at all."""

    def gettimeout(self) -> float | None:
        """The seconds that a call may take; None: any time."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """``settimeout(None)`` or ``settimeout(0)``."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Whether calls wait at all."""
        return self._timeout != 0

    def fileno(self) -> int:
        """The descriptor; -1 where it is closed or somebody else's by now. For `selectors`."""
        return -1 if self._closed else self._sock.fileno()

    def getpeername(self) -> Any:
        """The address of the other side, where the socket is connected."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """The address of this side."""
        return self._sock.getsockname()

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> Any:
        """As `socket.socket.getsockopt`."""
        return self._sock.getsockopt(level, option, size)

    def setsockopt(self, level: int, option: int, value: Any, /) -> None:
        """As `socket.socket.setsockopt`."""
        self._sock.setsockopt(level, option, value)

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the socket."""

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
