"""The part of the splitter in Python that reads and verifies checks.

`_splitter.pyx` has the same functions as methods of its class: change both in the same commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._check_bytes import verify_check, wrong_bytes_before_check
from ._checksums_py import update_checksum
from ._fields_py import common_size

if TYPE_CHECKING:
    from ._frame_reader_py import FrameReader

__all__ = ["matched_trailer", "read_check", "verify_check_of"]


def read_check(reader: FrameReader, data: bytes, pos: int) -> int:
    """Gather a check at the end; verify it when it is whole. Return what follows in the chunk."""
    layout, before = reader._layout, len(reader._end)
    assert layout.check is not None
    constant = layout.check.before
    end = reader._end + data[pos : pos + layout.end_check_size - before]
    right = common_size(end, constant)
    wrong = end[right : right + 1] if right < len(constant) else b""
    if wrong:
        end = end[:right]
    pos, pending = pos + len(end) - before, reader._pending + len(end) - before
    reader._end, reader._trailer_pos, reader._pending = end, len(end), pending
    if wrong:
        raise wrong_bytes_before_check(
            constant, end + wrong, reader._stream_offset, bytes(reader._header)
        )
    if len(end) == layout.end_check_size:
        verify_check_of(reader, end)
    return pos


def verify_check_of(reader: FrameReader, end: bytes) -> None:
    """Compare the check that ends these bytes with that of the frame, unless it was discarded."""
    rest: list[bytes | bytearray | memoryview]
    layout = reader._layout
    assert reader._found is not None
    assert layout.check is not None
    own_size, lead = reader._own_size, reader._found[2]
    if reader._spans is not None:
        start, stop = reader._stream_offset, reader._stream_offset + reader._pending
        rest = [reader._spans._view[start + own_size : stop - reader._trailer_pos]]
    elif reader._skipping:
        return
    else:
        first, *others = [*reader._pieces, reader._piece]
        rest = [memoryview(first)[own_size if reader._raw else len(lead) :], *others]
    verify_check(
        layout,
        bytes(reader._header),
        own_size,
        lead,
        rest,
        end[-layout.check.width :],
        reader._stream_offset,
        update_checksum,
    )


def matched_trailer(reader: FrameReader) -> bytes:
    """Return the bytes of the trailer that matched."""
    return reader._trailer[: max(0, reader._trailer_pos - reader._layout.end_check_size)]
