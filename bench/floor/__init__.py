"""The C floor: the same work in C by hand. Built on first use, never part of a wheel.

`load()` compiles `_floor.c` with setuptools into ``bench/floor/build/`` (or a temporary folder
where that cannot be written), once for each state of the source, Python and flags.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
FLAGS = [] if sys.platform == "win32" else ["-O3", "-g0"]  # those of framecodec's own engine


@functools.cache
def load() -> ModuleType:
    """Return the compiled module.

    Raises:
        ImportError: The compiler or setuptools failed; the text says why.
    """
    return _load(HERE / "_floor.c")


def _load(source: Path) -> ModuleType:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    state = hashlib.sha256(source.read_bytes() + repr((sys.version, FLAGS)).encode()).hexdigest()
    folder = HERE / "build"
    if not os.access(HERE, os.W_OK):
        folder = Path(tempfile.gettempdir()) / f"framecodec-bench-{os.getuid()}"
    folder = folder / state[:16]
    built = folder / f"{source.stem}{suffix}"
    if not built.exists():
        _build(source, folder)
    spec = importlib.util.spec_from_file_location(source.stem, built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(source: Path, folder: Path) -> None:
    """Build it in a subprocess: setuptools changes the process that it runs in."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        program = (
            "from setuptools import Extension, setup\n"
            f"setup(name='floor', py_modules=[], ext_modules=[Extension({source.stem!r}, "
            f"[{source.name!r}], extra_compile_args={FLAGS!r})], script_args=['build_ext', "
            f"'--build-lib', {str(folder)!r}, '--build-temp', {temporary!r}])\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program],
            cwd=source.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise ImportError(f"the C floor cannot be built: {last}")
