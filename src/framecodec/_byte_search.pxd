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

    /* Copies, and returns whether one of the bytes was there; at least 16 bytes. */
    static inline int framecodec_copy_and_look(
        uint8_t *to, const uint8_t *p, Py_ssize_t size, const uint8_t *bytes)
    {
        const __m128i a = _mm_set1_epi8((char)bytes[0]);
        const __m128i b = _mm_set1_epi8((char)bytes[1]);
        const __m128i c = _mm_set1_epi8((char)bytes[2]);
        const uint8_t *last = p + size - 16;
        __m128i found = _mm_setzero_si128(), data;
        for (; p < last; p += 16, to += 16) {
            data = _mm_loadu_si128((const __m128i *)p);
            _mm_storeu_si128((__m128i *)to, data);
            found = _mm_or_si128(found, _mm_or_si128(_mm_or_si128(
                _mm_cmpeq_epi8(data, a), _mm_cmpeq_epi8(data, b)), _mm_cmpeq_epi8(data, c)));
        }
        data = _mm_loadu_si128((const __m128i *)last);
        _mm_storeu_si128((__m128i *)(to + (last - p)), data);
        found = _mm_or_si128(found, _mm_or_si128(_mm_or_si128(
            _mm_cmpeq_epi8(data, a), _mm_cmpeq_epi8(data, b)), _mm_cmpeq_epi8(data, c)));
        return _mm_movemask_epi8(found);
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

    static inline int framecodec_copy_and_look(
        uint8_t *to, const uint8_t *p, Py_ssize_t size, const uint8_t *bytes)
    {
        memcpy(to, p, (size_t)size);
        if (bytes[0] == bytes[2])
            return memchr(p, bytes[0], (size_t)size) != NULL;
        return framecodec_find_any(p, p + size, bytes) != NULL;
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
    # Copy at least 16 bytes, and return whether one of three was among them.
    bint copy_and_look "framecodec_copy_and_look" (
        uint8_t* to, const uint8_t* p, Py_ssize_t size, const uint8_t* three
    ) noexcept nogil
    Py_ssize_t count_byte "framecodec_count_byte" (
        const uint8_t* p, const uint8_t* end, uint8_t byte
    ) noexcept nogil
