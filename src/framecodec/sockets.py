"""Whole messages over blocking, timed and non-blocking sockets.

What a `FrameSocket` must do
    Send and receive whole messages with as few system calls as possible, and lose no byte to a
    time-out, a would-block, a signal or a thread, in either direction.

How
    in    ``recv_into`` writes into the splitter's buffer, the splitter gives a list of messages,
          `recv` takes from that list until it is used up. No byte is ever outside the socket, the
          splitter or the list.
    out   Messages go into an `Outbox`; what a call could not send stays there and leaves ahead of
          whatever is sent next. A small message with nothing ahead of it goes straight out.

Waiting
    A blocking socket waits in the system call itself. With a time-out the call is tried first, with
    MSG_DONTWAIT, and only when it would block does the thread wait in ``poll``: Python's own
    time-outs poll before every call, which costs more than the call. TLS connections are
    non-blocking underneath in any case, because one TLS object must not be read and written by two
    threads at a time: each of its calls holds a lock, no wait does.

Interruptions
    A signal handler that raises (Ctrl-C does) is run by CPython after a call or at a loop's end. A
    count of bytes that a system call returned must therefore not pass through Python: it goes
    through ``map`` from C function to C function into a list, ``inbox += map(...)``. Lines that
    belong together contain no call.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import length_hint
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, final

from . import errors
from ._outbox import GATHER_SIZE, Outbox
from .codec import Codec
from .splitter import Splitter

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

__all__ = ["Address", "FrameSocket", "Listener", "connect", "listen"]

Address: TypeAlias = (
    tuple[str, int] | tuple[str, int, int, int] | str | bytes | os.PathLike[str] | Any
)

DEFAULT_CODEC = Codec.uint(4)

# Bytes asked of one receive. More than this gains nothing that could be measured; a Unix socket
# hands over more at a time than TCP does.
_READ_SIZE = 128 * 1024
_UNIX_READ_SIZE = 256 * 1024

# The flag that makes one call non-blocking; 0 where the system has none (Windows).
_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)

_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")

_ZERO = (0,)
_NO_ANCILLARY = ((),)

_READ, _WRITE = 1, 2


if ssl is not None:
    # As a socket that does not wait raises, and as the `ssl` module does: whoever has to know for
    # which event to wait can tell.
    class _TLSWantsRead(ssl.SSLWantReadError, BlockingIOError):
        pass

    class _TLSWantsWrite(ssl.SSLWantWriteError, BlockingIOError):
        pass

    _TLS_WANTS_READ: Any = ssl.SSLWantReadError
    _TLS_WANTS_WRITE: Any = ssl.SSLWantWriteError
    _TLS_EOF: Any = ssl.SSLEOFError
else:
    _TLS_WANTS_READ = _TLS_WANTS_WRITE = _TLS_EOF = ()


@final
class FrameSocket:
    """Whole messages over one connected stream socket.

    It owns the socket from then on. Its time-out is the socket's own at that moment; set it on the
    `FrameSocket` later.

    * **Time-outs** are for a whole call: `recv` with a time-out of 5 s raises `TimeoutError` where
      no message was whole after 5 s. Nothing is lost, neither to a time-out nor to a
      `BlockingIOError` nor to an interruption: the next call takes up where the last one was.
    * **Threads**: one may receive while another one sends, and any number may send; frames go out
      whole. `close` wakes those who wait.
    * **Failures of receiving stick**: after the messages before it were delivered, every `recv`
      raises the same error.

    Args:
        sock: A connected stream socket: TCP, Unix, `socket.socketpair`, `ssl.SSLSocket`.
        codec: The shape of the frames.
        message_timeout: Seconds that one message may take from its first byte to its last; a peer
            that drips is cut off with a `MessageTimeoutError`.
        idle_timeout: Seconds that `recv` waits for a message to begin before it raises an
            `IdleTimeoutError`. Both are failures of receiving: they stick.
        read_ahead: False receives nothing beyond the frame that was asked for, at the cost of more
            system calls: for a hand-over of the socket to another protocol.
        on_oversize: As for `Splitter`.

    Raises:
        TypeError, ValueError: `sock` is no stream socket, or an argument is invalid.
    """

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
        if not isinstance(sock, socket.socket) or sock.type != socket.SOCK_STREAM:
            raise errors.not_a_stream_socket(sock)
        self._sock = sock
        self._codec = codec
        self._splitter = splitter = Splitter(codec, on_oversize=on_oversize)
        self._encode = codec.encode
        self._get_buffer = splitter.get_buffer
        self._buffer_updated = splitter.buffer_updated
        self._message_timeout = _check_seconds("message_timeout", message_timeout)
        self._idle_timeout = _check_seconds("idle_timeout", idle_timeout)
        self.read_ahead = read_ahead
        self._read_size = _UNIX_READ_SIZE if _is_unix(sock) else _READ_SIZE
        self._closed = False

        # Receiving: batches that the splitter gave, then the one being delivered.
        self._inbox: list[list[Any]] = []
        self._ready: Iterator[Any] = iter(())
        self._position = 0  # bytes received, at the last read that completed no message
        self._failure: BaseException | None = None
        self._reading = False  # a thread is inside; whoever re-enters is a signal handler
        self._began: float | None = None  # when the pending message's first byte was read
        self._began_at = -1  # ... and that message's stream offset
        self._idle_since: float | None = None

        # Sending.
        self._outbox = Outbox(codec)
        self._sending = False

        self._read_lock = threading.RLock()
        self._write_lock = threading.RLock()
        # The C-level object of a TLS connection: its calls return straight into `map`.
        self._tls: Any = None
        self._recv_into: Any = sock.recv_into
        self._send: Any = sock.send
        if ssl is not None and isinstance(sock, ssl.SSLSocket):
            self._tls = sock._sslobj  # type: ignore[attr-defined]
            self._tls_lock = threading.RLock()
        self.settimeout(sock.gettimeout())

    # --- receiving --------------------------------------------------------------------------------

    def recv(self) -> Any:
        """The next message.

        Raises:
            EOFError: The peer closed the connection behind a whole frame.
            IncompleteFrameError: The stream ended inside a frame.
            FrameError: The stream is broken, or a peer was too slow for the limits that were set.
            TimeoutError, BlockingIOError: No message is whole yet; nothing is lost.
            OSError: The connection is broken, or was closed on this side.
        """
        for message in self._ready:
            return message
        while True:
            with self._read_guard:
                self._fill()
                for message in self._ready:
                    return message

    def recv_many(self) -> list[Any]:
        """The messages that are there without another wait, at least one.

        Raises:
            As `recv`.
        """
        while True:
            with self._read_guard:
                self._fill()
                messages = [*self._ready]
                if messages:
                    return messages

    def __iter__(self) -> Iterator[Any]:
        """Messages, until the clean end of the stream; errors as `recv`."""
        # No Python frame a message: the list iterators that _batches() gives are read in C.
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[Iterator[Any]]:
        while True:
            try:
                with self._read_guard:
                    self._fill()
            except errors.IncompleteFrameError:
                raise
            except EOFError:
                return
            yield self._ready

    def _fill(self) -> None:
        """Makes sure that a message is ready, or raises."""
        if length_hint(self._ready):
            return
        inbox = self._inbox
        if not inbox:
            if self._reading:
                raise errors.in_use("recv()")
            self._reading = True
            try:
                self._read()
            finally:
                self._reading = False
        ready = iter(inbox[0])
        self._ready = ready
        del inbox[0]

    def _read(self) -> None:
        """Receives until messages are in the inbox, or raises."""
        inbox = self._inbox
        deadline: float | None = None
        while True:
            if self._closed:
                raise errors.connection_closed()
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            wanted = _READ
            try:
                view = self._get_buffer(self._read_size)
                if not self.read_ahead:
                    view = view[: min(self._splitter.bytes_needed, self._read_size)]
                if self._tls is None:
                    inbox += map(
                        self._buffer_updated,
                        map(self._recv_into, (view,), _ZERO, self._read_flags),
                    )
                else:
                    with self._tls_lock:
                        inbox += map(
                            self._buffer_updated, map(self._tls.read, (len(view),), (view,))
                        )
            except _TLS_WANTS_READ as error:
                if not self._read_waits:
                    raise _TLSWantsRead(*error.args) from None
            except _TLS_WANTS_WRITE as error:
                if not self._read_waits:
                    raise _TLSWantsWrite(*error.args) from None
                wanted = _WRITE
            except (BlockingIOError, InterruptedError):
                if not self._read_waits:
                    raise
            except _TLS_EOF as error:
                # The peer closed the connection without closing TLS, as many do.
                self._end(None if self._sock.suppress_ragged_eofs else error)  # type: ignore[attr-defined]
            except (OSError, errors.FrameError) as error:
                if isinstance(error, TimeoutError) and _is_own_timeout(error):
                    raise
                self._end(error)
            else:
                if inbox[0]:
                    return
                del inbox[0]
                position = self._splitter.stream_offset + self._splitter.pending
                if position == self._position:
                    self._end(None)
                self._position = position
                continue
            if deadline is None and self._timeout is not None:
                deadline = monotonic() + self._timeout
            if not _wait(self._sock, wanted, deadline):
                raise errors.timed_out("no whole message", self._timeout or 0.0)

    def _end(self, error: BaseException | None) -> None:
        """Raises what ends receiving for good; None is the end of the stream."""
        if self._closed:
            raise errors.connection_closed() from None
        if error is None:
            try:
                self._splitter.feed_eof()
            except errors.FrameError as incomplete:
                error = incomplete
            else:
                error = errors.stream_ended()
        self._failure = error
        raise error

    # --- sending ----------------------------------------------------------------------------------

    def send(self, message: object, /) -> None:
        """Sends one message.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was taken.
            TimeoutError, BlockingIOError: It is not all out. The error's attribute
                ``message_started`` is True where the message is held, to be finished by `flush` or
                ahead of the next message; False where nothing of it was taken.
            OSError: The connection is broken, or was closed on this side.
        """
        if type(message) is not bytes or len(message) >= GATHER_SIZE or self._tls is not None:
            self._send_all(self._outbox.put, message)
            return
        # The short way: one system call, nothing kept.
        frame = self._encode(message)
        size = len(frame)
        with self._write_guard:
            outbox = self._outbox
            if not outbox.size and not self._sending and not self._closed:
                counts: list[int] = []
                self._sending = True
                try:
                    counts += map(self._send, (frame,), self._write_flags)
                    count = counts[0]
                    if count == size:
                        return
                    outbox.small += (frame[count:],)
                    outbox.size += size - count
                except BlockingIOError as error:
                    if not self._write_waits:
                        _mark(error, False)
                        raise
                except OSError as error:
                    _mark(error, False)
                    raise
                finally:
                    self._sending = False
                if outbox.size:
                    self._finish()
                    return
            self._send_all(outbox.put_bytes, frame)

    def send_many(self, messages: Iterable[object], /) -> None:
        """Sends many messages, in as few system calls as possible.

        Args:
            messages: As for `send`; all are checked before anything is sent.

        Raises:
            As `send`; ``message_started`` says whether all of them are held, or none was taken.
        """
        if not isinstance(messages, list | tuple):
            messages = list(messages)
        self._send_all(self._outbox.put_many, messages)

    def flush(self) -> None:
        """Sends what an earlier call could not.

        Raises:
            TimeoutError, BlockingIOError: There is still something left.
            OSError: The connection is broken, or was closed on this side.
        """
        with self._write_guard:
            self._drain()

    def _send_all(self, put: Callable[[Any], None], what: Any) -> None:
        with self._write_guard:
            outbox = self._outbox
            try:
                self._drain()
            except BaseException as error:
                _mark(error, False)
                raise
            size = 0
            try:
                put(what)
                size = outbox.size
                self._drain()
            except BaseException as error:
                outbox.settle()
                # A TLS record that was begun goes on with the same bytes, or not at all.
                started = self._tls is not None and size > 0
                if not started and outbox.size == size:
                    outbox.clear()
                else:
                    outbox.own()
                    started = True
                _mark(error, started)
                raise

    def _finish(self) -> None:
        """Sends the end of a message that was begun."""
        try:
            self._drain()
        except BaseException as error:
            _mark(error, True)
            raise

    def _drain(self) -> None:
        """Sends what the outbox holds."""
        outbox = self._outbox
        if self._sending:
            raise errors.in_use("send()")
        if self._closed:
            raise errors.connection_closed()
        deadline = None if self._timeout is None else monotonic() + self._timeout
        self._sending = True
        try:
            while outbox.size:
                wanted = _WRITE
                try:
                    self._write()
                except _TLS_WANTS_READ as error:
                    if not self._write_waits:
                        raise _TLSWantsRead(*error.args) from None
                    wanted = _READ
                except _TLS_WANTS_WRITE as error:
                    if not self._write_waits:
                        raise _TLSWantsWrite(*error.args) from None
                except (BlockingIOError, InterruptedError):
                    if not self._write_waits:
                        raise
                else:
                    outbox.settle()
                    continue
                if not _wait(self._sock, wanted, deadline):
                    raise errors.timed_out("not all was sent", self._timeout or 0.0)
                if self._closed:
                    raise errors.connection_closed()
        finally:
            self._sending = False

    def _write(self) -> None:
        """One system call's worth."""
        outbox = self._outbox
        buffers = outbox.buffers()
        if self._tls is not None:
            with self._tls_lock:
                outbox.left += map(self._tls.write, buffers[:1])
        elif len(buffers) == 1 or not _HAS_SENDMSG:
            outbox.left += map(self._send, buffers[:1], self._write_flags)
        else:
            outbox.left += map(self._sock.sendmsg, (buffers,), _NO_ANCILLARY, self._write_flags)

    # --- what can be asked ------------------------------------------------------------------------

    @property
    def codec(self) -> Codec:
        """The shape of the frames."""
        return self._codec

    @property
    def socket(self) -> socket.socket:
        """The socket underneath."""
        return self._sock

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` gives without touching the socket."""
        return length_hint(self._ready) + sum(map(len, self._inbox))

    @property
    def pending_send(self) -> int:
        """Bytes of accepted messages that have not left."""
        return self._outbox.size - sum(self._outbox.left)

    @property
    def closed(self) -> bool:
        """Whether `close` or `detach` was called."""
        return self._closed

    # --- as on a socket ---------------------------------------------------------------------------

    def settimeout(self, timeout: float | None) -> None:
        """Sets the seconds that a call may take; None waits for ever, 0 does not wait at all."""
        if timeout is not None and (timeout < 0 or math.isnan(timeout)):
            raise ValueError("Timeout value out of range")
        sock = self._sock
        limited = self._message_timeout is not None or self._idle_timeout is not None
        read_alone = timeout is None and not limited
        self._read_flags = self._write_flags = _ZERO
        if self._tls is not None or (not _DONTWAIT and not read_alone):
            sock.setblocking(False)
            read_alone = write_alone = False
        elif timeout == 0:
            sock.setblocking(False)
            write_alone = False
        else:
            sock.setblocking(True)
            write_alone = timeout is None
            self._read_flags = _ZERO if read_alone else (_DONTWAIT,)
            self._write_flags = _ZERO if write_alone else (_DONTWAIT,)
        self._timeout = timeout
        self._read_waits = timeout != 0 and not read_alone
        self._write_waits = timeout != 0 and not write_alone
        if timeout is None:
            self._read_guard: Any = self._read_lock
            self._write_guard: Any = self._write_lock
        else:
            self._read_guard = _TimedLock(self._read_lock, timeout)
            self._write_guard = _TimedLock(self._write_lock, timeout)

    def gettimeout(self) -> float | None:
        """The seconds that a call may take; None: any time."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """``settimeout(None)`` or ``settimeout(0)``."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Whether calls wait at all."""
        return self._timeout != 0

    def fileno(self) -> int:
        """The descriptor; -1 where it is closed. For `selectors`."""
        return self._sock.fileno()

    def getpeername(self) -> Any:
        """The address of the other side."""
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
        """Ends one or both directions; what an earlier `send` left unsent is not sent by it."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Closes the connection; a thread that waits in it gets a `ConnectionAbortedError`.

        What an earlier `send` left unsent is given up.
        """
        if self._closed:
            return
        self._closed = True
        locks = (self._read_lock, self._write_lock)
        for lock in locks:
            if not lock.acquire(blocking=False):
                # Somebody waits. Wake him, and let him leave before the descriptor's number can
                # come to stand for another file. (Never where nobody waits: other processes may
                # share the connection.)
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
                lock.acquire()
        try:
            self._sock.close()
        finally:
            for lock in locks:
                lock.release()

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
        return f"<FrameSocket {state}, {self._codec!r}>"


# --------------------------------------------------------------------------------------------------
# Connecting and listening
# --------------------------------------------------------------------------------------------------


def connect(
    address: Address,
    codec: Codec = DEFAULT_CODEC,
    *,
    timeout: float | None = None,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
) -> FrameSocket:
    """Connects to a server. TCP_NODELAY is set: frames leave at once, Nagle's algorithm is off.

    Args:
        address: ``(host, port)``, IPv6 also with flow and scope, or the path of a Unix socket.
        codec: The shape of the frames.
        timeout: Seconds that connecting may take, and later every call; None: any time.
        message_timeout: As for `FrameSocket`.
        idle_timeout: As for `FrameSocket`.

    Raises:
        OSError: There is no connection to be had.
    """
    if isinstance(address, tuple):
        sock = _connect_tcp(address, timeout)
    else:
        sock = _new_unix_socket(path := _unix_path(address))
        try:
            sock.settimeout(timeout)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
    try:
        return FrameSocket(sock, codec, message_timeout=message_timeout, idle_timeout=idle_timeout)
    except BaseException:
        sock.close()
        raise


def listen(
    address: Address,
    codec: Codec = DEFAULT_CODEC,
    *,
    backlog: int = 128,
    reuse_port: bool = False,
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
) -> Listener:
    """Waits for connections. TCP_NODELAY is set on them.

    Args:
        address: ``(host, port)``, port 0 for any free one, or the path of a Unix socket. A socket
            file that nobody listens on any more is replaced.
        codec: The shape of the frames of every connection.
        backlog: Connections that wait to be accepted before the system refuses more.
        reuse_port: Several processes may listen on the same port, and share its connections.
        message_timeout: As for `FrameSocket`.
        idle_timeout: As for `FrameSocket`.

    Raises:
        OSError: The address cannot be had.
    """
    if isinstance(address, tuple):
        host, port = _host_and_port(address)
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, resolved = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        bound: Any = address if len(address) == 4 else resolved
        sock = socket.create_server(bound, family=family, backlog=backlog, reuse_port=reuse_port)
    else:
        sock = _listen_unix(_unix_path(address), backlog)
    return Listener(sock, codec, message_timeout=message_timeout, idle_timeout=idle_timeout)


@final
class Listener:
    """A listening socket that gives a `FrameSocket` for every connection; made by `listen`.

    Iterating over it gives connections until it is closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        codec: Codec = DEFAULT_CODEC,
        *,
        message_timeout: float | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        self._sock = sock
        self._codec = codec
        self._limits: dict[str, Any] = {
            "message_timeout": message_timeout,
            "idle_timeout": idle_timeout,
        }
        self._address = sock.getsockname()
        self._closed = False
        self._lock = threading.RLock()
        # The file that this process made: what to remove at the end.
        self._file = _socket_file(self._address) if _is_unix(sock) else None

    @property
    def address(self) -> Any:
        """The address as bound: the port is the one that was found where 0 was asked for."""
        return self._address

    @property
    def codec(self) -> Codec:
        """The shape of the frames."""
        return self._codec

    @property
    def socket(self) -> socket.socket:
        """The socket underneath."""
        return self._sock

    def accept(self) -> FrameSocket:
        """The next connection.

        Raises:
            TimeoutError, BlockingIOError: There is none, as `settimeout` has it.
            OSError: The listener is closed, or the system is out of descriptors.
        """
        with self._lock:
            if self._closed:
                raise errors.connection_closed()
            try:
                sock, _ = self._sock.accept()
            except OSError:
                if self._closed:
                    raise errors.connection_closed() from None
                raise
        try:
            _set_nodelay(sock)
            return FrameSocket(sock, self._codec, **self._limits)
        except BaseException:
            sock.close()
            raise

    def __iter__(self) -> Iterator[FrameSocket]:
        while True:
            try:
                yield self.accept()
            except OSError as error:
                if self._closed:
                    return
                # The peer was gone before it was accepted: the next one, please.
                if error.errno not in (errno.ECONNABORTED, errno.EPROTO):
                    raise

    def fileno(self) -> int:
        """The descriptor; -1 where it is closed. For `selectors`."""
        return self._sock.fileno()

    def settimeout(self, timeout: float | None) -> None:
        """Sets the seconds that `accept` may take; None waits for ever, 0 does not wait at all."""
        self._sock.settimeout(timeout)

    def gettimeout(self) -> float | None:
        """The seconds that `accept` may take; None: any time."""
        return self._sock.gettimeout()

    def setblocking(self, flag: bool) -> None:
        """``settimeout(None)`` or ``settimeout(0)``."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Stops listening; removes the file of a Unix socket. A thread in `accept` is woken."""
        if self._closed:
            return
        self._closed = True
        if not self._lock.acquire(blocking=False):
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._lock.acquire()
        try:
            if self._file is not None and self._file == _socket_file(self._address):
                os.unlink(self._address)
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
        state = "closed" if self._closed else repr(self._address)
        return f"<Listener {state}, {self._codec!r}>"


# --- addresses ------------------------------------------------------------------------------------


def _host_and_port(address: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(address) not in (2, 4):
        raise errors.bad_address(address)
    return address[0], address[1]


def _unix_path(address: object) -> str | bytes:
    if not isinstance(address, str | bytes | os.PathLike):
        raise errors.bad_address(address)
    return os.fspath(address)


def _new_unix_socket(_path: str | bytes) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise errors.no_unix_sockets()
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == getattr(socket, "AF_UNIX", None)


def _set_nodelay(sock: socket.socket) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _connect_tcp(address: tuple[Any, ...], timeout: float | None) -> socket.socket:
    host, port = _host_and_port(address)
    if len(address) == 4:  # as an IPv6 socket gives it, scope included
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
    else:
        sock = socket.create_connection((host, port), timeout)
    _set_nodelay(sock)
    return sock


def _listen_unix(path: str | bytes, backlog: int) -> socket.socket:
    sock = _new_unix_socket(path)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_abandoned(path: str | bytes) -> bool:
    """Whether the file is a socket that nobody listens on."""
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with _new_unix_socket(path) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _socket_file(path: str | bytes) -> tuple[int, int, int] | None:
    """Which file this is, as this process knows it; None where there is none."""
    if not path or path[0] in ("\0", 0):  # unnamed, or in Linux's abstract name space
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return os.getpid(), found.st_dev, found.st_ino


# --- waiting --------------------------------------------------------------------------------------


class _TimedLock:
    """A lock as a context manager that waits no longer than the socket's time-out."""

    __slots__ = ("_lock", "_timeout")

    def __init__(self, lock: Any, timeout: float) -> None:
        self._lock = lock
        self._timeout = timeout

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=min(self._timeout, threading.TIMEOUT_MAX)):
            error = (
                errors.timed_out("another thread did not finish its call", self._timeout)
                if self._timeout
                else errors.would_block()
            )
            _mark(error, False)
            raise error

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _wait(sock: socket.socket, event: int, deadline: float | None) -> bool:
    """Waits until the socket can be read or written; False where the deadline passed."""
    while True:
        seconds = None if deadline is None else max(0.0, deadline - monotonic())
        if _poll(sock, event, seconds):
            return True
        if deadline is not None and monotonic() >= deadline:
            return False


if hasattr(select, "poll"):

    def _poll(sock: socket.socket, event: int, seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(sock, select.POLLIN if event == _READ else select.POLLOUT)
        # A month at most: the system takes an int of milliseconds.
        milliseconds = None if seconds is None else math.ceil(min(seconds, 2_000_000) * 1000)
        return bool(poll.poll(milliseconds))

else:

    def _poll(sock: socket.socket, event: int, seconds: float | None) -> bool:
        if event == _READ:
            return any(select.select([sock], [], [], seconds))
        return any(select.select([], [sock], [sock], seconds))


def _mark(error: BaseException, started: bool) -> None:
    """Says in an error whether the message of the failed call is held."""
    error.message_started = started  # type: ignore[attr-defined]


def _is_own_timeout(error: TimeoutError) -> bool:
    """Whether a `TimeoutError` is Python's, not the end of a connection that TCP has given up."""
    return error.errno != errno.ETIMEDOUT


def _check_seconds(name: str, seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        raise errors.bad_seconds(name, seconds)
    return seconds
