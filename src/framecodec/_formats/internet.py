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
        Codec.uint(2, length_offset=3, max_message_size=3 + 2**14 + 2048),
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
        "http-chunk",
        Codec.text(b"\r\n", base=16, trailer=b"\r\n"),
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
        Codec.uint(2),
        "over TCP and TLS",
        "RFC 1035, section 4.2.2; RFC 7858, section 3.3",
    ),
    Format("rtp", Codec.uint(2), "RTP and RTCP over a stream", "RFC 4571, section 2"),
    Format(
        "rtsp",
        Codec.uint(2, magic=b"$", length_offset=2),
        "interleaved binary data: channel, data; requests and responses are text",
        "RFC 7826, section 14; RFC 2326, section 10.12",
    ),
    Format(
        "bgp",
        Codec.uint(2, magic=b"\xff" * 16, length_includes="frame", max_message_size=4096 - 18),
        "type, body",
        "RFC 4271, section 4.1",
    ),
    Format(
        "bmp",
        Codec.uint(4, magic=b"\x03", length_includes="frame"),
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
        Codec.uint(2, magic=b"\x00\x0a", length_includes="frame"),
        "over TCP: export time, sequence number, domain id (4 each), sets",
        "RFC 7011, sections 3.1 and 10.4",
    ),
    Format(
        "openflow",
        Codec.uint(2, length_offset=2, length_includes="frame"),
        "version, type, transaction id (4), body",
        "OpenFlow Switch Specification 1.3, section 7.1",
    ),
    Format(
        "ssh",
        Codec.uint(4),
        "after the version lines, before NEWKEYS: padding length, payload, padding",
        "RFC 4253, section 6",
    ),
    Format(
        "ssh-agent",
        Codec.uint(4, max_message_size=256 * 1024),
        "type, contents",
        "draft-ietf-sshm-ssh-agent, section 3",
    ),
    Format(
        "tpkt",
        Codec.uint(2, magic=b"\x03", length_offset=2, length_includes="frame"),
        "ISO transport on TCP (RDP, S7, H.323): reserved byte (0), TPDU",
        "RFC 1006, section 6",
    ),
)
