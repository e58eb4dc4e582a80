"""What a frame looks like: one immutable description that serves both directions and every
connection.

A codec is made by the constructor of its length field's kind (`Codec.uint`, `Codec.digits`, ...),
which checks the whole description and settles it as the plain numbers of a `Layout`. Everything
after that is the engine's work: an `Encoder` inside the codec, a `Splitter` for each connection.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, final

from . import errors
from ._layout import Layout
from ._parameters import KINDS, make_layout
from .splitter import Encoder, Spans, Splitter, scan

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DEFAULT_MAX_MESSAGE_SIZE", "Codec"]

# Large enough for what people send by hand, small enough that a liar costs a server little.
DEFAULT_MAX_MESSAGE_SIZE = 16 * 1024 * 1024


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
        made_by = ", ".join(f"Codec.{kind}()" for kind in KINDS)
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
        layout = make_layout(kind, parameters)
        codec = object.__new__(cls)
        attributes = codec.__dict__
        attributes["kind"] = kind
        attributes["layout"] = layout
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
        from .notation import format_codec  # the room below: a notation may use its names

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
