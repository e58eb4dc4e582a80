"""Imports go one way: a module imports only from the layers before its own.

`LAYERS` declares the order. The table in docs/architecture.md is printed from it:
``python -m tests.test_imports`` writes it there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import framecodec

PACKAGE = Path(framecodec.__file__).parent
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
MARKS = ("<!-- modules -->\n", "<!-- /modules -->\n")

# Every module and its purpose, from the first layer to the last. Modules of one layer do not import
# each other.
LAYERS = [
    {
        "_bytes_like.py": "the memory of a bytes-like object",
        "_layout.py": "a frame's shape as plain numbers, for the engines",
        "errors.py": "the exceptions that users catch",
    },
    {"_likely_causes.py": "guesses why a peer's bytes are not the frames that the codec expects"},
    {"_error_texts.py": "the texts of errors that several modules raise"},
    {
        "_batch.py": "the messages of one receive, taken out one by one",
        "_loop_senders.py": "sends that wait in an event loop, first in, first out",
        "_shapes.py": "parse and build functions of the formats whose shape needs code",
        "_socket_face.py": "the part of a socket's interface that all wrappers share",
        "_waiting.py": "wait for a socket until a deadline",
    },
    {
        "_custom_header.py": "headers that functions of the user read and build",
        "_header_block.py": "headers that are `Name: value` lines",
        "_parameters.py": "a codec's arguments, checked and turned into a layout",
    },
    {
        "_splitter.pyx": "the compiled engine",
        "_splitter_py.py": "the engine in Python; read it as the specification of the compiled one",
    },
    {"_engine.py": "chooses the engine, compiled or Python, once for all modules"},
    {"splitter.py": "the public names of the engine in use"},
    {"codec.py": "`Codec`: constructors and verbs"},
    {
        "_outbox.py": "messages that were accepted for sending and are still unsent",
        "catalogue.py": "`formats`: the known protocols, a table",
        "datagrams.py": "`DatagramSocket`: messages in datagrams",
    },
    {
        "_transfer.py": "messages that are never in memory as a whole: files, large buffers",
        "notation.py": "`parse_codec` and `format_codec`: a codec as one line of text",
    },
    {
        "_loop_datagrams.py": "datagrams in an event loop",
        "_loop_io.pyx": "the fast path of a message through an event loop, compiled",
        "_loop_io_py.py": "the same in Python",
        "_socket_io.pyx": "the fast path of a message through a socket, compiled",
        "_socket_io_py.py": "the same in Python",
    },
    {
        "asyncio.py": "connections in an event loop",
        "sockets.py": "connections on blocking sockets",
    },
    {"socketserver.py": "connections of the standard library's `socketserver`"},
    {"testing/": "the test kit for users"},
    {"cli/": "the command line"},
    {"__main__.py": "`python -m framecodec`"},
]


def module_of(file: str) -> str:
    return file.removesuffix("/").removesuffix(".pyx").removesuffix(".py")


LAYER_OF = {module_of(file): number for number, layer in enumerate(LAYERS) for file in layer}

# Imports from a later layer. Each is inside a function, for the reason given.
EXCEPTIONS = {
    ("codec", "notation"),  # str(codec) is the notation, which uses codecs
    # The engine is chosen once for all modules, by their names.
    ("_engine", "_loop_io_py"),
    ("_engine", "_socket_io_py"),
}


def source_files() -> list[Path]:
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"  # it exports names of every module
    )


def imported_modules(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each module of the package that a file imports, and whether inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING")
        for node in ast.walk(block)
    }
    depth = len(path.relative_to(PACKAGE).parts)  # of the package, in dots of a relative import
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            module = f"{node.module}." if node.module else ""
            names = [f"framecodec.{module}{alias.name}" for alias in node.names]
        else:
            continue  # inside one folder
        for name in names:
            top, _, rest = name.partition(".")
            if top == "framecodec" and rest.split(".")[0] in LAYER_OF:
                yield rest.split(".")[0], id(node) in inside


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_earlier_layers(path: Path) -> None:
    module = module_of(path.relative_to(PACKAGE).parts[0])
    assert module in LAYER_OF, f"add {module} to a layer in LAYERS"
    wrong = {
        imported
        for imported, inside in imported_modules(path)
        if imported != module
        and LAYER_OF[imported] >= LAYER_OF[module]
        and not (inside and (module, imported) in EXCEPTIONS)
    }
    assert not wrong


def test_the_walk_finds_imports() -> None:
    # A walk that finds nothing would accept every file.
    assert {"_error_texts", "_layout", "_parameters", "splitter"} <= {
        module for module, _ in imported_modules(PACKAGE / "codec.py")
    }
    assert ("_engine", False) in set(imported_modules(PACKAGE / "splitter.py"))
    assert ("_splitter_py", True) in set(imported_modules(PACKAGE / "_engine.py"))
    assert ("notation", True) in set(imported_modules(PACKAGE / "codec.py"))


def test_the_compiled_engine_imports_what_the_python_engine_imports() -> None:
    pyx = PACKAGE / "_splitter.pyx"
    if not pyx.exists():  # an installed wheel has no source of the compiled engine
        pyx = ROOT / "src" / "framecodec" / "_splitter.pyx"
    modules = set()
    for line in pyx.read_text(encoding="utf-8").splitlines():
        if line.startswith("from . import "):
            modules |= set(line.removeprefix("from . import ").split(", "))
        elif line.startswith("from ."):
            modules.add(line.split()[1].strip("."))
    assert modules == {module for module, _ in imported_modules(PACKAGE / "_splitter_py.py")}


def table() -> str:
    """Return the layers as a table in Markdown, without modules that do not exist yet."""
    rows = ["| layer | module | purpose |", "| ---: | --- | --- |"]
    existing = {module_of(path.relative_to(PACKAGE).parts[0]) for path in source_files()}
    existing |= {module_of(file) for layer in LAYERS for file in layer if file.endswith(".pyx")}
    number = 0
    for layer in LAYERS:
        files = [file for file in layer if module_of(file) in existing]
        number += bool(files)
        rows += [f"| {number} | `{file}` | {layer[file]} |" for file in files]
    return "".join(f"{row}\n" for row in rows)


def test_the_page_about_the_architecture_has_the_table_of_layers() -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    assert before
    assert rest.partition(MARKS[1])[0] == table(), "run python -m tests.test_imports"


if __name__ == "__main__":
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    PAGE.write_text(before + mark + table() + end + after, encoding="utf-8")
