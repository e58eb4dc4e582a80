"""Size limits of the package: of modules, classes, nesting and `FrameSocket`.

``python -m tests.test_code_limits`` prints what exceeds them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# The source tree: an installed wheel has no sources of the compiled modules.
PACKAGE = Path(__file__).parents[1] / "src" / "framecodec"
LIMITS = {
    "module": 650,  # lines
    "class": 450,  # lines
    "nesting": 4,  # blocks inside each other in one function
    "attributes": 15,  # of FrameSocket
}

# What exceeds a limit today, one a line. This list only shrinks.
EXCEPTIONS = """
class serving/_messages_loop.pyx MessageLoop
class _splitter.pyx Splitter
"""

BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def depth_of(node: ast.AST) -> int:
    """Return how many blocks are inside each other; an `elif` is no deeper than its `if`."""
    depth = 0
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        is_elif = name == "orelse" and len(children) == 1 and isinstance(node, ast.If)
        for child in children:
            if not isinstance(child, ast.AST) or isinstance(child, (*FUNCTIONS, ast.ClassDef)):
                continue
            found = depth_of(child)
            if isinstance(child, BLOCKS) and not (is_elif and isinstance(child, ast.If)):
                found += 1
            depth = max(depth, found)
    return depth


def attributes_of(cls: ast.ClassDef) -> set[str]:
    """Return the attributes that a class's methods set on their instance, and its slots."""
    found = set()
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                found.add(node.attr)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            found |= {*ast.literal_eval(node.value)}
    return found - {"__weakref__", "__dict__"}


def python_sizes(name: str, text: str) -> Iterator[tuple[str, str, int]]:
    """Yield each limit, what it applies to in a module, and the size."""
    yield "module", name, text.count("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            yield "class", f"{name} {node.name}", node.end_lineno - node.lineno + 1
            if node.name == "FrameSocket":
                yield "attributes", f"{name} {node.name}", len(attributes_of(node))
        elif isinstance(node, FUNCTIONS):
            yield "nesting", f"{name} {node.name}", depth_of(node)


def cython_sizes(name: str, text: str) -> Iterator[tuple[str, str, int]]:
    for found in re.finditer(r"^cdef class (\w+).*:\n((?:[ ].*\n|\n)+)", text, re.MULTILINE):
        yield "class", f"{name} {found[1]}", found[0].rstrip().count("\n") + 1


def too_large() -> dict[str, int]:
    """Return the size of everything that exceeds its limit."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py*")):
        sizes = {".py": python_sizes, ".pyx": cython_sizes}.get(path.suffix)
        if sizes is None:
            continue
        name = path.relative_to(PACKAGE).as_posix()
        for limit, what, size in sizes(name, path.read_text(encoding="utf-8")):
            if size > LIMITS[limit]:
                found[f"{limit} {what}"] = size
    return found


TOO_LARGE = too_large()
LISTED = EXCEPTIONS.strip().splitlines()


def test_nothing_exceeds_the_limits_but_the_exceptions() -> None:
    new = {what: size for what, size in TOO_LARGE.items() if what not in LISTED}
    assert not new, f"too large: {new}; the limits are {LIMITS}"


def test_the_list_of_exceptions_only_shrinks() -> None:
    done = [what for what in LISTED if what not in TOO_LARGE]
    assert not done, f"within the limits or moved: remove from EXCEPTIONS: {done}"


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        ("return 1", 0),
        ("if x:\n  return\n elif y:\n  return\n else:\n  pass", 1),
        ("if x:\n  for y in x:\n   pass", 2),
        ("try:\n  with x:\n   while y:\n    pass\n except E:\n  if z:\n   pass", 3),
        ("if x:\n  pass\n else:\n  if y:\n   pass\n  z()", 2),
        ("def inner():\n  if x:\n   pass", 0),
    ],
)
def test_depth_counts_blocks_inside_each_other(body: str, depth: int) -> None:
    function = ast.parse(f"def f():\n {body}").body[0]
    assert depth_of(function) == depth


def test_attributes_are_slots_and_assignments() -> None:
    text = "class A:\n __slots__ = ('a', '__weakref__')\n def f(self):\n  self.b, x.c = 1, 2"
    (cls,) = ast.parse(text).body
    assert isinstance(cls, ast.ClassDef)
    assert attributes_of(cls) == {"a", "b"}


def test_a_class_in_cython_ends_at_the_next_line_without_indentation() -> None:
    text = "cdef class A:\n    x\n\n    y\n\n\ncdef class B(A):\n    z\ndef f(): pass\n"
    assert list(cython_sizes("m.pyx", text)) == [("class", "m.pyx A", 4), ("class", "m.pyx B", 2)]


if __name__ == "__main__":
    for what, size in TOO_LARGE.items():
        print(f"{size:5} {what}")
