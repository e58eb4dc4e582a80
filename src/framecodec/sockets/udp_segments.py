"""Many UDP datagrams of one size by one system call, on Linux.

Given the control message UDP_SEGMENT (Linux 4.18), the kernel makes datagrams of that size out of
the bytes of one `sendmsg`: the way through the kernel, most of what a small datagram costs, is gone
once for up to 64 of them. The receiver sees no difference. (`sendmmsg` saves only the system calls,
5 % of the time.)

A system without it, and every other socket, sends one datagram a call.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["NOT_SEGMENTED", "can_segment", "count_segments", "send_segments"]

# Of <linux/udp.h> and <asm-generic/socket.h>; Python has no names for them.
_SOL_UDP, _UDP_SEGMENT, _SO_PROTOCOL = 17, 103, 38

_MOST_SEGMENTS = 64  # as the kernels before 6.9 allow, ...
_MOST_BYTES = 65_000  # ... together

NOT_SEGMENTED = frozenset((errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP))
"""What the kernel reports where it sends nothing, and can send each datagram alone.

A segment is larger than the path's largest packet, or the network device computes no checksums.
"""


def can_segment(sock: socket.socket) -> bool:
    """Return whether the kernel can send many datagrams of one size by one call.

    A user's own segment size stays as it is.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        protocol = sock.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
        return protocol == socket.IPPROTO_UDP and not sock.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False


def count_segments(datagrams: Sequence[Any], index: int) -> int:
    """Return how many datagrams one call can send, from this index on: all but the last are equal.

    Args:
        datagrams: The datagrams.
        index: Where the first one is.
    """
    size = len(datagrams[index])
    most = min(_MOST_SEGMENTS, _MOST_BYTES // size) if size else 1
    sizes = [*map(len, datagrams[index : index + most])]
    count = len(sizes)
    if sizes.count(size) < count:
        count = next(number for number, other in enumerate(sizes) if other != size)
        if 0 < sizes[count] < size:
            return count + 1
    return count


def send_segments(sock: socket.socket, segments: Sequence[Any], flags: int, address: Any) -> None:
    """Send datagrams by one call; all of them or, where it raises, none.

    Raises:
        OSError: As `socket.socket.sendmsg`; with a number in `NOT_SEGMENTED` each may still be sent
            alone.
    """
    size = struct.pack("=H", len(segments[0]))
    control = [(_SOL_UDP, _UDP_SEGMENT, size)]
    if address is None:
        sock.sendmsg((b"".join(segments),), control, flags)
    else:
        sock.sendmsg((b"".join(segments),), control, flags, address)
