"""Asks, waits half a second, and asks again over a new connection.

python examples/asyncio_request_client.py [PORT]      (start asyncio_request_server.py first)

The time-out itself loses nothing, and one could go on waiting. To ask something else over the same
connection would be wrong: the late response would pass for the next one. Only requests that may be
served twice are asked again.
"""

import asyncio
import sys

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


class Client:
    stream = None

    async def ask(self, request, *, timeout=0.5, attempts=10):
        for _ in range(attempts):
            try:
                async with asyncio.timeout(timeout):
                    if self.stream is None:
                        self.stream = await framecodec.asyncio.open_connection("127.0.0.1", port)
                    await self.stream.send(request)
                    return await self.stream.recv()
            except (OSError, EOFError) as error:  # a TimeoutError is an OSError
                print("again, after", type(error).__name__)
                self.close()
        raise TimeoutError(f"no response in {attempts} attempts")

    def close(self):
        if self.stream is not None:
            self.stream.transport.abort()
            self.stream = None


async def main():
    client = Client()
    for request in (b"hello", b"byebye"):
        print("received", await client.ask(request))
    client.close()


asyncio.run(main())
