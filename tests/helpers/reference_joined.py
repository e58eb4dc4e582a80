"""What a stream of joined frames holds, by a parser that sees all of it at once.

As `reference_parser.py`: written from what is documented.
"""

from __future__ import annotations

import math
from typing import Any

from framecodec import Codec, IncompleteFrameError, InvalidFrameError, MessageTooLargeError
from tests.helpers.reference_parser import Bad, Outcome, Short, match_constant, read_header

__all__ = ["expect_joined"]


class TooLarge(Exception):
    """The message becomes too large: by how many bytes of the fragment, size and limit."""


class Message:
    """One message, fragment by fragment."""

    def __init__(self, codec: Codec, data: bytes, skip: bool) -> None:
        self.has = codec.parameters
        self.codec: Codec = self.has["fragments"]
        self.data, self.skip = data, skip
        self.pos = 0  # of the fragment
        self.count = 0
        self.size = 0  # of the message so far
        self.message = b""
        self.oversized = False
        self.seen = 0
        self.where, self.header, self.needed = "header", b"", None

    def read(self) -> None:
        while self.read_fragment():
            pass

    def read_fragment(self) -> bool:
        """Whether another fragment follows."""
        has, of_fragment = self.has, self.codec.parameters
        frame = self.data[self.pos :]
        self.where, self.header, self.needed, self.seen = "header", frame, None, 0
        value, size, lead, self.seen, _ = read_header(self.codec, frame)
        self.header = frame[:size]
        trailer = of_fragment["trailer"]
        rest_size = value * of_fragment["length_unit"] + of_fragment["length_adjustment"]
        if of_fragment["length_includes"] == "frame":
            rest_size = value * of_fragment["length_unit"] - size - len(trailer)
        content_size = len(lead) + rest_size - has["strip"]
        least = of_fragment["min_message_size"]
        if self.count == has["max_fragments"] or value < 0 or content_size < 0:
            raise Bad(size)
        if len(lead) + rest_size < least:
            raise Bad(size)
        if not self.count and has["keep_first"]:
            self.size += has["strip"]
        self.check_limits(size, content_size, len(lead) + rest_size)
        self.header = frame
        for offset, constant in (of_fragment["constants"] or {}).items():
            if offset >= size:
                match_constant(frame, offset, constant)
        head_size = size + has["strip"] - len(lead)
        if len(frame) < head_size:
            raise Short
        self.header = frame[:head_size]
        self.seen = max(self.seen, head_size)
        self.where = "rest"
        followed = has["full"] == content_size
        stripped = bytearray(lead + frame[size:head_size])
        if has["last"] is not None:
            offset, mask, value = has["last"]
            followed = frame[offset] & mask != value
            field = self.codec.layout.field_offset  # where it is in the message: by what is sent
            place = offset - len(of_fragment["magic"])
            if offset >= size:
                place = len(lead) + offset - size
            elif offset >= field:
                place = len(lead) - 1
            stripped[place] &= ~mask
        if not followed:  # else the whole size is unknown
            self.needed = self.pos + size + rest_size + len(trailer)
        if len(frame) < size + rest_size:
            raise Short
        self.where = "trailer"
        stop = match_constant(frame, size + rest_size, trailer)
        if not self.count and has["keep_first"]:
            self.message += stripped
        self.message += frame[head_size : head_size + content_size]
        self.pos += stop
        self.count += 1
        return followed

    def check_limits(self, stop: int, content_size: int, fragment_size: int) -> None:
        limit = math.inf if self.has["max_message_size"] is None else self.has["max_message_size"]
        of_fragments = self.codec.parameters["max_message_size"]
        self.size += content_size
        found: tuple[Any, ...] = ()
        if self.size > limit:
            found = (stop, self.size, limit)
        elif of_fragments is not None and fragment_size > of_fragments:
            found = (stop, fragment_size, of_fragments)
        if found and not self.skip:
            raise TooLarge(*found)
        self.oversized = self.oversized or bool(found)


def expect_joined(codec: Codec, data: bytes, *, raw: bool, skip: bool) -> Outcome:
    outcome, oversized = Outcome(), False
    while outcome.stream_offset < len(data) and not outcome.error:
        start = outcome.stream_offset
        found = Message(codec, data[start:], skip)
        try:
            found.read()
        except Bad as bad:
            outcome.error = InvalidFrameError
            outcome.attributes = {"header": found.header[: bad.args[0]]}
            outcome.decided = start + found.pos + max(found.seen, bad.args[0])
        except TooLarge as too_large:
            stop, size, limit = too_large.args
            outcome.error = MessageTooLargeError
            outcome.attributes = {"size": size, "limit": limit, "header": found.header}
            outcome.decided = start + found.pos + max(found.seen, stop)
        except Short:
            outcome.error = IncompleteFrameError
            outcome.attributes = {
                "where": found.where,
                "received": len(found.data),
                "needed": found.needed,
                "header": found.header,
            }
        else:
            if found.oversized:
                outcome.skipped += 1
            else:
                outcome.messages.append(found.data[: found.pos] if raw else found.message)
            outcome.stream_offset += found.pos
            stop = outcome.stream_offset
            outcome.steps.append((stop, stop, len(outcome.messages)))
            continue
        oversized = found.oversized
    outcome.unread = data[outcome.stream_offset :] if not (oversized and skip) else b""
    if outcome.error:
        outcome.attributes["stream_offset"] = outcome.stream_offset
    return outcome
