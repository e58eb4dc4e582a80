"""A chat of any number: what one says is encoded once and written to all others.

    python examples/asyncio_chat_server.py [PORT]      (0: any free one; it is printed)
    python examples/asyncio_chat_client.py [PORT]

`transport.write` keeps the order with what `send` has gathered. Who is too slow for the others is
dropped, as what he has not read yet would wait here.
"""

import asyncio
import contextlib
import sys

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

MOST_UNREAD = 1 << 20  # bytes
members = set()


class Member(framecodec.asyncio.FrameProtocol):
    def connection_made(self, transport):
        members.add(self)
        self.send(b"there are %d here" % len(members))

    def connection_lost(self, error):
        members.discard(self)

    def messages_received(self, messages):
        frames = self.codec.encode_many(messages)
        for member in members - {self}:
            if member.transport.get_write_buffer_size() > MOST_UNREAD:
                member.transport.abort()
            elif not member.transport.is_closing():
                member.transport.write(frames)


async def main():
    server = await asyncio.get_running_loop().create_server(Member, "127.0.0.1", port)
    print("listening on port", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
