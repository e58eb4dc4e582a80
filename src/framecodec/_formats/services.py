"""Formats of services: remote procedure calls, logs, databases, messaging."""

from __future__ import annotations

from .. import _shapes, _text_shapes
from .._catalogue import Format
from ..codec import Codec

__all__ = ["ROWS"]

_BER = Codec.custom(
    _shapes.parse_ber, _shapes.build_ber, max_header=_shapes.BER_LONGEST_IDENTIFIER + 9
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
        "grpc",
        Codec.uint(4, length_offset=1),
        "compressed flag, then the message; inside HTTP/2 data",
        "gRPC over HTTP2, 'Length-Prefixed-Message'",
    ),
    Format(
        "oncrpc",
        # The top bit, set in the last fragment of a record, is part of the number.
        Codec.uint(4, length_adjustment=-(2**31)),
        "records of one fragment (NFS, rpcbind); several are refused, see oncrpc-fragment",
        "RFC 5531, section 11",
    ),
    Format(
        "oncrpc-fragment",
        Codec.custom(_shapes.parse_oncrpc_fragment, _shapes.build_oncrpc_fragment, max_header=4),
        "fragments of records: 0x80 for the last one or 0, then its bytes",
        "RFC 5531, section 11",
    ),
    Format(
        "syslog",
        Codec.text(b" "),
        "octet counting, over TCP or TLS",
        "RFC 6587, section 3.4.1; RFC 5425, section 4.3",
    ),
    Format(
        "lsp",
        Codec.headers(),
        "language servers: Content-Length header, JSON",
        "Language Server Protocol 3.17, 'Base Protocol'",
    ),
    Format(
        "dap",
        Codec.headers(),
        "debug adapters: Content-Length header, JSON",
        "Debug Adapter Protocol, 'Base protocol'",
    ),
    Format(
        "giop",
        Codec.custom(_shapes.parse_giop, _shapes.build_giop, max_header=8, magic=b"GIOP"),
        "CORBA: version (2), flags, type, body; bit 0 of the flags is the byte order",
        "OMG CORBA 3.3, part 2, section 9.4.1",
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
        Codec.uint(4, signed=True, length_offset=1, length_adjustment=-4),
        "type byte, body; after the startup",
        "PostgreSQL documentation, 'Frontend/Backend Protocol', 'Message Formats'",
    ),
    Format(
        "postgres-startup",
        Codec.uint(4, signed=True, length_includes="frame", max_message_size=10_000),
        "a connection's first message: StartupMessage, SSLRequest, CancelRequest",
        "PostgreSQL documentation, 'Frontend/Backend Protocol', 'Message Formats'",
    ),
    Format(
        "mysql",
        Codec.uint(3, "little", length_adjustment=1),
        "sequence number, payload; one of 0xFFFFFF bytes continues in the next packet",
        "MySQL Source Code Documentation, 'Client/Server Protocol', 'MySQL Packets'",
    ),
    Format(
        "mongodb",
        Codec.uint(4, "little", signed=True, length_includes="frame", max_message_size=48_000_000),
        "request id, response to, opcode (4 bytes each), body",
        "MongoDB manual, 'MongoDB Wire Protocol', 'Standard Message Header'",
    ),
    Format(
        "cassandra",
        Codec.uint(4, signed=True, length_offset=5),
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
        Codec.uint(4, length_offset=8, length_adjustment=12),
        "the binary protocol: magic 0x80 or 0x81 and 7 more bytes, opaque (4), CAS (8), body",
        "memcached, BinaryProtocolRevamped, 'Packet Structure'",
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
        Codec.uint(2, length_offset=2, length_includes="frame"),
        "SQL Server: type, status, SPID (2), packet id, window, data",
        "MS-TDS, section 2.2.3.1",
    ),
    # Messaging.
    Format(
        "amqp",
        Codec.uint(4, length_offset=3, trailer=b"\xce"),
        "AMQP 0-9-1 (RabbitMQ), after the protocol header: type, channel (2), payload",
        "AMQP 0-9-1, section 4.2.3",
    ),
    Format(
        "amqp1",
        Codec.uint(4, length_includes="frame"),
        "AMQP 1.0, after the protocol header: data offset, type, channel (2), body",
        "OASIS AMQP 1.0, part 2, section 2.3.1",
    ),
    Format(
        "mqtt",
        Codec.varint(max_width=4, length_offset=1),
        "type and flags, then the packet",
        "MQTT 5.0, section 2.1; MQTT 3.1.1, section 2.2",
    ),
    Format(
        "zmtp",
        Codec.custom(_shapes.parse_zmtp, _shapes.build_zmtp, max_header=9),
        "ZeroMQ, after the greeting: flags (more 1, command 4), body",
        "ZeroMQ RFC 23 (ZMTP 3.0), 'Framing'; RFC 37 (ZMTP 3.1)",
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
        "stomp",
        Codec.custom(
            _text_shapes.parse_stomp, _text_shapes.build_stomp, max_header=_text_shapes.LONGEST_TEXT
        ),
        "a whole frame up to its NUL; a line end between two frames is a heart-beat",
        "STOMP 1.2, 'STOMP Frames' and 'Heart-beating'",
    ),
    Format(
        "smpp",
        Codec.uint(4, length_includes="frame"),
        "command id, status, sequence number (4 bytes each), body",
        "SMPP 3.4, section 3.2",
    ),
    Format(
        "stun",
        Codec.uint(2, length_offset=2, length_adjustment=16),
        "over TCP: type (2), cookie (4), transaction id (12), attributes",
        "RFC 8489, sections 5 and 6.2.2",
    ),
    Format(
        "diameter",
        Codec.uint(3, magic=b"\x01", length_includes="frame"),
        "flags, command code (3), application id and two more ids (4 each), AVPs",
        "RFC 6733, section 3",
    ),
    Format(
        "radius",
        Codec.uint(2, length_offset=2, length_includes="frame", max_message_size=4094),
        "over TCP or TLS: code, identifier, authenticator (16), attributes",
        "RFC 2865, section 3; RFC 6613, section 2.6",
    ),
    Format(
        "ldap",
        _BER,
        "LDAP messages: the tag 0x30, then the contents",
        "RFC 4511, section 5.1",
    ),
    Format(
        "ber",
        _BER,
        "ASN.1 values: identifier, contents; any definite length (SNMP over TCP, Kerberos)",
        "ITU-T X.690, section 8.1",
    ),
)
