"""The tutorial's way: receive the header, then receive the body; send the header, then the body."""

from __future__ import annotations

import socket

from . import HEADER, Contender
from ._blocking import Calls, OneByOne, Sends, nodelay


def _receive_exactly(sock: socket.socket):
    recv = sock.recv

    def receive_exactly(size: int) -> bytes:
        data = recv(size)
        if len(data) == size:
            return data
        pieces, missing = [data], size - len(data)
        while missing:
            data = recv(min(missing, 65536))
            if not data:
                raise EOFError
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    return receive_exactly


class RecvRecv(Contender):
    name = "recv header, recv body"
    timeouts = True

    def receiver(self, sock: socket.socket) -> OneByOne:
        receive, unpack = _receive_exactly(nodelay(sock)), HEADER.unpack
        return OneByOne(lambda: receive(unpack(receive(4))[0]), sock.close)

    def client(self, sock: socket.socket) -> Calls:
        receive, unpack, pack = _receive_exactly(nodelay(sock)), HEADER.unpack, HEADER.pack
        sendall = sock.sendall

        def call(message: bytes) -> bytes:
            sendall(pack(len(message)) + message)
            return receive(unpack(receive(4))[0])

        return Calls(call, sock.close)

    def sender(self, sock: socket.socket) -> Sends:
        sendall, pack = nodelay(sock).sendall, HEADER.pack

        def send(message: bytes) -> None:
            sendall(pack(len(message)))
            sendall(message)

        return Sends(send, sock.close)
