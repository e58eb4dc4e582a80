"""The choice of the engine: once, for all modules, and never silently against the compiled one.

Each test starts a Python with a copy of the package, in which compiled modules are damaged, missing
or replaced by others.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import framecodec
from framecodec import _engine

PACKAGE = Path(framecodec.__file__).parent
NAMES = ["_encoder", "_splitter", "sockets._fast_path", "asyncio._fast_path"]
FREE_THREADED_BUILD = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
HAS_LOOP = sys.platform == "linux" and not FREE_THREADED_BUILD

SHOW_ENGINE = """
import sys
import framecodec
import framecodec.asyncio
import framecodec.socketserver
from framecodec import splitter

engines = {
    framecodec.Splitter.__module__,
    framecodec.asyncio.stream_protocol.fast_path.__name__,
    framecodec.sockets.connection._fast_path.__name__,
}
used = {"Python" if name.endswith("_py") else "compiled" for name in engines}
print(framecodec.ACCELERATED, *used, splitter.FALLBACK_REASON, sep="|")
codec = framecodec.Codec.uint(2)
assert codec.splitter().feed(codec.encode_many([b"a", b"bc"])) == [b"a", b"bc"]
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that may be damaged, with its compiled modules if it has some."""
    ignored = shutil.ignore_patterns("__pycache__", "*.c", "*.pyx")
    return Path(shutil.copytree(PACKAGE, tmp_path / "framecodec", ignore=ignored))


def in_package(package: Path, name: str, suffix: str) -> Path:
    return package / f"{name.replace('.', '/')}{suffix}"


def compiled_file(package: Path, name: str) -> Path:
    suffixes = (sysconfig.get_config_var("EXT_SUFFIX"), ".so", ".pyd")
    paths = [in_package(package, name, suffix) for suffix in suffixes]
    return next(path for path in paths if path.exists())


def remove_compiled(package: Path) -> None:
    for name in NAMES:
        for suffix in (".*.so", ".so", ".*.pyd", ".pyd"):
            pattern = in_package(package, name, suffix)
            for path in pattern.parent.glob(pattern.name):
                path.unlink()


def stand_in(package: Path, name: str, source: str = "") -> None:
    """Put a module in Python in the place of a compiled one."""
    twin = in_package(package, name, "_py.py").read_text(encoding="utf-8")
    in_package(package, name, ".py").write_text(source or twin, encoding="utf-8")


def run(
    package: Path, code: str, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that imports this copy of the package."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={
            **{name: value for name, value in os.environ.items() if "FRAMECODEC" not in name},
            "PYTHONPATH": str(package.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def choice(
    package: Path, *options: str, before: str = "", **environment: str
) -> tuple[list[str], list[str]]:
    """Return `ACCELERATED`, the engines in use and the reason; and the warnings."""
    done = run(package, before + SHOW_ENGINE, *options, **environment)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "Warning:" in line]
    return done.stdout.strip().split("|"), warnings


def check_python_engine(found: list[str], warnings: list[str], reason: str) -> None:
    """Check that all modules use the Python engine, and that one warning gives the reason."""
    assert found[:2] == ["False", "Python"]
    assert reason in found[2]
    assert len(warnings) == 1, warnings
    assert "RuntimeWarning: framecodec uses its Python engine" in warnings[0]
    assert found[2] in warnings[0]
    assert "FRAMECODEC_NO_EXTENSIONS=1" in warnings[0]


# --- what is in use -------------------------------------------------------------------------------


@pytest.mark.c_extension
def test_engine_is_the_compiled_one_in_all_modules_without_a_reason(package: Path) -> None:
    found, warnings = choice(package, "-W", "error")
    assert found == ["True", "compiled", "None"]
    assert warnings == []


def test_fallback_reason_exists_exactly_if_the_python_engine_is_in_use() -> None:
    assert (_engine.FALLBACK_REASON is None) is framecodec.ACCELERATED
    assert framecodec.splitter.FALLBACK_REASON == _engine.FALLBACK_REASON


# --- a choice: no warning -------------------------------------------------------------------------


def test_import_without_compiled_modules_does_not_warn(package: Path) -> None:
    remove_compiled(package)
    found, warnings = choice(package, "-W", "error")
    assert found == ["False", "Python", "the compiled modules are not installed"]
    assert warnings == []


def test_no_extensions_variable_chooses_the_python_engine_without_loading_the_modules(
    package: Path,
) -> None:
    remove_compiled(package)
    for name in NAMES:
        stand_in(package, name, "raise SystemError('loaded')")
    found, warnings = choice(package, "-W", "error", FRAMECODEC_NO_EXTENSIONS="1")
    assert found == ["False", "Python", "FRAMECODEC_NO_EXTENSIONS is set"]
    assert warnings == []


# --- a fault: one warning -------------------------------------------------------------------------


@pytest.mark.c_extension
@pytest.mark.parametrize("name", NAMES)
def test_import_of_a_damaged_module_warns_once_and_names_it(package: Path, name: str) -> None:
    compiled_file(package, name).write_bytes(b"\x7fELF no library")
    found, warnings = choice(package)
    check_python_engine(found, warnings, f"framecodec.{name} cannot be loaded (ImportError: ")


@pytest.mark.c_extension
@pytest.mark.parametrize("name", NAMES)
def test_import_with_one_module_missing_warns_once_and_names_it(package: Path, name: str) -> None:
    compiled_file(package, name).unlink()
    found, warnings = choice(package)
    check_python_engine(found, warnings, f"these are not installed: framecodec.{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "raised",
    [
        "ImportError('undefined symbol: _Py_Gone')",
        "ModuleNotFoundError('no module of another name', name='other')",
        "SystemError('a slot is unknown')",
        "ValueError('size changed, may indicate binary incompatibility')",
        "RuntimeWarning('the GIL has been enabled')",
    ],
)
def test_import_of_a_module_that_raises_warns_once_with_the_error(
    package: Path, name: str, raised: str
) -> None:
    remove_compiled(package)
    for other in NAMES:
        stand_in(package, other, f"raise {raised}" if other == name else "")
    found, warnings = choice(package)
    kind, text = raised.partition("(")[0], raised.split("'")[1]
    check_python_engine(found, warnings, f"framecodec.{name} cannot be loaded ({kind}: {text})")


@pytest.mark.parametrize("raised", ["MemoryError", "KeyboardInterrupt"])
def test_import_is_ended_by_an_interruption(package: Path, raised: str) -> None:
    remove_compiled(package)
    for name in NAMES:
        stand_in(package, name, f"raise {raised}" if name == "sockets._fast_path" else "")
    done = run(package, SHOW_ENGINE)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == raised


def test_import_with_warnings_as_errors_raises_the_fault_and_its_cause(package: Path) -> None:
    remove_compiled(package)
    for name in NAMES:
        stand_in(package, name, "raise ImportError('undefined symbol')")
    done = run(package, SHOW_ENGINE, "-W", "error")
    assert done.returncode == 1
    assert "ImportError: undefined symbol" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("RuntimeWarning: framecodec uses its Python")


def test_import_warning_can_be_ignored_by_its_module(package: Path) -> None:
    remove_compiled(package)
    for name in NAMES:
        stand_in(package, name, "raise ImportError('undefined symbol')")
    ignore = "ignore::RuntimeWarning:framecodec._engine"
    found, warnings = choice(package, "-W", "error", "-W", ignore)
    assert found[:2] == ["False", "Python"]
    assert warnings == []


# --- sub-interpreters -----------------------------------------------------------------------------

INTERPRETERS = """
try:
    import _interpreters as interpreters  # Python 3.13
    run_in = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run_in = interpreters.run_string

def run(made, code):
    failed = run_in(made, code)
    if failed is not None:
        raise SystemExit(str(failed))

"""

WORK = """
import gc
import framecodec
codec = framecodec.Codec.uint(4, max_message_size=100)
lines = framecodec.formats["lines"]
splitter = codec.splitter()
for turn in range(40):
    messages = [b"a" * (turn % 50), b"b"]
    assert splitter.feed(codec.encode_many(messages)) == messages
    assert lines.splitter().feed(lines.encode(b"c")) == [b"c"]
    try:
        codec.splitter().feed(b"\\xff" * 9)
        raise SystemExit("no error")
    except framecodec.FrameError as error:
        assert type(error).__module__ == "framecodec.errors"
    if turn % 20 == 0:
        gc.collect()
"""

interpreters_of_cpython = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="CPython's sub-interpreters"
)


def run_interpreters(package: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code that makes sub-interpreters: the first writes the byte code that all import."""
    return run(package, INTERPRETERS + code, "-W", "error", PYTHONDONTWRITEBYTECODE="")


def crashes_at_the_exit(main_first: bool) -> bool:
    """Return whether this Python does, also with the Python engine."""
    return sys.version_info[:2] == (3, 12) and not main_first


@pytest.mark.untraced
@interpreters_of_cpython
@pytest.mark.parametrize("main_first", [False, True])
def test_import_in_a_sub_interpreter_has_the_same_engine(package: Path, main_first: bool) -> None:
    if crashes_at_the_exit(main_first):
        pytest.skip("Python 3.12 crashes at its exit")
    code = f"run(interpreters.create(), {SHOW_ENGINE!r})\n"
    code = "import framecodec\n" + code if main_first else code
    expected, _ = choice(package)
    done = run_interpreters(package, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split("|") == expected
    assert done.stderr == ""


@pytest.mark.untraced
@interpreters_of_cpython
@pytest.mark.parametrize(
    "first_to_end",
    [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)],
)
def test_sub_interpreters_work_one_after_the_other_and_end_in_any_order(
    package: Path, first_to_end: int
) -> None:
    code = f"""
import framecodec
all_made = [interpreters.create() for _ in range(3)]
work = {WORK!r}
for made in all_made * 2:
    run(made, work)
for number in range(3):
    interpreters.destroy(all_made[(number + {first_to_end}) % 3])
    exec(work)
    for other in range(number + 1, 3):
        run(all_made[(other + {first_to_end}) % 3], work)
print("done")
"""
    done = run_interpreters(package, code)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.untraced
@interpreters_of_cpython
def test_sub_interpreters_work_at_once(package: Path) -> None:
    code = f"""
import threading
import framecodec
all_made = [interpreters.create() for _ in range(2)]
done = []

def work(made):
    for _ in range(5):
        run(made, {WORK!r})
    interpreters.destroy(made)
    done.append(made)

threads = [threading.Thread(target=work, args=(made,)) for made in all_made]
for thread in threads:
    thread.start()
for _ in range(5):
    exec({WORK!r})
for thread in threads:
    thread.join(30)
print(len(done))
"""
    done = run_interpreters(package, code)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@pytest.mark.slow
@pytest.mark.untraced
@interpreters_of_cpython
def test_more_sub_interpreters_than_the_table_of_cython_has_places(package: Path) -> None:
    code = f"""
import framecodec
made = [interpreters.create() for _ in range(34)]
for each in made:
    run(each, "import framecodec")
for each in made[::7]:
    run(each, {WORK!r})
exec({WORK!r})
for each in made:
    interpreters.destroy(each)
print("done")
"""
    done = run_interpreters(package, code)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.c_extension
@pytest.mark.untraced  # which adds such objects
@pytest.mark.parametrize("name", [*NAMES, "serving._messages_loop"])
def test_compiled_module_has_no_object_that_interpreters_would_share(name: str) -> None:
    """Cython keeps `cdef object` of a module, and functions such as any(), in variables of C."""
    sources = Path(__file__).parents[1] / "src" / "framecodec"  # pip builds there
    path = next(
        filter(Path.exists, [in_package(at, name, ".c") for at in (PACKAGE, sources)]), None
    )
    if path is None:
        pytest.skip("no generated C: only a build in the sources leaves it")
    code = path.read_text(encoding="utf-8")
    variable = r"^static [^(){}\n]*\b__pyx_((?:v|builtin)_\w+)(?: = \w+)?;"
    found = set(re.findall(variable, code, re.MULTILINE))
    assert found <= {"builtin_enumerate"}  # a type, and of no use after the loops were compiled


# --- without the GIL ------------------------------------------------------------------------------


@pytest.mark.c_extension
@pytest.mark.skipif(not FREE_THREADED_BUILD, reason="a free-threaded build of Python")
@pytest.mark.parametrize("options", [(), ("-X", "gil=0")])
def test_import_leaves_the_gil_off(package: Path, options: tuple[str, ...]) -> None:
    code = SHOW_ENGINE + "\nprint(sys._is_gil_enabled())"
    done = run(package, code, "-W", "error", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True|compiled|None", "False"]


# --- types ----------------------------------------------------------------------------------------


def arguments_of(function: ast.FunctionDef) -> list[ast.arg]:
    arguments = function.args
    found = [*arguments.posonlyargs, *arguments.args]
    return found if arguments.vararg is None else [*found, arguments.vararg]


@pytest.mark.parametrize("name", NAMES)
def test_stub_of_a_compiled_module_declares_what_its_python_twin_has(name: str) -> None:
    # A type checker is shown the twin (see _engine.py) and compares only the stub with the module.
    twin = importlib.import_module(f"framecodec.{name}_py")
    stub = ast.parse(in_package(PACKAGE, name, ".pyi").read_text(encoding="utf-8"))
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    assert {each for each in twin.__all__ if inspect.isclass(getattr(twin, each))} - {
        "Lock"  # the twin's is threading's own
    } <= set(classes)
    for class_name, node in classes.items():
        if class_name == "Lock":
            continue
        declared = {
            member.name: [a.arg for a in arguments_of(member)][1:]
            for member in node.body
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("_")
        }
        kind = getattr(twin, class_name)
        methods = {
            member: list(inspect.signature(value).parameters)[1:]
            for member, value in vars(kind).items()
            if inspect.isfunction(value) and not member.startswith("_")
        }
        if class_name == "Spans":
            del methods["add"]  # by which scan() of the Python engine fills it
        own = {member: names for member, names in declared.items() if member in methods}
        assert own.keys() == methods.keys(), class_name
        if (
            class_name != "CompletedAwaitable"
        ):  # whose arguments the standard library gives by position
            assert own == methods, class_name


# --- the loop of serve_messages() -----------------------------------------------------------------

SHOW_LOOP = """
import framecodec
from framecodec.serving import messages
with framecodec.serve_messages(lambda conn, messages: messages, ("127.0.0.1", 0)) as server:
    with framecodec.connect(server.address, timeout=10) as conn:
        conn.send(b"a")
        assert conn.recv() == b"a"
print(messages._loop_module.__name__)
"""


@pytest.mark.c_extension
@pytest.mark.skipif(not HAS_LOOP, reason="the compiled loop needs epoll and the GIL")
def test_the_compiled_loop_is_used_on_linux(package: Path) -> None:
    done = run(package, SHOW_LOOP, "-W", "error")
    assert done.stdout == "framecodec.serving._messages_loop\n", done.stderr


@pytest.mark.c_extension
@pytest.mark.skipif(not HAS_LOOP, reason="the compiled loop needs epoll and the GIL")
def test_a_missing_compiled_loop_is_replaced_with_one_warning(package: Path) -> None:
    compiled_file(package, "serving._messages_loop").unlink()
    done = run(package, SHOW_LOOP)
    assert done.stdout == "framecodec.serving._messages_loop_py\n", done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if "Warning:" in line]
    assert "serve_messages() is slower" in warning


@pytest.mark.skipif(not FREE_THREADED_BUILD, reason="a free-threaded build of Python")
@pytest.mark.parametrize("options", [(), ("-X", "gil=1")])
def test_a_free_threaded_python_uses_the_python_loop(
    package: Path, options: tuple[str, ...]
) -> None:
    done = run(package, SHOW_LOOP, *options, "-W", "error")
    assert done.stdout == "framecodec.serving._messages_loop_py\n", done.stderr


def test_the_python_engine_uses_the_python_loop(package: Path) -> None:
    done = run(package, SHOW_LOOP, "-W", "error", FRAMECODEC_NO_EXTENSIONS="1")
    assert done.stdout == "framecodec.serving._messages_loop_py\n", done.stderr


def test_a_module_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'framecodec\._nothing'"):
        _engine._import("_nothing")
    assert "framecodec._nothing" not in sys.modules
