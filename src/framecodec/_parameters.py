"""A codec's arguments, checked and turned into a Layout."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Literal, TypedDict

from ._check import Check
from ._choice_parameters import choice_layout
from ._joined_parameters import joined_layout
from ._layout import (
    BCD,
    BER,
    CHOICE,
    COBS,
    CUSTOM,
    DELIMITER,
    DIGITS,
    FIXED,
    HEADERS,
    LARGEST_SIZE,
    MAX_VALUE,
    NO_LIMIT,
    TEXT,
    UINT,
    VARINT,
    Layout,
    Wide,
)
from ._mark_parameters import check_delimiter
from ._plain_parameters import (
    LARGEST_CONSTANT,
    LARGEST_OFFSET,
    WIDE_FIELD,
    check_bool,
    check_bytes,
    check_constants,
    check_header_name,
    check_header_names,
    check_int,
    check_specials,
    check_start_line,
    check_wider,
)

__all__ = [
    "COMMON_DEFAULTS",
    "DEFAULT_MAX_MESSAGE_SIZE",
    "KINDS",
    "CommonParameters",
    "make_layout",
]

# Large enough for most messages, small enough that a false length costs a server little.
DEFAULT_MAX_MESSAGE_SIZE = 16 * 1024 * 1024

# Bounds far beyond any protocol. They keep every header small enough to be buffered as a whole.
_LARGEST_DIGITS = 64
_LARGEST_END = 16
_LARGEST_HEADER = 1024 * 1024
_LARGEST_UNIT = 2**32
_LARGEST_ALIGN = 64 * 1024

# Parameters that only some kinds have. For the others they must have their defaults.
_NEED_LENGTH = (
    *("length_offset", "length_adjustment", "length_unit", "length_mask", "wider"),
    *("specials", "wider_than_needed"),
)
_NEED_LENGTH_AND_END = ("length_includes", "trailer", "constants", "align", *_NEED_LENGTH)
_NEED_BINARY_LENGTH = ("length_mask", "wider", "wider_than_needed")


class CommonParameters(TypedDict, total=False):
    """The keyword parameters of all constructors; `Codec` describes them."""

    length_offset: int | None
    length_adjustment: int
    length_includes: Literal["rest", "frame"]
    length_unit: int
    length_mask: int | None
    wider: Mapping[int, str] | None
    wider_than_needed: Literal["invalid", "accept"]
    magic: bytes
    trailer: bytes
    constants: Mapping[int, bytes] | None
    check: Check | None
    align: int
    min_message_size: int
    max_message_size: int | None


COMMON_DEFAULTS: dict[str, Any] = {
    "length_offset": None,
    "length_adjustment": 0,
    "length_includes": "rest",
    "length_unit": 1,
    "length_mask": None,
    "wider": None,
    "wider_than_needed": "invalid",
    "magic": b"",
    "trailer": b"",
    "constants": None,
    "specials": None,
    "check": None,
    "align": 1,
    "min_message_size": 0,
    "max_message_size": DEFAULT_MAX_MESSAGE_SIZE,
}


def make_layout(kind: str, parameters: dict[str, Any]) -> Layout:
    """Check all parameters of a codec and return its layout.

    Args:
        kind: The name of the constructor, one of `KINDS`.
        parameters: The parameters by name. Their values are replaced by plain ones (`int`, `bytes`,
            a read-only mapping), so that equal descriptions have equal parameters.

    Raises:
        ValueError, TypeError: The parameters contradict each other or cannot be represented.
    """
    own_parameters, make = _KINDS[kind]
    _check_names(kind, parameters, (*own_parameters, *COMMON_DEFAULTS))
    _make_plain(parameters)
    return _check_layout(make(parameters), parameters)


def _check_names(kind: str, parameters: Mapping[str, Any], allowed: Iterable[str]) -> None:
    unknown = sorted(set(parameters) - set(allowed))
    if unknown:
        raise TypeError(
            f"Codec.{kind}() has no parameter {', '.join(unknown)}; it has {', '.join(allowed)}"
        )


# --- checks of single parameters ------------------------------------------------------------------


def _make_plain(parameters: dict[str, Any]) -> None:
    for name in ("magic", "trailer", "end", "line_end"):
        if name in parameters:
            parameters[name] = check_bytes(name, parameters[name])

    check_int(parameters, "length_adjustment", -LARGEST_SIZE, LARGEST_SIZE)
    if parameters["length_includes"] not in ("rest", "frame"):
        raise ValueError(
            f'length_includes must be "rest" or "frame", not {parameters["length_includes"]!r}'
        )
    if parameters["length_includes"] == "frame" and parameters["length_adjustment"]:
        raise ValueError(
            'length_includes="frame" fixes the adjustment; '
            f"remove length_adjustment={parameters['length_adjustment']}"
        )

    if parameters["length_offset"] is not None:
        magic_size = len(parameters["magic"])
        offset = check_int(parameters, "length_offset", 0, LARGEST_OFFSET)
        if offset < magic_size:
            raise ValueError(
                f"length_offset={offset} is inside the magic of {magic_size} bytes; "
                f"it must be at least {magic_size}"
            )
        if offset == magic_size:
            parameters["length_offset"] = None

    check_int(parameters, "length_unit", 1, _LARGEST_UNIT)
    check_int(parameters, "align", 1, _LARGEST_ALIGN)
    least = check_int(parameters, "min_message_size", 0, None)
    if parameters["max_message_size"] is not None:
        most = check_int(parameters, "max_message_size", 0, None)
        if least > most:
            raise ValueError(f"min_message_size={least} is larger than max_message_size={most}")

    if parameters["specials"] is not None:
        parameters["specials"] = check_specials(parameters["specials"])
    if parameters["constants"] is not None:
        parameters["constants"] = check_constants(parameters["constants"])
    if not isinstance(parameters["check"], Check | None):
        raise TypeError(f"check must be a framecodec.Check, not {parameters['check']!r}")
    if parameters["length_mask"] is not None:
        check_int(parameters, "length_mask", 1, MAX_VALUE)
    if parameters["wider"] is not None:
        parameters["wider"] = check_wider(parameters["wider"])
    if parameters["wider_than_needed"] not in ("invalid", "accept"):
        raise ValueError(
            'wider_than_needed must be "invalid" or "accept", '
            f"not {parameters['wider_than_needed']!r}"
        )


def _check_base(parameters: dict[str, Any], kind: str) -> int:
    base = check_int(parameters, "base", -MAX_VALUE, None)
    if base not in (10, 16):
        known = '10, 16 or "bcd"' if kind == "digits" else "10 or 16"
        raise ValueError(f"base must be {known}, not {base}")
    return base


def _check_includes_rest(parameters: Mapping[str, Any], kind: str) -> None:
    if parameters["length_includes"] == "frame":
        found = f"the width of that of Codec.{kind}() varies"
        if kind == "fixed":
            found = "Codec.fixed() has no length field"
        raise ValueError(f'length_includes="frame" needs a length field of fixed width; {found}')


def _check_unused(parameters: Mapping[str, Any], kind: str, names: Iterable[str]) -> None:
    for name in names:
        if parameters[name] != COMMON_DEFAULTS[name]:
            raise ValueError(f"{name} has no meaning for Codec.{kind}(); remove it")


# --- from parameters to a layout, one function for each kind --------------------------------------


def _uint_layout(parameters: dict[str, Any]) -> Layout:
    width = check_int(parameters, "width", 1, 8)
    byteorder = parameters["byteorder"]
    if byteorder not in ("big", "little", "native"):
        raise ValueError(f'byteorder must be "big", "little" or "native", not {byteorder!r}')
    signed = check_bool(parameters, "signed")
    if byteorder == "native":
        byteorder = sys.byteorder
    return _binary_layout(parameters, width, byteorder == "little", signed)


def _struct_layout(parameters: dict[str, Any]) -> Layout:
    fmt = parameters["fmt"]
    if not isinstance(fmt, str):
        raise TypeError(f"fmt must be a str, not {fmt!r}")
    order, code = (fmt[0], fmt[1:]) if fmt[:1] in "@=<>!" and fmt else ("@", fmt)
    codes = "bBhHiIlLqQnN" if order == "@" else "bBhHiIlLqQ"
    if len(code) != 1 or code not in codes:
        hint = ""
        if len(code) > 1:
            hint = (
                ". For a header of several fields, describe its length field alone:"
                " length_offset counts the bytes before it, length_adjustment those after it"
            )
        raise ValueError(
            f'fmt must be one integer in struct notation, such as "!I" or "i", not {fmt!r}{hint}'
        )
    little = order == "<" or (order in "@=" and sys.byteorder == "little")
    return _binary_layout(parameters, struct.calcsize(fmt), little, code.islower())


def _binary_layout(parameters: dict[str, Any], width: int, little: bool, signed: bool) -> Layout:
    full = 2 ** (8 * width) - 1
    mask = parameters["length_mask"] or full
    if mask > full:
        raise ValueError(f"length_mask={mask:#x} has bits outside the field of {width} bytes")
    if mask == full:
        parameters["length_mask"] = None
    elif signed:
        raise ValueError("length_mask needs an unsigned field; remove it, or the sign")
    plain_max = min(mask, 2 ** (8 * width - signed) - 1)
    wider = _wider_layout(parameters, mask, signed)
    return _fixed_layout(
        parameters,
        kind=UINT,
        field_width=width,
        little=little,
        signed=signed,
        mask=0 if mask == full else mask,
        wider=wider,
        wider_strict=parameters["wider_than_needed"] == "invalid",
        plain_max=plain_max,
        field_max=max(plain_max, *(2 ** (8 * wide.width) - 1 for wide in wider), 0),
    )


def _wider_layout(parameters: dict[str, Any], mask: int, signed: bool) -> tuple[Wide, ...]:
    wider: Mapping[int, str] = parameters["wider"] or {}
    if not wider:
        if parameters["wider_than_needed"] != "invalid":
            raise ValueError('wider_than_needed="accept" has no meaning without wider')
        return ()
    if signed:
        raise ValueError("wider needs an unsigned field; remove it, or the sign")
    if parameters["length_includes"] == "frame":
        raise ValueError(
            'length_includes="frame" needs a length field of fixed width; with wider it varies'
        )
    fields = []
    for key, field in wider.items():
        if key < 0 or key & mask != key:
            raise ValueError(
                f"wider: the length field cannot hold the value {key}"
                + ("" if parameters["length_mask"] is None else f" (length_mask={mask:#x})")
            )
        if key in (parameters["specials"] or ()):
            raise ValueError(f"the field value {key} is in wider and in specials; remove one")
        bits, order = WIDE_FIELD.fullmatch(field).groups()  # type: ignore[union-attr]
        little = order == "le" or (order == "native" and sys.byteorder == "little")
        fields.append((int(bits) // 8, key, little))
    fields.sort(key=lambda wide: wide[0])
    return tuple(
        Wide(key, width, little, max((2 ** (8 * w) for w, _, _ in fields if w < width), default=0))
        for width, key, little in fields
    )


def _digits_layout(parameters: dict[str, Any]) -> Layout:
    if parameters["base"] == "bcd":
        return _bcd_layout(parameters)
    width = check_int(parameters, "width", 1, _LARGEST_DIGITS)
    base = _check_base(parameters, "digits")
    _check_unused(parameters, "digits", _NEED_BINARY_LENGTH)
    return _fixed_layout(
        parameters,
        kind=DIGITS,
        field_width=width,
        base=base,
        plain_max=min(base**width - 1, MAX_VALUE),
        field_max=min(base**width - 1, MAX_VALUE),
    )


def _bcd_layout(parameters: dict[str, Any]) -> Layout:
    parameters["base"] = "bcd"
    width = check_int(parameters, "width", 1, _LARGEST_DIGITS // 2)
    _check_unused(parameters, "digits", _NEED_BINARY_LENGTH)
    largest = min(100**width - 1, MAX_VALUE)
    return _fixed_layout(
        parameters, kind=BCD, field_width=width, plain_max=largest, field_max=largest
    )


def _fixed_layout(parameters: dict[str, Any], *, field_width: int, **more: Any) -> Layout:
    # The field's width is fixed, so the field can count the whole frame.
    common = _common_layout(parameters)
    if parameters["length_includes"] == "frame":
        owned = common["field_offset"] + field_width + len(common["trailer"])
        owned += common["check"].size if common["check"] else 0
        common |= {"adjustment": -owned, "counts_frame": True}
    return Layout(**common, field_width=field_width, **more)


def _varint_layout(parameters: dict[str, Any]) -> Layout:
    max_width = check_int(parameters, "max_width", 1, 10)
    _check_includes_rest(parameters, "varint")
    _check_unused(parameters, "varint", _NEED_BINARY_LENGTH)
    largest = min(2 ** (7 * max_width) - 1, MAX_VALUE)
    return Layout(
        **_common_layout(parameters),
        kind=VARINT,
        field_width=max_width,
        plain_max=largest,
        field_max=largest,
    )


def _ber_layout(parameters: dict[str, Any]) -> Layout:
    max_width = check_int(parameters, "max_width", 1, 8)
    _check_includes_rest(parameters, "ber")
    _check_unused(parameters, "ber", _NEED_BINARY_LENGTH)
    largest = 2 ** (8 * max_width) - 1
    return Layout(
        **_common_layout(parameters),
        kind=BER,
        field_width=1 + max_width,
        plain_max=largest,
        field_max=largest,
    )


def _size_layout(parameters: dict[str, Any]) -> Layout:
    size = check_int(parameters, "size", 1, LARGEST_SIZE)
    _check_includes_rest(parameters, "fixed")
    _check_unused(parameters, "fixed", _NEED_LENGTH)
    least, most = parameters["min_message_size"], parameters["max_message_size"]
    if size < least:
        raise ValueError(f"size={size} is less than min_message_size={least}")
    if most is not None and size > most:
        raise ValueError(f"size={size} is more than max_message_size={most}")
    return Layout(**_common_layout(parameters), kind=FIXED, size=size)


def _text_layout(parameters: dict[str, Any]) -> Layout:
    base = _check_base(parameters, "text")
    leading_zeros = check_bool(parameters, "leading_zeros")
    trailing_blanks = check_bool(parameters, "trailing_blanks")
    max_digits = check_int(parameters, "max_digits", 1, _LARGEST_DIGITS)
    _check_unused(parameters, "text", _NEED_BINARY_LENGTH)
    end: bytes = parameters["end"]
    _check_includes_rest(parameters, "text")
    if not 1 <= len(end) <= _LARGEST_END:
        raise ValueError(f"end must have 1 to {_LARGEST_END} bytes, not {end!r}")
    if end[:1] in b"-" or end[:1] in b"0123456789abcdefABCDEF"[: 10 if base == 10 else None]:
        raise ValueError(
            f"end={end!r} begins with a character that a base {base} length can contain; "
            "use another end mark"
        )
    if trailing_blanks and end[:1] in b" \t":
        raise ValueError(
            f"trailing_blanks=True: end={end!r} begins with a blank, which would be read as one of "
            "those before it; use another end mark"
        )
    largest = min(base**max_digits - 1, MAX_VALUE)
    return Layout(
        **_common_layout(parameters),
        kind=TEXT,
        base=base,
        end=end,
        leading_zeros=leading_zeros,
        trailing_blanks=trailing_blanks,
        max_digits=max_digits,
        plain_max=largest,
        field_max=largest,
    )


def _headers_layout(parameters: dict[str, Any]) -> Layout:
    name = check_header_name("name", parameters["name"], "name={!r}")
    names = check_header_names(parameters)
    max_header = check_int(parameters, "max_header", 1, _LARGEST_HEADER)
    lenient, keep = (check_bool(parameters, flag) for flag in ("lenient", "keep"))
    start_line, protocols = check_start_line(parameters)
    if parameters["line_end"] not in (b"\r\n", b"\n"):
        raise ValueError(f"line_end must be b'\\r\\n' or b'\\n', not {parameters['line_end']!r}")
    if start_line and not keep:
        raise ValueError(
            f"start_line={parameters['start_line']!r} needs keep=True: a start line is part of the "
            "message"
        )
    _check_includes_rest(parameters, "headers")
    _check_unused(parameters, "headers", ("length_offset", "constants", *_NEED_BINARY_LENGTH))
    if keep:
        for unused in ("length_adjustment", "length_unit", "specials"):
            if parameters[unused] != COMMON_DEFAULTS.get(unused):
                raise ValueError(f"{unused} has no meaning with keep=True; remove one of them")
        check = parameters["check"]
        if check is not None and (check.position == "front" or check.covers == "rest"):
            raise ValueError(
                "keep=True makes the header block a part of the message: a check cannot come after "
                "it (position='front') or leave it out (covers='rest'); use covers='message'"
            )
    layout = Layout(
        **_common_layout(parameters),
        kind=HEADERS,
        name=name,
        names=names,
        line_end=parameters["line_end"],
        lenient=lenient,
        start_line=start_line,
        protocols=protocols,
        keep=keep,
        max_header=max_header,
    )
    if keep:
        return layout
    value = max(layout.rest_max - layout.adjustment, *layout.specials, 0)
    largest = len(f"{name}: {value}") + 2 * len(parameters["line_end"])
    if largest > max_header:
        what = f"special value {value}" if value in layout.specials else "largest message"
        raise ValueError(
            f"max_header={max_header} is too small: the {name} header of the {what} has "
            f"{largest} bytes; raise max_header or lower "
            + ("the special value" if value in layout.specials else "max_message_size")
        )
    return layout


def _delimiter_layout(parameters: dict[str, Any]) -> Layout:
    _check_unused(parameters, "delimiter", _NEED_LENGTH_AND_END)
    fields = check_delimiter(parameters)
    return Layout(**_common_layout(parameters), kind=DELIMITER, **fields)


def _cobs_layout(parameters: dict[str, Any]) -> Layout:
    _check_unused(parameters, "cobs", _NEED_LENGTH_AND_END)
    return Layout(**_common_layout(parameters), kind=COBS, marks=(b"\0",), skip_empty=True)


def _custom_layout(parameters: dict[str, Any]) -> Layout:
    for name in ("parse", "build"):
        if not callable(parameters[name]):
            raise TypeError(f"{name} must be callable, not {parameters[name]!r}")
        if not isinstance(parameters[name], Hashable):
            raise TypeError(
                f"{name} must be hashable, because a codec is; {parameters[name]!r} is not"
            )
    max_header = check_int(parameters, "max_header", 1, _LARGEST_HEADER)
    _check_includes_rest(parameters, "custom")
    _check_unused(parameters, "custom", ("constants", *_NEED_LENGTH))
    return Layout(
        **_common_layout(parameters),
        kind=CUSTOM,
        max_header=max_header,
        parse=parameters["parse"],
        build=parameters["build"],
    )


def _choice_layout(parameters: dict[str, Any]) -> Layout:
    _check_unused(parameters, "choice", sorted({*COMMON_DEFAULTS} - {"max_message_size"}))
    check_int(parameters, "offset", 0, LARGEST_OFFSET)
    check_int(parameters, "mask", 1, 0xFF)
    return choice_layout(parameters)


def _joined_layout(parameters: dict[str, Any]) -> Layout:
    _check_unused(parameters, "joined", sorted({*COMMON_DEFAULTS} - {"max_message_size"}))
    return joined_layout(parameters)


def _common_layout(parameters: Mapping[str, Any]) -> dict[str, Any]:
    magic: bytes = parameters["magic"]
    offset, limit = parameters["length_offset"], parameters["max_message_size"]
    return {
        "magic": magic,
        "trailer": parameters["trailer"],
        "field_offset": len(magic) if offset is None else offset,
        "adjustment": parameters["length_adjustment"],
        "unit": parameters["length_unit"],
        "constants": tuple((parameters["constants"] or {}).items()),
        "check": parameters["check"],
        "align": parameters["align"],
        "min_message_size": parameters["min_message_size"],
        "specials": parameters["specials"] or {},
        "max_message_size": NO_LIMIT if limit is None else limit,
    }


# The parameters that a kind has besides the common ones, and the function that makes its layout.
_KINDS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Layout]]] = {
    "uint": (("width", "byteorder", "signed"), _uint_layout),
    "struct": (("fmt",), _struct_layout),
    "digits": (("width", "base"), _digits_layout),
    "varint": (("max_width",), _varint_layout),
    "ber": (("max_width",), _ber_layout),
    "fixed": (("size",), _size_layout),
    "text": (("end", "base", "leading_zeros", "trailing_blanks", "max_digits"), _text_layout),
    "headers": (
        ("name", "names", "line_end", "lenient", "start_line", "keep", "max_header"),
        _headers_layout,
    ),
    "delimiter": (("end", "more_ends", "escape", "skip_empty"), _delimiter_layout),
    "cobs": ((), _cobs_layout),
    "custom": (("parse", "build", "max_header"), _custom_layout),
    "choice": (("alternatives", "offset", "mask", "keep", "tagged"), _choice_layout),
    "joined": (
        (
            *("fragments", "last", "full", "strip", "keep_first", "counter", "fragment_size"),
            "max_fragments",
        ),
        _joined_layout,
    ),
}

KINDS = tuple(_KINDS)


# --- checks of the whole layout -------------------------------------------------------------------


def _check_layout(layout: Layout, parameters: Mapping[str, Any]) -> Layout:
    if len(layout.magic) > LARGEST_CONSTANT or len(layout.trailer) > LARGEST_CONSTANT:
        raise ValueError(
            f"magic and trailer can have at most {LARGEST_CONSTANT} bytes each, "
            f"not {len(layout.magic)} and {len(layout.trailer)}"
        )
    if layout.kind == CHOICE:
        return layout
    if layout.specials and layout.message_lead:
        cause = "length_offset" if layout.lead_size else "length_mask"
        raise ValueError(
            "specials exclude a lead, because a special frame has no message bytes; "
            f"{cause}={parameters[cause]} makes a lead of {layout.message_lead} bytes: "
            f"remove specials or {cause}"
        )
    if layout.specials and layout.align > 1:
        raise ValueError("specials exclude align; remove one of them")
    _check_constant_places(layout)
    _check_special_values(layout)
    if layout.quick_range[1] < 0:
        left = "only special values" if layout.specials else "no size"
        raise ValueError(f"no message fits: {_limits_text(layout, parameters)} leave {left}")
    return layout


def _check_constant_places(layout: Layout) -> None:
    stop = len(layout.magic)
    field_stop = layout.field_offset + layout.field_width + layout.front_check_size
    for offset, constant in layout.constants:
        if offset < stop:
            what = "the magic" if stop == len(layout.magic) else "another constant"
            raise ValueError(f"the constant at offset {offset} overlaps {what}")
        stop = offset + len(constant)
        if stop <= layout.field_offset or (layout.kind == FIXED and offset >= field_stop):
            continue
        if not layout.header_size and layout.kind != FIXED:
            raise ValueError(
                f"the constant at offset {offset} is not in the lead, which ends at "
                f"{layout.field_offset}; a constant after the length field needs a field of fixed "
                "width"
            )
        if offset < field_stop:
            raise ValueError(
                f"the constant at offset {offset} overlaps the length field"
                f"{' and the check' * bool(layout.front_check_size)}, which is at "
                f"{layout.field_offset} to {field_stop - 1}"
            )


def _check_special_values(layout: Layout) -> None:
    if layout.kind == UINT:
        field_min = -layout.plain_max - 1 if layout.signed else 0
    else:
        field_min = -layout.plain_max if layout.kind == TEXT else 0
    for value in layout.specials:
        if not field_min <= value <= layout.plain_max:
            raise ValueError(
                f"special value {value} does not fit the length field, "
                f"which holds {field_min} to {layout.plain_max}"
            )


def _limits_text(layout: Layout, parameters: Mapping[str, Any]) -> str:
    """Return the parameters that limit a message's size, as the caller wrote them."""
    named = [
        f"{name}={parameters[name]!r}"
        for name in ("width", "fmt", "max_width", "max_digits", "length_offset")
        if parameters.get(name)
    ]
    named += [
        f"{name}={parameters[name]!r}"
        for name in ("length_adjustment", "length_unit", "length_mask", "constants")
        if parameters[name] != COMMON_DEFAULTS[name]
    ]
    if layout.min_message_size:
        named.append(f"min_message_size={layout.min_message_size}")
    if layout.counts_frame:
        named.append('length_includes="frame"')
        owned = [name for name in ("magic", "trailer") if parameters[name]]
        named += [f"a {name} of {len(parameters[name])} bytes" for name in owned]
        named += [f"a check of {layout.check.size} bytes"] if layout.check else []
    named.append(f"max_message_size={parameters['max_message_size']}")
    return f"{', '.join(named)} and a length field up to {layout.field_max}"
