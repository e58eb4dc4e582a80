"""A chat over UDP, server's side: one datagram is one message, and each side speaks in its turn.

    python examples/udp_chat_server.py [PORT]      (0: any free one; it is printed)
    python examples/udp_chat_client.py [PORT]

Whoever types ``goodbye`` ends the chat; the server then waits for the next client. Anybody else who
calls meanwhile is told to come back.
"""

import socket
import sys

from framecodec import DatagramSocket

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000

with DatagramSocket(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as chat:
    chat.bind(("127.0.0.1", port))
    print("listening on port", chat.getsockname()[1], flush=True)
    partner = None
    while True:
        message, address = chat.recv_from()
        if partner not in (None, address):
            chat.send_to(b"busy, goodbye", address)
            continue
        partner = address
        text = message.decode()
        print("they say", text, flush=True)
        if text != "goodbye":
            text = next(sys.stdin, "goodbye").strip()
            chat.send_to(text.encode(), partner)
        if text == "goodbye":
            partner = None
            print("waiting for the next one", flush=True)
