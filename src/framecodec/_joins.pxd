# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Messages of one fragment, for the compiled encoder: checked and written. See `_joined.py`."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

from ._numbers cimport (
    BCD,
    Shape,
    UINT,
    copy,
    shape_holds,
    store,
    store_bcd,
    store_digits,
)


cdef inline bint is_one_fragment(
    const Shape* shape, const uint8_t* message, Py_ssize_t size
) noexcept nogil:
    """Return whether a message is ordinary and has one fragment."""
    cdef Py_ssize_t content_size = size - shape.first_size
    cdef Py_ssize_t value = content_size + shape.strip - shape.message_lead - shape.adjustment
    cdef int i
    if content_size < 0 or content_size > shape.fragment_size or content_size == shape.full:
        return False
    if value < 0 or value % shape.unit:
        return False
    value //= shape.unit
    if <uint64_t>value - shape.quick_low > shape.quick_span:
        return False
    if not shape_holds(shape, <uint64_t>value):
        return False
    if shape.first_size:
        # As `fits` of `_frame_writer`.
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
        if shape.last_mask and message[shape.last_position] & shape.last_mask:
            return False
    return True


cdef inline Py_ssize_t write_fragment(
    const Shape* shape, uint8_t* frame, const uint8_t* message, Py_ssize_t size
) noexcept nogil:
    """Write the only fragment of a message and return its size, or 0 for the slow path."""
    cdef Py_ssize_t content_size = size - shape.first_size
    cdef uint64_t value = <uint64_t>(
        content_size + shape.strip - shape.message_lead - shape.adjustment
    ) // <uint64_t>shape.unit
    cdef const uint8_t* before = message if shape.first_size else shape.blank
    cdef uint8_t* p = frame
    cdef int i
    if not is_one_fragment(shape, message, size):
        return 0
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
