# cython: language_level=3
"""The checksums that have a name, in C; `_checksums_py.py` has the same functions in Python.

CRC-32 by carry-less multiplication and CRC-32C by an instruction, on processors that have these
(Gopal and others, 'Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction',
Intel, 2009); else both, and the shorter CRCs, by eight tables (Kounavis and Berry, 'A Systematic
Approach to Building High Performance, Software-based, CRC generators', 2005). A module that uses
them calls `prepare_checksums` when it is loaded.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from ._numbers cimport (
    COVERS_BODY,
    COVERS_FRAME,
    COVERS_MESSAGE,
    Shape,
    copy,
    load,
    store,
    store_digits,
)

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    #include <immintrin.h>
    #define FRAMECODEC_X86 1
    #elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
    #include <arm_acle.h>
    #define FRAMECODEC_ARM 1
    #endif

    #ifndef FRAMECODEC_CHECKSUMS
    #define FRAMECODEC_CHECKSUMS

    #if defined(_MSC_VER) && !defined(__clang__)
    #include <intrin.h>
    #define framecodec_is_set(flag) _InterlockedOr8((flag), 0)
    #define framecodec_set(flag) ((void)_InterlockedExchange8((flag), 1))
    #else
    #define framecodec_is_set(flag) __atomic_load_n((flag), __ATOMIC_ACQUIRE)
    #define framecodec_set(flag) __atomic_store_n((flag), 1, __ATOMIC_RELEASE)
    #endif

    /* What a byte adds to the remainder with 0 to 7 bytes after it. */
    static uint32_t framecodec_crc32[8][256];
    static uint32_t framecodec_crc32c[8][256];
    static uint32_t framecodec_modbus[8][256];
    static uint32_t framecodec_xmodem[8][256]; /* both bytes of the remainder swapped */
    static uint32_t framecodec_x25[8][256];
    static uint32_t framecodec_crc8[8][256];
    static int framecodec_has_clmul, framecodec_has_crc32c;
    static uint64_t framecodec_folds[4]; /* by 64 bytes, by 16 bytes: low and high half */

    /* The first table is filled: fill the others. */
    static void framecodec_fill_others(uint32_t table[8][256])
    {
        for (int t = 1; t < 8; t++)
            for (int i = 0; i < 256; i++)
                table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 0xFF];
    }

    static void framecodec_fill_tables(uint32_t table[8][256], uint32_t polynomial)
    {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (value & 1 ? polynomial : 0);
            table[0][i] = value;
        }
        framecodec_fill_others(table);
    }

    static uint32_t framecodec_swap(uint32_t state)
    {
        return (state >> 8 | state << 8) & 0xFFFF;
    }

    /* Of the functions whose highest bit comes first. */
    static void framecodec_fill_forward(void)
    {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t xmodem = i << 8;
            uint32_t crc8 = i;
            for (int bit = 0; bit < 8; bit++) {
                xmodem = (xmodem << 1 ^ (xmodem & 0x8000 ? 0x1021 : 0)) & 0xFFFF;
                crc8 = (crc8 << 1 ^ (crc8 & 0x80 ? 7 : 0)) & 0xFF;
            }
            framecodec_xmodem[0][i] = framecodec_swap(xmodem);
            framecodec_crc8[0][i] = crc8;
        }
        framecodec_fill_others(framecodec_xmodem);
        framecodec_fill_others(framecodec_crc8);
    }

    /* x to a power, modulo the polynomial of CRC-32, bits reflected, one place to the left. */
    static uint64_t framecodec_power(int power)
    {
        uint32_t value = 0x80000000u;
        while (power--)
            value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
        return (uint64_t)value << 1;
    }

    /* Another interpreter may use the tables, or fill them with the same numbers, at any time. */
    static void framecodec_prepare_checksums(void)
    {
        static char prepared;
        if (framecodec_is_set(&prepared))
            return;
        framecodec_fill_tables(framecodec_crc32, 0xEDB88320u);
        framecodec_fill_tables(framecodec_crc32c, 0x82F63B78u);
        framecodec_fill_tables(framecodec_modbus, 0xA001);
        framecodec_fill_tables(framecodec_x25, 0x8408);
        framecodec_fill_forward();
        framecodec_folds[0] = framecodec_power(512 + 32);
        framecodec_folds[1] = framecodec_power(512 - 32);
        framecodec_folds[2] = framecodec_power(128 + 32);
        framecodec_folds[3] = framecodec_power(128 - 32);
    #ifdef FRAMECODEC_X86
        __builtin_cpu_init();
        framecodec_has_clmul = __builtin_cpu_supports("pclmul");
        framecodec_has_crc32c = __builtin_cpu_supports("sse4.2");
    #endif
        framecodec_set(&prepared);
    }

    /* A remainder of fewer bits is in the lowest ones. */
    static uint32_t framecodec_by_tables(
        uint32_t table[8][256], uint32_t state, const uint8_t *p, size_t size)
    {
        for (; size >= 8; p += 8, size -= 8) {
            state ^= p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
            state = table[7][state & 0xFF] ^ table[6][state >> 8 & 0xFF]
                ^ table[5][state >> 16 & 0xFF] ^ table[4][state >> 24]
                ^ table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
        }
        while (size--)
            state = state >> 8 ^ table[0][(state ^ *p++) & 0xFF];
        return state;
    }

    #ifdef FRAMECODEC_X86
    __attribute__((target("pclmul,sse2")))
    static __m128i framecodec_fold(__m128i sum, __m128i by, __m128i next)
    {
        return _mm_xor_si128(
            _mm_xor_si128(_mm_clmulepi64_si128(sum, by, 0), _mm_clmulepi64_si128(sum, by, 17)),
            next);
    }

    /* At least 64 bytes: they become 16 with the same remainder. */
    __attribute__((target("pclmul,sse2")))
    static uint32_t framecodec_by_folding(uint32_t state, const uint8_t *p, size_t size)
    {
        const __m128i *data = (const __m128i *)p;
        __m128i by = _mm_loadu_si128((const __m128i *)framecodec_folds);
        __m128i a = _mm_xor_si128(_mm_loadu_si128(data), _mm_cvtsi32_si128((int)state));
        __m128i b = _mm_loadu_si128(data + 1);
        __m128i c = _mm_loadu_si128(data + 2);
        __m128i d = _mm_loadu_si128(data + 3);
        uint8_t left[16];
        for (data += 4, size -= 64; size >= 64; data += 4, size -= 64) {
            a = framecodec_fold(a, by, _mm_loadu_si128(data));
            b = framecodec_fold(b, by, _mm_loadu_si128(data + 1));
            c = framecodec_fold(c, by, _mm_loadu_si128(data + 2));
            d = framecodec_fold(d, by, _mm_loadu_si128(data + 3));
        }
        by = _mm_loadu_si128((const __m128i *)(framecodec_folds + 2));
        a = framecodec_fold(framecodec_fold(framecodec_fold(a, by, b), by, c), by, d);
        for (; size >= 16; data++, size -= 16)
            a = framecodec_fold(a, by, _mm_loadu_si128(data));
        _mm_storeu_si128((__m128i *)left, a);
        state = framecodec_by_tables(framecodec_crc32, 0, left, 16);
        return framecodec_by_tables(framecodec_crc32, state, (const uint8_t *)data, size);
    }

    __attribute__((target("sse4.2")))
    static uint32_t framecodec_by_instruction(uint32_t state, const uint8_t *p, size_t size)
    {
        uint64_t sum = state, word;
        for (; size >= 8; p += 8, size -= 8) {
            memcpy(&word, p, 8);
            sum = _mm_crc32_u64(sum, word);
        }
        state = (uint32_t)sum;
        while (size--)
            state = _mm_crc32_u8(state, *p++);
        return state;
    }
    #endif

    static uint32_t framecodec_update_crc32(uint32_t state, const uint8_t *p, size_t size)
    {
    #ifdef FRAMECODEC_X86
        if (size >= 64 && framecodec_has_clmul)
            return framecodec_by_folding(state, p, size);
    #elif defined(FRAMECODEC_ARM)
        for (; size >= 8; p += 8, size -= 8) {
            uint64_t word;
            memcpy(&word, p, 8);
            state = __crc32d(state, word);
        }
    #endif
        return framecodec_by_tables(framecodec_crc32, state, p, size);
    }

    static uint32_t framecodec_update_crc32c(uint32_t state, const uint8_t *p, size_t size)
    {
    #ifdef FRAMECODEC_X86
        if (framecodec_has_crc32c)
            return framecodec_by_instruction(state, p, size);
    #elif defined(FRAMECODEC_ARM)
        for (; size >= 8; p += 8, size -= 8) {
            uint64_t word;
            memcpy(&word, p, 8);
            state = __crc32cd(state, word);
        }
    #endif
        return framecodec_by_tables(framecodec_crc32c, state, p, size);
    }

    /* Two sums, the second one of the first ones. A block is so long that neither overflows. */
    static void framecodec_two_sums(
        uint32_t *first, uint32_t *second, const uint8_t *p, size_t size, uint32_t modulus)
    {
        while (size) {
            size_t block = size < 4096 ? size : 4096;
            uint32_t a = *first, b = *second;
            size -= block;
            while (block--) {
                a += *p++;
                b += a;
            }
            *first = a % modulus;
            *second = b % modulus;
        }
    }

    static uint32_t framecodec_update_checksum(
        int number, uint32_t state, const uint8_t *p, Py_ssize_t count)
    {
        size_t size = (size_t)count;
        uint32_t first, second;
        switch (number) {
        case 0:
            return ~framecodec_update_crc32(~state, p, size);
        case 1:
            return ~framecodec_update_crc32c(~state, p, size);
        case 2:
            first = state & 0xFFFF;
            second = state >> 16;
            framecodec_two_sums(&first, &second, p, size, 65521);
            return second << 16 | first;
        case 3:
            return framecodec_by_tables(framecodec_modbus, state, p, size);
        case 4:
            state = framecodec_by_tables(framecodec_xmodem, framecodec_swap(state), p, size);
            return framecodec_swap(state);
        case 5:
            return framecodec_by_tables(framecodec_x25, state, p, size);
        case 6:
            return framecodec_by_tables(framecodec_crc8, state, p, size);
        case 7:
            while (size--)
                state += *p++;
            return state & 0xFF;
        case 8:
            while (size--)
                state ^= *p++;
            return state;
        default:
            first = state & 0xFF;
            second = state >> 8;
            framecodec_two_sums(&first, &second, p, size, 255);
            return second << 8 | first;
        }
    }
    #endif
    """
    void prepare_checksums "framecodec_prepare_checksums" () noexcept nogil
    uint32_t update_state "framecodec_update_checksum" (
        int number, uint32_t state, const uint8_t* data, Py_ssize_t size
    ) noexcept nogil


cdef inline uint64_t checksum_of(
    const Shape* shape,
    const uint8_t* start,
    Py_ssize_t start_size,
    const uint8_t* rest,
    Py_ssize_t rest_size,
) noexcept nogil:
    """Return the check of bytes in two pieces, by a function that has a name."""
    cdef uint32_t state = shape.check.first
    if start_size:
        state = update_state(shape.check.number, state, start, start_size)
    return update_state(shape.check.number, state, rest, rest_size) ^ shape.check.last


cdef inline void store_check(const Shape* shape, uint8_t* p, uint64_t value) noexcept nogil:
    """Write the bytes before a check, and the check."""
    memcpy(p, shape.check.before, shape.check.before_size)
    p += shape.check.before_size
    if shape.check.digits:
        store_digits(p, value, shape.check.width, 10)
    else:
        store(p, value, <int>shape.check.width, shape.check.little)


cdef inline bint is_check(const Shape* shape, const uint8_t* p, uint64_t value) noexcept nogil:
    """Return whether `p` has the bytes before a check, and the check."""
    cdef Py_ssize_t i
    if shape.check.before_size:
        if memcmp(p, shape.check.before, shape.check.before_size):
            return False
        p += shape.check.before_size
    if not shape.check.digits:
        return load(p, <int>shape.check.width, shape.check.little) == value
    for i in range(shape.check.width - 1, -1, -1):
        if p[i] != c'0' + value % 10:
            return False
        value //= 10
    return not value


cdef inline void write_ends(
    const Shape* shape,
    uint8_t* frame,
    uint8_t* rest_stop,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept nogil:
    """Write the check and the trailer of a frame whose rest is written."""
    cdef const uint8_t* covered = message + shape.message_lead
    cdef Py_ssize_t covered_size = size - shape.message_lead
    cdef uint8_t* place = rest_stop
    copy(rest_stop + shape.end_check_size, shape.trailer, shape.trailer_size)
    if not shape.has_check:
        return
    if shape.front_check_size:
        place -= covered_size + shape.front_check_size
    elif shape.check.covers == COVERS_MESSAGE:
        covered, covered_size = message, size
    elif shape.check.covers == COVERS_BODY:
        covered = frame + shape.magic_size
        covered_size = rest_stop - covered
    elif shape.check.covers == COVERS_FRAME:
        covered, covered_size = frame, rest_stop - frame
    store_check(shape, place, checksum_of(shape, NULL, 0, covered, covered_size))
