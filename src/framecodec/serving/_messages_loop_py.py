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
    `clock` counts the seconds in which the loop waited for clients, and of each step of its work at
    most LONGEST_STEP: time that a slow handler takes is not the clients'. A step ends with each
    receive of COUNTED_SIZE and with each turn, so that the time of many clients that flood counts
    for those that are silent.

The compiled twin is `_messages_loop.pyx`. Change both in the same commit.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from math import inf
from time import monotonic
from typing import Any, final

from .. import _error_texts
from .._locks import call_locked
from ._message_steps_py import (
    CLOSED,
    LINGERING,
    LONGEST_STEP,
    OPEN,
    READ,
    READ_SIZE,
    MessageConnection,
    MessageSteps,
)

__all__ = ["MessageConnection", "MessageLoop"]

SCAN_PAUSE = 0.02  # seconds between two looks at all deadlines, at least
LONGEST_WAIT = 3600.0  # seconds; a selector refuses much more


@final
class MessageLoop(MessageSteps):
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
        self._by_fd: dict[int, MessageConnection[Any]] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.RLock()
        self._dirty: list[MessageConnection[Any]] = []
        self._check_all = False
        self._woken = False
        self._thread_id = 0
        self._step_began = 0.0
        self._handling: MessageConnection | None = None
        self._stopping = False
        self._aborting = False
        self._listening = False
        self._accept_at = 0.0  # by the clock: when accepting resumes after a fault
        self.clock = 0.0
        self._next_scan = inf
        self._selector.register(wakeup[0], READ, None)

    # --- what any thread may call -----------------------------------------------------------------

    def connections(self) -> list[MessageConnection[Any]]:
        """Return the open connections."""
        return [conn for conn in list(self._by_fd.values()) if not conn.closed]

    def broadcast(self, frame: bytes) -> int:
        """Send a frame to all open connections; return how many took it."""
        count = 0
        for conn in self.connections():
            if call_locked(self._lock, self._offer, conn, frame):
                count += 1
                if self._observed:
                    self._hooks.sent(conn, len(frame))
        return count

    def _offer(self, conn: MessageConnection[Any], frame: bytes) -> bool:
        """Append a frame, unless too many bytes are unsent: then the connection fails."""
        backlog = conn._backlog
        if backlog <= self._limit:
            return self._append(conn, frame)
        if conn._failure is None:
            conn._failure = ConnectionAbortedError(
                f"{backlog} bytes of messages wait for the client, the limit is"
                f" {self._limit}; it does not receive"
            )
            self._mark(conn)
        return False

    def stop(self, abort: bool) -> None:
        """End the loop: at once with `abort`, else when all connections have ended."""
        self._stopping = True
        self._aborting = self._aborting or abort
        self._wake()

    def pause_accepting(self, seconds: float) -> None:
        """Accept no connection for that long; for the loop's thread."""
        self._accept_at = self.clock + seconds
        self._listen(False)

    def _put(self, conn: MessageConnection[Any], frames: bytes) -> None:
        if not call_locked(self._lock, self._append, conn, frames):
            raise _error_texts.connection_closed()

    def _append(self, conn: MessageConnection[Any], frames: bytes) -> bool:
        if conn.closed:
            return False
        if frames:
            self._queue(conn, frames)
            self._mark(conn)
        return True

    def _request_close(self, conn: MessageConnection[Any]) -> None:
        call_locked(self._lock, self._mark_to_close, conn)

    def _mark_to_close(self, conn: MessageConnection[Any]) -> None:
        conn._close_requested = True
        if conn._phase == OPEN:
            self._mark(conn)

    def _mark(self, conn: MessageConnection[Any]) -> None:
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

    # --- the loop's thread ------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`."""
        self._thread_id = threading.get_ident()
        self._step_began = monotonic()
        try:
            while True:
                try:
                    if self._turn():
                        return
                except MemoryError as error:
                    self._check_all = True  # the turn is not complete
                    self._next_scan = 0.0
                    try:  # noqa: SIM105 (suppress() needs memory)
                        self._hooks.no_memory(error)
                    except MemoryError:
                        pass
        finally:
            self._end_all()

    def _turn(self) -> bool:
        """Wait once and serve what is ready; return whether the loop has ended."""
        self._listen(self._may_accept())
        wait = self._seconds_to_wait()
        waiting_since = monotonic()
        events = self._selector.select(wait)
        now = monotonic()
        self.clock += now - waiting_since + min(waiting_since - self._step_began, LONGEST_STEP)
        self._step_began = now
        for key, mask in events:
            self._on_event(key.fd, key.data, mask)
        if self._dirty or self._check_all:
            self._look_at_dirty()
        if self.clock >= self._next_scan:
            self._scan()
        return self._stopping and self._stop_step()

    def _seconds_to_wait(self) -> float | None:
        if self._dirty or self._check_all:
            return 0.0
        until = self._next_scan
        if self._accept_at and not self._stopping:
            until = min(until, self._accept_at)
        return None if until == inf else min(max(0.0, until - self.clock), LONGEST_WAIT)

    def _on_event(self, fd: int, conn: MessageConnection[Any] | None, mask: int) -> None:
        if fd == self._listener.fileno() and conn is None:
            self._accept()
        elif conn is None:
            with contextlib.suppress(OSError):
                self._wakeup[0].recv(64)
            # In this order: a byte that another thread sends from now on is not received here.
            self._woken = False
        else:  # if it was closed in this turn, there is nothing to serve
            self._serve(conn, mask)

    def _serve(self, conn: MessageConnection[Any], mask: int) -> None:
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
            self._hooks.close_socket(sock)
            raise
        self._by_fd[conn._fd] = conn
        if self._idle_timeout:
            self._set_deadline(conn, self.clock + self._idle_timeout)
        self._hooks.opened(conn)

    # --- requests of the handler and of other threads ---------------------------------------------

    def _take_dirty(self) -> list[MessageConnection[Any]]:
        """Return the connections to look at, which are marked no longer."""
        dirty = list(self._by_fd.values()) if self._check_all else self._dirty
        self._dirty = []
        self._check_all = False
        for conn in dirty:
            conn._dirty = False
        return dirty

    def _look_at_dirty(self) -> None:
        for conn in call_locked(self._lock, self._take_dirty):
            try:
                self._look_at(conn)
            except BaseException as error:
                self._hooks.failed(conn, error)
                self._close(conn, error)

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

    def _reset(self, conn: MessageConnection[Any]) -> None:
        self._hooks.reset_on_close(conn._sock)
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
