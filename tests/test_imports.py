"""The rooms of the house import only from rooms below them, so that data flows one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import framecodec

PACKAGE = Path(framecodec.__file__).parent

# From the lowest to the highest. Rooms of one row do not know each other.
ROOMS = [
    {"errors"},
    {"_batch", "_socket_face", "_waiting"},
    {"_layout"},
    {"_custom_header", "_header_block"},  # what both engines share
    {"_splitter_py", "_splitter"},
    {"splitter"},
    {"codec"},
    {"formats", "_outbox", "datagrams"},
    {"_transfer"},
    {"_socket_io", "_socket_io_py", "_loop_io", "_loop_io_py", "_loop_datagrams"},
    {"sockets", "asyncio"},
    {"socketserver"},
    {"testing"},
    {"cli"},
    {"__main__"},
]
HEIGHTS = {room: height for height, rooms in enumerate(ROOMS) for room in rooms}

# What a room may call from above, inside a function and for the reason given.
EXCEPTIONS = {
    ("codec", "formats"),  # str(codec) is the notation, which uses the names of known formats
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".pyx").removesuffix(".py")


def source_files() -> list[Path]:
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"  # the face: it may see every room
    )


def imported_rooms(path: Path) -> Iterator[tuple[str, bool]]:
    """The package's rooms that a file imports, and whether only inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
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
            continue  # within a room of many files
        for name in names:
            top, _, rest = name.partition(".")
            if top == "framecodec" and rest.split(".")[0] in HEIGHTS:
                yield rest.split(".")[0], id(node) in inside


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_below(path: Path) -> None:
    room = room_of(path)
    assert room in HEIGHTS, f"{room} has no place in the house; give it one in ROOMS"
    upward = {
        imported
        for imported, inside in imported_rooms(path)
        if imported != room
        and HEIGHTS[imported] >= HEIGHTS[room]
        and not (inside and (room, imported) in EXCEPTIONS)
    }
    assert not upward


def test_the_walk_sees_the_imports_it_judges() -> None:
    # A walk that finds nothing would pass every file.
    assert {"errors", "_layout", "splitter"} <= {
        room for room, _ in imported_rooms(PACKAGE / "codec.py")
    }
    assert ("_splitter_py", False) in set(imported_rooms(PACKAGE / "splitter.py"))


def test_the_compiled_engine_imports_what_the_python_engine_imports() -> None:
    pyx = PACKAGE / "_splitter.pyx"
    if not pyx.exists():  # an installed wheel has no source of the compiled engine
        pyx = Path(__file__).parent.parent / "src" / "framecodec" / "_splitter.pyx"
    lines = pyx.read_text(encoding="utf-8").splitlines()
    rooms = {line.split()[1].strip(".") for line in lines if line.startswith("from .")}
    rooms |= {"errors" for line in lines if line.startswith("from . import errors")}
    rooms.discard("")
    assert rooms == {room for room, _ in imported_rooms(PACKAGE / "_splitter_py.py")}
