"""A codec's arguments, checked and turned into a Layout."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from . import errors
from ._layout import (
    CUSTOM,
    DIGITS,
    HEADERS,
    LARGEST_SIZE,
    MAX_VALUE,
    NO_LIMIT,
    TEXT,
    UINT,
    VARINT,
    Layout,
)

__all__ = ["KINDS", "make_layout"]

# Bounds on a description, far beyond any protocol: a header stays small enough to be gathered.
_LARGEST_OFFSET = 64 * 1024
_LARGEST_CONSTANT = 1024
_LARGEST_DIGITS = 64
_LARGEST_END = 16
_LARGEST_HEADER = 1024 * 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def make_layout(kind: str, parameters: dict[str, Any]) -> Layout:
    """Check the parameters of `Codec.kind`, bring them to their plain form and make the layout."""
    _normalize(parameters)
    return _check_layout(_LAYOUT_MAKERS[kind](parameters), parameters)


def _normalize(parameters: dict[str, Any]) -> None:
    """Brings equal descriptions to equal values, and refuses values of a wrong type."""
    for name in ("magic", "trailer", "end"):
        if name in parameters:
            if isinstance(parameters[name], int):  # bytes(5) would be five zeros
                raise TypeError(f"{name} must be bytes, not {parameters[name]!r}")
            try:
                parameters[name] = bytes(errors.view_bytes(parameters[name]))
            except TypeError:
                raise TypeError(f"{name} must be bytes, not {parameters[name]!r}") from None

    _check_int(parameters, "length_adjustment", -LARGEST_SIZE, LARGEST_SIZE)
    if parameters["length_includes"] not in ("rest", "frame"):
        raise ValueError(
            f'length_includes must be "rest" or "frame", not {parameters["length_includes"]!r}'
        )
    if parameters["length_includes"] == "frame" and parameters["length_adjustment"]:
        raise ValueError(
            'length_includes="frame" settles the adjustment; '
            f"drop length_adjustment={parameters['length_adjustment']}"
        )

    if parameters["length_offset"] is not None:
        magic_size = len(parameters["magic"])
        offset = _check_int(parameters, "length_offset", 0, _LARGEST_OFFSET)
        if offset < magic_size:
            raise ValueError(f"length_offset={offset} lies inside the magic of {magic_size} bytes")
        if offset == magic_size:
            parameters["length_offset"] = None

    if parameters["max_message_size"] is not None:
        _check_int(parameters, "max_message_size", 0, None)

    if parameters["specials"] is not None:
        parameters["specials"] = _check_specials(parameters["specials"])


def _check_int(parameters: dict[str, Any], name: str, low: int, high: int | None) -> int:
    value = parameters[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {bounds}, not {value}")
    parameters[name] = value = int(value)  # not a subclass, whose repr could be anything
    return value


def _check_specials(specials: object) -> Mapping[int, Hashable] | None:
    if not isinstance(specials, Mapping):
        raise TypeError(f"specials must be a mapping, not {specials!r}")
    values_of: dict[Hashable, int] = {}
    for key, special in specials.items():
        if not isinstance(key, int) or isinstance(key, bool):
            raise TypeError(f"a special field value must be an int, not {key!r}")
        value = int(key)
        try:
            other = values_of.setdefault(special, value)
        except TypeError:
            raise TypeError(f"a special object must be hashable, {special!r} is not") from None
        if other != value:
            raise ValueError(f"specials: {value} and {other} both stand for {special!r}")
    plain = {value: special for special, value in values_of.items()}
    return MappingProxyType(plain) if plain else None


def _uint_layout(parameters: dict[str, Any]) -> Layout:
    width = _check_int(parameters, "width", 1, 8)
    byteorder = parameters["byteorder"]
    if byteorder not in ("big", "little", "native"):
        raise ValueError(f'byteorder must be "big", "little" or "native", not {byteorder!r}')
    if not isinstance(parameters["signed"], bool):
        raise TypeError(f"signed must be a bool, not {parameters['signed']!r}")
    if byteorder == "native":
        byteorder = sys.byteorder
    return _binary_layout(parameters, width, byteorder == "little", parameters["signed"])


def _struct_layout(parameters: dict[str, Any]) -> Layout:
    fmt = parameters["fmt"]
    if not isinstance(fmt, str):
        raise TypeError(f"fmt must be a str, not {fmt!r}")
    order, code = (fmt[0], fmt[1:]) if fmt[:1] in "@=<>!" and fmt else ("@", fmt)
    codes = "bBhHiIlLqQnN" if order == "@" else "bBhHiIlLqQ"
    if len(code) != 1 or code not in codes:
        raise ValueError(
            f'fmt must be one integer in struct notation, such as "!I" or "i", not {fmt!r}'
        )
    little = order == "<" or (order in "@=" and sys.byteorder == "little")
    return _binary_layout(parameters, struct.calcsize(fmt), little, code.islower())


def _binary_layout(parameters: dict[str, Any], width: int, little: bool, signed: bool) -> Layout:
    bits = 8 * width - signed
    return _fixed_layout(
        parameters,
        kind=UINT,
        field_width=width,
        little=little,
        signed=signed,
        field_max=2**bits - 1,
    )


def _digits_layout(parameters: dict[str, Any]) -> Layout:
    width = _check_int(parameters, "width", 1, _LARGEST_DIGITS)
    base = _check_base(parameters)
    return _fixed_layout(
        parameters,
        kind=DIGITS,
        field_width=width,
        base=base,
        field_max=min(base**width - 1, MAX_VALUE),
    )


def _fixed_layout(parameters: dict[str, Any], *, field_width: int, **more: Any) -> Layout:
    """Of a field whose width is known, so that it can count the whole frame."""
    common = _common_layout(parameters)
    if parameters["length_includes"] == "frame":
        owned = common["field_offset"] + field_width + len(common["trailer"])
        common |= {"adjustment": -owned, "counts_frame": True}
    return Layout(**common, field_width=field_width, **more)


def _varint_layout(parameters: dict[str, Any]) -> Layout:
    max_width = _check_int(parameters, "max_width", 1, 10)
    _check_includes_rest(parameters, "varint")
    return Layout(
        **_common_layout(parameters),
        kind=VARINT,
        field_width=max_width,
        field_max=min(2 ** (7 * max_width) - 1, MAX_VALUE),
    )


def _text_layout(parameters: dict[str, Any]) -> Layout:
    base = _check_base(parameters)
    end: bytes = parameters["end"]
    _check_includes_rest(parameters, "text")
    if not 1 <= len(end) <= _LARGEST_END:
        raise ValueError(f"end must have 1 to {_LARGEST_END} bytes, not {end!r}")
    if end[:1] in b"-" or end[:1] in b"0123456789abcdefABCDEF"[: 10 if base == 10 else None]:
        raise ValueError(f"end={end!r} opens with what may stand in a base {base} length")
    return Layout(**_common_layout(parameters), kind=TEXT, base=base, end=end)


def _headers_layout(parameters: dict[str, Any]) -> Layout:
    name = parameters["name"]
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"name={name!r} is no name of a header")
    max_header = _check_int(parameters, "max_header", 1, _LARGEST_HEADER)
    _check_includes_rest(parameters, "headers")
    _check_unused(parameters, "headers", ("length_offset",))
    layout = Layout(**_common_layout(parameters), kind=HEADERS, name=name, max_header=max_header)
    largest = len(f"{name}: {layout.rest_max - layout.adjustment}\r\n\r\n")
    if largest > max_header:
        raise ValueError(
            f"max_header={max_header} does not hold the {name} header of the largest message, "
            f"which has {largest} bytes"
        )
    return layout


def _custom_layout(parameters: dict[str, Any]) -> Layout:
    for name in ("parse", "build"):
        if not callable(parameters[name]):
            raise TypeError(f"{name} must be callable, not {parameters[name]!r}")
        if not isinstance(parameters[name], Hashable):
            raise TypeError(
                f"{name} must be hashable, as the codec is: {parameters[name]!r} is not"
            )
    max_header = _check_int(parameters, "max_header", 1, _LARGEST_HEADER)
    _check_includes_rest(parameters, "custom")
    _check_unused(parameters, "custom", ("length_offset", "length_adjustment", "specials"))
    return Layout(
        **_common_layout(parameters),
        kind=CUSTOM,
        max_header=max_header,
        parse=parameters["parse"],
        build=parameters["build"],
    )


def _common_layout(parameters: Mapping[str, Any]) -> dict[str, Any]:
    magic: bytes = parameters["magic"]
    offset, limit = parameters["length_offset"], parameters["max_message_size"]
    return {
        "magic": magic,
        "trailer": parameters["trailer"],
        "field_offset": len(magic) if offset is None else offset,
        "adjustment": parameters["length_adjustment"],
        "specials": parameters["specials"] or {},
        "max_message_size": NO_LIMIT if limit is None else limit,
    }


def _check_base(parameters: dict[str, Any]) -> int:
    base = _check_int(parameters, "base", -MAX_VALUE, None)
    if base not in (10, 16):
        raise ValueError(f"base must be 10 or 16, not {base}")
    return base


def _check_includes_rest(parameters: Mapping[str, Any], kind: str) -> None:
    if parameters["length_includes"] == "frame":
        raise ValueError(
            f'length_includes="frame" needs a field of known width, Codec.{kind}() has none'
        )


def _check_unused(parameters: Mapping[str, Any], kind: str, names: Iterable[str]) -> None:
    for name in names:
        if parameters[name]:
            raise ValueError(f"{name} makes no sense for Codec.{kind}()")


def _check_layout(layout: Layout, parameters: Mapping[str, Any]) -> Layout:
    """Refuses what no frame could satisfy."""
    if len(layout.magic) > _LARGEST_CONSTANT or len(layout.trailer) > _LARGEST_CONSTANT:
        raise ValueError(f"magic and trailer have at most {_LARGEST_CONSTANT} bytes each")
    if layout.specials and layout.lead_size:
        raise ValueError(
            f"specials stand alone, but length_offset={layout.field_offset} "
            f"puts a lead of {layout.lead_size} bytes in front of the field"
        )
    if layout.kind == UINT:
        field_min = -layout.field_max - 1 if layout.signed else 0
    else:
        field_min = -MAX_VALUE if layout.kind == TEXT else 0
    for value in layout.specials:
        if not field_min <= value <= layout.field_max:
            raise ValueError(
                f"special value {value} does not fit the length field, "
                f"which holds {field_min} to {layout.field_max}"
            )
    if layout.quick_range[1] < 0:
        left = "only special values" if layout.specials else "no size"
        raise ValueError(f"no message fits: {_what_limits(layout, parameters)} leave {left}")
    return layout


def _what_limits(layout: Layout, parameters: Mapping[str, Any]) -> str:
    """The parameters that settle which sizes a message may have, as they were given."""
    named = [
        f"{name}={parameters[name]!r}"
        for name in ("width", "fmt", "max_width", "length_offset", "length_adjustment")
        if parameters.get(name)
    ]
    if layout.counts_frame:
        named.append('length_includes="frame"')
        named += [
            f"a {name} of {len(parameters[name])} bytes"
            for name in ("magic", "trailer")
            if parameters[name]
        ]
    named.append(f"max_message_size={parameters['max_message_size']}")
    return f"{', '.join(named)} and a length field up to {layout.field_max}"


_LAYOUT_MAKERS: dict[str, Callable[[dict[str, Any]], Layout]] = {
    "uint": _uint_layout,
    "struct": _struct_layout,
    "digits": _digits_layout,
    "varint": _varint_layout,
    "text": _text_layout,
    "headers": _headers_layout,
    "custom": _custom_layout,
}

KINDS = tuple(_LAYOUT_MAKERS)
