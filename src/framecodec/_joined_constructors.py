"""The constructor of codecs whose messages have several frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from ._choice_constructors import ChoiceConstructors

if TYPE_CHECKING:
    from ._parameters import CommonParameters
    from .codec import Codec

__all__ = ["JoinedConstructors"]


class JoinedConstructors(ChoiceConstructors):
    """The part of `Codec` that makes codecs of messages of several frames."""

    @classmethod
    def joined(
        cls,
        fragments: Codec[bytes],
        *,
        last: tuple[int, int, int] | None = None,
        full: int | None = None,
        strip: int = 0,
        keep_first: bool = False,
        counter: int | None = None,
        fragment_size: int | None = None,
        max_fragments: int = 1024,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes]:
        """Return a codec whose messages travel in one or several frames, the fragments.

        A message is the contents of its fragments, joined. Exactly one of `last` and `full` says
        where it ends. More than `max_fragments` fragments are invalid.

        Args:
            fragments: The codec of one fragment: of `uint`, `struct` or `digits`.
            last: ``(offset, mask, value)``: in the last fragment the frame's byte at the offset has
                this value under the mask. It is among the bytes that `strip` takes off.
            full: A fragment whose content has this many bytes is followed by another.
            strip: Bytes of each fragment's message before its content. They are in no message.
            keep_first: Those of the first fragment are in the message, before the contents; the
                bits of `last` are 0 there.
            counter: The frame's offset of a byte that `encode` counts up from fragment to fragment,
                from 0, or from its value in the message. It is not verified.
            fragment_size: Bytes of content of the fragments that `encode` writes. Default: `full`,
                or as many as a fragment can have.
            max_fragments: The most fragments of one message.
            **common: `max_message_size` alone has a meaning: the most bytes of a message.
        """
        own: dict[str, Any] = {
            "fragments": fragments,
            "last": last,
            "full": full,
            "strip": strip,
            "keep_first": keep_first,
            "counter": counter,
            "fragment_size": fragment_size,
            "max_fragments": max_fragments,
        }
        codec: Codec[bytes] = cls._make("joined", own, common)  # type: ignore[attr-defined]
        return codec
