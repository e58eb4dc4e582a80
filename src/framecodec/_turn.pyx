# cython: language_level=3
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""What is sent in one turn of an event loop, compiled.

See `_turn_py`, its twin.
"""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE

__all__ = ["Turn"]


@cython.final
cdef class Turn:
    """The small messages of one turn of an event loop.

    See `framecodec._turn_py.Turn`, its twin.
    """

    cdef readonly list messages
    cdef public Py_ssize_t room
    cdef public Py_ssize_t quick
    cdef public bint paused
    cdef public object sent
    cdef object _protocol
    cdef Py_ssize_t _most

    def __init__(self, protocol, Py_ssize_t room):
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
        if not self.paused and self._take(message):
            return self.sent
        return self._protocol._put_and_wait(message)

    cdef inline bint _take(self, message) except -1:
        cdef Py_ssize_t size
        if not PyBytes_CheckExact(message):
            return False
        size = PyBytes_GET_SIZE(message)
        if size >= self.quick or size >= self.room:
            return False
        self.messages.append(message)
        self.room -= size + 8
        return True

    def clear(self):
        """Forgets the messages: they have left, or never will."""
        self.messages.clear()
        self.room = self._most
