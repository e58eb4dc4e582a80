# cython: language_level=3
# cython: boundscheck=False, wraparound=False, cdivision=True
"""What the compiled splitter and encoder share: numbers in C memory, and a layout's C copy.

Every function is inline, so that the compiler optimises it inside its caller.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport int16_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "Python.h":
    # As in _layout.py: the sum of two such sizes fits a Py_ssize_t.
    const Py_ssize_t LARGEST_SIZE "(PY_SSIZE_T_MAX / 2)"
    uint8_t* bytes_at "(uint8_t *)PyBytes_AS_STRING" (PyObject*) noexcept


# --- a layout -------------------------------------------------------------------------------------

# The kinds of length field, as in _layout.py (a comparison with a module's variable would cost the
# hot loop 3 ns a message).
cdef enum:
    UINT = 0
    DIGITS = 1
    VARINT = 2
    TEXT = 3
    BCD = 4
    BER = 5
    FIXED = 6
    HEADERS = 7
    CUSTOM = 8
    DELIMITER = 9
    COBS = 10
    CHOICE = 16

    # What a check covers, in the order of _check.py.
    COVERS_MESSAGE = 0
    COVERS_REST = 1
    COVERS_BODY = 2
    COVERS_FRAME = 3

    # As many as a codec can have: see _parameters.py.
    MOST_CONSTANTS = 16
    MOST_WIDE_FIELDS = 8
    MOST_OWN_BITS = 4

    # In ChoiceNode.nexts, as in _choice.py, and what choose() returns if more bytes are needed.
    NOTHING = -32768
    MORE_NEEDED = -1


cdef struct WideField:
    uint64_t key
    uint64_t least  # a smaller value is longer than needed
    int width
    bint little


cdef struct Constant:
    Py_ssize_t offset  # in the frame
    Py_ssize_t position  # in the message
    Py_ssize_t size
    const uint8_t* data


cdef struct CheckShape:
    bint named  # its function is one of CHECKSUMS; else it is the user's
    int number
    uint32_t first
    uint32_t last
    int covers
    bint little
    bint digits
    Py_ssize_t width
    Py_ssize_t before_size
    const uint8_t* before


cdef struct OwnBits:
    # Bits of the frame that a choice owns: see Layout.
    Py_ssize_t offset  # in the frame
    Py_ssize_t position  # in the message
    uint8_t mask
    uint8_t value


cdef struct ChoiceNode:
    # As `Node` of _choice.py.
    Py_ssize_t offset
    int16_t nexts[256]
    # The sizes of rests by the second byte of frames, if it is the one that chooses and the last
    # one of the header; -1 where that is not so, or the frame is not ordinary.
    int16_t rests[256]


cdef struct Gate:
    # A place of a message where an alternative has certain bytes: see Choice.places.
    Py_ssize_t position  # -1: it has no place
    uint8_t allowed[256]


cdef struct HeaderName:
    Py_ssize_t size
    const uint8_t* data  # in lower case


cdef struct Shape:
    # The numbers of a Layout that the loops need. The pointers are into the layout's own bytes.
    int kind
    int width  # of the field: UINT, DIGITS, BCD exact; VARINT, BER the longest
    int base
    bint little
    bint extended  # a unit, a mask, wider fields, constants, a check or padding
    bint plain  # UINT, and nothing in the frame but the field and the rest
    const uint8_t* magic
    const uint8_t* trailer
    const uint8_t* end
    Py_ssize_t magic_size
    Py_ssize_t trailer_size
    Py_ssize_t end_size
    Py_ssize_t lead_size
    Py_ssize_t field_offset
    Py_ssize_t header_size  # 0 where it varies
    Py_ssize_t adjustment
    Py_ssize_t message_max  # at most LARGEST_SIZE
    Py_ssize_t unit  # rest size = value * unit + adjustment
    Py_ssize_t align
    Py_ssize_t front_check_size  # of a check before the rest, with the bytes before the check
    Py_ssize_t end_check_size  # of a check after the rest, with the bytes before the check
    Py_ssize_t inner_check_size  # of a check in the content that an end mark follows
    Py_ssize_t tail_size  # of a check after the rest, and the trailer
    Py_ssize_t prefix_size  # 0, or where the last constant in the rest ends
    Py_ssize_t message_lead  # bytes of the message before the rest: the lead, and kept bytes
    uint64_t mask  # UINT: the bits that hold the length
    uint64_t plain_max  # the largest value of the length field itself; FIXED: the size
    int kept_size  # UINT with a mask: bytes of the field that are also in the message
    uint8_t kept[8]  # their positions in the field ...
    uint8_t kept_bits[8]  # ... and their bits outside the mask
    int wide_count
    uint64_t least_key  # of all wide fields; larger than any value if there are none
    bint wider_strict
    WideField wide[8]  # MOST_WIDE_FIELDS
    # UINT, and nothing in the frame but the lead, the field, perhaps with kept bytes, and the rest;
    # CHOICE: all alternatives are that, and have no names.
    bint is_bare
    # CHOICE: bits of the message in the second byte of frames that have their length there, too; 0
    # if there are none. See ChoiceNode.rests.
    uint8_t short_bits
    int constant_count
    Constant constants[16]  # MOST_CONSTANTS
    bint has_check
    bint has_ends  # a check, wherever it is, or a trailer
    CheckShape check
    bint leading_zeros
    bint trailing_blanks
    int max_digits
    # HEADERS
    Py_ssize_t max_header
    int name_count
    HeaderName names[8]
    int line_end_size  # 1: LF, 2: CR LF
    bint lenient
    bint start_line
    int protocol_count
    HeaderName protocols[4]  # as in _plain_parameters.py
    bint keep
    const uint8_t* field_start  # what is written before the digits, and the end after them
    Py_ssize_t field_start_size
    # Encoding. Messages of these shapes can be ordinary: with no function of the user's.
    bint is_quick
    bint has_specials
    Py_ssize_t owned_size  # the most bytes of an ordinary frame that are not the message's
    # CHOICE: the position in the message where all gates are, and the first alternative that each
    # byte there allows; where they are at several positions, that is the first of all.
    Py_ssize_t first_position
    int16_t firsts[256]
    uint64_t quick_low  # lengths low .. low + span are ordinary: see Layout
    uint64_t quick_span
    int own_count
    OwnBits own[4]  # MOST_OWN_BITS
    const ChoiceNode* nodes  # CHOICE: the first one is the root; else NULL
    const Shape** alternatives  # CHOICE
    const Gate* gates
    int alternative_count
    bint tagged
    # Joined frames: as `Joined` of _layout.py.
    bint joined
    Py_ssize_t head_size
    Py_ssize_t strip
    Py_ssize_t first_size
    Py_ssize_t last_offset  # -1: none
    Py_ssize_t last_position  # of the same byte in a message that has it
    uint8_t last_mask
    uint8_t last_value
    Py_ssize_t full  # -1: none
    Py_ssize_t fragment_size
    bint from_rest  # a message of one fragment is its rest
    const uint8_t* blank  # what fragments have before their content, where the message has none


cdef inline const uint8_t* _address(bytes constant) noexcept:
    return <const uint8_t*>PyBytes_AS_STRING(constant)


cdef inline bytes kept(layout, str name, bytes made):
    """Keep a C structure that was made of a layout, and return it.

    Two threads may make it at the same time. Both get the one that was kept first: other structures
    point to it.
    """
    cdef dict structures = layout.structures
    return structures.setdefault(name, made)


cdef inline bytes numbers_of(layout):
    """Return a layout's `Shape` as a bytes object, which is made once for each layout.

    It must not outlive the layout.
    """
    cdef dict structures = layout.structures
    cdef bytes numbers = structures.get("shape")
    if numbers is None:
        numbers = PyBytes_FromStringAndSize(NULL, sizeof(Shape))
        fill_shape(<Shape*>PyBytes_AS_STRING(numbers), layout)
        numbers = kept(layout, "shape", numbers)
    return numbers


cdef inline const Shape* shape_in(bytes numbers) noexcept:
    return <const Shape*>PyBytes_AS_STRING(numbers)


cdef inline int fill_shape(Shape* shape, layout) except -1:
    low, span = layout.quick_range
    memset(shape, 0, sizeof(Shape))
    shape.kind = layout.kind
    shape.width = layout.field_width
    shape.base = layout.base
    shape.little = layout.little
    shape.plain = layout.plain
    shape.extended = layout.extended
    shape.magic = _address(layout.magic)
    shape.trailer = _address(layout.trailer)
    shape.end = _address(layout.field_end)
    shape.magic_size = len(layout.magic)
    shape.trailer_size = len(layout.trailer)
    shape.end_size = len(layout.field_end)
    shape.lead_size = layout.lead_size
    shape.field_offset = layout.field_offset
    shape.header_size = layout.header_size
    shape.adjustment = layout.adjustment
    shape.unit = layout.unit
    shape.align = layout.align
    shape.front_check_size = layout.front_check_size
    shape.end_check_size = layout.end_check_size
    shape.inner_check_size = layout.inner_check_size
    shape.tail_size = layout.tail_size
    shape.prefix_size = layout.prefix_size
    shape.message_lead = layout.message_lead
    shape.plain_max = layout.size if layout.kind == FIXED else layout.plain_max
    shape.wider_strict = layout.wider_strict
    shape.leading_zeros = layout.leading_zeros
    shape.trailing_blanks = layout.trailing_blanks
    shape.max_digits = layout.max_digits
    shape.max_header = layout.max_header
    shape.line_end_size = len(layout.line_end)
    shape.lenient = layout.lenient
    shape.start_line = layout.start_line
    for name in layout.protocols:
        shape.protocols[shape.protocol_count] = HeaderName(len(name), _address(name))
        shape.protocol_count += 1
    shape.keep = layout.keep
    shape.field_start = _address(layout.field_start)
    shape.field_start_size = len(layout.field_start)
    for name in layout.lower_names:
        shape.names[shape.name_count] = HeaderName(len(name), _address(name))
        shape.name_count += 1
    shape.mask = layout.mask or <uint64_t>0xFFFFFFFFFFFFFFFF
    if layout.mask:
        mask = layout.mask.to_bytes(layout.field_width, layout.byteorder)
        for pos in layout.kept:
            shape.kept[shape.kept_size] = pos
            shape.kept_bits[shape.kept_size] = 0xFF ^ <int>mask[pos]
            shape.kept_size += 1
    shape.least_key = <uint64_t>0xFFFFFFFFFFFFFFFF
    for wide in layout.wider:
        shape.least_key = min(shape.least_key, <uint64_t>wide.key)
        shape.wide[shape.wide_count] = WideField(wide.key, wide.least, wide.width, wide.little)
        shape.wide_count += 1
    for offset, constant in layout.constants:
        shape.constants[shape.constant_count] = Constant(
            offset, layout.message_position(offset), len(constant), _address(constant)
        )
        shape.constant_count += 1
    if layout.check is not None:
        fill_check(shape, layout.check)
    shape.has_ends = shape.has_check or shape.trailer_size
    shape.message_max = min(layout.message_max, LARGEST_SIZE)
    shape.quick_low = low
    shape.quick_span = span & <uint64_t>0xFFFFFFFFFFFFFFFF
    for own in layout.own_bits:
        shape.own[shape.own_count] = OwnBits(
            own.offset, layout.message_position(own.offset), own.mask, own.value
        )
        shape.own_count += 1
    shape.is_bare = shape.kind == UINT and not (
        shape.magic_size
        or shape.has_ends
        or shape.constant_count
        or shape.own_count
        or shape.unit > 1
        or shape.align > 1
        or layout.joined
    )
    if layout.choice is not None:
        fill_choice(shape, layout)
    if layout.joined is not None:
        fill_joined(shape, layout)
    fill_encoding(shape, layout)
    return 0


cdef inline int fill_encoding(Shape* shape, layout) except -1:
    """Fill in how ordinary messages are encoded."""
    cdef int i
    cdef int byte
    own_check = shape.has_check and not shape.check.named
    shape.has_specials = bool(layout.specials)
    shape.is_quick = shape.kind <= HEADERS and not (
        shape.keep or own_check or layout.bytes_are_special or shape.joined
    )
    shape.owned_size = layout.most_owned
    if layout.choice is None:
        return 0
    shape.first_position = shape.gates[0].position
    for i in range(shape.alternative_count):
        if shape.gates[i].position != shape.first_position:
            shape.first_position = -1
    if shape.first_position < 0:  # no byte tells anything
        shape.first_position = 0
        return 0
    for byte in range(256):
        shape.firsts[byte] = shape.alternative_count
        for i in range(shape.alternative_count - 1, -1, -1):
            if shape.gates[i].allowed[byte]:
                shape.firsts[byte] = i
    return 0


cdef inline int fill_check(Shape* shape, check) except -1:
    import sys

    from framecodec._check import CHECKSUMS, COVERS

    checksum = CHECKSUMS.get(check.function) if isinstance(check.function, str) else None
    shape.has_check = True
    shape.check.covers = COVERS.index(check.covers)
    if check.position == "front":
        shape.check.covers = COVERS_REST
    shape.check.little = (sys.byteorder if check.byteorder == "native" else check.byteorder) == (
        "little"
    )
    shape.check.digits = check.digits
    shape.check.width = check.width
    shape.check.before = _address(check.before)
    shape.check.before_size = len(check.before)
    if checksum is not None:
        shape.check.named = True
        shape.check.number = checksum.number
        shape.check.first = checksum.first
        shape.check.last = checksum.last
    return 0


cdef inline int fill_joined(Shape* shape, layout) except -1:
    joined = layout.joined
    shape.joined = True
    shape.head_size = joined.head_size
    shape.strip = joined.strip
    shape.first_size = joined.first_size
    shape.last_offset = joined.last_offset
    shape.last_mask = joined.last_mask
    shape.last_value = joined.last_value
    if joined.last_mask:
        shape.last_position = layout.message_position(joined.last_offset)
    shape.full = joined.full
    shape.fragment_size = joined.fragment_size
    shape.from_rest = joined.first_size and not (layout.message_lead or joined.last_mask)
    shape.blank = _address(joined.blank)
    return 0


cdef inline int fill_choice(Shape* shape, layout) except -1:
    """Make the tree of a choice; the layout keeps its memory."""
    cdef Py_ssize_t nodes_size = len(layout.choice.nodes) * sizeof(ChoiceNode)
    cdef Py_ssize_t count = len(layout.choice.layouts)
    cdef Py_ssize_t gates_size = count * sizeof(Gate)
    cdef bytes memory = PyBytes_FromStringAndSize(
        NULL, nodes_size + gates_size + count * sizeof(void*)
    )
    cdef ChoiceNode* node = <ChoiceNode*>PyBytes_AS_STRING(memory)
    cdef Gate* gate = <Gate*>(PyBytes_AS_STRING(memory) + nodes_size)
    cdef const Shape** alternative = <const Shape**>(
        PyBytes_AS_STRING(memory) + nodes_size + gates_size
    )
    cdef int byte
    shape.tagged = bool([tag for tag in layout.choice.tags if tag])
    shape.is_bare = not shape.tagged
    for offset, _, nexts, _ in layout.choice.nodes:
        node.offset = offset
        for byte in range(256):
            node.nexts[byte] = nexts[byte]
        node += 1
    for each in layout.choice.layouts:
        alternative[0] = shape_in(numbers_of(each))
        shape.is_bare = shape.is_bare and alternative[0].is_bare
        alternative += 1
    for position, values in gates_of(layout.choice):
        gate.position = position
        for byte in range(256):
            gate.allowed[byte] = byte in values
        gate += 1
    fill_short_frames(shape, <ChoiceNode*>PyBytes_AS_STRING(memory), layout)
    memory = kept(layout, "choice", memory)
    shape.nodes = <ChoiceNode*>PyBytes_AS_STRING(memory)
    shape.gates = <Gate*>(PyBytes_AS_STRING(memory) + nodes_size)
    shape.alternatives = <const Shape**>(PyBytes_AS_STRING(memory) + nodes_size + gates_size)
    shape.alternative_count = <int>count
    return 0


cdef inline int fill_short_frames(Shape* root, ChoiceNode* node, layout) except -1:
    """Fill in the sizes of rests, and the bits that the second byte has of the message.

    Byte 0 is asked first, then byte 1. Those bits are the same in all alternatives of these frames.
    """
    cdef const Shape* shape
    cdef int byte, number
    cdef uint64_t value
    cdef bint is_second
    for number in range(len(layout.choice.nodes)):
        is_second = root.is_bare and number and node.offset == 1
        is_second = is_second and layout.choice.nodes[0].offset == 0
        for byte in range(256):
            node.rests[byte] = -1
            if not is_second or node.nexts[byte] < 0:
                continue
            shape = shape_in(numbers_of(layout.choice.layouts[node.nexts[byte]]))
            if shape.field_offset != 1 or shape.width != 1 or not shape.kept_size:
                continue
            if root.short_bits and root.short_bits != shape.kept_bits[0]:
                continue
            root.short_bits = shape.kept_bits[0]
            value = byte & shape.mask
            if (
                value < shape.least_key
                and value - shape.quick_low <= shape.quick_span
                and -0x8000 < shape.adjustment < 0x7F00
            ):
                node.rests[byte] = <int16_t>(<Py_ssize_t>value + shape.adjustment)
        node += 1
    return 0


cdef inline list gates_of(choice):
    """Return the position and the allowed bytes of each gate: at one position if there is such."""
    gates = []
    needs = []
    for i in range(len(choice.layouts)):  # no zip() and min(): they would not be interpreters' own
        each = choice.layouts[i]
        need = dict(choice.places[i])
        for offset, constant in () if each.joined else each.constants:
            for position, byte in enumerate(constant, each.message_position(offset)):
                need[position] = frozenset({byte}) & need.get(position, frozenset({byte}))
        needs.append(need)
    best, most = -1, 0
    for position in sorted(set(needs[0]).intersection(*needs[1:])):
        kinds = len({need[position] for need in needs})
        if kinds > most:
            best, most = position, kinds
    for need in needs:
        position = best if most or not need else sorted(need)[0]
        gates.append((position, need.get(position, frozenset())))
    return gates


cdef inline int choose(const Shape* shape, const uint8_t* frame, Py_ssize_t size) noexcept nogil:
    """Return the alternative of a frame, `NOTHING`, or `MORE_NEEDED`."""
    cdef const ChoiceNode* node = shape.nodes
    cdef int found
    while True:
        if size <= node.offset:
            return MORE_NEEDED
        found = node.nexts[frame[node.offset]]
        if found >= 0 or found == NOTHING:
            return found
        node = shape.nodes + (-1 - found)


# --- bytes ----------------------------------------------------------------------------------------


cdef inline void copy(uint8_t* to, const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Copy as memcpy() does, faster where a message is small.

    The call of memcpy() costs more than its work there. So small pieces are copied here, by parts
    of fixed sizes, each one instruction, which overlap in the middle.
    """
    if size > 64:
        memcpy(to, data, size)
    elif size >= 16:
        memcpy(to, data, 16)
        if size > 32:
            memcpy(to + 16, data + 16, 16)
            memcpy(to + size - 32, data + size - 32, 16)
        memcpy(to + size - 16, data + size - 16, 16)
    elif size >= 8:
        memcpy(to, data, 8)
        memcpy(to + size - 8, data + size - 8, 8)
    elif size >= 4:
        memcpy(to, data, 4)
        memcpy(to + size - 4, data + size - 4, 4)
    elif size:
        to[0] = data[0]
        to[size >> 1] = data[size >> 1]
        to[size - 1] = data[size - 1]


cdef inline bytes bytes_of(const uint8_t* data, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char*>data, size)


cdef inline bytes message_of(const uint8_t* data, Py_ssize_t size):
    """Return the same, faster where it is small."""
    cdef bytes message = PyBytes_FromStringAndSize(NULL, size)
    copy(<uint8_t*>PyBytes_AS_STRING(message), data, size)
    return message


cdef inline bint same(const uint8_t* data, const uint8_t* expected, Py_ssize_t size) noexcept nogil:
    """Compare as memcmp() does, faster where there are few bytes."""
    cdef uint32_t one, other
    if size > 8:
        return not memcmp(data, expected, size)
    if size >= 4:
        memcpy(&one, data, 4)
        memcpy(&other, expected, 4)
        if one != other:
            return False
        memcpy(&one, data + size - 4, 4)
        memcpy(&other, expected + size - 4, 4)
        return one == other
    if not size:
        return True
    return (
        data[0] == expected[0]
        and data[size >> 1] == expected[size >> 1]
        and data[size - 1] == expected[size - 1]
    )


cdef inline Py_ssize_t common_size(
    const uint8_t* data, Py_ssize_t size, const uint8_t* expected, Py_ssize_t expected_size
) noexcept nogil:
    """Return how many first bytes are the same."""
    cdef Py_ssize_t i = 0
    while i < size and i < expected_size and data[i] == expected[i]:
        i += 1
    return i


# --- numbers --------------------------------------------------------------------------------------


cdef inline uint64_t load(const uint8_t* p, int width, bint little) noexcept nogil:
    """Return a binary number; gcc makes one load and one byte swap of the four shifts."""
    cdef uint64_t value = 0
    cdef int i
    if width == 4:
        if little:
            return p[0] | <uint64_t>p[1] << 8 | <uint64_t>p[2] << 16 | <uint64_t>p[3] << 24
        return <uint64_t>p[0] << 24 | <uint64_t>p[1] << 16 | <uint64_t>p[2] << 8 | p[3]
    if width == 2:
        return (p[0] | <uint64_t>p[1] << 8) if little else (<uint64_t>p[0] << 8 | p[1])
    if little:
        for i in range(width - 1, -1, -1):
            value = value << 8 | p[i]
    else:
        for i in range(width):
            value = value << 8 | p[i]
    return value


cdef inline void store(uint8_t* p, uint64_t value, int width, bint little) noexcept nogil:
    cdef int i
    if width == 4 and not little:
        p[0] = (value >> 24) & 0xFF
        p[1] = (value >> 16) & 0xFF
        p[2] = (value >> 8) & 0xFF
        p[3] = value & 0xFF
    elif little:
        for i in range(width):
            p[i] = value & 0xFF
            value >>= 8
    else:
        for i in range(width - 1, -1, -1):
            p[i] = value & 0xFF
            value >>= 8


cdef inline int store_varint(uint8_t* p, uint64_t value) noexcept nogil:
    """Store a number and return its size."""
    cdef int size = 1
    while value > 0x7F:
        p[0] = value & 0x7F | 0x80
        value >>= 7
        p += 1
        size += 1
    p[0] = value & 0x7F
    return size


cdef inline void store_digits(
    uint8_t* p, uint64_t value, Py_ssize_t width, int base
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int digit
    if base == 10:
        for i in range(width - 1, -1, -1):
            p[i] = c'0' + <uint8_t>(value % 10)
            value //= 10
        return
    for i in range(width - 1, -1, -1):
        digit = value & 15
        value >>= 4
        p[i] = c'0' + digit if digit < 10 else c'a' + digit - 10


cdef inline void store_ber(uint8_t* p, uint64_t value, Py_ssize_t size) noexcept nogil:
    if size == 1:
        p[0] = value & 0x7F
    else:
        p[0] = 0x80 | <uint8_t>(size - 1)
        store(p + 1, value, <int>size - 1, False)


cdef inline void store_bcd(uint8_t* p, uint64_t value, Py_ssize_t width) noexcept nogil:
    cdef Py_ssize_t i
    cdef int pair
    for i in range(width - 1, -1, -1):
        pair = value % 100
        value //= 100
        p[i] = <uint8_t>(pair // 10 << 4 | pair % 10)


cdef inline bint shape_holds(const Shape* shape, uint64_t value) noexcept nogil:
    """Return whether the length field itself holds a length, without a wider one."""
    cdef int i
    if value > shape.plain_max or value & ~shape.mask:
        return False
    for i in range(shape.wide_count):
        if value == shape.wide[i].key:
            return False
    return True


cdef inline const WideField* wide_field_for(const Shape* shape, uint64_t value) noexcept nogil:
    """Return the narrowest wider field for a length, or NULL if the length field holds it."""
    cdef int i
    if not shape.wide_count or shape_holds(shape, value):
        return NULL
    for i in range(shape.wide_count):
        if shape.wide[i].width == 8 or not value >> 8 * shape.wide[i].width:
            return &shape.wide[i]
    return NULL  # pragma: no cover (a quick length fits in the widest field)


cdef inline Py_ssize_t padding_of(const Shape* shape, Py_ssize_t frame_size) noexcept nogil:
    """Return how many bytes follow a frame of a size to align it."""
    cdef Py_ssize_t over
    if shape.align <= 1:
        return 0
    if shape.align & (shape.align - 1):
        over = frame_size % shape.align
    else:  # a division takes as long as the rest of a small frame
        over = frame_size & (shape.align - 1)
    return shape.align - over if over else 0


cdef inline int digit_value(uint8_t byte, int base) noexcept nogil:
    """Return the digit's value, or -1."""
    if c'0' <= byte <= c'9':
        return byte - c'0'
    if base == 16:
        if c'a' <= byte <= c'f':
            return byte - c'a' + 10
        if c'A' <= byte <= c'F':
            return byte - c'A' + 10
    return -1
