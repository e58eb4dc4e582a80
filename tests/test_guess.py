"""`framecodec.guess` and the command: what explains a capture, held to figures."""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
from pathlib import Path
from typing import Literal

import pytest

import framecodec
from framecodec import Check, Codec, Guess, formats, guess, parse_codec
from framecodec import _guess as guess_module
from framecodec._guess.shapes import Shape
from framecodec._layout import FIXED
from tests.helpers.command import run, run_process, started
from tests.helpers.format_captures import repeated, varied
from tests.helpers.packets import conversation, pcap

FRAMES = 24


def text(r: random.Random, size: int) -> bytes:
    return bytes(r.choices(b"etaoin shrdlu,.\n", k=size))


def capture(codec: Codec, seed: int = 0, count: int = FRAMES, opening: bytes = b"") -> bytes:
    r = random.Random(seed)
    if opening:
        return codec.encode_many(opening + text(r, r.randrange(8, 150)) for _ in range(count))
    lead = max(0, (codec.parameters["length_offset"] or 0) - len(codec.parameters["magic"]))
    return codec.encode_many(r.randbytes(lead) + text(r, r.randrange(8, 150)) for _ in range(count))


def rank(found: list[Guess], data: bytes, codec: Codec) -> int | None:
    """Return the place of the first guess that reads the same messages as a codec."""
    messages = codec.split(data)
    for place, one in enumerate(found):
        if not one.offset and one.codec.split(data) == messages:
            return place
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    "notation",
    [
        "u8",
        "u16le",
        "u32be",
        "u32le,includes=frame",
        "u64be",
        "u24be,offset=1",
        "u16be,offset=2,includes=frame",
        "u32be,offset=1,adjustment=-4",
        "u16le,magic=%AB%CD",
        "u16be,magic=%AB%CD,offset=3,trailer=%0D%0A",
        "digits4",
        "digits6,includes=frame",
        "hex4",
        "varint",
        "varint,offset=1",
        "text,end=%3A,trailer=%2C",
        "text,end=%0A",
        "text,end=%0D%0A,base=16,trailer=%0D%0A",
        "headers",
        "headers,name=Size",
    ],
)
def test_a_shape_without_a_name_is_found(notation: str) -> None:
    codec = parse_codec(notation)
    data, frames = capture(codec), FRAMES
    if notation.startswith("u24"):  # a length below 64 KiB could also be one of two bytes
        data, frames = data + codec.encode(bytes(70_000)), FRAMES + 1
    found = guess(data)
    assert rank(found, data, codec) == 0
    assert found[0].frames == frames
    assert (found[0].explained, found[0].left, found[0].complete) == (len(data), 0, True)


def can_be_guessed(codec: Codec) -> bool:
    """Return whether a capture of a format can be told from others.

    A stream has one opening, of a fixed size, so a capture of several is not of that protocol.
    """
    layouts = codec.layout.choice.layouts if codec.layout.choice else [codec.layout]
    return any(layout.kind != FIXED for layout in layouts)


@pytest.mark.slow
def test_the_protocols_of_the_catalogue_are_found() -> None:
    # Every second one; python -m bench.guess tries all, and captures of other kinds.
    names = [name for name, codec in formats.items() if can_be_guessed(codec)][::2]
    first, third = [], []
    for name in names:
        data = b"".join(varied(name, FRAMES, 0))
        place = rank(guess(data), data, formats[name])
        if place != 0:
            first.append(name)
        if place is None or place > 2:
            third.append(name)
    assert len(first) <= 0.1 * len(names), first
    assert not third


NAMED = ["kafka", "postgres", "mqtt", "tls", "lsp", "netstring", "bitcoin"]


@pytest.mark.parametrize("name", NAMED)
def test_a_known_protocol_is_named(name: str) -> None:
    data = b"".join(varied(name, FRAMES, 1))
    assert name in guess(data)[0].names


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(2))
def test_random_bytes_are_nothing(batch: int) -> None:
    # python -m bench.guess tries more of them.
    claims = []
    for seed in range(50 * batch, 50 * batch + 50):
        r = random.Random(seed)
        data = r.randbytes(r.choice([100, 300, 1000, 3000]))
        if found := guess(data):
            claims.append((seed, len(data), str(found[0].codec), found[0].bits))
    assert not claims


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        bytes(10_000),
        b"\xff" * 5000,
        b"ab" * 5000,
        random.Random(0).randbytes(20_000),
        Path(__file__).read_bytes(),
        Codec.uint(4).encode(b"one frame"),
    ],
    ids=["empty", "byte", "zeros", "ones", "period", "random", "source", "one"],
)
def test_what_has_no_frames_is_nothing(data: bytes) -> None:
    assert guess(data) == []


def test_a_capture_that_ends_inside_a_frame() -> None:
    data = capture(Codec.uint(4))[:-3]
    best = guess(data)[0]
    assert str(best.codec) == "u32be"
    assert (best.frames, best.complete) == (FRAMES - 1, False)
    assert best.explained + best.left == len(data)
    assert best.left > 0


@pytest.mark.parametrize(
    ("greeting", "name"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"),
        (b"AMQP\0\0\x09\x01", "amqp"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "ssh"),
        (b"\x13BitTorrent protocol" + bytes(48), "bittorrent"),
    ],
)
def test_frames_after_a_greeting(greeting: bytes, name: str) -> None:
    data = greeting + b"".join(varied(name, FRAMES, 2))
    best = guess(data)[0]
    assert best.offset == len(greeting)
    assert best.codec.split(data[best.offset :])[0] == formats[name].split(data[best.offset :])[0]


def test_a_guess_is_plain_data() -> None:
    import pickle

    (best, *_) = found = guess(capture(formats.kafka))
    assert isinstance(best, Guess)
    assert best.bits > 50
    assert pickle.loads(pickle.dumps(found)) == found
    assert guess(memoryview(bytearray(capture(formats.kafka)))) == found
    assert guess(capture(formats.kafka), limit=1) == found[:1]
    with pytest.raises(TypeError):
        guess("text")  # type: ignore[arg-type]


def test_the_function_is_loaded_when_it_is_used() -> None:
    import subprocess
    import sys

    program = (
        "import sys, framecodec; before = 'framecodec._guess' in sys.modules; "
        "framecodec.guess(b''); print(before, 'framecodec._guess' in sys.modules, "
        "'guess' in dir(framecodec))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.split() == ["False", "True", "True"]
    assert framecodec.guess is guess


@pytest.mark.slow
def test_damaged_captures_raise_nothing() -> None:
    for seed in range(30):
        r = random.Random(seed)
        name = r.choice(list(formats))
        data = bytearray(b"".join(varied(name, 10, seed)))
        for _ in range(r.randrange(5)):
            data[r.randrange(len(data))] = r.randrange(256)
        for one in guess(data[: r.randrange(1, len(data))]):
            assert one.frames >= 4


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def needs_rich() -> None:
    pytest.importorskip("rich", reason="the extra cli is not installed")


@pytest.mark.usefixtures("needs_rich")
def test_the_command_shows_guesses_and_evidence(tmp_path: Path) -> None:
    file = tmp_path / "capture"
    file.write_bytes(capture(formats.postgres, opening=b"D"))
    result = run_process("guess", str(file))
    assert (result.status, result.errors) == (0, "")
    lines = result.output.decode().splitlines()
    assert lines[0].startswith("A guess, for ")
    assert re.search(r"postgres +24 +0 +1 in 10\^\d+", result.output.decode())
    assert lines[-1].startswith("See the frames: framecodec dump --codec ")


@pytest.mark.usefixtures("needs_rich")
def test_the_command_says_none_on_random_bytes() -> None:
    result = run("guess", stdin=random.Random(1).randbytes(5000))
    assert (result.status, result.errors) == (1, "")
    assert result.output.startswith(b"none: ")
    assert run("guess", "--json", stdin=random.Random(1).randbytes(5000)) == (1, b"", "")


@pytest.mark.usefixtures("needs_rich")
def test_the_command_prints_objects() -> None:
    data = capture(formats.mqtt, opening=b"\x30")
    result = run("guess", "--json", "--limit", "3", stdin=data)
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert 1 <= len(rows) <= 3
    assert "mqtt" in rows[0]["names"]
    assert parse_codec(rows[0]["codec"]).split(data)[1] == rows[0]["explained"] == len(data)


@pytest.mark.usefixtures("needs_rich")
def test_the_command_reads_captures() -> None:
    up, down = capture(formats.kafka, 1), capture(formats.ascii4, 2)
    pieces = [[data[at : at + 300] for at in range(0, len(data), 300)] for data in (up, down)]
    stdin = pcap(conversation(*pieces))
    result = run("guess", "--json", "--limit", "1", stdin=stdin)
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [(row["source"], row["frames"]) for row in rows] == [
        ("10.0.0.1:50000", FRAMES),
        ("10.0.0.2:80", FRAMES),
    ]
    assert "kafka" in rows[0]["names"]
    assert rows[1]["codec"] == "digits4"
    assert run("guess", stdin=pcap([])).status == 1


@pytest.mark.usefixtures("needs_rich")
@pytest.mark.parametrize(
    ("columns", "color"),
    [
        (80, True),
        pytest.param(80, False, marks=pytest.mark.slow),
        pytest.param(200, True, marks=pytest.mark.slow),
        pytest.param(200, False, marks=pytest.mark.slow),
    ],
)
def test_the_command_in_a_terminal(columns: int, color: bool, tmp_path: Path) -> None:
    file = tmp_path / "capture"
    file.write_bytes(capture(formats.kafka))
    with started("guess", str(file), terminal=columns, color=color) as process:
        assert process.wait() == 0
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", process.output).decode().splitlines()
    assert max(map(len, lines)) <= columns
    assert any("kafka" in line for line in lines)


# --- end marks, flags, checksums ------------------------------------------------------------------


def words(count: int, seed: int = 0) -> list[bytes]:
    r = random.Random(seed)
    letters = b"abcdefghijklmnopqrstuvwxyz "
    return [bytes(r.choices(letters, k=r.randint(3, 30))) for _ in range(count)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0", b"\r", b"\x03"])
def test_guess_finds_an_end_mark(end: bytes) -> None:
    codec = Codec.delimiter(end)
    data = codec.encode_many(words(24))
    assert guess(data)[0].codec.split(data) == codec.split(data)


def test_guess_claims_no_end_mark_in_random_bytes() -> None:
    for seed in range(4):
        assert guess(random.Random(seed).randbytes(3000)) == []


@pytest.mark.parametrize("bits", [15, 14, 12])
def test_guess_finds_a_length_beside_flags(bits: int) -> None:
    r = random.Random(1)
    codec = Codec.uint(2, length_mask=(1 << bits) - 1)
    flags = [r.choice([0x80, 0xC0, 0]) & (0xFF << (bits - 8)) & 0xFF for _ in range(30)]
    data = b"".join(
        codec.encode(bytes([flag]) + word) for flag, word in zip(flags, words(30), strict=True)
    )
    best = guess(data)[0].codec
    assert codec.split(data)[0] == best.split(data)[0]


@pytest.mark.parametrize("function", ["crc32", "crc16-modbus", "crc16-x25", "sum8", "xor8"])
@pytest.mark.parametrize("covers", ["message", "body"])
@pytest.mark.parametrize("counted", [False, True])
def test_guess_finds_a_checksum(
    function: str, covers: Literal["message", "body"], counted: bool
) -> None:
    width = {"crc32": 4, "sum8": 1, "xor8": 1}.get(function, 2)
    check = Check(function, width, "little" if width > 1 else "big", covers=covers)
    codec = Codec.uint(2, check=check, length_adjustment=-width if counted else 0)
    r = random.Random(2)
    data = codec.encode_many(r.randbytes(r.randint(5, 60)) for _ in range(24))
    best = guess(data)[0].codec
    assert best.parameters["check"] is not None
    assert best.split(data) == codec.split(data)


def test_lengths_are_guessed_before_marks_inside_their_frames() -> None:
    for name in ("fix", "http2"):
        data = b"".join(repeated(name, FRAMES, 0))
        assert guess(data)[0].codec.split(data) == formats[name].split(data)


def test_a_document_is_no_stream_of_lines() -> None:
    lines = words(40)
    assert guess(b"\n".join(lines) + b"\n")[0].names == ("lines",)
    indented = [b"    " + line if at % 3 else line for at, line in enumerate(lines)]
    assert guess(b"\n".join(indented) + b"\n") == []
    assert guess(b"\n\n".join(lines) + b"\n") == []


@pytest.mark.parametrize("name", ["cobs", "c37118", "ndjson", "mllp", "slip", "nul"])
def test_a_codec_that_verifies_more_is_first(name: str) -> None:
    best = guess(b"".join(varied(name, FRAMES, 0)))[0]
    assert best.names == (name,)


def test_constant_bits_are_no_flags() -> None:
    codec = Codec.uint(1, magic=b"\x80")
    found = guess(codec.encode_many(words(FRAMES)))
    assert found[0].codec == codec
    assert "u16be,mask=0x7fff" not in {str(one.codec) for one in found}


@pytest.mark.usefixtures("needs_rich")
def test_the_command_names_a_format_to_dump_with() -> None:
    result = run("guess", stdin=b"".join(varied("ndjson", FRAMES, 0)))
    assert result.output.endswith(b"framecodec dump --codec ndjson FILE\n")


@pytest.mark.usefixtures("needs_rich")
def test_the_command_names_where_the_frames_begin_after_a_greeting() -> None:
    greeting = b"SSH-2.0-OpenSSH_9.2p1\r\n"
    output = run("guess", stdin=greeting + b"".join(varied("ssh", FRAMES, 2))).output.decode()
    assert "The first frame begins at byte 23, after a greeting.\n" in output
    assert output.endswith(" --skip 23 FILE\n")


def test_the_command_writes_a_table_for_each_direction_of_a_capture() -> None:
    stream = Codec.uint(2).encode_many(b"message %d" % number for number in range(40))
    data = pcap(conversation([stream], []))
    output = run("guess", stdin=data).output.decode()
    assert "tcp 0, 10.0.0.1:50000 > 10.0.0.2:80" in output
    assert "See the frames: framecodec dump --codec" in output
    empty = run("guess", stdin=pcap([]))
    assert (empty.status, empty.output) == (1, b"none: the capture has no TCP connection\n")
    result = run("guess", "--limit", "0", stdin=b"")
    assert (result.status, "'0' is not a number from 1 to 999" in result.errors) == (2, True)


def test_the_command_follows_no_stream_after_a_gap() -> None:
    messages = [b"message %d" % number for number in range(40)]
    packets = conversation([Codec.uint(2).encode(message) for message in messages], [])
    del packets[30]
    output = run("guess", stdin=pcap(packets)).output.decode()
    assert "at the beginning of the file" in output


def test_equal_codecs_have_one_key() -> None:
    def key(codec: Codec) -> tuple[object, ...]:
        return guess_module._key(codec)

    assert key(Codec.uint(2, magic=b"M", length_offset=1)) == key(Codec.uint(2, magic=b"M"))
    assert key(Codec.uint(4, "native")) == key(Codec.uint(4, sys.byteorder))
    assert key(Codec.struct("<H")) == key(Codec.uint(2, "little", max_message_size=5))
    assert key(Codec.uint(2)) != key(Codec.uint(2, "little"))
    # No codec of `uint` has a special below 0 without `signed`.
    assert key(Codec.struct("<i", specials={-1: "end"}))[0] == "struct"


def uint_framing(data: bytes, codec: Codec) -> guess_module._Framing:
    """Return the framing of a capture whose lengths have 4 bytes."""
    starts = tuple(itertools.accumulate((4 + len(m) for m in codec.split(data)[0]), initial=0))
    shape = Shape("uint", (("width", 4), ("byteorder", "big")), 0, 0, 1, 4)
    return guess_module._Framing(starts, [shape], [])


def test_a_codec_of_two_framings_is_named_once() -> None:
    codec = Codec.uint(4)
    data = codec.encode_many(words(8))
    framing = uint_framing(data, codec)
    codecs = [one.codec for one in guess_module._guesses(data, [framing, framing], 10)]
    assert codecs.count(codec) == 1
    assert len(set(codecs)) == len(codecs)


@pytest.mark.parametrize("place", [0, 3])
def test_a_codec_whose_limit_a_frame_exceeds_is_left_out(place: int) -> None:
    messages = words(8)
    messages[place] = bytes((16 << 20) + 1)
    unlimited = Codec.uint(4, max_message_size=None)
    data = unlimited.encode_many(messages)
    framing = uint_framing(data, unlimited)
    assert guess_module._count(data, framing, Codec.uint(4), ()) is None
    found = guess_module._count(data, framing, unlimited, ())
    assert found is not None
    assert (found.frames, found.explained) == (8, len(data))
    assert guess_module._guesses(data, [framing], 10) == []


def test_frames_above_64_kibibytes_are_found() -> None:
    data = Codec.uint(4).encode_many(b"ab" * 40_000 + word for word in words(6))
    best = guess(data)[0]
    assert (best.codec, best.frames, best.left) == (Codec.uint(4), 6, 0)


def test_equal_frames_are_no_evidence_of_a_checksum() -> None:
    codec = Codec.uint(2, check=Check("xor8", 1))
    found = guess(codec.encode_many([b"abcdefgh"] * FRAMES))
    assert found
    assert not [one for one in found if one.codec.parameters.get("check")]


def test_another_number_in_a_header_block_is_no_length() -> None:
    data = b"".join(
        b"Count: 7\r\nContent-Length: %d\r\n\r\n%s" % (len(word), word) for word in words(10)
    )
    assert [str(one.codec) for one in guess(data)] == ["headers"]


def test_the_length_of_struct_is_named_beside_equal_codecs() -> None:
    found = guess(Codec.struct("i").encode_many(words(FRAMES)))
    assert [one.codec for one in found if "struct-i" in one.names] == [Codec.struct("i")]


def test_codecs_that_contradict_themselves_are_left_out() -> None:
    from framecodec._guess.checks import _checked

    shape = Shape("uint", (("width", 2), ("byteorder", "big")), 0, 0, 1, 2)
    assert _checked(shape, b"", Check("crc32", 4)) is not None
    assert _checked(shape, b"\1" * 2000, Check("crc32", 4)) is None
