"""Sends a file and tells how far it is.

python examples/asyncio_files_client.py FILE [PORT]      (start asyncio_files_server.py first)

`send` waits while the receiver is slow, so that the progress is the receiver's but for what the
system buffers, and the file is never in memory.
"""

import asyncio
import hashlib
import sys
from pathlib import Path

import framecodec.asyncio

path = Path(sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__))
port = int(sys.argv[2]) if len(sys.argv) > 2 else 6000

PIECE_SIZE = 256 * 1024


async def main():
    digest = hashlib.sha256()
    size, sent = path.stat().st_size, 0
    with path.open("rb") as file:
        async with await framecodec.asyncio.open_connection("127.0.0.1", port) as stream:
            await stream.send_many([path.name.encode(), b"%d" % size])
            while piece := await asyncio.to_thread(file.read, PIECE_SIZE):
                await stream.send(piece)
                digest.update(piece)
                sent += len(piece)
                print(f"\rsent {sent} of {size} bytes, {sent / size:.0%}", end="", flush=True)
            await stream.send(digest.digest())
            print("\nthe receiver says", (await stream.recv()).decode())


asyncio.run(main())
