"""A file server with a thread for each client, over TLS.

    python examples/tls_files_server.py CERTIFICATE KEY DIRECTORY [PORT]
    python examples/tls_files_client.py AUTHORITY NAME [PORT]

CERTIFICATE and KEY are PEM files for "localhost", AUTHORITY is the certificate of who signed them.
A client sends the name of a file and gets `ok` and the file, or why not. No file is in memory
whole.
"""

import ssl
import sys
from pathlib import Path

import framecodec
from framecodec import Codec

certificate, key, directory = sys.argv[1:4]
port = int(sys.argv[4]) if len(sys.argv) > 4 else 6000
root = Path(directory).resolve()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)


def handler(conn):
    for name in conn:
        path = (root / name.decode(errors="replace")).resolve()
        if not (path.is_relative_to(root) and path.is_file()):
            conn.send(b"no such file")
            continue
        conn.send(b"ok")
        with path.open("rb") as file:
            conn.send_file(file)


with framecodec.serve(
    handler,
    ("127.0.0.1", port),
    Codec.uint(8, max_message_size=None),
    ssl=context,
    max_connections=100,
    idle_timeout=60.0,
) as server:
    print("listening on port", server.address[1], flush=True)
    server.serve_forever()
