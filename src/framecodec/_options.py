"""The options of a connection, which have one meaning wherever a connection is made."""

from __future__ import annotations

from typing import Any, Literal

from ._inbox import Inbox
from ._observer import Observer
from .codec import Codec

__all__ = ["OnInvalid", "OnOversize", "check_options"]

OnOversize = Literal["raise", "skip"]
OnInvalid = Literal["raise", "resync"]


def check_options(
    codec: Codec[Any],
    *,
    message_timeout: float | None,
    idle_timeout: float | None,
    on_oversize: OnOversize,
    on_invalid: OnInvalid,
    observer: object,
) -> dict[str, Any]:
    """Check the options of connections that will be made.

    Returns:
        The options by their names, the observer as `Observer`, as each connection takes them.

    Raises:
        TypeError, ValueError: An option is invalid, or not for this codec.
    """
    options: dict[str, Any] = {
        "message_timeout": message_timeout,
        "idle_timeout": idle_timeout,
        "on_oversize": on_oversize,
        "on_invalid": on_invalid,
    }
    Inbox(codec, **options)
    return {**options, "observer": Observer.of(observer)}
