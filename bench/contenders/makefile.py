"""`socket.makefile`: a buffered reader, two reads a message."""

from __future__ import annotations

import socket

from . import HEADER, Contender
from ._blocking import OneByOne, Sends, nodelay


class Makefile(Contender):
    name = "makefile().read"

    def receiver(self, sock: socket.socket) -> OneByOne:
        file = nodelay(sock).makefile("rb", buffering=65536)
        read, unpack = file.read, HEADER.unpack

        def recv() -> bytes:
            (size,) = unpack(read(4))
            return read(size)

        def close() -> None:
            file.close()
            sock.close()

        return OneByOne(recv, close)

    def sender(self, sock: socket.socket) -> Sends:
        file = nodelay(sock).makefile("wb", buffering=65536)
        write, pack = file.write, HEADER.pack

        def send(message: bytes) -> None:
            write(pack(len(message)))
            write(message)

        def close() -> None:
            file.close()
            sock.close()

        sends = Sends(send, close)
        return _Flushed(sends, file)


class _Flushed:
    def __init__(self, sends: Sends, file) -> None:
        self._sends = sends
        self._file = file
        self.close = sends.close

    def run(self, messages: list[bytes], times: int) -> None:
        self._sends.run(messages, times)
        self._file.flush()
