"""What a stream holds, by a parser that sees all of it at once.

Written from what is documented, with nothing from the package but the parameters of a codec: no
layout, no state, no speed. A splitter that sees the same stream in pieces must come to the same
outcome.
"""

from __future__ import annotations

import binascii
import contextlib
import functools
import math
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from framecodec import (
    Check,
    ChecksumError,
    Codec,
    FrameError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
)

__all__ = ["Outcome", "check", "expect", "run"]


@dataclass
class Outcome:
    """What came of a stream, up to its end."""

    messages: list[Any] = field(default_factory=list)
    error: type[BaseException] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)  # of the error
    stream_offset: int = 0
    skipped: int = 0
    unread: bytes = b""  # what detach() gives back: nothing of a frame that was being discarded

    # For each frame that was delivered or discarded: after how many bytes of the stream that is
    # certain, where the frame ends, and how many messages there are by then.
    steps: list[tuple[int, int, int]] = field(default_factory=list, compare=False)
    # After how many bytes of the stream the error is certain; None where only the end decides.
    decided: int | None = field(default=None, compare=False)
    # Of a skipped frame that is bad: where the token begins that made it so; no byte of it is gone.
    bad_token: int | None = field(default=None, compare=False)


class Bad(Exception):
    """The frame is invalid; the argument is how many of its first bytes decide that."""


class Differs(Exception):
    """The check is wrong: how many bytes decide that, what is computed, what is found."""


class Broken(Exception):
    """The user's function raised what is no `Exception`: after how many bytes, and its type."""


class Short(Exception):
    """More bytes are wanted."""


# --- length fields: value and the position after it, or Bad, or Short -----------------------------


def read_binary(frame: bytes, pos: int, width: int, order: Any, signed: bool) -> tuple[int, int]:
    if len(frame) < pos + width:
        raise Short
    return int.from_bytes(frame[pos : pos + width], order, signed=signed), pos + width


def alphabet(base: int) -> bytes:
    return b"0123456789" if base == 10 else b"0123456789abcdefABCDEF"


def read_digits(frame: bytes, pos: int, width: int, base: int) -> tuple[int, int]:
    for stop in range(pos + 1, min(pos + width, len(frame)) + 1):
        digits = frame[pos:stop]
        if digits.strip(alphabet(base)) or int(digits, base) >= 2**64:
            raise Bad(stop)
    if len(frame) < pos + width:
        raise Short
    return int(frame[pos : pos + width], base), pos + width


def read_packed(frame: bytes, pos: int, width: int) -> tuple[int, int]:
    for stop in range(pos + 1, min(pos + width, len(frame)) + 1):
        digits = frame[pos:stop].hex()
        if not digits.isdecimal() or int(digits) >= 2**64:
            raise Bad(stop)
    if len(frame) < pos + width:
        raise Short
    return int(frame[pos : pos + width].hex()), pos + width


def read_ber(frame: bytes, pos: int, max_width: int) -> tuple[int, int]:
    if len(frame) <= pos:
        raise Short
    if frame[pos] < 128:
        return frame[pos], pos + 1
    if not 129 <= frame[pos] <= 128 + max_width:
        raise Bad(pos + 1)
    stop = pos + 1 + frame[pos] - 128
    if len(frame) < stop:
        raise Short
    return int.from_bytes(frame[pos + 1 : stop], "big"), stop


def read_wider(codec: Codec, frame: bytes, value: int, stop: int, plain_max: int) -> Any:
    """The value, the position after it, and whether it is that of the length field itself."""
    has = codec.parameters
    wider = has["wider"] or {}
    if value not in wider:
        return value, stop, True

    def parts(field: str) -> tuple[int, Any]:
        bits, order = re.fullmatch(r"u(\d+)(.*)", field).groups()  # type: ignore[union-attr]
        orders = {"le": "little", "native": sys.byteorder}
        return int(bits) // 8, orders.get(order, "big")

    width, order = parts(wider[value])
    value, stop = read_binary(frame, stop, width, order, False)
    mask = plain_max if has["length_mask"] is None else has["length_mask"]
    in_field = value <= plain_max and not value & ~mask and value not in wider
    narrower = any(
        value < 256 ** parts(field)[0] for field in wider.values() if parts(field)[0] < width
    )
    if has["wider_than_needed"] == "invalid" and (in_field or narrower):
        raise Bad(stop)
    return value, stop, False


def read_text(
    frame: bytes, pos: int, end: bytes, base: int, signed: bool, has: Any
) -> tuple[int, int]:
    for stop in range(pos + 1, len(frame) + 1):
        number = frame[pos:stop]
        sign = b"-" if signed and number[:1] == b"-" else b""
        after = number[len(sign) :].lstrip(alphabet(base))
        digits = number[len(sign) : len(number) - len(after)]
        value = int(digits or b"0", base)
        blanks = b""
        if digits and has["trailing_blanks"]:
            blanks = after[: len(after) - len(after.lstrip(b" \t"))]
            after = after[len(blanks) :]
        zero_leads = digits[:1] == b"0" and ((len(digits) > 1 and not has["leading_zeros"]) or sign)
        zero_leads = zero_leads or len(digits + blanks) > has["max_digits"]
        if value >= 2**64 or zero_leads or (after and not digits) or not end.startswith(after):
            raise Bad(stop)
        if after == end:
            return (-value if sign else value), stop
    raise Short


def read_varint(frame: bytes, pos: int, max_width: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(frame[pos : pos + max_width]):
        value += (byte & 127) << 7 * index
        last = byte < 128
        if value >= 2**64 or (last and index and not byte) or (not last and index + 1 == max_width):
            raise Bad(pos + index + 1)
        if last:
            return value, pos + index + 1
    raise Short


def read_headers(frame: bytes, pos: int, has: Any) -> tuple[int, int]:
    lengths: list[int] = []
    names = {name.lower().encode() for name in (has["name"], *has["names"])}
    ends = {b"\r\n": rb"\r\n", b"\n": rb"\n"}[has["line_end"]]
    number = rb"0|[1-9][0-9]{0,19}"
    if has["lenient"]:
        ends, number = rb"\r?\n", rb"0*[0-9]{1,20}"
    start, limit, is_first = pos, pos + has["max_header"], True
    while stop := frame.find(b"\n", start, limit) + 1:
        line, start = frame[start:stop], stop
        if is_first and has["start_line"] not in (False, True):
            allowed = b"|".join(map(re.escape, has["start_line"]))
            first = rb"(?:(?:%b) .*?|.*? (?:%b))" % (allowed, allowed) + ends
            if not re.fullmatch(first, line, re.DOTALL | re.IGNORECASE):
                raise Bad(stop)
        if re.fullmatch(ends, line):
            if not lengths and not has["keep"]:
                raise Bad(stop)
            return (lengths or [0])[0], stop
        if is_first and has["start_line"]:
            is_first = False
            if not re.fullmatch(b".*?" + ends, line, re.DOTALL):
                raise Bad(stop)
            continue
        is_first = False
        token, value = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+", rb"[\t\x20-\x7e\x80-\xff]*"
        match = re.fullmatch(rb"(%b):(%b)%b" % (token, value, ends), line)
        if not match:
            raise Bad(stop)
        if match[1].lower() in names:
            digits = match[2].strip(b" \t")
            if not re.fullmatch(number, digits) or int(digits) >= 2**64 or lengths:
                raise Bad(stop)
            lengths.append(int(digits))
    if len(frame) >= limit:
        raise Bad(limit)
    raise Short


@functools.cache
def refusing_sizes(max_header: int) -> set[int]:
    """How many bytes `parse` must have been shown so that its refusal counts."""
    sizes, size = set(), 0
    while size < max_header:
        size = min(max_header, size + 1 + max(0, size - 64) // 8)
        sizes.add(size)
    return sizes


def ask_parse(frame: bytes, pos: int, parse: Any, max_header: int) -> tuple[int, int, bytes, int]:
    """The size of the rest, where the header stops, the lead, and how many bytes were shown."""
    for size in range(1, min(max_header, len(frame) - pos) + 1):
        try:
            found = parse(memoryview(frame[pos : pos + size]))
            if found is None:
                continue
            header_size, rest_size, lead = (*found, b"")[:3]
            sound = len(found) in (2, 3) and 0 < header_size <= max_header and rest_size >= 0
            lead = bytes(memoryview(lead))
        except MemoryError as error:
            raise Broken(pos + size, type(error)) from None
        except Exception:
            sound = False
        except BaseException as error:
            raise Broken(pos + size, type(error)) from None
        if not sound:
            if size in refusing_sizes(max_header):
                raise Bad(pos + size)
            continue
        if header_size <= size:
            return rest_size, pos + header_size, lead, pos + size
    if len(frame) - pos >= max_header:
        raise Bad(pos + max_header)
    raise Short


def match_constant(frame: bytes, pos: int, constant: bytes) -> int:
    for index, byte in enumerate(constant):
        if pos + index >= len(frame):
            raise Short
        if frame[pos + index] != byte:
            raise Bad(pos + index + 1)
    return pos + len(constant)


def read_header(codec: Codec, frame: bytes) -> tuple[int, int, bytes, int, bool]:
    """The length, the header's size, the lead, how many bytes decide that; can it be special."""
    has = codec.parameters
    magic_stop = match_constant(frame, 0, has["magic"])
    pos = magic_stop if has["length_offset"] is None else has["length_offset"]
    if codec.kind == "custom":
        return *ask_parse(frame, pos, has["parse"], has["max_header"]), False
    for offset, constant in (has["constants"] or {}).items():
        if offset < pos:
            match_constant(frame, offset, constant)
    if codec.kind == "fixed":
        return has["size"], pos, b"", pos, False
    plain = True
    if codec.kind == "uint":
        order = sys.byteorder if has["byteorder"] == "native" else has["byteorder"]
        value, stop = read_binary(frame, pos, has["width"], order, has["signed"])
    elif codec.kind == "struct":
        size = struct.calcsize(has["fmt"])
        if len(frame) < pos + size:
            raise Short
        (value,), stop = struct.unpack(has["fmt"], frame[pos : pos + size]), pos + size
    elif codec.kind == "ber":
        value, stop = read_ber(frame, pos, has["max_width"])
    elif codec.kind == "digits" and has["base"] == "bcd":
        value, stop = read_packed(frame, pos, has["width"])
    elif codec.kind == "digits":
        value, stop = read_digits(frame, pos, has["width"], has["base"])
    elif codec.kind == "varint":
        value, stop = read_varint(frame, pos, has["max_width"])
    elif codec.kind == "text":
        signed = any(special < 0 for special in has["specials"] or ())
        value, stop = read_text(frame, pos, has["end"], has["base"], signed, has)
    else:
        value, stop = read_headers(frame, pos, has)
    lead = frame[magic_stop:pos]
    if codec.kind == "headers" and has["keep"]:
        lead = frame[magic_stop:stop]
    if codec.kind in ("uint", "struct"):
        width = stop - pos
        if has["length_mask"] is not None:
            value &= has["length_mask"]
            little = sys.byteorder == "little"
            if codec.kind == "uint":
                little = {"big": False, "little": True}.get(has["byteorder"], little)
            elif has["fmt"][0] in "<>!":
                little = has["fmt"][0] == "<"
            mask = has["length_mask"].to_bytes(width, "little" if little else "big")
            lead += bytes(frame[pos + i] & ~mask[i] for i in range(width) if mask[i] != 255)
        value, stop, plain = read_wider(codec, frame, value, stop, 256**width - 1)
    return value, stop, lead, stop, plain


# --- checks ---------------------------------------------------------------------------------------


def read_reflected(data: bytes, table: list[int], register: int) -> int:
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 255]
    return register


@functools.cache
def reflected_table(polynomial: int) -> list[int]:
    table = []
    for register in range(256):
        for _ in range(8):
            register = (register >> 1) ^ (polynomial * (register & 1))
        table.append(register)
    return table


def compute_check(check: Check, data: bytes) -> int:
    """The check of the bytes, as many of its bytes or digits as are written."""
    if not isinstance(check.function, str):
        return check.function(data) % (10**check.width if check.digits else 256**check.width)
    crc16 = functools.partial(read_reflected, data)
    if check.function == "crc8":
        register = 0
        for byte in data:
            register ^= byte
            for _ in range(8):
                register = register << 1 & 255 ^ (7 if register & 128 else 0)
        return register
    if check.function == "fletcher16":
        first = second = 0
        for byte in data:
            first = (first + byte) % 255
            second = (second + first) % 255
        return 256 * second + first
    functions: dict[str, Callable[[], int]] = {
        "crc32": lambda: zlib.crc32(data),
        "crc32c": lambda: crc16(reflected_table(0x82F63B78), 2**32 - 1) ^ (2**32 - 1),
        "adler32": lambda: zlib.adler32(data),
        "crc16-modbus": lambda: crc16(reflected_table(0xA001), 0xFFFF),
        "crc16-xmodem": lambda: binascii.crc_hqx(data, 0),
        "crc16-ccitt-false": lambda: binascii.crc_hqx(data, 0xFFFF),
        "crc16-x25": lambda: crc16(reflected_table(0x8408), 0xFFFF) ^ 0xFFFF,
        "sum8": lambda: sum(data) % 256,
        "xor8": lambda: functools.reduce(lambda a, b: a ^ b, data, 0),
    }
    return functions[check.function]()


def read_check(check: Check, frame: bytes, pos: int, decided: int, covered: bytes) -> None:
    """Compare the check at a position; `decided` bytes tell whether it is right."""
    found = frame[pos : pos + check.width]
    if check.digits:
        if re.fullmatch(rb"[0-9]+", found) is None:
            raise Bad(decided)
        value = int(found)
    else:
        order: Any = sys.byteorder if check.byteorder == "native" else check.byteorder
        value = int.from_bytes(found, order)
    computed = compute_check(check, covered)
    if value != computed:
        raise Differs(decided, computed, value)


# --- choices --------------------------------------------------------------------------------------


@dataclass
class Chosen:
    """The codec of one frame, and what the choices before it say about it."""

    codec: Codec
    seen: int = 0  # bytes that were looked at to choose
    limit: float = math.inf
    owned: list[tuple[int, int]] = field(default_factory=list)  # offset in the frame, bits
    names: list[Any] = field(default_factory=list)  # the innermost first

    def named(self, message: Any) -> Any:
        for name in self.names:
            message = (name, message)
        return message


def alternatives_of(codec: Codec) -> list[tuple[Any, Any, Codec]]:
    """Name, values and codec of each alternative."""
    has = codec.parameters
    if has["tagged"]:
        return [(name, *pair) for name, pair in has["alternatives"].items()]
    return [(None, values, each) for values, each in has["alternatives"].items()]


def magics(codec: Codec) -> list[bytes]:
    if codec.kind != "choice":
        return [codec.parameters["magic"]]
    return [magic for _, _, each in alternatives_of(codec) for magic in magics(each)]


def common_start(magics: list[bytes]) -> bytes:
    start = magics[0]
    while not all(magic.startswith(start) for magic in magics):
        start = start[:-1]
    return start


def chosen_by(codec: Codec, frame: bytes) -> Chosen:
    has = codec.parameters
    limit = math.inf if has["max_message_size"] is None else has["max_message_size"]
    if codec.kind != "choice":
        if codec.kind == "custom":  # a lead beside the largest rest is beyond what counts can hold
            limit = min(limit, 2**64 - 1)
        return Chosen(codec, limit=limit)
    with contextlib.suppress(Short):  # what all frames begin with is checked first
        match_constant(frame, 0, common_start(magics(codec)))
    if len(frame) <= has["offset"]:
        raise Short
    byte = frame[has["offset"]] & has["mask"]
    others = None
    for name, values, each in alternatives_of(codec):
        if values is None:
            others = name, each
        elif byte == values or (isinstance(values, bytes) and byte in values):
            break
    else:
        if others is None:
            raise Bad(has["offset"] + 1)
        name, each = others
    chosen = chosen_by(each, frame)
    chosen.seen = max(chosen.seen, has["offset"] + 1)
    chosen.limit = min(limit, chosen.limit)
    if not has["keep"]:
        chosen.owned.append((has["offset"], has["mask"]))
    if has["tagged"]:
        chosen.names.append(name)
    return chosen


def add_marked_frame(
    outcome: Outcome, chosen: Chosen, frame: bytes, *, raw: bool, skip: bool
) -> bool:
    """Add the frame of an alternative that an end mark ends; return whether it is discarded."""
    limit = None if chosen.limit == math.inf else int(chosen.limit)
    codec = chosen.codec.replace(max_message_size=limit)
    own = expect_marked(codec, frame, raw=raw, skip=skip, mark=b"", only_one=True)
    start, before = outcome.stream_offset, len(outcome.messages)
    outcome.messages += own.messages if raw else map(chosen.named, own.messages)
    outcome.skipped += own.skipped
    outcome.steps += [
        (start + max(certain, chosen.seen), start + stop, before + count)
        for certain, stop, count in own.steps
    ]
    outcome.error, outcome.attributes = own.error, own.attributes
    if own.decided is not None:
        outcome.decided = start + max(own.decided, chosen.seen)
    outcome.stream_offset += own.stream_offset
    return own.error is not None and not own.unread


def without_owned(chosen: Chosen, frame: bytes) -> bytes:
    """The frame with the bits 0 that the choices own."""
    changed = bytearray(frame)
    for offset, mask in chosen.owned:
        changed[offset] &= ~mask
    return bytes(changed)


# --- the stream -----------------------------------------------------------------------------------


def expect(
    codec: Codec, data: bytes, *, raw: bool = False, skip: bool = False, after: bytes = b""
) -> Outcome:
    """The outcome of a stream that ends after `data`, and had an end mark just before."""
    if codec.kind in ("delimiter", "cobs"):
        return expect_marked(codec, data, raw=raw, skip=skip, mark=after)
    if codec.kind == "joined":
        from tests.helpers.reference_joined import expect_joined  # here: it imports this module

        return expect_joined(codec, data, raw=raw, skip=skip)
    outcome, oversized, in_padding = Outcome(), False, False
    while outcome.stream_offset < len(data):
        frame = data[outcome.stream_offset :]
        where, header, needed, oversized, seen = "header", frame, None, False, 0
        chosen = Chosen(codec)
        try:
            chosen = chosen_by(codec, frame)
            if chosen.codec.kind in ("delimiter", "cobs"):
                oversized = add_marked_frame(outcome, chosen, frame, raw=raw, skip=skip)
                if outcome.error:
                    break
                continue
            has, limit, looked_at = chosen.codec.parameters, chosen.limit, chosen.seen
            seen = looked_at
            specials, trailer = has["specials"] or {}, has["trailer"]
            constants = (has["constants"] or {}).items()
            check: Check | None = has["check"]
            check_size = 0 if check is None else len(check.before) + check.width
            front_size = check_size if check is not None and check.position == "front" else 0
            cleared = without_owned(chosen, frame)
            value, size, lead, seen, plain = read_header(chosen.codec, cleared)
            seen = max(seen, looked_at)
            header = frame[:size]
            if plain and value in specials:
                outcome.messages.append(header if raw else chosen.named(specials[value]))
                outcome.stream_offset += size
                outcome.steps.append(
                    (outcome.stream_offset, outcome.stream_offset, len(outcome.messages))
                )
                continue
            rest_size = value * has["length_unit"] + has["length_adjustment"]
            if has["length_includes"] == "frame":
                rest_size = value * has["length_unit"] - size - check_size - len(trailer)
            if rest_size < 0 or value < 0:
                raise Bad(size)
            message_size = len(lead) + rest_size
            oversized = message_size > limit
            if oversized and not skip:
                outcome.error = MessageTooLargeError
                outcome.attributes = {"size": message_size, "limit": limit, "header": header}
                outcome.decided = outcome.stream_offset + seen
                break
            if message_size < has["min_message_size"]:
                raise Bad(size)
            prefix = max([pos + len(constant) for pos, constant in constants if pos >= size] + [0])
            prefix = max([offset + 1 for offset, _ in chosen.owned if offset >= size] + [prefix])
            if prefix > size + front_size + rest_size:
                raise Bad(size)
            header = frame
            if check is not None and front_size:
                size = match_constant(frame, size, check.before) + check.width
                if len(frame) < size:
                    raise Short
                seen = max(seen, size)
            for pos, constant in constants:
                if pos >= size:
                    match_constant(frame, pos, constant)
            header = frame[: max(size, prefix)]
            seen = max(seen, prefix)
            rest_stop = size + rest_size
            needed = rest_stop + check_size - front_size + len(trailer)
            needed += -needed % has["align"]
            where = "rest"
            if len(frame) < rest_stop:
                raise Short
            where = "trailer"
            rest = frame[size:rest_stop]
            if check is not None and front_size:
                if not oversized:
                    read_check(check, frame, size - check.width, rest_stop, rest)
                stop = rest_stop
            elif check is not None:
                at = match_constant(frame, rest_stop, check.before)
                stop = at + check.width
                if len(frame) < stop:
                    raise Short
                covered = {
                    "message": lead + rest,
                    "rest": rest,
                    "body": frame[len(has["magic"]) : rest_stop],
                    "frame": frame[:rest_stop],
                }[check.covers]
                if not oversized:
                    read_check(check, frame, at, stop, covered)
            else:
                stop = rest_stop
            stop = match_constant(frame, stop, trailer)
            if raw and len(frame) < needed:
                raise Short
        except Bad as bad:
            outcome.error = InvalidFrameError
            outcome.attributes = {"header": header[: bad.args[0]]}
            outcome.decided = outcome.stream_offset + max(seen, bad.args[0])
            break
        except Differs as differs:
            decided, computed, found = differs.args
            outcome.error = ChecksumError
            outcome.attributes = {"header": header, "expected": computed, "found": found}
            outcome.decided = outcome.stream_offset + max(seen, decided)
            break
        except Broken as broken:
            outcome.decided = outcome.stream_offset + broken.args[0]
            outcome.error = broken.args[1]
            break
        except Short:
            outcome.error = IncompleteFrameError
            outcome.attributes = {
                "where": where,
                "received": len(frame),
                "needed": needed,
                "header": header,
            }
            break
        if oversized:
            outcome.skipped += 1
        else:
            message = chosen.named(lead + cleared[size:rest_stop])
            outcome.messages.append(frame[:needed] if raw else message)
        certain = outcome.stream_offset + max(seen, needed if raw else stop)
        if len(frame) < needed:  # the message is delivered before its padding
            in_padding = True
            outcome.steps.append((certain, outcome.stream_offset, len(outcome.messages)))
            outcome.error = IncompleteFrameError
            outcome.attributes = {
                "where": where,
                "received": len(frame),
                "needed": needed,
                "header": header,
            }
            break
        outcome.stream_offset += needed
        outcome.steps.append((certain, outcome.stream_offset, len(outcome.messages)))
        if stop < needed and not raw:
            del outcome.steps[-1]
            start = outcome.stream_offset - needed
            outcome.steps.append((certain, start, len(outcome.messages)))
            outcome.steps.append((start + needed, start + needed, len(outcome.messages)))
    outcome.unread = data[outcome.stream_offset :] if not (oversized and skip) else b""
    if in_padding:  # the message is delivered, and the padding so far is unread
        outcome.unread = outcome.unread[stop:]
    if outcome.decided is not None and outcome.steps:  # it is not looked for any earlier
        outcome.decided = max(outcome.decided, max(step[0] for step in outcome.steps))
    if outcome.error and issubclass(outcome.error, FrameError):
        outcome.attributes["stream_offset"] = outcome.stream_offset
    return outcome


# --- frames that an end mark ends -----------------------------------------------------------------


class Content:
    """A frame's content, byte by byte: the message, and what decides it."""

    def __init__(self, codec: Codec, frame: bytes, magic_size: int) -> None:
        self.codec, self.frame = codec, frame
        self.limit = codec.parameters["max_message_size"]
        check = codec.parameters["check"]
        self.check_size = 0 if check is None else len(check.before) + check.width
        self.most = None if self.limit is None else self.limit + self.check_size
        self.pos = self.seen = self.start = magic_size
        self.message = bytearray()
        self.stop = magic_size  # of the content
        self.mark = b""
        self.oversized_at: int | None = None

    def add(self, data: bytes, pos: int, seen: int) -> None:
        self.message += data
        self.pos, self.seen = pos, max(self.seen, seen)
        too_large = self.most is not None and len(self.message) > self.most
        if too_large and self.oversized_at is None:
            self.oversized_at = self.seen

    def add_run(self, data: bytes) -> None:
        """Add bytes that begin neither a mark nor an escape, as if one by one."""
        if self.most is not None and self.oversized_at is None:
            fits = self.most + 1 - len(self.message)
            self.add(data[:fits], self.pos + len(data[:fits]), self.pos + len(data[:fits]))
            data = data[fits:]
        self.add(data, self.pos + len(data), self.pos + len(data))

    def without_check(self, message: bytes) -> bytes:
        """The message of a whole content, whose check is compared."""
        has = self.codec.parameters
        check: Check | None = has["check"]
        size = len(message) - self.check_size
        if 0 <= size < has["min_message_size"] or size < 0:
            raise Bad(self.seen)
        if check is None:
            return message
        if check.position == "front":
            found, message = message[: self.check_size], message[self.check_size :]
        else:
            message, found = message[:size], message[size:]
        if not found.startswith(check.before):
            raise Bad(self.seen)
        covered = has["magic"] + message if check.covers == "frame" else message
        read_check(check, found, len(check.before), self.seen, covered)
        return message

    def read_delimited(self) -> None:
        has = self.codec.parameters
        marks = sorted((has["end"], *has["more_ends"]), key=len)
        escape = {value: key for key, value in (has["escape"] or {}).items()}
        longest = max(map(len, [*marks, *escape])) + 1
        firsts = {token[:1] for token in [*marks, *escape]}
        plain = re.compile(b"[^%b]+" % b"".join(b"\\x%02x" % ord(first) for first in firsts))
        while self.pos < len(self.frame):
            if run := plain.match(self.frame, self.pos):
                self.add_run(run[0])
                continue
            left = self.frame[self.pos : self.pos + longest]
            for mark in marks:
                if left.startswith(mark):
                    self.mark, self.stop = mark, self.pos
                    self.seen = max(self.seen, self.pos + len(mark))
                    return
            for token, byte in escape.items():
                if left.startswith(token):
                    self.add(byte, self.pos + len(token), self.pos + len(token))
                    break
            else:
                tokens = [*marks, *escape]
                if any(token.startswith(left) for token in tokens):
                    raise Short
                same = max(len(common(left, token)) for token in tokens)
                if any(left[0] == token[0] for token in escape):
                    raise Bad(self.pos + same + 1)
                self.add(left[:1], self.pos + 1, self.pos + same + 1)
        raise Short

    def read_stuffed(self) -> None:
        frame, zero = self.frame, b""
        while self.pos < len(frame):
            code = frame[self.pos]
            if not code:
                self.mark, self.stop, self.seen = b"\0", self.pos, self.pos + 1
                return
            self.add(zero, self.pos + 1, self.pos + 1)
            for pos in range(self.pos, self.pos + code - 1):
                if pos >= len(frame):
                    raise Short
                if not frame[pos]:
                    raise Bad(pos + 1)
                self.add(frame[pos : pos + 1], pos + 1, pos + 1)
            zero = b"\0" if code < 255 else b""
        raise Short


def common(left: bytes, right: bytes) -> bytes:
    size = min(len(left), len(right))
    return left[: next((pos for pos in range(size) if left[pos] != right[pos]), size)]


def expect_marked(
    codec: Codec, data: bytes, *, raw: bool, skip: bool, mark: bytes, only_one: bool = False
) -> Outcome:
    """The same for frames that an end mark ends; `only_one` of them, ignored or not."""
    has, outcome, oversized = codec.parameters, Outcome(), False
    marks = sorted((has.get("end", b"\0"), *has.get("more_ends", ())), key=len)
    magic = has["magic"]
    while outcome.stream_offset < len(data) and not (only_one and outcome.stream_offset):
        frame = data[outcome.stream_offset :]
        content, oversized = Content(codec, frame, len(magic)), False
        where, header = "rest" if not magic else "header", b""
        too_large = False
        try:
            more = [m[len(mark) :] for m in marks if mark and m.startswith(mark) and m != mark]
            found = next((rest for rest in more if frame.startswith(rest)), None)
            if found is not None:
                mark += found
                outcome.stream_offset += len(found)
                place = outcome.stream_offset
                outcome.steps.append((place, place, len(outcome.messages)))
                continue
            if any(rest.startswith(frame) for rest in more):
                raise Short
            header = frame[: len(magic)]
            match_constant(frame, 0, magic)
            where = "rest"
            try:
                content.read_delimited() if codec.kind == "delimiter" else content.read_stuffed()
            finally:
                oversized = content.oversized_at is not None
                too_large = oversized and not skip
            message = bytes(content.message)
            empty = content.stop == content.start if codec.kind == "cobs" else not message
            ignored = empty and (codec.kind == "cobs" or has["skip_empty"])
            if not (ignored or oversized):
                message = content.without_check(message)
                ignored = codec.kind != "cobs" and has["skip_empty"] and not message
        except Bad as bad:
            if not too_large:
                outcome.error = InvalidFrameError
                outcome.attributes = {"header": header[: bad.args[0]]}
                outcome.decided = outcome.stream_offset + bad.args[0]
                outcome.bad_token = outcome.stream_offset + content.pos
        except Differs as differs:
            decided, computed, wrong = differs.args
            outcome.error = ChecksumError
            outcome.attributes = {"header": header, "expected": computed, "found": wrong}
            outcome.decided = outcome.stream_offset + decided
        except Short:
            outcome.error = IncompleteFrameError
            outcome.attributes = {
                "where": where,
                "received": len(frame),
                "needed": None,
                "header": header,
            }
        if too_large:
            outcome.error = MessageTooLargeError
            outcome.attributes = {"size": None, "limit": content.limit, "header": header}
            outcome.decided = outcome.stream_offset + (content.oversized_at or 0)
        if outcome.error is not None:
            break
        mark = content.mark
        if oversized:
            outcome.skipped += 1
        elif not ignored:
            outcome.messages.append(frame[: content.stop + len(mark)] if raw else message)
        certain = outcome.stream_offset + content.seen
        outcome.stream_offset += content.stop + len(mark)
        outcome.steps.append((certain, outcome.stream_offset, len(outcome.messages)))
        oversized = False
    outcome.unread = data[outcome.stream_offset :] if not (oversized and skip) else b""
    if outcome.decided is not None and outcome.steps:
        outcome.decided = max(outcome.decided, max(step[0] for step in outcome.steps))
    if outcome.error:
        outcome.attributes["stream_offset"] = outcome.stream_offset
    return outcome


def run(
    splitter: Any,
    pieces: list[bytes],
    hand_over: Callable[[Any, bytes], list[Any]] | None = None,
) -> tuple[Outcome, str]:
    """The outcome of a splitter that is given a stream in pieces, and its error's text.

    Checks on the way what must hold after every piece.
    """
    outcome, fed, error = Outcome(), 0, None
    for piece in pieces:
        needed = splitter.bytes_needed
        assert needed >= 1
        try:
            messages = hand_over(splitter, piece) if hand_over else splitter.feed(piece)
        except FrameError as raised:
            error, messages = raised, []
        fed += len(piece)
        outcome.messages += messages
        assert not messages or len(piece) >= needed, "bytes_needed was no lower bound"
        assert splitter.stream_offset + splitter.pending == fed
        if error or splitter.error:
            break
    ended = _raised_by(splitter.feed_eof)
    assert error in (None, ended), "a later call raises another error"
    error = ended
    assert splitter.error is error
    assert splitter.stream_offset + splitter.pending == fed
    outcome.stream_offset, outcome.skipped = splitter.stream_offset, splitter.skipped
    outcome.unread = splitter.detach()
    if error is not None:
        outcome.error, outcome.attributes = type(error), dict(vars(error))
    return outcome, str(error)


def _raised_by(call: Callable[[], object]) -> FrameError | None:
    try:
        call()
    except FrameError as error:
        return error
    return None


def check(
    engine: ModuleType,
    codec: Codec,
    data: bytes,
    ways: Iterable[list[bytes]],
    *,
    raw: bool = False,
    skip: bool = False,
    hand_over: Callable[[Any, bytes], list[Any]] | None = None,
) -> Outcome:
    """Every one of these ways to cut a stream comes to the outcome of the reference."""
    expected = expect(codec, data, raw=raw, skip=skip)
    on_oversize = "skip" if skip else "raise"
    texts = set()
    for pieces in ways:
        splitter = engine.Splitter(codec, raw=raw, on_oversize=on_oversize)
        found, text = run(splitter, pieces, hand_over)
        texts.add(text)
        # What was not fed after the error is not the splitter's to give back.
        unread = expected.unread[: len(found.unread)] if found.error else expected.unread
        assert found == replace(expected, unread=unread), f"{codec!r}, cut as {pieces}"
        assert bool(found.unread) == bool(expected.unread)
    assert len(texts) == 1, f"the error's text depends on how the stream was cut: {texts}"
    return expected
