"""A file transfer, receiver's side: takes one file into a folder, verified by its hash.

    python examples/recv_file.py [PORT [FOLDER]]      (0: any free one; it is printed)
    python examples/send_file.py FILE [PORT]

The file is one message, of any size: it goes from the socket to the disk and is never in memory. It
gets its name when it is whole and its SHA-256 is the sender's.
"""

import hashlib
import sys
from pathlib import Path

import framecodec
from framecodec import Codec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
folder = Path(sys.argv[2] if len(sys.argv) > 2 else ".")

codec = Codec.uint(8, max_message_size=1 << 40)


def recv_small(conn):
    buffer = bytearray(1000)  # what is longer is refused, not held
    return bytes(buffer[: conn.recv_into(buffer)])


with framecodec.listen(("127.0.0.1", port), codec) as listener:
    print("listening on port", listener.address[1], flush=True)
    with listener.accept() as conn:
        name = Path(recv_small(conn).decode()).name  # a name and no path: it stays in the folder
        part = folder / (name + ".part")
        try:
            with part.open("w+b") as file:
                size = conn.recv_file(file)
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").digest()
            if recv_small(conn) != digest:
                conn.send(b"it is damaged")
                sys.exit(f"{name} is damaged")
            part.rename(folder / name)
        finally:
            part.unlink(missing_ok=True)
        conn.send(b"it is whole")
        print("received", name, "of", size, "bytes, sha256", digest.hex())
