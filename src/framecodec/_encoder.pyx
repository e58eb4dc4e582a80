# cython: language_level=3
# The fast path indexes C memory only, after its own comparisons:
# cython: boundscheck=False, wraparound=False, cdivision=True
# A method of one positional argument becomes METH_O (a call costs 70 instead of 78 ns), and still
# shows its signature:
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The encoder in Cython: messages in, bytes out.

`_encoder_py.py` is its specification: change both in the same commit, docstrings too, because
``help()`` shows those of the engine in use.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ._block_scan cimport try_header_block
from ._byte_search cimport copy_and_look, count_byte, stuff_block
from ._checksums cimport checksum_of, prepare_checksums, store_check, update_state
from ._frame_runs cimport RUN_SIZED_BEFORE, items_of
from ._frame_writer cimport write_marked
from ._marks cimport (
    Marks,
    comes_back,
    escape,
    escaped_size,
    mark_numbers_of,
    marks_in,
    stuff,
    stuffed_size,
)
from ._module_state cimport remember_module_state
from ._numbers cimport (
    BCD,
    BER,
    CHOICE,
    COVERS_FRAME,
    CUSTOM,
    DIGITS,
    FIXED,
    LARGEST_SIZE,
    Shape,
    TEXT,
    UINT,
    VARINT,
    bytes_at,
    copy,
    numbers_of,
    padding_of,
    shape_holds,
    shape_in,
    store,
    wide_field_for,
)

from ._quick_heads cimport (
    QuickHead,
    choose_early,
    LINE_RUN,
    NO_RUN,
    PIECE,
    heads_in,
    is_in_range,
    quick_heads_of,
    write_line_run,
    write_one_chosen,
    write_quick,
    write_tiny_run,
)
from ._sized_heads cimport (
    Piece,
    PyList_GET_ITEM,
    SIZED_NONE,
    SPARE,
    bytes_size as _bytes_size,
    piece_of,
    write_piece,
)

from . import _error_texts, _mark_texts
from ._bytes_like import refuse_one_message, view_bytes
from ._check_bytes import add_check, content_of
from ._choice import choice_parts
from ._custom_header import build_header
from ._header_block import check_block
from ._joined import joined_parts
from ._layout import Described, layout_of
from ._message_start import check_start, join_header

__all__ = ["Encoder", "ObjectEncoder", "update_checksum"]

prepare_checksums()


cdef extern from "Python.h":
    bint _is_bytes "PyBytes_CheckExact" (PyObject*) noexcept


cdef int _raise_what_is_set() except -1:
    return -1  # no memory


cdef enum:
    SHORT_FRAME = 1024  # frames up to this size are written on the stack first; more than SPARE


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

    It replaces an `except` clause. Cython's crashes where no memory is left for the traceback.
    """
    if PyErr_Occurred() == NULL:
        return False
    if PyErr_ExceptionMatches(TypeError) or PyErr_ExceptionMatches(ValueError):
        PyErr_Clear()
        return True
    return -1


# --- frames that an end mark ends -----------------------------------------------------------------

# Called by their addresses, so that each has the registers for itself. They write the frames of
# `bytes` messages to memory of a size, and return the size of all, or -1 for the slow path.
ctypedef Py_ssize_t (*_batch_writer)(
    const Shape*, const Marks*, const QuickHead*, uint8_t*, Py_ssize_t, list, Py_ssize_t
) noexcept


cdef Py_ssize_t _write_all_ended(
    const Shape* shape,
    const Marks* marks,
    const QuickHead* heads,
    uint8_t* frames,
    Py_ssize_t space,
    list batch,
    Py_ssize_t count,
) noexcept:
    """Write messages without escapes.

    Whether they contain an end mark is found by counting one of its bytes in all frames at once.
    """
    cdef const uint8_t* message
    cdef bint is_odd = False
    cdef Py_ssize_t i
    cdef uint8_t* p = _copy_all(shape, marks, frames, batch, count, &is_odd)
    if p == NULL:
        return -1
    if is_odd or not _are_quiet(shape, marks, frames, p, count):
        for i in range(count):
            message = bytes_at(PyList_GET_ITEM(batch, i))
            if not comes_back(marks, message, _bytes_size(PyList_GET_ITEM(batch, i))):
                return -1
    return p - frames


cdef uint8_t* _copy_all(
    const Shape* shape,
    const Marks* marks,
    uint8_t* p,
    list batch,
    Py_ssize_t count,
    bint* is_odd,
) noexcept:
    """Write messages as they are, with the magic and the end mark, and return their end.

    NULL if a size is not ordinary. `is_odd` becomes true if a message's last byte is an odd one.
    """
    cdef Piece magic = piece_of(shape.magic, shape.magic_size)
    cdef Piece end = piece_of(marks.marks[marks.written].data, marks.marks[marks.written].size)
    cdef uint64_t low = max(shape.quick_low, <uint64_t>marks.skip_empty)
    cdef uint64_t span = shape.quick_span - (low - shape.quick_low)
    cdef bint found_odd = False
    cdef const uint8_t* message
    cdef Py_ssize_t i, size
    for i in range(count):
        message = bytes_at(PyList_GET_ITEM(batch, i))
        size = _bytes_size(PyList_GET_ITEM(batch, i))
        if <uint64_t>size - low > span:
            return NULL
        if magic.size:
            p = write_piece(p, &magic)
        copy(p, message, size)
        p += size
        found_odd |= marks.odd_ends[p[-1]] if size else 0
        p = write_piece(p, &end)
    is_odd[0] = found_odd
    return p


cdef bint _are_quiet(
    const Shape* shape,
    const Marks* marks,
    const uint8_t* frames,
    const uint8_t* end,
    Py_ssize_t count,
) noexcept:
    """Return whether it is certain that no message contains an end mark."""
    cdef const uint8_t* mark = marks.marks[marks.written].data
    cdef Py_ssize_t mark_size = marks.marks[marks.written].size
    cdef Py_ssize_t owned
    cdef int i
    if not marks.has_few_odd:
        return False
    for i in range(3):
        if i and marks.odd[i] == marks.odd[i - 1]:
            break
        owned = count_byte(shape.magic, shape.magic + shape.magic_size, marks.odd[i])
        owned += count_byte(mark, mark + mark_size, marks.odd[i])
        if count_byte(frames, end, marks.odd[i]) != owned * count:
            return False
    return True


cdef Py_ssize_t _write_all_changed(
    const Shape* shape,
    const Marks* marks,
    const QuickHead* heads,
    uint8_t* frames,
    Py_ssize_t space,
    list batch,
    Py_ssize_t count,
) noexcept:
    """Write messages with escapes or byte stuffing."""
    cdef uint8_t* p = frames
    cdef Py_ssize_t i, frame_size
    cdef PyObject* message
    for i in range(count):
        message = PyList_GET_ITEM(batch, i)
        frame_size = write_marked(shape, marks, p, bytes_at(message), _bytes_size(message))
        if not frame_size:
            return -1
        p += frame_size
    return p - frames


cdef Py_ssize_t _write_all_stuffed(
    const Shape* shape,
    const Marks* marks,
    const QuickHead* heads,
    uint8_t* frames,
    Py_ssize_t space,
    list batch,
    Py_ssize_t count,
) noexcept:
    """Write messages with byte stuffing."""
    cdef uint8_t* p = frames
    cdef const uint8_t* message
    cdef Py_ssize_t i, size, frame_size
    for i in range(count):
        message = bytes_at(PyList_GET_ITEM(batch, i))
        size = _bytes_size(PyList_GET_ITEM(batch, i))
        if size < 254 and not shape.magic_size and (
            <uint64_t>size - shape.quick_low <= shape.quick_span
        ):
            stuff_block(p, message, size)
            p += size + 2
            p[-1] = 0
            continue
        frame_size = write_marked(shape, marks, p, message, size)
        if not frame_size:
            return -1
        p += frame_size
    return p - frames


cdef Py_ssize_t _write_all_quiet(
    const Shape* shape,
    const Marks* marks,
    const QuickHead* heads,
    uint8_t* frames,
    Py_ssize_t space,
    list batch,
    Py_ssize_t count,
) noexcept:
    """Write messages that no escape changes; -1 at the first other one."""
    cdef Piece magic = piece_of(shape.magic, shape.magic_size)
    cdef Piece end = piece_of(marks.marks[marks.written].data, marks.marks[marks.written].size)
    cdef uint64_t low = max(shape.quick_low, <uint64_t>16)
    cdef uint64_t span = shape.quick_span - (low - shape.quick_low)
    cdef uint8_t* p = frames
    cdef const uint8_t* message
    cdef Py_ssize_t i, size
    if low - shape.quick_low > shape.quick_span:
        return -1
    for i in range(count):
        message = bytes_at(PyList_GET_ITEM(batch, i))
        size = _bytes_size(PyList_GET_ITEM(batch, i))
        if <uint64_t>size - low > span:
            return -1
        p = write_piece(p, &magic)
        if copy_and_look(p, message, size, marks.odd):
            return -1
        p = write_piece(p + size, &end)
    return p - frames


cdef Py_ssize_t _write_content(
    const Shape* shape,
    bint check_in_front,
    uint8_t* content,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept:
    """Write a message and its check, which an end mark follows, without escapes."""
    cdef Py_ssize_t check_size = shape.inner_check_size
    cdef Py_ssize_t start_size = shape.magic_size if shape.check.covers == COVERS_FRAME else 0
    copy(content + (check_size if check_in_front else 0), message, size)
    store_check(
        shape,
        content + (0 if check_in_front else size),
        checksum_of(shape, shape.magic, start_size, message, size),
    )
    return size + check_size


cdef list _marked_parts(layout, const Marks* marks, data):
    """Return the parts of the frame of a message of an allowed size."""
    cdef Py_buffer view
    if marks.skip_empty and not marks.stuffed and not len(data):
        raise _mark_texts.message_is_ignored()
    if layout.check is not None:
        data = content_of(layout, data, update_checksum)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        content = _changed(layout, marks, <const uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    if content is not None:
        data = content
    return [part for part in (layout.magic, data, layout.marks[0]) if len(part)]


cdef bytes _changed(layout, const Marks* marks, const uint8_t* message, Py_ssize_t size):
    """Return the content of a message that is changed in its frame; None if it is not."""
    cdef bytes content
    if marks.stuffed:
        content = PyBytes_FromStringAndSize(NULL, stuffed_size(message, size))
        stuff(message, size, <uint8_t*>PyBytes_AS_STRING(content))
        return content
    if marks.escape_count:
        content = PyBytes_FromStringAndSize(NULL, escaped_size(marks, message, size))
        escape(marks, message, size, <uint8_t*>PyBytes_AS_STRING(content))
        return content
    if not comes_back(marks, message, size):
        raise _mark_texts.message_holds_mark(layout)
    return None


# --- the fast path: ordinary messages of all other shapes -----------------------------------------

cdef Py_ssize_t _write_all(
    const Shape* shape,
    const Marks* marks,
    const QuickHead* heads,
    uint8_t* frames,
    Py_ssize_t space,
    list batch,
    Py_ssize_t count,
) noexcept:
    """Write messages of all other kinds but choices."""
    cdef uint8_t* p = frames
    cdef const uint8_t* message
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t first, size, frame_size
    while i < count:
        message = bytes_at(PyList_GET_ITEM(batch, i))
        size = _bytes_size(PyList_GET_ITEM(batch, i))
        if is_in_range(heads, size):
            if heads.run != NO_RUN:
                first = i
                i = _write_run(heads, heads.sure, 0, &p, batch, i, count)
                if i > first:
                    continue
            frame_size = write_quick(heads, shape, p, message, size)
        else:
            frame_size = heads.write_other(shape, p, message, size)
        if not frame_size:
            return -1
        p += frame_size
        i += 1
    return p - frames


cdef Py_ssize_t _write_run(
    const QuickHead* head,
    const uint8_t* sure,
    Py_ssize_t known,
    uint8_t** end,
    list batch,
    Py_ssize_t first,
    Py_ssize_t count,
) noexcept:
    """Write frames by a loop, as those of `_frame_runs.pxd` do."""
    cdef int how = head.pieces.how
    if head.run == LINE_RUN:
        return write_line_run(head, sure, known, end, batch, first, count)
    if head.is_short and head.frames.form > RUN_SIZED_BEFORE and (
        _bytes_size(PyList_GET_ITEM(batch, first)) < PIECE
    ):
        if how == SIZED_NONE:
            return write_tiny_run(head, sure, known, end, batch, first, count, SIZED_NONE)
        return write_tiny_run(head, sure, known, end, batch, first, count, how)
    return head.frames.write(
        &head.frames, sure, known, end, items_of(batch), first, count
    )


cdef Py_ssize_t _write_all_chosen(
    const Shape* shape,
    const Marks* marks,
    const QuickHead* heads,
    uint8_t* frames,
    Py_ssize_t space,
    list batch,
    Py_ssize_t count,
) noexcept:
    """Write the messages of a choice; a run of messages for one alternative is the quickest."""
    cdef uint8_t* p = frames
    cdef int number = 0
    cdef const QuickHead* head = heads
    cdef const uint8_t* message
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t first, size, frame_size
    while i < count:
        message = bytes_at(PyList_GET_ITEM(batch, i))
        size = _bytes_size(PyList_GET_ITEM(batch, i))
        frame_size = 0
        if is_in_range(head, size) and head.sure[message[shape.first_position]]:
            if head.is_certain and head.run != NO_RUN:
                first = i
                i = _write_run(head, head.sure, shape.first_position, &p, batch, i, count)
                if i > first:
                    continue
            frame_size = write_quick(head, shape.alternatives[number], p, message, size)
            if frame_size and not head.is_certain and (
                choose_early(head, shape, p, message) != number
            ):
                frame_size = 0
        if not frame_size:
            frame_size = heads.write_any(heads, shape, p, message, size, &number)
            if not frame_size:
                return -1
            head = heads + number
        p += frame_size
        i += 1
    return p - frames


cdef extern from *:
    """
    /* Returns the first bytes of an object that nothing else refers to, and takes it over. It keeps
       the memory where little of it is unused: glibc gives a large piece as new pages each time
       where the pieces that it gets back are smaller than those that it gives. */
    static PyObject *framecodec_shortened(PyObject *bytes, Py_ssize_t size)
    {
        Py_ssize_t unused = PyBytes_GET_SIZE(bytes) - size;
        if (unused > size / 8) {
            _PyBytes_Resize(&bytes, size);
        } else if (unused) {
            Py_SET_SIZE((PyVarObject *)bytes, size);
            PyBytes_AS_STRING(bytes)[size] = '\\0';
        }
        return bytes;
    }
    """
    object _shortened "framecodec_shortened" (PyObject*, Py_ssize_t)
    uint8_t* _writable "(uint8_t *)PyBytes_AS_STRING" (PyObject*) noexcept
    PyObject* _new_bytes "PyBytes_FromStringAndSize" (const char*, Py_ssize_t) except NULL
    void _drop "Py_DECREF" (PyObject*) noexcept


cdef bint is_block(const Shape* shape, message) except -1:
    """Return whether a `bytes` message is an ordinary header block and its body."""
    cdef const uint8_t* data
    cdef Py_ssize_t size, header_size
    cdef uint64_t value
    if not PyBytes_CheckExact(message) or shape.magic_size:
        return False
    data = <const uint8_t*>PyBytes_AS_STRING(message)
    size = PyBytes_GET_SIZE(message)
    header_size = try_header_block(shape, data, size, &value)
    return header_size >= 0 and <uint64_t>(size - header_size) == value


@cython.final
cdef class Encoder:
    """Encoder(codec)\n--\n
    Encode messages into frames. It has no state; one encoder serves all connections.

    Args:
        codec: The shape of the frames.

    Raises:
        TypeError: `codec` is not a `Codec`.
    """

    # An ordinary `bytes` message is written straight into its frame; `frame_parts` does the others.

    cdef object _layout
    cdef bytes _numbers
    cdef const Shape* _shape  # in _numbers
    cdef bytes _mark_numbers
    cdef const Marks* _marks  # DELIMITER, COBS: in _mark_numbers; else NULL
    cdef bytes _head_numbers
    cdef const QuickHead* _heads  # in _head_numbers
    cdef dict _special_values
    cdef bint _bytes_are_special  # some special object is bytes-like
    cdef bint _plain  # UINT, no special, and nothing else in the frame but the rest
    cdef _batch_writer _write_batch  # of all shapes but plain ones
    cdef Py_ssize_t _spare  # memory that it needs after the frames
    cdef bint _is_quick  # a message can be ordinary
    cdef bint _is_changed  # a message can be other bytes in its frame: escapes, byte stuffing
    cdef bint _may_be_quiet  # it is found at a glance that it is not
    cdef bint _checks_content  # a check by a function that has a name is before the end mark
    cdef bint _check_in_front  # of the content
    cdef Py_ssize_t _most_check_bytes
    cdef bint _may_choose  # a choice whose messages have no names
    cdef list _alternatives  # the encoders of a choice

    def __cinit__(self, codec):
        cdef Py_ssize_t longest = 1
        self._layout = layout = layout_of(codec)
        self._numbers = numbers_of(layout)
        self._shape = shape_in(self._numbers)
        self._mark_numbers = mark_numbers_of(layout)
        if self._mark_numbers is not None and layout.choice is None:
            self._marks = marks_in(self._mark_numbers)
        self._head_numbers = quick_heads_of(layout)
        self._heads = heads_in(self._head_numbers)
        self._special_values = layout.special_values
        self._bytes_are_special = layout.bytes_are_special
        self._plain = layout.plain and not (layout.rest_min or layout.adjustment or layout.specials)
        if layout.choice is not None:
            self._alternatives = [Encoder(Described(each)) for each in layout.choice.layouts]
            self._may_choose = not self._shape.tagged
        self._write_batch = _write_all
        self._spare = 0 if self._plain else SPARE
        if self._may_choose:
            self._write_batch = _write_all_chosen
        elif self._marks != NULL:
            self._is_changed = self._marks.stuffed or self._marks.escape_count
            self._write_batch = _write_all_changed if self._is_changed else _write_all_ended
            self._write_batch = _write_all_stuffed if self._marks.stuffed else self._write_batch
            self._may_be_quiet = self._marks.escape_count and self._marks.has_few_odd
        if self._marks != NULL and self._shape.has_check and self._shape.check.named:
            self._checks_content = True
            self._check_in_front = layout.check.position == "front"
            # The most that the check adds: as many escapes as it has bytes, or one block more.
            for _, sequence in layout.escape:
                longest = max(longest, <Py_ssize_t>len(sequence))
            self._most_check_bytes = (longest + 1) * layout.inner_check_size + 1
        self._is_quick = (
            self._shape.is_quick
            or self._may_choose
            or self._shape.joined
            or (self._shape.keep and not layout.bytes_are_special)
            or (self._marks != NULL and not self._shape.has_check)
        )

    def encode(self, message, /):
        """Return the frame of a message.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            MessageTooLargeError: The message is larger than ``max_message_size``, or than the
                largest size that the length field can hold.
            InvalidFrameError: The message is shorter than its lead, or the length field cannot hold
                its size.
            TypeError, BufferError: `message` is not a contiguous bytes-like object.
        """
        cdef Py_ssize_t size, most
        cdef const uint8_t* data
        cdef uint8_t* p
        cdef bytes frame
        cdef PyObject* frames
        cdef uint8_t short[SHORT_FRAME + SPARE]
        if PyBytes_CheckExact(message):
            size = PyBytes_GET_SIZE(message)
            if self._plain and size <= self._shape.message_max:
                frame = PyBytes_FromStringAndSize(NULL, self._shape.width + size)
                p = <uint8_t*>PyBytes_AS_STRING(frame)
                store(p, size, self._shape.width, self._shape.little)
                copy(p + self._shape.width, <const uint8_t*>PyBytes_AS_STRING(message), size)
                return frame
            if self._is_quick and size <= self._shape.message_max:
                data = <const uint8_t*>PyBytes_AS_STRING(message)
                most = self._most_bytes(data, size)
                if most <= SHORT_FRAME:
                    size = self._write_one(short, data, size)
                    if size:
                        return PyBytes_FromStringAndSize(<char*>short, size)
                else:
                    frames = _new_bytes(NULL, most)
                    size = self._write_one(_writable(frames), data, size)
                    if size:
                        return _shortened(frames, size)
                    _drop(frames)
            if self._checks_content:
                frame = self._encode_checked([message], 1, self._shape.message_max)
                if frame is not None:
                    return frame
        return b"".join(self.frame_parts(message))

    def encode_many(self, messages, /):
        """Return the joined frames of messages, in one allocation.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`, for the first bad message.
        """
        # A list that other code can change is copied: here where other threads may run, and
        # before the slow path, which runs the user's code.
        cdef bint shared = type(messages) is list and not OTHERS_MAY_RUN
        cdef list batch = messages if shared else list(messages)
        frames = self._encode_batch(batch, self._shape.message_max)
        if frames is not None:
            return frames
        return self._encode_any(list(batch) if shared else batch)

    def encode_small(self, list messages not None, Py_ssize_t largest, /):
        """Return `encode_many`, or None if not all messages are `bytes` of at most that size."""
        cdef list batch = list(messages) if OTHERS_MAY_RUN else messages
        return self._encode_batch(batch, min(largest, self._shape.message_max))

    cdef bytes _encode_batch(self, list batch, Py_ssize_t largest):
        """Return the frames of ordinary messages, or None to leave them to the slow path.

        One pass measures, one writes. No Python code runs between them, so that the list and the
        messages stay as they are.
        """
        cdef Py_ssize_t count = len(batch)
        cdef Py_ssize_t size
        cdef PyObject* frames
        if self._plain:
            size = self._measure_plain(batch, count, largest)
        else:
            if self._checks_content:
                return self._encode_checked(batch, count, largest)
            if self._may_be_quiet:
                quiet = self._encode_quiet(batch, count, largest)
                if quiet is not None:
                    return quiet
            size = self._measure(batch, count, largest, self._is_changed)
        if size < 0:
            return None
        frames = _new_bytes(NULL, size + self._spare)
        if self._plain:
            self._write_plain(_writable(frames), batch, count)
        else:
            size = self._write_batch(
                self._shape, self._marks, self._heads, _writable(frames), size, batch, count
            )
        if size < 0:
            _drop(frames)
            return None
        return _shortened(frames, size)

    cdef bytes _encode_quiet(self, list batch, Py_ssize_t count, Py_ssize_t largest):
        """Return the frames if no message is changed in its frame, else None."""
        cdef Py_ssize_t size = self._measure(batch, count, largest, False)
        cdef PyObject* frames
        if size < 0:
            return None
        frames = _new_bytes(NULL, size + self._spare)
        size = _write_all_quiet(
            self._shape, self._marks, self._heads, _writable(frames), size, batch, count
        )
        if size < 0:
            _drop(frames)
            return None
        return _shortened(frames, size)

    cdef bytes _encode_checked(self, list batch, Py_ssize_t count, Py_ssize_t largest):
        """Do the same where a check, by a function that has a name, is in the content."""
        cdef const Shape* shape = self._shape
        cdef Py_ssize_t check_size = shape.inner_check_size
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t longest = 0
        cdef Py_ssize_t i, size, frame_size
        cdef PyObject* message
        cdef PyObject* frames
        cdef uint8_t* p
        cdef uint8_t* content
        cdef bytes space
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            if not _is_bytes(message):
                return None
            size = _bytes_size(message)
            if size > largest or (not size and self._marks.skip_empty):
                return None
            longest = max(longest, size)
            size = self._most_bytes(bytes_at(message), size) + self._most_check_bytes
            if total > LARGEST_SIZE - size:
                return None  # pragma: no cover (more than a memory holds)
            total += size
        space = PyBytes_FromStringAndSize(NULL, longest + check_size)
        content = <uint8_t*>PyBytes_AS_STRING(space)
        frames = _new_bytes(NULL, total)
        p = _writable(frames)
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            size = _write_content(
                shape, self._check_in_front, content, bytes_at(message), _bytes_size(message)
            )
            frame_size = write_marked(shape, self._marks, p, content, size)
            if not frame_size:
                _drop(frames)
                return None
            p += frame_size
        return _shortened(frames, p - _writable(frames))

    cdef Py_ssize_t _measure_plain(
        self, list batch, Py_ssize_t count, Py_ssize_t largest
    ) noexcept:
        """Return the size of all frames, or -1 if a message is not ordinary or is too large."""
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
        return total + count * self._shape.width

    cdef void _write_plain(self, uint8_t* p, list batch, Py_ssize_t count) noexcept:
        cdef int width = self._shape.width
        cdef bint little = self._shape.little
        cdef Py_ssize_t i, size
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            size = _bytes_size(message)
            store(p, size, width, little)
            copy(p + width, bytes_at(message), size)
            p += width + size

    cdef Py_ssize_t _measure(
        self, list batch, Py_ssize_t count, Py_ssize_t largest, bint is_changed
    ) noexcept:
        """Return the same for all other shapes, or more: the most that the frames can need."""
        cdef Py_ssize_t owned = self._shape.owned_size
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t i, size, most
        cdef PyObject* message
        if not self._is_quick or count > LARGEST_SIZE // (owned + 1):
            return -1
        most = LARGEST_SIZE - count * owned
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            if not _is_bytes(message):
                return -1
            size = _bytes_size(message)
            if size > largest:
                return -1
            if is_changed:
                size = self._most_bytes(bytes_at(message), size) - owned
            total += size
            if total > most:
                return -1  # pragma: no cover (more than a memory holds)
        return total + count * owned

    cdef inline Py_ssize_t _most_bytes(self, const uint8_t* message, Py_ssize_t size) noexcept:
        """Return the most bytes that the frame of a message can need."""
        if self._marks != NULL:
            if self._marks.stuffed:
                size += size // 254
            elif self._marks.escape_count:
                size = escaped_size(self._marks, message, size)
        return size + self._shape.owned_size

    cdef inline Py_ssize_t _write_one(
        self, uint8_t* p, const uint8_t* message, Py_ssize_t size
    ) noexcept:
        """Write a frame and return its size, or 0 for the slow path."""
        if self._marks != NULL:
            return write_marked(self._shape, self._marks, p, message, size)
        if self._may_choose:
            return write_one_chosen(self._heads, self._shape, p, message, size)
        if is_in_range(self._heads, size):
            return write_quick(self._heads, self._shape, p, message, size)
        return self._heads.write_other(self._shape, p, message, size)

    cdef bytes _encode_any(self, list messages):
        cdef list parts = []
        for message in messages:
            parts += self.frame_parts(message)
        return b"".join(parts)

    def frame_parts(self, message, /):
        """Return a frame as a list of buffers, for ``sendmsg`` or ``writelines``.

        Joined they are the frame. The message is not copied, and no buffer is empty.

        Raises:
            FrameError, TypeError, BufferError: As for `encode`.
        """
        cdef Py_ssize_t size, carried, padding
        if self._shape.kind == CHOICE:
            return choice_parts(self._layout.choice, self._alternatives, message)
        if self._special_values and (self._bytes_are_special or not PyBytes_CheckExact(message)):
            special = self._special_value(message)
            if special is not None:
                return [self._layout.magic + self._field(special)]
        data = message if PyBytes_CheckExact(message) else view_bytes(message)
        size = len(data)
        if self._shape.joined:
            return joined_parts(self._layout, data)
        if self._marks != NULL:
            self._check_size(size)
            if size < self._layout.min_message_size:
                raise _error_texts.message_too_small(size, self._layout.min_message_size)
            return _marked_parts(self._layout, self._marks, data)
        if self._shape.kind == CUSTOM:
            self._check_size(size)
            if size < self._layout.min_message_size:
                raise _error_texts.message_too_small(size, self._layout.min_message_size)
            header, carried = build_header(self._layout, memoryview(data))
        elif self._shape.keep:
            self._check_size(size)
            if size < self._layout.min_message_size:
                raise _error_texts.message_too_small(size, self._layout.min_message_size)
            if not is_block(self._shape, data):
                check_block(self._layout, data)
            header, carried = self._layout.magic, 0
        else:
            carried = self._shape.message_lead
            value = self._field_value(size)
            if self._shape.extended:
                start = bytes(data[: self._layout.message_prefix])
                check_start(self._layout, start)
                header = join_header(self._layout, start, self._field(value))
                if self._shape.own_count:
                    carried = len(start)
            else:
                header = self._layout.magic + bytes(data[:carried]) + self._field(value)
        trailer = self._layout.trailer
        if self._shape.has_check:
            header, trailer = add_check(self._layout, header, data, carried, update_checksum)
        parts = [header] if header else []
        if carried < size:
            parts.append(data if not carried else memoryview(data)[carried:])
        if self._shape.tail_size:
            parts.append(trailer)
        padding = padding_of(self._shape, len(header) + size - carried + self._shape.tail_size)
        if padding:
            parts.append(bytes(padding))
        return parts

    # --- the slow path ----------------------------------------------------------------------------

    cdef object _special_value(self, message):
        cdef PyObject* value = PyDict_GetItemWithError(self._special_values, message)
        if value == NULL and _forget_bad_key():  # special only as the bytes that it has
            if not self._bytes_are_special:
                return None
            key = bytes(view_bytes(message))
            value = PyDict_GetItemWithError(self._special_values, key)
            if value == NULL and PyErr_Occurred() != NULL:
                _raise_what_is_set()  # no memory
        return None if value == NULL else <object>value

    cdef int _check_size(self, Py_ssize_t size) except -1:
        if size > self._shape.message_max:
            by_limit = self._shape.message_max >= self._layout.max_message_size
            raise _error_texts.message_too_large(
                size, self._shape.message_max, "max_message_size" if by_limit else "length field"
            )
        return 0

    cdef object _field_value(self, Py_ssize_t size):
        """Return the field's value for a message of a size."""
        cdef Py_ssize_t rest_size, value
        layout = self._layout
        if size < self._shape.message_lead:
            raise _error_texts.shorter_than_lead(size, self._shape.message_lead)
        if self._shape.kind == FIXED and size != layout.size:  # it has no lead
            raise _error_texts.message_of_other_size(size, layout.size)
        self._check_size(size)
        if size < layout.min_message_size:
            raise _error_texts.message_too_small(size, layout.min_message_size)
        rest_size = size - self._shape.message_lead
        value = rest_size - self._shape.adjustment
        if value < 0:
            raise _error_texts.unsayable_length(value, rest_size)
        if self._shape.unit != 1:
            if value % self._shape.unit:
                raise _error_texts.not_in_units(rest_size, layout.adjustment, layout.unit)
            value //= self._shape.unit
        has_wide = wide_field_for(self._shape, value) != NULL
        if value in layout.specials and not has_wide:
            raise _error_texts.length_is_special(value, layout.specials[value])
        if not (has_wide or shape_holds(self._shape, value)):
            raise _error_texts.length_not_held(value, layout.mask)
        return value

    cdef bytes _field(self, value):
        """Return the length field of a value."""
        layout = self._layout
        if self._shape.kind == UINT:
            width, order = self._shape.width, layout.byteorder
            wide = layout.wide_for(value) if self._shape.wide_count else None
            if wide:
                field = wide.key.to_bytes(width, order)
                return field + value.to_bytes(wide.width, "little" if wide.little else "big")
            return value.to_bytes(width, order, signed=layout.signed)
        if self._shape.kind == FIXED:
            return b""
        if self._shape.kind == VARINT:
            varint = bytearray()
            while value > 0x7F:
                varint.append(value & 0x7F | 0x80)
                value >>= 7
            varint.append(value)
            return bytes(varint)
        if self._shape.kind == BER:
            if value < 0x80:
                return bytes([value])
            size = (value.bit_length() + 7) // 8
            return bytes([0x80 | size]) + value.to_bytes(size, "big")
        digits = f"{value:x}" if self._shape.base == 16 else str(value)
        if self._shape.kind == DIGITS:
            return digits.zfill(self._shape.width).encode()
        if self._shape.kind == BCD:
            return bytes.fromhex(digits.zfill(2 * self._shape.width))
        if self._shape.kind == TEXT:
            return digits.encode() + layout.end
        return layout.field_start + digits.encode() + layout.field_end


def update_checksum(int number, uint32_t state, data, /):
    """Return the state of a checksum after more bytes.

    Args:
        number: The number of the function, as in `framecodec._check.CHECKSUMS`.
        state: The state before them.
        data: The bytes.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    state = update_state(number, state, <const uint8_t*>view.buf, view.len)
    PyBuffer_Release(&view)
    return state


@cython.final
cdef class ObjectEncoder:
    """ObjectEncoder(dumps, encoder)\n--\n
    Encode objects: `dumps` makes messages of them, an `Encoder` makes frames of the messages.

    Args:
        dumps: A function of an object that returns a message.
        encoder: Its methods are called with the messages.
    """

    cdef object _dumps
    cdef Encoder _encoder

    def __cinit__(self, dumps, Encoder encoder not None):
        self._dumps = dumps
        self._encoder = encoder

    def encode(self, message, /):
        """Return the frame of an object.

        Raises:
            BaseException: What `dumps` raises.
            FrameError, TypeError, BufferError: As `Encoder.encode`, for what `dumps` returns.
        """
        return self._encoder.encode(self._dumps(message))

    def encode_many(self, messages, /):
        """Return the joined frames of objects.

        Raises:
            TypeError: `messages` is one message.
            BaseException: As `encode`, for the first object that fails.
        """
        refuse_one_message(messages, "encode")
        dumps = self._dumps
        return self._encoder.encode_many([dumps(message) for message in messages])

    def frame_parts(self, message, /):
        """Return the frame of an object as a list of buffers.

        Raises:
            As `encode`.
        """
        return self._encoder.frame_parts(self._dumps(message))


remember_module_state()
