"""`multiprocessing.connection.Connection`: the standard library's own framing."""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection

from . import Contender
from ._blocking import Calls, OneByOne, Sends, nodelay


class MultiprocessingConnection(Contender):
    name = "multiprocessing.connection"

    def receiver(self, sock: socket.socket) -> OneByOne:
        connection = Connection(nodelay(sock).detach())
        return OneByOne(connection.recv_bytes, connection.close)

    def client(self, sock: socket.socket) -> Calls:
        connection = Connection(nodelay(sock).detach())
        send, recv = connection.send_bytes, connection.recv_bytes

        def call(message: bytes) -> bytes:
            send(message)
            return recv()

        return Calls(call, connection.close)

    def sender(self, sock: socket.socket) -> Sends:
        connection = Connection(nodelay(sock).detach())
        return Sends(connection.send_bytes, connection.close)
