"""The checksums that have a name, in Python; `_checksums.pxd` has the same functions in C."""

from __future__ import annotations

import binascii
import functools
import itertools
import operator
import zlib
from collections.abc import Callable

__all__ = ["update_checksum", "update_reflected"]


def update_checksum(number: int, state: int, data: bytes | bytearray | memoryview, /) -> int:
    """Return the state of a checksum after more bytes.

    Args:
        number: The number of the function, as in `framecodec._check.CHECKSUMS`.
        state: The state before them.
        data: The bytes.
    """
    return _UPDATES[number](data, state)


@functools.cache
def _reflected_table(polynomial: int) -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    return table


@functools.cache
def _crc8_table() -> list[int]:
    return [
        functools.reduce(lambda v, _: (v << 1 ^ (7 if v & 128 else 0)) & 255, range(8), byte)
        for byte in range(256)
    ]


def _update_crc8(data: bytes | bytearray | memoryview, state: int) -> int:
    table = _crc8_table()
    for byte in data:
        state = table[state ^ byte]
    return state


def _update_crc32c(data: bytes | bytearray | memoryview, state: int) -> int:
    return update_reflected(0x82F63B78, data, state ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def update_reflected(polynomial: int, data: bytes | bytearray | memoryview, state: int) -> int:
    """Return the remainder of a CRC after more bytes, whose lowest bits come first.

    Args:
        polynomial: Without its highest term, its bits reflected.
        data: The bytes.
        state: The remainder before them.
    """
    table = _reflected_table(polynomial)
    for byte in data:
        state = state >> 8 ^ table[(state ^ byte) & 0xFF]
    return state


def _update_sum8(data: bytes | bytearray | memoryview, state: int) -> int:
    return (state + sum(data)) & 0xFF


def _update_xor8(data: bytes | bytearray | memoryview, state: int) -> int:
    return functools.reduce(operator.xor, data, state)


def _update_fletcher16(data: bytes | bytearray | memoryview, state: int) -> int:
    first, second = state & 0xFF, state >> 8
    second += sum(itertools.accumulate(data, initial=first)) - first
    return (first + sum(data)) % 255 | second % 255 << 8


# By number, as in CHECKSUMS.
_UPDATES: list[Callable[[bytes | bytearray | memoryview, int], int]] = [
    zlib.crc32,
    _update_crc32c,
    zlib.adler32,
    functools.partial(update_reflected, 0xA001),
    binascii.crc_hqx,
    functools.partial(update_reflected, 0x8408),
    _update_crc8,
    _update_sum8,
    _update_xor8,
    _update_fletcher16,
]
