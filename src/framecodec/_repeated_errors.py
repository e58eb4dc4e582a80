"""Errors that several calls raise, and that several threads may raise at one time.

An object that is broken raises its error in each later call. CPython stores the traceback in the
exception. Two threads that raise one exception mix their tracebacks, and without the GIL they race
for it: CPython 3.13 does not lock it. So only the thread that met the error raises that object;
each call of another thread raises a copy.
"""

from __future__ import annotations

import copy
from threading import get_ident
from typing import TypeVar

__all__ = ["for_this_thread"]

_Error = TypeVar("_Error", bound=BaseException)


def for_this_thread(error: _Error, thread: int) -> _Error:
    """Return an error that was raised before, for the calling thread to raise it again.

    Args:
        error: The error.
        thread: The identifier of the thread that met it; 0 where no thread did.

    Returns:
        The same object without its traceback in that thread, a copy in others. An exception that
        cannot be copied is always the same object.
    """
    if thread in (0, get_ident()):
        return error.with_traceback(None)
    try:
        copied = copy.copy(error)
    except Exception:
        copied = error
    if type(copied) is not type(error):
        copied = error
    if copied is error:
        return error.with_traceback(None)
    copied.__cause__ = error.__cause__
    copied.__suppress_context__ = error.__suppress_context__
    return copied
