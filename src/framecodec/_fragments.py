"""Messages of several frames: what both splitters compute of a fragment.

A fragment is ``[ head ][ content ][ trailer ]``. The heads of one codec have one size: that of the
magic, the lead, the length field, and what `strip` drops of the rest. So a splitter keeps the
heads of a message's finished fragments one after the other, beside the message, and can rebuild
from them what travelled.
"""

from __future__ import annotations

from . import _error_texts, errors
from ._fields_py import check_rest_size, reader_of
from ._layout import Layout

__all__ = [
    "check_fragment",
    "content_size_of",
    "first_bytes",
    "fragments_as_travelled",
    "is_followed",
    "not_in_one_piece",
]


def check_fragment(
    layout: Layout, header: bytes, value: int, fragments: int, content: int, stream_offset: int
) -> tuple[int, errors.MessageTooLargeError | None]:
    """Check the length of a fragment.

    Args:
        layout: The layout.
        header: The fragment's bytes up to the end of its length field.
        value: What that says.
        fragments: How many fragments of the message came before.
        content: Bytes of their contents.
        stream_offset: Of the first one.

    Returns:
        The size of the rest, and an error if the message becomes too large by it.

    Raises:
        InvalidFrameError: The fragment is one too many, or too small.
    """
    joined = layout.joined
    assert joined is not None
    if fragments >= joined.max_fragments:
        raise _error_texts.invalid_frame(
            f"fragment {fragments + 1} of one message, the limit is {joined.max_fragments} "
            "(max_fragments); check that the peer marks the last fragment, or raise the limit if "
            "it may send that many",
            stream_offset,
            header,
        )
    lead_size = layout.message_lead
    rest_size = value * layout.unit + layout.adjustment
    if 0 <= rest_size < joined.strip - lead_size:
        raise _error_texts.invalid_frame(
            f"a fragment of {lead_size + rest_size} bytes, but each has {joined.strip} bytes "
            "before its content (strip)",
            stream_offset,
            header,
        )
    check_rest_size(layout, header, value, lead_size, stream_offset)
    total = joined.first_size + content + lead_size + rest_size - joined.strip
    if total > layout.message_max:
        return rest_size, _error_texts.declared_too_large(
            total, layout.message_max, stream_offset, header
        )
    if rest_size > joined.rest_max:
        return rest_size, _error_texts.declared_too_large(
            lead_size + rest_size, lead_size + joined.rest_max, stream_offset, header
        )
    return rest_size, None


def is_followed(layout: Layout, head: bytes | bytearray, content_size: int) -> bool:
    """Return whether another fragment follows the one with this head."""
    joined = layout.joined
    assert joined is not None
    if joined.full >= 0:
        return content_size == joined.full
    return head[joined.last_offset] & joined.last_mask != joined.last_value


def first_bytes(layout: Layout, stripped: bytes) -> bytes:
    """Return what a message has of the bytes before its first fragment's content.

    The bits that mark the last fragment are 0 there.
    """
    joined = layout.joined
    assert joined is not None
    if not joined.first_size:
        return b""
    if not joined.last_mask:
        return stripped
    kept = bytearray(stripped)
    kept[layout.message_position(joined.last_offset)] &= ~joined.last_mask
    return bytes(kept)


def content_size_of(layout: Layout, head: bytes) -> int:
    """Return the size of the content that a whole head announces."""
    joined = layout.joined
    assert joined is not None
    found = reader_of(layout)(layout, head, layout.field_offset)
    assert found is not None
    rest_size = found[0] * layout.unit + layout.adjustment
    return rest_size + layout.message_lead - joined.strip


def fragments_as_travelled(
    layout: Layout, heads: bytes | bytearray, content: bytes | memoryview
) -> tuple[list[bytes | memoryview], int]:
    """Return the parts of whole fragments, and how much of the content they have.

    Args:
        layout: The layout.
        heads: The heads of the fragments, one after the other.
        content: Their contents, and what follows.
    """
    joined = layout.joined
    assert joined is not None
    parts: list[bytes | memoryview] = []
    stop = 0
    for pos in range(0, len(heads), joined.head_size):
        head = bytes(heads[pos : pos + joined.head_size])
        start, stop = stop, stop + content_size_of(layout, head)
        parts += (head, content[start:stop], layout.trailer)
    return parts, stop


def not_in_one_piece() -> ValueError:
    """Return the error about a scan for messages of several frames."""
    return ValueError(
        "a message of joined frames is in several pieces of the data; scan whole messages as they "
        "travelled with raw=True"
    )
