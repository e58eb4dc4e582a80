"""The protocols that the world uses, as a table; and the notation, a codec in one line of text.

A row of the table is data: a name, the shape, one line about the message, and the document that the
shape is from. Rules of the table:

* A message is its frame without the parts that the codec owns, as everywhere. What stands ahead of
  the length field (a type byte, flags) is the message's first bytes; so are checksums, wherever
  they stand: a codec knows a shape, not what the bytes mean.
* Authentication, compression, greetings ahead of the first frame and what a flag asks for are the
  protocol's business, not the shape's.
* ``max_message_size`` is the specification's where that fixes one of up to 64 MiB for everyone;
  else it is the library's usual 16 MiB, and ``codec.replace(max_message_size=...)`` changes it.
* One frame is one message. Fragments that make up a larger whole (``mysql``, ``oncrpc-fragment``,
  ``zmtp``, ``websocket``, ``cassandra-v5``) are joined by the user, by flags in the message.

The notation is ``HEAD[,key=value]...``, as the command line takes it::

    u8 u16be u24le u32native i32be     Codec.uint: u or i for signed, bits, byte order
    digits4 hex4                       Codec.digits, base 10 or 16
    struct:!I                          Codec.struct
    varint text headers                Codec.varint, Codec.text, Codec.headers
    postgres                           a name of the catalogue
"""

from __future__ import annotations

import ast
import difflib
import enum
import re
import struct
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, final

from . import errors
from .codec import Codec

__all__ = ["Catalogue", "Format", "PktLine", "format_codec", "formats", "parse_codec"]


class PktLine(enum.Enum):
    """The pkt-lines of git that are no data (gitprotocol-common(5), gitprotocol-v2(5))."""

    FLUSH = 0
    """``0000``: the end of a message."""
    DELIM = 1
    """``0001``: the end of a section."""
    RESPONSE_END = 2
    """``0002``: the end of a response, in stateless connections."""

    def __repr__(self) -> str:
        return f"formats.PktLine.{self.name}"


class Format(NamedTuple):
    """A row of the catalogue."""

    name: str
    codec: Codec
    description: str
    """One line: what it is, and what a message holds besides its data."""
    specification: str
    """Where the shape is laid down: a document, and its section."""


@final
class Catalogue(Mapping[str, Codec]):
    """Known protocols by name: ``formats["kafka"]``, ``formats.kafka``, ``formats.pkt_line``.

    A mapping from names to codecs. A name that is no identifier is an attribute with ``_`` for
    ``-``; one that starts with a digit (``9p``) is had by its name alone.

    Args:
        rows: The formats; no name twice.
    """

    __slots__ = ("_formats", "_names")

    PktLine = PktLine
    """What ``formats.pkt_line`` delivers for the pkt-lines that are no data."""

    def __init__(self, rows: Iterable[Format]) -> None:
        self._formats: dict[str, Format] = {}
        self._names: dict[str, str] = {}  # attribute -> name
        for row in rows:
            if row.name in self._formats:
                raise ValueError(f"two formats of the name {row.name!r}")
            self._formats[row.name] = row
            self._names[row.name.replace("-", "_")] = row.name

    def __getitem__(self, name: str) -> Codec:
        return self.describe(name).codec

    def __iter__(self) -> Iterator[str]:
        return iter(self._formats)

    def __len__(self) -> int:
        return len(self._formats)

    def __contains__(self, name: object) -> bool:
        return name in self._formats

    def __getattr__(self, attribute: str) -> Codec:
        if attribute.startswith("_"):  # also while unpickling, when there are no names yet
            raise AttributeError(attribute)
        try:
            return self._formats[self._names[attribute]].codec
        except KeyError:
            hint = _did_you_mean(attribute, self._names)
            raise AttributeError(f"no format {attribute!r} in the catalogue{hint}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *filter(str.isidentifier, self._names)})

    def __repr__(self) -> str:
        return f"<Catalogue of {len(self)} formats>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Catalogue, (self.table(),)

    def describe(self, name: str) -> Format:
        """The row of a name: name, codec, description and specification.

        Raises:
            KeyError: There is no such name; names near to it are given.
        """
        try:
            return self._formats[name]
        except KeyError:
            hint = _did_you_mean(name, self._formats)
            raise KeyError(f"no format {name!r} in the catalogue{hint}") from None

    def table(self) -> list[Format]:
        """All rows, in the order of the catalogue."""
        return list(self._formats.values())


def _did_you_mean(wrong: object, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(wrong).lower(), list(names), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


# --- shapes that only code can read ---------------------------------------------------------------
#
# parse(view) sees the first bytes of a frame, build(message) sees a whole message; see
# `Codec.custom`. What parse() raises becomes an InvalidFrameError that quotes it.

_INT32 = struct.Struct("!i")
_UINT64 = struct.Struct("!Q")


def _check_lead(message: memoryview, lead_size: int) -> None:
    if len(message) < lead_size:
        raise errors.shorter_than_lead(len(message), lead_size)


def _check_size(message: memoryview, limit: int) -> None:
    if len(message) > limit:
        raise errors.message_too_large(len(message), limit, "length field")


def _parse_multiprocessing(view: memoryview) -> tuple[int, int] | None:
    if len(view) < 4:
        return None
    (size,) = _INT32.unpack_from(view)
    if size >= 0:
        return 4, size
    if size != -1:
        raise ValueError(f"the length is negative: {size}")
    return (12, _UINT64.unpack_from(view, 4)[0]) if len(view) >= 12 else None


def _build_multiprocessing(message: memoryview) -> bytes:
    if len(message) > 0x7FFFFFFF:
        return _INT32.pack(-1) + _UINT64.pack(len(message))
    return _INT32.pack(len(message))


def _parse_oncrpc_fragment(view: memoryview) -> tuple[int, int, bytes] | None:
    if len(view) < 4:
        return None
    value = int.from_bytes(view[:4], "big")
    return 4, value & 0x7FFFFFFF, b"\x80" if value >> 31 else b"\x00"


def _build_oncrpc_fragment(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 1)
    _check_size(message, 0x80000000)
    if message[0] not in (0x00, 0x80):
        raise errors.unsayable_message(
            f"its first byte says whether the fragment is the last: 0x80 or 0, not {message[0]:#x}"
        )
    return (message[0] << 24 | len(message) - 1).to_bytes(4, "big"), 1


# ZMTP: a flags byte (MORE 1, LONG 2, COMMAND 4), then 1 or, with LONG, 8 bytes of length.
_ZMTP_LONG = 0x02


def _parse_zmtp(view: memoryview) -> tuple[int, int, bytes] | None:
    flags = view[0]
    if flags not in (0, 1, 2, 3, 4, 6):
        raise ValueError(f"flags {flags:#04x} are reserved")
    lead = bytes((flags & ~_ZMTP_LONG,))
    if not flags & _ZMTP_LONG:
        return (2, view[1], lead) if len(view) >= 2 else None
    if len(view) < 9:
        return None
    (size,) = _UINT64.unpack_from(view, 1)
    if size >> 63:
        raise ValueError("the length has more than 63 bits")
    return 9, size, lead


def _build_zmtp(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 1)
    flags, size = message[0], len(message) - 1
    if flags not in (0, 1, 4):
        raise errors.unsayable_message(
            f"it opens with its flags: 0, 1 (more) or 4 (command), not {flags:#x}"
        )
    if size < 256:
        return bytes((flags, size)), 1
    return bytes((flags | _ZMTP_LONG,)) + _UINT64.pack(size), 1


# WebSocket: FIN and opcode, then the mask bit with 7 bits of length; 126 and 127 announce 2 and 8
# more bytes of length. The mask bit, alone in its byte, is the message's second one.
def _parse_websocket(view: memoryview) -> tuple[int, int, bytes] | None:
    if len(view) < 2:
        return None
    masked, size, header_size = view[1] & 0x80, view[1] & 0x7F, 2
    if size >= 126:
        width, least = (2, 126) if size == 126 else (8, 1 << 16)
        header_size += width
        if len(view) < header_size:
            return None
        size = int.from_bytes(view[2:header_size], "big")
        if size < least:
            raise ValueError(f"the length {size} is not in its shortest form")
        if size >> 63:
            raise ValueError("the length has more than 63 bits")
    return header_size, size + (4 if masked else 0), bytes((view[0], masked))


def _build_websocket(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 2)
    masked = message[1]
    if masked not in (0, 0x80):
        raise errors.unsayable_message(
            f"its second byte is the mask bit: 0 or 0x80, not {masked:#x}"
        )
    size = len(message) - (6 if masked else 2)
    if size < 0:
        raise errors.unsayable_message("it is masked, but has no 4-byte masking key")
    if size < 126:
        return bytes((message[0], masked | size)), 2
    if size < 1 << 16:
        return bytes((message[0], masked | 126)) + size.to_bytes(2, "big"), 2
    return bytes((message[0], masked | 127)) + size.to_bytes(8, "big"), 2


# FastCGI, behind the version: type, request id (2), content length (2), padding length, reserved.
def _parse_fastcgi(view: memoryview) -> tuple[int, int, bytes] | None:
    if len(view) < 7:
        return None
    content_size = int.from_bytes(view[3:5], "big")
    return 7, content_size + view[5], bytes(view[:3]) + bytes(view[5:7])


def _build_fastcgi(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 5)
    padding_size = message[3]
    content_size = len(message) - 5 - padding_size
    if content_size < 0:
        raise errors.unsayable_message(
            f"it announces {padding_size} bytes of padding, more than it has"
        )
    _check_size(message, 5 + 0xFFFF + padding_size)
    return bytes(message[:3]) + content_size.to_bytes(2, "big") + bytes(message[3:5]), 5


# GIOP, behind the magic: version (2), flags, type, length (4). Bit 0 of the flags: little-endian.
def _parse_giop(view: memoryview) -> tuple[int, int, bytes] | None:
    if len(view) < 8:
        return None
    return 8, int.from_bytes(view[4:8], "little" if view[2] & 1 else "big"), bytes(view[:4])


def _build_giop(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 4)
    _check_size(message, 4 + 0xFFFFFFFF)
    size = len(message) - 4
    return bytes(message[:4]) + size.to_bytes(4, "little" if message[2] & 1 else "big"), 4


# D-Bus: byte order, type, flags, version, body length (4), serial (4), length of the array of
# header fields (4); then that array, padded to 8 bytes, and the body.
def _dbus_order(first: int) -> Any:
    if first == 0x6C:
        return "little"
    if first == 0x42:
        return "big"
    raise ValueError(f"the byte order is l or B, not {bytes((first,))!r}")


def _dbus_fields_size(view: memoryview, order: Any) -> int:
    size = int.from_bytes(view, order)
    if size > 1 << 26:
        raise ValueError(f"{size} bytes of header fields; D-Bus allows {1 << 26}")
    return (size + 7) // 8 * 8


def _parse_dbus(view: memoryview) -> tuple[int, int, bytes] | None:
    order = _dbus_order(view[0])
    if len(view) < 16:
        return None
    rest_size = _dbus_fields_size(view[12:16], order) + int.from_bytes(view[4:8], order)
    return 16, rest_size, bytes(view[:4]) + bytes(view[8:16])


def _build_dbus(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 12)
    try:
        order = _dbus_order(message[0])
        body_size = len(message) - 12 - _dbus_fields_size(message[8:12], order)
    except ValueError as error:
        raise errors.unsayable_message(str(error)) from None
    if body_size < 0:
        raise errors.unsayable_message("it has fewer bytes than its header fields")
    _check_size(message, len(message) - body_size + 0xFFFFFFFF)
    return bytes(message[:4]) + body_size.to_bytes(4, order) + bytes(message[4:12]), 12


# BER: an identifier of one byte, or more where its low 5 bits are all set; then the length: 0 to
# 127, or 0x80 + n and n bytes. Longer forms than needed are legal BER (and common in LDAP).
_BER_LONGEST_IDENTIFIER = 6


def _ber_identifier_size(view: memoryview) -> int:
    """Bytes of the identifier; 0 where more are wanted."""
    if not view or view[0] & 0x1F != 0x1F:
        return len(view[:1])
    for pos in range(1, min(len(view), _BER_LONGEST_IDENTIFIER)):
        if not view[pos] & 0x80:
            return pos + 1
    if len(view) >= _BER_LONGEST_IDENTIFIER:
        raise ValueError(f"the identifier does not end within {_BER_LONGEST_IDENTIFIER} bytes")
    return 0


def _parse_ber(view: memoryview) -> tuple[int, int, bytes] | None:
    pos = _ber_identifier_size(view)
    if not pos or pos == len(view):
        return None
    lead, first = bytes(view[:pos]), view[pos]
    pos += 1
    if first < 0x80:
        return pos, first, lead
    if first == 0x80:
        raise ValueError("the length has the indefinite form")
    width = first & 0x7F
    if width > 8:
        raise ValueError("the length has more than 64 bits")
    if len(view) < pos + width:
        return None
    return pos + width, int.from_bytes(view[pos : pos + width], "big"), lead


def _build_ber(message: memoryview) -> tuple[bytes, int]:
    try:
        lead_size = _ber_identifier_size(message)
    except ValueError as error:
        raise errors.unsayable_message(str(error)) from None
    if not lead_size:
        raise errors.shorter_than_lead(len(message), len(message) + 1)
    size = len(message) - lead_size
    lead = bytes(message[:lead_size])
    if size < 0x80:
        return lead + bytes((size,)), lead_size
    width = (size.bit_length() + 7) // 8
    return lead + bytes((0x80 | width,)) + size.to_bytes(width, "big"), lead_size


# X11: opcode, a data byte, the whole request's length in units of 4 bytes (2); where that is 0, it
# follows in 4 bytes (BIG-REQUESTS). The byte order is the client's choice; this is little-endian.
def _parse_x11(view: memoryview) -> tuple[int, int, bytes] | None:
    if len(view) < 4:
        return None
    units = int.from_bytes(view[2:4], "little")
    if units:
        return 4, 4 * units - 4, bytes(view[:2])
    if len(view) < 8:
        return None
    units = int.from_bytes(view[4:8], "little")
    if units < 2:
        raise ValueError(f"a length of {units} units is too small for its request")
    return 8, 4 * units - 8, bytes(view[:2])


def _build_x11(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 2)
    rest_size = len(message) - 2
    if rest_size % 4:
        raise errors.unsayable_message(f"{rest_size} bytes behind the length are no multiple of 4")
    units = rest_size // 4 + 1
    if units <= 0xFFFF:
        return bytes(message[:2]) + units.to_bytes(2, "little"), 2
    _check_size(message, 2 + 4 * (0xFFFFFFFF - 2))
    return bytes(message[:2]) + b"\x00\x00" + (units + 1).to_bytes(4, "little"), 2


# CQL v5: 17 bits of length, the self-contained flag, 6 bits of padding; CRC24; payload; CRC32.
_CASSANDRA_CRC_SIZES = 3 + 4


def _parse_cassandra_v5(view: memoryview) -> tuple[int, int, bytes] | None:
    if len(view) < 3:
        return None
    value = int.from_bytes(view[:3], "little")
    if value >> 18:
        raise ValueError("the padding bits of the header are not 0")
    return 3, (value & 0x1FFFF) + _CASSANDRA_CRC_SIZES, bytes((value >> 17,))


def _build_cassandra_v5(message: memoryview) -> tuple[bytes, int]:
    _check_lead(message, 1 + _CASSANDRA_CRC_SIZES)
    _check_size(message, 1 + _CASSANDRA_CRC_SIZES + 0x1FFFF)
    if message[0] > 1:
        raise errors.unsayable_message(
            f"its first byte is the self-contained flag, 0 or 1, not {message[0]:#x}"
        )
    size = len(message) - 1 - _CASSANDRA_CRC_SIZES
    return (message[0] << 17 | size).to_bytes(3, "little"), 1


# --- the catalogue --------------------------------------------------------------------------------

_BER = Codec.custom(_parse_ber, _build_ber, max_header=_BER_LONGEST_IDENTIFIER + 9)

formats = Catalogue(
    Format(*row)
    for row in (
        # Plain lengths.
        (
            "ascii4",
            Codec.digits(4),
            "four decimal digits: 0005hello",
            "none; str(n).zfill(4), and ISO 8583 links by agreement",
        ),
        (
            "struct-i",
            Codec.struct("i"),
            "struct.pack('i', n): an int as this machine has it",
            "Python library reference, struct, 'Format Characters'",
        ),
        (
            "netstring",
            Codec.text(b":", trailer=b","),
            "decimal digits, a colon, a comma behind: 5:hello,",
            "D. J. Bernstein, Netstrings (1997-02-01)",
        ),
        (
            "protobuf",
            Codec.varint(),
            "protobuf messages behind a varint (writeDelimitedTo, protodelim)",
            "Protocol Buffers, Encoding, 'Base 128 Varints'; 'Techniques', streaming",
        ),
        ("erlang1", Codec.uint(1), "{packet, 1}", "Erlang/OTP, inet:setopts/2, option packet"),
        ("erlang2", Codec.uint(2), "{packet, 2}", "Erlang/OTP, inet:setopts/2, option packet"),
        ("erlang4", Codec.uint(4), "{packet, 4}", "Erlang/OTP, inet:setopts/2, option packet"),
        (
            "iso8583",
            Codec.uint(2),
            "card payment links with a binary length (ascii4 for the one in digits)",
            "none; ISO 8583 leaves the link to the partners",
        ),
        (
            "multiprocessing",
            Codec.custom(_parse_multiprocessing, _build_multiprocessing, max_header=12),
            "multiprocessing.connection: an int, or -1 and 8 bytes from 2 GiB up",
            "CPython, Lib/multiprocessing/connection.py, Connection._send_bytes",
        ),
        (
            "native-messaging",
            Codec.uint(4, "native"),
            "browser extensions to their hosts; to the browser at most 1 MiB",
            "Chrome for Developers, Native messaging, 'Native messaging protocol'",
        ),
        # Remote procedure calls and logs.
        (
            "kafka",
            Codec.uint(4, signed=True),
            "requests and responses",
            "Apache Kafka, Protocol Guide, 'Protocol Primitive Types' and 'Common Structure'",
        ),
        (
            "thrift",
            Codec.uint(4, signed=True, max_message_size=16_384_000),
            "the framed transport",
            "Apache Thrift, thrift-rpc.md, 'Framed vs. unframed transport'",
        ),
        (
            "grpc",
            Codec.uint(4, length_offset=1),
            "compressed flag, then the message; inside HTTP/2 data",
            "gRPC over HTTP2, 'Length-Prefixed-Message'",
        ),
        (
            "oncrpc",
            # The top bit, set in the last fragment of a record, is part of the number.
            Codec.uint(4, length_adjustment=-(2**31)),
            "records of one fragment (NFS, rpcbind); several are refused, see oncrpc-fragment",
            "RFC 5531, section 11",
        ),
        (
            "oncrpc-fragment",
            Codec.custom(_parse_oncrpc_fragment, _build_oncrpc_fragment, max_header=4),
            "fragments of records: 0x80 for the last one or 0, then its bytes",
            "RFC 5531, section 11",
        ),
        (
            "syslog",
            Codec.text(b" "),
            "octet counting, over TCP or TLS",
            "RFC 6587, section 3.4.1; RFC 5425, section 4.3",
        ),
        (
            "lsp",
            Codec.headers(),
            "language servers: Content-Length header, JSON",
            "Language Server Protocol 3.17, 'Base Protocol'",
        ),
        (
            "dap",
            Codec.headers(),
            "debug adapters: Content-Length header, JSON",
            "Debug Adapter Protocol, 'Base protocol'",
        ),
        (
            "giop",
            Codec.custom(_parse_giop, _build_giop, max_header=8, magic=b"GIOP"),
            "CORBA: version (2), flags, type, body; bit 0 of the flags is the byte order",
            "OMG CORBA 3.3, part 2, section 9.4.1",
        ),
        (
            "dbus",
            Codec.custom(_parse_dbus, _build_dbus, max_header=16),
            "order, type, flags, version, serial, length of the fields, fields, body",
            "D-Bus Specification, 'Message Format'",
        ),
        # Databases and caches.
        (
            "postgres",
            Codec.uint(4, signed=True, length_offset=1, length_adjustment=-4),
            "type byte, body; after the startup",
            "PostgreSQL documentation, 'Frontend/Backend Protocol', 'Message Formats'",
        ),
        (
            "postgres-startup",
            Codec.uint(4, signed=True, length_includes="frame", max_message_size=10_000),
            "a connection's first message: StartupMessage, SSLRequest, CancelRequest",
            "PostgreSQL documentation, 'Frontend/Backend Protocol', 'Message Formats'",
        ),
        (
            "mysql",
            Codec.uint(3, "little", length_adjustment=1),
            "sequence number, payload; one of 0xFFFFFF bytes goes on in the next packet",
            "MySQL Source Code Documentation, 'Client/Server Protocol', 'MySQL Packets'",
        ),
        (
            "mongodb",
            Codec.uint(
                4, "little", signed=True, length_includes="frame", max_message_size=48_000_000
            ),
            "request id, response to, opcode (4 bytes each), body",
            "MongoDB manual, 'MongoDB Wire Protocol', 'Standard Message Header'",
        ),
        (
            "cassandra",
            Codec.uint(4, signed=True, length_offset=5),
            "version, flags, stream (2), opcode, body; CQL v3 and v4",
            "CQL Binary Protocol v4, section 2",
        ),
        (
            "cassandra-v5",
            Codec.custom(_parse_cassandra_v5, _build_cassandra_v5, max_header=3),
            "self-contained flag (0 or 1), CRC24, payload, CRC32; CQL v5, uncompressed",
            "CQL Binary Protocol v5, section 2",
        ),
        (
            "resp-bulk",
            Codec.text(b"\r\n", magic=b"$", trailer=b"\r\n", specials={-1: None}),
            "bulk strings of Redis; $-1 is None",
            "Redis documentation, 'Redis serialization protocol specification', 'Bulk strings'",
        ),
        (
            "memcached",
            Codec.uint(4, length_offset=8, length_adjustment=12),
            "the binary protocol: magic 0x80 or 0x81 and 7 bytes more, opaque (4), CAS (8), body",
            "memcached, BinaryProtocolRevamped, 'Packet Structure'",
        ),
        (
            "tds",
            Codec.uint(2, length_offset=2, length_includes="frame"),
            "SQL Server: type, status, SPID (2), packet id, window, data",
            "MS-TDS, section 2.2.3.1",
        ),
        # Messaging.
        (
            "amqp",
            Codec.uint(4, length_offset=3, trailer=b"\xce"),
            "AMQP 0-9-1 (RabbitMQ), after the protocol header: type, channel (2), payload",
            "AMQP 0-9-1, section 4.2.3",
        ),
        (
            "amqp1",
            Codec.uint(4, length_includes="frame"),
            "AMQP 1.0, after the protocol header: data offset, type, channel (2), body",
            "OASIS AMQP 1.0, part 2, section 2.3.1",
        ),
        (
            "mqtt",
            Codec.varint(max_width=4, length_offset=1),
            "type and flags, then the packet",
            "MQTT 5.0, section 2.1; MQTT 3.1.1, section 2.2",
        ),
        (
            "zmtp",
            Codec.custom(_parse_zmtp, _build_zmtp, max_header=9),
            "ZeroMQ, after the greeting: flags (more 1, command 4), body",
            "ZeroMQ RFC 23 (ZMTP 3.0), 'Framing'; RFC 37 (ZMTP 3.1)",
        ),
        (
            "smpp",
            Codec.uint(4, length_includes="frame"),
            "command id, status, sequence number (4 bytes each), body",
            "SMPP 3.4, section 3.2",
        ),
        (
            "stun",
            Codec.uint(2, length_offset=2, length_adjustment=16),
            "over TCP: type (2), cookie (4), transaction id (12), attributes",
            "RFC 8489, sections 5 and 6.2.2",
        ),
        (
            "diameter",
            Codec.uint(3, magic=b"\x01", length_includes="frame"),
            "flags, command code (3), application id and two ids more (4 each), AVPs",
            "RFC 6733, section 3",
        ),
        (
            "radius",
            Codec.uint(2, length_offset=2, length_includes="frame", max_message_size=4094),
            "over TCP or TLS: code, identifier, authenticator (16), attributes",
            "RFC 2865, section 3; RFC 6613, section 2.6",
        ),
        (
            "ldap",
            _BER,
            "LDAP messages: the tag 0x30, then the contents",
            "RFC 4511, section 5.1",
        ),
        (
            "ber",
            _BER,
            "ASN.1 values: identifier, contents; any definite length (SNMP over TCP, Kerberos)",
            "ITU-T X.690, section 8.1",
        ),
        # The web.
        (
            "tls",
            Codec.uint(2, length_offset=3, max_message_size=3 + 2**14 + 2048),
            "records: type, version (2), fragment",
            "RFC 8446, section 5.1; RFC 5246, section 6.2",
        ),
        (
            "http2",
            Codec.uint(3, length_adjustment=6, max_message_size=6 + 2**24 - 1),
            "after the preface: type, flags, stream (4), payload",
            "RFC 9113, section 4.1",
        ),
        (
            "http-chunk",
            Codec.text(b"\r\n", base=16, trailer=b"\r\n"),
            "chunks without extensions; an empty one is the end, without trailer fields",
            "RFC 9112, section 7.1",
        ),
        (
            "websocket",
            Codec.custom(_parse_websocket, _build_websocket, max_header=10),
            "FIN and opcode, mask bit (0x80 or 0), masking key (4) if masked, payload",
            "RFC 6455, section 5.2",
        ),
        (
            "fastcgi",
            Codec.custom(_parse_fastcgi, _build_fastcgi, max_header=7, magic=b"\x01"),
            "type, request id (2), padding length, reserved, content, padding",
            "FastCGI Specification 1.0, section 3.3",
        ),
        (
            "uwsgi",
            Codec.uint(2, "little", length_offset=1, length_adjustment=1),
            "modifier1, modifier2, variables",
            "uWSGI documentation, 'The uwsgi Protocol'",
        ),
        # Networks.
        (
            "dns",
            Codec.uint(2),
            "over TCP and TLS",
            "RFC 1035, section 4.2.2; RFC 7858, section 3.3",
        ),
        ("rtp", Codec.uint(2), "RTP and RTCP over a stream", "RFC 4571, section 2"),
        (
            "rtsp",
            Codec.uint(2, magic=b"$", length_offset=2),
            "interleaved binary data: channel, data; requests and responses are text",
            "RFC 7826, section 14; RFC 2326, section 10.12",
        ),
        (
            "bgp",
            Codec.uint(2, magic=b"\xff" * 16, length_includes="frame", max_message_size=4096 - 18),
            "type, body",
            "RFC 4271, section 4.1",
        ),
        (
            "bmp",
            Codec.uint(4, magic=b"\x03", length_includes="frame"),
            "BGP monitoring: type, data",
            "RFC 7854, section 4.1",
        ),
        (
            "rpki-rtr",
            Codec.uint(4, length_offset=4, length_includes="frame"),
            "RPKI to router: version, type, session id (2), data",
            "RFC 8210, section 5.1",
        ),
        (
            "ipfix",
            Codec.uint(2, magic=b"\x00\x0a", length_includes="frame"),
            "over TCP: export time, sequence number, domain id (4 each), sets",
            "RFC 7011, sections 3.1 and 10.4",
        ),
        (
            "openflow",
            Codec.uint(2, length_offset=2, length_includes="frame"),
            "version, type, transaction id (4), body",
            "OpenFlow Switch Specification 1.3, section 7.1",
        ),
        (
            "ssh",
            Codec.uint(4),
            "after the version lines, before NEWKEYS: padding length, payload, padding",
            "RFC 4253, section 6",
        ),
        (
            "ssh-agent",
            Codec.uint(4, max_message_size=256 * 1024),
            "type, contents",
            "draft-ietf-sshm-ssh-agent, section 3",
        ),
        (
            "tpkt",
            Codec.uint(2, magic=b"\x03", length_offset=2, length_includes="frame"),
            "ISO transport on TCP (RDP, S7, H.323): reserved byte (0), TPDU",
            "RFC 1006, section 6",
        ),
        # Files and devices.
        (
            "smb",
            Codec.uint(3, length_offset=1, max_message_size=2**24),
            "direct TCP: a 0 (NetBIOS: the packet type), SMB message",
            "MS-SMB2, section 2.1; RFC 1002, section 4.3.1",
        ),
        (
            "9p",
            Codec.uint(4, "little", length_includes="frame"),
            "type, tag (2), body",
            "Plan 9 manual, intro(5)",
        ),
        (
            "pkt-line",
            Codec.digits(
                4,
                base=16,
                length_includes="frame",
                specials={
                    0: PktLine.FLUSH,
                    1: PktLine.DELIM,
                    2: PktLine.RESPONSE_END,
                },
                max_message_size=65_516,
            ),
            "git; 0000, 0001, 0002 are members of formats.PktLine",
            "gitprotocol-common(5), 'pkt-line Format'; gitprotocol-v2(5), 'Packet-Line Framing'",
        ),
        (
            "tfrecord",
            Codec.uint(8, "little", length_adjustment=8),
            "files of TensorFlow: masked CRC of the length (4), data, masked CRC of the data (4)",
            "TensorFlow, 'TFRecord and tf.train.Example', 'TFRecords format details'",
        ),
        (
            "docker",
            Codec.uint(4, length_offset=4),
            "attach and logs: stream (0, 1, 2), three zeros, output",
            "Docker Engine API, 'Attach to a container', 'Stream format'",
        ),
        (
            "modbus",
            Codec.uint(2, length_offset=4, max_message_size=258),
            "Modbus/TCP: transaction id (2), protocol id (2), unit id, PDU",
            "Modbus Messaging on TCP/IP Implementation Guide 1.0b, section 3.1.3",
        ),
        (
            "iec104",
            Codec.uint(1, magic=b"\x68", max_message_size=253),
            "telecontrol: control field (4), ASDU",
            "IEC 60870-5-104, section 5.1",
        ),
        (
            "enip",
            Codec.uint(2, "little", length_offset=2, length_adjustment=20),
            "EtherNet/IP: command (2), session, status, context (8), options, data",
            "ODVA, The CIP Networks Library, volume 2, section 2-3",
        ),
        (
            "opcua",
            Codec.uint(4, "little", length_offset=4, length_includes="frame"),
            "OPC UA: message type (3), chunk type, body",
            "OPC 10000-6, section 7.1.2.2",
        ),
        (
            "dicom",
            Codec.uint(4, length_offset=2),
            "medical images: PDU type, reserved byte, data",
            "DICOM PS3.8, section 9.3",
        ),
        (
            "x11",
            Codec.custom(_parse_x11, _build_x11, max_header=8),
            "requests of little-endian clients, BIG-REQUESTS too: opcode, data byte, rest",
            "X Window System Protocol, chapter 1, 'Requests'; BIG-REQUESTS extension",
        ),
        (
            "i3-ipc",
            Codec.uint(4, "native", magic=b"i3-ipc", length_adjustment=4),
            "i3 and sway: type (4), JSON",
            "i3 documentation, 'IPC interface', 'Sending messages to i3'",
        ),
        # Peers and games.
        (
            "bitcoin",
            Codec.uint(
                4,
                "little",
                magic=b"\xf9\xbe\xb4\xd9",
                length_offset=16,
                length_adjustment=4,
                max_message_size=12 + 4 + 4_000_000,
            ),
            "main network: command (12), checksum (4), payload",
            "Bitcoin developer reference, 'P2P Network', 'Message Headers'",
        ),
        (
            "bittorrent",
            Codec.uint(4),
            "after the handshake: id, payload; an empty one keeps alive",
            "BEP 3, 'peer messages'",
        ),
        (
            "minecraft",
            Codec.varint(max_width=3),
            "Java Edition without compression: packet id, data",
            "Minecraft Wiki, 'Java Edition protocol/Packets', 'Packet format'",
        ),
        (
            "rcon",
            Codec.uint(4, "little", signed=True, max_message_size=4096),
            "Source servers: id (4), type (4), text and two zeros",
            "Valve Developer Community, 'Source RCON Protocol'",
        ),
    )
)


# --- the notation: reading ------------------------------------------------------------------------

_UINT = re.compile(r"([ui])([0-9]{1,3})(be|le|native)?")
_DIGITS = re.compile(r"(digits|hex)([0-9]{1,3})")
_DECIMAL = re.compile(r"-?[0-9]{1,1000}")  # Python itself refuses more than 4300
_ORDERS = {"be": "big", "le": "little", "native": "native"}
_UNITS = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024}

_HEADS = (
    *("u8", "u16be", "u16le", "u24be", "u24le", "u32be", "u32le", "u32native", "u64be", "u64le"),
    *("i32be", "i32le", "i32native", "digits4", "hex4", "struct:!I", "varint", "text", "headers"),
)
_POSSIBLE_HEADS = (
    "a head is u8, u16be, u24le, u32native, i32be and their like, digits4, hex4, struct:!I, "
    "varint, text, headers, or the name of a format"
)


def parse_codec(text: str) -> Codec:
    """Reads the notation of a codec: ``HEAD[,key=value]...``.

    ======================== ===========================================================
    head                     codec
    ======================== ===========================================================
    ``u8 u16be u24le i32be`` `Codec.uint`; ``i`` is signed; ``be``, ``le`` or ``native``
    ``digits4``, ``hex4``    `Codec.digits`, base 10 and 16
    ``struct:!I``            `Codec.struct`
    ``varint``               `Codec.varint`; key ``max_width``
    ``text``                 `Codec.text`; keys ``end``, ``base``
    ``headers``              `Codec.headers`; keys ``name``, ``max_header``
    ``kafka``, ``9p``, ...   that name of the catalogue; keys change its parameters
    ======================== ===========================================================

    Keys of all: ``offset``, ``adjustment``, ``includes`` (rest or frame), ``magic``, ``trailer``,
    ``specials`` and ``max`` (a number of bytes, with ``KiB``, ``MiB`` or ``GiB`` behind it if you
    like, or ``none``); or the names of the parameters in Python. Those that make no sense for a
    kind are refused.

    Bytes are written as ASCII text; ``%``, ``,``, ``;``, ``=``, the space and all that is not
    printable as ``%`` and two hexadecimal digits: ``end=%0D%0A``. Specials are pairs of a field
    value and a Python literal, in the same spelling: ``specials=-1:None;0:'nothing'``.

    >>> parse_codec("u16le,offset=2,includes=frame")
    Codec.uint(2, byteorder='little', length_offset=2, length_includes='frame')
    >>> parse_codec("kafka,max=64MiB").max_message_size
    67108864

    Raises:
        ValueError: It is no such notation, or describes a codec that cannot be; the text names the
            part and what is possible.
    """
    if not isinstance(text, str):
        raise TypeError(f"a codec's notation is a str, not {text!r}")
    head, *pairs = text.split(",")
    head = head.strip()
    try:
        make, allowed = _read_head(head)
        parameters: dict[str, Any] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(f"{pair!r} is not key=value")
            key = key.strip()
            key = _KEY_OF.get(key, key)
            if key not in allowed:
                near = _did_you_mean(key, dict.fromkeys((*allowed, *_names_of(allowed))))
                hint = near or f"; {head} takes {', '.join(allowed)}"
                raise ValueError(f"there is no key {key!r}{hint}")
            parameter, read, _ = _KEYS[key]
            if parameter in parameters:
                raise ValueError(f"{key} is given twice")
            try:
                parameters[parameter] = read(value if read is _unquote else value.strip())
            except ValueError as error:
                raise ValueError(f"{pair!r}: {error}") from None
        return make(**parameters)
    except (ValueError, TypeError) as error:
        raise ValueError(f"bad codec notation {text!r}: {error}") from None


def _names_of(keys: Iterable[str]) -> list[str]:
    return [_KEYS[key][0] for key in keys]


def _read_head(head: str) -> tuple[Callable[..., Codec], tuple[str, ...]]:
    """What makes the codec from its parameters, and the keys that it takes."""
    if head in formats:
        codec = formats[head]
        return codec.replace, _allowed_keys(codec.kind)
    if head in ("varint", "text", "headers"):
        return getattr(Codec, head), _allowed_keys(head)
    if head.startswith("struct:"):
        return _with(Codec.struct, fmt=_unquote_text(head[len("struct:") :])), _allowed_keys(
            "struct"
        )
    if found := _DIGITS.fullmatch(head):
        base = 16 if found[1] == "hex" else 10
        return _with(Codec.digits, width=int(found[2]), base=base), _allowed_keys("digits")
    if found := _UINT.fullmatch(head):
        bits, order = int(found[2]), found[3]
        if bits % 8 or not 8 <= bits <= 64:
            raise ValueError(f"{head!r} has {bits} bits; a length field has 8, 16, 24, ... 64")
        if order is None and bits > 8:
            raise ValueError(f"{head!r} needs a byte order: {head}be, {head}le or {head}native")
        return (
            _with(
                Codec.uint,
                width=bits // 8,
                byteorder=_ORDERS[order or "be"],
                signed=found[1] == "i",
            ),
            _allowed_keys("uint"),
        )
    hint = _did_you_mean(head, (*_HEADS, *formats))
    raise ValueError(f"{head!r} is no head{hint or '; ' + _POSSIBLE_HEADS}")


def _with(make: Callable[..., Codec], **fixed: Any) -> Callable[..., Codec]:
    def made(**parameters: Any) -> Codec:
        return make(**fixed, **parameters)

    return made


def _read_int(text: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise ValueError("a decimal number is wanted")
    return int(text)


def _read_max(text: str) -> int | None:
    if text == "none":
        return None
    try:
        for unit, size in _UNITS.items():
            if text.endswith(unit):
                return _read_int(text[: -len(unit)].rstrip()) * size
        return _read_int(text)
    except ValueError:
        raise ValueError("a number of bytes, with KiB, MiB or GiB, or none is wanted") from None


def _read_includes(text: str) -> str:
    if text not in ("rest", "frame"):
        raise ValueError("rest or frame is wanted")
    return text


def _read_specials(text: str) -> dict[int, Hashable]:
    specials: dict[int, Hashable] = {}
    for pair in text.split(";") if text else ():
        value_text, colon, literal = pair.partition(":")
        if not colon:
            raise ValueError(f"{pair!r} is not value:object")
        value = _read_int(value_text.strip())
        if value in specials:
            raise ValueError(f"{value} is given twice")
        specials[value] = _read_literal(_unquote_text(literal.strip()))
    return specials


def _read_literal(text: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in text that a person typed
            value = ast.literal_eval(text)
            ast.literal_eval(repr(value))  # 1e999 is one, but inf is not
            return value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{text!r} is no Python literal; text wants quotes: 'text'") from None


def _unquote(text: str) -> bytes:
    data = bytearray()
    pos = 0
    while pos < len(text):
        char = text[pos]
        if char == "%":
            digits = text[pos + 1 : pos + 3]
            if not re.fullmatch("[0-9A-Fa-f]{2}", digits):
                raise ValueError("a % is followed by two hexadecimal digits; % itself is %25")
            data.append(int(digits, 16))
            pos += 3
        elif "!" <= char <= "~":
            data.append(ord(char))
            pos += 1
        elif char == " ":
            raise ValueError("a space among bytes is written as %20")
        else:
            raise ValueError(
                f"{char!r} is not printable ASCII; write its bytes as % and two digits"
            )
    return bytes(data)


def _unquote_text(text: str) -> str:
    try:
        return _unquote(text).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{text!r} is not UTF-8") from None


# --- the notation: writing ------------------------------------------------------------------------


def format_codec(codec: Codec) -> str:
    """Writes a codec in the notation: ``parse_codec(format_codec(codec)) == codec``.

    What the notation has no letters for (functions, special objects that are no literals) is
    written by the name of the format that has it, with its other parameters: ``zmtp,max=1KiB``.

    Returns:
        The notation; or the codec's ``repr`` where there is none.
    """
    head = _head_of(codec)
    if head is not None:
        text = _write(codec, head, _defaults(codec))
        if text is not None:
            return text
    named = [
        text
        for row in formats.table()
        if row.codec.kind == codec.kind and _alike_in_what_has_no_key(codec, row.codec)
        if (text := _write(codec, row.name, row.codec.parameters)) is not None
    ]
    return min(named, key=lambda text: text.count(","), default=repr(codec))


def _head_of(codec: Codec) -> str | None:
    parameters = codec.parameters
    if codec.kind == "uint":
        letter = "i" if parameters["signed"] else "u"
        order = {order: suffix for suffix, order in _ORDERS.items()}[parameters["byteorder"]]
        suffix = "" if parameters["width"] == 1 and order == "be" else order
        return f"{letter}{8 * parameters['width']}{suffix}"
    if codec.kind == "struct":
        return f"struct:{parameters['fmt']}"
    if codec.kind == "digits":
        return f"{'hex' if parameters['base'] == 16 else 'digits'}{parameters['width']}"
    return None if codec.kind == "custom" else codec.kind


def _write(codec: Codec, head: str, base: Mapping[str, Any]) -> str | None:
    """The head, and what differs from the parameters it stands for; None if there is no way."""
    parts = [head]
    for key in _allowed_keys(codec.kind):
        parameter, _, write = _KEYS[key]
        value = codec.parameters[parameter]
        if value == base[parameter]:
            continue
        if parameter == "length_offset" and value is None:
            value = len(codec.parameters["magic"])
        written = write(value)
        if written is None:
            return None
        parts.append(f"{key}={written}")
    return ",".join(parts)


def _defaults(codec: Codec) -> Mapping[str, Any]:
    """The parameters of the plainest codec of the kind."""
    if codec.kind == "struct":
        return Codec.struct("B").parameters
    if codec.kind == "digits":
        return Codec.digits(1).parameters
    made: Codec = getattr(Codec, codec.kind)()
    return made.parameters


def _alike_in_what_has_no_key(codec: Codec, other: Codec) -> bool:
    with_key = _names_of(_allowed_keys(codec.kind))
    return all(
        value == other.parameters[name]
        for name, value in codec.parameters.items()
        if name not in with_key
    )


def _write_max(size: int | None) -> str:
    if size is None:
        return "none"
    for unit, unit_size in _UNITS.items():
        if size and not size % unit_size and (size < 1024 * unit_size or unit == "GiB"):
            return f"{size // unit_size}{unit}"
    return str(size)


def _write_specials(specials: Mapping[int, Hashable] | None) -> str | None:
    pairs = []
    for value, special in sorted((specials or {}).items()):
        try:
            shown = repr(special)
            if ast.literal_eval(shown) != special:
                return None
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
        pairs.append(f"{value}:{_quote(shown.encode())}")
    return ";".join(pairs)


def _quote(data: bytes) -> str:
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and byte not in b"%,;=" else f"%{byte:02X}"
        for byte in data
    )


def _quote_text(text: str) -> str:
    return _quote(text.encode())


# key -> parameter, how its value is read, how it is written (None: it cannot be).
_KEYS: dict[str, tuple[str, Callable[[str], Any], Callable[[Any], str | None]]] = {
    "max_width": ("max_width", _read_int, str),
    "end": ("end", _unquote, _quote),
    "base": ("base", _read_int, str),
    "name": ("name", _unquote_text, _quote_text),
    "max_header": ("max_header", _read_int, str),
    "offset": ("length_offset", _read_int, str),
    "adjustment": ("length_adjustment", _read_int, str),
    "includes": ("length_includes", _read_includes, str),
    "magic": ("magic", _unquote, _quote),
    "trailer": ("trailer", _unquote, _quote),
    "specials": ("specials", _read_specials, _write_specials),
    "max": ("max_message_size", _read_max, _write_max),
}

_KEY_OF = {parameter: key for key, (parameter, _, _) in _KEYS.items()}

_BINARY_KEYS = ("offset", "adjustment", "includes", "magic", "trailer", "specials", "max")
_ALLOWED_KEYS = {
    "uint": _BINARY_KEYS,
    "struct": _BINARY_KEYS,
    "digits": _BINARY_KEYS,
    "varint": ("max_width", "offset", "adjustment", "magic", "trailer", "specials", "max"),
    "text": ("end", "base", "offset", "adjustment", "magic", "trailer", "specials", "max"),
    "headers": ("name", "max_header", "adjustment", "magic", "trailer", "specials", "max"),
    "custom": ("max_header", "magic", "trailer", "max"),
}


def _allowed_keys(kind: str) -> tuple[str, ...]:
    return _ALLOWED_KEYS[kind]
