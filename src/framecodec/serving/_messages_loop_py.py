"""One thread that serves the messages of many connections, in Python.

What the loop must do
    Wait for all sockets at a time. From a socket that is ready: receive once, call the handler once
    with the messages that became whole, send its replies at once. Serve each ready socket once a
    turn, so that no client delays the others by more than one receive.

Phases of a connection
    OPEN        It receives, or is paused: while bytes for the client are unsent, it is not read.
    FINISHING   It receives no more; what is unsent leaves, in bounded time.
    LINGERING   All has left and the sending direction is closed. Bytes that still arrive are read
                and discarded, in bounded time: if a socket is closed with unread bytes, the kernel
                resets the connection, and the client can lose the last replies.
    CLOSED      The descriptor is closed.

Threads
    Only the loop's thread touches sockets, splitters and phases. Other threads, and the handler,
    append frames to a connection's `_out`, or leave a request, put the connection into `_dirty`,
    and wake the loop, all under its lock.

Time
    `clock` counts the seconds in which the loop waited for clients, and of each turn at most
    LONGEST_TURN more: time that a slow handler takes is not the clients'.

The compiled twin is `_messages_loop.pyx`. Change both in the same commit.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import Any, NoReturn, final

from .. import _error_texts, errors

__all__ = ["MessageConnection", "MessageLoop"]

READ_SIZE = 128 * 1024  # bytes that a client may send in one turn
LARGE = 64 * 1024  # a pending message that misses as much is received into its own memory
GATHERED_SIZE = 128 * 1024  # frames are joined up to this size
LONGEST_TURN = 0.1  # seconds
LINGER_TIME = 2.0  # seconds
FINISH_TIME = 30.0  # seconds
SCAN_PAUSE = 0.02  # seconds between two looks at all deadlines, at least
LAST_READS = 8  # receives from a client whose time is over, at most

OPEN, FINISHING, LINGERING, CLOSED = range(4)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@final
class MessageConnection:
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

    def send(self, message: object, /) -> None:
        """Send one message. The call never waits; any thread may make it.

        Args:
            message: As for `FrameSocket.send`.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was taken.
            ConnectionAbortedError: The connection has ended, or `close` was called.
        """
        self._loop._put(self, self._loop._encode_for(self, (message,)))

    def send_many(self, messages: Iterable[object], /) -> None:
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


@final
class MessageLoop:
    """The loop of a server.

    Args:
        hooks: The server: what is not done for every message is done by its methods.
        handle: The handler.
        codec: The shape of the frames.
        listener: The listening socket, which does not wait.
        wakeup: Two connected sockets that do not wait; a byte in the first ends a wait.
        max_connections: The number of connections, or None.
        message_timeout: Seconds, or None.
        idle_timeout: Seconds, or None.
        limit: Bytes that may be unsent where a connection takes a broadcast message.
        observed: Whether `hooks.frames` encodes, because an observer sees each frame.
    """

    def __init__(
        self,
        hooks: Any,
        handle: Any,
        codec: Any,
        listener: socket.socket,
        wakeup: tuple[socket.socket, socket.socket],
        *,
        max_connections: int | None,
        message_timeout: float | None,
        idle_timeout: float | None,
        limit: int,
        observed: bool,
    ) -> None:
        self._hooks = hooks
        self._handle = handle
        self._codec = codec
        self._encode_many = codec.encode_many
        self._listener = listener
        self._wakeup = wakeup
        self._max_connections = max_connections
        self._message_timeout = message_timeout or 0.0
        self._idle_timeout = idle_timeout or 0.0
        self._limited = bool(message_timeout or idle_timeout)
        self._limit = limit
        self._observed = observed
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)
        self._by_fd: dict[int, MessageConnection] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.RLock()
        self._dirty: list[MessageConnection] = []
        self._woken = False
        self._thread_id = 0
        self._handling: MessageConnection | None = None
        self._stopping = False
        self._aborting = False
        self._listening = False
        self._accept_at = 0.0  # by the clock: when accepting resumes after a fault
        self.clock = 0.0
        self._next_scan = inf
        self._selector.register(wakeup[0], READ, None)

    # --- what any thread may call -----------------------------------------------------------------

    def connections(self) -> list[MessageConnection]:
        """Return the open connections."""
        return [conn for conn in list(self._by_fd.values()) if not conn.closed]

    def broadcast(self, frame: bytes) -> int:
        """Send a frame to all open connections; return how many took it."""
        count = 0
        for conn in self.connections():
            with self._lock:
                backlog = conn._backlog
                if backlog <= self._limit:
                    taken = self._append(conn, frame)
                else:
                    taken = False
                    if conn._failure is None:
                        conn._failure = ConnectionAbortedError(
                            f"{backlog} bytes of messages wait for the client, the limit is"
                            f" {self._limit}; it does not receive"
                        )
                        self._mark(conn)
            if taken:
                count += 1
                if self._observed:
                    self._hooks.sent(conn, len(frame))
        return count

    def stop(self, abort: bool) -> None:
        """End the loop: at once with `abort`, else when all connections have ended."""
        self._stopping = True
        self._aborting = self._aborting or abort
        self._wake()

    def pause_accepting(self, seconds: float) -> None:
        """Accept no connection for that long; for the loop's thread."""
        self._accept_at = self.clock + seconds
        self._listen(False)

    def _put(self, conn: MessageConnection, frames: bytes) -> None:
        with self._lock:
            if not self._append(conn, frames):
                raise _error_texts.connection_closed()

    def _append(self, conn: MessageConnection, frames: bytes) -> bool:
        if conn.closed:
            return False
        if frames:
            self._queue(conn, frames)
            self._mark(conn)
        return True

    def _queue(self, conn: MessageConnection, frames: bytes) -> None:
        if conn._out is None:
            conn._out = deque()
        conn._out.append(frames)
        conn._backlog += len(frames)

    def _request_close(self, conn: MessageConnection) -> None:
        with self._lock:
            conn._close_requested = True
            if conn._phase == OPEN:
                self._mark(conn)

    def _mark(self, conn: MessageConnection) -> None:
        """Let the loop look at a connection."""
        if not conn._dirty and conn is not self._handling:
            conn._dirty = True
            self._dirty.append(conn)
            self._wake()

    def _wake(self) -> None:
        if not self._woken and threading.get_ident() != self._thread_id:
            self._woken = True
            with contextlib.suppress(OSError):
                self._wakeup[1].send(b"\0")

    def _encode_for(self, conn: MessageConnection, messages: Iterable[object]) -> bytes:
        if self._observed:
            return b"".join(self._hooks.frames(conn, messages))
        frames: bytes = self._encode_many(messages)
        return frames

    # --- the loop's thread ------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`."""
        self._thread_id = threading.get_ident()
        try:
            began = monotonic()
            while True:
                self._listen(self._may_accept())
                wait = self._seconds_to_wait()
                waiting_since = monotonic()
                events = self._selector.select(wait)
                now = monotonic()
                self.clock += now - waiting_since + min(waiting_since - began, LONGEST_TURN)
                began = now
                for key, mask in events:
                    self._on_event(key.fd, key.data, mask)
                self._look_at_dirty()
                if self.clock >= self._next_scan:
                    self._scan()
                if self._stopping and self._stop_step():
                    return
        finally:
            self._end_all()

    def _seconds_to_wait(self) -> float | None:
        if self._dirty:
            return 0.0
        until = self._next_scan
        if self._accept_at and not self._stopping:
            until = min(until, self._accept_at)
        return None if until == inf else max(0.0, until - self.clock)

    def _on_event(self, fd: int, conn: MessageConnection | None, mask: int) -> None:
        if fd == self._listener.fileno() and conn is None:
            self._accept()
        elif conn is None:
            self._woken = False
            with contextlib.suppress(OSError):
                self._wakeup[0].recv(64)
        elif self._by_fd.get(fd) is conn:
            self._serve(conn, mask)

    def _serve(self, conn: MessageConnection, mask: int) -> None:
        """Do what a socket is ready for."""
        try:
            if conn._phase == LINGERING:
                self._discard(conn)
            elif conn._backlog:
                self._flush(conn)
            elif conn._phase == OPEN and not conn._close_requested:
                self._receive(conn)
        except BaseException as error:  # no memory; an exception set from another thread
            self._hooks.failed(conn, error)
            self._close(conn, error)

    def _accept(self) -> None:
        if not self._listening:
            return
        count = 64
        if self._max_connections is not None:
            count = min(count, self._max_connections - len(self._by_fd))
        for sock, peer in self._hooks.accept(count):
            self._add(sock, peer)

    def _may_accept(self) -> bool:
        if self._accept_at:
            if self.clock < self._accept_at:
                return False
            self._accept_at = 0.0
        full = self._max_connections is not None and len(self._by_fd) >= self._max_connections
        return not (full or self._stopping)

    def _listen(self, wanted: bool) -> None:
        if wanted == self._listening:
            return
        self._listening = wanted
        if wanted:
            self._selector.register(self._listener, READ, None)
        else:
            self._selector.unregister(self._listener)

    def _add(self, sock: socket.socket, peer: Any) -> None:
        try:
            conn = MessageConnection(self, sock, peer)
            conn._splitter = self._hooks.splitter(conn, sock)
            conn._feed = conn._splitter.feed
            self._watch(conn, READ)
        except BaseException:
            sock.close()
            raise
        self._by_fd[conn._fd] = conn
        if self._idle_timeout:
            self._set_deadline(conn, self.clock + self._idle_timeout)
        self._hooks.opened(conn)

    def _watch(self, conn: MessageConnection, interest: int) -> None:
        if interest == conn._interest:
            return
        if conn._interest:
            self._selector.modify(conn._fd, interest, conn)
        else:
            self._selector.register(conn._fd, interest, conn)
        conn._interest = interest

    # --- bytes in ---------------------------------------------------------------------------------

    def _receive(self, conn: MessageConnection) -> bool:
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
        failure = splitter.error
        if failure is not None:
            self._end(conn, failure)
        elif count >= LARGE or not messages:
            needed = splitter.bytes_needed
            conn._needed = needed if needed >= LARGE else 0
        else:
            conn._needed = 0
        return True

    def _deliver(self, conn: MessageConnection, messages: list[Any]) -> None:
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
                with self._lock:
                    self._queue(conn, frames)
            self._look_at(conn)
        elif frames is not None:
            self._send(conn, frames)

    def _send(self, conn: MessageConnection, frames: bytes) -> None:
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
        with self._lock:
            if conn._out is None:
                conn._out = deque()
            # Another thread may have sent meanwhile, and saw an empty queue.
            conn._out.appendleft(frames)
            conn._sent = count
            conn._backlog += len(frames) - count
        self._pause(conn)

    def _on_eof(self, conn: MessageConnection) -> None:
        conn._saw_eof = True
        try:
            conn._splitter.feed_eof()
        except errors.FrameError as error:
            self._end(conn, error)
        else:
            self._finish(conn, None)

    def _discard(self, conn: MessageConnection) -> None:
        try:
            if conn._sock.recv_into(self._buffer):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._close(conn, conn._error)

    # --- bytes out --------------------------------------------------------------------------------

    def _flush(self, conn: MessageConnection) -> None:
        """Send what is unsent, as far as the kernel takes it."""
        while conn._backlog:
            with self._lock:
                first = self._gather(conn)
            try:
                count = conn._sock.send(memoryview(first)[conn._sent :] if conn._sent else first)
            except (BlockingIOError, InterruptedError):
                self._pause(conn)
                return
            except OSError as error:
                self._end(conn, error)
                return
            with self._lock:
                conn._sent += count
                conn._backlog -= count
                if conn._sent == len(first):
                    assert conn._out is not None
                    conn._out.popleft()
                    conn._sent = 0
                    if not conn._out:
                        conn._out = None
        if conn._phase == OPEN:
            self._resume(conn)
        else:
            self._all_sent(conn)

    def _gather(self, conn: MessageConnection) -> bytes:
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

    def _pause(self, conn: MessageConnection) -> None:
        """Wait until the kernel takes more, and do not read meanwhile."""
        if conn._phase == OPEN and not conn._paused:
            conn._paused = True
            conn._time_left = conn._deadline - self.clock if conn._deadline else 0.0
            conn._deadline = 0.0
        self._watch(conn, WRITE)

    def _resume(self, conn: MessageConnection) -> None:
        if conn._paused:
            conn._paused = False
            if conn._time_left:
                self._set_deadline(conn, self.clock + conn._time_left)
        self._watch(conn, READ)

    # --- requests of the handler and of other threads ---------------------------------------------

    def _look_at_dirty(self) -> None:
        if not self._dirty:
            return
        with self._lock:
            dirty, self._dirty = self._dirty, []
            for conn in dirty:
                conn._dirty = False
        for conn in dirty:
            try:
                self._look_at(conn)
            except BaseException as error:
                self._hooks.failed(conn, error)
                self._close(conn, error)

    def _look_at(self, conn: MessageConnection) -> None:
        if conn._phase == CLOSED:
            return
        if conn._failure is not None and conn._phase == OPEN:
            self._end(conn, conn._failure)
            self._close(conn, conn._failure)
        elif conn._close_requested and conn._phase == OPEN:
            self._finish(conn, None)
        elif conn._backlog and conn._interest != WRITE:
            self._flush(conn)

    # --- the end of a connection ------------------------------------------------------------------

    def _end(self, conn: MessageConnection, error: BaseException) -> None:
        """End a connection for its client's fault."""
        if conn._phase == OPEN:
            self._hooks.fault(conn, error)
        if isinstance(error, OSError) and not isinstance(error, errors.FrameError):
            self._close(conn, error)
        else:
            self._finish(conn, error)

    def _finish(self, conn: MessageConnection, error: BaseException | None) -> None:
        """Receive no more; close when all is sent."""
        if conn._phase != OPEN:
            return
        conn._phase = FINISHING
        conn._error = error
        self._set_deadline(conn, self.clock + FINISH_TIME)
        if conn._backlog:
            self._flush(conn)
        else:
            self._all_sent(conn)

    def _all_sent(self, conn: MessageConnection) -> None:
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

    def _has_unread(self, conn: MessageConnection) -> bool:
        try:
            return bool(conn._sock.recv_into(self._buffer, 1, socket.MSG_PEEK))
        except OSError:
            return False

    def _close(self, conn: MessageConnection, error: BaseException | None) -> None:
        if conn._phase == CLOSED:
            return
        conn._phase = CLOSED
        conn._error = error
        if conn._interest:
            with contextlib.suppress(OSError, KeyError, ValueError):
                self._selector.unregister(conn._fd)
        self._by_fd.pop(conn._fd, None)
        conn._interest = 0
        conn._fd = -1
        with self._lock:
            conn._out = None
            conn._backlog = conn._sent = 0
        with contextlib.suppress(OSError):
            conn._sock.close()
        conn._splitter = conn._feed = None
        self._hooks.closed(conn, error)

    # --- time -------------------------------------------------------------------------------------

    def _set_deadline(self, conn: MessageConnection, deadline: float) -> None:
        conn._deadline = deadline
        if deadline < self._next_scan:
            self._next_scan = deadline

    def _note_arrival(self, conn: MessageConnection) -> None:
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

    def _scan(self) -> None:
        """Look at all deadlines."""
        self._next_scan = inf
        for conn in list(self._by_fd.values()):
            if conn._deadline and conn._deadline <= self.clock:
                try:
                    self._on_deadline(conn)
                except BaseException as error:
                    self._hooks.failed(conn, error)
                    self._close(conn, error)
            if conn._deadline and conn._phase != CLOSED:
                self._next_scan = min(self._next_scan, conn._deadline)
        self._next_scan = max(self._next_scan, self.clock + SCAN_PAUSE)

    def _on_deadline(self, conn: MessageConnection) -> None:
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
                _error_texts.message_took_too_long(
                    self._message_timeout,
                    splitter.pending,
                    splitter.stream_offset,
                    splitter.pending_header,
                ),
            )
        else:
            self._end(conn, _error_texts.idle_too_long(self._idle_timeout, splitter.stream_offset))

    # --- the end of the server --------------------------------------------------------------------

    def _stop_step(self) -> bool:
        """End what can be ended; return whether nothing is left."""
        self._listen(False)
        self._hooks.stop_listening()
        for conn in list(self._by_fd.values()):
            if self._aborting:
                self._reset(conn)
            elif conn._phase == OPEN:
                self._finish(conn, None)
        return not self._by_fd

    def _reset(self, conn: MessageConnection) -> None:
        with contextlib.suppress(OSError):
            conn._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(conn, conn._error)

    def _end_all(self) -> None:
        """Close everything, also where the loop ends by an exception."""
        self._stopping = True
        with contextlib.suppress(OSError, KeyError, ValueError):
            self._listen(False)
        self._hooks.stop_listening()
        for conn in list(self._by_fd.values()):
            self._reset(conn)
        self._selector.close()
