"""The encoder in Python: messages in, bytes out.

It is the specification of the compiled encoder, `_encoder.pyx`, which has the same functions in the
same order. Change both in the same commit.

`Encoder.frame_parts` is the slow path: it encodes every message of every shape, and raises the
errors. `Encoder.encode` and `Encoder.encode_many` have a fast path for ordinary messages.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, final

from . import _error_texts, _mark_texts
from ._bytes_like import refuse_one_message, view_bytes
from ._check_bytes import add_check, content_of
from ._checksums_py import update_checksum
from ._choice import choice_parts
from ._custom_header import build_header
from ._header_block import check_block
from ._joined import joined_parts
from ._layout import (
    BCD,
    BER,
    CHOICE,
    COBS,
    CUSTOM,
    DIGITS,
    FIXED,
    TEXT,
    UINT,
    VARINT,
    Described,
    HasLayout,
    Layout,
    layout_of,
)
from ._marks_py import check_message, mark_search_of, stuff
from ._message_start import check_start, join_header

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Encoder", "ObjectEncoder", "update_checksum"]

# The commonest widths of a binary length, as `struct` names them.
STRUCT_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def struct_format(layout: Layout) -> str:
    return ("<" if layout.little else ">") + STRUCT_FORMATS[layout.field_width]


@final
class Encoder:
    """Encode messages into frames. It has no state; one encoder serves all connections.

    Args:
        codec: The shape of the frames.

    Raises:
        TypeError: `codec` is not a `Codec`.
    """

    __slots__ = (
        "_alternatives",
        "_bytes_are_special",
        "_layout",
        "_mark",
        "_message_max",
        "_pack",
        "_special_values",
    )

    def __init__(self, codec: HasLayout) -> None:
        self._layout = layout = layout_of(codec)
        self._alternatives: list[Any] = []  # of a choice
        if layout.choice is not None:
            self._alternatives = [Encoder(Described(each)) for each in layout.choice.layouts]
        self._message_max = layout.message_max
        self._special_values = layout.special_values
        self._bytes_are_special = layout.bytes_are_special
        self._pack = _packer(layout)
        self._mark = _only_mark(layout)

    def encode(self, message: object, /) -> bytes:
        """Return the frame of a message.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            MessageTooLargeError: The message is larger than ``max_message_size``, or than the
                largest size that the length field can hold.
            InvalidFrameError: The message is shorter than its lead, or the length field cannot hold
                its size.
            TypeError, BufferError: `message` is not a contiguous bytes-like object.
        """
        if self._pack is not None and type(message) is bytes and len(message) <= self._message_max:
            return self._pack(len(message)) + message
        mark = self._mark
        if (
            mark is not None
            and type(message) is bytes
            and len(message) <= self._message_max
            and mark[0] not in message  # a number is found several times as fast
        ):
            return message + mark
        return b"".join(self.frame_parts(message))

    def encode_many(self, messages: Iterable[object], /) -> bytes:
        """Return the joined frames of messages, in one allocation.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`, for the first bad message.
        """
        batch = list(messages)
        frames = self._encode_batch(batch, self._message_max)
        return self._encode_any(batch) if frames is None else frames

    def encode_small(self, messages: list[Any], largest: int, /) -> bytes | None:
        """Return `encode_many`, or None if not all messages are `bytes` of at most that size."""
        # A copy, because the user's code and other threads may change the list.
        batch = messages.copy()
        frames = self._encode_batch(batch, largest)
        if frames is None and _are_small(batch, largest):
            return self._encode_any(batch)
        return frames

    def _encode_batch(self, batch: list[Any], largest: int) -> bytes | None:
        """Return the frames of ordinary messages of the commonest shape, or None."""
        mark = self._mark
        if mark is not None and _are_small(batch, min(largest, self._message_max)):
            frames = mark.join([*batch, b""])
            return frames if frames.count(mark) == len(batch) else None
        pack = self._pack
        if pack is None or not _are_small(batch, min(largest, self._message_max)):
            return None
        return b"".join(chain.from_iterable(zip(map(pack, map(len, batch)), batch, strict=True)))

    def _encode_any(self, messages: list[Any]) -> bytes:
        parts: list[Any] = []
        try:
            for message in messages:
                parts += self.frame_parts(message)
            return b"".join(parts)
        except BaseException:
            parts.clear()  # the traceback would hold them
            raise

    def frame_parts(self, message: object, /) -> list[Buffer]:
        """Return a frame as a list of buffers, for ``sendmsg`` or ``writelines``.

        Joined they are the frame. The message is not copied, and no buffer is empty.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`.
        """
        layout = self._layout
        if layout.kind == CHOICE:
            return choice_parts(layout.choice, self._alternatives, message)
        if self._special_values and (self._bytes_are_special or type(message) is not bytes):
            special = self._special_value(message)
            if special is not None:
                return [layout.magic + self._field(special)]
        data: Any = message if type(message) is bytes else view_bytes(message)
        size = len(data)
        try:
            if layout.joined is not None:
                return joined_parts(layout, data)
            if layout.marks:
                return self._marked_parts(data, size)
            if layout.kind == CUSTOM:
                self._check_size(size)
                if size < layout.min_message_size:
                    raise _error_texts.message_too_small(size, layout.min_message_size)
                header, carried = build_header(layout, memoryview(data))
            elif layout.keep:
                self._check_size(size)
                if size < layout.min_message_size:
                    raise _error_texts.message_too_small(size, layout.min_message_size)
                check_block(layout, data)
                header, carried = layout.magic, 0
            else:
                carried = layout.message_lead
                value = self._field_value(size)
                if layout.extended:
                    start = bytes(data[: layout.message_prefix])
                    check_start(layout, start)
                    header = join_header(layout, start, self._field(value))
                    if layout.own_bits:
                        carried = len(start)
                else:
                    header = layout.magic + bytes(data[:carried]) + self._field(value)
            trailer = layout.trailer
            if layout.check is not None:
                header, trailer = add_check(layout, header, data, carried, update_checksum)
        except BaseException:
            if data is not message:
                data.release()  # the traceback would hold it
            raise
        parts: list[Any] = [header] if header else []
        if carried < size:
            parts.append(data if not carried else memoryview(data)[carried:])
        if trailer:
            parts.append(trailer)
        if layout.align > 1:
            padding = layout.padding(len(header) + size - carried + len(trailer))
            if padding:
                parts.append(bytes(padding))
        return parts

    def _marked_parts(self, data: Any, size: int) -> list[Any]:
        """Return the parts of a frame that an end mark ends."""
        layout = self._layout
        self._check_size(size)
        if size < layout.min_message_size:
            raise _error_texts.message_too_small(size, layout.min_message_size)
        if layout.skip_empty and layout.kind != COBS and not size:
            raise _mark_texts.message_is_ignored()
        if layout.check is not None:
            data = content_of(layout, data, update_checksum)
        check_message(layout, data)
        search = mark_search_of(layout)
        if layout.kind == COBS:
            data = stuff(bytes(data))
        elif search is not None and layout.escape:
            data = search.escape(data)
        return [part for part in (layout.magic, data, layout.marks[0]) if len(part)]

    def _special_value(self, message: Hashable) -> int | None:
        try:
            return self._special_values.get(message)
        except (TypeError, ValueError):  # no usable hash: special only as the bytes that it has
            if not self._bytes_are_special:
                return None
            return self._special_values.get(bytes(view_bytes(message)))

    def _check_size(self, size: int) -> None:
        if size > self._message_max:
            layout = self._layout
            by_limit = self._message_max >= layout.max_message_size
            raise _error_texts.message_too_large(
                size, self._message_max, "max_message_size" if by_limit else "length field"
            )

    def _field_value(self, size: int) -> int:
        """Return the field's value for a message of a size."""
        layout = self._layout
        if size < layout.message_lead:
            raise _error_texts.shorter_than_lead(size, layout.message_lead)
        if layout.kind == FIXED and size != layout.size:  # it has no lead
            raise _error_texts.message_of_other_size(size, layout.size)
        self._check_size(size)
        if size < layout.min_message_size:
            raise _error_texts.message_too_small(size, layout.min_message_size)
        rest_size = size - layout.message_lead
        value = rest_size - layout.adjustment
        if value < 0:
            raise _error_texts.unsayable_length(value, rest_size)
        if layout.unit != 1:
            if value % layout.unit:
                raise _error_texts.not_in_units(rest_size, layout.adjustment, layout.unit)
            value //= layout.unit
        has_wide = bool(layout.wider) and layout.wide_for(value) is not None
        if value in layout.specials and not has_wide:
            raise _error_texts.length_is_special(value, layout.specials[value])
        if not (has_wide or layout.holds(value)):
            raise _error_texts.length_not_held(value, layout.mask)
        return value

    def _field(self, value: int) -> bytes:
        """Return the length field of a value."""
        layout = self._layout
        if layout.kind == UINT:
            width, order = layout.field_width, layout.byteorder
            wide = layout.wide_for(value) if layout.wider else None
            if wide:
                field = wide.key.to_bytes(width, order)
                return field + value.to_bytes(wide.width, "little" if wide.little else "big")
            return value.to_bytes(width, order, signed=layout.signed)
        if layout.kind == FIXED:
            return b""
        if layout.kind == VARINT:
            varint = bytearray()
            while value > 0x7F:
                varint.append(value & 0x7F | 0x80)
                value >>= 7
            varint.append(value)
            return bytes(varint)
        if layout.kind == BER:
            if value < 0x80:
                return bytes([value])
            size = (value.bit_length() + 7) // 8
            return bytes([0x80 | size]) + value.to_bytes(size, "big")
        digits = f"{value:x}" if layout.base == 16 else str(value)
        if layout.kind == DIGITS:
            return digits.zfill(layout.field_width).encode()
        if layout.kind == BCD:
            return bytes.fromhex(digits.zfill(2 * layout.field_width))
        if layout.kind == TEXT:
            return digits.encode() + layout.end
        return layout.field_start + digits.encode() + layout.field_end


@final
class ObjectEncoder:
    """Encode objects: `dumps` makes messages of them, an `Encoder` makes frames of the messages.

    Args:
        dumps: A function of an object that returns a message.
        encoder: Its methods are called with the messages.
    """

    __slots__ = ("_dumps", "_encoder")

    def __init__(self, dumps: Callable[[Any], Any], encoder: Encoder) -> None:
        self._dumps = dumps
        self._encoder = encoder

    def encode(self, message: object, /) -> bytes:
        """Return the frame of an object.

        Raises:
            BaseException: What `dumps` raises.
            FrameError, TypeError, BufferError: As `Encoder.encode`, for what `dumps` returns.
        """
        return self._encoder.encode(self._dumps(message))

    def encode_many(self, messages: Iterable[object], /) -> bytes:
        """Return the joined frames of objects.

        Raises:
            TypeError: `messages` is one message.
            BaseException: As `encode`, for the first object that fails.
        """
        refuse_one_message(messages, "encode")
        dumps = self._dumps
        return self._encoder.encode_many([dumps(message) for message in messages])

    def frame_parts(self, message: object, /) -> list[Buffer]:
        """Return the frame of an object as a list of buffers.

        Raises:
            As `encode`.
        """
        return self._encoder.frame_parts(self._dumps(message))


def _packer(layout: Layout) -> Callable[[int], bytes] | None:
    """Return a function that makes the header of the commonest shape: a length and a rest."""
    if (
        not layout.plain
        or layout.field_width not in STRUCT_FORMATS
        or layout.rest_min
        or layout.adjustment
        or layout.specials
    ):
        return None
    return struct.Struct(struct_format(layout)).pack


def _only_mark(layout: Layout) -> bytes | None:
    """Return the mark of the commonest shape without a length: a message and one byte."""
    search = mark_search_of(layout)
    if search is None or len(layout.marks) > 1 or len(search.split_at) != 1 or layout.magic:
        return None
    if layout.skip_empty or layout.min_message_size or layout.check is not None:
        return None
    return layout.marks[0]


def _are_small(messages: list[Any], largest: int) -> bool:
    """Return whether all are `bytes` of at most a size."""
    if not set(map(type, messages)) <= {bytes}:
        return False
    return max(map(len, messages), default=0) <= largest
