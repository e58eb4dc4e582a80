"""Whole messages over UDP and Unix datagrams, whose boundaries are the datagrams' own.

What a `DatagramSocket` must do
    Give every message back as it was sent, or say that it cannot: what the kernel cut short, what
    holds no whole frames and what no datagram has room for is an error, never a short message.

How
    in    ``recvmsg_into`` reads one datagram and says (MSG_TRUNC) whether it was cut. Its messages
          become the `_Datagram` that is delivered from; the next one is read when it is used up.
          With a codec a datagram is a stream of its own: what is wrong with it ends with it.
    out   A datagram leaves whole or not at all, so that nothing is held.

Interruptions
    A signal handler that raises may do so after any call from Python code. What a system call or an
    iterator gives is therefore stored by a ``for``, which has no such moment, as in `FrameSocket`.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from time import monotonic, sleep
from typing import Any, NoReturn, TypeAlias, final

from . import _error_texts, errors
from ._batch import Batch
from ._bytes_like import view_bytes
from ._socket_face import SocketFace
from ._waiting import READ, WRITE, wait
from .codec import Codec

__all__ = ["DatagramSocket", "largest_payload", "pack_frames", "split_datagram"]

_Socket: TypeAlias = socket.socket  # for classes that have an attribute `socket`

# The flag that makes one call non-blocking; 0 where the system has none (Windows).
_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)

_TRUNC: int = getattr(socket, "MSG_TRUNC", 0)
_HAS_RECVMSG = hasattr(socket.socket, "recvmsg_into")
_WSAEMSGSIZE = 10040  # how Windows, which has no recvmsg, says that a datagram was cut short

# No datagram of UDP has room for more, by the width of its length field. (IPv6 leaves its own
# header out of that length. Unix datagrams are limited by the socket's send buffer.)
_LARGEST_PAYLOADS = {socket.AF_INET: 65507, socket.AF_INET6: 65527}

_PAUSE = 0.001  # seconds


def largest_payload(sock: socket.socket) -> int | None:
    """The bytes that a datagram of this socket has room for; None where only sending tells."""
    return _LARGEST_PAYLOADS.get(sock.family)


def pack_frames(frames: Iterable[bytes], size: int) -> list[tuple[bytes, int]]:
    """Datagrams of as many whole frames as `size` bytes hold, and how many are in each."""
    datagrams: list[tuple[bytes, int]] = []
    together: list[bytes] = []
    used = 0
    for frame in frames:
        if together and used + len(frame) > size:
            datagrams.append((b"".join(together), len(together)))
            together, used = [], 0
        together.append(frame)
        used += len(frame)
    if together:
        datagrams.append((b"".join(together), len(together)))
    return datagrams


def split_datagram(
    data: bytes, codec: Codec | None
) -> tuple[list[Any], tuple[errors.FrameError, ...]]:
    """The messages of one datagram, and behind them what is wrong with it, if anything is."""
    if codec is None:
        return [data], ()
    splitter = codec.splitter()
    messages: list[Any] = []
    try:
        messages = splitter.feed(data)
        splitter.feed_eof()
    except errors.FrameError as error:
        return messages, (error.with_traceback(None),)
    return messages, ()


# What is left to deliver of one datagram: its messages, where they came from, what is wrong after
# them.
_Datagram: TypeAlias = tuple[Batch, Any, Batch]

_NOTHING = Batch([])


@final
class DatagramSocket(SocketFace):
    """Whole messages over datagrams, UDP or Unix, whose boundaries are the datagrams' own.

    Without a codec a message is a datagram, the empty one included. With a codec a datagram carries
    any number of whole frames: it costs less to send small messages together, and both ends agree
    on the shape with a stream. It is as reliable as its datagrams are: UDP may drop, double and
    reorder them.

    What is wrong with one datagram is an error of the call that received it, and the error's
    ``address`` says who sent it. The next call receives the next datagram.

    Threads: any number may receive and send at a time; `close` wakes those who wait to receive.

    Args:
        sock: A datagram socket, IPv4, IPv6 or Unix. It is owned from then on.
        codec: The shape of the frames; None: a message is a datagram.
        max_size: The largest datagram that is received, in bytes; what is longer is a
            `TruncatedDatagramError`.

    Raises:
        TypeError, ValueError: `sock` is no datagram socket, or an argument is invalid.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_codec",
        "_current",
        "_flags",
        "_largest",
        "_lock",
        "_read_ended",
        "_received",
        "_waits",
    )

    def __init__(
        self, sock: socket.socket, codec: Codec | None = None, *, max_size: int = 65536
    ) -> None:
        if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_DGRAM:
            raise _error_texts.not_a_datagram_socket(sock)
        if codec is not None and not isinstance(codec, Codec):
            raise _error_texts.not_a_codec(codec)
        if max_size < 1:
            raise _error_texts.bad_max_size(max_size)
        self._sock = sock
        self._codec = codec
        self._largest = largest_payload(sock)
        self._buffer = bytearray(max_size)
        self._received: Any = None  # what the system said of the datagram in the buffer
        self._current: _Datagram = (_NOTHING, None, _NOTHING)
        self._lock = threading.RLock()  # of who receives
        self._read_ended = False
        self._closed = False
        self.settimeout(sock.gettimeout())

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: object, /) -> None:
        """Sends one message, in one datagram, to the address that the socket is connected to.

        Raises:
            MessageTooLargeError: No datagram has room for it; nothing was sent.
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was sent.
            TimeoutError, BlockingIOError, OSError: Nothing was sent. A connected socket may also
                report here what became of an earlier datagram: a `ConnectionRefusedError` says
                that nobody received that one.
        """
        self._send_one(self._encode(message), None)

    def send_many(self, messages: Iterable[object], /) -> None:
        """Sends messages to the address that the socket is connected to: with a codec, as many as
        fit in each datagram, else one in each.

        Raises:
            As `send`; all messages are checked before anything is sent. Where a system call
            refuses, the error's attribute ``messages_sent`` says how many have left.
        """
        self._send_all(self._pack(messages), None)

    def send_to(self, message: object, address: Any, /) -> None:
        """Sends one message, in one datagram.

        Args:
            message: A contiguous bytes-like object; with a codec also one of its ``specials``.
            address: ``(host, port)``, IPv6 also with flow and scope, or the path of a Unix socket.

        Raises:
            As `send`.
        """
        self._send_one(self._encode(message), address)

    def send_many_to(self, messages: Iterable[object], address: Any, /) -> None:
        """Sends messages to an address, as `send_many`.

        Raises:
            As `send_many`.
        """
        self._send_all(self._pack(messages), address)

    def _encode(self, message: object) -> Any:
        data: Any = message if type(message) is bytes else None
        if self._codec is not None:
            data = self._codec.encode(message)
        elif data is None:
            data = view_bytes(message)
        if self._largest is not None and len(data) > self._largest:
            raise _error_texts.datagram_too_large(len(data), self._largest, message)
        return data

    def _pack(self, messages: Iterable[object]) -> list[tuple[Any, int]]:
        """Datagrams, and how many messages are in each."""
        # A copy: the user's code, which encodes them, may change a list.
        frames = [self._encode(message) for message in tuple(messages)]
        if self._codec is None:
            return [(data, 1) for data in frames]
        return pack_frames(frames, self._largest or self._room())

    def _room(self) -> int:
        """Bytes that a Unix datagram has room for, by a careful guess."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4

    def _send_one(self, data: Any, address: Any, sent: int = 0) -> None:
        try:
            self._try_to_send(data, address)
        except OSError as error:
            if not self._waits or not isinstance(error, BlockingIOError):
                self._fail_to_send(error, len(data), sent)
            self._wait_to_send(data, address, self._deadline(), sent)

    def _send_all(self, datagrams: list[tuple[Any, int]], address: Any) -> None:
        deadline = self._deadline()
        sent = 0
        for data, count in datagrams:
            try:
                self._try_to_send(data, address)
            except OSError as error:
                if not self._waits or not isinstance(error, BlockingIOError):
                    self._fail_to_send(error, len(data), sent)
                self._wait_to_send(data, address, deadline, sent)
            sent += count

    def _try_to_send(self, data: Any, address: Any) -> None:
        if self._closed:
            raise _error_texts.connection_closed()
        if address is None:
            self._sock.send(data, self._flags)
        else:
            self._sock.sendto(data, self._flags, _plain(address))

    def _wait_to_send(self, data: Any, address: Any, deadline: float | None, sent: int) -> None:
        room_in_time = True
        while True:
            try:
                if not (room_in_time and wait(self._sock, WRITE, deadline)):
                    raise _error_texts.timed_out(
                        "the datagram could not be sent", self._timeout or 0.0
                    )
                self._try_to_send(data, address)
                return
            except BlockingIOError:
                # There is room here, but not where it goes: for that no system lets one wait.
                sleep(_PAUSE)
                room_in_time = deadline is None or monotonic() < deadline
            except (OSError, ValueError) as error:  # ValueError: it was closed in another thread
                self._fail_to_send(error, len(data), sent)

    def _fail_to_send(self, error: Exception, size: int, sent: int) -> NoReturn:
        if self._closed:
            error = _error_texts.connection_closed()
        elif isinstance(error, OSError) and error.errno == errno.EMSGSIZE:
            error = _error_texts.datagram_refused(size)
        error.message_started = False  # type: ignore[attr-defined]  # as on a FrameSocket
        error.messages_sent = sent  # type: ignore[attr-defined]
        try:
            raise error from None
        finally:
            del error  # which holds this frame: a cycle

    # --- receiving --------------------------------------------------------------------------------

    def recv_from(self) -> tuple[Any, Any]:
        """The next message and the address that it came from, which `send_to` takes.

        The address of a Unix socket that was not bound is None: it cannot be answered.

        Raises:
            TruncatedDatagramError: A datagram was larger than ``max_size``; its end is lost.
            FrameError: A datagram holds no whole frames. The messages of those in front of the bad
                bytes are delivered first.
            TimeoutError, BlockingIOError: There is nothing to be received yet.
            ConnectionRefusedError: The socket is connected, and nobody received what it sent.
            EOFError: The socket was `shutdown` for receiving.
            OSError: The socket was closed on this side.
        """
        while True:
            current = self._current
            for message in current[0].take:
                return message, current[1]
            for error in current[2].take:
                try:
                    raise error
                finally:
                    del error  # which holds this frame: a cycle
            self._receive_behind(current)

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
        while True:
            current = self._current
            for messages in current[0].take_all:
                if messages:
                    return messages
            for error in current[2].take:
                try:
                    raise error
                finally:
                    del error  # which holds this frame: a cycle
            self._receive_behind(current)

    def __iter__(self) -> Iterator[Any]:
        """Messages, until the socket is closed or shut down on this side; there is no other end."""
        while True:
            try:
                message = self.recv()
            except errors.IncompleteFrameError:
                raise
            except (ConnectionAbortedError, EOFError):
                if self._closed or self._read_ended:
                    return
                raise
            yield message

    def _receive_behind(self, current: _Datagram) -> None:
        """Makes the next datagram the current one; one without messages is stepped over."""
        deadline = self._deadline()
        with self._lock:
            while self._current is current:
                self._receive(deadline)
                if self._received is None:  # a signal handler received in between
                    return
                found = self._read_buffer()
                if not found[0] and not found[2]:
                    self._received = None
                    if deadline is not None and monotonic() >= deadline:
                        raise _error_texts.timed_out("no message", self._timeout or 0.0)
                elif self._current is current:
                    self._current = found
                    self._received = None

    def _receive(self, deadline: float | None) -> None:
        """Reads one datagram into the buffer, unless an interruption has left one there."""
        while self._received is None:
            if self._closed:
                raise _error_texts.connection_closed()
            try:
                # Linux, given MSG_TRUNC, says how long a datagram was that did not fit.
                received = (
                    map(self._sock.recvmsg_into, ((self._buffer,),), (0,), (_TRUNC | self._flags,))
                    if _HAS_RECVMSG
                    else map(self._sock.recvfrom_into, (self._buffer,))
                )
                for self._received in received:
                    return
            except OSError as error:
                if self._closed:
                    raise _error_texts.connection_closed() from None
                if error.errno == _WSAEMSGSIZE:
                    raise _error_texts.datagram_truncated(len(self._buffer), None) from None
                if not isinstance(error, BlockingIOError):
                    raise
                if self._read_ended:
                    raise _error_texts.receiving_ended() from None
                if not self._waits:
                    raise
            if not wait(self._sock, READ, deadline):
                raise _error_texts.timed_out("no message", self._timeout or 0.0)

    def _deadline(self) -> float | None:
        return monotonic() + self._timeout if self._timeout else None

    def _read_buffer(self) -> _Datagram:
        """What is in the datagram that was received."""
        if self._closed:  # it was woken up, and received nothing
            raise _error_texts.connection_closed()
        size, address = self._received[0], self._received[-1]
        if self._read_ended and not size and not address:
            self._received = None
            raise _error_texts.receiving_ended()
        most = len(self._buffer)
        failures: tuple[errors.FrameError, ...]
        if _HAS_RECVMSG and self._received[2] & _TRUNC:
            messages: list[Any] = []
            failures = (_error_texts.datagram_truncated(most, size if size > most else None),)
        else:
            data = bytes(memoryview(self._buffer)[:size])
            if self._codec is None:
                return Batch([data]), address, _NOTHING
            messages, failures = split_datagram(data, self._codec)
        for error in failures:
            error.address = address
        return Batch(messages), address, Batch([*failures])

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` gives without touching the socket."""
        return len(self._current[0])

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

    def bind(self, address: Any, /) -> None:
        """As `socket.socket.bind`."""
        self._sock.bind(_plain(address))

    def connect(self, address: Any, /) -> None:
        """As `socket.socket.connect`: where `send` sends to; datagrams of others are dropped."""
        self._sock.connect(_plain(address))

    def settimeout(self, timeout: float | None) -> None:
        """Sets the seconds that a call may take; None waits for ever, 0 does not wait at all."""
        if timeout is not None and (timeout < 0 or math.isnan(timeout)):
            raise ValueError("Timeout value out of range")
        # A thread that waits must be woken by close() and shutdown(), which Python's own time-outs
        # are not: a call is tried without waiting, and then it is `wait` that waits.
        self._sock.setblocking(timeout is None or (timeout > 0 and _DONTWAIT != 0))
        self._flags = _DONTWAIT if timeout else 0
        self._waits = bool(timeout)
        self._timeout = timeout

    def shutdown(self, how: int, /) -> None:
        """As `socket.socket.shutdown`. What was received before is still delivered; then `recv`
        raises an `EOFError`, also in a thread that waits in it."""
        if how != socket.SHUT_WR:
            self._read_ended = True
        self._sock.shutdown(how)

    def detach(self) -> tuple[_Socket, bytes]:
        """Hands the socket over; the bytes are the frames of messages that were not delivered.

        Raises:
            OSError: It was closed or detached already.
        """
        with self._lock:
            if self._closed:
                raise _error_texts.connection_closed()
            left = self._current[0].rest()
            if self._received is not None:
                left += self._read_buffer()[0]
            self._closed = True
            self._current, self._received = (_NOTHING, None, _NOTHING), None
            self._sock.settimeout(self._timeout)
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

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fd={self.fileno()}"
        return f"<DatagramSocket {state}, {self._codec!r}>"


def _plain(address: Any) -> Any:
    return os.fspath(address) if isinstance(address, os.PathLike) else address
