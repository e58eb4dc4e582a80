# cython: binding=False, embedsignature=True, embedsignature.format=clinic, auto_pickle=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The short way through a socket, compiled: one system call and nothing around it.

See `_socket_io_py`, its twin. What this one saves are calls of Python's methods around the system
call, a `memoryview` and numbers for each of them. No signal handler runs between the system call
and the end of a method.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_get_thread_ident,
    PyThread_release_lock,
    PyThread_type_lock,
)
from libc.errno cimport EINTR, errno
from libc.math cimport ceil

from time import monotonic

from . import _error_texts
from ._outbox import GATHER_SIZE
from ._splitter import Splitter

__all__ = ["Batch", "Guard", "HeldSignals", "Lock", "Receiver", "Sender"]

cdef extern from *:
    """
    #include <errno.h>
    #define framecodec_would_block() (errno == EAGAIN || errno == EWOULDBLOCK)
    #ifdef _WIN32
    /* Sockets are no descriptors there: everything goes the other way. */
    #define framecodec_recv(fd, buffer, size, flags) (errno = EAGAIN, (Py_ssize_t)-1)
    #define framecodec_send(fd, first, first_size, rest, rest_size, flags) \\
        (errno = EAGAIN, (Py_ssize_t)-1)
    #define framecodec_wait(fd, milliseconds) 1
    typedef int framecodec_signals;
    #define framecodec_hold(before) (*(before) = 0)
    #define framecodec_let_go(before) ((void)(before))
    #else
    #include <signal.h>
    #include <poll.h>
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #define framecodec_recv recv
    static Py_ssize_t framecodec_send(int fd, const void *first, Py_ssize_t first_size,
                                      const void *rest, Py_ssize_t rest_size, int flags)
    {
        if (!rest_size)
            return send(fd, first, first_size, flags);
        struct iovec parts[2] = {{(void *)first, first_size}, {(void *)rest, rest_size}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        return sendmsg(fd, &message, flags);
    }
    static int framecodec_wait(int fd, int milliseconds)
    {
        struct pollfd wanted = {.fd = fd, .events = POLLIN};
        return poll(&wanted, 1, milliseconds);
    }
    typedef sigset_t framecodec_signals;
    static void framecodec_hold(sigset_t *before)
    {
        sigset_t held;
        sigfillset(&held);
        /* Those of a program's own faults are never held. */
        sigdelset(&held, SIGSEGV);
        sigdelset(&held, SIGBUS);
        sigdelset(&held, SIGILL);
        sigdelset(&held, SIGFPE);
        sigdelset(&held, SIGABRT);
        pthread_sigmask(SIG_BLOCK, &held, before);
    }
    static void framecodec_let_go(const sigset_t *before)
    {
        pthread_sigmask(SIG_SETMASK, before, NULL);
    }
    #endif
    """
    bint _would_block "framecodec_would_block" () nogil
    Py_ssize_t _recv "framecodec_recv" (int fd, void* buffer, size_t size, int flags) nogil
    Py_ssize_t _send "framecodec_send" (
        int fd,
        const void* first,
        Py_ssize_t first_size,
        const void* rest,
        Py_ssize_t rest_size,
        int flags,
    ) nogil
    int _wait_for_bytes "framecodec_wait" (int fd, int milliseconds) nogil
    ctypedef struct _Signals "framecodec_signals":
        pass
    void _hold_signals "framecodec_hold" (_Signals* before) noexcept
    void _let_go_of_signals "framecodec_let_go" (const _Signals* before) noexcept

cdef extern from "Python.h":
    Py_buffer* PyMemoryView_GET_BUFFER(object) noexcept
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock, long long microseconds, bint interruptible
    ) nogil

cdef Py_ssize_t LARGEST_SIZE = GATHER_SIZE - 1
cdef double LONGEST_WAIT = 1e9  # seconds, ...
cdef double LONGEST_POLL = 2e6  # ... and as milliseconds in an int
cdef double LONGEST_TURN = 0.01  # seconds; as in _socket_io_py


@cython.final
cdef class Lock:
    """A reentrant lock, as `threading.RLock`, which is its twin. Taking that one costs more than
    all else around a system call.
    """

    cdef PyThread_type_lock _lock
    cdef unsigned long _owner
    cdef Py_ssize_t _count  # how often its owner has it

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._lock != NULL:
            if self._count:
                PyThread_release_lock(self._lock)
            PyThread_free_lock(self._lock)

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def acquire(self, bint blocking=True, double timeout=-1.0):
        """Whether it was taken."""
        if timeout != timeout:
            raise ValueError("the time-out must be a number, not nan")
        if self._try_acquire():
            return True
        return blocking and timeout != 0.0 and self._wait(timeout)

    def release(self):
        """Lets it go once.

        Raises:
            RuntimeError: The calling thread does not have it.
        """
        if not self._count or self._owner != PyThread_get_thread_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._release()

    def __enter__(self):
        if not self._try_acquire():
            self._wait(-1.0)
        return True

    def __exit__(self, *_):
        self.release()

    cdef inline bint _try_acquire(self) noexcept:
        cdef unsigned long caller = PyThread_get_thread_ident()
        if not self._count or self._owner != caller:
            if not PyThread_acquire_lock(self._lock, 0):
                return False
            self._owner = caller
        self._count += 1
        return True

    cdef bint _wait(self, double seconds) except -1:
        cdef double deadline = monotonic() + seconds
        cdef long long left = -1  # microseconds; -1 waits for ever
        cdef PyLockStatus status
        while True:
            if seconds >= 0.0:
                left = <long long>(min(max(deadline - monotonic(), 0.0), LONGEST_WAIT) * 1e6)
            with nogil:
                status = PyThread_acquire_lock_timed(self._lock, left, True)
            if status == PY_LOCK_ACQUIRED:
                self._owner = PyThread_get_thread_ident()
                self._count = 1
                return True
            if status != PY_LOCK_INTR:
                return False
            PyErr_CheckSignals()

    cdef inline void _release(self) noexcept:
        self._count -= 1
        if not self._count:
            PyThread_release_lock(self._lock)


@cython.final
@cython.no_gc_clear
cdef class Guard:
    """A lock as a context manager that waits no longer than the socket's time-out.

    Compiled, there is no moment for a signal handler at which the lock is taken and nobody knows.
    """

    cdef Lock _lock
    cdef double _timeout

    def __cinit__(self, Lock lock not None, double timeout):
        self._lock = lock
        self._timeout = timeout

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def __enter__(self):
        if self._lock._try_acquire():
            return
        if not self._timeout or not self._lock._wait(self._timeout):
            raise _error_texts.another_thread_is_inside(self._timeout)

    def __exit__(self, *_):
        self._lock.release()


@cython.final
cdef class HeldSignals:
    """Holds signals back, where the system has that: none finds its handler until `release`.

    See `framecodec._socket_io_py.HeldSignals`, its twin.
    """

    cdef _Signals _before
    cdef bint _held

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def hold(self):
        """Hold signals back from now on.

        Raises:
            RuntimeError: They are held already.
        """
        if self._held:
            raise RuntimeError("signals are held already")
        PyErr_CheckSignals()  # that were there before
        _hold_signals(&self._before)
        self._held = True

    @property
    def release(self):
        """An iterator whose only step lets signals through as before `hold`."""
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self._held:
            raise StopIteration
        self._held = False
        _let_go_of_signals(&self._before)


@cython.final
@cython.no_gc_clear
@cython.freelist(16)
cdef class Batch:
    """The messages of one receive that are still to be delivered.

    See `framecodec._socket_io_py.Batch`, its twin.
    """

    cdef list _messages
    cdef list _frames  # or None
    cdef Py_ssize_t _pos
    cdef Py_ssize_t _count  # that are left

    def __cinit__(self, list messages not None, list frames=None):
        if frames is not None and len(frames) != len(messages):
            raise ValueError(f"{len(messages)} messages are not of {len(frames)} frames")
        self._messages = messages
        self._frames = frames
        self._count = len(messages)

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def __iter__(self):
        return self

    def __next__(self):
        if not self._count:
            raise StopIteration
        return self._take()

    def __len__(self):
        return self._count

    @property
    def take(self):
        """An iterator that takes one message after the other out of this batch."""
        return self

    @property
    def first(self):
        """The next message, which stays."""
        if not self._count:
            raise IndexError("the batch is empty")
        return self._messages[self._pos]

    @property
    def take_all(self):
        """An iterator whose only step takes all messages out: it gives their list."""
        return map(TAKE_REST, (self,))

    def take_rest(self):
        """Return the messages and drop them; `take_all` does it where no handler can come after."""
        cdef list messages
        if self._pos or not self._count:
            messages = self.rest()
        else:
            messages = self._messages
        self._messages = NO_MESSAGES
        self._frames = None
        self._pos = self._count = 0
        return messages

    def rest(self):
        """Return a list of the messages, which stay."""
        return self._messages[self._pos : self._pos + self._count]

    def frames(self):
        """Return the frames of these messages, as they travelled; they stay.

        Raises:
            TypeError: The batch was made without frames.
        """
        return self._frames[self._pos : self._pos + self._count]

    cdef inline object _take(self):
        """Take the next message out; there is one."""
        message = self._messages[self._pos]
        self._messages[self._pos] = None  # nothing of a delivered message is held
        if self._frames is not None:
            self._frames[self._pos] = None
        self._pos += 1
        self._count -= 1
        return message


cdef object TAKE_REST = Batch.take_rest
cdef list NO_MESSAGES = []


@cython.final
@cython.no_gc_clear
cdef class Receiver:
    """The messages that were received; where there are none, one receive that may bring some.

    See `framecodec._socket_io_py.Receiver`, its twin.
    """

    cdef Batch _ready
    cdef public bint may_read
    cdef public bint broken
    cdef object _fileno
    cdef Lock _lock
    cdef object _get_room  # None: leave receiving to the caller
    cdef object _buffer_updated
    cdef object _size
    cdef int _flags
    cdef double _timeout  # seconds; 0: do not wait where a receive would block; below 0: no limit

    def __cinit__(self, sock, Lock lock not None):
        self._ready = Batch([])
        self.may_read = True
        self._fileno = sock.fileno
        self._lock = lock

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    @property
    def ready(self):
        """The batch that is being delivered."""
        return self._ready

    @ready.setter
    def ready(self, Batch batch not None):
        self._ready = batch

    def use(self, splitter, Py_ssize_t size, int flags, double timeout):
        """Store where bytes go, how many are asked for, how, and how many seconds to wait for a
        message where a receive would block: 0 leaves it to the caller to wait, a negative number
        is for a socket that waits in the receive itself. A splitter of None leaves all receiving
        to the caller.

        Raises:
            TypeError: It is no compiled splitter. (Its memory is written to unseen.)
        """
        if splitter is not None and type(splitter) is not Splitter:
            raise TypeError(f"a compiled splitter is required, not {type(splitter).__name__!r}")
        self._get_room = None if splitter is None else splitter.get_room
        self._buffer_updated = None if splitter is None else splitter.buffer_updated
        self._size = size
        self._flags = flags
        self._timeout = 0.0 if timeout != timeout else timeout

    def __iter__(self):
        return self

    def __next__(self):
        if self._ready._count:
            return self._ready._take()
        self._fetch()
        if self._ready._count:
            return self._ready._take()
        raise StopIteration

    def fetch(self):
        """Receive where no message is ready, as far as that is done here."""
        if not self._ready._count:
            self._fetch()

    cdef int _fetch(self) except -1:
        if self.may_read and self._get_room is not None and self._lock._try_acquire():
            try:
                if not self._ready._count:  # else another thread was here
                    self._receive()
            finally:
                self._lock._release()
        return 0

    cdef int _receive(self) except -1:
        """Receive until a message is whole, or there is nothing to do here."""
        cdef Py_buffer* buffer
        cdef Py_ssize_t count
        cdef int fd, flags = self._flags
        cdef double now, deadline = 0.0
        cdef list messages
        if not self.may_read:  # inside is who was interrupted by this signal handler
            return 0
        self.may_read = False
        try:
            while True:
                room = self._get_room(self._size)
                buffer = PyMemoryView_GET_BUFFER(room)
                fd = self._fileno()
                with nogil:
                    count = _recv(fd, buffer.buf, buffer.len, flags)
                if count > 0:
                    room = None
                    self.broken = True  # until the bytes are stored
                    messages = self._buffer_updated(count)
                    if messages:
                        self._ready = Batch.__new__(Batch, messages)
                        self.broken = False
                        return 0
                    self.broken = False
                    # A peer that never pauses keeps neither a handler nor a deadline waiting.
                    PyErr_CheckSignals()
                    if self._timeout >= 0.0:
                        now = monotonic()
                        if not deadline:
                            deadline = now + (self._timeout or LONGEST_TURN)
                        elif now >= deadline:
                            if not self._timeout:
                                return 0
                            raise _error_texts.timed_out("no whole message", self._timeout)
                elif count == 0:  # the end of the stream is seen again by who asks again
                    return 0
                elif _would_block():
                    if self._timeout <= 0.0:
                        return 0
                    if not deadline:
                        deadline = monotonic() + self._timeout
                    self._wait(deadline)
                elif errno == EINTR:
                    PyErr_CheckSignals()
                else:
                    PyErr_SetFromErrno(OSError)
        finally:
            self.may_read = not self.broken

    cdef int _wait(self, double deadline) except -1:
        cdef double left
        cdef int fd, milliseconds, ready
        while True:
            fd = self._fileno()
            if fd < 0:  # closed by a signal handler: the next receive says so
                return 0
            left = min(max(deadline - monotonic(), 0.0), LONGEST_POLL)
            milliseconds = <int>ceil(left * 1e3)
            with nogil:
                ready = _wait_for_bytes(fd, milliseconds)
            if ready > 0:
                return 0
            if ready == 0:
                if monotonic() >= deadline:
                    raise _error_texts.timed_out("no whole message", self._timeout)
            elif errno == EINTR:
                PyErr_CheckSignals()
            else:
                PyErr_SetFromErrno(OSError)


@cython.final
@cython.no_gc_clear
cdef class Sender:
    """Sends one message by one system call.

    See `framecodec._socket_io_py.Sender`, its twin.
    """

    cdef public bint clear
    cdef public bint broken
    cdef public bint sending
    cdef public tuple left
    cdef object _fileno
    cdef Lock _lock
    cdef object _encode
    cdef object _frame_parts
    cdef int _flags

    def __cinit__(self, sock, Lock lock not None, codec):
        self._fileno = sock.fileno
        self._lock = lock
        self._encode = codec.encode
        self._frame_parts = codec.frame_parts
        self.left = ()

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def use(self, int flags):
        """Says how to call send() and sendmsg()."""
        self._flags = flags

    def send(self, message, /):
        """Whether the message was taken: sent, or begun, with its end in `left`."""
        if not self.clear or not PyBytes_CheckExact(message):
            return False
        if PyBytes_GET_SIZE(message) <= LARGEST_SIZE:
            return self._send_buffers(self._encode(message), b"")
        parts = self._frame_parts(message)
        return len(parts) == 2 and self._send_buffers(parts[0], parts[1])  # 3: there is a trailer

    cdef bint _send_buffers(self, bytes first, rest) except -1:
        cdef Py_buffer view
        if not self._lock._try_acquire():
            return False
        try:
            if not self.clear or self.sending:
                return False
            self.sending = True
            PyObject_GetBuffer(rest, &view, PyBUF_SIMPLE)
            try:
                return self._transmit(first, rest, &view)
            finally:
                self.sending = False
                PyBuffer_Release(&view)
        finally:
            self._lock._release()

    cdef bint _transmit(self, bytes first, rest, Py_buffer* view) except -1:
        cdef const char* data = PyBytes_AS_STRING(first)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(first)
        cdef Py_ssize_t count = -1
        cdef int fd, flags = self._flags
        while count < 0:
            fd = self._fileno()  # again behind a signal, whose handler may have closed the socket
            with nogil:
                count = _send(fd, data, size, view.buf, view.len, flags)
            if count < 0:
                if _would_block():
                    return False
                if errno != EINTR:
                    PyErr_SetFromErrno(OSError)
                PyErr_CheckSignals()
        if count < size + view.len:
            self.clear = False
            self.broken = True  # until the end of the frame is stored
            if count >= size:
                self.left = (memoryview(rest)[count - size :],)
            else:
                end = PyBytes_FromStringAndSize(data + count, size - count)
                self.left = (end, rest) if view.len else (end,)
            self.broken = False
        return True
