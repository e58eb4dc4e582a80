"""Tuned pure Python: what an expert writes who has no extension module.

One loop over the received bytes, with local names only. Pieces of an incomplete message are kept
in a list and joined once.
"""

from __future__ import annotations

import socket
import struct

from . import HEADER, Contender, Feed, Messages
from ._blocking import Batches, Calls, Sends, SendsMany, nodelay

LIMIT = 16 * 1024 * 1024


class _Splitter:
    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the pending frame
        self._held = 0  # bytes in them
        self._wanted = 4  # bytes of it without which there is nothing to do

    def feed(self, data: bytes) -> Messages:
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return []
            data = b"".join(self._pieces)
        messages: Messages = []
        append = messages.append
        unpack_from = HEADER.unpack_from
        pos = 0
        try:
            while True:
                (size,) = unpack_from(data, pos)
                if size > LIMIT:
                    raise ValueError(f"a message of {size} bytes is above the limit")
                start = pos + 4
                stop = start + size
                message = data[start:stop]
                if len(message) < size:
                    self._wanted = size + 4
                    break
                append(message)
                pos = stop
        except struct.error:  # fewer than four bytes are left
            self._wanted = 4
        rest = data[pos:] if pos else data
        self._held = len(rest)
        self._pieces = [rest] if rest else []
        return messages


class TunedPython(Contender):
    name = "tuned Python"
    timeouts = True

    def splitter(self) -> Feed:
        return _Splitter().feed

    def encode(self, message: bytes) -> bytes:
        return HEADER.pack(len(message)) + message

    def encode_many(self, messages: Messages) -> bytes:
        parts = [b""] * (2 * len(messages))
        parts[::2] = map(HEADER.pack, map(len, messages))
        parts[1::2] = messages
        return b"".join(parts)

    def receiver(self, sock: socket.socket) -> Batches:
        feed, recv = _Splitter().feed, nodelay(sock).recv
        return Batches(lambda: feed(recv(65536)), sock.close)

    def client(self, sock: socket.socket) -> Calls:
        recv, sendall, pack = nodelay(sock).recv, sock.sendall, HEADER.pack
        feed = _Splitter().feed

        def call(message: bytes) -> bytes:
            sendall(pack(len(message)) + message)
            while not (replies := feed(recv(65536))):
                pass
            return replies[0]

        return Calls(call, sock.close)

    def sender(self, sock: socket.socket) -> SendsMany:
        sendall, encode_many = nodelay(sock).sendall, self.encode_many
        return SendsMany(lambda messages: sendall(encode_many(messages)), 1024, sock.close)


class JoinPython(Contender):
    """The same for encoding, as it is most often written."""

    name = "Python, one pack + m a message"

    def sender(self, sock: socket.socket) -> Sends:
        sendall, pack = nodelay(sock).sendall, HEADER.pack
        return Sends(lambda message: sendall(pack(len(message)) + message), sock.close)
