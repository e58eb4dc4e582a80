"""``framecodec wireshark``: a dissector in Lua for a codec.

The dissector calls Wireshark's ``dissect_tcp_pdus``, which puts the frames of a TCP stream together
(Wireshark Developer's Guide, chapter 11, "Functions For New Protocols And Dissectors"). It asks for
a frame's size as soon as the smallest header is there. A size of 0 means that more bytes are
needed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from typing import Any

from .. import Codec, formats
from .anatomy import alternatives
from .common import CommandError, add_codec, add_command, write

__all__ = ["add_commands", "dissector"]


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command ``wireshark``."""
    parser = add_command(
        commands,
        "wireshark",
        lambda arguments: _print(arguments),
        help="a Wireshark dissector for a codec",
        description="Print a dissector in Lua for Wireshark and tshark: "
        "tshark -X lua_script:FILE -r CAPTURE. It puts frames together across TCP segments and "
        "marks their parts.",
    )
    add_codec(parser)
    parser.add_argument(
        "--port",
        metavar="N",
        type=_port,
        action="append",
        default=[],
        help="use it for this TCP port (several: --port 1 --port 2); else choose it by Decode As",
    )
    parser.add_argument("--name", default="framed", help="the protocol's name; default framed")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
    return int(text)


def _print(arguments: argparse.Namespace) -> int:
    write(dissector(arguments.codec, arguments.name, arguments.port))
    return 0


def dissector(codec: Codec[Any], name: str = "framed", ports: list[int] | None = None) -> str:
    """Return the Lua program of a dissector.

    The frames of a joined message are shown one by one.

    Args:
        codec: The shape of the frames.
        name: The protocol's name and the prefix of its fields.
        ports: TCP ports that it is used for.

    Raises:
        CommandError: The codec has no dissector, or the name is not one of a protocol.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise CommandError(f"{name!r} is not a name; write small letters, digits and _")
    program = _Program()
    root = program.add(codec)
    return _TEMPLATE.format(
        name=name,
        upper=name.upper(),
        codec=str(codec).replace("\n", " "),
        protocol=_known_as(codec),
        smallest=program.smallest,
        shapes="\n".join(program.shapes),
        choices="\n".join(program.choices),
        root=root,
        ports="\n".join(
            f'DissectorTable.get("tcp.port"):add({port}, proto)' for port in ports or []
        ),
    )


def _known_as(codec: Codec[Any]) -> str:
    for row in formats.table():
        if row.codec == codec:
            return f"{row.name}: {row.description}".replace('"', "'")
    return "length-prefixed frames" if not codec.layout.marks else "frames up to an end mark"


class _Program:
    """The shapes of a codec's frames, and the functions that choose between them."""

    def __init__(self) -> None:
        self.shapes: list[str] = []
        self.choices: list[str] = []
        self.smallest = 1 << 16  # bytes from which a frame's size can be asked for

    def add(self, codec: Codec[Any]) -> str:
        """Add a codec, and return the Lua expression for the shape of a frame.

        Raises:
            CommandError: The codec has no dissector.
        """
        if "fragments" in codec.parameters:
            return self.add(codec.parameters["fragments"])
        if codec.kind == "choice":
            return self._add_choice(codec)
        shape, smallest = _shape(codec)
        self.smallest = min(self.smallest, smallest)
        number = f"shapes[{len(self.shapes) + 1}]"
        self.shapes.append(f"{number} = {shape}")
        return number

    def _add_choice(self, codec: Codec[Any]) -> str:
        chosen: dict[int, str] = {}
        for values, alternative in alternatives(codec):
            expression = self.add(alternative)
            chosen.update(dict.fromkeys(values, expression))
        offset = codec.parameters["offset"]
        name = f"choose[{len(self.choices) + 1}]"
        lines = [f"{name} = function(tvb, start)"]
        lines.append(f"    if tvb:len() < start + {offset + 1} then return nil end")
        lines.append(f"    local byte = tvb(start + {offset}, 1):uint()")
        for expression, group in _by_value(chosen):
            lines.append(f"    if {_test(group)} then return {expression} end")
        lines += ["    return false", "end"]
        self.choices.append("\n".join(lines))
        return f"{name}(tvb, start)"


def _by_value(chosen: dict[int, str]) -> Iterator[tuple[str, list[int]]]:
    """Yield each value of a mapping with the keys that have it."""
    for expression in dict.fromkeys(chosen.values()):
        yield expression, sorted(byte for byte in chosen if chosen[byte] == expression)


def _test(values: list[int]) -> str:
    """Return the Lua expression for a byte that has one of some values."""
    if values == list(range(values[0], values[-1] + 1)):
        if len(values) == 1:
            return f"byte == {values[0]}"
        return f"byte >= {values[0]} and byte <= {values[-1]}"
    return f"({_lua_string(bytes(values))}):find(string.char(byte), 1, true)"


def _shape(codec: Codec[Any]) -> tuple[str, int]:
    """Return the Lua table of a shape, and the fewest bytes of its header."""
    make = _CUTS.get(codec.kind) if codec.layout.marks else _LENGTHS.get(codec.kind)
    if make is None:
        raise CommandError(
            f"no dissector for the kind {codec.kind!r}: its header is read by code; "
            f"possible are {', '.join([*_LENGTHS, *_CUTS, 'choice'])}"
        )
    parameters = codec.parameters
    if parameters.get("lenient"):
        raise CommandError("no dissector for a codec with lenient")
    if parameters.get("line_end") == b"\n":
        raise CommandError("no dissector for a codec with line_end=LF")
    magic, trailer = parameters.get("magic") or b"", parameters.get("trailer") or b""
    offset = parameters.get("length_offset")
    offset = len(magic) if offset is None else offset
    check = parameters.get("check")
    check_size = 0 if check is None else check.width + len(check.before)
    front = check_size if check is not None and check.position == "front" else 0
    unit, align = parameters.get("length_unit") or 1, parameters.get("align") or 1
    reader, smallest = make(codec)
    if parameters.get("length_includes") == "frame":
        size = f"value * {unit}"
    else:
        rest = f"value * {unit} + {parameters.get('length_adjustment') or 0}"
        size = f"{offset} + width + {rest} + {len(trailer) + check_size}"
    specials = sorted(parameters.get("specials") or {})
    fields = {
        "offset": offset,
        "smallest": offset + smallest,
        "magic": _lua_string(magic),
        "trailer": len(trailer),
        "front": front,
        "check": check_size - front,
        "align": align,
        "limit": codec.max_message_size or 2**53,
        "specials": "{" + ", ".join(f"[{value}] = true" for value in specials) + "}",
        "read": f"function(tvb, offset)\n    {reader}\n    end",
        "size": f"function(value, width) return {size} end",
    }
    if codec.layout.marks:  # the reader gives what is before the mark, and the mark's size
        fields["marked"] = "true"
        fields["size"] = f"function(value, width) return {len(magic)} + value + width end"
    body = "".join(f"    {key} = {value},\n" for key, value in fields.items())
    return "{\n" + body + "}", offset + smallest


def _lua_string(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'


# --- the length field, by the kind of the codec ---------------------------------------------------

# Each gives a Lua function body that returns the field's value and width, nil if more bytes are
# needed, false if the bytes are not a length; and the fewest bytes of the field.


def _number(width: int, little: bool, place: int = 0) -> str:
    """Return the Lua statements that add the bytes of a number to `value`, which is 0."""
    # Bytes one by one: Wireshark has no numbers of 5 to 7 bytes.
    places = range(width - 1, -1, -1) if little else range(width)
    return "".join(
        f"\n    value = value * 256 + tvb(offset + {place + one}, 1):uint()" for one in places
    )


def _fixed(codec: Codec[Any]) -> tuple[str, int]:
    width = codec.layout.field_width
    body = f"if tvb:len() < offset + {width} then return nil end\n    local value = 0"
    body += _number(width, codec.layout.little) + _masked(codec.parameters["length_mask"])
    if codec.layout.signed:
        body += (
            f"\n    if value >= {2 ** (8 * width - 1)} then value = value - {2 ** (8 * width)} end"
        )
    for wide in codec.layout.wider:
        both = width + wide.width
        body += (
            f"\n    if value == {wide.key} then"
            f"\n    if tvb:len() < offset + {both} then return nil end\n    value = 0"
            f"{_number(wide.width, wide.little, width)}\n    return value, {both}\n    end"
        )
    return f"{body}\n    return value, {width}", width


def _masked(mask: int | None) -> str:
    """Return the Lua statement for the bits of a mask; they must be next to each other."""
    if mask is None:
        return ""
    low, high = (mask & -mask), 1 << mask.bit_length()
    if mask != high - low:
        raise CommandError(f"no dissector for a codec with length_mask={mask:#x}")
    return f"\n    value = value % {high} - value % {low}"


def _digits(codec: Codec[Any]) -> tuple[str, int]:
    width, base = codec.parameters["width"], codec.parameters["base"]
    if base == "bcd":
        body = f"tonumber(tostring(tvb(offset, {width}):bytes()), 10)"
    else:
        body = f"tonumber(tvb(offset, {width}):string(), {base})"
    return (
        f"if tvb:len() < offset + {width} then return nil end\n"
        f"    local value = {body}\n    return value or false, {width}",
        width,
    )


def _varint(codec: Codec[Any]) -> tuple[str, int]:
    return (
        "local value, factor = 0, 1\n"
        f"    for width = 1, {codec.parameters['max_width']} do\n"
        "        if tvb:len() < offset + width then return nil end\n"
        "        local byte = tvb(offset + width - 1, 1):uint()\n"
        "        value = value + byte % 128 * factor\n"
        "        if byte < 128 then return value, width end\n"
        "        factor = factor * 128\n"
        "    end\n"
        "    return false, 0",
        1,
    )


def _text(codec: Codec[Any]) -> tuple[str, int]:
    end, base = codec.parameters["end"], codec.parameters["base"]
    return (
        f"local text = tvb(offset, math.min(tvb:len() - offset, {24 + len(end)})):raw()\n"
        f"    local stop, last = text:find({_lua_string(end)}, 1, true)\n"
        f"    if not stop then if #text < {24 + len(end)} then return nil end return false, 0 end\n"
        f"    return tonumber(text:sub(1, stop - 1), {base}) or false, last",
        1 + len(end),
    )


def _headers(codec: Codec[Any]) -> tuple[str, int]:
    names = [codec.parameters["name"], *codec.parameters["names"]]
    is_named = " or ".join(f"key == {_lua_string(name.lower().encode())}" for name in names)
    longest = codec.parameters["max_header"]
    # A kept block without the header has an empty body.
    without = "0, last" if codec.parameters["keep"] else "false, 0"
    return (
        f"local text = tvb(offset, math.min(tvb:len() - offset, {longest})):raw()\n"
        '    local stop, last = text:find("\\r\\n\\r\\n", 1, true)\n'
        f"    if not stop and #text < {longest} then return nil end\n"
        "    if not stop then return false, 0 end\n"
        '    local line = "([^:\\r\\n]+):[ \\t]*([0-9]+)[ \\t]*\\r\\n"\n'
        "    for key, value in text:sub(1, last):gmatch(line) do\n"
        "        key = key:lower()\n"
        f"        if {is_named} then return tonumber(value), last end\n"
        "    end\n"
        f"    return {without}",
        4,
    )


def _constant(codec: Codec[Any]) -> tuple[str, int]:
    size = codec.parameters["size"]
    return f"return {size}, 0", 1


def _ber(codec: Codec[Any]) -> tuple[str, int]:
    return (
        "if tvb:len() < offset + 1 then return nil end\n"
        "    local count = tvb(offset, 1):uint()\n"
        "    if count < 128 then return count, 1 end\n"
        "    count = count - 128\n"
        f"    if count == 0 or count > {codec.parameters['max_width']} then return false, 0 end\n"
        "    if tvb:len() < offset + 1 + count then return nil end\n"
        "    local value = 0\n"
        "    for place = 1, count do value = value * 256 + tvb(offset + place, 1):uint() end\n"
        "    return value, 1 + count",
        1,
    )


def _marked(codec: Codec[Any]) -> tuple[str, int]:
    marks = ", ".join(map(_lua_string, codec.layout.marks))
    return (
        "if tvb:len() <= offset then return nil end\n"
        "    local text, first, size = tvb(offset):raw(), nil, 0\n"
        f"    for _, mark in ipairs({{ {marks} }}) do\n"
        "        local found = text:find(mark, 1, true)\n"
        "        local better = found and (not first or found < first)\n"
        "        if better or found and found == first and #mark > size then\n"
        "            first, size = found, #mark\n"
        "        end\n"
        "    end\n"
        "    if not first then return nil end\n"
        "    return first - 1, size",
        min(map(len, codec.layout.marks)),
    )


_LENGTHS: dict[str, Callable[[Codec[Any]], tuple[str, int]]] = {
    "uint": _fixed,
    "struct": _fixed,
    "digits": _digits,
    "varint": _varint,
    "ber": _ber,
    "text": _text,
    "headers": _headers,
    "fixed": _constant,
}

# Kinds without a length: the reader looks for the end mark.
_CUTS: dict[str, Callable[[Codec[Any]], tuple[str, int]]] = {"delimiter": _marked, "cobs": _marked}

_TEMPLATE = """\
-- A Wireshark dissector for the codec {codec}
-- Made by: framecodec wireshark. Use: tshark -X lua_script:THIS_FILE -r CAPTURE
local proto = Proto("{name}", "{name}, {protocol}")
local fields = {{
    magic = ProtoField.bytes("{name}.magic", "Magic"),
    lead = ProtoField.bytes("{name}.lead", "Lead"),
    length = ProtoField.double("{name}.length", "Length field"),
    rest = ProtoField.bytes("{name}.rest", "Rest"),
    check = ProtoField.bytes("{name}.check", "Check"),
    trailer = ProtoField.bytes("{name}.trailer", "Trailer"),
    padding = ProtoField.bytes("{name}.padding", "Padding"),
    size = ProtoField.uint32("{name}.size", "Size of the frame"),
}}
proto.fields = fields
local bad = ProtoExpert.new(
    "{name}.bad", "Not a frame", expert.group.MALFORMED, expert.severity.ERROR)
proto.experts = {{ bad }}

-- The shapes of frames. `read` returns the length field's value and width; nil: more bytes are
-- needed; false: it is not a length.
local shapes = {{}}
{shapes}

-- Each function returns a frame's shape; nil: more bytes are needed; false: no shape begins so.
local choose = {{}}
{choices}

local function shape_of(tvb, start)
    return {root}
end

-- Return the frame's size, and that without padding; 0: more bytes are needed; nil: not a frame.
local function frame_size(tvb, start)
    local shape = shape_of(tvb, start)
    if shape == nil then return 0 end
    if not shape or tvb:len() < start + shape.smallest then return shape and 0 or nil end
    if #shape.magic > 0 and tvb(start, #shape.magic):raw() ~= shape.magic then return nil end
    local value, width = shape.read(tvb, start + shape.offset)
    if value == nil then return 0 end
    if value == false then return nil end
    local size = shape.size(value, width)
    if shape.specials[value] then size = shape.offset + width end
    if size < shape.offset + width or size > shape.limit + 65536 then return nil end
    return math.floor((size + shape.align - 1) / shape.align) * shape.align, size
end

local function get_size(tvb, pinfo, start)
    return frame_size(tvb, start) or tvb:len() - start
end

-- Add the next bytes to the tree, and return the offset after them.
local function add(subtree, field, tvb, start, size, ...)
    if size > 0 then subtree:add(field, tvb(start, size), ...) end
    return start + size
end

local function dissect(tvb, pinfo, tree)
    pinfo.cols.protocol = "{upper}"
    local subtree = tree:add(proto, tvb(), "{protocol}")
    local size, unpadded = frame_size(tvb, 0)
    if not size or size ~= tvb:len() then
        subtree:add_proto_expert_info(bad)
        pinfo.cols.info = "not a frame of this codec"
        return tvb:len()
    end
    local shape = shape_of(tvb, 0)
    local value, width = shape.read(tvb, shape.offset)
    subtree:add(fields.size, tvb(), size)
    local at = add(subtree, fields.magic, tvb, 0, #shape.magic)
    if shape.marked then
        at = add(subtree, fields.rest, tvb, at, value)
        add(subtree, fields.trailer, tvb, at, width)
    else
        at = add(subtree, fields.lead, tvb, at, shape.offset - at)
        at = add(subtree, fields.length, tvb, at, width, value)
        if not shape.specials[value] then
            at = add(subtree, fields.check, tvb, at, shape.front)
            at = add(subtree, fields.rest, tvb, at, unpadded - at - shape.check - shape.trailer)
            at = add(subtree, fields.check, tvb, at, shape.check)
            at = add(subtree, fields.trailer, tvb, at, shape.trailer)
        end
        add(subtree, fields.padding, tvb, at, size - unpadded)
    end
    pinfo.cols.info = string.format("frame of %d bytes, length %d", size, value)
    return tvb:len()
end

function proto.dissector(tvb, pinfo, tree)
    dissect_tcp_pdus(tvb, tree, {smallest}, get_size, dissect)
    return tvb:len()
end

DissectorTable.get("tcp.port"):add_for_decode_as(proto)
{ports}"""
