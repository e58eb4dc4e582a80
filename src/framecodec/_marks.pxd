# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""End marks, escapes and byte stuffing in C: how they are found, written and removed.

`_marks_py.py` is its specification. Every function is inline, as in `_numbers.pxd`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memset

from ._byte_search cimport find_any, find_byte
from ._numbers cimport COBS, common_size, copy, kept

cdef enum:
    # As many as a codec can have: see _mark_parameters.py.
    MOST_MARKS = 8
    LONGEST_MARK = 16
    MOST_ESCAPES = 256
    MOST_STARTS = 9  # of the marks, and the escape byte

# What begins at a byte of a content.
cdef enum:
    LITERAL  # nothing: it means itself
    MARK
    ESCAPE
    CUT_OFF  # perhaps a mark or an escape: the data ends before that is certain
    UNKNOWN_ESCAPE

# How marks are searched.
cdef enum:
    ONE_MARK  # one mark, no escape
    LAST_BYTE  # all marks end with one byte that is nowhere else in them, no escape
    ANY_TOKEN


cdef struct Mark:
    const uint8_t* data
    Py_ssize_t size
    bint is_begun  # a longer mark begins with it


cdef struct Escape:
    const uint8_t* data
    Py_ssize_t size
    uint8_t byte  # of the message


cdef struct Marks:
    # The marks of a Layout, shortest first. The pointers are into the layout's own bytes.
    int how  # they are searched
    int written  # index of the one that is written
    int count
    bint skip_empty
    bint stuffed  # COBS
    int escape_byte  # the first byte of all escapes, or -1
    int escape_count
    int start_count
    uint8_t starts[9]  # MOST_STARTS: the first bytes of the marks, and the escape byte
    Mark marks[8]  # MOST_MARKS
    Escape escapes[256]  # MOST_ESCAPES
    short by_second[256]  # the second byte of an escape of two bytes -> its index + 1
    short by_byte[256]  # a byte of the message -> the index + 1 of its escape
    # The bytes that have an escape, or that no ordinary message has; the last one may be repeated.
    uint8_t odd[3]
    bint has_few_odd  # they are all of them
    uint8_t odd_ends[256]  # whether a message that ends with this byte may not come back
    uint8_t needed[8]  # marks that a message is searched for: the others contain one of them
    # For each mark, the sizes (as bits) of its first part that no message may end with: the mark
    # that is written would make it another one.
    unsigned int overlaps[8]


cdef struct Starts:
    # Where each of the bytes in `Marks.starts` is next; looked for again when that is passed.
    const uint8_t* next[9]
    const uint8_t* since[9]  # where it was looked for: it is not between there and `next`


cdef inline const Marks* marks_in(bytes numbers) noexcept:
    return <const Marks*>PyBytes_AS_STRING(numbers)


cdef inline bytes mark_numbers_of(layout):
    """Return a layout's `Marks` as a bytes object, which is made once; None if it has no marks.

    Of a choice it is an array of pointers to those of the alternatives, NULL for one without marks.
    It must not outlive the layout.
    """
    cdef dict structures = layout.structures
    cdef bytes numbers = structures.get("marks")
    if numbers is None and layout.has_marks:
        if layout.choice is not None:
            numbers = chosen_mark_numbers(layout.choice.layouts)
        else:
            numbers = PyBytes_FromStringAndSize(NULL, sizeof(Marks))
            fill_marks(<Marks*>PyBytes_AS_STRING(numbers), layout)
        numbers = kept(layout, "marks", numbers)
    return numbers


cdef inline bytes chosen_mark_numbers(tuple layouts):
    cdef bytes numbers = PyBytes_FromStringAndSize(NULL, len(layouts) * sizeof(void*))
    cdef const void** chosen = <const void**>PyBytes_AS_STRING(numbers)
    cdef bytes own
    cdef dict structures
    for layout in layouts:
        chosen[0] = NULL
        structures = layout.structures
        own = structures.get("marks")
        if own is None and layout.marks:
            own = PyBytes_FromStringAndSize(NULL, sizeof(Marks))
            fill_marks(<Marks*>PyBytes_AS_STRING(own), layout)
            own = kept(layout, "marks", own)
        if own is not None:
            chosen[0] = PyBytes_AS_STRING(own)
        chosen += 1
    return numbers


cdef inline int fill_marks(Marks* marks, layout) except -1:
    cdef bytes mark, other, sequence
    cdef Py_ssize_t size
    cdef int i
    memset(marks, 0, sizeof(Marks))
    end = layout.marks[0]
    # The bytes objects live as long as the layout: the list only refers to them.
    ordered = list(layout.marks)
    ordered.sort(key=len)
    starts = set()
    marks.escape_byte = -1
    marks.stuffed = layout.kind == COBS
    marks.skip_empty = layout.skip_empty
    marks.count = len(ordered)
    for i, mark in enumerate(ordered):
        marks.marks[i].data = <const uint8_t*>PyBytes_AS_STRING(mark)
        marks.marks[i].size = len(mark)
        if mark == end:
            marks.written = i
        marks.needed[i] = True
        starts.add(mark[0])
        for other in ordered:
            if other == mark:
                continue
            if other.startswith(mark):
                marks.marks[i].is_begun = True
            if other in mark:
                marks.needed[i] = False
        for size in range(1, len(mark)):
            left = mark[size:]
            if left.startswith(end) or end.startswith(left):
                marks.overlaps[i] |= 1u << <unsigned int>size
    for i, (byte, sequence) in enumerate(layout.escape):
        marks.escapes[i].data = <const uint8_t*>PyBytes_AS_STRING(sequence)
        marks.escapes[i].size = len(sequence)
        marks.escapes[i].byte = byte
        marks.escape_count = i + 1
        marks.escape_byte = sequence[0]
        marks.by_byte[<int>byte] = i + 1
        if len(sequence) == 2:
            marks.by_second[<int>sequence[1]] = i + 1
        starts.add(sequence[0])
    for i, start in enumerate(sorted(starts)):
        marks.starts[i] = start
        marks.start_count = i + 1
    fill_odd(marks, layout, ordered)
    last = ordered[0][-1:]
    marks.how = ANY_TOKEN
    if not layout.escape:
        if len(ordered) == 1:
            marks.how = ONE_MARK
        elif len(ordered[0]) == 1:
            marks.how = LAST_BYTE
            for mark in ordered:
                if mark.find(last) != len(mark) - 1:
                    marks.how = ANY_TOKEN
    return 0


cdef inline int fill_odd(Marks* marks, layout, ordered) except -1:
    """Fill in by which bytes a message is searched: those with an escape, or one of each mark."""
    cdef int i, size
    odd = {byte for byte, _ in layout.escape}
    if not odd:
        odd = {mark[0] for i, mark in enumerate(ordered) if marks.needed[i]}
    marks.has_few_odd = len(odd) <= 3
    for i, byte in enumerate(sorted(odd)[:3]):
        marks.odd[i] = byte
        for size in range(i, 3):
            marks.odd[size] = byte
    for i, mark in enumerate(ordered):
        for size in range(1, len(mark)):
            if marks.overlaps[i] >> <unsigned int>size & 1:
                marks.odd_ends[<int>mark[size - 1]] = not layout.escape
    return 0


# --- reading --------------------------------------------------------------------------------------


cdef inline const uint8_t* next_start(
    const Marks* marks, Starts* starts, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """Return where the next byte is that may begin a token; or `end`."""
    cdef const uint8_t* first = end
    cdef int i
    for i in range(marks.start_count):
        if starts.next[i] < p:
            starts.since[i] = p
            starts.next[i] = <const uint8_t*>memchr(p, marks.starts[i], end - p)
            if starts.next[i] == NULL:
                starts.next[i] = end
        if starts.next[i] < first:
            first = starts.next[i]
    return first


cdef inline void rewind(Starts* starts, const uint8_t* p) noexcept nogil:
    """Go back to a byte. What was found since then is found again, in the bytes that were read."""
    cdef int i
    for i in range(MOST_STARTS):
        if starts.since[i] > p:
            starts.next[i] = NULL


cdef inline int token_at(
    const Marks* marks, const uint8_t* p, Py_ssize_t available, int* index
) noexcept nogil:
    """Return what begins at a byte, and which mark or escape it is."""
    cdef bint is_cut_off = False
    cdef int i
    for i in range(marks.count):  # the shortest first: a message is delivered at once
        if available >= marks.marks[i].size:
            if not memcmp(p, marks.marks[i].data, marks.marks[i].size):
                index[0] = i
                return MARK
        elif not memcmp(p, marks.marks[i].data, available):
            is_cut_off = True
    if p[0] != marks.escape_byte:
        return CUT_OFF if is_cut_off else LITERAL
    if available >= 2 and marks.by_second[p[1]]:
        index[0] = marks.by_second[p[1]] - 1
        return ESCAPE
    for i in range(marks.escape_count):
        if available >= marks.escapes[i].size:
            if not memcmp(p, marks.escapes[i].data, marks.escapes[i].size):
                index[0] = i
                return ESCAPE
        elif not memcmp(p, marks.escapes[i].data, available):
            is_cut_off = True
    return CUT_OFF if is_cut_off else UNKNOWN_ESCAPE


cdef inline Py_ssize_t wrong_size(
    const Marks* marks, const uint8_t* p, Py_ssize_t available
) noexcept nogil:
    """Return how many bytes an unknown escape has up to its first wrong byte."""
    cdef Py_ssize_t right = 0
    cdef int i
    for i in range(marks.count):
        right = max(right, common_size(p, available, marks.marks[i].data, marks.marks[i].size))
    for i in range(marks.escape_count):
        right = max(right, common_size(p, available, marks.escapes[i].data, marks.escapes[i].size))
    return right + 1


cdef inline const uint8_t* find_end(
    const Marks* marks,
    Starts* starts,
    const uint8_t* content,
    const uint8_t* end,
    int* index,
    Py_ssize_t* saved,
) noexcept nogil:
    """Return where a content ends, its mark, and how many bytes its escapes have more.

    NULL if nothing is certain, or an escape is unknown.
    """
    cdef const uint8_t* p = content
    cdef int token
    cdef int i
    saved[0] = 0
    if marks.how == ONE_MARK:
        index[0] = 0
        return find_bytes(p, end, marks.marks[0].data, marks.marks[0].size)
    if marks.how == LAST_BYTE:
        p = <const uint8_t*>memchr(p, marks.marks[0].data[0], end - p)
        if p == NULL:
            return NULL
        for i in range(marks.count - 1, 0, -1):  # the longest first
            if p - content >= marks.marks[i].size - 1:
                if not memcmp(
                    p - (marks.marks[i].size - 1), marks.marks[i].data, marks.marks[i].size
                ):
                    index[0] = i
                    return p - (marks.marks[i].size - 1)
        index[0] = 0
        return p
    while True:
        p = next_start(marks, starts, p, end)
        if p == end:
            return NULL
        token = token_at(marks, p, end - p, index)
        if token == LITERAL:
            p += 1
        elif token == ESCAPE:
            saved[0] += marks.escapes[index[0]].size - 1
            p += marks.escapes[index[0]].size
        elif token == MARK:
            return p
        else:
            return NULL


cdef inline const uint8_t* find_bytes(
    const uint8_t* p, const uint8_t* end, const uint8_t* wanted, Py_ssize_t size
) noexcept nogil:
    """Return where some bytes are first, or NULL."""
    while end - p >= size:
        p = <const uint8_t*>memchr(p, wanted[0], end - p - (size - 1))
        if p == NULL or size == 1 or not memcmp(p + 1, wanted + 1, size - 1):
            return p
        p += 1
    return NULL


cdef inline const uint8_t* skip_remainder(
    const Marks* marks, const uint8_t* p, const uint8_t* end, int* after
) noexcept nogil:
    """Return what follows the mark `after` and the rest of a longer one.

    `after` becomes -1, or the mark after which more may come.
    """
    cdef Py_ssize_t size, more
    cdef bint may_come, found
    cdef int i
    while True:
        size = marks.marks[after[0]].size
        may_come = found = False
        for i in range(marks.count):  # the shortest first
            more = marks.marks[i].size - size
            if more <= 0 or memcmp(marks.marks[i].data, marks.marks[after[0]].data, size):
                continue
            if end - p >= more:
                if not memcmp(p, marks.marks[i].data + size, more):
                    p += more
                    after[0] = i
                    found = True
                    break
            elif not memcmp(p, marks.marks[i].data + size, end - p):
                may_come = True
        if not found:
            if not may_come:
                after[0] = -1
            return p


cdef inline void unescape(
    const Marks* marks, const uint8_t* p, Py_ssize_t size, uint8_t* to
) noexcept nogil:
    """Write a content without its escapes, all of which are known."""
    cdef const uint8_t* end = p + size
    cdef const uint8_t* found
    cdef int i = 0
    while p < end:
        found = <const uint8_t*>memchr(p, marks.escape_byte, end - p)
        if found == NULL:
            found = end
        copy(to, p, found - p)
        to += found - p
        p = found
        if p < end:
            if marks.by_second[p[1]]:
                i = marks.by_second[p[1]] - 1
            else:
                i = 0
                while end - p < marks.escapes[i].size or memcmp(
                    p, marks.escapes[i].data, marks.escapes[i].size
                ):
                    i += 1
            to[0] = marks.escapes[i].byte
            to += 1
            p += marks.escapes[i].size


cdef inline Py_ssize_t unstuffed_size(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Return the size of the message of stuffed blocks, or -1 if the last one is cut off."""
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t code
    while p < end:
        code = p[0]
        p += code
        if p > end:
            return -1
        size += code - 1
        if code < 255 and p < end:
            size += 1
    return size


cdef inline void unstuff(const uint8_t* p, Py_ssize_t size, uint8_t* to) noexcept nogil:
    """Write the message of whole blocks."""
    cdef const uint8_t* end = p + size
    cdef Py_ssize_t code
    while p < end:
        code = p[0]
        copy(to, p + 1, code - 1)
        to += code - 1
        p += code
        if code < 255 and p < end:
            to[0] = 0
            to += 1


# --- writing --------------------------------------------------------------------------------------


cdef inline bint comes_back(
    const Marks* marks, const uint8_t* message, Py_ssize_t size
) noexcept nogil:
    """Return whether a message without escapes is read as it is, with the written mark after it."""
    cdef int i
    cdef int overlap
    for i in range(marks.count):
        if marks.needed[i] and find_bytes(
            message, message + size, marks.marks[i].data, marks.marks[i].size
        ) != NULL:
            return False
        if marks.overlaps[i]:
            for overlap in range(1, LONGEST_MARK):
                if (
                    marks.overlaps[i] >> overlap & 1
                    and size >= overlap
                    and not memcmp(message + size - overlap, marks.marks[i].data, overlap)
                ):
                    return False
    return True


cdef inline bint is_quiet(
    const Marks* marks, const uint8_t* message, Py_ssize_t size
) noexcept nogil:
    """Return whether it is certain at a glance that a message travels as it is."""
    if not marks.has_few_odd:
        return False
    if marks.odd[0] == marks.odd[2]:
        if find_byte(message, message + size, marks.odd[0]) != NULL:
            return False
    elif find_any(message, message + size, marks.odd) != NULL:
        return False
    return not (size and marks.odd_ends[message[size - 1]])


cdef inline const uint8_t* find_odd(
    const Marks* marks, const uint8_t* p, const uint8_t* end
) noexcept nogil:
    """Return where the first byte is that has an escape; or `end`."""
    cdef const uint8_t* found
    if marks.has_few_odd:
        found = find_any(p, end, marks.odd)
        return end if found == NULL else found
    while p < end and not marks.by_byte[p[0]]:
        p += 1
    return p


cdef inline Py_ssize_t escaped_size(
    const Marks* marks, const uint8_t* message, Py_ssize_t size
) noexcept nogil:
    cdef const uint8_t* end = message + size
    cdef const uint8_t* p = find_odd(marks, message, end)
    cdef Py_ssize_t total = size
    while p < end:
        total += marks.escapes[marks.by_byte[p[0]] - 1].size - 1
        p = find_odd(marks, p + 1, end)
    return total


cdef inline uint8_t* escape(
    const Marks* marks, const uint8_t* message, Py_ssize_t size, uint8_t* to
) noexcept nogil:
    cdef const uint8_t* end = message + size
    cdef const uint8_t* p
    cdef const Escape* found
    while True:
        p = find_odd(marks, message, end)
        copy(to, message, p - message)
        to += p - message
        if p == end:
            return to
        found = &marks.escapes[marks.by_byte[p[0]] - 1]
        copy(to, found.data, found.size)
        to += found.size
        message = p + 1


cdef inline Py_ssize_t stuffed_size(const uint8_t* message, Py_ssize_t size) noexcept nogil:
    cdef const uint8_t* p = message
    cdef const uint8_t* end = message + size
    cdef const uint8_t* zero
    cdef Py_ssize_t total = 0
    if size < 254:
        return size + 1
    while True:
        zero = find_byte(p, end, 0)
        if zero == NULL:
            total += end - p + (end - p) // 254
            if p == end or (end - p) % 254:
                total += 1
            return total
        total += zero - p + (zero - p) // 254 + 1
        p = zero + 1


cdef inline uint8_t* stuff(const uint8_t* message, Py_ssize_t size, uint8_t* to) noexcept nogil:
    """Write a message as blocks; a zero of the message follows all but full and last ones."""
    cdef const uint8_t* p = message
    cdef const uint8_t* end = message + size
    cdef const uint8_t* zero
    cdef Py_ssize_t left
    while True:
        zero = find_byte(p, end, 0)
        left = (end if zero == NULL else zero) - p
        if not left:
            to[0] = 1
            to += 1
        while left >= 254:
            to[0] = 255
            copy(to + 1, p, 254)
            to += 255
            p += 254
            left -= 254
            if not left and zero != NULL:
                to[0] = 1
                to += 1
        if left:
            to[0] = <uint8_t>(left + 1)
            copy(to + 1, p, left)
            to += left + 1
            p += left
        if zero == NULL:
            return to
        p = zero + 1
