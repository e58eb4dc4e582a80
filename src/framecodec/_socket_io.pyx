# cython: binding=False, embedsignature=True, embedsignature.format=clinic
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

from . import errors
from ._outbox import GATHER_SIZE

__all__ = ["Guard", "HeldSignals", "Lock", "Receiver", "Sender"]

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

    def acquire(self, bint blocking=True, double timeout=-1.0):
        """Whether it was taken."""
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
cdef class Guard:
    """A lock as a context manager that waits no longer than the socket's time-out.

    Compiled, there is no moment for a signal handler at which the lock is taken and nobody knows.
    """

    cdef Lock _lock
    cdef double _timeout

    def __init__(self, Lock lock not None, double timeout):
        self._lock = lock
        self._timeout = timeout

    def __enter__(self):
        if self._lock._try_acquire():
            return
        if not self._timeout or not self._lock._wait(self._timeout):
            raise errors.another_thread_is_inside(self._timeout)

    def __exit__(self, *_):
        self._lock.release()


@cython.final
cdef class HeldSignals:
    """A context in which signals wait, where the system has that: none finds its handler inside.

    See `framecodec._socket_io_py.HeldSignals`, its twin.
    """

    cdef _Signals _before

    def __enter__(self):
        _hold_signals(&self._before)
        try:
            PyErr_CheckSignals()  # that were there before
        except BaseException:
            _let_go_of_signals(&self._before)
            raise

    def __exit__(self, *_):
        _let_go_of_signals(&self._before)


@cython.final
cdef class Receiver:
    """The messages that were received; where there are none, one receive that may bring some.

    See `framecodec._socket_io_py.Receiver`, its twin.
    """

    cdef public object ready
    cdef public bint may_read
    cdef object _fileno
    cdef Lock _lock
    cdef object _get_room  # None: leave receiving to the caller
    cdef object _buffer_updated
    cdef object _size
    cdef int _flags
    cdef double _timeout  # seconds; 0: do not wait where a receive would block

    def __init__(self, sock, Lock lock not None):
        self.ready = iter(())
        self.may_read = True
        self._fileno = sock.fileno
        self._lock = lock
        self._get_room = None

    def use(self, splitter, size, int flags, double timeout):
        """Says where bytes go, how many are asked for, how, and how many seconds to wait for a
        message where a receive would block; None leaves receiving to the caller."""
        self._get_room = None if splitter is None else splitter.get_room
        self._buffer_updated = None if splitter is None else splitter.buffer_updated
        self._size = size
        self._flags = flags
        self._timeout = timeout

    def __iter__(self):
        return self

    def __next__(self):
        for message in self.ready:
            return message
        if self.may_read and self._get_room is not None and self._lock._try_acquire():
            try:
                for message in self.ready:  # another thread was here
                    return message
                self._receive()
                for message in self.ready:
                    return message
            finally:
                self._lock._release()
        raise StopIteration

    cdef int _receive(self) except -1:
        """Receives until a message is whole, or there is nothing to do here."""
        cdef Py_buffer* buffer
        cdef Py_ssize_t count
        cdef int fd, flags = self._flags
        cdef double deadline = 0.0
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
                    messages = self._buffer_updated(count)
                    self.ready = iter(messages)
                    if messages:
                        return 0
                elif count == 0:  # the end of the stream is seen again by who asks again
                    return 0
                elif _would_block():
                    if not self._timeout:
                        return 0
                    if not deadline:
                        deadline = monotonic() + self._timeout
                    self._wait(deadline)
                elif errno == EINTR:
                    PyErr_CheckSignals()
                else:
                    PyErr_SetFromErrno(OSError)
        finally:
            self.may_read = True

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
                    raise errors.timed_out("no whole message", self._timeout)
            elif errno == EINTR:
                PyErr_CheckSignals()
            else:
                PyErr_SetFromErrno(OSError)


@cython.final
cdef class Sender:
    """Sends one message by one system call.

    See `framecodec._socket_io_py.Sender`, its twin.
    """

    cdef public bint clear
    cdef public bint sending
    cdef public tuple left
    cdef object _fileno
    cdef Lock _lock
    cdef object _encode
    cdef object _frame_parts
    cdef int _flags

    def __init__(self, sock, Lock lock not None, codec):
        self._fileno = sock.fileno
        self._lock = lock
        self._encode = codec.encode
        self._frame_parts = codec.frame_parts
        self.left = ()

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
            if count >= size:
                self.left = (memoryview(rest)[count - size :],)
            else:
                self.left = (PyBytes_FromStringAndSize(data + count, size - count),)
                if view.len:
                    self.left += (rest,)
        return True
