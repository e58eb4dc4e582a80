"""Requests and responses; this server leaves the first request of all unanswered, as servers do.

python examples/asyncio_request_server.py [PORT]      (0: any free one; it is printed)
python examples/asyncio_request_client.py [PORT]
"""

import asyncio
import contextlib
import sys

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
requests = 0


async def answer(stream):
    global requests
    async for request in stream:
        requests += 1
        if requests > 1:
            await stream.send(request.upper())


async def main():
    server = await framecodec.asyncio.start_server(answer, "127.0.0.1", port)
    print("listening on port", server.address[1], flush=True)
    async with server:
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
