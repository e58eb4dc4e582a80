"""Twisted's `Int32StringReceiver`, on Twisted's default reactor."""

from __future__ import annotations

import socket
import time

from . import Contender, Feed, Messages
from ._blocking import nodelay

LIMIT = 64 * 1024 * 1024
TIMEOUT = 30.0  # seconds


def _receiver_class():
    from twisted.protocols.basic import Int32StringReceiver

    class Receiver(Int32StringReceiver):
        MAX_LENGTH = LIMIT  # its default is 99999

    return Receiver


class TwistedInt32(Contender):
    name = "Twisted Int32StringReceiver"
    requires = ("twisted.protocols.basic", "twisted.internet.reactor")
    in_loop = True

    def splitter(self) -> Feed:
        protocol = _receiver_class()()
        received: Messages = []
        protocol.stringReceived = received.append
        data_received = protocol.dataReceived

        def take(data: bytes) -> Messages:
            data_received(data)
            messages = received[:]
            received.clear()
            return messages

        return take

    def receiver(self, sock: socket.socket) -> _Connection:
        return _Connection(sock)

    def client(self, sock: socket.socket) -> _Connection:
        return _Connection(sock)

    def sender(self, sock: socket.socket) -> _Sending:
        return _Sending(sock)


class _Connection:
    """A protocol on the reactor, which is turned by hand: it can be run only once by `run`."""

    def __init__(self, sock: socket.socket) -> None:
        from twisted.internet import reactor
        from twisted.internet.protocol import Factory

        self._reactor = reactor
        self._made: list = []
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._build
        nodelay(sock).setblocking(False)
        reactor.adoptStreamConnection(sock.fileno(), sock.family, factory)
        sock.close()  # the reactor has its own duplicate
        self._protocol = self._made[0]
        self._protocol.transport.pauseProducing()
        self._left = 0
        self._last = b""

    def _build(self, address):
        protocol = _receiver_class()()
        protocol.stringReceived = self._received
        self._made.append(protocol)
        return protocol

    def _received(self, message: bytes) -> None:
        self._left -= 1
        if not self._left:
            self._last = message

    def _turn(self) -> None:
        deadline, iterate = time.monotonic() + TIMEOUT, self._reactor.iterate
        self._protocol.transport.resumeProducing()
        while self._left > 0:
            iterate(0.05)
            if time.monotonic() > deadline:
                raise TimeoutError

    def run(self, count, *more):
        if more:
            return self._exchange(count, *more)
        self._left = count
        self._turn()
        return self._last

    def collect(self, count: int) -> Messages:
        kept: Messages = []

        def keep(message: bytes) -> None:
            kept.append(message)
            self._left -= 1

        self._protocol.stringReceived = keep
        self._left = count
        self._turn()
        return kept

    def _exchange(self, message: bytes, count: int) -> bytes:
        send, left, last = self._protocol.sendString, count, b""

        def received(reply: bytes) -> None:
            nonlocal left, last
            left -= 1
            if left:
                send(message)
            else:
                self._left, last = 0, reply

        self._protocol.stringReceived = received
        self._left = 1
        send(message)
        self._turn()
        return last

    def close(self) -> None:
        self._protocol.transport.abortConnection()
        for _ in range(3):
            self._reactor.iterate(0)


class _Sending(_Connection):
    def run(self, messages: Messages, times: int) -> None:
        send, iterate = self._protocol.sendString, self._reactor.iterate
        transport = self._protocol.transport
        for _ in range(times):
            for message in messages:
                send(message)
            while transport.dataBuffer or transport._tempDataBuffer:
                iterate(0.05)
