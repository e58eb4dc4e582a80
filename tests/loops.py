"""Event loops by name, and coroutines run to their end on one of them, within a bound."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Coroutine
from typing import Any

import pytest

TIMEOUT = 30.0  # seconds after which a test has failed; none that passes needs them

LOOPS = pytest.mark.parametrize(
    "loop",
    [
        "asyncio",
        pytest.param(
            "uvloop",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
            ),
        ),
    ],
)


def run(loop: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What the coroutine returns; an exception that reached the loop's handler fails the test."""
    complaints: list[dict[str, Any]] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async with asyncio.timeout(TIMEOUT):
            return await coroutine

    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(main())
    assert not complaints, complaints
    return result
