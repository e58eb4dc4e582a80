"""Memory of bytes-like objects; iterables of messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["list_of_messages", "refuse_one_message", "view_bytes"]


def view_bytes(data: object) -> memoryview:
    """Return the memory of a bytes-like object as a flat view of bytes.

    Both engines call it for what is not plain `bytes`, so that they refuse the same objects in the
    same words.

    Raises:
        TypeError: `data` has no buffer.
        BufferError: Its buffer is not contiguous.
    """
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        hint = "; encode the text first: text.encode()" if isinstance(data, str) else ""
        raise TypeError(
            f"a bytes-like object is required, not {type(data).__name__!r}{hint}"
        ) from None
    if not view.c_contiguous:
        view.release()  # the traceback would hold it
        raise BufferError("the buffer is not contiguous; pass bytes(view) instead")
    if view.format == "B" and view.ndim == 1:
        return view
    try:
        return view.cast("B")
    except (TypeError, ValueError):  # a format that cast() does not know; bytes it has all the same
        return memoryview(view.tobytes())


def list_of_messages(messages: Iterable[Any]) -> list[Any]:
    """Return a new list of what a call that sends many messages was given.

    Raises:
        TypeError: It is one message.
    """
    refuse_one_message(messages, "send")
    return list(messages)


def refuse_one_message(messages: object, call: str) -> None:
    """Refuse one message: iterating over it would give numbers, characters or keys.

    Args:
        messages: What a call that takes several messages was given.
        call: The name of the method for one message.

    Raises:
        TypeError: It is one message.
    """
    if isinstance(messages, bytes | bytearray | memoryview | str | dict):
        raise TypeError(
            f"an iterable of messages is required, not one of type {type(messages).__name__!r}; "
            f"use {call}() for one message"
        )
