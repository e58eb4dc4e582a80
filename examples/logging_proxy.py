"""A proxy that passes every byte on unchanged, and prints the frames of both directions.

    python examples/logging_proxy.py 6001 6000 [CODEC]      (listens on 6001, connects to 6000)
    python examples/asyncio_echo_client.py 6001             (and its server is at 6000)

The bytes are passed on first and read afterwards: a bad frame is printed as
such, and reaches the other side like all that follows it.
"""

import contextlib
import socket
import sys
import threading

from framecodec import FrameError, parse_codec

port, upstream_port = int(sys.argv[1]), int(sys.argv[2])
codec = parse_codec(sys.argv[3] if len(sys.argv) > 3 else "u32be")


def log(direction, splitter, data):
    """Print the frames that some bytes complete; return whether the next bytes can be read."""
    try:
        for frame in splitter.feed(data):
            print(direction, frame, flush=True)
        if splitter.error is not None:
            raise splitter.error
        if not data:
            splitter.feed_eof()  # raises inside a frame
    except FrameError as error:
        print(direction, "bad:", error, flush=True)
        return False
    return True


def copy(direction, source, target):
    splitter, readable = codec.splitter(raw=True), True
    try:
        data = None
        while data != b"":
            data = source.recv(65536)
            if data:
                target.sendall(data)
            else:
                target.shutdown(socket.SHUT_WR)
            if readable:
                readable = log(direction, splitter, data)
    except OSError as error:
        print(direction, "ended:", error, flush=True)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the other direction


def serve(client):
    with client, socket.create_connection(("127.0.0.1", upstream_port)) as server:
        answers = threading.Thread(target=copy, args=("<", server, client), daemon=True)
        answers.start()
        copy(">", client, server)
        answers.join()


with socket.create_server(("127.0.0.1", port)) as listener, contextlib.suppress(KeyboardInterrupt):
    print("listening on port", listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()
