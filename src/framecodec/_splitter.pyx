# cython: language_level=3
# The hot loop indexes C memory only, behind comparisons of its own:
# cython: boundscheck=False, wraparound=False, cdivision=True
# A method of one positional argument becomes METH_O (a call costs 70 instead of 78 ns), and still
# shows its signature:
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The engine in Cython: bytes in, messages out; messages in, bytes out.

`_splitter_py.py` is the specification: the same rooms in the same order under the same names, and
what is said there of a splitter's duty and plan holds here. Whoever changes one changes the other,
docstrings of what is public too: ``help(framecodec.Splitter)`` shows those of the engine in use.

What is different here
    The hot loop reads C memory and touches no Python object but the messages that it makes. A
    message that is cut off grows in the `bytes` object that will be delivered, so it is copied
    once; its size doubles with what arrived, so that nothing is allocated from a declared length
    alone.

    Fields that the loop compares are plain C numbers, copied from the layout at construction. Wire
    values are uint64_t, sizes in memory Py_ssize_t; a value becomes a size only after it was
    compared with a limit that a Py_ssize_t holds. Sums of sizes cannot overflow: each is at most
    LARGEST_SIZE, half of what a Py_ssize_t holds.

    The state is consistent whenever Python code may run: in errors, in the user's parse(), nowhere
    else.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

import operator
from collections.abc import Sequence

from . import _error_texts, errors
from ._bytes_like import view_bytes
from ._custom_header import build_header, read_header
from ._header_block import read_lines
from ._layout import Layout
from ._likely_causes import SAMPLE_SIZE

__all__ = ["Encoder", "Spans", "Splitter", "scan"]

# The kinds of length field, as in _layout.py (a comparison with a module's variable would cost the
# hot loop 3 ns a message).
cdef enum:
    UINT = 0
    DIGITS = 1
    VARINT = 2
    TEXT = 3
    HEADERS = 4
    CUSTOM = 5

cdef enum:
    IN_HEADER
    IN_REST
    IN_TRAILER

# What get_buffer() or get_room() gave and buffer_updated() has not reported yet. feed() withdraws
# what get_room() gave: everything from GIVEN_BY_GET_ROOM up.
cdef enum:
    NOTHING
    A_BUFFER  # the receive buffer
    GIVEN_BY_GET_ROOM
    A_BUFFER_AS_ROOM = GIVEN_BY_GET_ROOM  # the receive buffer, given by get_room()
    A_ROOM  # memory of the message that is being filled

cdef enum:
    # The buffer that get_buffer() gives when the caller has no wish, and the least and most it may
    # wish.
    BUFFER_SIZE = 65536
    SMALLEST_BUFFER_SIZE = 1024
    LARGEST_BUFFER_SIZE = 1048576

    # A header that may be longer is gathered by steps: so many bytes, then as many again as there
    # are.
    FIRST_HEADER = 256

    # Less than this is not worth a way of its own.
    SMALLEST_ROOM = 65536

    # An unfinished message's first allocation, where it has so many bytes.
    FIRST_ROOM = 4096
    # Added whenever it grows, to grow less often.
    MORE_ROOM = 65536

    # From this size up a message is put on huge pages: the faults of 4 KiB pages would cost more
    # than the copy (7.3 against 5.5 ms for 16 MiB).
    HUGE_MESSAGE_SIZE = 2097152

    # How a length field that was looked at came out.
    MORE = 0  # more bytes are wanted
    ODD = 1  # it takes a second look to say what is wrong
    FOUND = 2


cdef object _layout_of(codec):
    layout = getattr(codec, "layout", None)
    if not isinstance(layout, Layout):
        raise _error_texts.not_a_codec(codec)
    return layout


# The bytes object of an unfinished message is held by a plain pointer: it is not whole yet, and
# moves when it grows.
cdef extern from "Python.h":
    PyObject* _new_bytes "PyBytes_FromStringAndSize" (const char*, Py_ssize_t) except NULL
    uint8_t* _bytes_at "(uint8_t *)PyBytes_AS_STRING" (PyObject*) noexcept
    # Items of a list of messages are borrowed, which saves two counts a message.
    PyObject* PyList_GET_ITEM(list, Py_ssize_t) noexcept
    bint _is_bytes "PyBytes_CheckExact" (PyObject*) noexcept
    Py_ssize_t _bytes_size "PyBytes_GET_SIZE" (PyObject*) noexcept
    Py_ssize_t Py_REFCNT(PyObject*) noexcept
    # As in _layout.py. A batch has no more, and its count of headers, of 8 bytes at most, cannot
    # overflow either.
    const Py_ssize_t LARGEST_SIZE "(PY_SSIZE_T_MAX / 2)"
    # Clips where the exception to raise is NULL.
    Py_ssize_t PyNumber_AsSsize_t(object, PyObject*) except? -1


cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    static void framecodec_want_huge_pages(void *start, Py_ssize_t size)
    {
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        const uintptr_t huge = 2 * 1024 * 1024;
        uintptr_t first = ((uintptr_t)start + huge - 1) & ~(huge - 1);
        uintptr_t last = ((uintptr_t)start + (uintptr_t)size) & ~(huge - 1);
        if (last > first)
            (void)madvise((void *)first, last - first, MADV_HUGEPAGE);
    #else
        (void)start;
        (void)size;
    #endif
    }
    """
    void _want_huge_pages "framecodec_want_huge_pages" (void* start, Py_ssize_t size) noexcept


cdef extern from *:
    """
    /* Changes the size of a bytes object that nothing else refers to. Where _PyBytes_Resize()
       destroys the object when memory is short, this one leaves it as it was: what a peer has sent
       is not lost. Returns NULL then, without an exception. */
    static PyObject *framecodec_resize_bytes(PyObject *object, Py_ssize_t size)
    {
    #ifdef Py_TRACE_REFS /* the interpreter has a table of all objects, which must not move */
        PyObject *moved = PyBytes_FromStringAndSize(NULL, size);
        if (moved == NULL) {
            PyErr_Clear();
            return NULL;
        }
        Py_ssize_t kept = PyBytes_GET_SIZE(object) < size ? PyBytes_GET_SIZE(object) : size;
        memcpy(PyBytes_AS_STRING(moved), PyBytes_AS_STRING(object), (size_t)kept);
        Py_DECREF(object);
        return moved;
    #else
        PyObject *moved = (PyObject *)PyObject_Realloc(
            object, offsetof(PyBytesObject, ob_sval) + (size_t)size + 1);
        if (moved == NULL)
            return NULL;
        Py_SET_SIZE((PyVarObject *)moved, size);
        PyBytes_AS_STRING(moved)[size] = '\\0';
        return moved;
    #endif
    }
    """
    PyObject* _try_resize_bytes "framecodec_resize_bytes" (PyObject*, Py_ssize_t) noexcept


cdef Py_ssize_t _clipped_index(number) except? -1:
    """As an integer, clipped to what a Py_ssize_t holds."""
    if PyLong_CheckExact(number):
        return PyNumber_AsSsize_t(number, NULL)
    return PyNumber_AsSsize_t(operator.index(number), NULL)


cdef inline bytes _bytes_of(const uint8_t* data, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char*>data, size)


cdef class Splitter
cdef class Spans


cdef int _raise_what_is_set() except -1:
    return -1


ctypedef int (*_consume_unchecked)(Splitter, const uint8_t*, Py_ssize_t, list) noexcept


cdef inline int _consume(
    Splitter self, const uint8_t* data, Py_ssize_t size, list messages
) except -1:
    cdef const uint8_t* p = data
    cdef const uint8_t* end = data + size
    while p < end:
        if not self._pending:
            if self._plain:
                p += self._read_plain_frames(p, end, messages)
            else:
                p += self._read_whole_frames(p, end, messages)
            if p == end:
                break
        elif self._plain and self._rest_left:
            p += self._read_plain_rest(p, end - p, messages)
            continue
        if self._phase == IN_HEADER:
            p = self._read_header(data, p, end, messages)
        if self._phase == IN_REST:
            p += self._read_rest(p, end)
        if self._phase == IN_TRAILER:
            p += self._read_trailer(p, end, messages)
    return 0


# --- bytes and numbers ----------------------------------------------------------------------------


cdef inline void _copy(uint8_t* to, const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """memcpy(), whose call costs more than it does where a message is small: those are copied here,
    by pieces of fixed sizes, each one instruction, which overlap in the middle."""
    if size > 64:
        memcpy(to, data, size)
    elif size >= 16:
        memcpy(to, data, 16)
        if size > 32:
            memcpy(to + 16, data + 16, 16)
            memcpy(to + size - 32, data + size - 32, 16)
        memcpy(to + size - 16, data + size - 16, 16)
    elif size >= 8:
        memcpy(to, data, 8)
        memcpy(to + size - 8, data + size - 8, 8)
    elif size >= 4:
        memcpy(to, data, 4)
        memcpy(to + size - 4, data + size - 4, 4)
    elif size:
        to[0] = data[0]
        to[size >> 1] = data[size >> 1]
        to[size - 1] = data[size - 1]


cdef inline bytes _message_of(const uint8_t* data, Py_ssize_t size):
    cdef bytes message = PyBytes_FromStringAndSize(NULL, size)
    _copy(<uint8_t*>PyBytes_AS_STRING(message), data, size)
    return message


cdef inline uint64_t _load(const uint8_t* p, int width, bint little) noexcept nogil:
    """A binary number; gcc makes one load and one byte swap of the four shifts."""
    cdef uint64_t value = 0
    cdef int i
    if width == 4:
        if little:
            return p[0] | <uint64_t>p[1] << 8 | <uint64_t>p[2] << 16 | <uint64_t>p[3] << 24
        return <uint64_t>p[0] << 24 | <uint64_t>p[1] << 16 | <uint64_t>p[2] << 8 | p[3]
    if width == 2:
        return (p[0] | <uint64_t>p[1] << 8) if little else (<uint64_t>p[0] << 8 | p[1])
    if little:
        for i in range(width - 1, -1, -1):
            value = value << 8 | p[i]
    else:
        for i in range(width):
            value = value << 8 | p[i]
    return value


cdef inline void _store(uint8_t* p, uint64_t value, int width, bint little) noexcept nogil:
    cdef int i
    if width == 4 and not little:
        p[0] = (value >> 24) & 0xFF
        p[1] = (value >> 16) & 0xFF
        p[2] = (value >> 8) & 0xFF
        p[3] = value & 0xFF
    elif little:
        for i in range(width):
            p[i] = value & 0xFF
            value >>= 8
    else:
        for i in range(width - 1, -1, -1):
            p[i] = value & 0xFF
            value >>= 8


cdef inline void _store_varint(uint8_t* p, uint64_t value) noexcept nogil:
    while value > 0x7F:
        p[0] = value & 0x7F | 0x80
        value >>= 7
        p += 1
    p[0] = value & 0x7F


cdef inline void _store_digits(
    uint8_t* p, uint64_t value, Py_ssize_t width, int base
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int digit
    for i in range(width - 1, -1, -1):
        digit = value % base
        value //= base
        p[i] = c'0' + digit if digit < 10 else c'a' + digit - 10


cdef inline int _digit(uint8_t byte, int base) noexcept nogil:
    """The digit's value, or -1."""
    if c'0' <= byte <= c'9':
        return byte - c'0'
    if base == 16:
        if c'a' <= byte <= c'f':
            return byte - c'a' + 10
        if c'A' <= byte <= c'F':
            return byte - c'A' + 10
    return -1


cdef inline Py_ssize_t _common_size(
    const uint8_t* data, Py_ssize_t size, const uint8_t* wanted, Py_ssize_t wanted_size
) noexcept nogil:
    """How many first bytes are the same."""
    cdef Py_ssize_t i = 0
    while i < size and i < wanted_size and data[i] == wanted[i]:
        i += 1
    return i


# --- in -------------------------------------------------------------------------------------------


@cython.final
@cython.auto_pickle(False)
cdef class _Room:
    """Memory of an unfinished message, given to the caller that reads into it. It keeps the message
    alive, which is then copied before it is delivered."""

    cdef bytes message
    cdef Py_ssize_t pos
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if self.message is None:  # made by another caller than get_room()
            raise BufferError("this object has no memory: only get_room() makes one that has")
        cdef char* p = PyBytes_AS_STRING(self.message) + self.pos
        PyBuffer_FillInfo(buffer, self, p, self.size, False, flags)

    def __reduce__(self):
        raise _error_texts.not_copied(self)


@cython.final
@cython.auto_pickle(False)
cdef class Splitter:
    """Splitter(codec, *, raw=False, on_oversize="raise")\n--\n
    One connection's receiving state: bytes in, any chunking; messages out.

    Args:
        codec: The shape of the frames.
        raw: Deliver whole frames as they travelled (proxies, captures) instead of messages.
        on_oversize: What happens to a frame whose message is larger than the codec's
            ``max_message_size``: ``"raise"`` fails as soon as its header is in; ``"skip"`` discards
            exactly that frame in constant memory, counts it in `skipped`, and goes on.

    Raises:
        TypeError: `codec` is not a `Codec`.
        ValueError: `on_oversize` is neither of the two.
    """

    # The layout's numbers that the loops need.
    cdef object _layout
    cdef bytes _magic
    cdef bytes _trailer
    cdef bytes _end
    cdef const uint8_t* _magic_at
    cdef const uint8_t* _trailer_at
    cdef const uint8_t* _end_at
    cdef int _kind
    cdef int _width  # of the field: UINT, DIGITS exact; VARINT the longest
    cdef int _base
    cdef bint _little
    cdef bint _plain  # UINT, and nothing else in the frame but the rest; not scanning
    cdef bint _raw
    cdef bint _skip
    cdef Py_ssize_t _magic_size
    cdef Py_ssize_t _trailer_size
    cdef Py_ssize_t _end_size
    cdef Py_ssize_t _lead_size
    cdef Py_ssize_t _field_offset
    cdef Py_ssize_t _header_size_fixed  # 0 where it varies
    cdef Py_ssize_t _wanted  # header bytes up to which to gather
    cdef Py_ssize_t _adjustment
    cdef uint64_t _quick_low  # field values low .. low + span need no second look
    cdef uint64_t _quick_span

    # The pending frame.
    cdef int _phase
    cdef int64_t _stream_offset  # of its first byte
    cdef int64_t _pending  # bytes of it that were taken
    cdef uint8_t* _header  # its header, as far as it was taken
    cdef Py_ssize_t _header_size
    cdef Py_ssize_t _header_room  # allocated
    cdef Py_ssize_t _line_pos  # HEADERS: where the first line that was not judged begins
    cdef object _parsed  # HEADERS: the length found in the lines judged, or -1
    cdef object _skip_left  # skipping: bytes of the rest that are missing (of any size)
    cdef bint _skipping  # past the header: the frame is oversized and being discarded
    cdef Py_ssize_t _rest_left  # in the rest, not skipping: bytes of it that are missing; else 0
    cdef object _rest_beyond  # ... and of one over LARGEST_SIZE what is over
    cdef PyObject* _message  # a `bytes` of our own being filled (raw: the frame), or NULL
    cdef Py_ssize_t _message_size  # what it will have
    cdef Py_ssize_t _message_room  # what it has now
    cdef Py_ssize_t _filled  # of it
    cdef Py_ssize_t _pending_lead  # how many of its first bytes came with the header
    cdef Py_ssize_t _trailer_pos  # bytes of the trailer that matched

    cdef uint64_t _skipped_count
    cdef Spans _spans  # scanning: where the frames lie, instead of messages
    cdef object _buffer  # the receive buffer: a bytearray, ...
    cdef object _buffer_view  # ... and an export of it, so that nobody resizes it
    cdef Py_ssize_t _buffer_size
    cdef int _given  # what get_buffer() gave last
    cdef Py_ssize_t _given_size
    cdef object _room_view  # A_ROOM: what was given
    cdef object _error  # the sticky error
    cdef bytes _not_taken  # after an error: what followed the byte that decided
    cdef bytes _looked_ahead  # CUSTOM: bytes of earlier chunks that parse() saw and that follow the
    # header; they are read before the chunk, which they end at
    cdef bint _lost  # after an error: no memory for _not_taken
    cdef bint _detached
    cdef bint _busy  # inside a call during which other code may run

    def __cinit__(self, codec, *, raw=False, on_oversize="raise"):
        self._header = NULL
        self._message = NULL
        self._layout = layout = _layout_of(codec)
        if on_oversize not in ("raise", "skip"):
            raise _error_texts.bad_on_oversize(on_oversize)
        self._raw = bool(raw)
        self._skip = on_oversize == "skip"

        self._magic = layout.magic
        self._trailer = layout.trailer
        self._end = layout.end
        self._magic_at = <const uint8_t*>PyBytes_AS_STRING(self._magic)
        self._trailer_at = <const uint8_t*>PyBytes_AS_STRING(self._trailer)
        self._end_at = <const uint8_t*>PyBytes_AS_STRING(self._end)
        self._kind = layout.kind
        self._width = layout.field_width
        self._base = layout.base
        self._little = layout.little
        self._magic_size = len(layout.magic)
        self._trailer_size = len(layout.trailer)
        self._end_size = len(layout.end)
        self._lead_size = layout.lead_size
        self._field_offset = layout.field_offset
        self._header_size_fixed = layout.header_size
        self._adjustment = layout.adjustment
        self._quick_low, self._quick_span = layout.quick_range
        self._plain = (
            self._kind == UINT
            and not raw
            and not layout.magic
            and not layout.lead_size
            and not layout.trailer
        )
        self._wanted = layout.header_size or self._longest_header()
        self._parsed = -1
        self._rest_beyond = 0
        self._not_taken = b""
        self._looked_ahead = b""

    def __dealloc__(self):
        PyMem_Free(self._header)
        Py_XDECREF(self._message)

    # --- bytes in ---------------------------------------------------------------------------------

    def feed(self, data, /):
        """Takes the next bytes of the stream.

        Args:
            data: Any contiguous bytes-like object, of any length, cut anywhere.

        Returns:
            The messages that were completed, in order: `bytes`, or the objects of the codec's
            ``specials``. Messages in front of a bad frame are returned first; the error is then in
            `error`, and raised by the next call.

        Raises:
            FrameError: The stream is broken. Every later call raises the same error.
            TypeError, BufferError: `data` is not a contiguous bytes-like object; nothing was taken.
            ValueError: The splitter is detached.
        """
        # Before any look at the state: before Python 3.12 the allocation may collect garbage, whose
        # finalizers may call in here.
        cdef list messages = []
        if PyBytes_CheckExact(data):
            self._check_ready()
            self._take(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), messages)
            return messages
        self._feed_buffer(data, messages)
        return messages

    cdef int _feed_buffer(self, data, list messages) except -1:
        cdef Py_buffer view
        try:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        except MemoryError:
            raise
        except Exception:
            data = view_bytes(data)  # says what is wrong
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self._check_ready()
            if self._message != NULL and Py_REFCNT(self._message) > 1:
                # The caller has a view of the message, and may be feeding just that: taking a
                # chunk would write into it.
                data = _bytes_of(<const uint8_t*>view.buf, view.len)
                self._take(<const uint8_t*>PyBytes_AS_STRING(data), view.len, messages)
            else:
                self._take(<const uint8_t*>view.buf, view.len, messages)
        finally:
            PyBuffer_Release(&view)
        return 0

    def get_buffer(self, sizehint=-1, /):
        """Gives memory to read the next bytes of the stream into.

        Args:
            sizehint: Bytes wanted, from 1 KiB to 1 MiB; -1 or 0 leaves it to the splitter (64 KiB).
                The buffer may be larger.

        Returns:
            A writable buffer that is never empty, to be filled from its start and reported with
            `buffer_updated`. Messages are copied out of it: one that was delivered never changes.

        Raises:
            FrameError: The stream is broken.
            ValueError: The splitter is detached.
        """
        cdef Py_ssize_t size = _clipped_index(sizehint)
        self._check_usable()
        return self._give_buffer(size, A_BUFFER)

    cdef object _give_buffer(self, Py_ssize_t size, int given):
        if size <= 0:
            size = BUFFER_SIZE
        size = min(max(size, SMALLEST_BUFFER_SIZE), LARGEST_BUFFER_SIZE)
        self._busy = True  # an allocation may collect garbage, whose finalizers may come in here
        try:
            self._withdraw_room()
            self._given = NOTHING
            buffer, buffer_view = self._buffer, self._buffer_view
            if buffer is None or self._buffer_size < size:
                buffer = PyByteArray_FromStringAndSize(NULL, size)  # not cleared: touches no page
                buffer_view = PyMemoryView_FromObject(buffer)
            view = PyMemoryView_FromObject(buffer)
            # Nothing can fail any more.
            if buffer is not self._buffer:
                self._buffer, self._buffer_view, self._buffer_size = buffer, buffer_view, size
            self._given = given
            self._given_size = self._buffer_size
        finally:
            self._busy = False
        return view

    def get_room(self, sizehint=-1, /):
        """As `get_buffer`, for a caller who lets go of the memory at once.

        The compiled engine may give the memory of the message itself, so that the bytes of a large
        one are never copied; Python cannot fill a `bytes`.
        """
        # buffer_updated() withdraws it; where it cannot, because the caller has another view of it,
        # the message moves before it grows, and is copied before it is delivered.
        cdef Py_ssize_t size = _clipped_index(sizehint)
        cdef _Room room
        self._check_usable()
        if self._rest_left < SMALLEST_ROOM:
            return self._give_buffer(size, A_BUFFER_AS_ROOM)
        self._busy = True  # as in _give_buffer()
        try:
            self._withdraw_room()
            self._given = NOTHING
            if self._message_room - self._filled < SMALLEST_ROOM:
                self._make_room(0)
            room = _Room.__new__(_Room)
            room.message = <object>self._message
            room.pos = self._filled
            room.size = min(
                max(size, SMALLEST_ROOM), self._rest_left, self._message_room - self._filled
            )
            self._room_view = PyMemoryView_FromObject(room)
            self._given = A_ROOM
            self._given_size = room.size
            return self._room_view
        finally:
            self._busy = False

    cdef int _withdraw_room(self) except -1:
        """Ends what get_room() gave, as far as the caller has no views of it."""
        if self._given >= GIVEN_BY_GET_ROOM:
            self._given = NOTHING
        if self._room_view is not None:
            view, self._room_view = self._room_view, None
            try:
                view.release()
            except BufferError:  # there is a view of the view
                pass
        return 0

    def buffer_updated(self, count, /):
        """Takes what was read into the buffer that `get_buffer` gave.

        Args:
            count: Bytes that were read, from the buffer's start.

        Returns:
            The messages that were completed, as `feed` does.

        Raises:
            FrameError: The stream is broken.
            ValueError: There is no such buffer, `count` does not fit it, or the splitter is
                detached.
        """
        number = count if PyLong_CheckExact(count) else operator.index(count)
        cdef Py_ssize_t size = _clipped_index(number)
        cdef list messages = []  # first, as in feed()
        cdef int given = self._given
        self._check_usable()
        if given == NOTHING:
            raise _error_texts.no_buffer_given()
        if size < 0 or size > self._given_size:
            raise _error_texts.updated_beyond_buffer(number, self._given_size)
        if given == A_ROOM:
            self._take_room(size, messages)
            return messages
        self._given = NOTHING
        self._take(<const uint8_t*>PyByteArray_AS_STRING(self._buffer), size, messages)
        return messages

    cdef int _take_room(self, Py_ssize_t size, list messages) except -1:
        """Counts bytes that the caller has written into the message itself."""
        self._busy = True
        try:
            self._withdraw_room()
            self._filled += size
            self._rest_left -= size
            self._pending += size
            if not self._rest_left:
                self._phase = IN_TRAILER
                self._read_trailer(NULL, NULL, messages)
        except BaseException as error:  # there was no memory to deliver the message
            self._fail(error, NULL, 0, 0)
            raise
        finally:
            self._busy = False
        return 0

    def feed_eof(self):
        """Says that the stream has ended.

        Raises:
            IncompleteFrameError: It ended inside a frame. Every later call raises the same error.
            FrameError: It was broken before.
            ValueError: The splitter is detached.
        """
        self._check_usable()
        if not self._pending:
            return
        self._busy = True  # another thread, or a garbage collection, may come in here
        try:
            error = _error_texts.incomplete_frame(self._pending_frame())
            self._fail(error, NULL, 0, 0)
        finally:
            self._busy = False
        raise error

    def detach(self):
        """Ends the splitter and gives back what it holds, for a hand-over to another protocol.

        Returns:
            The bytes of the unfinished frame; after an error every byte from the bad frame's first
            one on. Of an oversized frame that is being discarded nothing is left: ``b""``.

        Raises:
            ValueError: The splitter is detached already, as for every later call.
        """
        if self._busy:
            raise _error_texts.reentered()
        if self._detached:
            raise _error_texts.detached()
        self._busy = True  # as in feed_eof()
        try:
            unfinished = self._unfinished()
            self._detached = True
            self._withdraw_room()
        finally:
            self._busy = False
        self._forget()
        self._not_taken = self._looked_ahead = b""
        self._buffer = self._buffer_view = None
        self._given = NOTHING
        return unfinished

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    # --- what can be asked ------------------------------------------------------------------------

    def _pending_frame(self):
        """Describe the pending frame, for the text of an error about what is missing of it."""
        cdef Py_ssize_t lead_size
        where, needed = "header", None
        header = sample = self._header_bytes()
        if self._phase != IN_HEADER:
            where = "rest" if self._phase == IN_REST else "trailer"
            needed = self._pending + self._missing()
            if not self._skipping:
                if self._message != NULL:
                    lead_size = 0 if self._raw else self._pending_lead
                    if self._raw:  # the message begins with the header
                        sample = b""
                    sample += _bytes_of(
                        _bytes_at(self._message) + lead_size,
                        min(self._filled - lead_size, <Py_ssize_t>SAMPLE_SIZE),
                    )
                sample += self._layout.trailer[: self._trailer_pos]
        return _error_texts.PendingFrame(
            self._layout,
            where,
            self._pending,
            needed,
            self._stream_offset,
            header,
            sample[:SAMPLE_SIZE],
        )

    @property
    def pending(self):
        """Bytes that arrived of an unfinished frame (after an error: from the bad frame on)."""
        return self._pending

    @property
    def bytes_needed(self):
        """At least 1: a lower bound, exact once the header is in, of the bytes that finish the
        pending frame."""
        if self._phase != IN_HEADER and self._error is None:
            return max(1, self._missing())  # 0 while a message is delivered
        return max(1, self._header_size_fixed - len(self.pending_header))

    @property
    def stream_offset(self):
        """Position in the stream, in bytes, of the pending frame's first byte."""
        return self._stream_offset

    @property
    def pending_header(self):
        """The pending frame's header, as far as it arrived (after an error: up to the byte that
        decided)."""
        error = self._error
        if isinstance(error, errors.FrameError) and not self._detached:
            return error.header  # the splitter may have gathered more, depending on the chunks
        return self._header_bytes()

    @property
    def error(self):
        """The error that ended the stream, or None."""
        return self._error

    @property
    def skipped(self):
        """How many oversized frames were discarded."""
        return self._skipped_count

    # --- the way of a chunk -----------------------------------------------------------------------

    cdef int _check_usable(self) except -1:
        if self._busy:
            raise _error_texts.reentered()
        if self._detached:
            raise _error_texts.detached()
        if self._error is not None:
            raise self._error.with_traceback(None)
        return 0

    cdef inline int _check_ready(self) except -1:
        """Before bytes come by another way than the memory that was given."""
        if (
            self._busy
            or self._detached
            or self._error is not None
            or self._given >= GIVEN_BY_GET_ROOM
        ):
            self._check_usable()
            self._busy = True
            try:
                self._withdraw_room()
            finally:
                self._busy = False
        return 0

    cdef inline int _take(
        self, const uint8_t* data, Py_ssize_t size, list messages
    ) except -1:
        """Takes a chunk; keeps an error for the next call where there are messages to deliver."""
        cdef int64_t taken_before = self._stream_offset + self._pending
        cdef int failed
        # A chunk in the midst of a message: nothing can begin, end or go wrong.
        if size < self._rest_left and size <= self._message_room - self._filled:
            self._keep(data, size)
            return 0
        self._busy = True
        # A `try` would cost 5 ns a call, which is seen where chunks are tiny: so the call is made
        # as if it raised nothing, and an error is picked up after it.
        failed = (<_consume_unchecked>_consume)(self, data, size, messages)
        if failed:
            self._take_failed(data, size, messages, taken_before)
        self._busy = False
        return 0

    cdef int _take_failed(
        self, const uint8_t* data, Py_ssize_t size, list messages, int64_t taken_before
    ) except -1:
        """Busy until the error sticks: to pick it up may let another thread run."""
        cdef int64_t taken
        try:
            try:
                _raise_what_is_set()
            except BaseException as raised:  # a MemoryError, where there is none to catch another
                if isinstance(raised, errors.FrameError):
                    _error_texts.add_likely_cause(raised, self._layout)
                raise
        except BaseException as error:
            # Below 0 where it happened among the bytes of earlier chunks that parse() looked at.
            taken = self._stream_offset + self._pending - taken_before
            # Whatever it is, an interruption in parse() too: messages first, then the error.
            self._fail(error, data, taken, size)
            if not messages:
                raise
            error.with_traceback(None)  # it would keep the chunk and the messages alive
        finally:
            self._busy = False
        return 0

    # --- the hot loop: frames that lie whole and unremarkable in the chunk ------------------------

    cdef inline Py_ssize_t _read_plain_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Takes frames that are nothing but a binary length and a rest; returns the bytes up to the
        first one that wants a second look."""
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* rest
        cdef uint64_t value
        cdef Py_ssize_t rest_size, at_hand
        cdef uint64_t low = self._quick_low
        cdef uint64_t span = self._quick_span
        cdef Py_ssize_t adjustment = self._adjustment
        cdef int width = self._width
        cdef bint little = self._little
        try:
            while end - p >= width:
                value = _load(p, width, little)
                rest = p + width
                if value - low > span:
                    break
                rest_size = <Py_ssize_t>value + adjustment
                if end - rest < rest_size:  # cut off, but nothing is odd: no need to look again
                    at_hand = end - rest
                    self._keep_header(p, width)
                    self._pending = width
                    self._begin_message(p, 0, rest_size, at_hand)
                    self._keep(rest, at_hand)
                    return end - data
                messages.append(_message_of(rest, rest_size))
                p = rest + rest_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef Py_ssize_t _read_whole_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """The same for every other shape."""
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* rest
        cdef uint64_t value
        cdef Py_ssize_t header_size, rest_size, frame_size
        cdef uint64_t low = self._quick_low
        cdef uint64_t span = self._quick_span
        cdef Py_ssize_t adjustment = self._adjustment
        cdef Py_ssize_t lead_size = self._lead_size
        cdef Py_ssize_t magic_size = self._magic_size
        cdef Py_ssize_t trailer_size = self._trailer_size
        cdef bytes message
        cdef uint8_t* target
        cdef Spans spans = self._spans
        cdef int64_t start = self._stream_offset
        try:
            while True:
                header_size = self._try_header(p, end - p, &value)
                if not header_size or value - low > span:
                    break
                rest_size = <Py_ssize_t>value + adjustment
                frame_size = header_size + rest_size + trailer_size
                if end - p < frame_size:
                    break
                rest = p + header_size
                if magic_size and memcmp(p, self._magic_at, magic_size):
                    break
                if trailer_size and memcmp(
                    rest + rest_size, self._trailer_at, trailer_size
                ):
                    break
                if spans is not None:
                    if self._raw:
                        spans.add(start + (p - data), start + (p - data) + frame_size)
                    else:
                        spans.add(start + (rest - data), start + (rest - data) + rest_size)
                    p += frame_size
                    continue
                if self._raw:
                    message = _message_of(p, frame_size)
                elif lead_size:
                    message = PyBytes_FromStringAndSize(NULL, lead_size + rest_size)
                    target = <uint8_t*>PyBytes_AS_STRING(message)
                    _copy(target, p + magic_size, lead_size)
                    _copy(target + lead_size, rest, rest_size)
                else:
                    message = _message_of(rest, rest_size)
                messages.append(message)
                p += frame_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef inline Py_ssize_t _try_header(
        self, const uint8_t* p, Py_ssize_t size, uint64_t* value
    ) noexcept nogil:
        """Size and value of a header that is whole and plainly right; 0 leaves everything else,
        errors too, to `_judge_header`."""
        cdef Py_ssize_t pos = self._field_offset
        cdef Py_ssize_t stop, i
        cdef uint64_t found = 0
        cdef int digit, shift
        if self._kind == UINT:
            stop = pos + self._width
            if size < stop:
                return 0
            value[0] = _load(p + pos, self._width, self._little)
            return stop
        if self._kind == DIGITS:
            stop = pos + self._width
            if size < stop or self._width > 16:  # 16 digits of either base fit 64 bits
                return 0
            for i in range(pos, stop):
                digit = _digit(p[i], self._base)
                if digit < 0:
                    return 0
                found = found * self._base + digit
            value[0] = found
            return stop
        if self._kind == VARINT:
            stop = min(size, pos + min(self._width, 9))  # 9 bytes hold 63 bits
            shift = 0
            for i in range(pos, stop):
                found |= <uint64_t>(p[i] & 0x7F) << shift
                if p[i] < 0x80:
                    if not p[i] and shift:
                        return 0
                    value[0] = found
                    return i + 1
                shift += 7
            return 0
        if self._kind == TEXT:
            stop = min(size, pos + 16)
            i = pos
            while i < stop:
                digit = _digit(p[i], self._base)
                if digit < 0:
                    break
                found = found * self._base + digit
                i += 1
            if i == pos or (p[pos] == c'0' and i > pos + 1) or size - i < self._end_size:
                return 0
            if memcmp(p + i, self._end_at, self._end_size):
                return 0
            value[0] = found
            return i + self._end_size
        return 0

    # --- the careful way: one frame, part by part -------------------------------------------------

    cdef const uint8_t* _read_header(
        self, const uint8_t* chunk, const uint8_t* data, const uint8_t* end, list messages
    ) except NULL:
        """Gathers the header and judges it; delivers a special, prepares for a rest.

        `chunk` is where the chunk begins, `data` what follows in it. Returns what follows then.
        """
        cdef Py_ssize_t taken, header_size, rest_size, surplus
        cdef uint64_t value
        cdef bytes looked_ahead
        cdef bint judged = self._header_size >= self._magic_size
        taken = min(
            end - data, self._wanted - self._header_size, max(FIRST_HEADER, self._header_size)
        )
        self._keep_header(data, taken)
        self._pending += taken
        if self._plain and self._header_size < self._width:
            return data + taken  # half a number: nothing can be wrong yet
        if (
            self._kind == HEADERS
            and judged
            and self._header_size < self._wanted
            and memchr(data, c'\n', taken) == NULL
        ):
            return data + taken  # nothing can be judged before the line's end

        # The usual case: a whole, plain header of fixed or varying size, within the limits.
        header_size = self._try_header(self._header, self._header_size, &value)
        if (
            header_size
            and value - self._quick_low <= self._quick_span
            and not (self._magic_size and memcmp(self._header, self._magic_at, self._magic_size))
            and self._spans is None
        ):
            taken -= self._drop_surplus(header_size)
            rest_size = <Py_ssize_t>value + self._adjustment
            self._begin_message(
                self._header + self._magic_size, self._lead_size, rest_size, end - data - taken
            )
            return data + taken
        data += taken
        surplus = self._settle_header(data - chunk, end - data, messages)
        if surplus <= data - chunk:
            return data - surplus
        # parse() looked ahead: read what follows the header in earlier chunks, then this chunk.
        looked_ahead = self._looked_ahead
        _consume(
            self,
            <const uint8_t*>PyBytes_AS_STRING(looked_ahead),
            PyBytes_GET_SIZE(looked_ahead),
            messages,
        )
        self._looked_ahead = b""
        return chunk

    cdef Py_ssize_t _settle_header(
        self, Py_ssize_t in_chunk, Py_ssize_t at_hand, list messages
    ) except -1:
        """Acts on the header, if it is whole; returns how many bytes after it were gathered.

        `in_chunk` bytes of the chunk were gathered or read; where more follow the header, the rest
        of them goes into `_looked_ahead`.
        """
        cdef Py_ssize_t surplus, lead_size, rest_fill
        found = self._judge_header()
        if found is None:
            if self._header_size == self._wanted:
                raise _error_texts.header_too_long(
                    self._layout.max_header, self._stream_offset, self._header_bytes()
                )
            return 0
        header_size, value, lead = found
        surplus = self._header_size - <Py_ssize_t>header_size
        if surplus > in_chunk:
            self._looked_ahead = _bytes_of(
                self._header + <Py_ssize_t>header_size, surplus - in_chunk
            )
        self._drop_surplus(header_size)
        if value in self._layout.specials:
            special = self._layout.specials[value]
            if self._spans is None:
                messages.append(self._header_bytes() if self._raw else special)
            elif self._raw:
                self._spans.add(self._stream_offset, self._stream_offset + self._header_size)
            else:
                raise _error_texts.scan_of_special(special, self._stream_offset)
            self._next_frame()
            return surplus
        lead_size = len(lead)
        rest_size = self._settle_rest_size(value, lead_size)
        if self._spans is not None:
            if lead_size and not self._raw:
                raise _error_texts.scan_with_lead()
            self._skipping = True  # its bytes are wanted no more than those of a skipped frame
        if self._skipping:
            self._skip_left = rest_size
            self._phase = IN_REST
        else:
            # A peer may declare what no C number holds; it cannot send it.
            self._rest_beyond = max(0, rest_size - LARGEST_SIZE)
            rest_fill = rest_size - self._rest_beyond
            self._begin_message(
                <const uint8_t*>PyBytes_AS_STRING(lead), lead_size, rest_fill, at_hand + surplus
            )
        return surplus

    cdef inline int _keep_header(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t needed = self._header_size + size
        cdef uint8_t* header
        if needed > self._header_room:
            needed = max(needed, 2 * self._header_room, 32)
            header = <uint8_t*>PyMem_Realloc(self._header, needed)
            if header == NULL:
                raise MemoryError
            self._header = header
            self._header_room = needed
        _copy(self._header + self._header_size, data, size)
        self._header_size += size
        return 0

    cdef inline Py_ssize_t _drop_surplus(self, Py_ssize_t header_size) noexcept:
        """A header of varying size was not as long as it might have been: how much too much."""
        cdef Py_ssize_t surplus = self._header_size - header_size
        self._header_size = header_size
        self._pending -= surplus
        return surplus

    cdef inline int _begin_message(
        self,
        const uint8_t* lead,
        Py_ssize_t lead_size,
        Py_ssize_t rest_size,
        Py_ssize_t at_hand,
    ) except -1:
        """Makes room for the message, in proportion to what is at hand of it."""
        cdef Py_ssize_t begun = self._header_size if self._raw else lead_size
        cdef const uint8_t* begin = lead
        if self._raw:
            begin = self._header
        self._message_size = begun + rest_size + (self._trailer_size if self._raw else 0)
        self._message_room = min(self._message_size, max(FIRST_ROOM, 2 * (begun + at_hand)))
        self._message = _new_bytes(NULL, self._message_room)
        _copy(_bytes_at(self._message), begin, begun)
        self._filled = begun
        self._pending_lead = lead_size
        self._rest_left = rest_size
        self._phase = IN_REST
        return 0

    cdef object _judge_header(self):
        """Header size, field value and lead; None where more bytes are wanted.

        Looks at every byte in the order of arrival and raises at the first that cannot be right, so
        that what decides does not depend on the chunks.
        """
        cdef Py_ssize_t right, size = self._header_size
        right = _common_size(self._header, size, self._magic_at, self._magic_size)
        if right < size and right < self._magic_size:
            raise _error_texts.wrong_magic(
                self._magic, self._stream_offset, self._header_first(right + 1)
            )
        if size < self._magic_size:
            return None
        if self._kind == HEADERS:
            return self._judge_lines()
        if self._kind == CUSTOM:
            if size == self._magic_size:
                return None
            return read_header(self._layout, self._header_bytes(), self._stream_offset)

        if self._kind == UINT:
            found = self._judge_uint()
        elif self._kind == DIGITS:
            found = self._judge_digits()
        elif self._kind == VARINT:
            found = self._judge_varint()
        else:
            found = self._judge_text()
        if found is None:
            return None
        header_size, value = found
        return header_size, value, self._header_bytes()[self._magic_size : self._field_offset]

    cdef object _judge_lines(self):
        cdef Py_ssize_t pos = max(self._line_pos, self._magic_size)
        name, offset = self._layout.name, self._stream_offset
        lines = _bytes_of(self._header + pos, self._header_size - pos)  # that are new
        try:
            judged, self._parsed, complete = read_lines(lines, 0, self._parsed, name, offset)
        except errors.FrameError:  # again, for an error that shows the header from its beginning
            read_lines(self._header_bytes(), pos, self._parsed, name, offset)
            raise
        self._line_pos = pos + judged
        return (self._line_pos, self._parsed, b"") if complete else None

    cdef object _judge_uint(self):
        cdef uint64_t value
        if self._header_size < self._header_size_fixed:
            return None
        value = _load(self._header + self._field_offset, self._width, self._little)
        number = value
        if self._layout.signed and value >> (8 * self._width - 1):
            number = number - (<object>1 << 8 * self._width)
        return self._header_size_fixed, number

    cdef object _judge_digits(self):
        cdef uint64_t value = 0
        cdef Py_ssize_t pos
        cdef int digit
        for pos in range(self._field_offset, self._header_size):
            digit = _digit(self._header[pos], self._base)
            if digit < 0:
                raise _error_texts.not_a_digit(
                    self._base, b"", pos, self._stream_offset, self._header_first(pos + 1)
                )
            if value > (UINT64_MAX - digit) // self._base:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, self._header_first(pos + 1)
                )
            value = value * self._base + digit
        return (
            (self._header_size, value) if self._header_size == self._header_size_fixed else None
        )

    cdef object _judge_varint(self):
        cdef uint64_t value = 0
        cdef Py_ssize_t pos, index
        cdef uint8_t byte
        for pos in range(self._field_offset, self._header_size):
            byte, index = self._header[pos], pos - self._field_offset
            if index == 9 and byte & 0x7E:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, self._header_first(pos + 1)
                )
            value |= <uint64_t>(byte & 0x7F) << 7 * index
            if byte >= 0x80:
                if index + 1 == self._width:
                    raise _error_texts.varint_too_long(
                        self._width, self._stream_offset, self._header_first(pos + 1)
                    )
            elif not byte and index:
                raise _error_texts.varint_not_shortest(
                    self._stream_offset, self._header_first(pos + 1)
                )
            else:
                return pos + 1, value
        return None

    cdef object _judge_text(self):
        cdef Py_ssize_t pos = self._field_offset
        cdef Py_ssize_t size = self._header_size
        cdef Py_ssize_t first_pos, right
        cdef uint64_t value = 0
        cdef int digit
        # A sign is a digit's place taken by nothing but the special values below 0.
        cdef bint negative = (
            size > pos
            and self._header[pos] == c'-'
            and min(self._layout.specials, default=0) < 0
        )
        if negative:
            pos += 1
        first_pos = pos
        while pos < size:
            digit = _digit(self._header[pos], self._base)
            if digit < 0:
                break
            if (pos > first_pos and not value) or (negative and not digit and not value):
                raise _error_texts.leading_zero(self._stream_offset, self._header_first(pos + 1))
            if value > (UINT64_MAX - digit) // self._base:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, self._header_first(pos + 1)
                )
            value = value * self._base + digit
            pos += 1
        else:
            return None
        if pos == first_pos and self._header[pos] == self._end[0]:
            raise _error_texts.no_digits(pos, self._stream_offset, self._header_first(pos + 1))
        right = _common_size(
            self._header + pos,
            size - pos,
            self._end_at,
            self._end_size,
        )
        if right == self._end_size:
            number = value
            return pos + right, -number if negative else number
        if pos + right == size:
            return None
        pos += right
        raise _error_texts.not_a_digit(
            self._base, self._end, pos, self._stream_offset, self._header_first(pos + 1)
        )

    cdef object _settle_rest_size(self, value, Py_ssize_t lead_size):
        """The size of the rest; raises or begins to skip where the frame may not be."""
        layout, offset, header = self._layout, self._stream_offset, self._header_bytes()
        rest_size = value + layout.adjustment
        if rest_size < 0 and value >= 0 and layout.counts_frame:
            least = len(header) + self._trailer_size
            raise _error_texts.smaller_than_frame(value, least, offset, header)
        if rest_size < 0 or value < 0:
            raise _error_texts.negative_length(value, layout.adjustment, offset, header)
        if lead_size + rest_size > layout.message_max:
            if not self._skip:
                raise _error_texts.declared_too_large(
                    lead_size + rest_size, layout.message_max, offset, header
                )
            self._skipping = True
        return rest_size

    cdef inline Py_ssize_t _read_rest(self, const uint8_t* data, const uint8_t* end) except -1:
        """Keeps what the chunk holds of the rest; discards it where the frame is skipped."""
        cdef Py_ssize_t taken = end - data
        if self._skipping:
            taken = min(taken, self._skip_left)
            self._skip_left -= taken
            self._pending += taken
            if not self._skip_left:
                self._phase = IN_TRAILER
        else:
            taken = min(taken, self._rest_left)
            if self._message_room - self._filled < taken:
                self._make_room(taken)
            self._keep(data, taken)
            if not self._rest_left:
                self._phase = IN_TRAILER
        return taken

    cdef inline void _keep(self, const uint8_t* data, Py_ssize_t size) noexcept:
        """Adds bytes of the rest to the message, where there is room."""
        memcpy(_bytes_at(self._message) + self._filled, data, size)
        self._filled += size
        self._rest_left -= size
        self._pending += size

    cdef inline Py_ssize_t _read_plain_rest(
        self, const uint8_t* data, Py_ssize_t size, list messages
    ) except -1:
        """The same for a plain frame, which is whole with its rest and then delivered at once."""
        cdef Py_ssize_t taken = min(size, self._rest_left)
        if self._message_room - self._filled < taken:
            self._make_room(taken)
        self._keep(data, taken)
        if not self._rest_left:
            self._hand_over(messages)
            Py_XDECREF(self._message)
            self._message = NULL
            self._filled = 0
            self._phase = IN_HEADER
            self._header_size = 0
            self._stream_offset += self._pending
            self._pending = 0
        return taken

    cdef int _make_room(self, Py_ssize_t size) except -1:
        """Grows the message with what arrived, to little more than twice that."""
        cdef Py_ssize_t room = min(self._message_size, 2 * (self._filled + size) + MORE_ROOM)
        if Py_REFCNT(self._message) > 1:
            self._move_message(room)
        else:
            self._resize_message(room)
            if room >= HUGE_MESSAGE_SIZE:
                _want_huge_pages(_bytes_at(self._message), room)
        return 0

    cdef int _resize_message(self, Py_ssize_t room) except -1:
        """Changes the memory of a message that no view shows; without memory for it, nothing."""
        cdef PyObject* resized = _try_resize_bytes(self._message, room)
        if resized == NULL:
            raise MemoryError
        self._message = resized
        self._message_room = room
        return 0

    cdef int _move_message(self, Py_ssize_t room) except -1:
        """Leaves the message's memory to the caller, who kept a view of what get_room() gave."""
        cdef PyObject* moved = _new_bytes(NULL, room)
        memcpy(_bytes_at(moved), _bytes_at(self._message), self._filled)
        Py_XDECREF(self._message)
        self._message = moved
        self._message_room = room
        return 0

    cdef inline int _hand_over(self, list messages) except -1:
        """Adds the message to those that are delivered. From then on it never changes."""
        if Py_REFCNT(self._message) > 1 and self._message_room:
            self._move_message(self._message_room)
        messages.append(<object>self._message)
        return 0

    cdef inline Py_ssize_t _read_trailer(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Matches the trailer, if there is one; the message is delivered when it is whole."""
        cdef Py_ssize_t taken = 0
        if self._trailer_size:
            taken = self._match_trailer(data, end)
        if self._trailer_pos == self._trailer_size:
            self._deliver(messages)
        return taken

    cdef Py_ssize_t _match_trailer(self, const uint8_t* data, const uint8_t* end) except -1:
        """Compares the trailer byte for byte, as far as it is there."""
        cdef Py_ssize_t size, right
        size = min(end - data, self._trailer_size - self._trailer_pos)
        right = _common_size(
            data,
            size,
            self._trailer_at + self._trailer_pos,
            size,
        )
        self._trailer_pos += right
        self._pending += right
        if right < size:
            raise _error_texts.wrong_trailer(
                self._trailer,
                self._trailer[: self._trailer_pos] + _bytes_of(data + right, 1),
                self._stream_offset,
                self._header_bytes(),
            )
        return right

    cdef inline int _deliver(self, list messages) except -1:
        """Hands over the message, which was filled in its final place."""
        cdef int64_t start, stop
        if self._spans is not None:
            start, stop = self._stream_offset, self._stream_offset + self._pending
            if not self._raw:
                start += self._header_size
                stop -= self._trailer_size
            self._spans.add(start, stop)
        elif self._skipping:
            self._skipped_count += 1
        else:
            if self._raw and self._trailer_size:
                self._make_room(self._trailer_size)
                memcpy(
                    _bytes_at(self._message) + self._filled,
                    self._trailer_at,
                    self._trailer_size,
                )
            self._hand_over(messages)  # _next_frame drops the splitter's reference
        self._next_frame()
        return 0

    cdef inline void _next_frame(self) noexcept:
        self._stream_offset += self._pending
        self._forget()

    cdef inline void _forget(self) noexcept:
        """Drops what is held of the pending frame."""
        self._phase = IN_HEADER
        self._pending = 0
        self._header_size = 0
        self._line_pos = 0
        if self._kind == HEADERS:
            self._parsed = -1
        self._skipping = False
        Py_XDECREF(self._message)
        self._message = NULL
        self._filled = 0
        self._rest_left = 0
        self._trailer_pos = 0

    # --- errors -----------------------------------------------------------------------------------

    cdef int _fail(
        self, error, const uint8_t* chunk, int64_t taken, Py_ssize_t size
    ) except -1:
        """Makes the error stick, and keeps what arrived for detach().

        Of the chunk, `taken` bytes were taken; a negative count is that of the last bytes of
        `_looked_ahead` that were not.
        """
        self._error = error
        self._pending += size - taken
        self._rest_left = 0  # no chunk is taken any more
        if self._keeps_bytes():
            try:
                if taken >= 0:
                    self._not_taken = _bytes_of(chunk + taken, size - taken)
                else:
                    self._not_taken = self._looked_ahead[taken:] + _bytes_of(chunk, size)
            except MemoryError:
                self._lost = True
        self._looked_ahead = b""
        return 0

    cdef bint _keeps_bytes(self) noexcept:
        return not self._skipping and self._spans is None

    cdef bytes _unfinished(self):
        """The pending frame's bytes, as they travelled, and after an error all that follow them."""
        cdef const uint8_t* message
        cdef Py_ssize_t message_size = 0
        cdef Py_ssize_t header_size = self._header_size
        cdef Py_ssize_t not_taken_size = PyBytes_GET_SIZE(self._not_taken)
        cdef bytes unfinished
        cdef uint8_t* p
        if not self._keeps_bytes():
            return b""
        if self._lost:
            raise _error_texts.unfinished_lost()
        if self._message != NULL:
            if self._message_room > self._filled > 0 and Py_REFCNT(self._message) == 1:
                self._resize_message(self._filled)  # never more than twice what arrived
            message = _bytes_at(self._message)
            message_size = self._filled
            if self._raw:
                header_size = 0  # the message begins with it
            else:
                message += self._pending_lead
                message_size -= self._pending_lead
        unfinished = PyBytes_FromStringAndSize(
            NULL, header_size + message_size + self._trailer_pos + not_taken_size
        )
        p = <uint8_t*>PyBytes_AS_STRING(unfinished)
        if header_size:
            memcpy(p, self._header, header_size)
        if message_size:
            memcpy(p + header_size, message, message_size)
        p += header_size + message_size
        memcpy(p, self._trailer_at, self._trailer_pos)
        memcpy(p + self._trailer_pos, PyBytes_AS_STRING(self._not_taken), not_taken_size)
        return unfinished

    cdef bytes _header_bytes(self):
        return _bytes_of(self._header, self._header_size)

    cdef bytes _header_first(self, Py_ssize_t size):
        return _bytes_of(self._header, size)

    cdef object _missing(self):
        """Past the header: bytes that finish the frame."""
        left = self._skip_left if self._skipping else self._rest_left + self._rest_beyond
        return (left if self._phase == IN_REST else 0) + self._trailer_size - self._trailer_pos

    cdef Py_ssize_t _longest_header(self) except -1:
        if self._kind == VARINT:
            return self._field_offset + self._width
        if self._kind == TEXT:  # a sign, digits up to the one that is too many, the end mark
            return self._field_offset + 1 + 21 + self._end_size
        return self._magic_size + self._layout.max_header


@cython.final
@cython.auto_pickle(False)
cdef class Spans:
    """Where the frames of a buffer lie: a sequence of `memoryview`\\ s that are made on demand.

    It also exports its positions, an ``(n, 2)`` buffer of int64 (start, stop), so that
    ``numpy.asarray(spans)`` copies nothing. (The Python engine needs Python 3.12 for
    ``memoryview(spans)``; numpy understands it everywhere.)
    """

    cdef object _view
    cdef int64_t* _positions  # start and stop of each
    cdef Py_ssize_t _count
    cdef Py_ssize_t _room
    cdef Py_ssize_t _shape[2]
    cdef Py_ssize_t _strides[2]
    cdef int64_t _consumed
    cdef bint _growing  # while scan() adds to it
    cdef object __weakref__

    def __cinit__(self, view):
        self._view = view
        self._positions = NULL

    def __dealloc__(self):
        PyMem_Free(self._positions)

    # Spans grow only before scan() returns them, and are not exported before: no export moves.
    cdef inline int add(self, int64_t start, int64_t stop) except -1:
        cdef int64_t* positions
        cdef Py_ssize_t room
        if self._count == self._room:
            room = max(64, 2 * self._room)
            positions = <int64_t*>PyMem_Realloc(self._positions, room * 2 * sizeof(int64_t))
            if positions == NULL:
                raise MemoryError
            self._positions = positions
            self._room = room
        self._positions[2 * self._count] = start
        self._positions[2 * self._count + 1] = stop
        self._count += 1
        return 0

    @property
    def consumed(self):
        """Bytes of the whole frames; what follows is unfinished or bad."""
        return self._consumed

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        cdef Py_ssize_t pos
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        pos = _clipped_index(index)
        if pos < 0:
            pos += self._count
        if not 0 <= pos < self._count:
            raise _error_texts.no_such_span(self._count)
        return self._view[self._positions[2 * pos] : self._positions[2 * pos + 1]]

    def index(self, value, start=0, stop=None):
        return Sequence.index(self, value, start, stop)

    @cython.always_allow_keywords(True)
    def count(self, value):
        return Sequence.count(self, value)

    def __repr__(self):
        return f"<Spans of {self._count} frames, {self._consumed} bytes>"

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("spans are read-only")
        if self._growing:
            raise _error_texts.spans_growing()
        self._shape[0], self._shape[1] = self._count, 2
        self._strides[0], self._strides[1] = 2 * sizeof(int64_t), sizeof(int64_t)
        buffer.buf = self._positions
        if not self._count:  # an address all the same
            buffer.buf = self._shape
        buffer.obj = self
        buffer.len = self._count * 2 * sizeof(int64_t)
        buffer.readonly = True
        buffer.itemsize = sizeof(int64_t)
        buffer.ndim = 2 if flags & PyBUF_ND else 1  # without a shape they are flat bytes
        buffer.format = NULL
        buffer.shape = buffer.strides = buffer.suboffsets = NULL
        if flags & PyBUF_FORMAT:
            buffer.format = b"q"
        if flags & PyBUF_ND:
            buffer.shape = self._shape
        if flags & PyBUF_STRIDES == PyBUF_STRIDES:
            buffer.strides = self._strides
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer* buffer):
        pass

    def __reduce__(self):
        raise _error_texts.spans_not_copied()


Sequence.register(Spans)


def scan(codec, data, *, raw=False):
    """Every whole frame at the front of a buffer, without making a message; see `Codec.scan`."""
    cdef Splitter splitter
    cdef Spans spans
    cdef Py_buffer buffer
    layout = _layout_of(codec)
    if not raw and layout.lead_size:
        raise _error_texts.scan_with_lead()
    view = view_bytes(data)
    splitter = Splitter(codec, raw=raw)
    splitter._spans = spans = Spans(view)
    spans._growing = True
    splitter._plain = False
    splitter._busy = True  # a user's parse() that finds it cannot feed it
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    try:
        _consume(splitter, <const uint8_t*>buffer.buf, buffer.len, [])
    except BaseException as error:
        if not isinstance(error, errors.FrameError):
            raise
        if not spans._count:
            _error_texts.add_likely_cause(error, layout)
            raise
    finally:
        PyBuffer_Release(&buffer)
    spans._consumed = splitter._stream_offset
    spans._growing = False
    return spans


# --- out ------------------------------------------------------------------------------------------


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FRAMECODEC_OTHERS_MAY_RUN 1
    #else
    #define FRAMECODEC_OTHERS_MAY_RUN 0
    #endif
    """
    # Whether other threads run Python code while this one runs none: a build without the GIL.
    const bint OTHERS_MAY_RUN "FRAMECODEC_OTHERS_MAY_RUN"


cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object, object) noexcept
    PyObject* PyErr_Occurred() noexcept
    bint PyErr_ExceptionMatches(object) noexcept
    void PyErr_Clear() noexcept


cdef bint _forget_bad_key() except -1:
    """Return whether a key without a usable hash failed a look-up; any other error is raised.

    It stands for an `except` clause. Cython's crashes where no memory is left for the traceback.
    """
    if PyErr_Occurred() == NULL:
        return False
    if PyErr_ExceptionMatches(TypeError) or PyErr_ExceptionMatches(ValueError):
        PyErr_Clear()
        return True
    return -1


@cython.final
cdef class Encoder:
    """Encoder(codec)\n--\n
    The way out: messages in, frames out. It has no state; one serves every connection.

    Args:
        codec: The shape of the frames.

    Raises:
        TypeError: `codec` is not a `Codec`.
    """

    # A `bytes` message of an ordinary length is written straight into its frame; every other one
    # takes the careful way, `frame_parts`, which knows all the errors.

    cdef object _layout
    cdef dict _special_values
    cdef bint _bytes_are_special  # some special object is bytes-like
    cdef bint _plain  # UINT, no special, and nothing else in the frame but the rest
    cdef bytes _magic
    cdef bytes _trailer
    cdef bytes _end
    cdef const uint8_t* _magic_at
    cdef const uint8_t* _trailer_at
    cdef const uint8_t* _end_at
    cdef int _kind
    cdef int _width  # UINT, DIGITS: of the field
    cdef int _base
    cdef bint _little
    cdef Py_ssize_t _magic_size
    cdef Py_ssize_t _trailer_size
    cdef Py_ssize_t _end_size
    cdef Py_ssize_t _lead_size
    cdef Py_ssize_t _adjustment
    cdef Py_ssize_t _message_max
    cdef uint64_t _quick_low  # field values low .. low + span need no second look
    cdef uint64_t _quick_span

    def __cinit__(self, codec):
        self._layout = layout = _layout_of(codec)
        self._special_values = layout.special_values
        self._bytes_are_special = layout.bytes_are_special
        self._magic = layout.magic
        self._trailer = layout.trailer
        self._end = layout.end
        self._magic_at = <const uint8_t*>PyBytes_AS_STRING(self._magic)
        self._trailer_at = <const uint8_t*>PyBytes_AS_STRING(self._trailer)
        self._end_at = <const uint8_t*>PyBytes_AS_STRING(self._end)
        self._kind = layout.kind
        self._width = layout.field_width
        self._base = layout.base
        self._little = layout.little
        self._magic_size = len(layout.magic)
        self._trailer_size = len(layout.trailer)
        self._end_size = len(layout.end)
        self._lead_size = layout.lead_size
        self._adjustment = layout.adjustment
        self._message_max = min(layout.message_max, LARGEST_SIZE)
        self._quick_low, self._quick_span = layout.quick_range
        self._plain = (
            self._kind == UINT
            and not layout.magic
            and not layout.lead_size
            and not layout.adjustment
            and not layout.trailer
            and not layout.specials
        )

    def encode(self, message, /):
        """One frame.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            MessageTooLargeError: The message is larger than ``max_message_size`` or than the length
                field can say.
            InvalidFrameError: The message is shorter than its lead, or its length cannot be said.
            TypeError, BufferError: `message` is not a contiguous bytes-like object.
        """
        cdef uint64_t value
        cdef Py_ssize_t size, frame_size
        cdef uint8_t* p
        cdef bytes frame
        if PyBytes_CheckExact(message):
            size = PyBytes_GET_SIZE(message)
            if self._plain and size <= self._message_max:
                frame = PyBytes_FromStringAndSize(NULL, self._width + size)
                p = <uint8_t*>PyBytes_AS_STRING(frame)
                _store(p, size, self._width, self._little)
                _copy(p + self._width, <const uint8_t*>PyBytes_AS_STRING(message), size)
                return frame
            frame_size = self._try_frame_size(size, &value)
            if frame_size:
                frame = PyBytes_FromStringAndSize(NULL, frame_size)
                p = <uint8_t*>PyBytes_AS_STRING(frame)
                self._write_frame(p, <const uint8_t*>PyBytes_AS_STRING(message), size, value)
                return frame
        return b"".join(self.frame_parts(message))

    def encode_many(self, messages, /):
        """The frames of many messages, one after the other, in one allocation.

        Raises:
            As `encode`; then nothing is returned of any message.
        """
        # A list that other code can change is copied: here where other threads may run, and
        # before the careful way, which runs the user's code.
        cdef bint shared = type(messages) is list and not OTHERS_MAY_RUN
        cdef list batch = messages if shared else list(messages)
        frames = self._encode_batch(batch, self._message_max)
        if frames is not None:
            return frames
        return self._encode_many_carefully(list(batch) if shared else batch)

    def encode_small(self, list messages not None, Py_ssize_t largest, /):
        """`encode_many` of `bytes` of at most so many bytes each; None where some are not."""
        cdef list batch = list(messages) if OTHERS_MAY_RUN else messages
        return self._encode_batch(batch, min(largest, self._message_max))

    cdef bytes _encode_batch(self, list batch, Py_ssize_t largest):
        """The frames of ordinary messages; None leaves them to frame_parts.

        One pass measures, one writes. No Python code runs between them, so that the list and the
        messages stay as they are.
        """
        cdef Py_ssize_t count = len(batch)
        cdef Py_ssize_t size
        cdef bytes frames
        if self._plain:
            size = self._measure_plain(batch, count, largest)
        else:
            size = self._measure(batch, count, largest)
        if size < 0:
            return None
        frames = PyBytes_FromStringAndSize(NULL, size)
        if self._plain:
            self._write_plain(<uint8_t*>PyBytes_AS_STRING(frames), batch, count)
        else:
            self._write(<uint8_t*>PyBytes_AS_STRING(frames), batch, count)
        return frames

    cdef Py_ssize_t _measure_plain(
        self, list batch, Py_ssize_t count, Py_ssize_t largest
    ) noexcept:
        """The size of all frames; -1 where a message is not ordinary, or larger than that."""
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t i, size
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            if not _is_bytes(message):
                return -1
            size = _bytes_size(message)
            if size > largest or total > LARGEST_SIZE - size:
                return -1
            total += size
        return total + count * self._width

    cdef void _write_plain(self, uint8_t* p, list batch, Py_ssize_t count) noexcept:
        cdef int width = self._width
        cdef bint little = self._little
        cdef Py_ssize_t i, size
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            size = _bytes_size(message)
            _store(p, size, width, little)
            _copy(p + width, _bytes_at(message), size)
            p += width + size

    cdef Py_ssize_t _measure(self, list batch, Py_ssize_t count, Py_ssize_t largest) noexcept:
        """The same for every other shape."""
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t i, frame_size
        cdef uint64_t value
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            if not _is_bytes(message) or _bytes_size(message) > largest:
                return -1
            frame_size = self._try_frame_size(_bytes_size(message), &value)
            if not frame_size or total > LARGEST_SIZE - frame_size:
                return -1
            total += frame_size
        return total

    cdef void _write(self, uint8_t* p, list batch, Py_ssize_t count) noexcept:
        cdef Py_ssize_t i, size
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            size = _bytes_size(message)
            p += self._write_frame(
                p, _bytes_at(message), size, <uint64_t>(size - self._lead_size - self._adjustment)
            )

    cdef bytes _encode_many_carefully(self, list messages):
        cdef list parts = []
        for message in messages:
            parts += self.frame_parts(message)
        return b"".join(parts)

    def frame_parts(self, message, /):
        """Buffers whose concatenation is the frame, for ``sendmsg`` or ``writelines``.

        The message is not copied and none of the buffers is empty.

        Raises:
            As `encode`.
        """
        cdef Py_ssize_t size, carried
        if self._special_values and (self._bytes_are_special or not PyBytes_CheckExact(message)):
            special = self._special_value(message)
            if special is not None:
                return [self._magic + self._field(special)]
        data = message if PyBytes_CheckExact(message) else view_bytes(message)
        size = len(data)
        if self._kind == CUSTOM:
            self._check_size(size)
            header, carried = build_header(self._layout, memoryview(data))
        else:
            carried = self._lead_size
            value = self._settle_value(size)
            header = self._magic + bytes(data[:carried]) + self._field(value)
        parts = [header]
        if carried < size:
            parts.append(data if not carried else memoryview(data)[carried:])
        if self._trailer_size:
            parts.append(self._trailer)
        return parts

    # --- the quick way: one pass that measures, one that writes -----------------------------------

    cdef inline Py_ssize_t _try_frame_size(self, Py_ssize_t size, uint64_t* value) noexcept:
        """The frame's size for a `bytes` message of so many bytes; 0 leaves it to frame_parts."""
        cdef Py_ssize_t needed = size - self._lead_size - self._adjustment
        if (
            size < self._lead_size
            or needed < 0
            or <uint64_t>needed - self._quick_low > self._quick_span
            or self._kind >= HEADERS
            or self._bytes_are_special
        ):
            return 0
        value[0] = <uint64_t>needed
        return self._magic_size + size + self._field_size(<uint64_t>needed) + self._trailer_size

    cdef inline Py_ssize_t _field_size(self, uint64_t value) noexcept:
        cdef Py_ssize_t size = 1
        if self._kind == UINT or self._kind == DIGITS:
            return self._width
        if self._kind == VARINT:
            while value > 0x7F:
                value >>= 7
                size += 1
            return size
        while value >= <uint64_t>self._base:
            value //= self._base
            size += 1
        return size + self._end_size

    cdef inline Py_ssize_t _write_frame(
        self, uint8_t* frame, const uint8_t* message, Py_ssize_t size, uint64_t value
    ) noexcept:
        """Writes a frame that was measured; returns its size."""
        cdef uint8_t* p = frame
        cdef Py_ssize_t field_size
        if self._magic_size:
            _copy(p, self._magic_at, self._magic_size)
            p += self._magic_size
        if self._lead_size:
            _copy(p, message, self._lead_size)
            p += self._lead_size
        field_size = self._field_size(value)
        if self._kind == UINT:
            _store(p, value, self._width, self._little)
        elif self._kind == VARINT:
            _store_varint(p, value)
        else:
            _store_digits(p, value, field_size - self._end_size, self._base)
            if self._end_size:
                _copy(p + field_size - self._end_size, self._end_at, self._end_size)
        p += field_size
        _copy(p, message + self._lead_size, size - self._lead_size)
        p += size - self._lead_size
        if self._trailer_size:
            _copy(p, self._trailer_at, self._trailer_size)
            p += self._trailer_size
        return p - frame

    # --- the careful way --------------------------------------------------------------------------

    cdef object _special_value(self, message):
        cdef PyObject* value = PyDict_GetItemWithError(self._special_values, message)
        if value == NULL and _forget_bad_key():  # special only as the bytes that it has
            if not self._bytes_are_special:
                return None
            key = bytes(view_bytes(message))
            value = PyDict_GetItemWithError(self._special_values, key)
            if value == NULL and PyErr_Occurred() != NULL:
                _raise_what_is_set()
        return None if value == NULL else <object>value

    cdef int _check_size(self, Py_ssize_t size) except -1:
        if size > self._message_max:
            by_limit = self._message_max >= self._layout.max_message_size
            raise _error_texts.message_too_large(
                size, self._message_max, "max_message_size" if by_limit else "length field"
            )
        return 0

    cdef object _settle_value(self, Py_ssize_t size):
        """The field's value for a message of so many bytes."""
        if size < self._lead_size:
            raise _error_texts.shorter_than_lead(size, self._lead_size)
        self._check_size(size)
        rest_size = size - self._lead_size
        value = rest_size - self._adjustment
        if value < 0:
            raise _error_texts.unsayable_length(value, rest_size)
        if value in self._layout.specials:
            raise _error_texts.length_is_special(value, self._layout.specials[value])
        return value

    cdef bytes _field(self, value):
        """The length field of a value."""
        if self._kind == UINT:
            layout = self._layout
            return value.to_bytes(self._width, layout.byteorder, signed=layout.signed)
        if self._kind == VARINT:
            field = bytearray()
            while value > 0x7F:
                field.append(value & 0x7F | 0x80)
                value >>= 7
            field.append(value)
            return bytes(field)
        digits = f"{value:x}" if self._base == 16 else str(value)
        if self._kind == DIGITS:
            return digits.zfill(self._width).encode()
        if self._kind == TEXT:
            return digits.encode() + self._end
        return f"{self._layout.name}: {value}\r\n\r\n".encode()
