"""Tests in a process of their own, without the threads of the one that runs pytest.

`_testcapi.set_nomemory` counts the allocations of all threads, and pytest-xdist has one that
receives: a failure that it met would end the worker, or be missing where the test expects it.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest


def run_in_fork(test: Callable[..., object], arguments: dict[str, Any]) -> None:
    """Call a test function in a copy of this process; its outcome is that of the call here."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            outcome = _outcome(test, arguments)
            with open(writer, "wb") as file:
                pickle.dump(outcome, file)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with open(reader, "rb") as file:
            answer = file.read()
    except BaseException:  # the time limit of the test
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if not answer:
        pytest.fail(f"the process of the test ended with status {status}", pytrace=False)
    kind, text = pickle.loads(answer)
    if kind == "skipped":
        pytest.skip(text)
    if kind == "failed":
        pytest.fail(text, pytrace=False)


def _outcome(test: Callable[..., object], arguments: dict[str, Any]) -> tuple[str, str]:
    try:
        test(**arguments)
    except pytest.skip.Exception as reason:
        return "skipped", str(reason)
    except BaseException:
        return "failed", traceback.format_exc()
    return "passed", ""
