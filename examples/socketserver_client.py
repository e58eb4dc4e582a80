"""Two messages to the server of `socketserver`, and its answers.

python examples/socketserver_client.py [PORT]      (start socketserver_server.py first)
"""

import sys

import framecodec
from framecodec import Codec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with framecodec.connect(("127.0.0.1", port), Codec.digits(4), timeout=10) as conn:
    conn.send_many([b"hello", b"byebye"])
    print("received", conn.recv(), conn.recv())
