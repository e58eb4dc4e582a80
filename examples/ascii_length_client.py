"""A length of four ASCII digits, client's side: prints each message until the server closes.

python examples/ascii_length_client.py [PORT]      (start ascii_length_server.py first)
"""

import sys

import framecodec
from framecodec import Codec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with framecodec.connect(("127.0.0.1", port), Codec.digits(4), timeout=10) as conn:
    for message in conn:
        print("received", message)
