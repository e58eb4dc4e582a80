"""A frame's shape as plain numbers, for the engines.

All arithmetic about a header is done here once, when the codec is made. The engines only compare
and add::

    frame:  [ magic ][ lead ][ length field ][ rest ][ check ][ trailer ]
            |                ^ field_offset
            |------- header_size -----------|        |--- tail_size ----|
    message:         [ lead ]                [ rest ]

    rest size = field value * unit + adjustment

A check can also be at the front, between the length field and the rest.

With a mask, some bytes of the length field are also part of the message, at the end of its lead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from ._check import Check

__all__ = [
    "BCD",
    "BER",
    "CHOICE",
    "COBS",
    "CUSTOM",
    "DELIMITER",
    "DIGITS",
    "FIXED",
    "HEADERS",
    "LARGEST_SIZE",
    "MAX_VALUE",
    "NO_LIMIT",
    "TEXT",
    "UINT",
    "VARINT",
    "Described",
    "HasLayout",
    "Joined",
    "Layout",
    "OwnBits",
    "Wide",
    "describe_splitter",
    "layout_of",
    "not_a_codec",
    "plain_codec",
]

# The kinds of frame boundary, most of them a length field. The engines have one branch for each.
UINT = 0  # binary, fixed width
DIGITS = 1  # ASCII digits, fixed width
VARINT = 2  # LEB128
TEXT = 3  # ASCII digits up to an end mark
BCD = 4  # packed decimal digits, fixed width
BER = 5  # X.690 definite length
FIXED = 6  # no length field: all messages have one size
HEADERS = 7  # a block of "Name: value" lines
CUSTOM = 8  # the user's parse() and build()
DELIMITER = 9  # no length: the message ends at an end mark
COBS = 10  # no length: byte stuffing, ended by a zero
CHOICE = 16  # a byte of the frame chooses between several layouts

MAX_VALUE = 2**64 - 1  # the largest value of any length field

# More than any memory, but the sum of two such sizes fits a Py_ssize_t: the compiled engine adds
# sizes of ordinary frames without a check for overflow.
LARGEST_SIZE = sys.maxsize // 2

# Stored for "no limit": more than any 64-bit length with a unit and an adjustment can declare.
NO_LIMIT = 2**100

Parse = Callable[[memoryview], Any]
Build = Callable[[memoryview], Any]


class Wide(NamedTuple):
    """A wider length that follows the length field directly, where the field has the value `key`.

    It is longer than needed if it is less than `least`, the smallest value that no narrower one
    holds, and the length field itself can hold it.
    """

    key: int
    width: int  # in bytes
    little: bool
    least: int


class OwnBits(NamedTuple):
    """Bits of a frame's byte that choose between layouts and are 0 in the message."""

    offset: int  # in the frame
    mask: int
    value: int  # what the frame has there


class Joined(NamedTuple):
    """How fragments make a message; the rest of a layout describes the fragments.

    A fragment is ``[ head ][ content ][ trailer ]``. All heads have one size; in them are the
    bytes of the fragment's message that are no content.
    """

    head_size: int
    strip: int  # bytes of each fragment's message before its content
    first_size: int  # of those of the first fragment: bytes that are in the message
    last_offset: int  # in the frame: the byte that says which fragment is the last one; or -1
    last_mask: int
    last_value: int
    full: int  # a fragment whose content has this size is followed by another; or -1
    counter: int  # in the frame: the byte that counts the fragments; or -1
    fragment_size: int  # content of the fragments that are written
    max_fragments: int
    rest_max: int  # the largest rest of a fragment
    blank: bytes  # the bytes before the content, where the message has none


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layout:
    """The numbers that an engine copies into its fields and never computes again.

    Sizes are in bytes. A field that a kind does not use has its neutral value.
    """

    kind: int
    magic: bytes = b""
    trailer: bytes = b""
    field_offset: int = 0  # where the length field starts, from the frame's first byte
    # UINT, DIGITS, BCD: exact; VARINT, BER: the longest form; others 0
    field_width: int = 0
    marks: tuple[bytes, ...] = ()  # DELIMITER, COBS: the end marks; the first one is written
    # DELIMITER: byte of the message, what travels for it
    escape: tuple[tuple[int, bytes], ...] = ()
    skip_empty: bool = False  # DELIMITER, COBS: an empty frame is ignored
    max_header: int = 0  # HEADERS, CUSTOM: the longest header without the magic
    little: bool = False  # UINT: least significant byte first
    signed: bool = False  # UINT: two's complement, negative values are invalid
    base: int = 10  # DIGITS, TEXT: 10 or 16
    end: bytes = b""  # TEXT: the end mark
    leading_zeros: bool = False  # TEXT: leading zeros are read
    trailing_blanks: bool = False  # TEXT: blanks are read after the digits
    max_digits: int = 20  # TEXT: the most digits and blanks
    name: str = ""  # HEADERS: the name of the header that holds the length
    names: tuple[str, ...] = ()  # HEADERS: other names of it, which are read
    line_end: bytes = b""  # HEADERS: what ends a line
    lenient: bool = False  # HEADERS: the other line end and leading zeros are read, too
    start_line: bool = False  # HEADERS: the first line is no header
    protocols: tuple[bytes, ...] = ()  # HEADERS: the first line begins or ends with one of them
    keep: bool = False  # HEADERS: the message is the block and the body
    adjustment: int = 0  # rest size = field value * unit + adjustment
    unit: int = 1  # the field counts units of this many bytes
    mask: int = 0  # UINT: the bits of the field that hold the length; 0: all
    wider: tuple[Wide, ...] = ()  # UINT: narrowest first
    wider_strict: bool = True  # a wider length that is longer than needed is invalid
    size: int = 0  # FIXED: of the message
    constants: tuple[tuple[int, bytes], ...] = ()  # frame offset, bytes; by offset
    check: Check | None = None
    align: int = 1  # zero bytes follow until the frame's size is a multiple of this
    counts_frame: bool = False  # the field counts the whole frame; used only in an error's text
    plain_max: int = MAX_VALUE  # the largest value of the length field itself
    field_max: int = MAX_VALUE  # the same, or of the widest length in `wider`
    min_message_size: int = 0
    max_message_size: int = NO_LIMIT
    specials: Mapping[int, Hashable] = field(default_factory=dict)  # field value -> object
    parse: Parse | None = None  # CUSTOM
    build: Build | None = None  # CUSTOM
    choice: Any = None  # CHOICE: a `Choice` of _choice.py
    # Of an alternative of a choice: bits of the frame that belong to the codec, 0 in the message.
    own_bits: tuple[OwnBits, ...] = ()
    joined: Joined | None = None  # a message has several frames; else each frame is a message

    # Computed from the fields above, once: a new splitter for every connection only copies them.
    byteorder: Literal["big", "little"] = field(init=False)  # UINT: for `int.from_bytes`
    lead_size: int = field(
        init=False
    )  # bytes between magic and field; CUSTOM: 0, parse() returns it
    # Magic, lead and length field; 0 if the size varies, or there is nothing before the rest.
    header_size: int = field(init=False)
    kept: tuple[int, ...] = field(init=False)  # bytes of the field that are also in the message
    message_lead: int = field(init=False)  # bytes of the lead and of these
    front_check_size: int = field(
        init=False
    )  # bytes of a check between the length field and the rest
    end_check_size: int = field(init=False)  # bytes of a check after the rest
    # DELIMITER, COBS: bytes of a check; it is a part of the content between magic and end mark.
    inner_check_size: int = field(init=False)
    tail_size: int = field(init=False)  # of a check after the rest, and the trailer
    longest_header: int = field(init=False)  # how many bytes the slow path gathers
    message_prefix: int = field(init=False)  # bytes of the lead, or up to the last constant
    # Frame offset of the last constant's end, or of a fragment's content, if that is in the rest;
    # else 0. The slow path reads the bytes up to there with the header.
    prefix_size: int = field(init=False)
    rest_min: int = field(init=False)  # the smallest rest; a field's value is never negative
    rest_max: int = field(init=False)  # the largest rest that both the limit and the field allow
    message_max: int = field(init=False)  # the largest message
    special_values: dict[Hashable, int] = field(init=False)  # object -> field value
    bytes_are_special: bool = field(init=False)  # a special object can equal a message
    quick_range: tuple[int, int] = field(init=False)  # see _quick_range
    lower_names: tuple[bytes, ...] = field(init=False)  # HEADERS: all names, in lower case
    # The most bytes of an ordinary frame that are not the message's.
    most_owned: int = field(init=False)
    field_start: bytes = field(init=False)  # HEADERS: what is written before the digits, ...
    field_end: bytes = field(init=False)  # ... and after them
    plain: bool = field(init=False)  # UINT, and nothing in the frame but the field and the rest
    # A unit, a mask, wider fields, constants, a check or padding.
    extended: bool = field(init=False)
    # Each message has one possible frame, the one that the encoder writes.
    canonical: bool = field(init=False)
    has_marks: bool = field(init=False)  # end marks end its frames, or those of an alternative
    # ... and some messages are not in their frames as they are.
    has_changed_content: bool = field(init=False)
    # The same as C structures, by their names, made when the compiled engine first needs them:
    # "shape" and "choice" (_numbers.pxd), "marks" (_marks.pxd), "heads" (_quick_heads.pxd). What is
    # in it stays: structures point into each other.
    structures: dict[str, bytes] = field(init=False, default_factory=dict, repr=False)
    # DELIMITER: the marks as the Python engine searches them (_marks_py.py), made as late.
    mark_search: Any = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        lead_size = 0 if self.kind == CUSTOM else self.field_offset - len(self.magic)
        fixed = self.kind in (UINT, DIGITS, BCD, FIXED) and not self.wider
        header_size = self.field_offset + self.field_width if fixed else 0
        kept = self._kept_bytes()
        message_lead = lead_size + len(kept)
        check_size = 0 if self.check is None else self.check.size
        inner_check_size, check_size = (check_size, 0) if self.marks else (0, check_size)
        front = self.check is not None and self.check.position == "front"
        front_check_size = check_size if front else 0
        last_constant = max((pos + len(constant) for pos, constant in self.constants), default=0)
        for own in self.own_bits:
            if own.offset >= self.field_offset + self.field_width:
                last_constant = max(last_constant, own.offset + 1)
        prefix_size = last_constant if last_constant > self.field_offset else 0
        if self.joined is not None and self.joined.head_size > header_size:
            prefix_size = self.joined.head_size
        rest_min = max(0, self.adjustment, self.min_message_size - message_lead)
        rest_max = min(
            self.max_message_size - message_lead, self.field_max * self.unit + self.adjustment
        )
        if self.kind == FIXED:
            rest_min = rest_max = self.size
        message_max = rest_max + message_lead
        if self.joined is not None:
            message_max = self.max_message_size
            stripped = self.joined.strip - self.joined.first_size - message_lead
            rest_max = min(self.joined.rest_max, message_max + stripped)
        extended = self._is_extended()
        special_values = {special: value for value, special in self.specials.items()}
        ends = [self] if self.choice is None else self.choice.layouts
        ends = [layout for layout in ends if layout.marks]
        for name, value in (
            ("byteorder", "little" if self.little else "big"),
            ("lead_size", lead_size),
            ("header_size", header_size),
            ("kept", kept),
            ("message_lead", message_lead),
            ("front_check_size", front_check_size),
            ("end_check_size", check_size - front_check_size),
            ("inner_check_size", inner_check_size),
            ("tail_size", check_size - front_check_size + len(self.trailer)),
            ("longest_header", max(self._longest_header() + front_check_size, prefix_size)),
            (
                "message_prefix",
                max(message_lead, prefix_size - header_size - front_check_size + message_lead),
            ),
            ("prefix_size", prefix_size),
            ("rest_min", max(rest_min, prefix_size - header_size - front_check_size)),
            ("rest_max", rest_max),
            ("message_max", message_max),
            ("special_values", special_values),
            ("canonical", self._is_canonical()),
            ("lower_names", tuple(n.lower().encode() for n in (self.name, *self.names))),
            ("field_start", f"{self.name}: ".encode() if self.kind == HEADERS else b""),
            ("field_end", 2 * self.line_end if self.kind == HEADERS else self.end),
            ("extended", extended),
            ("plain", self.kind == UINT and not (self.field_offset or self.trailer or extended)),
            ("has_marks", bool(ends)),
            ("has_changed_content", any(end.escape or end.kind == COBS for end in ends)),
            ("bytes_are_special", any(isinstance(s, bytes | memoryview) for s in special_values)),
        ):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "quick_range", self._quick_range())
        object.__setattr__(self, "most_owned", self._most_owned())

    def message_position(self, frame_offset: int) -> int:
        """Return where a byte of the lead, the rest, or a kept byte is in the message."""
        if frame_offset < self.field_offset:
            return frame_offset - len(self.magic)
        if self.kept and frame_offset - self.field_offset in self.kept:
            return self.lead_size + self.kept.index(frame_offset - self.field_offset)
        return frame_offset - self.header_size - self.front_check_size + self.message_lead

    def is_special(self, header_size: int, value: int) -> bool:
        """Return whether a field's value means a special object; a wider length never does."""
        if value not in self.specials:
            return False
        return not self.wider or header_size == self.field_offset + self.field_width

    def lead_of(self, data: bytes | bytearray, pos: int) -> bytes:
        """Return the start of the message whose frame begins at `pos`: all before the rest."""
        field_pos = pos + self.field_offset
        lead = bytes(data[pos + len(self.magic) : field_pos])
        if not self.kept:
            return lead
        mask = self.mask.to_bytes(self.field_width, self.byteorder)
        return lead + bytes(data[field_pos + index] & ~mask[index] for index in self.kept)

    def begun_message(self, header: bytes) -> bytes:
        """Return the start of the message that is in a whole header, constants included."""
        begun = header[len(self.magic) :] if self.keep else self.lead_of(header, 0)
        if self.prefix_size:
            begun += header[self.header_size + self.front_check_size : self.prefix_size]
        return self.without_own_bits(begun) if self.own_bits else begun

    def without_own_bits(self, start: bytes) -> bytes:
        """Return a message's start with the bits 0 that belong to the codec."""
        cleared = bytearray(start)
        for own in self.own_bits:
            cleared[self.message_position(own.offset)] &= ~own.mask
        return bytes(cleared)

    def has_constants(self, data: bytes, pos: int) -> bool:
        """Return whether the whole frame at `pos` has the constants."""
        return all(data.startswith(constant, pos + at) for at, constant in self.constants)

    def holds(self, value: int) -> bool:
        """Return whether the length field itself holds a length, without a wider one."""
        if value > self.plain_max or (self.mask and value & ~self.mask):
            return False
        if not self.wider:
            return True
        # No generator expression: CPython 3.12 crashes if there is no memory to make one.
        return value not in [wide.key for wide in self.wider]

    def wide_for(self, value: int) -> Wide | None:
        """Return the narrowest wider field for a length, or None if the length field holds it."""
        if not self.wider or self.holds(value):
            return None
        return next((wide for wide in self.wider if not value >> 8 * wide.width), None)

    def padding(self, frame_size: int) -> int:
        """Return how many bytes follow a frame of a size to align it."""
        return -frame_size % self.align

    def _longest_header(self) -> int:
        if self.kind == CHOICE:
            return self.max_header
        if self.kind in (HEADERS, CUSTOM):
            return len(self.magic) + self.max_header
        if self.kind == TEXT:  # a sign, digits up to the one that is too many, the end mark
            return self.field_offset + 1 + self.max_digits + 1 + len(self.end)
        widest = max((wide.width for wide in self.wider), default=0)
        return self.field_offset + self.field_width + widest

    def _kept_bytes(self) -> tuple[int, ...]:
        if not self.mask:
            return ()
        mask = self.mask.to_bytes(self.field_width, "little" if self.little else "big")
        return tuple(pos for pos, byte in enumerate(mask) if byte != 0xFF)

    def _is_canonical(self) -> bool:
        if self.kind in (BER, HEADERS, CUSTOM, COBS, CHOICE):
            return self.keep  # a message that has all of its frame
        if self.joined is not None:
            return False
        if self.kind == DELIMITER:
            return len(self.marks) == 1 and self._escapes_are_exact()
        is_read_as_written = not (self.leading_zeros or self.trailing_blanks)
        return self.base == 10 and is_read_as_written and self.wider_strict

    def _escapes_are_exact(self) -> bool:
        """Return whether a byte that is escaped never travels as itself inside a message."""
        if not self.escape:
            return True
        first = self.escape[0][1][0]
        keys = {byte for byte, _ in self.escape}
        ends = {mark[0] for mark in self.marks if len(mark) == 1 or mark[0] == first}
        return keys == {first} | ends

    def _is_extended(self) -> bool:
        more = self.constants or self.unit > 1 or self.align > 1 or self.own_bits or self.check
        if self.joined is not None:
            return True
        return bool(self.mask or self.wider or more or self.kind == CHOICE)

    def _most_owned(self) -> int:
        if self.choice is not None:
            most: int = max(layout.most_owned for layout in self.choice.layouts)
            return most
        if self.joined is not None:
            return self.joined.head_size - self.joined.first_size + self.tail_size
        if self.marks:
            owned = len(self.magic) + len(self.marks[0]) + (self.kind == COBS)
            return owned + self.inner_check_size
        width = self.field_width + max((wide.width for wide in self.wider), default=0)
        if self.kind in (TEXT, HEADERS):
            digits = len(str(max(0, sum(self.quick_range))))
            width = len(self.field_start) + digits + len(self.field_end)
        owned = len(self.magic) + width - len(self.kept) + self.front_check_size + self.tail_size
        return owned + self.align - 1

    def _quick_range(self) -> tuple[int, int]:
        """Return ``(low, span)``: the lengths ``low .. low + span`` of ordinary frames.

        Where an end mark ends the message, they are the sizes of the content, check included.
        Each of them declares a rest within the limits whose size fits a C integer, and is not a
        special value, so that the engines' fast path needs one comparison. Specials can leave
        several such ranges: this is the widest one, and the slow path reads all other values. The
        span is -1 if no value is ordinary.
        """
        if self.kind == FIXED:
            return self.size, 0 if self.rest_min <= self.rest_max <= LARGEST_SIZE else -1
        if self.marks:
            least = self.rest_min + self.inner_check_size
            most = min(self.rest_max, LARGEST_SIZE - self.inner_check_size)
            return least, most - self.rest_min
        first = -((self.adjustment - self.rest_min) // self.unit)
        last = (min(self.rest_max, LARGEST_SIZE) - self.adjustment) // self.unit
        low, span = first, -1
        for value in sorted({v for v in self.specials if first <= v <= last} | {last + 1}):
            if value - 1 - first > span:
                low, span = first, value - 1 - first
            first = value + 1
        return low, span


class HasLayout(Protocol):
    """The part of a codec that the engines use."""

    @property
    def layout(self) -> Layout:
        """The description as plain numbers."""


@dataclass(frozen=True, slots=True)
class Described:
    """A layout as a codec, for the engines."""

    layout: Layout


def layout_of(codec: HasLayout) -> Layout:
    """Return a codec's layout.

    Raises:
        TypeError: `codec` is not a codec.
    """
    layout = getattr(codec, "layout", None)
    if not isinstance(layout, Layout):
        raise not_a_codec(codec)
    return layout


_Codec = TypeVar("_Codec")


def plain_codec(codec: _Codec) -> _Codec:
    """Return the codec of the bytes that a codec with objects carries; another codec itself."""
    plain: _Codec = getattr(codec, "_plain", codec)
    return plain


def describe_splitter(splitter: Any, codec: object, detached: bool) -> str:
    """Return the `repr` of a splitter: its codec, how many bytes it holds, and its state."""
    error = splitter.error
    if detached:
        state = "detached"
    elif error is None:
        state = f"{splitter.pending} bytes pending at stream offset {splitter.stream_offset}"
    else:
        state = f"the next call raises {type(error).__name__}, {splitter.pending} bytes pending"
    return f"<Splitter {codec!r}, {state}>"


def not_a_codec(codec: object) -> TypeError:
    """Return the error about an argument that is not a codec."""
    if isinstance(codec, str):
        found = f"the text {codec!r:.80}"
        remedy = f"write framecodec.parse_codec({codec!r:.80})"
    else:
        found = repr(type(codec).__name__)
        remedy = "write framecodec.Codec.uint(4), for example, or framecodec.formats.kafka"
    return TypeError(f"codec must be a framecodec.Codec, not {found}; {remedy}")
