# cython: language_level=3
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, auto_pickle=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""One thread that serves the messages of many connections, compiled, with epoll.

See `_messages_loop_py`, its twin. Change both in the same commit. Here no Python code runs between
the kernel and the handler.

Threads
    The loop holds the GIL except in epoll_wait(). Code between two calls that can run Python code
    is therefore not interrupted by other threads, and needs no lock.

Errors
    If no memory is left for a traceback, an `except` clause of Cython drops a reference to nothing
    and crashes. This module has no such clause: a step that may fail is called through a pointer to
    a function that does not raise, and `_take_error` takes its exception. (`finally` is safe.)

Memory
    Every receive writes into memory that an object of this module or the splitter owns, and whose
    size is given to the kernel. A connection that a handler closes stays alive while a method of
    the loop works on it, because the method's arguments hold it.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.math cimport INFINITY, ceil
from libc.stdint cimport uint32_t

from .._module_state cimport remember_module_state

from collections import deque
from types import GenericAlias

from .. import _error_texts, errors
from .._splitter import Splitter

__all__ = ["MessageConnection", "MessageLoop"]

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <sys/epoll.h>
    #include <time.h>
    #include <unistd.h>
    static double framecodec_now(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
    static Py_ssize_t framecodec_send_parts(int fd, struct iovec *parts, size_t count)
    {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    """
    struct iovec:
        void* iov_base
        size_t iov_len
    Py_ssize_t _send_parts "framecodec_send_parts" (int fd, iovec* parts, size_t count) nogil
    double _now "framecodec_now" () noexcept nogil
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags) nogil
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event) nogil
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout) nogil
    const int EPOLL_CLOEXEC
    const int EPOLL_CTL_ADD
    const int EPOLL_CTL_MOD
    const int EPOLL_CTL_DEL
    const uint32_t EPOLLIN
    const uint32_t EPOLLOUT
    Py_ssize_t _recv "recv" (int fd, void* buffer, size_t size, int flags) nogil
    Py_ssize_t _send "send" (int fd, const void* buffer, size_t size, int flags) nogil
    int _shutdown "shutdown" (int fd, int how) nogil
    int _close_fd "close" (int fd) nogil
    const int MSG_DONTWAIT
    const int MSG_NOSIGNAL
    const int MSG_PEEK
    const int SHUT_WR

cdef extern from "Python.h":
    Py_buffer* PyMemoryView_GET_BUFFER(object) noexcept
    void PyErr_Fetch(PyObject** type, PyObject** value, PyObject** traceback) noexcept
    void PyErr_NormalizeException(
        PyObject** type, PyObject** value, PyObject** traceback
    ) noexcept
    int PyException_SetTraceback(PyObject* error, PyObject* traceback) noexcept
    PyObject* _set_from_errno "PyErr_SetFromErrno" (PyObject* type) noexcept
    PyObject* PyExc_OSError

cdef enum:
    C_READ_SIZE = 131072
    C_LARGE = 65536
    C_COUNTED_SIZE = 4096  # a receive of as many bytes is a step of the clock
    C_GATHERED_SIZE = 131072
    C_LAST_READS = 8
    LARGE_REPLY = 16384  # a reply that is not copied into its frame
    FEW_REPLIES = 16  # where large replies are looked for
    MAX_PARTS = 64  # of one system call
    KEPT_SIZE = 4194304
    MAX_EVENTS = 256
    OPEN = 0
    FINISHING = 1
    LINGERING = 2
    CLOSED = 3

cdef extern from *:
    """
    #define FRAMECODEC_LONGEST_STEP 0.1
    #define FRAMECODEC_LINGER_TIME 2.0
    #define FRAMECODEC_FINISH_TIME 30.0
    #define FRAMECODEC_SCAN_PAUSE 0.02
    """
    const double LONGEST_STEP "FRAMECODEC_LONGEST_STEP"
    const double LINGER_TIME "FRAMECODEC_LINGER_TIME"
    const double FINISH_TIME "FRAMECODEC_FINISH_TIME"
    const double SCAN_PAUSE "FRAMECODEC_SCAN_PAUSE"


cdef void _keep_freed_memory() noexcept:
    """Let the allocator keep some MiB that are freed.

    At first glibc gives memory back where 128 KiB at the heap's end are free, which the messages of
    one receive are: then each receive faults its pages in again (a fifth of the time for messages
    of 64 KiB). It adapts when a larger block is freed.
    """
    PyMem_RawFree(PyMem_RawMalloc(KEPT_SIZE))


cdef inline bint _would_block() noexcept:
    return errno == EAGAIN or errno == EINTR  # on Linux EWOULDBLOCK is EAGAIN


cdef object _take_error():
    """Return the exception that is set, with its traceback, and clear it."""
    cdef PyObject* kind = NULL
    cdef PyObject* value = NULL
    cdef PyObject* traceback = NULL
    PyErr_Fetch(&kind, &value, &traceback)
    PyErr_NormalizeException(&kind, &value, &traceback)
    if traceback != NULL:
        PyException_SetTraceback(value, traceback)
    error = <object>value
    Py_XDECREF(kind)
    Py_XDECREF(value)
    Py_XDECREF(traceback)
    return error


cdef object _os_error():
    """Return the system's last error as an exception."""
    _set_from_errno(PyExc_OSError)
    return _take_error()


@cython.final
@cython.auto_pickle(False)
cdef class _Received:
    """The memory that is received into: its first bytes, as a readable buffer."""

    cdef char* memory
    cdef Py_ssize_t size

    def __cinit__(self):
        self.memory = <char*>PyMem_Malloc(C_READ_SIZE)
        if self.memory == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.memory)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory, self.size, True, flags)


cdef class MessageLoop
cdef class MessageConnection

# A step that can fail, called where its exception is taken.
ctypedef int (*_Step)(MessageLoop, MessageConnection) noexcept


cdef int _serve_step(MessageLoop self, MessageConnection conn) except -1:
    """Do what a socket is ready for. (A descriptor that was closed and opened again in this turn is
    perhaps not ready: then nothing happens.)"""
    if conn._phase == LINGERING:
        self._discard(conn)
    elif conn._backlog:
        self._flush(conn)
    elif conn._phase == OPEN and not conn._close_requested:
        self._receive(conn)
    return 0


cdef int _turn_step(MessageLoop self, MessageConnection conn) except -1:
    return self._turn()


cdef int _no_memory_step(MessageLoop self, MessageConnection conn) except -1:
    error, self._failure = self._failure, None
    self._hooks.no_memory(error)
    return 0


cdef int _look_step(MessageLoop self, MessageConnection conn) except -1:
    self._look_at(conn)
    return 0


cdef int _deadline_step(MessageLoop self, MessageConnection conn) except -1:
    self._on_deadline(conn)
    return 0


cdef int _parse_step(MessageLoop self, MessageConnection conn) except -1:
    """Give what was received to the splitter."""
    if self._memory is None:
        self._messages = conn._feed(self._received)
    else:
        self._memory = None
        self._messages = conn._splitter.buffer_updated(self._received.size)
    return 0


cdef int _eof_step(MessageLoop self, MessageConnection conn) except -1:
    conn._splitter.feed_eof()
    return 0


cdef int _handle_step(MessageLoop self, MessageConnection conn) except -1:
    """Call the handler with `_messages`; its replies are encoded into `_frames`."""
    cdef list messages = self._messages
    self._messages = None
    replies = self._handle(conn, messages)
    if replies is not None:
        if not isinstance(replies, (list, tuple)):
            replies = list(replies)
        if replies and not self._queue_large(conn, replies):
            self._frames = self._encode_for(conn, replies)
    return 0


@cython.final
@cython.no_gc_clear
cdef class MessageConnection:
    """One client of `serve_messages`.

    Attributes:
        peer: The client's address, as ``socket.accept`` gives it.
        state: For the program; None at first.
    """

    __class_getitem__ = classmethod(GenericAlias)

    cdef object __weakref__
    cdef public object peer
    cdef public object state
    cdef MessageLoop _loop
    cdef object _sock
    cdef int _fd
    cdef object _splitter
    cdef object _feed
    cdef int _phase
    cdef uint32_t _interest
    cdef bint _paused
    cdef bint _saw_eof
    cdef object _out  # a deque of frames that are unsent, or None
    cdef Py_ssize_t _sent  # bytes of the first of them that have left
    cdef Py_ssize_t _backlog  # bytes of them that are unsent
    cdef Py_ssize_t _needed  # bytes that the pending message misses, where it is a large one
    cdef bint _dirty  # is in the loop's list
    cdef bint _close_requested
    cdef bint _has_plain_splitter  # the compiled one, whose memory may be received into
    cdef object _failure  # for which another thread ends it
    cdef object _error  # for which it ended
    cdef double _deadline  # by the loop's clock; 0: none
    cdef double _time_left  # until the deadline, while it is paused
    cdef object _message_offset  # of the pending message

    def __cinit__(self, MessageLoop loop not None, sock, peer):
        self.peer = peer
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._message_offset = -1

    def send(self, message, /):
        """Send one message. The call never waits; any thread may make it.

        Args:
            message: As for `FrameSocket.send`.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was taken.
            ConnectionAbortedError: The connection has ended, or `close` was called.
        """
        self._loop._put(self, self._loop._encode_for(self, [message]))

    def send_many(self, messages, /):
        """Send many messages. The call never waits; any thread may make it.

        Args:
            messages: As for `send`; all are checked before anything is sent.

        Raises:
            As `send`.
        """
        self._loop._put(self, self._loop._encode_for(self, messages))

    def close(self):
        """End the connection: it receives no more, and closes when all is sent.

        The handler is not called with this connection again. Any thread may make this call.
        """
        self._close_requested = True
        if self._phase == OPEN:
            self._loop._mark(self)

    @property
    def closed(self):
        """Whether it receives no more."""
        return self._phase != OPEN or self._close_requested

    @property
    def pending_send(self):
        """Bytes of accepted messages that have not left."""
        return self._backlog

    def fileno(self):
        """Return the descriptor, or -1 where it is closed."""
        return self._fd

    def __repr__(self):
        phase = ("open", "finishing", "lingering", "closed")[self._phase]
        return f"<MessageConnection {self.peer!r}, {phase}>"

    def __reduce__(self):
        raise _error_texts.not_copied(self)


@cython.final
@cython.no_gc_clear
cdef class MessageLoop:
    """The loop of a server.

    See `framecodec.serving._messages_loop_py.MessageLoop`, its twin.
    """

    cdef object _hooks
    cdef object _handle
    cdef object _encode_many
    cdef object _frame_parts
    cdef object _listener
    cdef int _listener_fd
    cdef object _wakeup
    cdef int _wakeup_fd
    cdef int _wakeup_sender_fd
    cdef Py_ssize_t _max_connections  # -1: no limit
    cdef double _message_timeout
    cdef double _idle_timeout
    cdef bint _limited
    cdef Py_ssize_t _limit
    cdef bint _observed
    cdef _Received _received
    cdef object _memory  # of a message, which was received into instead; or None
    cdef list _messages  # of the receive that is being handled
    cdef bytes _frames  # of its replies
    cdef object _failure  # of a turn
    cdef dict _by_fd
    cdef int _epoll
    cdef list _dirty
    cdef bint _check_all
    cdef bint _woken
    cdef unsigned long _thread_id
    cdef MessageConnection _handling
    cdef bint _stopping
    cdef bint _aborting
    cdef bint _listening
    cdef double _accept_at  # by the clock: when accepting resumes after a fault
    cdef double _next_scan
    cdef double _step_began
    cdef readonly double clock

    def __cinit__(
        self,
        hooks,
        handle,
        codec,
        listener,
        wakeup,
        *,
        max_connections,
        message_timeout,
        idle_timeout,
        limit,
        observed,
    ):
        self._epoll = -1
        self._hooks = hooks
        self._handle = handle
        self._encode_many = codec.encode_many
        self._frame_parts = codec.frame_parts
        self._listener = listener
        self._listener_fd = listener.fileno()
        self._wakeup = wakeup
        self._wakeup_fd = wakeup[0].fileno()
        self._wakeup_sender_fd = wakeup[1].fileno()
        self._max_connections = -1 if max_connections is None else max_connections
        self._message_timeout = message_timeout or 0.0
        self._idle_timeout = idle_timeout or 0.0
        self._limited = bool(message_timeout or idle_timeout)
        self._limit = limit
        self._observed = observed
        self._received = _Received()
        self._by_fd = {}
        self._dirty = []
        self._next_scan = INFINITY
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll < 0:
            PyErr_SetFromErrno(OSError)
        self._control(EPOLL_CTL_ADD, self._wakeup_fd, EPOLLIN)

    def __dealloc__(self):
        if self._epoll >= 0:
            _close_fd(self._epoll)

    cdef int _control(self, int operation, int fd, uint32_t interest) except -1:
        cdef epoll_event event
        event.events = interest
        event.data.fd = fd
        if epoll_ctl(self._epoll, operation, fd, &event) < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    # --- what any thread may call -----------------------------------------------------------------

    def connections(self):
        """Return the open connections."""
        cdef MessageConnection conn
        cdef list found = list(self._by_fd.values())
        return [
            conn for conn in found if conn._phase == OPEN and not conn._close_requested
        ]

    def broadcast(self, bytes frame not None):
        """Send a frame to all open connections; return how many took it."""
        cdef MessageConnection conn
        cdef Py_ssize_t count = 0
        for conn in self.connections():
            if conn._backlog <= self._limit:
                if self._append(conn, frame):
                    count += 1
                    if self._observed:
                        self._hooks.sent(conn, len(frame))
            elif conn._failure is None:
                conn._failure = ConnectionAbortedError(
                    f"{conn._backlog} bytes of messages wait for the client, the limit is"
                    f" {self._limit}; it does not receive"
                )
                self._mark(conn)
        return count

    def stop(self, bint abort):
        """End the loop: at once with `abort`, else when all connections have ended."""
        self._stopping = True
        self._aborting = self._aborting or abort
        self._wake()

    def pause_accepting(self, double seconds):
        """Accept no connection for that long; for the loop's thread."""
        self._accept_at = self.clock + seconds
        self._listen(False)

    cdef int _put(self, MessageConnection conn, bytes frames) except -1:
        if not self._append(conn, frames):
            raise _error_texts.connection_closed()
        return 0

    cdef int _append(self, MessageConnection conn, bytes frames) except -1:
        """Keep frames for the client; return whether the connection took them."""
        if conn._phase != OPEN or conn._close_requested:
            return False
        if PyBytes_GET_SIZE(frames):
            self._queue(conn, frames)
            self._mark(conn)
        return True

    cdef int _queue(self, MessageConnection conn, bytes frames) except -1:
        if conn._out is None:
            out = deque()  # an allocation: finalizers may queue something meanwhile
            if conn._out is None:
                conn._out = out
        conn._out.append(frames)
        conn._backlog += PyBytes_GET_SIZE(frames)
        return 0

    cdef int _mark(self, MessageConnection conn) except -1:
        """Let the loop look at a connection."""
        if not conn._dirty and conn is not self._handling:
            self._dirty.append(conn)
            conn._dirty = True
            self._wake()
        return 0

    cdef void _wake(self) noexcept:
        if self._woken or PyThread_get_thread_ident() == self._thread_id:
            return
        if self._wakeup_sender_fd >= 0:
            self._woken = True
            _send(self._wakeup_sender_fd, b"\0", 1, MSG_DONTWAIT | MSG_NOSIGNAL)

    cdef bytes _encode_for(self, MessageConnection conn, messages):
        if self._observed:
            return b"".join(self._hooks.frames(conn, messages))
        return self._encode_many(messages)

    # --- the loop's thread ------------------------------------------------------------------------

    def run(self):
        """Serve until `stop`."""
        cdef int ended
        self._thread_id = PyThread_get_thread_ident()
        _keep_freed_memory()
        self._step_began = _now()
        try:
            while True:
                ended = (<_Step>&_turn_step)(self, None)
                if ended == -1:
                    error = _take_error()
                    if not isinstance(error, MemoryError):
                        raise error
                    self._check_all = True  # the turn is not complete
                    self._next_scan = 0.0
                    self._failure = error
                    error = None
                    if (<_Step>&_no_memory_step)(self, None) == -1:
                        _take_error()  # pragma: no cover (there was no memory to say so, either)
                elif ended:
                    return
        finally:
            self._end_all()

    cdef int _turn(self) except -1:
        """Wait once and serve what is ready; return whether the loop has ended."""
        cdef epoll_event[MAX_EVENTS] events
        cdef double waiting_since, now
        cdef int count, i, milliseconds
        self._listen(self._may_accept())
        milliseconds = self._milliseconds_to_wait()
        waiting_since = _now()
        with nogil:
            count = epoll_wait(self._epoll, events, MAX_EVENTS, milliseconds)
        now = _now()
        if count < 0:
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)  # pragma: no cover (the descriptor is the loop's own)
            count = 0
        self.clock += now - waiting_since + min(waiting_since - self._step_began, LONGEST_STEP)
        self._step_began = now
        for i in range(count):
            self._on_event(events[i].data.fd)
        if self._dirty or self._check_all:
            self._look_at_dirty()
        if self.clock >= self._next_scan:
            self._scan()
        return self._stopping and self._stop_step()

    cdef int _milliseconds_to_wait(self):
        cdef double until = self._next_scan
        if self._dirty or self._check_all:
            return 0
        if self._accept_at and not self._stopping:
            until = min(until, self._accept_at)
        if until == INFINITY:
            return -1
        return <int>min(ceil(max(0.0, until - self.clock) * 1e3), 1e9)

    cdef int _on_event(self, int fd) except -1:
        conn = self._by_fd.get(fd)
        if conn is not None:
            self._guard(<_Step>&_serve_step, <MessageConnection>conn)
        elif fd == self._wakeup_fd:
            _recv(fd, self._received.memory, C_READ_SIZE, MSG_DONTWAIT)
            self._woken = False
        elif fd == self._listener_fd:
            self._accept()
        return 0

    cdef int _guard(self, _Step step, MessageConnection conn) except -1:
        """Take a step for a connection, and close it where the step fails: without memory, or by an
        exception that another thread has set."""
        if step(self, conn) == -1:
            error = _take_error()
            self._handling = None
            self._hooks.failed(conn, error)
            self._close(conn, error)
        return 0

    cdef int _accept(self) except -1:
        cdef Py_ssize_t count = 64
        if self._max_connections >= 0:
            count = min(count, self._max_connections - len(self._by_fd))
        for sock, peer in self._hooks.accept(count):
            self._add(sock, peer)
        return 0

    cdef bint _may_accept(self):
        if self._accept_at:
            if self.clock < self._accept_at:
                return False
            self._accept_at = 0.0
        if self._max_connections >= 0 and len(self._by_fd) >= self._max_connections:
            return False
        return not self._stopping

    cdef int _listen(self, bint wanted) except -1:
        if wanted == self._listening:
            return 0
        self._listening = wanted
        self._control(EPOLL_CTL_ADD if wanted else EPOLL_CTL_DEL, self._listener_fd, EPOLLIN)
        return 0

    cdef int _add(self, sock, peer) except -1:
        cdef MessageConnection conn
        cdef bint added = False
        try:
            conn = MessageConnection.__new__(MessageConnection, self, sock, peer)
            conn._splitter = self._hooks.splitter(conn, sock)
            conn._feed = conn._splitter.feed
            conn._has_plain_splitter = type(conn._splitter) is Splitter
            self._watch(conn, EPOLLIN)
            self._by_fd[conn._fd] = conn
            added = True
        finally:
            if not added:
                self._hooks.close_socket(sock)
        if self._idle_timeout:
            self._set_deadline(conn, self.clock + self._idle_timeout)
        self._hooks.opened(conn)
        return 0

    cdef int _watch(self, MessageConnection conn, uint32_t interest) except -1:
        if interest != conn._interest:
            self._control(
                EPOLL_CTL_MOD if conn._interest else EPOLL_CTL_ADD, conn._fd, interest
            )
            conn._interest = interest
        return 0

    # --- bytes in ---------------------------------------------------------------------------------

    cdef int _receive(self, MessageConnection conn) except -1:
        """Receive once; return whether bytes have arrived."""
        cdef Py_ssize_t count, needed
        cdef Py_buffer* buffer
        cdef bint has_messages
        cdef _Received received = self._received
        if conn._needed and conn._has_plain_splitter:
            self._memory = conn._splitter.get_room(C_READ_SIZE)
            buffer = PyMemoryView_GET_BUFFER(self._memory)
            count = _recv(conn._fd, buffer.buf, buffer.len, MSG_DONTWAIT)
        else:
            self._memory = None
            count = _recv(conn._fd, received.memory, C_READ_SIZE, MSG_DONTWAIT)
        if count <= 0:
            self._memory = None
            if count == 0:
                self._on_eof(conn)
            elif not _would_block():
                self._end(conn, _os_error())
            return False
        received.size = count
        if (<_Step>&_parse_step)(self, conn) == -1:
            return self._on_parse_error(conn)
        if self._limited:
            self._note_arrival(conn)
        has_messages = bool(self._messages)
        if has_messages:
            self._deliver(conn)
            if conn._phase != OPEN:
                return True
        if count >= C_COUNTED_SIZE:
            self._count_time()
        failure = conn._splitter.error
        if failure is not None:
            self._end(conn, failure)
        elif count >= C_LARGE or not has_messages:
            needed = conn._splitter.bytes_needed
            conn._needed = needed if needed >= C_LARGE else 0
        else:
            conn._needed = 0
        return True

    cdef int _on_parse_error(self, MessageConnection conn) except -1:
        error = _take_error()
        self._memory = None
        if not isinstance(error, errors.FrameError):
            raise error
        self._end(conn, error)
        return True

    cdef int _deliver(self, MessageConnection conn) except -1:
        """Call the handler with the messages, and send its replies."""
        cdef bytes frames
        self._handling = conn
        self._frames = None
        if (<_Step>&_handle_step)(self, conn) == -1:
            error = _take_error()
            self._handling = None
            self._hooks.handler_failed(conn, error)
            self._finish(conn, error)
            return 0
        self._handling = None
        frames = self._frames
        self._frames = None
        if conn._close_requested or conn._failure is not None or conn._out is not None:
            if frames is not None:
                self._queue(conn, frames)
            self._look_at(conn)
        elif frames is not None:
            self._send(conn, frames)
        return 0

    cdef int _send(self, MessageConnection conn, bytes frames) except -1:
        """Send where nothing is unsent; keep the rest."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frames)
        cdef Py_ssize_t count = _send(
            conn._fd, PyBytes_AS_STRING(frames), size, MSG_DONTWAIT | MSG_NOSIGNAL
        )
        if count == size:
            return 0
        if count < 0:
            if not _would_block():
                self._end(conn, _os_error())
                return 0
            count = 0
        out = deque()
        out.append(frames)
        if conn._out is not None:  # pragma: no cover (a finalizer has sent meanwhile)
            out.extend(conn._out)  # pragma: no cover (a finalizer has sent meanwhile)
        conn._out = out
        conn._sent = count
        conn._backlog += size - count
        self._pause(conn)
        return 0

    cdef int _queue_large(self, MessageConnection conn, replies) except -1:
        """Queue few replies that are large, without a copy; return whether that was done."""
        cdef Py_ssize_t size = 0
        if self._observed or len(replies) > FEW_REPLIES:
            return False
        for reply in replies:
            if type(reply) is not bytes:
                return False
            size += PyBytes_GET_SIZE(<bytes>reply)
        if size < LARGE_REPLY * len(replies):
            return False
        cdef list parts = []
        for reply in replies:
            parts += self._frame_parts(reply)
        # All are encoded: queue all.
        for part in parts:
            self._queue(conn, part if type(part) is bytes else bytes(part))
        return True

    cdef int _on_eof(self, MessageConnection conn) except -1:
        conn._saw_eof = True
        if (<_Step>&_eof_step)(self, conn) == -1:
            self._on_parse_error(conn)
        else:
            self._finish(conn, None)
        return 0

    cdef int _discard(self, MessageConnection conn) except -1:
        cdef Py_ssize_t count = _recv(
            conn._fd, self._received.memory, C_READ_SIZE, MSG_DONTWAIT
        )
        if count > 0 or (count < 0 and _would_block()):
            return 0
        self._close(conn, conn._error)
        return 0

    # --- bytes out --------------------------------------------------------------------------------

    cdef int _flush(self, MessageConnection conn) except -1:
        """Send what is unsent, as far as the kernel takes it."""
        cdef iovec[MAX_PARTS] parts
        cdef list sending
        cdef Py_ssize_t count, i
        while conn._backlog:
            sending = self._gather(conn)
            for i in range(len(sending)):
                parts[i].iov_base = PyBytes_AS_STRING(<bytes>sending[i])
                parts[i].iov_len = PyBytes_GET_SIZE(<bytes>sending[i])
            parts[0].iov_base = <char*>parts[0].iov_base + conn._sent
            parts[0].iov_len -= conn._sent
            count = _send_parts(conn._fd, parts, len(sending))
            if count < 0:
                if _would_block():
                    self._pause(conn)
                else:
                    self._end(conn, _os_error())
                return 0
            conn._backlog -= count
            conn._sent += count
            for part in sending:
                if conn._sent < PyBytes_GET_SIZE(<bytes>part):
                    break
                conn._sent -= PyBytes_GET_SIZE(<bytes>part)
                conn._out.popleft()
        conn._out = None
        if conn._phase == OPEN:
            self._resume(conn)
        elif conn._phase == FINISHING:
            self._all_sent(conn)
        return 0

    cdef list _gather(self, MessageConnection conn):
        """Return the first unsent buffers, at most MAX_PARTS, after small ones were joined."""
        cdef list parts = []
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t count = len(conn._out)
        cdef bint small = conn._backlog < LARGE_REPLY // 2 * count
        for part in conn._out:
            parts.append(part)
            size += PyBytes_GET_SIZE(<bytes>part)
            if size >= C_GATHERED_SIZE if small else len(parts) == MAX_PARTS:
                break
        if not small or conn._sent or len(parts) == 1:
            return parts[:MAX_PARTS]
        joined = b"".join(parts)
        # Nothing can fail any more.
        for _ in range(len(parts)):
            conn._out.popleft()
        conn._out.appendleft(joined)
        return [joined]

    cdef int _pause(self, MessageConnection conn) except -1:
        """Wait until the kernel takes more, and do not read meanwhile."""
        if conn._phase == OPEN and not conn._paused:
            conn._paused = True
            conn._time_left = conn._deadline - self.clock if conn._deadline else 0.0
            conn._deadline = 0.0
        self._watch(conn, EPOLLOUT)
        return 0

    cdef int _resume(self, MessageConnection conn) except -1:
        if conn._paused:
            conn._paused = False
            if conn._time_left:
                self._set_deadline(conn, self.clock + conn._time_left)
        self._watch(conn, EPOLLIN)
        return 0

    # --- requests of the handler and of other threads ---------------------------------------------

    cdef int _look_at_dirty(self) except -1:
        cdef MessageConnection conn
        cdef list dirty = list(self._by_fd.values()) if self._check_all else self._dirty
        self._dirty = []
        self._check_all = False
        for conn in dirty:
            conn._dirty = False
        for conn in dirty:
            self._guard(<_Step>&_look_step, conn)
        return 0

    cdef int _look_at(self, MessageConnection conn) except -1:
        if conn._phase == CLOSED:
            return 0
        if conn._failure is not None and conn._phase == OPEN:
            self._end(conn, conn._failure)
        elif conn._close_requested and conn._phase == OPEN:
            self._finish(conn, None)
        elif conn._backlog and conn._interest != EPOLLOUT:
            self._flush(conn)
        return 0

    # --- the end of a connection ------------------------------------------------------------------

    cdef int _end(self, MessageConnection conn, error) except -1:
        """End a connection for its client's fault."""
        if conn._phase == OPEN:
            self._hooks.fault(conn, error)
        if isinstance(error, OSError) and not isinstance(error, errors.FrameError):
            self._close(conn, error)
        else:
            self._finish(conn, error)
        return 0

    cdef int _finish(self, MessageConnection conn, error) except -1:
        """Receive no more; close when all is sent. The connection is open."""
        conn._phase = FINISHING
        conn._error = error
        self._set_deadline(conn, self.clock + FINISH_TIME)
        if conn._backlog:
            self._flush(conn)
        else:
            self._all_sent(conn)
        return 0

    cdef int _all_sent(self, MessageConnection conn) except -1:
        if conn._saw_eof or (conn._error is None and not self._has_unread(conn)):
            self._close(conn, conn._error)
            return 0
        conn._phase = LINGERING
        self._set_deadline(conn, self.clock + LINGER_TIME)
        if _shutdown(conn._fd, SHUT_WR) < 0:
            self._close(conn, conn._error)
        else:
            self._watch(conn, EPOLLIN)
        return 0

    cdef bint _has_unread(self, MessageConnection conn):
        cdef char byte
        return _recv(conn._fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0

    cdef int _close(self, MessageConnection conn, error) except -1:
        cdef epoll_event event
        if conn._phase == CLOSED:
            return 0
        conn._phase = CLOSED
        conn._error = error
        epoll_ctl(self._epoll, EPOLL_CTL_DEL, conn._fd, &event)
        self._by_fd.pop(conn._fd, None)
        conn._fd = -1
        conn._out = None
        conn._backlog = conn._sent = 0
        self._hooks.close_socket(conn._sock)
        conn._splitter = conn._feed = None
        self._hooks.closed(conn, error)
        return 0

    # --- time -------------------------------------------------------------------------------------

    cdef void _count_time(self) noexcept:
        """End a step of the clock."""
        cdef double now = _now()
        self.clock += min(now - self._step_began, LONGEST_STEP)
        self._step_began = now

    cdef void _set_deadline(self, MessageConnection conn, double deadline) noexcept:
        conn._deadline = deadline
        if deadline < self._next_scan:
            self._next_scan = deadline

    cdef int _note_arrival(self, MessageConnection conn) except -1:
        """Start the time of a message, or of the quiet after one."""
        cdef double timeout
        if conn._splitter.pending:
            offset = conn._splitter.stream_offset
            if offset != conn._message_offset:
                conn._message_offset = offset
                timeout = self._message_timeout
                self._set_deadline(conn, self.clock + timeout if timeout else INFINITY)
        else:
            conn._message_offset = -1
            timeout = self._idle_timeout
            self._set_deadline(conn, self.clock + timeout if timeout else INFINITY)
        return 0

    cdef int _scan(self) except -1:
        """Look at all deadlines."""
        cdef MessageConnection conn
        self._next_scan = INFINITY
        for conn in list(self._by_fd.values()):
            if conn._deadline and conn._deadline <= self.clock:
                self._guard(<_Step>&_deadline_step, conn)
            if conn._deadline and conn._phase != CLOSED:
                self._next_scan = min(self._next_scan, conn._deadline)
        self._next_scan = max(self._next_scan, self.clock + SCAN_PAUSE)
        return 0

    cdef int _on_deadline(self, MessageConnection conn) except -1:
        if conn._phase != OPEN:
            self._close(conn, conn._error)
            return 0
        if conn._close_requested:
            return 0  # pragma: no cover (another thread has closed it since the turn began)
        # What the kernel holds is read first.
        for _ in range(C_LAST_READS):
            if not self._receive(conn):
                break
            if conn._phase != OPEN or not conn._deadline or conn._deadline > self.clock:
                return 0
        if conn._phase != OPEN or conn._close_requested:
            return 0
        splitter = conn._splitter
        if splitter.pending:
            self._end(
                conn,
                _error_texts.message_too_slow(self._message_timeout, splitter._pending_frame()),
            )
        else:
            self._end(conn, _error_texts.idle_too_long(self._idle_timeout, splitter.stream_offset))
        return 0

    # --- the end of the server --------------------------------------------------------------------

    cdef bint _stop_step(self) except -1:
        """End what can be ended; return whether nothing is left."""
        cdef MessageConnection conn
        self._listen(False)
        self._hooks.stop_listening()
        self._listener_fd = -1
        for conn in list(self._by_fd.values()):
            if self._aborting:
                self._reset(conn)
            elif conn._phase == OPEN:
                self._finish(conn, None)
        return not self._by_fd

    cdef int _reset(self, MessageConnection conn) except -1:
        self._hooks.reset_on_close(conn._sock)
        self._close(conn, conn._error)
        return 0

    cdef int _end_all(self) except -1:
        """Close everything, also where the loop ends by an exception."""
        cdef MessageConnection conn
        self._stopping = True
        self._wakeup_sender_fd = -1
        self._hooks.stop_listening()  # which also takes it out of the set of epoll
        self._listening = False
        for conn in list(self._by_fd.values()):
            self._reset(conn)
        if self._epoll >= 0:
            _close_fd(self._epoll)
            self._epoll = -1
        return 0


remember_module_state()
