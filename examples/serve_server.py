"""A server with a thread for each client, made for the open internet: it has limits, and it logs.

    python examples/serve_server.py [PORT]      (0: any free one; it is printed)
    python examples/serve_client.py [PORT]

A client that sends garbage, drips, or leaves early ends its own connection only.
"""

import logging
import sys

import framecodec
from framecodec import Codec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")


def handler(conn):
    for message in conn:
        conn.send(message.upper())


with framecodec.serve(
    handler,
    ("127.0.0.1", port),
    Codec.uint(4, max_message_size=64 * 1024),
    max_connections=1000,
    message_timeout=10.0,
    idle_timeout=300.0,
) as server:
    print("listening on port", server.address[1], flush=True)
    server.serve_forever()
