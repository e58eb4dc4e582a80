"""`Codec.headers`: further names, line ends, start lines, and blocks that are kept."""

from __future__ import annotations

import pickle
from types import ModuleType
from typing import Any

import pytest

from framecodec import Check, Codec, InvalidFrameError, MessageTooLargeError, parse_codec
from framecodec._encoder_py import Encoder as PythonEncoder
from framecodec._splitter_py import Splitter as PythonSplitter
from tests.helpers.chunking import byte_by_byte

pytestmark = pytest.mark.usefixtures("engine_in_use")

SIP: dict[str, Any] = {"names": ("l",), "start_line": True, "keep": True}
INVITE = b"INVITE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/TCP a\r\nl: 5\r\n\r\nhello"


def sip(**changes: Any) -> Codec:
    return Codec.headers(**{**SIP, **changes})


def test_names_are_read_and_name_is_written() -> None:
    codec = Codec.headers(names=("l", "Length"))
    assert codec.encode(b"ab") == b"Content-Length: 2\r\n\r\nab"
    for name in (b"Content-Length", b"L", b"LENGTH", b"l"):
        assert codec.decode(name + b": 2\r\nX: y\r\n\r\nab") == b"ab"
    with pytest.raises(InvalidFrameError, match="found a second l in one header block"):
        codec.decode(b"Content-Length: 2\r\nl: 2\r\n\r\nab")
    with pytest.raises(InvalidFrameError, match="has no Content-Length"):
        codec.decode(b"len: 2\r\n\r\nab")


@pytest.mark.parametrize("size", [0, 5, 17])
def test_a_line_that_ends_with_lf_says_that_the_cr_is_missing(size: int) -> None:
    splitter = Codec.headers().splitter()
    stream = b"Content-Length: 2\n\nab"
    assert splitter.feed(stream[:size]) == []
    with pytest.raises(InvalidFrameError, match="the CR is missing"):
        splitter.feed(stream[size:])
    assert splitter.pending_header == b"Content-Length: 2\n"


def test_line_end_lf_reads_and_writes_lf() -> None:
    codec = Codec.headers(line_end=b"\n")
    assert codec.encode(b"ab") == b"Content-Length: 2\n\nab"
    assert codec.decode(b"X: y\nContent-Length: 2\n\nab") == b"ab"
    with pytest.raises(InvalidFrameError, match="ends with CR LF, the codec expects LF"):
        codec.decode(b"Content-Length: 2\r\n\r\nab")


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_lenient_reads_both_line_ends_and_leading_zeros(end: bytes) -> None:
    codec = Codec.headers(line_end=end, lenient=True)
    assert codec.encode(b"ab") == b"Content-Length: 2" + end + end + b"ab"
    for stream in (
        b"Content-Length: 2\n\r\nab",
        b"Content-Length: 2\r\n\nab",
        b"Content-Length: 0000000000000000000000000000002\n\nab",
    ):
        assert codec.decode(stream) == b"ab"
        for size in range(len(stream)):
            splitter = codec.splitter()
            assert splitter.feed(stream[:size]) + splitter.feed(stream[size:]) == [b"ab"]
    with pytest.raises(InvalidFrameError, match="leading zero"):
        Codec.headers().decode(b"Content-Length: 02\r\n\r\nab")


def test_keep_delivers_the_block_and_the_body_as_they_travelled() -> None:
    codec = sip()
    for message in (
        INVITE,
        b"SIP/2.0 200 OK\r\nCONTENT-length:0 \r\n\r\n",
        b"ACK sip:bob@example.org SIP/2.0\r\n\r\n",
        b"no colon\x00\xff at all\r\n\r\n",
        b"\r\n",
    ):
        assert codec.encode(message) == message
        assert codec.encode(bytearray(message)) == message
        assert codec.decode(message) == message
        assert codec.frame_parts(message) == [message]
        stream = message * 3
        for size in range(len(message) + 1):
            splitter = codec.splitter()
            assert splitter.feed(stream[:size]) + splitter.feed(stream[size:]) == [message] * 3


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (INVITE + b"!", "its Content-Length is 5, and its body has 6 bytes"),
        (INVITE[:-1], "its Content-Length is 5, and its body has 4 bytes"),
        (b"ACK\r\n\r\nbody", "its Content-Length is 0, and its body has 4 bytes"),
        (b"ACK\r\n", "no empty line ends its header block"),
        (b"ACK\nl: 0\r\n\r\n", "the CR is missing"),
        (b"ACK\r\nno colon\r\n\r\n", "the codec expects a 'Name: value' line"),
        (b"ACK\r\nl: 0\r\nL: 0\r\n\r\n", "found a second L"),
        (b"ACK\r\nl: 00\r\n\r\n", "leading zero"),
        (b"", "no empty line"),
    ],
)
def test_encode_verifies_a_kept_block(message: bytes, error: str) -> None:
    for encode in (sip().encode, sip().frame_parts, lambda m: sip().encode_many([m])):
        with pytest.raises(InvalidFrameError, match=error):
            encode(message)


def test_keep_counts_block_and_body_for_the_limits() -> None:
    codec = sip(max_message_size=len(INVITE), min_message_size=20)
    assert codec.decode(INVITE) == codec.encode(INVITE) == INVITE
    small, large = b"x\r\n\r\n", b"I" + INVITE
    for call in (codec.encode, codec.decode):
        with pytest.raises(MessageTooLargeError):
            call(large)
        with pytest.raises(InvalidFrameError, match="small"):
            call(small)
    splitter = codec.splitter(on_oversize="skip")
    assert splitter.feed(large + INVITE) == [INVITE]
    assert splitter.skipped == 1


@pytest.mark.parametrize("in_choice", [False, True])
@pytest.mark.parametrize("body", [b"", b"abc"])
def test_feed_counts_a_kept_block_for_the_limit(
    engine: ModuleType, in_choice: bool, body: bytes
) -> None:
    message = b"INVITE sip:a@b SIP/2.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for limit, fits in ((len(message), True), (len(message) - 1, False), (len(body), False)):
        codec = Codec.headers(start_line=True, keep=True, max_message_size=limit)
        if in_choice:
            codec = Codec.choice({b"I": codec}, max_message_size=limit)
        splitter = engine.Splitter(codec, on_oversize="skip")
        assert splitter.feed(message * 3) == [message] * 3 * fits
        assert splitter.skipped == 3 * (not fits)


@pytest.mark.parametrize(
    "owned",
    [
        {"trailer": b"!"},
        {"align": 4},
        {"magic": b">>", "trailer": b"!", "align": 8},
        *({"check": Check("xor8", 1, covers=covers)} for covers in ("message", "body", "frame")),
        {"magic": b">>", "trailer": b"!", "check": Check("crc32", 4, covers="frame")},
        {"check": Check(lambda data: sum(data), 2), "trailer": b"!"},
    ],
)
@pytest.mark.parametrize("in_choice", [False, True])
def test_kept_blocks_come_back_whatever_the_codec_owns(
    engine: ModuleType, owned: dict[str, Any], in_choice: bool
) -> None:
    codec = Codec.headers(keep=True, **owned)
    if in_choice:
        codec = Codec.choice({None: codec})
    messages = [b"Content-Length: %d\r\n\r\n" % size + bytes(size) for size in (0, 2, 3, 90)]
    messages.append(b"a: b\r\n\r\n")
    encoder = engine.Encoder(codec)
    frames = [b"".join(encoder.frame_parts(message)) for message in messages]
    assert [encoder.encode(message) for message in messages] == frames
    assert [encoder.encode(bytearray(message)) for message in messages] == frames
    stream = encoder.encode_many(messages)
    assert stream == b"".join(frames)
    assert len(stream) > sum(map(len, messages))
    for pieces in ([stream], byte_by_byte(stream)):
        for raw, expected in ((False, messages), (True, frames)):
            splitter = engine.Splitter(codec, raw=raw)
            assert [found for piece in pieces for found in splitter.feed(piece)] == expected
    with pytest.raises(ValueError, match="raw=True"):
        engine.scan(codec, stream)


def test_keep_with_magic_and_trailer_owns_only_those() -> None:
    codec = Codec.headers("L", keep=True, magic=b">>", trailer=b"<", align=4)
    message = b"a: b\r\nL: 2\r\n\r\nxy"
    frame = codec.encode(message)
    assert frame == b">>" + message + b"<" + bytes(-(len(message) + 3) % 4)
    assert codec.decode(frame) == message
    assert codec.split(frame * 3) == ([message] * 3, 3 * len(frame))


def test_scan_of_kept_blocks_needs_raw() -> None:
    codec = sip()
    assert [bytes(span) for span in codec.scan(INVITE * 3, raw=True)] == [INVITE] * 3
    with pytest.raises(ValueError, match="raw=True"):
        codec.scan(INVITE * 3)


def test_kept_headers_of_kept_blocks_are_not_needed(engine: ModuleType) -> None:
    splitter = engine.Splitter(sip(), keep_headers=True)
    assert splitter.feed(INVITE) == [INVITE]
    assert splitter.headers is None


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"start_line": True}, "start_line=True needs keep=True"),
        ({"start_line": b"SIP/2.0"}, r"start_line=\(b'SIP/2.0',\) needs keep=True"),
        ({"start_line": "SIP/2.0"}, "start_line must be a bool, or bytes or a tuple of bytes"),
        ({"start_line": 1}, "start_line must be a bool, or bytes or a tuple of bytes"),
        ({"start_line": (b"yes",)}, "b'yes' in start_line is not a protocol and a version"),
        ({"start_line": b"a /1"}, "not a protocol and a version"),
        ({"start_line": b""}, "not a protocol and a version"),
        ({"start_line": ()}, "start_line can have 1 to 4 protocols, not 0"),
        ({"start_line": [b"a/%d" % i for i in range(5)]}, "1 to 4 protocols, not 5"),
        ({"names": "l"}, "names must be a tuple of str"),
        ({"names": ("a b",)}, "not a header name"),
        ({"names": (5,)}, "must be a str"),
        ({"names": [f"n{i}" for i in range(8)]}, "names can have 7 items"),
        ({"line_end": b"\r"}, "line_end must be"),
        ({"lenient": 1}, "lenient must be a bool"),
        ({"keep": True, "length_adjustment": 1}, "length_adjustment has no meaning"),
        ({"keep": True, "specials": {1: None}}, "specials has no meaning"),
        ({"keep": True, "check": Check("crc8", 1, position="front")}, "use covers='message'"),
        ({"keep": True, "check": Check("crc8", 1, covers="rest")}, "use covers='message'"),
    ],
)
def test_contradictory_parameters_are_refused(parameters: Any, error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        Codec.headers(**parameters)


def test_codecs_with_the_new_parameters_are_values() -> None:
    codec = Codec.headers("L", names=["n", "l", "N"], lenient=True, line_end=b"\n", keep=True)
    assert codec.parameters["names"] == ("n",)
    assert eval(repr(codec)) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert hash(codec) == hash(eval(repr(codec)))
    assert str(codec) == "headers,name=L,names=n,line_end=%0A,lenient=yes,keep=yes"
    assert parse_codec(str(codec)) == codec
    assert parse_codec(str(sip(names=("l", "x")))) == sip(names=("l", "x"))
    assert codec.replace(keep=False) != codec


def test_a_long_block_in_small_pieces_is_read(engine: ModuleType) -> None:
    block = b"a:\r\n" * 5_000 + b"L: 0\r\n\r\n"
    splitter = engine.Splitter(Codec.headers("L", max_header=100_000))
    found = [message for piece in byte_by_byte(block) for message in splitter.feed(piece)]
    assert found == [b""]
    assert splitter.stream_offset == len(block)


def outcome_of(splitter: Any, stream: bytes) -> Any:
    try:
        return splitter.feed(stream), str(splitter.error)
    except InvalidFrameError as error:
        return str(error)


def frame_or_text(encode: Any, argument: Any) -> Any:
    try:
        return encode(argument)
    except InvalidFrameError as error:
        return str(error)


@pytest.mark.parametrize(
    "line",
    [
        b"INVITE sip:bob@example.org SIP/2.0",
        b"SIP/2.0 200 OK",
        b"INVITE sip:bob@example.org sip/2.0",  # in any case, as RFC 3261 has it
        b"RTSP/1.0 404 Not Found",
        b"PLAY * RTSP/1.0",
    ],
)
def test_a_start_line_with_a_protocol_is_read(engine: ModuleType, line: bytes) -> None:
    codec = Codec.headers(start_line=(b"SIP/2.0", b"RTSP/1.0"), keep=True)
    message = line + b"\r\nContent-Length: 2\r\n\r\nhi"
    assert engine.Splitter(codec).feed(message * 3) == [message] * 3
    splitter = engine.Splitter(codec)
    assert [m for byte in message for m in splitter.feed(bytes([byte]))] == [message]
    assert engine.Encoder(codec).encode(message) == message


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"HTTP/1.1 200 OK",
        b"",
        b"SIP/2.0",
        b"xSIP/2.0 200 OK",
        b"INVITE sip:bob@example.org xSIP/2.0",
        b"INVITE sip:bob@example.org SIP/2.0 ",
        b"INVITE SIP/2.0 sip:bob@example.org",
        b"INVITE sip:bob@example.org SIP/2.00",
        b"SIP/2.1 200 OK",
    ],
)
def test_a_start_line_without_a_protocol_is_refused_at_its_end(
    engine: ModuleType, line: bytes
) -> None:
    codec = Codec.headers(start_line=(b"SIP/2.0", b"RTSP/1.0"), keep=True)
    message = line + b"\r\nContent-Length: 2\r\n\r\nhi"
    text = "expects a start line that begins or ends with SIP/2.0 or RTSP/1.0"
    for pieces in ([message], [message[:4], message[4:]], [line + b"\r\n"]):
        splitter = engine.Splitter(codec)
        with pytest.raises(InvalidFrameError, match=text) as caught:
            [splitter.feed(piece) for piece in pieces]
        assert caught.value.header == line + b"\r\n"
    splitter = engine.Splitter(codec)
    assert splitter.feed(line + b"\r") == []
    with pytest.raises(InvalidFrameError, match=f"cannot be encoded: .*{text}"):
        engine.Encoder(codec).encode(message)


def test_a_protocol_of_the_start_line_is_a_parameter_like_others() -> None:
    codec = Codec.headers(start_line=b"SIP/2.0", keep=True)
    assert codec == Codec.headers(start_line=[b"SIP/2.0", b"SIP/2.0"], keep=True)
    assert codec != Codec.headers(start_line=True, keep=True)
    assert repr(codec) == "Codec.headers(start_line=(b'SIP/2.0',), keep=True)"
    assert str(codec) == "headers,start_line=SIP/2.0,keep=yes"
    other = codec.replace(start_line=(b"A/1", b"x;,%=/2"))
    assert str(other) == "headers,start_line=A/1;x%3B%2C%25%3D/2,keep=yes"
    assert parse_codec(str(codec)) == codec
    assert parse_codec(str(other)) == other
    assert other.replace(start_line=True) == parse_codec("headers,start_line=yes,keep=yes")


def test_resync_needs_a_mark_where_a_start_line_has_a_protocol(engine: ModuleType) -> None:
    codec = Codec.headers(start_line=b"SIP/2.0", keep=True)
    with pytest.raises(ValueError, match="needs a mark at the start of each frame"):
        engine.Splitter(codec, on_invalid="resync")
    codec = codec.replace(magic=b">>")
    splitter = engine.Splitter(codec, on_invalid="resync")
    good = b">>SIP/2.0 200 OK\r\n\r\n"
    assert splitter.feed(b">>GET / HTTP/1.1\r\n\r\n" + good) == [good[2:]]
    assert splitter.resyncs == 1


def test_a_start_line_with_the_wrong_end_is_refused(engine: ModuleType) -> None:
    codec = sip(line_end=b"\n")
    block = b"GET /\r\nContent-Length: 0\n\n"
    assert "ends with CR LF" in outcome_of(engine.Splitter(codec), block)
    with pytest.raises(InvalidFrameError, match="ends with CR LF"):
        engine.Encoder(codec).encode(block)


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_byte_of_a_whole_block_means_the_same_anywhere(
    engine: ModuleType, line_end: bytes, lenient: bool
) -> None:
    codec = sip(line_end=line_end, lenient=lenient)
    lines = [b"GET /a HTTP/1.1", b"Via: SIP/2.0/TCP a", b"x:", b"Content-Length: 2", b"", b"ok"]
    block = line_end.join(lines)
    encoder = engine.Encoder(codec)
    for byte in (0, 8, 9, 10, 11, 13, 31, 32, 58, 94, 126, 127, 128, 255):
        for pos in range(len(block)):
            stream = block[:pos] + bytes([byte]) + block[pos + 1 :]
            expected = outcome_of(PythonSplitter(codec), stream)
            assert outcome_of(engine.Splitter(codec), stream) == expected, stream
            frame = frame_or_text(PythonEncoder(codec).encode, stream)
            assert frame_or_text(encoder.encode, stream) == frame
            assert frame_or_text(encoder.encode_many, [stream]) == frame
