"""Eight connections to the workers, one after the other: each one's answer says who serves it.

python examples/workers_client.py [PORT]      (start workers_server.py first)
"""

import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

for number in range(8):
    with framecodec.connect(("127.0.0.1", port), timeout=10) as conn:
        conn.send(b"hello %d" % number)
        print("received", conn.recv())
