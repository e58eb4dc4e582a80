# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Write the frame of an ordinary message in C.

Every function writes to memory that holds the largest frame of a message of its size, and returns
the size of the frame, or 0 to leave the message to `Encoder.frame_parts`. They are inline, as in
`_numbers.pxd`.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memset

from ._byte_search cimport stuff_block
from ._checksums cimport write_ends
from ._marks cimport Marks, comes_back, escape, is_quiet, stuff
from ._numbers cimport (
    BCD,
    BER,
    DIGITS,
    FIXED,
    Shape,
    UINT,
    VARINT,
    WideField,
    copy,
    padding_of,
    shape_holds,
    store,
    store_bcd,
    store_ber,
    store_digits,
    store_varint,
    wide_field_for,
)


cdef inline bint fits(const Shape* shape, const uint8_t* message) noexcept nogil:
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


cdef inline int write_uint(
    const Shape* shape, uint8_t* p, const uint8_t* message, uint64_t value
) noexcept nogil:
    """Write a binary length field and return its size."""
    cdef const WideField* wide = wide_field_for(shape, value)
    cdef int size = shape.width
    cdef int i
    if wide == NULL:
        store(p, value, size, shape.little)
    else:
        store(p, wide.key, size, shape.little)
        store(p + size, value, wide.width, wide.little)
        size += wide.width
    for i in range(shape.kept_size):
        p[shape.kept[i]] |= message[shape.lead_size + i]
    return size


cdef inline Py_ssize_t write_text(const Shape* shape, uint8_t* p, uint64_t value) noexcept nogil:
    """Write a length in digits, with what is around them, and return its size."""
    cdef Py_ssize_t size = 1
    cdef uint64_t limit = <uint64_t>shape.base
    if shape.kind == DIGITS:
        store_digits(p, value, shape.width, shape.base)
        return shape.width
    while value >= limit:
        size += 1
        if limit > <uint64_t>0xFFFFFFFFFFFFFFFF // <uint64_t>shape.base:
            break
        limit *= <uint64_t>shape.base
    if shape.field_start_size:
        copy(p, shape.field_start, shape.field_start_size)
        p += shape.field_start_size
    store_digits(p, value, size, shape.base)
    copy(p + size, shape.end, shape.end_size)
    return shape.field_start_size + size + shape.end_size


cdef inline Py_ssize_t write_field(
    const Shape* shape, uint8_t* p, const uint8_t* message, uint64_t value
) noexcept nogil:
    """Write a length field of any kind and return its size."""
    cdef Py_ssize_t size = 1
    if shape.kind == UINT:
        return write_uint(shape, p, message, value)
    if shape.kind == FIXED:
        return 0
    if shape.kind == VARINT:
        return store_varint(p, value)
    if shape.kind == BER:
        if value > 0x7F:
            size = 2
            while size < 9 and value >> 8 * (size - 1):  # a shift by 64 is undefined
                size += 1
        store_ber(p, value, size)
        return size
    if shape.kind == BCD:
        store_bcd(p, value, shape.width)
        return shape.width
    return write_text(shape, p, value)


cdef inline Py_ssize_t write_frame(
    const Shape* shape, uint8_t* frame, const uint8_t* message, Py_ssize_t size
) noexcept nogil:
    """Write the frame of a message of any kind but those that an end mark ends, and choices."""
    cdef Py_ssize_t needed = size - shape.message_lead - shape.adjustment
    cdef uint8_t* p = frame
    if size < shape.message_lead or needed < 0 or not shape.is_quick:
        return 0
    if shape.extended:
        return write_extended(shape, frame, message, size, needed)
    if <uint64_t>needed - shape.quick_low > shape.quick_span:
        return 0
    if shape.magic_size:
        copy(p, shape.magic, shape.magic_size)
        p += shape.magic_size
    if shape.lead_size:
        copy(p, message, shape.lead_size)
        p += shape.lead_size
        message += shape.lead_size
        size -= shape.lead_size
    if shape.kind == UINT:
        store(p, <uint64_t>needed, shape.width, shape.little)
        p += shape.width
    else:
        p += write_field(shape, p, message, <uint64_t>needed)
    copy(p, message, size)
    p += size
    if shape.trailer_size:
        copy(p, shape.trailer, shape.trailer_size)
        p += shape.trailer_size
    return p - frame


cdef inline Py_ssize_t write_extended(
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
    Py_ssize_t needed,
) noexcept nogil:
    """Do the same where the codec owns more than magic, length field and trailer."""
    cdef uint8_t* p = frame
    cdef Py_ssize_t padding
    cdef int i
    if shape.unit != 1:
        if needed % shape.unit:
            return 0
        needed //= shape.unit
    if <uint64_t>needed - shape.quick_low > shape.quick_span:
        return 0
    if shape.constant_count or shape.kept_size or shape.own_count:
        if not fits(shape, message):
            return 0
    if shape.wide_count or <uint64_t>needed & ~shape.mask:
        if (
            not shape_holds(shape, <uint64_t>needed)
            and wide_field_for(shape, <uint64_t>needed) == NULL
        ):
            return 0
    if shape.magic_size:
        copy(p, shape.magic, shape.magic_size)
        p += shape.magic_size
    if shape.lead_size:
        copy(p, message, shape.lead_size)
        p += shape.lead_size
    p += write_field(shape, p, message, <uint64_t>needed)
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


cdef inline Py_ssize_t write_marked(
    const Shape* shape,
    const Marks* marks,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept nogil:
    """Write a frame that an end mark ends."""
    cdef uint8_t* p = frame
    if <uint64_t>size - shape.quick_low > shape.quick_span:
        return 0
    if shape.magic_size:
        copy(p, shape.magic, shape.magic_size)
        p += shape.magic_size
    if marks.stuffed:
        if size < 254:
            stuff_block(p, message, size)
            p += size + 1
        else:
            p = stuff(message, size, p)
    elif not size and marks.skip_empty:
        return 0
    elif is_quiet(marks, message, size):
        copy(p, message, size)
        p += size
    elif marks.escape_count:
        p = escape(marks, message, size, p)
    elif comes_back(marks, message, size):
        copy(p, message, size)
        p += size
    else:
        return 0
    copy(p, marks.marks[marks.written].data, marks.marks[marks.written].size)
    return p - frame + marks.marks[marks.written].size
