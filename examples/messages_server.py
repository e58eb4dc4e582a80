"""A chat for many clients in one thread: everyone gets what anyone says.

    python examples/messages_server.py [PORT]      (0: any free one; it is printed)
    python examples/messages_client.py [PORT]

The first message of a client is its name. `handle` must not wait; `broadcast` never does.
"""

import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


def handle(conn, messages):
    for message in messages:
        if conn.state is None:
            conn.state = message
            conn.send(b"welcome, " + message)
        else:
            server.broadcast(conn.state + b": " + message)


with framecodec.serve_messages(handle, ("127.0.0.1", port), idle_timeout=600.0) as server:
    print("listening on port", server.address[1], flush=True)
    server.serve_forever()
