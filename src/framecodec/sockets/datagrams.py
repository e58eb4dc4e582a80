"""Whole messages over UDP and Unix datagrams, whose boundaries are the datagrams' own.

What a `DatagramSocket` must do
    Give every message back as it was sent, or raise an error, never a shorter message: for a
    datagram that the kernel cut short, that holds no whole frames, or that is too large to send.

How
    in    ``recvmsg_into`` reads one datagram and reports (MSG_TRUNC) whether it was cut. Its
          messages become the `_Datagram` that is delivered; the next one is read after it. With a
          codec a datagram is a separate stream: its error ends with it.
    out   A datagram is sent whole or not at all, so that nothing is held.

Interruptions
    A signal handler that raises may do so after any call from Python code. A ``for``, which has no
    such moment, stores the result of a system call or takes a message (see `wire`).
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, final, overload

from .. import _error_texts, errors
from .._bytes_like import view_bytes
from .._datagrams import largest_payload, not_connected, pack_frames, split_datagram
from .._engine import sockets_fast_path
from .._files import Refusal
from .._locks import call_locked
from .._message_types import MessageT, OfMessages, SpecialT
from .._states import SocketState
from ..codec import Codec, check_codec
from .base import SocketWrapper, check_timeout, close_locked, mark_started
from .udp_segments import NOT_SEGMENTED, can_segment, count_segments, send_segments
from .waiting import READ, WRITE, wait

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._fast_path_py import Batch

__all__ = ["DatagramSocket"]

_Socket: TypeAlias = socket.socket  # for classes that have an attribute `socket`

# The flag that makes one call non-blocking; 0 where the system has none (Windows). As plain
# numbers: to combine two `socket.MsgFlag` takes longer than the system call.
_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))

_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))
_HAS_RECVMSG = hasattr(socket.socket, "recvmsg_into")
_WSAEMSGSIZE = 10040  # by which Windows, without recvmsg, reports that a datagram was cut short

_SEQPACKET = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)

_PAUSE = 0.001  # seconds


# The part of one datagram that is not delivered yet: messages, their sender, and the error that
# follows them.
_Datagram: TypeAlias = "tuple[Batch, Any, Batch]"

_NOTHING: Batch = sockets_fast_path.Batch([])

# Errors of a send without an address on a socket that is not connected: UDP, Unix.
_UNCONNECTED = (errno.EDESTADDRREQ, errno.ENOTCONN)


class _DatagramSending(SocketWrapper):
    """The sending half of a `DatagramSocket`, without its public methods."""

    __slots__ = ("_may_segment",)

    _codec: Codec[Any] | None
    _flags: int
    _is_seqpacket: bool
    _largest: int | None
    _waits: bool

    def _encode(self, message: Any) -> Any:
        data: Any = message if type(message) is bytes else None
        if self._codec is not None:
            data = self._codec.encode(message)
        elif data is None:
            data = view_bytes(message)
        if self._is_seqpacket and not data:
            raise ValueError(
                "an empty message cannot be sent over SOCK_SEQPACKET: the peer would take it for "
                "the end; use a codec, or a socket of another type"
            )
        if self._largest is not None and len(data) > self._largest:
            raise _error_texts.datagram_too_large(len(data), self._largest, message)
        return data

    def _pack(self, messages: Iterable[object]) -> tuple[Sequence[Any], list[int] | None]:
        """Return datagrams, and the number of messages in each; None: one in each."""
        # A copy, because encoding may run code of the user that changes a list.
        copy: tuple[Any, ...] = tuple(messages)
        if self._codec is None and not self._is_seqpacket and {*map(type, copy)} == {bytes}:
            largest = self._largest
            if largest is None or max(len(message) for message in copy) <= largest:
                return copy, None
        frames = [self._encode(message) for message in copy]
        if self._codec is None:
            return frames, None
        packed = pack_frames(frames, self._largest or self._unix_size())
        return [data for data, _ in packed], [count for _, count in packed]

    def _unix_size(self) -> int:
        """Return how many bytes fit into a Unix datagram, by a careful guess."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4

    def _send_one(
        self, data: Any, address: Any, deadline: float | None = None, sent: int = 0
    ) -> None:
        try:
            self._try_to_send(data, address)
        except OSError as error:
            if not self._waits or not isinstance(error, BlockingIOError):
                self._fail_to_send(error, len(data), sent)
            self._wait_to_send(data, address, deadline or self._deadline(), sent)

    def _send_all(self, datagrams: Sequence[Any], counts: list[int] | None, address: Any) -> None:
        deadline = self._deadline()
        sent = index = 0
        while index < len(datagrams):
            stop = index + 1
            if self._may_segment:
                together = count_segments(datagrams, index)
                if together > 1 and self._send_segments(
                    datagrams[index : index + together], address, sent
                ):
                    stop = index + together
            if stop == index + 1:
                self._send_one(datagrams[index], address, deadline, sent)
            sent += stop - index if counts is None else sum(counts[index:stop])
            index = stop

    def _send_segments(self, segments: Sequence[Any], address: Any, sent: int) -> bool:
        """Send datagrams by one system call; return whether it took them, which is all or none."""
        self._check_open()
        try:
            send_segments(self._sock, segments, self._flags, _plain(address))
        except BlockingIOError:
            return False  # maybe it takes one
        except OSError as error:
            if error.errno in NOT_SEGMENTED:
                self._may_segment = False
                return False
            self._fail_to_send(error, len(segments[0]), sent)
        return True

    def _try_to_send(self, data: Any, address: Any) -> None:
        self._check_open()
        if address is None:
            self._sock.send(data, self._flags)
        else:
            self._sock.sendto(data, self._flags, _plain(address))

    def _wait_to_send(self, data: Any, address: Any, deadline: float | None, sent: int) -> None:
        in_time = True
        while True:
            try:
                if not (in_time and wait(self._sock, WRITE, deadline)):
                    raise _error_texts.timed_out(
                        "the datagram could not be sent", self._timeout or 0.0
                    )
                self._try_to_send(data, address)
                return
            except BlockingIOError:
                # Our send buffer has space but the receiver's is full. No system call waits for
                # that: sleep and retry.
                sleep(_PAUSE)
                in_time = deadline is None or monotonic() < deadline
            except (OSError, ValueError) as error:  # ValueError: it was closed in another thread
                self._fail_to_send(error, len(data), sent)

    def _fail_to_send(self, error: Exception, size: int, sent: int) -> NoReturn:
        if self.closed:
            error = _error_texts.connection_closed()
        elif isinstance(error, OSError) and error.errno == errno.EMSGSIZE:
            error = _error_texts.datagram_refused(size)
        elif isinstance(error, OSError) and error.errno in _UNCONNECTED:
            error = not_connected(error.errno)
        mark_started(error, False)  # as on a FrameSocket
        error.messages_sent = sent  # type: ignore[attr-defined]
        try:
            raise error from None
        finally:
            del error  # which holds this frame: a cycle

    def _deadline(self) -> float | None:
        return monotonic() + self._timeout if self._timeout else None


class DatagramSocket(OfMessages[MessageT], _DatagramSending):
    """Whole messages over datagrams, UDP or Unix, whose boundaries are the datagrams' own.

    A connected socket of the type SOCK_SEQPACKET is used in the same way, but its peer can end it:
    then `recv` raises an `EOFError`, and an iteration ends. It cannot carry an empty message,
    because the kernel reports the end in the same way.

    Without a codec a message is a datagram, the empty one included. With a codec a datagram carries
    any number of whole frames: it costs less to send small messages together, and both ends agree
    on the shape with a stream. It is as reliable as its datagrams are: UDP may drop, double and
    reorder them.

    A bad datagram is an error of the call that received it, and the error's ``address`` is the
    sender. The next call receives the next datagram.

    Threads: any number may receive and send at a time; `close` wakes those that wait to receive.

    Args:
        sock: A datagram socket, IPv4, IPv6 or Unix, or one of the type SOCK_SEQPACKET. It is owned
            from then on.
        codec: The shape of the frames; None: a message is a datagram.
        max_size: The largest datagram that is received, in bytes; a longer one is a
            `TruncatedDatagramError`.

    Raises:
        TypeError, ValueError: `sock` is not a datagram socket, or an argument is invalid.
    """

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_codec",
        "_current",
        "_flags",
        "_is_seqpacket",
        "_largest",
        "_lock",
        "_read_ended",
        "_received",
        "_view",
        "_waits",
    )

    def __init__(
        self, sock: socket.socket, codec: Codec[MessageT] | None = None, *, max_size: int = 65536
    ) -> None:
        _check_datagram_socket(sock)
        if codec is not None:
            check_codec(codec)
        if max_size < 1:
            raise ValueError(f"max_size must be at least 1, not {max_size!r}")
        self._sock = sock
        self._codec = codec
        self._largest = largest_payload(sock)
        self._is_seqpacket = sock.type != socket.SOCK_DGRAM
        self._buffer = bytearray(max_size)
        self._view = memoryview(self._buffer)
        self._may_segment = can_segment(sock)
        self._received: Any = None  # what the kernel reported of the datagram in the buffer
        self._current: _Datagram = (_NOTHING, None, _NOTHING)
        self._lock = threading.RLock()  # of calls that receive
        self._read_ended = False
        self._state = SocketState.OPEN
        if codec is not None and codec._objects is not None:
            self.__class__ = ObjectDatagramSocket
        self.settimeout(sock.gettimeout())

    # --- sending ----------------------------------------------------------------------------------

    @overload
    def send(self: DatagramSocket[bytes | SpecialT], message: Buffer | SpecialT, /) -> None: ...

    @overload
    def send(self, message: MessageT, /) -> None: ...

    def send(self, message: object, /) -> None:
        """Send one message, in one datagram, to the address that the socket is connected to.

        Raises:
            MessageTooLargeError: It is too large for a datagram; nothing was sent.
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was sent.
            TimeoutError, BlockingIOError, OSError: Nothing was sent. A connected socket may also
                report here the fate of an earlier datagram: a `ConnectionRefusedError` means that
                no socket received that one.
        """
        self._send_one(self._encode(message), None)

    @overload
    def send_many(
        self: DatagramSocket[bytes | SpecialT], messages: Iterable[Buffer | SpecialT], /
    ) -> None: ...

    @overload
    def send_many(self, messages: Iterable[MessageT], /) -> None: ...

    def send_many(self, messages: Iterable[Any], /) -> None:
        """Send messages to the address that the socket is connected to.

        With a codec, each datagram has as many as fit, else one.

        Raises:
            FrameError, TypeError, BufferError, OSError: As `send`; all messages are checked before
                anything is sent. If a system call fails, the error's attribute ``messages_sent`` is
                the number of messages that were sent.
        """
        self._send_all(*self._pack(messages), None)

    @overload
    def send_to(
        self: DatagramSocket[bytes | SpecialT], message: Buffer | SpecialT, address: Any, /
    ) -> None: ...

    @overload
    def send_to(self, message: MessageT, address: Any, /) -> None: ...

    def send_to(self, message: object, address: Any, /) -> None:
        """Send one message, in one datagram.

        Args:
            message: A contiguous bytes-like object; with a codec also one of its ``specials``.
            address: ``(host, port)``, IPv6 also with flow and scope, or the path of a Unix socket.

        Raises:
            FrameError, TypeError, BufferError, OSError: As `send`.
        """
        self._send_one(self._encode(message), address)

    def send_many_to(self, messages: Iterable[Buffer | MessageT], address: Any, /) -> None:
        """Send messages to an address, as `send_many`.

        Raises:
            FrameError, TypeError, BufferError, OSError: As `send_many`.
        """
        self._send_all(*self._pack(messages), address)

    # --- receiving --------------------------------------------------------------------------------

    def recv_from(self) -> tuple[MessageT, Any]:
        """Return the next message and its sender's address, which `send_to` takes.

        The address of a Unix socket that was not bound is None: it cannot be answered.

        Raises:
            TruncatedDatagramError: A datagram was larger than ``max_size``; its end is lost.
            FrameError: A datagram has bytes that are not a whole frame. The messages before them
                are delivered first.
            TimeoutError, BlockingIOError: There is nothing to receive yet.
            ConnectionRefusedError: The socket is connected, and no socket received what it sent.
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
            self._receive_after(current)

    def recv(self) -> MessageT:
        """Return the next message.

        Raises:
            FrameError, OSError, EOFError: As `recv_from`.
        """
        return self.recv_from()[0]

    def recv_many(self) -> list[MessageT]:
        """Return the messages of the next datagram, or the rest of those of an earlier one.

        Raises:
            FrameError, OSError, EOFError: As `recv_from`.
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
            self._receive_after(current)

    def __iter__(self) -> Iterator[MessageT]:
        """Iterate over messages, until the socket is closed or shut down on this side."""
        while True:
            try:
                message = self.recv()
            except errors.IncompleteFrameError:
                raise
            except (ConnectionAbortedError, EOFError) as error:
                if self.closed or self._read_ended or isinstance(error, EOFError):
                    return
                raise
            yield message

    def _receive_after(self, current: _Datagram) -> None:
        """Make the next datagram the current one; one without messages is dropped."""
        call_locked(self._lock, self._receive_next, current, self._deadline())

    def _receive_next(self, current: _Datagram, deadline: float | None) -> None:
        while self._current is current:
            self._receive(deadline)
            if self._received is None:
                return  # pragma: no cover (a signal handler has received what came)
            found = self._read_buffer()
            if not found[0] and not found[2]:
                self._received = None
                if deadline is not None and monotonic() >= deadline:
                    raise _error_texts.timed_out("no message", self._timeout or 0.0)
            elif self._current is current:
                self._current = found
                self._received = None

    def _receive(self, deadline: float | None) -> None:
        """Read one datagram into the buffer, unless an interruption has left one there."""
        while self._received is None:
            self._check_open()
            try:
                # Given MSG_TRUNC, Linux returns the size of a datagram that did not fit.
                received = (
                    map(self._sock.recvmsg_into, ((self._buffer,),), (0,), (_TRUNC | self._flags,))
                    if _HAS_RECVMSG
                    else map(self._sock.recvfrom_into, (self._buffer,))
                )
                for self._received in received:  # one step
                    return
            except OSError as error:
                if self.closed:
                    raise _error_texts.connection_closed() from None
                if error.errno == _WSAEMSGSIZE:  # Windows
                    raise _error_texts.datagram_truncated(len(self._buffer), None) from None
                if not isinstance(error, BlockingIOError):
                    raise
                if self._read_ended:
                    raise _receiving_ended() from None
                if not self._waits:
                    raise
            if not wait(self._sock, READ, deadline):
                raise _error_texts.timed_out("no message", self._timeout or 0.0)

    def _read_buffer(self) -> _Datagram:
        """Return the content of the received datagram."""
        self._check_open()  # it was woken up, and received nothing
        size, address = self._received[0], self._received[-1]
        if not size and (self._is_seqpacket or (self._read_ended and not address)):
            self._received = None
            if self._read_ended:
                raise _receiving_ended()
            raise EOFError("the peer closed the connection")
        limit = len(self._buffer)
        failures: tuple[errors.FrameError, ...]
        if _HAS_RECVMSG and self._received[2] & _TRUNC:
            messages: list[Any] = []
            failures = (_error_texts.datagram_truncated(limit, size if size > limit else None),)
        else:
            data = self._view[:size].tobytes()
            if self._codec is None:
                return sockets_fast_path.Batch([data]), address, _NOTHING
            messages, failures = split_datagram(data, self._codec)
        for error in failures:
            error.address = address
        return sockets_fast_path.Batch(messages), address, sockets_fast_path.Batch([*failures])

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` gives without touching the socket."""
        return len(self._current[0])

    @property
    def pending_send(self) -> int:
        """Always 0: a datagram is sent whole or not at all."""
        return 0

    def flush(self) -> None:
        """Do nothing: a datagram socket holds nothing."""

    # --- as on a socket ---------------------------------------------------------------------------

    @property
    def codec(self) -> Codec[MessageT] | None:
        """The shape of the frames; None: a message is a datagram."""
        return self._codec

    def bind(self, address: Any, /) -> None:
        """Bind the socket, as `socket.socket.bind`."""
        self._sock.bind(_plain(address))

    def connect(self, address: Any, /) -> None:
        """Set the address that `send` sends to, as `socket.socket.connect`.

        Datagrams from other addresses are dropped then.
        """
        self._sock.connect(_plain(address))

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that a call may take.

        Args:
            timeout: Seconds; None waits for ever, 0 does not wait.

        Raises:
            ValueError: It is negative.
        """
        check_timeout(timeout)
        # close() and shutdown() must wake a thread that waits, and they do not end Python's own
        # time-outs: a call is tried without waiting, and then `wait` waits.
        self._sock.setblocking(timeout is None or (timeout > 0 and _DONTWAIT != 0))
        self._flags = _DONTWAIT if timeout else 0
        self._waits = bool(timeout)
        self._timeout = timeout

    def shutdown(self, how: int, /) -> None:
        """End one or both directions, as `socket.socket.shutdown`.

        Datagrams that were received before are still delivered; then `recv` raises an `EOFError`,
        also in a thread that waits in it.
        """
        if how != socket.SHUT_WR:
            self._read_ended = True
        self._sock.shutdown(how)

    def detach(self) -> tuple[_Socket, bytes]:
        """Give up the socket.

        Returns:
            The socket, and the frames of the messages that were not delivered.

        Raises:
            OSError: It was closed or detached already.
        """
        return call_locked(self._lock, self._detach)

    def _detach(self) -> tuple[_Socket, bytes]:
        self._check_open()
        unread = self._current[0].rest()
        if self._received is not None:
            unread += self._read_buffer()[0]
        self._state = SocketState.DETACHED
        self._current, self._received = (_NOTHING, None, _NOTHING), None
        self._sock.settimeout(self._timeout)
        return self._sock, b"" if self._codec is None else self._codec.encode_many(unread)

    def close(self) -> None:
        """Close the socket; a thread that waits in it gets a `ConnectionAbortedError`."""
        if self.closed:
            return
        self._state = SocketState.CLOSED
        close_locked((self._lock,), self._wake, lambda _: self._sock.close())

    def _wake(self) -> None:
        # On Linux it wakes a thread also if the socket is not connected.
        self._sock.shutdown(socket.SHUT_RDWR)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd={self.fileno()}"
        return f"<DatagramSocket {state}, {self._codec!r}>"


@final
class ObjectDatagramSocket(DatagramSocket[Any]):
    """A `DatagramSocket` whose codec has objects; it becomes one when it is made."""

    __slots__ = ()

    def recv_from(self) -> tuple[MessageT, Any]:
        """Return the next message and its sender's address.

        Raises:
            InvalidMessageError: The codec refuses a message; the next call continues.
            FrameError, OSError, EOFError: As for messages that are bytes.
        """
        message, address = super().recv_from()
        if type(message) is Refusal:
            message.error.address = address
            raise message.error
        return message, address

    def recv_many(self) -> list[MessageT]:
        """Return the messages of the next datagram, or the rest of those of an earlier one.

        Raises:
            FrameError, OSError, EOFError: As `recv_from`, about the first message; those before a
                refused one are returned first.
        """
        messages = [self.recv()]
        batch = self._current[0]
        while batch and type(batch.first) is not Refusal:
            messages.extend(islice(batch.take, 1))
        return messages


def _plain(address: Any) -> Any:
    return os.fspath(address) if isinstance(address, os.PathLike) else address


def _check_datagram_socket(sock: Any) -> None:
    kind = getattr(sock, "type", None)
    if not isinstance(sock, socket.socket) or kind is None:
        raise TypeError(f"a datagram socket is required, not {type(sock).__name__!r}")
    if kind not in (socket.SOCK_DGRAM, _SEQPACKET):
        raise ValueError(
            f"a datagram socket is required, not one of type {kind!r}; FrameSocket is for streams"
        )


def _receiving_ended() -> EOFError:
    return EOFError("receiving was shut down on this side")
