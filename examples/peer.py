"""Peer to peer: the same program on both sides; each listens, and each connects to the other.

    python examples/peer.py [PORT]                (0: any free one; it is printed)
    python examples/peer.py PORT OTHER_PORT       (the first peer's; with 6001 6000 they meet)

What a peer has to say goes out on the connection that it made, and comes in on the one that it
accepted. The first message of every connection says where the caller listens.
"""

import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
other = int(sys.argv[2]) if len(sys.argv) > 2 else None

with framecodec.listen(("127.0.0.1", port)) as listener:
    port = listener.address[1]
    print("listening on port", port, flush=True)

    def call(other):
        conn = framecodec.connect(("127.0.0.1", other), timeout=10)
        conn.send(str(port).encode())
        return conn

    def answer():
        conn = listener.accept()
        return conn, int(conn.recv())

    if other is not None:
        outgoing = call(other)
        incoming, other = answer()
    else:
        incoming, other = answer()
        outgoing = call(other)

    with outgoing, incoming:
        outgoing.send(f"hello {other}, here is {port}".encode())
        print(incoming.recv().decode())
