"""Sends what a person types and prints what the others say.

python examples/asyncio_chat_client.py [PORT]      (start asyncio_chat_server.py first)

The end of the input (Ctrl-D) is the end of the chat. An event loop cannot wait for a file, and
would leave a terminal non-blocking: a thread reads the input and hands it over as messages.
"""

import asyncio
import contextlib
import socket
import sys
import threading

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


def read_what_is_typed(conn):
    # A separate file object: Python may end while this thread still waits for a line.
    with contextlib.suppress(OSError), conn, open(0, "rb", closefd=False) as typed:
        for line in typed:
            conn.send(line.strip())  # an OSError where the chat has ended


async def send_what_is_typed(stream):
    here, there = socket.socketpair()
    # A daemon, unlike the threads of asyncio.to_thread: the chat may end without another line.
    conn = framecodec.FrameSocket(there)
    threading.Thread(target=read_what_is_typed, args=[conn], daemon=True).start()
    with contextlib.suppress(OSError):  # the receiving side tells of it
        async with await framecodec.asyncio.open_connection(sock=here) as typed:
            async for line in typed:
                await stream.send(line)
        stream.write_eof()


async def main():
    async with await framecodec.asyncio.open_connection("127.0.0.1", port) as stream:
        sending = asyncio.create_task(send_what_is_typed(stream))
        async for message in stream:
            print("they say", message.decode(), flush=True)
        sending.cancel()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
