"""The types of messages, for type checkers: `Codec[bytes]`, `FrameSocket[Point]`.

A class with messages is generic in their type. At run time it can be subscripted, and that changes
nothing.
"""

from __future__ import annotations

from types import GenericAlias
from typing import TYPE_CHECKING, Any

__all__ = ["MessageT", "ObjectT", "OfMessages", "SpecialT"]

if TYPE_CHECKING:
    from typing import Generic, Never

    from typing_extensions import TypeVar

    MessageT = TypeVar("MessageT", default=bytes)
    """The type of a codec's messages; `bytes` unless the program says otherwise."""

    SpecialT = TypeVar("SpecialT", default=Never)
    """The type of a codec's ``specials``, besides `bytes`."""

    ObjectT = TypeVar("ObjectT")
    """The type of the objects that two functions of a program make and take."""

    class OfMessages(Generic[MessageT]):
        """A class that is generic in the type of its messages."""

        __slots__ = ()

else:
    from typing import TypeVar

    MessageT = TypeVar("MessageT")
    SpecialT = TypeVar("SpecialT")
    ObjectT = TypeVar("ObjectT")

    class OfMessages:
        """A class that can be subscripted with the type of its messages."""

        __slots__ = ()

        __class_getitem__: Any = classmethod(GenericAlias)
