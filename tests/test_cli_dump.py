"""``framecodec dump``: frames, their parts, and bad places; of files, pipes, sockets, captures."""

from __future__ import annotations

import io
import json
import os
import random
import re
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from framecodec import Check, Codec, formats, parse_codec
from framecodec.cli import captures
from framecodec.cli.anatomy import dissect
from tests.helpers.command import Result, run, run_process, started, started_command
from tests.helpers.format_captures import vector_frames
from tests.helpers.packets import (
    CLIENT,
    FIN,
    RST,
    SERVER,
    SYN,
    conversation,
    ethernet,
    pcap,
    pcapng,
    tcp,
)

pytest.importorskip("rich", reason="the extra cli is not installed")

FRAMES = b"\xab\xcd\x05hello\n\xab\xcd\x03bye\n"
CODEC = "u8,magic=%AB%CD,trailer=%0A"


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.output.splitlines()]


def test_dump_marks_the_parts_of_each_frame() -> None:
    result = run("dump", "--codec", CODEC, stdin=FRAMES)
    assert (result.status, result.errors) == (0, "")
    lines = [line.split() for line in result.output.decode().splitlines()]
    assert lines == [
        ["frame", "0", "at", "0:", "size", "9,", "length", "5,", "message", "5"],
        ["00000000", "magic", "ab", "cd", ".."],
        ["00000002", "length", "05", "."],
        ["00000003", "rest", "68", "65", "6c", "6c", "6f", "hello"],
        ["00000008", "trailer", "0a", "."],
        ["frame", "1", "at", "9:", "size", "7,", "length", "3,", "message", "3"],
        ["00000009", "magic", "ab", "cd", ".."],
        ["0000000b", "length", "03", "."],
        ["0000000c", "rest", "62", "79", "65", "bye"],
        ["0000000f", "trailer", "0a", "."],
        ["2", "frames,", "16", "bytes"],
    ]


def test_dump_json_prints_an_object_a_line() -> None:
    result = run("dump", "--json", "--codec", CODEC, stdin=FRAMES)
    assert objects(result) == [
        {"index": 0, "offset": 0, "size": 9, "message": "68656c6c6f"},
        {"index": 1, "offset": 9, "size": 7, "message": "627965"},
    ]


def test_dump_resync_continues_at_the_next_frame() -> None:
    data = b"noise" + FRAMES[:9] + b"\xab\xcd\x03byX\n" + FRAMES[9:] + b"!!"
    data = data.replace(b"byX\n", b"byXY")  # a wrong trailer
    result = run("dump", "--codec", CODEC, "--resync", stdin=data)
    lines = result.output.decode().splitlines()
    assert result.status == 1
    assert lines[0].startswith("5 bytes at 0 discarded: ")
    assert lines[1].startswith("frame 0 at 5: size 9")
    assert "7 bytes at 14 discarded: " in "\n".join(lines)
    assert any(line.startswith("frame 1 at 21: size 7") for line in lines)
    assert lines[-2].startswith("2 bytes at 28 discarded: ")
    assert lines[-1] == "2 frames, 16 bytes"
    found = objects(run("dump", "--json", "--codec", CODEC, "--resync", stdin=data))
    assert [(each["offset"], each.get("discarded")) for each in found] == [
        *((0, 5), (5, None), (14, 7), (21, None), (28, 2))
    ]
    assert run("dump", "--codec", CODEC, "--resync", stdin=FRAMES).status == 0
    refused = run("dump", "--codec", "u32be", "--resync", stdin=FRAMES)
    assert refused.status != 0
    assert "begin with a mark" in refused.errors


def test_dump_marks_checks() -> None:
    for notation, names in (
        ("u8,check=crc32", ["length", "rest", "check"]),
        ("u8,magic=M,trailer=!,check=sum8;front", ["magic", "length", "check", "rest", "trailer"]),
        ("ber4,check=xor8;front", ["length", "check", "rest"]),
    ):
        frame = parse_codec(notation).encode(b"hello")
        result = run("dump", "--codec", notation, stdin=frame)
        assert [line.split()[1] for line in result.output.decode().splitlines()[1:-1]] == names


def test_dump_shows_special_values() -> None:
    result = run("dump", "--json", "--codec", "pkt-line", stdin=b"0005a0000")
    assert [found["message"] for found in objects(result)] == ["61", None]
    text = run("dump", "--codec", "pkt-line", stdin=b"0000").output.decode()
    assert "size 4, length 0, special formats.PktLine.FLUSH" in text


def test_dump_limits_the_bytes_of_a_part() -> None:
    stdin = formats.erlang2.encode(b"x" * 100)
    text = run("dump", "--bytes", "20", "--codec", "u16be", stdin=stdin).output.decode()
    assert text.count("78") == 20
    assert "80 more bytes" in text


def test_dump_skips_bytes_before_the_first_frame() -> None:
    result = run("dump", "--json", "--skip", "4", "--codec", "u8", stdin=b"junk\1a\2bc")
    assert [(found["offset"], found["size"]) for found in objects(result)] == [(4, 2), (6, 3)]


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (Codec.uint(2, "little", magic=b"\2", length_offset=3, trailer=b"\3"), b"ablead"),
        (Codec.uint(4, length_offset=1, length_adjustment=-4), b"Qselect"),
        (Codec.struct("!Q"), b""),
        (Codec.digits(4, base=16, length_includes="frame"), b"abc"),
        (Codec.text(b":", trailer=b","), b"abc"),
        (Codec.varint(length_offset=1), b"\x10" + b"x" * 300),
        (Codec.headers("Size"), b"{}"),
        (Codec.ber(length_offset=1), b"\x30" + b"x" * 300),
        (formats.zmtp, b"\0abc"),
        (formats.giop, b"\1\2\0\1body"),
        (formats.giop, b"\1\2\1\1body"),
        (formats.postgres, b"Qselect"),
    ],
    ids=str,
)
def test_the_parts_of_a_frame_are_its_bytes(codec: Codec, message: bytes) -> None:
    frame = codec.encode(message)
    found = dissect(codec, frame, message)
    assert [part.start for part in found] == [0, *(part.stop for part in found[:-1])]
    assert found[-1].stop == len(frame)
    own = b"".join(frame[p.start : p.stop] for p in found if p.name in ("lead", "rest"))
    assert own == message
    (length,) = (part for part in found if part.name == "length")
    assert length.declared is not None


@pytest.mark.parametrize(
    ("codec", "message", "declared"),
    [
        (Codec.uint(2, length_mask=0x7FFF), b"\x80hello", 5),
        (Codec.uint(1, wider={126: "u16be", 127: "u64le"}), b"x" * 50, 50),
        (Codec.uint(1, wider={126: "u16be", 127: "u64le"}), b"x" * 500, 500),
        (Codec.uint(1, wider={126: "u16be", 127: "u64le"}), b"x" * 70_000, 70_000),
        (Codec.uint(1, wider={254: "u16native"}), b"x" * 500, 500),
        (Codec.struct("!B", wider={255: "u16be"}), b"x" * 500, 500),
        (Codec.struct("<H", length_mask=0x3FFF), b"\xc0" + b"x" * 500, 500),
        (Codec.struct("!b"), b"x" * 50, 50),
        (Codec.ber(), b"x" * 500, 500),
        (formats.mqtt, b"\x30" + b"x" * 300, 300),
        (formats.zmtp, b"\0" + b"x" * 300, 300),
        (formats.websocket, b"\x81\0" + b"x" * 70_000, 70_000),
    ],
    ids=range(12),
)
def test_the_declared_length_is_that_of_the_field(
    codec: Codec, message: bytes, declared: int
) -> None:
    found = dissect(codec, codec.encode(message), message)
    assert [part.declared for part in found if part.name == "length"] == [declared]


CHECK = Check("crc16-x25", 2)
FRONT = Check("crc16-x25", 2, position="front")


@pytest.mark.parametrize(
    ("codec", "message", "expected"),
    [
        (Codec.delimiter(b"\r\n"), b"hello", [("rest", 5), ("trailer", 2)]),
        (Codec.fixed(5, check=CHECK), b"hello", [("rest", 5), ("check", 2)]),
        (Codec.ber(length_offset=1), b"\x30hello", [("lead", 1), ("length", 1), ("rest", 5)]),
        (Codec.uint(1, check=CHECK), b"hello", [("length", 1), ("rest", 5), ("check", 2)]),
        (Codec.uint(1, check=FRONT), b"hello", [("length", 1), ("check", 2), ("rest", 5)]),
        (Codec.uint(2, length_mask=0x7FFF), b"\x80hello", [("length", 2), ("rest", 5)]),
        (Codec.uint(1, align=4), b"hello", [("length", 1), ("rest", 5), ("padding", 2)]),
    ],
)
def test_the_parts_of_every_shape_are_found(
    codec: Codec, message: bytes, expected: list[tuple[str, int]]
) -> None:
    found = dissect(codec, codec.encode(message), message)
    assert [(part.name, part.stop - part.start) for part in found] == expected


@pytest.mark.parametrize(
    ("codec", "stream", "start", "bad"),
    [
        (CODEC, FRAMES + b"\xab\xce\x05xxxx", 16, 17),  # magic
        (CODEC, FRAMES + b"\xab\xcd\x05hello!rest", 16, 24),  # trailer
        ("digits4", b"0001a00x5hello", 5, 7),
        ("u32be", b"\0\0\0\1aGET / HTTP/1.1", 5, 8),
        ("digits4", b"0001a0005he", 5, 11),  # the end
    ],
)
def test_a_bad_place_is_shown_with_the_bytes_around_it(
    codec: str, stream: bytes, start: int, bad: int
) -> None:
    result = run("dump", "--codec", codec, stdin=stream)
    assert result.status == 1
    assert result.errors.count("\n") == 1
    text = result.output.decode()
    assert f"begins at byte {start} (^^)" in text
    assert f"byte {bad}" in text[text.index("begins at") :]
    row, marks = text.splitlines()[-2:]
    if row.startswith("  0000") and "^^" in marks:
        column = marks.index("^^")
        assert row[column : column + 2] == f"{stream[start]:02x}"
        if bad < len(stream):
            column = marks.index("!!")
            assert row[column : column + 2] == f"{stream[bad]:02x}"


def test_the_bytes_around_a_bad_place_span_rows() -> None:
    good = formats.ascii4.encode(b"x" * 200)
    stream = good + b"ab\xffd" + bytes(range(100))
    text = run("dump", "--codec", "digits4", "--bytes", "0", stdin=stream).output.decode()
    shown = text[text.index("begins at") :]
    assert f"{len(good) // 16 * 16:08x}" in shown
    assert "61 62 ff 64" in shown or "61 62 ff" in shown


def test_the_shown_frames_do_not_depend_on_the_chunks() -> None:
    whole = run_process("dump", "--codec", CODEC, stdin=FRAMES * 3)
    with started("dump", "--codec", CODEC) as process:
        for byte in FRAMES * 3:
            process.type(bytes([byte]))
        process.close_input()
        assert process.wait() == whole.status == 0
        assert process.output == whole.output


def test_dump_reads_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                conn.sendall(FRAMES)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = run("dump", "--json", "--codec", CODEC, "--connect", address)
        thread.join()
    assert [found["size"] for found in objects(result)] == [9, 7]
    result = run("dump", "--codec", CODEC, "--connect", address)
    assert (result.status, result.errors.count("\n")) == (1, 1)


# --- captures -------------------------------------------------------------------------------------

UP = [b"0005hel", b"lo00", b"03bye"]
DOWN = [b"0002", b"ok0004good"]


def messages(result: Result, number: int = 0) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for one in objects(result):
        if one["stream"] == number:
            found.setdefault(one["source"], []).append(bytes.fromhex(one["message"]))
    return found


EXPECTED = {"10.0.0.1:50000": [b"hello", b"bye"], "10.0.0.2:80": [b"ok", b"good"]}


@pytest.mark.parametrize(
    "capture",
    [
        pcap(conversation(UP, DOWN)),
        pcap(conversation(UP, DOWN), order=">"),
        pcap(conversation(UP, DOWN), nano=True),
        pcap(map(ethernet, conversation(UP, DOWN)), link=1),
        pcap((ethernet(p, vlan=True) for p in conversation(UP, DOWN)), link=1),
        pcap((bytes(4) + p for p in conversation(UP, DOWN)), link=0),
        pcap((bytes(14) + b"\x08\0" + p for p in conversation(UP, DOWN)), link=113),
        pcap((b"\x08\0" + bytes(18) + p for p in conversation(UP, DOWN)), link=276),
        pcapng(conversation(UP, DOWN)),
        pcapng(conversation(UP, DOWN), order=">"),
        pcapng(map(ethernet, conversation(UP, DOWN)), link=1),
    ],
    ids=["pcap", "big", "nano", "eth", "vlan", "null", "sll", "sll2", "ng", "ng-big", "ng-eth"],
)
def test_a_capture_is_put_together_each_direction_for_itself(capture: bytes) -> None:
    result = run("dump", "--json", "--codec", "digits4", stdin=capture)
    assert (result.status, result.errors) == (0, "")
    assert messages(result) == EXPECTED


def test_ipv6_and_sequence_numbers_that_start_again() -> None:
    client, server = ("2001:db8::1", 4000), ("2001:db8::2", 5000)
    packets = conversation(UP, DOWN, client, server, start=2**32 - 5)
    result = run("dump", "--json", "--codec", "digits4", stdin=pcap(packets))
    assert messages(result) == {
        "[2001:db8::1]:4000": [b"hello", b"bye"],
        "[2001:db8::2]:5000": [b"ok", b"good"],
    }


def test_segments_out_of_order_and_again() -> None:
    codec, r = formats.ascii4, random.Random(1)
    sent = [r.randbytes(r.randrange(200)) for _ in range(100)]
    stream = codec.encode_many(sent)
    cuts = sorted(r.sample(range(1, len(stream)), 60))
    pieces = [(a, stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    for seed in range(5):
        r = random.Random(seed)
        # Each piece up to three places early or late, some twice, some with bytes of the next one.
        order = sorted(range(len(pieces)), key=lambda place: place + r.randrange(4))
        packets = [tcp(CLIENT, SERVER, 99, flags=SYN)]
        for place in order:
            at, data = pieces[place]
            longer = stream[at : at + len(data) + r.choice([0, 0, 7])]
            packets += [tcp(CLIENT, SERVER, 100 + at, longer)] * r.choice([1, 1, 2])
        packets.append(tcp(CLIENT, SERVER, 100 + len(stream), flags=FIN))
        packets.append(tcp(CLIENT, SERVER, 100, pieces[0][1]))  # late, after the end
        result = run("dump", "--json", "--codec", "digits4", stdin=pcap(packets))
        assert result.status == 0, result.errors
        assert messages(result)["10.0.0.1:50000"] == sent


def test_the_same_ports_again_are_another_connection() -> None:
    packets = conversation(UP, DOWN) + conversation([b"0001x"], [], start=777_000)
    result = run("dump", "--json", "--codec", "digits4", stdin=pcap(packets))
    assert messages(result, 0) == EXPECTED
    assert messages(result, 1) == {"10.0.0.1:50000": [b"x"]}


def test_a_broken_stream_does_not_end_the_others() -> None:
    packets = conversation([b"0001aGET /"], [b"0002ok"]) + conversation(
        UP, DOWN, ("10.0.0.3", 1), start=5000
    )
    result = run("dump", "--json", "--codec", "digits4", stdin=pcap(packets))
    assert result.status == 1
    assert messages(result, 0) == {"10.0.0.1:50000": [b"a"], "10.0.0.2:80": [b"ok"]}
    assert len(messages(result, 1)["10.0.0.3:1"]) == 2
    assert "10.0.0.1:50000 > 10.0.0.2:80" in result.errors
    assert result.errors.count("\n") == 1


def test_a_lost_segment_is_reported_with_its_place() -> None:
    packets = [
        tcp(CLIENT, SERVER, 99, flags=SYN),
        tcp(CLIENT, SERVER, 100, b"0005hello"),
        tcp(CLIENT, SERVER, 120, b"0003bye"),
        tcp(CLIENT, SERVER, 127, flags=RST),
    ]
    result = run("dump", "--json", "--codec", "digits4", stdin=pcap(packets))
    assert result.status == 1
    assert messages(result)["10.0.0.1:50000"] == [b"hello"]
    assert "lacks 11 bytes of the stream at offset 9" in result.errors


def test_a_packet_that_was_cut_short_is_a_lost_part() -> None:
    packets = [
        tcp(CLIENT, SERVER, 99, flags=SYN),
        tcp(CLIENT, SERVER, 100, b"0005hello0003bye", cut=7),
        tcp(CLIENT, SERVER, 116, b"", flags=FIN),
    ]
    result = run("dump", "--json", "--codec", "digits4", stdin=pcap(packets))
    assert messages(result)["10.0.0.1:50000"] == [b"hello"]
    assert "lacks 7 bytes of the stream at offset 9" in result.errors


def test_only_the_connections_of_a_port() -> None:
    packets = conversation([b"GET /"], [], server=("10.0.0.2", 81)) + conversation(UP, DOWN)
    result = run("dump", "--json", "--port", "80", "--codec", "digits4", stdin=pcap(packets))
    assert result.status == 0
    assert messages(result) == EXPECTED


def test_a_capture_without_its_beginning_is_read_from_the_first_segment() -> None:
    packets = [tcp(CLIENT, SERVER, 500, b"0005hello"), tcp(CLIENT, SERVER, 509, flags=FIN)]
    result = run("dump", "--codec", "digits4", stdin=pcap(packets))
    assert result.status == 0
    assert "(from the middle)" in result.output.decode()


def test_a_damaged_capture_is_one_line() -> None:
    good = pcapng(conversation(UP, DOWN))
    classic = pcap(conversation(UP, DOWN))
    for damaged in (
        good[:-5],
        classic[:-5],
        classic[:30],
        classic[:20] + b"\xff\0\0\0" + classic[24:],  # the link type
        classic[:32] + b"\xff\xff\xff\xff" + classic[36:],  # a packet's size
        good[:32] + b"\xff\xff\xff\xff" + good[36:],
    ):
        result = run("dump", "--codec", "digits4", stdin=damaged)
        assert result.status == 1
        assert result.errors.count("\n") == 1
        assert result.errors.startswith("framecodec: ")


def test_random_damage_to_a_capture_is_never_a_traceback() -> None:
    r = random.Random(5)
    for capture in (pcap(conversation(UP, DOWN)), pcapng(conversation(UP, DOWN))):
        for _ in range(60):
            damaged = bytearray(capture)
            for _ in range(r.randrange(1, 4)):
                damaged[r.randrange(4, len(damaged))] = r.randrange(256)
            assert run("dump", "--codec", "digits4", stdin=bytes(damaged)).status in (0, 1)


def test_a_capture_can_be_read_as_a_raw_stream() -> None:
    result = run("dump", "--raw", "--codec", "u8", stdin=pcap([]))
    assert result.status == 1  # not a stream of this codec, and not read as a capture


# --- terminals ------------------------------------------------------------------------------------

ESCAPE = re.compile(rb"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("color", [True, False])
def test_dump_in_a_terminal_fits_its_width(columns: int, color: bool, tmp_path: Path) -> None:
    file = tmp_path / "stream"
    file.write_bytes(FRAMES + formats.erlang1.encode(b"x"))
    arguments = ("dump", "--codec", CODEC, str(file))
    with started(*arguments, terminal=columns, color=color) as process:
        assert process.wait() == 1  # the last frame has another magic
        output = process.output
    assert bool(re.search(rb"\x1b\[[0-9;]*3[0-9]", output)) == color  # bold is not a colour
    lines = [line for line in ESCAPE.sub(b"", output).split(b"\r\n") if b"framecodec:" not in line]
    assert max(map(len, lines)) <= columns
    assert b"68 65 6c 6c 6f" in output


@pytest.mark.parametrize("watched", [True, False])
def test_a_bar_shows_the_progress_in_a_long_file_while_a_person_watches(
    watched: bool, tmp_path: Path
) -> None:
    file = tmp_path / "long"
    codec = "u32be,max=32MiB"
    file.write_bytes((b"\1\0\0\0" + b"x" * (1 << 24)) * 2)
    decode = f"{sys.executable} -m framecodec decode --codec {codec} {file} > {os.devnull}"
    command = ["sh", "-c", decode]
    with started_command(command, terminal=80 if watched else None) as process:
        assert process.wait() == 0
    assert (b"decode" in process.output) == watched


@pytest.mark.parametrize(
    "codec",
    [
        Codec.choice(
            {
                "others": (None, Codec.uint(2, length_offset=1)),
                "one": (1, Codec.uint(1, length_offset=1)),
            },
            tagged=True,
        ),
        Codec.joined(Codec.uint(1), full=4),
        Codec.uint(2, "native", length_offset=1),
        Codec.digits(2, base="bcd", length_offset=1),
        Codec.headers("Size", length_adjustment=-1),
        Codec.delimiter(b"\n", check=Check("crc32", 10, digits=True)),
        Codec.delimiter(b"\n", check=Check("crc32", 10, digits=True, position="front")),
        Codec.custom(
            lambda view: (1, view[0] & 15, bytes([view[0] & 0xF0])),
            lambda message: (bytes([message[0] & 0xF0 | len(message) - 1]), 1),
            trailer=b"!",
        ),
        Codec.custom(lambda view: (1, view[0]), lambda message: bytes([len(message)])),
    ],
)
def test_the_parts_of_rare_shapes_are_all_bytes_in_their_order(codec: Codec) -> None:
    for lead in (b"\1", b"\x20"):
        message: Any = lead + b"bcdefgh"
        if codec.parameters.get("tagged"):
            message = ("one" if lead == b"\1" else "others", message)
        frame = codec.encode(message)
        parts = dissect(codec, frame, codec.decode(frame))
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == len(frame)
        declared = [part.declared for part in parts if part.declared is not None]
        assert bool(declared) == (codec.kind in ("choice", "joined", "uint", "digits", "headers"))


def test_a_choice_that_reads_no_frame_has_no_alternative() -> None:
    codec = Codec.choice({1: Codec.uint(1, length_offset=1)})
    assert [part.name for part in dissect(codec, b"\2\1a", b"\2a")] == ["header", "rest"]


def test_a_header_block_without_its_length_declares_none() -> None:
    codec = Codec.headers("Size", keep=True)
    block = b"Other: 1\r\n\r\n"
    assert codec.decode(block) == block
    assert [part.declared for part in dissect(codec, block, block)] == [None]


def test_the_declared_length_can_be_after_other_headers() -> None:
    codec, block = formats.lsp, b"Content-Type: x\r\ncontent-length: \t2 \r\nX: 1\r\n\r\n"
    found = dissect(codec, block + b"{}", codec.decode(block + b"{}"))
    assert [(part.name, part.stop, part.declared) for part in found] == [
        ("length", len(block), 2),
        ("rest", len(block) + 2, None),
    ]


@pytest.mark.parametrize("name", formats)
def test_the_parts_of_the_frames_of_each_format_are_all_their_bytes(name: str) -> None:
    codec = formats[name]
    for frame in vector_frames(name):
        parts = dissect(codec, frame, codec.decode(frame))
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == len(frame)


def test_dump_reads_capture_of_simple_packets_and_fragments_of_ipv6() -> None:
    packets = conversation([b"\1a"], [], ("::1", 5), ("::2", 80))

    def simple(body: bytes) -> bytes:
        size = struct.pack("<I", len(body) + 16 + -len(body) % 4)
        return (
            struct.pack("<I", 3)
            + size
            + struct.pack("<I", len(body))
            + body
            + bytes(-len(body) % 4)
            + size
        )

    capture = pcapng([]) + b"".join(map(simple, packets))
    found = objects(run("dump", "--codec", "u8", "--json", stdin=capture))
    assert [row["message"] for row in found] == [b"a".hex()]

    def extended(packet: bytes, kind: int, header: bytes) -> bytes:
        """Return an IPv6 packet with one more header before TCP."""
        size = int.from_bytes(packet[4:6]) + len(header)
        return packet[:4] + size.to_bytes(2) + bytes([kind]) + packet[7:40] + header + packet[40:]

    hop_by_hop = [extended(packet, 0, bytes([6, 0]) + bytes(6)) for packet in packets]
    found = objects(run("dump", "--codec", "u8", "--json", stdin=pcap(hop_by_hop)))
    assert [row["message"] for row in found] == [b"a".hex()]
    authenticated = [extended(packet, 51, bytes([6, 1]) + bytes(10)) for packet in packets]
    found = objects(run("dump", "--codec", "u8", "--json", stdin=pcap(authenticated)))
    assert [row["message"] for row in found] == [b"a".hex()]
    fragments = [extended(packet, 44, bytes([6, 0, 0, 9]) + bytes(4)) for packet in packets]
    assert objects(run("dump", "--codec", "u8", "--json", stdin=pcap(fragments))) == []


def test_connections_that_begin_anew_while_old_ones_are_open() -> None:
    first = conversation([b"\1a"], [])[:3]  # without its end
    again = conversation([b"\1b"], [], start=70_000)
    late = tcp(SERVER, CLIENT, 140_002, b"\1c")  # after both ends
    found = objects(
        run("dump", "--codec", "u8", "--json", stdin=pcap([*first, *again, late, b"x"]))
    )
    assert [row["message"] for row in found] == [b"a".hex(), b"b".hex()]


def test_the_directions_of_a_connection_have_its_number_after_one_of_them_has_ended() -> None:
    packets = [
        *(tcp(("10.0.0.9", 1), SERVER, 500, b"\1x"), tcp(CLIENT, SERVER, 99, flags=SYN)),
        *(tcp(CLIENT, SERVER, 100, b"\1a", FIN), tcp(SERVER, CLIENT, 700, b"\1b", FIN)),
    ]
    found = objects(run("dump", "--codec", "u8", "--json", stdin=pcap(packets)))
    assert [(row["stream"], row["message"]) for row in found] == [
        *((0, b"x".hex()), (1, b"a".hex()), (1, b"b".hex()))
    ]


def test_late_segments_are_ignored_after_the_ends_that_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(captures, "_REMEMBERED", 1)
    ends = [("10.0.0.1", port) for port in (1, 2)]
    packets = [tcp(end, SERVER, 100, b"\1a", FIN) for end in ends] + [
        tcp(end, SERVER, 100, b"\1a") for end in ends[::-1]
    ]
    found = objects(run("dump", "--codec", "u8", "--json", stdin=pcap(packets)))
    # The late segment of the second connection is ignored, that of the first one is forgotten.
    assert [(row["stream"], row["source"]) for row in found] == [
        *((0, "10.0.0.1:1"), (1, "10.0.0.1:2"), (2, "10.0.0.1:1"))
    ]


def test_a_missing_segment_counts_as_lost_when_much_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(captures, "_HELD_SIZE", 20)
    packets = [tcp(CLIENT, SERVER, 99, flags=SYN)]
    packets += [tcp(CLIENT, SERVER, 107 + 9 * place, b"0005hello") for place in range(3)]
    packets.append(tcp(CLIENT, SERVER, 100, b"0003bye"))  # too late
    file = io.BytesIO(pcap(packets))
    found = [(piece.lost, piece.data) for piece in captures.pieces(file.read)]
    assert found == [(7, b""), *[(0, b"0005hello")] * 3, (0, b"")]
    result = run("dump", "--json", "--codec", "digits4", stdin=file.getvalue())
    assert (result.status, result.output) == (1, b"")
    assert "lacks 7 bytes of the stream at offset 0" in result.errors


def test_a_capture_that_is_longer_than_one_read_is_read_to_its_end() -> None:
    stream = formats.erlang2.encode_many(b"x" * 1000 for _ in range(200))
    pieces = [stream[at : at + 1400] for at in range(0, len(stream), 1400)]
    result = run("dump", "--json", "--codec", "u16be", stdin=pcap(conversation(pieces, [])))
    assert (result.status, len(objects(result))) == (0, 200)


def test_dump_skips_what_is_far_from_a_bad_place() -> None:
    bad = b"0400" + b"x" * 399 + b"y"
    text = run("dump", "--codec", "digits4,trailer=%0A", stdin=bad + b"!").output.decode()
    assert "  ...\n" in text
    assert "(^^) is bad from byte 404 (!!)" in text


def test_dump_refuses_a_number_that_is_none() -> None:
    result = run("dump", "--codec", "u8", "--skip", "some", stdin=b"")
    assert (result.status, result.output) == (2, b"")
    assert "'some' is not a number, 0 or more" in result.errors
