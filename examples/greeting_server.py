"""The greeting, server's side: says 你好 to one client and prints what it answers.

python examples/greeting_server.py [PORT]      (0: any free one; it is printed)
python examples/greeting_client.py [PORT]
"""

import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with framecodec.listen(("127.0.0.1", port)) as listener:
    print("listening on port", listener.address[1], flush=True)
    with listener.accept() as conn:
        conn.send("你好".encode())
        print("the client says", conn.recv().decode())
