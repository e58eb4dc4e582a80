"""The notation: a codec in one line of text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from framecodec import Check, Codec
from framecodec.catalogue import PktLine, formats
from framecodec.notation import format_codec, parse_codec

NOTATIONS: dict[str, Codec] = {
    "u8": Codec.uint(1),
    "u16be": Codec.uint(2),
    "u16le": Codec.uint(2, "little"),
    "u24be": Codec.uint(3),
    "u32be": Codec.uint(4),
    "u32native": Codec.uint(4, "native"),
    "u64le": Codec.uint(8, "little"),
    "i8": Codec.uint(1, signed=True),
    "i32be": Codec.uint(4, signed=True),
    "u8le": Codec.uint(1, "little"),
    "digits4": Codec.digits(4),
    "hex4": Codec.digits(4, base=16),
    "struct:!I": Codec.struct("!I"),
    "struct:=q": Codec.struct("=q"),
    "struct:i": Codec.struct("i"),
    "varint": Codec.varint(),
    "varint,max_width=10": Codec.varint(max_width=10),
    "text": Codec.text(),
    "text,end=%0D%0A,base=16": Codec.text(b"\r\n", base=16),
    "text,end=%2C": Codec.text(b","),
    "headers": Codec.headers(),
    "headers,name=Size,max_header=100": Codec.headers("Size", max_header=100),
    "headers,name=%25a": Codec.headers("%a"),
    "u16le,offset=2,includes=frame": Codec.uint(
        2, "little", length_offset=2, length_includes="frame"
    ),
    "u32be,offset=1,adjustment=-4": Codec.uint(4, length_offset=1, length_adjustment=-4),
    "u16be,magic=$,trailer=%00%FF%25": Codec.uint(2, magic=b"$", trailer=b"\x00\xff%"),
    "u16be,magic=%3Da%20%3B": Codec.uint(2, magic=b"=a ;"),
    "u8,specials=0:None;255:'x%2C%20y'": Codec.uint(1, specials={0: None, 255: "x, y"}),
    "text,specials=-1:()": Codec.text(specials={-1: ()}),
    "u8,max=0": Codec.uint(1, max_message_size=0),
    "u32be,max=none": Codec.uint(4, max_message_size=None),
    "u32be,max=1KiB": Codec.uint(4, max_message_size=1024),
    "u32be,max=64MiB": Codec.uint(4, max_message_size=64 * 1024**2),
    "u32be,max=3GiB": Codec.uint(4, max_message_size=3 * 1024**3),
    "u32be,max=1000": Codec.uint(4, max_message_size=1000),
    "u32be,max=100000000000000000000001": Codec.uint(4, max_message_size=10**23 + 1),
    "u32be,max=1000000000000000000000000GiB": Codec.uint(4, max_message_size=10**24 * 1024**3),
    "bcd2": Codec.digits(2, base="bcd"),
    "ber4": Codec.ber(),
    "ber8,max=1KiB": Codec.ber(max_width=8, max_message_size=1024),
    "fixed16": Codec.fixed(16),
    "fixed188,magic=G,constants=3:%10,align=4": Codec.fixed(
        188, magic=b"G", constants={3: b"\x10"}, align=4
    ),
    "text,leading_zeros=yes,max_digits=6": Codec.text(leading_zeros=True, max_digits=6),
    "text,trailing_blanks=yes": Codec.text(trailing_blanks=True),
    "u32be,mask=0x7fffffff": Codec.uint(4, length_mask=0x7FFFFFFF),
    "u8,offset=1,mask=0x7f,wider=126:u16be;127:u64be": Codec.uint(
        1, length_offset=1, length_mask=0x7F, wider={126: "u16be", 127: "u64be"}
    ),
    "u8,wider=255:u32le,wider_than_needed=accept": Codec.uint(
        1, wider={255: "u32le"}, wider_than_needed="accept"
    ),
    "u16be,offset=2,unit=4,constants=0:%80%01;4:ok%3B,min=8": Codec.uint(
        2,
        length_offset=2,
        length_unit=4,
        constants={0: b"\x80\1", 4: b"ok;"},
        min_message_size=8,
    ),
    "u16be,offset=2,align=4,min=1KiB": Codec.uint(
        2, length_offset=2, align=4, min_message_size=1024
    ),
    "u32be,check=crc32": Codec.uint(4, check=Check("crc32", 4)),
    "varint,check=crc32c;little;frame": Codec.varint(
        check=Check("crc32c", 4, "little", covers="frame")
    ),
    "fixed16,check=xor8;front": Codec.fixed(16, check=Check("xor8", 1, position="front")),
    "text,trailer=|,check=sum8;digits:3;frame;before:10%3D": Codec.text(
        trailer=b"|", check=Check("sum8", 3, digits=True, covers="frame", before=b"10=")
    ),
    "headers,check=fletcher16;native;rest;before:%3B": Codec.headers(
        check=Check("fletcher16", 2, "native", covers="rest", before=b";")
    ),
    "zmtp": formats.zmtp,
    "zmtp,max=1KiB": formats.zmtp.replace(max_message_size=1024),
    "dnp3,magic=PIOG": formats.dnp3.replace(magic=b"PIOG"),
    "dnp3,magic=": formats.dnp3.replace(magic=b""),
    "pkt-line": formats.pkt_line,
    "pkt-line,max=none": formats.pkt_line.replace(max_message_size=None),
}


@pytest.mark.parametrize("text", NOTATIONS)
def test_parse_codec_and_format_codec_are_inverse(text: str) -> None:
    codec = NOTATIONS[text]
    assert parse_codec(text) == codec
    assert str(codec) == format_codec(codec) == text


@pytest.mark.parametrize("name", list(formats))
def test_parse_codec_reads_the_name_of_every_format(name: str) -> None:
    assert parse_codec(name) == formats[name]
    assert parse_codec(str(formats[name])) == formats[name]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("u8be", "u8"),
        (" u16be , offset=2 ", "u16be,offset=2"),
        ("u16be,offset=0", "u16be"),
        ("u16be,length_offset=2,max_message_size=1KiB", "u16be,offset=2,max=1KiB"),
        ("u16be,length_includes=frame", "u16be,includes=frame"),
        ("u16be,length_adjustment=-2", "u16be,adjustment=-2"),
        ("kafka", "i32be"),
        ("kafka,max=16777216", "i32be"),
        ("netstring,trailer=", "text"),
        ("netstring,end=|", "text,end=|,trailer=%2C"),
        ("uwsgi,offset=0,adjustment=0", "u16le"),
        ("resp-bulk,specials=", "text,end=%0D%0A,magic=$,trailer=%0D%0A"),
        ("text,end=%0d%0a", "text,end=%0D%0A"),
        ("u16be,magic=%61b", "u16be,magic=ab"),
        ("u8,specials=1:'a'; 0:'b'", "u8,specials=0:'b';1:'a'"),
        ("ber", "ber"),
        ("u32be,max=1024KiB", "u32be,max=1MiB"),
        ("thrift", "i32be,max=16384000"),
    ],
)
def test_format_codec_writes_equal_codecs_the_same_way(text: str, canonical: str) -> None:
    assert str(parse_codec(text)) == canonical
    assert parse_codec(canonical) == parse_codec(text)


def build(message: memoryview) -> bytes:
    return len(message).to_bytes(1, "big")


def parse(view: memoryview) -> tuple[int, int]:
    return 1, view[0]


class Renamed(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "'another'"


@pytest.mark.parametrize(
    "codec",
    [
        Codec.custom(parse, build),
        Codec.uint(1, specials={0: Renamed("one")}),
        Codec.uint(1, specials={0: frozenset({1})}),
        Codec.uint(1, specials={0: float("nan")}),
        Codec.uint(1, specials={0: PktLine.FLUSH}),
        formats.pkt_line.replace(width=8),
    ],
)
def test_format_codec_falls_back_to_the_repr(codec: Codec) -> None:
    assert str(codec) == repr(codec)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"unknown head ''; a head is u8, u16be"),
        ("u33be", "33 bits; a length field has 8, 16, 24"),
        ("u0", "0 bits"),
        ("u72be", "72 bits"),
        ("u32", "needs a byte order: u32be, u32le or u32native"),
        ("u32xx", "did you mean"),
        ("U32BE", "did you mean u32be"),
        ("kafak", "did you mean kafka"),
        ("postgre", "did you mean postgres"),
        ("something else", "a head is u8, u16be"),
        ("digits0", "width must be from 1 to 64"),
        ("hex", "unknown head 'hex'"),
        ("struct:", "one integer"),
        ("struct:!f", "one integer"),
        ("struct:!II", "one integer"),
        ("u32be,", "'' is not key=value"),
        ("u32be,offset", "'offset' is not key=value"),
        ("u32be,offst=1", "'offst'; did you mean offset"),
        ("u32be,length_ofset=1", "did you mean"),
        ("u32be,offset=1,length_offset=1", "offset is given twice"),
        ("u32be,base=16", "'base'; u32be takes offset, adjustment, includes, magic"),
        ("varint,includes=frame", "'includes'; varint takes"),
        ("dbus,offset=1", "'offset'; dbus takes max_header, magic, trailer, max"),
        ("u32be,offset=1,offset=1", "offset is given twice"),
        ("u32be,offset=x", "'offset=x': 'x' is not a decimal number"),
        ("u32be,offset=+1", r"'\+1' is not a decimal number"),
        ("u32be,offset=1_0", "'1_0' is not a decimal number"),
        ("u32be,offset=\u0661", "'\u0661' is not a decimal number"),
        ("u32be,offset=" + "9" * 5000, "'9{39} is not a decimal number of up to 1000 digits"),
        ("u32be,offset=-1", "length_offset must be from 0"),
        ("u32be,magic=ab,offset=1", "inside the magic"),
        ("u32be,includes=all", "'all' is neither rest nor frame"),
        ("u32be,includes=frame,adjustment=1", "fixes the adjustment"),
        ("u32be,max=1 MB", "'1 MB' is not a size; .* with KiB, MiB or GiB, or none"),
        ("u32be,max=-1", "max_message_size"),
        ("u32be,magic=%", "'%' is not % with two hexadecimal digits"),
        ("u32be,magic=%4", "'%4' is not % with two hexadecimal digits"),
        ("u32be,magic=%+4", r"'%\+4' is not % with two hexadecimal digits"),
        ("u32be,magic=\xe9", "not printable ASCII"),
        ("u32be,magic=a b", "a space is not allowed in bytes; write it as %20"),
        ("u32be,magic=ab ,max=9", "a space is not allowed in bytes; write it as %20"),
        ("text,trailer= ", "a space is not allowed in bytes; write it as %20"),
        ("text,end=", "end must have 1 to 16 bytes"),
        ("text,base=8", "base must be"),
        ("u8,specials=1", "'1' is not value:object"),
        ("u8,specials=x:1", "'x' is not a decimal number"),
        ("u8,specials=1:x", "'x' is not a Python literal; put text into quotes"),
        ("u8,specials=1:1+", r"'1\+' is not a Python literal"),
        ("u8,specials=1:'a", "is not a Python literal"),
        ("u8,specials=1:[]", "must be hashable"),
        ("u8,specials=1:1e999", "'1e999' is not a Python literal"),
        ("u8,specials=1:1;1:2", "1 is given twice"),
        ("u8,specials=1:1;2:1", "both mean"),
        ("u8,specials=256:1", "does not fit"),
        ("u8,specials=1:%FF", "is not UTF-8"),
        ("u8,specials=1:__import__('os')", "is not a Python literal"),
        ("headers,name=a%20b", "is not a header name"),
        ("headers,lenient=maybe", "'maybe' is neither yes nor no"),
        ("u8,min=none", "'min=none': none is not a size"),
        ("u8,wider=255:u16be,wider_than_needed=yes", "'yes' is neither invalid nor accept"),
        ("u16be,mask=0xFFG", "'0xFFG' is not a decimal number"),
        ("u16be,check=crc33", "'crc33' is not one of crc32, crc32c"),
        ("u16be,check=crc32;middle", "'middle' is not message, rest, .*, before:BYTES or digits"),
        ("u16be,check=crc32;frame;rest", "covers is given twice"),
    ],
)
def test_parse_codec_refuses_bad_notation_and_names_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"bad codec notation") as caught:
        parse_codec(text)
    assert type(caught.value) is ValueError
    assert repr(text)[:50] in str(caught.value)
    caught.match(says)


def test_parse_codec_ignores_spaces_between_parts() -> None:
    spaced = " u16le , offset = 2, includes= frame ,max = 64 MiB "
    assert parse_codec(spaced) == parse_codec("u16le,offset=2,includes=frame,max=64MiB")
    assert parse_codec("u8,specials= 0: None") == parse_codec("u8,specials=0:None")


def test_parse_codec_reads_a_mask_in_both_bases() -> None:
    masked = Codec.uint(2, length_mask=0x3FFF)
    assert parse_codec("u16be,mask=16383") == parse_codec("u16be,mask=0x3fff") == masked


def test_parse_codec_refuses_bytes() -> None:
    with pytest.raises(TypeError, match="str"):
        parse_codec(b"u32be")  # type: ignore[arg-type]


@given(st.text(st.sampled_from("u8163be,=;:%0Aend'magic()-|$x \u0661"), max_size=30))
@example("u8,specials=0:" + "(" * 300)
@example("u8,specials=0:'\\d'")
def test_parse_codec_of_any_text_is_a_codec_or_a_value_error(text: str) -> None:
    try:
        codec = parse_codec(text)
    except ValueError:
        return
    assert parse_codec(str(codec)) == codec


SPECIALS = st.dictionaries(
    st.integers(0, 255),
    st.one_of(
        st.none(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    ),
    max_size=3,
).filter(lambda specials: len(set(specials.values())) == len(specials))

COMMON: dict[str, st.SearchStrategy[Any]] = {
    "magic": st.binary(max_size=6),
    "trailer": st.binary(max_size=6),
    "max_message_size": st.one_of(
        st.none(), st.integers(1000, 2**40), st.sampled_from([2**20, 2**30, 5 * 2**10])
    ),
}
LENGTH: dict[str, st.SearchStrategy[Any]] = {
    **COMMON,
    "length_adjustment": st.integers(-100, 100),
    "specials": SPECIALS,
}
LEAD: dict[str, st.SearchStrategy[Any]] = {
    **COMMON,
    "length_offset": st.integers(6, 40),
    "length_includes": st.sampled_from(["rest", "frame"]),
}
ORDERS = st.sampled_from(["big", "little", "native"])
BASES = st.sampled_from([10, 16])
ENDS = st.sampled_from([b":", b" ", b"\r\n", b",", b";=%", b"\xff\x00"])


def made(make: Any, **arguments: Any) -> st.SearchStrategy[Codec]:
    return st.fixed_dictionaries({}, optional=arguments).map(lambda chosen: make(**chosen))


CODECS = st.one_of(
    st.integers(2, 8).flatmap(
        lambda width: made(
            lambda **more: Codec.uint(width, **more),
            byteorder=ORDERS,
            signed=st.booleans(),
            **LEAD,
        )
    ),
    st.integers(2, 8).flatmap(
        lambda width: made(lambda **more: Codec.uint(width, **more), byteorder=ORDERS, **LENGTH)
    ),
    st.sampled_from(["!I", "=q", "<H", "i", "@N", ">L"]).flatmap(
        lambda fmt: made(lambda **more: Codec.struct(fmt, **more), **LEAD)
    ),
    made(lambda **more: Codec.digits(5, **more), base=BASES, **LEAD),
    made(Codec.varint, max_width=st.integers(2, 10), **LENGTH),
    made(Codec.text, end=ENDS, base=BASES, **LENGTH),
    made(Codec.headers, name=st.sampled_from(["Content-Length", "a%b", "x'|~"]), **LENGTH),
    st.sampled_from(["dbus", "fastcgi", "cassandra-v5", "dnp3"]).flatmap(
        lambda name: made(formats[name].replace, **COMMON)
    ),
    st.just("pkt-line").flatmap(
        lambda name: made(formats[name].replace, magic=st.binary(max_size=6))
    ),
)


@given(CODECS)
def test_parse_codec_returns_the_codec_that_was_formatted(codec: Codec) -> None:
    text = str(codec)
    assert parse_codec(text) == codec
    assert str(parse_codec(text)) == text
    assert text.isascii()
    assert " " not in text
