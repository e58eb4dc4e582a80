"""A server that answers in any order, and breaks its first connection. For pipelined_client.py.

python examples/pipelined_server.py [PORT]      (0: any free one; it is printed)
python examples/pipelined_client.py [PORT]
"""

import asyncio
import contextlib
import random
import sys

from framecodec import Codec
from framecodec.asyncio import start_server

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
codec = Codec.uint(4, max_message_size=64 * 1024).as_json()
connections = 0


async def answer(stream, request):
    await asyncio.sleep(random.uniform(0, 0.05))
    with contextlib.suppress(ConnectionError):
        await stream.send({"id": request["id"], "result": request["square"] ** 2})


async def handler(stream):
    global connections
    connections += 1
    is_first = connections == 1
    async with asyncio.TaskGroup() as group:
        async for request in stream:
            group.create_task(answer(stream, request))
            if is_first and request["square"] == 50:
                stream.transport.abort()


async def main():
    async with start_server(handler, "127.0.0.1", port, codec=codec) as server:
        print("listening on port", server.address[1], flush=True)
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
