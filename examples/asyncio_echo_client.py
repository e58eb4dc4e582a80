"""Sends two messages and prints what comes back.

python examples/asyncio_echo_client.py [PORT]      (start asyncio_echo_server.py first)
"""

import asyncio
import sys

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


async def main():
    async with await framecodec.asyncio.open_connection("127.0.0.1", port) as stream:
        await stream.send_many([b"hello", b"byebye"])
        print("received", await stream.recv(), await stream.recv())


asyncio.run(main())
