# cython: language_level=3
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The fast path of a message through an event loop, compiled.

See `_fast_path_py`, its twin. This one also saves coroutines: the awaitables here have the slot
``am_send`` of type objects, by which an ``await`` gets its result without an exception or an
iterator. Cython has no name for that slot, so a few lines of C fill it.

A connection belongs to the thread of its event loop. Calls of other threads that would change it
raise an error. Without the GIL, those that cannot be refused in time must not touch memory that the
loop's thread frees: what both use is read and changed in a critical section of its object. With the
GIL the sections are nothing.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EAGAIN, EINTR, errno

from framecodec._module_state cimport remember_module_state

from framecodec import _error_texts
from framecodec._states import TransportState

__all__ = [
    "FIRST_READ_SIZE",
    "MESSAGE_COST",
    "CompletedAwaitable",
    "MessageIterator",
    "ObjectIterator",
    "ObjectSender",
    "READ_SIZE",
    "ReadyIterator",
    "ReadyObjects",
    "ReadyTasks",
    "ReceivePath",
    "SendBatch",
    "SendPath",
    "Waiter",
]

# The sizes are explained in the twin.
cdef enum:
    _MESSAGE_COST = 48
    _HIGH_WATER = 256 * 1024
    _FIRST_READ_SIZE = 4 * 1024
    _READ_SIZE = 128 * 1024
    _SMALL_READ = 512
    _JOIN_SIZE = 16 * 1024
    _MOST_TASKS = 16
    _TRY_AGAIN = 16

FIRST_READ_SIZE, READ_SIZE = _FIRST_READ_SIZE, _READ_SIZE
MESSAGE_COST = _MESSAGE_COST
OPEN, CLOSING, CLOSED = TransportState.OPEN, TransportState.CLOSING, TransportState.CLOSED

cdef extern from *:
    """
    #ifdef _WIN32  /* no transport has a socket that could be used */
    #define framecodec_send(fd, data, size) (-1)
    #else
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    #define framecodec_send(fd, data, size) send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    #endif
    """
    Py_ssize_t _send "framecodec_send" (int fd, const char* data, size_t size)

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef extern from *:
    """
    static PyObject *(*framecodec_take)(PyObject *messages);
    static PyObject *(*framecodec_take_object)(PyObject *objects);
    static PyObject *(*framecodec_take_next)(PyObject *next, int *waits);

    static PySendResult framecodec_send_done(PyObject *self, PyObject *value, PyObject **result)
    {
        (void)self, (void)value;
        Py_INCREF(Py_None);
        *result = Py_None;
        return PYGEN_RETURN;
    }

    static PySendResult framecodec_send_message(PyObject *self, PyObject *value, PyObject **result)
    {
        (void)value;
        *result = framecodec_take(self);
        return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }

    static PySendResult framecodec_send_object(PyObject *self, PyObject *value, PyObject **result)
    {
        (void)value;
        *result = framecodec_take_object(self);
        return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }

    static PySendResult framecodec_send_next(PyObject *self, PyObject *value, PyObject **result)
    {
        int waits = 0;
        (void)value;
        *result = framecodec_take_next(self, &waits);
        return *result == NULL ? PYGEN_ERROR : waits ? PYGEN_NEXT : PYGEN_RETURN;
    }

    #define framecodec_complete(type, send) \
        (((PyTypeObject *)(type))->tp_as_async->am_send = (send))
    """
    ctypedef void* sendfunc
    sendfunc _send_done "framecodec_send_done"
    sendfunc _send_message "framecodec_send_message"
    sendfunc _send_object "framecodec_send_object"
    sendfunc _send_next "framecodec_send_next"
    void _complete "framecodec_complete" (object type, sendfunc send)
    object (*_take_message "framecodec_take")(object messages)
    object (*_take_object "framecodec_take_object")(object objects)
    object (*_take_next "framecodec_take_next")(object next_message, int* waits)


@cython.final
cdef class CompletedAwaitable:
    """An awaitable whose work is done.

    See `framecodec.asyncio._fast_path_py.CompletedAwaitable`, its twin.
    """

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        """End at once, as a coroutine without a wait does."""
        raise StopIteration

    def throw(self, *error):
        """Raise the exception: a task was cancelled before its first step."""
        raised = exception_of(error)
        raised.message_started = True
        raise raised

    def close(self):
        """Do nothing, as a coroutine that has ended does."""

    def __reduce__(self):
        raise _error_texts.not_copied(self)


cdef object exception_of(tuple error):
    """Return the exception that throw() was given: as one, or as class, value and traceback."""
    raised = error[1] if len(error) > 1 and error[1] is not None else error[0]
    return raised() if isinstance(raised, type) else raised


@cython.final
cdef class MessageIterator:
    """The asynchronous iterator of a stream: first the ready messages, then those to wait for.

    See `framecodec.asyncio._fast_path_py.MessageIterator`, its twin.
    """

    cdef public list head
    cdef public object protocol
    cdef object _stream
    cdef object _on_drained

    def __cinit__(self, stream, on_drained):
        self._stream = stream
        self._on_drained = on_drained
        self.head = []

    def __aiter__(self):
        return self

    @cython.critical_section
    def __anext__(self):
        # The iterator is its own awaitable: it takes the message when it is awaited.
        if self.head:
            return self
        if self.protocol is not None:
            return NextMessage.__new__(NextMessage, self)
        return self._stream.__anext__()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise stop_with_next(self)

    # ``create_task`` takes it for a coroutine.

    def send(self, value):
        """End at once, as a coroutine without a wait does."""
        raise stop_with_next(self)

    def throw(self, *error):
        """Raise the exception: a task was cancelled before its first step. Take no message."""
        raise exception_of(error)

    def close(self):
        """Do nothing, as a coroutine that has ended does."""

    def __reduce__(self):
        raise _error_texts.not_copied(self)


cdef int prepare_take(MessageIterator self) except -1:
    """Return whether a message is ready. Report the last one as taken before it is: if that fails,
    nothing is lost. The caller is in a critical section of the iterator."""
    if PyList_GET_SIZE(self.head) == 1:
        self._on_drained()  # other code runs here, and may take the message
    return PyList_GET_SIZE(self.head) > 0


cdef object take(object messages):
    cdef MessageIterator self = <MessageIterator>messages
    with cython.critical_section(self):
        if not prepare_take(self):
            raise _error_texts.another_recv_waits()
        return self.head.pop()


@cython.critical_section
cdef object stop_with_next(MessageIterator self):
    prepare_take(self)
    return stop_with_head(self)


_take_message = take
_complete(CompletedAwaitable, _send_done)
_complete(MessageIterator, _send_message)


@cython.final
cdef class NextMessage:
    """What ``async for`` awaits where no message is ready: `FrameStream.__anext__`, compiled."""

    cdef MessageIterator _messages
    cdef ReceivePath _protocol
    cdef Waiter _waiter  # while the task waits

    def __cinit__(self, MessageIterator messages not None):
        self._messages = messages
        self._protocol = messages.protocol

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not await_message(self):
            return self._waiter
        raise stop_with_head(self._messages)

    # ``create_task`` takes it for a coroutine.

    def send(self, value):
        """Continue, as a coroutine does."""
        return self.__next__()

    def throw(self, *error):
        """Raise the exception: the task was cancelled. Take no message."""
        self.close()
        raise exception_of(error)

    def close(self):
        """End the wait, as a coroutine that is closed does."""
        self._close()

    @cython.critical_section
    cdef int _close(self) except -1:
        if self._waiter is not None:
            self._waiter = None
            self._protocol._stop_waiting()
        return 0

    def __reduce__(self):
        raise _error_texts.not_copied(self)


@cython.critical_section
cdef bint is_ready(MessageIterator self) except -1:
    return prepare_take(self)


@cython.critical_section
cdef object take_head(MessageIterator self):
    """Take the message that `is_ready` has found; a call of another thread may have taken it."""
    if not PyList_GET_SIZE(self.head):  # pragma: no cover (another thread, without the GIL)
        raise _error_texts.another_recv_waits()  # pragma: no cover (another thread)
    return self.head.pop()


@cython.critical_section
cdef object stop_with_head(MessageIterator self):
    if not PyList_GET_SIZE(self.head):
        raise _error_texts.another_recv_waits()
    stop = StopIteration(self.head[-1])  # before it is taken: memory may run out
    self.head.pop()
    return stop


cdef bint await_message(NextMessage self) except -1:
    """Return whether a message is ready, and False when the task must wait for the waiter."""
    cdef ReceivePath protocol = self._protocol
    protocol._check_thread()
    if self._waiter is not None:
        self._close()
        protocol._take_batch()
    while not is_ready(self._messages):
        if protocol._recv_waiter is not None:
            raise _error_texts.another_recv_waits()
        if protocol._inbox.unframed is not None:
            protocol.reframe()
        if not protocol.batches:
            if protocol._inbox.failure is not None or protocol._send_path.state >= CLOSED:
                # Its own coroutine raises: who sees the traceback finds the stream in it.
                self._messages._stream.__anext__().send(None)
            self._waiter = protocol._begin_waiting()
            self._waiter._asyncio_future_blocking = True
            return False
        protocol._take_batch()
    return True


cdef object take_next(object next_message, int* waits):
    cdef NextMessage self = <NextMessage>next_message
    if await_message(self):
        return take_head(self._messages)
    waits[0] = 1
    return self._waiter


_take_next = take_next
_complete(NextMessage, _send_next)


@cython.final
cdef class ObjectIterator:
    """The asynchronous iterator of a stream whose codec has objects.

    See `framecodec.asyncio._fast_path_py.ObjectIterator`, its twin.
    """

    cdef MessageIterator _messages
    cdef object _loads
    cdef object _refuse

    def __cinit__(self, MessageIterator messages not None, loads, refuse):
        self._messages = messages
        self._loads = loads
        self._refuse = refuse

    def __aiter__(self):
        return self

    def __anext__(self):
        with cython.critical_section(self._messages):
            if self._messages.head:
                return self
        return self._messages._stream.__anext__()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration(take_object(self))

    # ``create_task`` takes it for a coroutine.

    def send(self, value):
        """End at once, as a coroutine without a wait does."""
        raise StopIteration(take_object(self))

    def throw(self, *error):
        """Raise the exception: a task was cancelled before its first step. Take no message."""
        raise exception_of(error)

    def close(self):
        """Do nothing, as a coroutine that has ended does."""

    def __reduce__(self):
        raise _error_texts.not_copied(self)


cdef object take_object(object objects):
    cdef ObjectIterator self = <ObjectIterator>objects
    return object_of(self, take(self._messages))


cdef object object_of(ObjectIterator self, message):
    try:
        return self._loads(message)
    except BaseException as cause:
        self._refuse(message, cause)


_take_object = take_object
_complete(ObjectIterator, _send_object)


@cython.final
cdef class ObjectSender:
    """A function that makes a message of an object and sends it.

    See `framecodec.asyncio._fast_path_py.ObjectSender`, its twin.
    """

    cdef object _dumps
    cdef object _send

    def __cinit__(self, dumps, send):
        self._dumps = dumps
        self._send = send

    def send(self, message, /):
        """Send an object: this is ``send`` of a connection whose codec has objects."""
        return self._send(self._dumps(message))

    def __reduce__(self):
        raise _error_texts.not_copied(self)


@cython.final
cdef class ReadyIterator:
    """The ready messages of a stream; each step takes one.

    See `framecodec.asyncio._fast_path_py.ReadyIterator`, its twin.
    """

    cdef MessageIterator _messages

    def __cinit__(self, MessageIterator messages not None):
        self._messages = messages

    def __iter__(self):
        return self

    def __next__(self):
        cdef MessageIterator messages = self._messages
        with cython.critical_section(messages):
            if not prepare_take(messages):
                raise StopIteration
            return messages.head.pop()

    def __reduce__(self):
        raise _error_texts.not_copied(self)


@cython.final
cdef class ReadyObjects:
    """The ready objects of a stream; each step takes one.

    See `framecodec.asyncio._fast_path_py.ReadyObjects`, its twin.
    """

    cdef ObjectIterator _objects

    def __cinit__(self, ObjectIterator objects not None):
        self._objects = objects

    def __iter__(self):
        return self

    def __next__(self):
        cdef MessageIterator messages = self._objects._messages
        with cython.critical_section(messages):
            if not prepare_take(messages):
                raise StopIteration
            message = messages.head.pop()
        return object_of(self._objects, message)

    def __reduce__(self):
        raise _error_texts.not_copied(self)


@cython.final
cdef class SendBatch:
    """The small messages that were sent in one iteration of an event loop.

    See `framecodec.asyncio._fast_path_py.SendBatch`, its twin.
    """

    cdef readonly list messages
    cdef public Py_ssize_t budget
    cdef public Py_ssize_t fast_size
    cdef public bint paused
    cdef public bint queued
    cdef public unsigned long thread
    cdef object _owner
    cdef object _completed
    cdef Py_ssize_t _size

    def __cinit__(self, owner, Py_ssize_t budget):
        self._owner = owner
        self._completed = CompletedAwaitable()
        self._size = self.budget = budget
        self.messages = []
        self.paused = True

    def send(self, message, /):
        """Accept one message; this is `FrameProtocol.send`."""
        if not self._is_in_loop() or not self._add(message):
            self._owner.put(message)

    def send_and_wait(self, message, /):
        """Accept one message and return an awaitable; this is `FrameStream.send`."""
        if self._is_in_loop() and not self.paused and not self.queued and self._add(message):
            return self._completed
        return self._owner.put_and_wait(message)

    cdef inline bint _is_in_loop(self) noexcept:
        """Return whether this is the thread of the connection's event loop."""
        return self.thread == <unsigned long>PyThread_get_thread_ident()

    cdef inline bint _add(self, message) except -1:
        cdef Py_ssize_t size
        if not PyBytes_CheckExact(message):
            return False
        size = PyBytes_GET_SIZE(message)
        if size >= self.fast_size or size >= self.budget:
            return False
        self.messages.append(message)
        self.budget -= size + 8
        return True

    def clear(self):
        """Drop the messages: they were written, or never will be."""
        self.messages.clear()
        self.budget = self._size

    def __reduce__(self):
        raise _error_texts.not_copied(self)


@cython.final
cdef class Waiter:
    """What a task waits for that receives: a future that can run the task at once.

    See `framecodec.asyncio._fast_path_py.Waiter`, its twin.
    """

    cdef public bint _asyncio_future_blocking
    cdef object _loop
    cdef object _current_task
    cdef object _callback
    cdef object _context
    cdef object _cancelled_by
    cdef bint _done

    def __cinit__(self, loop, current_task):
        self._loop = loop
        self._current_task = current_task

    def run(self):
        """End the wait, and run the task that waits. Return False if it can only run later."""
        return self._run()

    cdef bint _run(self) except -1:
        with cython.critical_section(self):
            callback, context, done = self._callback, self._context, self._done
        if done or callback is None or context is None or not self._is_between_tasks():
            self.set_result(None)
            return False
        try:
            PyContext_Enter(context)
        except RuntimeError:  # something that the task has called runs in it
            self.set_result(None)
            return False
        with cython.critical_section(self):
            self._done = True
            self._callback = self._context = None
        try:
            callback(self)
        except BaseException as error:  # it ends the program
            self._loop.call_soon(raise_error, error)
        finally:
            PyContext_Exit(context)
        return True

    cdef bint _is_between_tasks(self) except -1:
        try:
            return self._current_task() is None
        except RuntimeError:  # no loop runs
            return False

    @cython.critical_section
    def set_result(self, result, /):
        """End the wait; the task runs in the next iteration of the loop."""
        if not self._done:
            self._schedule()

    @cython.critical_section
    def cancel(self, msg=None):
        """Cancel the wait. Return whether it had not ended."""
        if self._done:
            return False
        self._cancelled_by = (msg,)
        self._schedule()
        return True

    cdef int _schedule(self) except -1:
        if self._callback is not None:
            self._loop.call_soon(self._callback, self, context=self._context)
        self._done = True
        self._callback = self._context = None

    @cython.critical_section
    def result(self):
        """Return None, or raise the error of a wait that was cancelled."""
        if self._cancelled_by is not None or not self._done:
            future = self._loop.create_future()
            if self._cancelled_by is not None:
                future.cancel(*self._cancelled_by)
            future.result()  # raises asyncio's own error

    def exception(self):
        """Return None, or raise as `result`."""
        self.result()

    def done(self):
        """Return whether the wait has ended."""
        return self._done

    def cancelled(self):
        """Return whether the wait was cancelled."""
        return self._cancelled_by is not None

    def get_loop(self):
        """Return the loop of the task that waits."""
        return self._loop

    @cython.critical_section
    def add_done_callback(self, callback, context=None):
        """Call a function at the end of the wait: one that wakes the only task that waits."""
        if self._done:
            self._loop.call_soon(callback, self, context=context)
        elif self._callback is not None:
            raise _error_texts.another_recv_waits()
        else:
            self._callback, self._context = callback, context

    @cython.critical_section
    def remove_done_callback(self, callback):
        """Call the function no more. Return how many were removed."""
        if self._callback is None or self._callback != callback:
            return 0
        self._callback = self._context = None
        return 1

    def __await__(self):
        return WaiterIterator.__new__(WaiterIterator, self)

    def __reduce__(self):
        raise _error_texts.not_copied(self)


@cython.final
cdef class WaiterIterator:
    """One ``await`` of a waiter."""

    cdef Waiter _waiter
    cdef bint _started

    def __cinit__(self, Waiter waiter not None):
        self._waiter = waiter

    def __iter__(self):
        return self

    def __next__(self):
        if self._started or self._waiter._done:
            self._waiter.result()
            raise StopIteration
        self._started = self._waiter._asyncio_future_blocking = True
        return self._waiter

    def send(self, value):
        """Continue, as a generator does."""
        return self.__next__()

    def throw(self, *error):
        """Raise the exception: the task was cancelled."""
        raise exception_of(error)

    def close(self):
        """Do nothing, as a generator that has ended does."""

    def __reduce__(self):
        raise _error_texts.not_copied(self)


def raise_error(error):
    """Raise an error, as a callback of the loop."""
    raise error


@cython.auto_pickle(False)
cdef class SendPath:
    """The part of a send side that each message passes.

    See `framecodec.asyncio._fast_path_py.SendPath`, its twin.
    """

    cdef public SendBatch batch
    cdef public object raw_transport
    cdef public object state
    cdef public object _encode_many
    cdef public object _get_protocol
    cdef public object _is_closing
    cdef public object _late
    cdef public object _outbox
    cdef public object _protocol
    cdef public Py_ssize_t fast_size
    cdef public bint busy
    cdef public bint flush_scheduled
    cdef public int socket_errno
    cdef public int socket_fd

    def __cinit__(self, *_):
        self.socket_fd = -1

    def flush(self):
        """Write what this iteration of the loop has gathered."""
        self._flush()

    def write_batch(self):
        """Write the batch, or append it to the outbox and write that, as far as possible."""
        self._write_batch()

    cdef int _flush(self) except -1:
        self.flush_scheduled = False
        self.batch.fast_size = 0
        return self._write_batch()

    cdef int _write_batch(self) except -1:
        cdef SendBatch batch
        if self.busy:  # the call that is in progress writes everything
            return 0
        batch = self.batch
        if batch.messages:
            if batch.paused or self._outbox.size:
                self._move_batch()
            else:
                if self._get_protocol is not None and self._get_protocol() is not self._protocol:
                    batch.clear()  # it was for another transport
                    raise self._handed_over()
                self.busy = True
                batch.fast_size = 0
                try:
                    data = self._encode_many(batch.messages)
                    batch.clear()
                    if self.socket_fd >= 0:
                        data = self._send_at_once(data)
                    if data is not None:
                        self._give_transport(data)
                    if self._late or self.flush_scheduled:
                        self._finish_work()
                    self.busy = False
                except BaseException as error:
                    self.fail(error)
                    raise
                if self.state is OPEN and not self._outbox.size:
                    return 0
        self.flush_outbox()
        return 0

    cdef object _send_at_once(self, bytes data):
        """Give the kernel bytes past the transport. Return those that are left, or None."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), sent
        raw = self.raw_transport
        if self._is_closing() is True or raw.get_write_buffer_size():
            return data
        if getattr(raw, "_empty_waiter", None) is not None:
            return data  # loop.sendfile() is in progress: the transport refuses
        # With the GIL: a call that does not wait takes less time than to get it back.
        sent = _send(self.socket_fd, PyBytes_AS_STRING(data), <size_t>size)
        if sent == size:
            return None
        if sent >= 0:
            return memoryview(data)[sent:]
        if errno == EAGAIN or errno == EINTR:
            return data
        self.socket_errno = errno
        self.batch.paused = True
        raw.abort()
        return None

    cdef int _give_transport(self, data) except -1:
        self.raw_transport.write(data if len(data) < _JOIN_SIZE else memoryview(data))
        if self._is_closing() is True and not self.closed_here:
            self.batch.paused = True  # as in _feed_transport()
        return 0

    cdef bint _begin_gathering(self) except -1:
        """Let small messages wait in the batch until `_end_gathering`. Return its argument."""
        cdef bint flush_scheduled
        if self.busy:  # the transport delivers inside its write: the call that writes takes them
            return True
        flush_scheduled = self.flush_scheduled
        if self.state is OPEN:
            self.flush_scheduled = True
            self.batch.fast_size = self.fast_size
        return flush_scheduled

    cdef int _end_gathering(self, bint flush_scheduled) except -1:
        if not flush_scheduled:
            if self.state >= CLOSED:
                self.batch.fast_size = 0
            else:
                self._flush()


@cython.auto_pickle(False)
cdef class ReceivePath:
    """The part of a protocol that each read and each message pass.

    See `framecodec.asyncio._fast_path_py.ReceivePath`, its twin.
    """

    cdef public object batches
    cdef public MessageIterator _message_iterator
    cdef public object _head_gaps
    cdef public object _head_headers
    cdef public object _inbox
    cdef public object _objects
    cdef public object _peer_timer
    cdef public object _read_size
    cdef public object _switched
    cdef public Waiter _recv_waiter
    cdef public ReadyTasks _ready_tasks
    cdef public long long _head_size
    cdef public long long _held
    cdef public long long _taken
    cdef public bint _delivering
    cdef public bint _one_at_a_time
    cdef public bint _queues
    cdef public bint _reading_paused
    cdef public bint _receiving
    cdef public bint _receiving_failed
    cdef bint _flush_was_scheduled
    cdef bint _has_run
    cdef bint _is_put_off
    cdef bint _runs
    cdef SendPath _send_path

    @property
    @cython.critical_section
    def _sending(self):
        return self._send_path

    @_sending.setter
    @cython.critical_section
    def _sending(self, sending):
        self._send_path = sending

    def get_buffer(self, sizehint):
        """Return memory for the transport to read into.

        Args:
            sizehint: Ignored: asyncio gives -1, uvloop 64 KiB, TLS the size of encrypted bytes.
        """
        # Without a try: where memory runs out, an except clause of Cython can get no traceback, and
        # crashes when it releases it.
        splitter = self._inbox.splitter
        if splitter.error is not None:
            return memoryview(bytearray(_FIRST_READ_SIZE))  # the transport reads until it closes
        return splitter.get_room(self._read_size)

    def buffer_updated(self, nbytes):
        """Parse bytes that the transport has read, and deliver the messages that they complete.

        Args:
            nbytes: Bytes that were read into the memory that `get_buffer` returned.
        """
        is_full = nbytes >= self._read_size
        if is_full:
            self._read_size = READ_SIZE
        elif nbytes < _SMALL_READ and self._peer_timer is not None:
            self._peer_timer.emptied = not self._send_path.is_encrypted
        if self._receiving_failed:
            return
        if self._receiving:
            raise _error_texts.reentered()
        if self._one_at_a_time:
            self._read(self._inbox.splitter.buffer_updated, nbytes)
            return
        cdef bint has_failed = False
        splitter = self._inbox.splitter
        self._receiving = True
        try:
            messages = splitter.buffer_updated(nbytes)
            if messages:
                self._give(messages)
        except BaseException as error:
            if not self._receiving:  # raised by messages_received()
                raise
            # Not left by a `return`: Cython's code would crash where no memory was left for a
            # traceback.
            messages = None
            self._receiving = False
            self._fail_receiving(error)
            has_failed = True
        if has_failed:
            return
        self._receiving = False
        if self._switched is not None:
            self._read_switched()
        elif splitter.error is not None:
            if self._send_path.state < CLOSED:  # not by set_protocol()
                self._fail_receiving(splitter.error)
        elif self._peer_timer is not None:
            self._peer_timer.note_arrival()
        if self._recv_waiter is not None and self.batches:
            if is_full:  # uvloop reads on before other tasks run: what is held must stop it
                self._wake()
            elif self._ready_tasks is None or not self._ready_tasks._put_off(self):
                self._begin_receiver()
                self._end_receiver()

    def _deliver(self, list messages not None):
        self._give(messages)

    cdef int _give(self, list messages) except -1:
        cdef SendPath sending = self._send_path
        cdef bint flush_scheduled
        if self._queues:
            self._enqueue(messages)
            return 0
        flush_scheduled = sending._begin_gathering()
        self._delivering = True
        try:
            if self._objects is not None:
                self._deliver_objects(messages)
            else:
                self._receiving = False  # no call from here to the user's own function
                self.messages_received(messages)
        finally:
            self._delivering = False
            sending._end_gathering(flush_scheduled)

    cdef int _enqueue(self, list messages) except -1:
        cdef long long taken, size
        messages.reverse()
        splitter = self._inbox.splitter
        taken = splitter.stream_offset if self._objects is None else self._end_of_frames()
        size = taken - self._taken + _MESSAGE_COST * PyList_GET_SIZE(messages)
        gaps = None if self._objects is None else splitter._gaps
        self.batches.append((messages, size, splitter.headers, gaps))
        self._taken = taken
        self._held += size
        if self._held > _HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self._send_path.raw_transport.pause_reading()
        if not self._receiving:
            self._wake()

    cdef int _begin_receiver(self) except -1:
        """Run the task that waits to receive. `_end_receiver` writes what it sends."""
        cdef Waiter waiter = self._recv_waiter  # what it calls may end the wait, and drop it
        if self._runs or waiter is None or waiter._done or not self.batches:
            return 0
        self._flush_was_scheduled = self._send_path._begin_gathering()
        self._has_run, self._runs = False, True
        try:
            self._has_run = waiter._run()
        except BaseException:
            try:
                waiter.set_result(None)  # no other message may come that would wake the task
            finally:
                self._end_receiver()
            raise
        return 0

    cdef int _end_receiver(self) except -1:
        cdef SendPath sending = self._send_path
        if not self._runs:
            return 0
        self._runs = False
        if self._has_run or self._flush_was_scheduled or sending.state >= CLOSED:
            sending._end_gathering(self._flush_was_scheduled)
        else:
            sending.flush_scheduled = False
            sending.batch.fast_size = 0
            if sending.state < CLOSING:
                sending.flush_soon()  # runs after the task's next step
        return 0

    # --- for a recv -------------------------------------------------------------------------------

    def begin_waiting(self):
        """Return what a recv waits for; no message is ready, and receiving has not failed."""
        return self._begin_waiting()

    cdef inline bint _is_in_loop(self) noexcept:
        """Return whether this is the thread of the connection's event loop, if it has one yet."""
        cdef SendPath sending = self._send_path
        cdef unsigned long thread
        if sending is None or sending.batch is None:
            return True
        thread = sending.batch.thread
        return not thread or thread == <unsigned long>PyThread_get_thread_ident()

    cdef inline int _check_thread(self) except -1:
        if not self._is_in_loop():
            self._send_path.check_thread()
        return 0

    @cython.critical_section
    cdef Waiter _begin_waiting(self):
        cdef Waiter waiter
        self._check_thread()
        if self._reading_paused:  # an error in release_head() may have left it so
            self._resume_when_low()
        waiter = Waiter.__new__(Waiter, self._running_loop(), self._current_task)
        if self._peer_timer is not None:
            self._peer_timer.start_waiting()
        self._recv_waiter = waiter
        return waiter

    def stop_waiting(self):
        """End the wait of a recv, also one that was cancelled or that did not start."""
        self._stop_waiting()

    @cython.critical_section
    cdef int _stop_waiting(self) except -1:
        if not self._is_in_loop():  # it was refused: the wait is another one's
            return 0
        self._recv_waiter = None
        if self._peer_timer is not None:
            self._peer_timer.stop_waiting(bool(self.batches))
        return 0

    def take_batch(self):
        """Move the next batch to `_message_iterator.head`, if that is empty."""
        self._take_batch()

    @cython.critical_section
    cdef int _take_batch(self) except -1:
        cdef MessageIterator messages = self._message_iterator
        self._check_thread()
        if self.batches:
            with cython.critical_section(messages):
                if not messages.head:
                    messages.head, size, self._head_headers, self._head_gaps = self.batches[0]
                    self._head_size = size
                    del self.batches[0]
        return 0

    @cython.critical_section
    def release_head(self):
        """Count the last message of `_message_iterator.head` as taken."""
        self._check_thread()
        self._held -= self._head_size
        self._head_size = 0
        if self._reading_paused:
            self._resume_when_low()


@cython.final
cdef class ReadyTasks:
    """The tasks for which messages were read in one iteration of an event loop.

    See `framecodec.asyncio._fast_path_py.ReadyTasks`, its twin.
    """

    cdef list _paths
    cdef int _count_alone
    cdef bint _together

    def __cinit__(self):
        self._paths = []

    def put_off(self, ReceivePath path not None):
        """Let a task wait until all connections were read. Return whether it does."""
        return path._recv_waiter is not None and self._put_off(path)

    cdef bint _put_off(self, ReceivePath path) except -1:
        if not self._together:
            self._count_alone += 1
            if self._count_alone < _TRY_AGAIN:
                return False
        if not self._paths or path._is_put_off:
            path._recv_waiter._loop.call_soon(self.run)
        self._paths.append(path)
        path._is_put_off = True
        return True

    def run(self):
        """Run the tasks, then write what they have sent."""
        cdef list paths = self._paths
        cdef Py_ssize_t size = PyList_GET_SIZE(paths), start = 0
        cdef object failure = None
        self._together = size > 1
        self._count_alone = 0
        self._paths = []
        while start < size:
            failure = run_some(paths, start, min(start + _MOST_TASKS, size), failure)
            start += _MOST_TASKS
        if failure is not None:
            raise failure

    def __reduce__(self):
        raise _error_texts.not_copied(self)


cdef object run_some(list paths, Py_ssize_t start, Py_ssize_t stop, failure):
    """Run some of the tasks, all of them even if one fails; return the failure."""
    cdef ReceivePath path
    cdef Py_ssize_t position
    for position in range(start, stop):
        path = <ReceivePath>paths[position]
        path._is_put_off = False
        try:
            path._begin_receiver()
        except BaseException as error:
            failure = error
    for position in range(start, stop):
        path = <ReceivePath>paths[position]
        try:
            path._end_receiver()
        except BaseException as error:
            failure = error
    return failure


remember_module_state()
