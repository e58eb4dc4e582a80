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
from libc.string cimport memcmp, memset

from ._block_scan cimport try_header_block
from ._checksums cimport prepare_checksums, update_state, write_ends
from ._joins cimport (
    fragment_size_of,
    measure_fragments,
    write_fragment,
    write_fragments,
)
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
from ._numbers cimport (
    BCD,
    BER,
    CHOICE,
    ChoiceNode,
    CUSTOM,
    DIGITS,
    FIXED,
    HEADERS,
    LARGEST_SIZE,
    NOTHING,
    Shape,
    TEXT,
    UINT,
    VARINT,
    WideField,
    bytes_at,
    copy,
    numbers_of,
    padding_of,
    shape_holds,
    shape_in,
    store,
    store_bcd,
    store_ber,
    store_digits,
    store_varint,
    wide_field_for,
)

from . import _error_texts, _mark_texts
from ._bytes_like import view_bytes
from ._check_bytes import add_check
from ._choice import choice_parts
from ._custom_header import build_header
from ._header_block import check_block
from ._joined import joined_parts
from ._layout import Described, layout_of
from ._message_start import check_start, join_header

__all__ = ["Encoder", "ObjectEncoder", "update_checksum"]

prepare_checksums()


cdef extern from "Python.h":
    # Items of a list of messages are borrowed, which saves two counts a message.
    PyObject* PyList_GET_ITEM(list, Py_ssize_t) noexcept
    bint _is_bytes "PyBytes_CheckExact" (PyObject*) noexcept
    Py_ssize_t _bytes_size "PyBytes_GET_SIZE" (PyObject*) noexcept


cdef int _raise_what_is_set() except -1:
    return -1


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


cdef bint _fits(const Shape* shape, const uint8_t* message) noexcept:
    """Return whether a message has the constants, and no bits of the length field."""
    cdef int i
    for i in range(shape.constant_count):
        if memcmp(
            message + shape.constants[i].position,
            shape.constants[i].data,
            shape.constants[i].size,
        ):
            return False
    for i in range(shape.kept_size):
        if message[shape.lead_size + i] & ~shape.kept_bits[i]:
            return False
    for i in range(shape.own_count):
        if message[shape.own[i].position] & shape.own[i].mask:
            return False
    return True


cdef inline void _write_uint(
    const Shape* shape, uint8_t* p, const uint8_t* message, uint64_t value
) noexcept:
    cdef const WideField* wide = wide_field_for(shape, value)
    cdef int i
    if wide == NULL:
        store(p, value, shape.width, shape.little)
    else:
        store(p, wide.key, shape.width, shape.little)
        store(p + shape.width, value, wide.width, wide.little)
    for i in range(shape.kept_size):
        p[shape.kept[i]] |= message[shape.lead_size + i]


# --- frames that an end mark ends -----------------------------------------------------------------

cdef Py_ssize_t _measure_marked(
    const Shape* shape, const Marks* marks, list batch, Py_ssize_t count, Py_ssize_t largest
) noexcept:
    """Return the size of all frames, or -1 if a message is not ordinary or is too large."""
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t i, frame_size
    cdef PyObject* message
    for i in range(count):
        message = PyList_GET_ITEM(batch, i)
        if not _is_bytes(message) or _bytes_size(message) > largest:
            return -1
        frame_size = _marked_size(shape, marks, bytes_at(message), _bytes_size(message))
        if not frame_size or total > LARGEST_SIZE - frame_size:
            return -1
        total += frame_size
    return total


cdef void _write_all_marked(
    const Shape* shape, const Marks* marks, uint8_t* p, list batch, Py_ssize_t count
) noexcept:
    cdef Py_ssize_t i
    cdef PyObject* message
    for i in range(count):
        message = PyList_GET_ITEM(batch, i)
        p += _write_marked(shape, marks, p, bytes_at(message), _bytes_size(message))


cdef inline Py_ssize_t _marked_size(
    const Shape* shape, const Marks* marks, const uint8_t* message, Py_ssize_t size
) noexcept:
    """Return the size of a frame that an end mark ends, or 0 for the slow path."""
    cdef Py_ssize_t owned = shape.magic_size + marks.marks[marks.written].size
    if <uint64_t>size - shape.quick_low > shape.quick_span:
        return 0
    if marks.stuffed:
        return owned + stuffed_size(message, size)
    if not size and marks.skip_empty:
        return 0
    if marks.escape_count:
        return owned + escaped_size(marks, message, size)
    return owned + size if comes_back(marks, message, size) else 0


cdef inline Py_ssize_t _write_marked(
    const Shape* shape,
    const Marks* marks,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept:
    """Write a frame that was measured; return its size."""
    cdef uint8_t* p = frame
    if shape.magic_size:
        copy(p, shape.magic, shape.magic_size)
        p += shape.magic_size
    if marks.stuffed:
        p = stuff(message, size, p)
    elif marks.escape_count:
        p = escape(marks, message, size, p)
    else:
        copy(p, message, size)
        p += size
    copy(p, marks.marks[marks.written].data, marks.marks[marks.written].size)
    return p - frame + marks.marks[marks.written].size


cdef list _marked_parts(layout, const Marks* marks, data):
    """Return the parts of the frame of a message of an allowed size."""
    cdef Py_buffer view
    if marks.skip_empty and not marks.stuffed and not len(data):
        raise _mark_texts.message_is_ignored()
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


cdef bytes _field(layout, const Shape* shape, value):
    """Return the length field of a value."""
    if shape.kind == UINT:
        width, order = shape.width, layout.byteorder
        wide = layout.wide_for(value) if shape.wide_count else None
        if wide:
            field = wide.key.to_bytes(width, order)
            return field + value.to_bytes(wide.width, "little" if wide.little else "big")
        return value.to_bytes(width, order, signed=layout.signed)
    if shape.kind == FIXED:
        return b""
    if shape.kind == VARINT:
        varint = bytearray()
        while value > 0x7F:
            varint.append(value & 0x7F | 0x80)
            value >>= 7
        varint.append(value)
        return bytes(varint)
    if shape.kind == BER:
        if value < 0x80:
            return bytes([value])
        size = (value.bit_length() + 7) // 8
        return bytes([0x80 | size]) + value.to_bytes(size, "big")
    digits = f"{value:x}" if shape.base == 16 else str(value)
    if shape.kind == DIGITS:
        return digits.zfill(shape.width).encode()
    if shape.kind == BCD:
        return bytes.fromhex(digits.zfill(2 * shape.width))
    if shape.kind == TEXT:
        return digits.encode() + layout.end
    return layout.field_start + digits.encode() + layout.field_end


cdef class Encoder


@cython.final
cdef class _Alternatives:
    """The encoders of the alternatives of a choice."""

    cdef const Shape* root  # of the choice
    cdef list encoders
    cdef Py_ssize_t last_offset  # of the bytes that choose

    def __cinit__(self, layout):
        self.root = shape_in(layout.numbers)
        self.encoders = [Encoder(Described(each)) for each in layout.choice.layouts]
        self.last_offset = max(node.offset for node in layout.choice.nodes)

    cdef Py_ssize_t measure(self, list batch, Py_ssize_t count, Py_ssize_t largest):
        """Return the same for a choice."""
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t i, frame_size
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            if not _is_bytes(message) or _bytes_size(message) > largest:
                return -1
            if self.chosen(bytes_at(message), _bytes_size(message), &frame_size) is None:
                return -1
            if total > LARGEST_SIZE - frame_size:
                return -1
            total += frame_size
        return total

    cdef int write(self, uint8_t* p, list batch, Py_ssize_t count) except -1:
        cdef Py_ssize_t i, frame_size
        cdef PyObject* message
        cdef Encoder encoder
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            encoder = self.chosen(bytes_at(message), _bytes_size(message), &frame_size)
            p += encoder._write_frame(p, bytes_at(message), _bytes_size(message))
        return 0

    cdef Encoder chosen(self, const uint8_t* message, Py_ssize_t size, Py_ssize_t* frame_size):
        """Return the encoder of the first alternative that a message's frame chooses.

        None leaves the message to the slow path.
        """
        cdef const Shape* root = self.root
        cdef Encoder encoder
        cdef Py_ssize_t pos
        cdef int i
        for i in range(root.alternative_count):
            pos = root.gates[i].position
            if 0 <= pos < size and not root.gates[i].allowed[message[pos]]:
                continue
            encoder = <Encoder>PyList_GET_ITEM(self.encoders, i)
            if encoder._shape.kind >= HEADERS or encoder._special_values:
                return None
            if encoder._shape.has_check and self.last_offset >= encoder._shape.field_offset:
                return None
            frame_size[0] = encoder._try_frame_size(message, size)
            if frame_size[0] and _chooses(encoder, root, i, message, size):
                return encoder
        return None


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
    cdef dict _special_values
    cdef bint _bytes_are_special  # some special object is bytes-like
    cdef bint _joined  # a message may have several frames
    cdef bint _always_slow  # one of these, or a function of the user's computes the check
    cdef bint _plain  # UINT, no special, and nothing else in the frame but the rest
    cdef bint _may_choose  # a choice whose messages have no names
    cdef _Alternatives _alternatives  # of a choice

    def __cinit__(self, codec):
        self._layout = layout = layout_of(codec)
        self._numbers = numbers_of(layout)
        self._shape = shape_in(self._numbers)
        self._mark_numbers = mark_numbers_of(layout)
        if self._mark_numbers is not None:
            self._marks = marks_in(self._mark_numbers)
        self._special_values = layout.special_values
        self._bytes_are_special = layout.bytes_are_special
        own_check = self._shape.has_check and not self._shape.check.named
        self._joined = self._shape.joined
        self._always_slow = layout.bytes_are_special or own_check or self._joined
        self._plain = layout.plain and not (layout.rest_min or layout.adjustment or layout.specials)
        if layout.choice is not None:
            self._alternatives = _Alternatives(layout)
            self._may_choose = not self._shape.tagged

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
        cdef Py_ssize_t size, frame_size
        cdef const uint8_t* data
        cdef uint8_t* p
        cdef bytes frame
        cdef Encoder encoder
        if PyBytes_CheckExact(message):
            size = PyBytes_GET_SIZE(message)
            if self._plain and size <= self._shape.message_max:
                frame = PyBytes_FromStringAndSize(NULL, self._shape.width + size)
                p = <uint8_t*>PyBytes_AS_STRING(frame)
                store(p, size, self._shape.width, self._shape.little)
                copy(p + self._shape.width, <const uint8_t*>PyBytes_AS_STRING(message), size)
                return frame
            data = <const uint8_t*>PyBytes_AS_STRING(message)
            if self._may_choose:
                encoder = self._alternatives.chosen(data, size, &frame_size)
                if encoder is not None:
                    frame = PyBytes_FromStringAndSize(NULL, frame_size)
                    encoder._write_frame(<uint8_t*>PyBytes_AS_STRING(frame), data, size)
                    return frame
                return b"".join(self.frame_parts(message))
            frame_size = self._try_frame_size(data, size)
            if frame_size:
                frame = PyBytes_FromStringAndSize(NULL, frame_size)
                self._write_frame(<uint8_t*>PyBytes_AS_STRING(frame), data, size)
                return frame
            if self._marks != NULL:
                frame_size = _marked_size(self._shape, self._marks, data, size)
                if frame_size:
                    frame = PyBytes_FromStringAndSize(NULL, frame_size)
                    p = <uint8_t*>PyBytes_AS_STRING(frame)
                    _write_marked(self._shape, self._marks, p, data, size)
                    return frame
            if self._joined:
                frame_size = fragment_size_of(self._shape, data, size)
                if frame_size:
                    frame = PyBytes_FromStringAndSize(NULL, frame_size)
                    write_fragment(self._shape, <uint8_t*>PyBytes_AS_STRING(frame), data, size)
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
        cdef bytes frames
        if self._plain:
            size = self._measure_plain(batch, count, largest)
        elif self._marks != NULL:
            size = _measure_marked(self._shape, self._marks, batch, count, largest)
        elif self._may_choose:
            size = self._alternatives.measure(batch, count, largest)
        elif self._joined:
            size = measure_fragments(self._shape, batch, count, largest)
        else:
            size = self._measure(batch, count, largest)
        if size < 0:
            return None
        frames = PyBytes_FromStringAndSize(NULL, size)
        if self._plain:
            self._write_plain(<uint8_t*>PyBytes_AS_STRING(frames), batch, count)
        elif self._marks != NULL:
            _write_all_marked(
                self._shape, self._marks, <uint8_t*>PyBytes_AS_STRING(frames), batch, count
            )
        elif self._may_choose:
            self._alternatives.write(<uint8_t*>PyBytes_AS_STRING(frames), batch, count)
        elif self._joined:
            write_fragments(self._shape, <uint8_t*>PyBytes_AS_STRING(frames), batch, count)
        else:
            self._write(<uint8_t*>PyBytes_AS_STRING(frames), batch, count)
        return frames

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

    cdef Py_ssize_t _measure(self, list batch, Py_ssize_t count, Py_ssize_t largest) noexcept:
        """Return the same for all other shapes."""
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t i, frame_size
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            if not _is_bytes(message) or _bytes_size(message) > largest:
                return -1
            frame_size = self._try_frame_size(bytes_at(message), _bytes_size(message))
            if not frame_size or total > LARGEST_SIZE - frame_size:
                return -1
            total += frame_size
        return total

    cdef void _write(self, uint8_t* p, list batch, Py_ssize_t count) noexcept:
        cdef Py_ssize_t i
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            p += self._write_frame(p, bytes_at(message), _bytes_size(message))

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
            return choice_parts(self._layout.choice, self._alternatives.encoders, message)
        if self._special_values and (self._bytes_are_special or not PyBytes_CheckExact(message)):
            special = self._special_value(message)
            if special is not None:
                return [self._layout.magic + _field(self._layout, self._shape, special)]
        data = message if PyBytes_CheckExact(message) else view_bytes(message)
        size = len(data)
        if self._joined:
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
            field = _field(self._layout, self._shape, self._field_value(size))
            if self._shape.extended:
                start = bytes(data[: self._layout.message_prefix])
                check_start(self._layout, start)
                header = join_header(self._layout, start, field)
                if self._shape.own_count:
                    carried = len(start)
            else:
                header = self._layout.magic + bytes(data[:carried]) + field
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

    # --- the fast path: one pass that measures, one that writes -----------------------------------

    cdef inline Py_ssize_t _try_frame_size(
        self, const uint8_t* message, Py_ssize_t size
    ) noexcept:
        """Return the frame's size for a `bytes` message, or 0 for the slow path."""
        cdef const Shape* shape = self._shape
        cdef Py_ssize_t needed = size - shape.message_lead - shape.adjustment
        if size < shape.message_lead or needed < 0:
            return 0
        if shape.unit != 1:
            if needed % shape.unit:
                return 0
            needed //= shape.unit
        if (
            <uint64_t>needed - shape.quick_low > shape.quick_span
            or shape.kind > HEADERS
            or shape.keep
            or self._always_slow
        ):
            return 0
        if shape.constant_count or shape.kept_size or shape.own_count:
            if not _fits(shape, message):
                return 0
        if shape.wide_count or <uint64_t>needed & ~shape.mask:
            if (
                not shape_holds(shape, <uint64_t>needed)
                and wide_field_for(shape, <uint64_t>needed) == NULL
            ):
                return 0
        size += shape.magic_size + shape.front_check_size + shape.tail_size - shape.kept_size
        size += self._field_size(<uint64_t>needed)
        return size + padding_of(shape, size)

    cdef inline Py_ssize_t _field_size(self, uint64_t value) noexcept:
        cdef const Shape* shape = self._shape
        cdef const WideField* wide
        cdef Py_ssize_t size = 1
        if shape.kind == UINT:
            wide = wide_field_for(shape, value)
            return shape.width if wide == NULL else shape.width + wide.width
        if shape.kind == DIGITS or shape.kind == BCD:
            return shape.width
        if shape.kind == FIXED:
            return 0
        if shape.kind == VARINT:
            while value > 0x7F:
                value >>= 7
                size += 1
            return size
        if shape.kind == BER:
            if value > 0x7F:
                while value:
                    value >>= 8
                    size += 1
            return size
        while value >= <uint64_t>shape.base:
            value //= shape.base
            size += 1
        return size + shape.end_size + shape.field_start_size

    cdef inline Py_ssize_t _write_frame(
        self, uint8_t* frame, const uint8_t* message, Py_ssize_t size
    ) noexcept:
        """Write a frame that was measured; return its size."""
        cdef const Shape* shape = self._shape
        cdef uint8_t* p = frame
        cdef Py_ssize_t field_size, padding
        cdef int i
        cdef uint64_t value = <uint64_t>(size - shape.message_lead - shape.adjustment)
        if shape.unit != 1:
            value //= <uint64_t>shape.unit
        if shape.magic_size:
            copy(p, shape.magic, shape.magic_size)
            p += shape.magic_size
        if shape.lead_size:
            copy(p, message, shape.lead_size)
            p += shape.lead_size
        field_size = self._field_size(value)
        self._write_field(p, message, value, field_size)
        p += field_size
        p += shape.front_check_size
        copy(p, message + shape.message_lead, size - shape.message_lead)
        p += size - shape.message_lead
        if shape.has_ends:
            write_ends(shape, frame, p, message, size)
            p += shape.tail_size
        for i in range(shape.own_count):
            frame[shape.own[i].offset] |= shape.own[i].value
        padding = padding_of(shape, p - frame)
        if padding:
            memset(p, 0, padding)
        return p - frame + padding

    cdef inline void _write_field(
        self, uint8_t* p, const uint8_t* message, uint64_t value, Py_ssize_t field_size
    ) noexcept:
        cdef const Shape* shape = self._shape
        if shape.kind == UINT:
            _write_uint(shape, p, message, value)
        elif shape.kind == VARINT:
            store_varint(p, value)
        elif shape.kind == BER:
            store_ber(p, value, field_size)
        elif shape.kind == BCD:
            store_bcd(p, value, field_size)
        elif shape.kind != FIXED:
            if shape.field_start_size:
                copy(p, shape.field_start, shape.field_start_size)
                p += shape.field_start_size
                field_size -= shape.field_start_size
            store_digits(p, value, field_size - shape.end_size, shape.base)
            if shape.end_size:
                copy(p + field_size - shape.end_size, shape.end, shape.end_size)

    # --- the slow path ----------------------------------------------------------------------------

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
        if self._shape.kind == FIXED and size != layout.size + self._shape.message_lead:
            raise _error_texts.message_of_other_size(size, layout.size + self._shape.message_lead)
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


# --- choices --------------------------------------------------------------------------------------


cdef bint _chooses(
    Encoder encoder, const Shape* root, int number, const uint8_t* message, Py_ssize_t size
) noexcept:
    """Return whether the frame of a message, which was measured, chooses an alternative."""
    cdef const ChoiceNode* node = root.nodes
    cdef int found
    while True:
        found = node.nexts[_frame_byte(encoder, node.offset, message, size)]
        if found >= 0 or found == NOTHING:
            return found == number
        node = root.nodes + (-1 - found)


cdef uint8_t _frame_byte(
    Encoder encoder, Py_ssize_t offset, const uint8_t* message, Py_ssize_t size
) noexcept:
    """Return the byte at an offset of a frame that is not written yet."""
    cdef const Shape* shape = encoder._shape
    cdef uint8_t field[128]
    cdef uint64_t value
    cdef Py_ssize_t pos
    cdef uint8_t byte = 0
    cdef int i
    if offset < shape.magic_size:
        byte = shape.magic[offset]
    elif offset < shape.field_offset:
        byte = message[offset - shape.magic_size]
    else:
        value = <uint64_t>(size - shape.message_lead - shape.adjustment) // shape.unit
        pos = encoder._field_size(value)
        if offset < shape.field_offset + pos:
            encoder._write_field(field, message, value, pos)
            byte = field[offset - shape.field_offset]
        else:
            pos = offset - shape.field_offset - pos + shape.message_lead
            if pos < size:
                byte = message[pos]
            elif pos < size + shape.trailer_size:
                byte = shape.trailer[pos - size]
    for i in range(shape.own_count):
        if shape.own[i].offset == offset:
            byte |= shape.own[i].value
    return byte


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
            As `encode`, for the first object that fails.
        """
        dumps = self._dumps
        return self._encoder.encode_many([dumps(message) for message in messages])

    def frame_parts(self, message, /):
        """Return the frame of an object as a list of buffers.

        Raises:
            As `encode`.
        """
        return self._encoder.frame_parts(self._dumps(message))
