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
from collections.abc import Iterable, Iterator
from itertools import chain
from time import monotonic
from typing import Any, Literal, TypeAlias, final

from .. import _error_texts, errors
from .._engine import sockets_fast_path as _fast_path
from .._states import ReceiveState, SendState, SocketState
from ..codec import DEFAULT_CODEC, Codec, check_codec
from . import _fast_path_py, files
from .base import SocketWrapper, check_timeout, locked_to_close, mark_started
from .objects import ObjectCalls
from .receiving import ReceiveSide
from .sending import SendSide
from .wire import Wire

__all__ = ["FrameSocket"]

_Socket: TypeAlias = socket.socket  # for classes that have an attribute `socket`


class FrameSocket(SocketWrapper):
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

    Raises:
        TypeError, ValueError: `sock` is not a stream socket, or an argument is invalid.
    """

    __slots__ = ("__weakref__", "_receiver", "_receiving", "_sender", "_sending", "_wire")

    def __init__(
        self,
        sock: socket.socket,
        codec: Codec = DEFAULT_CODEC,
        *,
        message_timeout: float | None = None,
        idle_timeout: float | None = None,
        read_ahead: bool = True,
        on_oversize: Literal["raise", "skip"] = "raise",
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
            message_timeout=message_timeout,
            idle_timeout=idle_timeout,
            on_oversize=on_oversize,
            read_ahead=read_ahead,
        )
        self._sending = SendSide(self._wire, codec, fast_path)
        self._receiver = self._receiving.receiver
        self._sender = self._sending.sender
        if codec._objects is not None:
            self.__class__ = ObjectSocket
        self.settimeout(sock.gettimeout())

    # --- receiving --------------------------------------------------------------------------------

    def recv(self) -> Any:
        """Return the next message.

        Raises:
            EOFError: The peer closed the connection after a whole frame.
            IncompleteFrameError: The stream ended inside a frame.
            FrameError: The stream is broken, or the peer was too slow for the limits that were set.
            TimeoutError, BlockingIOError: No message is whole yet; nothing is lost.
            OSError: The connection is broken, or was closed on this side.
        """
        while True:
            try:
                # The `for` returns the message before a signal handler can run.
                for message in self._receiver:
                    return message
            except (OSError, errors.FrameError) as error:
                self._receiving.fail_fast_path(error)
            side = self._receiving
            with side.guard:
                side.fill()

    def recv_many(self) -> list[Any]:
        """Return all ready messages, or if there are none, those of the next receive.

        Returns:
            At least one message.

        Raises:
            EOFError, FrameError, OSError: As `recv`.
        """
        receiver = self._receiver
        while True:
            try:
                receiver.fetch()
                for messages in receiver.ready.take_all:
                    if messages:
                        return messages
            except (OSError, errors.FrameError) as error:
                self._receiving.fail_fast_path(error)
            except MemoryError:  # the list was begun, and its messages are gone
                receiver.state = ReceiveState.LOST
                raise
            side = self._receiving
            with side.guard:
                side.fill()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the messages until the clean end of the stream; errors are those of `recv`.

        An iterator ends with the error that it raises. After one that loses nothing, such as a
        time-out, another iteration of the connection resumes.
        """
        # No Python frame a message: the iterators that _batches() gives are read in C.
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[Iterator[Any]]:
        receiver, side = self._receiver, self._receiving
        while True:
            try:
                try:
                    receiver.fetch()
                except (OSError, errors.FrameError) as error:
                    side.fail_fast_path(error)
                if not receiver.ready:
                    with side.guard:
                        side.fill()
            except errors.IncompleteFrameError:
                raise
            except EOFError:
                return
            yield receiver.ready.take

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the peer exceeds ``message_timeout`` or ``idle_timeout``.

        None if no limit runs. It is the time-out for a selector, after which `recv` is to be called
        once more. The peer's time runs from then on: the caller is about to wait.
        """
        inbox = self._receiving.inbox
        if not inbox.has_limits or self._state is not SocketState.OPEN:
            return None
        now = monotonic()
        inbox.resume(now)
        deadline = inbox.deadline()
        return None if deadline is None else max(0.0, deadline - now)

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: object, /) -> None:
        """Send one message.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was taken.
            TimeoutError, BlockingIOError: Not all of it is sent. The error's attribute
                ``message_started`` is True if the message is held, to be finished by `flush` or
                before the next message; False if nothing of it was taken.
            OSError: The connection is broken, or was closed on this side.
        """
        try:
            taken = self._sender.send(message)
        except OSError as error:
            mark_started(error, False)
            if self._state is not SocketState.OPEN:
                raise _error_texts.connection_closed() from None
            self._sending.note_reset(error)
            raise
        except MemoryError as error:
            mark_started(error, self._sender.state is SendState.LOST)
            raise
        if not taken:
            self._sending.send_all(self._sending.outbox.put, message)
        elif self._sender.unsent:
            self._sending.finish()

    def send_many(self, messages: Iterable[object], /) -> None:
        """Send many messages, in as few system calls as possible.

        Args:
            messages: As for `send`; all are checked before anything is sent.

        Raises:
            FrameError, TypeError, BufferError, OSError: As `send`; ``message_started`` says whether
                all of them are held, or none was taken.
        """
        if not isinstance(messages, list | tuple):
            messages = list(messages)
        self._sending.send_all(self._sending.outbox.put_many, messages)

    def flush(self) -> None:
        """Send the bytes that an earlier call could not send.

        Raises:
            TimeoutError, BlockingIOError: There are still unsent bytes.
            OSError: The connection is broken, or was closed on this side.
        """
        side = self._sending
        with side.guard:
            side.drain(self._wire.deadline())

    # --- files ------------------------------------------------------------------------------------

    def send_file(self, file: Any, size: int | None = None) -> None:
        """Send one message from an open binary file, from its position on.

        The kernel copies it from the file into the socket if it can (``sendfile``); otherwise it
        goes through memory in small pieces. A regular file's position is after the message then.

        Args:
            file: A file opened for reading in binary mode.
            size: Bytes of the message; None: up to the file's end.

        Raises:
            TypeError: It is not such a file; nothing was sent.
            ValueError: The file has fewer bytes than that; nothing was sent.
            FrameError: As `Codec.encode`; nothing was sent.
            TimeoutError, BlockingIOError, OSError: As `send`. If ``message_started`` is True the
                file may be closed, if it is a regular one: the rest of it is held and is sent by
                `flush` or before the next message. But if the file has become shorter meanwhile,
                or a pipe or a Python object gives less than `size`, the frame cannot be finished:
                this and every later call raises an `OSError`.
        """
        outgoing = files.OutgoingFile.open(file, size, self._sending.codec)
        if isinstance(outgoing, bytes):
            FrameSocket.send(self, outgoing)
        else:
            self._sending.send_file(outgoing)

    def recv_file(self, file: Any, /) -> int:
        """Receive one message into a file, without holding it in memory.

        The codec's ``max_message_size`` holds as for `recv`; raise it for large files. The time-out
        is for the message's beginning and for each wait after it, not for the whole file. After a
        time-out, call it again with the same file: it continues.

        Args:
            file: A file opened for writing in binary mode.

        Returns:
            The message's size, in bytes.

        Raises:
            TypeError: It is not such a file; nothing was received.
            EOFError, FrameError, OSError: As `recv`; and what writing to the file raises: then too
                the call can be repeated.
        """
        return files.recv_file(self._receiving, file)

    def recv_into(self, buffer: Any, /) -> int:
        """Receive one message into a buffer, without another copy in memory.

        The time-out is as for `recv_file`. After one, call it again with the same buffer: it
        continues.

        Args:
            buffer: A writable bytes-like object.

        Returns:
            The message's size, in bytes; the buffer's end does not change.

        Raises:
            ValueError: The message is larger than the buffer. It can still be received, by `recv`
                too, unless an earlier call has received its beginning.
            TypeError: The buffer cannot be written; nothing was received.
            EOFError, FrameError, OSError: As `recv`.
        """
        return files.recv_into(self._receiving, buffer)

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
        """
        receiving, sending = self._receiving, self._sending
        with receiving.guard, sending.guard:
            self._check_open()
            sending.check_detach()
            receiving.check_detach()
            unread = receiving.detach()
            self._end(SocketState.DETACHED)
            timeout = self._timeout
            # socket.settimeout() rejects larger values.
            self._sock.settimeout(timeout and min(timeout, threading.TIMEOUT_MAX))
            return self._sock, unread

    def _end(self, state: SocketState) -> None:
        """Let every call raise from now on, also those that wait in another thread."""
        self._state = state
        self._receiver.state = ReceiveState.CLOSED
        self._sender.state = SendState.CLOSED

    # --- what can be asked ------------------------------------------------------------------------

    @property
    def codec(self) -> Codec:
        """The shape of the frames."""
        return self._receiving.inbox.codec

    @property
    def read_ahead(self) -> bool:
        """Whether a receive may bring more than the requested frame."""
        return self._receiving.read_ahead

    @read_ahead.setter
    def read_ahead(self, value: bool) -> None:
        side = self._receiving
        with side.lock:
            side.read_ahead = bool(value)
            side.use_splitter()

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` gives without touching the socket."""
        return len(self._receiver.ready) + len(self._receiving.intake.arrived)

    @property
    def pending_send(self) -> int:
        """Unsent bytes of accepted messages."""
        return self._sending.unsent

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
        wire, receiving, sending = self._wire, self._receiving, self._sending
        wire.settimeout(timeout, wait_in_poll=receiving.inbox.has_limits)
        self._timeout = timeout
        self._sender.use(wire.write_flags if wire.tls is None else None)
        receiving.use_splitter()
        if timeout is None:
            receiving.guard, sending.guard = receiving.lock, sending.lock
        else:
            guard = receiving.fast_path.Guard
            receiving.guard = guard(receiving.lock, timeout)
            sending.guard = guard(sending.lock, timeout)

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

    def close(self) -> None:
        """Close the connection; a thread that waits in it gets a `ConnectionAbortedError`.

        Bytes that an earlier `send` left unsent are dropped.
        """
        if self._state is not SocketState.OPEN:
            return
        self._end(SocketState.CLOSED)
        receiving, sending = self._receiving, self._sending
        with locked_to_close(receiving.lock, sending.lock, wake=self._shutdown) as were_free:
            if were_free:
                with contextlib.suppress(OSError, ValueError):
                    self._wire.say_goodbye()
            self._end(SocketState.CLOSED)  # a call that ended may have stored its state after that
            self._sock.close()
            if sending.file is not None:
                sending.file.close()
            # Their tracebacks hold what the callers had.
            receiving.inbox.failure = sending.failure = None

    def __repr__(self) -> str:
        state = f"fd={self.fileno()}" if self._state is SocketState.OPEN else "closed"
        return f"<FrameSocket {state}, {self.codec!r}>"


@final
class ObjectSocket(ObjectCalls, FrameSocket):
    """A `FrameSocket` whose codec has objects; it becomes one when it gets such a codec."""

    __slots__ = ()


def _check_stream_socket(sock: Any) -> None:
    kind = getattr(sock, "type", None)
    if not isinstance(sock, socket.socket) or kind is None:
        raise TypeError(f"a connected stream socket is required, not {type(sock).__name__!r}")
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
