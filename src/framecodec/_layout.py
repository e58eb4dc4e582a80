"""A frame's shape as plain numbers, for the engines.

All arithmetic about a header is done here once, when the codec is made. The engines only compare
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
    "layout_of",
]

# The kinds of length field. The engines have one branch for each.
UINT = 0  # binary, fixed width
DIGITS = 1  # ASCII digits, fixed width
VARINT = 2  # LEB128
TEXT = 3  # ASCII digits up to an end mark
HEADERS = 4  # a block of "Name: value" lines
CUSTOM = 5  # the user's parse() and build()

MAX_VALUE = 2**64 - 1  # the largest value of any length field

# More than any memory, but the sum of two such sizes fits a Py_ssize_t: the compiled engine adds
# sizes of ordinary frames without a check for overflow.
LARGEST_SIZE = sys.maxsize // 2

# Stored for "no limit": more than any 64-bit length with an adjustment can declare.
NO_LIMIT = 2**66

Parse = Callable[[memoryview], Any]
Build = Callable[[memoryview], Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layout:
    """The numbers that an engine copies into its fields and never computes again.

    Sizes are in bytes. A field that a kind does not use has its neutral value.
    """

    kind: int
    magic: bytes = b""
    trailer: bytes = b""
    field_offset: int = 0  # where the length field starts, from the frame's first byte
    field_width: int = 0  # UINT, DIGITS: exact; VARINT: the longest form; others 0
    max_header: int = 0  # HEADERS, CUSTOM: the longest header without the magic
    little: bool = False  # UINT: least significant byte first
    signed: bool = False  # UINT: two's complement, negative values are invalid
    base: int = 10  # DIGITS, TEXT: 10 or 16
    end: bytes = b""  # TEXT: the end mark
    name: str = ""  # HEADERS: the name of the header that holds the length
    adjustment: int = 0  # rest size = field value + adjustment
    counts_frame: bool = False  # the field counts the whole frame; used only in an error's text
    field_max: int = MAX_VALUE  # the largest value that the field can hold
    max_message_size: int = NO_LIMIT
    specials: Mapping[int, Hashable] = field(default_factory=dict)  # field value -> object
    parse: Parse | None = None  # CUSTOM
    build: Build | None = None  # CUSTOM

    # Computed from the fields above, once: a new splitter for every connection only copies them.
    byteorder: Literal["big", "little"] = field(init=False)  # UINT: for `int.from_bytes`
    lead_size: int = field(
        init=False
    )  # bytes between magic and field; CUSTOM: 0, parse() returns it
    header_size: int = field(init=False)  # magic, lead and length field; 0 if the size varies
    rest_min: int = field(init=False)  # the smallest rest; a field's value is never negative
    rest_max: int = field(init=False)  # the largest rest that both the limit and the field allow
    message_max: int = field(init=False)  # the largest message
    special_values: dict[Hashable, int] = field(init=False)  # object -> field value
    bytes_are_special: bool = field(init=False)  # a special object can equal a message
    quick_range: tuple[int, int] = field(init=False)  # see _quick_range
    plain: bool = field(init=False)  # UINT, and nothing in the frame but the field and the rest
    # Each message has one possible frame, the one that the encoder writes.
    canonical: bool = field(init=False)
    # The same as a C structure (_numbers.pxd), made when the compiled engine first needs it.
    numbers: bytes | None = field(init=False, default=None, repr=False)

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
            ("canonical", self.kind < HEADERS and self.base == 10),
            ("plain", self.kind == UINT and not (lead_size or self.magic or self.trailer)),
            ("bytes_are_special", any(isinstance(s, bytes | memoryview) for s in special_values)),
        ):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "quick_range", self._quick_range())

    def _quick_range(self) -> tuple[int, int]:
        """Return ``(low, span)``: the field values ``low .. low + span`` of ordinary frames.

        Each of them declares a rest within the limit whose size fits a C integer, and is not a
        special value, so that the engines' fast path needs one comparison. Specials can leave
        several such ranges: this is the widest one, and the slow path reads all other values. The
        span is -1 if no value is ordinary.
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
    """The part of a codec that the engines use."""

    @property
    def layout(self) -> Layout:
        """The description as plain numbers."""


def layout_of(codec: HasLayout) -> Layout:
    """Return a codec's layout.

    Raises:
        TypeError: `codec` is not a codec.
    """
    layout = getattr(codec, "layout", None)
    if not isinstance(layout, Layout):
        raise TypeError(f"codec must be a framecodec.Codec, not {type(codec).__name__!r}")
    return layout
