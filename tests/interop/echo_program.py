"""A program that another one starts and speaks to over this one's standard streams.

    python echo_program.py WORLD FORMAT

It sends back every message until its input ends. WORLD is "blocking", "asyncio" or "uvloop"; FORMAT
is one of the catalogue.
"""

import asyncio
import sys

from framecodec import Codec, FramePipe, formats
from framecodec.asyncio import open_stdio


def echo(codec: Codec) -> None:
    """Echo in this thread."""
    with FramePipe(sys.stdin.buffer, sys.stdout.buffer, codec) as pipe:
        for message in pipe:
            pipe.send(message)


async def echo_in_loop(codec: Codec) -> None:
    """Echo in an event loop."""
    async with open_stdio(codec=codec) as stream:
        async for message in stream:
            await stream.send(message)


if __name__ == "__main__":
    world, codec = sys.argv[1], formats[sys.argv[2]]
    if world == "blocking":
        echo(codec)
    elif world == "asyncio":
        asyncio.run(echo_in_loop(codec))
    else:
        import uvloop

        uvloop.run(echo_in_loop(codec))
