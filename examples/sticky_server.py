"""Sticky packets, server's side: sends two messages to each of two clients.

The first client gets them as bare bytes, the second one as frames.

    python examples/sticky_server.py [PORT]      (0: any free one; it is printed)
    python examples/sticky_client.py [PORT]
"""

import socket
import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with socket.create_server(("127.0.0.1", port)) as listener:
    print("listening on port", listener.getsockname()[1], flush=True)

    conn, _ = listener.accept()
    with conn:  # before: no one can see where a message ends
        conn.sendall(b"hello")
        conn.sendall(b"byebye")

    conn, _ = listener.accept()
    with framecodec.FrameSocket(conn) as frames:  # after: each one has its length in front
        frames.send(b"hello")
        frames.send(b"byebye")
