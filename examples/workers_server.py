"""Past one core: worker processes that share a port (SO_REUSEPORT), each with its own connections.

    python examples/workers_server.py [PORT [WORKERS]]      (0: any free one; it is printed)
    python examples/workers_client.py [PORT]

The system deals the connections out. On SIGTERM or Ctrl-C every worker takes no more of them,
answers what has arrived, and ends; after ten seconds it is ended.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import weakref

import framecodec


def serve(conn, name):
    with conn, contextlib.suppress(framecodec.FrameError, OSError):
        for message in conn:
            conn.send(message.upper() + name)


def end_with_parent():
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def work(port, number, all_listen):
    name = b" by worker %d" % number
    conns = weakref.WeakSet()
    with framecodec.listen(("127.0.0.1", port), reuse_port=True) as listener:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
        # Clients that have connected are still accepted; without one, accept() raises a
        # BlockingIOError.
        signal.signal(signal.SIGTERM, lambda *_: listener.setblocking(False))
        threading.Thread(target=end_with_parent, daemon=True).start()
        all_listen.wait()
        with contextlib.suppress(BlockingIOError):
            for conn in listener:
                conns.add(conn)
                threading.Thread(target=serve, args=[conn, name]).start()
    for conn in list(conns):
        with contextlib.suppress(OSError):
            conn.shutdown(socket.SHUT_RD)  # the end follows what has arrived
    # The process ends when its threads have.


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 6000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1

    with socket.socket() as reserved:  # bound and not listening: it gets no connections
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Whatever server was here before, its connections may still fade away.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", port))
        port = reserved.getsockname()[1]
        all_listen = multiprocessing.Barrier(count + 1)
        workers = [
            multiprocessing.Process(target=work, args=[port, number, all_listen])
            for number in range(1, count + 1)
        ]
        for worker in workers:
            worker.start()
        all_listen.wait(30)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        print("listening on port", port, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            for worker in workers:
                worker.join()
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(10)
            worker.kill()
            worker.join()
    print("every worker has ended")
