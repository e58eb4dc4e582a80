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
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t

from ._numbers cimport (
    CUSTOM,
    DIGITS,
    HEADERS,
    LARGEST_SIZE,
    Shape,
    TEXT,
    UINT,
    VARINT,
    bytes_at,
    copy,
    numbers_of,
    shape_in,
    store,
    store_digits,
    store_varint,
)

from . import _error_texts
from ._bytes_like import view_bytes
from ._custom_header import build_header
from ._layout import layout_of

__all__ = ["Encoder"]


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


@cython.final
cdef class Encoder:
    """Encoder(codec)\n--\n
    Encode messages into frames. It has no state; one encoder serves all connections.

    Args:
        codec: The shape of the frames.

    Raises:
        TypeError: `codec` is not a `Codec`.
    """

    # A `bytes` message of an ordinary length is written straight into its frame. `frame_parts` is
    # the slow path for all other messages, and raises the errors.

    cdef object _layout
    cdef bytes _numbers
    cdef const Shape* _shape  # in _numbers
    cdef dict _special_values
    cdef bint _bytes_are_special  # some special object is bytes-like
    cdef bint _plain  # UINT, no special, and nothing else in the frame but the rest

    def __cinit__(self, codec):
        self._layout = layout = layout_of(codec)
        self._numbers = numbers_of(layout)
        self._shape = shape_in(self._numbers)
        self._special_values = layout.special_values
        self._bytes_are_special = layout.bytes_are_special
        self._plain = layout.plain and not layout.adjustment and not layout.specials

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
        cdef uint64_t value
        cdef Py_ssize_t size, frame_size
        cdef uint8_t* p
        cdef bytes frame
        if PyBytes_CheckExact(message):
            size = PyBytes_GET_SIZE(message)
            if self._plain and size <= self._shape.message_max:
                frame = PyBytes_FromStringAndSize(NULL, self._shape.width + size)
                p = <uint8_t*>PyBytes_AS_STRING(frame)
                store(p, size, self._shape.width, self._shape.little)
                copy(p + self._shape.width, <const uint8_t*>PyBytes_AS_STRING(message), size)
                return frame
            frame_size = self._try_frame_size(size, &value)
            if frame_size:
                frame = PyBytes_FromStringAndSize(NULL, frame_size)
                p = <uint8_t*>PyBytes_AS_STRING(frame)
                self._write_frame(p, <const uint8_t*>PyBytes_AS_STRING(message), size, value)
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
        cdef uint64_t value
        cdef PyObject* message
        for i in range(count):
            message = PyList_GET_ITEM(batch, i)
            size = _bytes_size(message)
            value = size - self._shape.lead_size - self._shape.adjustment
            p += self._write_frame(p, bytes_at(message), size, value)

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
        cdef Py_ssize_t size, carried
        if self._special_values and (self._bytes_are_special or not PyBytes_CheckExact(message)):
            special = self._special_value(message)
            if special is not None:
                return [self._layout.magic + self._field(special)]
        data = message if PyBytes_CheckExact(message) else view_bytes(message)
        size = len(data)
        if self._shape.kind == CUSTOM:
            self._check_size(size)
            header, carried = build_header(self._layout, memoryview(data))
        else:
            carried = self._shape.lead_size
            value = self._field_value(size)
            header = self._layout.magic + bytes(data[:carried]) + self._field(value)
        parts = [header]
        if carried < size:
            parts.append(data if not carried else memoryview(data)[carried:])
        if self._shape.trailer_size:
            parts.append(self._layout.trailer)
        return parts

    # --- the fast path: one pass that measures, one that writes -----------------------------------

    cdef inline Py_ssize_t _try_frame_size(self, Py_ssize_t size, uint64_t* value) noexcept:
        """Return the frame's size for a `bytes` message of a size, or 0 for the slow path."""
        cdef Py_ssize_t needed = size - self._shape.lead_size - self._shape.adjustment
        if (
            size < self._shape.lead_size
            or needed < 0
            or <uint64_t>needed - self._shape.quick_low > self._shape.quick_span
            or self._shape.kind >= HEADERS
            or self._bytes_are_special
        ):
            return 0
        value[0] = <uint64_t>needed
        size += self._shape.magic_size + self._shape.trailer_size
        return size + self._field_size(<uint64_t>needed)

    cdef inline Py_ssize_t _field_size(self, uint64_t value) noexcept:
        cdef Py_ssize_t size = 1
        if self._shape.kind == UINT or self._shape.kind == DIGITS:
            return self._shape.width
        if self._shape.kind == VARINT:
            while value > 0x7F:
                value >>= 7
                size += 1
            return size
        while value >= <uint64_t>self._shape.base:
            value //= self._shape.base
            size += 1
        return size + self._shape.end_size

    cdef inline Py_ssize_t _write_frame(
        self, uint8_t* frame, const uint8_t* message, Py_ssize_t size, uint64_t value
    ) noexcept:
        """Write a frame that was measured; return its size."""
        cdef uint8_t* p = frame
        cdef Py_ssize_t field_size
        if self._shape.magic_size:
            copy(p, self._shape.magic, self._shape.magic_size)
            p += self._shape.magic_size
        if self._shape.lead_size:
            copy(p, message, self._shape.lead_size)
            p += self._shape.lead_size
        field_size = self._field_size(value)
        if self._shape.kind == UINT:
            store(p, value, self._shape.width, self._shape.little)
        elif self._shape.kind == VARINT:
            store_varint(p, value)
        else:
            store_digits(p, value, field_size - self._shape.end_size, self._shape.base)
            if self._shape.end_size:
                copy(p + field_size - self._shape.end_size, self._shape.end, self._shape.end_size)
        p += field_size
        copy(p, message + self._shape.lead_size, size - self._shape.lead_size)
        p += size - self._shape.lead_size
        if self._shape.trailer_size:
            copy(p, self._shape.trailer, self._shape.trailer_size)
            p += self._shape.trailer_size
        return p - frame

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
        if size < self._shape.lead_size:
            raise _error_texts.shorter_than_lead(size, self._shape.lead_size)
        self._check_size(size)
        rest_size = size - self._shape.lead_size
        value = rest_size - self._shape.adjustment
        if value < 0:
            raise _error_texts.unsayable_length(value, rest_size)
        if value in self._layout.specials:
            raise _error_texts.length_is_special(value, self._layout.specials[value])
        return value

    cdef bytes _field(self, value):
        """Return the length field of a value."""
        if self._shape.kind == UINT:
            layout = self._layout
            return value.to_bytes(self._shape.width, layout.byteorder, signed=layout.signed)
        if self._shape.kind == VARINT:
            field = bytearray()
            while value > 0x7F:
                field.append(value & 0x7F | 0x80)
                value >>= 7
            field.append(value)
            return bytes(field)
        digits = f"{value:x}" if self._shape.base == 16 else str(value)
        if self._shape.kind == DIGITS:
            return digits.zfill(self._shape.width).encode()
        if self._shape.kind == TEXT:
            return digits.encode() + self._layout.end
        return f"{self._layout.name}: {value}\r\n\r\n".encode()
