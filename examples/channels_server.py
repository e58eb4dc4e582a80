"""A chat with channels: the messages are JSON objects.

    python examples/channels_server.py [PORT]      (0: any free one; it is printed)
    python examples/channels_client.py [PORT]

A client first says who it is, `{"name": "Ann", "channel": "tea"}`, then sends `{"text": "hello"}`.
Each member has its own queue: one that does not read holds up no other, and is dropped in the end.
"""

import asyncio
import contextlib
import sys

from framecodec import Codec
from framecodec.asyncio import start_server

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
codec = Codec.uint(4, max_message_size=64 * 1024).as_json()

channels = {}  # the name of a channel: its members, each a stream and the queue of what it is sent


def tell(channel, message):
    for stream, queue in channels[channel].items():
        try:
            queue.put_nowait(message)
        except asyncio.QueueFull:
            stream.transport.abort()


async def send_all(stream, queue):
    with contextlib.suppress(ConnectionError):
        while True:
            await stream.send(await queue.get())


async def handler(stream):
    match await stream.recv():
        case {"name": str(name), "channel": str(channel)}:
            pass
        case _:
            await stream.send({"error": "say your name and the channel first"})
            return
    queue = asyncio.Queue(maxsize=100)
    sending = asyncio.create_task(send_all(stream, queue))
    members = channels.setdefault(channel, {})
    members[stream] = queue
    tell(channel, {"channel": channel, "joined": name})
    try:
        async for message in stream:
            match message:
                case {"text": str(text)}:
                    tell(channel, {"channel": channel, "from": name, "text": text})
    finally:
        sending.cancel()
        del members[stream]
        if not members:
            del channels[channel]


async def main():
    async with start_server(handler, "127.0.0.1", port, codec=codec) as server:
        print("listening on port", server.address[1], flush=True)
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
