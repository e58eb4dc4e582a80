"""Several layouts on one stream: a byte of each frame chooses between them.

A choice is made once, when its codec is made: nested choices become one tree, whose inner points
are `Node` objects and whose ends are the layouts of the alternatives. Both engines walk it for each
frame, and then read the frame as any other of the chosen layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from . import _error_texts, errors
from ._bytes_like import view_bytes
from ._layout import Layout

__all__ = [
    "NOTHING",
    "Choice",
    "Condition",
    "Node",
    "Places",
    "check_start_of",
    "choice_parts",
    "choose",
    "tagged",
    "wrong_choice",
]

NOTHING = -32768  # in Node.nexts: the byte chooses nothing


class Node(NamedTuple):
    """A byte that chooses.

    `nexts` has an item for each value of the byte: from 0 up the alternative, from -2 down another
    node (-1 - its number), or `NOTHING`.
    """

    offset: int  # of the byte, in the frame
    mask: int
    nexts: tuple[int, ...]
    magic: bytes  # what all frames that come here begin with


class Condition(NamedTuple):
    """What an alternative needs of a byte that the message has."""

    offset: int  # in the frame
    mask: int
    values: frozenset[int]  # of the whole byte


Places = tuple[tuple[int, frozenset[int]], ...]


class Choice(NamedTuple):
    """The tree of a choice, and its alternatives in the order in which `encode` tries them."""

    nodes: tuple[Node, ...]  # the first one is the root
    layouts: tuple[Layout, ...]
    tags: tuple[tuple[Any, ...], ...]  # of each alternative: the names, the outermost first
    conditions: tuple[tuple[Condition, ...], ...]  # of each alternative
    # Of each alternative: positions in the message, and the bytes that choose it there.
    places: tuple[Places, ...]

    @property
    def has_lead(self) -> bool:
        """Return whether some messages are not in one piece in their frames."""
        leads = any(layout.message_lead or layout.own_bits for layout in self.layouts)
        return leads or any(self.tags)


def choose(choice: Choice, data: bytes | bytearray, pos: int = 0) -> tuple[int | None, int]:
    """Return the alternative of the frame at a position.

    Returns:
        The alternative's number, and the number of the last node that was asked. The first is None
        if the data ends before that node's byte, and `NOTHING` if the byte chooses nothing.
    """
    number = 0
    while True:
        offset, _, nexts, _ = choice.nodes[number]
        if len(data) <= pos + offset:
            return None, number
        found = nexts[data[pos + offset]]
        if found >= 0 or found == NOTHING:
            return found, number
        number = -1 - found


def check_start_of(choice: Choice, number: int, header: bytes, stream_offset: int) -> None:
    """Raise if the header does not begin as all frames do that come to a node."""
    magic = choice.nodes[number].magic
    if not header.startswith(magic[: len(header)]):
        right = next(pos for pos, byte in enumerate(magic) if header[pos] != byte)
        raise _error_texts.wrong_magic(magic, stream_offset, header[: right + 1])


def wrong_choice(
    choice: Choice, number: int, stream_offset: int, header: bytes
) -> errors.InvalidFrameError:
    """Return the error about a byte that chooses nothing."""
    node = choice.nodes[number]
    return _error_texts.invalid_frame(
        f"{_found_text(node, header[node.offset])} {_allowed_text(node)}", stream_offset, header
    )


def _found_text(node: Node, byte: int) -> str:
    masked = (
        "" if node.mask == 0xFF else f" ({byte & node.mask:#04x} under the mask {node.mask:#04x})"
    )
    return f"the byte {byte:#04x} at offset {node.offset} of the frame{masked} chooses nothing;"


def _allowed_text(node: Node) -> str:
    allowed = sorted({value & node.mask for value in range(256) if node.nexts[value] != NOTHING})
    shown = ", ".join(f"{value:#04x}" for value in allowed[:16])
    return f"allowed are {shown}{', ...' if len(allowed) > 16 else ''}"


# --- encoding -------------------------------------------------------------------------------------


class _FrameParts(Protocol):
    def frame_parts(self, message: object, /) -> list[Any]:
        """Return a frame as a list of buffers."""


def choice_parts(choice: Choice, encoders: list[_FrameParts], message: Any) -> list[Any]:
    """Return the frame of a message by the first alternative that its frame chooses.

    Args:
        choice: The tree.
        encoders: The encoder of each alternative.
        message: The message, with its names if the choice is tagged.

    Raises:
        FrameError, TypeError, BufferError: No alternative fits: the error of the alternative that
            the message itself names, else of the first one that is not about its size.
    """
    named: list[Exception] = []
    others: list[Exception] = []
    passed_over: list[tuple[int, Any]] = []
    for number, payload in _candidates(choice, message):
        places = choice.places[number]
        if places and not _has(places, payload):
            passed_over.append((number, payload))
            continue
        try:
            parts = encoders[number].frame_parts(payload)
        except MemoryError:
            raise
        except Exception as error:  # what build() of a custom alternative raises, too
            error.with_traceback(None)  # its frames hold the message
            (named if places else others).append(error)
            continue
        found = _choose_by_parts(choice, parts)
        if found == number:
            return parts
        others.append(_not_chosen(choice, found))
    if not named and not others:
        others = _errors_of(choice, encoders, passed_over)
    raise _most_telling(named or others or [_not_chosen(choice, None)])


def _errors_of(
    choice: Choice, encoders: list[_FrameParts], tries: list[tuple[int, Any]]
) -> list[Exception]:
    """Return the errors about a message that names no alternative, if all say it is too large."""
    found: list[Exception] = []
    for number, payload in tries:
        try:
            encoders[number].frame_parts(payload)
        except errors.MessageTooLargeError as error:
            found.append(error.with_traceback(None))
        except Exception:
            return []
        else:
            return []
    return found


def _has(places: Places, message: Any) -> bool:
    """Return whether a message has the bytes that choose an alternative, as far as it is bytes."""
    if type(message) is not bytes:
        try:
            message = view_bytes(message)
        except (TypeError, BufferError):
            return True
    return all(pos >= len(message) or message[pos] in values for pos, values in places)


def _candidates(choice: Choice, message: Any) -> Iterator[tuple[int, Any]]:
    """Yield the alternatives that a message can be for, and the message without its names."""
    if not any(choice.tags):
        yield from ((number, message) for number in range(len(choice.layouts)))
        return
    known = False
    for number, tag in enumerate(choice.tags):
        payload = message
        for name in tag:
            if not isinstance(payload, tuple) or len(payload) != 2:
                raise TypeError(
                    f"a message of a tagged choice is (name, message), not {type(payload).__name__}"
                )
            if payload[0] != name:
                break
            payload = payload[1]
        else:
            known = True
            yield number, payload
    if not known:
        names = ", ".join(repr(tag[0]) for tag in dict.fromkeys(choice.tags) if tag)
        raise _error_texts.unsayable_message(
            f"no alternative has the name {message[0]!r}; the names are {names}"
        )


def _choose_by_parts(choice: Choice, parts: list[Any]) -> int | None:
    needed = max(node.offset for node in choice.nodes) + 1
    start = b""
    for part in parts:
        start += bytes(memoryview(part)[: needed - len(start)])
    return choose(choice, start)[0]


def _not_chosen(choice: Choice, found: int | None) -> errors.InvalidFrameError:
    where = "no alternative" if found in (None, NOTHING) else "another alternative"
    offsets = ", ".join(str(offset) for offset in sorted({node.offset for node in choice.nodes}))
    return _error_texts.unsayable_message(
        f"the frame would choose {where} (byte {offsets} of the frame); "
        f"{_allowed_text(choice.nodes[0])}"
    )


def _most_telling(found: list[Exception]) -> Exception:
    too_large = [error for error in found if isinstance(error, errors.MessageTooLargeError)]
    if len(too_large) == len(found):
        return max(too_large, key=lambda error: error.limit or 0)
    return next(error for error in found if error not in too_large)


def tagged(tag: tuple[Any, ...], message: Any) -> Any:
    """Return a message with the names of its alternative."""
    for name in reversed(tag):
        message = (name, message)
    return message
