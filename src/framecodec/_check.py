"""`Check`: the checksum of a frame, a part of a codec's description.

The functions that have a name run in the engine: `_checksums.pxd`, in Python `_checksums_py.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, NamedTuple

__all__ = ["CHECKSUMS", "COVERS", "Check", "Checksum"]

_LARGEST_WIDTH = 64
_LARGEST_BEFORE = 64


class Checksum(NamedTuple):
    """A function with a name.

    Its value for some bytes is ``update(number, first, bytes) ^ last``; `update` can take the bytes
    in pieces.
    """

    number: int  # the engines' name
    bits: int
    first: int = 0
    last: int = 0


# The engines know them by number. The parameters of the CRCs are those of Greg Cook's catalogue of
# parametrised CRC algorithms.
CHECKSUMS = {
    "crc32": Checksum(0, 32),  # ISO-HDLC: zlib, gzip, Ethernet
    "crc32c": Checksum(1, 32),  # ISCSI: Castagnoli's polynomial
    "adler32": Checksum(2, 32, first=1),  # RFC 1950
    "crc16-modbus": Checksum(3, 16, first=0xFFFF),
    "crc16-xmodem": Checksum(4, 16),
    "crc16-ccitt-false": Checksum(4, 16, first=0xFFFF),  # also called IBM-3740
    "crc16-x25": Checksum(5, 16, first=0xFFFF, last=0xFFFF),  # also called IBM-SDLC
    "crc8": Checksum(6, 8),  # SMBUS: polynomial 0x07
    "sum8": Checksum(7, 8),
    "xor8": Checksum(8, 8),
    "fletcher16": Checksum(9, 16),  # RFC 1146's algorithm with sums modulo 255
}

COVERS = ("message", "rest", "body", "frame")


@dataclass(frozen=True, slots=True, repr=False)
class Check:
    """A checksum of each frame: where it is, how it is computed, of which bytes.

    It is written by ``encode`` and verified before a message is delivered. A frame whose check is
    wrong is a `ChecksumError`. Where the length counts the rest, it does not count the check::

        end:    [ magic ][ lead ][ length field ][ rest ][ check ][ trailer ]
        front:  [ magic ][ lead ][ length field ][ check ][ rest ][ trailer ]

    Args:
        function: A function of a bytes-like object that returns an int, of which the low bytes (or
            digits) are kept; or one of the names ``"crc32"``, ``"crc32c"``, ``"adler32"``,
            ``"crc16-modbus"``, ``"crc16-xmodem"``, ``"crc16-ccitt-false"``, ``"crc16-x25"``,
            ``"crc8"``, ``"sum8"``, ``"xor8"``, ``"fletcher16"``, which are much faster.
        width: Bytes of the check, 1 to 64; with `digits` its digits.
        byteorder: "big", "little", or "native" for the order of this machine.
        covers: What it is computed of: ``"message"``, ``"rest"`` (the bytes after the length
            field), ``"body"`` (all bytes after the magic up to the check, the length field
            included) or ``"frame"`` (the same with the magic).
        position: ``"end"``, or ``"front"`` for the first bytes after the length field; then it
            covers the rest, which follows it.
        before: Constant bytes before it, which it does not cover.
        digits: It is written as decimal digits, with leading zeros.

    Raises:
        ValueError, TypeError: The description contradicts itself or cannot be represented.
    """

    function: str | Callable[[Any], int]
    width: int
    byteorder: Literal["big", "little", "native"] = "big"
    _: KW_ONLY
    covers: Literal["message", "rest", "body", "frame"] = "message"
    position: Literal["front", "end"] = "end"
    before: bytes = b""
    digits: bool = False

    def __post_init__(self) -> None:
        self._check_choices()
        width, before = self.width, self.before
        if not isinstance(width, int) or isinstance(width, bool):
            raise TypeError(f"width must be an int, not {width!r}")
        if not 1 <= width <= _LARGEST_WIDTH:
            raise ValueError(f"width must be from 1 to {_LARGEST_WIDTH}, not {width}")
        if not isinstance(before, bytes | bytearray | memoryview):
            raise TypeError(f"before must be bytes, not {before!r}")
        if len(before) > _LARGEST_BEFORE:
            raise ValueError(f"before can have at most {_LARGEST_BEFORE} bytes, not {len(before)}")
        object.__setattr__(self, "width", int(width))
        object.__setattr__(self, "before", bytes(before))
        if isinstance(self.function, str):
            self._check_named(self.function)
        elif not callable(self.function):
            raise TypeError(f"function must be a name or callable, not {self.function!r}")
        elif not isinstance(self.function, Hashable):
            raise TypeError(
                f"function must be hashable, because a check is; {self.function!r} is not"
            )

    def _check_choices(self) -> None:
        for name, allowed in (
            ("byteorder", ("big", "little", "native")),
            ("covers", COVERS),
            ("position", ("front", "end")),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                choices = ", ".join(f'"{choice}"' for choice in allowed)
                raise ValueError(f"{name} must be one of {choices}, not {value!r}")
        if not isinstance(self.digits, bool):
            raise TypeError(f"digits must be a bool, not {self.digits!r}")
        if self.digits and self.byteorder != "big":
            raise ValueError(
                f'byteorder="{self.byteorder}" has no meaning for digits; remove one of them'
            )
        if self.position == "front" and self.covers in ("body", "frame"):
            raise ValueError(
                f'covers="{self.covers}" ends before the check, and position="front" puts the check'
                " before what it covers; remove one of them"
            )

    def _check_named(self, name: str) -> None:
        checksum = CHECKSUMS.get(name)
        if checksum is None:
            raise ValueError(
                f"function must be callable or one of {', '.join(CHECKSUMS)}, not {name!r}"
            )
        if self.digits:
            least = len(str(2**checksum.bits - 1))
            if self.width < least:
                raise ValueError(
                    f"width={self.width} is too small: {name} has up to {least} decimal digits"
                )
        elif self.width != checksum.bits // 8:
            raise ValueError(
                f"width={self.width} does not fit {name}, which has {checksum.bits // 8} bytes"
            )

    @property
    def size(self) -> int:
        """Bytes in the frame: the check and what is before it."""
        return len(self.before) + self.width

    def __repr__(self) -> str:
        function = self.function
        shown = getattr(function, "__qualname__", None) or repr(function)
        arguments = [shown, repr(self.width)]
        for parameter in fields(self)[2:]:
            value = getattr(self, parameter.name)
            if value != parameter.default:
                arguments.append(f"{parameter.name}={value!r}")
        return f"Check({', '.join(arguments)})"
