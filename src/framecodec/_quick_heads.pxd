# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Write the frames of the commonest messages with almost no branches, for the compiled encoder.

All that a codec owns before the rest of a message is written in pieces of fixed sizes, in the order
of the frame: each piece may be longer than needed, and the next one overwrites what is too much.
`_frame_writer.pxd` writes all other messages, and these in the same way.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from ._frame_writer cimport write_field, write_frame
from ._joins cimport write_fragment
from ._numbers cimport (
    BER,
    ChoiceNode,
    DIGITS,
    FIXED,
    LARGEST_SIZE,
    NOTHING,
    Shape,
    TEXT,
    UINT,
    VARINT,
    choose,
    copy,
    kept,
    numbers_of,
    padding_of,
    shape_in,
    store_varint,
)
from ._sized_heads cimport (
    SIZED_BIG,
    SIZED_LITTLE,
    SIZED_VARINT,
    SizedHead,
    fill_sized,
    four_decimals,
    four_hex,
    store_short_decimal,
    store_short_varint,
    store_word,
    store_word_backwards,
)

cdef enum:
    PIECE = 8  # the size of a piece
    MOST_BEFORE = 24  # as much as a codec can own before the lead, or after the length field
    MOST_WORDS = 4  # of 8 bytes, at the start of a message, that can be compared
    MOST_NODES = 16  # of a tree whose bytes are looked for in the message


# Of messages of other sizes. Called by its address: loops keep the registers for themselves.
ctypedef Py_ssize_t (*FrameWriter)(
    const Shape*, uint8_t*, const uint8_t*, Py_ssize_t
) noexcept nogil


ctypedef Py_ssize_t (*MoreWriter)(
    const void*, const Shape*, uint8_t*, const uint8_t*, Py_ssize_t, uint64_t
) noexcept nogil


# The last argument becomes the number of the alternative.
ctypedef Py_ssize_t (*ChosenWriter)(
    const void*, const Shape*, uint8_t*, const uint8_t*, Py_ssize_t, int*
) noexcept nogil


cdef struct QuickHead:
    # Of one layout. Messages of least .. least + span bytes are written here.
    Py_ssize_t least
    uint64_t span
    Py_ssize_t not_counted  # length = (message size - not_counted) / unit
    uint64_t unit_rest  # the bits of a size that is not a multiple of the unit
    int unit_shift
    bint little
    int unused_bits  # of a length field of 8 bytes
    bint is_simple  # nothing but what write_quick() does first
    int field  # how the length field is written there, as in _sized_heads.pxd
    bint has_more  # than what write_quick() writes for all
    # The frame: before, lead, length field, after, the rest of the message, trailer.
    uint8_t before[24]  # MOST_BEFORE
    Py_ssize_t before_size
    Py_ssize_t field_at
    Py_ssize_t rest_at
    Py_ssize_t carried  # bytes of the message before its rest
    Py_ssize_t owned  # the frame's size - the message's size; without a field that varies
    bint is_binary  # a field of a fixed size, perhaps 0; else of digits, or a VARINT, or BER
    # What the message must have: ((its bytes) ^ wanted) & compared == 0.
    int word_count
    uint8_t compared[32]
    uint8_t wanted[32]
    uint8_t after[24]
    Py_ssize_t after_size
    Py_ssize_t lead_size
    # Bits of a binary field: the codec's own, and those of a kept byte of the message.
    uint64_t own_bits
    bint has_kept
    int kept_shift
    # Bits that are set when all is written, of all other kept bytes and own bits.
    int kept_size
    int own_count
    Py_ssize_t own_offsets[4]
    uint8_t own_values[4]
    FrameWriter write_other
    MoreWriter write_more
    ChosenWriter write_any  # the frame of any alternative
    # Of an alternative of a choice: the bytes of the message at the root's first position for which
    # no earlier one can be meant; whether its frame is then certain to choose it.
    uint8_t sure[256]
    bint is_certain
    int start_node  # where the tree first asks for a byte that can vary
    int16_t positions[16]  # of each node's byte in the message; -1: look at the frame
    SizedHead sized


cdef inline const QuickHead* heads_in(bytes numbers) noexcept:
    return <const QuickHead*>PyBytes_AS_STRING(numbers)


cdef inline bytes quick_heads_of(layout):
    """Return the `QuickHead` of a layout, or those of the alternatives of a choice."""
    cdef dict structures = layout.structures
    cdef bytes heads = structures.get("heads")
    cdef QuickHead* head
    cdef const Shape* shape
    if heads is not None:
        return heads
    layouts = [layout] if layout.choice is None else layout.choice.layouts
    heads = PyBytes_FromStringAndSize(NULL, len(layouts) * sizeof(QuickHead))
    head = <QuickHead*>PyBytes_AS_STRING(heads)
    for each in layouts:
        memset(head, 0, sizeof(QuickHead))
        head.least = LARGEST_SIZE + 1
        head.write_any = write_chosen
        head.write_more = write_more
        head.write_other = write_fragment if layout.joined else write_frame
        shape = shape_in(numbers_of(each))
        if layout.choice is None or (shape.is_quick and not shape.has_specials):
            fill_head(head, shape, each)
        if layout.choice is None and not layout.joined:
            fill_sized(&head.sized, shape, each)
        head += 1
    if layout.choice is not None:
        head = <QuickHead*>PyBytes_AS_STRING(heads)
        fill_early_choices(head, shape_in(numbers_of(layout)), layout)
    return kept(layout, "heads", heads)


cdef inline int fill_head(QuickHead* head, const Shape* shape, layout) except -1:
    """Fill in a head; it is left as it is if no message of the layout is written here."""
    cdef Py_ssize_t head_size, needed
    cdef int i
    low, span = layout.quick_range
    unit, mask = layout.unit, layout.mask
    joined = layout.joined
    if (
        not (shape.is_quick or shape.joined)
        or span < 0
        or unit & (unit - 1)
        or mask & (mask + 1)
        or shape.has_check
        or shape.align & (shape.align - 1)
        or shape.magic_size > MOST_BEFORE
    ):
        return 0
    high = low + span
    if shape.kind == UINT:
        keys = [wide.key for wide in layout.wider]
        # Not min(): Cython keeps that function for all interpreters.
        high = sorted(
            [high, layout.plain_max, mask or layout.plain_max, *[key - 1 for key in keys]]
        )[0]
    if shape.kind == VARINT:
        high = sorted([high, 0x3FFF])[0]
    elif shape.kind == BER:
        high = sorted([high, 0x7F])[0]
    first, last = low * unit + layout.adjustment, high * unit + layout.adjustment
    if joined is not None and not joined.first_size:
        # The content of one fragment is the message. What else its head has is always the same.
        if shape.kind != UINT or joined.blank[: shape.message_lead].strip(b"\0"):
            return 0
        after = joined.blank[shape.message_lead :]
        first, last = first - len(after), last - len(after)
        if len(after) > MOST_BEFORE or shape.lead_size:
            return 0
        head.after_size = len(after)
        memcpy(head.after, <const char*>after, len(after))
        head.not_counted = layout.adjustment - len(after)
    else:
        head.carried = shape.message_lead
        first, last = first + head.carried, last + head.carried
        head.kept_size = shape.kept_size
        head.not_counted = shape.message_lead + shape.adjustment
        for i in range(shape.own_count):
            head.own_offsets[i] = shape.own[i].offset
            head.own_values[i] = shape.own[i].value
        head.own_count = shape.own_count
        if not fill_compared(head, layout):
            return 0
    if joined is not None:  # a message of one fragment is an ordinary one but for one bit
        first = max(first, joined.first_size)
        last = min(last, joined.first_size + joined.fragment_size)
        if joined.full >= 0:
            last = min(last, joined.first_size + joined.full - 1)
        if shape.last_mask:
            head.own_offsets[0] = shape.last_offset
            head.own_values[0] = shape.last_value
            head.own_count = 1
    memcpy(head.before, shape.magic, shape.magic_size)
    head.before_size = shape.magic_size
    head.lead_size = shape.lead_size
    head.is_binary = shape.kind == UINT or shape.kind == FIXED
    head.little = shape.little
    head.unused_bits = 64 - 8 * shape.width if shape.kind == UINT else 0
    head.unit_rest = unit - 1
    unit_is_one = unit == 1
    while unit > 1:
        unit >>= 1
        head.unit_shift += 1
    head.field_at = head.before_size + head.lead_size
    head_size = head.field_at + head.after_size
    if shape.kind == UINT:
        head_size += shape.width
    head.rest_at = head_size
    head.owned = head_size - head.carried + shape.trailer_size
    if head.own_count == 1 and shape.kind == UINT:
        i = <int>(head.own_offsets[0] - head.field_at)
        if 0 <= i < shape.width:
            head.own_bits = <uint64_t>head.own_values[0] << place_in_value(shape, i)
            head.own_count = 0
    if head.kept_size == 1 and shape.kind == UINT:
        head.has_kept = True
        head.kept_shift = place_in_value(shape, shape.kept[0])
        head.kept_size = 0
    head.has_more = (
        head.before_size > PIECE
        or head.lead_size > PIECE
        or shape.align > 1
        or head.after_size
        or head.kept_size
        or head.own_count
    )
    head.field = SIZED_LITTLE if head.little else SIZED_BIG
    if shape.kind == VARINT or shape.kind == BER:
        head.field = SIZED_VARINT
    head.is_simple = (
        (head.is_binary or head.field == SIZED_VARINT)
        and not (head.has_more or head.has_kept or head.own_bits)
        and unit_is_one
        and head.word_count <= 1
        and not shape.trailer_size
    )
    if not (head.has_more or head.is_binary):
        head.write_more = write_varying
    head.has_more |= not head.is_binary
    # No piece may pass the end of the smallest message or frame.
    needed = max(head.before_size, head.field_at) + PIECE
    first = max(first, head.carried + needed - head_size, PIECE, 8 * head.word_count)
    last = min(last, shape.message_max)
    if first <= last:
        head.least = first
        head.span = last - first
    return 0


cdef inline int place_in_value(const Shape* shape, int pos) noexcept:
    """Return the place of the lowest bit of a byte of the length field in its value."""
    return 8 * pos if shape.little else 8 * (shape.width - 1 - pos)


cdef inline bint fill_compared(QuickHead* head, layout) except -1:
    """Fill in what a message must have; return False if a part is too far from its start."""
    must: dict = {}
    for offset, constant in layout.constants:
        for at, byte in enumerate(constant, layout.message_position(offset)):
            must[at] = (0xFF, byte)
    for own in layout.own_bits:
        at = layout.message_position(own.offset)
        mask, byte = must.get(at, (0, 0))
        if byte & own.mask:
            return False
        must[at] = (mask | own.mask, byte)
    if layout.joined is not None and layout.joined.last_mask:
        at = layout.message_position(layout.joined.last_offset)
        mask, byte = must.get(at, (0, 0))
        if byte & layout.joined.last_mask:
            return False
        must[at] = (mask | layout.joined.last_mask, byte)
    if layout.kept:
        field_mask = layout.mask.to_bytes(layout.field_width, layout.byteorder)
        for at, position in enumerate(layout.kept, layout.lead_size):
            mask, byte = must.get(at, (0, 0))
            if byte & field_mask[position]:
                return False
            must[at] = (mask | field_mask[position], byte)
    for at, (mask, byte) in must.items():
        if at >= 8 * MOST_WORDS:
            return False
        head.compared[at] = mask
        head.wanted[at] = byte
        head.word_count = max(head.word_count, at // 8 + 1)
    return True


cdef inline int fill_early_choices(QuickHead* heads, const Shape* root, layout) except -1:
    """Fill in how it is found what a frame chooses. The import is here as in `fill_check`."""
    from framecodec._early_choice import early_choices

    cdef int i
    cdef int number = 0
    bytes_allowed = []
    ranges = []
    for number in range(root.alternative_count):
        bytes_allowed.append(
            frozenset([i for i in range(256) if root.gates[number].allowed[i]])
            if root.gates[number].position == root.first_position
            else None
        )
        ranges.append((heads[number].least, heads[number].least + <Py_ssize_t>heads[number].span))
    for choice in early_choices(layout, root.first_position, bytes_allowed, ranges):
        for byte in choice.sure:
            heads.sure[<int>byte] = True
        heads.is_certain = choice.is_certain
        heads.start_node = choice.start
        for i, position in enumerate(choice.positions[:MOST_NODES]):
            heads.positions[i] = position
        heads += 1
    return 0


cdef inline int choose_early(
    const QuickHead* head, const Shape* root, const uint8_t* frame, const uint8_t* message
) noexcept nogil:
    """Return what a written frame chooses; it is as long as its head at least."""
    cdef const ChoiceNode* node
    cdef int number = head.start_node
    cdef int found
    cdef int position
    while True:
        node = &root.nodes[number]
        position = head.positions[number] if number < MOST_NODES else -1
        found = node.nexts[message[position] if position >= 0 else frame[node.offset]]
        if found >= 0 or found == NOTHING:
            return found
        number = -1 - found


cdef inline uint64_t word_at(const uint8_t* p) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, p, 8)
    return word


cdef inline Py_ssize_t write_quick(
    const QuickHead* head,
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept nogil:
    """Do what `write_frame` does, for a message whose size is in the head's range."""
    cdef uint64_t value = <uint64_t>(size - head.not_counted)
    cdef uint64_t odd
    cdef uint8_t* field = frame + head.field_at
    cdef uint8_t* rest = frame + head.rest_at
    cdef int i
    if head.is_simple:  # most are
        if (word_at(message) ^ word_at(head.wanted)) & word_at(head.compared):
            return 0
        memcpy(frame, head.before, 8)
        memcpy(frame + head.before_size, message, 8)
        if head.field == SIZED_BIG:
            store_word_backwards(field, value << head.unused_bits)
        elif head.field == SIZED_LITTLE:
            store_word(field, value)
        else:
            i = store_short_varint(field, value)
            rest += i
            copy(rest, message + head.carried, size - head.carried)
            return size + head.owned + i
        copy(rest, message + head.carried, size - head.carried)
        return size + head.owned
    odd = value & head.unit_rest
    odd |= (word_at(message) ^ word_at(head.wanted)) & word_at(head.compared)
    if head.word_count > 1:
        for i in range(1, head.word_count):
            odd |= (word_at(message + 8 * i) ^ word_at(head.wanted + 8 * i)) & word_at(
                head.compared + 8 * i
            )
    if odd:
        return 0
    # The place of the next frame must not wait for any of this: see the returned size.
    value = value >> head.unit_shift | head.own_bits
    if head.has_kept:
        value |= <uint64_t>message[head.lead_size] << head.kept_shift
    memcpy(frame, head.before, 8)
    memcpy(frame + head.before_size, message, 8)
    if head.little:
        store_word(field, value)
    else:
        store_word_backwards(field, value << head.unused_bits)
    if head.has_more:
        return head.write_more(head, shape, frame, message, size, value)
    copy(frame + head.rest_at, message + head.carried, size - head.carried)
    size += head.owned
    if shape.trailer_size:
        copy(frame + size - shape.trailer_size, shape.trailer, shape.trailer_size)
    return size


cdef inline Py_ssize_t write_varying_field(
    const Shape* shape, uint8_t* field, const uint8_t* message, uint64_t value
) noexcept nogil:
    """Write a length field of digits, or one whose size varies, and return its size."""
    cdef Py_ssize_t size
    if shape.kind == TEXT and shape.base == 10 and value < 10000:
        size = store_short_decimal(field, value)
        field += size
        field[0] = shape.end[0]
        if shape.end_size > 1:
            copy(field, shape.end, shape.end_size)
        return size + shape.end_size
    if shape.kind == VARINT:
        return store_varint(field, value)
    if shape.kind == BER and value < 0x80:
        field[0] = <uint8_t>value
        return 1
    if shape.kind == DIGITS and shape.width == 4:
        store_word(field, four_decimals(value) if shape.base == 10 else four_hex(value))
        return 4
    return write_field(shape, field, message, value)


cdef inline Py_ssize_t write_varying(
    const void* quick_head,
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
    uint64_t value,
) noexcept nogil:
    """Write the rest of a frame whose length field varies in size, or is in digits."""
    cdef const QuickHead* head = <const QuickHead*>quick_head
    cdef Py_ssize_t field_size = write_varying_field(
        shape, frame + head.field_at, message, value
    )
    copy(frame + head.rest_at + field_size, message + head.carried, size - head.carried)
    size += head.owned + field_size
    if shape.trailer_size:
        copy(frame + size - shape.trailer_size, shape.trailer, shape.trailer_size)
    return size


cdef inline Py_ssize_t write_more(
    const void* quick_head,
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
    uint64_t value,
) noexcept nogil:
    """Write the rest of a frame that has more than most have."""
    cdef const QuickHead* head = <const QuickHead*>quick_head
    cdef uint8_t* field = frame + head.field_at
    cdef Py_ssize_t field_size = 0  # where it varies
    cdef Py_ssize_t padding
    cdef int i
    if head.before_size > PIECE:
        copy(frame + PIECE, head.before + PIECE, head.before_size - PIECE)
    if head.lead_size > PIECE:
        copy(
            frame + head.before_size + PIECE, message + PIECE, head.lead_size - PIECE
        )
    if not head.is_binary:
        field_size = write_varying_field(shape, field, message, value)
    if head.after_size:
        copy(frame + head.rest_at - head.after_size, head.after, head.after_size)
    for i in range(head.kept_size):
        field[shape.kept[i]] |= message[head.lead_size + i]
    copy(frame + head.rest_at + field_size, message + head.carried, size - head.carried)
    for i in range(head.own_count):
        frame[head.own_offsets[i]] |= head.own_values[i]
    size += head.owned + field_size
    if shape.trailer_size:
        copy(frame + size - shape.trailer_size, shape.trailer, shape.trailer_size)
    padding = padding_of(shape, size)
    if padding:
        memset(frame + size, 0, padding)
    return size + padding


cdef inline bint is_in_range(const QuickHead* head, Py_ssize_t size) noexcept nogil:
    return <uint64_t>(size - head.least) <= head.span


cdef inline Py_ssize_t write_chosen(
    const void* heads,
    const Shape* root,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
    int* number,
) noexcept nogil:
    """Write the frame by the first alternative that it chooses."""
    cdef const QuickHead* head
    cdef const Shape* shape
    cdef Py_ssize_t pos, frame_size
    cdef int i = 0
    if root.first_position < size:
        i = root.firsts[message[root.first_position]]
    while i < root.alternative_count:
        pos = root.gates[i].position
        if not 0 <= pos < size or root.gates[i].allowed[message[pos]]:
            shape = root.alternatives[i]
            head = <const QuickHead*>heads + i
            if is_in_range(head, size):
                frame_size = write_quick(head, shape, frame, message, size)
                if frame_size and choose_early(head, root, frame, message) == i:
                    number[0] = i
                    return frame_size
            elif not shape.is_quick or shape.has_specials:
                return 0
            else:
                frame_size = head.write_other(shape, frame, message, size)
                if frame_size and choose(root, frame, frame_size) == i:
                    number[0] = i
                    return frame_size
        i += 1
    return 0
