"""What the loop of `serve_messages` does for one connection, in Python.

`_messages_loop_py` describes it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections import deque
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, final, overload

from .. import _error_texts, errors
from .._locks import call_locked
from .._message_types import MessageT, OfMessages, SpecialT

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._messages_loop_py import MessageLoop

__all__ = [
    "CLOSED",
    "FINISHING",
    "LINGERING",
    "LONGEST_STEP",
    "OPEN",
    "READ",
    "READ_SIZE",
    "MessageConnection",
    "MessageSteps",
]

READ_SIZE = 128 * 1024  # bytes that a client may send in one turn
LARGE = 64 * 1024  # a pending message that misses as much is received into its own memory
GATHERED_SIZE = 128 * 1024  # frames are joined up to this size
COUNTED_SIZE = 4 * 1024  # a receive of as many bytes is a step of the clock
LONGEST_STEP = 0.1  # seconds that a step of the clock counts, at most
LINGER_TIME = 2.0  # seconds
FINISH_TIME = 30.0  # seconds
LAST_READS = 8  # receives from a client whose time is over, at most

OPEN, FINISHING, LINGERING, CLOSED = range(4)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@final
class MessageConnection(OfMessages[MessageT]):
    """One client of `serve_messages`.

    Attributes:
        peer: The client's address, as ``socket.accept`` gives it.
        state: For the program; None at first.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_close_requested",
        "_deadline",
        "_dirty",
        "_error",
        "_failure",
        "_fd",
        "_feed",
        "_interest",
        "_loop",
        "_message_offset",
        "_needed",
        "_out",
        "_paused",
        "_phase",
        "_saw_eof",
        "_sent",
        "_sock",
        "_splitter",
        "_time_left",
        "peer",
        "state",
    )

    def __init__(self, loop: MessageLoop, sock: socket.socket, peer: Any) -> None:
        self.peer: Any = peer
        self.state: Any = None
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._splitter: Any = None
        self._feed: Any = None
        self._phase = OPEN
        self._interest = 0
        self._paused = False
        self._saw_eof = False
        self._out: deque[bytes] | None = None  # frames that are unsent
        self._sent = 0  # bytes of the first of them that have left
        self._backlog = 0  # bytes of them that are unsent
        self._needed = 0  # bytes that the pending message misses, where it is a large one
        self._dirty = False  # is in the loop's list
        self._close_requested = False
        self._failure: BaseException | None = None  # for which another thread ends it
        self._error: BaseException | None = None  # for which it ended
        self._deadline = 0.0  # by the loop's clock; 0: none
        self._time_left = 0.0  # until the deadline, while it is paused
        self._message_offset = -1  # of the pending message

    @overload
    def send(self: MessageConnection[bytes | SpecialT], message: Buffer | SpecialT, /) -> None: ...

    @overload
    def send(self, message: MessageT, /) -> None: ...

    def send(self, message: object, /) -> None:
        """Send one message. The call never waits; any thread may make it.

        Args:
            message: As for `FrameSocket.send`.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was taken.
            ConnectionAbortedError: The connection has ended, or `close` was called.
        """
        self._loop._put(self, self._loop._encode_for(self, (message,)))

    @overload
    def send_many(
        self: MessageConnection[bytes | SpecialT], messages: Iterable[Buffer | SpecialT], /
    ) -> None: ...

    @overload
    def send_many(self, messages: Iterable[MessageT], /) -> None: ...

    def send_many(self, messages: Iterable[Any], /) -> None:
        """Send many messages. The call never waits; any thread may make it.

        Args:
            messages: As for `send`; all are checked before anything is sent.

        Raises:
            As `send`.
        """
        self._loop._put(self, self._loop._encode_for(self, messages))

    def close(self) -> None:
        """End the connection: it receives no more, and closes when all is sent.

        The handler is not called with this connection again. Any thread may make this call.
        """
        self._loop._request_close(self)

    @property
    def closed(self) -> bool:
        """Whether it receives no more."""
        return self._phase != OPEN or self._close_requested

    @property
    def pending_send(self) -> int:
        """Bytes of accepted messages that have not left."""
        return self._backlog

    def fileno(self) -> int:
        """Return the descriptor, or -1 where it is closed."""
        return self._fd

    def __repr__(self) -> str:
        state = ("open", "finishing", "lingering", "closed")[self._phase]
        return f"<MessageConnection {self.peer!r}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


class MessageSteps:
    """What the loop does for one connection; the base of `MessageLoop`, which has the state.

    Each method here is called by the loop's thread only.
    """

    clock: float
    _buffer: bytearray
    _by_fd: dict[int, MessageConnection]
    _encode_many: Any
    _handle: Any
    _handling: MessageConnection | None
    _hooks: Any
    _idle_timeout: float
    _limited: bool
    _lock: Any
    _message_timeout: float
    _next_scan: float
    _observed: bool
    _selector: selectors.BaseSelector
    _step_began: float
    _view: memoryview

    def _watch(self, conn: MessageConnection[Any], interest: int) -> None:
        if interest == conn._interest:
            return
        if conn._interest:
            self._selector.modify(conn._fd, interest, conn)
        else:
            self._selector.register(conn._fd, interest, conn)
        conn._interest = interest

    # --- bytes in ---------------------------------------------------------------------------------

    def _receive(self, conn: MessageConnection[Any]) -> bool:
        """Receive once; return whether bytes have arrived."""
        splitter = conn._splitter
        memory = splitter.get_room(READ_SIZE) if conn._needed else None
        try:
            count = conn._sock.recv_into(self._buffer if memory is None else memory)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end(conn, error)
            return False
        if not count:
            self._on_eof(conn)
            return False
        try:
            if memory is None:
                messages = conn._feed(self._view[:count])
            else:
                memory = None
                messages = splitter.buffer_updated(count)
        except errors.FrameError as error:
            self._end(conn, error)
            return True
        if self._limited:
            self._note_arrival(conn)
        if messages:
            self._deliver(conn, messages)
            if conn._phase != OPEN:
                return True
        if count >= COUNTED_SIZE:
            self._count_time()
        failure = splitter.error
        if failure is not None:
            self._end(conn, failure)
        elif count >= LARGE or not messages:
            needed = splitter.bytes_needed
            conn._needed = needed if needed >= LARGE else 0
        else:
            conn._needed = 0
        return True

    def _deliver(self, conn: MessageConnection[Any], messages: list[Any]) -> None:
        """Call the handler, and send its replies."""
        frames = None
        self._handling = conn
        try:
            replies = self._handle(conn, messages)
            if replies is not None:
                if not isinstance(replies, list | tuple):
                    replies = list(replies)
                if replies:
                    frames = self._encode_for(conn, replies)
        except BaseException as error:
            self._handling = None
            self._hooks.handler_failed(conn, error)
            self._finish(conn, error)
            return
        self._handling = None
        if conn._close_requested or conn._failure is not None or conn._out is not None:
            if frames is not None:
                call_locked(self._lock, self._queue, conn, frames)
            self._look_at(conn)
        elif frames is not None:
            self._send(conn, frames)

    def _send(self, conn: MessageConnection[Any], frames: bytes) -> None:
        """Send where nothing is unsent; keep the rest."""
        try:
            count = conn._sock.send(frames)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError as error:
            self._end(conn, error)
            return
        if count == len(frames):
            return
        call_locked(self._lock, self._keep_unsent, conn, frames, count)
        self._pause(conn)

    def _keep_unsent(self, conn: MessageConnection[Any], frames: bytes, count: int) -> None:
        if conn._out is None:
            conn._out = deque()
        # Another thread may have sent meanwhile, and saw an empty queue.
        conn._out.appendleft(frames)
        conn._sent = count
        conn._backlog += len(frames) - count

    def _on_eof(self, conn: MessageConnection[Any]) -> None:
        conn._saw_eof = True
        try:
            conn._splitter.feed_eof()
        except errors.FrameError as error:
            self._end(conn, error)
        else:
            self._finish(conn, None)

    def _discard(self, conn: MessageConnection[Any]) -> None:
        try:
            if conn._sock.recv_into(self._buffer):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._close(conn, conn._error)

    def _encode_for(self, conn: MessageConnection[Any], messages: Iterable[object]) -> bytes:
        if self._observed:
            return b"".join(self._hooks.frames(conn, messages))
        frames: bytes = self._encode_many(messages)
        return frames

    # --- bytes out --------------------------------------------------------------------------------

    def _flush(self, conn: MessageConnection[Any]) -> None:
        """Send what is unsent, as far as the kernel takes it."""
        while conn._backlog:
            first = call_locked(self._lock, self._gather, conn)
            try:
                count = conn._sock.send(memoryview(first)[conn._sent :] if conn._sent else first)
            except (BlockingIOError, InterruptedError):
                self._pause(conn)
                return
            except OSError as error:
                self._end(conn, error)
                return
            call_locked(self._lock, self._drop_sent, conn, first, count)
        if conn._phase == OPEN:
            self._resume(conn)
        else:
            self._all_sent(conn)

    def _drop_sent(self, conn: MessageConnection[Any], first: bytes, count: int) -> None:
        """Forget the bytes of the first buffer that were sent."""
        conn._sent += count
        conn._backlog -= count
        if conn._sent == len(first):
            assert conn._out is not None
            conn._out.popleft()
            conn._sent = 0
            if not conn._out:
                conn._out = None

    def _gather(self, conn: MessageConnection[Any]) -> bytes:
        """Return the first unsent buffer, after small ones were joined."""
        out = conn._out
        assert out is not None
        first = out[0]
        if len(out) == 1 or conn._sent or len(first) >= GATHERED_SIZE:
            return first
        parts, size = [], 0
        while out and size < GATHERED_SIZE:
            parts.append(out.popleft())
            size += len(parts[-1])
        first = b"".join(parts)
        out.appendleft(first)
        return first

    def _pause(self, conn: MessageConnection[Any]) -> None:
        """Wait until the kernel takes more, and do not read meanwhile."""
        if conn._phase == OPEN and not conn._paused:
            conn._paused = True
            conn._time_left = conn._deadline - self.clock if conn._deadline else 0.0
            conn._deadline = 0.0
        self._watch(conn, WRITE)

    def _resume(self, conn: MessageConnection[Any]) -> None:
        if conn._paused:
            conn._paused = False
            if conn._time_left:
                self._set_deadline(conn, self.clock + conn._time_left)
        self._watch(conn, READ)

    def _queue(self, conn: MessageConnection[Any], frames: bytes) -> None:
        if conn._out is None:
            conn._out = deque()
        conn._out.append(frames)
        conn._backlog += len(frames)

    # --- the end of a connection ------------------------------------------------------------------

    def _end(self, conn: MessageConnection[Any], error: BaseException) -> None:
        """End a connection for its client's fault."""
        if conn._phase == OPEN:
            self._hooks.fault(conn, error)
        if isinstance(error, OSError) and not isinstance(error, errors.FrameError):
            self._close(conn, error)
        else:
            self._finish(conn, error)

    def _finish(self, conn: MessageConnection[Any], error: BaseException | None) -> None:
        """Receive no more; close when all is sent. The connection is open."""
        conn._phase = FINISHING
        conn._error = error
        self._set_deadline(conn, self.clock + FINISH_TIME)
        if conn._backlog:
            self._flush(conn)
        else:
            self._all_sent(conn)

    def _all_sent(self, conn: MessageConnection[Any]) -> None:
        if conn._saw_eof or (conn._error is None and not self._has_unread(conn)):
            self._close(conn, conn._error)
            return
        conn._phase = LINGERING
        self._set_deadline(conn, self.clock + LINGER_TIME)
        try:
            conn._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn, conn._error)
        else:
            self._watch(conn, READ)

    def _has_unread(self, conn: MessageConnection[Any]) -> bool:
        try:
            return bool(conn._sock.recv_into(self._buffer, 1, socket.MSG_PEEK))
        except OSError:
            return False

    def _close(self, conn: MessageConnection[Any], error: BaseException | None) -> None:
        if conn._phase == CLOSED:
            return
        conn._phase = CLOSED
        conn._error = error
        with contextlib.suppress(OSError, KeyError, ValueError):
            self._selector.unregister(conn._fd)
        self._by_fd.pop(conn._fd, None)
        conn._fd = -1
        call_locked(self._lock, self._drop_unsent, conn)
        self._hooks.close_socket(conn._sock)
        conn._splitter = conn._feed = None
        self._hooks.closed(conn, error)

    def _drop_unsent(self, conn: MessageConnection[Any]) -> None:
        conn._out = None
        conn._backlog = conn._sent = 0

    def _look_at(self, conn: MessageConnection[Any]) -> None:
        if conn._phase == CLOSED:
            return
        if conn._failure is not None and conn._phase == OPEN:
            self._end(conn, conn._failure)
        elif conn._close_requested and conn._phase == OPEN:
            self._finish(conn, None)
        elif conn._backlog and conn._interest != WRITE:
            self._flush(conn)

    # --- time -------------------------------------------------------------------------------------

    def _count_time(self) -> None:
        """End a step of the clock."""
        now = monotonic()
        self.clock += min(now - self._step_began, LONGEST_STEP)
        self._step_began = now

    def _set_deadline(self, conn: MessageConnection[Any], deadline: float) -> None:
        conn._deadline = deadline
        if deadline < self._next_scan:
            self._next_scan = deadline

    def _note_arrival(self, conn: MessageConnection[Any]) -> None:
        """Start the time of a message, or of the quiet after one."""
        if conn._splitter.pending:
            offset = conn._splitter.stream_offset
            if offset != conn._message_offset:
                conn._message_offset = offset
                timeout = self._message_timeout
                self._set_deadline(conn, self.clock + timeout if timeout else inf)
        else:
            conn._message_offset = -1
            timeout = self._idle_timeout
            self._set_deadline(conn, self.clock + timeout if timeout else inf)

    def _on_deadline(self, conn: MessageConnection[Any]) -> None:
        if conn._phase != OPEN:
            self._close(conn, conn._error)
            return
        if conn._close_requested:
            return
        # What the kernel holds is read first.
        for _ in range(LAST_READS):
            if not self._receive(conn):
                break
            if conn._phase != OPEN or not conn._deadline or conn._deadline > self.clock:
                return
        if conn._phase != OPEN or conn._close_requested:
            return
        splitter = conn._splitter
        if splitter.pending:
            self._end(
                conn,
                _error_texts.message_too_slow(self._message_timeout, splitter._pending_frame()),
            )
        else:
            self._end(conn, _error_texts.idle_too_long(self._idle_timeout, splitter.stream_offset))
