"""Two people in one chat: each hears both.

python examples/messages_client.py [PORT]      (start messages_server.py first)
"""

import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
address = ("127.0.0.1", port)

with framecodec.connect(address, timeout=10) as ann, framecodec.connect(address, timeout=10) as bob:
    for conn, name in ((ann, b"Ann"), (bob, b"Bob")):
        conn.send(name)
        print(conn.recv().decode())
    ann.send(b"hello")
    print("Bob hears", bob.recv().decode())
    bob.send(b"byebye")
    print("Ann hears", ann.recv().decode(), "and", ann.recv().decode())
