"""The constructors of codecs that are made of other codecs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

if TYPE_CHECKING:
    from ._parameters import CommonParameters
    from .codec import Codec

__all__ = ["ChoiceConstructors"]


class ChoiceConstructors:
    """The part of `Codec` that makes codecs of other codecs."""

    @overload
    @classmethod
    def choice(
        cls,
        alternatives: Mapping[Any, Any],
        *,
        offset: int = 0,
        mask: int = 0xFF,
        keep: bool = True,
        tagged: Literal[False] = False,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes]: ...

    @overload
    @classmethod
    def choice(
        cls,
        alternatives: Mapping[Any, Any],
        *,
        offset: int = 0,
        mask: int = 0xFF,
        keep: bool = True,
        tagged: Literal[True],
        **common: Unpack[CommonParameters],
    ) -> Codec[tuple[str, Any]]: ...

    @classmethod
    def choice(
        cls,
        alternatives: Mapping[Any, Any],
        *,
        offset: int = 0,
        mask: int = 0xFF,
        keep: bool = True,
        tagged: bool = False,
        **common: Unpack[CommonParameters],
    ) -> Codec[Any]:
        """Return a codec that reads each frame with one of several codecs.

        One byte of the frame chooses. `encode` takes the first alternative whose frame for the
        message chooses that alternative. A byte that chooses nothing is invalid.

        Args:
            alternatives: A mapping from values of the byte under the mask to codecs: an int,
                `bytes` for any of these values, or None for all others. Choices can be nested.
            offset: Where the byte is, from the frame's first byte: inside each alternative's
                smallest frame.
            mask: The bits of the byte that choose, 1 to 0xFF.
            keep: False: the bits under the mask belong to the codec, which writes them: they are 0
                in the message. Each value is an int then.
            tagged: Alternatives are ``name: (values, codec)``, and messages are ``(name, message)``
                pairs, in both directions.
            **common: `max_message_size` alone has a meaning; the smaller one of it and that of the
                alternative holds.
        """
        own = {
            "alternatives": alternatives,
            "offset": offset,
            "mask": mask,
            "keep": keep,
            "tagged": tagged,
        }
        codec: Codec[Any] = cls._make("choice", own, common)  # type: ignore[attr-defined]
        return codec
