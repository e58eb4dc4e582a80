"""A file transfer, sender's side: the name, the file and its hash, a message each.

python examples/send_file.py FILE [PORT]      (start recv_file.py first)
"""

import hashlib
import sys
from pathlib import Path

import framecodec
from framecodec import Codec

path = Path(sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__))
port = int(sys.argv[2]) if len(sys.argv) > 2 else 6000

codec = Codec.uint(8, max_message_size=1 << 40)

with path.open("rb") as file, framecodec.connect(("127.0.0.1", port), codec) as conn:
    conn.send(path.name.encode())
    conn.send_file(file)  # from the disk to the socket by the system, where it can
    file.seek(0)
    conn.send(hashlib.file_digest(file, "sha256").digest())
    print("the receiver says", conn.recv().decode())
