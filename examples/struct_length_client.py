"""A length packed by `struct`, client's side: sends two messages at once and prints the answers.

python examples/struct_length_client.py [PORT]      (start struct_length_server.py first)
"""

import sys

import framecodec
from framecodec import Codec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with framecodec.connect(("127.0.0.1", port), Codec.struct("i"), timeout=10) as conn:
    conn.send_many([b"hello", b"byebye"])
    print("received", conn.recv(), conn.recv())
