"""Formats of the web and of networks."""

from __future__ import annotations

from .. import _shapes, _text_shapes
from .._catalogue import Format
from ..codec import Codec

__all__ = ["ROWS"]

_SOCKS5 = {0: b"\x05", 2: b"\x00"}


_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # what requests and responses of text begin with


def _proxy_header(addresses: int) -> Codec:
    """Return the codec of a binary PROXY header whose addresses have at least that many bytes."""
    return Codec.uint(
        2,
        magic=b"\r\n\r\n\0\r\nQUIT\n",
        length_offset=14,
        min_message_size=2 + addresses,
        max_message_size=None,
    )


_WEBSOCKET_WIDER = {126: "u16be", 127: "u64be"}


def _websocket_form(
    masked: int,
    wider: dict[int, str] | None,
    *,
    min_message_size: int = 0,
    max_message_size: int | None = None,
) -> Codec:
    return Codec.uint(
        1,
        length_offset=1,
        length_mask=0x7F,
        length_adjustment=4 if masked else 0,
        wider=wider,
        min_message_size=min_message_size,
        max_message_size=max_message_size,
    )


def _websocket(*, is_control: bool) -> Codec:
    """Return the codec of a frame, masked or not, whose first byte is verified already."""
    if is_control:  # the payload has at most 125 bytes
        forms = {
            masked: _websocket_form(masked, None, max_message_size=2 + 4 + 125)
            for masked in (0, 0x80)
        }
        return Codec.choice(forms, offset=1, mask=0x80, max_message_size=None)
    data: dict[int | bytes, Codec] = {}
    for masked in (0, 0x80):
        data[bytes(range(masked, masked + 127))] = _websocket_form(masked, _WEBSOCKET_WIDER)
        long = _websocket_form(masked, _WEBSOCKET_WIDER, min_message_size=1 << 16)
        # The length has 63 bits.
        data[masked + 127] = Codec.choice({0: long}, offset=2, mask=0x80, max_message_size=None)
    return Codec.choice(data, offset=1, max_message_size=None)


def _coap(token_size: int) -> Codec:
    """Return the codec of messages with a token of this size."""
    # The upper 4 bits of the first byte are the size of options and payload, or 13 to 15: then it
    # follows in 1, 2 or 4 bytes, less than what a shorter form can say.
    owned = 1 + token_size
    forms: dict[int, Codec] = {size << 4: Codec.fixed(1 + owned + size) for size in range(13)}
    for value, width, least in ((13, 1, 13), (14, 2, 269), (15, 4, 65805)):
        forms[value << 4] = Codec.uint(
            width, length_offset=1, length_adjustment=least + owned, max_message_size=None
        )
    return Codec.choice(forms, mask=0xF0, keep=False, max_message_size=None)


_BGP_MARKER = b"\xff" * 16


def _bgp(least: int) -> Codec:
    """Return the codec of a type whose smallest message has this size, its header included."""
    return Codec.uint(
        2,
        magic=_BGP_MARKER,
        length_includes="frame",
        min_message_size=least - 18,
        max_message_size=None,
    )


ROWS: tuple[Format, ...] = (
    # The web.
    Format(
        "tls",
        Codec.choice(
            {
                b"\x14\x15\x16\x17\x18": Codec.uint(
                    2, length_offset=3, constants={1: b"\x03"}, max_message_size=None
                )
            },
            max_message_size=3 + 2**14 + 2048,
        ),
        "records: type, version (2), fragment",
        "RFC 8446, section 5.1; RFC 5246, section 6.2",
    ),
    Format(
        "http2",
        Codec.uint(3, length_adjustment=6, max_message_size=6 + 2**24 - 1),
        "after the preface: type, flags, stream (4), payload",
        "RFC 9113, section 4.1",
    ),
    Format(
        "http2-preface",
        Codec.fixed(24, constants={0: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}),
        "what a client sends before its first frame",
        "RFC 9113, section 3.4",
    ),
    Format(
        "http-chunk",
        Codec.text(b"\r\n", base=16, leading_zeros=True, trailing_blanks=True, trailer=b"\r\n"),
        "chunks without extensions; an empty one is the end, without trailer fields",
        "RFC 9112, section 7.1",
    ),
    Format(
        "http1",
        Codec.custom(
            _text_shapes.parse_http1, _text_shapes.build_http1, max_header=_text_shapes.LONGEST_TEXT
        ),
        "HTTP/1.1: a whole request or response, chunked ones up to 1 MiB; not the answer to HEAD",
        "RFC 9112, sections 2.1, 6 and 7.1",
    ),
    Format(
        "websocket",
        Codec.choice(
            {
                b"\x00\x01\x02\x80\x81\x82": _websocket(is_control=False),
                b"\x88\x89\x8a": _websocket(is_control=True),  # never fragmented: FIN is set
            },
            mask=0x8F,
        ),
        "FIN and opcode, mask bit (0x80 or 0), masking key (4) if masked, payload",
        "RFC 6455, section 5.2",
    ),
    Format(
        "fastcgi",
        Codec.custom(_shapes.parse_fastcgi, _shapes.build_fastcgi, max_header=7, magic=b"\x01"),
        "type, request id (2), padding length, reserved, content, padding",
        "FastCGI Specification 1.0, section 3.3",
    ),
    Format(
        "uwsgi",
        Codec.uint(2, "little", length_offset=1, length_adjustment=1),
        "modifier1, modifier2, variables",
        "uWSGI documentation, 'The uwsgi Protocol'",
    ),
    Format(
        "ajp13",
        Codec.choice(
            {
                0x12: Codec.uint(
                    2, length_offset=2, constants={0: b"\x12\x34"}, max_message_size=None
                ),
                0x41: Codec.uint(2, length_offset=2, constants={0: b"AB"}, max_message_size=None),
            }
        ),
        "servlet containers: 12 34 to the container, AB from it, then the data",
        "Apache Tomcat Connectors, 'AJPv13', 'Packet Headers'",
    ),
    # Networks.
    Format(
        "dns",
        Codec.uint(2, min_message_size=12),
        "over TCP and TLS",
        "RFC 1035, section 4.2.2; RFC 7858, section 3.3",
    ),
    Format(
        "kerberos",
        Codec.choice(
            {
                0: Codec.choice(  # the reserved bit of the length is 0
                    {
                        b"\x6a\x6b\x6c\x6d\x7e": Codec.uint(
                            4, signed=True, min_message_size=2, max_message_size=None
                        )
                    },
                    offset=4,
                    max_message_size=None,
                )
            },
            mask=0x80,
        ),
        "over TCP: AS-REQ, AS-REP, TGS-REQ, TGS-REP and KRB-ERROR",
        "RFC 4120, sections 5.4, 5.9.1 and 7.2.2",
    ),
    Format(
        "openvpn",
        Codec.uint(2, min_message_size=1),
        "over TCP: opcode and key id, data",
        "OpenVPN, 'Network protocol', 'TCP mode'",
    ),
    Format(
        "pptp",
        Codec.uint(
            2,
            length_includes="frame",
            constants={2: b"\x00\x01", 4: b"\x1a\x2b\x3c\x4d"},
            min_message_size=10,
        ),
        "control: message type (2: 1), cookie (4), control type (2), reserved (2), data",
        "RFC 2637, section 2",
    ),
    Format(
        "ldp",
        Codec.uint(2, length_offset=2, constants={0: b"\x00\x01"}, min_message_size=8),
        "label distribution: version (2: 1), LSR id (4), label space (2), messages",
        "RFC 5036, section 3.1",
    ),
    Format(
        "tacacs",
        Codec.choice(
            {
                b"\xc0\xc1": Codec.choice(  # the type is 1 to 3
                    {0: Codec.uint(4, length_offset=8, max_message_size=None)},
                    offset=1,
                    mask=0xFC,
                    max_message_size=None,
                )
            }
        ),
        "TACACS+: version, type, sequence number, flags, session id (4), body",
        "RFC 8907, section 4.1",
    ),
    Format(
        "skinny",
        Codec.uint(
            4,
            "little",
            length_adjustment=4,
            constants={5: b"\x00\x00\x00"},
            min_message_size=8,
        ),
        "telephones of Cisco (SCCP): header version (4), message id (4), data",
        "Cisco SCCP; dissector packet-skinny.c of Wireshark",
    ),
    Format(
        "rtp",
        Codec.uint(2),
        "RTP and RTCP over a stream; STUN in ICE over TCP",
        "RFC 4571, section 2; RFC 6544, section 3",
    ),
    Format(
        "rtsp",
        Codec.choice(
            {
                _UPPER: Codec.headers(
                    start_line=(b"RTSP/1.0", b"RTSP/2.0"), keep=True, max_message_size=None
                ),
                # A channel that is a letter would look like a request or a response.
                ord("$"): Codec.choice(
                    {
                        bytes(channel for channel in range(256) if channel not in _UPPER): (
                            Codec.uint(2, magic=b"$", length_offset=2, max_message_size=None)
                        )
                    },
                    offset=1,
                    max_message_size=None,
                ),
            }
        ),
        "a request or a response as it travels, or interleaved data: channel (not 65 to 90), data",
        "RFC 7826, sections 5 and 14; RFC 2326, sections 4 and 10.12",
    ),
    Format(
        "rtmp-handshake",
        Codec.fixed(1536, magic=b"\x03"),
        "what opens RTMP, both ways: version 3, then time (4), zeros or a version (4), random",
        "Adobe, 'Real Time Messaging Protocol (RTMP) specification' 1.0, sections 5.2.2 and 5.2.3",
    ),
    Format(
        "sip",
        Codec.choice(
            {
                _UPPER: Codec.headers(
                    names=("l",), start_line=b"SIP/2.0", keep=True, max_message_size=None
                ),
                ord("\r"): Codec.fixed(2, constants={0: b"\r\n"}),
            }
        ),
        "over TCP or TLS: a request or a response as it travels; CR LF: a half ping, or the answer",
        "RFC 3261, sections 7, 18.3 and 20.14; RFC 5626, section 4.4.1",
    ),
    Format(
        "proxy-protocol",
        Codec.choice(
            {
                ord("P"): Codec.choice(
                    {
                        # A line has at most 107 bytes.
                        b"TU": Codec.delimiter(
                            b"\r\n", magic=b"PROXY ", min_message_size=4, max_message_size=99
                        )
                    },
                    offset=6,
                    max_message_size=None,
                ),
                ord("\r"): Codec.choice(
                    {
                        0x20: _proxy_header(0),
                        0x21: Codec.choice(
                            {
                                b"\x00\x01\x02\x10\x20\x30": _proxy_header(0),
                                b"\x11\x12": _proxy_header(12),
                                b"\x21\x22": _proxy_header(36),
                                b"\x31\x32": _proxy_header(216),
                            },
                            offset=13,
                            max_message_size=None,
                        ),
                    },
                    offset=12,
                    max_message_size=None,
                ),
            }
        ),
        "version 1: the line after PROXY; version 2: version and command, family, addresses",
        "The PROXY protocol, versions 1 and 2, sections 2.1 and 2.2",
    ),
    Format(
        "coap-tcp",
        Codec.choice({size: _coap(size) for size in range(9)}, mask=0x0F),
        "size of the token, code, token, options and payload; the codec owns the length's 4 bits",
        "RFC 8323, section 3.2",
    ),
    Format(
        "bgp",
        Codec.choice(
            {
                1: _bgp(29),
                2: _bgp(23),
                3: _bgp(21),
                4: Codec.fixed(1, magic=_BGP_MARKER + b"\x00\x13"),  # KEEPALIVE has 19 bytes
                5: _bgp(23),
            },
            offset=18,
            max_message_size=4096 - 18,
        ),
        "type, body",
        "RFC 4271, sections 4.1 and 6.1; RFC 2918, section 3",
    ),
    Format(
        "bmp",
        Codec.uint(4, magic=b"\x03", length_includes="frame", min_message_size=1),
        "BGP monitoring: type, data",
        "RFC 7854, section 4.1",
    ),
    Format(
        "rpki-rtr",
        Codec.choice(
            {
                b"\x00\x01\x02": Codec.uint(
                    4, length_offset=4, length_includes="frame", max_message_size=None
                )
            }
        ),
        "RPKI to router: version, type, session id (2), data",
        "RFC 8210, section 5.1",
    ),
    Format(
        "ipfix",
        Codec.uint(2, magic=b"\x00\x0a", length_includes="frame", min_message_size=12),
        "over TCP: export time, sequence number, domain id (4 each), sets",
        "RFC 7011, sections 3.1 and 10.4",
    ),
    Format(
        "openflow",
        Codec.choice(
            {
                b"\x01\x02\x03\x04\x05\x06": Codec.uint(
                    2,
                    length_offset=2,
                    length_includes="frame",
                    min_message_size=6,
                    max_message_size=None,
                )
            }
        ),
        "version, type, transaction id (4), body",
        "OpenFlow Switch Specification 1.3, section 7.1",
    ),
    Format(
        "ssh",
        Codec.choice(  # the size of a frame is a multiple of 8, the padding at least 4 bytes
            {
                4: Codec.choice(
                    {
                        bytes(range(4, 256)): Codec.uint(
                            4, min_message_size=12, max_message_size=None
                        )
                    },
                    offset=4,
                    max_message_size=None,
                )
            },
            offset=3,
            mask=0x07,
        ),
        "after the version lines, before NEWKEYS: padding length, payload, padding",
        "RFC 4253, section 6",
    ),
    Format(
        "ssh-version",
        Codec.delimiter(b"\r\n", b"\n", max_message_size=253),
        "what opens SSH: a line that begins with SSH-2.0-; a server may send others before it",
        "RFC 4253, section 4.2",
    ),
    Format(
        "ssh-agent",
        Codec.uint(4, min_message_size=1, max_message_size=256 * 1024),
        "type, contents",
        "draft-ietf-sshm-ssh-agent, section 3",
    ),
    Format(
        "mtproto",
        Codec.choice(
            {
                bytes(range(0x7F)): Codec.uint(1, length_unit=4, max_message_size=None),
                0x7F: Codec.uint(3, "little", magic=b"\x7f", length_unit=4, max_message_size=None),
            }
        ),
        "Telegram, the abridged transport, after the byte ef",
        "Telegram, 'MTProto transports', 'Abridged'",
    ),
    Format(
        "mtproto-intermediate",
        Codec.uint(4, "little", signed=True),
        "Telegram, the intermediate transport, after ee ee ee ee",
        "Telegram, 'MTProto transports', 'Intermediate'",
    ),
    Format(
        "tpkt",
        Codec.uint(
            2, magic=b"\x03", length_offset=2, length_includes="frame", constants={1: b"\x00"}
        ),
        "ISO transport on TCP (RDP, S7, H.323): reserved byte (0), TPDU",
        "RFC 1006, section 6",
    ),
    Format(
        "rdp",
        Codec.choice(
            {
                0x03: Codec.uint(
                    2,
                    length_offset=2,
                    length_includes="frame",
                    constants={0: b"\x03\x00"},
                    max_message_size=None,
                ),
                0x00: Codec.choice(
                    {
                        0x00: Codec.uint(
                            1, length_offset=1, length_includes="frame", max_message_size=None
                        ),
                        # The top bit of the length is always set, and is not a part of its value.
                        0x80: Codec.uint(
                            2, length_offset=1, length_adjustment=-0x8003, max_message_size=None
                        ),
                    },
                    offset=1,
                    mask=0x80,
                    max_message_size=None,
                ),
            },
            mask=0x03,
        ),
        "TPKT (03 00, then the TPDU) and fast-path PDUs (action and flags, then the updates)",
        "MS-RDPBCGR, sections 2.2.8.1.2 and 2.2.9.1.2; RFC 1006, section 6",
    ),
    Format(
        "socks5",
        Codec.choice(
            {
                1: Codec.fixed(10, constants=_SOCKS5),
                3: Codec.uint(
                    1,
                    length_offset=4,
                    length_adjustment=2,
                    constants=_SOCKS5,
                    max_message_size=None,
                ),
                4: Codec.fixed(22, constants=_SOCKS5),
            },
            offset=3,
        ),
        "requests and replies: version 5, command or reply, 0, address type, address, port (2)",
        "RFC 1928, sections 4 and 6",
    ),
    Format(
        "socks5-greeting",
        Codec.uint(1, magic=b"\x05", min_message_size=1),
        "what a client opens with: the methods that it offers",
        "RFC 1928, section 3",
    ),
    Format(
        "socks5-method",
        Codec.fixed(1, magic=b"\x05"),
        "the server's answer to the greeting: a method, or ff for none",
        "RFC 1928, section 3",
    ),
)
