"""The parameters of all constructors of `Codec` together, for the types of `Codec.replace`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from ._parameters import CommonParameters

__all__ = ["AnyParameters"]


class AnyParameters(CommonParameters, total=False):
    """The keyword parameters that some constructor takes."""

    specials: Mapping[int, Any] | None
    width: int
    byteorder: Literal["big", "little", "native"]
    signed: bool
    fmt: str
    base: Literal[10, 16, "bcd"]
    max_width: int
    size: int
    end: bytes
    more_ends: tuple[bytes, ...]
    escape: Mapping[bytes, bytes] | None
    skip_empty: bool
    leading_zeros: bool
    trailing_blanks: bool
    max_digits: int
    name: str
    names: Iterable[str]
    line_end: bytes
    lenient: bool
    start_line: bool | bytes | tuple[bytes, ...]
    max_header: int
    parse: Callable[[memoryview], Any]
    build: Callable[[memoryview], Any]
    alternatives: Mapping[Any, Any]
    offset: int
    mask: int
    keep: bool
    tagged: bool
    fragments: Any
    last: tuple[int, int, int] | None
    full: int | None
    strip: int
    keep_first: bool
    counter: int | None
    fragment_size: int | None
    max_fragments: int
