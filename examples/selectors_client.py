"""Three connections at a time to a server of one thread.

python examples/selectors_client.py [PORT]      (start selectors_server.py first)
"""

import sys
from contextlib import ExitStack

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with ExitStack() as stack:
    conns = [
        stack.enter_context(framecodec.connect(("127.0.0.1", port), timeout=10)) for _ in range(3)
    ]
    for number, conn in enumerate(conns):
        conn.send_many([b"hello from %d" % number, b"byebye from %d" % number])
    for conn in reversed(conns):
        print("received", conn.recv(), conn.recv())
