# cython: language_level=3
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The short way through an event loop, compiled: what a message costs that need not wait.

See `_loop_io_py`, its twin. What this one saves are coroutines: the awaitables here have the slot
``am_send`` of type objects, by which an ``await`` gets its result without an exception or an
iterator. Cython has no name for that slot, so a few lines of C fill it.
"""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.pythread cimport PyThread_get_thread_ident

from . import _error_texts

__all__ = ["Done", "Messages", "Ready", "Turn"]

cdef extern from *:
    """
    static PyObject *(*framecodec_take)(PyObject *messages);

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

    #define framecodec_complete(type, send) \
        (((PyTypeObject *)(type))->tp_as_async->am_send = (send))
    """
    ctypedef void* sendfunc
    sendfunc _send_done "framecodec_send_done"
    sendfunc _send_message "framecodec_send_message"
    void _complete "framecodec_complete" (object type, sendfunc send)
    object (*_take "framecodec_take")(object messages)


@cython.final
cdef class Done:
    """An awaitable of something that is done.

    See `framecodec._loop_io_py.Done`, its twin.
    """

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        """As of a coroutine that ends at once."""
        raise StopIteration

    def throw(self, *error):
        """As of a coroutine: a task that is cancelled before it has begun."""
        raised = exception_of(error)
        raised.message_started = True
        raise raised

    def close(self):
        """As of a coroutine that has run to its end."""

    def __reduce__(self):
        raise _error_texts.not_copied(self)


cdef object exception_of(tuple error):
    """The exception that throw() was given: as one, or as its class, a value and a traceback."""
    raised = error[1] if len(error) > 1 and error[1] is not None else error[0]
    return raised() if isinstance(raised, type) else raised


@cython.final
cdef class Messages:
    """What ``async for`` goes through: messages at hand, and behind them those of the stream.

    See `framecodec._loop_io_py.Messages`, its twin.
    """

    cdef public list head
    cdef object _stream
    cdef object _emptied

    def __cinit__(self, stream, emptied):
        self._stream = stream
        self._emptied = emptied
        self.head = []

    def __aiter__(self):
        return self

    def __anext__(self):
        # It is its own awaitable: what is at hand is taken when it is awaited.
        return self if self.head else self._stream.__anext__()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise stop_with_next(self)

    # For ``create_task`` it passes for a coroutine.

    def send(self, value):
        """As of a coroutine that ends at once."""
        raise stop_with_next(self)

    def throw(self, *error):
        """As of a coroutine: a task that is cancelled before it has begun. Nothing is taken."""
        raise exception_of(error)

    def close(self):
        """As of a coroutine that has run to its end."""

    def __reduce__(self):
        raise _error_texts.not_copied(self)


cdef int settle(Messages self) except -1:
    """Whether there is a message. The last one at hand is counted as taken before it is: where that
    fails, nothing is lost."""
    if PyList_GET_SIZE(self.head) == 1:
        self._emptied()  # other code runs here, and may take it
    return PyList_GET_SIZE(self.head) > 0


cdef object taken(object messages):
    cdef Messages self = <Messages>messages
    if not settle(self):
        raise _error_texts.another_recv_waits()
    return self.head.pop()


cdef object stop_with_next(Messages self):
    if not settle(self):
        raise _error_texts.another_recv_waits()
    stop = StopIteration(self.head[-1])  # before it is taken: memory may run out
    self.head.pop()
    return stop


_take = taken
_complete(Done, _send_done)
_complete(Messages, _send_message)


@cython.final
cdef class Ready:
    """The messages at hand, each taken by the step that gives it.

    See `framecodec._loop_io_py.Ready`, its twin.
    """

    cdef Messages _messages

    def __cinit__(self, Messages messages not None):
        self._messages = messages

    def __iter__(self):
        return self

    def __next__(self):
        if not settle(self._messages):
            raise StopIteration
        return self._messages.head.pop()

    def __reduce__(self):
        raise _error_texts.not_copied(self)


cdef object DONE = Done()


@cython.final
cdef class Turn:
    """The small messages of one turn of an event loop.

    See `framecodec._loop_io_py.Turn`, its twin.
    """

    cdef readonly list messages
    cdef public Py_ssize_t room
    cdef public Py_ssize_t quick
    cdef public bint paused
    cdef public bint queued
    cdef public unsigned long thread
    cdef object _protocol
    cdef Py_ssize_t _most

    def __cinit__(self, protocol, Py_ssize_t room):
        self._protocol = protocol
        self._most = self.room = room
        self.messages = []
        self.paused = True

    def send(self, message, /):
        """Takes one message, as `FrameProtocol.send`."""
        if not self._take(message):
            self._protocol._put(message)

    def send_and_wait(self, message, /):
        """Takes one message, as `FrameStream.send`."""
        if not self.paused and not self.queued and self._take(message):
            return DONE
        return self._protocol._put_and_wait(message)

    cdef inline bint _take(self, message) except -1:
        cdef Py_ssize_t size
        if not PyBytes_CheckExact(message):
            return False
        size = PyBytes_GET_SIZE(message)
        if size >= self.quick or size >= self.room:
            return False
        if self.thread != <unsigned long>PyThread_get_thread_ident():
            return False
        self.messages.append(message)
        self.room -= size + 8
        return True

    def clear(self):
        """Forgets the messages: they have left, or never will."""
        self.messages.clear()
        self.room = self._most

    def __reduce__(self):
        raise _error_texts.not_copied(self)
