"""The positions of the frames of a buffer, which `scan` finds."""

from __future__ import annotations

import array
import operator
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, SupportsIndex, final, overload

from . import _error_texts

__all__ = ["Spans"]


@final
class Spans(Sequence[memoryview]):
    """The positions of the frames of a buffer: a sequence of views, made on demand.

    It also exports its positions, an ``(n, 2)`` buffer of int64 (start, stop), so that
    ``numpy.asarray(spans)`` copies nothing. (The Python engine needs Python 3.12 for
    ``memoryview(spans)``; numpy understands it everywhere.)
    """

    __slots__ = ("__weakref__", "_consumed", "_growing", "_positions", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._positions = array.array("q")
        self._consumed = 0
        self._growing = False  # while scan() adds to it

    def add(self, start: int, stop: int) -> None:
        self._positions.append(start)
        self._positions.append(stop)

    @property
    def consumed(self) -> int:
        """Bytes of the whole frames; what follows is unfinished or bad."""
        return self._consumed

    def __len__(self) -> int:
        return len(self._positions) // 2

    @overload
    def __getitem__(self, index: SupportsIndex) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> list[memoryview]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> memoryview | list[memoryview]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        pos = operator.index(index)
        if pos < 0:
            pos += len(self)
        if not 0 <= pos < len(self):
            raise _error_texts.no_such_span(len(self))
        return self._view[self._positions[2 * pos] : self._positions[2 * pos + 1]]

    def __repr__(self) -> str:
        return f"<Spans of {len(self)} frames, {self._consumed} bytes>"

    def __reduce__(self) -> NoReturn:
        raise _error_texts.spans_not_copied()

    def __buffer__(self, flags: int) -> memoryview:
        if self._growing:
            raise _error_texts.spans_growing()
        if not len(self):  # cast() makes no view of nothing, a slice does
            return memoryview(bytes(16)).cast("q", (1, 2))[:0]
        return memoryview(self._positions).toreadonly().cast("B").cast("q", (len(self), 2))

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if self._growing:
            raise _error_texts.spans_growing()
        order = "<" if sys.byteorder == "little" else ">"
        return {
            "version": 3,
            "shape": (len(self), 2),
            "typestr": f"{order}i8",
            "data": memoryview(self._positions).toreadonly(),
        }
