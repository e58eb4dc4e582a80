# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Write the frames of many messages, one after the other, for the compiled encoder.

There is one loop for each of the commonest kinds of length field and of heads. In most heads what
is before the length field, the bytes of the message there, the field and what ends its digits are
8 bytes or less: they are calculated as one word, and stored at once. The loops are C because each
of them must be compiled for itself, with its kind as a constant, and because they must hold the
numbers of the head in registers.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

# Its C code is used here.
from ._sized_heads cimport short_decimals


cdef extern from *:
    """
    #ifndef FRAMECODEC_FRAME_RUNS
    #define FRAMECODEC_FRAME_RUNS

    #if defined(_MSC_VER)
    #define FRAMECODEC_ALWAYS_INLINE static __forceinline
    #define FRAMECODEC_SWAP _byteswap_uint64
    #else
    #define FRAMECODEC_ALWAYS_INLINE static inline __attribute__((always_inline))
    #define FRAMECODEC_SWAP __builtin_bswap64
    #endif

    /* The kinds of length field, as in _sized_heads.pxd. */
    enum {
        FRAMECODEC_BIG = 1,
        FRAMECODEC_LITTLE,
        FRAMECODEC_VARINT,
        FRAMECODEC_DECIMAL,
        FRAMECODEC_HEX,
        FRAMECODEC_DECIMAL_TEXT,
        FRAMECODEC_HEX_TEXT,
        FRAMECODEC_NONE
    };

    /* The kinds of head. */
    enum {
        FRAMECODEC_SIZED,        /* one word, which depends on the message's size alone */
        FRAMECODEC_SIZED_BEFORE, /* at most 8 bytes, and such a word */
        FRAMECODEC_WORD,         /* one word */
        FRAMECODEC_BEFORE,       /* what is before the lead; one word */
        FRAMECODEC_LEAD,         /* the lead; the length field in a word */
        FRAMECODEC_PIECES        /* what is before the lead; the lead; the length field in a word */
    };

    /* What 8 bytes of a message must have: ((the bytes) ^ wanted) & compared == 0. */
    typedef struct {
        Py_ssize_t at;
        uint64_t compared;
        uint64_t wanted;
    } framecodec_window;

    struct framecodec_run;

    /* Writes messages `first` and so on, up to one that must be written otherwise, and returns the
       number of that one.

       sure: For each byte whether a message may have it at the position `known`.
       end: The place of the first frame; it becomes the end of the last one. */
    typedef Py_ssize_t (*framecodec_loop)(
        const struct framecodec_run *run, const uint8_t *sure, Py_ssize_t known, uint8_t **end,
        PyObject **messages, Py_ssize_t first, Py_ssize_t count);

    /* The numbers of a head that its loop needs. */
    typedef struct framecodec_run {
        framecodec_loop write; /* NULL: there is no loop */
        int form;
        int how; /* the length field is written */
        Py_ssize_t least; /* messages have least .. least + span bytes */
        uint64_t span;
        Py_ssize_t not_counted;
        /* What the message must have: of (size - not_counted), of its first 8 bytes, and of other
           windows. */
        uint64_t size_compared;
        uint64_t size_wanted;
        uint64_t compared;
        uint64_t wanted;
        int window_count;
        const framecodec_window *windows;
        framecodec_window first_window; /* all zeros without windows */
        /* The word, the first byte in its lowest bits: what is always the same, the bits of the
           message's first 8 bytes and how far they are shifted, and how far the length is turned.
           The size of the word without the part that varies. */
        uint64_t same;
        uint64_t lead_mask;
        int lead_shift;
        int turn;
        int unit_shift; /* of other lengths than binary numbers */
        int unused_bits;
        Py_ssize_t word_size;
        uint64_t text_end;
        /* Of PIECES, and the first two of BEFORE and LEAD. */
        uint8_t before[24];
        uint64_t first_before; /* its first 8 bytes */
        Py_ssize_t before_size;
        Py_ssize_t lead_size;
        uint64_t own_lead;
        int has_kept;
        int kept_turn;
        /* After the head. */
        Py_ssize_t carried; /* bytes of the message before its rest */
        uint64_t trailer;
        Py_ssize_t trailer_size;
        uint64_t over; /* what `align` is more than 1 */
    } framecodec_run;

    /* 8 bytes as a number, the first one in its lowest bits. */
    FRAMECODEC_ALWAYS_INLINE uint64_t framecodec_load_word(const uint8_t *p)
    {
        uint64_t word;
        memcpy(&word, p, 8);
    #if !PY_LITTLE_ENDIAN
        word = FRAMECODEC_SWAP(word);
    #endif
        return word;
    }

    FRAMECODEC_ALWAYS_INLINE void framecodec_store_word(uint8_t *p, uint64_t word)
    {
    #if !PY_LITTLE_ENDIAN
        word = FRAMECODEC_SWAP(word);
    #endif
        memcpy(p, &word, 8);
    }

    FRAMECODEC_ALWAYS_INLINE uint64_t framecodec_misses(
        const framecodec_window *window, const uint8_t *message)
    {
        uint64_t word;
        memcpy(&word, message + window->at, 8);
        return (word ^ window->wanted) & window->compared;
    }

    FRAMECODEC_ALWAYS_INLINE uint64_t framecodec_turned(uint64_t word, int by)
    {
        return word << (by & 63) | word >> (-by & 63);
    }

    /* As copy() of _numbers.pxd. */
    FRAMECODEC_ALWAYS_INLINE void framecodec_copy_rest(
        uint8_t *to, const uint8_t *data, Py_ssize_t size)
    {
        if (size > 64)
            memcpy(to, data, (size_t)size);
        else if (size >= 16) {
            memcpy(to, data, 16);
            if (size > 32) {
                memcpy(to + 16, data + 16, 16);
                memcpy(to + size - 32, data + size - 32, 16);
            }
            memcpy(to + size - 16, data + size - 16, 16);
        }
        else if (size >= 8) {
            memcpy(to, data, 8);
            memcpy(to + size - 8, data + size - 8, 8);
        }
        else if (size >= 4) {
            memcpy(to, data, 4);
            memcpy(to + size - 4, data + size - 4, 4);
        }
        else if (size) {
            to[0] = data[0];
            to[size >> 1] = data[size >> 1];
            to[size - 1] = data[size - 1];
        }
    }

    /* A length that is not a binary number of a fixed size, and the end of its digits. `added`
       becomes the size that varies: of a varint without its first byte, or of a text's digits. */
    FRAMECODEC_ALWAYS_INLINE uint64_t framecodec_number(
        uint64_t value, const int how, int unused_bits, uint64_t text_end, Py_ssize_t *added)
    {
        const int is_hex = how == FRAMECODEC_HEX || how == FRAMECODEC_HEX_TEXT;
        uint64_t digits, size = 4;
        if (how == FRAMECODEC_VARINT) {
            *added = value > 0x7F;
            return (value & 0x7F) | (uint64_t)*added << 7 | value >> 7 << 8;
        }
        if (how == FRAMECODEC_DECIMAL || how == FRAMECODEC_HEX) {
            digits = is_hex ? framecodec_four_hex(value) : framecodec_four_decimals(value);
            return digits >> unused_bits;
        }
        if (value < 1000) {
            digits = is_hex ? framecodec_short_hex[value] : framecodec_short_decimals[value];
            size = digits >> 24;
            digits &= 0xFFFFFF;
        }
        else if (is_hex) {
            size -= value < 0x1000;
            digits = framecodec_four_hex(value) >> (32 - 8 * size);
        }
        else
            digits = framecodec_four_decimals(value);
        *added = (Py_ssize_t)size;
        return digits | text_end << 8 * size;
    }

    FRAMECODEC_ALWAYS_INLINE Py_ssize_t framecodec_write_frames(
        const framecodec_run *run, const uint8_t *sure, Py_ssize_t known, uint8_t **end,
        PyObject **messages, Py_ssize_t first, Py_ssize_t count,
        const int form, const int how, const int has_more)
    {
        const int is_sized = form == FRAMECODEC_SIZED || form == FRAMECODEC_SIZED_BEFORE;
        const framecodec_run head = *run; /* which the stores to the frames cannot change */
        uint8_t *p = *end;
        for (; first < count; first++) {
            const uint8_t *message = (const uint8_t *)PyBytes_AS_STRING(messages[first]);
            Py_ssize_t size = PyBytes_GET_SIZE(messages[first]);
            uint64_t value = (uint64_t)(size - head.not_counted);
            uint64_t start = 0, word = head.same, odd;
            Py_ssize_t added = 0;
            uint8_t *frame = p;
            int i;
            if ((uint64_t)(size - head.least) > head.span)
                break;
            if (!is_sized) {
                if (!sure[message[known]])
                    break;
                start = framecodec_load_word(message);
                odd = (start ^ head.wanted) & head.compared;
                odd |= (value ^ head.size_wanted) & head.size_compared;
                if (has_more)
                    odd |= framecodec_misses(&head.first_window, message);
                if (has_more && head.window_count > 1)
                    for (i = 1; i < head.window_count; i++)
                        odd |= framecodec_misses(&run->windows[i], message);
                if (odd)
                    break;
            }
            if (form == FRAMECODEC_SIZED_BEFORE || form == FRAMECODEC_BEFORE
                || form == FRAMECODEC_PIECES) {
                memcpy(p, &head.first_before, 8);
                if (!is_sized && head.before_size > 8)
                    memcpy(p + 8, run->before + 8, 16);
                p += head.before_size;
            }
            if (form == FRAMECODEC_LEAD || form == FRAMECODEC_PIECES) {
                framecodec_store_word(p, start | head.own_lead);
                if ((form == FRAMECODEC_PIECES || has_more) && head.lead_size > 8)
                    memcpy(p + 8, message + 8, 16);
                p += head.lead_size;
            }
            else if (!is_sized && how != FRAMECODEC_NONE)
                word |= start << head.lead_shift & head.lead_mask;
            if (how == FRAMECODEC_BIG || how == FRAMECODEC_LITTLE) {
                value = framecodec_turned(value, head.turn);
                if (form == FRAMECODEC_PIECES && head.has_kept)
                    value |= (uint64_t)message[head.lead_size] << head.kept_turn;
                word |= how == FRAMECODEC_BIG ? FRAMECODEC_SWAP(value) : value;
            }
            else if (how != FRAMECODEC_NONE) {
                if (!is_sized)
                    value >>= head.unit_shift;
                word |= framecodec_number(value, how, head.unused_bits, head.text_end, &added)
                    << head.turn;
            }
            framecodec_store_word(p, word);
            p += head.word_size + added;
            size -= head.carried;
            framecodec_copy_rest(p, message + head.carried, size);
            p += size;
            memcpy(p, &head.trailer, 8);
            p += head.trailer_size;
            if (has_more && head.over) {
                memset(p, 0, 8);
                p += -(uint64_t)(p - frame) & head.over;
            }
        }
        *end = p;
        return first;
    }

    /* `has_more`: windows, or padding. */
    #define FRAMECODEC_LOOP(name, form, how, has_more) \\
        static Py_ssize_t framecodec_write_##name( \\
            const framecodec_run *run, const uint8_t *sure, Py_ssize_t known, uint8_t **end, \\
            PyObject **messages, Py_ssize_t first, Py_ssize_t count) \\
        { \\
            return framecodec_write_frames( \\
                run, sure, known, end, messages, first, count, form, how, has_more); \\
        }
    #define FRAMECODEC_LOOPS(name, form, has_more) \\
        FRAMECODEC_LOOP(name##_big, form, FRAMECODEC_BIG, has_more) \\
        FRAMECODEC_LOOP(name##_little, form, FRAMECODEC_LITTLE, has_more) \\
        FRAMECODEC_LOOP(name##_none, form, FRAMECODEC_NONE, has_more) \\
        FRAMECODEC_LOOP(name##_other, form, run->how, has_more) \\
        static framecodec_loop framecodec_##name##_loop(int how) \\
        { \\
            return how == FRAMECODEC_BIG ? framecodec_write_##name##_big \\
                : how == FRAMECODEC_LITTLE ? framecodec_write_##name##_little \\
                : how == FRAMECODEC_NONE ? framecodec_write_##name##_none \\
                : framecodec_write_##name##_other; \\
        }
    FRAMECODEC_LOOPS(sized, FRAMECODEC_SIZED, 0)
    FRAMECODEC_LOOP(sized_varint, FRAMECODEC_SIZED, FRAMECODEC_VARINT, 0)
    FRAMECODEC_LOOP(sized_text, FRAMECODEC_SIZED, FRAMECODEC_DECIMAL_TEXT, 0)
    FRAMECODEC_LOOP(sized_digits, FRAMECODEC_SIZED, FRAMECODEC_DECIMAL, 0)
    FRAMECODEC_LOOP(sized_hex, FRAMECODEC_SIZED, FRAMECODEC_HEX, 0)
    FRAMECODEC_LOOPS(sized_before, FRAMECODEC_SIZED_BEFORE, 0)
    FRAMECODEC_LOOPS(words, FRAMECODEC_WORD, 0)
    FRAMECODEC_LOOP(words_varint, FRAMECODEC_WORD, FRAMECODEC_VARINT, 0)
    FRAMECODEC_LOOP(words_text, FRAMECODEC_WORD, FRAMECODEC_DECIMAL_TEXT, 0)
    FRAMECODEC_LOOPS(more_words, FRAMECODEC_WORD, 1)
    FRAMECODEC_LOOPS(before, FRAMECODEC_BEFORE, 0)
    FRAMECODEC_LOOPS(leads, FRAMECODEC_LEAD, 0)
    FRAMECODEC_LOOPS(more_leads, FRAMECODEC_LEAD, 1)
    FRAMECODEC_LOOPS(pieces, FRAMECODEC_PIECES, 0)
    FRAMECODEC_LOOPS(more_pieces, FRAMECODEC_PIECES, 1)

    static inline PyObject **framecodec_items(PyObject *list)
    {
        return ((PyListObject *)list)->ob_item;
    }

    /* Returns the loop of a head that is filled in. */
    static framecodec_loop framecodec_loop_for(const framecodec_run *run)
    {
        const int how = run->how, has_more = run->window_count || run->over;
        if (run->form == FRAMECODEC_SIZED)
            return how == FRAMECODEC_VARINT ? framecodec_write_sized_varint
                : how == FRAMECODEC_DECIMAL_TEXT ? framecodec_write_sized_text
                : how == FRAMECODEC_DECIMAL ? framecodec_write_sized_digits
                : how == FRAMECODEC_HEX ? framecodec_write_sized_hex
                : framecodec_sized_loop(how);
        if (run->form == FRAMECODEC_SIZED_BEFORE)
            return framecodec_sized_before_loop(how);
        if (run->form == FRAMECODEC_WORD && has_more)
            return framecodec_more_words_loop(how);
        if (run->form == FRAMECODEC_WORD)
            return how == FRAMECODEC_VARINT ? framecodec_write_words_varint
                : how == FRAMECODEC_DECIMAL_TEXT ? framecodec_write_words_text
                : framecodec_words_loop(how);
        if (run->form == FRAMECODEC_BEFORE)
            return framecodec_before_loop(how);
        if (run->form == FRAMECODEC_LEAD)
            return has_more ? framecodec_more_leads_loop(how) : framecodec_leads_loop(how);
        return has_more ? framecodec_more_pieces_loop(how) : framecodec_pieces_loop(how);
    }
    #endif
    """
    enum: RUN_SIZED "FRAMECODEC_SIZED"
    enum: RUN_SIZED_BEFORE "FRAMECODEC_SIZED_BEFORE"
    enum: RUN_WORD "FRAMECODEC_WORD"
    enum: RUN_BEFORE "FRAMECODEC_BEFORE"
    enum: RUN_LEAD "FRAMECODEC_LEAD"
    enum: RUN_PIECES "FRAMECODEC_PIECES"

    ctypedef struct Window "framecodec_window":
        Py_ssize_t at
        uint64_t compared
        uint64_t wanted

    ctypedef struct FrameRun "framecodec_run"

    ctypedef Py_ssize_t (*FrameLoop "framecodec_loop")(
        const FrameRun*, const uint8_t*, Py_ssize_t, uint8_t**, PyObject**, Py_ssize_t, Py_ssize_t
    ) noexcept

    ctypedef struct FrameRun "framecodec_run":
        FrameLoop write
        int form
        int how
        Py_ssize_t least
        uint64_t span
        Py_ssize_t not_counted
        uint64_t size_compared
        uint64_t size_wanted
        uint64_t compared
        uint64_t wanted
        int window_count
        const Window* windows
        Window first_window
        uint64_t same
        uint64_t lead_mask
        int lead_shift
        int turn
        int unit_shift
        int unused_bits
        Py_ssize_t word_size
        uint64_t text_end
        uint8_t before[24]
        uint64_t first_before
        Py_ssize_t before_size
        Py_ssize_t lead_size
        uint64_t own_lead
        int has_kept
        int kept_turn
        Py_ssize_t carried
        uint64_t trailer
        Py_ssize_t trailer_size
        uint64_t over

    uint64_t load_word "framecodec_load_word" (const uint8_t*) noexcept nogil
    uint64_t turned "framecodec_turned" (uint64_t, int) noexcept nogil
    uint64_t swapped "FRAMECODEC_SWAP" (uint64_t) noexcept nogil
    FrameLoop loop_for "framecodec_loop_for" (const FrameRun*) noexcept nogil
    PyObject** items_of "framecodec_items" (list) noexcept
