"""The end of a stream, and its hand-over to another codec or protocol, in the splitter in Python.

It is the part of `Splitter` (`_splitter_py.py`) that takes no chunk from the caller: `feed_eof`,
`switch`, `detach`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from . import _error_texts, errors
from ._frame_reader_py import IN_HEADER, IN_PADDING, describe_pending
from ._layout import Described, layout_of
from ._message_types import MessageT, OfMessages
from ._read_memory_py import GIVEN_BY_GET_ROOM, NOT_GIVEN, ReadMemory

if TYPE_CHECKING:
    from .codec import Codec

__all__ = ["HandOver"]


class HandOver(OfMessages[MessageT], ReadMemory):
    """The part of the Python splitter that ends a stream, or hands it over."""

    __slots__ = ("_codec",)

    _codec: Codec[MessageT]

    def feed_eof(self) -> None:
        """End the stream.

        With ``one_at_a_time``, messages that are whole and not returned yet raise nothing:
        ``feed(b"")`` returns them, and then raises if the stream ended inside a frame.

        Raises:
            IncompleteFrameError: It ended inside a frame. Every later call raises the same error.
                Where messages after a refused one are undelivered, ``feed(b"")`` returns those
                first, and raises this error after them.
            FrameError: It was broken before.
            ValueError: The splitter is detached.
        """
        try:
            try:
                self._lock.acquire()
                self._check_usable()
                # What a garbage collection calls may come in here.
                self._busy, self._turn = True, None
                try:
                    _end_stream(self)
                finally:
                    self._busy = False
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

    def switch(self, codec: Codec[Any], /) -> list[MessageT]:
        """Read the stream with another codec, from the byte after the last delivered message on.

        Offsets continue. An error that came after the delivered messages is cleared: its bytes are
        read again.

        Args:
            codec: The shape of the frames from there on.

        Returns:
            The messages that are complete under it, as `feed` does.

        Raises:
            FrameError: The first frame under the new codec is bad. Every later call raises it.
            TypeError: `codec` is not a `Codec`; nothing has changed.
            ValueError: An oversized frame is being skipped, or the splitter is detached.
        """
        messages = self._switch_objects(codec)
        error = self._error
        if not messages and error is not None:
            del self  # as in feed()
            raise error.with_traceback(None)
        return messages

    def _switch(self, codec: Codec[Any], before: bytes) -> list[MessageT]:
        """Switch as `switch` does, but keep an error for the next call.

        Args:
            codec: As for `switch`.
            before: Bytes before the unread ones that are read again.
        """
        layout, switched = layout_of(codec), False
        messages: list[MessageT] = []
        try:
            try:
                self._lock.acquire()
                if self._busy:
                    raise _error_texts.reentered()
                if self._detached:
                    raise _error_texts.detached()
                self._busy, self._turn = True, None  # as in feed_eof()
                try:
                    unread = self._restart(layout, before)
                finally:
                    self._busy = False
                self._codec, switched, self._undelivered, self._lost = codec, True, None, True
                if self._given == GIVEN_BY_GET_ROOM:
                    self._given = NOT_GIVEN
                self._take(unread, messages)
                self._lost = False
            finally:
                try:  # noqa: SIM105 (that would be a `with`)
                    self._lock.release()
                except RuntimeError:  # a signal handler has interrupted acquire()
                    pass
        except BaseException as error:
            if switched:
                self._keep_interruption(error)
            if error is not self._error or not isinstance(error, errors.FrameError):
                raise
        return messages

    def _delivered_padding(self) -> tuple[int, int]:
        """Return where the padding of the last delivered frame begins, and its size.

        The size is 0 if all of it has arrived: then the next frame begins there.
        """
        try:
            self._lock.acquire()
            if self._phase != IN_PADDING or self._raw or self._skipping:
                return self._stream_offset, 0
            return self._stream_offset + self._whole_size - self._padding_size, self._padding_size
        finally:
            try:  # noqa: SIM105 (that would be a `with`)
                self._lock.release()
            except RuntimeError:  # a signal handler has interrupted acquire()
                pass

    def _unread(self) -> bytes:
        """Return the bytes that `detach` would return."""
        try:
            self._lock.acquire()
            return self._unfinished()
        finally:
            try:  # noqa: SIM105 (that would be a `with`)
                self._lock.release()
            except RuntimeError:  # a signal handler has interrupted acquire()
                pass

    def _take(self, data: bytes | memoryview, messages: list[Any]) -> None:
        """Take a chunk; keep an error for the next call if there are messages to deliver."""
        raise NotImplementedError

    def detach(self) -> bytes:
        """End the splitter and return its unread bytes, for another protocol.

        Returns:
            The bytes of the unfinished frame; after an error, all bytes from the start of the bad
            frame; with ``one_at_a_time`` all bytes after the last message that was returned. Of an
            oversized frame that is being discarded: ``b""``.

        Raises:
            ValueError: The splitter is detached already, as for every later call.
        """
        begun = False
        try:
            try:
                self._lock.acquire()
                if self._busy:
                    raise _error_texts.reentered()
                if self._detached:
                    raise _error_texts.detached()
                self._busy, self._turn, begun = True, None, True  # as in feed_eof()
                unfinished = self._unfinished()
                if self._undelivered is not None:
                    unfinished = self._undelivered.travelled(self, unfinished) + unfinished
                header, piece, held = bytearray(), bytearray(), bytearray()
                pieces: list[bytes] = []
            finally:
                try:  # noqa: SIM105 (that would be a `with`)
                    self._lock.release()
                except RuntimeError:  # a signal handler has interrupted acquire()
                    pass
        except BaseException:  # also a signal handler's: the call can be repeated
            if begun:
                self._busy = False
            raise
        self._header, self._piece, self._pieces, self._held = header, piece, pieces, held
        self._phase, self._pending, self._given = IN_HEADER, 0, NOT_GIVEN
        self._gather_end = 0
        self._fragments, self._followed = 0, False
        self._layout = self._choice_layout
        self._not_taken = self._surplus_bytes = self._tail = b""
        self._buffer = self._given_view = self._undelivered = None
        self._detached = True
        self._busy = False
        return unfinished


def _end_stream(splitter: HandOver[Any]) -> None:
    if splitter._held and not splitter._searching and _has_whole_message(splitter):
        splitter._ended = True
        return
    if splitter._searching:
        splitter._end_search()
        return
    if not splitter._pending:
        return
    error = _error_texts.incomplete_frame(describe_pending(splitter))
    splitter._fail(error, b"", 0)
    splitter._failed_in = threading.get_ident()
    if splitter._undelivered is None:
        raise error


def _has_whole_message(splitter: HandOver[Any]) -> bool:
    """Return whether a message is in the held bytes; if not, parse them."""
    messages: list[Any] = []
    make: Any = type(splitter)
    probe = make(
        Described(splitter._choice_layout),
        raw=splitter._raw,
        on_oversize="skip" if splitter._skip else "raise",
        on_invalid="resync" if splitter._resync else "raise",
        one_at_a_time=True,
    )
    try:
        if probe.feed(splitter._unfinished()):
            return True
    except errors.FrameError:
        pass  # this splitter raises it now
    splitter._take(b"", messages)
    if messages:
        raise _error_texts.parse_changed_its_answer(splitter._stream_offset)
    return False
