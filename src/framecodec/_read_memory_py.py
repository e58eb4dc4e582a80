"""The memory that callers read into, in the splitter of the Python engine."""

from __future__ import annotations

import contextlib
import operator
import sys
from typing import SupportsIndex

from . import _error_texts
from ._object_messages_py import ObjectMessages
from ._repeated_errors import for_this_thread

__all__ = ["GIVEN_BY_GET_ROOM", "NOT_GIVEN", "ReadMemory"]

# What get_buffer() or get_room() gave and buffer_updated() has not reported yet. feed() withdraws
# what get_room() gave.
NOT_GIVEN, GIVEN_BUFFER, GIVEN_BY_GET_ROOM = range(3)

# The size of the buffer without a size hint, the smallest and the largest one.
_BUFFER_SIZE = 64 * 1024
_SMALLEST_BUFFER_SIZE = 1024
_LARGEST_BUFFER_SIZE = 1024 * 1024

# How often the memory of a buffer is referred to where `Splitter._buffer` is its only view.
_ONLY_VIEW: int | None = None
if hasattr(sys, "getrefcount"):
    _view = memoryview(bytearray(1))
    _ONLY_VIEW = sys.getrefcount(_view.obj)
    del _view


def _take_spare(spare: list[memoryview | None]) -> memoryview | None:
    """Return the buffer that splitters share, unless who read into it has kept a view."""
    # Interrupted before the second one is stored, this call forgets the buffer.
    buffer, spare[0] = spare[0], None
    if buffer is None or sys.getrefcount(buffer.obj) != _ONLY_VIEW:
        return None
    return buffer


class ReadMemory(ObjectMessages):
    """The part of the Python splitter that gives callers memory to read into."""

    __slots__ = ("_buffer", "_detached", "_given", "_given_view", "_spare")

    _detached: bool

    def _init_memory(self) -> None:
        # What get_buffer() gives: an export of it, so that no caller resizes it.
        self._buffer: memoryview | None = None
        self._given = NOT_GIVEN  # what get_buffer() or get_room() gave last
        self._given_view: memoryview | None = None  # of a shared buffer
        # Its one item is the receive buffer that splitters share; None: do not share.
        self._spare: list[memoryview | None] | None = None

    def get_buffer(self, sizehint: SupportsIndex = -1, /) -> memoryview:
        """Return memory to read the next bytes of the stream into.

        Args:
            sizehint: Bytes needed, from 1 KiB to 1 MiB; -1 or 0 means 64 KiB. The buffer may be
                larger.

        Returns:
            A writable buffer that is never empty, to be filled from its start and reported with
            `buffer_updated`. Messages are copied out of it: one that was delivered never changes.

        Raises:
            FrameError: The stream is broken.
            ValueError: The splitter is detached.
        """
        return self._give_buffer(operator.index(sizehint), GIVEN_BUFFER)

    def _give_buffer(self, size: int, given: int) -> memoryview:
        try:
            try:
                self._lock.acquire()
                self._check_usable()
                # What a garbage collection calls may come in here.
                self._busy, self._turn = True, None
                try:
                    self._given = NOT_GIVEN
                    if size <= 0:
                        size = _BUFFER_SIZE
                    size = min(max(size, _SMALLEST_BUFFER_SIZE), _LARGEST_BUFFER_SIZE)
                    buffer, spare = self._buffer, self._spare
                    if given == GIVEN_BUFFER:
                        spare = None
                    if buffer is None and spare is not None:
                        buffer = _take_spare(spare)
                    if buffer is None or len(buffer) < size:
                        buffer = memoryview(bytearray(size))
                    view = memoryview(buffer.obj)
                    # Nothing can fail any more.
                    self._buffer = buffer
                    if spare is not None:
                        self._given_view = view
                    self._given = given
                    self._gather_end = 0
                finally:
                    self._busy = False
                return view
            finally:
                try:  # noqa: SIM105 (that would be a `with`)
                    self._lock.release()
                except RuntimeError:  # a signal handler has interrupted acquire()
                    pass
        except BaseException as error:
            if error is self._error:
                error.with_traceback(None)  # as in feed()
                del self
            raise

    def get_room(self, sizehint: SupportsIndex = -1, /) -> memoryview:
        """Return memory as `get_buffer` does, for a caller that releases it at once.

        The compiled engine may give the memory of the message itself, so that the bytes of a large
        one are never copied; Python cannot fill a `bytes`.
        """
        return self._give_buffer(operator.index(sizehint), GIVEN_BY_GET_ROOM)

    def _share_buffer(self, spare: list[memoryview | None], /) -> None:
        """Share the buffer that `get_room` gives with other splitters, which read by turns.

        Between two reads no splitter has it. So connections that wait hold no memory, and those
        that receive use memory that is still in the processor's caches.

        Args:
            spare: A list of one item, the buffer or None. One thread uses it.
        """
        if _ONLY_VIEW is not None:
            self._spare = spare

    def _put_buffer_back(self, view: memoryview, spare: list[memoryview | None]) -> None:
        """Let the other splitters have the receive buffer."""
        self._given_view = None
        with contextlib.suppress(BufferError):  # something reads from it
            view.release()
        # First: an interruption must not leave it in both places.
        buffer, self._buffer = self._buffer, None
        spare[0] = buffer

    def _check_usable(self) -> None:
        if self._busy:
            raise _error_texts.reentered()
        if self._detached:
            raise _error_texts.detached()
        if self._error is not None:
            raise for_this_thread(self._error, self._failed_in)
