"""The notation: a codec as one line of text, ``HEAD[,key=value]...``.

The heads::

u8 u16be u24le u32native i32be     Codec.uint: u or i for signed, bits, byte order
digits4 hex4 bcd2                  Codec.digits, base 10, 16 or "bcd"
struct:!I                          Codec.struct
varint text headers                Codec.varint, Codec.text, Codec.headers
ber4                               Codec.ber, with its max_width
fixed16                            Codec.fixed
delimiter cobs                     Codec.delimiter, Codec.cobs
postgres                           a name of the catalogue
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from ._check import CHECKSUMS, Check
from .catalogue import did_you_mean, formats
from .codec import Codec

__all__ = ["format_codec", "parse_codec"]

# --- reading --------------------------------------------------------------------------------------

_UINT = re.compile(r"([ui])([0-9]{1,3})(be|le|native)?")
_DIGITS = re.compile(r"(digits|hex|bcd)([0-9]{1,3})")
_BER = re.compile(r"ber([0-9]{1,3})")
_FIXED = re.compile(r"fixed([0-9]{1,18})")
_BASES: dict[str, Any] = {"digits": 10, "hex": 16, "bcd": "bcd"}
_DECIMAL = re.compile(r"-?[0-9]{1,1000}")  # Python itself refuses more than 4300
_ORDERS = {"be": "big", "le": "little", "native": "native"}
_UNITS = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024}

_HEADS = (
    *("u8", "u16be", "u16le", "u24be", "u24le", "u32be", "u32le", "u32native", "u64be", "u64le"),
    *("i32be", "i32le", "i32native", "digits4", "hex4", "bcd2", "struct:!I", "varint", "ber4"),
    *("text", "headers", "fixed16", "delimiter", "cobs"),
)
_POSSIBLE_HEADS = (
    "a head is u8, u16be, u24le, u32native, i32be or similar, digits4, hex4, bcd2, struct:!I, "
    "varint, ber4, text, headers, fixed16, delimiter, cobs, or the name of a format"
)


def parse_codec(text: str) -> Codec:
    """Return the codec of a notation: ``HEAD[,key=value]...``.

    ======================== ===========================================================
    head                     codec
    ======================== ===========================================================
    ``u8 u16be u24le i32be`` `Codec.uint`; ``i`` is signed; ``be``, ``le`` or ``native``
    ``digits4 hex4 bcd2``    `Codec.digits`, base 10, 16 and "bcd"
    ``struct:!I``            `Codec.struct`
    ``varint``               `Codec.varint`; key ``max_width``
    ``ber4``                 `Codec.ber`, with its ``max_width``
    ``fixed16``              `Codec.fixed`
    ``text``                 `Codec.text`; keys ``end``, ``base``, ``leading_zeros`` and
                             ``trailing_blanks`` (yes or no),
                             ``max_digits``
    ``headers``              `Codec.headers`; keys ``name``, ``names`` (with ``;`` between them),
                             ``line_end``, ``lenient``, ``start_line``, ``keep`` (yes or no; a
                             start line can also have protocols: ``SIP/2.0``), ``max_header``
    ``delimiter``            `Codec.delimiter`; keys ``end``, ``more_ends`` (``;`` between them),
                             ``skip_empty`` (yes or no)
    ``cobs``                 `Codec.cobs`
    ``kafka``, ``9p``, ...   the format of that name; keys change its parameters
    ======================== ===========================================================

    All heads take these keys, as far as the codec has the parameter: ``offset``, ``adjustment``,
    ``includes`` (rest or frame), ``unit``, ``mask``, ``wider``, ``wider_than_needed`` (invalid or
    accept), ``magic``, ``trailer``, ``constants``, ``specials``, ``check``, ``align``, ``min`` and
    ``max`` (a number of bytes, which ``KiB``, ``MiB`` or ``GiB`` may follow, or for ``max``
    ``none``). The names of the Python parameters are keys, too.

    Bytes are written as printable ASCII characters; ``%``, ``,``, ``;``, ``=``, the space and all
    other bytes as ``%`` and two hexadecimal digits: ``end=%0D%0A``. Specials are pairs of a field
    value and a Python literal, written the same way: ``specials=-1:None;0:'nothing'``. So are the
    pairs of ``wider``, ``wider=126:u16be;127:u64be``, and of ``constants``: ``constants=4:%21%12``.
    A check is the name of a function and what differs from its defaults: ``check=crc32c;little``,
    ``check=crc32;frame``, ``check=sum8;digits:3;frame;before:10%3D``.

    >>> parse_codec("u16le,offset=2,includes=frame")
    Codec.uint(2, byteorder='little', length_offset=2, length_includes='frame')
    >>> parse_codec("kafka,max=64MiB").max_message_size
    67108864

    Raises:
        ValueError: The text is not a notation, or describes an impossible codec. The error names
            the bad part and what is allowed.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {text!r}")
    head, *pairs = text.split(",")
    head = head.strip()
    try:
        make, allowed = _read_head(head)
        parameters: dict[str, Any] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(f"{pair!r} is not key=value")
            key = key.strip()
            key = _KEY_OF.get(key, key)
            if key not in allowed:
                near = did_you_mean(key, dict.fromkeys((*allowed, *_names_of(allowed))))
                hint = near or f"; {head} takes {', '.join(allowed)}"
                raise ValueError(f"unknown key {key!r}{hint}")
            parameter, read, _ = _KEYS[key]
            if parameter in parameters:
                raise ValueError(f"{key} is given twice")
            try:
                parameters[parameter] = read(value if read is _unquote else value.strip())
            except ValueError as error:
                raise ValueError(f"{pair!r}: {error}") from None
        return make(**parameters)
    except (ValueError, TypeError) as error:
        raise ValueError(f"bad codec notation {text!r}: {error}") from None


def _names_of(keys: Iterable[str]) -> list[str]:
    return [_KEYS[key][0] for key in keys]


def _read_head(head: str) -> tuple[Callable[..., Codec], tuple[str, ...]]:
    """Return the function that makes the codec from parameters, and the keys that it takes."""
    if head in formats:
        codec = formats[head]
        return codec.replace, _allowed_keys(codec.kind)
    if head == "delimiter":
        return _make_delimiter, _allowed_keys(head)
    if head in ("varint", "text", "headers", "cobs"):
        return getattr(Codec, head), _allowed_keys(head)
    if head.startswith("struct:"):
        return _with(Codec.struct, fmt=_unquote_text(head[len("struct:") :])), _allowed_keys(
            "struct"
        )
    if match := _DIGITS.fullmatch(head):
        return (
            _with(Codec.digits, width=int(match[2]), base=_BASES[match[1]]),
            _allowed_keys("digits"),
        )
    if match := _BER.fullmatch(head):
        return _with(Codec.ber, max_width=int(match[1])), _allowed_keys("ber")
    if match := _FIXED.fullmatch(head):
        return _with(Codec.fixed, size=int(match[1])), _allowed_keys("fixed")
    if match := _UINT.fullmatch(head):
        bits, order = int(match[2]), match[3]
        if bits % 8 or not 8 <= bits <= 64:
            raise ValueError(f"{head!r} has {bits} bits; a length field has 8, 16, 24, ... 64")
        if order is None and bits > 8:
            raise ValueError(f"{head!r} needs a byte order: {head}be, {head}le or {head}native")
        return (
            _with(
                Codec.uint,
                width=bits // 8,
                byteorder=_ORDERS[order or "be"],
                signed=match[1] == "i",
            ),
            _allowed_keys("uint"),
        )
    hint = did_you_mean(head, (*_HEADS, *formats))
    raise ValueError(f"unknown head {head!r}{hint or '; ' + _POSSIBLE_HEADS}")


def _make_delimiter(
    end: bytes = b"\n", more_ends: tuple[bytes, ...] = (), **parameters: Any
) -> Codec:
    return Codec.delimiter(end, *more_ends, **parameters)


def _with(make: Callable[..., Codec], **fixed: Any) -> Callable[..., Codec]:
    def made(**parameters: Any) -> Codec:
        return make(**fixed, **parameters)

    return made


def _read_int(text: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r:.40} is not a decimal number of up to 1000 digits")
    return int(text)


def _read_max(text: str) -> int | None:
    if text == "none":
        return None
    try:
        for unit, size in _UNITS.items():
            if text.endswith(unit):
                return _read_int(text[: -len(unit)].rstrip()) * size
        return _read_int(text)
    except ValueError:
        raise ValueError(
            f"{text!r:.40} is not a size; write a number of bytes, optionally with KiB, MiB or "
            "GiB, or none"
        ) from None


def _read_includes(text: str) -> str:
    if text not in ("rest", "frame"):
        raise ValueError(f"{text!r:.40} is neither rest nor frame")
    return text


def _read_mask(text: str) -> int:
    if re.fullmatch("0[xX][0-9A-Fa-f]{1,16}", text):
        return int(text, 16)
    return _read_int(text)


def _read_size(text: str) -> int:
    size = _read_max(text)
    if size is None:
        raise ValueError("none is not a size")
    return size


def _read_wider_than_needed(text: str) -> str:
    if text not in ("invalid", "accept"):
        raise ValueError(f"{text!r:.40} is neither invalid nor accept")
    return text


def _read_bool(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r:.40} is neither yes nor no")
    return text == "yes"


def _read_ends(text: str) -> tuple[bytes, ...]:
    return tuple(map(_unquote, text.split(";"))) if text else ()


def _read_pairs(text: str, what: str) -> dict[int, str]:
    pairs: dict[int, str] = {}
    for pair in text.split(";") if text else ():
        key_text, colon, value = pair.partition(":")
        if not colon:
            raise ValueError(f"{pair!r} is not {what}")
        key = _read_int(key_text.strip())
        if key in pairs:
            raise ValueError(f"{key} is given twice")
        pairs[key] = value.strip()
    return pairs


def _read_wider(text: str) -> dict[int, str]:
    return _read_pairs(text, "value:field")


def _read_constants(text: str) -> dict[int, bytes]:
    return {offset: _unquote(value) for offset, value in _read_pairs(text, "offset:bytes").items()}


def _read_specials(text: str) -> dict[int, Hashable]:
    return {
        value: _read_literal(_unquote_text(literal))
        for value, literal in _read_pairs(text, "value:object").items()
    }


def _read_literal(text: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escape sequences in the text
            value = ast.literal_eval(text)
            ast.literal_eval(repr(value))  # 1e999 is a literal, but its repr, inf, is not
            return value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            f"{text!r} is not a Python literal; put text into quotes: 'text'"
        ) from None


_CHECK_FLAGS = {
    **{covers: ("covers", covers) for covers in ("message", "rest", "body", "frame")},
    **{order: ("byteorder", order) for order in ("big", "little", "native")},
    **{position: ("position", position) for position in ("front", "end")},
}


def _read_check(text: str) -> Check:
    """Read ``crc32;frame;little``: a function's name, then what differs from a plain check."""
    function, *options = text.split(";")
    parameters: dict[str, Any] = {}
    if function not in CHECKSUMS:
        raise ValueError(f"{function!r:.40} is not one of {', '.join(CHECKSUMS)}")
    width = CHECKSUMS[function].bits // 8
    for option in options:
        option = option.strip()
        name, colon, value = option.partition(":")
        if name == "before" and colon:
            pair: tuple[str, Any] = ("before", _unquote(value))
        elif name == "digits" and colon:
            pair, width = ("digits", True), _read_int(value)
        elif option in _CHECK_FLAGS:
            pair = _CHECK_FLAGS[option]
        else:
            raise ValueError(
                f"{option!r:.40} is not {', '.join(_CHECK_FLAGS)}, before:BYTES or digits:NUMBER"
            )
        if pair[0] in parameters:
            raise ValueError(f"{pair[0]} is given twice")
        parameters[pair[0]] = pair[1]
    return Check(function, width, **parameters)


def _unquote(text: str) -> bytes:
    data = bytearray()
    pos = 0
    while pos < len(text):
        char = text[pos]
        if char == "%":
            digits = text[pos + 1 : pos + 3]
            if not re.fullmatch("[0-9A-Fa-f]{2}", digits):
                raise ValueError(
                    f"{text[pos : pos + 3]!r} is not % with two hexadecimal digits; "
                    "write % itself as %25"
                )
            data.append(int(digits, 16))
            pos += 3
        elif "!" <= char <= "~":
            data.append(ord(char))
            pos += 1
        elif char == " ":
            raise ValueError("a space is not allowed in bytes; write it as %20")
        else:
            raise ValueError(
                f"{char!r} is not printable ASCII; write each of its bytes as % with two "
                "hexadecimal digits"
            )
    return bytes(data)


def _unquote_text(text: str) -> str:
    try:
        return _unquote(text).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{text!r} is not UTF-8") from None


# --- writing --------------------------------------------------------------------------------------


def format_codec(codec: Codec[Any]) -> str:
    """Return the notation of a codec: ``parse_codec(format_codec(codec)) == codec``.

    The notation cannot express functions, escapes, nor special objects that are not literals. A
    codec that has them is written as the name of the format with the same ones and the parameters
    that differ: ``zmtp,max=1KiB``. A codec with objects has its ``repr``.

    Returns:
        The notation; the codec's ``repr`` if there is no notation for it.
    """
    if codec._objects is not None:
        return repr(codec)
    head = _head_of(codec)
    if head is not None and not codec.parameters.get("escape"):
        text = _write(codec, head, _defaults(codec))
        if text is not None:
            return text
    named = [
        text
        for row in formats.table()
        if row.codec.kind == codec.kind and _equal_without_keys(codec, row.codec)
        if (text := _write(codec, row.name, row.codec.parameters)) is not None
    ]
    return min(named, key=lambda text: text.count(","), default=repr(codec))


def _head_of(codec: Codec[Any]) -> str | None:
    parameters = codec.parameters
    if codec.kind == "uint":
        letter = "i" if parameters["signed"] else "u"
        order = {order: suffix for suffix, order in _ORDERS.items()}[parameters["byteorder"]]
        suffix = "" if parameters["width"] == 1 and order == "be" else order
        return f"{letter}{8 * parameters['width']}{suffix}"
    if codec.kind == "struct":
        return f"struct:{parameters['fmt']}"
    if codec.kind == "digits":
        name = {base: name for name, base in _BASES.items()}[parameters["base"]]
        return f"{name}{parameters['width']}"
    if codec.kind == "ber":
        return f"ber{parameters['max_width']}"
    if codec.kind == "fixed":
        return f"fixed{parameters['size']}"
    return None if codec.kind in ("custom", "choice", "joined") else codec.kind


def _write(codec: Codec[Any], head: str, base: Mapping[str, Any]) -> str | None:
    """Return the head and the keys that differ from `base`; None if a value cannot be written."""
    parts = [head]
    for key in _allowed_keys(codec.kind):
        parameter, _, write = _KEYS[key]
        value = codec.parameters[parameter]
        if value == base[parameter]:
            continue
        if parameter == "length_offset" and value is None:
            value = len(codec.parameters["magic"])
        written = write(value)
        if written is None:
            return None
        parts.append(f"{key}={written}")
    return ",".join(parts)


def _defaults(codec: Codec[Any]) -> Mapping[str, Any]:
    """Return the parameters of the codec that a head without keys describes."""
    if codec.kind == "struct":
        return Codec.struct("B").parameters
    if codec.kind == "digits":
        return Codec.digits(1).parameters
    if codec.kind == "fixed":
        return Codec.fixed(1).parameters
    default: Codec[Any] = getattr(Codec, codec.kind)()
    return default.parameters


def _equal_without_keys(codec: Codec[Any], other: Codec[Any]) -> bool:
    """Return whether two codecs are equal in the parameters that the notation has no key for."""
    with_key = _names_of(_allowed_keys(codec.kind))
    return all(
        value == other.parameters[name]
        for name, value in codec.parameters.items()
        if name not in with_key
    )


def _write_max(size: int | None) -> str:
    if size is None:
        return "none"
    for unit, unit_size in _UNITS.items():
        if size and not size % unit_size and (size < 1024 * unit_size or unit == "GiB"):
            return f"{size // unit_size}{unit}"
    return str(size)


def _write_wider(wider: Mapping[int, str] | None) -> str:
    return ";".join(f"{key}:{field}" for key, field in (wider or {}).items())


def _write_ends(ends: tuple[bytes, ...]) -> str:
    return ";".join(map(_quote, ends))


def _write_constants(constants: Mapping[int, bytes] | None) -> str:
    return ";".join(f"{offset}:{_quote(value)}" for offset, value in (constants or {}).items())


def _write_specials(specials: Mapping[int, Hashable] | None) -> str | None:
    pairs = []
    for value, special in sorted((specials or {}).items()):
        try:
            shown = repr(special)
            if ast.literal_eval(shown) != special:
                return None
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
        pairs.append(f"{value}:{_quote(shown.encode())}")
    return ";".join(pairs)


def _write_check(check: Check | None) -> str | None:
    if check is None or not isinstance(check.function, str):
        return None
    parts: list[str] = [check.function]
    if check.digits:
        parts.append(f"digits:{check.width}")
    parts += [check.byteorder] if check.byteorder != "big" else []
    parts += [check.covers] if check.covers != "message" else []
    parts += [check.position] if check.position != "end" else []
    parts += [f"before:{_quote(check.before)}"] if check.before else []
    return ";".join(parts)


def _quote(data: bytes) -> str:
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and byte not in b"%,;=" else f"%{byte:02X}"
        for byte in data
    )


def _quote_text(text: str) -> str:
    return _quote(text.encode())


def _read_names(text: str) -> tuple[str, ...]:
    return tuple(_unquote_text(name) for name in text.split(";")) if text else ()


def _write_names(names: tuple[str, ...]) -> str:
    return ";".join(map(_quote_text, names))


def _write_bool(value: bool) -> str:
    return "yes" if value else "no"


def _read_start_line(text: str) -> bool | tuple[bytes, ...]:
    return tuple(map(_unquote, text.split(";"))) if "/" in text else _read_bool(text)


def _write_start_line(value: bool | tuple[bytes, ...]) -> str:
    return _write_bool(value) if isinstance(value, bool) else ";".join(map(_quote, value))


# key -> parameter, function that reads a value, function that writes it (None: it cannot).
_KEYS: dict[str, tuple[str, Callable[[str], Any], Callable[[Any], str | None]]] = {
    "max_width": ("max_width", _read_int, str),
    "end": ("end", _unquote, _quote),
    "more_ends": ("more_ends", _read_ends, _write_ends),
    "skip_empty": ("skip_empty", _read_bool, lambda value: "yes" if value else "no"),
    "base": ("base", _read_int, str),
    "leading_zeros": ("leading_zeros", _read_bool, _write_bool),
    "trailing_blanks": ("trailing_blanks", _read_bool, _write_bool),
    "max_digits": ("max_digits", _read_int, str),
    "name": ("name", _unquote_text, _quote_text),
    "names": ("names", _read_names, _write_names),
    "line_end": ("line_end", _unquote, _quote),
    "lenient": ("lenient", _read_bool, _write_bool),
    "start_line": ("start_line", _read_start_line, _write_start_line),
    "keep": ("keep", _read_bool, _write_bool),
    "max_header": ("max_header", _read_int, str),
    "offset": ("length_offset", _read_int, str),
    "adjustment": ("length_adjustment", _read_int, str),
    "includes": ("length_includes", _read_includes, str),
    "unit": ("length_unit", _read_int, str),
    "mask": ("length_mask", _read_mask, lambda mask: None if mask is None else f"{mask:#x}"),
    "wider": ("wider", _read_wider, _write_wider),
    "wider_than_needed": ("wider_than_needed", _read_wider_than_needed, str),
    "magic": ("magic", _unquote, _quote),
    "trailer": ("trailer", _unquote, _quote),
    "constants": ("constants", _read_constants, _write_constants),
    "specials": ("specials", _read_specials, _write_specials),
    "check": ("check", _read_check, _write_check),
    "align": ("align", _read_int, str),
    "min": ("min_message_size", _read_size, _write_max),
    "max": ("max_message_size", _read_max, _write_max),
}

_KEY_OF = {parameter: key for key, (parameter, _, _) in _KEYS.items()}

_FIXED_WIDTH_KEYS = ("offset", "adjustment", "includes", "magic", "trailer", "specials", "max")
_VARYING_KEYS = ("offset", "adjustment", "magic", "trailer", "specials", "max")
_MORE_KEYS = ("unit", "constants", "check", "align", "min")
_BINARY_KEYS = (*_FIXED_WIDTH_KEYS, "mask", "wider", "wider_than_needed", *_MORE_KEYS)
_ALLOWED_KEYS = {
    "uint": _BINARY_KEYS,
    "struct": _BINARY_KEYS,
    "digits": (*_FIXED_WIDTH_KEYS, *_MORE_KEYS),
    "varint": ("max_width", *_VARYING_KEYS, *_MORE_KEYS),
    "ber": (*_VARYING_KEYS, *_MORE_KEYS),
    "text": (
        "end",
        "base",
        *_VARYING_KEYS,
        "leading_zeros",
        "trailing_blanks",
        "max_digits",
        *_MORE_KEYS,
    ),
    "headers": (
        *("name", "names", "line_end", "lenient", "start_line", "keep"),
        *("max_header", "adjustment", "magic", "trailer", "specials", "max"),
        *("unit", "check", "align", "min"),
    ),
    "fixed": ("magic", "trailer", "max", "constants", "check", "align", "min"),
    "custom": ("max_header", "magic", "trailer", "max", "check", "align", "min"),
    "delimiter": ("end", "more_ends", "skip_empty", "magic", "max", "check", "min"),
    "cobs": ("magic", "max", "check", "min"),
    "choice": ("max",),
    "joined": ("max",),
}


def _allowed_keys(kind: str) -> tuple[str, ...]:
    return _ALLOWED_KEYS[kind]
