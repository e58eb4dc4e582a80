"""Formats of files, devices, industry, and programs among peers."""

from __future__ import annotations

from .. import _shapes
from .._catalogue import Format, PktLine
from .._check import Check
from ..codec import Codec

__all__ = ["ROWS"]

# The length counts the whole request in units of 4 bytes; if it is 0, it follows in 4 bytes.
_X11_SHORT = Codec.uint(
    2, "little", length_offset=2, length_unit=4, length_adjustment=-4, max_message_size=None
)
_X11_LONG = Codec.uint(
    2,
    "little",
    length_offset=2,
    length_unit=4,
    length_adjustment=-8,
    wider={0: "u32le"},
    wider_than_needed="accept",
    max_message_size=None,
)
_X11_ANY = Codec.choice({None: _X11_SHORT, 0: _X11_LONG}, offset=3, max_message_size=None)
_X11 = Codec.choice(
    {
        None: Codec.choice({None: _X11_SHORT, 0: _X11_ANY}, offset=2, max_message_size=None),
        # What opens a connection begins with l and 11, or with B and 11 in the other byte order. A
        # GetScreenSaver has 1 unit, and a PolySegment an odd number of them.
        ord("l"): Codec.choice({1: _X11_SHORT}, offset=2, max_message_size=None),
        ord("B"): Codec.choice(
            {
                bytes(range(1, 256, 2)): _X11_SHORT,
                0: Codec.choice({0: _X11_LONG}, offset=3, max_message_size=None),
            },
            offset=2,
            max_message_size=None,
        ),
    }
)

ROWS: tuple[Format, ...] = (
    # Files and devices.
    Format(
        "smb",
        Codec.choice(
            {b"\x00\x81\x82\x83\x84\x85": Codec.uint(3, length_offset=1, max_message_size=None)}
        ),
        "direct TCP: a 0 (NetBIOS: the packet type), SMB message",
        "MS-SMB2, section 2.1; RFC 1002, section 4.3.1",
    ),
    Format(
        "9p",
        Codec.uint(4, "little", length_includes="frame", min_message_size=3),
        "type, tag (2), body",
        "Plan 9 manual, intro(5)",
    ),
    Format(
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
    Format(
        "adb",
        Codec.choice(
            {
                command[1]: Codec.uint(
                    4,
                    "little",
                    length_offset=12,
                    length_adjustment=8,
                    constants={0: command, 20: bytes(byte ^ 0xFF for byte in command)},
                    max_message_size=None,
                )
                for command in (
                    *(b"SYNC", b"CNXN", b"OPEN", b"OKAY"),
                    *(b"CLSE", b"W\x52TE", b"AUTH", b"STLS"),
                )
            },
            offset=1,
        ),
        "Android: command (4), two arguments (4 each), checksum (4), inverse of the command, data",
        "Android Open Source Project, adb, protocol.txt",
    ),
    Format(
        "adb-host",
        Codec.digits(4, base=16, max_message_size=0xFFFF),
        "requests to the adb server, and its answers after OKAY or FAIL",
        "Android Open Source Project, adb, OVERVIEW.TXT",
    ),
    Format(
        "tfrecord",
        Codec.uint(8, "little", length_adjustment=8),
        "files of TensorFlow: masked CRC of the length (4), data, masked CRC of the data (4)",
        "TensorFlow, 'TFRecord and tf.train.Example', 'TFRecords format details'",
    ),
    Format(
        "docker",
        Codec.choice(
            {
                b"\x00\x01\x02\x03": Codec.uint(
                    4, length_offset=4, constants={1: b"\x00\x00\x00"}, max_message_size=None
                )
            }
        ),
        "attach and logs, without a terminal: stream (0 to 3), three zeros, output",
        "Docker Engine API, 'Attach to a container', 'Stream format'",
    ),
    Format(
        "modbus",
        Codec.uint(
            2, length_offset=4, constants={2: b"\x00\x00"}, min_message_size=6, max_message_size=259
        ),
        "Modbus/TCP: transaction id (2), protocol id (2), unit id, PDU",
        "Modbus Messaging on TCP/IP Implementation Guide 1.0b, section 3.1.3",
    ),
    Format(
        "ads",
        Codec.uint(4, "little", magic=b"\x00\x00", min_message_size=32),
        "Beckhoff TwinCAT (AMS/TCP): AMS header (32), data",
        "Beckhoff Information System, 'AMS/TCP packet'",
    ),
    Format(
        "fins",
        Codec.uint(4, magic=b"FINS", constants={8: b"\x00\x00\x00"}, min_message_size=8),
        "Omron (FINS/TCP): command (4), error code (4), FINS frame",
        "OMRON W421, 'FINS/TCP', 'FINS/TCP Header'",
    ),
    Format(
        "mavlink",
        Codec.choice(
            {
                0xFE: Codec.uint(
                    1,
                    length_offset=1,
                    length_adjustment=6,
                    constants={0: b"\xfe"},
                    max_message_size=None,
                ),
                0xFD: Codec.choice(
                    {
                        0: Codec.uint(
                            1, length_offset=1, length_adjustment=10, max_message_size=None
                        ),
                        1: Codec.uint(
                            1, length_offset=1, length_adjustment=23, max_message_size=None
                        ),
                    },
                    offset=2,
                    max_message_size=None,
                ),
            }
        ),
        "drones, versions 1 (fe) and 2 (fd), signed too: magic, header, payload, checksum (2)",
        "MAVLink Developer Guide, 'Packet Serialization'",
    ),
    Format(
        "doip",
        Codec.choice(
            {
                version: Codec.uint(
                    4,
                    length_offset=4,
                    constants={0: bytes((version, version ^ 0xFF))},
                    max_message_size=None,
                )
                for version in (1, 2, 3, 4, 0xFF)
            }
        ),
        "diagnostics of cars: version, its inverse, payload type (2), payload",
        "ISO 13400-2, section 9.2",
    ),
    Format(
        "hart-ip",
        Codec.choice(
            {
                b"\x01\x02": Codec.uint(
                    2, length_offset=6, length_includes="frame", max_message_size=None
                )
            }
        ),
        "version, message type, message id, status, sequence number (2), body",
        "FieldComm HCF_SPEC-085, 'HART-IP message header'",
    ),
    Format(
        "c37118",
        Codec.uint(
            2,
            magic=b"\xaa",
            length_offset=2,
            length_includes="frame",
            check=Check("crc16-ccitt-false", 2, covers="frame"),
            min_message_size=11,
        ),
        "synchrophasors: type and version, id (2), time (4), fraction (4), data; CRC verified",
        "IEEE C37.118.2-2011, section 6.2",
    ),
    Format(
        "knx",
        Codec.uint(2, magic=b"\x06\x10", length_offset=4, length_includes="frame"),
        "KNXnet/IP over TCP: service type (2), body",
        "KNX Standard 03_08_02, 'KNXnet/IP frame'",
    ),
    Format(
        "hislip",
        Codec.uint(8, magic=b"HS", length_offset=8),
        "instruments: message type, control code, parameter (4), payload",
        "IVI-6.1, section 2.3",
    ),
    Format(
        "zabbix",
        Codec.choice(
            {
                b"\x01\x03": Codec.uint(
                    4,
                    "little",
                    magic=b"ZBXD",
                    length_offset=5,
                    length_adjustment=4,
                    max_message_size=None,
                ),
                b"\x05\x07": Codec.uint(
                    8,
                    "little",
                    magic=b"ZBXD",
                    length_offset=5,
                    length_adjustment=8,
                    max_message_size=None,
                ),
            },
            offset=4,
        ),
        "monitoring: flags (1, compressed 2, large 4), size before compression (4 or 8), data",
        "Zabbix documentation, 'Header and data length'",
    ),
    Format(
        "dlms",
        Codec.uint(2, length_offset=6, constants={0: b"\x00\x01"}),
        "meters, the wrapper over TCP: version (2: 1), source (2), destination (2), APDU",
        "IEC 62056-47, section 5.3",
    ),
    Format(
        "someip",
        Codec.uint(4, length_offset=4, constants={12: b"\x01"}, min_message_size=12),
        "cars: message id (4), request id (4), version 1, interface, type, return code, payload",
        "AUTOSAR, 'SOME/IP Protocol Specification', section 4.1",
    ),
    Format(
        "iec104",
        Codec.uint(1, magic=b"\x68", min_message_size=4, max_message_size=253),
        "telecontrol: control field (4), ASDU",
        "IEC 60870-5-104, section 5.1",
    ),
    Format(
        "dnp3",
        Codec.custom(
            _shapes.parse_dnp3,
            _shapes.build_dnp3,
            max_header=290,
            magic=b"\x05\x64",
            max_message_size=255,
        ),
        "control, destination (2), source (2), user data; the CRCs are verified and left out",
        "IEEE 1815-2012, section 9",
    ),
    Format(
        "enip",
        Codec.choice(
            {
                b"\x00\x04\x63\x64\x65\x66\x6f\x70\x72\x73": Codec.uint(
                    2,
                    "little",
                    length_offset=2,
                    length_adjustment=20,
                    constants={1: b"\x00", 20: bytes(4)},
                    max_message_size=None,
                )
            }
        ),
        "EtherNet/IP: command (2), session, status, context (8), options, data",
        "ODVA, The CIP Networks Library, volume 2, section 2-3",
    ),
    Format(
        "opcua",
        Codec.choice(
            {
                kind[0]: Codec.uint(
                    4,
                    "little",
                    length_offset=4,
                    length_includes="frame",
                    constants={0: kind},
                    max_message_size=None,
                )
                for kind in (b"HELF", b"ACKF", b"ERRF", b"RHEF", b"OPNF", b"CLOF", b"MSG")
            }
        ),
        "OPC UA: message type (3), chunk type, body",
        "OPC 10000-6, section 7.1.2.2",
    ),
    Format(
        "dicom",
        Codec.choice(
            {b"\x01\x02\x03\x04\x05\x06\x07": Codec.uint(4, length_offset=2, max_message_size=None)}
        ),
        "medical images: PDU type, reserved byte, data",
        "DICOM PS3.8, section 9.3",
    ),
    Format(
        "esphome",
        Codec.custom(_shapes.parse_esphome, _shapes.build_esphome, max_header=10, magic=b"\x00"),
        "the native API in plain text: type (a varint), protobuf message",
        "ESPHome, esphome/components/api/api_frame_helper_plaintext.cpp",
    ),
    Format(
        "esphome-noise",
        Codec.uint(2, magic=b"\x01"),
        "the native API, encrypted: handshake and data frames",
        "ESPHome, esphome/components/api/api_frame_helper_noise.cpp",
    ),
    Format(
        "x11",
        _X11,
        "requests of little-endian clients, BIG-REQUESTS too: opcode, data byte, rest",
        "X Window System Protocol, chapter 1, 'Requests'; BIG-REQUESTS extension",
    ),
    Format(
        "x11-setup",
        Codec.fixed(12, constants={0: b"l", 2: b"\x0b\x00\x00\x00"}),
        "what opens a little-endian client: the sizes of two names that follow (2 each, at 6)",
        "X Window System Protocol, chapter 8, 'Connection Setup'",
    ),
    Format(
        "i3-ipc",
        Codec.uint(4, "native", magic=b"i3-ipc", length_adjustment=4),
        "i3 and sway: type (4), JSON",
        "i3 documentation, 'IPC interface', 'Sending messages to i3'",
    ),
    # Peers and games.
    Format(
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
    Format(
        "bittorrent",
        Codec.uint(4),
        "after the handshake: id, payload; an empty message keeps the connection alive",
        "BEP 3, 'peer messages'",
    ),
    Format(
        "bittorrent-handshake",
        Codec.fixed(48, magic=b"\x13BitTorrent protocol"),
        "what opens a connection: reserved (8), info hash (20), peer id (20)",
        "BEP 3, 'peer protocol'",
    ),
    Format(
        "minecraft",
        Codec.varint(max_width=3, min_message_size=1),
        "Java Edition without compression: packet id, data",
        "Minecraft Wiki, 'Java Edition protocol/Packets', 'Packet format'",
    ),
    Format(
        "rcon",
        Codec.uint(4, "little", signed=True, min_message_size=10, max_message_size=4096),
        "Source servers: id (4), type (4), text and two zeros",
        "Valve Developer Community, 'Source RCON Protocol'",
    ),
)
