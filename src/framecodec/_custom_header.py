"""Reads and writes the headers of `Codec.custom` by the user's own functions.

Both engines call it. What a user's function returns is never trusted: nonsense and exceptions
become an `InvalidFrameError` that names the first byte at which the function went wrong.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import NoReturn

from . import errors
from ._layout import MAX_VALUE, Layout

__all__ = ["build_header", "read_header"]


# A refusal counts at these sizes of the bytes shown: each one up to 64, as many as a header has by
# default, then each an eighth larger than the one before. So the work for a header that is refused
# is linear in its bytes.
_EACH_SIZE_UP_TO = 64


def read_header(layout: Layout, header: bytes, stream_offset: int) -> tuple[int, int, bytes] | None:
    """Ask the user's ``parse`` about the bytes so far.

    Args:
        layout: The layout of a custom codec.
        header: The frame from its first byte on, as far as it arrived (or as far as it may go).
        stream_offset: Of the frame, for errors.

    Returns:
        Header size with the magic, rest size, lead; or None where more bytes are needed. The header
        may be shorter than the bytes shown: `parse` may look ahead.

    Raises:
        InvalidFrameError: ``parse`` raised, or returned what it must not.
        MemoryError: ``parse`` ran out of memory, which is not the peer's fault.
    """
    shown = header[len(layout.magic) :]
    try:
        return _ask(layout, shown)
    except _Refused:
        pass
    # The same error for every chunking: the shortest prefix of those sizes that parse() refuses.
    for size in _sizes_asked(layout.max_header):
        if size > len(shown):
            return None
        try:
            _ask(layout, shown[:size])
        except _Refused as refused:
            _raise_refusal(refused, stream_offset, header[: len(layout.magic) + size])
    return None


def _sizes_asked(max_header: int) -> Iterator[int]:
    size = 0
    while size < max_header:
        size = min(max_header, size + 1 + max(0, size - _EACH_SIZE_UP_TO) // 8)
        yield size


def _raise_refusal(refused: _Refused, stream_offset: int, seen: bytes) -> NoReturn:
    if refused.too_long:
        raise errors.length_over_64_bits(stream_offset, seen)
    if refused.error is not None:
        raise errors.parse_failed(refused.error, stream_offset, seen) from refused.error
    raise errors.parse_nonsense(refused.found, stream_offset, seen)


class _Refused(Exception):
    def __init__(
        self, found: object = None, error: Exception | None = None, too_long: bool = False
    ) -> None:
        super().__init__(found, error, too_long)
        self.found = found
        self.error = error
        self.too_long = too_long


def _ask(layout: Layout, shown: bytes) -> tuple[int, int, bytes] | None:
    assert layout.parse is not None
    try:
        found = layout.parse(memoryview(shown))
    except MemoryError:
        raise
    except Exception as error:
        raise _Refused(error=error) from error
    if found is None:
        return None
    try:
        header_size, rest_size, *more = found
        (lead,) = more or (b"",)
        lead = bytes(errors.view_bytes(lead))
        for size in (header_size, rest_size):
            if not isinstance(size, int) or isinstance(size, bool):
                raise TypeError
        # Plain ints: the operators of a subclass may return anything.
        header_size, rest_size = operator.index(header_size), operator.index(rest_size)
    except MemoryError:
        raise
    except Exception:
        raise _Refused(found) from None
    if not 0 < header_size <= layout.max_header or rest_size < 0:
        raise _Refused(found)
    if rest_size > MAX_VALUE:
        raise _Refused(found, too_long=True)
    if header_size > len(shown):  # parse() knows the size before the header is whole
        return None
    return len(layout.magic) + header_size, rest_size, lead


def build_header(layout: Layout, message: memoryview) -> tuple[bytes, int]:
    """Asks the user's ``build`` for the header of a message.

    Returns:
        The header, magic included, and how many of the message's first bytes it carries already.

    Raises:
        InvalidFrameError: ``build`` returned what it must not.
    """
    assert layout.build is not None
    found = layout.build(message.toreadonly())
    header, carried = found if isinstance(found, tuple) and len(found) == 2 else (found, 0)
    try:
        header = bytes(errors.view_bytes(header))
    except (TypeError, BufferError):
        raise errors.build_nonsense(found) from None
    if not isinstance(carried, int) or not 0 <= carried <= len(message) or not header:
        raise errors.build_nonsense(found)
    if len(header) > layout.max_header:
        raise errors.built_too_long(len(header), layout.max_header)
    return layout.magic + header, carried
