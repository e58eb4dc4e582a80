# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""Write the frames of the commonest messages with almost no branches, for the compiled encoder.

A frame is: before, lead, length field, what ends its digits, after, the rest of the message,
trailer, padding. Each of the pieces up to the rest is written as 8 bytes, and the next one
overwrites what is too much: so the memory has `SPARE` bytes more, or the frame is longer than
that. `_frame_writer.pxd` writes all other messages, and these in the same way.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from ._block_scan cimport try_header_block
from ._byte_search cimport copy_and_look
from ._frame_runs cimport (
    FrameRun,
    RUN_BEFORE,
    RUN_LEAD,
    RUN_PIECES,
    RUN_SIZED,
    RUN_SIZED_BEFORE,
    RUN_WORD,
    Window,
    load_word,
    loop_for,
    swapped,
    turned,
)
from ._frame_writer cimport write_field, write_frame, write_marked
from ._joins cimport write_fragment
from ._marks cimport Marks, mark_numbers_of, marks_in
from ._numbers cimport (
    BER,
    ChoiceNode,
    DIGITS,
    FIXED,
    HEADERS,
    LARGEST_SIZE,
    NOTHING,
    Shape,
    TEXT,
    UINT,
    VARINT,
    bytes_at,
    choose,
    copy,
    kept,
    numbers_of,
    padding_of,
    shape_in,
)
from ._sized_heads cimport (
    Piece,
    PyList_GET_ITEM,
    SIZED_BIG,
    SIZED_DECIMAL,
    SIZED_DECIMAL_TEXT,
    SIZED_HEX,
    SIZED_HEX_TEXT,
    SIZED_LITTLE,
    SIZED_NONE,
    SIZED_OTHER,
    SIZED_VARINT,
    bytes_size,
    piece_of,
    store_sized,
    write_piece,
)

cdef enum:
    PIECE = 8  # the size of a piece
    MOST_BEFORE = 24  # as much as a codec can own before the lead, or after the length field
    MOST_LEAD = 64
    MOST_WINDOWS = 4
    LONG_PIECE = 16
    MOST_NODES = 16  # of a tree whose bytes are looked for in the message; as in _early_choice.py

# Whether there is a loop for the frames of a head.
cdef enum:
    NO_RUN
    FRAME_RUN  # of `_frame_runs.pxd`
    LINE_RUN  # of an alternative that an end mark ends


# Of messages of other sizes. Called by its address: loops keep the registers for themselves.
ctypedef Py_ssize_t (*FrameWriter)(
    const Shape*, uint8_t*, const uint8_t*, Py_ssize_t
) noexcept nogil


# Of frames that have more than most have. Called by its address too: a caller that writes one frame
# then saves few registers.
ctypedef Py_ssize_t (*RarerWriter)(
    const void*, const Shape*, uint8_t*, const uint8_t*, Py_ssize_t
) noexcept nogil


# The last argument becomes the number of the alternative.
ctypedef Py_ssize_t (*ChosenWriter)(
    const void*, const Shape*, uint8_t*, const uint8_t*, Py_ssize_t, int*
) noexcept nogil


cdef struct Pieces:
    # How the frames of a layout are written: the numbers that a loop keeps in registers.
    Py_ssize_t not_counted  # length = (message size - not_counted) >> unit_shift
    int unit_shift
    # What the message must have: the same of (message size - not_counted), of its first 8 bytes,
    # and of other windows.
    uint64_t size_compared
    uint64_t size_wanted
    uint64_t compared
    uint64_t wanted
    int window_count
    const Window* windows
    uint64_t before  # its first 8 bytes, as the memory has them
    Py_ssize_t before_size
    Py_ssize_t lead_size
    uint64_t own_lead  # the codec's bits in the lead, among its first 8 bytes
    int how  # the length field is written
    int unused_bits
    Py_ssize_t field_size  # 0 where it varies
    # Bits of a binary field: the codec's own, and those of a kept byte of the message.
    uint64_t own_bits
    bint has_kept
    int kept_shift
    uint64_t end
    Py_ssize_t end_size
    Py_ssize_t carried  # bytes of the message before its rest
    Py_ssize_t trailer_size
    uint64_t trailer  # its first 8 bytes
    uint64_t over  # what `align` is more than 1
    bint has_more  # what `Rarities` say


cdef struct Rarities:
    # What few frames have.
    uint8_t before[24]  # MOST_BEFORE: all of it
    uint8_t after[24]
    Py_ssize_t after_size
    # Bits that are set when all is written, of other kept bytes and own bits.
    int kept_size
    int own_count
    Py_ssize_t own_offsets[4]
    uint8_t own_values[4]


cdef struct QuickHead:
    # Of one layout. Messages of least .. least + span bytes are written here.
    Py_ssize_t least
    uint64_t span
    Pieces pieces
    Rarities rarities
    Window windows[4]  # MOST_WINDOWS
    int run
    bint is_short  # messages of at least 8 bytes are written by `write_short`
    FrameRun frames
    bint is_whole  # all messages of the layout are written here
    bint can_write_other  # any other message is written by `write_other`, or `marks`, or not at all
    FrameWriter write_other
    RarerWriter write_rarer
    ChosenWriter write_any  # the frame of any alternative
    const Marks* marks  # of an alternative that an end mark ends, without escapes, ...
    const uint8_t* magic  # ... and what its frames begin with
    Py_ssize_t magic_size
    # Of an alternative of a choice: the bytes of the message at the root's first position for which
    # no earlier one can be meant; whether its frame is then certain to choose it.
    uint8_t sure[256]
    bint is_certain
    int start_node  # where the tree first asks for a byte that can vary
    int16_t positions[16]  # of each node's byte in the message; -1: look at the frame


cdef inline const QuickHead* heads_in(bytes numbers) noexcept:
    return <const QuickHead*>PyBytes_AS_STRING(numbers)


cdef inline bytes quick_heads_of(layout):
    """Return the `QuickHead` of a layout, or those of the alternatives of a choice."""
    cdef dict structures = layout.structures
    cdef bytes heads = structures.get("heads")
    cdef QuickHead* head
    cdef const Shape* shape
    cdef Py_ssize_t deepest = 0
    if heads is not None:
        return heads
    layouts = [layout] if layout.choice is None else layout.choice.layouts
    heads = PyBytes_FromStringAndSize(NULL, len(layouts) * sizeof(QuickHead))
    head = <QuickHead*>PyBytes_AS_STRING(heads)
    musts = []
    if layout.choice is not None:
        for node in layout.choice.nodes:
            deepest = max(deepest, <Py_ssize_t>node.offset)
    for each in layouts:
        memset(head, 0, sizeof(QuickHead))
        head.least = LARGEST_SIZE + 1
        head.write_any = write_chosen
        head.write_rarer = write_rarer
        shape = shape_in(numbers_of(each))
        head.write_other = write_fragment if layout.joined else write_frame
        head.can_write_other = shape.is_quick and not shape.has_specials
        if shape.kind == HEADERS and shape.keep:
            head.write_other = write_block
            head.can_write_other = not (shape.has_check or shape.has_specials)
        if layout.choice is not None and can_be_marked(each):
            head.marks = marks_in(mark_numbers_of(each))
            head.can_write_other = True
        must: dict = {}
        if layout.choice is None or (shape.is_quick and not shape.has_specials):
            fill_head(head, shape, each, must)
        elif not (each.own_bits or shape.has_check or shape.has_specials):
            fill_text_head(head, shape, each, deepest)
        musts.append(must)
        if layout.choice is None:
            memset(head.sure, True, sizeof(head.sure))
        head += 1
    if layout.choice is not None:
        head = <QuickHead*>PyBytes_AS_STRING(heads)
        fill_early_choices(head, shape_in(numbers_of(layout)), layout, musts)
    head = <QuickHead*>PyBytes_AS_STRING(heads)
    for _ in layouts:
        set_run(head, layout.choice is None)
        head += 1
    return kept(layout, "heads", heads)


cdef inline bint can_be_marked(layout) except -1:
    """Return whether the engine writes the frames of an alternative that an end mark ends."""
    return bool(layout.marks) and not (layout.has_changed_content or layout.inner_check_size)


cdef inline int fill_head(QuickHead* head, const Shape* shape, layout, dict must) except -1:
    """Fill in a head; its range is left as it is if no message of the layout is written here.

    Args:
        head: All zeros but the range, which is empty.
        shape: That of the layout.
        layout: The layout.
        must: What a message must have is added: by position the bits, and their values.
    """
    cdef Pieces* pieces = &head.pieces
    cdef Rarities* rarities = &head.rarities
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
        or shape.lead_size > MOST_LEAD
    ):
        return 0
    high = low + span
    pieces.how = SIZED_OTHER
    if shape.kind == UINT:
        keys = [wide.key for wide in layout.wider]
        # Not min(): Cython keeps that function for all interpreters.
        high = sorted(
            [high, layout.plain_max, mask or layout.plain_max, *[key - 1 for key in keys]]
        )[0]
        pieces.how = SIZED_LITTLE if shape.little else SIZED_BIG
        pieces.unused_bits = 64 - 8 * shape.width
        pieces.field_size = shape.width
    elif shape.kind == VARINT:
        high = sorted([high, 0x3FFF])[0]
        pieces.how = SIZED_VARINT
    elif shape.kind == BER:
        high = sorted([high, 0x7F])[0]
        pieces.how = SIZED_VARINT
    elif shape.kind == DIGITS and shape.width <= 4:
        pieces.how = SIZED_HEX if shape.base == 16 else SIZED_DECIMAL
        pieces.unused_bits = 32 - 8 * shape.width
        pieces.field_size = shape.width
    elif shape.kind == TEXT and shape.end_size <= PIECE:
        high = sorted([high, shape.base**4 - 1])[0]
        pieces.how = SIZED_HEX_TEXT if shape.base == 16 else SIZED_DECIMAL_TEXT
        pieces.end_size = shape.end_size
        memcpy(&pieces.end, shape.end, shape.end_size)
    elif shape.kind == FIXED:
        pieces.how = SIZED_NONE
    first, last = low * unit + layout.adjustment, high * unit + layout.adjustment
    if joined is not None and not joined.first_size:
        # The content of one fragment is the message. What else its head has is always the same.
        if shape.kind != UINT or joined.blank[: shape.message_lead].strip(b"\0"):
            return 0
        after = joined.blank[shape.message_lead :]
        first, last = first - len(after), last - len(after)
        if len(after) > MOST_BEFORE or shape.lead_size:
            return 0
        rarities.after_size = len(after)
        memcpy(rarities.after, <const char*>after, len(after))
        pieces.not_counted = layout.adjustment - len(after)
    else:
        pieces.carried = shape.message_lead
        first, last = first + pieces.carried, last + pieces.carried
        rarities.kept_size = shape.kept_size
        pieces.not_counted = shape.message_lead + shape.adjustment
        for i in range(shape.own_count):
            rarities.own_offsets[i] = shape.own[i].offset
            rarities.own_values[i] = shape.own[i].value
        rarities.own_count = shape.own_count
        if not add_needed(must, layout):
            return 0  # pragma: no cover (constructors refuse such codecs)
    if joined is not None:  # a message of one fragment is an ordinary one but for one bit
        first = max(first, joined.first_size)
        last = min(last, joined.first_size + joined.fragment_size)
        if joined.full >= 0:
            last = min(last, joined.first_size + joined.full - 1)
        if shape.last_mask:
            rarities.own_offsets[0] = shape.last_offset
            rarities.own_values[0] = shape.last_value
            rarities.own_count = 1
    memcpy(rarities.before, shape.magic, shape.magic_size)
    memcpy(&pieces.before, rarities.before, PIECE)
    pieces.before_size = shape.magic_size
    pieces.lead_size = shape.lead_size
    pieces.trailer_size = shape.trailer_size
    memcpy(&pieces.trailer, shape.trailer, min(shape.trailer_size, PIECE))
    pieces.over = shape.align - 1 if shape.align > 1 else 0
    pieces.size_compared = unit - 1
    while unit > 1:
        unit >>= 1
        pieces.unit_shift += 1
    if rarities.own_count == 1:
        place_own_bits(pieces, rarities, shape)
    if rarities.kept_size == 1 and shape.kind == UINT:
        pieces.has_kept = True
        pieces.kept_shift = place_in_value(shape, shape.kept[0])
        rarities.kept_size = 0
    pieces.has_more = (
        pieces.before_size > PIECE
        or shape.align > 1
        or rarities.after_size
        or rarities.kept_size
        or rarities.own_count
    )
    last = min(last, shape.message_max)
    first = max(first, fill_windows(head, must))
    if first <= last:
        head.least = first
        head.span = last - first
    head.is_whole = shape.kind == FIXED and first == last
    return 0


cdef inline int fill_text_head(
    QuickHead* head, const Shape* shape, layout, Py_ssize_t deepest
) except -1:
    """Fill in a head of an alternative whose frames are lines, or header blocks with their bodies.

    Its messages have at least the bytes that can choose, `deepest` is the frame offset of the last
    of them, and as many as `write_line_run` copies in one piece.
    """
    cdef Py_ssize_t least, most
    low, span = layout.quick_range
    if head.marks != NULL:
        if not head.marks.has_few_odd:
            return 0
        head.magic, head.magic_size = shape.magic, shape.magic_size
        head.write_rarer = write_line
    elif shape.kind == HEADERS and shape.keep and not shape.magic_size:
        head.write_rarer = write_whole_block
    else:
        return 0
    least = max(<Py_ssize_t>LONG_PIECE, deepest + 1, <Py_ssize_t>min(low, LARGEST_SIZE))
    most = min(shape.message_max, <Py_ssize_t>min(low + span, LARGEST_SIZE))
    if least <= most:
        head.least = least
        head.span = most - least
    return 0


cdef inline void set_run(QuickHead* head, bint is_alone) noexcept:
    """Find out whether there is a loop for the frames of a head that is filled in.

    Args:
        head: The head.
        is_alone: It is not that of an alternative.
    """
    cdef const Pieces* pieces = &head.pieces
    cdef const Rarities* rarities = &head.rarities
    if head.write_rarer != write_rarer:
        if head.marks != NULL and not pieces.window_count:
            head.run = LINE_RUN
        return
    if pieces.how == SIZED_OTHER or pieces.trailer_size > PIECE:
        return
    head.is_short = not (pieces.has_more or pieces.window_count or pieces.lead_size > PIECE)
    if (
        pieces.lead_size <= PIECE + LONG_PIECE
        and pieces.over < PIECE
        and not (rarities.after_size or rarities.kept_size or rarities.own_count)
    ):
        head.run = FRAME_RUN
        fill_run(head, is_alone)


cdef inline uint64_t bytes_mask(Py_ssize_t first, Py_ssize_t count) noexcept:
    """Return a word whose bytes from `first` on are set, the first byte in its lowest bits."""
    cdef uint64_t mask = 0
    cdef Py_ssize_t i
    for i in range(first, first + count):
        mask |= <uint64_t>0xFF << 8 * i
    return mask


cdef inline void fill_run(QuickHead* head, bint is_alone) noexcept:
    """Fill in what the loops of `_frame_runs.pxd` need."""
    cdef const Pieces* pieces = &head.pieces
    cdef FrameRun* run = &head.frames
    cdef Py_ssize_t before_size = pieces.before_size
    cdef Py_ssize_t lead_size = pieces.lead_size
    cdef Py_ssize_t fewest = pieces.field_size  # bytes of the field, with the end of its digits
    cdef Py_ssize_t most = pieces.field_size
    cdef Py_ssize_t at = 0  # of the length field in the word
    cdef Py_ssize_t least = PIECE
    cdef int how = pieces.how
    cdef bint is_binary = how == SIZED_BIG or how == SIZED_LITTLE
    cdef bint kept_first  # the kept byte follows the lead, as in the message
    cdef bint has_more, is_sized
    if how == SIZED_VARINT:
        fewest, most = 1, 2
    elif how == SIZED_DECIMAL_TEXT or how == SIZED_HEX_TEXT:
        fewest, most = pieces.end_size, 4 + pieces.end_size
    kept_first = pieces.kept_shift == (8 * (pieces.field_size - 1) if how == SIZED_BIG else 0)
    has_more = pieces.window_count or pieces.over
    run.form = RUN_PIECES
    if lead_size + most <= PIECE and (kept_first or not pieces.has_kept):
        if before_size + lead_size + most <= PIECE:
            run.form = RUN_WORD
            at = before_size + lead_size
        elif not has_more:
            run.form = RUN_BEFORE
            at = lead_size
    elif not (before_size or pieces.has_kept) and (has_more or lead_size <= PIECE):
        run.form = RUN_LEAD
    is_sized = is_alone and not (
        pieces.carried or pieces.size_compared or pieces.compared or has_more
    )
    if is_sized and run.form == RUN_WORD:
        run.form = RUN_SIZED
        least = 0
    elif is_sized and run.form == RUN_BEFORE and before_size <= PIECE:
        run.form = RUN_SIZED_BEFORE
        least = 0
    elif lead_size > PIECE:
        least = PIECE + LONG_PIECE
    run.how = how
    run.least = max(least, head.least)
    if <uint64_t>(run.least - head.least) > head.span:
        head.run = FRAME_RUN if head.is_short else NO_RUN  # all messages are short ones
        return
    run.span = head.span - (run.least - head.least)
    run.not_counted = pieces.not_counted
    run.size_compared = pieces.size_compared
    run.size_wanted = pieces.size_wanted
    run.compared = load_word(<const uint8_t*>&pieces.compared)
    run.wanted = load_word(<const uint8_t*>&pieces.wanted)
    run.window_count = pieces.window_count
    run.windows = head.windows
    run.first_window = head.windows[0]
    run.own_lead = load_word(<const uint8_t*>&pieces.own_lead)
    if run.form == RUN_WORD or run.form == RUN_SIZED:
        run.lead_shift = <int>(8 * before_size) & 63
        run.same = load_word(<const uint8_t*>&pieces.before) & bytes_mask(0, before_size)
    if run.form != RUN_LEAD and run.form != RUN_PIECES:
        run.lead_mask = bytes_mask(at - lead_size, lead_size + (1 if pieces.has_kept else 0))
        run.same |= run.own_lead << run.lead_shift
    run.turn = <int>(8 * at)
    run.kept_turn = pieces.kept_shift
    if how == SIZED_BIG:
        run.turn = <int>(64 - 8 * (at + pieces.field_size))
        run.kept_turn += run.turn
        run.same |= swapped(turned(pieces.own_bits, run.turn))
    elif how == SIZED_LITTLE:
        run.same |= turned(pieces.own_bits, run.turn)
    if is_binary:  # the bits that the unit leaves out are zeros
        run.turn -= pieces.unit_shift
    run.unit_shift = pieces.unit_shift
    run.unused_bits = pieces.unused_bits
    run.word_size = at + fewest
    run.text_end = load_word(<const uint8_t*>&pieces.end)
    memcpy(run.before, head.rarities.before, sizeof(run.before))
    run.first_before = pieces.before
    run.before_size = before_size
    run.lead_size = lead_size
    run.has_kept = pieces.has_kept
    run.carried = pieces.carried
    run.trailer = pieces.trailer
    run.trailer_size = pieces.trailer_size
    run.over = pieces.over
    run.write = loop_for(run)


cdef inline void place_own_bits(
    Pieces* pieces, Rarities* rarities, const Shape* shape
) noexcept:
    """Add the only byte with own bits to the pieces, if it is in the lead or in a binary field."""
    cdef Py_ssize_t at = rarities.own_offsets[0] - shape.field_offset
    if shape.kind == UINT and 0 <= at < shape.width:
        pieces.own_bits = <uint64_t>rarities.own_values[0] << place_in_value(shape, <int>at)
        rarities.own_count = 0
    at += shape.lead_size
    if 0 <= at < min(shape.lead_size, PIECE):
        (<uint8_t*>&pieces.own_lead)[at] = rarities.own_values[0]
        rarities.own_count = 0


cdef inline int place_in_value(const Shape* shape, int pos) noexcept:
    """Return the place of the lowest bit of a byte of the length field in its value."""
    return 8 * pos if shape.little else 8 * (shape.width - 1 - pos)


cdef inline bint add_needed(dict must, layout) except -1:
    """Add what a message must have; return False if no message has it."""
    needed = []
    for offset, constant in layout.constants:
        for at, byte in enumerate(constant, layout.message_position(offset)):
            needed.append((at, 0xFF, byte))
    for own in layout.own_bits:
        needed.append((layout.message_position(own.offset), own.mask, 0))
    joined = layout.joined
    if joined is not None and joined.last_mask:
        needed.append((layout.message_position(joined.last_offset), joined.last_mask, 0))
    if layout.kept:
        field_mask = layout.mask.to_bytes(layout.field_width, layout.byteorder)
        for at, position in enumerate(layout.kept, layout.lead_size):
            needed.append((at, field_mask[position], 0))
    for at, bits, value in needed:
        other_bits, other_value = must.get(at, (0, 0))
        if (other_value ^ value) & other_bits & bits:
            return False  # pragma: no cover (constructors refuse such codecs)
        must[at] = (other_bits | bits, other_value | value)
    return True


cdef inline Py_ssize_t fill_windows(QuickHead* head, dict must) except -1:
    """Fill in what a message must have; return the size of the smallest one that is compared.

    That is more than any message has if it does not fit in the windows. The first window is the
    start of the message, which may be shorter; the others are whole.
    """
    cdef Pieces* pieces = &head.pieces
    cdef Window* window = NULL
    cdef Py_ssize_t least = 0
    cdef Py_ssize_t at
    pieces.window_count = 0
    pieces.compared = pieces.wanted = 0
    pieces.windows = head.windows
    for position in sorted(must):
        bits, value = must[position]
        at = position
        if at < PIECE:
            (<uint8_t*>&pieces.compared)[at] = bits
            (<uint8_t*>&pieces.wanted)[at] = value
            least = at + 1
            continue
        if window == NULL or at >= window.at + PIECE:
            if pieces.window_count == MOST_WINDOWS:
                return LARGEST_SIZE + 1
            window = &head.windows[pieces.window_count]
            pieces.window_count += 1
            memset(window, 0, sizeof(Window))
            window.at = at
            least = at + PIECE
        (<uint8_t*>&window.compared)[at - window.at] = bits
        (<uint8_t*>&window.wanted)[at - window.at] = value
    return least


cdef inline int fill_early_choices(
    QuickHead* heads, const Shape* root, layout, list musts
) except -1:
    """Fill in how it is found what a frame chooses. The import is here as in `fill_check`."""
    from framecodec._early_choice import early_choices

    cdef int i
    cdef int number = 0
    cdef Py_ssize_t least
    bytes_allowed = []
    ranges = []
    for number in range(root.alternative_count):
        bytes_allowed.append(
            frozenset([i for i in range(256) if root.gates[number].allowed[i]])
            if root.gates[number].position == root.first_position
            else None
        )
        ranges.append((heads[number].least, heads[number].least + <Py_ssize_t>heads[number].span))
    choices = early_choices(layout, root.first_position, bytes_allowed, ranges)
    for number in range(root.alternative_count):
        choice, must = choices[number], musts[number]
        for byte in choice.sure:
            heads.sure[<int>byte] = True
        heads.start_node = choice.start
        for i, position in enumerate(choice.positions):
            heads.positions[i] = position
        if choice.is_certain:
            for position, (bits, value) in choice.required.items():
                other_bits, other_value = must.get(position, (0, 0))
                must[position] = (other_bits | bits, other_value | value)
            least = sorted([choice.least, fill_windows(heads, must)])[1]
            heads.is_certain = least <= choice.most
            if heads.is_certain:
                bits, value = choice.length_bits
                heads.pieces.size_compared |= <uint64_t>bits << heads.pieces.unit_shift
                heads.pieces.size_wanted = <uint64_t>value << heads.pieces.unit_shift
                heads.least = least
                heads.span = choice.most - least
            else:
                heads.least = LARGEST_SIZE + 1
                heads.span = 0
                heads.is_whole = False
        leave_shorter(heads, root.first_position + 1)
        heads += 1
    return 0


cdef inline void leave_shorter(QuickHead* head, Py_ssize_t least) noexcept:
    """Leave messages to `write_other` that have less than some bytes: the last one is looked at."""
    cdef uint64_t fewer = <uint64_t>(least - head.least)
    if head.least >= least:
        return
    head.is_whole = False
    if fewer > head.span:
        head.least = LARGEST_SIZE + 1  # pragma: no cover (all frames have the byte that chooses)
        head.span = 0  # pragma: no cover (all frames have the byte that chooses)
    else:
        head.least = least
        head.span -= fewer


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


cdef inline uint64_t first_word(const uint8_t* message, Py_ssize_t size) noexcept nogil:
    """Return the first 8 bytes of a message, zeros where it is shorter."""
    if size >= 8:
        return word_at(message)
    return short_word(message, size)


cdef extern from *:
    """
    #ifndef FRAMECODEC_SHORT_WORD
    #define FRAMECODEC_SHORT_WORD

    /* Less than 8 bytes as the memory has them, and zeros. In registers: a word that was stored in
       parts can only be loaded much later. */
    static inline uint64_t framecodec_short_word(const uint8_t *p, Py_ssize_t size)
    {
        uint64_t word = 0;
    #if PY_LITTLE_ENDIAN
        uint32_t first, last;
        if (size >= 4) {
            memcpy(&first, p, 4);
            memcpy(&last, p + size - 4, 4);
            word = first | (uint64_t)last << 8 * (size - 4);
        }
        else if (size)
            word = p[0] | (uint64_t)p[size >> 1] << 8 * (size >> 1)
                   | (uint64_t)p[size - 1] << 8 * (size - 1);
    #else
        memcpy(&word, p, (size_t)size);
    #endif
        return word;
    }
    #endif
    """
    uint64_t short_word "framecodec_short_word" (const uint8_t*, Py_ssize_t) noexcept nogil


cdef inline Py_ssize_t write_pieces(
    const QuickHead* head,
    const Pieces* pieces,
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
    int how,
) noexcept nogil:
    """Do what `write_frame` does, for a message whose size is in the head's range.

    `pieces` are those of the head, or a copy that the stores to the frame cannot change; `how` is
    theirs, and is constant in the loops that are run most.
    """
    cdef uint64_t value = <uint64_t>(size - pieces.not_counted)
    cdef uint64_t word = first_word(message, size)
    cdef uint64_t odd = (word ^ pieces.wanted) & pieces.compared
    cdef uint8_t* p = frame
    cdef int i
    odd |= (value ^ pieces.size_wanted) & pieces.size_compared
    for i in range(pieces.window_count):
        odd |= (word_at(message + pieces.windows[i].at) ^ pieces.windows[i].wanted) & (
            pieces.windows[i].compared
        )
    if odd:
        return 0
    # The place of the next frame must not wait for any of this: see the returned size.
    value = value >> pieces.unit_shift | pieces.own_bits
    if pieces.has_kept:
        value |= <uint64_t>message[pieces.lead_size] << pieces.kept_shift
    word |= pieces.own_lead
    memcpy(p, &pieces.before, 8)
    if pieces.has_more:
        memcpy(p + 8, head.rarities.before + 8, 16)
    p += pieces.before_size
    memcpy(p, &word, 8)
    if pieces.lead_size > PIECE:
        copy(p + 8, message + 8, pieces.lead_size - 8)
    p += pieces.lead_size
    if how == SIZED_OTHER:
        p += write_field(shape, p, message, value)
    elif how != SIZED_NONE:
        p += store_sized(p, how, value, pieces.unused_bits, pieces.field_size)
    if how == SIZED_DECIMAL_TEXT or how == SIZED_HEX_TEXT:
        memcpy(p, &pieces.end, 8)
        p += pieces.end_size
    if pieces.has_more:
        for i in range(head.rarities.kept_size):
            p[shape.kept[i] - shape.width] |= message[pieces.lead_size + i]
        copy(p, head.rarities.after, head.rarities.after_size)
        p += head.rarities.after_size
    copy(p, message + pieces.carried, size - pieces.carried)
    p += size - pieces.carried
    if pieces.trailer_size:
        copy(p, shape.trailer, pieces.trailer_size)
        p += pieces.trailer_size
    if pieces.has_more:
        for i in range(head.rarities.own_count):
            frame[head.rarities.own_offsets[i]] |= head.rarities.own_values[i]
        p += pad(shape, p, p - frame)
    return p - frame


cdef inline Py_ssize_t pad(const Shape* shape, uint8_t* end, Py_ssize_t size) noexcept nogil:
    """Write the padding of a frame and return its size."""
    cdef Py_ssize_t padding = padding_of(shape, size)
    if padding:
        memset(end, 0, padding)
    return padding


cdef inline bint is_odd(
    const Pieces* pieces, const uint8_t* message, Py_ssize_t size
) noexcept nogil:
    """Return whether `write_short` must not write a message of a size in the head's range."""
    cdef uint64_t value = <uint64_t>(size - pieces.not_counted)
    return ((word_at(message) ^ pieces.wanted) & pieces.compared | (
        (value ^ pieces.size_wanted) & pieces.size_compared
    )) != 0


cdef inline uint8_t* write_short(
    const Pieces* pieces, uint8_t* p, const uint8_t* message, Py_ssize_t size, int how
) noexcept nogil:
    """Write a frame with a number as its length up to its trailer; return where that begins.

    `is_short` is set, and the message has at least 8 bytes.
    """
    cdef uint64_t value = <uint64_t>(size - pieces.not_counted)
    cdef uint64_t word = word_at(message)
    value >>= pieces.unit_shift
    if how == SIZED_BIG or how == SIZED_LITTLE:
        value |= pieces.own_bits
        if pieces.has_kept:
            value |= <uint64_t>message[pieces.lead_size] << pieces.kept_shift
    memcpy(p, &pieces.before, 8)
    p += pieces.before_size
    word |= pieces.own_lead
    memcpy(p, &word, 8)
    p += pieces.lead_size
    p += store_sized(p, how, value, pieces.unused_bits, pieces.field_size)
    size -= pieces.carried
    copy(p, message + pieces.carried, size)
    return p + size


cdef inline Py_ssize_t write_rarer(
    const void* quick_head,
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept nogil:
    """Write a frame that `write_quick` does not write itself."""
    cdef const QuickHead* head = <const QuickHead*>quick_head
    return write_pieces(head, &head.pieces, shape, frame, message, size, head.pieces.how)


cdef inline Py_ssize_t write_line(
    const void* quick_head,
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept nogil:
    """Write a frame that an end mark ends."""
    return write_marked(shape, (<const QuickHead*>quick_head).marks, frame, message, size)


cdef inline Py_ssize_t write_whole_block(
    const void* quick_head,
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept nogil:
    """Write a message that is a header block and its body."""
    return write_block(shape, frame, message, size)


cdef inline Py_ssize_t write_quick(
    const QuickHead* head,
    const Shape* shape,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept nogil:
    """Write the frame of one message whose size is in the head's range; see `write_pieces`."""
    cdef uint8_t* p
    if not head.is_short or size < PIECE:
        return head.write_rarer(head, shape, frame, message, size)
    if is_odd(&head.pieces, message, size):
        return 0
    if head.pieces.how == SIZED_BIG:
        p = write_short(&head.pieces, frame, message, size, SIZED_BIG)
    elif head.pieces.how == SIZED_LITTLE:
        p = write_short(&head.pieces, frame, message, size, SIZED_LITTLE)
    elif head.pieces.how == SIZED_VARINT:
        p = write_short(&head.pieces, frame, message, size, SIZED_VARINT)
    else:
        return head.write_rarer(head, shape, frame, message, size)
    if head.pieces.trailer_size:  # the memory of a long frame ends with it
        copy(p, shape.trailer, head.pieces.trailer_size)
        p += head.pieces.trailer_size
    return p - frame


# The loops have copies of `Pieces`, which the stores to the frames cannot change. They write the
# frames of messages, `bytes` all of them, up to one that must be written otherwise, and return its
# number.
#
#     head: Of all of them.
#     sure: For each byte whether a message may have it at the position `known`.
#     end: The place of the first frame; it becomes the end of the last one.
#     batch: The messages `first` up to `count`.
#     how: That of `head`, constant where this is called.


cdef inline Py_ssize_t write_tiny_run(
    const QuickHead* head,
    const uint8_t* sure,
    Py_ssize_t known,
    uint8_t** end,
    list batch,
    Py_ssize_t first,
    Py_ssize_t count,
    int how,
) noexcept:
    """Write frames as `write_short` does, and their trailers, of messages of less than 8 bytes.

    The first one is in the head's range.
    """
    cdef Pieces pieces = head.pieces
    cdef Py_ssize_t least = head.least
    cdef uint64_t span = min(head.span, <uint64_t>(PIECE - 1 - least))
    cdef uint8_t* p = end[0]
    cdef const uint8_t* message
    cdef Py_ssize_t size
    cdef uint64_t value, word, odd
    while first < count:
        message = bytes_at(PyList_GET_ITEM(batch, first))
        size = bytes_size(PyList_GET_ITEM(batch, first))
        if <uint64_t>(size - least) > span or not sure[message[known]]:
            break
        word = short_word(message, size)
        value = <uint64_t>(size - pieces.not_counted)
        odd = (word ^ pieces.wanted) & pieces.compared
        if odd | ((value ^ pieces.size_wanted) & pieces.size_compared):
            break
        value >>= pieces.unit_shift
        if how == SIZED_BIG or how == SIZED_LITTLE:
            value |= pieces.own_bits
            if pieces.has_kept:
                value |= <uint64_t>message[pieces.lead_size] << pieces.kept_shift
        word |= pieces.own_lead
        memcpy(p, &pieces.before, 8)
        p += pieces.before_size
        if how != SIZED_NONE or pieces.lead_size:
            memcpy(p, &word, 8)
            p += pieces.lead_size
        if how != SIZED_NONE:
            p += store_sized(p, how, value, pieces.unused_bits, pieces.field_size)
        if how == SIZED_DECIMAL_TEXT or how == SIZED_HEX_TEXT:
            memcpy(p, &pieces.end, 8)
            p += pieces.end_size
        size -= pieces.carried
        copy(p, message + pieces.carried, size)
        p += size
        memcpy(p, &pieces.trailer, 8)
        p += pieces.trailer_size
        first += 1
    end[0] = p
    return first


cdef inline Py_ssize_t write_line_run(
    const QuickHead* head,
    const uint8_t* sure,
    Py_ssize_t known,
    uint8_t** end,
    list batch,
    Py_ssize_t first,
    Py_ssize_t count,
) noexcept:
    """Do the same where `run` is LINE_RUN, for messages that contain no byte of an end mark."""
    cdef const Marks* marks = head.marks
    cdef Piece before = piece_of(head.magic, head.magic_size)
    cdef Piece after = piece_of(marks.marks[marks.written].data, marks.marks[marks.written].size)
    cdef uint8_t* p = end[0]
    cdef uint8_t* start
    cdef const uint8_t* message
    cdef Py_ssize_t size
    while first < count:
        message = bytes_at(PyList_GET_ITEM(batch, first))
        size = bytes_size(PyList_GET_ITEM(batch, first))
        if not is_in_range(head, size) or not sure[message[known]]:
            break
        if is_odd(&head.pieces, message, size) or marks.odd_ends[message[size - 1]]:
            break
        start = write_piece(p, &before)
        if copy_and_look(start, message, size, marks.odd):
            break
        p = write_piece(start + size, &after)
        first += 1
    end[0] = p
    return first


cdef inline Py_ssize_t write_block(
    const Shape* shape, uint8_t* frame, const uint8_t* message, Py_ssize_t size
) noexcept nogil:
    """Write a message that is an ordinary header block and its body."""
    cdef Py_ssize_t header_size
    cdef uint64_t value = 0
    if shape.magic_size or shape.has_ends or shape.align > 1 or (
        <uint64_t>size - shape.quick_low > shape.quick_span
    ):
        return 0
    header_size = try_header_block(shape, message, size, &value)
    if header_size < 0 or <uint64_t>(size - header_size) != value:
        return 0
    copy(frame, message, size)
    return size


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
                if not frame_size and (head.marks != NULL or shape.keep):
                    return 0  # the slow path finds out whether it can be written
                if frame_size and choose_early(head, root, frame, message) == i:
                    number[0] = i
                    return frame_size
            elif not head.can_write_other:
                return 0
            elif not head.is_whole:
                if head.marks != NULL:
                    frame_size = write_marked(shape, head.marks, frame, message, size)
                else:
                    frame_size = head.write_other(shape, frame, message, size)
                if not frame_size and (head.marks != NULL or shape.keep):
                    return 0  # the slow path finds out whether it can be written
                if frame_size and choose(root, frame, frame_size) == i:
                    number[0] = i
                    return frame_size
        i += 1
    return 0


cdef inline Py_ssize_t write_one_chosen(
    const QuickHead* heads,
    const Shape* root,
    uint8_t* frame,
    const uint8_t* message,
    Py_ssize_t size,
) noexcept nogil:
    """Do the same, faster where a byte of the message tells the alternative."""
    cdef const QuickHead* head
    cdef Py_ssize_t frame_size
    cdef int number
    cdef uint8_t byte
    if root.first_position < size:
        byte = message[root.first_position]
        number = root.firsts[byte]
        if number < root.alternative_count:
            head = heads + number
            if head.is_certain and is_in_range(head, size) and head.sure[byte]:
                frame_size = write_quick(head, root.alternatives[number], frame, message, size)
                if frame_size:
                    return frame_size
    return heads.write_any(heads, root, frame, message, size, &number)
