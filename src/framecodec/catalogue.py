"""The known protocols, a table: the object `formats`.

A row of the table is data: a name, the codec, one line about the message, and the document that
defines the shape. Rules of the table:

* A message is its frame without the parts that the codec owns. Bytes before the length field (a
  type byte, flags) are the message's first bytes. Checksums are part of the message, too: a codec
  describes a shape, not the meaning of bytes.
* A codec covers no authentication, no compression, no greeting before the first frame, and nothing
  that a flag asks for.
* ``max_message_size`` is the limit of the specification if that has a fixed one of up to 64 MiB,
  else 16 MiB; ``codec.replace(max_message_size=...)`` changes it.
* One frame is one message. Some protocols cut a larger message into fragments (``mysql``,
  ``oncrpc-fragment``, ``zmtp``, ``websocket``, ``cassandra-v5``); the caller joins them by the
  flags in the fragments.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, final

from . import _shapes
from .codec import Codec

__all__ = ["Catalogue", "Format", "PktLine", "formats"]


class PktLine(enum.Enum):
    """The pkt-lines of git that hold no data (gitprotocol-common(5), gitprotocol-v2(5))."""

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
    """One line: what the format is, and what a message holds besides its data."""
    specification: str
    """The document and section that define the shape."""


@final
class Catalogue(Mapping[str, Codec]):
    """Known protocols by name: ``formats["kafka"]``, ``formats.kafka``, ``formats.pkt_line``.

    A mapping from names to codecs. As attributes, names use ``_`` instead of ``-``; ``9p`` is not
    an identifier, so write ``formats["9p"]``.

    Args:
        rows: The formats. Each name must be unique.
    """

    __slots__ = ("_formats", "_names")

    PktLine = PktLine
    """The messages of ``formats.pkt_line`` for the pkt-lines that hold no data."""

    def __init__(self, rows: Iterable[Format]) -> None:
        self._formats: dict[str, Format] = {}
        self._names: dict[str, str] = {}  # attribute -> name
        for row in rows:
            if row.name in self._formats:
                raise ValueError(f"two formats have the name {row.name!r}")
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
        if attribute.startswith("_"):  # also before __init__, while a copy is made
            raise AttributeError(attribute)
        try:
            return self._formats[self._names[attribute]].codec
        except KeyError:
            hint = did_you_mean(attribute, self._names)
            raise AttributeError(f"no format {attribute!r} in the catalogue{hint}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *filter(str.isidentifier, self._names)})

    def __repr__(self) -> str:
        return f"<Catalogue of {len(self)} formats>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Catalogue, (self.table(),)

    def describe(self, name: str) -> Format:
        """Return the row of a name: name, codec, description and specification.

        Raises:
            KeyError: The catalogue has no such name. The text suggests similar names.
        """
        try:
            return self._formats[name]
        except KeyError:
            hint = did_you_mean(name, self._formats)
            raise KeyError(f"no format {name!r} in the catalogue{hint}") from None

    def table(self) -> list[Format]:
        """Return all rows in the order of the catalogue."""
        return list(self._formats.values())


def did_you_mean(wrong: object, names: Iterable[str]) -> str:
    """Return a hint for an error's text, ``; did you mean kafka?``, or "" if no name is similar."""
    import difflib  # here, because only the text of an error needs it

    near = difflib.get_close_matches(str(wrong).lower(), list(names), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


# --- the table ------------------------------------------------------------------------------------

_BER = Codec.custom(
    _shapes.parse_ber, _shapes.build_ber, max_header=_shapes.BER_LONGEST_IDENTIFIER + 9
)

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
            "struct.pack('i', n): an int in the size and byte order of this machine",
            "Python library reference, struct, 'Format Characters'",
        ),
        (
            "netstring",
            Codec.text(b":", trailer=b","),
            "decimal digits and a colon before, a comma after: 5:hello,",
            "D. J. Bernstein, Netstrings (1997-02-01)",
        ),
        (
            "protobuf",
            Codec.varint(),
            "protobuf messages after a varint (writeDelimitedTo, protodelim)",
            "Protocol Buffers, Encoding, 'Base 128 Varints'; 'Techniques', streaming",
        ),
        ("erlang1", Codec.uint(1), "{packet, 1}", "Erlang/OTP, inet:setopts/2, option packet"),
        ("erlang2", Codec.uint(2), "{packet, 2}", "Erlang/OTP, inet:setopts/2, option packet"),
        ("erlang4", Codec.uint(4), "{packet, 4}", "Erlang/OTP, inet:setopts/2, option packet"),
        (
            "iso8583",
            Codec.uint(2),
            "card payment links with a binary length (in digits: ascii4)",
            "none; ISO 8583 leaves the link to the partners",
        ),
        (
            "multiprocessing",
            Codec.custom(
                _shapes.parse_multiprocessing, _shapes.build_multiprocessing, max_header=12
            ),
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
            Codec.custom(
                _shapes.parse_oncrpc_fragment, _shapes.build_oncrpc_fragment, max_header=4
            ),
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
            Codec.custom(_shapes.parse_giop, _shapes.build_giop, max_header=8, magic=b"GIOP"),
            "CORBA: version (2), flags, type, body; bit 0 of the flags is the byte order",
            "OMG CORBA 3.3, part 2, section 9.4.1",
        ),
        (
            "dbus",
            Codec.custom(_shapes.parse_dbus, _shapes.build_dbus, max_header=16),
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
            "sequence number, payload; one of 0xFFFFFF bytes continues in the next packet",
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
            Codec.custom(_shapes.parse_cassandra_v5, _shapes.build_cassandra_v5, max_header=3),
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
            "the binary protocol: magic 0x80 or 0x81 and 7 more bytes, opaque (4), CAS (8), body",
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
            Codec.custom(_shapes.parse_zmtp, _shapes.build_zmtp, max_header=9),
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
            "flags, command code (3), application id and two more ids (4 each), AVPs",
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
            Codec.custom(_shapes.parse_websocket, _shapes.build_websocket, max_header=10),
            "FIN and opcode, mask bit (0x80 or 0), masking key (4) if masked, payload",
            "RFC 6455, section 5.2",
        ),
        (
            "fastcgi",
            Codec.custom(_shapes.parse_fastcgi, _shapes.build_fastcgi, max_header=7, magic=b"\x01"),
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
            Codec.custom(_shapes.parse_x11, _shapes.build_x11, max_header=8),
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
            "after the handshake: id, payload; an empty message keeps the connection alive",
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
