"""The likely cause of a wrong stream is the first thing that its error says."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import framecodec.asyncio
from framecodec import Codec, FrameError, formats
from framecodec._error_texts import message_too_slow, no_whole_message
from framecodec._likely_causes import SAMPLE_SIZE, likely_cause
from framecodec.errors import MessageTimeoutError
from tests.helpers.event_loops import run
from tests.helpers.strategies import codecs

HTTP = b"GET /index.html HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test\r\n\r\n"
TLS = bytes.fromhex("16030102000100") + b"\x01\xfc\x03\x03" + bytes(range(64))
TLS_ALERT = bytes.fromhex("15030300020246")
SSH = b"SSH-2.0-OpenSSH_9.6\r\n"
PROXY_1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
PROXY_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)
JSON = b'{"id": 1, "method": "ping"}\n{"id": 2}\n'
ZMTP_3 = bytes.fromhex("ff00000000000000017f03014e554c4c").ljust(64, b"\0")
ZMTP_2 = bytes.fromhex("ff00000000000000017f01050000")
HELLO = b"hello"

# What the error says first: a name, the codec, the stream.
CASES: dict[str, list[tuple[Codec, bytes]]] = {
    "read little-endian the length is 5; ": [
        (Codec.uint(4), struct.pack("<I", 5) + HELLO),
        (Codec.uint(4), struct.pack("<I", 5)),
        (Codec.uint(2), struct.pack("<H", 5) + HELLO),
        (Codec.uint(2), (struct.pack("<H", 5) + HELLO) * 3),
        (Codec.uint(3), b"\x05\0\0hello"),
        (Codec.uint(8), struct.pack("<Q", 5) + HELLO),
        (Codec.uint(4, length_offset=2), b"ab" + struct.pack("<I", 5) + HELLO),
        (Codec.uint(2, magic=b"\xab"), b"\xab\x05\0hello" * 2),
        (Codec.struct("!h"), struct.pack("<h", 5) + HELLO),
        (Codec.uint(2, trailer=b"\n"), b"\x05\0hello\n"),
    ],
    "read little-endian the length is 300; ": [
        (Codec.uint(4), struct.pack("<I", 300) + bytes(300)),
        (Codec.uint(2), struct.pack("<H", 300) + b"a" * 300),
    ],
    "read little-endian the length is 9; ": [
        (Codec.uint(4, length_includes="frame"), struct.pack("<I", 9) + HELLO),
    ],
    "read big-endian the length is 5; ": [
        (Codec.uint(4, "little"), struct.pack(">I", 5) + HELLO),
        (Codec.uint(2, "little"), struct.pack(">H", 5) + HELLO),
        (Codec.uint(8, "little"), struct.pack(">Q", 5) + HELLO),
    ],
    "read with 1 byte the length is 5; ": [
        (Codec.uint(4), b"\x05hello"),
        (Codec.uint(2), b"\x05hello\x05world"),
    ],
    "read with 2 bytes the length is 5; ": [
        (Codec.uint(4), b"\0\x05hello"),
        (Codec.uint(4), b"\0\x05hello\0\x05world"),
        (Codec.uint(4, max_message_size=1000), b"\0\x05hello"),
        (Codec.uint(4, "little"), b"\x05\0hello"),
        (Codec.uint(8, "little"), b"\x05\0hello\x05\0world"),
    ],
    "read with 4 bytes the length is 5; ": [
        (Codec.uint(8), b"\0\0\0\x05hello"),
        (Codec.uint(8, "little"), b"\x05\0\0\0hello"),
    ],
    "read little-endian with 2 bytes the length is 5; ": [
        (Codec.uint(4), b"\x05\0hello"),
    ],
    'the length 9 may count the whole frame (length_includes="frame"); ': [
        (Codec.uint(4), b"\0\0\0\x09hello"),
    ],
    'the length may count only the bytes after it (length_includes="rest"); ': [
        (Codec.uint(4, length_includes="frame"), b"\0\0\0\x03abc"),
    ],
    "the length field holds ASCII digits, as digits the length is 5; ": [
        (Codec.uint(4), b"0005hello"),
        (Codec.uint(8), b"00000005hello"),
        (Codec.uint(2), b"0005hello"),
        (Codec.uint(1), b"05hello"),
        (Codec.uint(4, "little"), b"0005hello"),
        (Codec.varint(), b"0005hello"),
    ],
    "the length field holds ASCII digits, as text the length is 5; ": [
        (Codec.uint(1), b"5:hello,"),
        (Codec.uint(2), b"5:hello,5:world,"),
        (Codec.uint(2), b"5\r\nhello"),
    ],
    r"b'\x00' may be the start of a binary length; ": [
        (Codec.digits(4), b"\0\0\0\x05hello"),
        (Codec.text(), b"\0\0\0\x05hello"),
        (Codec.digits(4, length_offset=2), b"ab\0\x05hello"),
        (Codec.headers(), b"\0\0\0\x05hello"),
        (Codec.headers(), b"\0\0\0\x05he\nllo"),
    ],
    r"b'\x16' may be the start of TLS or a binary length; ": [
        (Codec.digits(4), TLS),
        (Codec.text(), TLS),
        (Codec.uint(2, magic=b"M"), TLS),
    ],
    "b'G' may be the start of HTTP; ": [
        (Codec.digits(4), HTTP),
        (Codec.text(), HTTP),
        (Codec.uint(2, magic=b"MAGIC"), HTTP),
        (Codec.uint(1, max_message_size=10), HTTP),
        (formats.amqp, HTTP),
    ],
    "b'{' may be the start of JSON without a length; ": [
        (Codec.digits(4), JSON),
        (Codec.text(), JSON),
    ],
    "b'S' may be the start of SSH; ": [(Codec.digits(4), SSH)],
    "b'P' may be the start of HTTP or a PROXY protocol header; ": [(Codec.digits(4), PROXY_1)],
    r"b'\r' may be the start of a PROXY protocol header; ": [(Codec.digits(4), PROXY_2)],
    "invalid frame at stream offset 0: the length has more than 3 digits (max_digits) ": [
        (Codec.text(leading_zeros=True, max_digits=3), b"0005hello"),
        (Codec.text(leading_zeros=True, max_digits=3), b"1234:"),
    ],
    "the peer seems to speak HTTP; ": [
        (Codec.uint(4), HTTP),
        (Codec.uint(4, "little"), HTTP),
        (Codec.uint(8), HTTP),
        (Codec.uint(2), HTTP),
        (Codec.uint(4, length_offset=4), HTTP),
        (Codec.uint(2, length_offset=2), HTTP),
        (Codec.varint(), b"GET / HTTP/1.0\r\n\r\n"),
        (Codec.headers(), HTTP),
        (Codec.headers(), b"GET / HTTP"),
        (formats.sip, HTTP),
        (formats.nats, HTTP),
        (formats.memcached_text, HTTP),
        (formats.rtsp, HTTP),
        (Codec.uint(4), b"POST / HTTP/1.1\r\n"),
        (Codec.uint(4), b"HTTP/1.1 400 Bad Request\r\n"),
    ],
    "the peer seems to speak TLS; ": [
        (Codec.uint(4), TLS),
        (Codec.uint(2), TLS),
        (Codec.uint(4), TLS_ALERT),
        (Codec.uint(2), TLS_ALERT),
        (Codec.uint(1), TLS[:8]),
        (Codec.headers(), TLS),
    ],
    "the peer seems to speak SSH; ": [
        (formats.http1, SSH),
        (formats.nats, SSH),
        (Codec.uint(4), SSH),
        (Codec.uint(2), SSH),
        (Codec.headers(), SSH),
    ],
    "the stream seems to begin with a greeting of ZMTP 2 or later (ZeroMQ); ": [
        (formats.zmtp1, ZMTP_3),
        (formats.zmtp1, ZMTP_2),
        (formats.zmtp1, b"\xff\0\0\0\0\0\0\0\x29\x7f"),  # of a socket with an identity
    ],
    "the stream seems to begin with a greeting of ZMTP 2.0 (ZeroMQ); ": [
        (formats.zmtp_greeting, ZMTP_2),
    ],
    r"b'\xff' may be the start of a greeting of ZMTP (ZeroMQ); ": [
        (formats.zmtp, ZMTP_3),
        (formats.zmtp, ZMTP_2),
    ],
    "the stream seems to begin with a PROXY protocol header (version 1); ": [
        (Codec.uint(4), PROXY_1),
        (Codec.uint(2), PROXY_1),
        (Codec.headers(), PROXY_1),
    ],
    "the stream seems to begin with a PROXY protocol header (version 2); ": [
        (Codec.uint(4), PROXY_2),
        (Codec.uint(2), PROXY_2),
        (Codec.uint(4, "little"), PROXY_2),
    ],
    "the peer seems to send JSON without a length; ": [
        (Codec.uint(4), JSON),
        (Codec.uint(2), JSON),
        (Codec.uint(4), b'["a", "b"]\n'),
        (Codec.uint(4), b'[\n  {"a": 1}\n]\n'),
        (Codec.headers(), JSON),
    ],
    "the length seems to be the digits up to b':', as Codec.text reads it; ": [
        (Codec.digits(4), b"5:hello,"),
        (Codec.text(b"\n"), b"5:hello,"),
    ],
    "the length has a fixed number of digits, as Codec.digits writes it; ": [
        (Codec.text(), b"0005hello"),
    ],
    "read with 2 digits the length is 5; ": [(Codec.digits(4), b"05hello")],
    "b'f' is a digit with base=16; ": [(Codec.digits(4), b"00ff")],
    "the frame seems to begin with a length in digits, b'0005'; ": [
        (Codec.headers(), b"0005hello"),
    ],
}
TABLE = [(cause, codec, stream) for cause, cases in CASES.items() for codec, stream in cases]


@pytest.mark.parametrize("codec", [Codec.uint(4), Codec.uint(8), Codec.varint()])
def test_a_reading_in_digits_must_fit_every_frame(codec: Codec) -> None:
    stream = b"0005hello0006hello!"
    assert "as digits the length is 5" in likely_cause(stream, codec.layout, len(stream))
    for wrong in (b"0005hello0x06hello!", b"0005hello0000hello!"):
        assert likely_cause(wrong, codec.layout, len(wrong)) == ""


def first_error(splitter: Any, pieces: list[bytes]) -> str:
    try:
        for piece in pieces:
            assert splitter.feed(piece) == []
        splitter.feed_eof()
    except FrameError as error:
        return str(error)
    pytest.fail("the stream is valid")


@pytest.mark.parametrize(("cause", "codec", "stream"), TABLE)
def test_splitter_names_the_likely_cause_first(
    engine: ModuleType, cause: str, codec: Codec, stream: bytes
) -> None:
    texts = {
        first_error(engine.Splitter(codec, raw=raw), pieces)
        for raw in (False, True)
        for pieces in (
            [stream],
            [bytes([byte]) for byte in stream],
            [stream[:3], stream[3:]],
        )
    }
    (text,) = texts
    assert text.startswith(cause)
    assert "stream offset 0" in text
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.parametrize(("cause", "codec", "stream"), TABLE)
def test_decode_and_scan_name_the_likely_cause_first(
    engine_in_use: ModuleType, cause: str, codec: Codec, stream: bytes
) -> None:
    with pytest.raises(FrameError) as caught:
        codec.decode(stream)
    assert str(caught.value).startswith(cause)
    if not isinstance(caught.value, EOFError):
        with pytest.raises(FrameError) as again:
            codec.scan(stream, raw=True)
        assert str(again.value) == str(caught.value)


@pytest.mark.parametrize(("cause", "codec", "stream"), TABLE)
def test_time_out_names_the_likely_cause_first(
    engine: ModuleType, cause: str, codec: Codec, stream: bytes
) -> None:
    splitter = engine.Splitter(codec)
    try:
        splitter.feed(stream)
    except FrameError:
        return
    pending = splitter._pending_frame()
    error: Exception
    for error in (no_whole_message(0.5, pending), message_too_slow(0.5, pending)):
        assert isinstance(error, TimeoutError)
        text = str(error)
        assert text.startswith(cause)
        assert "0.5 s" in text
        assert f"{len(stream)} " in text


def connected(stream: bytes) -> socket.socket:
    """Return a socket that receives a stream and its end."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(stream)
    ours.settimeout(20)
    return ours


@pytest.mark.parametrize(("cause", "codec", "stream"), TABLE)
def test_frame_socket_names_the_likely_cause_first(
    engine_in_use: ModuleType, cause: str, codec: Codec, stream: bytes
) -> None:
    with framecodec.FrameSocket(connected(stream), codec) as conn:
        with pytest.raises(FrameError) as caught:
            conn.recv()
        assert str(caught.value).startswith(cause)


def test_frame_stream_names_the_likely_cause_first(engine_in_use: ModuleType) -> None:
    async def error_of(codec: Codec, stream: bytes, message_timeout: float | None) -> FrameError:
        ours, theirs = socket.socketpair()
        theirs.sendall(stream)
        if message_timeout is None:
            theirs.shutdown(socket.SHUT_WR)
        with theirs:
            conn = await framecodec.asyncio.open_connection(
                sock=ours, codec=codec, message_timeout=message_timeout
            )
            async with conn:
                with pytest.raises(FrameError) as caught:
                    await conn.recv()
        return caught.value

    async def main() -> None:
        for cause, codec, stream in TABLE:
            assert str(await error_of(codec, stream, None)).startswith(cause)
        slow = await error_of(Codec.uint(2), HTTP, 0.01)
        assert isinstance(slow, MessageTimeoutError)
        text = f"the peer seems to speak HTTP; message too slow: {len(HTTP)} of 18247 bytes"
        assert str(slow).startswith(text)

    run("asyncio", main())


def test_time_out_says_how_much_of_the_frame_arrived(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(4))
    splitter.feed(b"\0\0\0\x05he")
    text = "no whole message within 0.5 s: 6 of 9 bytes of the frame arrived (frame begins "
    text += r"b'\x00\x00\x00\x05he'); nothing is lost, the next call continues"
    assert str(no_whole_message(0.5, splitter._pending_frame())) == text
    text = "message too slow: 6 of 9 bytes of the frame at stream offset 0 arrived, the whole "
    text += r"frame is allowed 0.5 s (message_timeout) (frame begins b'\x00\x00\x00\x05he')"
    error = message_too_slow(0.5, splitter._pending_frame())
    assert str(error) == text
    assert (error.timeout, error.stream_offset, error.header) == (0.5, 0, b"\0\0\0\x05")
    splitter.feed(b"llo\0\0")
    assert "within 0.5 s: 2 bytes of a frame of unknown size arrived" in str(
        no_whole_message(0.5, splitter._pending_frame())
    )
    splitter = engine.Splitter(Codec.uint(4))
    text = "no whole message within 0.5 s; nothing is lost, the next call continues"
    assert str(no_whole_message(0.5, splitter._pending_frame())) == text


def test_frame_socket_time_out_names_the_likely_cause_first(engine_in_use: ModuleType) -> None:
    for limits in ({}, {"message_timeout": 60.0}):
        ours, theirs = socket.socketpair()
        with theirs, framecodec.FrameSocket(ours, Codec.uint(2), **limits) as conn:
            conn.settimeout(0.01)
            with pytest.raises(TimeoutError, match=r"^no whole message within 0\.01 s; "):
                conn.recv()
            theirs.sendall(struct.pack("<H", 5) + HELLO)
            for _ in range(2):
                with pytest.raises(TimeoutError) as caught:
                    conn.recv()
                text = "read little-endian the length is 5; no whole message within 0.01 s: "
                assert str(caught.value).startswith(f"{text}7 of 1282 bytes of the frame arrived")
                assert caught.value.errno is None
            theirs.sendall(bytes(1275))
            assert conn.recv() == HELLO + bytes(1275)


def test_frame_socket_message_timeout_names_the_likely_cause_first(
    engine_in_use: ModuleType,
) -> None:
    ours, theirs = socket.socketpair()
    with theirs, framecodec.FrameSocket(ours, Codec.uint(2), message_timeout=0.01) as conn:
        theirs.sendall(HTTP)
        with pytest.raises(
            MessageTimeoutError, match=r"^the peer seems to speak HTTP; message too"
        ):
            conn.recv()


def test_a_wrong_trailer_or_magic_is_not_blamed_on_the_length(engine: ModuleType) -> None:
    for codec, stream in (
        (Codec.uint(4, trailer=b"T"), b"\0\0\0\x05helloX"),
        (Codec.uint(2, "little", trailer=b"T"), b"\x05\0helloX"),
        (Codec.uint(2, "little", length_offset=2, trailer=b"T"), b"ab\0\0X"),
        (Codec.uint(2, magic=b"\xab\xcd"), b"\xab\xce"),
        (Codec.uint(2, magic=b"\xab\xcd"), b"x"),
    ):
        with pytest.raises(FrameError) as caught:
            engine.Splitter(codec).feed(stream)
        assert str(caught.value).startswith("invalid frame at stream offset 0: wrong "), stream


def test_a_format_that_is_http_is_not_suspected_to_be_http(engine: ModuleType) -> None:
    for stream in (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\nHo"):
        text = first_error(engine.Splitter(formats.http1), [stream])
        assert text.startswith(("invalid frame", "incomplete frame"))
    text = first_error(engine.Splitter(formats.http1), [TLS])
    assert text.startswith(r"b'\x16' may be the start of TLS or a binary length; ")


def honest_frames() -> Iterator[tuple[Codec, bytes]]:
    for codec in (
        Codec.uint(1),
        Codec.uint(2),
        Codec.uint(2, "little"),
        Codec.uint(4),
        Codec.uint(4, "little"),
        Codec.uint(8),
        Codec.uint(4, length_offset=4),
        Codec.uint(3, magic=b"MA", trailer=b"\r\n"),
        Codec.uint(4, length_includes="frame"),
        Codec.varint(),
        Codec.digits(4),
        Codec.text(),
        Codec.headers(),
        formats.lsp,
        formats.tls,
    ):
        for size in (10, 65, 100, 250, 1000, 2000, 5000):
            if codec == Codec.uint(1) and size > 255:
                continue
            for body in (b'{"id": 12, "text": "hello"}', bytes(range(8, 256)), b"GET / HTTP/1.1"):
                message = (body * (size // len(body) + 1))[:size]
                if codec is formats.tls:
                    message = b"\x16\x03\x03" + message
                yield codec, codec.encode(message)


@pytest.mark.parametrize(
    ("codec", "size"),
    [
        (Codec.uint(4, max_message_size=1000), 1001),
        (Codec.uint(4), 20_000_000),
        (Codec.uint(4), 16_777_217),
        (Codec.uint(8), 20_000_000),
        (Codec.uint(4, "little"), 20_000_000),
        (Codec.uint(2, max_message_size=1000), 1001),
        (Codec.uint(1, max_message_size=10), 20),
        (Codec.varint(max_message_size=1000), 1001),
        (Codec.digits(8, max_message_size=1000), 1001),
    ],
)
def test_a_message_that_is_just_too_large_is_not_suspected(
    engine: ModuleType, codec: Codec, size: int
) -> None:
    header = codec.replace(max_message_size=None).encode(bytes(size))[:8]
    with pytest.raises(FrameError) as caught:
        engine.Splitter(codec).feed(header)
    assert str(caught.value).startswith(f"message too large: {size} bytes")


def test_a_right_codec_is_not_suspected(engine: ModuleType) -> None:
    for codec, frame in honest_frames():
        for size in (len(frame) // 2, len(frame) // 3):
            splitter = engine.Splitter(codec)
            splitter.feed(frame[:size])
            with pytest.raises(EOFError) as caught:
                splitter.feed_eof()
            assert str(caught.value).startswith("incomplete frame"), (codec, frame[:size])


def test_a_sample_of_a_large_frame_is_small(engine: ModuleType) -> None:
    for raw in (False, True):
        splitter = engine.Splitter(Codec.uint(4, length_offset=2), raw=raw)
        start = b"ab" + struct.pack(">I", 100_000)
        splitter.feed(start + bytes(50_000))
        sample = splitter._pending_frame().sample
        assert sample == (start + bytes(SAMPLE_SIZE))[:SAMPLE_SIZE]
        assert splitter._pending_frame().header == start


def test_a_skipped_frame_has_its_header_as_sample(engine: ModuleType) -> None:
    splitter = engine.Splitter(Codec.uint(2, max_message_size=10), on_oversize="skip")
    splitter.feed(b"\0\x14hello")
    pending = splitter._pending_frame()
    assert (pending.sample, pending.received, pending.needed) == (b"\0\x14", 7, 22)
    with pytest.raises(EOFError, match="after 7 of 22 bytes"):
        splitter.feed_eof()


def test_nothing_is_guessed_from_nothing() -> None:
    assert likely_cause(b"") == ""
    assert likely_cause(b"", Codec.uint(4).layout, 0) == ""


OPENINGS = st.sampled_from([HTTP, TLS, SSH, PROXY_1, PROXY_2, JSON, b"02", b"0005", b"5:", b""])


@given(codecs(), OPENINGS, st.binary(max_size=40), st.integers(1, 200), st.booleans())
def test_likely_cause_ends_and_returns_a_clause_for_any_bytes(
    codec: Codec, opening: bytes, noise: bytes, repeat: int, waiting: bool
) -> None:
    data = ((opening + noise) * repeat)[:SAMPLE_SIZE]
    cause = likely_cause(data, codec.layout, len(data) + repeat - 1 if waiting else None)
    assert cause.isprintable()
    assert len(cause) < 120


def test_likely_cause_ends_where_another_reading_gives_frames_without_bytes() -> None:
    codec = Codec.uint(2, length_adjustment=-7)
    assert likely_cause(b"05:" * 20, codec.layout, 60) == ""


def test_likely_cause_without_a_codec_looks_for_other_protocols_only() -> None:
    assert "HTTP" in likely_cause(b"GET / HTTP/1.1\r\n", None)
    assert likely_cause(b"\0\0\0\5hello", None) == ""
    assert likely_cause(b"", None) == ""
