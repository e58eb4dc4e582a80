"""Messages that are objects: `Codec.with_objects` and the codecs that are made with it.

A codec with objects is a codec whose messages go through two functions: `dumps` before they are
encoded, `loads` after they are split. Below them nothing changes. A connection works with bytes,
by `plain_codec`, and calls `loads` when a message is delivered, so that what is not delivered can
still be handed over exactly as it travelled. A splitter calls it at the end of each call.

A message that `loads` refuses is an `InvalidMessageError`. Its frame was whole, so that the next
message can be delivered.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final, overload

from . import _error_texts, errors
from ._files import Refusal, read_messages
from ._kept_headers import frames_as_travelled
from ._layout import Described, Layout, plain_codec
from .splitter import Encoder, ObjectEncoder, Splitter

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._message_types import ObjectT
    from .codec import Codec

__all__ = [
    "HeldMessages",
    "ObjectConstructors",
    "ObjectFunctions",
    "end_of_frames",
    "frame_starts",
    "is_refusal",
    "last_frame_starts",
    "refused",
]

# --- the functions --------------------------------------------------------------------------------


@final
class ObjectFunctions:
    """What turns objects into messages and back.

    Args:
        made_by: The method of `Codec` that made the codec.
        arguments: Its arguments.
    """

    __slots__ = ("arguments", "dumps", "loads", "made_by")

    def __init__(self, made_by: str, arguments: tuple[Any, ...]) -> None:
        self.made_by = made_by
        self.arguments = arguments
        self.dumps, self.loads = _FUNCTIONS[made_by](*arguments)

    def for_codec(self, codec: Any) -> ObjectFunctions:
        """Return functions for the messages of a codec: with special objects, or with names."""
        functions = self._except_specials(_special_values(codec))
        if not codec.parameters.get("tagged"):
            return functions
        loads = functions.loads
        named = object.__new__(ObjectFunctions)
        named.made_by, named.arguments = self.made_by, self.arguments

        def loads_named(message: Any) -> Any:
            return (
                (message[0], loads_named(message[1])) if type(message) is tuple else loads(message)
            )

        named.dumps, named.loads = self._dumps_named(codec), loads_named
        return named

    def _dumps_named(self, codec: Any) -> Callable[[Any], Any]:
        """Return a function for the (name, message) pairs of a tagged choice."""
        if not codec.parameters.get("tagged"):
            dumps: Callable[[Any], Any] = self._except_specials(_special_values(codec)).dumps
            return dumps
        by_name = {
            name: self._dumps_named(alternative)
            for name, (_, alternative) in codec.parameters["alternatives"].items()
        }

        def dumps_named(message: Any) -> Any:
            if type(message) is not tuple or len(message) != 2 or message[0] not in by_name:
                return message  # which encode() refuses
            return message[0], by_name[message[0]](message[1])

        return dumps_named

    def _except_specials(self, specials: Iterable[object]) -> ObjectFunctions:
        """Return functions that give the special objects of a codec back as they are."""
        special_values = [value for value in specials if not isinstance(value, bytes | memoryview)]
        if not special_values:
            return self
        functions = object.__new__(ObjectFunctions)
        functions.made_by, functions.arguments = self.made_by, self.arguments
        dumps, loads = self.dumps, self.loads

        def dumps_others(message: Any) -> Any:
            for special in special_values:
                if message is special or (type(message) is type(special) and message == special):
                    return special
            return dumps(message)

        def loads_others(message: Any) -> Any:
            return loads(message) if type(message) is bytes else message

        functions.dumps, functions.loads = dumps_others, loads_others
        return functions

    def hold(self, layout: Layout) -> HeldMessages:
        """Return what a splitter needs after a refused message."""
        return HeldMessages(self.loads, layout)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectFunctions):
            return NotImplemented
        return (self.made_by, self.arguments) == (other.made_by, other.arguments)

    def __hash__(self) -> int:
        return hash((self.made_by, self.arguments))

    def __repr__(self) -> str:
        shown = [getattr(value, "__qualname__", None) or repr(value) for value in self.arguments]
        return f"{self.made_by}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectFunctions, (self.made_by, self.arguments)


def _special_values(codec: Any) -> list[object]:
    """Return the special messages of a codec, and those of its alternatives."""
    values = list(codec.layout.special_values)
    for alternative in (codec.parameters.get("alternatives") or {}).values():
        values += _special_values(alternative[1] if type(alternative) is tuple else alternative)
    return values


def _given(dumps: Any, loads: Any) -> tuple[Any, Any]:
    for name, function in (("dumps", dumps), ("loads", loads)):
        if not callable(function):
            raise TypeError(f"{name} must be a function, not {type(function).__name__!r}")
    return dumps, loads


def _json() -> tuple[Any, Any]:
    # Stricter than the module's own functions, which write and read NaN, and faster: those make
    # an encoder for each call with other options than the default ones.
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    decode = json.JSONDecoder(parse_constant=_refuse_constant).decode

    def dumps(message: Any) -> bytes:
        return encode(message).encode()

    def loads(message: bytes) -> Any:
        return decode(str(message, "utf-8"))

    return dumps, loads


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _msgpack() -> tuple[Any, Any]:
    msgpack = _import("msgpack", "as_msgpack()", "msgpack")
    unpack = msgpack.unpackb

    def loads(message: bytes) -> Any:
        return unpack(message, strict_map_key=False)

    return msgpack.packb, loads


def _struct(kind: Any, encoding: str) -> tuple[Any, Any]:
    _import("msgspec", "as_struct()", "msgspec")
    if encoding not in ("json", "msgpack"):
        raise ValueError(f"encoding must be 'json' or 'msgpack', not {encoding!r}")
    module = _import(f"msgspec.{encoding}", "as_struct()", "msgspec")
    return module.Encoder().encode, module.Decoder(kind).decode


def _import(name: str, method: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{method} needs {name.partition(".")[0]}: pip install "framecodec[{extra}]"'
        ) from error


_FUNCTIONS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "with_objects": _given,
    "as_json": _json,
    "as_msgpack": _msgpack,
    "as_struct": _struct,
}


# --- what loads refuses ---------------------------------------------------------------------------


def is_refusal(cause: BaseException) -> bool:
    """Return whether an exception of `loads` is about the message.

    An interruption, and that memory is short, say nothing about it.
    """
    return isinstance(cause, Exception) and not isinstance(cause, MemoryError)


def refused(
    cause: BaseException,
    message: Any,
    stream_offset: int | None,
    header: bytes | None,
    layout: Layout,
) -> errors.InvalidMessageError:
    """Return the error about a message that `loads` has refused.

    Args:
        cause: What `loads` raised.
        message: The message.
        stream_offset: Of its frame.
        header: What travelled before its rest, if the splitter keeps that.
        layout: That of the codec.
    """
    data = message
    while type(data) is tuple:  # of a tagged choice
        data = data[-1]
    size = len(data) if isinstance(data, bytes) else 0
    begins = f", it begins {_error_texts.show(data)}" if size else ""
    reason = f"{cause}"
    if len(reason) > 200:
        reason = f"{reason[:200]}..."
    where = "" if stream_offset is None else f" at stream offset {stream_offset}"
    error = errors.InvalidMessageError(
        f"invalid message{where}: loads() refused its {size} bytes{begins}:"
        f" {type(cause).__name__}: {reason} (the frame is whole, the next message can be received)",
        size=size,
        stream_offset=stream_offset,
        header=_header_of(message, layout) if header is None else header,
    )
    if cause.__traceback__ is not None:  # without the frames of this package
        cause.__traceback__ = cause.__traceback__.tb_next
    error.__cause__ = cause
    return error


def _header_of(message: Any, layout: Layout) -> bytes:
    """Return the header of a message of a canonical codec."""
    if layout.marks:  # a part of the frame can be the message, or a copy of it
        return layout.magic
    try:
        parts = Encoder(Described(layout)).frame_parts(message)
    except errors.FrameError:
        return b""
    return parts[0] if parts and isinstance(parts[0], bytes) and parts[0] is not message else b""


def end_of_frames(splitter: Splitter, layout: Layout) -> int:
    """Return the stream position after the last delivered message, and its padding."""
    if layout.align == 1:
        return splitter.stream_offset
    begin, size = splitter._delivered_padding()
    return begin + size


def frame_starts(
    layout: Layout,
    end: int,
    messages: list[Any],
    headers: list[bytes] | None,
    gaps: Iterable[tuple[int, int]] = (),
) -> list[int]:
    """Return the stream positions of the frames of successive delivered messages.

    Args:
        layout: That of their codec.
        end: `end_of_frames` after the last one.
        messages: The messages.
        headers: What travelled before their rests, if the splitter keeps that.
        gaps: Bytes between their frames that are in no message: ``Splitter._gaps``. An observer of
            frames that are read again gives none: the splitter that reads them has no such bytes.
    """
    codec = Described(layout)
    starts: list[int] = []
    left = [*gaps]
    following = b""
    encode = Encoder(codec).encode
    kept = reversed(headers) if headers is not None else repeat(None)
    for message, header in zip(reversed(messages), kept, strict=False):
        end = _before_gaps(end, left)
        if header is None:
            end -= len(encode(message))
        else:
            frame = frames_as_travelled(codec, [message], [header], following)
            following = frame + following[: layout.max_header]
            end -= len(frame)
        starts.append(end)
    starts.reverse()
    return starts


def last_frame_starts(
    splitter: Splitter, layout: Layout, messages: list[Any], headers: list[bytes] | None
) -> list[int]:
    """Return `frame_starts` of the messages that a splitter has just read, up to the last one."""
    end = end_of_frames(splitter, layout)
    return frame_starts(layout, end, messages, headers, splitter._gaps)


def _before_gaps(end: int, gaps: list[tuple[int, int]]) -> int:
    """Return where the bytes end that are in messages, up to a position; drop later gaps."""
    while gaps and gaps[-1][1] >= end:
        start, stop = gaps.pop()
        if stop == end:
            end = start
    return end


_Held: TypeAlias = tuple[Any, bytes | None, int]
"""A message, what travelled before its rest if that is kept, and where its frame starts."""


@final
class HeldMessages:
    """What a splitter has read and not delivered: messages from one that `loads` refused on.

    Args:
        loads: The function.
        layout: That of the codec.
    """

    __slots__ = (
        "_layout",
        "_loads",
        "_messages",
        "_raised",
        "error",
        "finished",
        "lost",
        "taking",
        "telling",
    )

    def __init__(self, loads: Callable[[Any], Any], layout: Layout) -> None:
        self._loads = loads
        self._layout = layout
        self._messages: deque[_Held] = deque()
        self._raised = False  # the error about the first message was raised: it is dropped next
        self.error: BaseException | None = None
        """The error about the first message, if a call returned those before it."""
        # What the splitter reads and sets without a call, in which a signal handler could raise.
        self.finished = False
        """`take` has left nothing."""
        self.taking = False
        """`take` removes messages, whose objects the caller has not got; clear it before a call."""
        self.telling = False
        """`take` raises an error about a message; clear it before a call."""
        self.lost = False
        """Messages were removed whose objects no caller has got."""

    def add(self, splitter: Splitter, messages: list[Any], headers: list[bytes] | None) -> None:
        """Hold messages that the splitter has just read."""
        starts = last_frame_starts(splitter, self._layout, messages, headers)
        self._messages.extend(zip(messages, headers or repeat(None), starts, strict=False))

    def refuse(self, cause: BaseException) -> None:
        """Store what `loads` raised for the first message, or what failed without one."""
        self.error = self._error_about(cause, self._messages[0]) if self._messages else cause

    def take(self) -> list[Any]:
        """Return the objects up to a refused message, which the next call raises.

        Raises:
            InvalidMessageError: `loads` has refused the first message, which is dropped.
            BaseException: What else `loads` has raised. It sticks.
        """
        messages, loads = self._messages, self._loads
        if self._raised:
            self._raised = False
            messages.popleft()
        self._raise()
        objects: list[Any] = []
        error: BaseException | None = None
        for held in messages:
            try:
                objects.append(loads(held[0]))
            except BaseException as cause:
                error = self._error_about(cause, held)
                break
        self.taking = bool(objects)
        for _ in objects:  # only now, because memory may run out before
            messages.popleft()
        self.error = error
        if not objects:
            self._raise()
        self.finished = not messages
        return objects

    def fail(self, error: BaseException) -> None:
        """Make an error sticky that came instead of what `take` had to raise or return.

        A signal handler has raised it; or CPython, which raises a MemoryError in the place of an
        error where it has no memory for a traceback.
        """
        if self.error is not error:
            if self.telling:
                self._raised = False  # no caller was told
            self.lost |= self.taking
            self.error, self.finished = error, False

    def _error_about(self, cause: BaseException, held: _Held) -> BaseException:
        """Return the error for a message from what `loads` raised."""
        if not is_refusal(cause):
            return cause
        message, header, start = held
        try:
            return refused(cause, message, start, header, self._layout)
        except BaseException as error:  # there is no memory for it
            return error

    def _raise(self) -> None:
        error = self.error
        if error is not None:
            if isinstance(error, errors.InvalidMessageError):
                self.telling = self._raised = True
                self.error, self.finished = None, len(self._messages) == 1
            try:
                raise error.with_traceback(None)
            finally:
                del error  # which holds this frame: a cycle

    def travelled(self, splitter: Splitter, following: bytes) -> bytes:
        """Return the frames of all messages, for another protocol.

        Args:
            splitter: It has read them.
            following: The bytes that travelled after them; padding of the last one is among them.
        """
        if self.lost:
            raise _error_texts.unfinished_lost()
        held = [*self._messages][self._raised :]
        messages = [message for message, _, _ in held]
        headers = [header for _, header, _ in held if header is not None]
        codec = Described(self._layout)
        frames = frames_as_travelled(codec, messages, headers or None, following)
        return frames[: len(frames) - splitter._delivered_padding()[1]]


# --- the verbs of a codec with objects ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Described:
    """What a splitter needs to know of a codec with objects."""

    layout: Layout
    _objects: ObjectFunctions


def verbs(codec: Any, functions: ObjectFunctions) -> dict[str, Any]:
    """Return the methods of a codec with objects that replace those of its plain codec.

    Args:
        codec: The plain codec.
        functions: For its messages.
    """
    loads, layout = functions.loads, codec.layout

    def decode(frame: Buffer, /) -> Any:
        splitter = Splitter(codec)
        messages = splitter.feed(frame)
        if len(messages) != 1 or splitter.pending:
            messages = [codec.decode(frame)]  # raises
        message = messages[0]
        try:
            return loads(message)
        except Exception as cause:
            if not is_refusal(cause):
                raise
            raise refused(cause, message, 0, None, layout) from cause

    def split(data: Buffer, /) -> tuple[list[Any], int]:
        messages, consumed = codec.split(data)
        for index, message in enumerate(messages):
            try:
                messages[index] = loads(message)
            except Exception as cause:
                if not is_refusal(cause):
                    raise
                if not index:
                    raise refused(cause, message, 0, None, layout) from cause
                return messages[:index], _size_of_frames(codec, data, index)
        return messages, consumed

    def read(source: Any, /, **options: Any) -> Iterator[Any]:
        described: Any = _Described(layout, functions)
        splitter = Splitter(described, **options)
        return _Reading(read_messages(splitter, source))

    encoder = ObjectEncoder(functions.dumps, codec._encoder)
    return {
        "_encoder": encoder,
        "encode": encoder.encode,
        "encode_many": encoder.encode_many,
        "frame_parts": encoder.frame_parts,
        "decode": decode,
        "split": split,
        "read": read,
    }


def _size_of_frames(codec: Any, data: Buffer, count: int) -> int:
    """Return where the first messages of a buffer end, which has more of them."""
    splitter = Splitter(codec, keep_headers=True)
    messages = splitter.feed(data)
    return last_frame_starts(splitter, codec.layout, messages, splitter.headers)[count]


class _Reading:
    """The messages of a source. A refused one does not end the iteration.

    Args:
        messages: The iterator of `read_messages`.
    """

    __slots__ = ("_messages",)

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        message = next(self._messages)
        if type(message) is Refusal:
            raise message.error.with_traceback(None)
        return message

    def close(self) -> None:
        """End the iteration; close the file of a path."""
        self._messages.close()  # type: ignore[attr-defined]


class ObjectConstructors:
    """The methods of `Codec` that make codecs with objects."""

    _objects: ObjectFunctions | None = None

    def with_objects(
        self, dumps: Callable[[ObjectT], Buffer], loads: Callable[[bytes], ObjectT]
    ) -> Codec[ObjectT]:
        """Return a codec whose messages are objects.

        Everything that takes a codec takes it: splitters, sockets, event loops, servers, files.
        Sizes and limits are those of the bytes. `scan`, files that are sent and received as
        messages, and splitters with ``raw=True`` give and take bytes, as without objects. An object
        of the codec's ``specials`` passes as it is.

        A message for which `loads` raises is an `InvalidMessageError`, with that exception as its
        ``__cause__``. It does not stick: the next message can be received.

        Args:
            dumps: A function of an object that returns a bytes-like object. What it raises is
                raised by `encode` and by every ``send``; nothing is sent then.
            loads: A function of a `bytes` object that returns an object, or raises.

        Raises:
            TypeError: An argument is not callable.
        """
        return self._with_functions("with_objects", dumps, loads)

    def as_json(self) -> Codec[Any]:
        """Return a codec whose messages are objects in JSON: UTF-8, in the shortest form.

        A number that JSON does not have (NaN, infinity) is refused in both directions. JSON has
        neither tuples nor keys that are not text: these come back as lists and as text.
        """
        return self._with_functions("as_json")

    def as_msgpack(self) -> Codec[Any]:
        """Return a codec whose messages are objects in MessagePack.

        Raises:
            ImportError: The extra ``framecodec[msgpack]`` is not installed.
        """
        return self._with_functions("as_msgpack")

    @overload
    def as_struct(
        self, type: type[ObjectT], *, encoding: Literal["json", "msgpack"] = "json"
    ) -> Codec[ObjectT]: ...

    @overload
    def as_struct(
        self, type: Any, *, encoding: Literal["json", "msgpack"] = "json"
    ) -> Codec[Any]: ...

    def as_struct(self, type: Any, *, encoding: Literal["json", "msgpack"] = "json") -> Codec[Any]:
        """Return a codec whose messages are objects of a type that `msgspec` verifies.

        Args:
            type: A ``msgspec.Struct``, a dataclass, ``list[int]``, or any other type that
                `msgspec` knows.
            encoding: What travels.

        Raises:
            ImportError: The extra ``framecodec[msgspec]`` is not installed.
        """
        return self._with_functions("as_struct", type, encoding)

    def without_objects(self) -> Codec[bytes]:
        """Return the codec whose messages are the bytes that travel."""
        plain: Any = plain_codec(self)
        return plain  # type: ignore[no-any-return]

    def _with_functions(self, made_by: str, *arguments: Any) -> Codec[Any]:
        """Return a codec with objects, from the name of a method and its arguments."""
        plain: Any = plain_codec(self)
        functions = ObjectFunctions(made_by, arguments).for_codec(plain)
        codec = object.__new__(type(self))
        codec.__dict__.update(plain.__dict__, _plain=plain, _objects=functions)
        codec.__dict__.update(verbs(plain, functions))
        return codec  # type: ignore[return-value]
