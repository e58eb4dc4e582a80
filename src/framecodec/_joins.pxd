# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Messages of one fragment, for the compiled encoder: measured and written. See _joined.py."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

from ._numbers cimport (
    BCD,
    LARGEST_SIZE,
    Shape,
    UINT,
    bytes_at,
    copy,
    shape_holds,
    store,
    store_bcd,
    store_digits,
)

cdef extern from "Python.h":
    PyObject* _list_item "PyList_GET_ITEM" (list, Py_ssize_t) noexcept
    bint _is_a_bytes "PyBytes_CheckExact" (PyObject*) noexcept
    Py_ssize_t _size_of "PyBytes_GET_SIZE" (PyObject*) noexcept


cdef inline Py_ssize_t fragment_size_of(
    const Shape* shape, const uint8_t* message, Py_ssize_t size
) noexcept:
    """Return the size of the only fragment of a message, or 0 for the slow path."""
    cdef Py_ssize_t content_size = size - shape.first_size
    cdef Py_ssize_t value = content_size + shape.strip - shape.message_lead - shape.adjustment
    cdef int i
    if content_size < 0 or content_size > shape.fragment_size or content_size == shape.full:
        return 0
    if value < 0 or value % shape.unit:
        return 0
    value //= shape.unit
    if <uint64_t>value - shape.quick_low > shape.quick_span:
        return 0
    if not shape_holds(shape, <uint64_t>value):
        return 0
    if shape.first_size:
        for i in range(shape.constant_count):
            if memcmp(
                message + shape.constants[i].position,
                shape.constants[i].data,
                shape.constants[i].size,
            ):
                return 0
        for i in range(shape.kept_size):
            if message[shape.lead_size + i] & ~shape.kept_bits[i]:
                return 0
        if shape.last_mask and message[shape.last_position] & shape.last_mask:
            return 0
    return shape.head_size + content_size + shape.trailer_size


cdef inline Py_ssize_t write_fragment(
    const Shape* shape, uint8_t* frame, const uint8_t* message, Py_ssize_t size
) noexcept:
    """Write a fragment that was measured; return its size."""
    cdef Py_ssize_t content_size = size - shape.first_size
    cdef uint64_t value = <uint64_t>(
        content_size + shape.strip - shape.message_lead - shape.adjustment
    ) // <uint64_t>shape.unit
    cdef const uint8_t* before = message if shape.first_size else shape.blank
    cdef uint8_t* p = frame
    cdef int i
    copy(p, shape.magic, shape.magic_size)
    p += shape.magic_size
    copy(p, before, shape.lead_size)
    p += shape.lead_size
    if shape.kind == UINT:
        store(p, value, shape.width, shape.little)
        for i in range(shape.kept_size):
            p[shape.kept[i]] |= before[shape.lead_size + i]
    elif shape.kind == BCD:
        store_bcd(p, value, shape.width)
    else:
        store_digits(p, value, shape.width, shape.base)
    p += shape.width
    copy(p, before + shape.message_lead, shape.strip - shape.message_lead)
    p = frame + shape.head_size
    if shape.last_mask:
        frame[shape.last_offset] |= shape.last_value
    copy(p, message + shape.first_size, content_size)
    p += content_size
    copy(p, shape.trailer, shape.trailer_size)
    return p - frame + shape.trailer_size


cdef inline Py_ssize_t measure_fragments(
    const Shape* shape, list batch, Py_ssize_t count, Py_ssize_t largest
) noexcept:
    """Return the size of all frames, or -1 if a message is not ordinary or is too large."""
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t i, frame_size
    cdef PyObject* message
    for i in range(count):
        message = _list_item(batch, i)
        if not _is_a_bytes(message) or _size_of(message) > largest:
            return -1
        frame_size = fragment_size_of(shape, bytes_at(message), _size_of(message))
        if not frame_size or total > LARGEST_SIZE - frame_size:
            return -1
        total += frame_size
    return total


cdef inline void write_fragments(
    const Shape* shape, uint8_t* p, list batch, Py_ssize_t count
) noexcept:
    cdef Py_ssize_t i
    cdef PyObject* message
    for i in range(count):
        message = _list_item(batch, i)
        p += write_fragment(shape, p, bytes_at(message), _size_of(message))
