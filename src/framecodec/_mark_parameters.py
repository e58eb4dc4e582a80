"""The end marks and escapes of a codec, checked."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ._plain_parameters import check_bool, check_bytes

__all__ = ["check_delimiter", "marks_of"]

LONGEST_MARK = 16
MOST_MARKS = 8


def marks_of(parameters: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Return all end marks; the first one is written."""
    return (parameters["end"], *parameters["more_ends"])


def check_delimiter(parameters: dict[str, Any]) -> dict[str, Any]:
    """Check the marks and the escapes, and return them as fields of a layout.

    Args:
        parameters: ``end``, which is `bytes` already, ``more_ends``, ``escape`` and ``skip_empty``.
            Their values are replaced by plain ones.

    Raises:
        ValueError, TypeError: They contradict each other or cannot be represented.
    """
    if not isinstance(parameters["more_ends"], tuple | list):
        raise TypeError(f"more_ends must be a tuple of bytes, not {parameters['more_ends']!r}")
    more = tuple(check_bytes("an end mark", mark) for mark in parameters["more_ends"])
    parameters["more_ends"] = more
    skip_empty = check_bool(parameters, "skip_empty")
    marks = marks_of(parameters)
    _check_marks(marks)
    if parameters["escape"] is not None:
        parameters["escape"] = _check_escape(parameters["escape"], marks)
    escape = tuple((key[0], value) for key, value in (parameters["escape"] or {}).items())
    return {"marks": marks, "escape": escape, "skip_empty": skip_empty}


def _check_marks(marks: tuple[bytes, ...]) -> None:
    if len(marks) > MOST_MARKS:
        raise ValueError(f"a codec can have {MOST_MARKS} end marks, not {len(marks)}")
    for mark in marks:
        if not 1 <= len(mark) <= LONGEST_MARK:
            raise ValueError(f"an end mark must have 1 to {LONGEST_MARK} bytes, not {mark!r}")
        if marks.count(mark) > 1:
            raise ValueError(f"the end mark {mark!r} is given twice")
        if mark != marks[0] and mark.startswith(marks[0]):
            raise ValueError(
                f"end={marks[0]!r} is how the end mark {mark!r} begins, and is found before it; "
                f"give {mark!r} first, which is then written"
            )


def _check_escape(escape: object, marks: tuple[bytes, ...]) -> Mapping[bytes, bytes] | None:
    if not isinstance(escape, Mapping):
        raise TypeError(f"escape must be a mapping, not {escape!r}")
    plain: dict[bytes, bytes] = {}
    for key, value in escape.items():
        byte, sequence = check_bytes("a key of escape", key), check_bytes("an escape", value)
        if len(byte) != 1:
            raise ValueError(f"a key of escape must be one byte, not {byte!r}")
        if not 2 <= len(sequence) <= LONGEST_MARK:
            raise ValueError(f"an escape must have 2 to {LONGEST_MARK} bytes, not {sequence!r}")
        plain[byte] = sequence
    if not plain:
        return None
    first = next(iter(plain.values()))[:1]
    for sequence in plain.values():
        if sequence[:1] != first:
            raise ValueError(
                f"escapes must begin with one byte: {sequence!r} does not begin with {first!r}"
            )
        others = [*plain.values(), *marks]
        others.remove(sequence)
        for other in others:
            if other.startswith(sequence) or sequence.startswith(other):
                raise ValueError(f"the escape {sequence!r} cannot be told from {other!r}")
    for byte in (first, *(mark[:1] for mark in marks)):
        if byte not in plain:
            what = "begins the escapes" if byte == first else "begins an end mark"
            raise ValueError(f"escape must have the key {byte!r}, which {what}")
    return MappingProxyType(plain)
