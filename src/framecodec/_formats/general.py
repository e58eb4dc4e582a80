"""Formats of no protocol in particular: plain lengths, and the modes of languages and libraries."""

from __future__ import annotations

from .._catalogue import Format
from ..codec import Codec

__all__ = ["ROWS"]

ROWS: tuple[Format, ...] = (
    # Plain lengths.
    Format(
        "ascii4",
        Codec.digits(4),
        "four decimal digits: 0005hello",
        "none; str(n).zfill(4), and ISO 8583 links by agreement",
    ),
    Format(
        "struct-i",
        Codec.struct("i"),
        "struct.pack('i', n): an int in the size and byte order of this machine",
        "Python library reference, struct, 'Format Characters'",
    ),
    Format(
        "netstring",
        Codec.text(b":", trailer=b","),
        "decimal digits and a colon before, a comma after: 5:hello,",
        "D. J. Bernstein, Netstrings (1997-02-01)",
    ),
    Format(
        "lines",
        Codec.delimiter(b"\n", b"\r\n"),
        "lines of text: LF ends them, CR LF is read, too",
        "POSIX.1-2017, section 3.206, 'Line'; RFC 5234, appendix B.1",
    ),
    Format(
        "nul",
        Codec.delimiter(b"\x00"),
        "strings that end with NUL: find -print0, Varlink",
        "none; the C language, 'string'",
    ),
    Format(
        "ndjson",
        Codec.delimiter(b"\n", b"\r\n", skip_empty=True),
        "JSON, one value a line (JSON Lines, GELF streams, Stratum); empty lines are skipped",
        "ndjson specification 1.0",
    ),
    Format(
        "slip",
        Codec.delimiter(
            b"\xc0", escape={b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}, skip_empty=True
        ),
        "serial lines: END after each packet, escapes inside it",
        "RFC 1055",
    ),
    Format(
        "cobs",
        Codec.cobs(),
        "consistent-overhead byte stuffing, a zero after each packet",
        "Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999",
    ),
    Format(
        "bson",
        Codec.uint(4, "little", signed=True, length_includes="frame", trailer=b"\x00"),
        "BSON documents: the elements, without length and final zero; raw=True gives documents",
        "BSON 1.1, 'Specification'",
    ),
    Format(
        "avro",
        Codec.uint(4),
        "buffers of Avro RPC; an empty one ends a message",
        "Apache Avro 1.11, 'Message Framing'",
    ),
    Format(
        "protobuf",
        Codec.varint(),
        "protobuf messages after a varint (writeDelimitedTo, protodelim)",
        "Protocol Buffers, Encoding, 'Base 128 Varints'; 'Techniques', streaming",
    ),
    Format(
        "erlang1",
        Codec.uint(1),
        "{packet, 1}",
        "Erlang/OTP, inet:setopts/2, option packet",
    ),
    Format(
        "erlang2",
        Codec.uint(2),
        "{packet, 2}",
        "Erlang/OTP, inet:setopts/2, option packet",
    ),
    Format(
        "erlang4",
        Codec.uint(4),
        "{packet, 4}",
        "Erlang/OTP, inet:setopts/2, option packet",
    ),
    Format(
        "iso8583",
        Codec.uint(2),
        "card payment links with a binary length (in digits: ascii4)",
        "none; ISO 8583 leaves the link to the partners",
    ),
    Format(
        "multiprocessing",
        Codec.choice(
            {
                0: Codec.uint(4, max_message_size=None),
                0x80: Codec.uint(8, magic=b"\xff\xff\xff\xff", max_message_size=None),
            },
            mask=0x80,
        ),
        "multiprocessing.connection: an int, or -1 and 8 bytes from 2 GiB up",
        "CPython, Lib/multiprocessing/connection.py, Connection._send_bytes",
    ),
    Format(
        "native-messaging",
        Codec.uint(4, "native"),
        "browser extensions to their hosts; to the browser at most 1 MiB",
        "Chrome for Developers, Native messaging, 'Native messaging protocol'",
    ),
    Format(
        "sasl-buffer",
        Codec.uint(4),
        "what each side sends after SASL negotiated a security layer (LDAP, IMAP, AMQP)",
        "RFC 4422, section 3.7",
    ),
)
