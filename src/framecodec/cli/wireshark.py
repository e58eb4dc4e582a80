"""``framecodec wireshark``: a dissector in Lua for a codec.

The dissector calls Wireshark's ``dissect_tcp_pdus``, which puts the frames of a TCP stream together
(Wireshark Developer's Guide, chapter 11, "Functions For New Protocols And Dissectors"). It asks for
a frame's size as soon as the smallest header is there. A size of 0 means that more bytes are
needed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

from .. import Codec, formats
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

    Args:
        codec: The shape of the frames.
        name: The protocol's name and the prefix of its fields.
        ports: TCP ports that it is used for.

    Raises:
        CommandError: The codec has no dissector, or the name is not one of a protocol.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise CommandError(f"{name!r} is not a name; write small letters, digits and _")
    make = _LENGTHS.get(codec.kind)
    if codec.layout.marks:
        raise CommandError(
            f"no dissector for the kind {codec.kind!r}: its frames have no length; "
            f"possible are {', '.join(_LENGTHS)}"
        )
    if codec.layout.joined is not None:
        raise CommandError(
            "no dissector for the kind 'joined': its messages have several frames; give the codec "
            "of its fragments"
        )
    if make is None:
        raise CommandError(
            f"no dissector for the kind {codec.kind!r}: its header is read by code; "
            f"possible are {', '.join(_LENGTHS)}"
        )
    parameters = codec.parameters
    for parameter in ("check", "wider", "length_mask", "names", "lenient", "keep"):
        if parameters.get(parameter):
            raise CommandError(f"no dissector for a codec with {parameter}")
    if parameters.get("line_end") == b"\n":
        raise CommandError("no dissector for a codec with line_end=LF")
    magic, trailer = parameters.get("magic") or b"", parameters.get("trailer") or b""
    offset = parameters.get("length_offset")
    offset = len(magic) if offset is None else offset
    reader, smallest = make(codec)
    unit = parameters.get("length_unit") or 1
    if parameters.get("length_includes") == "frame":
        size = f"value * {unit}"
    else:
        rest = f"value * {unit} + {parameters.get('length_adjustment') or 0}"
        size = f"offset + width + {rest} + {len(trailer)}"
    specials = sorted(parameters.get("specials") or {})
    return _TEMPLATE.format(
        name=name,
        upper=name.upper(),
        codec=str(codec).replace("\n", " "),
        protocol=_known_as(codec),
        offset=offset,
        smallest=offset + smallest,
        magic=len(magic),
        trailer=len(trailer),
        is_magic=_lua_string(magic),
        limit=codec.max_message_size or 2**53,
        specials=", ".join(f"[{value}] = true" for value in specials),
        reader=reader,
        size=size,
        ports="\n".join(
            f'DissectorTable.get("tcp.port"):add({port}, proto)' for port in ports or []
        ),
    )


def _known_as(codec: Codec[Any]) -> str:
    for row in formats.table():
        if row.codec == codec:
            return f"{row.name}: {row.description}".replace('"', "'")
    return "length-prefixed frames"


def _lua_string(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'


# --- the length field, by the kind of the codec ---------------------------------------------------

# Each gives a Lua function body that returns the field's value and width, nil if more bytes are
# needed, false if the bytes are not a length; and the fewest bytes of the field.


def _fixed(codec: Codec[Any]) -> tuple[str, int]:
    if codec.kind == "struct":
        import struct

        fmt = codec.parameters["fmt"]
        width = struct.calcsize(fmt)
        little = struct.pack(fmt, 1)[0] == 1
    else:
        width, order = codec.parameters["width"], codec.parameters["byteorder"]
        little = (sys.byteorder if order == "native" else order) == "little" and width > 1
    # Bytes one by one: Wireshark has no numbers of 5 to 7 bytes.
    places = range(width - 1, -1, -1) if little else range(width)
    steps = "".join(
        f"\n    value = value * 256 + tvb(offset + {place}, 1):uint()" for place in places
    )
    return (
        f"if tvb:len() < offset + {width} then return nil end\n"
        f"    local value = 0{steps}\n    return value, {width}",
        width,
    )


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
    name = codec.parameters["name"].lower().encode()
    longest = codec.parameters["max_header"]
    return (
        f"local text = tvb(offset, math.min(tvb:len() - offset, {longest})):raw()\n"
        '    local stop, last = text:find("\\r\\n\\r\\n", 1, true)\n'
        f"    if not stop and #text < {longest} then return nil end\n"
        "    if not stop then return false, 0 end\n"
        '    local line = "([^:\\r\\n]+):[ \\t]*([0-9]+)[ \\t]*\\r\\n"\n'
        "    for key, value in text:sub(1, last):gmatch(line) do\n"
        f"        if key:lower() == {_lua_string(name)} then return tonumber(value), last end\n"
        "    end\n"
        "    return false, 0",
        4,
    )


_LENGTHS: dict[str, Callable[[Codec], tuple[str, int]]] = {
    "uint": _fixed,
    "struct": _fixed,
    "digits": _digits,
    "varint": _varint,
    "text": _text,
    "headers": _headers,
}

_PORT = 'DissectorTable.get("tcp.port"):add({port}, proto)\n'

_TEMPLATE = """\
-- A Wireshark dissector for the codec {codec}
-- Made by: framecodec wireshark. Use: tshark -X lua_script:THIS_FILE -r CAPTURE
local proto = Proto("{name}", "{protocol}")
local fields = {{
    magic = ProtoField.bytes("{name}.magic", "Magic"),
    lead = ProtoField.bytes("{name}.lead", "Lead"),
    length = ProtoField.double("{name}.length", "Length field"),
    rest = ProtoField.bytes("{name}.rest", "Rest"),
    trailer = ProtoField.bytes("{name}.trailer", "Trailer"),
    size = ProtoField.uint32("{name}.size", "Size of the frame"),
}}
proto.fields = fields
local bad = ProtoExpert.new(
    "{name}.bad", "Not a frame", expert.group.MALFORMED, expert.severity.ERROR)
proto.experts = {{ bad }}
local specials = {{ {specials} }}

-- Return the length field's value and width; nil: more bytes are needed; false: it is not a length.
local function read_length(tvb, offset)
    {reader}
end

-- Return the frame's size; 0: more bytes are needed; nil: it is not a frame.
local function frame_size(tvb, start)
    if tvb:len() < start + {smallest} then return 0 end
    if {magic} > 0 and tvb(start, {magic}):raw() ~= {is_magic} then return nil end
    local offset = {offset}
    local value, width = read_length(tvb, start + offset)
    if value == nil then return 0 end
    if value == false then return nil end
    if specials[value] then return offset + width end
    local size = {size}
    if size < offset + width or size > {limit} + 65536 then return nil end
    return size
end

local function get_size(tvb, pinfo, start)
    return frame_size(tvb, start) or tvb:len() - start
end

local function dissect(tvb, pinfo, tree)
    pinfo.cols.protocol = "{upper}"
    local subtree = tree:add(proto, tvb(), "{protocol}")
    local size = frame_size(tvb, 0)
    if not size or size ~= tvb:len() then
        subtree:add_proto_expert_info(bad)
        pinfo.cols.info = "not a frame of this codec"
        return tvb:len()
    end
    local value, width = read_length(tvb, {offset})
    local stop = {offset} + width
    subtree:add(fields.size, tvb(), size)
    if {magic} > 0 then subtree:add(fields.magic, tvb(0, {magic})) end
    if {offset} > {magic} then subtree:add(fields.lead, tvb({magic}, {offset} - {magic})) end
    subtree:add(fields.length, tvb({offset}, width), value)
    if not specials[value] then
        local rest = size - stop - {trailer}
        if rest > 0 then subtree:add(fields.rest, tvb(stop, rest)) end
        if {trailer} > 0 then subtree:add(fields.trailer, tvb(size - {trailer}, {trailer})) end
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
