"""The known protocols: the object `formats`.

The classes are in `_catalogue`, the rows in the folder ``_formats``. Type checkers and editors read
``catalogue.pyi``, which has each format as an attribute; ``python -m tests.test_catalogue`` writes
it.
"""

from __future__ import annotations

from ._catalogue import Catalogue, Format, PktLine
from ._catalogue import did_you_mean as did_you_mean

__all__ = ["Catalogue", "Format", "PktLine", "formats"]

for _class in (Catalogue, Format, PktLine):
    _class.__module__ = __name__


def _load() -> tuple[tuple[Format, ...], dict[str, str]]:
    from ._formats import ALIASES, ROWS  # here: most programs need one format or none

    return ROWS, ALIASES


formats = Catalogue._loaded_by(_load)
