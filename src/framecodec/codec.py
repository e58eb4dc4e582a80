"""What a frame looks like: one immutable description that serves both directions and every
connection.

A codec is made by the constructor of its length field's kind (`Codec.uint`, `Codec.digits`, ...),
which checks the whole description and settles it as the plain numbers of a `Layout`. Everything
after that is the engine's work: an `Encoder` inside the codec, a `Splitter` for each connection.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, final

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
from .splitter import Encoder, Spans, Splitter, scan

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DEFAULT_MAX_MESSAGE_SIZE", "Codec"]

# Large enough for what people send by hand, small enough that a liar costs a server little.
DEFAULT_MAX_MESSAGE_SIZE = 16 * 1024 * 1024

# Bounds on a description, far beyond any protocol: a header stays small enough to be gathered.
_LARGEST_OFFSET = 64 * 1024
_LARGEST_CONSTANT = 1024
_LARGEST_DIGITS = 64
_LARGEST_END = 16
_LARGEST_HEADER = 1024 * 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@final
class Codec:
    """The shape of a length-prefixed frame::

        frame:  [ magic ][ lead ][ length field ][ rest ][ trailer ]
        message:         [ lead ]                [ rest ]

    A message is its frame without the parts that the codec owns: magic, length field and trailer.
    So ``decode(encode(m)) == m`` for every shape.

    Made by one of the constructors `uint`, `struct`, `digits`, `varint`, `text`, `headers`,
    `custom`. All of them take these keyword parameters:

    Args:
        length_offset: Where the length field starts, in bytes from the frame's first one. What
            stands between the magic and the field is the lead. Default: right behind the magic.
        length_adjustment: The rest has the field's value plus this many bytes.
        length_includes: What the field counts: ``"rest"``, or ``"frame"`` for the whole frame,
            itself, magic and trailer included (then there is no adjustment).
        magic: Constant bytes that open every frame, written and verified.
        trailer: Constant bytes that close every frame, written and verified.
        specials: A mapping from field values to hashable objects. Such a value stands alone, with
            no rest and no trailer; it is delivered as, and encoded from, its object.
        max_message_size: The largest message, in bytes, both ways; None takes the limit off.

    Raises:
        ValueError, TypeError: The description is contradictory or cannot be represented. Raised
            when the codec is made, never when it is used.
    """

    kind: str
    """The name of the constructor that makes it."""

    parameters: Mapping[str, Any]
    """Every parameter of that constructor, with its value."""

    layout: Layout
    """The description as plain numbers, for the engines."""

    _encoder: Encoder

    def __init__(self, *_: object, **__: object) -> None:
        made_by = ", ".join(f"Codec.{kind}()" for kind in _LAYOUT_MAKERS)
        raise TypeError(f"a codec is made by the constructor of its length field: {made_by}")

    # --- constructors, by kind of length field ----------------------------------------------------

    @classmethod
    def uint(
        cls,
        width: int = 4,
        byteorder: Literal["big", "little", "native"] = "big",
        *,
        signed: bool = False,
        length_offset: int | None = None,
        length_adjustment: int = 0,
        length_includes: Literal["rest", "frame"] = "rest",
        magic: bytes = b"",
        trailer: bytes = b"",
        specials: Mapping[int, Hashable] | None = None,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
    ) -> Codec:
        """A binary length of fixed width.

        Args:
            width: Of the field, 1 to 8 bytes.
            byteorder: "big", "little", or "native" for this machine's.
            signed: The field is two's complement; a negative length is an error.

        The other parameters are described at `Codec`.
        """
        return cls._make("uint", locals())

    @classmethod
    def struct(
        cls,
        fmt: str,
        *,
        length_offset: int | None = None,
        length_adjustment: int = 0,
        length_includes: Literal["rest", "frame"] = "rest",
        magic: bytes = b"",
        trailer: bytes = b"",
        specials: Mapping[int, Hashable] | None = None,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
    ) -> Codec:
        """A binary length in the notation of the `struct` module.

        Args:
            fmt: One integer, with or without a byte order: ``"i"``, ``"!I"``, ``"<H"``, ``"q"``.
                Native size and order where `struct` has them. A negative length is an error.

        The other parameters are described at `Codec`.
        """
        return cls._make("struct", locals())

    @classmethod
    def digits(
        cls,
        width: int,
        *,
        base: Literal[10, 16] = 10,
        length_offset: int | None = None,
        length_adjustment: int = 0,
        length_includes: Literal["rest", "frame"] = "rest",
        magic: bytes = b"",
        trailer: bytes = b"",
        specials: Mapping[int, Hashable] | None = None,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
    ) -> Codec:
        """Exactly `width` ASCII digits, padded with zeros: ``str(n).zfill(4)``.

        Args:
            width: Of the field, in digits.
            base: 10 or 16; hexadecimal is written in lower case and read in both.

        The other parameters are described at `Codec`.
        """
        return cls._make("digits", locals())

    @classmethod
    def varint(
        cls,
        *,
        max_width: int = 5,
        length_offset: int | None = None,
        length_adjustment: int = 0,
        length_includes: Literal["rest", "frame"] = "rest",
        magic: bytes = b"",
        trailer: bytes = b"",
        specials: Mapping[int, Hashable] | None = None,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
    ) -> Codec:
        """An unsigned LEB128 length, as protobuf and MQTT write it; only its shortest form is read.

        Args:
            max_width: The longest form, 1 to 10 bytes.

        The other parameters are described at `Codec`.
        """
        return cls._make("varint", locals())

    @classmethod
    def text(
        cls,
        end: bytes = b":",
        *,
        base: Literal[10, 16] = 10,
        length_offset: int | None = None,
        length_adjustment: int = 0,
        length_includes: Literal["rest", "frame"] = "rest",
        magic: bytes = b"",
        trailer: bytes = b"",
        specials: Mapping[int, Hashable] | None = None,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
    ) -> Codec:
        """ASCII digits without leading zeros, up to an end mark, as in netstrings.

        Args:
            end: The end mark.
            base: 10 or 16; hexadecimal is written in lower case and read in both.

        The other parameters are described at `Codec`. A special value may be negative:
        ``{-1: None}`` reads and writes ``-1``.
        """
        return cls._make("text", locals())

    @classmethod
    def headers(
        cls,
        name: str = "Content-Length",
        *,
        max_header: int = 8192,
        length_offset: int | None = None,
        length_adjustment: int = 0,
        length_includes: Literal["rest", "frame"] = "rest",
        magic: bytes = b"",
        trailer: bytes = b"",
        specials: Mapping[int, Hashable] | None = None,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
    ) -> Codec:
        """A block of ``Name: value\\r\\n`` lines ended by an empty line (LSP, DAP, JSON-RPC).

        Names are read in any case and other headers are ignored; a missing or second one of the
        name is an error.

        Args:
            name: The header that holds the length, in decimal digits.
            max_header: The largest block, in bytes.

        The other parameters are described at `Codec`; there is no lead.
        """
        return cls._make("headers", locals())

    @classmethod
    def custom(
        cls,
        parse: Callable[[memoryview], Any],
        build: Callable[[memoryview], Any],
        *,
        max_header: int = 64,
        length_offset: int | None = None,
        length_adjustment: int = 0,
        length_includes: Literal["rest", "frame"] = "rest",
        magic: bytes = b"",
        trailer: bytes = b"",
        specials: Mapping[int, Hashable] | None = None,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
    ) -> Codec:
        """Any other shape, by two functions.

        Args:
            parse: Is shown the first bytes of a frame, behind the magic, and returns None where it
                wants more of them, else ``(header_size, rest_size)`` or ``(header_size, rest_size,
                lead)``, sizes in bytes; the message is lead and rest. It sees a frame's first bytes
                again as more arrive, so it must not depend on anything else. What it raises
                becomes an `InvalidFrameError`.
            build: Is shown a message and returns the header, without the magic, or ``(header, n)``
                where the header carries the message's first n bytes already.
            max_header: The longest header, in bytes, the magic not counted.

        Of the other parameters, described at `Codec`, only magic, trailer and max_message_size make
        sense here. A codec pickles if its functions do.
        """
        return cls._make("custom", locals())

    @classmethod
    def _make(cls, kind: str, parameters: dict[str, Any]) -> Codec:
        parameters = {name: value for name, value in parameters.items() if name != "cls"}
        _normalize(parameters)
        codec = object.__new__(cls)
        attributes = codec.__dict__
        attributes["kind"] = kind
        attributes["layout"] = _check_layout(_LAYOUT_MAKERS[kind](parameters), parameters)
        attributes["parameters"] = MappingProxyType(parameters)
        attributes["_encoder"] = encoder = Encoder(codec)
        # The engine's own methods stand in for the ones below: a call costs no frame of Python.
        attributes["encode"] = encoder.encode
        attributes["encode_many"] = encoder.encode_many
        attributes["frame_parts"] = encoder.frame_parts
        return codec

    def replace(self, **changes: Any) -> Codec:
        """A copy with some parameters changed.

        Raises:
            TypeError: The constructor has no such parameter.
            ValueError, TypeError: As for the constructor.
        """
        unknown = sorted(set(changes) - set(self.parameters))
        if unknown:
            raise TypeError(
                f"Codec.{self.kind}() has no parameter {', '.join(unknown)}; "
                f"it has {', '.join(self.parameters)}"
            )
        return self._make(self.kind, {**self.parameters, **changes})

    # --- what it does -----------------------------------------------------------------------------

    def encode(self, message: object, /) -> bytes:
        """One frame.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            MessageTooLargeError: The message is larger than ``max_message_size`` or than the length
                field can say.
            InvalidFrameError: The message is shorter than its lead, or its length cannot be said.
            TypeError, BufferError: `message` is not a contiguous bytes-like object.
        """
        return self._encoder.encode(message)

    def encode_many(self, messages: Iterable[object], /) -> bytes:
        """The frames of an iterable of messages, one after the other, in one allocation.

        Raises:
            As `encode`; then no frame is returned at all.
        """
        return self._encoder.encode_many(messages)

    def frame_parts(self, message: object, /) -> list[Buffer]:
        """Buffers whose concatenation is the frame, for ``sendmsg`` or ``writelines``.

        The message is not copied and none of the buffers is empty.

        Raises:
            As `encode`.
        """
        return self._encoder.frame_parts(message)

    def decode(self, frame: Buffer, /) -> Any:
        """The message of exactly one whole frame.

        Args:
            frame: A contiguous bytes-like object.

        Raises:
            InvalidFrameError: It is no frame, or there are bytes behind it.
            IncompleteFrameError: The frame is cut off.
            MessageTooLargeError: The message is larger than the codec allows.
            TypeError, BufferError: `frame` is not a contiguous bytes-like object.
        """
        splitter = Splitter(self)
        messages = splitter.feed(frame)
        if len(messages) == 1 and not splitter.pending:
            return messages[0]
        if not messages:
            splitter.feed_eof()
            raise errors.incomplete("header", 0, None, 0, b"")
        raw = Splitter(self, raw=True).feed(frame)[0]
        raise errors.bytes_behind(memoryview(frame).nbytes - len(raw), self._header_of(raw))

    def _header_of(self, raw: bytes) -> bytes:
        """The header of a whole frame as it travelled: what is there when its last byte is not."""
        splitter = Splitter(self)
        splitter.feed(raw[:-1])
        try:
            splitter.feed_eof()
        except errors.IncompleteFrameError as error:
            if error.where != "header":
                return error.header
        return raw

    def split(self, data: Buffer, /) -> tuple[list[Any], int]:
        """Every whole frame at the front of a buffer.

        Args:
            data: A contiguous bytes-like object.

        Returns:
            The messages, and how many bytes their frames have. Bytes of an unfinished or a bad
            frame are left to the caller.

        Raises:
            FrameError: The first frame is bad.
            TypeError, BufferError: `data` is not a contiguous bytes-like object.
        """
        splitter = Splitter(self)
        messages = splitter.feed(data)
        error = splitter.error
        if error is not None and not isinstance(error, errors.FrameError):
            raise error  # an interruption, or no memory: the caller still has the bytes
        return messages, splitter.stream_offset

    def scan(self, data: Buffer, /, *, raw: bool = False) -> Spans:
        """Every whole frame at the front of a buffer, without making a message.

        Args:
            data: A contiguous bytes-like object; the result keeps a view of it.
            raw: Span whole frames instead of messages. A codec with a lead allows nothing else: its
                messages are not in one piece.

        Returns:
            A sequence of `memoryview` objects made on demand. It exports an ``(n, 2)`` int64 buffer
            of (start, stop), so that ``numpy.asarray(spans)`` copies nothing; its ``consumed`` is
            how many bytes the frames have.

        Raises:
            FrameError: The first frame is bad.
            ValueError: `raw` is False, and the codec has a lead or a frame is a special, which is
                no bytes.
            TypeError, BufferError: `data` is not a contiguous bytes-like object.
        """
        return scan(self, data, raw=raw)

    def splitter(
        self, *, raw: bool = False, on_oversize: Literal["raise", "skip"] = "raise"
    ) -> Splitter:
        """A new connection's receiving state; see `Splitter`."""
        return Splitter(self, raw=raw, on_oversize=on_oversize)

    # --- as a value -------------------------------------------------------------------------------

    @property
    def max_message_size(self) -> int | None:
        """The largest message, in bytes, that the description allows; None for no limit."""
        size: int | None = self.parameters["max_message_size"]
        return size

    def _key(self) -> tuple[Any, ...]:
        values = dict(self.parameters)
        specials = values.pop("specials")
        return (self.kind, *values.values(), specials and frozenset(specials.items()))

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Codec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        import inspect  # here, because it would be the largest part of importing the package

        arguments = []
        for parameter in inspect.signature(getattr(Codec, self.kind)).parameters.values():
            value = self.parameters[parameter.name]
            shown = getattr(value, "__qualname__", None) or repr(value)
            if parameter.name == "specials" and value is not None:
                shown = repr(dict(value))
            if parameter.name == "width" or parameter.default is parameter.empty:
                arguments.append(shown)
            elif value != parameter.default:
                arguments.append(f"{parameter.name}={shown}")
        return f"Codec.{self.kind}({', '.join(arguments)})"

    def __str__(self) -> str:
        """The notation that `parse_codec` reads."""
        from .formats import format_codec  # the room below: a notation may use its names

        return format_codec(self)

    def __reduce__(self) -> tuple[Any, ...]:
        parameters = dict(self.parameters)
        if parameters["specials"] is not None:
            parameters["specials"] = dict(parameters["specials"])
        return _unpickle, (self.kind, parameters)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a codec is frozen; use replace({name}=...) for a changed copy")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a codec is frozen")


def _unpickle(kind: str, parameters: dict[str, Any]) -> Codec:
    return Codec._make(kind, parameters)


# --- from a description to its layout -------------------------------------------------------------


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
