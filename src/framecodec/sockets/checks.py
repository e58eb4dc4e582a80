"""The checks of messages that are never in memory as a whole: files, and buffers of the caller."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import _engine, _error_texts, errors
from .._check_bytes import RunningCheck, wrong_bytes_before_check

if TYPE_CHECKING:
    from .._layout import Layout
    from ..codec import Codec
    from .files import IncomingMessage, OutgoingFile
    from .receiving import ReceiveSide

__all__ = ["can_run", "compute_check", "new_check", "own_size", "verify_front", "verify_tail"]

# Bytes read from a file at a time.
_CHUNK_SIZE = 256 * 1024


def can_run(codec: Codec) -> bool:
    """Return whether the check of a message can be computed of its bytes in pieces.

    A function of the user's gets all the bytes at once; then the message is held in memory.
    """
    check = codec.layout.check
    return check is None or isinstance(check.function, str)


# --- receiving ------------------------------------------------------------------------------------


def own_size(layout: Layout, header: bytes) -> int:
    """Return how many bytes of a header come before the rest, of which it can have the start."""
    if layout.prefix_size:
        return layout.header_size + layout.front_check_size
    return len(header)


def new_check(message: IncomingMessage) -> RunningCheck | None:
    """Return the running check of a message whose header and lead are known, if it has one."""
    layout, header = message.layout, message.header
    if layout.check is None:
        return None
    size = own_size(layout, header)
    lead_size = len(message.lead or b"") - (len(header) - size)
    return RunningCheck(layout, header, size, lead_size, _engine.encoder.update_checksum)


def verify_front(side: ReceiveSide, message: IncomingMessage) -> None:
    """Verify a check before the rest."""
    layout, check = message.layout, message.check
    if check is None or layout.check is None or not layout.front_check_size:
        return
    stop = own_size(layout, message.header)
    _verify(side, message, check, message.header[stop - layout.check.width : stop])


def verify_tail(side: ReceiveSide, message: IncomingMessage) -> None:
    """Verify the received part of the check at the end and of the trailer."""
    layout = message.layout
    found = bytes(message.chunk)
    # Of the bytes that were verified before, those that this call does not see again.
    found = message.tail[: message.tail_size - message.missing - len(found)] + found
    if layout.end_check_size and layout.check is not None and message.check is not None:
        before = layout.check.before
        bad = _first_wrong(found, before)
        if bad is not None:
            side.end(wrong_bytes_before_check(before, bad, message.offset, message.header))
        if len(found) >= layout.end_check_size:
            _verify(side, message, message.check, found[len(before) : layout.end_check_size])
    bad = _first_wrong(found[layout.end_check_size : layout.tail_size], layout.trailer)
    if bad is not None:
        side.end(_error_texts.wrong_trailer(layout.trailer, bad, message.offset, message.header))
    message.tail = found


def _first_wrong(found: bytes, constant: bytes) -> bytes | None:
    """Return the bytes up to the first one that is not that of a constant, or None."""
    for index, (byte, right) in enumerate(zip(found, constant, strict=False)):
        if byte != right:
            return found[: index + 1]
    return None


def _verify(side: ReceiveSide, message: IncomingMessage, check: RunningCheck, found: bytes) -> None:
    try:
        check.verify(found, message.offset)
    except errors.InvalidFrameError as error:
        side.end(error)


# --- sending --------------------------------------------------------------------------------------


def compute_check(file: OutgoingFile, layout: Layout) -> None:
    """Replace the check of a blank message by that of the file's bytes.

    Raises:
        ValueError: The file became shorter.
    """
    header_size = len(file.header) - layout.front_check_size
    check = RunningCheck(
        layout, file.header, header_size, layout.message_lead, _engine.encoder.update_checksum
    )
    start, size = file.position - layout.message_lead, file.unsent + layout.message_lead
    done = 0
    while done < size:
        chunk = os.pread(file.fileno, min(_CHUNK_SIZE, size - done), start + done)
        if not chunk:
            raise ValueError(
                f"the file became shorter while its check was computed: {size - done} bytes are "
                "missing"
            )
        check.add(done, chunk)
        done += len(chunk)
    if layout.front_check_size:
        file.header = file.header[:header_size] + check.written()
    else:
        trailer = b"".join(file.trailer)
        file.trailer = (check.written() + trailer[layout.end_check_size :],)
