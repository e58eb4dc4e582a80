"""Whole messages over blocking, timed and non-blocking sockets.

What a `FrameSocket` must do
    Send and receive whole messages with as few system calls as possible, and lose no byte to a
    time-out, a would-block, a signal or a thread, in either direction.

How
    in    ``recv_into`` writes into the splitter's buffer, the splitter gives a list of messages,
          which becomes a batch; `recv` takes messages out of it until it is empty. No byte is ever
          outside the kernel, the splitter, the list or the batch, and none of them keeps a
          delivered message.
    out   Messages go into an `Outbox`. Bytes that a call could not send stay there and are sent
          before the next message. A small message goes straight to the kernel if nothing is held.

Each direction is an object: `ReceiveSide` and `SendSide`. Most calls take the fast path of its
side (`Receiver`, `Sender`), which is compiled; all others take the slow path.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import socket
import threading
from typing import Any, TypeAlias, final

from .._engine import sockets_fast_path as _fast_path
from .._message_types import MessageT
from .._observer import Observer
from .._options import OnInvalid, OnOversize
from .._states import SocketState
from ..codec import DEFAULT_CODEC, Codec, check_codec
from . import _fast_path_py
from .base import SocketWrapper, check_timeout, close_locked
from .calls import BlockingCalls, ObservedCalls
from .lingering import linger_on
from .objects import ObjectCalls, UnobservedObjectCalls
from .receiving import ReceiveSide
from .sending import SendSide
from .wire import Wire

__all__ = ["FrameSocket"]

_Socket: TypeAlias = socket.socket  # for classes that have an attribute `socket`


@final
class FrameSocket(BlockingCalls[MessageT], SocketWrapper):
    """Whole messages over one connected stream socket.

    It owns the socket from then on. Its time-out is the socket's at that moment; set it on the
    `FrameSocket` later.

    * **Time-outs** are for a whole call: `recv` with a time-out of 5 s raises `TimeoutError` if no
      message was whole after 5 s. Nothing is lost, neither to a time-out nor to a
      `BlockingIOError` nor to an interruption: the next call continues where the last one was.
      (A signal handler that raises while Python code parses the bytes, the Python engine or the
      codec's own `parse`, spoils the stream; one that raises while a call waits never does.)
    * **Threads**: one may receive while another one sends, and any number may send; frames go out
      whole. `close` wakes the threads that wait.
    * **Failures of receiving stick**: after the messages before it were delivered, every `recv`
      raises the same error.

    Args:
        sock: A connected stream socket: TCP, Unix, `socket.socketpair`, `ssl.SSLSocket`.
        codec: The shape of the frames.
        message_timeout: Seconds that one message may take from its first byte to its last. Time in
            which no call receives does not count. A peer that drips is cut off with a
            `MessageTimeoutError`.
        idle_timeout: Seconds that calls may wait, together, for a message to begin before they
            raise an `IdleTimeoutError`. Both are failures of receiving: they stick.
        read_ahead: False receives nothing after the requested frame, at the cost of more system
            calls, so that another protocol can take over the socket.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        received: Bytes that were read from the socket before: they come first.
        observer: An object with any of the methods ``frame_received(conn, size)``,
            ``frame_sent(conn, size)``, ``frame_discarded(conn, error)``,
            ``connection_opened(conn)``, ``connection_closed(conn, error)``; or None.

    Raises:
        TypeError, ValueError: `sock` is not a stream socket, or an argument is invalid.
    """

    __slots__ = ("__weakref__", "_receiver", "_receiving", "_sender", "_sending", "_wire")

    def __init__(
        self,
        sock: socket.socket,
        codec: Codec[MessageT] = DEFAULT_CODEC,  # type: ignore[assignment]
        *,
        message_timeout: float | None = None,
        idle_timeout: float | None = None,
        read_ahead: bool = True,
        on_oversize: OnOversize = "raise",
        on_invalid: OnInvalid = "raise",
        received: Any = b"",
        observer: object = None,
    ) -> None:
        _check_stream_socket(sock)
        check_codec(codec)
        self._sock = sock
        self._state = SocketState.OPEN
        self._wire = Wire(sock)
        fast_path = _fast_path_of(sock)
        self._receiving = ReceiveSide(
            self._wire,
            codec,
            fast_path,
            self,
            message_timeout=message_timeout,
            idle_timeout=idle_timeout,
            on_oversize=on_oversize,
            on_invalid=on_invalid,
            observer=Observer.of(observer),
            read_ahead=read_ahead,
        )
        self._sending = SendSide(self._wire, codec, fast_path)
        self._receiver = self._receiving.receiver
        self._sender = self._sending.sender
        self.settimeout(sock.gettimeout())
        if codec._objects is not None or observer is not None:
            self._use_class_for(codec)
        if observer is not None:
            _ObservedFrameSocket._notify(self, "connection_opened")  # type: ignore[arg-type]
        if received:
            self._receiving.take_received(received)

    # --- handing over -----------------------------------------------------------------------------

    def detach(self) -> tuple[_Socket, bytes]:
        """Give up the socket, to be used with another protocol (STARTTLS for example).

        Returns:
            The socket, with the time-out that was set here, and the bytes that were received and
            not delivered as messages, exactly as they travelled. Under ``on_oversize="skip"`` the
            discarded bytes of skipped frames are not among them.

        Raises:
            RuntimeError: There are unsent bytes of accepted messages (`flush` first), or a message
                is half received into a file or a buffer.
            OSError: The connection was closed on this side, a frame was begun that cannot be
                finished, or it is unknown which bytes were sent or received.
        """
        return self._call_guarded(self._detach)

    def _detach(self) -> tuple[socket.socket, bytes]:
        self._check_open()
        self._sending.check_detach()
        self._receiving.check_detach()
        unread = self._receiving.detach()
        self._receiver.use(None, 0, 0, 0.0)  # which restores the socket's own options
        self._end(SocketState.DETACHED)
        timeout = self._timeout
        # socket.settimeout() rejects larger values.
        self._sock.settimeout(timeout and min(timeout, threading.TIMEOUT_MAX))
        return self._sock, unread

    # --- as on a socket ---------------------------------------------------------------------------

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that a call may take.

        Args:
            timeout: Seconds; None waits for ever, 0 does not wait.

        Raises:
            ValueError: It is negative.
        """
        check_timeout(timeout)
        self._check_open()  # after detach() the socket belongs to another owner
        wire, receiving = self._wire, self._receiving
        wire.settimeout(timeout, wait_in_poll=receiving.inbox.has_limits)
        self._timeout = timeout
        self._sender.use(wire.write_flags if wire.tls is None else None)
        receiving.use_splitter()
        self._use_guards(timeout)

    def shutdown(self, how: int, /) -> None:
        """End one or both directions. Bytes that an earlier `send` left unsent are not sent.

        Raises:
            OSError: TLS can only be ended in both directions at once; say goodbye in a message.
        """
        if self._wire.tls is not None and how != socket.SHUT_RDWR:
            raise OSError(
                errno.EOPNOTSUPP,
                "TLS cannot end one direction alone; send a last message that says so, or call "
                "close()",
            )
        self._shutdown(how)

    def _shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        # Not SSLSocket.shutdown: after it, that class would take the peer's TLS for plain bytes.
        socket.socket.shutdown(self._sock, how)

    def close(self, linger: float | None = None) -> None:
        """Close the connection; a thread that waits in it gets a `ConnectionAbortedError`.

        Bytes that an earlier `send` left unsent are dropped. A connection that is closed while
        bytes of the peer are unread is reset, and the peer can lose the last messages.

        Args:
            linger: Seconds in which, before the close, this side sends what is unsent, ends its
                sending and discards what still arrives, until the peer ends, too; None for none.
        """
        if self._state is not SocketState.OPEN:
            return
        if linger:
            linger_on(self._receiving, self._sending, linger)
        self._end(SocketState.CLOSED)
        locks = self._receiving.lock, self._sending.lock
        close_locked(locks, self._shutdown, self._close)

    def _close(self, say_goodbye: bool) -> None:
        receiving, sending = self._receiving, self._sending
        if say_goodbye:
            with contextlib.suppress(OSError, ValueError):
                self._wire.say_goodbye()
        self._end(SocketState.CLOSED)  # a call that ended may have stored its state after that
        self._sock.close()
        if sending.file is not None:
            sending.file.close()
        # Their tracebacks hold what the callers had.
        receiving.inbox.failure = sending.failure = sending.error = None

    def __repr__(self) -> str:
        state = f"fd={self.fileno()}" if self._state is SocketState.OPEN else "closed"
        peer = self._wire.peer and f" peer={self._wire.peer}"
        return f"<FrameSocket {state}{peer}, {self.codec!r}>"


class _ObservedFrameSocket(ObservedCalls, FrameSocket[Any]):  # type: ignore[misc]
    """A connection with an observer, which the class of other connections does not ask for."""

    __slots__ = ()


@final
class ObjectSocket(UnobservedObjectCalls, FrameSocket[Any]):  # type: ignore[misc]
    """A `FrameSocket` whose codec has objects."""

    __slots__ = ()


@final
class _ObservedObjectSocket(ObjectCalls, _ObservedFrameSocket):  # type: ignore[misc]
    """The same with an observer."""

    __slots__ = ()


FrameSocket._CLASSES = {
    (False, False): FrameSocket,
    (False, True): _ObservedFrameSocket,
    (True, False): ObjectSocket,
    (True, True): _ObservedObjectSocket,
}


def _check_stream_socket(sock: Any) -> None:
    kind = getattr(sock, "type", None)
    if not isinstance(sock, socket.socket) or kind is None:
        if isinstance(sock, tuple | str):
            remedy = "framecodec.connect() takes the address of a server"
        else:
            remedy = "framecodec.FramePipe takes files, such as sys.stdin.buffer and pipes"
        raise TypeError(
            f"a connected stream socket is required, not {type(sock).__name__!r}; {remedy}"
        )
    if kind != socket.SOCK_STREAM:
        raise ValueError(
            f"a stream socket is required, not one of type {kind!r}; "
            "DatagramSocket is for datagrams"
        )


def _fast_path_of(sock: socket.socket) -> Any:
    """Return the twin of the fast path for a socket.

    The compiled one calls the kernel itself instead of the methods of the socket, which must
    therefore be Python's own.
    """
    kind = type(sock)
    if kind.recv_into is not _socket.socket.recv_into or kind.send is not _socket.socket.send:
        return _fast_path_py
    return _fast_path
