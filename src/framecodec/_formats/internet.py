"""Formats of the web and of networks."""

from __future__ import annotations

from .. import _shapes, _text_shapes
from .._catalogue import Format
from ..codec import Codec

__all__ = ["ROWS"]

ROWS: tuple[Format, ...] = (
    # The web.
    Format(
        "tls",
        Codec.uint(2, length_offset=3, constants={1: b"\x03"}, max_message_size=3 + 2**14 + 2048),
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
        Codec.text(b"\r\n", base=16, leading_zeros=True, trailer=b"\r\n"),
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
        Codec.custom(_shapes.parse_websocket, _shapes.build_websocket, max_header=10),
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
    # Networks.
    Format(
        "dns",
        Codec.uint(2, min_message_size=12),
        "over TCP and TLS",
        "RFC 1035, section 4.2.2; RFC 7858, section 3.3",
    ),
    Format(
        "kerberos",
        Codec.uint(4, signed=True, min_message_size=2),
        "over TCP: a KRB message",
        "RFC 4120, section 7.2.2",
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
        Codec.uint(4, length_offset=8),
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
        Codec.uint(2, magic=b"$", length_offset=2),
        "interleaved binary data: channel, data; requests and responses are text",
        "RFC 7826, section 14; RFC 2326, section 10.12",
    ),
    Format(
        "bgp",
        Codec.uint(
            2,
            magic=b"\xff" * 16,
            length_includes="frame",
            min_message_size=1,
            max_message_size=4096 - 18,
        ),
        "type, body",
        "RFC 4271, section 4.1",
    ),
    Format(
        "bmp",
        Codec.uint(4, magic=b"\x03", length_includes="frame", min_message_size=1),
        "BGP monitoring: type, data",
        "RFC 7854, section 4.1",
    ),
    Format(
        "rpki-rtr",
        Codec.uint(4, length_offset=4, length_includes="frame"),
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
        Codec.uint(2, length_offset=2, length_includes="frame", min_message_size=6),
        "version, type, transaction id (4), body",
        "OpenFlow Switch Specification 1.3, section 7.1",
    ),
    Format(
        "ssh",
        Codec.uint(4, min_message_size=12),
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
