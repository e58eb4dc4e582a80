# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Read a header block in C, if it is whole and nothing in it is odd; see `_header_block.py`.

Every function is inline, so that the compiler optimises it inside its caller.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp

from ._byte_search cimport find_control
from ._numbers cimport Shape


cdef extern from *:
    """
    /* 1: a character that a header's name can have. */
    static const unsigned char framecodec_name_chars[256] = {
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 0,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0,
        0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    };
    """
    const uint8_t name_chars "framecodec_name_chars" [256]


cdef inline bint is_length_name(
    const Shape* shape, const uint8_t* name, Py_ssize_t size
) noexcept nogil:
    """Return whether this is a name of the header that holds the length, in any case."""
    cdef Py_ssize_t i
    cdef int k
    cdef uint8_t byte
    for k in range(shape.name_count):
        # Few other names of this size end with the same letter.
        if shape.names[k].size != size or (
            (name[size - 1] ^ shape.names[k].data[size - 1]) & ~0x20
        ):
            continue
        for i in range(size):
            byte = name[i]
            if c'A' <= byte <= c'Z':
                byte |= 0x20
            if byte != shape.names[k].data[i]:
                break
        else:
            return True
    return False


cdef inline bint read_header_length(
    const Shape* shape, const uint8_t* p, const uint8_t* end, uint64_t* value
) noexcept nogil:
    """Read a header's value as a length; return whether it is ordinary."""
    cdef uint64_t found = 0
    while p < end and (p[0] == c' ' or p[0] == c'\t'):
        p += 1
    while end > p and (end[-1] == c' ' or end[-1] == c'\t'):
        end -= 1
    if p == end or end - p > 18 or (p[0] == c'0' and end - p > 1 and not shape.lenient):
        return False
    while p < end:
        if not c'0' <= p[0] <= c'9':
            return False
        found = 10 * found + (p[0] - c'0')
        p += 1
    value[0] = found
    return True


cdef inline bint has_protocol(
    const Shape* shape, const uint8_t* line, const uint8_t* stop
) noexcept nogil:
    """Return whether a start line begins or ends with a protocol, written as in the codec."""
    cdef Py_ssize_t size
    cdef int k
    for k in range(shape.protocol_count):
        size = shape.protocols[k].size
        if stop - line > size and (
            (stop[-1 - size] == c' ' and memcmp(stop - size, shape.protocols[k].data, size) == 0)
            or (line[size] == c' ' and memcmp(line, shape.protocols[k].data, size) == 0)
        ):
            return True
    return False


cdef inline Py_ssize_t try_header_block(
    const Shape* shape, const uint8_t* frame, Py_ssize_t size, uint64_t* value
) noexcept nogil:
    """Return the size of a header, magic included, or -1 if it is not whole and ordinary."""
    cdef const uint8_t* p = frame + shape.magic_size
    cdef const uint8_t* end = frame + min(size, shape.magic_size + shape.max_header)
    cdef const uint8_t* line_end
    cdef const uint8_t* stop
    cdef const uint8_t* colon
    cdef bint found = False
    cdef bint is_first = shape.start_line
    while p < end:
        if is_first:
            line_end = <const uint8_t*>memchr(p, c'\n', end - p)
            if line_end == NULL:
                return -1
            stop = line_end
            if stop > p and stop[-1] == c'\r':
                stop -= 1
            if shape.protocol_count and not has_protocol(shape, p, stop):
                return -1
        else:  # no other control character than a tab may be in the line
            stop = find_control(frame, p, end)
            if stop == NULL:
                return -1
            line_end = stop
            if stop[0] == c'\r' and end - stop > 1:
                line_end += 1
            if line_end[0] != c'\n':
                return -1
        if not shape.lenient and line_end - stop != shape.line_end_size - 1:
            return -1
        if stop == p:
            p = line_end + 1
            if not found:
                if not shape.keep:
                    return -1
                value[0] = 0
            if shape.keep and value[0] > <uint64_t>(shape.message_max - (p - frame)):
                return -1
            return p - frame
        if not is_first:
            colon = p
            while name_chars[colon[0]]:
                colon += 1
            if colon[0] != c':' or colon == p:
                return -1
            if is_length_name(shape, p, colon - p):
                if found or not read_header_length(shape, colon + 1, stop, value):
                    return -1
                found = True
        is_first = False
        p = line_end + 1
    return -1
