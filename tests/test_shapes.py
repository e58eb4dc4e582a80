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
