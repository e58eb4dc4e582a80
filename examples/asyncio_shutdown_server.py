"""A server that ends well: on SIGTERM or Ctrl-C it answers what has arrived, and then ends.

    python examples/asyncio_shutdown_server.py [PORT]      (0: any free one; it is printed)
    python examples/asyncio_echo_client.py [PORT]

At the end of its block the server stops listening and receiving: after the messages that have
arrived, the handlers find the end of the stream and end by themselves. After five seconds they are
cancelled; `await server.aclose(grace=10)` would wait longer.
"""

import asyncio
import signal
import sys

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


async def shout(stream):
    async for message in stream:
        await stream.send(message.upper())


async def main():
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    async with await framecodec.asyncio.start_server(shout, "127.0.0.1", port) as server:
        print("listening on port", server.address[1], flush=True)
        await told_to_end.wait()
    print("every connection has ended")


asyncio.run(main())
