"""A frame's shape as plain numbers: what a codec hands to an engine.

All arithmetic about a header is settled here once, when the codec is made. The engines only compare
and add::

    frame:  [ magic ][ lead ][ length field ][ rest ][ trailer ]
            |                ^ field_offset
            |------- header_size -----------|
    message:         [ lead ]                [ rest ]

    rest size = field value + adjustment
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

__all__ = [
    "CUSTOM",
    "DIGITS",
    "HEADERS",
    "LARGEST_SIZE",
    "MAX_VALUE",
    "NO_LIMIT",
    "TEXT",
    "UINT",
    "VARINT",
    "HasLayout",
    "Layout",
]

# The kinds of length field: one branch each in the engines.
UINT = 0  # binary, fixed width
DIGITS = 1  # ASCII digits, fixed width
VARINT = 2  # LEB128
TEXT = 3  # ASCII digits up to an end mark
HEADERS = 4  # a block of "Name: value" lines
CUSTOM = 5  # the user's parse() and build()

MAX_VALUE = 2**64 - 1  # no length field says more

# Far more than any memory, yet the sum of two such sizes cannot overflow a Py_ssize_t, so that the
# compiled engine adds the sizes of ordinary frames without a thought.
LARGEST_SIZE = sys.maxsize // 2

# What "no limit" means: more than any 64-bit length with an adjustment can declare.
NO_LIMIT = 2**66

Parse = Callable[[memoryview], Any]
Build = Callable[[memoryview], Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layout:
    """The numbers that an engine copies into its own fields and never computes again.

    Sizes are in bytes. What a kind does not use has its neutral value.
    """

    kind: int
    magic: bytes = b""
    trailer: bytes = b""
    field_offset: int = 0  # of the length field, from the frame's first byte
    field_width: int = 0  # UINT, DIGITS: exact; VARINT: the longest form; others 0
    max_header: int = 0  # HEADERS, CUSTOM: the longest header, the magic not counted
    little: bool = False  # UINT: least significant byte first
    signed: bool = False  # UINT: two's complement, negative values are invalid
    base: int = 10  # DIGITS, TEXT: 10 or 16
    end: bytes = b""  # TEXT: the end mark
    name: str = ""  # HEADERS: of the header that holds the length
    adjustment: int = 0  # rest size = field value + adjustment
    counts_frame: bool = False  # the field counts the whole frame; changes only an error's text
    field_max: int = MAX_VALUE  # the largest value that the field can hold
    max_message_size: int = NO_LIMIT
    specials: Mapping[int, Hashable] = field(default_factory=dict)  # field value -> object
    parse: Parse | None = None  # CUSTOM
    build: Build | None = None  # CUSTOM

    # What follows from these, computed once; a splitter is made for every connection.
    byteorder: Literal["big", "little"] = field(init=False)  # UINT: as `int.from_bytes` wants it
    lead_size: int = field(init=False)  # between magic and field; CUSTOM: 0, not known yet
    header_size: int = field(init=False)  # magic, lead and length field; 0 where it varies
    rest_min: int = field(init=False)  # the smallest rest: a field's value is never below 0
    rest_max: int = field(init=False)  # the largest that both the limit and the field allow
    message_max: int = field(init=False)  # the largest message
    special_values: dict[Hashable, int] = field(init=False)  # object -> field value
    bytes_are_special: bool = field(init=False)  # a message of bytes may equal a special object
    quick_range: tuple[int, int] = field(init=False)  # see _quick_range

    def __post_init__(self) -> None:
        lead_size = 0 if self.kind == CUSTOM else self.field_offset - len(self.magic)
        fixed = self.kind in (UINT, DIGITS)
        rest_max = min(self.max_message_size - lead_size, self.field_max + self.adjustment)
        special_values = {special: value for value, special in self.specials.items()}
        for name, value in (
            ("byteorder", "little" if self.little else "big"),
            ("lead_size", lead_size),
            ("header_size", self.field_offset + self.field_width if fixed else 0),
            ("rest_min", max(0, self.adjustment)),
            ("rest_max", rest_max),
            ("message_max", rest_max + lead_size),
            ("special_values", special_values),
            ("bytes_are_special", any(isinstance(s, bytes | memoryview) for s in special_values)),
        ):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "quick_range", self._quick_range())

    def _quick_range(self) -> tuple[int, int]:
        """The field values ``low .. low + span`` that need no second look: ``(low, span)``.

        Their rest is within the limit, its size is a C number, and none of them is special, so that
        the hot loop needs one comparison. With specials it is the widest such range; values beside
        it are not wrong, they take the careful path. The span is -1 where there is none.
        """
        first = self.rest_min - self.adjustment
        last = min(self.rest_max, LARGEST_SIZE) - self.adjustment
        low, span = first, -1
        for value in sorted({v for v in self.specials if first <= v <= last} | {last + 1}):
            if value - 1 - first > span:
                low, span = first, value - 1 - first
            first = value + 1
        return low, span


class HasLayout(Protocol):
    """What an engine wants of a codec."""

    @property
    def layout(self) -> Layout: ...
