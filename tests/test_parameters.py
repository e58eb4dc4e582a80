"""The parameters of a codec: which ones the constructors refuse, and their plain form."""

from __future__ import annotations

import enum
import re
from typing import Any

import numpy
import pytest

from framecodec import Codec
from tests.helpers.sample_codecs import build_tagged, parse_tagged

KINDS = {
    "uint": lambda **given: Codec.uint(2, **given),
    "struct": lambda **given: Codec.struct("!H", **given),
    "digits": lambda **given: Codec.digits(4, **given),
    "varint": lambda **given: Codec.varint(**given),
    "text": lambda **given: Codec.text(**given),
    "headers": lambda **given: Codec.headers(**given),
    "custom": lambda **given: Codec.custom(parse_tagged, build_tagged, **given),
    "ber": lambda **given: Codec.ber(**given),
    "packed digits": lambda **given: Codec.digits(2, base="bcd", **given),
    "fixed": lambda **given: Codec.fixed(2, **given),
}

# --- errors of the constructors -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"magic": "M"}, TypeError, "magic must be bytes, not 'M'"),
        ({"magic": 3}, TypeError, "magic must be bytes, not 3"),
        ({"magic": None}, TypeError, "magic must be bytes, not None"),
        ({"trailer": [1]}, TypeError, r"trailer must be bytes, not \[1\]"),
        ({"length_offset": -1}, ValueError, "length_offset"),
        ({"length_offset": "2"}, TypeError, "length_offset must be an int, not '2'"),
        ({"length_offset": True}, TypeError, "length_offset must be an int, not True"),
        ({"length_offset": 1.0}, TypeError, "length_offset must be an int, not 1.0"),
        ({"magic": b"MM", "length_offset": 1}, ValueError, "length_offset=1 .*magic of 2 bytes"),
        ({"length_offset": 10**9}, ValueError, "length_offset must be from 0 to"),
        ({"length_adjustment": 1.5}, TypeError, "length_adjustment must be an int"),
        ({"length_adjustment": None}, TypeError, "length_adjustment must be an int"),
        ({"length_adjustment": 2**64}, ValueError, "length_adjustment must be from"),
        ({"length_adjustment": -(2**64)}, ValueError, "length_adjustment must be from"),
        ({"length_includes": "message"}, ValueError, '"rest" or "frame", not \'message\''),
        ({"length_includes": None}, ValueError, '"rest" or "frame", not None'),
        (
            {"length_includes": "frame", "length_adjustment": 3},
            ValueError,
            'length_includes="frame".*length_adjustment=3',
        ),
        ({"max_message_size": -1}, ValueError, "max_message_size must be at least 0"),
        ({"max_message_size": "5"}, TypeError, "max_message_size must be an int"),
        ({"max_message_size": 1e6}, TypeError, "max_message_size must be an int"),
        ({"max_message_size": True}, TypeError, "max_message_size must be an int"),
        ({"specials": [0]}, TypeError, "specials must be a mapping"),
        ({"specials": {"0": None}}, TypeError, "special field value must be an int, not '0'"),
        ({"specials": {True: None}}, TypeError, "special field value must be an int, not True"),
        ({"specials": {0: []}}, TypeError, r"hashable, \[\] is not"),
        ({"specials": {0: None, 1: None}}, ValueError, "1 and 0 both mean None"),
        ({"specials": {2**64: None}}, ValueError, "18446744073709551616|no meaning"),
        ({"unknown": 1}, TypeError, "unknown"),
        ({"length_unit": 0}, ValueError, "length_unit must be from 1"),
        ({"length_unit": 2.0}, TypeError, "length_unit must be an int"),
        ({"length_mask": 0}, ValueError, "length_mask must be from 1"),
        ({"length_mask": "7"}, TypeError, "length_mask must be an int"),
        ({"wider": [126]}, TypeError, "wider must be a mapping"),
        ({"wider": {"1": "u8"}}, TypeError, "field value in wider must be an int, not '1'"),
        ({"wider": {1: 2}}, TypeError, "field in wider must be a str, not 2"),
        ({"wider": {1: "u16"}}, ValueError, "u8, u16be, .* not 'u16'"),
        ({"wider": {1: "i16be"}}, ValueError, "u8, u16be, .* not 'i16be'"),
        ({"wider_than_needed": "maybe"}, ValueError, '"invalid" or "accept", not \'maybe\''),
        ({"wider_than_needed": "accept"}, ValueError, "no meaning"),
        ({"constants": b"ab"}, TypeError, "constants must be a mapping"),
        ({"constants": {"0": b"a"}}, TypeError, "constant's offset must be an int, not '0'"),
        ({"constants": {-1: b"a"}}, ValueError, "constant's offset must be from 0"),
        ({"constants": {0: "a"}}, TypeError, "a constant must be bytes, not 'a'"),
        ({"constants": {0: b""}}, ValueError, "a constant must have 1 to"),
        ({"constants": {n: b"a" for n in range(17)}}, ValueError, "constants can have 16 items"),
        ({"check": "crc32"}, TypeError, "check must be a framecodec.Check, not 'crc32'"),
        ({"check": 4}, TypeError, "check must be a framecodec.Check, not 4"),
        ({"align": 0}, ValueError, "align must be from 1"),
        ({"align": True}, TypeError, "align must be an int"),
        ({"min_message_size": -1}, ValueError, "min_message_size must be at least 0"),
        (
            {"min_message_size": 3, "max_message_size": 2},
            ValueError,
            "min_message_size=3 .*max_message_size=2",
        ),
    ],
)
def test_common_parameters_are_checked_by_every_constructor(
    kind: str, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        KINDS[kind](**given)


@pytest.mark.parametrize("kind", KINDS)
def test_specials_exclude_a_lead(kind: str) -> None:
    with pytest.raises(ValueError, match=r"specials|length_offset"):
        KINDS[kind](specials={0: None}, length_offset=3)


@pytest.mark.parametrize("kind", ["varint", "text", "headers", "custom", "ber", "fixed"])
def test_length_includes_frame_needs_a_field_of_fixed_width(kind: str) -> None:
    with pytest.raises(ValueError, match=rf'length_includes="frame".*Codec\.{kind}'):
        KINDS[kind](length_includes="frame")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Codec.uint(0), ValueError, "width must be from 1 to 8, not 0"),
        (lambda: Codec.uint(9), ValueError, "width must be from 1 to 8, not 9"),
        (lambda: Codec.uint("4"), TypeError, "width must be an int, not '4'"),
        (lambda: Codec.uint(4.0), TypeError, "width must be an int, not 4.0"),
        (lambda: Codec.uint(True), TypeError, "width must be an int, not True"),
        (lambda: Codec.uint(4, "middle"), ValueError, "byteorder must be .*not 'middle'"),
        (lambda: Codec.uint(4, None), ValueError, "byteorder must be .*not None"),
        (lambda: Codec.uint(4, signed=1), TypeError, "signed must be a bool, not 1"),
        (lambda: Codec.uint(4, "big", True), TypeError, "positional"),
        (lambda: Codec.struct(""), ValueError, "struct notation"),
        (lambda: Codec.struct("II"), ValueError, "one integer.*'II'"),
        (lambda: Codec.struct("2I"), ValueError, "one integer"),
        (lambda: Codec.struct("f"), ValueError, "one integer"),
        (lambda: Codec.struct("?"), ValueError, "one integer"),
        (lambda: Codec.struct("c"), ValueError, "one integer"),
        (lambda: Codec.struct("x"), ValueError, "one integer"),
        (lambda: Codec.struct("P"), ValueError, "one integer"),
        (lambda: Codec.struct("!"), ValueError, "one integer"),
        (lambda: Codec.struct("!n"), ValueError, "one integer"),
        (lambda: Codec.struct(b"I"), TypeError, "fmt must be a str"),
        (lambda: Codec.struct(4), TypeError, "fmt must be a str"),
        (lambda: Codec.digits(0), ValueError, "width must be from 1"),
        (lambda: Codec.digits(1000), ValueError, "width must be from 1"),
        (lambda: Codec.digits(4, base=8), ValueError, 'base must be 10, 16 or "bcd", not 8'),
        (lambda: Codec.digits(4, base="10"), (TypeError, ValueError), "base"),
        (lambda: Codec.digits(4, base=16.0), (TypeError, ValueError), "base"),
        (lambda: Codec.varint(max_width=0), ValueError, "max_width must be from 1 to 10"),
        (lambda: Codec.varint(max_width=11), ValueError, "max_width must be from 1 to 10"),
        (lambda: Codec.ber(max_width=0), ValueError, "max_width must be from 1 to 8"),
        (lambda: Codec.ber(max_width=9), ValueError, "max_width must be from 1 to 8"),
        (
            lambda: Codec.uint(1, wider=dict.fromkeys(range(247, 256), "u16be")),
            ValueError,
            "wider can have 8 items, not 9",
        ),
        (lambda: Codec.fixed(0), ValueError, "size must be from 1"),
        (lambda: Codec.fixed("4"), TypeError, "size must be an int"),
        (lambda: Codec.fixed(4, max_message_size=3), ValueError, "size=4 .*max_message_size=3"),
        (lambda: Codec.fixed(4, min_message_size=5), ValueError, "size=4 .*min_message_size=5"),
        (lambda: Codec.fixed(2**24 + 1), ValueError, "max_message_size=16777216"),
        (lambda: Codec.fixed(4, length_offset=2), ValueError, "length_offset has no meaning"),
        (lambda: Codec.fixed(4, length_unit=2), ValueError, "length_unit has no meaning"),
        (lambda: Codec.digits(33, base="bcd"), ValueError, "width must be from 1 to 32"),
        (lambda: Codec.text(trailing_blanks=1), TypeError, "trailing_blanks must be a bool"),
        (lambda: Codec.text(b" ", trailing_blanks=True), ValueError, "begins with a blank"),
        (lambda: Codec.text(leading_zeros=1), TypeError, "leading_zeros must be a bool"),
        (lambda: Codec.text(max_digits=0), ValueError, "max_digits must be from 1"),
        (lambda: Codec.text(max_digits=1, min_message_size=10), ValueError, "no message fits"),
        (lambda: Codec.uint(1, length_mask=0x100), ValueError, "0x100 has bits outside"),
        (lambda: Codec.uint(1, signed=True, length_mask=1), ValueError, "unsigned"),
        (lambda: Codec.varint(length_mask=0x7F), ValueError, "length_mask has no meaning"),
        (lambda: Codec.digits(4, wider={1: "u8"}), ValueError, "wider has no meaning"),
        (lambda: Codec.uint(1, wider={256: "u16be"}), ValueError, "cannot hold the value 256"),
        (
            lambda: Codec.uint(1, length_mask=0x7F, wider={128: "u16be"}),
            ValueError,
            "cannot hold the value 128.*length_mask=0x7f",
        ),
        (
            lambda: Codec.uint(1, wider={254: "u16be"}, length_includes="frame"),
            ValueError,
            "length_includes",
        ),
        (
            lambda: Codec.uint(1, wider={254: "u16be"}, specials={254: None}),
            ValueError,
            "254 is in wider and in specials",
        ),
        (lambda: Codec.uint(1, signed=True, wider={1: "u8"}), ValueError, "unsigned"),
        (
            lambda: Codec.uint(1, specials={0: None}, length_mask=0x7F),
            ValueError,
            "length_mask=127 makes a lead",
        ),
        (lambda: Codec.uint(1, specials={0: None}, align=2), ValueError, "specials exclude align"),
        (lambda: Codec.uint(2, magic=b"ab", constants={1: b"x"}), ValueError, "the magic"),
        (
            lambda: Codec.uint(2, length_offset=3, constants={0: b"xx", 1: b"y"}),
            ValueError,
            "another constant",
        ),
        (lambda: Codec.uint(2, constants={1: b"x"}), ValueError, "length field.* 0 to 1"),
        (
            lambda: Codec.uint(2, length_offset=2, constants={1: b"xy"}),
            ValueError,
            "overlaps the length field",
        ),
        (lambda: Codec.varint(constants={1: b"x"}), ValueError, "fixed width"),
        (
            lambda: Codec.uint(1, wider={255: "u16be"}, constants={1: b"x"}),
            ValueError,
            "fixed width",
        ),
        (
            lambda: Codec.uint(1, constants={1: b"abc"}, max_message_size=2),
            ValueError,
            "no message fits.*constants",
        ),
        (lambda: Codec.struct("!HH"), ValueError, "length_offset .*length_adjustment"),
        (lambda: Codec.text(end=b""), ValueError, "end must have 1 to"),
        (lambda: Codec.text(end=bytes(100)), ValueError, "end must have 1 to"),
        (
            lambda: Codec.text(end=b"5"),
            ValueError,
            "that a base 10 length can contain",
        ),
        (
            lambda: Codec.text(end=b"a", base=16),
            ValueError,
            "that a base 16 length can contain",
        ),
        (
            lambda: Codec.text(end=b"-"),
            ValueError,
            "that a base 10 length can contain",
        ),
        (lambda: Codec.text(end=":"), TypeError, "end must be bytes"),
        (lambda: Codec.headers("Content Length"), ValueError, "is not a header name"),
        (lambda: Codec.headers(""), ValueError, "is not a header name"),
        (lambda: Codec.headers("L:"), ValueError, "is not a header name"),
        (lambda: Codec.headers("L\n"), ValueError, "is not a header name"),
        (lambda: Codec.headers(b"L"), TypeError, "name must be a str"),
        (lambda: Codec.headers(max_header=0), ValueError, "max_header must be from 1"),
        (lambda: Codec.headers(max_header=10), ValueError, "max_header=10 is too small.* 28 bytes"),
        (lambda: Codec.headers(length_offset=4), ValueError, r"length_offset.*headers"),
        (lambda: Codec.custom(None, build_tagged), TypeError, "parse must be callable"),
        (lambda: Codec.custom(parse_tagged, b"x"), TypeError, "build must be callable"),
        (lambda: Codec.custom(parse_tagged), TypeError, "build"),
        (
            lambda: Codec.custom(parse_tagged, build_tagged, max_header=0),
            ValueError,
            "max_header must be from 1",
        ),
        (
            lambda: Codec.custom(parse_tagged, build_tagged, length_adjustment=1),
            ValueError,
            "length_adjustment.*custom",
        ),
        (
            lambda: Codec.custom(parse_tagged, build_tagged, specials={0: None}),
            ValueError,
            "specials.*custom",
        ),
        # special values that the field cannot hold
        (lambda: Codec.uint(1, specials={256: None}), ValueError, "256 does not fit.* 0 to 255"),
        (lambda: Codec.uint(1, specials={-1: None}), ValueError, "-1 does not fit"),
        (
            lambda: Codec.uint(1, signed=True, specials={128: None}),
            ValueError,
            "128 does not fit.* -128 to 127",
        ),
        (lambda: Codec.digits(2, specials={100: None}), ValueError, "100 does not fit"),
        (lambda: Codec.digits(2, specials={-1: None}), ValueError, "-1 does not fit"),
        (
            lambda: Codec.text(max_digits=1, specials={-10: None}),
            ValueError,
            "-10 does not fit.* -9 to 9",
        ),
        (lambda: Codec.varint(max_width=1, specials={128: 0}), ValueError, "128 does not fit"),
        # codecs that could hold no message
        (lambda: Codec.uint(4, length_offset=9, max_message_size=8), ValueError, "no message fits"),
        (lambda: Codec.uint(1, length_adjustment=-256), ValueError, "no message fits"),
        (
            lambda: Codec.uint(1, length_adjustment=9, max_message_size=8),
            ValueError,
            "length_adjustment=9.*max_message_size=8",
        ),
        (
            lambda: Codec.digits(1, length_includes="frame", trailer=b"123456789"),
            ValueError,
            'no message fits: width=1, length_includes="frame", a trailer of 9 bytes',
        ),
        (
            lambda: Codec.uint(1, length_includes="frame", length_offset=255),
            ValueError,
            'length_offset=255, length_includes="frame"',
        ),
        (
            lambda: Codec.varint(max_width=1, length_adjustment=-200),
            ValueError,
            "max_width=1, length_adjustment=-200",
        ),
        (
            lambda: Codec.uint(1, specials=dict(zip(range(256), range(256), strict=True))),
            ValueError,
            "only special values",
        ),
        (
            lambda: Codec.uint(1, specials={0: None}, max_message_size=0),
            ValueError,
            "only special values",
        ),
    ],
)
def test_constructors_refuse_contradictions(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.compile(text, re.DOTALL)):
        make()


def test_constructors_refuse_unknown_parameters_and_list_their_own() -> None:
    with pytest.raises(TypeError) as caught:
        Codec.varint(maxwidth=5, lenght_offset=1)
    assert str(caught.value) == (
        "Codec.varint() has no parameter lenght_offset, maxwidth; it has max_width, length_offset, "
        "length_adjustment, length_includes, length_unit, length_mask, wider, "
        "wider_than_needed, magic, trailer, constants, specials, check, align, min_message_size, "
        "max_message_size"
    )


def test_errors_name_the_parameters_that_disagree() -> None:
    with pytest.raises(ValueError, match="length_offset") as caught:
        Codec.uint(2, magic=b"MAGIC", length_offset=4)
    assert "magic" in str(caught.value)
    with pytest.raises(ValueError, match="lead of 3 bytes"):
        Codec.uint(2, length_offset=3, specials={0: None})


# --- the plain form of parameters -----------------------------------------------------------------


def test_parameters_are_copies_of_the_arguments() -> None:
    magic, specials = bytearray(b"M"), {0: None}
    codec = Codec.uint(1, magic=magic, specials=specials)
    magic[0] = 0
    specials[1] = "late"  # type: ignore[assignment]
    assert codec == Codec.uint(1, magic=b"M", specials={0: None})
    assert codec.encode(b"a") == b"M\1a"


class Width(enum.IntEnum):
    WIDE = 4


def test_parameters_are_plain_ints() -> None:
    codec = Codec.uint(Width.WIDE, max_message_size=Width.WIDE)
    assert codec == Codec.uint(4, max_message_size=4)
    assert repr(codec) == "Codec.uint(4, max_message_size=4)"


@pytest.mark.parametrize("number", [numpy.int64(4), numpy.uint8(4)])
def test_numpy_integers_are_accepted_or_refused_with_a_reason(number: Any) -> None:
    try:
        codec = Codec.uint(number)
    except TypeError as error:
        refused = str(error)
    else:
        refused = "width must be an int" if repr(codec) == "Codec.uint(4)" else ""
    assert "width must be an int" in refused


def test_specials_have_plain_ints_as_values() -> None:
    class Value(enum.IntEnum):
        NONE = 7

    codec = Codec.uint(1, specials={Value.NONE: None})
    assert repr(codec) == "Codec.uint(1, specials={7: None})"
    assert str(codec) == "u8,specials=7:None"


def test_custom_refuses_functions_without_a_hash() -> None:
    class Parse:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, view: memoryview) -> tuple[int, int]:
            return 1, view[0]

    with pytest.raises(TypeError, match="parse must be hashable"):
        Codec.custom(Parse(), build_tagged)


def test_headers_refuses_a_special_value_whose_header_is_larger_than_max_header() -> None:
    specials = {10**15: "closing"}
    with pytest.raises(ValueError, match="special value 1000000000000000 has 36 bytes"):
        Codec.headers(max_header=35, max_message_size=100, specials=specials)
    codec = Codec.headers(max_header=36, max_message_size=100, specials=specials)
    assert codec.decode(codec.encode("closing")) == "closing"
