# cython: language_level=3
"""Find one of a few bytes in short pieces of memory, faster than a call of memchr()."""

from libc.stdint cimport uint8_t


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #ifndef FRAMECODEC_BYTE_SEARCH
    #define FRAMECODEC_BYTE_SEARCH

    #if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    #include <emmintrin.h>

    /* The number of the first wanted one of the 16 bytes at p, from 1 on; or 0. */
    #define FRAMECODEC_AT(p) \\
        __builtin_ffs(_mm_movemask_epi8(FRAMECODEC_EQUAL(_mm_loadu_si128((const __m128i *)(p)))))

    /* At least 16 bytes; the last step overlaps the one before it. */
    #define FRAMECODEC_SEARCH(p, end) \\
        do { \\
            int at; \\
            for (; end - p >= 16; p += 16) \\
                if ((at = FRAMECODEC_AT(p))) \\
                    return p + at - 1; \\
            if (p == end) \\
                return NULL; \\
            at = FRAMECODEC_AT(end - 16); \\
            return at ? end - 16 + at - 1 : NULL; \\
        } while (0)

    static inline const uint8_t *framecodec_find_byte(
        const uint8_t *p, const uint8_t *end, uint8_t byte)
    {
        if (end - p >= 16 && end - p <= 256) {
            const __m128i wanted = _mm_set1_epi8((char)byte);
    #define FRAMECODEC_EQUAL(found) _mm_cmpeq_epi8(found, wanted)
            FRAMECODEC_SEARCH(p, end);
    #undef FRAMECODEC_EQUAL
        }
        if (end - p > 256)
            return (const uint8_t *)memchr(p, byte, (size_t)(end - p));
        for (; p < end; p++)
            if (*p == byte)
                return p;
        return NULL;
    }

    static inline const uint8_t *framecodec_find_any(
        const uint8_t *p, const uint8_t *end, const uint8_t *bytes)
    {
        if (end - p >= 16) {
            const __m128i a = _mm_set1_epi8((char)bytes[0]);
            const __m128i b = _mm_set1_epi8((char)bytes[1]);
            const __m128i c = _mm_set1_epi8((char)bytes[2]);
    #define FRAMECODEC_EQUAL(found) _mm_or_si128( \\
        _mm_or_si128(_mm_cmpeq_epi8(found, a), _mm_cmpeq_epi8(found, b)), _mm_cmpeq_epi8(found, c))
            FRAMECODEC_SEARCH(p, end);
    #undef FRAMECODEC_EQUAL
        }
        for (; p < end; p++)
            if (*p == bytes[0] || *p == bytes[1] || *p == bytes[2])
                return p;
        return NULL;
    }

    /* Control characters but the tab, one bit each. */
    #define FRAMECODEC_CONTROLS(p) \\
        framecodec_controls(_mm_loadu_si128((const __m128i *)(p)))

    static inline unsigned int framecodec_controls(__m128i data)
    {
        const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(data, _mm_set1_epi8(0x1f)), data);
        const __m128i controls = _mm_andnot_si128(_mm_cmpeq_epi8(data, _mm_set1_epi8('\\t')), low);
        const __m128i last = _mm_cmpeq_epi8(data, _mm_set1_epi8(0x7f));
        return (unsigned int)_mm_movemask_epi8(_mm_or_si128(controls, last));
    }

    static inline const uint8_t *framecodec_find_control(
        const uint8_t *start, const uint8_t *p, const uint8_t *end)
    {
        unsigned int found;
        for (; end - p >= 16; p += 16)
            if ((found = FRAMECODEC_CONTROLS(p)))
                return p + __builtin_ctz(found);
        if (end - start >= 16) {
            found = FRAMECODEC_CONTROLS(end - 16) >> (16 - (end - p));
            return found ? p + __builtin_ctz(found) : NULL;
        }
        for (; p < end; p++)
            if ((*p < 0x20 && *p != '\\t') || *p == 0x7f)
                return p;
        return NULL;
    }

    #define FRAMECODEC_LOAD(p) _mm_loadu_si128((const __m128i *)(p))
    #define FRAMECODEC_STORE(to, data) _mm_storeu_si128((__m128i *)(to), data)

    /* Of two bytes, or of three. */
    #define FRAMECODEC_LOOK(data) \\
        (three ? _mm_or_si128(_mm_cmpeq_epi8(data, c), FRAMECODEC_LOOK_FOR_TWO(data)) \\
               : FRAMECODEC_LOOK_FOR_TWO(data))
    #define FRAMECODEC_LOOK_FOR_TWO(data) \\
        _mm_or_si128(_mm_cmpeq_epi8(data, a), _mm_cmpeq_epi8(data, b))

    /* The pieces overlap in the middle, as in copy() of _numbers.pxd. */
    static inline int framecodec_copy_and_look_for(
        uint8_t *to, const uint8_t *p, Py_ssize_t size, const uint8_t *bytes, const int three)
    {
        const __m128i a = _mm_set1_epi8((char)bytes[0]);
        const __m128i b = _mm_set1_epi8((char)bytes[1]);
        const __m128i c = _mm_set1_epi8((char)bytes[2]);
        __m128i found = _mm_setzero_si128(), data, next;
        for (; size > 64; p += 16, to += 16, size -= 16) {
            data = FRAMECODEC_LOAD(p);
            FRAMECODEC_STORE(to, data);
            found = _mm_or_si128(found, FRAMECODEC_LOOK(data));
        }
        if (size > 32) {
            data = FRAMECODEC_LOAD(p + 16);
            next = FRAMECODEC_LOAD(p + size - 32);
            FRAMECODEC_STORE(to + 16, data);
            FRAMECODEC_STORE(to + size - 32, next);
            found = _mm_or_si128(
                found, _mm_or_si128(FRAMECODEC_LOOK(data), FRAMECODEC_LOOK(next)));
        }
        data = FRAMECODEC_LOAD(p);
        next = FRAMECODEC_LOAD(p + size - 16);
        FRAMECODEC_STORE(to, data);
        FRAMECODEC_STORE(to + size - 16, next);
        found = _mm_or_si128(found, _mm_or_si128(FRAMECODEC_LOOK(data), FRAMECODEC_LOOK(next)));
        return _mm_movemask_epi8(found);
    }

    /* Copies, and returns whether one of the bytes was there; at least 16 bytes. */
    static inline int framecodec_copy_and_look(
        uint8_t *to, const uint8_t *p, Py_ssize_t size, const uint8_t *bytes)
    {
        if (bytes[1] == bytes[2])
            return framecodec_copy_and_look_for(to, p, size, bytes, 0);
        return framecodec_copy_and_look_for(to, p, size, bytes, 1);
    }

    /* The zeros among 16 bytes, one bit each. */
    #define FRAMECODEC_ZEROS(data) \\
        (uint64_t)_mm_movemask_epi8(_mm_cmpeq_epi8(data, _mm_setzero_si128()))

    /* Each zero becomes the distance to the next one; the last of them is returned. */
    static inline uint8_t *framecodec_link(uint8_t *to, uint64_t zeros, uint8_t *code)
    {
        for (; zeros; zeros &= zeros - 1) {
            uint8_t *zero = to + __builtin_ctzll(zeros);
            *code = (uint8_t)(zero - code);
            code = zero;
        }
        return code;
    }

    static inline void framecodec_stuff_block(uint8_t *to, const uint8_t *p, Py_ssize_t size)
    {
        uint8_t *code = to++;
        uint64_t zeros;
        __m128i first, last, second, third;
        if (size < 16) {
            for (; size; size--, to++, p++)
                if (!(*to = *p)) {
                    *code = (uint8_t)(to - code);
                    code = to;
                }
            *code = (uint8_t)(to - code);
            return;
        }
        while (size > 64) { /* at least 16 remain */
            const Py_ssize_t part = size > 80 ? 64 : 32;
            first = FRAMECODEC_LOAD(p);
            second = FRAMECODEC_LOAD(p + 16);
            FRAMECODEC_STORE(to, first);
            FRAMECODEC_STORE(to + 16, second);
            zeros = FRAMECODEC_ZEROS(first) | FRAMECODEC_ZEROS(second) << 16;
            if (part == 64) {
                third = FRAMECODEC_LOAD(p + 32);
                last = FRAMECODEC_LOAD(p + 48);
                FRAMECODEC_STORE(to + 32, third);
                FRAMECODEC_STORE(to + 48, last);
                zeros |= FRAMECODEC_ZEROS(third) << 32 | FRAMECODEC_ZEROS(last) << 48;
            }
            code = framecodec_link(to, zeros, code);
            p += part;
            to += part;
            size -= part;
        }
        first = FRAMECODEC_LOAD(p);
        last = FRAMECODEC_LOAD(p + size - 16);
        zeros = FRAMECODEC_ZEROS(first) | FRAMECODEC_ZEROS(last) << (size - 16);
        if (size > 32) {
            second = FRAMECODEC_LOAD(p + 16);
            third = FRAMECODEC_LOAD(p + size - 32);
            zeros |= FRAMECODEC_ZEROS(second) << 16 | FRAMECODEC_ZEROS(third) << (size - 32);
            FRAMECODEC_STORE(to + 16, second);
            FRAMECODEC_STORE(to + size - 32, third);
        }
        FRAMECODEC_STORE(to, first);
        FRAMECODEC_STORE(to + size - 16, last);
        code = framecodec_link(to, zeros, code);
        *code = (uint8_t)(to + size - code);
    }

    static Py_ssize_t framecodec_count_byte(const uint8_t *p, const uint8_t *end, uint8_t byte)
    {
        const __m128i wanted = _mm_set1_epi8((char)byte), zero = _mm_setzero_si128();
        __m128i total = zero;
        Py_ssize_t count = 0;
        while (end - p >= 16) {
            __m128i found = zero; /* 16 sums, each negative and at least -255 */
            const uint8_t *stop = end - p > 16 * 255 ? p + 16 * 255 : p + ((end - p) & ~15);
            for (; p < stop; p += 16)
                found = _mm_add_epi8(
                    found, _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p), wanted));
            total = _mm_add_epi64(total, _mm_sad_epu8(_mm_sub_epi8(zero, found), zero));
        }
        count += (Py_ssize_t)_mm_cvtsi128_si64(total);
        count += (Py_ssize_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(total, total));
        for (; p < end; p++)
            count += *p == byte;
        return count;
    }

    #else

    static inline const uint8_t *framecodec_find_byte(
        const uint8_t *p, const uint8_t *end, uint8_t byte)
    {
        return p < end ? (const uint8_t *)memchr(p, byte, (size_t)(end - p)) : NULL;
    }

    static inline const uint8_t *framecodec_find_any(
        const uint8_t *p, const uint8_t *end, const uint8_t *bytes)
    {
        for (; p < end; p++)
            if (*p == bytes[0] || *p == bytes[1] || *p == bytes[2])
                return p;
        return NULL;
    }

    static inline const uint8_t *framecodec_find_control(
        const uint8_t *start, const uint8_t *p, const uint8_t *end)
    {
        for (; p < end; p++)
            if ((*p < 0x20 && *p != '\\t') || *p == 0x7f)
                return p;
        return NULL;
    }

    static inline int framecodec_copy_and_look(
        uint8_t *to, const uint8_t *p, Py_ssize_t size, const uint8_t *bytes)
    {
        memcpy(to, p, (size_t)size);
        if (bytes[0] == bytes[2])
            return memchr(p, bytes[0], (size_t)size) != NULL;
        return framecodec_find_any(p, p + size, bytes) != NULL;
    }

    static inline void framecodec_stuff_block(uint8_t *to, const uint8_t *p, Py_ssize_t size)
    {
        uint8_t *code = to++;
        for (; size; size--, to++, p++)
            if (!(*to = *p)) {
                *code = (uint8_t)(to - code);
                code = to;
            }
        *code = (uint8_t)(to - code);
    }

    static Py_ssize_t framecodec_count_byte(const uint8_t *p, const uint8_t *end, uint8_t byte)
    {
        Py_ssize_t count = 0;
        for (; p < end; p++)
            count += *p == byte;
        return count;
    }

    #endif
    #endif
    """
    # Return where the byte, or one of three, is first; NULL if it is not there.
    const uint8_t* find_byte "framecodec_find_byte" (
        const uint8_t* p, const uint8_t* end, uint8_t byte
    ) noexcept nogil
    const uint8_t* find_any "framecodec_find_any" (
        const uint8_t* p, const uint8_t* end, const uint8_t* three
    ) noexcept nogil
    # Return where the first control character but a tab is, or NULL; the memory that can be read
    # begins at `start`.
    const uint8_t* find_control "framecodec_find_control" (
        const uint8_t* start, const uint8_t* p, const uint8_t* end
    ) noexcept nogil
    # Copy at least 16 bytes, and return whether one of three was among them.
    bint copy_and_look "framecodec_copy_and_look" (
        uint8_t* to, const uint8_t* p, Py_ssize_t size, const uint8_t* three
    ) noexcept nogil
    # Write a message of at most 253 bytes with byte stuffing: 1 byte more.
    void stuff_block "framecodec_stuff_block" (
        uint8_t* to, const uint8_t* p, Py_ssize_t size
    ) noexcept nogil
    Py_ssize_t count_byte "framecodec_count_byte" (
        const uint8_t* p, const uint8_t* end, uint8_t byte
    ) noexcept nogil
