"""Clients of the blocking servers, and waits for what the servers do."""

from __future__ import annotations

import contextlib
import importlib
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import framecodec
from framecodec import FrameSocket
from framecodec.serving import _messages_loop_py

__all__ = [
    "LOOPBACK",
    "MESSAGE_LOOPS",
    "PATIENCE",
    "AsyncHandler",
    "dial",
    "messages_loop",
    "refused_threads",
    "until",
]

LOOPBACK = ("127.0.0.1", 0)
PATIENCE = 20.0  # seconds; only a test that fails waits that long


# Parameters of a fixture.
MESSAGE_LOOPS = [
    "python",
    pytest.param(
        "compiled",
        marks=[
            pytest.mark.c_extension,
            pytest.mark.skipif(sys.platform != "linux", reason="the compiled loop needs epoll"),
        ],
    ),
]


def messages_loop(name: str) -> Any:
    """Return a module of the loop of `serve_messages` by its name in `MESSAGE_LOOPS`."""
    if name == "python":
        return _messages_loop_py
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("a free-threaded Python uses the Python loop")
    return importlib.import_module("framecodec.serving._messages_loop")


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def dial(address: Any, **options: Any) -> FrameSocket:
    """Return a client of a server."""
    return framecodec.connect(address, timeout=PATIENCE, **options)


@contextlib.contextmanager
def refused_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Expect a block to raise because the system starts no thread."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            yield


class AsyncHandler:
    """An object that is called as an async function is: a server with threads must refuse it."""

    async def __call__(self, *args: object) -> None:
        """Do nothing."""
