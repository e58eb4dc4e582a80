"""Constructors of the codecs that have no length: an end mark ends their frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from ._parameters import CommonParameters

if TYPE_CHECKING:
    from .codec import Codec

__all__ = ["MarkedConstructors"]


class MarkedConstructors:
    """The constructors of `Codec` for frames that an end mark ends."""

    @classmethod
    def delimiter(
        cls,
        end: bytes = b"\n",
        *more_ends: bytes,
        escape: Mapping[bytes, bytes] | None = None,
        skip_empty: bool = False,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes]:
        r"""Return a codec whose messages end at an end mark, as lines of text do.

        The earliest mark ends a message; of those that begin at the same byte, the longest. If one
        mark is how another begins (``\r`` and ``\r\n``), the message is delivered at the shorter
        one, and what the longer one has more is ignored if it comes next. A message that would not
        come back as it is cannot be encoded.

        Args:
            end: The end mark that is written, 1 to 16 bytes.
            *more_ends: Others that are read, too; up to 7. `end` must not be how one of them
                begins.
            escape: A mapping from bytes of the message to what travels for them, 2 to 16 bytes
                that all begin with the same one. It must have that byte and the first byte of each
                mark as keys. Other bytes after it are invalid.
            skip_empty: Ignore empty frames. An empty message cannot be encoded.
            **common: See `Codec`. Only `magic`, `min_message_size` and `max_message_size` have a
                meaning; sizes are counted without the escapes.
        """
        own = {"end": end, "more_ends": more_ends, "escape": escape, "skip_empty": skip_empty}
        return cls._make("delimiter", own, common)

    @classmethod
    def cobs(cls, **common: Unpack[CommonParameters]) -> Codec[bytes]:
        """Return a codec for consistent-overhead byte stuffing (Cheshire and Baker, 1999).

        The zeros of a message are replaced by the distance to the next one, one byte in at most
        254, and a zero ends the frame. An empty frame is ignored; a last code 01 that is not
        needed is read.

        Args:
            **common: See `Codec`. Only `magic`, `min_message_size` and `max_message_size` have a
                meaning.
        """
        return cls._make("cobs", {}, common)

    @classmethod
    def _make(
        cls, kind: str, own: dict[str, Any], common: Mapping[str, Any], specials: Any = None
    ) -> Codec[Any]:
        raise NotImplementedError
