"""The documentation is true: every example in it runs, and its tables are those of the package.

An example is a fenced block of Python that has a prompt (``>>>``). The blocks of a page run in
their order and share their names, as a reader would type them.
"""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framecodec import Codec, formats, parse_codec
from tests.helpers.subprocesses import finish, running

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md"))
# Pages whose every program says what it prints.
LESSONS = [
    "tutorial.md",
    *sorted(f"how-to/{page.name}" for page in PAGES if page.parent.name == "how-to"),
]
TRANSLATED = {
    "zh/index.md": "../README.md",
    "zh/tutorial.md": "tutorial.md",
    "zh/messages-do-not-arrive.md": "messages-do-not-arrive.md",
}
BLOCK = re.compile(r"^```(?:python|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


# Pages of which some programs say what they print: how many.
PROGRAMS = {"sockets.md": 1, "asyncio.md": 7, "testing.md": 2, "anyio.md": 2, "pipes.md": 1}


def examples(page: Path) -> Iterator[doctest.Example]:
    text = page.read_text("utf-8")
    for block in BLOCK.finditer(text):
        first_line = text.count("\n", 0, block.start(1))
        for example in doctest.DocTestParser().get_examples(block[1], str(page)):
            example.lineno += first_line
            yield example


def page_name(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_example_of_a_page_runs_as_it_is_printed(page: Path) -> None:
    found = list(examples(page))
    test = doctest.DocTest(found, {"__name__": "docs"}, page.name, str(page), 0, None)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


@pytest.mark.parametrize(
    "name",
    [
        "cheat-sheet.md",
        "codecs.md",
        "formats.md",
        "messages-do-not-arrive.md",
        "objects.md",
        "sockets.md",
        "testing.md",
    ],
)
def test_a_page_with_examples_has_them(name: str) -> None:
    assert len(list(examples(ROOT / "docs" / name))) >= 10


def programs(name: str, count: int) -> list[tuple[str, str]]:
    """A page's programs that say what they print, and what that is."""
    page = (ROOT / "docs" / name).read_text("utf-8")
    found = []
    for block in BLOCK.finditer(page):
        printed = re.findall(r"# prints (.*)$", block[1], re.MULTILINE)
        if printed:
            found.append((block[1], "".join(f"{line}\n" for line in printed)))
    assert len(found) == count
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "printed"),
    [case for name, count in PROGRAMS.items() for case in programs(name, count)],
)
def test_a_program_on_a_page_prints_what_it_says(program: str, printed: str) -> None:
    with running("-c", program) as process:
        assert finish(process) == printed


def lessons() -> list[tuple[str, str]]:
    """The programs of the lessons."""
    found = []
    for name in LESSONS:
        page = (ROOT / "docs" / name).read_text("utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        found += programs(name, len(blocks))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("program", "printed"), lessons())
def test_a_program_of_a_lesson_prints_what_it_says(program: str, printed: str) -> None:
    if "trustme" in program:
        pytest.importorskip("trustme")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == printed
    assert "Traceback" not in done.stderr  # a server's warning may be there


@pytest.mark.parametrize(("translation", "original"), TRANSLATED.items())
def test_a_translation_has_the_code_of_its_original(translation: str, original: str) -> None:
    block = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
    both = [
        block.findall((ROOT / "docs" / name).read_text("utf-8")) for name in (translation, original)
    ]
    assert both[0] == both[1]
    assert len(both[0]) >= 5


@pytest.mark.parametrize("name", ["zh/tutorial.md", "zh/messages-do-not-arrive.md"])
def test_a_translation_has_the_parts_of_its_original(name: str) -> None:
    # Each heading, row and item has its translation, and each name is in both.
    both = []
    for page in (name, TRANSLATED[name]):
        text = (ROOT / "docs" / page).read_text("utf-8")
        text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        parts = [
            len(re.findall(f"^{mark}", text, re.MULTILINE)) for mark in (r"#+ ", r"\|", "[-*] ")
        ]
        both.append((parts, sorted(set(re.findall(r"`([^`\n]+)`", text)))))
    assert both[0] == both[1]


def console_examples(name: str) -> list[tuple[str, str]]:
    """Return the commands of a page's console blocks, and what each prints."""
    text = (ROOT / "docs" / name).read_text("utf-8")
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = example.partition("\n")
            if not command.startswith("pip "):
                found.append((command, printed))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the page has commands of a Unix shell")
def test_the_commands_of_a_page_print_what_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("rich", reason="the extra cli is not installed")
    found = console_examples("cli.md")
    assert len(found) >= 10
    function = f'framecodec() {{ "{sys.executable}" -m framecodec "$@"; }}\n'
    for command, printed in found:
        done = subprocess.run(
            ["bash", "-c", function + command],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.rstrip("\n") == printed.rstrip("\n"), command
        assert done.stderr == "", command


def test_the_links_of_a_page_lead_to_files() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_links_of_a_page_lead_to_headings() -> None:
    found = 0
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", page.read_text("utf-8")):
            found += 1
            assert anchor in anchors(page.parent / target if target else page), f"{page}: {anchor}"
    assert found > 20


def test_the_examples_in_the_docstrings_of_the_notation_run() -> None:
    module = importlib.import_module("framecodec.notation")
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=2)


def test_the_page_of_codecs_draws_every_parameter() -> None:
    page = (ROOT / "docs" / "codecs.md").read_text("utf-8")
    kinds = ("uint", "struct", "digits", "varint", "text", "headers", "custom")
    made = {
        "uint": Codec.uint(),
        "struct": Codec.struct("I"),
        "digits": Codec.digits(4),
        "varint": Codec.varint(),
        "text": Codec.text(),
        "headers": Codec.headers(),
        "custom": formats.zmtp,
    }
    for kind in kinds:
        assert f"### `{kind}`: " in page
        section = page[page.index(f"### `{kind}`: ") :]
        assert "```text" in section
        for parameter in made[kind].parameters:
            assert parameter in page, f"{kind}: {parameter}"
    for parameter in Codec.uint().parameters:
        if parameter not in ("width", "byteorder", "signed"):
            assert f"### `{parameter}`: " in page


def table_row(name: str) -> str:
    row = formats.describe(name)
    shape = str(row.codec)
    if shape in formats:  # it has no notation
        shape = "code" if row.codec.kind == "custom" else row.codec.kind
    else:
        shape = f"`{shape}`"
    return f"| `{name}` | {shape} | {row.description} | {row.specification} |"


def test_the_page_of_formats_has_the_table_of_the_catalogue() -> None:
    page = (ROOT / "docs" / "formats.md").read_text("utf-8")
    table = page[page.index("\n## The catalogue\n") :].splitlines()
    rows = [line for line in table if line.startswith("| `")]
    assert rows == [table_row(name) for name in formats], "run python -m tests.test_catalogue"


def test_every_notation_on_the_pages_is_read() -> None:
    for page in PAGES:
        for notation in re.findall(r"--codec ([^\s`]+)", page.read_text("utf-8")):
            assert isinstance(parse_codec(notation.strip("'\"")), Codec)


def test_the_tests_and_files_that_contributing_names_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    names = set(re.findall(r"`(test_\w+)`", page))
    assert names
    sources = "".join(path.read_text("utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    for name in names:
        assert f"def {name}(" in sources, name
    for path in re.findall(r"`((?:tests|docs|bench|src)/[\w./-]*)`", page):
        assert (ROOT / path).exists(), path
