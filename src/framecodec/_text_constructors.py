"""Constructors of the codecs whose length is text: digits, or a header line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack

from ._parameters import CommonParameters

if TYPE_CHECKING:
    from ._message_types import SpecialT
    from .codec import Codec

__all__ = ["TextConstructors"]


class TextConstructors:
    """The constructors of `Codec` for lengths that are text."""

    @classmethod
    def digits(
        cls,
        width: int,
        *,
        base: Literal[10, 16, "bcd"] = 10,
        specials: Mapping[int, SpecialT] | None = None,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes | SpecialT]:
        """Return a codec whose length is `width` ASCII digits: ``str(n).zfill(width)``.

        Args:
            width: Digits of the field, with leading zeros, 1 to 64.
            base: 10 or 16. Hexadecimal digits are written in lower case and read in both cases.
                "bcd": packed decimal, `width` bytes of two digits each, most significant first.
            specials: See `Codec`.
            **common: See `Codec`.
        """
        return cls._make("digits", {"width": width, "base": base}, common, specials)

    @classmethod
    def text(
        cls,
        end: bytes = b":",
        *,
        base: Literal[10, 16] = 10,
        leading_zeros: bool = False,
        trailing_blanks: bool = False,
        max_digits: int = 20,
        specials: Mapping[int, SpecialT] | None = None,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes | SpecialT]:
        """Return a codec whose length is ASCII digits up to an end mark, as in netstrings.

        Args:
            end: The end mark, 1 to 16 bytes.
            base: 10 or 16. Hexadecimal digits are written in lower case and read in both cases.
            leading_zeros: Read lengths with leading zeros, which are invalid otherwise.
            trailing_blanks: Read spaces and tabs between the digits and the end mark, which are
                invalid otherwise.
            max_digits: The most digits, leading zeros and trailing blanks included, 1 to 64.
            specials: See `Codec`.
            **common: See `Codec`. `length_includes` must be ``"rest"``. A special value may be
                negative: ``{-1: None}`` reads and writes ``-1``.
        """
        own: dict[str, Any] = {"end": end, "base": base, "leading_zeros": leading_zeros}
        own |= {"trailing_blanks": trailing_blanks, "max_digits": max_digits}
        return cls._make("text", own, common, specials)

    @classmethod
    def headers(
        cls,
        name: str = "Content-Length",
        *,
        names: Iterable[str] = (),
        line_end: bytes = b"\r\n",
        lenient: bool = False,
        start_line: bool | bytes | tuple[bytes, ...] = False,
        keep: bool = False,
        max_header: int = 8192,
        **common: Unpack[CommonParameters],
    ) -> Codec[bytes]:
        r"""Return a codec for blocks of ``Name: value\r\n`` lines, as in LSP, DAP and JSON-RPC.

        An empty line ends the block. Names are read in any case, other headers are ignored. A block
        without the header, or with two of them, is invalid.

        Args:
            name: The header that holds the length, in decimal digits.
            names: Other names of it, which are read, too.
            line_end: What ends a line, CR LF or LF.
            lenient: Read lines with either end, and lengths with leading zeros.
            start_line: The first line is no header (HTTP, SIP). Needs `keep`. A protocol
                (``b"SIP/2.0"``) or a tuple of them: the line must begin or end with one of them.
            keep: The message is the whole block and the body, which is empty without the header.
            max_header: Bytes of the largest block.
            **common: See `Codec`. `length_offset` must be None and `length_includes` ``"rest"``.
        """
        own = {"name": name, "names": names, "line_end": line_end, "lenient": lenient}
        own |= {"start_line": start_line, "keep": keep, "max_header": max_header}
        return cls._make("headers", own, common)

    @classmethod
    def _make(
        cls, kind: str, own: dict[str, Any], common: Mapping[str, Any], specials: Any = None
    ) -> Codec[Any]:
        raise NotImplementedError
