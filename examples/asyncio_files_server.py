"""A file transfer in messages of 256 KiB, verified by its hash; any number of files at once.

    python examples/asyncio_files_server.py [PORT [FOLDER]]      (0: any free one; it is printed)
    python examples/asyncio_files_client.py FILE [PORT]

The messages are the name, the size, the pieces and the SHA-256. A slow disk stops the sender: while
no task receives, the stream reads little in advance.
"""

import asyncio
import contextlib
import hashlib
import secrets
import sys
from pathlib import Path

import framecodec.asyncio

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
folder = Path(sys.argv[2] if len(sys.argv) > 2 else ".")


async def receive(stream):
    name = Path((await stream.recv()).decode()).name  # a name and no path: it stays in the folder
    missing = int(await stream.recv())
    digest = hashlib.sha256()
    part = folder / f"{secrets.token_hex(16)}.part"  # several may send a file of one name
    try:
        with part.open("xb") as file:
            while missing > 0:
                piece = await stream.recv()
                await asyncio.to_thread(file.write, piece)
                digest.update(piece)
                missing -= len(piece)
        if await stream.recv() == digest.digest() and missing == 0:
            part.rename(folder / name)
            await stream.send(b"it is whole")
        else:
            await stream.send(b"it is damaged")
    finally:
        part.unlink(missing_ok=True)


async def main():
    server = await framecodec.asyncio.start_server(
        receive, "127.0.0.1", port, idle_timeout=60, message_timeout=60
    )
    print("listening on port", server.address[1], flush=True)
    async with server:
        await server.serve_forever()


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
