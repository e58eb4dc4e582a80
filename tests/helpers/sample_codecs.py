"""Codecs of every kind with every parameter, and short streams of each, right and wrong.

What a stream is worth is not written here: the reference says it. `streams` only has to reach every
corner: whole frames, every field value of interest, every single byte changed, every place to end.
"""

from __future__ import annotations

import enum
import random
import zlib
from collections.abc import Iterator
from typing import Any

from framecodec import Check, Codec, FrameError

__all__ = [
    "CODECS",
    "Mark",
    "build_tagged",
    "crc_of_crc",
    "damaged",
    "parse_tagged",
    "sample_messages",
    "streams",
    "suited",
]


class Mark(enum.Enum):
    FLUSH = "flush"
    PING = "ping"

    def __repr__(self) -> str:
        return f"Mark.{self.name}"


def parse_tagged(view: memoryview) -> tuple[int, int, bytes] | tuple[int, int] | None:
    """A tag, whose lowest bit belongs to the codec and chooses a length of one or two bytes."""
    if view[0] & 0xFE not in (0x40, 0x50):
        raise ValueError(f"unknown tag {view[0]:#x}")
    size = 3 if view[0] & 1 else 2
    if len(view) < 2:
        return None
    return (size, int.from_bytes(view[1:size], "big"), bytes([view[0] & 0xFE]))


def build_tagged(message: memoryview) -> tuple[bytes, int]:
    if not message or message[0] not in (0x40, 0x50):
        raise ValueError("a tagged message opens with its tag")
    rest_size = len(message) - 1
    if rest_size < 256:
        return bytes([message[0], rest_size]), 1
    return bytes([message[0] | 1]) + rest_size.to_bytes(2, "big"), 1


def parse_short(view: memoryview) -> Any:
    """Answers before the header is whole, and refuses some bytes by what it returns."""
    return "nonsense" if view[0] == 0xFF else (3, view[0])


def build_short(message: memoryview) -> bytes:
    return bytes([len(message), 0, 0])


def crc_of_crc(data: Any) -> int:
    """A check that the engine does not know; more than 64 bits, of which the low ones count."""
    return zlib.crc32(zlib.crc32(data).to_bytes(4, "big")) << 64 | zlib.crc32(data)


CODECS: dict[str, Codec] = {
    # uint: widths, orders, signs
    **{f"u{8 * width}": Codec.uint(width, max_message_size=3) for width in (1, 3, 4, 8)},
    **{f"u{8 * width}le": Codec.uint(width, "little", max_message_size=300) for width in (2, 5)},
    "u16 signed": Codec.uint(2, signed=True, max_message_size=200),
    "u24le signed": Codec.uint(3, "little", signed=True, max_message_size=3),
    "u64 signed, unlimited": Codec.uint(8, signed=True, max_message_size=None),
    "u64, unlimited": Codec.uint(8, max_message_size=None),
    "u32 native": Codec.uint(4, "native", max_message_size=5),
    "struct i": Codec.struct("i", max_message_size=4),
    "struct <H": Codec.struct("<H", max_message_size=4),
    "struct !b": Codec.struct("!b", max_message_size=100),
    "struct q": Codec.struct("q", max_message_size=4),
    # uint: the common parameters, alone and together
    "lead": Codec.uint(1, length_offset=2, max_message_size=5),
    "adjustment up": Codec.uint(1, length_adjustment=2, max_message_size=5),
    "adjustment down": Codec.uint(1, length_adjustment=-2, max_message_size=5),
    "adjustment far down": Codec.uint(8, length_adjustment=-(2**62) + 1, max_message_size=None),
    "adjustment far up": Codec.uint(1, length_adjustment=2**62 - 400, max_message_size=None),
    "includes frame": Codec.uint(2, length_includes="frame", max_message_size=5),
    "includes frame, all": Codec.uint(
        2, length_offset=3, length_includes="frame", magic=b"M", trailer=b"TT", max_message_size=5
    ),
    "includes frame, signed": Codec.uint(
        1, signed=True, length_includes="frame", trailer=b"\n", max_message_size=5
    ),
    "magic": Codec.uint(1, magic=b"MAG", max_message_size=5),
    "magic and lead": Codec.uint(1, magic=b"\0\1", length_offset=4, max_message_size=5),
    "trailer": Codec.uint(1, trailer=b"\r\n", max_message_size=5),
    "long trailer": Codec.uint(1, trailer=b"trailer", max_message_size=2),
    "magic like trailer": Codec.uint(1, magic=b"\1\1", trailer=b"\1\1", max_message_size=5),
    "specials": Codec.uint(1, specials={0: None, 3: Mark.PING, 255: "end"}, max_message_size=5),
    "specials at the limit": Codec.uint(
        1, specials={0: 0, 5: 5, 6: 6}, trailer=b"!", max_message_size=5
    ),
    "specials below zero": Codec.uint(
        2, signed=True, specials={-1: None, -32768: Mark.FLUSH}, max_message_size=5
    ),
    "specials, adjusted": Codec.uint(
        2, length_adjustment=-4, specials={n: Mark(m) for n, m in enumerate(("flush", "ping"))}
    ),
    "empty messages only": Codec.uint(1, max_message_size=0),
    # digits
    "digits4": Codec.digits(4, max_message_size=200),
    "digits1": Codec.digits(1),
    "digits4 base 16": Codec.digits(4, base=16, max_message_size=200),
    "digits2 includes frame": Codec.digits(2, length_includes="frame", trailer=b";"),
    "digits4 pkt-line": Codec.digits(
        4, base=16, length_includes="frame", specials={0: Mark.FLUSH, 1: Mark.PING}
    ),
    "digits3, lead, magic": Codec.digits(3, magic=b"#", length_offset=2, max_message_size=20),
    "digits20": Codec.digits(20, max_message_size=None),
    "digits17 base 16": Codec.digits(17, base=16, max_message_size=None),
    # varint
    "varint": Codec.varint(max_message_size=200),
    "varint2": Codec.varint(max_width=2, trailer=b"."),
    "varint1": Codec.varint(max_width=1),
    "varint10": Codec.varint(max_width=10, max_message_size=None),
    "varint, lead": Codec.varint(length_offset=1, max_message_size=5),
    "varint, specials": Codec.varint(specials={1: None, 128: Mark.PING}, magic=b"v"),
    "varint, adjusted": Codec.varint(length_adjustment=-1, max_message_size=5),
    # text
    "netstring": Codec.text(trailer=b",", max_message_size=200),
    "text, long end": Codec.text(end=b"\r\n", max_message_size=200),
    "text, repeated end": Codec.text(end=b"::", trailer=b":", max_message_size=200),
    "text base 16": Codec.text(end=b"\r\n", base=16, trailer=b"\r\n", max_message_size=2000),
    "text, end is a letter": Codec.text(end=b"a0", max_message_size=20),
    "resp": Codec.text(
        magic=b"$", end=b"\r\n", trailer=b"\r\n", specials={-1: None}, max_message_size=20
    ),
    "text, lead": Codec.text(length_offset=2, max_message_size=20),
    "text, unlimited": Codec.text(max_message_size=None),
    "text base 16, below zero": Codec.text(base=16, specials={-10: Mark.PING, 10: Mark.FLUSH}),
    # headers
    "lsp": Codec.headers(max_message_size=20),
    "headers, short": Codec.headers("L", max_header=12, max_message_size=20),
    "headers, names": Codec.headers("L", names=("Le", "n"), max_message_size=20),
    "headers, LF": Codec.headers("L", line_end=b"\n", max_header=30, max_message_size=20),
    "headers, lenient": Codec.headers("L", lenient=True, max_message_size=20, trailer=b"."),
    "headers, LF, lenient": Codec.headers("L", line_end=b"\n", lenient=True, align=4),
    "headers, kept": Codec.headers("L", keep=True, max_header=40, max_message_size=45),
    "headers, start line": Codec.headers(
        *("L",), names=("n",), keep=True, start_line=True, max_header=60, min_message_size=4
    ),
    "headers, protocols": Codec.headers(
        *("L",), keep=True, start_line=(b"A/1", b"B/2.0"), max_header=60, max_message_size=70
    ),
    "headers, kept, all": Codec.headers(
        *("L",), keep=True, start_line=True, lenient=True, magic=b">", trailer=b"<", align=3
    ),
    "headers, all": Codec.headers(
        "L", magic=b">", trailer=b"<", specials={5: None}, length_adjustment=1, max_message_size=20
    ),
    # units, masks, wider fields
    "unit": Codec.uint(1, length_unit=4, max_message_size=20),
    "unit, adjusted, lead": Codec.uint(
        2, "little", length_unit=3, length_adjustment=-2, length_offset=2, max_message_size=20
    ),
    "unit, frame": Codec.uint(1, length_unit=2, length_includes="frame", trailer=b";"),
    "unit, digits": Codec.digits(2, length_unit=5, specials={1: None}, max_message_size=30),
    "unit, varint": Codec.varint(length_unit=130, max_message_size=300),
    "mask": Codec.uint(4, length_mask=0x7FFFFFFF, max_message_size=20),
    "mask, little": Codec.uint(
        2, "little", length_mask=0x0FF0, length_offset=1, magic=b"", max_message_size=300
    ),
    "mask, holes": Codec.struct(">H", length_mask=0x1F05, trailer=b".", max_message_size=300),
    "mask, frame": Codec.uint(1, length_mask=0x3F, length_includes="frame", magic=b"K"),
    "mask, native": Codec.struct("=I", length_mask=0x00FFFF0F, max_message_size=300),
    "wider": Codec.uint(1, wider={254: "u16le", 255: "u32be"}, max_message_size=300),
    "wider, websocket": Codec.uint(
        1, length_offset=1, length_mask=0x7F, wider={126: "u16be", 127: "u64be"}
    ),
    "wider, accept": Codec.uint(
        1, wider={4: "u8", 3: "u16be", 2: "u24le"}, wider_than_needed="accept", max_message_size=9
    ),
    "wider, one of two": Codec.uint(
        1, wider={250: "u8", 251: "u16be"}, trailer=b"!", specials={0: None, 9: Mark.PING}
    ),
    "wider, unit": Codec.uint(
        1, length_unit=2, length_adjustment=1, wider={3: "u16be"}, max_message_size=20
    ),
    # constants, padding, smallest sizes
    "constants in the lead": Codec.uint(
        1, length_offset=5, magic=b"A", constants={1: b"b", 3: b"\0\0"}, max_message_size=9
    ),
    "constants in the rest": Codec.uint(
        2, constants={2: b"\0", 4: b"ok"}, max_message_size=20, trailer=b"."
    ),
    "constants on both sides": Codec.digits(
        1, base=16, length_offset=1, constants={0: b"#", 3: b"=", 4: b":"}, max_message_size=9
    ),
    "constants, mask, kept": Codec.uint(
        1, length_mask=0x3F, constants={2: b"\x21"}, length_adjustment=1, max_message_size=9
    ),
    "align": Codec.uint(1, align=4, max_message_size=9),
    "align, all": Codec.uint(
        1, length_offset=2, magic=b"#", trailer=b"\r\n", align=5, max_message_size=9
    ),
    "align, text": Codec.text(align=3, trailer=b",", max_message_size=20),
    "align, headers": Codec.headers("L", align=8, max_message_size=20),
    "smallest": Codec.uint(1, min_message_size=3, max_message_size=5),
    "smallest, lead": Codec.varint(min_message_size=3, length_offset=2, max_message_size=5),
    "smallest, custom": Codec.custom(
        parse_tagged, build_tagged, min_message_size=3, max_message_size=9, align=2
    ),
    # packed digits, BER, fixed sizes, more text
    "packed": Codec.digits(1, base="bcd", max_message_size=20),
    "packed, adjusted": Codec.digits(
        2, base="bcd", magic=b"p", length_adjustment=-1, specials={0: None}, max_message_size=300
    ),
    "packed, large": Codec.digits(12, base="bcd", max_message_size=None),
    "ber": Codec.ber(max_message_size=300),
    "ber, lead": Codec.ber(length_offset=1, max_width=2, trailer=b"", max_message_size=300),
    "ber, wide": Codec.ber(max_width=8, specials={5: None}, max_message_size=None),
    "fixed": Codec.fixed(3),
    "fixed, all": Codec.fixed(4, magic=b"F", trailer=b"!", constants={2: b"x"}, align=4),
    "fixed, constant": Codec.fixed(2, constants={1: b"\n"}),
    "text, leading zeros": Codec.text(leading_zeros=True, max_message_size=200),
    "text, few digits": Codec.text(max_digits=2, trailer=b","),
    "text, trailing blanks": Codec.text(b"\r\n", base=16, trailing_blanks=True, trailer=b"\r\n"),
    "text, zeros, digits": Codec.text(
        b"; ", base=16, leading_zeros=True, max_digits=4, specials={-1: None}
    ),
    # checks: functions, places, what they cover
    "check": Codec.uint(1, check=Check("crc32", 4), max_message_size=20),
    "check, lead": Codec.uint(
        2, "little", length_offset=2, check=Check("crc32c", 4, "little"), max_message_size=20
    ),
    "check, rest": Codec.varint(
        length_offset=1, check=Check("crc16-modbus", 2, covers="rest"), max_message_size=20
    ),
    "check, body": Codec.uint(
        1, magic=b"MG", length_offset=3, check=Check("sum8", 1, covers="body"), trailer=b";"
    ),
    "check, frame, all": Codec.uint(
        2,
        length_includes="frame",
        magic=b"M",
        length_offset=2,
        constants={1: b"c", 4: b"r"},
        check=Check("crc16-x25", 2, "native", covers="frame", before=b"=="),
        trailer=b"\r\n",
        align=4,
        max_message_size=20,
    ),
    "check in digits": Codec.text(
        b"|",
        leading_zeros=True,
        magic=b"9=",
        check=Check("sum8", 3, digits=True, before=b"10=", covers="frame"),
        trailer=b"|",
        max_message_size=200,
    ),
    "check at the front": Codec.uint(
        1, magic=b"F", length_offset=2, check=Check("adler32", 4, position="front"), trailer=b"."
    ),
    "check at the front, constants": Codec.uint(
        1, constants={2: b"ok"}, check=Check("xor8", 1, position="front"), max_message_size=20
    ),
    "check at the front, specials": Codec.digits(
        2,
        specials={0: None, 7: Mark.PING},
        check=Check("crc8", 3, digits=True, before=b"#", position="front"),
        max_message_size=20,
    ),
    "check, mask": Codec.uint(
        2, length_mask=0x7FFF, check=Check("fletcher16", 2), max_message_size=20
    ),
    "check, wider": Codec.uint(
        1, wider={254: "u16be"}, check=Check("crc16-xmodem", 2, covers="body")
    ),
    "check, headers": Codec.headers("L", check=Check("crc32", 4, covers="body"), align=2),
    "check at the front, headers": Codec.headers(
        "L",
        max_header=12,
        check=Check("crc16-ccitt-false", 2, position="front"),
        magic=b">",
        max_message_size=20,
    ),
    "check, fixed": Codec.fixed(3, check=Check("crc8", 1, position="front"), magic=b"F"),
    "check, ber": Codec.ber(check=Check("xor8", 1, covers="frame"), max_message_size=300),
    "check by a function": Codec.uint(1, check=Check(crc_of_crc, 5), max_message_size=20),
    "check by a function, frame": Codec.varint(
        magic=b"M",
        length_offset=2,
        check=Check(crc_of_crc, 12, "little", covers="frame", before=b"!"),
    ),
    "check by a function, front": Codec.uint(
        1, check=Check(crc_of_crc, 9, digits=True, position="front"), trailer=b"\n"
    ),
    # end marks
    "lines": Codec.delimiter(b"\n", b"\r\n", max_message_size=200),
    "delimiter, magic": Codec.delimiter(b"\x02\r", magic=b"K", max_message_size=20),
    "delimiter, not empty": Codec.delimiter(b"\0", skip_empty=True, max_message_size=5),
    "delimiter, smallest": Codec.delimiter(b"a0", min_message_size=2, max_message_size=5),
    "delimiter, repeated": Codec.delimiter(b"aaba", max_message_size=20),
    "delimiter, prefixes": Codec.delimiter(b"\n", b"\r", b"\r\n", b"\r\0\1", max_message_size=20),
    "delimiter, long remainder": Codec.delimiter(b"\1", b"a", b"aAx", b"aAx0", magic=b"M"),
    "delimiter, waits": Codec.delimiter(b"14", b"01421", max_message_size=5),
    "delimiter, unlimited": Codec.delimiter(b";;", max_message_size=None),
    "slip": Codec.delimiter(
        b"\xff", escape={b"\xff": b"\x7f\1", b"\x7f": b"\x7f\2"}, skip_empty=True
    ),
    "escape, doubled": Codec.delimiter(
        b"\1\2", magic=b"\1\0", escape={b"\1": b"\1\1"}, max_message_size=20
    ),
    "escape, mark inside": Codec.delimiter(
        b"\n", escape={b"\n": b"+\n", b"+": b"++", b"a": b"+ 1"}, max_message_size=5
    ),
    "escape, several marks": Codec.delimiter(
        b"!", b"#x", b"#", escape={b"!": b":0", b"#": b":1", b":": b"::"}, min_message_size=1
    ),
    # byte stuffing
    "cobs": Codec.cobs(max_message_size=300),
    "cobs, short": Codec.cobs(max_message_size=3),
    "cobs, magic": Codec.cobs(magic=b"\0M", min_message_size=1, max_message_size=20),
    # checks before an end mark
    "cobs, check": Codec.cobs(check=Check("crc16-x25", 2, "little"), max_message_size=300),
    "cobs, check by a function": Codec.cobs(
        check=Check(crc_of_crc, 5, position="front"), magic=b"M", max_message_size=20
    ),
    "delimiter, check": Codec.delimiter(
        b"\r\n",
        magic=b"$",
        check=Check("xor8", 3, digits=True, before=b"*"),
        min_message_size=1,
        max_message_size=20,
    ),
    "delimiter, check in front": Codec.delimiter(
        b"\n",
        b"\r\n",
        skip_empty=True,
        check=Check("sum8", 3, digits=True, before=b"#", position="front"),
    ),
    "delimiter, check by a function": Codec.delimiter(
        b"\n", b"\r", b"\r\n", check=Check(crc_of_crc, 9, digits=True), max_message_size=20
    ),
    "slip, check": Codec.delimiter(
        b"\xff",
        magic=b"\xfe",
        escape={b"\xff": b"\x7f\1", b"\x7f": b"\x7f\2"},
        check=Check("crc32", 4, covers="frame"),
        skip_empty=True,
    ),
    # choices
    "choice": Codec.choice(
        {1: Codec.uint(1, length_offset=1), b"\2\3": Codec.uint(2, "little", length_offset=1)},
        max_message_size=300,
    ),
    "choice, others": Codec.choice(
        {ord("#"): Codec.digits(2, magic=b"#", trailer=b";"), None: Codec.varint(length_offset=2)},
        max_message_size=200,
    ),
    "choice, order by a flag": Codec.choice(
        {
            0: Codec.uint(2, length_offset=3, magic=b"G", constants={1: b"\1"}),
            1: Codec.uint(2, "little", length_offset=3, magic=b"G", constants={1: b"\1"}),
        },
        offset=2,
        mask=0x03,
        max_message_size=300,
    ),
    "choice, long flag": Codec.choice(
        {
            b"\0\1\2\3": Codec.choice(
                {0: Codec.uint(1, length_offset=1), 2: Codec.uint(8, length_offset=1)},
                mask=0x02,
                keep=False,
            )
        },
        max_message_size=300,
    ),
    "choice, owned in the rest": Codec.choice(
        {
            0x10: Codec.fixed(3),
            0x20: Codec.uint(1, length_offset=2, length_adjustment=1),
            0x30: Codec.choice(
                {0: Codec.uint(1, length_mask=0x0F), 0x40: Codec.fixed(5)}, mask=0x40
            ),
        },
        mask=0x30,
        keep=False,
        max_message_size=20,
    ),
    "choice, in the rest": Codec.choice(
        {
            b"ab": Codec.uint(1, min_message_size=4),
            ord("c"): Codec.uint(2, min_message_size=3, trailer=b"!"),
        },
        offset=3,
        max_message_size=20,
    ),
    "choice, by the length": Codec.choice(
        {
            0: Codec.uint(1, length_offset=1),
            0x80: Codec.uint(2, length_offset=1, length_adjustment=-0x8000),
        },
        offset=1,
        mask=0x80,
        max_message_size=300,
    ),
    "choice, masked": Codec.choice(
        {
            0: Codec.uint(1, length_offset=1, length_mask=0x7F, wider={126: "u16be"}),
            0x80: Codec.uint(
                1, length_offset=1, length_mask=0x7F, wider={126: "u16be"}, length_adjustment=4
            ),
        },
        offset=1,
        mask=0x80,
        max_message_size=300,
    ),
    "choice, tagged": Codec.choice(
        {
            "few": (0x41, Codec.uint(1, length_offset=1)),
            "special": (b"\0\1", Codec.uint(1, specials={0: None, 1: Mark.PING})),
            "text": (b"0123456789", Codec.text(trailer=b",")),
            "more": (
                None,
                Codec.choice({0: Codec.ber(length_offset=1), 0x80: Codec.fixed(4)}, mask=0x80),
            ),
        },
        tagged=True,
        max_message_size=200,
    ),
    "choice, headers": Codec.choice(
        {b"LlM": Codec.headers("L"), None: Codec.text(b"\r\n", magic=b"$")},
        max_message_size=20,
    ),
    "choice, two framings": Codec.choice(
        {b"0123456789": Codec.text(b" "), b"<": Codec.delimiter(b"\n", b"\r\n", b"\0")},
        max_message_size=130,
    ),
    "choice, lines": Codec.choice(
        {
            b"abE": Codec.delimiter(b"END", b"\r\n", min_message_size=1, skip_empty=True),
            b"Mm": Codec.delimiter(b";", magic=b"M", check=Check("crc8", 1)),
            b"\n": Codec.delimiter(),
            None: Codec.uint(1, length_offset=1),
        },
        max_message_size=20,
    ),
    "choice, escapes": Codec.choice(
        {
            "slip": (
                b"\xc0\xdb@",
                Codec.delimiter(b"\xc0", escape={b"\xc0": b"\xdb\xdc", b"\xdb": b"\xdb\xdd"}),
            ),
            "stuffed": (b"\0\1\2\3\4\5\6\7\xff", Codec.cobs(max_message_size=40)),
            "lines": (
                b"\x10\x20",
                Codec.choice(
                    {1: Codec.delimiter(b"\1\1", magic=b"\x10\1"), 0: Codec.fixed(2)}, offset=1
                ),
            ),
        },
        tagged=True,
        max_message_size=300,
    ),
    "choice, a line after a magic": Codec.choice(
        {
            b"TU": Codec.delimiter(b"\r\n", magic=b"PROXY ", min_message_size=1),
            b"\0": Codec.uint(2, magic=b"PROXY \0", length_offset=8),
        },
        offset=6,
        max_message_size=50,
    ),
    "choice, two magics": Codec.choice(
        {
            magic[0]: Codec.choice(
                {
                    0: Codec.uint(1, magic=magic, length_offset=4, max_message_size=9),
                    1: Codec.uint(2, "little", magic=magic, length_offset=4, max_message_size=9),
                },
                offset=3,
            )
            for magic in (b"GI", b"ZI")
        }
    ),
    "choice, custom": Codec.choice(
        {b"\x40\x41": Codec.custom(parse_tagged, build_tagged), 0: Codec.fixed(2)},
        max_message_size=300,
    ),
    # joined frames
    "joined": Codec.joined(
        Codec.uint(4, length_mask=0x7FFFFFFF, max_message_size=None),
        last=(0, 0x80, 0x80),
        strip=1,
        fragment_size=3,
        max_message_size=130,
    ),
    "joined, full": Codec.joined(
        Codec.uint(1, length_adjustment=1),
        full=4,
        strip=1,
        keep_first=True,
        counter=1,
        max_fragments=3,
    ),
    "joined, everything": Codec.joined(
        Codec.uint(
            *(2, "little"),
            length_offset=3,
            length_includes="frame",
            magic=b"J",
            trailer=b"\0\1",
            constants={2: b"c", 5: b"C"},
            max_message_size=12,
        ),
        last=(1, 0x03, 0x02),
        strip=5,
        keep_first=True,
        counter=6,
        fragment_size=4,
        max_message_size=20,
    ),
    "joined, digits": Codec.joined(
        Codec.digits(2, length_offset=1, min_message_size=2, max_message_size=30),
        last=(3, 0x01, 0),
        strip=2,
        counter=0,
        fragment_size=5,
        max_message_size=None,
        max_fragments=4,
    ),
    "joined, masked": Codec.joined(
        Codec.uint(2, "little", length_mask=0x0FFE, length_unit=2),
        last=(1, 0x10, 0),
        strip=2,
        keep_first=True,
        fragment_size=4,
        max_message_size=12,
    ),
    # custom
    "check, custom": Codec.custom(
        parse_tagged, build_tagged, check=Check("crc32", 4), max_message_size=300
    ),
    "check at the front, custom": Codec.custom(
        parse_tagged, build_tagged, magic=b"t", check=Check("sum8", 1, position="front")
    ),
    "tagged": Codec.custom(parse_tagged, build_tagged, max_message_size=300),
    "tagged, magic, trailer": Codec.custom(
        parse_tagged, build_tagged, magic=b"\0", trailer=b"\1", max_message_size=3
    ),
    "custom, short view": Codec.custom(parse_short, build_short, max_message_size=5),
    "custom, short header": Codec.custom(parse_tagged, build_tagged, max_header=2),
}


def sample_messages(codec: Codec, seed: int = 0) -> list[Any]:
    """Messages that the codec can encode, of sizes of interest."""
    if codec.kind == "choice":
        return _messages_of_choice(codec, seed)
    rng = random.Random(f"{codec!r} {seed}")
    found: list[Any] = list((codec.parameters["specials"] or {}).values())
    for size in (0, 1, 2, 3, 4, 5, 10, 127, 128, 130, 199, 200, 255, 256):
        message = rng.choice((b"", b"\x40", b"\0", b"\xff")) + rng.randbytes(size)
        if codec.kind == "custom":
            message = b"\x40" + message
        message = suited(codec, message[:size])
        size = len(message)
        try:
            codec.encode(message[:size])
        except (FrameError, ValueError):
            continue
        found.append(message[:size])
    return found


def _messages_of_choice(codec: Codec, seed: int) -> list[Any]:
    """Messages of each alternative that the whole choice can encode."""
    rng = random.Random(f"{codec!r} {seed}")
    has, found = codec.parameters, []
    for key, value in has["alternatives"].items():
        values, each = value if has["tagged"] else (key, value)
        if isinstance(values, int):
            values = bytes([values])
        for message in sample_messages(each, seed):
            if isinstance(message, bytes) and message and has["keep"]:
                chosen = rng.choice(values or b"\x90z") | (message[0] & ~has["mask"])
                places = {0, *range(max(0, has["offset"] - 2), has["offset"] + 1)}
                tries = [message[:pos] + bytes([chosen]) + message[pos + 1 :] for pos in places]
                tries.append(message)
            elif isinstance(message, bytes) and message:
                tries = [bytes([message[0] & ~has["mask"]]) + message[1:]]
            else:
                tries = [message]
            for each_try in tries:
                named = (key, each_try) if has["tagged"] else each_try
                try:
                    codec.encode(named)
                except (FrameError, ValueError):
                    continue
                found.append(named)
    return found


def suited(codec: Codec, message: bytes) -> bytes:
    """The message with the codec's constants, zeros for the bits of its length, in whole units."""
    if codec.kind == "choice":
        return message
    has, layout = codec.parameters, codec.layout
    if codec.kind == "fixed":
        message = (message * has["size"])[: has["size"]] or bytes(has["size"])
    if codec.kind == "headers" and has["keep"]:
        return kept_block(codec, message)
    if codec.kind == "joined":
        return suited_to_fragments(codec, message)
    unit = has["length_unit"]
    if unit > 1:
        message = message.ljust(layout.message_lead, b"u")
        to_count = len(message) - layout.message_lead - layout.adjustment
        message += b"u" * (-to_count % unit)
    changed = bytearray(message)
    for offset, constant in (has["constants"] or {}).items():
        pos = layout.message_position(offset)
        if pos < len(changed):
            changed[pos : pos + len(constant)] = constant
    if has["length_mask"] is not None:
        mask = has["length_mask"].to_bytes(layout.field_width, layout.byteorder)
        for index, pos in enumerate(layout.kept, layout.lead_size):
            if index < len(changed):
                changed[index] &= ~mask[pos] & 0xFF
    return bytes(changed)


def suited_to_fragments(codec: Codec, message: bytes) -> bytes:
    """The message with what the heads of its fragments need, where that is in it."""
    has = codec.parameters
    if not has["keep_first"]:
        return message
    changed = bytearray(suited(has["fragments"], message[: has["strip"]]))
    if has["last"] is not None and len(changed) == has["strip"]:
        offset, mask, _ = has["last"]
        changed[codec.layout.message_position(offset)] &= ~mask
    return bytes(changed) + message[has["strip"] :]


def kept_block(codec: Codec, body: bytes) -> bytes:
    """A message of a header block and a body, as the codec keeps them."""
    has = codec.parameters
    end = has["line_end"]
    start = b"start: line" + end if has["start_line"] else b""
    if has["start_line"] not in (False, True):
        protocol = has["start_line"][len(body) % len(has["start_line"])]
        start = (protocol + b" 200" if len(body) % 2 else b"GET " + protocol) + end
    if not body:  # a missing length is one of 0
        return start + end
    name = (has["name"], *has["names"])[len(body) % (1 + len(has["names"]))]
    return start + b"%b: %d" % (name.encode(), len(body)) + end + end + body


def streams(codec: Codec, *, size: int, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` different streams of at most `size` bytes."""
    rng = random.Random(f"{codec!r} {seed}")
    known = sample_messages(codec, seed)
    seen: set[bytes] = set()
    tries = 0
    while len(seen) < count and tries < 20 * count:
        tries += 1
        stream = b""
        while known and len(stream) < size:
            small = [m for m in known if not isinstance(m, bytes) or len(m) < size]
            stream += codec.encode(rng.choice(small or known))
            if rng.random() < 0.3:
                break
        stream = damaged(stream, codec, rng)[:size]
        if stream and stream not in seen:
            seen.add(stream)
            yield stream


def damaged(stream: bytes, codec: Codec, rng: random.Random) -> bytes:
    """Half of the streams stay as they are, or lose their end; the others lose their sense."""
    way = rng.randrange(8)
    pos = rng.randrange(len(stream) + 1) if stream else 0
    if way < 3:
        return stream
    if way == 3:
        return stream[:pos]
    if way == 4:  # one byte becomes another
        return stream[:pos] + rng.choice(_ODD) + stream[pos + 1 :]
    if way == 5:  # one more, one less
        return (
            stream[:pos] + rng.choice((b"", rng.choice(_ODD))) + stream[pos + rng.randint(0, 1) :]
        )
    if way == 6:  # a header of noise
        return stream + b"".join(rng.choice(_ODD) for _ in range(rng.randint(1, 6)))
    start = len(codec.parameters["magic"])  # a large length
    return stream[:start] + rng.choice((b"\xff", b"9", b"\x7f", b"\x80")) * 8 + stream[pos:]


_ODD = [bytes([byte]) for byte in b"\0\1\2\4\x7f\x80\xff+-_ 0123489aAfFxX:;,\r\n\t$#M!"]
