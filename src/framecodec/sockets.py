"""Whole messages over blocking, timed and non-blocking sockets.

What a `FrameSocket` must do
    Send and receive whole messages with as few system calls as possible, and lose no byte to a
    time-out, a would-block, a signal or a thread, in either direction.

How
    in    ``recv_into`` writes into the splitter's buffer, the splitter gives a list of messages,
          which becomes a batch; `recv` takes messages out of it until it is empty. No byte is ever
          outside the socket, the splitter, the list or the batch, and nothing of a delivered
          message is in any of them.
    out   Messages go into an `Outbox`; what a call could not send stays there and leaves ahead of
          whatever is sent next. A small message with nothing ahead of it goes straight out.

Waiting
    A blocking socket waits in the system call itself. With a time-out the call is tried first, with
    MSG_DONTWAIT, and only when it would block does the thread wait in ``poll``: Python's own
    time-outs poll before every call, which costs more than the call. TLS connections are
    non-blocking underneath in any case, because one TLS object must not be read and written by two
    threads at a time: each of its calls holds a lock, no wait does.

Interruptions
    A signal handler that raises (Ctrl-C does) is run by CPython after a call from Python code or at
    a loop's end. What a system call returned must therefore not pass through Python: the calls are
    strung together with ``map``, from C function to C function, and ``for count in map(send, ...)``
    has the result in a variable with no such moment in between. Lines that belong together contain
    no call.

    The Python engine is Python code, in which a handler may raise after bytes were received and
    before its list of messages is stored; and memory may run out between what a system call did
    and its result. What has moved then is unknown, so that direction of the connection is over:
    `broken` of the receiver or the sender says so to every later call.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import math
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat, takewhile
from time import monotonic
from types import MethodType
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar, final

from . import _error_texts, _socket_io_py, errors
from ._custom_header import read_header
from ._engine import socket_io as _socket_io
from ._layout import CUSTOM, HEADERS
from ._outbox import Outbox
from ._socket_face import SocketFace
from ._transfer import NO_BYTES, IncomingMessage, OutgoingFile, TargetFile, check_binary_file
from ._waiting import READ as _READ
from ._waiting import WRITE as _WRITE
from ._waiting import wait as _wait
from .codec import Codec
from .datagrams import DatagramSocket as DatagramSocket
from .splitter import Splitter

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

__all__ = ["Address", "FrameSocket", "Listener", "connect", "listen"]

Address: TypeAlias = (
    tuple[str, int] | tuple[str, int, int, int] | str | bytes | os.PathLike[str] | Any
)

_Socket: TypeAlias = socket.socket  # for classes that have an attribute `socket`
_Result = TypeVar("_Result")

DEFAULT_CODEC = Codec.uint(4)

# Bytes asked of one receive. More than this gains nothing that could be measured; a Unix socket
# hands over more at a time than TCP does.
_READ_SIZE = 128 * 1024
_UNIX_READ_SIZE = 256 * 1024

# The flag that makes one call non-blocking; 0 where the system has none (Windows).
_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)

_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")

_LONGEST_TURN = _socket_io_py.LONGEST_TURN

_ZERO = (0,)
_NO_ANCILLARY = ((),)

# recv_file() and recv_into(): a message of which more than this is missing goes past the splitter.
_STREAM_SIZE = 64 * 1024
_STREAM_READ_SIZE = 1024 * 1024

_SENDFILE_SIZE = 16 * 1024 * 1024
# How the system says that it cannot copy from this file into this socket.
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP)


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
class FrameSocket(SocketFace):
    """Whole messages over one connected stream socket.

    It owns the socket from then on. Its time-out is the socket's own at that moment; set it on the
    `FrameSocket` later.

    * **Time-outs** are for a whole call: `recv` with a time-out of 5 s raises `TimeoutError` where
      no message was whole after 5 s. Nothing is lost, neither to a time-out nor to a
      `BlockingIOError` nor to an interruption: the next call takes up where the last one was.
      (A signal handler that raises while Python code cuts the bytes, the Python engine or the
      codec's own `parse`, spoils the stream; one that raises while a call waits never does.)
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

    __slots__ = (
        "__weakref__",
        "_arrivals",
        "_arrived",
        "_base",
        "_began",
        "_began_at",
        "_codec",
        "_cuts_in_python",
        "_cutting",
        "_failure",
        "_file",
        "_idle_since",
        "_idle_timeout",
        "_left_at",
        "_limited",
        "_message_timeout",
        "_on_oversize",
        "_outbox",
        "_raw",
        "_read_ahead",
        "_read_flags",
        "_read_guard",
        "_read_lock",
        "_read_size",
        "_read_waits",
        "_reading",
        "_receiver",
        "_reset",
        "_send",
        "_sender",
        "_splitter",
        "_stream",
        "_streaming",
        "_tls",
        "_tls_lock",
        "_write_failure",
        "_write_flags",
        "_write_guard",
        "_write_lock",
        "_write_waits",
    )

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
            raise _error_texts.not_a_stream_socket(sock)
        if not isinstance(codec, Codec):
            raise _error_texts.not_a_codec(codec)
        self._sock = sock
        self._codec = codec
        layout = codec.layout
        raw = layout.kind in (HEADERS, CUSTOM) or layout.base == 16
        self._on_oversize = on_oversize
        self._splitter = Splitter(codec, raw=raw, on_oversize=on_oversize)
        self._base = 0  # the stream position that is offset 0 for the splitter
        self._message_timeout = _check_seconds("message_timeout", message_timeout)
        self._idle_timeout = _check_seconds("idle_timeout", idle_timeout)
        self._read_ahead = read_ahead
        self._read_size = _UNIX_READ_SIZE if _is_unix(sock) else _READ_SIZE
        self._closed = False

        io = _short_way(sock)
        self._read_lock = io.Lock()
        self._write_lock = io.Lock()

        # Receiving. Some codecs read more forms of a header than they write; so that detach() can
        # give back what travelled, the splitter gives their frames, and the batch keeps them.
        self._receiver: _socket_io.Receiver = io.Receiver(sock, self._read_lock)
        self._raw = raw
        self._arrived: list[Any] = []  # what the splitter gave and is in no batch yet
        self._cuts_in_python = isinstance(self._splitter.feed, MethodType)
        self._cutting = False  # the Python engine has bytes that are not in `_arrived` yet
        self._failure: BaseException | None = None
        self._stream: IncomingMessage | None = (
            None  # the message that recv_file() or recv_into() is at
        )
        self._streaming = False  # receiving stops where such a message is seen to come
        self._reading = False  # one of them is inside
        self._limited = message_timeout is not None or idle_timeout is not None
        self._began: float | None = None  # when the pending message's first byte was read
        self._began_at = -1  # ... and its stream offset
        self._idle_since: float | None = None
        self._left_at = 0.0  # when the last call that received ended

        # Sending.
        self._sender: _socket_io.Sender = io.Sender(sock, self._write_lock, codec)
        self._outbox = Outbox(codec)
        self._file: OutgoingFile | None = None  # what leaves after the outbox
        self._write_failure: BaseException | None = None
        self._reset = False  # a send was told that the peer reset the connection

        # The C-level object of a TLS connection: its calls return straight into `map`.
        self._tls: Any = None
        self._tls_lock = threading.RLock()
        self._send: Any = sock.send
        if ssl is not None and isinstance(sock, ssl.SSLSocket):
            self._tls = sock._sslobj  # type: ignore[attr-defined]
        self._sender.clear = self._tls is None
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
        while True:
            try:
                # After the guard, whose end is a moment at which a signal handler may raise.
                for message in self._receiver:
                    return message
            except (OSError, errors.FrameError) as error:
                self._fail(error)
            with self._read_guard:
                self._fill()

    def recv_many(self) -> list[Any]:
        """The messages that are there without another wait, at least one: those received already,
        or else those of the next receive.

        Raises:
            As `recv`.
        """
        receiver = self._receiver
        while True:
            try:
                receiver.fetch()
                for messages in receiver.ready.take_all:
                    if messages:
                        return messages
            except (OSError, errors.FrameError) as error:
                self._fail(error)
            except MemoryError:  # the list was begun, and what it held is gone
                receiver.broken = True
                receiver.may_read = False
                raise
            with self._read_guard:
                self._fill()

    def __iter__(self) -> Iterator[Any]:
        """Messages, until the clean end of the stream; errors as `recv`.

        An iterator ends with the error that it raises. After one that loses nothing, such as a
        time-out, another iteration of the connection resumes.
        """
        # No Python frame a message: the iterators that _batches() gives are read in C.
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[Iterator[Any]]:
        receiver = self._receiver
        while True:
            try:
                try:
                    receiver.fetch()
                except (OSError, errors.FrameError) as error:
                    self._fail(error)
                if not receiver.ready:
                    with self._read_guard:
                        self._fill()
            except errors.IncompleteFrameError:
                raise
            except EOFError:
                return
            yield receiver.ready.take

    def _fill(self) -> None:
        """Receive until a message is ready, or raise."""
        receiver = self._receiver
        if not receiver.may_read:
            self._refuse_to_read()
        if receiver.ready:  # another thread was here
            return
        receiver.may_read = False  # whoever enters now is a signal handler
        try:
            if self._cutting:  # an interruption was here
                self._resume_cutting()
            if not (self._arrived or (self._streaming and self._begins_stream())):
                if self._began is not None and self._read_waits:
                    self._began += monotonic() - self._left_at  # that time was not the peer's
                self._receive_or_wait()
            if self._raw:
                if self._arrived:
                    self._decode()
            else:
                batch = _socket_io.Batch(self._arrived)
                nothing: list[Any] = []
                # Both or neither: no call.
                receiver.ready = batch
                self._arrived = nothing
        finally:
            # Without a call in between.
            receiver.may_read = not (
                self._failure or self._closed or self._stream or receiver.broken
            )
            if self._limited:
                self._left_at = monotonic()

    # A signal handler that raises may do so at a loop's end, where the `try` around the loop does
    # not see it (cpython#130279). So no loop is in one that must not be left out.

    def _receive_or_wait(self) -> None:
        deadline: float | None = None
        overdue = False
        while True:
            wanted, done = 0, False
            try:
                done = self._receive() if self._tls is None else self._call_tls(self._receive)
            except OSError as error:
                wanted = self._judge(error)
            except errors.FrameError as error:
                self._end(error)
            except MemoryError:  # perhaps after bytes were received
                self._receiver.broken = True
                raise
            if done:
                if self._limited:
                    self._note_arrival()
                return
            if deadline is None and self._timeout is not None:
                deadline = monotonic() + self._timeout
            if wanted:
                self._wait_to_read(wanted, deadline)
                continue
            # The peer never pauses. What has arrived before its time was over is read first.
            if overdue:
                self._check_limits()
            overdue = self._is_overdue()
            self._check_deadline(deadline)

    def _receive(self) -> bool:
        """Receive until a message is whole and keep what the splitter gives, for `_LONGEST_TURN`
        at most.

        Returns:
            Whether that is all: a message is whole, or one that is to go past the splitter begins.
        """
        stop = 0.0
        for found in self._arrivals:
            if self._cuts_in_python:
                self._cutting = True
                self._arrived = self._splitter.buffer_updated(found)
                self._cutting = False
            else:
                self._arrived = found
            if self._arrived:
                return True
            if self._limited:
                self._note_arrival()
            if self._streaming and self._begins_stream():
                return True
            now = monotonic()
            if not stop:
                stop = now + _LONGEST_TURN
            elif now >= stop:
                return False
        self._end(None)

    def _begins_stream(self) -> bool:
        """Return whether the pending message is large enough to go past the splitter."""
        return self._splitter.bytes_needed > _STREAM_SIZE

    def _resume_cutting(self) -> None:
        """Find out what became of bytes that the Python engine had when a signal handler raised."""
        if self._splitter.error is None:
            self._end(_error_texts.lost_while_cutting())
        self._cutting = False  # the splitter raises its error again

    def _decode(self) -> None:
        """Make a batch of raw frames, in steps that can be repeated.

        The codec has read these frames before; a `parse` that answers otherwise this time, or
        raises, loses none of the others.
        """
        arrived = self._arrived
        messages, failure = self._split(arrived)
        frames, left = arrived[: len(messages)], arrived[len(messages) :]
        batch = _socket_io.Batch(messages, frames)
        # Both or neither: no call.
        self._receiver.ready = batch
        self._arrived = left
        try:
            if failure is not None:
                if not isinstance(failure, errors.FrameError):
                    raise failure
                if not batch:
                    offset = self._splitter.stream_offset - sum(map(len, left))
                    self._end(failure, self._base + offset)
        finally:
            del failure  # as in _fail()

    def _split(self, frames: list[bytes]) -> tuple[list[Any], BaseException | None]:
        """Return the messages of raw frames, and what is wrong with the frame after them."""
        splitter = Splitter(self._codec)
        messages: list[Any] = []
        try:
            messages = splitter.feed(b"".join(frames))
        except errors.FrameError as error:
            return messages, error
        if splitter.error is None and (splitter.pending or len(messages) != len(frames)):
            return [], _error_texts.parse_changed_its_answer(0)
        return messages[: len(frames)], splitter.error

    def _pipe(self, splitter: Splitter) -> Iterator[Any]:
        """Return an iterator that receives: each step gives the splitter's list of messages, of the
        Python engine the number of bytes that are in the splitter's buffer. It ends at the end of
        the stream.

        All in C, without a moment for a signal handler between the system call and the splitter.
        It can be stepped again after an error.
        """
        get_buffer = splitter.get_room if self._read_ahead else self._exact_buffer
        buffers = map(get_buffer, repeat(self._read_size))
        counts: Iterator[int]
        if self._tls is not None:
            counts = map(self._tls.read, repeat(0), buffers)  # 0: as much as fits
        elif self._read_flags:
            counts = map(self._sock.recv_into, buffers, repeat(0), repeat(self._read_flags))
        else:
            counts = map(self._sock.recv_into, buffers)
        counts = takewhile(bool, counts)
        return counts if self._cuts_in_python else map(splitter.buffer_updated, counts)

    def _call_tls(self, call: Callable[..., _Result], *arguments: object) -> _Result:
        """Make a call that reads or writes by TLS.

        The `ssl` module runs the handlers of signals when a record was read or written and before
        it says how much that was; what a handler raises would take the count with it. So signals
        wait meanwhile. Where one comes by way of another thread all the same, nothing can follow
        that would be known to be right.
        """
        held = _socket_io.HeldSignals()
        begun = False
        with self._tls_lock:
            try:
                held.hold()
                begun = True
                return call(*arguments)
            except (OSError, EOFError, errors.FrameError):
                raise
            except BaseException:
                if begun:
                    self._receiver.broken = self._sender.broken = True
                    self._receiver.may_read = False
                raise
            finally:
                for _ in held.release:
                    break

    def _use_short_way(self) -> None:
        """Tells the receiver what to do, where it may receive by itself."""
        usual = self._tls is None and self._read_ahead and not (self._raw or self._limited)
        splitter = self._splitter if usual else None
        timeout = -1.0 if self._timeout is None else self._timeout
        self._receiver.use(splitter, self._read_size, self._read_flags, timeout)

    def _exact_buffer(self, size: int) -> memoryview:
        """A buffer for no more than what belongs to the pending frame for certain."""
        splitter = self._splitter
        return splitter.get_buffer(size)[: min(splitter.bytes_needed, size)]

    def _judge(self, error: OSError) -> int:
        """What to wait for after a receive that failed; raises where waiting is no use."""
        try:
            if isinstance(error, BlockingIOError | InterruptedError):
                if self._read_waits:
                    return _READ
                self._check_limits()
                raise error
            if _is_tls_error(error, _TLS_WANTS_READ):
                if self._read_waits:
                    return _READ
                self._check_limits()
                raise _TLSWantsRead(*error.args) from None
            if _is_tls_error(error, _TLS_WANTS_WRITE):
                if self._read_waits:
                    return _WRITE
                raise _TLSWantsWrite(*error.args) from None
            if _is_tls_error(error, _TLS_EOF) and self._sock.suppress_ragged_eofs:  # type: ignore[attr-defined]
                self._end(None)  # the peer closed the connection without closing TLS, as many do
            if isinstance(error, TimeoutError) and error.errno != errno.ETIMEDOUT:
                raise error  # a time-out that was set on the socket itself
            self._end(error)
        finally:
            del error  # as in _fail()

    def _fail(self, error: BaseException) -> NoReturn:
        """Raises what the receiver has raised; all but a time-out ends receiving for good."""
        try:
            if isinstance(error, TimeoutError) and _is_own_timeout(error) and not self._closed:
                raise error
            self._end(error)
        finally:
            del error  # which holds this frame: a cycle

    def _end(self, error: BaseException | None, base: int | None = None) -> NoReturn:
        """Raises what ends receiving for good; None is the end of the stream.

        `base` is the stream position of what the error calls offset 0.
        """
        if self._closed:
            error = None
            raise _error_texts.connection_closed() from None
        if error is None and self._stream is not None:  # which goes past the splitter
            error, base = self._stream.incomplete(), 0
        if error is None:
            try:
                self._splitter.feed_eof()
            except errors.FrameError as incomplete:
                error = incomplete
            else:
                error = _error_texts.stream_ended()
        if self._reset and isinstance(error, EOFError):
            # The system tells of a reset once; the end that it shows now is not the peer's.
            error = _error_texts.connection_reset()
        self._receiver.may_read = False
        self._failure = _at(error, self._base if base is None else base)
        error = None  # as in _fail()
        raise self._failure.with_traceback(None) from None

    def _refuse_to_read(self) -> NoReturn:
        if self._closed:
            raise _error_texts.connection_closed()
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self._receiver.broken:
            self._end(self._count_lost("received"))
        if self._stream is not None and not self._reading:
            raise _error_texts.stream_unfinished()
        raise _error_texts.in_use("recv()")

    def _count_lost(self, done: str) -> OSError:
        return (
            _error_texts.count_lost(done)
            if self._tls is None
            else _error_texts.interrupted_in_tls()
        )

    # --- limits of a slow peer --------------------------------------------------------------------

    def _note_arrival(self) -> None:
        """Keeps the time of a message's first byte; called after every receive."""
        self._idle_since = None
        splitter = self._splitter
        if not splitter.pending:
            self._began, self._began_at = None, -1
        elif splitter.stream_offset != self._began_at:
            self._began, self._began_at = monotonic(), splitter.stream_offset

    def _limit(self) -> float | None:
        """When the peer's time is over."""
        if self._began is not None:
            if self._message_timeout is not None:
                return self._began + self._message_timeout
        elif self._idle_timeout is not None:
            if self._idle_since is None:
                self._idle_since = monotonic()
            return self._idle_since + self._idle_timeout
        return None

    def _check_limits(self) -> None:
        limit = self._limit() if self._limited else None
        if limit is None or monotonic() < limit:
            return
        splitter = self._splitter
        if self._began is None:
            self._end(_error_texts.idle_too_long(self._idle_timeout or 0.0, splitter.stream_offset))
        stream = self._stream
        if stream is None:
            received, offset = splitter.pending, self._base + splitter.stream_offset
            header = splitter.pending_header
        else:
            received, offset, header = stream.received(), stream.offset, stream.header
        timeout = self._message_timeout or 0.0
        self._end(_error_texts.message_took_too_long(timeout, received, offset, header), 0)

    def _is_overdue(self) -> bool:
        limit = self._limit() if self._limited else None
        return limit is not None and monotonic() >= limit

    def _check_deadline(self, deadline: float | None) -> None:
        """End a call that has always found bytes, and no whole message, when its time is over."""
        if self._timeout == 0:
            # What TLS has decrypted already shows in no selector.
            if self._tls is None or not self._tls.pending():
                raise _error_texts.still_arriving()
        elif deadline is not None and monotonic() >= deadline:
            raise _error_texts.timed_out("no whole message", self._timeout or 0.0)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the peer exceeds ``message_timeout`` or ``idle_timeout``, None where no
        limit runs: the time-out for a selector, after which `recv` is to be called once more."""
        limit = self._limit() if self._limited else None
        return None if limit is None else max(0.0, limit - monotonic())

    def _wait_to_read(self, wanted: int, deadline: float | None) -> None:
        """Waits for the socket, the call's deadline or the peer's limit, whichever is first."""
        limit = self._limit() if self._limited else None
        limit_first = limit is not None and (deadline is None or limit < deadline)
        if _wait(self._sock, wanted, limit if limit_first else deadline):
            return
        if self._closed:
            raise _error_texts.connection_closed()
        if limit_first:
            self._check_limits()
        else:
            raise _error_texts.timed_out("no whole message", self._timeout or 0.0)

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
        try:
            taken = self._sender.send(message)
        except OSError as error:
            _mark(error, False)
            if self._closed:
                raise _error_texts.connection_closed() from None
            self._reset = self._reset or isinstance(error, ConnectionResetError)
            raise
        except MemoryError as error:
            _mark(error, self._sender.broken)
            raise
        if not taken:
            self._send_all(self._outbox.put, message)
        elif self._sender.left:
            self._finish()

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
            self._drain(self._deadline())

    def _deadline(self) -> float | None:
        return None if self._timeout is None else monotonic() + self._timeout

    def _send_all(self, put: Callable[[Any], None], what: Any) -> None:
        deadline = self._deadline()
        with self._write_guard:
            self._drain_before(deadline)
            size = 0
            try:
                put(what)
                size = self._outbox.size
                self._drain(deadline)
            except BaseException as error:
                self._keep_or_drop(error, size)
                raise

    def _drain_before(self, deadline: float | None) -> None:
        """Send what is held, before a message of which nothing was taken yet."""
        try:
            self._drain(deadline)
        except BaseException as error:
            _mark(error, False)
            raise

    def _keep_or_drop(self, error: BaseException, size: int) -> None:
        """Keep what is left of a message that was begun, drop one that was not.

        Args:
            error: What ended the call; it is told which of the two.
            size: Bytes that the outbox held at first, or 0 where the message was refused.
        """
        outbox, sender = self._outbox, self._sender
        begun = True
        try:
            outbox.settle()
            # A TLS record that was begun must be completed with the same bytes.
            begun = sender.broken or outbox.size != size or (self._tls is not None and size > 0)
            _mark(error, begun)
            if begun:
                outbox.own()
                if self._file is not None:
                    self._file.move_position()
                    self._file.own()
            else:
                outbox.clear()
                self._file = None
                sender.clear = self._tls is None
        except BaseException as another:
            # The message is held, but perhaps in memory or by a file that the caller may change.
            if outbox.borrows or self._file is not None or isinstance(another, MemoryError):
                sender.broken = True
            _mark(another, begun or outbox.size > 0)
            raise

    def _finish(self) -> None:
        """Sends the end of a message that was begun."""
        try:
            self.flush()
        except BaseException as error:
            _mark(error, True)
            raise

    def _drain(self, deadline: float | None) -> None:
        """Sends what is held."""
        outbox, sender = self._outbox, self._sender
        if sender.sending:
            raise _error_texts.in_use("send()")
        if sender.left:  # which was begun when nothing was held
            size = outbox.size + sum(map(len, sender.left))
            # All three or none: no call, and only the first can fail.
            outbox.small += sender.left
            outbox.size = size
            sender.left = ()
        if self._closed:
            raise _error_texts.connection_closed()
        if self._write_failure is not None:
            raise self._write_failure.with_traceback(None)
        if sender.broken:
            self._write_failure = self._count_lost("sent")
            raise self._write_failure
        sender.sending = True
        sender.clear = False
        try:
            self._write_or_wait(deadline)
            sender.clear = self._tls is None
        finally:
            sender.sending = False

    def _write_or_wait(self, deadline: float | None) -> None:
        outbox = self._outbox
        while outbox.size or self._file is not None:
            wanted = _WRITE
            try:
                if outbox.size:
                    self._write()
                    outbox.settle()
                elif self._file is not None:
                    self._write_file(self._file)
                # A peer that takes everything at once never makes the call wait.
                unfinished = outbox.size or self._file is not None
                if unfinished and self._timeout and deadline and monotonic() >= deadline:
                    raise _error_texts.timed_out("not all was sent", self._timeout)
                continue
            except OSError as error:
                if _is_tls_error(error, _TLS_WANTS_READ):
                    if not self._write_waits:
                        raise _TLSWantsRead(*error.args) from None
                    wanted = _READ
                elif _is_tls_error(error, _TLS_WANTS_WRITE):
                    if not self._write_waits:
                        raise _TLSWantsWrite(*error.args) from None
                elif not self._write_waits or not isinstance(
                    error, BlockingIOError | InterruptedError
                ):
                    if self._closed:
                        raise _error_texts.connection_closed() from None
                    self._reset = self._reset or isinstance(error, ConnectionResetError)
                    raise
            if not _wait(self._sock, wanted, deadline):
                raise _error_texts.timed_out("not all was sent", self._timeout or 0.0)
            if self._closed:
                raise _error_texts.connection_closed()

    def _write(self) -> None:
        """One system call's worth of the outbox."""
        outbox = self._outbox
        buffers = outbox.buffers()
        if not buffers:
            if not outbox.size:  # an interrupted call has sent everything
                return
            self._sender.broken = True  # never wait for bytes that are counted and not there
            raise self._count_lost("sent")
        first, flags = buffers[:1], self._write_flags
        try:
            if self._tls is not None:
                self._call_tls(outbox.left.extend, map(self._tls.write, first))
            elif len(buffers) == 1 or not _HAS_SENDMSG:
                outbox.left += map(self._send, first, flags)
            else:
                outbox.left += map(self._sock.sendmsg, (buffers,), _NO_ANCILLARY, flags)
        except MemoryError:  # perhaps after bytes have left
            self._sender.broken = True
            raise

    # --- files ------------------------------------------------------------------------------------

    def send_file(self, file: Any, size: int | None = None) -> None:
        """Sends one message from an open binary file, from its position on.

        The system copies it from the file into the socket where it can (``sendfile``); otherwise
        it goes through memory in small pieces. A regular file's position stands behind the message
        afterwards.

        Args:
            file: A file opened for reading in binary mode.
            size: Bytes of the message; None: up to the file's end.

        Raises:
            TypeError: It is no such file; nothing was sent.
            ValueError: The file has fewer bytes than that; nothing was sent.
            FrameError: As `Codec.encode`; nothing was sent.
            TimeoutError, BlockingIOError, OSError: As `send`. Where ``message_started`` is True the
                file may be closed, if it is a regular one: what is left of it is held and leaves by
                `flush` or ahead of the next message. But if the file has become shorter meanwhile,
                or a pipe or an object of Python's gives less than `size`, the frame cannot be
                finished: this and every later call raises an `OSError`.
        """
        outgoing = OutgoingFile.open(file, size, self._codec)
        if isinstance(outgoing, bytes):
            self.send(outgoing)
            return
        deadline = self._deadline()
        with self._write_guard:
            self._drain_before(deadline)
            held = 0
            try:
                self._file = outgoing
                self._outbox.put_bytes(outgoing.header)
                held = self._outbox.size
                self._drain(deadline)
            except BaseException as error:
                self._keep_or_drop(error, held)
                raise
            outgoing.move_position()

    def _write_file(self, file: OutgoingFile) -> None:
        """One system call's worth of a file."""
        outbox = self._outbox
        if not file.left:
            size = outbox.size + file.trailer_size
            # All or nothing: no call, and only the first line can fail. The trailer is put once.
            outbox.small += file.trailer
            outbox.size = size
            self._file = None
            file.close()
            return
        if file.chunk is None and self._tls is None and file.sendfile is not None:
            self._send_from_file(file)
            return
        if file.chunk is None:
            try:
                for chunk in file.read():
                    file.chunk = chunk
            except BaseException as error:
                if file.loses(error):
                    self._sender.broken = True
                raise
        count = len(file.chunk or b"")
        if not count:
            self._fail_to_write(file)
        data = (file.chunk or b"",)
        size, position, left = outbox.size + count, file.position + count, file.left - count
        # As above.
        outbox.small += data
        outbox.size = size
        file.chunk = None
        file.position = position
        file.left = left

    def _send_from_file(self, file: OutgoingFile) -> None:
        """Let the system copy from a file once."""
        if self._write_flags != _ZERO:  # sendfile has no flag that makes one call non-blocking
            self._sock.setblocking(False)
        try:
            for count in map(
                file.sendfile,
                (self._sock.fileno(),),
                (file.fileno,),
                (file.position,),
                (min(file.left, _SENDFILE_SIZE),),
            ):
                file.position += count
                file.left -= count
                if count:
                    return
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                raise
            file.sendfile = None
            return
        except MemoryError:  # perhaps after bytes have left
            self._sender.broken = True
            raise
        finally:
            if self._write_flags != _ZERO:
                self._sock.setblocking(True)
        self._fail_to_write(file)

    def _fail_to_write(self, file: OutgoingFile) -> NoReturn:
        self._write_failure = _error_texts.file_too_short(file.left)
        self._file = None
        file.close()
        raise self._write_failure

    def recv_file(self, file: Any, /) -> int:
        """Receives one message into a file, without holding it in memory.

        The codec's ``max_message_size`` holds as for `recv`; raise it for large files. The time-out
        is for the message's beginning and for each wait behind it, not for the whole file. After a
        time-out, call it again with the same file: it goes on.

        Args:
            file: A file opened for writing in binary mode.

        Returns:
            The message's size, in bytes.

        Raises:
            TypeError: It is no such file; nothing was received.
            As `recv`; and what writing to the file raises: then too the call can be repeated.
        """
        check_binary_file(file, "write")
        with self._read_guard:
            stream = self._begin_stream()
            self._reading = True
            try:
                target = TargetFile(file)
                try:
                    self._copy_to_file(stream, target)
                finally:
                    target.close()
                return self._end_stream(stream)
            finally:
                self._reading = False

    def _copy_to_file(self, stream: IncomingMessage, file: TargetFile) -> None:
        while not stream.in_trailer:
            while stream.chunk:
                self._write_chunk(stream, file)
            if not stream.left:
                return
            self._read_stream(stream, stream.buffer[: stream.left])

    def _write_chunk(self, stream: IncomingMessage, file: TargetFile) -> None:
        try:
            # What was written is not written once more, whenever a handler raises.
            for written in map(file.write, (stream.chunk,)):
                if written is None:  # a raw file that would block
                    raise _error_texts.file_would_block()
                stream.chunk = stream.chunk[written:]
        except BaseException as error:  # perhaps after bytes were written
            interrupted = not (file.certain or isinstance(error, Exception))
            if interrupted or isinstance(error, MemoryError):
                self._receiver.broken = True
            raise

    def recv_into(self, buffer: Any, /) -> int:
        """Receives one message into a buffer, without another copy in memory.

        The time-out is as for `recv_file`. After one, call it again with the same buffer: it goes
        on.

        Args:
            buffer: A writable bytes-like object.

        Returns:
            The message's size, in bytes; the buffer's end is left as it was.

        Raises:
            ValueError: The message is larger than the buffer; it stays to be received, by `recv`
                too, unless an earlier call has received its beginning.
            TypeError: The buffer cannot be written; nothing was received.
            As `recv`.
        """
        with self._read_guard, memoryview(buffer) as whole, whole.cast("B") as target:
            if target.readonly:
                raise _error_texts.buffer_is_readonly(buffer)
            stream = self._begin_stream(len(target))
            self._reading = True
            try:
                self._fill_buffer(stream, target)
                return self._end_stream(stream)
            finally:
                self._reading = False

    def _fill_buffer(self, stream: IncomingMessage, target: memoryview) -> None:
        while not stream.in_trailer and (stream.chunk or stream.left):
            position = stream.size - stream.left - len(stream.chunk)
            if stream.chunk:
                target[position : position + len(stream.chunk)] = stream.chunk
                stream.chunk = NO_BYTES
                continue
            stop = position + min(stream.left, _STREAM_READ_SIZE)
            with target[position:stop] as view:
                self._read_stream(stream, view, keep=False)

    def _begin_stream(self, room: int | None = None) -> IncomingMessage:
        """Receives until the next message's size is known, which must not be over `room`."""
        if self._stream is None:
            self._streaming = self._on_oversize == "raise"
            try:
                self._fill()
            finally:
                self._streaming = False
            batch = self._receiver.ready
            if not batch:
                self._divert(room)
            else:
                first = batch.first
                if not isinstance(first, bytes):
                    raise _error_texts.special_is_no_file(first)
                _check_room(len(first), room)
                stream = IncomingMessage(size=len(first), chunk=memoryview(first))
                self._receiver.may_read = False
                for _ in batch.take:
                    self._stream = stream
                    break
        elif self._reading or self._closed or self._failure is not None or self._receiver.broken:
            self._refuse_to_read()
        else:
            self._settle_stream(self._stream)
            _check_room(self._stream.size, room)
        assert self._stream is not None
        self._settle_stream(self._stream)
        return self._stream

    def _settle_stream(self, stream: IncomingMessage) -> None:
        """Store the first bytes of a message that was taken from the splitter."""
        lead = stream.lead
        if lead is None and stream.unfinished is not None:
            # parse() looks further than the header, which the splitter has given back by now.
            layout = self._codec.layout
            seen = stream.unfinished[: len(layout.magic) + layout.max_header]
            parsed = read_header(layout, seen, stream.offset)
            if parsed is None or parsed[0] != len(stream.header):
                self._end(_error_texts.parse_changed_its_answer(stream.offset), 0)
            lead = parsed[2]
        stream.settle(lead or b"")

    def _divert(self, room: int | None) -> None:
        """Take the pending frame from the splitter; the next frame is a new splitter's."""
        old, layout = self._splitter, self._codec.layout
        header, received = old.pending_header, old.pending
        offset = self._base + old.stream_offset
        frame_size = received + old.bytes_needed
        lead: bytes | None
        if layout.parse is not None:
            parsed = read_header(layout, header, offset)
            lead = None if parsed is None else parsed[2]
        else:
            lead = header[len(layout.magic) : len(layout.magic) + layout.lead_size]
        stream = IncomingMessage(
            size=len(lead or b"") + frame_size - len(header) - len(layout.trailer),
            left=frame_size - received - len(layout.trailer),
            trailer=layout.trailer,
            header=header,
            lead=lead,
            offset=offset,
            frame_size=frame_size,
            buffer=memoryview(bytearray(self._read_size)),
        )
        _check_room(stream.size, room)
        base = offset + frame_size
        new = Splitter(self._codec, raw=self._raw, on_oversize="raise")
        pipe = self._pipe(new)
        self._receiver.use(None, 0, 0, 0.0)
        self._receiver.may_read = False
        self._cutting = self._cuts_in_python
        try:
            for unfinished in map(type(old).detach, (old,)):
                stream.unfinished = unfinished
                self._stream = stream
                self._splitter = new
                self._arrivals = pipe
                self._base = base
                self._cutting = False
        except MemoryError:  # perhaps after the splitter gave its bytes up
            self._receiver.broken = True
            raise
        finally:
            self._receiver.may_read = not (self._stream or self._receiver.broken)
        if lead is None:
            self._check_room_for_lead(stream, room)

    def _check_room_for_lead(self, stream: IncomingMessage, room: int | None) -> None:
        """Check the size of a message whose lead only the bytes after its header could give; one
        that is too large becomes the splitter's again."""
        self._settle_stream(stream)
        try:
            _check_room(stream.size, room)
        except ValueError:
            splitter = Splitter(self._codec, raw=self._raw, on_oversize=self._on_oversize)
            splitter.feed(stream.unread())
            pipe = self._pipe(splitter)
            # No call in between.
            self._splitter = splitter
            self._arrivals = pipe
            self._base = stream.offset
            self._stream = None
            self._receiver.may_read = True
            raise

    def _read_stream(self, stream: IncomingMessage, view: memoryview, *, keep: bool = True) -> None:
        """Receives into `view` once, and counts it."""
        deadline = None if self._timeout is None else monotonic() + self._timeout
        while True:
            try:
                if self._tls is None:
                    self._read_past_splitter(stream, view, keep)
                else:
                    self._call_tls(self._read_past_splitter, stream, view, keep)
            except OSError as error:
                wanted = self._judge(error)
            except MemoryError:  # perhaps after bytes were received
                self._receiver.broken = True
                raise
            else:
                if self._limited:
                    self._check_stream(stream)
                return
            self._wait_to_read(wanted, deadline)

    def _check_stream(self, stream: IncomingMessage) -> None:
        """End a message that always finds bytes when the peer's time is over."""
        if not self._is_overdue():
            return
        # As in _receive_or_wait().
        now = monotonic()
        if stream.stop is None:
            stream.stop = now + _LONGEST_TURN
        elif now >= stream.stop and stream.left:
            self._check_limits()

    def _read_past_splitter(self, stream: IncomingMessage, view: memoryview, keep: bool) -> None:
        counts: Iterator[int]
        if self._tls is not None:
            counts = map(self._tls.read, _ZERO, (view,))
        else:
            counts = map(self._sock.recv_into, (view,), _ZERO, (self._read_flags,))
        for count in counts:
            stream.left -= count
            if keep:
                stream.chunk = view[:count]
            if not count:
                self._end(None)

    def _end_stream(self, stream: IncomingMessage) -> int:
        """Verifies the trailer."""
        if not stream.in_trailer:
            stream.left = len(stream.trailer)
            stream.in_trailer = True
        trailer = stream.trailer
        while stream.left or stream.chunk:
            found = bytes(stream.chunk)
            position = len(trailer) - stream.left - len(found)
            for index, byte in enumerate(found, position):
                if byte != trailer[index]:
                    bad = trailer[:index] + bytes([byte])
                    self._end(
                        _error_texts.wrong_trailer(trailer, bad, stream.offset, stream.header), 0
                    )
            stream.chunk = NO_BYTES
            if stream.left:
                self._read_stream(stream, memoryview(bytearray(stream.left)))
        self._use_short_way()
        self._began = None
        self._stream = None
        self._receiver.may_read = True
        return stream.size

    # --- handing over -----------------------------------------------------------------------------

    def detach(self) -> tuple[_Socket, bytes]:
        """Hands the socket over to another protocol (STARTTLS and the like).

        Returns:
            The socket, with the time-out that was set here, and the bytes that were received and
            not delivered as messages, exactly as they travelled.

        Raises:
            RuntimeError: Accepted messages have not left yet (`flush` first), or a message is half
                way to a file.
        """
        with self._read_guard, self._write_guard:
            if self._closed:
                raise _error_texts.connection_closed()
            if self.pending_send:
                raise _error_texts.unsent(self.pending_send)
            if self._stream is not None:
                raise _error_texts.stream_unfinished()
            receiver, sender = self._receiver, self._sender
            if sender.broken:
                raise self._count_lost("sent")
            if receiver.broken or self._cutting:
                raise self._count_lost("received")
            if sender.sending or not (receiver.may_read or self._failure):
                raise _error_texts.in_use("detach()")
            batch = receiver.ready
            if self._raw:
                unread = b"".join([*(batch.frames() if batch else ()), *self._arrived])
            else:
                unread = self._codec.encode_many([*batch.rest(), *self._arrived])
            empty = _socket_io.Batch([])
            unread += self._splitter.detach()
            receiver.ready = empty
            self._arrived = []
            self._closed = True
            receiver.may_read = False
            sender.clear = False
            timeout = self._timeout
            # A socket of its own takes no more.
            self._sock.settimeout(timeout and min(timeout, threading.TIMEOUT_MAX))
            return self._sock, unread

    # --- what can be asked ------------------------------------------------------------------------

    @property
    def codec(self) -> Codec:
        """The shape of the frames."""
        return self._codec

    @property
    def read_ahead(self) -> bool:
        """Whether a receive may bring more than the frame that was asked for."""
        return self._read_ahead

    @read_ahead.setter
    def read_ahead(self, value: bool) -> None:
        with self._read_lock:
            self._read_ahead = bool(value)
            self._arrivals = self._pipe(self._splitter)
            self._use_short_way()

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` gives without touching the socket."""
        return len(self._receiver.ready) + len(self._arrived)

    @property
    def pending_send(self) -> int:
        """Bytes of accepted messages that have not left."""
        file = self._file
        waiting = 0 if file is None else file.left + file.trailer_size
        waiting += sum(map(len, self._sender.left))
        return self._outbox.size - sum(self._outbox.left) + waiting

    # --- as on a socket ---------------------------------------------------------------------------

    def settimeout(self, timeout: float | None) -> None:
        """Sets the seconds that a call may take; None waits for ever, 0 does not wait at all."""
        if timeout is not None and (timeout < 0 or math.isnan(timeout)):
            raise ValueError("Timeout value out of range")
        if self._closed:  # detach() has given the socket to somebody else
            raise _error_texts.connection_closed()
        sock = self._sock
        read_alone = timeout is None and not self._limited
        write_alone = timeout is None
        self._read_flags, self._write_flags = 0, _ZERO
        if self._tls is not None or (not _DONTWAIT and not read_alone):
            sock.setblocking(False)
            read_alone = write_alone = False
        elif timeout == 0:
            sock.setblocking(False)
        else:
            sock.setblocking(True)
            self._read_flags = 0 if read_alone else _DONTWAIT
            self._write_flags = _ZERO if write_alone else (_DONTWAIT,)
        self._sender.use(self._write_flags[0])
        self._timeout = timeout
        self._read_waits = timeout != 0 and not read_alone
        self._write_waits = timeout != 0 and not write_alone
        self._arrivals = self._pipe(self._splitter)
        self._use_short_way()
        if timeout is None:
            self._read_guard: Any = self._read_lock
            self._write_guard: Any = self._write_lock
        else:
            io = _short_way(sock)
            self._read_guard = io.Guard(self._read_lock, timeout)
            self._write_guard = io.Guard(self._write_lock, timeout)

    def shutdown(self, how: int, /) -> None:
        """Ends one or both directions; what an earlier `send` left unsent is not sent by it.

        Raises:
            OSError: TLS can only be ended in both directions at once; say goodbye in a message.
        """
        if self._tls is not None and how != socket.SHUT_RDWR:
            raise _error_texts.tls_half_close()
        # Not SSLSocket.shutdown: from then on that one would take the peer's TLS for plain bytes.
        socket.socket.shutdown(self._sock, how)

    def close(self) -> None:
        """Closes the connection; a thread that waits in it gets a `ConnectionAbortedError`.

        What an earlier `send` left unsent is given up.
        """
        if self._closed:
            return
        self._closed = True
        locks = (self._read_lock, self._write_lock)
        alone = True
        for lock in locks:
            if not lock.acquire(blocking=False):
                alone = False
                # Somebody waits. Wake him, and let him leave before the descriptor's number can
                # come to stand for another file. (Never where nobody waits: other processes may
                # share the connection.)
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
                lock.acquire()
        try:
            if alone and self._tls is not None:
                with contextlib.suppress(OSError, ValueError):
                    self._tls.shutdown()  # says goodbye, and waits for no answer
            self._receiver.may_read = False
            self._sender.clear = False
            self._sock.close()
            if self._file is not None:
                self._file.close()
            # Their tracebacks hold what the callers had.
            self._failure = self._write_failure = None
        finally:
            for lock in locks:
                lock.release()

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
        TypeError, ValueError, OverflowError: An argument is invalid.
    """
    if not isinstance(codec, Codec):  # now, and not when somebody connects
        raise _error_texts.not_a_codec(codec)
    _check_seconds("message_timeout", message_timeout)
    _check_seconds("idle_timeout", idle_timeout)
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
class Listener(SocketFace):
    """A listening socket that gives a `FrameSocket` for every connection; made by `listen`.

    Iterating over it gives connections until it is closed.
    """

    __slots__ = ("_address", "_codec", "_file", "_limits", "_lock")

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
        self.settimeout(sock.gettimeout())
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

    def accept(self) -> FrameSocket:
        """The next connection.

        Raises:
            TimeoutError, BlockingIOError: There is none, as `settimeout` has it.
            OSError: The listener is closed, or the system is out of descriptors.
        """
        with self._lock:
            if self._closed:
                raise _error_texts.connection_closed()
            try:
                sock = self._accept()
            except OSError:
                if self._closed:
                    raise _error_texts.connection_closed() from None
                raise
        try:
            sock.settimeout(socket.getdefaulttimeout())
            _set_nodelay(sock)
            return FrameSocket(sock, self._codec, **self._limits)
        except BaseException:
            sock.close()
            raise

    def _accept(self) -> _Socket:
        # Not Python's own time-out: behind a shutdown, which is how close() wakes this thread, it
        # would ask a Unix socket over and over until the time is up.
        deadline = monotonic() + self._timeout if self._timeout else None
        while True:
            try:
                return self._sock.accept()[0]
            except BlockingIOError:
                if not self._timeout:
                    raise
            if not _wait(self._sock, _READ, deadline):
                raise _error_texts.nobody_connected(self._timeout)
            if self._closed:
                raise _error_texts.connection_closed()

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

    def settimeout(self, timeout: float | None) -> None:
        """Sets the seconds that `accept` may take; None waits for ever, 0 does not wait at all."""
        self._sock.settimeout(timeout)  # which refuses what is none
        if timeout is not None:
            self._sock.setblocking(False)
        self._timeout = timeout

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

    def __repr__(self) -> str:
        state = "closed" if self._closed else repr(self._address)
        return f"<Listener {state}, {self._codec!r}>"


# --- addresses ------------------------------------------------------------------------------------


def _host_and_port(address: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(address) not in (2, 4):
        raise _error_texts.bad_address(address)
    host, port = address[:2]
    if isinstance(port, int) and not 0 <= port <= 65535:  # the system would take its lowest bits
        raise _error_texts.bad_port(port)
    return host, port


def _unix_path(address: object) -> str | bytes:
    if not isinstance(address, str | bytes | os.PathLike):
        raise _error_texts.bad_address(address)
    return os.fspath(address)


def _new_unix_socket(_path: str | bytes) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise _error_texts.no_unix_sockets()
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
    # A socket of another kind: whoever listens is not called.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
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


def _short_way(sock: socket.socket) -> Any:
    """The twin for a socket: the compiled one calls the system itself, past the methods of the
    socket, which must therefore be Python's own."""
    kind = type(sock)
    if kind.recv_into is not _socket.socket.recv_into or kind.send is not _socket.socket.send:
        return _socket_io_py
    return _socket_io


def _check_room(size: int, room: int | None) -> None:
    if room is not None and size > room:
        raise _error_texts.buffer_too_small(size, room)


def _mark(error: BaseException, started: bool) -> None:
    """Says in an error whether the message of the failed call is held."""
    error.message_started = started  # type: ignore[attr-defined]


def _is_own_timeout(error: TimeoutError) -> bool:
    """Whether a `TimeoutError` is Python's, not the end of a connection that TCP has given up."""
    return error.errno != errno.ETIMEDOUT


def _is_tls_error(error: OSError, kind: Any) -> bool:
    return isinstance(error, kind)


def _at(error: BaseException, base: int) -> BaseException:
    """The error as it reads where the splitter's first byte was not the stream's."""
    if not base or not isinstance(error, errors.FrameError) or error.stream_offset is None:
        return error
    return _error_texts.moved(error, base)


def _check_seconds(name: str, seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        raise _error_texts.bad_seconds(name, seconds)
    return seconds
