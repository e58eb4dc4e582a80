"""A chat over UDP, client's side: type a line, read the answer, until a line ends with goodbye.

python examples/udp_chat_client.py [PORT]      (start udp_chat_server.py first)
"""

import contextlib
import socket
import sys

from framecodec import DatagramSocket

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with (
    contextlib.suppress(KeyboardInterrupt),
    DatagramSocket(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as chat,
):
    chat.connect(("127.0.0.1", port))
    text = ""
    while not text.endswith("goodbye"):
        text = next(sys.stdin, "goodbye").strip()
        chat.send(text.encode())
        if not text.endswith("goodbye"):
            text = chat.recv().decode()
            print("they say", text, flush=True)
