# cython: language_level=3
# The fast path indexes C memory only, after its own comparisons:
# cython: boundscheck=False, wraparound=False, cdivision=True
# A method of one positional argument becomes METH_O (a call costs 70 instead of 78 ns), and still
# shows its signature:
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The splitter in Cython: bytes in, messages out.

Its specification is in Python: `_splitter_py.py`, the public interface, `_keeping_reader_py.py`,
the unread bytes, and `_frame_reader_py.py`, the parsing. They are one class here. The functions
have the same names and the same order, and the plan of the work is described there. Change all in
the same commit, docstrings too, because ``help(framecodec.Splitter)`` shows those of the engine in
use.

What is different here
    The fast path reads C memory and touches no Python object but the messages that it makes. A
    message that is cut off grows in the `bytes` object that will be delivered, so it is copied
    once; its size doubles with the bytes that arrived, so that nothing is allocated from a declared
    length alone.

    Numbers that the loops compare are in a `Shape`, the layout's C copy. Wire values are uint64_t,
    sizes in memory Py_ssize_t; a value becomes a size only after it was compared with a limit that
    a Py_ssize_t holds. Sums of sizes cannot overflow: each is at most LARGEST_SIZE, half of what a
    Py_ssize_t holds.

    The state is consistent whenever Python code may run: in errors, in the user's parse(), nowhere
    else.

    Where threads share a splitter without the GIL, each call runs in a critical section of it,
    which is to one object what the GIL is to all: another thread comes in where this one waits,
    and finds `_busy` set if Python code waits inside a call. With the GIL the sections are nothing.
    A method calls no other method of its object that has a section: it would be left and entered
    again.
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
from cpython.bytearray cimport (
    PyByteArray_AS_STRING,
    PyByteArray_FromStringAndSize,
    PyByteArray_GET_SIZE,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BASE
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport UINT64_MAX, int16_t, int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from ._bare_frames cimport bare_message_of, bare_rest_size, short_message_of
from ._block_scan cimport try_header_block
from ._checksums cimport COVERS_FRAME, checksum_of, is_check, prepare_checksums
from ._marks cimport (
    ANY_TOKEN,
    CUT_OFF,
    ESCAPE,
    LITERAL,
    LONGEST_MARK,
    Marks,
    Starts,
    UNKNOWN_ESCAPE,
    find_end,
    mark_numbers_of,
    marks_in,
    next_start,
    rewind,
    skip_remainder,
    token_at,
    unescape,
    unstuff,
    unstuffed_size,
    wrong_size,
)
from ._module_state cimport remember_module_state
from ._numbers cimport (
    BCD,
    BER,
    CHOICE,
    COVERS_BODY,
    COVERS_FRAME,
    COVERS_MESSAGE,
    CUSTOM,
    Constant,
    DELIMITER,
    DIGITS,
    FIXED,
    HEADERS,
    LARGEST_SIZE,
    NOTHING,
    Shape,
    TEXT,
    UINT,
    VARINT,
    bytes_at,
    bytes_of,
    choose,
    common_size,
    copy,
    digit_value,
    load,
    message_of,
    numbers_of,
    padding_of,
    same,
    shape_holds,
    shape_in,
)

import operator
from collections.abc import Sequence
from types import GenericAlias

from . import _error_texts, _mark_texts, errors
from ._bytes_like import view_bytes
from ._check_bytes import (
    check_start,
    is_right_check,
    verify_check,
    verify_content,
    wrong_bytes_before_check,
)
from ._choice import check_start_of, choose as choose_in, tagged, wrong_choice
from ._custom_header import read_header
from ._fragments import (
    check_fragment,
    first_bytes,
    fragments_as_travelled,
    is_followed,
    not_in_one_piece,
)
from ._encoder import Encoder, ObjectEncoder, update_checksum  # no-cython-lint: a whole engine
from ._header_block import read_lines
from ._layout import Described, describe_splitter, layout_of
from ._repeated_errors import for_this_thread
from ._resync import check_marks, check_on_invalid, find_end_mark, find_mark
from ._likely_causes import SAMPLE_SIZE

__all__ = ["Spans", "Splitter", "scan"]

prepare_checksums()

cdef extern from "Python.h":
    ctypedef struct PyByteArrayObject:
        Py_ssize_t ob_exports  # the views of it

    ctypedef struct PyMemoryViewObject:
        Py_ssize_t exports  # the views of it

cdef enum:
    IN_HEADER
    IN_REST
    IN_TRAILER
    IN_PADDING

# What get_buffer() or get_room() gave and buffer_updated() has not reported yet. feed() withdraws
# what get_room() gave: everything from GIVEN_BY_GET_ROOM up.
cdef enum:
    NOT_GIVEN
    GIVEN_BUFFER  # the receive buffer
    GIVEN_BY_GET_ROOM
    BUFFER_AS_MEMORY = GIVEN_BY_GET_ROOM  # the receive buffer, given by get_room()
    MESSAGE_MEMORY  # memory of the message that is being filled

cdef enum:
    # The size of the buffer without a size hint, the smallest and the largest one.
    BUFFER_SIZE = 65536
    SMALLEST_BUFFER_SIZE = 1024
    LARGEST_BUFFER_SIZE = 1048576

    # A header that may be longer is gathered by steps: this many bytes, then as many again as there
    # are.
    FIRST_HEADER_STEP = 256

    # get_room() gives the memory of a message only if at least this much of it is missing.
    SMALLEST_MEMORY = 65536

    # What is of an earlier call than the last one.
    OLD_HEADERS = 1
    OLD_GAPS = 2

    # An unfinished message's first allocation, if it has that many bytes.
    FIRST_CAPACITY = 4096
    # Added whenever it grows, to grow less often.
    EXTRA_CAPACITY = 65536

    # A message of unknown size is copied out of its first capacity up to this size.
    SMALL_MESSAGE = 512

    # In a choice, the first bytes of a frame in which its end mark is searched.
    MARK_WINDOW = 4096

    # Bytes of the next chunk that a token is judged with whose first bytes ended the last chunk:
    # more than any token has.
    JOINED = 32

    # From this size up a message is put on huge pages: the faults of 4 KiB pages would cost more
    # than the copy (7.3 against 5.5 ms for 16 MiB).
    HUGE_MESSAGE_SIZE = 2097152


# The bytes object of an unfinished message is held by a plain pointer: it is not whole yet, and
# moves when it grows.
cdef extern from "Python.h":
    PyObject* _new_bytes "PyBytes_FromStringAndSize" (const char*, Py_ssize_t) except NULL
    Py_ssize_t Py_REFCNT(PyObject*) noexcept
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
    """Return an integer, clipped to what a Py_ssize_t holds."""
    if PyLong_CheckExact(number):
        return PyNumber_AsSsize_t(number, NULL)
    return PyNumber_AsSsize_t(operator.index(number), NULL)


cdef class Splitter
cdef class Spans


cdef int _raise_what_is_set() except -1:
    return -1


# Functions of Python, called here so that an exception which CPython lost for want of memory is one
# again before an `except` looks for it: see _module_state.pxd.


cdef object _call_loads(loads, message):
    return loads(message)


cdef list _take_held(held):
    return held.take()


cdef int _hold_messages(held, splitter, list messages, headers) except -1:
    held.add(splitter, messages, headers)
    return 0


ctypedef int (*_consume_unchecked)(Splitter, const uint8_t*, Py_ssize_t, list) noexcept


cdef inline int _consume(
    Splitter self, const uint8_t* data, Py_ssize_t size, list messages
) except -1:
    cdef const uint8_t* p = data
    cdef const uint8_t* end = data + size
    if self._marks != NULL:
        p += self._consume_marked(data, size, messages, False)
    while p < end:
        if not self._pending:
            if self._plain:
                p += self._read_plain_frames(p, end, messages)
            elif self._shape.extended:
                if self._chosen_marks != NULL:
                    p += self._read_mixed_frames(p, end, messages)
                elif self._root != NULL:
                    if self._root.is_bare:
                        p += self._read_bare_frames(p, end, messages)
                    p += self._read_chosen_frames(p, end, messages)
                elif self._shape.joined:
                    p += self._read_single_fragments(p, end, messages)
                elif self._shape.has_check:
                    p += self._read_checked_frames(p, end, messages)
                else:
                    p += self._read_extended_frames(p, end, messages)
            else:
                p += self._read_whole_frames(p, end, messages)
            if p == end:
                break
        elif self._plain and self._rest_left:
            p += self._read_plain_rest(p, end - p, messages)
            continue
        if self._phase == IN_HEADER:
            p = self._read_header(data, p, end, messages)
            if self._marks != NULL:  # a choice has chosen such a frame
                p += self._consume_marked(p, end - p, messages, False)
                continue
        if self._phase == IN_REST:
            p += self._read_rest(p, end)
        if self._phase == IN_TRAILER:
            p += self._read_trailer(p, end, messages)
        if self._phase == IN_PADDING:
            p += self._read_padding(p, end, messages)
    return 0


# --- in -------------------------------------------------------------------------------------------


@cython.final
@cython.auto_pickle(False)
cdef class _MessageMemory:
    """Memory of an unfinished message, for the caller to read into.

    It keeps the message alive, which is then copied before it is delivered.
    """

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
    """Splitter(codec, *, raw=False, on_oversize="raise", on_invalid="raise", one_at_a_time=False,
        stream_offset=0, keep_headers=False)\n--\n
    The receiving state of one connection: bytes in any chunks in, messages out.

    Args:
        codec: The shape of the frames.
        raw: Deliver whole frames as they travelled (proxies, captures) instead of messages.
        on_oversize: What happens to a frame whose message is larger than the codec's
            ``max_message_size``: ``"raise"`` fails as soon as its header is in; ``"skip"`` discards
            exactly that frame in constant memory, counts it in `skipped`, and continues.
        on_invalid: What happens to a frame that is invalid or, under ``on_oversize="raise"``, too
            large: ``"raise"`` ends the stream; ``"resync"`` discards bytes up to the next one at
            which a frame can begin, and continues; see `resyncs`, `discarded`, `last_invalid`. The
            work is then linear in the bytes times the frames that begin in them.
        one_at_a_time: A call returns at most one message, and the bytes after it stay unread:
            ``feed(b"")`` returns the next one. So the caller can `switch` after any message.
        stream_offset: The position of the first byte in the stream, in bytes: offsets count from
            it. A caller who has read a part of the stream by other means gives its size.
        keep_headers: Keep the headers of messages in `headers`.

    Raises:
        TypeError: `codec` is not a `Codec`.
        ValueError: `on_oversize`, `on_invalid` or `stream_offset` has another value than these, or
            the frames of the codec begin with no mark that ``"resync"`` could look for.
    """

    cdef object _codec  # for __repr__()
    cdef object _layout
    cdef bytes _numbers
    cdef const Shape* _shape  # in _numbers
    cdef bytes _mark_numbers
    cdef const Marks* _marks  # DELIMITER, COBS: in _mark_numbers; else NULL
    cdef bint _checks_front  # the check is before what it covers
    cdef bint _plain  # UINT, and nothing else in the frame but the rest; not raw, not scanning
    cdef bint _raw
    cdef bint _skip
    cdef bint _one_at_a_time
    cdef bint _resync  # a bad frame is no error
    cdef bint _holds  # one of the two
    cdef bint _wants_headers  # keep_headers was given, ...
    cdef bint _keep_headers  # ... the codec's frames are not canonical, and the caller needs them
    cdef Py_ssize_t _header_limit  # header bytes up to which to gather
    # A choice: `_layout` and `_shape` are those of the pending frame as soon as its byte is in.
    cdef object _choice_layout
    cdef const Shape* _root  # the shape of the choice, or NULL
    cdef const void** _chosen_marks  # the `Marks` of its alternatives, in _mark_numbers; or NULL
    cdef Py_ssize_t _root_limit
    cdef bint _always_parses  # a choice, or joined frames: each header takes the slow path's end
    cdef tuple _tag  # the names of the alternative, or None

    # The pending frame.
    cdef int _phase
    cdef int64_t _stream_offset  # of its first byte
    cdef int64_t _pending  # bytes of it that were taken
    cdef uint8_t* _header  # its header, as far as it was taken
    cdef Py_ssize_t _header_size
    cdef Py_ssize_t _header_capacity  # allocated
    cdef Py_ssize_t _line_pos  # HEADERS: where the first line that was not parsed begins
    cdef object _parsed  # HEADERS: the length in the lines parsed, or -1
    cdef object _found  # of a codec with a check: the parsed header
    cdef Py_ssize_t _own_size  # bytes of the header that are before the rest
    cdef object _skip_left  # skipping: bytes of the rest that are missing (of any size)
    cdef bint _skipping  # past the header: the frame is oversized and being discarded
    cdef Py_ssize_t _rest_left  # in the rest, not skipping: bytes of it that are missing; else 0
    cdef object _rest_beyond  # ... and of one over LARGEST_SIZE what is over
    cdef PyObject* _message  # a `bytes` of our own being filled (raw: the frame), or NULL
    cdef Py_ssize_t _message_size  # what it will have
    cdef Py_ssize_t _message_capacity  # what it has now
    cdef Py_ssize_t _filled  # of it
    cdef Py_ssize_t _pending_lead  # how many of its first bytes came with the header
    cdef Py_ssize_t _trailer_pos  # bytes of a check at the end and of the trailer that matched
    cdef bytes _end  # ... those of the check
    cdef Py_ssize_t _padding_left  # in the padding: bytes of it that are missing
    cdef bytes _padding  # the padding so far

    # Joined frames.
    cdef Py_ssize_t _fragments  # of the pending message that are finished, ...
    cdef bytearray _heads  # ... their heads (what an interruption left may follow), ...
    cdef object _content  # ... and the bytes of their contents
    cdef bint _followed  # past the header: another fragment follows
    cdef object _next_content  # past the header: the bytes of its content, and of those before

    # DELIMITER, COBS.
    cdef Py_ssize_t _content_size  # bytes of the message so far, without escapes
    cdef uint8_t _tail[LONGEST_MARK]  # the first bytes of a token that the last chunk cut off
    cdef Py_ssize_t _tail_size
    cdef int _after  # the last mark, where the rest of a longer one may follow; else -1
    cdef Py_ssize_t _block_left  # COBS: bytes of the block that are missing
    cdef bint _block_begun  # COBS: there was a block
    cdef bint _zero_due  # COBS: a zero is before the next block

    cdef uint64_t _skipped_count
    cdef list _headers  # of the messages of the last call that completed some, if they are kept
    # Bytes of the stream that the last call has read and that are in no message: (start, stop) of
    # each piece. The last one is in two numbers, because most pieces follow it directly.
    cdef bint _notes_gaps  # keep_headers was given, or messages are objects
    cdef list _first_gaps  # or None
    cdef int64_t _gap_start
    cdef int64_t _gap_stop
    cdef int _old  # OLD_HEADERS, OLD_GAPS: they are of an earlier call
    cdef Spans _spans  # scanning: where the frames lie, instead of messages
    cdef object _buffer  # the receive buffer: a bytearray, ...
    cdef object _buffer_view  # ... and an export of it, so that no caller resizes it
    cdef Py_ssize_t _buffer_size
    cdef list _spare  # its one item is the receive buffer that splitters share; None: do not share
    cdef int _given  # what get_buffer() gave last
    cdef Py_ssize_t _given_size
    cdef object _memory_view  # what get_room() gave: MESSAGE_MEMORY, or a shared buffer
    cdef object _error  # the sticky error
    cdef unsigned long _failed_in  # the thread that met it
    cdef bytes _not_taken  # after an error: what followed the byte that decided
    # CUSTOM: bytes of earlier chunks that parse() saw and that follow the header; they are read
    # before the chunk, which they end at.
    cdef bytes _surplus_bytes
    cdef bint _lost  # after an error: no memory for _not_taken
    # One message a call: bytes after the last delivered message that no call has looked at.
    cdef uint8_t* _held
    cdef Py_ssize_t _held_pos  # where they begin
    cdef Py_ssize_t _held_size
    cdef Py_ssize_t _held_capacity
    cdef bint _searching  # after a bad frame, until the next mark
    cdef int64_t _search_from  # where the discarded bytes begin that are not noted as a gap
    cdef uint64_t _resync_count
    cdef uint64_t _discarded  # bytes
    cdef object _last_invalid
    cdef bint _ended  # feed_eof() found undelivered messages
    cdef bint _detached
    cdef bint _busy  # inside a call during which other code may run
    cdef object _objects  # the functions of a codec whose messages are objects, or None, ...
    cdef object _loads  # ... and the one that makes objects
    cdef object _undelivered  # what follows a refused message, or None

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(
        self,
        codec,
        *,
        raw=False,
        on_oversize="raise",
        on_invalid="raise",
        one_at_a_time=False,
        stream_offset=0,
        keep_headers=False,
    ):
        self._header = NULL
        self._message = NULL
        self._held = NULL
        layout = layout_of(codec)
        if on_oversize not in ("raise", "skip"):
            raise _error_texts.bad_on_oversize(on_oversize)
        resync = check_on_invalid(on_invalid, layout)
        offset = operator.index(stream_offset)
        if not 0 <= offset <= 1 << 62:
            raise _error_texts.bad_stream_offset(offset)
        self._codec = codec
        self._stream_offset = offset
        self._raw = bool(raw)
        self._skip = on_oversize == "skip"
        self._one_at_a_time = bool(one_at_a_time)
        if not raw:
            self._objects = objects = getattr(codec, "_objects", None)
            if objects is not None:
                self._loads = objects.loads
                keep_headers = True
        self._notes_gaps = keep_headers
        self._old = OLD_GAPS
        self._resync = resync
        self._holds = self._one_at_a_time or self._resync
        self._wants_headers = keep_headers and not raw
        self._padding = self._end = b""
        self._parsed = -1
        self._rest_beyond = 0
        self._skip_left = 0
        self._content = self._next_content = 0
        self._not_taken = b""
        self._surplus_bytes = b""
        self._use_layout(layout, numbers_of(layout), mark_numbers_of(layout), [])

    cdef int _use_layout(
        self, layout, bytes numbers, bytes mark_numbers, list headers
    ) except -1:
        """Read frames of this layout from now on. `headers` is a new list; this cannot fail."""
        self._mark_numbers = mark_numbers
        self._marks = NULL
        self._chosen_marks = NULL
        if mark_numbers is None:
            pass
        elif layout.choice is None:
            self._marks = marks_in(mark_numbers)
        else:
            self._chosen_marks = <const void**>PyBytes_AS_STRING(mark_numbers)
        self._forget_marked()
        self._tail_size = 0
        self._after = -1
        self._checks_front = layout.check is not None and layout.check.position == "front"
        self._layout = layout
        self._numbers = numbers
        self._shape = shape_in(numbers)
        self._keep_headers = self._wants_headers and not layout.canonical
        self._headers = headers if self._keep_headers else None
        self._plain = layout.plain and not self._raw
        self._header_limit = layout.longest_header
        self._choice_layout = layout
        self._root_limit = self._header_limit
        self._root = self._shape if layout.choice is not None else NULL
        self._always_parses = self._root != NULL or self._shape.joined
        self._tag = None
        return 0

    def __dealloc__(self):
        PyMem_Free(self._header)
        PyMem_Free(self._held)
        Py_XDECREF(self._message)

    # --- bytes in ---------------------------------------------------------------------------------

    @cython.critical_section
    def feed(self, data, /):
        """Take the next bytes of the stream.

        Args:
            data: Any contiguous bytes-like object, of any length, cut anywhere.

        Returns:
            The messages that were completed, in order: `bytes`, or the objects of the codec's
            ``specials``, or those that ``Codec.with_objects`` makes. Messages before a bad frame
            are returned first; the error is then in `error`, and raised by the next call.

        Raises:
            InvalidMessageError: A codec with objects refuses a message. The bytes are taken, and
                ``feed(b"")`` returns the messages after it.
            FrameError: The stream is broken. Every later call raises the same error, in another
                thread a copy of it.
            TypeError, BufferError: `data` is not a contiguous bytes-like object; nothing was taken.
            ValueError: The splitter is detached.
        """
        # Before any look at the state: before Python 3.12 the allocation may collect garbage, whose
        # finalizers may call in here.
        cdef list messages = []
        if self._loads is not None:
            return self._take_objects(data, messages, True)
        self._feed_any(data, messages)
        return messages

    cdef inline int _feed_any(self, data, list messages) except -1:
        if PyBytes_CheckExact(data):
            self._check_ready()
            self._take(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), messages)
            return 0
        return self._feed_buffer(data, messages)

    cdef int _feed_buffer(self, data, list messages) except -1:
        cdef Py_buffer view
        try:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        except MemoryError:
            raise  # no memory
        except Exception:
            data = view_bytes(data)  # says what is wrong
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self._check_ready()
            if self._message != NULL and Py_REFCNT(self._message) > 1:
                # The caller has a view of the message, and may be feeding just that: taking a
                # chunk would write into it.
                data = bytes_of(<const uint8_t*>view.buf, view.len)
                self._take(<const uint8_t*>PyBytes_AS_STRING(data), view.len, messages)
            else:
                self._take(<const uint8_t*>view.buf, view.len, messages)
        finally:
            PyBuffer_Release(&view)
        return 0

    @cython.critical_section
    def get_buffer(self, sizehint=-1, /):
        """Return memory to read the next bytes of the stream into.

        Args:
            sizehint: Bytes needed, from 1 KiB to 1 MiB; -1 or 0 means 64 KiB. The buffer may be
                larger.

        Returns:
            A writable buffer that is never empty, to be filled from its start and reported with
            `buffer_updated`. Messages are copied out of it: one that was delivered never changes.

        Raises:
            FrameError: The stream is broken.
            ValueError: The splitter is detached.
        """
        cdef Py_ssize_t size = _clipped_index(sizehint)
        self._check_usable()
        return self._give_buffer(size, GIVEN_BUFFER)

    cdef object _give_buffer(self, Py_ssize_t size, int given):
        if size <= 0:
            size = BUFFER_SIZE
        size = min(max(size, SMALLEST_BUFFER_SIZE), LARGEST_BUFFER_SIZE)
        cdef bint shared = self._spare is not None and given == BUFFER_AS_MEMORY
        cdef Py_ssize_t buffer_size = self._buffer_size
        self._busy = True  # an allocation may collect garbage, whose finalizers may come in here
        try:
            self._withdraw_memory()
            self._given = NOT_GIVEN
            buffer, buffer_view = self._buffer, self._buffer_view
            if shared and buffer is None and self._spare[0] is not None:
                buffer_view, self._spare[0] = self._spare[0], None
                buffer = <object>PyMemoryView_GET_BASE(buffer_view)
                if (<PyByteArrayObject*>buffer).ob_exports == 1:  # buffer_view
                    buffer_size = PyByteArray_GET_SIZE(buffer)
                else:  # who read into it has kept a view
                    buffer = None
            if buffer is None or buffer_size < size:
                buffer = PyByteArray_FromStringAndSize(NULL, size)  # not cleared: touches no page
                buffer_view = PyMemoryView_FromObject(buffer)
                buffer_size = size
            view = PyMemoryView_FromObject(buffer)
            # Nothing can fail any more.
            if buffer is not self._buffer:
                self._buffer, self._buffer_view = buffer, buffer_view
                self._buffer_size = buffer_size
            if shared:
                self._memory_view = view
            self._given = given
            self._given_size = self._buffer_size
        finally:
            self._busy = False
        return view

    @cython.critical_section
    def _share_buffer(self, list spare not None, /):
        """Share the buffer that `get_room` gives with other splitters, which read by turns.

        Between two reads no splitter has it. So connections that wait hold no memory, and those
        that receive use memory that is still in the processor's caches.

        Args:
            spare: A list of one item, the buffer or None. One thread uses it.
        """
        self._spare = spare

    cdef int _put_buffer_back(self) except -1:
        """Let the other splitters have the receive buffer."""
        self._busy = True
        try:
            self._withdraw_memory()
        finally:
            self._busy = False
        self._spare[0] = self._buffer_view
        self._buffer = self._buffer_view = None
        self._buffer_size = 0
        return 0

    @cython.critical_section
    def get_room(self, sizehint=-1, /):
        """Return memory as `get_buffer` does, for a caller that releases it at once.

        The compiled engine may give the memory of the message itself, so that the bytes of a large
        one are never copied; Python cannot fill a `bytes`.
        """
        # buffer_updated() withdraws it; where it cannot, because the caller has another view of it,
        # the message moves before it grows, and is copied before it is delivered.
        cdef Py_ssize_t size = _clipped_index(sizehint)
        cdef _MessageMemory memory
        self._check_usable()
        if self._rest_left < SMALLEST_MEMORY:
            return self._give_buffer(size, BUFFER_AS_MEMORY)
        self._busy = True  # as in _give_buffer()
        try:
            self._withdraw_memory()
            self._given = NOT_GIVEN
            if self._message_capacity - self._filled < SMALLEST_MEMORY:
                self._grow_message(0)
            memory = _MessageMemory.__new__(_MessageMemory)
            memory.message = <object>self._message
            memory.pos = self._filled
            memory.size = min(
                max(size, SMALLEST_MEMORY), self._rest_left, self._message_capacity - self._filled
            )
            self._memory_view = PyMemoryView_FromObject(memory)
            self._given = MESSAGE_MEMORY
            self._given_size = memory.size
            return self._memory_view
        finally:
            self._busy = False

    cdef int _withdraw_memory(self) except -1:
        """Release the memory that get_room() gave, unless the caller has views of it."""
        if self._given >= GIVEN_BY_GET_ROOM:
            self._given = NOT_GIVEN
        if self._memory_view is not None:
            view, self._memory_view = self._memory_view, None
            # uvloop has a view of the view until its call is over. An error would say so, slowly.
            if (<PyMemoryViewObject*>view).exports == 0:
                try:
                    view.release()
                except BufferError:  # pragma: no cover (another thread has made a view of it)
                    pass  # pragma: no cover (another thread)
        return 0

    @cython.critical_section
    def buffer_updated(self, count, /):
        """Take the bytes that were read into the buffer from `get_buffer`.

        Args:
            count: Bytes that were read, from the buffer's start.

        Returns:
            The messages that were completed, as `feed` does.

        Raises:
            FrameError: The stream is broken.
            ValueError: There is no such buffer, `count` does not fit it, or the splitter is
                detached.
        """
        cdef list messages = []  # first, as in feed()
        if self._loads is not None:
            return self._take_objects(count, messages, False)
        self._buffer_updated_any(count, messages)
        return messages

    cdef inline int _buffer_updated_any(self, count, list messages) except -1:
        number = count if PyLong_CheckExact(count) else operator.index(count)
        cdef Py_ssize_t size = _clipped_index(number)
        cdef int given = self._given
        self._check_usable()
        if given == NOT_GIVEN:
            raise _error_texts.no_buffer_given()
        if size < 0 or size > self._given_size:
            raise _error_texts.updated_beyond_buffer(number, self._given_size)
        if given == MESSAGE_MEMORY:
            return self._take_from_memory(size, messages)
        self._given = NOT_GIVEN
        if self._memory_view is not None:
            try:
                return self._take(
                    <const uint8_t*>PyByteArray_AS_STRING(self._buffer), size, messages
                )
            finally:
                self._put_buffer_back()
        return self._take(<const uint8_t*>PyByteArray_AS_STRING(self._buffer), size, messages)

    cdef int _take_from_memory(self, Py_ssize_t size, list messages) except -1:
        """Count bytes that the caller has written into the message itself."""
        self._busy = True
        try:
            self._withdraw_memory()
            self._old = OLD_HEADERS | OLD_GAPS
            self._filled += size
            self._rest_left -= size
            self._pending += size
            if not self._rest_left:
                self._end_rest()
                self._read_trailer(NULL, NULL, messages)
        except BaseException as error:  # no memory
            self._fail(error, NULL, 0, 0)  # no memory
            raise  # no memory
        finally:
            self._busy = False
        return 0

    @cython.critical_section
    def feed_eof(self):
        """End the stream.

        With ``one_at_a_time``, messages that are whole and not returned yet raise nothing:
        ``feed(b"")`` returns them, and then raises if the stream ended inside a frame.

        Raises:
            IncompleteFrameError: It ended inside a frame. Every later call raises the same error.
                Where messages after a refused one are undelivered, ``feed(b"")`` returns those
                first, and raises this error after them.
            FrameError: It was broken before.
            ValueError: The splitter is detached.
        """
        self._check_usable()
        if self._held_size and not self._searching and self._has_whole_message():
            self._ended = True
            return
        if self._searching:
            self._end_search()
            return
        if not self._pending:
            return
        self._busy = True  # another thread, or a garbage collection, may come in here
        try:
            error = _error_texts.incomplete_frame(self._describe_pending())
            self._fail(error, NULL, 0, 0)
        finally:
            self._busy = False
        if self._undelivered is None:
            raise error

    cdef bint _has_whole_message(self) except -1:
        """Return whether a message is in the held bytes; if not, parse them."""
        cdef list messages = []
        self._busy = True  # as below
        try:
            probe = Splitter(
                Described(self._choice_layout),
                raw=self._raw,
                on_oversize="skip" if self._skip else "raise",
                on_invalid="resync" if self._resync else "raise",
                one_at_a_time=True,
            )
            try:
                if probe.feed(self._unfinished()):
                    return True
            except errors.FrameError:
                pass  # this splitter raises it now
        finally:
            self._busy = False
        self._take(NULL, 0, messages)
        if messages:
            raise _error_texts.parse_changed_its_answer(self._stream_offset)
        return False

    @cython.critical_section
    def switch(self, codec, /):
        """Read the stream with another codec, from the byte after the last delivered message on.

        Offsets continue. An error that came after the delivered messages is cleared: its bytes are
        read again.

        Args:
            codec: The shape of the frames from there on.

        Returns:
            The messages that are complete under it, as `feed` does.

        Raises:
            FrameError: The first frame under the new codec is bad. Every later call raises it.
            TypeError: `codec` is not a `Codec`; nothing has changed.
            ValueError: An oversized frame is being skipped, or the splitter is detached.
        """
        cdef bytes before = b""
        cdef bint wants_headers = self._wants_headers, notes_gaps = self._notes_gaps
        cdef list loaded = []
        objects = None if self._raw else getattr(codec, "_objects", None)
        if self._undelivered is not None:
            before = self._undelivered.travelled(self, self._unfinished())
        try:
            self._wants_headers = wants_headers or objects is not None
            self._notes_gaps = notes_gaps or objects is not None
            messages = self._switch_to(codec, before)
        except BaseException:
            self._wants_headers, self._notes_gaps = wants_headers, notes_gaps
            raise
        self._objects = objects
        self._loads = None if objects is None else objects.loads
        if objects is not None:
            messages = self._load(messages, loaded)
        if not messages and self._error is not None:
            raise self._error.with_traceback(None)
        return messages

    @cython.critical_section
    def _switch(self, codec, bytes before not None):
        """Switch as `switch` does, but keep an error for the next call.

        Args:
            codec: As for `switch`.
            before: Bytes before the unread ones that are read again.
        """
        return self._switch_to(codec, before)

    cdef list _switch_to(self, codec, bytes before):
        cdef list messages = []
        cdef list headers = []
        cdef bint in_padding
        cdef bytes unread
        layout = layout_of(codec)
        if self._busy:
            raise _error_texts.reentered()
        if self._detached:
            raise _error_texts.detached()
        in_padding = self._phase == IN_PADDING and not self._raw  # its message is delivered
        in_padding = in_padding and not before  # ... unless that is read again
        if self._skipping and not in_padding:
            raise _error_texts.switch_in_skipped_frame()
        if self._resync:
            check_marks(layout)
        self._busy = True  # as in feed_eof()
        try:
            unread = self._not_taken + self._held_bytes() if in_padding else self._unfinished()
            unread = before + unread
            numbers, mark_numbers = numbers_of(layout), mark_numbers_of(layout)
            self._withdraw_memory()
        finally:
            self._busy = False
        # Nothing can fail any more.
        self._use_layout(layout, numbers, mark_numbers, headers)
        self._codec = codec
        self._undelivered = None
        self._error = None
        self._not_taken = self._surplus_bytes = b""
        self._lost = self._ended = self._searching = False
        self._drop_held(self._held_size)
        if not in_padding:
            self._forget()
            self._padding_left = 0
            self._padding = b""
            self._rest_beyond = 0
        # _forget() leaves these to a layout that does not use them.
        self._parsed = -1
        self._end = b""
        self._found = None
        self._stream_offset -= PyBytes_GET_SIZE(before)
        self._old |= OLD_GAPS
        try:
            self._take(
                <const uint8_t*>PyBytes_AS_STRING(unread), PyBytes_GET_SIZE(unread), messages
            )
        except BaseException as error:
            if error is not self._error:
                raise  # no memory
        return messages

    @cython.critical_section
    def _delivered_padding(self):
        """Return where the padding of the last delivered frame begins, and its size.

        The size is 0 if all of it has arrived: then the next frame begins there.
        """
        return self._padding_of_delivered()

    cdef object _padding_of_delivered(self):
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self._padding)
        if self._phase != IN_PADDING or self._raw or self._skipping:
            return self._stream_offset, 0
        begin = self._stream_offset + self._pending - PyBytes_GET_SIZE(self._not_taken) - size
        return begin, size + self._padding_left

    @cython.critical_section
    def _unread(self):
        """Return the bytes that `detach` would return."""
        return self._unfinished()

    @cython.critical_section
    def detach(self):
        """End the splitter and return its unread bytes, for another protocol.

        Returns:
            The bytes of the unfinished frame; after an error, all bytes from the start of the bad
            frame; with ``one_at_a_time`` all bytes after the last message that was returned. Of an
            oversized frame that is being discarded: ``b""``.

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
            if self._undelivered is not None:
                unfinished = self._undelivered.travelled(self, unfinished) + unfinished
            self._detached = True
            self._withdraw_memory()
        finally:
            self._busy = False
        self._forget()
        self._not_taken = self._surplus_bytes = b""
        self._tail_size = 0
        self._drop_held(self._held_size)
        self._buffer = self._buffer_view = self._spare = self._undelivered = None
        self._given = NOT_GIVEN
        return unfinished

    def __reduce__(self):
        raise _error_texts.not_copied(self)

    def __repr__(self):
        with cython.critical_section(self):
            codec, detached = self._codec, self._detached
        return describe_splitter(self, codec, detached)

    # --- its state --------------------------------------------------------------------------------

    @cython.critical_section
    def _pending_frame(self):
        """Describe the pending frame, for the text of an error about what is missing of it."""
        return self._describe_pending()

    cdef object _describe_pending(self):
        cdef Py_ssize_t lead_size
        where, needed = "header", None
        header = sample = self._header_bytes()
        if self._phase != IN_HEADER:
            where = "rest" if self._phase == IN_REST else "trailer"
            needed = self._pending + self._missing()
            if self._phase == IN_PADDING:  # also after a switch to any codec
                pass
            elif self._marks != NULL or self._followed:
                needed = None
            else:
                needed += self._layout.padding(needed)
            if not self._skipping and self._phase != IN_PADDING:
                if self._message != NULL:
                    lead_size = 0 if self._raw else self._pending_lead
                    if self._raw:  # the message begins with the header
                        sample = b""
                    sample += bytes_of(
                        bytes_at(self._message) + lead_size,
                        min(self._filled - lead_size, <Py_ssize_t>SAMPLE_SIZE),
                    )
                sample += self._end + self._layout.trailer[: self._trailer_matched()]
        if self._fragments and not self._skipping:
            sample = self._unfinished_fragments()
            sample += self._layout.trailer[: self._trailer_matched()]
        if self._marks != NULL and self._phase != IN_PADDING:
            where = "rest" if self._phase == IN_REST or not self._shape.magic_size else "header"
            if not self._skipping:
                sample += bytes_of(self._tail, self._tail_size)
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
    @cython.critical_section
    def pending(self):
        """Bytes that arrived and are in no message yet (after an error: from the bad frame on)."""
        return self._pending + self._held_size

    @property
    @cython.critical_section
    def bytes_needed(self):
        """Bytes that finish the pending frame: a lower bound, at least 1.

        It is exact once the header is in, where that declares a size.
        """
        if self._held_size:
            return max(1, self._shape.header_size - self._held_size)
        if self._phase != IN_HEADER and self._error is None:
            missing = self._missing()
            if self._raw:  # a raw frame has the padding, a message comes before it
                missing += self._layout.padding(self._pending + missing)
            return max(1, missing)  # 0 while a message is delivered
        return max(1, self._shape.header_size - len(self._seen_header()))

    @property
    @cython.critical_section
    def stream_offset(self):
        """Position in the stream, in bytes, of the pending frame's first byte."""
        return self._stream_offset

    @property
    @cython.critical_section
    def pending_header(self):
        """The pending frame's header, as far as it arrived.

        After an error: up to the byte that decided.
        """
        return self._seen_header()

    cdef object _seen_header(self):
        error = self._error
        if isinstance(error, errors.FrameError) and not self._detached:
            return error.header  # the splitter may have gathered more, depending on the chunks
        return self._header_bytes()

    @property
    @cython.critical_section
    def error(self):
        """The error that ended the stream, or that the next call raises for a message; or None."""
        return self._error if self._undelivered is None else self._undelivered.error

    @property
    @cython.critical_section
    def skipped(self):
        """How many oversized frames were discarded."""
        return self._skipped_count

    @property
    @cython.critical_section
    def resyncs(self):
        """How many bad frames were discarded under ``on_invalid="resync"``."""
        return self._resync_count

    @property
    @cython.critical_section
    def discarded(self):
        """How many bytes were discarded with them, up to the next frames."""
        return self._discarded

    @property
    @cython.critical_section
    def last_invalid(self):
        """The error of the last bad frame, or None."""
        return self._last_invalid

    @property
    @cython.critical_section
    def headers(self):
        """The headers of the messages that the last call returned, if the splitter keeps them.

        With ``keep_headers=True``, and a codec that reads other frames than it writes: what
        travelled before each message's rest, in the same order. `frame_as_travelled` rebuilds a
        frame from it. None for other codecs, whose messages have one frame, and with ``raw=True``.
        """
        return self._last_headers()

    @property
    def _gaps(self):
        """Bytes that the last call has read and that are in no message: (start, stop) of pieces.

        Skipped frames are, discarded bytes, and frames that are ignored because they are empty.
        Only a splitter with ``keep_headers=True`` notes them, or one whose messages are objects.
        """
        if self._old & OLD_GAPS:
            return []
        return [*(self._first_gaps or ()), (self._gap_start, self._gap_stop)]

    cdef int _note_gap(self, int64_t start, int64_t stop) except -1:
        """Note that a piece of the stream is in no message."""
        if not self._notes_gaps or start == stop:
            return 0
        if self._old & OLD_GAPS:
            self._first_gaps = None
            self._old &= ~OLD_GAPS
        elif self._gap_stop == start:
            self._gap_stop = stop
            return 0
        else:
            if self._first_gaps is None:
                self._first_gaps = []
            self._first_gaps.append((self._gap_start, self._gap_stop))
        self._gap_start, self._gap_stop = start, stop
        return 0

    cdef object _last_headers(self):
        return [] if self._headers is not None and self._old & OLD_HEADERS else self._headers

    # --- messages that are objects: `_object_messages_py` -----------------------------------------

    cdef list _take_objects(self, argument, list messages, bint by_feed):
        """Take bytes by a method, and return the objects of its messages."""
        cdef list loaded = []  # first: there may be no memory for it later
        if self._busy:
            raise _error_texts.reentered()
        if self._undelivered is None or self._error is None:
            try:
                if by_feed:
                    self._feed_any(argument, messages)
                else:
                    self._buffer_updated_any(argument, messages)
            except BaseException:
                if self._undelivered is None or self._error is None:
                    raise
        held = self._undelivered
        if held is not None:
            held.taking = held.telling = False
        return self._load(messages, loaded)

    cdef list _load(self, list messages, list objects):
        """Return the objects of messages, up to a refused one; hold the others."""
        loads, held = self._loads, self._undelivered
        self._busy = True
        try:
            if held is not None:
                return self._load_held(held, messages)
            for message in messages:
                objects.append(_call_loads(loads, message))
        except BaseException as cause:
            if held is not None:
                raise
            objects = self._keep_refused(cause, messages, objects)
        finally:
            self._busy = False
        return objects

    cdef list _load_held(self, held, list messages):
        if messages:
            try:
                _hold_messages(held, self, messages, self._last_headers())
            except BaseException as error:  # raised after the held ones
                self._lose_messages(error)
        try:
            objects = _take_held(held)
        except errors.InvalidMessageError:
            raise
        except BaseException as error:
            held.fail(error)  # it sticks, because the bytes of this call are taken
            raise
        finally:
            # No call from here on, in which a signal handler could raise.
            if held.finished:
                self._undelivered = None
        return objects

    cdef list _keep_refused(self, cause, list messages, list objects):
        """Hold the messages after those with objects; raise if there are none of those."""
        cdef Py_ssize_t index = len(objects)
        try:
            headers = self._last_headers()
            held = self._objects.hold(self._choice_layout)
            headers = None if headers is None else headers[index : len(messages)]
            _hold_messages(held, self, messages[index:], headers)
            held.refuse(cause)
        except BaseException as error:
            self._lose_messages(error)
            if not objects:
                raise
        else:
            self._undelivered = held
            if not objects:
                return self._load_held(held, [])
        return objects

    cdef inline int _break(self, error) noexcept:
        """Let every later call raise an error; this thread has met it."""
        self._error = error
        self._failed_in = PyThread_get_thread_ident()
        return 0

    cdef int _lose_messages(self, error) noexcept:
        """Make an error sticky, for which messages are lost: `detach` cannot return them."""
        self._lost = True
        if self._error is None:
            self._break(error)
        return 0

    # --- taking a chunk ---------------------------------------------------------------------------

    cdef int _check_usable(self) except -1:
        if self._busy:
            raise _error_texts.reentered()
        if self._detached:
            raise _error_texts.detached()
        if self._error is not None:
            raise for_this_thread(self._error, self._failed_in)
        return 0

    cdef inline int _check_ready(self) except -1:
        """Check the state before a feed(), which withdraws the memory that get_room() gave."""
        if (
            self._busy
            or self._detached
            or self._error is not None
            or self._given >= GIVEN_BY_GET_ROOM
        ):
            self._make_ready()
        return 0

    cdef int _make_ready(self) except -1:
        """Raise what `_check_ready` has found, or withdraw the memory."""
        self._check_usable()
        self._busy = True
        try:
            self._withdraw_memory()
        finally:
            self._busy = False
        return 0

    cdef inline int _take(
        self, const uint8_t* data, Py_ssize_t size, list messages
    ) except -1:
        """Take a chunk; keep an error for the next call if there are messages to deliver."""
        cdef int64_t taken_before = self._stream_offset + self._pending
        cdef int failed
        self._old = OLD_HEADERS | OLD_GAPS
        # A chunk in the midst of a message: nothing can begin, end or go wrong.
        if size < self._rest_left and size <= self._message_capacity - self._filled:
            self._keep(data, size)
            return 0
        if self._holds:
            if self._resync:
                return self._take_resync(data, size, messages)
            return self._take_one(data, size, messages)
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
        """Make the error sticky; busy until then, because another thread may run."""
        cdef int64_t taken
        try:
            try:
                _raise_what_is_set()
            except BaseException as raised:  # also one that Cython caught for lack of memory
                if isinstance(raised, errors.FrameError):
                    _error_texts.complete_text(raised, self._layout, self._fragments)
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

    # --- one message a call -----------------------------------------------------------------------

    cdef int _take_one(self, const uint8_t* data, Py_ssize_t size, list messages) except -1:
        """Take a chunk up to the end of its first message, and hold what follows."""
        cdef const uint8_t* chunk = data  # what is being read: the caller's, or what is held
        cdef bint is_held = False
        cdef Py_ssize_t taken
        cdef int64_t taken_before = self._stream_offset + self._pending
        self._busy = True
        try:
            if size:
                self._ended = False
            if self._tail_size:  # it is read again
                self._hold_first(bytes_of(self._tail, self._tail_size))
                self._untake(self._tail_size)
                self._tail_size = 0
            if self._held_size:
                self._hold(data, size)
                is_held = True
            while True:
                if is_held:
                    chunk, size = self._held + self._held_pos, self._held_size
                taken_before = self._stream_offset + self._pending
                taken = self._consume_one(chunk, size, messages)
                if not is_held and taken < size:
                    self._hold(chunk + taken, size - taken)
                elif is_held:
                    self._drop_held(taken)
                if not PyBytes_GET_SIZE(self._surplus_bytes):
                    break
                # parse() looked ahead: what follows the header in earlier chunks comes first.
                self._hold_first(self._surplus_bytes)
                self._surplus_bytes = b""
                is_held = True
            if self._ended and self._pending and not messages:
                raise _error_texts.incomplete_frame(self._describe_pending())
        except BaseException as error:
            if isinstance(error, errors.FrameError):
                _error_texts.complete_text(error, self._layout, self._fragments)
            taken_now = self._stream_offset + self._pending - taken_before
            if self._held_size and not is_held:
                self._lost = True  # no memory
                self._pending += self._held_size  # no memory
            self._fail(error, chunk, taken_now, size)
            self._drop_held(self._held_size)
            if not messages:
                raise
            error.with_traceback(None)  # no memory; as in _take_failed()
        finally:
            self._busy = False
        return 0

    cdef Py_ssize_t _consume_one(
        self, const uint8_t* data, Py_ssize_t size, list messages
    ) except -1:
        """Take bytes up to the end of the first message, and its padding; return their number.

        It stops before the first byte if `_surplus_bytes` come first.
        """
        cdef const uint8_t* p = data
        cdef const uint8_t* end = data + size
        if self._marks != NULL:
            p += self._consume_marked(data, size, messages, True)
        while p < end and not messages:
            if self._phase == IN_HEADER:
                p = self._read_header(data, p, end, messages)
                if PyBytes_GET_SIZE(self._surplus_bytes):
                    return 0
                if self._marks != NULL:
                    p += self._consume_marked(p, end - p, messages, True)
                    continue
            if self._phase == IN_REST:
                p += self._read_rest(p, end)
            if self._phase == IN_TRAILER:
                p += self._read_trailer(p, end, messages)
            if self._phase == IN_PADDING:
                p += self._read_padding(p, end, messages)
        return p - data

    # --- after a bad frame ------------------------------------------------------------------------

    cdef int _take_resync(self, const uint8_t* data, Py_ssize_t size, list messages) except -1:
        """Take a chunk; after a bad frame discard the bytes before the next mark."""
        cdef Py_ssize_t taken
        self._busy = True
        try:
            if size:
                self._ended = False
            if self._one_at_a_time and self._tail_size:  # it is read again
                self._hold_first(bytes_of(self._tail, self._tail_size))
                self._untake(self._tail_size)
                self._tail_size = 0
            while True:
                taken = size if self._one_at_a_time else min(size, BUFFER_SIZE)
                if taken:
                    self._hold(data, taken)
                data += taken
                size -= taken
                self._read_held(messages)
                if not size:
                    break
            if self._ended and self._searching:
                self._end_search()
            if self._ended and self._pending and not messages:
                raise _error_texts.incomplete_frame(self._describe_pending())
        except BaseException as error:
            if isinstance(error, errors.FrameError):
                _error_texts.complete_text(error, self._layout, self._fragments)
            try:
                self._hold(data, size)
                self._fail(error, self._held + self._held_pos, 0, self._held_size)
            except MemoryError:
                self._break(error)  # no memory
                self._lost = True  # no memory
            self._drop_held(self._held_size)
            if not messages:
                raise
            error.with_traceback(None)  # as in _take_failed()
        finally:
            self._busy = False
        return 0

    cdef int _read_held(self, list messages) except -1:
        """Take the held bytes, one message at a time if it was asked for."""
        cdef int64_t start
        cdef Py_ssize_t taken
        while self._held_size and not (self._one_at_a_time and messages):
            if self._searching and not self._search():
                return 0
            start = self._stream_offset + self._pending
            try:
                taken = self._held_size
                if self._one_at_a_time:
                    taken = self._consume_one(self._held + self._held_pos, taken, messages)
                else:
                    _consume(self, self._held + self._held_pos, taken, messages)
            except BaseException as error:
                self._leave_bad_frame(error, start)
                if not self._searching:
                    raise
                taken = -1
            if taken < 0:
                continue
            self._drop_held(taken)
            if PyBytes_GET_SIZE(self._surplus_bytes):
                self._hold_first(self._surplus_bytes)
                self._surplus_bytes = b""
        return 0

    cdef bint _search(self) except -1:
        """Discard held bytes up to the first mark; return whether there is a whole one."""
        cdef const uint8_t* data = self._held + self._held_pos
        cdef Py_ssize_t size = self._held_size
        cdef Py_ssize_t mark_size = self._shape.magic_size
        cdef Py_ssize_t pos = 0
        cdef const uint8_t* found
        cdef bint whole = False
        if self._marks != NULL and not mark_size:
            pos, mark = find_end_mark(self._layout, self._held_bytes())
            whole = len(mark) > 0
            self._after = self._begun_mark(mark)
        elif mark_size:
            while pos < size:
                found = <const uint8_t*>memchr(data + pos, self._shape.magic[0], size - pos)
                if found == NULL:
                    pos = size
                    break
                pos = found - data
                if not memcmp(found, self._shape.magic, min(mark_size, size - pos)):
                    whole = size - pos >= mark_size
                    break
                pos += 1
        else:
            pos, whole = find_mark(self._layout, self._held_bytes())
        self._note_gap(self._search_from, self._stream_offset + pos)
        self._drop_held(pos)
        self._stream_offset += pos
        self._discarded += pos
        self._search_from = self._stream_offset
        self._searching = not whole
        return whole

    cdef int _begun_mark(self, bytes mark) except -2:
        """Return the number of an end mark with which a longer one begins, or -1."""
        cdef int i
        for i in range(self._marks.count):
            if self._marks.marks[i].is_begun and mark == bytes_of(
                self._marks.marks[i].data, self._marks.marks[i].size
            ):
                return i
        return -1

    cdef int _leave_bad_frame(self, error, int64_t start) except -1:
        """Discard the first byte of a bad frame, and of one that was skipped all that is gone.

        It does not begin to search if the error is not the frame's. Then the held bytes, which
        begin at `start` in the stream, become those that were not taken.
        """
        cdef bint is_bad = False
        cdef bint is_gone = self._skipping and (self._phase != IN_HEADER or self._fragments)
        cdef Py_ssize_t taken = self._stream_offset + self._pending - start
        cdef Py_ssize_t gone = 1
        try:
            bad_frames = (errors.InvalidFrameError, errors.MessageTooLargeError)
            if isinstance(error, bad_frames):
                _error_texts.complete_text(error, self._layout, self._fragments)
                error.with_traceback(None)
                is_bad = True
        except BaseException:  # no memory
            self._drop_taken(taken)  # no memory
            raise  # no memory
        if is_bad and not is_gone and self._stream_offset >= start:  # it began in the held bytes
            self._drop_held(taken - self._pending + 1)
        else:
            self._drop_taken(taken)
            if not is_bad:
                return 0
            if is_gone:
                gone = self._pending
                if self._phase == IN_HEADER:  # of a later fragment: its head is looked at again
                    gone -= self._header_size
                    self._hold_first(self._header_bytes())
            else:
                self._skipping = False
                if self._pending:
                    self._hold_first(self._unfinished()[1 : self._pending])
                else:  # it begins with the first byte of a token that the last chunk cut off
                    self._drop_held(1)
        self._surplus_bytes = b""
        self._forget()
        self._parsed = -1
        self._stream_offset += gone
        self._search_from = self._stream_offset
        self._discarded += gone
        self._resync_count += 1
        self._last_invalid = error
        self._searching = True
        return self._note_gap(self._stream_offset - gone, self._stream_offset)

    cdef int _drop_taken(self, Py_ssize_t taken) except -1:
        """Drop held bytes that are in the pending frame; hold those before them that are not."""
        if taken >= 0:
            self._drop_held(taken)
        else:
            self._hold_first(self._surplus_bytes[taken:])
        self._surplus_bytes = b""
        return 0

    cdef void _end_search(self) noexcept:
        """Discard what is held at the end of the stream, where no mark was found."""
        self._discarded += self._held_size
        self._stream_offset += self._held_size
        self._drop_held(self._held_size)

    cdef int _hold(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Append bytes to the held ones."""
        cdef Py_ssize_t needed = self._held_size + size
        if self._held_pos + needed > self._held_capacity:
            # Half as much again, so that held bytes are not copied for every small chunk.
            self._move_held(0, needed + self._held_size // 2)
        if size:  # else there may be no memory at `data`
            memcpy(self._held + self._held_pos + self._held_size, data, size)
        self._held_size = needed
        return 0

    cdef int _hold_first(self, bytes data) except -1:
        """Put bytes before the held ones."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        self._move_held(size, size + self._held_size)
        memcpy(self._held, PyBytes_AS_STRING(data), size)
        self._held_pos = 0
        self._held_size += size
        return 0

    cdef int _move_held(self, Py_ssize_t pos, Py_ssize_t capacity) except -1:
        """Move the held bytes to a position in new memory."""
        cdef uint8_t* held = <uint8_t*>PyMem_Malloc(capacity)
        if held == NULL:
            raise MemoryError
        if self._held_size:
            memcpy(held + pos, self._held + self._held_pos, self._held_size)
        PyMem_Free(self._held)
        self._held = held
        self._held_pos = pos
        self._held_capacity = capacity
        return 0

    cdef void _drop_held(self, Py_ssize_t size) noexcept:
        """Drop the first held bytes, and the memory with the last ones."""
        self._held_pos += size
        self._held_size -= size
        if not self._held_size:
            PyMem_Free(self._held)
            self._held = NULL
            self._held_pos = self._held_capacity = 0

    cdef bytes _held_bytes(self):
        return bytes_of(self._held + self._held_pos, self._held_size)

    # --- the fast path: ordinary frames that are whole in the chunk -------------------------------

    cdef inline Py_ssize_t _read_plain_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take frames of a binary length and a rest only.

        It returns the number of bytes up to the first frame that needs the slow path.
        """
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* rest
        cdef uint64_t value
        cdef Py_ssize_t rest_size, available
        cdef uint64_t low = self._shape.quick_low
        cdef uint64_t span = self._shape.quick_span
        cdef Py_ssize_t adjustment = self._shape.adjustment
        cdef int width = self._shape.width
        cdef bint little = self._shape.little
        try:
            while end - p >= width:
                value = load(p, width, little)
                rest = p + width
                if value - low > span:
                    break
                rest_size = <Py_ssize_t>value + adjustment
                if end - rest < rest_size:  # cut off, but nothing is odd: no need to look again
                    available = end - rest
                    self._keep_header(p, width)
                    self._pending = width
                    self._begin_message(p, 0, rest_size, available)
                    self._keep(rest, available)
                    return end - data
                messages.append(message_of(rest, rest_size))
                p = rest + rest_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef Py_ssize_t _read_whole_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take ordinary frames of all other shapes."""
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* rest
        cdef uint64_t value
        cdef Py_ssize_t header_size, rest_size, frame_size
        cdef uint64_t low = self._shape.quick_low
        cdef uint64_t span = self._shape.quick_span
        cdef Py_ssize_t adjustment = self._shape.adjustment
        cdef Py_ssize_t lead_size = self._shape.lead_size
        cdef Py_ssize_t magic_size = self._shape.magic_size
        cdef Py_ssize_t trailer_size = self._shape.trailer_size
        cdef bytes message
        cdef uint8_t* target
        cdef Spans spans = self._spans
        cdef bint keep_headers = self._keep_headers
        cdef int64_t start = self._stream_offset
        cdef bint raw = self._raw
        cdef bint has_lead = lead_size > 0 and not raw
        if self._shape.keep:
            lead_size, has_lead = -1, False  # the message is the header and the rest
            if spans is not None and not raw:
                return 0
        try:
            while True:
                header_size = self._try_header(p, end - p, &value)
                if header_size < 0 or value - low > span:
                    break
                rest_size = <Py_ssize_t>value + adjustment
                frame_size = header_size + rest_size + trailer_size
                if end - p < frame_size:
                    break
                rest = p + header_size
                if magic_size and memcmp(p, self._shape.magic, magic_size):
                    break
                if trailer_size and memcmp(
                    rest + rest_size, self._shape.trailer, trailer_size
                ):
                    break
                if spans is not None:
                    if raw:
                        spans.add(start + (p - data), start + (p - data) + frame_size)
                    else:
                        spans.add(start + (rest - data), start + (rest - data) + rest_size)
                    p += frame_size
                    continue
                if raw:
                    rest, rest_size = p, frame_size
                elif lead_size < 0:
                    rest, rest_size = p + magic_size, header_size - magic_size + rest_size
                if has_lead:
                    message = PyBytes_FromStringAndSize(NULL, lead_size + rest_size)
                    target = <uint8_t*>PyBytes_AS_STRING(message)
                    copy(target, p + magic_size, lead_size)
                    copy(target + lead_size, rest, rest_size)
                else:  # in one place, so that the C compiler does it without a call
                    message = message_of(rest, rest_size)
                if keep_headers:
                    self._keep_travelled(p, header_size)
                messages.append(message)
                p += frame_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef Py_ssize_t _read_extended_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take ordinary frames of shapes with a unit, a mask, wider fields, constants or padding.

        A loop for both would cost the other shapes 10 to 15 % (2 to 3 ns a message).
        """
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* rest
        cdef uint64_t value
        cdef Py_ssize_t header_size, rest_size, frame_size
        cdef uint64_t low = self._shape.quick_low
        cdef uint64_t span = self._shape.quick_span
        cdef Py_ssize_t adjustment = self._shape.adjustment
        cdef Py_ssize_t lead_size = self._shape.lead_size
        cdef Py_ssize_t magic_size = self._shape.magic_size
        cdef Py_ssize_t trailer_size = self._shape.trailer_size
        cdef Py_ssize_t message_lead = self._shape.message_lead
        cdef Py_ssize_t unit = self._shape.unit
        cdef bint more = self._shape.constant_count or self._shape.align > 1
        cdef bytes message
        cdef uint8_t* target
        cdef Spans spans = self._spans
        cdef bint keep_headers = self._keep_headers
        cdef int64_t start = self._stream_offset
        cdef bint raw = self._raw
        cdef bint has_lead = message_lead > 0 and not raw
        if self._shape.keep:
            message_lead, has_lead = -1, False  # as in _read_whole_frames()
            if spans is not None and not raw:
                return 0
        try:
            while True:
                header_size = self._try_extended_header(p, end - p, &value)
                if header_size < 0 or value - low > span:
                    break
                rest_size = <Py_ssize_t>value * unit + adjustment
                frame_size = header_size + rest_size + trailer_size
                if end - p < frame_size:
                    break
                if more:
                    frame_size += padding_of(self._shape, frame_size)
                    if end - p < frame_size or not self._has_constants(p):
                        break
                rest = p + header_size
                if magic_size and memcmp(p, self._shape.magic, magic_size):
                    break
                if trailer_size and memcmp(
                    rest + rest_size, self._shape.trailer, trailer_size
                ):
                    break
                if spans is not None:
                    if raw:
                        spans.add(start + (p - data), start + (p - data) + frame_size)
                    else:
                        spans.add(start + (rest - data), start + (rest - data) + rest_size)
                    p += frame_size
                    continue
                if raw:
                    rest, rest_size = p, frame_size
                elif message_lead < 0:
                    rest, rest_size = p + magic_size, header_size - magic_size + rest_size
                if has_lead:
                    message = PyBytes_FromStringAndSize(NULL, message_lead + rest_size)
                    target = <uint8_t*>PyBytes_AS_STRING(message)
                    copy(target, p + magic_size, lead_size)
                    if message_lead > lead_size:
                        self._copy_kept(target + lead_size, p)
                    copy(target + message_lead, rest, rest_size)
                else:  # as in _read_whole_frames()
                    message = message_of(rest, rest_size)
                if keep_headers:
                    self._keep_travelled(p, max(header_size, self._shape.prefix_size))
                messages.append(message)
                p += frame_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef Py_ssize_t _read_checked_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take ordinary frames of shapes with a check, which can have all of these as well."""
        cdef const Shape* shape = self._shape
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* rest
        cdef uint64_t value
        cdef Py_ssize_t rest_start, rest_size, frame_size
        cdef bytes message
        cdef uint8_t* target
        cdef int64_t start = self._stream_offset
        if shape.keep and self._spans is not None and not self._raw:  # as in _read_whole_frames()
            return 0
        try:
            while True:
                rest_start = self._try_extended_header(p, end - p, &value)
                if rest_start < 0 or value - shape.quick_low > shape.quick_span:
                    break
                rest_start += shape.front_check_size
                rest_size = <Py_ssize_t>value * shape.unit + shape.adjustment
                frame_size = rest_start + rest_size + shape.tail_size
                frame_size += padding_of(shape, frame_size)
                if end - p < frame_size:
                    break
                rest = p + rest_start
                if (
                    memcmp(p, shape.magic, shape.magic_size)
                    or not self._has_constants(p)
                    or not self._has_check(p, rest, rest_size)
                    or memcmp(
                        rest + rest_size + shape.end_check_size, shape.trailer, shape.trailer_size
                    )
                ):
                    break
                if self._spans is not None:
                    if self._raw:
                        self._spans.add(start + (p - data), start + (p - data) + frame_size)
                    else:
                        self._spans.add(
                            start + (rest - data), start + (rest - data) + rest_size
                        )
                    p += frame_size
                    continue
                if self._raw:
                    message = message_of(p, frame_size)
                elif shape.keep:
                    message = message_of(
                        p + shape.magic_size, rest_start - shape.magic_size + rest_size
                    )
                elif shape.message_lead:
                    message = PyBytes_FromStringAndSize(NULL, shape.message_lead + rest_size)
                    target = <uint8_t*>PyBytes_AS_STRING(message)
                    copy(target, p + shape.magic_size, shape.lead_size)
                    self._copy_kept(target + shape.lead_size, p)
                    copy(target + shape.message_lead, rest, rest_size)
                else:
                    message = message_of(rest, rest_size)
                if self._keep_headers:
                    self._keep_travelled(p, max(rest_start, shape.prefix_size))
                messages.append(message)
                p += frame_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef bint _has_check(
        self, const uint8_t* frame, const uint8_t* rest, Py_ssize_t rest_size
    ) except -1:
        """Return whether a whole frame has the right check.

        The slow path says what is wrong; it calls the user's function again.
        """
        cdef const Shape* shape = self._shape
        cdef const uint8_t* place = rest + rest_size
        cdef const uint8_t* start = frame
        cdef Py_ssize_t start_size = 0
        if shape.front_check_size:
            place = rest - shape.front_check_size
        elif shape.check.covers == COVERS_MESSAGE:
            start = frame + shape.magic_size
            start_size = rest - start if shape.keep else shape.lead_size
        elif shape.check.covers == COVERS_BODY:
            start = frame + shape.magic_size
            start_size = rest - start
        elif shape.check.covers == COVERS_FRAME:
            start_size = rest - frame
        if not shape.check.named or (
            shape.kept_size and shape.check.covers == COVERS_MESSAGE
        ):
            return self._has_other_check(frame, start, start_size, rest, rest_size, place)
        return is_check(shape, place, checksum_of(shape, start, start_size, rest, rest_size))

    cdef bint _has_other_check(
        self,
        const uint8_t* frame,
        const uint8_t* start,
        Py_ssize_t start_size,
        const uint8_t* rest,
        Py_ssize_t rest_size,
        const uint8_t* place,
    ) except -1:
        """Do the same by the user's function, or where the message has bytes of the length field.

        The bytes that are covered are copied into one piece.
        """
        cdef const Shape* shape = self._shape
        cdef bint with_kept = shape.check.covers == COVERS_MESSAGE and not shape.front_check_size
        cdef Py_ssize_t kept_size = shape.kept_size if with_kept else 0
        cdef bytes covered = PyBytes_FromStringAndSize(NULL, start_size + kept_size + rest_size)
        cdef uint8_t* target = <uint8_t*>PyBytes_AS_STRING(covered)
        copy(target, start, start_size)
        if kept_size:
            self._copy_kept(target + start_size, frame)
        copy(target + start_size + kept_size, rest, rest_size)
        if shape.check.named:
            return is_check(
                shape, place, checksum_of(shape, NULL, 0, target, PyBytes_GET_SIZE(covered))
            )
        found = bytes_of(place, shape.check.before_size + shape.check.width)
        return is_right_check(self._layout.check, covered, found)

    cdef Py_ssize_t _read_chosen_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take ordinary frames of the alternatives of a choice."""
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* rest
        cdef uint64_t value
        cdef Py_ssize_t header_size, rest_size, frame_size
        cdef const Shape* root = self._root
        cdef const Shape* shape = NULL
        cdef bytes message
        cdef uint8_t* target
        cdef int found, i
        cdef int last = -1
        cdef Spans spans = self._spans
        cdef bint keep_headers = self._keep_headers
        cdef bint raw = self._raw
        cdef tuple tags = self._choice_layout.choice.tags
        cdef bint is_tagged = root.tagged and not raw
        cdef const Constant* constant
        cdef int64_t start = self._stream_offset
        try:
            while True:
                found = choose(root, p, end - p)
                if found < 0:
                    break
                # Not read where it is the same: see `_read_bare_frames`.
                if found != last:
                    last = found
                    self._shape = shape = root.alternatives[found]
                if shape.kind == UINT:
                    header_size = shape.field_offset + shape.width
                    if end - p < header_size:
                        break
                    value = load(p + shape.field_offset, shape.width, shape.little) & shape.mask
                    if shape.wide_count:
                        header_size = self._try_wide(p, end - p, header_size, &value)
                elif shape.keep and spans is not None and not raw:
                    break
                else:
                    header_size = self._try_extended_header(p, end - p, &value)
                if header_size < 0 or value - shape.quick_low > shape.quick_span:
                    break
                header_size += shape.front_check_size
                rest_size = <Py_ssize_t>value * shape.unit + shape.adjustment
                frame_size = header_size + rest_size + shape.tail_size
                if end - p < frame_size:
                    break
                if shape.align > 1:
                    frame_size += padding_of(shape, frame_size)
                    if end - p < frame_size:
                        break
                for i in range(shape.constant_count):
                    constant = &shape.constants[i]
                    if not same(p + constant.offset, constant.data, constant.size):
                        break
                else:
                    i = -1
                if i >= 0:
                    break
                rest = p + header_size
                if not same(p, shape.magic, shape.magic_size):
                    break
                if shape.has_check:
                    if not shape.check.named or not self._has_check(p, rest, rest_size):
                        break
                if not same(
                    rest + rest_size + shape.end_check_size, shape.trailer, shape.trailer_size
                ):
                    break
                if spans is not None:
                    if raw:
                        spans.add(start + (p - data), start + (p - data) + frame_size)
                    else:
                        spans.add(start + (rest - data), start + (rest - data) + rest_size)
                    p += frame_size
                    continue
                if raw:
                    message = message_of(p, frame_size)
                elif shape.keep:
                    message = message_of(
                        p + shape.magic_size, header_size - shape.magic_size + rest_size
                    )
                else:
                    message = PyBytes_FromStringAndSize(NULL, shape.message_lead + rest_size)
                    target = <uint8_t*>PyBytes_AS_STRING(message)
                    if shape.lead_size:
                        copy(target, p + shape.magic_size, shape.lead_size)
                    for i in range(shape.kept_size):
                        target[shape.lead_size + i] = (
                            p[shape.field_offset + shape.kept[i]] & shape.kept_bits[i]
                        )
                    copy(target + shape.message_lead, rest, rest_size)
                    for i in range(shape.own_count):
                        target[shape.own[i].position] &= ~shape.own[i].mask
                if keep_headers:
                    self._keep_travelled(p, max(header_size, shape.prefix_size))
                if is_tagged:
                    messages.append(tagged(tags[found], message))
                else:
                    messages.append(message)
                p += frame_size
            return p - data
        finally:
            self._shape = root
            self._stream_offset += p - data

    cdef Py_ssize_t _read_bare_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take ordinary frames of a choice all of whose alternatives are bare."""
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* rest
        cdef const Shape* root = self._root
        cdef const Shape* shape = NULL
        cdef Py_ssize_t rest_size
        cdef const int16_t* rests = NULL
        cdef int found
        cdef int last = -1
        cdef int first = -1 if root.short_bits else -2
        if self._raw or self._keep_headers or self._spans is not None:
            return 0
        try:
            while True:
                # Two bytes of header, the second with the length: one look at a table for each.
                while first > -2 and end - p >= 2:
                    if p[0] != first:
                        found = root.nodes[0].nexts[p[0]]
                        if found >= 0 or found == NOTHING:
                            break
                        rests = root.nodes[-1 - found].rests
                        first = p[0]
                    rest_size = rests[p[1]]
                    if rest_size < 0 or end - p - 2 < rest_size:
                        break
                    messages.append(short_message_of(p, rest_size, root.short_bits))
                    p += 2 + rest_size
                found = choose(root, p, end - p)
                if found < 0:
                    break
                # Not read where it is the same: the place of the next frame need not wait for what
                # this one chooses.
                if found != last:
                    last = found
                    shape = root.alternatives[found]
                rest_size = bare_rest_size(shape, p, end)
                if rest_size < 0:
                    break
                rest = p + shape.field_offset + shape.width
                messages.append(bare_message_of(shape, p, rest, rest_size))
                p = rest + rest_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef Py_ssize_t _read_mixed_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take ordinary frames of a choice some of whose alternatives have end marks."""
        cdef const uint8_t* p = data
        cdef const uint8_t* before = NULL
        while p != before:
            before = p
            p += self._read_chosen_contents(p, end, messages)
            p += self._read_chosen_frames(p, end, messages)
        return p - data

    cdef Py_ssize_t _read_chosen_contents(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take ordinary frames of the alternatives of a choice that an end mark ends.

        They are not read in `_read_chosen_frames`: it would be slower for all other choices.
        """
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* content
        cdef const uint8_t* stop
        cdef const uint8_t* search_end
        cdef const Shape* root = self._root
        cdef const Shape* shape = NULL
        cdef const Marks* marks = NULL
        cdef Py_ssize_t size, frame_size, saved
        cdef Starts starts
        cdef int last = -1
        cdef int starts_of = -1  # the alternative of which these are
        cdef int mark = 0
        cdef int found
        cdef tuple tags = self._choice_layout.choice.tags
        cdef bint is_tagged = root.tagged and not self._raw
        cdef bytes message
        try:
            while True:
                found = choose(root, p, end - p)
                if found < 0:
                    break
                # Not read where they are the same: see `_read_bare_frames`.
                if found != last:
                    last = found
                    shape = root.alternatives[found]
                    marks = <const Marks*>self._chosen_marks[found]
                if marks == NULL:
                    break
                content = p + shape.magic_size
                if marks.stuffed or shape.has_check or end < content:
                    break
                if not same(p, shape.magic, shape.magic_size):
                    break
                search_end = end
                if marks.how == ANY_TOKEN:
                    # A byte that begins a mark may be nowhere in the chunk, and each change of the
                    # alternative begins a search anew: it must not go far.
                    search_end = min(end, content + MARK_WINDOW)
                    if starts_of != found:
                        memset(&starts, 0, sizeof(Starts))
                        starts_of = found
                stop = find_end(marks, &starts, content, search_end, &mark, &saved)
                if stop == NULL:
                    break
                size = stop - content - saved
                if <uint64_t>size - shape.quick_low > shape.quick_span:
                    break
                if not size and marks.skip_empty:
                    break
                frame_size = stop + marks.marks[mark].size - p
                if self._spans is not None:
                    self._add_marked_span(
                        p - data, content - data, stop - data, marks.marks[mark].size
                    )
                    p += frame_size
                    continue
                if self._raw:
                    message = message_of(p, frame_size)
                elif saved:
                    message = PyBytes_FromStringAndSize(NULL, size)
                    unescape(
                        marks, content, stop - content, <uint8_t*>PyBytes_AS_STRING(message)
                    )
                else:
                    message = message_of(content, size)
                if self._keep_headers:
                    self._keep_travelled(p, frame_size)
                if is_tagged:
                    messages.append(tagged(tags[found], message))
                else:
                    messages.append(message)
                p += frame_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef Py_ssize_t _read_single_fragments(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take ordinary messages of one fragment."""
        cdef const Shape* shape = self._shape
        cdef const uint8_t* p = data  # of the frame
        cdef uint64_t value
        cdef Py_ssize_t rest_start, content_size, frame_size
        cdef bytes message
        cdef uint8_t* target
        cdef int64_t start = self._stream_offset
        try:
            while True:
                rest_start = self._try_extended_header(p, end - p, &value)
                if rest_start < 0 or value - shape.quick_low > shape.quick_span:
                    break
                content_size = rest_start - shape.head_size
                content_size += <Py_ssize_t>value * shape.unit + shape.adjustment
                frame_size = shape.head_size + content_size + shape.trailer_size
                if end - p < frame_size or content_size == shape.full:
                    break
                if shape.last_mask and (
                    p[shape.last_offset] & shape.last_mask != shape.last_value
                ):
                    break
                if (
                    not same(p, shape.magic, shape.magic_size)
                    or not same(
                        p + shape.head_size + content_size, shape.trailer, shape.trailer_size
                    )
                    or (shape.constant_count and not self._has_constants(p))
                ):
                    break
                if self._spans is not None:
                    self._spans.add(start + (p - data), start + (p - data) + frame_size)
                    p += frame_size
                    continue
                if self._raw:
                    message = message_of(p, frame_size)
                elif shape.from_rest:
                    message = message_of(
                        p + rest_start, shape.head_size - rest_start + content_size
                    )
                elif shape.first_size:
                    message = PyBytes_FromStringAndSize(NULL, shape.strip + content_size)
                    target = <uint8_t*>PyBytes_AS_STRING(message)
                    copy(target, p + shape.magic_size, shape.lead_size)
                    self._copy_kept(target + shape.lead_size, p)
                    copy(
                        target + shape.message_lead,
                        p + rest_start,
                        shape.head_size - rest_start + content_size,
                    )
                    if shape.last_mask:
                        target[shape.last_position] &= ~shape.last_mask
                else:
                    message = message_of(p + shape.head_size, content_size)
                if self._keep_headers:
                    self._keep_travelled(p, shape.head_size)
                messages.append(message)
                p += frame_size
            return p - data
        finally:
            self._stream_offset += p - data

    cdef inline Py_ssize_t _try_header(
        self, const uint8_t* p, Py_ssize_t size, uint64_t* value
    ) noexcept nogil:
        """Return the size and the length of a header that is whole and ordinary.

        -1 leaves everything else, errors too, to `_parse_header`.
        """
        cdef const Shape* shape = self._shape
        cdef Py_ssize_t pos = shape.field_offset
        cdef Py_ssize_t stop, i
        cdef uint64_t found = 0
        cdef int digit, shift
        if shape.kind == UINT:
            stop = pos + shape.width
            if size < stop:
                return -1
            value[0] = load(p + pos, shape.width, shape.little)
            return stop
        if shape.kind == DIGITS:
            stop = pos + shape.width
            if size < stop or shape.width > 16:  # 16 digits of either base fit 64 bits
                return -1
            for i in range(pos, stop):
                digit = digit_value(p[i], shape.base)
                if digit < 0:
                    return -1
                found = found * shape.base + digit
            value[0] = found
            return stop
        if shape.kind == VARINT:
            stop = min(size, pos + min(shape.width, 9))  # 9 bytes hold 63 bits
            shift = 0
            for i in range(pos, stop):
                found |= <uint64_t>(p[i] & 0x7F) << shift
                if p[i] < 0x80:
                    if not p[i] and shift:
                        return -1
                    value[0] = found
                    return i + 1
                shift += 7
            return -1
        if shape.kind == TEXT:
            stop = min(size, pos + min(16, shape.max_digits))
            i = pos
            while i < stop:
                digit = digit_value(p[i], shape.base)
                if digit < 0:
                    break
                found = found * shape.base + digit
                i += 1
            if i == pos:
                return -1
            if shape.trailing_blanks:
                while i < stop and (p[i] == c' ' or p[i] == c'\t'):
                    i += 1
            if size - i < shape.end_size:
                return -1
            if p[pos] == c'0' and i > pos + 1 and not shape.leading_zeros:
                return -1
            if memcmp(p + i, shape.end, shape.end_size):
                return -1
            value[0] = found
            return i + shape.end_size
        return self._try_other(p, size, value)

    cdef Py_ssize_t _try_other(
        self, const uint8_t* p, Py_ssize_t size, uint64_t* value
    ) noexcept nogil:
        """Do the same for less common kinds, in a function that is not inlined."""
        cdef const Shape* shape = self._shape
        cdef Py_ssize_t pos = shape.field_offset
        cdef Py_ssize_t stop, i
        cdef uint64_t found = 0
        if shape.kind == BCD:
            stop = pos + shape.width
            if size < stop or shape.width > 9:
                return -1
            for i in range(pos, stop):
                if p[i] >> 4 > 9 or p[i] & 15 > 9:
                    return -1
                found = found * 100 + 10 * (p[i] >> 4) + (p[i] & 15)
            value[0] = found
            return stop
        if shape.kind == BER:
            if size <= pos:
                return -1
            if p[pos] < 0x80:
                value[0] = p[pos]
                return pos + 1
            stop = pos + 1 + (p[pos] & 0x7F)
            if stop == pos + 1 or stop > pos + shape.width or size < stop:
                return -1
            value[0] = load(p + pos + 1, p[pos] & 0x7F, False)
            return stop
        if shape.kind == FIXED:
            if size < pos:  # the magic is not whole
                return -1
            value[0] = shape.plain_max
            return pos
        if shape.kind == HEADERS:
            stop = try_header_block(shape, p, size, value)
            if shape.keep and stop >= 0:  # the limit is that of the block and the rest
                i = stop - shape.magic_size
                if i > shape.message_max or value[0] > <uint64_t>(shape.message_max - i):
                    return -1
            return stop
        return -1

    cdef inline Py_ssize_t _try_extended_header(
        self, const uint8_t* p, Py_ssize_t size, uint64_t* value
    ) noexcept nogil:
        cdef Py_ssize_t stop = self._try_header(p, size, value)
        if stop >= 0:
            value[0] &= self._shape.mask
            if self._shape.wide_count:
                return self._try_wide(p, size, stop, value)
        return stop

    cdef Py_ssize_t _try_wide(
        self, const uint8_t* p, Py_ssize_t size, Py_ssize_t stop, uint64_t* value
    ) noexcept nogil:
        """Replace the field's value by that of a wider field, if it is a key of one."""
        cdef const Shape* shape = self._shape
        cdef Py_ssize_t wide_stop
        cdef int i
        for i in range(shape.wide_count):
            if shape.wide[i].key != value[0]:
                continue
            wide_stop = stop + shape.wide[i].width
            if size < wide_stop:
                return -1
            value[0] = load(p + stop, shape.wide[i].width, shape.wide[i].little)
            if shape.wider_strict:
                if value[0] < shape.wide[i].least or shape_holds(shape, value[0]):
                    return -1
            return wide_stop
        return stop

    cdef void _copy_kept(self, uint8_t* target, const uint8_t* frame) noexcept nogil:
        """Copy the bytes of the length field that are also in the message."""
        cdef const Shape* shape = self._shape
        cdef int i
        for i in range(shape.kept_size):
            target[i] = frame[shape.field_offset + shape.kept[i]] & shape.kept_bits[i]

    cdef bint _has_constants(self, const uint8_t* frame) noexcept nogil:
        cdef const Shape* shape = self._shape
        cdef int i
        for i in range(shape.constant_count):
            if memcmp(
                frame + shape.constants[i].offset, shape.constants[i].data, shape.constants[i].size
            ):
                return False
        return True

    # --- the slow path: one frame, part by part ---------------------------------------------------

    cdef const uint8_t* _choose_shape(self, const uint8_t* data, const uint8_t* end) except NULL:
        """Gather the header up to the byte that chooses, and take the shape that it chooses."""
        cdef Py_ssize_t taken
        choice = self._choice_layout.choice
        while True:
            header = self._header_bytes()
            found, number = choose_in(choice, header)
            check_start_of(choice, number, header, self._stream_offset)
            if found is not None:
                break
            if data == end:
                return data
            taken = min(
                end - data, <Py_ssize_t>choice.nodes[number].offset + 1 - self._header_size
            )
            self._keep_header(data, taken)
            self._pending += taken
            data += taken
        if found < 0:
            seen = self._header_first(<Py_ssize_t>choice.nodes[number].offset + 1)
            raise wrong_choice(choice, number, self._stream_offset, seen)
        self._tag = choice.tags[found]
        self._layout = choice.layouts[found]
        self._shape = self._root.alternatives[<int>found]
        self._header_limit = self._layout.longest_header
        return data

    cdef const uint8_t* _read_header(
        self, const uint8_t* chunk, const uint8_t* data, const uint8_t* end, list messages
    ) except NULL:
        """Gather the header and parse it; deliver a special or prepare for a rest.

        `chunk` is where the chunk begins, `data` what follows in it. Returns what follows then.
        """
        cdef Py_ssize_t taken, header_size, rest_size, surplus
        cdef uint64_t value
        cdef bytes looked_ahead
        cdef bint past_magic = self._header_size >= self._shape.magic_size
        cdef const uint8_t* chosen
        if self._shape.kind == CHOICE:
            chosen = self._choose_shape(data, end)
            if self._shape.kind == CHOICE:
                return chosen
            if self._shape.kind >= DELIMITER:
                self._begin_marked(chosen - data, messages)
                return chosen
            data = chosen
            past_magic = False  # what was gathered to choose is not parsed yet
        taken = min(
            end - data,
            max(0, self._header_limit - self._header_size),
            max(FIRST_HEADER_STEP, self._header_size),
        )
        self._keep_header(data, taken)
        self._pending += taken
        if self._plain and self._header_size < self._shape.width:
            return data + taken  # half a number: nothing can be wrong yet
        if (
            self._shape.kind == HEADERS
            and past_magic
            and self._header_size < self._header_limit - self._shape.front_check_size
            and self._found is None
            and memchr(data, c'\n', taken) == NULL
        ):
            return data + taken  # a line is parsed when its end is in

        # The usual case: a whole, plain header of fixed or varying size, within the limits.
        if self._shape.kind == HEADERS and self._header_size > taken:
            header_size = -1  # lines are not read again and again
        else:
            header_size = self._try_extended_header(self._header, self._header_size, &value)
        if (
            header_size >= 0
            and not self._shape.constant_count
            and not self._shape.kept_size
            and not self._shape.has_check
            and not self._always_parses
            and value - self._shape.quick_low <= self._shape.quick_span
            and self._has_magic(self._header)
            and self._spans is None
        ):
            taken -= self._drop_surplus(header_size)
            rest_size = <Py_ssize_t>value * self._shape.unit + self._shape.adjustment
            self._begin_message(
                self._header + self._shape.magic_size,
                header_size - self._shape.magic_size if self._shape.keep else self._shape.lead_size,
                rest_size,
                end - data - taken,
            )
            return data + taken
        data += taken
        surplus = self._end_header(data - chunk, end - data, messages)
        if surplus <= data - chunk:
            return data - surplus
        # parse() looked ahead: read what follows the header in earlier chunks, then this chunk.
        if self._one_at_a_time:  # as the caller does
            return chunk
        looked_ahead = self._surplus_bytes
        chosen = <const uint8_t*>PyBytes_AS_STRING(looked_ahead)
        surplus = PyBytes_GET_SIZE(looked_ahead)
        taken = 0
        if not self._pending and self._phase == IN_REST:
            # A frame without a header, whose first bytes chose it: for _consume() it has not begun.
            taken = self._read_rest(chosen, chosen + surplus)
        _consume(self, chosen + taken, surplus - taken, messages)
        self._surplus_bytes = b""
        return chunk

    cdef inline bint _has_magic(self, const uint8_t* header) noexcept:
        return not self._shape.magic_size or not memcmp(
            header, self._shape.magic, self._shape.magic_size
        )

    cdef Py_ssize_t _end_header(
        self, Py_ssize_t in_chunk, Py_ssize_t available, list messages
    ) except -1:
        """Act on the header if it is whole; return how many bytes after it were gathered.

        `in_chunk` bytes of the chunk were gathered or read; if more follow the header, the others
        go into `_surplus_bytes`.
        """
        cdef Py_ssize_t surplus, lead_size, rest_fill
        cdef Py_ssize_t limit = self._header_limit - self._shape.front_check_size
        found = self._parse_header() if self._found is None else self._found
        if found is None:
            if self._header_size >= limit:
                raise _error_texts.header_too_long(
                    self._layout.max_header, self._stream_offset, self._header_first(limit)
                )
            return 0
        if self._shape.has_check:
            self._found = found
        header_size, value, lead = found
        is_special = self._layout.is_special(header_size, value)
        rest_size, more_lead = 0, b""
        if not is_special:
            if self._shape.joined:
                rest_size = self._check_fragment_size(header_size, value)
            else:
                rest_size = self._check_rest_size(header_size, value, len(lead))
            if self._shape.front_check_size:
                check_start(
                    self._layout, self._header_bytes(), header_size, self._stream_offset
                )
                header_size += self._shape.front_check_size
                if self._header_size < <Py_ssize_t>header_size:
                    return 0
            self._own_size = header_size
            more_lead = self._check_constants(header_size)
            if header_size + len(more_lead) < self._shape.prefix_size:
                return 0
        header_size += len(more_lead)
        surplus = self._header_size - <Py_ssize_t>header_size
        if surplus > in_chunk:
            self._surplus_bytes = bytes_of(
                self._header + <Py_ssize_t>header_size, surplus - in_chunk
            )
        self._drop_surplus(header_size)
        if is_special:
            special = self._layout.specials[value]
            if self._spans is None:
                if self._keep_headers:
                    self._keep_travelled(self._header, self._header_size)
                if self._tag and not self._raw:
                    special = tagged(self._tag, special)
                messages.append(self._header_bytes() if self._raw else special)
            elif self._raw:
                self._spans.add(self._stream_offset, self._stream_offset + self._header_size)
            else:
                raise _error_texts.scan_of_special(special, self._stream_offset)
            self._next_frame()
            return surplus
        if self._spans is not None:
            if lead and not self._raw:
                raise _error_texts.scan_with_lead()
            self._skipping = True  # its bytes are not needed, as those of a skipped frame
        rest_size -= len(more_lead)
        lead += more_lead
        if self._shape.own_count:
            lead = self._layout.without_own_bits(lead)
        if self._shape.joined:
            lead = self._begin_fragment(lead, rest_size)
        lead_size = len(lead)
        if self._skipping:
            self._skip_left = rest_size
            self._phase = IN_REST
        else:
            # A peer may declare what no C number holds; it cannot send it.
            self._rest_beyond = max(0, rest_size - LARGEST_SIZE)
            rest_fill = rest_size - self._rest_beyond
            if self._fragments:
                self._continue_message(rest_fill)
                return surplus
            self._begin_message(
                <const uint8_t*>PyBytes_AS_STRING(lead), lead_size, rest_fill, available + surplus
            )
        return surplus

    cdef inline int _keep_header(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t needed = self._header_size + size
        cdef uint8_t* header
        if needed > self._header_capacity:
            needed = max(needed, 2 * self._header_capacity, 32)
            header = <uint8_t*>PyMem_Realloc(self._header, needed)
            if header == NULL:
                raise MemoryError
            self._header = header
            self._header_capacity = needed
        copy(self._header + self._header_size, data, size)
        self._header_size += size
        return 0

    cdef inline Py_ssize_t _drop_surplus(self, Py_ssize_t header_size) noexcept:
        """Drop the gathered bytes that follow a header of varying size; return their number."""
        cdef Py_ssize_t surplus = self._header_size - header_size
        self._header_size = header_size
        self._pending -= surplus
        return surplus

    cdef inline int _begin_message(
        self,
        const uint8_t* lead,
        Py_ssize_t lead_size,
        Py_ssize_t rest_size,
        Py_ssize_t available,
    ) except -1:
        """Allocate memory for the message, in proportion to the bytes that are available."""
        cdef Py_ssize_t begun = self._header_size if self._raw else lead_size
        cdef const uint8_t* begin = lead
        if self._raw:
            begin = self._header
        self._message_size = begun + rest_size
        if self._raw:
            self._message_size += self._shape.tail_size
            self._message_size += padding_of(self._shape, self._message_size)
        self._message_capacity = min(
            self._message_size, max(FIRST_CAPACITY, 2 * (begun + available))
        )
        self._message = _new_bytes(NULL, self._message_capacity)
        copy(bytes_at(self._message), begin, begun)
        self._filled = begun
        self._pending_lead = lead_size
        self._rest_left = rest_size
        self._phase = IN_REST
        return 0

    # --- joined frames: `_joined_reader_py` -------------------------------------------------------

    cdef object _check_fragment_size(self, Py_ssize_t header_size, value):
        """Return the size of a fragment's rest; raise or begin to skip if it is not allowed."""
        size, error = check_fragment(
            self._layout,
            self._header_first(header_size),
            value,
            self._fragments,
            self._content if self._fragments else 0,
            self._stream_offset,
        )
        if error is not None and (self._spans is not None or not self._skipping):
            if not self._skip:
                raise error
            self._skipping = True
            Py_XDECREF(self._message)
            self._message = NULL
            self._filled = 0
            self._heads = None
        return size

    cdef bytes _begin_fragment(self, bytes stripped, rest_size):
        """Note what a whole head says; return what the message has of the bytes before the content.

        Args:
            stripped: These bytes.
            rest_size: Bytes of the content.
        """
        cdef bint followed = is_followed(self._layout, self._header_bytes(), rest_size)
        cdef bytes lead = b"" if self._fragments else first_bytes(self._layout, stripped)
        next_content = (self._content if self._fragments else 0) + rest_size
        self._followed = followed
        self._next_content = next_content
        return lead

    cdef int _continue_message(self, Py_ssize_t rest_size) except -1:
        """Add a fragment to the message; the memory grows as the bytes arrive."""
        cdef Py_ssize_t begun = self._header_size if self._raw else 0
        cdef Py_ssize_t size = self._filled + begun + rest_size
        if self._raw:
            size += self._shape.tail_size
        self._message_size = size
        if self._message_capacity - self._filled < begun:
            self._grow_message(begun)
        copy(bytes_at(self._message) + self._filled, self._header, begun)
        self._filled += begun
        self._rest_left = rest_size
        self._phase = IN_REST
        return 0

    cdef int _end_fragment(self) except -1:
        """Keep the head of a fragment that another follows, and expect that one."""
        cdef Py_ssize_t trailer_size = self._shape.trailer_size if self._raw else 0
        cdef Py_ssize_t before
        if not self._keeps_bytes():
            pass
        elif trailer_size and self._message_capacity - self._filled < trailer_size:
            self._grow_message(trailer_size)
        if self._keeps_bytes():
            if self._heads is None or not self._fragments:
                self._heads = bytearray()
            before = self._fragments * self._header_size
            self._heads[before:] = self._header_bytes()
            copy(bytes_at(self._message) + self._filled, self._shape.trailer, trailer_size)
            self._filled += trailer_size
        self._fragments += 1
        self._content = self._next_content
        self._header_size = 0
        self._followed = False
        self._trailer_pos = 0
        self._phase = IN_HEADER
        return 0

    cdef bytes _heads_first(self):
        """Return the heads of a message's finished fragments."""
        return bytes(self._heads[: self._fragments * self._shape.head_size])

    cdef bytes _unfinished_fragments(self):
        """Return a pending message with finished fragments, as it travelled.

        What arrived of the last fragment's trailer is missing.
        """
        cdef bytes message = bytes_of(bytes_at(self._message), self._filled)
        if self._raw:
            return message + self._header_bytes() if self._phase == IN_HEADER else message
        content = memoryview(message)[self._pending_lead :]
        parts, stop = fragments_as_travelled(self._layout, self._heads_first(), content)
        return b"".join([*parts, self._header_bytes(), content[stop:]])

    cdef int _check_magic(self) except -1:
        cdef Py_ssize_t right, size = self._header_size
        right = common_size(self._header, size, self._shape.magic, self._shape.magic_size)
        if right < size and right < self._shape.magic_size:
            raise _error_texts.wrong_magic(
                self._layout.magic, self._stream_offset, self._header_first(right + 1)
            )
        return 0

    cdef object _parse_header(self):
        """Return header size, field value and lead, or None if more bytes are needed.

        Every byte is checked in the order of arrival, and the first wrong one raises, so that the
        error does not depend on the chunks.
        """
        cdef Py_ssize_t size = self._header_size
        self._check_magic()
        if size < self._shape.magic_size:
            return None
        if self._shape.constant_count:
            self._check_lead_constants()
        if self._shape.kind == HEADERS:
            return self._parse_lines()
        if self._shape.kind == CUSTOM:
            if size == self._shape.magic_size:
                return None
            size = min(size, self._header_limit - self._shape.front_check_size)
            return read_header(self._layout, self._header_first(size), self._stream_offset)

        if self._shape.kind == UINT:
            found = self._parse_uint()
        elif self._shape.kind == DIGITS:
            found = self._parse_digits()
        elif self._shape.kind == VARINT:
            found = self._parse_varint()
        elif self._shape.kind == TEXT:
            found = self._parse_text()
        elif self._shape.kind == BCD:
            found = self._parse_bcd()
        elif self._shape.kind == BER:
            found = self._parse_ber()
        else:
            found = (self._shape.field_offset, self._layout.size)
        if found is None:
            return None
        header_size, value = found
        return header_size, value, self._layout.lead_of(self._header_bytes(), 0)

    cdef int _check_lead_constants(self) except -1:
        for pos, constant in self._layout.constants:
            if pos < self._shape.field_offset:
                self._check_constant(pos, constant)
        return 0

    cdef bytes _check_constants(self, header_size):
        """Check the constants in the rest; return its gathered bytes, up to the last constant."""
        if not self._shape.prefix_size:
            return b""
        for pos, constant in self._layout.constants:
            if pos >= header_size:
                self._check_constant(pos, constant)
        return self._header_bytes()[header_size : self._shape.prefix_size]

    cdef int _check_constant(self, Py_ssize_t pos, bytes constant) except -1:
        cdef Py_ssize_t size = max(0, min(self._header_size - pos, PyBytes_GET_SIZE(constant)))
        cdef Py_ssize_t right = common_size(
            self._header + pos, size, <const uint8_t*>PyBytes_AS_STRING(constant), size
        )
        if right < size:
            raise _error_texts.wrong_constant(
                pos, constant, self._stream_offset, self._header_first(pos + right + 1)
            )
        return 0

    cdef object _parse_lines(self):
        cdef Py_ssize_t pos = max(self._line_pos, self._shape.magic_size)
        layout, offset = self._layout, self._stream_offset
        first = pos == self._shape.magic_size
        cdef Py_ssize_t stop = min(
            self._header_size, self._header_limit - self._shape.front_check_size
        )
        lines = bytes_of(self._header + pos, stop - pos)  # that are new
        try:
            judged, self._parsed, complete = read_lines(
                layout, lines, 0, self._parsed, offset, first=first
            )
        except errors.FrameError:  # again, for an error that shows the header from its beginning
            read_lines(layout, self._header_first(stop), pos, self._parsed, offset, first=first)
            raise  # pragma: no cover (the call raises)
        self._line_pos = pos + judged
        if not complete:
            return None
        lead = b""
        if self._shape.keep:
            pos = self._shape.magic_size
            lead = bytes_of(self._header + pos, self._line_pos - pos)
        return self._line_pos, self._parsed, lead

    cdef object _parse_uint(self):
        cdef uint64_t value
        cdef Py_ssize_t pos = self._shape.field_offset
        cdef Py_ssize_t stop = pos + self._shape.width
        if self._header_size < stop:
            return None
        value = load(self._header + pos, self._shape.width, self._shape.little)
        if self._layout.signed and value >> (8 * self._shape.width - 1):
            return stop, <object>value - (<object>1 << 8 * self._shape.width)
        value &= self._shape.mask
        for wide in self._layout.wider:
            if wide.key != value:
                continue
            pos, stop = stop, stop + <Py_ssize_t>wide.width
            if self._header_size < stop:
                return None
            value = load(self._header + pos, wide.width, wide.little)
            if self._shape.wider_strict:
                if value < <uint64_t>wide.least or shape_holds(self._shape, value):
                    raise _error_texts.wider_than_needed(
                        value, self._stream_offset, self._header_first(stop)
                    )
            break
        return stop, value

    cdef object _parse_digits(self):
        cdef uint64_t value = 0
        cdef Py_ssize_t pos
        cdef int digit
        cdef Py_ssize_t size = self._shape.header_size
        for pos in range(self._shape.field_offset, min(self._header_size, size)):
            digit = digit_value(self._header[pos], self._shape.base)
            if digit < 0:
                raise _error_texts.not_a_digit(
                    self._shape.base, b"", pos, self._stream_offset, self._header_first(pos + 1)
                )
            if value > (UINT64_MAX - digit) // self._shape.base:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, self._header_first(pos + 1)
                )
            value = value * self._shape.base + digit
        return (size, value) if self._header_size >= size else None

    cdef object _parse_varint(self):
        cdef uint64_t value = 0
        cdef Py_ssize_t pos, index
        cdef uint8_t byte
        for pos in range(self._shape.field_offset, self._header_size):
            byte, index = self._header[pos], pos - self._shape.field_offset
            if index == 9 and byte & 0x7E:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, self._header_first(pos + 1)
                )
            value |= <uint64_t>(byte & 0x7F) << 7 * index
            if byte >= 0x80:
                if index + 1 == self._shape.width:
                    raise _error_texts.varint_too_long(
                        self._shape.width, self._stream_offset, self._header_first(pos + 1)
                    )
            elif not byte and index:
                raise _error_texts.varint_not_shortest(
                    self._stream_offset, self._header_first(pos + 1)
                )
            else:
                return pos + 1, value
        return None

    cdef object _parse_text(self):
        cdef Py_ssize_t pos = self._shape.field_offset
        cdef Py_ssize_t size = self._header_size
        cdef Py_ssize_t first_pos, right
        cdef uint64_t value = 0
        cdef int digit
        cdef bint leading
        # A minus sign is allowed only if the codec has negative special values.
        cdef bint negative = (
            size > pos
            and self._header[pos] == c'-'
            and bool([special for special in self._layout.specials if special < 0])
        )
        if negative:
            pos += 1
        first_pos = pos
        while pos < size:
            digit = digit_value(self._header[pos], self._shape.base)
            if digit < 0:
                break
            if pos - first_pos == self._shape.max_digits:
                raise _error_texts.too_many_digits(
                    self._shape.max_digits, self._stream_offset, self._header_first(pos + 1)
                )
            leading = pos > first_pos and not value and not self._shape.leading_zeros
            if leading or (negative and not digit and not value):
                raise _error_texts.leading_zero(self._stream_offset, self._header_first(pos + 1))
            if value > (UINT64_MAX - digit) // self._shape.base:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, self._header_first(pos + 1)
                )
            value = value * self._shape.base + digit
            pos += 1
        else:
            return None
        if pos == first_pos and self._header[pos] == self._layout.end[0]:
            raise _error_texts.no_digits(pos, self._stream_offset, self._header_first(pos + 1))
        if self._shape.trailing_blanks and pos > first_pos:
            while self._header[pos] == c' ' or self._header[pos] == c'\t':
                if pos - first_pos == self._shape.max_digits:
                    raise _error_texts.too_many_digits(
                        self._shape.max_digits, self._stream_offset, self._header_first(pos + 1)
                    )
                pos += 1
                if pos == size:
                    return None
        right = common_size(
            self._header + pos,
            size - pos,
            self._shape.end,
            self._shape.end_size,
        )
        if right == self._shape.end_size:
            number = value
            return pos + right, -number if negative else number
        if pos + right == size:
            return None
        pos += right
        raise _error_texts.not_a_digit(
            self._shape.base,
            self._layout.end,
            pos,
            self._stream_offset,
            self._header_first(pos + 1),
        )

    cdef object _parse_bcd(self):
        cdef uint64_t value = 0
        cdef Py_ssize_t pos, size = self._shape.header_size
        cdef int pair
        for pos in range(self._shape.field_offset, min(self._header_size, size)):
            if self._header[pos] >> 4 > 9 or self._header[pos] & 15 > 9:
                raise _error_texts.not_packed_decimal(
                    pos, self._stream_offset, self._header_first(pos + 1)
                )
            pair = 10 * (self._header[pos] >> 4) + (self._header[pos] & 15)
            if value > (UINT64_MAX - pair) // 100:
                raise _error_texts.length_over_64_bits(
                    self._stream_offset, self._header_first(pos + 1)
                )
            value = value * 100 + pair
        return (size, value) if self._header_size >= size else None

    cdef object _parse_ber(self):
        cdef Py_ssize_t pos = self._shape.field_offset
        cdef int size
        if self._header_size <= pos:
            return None
        if self._header[pos] < 0x80:
            return pos + 1, self._header[pos]
        size = self._header[pos] - 0x80
        if not 0 < size < self._shape.width:
            raise _error_texts.bad_ber_length(
                self._shape.width - 1, self._stream_offset, self._header_first(pos + 1)
            )
        if self._header_size < pos + 1 + size:
            return None
        return pos + 1 + size, load(self._header + pos + 1, size, False)

    cdef object _check_rest_size(self, Py_ssize_t header_size, value, Py_ssize_t lead_size):
        """Return the size of the rest; raise or begin to skip if the frame is not allowed."""
        layout, offset = self._layout, self._stream_offset
        header = self._header_first(header_size)
        rest_size = value * layout.unit + layout.adjustment
        if rest_size < 0 and value >= 0 and layout.counts_frame:
            least = header_size + self._shape.front_check_size + self._shape.tail_size
            raise _error_texts.smaller_than_frame(value, least, offset, header)
        if rest_size < 0 or value < 0:
            raise _error_texts.negative_length(
                value, layout.unit, layout.adjustment, offset, header
            )
        if lead_size + rest_size < layout.min_message_size:
            raise _error_texts.declared_too_small(
                lead_size + rest_size, layout.min_message_size, offset, header
            )
        least = layout.prefix_size - header_size - self._shape.front_check_size
        if rest_size < least:
            raise _error_texts.rest_before_constant(rest_size, least, offset, header)
        if lead_size + rest_size > layout.message_max:
            if not self._skip:
                raise _error_texts.declared_too_large(
                    lead_size + rest_size, layout.message_max, offset, header
                )
            self._skipping = True
        return rest_size

    cdef inline Py_ssize_t _read_rest(self, const uint8_t* data, const uint8_t* end) except -1:
        """Keep the chunk's bytes of the rest, or discard them if the frame is skipped."""
        cdef Py_ssize_t taken = end - data
        if self._skipping:
            taken = min(taken, self._skip_left)
            self._skip_left -= taken
            self._pending += taken
            if not self._skip_left:
                self._end_rest()
        else:
            taken = min(taken, self._rest_left)
            if self._message_capacity - self._filled < taken:
                self._grow_message(taken)
            self._keep(data, taken)
            if not self._rest_left:
                self._end_rest()
        return taken

    cdef inline int _end_rest(self) except -1:
        """Go on to what follows the rest, after the check of a check at the front."""
        self._phase = IN_TRAILER
        if self._shape.front_check_size:
            self._verify_check(self._header + self._own_size - self._shape.front_check_size)
        return 0

    cdef inline void _keep(self, const uint8_t* data, Py_ssize_t size) noexcept:
        """Add bytes of the rest to the message, which has the capacity."""
        memcpy(bytes_at(self._message) + self._filled, data, size)
        self._filled += size
        self._rest_left -= size
        self._pending += size

    cdef inline Py_ssize_t _read_plain_rest(
        self, const uint8_t* data, Py_ssize_t size, list messages
    ) except -1:
        """Do the same for a plain frame, and deliver it if it is whole."""
        cdef Py_ssize_t taken = min(size, self._rest_left)
        if self._message_capacity - self._filled < taken:
            self._grow_message(taken)
        self._keep(data, taken)
        if not self._rest_left:
            self._append_message(messages)
            Py_XDECREF(self._message)
            self._message = NULL
            self._filled = 0
            self._phase = IN_HEADER
            self._header_size = 0
            self._stream_offset += self._pending
            self._pending = 0
        return taken

    cdef int _grow_message(self, Py_ssize_t size) except -1:
        """Grow the message to little more than twice the bytes that arrived."""
        cdef Py_ssize_t memory = min(self._message_size, 2 * (self._filled + size) + EXTRA_CAPACITY)
        if Py_REFCNT(self._message) > 1:
            self._move_message(memory)
        else:
            self._resize_message(memory)
            if memory >= HUGE_MESSAGE_SIZE:
                _want_huge_pages(bytes_at(self._message), memory)
        return 0

    cdef int _resize_message(self, Py_ssize_t memory) except -1:
        """Resize a message of which there is no view; if that fails, it is unchanged."""
        cdef PyObject* resized = _try_resize_bytes(self._message, memory)
        if resized == NULL:
            raise MemoryError
        self._message = resized
        self._message_capacity = memory
        return 0

    cdef int _move_message(self, Py_ssize_t memory) except -1:
        """Copy the message, and leave its memory to the caller, which kept a view of it."""
        cdef PyObject* moved = _new_bytes(NULL, memory)
        memcpy(bytes_at(moved), bytes_at(self._message), self._filled)
        Py_XDECREF(self._message)
        self._message = moved
        self._message_capacity = memory
        return 0

    cdef inline int _append_message(self, list messages) except -1:
        """Add the message to the delivered ones. From then on it never changes."""
        if Py_REFCNT(self._message) > 1 and self._message_capacity:
            self._move_message(self._message_capacity)
        messages.append(<object>self._message)
        return 0

    cdef int _append_tagged(self, list messages) except -1:
        """Do the same with the names of the alternative; if that fails, nothing is delivered."""
        if Py_REFCNT(self._message) > 1 and self._message_capacity:
            self._move_message(self._message_capacity)
        messages.append(tagged(self._tag, <object>self._message))
        return 0

    cdef inline Py_ssize_t _read_trailer(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Compare the trailer, if there is one; deliver the message if it is whole."""
        cdef Py_ssize_t taken = 0
        if self._shape.tail_size:
            if self._trailer_pos < self._shape.end_check_size:
                taken = self._read_check(data, end)
                data += taken
            taken += self._match_trailer(data, end)
        if self._trailer_pos == self._shape.tail_size:
            self._deliver(messages)
        return taken

    cdef Py_ssize_t _match_trailer(self, const uint8_t* data, const uint8_t* end) except -1:
        """Compare the trailer byte by byte, as far as it arrived."""
        cdef Py_ssize_t size, right
        cdef Py_ssize_t matched = self._trailer_pos - self._shape.end_check_size
        if matched < 0:  # the check is not whole
            return 0
        size = min(end - data, self._shape.trailer_size - matched)
        right = common_size(data, size, self._shape.trailer + matched, size)
        self._trailer_pos += right
        self._pending += right
        if right < size:
            raise _error_texts.wrong_trailer(
                self._layout.trailer,
                self._layout.trailer[: matched + right] + bytes_of(data + right, 1),
                self._stream_offset,
                self._header_bytes(),
            )
        return right

    cdef Py_ssize_t _read_check(self, const uint8_t* data, const uint8_t* end) except -1:
        """Gather a check at the end; verify it when it is whole."""
        cdef Py_ssize_t before = PyBytes_GET_SIZE(self._end)
        cdef Py_ssize_t taken = min(end - data, self._shape.end_check_size - before)
        cdef Py_ssize_t size
        cdef bytes gathered = self._end + bytes_of(data, taken)
        cdef Py_ssize_t right = common_size(
            <const uint8_t*>PyBytes_AS_STRING(gathered),
            PyBytes_GET_SIZE(gathered),
            self._shape.check.before,
            self._shape.check.before_size,
        )
        wrong = b""
        if right < self._shape.check.before_size:
            wrong = gathered[right : right + 1]
            gathered = gathered[:right]
        size = PyBytes_GET_SIZE(gathered)
        self._end = gathered
        self._trailer_pos = size
        self._pending += size - before
        if wrong:
            raise wrong_bytes_before_check(
                self._layout.check.before,
                gathered + wrong,
                self._stream_offset,
                self._header_bytes(),
            )
        if size == self._shape.end_check_size:
            self._verify_check(<const uint8_t*>PyBytes_AS_STRING(gathered))
        return size - before

    cdef int _verify_check(self, const uint8_t* place) except -1:
        """Compare a check with the one that is computed of the frame, unless it was discarded."""
        cdef const Shape* shape = self._shape
        cdef bytes lead = self._found[2]
        cdef const uint8_t* start = self._header
        cdef Py_ssize_t start_size = self._own_size
        cdef Py_ssize_t pos, stop
        cdef bytes found
        if self._spans is not None:
            pos, stop = self._stream_offset, self._stream_offset + self._pending
            rest = self._spans._view[pos + self._own_size : stop - self._trailer_pos]
        elif self._skipping:
            return 0
        else:
            pos = self._own_size if self._raw else PyBytes_GET_SIZE(lead)
            if shape.check.covers == COVERS_MESSAGE:
                start = <const uint8_t*>PyBytes_AS_STRING(lead)
                start_size = PyBytes_GET_SIZE(lead)
            elif shape.check.covers == COVERS_BODY:
                start += shape.magic_size
                start_size -= shape.magic_size
            elif shape.check.covers != COVERS_FRAME:
                start_size = 0
            if shape.check.named and is_check(
                shape,
                place,
                checksum_of(
                    shape, start, start_size, bytes_at(self._message) + pos, self._filled - pos
                ),
            ):
                return 0
            # Where the function keeps the view, the message is copied before it is delivered.
            rest = PyMemoryView_FromObject(<object>self._message)[pos : self._filled]
        found = bytes_of(place + shape.check.before_size, shape.check.width)
        verify_check(
            self._layout,
            self._header_bytes(),
            self._own_size,
            lead,
            [rest],
            found,
            self._stream_offset,
            update_checksum,
        )
        return 0

    cdef Py_ssize_t _trailer_matched(self) noexcept:
        """Return how many bytes of the trailer matched."""
        return max(0, self._trailer_pos - self._shape.end_check_size)

    cdef Py_ssize_t _read_padding(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take the padding; a message is delivered before it, a raw frame with it."""
        cdef Py_ssize_t taken = min(end - data, self._padding_left)
        self._padding = self._padding + bytes_of(data, taken)
        self._padding_left -= taken
        self._pending += taken
        if not self._padding_left:
            if self._raw or self._spans is not None:
                self._deliver(messages)
            else:
                self._next_frame()
                self._padding = b""  # also after a switch to a codec without padding
        return taken

    cdef inline int _deliver(self, list messages) except -1:
        """Deliver the message, which was filled in its final place."""
        if self._shape.align > 1 and self._phase != IN_PADDING:
            self._padding_left = padding_of(self._shape, self._pending)
            if self._padding_left and (self._raw or self._spans is not None):
                self._phase = IN_PADDING
                return 0
        if self._followed:
            return self._end_fragment()
        self._deliver_message(messages)
        if self._padding_left:
            self._phase = IN_PADDING
            Py_XDECREF(self._message)
            self._message = NULL
            self._filled = 0
        else:
            self._next_frame()
        return 0

    cdef inline int _deliver_message(self, list messages) except -1:
        cdef int64_t start, stop
        cdef uint8_t* target
        cdef Py_ssize_t padding_size = PyBytes_GET_SIZE(self._padding)
        if self._spans is not None:
            start, stop = self._stream_offset, self._stream_offset + self._pending
            if not self._raw:
                start += self._own_size
                stop -= self._shape.tail_size + padding_size
            self._spans.add(start, stop)
        elif self._skipping:
            start = self._stream_offset
            self._note_gap(start, start + self._pending + self._padding_left)
            self._skipped_count += 1
        else:
            if self._raw and self._shape.tail_size + padding_size:
                self._grow_message(self._shape.tail_size + padding_size)
                target = bytes_at(self._message) + self._filled
                memcpy(target, PyBytes_AS_STRING(self._end), self._shape.end_check_size)
                target += self._shape.end_check_size
                memcpy(target, self._shape.trailer, self._shape.trailer_size)
                target += self._shape.trailer_size
                memcpy(target, PyBytes_AS_STRING(self._padding), padding_size)
            if self._keep_headers:
                if self._fragments:
                    self._keep_heads()
                else:
                    self._keep_travelled(self._header, self._header_size)
            if self._tag and not self._raw:
                self._append_tagged(messages)
            else:
                self._append_message(messages)  # the splitter's reference is dropped next
        return 0

    cdef int _keep_travelled(self, const uint8_t* header, Py_ssize_t size) except -1:
        """Keep a header. The message follows; if that fails, there is one header more."""
        if self._old & OLD_HEADERS:
            self._headers = []
            self._old &= ~OLD_HEADERS
        self._headers.append(bytes_of(header, size))
        return 0

    cdef int _keep_heads(self) except -1:
        """Keep the heads of all fragments."""
        cdef bytes heads = self._heads_first() + self._header_bytes()
        return self._keep_travelled(
            <const uint8_t*>PyBytes_AS_STRING(heads), PyBytes_GET_SIZE(heads)
        )

    cdef inline void _next_frame(self) noexcept:
        self._stream_offset += self._pending
        self._forget()

    cdef inline void _forget(self) noexcept:
        """Drop the bytes of the pending frame."""
        self._phase = IN_HEADER
        self._pending = 0
        self._header_size = 0
        self._line_pos = 0
        if self._shape.kind == HEADERS:
            self._parsed = -1
        self._skipping = False
        Py_XDECREF(self._message)
        self._message = NULL
        self._filled = 0
        self._rest_left = 0
        self._fragments = 0
        self._followed = False
        self._trailer_pos = 0
        if self._shape.align > 1:
            self._padding_left = 0
            self._padding = b""
        if self._shape.has_check:
            self._found = None
            self._end = b""
        if self._marks != NULL and self._resync:
            self._forget_marked()
            self._tail_size = 0
            self._after = -1
        if self._root != NULL:
            self._marks = NULL
            self._shape = self._root
            self._layout = self._choice_layout
            self._header_limit = self._root_limit
            self._tag = None

    # --- frames that an end mark ends (_marked_reader_py.py) --------------------------------------

    cdef Py_ssize_t _consume_marked(
        self, const uint8_t* data, Py_ssize_t size, list messages, bint one
    ) except -1:
        """Take a chunk of a stream whose frames an end mark ends.

        With `one`, it stops after the first message; in a choice after the pending frame. It
        returns the number of bytes taken.
        """
        cdef const uint8_t* p = data
        cdef const uint8_t* end = data + size
        cdef const uint8_t* stop = end
        cdef Starts starts
        memset(&starts, 0, sizeof(Starts))
        while p < end and not (one and messages) and self._marks != NULL:
            if self._tail_size:
                p = self._join_tail(p, end, messages)
                continue
            if self._after >= 0:
                p = self._ignore_remainder(p, end)
                continue
            if self._root != NULL:  # the next frame begins a search anew: it must not go far
                stop = min(end, p + max(<Py_ssize_t>MARK_WINDOW, self._pending))
            elif not self._pending and not one:
                if self._marks.stuffed:
                    p += self._read_stuffed_frames(p, end, messages)
                else:
                    p += self._read_marked_frames(p, end, &starts, messages)
                    rewind(&starts, p)
                if p == end or self._after >= 0:
                    continue
            if self._phase == IN_PADDING:  # of a frame before a switch
                p += self._read_padding(p, end, messages)
                continue
            if self._phase == IN_HEADER:
                p = self._read_magic(p, stop)
            if self._phase == IN_REST:
                if self._marks.stuffed:
                    p = self._read_stuffed(p, stop, messages)
                else:
                    p = self._read_content(p, stop, &starts, messages)
        return p - data

    cdef int _begin_marked(self, Py_ssize_t in_chunk, list messages) except -1:
        """Read again what was gathered to choose, as the start of a frame that an end mark ends.

        The last `in_chunk` bytes of it are in this chunk.
        """
        cdef bytes gathered = self._header_bytes()
        cdef bytes earlier = gathered[: self._header_size - in_chunk]
        check = self._layout.check
        self._marks = marks_in(mark_numbers_of(self._layout))
        self._checks_front = check is not None and check.position == "front"
        self._surplus_bytes = earlier
        self._header_size = 0
        self._pending = 0
        self._consume_marked(
            <const uint8_t*>PyBytes_AS_STRING(gathered), PyBytes_GET_SIZE(gathered), messages, False
        )
        self._surplus_bytes = b""
        return 0

    cdef Py_ssize_t _read_marked_frames(
        self, const uint8_t* data, const uint8_t* end, Starts* starts, list messages
    ) except -1:
        """Take whole, ordinary frames; return the number of bytes up to the first other one."""
        cdef const Marks* marks = self._marks
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* content
        cdef const uint8_t* stop
        cdef Py_ssize_t message_size, mark_size, saved
        cdef Py_ssize_t magic_size = self._shape.magic_size
        cdef uint64_t low = self._shape.quick_low
        cdef uint64_t span = self._shape.quick_span
        cdef bint skip_empty = marks.skip_empty
        cdef bint is_plain = not self._raw and self._spans is None and not self._keep_headers
        cdef int mark = 0
        cdef bytes message
        if self._shape.has_check:
            return self._read_checked_contents(data, end, starts, messages)
        try:
            while p < end:
                if magic_size and (
                    end - p < magic_size or memcmp(p, self._shape.magic, magic_size)
                ):
                    break
                content = p + magic_size
                stop = find_end(marks, starts, content, end, &mark, &saved)
                if stop == NULL:
                    break
                mark_size = marks.marks[mark].size
                message_size = stop - content - saved
                if message_size or not skip_empty:
                    if <uint64_t>message_size - low > span:
                        break
                    if is_plain and not saved:
                        messages.append(message_of(content, message_size))
                    elif self._spans is not None:
                        self._add_marked_span(p - data, content - data, stop - data, mark_size)
                    else:
                        if self._raw:
                            message = message_of(p, stop + mark_size - p)
                        elif not saved:
                            message = message_of(content, message_size)
                        else:
                            message = PyBytes_FromStringAndSize(NULL, message_size)
                            unescape(
                                marks,
                                content,
                                stop - content,
                                <uint8_t*>PyBytes_AS_STRING(message),
                            )
                        if self._keep_headers:
                            self._keep_marked(p, stop, end, mark)
                        messages.append(message)
                else:
                    self._note_ignored(p - data, stop, end, mark)
                p = stop + mark_size
                if marks.marks[mark].is_begun:
                    self._after = mark
                    p = skip_remainder(marks, p, end, &self._after)
                    if self._after >= 0:
                        break
            return p - data
        finally:
            self._stream_offset += p - data

    cdef int _add_marked_span(
        self, Py_ssize_t frame, Py_ssize_t content, Py_ssize_t stop, Py_ssize_t mark_size
    ) except -1:
        cdef int64_t offset = self._stream_offset
        if self._raw:
            self._spans.add(offset + frame, offset + stop + mark_size)
        else:
            self._spans.add(offset + content, offset + stop)
        return 0

    cdef int _note_ignored(
        self, Py_ssize_t pos, const uint8_t* stop, const uint8_t* end, int mark
    ) except -1:
        """Note an empty frame that is ignored, with the rest of a longer mark.

        Args:
            pos: Where it begins, from the pending frame on.
            stop: Its mark.
            end: That of the chunk.
            mark: The number of the mark.
        """
        cdef int64_t start = self._stream_offset + pos
        cdef const uint8_t* after = stop + self._marks.marks[mark].size
        if not self._notes_gaps:
            return 0
        if self._marks.marks[mark].is_begun:
            after = skip_remainder(self._marks, after, end, &mark)
        # An empty frame is its magic and its mark.
        return self._note_gap(start, start + self._shape.magic_size + (after - stop))

    cdef int _keep_marked(
        self, const uint8_t* frame, const uint8_t* stop, const uint8_t* end, int mark
    ) except -1:
        """Keep what `encode` would write in another way: the mark, or with escapes all of it."""
        cdef const uint8_t* start = frame if self._marks.escape_count else stop
        stop += self._marks.marks[mark].size
        if self._marks.marks[mark].is_begun:
            stop = skip_remainder(self._marks, stop, end, &mark)
        return self._keep_travelled(start, stop - start)

    cdef Py_ssize_t _read_stuffed_frames(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except -1:
        """Take whole, ordinary frames of byte stuffing."""
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* content
        cdef const uint8_t* stop
        cdef Py_ssize_t message_size
        cdef Py_ssize_t magic_size = self._shape.magic_size
        cdef uint64_t low = self._shape.quick_low
        cdef uint64_t span = self._shape.quick_span
        cdef bytes message
        if self._shape.has_check:
            return self._read_checked_contents(data, end, NULL, messages)
        try:
            while p < end:
                if magic_size and (
                    end - p < magic_size or memcmp(p, self._shape.magic, magic_size)
                ):
                    break
                content = p + magic_size
                stop = <const uint8_t*>memchr(content, 0, end - content)
                if stop == NULL:
                    break
                message_size = unstuffed_size(content, stop)
                if message_size < 0:
                    break
                if stop > content:
                    if <uint64_t>message_size - low > span:
                        break
                    if self._spans is not None:
                        self._add_marked_span(p - data, content - data, stop - data, 1)
                    else:
                        if self._raw:
                            message = message_of(p, stop + 1 - p)
                        else:
                            message = PyBytes_FromStringAndSize(NULL, message_size)
                            unstuff(content, stop - content, <uint8_t*>PyBytes_AS_STRING(message))
                        if self._keep_headers:
                            self._keep_travelled(p, stop + 1 - p)
                        messages.append(message)
                else:
                    self._note_ignored(p - data, stop, end, 0)
                p = stop + 1
            return p - data
        finally:
            self._stream_offset += p - data

    cdef Py_ssize_t _read_checked_contents(
        self, const uint8_t* data, const uint8_t* end, Starts* starts, list messages
    ) except -1:
        """Take whole, ordinary frames with a check by a function that has a name."""
        cdef const Marks* marks = self._marks
        cdef const uint8_t* p = data  # of the frame
        cdef const uint8_t* content
        cdef const uint8_t* plain  # the content without escapes
        cdef const uint8_t* stop
        cdef Py_ssize_t size, mark_size, saved
        cdef Py_ssize_t magic_size = self._shape.magic_size
        cdef Py_ssize_t check_size = self._shape.inner_check_size
        cdef Py_ssize_t front = check_size if self._checks_front else 0
        cdef int mark = 0
        cdef bytes changed = None
        if not self._shape.check.named:
            return 0
        try:
            while p < end:
                if magic_size and (
                    end - p < magic_size or memcmp(p, self._shape.magic, magic_size)
                ):
                    break
                content = p + magic_size
                if marks.stuffed:
                    stop = <const uint8_t*>memchr(content, 0, end - content)
                    size = -1 if stop == NULL else unstuffed_size(content, stop)
                else:
                    stop = find_end(marks, starts, content, end, &mark, &saved)
                    size = stop - content - saved
                if stop == NULL or size < 0:
                    break
                mark_size = marks.marks[mark].size
                if size or not marks.skip_empty or (marks.stuffed and stop > content):
                    if <uint64_t>size - self._shape.quick_low > self._shape.quick_span:
                        break
                    plain = content
                    if marks.stuffed or size < stop - content:
                        changed = PyBytes_FromStringAndSize(NULL, size)
                        plain = <const uint8_t*>PyBytes_AS_STRING(changed)
                        if marks.stuffed:
                            unstuff(content, stop - content, <uint8_t*>plain)
                        else:
                            unescape(marks, content, stop - content, <uint8_t*>plain)
                    if not self._is_right_content(plain, size):
                        break
                    if size == check_size and marks.skip_empty and not marks.stuffed:
                        break
                    if self._spans is not None:
                        self._add_marked_span(
                            p - data,
                            content + front - data,
                            stop - (check_size - front) - data,
                            mark_size + (check_size - front if self._raw else 0),
                        )
                    else:
                        if self._keep_headers:
                            self._keep_travelled_frame(p, stop, end, mark)
                        if self._raw:
                            messages.append(message_of(p, stop + mark_size - p))
                        else:
                            messages.append(message_of(plain + front, size - check_size))
                else:
                    self._note_ignored(p - data, stop, end, mark)
                p = stop + mark_size
                if marks.marks[mark].is_begun:
                    self._after = mark
                    p = skip_remainder(marks, p, end, &self._after)
                    if self._after >= 0:
                        break
            return p - data
        finally:
            self._stream_offset += p - data

    cdef bint _is_right_content(self, const uint8_t* content, Py_ssize_t size) noexcept:
        """Return whether a content without escapes has the right check."""
        cdef const Shape* shape = self._shape
        cdef Py_ssize_t message_size = size - shape.inner_check_size
        cdef const uint8_t* message = content
        cdef const uint8_t* found = content + message_size
        cdef Py_ssize_t magic_size = 0
        if self._checks_front:
            message = content + shape.inner_check_size
            found = content
        if shape.check.covers == COVERS_FRAME:
            magic_size = shape.magic_size
        return is_check(
            shape, found, checksum_of(shape, shape.magic, magic_size, message, message_size)
        )

    cdef int _keep_travelled_frame(
        self, const uint8_t* frame, const uint8_t* stop, const uint8_t* end, int mark
    ) except -1:
        """Keep all of a frame, with the rest of a longer mark."""
        stop += self._marks.marks[mark].size
        if self._marks.marks[mark].is_begun:
            stop = skip_remainder(self._marks, stop, end, &mark)
        return self._keep_travelled(frame, stop - frame)

    cdef const uint8_t* _join_tail(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except NULL:
        """Read the tail of the last chunk again, with what follows it; return where that ends."""
        cdef uint8_t joined[LONGEST_MARK + JOINED]
        cdef Py_ssize_t taken = min(end - data, <Py_ssize_t>JOINED)
        cdef Py_ssize_t size = self._tail_size
        cdef Py_ssize_t stop
        self._surplus_bytes = bytes_of(self._tail, size)
        copy(joined, self._tail, size)
        copy(joined + size, data, taken)
        self._tail_size = 0
        self._untake(size)
        stop = self._consume_marked(joined, size + taken, messages, False)
        if stop < size + taken:  # the frame of a choice has ended
            taken = stop - size
        elif self._tail_size and taken < end - data:  # it is in this chunk: read on from there
            taken -= self._tail_size
            self._untake(self._tail_size)
            self._tail_size = 0
        self._surplus_bytes = b""
        return data + taken

    cdef void _untake(self, Py_ssize_t size) noexcept:
        self._pending -= size
        if not self._pending:
            self._phase = IN_HEADER

    cdef int _keep_tail(self, const uint8_t* data, Py_ssize_t size) noexcept:
        copy(self._tail, data, size)
        self._tail_size = size
        self._pending += size
        return 0

    cdef const uint8_t* _ignore_remainder(
        self, const uint8_t* data, const uint8_t* end
    ) except NULL:
        """Pass over the rest of a mark that is longer than the one that was read."""
        cdef int after = self._after
        cdef const uint8_t* p = skip_remainder(self._marks, data, end, &after)
        self._note_gap(self._stream_offset, self._stream_offset + (p - data))
        self._after = after
        self._stream_offset += p - data
        if after < 0:
            return p
        self._keep_tail(p, end - p)
        return end

    cdef const uint8_t* _read_magic(self, const uint8_t* data, const uint8_t* end) except NULL:
        cdef Py_ssize_t size = self._shape.magic_size
        cdef Py_ssize_t taken = min(end - data, size - self._header_size)
        cdef Py_ssize_t right
        self._keep_header(data, taken)
        self._pending += taken
        right = common_size(self._header, self._header_size, self._shape.magic, size)
        if right < self._header_size:
            raise _error_texts.wrong_magic(
                self._layout.magic, self._stream_offset, self._header_first(right + 1)
            )
        if self._header_size == size:
            self._phase = IN_REST
        return data + taken

    cdef const uint8_t* _read_content(
        self, const uint8_t* data, const uint8_t* end, Starts* starts, list messages
    ) except NULL:
        """Read the content up to its mark, or to the chunk's end; deliver the message."""
        cdef const Marks* marks = self._marks
        cdef const uint8_t* literal = data
        cdef const uint8_t* start
        cdef Py_ssize_t content_size = self._content_size
        cdef Py_ssize_t most = self._shape.message_max + self._shape.inner_check_size
        cdef int token = LITERAL
        cdef int index = 0
        cdef int after
        while True:
            start = next_start(marks, starts, literal, end)
            content_size += start - literal
            if content_size > most and not self._skipping:
                self._refuse_or_skip(data, start - data)
            if start == end:
                break
            token = token_at(marks, start, end - start, &index)
            if token == LITERAL:
                content_size += 1
                literal = start + 1
            elif token == ESCAPE:
                content_size += 1
                literal = start + marks.escapes[index].size
            else:
                break
        self._keep_content(data, start - data)
        self._content_size = content_size
        if start == end:
            return end
        if token == CUT_OFF:
            self._keep_tail(start, end - start)
            return end
        if token == UNKNOWN_ESCAPE:
            raise _mark_texts.unknown_escape(
                self._layout,
                bytes_of(start, wrong_size(marks, start, end - start)),
                self._stream_offset,
                self._header_bytes(),
                self._seen(NULL, 0),
            )
        literal = start + marks.marks[index].size
        after = -1
        if marks.marks[index].is_begun:
            after = index
            literal = skip_remainder(marks, literal, end, &after)
        self._end_marked(content_size, index, start, literal - start, after, messages)
        return literal

    cdef const uint8_t* _read_stuffed(
        self, const uint8_t* data, const uint8_t* end, list messages
    ) except NULL:
        """Do the same for byte stuffing; `_block_left` bytes of the last block are missing."""
        cdef const uint8_t* zero = <const uint8_t*>memchr(data, 0, end - data)
        cdef const uint8_t* stop = end if zero == NULL else zero
        cdef Py_ssize_t size = stop - data
        cdef Py_ssize_t pos = self._block_left  # of the next code
        cdef Py_ssize_t content_size = self._content_size + min(pos, size)
        cdef bint zero_due = self._zero_due
        cdef bint begun = self._block_begun or size
        while pos < size:
            content_size += zero_due + min(<Py_ssize_t>data[pos] - 1, size - pos - 1)
            zero_due = data[pos] < 255
            pos += data[pos]
        if (
            content_size > self._shape.message_max + self._shape.inner_check_size
            and not self._skipping
        ):
            self._refuse_or_skip(data, size)
        self._keep_content(data, size)
        self._content_size = content_size
        self._block_left = pos - size
        self._zero_due = zero_due
        self._block_begun = begun
        if zero == NULL:
            return stop
        if pos > size:
            raise _mark_texts.cut_block(
                pos - size, self._stream_offset, self._header_bytes(), self._seen(NULL, 0)
            )
        self._end_marked(content_size if begun else -1, 0, stop, 1, -1, messages)
        return stop + 1

    cdef int _refuse_or_skip(self, const uint8_t* more, Py_ssize_t size) except -1:
        """Raise the error about a message above the limit, or begin to discard it."""
        if not self._skip:
            raise _mark_texts.content_too_large(
                self._layout, self._stream_offset, self._header_bytes(), self._seen(more, size)
            )
        self._skipping = True
        Py_XDECREF(self._message)
        self._message = NULL
        self._filled = 0
        return 0

    cdef bytes _seen(self, const uint8_t* more, Py_ssize_t size):
        """Return the first bytes of the content, for the text of an error."""
        cdef Py_ssize_t before = self._header_size if self._raw else 0
        cdef bytes content = b""
        if self._message != NULL:
            content = bytes_of(bytes_at(self._message) + before, min(self._filled - before, 64))
        return content + bytes_of(more, min(size, 64 - PyBytes_GET_SIZE(content)))

    cdef int _keep_content(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Keep bytes of the content as they travelled, unless they are discarded."""
        cdef Py_ssize_t begun
        cdef bint is_wanted = self._spans is None or self._shape.has_check
        if size and is_wanted and not self._skipping:
            if self._message == NULL:
                begun = self._header_size if self._raw else 0
                self._message_size = LARGEST_SIZE
                self._message_capacity = max(begun + size, <Py_ssize_t>FIRST_CAPACITY)
                self._message = _new_bytes(NULL, self._message_capacity)
                copy(bytes_at(self._message), self._header, begun)
                self._filled = begun
                self._pending_lead = 0
            elif self._message_capacity - self._filled < size:
                self._grow_message(size)
            memcpy(bytes_at(self._message) + self._filled, data, size)
            self._filled += size
        self._pending += size
        return 0

    cdef int _end_marked(
        self,
        Py_ssize_t content_size,
        int mark,
        const uint8_t* whole_mark,
        Py_ssize_t whole_size,
        int after,
        list messages,
    ) except -1:
        """Make the message and deliver it; the frame ends with this mark.

        Args:
            content_size: Bytes of the message; negative for a frame that is ignored in any case.
            mark: The mark that ended the message.
            whole_mark, whole_size: The same with the rest of a longer one, which followed.
            after: The whole mark if more of a longer one may follow, else -1.
            messages: The delivered ones.
        """
        cdef const Marks* marks = self._marks
        cdef Py_ssize_t mark_size = marks.marks[mark].size
        cdef Py_ssize_t check_size = self._shape.inner_check_size
        cdef Py_ssize_t front = check_size if self._checks_front else 0
        cdef bint takes_empty = not marks.skip_empty or marks.stuffed
        cdef bint is_ignored = content_size < 0 or (not takes_empty and not content_size)
        if not is_ignored and not self._skipping:
            if 0 <= content_size - check_size < self._layout.min_message_size:
                raise _mark_texts.content_too_small(
                    content_size - check_size,
                    self._layout.min_message_size,
                    self._stream_offset,
                    self._header_bytes(),
                    self._seen(NULL, 0),
                )
            if check_size:
                self._verify_content(content_size)
                is_ignored = not takes_empty and content_size == check_size
        if is_ignored or self._skipping:
            self._note_gap(
                self._stream_offset, self._stream_offset + self._pending + whole_size
            )
            self._skipped_count += not is_ignored
        elif self._spans is not None:
            self._add_marked_span(
                0,
                self._header_size + front,
                self._pending - (check_size - front),
                mark_size + (check_size - front if self._raw else 0),
            )
        else:
            message = self._made(content_size, mark)
            if self._keep_headers:
                self._keep_marked_frame(whole_mark, whole_size)
            if self._tag and not self._raw:
                message = tagged(self._tag, message)
            messages.append(message)
        self._pending += whole_size
        self._next_frame()
        self._forget_marked()
        self._after = after
        return 0

    cdef int _verify_content(self, Py_ssize_t content_size) except -1:
        """Compare the check inside the content that was kept."""
        verify_content(
            self._layout,
            self._plain_content(content_size),
            self._stream_offset,
            self._header_bytes(),
            self._seen(NULL, 0),
            update_checksum,
        )
        return 0

    cdef bytes _plain_content(self, Py_ssize_t content_size):
        """Return the content that was kept, without its escapes."""
        cdef Py_ssize_t before = self._header_size if self._raw else 0
        cdef const uint8_t* content
        cdef bytes plain
        if self._message == NULL:
            return b""
        content = bytes_at(self._message) + before
        plain = PyBytes_FromStringAndSize(NULL, content_size)
        if self._marks.stuffed:
            unstuff(content, self._filled - before, <uint8_t*>PyBytes_AS_STRING(plain))
        elif content_size == self._filled - before:
            memcpy(PyBytes_AS_STRING(plain), content, content_size)
        else:
            unescape(
                self._marks, content, self._filled - before, <uint8_t*>PyBytes_AS_STRING(plain)
            )
        return plain

    cdef void _forget_marked(self) noexcept:
        self._content_size = self._block_left = 0
        self._zero_due = self._block_begun = False

    cdef bytes _made(self, Py_ssize_t content_size, int mark):
        """Return the message of the content that was kept; that stays as it is."""
        cdef const Marks* marks = self._marks
        cdef const uint8_t* content = NULL
        cdef bytes message
        if self._message == NULL:
            content = self._header
            message = b""
            if self._raw:
                message = self._header_bytes() + bytes_of(
                    marks.marks[mark].data, marks.marks[mark].size
                )
            return message
        if self._raw:
            if self._message_capacity - self._filled < marks.marks[mark].size:
                self._grow_message(marks.marks[mark].size)
            memcpy(
                bytes_at(self._message) + self._filled,
                marks.marks[mark].data,
                marks.marks[mark].size,
            )
            if self._filled + marks.marks[mark].size != self._message_capacity:
                self._resize_message(self._filled + marks.marks[mark].size)
            return <bytes>self._message
        if self._filled > SMALL_MESSAGE and self._message_capacity > self._filled:
            self._resize_message(self._filled)
        content = bytes_at(self._message)
        if self._shape.has_check:
            message = self._plain_content(content_size)
            content_size -= self._shape.inner_check_size
            if self._checks_front:
                return message[self._shape.inner_check_size:]
            return message[:content_size]
        if not marks.stuffed and content_size == self._filled:
            if self._filled <= SMALL_MESSAGE:  # in its place it would keep the first capacity
                return message_of(content, self._filled)
            return <bytes>self._message
        message = PyBytes_FromStringAndSize(NULL, content_size)
        if marks.stuffed:
            unstuff(content, self._filled, <uint8_t*>PyBytes_AS_STRING(message))
        else:
            unescape(marks, content, self._filled, <uint8_t*>PyBytes_AS_STRING(message))
        return message

    cdef int _keep_marked_frame(self, const uint8_t* mark, Py_ssize_t size) except -1:
        """Keep the frame's mark, or with escapes all of it."""
        if not (
            self._marks.escape_count
            or self._marks.stuffed
            or self._shape.has_check
            or self._root != NULL
        ):
            return self._keep_travelled(mark, size)
        frame = self._header_bytes()
        if self._message != NULL:
            frame += bytes_of(bytes_at(self._message), self._filled)
        frame += bytes_of(mark, size)
        return self._keep_travelled(
            <const uint8_t*>PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame)
        )

    # --- errors -----------------------------------------------------------------------------------

    cdef int _fail(
        self, error, const uint8_t* chunk, int64_t taken, Py_ssize_t size
    ) except -1:
        """Make the error sticky, and keep the bytes that arrived for detach().

        Of the chunk, `taken` bytes were taken; a negative count is that of the last bytes of
        `_surplus_bytes` that were not.
        """
        self._break(error)
        self._pending += size - taken
        self._rest_left = 0  # no chunk is taken any more
        if self._keeps_bytes():
            try:
                if taken >= 0:
                    self._not_taken = bytes_of(chunk + taken, size - taken)
                else:
                    self._not_taken = self._surplus_bytes[taken:] + bytes_of(chunk, size)
            except MemoryError:
                self._lost = True  # no memory
        self._surplus_bytes = b""
        return 0

    cdef bint _keeps_bytes(self) noexcept:
        return not self._skipping and self._spans is None

    cdef bytes _unfinished(self):
        """Return the bytes of the pending frame as they travelled, and after an error all later."""
        cdef const uint8_t* message
        cdef Py_ssize_t message_size = 0
        cdef Py_ssize_t header_size = self._header_size
        cdef Py_ssize_t not_taken_size = PyBytes_GET_SIZE(self._not_taken)
        cdef Py_ssize_t trailer_matched = self._trailer_matched()
        cdef bytes unfinished
        cdef uint8_t* p
        if not self._keeps_bytes():
            return b""
        if self._lost:
            raise _error_texts.unfinished_lost()
        if self._phase == IN_PADDING and not self._raw:  # its message is delivered
            return self._padding + self._not_taken + self._held_bytes()
        if self._fragments:
            return b"".join(
                (
                    self._unfinished_fragments(),
                    self._shape.trailer[:trailer_matched],
                    self._not_taken,
                    self._held_bytes(),
                )
            )
        if self._message != NULL:
            if self._message_capacity > self._filled > 0 and Py_REFCNT(self._message) == 1:
                self._resize_message(self._filled)  # never more than twice what arrived
            message = bytes_at(self._message)
            message_size = self._filled
            if self._raw:
                header_size = 0  # the message begins with it
            else:
                message += self._pending_lead
                message_size -= self._pending_lead
        unfinished = PyBytes_FromStringAndSize(
            NULL,
            header_size
            + message_size
            + PyBytes_GET_SIZE(self._end)
            + trailer_matched
            + self._tail_size
            + PyBytes_GET_SIZE(self._padding)
            + not_taken_size
            + self._held_size,
        )
        p = <uint8_t*>PyBytes_AS_STRING(unfinished)
        if header_size:
            memcpy(p, self._header, header_size)
        if message_size:
            memcpy(p + header_size, message, message_size)
        p += header_size + message_size
        memcpy(p, PyBytes_AS_STRING(self._end), PyBytes_GET_SIZE(self._end))
        p += PyBytes_GET_SIZE(self._end)
        memcpy(p, self._shape.trailer, trailer_matched)
        p += trailer_matched
        copy(p, self._tail, self._tail_size)
        p += self._tail_size
        memcpy(p, PyBytes_AS_STRING(self._padding), PyBytes_GET_SIZE(self._padding))
        p += PyBytes_GET_SIZE(self._padding)
        memcpy(p, PyBytes_AS_STRING(self._not_taken), not_taken_size)
        if self._held_size:
            memcpy(p + not_taken_size, self._held + self._held_pos, self._held_size)
        return unfinished

    cdef bytes _header_bytes(self):
        return bytes_of(self._header, self._header_size)

    cdef bytes _header_first(self, Py_ssize_t size):
        return bytes_of(self._header, size)

    cdef object _missing(self):
        """Return how many bytes finish the frame, or its padding; its header is in."""
        if self._phase == IN_PADDING:
            return self._padding_left
        left = self._skip_left if self._skipping else self._rest_left + self._rest_beyond
        left = left if self._phase == IN_REST else 0
        left += self._shape.tail_size - self._trailer_pos
        return left


@cython.final
@cython.auto_pickle(False)
cdef class Spans:
    """The positions of the frames of a buffer: a sequence of views, made on demand.

    It also exports its positions, an ``(n, 2)`` buffer of int64 (start, stop), so that
    ``numpy.asarray(spans)`` copies nothing. (The Python engine needs Python 3.12 for
    ``memoryview(spans)``; numpy understands it everywhere.)
    """

    cdef object _view
    cdef int64_t* _positions  # start and stop of each
    cdef Py_ssize_t _count
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _shape[2]
    cdef Py_ssize_t _strides[2]
    cdef int64_t _consumed
    cdef bint _growing  # while scan() adds to it
    cdef object __weakref__

    def __cinit__(self, view):
        self._view = view
        self._positions = NULL
        self._shape[1] = 2
        self._strides[0], self._strides[1] = 2 * sizeof(int64_t), sizeof(int64_t)

    def __dealloc__(self):
        PyMem_Free(self._positions)

    # Spans grow only before scan() returns them, and are not exported before: no export moves.
    cdef inline int add(self, int64_t start, int64_t stop) except -1:
        cdef int64_t* positions
        cdef Py_ssize_t capacity
        if self._count == self._capacity:
            capacity = max(64, 2 * self._capacity)
            positions = <int64_t*>PyMem_Realloc(self._positions, capacity * 2 * sizeof(int64_t))
            if positions == NULL:
                raise MemoryError
            self._positions = positions
            self._capacity = capacity
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
    """Find all whole frames at the start of a buffer; see `Codec.scan`."""
    cdef Splitter splitter
    cdef Spans spans
    cdef Py_buffer buffer
    layout = layout_of(codec)
    if not raw and layout.joined is not None:
        raise not_in_one_piece()
    if not raw and (layout.message_lead or (layout.choice and layout.choice.has_lead)):
        raise _error_texts.scan_with_lead()
    if not raw and layout.has_changed_content:
        raise _mark_texts.not_in_one_piece()
    view = view_bytes(data)
    splitter = Splitter(codec, raw=raw)
    splitter._spans = spans = Spans(view)
    spans._growing = True
    splitter._plain = False
    splitter._loads = None
    splitter._busy = True  # a user's parse() that finds it cannot feed it
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    try:
        _consume(splitter, <const uint8_t*>buffer.buf, buffer.len, [])
    except BaseException as error:
        if not isinstance(error, errors.FrameError):
            raise
        if not spans._count:
            _error_texts.complete_text(error, layout, splitter._fragments)
            raise
    finally:
        PyBuffer_Release(&buffer)
    spans._consumed = splitter._stream_offset
    spans._shape[0] = spans._count
    spans._growing = False
    return spans


remember_module_state()
