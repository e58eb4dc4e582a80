"""A mark for tests that look into CPython, as where allocations are made to fail."""

from __future__ import annotations

import sys

import pytest

__all__ = ["needs_cpython_3_11"]

# CPython 3.12 and later crash by themselves where allocations fail, run collections only between
# instructions, and count other references; free-threaded builds, too.
needs_cpython_3_11 = pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info >= (3, 12),
    reason="made for CPython 3.11; later ones crash by themselves where allocations fail",
)
