"""The classes of the catalogue: a table of known protocols that is also a mapping."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, final

from .codec import Codec

__all__ = ["Catalogue", "Format", "PktLine", "did_you_mean"]


class PktLine(enum.Enum):
    """The pkt-lines of git that hold no data (gitprotocol-common(5), gitprotocol-v2(5))."""

    FLUSH = 0
    """``0000``: the end of a message."""
    DELIM = 1
    """``0001``: the end of a section."""
    RESPONSE_END = 2
    """``0002``: the end of a response, in stateless connections."""

    def __repr__(self) -> str:
        return f"formats.PktLine.{self.name}"


class Format(NamedTuple):
    """A row of the catalogue."""

    name: str
    codec: Codec[Any]
    description: str
    """One line: what the format is, and what a message holds besides its data."""
    specification: str
    """The document and section that define the shape."""


@final
class Catalogue(Mapping[str, Codec]):
    """Known protocols by name: ``formats["kafka"]``, ``formats.kafka``, ``formats.pkt_line``.

    A mapping from names to codecs. As attributes, names use ``_`` instead of ``-``; ``9p`` is not
    an identifier, so write ``formats["9p"]``. Aliases (``formats["redis"]``) are found like names,
    but the catalogue does not list them.

    Args:
        rows: The formats. Each name must be unique.
        aliases: Other names of these formats: alias to name.

    Raises:
        ValueError: A name is given twice, or an alias has no format.
    """

    __slots__ = ("_aliases", "_formats", "_load", "_names")
    __hash__ = object.__hash__  # sys.modules holds a catalogue, and tools make sets of the modules

    PktLine = PktLine
    """The messages of ``formats.pkt_line`` for the pkt-lines that hold no data."""

    _load: Callable[[], tuple[Iterable[Format], Mapping[str, str]]]

    def __init__(self, rows: Iterable[Format], aliases: Mapping[str, str] | None = None) -> None:
        formats: dict[str, Format] = {}
        others: dict[str, str] = dict(aliases or {})
        for row in rows:
            if row.name in formats or row.name in others:
                raise ValueError(f"two formats have the name {row.name!r}")
            formats[row.name] = row
        for alias, name in others.items():
            if name not in formats:
                raise ValueError(
                    f"the alias {alias!r} means {name!r}, which is not in the catalogue"
                )
        # Stored as a whole: another thread may use a catalogue that is loaded here.
        self._formats: dict[str, Format] = formats
        self._aliases: dict[str, str] = others
        self._names: dict[str, str] = {  # attribute -> name
            name.replace("-", "_"): name for name in (*formats, *others)
        }

    @classmethod
    def _loaded_by(
        cls, load: Callable[[], tuple[Iterable[Format], Mapping[str, str]]]
    ) -> Catalogue:
        """Return a catalogue that is filled when it is first used.

        Args:
            load: Returns the arguments of the class.
        """
        catalogue = cls.__new__(cls)
        catalogue._load = load
        return catalogue

    def __getitem__(self, name: str) -> Codec:
        return self.describe(name).codec

    def __iter__(self) -> Iterator[str]:
        return iter(self._formats)

    def __len__(self) -> int:
        return len(self._formats)

    def __contains__(self, name: object) -> bool:
        return name in self._formats or name in self._aliases

    def __getattr__(self, attribute: str) -> Codec:
        if attribute in ("_aliases", "_formats", "_names"):  # not filled yet
            Catalogue.__init__(self, *self._load())
            return getattr(self, attribute)  # type: ignore[no-any-return]
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        try:
            return self.describe(self._names[attribute]).codec
        except KeyError:
            hint = did_you_mean(attribute, self._names)
            raise AttributeError(f"no format {attribute!r} in the catalogue{hint}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *filter(str.isidentifier, self._names)})

    def __repr__(self) -> str:
        return f"<Catalogue of {len(self)} formats>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Catalogue, (self.table(), self.aliases())

    def describe(self, name: str) -> Format:
        """Return the row of a name or an alias: name, codec, description and specification.

        Raises:
            KeyError: The catalogue has no such name. The text suggests similar names.
        """
        try:
            return self._formats[self._aliases.get(name, name)]
        except KeyError:
            hint = did_you_mean(name, (*self._formats, *self._aliases))
            raise KeyError(f"no format {name!r} in the catalogue{hint}") from None

    def table(self) -> list[Format]:
        """Return all rows in the order of the catalogue."""
        return list(self._formats.values())

    def aliases(self) -> dict[str, str]:
        """Return the other names of formats: alias to name."""
        return dict(self._aliases)


def did_you_mean(wrong: object, names: Iterable[str]) -> str:
    """Return a hint for an error's text, ``; did you mean kafka?``, or "" if no name is similar."""
    import difflib  # here, because only the text of an error needs it

    near = difflib.get_close_matches(str(wrong).lower(), list(names), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
