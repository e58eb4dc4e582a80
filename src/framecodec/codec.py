"""A codec: the immutable description of a frame, for both directions and all connections.

A codec is made by the constructor of its length field's kind (`Codec.uint`, `Codec.digits`, ...).
The constructor checks the whole description and turns it into the plain numbers of a `Layout`.
After that an engine does the work: the codec has one `Encoder`, each connection has a `Splitter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack, final

from . import _error_texts, errors
from ._any_parameters import AnyParameters
from ._constructors import MarkedConstructors
from ._files import read_messages, write_messages
from ._joined_constructors import JoinedConstructors
from ._layout import Layout, not_a_codec
from ._objects import ObjectConstructors, ObjectFunctions
from ._parameters import (
    COMMON_DEFAULTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    KINDS,
    CommonParameters,
    make_layout,
)
from .splitter import Encoder, Spans, Splitter, scan

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DEFAULT_CODEC", "DEFAULT_MAX_MESSAGE_SIZE", "Codec", "check_codec"]


class _Frozen:
    """An object that only the constructors of its kinds make, and that never changes."""

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
class Codec(_Frozen, MarkedConstructors, JoinedConstructors, ObjectConstructors):
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
        **common: Unpack[CommonParameters],
    ) -> Codec:
        """Return a codec whose length is a binary number of fixed width.

        Args:
            width: Bytes of the field, 1 to 8.
            byteorder: "big", "little", or "native" for the order of this machine.
            signed: The field is two's complement. A negative length is invalid.
            **common: See `Codec`.
        """
        own = {"width": width, "byteorder": byteorder, "signed": signed}
        return cls._make("uint", own, common)

    @classmethod
    def struct(cls, fmt: str, **common: Unpack[CommonParameters]) -> Codec:
        """Return a codec whose length is a binary number in the notation of the `struct` module.

        Args:
            fmt: One integer, with or without a byte order: ``"i"``, ``"!I"``, ``"<H"``, ``"q"``.
                Native size and order where `struct` has them. A negative length is invalid.
            **common: See `Codec`.
        """
        return cls._make("struct", {"fmt": fmt}, common)

    @classmethod
    def digits(
        cls, width: int, *, base: Literal[10, 16, "bcd"] = 10, **common: Unpack[CommonParameters]
    ) -> Codec:
        """Return a codec whose length is `width` ASCII digits: ``str(n).zfill(width)``.

        Args:
            width: Digits of the field, with leading zeros, 1 to 64.
            base: 10 or 16. Hexadecimal digits are written in lower case and read in both cases.
                "bcd": packed decimal, `width` bytes of two digits each, most significant first.
            **common: See `Codec`.
        """
        return cls._make("digits", {"width": width, "base": base}, common)

    @classmethod
    def varint(cls, *, max_width: int = 5, **common: Unpack[CommonParameters]) -> Codec:
        """Return a codec whose length is an unsigned LEB128 number, as in protobuf and MQTT.

        A length that is not in its shortest form is invalid.

        Args:
            max_width: Bytes of the longest form, 1 to 10.
            **common: See `Codec`. `length_includes` must be ``"rest"``.
        """
        return cls._make("varint", {"max_width": max_width}, common)

    @classmethod
    def ber(cls, *, max_width: int = 4, **common: Unpack[CommonParameters]) -> Codec:
        """Return a codec whose length is in the definite form of X.690 (BER, DER).

        One byte holds a length up to 127. Longer ones follow a byte 0x81 to 0x88, which says their
        number of bytes, big-endian. The shortest form is written, longer ones are read, too. The
        indefinite form, 0x80, is invalid.

        Args:
            max_width: The most bytes after the first one, 1 to 8.
            **common: See `Codec`. `length_includes` must be ``"rest"``.
        """
        return cls._make("ber", {"max_width": max_width}, common)

    @classmethod
    def fixed(cls, size: int, **common: Unpack[CommonParameters]) -> Codec:
        """Return a codec whose messages all have the same size. There is no length field.

        Args:
            size: Bytes of each message, at least 1.
            **common: See `Codec`. `magic`, `trailer`, `constants`, `check`, `align` have a meaning.
        """
        return cls._make("fixed", {"size": size}, common)

    @classmethod
    def text(
        cls,
        end: bytes = b":",
        *,
        base: Literal[10, 16] = 10,
        leading_zeros: bool = False,
        max_digits: int = 20,
        **common: Unpack[CommonParameters],
    ) -> Codec:
        """Return a codec whose length is ASCII digits up to an end mark, as in netstrings.

        Args:
            end: The end mark, 1 to 16 bytes.
            base: 10 or 16. Hexadecimal digits are written in lower case and read in both cases.
            leading_zeros: Read lengths with leading zeros, which are invalid otherwise.
            max_digits: The most digits, leading zeros included, 1 to 64.
            **common: See `Codec`. `length_includes` must be ``"rest"``. A special value may be
                negative: ``{-1: None}`` reads and writes ``-1``.
        """
        own = {"end": end, "base": base, "leading_zeros": leading_zeros, "max_digits": max_digits}
        return cls._make("text", own, common)

    @classmethod
    def headers(
        cls,
        name: str = "Content-Length",
        *,
        names: Iterable[str] = (),
        line_end: bytes = b"\r\n",
        lenient: bool = False,
        start_line: bool = False,
        keep: bool = False,
        max_header: int = 8192,
        **common: Unpack[CommonParameters],
    ) -> Codec:
        r"""Return a codec for blocks of ``Name: value\r\n`` lines, as in LSP, DAP and JSON-RPC.

        An empty line ends the block. Names are read in any case, other headers are ignored. A block
        without the header, or with two of them, is invalid.

        Args:
            name: The header that holds the length, in decimal digits.
            names: Other names of it, which are read, too.
            line_end: What ends a line, CR LF or LF.
            lenient: Read lines with either end, and lengths with leading zeros.
            start_line: The first line is no header (HTTP, SIP). Needs `keep`.
            keep: The message is the whole block and the body, which is empty without the header.
            max_header: Bytes of the largest block.
            **common: See `Codec`. `length_offset` must be None and `length_includes` ``"rest"``.
        """
        own = {"name": name, "names": names, "line_end": line_end, "lenient": lenient}
        own |= {"start_line": start_line, "keep": keep, "max_header": max_header}
        return cls._make("headers", own, common)

    @classmethod
    def custom(
        cls,
        parse: Callable[[memoryview], Any],
        build: Callable[[memoryview], Any],
        *,
        max_header: int = 64,
        **common: Unpack[CommonParameters],
    ) -> Codec:
        """Return a codec for any other shape, described by two functions.

        The codec can be pickled if its functions can.

        Args:
            parse: A function of the first bytes of a frame, after the magic. It returns None if it
                needs more bytes, else ``(header_size, rest_size)`` or ``(header_size, rest_size,
                lead)``, sizes in bytes; the message is lead and rest. The splitter calls it again
                with the same bytes and more, so the result must depend on nothing else. An
                exception that it raises becomes an `InvalidFrameError`.
            build: A function of the message. It returns the header without the magic, or ``(header,
                n)`` if the header contains the first n bytes of the message.
            max_header: Bytes of the longest header, without the magic.
            **common: See `Codec`. `magic`, `trailer`, `check`, `align`, the limits have a meaning.
        """
        own = {"parse": parse, "build": build, "max_header": max_header}
        return cls._make("custom", own, common)

    @classmethod
    def _make(cls, kind: str, own: dict[str, Any], common: CommonParameters) -> Codec:
        return cls._from_parameters(kind, {**own, **COMMON_DEFAULTS, **common})

    @classmethod
    def _from_parameters(cls, kind: str, parameters: dict[str, Any]) -> Codec:
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

    def replace(self, **changes: Unpack[AnyParameters]) -> Codec:
        """Return a copy with some parameters changed.

        Raises:
            TypeError: The constructor has no such parameter.
            ValueError, TypeError: As for the constructor.
        """
        return _rebuild(self.kind, {**self.parameters, **changes}, self._objects)

    # --- verbs ------------------------------------------------------------------------------------

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

    def encode_many(self, messages: Iterable[object], /) -> bytes:
        """Return the joined frames of messages; the encoder's method replaces this one.

        All frames are written into one allocation.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`, for the first bad message.
        """
        return self._encoder.encode_many(messages)

    def frame_parts(self, message: object, /) -> list[Buffer]:
        """Return a frame as a list of buffers; the encoder's method replaces this one.

        Give them to ``sendmsg`` or ``writelines``: joined they are the frame. The message is not
        copied, and no buffer is empty.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`.
        """
        return self._encoder.frame_parts(message)

    def decode(self, frame: Buffer, /) -> Any:
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
        if len(messages) == 1 and not splitter.pending and not _is_longer(self, frame):
            return messages[0]
        raise _not_one_frame(self, frame, splitter, messages)

    def split(self, data: Buffer, /) -> tuple[list[Any], int]:
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
        if self.layout.align > 1 and splitter.pending:
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

    def splitter(
        self,
        *,
        raw: bool = False,
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
        one_at_a_time: bool = False,
        stream_offset: int = 0,
    ) -> Splitter:
        """Return the receiving state of a new connection; see `Splitter`."""
        return Splitter(
            self,
            raw=raw,
            on_oversize=on_oversize,
            on_invalid=on_invalid,
            one_at_a_time=one_at_a_time,
            stream_offset=stream_offset,
        )

    def read(
        self,
        source: Any,
        /,
        *,
        raw: bool = False,
        on_oversize: Literal["raise", "skip"] = "raise",
        on_invalid: Literal["raise", "resync"] = "raise",
    ) -> Iterator[Any]:
        """Return an iterator over the messages of a file, in constant memory.

        Args:
            source: A path, which is opened and closed; a binary file object, which stays open (a
                pipe, ``gzip.open()``, a serial port); a bytes-like object, or an iterable of them.
                A file without a byte is at its end; so is a serial port whose time-out passes.
            raw: Deliver whole frames instead of messages.
            on_oversize: As for `Splitter`.
            on_invalid: As for `Splitter`.

        Raises:
            FrameError: A frame is bad or cut off; the messages before it come first.
            TypeError: `source` is something else; at once.
            OSError: The file cannot be opened or read.
        """
        splitter = self.splitter(raw=raw, on_oversize=on_oversize, on_invalid=on_invalid)
        return read_messages(splitter, source)

    def write(self, file: Any, messages: Iterable[object], /) -> int:
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
) -> Codec:
    codec = Codec._from_parameters(kind, parameters)
    if functions is None:
        return codec
    return codec._with_functions(functions.made_by, *functions.arguments)


# --- what only errors and repr() need -------------------------------------------------------------


def _not_one_frame(
    codec: Codec, frame: Buffer, splitter: Splitter, messages: list[Any]
) -> errors.FrameError:
    """Return the error of `Codec.decode` for bytes that are less or more than one frame.

    Args:
        codec: The codec.
        frame: The bytes.
        splitter: The splitter that was fed with them.
        messages: What it delivered.

    Raises:
        IncompleteFrameError: The splitter reports how much is missing.
    """
    if not messages:
        splitter.feed_eof()
        return _error_texts.incomplete("header", 0, None, 0, b"")
    frames = Splitter(codec, raw=True).feed(frame)
    if not frames:  # the padding is not whole
        splitter.feed_eof()
    raw = frames[0]
    stop = _first_stop(codec, frame) if codec.layout.marks else len(raw)
    return _error_texts.bytes_after_frame(memoryview(frame).nbytes - stop, _header_of(codec, raw))


def _is_longer(codec: Codec, frame: Buffer) -> bool:
    """Return whether ignored frames follow the first one."""
    return codec.layout.skip_empty and _first_stop(codec, frame) < memoryview(frame).nbytes


def _first_stop(codec: Codec, data: Buffer) -> int:
    """Return where the first frame ends that an end mark ends and that is not ignored."""
    layout, content, stop = codec.layout, bytes(data), 0
    marks = sorted(layout.marks, key=len, reverse=True)
    while layout.skip_empty:  # frames before it that are ignored
        empty = [mark for mark in marks if content.startswith(layout.magic + mark, stop)]
        if not empty:
            break
        stop += len(layout.magic + empty[0])
    raw = Splitter(codec, raw=True).feed(data)[0]
    stop += len(raw)
    for mark in marks:  # the rest of a longer mark
        for size in range(1, len(mark)):
            is_begun = mark[:size] in marks and raw.endswith(mark[:size])
            if is_begun and content.startswith(mark, stop - size):
                return stop - size + len(mark)
    return stop


DEFAULT_CODEC = Codec.uint(4)
"""The codec of a connection for which none is given: a length of 4 bytes, big-endian."""


def check_codec(codec: object) -> Codec:
    """Return the codec.

    Raises:
        TypeError: It is not a `Codec`.
    """
    if not isinstance(codec, Codec):
        raise not_a_codec(codec)
    return codec


def _header_of(codec: Codec, raw: bytes) -> bytes:
    """Return the header of a whole frame, exactly as it is in `raw`."""
    # A splitter that has all bytes but the last one reports the header in its error.
    splitter = Splitter(codec)
    splitter.feed(raw[:-1])
    try:
        splitter.feed_eof()
    except errors.IncompleteFrameError as error:
        if error.where != "header":
            return error.header
    return raw


def _constructor_call(codec: Codec) -> str:
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
