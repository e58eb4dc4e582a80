# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Write length fields, and other pieces of heads, as words of 8 bytes, for the compiled encoder.

The next piece overwrites what is too much: so the memory of a batch has `SPARE` bytes more. The
digits of a number are calculated all at once, in the bytes of a word, the first one in its lowest
byte: a loop of divisions, or a branch that depends on the size, would cost as much as the rest of a
small frame.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ._numbers cimport copy

cdef enum:
    SPARE = 32  # as much as pieces can pass the end of a frame, those of `_quick_heads.pxd`, too

# The kinds of length field.
cdef enum:
    SIZED_BIG = 1
    SIZED_LITTLE
    SIZED_VARINT  # of one or two bytes
    SIZED_DECIMAL  # of a fixed size, at most 4 digits
    SIZED_HEX
    SIZED_DECIMAL_TEXT  # at most 4 digits
    SIZED_HEX_TEXT
    # In `_quick_heads.pxd` alone:
    SIZED_NONE
    SIZED_OTHER


cdef extern from "Python.h":
    # Items of a list of messages are borrowed, which saves two counts a message.
    PyObject* PyList_GET_ITEM(list, Py_ssize_t) noexcept
    Py_ssize_t bytes_size "PyBytes_GET_SIZE" (PyObject*) noexcept


cdef struct Piece:
    # Bytes that all frames of a codec have, the first eight of them as a word.
    uint64_t word
    const uint8_t* data
    Py_ssize_t size


cdef inline Piece piece_of(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    cdef Piece piece
    piece.word = 0
    memcpy(&piece.word, data, min(size, 8))
    piece.data = data
    piece.size = size
    return piece


cdef inline uint8_t* write_piece(uint8_t* p, const Piece* piece) noexcept nogil:
    """Write a piece, at least 8 bytes, and return where it ends."""
    memcpy(p, &piece.word, 8)
    if piece.size > 8:
        copy(p + 8, piece.data + 8, piece.size - 8)
    return p + piece.size


# --- a length as a word ---------------------------------------------------------------------------

cdef extern from *:
    """
    #ifndef FRAMECODEC_SHORT_DIGITS
    #define FRAMECODEC_SHORT_DIGITS

    /* The digits of a number, the first one in the lowest byte; their count in the highest one. */
    #define FRAMECODEC_DIGIT(n) ((uint32_t)((n) < 10 ? '0' + (n) : 'a' + (n) - 10))
    #define FRAMECODEC_DIGITS(n, base) \\
        ((n) < (base) ? FRAMECODEC_DIGIT(n) | 1u << 24 \\
         : (n) < (base) * (base) \\
             ? FRAMECODEC_DIGIT((n) / (base)) | FRAMECODEC_DIGIT((n) % (base)) << 8 | 2u << 24 \\
             : FRAMECODEC_DIGIT((n) / (base) / (base)) \\
                 | FRAMECODEC_DIGIT((n) / (base) % (base)) << 8 \\
                 | FRAMECODEC_DIGIT((n) % (base)) << 16 | 3u << 24)
    #define FRAMECODEC_DIGITS_4(n, base) \\
        FRAMECODEC_DIGITS(n, base), FRAMECODEC_DIGITS((n) + 1, base), \\
        FRAMECODEC_DIGITS((n) + 2, base), FRAMECODEC_DIGITS((n) + 3, base)
    #define FRAMECODEC_DIGITS_20(n, base) \\
        FRAMECODEC_DIGITS_4(n, base), FRAMECODEC_DIGITS_4((n) + 4, base), \\
        FRAMECODEC_DIGITS_4((n) + 8, base), FRAMECODEC_DIGITS_4((n) + 12, base), \\
        FRAMECODEC_DIGITS_4((n) + 16, base)
    #define FRAMECODEC_DIGITS_100(n, base) \\
        FRAMECODEC_DIGITS_20(n, base), FRAMECODEC_DIGITS_20((n) + 20, base), \\
        FRAMECODEC_DIGITS_20((n) + 40, base), FRAMECODEC_DIGITS_20((n) + 60, base), \\
        FRAMECODEC_DIGITS_20((n) + 80, base)
    #define FRAMECODEC_DIGITS_1000(base) \\
        FRAMECODEC_DIGITS_100(0, base), FRAMECODEC_DIGITS_100(100, base), \\
        FRAMECODEC_DIGITS_100(200, base), FRAMECODEC_DIGITS_100(300, base), \\
        FRAMECODEC_DIGITS_100(400, base), FRAMECODEC_DIGITS_100(500, base), \\
        FRAMECODEC_DIGITS_100(600, base), FRAMECODEC_DIGITS_100(700, base), \\
        FRAMECODEC_DIGITS_100(800, base), FRAMECODEC_DIGITS_100(900, base)

    static const uint32_t framecodec_short_decimals[1000] = {FRAMECODEC_DIGITS_1000(10)};
    static const uint32_t framecodec_short_hex[1000] = {FRAMECODEC_DIGITS_1000(16)};

    /* The 4 digits of a number less than 10,000. */
    static inline uint64_t framecodec_four_decimals(uint64_t value)
    {
        uint64_t hundreds = value * 5243 >> 19; /* value // 100 */
        uint64_t pairs = hundreds | (value - 100 * hundreds) << 16;
        uint64_t tens = (pairs * 103 >> 10) & 0x000F000F; /* of each pair // 10 */
        return (tens | (pairs - 10 * tens) << 8) + 0x30303030;
    }

    /* The 4 hexadecimal digits of a number less than 65,536. */
    static inline uint64_t framecodec_four_hex(uint64_t value)
    {
        uint64_t pairs = value >> 8 | (value & 0xFF) << 16;
        uint64_t digits = ((pairs >> 4) & 0x000F000F) | (pairs & 0x000F000F) << 8;
        uint64_t letters = ((digits + 0x06060606) >> 4) & 0x01010101;
        return digits + 0x30303030 + letters * ('a' - '0' - 10);
    }
    #endif
    """
    const uint32_t short_decimals "framecodec_short_decimals" [1000]
    const uint32_t short_hex "framecodec_short_hex" [1000]
    uint64_t four_decimals "framecodec_four_decimals" (uint64_t) noexcept nogil
    uint64_t four_hex "framecodec_four_hex" (uint64_t) noexcept nogil

cdef enum:
    SHORT_NUMBER = 1000  # smaller ones are in the tables


cdef inline void store_word(uint8_t* p, uint64_t word) noexcept nogil:
    """Store 8 bytes, the lowest first; gcc makes one store of it."""
    p[0] = word & 0xFF
    p[1] = word >> 8 & 0xFF
    p[2] = word >> 16 & 0xFF
    p[3] = word >> 24 & 0xFF
    p[4] = word >> 32 & 0xFF
    p[5] = word >> 40 & 0xFF
    p[6] = word >> 48 & 0xFF
    p[7] = word >> 56 & 0xFF


cdef inline void store_word_backwards(uint8_t* p, uint64_t word) noexcept nogil:
    p[7] = word & 0xFF
    p[6] = word >> 8 & 0xFF
    p[5] = word >> 16 & 0xFF
    p[4] = word >> 24 & 0xFF
    p[3] = word >> 32 & 0xFF
    p[2] = word >> 40 & 0xFF
    p[1] = word >> 48 & 0xFF
    p[0] = word >> 56 & 0xFF


cdef inline int store_short_varint(uint8_t* p, uint64_t value) noexcept nogil:
    """Store a number less than 16,384 and return its size; 8 bytes are written."""
    cdef uint64_t more = value > 0x7F
    store_word(p, value & 0x7F | more << 7 | value >> 7 << 8)
    return 1 + <int>more


cdef inline Py_ssize_t store_short_decimal(uint8_t* p, uint64_t value) noexcept nogil:
    """Store a number less than 10,000 and return its size; 8 bytes are written."""
    if value < SHORT_NUMBER:
        store_word(p, short_decimals[value])
        return short_decimals[value] >> 24
    store_word(p, four_decimals(value))
    return 4


cdef inline Py_ssize_t store_short_hex(uint8_t* p, uint64_t value) noexcept nogil:
    """Store a number less than 65,536 and return its size; 8 bytes are written."""
    cdef uint64_t absent = value < 0x1000
    if value < SHORT_NUMBER:
        store_word(p, short_hex[value])
        return short_hex[value] >> 24
    store_word(p, four_hex(value) >> 8 * absent)
    return 4 - <Py_ssize_t>absent


cdef inline Py_ssize_t store_sized(
    uint8_t* p, int how, uint64_t value, int unused_bits, Py_ssize_t field_size
) noexcept nogil:
    """Store a length and return the size of its field; 8 bytes are written."""
    if how == SIZED_BIG:
        store_word_backwards(p, value << unused_bits)
        return field_size
    if how == SIZED_LITTLE:
        store_word(p, value)
        return field_size
    if how == SIZED_VARINT:
        return store_short_varint(p, value)
    if how == SIZED_DECIMAL:
        store_word(p, four_decimals(value) >> unused_bits)
        return field_size
    if how == SIZED_HEX:
        store_word(p, four_hex(value) >> unused_bits)
        return field_size
    if how == SIZED_DECIMAL_TEXT:
        return store_short_decimal(p, value)
    return store_short_hex(p, value)
