"""The TCP streams of a pcap or pcapng file, put together from its packets.

The file is read once, packet by packet. Of each direction of a connection only the segments that
arrived before their turn are held, up to `_HELD_SIZE` bytes; so memory does not grow with the file.

Formats: pcap (draft-ietf-opsawg-pcap), pcapng (draft-ietf-opsawg-pcapng), the link types of
tcpdump.org/linktypes.html, IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293).
"""

from __future__ import annotations

import ipaddress
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .common import CommandError

__all__ = ["Direction", "Piece", "is_capture", "pieces"]

_HELD_SIZE = 4 * 1024 * 1024  # bytes that wait for a missing segment before it counts as lost
_REMEMBERED = 10_000  # ended directions, whose late segments are ignored
_LARGEST_PACKET = 64 * 1024 * 1024  # bytes; no capture has larger ones, a damaged file can say so

_PCAP = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"

Read = Callable[[int], bytes]


def is_capture(head: bytes) -> bool:
    """Return whether a file that begins with these four bytes is a pcap or pcapng file."""
    return head in _PCAP or head == _PCAPNG


# --- files ----------------------------------------------------------------------------------------


def _packets(read: Read) -> Iterator[tuple[int, bytes]]:
    """Yield the link type and the bytes of each packet.

    Args:
        read: Returns the next n bytes of the file, fewer only at its end.
    """
    head = read(4)
    if head == _PCAPNG:
        yield from _pcapng_packets(read)
        return
    order = _PCAP[head]
    link = struct.unpack(f"{order}16xI", _exactly(read, 20))[0] & 0x0FFFFFFF
    while header := read(16):
        (size,) = struct.unpack(f"{order}8xI4x", _whole(header, 16))
        yield link, _exactly(read, size)


def _pcapng_packets(read: Read) -> Iterator[tuple[int, bytes]]:
    order, links = "<", list[int]()
    head = _PCAPNG
    while head:
        if head == _PCAPNG:  # a section: its byte order and interfaces are new
            start = _exactly(read, 8)
            order = ">" if start[4:] == b"\x1a\x2b\x3c\x4d" else "<"
            (size,) = struct.unpack(f"{order}I", start[:4])
            _exactly(read, size - 12)
            links = []
        else:
            (kind,) = struct.unpack(f"{order}I", _whole(head, 4))
            (size,) = struct.unpack(f"{order}I", _exactly(read, 4))
            body = _exactly(read, size - 8)
            if kind == 1 and len(body) >= 2:  # interface description
                links.append(struct.unpack(f"{order}H", body[:2])[0])
            elif kind == 6 and len(body) >= 20:  # enhanced packet
                interface, count = struct.unpack(f"{order}I8xI4x", body[:20])
                yield _link(links, interface), body[20 : 20 + count]
            elif kind == 3 and len(body) >= 4:  # simple packet
                yield _link(links, 0), body[4:-4]
        head = read(4)


def _link(links: list[int], interface: int) -> int:
    if interface >= len(links):
        raise CommandError("damaged capture: a packet names an interface that the file lacks")
    return links[interface]


def _exactly(read: Read, size: int) -> bytes:
    if not 0 <= size <= _LARGEST_PACKET:
        raise CommandError(f"damaged capture: a packet or block of {size} bytes")
    return _whole(read(size), size)


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise CommandError("the capture ends inside a packet")
    return data


# --- packets --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Segment:
    source: tuple[str, int]
    target: tuple[str, int]
    sequence: int
    flags: int
    data: bytes
    missing: int  # bytes at the end that the capture left out


_FIN, _SYN, _RST = 1, 2, 4
_ETHERTYPES = (0x0800, 0x86DD)
_VLANS = (0x8100, 0x88A8)


def _network_packet(link: int, packet: bytes) -> bytes:
    """Return the IP packet of a link layer's packet; empty if it has none."""
    if link == 1:  # Ethernet
        at = 12
        while int.from_bytes(packet[at : at + 2]) in _VLANS:
            at += 4
        return packet[at + 2 :] if int.from_bytes(packet[at : at + 2]) in _ETHERTYPES else b""
    if link in (0, 108):  # loopback
        return packet[4:]
    if link in (12, 14, 101, 228, 229):  # IP without a link layer
        return packet
    if link == 113:  # Linux cooked
        return packet[16:] if int.from_bytes(packet[14:16]) in _ETHERTYPES else b""
    if link == 276:  # Linux cooked, version 2
        return packet[20:] if int.from_bytes(packet[:2]) in _ETHERTYPES else b""
    raise CommandError(f"the capture's link type {link} is not supported; capture on an IP link")


def _segment(link: int, packet: bytes) -> _Segment | None:
    """Return the TCP segment of a packet; None if it has none, or only a fragment of one."""
    data = _network_packet(link, packet)
    if len(data) < 20:
        return None
    if data[0] >> 4 == 4:
        start, protocol = 4 * (data[0] & 15), data[9]
        total = int.from_bytes(data[2:4]) or len(data)  # 0: the network card cuts it up later
        source, target = data[12:16], data[16:20]
        fragment = int.from_bytes(data[6:8]) & 0x3FFF
    elif data[0] >> 4 == 6 and len(data) >= 40:
        start, protocol, fragment = _ipv6_payload(data)
        total = 40 + int.from_bytes(data[4:6]) if data[4:6] != b"\0\0" else len(data)
        source, target = data[8:24], data[24:40]
    else:
        return None
    tcp = data[start:total]
    if protocol != 6 or fragment or len(tcp) < 20:
        return None
    ports = struct.unpack(">HH", tcp[:4])
    return _Segment(
        (str(ipaddress.ip_address(source)), ports[0]),
        (str(ipaddress.ip_address(target)), ports[1]),
        int.from_bytes(tcp[4:8]),
        tcp[13],
        tcp[4 * (tcp[12] >> 4) :],
        max(0, total - len(data)),
    )


def _ipv6_payload(data: bytes) -> tuple[int, int, int]:
    """Return where the payload starts, its protocol, and whether it is a fragment."""
    start, protocol = 40, data[6]
    while protocol in (0, 43, 44, 51, 60) and start + 8 <= len(data):
        if protocol == 44:
            return start, data[start], int.from_bytes(data[start + 2 : start + 4]) & 0xFFF9
        size = 4 * (data[start + 1] + 2) if protocol == 51 else 8 * (data[start + 1] + 1)
        start, protocol = start + size, data[start]
    return start, protocol, 0


# --- streams --------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Direction:
    """One direction of a TCP connection.

    Attributes:
        number: The connection's number in the capture, from 0.
        source: Address and port of the sender.
        target: Address and port of the receiver.
        from_start: Whether the capture has the connection's first byte.
    """

    number: int
    source: Any
    target: Any
    from_start: bool
    _next: int = -1  # the sequence number of the next byte
    _end: int = -1  # the sequence number after the last byte
    _held: dict[int, bytes] = field(default_factory=dict)
    _held_size: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of a direction.

    Attributes:
        direction: Whose bytes these are.
        data: The bytes; empty at the end.
        lost: Bytes before these that the capture lacks.
        ended: Whether the direction ends after these bytes.
    """

    direction: Direction
    data: bytes = b""
    lost: int = 0
    ended: bool = False


_Key = tuple[tuple[str, int], tuple[str, int]]


def pieces(read: Read, port: int | None = None) -> Iterator[Piece]:
    """Yield the bytes of all TCP streams of a capture, each direction in its order.

    Args:
        read: Returns the next n bytes of the file, fewer only at its end.
        port: Leave out connections without this port.

    Raises:
        CommandError: The file is damaged or has an unknown link type.
    """
    directions: dict[_Key, Direction] = {}
    ended: OrderedDict[_Key, int] = OrderedDict()
    count = 0
    for link, packet in _packets(read):
        segment = _segment(link, packet)
        if segment is None or port not in (None, segment.source[1], segment.target[1]):
            continue
        key = (segment.source, segment.target)
        direction = directions.get(key)
        syn = bool(segment.flags & _SYN)
        if direction is not None and syn and direction._next not in (-1, segment.sequence + 1):
            yield from _end(direction)  # the same ports again, for a new connection
            direction = None
        if direction is None:
            if not syn and (not segment.data or key in ended):
                continue
            other = directions.get((segment.target, segment.source))
            if other is None:
                if not syn and (segment.target, segment.source) in ended:
                    number = ended[(segment.target, segment.source)]
                else:
                    number, count = count, count + 1
            else:
                number = other.number
            ended.pop(key, None)
            direction = Direction(number, *key, from_start=syn)
            directions[key] = direction
        yield from _arrived(direction, segment)
        if segment.flags & _RST or direction._next == direction._end != -1:
            yield from _end(direction)
            del directions[key]
            ended[key] = direction.number
            if len(ended) > _REMEMBERED:
                ended.popitem(last=False)
    for direction in directions.values():
        yield from _end(direction)


def _arrived(direction: Direction, segment: _Segment) -> Iterator[Piece]:
    sequence = (segment.sequence + bool(segment.flags & _SYN)) % 2**32
    if direction._next < 0:
        direction._next = sequence
    if segment.flags & _FIN:
        direction._end = (sequence + len(segment.data) + segment.missing) % 2**32
    if segment.data:
        direction._held[sequence] = max(segment.data, direction._held.get(sequence, b""), key=len)
        direction._held_size += len(segment.data)
        yield from _in_order(direction)
    while direction._held_size > _HELD_SIZE:
        yield from _skip_gap(direction)


def _in_order(direction: Direction) -> Iterator[Piece]:
    """Yield the held segments whose turn it is."""
    while direction._held:
        if direction._next in direction._held:
            sequence = direction._next
        else:  # a segment that repeats earlier bytes
            sequence = min(direction._held, key=lambda at: _distance(direction._next, at))
            if _distance(direction._next, sequence) > 0:
                break
        data = direction._held.pop(sequence)[_distance(sequence, direction._next) :]
        if data:
            direction._next = (direction._next + len(data)) % 2**32
            yield Piece(direction, data)
    direction._held_size = sum(map(len, direction._held.values())) if direction._held else 0


def _distance(start: int, sequence: int) -> int:
    """Return how many bytes a sequence number is after another one, negative for before."""
    return (sequence - start + 2**31) % 2**32 - 2**31


def _skip_gap(direction: Direction) -> Iterator[Piece]:
    sequence = min(direction._held, key=lambda at: _distance(direction._next, at))
    lost = _distance(direction._next, sequence)
    direction._next = sequence
    yield Piece(direction, lost=lost)
    yield from _in_order(direction)


def _end(direction: Direction) -> Iterator[Piece]:
    while direction._held:
        yield from _skip_gap(direction)
    if direction._end >= 0 and _distance(direction._next, direction._end) > 0:
        yield Piece(direction, lost=_distance(direction._next, direction._end))
    yield Piece(direction, ended=True)
