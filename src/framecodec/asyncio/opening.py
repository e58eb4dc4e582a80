"""What opens a connection, a process or a server: for ``await`` and for ``async with``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar, final

__all__ = ["Opening"]

_Opened = TypeVar("_Opened")


@final
class Opening(Coroutine[Any, Any, _Opened]):
    """A connection or a server that is being opened.

    ``await`` gives it; ``async with`` gives it and closes it at the end of the block.

    Args:
        opening: Opens it.
        closed: Returns what the block closes; by default what was opened.
    """

    __slots__ = ("_closed", "_opened", "_opening")

    _opening: Coroutine[Any, Any, _Opened]
    _opened: Any

    def __init__(
        self,
        opening: Coroutine[Any, Any, _Opened],
        closed: Callable[[_Opened], Any] | None = None,
    ) -> None:
        self._opening = opening
        self._closed = closed
        self._opened = None

    def __await__(self) -> Generator[Any, Any, _Opened]:
        return self._opening.__await__()

    def send(self, value: Any) -> Any:
        """As for a coroutine, for functions that take one."""
        return self._opening.send(value)

    def throw(self, *error: Any) -> Any:
        """As for a coroutine, for functions that take one."""
        return self._opening.throw(*error)

    def close(self) -> None:
        """As for a coroutine, for functions that take one."""
        self._opening.close()

    async def __aenter__(self) -> _Opened:
        opened = await self._opening
        self._opened = opened if self._closed is None else self._closed(opened)
        await self._opened.__aenter__()
        return opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._opened.__aexit__(kind, error, traceback)
