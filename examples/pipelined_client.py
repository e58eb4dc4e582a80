"""A client with many requests in flight, which finds its answers by their id and reconnects.

    python examples/pipelined_server.py [PORT]      (0: any free one; it is printed)
    python examples/pipelined_client.py [PORT]

One task receives all answers. When the connection breaks, it connects again, after a pause that
grows, and sends again what has no answer yet: the server may get a request twice.
"""

import asyncio
import contextlib
import itertools
import random
import sys

from framecodec import Codec, FrameError
from framecodec.asyncio import open_connection

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
codec = Codec.uint(4, max_message_size=64 * 1024).as_json()


class Client:
    def __init__(self, *address):
        self.address = address
        self.ids = itertools.count(1)
        self.waiting = {}  # id: the request and the future of its answer
        self.stream = None  # while there is a connection
        self.connections = 0

    async def __aenter__(self):
        self.running = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_):
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def call(self, **request):
        request["id"] = next(self.ids)
        answer = asyncio.get_running_loop().create_future()
        self.waiting[request["id"]] = request, answer
        try:
            if self.stream is not None:
                with contextlib.suppress(ConnectionError):  # run() sends it again
                    await self.stream.send(request)
            return await answer
        finally:
            del self.waiting[request["id"]]

    async def run(self):
        pause = 0.1
        while True:
            try:
                async with open_connection(*self.address, codec=codec) as stream:
                    self.connections += 1
                    self.stream = stream
                    await stream.send_many([request for request, _ in self.waiting.values()])
                    async for answer in stream:
                        pause = 0.1
                        _, future = self.waiting.get(answer["id"], (None, None))
                        if future is not None and not future.done():
                            future.set_result(answer)
            except (OSError, FrameError) as error:
                print("reconnecting:", type(error).__name__, file=sys.stderr)
            finally:
                self.stream = None
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # not all clients at once
            pause = min(2 * pause, 30)


async def main():
    async with Client("127.0.0.1", port) as client, asyncio.timeout(60):
        calls = [client.call(square=number) for number in range(100)]
        squares = [answer["result"] for answer in await asyncio.gather(*calls)]
        print(sum(squares), "after more than one connection:", client.connections > 1)


asyncio.run(main())
