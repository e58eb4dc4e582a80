"""Formats of services: remote procedure calls, logs, databases, messaging."""

from __future__ import annotations

from typing import Literal

from .. import _shapes, _text_shapes
from .._catalogue import Format
from .._check import Check
from ..codec import Codec

__all__ = ["ROWS"]


def _ber_long(size: int) -> Codec:
    """Return the codec of values whose identifier has at least this size, 2 to 6 bytes."""
    ends_here = {0x00: Codec.ber(length_offset=size, max_width=8, max_message_size=None)}
    if size < 6:
        ends_here[0x80] = _ber_long(size + 1)
    return Codec.choice(ends_here, offset=size - 1, mask=0x80, max_message_size=None)


_BER = Codec.choice(
    {
        bytes(b for b in range(1, 256) if b & 0x1F != 0x1F): Codec.ber(
            length_offset=1, max_width=8, max_message_size=None
        ),
        bytes(b for b in range(256) if b & 0x1F == 0x1F): _ber_long(2),
    }
)

# The types that have flags of their own; PUBLISH with each quality of service but 3.
_MQTT_FIRST_BYTES = bytes.fromhex("10203031323334353839 3a3b3c3d 4050627082 90a2b0c0d0e0f0")

_STUN = Codec.choice(  # the first two bits are 0, and so are the last two of the length
    {
        0: Codec.choice(
            {
                0: Codec.uint(
                    2,
                    length_offset=2,
                    length_adjustment=16,
                    constants={4: b"\x21\x12\xa4\x42"},
                    max_message_size=None,
                )
            },
            offset=3,
            mask=0x03,
            max_message_size=None,
        )
    },
    mask=0xC0,
)


# CONNECT to NULL, ABORT, RESEND, MARKER, ATTENTION, CONTROL and data descriptor.
_TNS_TYPES = bytes((1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 15))


def _whole(least: int) -> Codec:
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
        Codec.uint(3, min_message_size=6),
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
        Codec.uint(2, length_includes="frame", constants={2: b"\xd0"}, min_message_size=4),
        "DB2, Derby: D0, format, correlation id (2), data",
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
        Codec.choice({_TNS_TYPES: _whole(4)}, offset=4),
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
    # Messaging.
    Format(
        "amqp",
        Codec.choice(
            {
                b"\x01\x02\x03\x08": Codec.uint(
                    4, length_offset=3, trailer=b"\xce", max_message_size=None
                )
            }
        ),
        "AMQP 0-9-1 (RabbitMQ), after the protocol header: type, channel (2), payload",
        "AMQP 0-9-1, section 4.2.3",
    ),
    Format(
        "amqp1",
        Codec.choice(
            {
                bytes(range(2, 256)): Codec.choice(
                    {b"\x00\x01": _whole(4)}, offset=5, max_message_size=None
                )
            },
            offset=4,
        ),
        "AMQP 1.0, after the protocol header: data offset, type, channel (2), body",
        "OASIS AMQP 1.0, part 2, section 2.3.1",
    ),
    Format(
        "amqp-header",
        Codec.fixed(4, magic=b"AMQP"),
        "what opens AMQP of every version: protocol id, major, minor, revision",
        "OASIS AMQP 1.0, part 2, section 2.2; AMQP 0-9-1, section 4.2.2",
    ),
    Format(
        "mqtt",
        Codec.choice(
            {_MQTT_FIRST_BYTES: Codec.varint(max_width=4, length_offset=1, max_message_size=None)}
        ),
        "type and flags, then the packet",
        "MQTT 5.0, section 2.1; MQTT 3.1.1, section 2.2",
    ),
    Format(
        "zmtp",
        Codec.choice(
            {
                b"\x00\x01\x02\x03\x04\x06": Codec.choice(
                    {
                        0: Codec.uint(1, length_offset=1, max_message_size=None),
                        2: Codec.uint(8, signed=True, length_offset=1, max_message_size=None),
                    },
                    mask=0x02,
                    keep=False,
                    max_message_size=None,
                )
            }
        ),
        "ZeroMQ, after the greeting: flags (more 1, command 4), body",
        "ZeroMQ RFC 23 (ZMTP 3.0), 'Framing'; RFC 37 (ZMTP 3.1)",
    ),
    Format(
        "zmtp-greeting",
        Codec.fixed(64, constants={0: b"\xff", 9: b"\x7f\x03"}),
        "what opens ZMTP 3: signature (10), version (2), mechanism (20), as-server, filler (31)",
        "ZeroMQ RFC 23 (ZMTP 3.0), 'Greeting'",
    ),
    Format(
        "zmtp1",
        Codec.uint(1, wider={255: "u64be"}, wider_than_needed="accept", min_message_size=1),
        "ZeroMQ 2: flags (more 1), body; no greeting but an empty first frame",
        "ZeroMQ RFC 13 (ZMTP 1.0), 'Framing'",
    ),
    Format(
        "nats",
        Codec.custom(
            _text_shapes.parse_nats,
            _text_shapes.build_nats,
            max_header=_text_shapes.LONGEST_LINE,
            trailer=b"\r\n",
        ),
        "a line, and its payload if it announces one; without the last CR LF",
        "NATS documentation, 'Client Protocol'",
    ),
    Format(
        "gearman",
        Codec.choice(
            {
                ord("Q"): Codec.uint(
                    4, length_offset=8, constants={0: b"\x00REQ"}, max_message_size=None
                ),
                ord("S"): Codec.uint(
                    4, length_offset=8, constants={0: b"\x00RES"}, max_message_size=None
                ),
            },
            offset=3,
        ),
        "magic (4: NUL and REQ or RES), type (4), arguments",
        "Gearman, 'Protocol', 'Binary Packet'",
    ),
    Format(
        "nsq",
        Codec.uint(4, signed=True, constants={4: b"\x00\x00\x00"}, min_message_size=4),
        "from nsqd: frame type (4: 0 response, 1 error, 2 message), data",
        "NSQ documentation, 'TCP Protocol Spec'",
    ),
    Format(
        "pulsar",
        Codec.uint(4, min_message_size=4),
        "size of the command (4), command, payload",
        "Apache Pulsar, 'Pulsar binary protocol specification', 'Framing'",
    ),
    Format(
        "stomp",
        Codec.custom(
            _text_shapes.parse_stomp, _text_shapes.build_stomp, max_header=_text_shapes.LONGEST_TEXT
        ),
        "a whole frame up to its NUL; a line end between two frames is a heart-beat",
        "STOMP 1.2, 'STOMP Frames' and 'Heart-beating'",
    ),
    Format(
        "smpp",
        Codec.choice(
            {b"\x00\x80": Codec.choice({b"\x00\x01": _whole(12)}, offset=5, max_message_size=None)},
            offset=4,
        ),
        "command id, status, sequence number (4 bytes each), body",
        "SMPP 3.4, section 3.2",
    ),
    Format(
        "stun",
        _STUN,
        "over TCP: type (2), cookie (4), transaction id (12), attributes",
        "RFC 8489, sections 5 and 6.2.2",
    ),
    Format(
        "turn",
        Codec.choice(
            {
                b"\x00\x10\x20\x30": _STUN.replace(max_message_size=None),
                0x40: Codec.uint(2, length_offset=2, align=4, max_message_size=None),
            },
            mask=0xF0,
        ),
        "over TCP: STUN messages, and ChannelData: channel (2), data; padded to 4 bytes",
        "RFC 8656, sections 12.4 and 12.5; RFC 8489, section 5",
    ),
    Format(
        "diameter",
        Codec.choice(
            {
                0: Codec.uint(
                    3,
                    magic=b"\x01",
                    length_includes="frame",
                    min_message_size=16,
                    max_message_size=None,
                )
            },
            offset=3,
            mask=0x03,
        ),
        "flags, command code (3), application id and two more ids (4 each), AVPs",
        "RFC 6733, section 3",
    ),
    Format(
        "radius",
        Codec.uint(
            2, length_offset=2, length_includes="frame", min_message_size=18, max_message_size=4094
        ),
        "over TCP or TLS: code, identifier, authenticator (16), attributes",
        "RFC 2865, section 3; RFC 6613, section 2.6",
    ),
    Format(
        "ldap",
        Codec.ber(length_offset=1, constants={0: b"\x30"}, max_width=8, min_message_size=6),
        "LDAP messages: the tag 0x30, then the contents",
        "RFC 4511, section 5.1",
    ),
    Format(
        "c1222",
        Codec.ber(length_offset=1, constants={0: b"\x60"}),
        "meters (ANSI C12.22): the tag 0x60, then the ACSE elements",
        "ANSI C12.22-2012, section 5.3; RFC 6142, section 3",
    ),
    Format(
        "ber",
        _BER,
        "ASN.1 values: identifier, contents; any definite length (SNMP over TCP)",
        "ITU-T X.690, section 8.1",
    ),
)
