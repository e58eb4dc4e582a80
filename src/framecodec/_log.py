"""Log what the servers report, on the logger ``framecodec``.

A server has no caller to whom it could raise an error. Each function here logs one event, and
raises nothing: a logger that fails must not end a server.
"""

from __future__ import annotations

import contextlib
from typing import Any

__all__ = [
    "accept_failed",
    "connection_ended",
    "connections_aborted",
    "handler_failed",
    "listening_failed",
    "observer_failed",
    "tasks_left",
    "threads_left",
    "turn_failed",
]


def connection_ended(peer: str, error: BaseException) -> None:
    """Log the end of a connection for which its client is responsible."""
    _log("warning", "the connection from %s ended: %s", peer, _reason(error))


def handler_failed(peer: str, error: BaseException) -> None:
    """Log an exception that the handler of a connection raised, with its traceback."""
    _log("error", "the handler of the connection from %s failed", peer, error=error)


def observer_failed(method: str, error: BaseException) -> None:
    """Log an exception that a method of the observer raised, with its traceback."""
    _log("error", "the observer's method %s() failed", method, error=error)


def accept_failed(address: str, error: BaseException, pause: float) -> None:
    """Log that no connection could be accepted, and for how many seconds the server waits."""
    text = "cannot accept a connection on %s: %s; the next attempt is in %.2f s"
    _log("warning", text, address, _reason(error), pause)


def listening_failed(address: str, error: BaseException) -> None:
    """Log that a server can accept no connection any more."""
    _log("error", "the server on %s stopped listening", address, error=error)


def turn_failed(address: str, error: BaseException) -> None:
    """Log that a server had too little memory for a turn of its loop, and continues."""
    _log("error", "the server on %s has too little memory", address, error=error)


def connections_aborted(address: str, count: int, grace: float) -> None:
    """Log how many connections did not end within the grace."""
    text = "the server on %s aborted %d connections that did not end within the grace of %g s"
    _log("warning", text, address, count, grace)


def threads_left(address: str, count: int) -> None:
    """Log how many threads still run a handler after their connections were aborted."""
    text = "the server on %s ended while handlers still run in %d threads, which are daemons"
    _log("warning", text, address, count)


def tasks_left(address: str, count: int) -> None:
    """Log how many tasks still run a handler after they were cancelled."""
    text = "the server on %s ended while handlers still run in %d tasks, which were cancelled"
    _log("warning", text, address, count)


def _reason(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _log(method: str, text: str, *arguments: Any, error: BaseException | None = None) -> None:
    with contextlib.suppress(Exception):  # of the program's filters and handlers, or no memory
        import logging  # here, because a program that only connects logs nothing

        getattr(logging.getLogger("framecodec"), method)(text, *arguments, exc_info=error)
