"""Three members of a chat, two of them in the same channel.

python examples/channels_client.py [PORT]      (start channels_server.py first)
"""

import sys

import framecodec
from framecodec import Codec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
codec = Codec.uint(4, max_message_size=64 * 1024).as_json()


def join(name, channel):
    conn = framecodec.connect(("127.0.0.1", port), codec, timeout=10)
    conn.send({"name": name, "channel": channel})
    print(name, "hears", conn.recv())
    return conn


with join("Ann", "tea") as ann, join("Bob", "tea") as bob, join("Eve", "coffee") as eve:
    print("Ann hears", ann.recv())
    bob.send({"text": "hello"})
    eve.send({"text": "alone?"})
    print("Ann hears", ann.recv())
    print("Bob hears", bob.recv())
    print("Eve hears", eve.recv())
