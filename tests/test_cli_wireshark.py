"""``framecodec wireshark``: the dissector, run by tshark on captures."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from framecodec import Codec, formats, parse_codec
from framecodec.cli.common import CommandError
from framecodec.cli.wireshark import dissector
from tests.helpers.command import run
from tests.helpers.format_captures import repeated
from tests.helpers.packets import SERVER, conversation, ethernet, pcap

pytest.importorskip("rich", reason="the extra cli is not installed")

TSHARK = shutil.which("tshark")
needs_tshark = pytest.mark.skipif(
    TSHARK is None, reason="tshark is not installed (tests/interop/install.sh installs it)"
)


def dissect(codec: Codec, stream: bytes, tmp_path: Path, seed: int = 0) -> list[list[str]]:
    """Return the values of the fields of each frame that tshark finds in a stream.

    The stream is cut into segments at random places.
    """
    assert TSHARK is not None
    r = random.Random(seed)
    cuts = sorted(r.sample(range(1, len(stream)), min(12, len(stream) - 1)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    capture, script = tmp_path / "capture.pcap", tmp_path / "dissector.lua"
    capture.write_bytes(pcap(map(ethernet, conversation(pieces, [])), link=1))
    script.write_text(dissector(codec, "mine", [SERVER[1]]))
    names = ("size", "length", "magic", "lead", "rest", "trailer")
    fields = [option for name in names for option in ("-e", f"mine.{name}")]
    command = [TSHARK, "-X", f"lua_script:{script}", "-r", str(capture), "-Y", "mine"]
    command += ["-T", "fields", "-E", "separator=|", "-E", "occurrence=a", *fields]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Lua" not in done.stderr, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines()]
    # Frames of one packet are in one row, each field a list.
    return [
        [value for row in rows for value in row[column].split(",") if value] for column in range(6)
    ]


@needs_tshark
@pytest.mark.slow
@pytest.mark.parametrize(
    "notation",
    [
        "u32be",
        "u16le,offset=2,includes=frame",
        "u8,magic=%AB%CD,offset=3,adjustment=1,trailer=%0A",
        "u24be,adjustment=6",
        "i32be,offset=1,adjustment=-4",
        "u64le",
        "struct:!I",
        "digits4",
        "hex4,includes=frame",
        "varint",
        "varint,offset=1",
        "text,end=%3A,trailer=%2C",
        "text,end=%0D%0A,base=16",
        "headers",
    ],
)
def test_tshark_finds_the_frames(notation: str, tmp_path: Path) -> None:
    codec, r = parse_codec(notation), random.Random(7)
    messages = [r.randbytes(r.choice([8, 20, 130, 200])) for _ in range(12)]
    frames = [codec.encode(message) for message in messages]
    sizes, lengths, magics, leads, rests, trailers = dissect(codec, b"".join(frames), tmp_path)
    assert [int(size) for size in sizes] == [len(frame) for frame in frames]
    assert len(lengths) == len(frames)
    magic, trailer = codec.parameters["magic"], codec.parameters["trailer"]
    assert magics == [magic.hex()] * (len(frames) if magic else 0)
    assert trailers == [trailer.hex()] * (len(frames) if trailer else 0)
    lead = 0
    if codec.parameters.get("length_offset"):
        lead = codec.parameters["length_offset"] - len(magic)
        assert leads == [message[:lead].hex() for message in messages]
    assert rests == [message[lead:].hex() for message in messages]


def sizes_of(
    codecs: dict[str, Codec], streams: dict[str, bytes], folder: Path
) -> dict[str, list[int]]:
    """Return the sizes of the frames that tshark finds in one capture of many streams.

    Each codec has a port and a dissector.
    """
    assert TSHARK is not None
    packets: list[bytes] = []
    scripts, ports = [], {}
    for number, (name, codec) in enumerate(codecs.items()):
        port, stream = 20000 + number, streams[name]
        cut = len(stream) // 3
        pieces = [stream[:cut], stream[cut : 2 * cut], stream[2 * cut :]]
        packets += conversation(
            [p for p in pieces if p], [], ("10.0.0.1", 50000), (SERVER[0], port)
        )
        scripts.append(f"do\n{dissector(codec, f'mine{number}', [port])}\nend\n")
        ports[port] = name
    capture, script = folder / "capture.pcap", folder / "dissectors.lua"
    script.write_text("".join(scripts))
    capture.write_bytes(pcap(map(ethernet, packets), link=1))
    command = [TSHARK, "-X", f"lua_script:{script}", "-r", str(capture)]
    command += ["-T", "fields", "-E", "separator=|", "-e", "tcp.dstport"]
    for number in range(len(codecs)):
        command += ["-e", f"mine{number}.size"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Lua" in done.stderr) == (0, False), done.stderr
    found: dict[str, list[int]] = {name: [] for name in codecs}
    for line in done.stdout.splitlines():
        port, *columns = line.split("|")
        if int(port) in ports:
            found[ports[int(port)]] += [
                int(size) for column in columns for size in column.split(",") if size
            ]
    return found


@needs_tshark
@pytest.mark.slow
def test_tshark_finds_the_frames_of_the_catalogue(tmp_path: Path) -> None:
    codecs, streams, expected = {}, {}, {}
    for name, codec in formats.items():
        if codec.kind == "custom":
            continue
        frames = repeated(name, 12, 0)
        if "fragments" in codec.parameters:
            fragments = codec.parameters["fragments"]
            frames = [bytes(frame) for frame in fragments.scan(b"".join(frames), raw=True)]
        codecs[name], streams[name] = codec, b"".join(frames)
        expected[name] = list(map(len, frames))
    assert len(codecs) > 0.9 * len(formats)
    found = sizes_of(codecs, streams, tmp_path)
    assert {name: sizes for name, sizes in found.items() if sizes != expected[name]} == {}


@needs_tshark
@pytest.mark.slow
def test_tshark_finds_checks_flags_wider_lengths_and_padding(tmp_path: Path) -> None:
    codecs = {
        "check": parse_codec("u16be,check=crc32,trailer=%0A"),
        "front": parse_codec("u16be,check=crc16-modbus;rest;front"),
        "flags": Codec.uint(2, length_mask=0x0FFF),
        "high": Codec.uint(2, "little", length_mask=0xFFF0),
        "wider": Codec.uint(1, length_offset=1, wider={126: "u16be", 127: "u64le"}),
        "align": Codec.uint(2, align=4),
        "ber": Codec.ber(length_offset=1),
        "mark": Codec.delimiter(b"\r\n", b"\n", magic=b"$"),
    }
    streams, expected = {}, {}
    for name, codec in codecs.items():
        messages = [
            bytes([0x10 if name != "flags" else 0x70]) + b"z" * size for size in (15, 79, 319)
        ]
        if name == "flags":
            messages = [message + b"" for message in messages]
        if name == "high":
            messages = [b"\x00" * 1 + b"z" * size for size in (16, 80, 320)]
        frames = [codec.encode(message) for message in messages]
        streams[name], expected[name] = b"".join(frames), list(map(len, frames))
    assert sizes_of(codecs, streams, tmp_path) == expected


@needs_tshark
@pytest.mark.slow
def test_tshark_shows_special_values(tmp_path: Path) -> None:
    stream = formats["pkt-line"].encode(b"ab") + b"0000" + formats["pkt-line"].encode(b"hello")
    sizes, lengths, *_ = dissect(formats["pkt-line"], stream, tmp_path)
    assert sizes == ["6", "4", "9"]
    assert lengths == ["6", "0", "9"]


@needs_tshark
@pytest.mark.slow
def test_tshark_marks_what_is_not_a_frame(tmp_path: Path) -> None:
    stream = formats.ascii4.encode(b"good") + b"GET / HTTP/1.1\r\n"
    sizes, *_ = dissect(formats.ascii4, stream, tmp_path)
    assert sizes == ["8"]


def test_the_command_prints_the_dissector() -> None:
    result = run("wireshark", "--codec", "kafka", "--port", "9092", "--port", "9093")
    assert (result.status, result.errors) == (0, "")
    text = result.output.decode()
    assert text == dissector(formats.kafka, "framed", [9092, 9093])
    assert "dissect_tcp_pdus" in text
    assert ":add(9092, proto)" in text


@pytest.mark.parametrize("name", ["", "Big", "a b", "a\nb", "1a", '"'])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="is not a name"):
        dissector(Codec.uint(4), name)


def test_a_codec_of_functions_is_refused_in_one_line() -> None:
    result = run("wireshark", "--codec", "dbus")
    assert (result.status, result.output, result.errors.count("\n")) == (1, b"", 1)
    assert "custom" in result.errors
    assert run("wireshark", "--codec", "u8", "--port", "70000").status == 2


@pytest.mark.parametrize(
    ("notation", "lines"),
    [
        ("u16le,offset=2,includes=frame", ["offset = 2", "return value * 1 end", "offset + 1, 1"]),
        ("u32be,mask=0x3ffffffc", ["value = value % 1073741824 - value % 4"]),
        ("i16be", ["if value >= 32768 then value = value - 65536 end"]),
        ("u8,wider=254:u16le;255:u32be", ["if value == 254 then", "return value, 5"]),
        (
            "u8,wider=254:u16native",
            [f"value * 256 + tvb(offset + {2 if sys.byteorder == 'little' else 1}, 1):uint()\n"],
        ),
        ("struct:<H", ["value * 256 + tvb(offset + 1, 1)", "return value, 2"]),
        ("digits4", ["tonumber(tvb(offset, 4):string(), 10)"]),
        ("hex4", ["tonumber(tvb(offset, 4):string(), 16)"]),
        ("bcd2", ["tonumber(tostring(tvb(offset, 2):bytes()), 10)"]),
        ("varint", ["for width = 1, 5 do", "value + byte % 128 * factor"]),
        ("text,end=%3A", ['text:find("\\058", 1, true)', "text:sub(1, stop - 1), 10)"]),
        ("headers", ['key == "\\099\\111', "return false, 0"]),
        ("ber", ["if count < 128 then return count, 1 end"]),
        ("fixed7", ["return 7, 0"]),
        ("delimiter", ['ipairs({ "\\010" })', "frames up to an end mark"]),
    ],
)
def test_dissector_reads_the_length_of_each_kind(notation: str, lines: list[str]) -> None:
    program = dissector(parse_codec(notation), "mine", [1, 2])
    for line in lines:
        assert line in program
    assert 'DissectorTable.get("tcp.port"):add(2, proto)' in program


def test_dissector_chooses_among_alternatives() -> None:
    codec = Codec.choice(
        {
            1: Codec.uint(1, length_offset=1),
            b"\2\3": Codec.uint(2, length_offset=1),
            b"\5\7": Codec.uint(4, length_offset=1),
        }
    )
    program = dissector(codec)
    assert "if tvb:len() < start + 1 then return nil end" in program
    assert "if byte == 1 then return shapes[1] end" in program
    assert "if byte >= 2 and byte <= 3 then return shapes[2] end" in program
    assert '("\\005\\007"):find(string.char(byte), 1, true) then return shapes[3] end' in program
    joined = Codec.joined(Codec.uint(2), full=5)
    assert "length-prefixed frames" in dissector(joined)
    assert "shapes[1] = {" in dissector(joined)


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        (Codec.headers(lenient=True), "no dissector for a codec with lenient"),
        (Codec.headers(line_end=b"\n"), "no dissector for a codec with line_end=LF"),
        (Codec.uint(2, length_mask=0x1F05), "no dissector for a codec with length_mask=0x1f05"),
    ],
)
def test_dissector_names_the_parameter_that_it_lacks(codec: Codec, reason: str) -> None:
    with pytest.raises(CommandError) as caught:
        dissector(codec)
    assert str(caught.value) == reason
