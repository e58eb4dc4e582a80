"""The kernel's limit: bytes are received and sent, and no code looks for messages in them."""

from __future__ import annotations

import socket

from . import HEADER, Contender, Messages
from ._blocking import Calls, nodelay


class _Discard:
    """Reads all bytes of the messages, without looking at them.

    `run` returns no message, so the check does not look at its result; `collect` splits.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = nodelay(sock)
        self._buffer = bytearray(65536 if sock.family == socket.AF_INET else 262144)
        self.close = sock.close

    def run(self, count: int) -> bytes:
        recv_into, buffer = self._sock.recv_into, self._buffer
        while recv_into(buffer):
            pass
        return b""

    def collect(self, count: int) -> Messages:
        received = b"".join(iter(lambda: self._sock.recv(65536), b""))
        messages, pos = [], 0
        while pos < len(received):
            (size,) = HEADER.unpack_from(received, pos)
            messages.append(received[pos + 4 : pos + 4 + size])
            pos += 4 + size
        return messages


class _BigWrites:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = nodelay(sock)
        self.close = sock.close

    def prepare(self, messages: Messages) -> None:
        self._frames = RawSocket().wire(messages)

    def run(self, messages: Messages, times: int) -> None:
        for _ in range(times):
            self._sock.sendall(self._frames)


class RawSocket(Contender):
    name = "raw socket"
    timeouts = True
    role = "reference"

    def receiver(self, sock: socket.socket) -> _Discard:
        return _Discard(sock)

    def client(self, sock: socket.socket) -> Calls:
        """Raw Python: one send, one receive, no loop for a reply that comes in parts."""
        recv, send, pack = nodelay(sock).recv, sock.send, HEADER.pack

        def call(message: bytes) -> bytes:
            send(pack(len(message)) + message)
            return recv(65536)[4:]

        return Calls(call, sock.close)

    def sender(self, sock: socket.socket) -> _BigWrites:
        return _BigWrites(sock)
