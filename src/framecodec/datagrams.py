"""Whole messages over UDP and Unix datagrams, whose boundaries are the datagrams' own.

What a `DatagramSocket` must do
    Give every message back as it was sent, or say that it cannot: what the kernel cut short, what
    holds no whole frames and what no datagram holds is an error, never a short message.

How
    ``recvmsg_into`` reads one datagram into a buffer that is one byte larger than the largest that
    is wanted, and says (MSG_TRUNC) whether it was cut all the same. With a codec the datagram is a
    stream of its own, for a splitter of its own: what is wrong with it ends with it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeAlias, final

from . import errors
from .codec import Codec
from .splitter import Splitter

__all__ = ["LARGEST_UDP_PAYLOAD", "DatagramSocket"]

_Socket: TypeAlias = socket.socket  # for classes that have an attribute `socket`

_TRUNC: int = getattr(socket, "MSG_TRUNC", 0)
_WSAEMSGSIZE = 10040  # how Windows says that a datagram was cut short

# No datagram of UDP is larger; Unix datagrams may be, up to the socket's send buffer.
LARGEST_UDP_PAYLOAD = 65507
_LARGEST_UDP6_PAYLOAD = 65527


@final
class DatagramSocket:
    """Whole messages over datagrams, UDP or Unix, whose boundaries are the datagrams' own.

    Without a codec a message is a datagram, the empty one included. With a codec a datagram carries
    any number of whole frames: it costs less to send small messages together, and both ends agree
    on the shape with a stream. It is as reliable as its datagrams are: UDP may drop, double and
    reorder them.

    What is wrong with one datagram is an error of the call that received it. The next call receives
    the next datagram.

    Args:
        sock: A datagram socket, IPv4, IPv6 or Unix.
        codec: The shape of the frames; None: a message is a datagram.
        max_size: The largest datagram that is received, in bytes; what is longer is a
            `TruncatedDatagramError`.

    Raises:
        TypeError, ValueError: `sock` is no datagram socket, or an argument is invalid.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_closed",
        "_codec",
        "_largest",
        "_lock",
        "_ready",
        "_sock",
    )

    def __init__(
        self, sock: socket.socket, codec: Codec | None = None, *, max_size: int = 65536
    ) -> None:
        if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_DGRAM:
            raise errors.not_a_datagram_socket(sock)
        if codec is not None and not isinstance(codec, Codec):
            raise errors.not_a_codec(codec)
        if max_size < 1:
            raise errors.bad_max_size(max_size)
        self._sock = sock
        self._codec = codec
        # One byte more tells a datagram that fits from one that was cut where the system does not.
        self._buffer = bytearray(max_size + 1)
        self._ready: deque[tuple[Any, Any]] = deque()  # messages and where they came from
        self._lock = threading.RLock()
        self._closed = False
        self._largest = {
            socket.AF_INET: LARGEST_UDP_PAYLOAD,
            socket.AF_INET6: _LARGEST_UDP6_PAYLOAD,
        }.get(sock.family)

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: object, /) -> None:
        """Sends one message, in one datagram, to the address that the socket is connected to.

        Raises:
            MessageTooLargeError: No datagram holds it; nothing was sent.
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was sent.
            TimeoutError, BlockingIOError, OSError: Nothing was sent.
        """
        self._send(self._encode(message), None)

    def send_many(self, messages: Iterable[object], /) -> None:
        """Sends messages to the address that the socket is connected to: with a codec, as many as
        fit in each datagram, else one in each.

        Raises:
            As `send`; nothing was sent where a message is invalid. What a system call refuses is
            not sent again: the datagrams before it have left.
        """
        for datagram in self._pack(messages):
            self._send(datagram, None)

    def send_to(self, message: object, address: Any, /) -> None:
        """Sends one message, in one datagram.

        Args:
            message: A contiguous bytes-like object; with a codec also one of its ``specials``.
            address: ``(host, port)``, IPv6 also with flow and scope, or the path of a Unix socket.

        Raises:
            As `send`.
        """
        self._send(self._encode(message), address)

    def send_many_to(self, messages: Iterable[object], address: Any, /) -> None:
        """Sends messages to an address, as `send_many`.

        Raises:
            As `send_many`.
        """
        for datagram in self._pack(messages):
            self._send(datagram, address)

    def _encode(self, message: object) -> Any:
        datagram: Any
        if self._codec is not None:
            datagram = self._codec.encode(message)
            size = len(datagram)
        else:
            datagram = message if type(message) is bytes else errors.view_bytes(message)
            size = len(datagram)
        if self._largest is not None and size > self._largest:
            raise errors.message_too_large(size, self._largest, "datagram's size, headers included")
        return datagram

    def _pack(self, messages: Iterable[object]) -> list[Any]:
        datagrams = [self._encode(message) for message in messages]
        if self._codec is None:
            return datagrams
        most = self._largest or self._room()
        packed: list[bytes] = []
        together: list[bytes] = []
        size = 0
        for frame in datagrams:
            if together and size + len(frame) > most:
                packed.append(b"".join(together))
                together, size = [], 0
            together.append(frame)
            size += len(frame)
        return [*packed, b"".join(together)] if together else packed

    def _room(self) -> int:
        """Bytes that a Unix datagram has room for, by a careful guess."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4

    def _send(self, datagram: Any, address: Any) -> None:
        if self._closed:
            raise errors.connection_closed()
        try:
            if address is None:
                self._sock.send(datagram)
            else:
                self._sock.sendto(datagram, address)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise errors.datagram_too_large(len(datagram)) from error
            raise

    # --- receiving --------------------------------------------------------------------------------

    def recv_from(self) -> tuple[Any, Any]:
        """The next message and the address that it came from, which `send_to` takes.

        Raises:
            TruncatedDatagramError: A datagram was larger than ``max_size``; its end is lost.
            FrameError: A datagram holds no whole frames. The messages of those in front of the bad
                bytes are delivered first.
            TimeoutError, BlockingIOError, OSError: Nothing was received.
        """
        while True:
            with self._lock:
                if self._ready:
                    item = self._ready[0]
                    del self._ready[0]
                    message, address = item
                    if isinstance(message, _BadDatagram):
                        raise message.error
                    return message, address
                self._receive()

    def recv(self) -> Any:
        """The next message.

        Raises:
            As `recv_from`.
        """
        return self.recv_from()[0]

    def recv_many(self) -> list[Any]:
        """The messages of the next datagram, or what is left of those of an earlier one.

        Raises:
            As `recv_from`.
        """
        with self._lock:
            messages = [self.recv()]
            while self._ready and not isinstance(self._ready[0][0], _BadDatagram):
                messages.append(self.recv())
            return messages

    def __iter__(self) -> Iterator[Any]:
        """Messages, until the socket is closed on this side; a datagram socket has no other end."""
        while True:
            try:
                message = self.recv()
            except ConnectionAbortedError:
                if self._closed:
                    return
                raise
            yield message

    def _receive(self) -> None:
        """Receives one datagram."""
        if self._closed:
            raise errors.connection_closed()
        buffer = self._buffer
        flags, size = 0, 0
        try:
            if hasattr(self._sock, "recvmsg_into"):
                # MSG_TRUNC: Linux then says how long the datagram was.
                size, _, flags, address = self._sock.recvmsg_into([buffer], 0, _TRUNC)
            else:
                size, address = self._sock.recvfrom_into(buffer)
        except OSError as error:
            if self._closed:
                raise errors.connection_closed() from None
            if error.errno == _WSAEMSGSIZE:
                raise errors.datagram_truncated(len(buffer) - 1, None) from None
            raise
        if self._closed:
            raise errors.connection_closed()
        most = len(buffer) - 1
        if size > most or flags & _TRUNC:
            raise errors.datagram_truncated(most, size if size > most + 1 else None)
        data = bytes(memoryview(buffer)[:size])
        if self._codec is None:
            self._ready.append((data, address))
            return
        splitter = Splitter(self._codec)
        try:
            messages = splitter.feed(data)
            self._ready.extend((message, address) for message in messages)
            splitter.feed_eof()
        except errors.FrameError as error:
            self._ready.append((_BadDatagram(error), address))

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` gives without touching the socket."""
        return sum(not isinstance(message, _BadDatagram) for message, _ in self._ready)

    @property
    def pending_send(self) -> int:
        """Always 0: a datagram leaves whole or not at all."""
        return 0

    def flush(self) -> None:
        """Nothing to do, as on any datagram socket."""

    # --- as on a socket ---------------------------------------------------------------------------

    @property
    def codec(self) -> Codec | None:
        """The shape of the frames; None: a message is a datagram."""
        return self._codec

    @property
    def socket(self) -> _Socket:
        """The socket underneath."""
        return self._sock

    @property
    def closed(self) -> bool:
        """Whether `close` or `detach` was called."""
        return self._closed

    def bind(self, address: Any, /) -> None:
        """As `socket.socket.bind`."""
        self._sock.bind(address)

    def connect(self, address: Any, /) -> None:
        """As `socket.socket.connect`: where `send` sends to; datagrams of others are dropped."""
        self._sock.connect(address)

    def settimeout(self, timeout: float | None) -> None:
        """Sets the seconds that a call may take; None waits for ever, 0 does not wait at all."""
        self._sock.settimeout(timeout)

    def gettimeout(self) -> float | None:
        """The seconds that a call may take; None: any time."""
        return self._sock.gettimeout()

    def setblocking(self, flag: bool) -> None:
        """``settimeout(None)`` or ``settimeout(0)``."""
        self._sock.setblocking(flag)

    def getblocking(self) -> bool:
        """Whether calls wait at all."""
        return self._sock.getblocking()

    def fileno(self) -> int:
        """The descriptor; -1 where it is closed. For `selectors`."""
        return self._sock.fileno()

    def getpeername(self) -> Any:
        """The address of the other side, where the socket is connected."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """The address of this side."""
        return self._sock.getsockname()

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> Any:
        """As `socket.socket.getsockopt`."""
        return self._sock.getsockopt(level, option, size)

    def setsockopt(self, level: int, option: int, value: Any, /) -> None:
        """As `socket.socket.setsockopt`."""
        self._sock.setsockopt(level, option, value)

    def shutdown(self, how: int, /) -> None:
        """As `socket.socket.shutdown`."""
        self._sock.shutdown(how)

    def detach(self) -> tuple[_Socket, bytes]:
        """Hands the socket over; the bytes are the frames of messages that were not delivered."""
        with self._lock:
            if self._closed:
                raise errors.connection_closed()
            left = [message for message, _ in self._ready if not isinstance(message, _BadDatagram)]
            self._closed = True
            self._ready.clear()
            return self._sock, b"" if self._codec is None else self._codec.encode_many(left)

    def close(self) -> None:
        """Closes the socket; a thread that waits in it gets a `ConnectionAbortedError`."""
        if self._closed:
            return
        self._closed = True
        if not self._lock.acquire(blocking=False):
            # Wakes who waits, on Linux also where the socket is not connected.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._lock.acquire()
        try:
            self._sock.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fd={self.fileno()}"
        return f"<DatagramSocket {state}, {self._codec!r}>"


class _BadDatagram:
    """What is wrong with a datagram, behind the messages that it began with."""

    __slots__ = ("error",)

    def __init__(self, error: errors.FrameError) -> None:
        self.error = error
