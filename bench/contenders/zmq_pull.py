"""pyzmq: a PULL socket, fed by a plain socket that speaks ZMTP: only the receiver counts."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from . import Contender
from ._blocking import OneByOne


class ZmqPull(Contender):
    name = "pyzmq PULL"
    requires = ("zmq",)
    greeting = "zmtp"

    def wire(self, messages: Iterable[bytes]) -> bytes:
        """ZMTP 3: flags, and a size of 1 byte or of 8."""
        return b"".join(
            (bytes((0, len(m))) + m if len(m) < 256 else b"\x02" + len(m).to_bytes(8, "big") + m)
            for m in messages
        )

    def dial(self, family: str, address: Any) -> OneByOne:
        """Connect with ZeroMQ's own socket: it cannot take over an existing one."""
        import zmq

        context = zmq.Context()
        pull = context.socket(zmq.PULL)
        pull.setsockopt(zmq.LINGER, 0)
        pull.setsockopt(zmq.RCVTIMEO, 60_000)
        pull.connect(f"ipc://{address}" if family == "Unix" else f"tcp://{address[0]}:{address[1]}")
        recv = pull.recv

        def close() -> None:
            pull.close()
            context.term()

        return OneByOne(recv, close)

    def receiver(self, sock: socket.socket) -> OneByOne:
        """Not called: `dial` makes the receiver."""
        raise NotImplementedError
