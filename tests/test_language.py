"""Plain English: a check for idioms that this project does not use.

Every source file and page is checked. ``python -m tests.test_language [FILE]...`` prints what it
finds, in all files or in the given ones. CONTRIBUTING.md has the rules.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", "bench", "docs", "examples", "src", "tests", "tools")
SUFFIXES = (".md", ".pxd", ".py", ".pyi", ".pyx")
GENERATED = {"build", "results", "__pycache__"}

# An idiom, and the plain word for it. A space matches any white space, also a line's end in a
# comment. Names such as `get_room` do not count: an underscore is part of a word.
IDIOMS = {
    "ahead of": "before",
    "at hand": "ready, available",
    "behind": "after",
    "face": "interface",
    "goes on": "continues",
    "him": "the thread, the caller",
    "in front of": "before",
    "is had": "is",
    "is none": "is invalid, does not exist",
    "nobody": "no thread, no caller",
    "of its own": "its own, separate",
    "rooms?": "module, capacity, budget, space",
    "so many": "that many",
    "somebody": "another thread, a caller",
    "stands?": "is",
    "that is no": "that is not",
    "to be had": "available",
    "wants": "needs",
    "whoever": "the caller, the thread",
}


def pattern(idiom: str) -> re.Pattern[str]:
    first = idiom[0]  # a capital at the start of a sentence; but "is None" is Python
    return re.compile(rf"\b[{first.upper()}{first}]{idiom[1:]}\b".replace(" ", r"[\s#*]+"))


PATTERNS = {idiom: pattern(idiom) for idiom in IDIOMS}

# A page may quote the text of an error; the module that makes the text is checked instead.
QUOTED_ERROR = re.compile(r"^(\w+\.)*\w+Error: .*$", re.MULTILINE)


def findings(text: str, *, is_page: bool = False) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the words and the plain words of each idiom in a text."""
    if is_page:
        text = QUOTED_ERROR.sub("", text)
    for idiom, plain in IDIOMS.items():
        for match in PATTERNS[idiom].finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), plain


def all_files() -> dict[str, Path]:
    paths = [*ROOT.glob("*.md"), *ROOT.glob("*.py")]
    for folder in FOLDERS:
        paths += (ROOT / folder).rglob("*")
    return {
        path.relative_to(ROOT).as_posix(): path
        for path in sorted(paths)
        if path.suffix in SUFFIXES and not GENERATED & {*path.parts} and path != Path(__file__)
    }


def findings_in(paths: Iterable[Path]) -> list[str]:
    return [
        f"{path}:{line}: {words!r}: write {plain}"
        for path in paths
        for line, words, plain in findings(
            path.read_text(encoding="utf-8"), is_page=path.suffix == ".md"
        )
    ]


FILES = all_files()


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_in_plain_english(name: str) -> None:
    result = findings_in([FILES[name]])
    assert not result, "\n".join(result)


def test_ruff_checks_all_docstrings_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ignores = settings["tool"]["ruff"]["lint"]["per-file-ignores"]
    assert not [
        name
        for name, rules in ignores.items()
        if name.startswith("src/") and any(rule.startswith("D") for rule in rules)
    ]


@pytest.mark.parametrize("idiom", IDIOMS)
def test_the_check_finds_each_idiom(idiom: str) -> None:
    words = idiom.replace("?", "")
    line_end = words.replace(" ", "\n    # ")
    sentence = words[0].upper() + words[1:]
    for text in (f"# one\n# x {words}, y", f"# one\n# {sentence} x", f"# one\n    # {line_end}."):
        assert [(line, plain) for line, _, plain in findings(text)] == [(2, IDIOMS[idiom])]
    name = words.replace(" ", "_")
    assert not list(findings(f"get_{name}(); {name}_at; x{name}x"))


def test_the_check_leaves_out_quoted_errors_on_pages_only() -> None:
    text = "framecodec.errors.InvalidFrameError: 1 bytes behind\n"
    assert not list(findings(text, is_page=True))
    assert list(findings(text))
    assert list(findings(f"{text}one behind the other\n", is_page=True)) == [(2, "behind", "after")]


if __name__ == "__main__":
    chosen = [Path(name) for name in sys.argv[1:]]
    output = findings_in(chosen or FILES.values())
    print("\n".join(output) or "no idioms found")
    sys.exit(bool(output))
