"""The C floor (bench/floor): a hand-written C extension that does the same work."""

from __future__ import annotations

import socket

from .. import floor
from . import Contender, Feed, Missing
from ._blocking import Batches, Calls, Sends, SendsMany, nodelay


class Floor(Contender):
    name = "C floor"
    timeouts = True
    role = "floor"

    def ready(self) -> None:
        try:
            floor.load()
        except ImportError as error:
            raise Missing(str(error)) from None

    def splitter(self) -> Feed:
        return floor.load().Splitter().feed

    @property
    def encode(self):
        return floor.load().encode

    @property
    def encode_many(self):
        return floor.load().encode_many

    def receiver(self, sock: socket.socket) -> Batches:
        feed, recv_into = floor.load().Splitter().feed, nodelay(sock).recv_into
        buffer = memoryview(bytearray(65536 if sock.family == socket.AF_INET else 262144))
        return Batches(lambda: feed(buffer[: recv_into(buffer)]), sock.close)

    def client(self, sock: socket.socket) -> Calls:
        recv, sendall = nodelay(sock).recv, sock.sendall
        feed, encode = floor.load().Splitter().feed, floor.load().encode

        def call(message: bytes) -> bytes:
            sendall(encode(message))
            while not (replies := feed(recv(65536))):
                pass
            return replies[0]

        return Calls(call, sock.close)

    def sender(self, sock: socket.socket) -> SendsMany:
        sendall, encode_many = nodelay(sock).sendall, floor.load().encode_many
        return SendsMany(lambda messages: sendall(encode_many(messages)), 4096, sock.close)


class FloorOne(Contender):
    name = "C floor, one call a message"
    role = "floor"
    ready = Floor.ready

    def sender(self, sock: socket.socket) -> Sends:
        sendall, encode = nodelay(sock).sendall, floor.load().encode
        return Sends(lambda message: sendall(encode(message)), sock.close)
