"""What messages in datagrams cost: one call each, and many by one call.

    python -m bench.datagrams

Processor time of this process, ns a message of 64 bytes, over UDP and Unix sockets: the quickest of
many rounds, in which all ways take turns.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from framecodec import DatagramSocket

SIZE, ROUNDS = 64, 400


def main() -> None:
    for name, count in (("UDP", 64), ("Unix", 8)):
        left, right = _pair(name)
        with left, right:
            print(f"{name}, {count} messages of {SIZE} bytes, ns a message:")
            for way, seconds in _measure(left, right, count).items():
                print(f"  {way:<24}{seconds / count * 1e9:8.0f}")


def _pair(name: str) -> tuple[socket.socket, socket.socket]:
    if name == "Unix":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    right.bind(("127.0.0.1", 0))
    left.connect(right.getsockname())
    return left, right


def _measure(left: socket.socket, right: socket.socket, count: int) -> dict[str, float]:
    sender, receiver = DatagramSocket(left), DatagramSocket(right)
    messages = [bytes([number]) * SIZE for number in range(count)]

    def one_each(send: Callable[[bytes], Any]) -> None:
        for message in messages:
            send(message)

    def take(receive: Callable[[], Any]) -> list[Any]:
        return [receive() for _ in range(count)]

    sends: dict[str, Callable[[], Any]] = {
        "socket.send": lambda: one_each(left.send),
        "send": lambda: one_each(sender.send),
        "send_many": lambda: sender.send_many(messages),
    }
    receives: dict[str, Callable[[], list[Any]]] = {
        "socket.recv": lambda: take(lambda: right.recv(65536)),
        "recv": lambda: take(receiver.recv),
        "recv_many": lambda: [message for some in take(receiver.recv_many) for message in some],
    }
    best: dict[str, float] = {}
    for number in range(ROUNDS):
        for way, send in sends.items():
            start = time.thread_time()
            send()
            best[way] = min(best.get(way, 1.0), time.thread_time() - start)
            if take(lambda: right.recv(65536)) != messages:
                raise ValueError(f"{way}: other messages than were sent")
        for way, receive in receives.items():
            one_each(left.send)
            start = time.thread_time()
            received = receive()
            best[way] = min(best.get(way, 1.0), time.thread_time() - start)
            if received != messages:
                raise ValueError(f"{way}: other messages than were sent in round {number}")
    return best


if __name__ == "__main__":
    main()
