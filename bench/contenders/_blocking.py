"""The user's loop around a blocking contender, the same for all of them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from itertools import islice, repeat

from . import Messages


class OneByOne:
    """A contender whose call returns one message."""

    def __init__(self, recv: Callable[[], bytes], close: Callable[[], None]) -> None:
        self._recv = recv
        self.close = close

    def run(self, count: int) -> bytes:
        recv = self._recv
        for _ in repeat(None, count):
            message = recv()
        return message

    def collect(self, count: int) -> Messages:
        return [self._recv() for _ in range(count)]


class Batches:
    """A contender whose call returns a list of messages, maybe an empty one."""

    def __init__(self, recv_many: Callable[[], Messages], close: Callable[[], None]) -> None:
        self._recv_many = recv_many
        self.close = close

    def run(self, count: int) -> bytes:
        recv_many = self._recv_many
        while count > 0:
            messages = recv_many()
            count -= len(messages)
            for message in messages:  # noqa: B007 - the user's loop
                pass
        return message

    def collect(self, count: int) -> Messages:
        kept: Messages = []
        while len(kept) < count:
            kept += self._recv_many()
        return kept


class Iteration:
    """A contender that is iterated over until the stream ends."""

    def __init__(self, messages: Iterable[bytes], close: Callable[[], None]) -> None:
        self._messages = messages
        self.close = close

    def run(self, count: int) -> bytes:
        for message in self._messages:  # noqa: B007 - the user's loop
            pass
        return message

    def collect(self, count: int) -> Messages:
        return list(islice(self._messages, count))


class Calls:
    """Round trips by a function that sends a request and returns its reply."""

    def __init__(self, call: Callable[[bytes], bytes], close: Callable[[], None]) -> None:
        self._call = call
        self.close = close

    def run(self, message: bytes, count: int) -> bytes:
        call = self._call
        for _ in repeat(None, count):
            reply = call(message)
        return reply


class Sends:
    """Sending by one call a message."""

    def __init__(self, send: Callable[[bytes], object], close: Callable[[], None]) -> None:
        self._send = send
        self.close = close

    def run(self, messages: Messages, times: int) -> None:
        send = self._send
        for _ in repeat(None, times):
            for message in messages:
                send(message)


class SendsMany:
    """Sending by one call for a list of messages."""

    def __init__(
        self, send_many: Callable[[Messages], object], batch: int, close: Callable[[], None]
    ) -> None:
        self._send_many = send_many
        self._batch = batch  # messages
        self.close = close

    def run(self, messages: Messages, times: int) -> None:
        batches = [messages[at : at + self._batch] for at in range(0, len(messages), self._batch)]
        for _ in repeat(None, times):
            for batch in batches:
                self._send_many(batch)


def nodelay(sock: socket.socket) -> socket.socket:
    """Set TCP_NODELAY, as asyncio, Twisted and ZeroMQ do by themselves, and return the socket."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
