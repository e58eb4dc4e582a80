"""The descriptors that this process has open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

__all__ = ["no_more_descriptors", "open_descriptors"]


def open_descriptors() -> int:
    """Return how many there are; 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # no such folder here
        return 0


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let the system open none, and refuse to wait for one; those that are open stay so."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
