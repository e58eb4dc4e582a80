"""The helper that runs a coroutine on an event loop ends, whatever the coroutine leaves open."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.event_loops import LOOPS, run


@LOOPS
def test_run_ends_and_raises_the_failure_when_a_server_is_left_open(loop: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        servers.append(await loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
        raise LookupError("the failure")

    servers: list[asyncio.Server] = []
    with pytest.raises(LookupError, match="the failure"):
        run(loop, main())
    servers.pop().close()
