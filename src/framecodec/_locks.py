"""Locks that a call releases also where memory has run out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["call_locked"]

_Result = TypeVar("_Result")


def call_locked(lock: Any, function: Callable[..., _Result], /, *arguments: Any) -> _Result:
    """Call a function while a lock is taken.

    It is for locks of CPython, instead of a ``with``: the exit of that makes a tuple of three
    arguments, and without memory for it the lock would stay taken.

    Args:
        lock: A reentrant lock: another one could be released for a thread that holds it.
        function: The function.
        arguments: Those of the function.
    """
    try:
        lock.acquire()  # inside, because a signal handler may raise after it
        result = function(*arguments)
    finally:
        try:  # noqa: SIM105 (that would be a `with`)
            lock.release()
        except RuntimeError:  # a signal handler has interrupted acquire()
            pass
    return result
