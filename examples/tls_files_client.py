"""Get a file over TLS.

python examples/tls_files_client.py AUTHORITY NAME [PORT]      (start tls_files_server.py first)
"""

import hashlib
import ssl
import sys
import tempfile

import framecodec
from framecodec import Codec

authority, name = sys.argv[1:3]
port = int(sys.argv[3]) if len(sys.argv) > 3 else 6000
context = ssl.create_default_context(cafile=authority)

with framecodec.connect(
    ("localhost", port), Codec.uint(8, max_message_size=2**40), ssl=context, timeout=10
) as conn:
    conn.send(name.encode())
    answer = conn.recv()
    if answer != b"ok":
        sys.exit(answer.decode())
    with tempfile.TemporaryFile() as file:
        size = conn.recv_file(file)
        file.seek(0)
        print(size, "bytes, SHA-256", hashlib.file_digest(file, "sha256").hexdigest())
