"""The formats whose shape needs code: what their parse and build functions accept and refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framecodec import InvalidFrameError, formats

# First bytes that make a message of any bytes after them.
LEADS = {
    "zmtp": st.sampled_from([b"\x00", b"\x01", b"\x04"]),
    "websocket": st.sampled_from([b"\x81\x00", b"\x82\x80abcd"]),
    "fastcgi": st.sampled_from([b"\x06\x00\x01\x00\x00"]),
    "giop": st.sampled_from([b"\x01\x02\x00\x05", b"\x01\x02\x01\x05"]),
    "dbus": st.sampled_from(
        [b"l\x01\x00\x01\x01" + bytes(7), b"B\x01\x00\x01\x00\x00\x00\x01" + bytes(4)]
    ),
    "ber": st.sampled_from([b"\x30", b"\x1f\x81\x00"]),
    "esphome": st.sampled_from([b"\x07", b"\x82\x01"]),
    "multiprocessing": st.just(b""),
}


@pytest.mark.parametrize("name", LEADS)
@given(data=st.data())
def test_build_makes_a_header_that_parse_reads(name: str, data: st.DataObject) -> None:
    lead = data.draw(LEADS[name])
    size = data.draw(st.one_of(st.integers(0, 300), st.sampled_from([65_530, 65_536, 70_000])))
    if name == "fastcgi":
        size = min(size, 0xFFFF)
    message = lead + bytes(size)
    assert formats[name].decode(formats[name].encode(message)) == message


def test_parse_names_what_it_found_in_an_invalid_header() -> None:
    with pytest.raises(InvalidFrameError, match=r"magic b'.xff.xff.xff.xff'"):
        formats.multiprocessing.decode(b"\xff\xff\xff\xfe")
    with pytest.raises(InvalidFrameError, match=r"the byte 0x08 at offset 0 .* chooses nothing"):
        formats.zmtp.decode(b"\x08\x00")
    with pytest.raises(InvalidFrameError, match="the indefinite form"):
        formats.ldap.decode(b"\x30\x80")


@pytest.mark.parametrize(
    ("name", "message", "reason"),
    [
        ("fastcgi", b"\x06\x00\x01\x02\x00a", "it declares 2 bytes of padding, more than it has"),
        ("dbus", b"x" + bytes(11), "the byte order must be l or B, not b'x'"),
        (
            "dbus",
            b"l\x01\x00\x01\x01" + bytes(3) + b"\x01\x00\x00\x00",
            "fewer bytes than its header fields",
        ),
        (
            "dbus",
            b"B\x01\x00\x01\x01" + bytes(3) + b"\x04\x00\x00\x01",
            "67108865 bytes; D-Bus allows 67108864",
        ),
        ("cassandra-v5", b"\x02" + bytes(7), "self-contained flag, 0 or 1, not 0x2"),
    ],
)
def test_build_names_what_it_found_in_an_impossible_message(
    name: str, message: bytes, reason: str
) -> None:
    with pytest.raises(InvalidFrameError, match=f"message cannot be encoded: .*{reason}"):
        formats[name].encode(message)


@pytest.mark.parametrize(
    ("name", "message", "reason"),
    [
        ("dbus", b"l\x00\x00\x01\x01" + bytes(7), "the message type 0 is invalid"),
        ("dbus", b"l\x01\x00\x02\x01" + bytes(7), "the protocol version must be 1, not 2"),
        ("dbus", b"l\x01\x00\x01" + bytes(8), "the serial number must not be 0"),
        ("fastcgi", b"\x0c\x00\x01\x00\x00", "the type must be 1 to 11, not 12"),
        ("cassandra-v5", bytes(8), "the CRC24 of the header is .*, not 000000"),
        ("resp", b"+OK", "it must be exactly one whole frame"),
        ("resp", b"*1\r\nx\r\n", "b'x' is not a type of RESP"),
        ("resp", b"$2000\r\n" + bytes(2002), r"it must end with b'\\r\\n'"),
        ("nats", b"PUB a 5\r\nhell", "its line announces a body of 5 bytes, and 4 follow"),
        ("nats", b"PING\n", "its line contains an LF"),
        ("memcached-text", b"set a\r\n", "b'set' without the size of its data"),
        ("stomp", b"SEND\n\nhello", "it must be exactly one whole frame"),
        ("http1", b"GET / HTTP/1.1\r\nA: \r\r\n\r\n", "the A header contains a control character"),
        ("esphome", b"\x81", "it must begin with its type, a varint"),
    ],
)
def test_build_refuses_a_message_that_parse_would_refuse(
    name: str, message: bytes, reason: str
) -> None:
    with pytest.raises(InvalidFrameError, match=f"message cannot be encoded: {reason}"):
        formats[name].encode(message)


@pytest.mark.parametrize(
    ("name", "message", "reason"),
    [
        ("zmtp", b"\x02a", "the bits 0x02 of byte 0 of the message belong to the codec"),
        ("websocket", b"\x81\x01", "where the bits 0x7f belong to the length"),
        ("websocket", b"\x81\x80abc", "message too small: 5 bytes"),
        ("ber", b"\x1f" + b"\x81" * 5, "would choose no alternative"),
        ("x11", b"\x01\x00abc", "units of 4 bytes"),
    ],
)
def test_a_choice_names_what_it_found_in_an_impossible_message(
    name: str, message: bytes, reason: str
) -> None:
    with pytest.raises(InvalidFrameError, match=reason):
        formats[name].encode(message)


INVALID_STREAMS = [
    ("cassandra-v5", b"\x00\x00\x04" + bytes(5), "the padding bits of the header are not 0"),
    ("dnp3", b"\x05\x64\x04" + bytes(7), "the length must be at least 5, not 4"),
    ("dnp3", bytes.fromhex("056405c001000004e922"), "the CRC of a block is e921, not e922"),
    ("esphome", b"\x00\x80\x00", "a varint is not in its shortest form"),
    ("esphome", b"\x00" + b"\x80" * 5, "a varint does not end within 5 bytes"),
    ("resp", b"*-1\n", "a line ends with LF, and the CR before it is missing"),
    ("resp", b"+O\rK\r\n", "a line contains a CR"),
    ("resp", b"*01\r\n", "the number of values must be .* without leading zeros, not b'01'"),
    ("resp", b"*2\r\n$1\r\nab\r\n", r"b'b.*' follows a string instead of CR LF"),
    ("resp", b"$1\r\nab\r\n", r"b'b.*' follows the body instead of b'\\r\\n'"),
    ("nats", b"POST a\r\n", "b'POST' is not a verb of NATS"),
    ("nats", b"PUB a\r\n", "b'PUB' with 1 words"),
    ("nats", b"\r\n", "b'' is not a verb of NATS"),
    ("memcached-text", b"?\r\n", r"b'\?' is neither a command nor an answer"),
    ("stomp", b"\rSEND", "a CR between two frames without an LF"),
    ("stomp", b"send\n\n\0", "b's.*' is not a command of STOMP"),
    ("stomp", b"SEND1", "b'SEND1' is not a command of STOMP"),
    ("stomp", b"SEND\ncontent-length:1\n\nab", "b'b' follows the body instead of"),
    ("http1", b"(", r"b'\(' begins no start line"),
    ("http1", b"GET /\r\n", "b'GET /' is not a start line of HTTP/1.1"),
    ("http1", b"GET / HTTP/1.1\r\nno colon\r\n", "b'no colon' is not a 'Name: value' header"),
    (
        "http1",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "two content-length headers",
    ),
    (
        "http1",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "Content-Length must be a decimal number, not b'-1'",
    ),
    ("http1", b"HTTP/1.1 200 OK\r\n\r\n", "the response has no Content-Length: its body ends"),
    (
        "http1",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "both Transfer-Encoding and Content-Length",
    ),
    (
        "http1",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "a Transfer-Encoding that does not end with chunked",
    ),
    (
        "http1",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "b'x' is not the size of a chunk",
    ),
    (
        "http1",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        "b'b.*' follows a chunk instead of CR LF",
    ),
]


@pytest.mark.parametrize(("name", "stream", "reason"), INVALID_STREAMS)
def test_splitter_names_what_it_found_in_an_invalid_stream(
    name: str, stream: bytes, reason: str
) -> None:
    codec = formats[name]
    with pytest.raises(InvalidFrameError, match=reason):
        codec.splitter().feed(stream)
    chunks = (stream[pos : pos + 1] for pos in range(len(stream)))
    with pytest.raises(InvalidFrameError, match=reason):
        list(map(codec.splitter().feed, chunks))


VALID_STREAMS = [
    ("dnp3", formats.dnp3.encode(bytes(5) + bytes(range(40)))),
    ("resp", b"*3\r\n$-1\r\n%1\r\n+a\r\n:1\r\n|1\r\n+b\r\n_\r\n$0\r\n\r\n"),
    ("resp", b"$5\r\nhello\r\n"),
    ("nats", b"PING\r\n"),
    ("nats", b"MSG a 1 5\r\nhello\r\n"),
    ("memcached-text", b"set a 0 0 5\r\nhello\r\n"),
    ("stomp", b"SEND\r\ncontent-length:3\r\n\r\na\0b\0"),
    ("stomp", b"SEND\n\nhello\0"),
    ("stomp", b"\r\n"),
    ("stomp", b"\n"),
    ("http1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("http1", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ("http1", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"),
    (
        "http1",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        b"2;a=b\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: 1\r\n\r\n",
    ),
]


@pytest.mark.parametrize(("name", "frame"), VALID_STREAMS)
def test_splitter_delivers_a_frame_that_arrives_byte_by_byte_with_its_last_byte(
    name: str, frame: bytes
) -> None:
    codec = formats[name]
    splitter = codec.splitter()
    for pos in range(len(frame) - 1):
        assert splitter.feed(frame[pos : pos + 1]) == []
    (message,) = splitter.feed(frame[-1:])
    assert codec.encode(message) == frame
    assert splitter.feed(frame * 2) == [message] * 2


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3), st.integers(0, 3))
def test_resp_gives_nested_values_whole(strings: list[bytes], depth: int) -> None:
    value = b"".join(b"$%d\r\n%b\r\n" % (len(string), string) for string in strings)
    value = b"*1\r\n" * depth + b"*%d\r\n" % len(strings) + value
    splitter = formats.resp.splitter()
    messages = []
    for byte in value * 2:
        messages += splitter.feed(bytes((byte,)))
    assert messages == [value, value]


def test_dnp3_writes_the_published_crc() -> None:
    # The link layer's example of a RESET LINK: 05 64 05 C0 01 00 00 04 E9 21.
    frame = bytes.fromhex("056405c001000004e921")
    assert formats.dnp3.decode(frame) == bytes.fromhex("c001000004")
    assert formats.dnp3.encode(bytes.fromhex("c001000004")) == frame
