"""The descriptors that this process has open."""

from __future__ import annotations

import os

__all__ = ["open_descriptors"]


def open_descriptors() -> int:
    """Return how many there are; 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # no such folder here
        return 0
