"""Rebuild the frames of messages that a splitter has delivered, exactly as they travelled.

A connection needs this where a program detaches it: messages that the program has not received go
back to the stream. Most codecs are canonical: a message has one frame, which `encode` writes. For
the others (hexadecimal digits in upper case, header blocks, custom headers) the splitter keeps what
travelled before each message's rest: ``Splitter(codec, keep_headers=True).headers``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import _error_texts
from ._layout import HasLayout, Layout, layout_of
from .splitter import Encoder, Splitter

__all__ = ["frame_as_travelled"]


@dataclass(frozen=True, slots=True)
class _Described:
    layout: Layout


def frame_as_travelled(codec: HasLayout | Layout, message: Any, header: bytes | None) -> bytes:
    """Return the frame of a delivered message, byte for byte.

    Args:
        codec: The codec, or its layout.
        message: The message that the splitter returned.
        header: The message's item of `Splitter.headers`; None for a canonical codec, where the
            splitter keeps none.

    Raises:
        InvalidFrameError: ``parse`` of a custom codec gives another result for the same bytes.
    """
    if isinstance(codec, Layout):
        codec = _Described(codec)
    if header is None:
        frame: bytes = Encoder(codec).encode(message)
        return frame
    layout = layout_of(codec)
    # The header says how much of the message travelled after it.
    splitter = Splitter(codec)
    if splitter.feed(header):  # a special value, or neither a rest nor a trailer
        return header
    rest_size = splitter.bytes_needed - len(layout.trailer)
    if rest_size > len(message) or splitter.pending != len(header):
        raise _error_texts.parse_changed_its_answer(0)
    rest: bytes = message[len(message) - rest_size :]
    return header + rest + layout.trailer
