"""WebSocket frames as a server sends them: unmasked, binary (RFC 6455, section 5.2)."""

from __future__ import annotations

from collections.abc import Iterable


def wire(messages: Iterable[bytes]) -> bytes:
    parts = []
    for message in messages:
        size = len(message)
        if size < 126:
            parts.append(bytes((0x82, size)))
        elif size < 65536:
            parts.append(b"\x82\x7e" + size.to_bytes(2, "big"))
        else:
            parts.append(b"\x82\x7f" + size.to_bytes(8, "big"))
        parts.append(message)
    return b"".join(parts)


def masked_size(message: bytes) -> int:
    """Bytes of a client's frame, which is masked: a key of 4 bytes more."""
    return len(wire([message])) + 4
