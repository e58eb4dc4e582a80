"""The greeting, client's side: prints what the server says and answers 再见.

python examples/greeting_client.py [PORT]      (start greeting_server.py first)
"""

import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with framecodec.connect(("127.0.0.1", port), timeout=10) as conn:
    print("the server says", conn.recv().decode())
    conn.send("再见".encode())
