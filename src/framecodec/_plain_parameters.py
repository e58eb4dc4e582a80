"""Parameters of a codec as plain values, so that equal descriptions have equal parameters."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ._bytes_like import view_bytes

__all__ = [
    "LARGEST_CONSTANT",
    "LARGEST_OFFSET",
    "WIDE_FIELD",
    "check_bool",
    "check_bytes",
    "check_constants",
    "check_header_name",
    "check_header_names",
    "check_int",
    "check_specials",
    "check_start_line",
    "check_wider",
]

LARGEST_OFFSET = 64 * 1024
LARGEST_CONSTANT = 1024
MOST_CONSTANTS = 16
MOST_WIDE_FIELDS = 8
_MOST_NAMES = 7
_MOST_PROTOCOLS = 4

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PROTOCOL = re.compile(rb"[!-.0-~]+/[!-~]+")


def check_bytes(name: str, value: Any) -> bytes:
    if isinstance(value, int):  # bytes(5) would be five zeros
        raise TypeError(f"{name} must be bytes, not {value!r}")
    try:
        return bytes(view_bytes(value))
    except TypeError:
        raise TypeError(f"{name} must be bytes, not {value!r}") from None


def check_int(parameters: dict[str, Any], name: str, low: int, high: int | None) -> int:
    value = parameters[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {bounds}, not {value}")
    parameters[name] = value = int(value)  # not a subclass, which could have any repr
    return value


def check_bool(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {value!r}")
    return value


def check_specials(specials: object) -> Mapping[int, Hashable] | None:
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
            raise ValueError(f"specials: {value} and {other} both mean {special!r}")
    plain = {value: special for special, value in values_of.items()}
    return MappingProxyType(plain) if plain else None


def check_constants(constants: object) -> Mapping[int, bytes] | None:
    if not isinstance(constants, Mapping):
        raise TypeError(f"constants must be a mapping, not {constants!r}")
    plain: dict[int, bytes] = {}
    for key, value in constants.items():
        offset = check_int({"a constant's offset": key}, "a constant's offset", 0, LARGEST_OFFSET)
        plain[offset] = check_bytes("a constant", value)
        if not 1 <= len(plain[offset]) <= LARGEST_CONSTANT:
            raise ValueError(
                f"a constant must have 1 to {LARGEST_CONSTANT} bytes, not {len(plain[offset])}"
            )
    if len(plain) > MOST_CONSTANTS:
        raise ValueError(f"constants can have {MOST_CONSTANTS} items, not {len(plain)}")
    return MappingProxyType(dict(sorted(plain.items()))) if plain else None


WIDE_FIELD = re.compile(r"u(8|16|24|32|40|48|56|64)(be|le|native)?")


def check_wider(wider: object) -> Mapping[int, str] | None:
    if not isinstance(wider, Mapping):
        raise TypeError(f"wider must be a mapping, not {wider!r}")
    plain: dict[int, str] = {}
    for key, value in wider.items():
        if not isinstance(key, int) or isinstance(key, bool):
            raise TypeError(f"a field value in wider must be an int, not {key!r}")
        if not isinstance(value, str):
            raise TypeError(f"a field in wider must be a str, not {value!r}")
        match = WIDE_FIELD.fullmatch(value)
        if not match or (match[2] is None and match[1] != "8"):
            raise ValueError(
                f"a field in wider must be u8, u16be, u32le, u64native or similar, not {value!r}"
            )
        plain[int(key)] = str(value)
    if len(plain) > MOST_WIDE_FIELDS:
        raise ValueError(f"wider can have {MOST_WIDE_FIELDS} items, not {len(plain)}")
    return MappingProxyType(plain) if plain else None


def check_header_name(what: str, name: object, shown: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {name!r}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(
            f"{shown.format(name)} is not a header name; "
            "it can contain ASCII letters, digits and !#$%&'*+.^_`|~-"
        )
    return name


def check_header_names(parameters: dict[str, Any]) -> tuple[str, ...]:
    """Return the further names of the header, without the one that is written."""
    names = parameters["names"]
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"names must be a tuple of str, not {names!r}")
    plain: list[str] = []
    for name in names:
        name = check_header_name("a name in names", name, "{!r} in names")
        if name.lower() not in (parameters["name"].lower(), *map(str.lower, plain)):
            plain.append(str(name))
    if len(plain) > _MOST_NAMES:
        raise ValueError(f"names can have {_MOST_NAMES} items, not {len(plain)}")
    parameters["names"] = tuple(plain)
    return tuple(plain)


def check_start_line(parameters: dict[str, Any]) -> tuple[bool, tuple[bytes, ...]]:
    """Return whether there is a start line, and the protocols that it begins or ends with."""
    value = parameters["start_line"]
    if isinstance(value, bool):
        return value, ()
    if not isinstance(value, tuple | list):
        value = (value,)
    protocols: list[bytes] = []
    for item in value:
        try:
            protocol = check_bytes("start_line", item)
        except TypeError:
            raise TypeError(
                "start_line must be a bool, or bytes or a tuple of bytes (b'SIP/2.0'), not "
                f"{item!r}"
            ) from None
        if not _PROTOCOL.fullmatch(protocol):
            raise ValueError(
                f"{protocol!r} in start_line is not a protocol and a version without blanks, "
                "such as b'SIP/2.0'"
            )
        if protocol not in protocols:
            protocols.append(protocol)
    if not 1 <= len(protocols) <= _MOST_PROTOCOLS:
        raise ValueError(
            f"start_line can have 1 to {_MOST_PROTOCOLS} protocols, not {len(protocols)}"
        )
    parameters["start_line"] = tuple(protocols)
    return True, tuple(protocols)
