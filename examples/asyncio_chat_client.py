"""Sends what a person types and prints what the others say.

python examples/asyncio_chat_client.py [PORT]      (start asyncio_chat_server.py first)

The end of the input (Ctrl-D) is the end of the chat.
"""

import asyncio
import sys

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


async def send_what_is_typed(stream):
    typed = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(typed), sys.stdin
    )
    async for line in typed:
        await stream.send(line.strip())
    stream.write_eof()


async def main():
    async with await framecodec.asyncio.open_connection("127.0.0.1", port) as stream:
        sending = asyncio.create_task(send_what_is_typed(stream))
        async for message in stream:
            print("they say", message.decode(), flush=True)
        sending.cancel()


asyncio.run(main())
