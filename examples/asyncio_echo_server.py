"""An echo in an event loop: every message goes back, and any number of clients are served at once.

python examples/asyncio_echo_server.py [PORT]      (0: any free one; it is printed)
python examples/asyncio_echo_client.py [PORT]
"""

import asyncio
import contextlib
import sys

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


async def echo(stream):
    async for message in stream:
        await stream.send(message)


async def main():
    server = await framecodec.asyncio.start_server(echo, "127.0.0.1", port)
    print("listening on port", server.address[1], flush=True)
    async with server:
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
