"""The public interface: names, when modules are loaded, and the choice of the engine."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import pathlib
import pickle
import socket
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import framecodec
from tests.helpers.engines import ENGINES

# Names of `import framecodec` that never change; a new module adds its own here.
NAMES = {
    "ACCELERATED",
    "Codec",
    "DatagramSocket",
    "FrameError",
    "FramePipe",
    "FrameSocket",
    "IncompleteFrameError",
    "InvalidFrameError",
    "MessageTooLargeError",
    "Splitter",
    "TruncatedDatagramError",
    "connect",
    "formats",
    "guess",
    "listen",
    "parse_codec",
    "serve",
    "serve_messages",
}
ON_FIRST_USE = {"asyncio", "socketserver", "testing"}

MODULES = [
    path.stem
    for path in pathlib.Path(framecodec.__file__).parent.glob("*.py")
    # Of the error texts, callers name the module and not the functions.
    if not path.stem.startswith("__") and path.stem != "_error_texts"
]


def python(code: str, **environment: str) -> str:
    """Return what a new interpreter prints; it imports the framecodec that this one did."""
    paths = [str(pathlib.Path(framecodec.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={
            **{name: value for name, value in os.environ.items() if "FRAMECODEC" not in name},
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_has_every_name_that_never_changes() -> None:
    for name in NAMES:
        assert hasattr(framecodec, name), name
    assert set(framecodec.__all__) >= NAMES


def test_all_has_each_name_once_and_in_order() -> None:
    names = framecodec.__all__
    assert len(set(names)) == len(names)
    # Constants, then classes, then functions, as ruff sorts them.
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in names:
        assert getattr(framecodec, name) is not None
        assert name in dir(framecodec)
    assert {*framecodec.serving.__all__} < {*dir(framecodec.serving)}


def test_import_of_all_names_brings_no_module() -> None:
    found: dict[str, Any] = {}
    exec("from framecodec import *", found)
    found.pop("__builtins__")
    assert set(found) == set(framecodec.__all__)
    assert not any(inspect.ismodule(value) for value in found.values())


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_a_module_defines(name: str) -> None:
    module = importlib.import_module(f"framecodec.{name}")
    for offered in module.__all__:
        value = getattr(module, offered)
        home = getattr(value, "__module__", module.__name__)
        if (inspect.isclass(value) or inspect.isfunction(value)) and name != "splitter":
            # What a private module defines for a public one has the name of the public one.
            elsewhere = name.startswith("_") and offered in importlib.import_module(home).__all__
            assert home == module.__name__ or elsewhere, f"{offered} belongs to {home}"
    assert module.__doc__


def test_doc_of_every_public_name_exists() -> None:
    for name in framecodec.__all__:
        value = getattr(framecodec, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
    for name, member in vars(framecodec.Codec).items():
        if not name.startswith("_"):
            assert inspect.getdoc(member) or name in framecodec.Codec.__annotations__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        framecodec.no_such_name  # noqa: B018


def test_import_loads_seldom_used_modules_on_first_use() -> None:
    printed = python(
        "import sys, framecodec;"
        f"print(sorted(n for n in {sorted(ON_FIRST_USE)} if f'framecodec.{{n}}' in sys.modules),"
        "'asyncio' in sys.modules, 'hypothesis' in sys.modules);"
    )
    assert printed == "[] False False"


@pytest.mark.parametrize("name", sorted(ON_FIRST_USE & {*MODULES}))
def test_import_of_a_seldom_used_module_works_by_attribute(name: str) -> None:
    printed = python(f"import framecodec; print(framecodec.{name}.__name__)")
    assert printed == f"framecodec.{name}"


def test_version_has_three_numbers() -> None:
    assert framecodec.__version__.count(".") == 2
    assert all(part.isdigit() for part in framecodec.__version__.split("."))


def test_the_package_is_typed() -> None:
    assert (pathlib.Path(framecodec.__file__).parent / "py.typed").exists()


# --- the engine -----------------------------------------------------------------------------------

SHOW_ENGINE = "import framecodec; print(framecodec.ACCELERATED, framecodec.Splitter.__module__)"


@pytest.mark.c_extension
@pytest.mark.parametrize("environment", [{}, {"FRAMECODEC_NO_EXTENSIONS": "0"}])
def test_the_compiled_engine_is_used_where_it_was_built(environment: dict[str, str]) -> None:
    assert python(SHOW_ENGINE, **environment) == f"True {ENGINES['compiled']}"


@pytest.mark.parametrize("value", ["1", "yes"])
def test_the_environment_chooses_the_python_engine(value: str) -> None:
    printed = python(SHOW_ENGINE, FRAMECODEC_NO_EXTENSIONS=value)
    assert printed == f"False {ENGINES['python']}"


def test_missing_extensions_leave_the_python_engine() -> None:
    compiled = [
        f"framecodec.{name}"
        for name in ("_encoder", "_splitter", "sockets._fast_path", "asyncio._fast_path")
    ]
    printed = python(f"import sys; sys.modules |= dict.fromkeys({compiled}); " + SHOW_ENGINE)
    assert printed == f"False {ENGINES['python']}"


def test_accelerated_says_which_engine_is_in_use() -> None:
    used = ENGINES["compiled" if framecodec.ACCELERATED else "python"]
    assert type(framecodec.ACCELERATED) is bool
    assert framecodec.Splitter is importlib.import_module(used).Splitter
    assert type(framecodec.Codec.uint(1).splitter()) is framecodec.Splitter


def test_the_fallback_speaks_like_the_compiled_engine() -> None:
    printed = python(
        "import framecodec as f; c = f.Codec.uint(2, trailer=b'T');"
        "print(c.decode(c.encode(b'abc')), c.split(c.encode_many([b'a', b'b'])))",
        FRAMECODEC_NO_EXTENSIONS="1",
    )
    assert printed == "b'abc' ([b'a', b'b'], 8)"


def test_copy_of_what_belongs_to_one_connection_is_refused(engine: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    with (
        theirs,
        framecodec.FrameSocket(ours) as conn,
        framecodec.listen(("127.0.0.1", 0)) as listener,
        framecodec.DatagramSocket(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams,
    ):
        for one in (engine.Splitter(framecodec.Codec.uint(4)), conn, listener, datagrams):
            for how in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match=f"a {type(one).__name__} belongs to one"):
                    how(one)


def test_import_of_asyncio_leaves_the_blocking_servers_out() -> None:
    code = (
        "import sys, framecodec.asyncio; print(*sorted(n for n in sys.modules if 'serving' in n))"
    )
    assert python(code).split() == [
        "framecodec.serving",
        "framecodec.serving.common",
    ]
