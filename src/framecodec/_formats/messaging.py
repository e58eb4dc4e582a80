"""Formats of messaging, and of the network services that are not of the web."""

from __future__ import annotations

from .. import _text_shapes
from .._catalogue import Format
from ..codec import Codec
from .services import whole_frame

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

# The reserved bits are 0; all but the highest are 1 in what libzmq 2.1 sends, against the rules.
_ZMTP1_FLAGS = b"\x00\x01\x7e"


def _zmtp1_long(least: int) -> Codec:
    return Codec.uint(8, magic=b"\xff", min_message_size=least, max_message_size=None)


ROWS: tuple[Format, ...] = (
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
                    {b"\x00\x01": whole_frame(4)}, offset=5, max_message_size=None
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
        Codec.choice(
            {
                bytes(range(1, 255)): Codec.choice(
                    {
                        _ZMTP1_FLAGS + b"\x7f": Codec.uint(
                            1, min_message_size=1, max_message_size=254
                        )
                    },
                    offset=1,
                    max_message_size=None,
                ),
                255: Codec.choice(
                    # Later versions open with a greeting that looks like a short frame in the long
                    # form, with the flags 7f.
                    {_ZMTP1_FLAGS: _zmtp1_long(1), 0x7F: _zmtp1_long(255)},
                    offset=9,
                    max_message_size=None,
                ),
            }
        ),
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
            {
                b"\x00\x80": Codec.choice(
                    {b"\x00\x01": whole_frame(12)}, offset=5, max_message_size=None
                )
            },
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
