"""gevent: each client has a greenlet; a call that waits lets the others run.

    python examples/gevent_server.py [PORT]           (0: any free one; it is printed)
    python examples/asyncio_echo_client.py [PORT]

It needs gevent (pip install gevent). Patch before framecodec is imported.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from gevent.server import StreamServer  # noqa: E402

from framecodec import FrameError, FrameSocket  # noqa: E402

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


def handle(sock, address):
    try:
        with FrameSocket(sock, idle_timeout=300.0) as conn:
            for message in conn:
                conn.send(message)
    except (OSError, EOFError, FrameError) as error:
        print(address, "ended:", error, file=sys.stderr)


server = StreamServer(("127.0.0.1", port), handle)
server.start()
print("listening on port", server.server_port, flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    server.stop()
