"""A length of four ASCII digits, server's side: sends ``0005hello0006byebye`` to one client.

    python examples/ascii_length_server.py [PORT]      (0: any free one; it is printed)
    python examples/ascii_length_client.py [PORT]

A peer without framecodec does the same by ``sendall(str(len(m)).zfill(4).encode())`` and
``sendall(m)``, and reads it back by ``recv(4)`` and ``recv(n)``.
"""

import sys

import framecodec
from framecodec import Codec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with framecodec.listen(("127.0.0.1", port), Codec.digits(4)) as listener:
    print("listening on port", listener.address[1], flush=True)
    with listener.accept() as conn:
        conn.send(b"hello")
        conn.send(b"byebye")
