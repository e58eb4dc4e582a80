# cython: binding=False, embedsignature=True, embedsignature.format=clinic, auto_pickle=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The fast path of a message through a socket, compiled: one system call and little around it.

See `_fast_path_py`, its twin. This one saves the calls of Python's methods around the system call,
and a `memoryview` and numbers for each of them. No signal handler runs between the system call and
the end of a method.

Where threads share an object without the GIL, each method runs in a critical section of the object,
which is to one object what the GIL is to all: it is left while the thread waits. With the GIL the
sections are nothing.
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
from cpython.object cimport PyObject
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

from .._module_state cimport remember_module_state

from time import monotonic

from .. import _error_texts
from .._outbox import GATHER_SIZE
from .._splitter import Splitter
from .._states import ReceiveState, SendState
from ..errors import FrameError

__all__ = ["Batch", "Guard", "HeldSignals", "Lock", "Receiver", "Sender"]

cdef extern from *:
    """
    #include <errno.h>
    #define framecodec_would_block() (errno == EAGAIN || errno == EWOULDBLOCK)
    #ifdef _WIN32
    /* Sockets are not descriptors there: everything takes the slow path. */
    #define framecodec_recv(fd, buffer, size, flags) (errno = EAGAIN, (Py_ssize_t)-1)
    #define framecodec_send(fd, first, first_size, rest, rest_size, flags) \\
        (errno = EAGAIN, (Py_ssize_t)-1)
    #define framecodec_wait(fd, milliseconds) 1
    #define MSG_DONTWAIT 0
    #define framecodec_get_read_timeout(fd, seconds) (-1)
    #define framecodec_set_read_timeout(fd, seconds) (-1)
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
    /* The longest time of one receive that waits, in seconds; 0: no limit. */
    #ifdef __linux__
    #include <sys/time.h>
    static int framecodec_get_read_timeout(int fd, double *seconds)
    {
        struct timeval found;
        socklen_t size = sizeof found;
        if (getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &found, &size))
            return -1;
        *seconds = (double)found.tv_sec + 1e-6 * (double)found.tv_usec;
        return 0;
    }
    static int framecodec_set_read_timeout(int fd, double seconds)
    {
        struct timeval wanted = {.tv_sec = (time_t)seconds};
        wanted.tv_usec = (suseconds_t)(1e6 * (seconds - (double)wanted.tv_sec));
        return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wanted, sizeof wanted);
    }
    #else
    #define framecodec_get_read_timeout(fd, seconds) (-1)
    #define framecodec_set_read_timeout(fd, seconds) (-1)
    #endif
    /* On Linux both set the mask of the calling thread. The symbol of pthread_sigmask is as new as
       glibc 2.32 where the module is built with that: a wheel would need it too. */
    #ifdef __linux__
    #define framecodec_sigmask sigprocmask
    #else
    #define framecodec_sigmask pthread_sigmask
    #endif
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
        framecodec_sigmask(SIG_BLOCK, &held, before);
    }
    static void framecodec_let_go(const sigset_t *before)
    {
        framecodec_sigmask(SIG_SETMASK, before, NULL);
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
    int MSG_DONTWAIT
    int _get_read_timeout "framecodec_get_read_timeout" (int fd, double* seconds)
    int _set_read_timeout "framecodec_set_read_timeout" (int fd, double seconds)
    ctypedef struct _Signals "framecodec_signals":
        pass
    void _hold_signals "framecodec_hold" (_Signals* before) noexcept
    void _let_go_of_signals "framecodec_let_go" (const _Signals* before) noexcept

cdef extern from "Python.h":
    Py_buffer* PyMemoryView_GET_BUFFER(object) noexcept
    PyObject* _map "((PyObject *)&PyMap_Type)"
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock, long long microseconds, bint interruptible
    ) nogil

cdef extern from *:
    """
    /* The owner of a lock is read by threads that do not hold it. No thread's number is 0. */
    #if defined(_MSC_VER) && !defined(__clang__)
    #define framecodec_load(owner) (*(const volatile unsigned long *)(owner))
    #define framecodec_store(owner, thread) (*(volatile unsigned long *)(owner) = (thread))
    #else
    #define framecodec_load(owner) __atomic_load_n((owner), __ATOMIC_RELAXED)
    #define framecodec_store(owner, thread) __atomic_store_n((owner), (thread), __ATOMIC_RELAXED)
    #endif
    """
    unsigned long _load "framecodec_load" (const unsigned long* owner) noexcept nogil
    void _store "framecodec_store" (unsigned long* owner, unsigned long thread) noexcept nogil

cdef extern from *:
    """
    #define FRAMECODEC_LONGEST_WAIT 1e9
    #define FRAMECODEC_LONGEST_POLL 2e6
    #define FRAMECODEC_LONGEST_TURN 0.01
    #define FRAMECODEC_SHORTEST_KERNEL_TIMEOUT 0.5
    """
    const double LONGEST_WAIT "FRAMECODEC_LONGEST_WAIT"  # seconds, ...
    const double LONGEST_POLL "FRAMECODEC_LONGEST_POLL"  # ... and as milliseconds in an int
    const double LONGEST_TURN "FRAMECODEC_LONGEST_TURN"  # seconds; as in _fast_path_py
    # Seconds. The kernel counts the time-out of a receive in steps of up to 10 milliseconds.
    const double SHORTEST_KERNEL_TIMEOUT "FRAMECODEC_SHORTEST_KERNEL_TIMEOUT"


# What a receive has got that is not stored yet.
cdef enum:
    NOTHING
    BYTES
    MESSAGES


@cython.final
cdef class _States:
    """The states that the objects of this module have or look for, of one interpreter."""

    cdef object ready
    cdef object receiving
    cdef object received_lost
    cdef object idle
    cdef object held
    cdef object sending
    cdef object sent_lost
    cdef Py_ssize_t largest_size  # of a message that is copied into its frame

    def __cinit__(self):
        self.ready = ReceiveState.READY
        self.receiving = ReceiveState.BUSY
        self.received_lost = ReceiveState.LOST
        self.idle = SendState.IDLE
        self.held = SendState.HELD
        self.sending = SendState.BUSY
        self.sent_lost = SendState.LOST
        self.largest_size = GATHER_SIZE - 1


_STATES = _States()


@cython.final
cdef class Lock:
    """A reentrant lock, as `threading.RLock`, which is its twin.

    From Python both cost the same. The methods of this module take this one without a call, which
    saves 150 ns for each send and receive: a quarter of their own cost.
    """

    cdef PyThread_type_lock _lock
    cdef unsigned long _owner  # 0: none
    cdef Py_ssize_t _count  # how often its owner holds it

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock == NULL:
            raise MemoryError  # pragma: no cover (the system gives no more locks)

    def __dealloc__(self):
        if self._lock != NULL:
            if self._count:
                PyThread_release_lock(self._lock)
            PyThread_free_lock(self._lock)

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def acquire(self, bint blocking=True, double timeout=-1.0):
        """Return whether it was taken."""
        if timeout != timeout:
            raise ValueError("the time-out must be a number, not nan")
        if self._try_acquire():
            return True
        return blocking and timeout != 0.0 and self._wait(timeout)

    def release(self):
        """Release it once.

        Raises:
            RuntimeError: The calling thread does not hold it.
        """
        if _load(&self._owner) != <unsigned long>PyThread_get_thread_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._release()

    def __enter__(self):
        if not self._try_acquire():
            self._wait(-1.0)
        return True

    # Not `*_`: the caller would need memory for a tuple, and without it the lock would stay taken.
    def __exit__(self, kind, error, traceback, /):
        self.release()

    cdef inline bint _try_acquire(self) noexcept:
        cdef unsigned long caller = PyThread_get_thread_ident()
        if _load(&self._owner) != caller:
            if not PyThread_acquire_lock(self._lock, 0):
                return False
            _store(&self._owner, caller)
        self._count += 1
        return True

    cdef bint _wait(self, double seconds) except -1:
        cdef double deadline = monotonic() + seconds
        cdef long long remaining = -1  # microseconds; -1 waits for ever
        cdef PyLockStatus status
        while True:
            if seconds >= 0.0:
                remaining = <long long>(min(max(deadline - monotonic(), 0.0), LONGEST_WAIT) * 1e6)
            with nogil:
                status = PyThread_acquire_lock_timed(self._lock, remaining, True)
            if status == PY_LOCK_ACQUIRED:
                _store(&self._owner, PyThread_get_thread_ident())
                self._count = 1
                return True
            if status != PY_LOCK_INTR:
                return False
            PyErr_CheckSignals()

    cdef inline void _release(self) noexcept:
        self._count -= 1
        if not self._count:
            _store(&self._owner, 0)
            PyThread_release_lock(self._lock)


@cython.final
@cython.no_gc_clear
cdef class Guard:
    """Calls functions under a lock, for which it waits no longer than the socket's time-out.

    In C no signal handler can run between taking the lock and calling the function, so the lock is
    always released. A negative time-out waits for ever.
    """

    cdef Lock _lock
    cdef double _timeout

    def __cinit__(self, Lock lock not None, double timeout):
        self._lock = lock
        self._timeout = timeout

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def call(self, function, /, *arguments):
        """Call a function while the lock is taken."""
        if not self._lock._try_acquire():
            if not self._timeout or not self._lock._wait(self._timeout):
                raise _error_texts.another_thread_is_inside(self._timeout)
        try:
            return function(*arguments)
        finally:
            self._lock.release()


@cython.final
cdef class HeldSignals:
    """Holds signals back, where the system has that: none finds its handler until `release`.

    See `framecodec.sockets._fast_path_py.HeldSignals`, its twin.
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
        PyErr_CheckSignals()  # those that came before
        _hold_signals(&self._before)
        self._held = True

    @property
    def release(self):
        """An iterator with one step, which lets signals through as before `hold`."""
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
    """The messages of one receive that are not delivered yet.

    See `framecodec.sockets._fast_path_py.Batch`, its twin.
    """

    cdef list _messages
    cdef list _headers  # or None
    cdef Py_ssize_t _pos
    cdef Py_ssize_t _count  # of messages that are not delivered

    def __cinit__(self, list messages not None, list headers=None):
        if headers is not None and len(headers) != len(messages):
            raise ValueError(f"{len(headers)} headers for {len(messages)} messages")
        self._messages = messages
        self._headers = headers
        self._count = len(messages)

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def __iter__(self):
        return self

    @cython.critical_section
    def __next__(self):
        if not self._count:
            raise StopIteration
        return self._take()

    @cython.critical_section
    def __len__(self):
        return self._count

    @property
    def take(self):
        """An iterator that takes the messages out of this batch, one each step."""
        return self

    @property
    @cython.critical_section
    def first(self):
        """The next message, which stays."""
        if not self._count:
            raise IndexError("the batch is empty")
        return self._messages[self._pos]

    @property
    def take_all(self):
        """An iterator with one step, which takes all messages out and gives their list."""
        return (<object>_map)(Batch.take_rest, (self,))

    @cython.critical_section
    def take_rest(self):
        """Return the messages and drop them; after `take_all` no handler can come between."""
        cdef list messages
        if self._pos or not self._count:
            messages = self._remaining()
        else:
            messages = self._messages
        self._messages = None
        self._headers = None
        self._pos = self._count = 0
        return messages

    @cython.critical_section
    def rest(self):
        """Return a list of the messages, which stay."""
        return self._remaining()

    cdef list _remaining(self):
        if self._messages is None:
            return []
        return self._messages[self._pos : self._pos + self._count]

    @cython.critical_section
    def headers(self):
        """Return the headers of these messages, which stay.

        Raises:
            TypeError: The batch was made without headers.
        """
        return self._headers[self._pos : self._pos + self._count]

    @property
    @cython.critical_section
    def last_header(self):
        """The header of the message that was taken last; None without headers."""
        return self._headers[self._pos - 1] if self._headers is not None and self._pos else None

    cdef inline object _take(self):
        """Take the next message out; there is one."""
        message = self._messages[self._pos]
        self._messages[self._pos] = None  # a delivered message is not kept
        self._pos += 1
        self._count -= 1
        return message


@cython.final
@cython.no_gc_clear
cdef class Receiver:
    """The ready messages, and the receive that brings some if there are none.

    See `framecodec.sockets._fast_path_py.Receiver`, its twin.
    """

    cdef Batch _ready
    cdef public object state
    cdef object _fileno
    cdef Lock _lock
    cdef object _get_room  # None: leave receiving to the caller
    cdef object _buffer_updated
    cdef object _keeper  # the splitter, if it keeps headers, or None
    cdef object _size
    cdef int _flags
    cdef double _timeout  # seconds; 0: do not wait where a receive would block; below 0: no limit
    cdef double _kernel_timeout  # seconds that the socket was told to wait in a receive; 0: none
    cdef _States _states

    def __cinit__(self, sock, Lock lock not None):
        self._states = _STATES
        self._ready = Batch([])
        self.state = self._states.ready
        self._fileno = sock.fileno
        self._lock = lock

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    @property
    @cython.critical_section
    def ready(self):
        """The batch that is being delivered."""
        return self._ready

    @ready.setter
    @cython.critical_section
    def ready(self, Batch batch not None):
        self._ready = batch

    @cython.critical_section
    def use(self, splitter, Py_ssize_t size, int flags, double timeout):
        """Choose how to receive.

        See the twin.

        Raises:
            TypeError: The splitter is not a compiled one, whose memory is safe to write to.
        """
        if splitter is not None and type(splitter) is not Splitter:
            raise TypeError(f"a compiled splitter is required, not {type(splitter).__name__!r}")
        self._get_room = None if splitter is None else splitter.get_room
        self._buffer_updated = None if splitter is None else splitter.buffer_updated
        self._keeper = None if splitter is None or splitter.headers is None else splitter
        self._size = size
        self._flags = flags
        self._timeout = 0.0 if timeout != timeout else timeout
        if self._kernel_timeout and self._kernel_timeout != self._timeout:
            self._kernel_timeout = 0.0
            _set_read_timeout(self._fileno(), 0.0)  # fails if the socket is closed

    def __iter__(self):
        return self

    @cython.critical_section
    def __next__(self):
        cdef Batch ready = self._ready
        with cython.critical_section(ready):
            if ready._count:
                return ready._take()
        self._fetch()
        ready = self._ready
        with cython.critical_section(ready):
            if ready._count:
                return ready._take()
        raise StopIteration

    @cython.critical_section
    def fetch(self):
        """Receive if no message is ready."""
        if not self._is_ready():
            self._fetch()

    cdef inline bint _is_ready(self):
        cdef Batch ready = self._ready
        with cython.critical_section(ready):
            return ready._count != 0

    cdef int _fetch(self) except -1:
        if (
            self.state is self._states.ready
            and self._get_room is not None
            and self._lock._try_acquire()
        ):
            try:
                if not self._is_ready():  # else another thread has received
                    self._receive()
            finally:
                self._lock._release()
        return 0

    cdef int _receive(self) except -1:
        """Receive until a message is whole, or the slow path must decide."""
        cdef Py_buffer* buffer
        cdef Py_ssize_t count
        cdef int fd, flags = self._flags
        cdef int unstored = NOTHING
        cdef double now, deadline = 0.0
        cdef list messages
        if self._kernel_timeout:  # the first receive waits, so that no poll() is needed
            deadline = monotonic() + self._timeout
            flags &= ~MSG_DONTWAIT
        if self.state is not self._states.ready:
            return 0  # pragma: no cover (another thread has lost bytes meanwhile, without the GIL)
        self.state = self._states.receiving
        try:
            while True:
                memory = self._get_room(self._size)
                buffer = PyMemoryView_GET_BUFFER(memory)
                fd = self._fileno()
                with nogil:
                    count = _recv(fd, buffer.buf, buffer.len, flags)
                flags = self._flags
                if count > 0:
                    memory = None
                    unstored = BYTES
                    messages = self._buffer_updated(count)
                    unstored = MESSAGES  # until they are in the batch
                    if messages:
                        if self._keeper is None:
                            self._ready = Batch.__new__(Batch, messages)
                        else:
                            self._ready = Batch.__new__(Batch, messages, self._keeper.headers)
                    unstored = NOTHING
                    if messages:
                        return 0
                    # A peer that never pauses must not delay a signal handler or a deadline.
                    PyErr_CheckSignals()
                    if self._timeout >= 0.0:
                        now = monotonic()
                        if not deadline:
                            deadline = now + (self._timeout or LONGEST_TURN)
                        elif now >= deadline:
                            if not self._timeout:
                                return 0
                            raise _error_texts.timed_out("no whole message", self._timeout)
                elif count == 0:  # the next receive finds the end of the stream again
                    return 0
                elif _would_block():
                    if self._timeout <= 0.0:
                        return 0
                    if not deadline:
                        deadline = monotonic() + self._timeout
                    if not self._kernel_timeout:
                        self._use_kernel_timeout(fd)
                    self._wait(deadline)
                elif errno == EINTR:
                    PyErr_CheckSignals()
                else:
                    PyErr_SetFromErrno(OSError)
        finally:
            if self.state is self._states.receiving:
                if unstored == MESSAGES or (unstored == BYTES and not self._is_broken()):
                    self.state = self._states.received_lost
                else:
                    self.state = self._states.ready

    cdef bint _is_broken(self) except -1:
        """Return whether the splitter has refused bytes, which it keeps."""
        return isinstance(self._buffer_updated.__self__.error, FrameError)

    cdef void _use_kernel_timeout(self, int fd) noexcept:
        """Let the next receives wait in the kernel, unless the user has set a time there."""
        cdef double users = 0.0
        if (
            self._flags & MSG_DONTWAIT
            and SHORTEST_KERNEL_TIMEOUT <= self._timeout <= LONGEST_POLL
            and _get_read_timeout(fd, &users) == 0
            and users == 0.0
            and _set_read_timeout(fd, self._timeout) == 0
        ):
            self._kernel_timeout = self._timeout

    cdef int _wait(self, double deadline) except -1:
        cdef double remaining
        cdef int fd, milliseconds, ready
        while True:
            fd = self._fileno()
            if fd < 0:  # a signal handler has closed it: the next receive raises
                return 0
            remaining = min(max(deadline - monotonic(), 0.0), LONGEST_POLL)
            milliseconds = <int>ceil(remaining * 1e3)
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
    """A fast path for one message in one system call.

    See `framecodec.sockets._fast_path_py.Sender`, its twin.
    """

    cdef public object state
    cdef public tuple unsent
    cdef bint _enabled
    cdef object _fileno
    cdef Lock _lock
    cdef object _encode
    cdef object _frame_parts
    cdef int _flags
    cdef _States _states

    def __cinit__(self, sock, Lock lock not None, codec):
        self._states = _STATES
        self._fileno = sock.fileno
        self._lock = lock
        self._encode = codec.encode
        self._frame_parts = codec.frame_parts
        self.unsent = ()
        self.state = self._states.idle

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    @cython.critical_section
    def switch(self, codec, /):
        """Encode with another codec from now on."""
        self._encode, self._frame_parts = codec.encode, codec.frame_parts

    @cython.critical_section
    def use(self, flags):
        """Store the flags for send() and sendmsg(); None switches the fast path off."""
        self._flags = 0 if flags is None else flags
        self._enabled = flags is not None

    @cython.critical_section
    def send(self, message, /):
        """Return whether the message was taken: sent, or begun and its end stored in `unsent`."""
        if not self._enabled or self.state is not self._states.idle:
            return False
        if not PyBytes_CheckExact(message):
            return False
        if PyBytes_GET_SIZE(message) <= self._states.largest_size:
            return self._send_buffers(self._encode(message), b"")
        parts = self._frame_parts(message)
        return len(parts) == 2 and self._send_buffers(parts[0], parts[1])  # 3: there is a trailer

    cdef bint _send_buffers(self, bytes first, rest) except -1:
        cdef Py_buffer view
        if not self._lock._try_acquire():
            return False
        try:
            if self.state is not self._states.idle:
                return False
            PyObject_GetBuffer(rest, &view, PyBUF_SIMPLE)
            self.state = self._states.sending
            try:
                return self._transmit(first, rest, &view)
            finally:
                if self.state is self._states.sending:
                    self.state = self._states.idle
                PyBuffer_Release(&view)
        finally:
            self._lock._release()

    cdef bint _transmit(self, bytes first, rest, Py_buffer* view) except -1:
        cdef const char* data = PyBytes_AS_STRING(first)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(first)
        cdef Py_ssize_t count = -1
        cdef int fd, flags = self._flags
        while count < 0:
            fd = self._fileno()  # again after a signal, whose handler may have closed the socket
            with nogil:
                count = _send(fd, data, size, view.buf, view.len, flags)
            if count < 0:
                if _would_block():
                    return False
                if errno != EINTR:
                    PyErr_SetFromErrno(OSError)
                PyErr_CheckSignals()
        if count < size + view.len:
            if self.state is self._states.sending:
                self.state = self._states.sent_lost  # until the end of the frame is stored
            if count >= size:
                self.unsent = (memoryview(rest)[count - size :],)
            else:
                end = PyBytes_FromStringAndSize(data + count, size - count)
                self.unsent = (end, rest) if view.len else (end,)
            if self.state is self._states.sent_lost:
                self.state = self._states.held
        return True


remember_module_state()
