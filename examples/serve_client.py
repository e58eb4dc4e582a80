"""Garbage, and then two messages, to the server with a thread for each client.

python examples/serve_client.py [PORT]      (start serve_server.py first)
"""

import socket
import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with socket.create_connection(("127.0.0.1", port), timeout=10) as garbage:
    garbage.sendall(b"GET / HTTP/1.1\r\n\r\n")
    print("the server ended the bad connection:", garbage.recv(100) == b"")

with framecodec.connect(("127.0.0.1", port), timeout=10) as conn:
    conn.send_many([b"hello", b"byebye"])
    print("received", conn.recv(), conn.recv())
