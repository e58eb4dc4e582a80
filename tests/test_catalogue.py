"""The catalogue of known protocols, and the notation: a codec in one line of text."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from framecodec import Codec, FrameError, InvalidFrameError
from framecodec.catalogue import (
    Catalogue,
    Format,
    PktLine,
    format_codec,
    formats,
    parse_codec,
)

PROMISED = [
    "ascii4",
    "struct-i",
    "netstring",
    "protobuf",
    "erlang1",
    "erlang2",
    "erlang4",
    "kafka",
    "thrift",
    "dns",
    "grpc",
    "postgres",
    "postgres-startup",
    "mysql",
    "mongodb",
    "tls",
    "http2",
    "amqp",
    "amqp1",
    "bgp",
    "docker",
    "cassandra",
    "bitcoin",
    "oncrpc",
    "multiprocessing",
    "pkt-line",
    "syslog",
    "resp-bulk",
    "lsp",
    "mqtt",
    "minecraft",
    "tpkt",
    "diameter",
    "modbus",
    "stun",
    "smb",
    "memcached",
    "zmtp",
    "native-messaging",
    "smpp",
    "9p",
]


# --- the catalogue --------------------------------------------------------------------------------


def test_the_catalogue_has_every_name_that_is_promised() -> None:
    assert set(PROMISED) <= set(formats)


@pytest.mark.parametrize("name", list(formats))
def test_a_format_is_had_by_its_name_and_as_an_attribute(name: str) -> None:
    codec = formats[name]
    assert isinstance(codec, Codec)
    assert name in formats
    attribute = name.replace("-", "_")
    assert getattr(formats, attribute) is codec
    assert (attribute in dir(formats)) == attribute.isidentifier()
    row = formats.describe(name)
    assert (row.name, row.codec) == (name, codec)
    for text in (row.description, row.specification):
        assert text
        assert "\n" not in text


@pytest.mark.parametrize("name", list(formats))
def test_no_name_hides_a_method_of_the_catalogue(name: str) -> None:
    assert not hasattr(Catalogue, name.replace("-", "_"))


def test_the_catalogue_is_a_mapping() -> None:
    assert len(formats) == len(list(formats)) == len(formats.table())
    assert dict(formats) == {row.name: row.codec for row in formats.table()}
    assert formats.get("no such format") is None
    assert "no such format" not in formats
    assert repr(formats) == f"<Catalogue of {len(formats)} formats>"


def test_an_unknown_name_is_answered_with_names_near_to_it() -> None:
    with pytest.raises(KeyError, match=r"'kafak'.*did you mean kafka"):
        formats["kafak"]
    with pytest.raises(AttributeError, match=r"'postgrez'.*did you mean postgres"):
        _ = formats.postgrez
    with pytest.raises(KeyError, match=r"no format 'xyzzy' in the catalogue['\"]$"):
        formats.describe("xyzzy")
    assert not hasattr(formats, "_private")


def test_two_formats_of_one_name_are_refused() -> None:
    row = formats.describe("kafka")
    with pytest.raises(ValueError, match="kafka"):
        Catalogue([row, row])


def test_the_package_shows_the_catalogue_and_its_module_side_by_side() -> None:
    import framecodec

    module = importlib.import_module("framecodec.catalogue")
    assert sys.modules["framecodec.catalogue"] is module
    assert module.formats is formats
    assert isinstance(module, ModuleType)
    assert framecodec.formats is formats


@pytest.mark.parametrize("name", list(formats))
def test_every_format_pickles_copies_and_hashes(name: str) -> None:
    codec = formats[name]
    for twin in (pickle.loads(pickle.dumps(codec)), copy.copy(codec), copy.deepcopy(codec)):
        assert twin == codec
        assert hash(twin) == hash(codec)
    assert codec in {codec}


def test_the_catalogue_its_rows_and_its_enum_pickle() -> None:
    assert pickle.loads(pickle.dumps(formats)) == formats
    assert copy.deepcopy(formats).table() == formats.table()
    for member in PktLine:
        assert pickle.loads(pickle.dumps(member)) is member
        assert repr(member) == f"formats.PktLine.{member.name}"
        assert eval(repr(member), {"formats": formats}) is member
    row = formats.describe("zmtp")
    assert isinstance(row, Format)
    assert pickle.loads(pickle.dumps(row)) == row


def test_the_lines_of_git_that_are_no_data_are_members_of_an_enum() -> None:
    assert formats.PktLine is PktLine
    assert formats.pkt_line.split(b"0006a\n000100000002") == (
        [b"a\n", PktLine.DELIM, PktLine.FLUSH, PktLine.RESPONSE_END],
        18,
    )
    assert formats.pkt_line.encode_many([PktLine.FLUSH, b"a", PktLine.DELIM]) == b"00000005a0001"


def test_a_message_of_postgres_keeps_its_type_byte_in_front() -> None:
    query = b"Q" + b"SELECT 1\0"
    assert formats.postgres.encode(query) == b"Q" + b"\0\0\0\x0d" + b"SELECT 1\0"
    assert formats.postgres.decode(formats.postgres.encode(query)) == query


def test_a_refusal_of_a_format_in_code_says_what_was_found() -> None:
    with pytest.raises(InvalidFrameError, match="the length is negative: -2"):
        formats.multiprocessing.decode(b"\xff\xff\xff\xfe")
    with pytest.raises(InvalidFrameError, match="flags 0x08 are reserved"):
        formats.zmtp.decode(b"\x08\x00")
    with pytest.raises(InvalidFrameError, match="the indefinite form"):
        formats.ldap.decode(b"\x30\x80")


@given(st.sampled_from(list(formats)), st.binary(max_size=300))
def test_what_a_format_encodes_it_decodes(name: str, message: bytes) -> None:
    codec = formats[name]
    try:
        frame = codec.encode(message)
    except FrameError:
        return
    assert codec.decode(frame) == message
    assert codec.splitter(raw=True).feed(frame) == [frame]


@given(st.sampled_from(list(formats)), st.binary(max_size=40))
def test_what_a_format_decodes_it_encodes_to_the_same_message(name: str, data: bytes) -> None:
    codec = formats[name]
    try:
        messages, _ = codec.split(data)
    except FrameError:
        return
    for message in messages:
        assert codec.decode(codec.encode(message)) == message


LEADS = {  # a beginning that lets random bytes be a message
    "oncrpc-fragment": st.sampled_from([b"\x00", b"\x80"]),
    "zmtp": st.sampled_from([b"\x00", b"\x01", b"\x04"]),
    "websocket": st.sampled_from([b"\x81\x00", b"\x82\x80abcd"]),
    "fastcgi": st.sampled_from([b"\x06\x00\x01\x00\x00"]),
    "giop": st.sampled_from([b"\x01\x02\x00\x05", b"\x01\x02\x01\x05"]),
    "dbus": st.sampled_from([b"l\x01\x00\x01" + bytes(8), b"B\x01\x00\x01" + bytes(8)]),
    "ber": st.sampled_from([b"\x30", b"\x1f\x81\x00"]),
    "ldap": st.just(b"\x30"),
    "cassandra-v5": st.sampled_from([b"\x00" + bytes(7), b"\x01" + bytes(7)]),
    "multiprocessing": st.just(b""),
}


@pytest.mark.parametrize("name", LEADS)
@given(data=st.data())
def test_what_only_code_can_write_only_code_can_read(name: str, data: st.DataObject) -> None:
    lead = data.draw(LEADS[name])
    size = data.draw(st.one_of(st.integers(0, 300), st.sampled_from([65_530, 65_536, 70_000])))
    if name == "fastcgi":
        size = min(size, 0xFFFF)
    message = lead + bytes(size)
    assert formats[name].decode(formats[name].encode(message)) == message


# --- the notation ---------------------------------------------------------------------------------

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
    "zmtp": formats.zmtp,
    "zmtp,max=1KiB": formats.zmtp.replace(max_message_size=1024),
    "giop,magic=PIOG": formats.giop.replace(magic=b"PIOG"),
    "giop,magic=": formats.giop.replace(magic=b""),
    "pkt-line": formats.pkt_line,
    "pkt-line,max=none": formats.pkt_line.replace(max_message_size=None),
}


@pytest.mark.parametrize("text", NOTATIONS)
def test_the_notation_is_read_and_written(text: str) -> None:
    codec = NOTATIONS[text]
    assert parse_codec(text) == codec
    assert str(codec) == format_codec(codec) == text


@pytest.mark.parametrize("name", list(formats))
def test_a_name_is_notation_and_every_format_has_one(name: str) -> None:
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
        ("postgres,offset=0,adjustment=0", "i32be"),
        ("resp-bulk,specials=", "text,end=%0D%0A,magic=$,trailer=%0D%0A"),
        ("text,end=%0d%0a", "text,end=%0D%0A"),
        ("u16be,magic=%61b", "u16be,magic=ab"),
        ("u8,specials=1:'a'; 0:'b'", "u8,specials=0:'b';1:'a'"),
        ("ldap", "ldap"),
        ("ber", "ldap"),
        ("u32be,max=1024KiB", "u32be,max=1MiB"),
        ("thrift", "i32be,max=16384000"),
    ],
)
def test_a_codec_is_written_in_one_way_however_it_was_put(text: str, canonical: str) -> None:
    assert str(parse_codec(text)) == canonical
    assert parse_codec(canonical) == parse_codec(text)


def build(message: memoryview) -> bytes:
    return len(message).to_bytes(1, "big")


def parse(view: memoryview) -> tuple[int, int]:
    return 1, view[0]


@pytest.mark.parametrize(
    "codec",
    [
        Codec.custom(parse, build),
        Codec.uint(1, specials={0: frozenset({1})}),
        Codec.uint(1, specials={0: float("nan")}),
        Codec.uint(1, specials={0: PktLine.FLUSH}),
        formats.pkt_line.replace(width=8),
    ],
)
def test_a_codec_without_notation_is_written_as_its_repr(codec: Codec) -> None:
    assert str(codec) == repr(codec)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"'' is no head; a head is u8, u16be"),
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
        ("hex", "is no head"),
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
        ("zmtp,offset=1", "'offset'; zmtp takes max_header, magic, trailer, max"),
        ("u32be,offset=1,offset=1", "offset is given twice"),
        ("u32be,offset=x", "'offset=x': a decimal number is wanted"),
        ("u32be,offset=+1", "a decimal number is wanted"),
        ("u32be,offset=1_0", "a decimal number is wanted"),
        ("u32be,offset=\u0661", "a decimal number is wanted"),
        ("u32be,offset=" + "9" * 5000, "a decimal number is wanted"),
        ("u32be,offset=-1", "length_offset must be from 0"),
        ("u32be,magic=ab,offset=1", "inside the magic"),
        ("u32be,includes=all", "rest or frame is wanted"),
        ("u32be,includes=frame,adjustment=1", "settles the adjustment"),
        ("u32be,max=1 MB", "with KiB, MiB or GiB, or none"),
        ("u32be,max=-1", "max_message_size"),
        ("u32be,magic=%", "two hexadecimal digits"),
        ("u32be,magic=%4", "two hexadecimal digits"),
        ("u32be,magic=%+4", "two hexadecimal digits"),
        ("u32be,magic=\xe9", "not printable ASCII"),
        ("u32be,magic=a b", "a space among bytes is written as %20"),
        ("u32be,magic=ab ,max=9", "a space among bytes is written as %20"),
        ("text,trailer= ", "a space among bytes is written as %20"),
        ("text,end=", "end must have 1 to 16 bytes"),
        ("text,base=8", "base must be"),
        ("u8,specials=1", "'1' is not value:object"),
        ("u8,specials=x:1", "a decimal number is wanted"),
        ("u8,specials=1:x", "'x' is no Python literal; text wants quotes"),
        ("u8,specials=1:1+", "no Python literal"),
        ("u8,specials=1:'a", "no Python literal"),
        ("u8,specials=1:[]", "must be hashable"),
        ("u8,specials=1:1e999", "no Python literal"),
        ("u8,specials=1:1;1:2", "1 is given twice"),
        ("u8,specials=1:1;2:1", "both stand for"),
        ("u8,specials=256:1", "does not fit"),
        ("u8,specials=1:%FF", "is not UTF-8"),
        ("u8,specials=1:__import__('os')", "no Python literal"),
        ("headers,name=a%20b", "no name of a header"),
    ],
)
def test_bad_notation_is_refused_with_what_is_possible(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"bad codec notation") as caught:
        parse_codec(text)
    assert type(caught.value) is ValueError
    assert repr(text)[:50] in str(caught.value)
    caught.match(says)


def test_spaces_between_the_parts_of_a_notation_mean_nothing() -> None:
    spaced = " u16le , offset = 2, includes= frame ,max = 64 MiB "
    assert parse_codec(spaced) == parse_codec("u16le,offset=2,includes=frame,max=64MiB")
    assert parse_codec("u8,specials= 0: None") == parse_codec("u8,specials=0:None")


def test_notation_is_text() -> None:
    with pytest.raises(TypeError, match="str"):
        parse_codec(b"u32be")  # type: ignore[arg-type]


@given(st.text(st.sampled_from("u8163be,=;:%0Aend'magic()-|$x \u0661"), max_size=30))
@example("u8,specials=0:" + "(" * 300)
@example("u8,specials=0:'\\d'")
def test_any_text_is_a_codec_or_a_value_error(text: str) -> None:
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
    st.sampled_from(["zmtp", "websocket", "ber", "giop"]).flatmap(
        lambda name: made(formats[name].replace, **COMMON)
    ),
    st.just("pkt-line").flatmap(
        lambda name: made(formats[name].replace, magic=st.binary(max_size=6))
    ),
)


@given(CODECS)
def test_the_notation_gives_the_codec_back(codec: Codec) -> None:
    text = str(codec)
    assert parse_codec(text) == codec
    assert str(parse_codec(text)) == text
    assert text.isascii()
    assert " " not in text
