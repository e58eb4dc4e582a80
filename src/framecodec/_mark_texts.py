"""The errors about frames that an end mark ends, which both engines raise.

See `_error_texts` for the shape of a text. The header of such an error is the magic; the text shows
the first bytes of the frame, as many as are the same however the stream was cut.
"""

from __future__ import annotations

from ._error_texts import show
from ._layout import Layout
from ._likely_causes import likely_cause
from .errors import InvalidFrameError, MessageTooLargeError

__all__ = [
    "content_too_large",
    "content_too_small",
    "cut_block",
    "message_holds_mark",
    "message_is_ignored",
    "not_in_one_piece",
    "unknown_escape",
]


def content_too_large(
    layout: Layout, stream_offset: int, header: bytes, content: bytes
) -> MessageTooLargeError:
    """Return the error about a message without an end mark where it must end.

    Args:
        layout: The codec's layout.
        stream_offset: Of the frame's first byte.
        header: The magic.
        content: The frame's bytes after it, at least as many as decide.
    """
    limit = layout.max_message_size
    begins = header + content[: limit + 1]
    cause = likely_cause(begins, layout)
    cause = f"{cause}; " if cause else ""
    return MessageTooLargeError(
        f"{cause}message too large: no end mark within {limit} bytes, which are the limit "
        f"(max_message_size); the frame at stream offset {stream_offset} begins {show(begins)}; "
        "check that the peer uses the same codec, or raise the limit if it may send such messages",
        size=None,
        limit=limit,
        stream_offset=stream_offset,
        header=header,
    )


def _invalid(reason: str, stream_offset: int, header: bytes, content: bytes) -> InvalidFrameError:
    return InvalidFrameError(
        f"invalid frame at stream offset {stream_offset}: {reason} "
        f"(frame begins {show(header + content)})",
        stream_offset=stream_offset,
        header=header,
    )


def content_too_small(
    size: int, least: int, stream_offset: int, header: bytes, content: bytes
) -> InvalidFrameError:
    """Return the error about a message that ends too early."""
    reason = f"a message of {size} bytes, the smallest has {least} (min_message_size)"
    return _invalid(reason, stream_offset, header, content)


def unknown_escape(
    layout: Layout, found: bytes, stream_offset: int, header: bytes, content: bytes
) -> InvalidFrameError:
    """Return the error about bytes that begin as an escape; `found` ends with the wrong one."""
    known = ", ".join(show(sequence) for _, sequence in layout.escape[:8])
    reason = f"unknown escape {show(found)}, the codec has {known}"
    return _invalid(reason, stream_offset, header, content + found)


def cut_block(missing: int, stream_offset: int, header: bytes, content: bytes) -> InvalidFrameError:
    """Return the error about a zero inside a block of consistent-overhead byte stuffing."""
    reason = (
        f"the frame ends {missing} bytes before the end of a block of its byte stuffing (COBS); "
        "bytes were lost, or the peer uses another codec"
    )
    return _invalid(reason, stream_offset, header, content + b"\0")


def message_holds_mark(layout: Layout) -> InvalidFrameError:
    """Return the error about a message that would not come back as it is."""
    marks = " or ".join(show(mark) for mark in layout.marks)
    return InvalidFrameError(
        f"message cannot be encoded: it {'or its check ' if layout.check else ''}contains the end "
        f"mark {marks}, or its last bytes and the end mark make another one; replace these bytes, "
        "or use a codec with escape"
    )


def message_is_ignored() -> InvalidFrameError:
    """Return the error about an empty message for a codec that ignores empty frames."""
    return InvalidFrameError(
        "message cannot be encoded: it is empty, and empty frames are ignored (skip_empty)"
    )


def not_in_one_piece() -> ValueError:
    """Return the error about a scan for messages that are escaped."""
    return ValueError(
        "the messages are escaped, so their bytes are not in the data; scan whole frames with "
        "raw=True"
    )
