"""Messages in files: `Codec.read` and `Codec.write`.

A source is read in pieces of at most 64 KiB, so memory follows from the largest message, not from
the size of the file. What a source is decides how it is read:

=========================================  =======================================================
a path: `str` or `os.PathLike`             opened, and closed at the end of the iteration
a bytes-like object, a memory map          read in slices
a binary file, a pipe, ``gzip``            ``readinto1``, ``readinto``, ``read1`` or ``read``
a serial port (it has ``in_waiting``)      ``read`` of what has arrived, at least 1 byte
an iterable of bytes-like objects          each one is a piece
=========================================  =======================================================

A file that has nothing yet (its method returns None) is waited for. No bytes are the end.
"""

from __future__ import annotations

import io
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, final

from ._bytes_like import view_bytes
from .errors import InvalidMessageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .splitter import Encoder, Splitter

__all__ = ["Refusal", "read_messages", "write_messages"]

_SLICE_SIZE = 64 * 1024

# A message from this size up is written without a copy of it, after its header.
_PARTS_SIZE = 64 * 1024

# Seconds between two attempts on a file that has nothing yet and cannot be waited for.
_PAUSE = 0.005


# --- reading --------------------------------------------------------------------------------------


def read_messages(splitter: Splitter[Any], source: Any) -> Iterator[Any]:
    """Return an iterator over the messages of a source; `Codec.read` describes both.

    Raises:
        TypeError: `source` cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        return _read_path(splitter, source)
    if _is_bytes_like(source):
        return _read_chunks(splitter, [source])
    if _is_text_file(source):
        raise TypeError('source is a text file; open it in binary mode: open(path, "rb")')
    if any(hasattr(source, name) for name in ("readinto1", "readinto", "read1", "read")):
        return _read_file(splitter, source)
    if hasattr(source, "__iter__"):
        return _read_chunks(splitter, source)
    raise TypeError(
        "source must be a path, a binary file, a bytes-like object or an iterable of bytes-like "
        f"objects, not {type(source).__name__!r}{_hint_for(source, 'rb')}"
    )


def _is_text_file(file: Any) -> bool:
    """Return whether a file, or the file in one of `tempfile`, has text."""
    inner = (getattr(file, name, None) for name in ("file", "_file"))
    return any(isinstance(each, io.TextIOBase) for each in (file, *inner))


def _hint_for(file: Any, mode: str) -> str:
    if not hasattr(file, "recv"):
        return ""
    return f'; a FrameSocket receives and sends messages, and makefile("{mode}") makes a file'


def _is_bytes_like(source: Any) -> bool:
    try:
        memoryview(source).release()
    except TypeError:
        return False
    return True


def _read_path(splitter: Splitter, path: str | os.PathLike[Any]) -> Iterator[Any]:
    with open(path, "rb", buffering=0) as file:
        yield from _read_file(splitter, file)


def _read_chunks(splitter: Splitter, chunks: Iterable[Buffer]) -> Iterator[Any]:
    for chunk in chunks:
        with view_bytes(chunk) as view:
            for start in range(0, len(view), _SLICE_SIZE):
                yield from _feed(splitter, view[start : start + _SLICE_SIZE])
    splitter.feed_eof()


def _feed(splitter: Splitter, piece: memoryview) -> Iterator[Any]:
    with piece:
        messages = _or_refusal(splitter.feed, piece)
    yield from messages
    yield from _following(splitter, messages)


def _read_file(splitter: Splitter, file: Any) -> Iterator[Any]:
    read_once = _reader(splitter, file)
    while (messages := read_once()) is not None:
        yield from messages
        yield from _following(splitter, messages)
        del messages  # the next read can take long: hold no message meanwhile
    splitter.feed_eof()


@final
class Refusal:
    """In place of a message: the error about one that `loads` has refused."""

    __slots__ = ("error",)

    def __init__(self, error: InvalidMessageError) -> None:
        self.error = error


def _or_refusal(take: Callable[[Any], list[Any]], argument: Any) -> list[Any]:
    """Return the messages that a call of the splitter gives, or the refusal that it raises."""
    try:
        return take(argument)
    except InvalidMessageError as error:
        return [Refusal(error)]


def _following(splitter: Splitter, messages: list[Any]) -> Iterator[Any]:
    """Give what comes before more of the source is read.

    That is the error which followed the delivered messages, and what follows a refused one.
    """
    while splitter.error is not None or (messages and type(messages[-1]) is Refusal):
        messages = _or_refusal(splitter.feed, b"")
        yield from messages


def _reader(splitter: Splitter, file: Any) -> Callable[[], list[Any] | None]:
    """Return a function that reads once: it returns the messages, or None at the file's end."""
    # readinto() and read() of a buffered file wait until all bytes are there; the methods with a 1
    # return what one read of the kernel gives.
    readinto = getattr(file, "readinto1", None) or getattr(file, "readinto", None)
    read = getattr(file, "read1", None) or getattr(file, "read", None)
    is_serial_port = hasattr(file, "in_waiting")

    def read_into_buffer() -> list[Any] | None:
        assert readinto is not None
        with splitter.get_buffer() as buffer:
            while (count := readinto(buffer)) is None:
                _wait_for(file, "POLLIN")
        return _or_refusal(splitter.buffer_updated, count) if count else None

    def read_bytes() -> list[Any] | None:
        assert read is not None
        size = _SLICE_SIZE
        if is_serial_port:
            size = min(max(file.in_waiting, 1), _SLICE_SIZE)
        while (data := read(size)) is None:
            _wait_for(file, "POLLIN")
        with view_bytes(data) as view:
            return _or_refusal(splitter.feed, view) if len(view) else None

    return read_bytes if is_serial_port or readinto is None else read_into_buffer


def _wait_for(file: Any, event: str) -> None:
    """Wait until a non-blocking file is ready, or for a short time if that cannot be known."""
    try:
        poll = select.poll()
        poll.register(file.fileno(), getattr(select, event))
        poll.poll()
    except (AttributeError, OSError, TypeError, ValueError):
        time.sleep(_PAUSE)


# --- writing --------------------------------------------------------------------------------------


def write_messages(encoder: Encoder, file: Any, messages: Iterable[Any]) -> int:
    """Write the frames of messages to a path or a binary file; `Codec.write` describes it."""
    if isinstance(messages, str | dict) or _is_bytes_like(messages):
        raise TypeError(
            "messages must be an iterable of messages, not one "
            f"{type(messages).__name__!r} object; put it into a list: [message]"
        )
    if not hasattr(messages, "__iter__") and not hasattr(messages, "__getitem__"):
        raise TypeError(
            f"messages must be an iterable of messages, not {type(messages).__name__!r}"
        )
    if isinstance(file, str | os.PathLike):
        with open(file, "wb") as opened:
            return write_messages(encoder, opened, messages)
    if _is_text_file(file):
        raise TypeError(
            'file is a text file; open it in binary mode: open(path, "wb"), or use its buffer: '
            "sys.stdout.buffer"
        )
    if not hasattr(file, "write"):
        raise TypeError(
            f"file must be a path or a binary file, not {type(file).__name__!r}"
            f"{_hint_for(file, 'wb')}"
        )
    count = 0
    for message in messages:
        if isinstance(message, bytes) and len(message) < _PARTS_SIZE:
            _write_all(file, encoder.encode(message))
        else:
            for part in encoder.frame_parts(message):
                _write_all(file, part)
        count += 1
    return count


def _write_all(file: Any, data: Buffer) -> None:
    with view_bytes(data) as view:
        pos = _write_once(file, data, len(view))
        while pos < len(view):
            with view[pos:] as unsent:
                pos += _write_once(file, unsent, len(unsent))


def _write_once(file: Any, data: Buffer, size: int) -> int:
    """Write bytes once and return how many of them the file took."""
    try:
        count = file.write(data)
    except BlockingIOError as error:  # of a buffered file whose raw file is non-blocking
        _wait_for(file, "POLLOUT")
        return error.characters_written
    if count is not None:
        if not 0 < count <= size and size:
            raise OSError(f"write() of {size} bytes returned {count}: the file takes no more")
        return int(count)
    if not isinstance(file, io.RawIOBase):
        return size  # a file that does not count
    _wait_for(file, "POLLOUT")
    return 0
