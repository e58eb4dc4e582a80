"""The functions of the formats whose shape needs code: one parse and one build for each.

``parse_x(view)`` reads the first bytes of a frame, ``build_x(message)`` makes the header of a
message; `Codec.custom` describes both. A ValueError of a parse function becomes an
`InvalidFrameError` that quotes it.

The functions are pickled by their names, and so are the codecs that use them: a new name makes old
pickles unreadable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _error_texts
from ._checksums_py import update_reflected

__all__ = [
    "build_cassandra_v5",
    "build_dbus",
    "build_dnp3",
    "build_esphome",
    "build_fastcgi",
    "parse_cassandra_v5",
    "parse_dbus",
    "parse_dnp3",
    "parse_esphome",
    "parse_fastcgi",
]


def _check_lead(message: memoryview, lead_size: int) -> None:
    if len(message) < lead_size:
        raise _error_texts.shorter_than_lead(len(message), lead_size)


def _refuse_what_raises(check: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a check returns; its ValueError says why the message has no frame."""
    try:
        return check(*arguments)
    except ValueError as error:
        raise _error_texts.unsayable_message(str(error)) from None


def _check_size(message: memoryview, limit: int) -> None:
    if len(message) > limit:
        raise _error_texts.message_too_large(len(message), limit, "length field")


# FastCGI, after the version: type, request id (2), content length (2), padding length, reserved.
def parse_fastcgi(view: memoryview) -> tuple[int, int, bytes] | None:
    _check_fastcgi_type(view[0])
    if len(view) < 7:
        return None
    content_size = int.from_bytes(view[3:5], "big")
    return 7, content_size + view[5], bytes(view[:3]) + bytes(view[5:7])


def _check_fastcgi_type(found: int) -> None:
    if not 1 <= found <= 11:
        raise ValueError(f"the type must be 1 to 11, not {found}")


def build_fastcgi(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 5)
    _refuse_what_raises(_check_fastcgi_type, message[0])
    padding_size = message[3]
    content_size = len(message) - 5 - padding_size
    if content_size < 0:
        raise _error_texts.unsayable_message(
            f"it declares {padding_size} bytes of padding, more than it has"
        )
    _check_size(message, 5 + 0xFFFF + padding_size)
    return bytes(message[:3]) + content_size.to_bytes(2, "big") + bytes(message[3:5]), 5


# D-Bus: byte order, type, flags, version, body length (4), serial (4), length of the array of
# header fields (4); then that array, padded to 8 bytes, and the body.
def _dbus_order(first: int) -> Any:
    if first == 0x6C:
        return "little"
    if first == 0x42:
        return "big"
    raise ValueError(f"the byte order must be l or B, not {bytes((first,))!r}")


def _dbus_fields_size(view: memoryview, order: Any) -> int:
    size = int.from_bytes(view, order)
    if size > 1 << 26:
        raise ValueError(f"the header fields have {size} bytes; D-Bus allows {1 << 26}")
    return (size + 7) // 8 * 8


def _check_dbus_header(order: Any, kind: int, version: int, serial: memoryview) -> None:
    if kind == 0:
        raise ValueError("the message type 0 is invalid")
    if version != 1:
        raise ValueError(f"the protocol version must be 1, not {version}")
    if not int.from_bytes(serial, order):
        raise ValueError("the serial number must not be 0")


def parse_dbus(view: memoryview) -> tuple[int, int, bytes] | None:
    order = _dbus_order(view[0])
    if len(view) < 16:
        return None
    _check_dbus_header(order, view[1], view[3], view[8:12])
    rest_size = _dbus_fields_size(view[12:16], order) + int.from_bytes(view[4:8], order)
    return 16, rest_size, bytes(view[:4]) + bytes(view[8:16])


def build_dbus(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 12)
    order = _refuse_what_raises(_dbus_order, message[0])
    _refuse_what_raises(_check_dbus_header, order, message[1], message[3], message[4:8])
    body_size = len(message) - 12 - _refuse_what_raises(_dbus_fields_size, message[8:12], order)
    if body_size < 0:
        raise _error_texts.unsayable_message("it has fewer bytes than its header fields")
    _check_size(message, len(message) - body_size + 0xFFFFFFFF)
    return bytes(message[:4]) + body_size.to_bytes(4, order) + bytes(message[4:12]), 12


# CQL v5: 17 bits of length, the self-contained flag, 6 bits of padding; CRC24; payload; CRC32.
_CASSANDRA_CRC_SIZES = 3 + 4


def _check_crc24(header: bytes, found: memoryview) -> None:
    crc = 0x875060
    for byte in header:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1974F0B
    if crc.to_bytes(3, "little") != found:
        raise ValueError(
            f"the CRC24 of the header is {crc.to_bytes(3, 'little').hex()}, not {found.hex()}"
        )


def parse_cassandra_v5(view: memoryview) -> tuple[int, int, bytes] | None:
    if len(view) < 3:
        return None
    value = int.from_bytes(view[:3], "little")
    if value >> 18:
        raise ValueError("the padding bits of the header are not 0")
    if len(view) < 6:
        return None
    _check_crc24(bytes(view[:3]), view[3:6])
    return 3, (value & 0x1FFFF) + _CASSANDRA_CRC_SIZES, bytes((value >> 17,))


def build_cassandra_v5(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 1 + _CASSANDRA_CRC_SIZES)
    _check_size(message, 1 + _CASSANDRA_CRC_SIZES + 0x1FFFF)
    if message[0] > 1:
        raise _error_texts.unsayable_message(
            f"its first byte must be the self-contained flag, 0 or 1, not {message[0]:#x}"
        )
    size = len(message) - 1 - _CASSANDRA_CRC_SIZES
    header = (message[0] << 17 | size).to_bytes(3, "little")
    _refuse_what_raises(_check_crc24, header, message[1:4])
    return header, 1


# DNP3, after the magic: length (5 and the user data), control, destination (2), source (2), a CRC;
# then the user data in blocks of 16 bytes with a CRC each. The length does not count the CRCs, and
# they are not part of the message: parse checks them, build makes them.
_DNP3_MAGIC = b"\x05\x64"
_DNP3_BLOCK = 16


def _dnp3_crc(data: bytes) -> bytes:
    return (update_reflected(0xA6BC, data, 0) ^ 0xFFFF).to_bytes(2, "little")


def _check_dnp3_crc(data: bytes, found: memoryview) -> None:
    crc = _dnp3_crc(data)
    if crc != found:
        raise ValueError(f"the CRC of a block is {crc.hex()}, not {found.hex()}")


def parse_dnp3(view: memoryview) -> tuple[int, int, bytes] | None:
    if view[0] < 5:
        raise ValueError(f"the length must be at least 5, not {view[0]}")
    if len(view) < 8:
        return None
    _check_dnp3_crc(_DNP3_MAGIC + bytes(view[:6]), view[6:8])
    pos, message, left = 8, bytes(view[1:6]), view[0] - 5
    while left:
        size = min(left, _DNP3_BLOCK)
        block = bytes(view[pos : pos + size])
        if len(view) < pos + size + 2:
            return None
        _check_dnp3_crc(block, view[pos + size : pos + size + 2])
        pos, message, left = pos + size + 2, message + block, left - size
    return pos, 0, message


def build_dnp3(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 5)
    _check_size(message, 255)
    header = bytes((len(message),)) + bytes(message[:5])
    frame = header + _dnp3_crc(_DNP3_MAGIC + header)
    for pos in range(5, len(message), _DNP3_BLOCK):
        block = bytes(message[pos : pos + _DNP3_BLOCK])
        frame += block + _dnp3_crc(block)
    return frame, len(message)


# ESPHome, after the magic 0: the size of the data, the type of the message, both as varints; data.
def _read_varint(view: memoryview, pos: int) -> tuple[int, int] | None:
    """Return the value of a varint and where it ends, or None if its end is not in the view."""
    value = shift = 0
    for at in range(pos, min(len(view), pos + 5)):
        value |= (view[at] & 0x7F) << shift
        shift += 7
        if not view[at] & 0x80:
            if not view[at] and at > pos:
                raise ValueError("a varint is not in its shortest form")
            return value, at + 1
    if len(view) >= pos + 5:
        raise ValueError("a varint does not end within 5 bytes")
    return None


def parse_esphome(view: memoryview) -> tuple[int, int, bytes] | None:
    size = _read_varint(view, 0)
    kind = None if size is None else _read_varint(view, size[1])
    if size is None or kind is None:
        return None
    return kind[1], size[0], bytes(view[size[1] : kind[1]])


def build_esphome(message: memoryview) -> tuple[bytes, int]:
    kind = _refuse_what_raises(_read_varint, message, 0)
    if kind is None:
        raise _error_texts.unsayable_message("it must begin with its type, a varint")
    size, header = len(message) - kind[1], bytearray()
    _check_size(message, kind[1] + 2**35 - 1)
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return bytes(header) + bytes(message[: kind[1]]), kind[1]
