"""Read and write the headers of `Codec.custom` with the user's own functions.

Both engines call it and check what a user's function returns. A wrong result or an exception
becomes an `InvalidFrameError`, whose header ends with the first byte that the function refused.
"""

from __future__ import annotations

import operator
from typing import NoReturn

from . import _error_texts
from ._bytes_like import view_bytes
from ._layout import MAX_VALUE, Layout
from .errors import InvalidFrameError

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
    sizes = _sizes_that_count(len(shown), layout.max_header)
    if sizes[-1] < len(shown) and _refusal(layout, shown[: sizes[-1]]) is None:
        return None
    # The same error for every chunking: the shortest prefix of those sizes that parse() refuses.
    for size in sizes:
        refused = _refusal(layout, shown[:size])
        if refused is not None:
            _raise_refusal(refused, stream_offset, header[: len(layout.magic) + size])
    return None


def _sizes_that_count(shown: int, max_header: int) -> list[int]:
    sizes, size = [], 1
    while size <= shown:
        sizes.append(size)
        if size == max_header:
            break
        size = min(max_header, size + 1 + max(0, size - _EACH_SIZE_UP_TO) // 8)
    return sizes


def _refusal(layout: Layout, shown: bytes) -> _Refused | None:
    try:
        _ask(layout, shown)
    except _Refused as refused:
        return refused
    return None


def _raise_refusal(refused: _Refused, stream_offset: int, seen: bytes) -> NoReturn:
    if refused.too_long:
        raise _error_texts.length_over_64_bits(stream_offset, seen)
    if refused.error is not None:
        name = type(refused.error).__name__
        reason = f"the codec's parse() raised {name}: {refused.error}"
        raise _error_texts.invalid_frame(reason, stream_offset, seen) from refused.error
    raise _error_texts.invalid_frame(
        "the codec's parse() must return None, (header_size, rest_size) or "
        f"(header_size, rest_size, lead), not {refused.found!r:.80}",
        stream_offset,
        seen,
    )


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
        lead = bytes(view_bytes(lead))
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
    """Ask the user's ``build`` for the header of a message.

    Returns:
        The header, magic included, and how many of the message's first bytes it carries already.

    Raises:
        InvalidFrameError: ``build`` returned what it must not.
    """
    assert layout.build is not None
    found = layout.build(message.toreadonly())
    try:
        header, carried = found if isinstance(found, tuple) else (found, 0)
        header = bytes(view_bytes(header))
        if not isinstance(carried, int):
            raise TypeError
        carried = operator.index(carried)  # the number itself: a subclass may compare as it likes
    except (TypeError, ValueError, BufferError):
        raise _bad_result(found) from None
    if not 0 <= carried <= len(message) or not header:
        raise _bad_result(found)
    if len(header) > layout.max_header:
        raise InvalidFrameError(
            f"the codec's build() made a header of {len(header)} bytes, max_header is "
            f"{layout.max_header}"
        )
    return layout.magic + header, carried


def _bad_result(found: object) -> InvalidFrameError:
    return InvalidFrameError(
        "the codec's build() must return the header as bytes, or (header, n) with n at most "
        f"the message's size, not {found!r:.80}"
    )
