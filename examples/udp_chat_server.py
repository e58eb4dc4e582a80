"""A chat over UDP, server's side: one datagram is one message, and each side speaks in its turn.

    python examples/udp_chat_server.py [PORT [PATIENCE]]      (0: any free one; it is printed)
    python examples/udp_chat_client.py [PORT]

A line ``goodbye`` ends the chat; the server then waits for the next client.
Another client that calls meanwhile is told to come back, unless the partner has said nothing for
PATIENCE seconds (60): it may be gone without a word.
"""

import contextlib
import socket
import sys
from time import monotonic

from framecodec import DatagramSocket

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
patience = float(sys.argv[2]) if len(sys.argv) > 2 else 60

with (
    contextlib.suppress(KeyboardInterrupt),
    DatagramSocket(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as chat,
):
    chat.bind(("127.0.0.1", port))
    print("listening on port", chat.getsockname()[1], flush=True)
    partner, answered = None, 0.0
    while True:
        message, address = chat.recv_from()
        if partner not in (None, address):
            if monotonic() - answered < patience:
                chat.send_to(b"busy, goodbye", address)
                continue
            print("they are silent, and another client calls", flush=True)
        partner = address
        text = message.decode()
        print("they say", text, flush=True)
        if not text.endswith("goodbye"):
            text = next(sys.stdin, "goodbye").strip()
            chat.send_to(text.encode(), partner)
            answered = monotonic()  # from now on it is their turn
        if text.endswith("goodbye"):
            partner = None
            print("waiting for the next one", flush=True)
