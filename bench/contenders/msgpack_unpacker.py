"""msgpack's `Unpacker`: bytes objects in msgpack's own framing, split by its C engine."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from . import Contender, Feed, Messages
from ._blocking import Batches, nodelay


class MsgpackUnpacker(Contender):
    name = "msgpack Unpacker"
    requires = ("msgpack",)

    def wire(self, messages: Iterable[bytes]) -> bytes:
        return self.encode_many(list(messages))

    def splitter(self) -> Feed:
        import msgpack

        # Its buffer must hold what is pending; without this it refuses more than 100 MB.
        unpacker = msgpack.Unpacker(max_buffer_size=64 * 1024 * 1024)
        feed = unpacker.feed

        def take(data: bytes) -> Messages:
            feed(data)
            return list(unpacker)

        return take

    @property
    def encode(self):
        import msgpack

        return msgpack.Packer().pack

    def encode_many(self, messages: Messages) -> bytes:
        import msgpack

        packer = msgpack.Packer(autoreset=False)
        pack = packer.pack
        for message in messages:
            pack(message)
        return packer.bytes()

    def receiver(self, sock: socket.socket) -> Batches:
        take, recv = self.splitter(), nodelay(sock).recv
        return Batches(lambda: take(recv(65536)), sock.close)
