"""A chat with two threads: one sends what a person types, one prints what arrives.

    python examples/chat.py listen [PORT]       (0: any free one; it is printed)
    python examples/chat.py connect [PORT]

The end of the input (Ctrl-D) ends the sending direction; the chat ends when the other side has
ended its own too.
"""

import contextlib
import socket
import sys
import threading

import framecodec

role = sys.argv[1] if len(sys.argv) > 1 else sys.exit(__doc__)
address = ("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 6000)


def meet():
    if role == "connect":
        return framecodec.connect(address)
    with framecodec.listen(address) as listener:
        print("listening on port", listener.address[1], flush=True)
        return listener.accept()


def send_what_is_typed(conn):
    # Another file object than sys.stdin: Python may end while this thread still waits for a line.
    with open(0, encoding="utf-8", closefd=False) as typed, contextlib.suppress(OSError):
        for line in typed:
            conn.send(line.strip().encode())  # an OSError if the other side is gone
        conn.shutdown(socket.SHUT_WR)


with contextlib.suppress(KeyboardInterrupt), meet() as conn:
    sending = threading.Thread(target=send_what_is_typed, args=[conn], daemon=True)
    sending.start()
    with contextlib.suppress(OSError, EOFError):  # cut off, they have left as well
        for message in conn:
            print("they say", message.decode(), flush=True)
    print("they have left", flush=True)
    sending.join()  # they say no more, but may still listen
