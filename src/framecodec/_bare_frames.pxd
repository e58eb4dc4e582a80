# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Read frames that have nothing but a lead, a binary length and the rest: see `Shape.is_bare`.

For the alternatives of a choice, whose loop would ask all other shapes' questions, too.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t

from ._numbers cimport Shape, copy, load


cdef inline Py_ssize_t bare_rest_size(
    const Shape* shape, const uint8_t* frame, const uint8_t* end
) noexcept nogil:
    """Return the size of the rest of a whole frame, or -1 for the other loop."""
    cdef const uint8_t* rest = frame + shape.field_offset + shape.width
    cdef uint64_t value
    if end < rest:
        return -1
    value = load(frame + shape.field_offset, shape.width, shape.little) & shape.mask
    if value >= shape.least_key or value - shape.quick_low > shape.quick_span:
        return -1
    value += shape.adjustment
    return <Py_ssize_t>value if <Py_ssize_t>value <= end - rest else -1


cdef inline bytes short_message_of(const uint8_t* frame, Py_ssize_t rest_size, uint8_t bits):
    """Return the message of a frame that has two bytes of header, and these bits of the second."""
    cdef bytes message = PyBytes_FromStringAndSize(NULL, 2 + rest_size)
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(message)
    p[0] = frame[0]
    p[1] = frame[1] & bits
    copy(p + 2, frame + 2, rest_size)
    return message


cdef inline bytes bare_message_of(
    const Shape* shape, const uint8_t* frame, const uint8_t* rest, Py_ssize_t rest_size
):
    """Return the message of a whole frame."""
    cdef bytes message = PyBytes_FromStringAndSize(NULL, shape.message_lead + rest_size)
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(message)
    cdef int i
    if shape.lead_size == 1:
        p[0] = frame[0]
    else:
        copy(p, frame, shape.lead_size)
    p += shape.lead_size
    for i in range(shape.kept_size):
        p[0] = frame[shape.field_offset + shape.kept[i]] & shape.kept_bits[i]
        p += 1
    copy(p, rest, rest_size)
    return message
