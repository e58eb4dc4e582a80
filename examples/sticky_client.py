"""Sticky packets, client's side: what arrives without framing, and what with it.

python examples/sticky_client.py [PORT]      (start sticky_server.py first)
"""

import socket
import sys
import time

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with socket.create_connection(("127.0.0.1", port), timeout=10) as conn:
    time.sleep(0.1)  # until both messages are there
    print("before:", conn.recv(5), conn.recv(4))

with framecodec.connect(("127.0.0.1", port), timeout=10) as conn:
    time.sleep(0.1)
    print("after:", conn.recv(), conn.recv())
