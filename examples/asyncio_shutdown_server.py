"""A server that ends well: on SIGTERM or Ctrl-C it answers what has arrived, and then ends.

    python examples/asyncio_shutdown_server.py [PORT]      (0: any free one; it is printed)
    python examples/asyncio_echo_client.py [PORT]

It stops listening and ends the receiving side of each connection: after the messages that have
arrived, the handlers find the end of the stream and end by themselves. After ten seconds they are
cancelled.
"""

import asyncio
import contextlib
import signal
import socket
import sys

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
serving = {}  # task: its stream


async def shout(stream):
    task = asyncio.current_task()
    serving[task] = stream
    task.add_done_callback(serving.pop)
    async for message in stream:
        await stream.send(message.upper())


async def main():
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_end.set)
    server = await framecodec.asyncio.start_server(shout, "127.0.0.1", port)
    print("listening on port", server.sockets[0].getsockname()[1], flush=True)
    await told_to_end.wait()
    server.close()
    for stream in serving.values():
        with contextlib.suppress(OSError):  # the client was quicker
            stream.get_extra_info("socket").shutdown(socket.SHUT_RD)
    if serving:
        await asyncio.wait(serving, timeout=10)
    print("every connection has ended")


asyncio.run(main())
