"""Many clients in one thread, with `selectors`: every message goes back in capitals.

    python examples/selectors_server.py [PORT]      (0: any free one; it is printed)
    python examples/selectors_client.py [PORT]

No call waits. Half a message costs its bytes and nothing else; a client that does not read its
replies is not asked for more until it does.
"""

import contextlib
import selectors
import sys

import framecodec

port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000


def serve(conn, replies):
    """Continue without waiting as far as possible; return the replies that are still unsent."""
    try:
        if not replies:
            conn.flush()
            replies = [message.upper() for message in conn.recv_many()]
        conn.send_many(replies)
    except BlockingIOError as error:
        return [] if getattr(error, "message_started", False) else replies
    return []


with (
    contextlib.suppress(KeyboardInterrupt),
    framecodec.listen(("127.0.0.1", port)) as listener,
    selectors.DefaultSelector() as selector,
):
    print("listening on port", listener.address[1], flush=True)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                with contextlib.suppress(BlockingIOError):  # who called has gone again
                    conn = listener.accept()
                    conn.setblocking(False)
                    selector.register(conn, selectors.EVENT_READ, [])
                continue
            conn = key.fileobj
            try:
                replies = serve(conn, key.data)
            except (EOFError, OSError, framecodec.FrameError) as reason:
                print("a client left:", reason, flush=True)
                selector.unregister(conn)
                conn.close()
            else:
                full = replies or conn.pending_send
                event = selectors.EVENT_WRITE if full else selectors.EVENT_READ
                selector.modify(conn, event, replies)
