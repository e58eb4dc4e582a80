"""Rebuild the frames of messages that a splitter has delivered, exactly as they travelled.

A connection needs this where a program detaches it: messages that the program has not received go
back to the stream. Most codecs are canonical: a message has one frame, which `encode` writes. For
the others (hexadecimal digits in upper case, header blocks, custom headers) the splitter keeps what
travelled before each message's rest: ``Splitter(codec, keep_headers=True).headers``.
"""

from __future__ import annotations

from typing import Any

from . import _engine, _error_texts
from ._check_bytes import tail_as_travelled
from ._custom_header import read_header
from ._fragments import fragments_as_travelled
from ._layout import COBS, CUSTOM, Described, Layout, layout_of
from .errors import FrameError
from .splitter import Encoder, Splitter

__all__ = ["frame_as_travelled", "frames_as_travelled"]


def frame_as_travelled(codec: Any, message: Any, header: bytes | None) -> bytes:
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
        codec = Described(codec)
    if header is None:
        encoded: bytes = Encoder(codec).encode(message)
        return encoded
    layout = layout_of(codec)
    if layout.choice is not None:
        return _chosen_frame(codec, layout, message, header)
    if layout.joined is not None:  # the header is the heads of all fragments
        parts, _ = fragments_as_travelled(layout, header, message[layout.joined.first_size :])
        return b"".join(parts)
    if layout.keep:
        return _padded(layout, layout.magic + message + layout.trailer)
    if layout.escape or layout.kind == COBS or (layout.marks and layout.check):
        return header  # all of it
    lead_size = layout.message_prefix
    if layout.kind == CUSTOM or layout.specials:
        splitter = Splitter(codec)
        if splitter.feed(header):  # a special value, or neither a rest nor a trailer
            return header
        if layout.kind == CUSTOM:  # the header says how much of the message travelled after it
            rest_size = splitter.bytes_needed - layout.tail_size
            if rest_size > len(message) or splitter.pending != len(header):
                raise _error_texts.parse_changed_its_answer(0)
            lead_size = len(message) - rest_size
    rest: bytes = message[lead_size:]
    if layout.marks:  # the header is the end mark
        return layout.magic + rest + header
    return _padded(layout, header + rest + _tail(layout, header, message, rest))


def _chosen_frame(codec: Any, choice_layout: Layout, message: Any, header: bytes) -> bytes:
    """Return the frame of a choice: that of the alternative which reads it as this message."""
    choice = choice_layout.choice
    for layout, tag in zip(choice.layouts, choice.tags, strict=True):
        payload = message
        for name in tag:
            if not isinstance(payload, tuple) or payload[0] != name:
                break
            payload = payload[1]
        else:
            splitter = Splitter(codec, keep_headers=True)
            try:
                frame = frame_as_travelled(layout, payload, header)
                is_read = splitter.feed(frame) == [message] and splitter.headers == [header]
                if is_read and not splitter.pending:
                    return frame
            except FrameError:
                pass
    raise _error_texts.parse_changed_its_answer(0)


def frames_as_travelled(
    codec: Any, messages: list[Any], headers: list[bytes] | None, following: bytes
) -> bytes:
    """Return the frames of successive delivered messages, byte for byte.

    Args:
        codec: The codec.
        messages: The messages that the splitter returned.
        headers: Their items of `Splitter.headers`; None for a canonical codec.
        following: The received bytes that follow these frames: ``parse`` of a custom codec may have
            looked at them.

    Raises:
        InvalidFrameError: As `frame_as_travelled`.
    """
    layout = layout_of(codec)
    if headers is None:
        encoded: bytes = Encoder(codec).encode_many(messages)
        return encoded
    frames: list[bytes] = []
    for message, header in zip(reversed(messages), reversed(headers), strict=True):
        if layout.parse is None:
            frame = frame_as_travelled(codec, message, header)
        else:
            frame = _custom_frame(layout, message, header, following)
            following = frame + following[: layout.max_header]
        frames.append(frame)
    frames.reverse()
    return b"".join(frames)


def _custom_frame(layout: Layout, message: bytes, header: bytes, following: bytes) -> bytes:
    """Return a frame of a custom codec: only ``parse`` can tell how much of it is the lead."""
    shown_size = len(layout.magic) + layout.max_header
    rest = message
    for _ in range(2):  # the first time with a guess of what ``parse`` saw after the header
        frame = header + rest + _tail(layout, header, message, rest)
        parsed = read_header(layout, (frame + following)[:shown_size], 0)
        if parsed is None or parsed[0] + layout.front_check_size != len(header):
            break
        lead = parsed[2]
        if message.startswith(lead) and parsed[1] == len(message) - len(lead):
            if len(rest) == parsed[1]:
                return _padded(layout, frame)
            rest = message[len(lead) :]
    raise _error_texts.parse_changed_its_answer(0)


def _padded(layout: Layout, frame: bytes) -> bytes:
    return frame + bytes(layout.padding(len(frame)))


def _tail(layout: Layout, header: bytes, message: bytes, rest: bytes) -> bytes:
    return tail_as_travelled(layout, header, message, rest, _engine.encoder.update_checksum)
