"""Formats of services: remote procedure calls, logs, databases, caches."""

from __future__ import annotations

from typing import Literal

from .. import _shapes, _text_shapes
from .._catalogue import Format
from .._check import Check
from ..codec import Codec

__all__ = ["ROWS", "whole_frame"]


# CONNECT to NULL, ABORT, RESEND, MARKER, ATTENTION, CONTROL and data descriptor.
_TNS_TYPES = bytes((1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 15))


# The type in the upper 6 bits: SETUP to RESUME_OK, EXT; others with the flag that lets a peer
# ignore them.
_RSOCKET_TYPES = bytes(
    byte for byte in range(256) if 1 <= byte >> 2 <= 14 or byte >> 2 == 63 or byte & 0x02
)


def whole_frame(least: int) -> Codec:
    """Return the codec of frames that begin with their size; their choice has the limit."""
    return Codec.uint(4, length_includes="frame", min_message_size=least, max_message_size=None)


def _postgres_startup(code: bytes, least: int, most: int | None = None) -> Codec:
    """Return the codec of the messages whose protocol code begins with these bytes."""
    return Codec.uint(
        4,
        signed=True,
        length_includes="frame",
        constants={4: code},
        min_message_size=least,
        max_message_size=most,
    )


def _mongodb(opcode: bytes) -> Codec:
    """Return the codec of the messages with these bytes after the first one of the opcode."""
    return Codec.uint(
        4,
        "little",
        signed=True,
        length_includes="frame",
        constants={13: opcode},
        min_message_size=12,
        max_message_size=None,
    )


def _giop(magic: bytes, constants: dict[int, bytes]) -> Codec:
    """Return the codec of messages whose byte order is a flag: the lowest bit of byte 6."""
    orders: tuple[tuple[bytes, Literal["big", "little"]], ...] = (
        (b"\x00\x02", "big"),
        (b"\x01\x03", "little"),
    )
    return Codec.choice(
        {
            flags: Codec.uint(
                4, order, magic=magic, length_offset=8, constants=constants, max_message_size=None
            )
            for flags, order in orders
        },
        offset=6,
        max_message_size=None,
    )


def _fix(begin: bytes) -> Codec:
    """Return the codec of messages whose version (``4.4``) follows these bytes."""
    size = len(begin)
    return Codec.text(
        b"\x01",
        leading_zeros=True,
        length_offset=size + 6,
        constants={0: begin, size + 1: b".", size + 3: b"\x019="},
        check=Check("sum8", 3, digits=True, before=b"10=", covers="frame"),
        trailer=b"\x01",
        max_message_size=None,
    )


ROWS: tuple[Format, ...] = (
    # Remote procedure calls and logs.
    Format(
        "kafka",
        Codec.uint(4, signed=True),
        "requests and responses",
        "Apache Kafka, Protocol Guide, 'Protocol Primitive Types' and 'Common Structure'",
    ),
    Format(
        "thrift",
        Codec.uint(4, signed=True, max_message_size=16_384_000),
        "the framed transport",
        "Apache Thrift, thrift-rpc.md, 'Framed vs. unframed transport'",
    ),
    Format(
        "fix",
        Codec.choice({ord("."): _fix(b"8=FIX."), ord("T"): _fix(b"8=FIXT.")}, offset=5),
        "FIX of any version: 8=...|9=, then the body without its length; checksum verified",
        "FIX 4.4, volume 1, 'Message Format'; FIXT 1.1",
    ),
    Format(
        "rsocket",
        Codec.choice(
            {_RSOCKET_TYPES: Codec.uint(3, min_message_size=6, max_message_size=None)}, offset=7
        ),
        "over TCP: stream id (4), type and flags (2), data",
        "RSocket protocol 1.0, 'Framing Protocol'",
    ),
    Format(
        "zookeeper",
        Codec.uint(4, signed=True, min_message_size=8),
        "requests, responses and events",
        "Apache ZooKeeper, zookeeper.jute; ClientCnxnSocket",
    ),
    Format(
        "jdwp",
        Codec.uint(4, length_includes="frame", min_message_size=7),
        "Java debuggers, after the handshake: id (4), flags, command (2) or error (2), data",
        "Java Debug Wire Protocol, 'JDWP Packets'",
    ),
    Format(
        "grpc",
        Codec.choice({b"\x00\x01": Codec.uint(4, length_offset=1, max_message_size=None)}),
        "compressed flag, then the message; inside HTTP/2 data",
        "gRPC over HTTP2, 'Length-Prefixed-Message'",
    ),
    Format(
        "grpc-web",
        Codec.choice({b"\x00\x01\x80\x81": Codec.uint(4, length_offset=1, max_message_size=None)}),
        "flags (compressed 1, trailers 0x80), then the message or the trailers",
        "gRPC Web, PROTOCOL-WEB.md",
    ),
    Format(
        "oncrpc",
        Codec.joined(
            Codec.uint(4, length_mask=0x7FFFFFFF, max_message_size=None),
            last=(0, 0x80, 0x80),
            strip=1,
        ),
        "whole records, of one fragment or several (NFS, rpcbind)",
        "RFC 5531, section 11",
    ),
    Format(
        "oncrpc-fragment",
        Codec.uint(4, length_mask=0x7FFFFFFF),
        "fragments of records: 0x80 for the last one or 0, then its bytes",
        "RFC 5531, section 11",
    ),
    Format(
        "syslog",
        Codec.choice(
            {
                b"0123456789": Codec.text(b" ", max_message_size=None),
                b"<": Codec.delimiter(b"\n", b"\r\n", b"\0", max_message_size=None),
            }
        ),
        "over TCP or TLS: reads octet counting and lines (LF, CR LF or NUL), writes counts",
        "RFC 6587, sections 3.4.1 and 3.4.2; RFC 5425, section 4.3",
    ),
    Format(
        "lsp",
        Codec.headers(),
        "language servers: Content-Length header, JSON",
        "Language Server Protocol 3.17, 'Base Protocol'",
    ),
    Format(
        "mllp",
        Codec.delimiter(b"\x1c\r", magic=b"\x0b"),
        "HL7 messages between VT and FS CR",
        "HL7 version 2, 'Transport Specification: MLLP', release 1",
    ),
    Format(
        "dap",
        Codec.headers(),
        "debug adapters: Content-Length header, JSON",
        "Debug Adapter Protocol, 'Base protocol'",
    ),
    Format(
        "giop",
        Codec.choice({b"G": _giop(b"GIOP", {4: b"\x01"}), b"Z": _giop(b"", {0: b"ZIOP\x01"})}),
        "CORBA: version (2), flags (bit 0: byte order), type, body; ZIOP stays in the message",
        "OMG CORBA 3.3, part 2, section 9.4.1; OMG ZIOP 1.0, section 7.3",
    ),
    Format(
        "dcerpc",
        Codec.choice(
            {
                0x10: Codec.uint(
                    2,
                    "little",
                    length_offset=8,
                    length_includes="frame",
                    constants={0: b"\x05"},
                    min_message_size=14,
                    max_message_size=None,
                ),
                0x00: Codec.uint(
                    2,
                    length_offset=8,
                    length_includes="frame",
                    constants={0: b"\x05"},
                    min_message_size=14,
                    max_message_size=None,
                ),
            },
            offset=4,
            mask=0xF0,
        ),
        "DCE/RPC over TCP: version (2), type, flags, data representation (4), auth size, call id",
        "The Open Group C706, section 12.6.3; MS-RPCE, section 2.2.2",
    ),
    Format(
        "dbus",
        Codec.custom(_shapes.parse_dbus, _shapes.build_dbus, max_header=16),
        "order, type, flags, version, serial, length of the fields, fields, body",
        "D-Bus Specification, 'Message Format'",
    ),
    # Databases and caches.
    Format(
        "postgres",
        Codec.choice(
            {
                b"123ABCDEFGHIKNPQRSTVWXZcdfnpstv": Codec.uint(
                    4, signed=True, length_offset=1, length_adjustment=-4, max_message_size=None
                )
            }
        ),
        "type byte, body; after the startup",
        "PostgreSQL documentation, 'Frontend/Backend Protocol', 'Message Formats'",
    ),
    Format(
        "postgres-ssl-answer",
        Codec.choice({b"SNGE": Codec.fixed(1)}),
        "the byte that answers an SSLRequest or a GSSENCRequest: S, G or N; E begins an error",
        "PostgreSQL documentation, 'SSL Session Encryption'",
    ),
    Format(
        "postgres-startup",
        Codec.choice(
            {
                0x03: _postgres_startup(b"\x00\x03", 5),
                0xD2: Codec.choice(
                    {
                        0x2E: _postgres_startup(b"\x04\xd2\x16\x2e", 12),
                        0x2F: _postgres_startup(b"\x04\xd2\x16\x2f", 4, 4),  # SSLRequest
                        0x30: _postgres_startup(b"\x04\xd2\x16\x30", 4, 4),  # GSSENCRequest
                    },
                    offset=7,
                    max_message_size=None,
                ),
            },
            offset=5,
            max_message_size=10_000,
        ),
        "a connection's first message: StartupMessage, SSLRequest, CancelRequest",
        "PostgreSQL documentation, 'Frontend/Backend Protocol', 'Message Formats'",
    ),
    Format(
        "mysql",
        Codec.joined(
            Codec.uint(3, "little", length_adjustment=1),
            full=0xFFFFFF,
            strip=1,
            keep_first=True,
            counter=3,
            max_message_size=1 + 64 * 1024 * 1024,  # the server's max_allowed_packet by default
        ),
        "first sequence number, payload of one packet or several",
        "MySQL Source Code Documentation, 'Client/Server Protocol', 'MySQL Packets'",
    ),
    Format(
        "mysql-packet",
        Codec.uint(3, "little", length_adjustment=1),
        "single packets: sequence number, payload; one of 0xFFFFFF bytes continues in the next",
        "MySQL Source Code Documentation, 'Client/Server Protocol', 'MySQL Packets'",
    ),
    Format(
        "mysql-compressed",
        Codec.uint(3, "little", length_adjustment=4),
        "after the login, if compression was negotiated: sequence number, size before (3), payload",
        "MySQL Source Code Documentation, 'Compressed Packet'",
    ),
    Format(
        "mongodb",
        Codec.choice(
            {
                # OP_REPLY is 1, all others are from 2001 (07d1) to 2013 (07dd).
                0x01: _mongodb(b"\x00\x00\x00"),
                b"\xd1\xd2\xd4\xd5\xd6\xd7\xda\xdb\xdc\xdd": _mongodb(b"\x07\x00\x00"),
            },
            offset=12,
            max_message_size=48_000_000,
        ),
        "request id, response to, opcode (4 bytes each), body",
        "MongoDB manual, 'MongoDB Wire Protocol', 'Standard Message Header'",
    ),
    Format(
        "cassandra",
        Codec.choice(
            {
                b"\x03\x04\x05\x41\x42\x83\x84\x85\xc1\xc2": Codec.uint(
                    4, signed=True, length_offset=5, max_message_size=None
                )
            }
        ),
        "version, flags, stream (2), opcode, body; CQL v3 and v4",
        "CQL Binary Protocol v4, section 2",
    ),
    Format(
        "cassandra-v5",
        Codec.custom(_shapes.parse_cassandra_v5, _shapes.build_cassandra_v5, max_header=6),
        "self-contained flag (0 or 1), CRC24, payload, CRC32; CQL v5, uncompressed",
        "CQL Binary Protocol v5, section 2",
    ),
    Format(
        "resp-bulk",
        Codec.text(b"\r\n", magic=b"$", trailer=b"\r\n", specials={-1: None}),
        "bulk strings of Redis; $-1 is None",
        "Redis documentation, 'Redis serialization protocol specification', 'Bulk strings'",
    ),
    Format(
        "resp",
        Codec.custom(
            _text_shapes.parse_resp, _text_shapes.build_resp, max_header=_text_shapes.LONGEST_TEXT
        ),
        "Redis: a whole value as it travelled, nested too; all but the last string within 1 MiB",
        "Redis documentation, 'Redis serialization protocol specification'",
    ),
    Format(
        "memcached",
        Codec.choice(
            {
                b"\x80\x81": Codec.uint(
                    4,
                    length_offset=8,
                    length_adjustment=12,
                    constants={5: b"\x00"},
                    max_message_size=None,
                )
            }
        ),
        "the binary protocol: magic 0x80 or 0x81 and 7 more bytes, opaque (4), CAS (8), body",
        "memcached, BinaryProtocolRevamped, 'Packet Structure'",
    ),
    Format(
        "couchbase",
        Codec.choice(
            {
                b"\x08\x18\x80\x81\x82\x83": Codec.uint(
                    4, length_offset=8, length_adjustment=12, max_message_size=None
                )
            }
        ),
        "as memcached, with data types and flexible frames",
        "Couchbase, kv_engine/docs/BinaryProtocol.md",
    ),
    Format(
        "memcached-text",
        Codec.custom(
            _text_shapes.parse_memcached_text,
            _text_shapes.build_memcached_text,
            max_header=_text_shapes.LONGEST_LINE,
            trailer=b"\r\n",
        ),
        "commands and answers: a line, and its data if it announces some; without the last CR LF",
        "memcached, doc/protocol.txt",
    ),
    Format(
        "tds",
        Codec.choice(
            {
                bytes((1, 2, 3, 4, 6, 7, 8, 14, 15, 16, 17, 18)): Codec.uint(
                    2,
                    length_offset=2,
                    length_includes="frame",
                    min_message_size=6,
                    max_message_size=None,
                )
            }
        ),
        "SQL Server: type, status, SPID (2), packet id, window, data",
        "MS-TDS, section 2.2.3.1",
    ),
    Format(
        "drda",
        Codec.uint(  # a negative length continues in the next structure, which has no D0
            2, signed=True, length_includes="frame", constants={2: b"\xd0"}, min_message_size=4
        ),
        "DB2, Derby: D0, format, correlation id (2), data; structures that are not continued",
        "DRDA V5 volume 3, 'DSS' (data stream structures)",
    ),
    Format(
        "tns",
        Codec.choice(
            {
                _TNS_TYPES: Codec.uint(
                    2, length_includes="frame", min_message_size=6, max_message_size=None
                )
            },
            offset=4,
        ),
        "Oracle Net up to version 314, and CONNECT: checksum (2), type, flags, checksum (2), data",
        "Oracle Net Services; dissector packet-tns.c of Wireshark",
    ),
    Format(
        "tns-315",
        Codec.choice({_TNS_TYPES: whole_frame(4)}, offset=4),
        "Oracle Net from version 315 on, after ACCEPT: type, flags, checksum (2), data",
        "Oracle Net Services; dissector packet-tns.c of Wireshark",
    ),
    Format(
        "elasticsearch",
        Codec.uint(4, signed=True, magic=b"ES", specials={-1: None}),
        "the transport between nodes: header and content; None is a ping",
        "Elasticsearch, org.elasticsearch.transport.TcpHeader",
    ),
    Format(
        "aerospike",
        Codec.uint(6, length_offset=2, constants={0: b"\x02"}),
        "version (2), type, data",
        "Aerospike, as_proto of the C client",
    ),
)
