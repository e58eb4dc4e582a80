"""A length packed by `struct`, server's side: answers every message of one client.

    python examples/struct_length_server.py [PORT]      (0: any free one; it is printed)
    python examples/struct_length_client.py [PORT]

``"i"`` is this machine's own int, as in ``struct.pack("i", len(m))``; for a peer on another kind of
machine write ``"!i"``, which is the same everywhere.
"""

import sys

import framecodec
from framecodec import Codec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with framecodec.listen(("127.0.0.1", port), Codec.struct("i")) as listener:
    print("listening on port", listener.address[1], flush=True)
    with listener.accept() as conn:
        for message in conn:
            conn.send(message.upper())
