# cython: language_level=3
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The fast path of a message through an event loop, compiled.

See `_fast_path_py`, its twin. This one also saves coroutines: the awaitables here have the slot
``am_send`` of type objects, by which an ``await`` gets its result without an exception or an
iterator. Cython has no name for that slot, so a few lines of C fill it.
"""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.pythread cimport PyThread_get_thread_ident

from framecodec._module_state cimport remember_module_state

from framecodec import _error_texts

__all__ = [
    "CompletedAwaitable",
    "MessageIterator",
    "ObjectIterator",
    "ObjectSender",
    "ReadyIterator",
    "SendBatch",
]

cdef extern from *:
    """
    static PyObject *(*framecodec_take)(PyObject *messages);
    static PyObject *(*framecodec_take_object)(PyObject *objects);

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

    #define framecodec_complete(type, send) \
        (((PyTypeObject *)(type))->tp_as_async->am_send = (send))
    """
    ctypedef void* sendfunc
    sendfunc _send_done "framecodec_send_done"
    sendfunc _send_message "framecodec_send_message"
    sendfunc _send_object "framecodec_send_object"
    void _complete "framecodec_complete" (object type, sendfunc send)
    object (*_take_message "framecodec_take")(object messages)
    object (*_take_object "framecodec_take_object")(object objects)


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
    cdef object _stream
    cdef object _on_drained

    def __cinit__(self, stream, on_drained):
        self._stream = stream
        self._on_drained = on_drained
        self.head = []

    def __aiter__(self):
        return self

    def __anext__(self):
        # The iterator is its own awaitable: it takes the message when it is awaited.
        return self if self.head else self._stream.__anext__()

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
    nothing is lost."""
    if PyList_GET_SIZE(self.head) == 1:
        self._on_drained()  # other code runs here, and may take the message
    return PyList_GET_SIZE(self.head) > 0


cdef object take(object messages):
    cdef MessageIterator self = <MessageIterator>messages
    if not prepare_take(self):
        raise _error_texts.another_recv_waits()
    return self.head.pop()


cdef object stop_with_next(MessageIterator self):
    if not prepare_take(self):
        raise _error_texts.another_recv_waits()
    stop = StopIteration(self.head[-1])  # before it is taken: memory may run out
    self.head.pop()
    return stop


_take_message = take
_complete(CompletedAwaitable, _send_done)
_complete(MessageIterator, _send_message)


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
        return self if self._messages.head else self._messages._stream.__anext__()

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
    message = take(self._messages)
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
        if not prepare_take(self._messages):
            raise StopIteration
        return self._messages.head.pop()

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
        if not self._add(message):
            self._owner.put(message)

    def send_and_wait(self, message, /):
        """Accept one message and return an awaitable; this is `FrameStream.send`."""
        if not self.paused and not self.queued and self._add(message):
            return self._completed
        return self._owner.put_and_wait(message)

    cdef inline bint _add(self, message) except -1:
        cdef Py_ssize_t size
        if not PyBytes_CheckExact(message):
            return False
        size = PyBytes_GET_SIZE(message)
        if size >= self.fast_size or size >= self.budget:
            return False
        if self.thread != <unsigned long>PyThread_get_thread_ident():
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


remember_module_state()
