"""The messages of one receive: given one after the other, and none held that was given."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from itertools import repeat, starmap
from operator import itemgetter
from typing import Any, NoReturn, final

from . import _error_texts

__all__ = ["Batch", "Unique"]


class Unique:
    """An object that is not copied."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


# Without the GIL, several threads may step one iterator of C at a time.
_HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class _SharedTake:
    """Takes what is in a queue, for any number of threads: only the queue's own step is shared."""

    __slots__ = ("_steps",)

    def __init__(self, queue: deque[Any]) -> None:
        self._steps = map(deque.popleft, repeat(queue))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            for item in self._steps:
                return item
        except IndexError:  # another thread was faster
            pass
        raise StopIteration


@final
class Batch(Unique):
    """The messages of one receive that are still to be delivered. It holds none that was.

    Args:
        messages: The messages, in order. The list belongs to the batch from then on.
        frames: Their frames as they travelled, for `frames`; or None.

    Raises:
        ValueError: There are not as many frames as messages.
    """

    __slots__ = ("_has_frames", "_queue", "take")

    def __init__(self, messages: list[Any], frames: list[bytes] | None = None) -> None:
        queue: deque[Any]
        if frames is None:
            queue = deque(messages)
        elif len(frames) == len(messages):
            queue = deque(zip(messages, frames, strict=True))
        else:
            raise ValueError(f"{len(messages)} messages are not of {len(frames)} frames")
        # Nothing else takes from the queue, so that with the GIL both end together.
        take: Iterator[Any] = (
            starmap(queue.popleft, repeat((), len(queue))) if _HAS_GIL else _SharedTake(queue)
        )
        self._queue = queue
        self._has_frames = frames is not None
        self.take: Iterator[Any] = take if frames is None else map(itemgetter(0), take)
        """An iterator that takes one message after the other out of this batch."""

    def __iter__(self) -> Iterator[Any]:
        return self.take

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def take_all(self) -> Iterator[list[Any]]:
        """An iterator whose only step takes all messages out: it gives their list."""
        return map(list, (self.take,))

    @property
    def first(self) -> Any:
        """The next message, which stays."""
        return self._queue[0][0] if self._has_frames else self._queue[0]

    def rest(self) -> list[Any]:
        """Return a list of the messages, which stay."""
        return [message for message, _ in self._queue] if self._has_frames else [*self._queue]

    def frames(self) -> list[bytes]:
        """Return the frames of these messages, as they travelled; they stay.

        Raises:
            TypeError: The batch was made without frames.
        """
        if not self._has_frames:
            raise TypeError("the batch has no frames")
        return [frame for _, frame in self._queue]
