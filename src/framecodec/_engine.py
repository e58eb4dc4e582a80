"""Choose the engine, compiled or Python, once for all modules but the loop of `serve_messages`.

The compiled engine is four modules, which need no GIL. (That loop exists on Linux alone, for a
Python with the GIL, and ``serving.messages`` chooses it.) The engine is used as a whole or not at
all, so that `framecodec.ACCELERATED` is true of every part. Where it is not used, `FALLBACK_REASON`
says why. Where the reason is a fault (a broken file, a missing one of the four), one
`RuntimeWarning` says it too. Each interpreter of a process chooses for itself, and can load the
modules for itself.

A type checker sees the Python modules; the stubs of the compiled ones declare the same interface.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = [
    "ACCELERATED",
    "FALLBACK_REASON",
    "asyncio_fast_path",
    "encoder",
    "sockets_fast_path",
    "splitter",
]

_NAMES = ("_encoder", "_splitter", "sockets._fast_path", "asyncio._fast_path")


class _Unusable(Exception):
    """A compiled engine that is installed and cannot be used."""


def _reason_against() -> str | None:
    """Return why the compiled engine should not be tried, or None.

    Raises:
        _Unusable: Some of the compiled modules are missing.
    """
    if os.environ.get("FRAMECODEC_NO_EXTENSIONS", "") not in ("", "0"):
        return "FRAMECODEC_NO_EXTENSIONS is set"
    missing = [name for name in _NAMES if _find(name) is None]
    if len(missing) == len(_NAMES):
        return "the compiled modules are not installed"
    if missing:
        names = ", ".join(f"{__package__}.{name}" for name in missing)
        raise _Unusable(f"of its {len(_NAMES)} modules, these are not installed: {names}")
    return None


def _find(name: str) -> ModuleSpec | None:
    """Return where a module is, without importing the folder that it is in."""
    full_name = f"{__package__}.{name}"
    if full_name in sys.modules:
        return getattr(sys.modules[full_name], "__spec__", None)
    folder = Path(__file__).parent.joinpath(*name.split(".")[:-1])
    return PathFinder.find_spec(full_name, [str(folder)])


def _import(name: str) -> ModuleType:
    """Import a module without importing the folder that it is in.

    The modules of the folder import this one: they need the chosen engine. And asyncio is slow to
    import for users who do not need it.
    """
    full_name = f"{__package__}.{name}"
    loaded = sys.modules.get(full_name)
    if loaded is not None:
        return loaded
    spec = _find(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {full_name!r}", name=full_name)
    module = sys.modules[full_name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    return module


def _load(name: str) -> ModuleType:
    try:
        return _import(name)
    except MemoryError:
        raise
    except Exception as error:  # also a SystemError, or a warning that the user made an error
        text = f"{__package__}.{name} cannot be loaded ({type(error).__name__}: {error})"
        raise _Unusable(text) from error


def _load_compiled() -> tuple[list[ModuleType] | None, str | None]:
    """Return the modules of the compiled engine, or None and the reason."""
    try:
        reason = _reason_against()
        return (None, reason) if reason else ([_load(name) for name in _NAMES], None)
    except _Unusable as error:
        reason = str(error)
        warning = RuntimeWarning(
            "framecodec uses its Python engine, which is slower, because the compiled one is"
            f" unusable: {reason}. Install framecodec again, or set FRAMECODEC_NO_EXTENSIONS=1"
            " to choose the Python engine."
        )
        warning.__cause__ = error.__cause__  # shown where the user made the warning an error
        warnings.warn(warning, stacklevel=1)
        return None, reason


if TYPE_CHECKING:
    from . import _encoder_py as encoder
    from . import _splitter_py as splitter
    from .asyncio import _fast_path_py as asyncio_fast_path
    from .sockets import _fast_path_py as sockets_fast_path

    ACCELERATED: bool
    FALLBACK_REASON: str | None
else:
    _modules, FALLBACK_REASON = _load_compiled()
    ACCELERATED = _modules is not None
    encoder, splitter, sockets_fast_path, asyncio_fast_path = _modules or [
        _import(f"{name}_py") for name in _NAMES
    ]
