"""Whole messages for the servers of the standard library's `socketserver`.

A handler class says what is answered; the server class says how connections are waited for and
served: one after the other, in threads, in processes, over TCP, Unix sockets or UDP. The handler
finds out what kind of socket it was given, so that one class serves all of them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from socketserver import BaseRequestHandler
from typing import Any, ClassVar, NoReturn

from . import _error_texts, errors
from ._datagrams import largest_payload, split_datagram
from .codec import Codec
from .sockets.connection import DEFAULT_CODEC, FrameSocket
from .sockets.datagrams import DatagramSocket

__all__ = ["FrameRequestHandler"]


class FrameRequestHandler(BaseRequestHandler):
    """Serves one connection of a `socketserver` server, or one datagram.

    Override `handle_message`, which is called with every message and returns the reply or None::

        class Shout(FrameRequestHandler):
            codec = Codec.uint(2)

            def handle_message(self, message):
                return message.upper()

        with socketserver.ThreadingTCPServer(("127.0.0.1", 6000), Shout) as server:
            server.serve_forever()

    Or override `handle`, and use `frames` as on any connection.

    A connection ends with the peer's clean end of the stream. What a peer does wrong (a frame that
    is none, a message that is too large or too slow, a connection that breaks) raises out of
    `handle`, ends this connection alone, and is reported by the server's ``handle_error``.

    Over UDP a request is one datagram, and as with `DatagramSocket` that is one message, or with a
    codec any number of whole frames. A `socketserver.UDPServer` reads 8192 bytes of a datagram and
    silently drops the rest: set its ``max_packet_size`` to 65507 (no datagram of UDP is larger)
    where messages may be longer. What fills it to the last byte is taken for cut short.
    """

    codec: ClassVar[Codec | None] = None
    """The shape of the frames. None: ``Codec.uint(4)`` on a stream; a datagram is a message."""

    message_timeout: ClassVar[float | None] = None
    """Seconds that one message may take from its first byte to its last."""

    idle_timeout: ClassVar[float | None] = None
    """Seconds that a connection may be quiet between two messages."""

    timeout: ClassVar[float | None] = None
    """Seconds that any one call may take, sending included; None: any time."""

    nodelay: ClassVar[bool] = True
    """Whether TCP sends every reply at once."""

    frames: FrameSocket | DatagramReply
    """The connection; over datagrams, a stand-in whose `send` answers the sender."""

    def setup(self) -> None:
        """Makes `frames`."""
        if isinstance(self.request, tuple):
            data, sock = self.request
            self.frames = DatagramReply(data, sock, self.client_address, self.codec, self.server)
            return
        sock = self.request
        if self.timeout is not None:
            sock.settimeout(self.timeout)
        if self.nodelay and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames = FrameSocket(
            sock,
            self.codec or DEFAULT_CODEC,
            message_timeout=self.message_timeout,
            idle_timeout=self.idle_timeout,
        )

    def handle(self) -> None:
        """Answers every message until the clean end of the stream.

        A reply leaves before the next message is handled, so `handle_message` may receive and
        send by `frames`, too.
        """
        for message in self.frames:
            reply = self.handle_message(message)
            if reply is not None:
                self.frames.send(reply)
            del message, reply  # a connection that rests holds neither

    def handle_message(self, message: Any) -> Any:
        """Answers one message; to be overridden.

        Args:
            message: What the peer sent.

        Returns:
            The reply, or None for no reply.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handle_message()")

    def finish(self) -> None:
        """Nothing to do: the server shuts the connection down and closes it."""


class DatagramReply:
    """One received datagram with the face of a connection: its messages, then the end.

    Args:
        data: The datagram.
        sock: The server's socket.
        address: Where the datagram came from, and where replies go.
        codec: The shape of the frames in it; None: it is one message.
        server: The server, which says how much of a datagram it reads.
    """

    def __init__(
        self,
        data: bytes,
        sock: socket.socket,
        address: Any,
        codec: Codec | None = None,
        server: Any = None,
    ) -> None:
        self._socket = DatagramSocket(sock, codec, max_size=1)  # to send only
        self._address = address
        most = getattr(server, "max_packet_size", None)
        largest = largest_payload(sock)
        messages: list[Any] = []
        failures: tuple[errors.FrameError, ...]
        if most is not None and most <= len(data) and (largest is None or len(data) < largest):
            failures = (_error_texts.datagram_truncated(len(data), None),)
        else:
            messages, failures = split_datagram(data, codec)
        for error in failures:
            error.address = address
        self._messages = iter(messages)
        self._errors = iter(failures)

    def recv(self) -> Any:
        """The datagram's next message.

        Raises:
            As `recv_many`.
        """
        for message in self._messages:
            return message
        self._end()

    def recv_many(self) -> list[Any]:
        """The datagram's messages.

        Raises:
            EOFError: They were given already, or there are none.
            TruncatedDatagramError: The server read only the datagram's first ``max_packet_size``
                bytes, as far as one can tell.
            FrameError: The datagram does not hold whole frames; raised behind the messages in
                front of the bad bytes.
        """
        return [*self._messages] or self._end()

    def __iter__(self) -> Iterator[Any]:
        """The datagram's messages."""
        yield from self._messages
        for error in self._errors:
            try:
                raise error
            finally:
                del error  # which holds this frame: a cycle

    def _end(self) -> NoReturn:
        for error in self._errors:
            try:
                raise error
            finally:
                del error  # which holds this frame: a cycle
        raise EOFError("the datagram has no more messages")

    def send(self, message: object, /) -> None:
        """Answers with one message, in one datagram.

        Raises:
            ValueError: The sender is a Unix socket without a name, which nobody can answer.
            As `DatagramSocket.send_to`.
        """
        self._socket.send_to(message, self.getpeername())

    def send_many(self, messages: Iterable[object], /) -> None:
        """Answers with many messages.

        Raises:
            As `send`.
        """
        self._socket.send_many_to(messages, self.getpeername())

    def getpeername(self) -> Any:
        """Where the datagram came from.

        Raises:
            ValueError: From nowhere that could be answered.
        """
        if not self._address:
            raise _error_texts.nameless_sender()
        return self._address
