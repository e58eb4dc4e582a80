"""Captures of TCP connections, written packet by packet."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

SYN, FIN, RST, ACK = 2, 1, 4, 16

End = tuple[str, int]
CLIENT, SERVER = ("10.0.0.1", 50000), ("10.0.0.2", 80)


def tcp(
    source: End, target: End, sequence: int, data: bytes = b"", flags: int = ACK, cut: int = 0
) -> bytes:
    """Return the IP packet of a segment; `cut` bytes of its end are not captured."""
    segment = struct.pack(
        ">HHIIBBHHH", source[1], target[1], sequence % 2**32, 0, 5 << 4, flags, 65535, 0, 0
    )
    payload = segment + data
    addresses = [ipaddress.ip_address(end[0]) for end in (source, target)]
    packed = b"".join(address.packed for address in addresses)
    if addresses[0].version == 4:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 6, 0)
    else:
        header = struct.pack(">IHBB", 6 << 28, len(payload), 6, 64)
    packet = header + packed + payload
    return packet[: len(packet) - cut]


def ethernet(packet: bytes, *, vlan: bool = False) -> bytes:
    """Return the Ethernet frame of an IP packet."""
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return bytes(12) + (b"\x81\x00\x00\x05" if vlan else b"") + kind + packet


def pcap(
    packets: Iterable[bytes], link: int = 101, order: str = "<", *, nano: bool = False
) -> bytes:
    """Return a pcap file; link type 101 is IP without a link layer."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    records = [struct.pack(f"{order}IIII", 0, 0, len(p), len(p)) + p for p in packets]
    return head + b"".join(records)


def pcapng(packets: Iterable[bytes], link: int = 101, order: str = "<") -> bytes:
    """Return a pcapng file with a section, an interface, a block to ignore, and the packets."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack(f"{order}I", len(body) + 12)
        return struct.pack(f"{order}I", kind) + size + body + size

    blocks = [
        block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(1, struct.pack(f"{order}HHI", link, 0, 262144)),
        block(5, bytes(12)),
    ]
    for packet in packets:
        head = struct.pack(f"{order}IIIII", 0, 0, 0, len(packet), len(packet))
        blocks.append(block(6, head + packet))
    return b"".join(blocks)


def conversation(
    up: list[bytes],
    down: list[bytes],
    client: End = CLIENT,
    server: End = SERVER,
    start: int = 1000,
) -> list[bytes]:
    """Return the packets of a connection: the pieces of both directions in turn."""
    packets = [
        tcp(client, server, start, flags=SYN),
        tcp(server, client, start * 2, flags=SYN | ACK),
    ]
    at = {client: start + 1, server: start * 2 + 1}
    for place in range(max(len(up), len(down))):
        for source, target, pieces in ((client, server, up), (server, client, down)):
            if place < len(pieces):
                packets.append(tcp(source, target, at[source], pieces[place]))
                at[source] += len(pieces[place])
    packets.append(tcp(client, server, at[client], flags=FIN | ACK))
    packets.append(tcp(server, client, at[server], flags=FIN | ACK))
    return packets
