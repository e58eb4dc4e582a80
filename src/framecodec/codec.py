"""A codec: the immutable description of a frame, for both directions and all connections.

A codec is made by the constructor of its length field's kind (`Codec.uint`, `Codec.digits`, ...).
The constructor checks the whole description and turns it into the plain numbers of a `Layout`.
After that an engine does the work: the codec has one `Encoder`, each connection has a `Splitter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack, final, overload

from . import errors
from ._any_parameters import AnyParameters
from ._files import write_messages
from ._joined_constructors import JoinedConstructors
from ._layout import Layout, not_a_codec
from ._mark_constructors import MarkedConstructors
from ._message_types import MessageT, SpecialT
from ._objects import ObjectConstructors, ObjectFunctions
from ._one_frame import is_longer, not_one_frame
from ._parameters import (
    COMMON_DEFAULTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    KINDS,
    CommonParameters,
    make_layout,
)
from ._splitting import Splitting
from ._text_constructors import TextConstructors
from .splitter import Encoder, Spans, Splitter, scan

if TYPE_CHECKING:
    from typing import Never

    from typing_extensions import Buffer

__all__ = ["DEFAULT_CODEC", "DEFAULT_MAX_MESSAGE_SIZE", "Codec", "check_codec"]


class _Frozen:
    """An object that only the constructors of its kinds make, and that never changes."""

    if TYPE_CHECKING:  # type checkers refuse every call

        def __init__(self, call_a_constructor: Never, /) -> None: ...

    else:

        def __init__(self, *_: object, **__: object) -> None:
            constructors = ", ".join(f"Codec.{kind}()" for kind in KINDS)
            raise TypeError(
                f"Codec() makes no codec; call the constructor of its length field: {constructors}"
            )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a codec is frozen; use replace({name}=...) for a changed copy")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a codec is frozen; its {name} cannot be deleted")


@final
class Codec(
    _Frozen,
    TextConstructors,
    MarkedConstructors,
    JoinedConstructors,
    ObjectConstructors,
    Splitting[MessageT],
):
    """The shape of a frame.

    A message is its frame without the codec's parts: magic, length field, check and trailer::

        frame:  [ magic ][ lead ][ length field ][ rest ][ check ][ trailer ]
        message:         [ lead ]                [ rest ]

    So ``decode(encode(m)) == m`` for every shape.

    Make one with a constructor: `uint`, `struct`, `digits`, `varint`, `ber`, `text`, `headers`,
    `fixed`, `delimiter`, `cobs`, `choice`, `joined`, `custom`. They take, where it has a meaning:

    Args:
        length_offset: Where the length field starts, in bytes from the frame's first byte. The
            bytes between the magic and the field are the lead. Default: directly after the magic.
        length_adjustment: The rest has the field's value times `length_unit` plus this many bytes.
        length_includes: What the field counts: ``"rest"``, or ``"frame"`` for the whole frame with
            length field, magic, check and trailer (then `length_adjustment` must be 0).
        length_unit: The field counts units of this many bytes. A message of another size than a
            multiple cannot be encoded.
        length_mask: For `uint` and `struct`: the bits of the field that hold the length. A byte of
            the field with other bits is also part of the message, at the end of the lead, with the
            bits of the length 0.
        wider: For `uint` and `struct`: a mapping from field values to fields (``"u16be"``) that
            follow directly and hold the length instead. `encode` takes the shortest form.
        wider_than_needed: ``"invalid"``, or ``"accept"`` to read a longer form than the shortest.
        magic, trailer: Constant bytes that begin and end every frame. Written and verified.
        constants: A mapping from frame offsets to bytes that every frame has there, in the lead or
            at the start of the rest. They are part of the message; others are invalid.
        specials: A mapping from field values to hashable objects. A frame with such a value has no
            rest, no check and no trailer; its message is the object.
        check: A checksum, after the rest or before it: a `Check`. Written and verified.
        align: Zero bytes, not verified, follow a frame until its size is a multiple of this many.
        min_message_size, max_message_size: In bytes, in both directions; None for no upper limit.

    Raises:
        ValueError, TypeError: The description contradicts itself or cannot be represented. The
            constructor raises this; using the codec does not.
    """

    kind: str
    """The name of the constructor."""

    parameters: Mapping[str, Any]
    """All parameters of the constructor with their values."""

    layout: Layout
    """The description as plain numbers, for the engines."""

    _encoder: Encoder

    # --- constructors, one for each kind of length field ------------------------------------------

    @classmethod
    def uint(
        cls,
        width: int = 4,
        byteorder: Literal["big", "little", "native"] = "big",
        *,
        signed: bool = False,
        specials: Mapping[int, SpecialT] | None = None,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes | SpecialT]:
        """Return a codec whose length is a binary number of fixed width.

        Args:
            width: Bytes of the field, 1 to 8.
            byteorder: "big", "little", or "native" for the order of this machine.
            signed: The field is two's complement. A negative length is invalid.
            specials: See `Codec`.
            **common: See `Codec`.
        """
        own = {"width": width, "byteorder": byteorder, "signed": signed}
        return cls._make("uint", own, common, specials)

    @classmethod
    def struct(
        cls,
        fmt: str,
        *,
        specials: Mapping[int, SpecialT] | None = None,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes | SpecialT]:
        """Return a codec whose length is a binary number in the notation of the `struct` module.

        Args:
            fmt: One integer, with or without a byte order: ``"i"``, ``"!I"``, ``"<H"``, ``"q"``.
                Native size and order where `struct` has them. A negative length is invalid.
            specials: See `Codec`.
            **common: See `Codec`.
        """
        return cls._make("struct", {"fmt": fmt}, common, specials)

    @classmethod
    def varint(
        cls,
        *,
        max_width: int = 5,
        specials: Mapping[int, SpecialT] | None = None,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes | SpecialT]:
        """Return a codec whose length is an unsigned LEB128 number, as in protobuf and MQTT.

        A length that is not in its shortest form is invalid.

        Args:
            max_width: Bytes of the longest form, 1 to 10.
            specials: See `Codec`.
            **common: See `Codec`. `length_includes` must be ``"rest"``.
        """
        return cls._make("varint", {"max_width": max_width}, common, specials)

    @classmethod
    def ber(
        cls,
        *,
        max_width: int = 4,
        specials: Mapping[int, SpecialT] | None = None,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes | SpecialT]:
        """Return a codec whose length is in the definite form of X.690 (BER, DER).

        One byte holds a length up to 127. Longer ones follow a byte 0x81 to 0x88, which says their
        number of bytes, big-endian. The shortest form is written, longer ones are read, too. The
        indefinite form, 0x80, is invalid.

        Args:
            max_width: The most bytes after the first one, 1 to 8.
            specials: See `Codec`.
            **common: See `Codec`. `length_includes` must be ``"rest"``.
        """
        return cls._make("ber", {"max_width": max_width}, common, specials)

    @classmethod
    def fixed(cls, size: int, **common: Unpack[CommonParameters]) -> Codec[bytes]:
        """Return a codec whose messages all have the same size. There is no length field.

        Args:
            size: Bytes of each message, at least 1.
            **common: See `Codec`. `magic`, `trailer`, `constants`, `check`, `align` have a meaning.
        """
        return cls._make("fixed", {"size": size}, common)

    @classmethod
    def custom(
        cls,
        parse: Callable[[memoryview], Any],
        build: Callable[[memoryview], Any],
        *,
        max_header: int = 64,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes]:
        """Return a codec for any other shape, described by two functions.

        The codec can be pickled if its functions can.

        Args:
            parse: A function of the first bytes of a frame, after the magic. It returns None if it
                needs more bytes, else ``(header_size, rest_size)`` or ``(header_size, rest_size,
                lead)``, sizes in bytes; the message is lead and rest. The splitter calls it again
                with the same bytes and more, so the result must depend on nothing else. An
                exception that it raises becomes an `InvalidFrameError`.
            build: A function of a `memoryview` of the message. It returns the header without the
                magic, or ``(header, n)`` if the header contains the first n bytes of the message.
            max_header: Bytes of the longest header, without the magic.
            **common: See `Codec`. `magic`, `trailer`, `check`, `align`, the limits have a meaning.
        """
        own = {"parse": parse, "build": build, "max_header": max_header}
        return cls._make("custom", own, common)

    @classmethod
    def _make(
        cls, kind: str, own: dict[str, Any], common: Mapping[str, Any], specials: Any = None
    ) -> Codec[Any]:
        parameters = {**own, **COMMON_DEFAULTS, "specials": specials, **common}
        return cls._from_parameters(kind, parameters)

    @classmethod
    def _from_parameters(cls, kind: str, parameters: dict[str, Any]) -> Codec[Any]:
        layout = make_layout(kind, parameters)
        codec = object.__new__(cls)
        attributes = codec.__dict__
        attributes["kind"] = kind
        attributes["layout"] = layout
        attributes["parameters"] = MappingProxyType(parameters)
        attributes["_encoder"] = encoder = Encoder(codec)
        # Replace three methods by those of the encoder: this saves a Python call for each message.
        attributes["encode"] = encoder.encode
        attributes["encode_many"] = encoder.encode_many
        attributes["frame_parts"] = encoder.frame_parts
        return codec

    def replace(self, **changes: Unpack[AnyParameters]) -> Codec[MessageT]:
        """Return a copy with some parameters changed.

        Raises:
            TypeError: The constructor has no such parameter.
            ValueError, TypeError: As for the constructor.
        """
        return _rebuild(self.kind, {**self.parameters, **changes}, self._objects)

    # --- verbs ------------------------------------------------------------------------------------

    @overload
    def encode(self: Codec[bytes | SpecialT], message: Buffer | SpecialT, /) -> bytes: ...

    @overload
    def encode(self, message: MessageT, /) -> bytes: ...

    def encode(self, message: object, /) -> bytes:
        """Return the frame of a message; the encoder's method replaces this one.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            MessageTooLargeError: The message is larger than ``max_message_size``, or than the
                largest size that the length field can hold.
            InvalidFrameError: The message is shorter than its lead, or the length field cannot hold
                its size.
            TypeError, BufferError: `message` is not a contiguous bytes-like object.
        """
        return self._encoder.encode(message)

    @overload
    def encode_many(
        self: Codec[bytes | SpecialT], messages: Iterable[Buffer | SpecialT], /
    ) -> bytes: ...

    @overload
    def encode_many(self, messages: Iterable[MessageT], /) -> bytes: ...

    def encode_many(self, messages: Iterable[Any], /) -> bytes:
        """Return the joined frames of messages; the encoder's method replaces this one.

        All frames are written into one allocation.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`, for the first bad message.
        """
        return self._encoder.encode_many(messages)

    @overload
    def frame_parts(
        self: Codec[bytes | SpecialT], message: Buffer | SpecialT, /
    ) -> list[Buffer]: ...

    @overload
    def frame_parts(self, message: MessageT, /) -> list[Buffer]: ...

    def frame_parts(self, message: object, /) -> list[Buffer]:
        """Return a frame as a list of buffers; the encoder's method replaces this one.

        Give them to ``sendmsg`` or ``writelines``: joined they are the frame. The message is not
        copied, and no buffer is empty.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`.
        """
        return self._encoder.frame_parts(message)

    def decode(self, frame: Buffer, /) -> MessageT:
        """Return the message of exactly one whole frame.

        Args:
            frame: A contiguous bytes-like object.

        Raises:
            InvalidFrameError: The bytes are not a frame of this codec, or more bytes follow.
            IncompleteFrameError: The end of the frame is missing.
            MessageTooLargeError: The message is larger than the codec allows.
            TypeError, BufferError: `frame` is not a contiguous bytes-like object.
        """
        splitter = Splitter(self)
        messages = splitter.feed(frame)
        if len(messages) == 1 and not splitter.pending and not is_longer(self, frame):
            message: MessageT = messages[0]
            return message
        raise not_one_frame(self, frame, splitter, messages)

    def split(self, data: Buffer, /) -> tuple[list[MessageT], int]:
        """Return the messages of all whole frames at the start of a buffer.

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
        if splitter.pending and _is_padded(self.layout):
            # A message is delivered before its padding, but a frame is whole with it.
            del messages[len(Splitter(self, raw=True).feed(data)) :]
        return messages, splitter.stream_offset

    def scan(self, data: Buffer, /, *, raw: bool = False) -> Spans:
        """Find all whole frames at the start of a buffer without making messages.

        Args:
            data: A contiguous bytes-like object. The result keeps a view of it.
            raw: Span whole frames instead of messages. A codec with a lead needs True, because its
                messages are in two pieces.

        Returns:
            A sequence that makes its `memoryview` objects on demand. It exports an ``(n, 2)`` int64
            buffer of (start, stop), so that ``numpy.asarray(spans)`` copies nothing; its
            ``consumed`` is the number of bytes of all frames.

        Raises:
            FrameError: The first frame is bad.
            ValueError: `raw` is False, and the codec has a lead or a frame is a special, which has
                no bytes.
            TypeError, BufferError: `data` is not a contiguous bytes-like object.
        """
        return scan(self, data, raw=raw)

    def write(self, file: Any, messages: Iterable[Buffer | MessageT], /) -> int:
        """Write the frames of messages to a file, each as soon as its message is there.

        Args:
            file: A path, whose file is made or overwritten; or a binary file object, which is
                neither flushed nor closed.
            messages: As for `encode`.

        Returns:
            The number of messages.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`. The frames of the messages before
                the bad one are written.
            OSError: The file cannot be opened or written.
        """
        return write_messages(self._encoder, file, messages)

    # --- a codec as a value -----------------------------------------------------------------------

    @property
    def max_message_size(self) -> int | None:
        """The largest message in bytes; None for no limit."""
        size: int | None = self.parameters["max_message_size"]
        return size

    def _key(self) -> tuple[Any, ...]:
        return (
            *(self.kind, self._objects),
            *(
                (tuple if name == "alternatives" else frozenset)(value.items())
                if isinstance(value, Mapping)
                else value
                for name, value in self.parameters.items()
            ),
        )

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Codec) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return _constructor_call(self)

    def __str__(self) -> str:
        """Return the notation that `parse_codec` reads."""
        from .notation import format_codec  # here, because the notation imports this module

        return format_codec(self)

    def __reduce__(self) -> tuple[Any, ...]:
        parameters = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in self.parameters.items()
        }
        return _rebuild, (self.kind, parameters, self._objects)


def _rebuild(
    kind: str, parameters: dict[str, Any], functions: ObjectFunctions | None = None
) -> Codec[Any]:
    codec: Codec[Any] = Codec._from_parameters(kind, parameters)
    if functions is None:
        return codec
    return codec._with_functions(functions.made_by, *functions.arguments)


DEFAULT_CODEC = Codec.uint(4)
"""The codec of a connection for which none is given: a length of 4 bytes, big-endian."""


def _is_padded(layout: Layout) -> bool:
    """Return whether frames of a layout, or of one of its alternatives, can end with padding."""
    layouts = (layout,) if layout.choice is None else layout.choice.layouts
    return any(each.align > 1 for each in layouts)


def check_codec(codec: object) -> Codec[Any]:
    """Return the codec.

    Raises:
        TypeError: It is not a `Codec`.
    """
    if not isinstance(codec, Codec):
        raise not_a_codec(codec)
    return codec


def _constructor_call(codec: Codec[Any]) -> str:
    """Return the call of the constructor that makes the codec, without the default values."""
    import inspect  # here, because only repr() needs it

    signature = inspect.signature(getattr(Codec, codec.kind))
    defaults = {parameter.name: parameter.default for parameter in signature.parameters.values()}
    defaults.update(COMMON_DEFAULTS)
    arguments: list[str] = []
    for name, value in codec.parameters.items():
        shown = getattr(value, "__qualname__", None) or repr(value)
        if isinstance(value, Mapping):
            shown = repr(dict(value))
        if name == "more_ends":  # positional, and after `end`, which is then there, too
            arguments += map(repr, value)
        elif name == "width" or defaults[name] is inspect.Parameter.empty:
            arguments.append(shown)
        elif name == "end" and codec.kind == "delimiter":
            arguments += [shown] if value != defaults[name] or codec.parameters["more_ends"] else []
        elif value != defaults[name]:
            arguments.append(f"{name}={shown}")
    objects = "" if codec._objects is None else f".{codec._objects!r}"
    return f"Codec.{codec.kind}({', '.join(arguments)}){objects}"
