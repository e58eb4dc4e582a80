"""A server of the standard library's `socketserver` with whole messages, a thread a client.

    python examples/socketserver_server.py [PORT]      (0: any free one; it is printed)
    python examples/socketserver_client.py [PORT]

With `socketserver.UDPServer` the same class answers datagrams.
"""

import contextlib
import socketserver
import sys

from framecodec import Codec
from framecodec.socketserver import FrameRequestHandler

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


class Shout(FrameRequestHandler):
    codec = Codec.digits(4)
    message_timeout = 10.0  # seconds; a client that sends more slowly is disconnected

    def handle_message(self, message):
        return message.upper()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True  # else no restart while the last run's connections fade away
    daemon_threads = True  # Ctrl-C does not wait for the clients


with contextlib.suppress(KeyboardInterrupt), Server(("127.0.0.1", port), Shout) as server:
    print("listening on port", server.server_address[1], flush=True)
    server.serve_forever()
