"""Marks for tests that look into CPython where a build without the GIL differs."""

from __future__ import annotations

import sysconfig

import pytest

__all__ = ["needs_gil"]

# In 3.13.5, failing allocations crash the free-threaded interpreter itself, collections run at
# other places, and a trace function counts other references.
needs_gil = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="a free-threaded build of CPython"
)
