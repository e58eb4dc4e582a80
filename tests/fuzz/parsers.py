"""Functions for `Codec.custom` that do what a user's functions may do, and what they should not.

A `Parser` is a value: it prints as the call that makes it, so that a program that fails can be
printed. What it reaches of the run around it (the splitter, the chunk) is in `NOW`.

The frame: one byte of flags, up to three bytes of length, the rest.

    bits 0, 1   how many bytes of length follow; without any, the length is in bits 2 to 4
    bit 5       `parse` refuses the frame
    bit 6       the lead is this byte, where the parser gives leads
    bit 7       the trick is played
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from framecodec import Codec, InvalidFrameError

__all__ = ["NOW", "TRICKS", "Builder", "Interruption", "Liar", "Parser"]


class Interruption(KeyboardInterrupt):
    """Ctrl-C inside a program; the campaign's own Ctrl-C has the base type."""


class Liar(int):
    """An `int` whose value is one number and whose operators say another."""

    def _lie(self, *_: Any) -> int:
        return -(2**40)

    __index__ = __int__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _lie
    __neg__ = __abs__ = __pos__ = __and__ = __rand__ = __or__ = __ror__ = __lshift__ = _lie
    __rshift__ = __floordiv__ = __mod__ = __hash__ = __trunc__ = _lie

    def _agree(self, *_: Any) -> bool:
        return True

    def _deny(self, *_: Any) -> bool:
        return False

    __lt__ = __le__ = __eq__ = _agree  # type: ignore[assignment]
    __gt__ = __ge__ = __ne__ = __bool__ = _deny  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "liar"

    __str__ = __repr__


class Now:
    """The run in progress, for the tricks."""

    splitter: Any = None
    own: list[Any]  # splitters that the engine does not hide
    engine: Any = None
    chunk: Any = None  # what was fed, where it is not `bytes`
    holds = False  # whether the splitter holds bytes or headers
    log: list[Any]  # what the tricks saw, to be compared between the engines
    kept: list[Any]  # what the tricks keep until the program has ended

    def __init__(self) -> None:
        self.own, self.log, self.kept = [], [], []


NOW = Now()
OTHER = Codec.uint(1, magic=b"M")
# What a call in sees of the call around it. What is held then is each engine's own.
ALWAYS_SEEN = ("stream_offset", "pending_header", "skipped", "resyncs", "discarded")
SEEN = (*ALWAYS_SEEN, "pending", "bytes_needed", "headers")


def attempt(call: Callable[..., Any], *arguments: Any) -> None:
    """Make a call and log its outcome."""
    try:
        result: Any = call(*arguments)
    except Exception as error:
        NOW.log.append((type(error), str(error)))
    else:
        # The size of what is given is each engine's own.
        NOW.log.append("memory" if isinstance(result, memoryview) else result)


def call_in() -> None:
    """Call every method of the splitter from inside a call."""
    splitter = NOW.splitter
    if splitter is None:
        return
    attempt(splitter.feed, b"")
    attempt(splitter.feed, bytearray(b"\0\0"))
    attempt(splitter.get_buffer)
    attempt(splitter.get_room, 70_000)
    attempt(splitter.buffer_updated, 1)
    attempt(splitter.feed_eof)
    attempt(splitter.switch, OTHER)
    attempt(splitter.detach)
    for name in ALWAYS_SEEN if NOW.holds else SEEN:
        NOW.log.append(getattr(splitter, name))
    NOW.log += [type(splitter.last_invalid), splitter.error is None]


class Garbage:
    """A reference cycle whose finalizer calls the splitter."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        call_in()


def collect() -> None:
    Garbage()
    gc.collect(0)


def grab() -> None:
    """Find and use what the engine hides, as a debugger or a memory profiler may."""
    for thing in gc.get_objects(0):
        if type(thing) is NOW.engine.Spans:
            try:
                NOW.kept.append(memoryview(thing))
            except (BufferError, TypeError):  # it is refused; TypeError: before Python 3.12
                NOW.kept.append(thing)
        elif type(thing) is NOW.engine.Splitter and all(thing is not own for own in NOW.own):
            for call in (lambda s: s.feed(b"ab"), lambda s: s.get_room(), lambda s: s.detach()):
                # Its sticky error may be the interruption of an earlier program.
                with contextlib.suppress(BaseException):
                    call(thing)


def resize_chunk() -> None:
    if isinstance(NOW.chunk, bytearray):
        attempt(NOW.chunk.extend, b"x" * 5000)


def iterate_and_call_in(items: tuple[Any, ...]) -> Iterator[Any]:
    for item in items:
        call_in()
        yield item


def raise_it(error: type[BaseException]) -> Callable[[], None]:
    def trick() -> None:
        raise error("a trick")

    return trick


def raise_forged() -> None:
    raise InvalidFrameError("forged", stream_offset=-5, header=b"forged")


# Before the answer. What raises has the same meaning for the reference.
RAISING: dict[str, Callable[[], None]] = {
    "ValueError": raise_it(ValueError),
    "RecursionError": raise_it(RecursionError),
    "StopIteration": raise_it(StopIteration),
    "forged": raise_forged,
    "MemoryError": raise_it(MemoryError),
    "Interruption": raise_it(Interruption),
    "SystemExit": raise_it(SystemExit),
    "GeneratorExit": raise_it(GeneratorExit),
}
MEDDLING: dict[str, Callable[[], None]] = {
    "call in": call_in,
    "collect": collect,
    "grab": grab,
    "resize chunk": resize_chunk,
}
# What is answered instead: (size, rest, lead) to what is returned.
ANSWERS: dict[str, Callable[..., Any]] = {
    "liars": lambda size, rest, lead: (Liar(size), Liar(rest), lead),
    "list": lambda *answer: [*answer],
    "generator": lambda *answer: iterate_and_call_in(answer),
    "bytearray": lambda size, rest, lead: (size, rest, bytearray(lead)),
    "bool": lambda size, rest, lead: (size, True, lead),
    "float": lambda size, rest, lead: (float(size), rest, lead),
    "text": lambda *_: "ab",
    "four": lambda *answer: (*answer, 1),
    "no header": lambda size, rest, lead: (0, rest, lead),
    "negative": lambda size, rest, lead: (size, -1, lead),
    "negative liar": lambda size, rest, lead: (size, Liar(-1), lead),
    "long header": lambda size, rest, lead: (10**6 + 1, rest, lead),
    "huge": lambda size, rest, lead: (size, 2**64 - 99, lead),
    "too huge": lambda size, rest, lead: (size, 2**64, lead),
    "far too huge": lambda size, rest, lead: (size, 2**200, lead),
    "lead of text": lambda size, rest, lead: (size, rest, "lead"),
    "long lead": lambda size, rest, lead: (size, rest, b"lead" * 5),
}
# An answer that the reference must be given in another form, as it believes operators.
PLAIN: dict[str, Callable[..., Any]] = {
    "liars": lambda *answer: answer,
    "bool": lambda size, rest, lead: (size, "True", lead),
    "float": lambda size, rest, lead: ("1.0", rest, lead),
    "generator": lambda *answer: answer,
    "negative liar": lambda size, rest, lead: (size, -1, lead),
    "too huge": lambda size, rest, lead: (size, -1, lead),
    "far too huge": lambda size, rest, lead: (size, -1, lead),
}
TRICKS = ["", *RAISING, *MEDDLING, *ANSWERS]


@dataclass(frozen=True)
class Parser:
    """A ``parse`` function; its ``build`` is a `Builder`.

    Args:
        look_ahead: It returns None before it is shown this many bytes.
        early: It returns the sizes before the header is complete.
        leads: It gives the first byte as the lead where bit 6 says so.
        trick: What it does to a frame with bit 7, by name.
    """

    look_ahead: int = 0
    early: bool = False
    leads: bool = False
    trick: str = ""
    plain: bool = False  # for the reference: the same without the tricks that it cannot see

    def __call__(self, view: memoryview) -> Any:
        first = view[0]
        if first & 0x20:
            raise ValueError("bit 5")
        size = 1 + (first & 3)
        if len(view) < max(2 if self.early and size > 2 else size, self.look_ahead):
            return None
        rest = first >> 2 & 7 if size == 1 else int.from_bytes(view[1:size], "big")
        if self.early and size > 2:
            rest = view[1]
        lead = bytes([first]) if self.leads and first & 0x40 else b""
        if first & 0x80:
            if self.trick in RAISING:
                RAISING[self.trick]()
            if self.plain:
                return PLAIN.get(self.trick, ANSWERS.get(self.trick, _answer))(size, rest, lead)
            if self.trick in MEDDLING:
                MEDDLING[self.trick]()
            return ANSWERS.get(self.trick, _answer)(size, rest, lead)
        return (size, rest, lead) if lead else (size, rest)


def _answer(*answer: Any) -> Any:
    return answer


@dataclass(frozen=True)
class Builder:
    """A ``build`` function for the frames that `Parser` reads.

    Args:
        trick: Whether bit 7 is set: "" for never, else where the message's last byte is odd.
    """

    leads: bool = False
    trick: bool = False

    def __call__(self, message: memoryview) -> Any:
        size = len(message)
        if self.leads and size and message[0] & 0x40 and not message[0] & 0x20:
            first, rest = message[0], size - 1
            width = first & 3
            if (width == 0 and first >> 2 & 7 == rest) or (width and rest < 256**width):
                return bytes([first]) + (rest.to_bytes(width, "big") if width else b""), 1
        mark = 0x80 if self.trick and size and message[-1] & 1 else 0
        if size < 8 and not (size and message[0] & 1):
            return bytes([mark | size << 2])
        width = (size.bit_length() + 7) // 8 or 1
        return bytes([mark | width]) + size.to_bytes(width, "big")
