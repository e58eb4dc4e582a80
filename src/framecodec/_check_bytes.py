"""The bytes of a check: computed, written and read. Both engines use this off their fast paths.

`update` is the engine's ``update_checksum``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from . import _error_texts
from ._check import CHECKSUMS, Check
from ._layout import Layout
from .errors import ChecksumError, InvalidFrameError

__all__ = [
    "RunningCheck",
    "add_check",
    "check_start",
    "content_of",
    "has_right_check",
    "has_right_content",
    "inside_content",
    "is_right_check",
    "tail_as_travelled",
    "verify_check",
    "verify_content",
    "wrong_bytes_before_check",
]

Update = Callable[[int, int, Any], int]


class _Refused(Exception):
    """The user's function raised, or returned what it must not."""


def check_of_message(
    layout: Layout, header: bytes, message: Any, carried: int, update: Update
) -> bytes:
    """Return the check of a message, with the bytes before it.

    Args:
        layout: The codec's layout, which has a check.
        header: The frame's first bytes, up to the length field's end.
        message: The message, or as much of the frame as it is made from.
        carried: How many of the message's first bytes are in the header.
        update: See above.

    Raises:
        InvalidFrameError: The user's function raised, or returned no int.
    """
    check = layout.check
    assert check is not None
    rest = message if not carried else memoryview(message)[carried:]
    covers = "rest" if check.position == "front" else check.covers
    parts: list[Any] = [rest]
    if covers == "message":
        parts = [message]
    elif covers == "body":
        parts = [header[len(layout.magic) :], rest]
    elif covers == "frame":
        parts = [header, rest]
    try:
        value = _value_of(check, parts, update)
    except _Refused as refused:
        raise InvalidFrameError(f"message cannot be encoded: {refused}") from refused.__cause__
    return check.before + _written(check, value)


def add_check(
    layout: Layout, header: bytes, message: Any, carried: int, update: Update
) -> tuple[bytes, bytes]:
    """Return the header and the trailer of a message's frame, with the check in one of them."""
    check = check_of_message(layout, header, message, carried, update)
    if layout.front_check_size:
        return header + check, layout.trailer
    return header, check + layout.trailer


def content_of(layout: Layout, message: Any, update: Update) -> bytes:
    """Return a message and its check, which an end mark follows, without escapes."""
    check = check_of_message(layout, layout.magic, message, 0, update)
    assert layout.check is not None
    if layout.check.position == "front":
        return b"".join([check, message])
    return b"".join([message, check])


def inside_content(layout: Layout, size: int) -> tuple[slice, slice]:
    """Return where the message and its check are in a content of a size."""
    check_size = layout.inner_check_size
    if layout.check is not None and layout.check.position == "front":
        return slice(check_size, size), slice(0, check_size)
    return slice(0, size - check_size), slice(size - check_size, size)


def has_right_content(layout: Layout, content: bytes, update: Update) -> bool:
    """Return whether the check in a content without its escapes is right.

    Args:
        layout: The codec's layout, which has a check.
        content: The message and its check; it has at least the size of the check.
        update: See above.
    """
    check = layout.check
    assert check is not None
    message, found = inside_content(layout, len(content))
    parts = [content[message]]
    if check.covers == "frame":
        parts.insert(0, layout.magic)
    return _is_right(check, parts, content[found], update)


def verify_content(
    layout: Layout,
    content: bytes,
    stream_offset: int,
    header: bytes,
    travelled: bytes,
    update: Update,
) -> None:
    """Compare the check of a content without its escapes.

    Args:
        layout: The codec's layout, which has a check and end marks.
        content: The message and its check.
        stream_offset: Of the frame.
        header: The magic.
        travelled: The first bytes after the magic, as they travelled, for the text of an error.
        update: See above.

    Raises:
        ChecksumError: It is another one.
        InvalidFrameError: It is missing or not in digits, or the user's function raised.
    """
    check = layout.check
    assert check is not None
    begun = header + travelled
    if len(content) < layout.inner_check_size:
        reason = f"{len(content)} bytes before the end mark, the check alone has {check.size}"
        raise _error_texts.invalid_frame(reason, stream_offset, header, begun)
    at_message, at_check = inside_content(layout, len(content))
    found = content[at_check]
    if not found.startswith(check.before):
        size = len(check.before)
        raise wrong_bytes_before_check(check.before, found[:size], stream_offset, header, begun)
    value = _read(check, found[len(check.before) :])
    if value is None:
        raise _not_digits(check.width, found[len(check.before) :], stream_offset, header, begun)
    start = [header] if check.covers == "frame" and header else []
    with memoryview(content)[at_message] as message:
        try:
            expected = _value_of(check, [*start, message], update)
        except _Refused as refused:
            error = _error_texts.invalid_frame(str(refused), stream_offset, header, begun)
            raise error from refused.__cause__
    if expected != value:
        raise _wrong_checksum(check, expected, value, stream_offset, header, begun)


def tail_as_travelled(
    layout: Layout, header: bytes, message: bytes, rest: bytes, update: Update
) -> bytes:
    """Return what followed the rest of a delivered message, without padding.

    Args:
        layout: The codec's layout.
        header: The frame's first bytes, as they travelled; they can have the rest's first bytes.
        message: The message.
        rest: What follows `header` in the frame and is part of the message.
        update: See above.
    """
    check = layout.check
    if check is None or layout.front_check_size:
        return layout.trailer
    own_size = layout.header_size if layout.prefix_size else len(header)
    parts = {
        "message": [message],
        "rest": [header[own_size:], rest],
        "body": [header[len(layout.magic) :], rest],
        "frame": [header, rest],
    }
    try:
        value = _value_of(check, parts[check.covers], update)
    except _Refused as refused:
        raise InvalidFrameError(str(refused)) from refused.__cause__
    return check.before + _written(check, value) + layout.trailer


def verify_check(
    layout: Layout,
    header: bytes,
    own_size: int,
    lead: bytes,
    rest: Sequence[Any],
    found: bytes,
    stream_offset: int,
    update: Update,
) -> None:
    """Compare a received check.

    Args:
        layout: The codec's layout, which has a check.
        header: The frame's first bytes.
        own_size: How many of them come before the rest.
        lead: The message's first bytes, which came with them.
        rest: The bytes after the length field, and after a check at the front, in pieces.
        found: The check without the bytes before it.
        stream_offset: Of the frame.
        update: See above.

    Raises:
        ChecksumError: It is another one.
        InvalidFrameError: It is not in digits, or the user's function raised.
    """
    check = layout.check
    assert check is not None
    covers = "rest" if check.position == "front" else check.covers
    start = b""
    if covers == "message":
        start = lead
    elif covers == "body":
        start = header[len(layout.magic) : own_size]
    elif covers == "frame":
        start = header[:own_size]
    value = _read(check, found)
    if value is None:
        raise _not_digits(check.width, found, stream_offset, header)
    try:
        expected = _value_of(check, [start, *rest] if start else rest, update)
    except _Refused as refused:
        _raise_refusal(refused, stream_offset, header)
    if expected != value:
        raise _wrong_checksum(check, expected, value, stream_offset, header)


def _raise_refusal(refused: _Refused, stream_offset: int, header: bytes) -> NoReturn:
    error = _error_texts.invalid_frame(str(refused), stream_offset, header)
    raise error from refused.__cause__


def check_start(layout: Layout, header: bytes | bytearray, pos: int, stream_offset: int) -> None:
    """Compare the constant bytes before a check at the front, as far as the header arrived."""
    check = layout.check
    assert check is not None
    found = bytes(header[pos : pos + len(check.before)])
    if not check.before.startswith(found):
        right = next(i for i, byte in enumerate(found) if byte != check.before[i])
        raise wrong_bytes_before_check(
            check.before, found[: right + 1], stream_offset, bytes(header[: pos + right + 1])
        )


def has_right_check(
    layout: Layout, data: bytes, start: int, rest: int, stop: int, update: Update
) -> bool:
    """Return whether a whole frame has the magic, the check and the trailer.

    Args:
        layout: The codec's layout, which has a check.
        data: Bytes that hold the frame, which is of a kind without a function of the user's.
        start: Where the frame begins.
        rest: Where its rest begins.
        stop: Where its rest ends.
        update: See above.
    """
    check = layout.check
    assert check is not None
    end = stop + layout.end_check_size
    at = rest - check.size if layout.front_check_size else stop
    if not (data.startswith(layout.magic, start) and data.startswith(layout.trailer, end)):
        return False
    covers = "rest" if layout.front_check_size else check.covers
    parts = [data[rest:stop]]
    if covers == "message" and layout.message_lead:
        parts.insert(0, layout.lead_of(data, start))
    elif covers == "body":
        parts = [data[start + len(layout.magic) : stop]]
    elif covers == "frame":
        parts = [data[start:stop]]
    found = data[at : at + check.size]
    return _is_right(check, parts, found, update)


def is_right_check(check: Check, covered: bytes, found: bytes) -> bool:
    """Return whether a check, with the bytes before it, is that of the user's function."""
    return _is_right(check, [covered], found)


def _is_right(
    check: Check, parts: Sequence[Any], found: bytes, update: Update | None = None
) -> bool:
    if not found.startswith(check.before):
        return False
    try:
        return _value_of(check, parts, update) == _read(check, found[len(check.before) :])
    except _Refused:
        return False  # the slow path calls the function again, and raises


class RunningCheck:
    """The check of a message that is never in memory as a whole, by a function that has a name.

    Args:
        layout: The codec's layout, which has a check.
        header: The frame's first bytes, up to the rest; they can have the rest's first bytes, too.
        own_size: How many of them come before the rest.
        lead_size: How many of the message's first bytes come before the rest.
        update: See above.
    """

    __slots__ = ("_header", "_last", "_layout", "_number", "_seen", "_update")

    def __init__(
        self, layout: Layout, header: bytes, own_size: int, lead_size: int, update: Update
    ) -> None:
        check = layout.check
        assert check is not None
        assert isinstance(check.function, str)
        checksum = CHECKSUMS[check.function]
        covers = "rest" if check.position == "front" else check.covers
        start = b""
        if covers in ("body", "frame"):
            start = header[len(layout.magic) if covers == "body" else 0 : own_size]
        self._layout = layout
        self._header = header
        self._last = checksum.last
        self._number = checksum.number
        self._update = update
        # The function's state, and how many bytes of the message it has seen.
        self._seen = (
            update(checksum.number, checksum.first, start),
            0 if covers == "message" else lead_size,
        )

    def add(self, position: int, data: Any) -> None:
        """Add bytes of the message; those that were added before are passed over."""
        state, seen = self._seen
        with memoryview(data)[max(0, seen - position) :] as new:
            if len(new):  # one assignment, so that an interruption adds no bytes twice
                self._seen = self._update(self._number, state, new), position + len(data)

    def written(self) -> bytes:
        """Return the check of the added bytes, with the bytes before it."""
        check = self._layout.check
        assert check is not None
        return check.before + _written(check, self._seen[0] ^ self._last)

    def verify(self, found: bytes, stream_offset: int) -> None:
        """Compare a received check, without the bytes before it.

        Raises:
            ChecksumError: It is another one.
            InvalidFrameError: It is not in digits.
        """
        check = self._layout.check
        assert check is not None
        value, expected = _read(check, found), self._seen[0] ^ self._last
        if value is None:
            raise _not_digits(check.width, found, stream_offset, self._header)
        if value != expected:
            raise _wrong_checksum(check, expected, value, stream_offset, self._header)


def _value_of(check: Check, parts: Sequence[Any], update: Update | None) -> int:
    """Return the check's value, as it is written.

    Raises:
        _Refused: The user's function raised, or returned no int.
    """
    function = check.function
    if isinstance(function, str):
        assert update is not None
        checksum = CHECKSUMS[function]
        state = checksum.first
        for part in parts:
            state = update(checksum.number, state, part)
        return state ^ checksum.last
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if isinstance(data, memoryview):
        data = data.toreadonly()
    try:
        value = function(data)
    except MemoryError:
        raise
    except Exception as error:
        name = type(error).__name__
        raise _Refused(f"the check's function raised {name}: {error}") from error
    if not isinstance(value, int):
        raise _Refused(f"the check's function must return an int, not {value!r:.80}")
    return int(value) % (10**check.width if check.digits else 1 << 8 * check.width)


def _written(check: Check, value: int) -> bytes:
    if check.digits:
        return str(value).zfill(check.width).encode()
    return value.to_bytes(check.width, _byteorder(check))


def _read(check: Check, found: bytes) -> int | None:
    """Return the value of a received check, or None if it is not in digits."""
    if check.digits:
        return int(found) if found.isdigit() else None
    return int.from_bytes(found, _byteorder(check))


def _byteorder(check: Check) -> Any:
    return sys.byteorder if check.byteorder == "native" else check.byteorder


# --- errors ---------------------------------------------------------------------------------------


def wrong_bytes_before_check(
    before: bytes, found: bytes, stream_offset: int, header: bytes, begun: bytes | None = None
) -> InvalidFrameError:
    """Return the error about constant bytes before a check that are other ones."""
    return _error_texts.invalid_frame(
        f"the check of a frame begins with {_error_texts.show(before)}, found "
        f"{_error_texts.show(found)}",
        stream_offset,
        header,
        begun,
    )


def _not_digits(
    width: int, found: bytes, stream_offset: int, header: bytes, begun: bytes | None = None
) -> InvalidFrameError:
    return _error_texts.invalid_frame(
        f"the check is not a number of {width} decimal digits: found {_error_texts.show(found)}",
        stream_offset,
        header,
        begun,
    )


def _wrong_checksum(
    check: Check,
    expected: int,
    found: int,
    stream_offset: int,
    header: bytes,
    begun: bytes | None = None,
) -> ChecksumError:
    """Return the error about a check that is another one than that of the received bytes."""
    shown = f"{{:0{check.width}}}" if check.digits else f"0x{{:0{2 * check.width}x}}"
    function = getattr(check.function, "__qualname__", check.function)
    covers = "rest" if check.position == "front" else check.covers
    return ChecksumError(
        f"wrong check in the frame at stream offset {stream_offset}: found {shown.format(found)}, "
        f"computed {shown.format(expected)} ({function} of the {covers}); its bytes changed on "
        f"their way, or the peer computes another check (frame begins "
        f"{_error_texts.show(header if begun is None else begun)})",
        expected=expected,
        found=found,
        stream_offset=stream_offset,
        header=header,
    )
