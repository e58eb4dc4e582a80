"""What tells a protocol of the catalogue from others with the same shape of frames."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from math import log2

__all__ = ["PREFACES", "sign", "sign_bits"]

# The first bytes of every frame of a protocol, as a regular expression. A protocol without an entry
# has no such sign, or its codec verifies it.
_SIGNS = {
    "9p": rb"....[\x06-\x09\x0c-\x0f\x12-\x7f]",
    "amqp": rb"[\x01-\x04\x08]",
    "amqp1": rb"....[\x02-\x3f][\0\x01]",
    "bgp": rb".{18}[\x01-\x05]",
    "bittorrent": rb"\0\0\0\0|..?.?.?[\0-\x15]",
    "bmp": rb".{5}[\0-\x06]",
    "cassandra": rb"[\x03\x04\x83\x84].{3}[\0-\x10]",
    "dap": rb"[^{]*\{.{0,200}\"seq\"",
    "dicom": rb"[\x01-\x07]\0",
    "diameter": rb"\x01...[\0\x10\x20\x30\x40\x50\x60\x80\x90\xa0\xb0\xc0\xd0\xe0\xf0]",
    "dns": rb".{4}[\0-\xff].\0[\0\x01]\0",
    "docker": rb"[\x01\x02]\0\0\0",
    "enip": rb"[\0\x01\x04\x63-\x66\x6f\x70]\0",
    "grpc": rb"[\0\x01]",
    "http2": rb"...[\0-\x0a\x0c\x10]",
    "kafka": rb"....(?:\0[\0-\x60]\0[\0-\x14]|\0\0..)",
    "ldap": rb"\x30",
    "lsp": rb"[^{]*\{.{0,2000}\"jsonrpc\"",
    "memcached": rb"[\x80\x81][\0-\x48]..[\0-\x40]\0",
    "modbus": rb"..\0\0\0..[\x01-\x2b\x81-\xab]",
    "mongodb": rb".{12}(?:\xdd\x07|\x01\0|[\xd1-\xdc]\x07)\0\0",
    "mqtt": rb"[\x10-\xff]",
    "multiprocessing": rb"....(?:\x80[\x02-\x05]|#)",
    "mysql": rb"...[\0-\x20]",
    "ndjson": rb"[\[{\"0-9tfn-]",
    "native-messaging": rb"....[\[{\"0-9tfn-]",
    "opcua": rb"(?:[H]EL|ACK|ERR|RHE|MSG|OPN|CLO)[FCA]",
    "openflow": rb"[\x01-\x06][\0-\x23]",
    "postgres": rb"[A-Za-z0-9]\0",
    "postgres-startup": rb"....(?:\0\x03\0[\0\x02]|\x04\xd2\x16)",
    "radius": rb"[\x01-\x05\x0b-\x0d\x28-\x2d]",
    "rcon": rb"....[\0-\xff]{4}[\0\x02\x03]\0\0\0",
    "rpki-rtr": rb"[\0-\x02][\0-\x0b]",
    "rtp": rb"..[\x80-\xbf]",
    "smb": rb"\0...[\xfc-\xff]SMB",
    "smpp": rb"....[\0\x80]\0[\0-\x03].",
    "ssh": rb"\0\0..[\x04-\x20][\x01-\x64]",
    "ssh-agent": rb"\0...[\x05-\x1d]",
    "ssh-version": rb"SSH-[12]\.",
    "stun": rb"[\0-\x3f]...\x21\x12\xa4\x42",
    "syslog": rb"(?:[0-9]+ )?<[0-9]",
    "tds": rb"[\x01-\x04\x06-\x08\x0e\x10-\x12][\0-\x1f]",
    "thrift": rb"....(?:\x80\x01\0[\x01-\x04]|\x82[\x20-\xa1])",
    "tls": rb"[\x14-\x18]\x03[\0-\x04]",
    "tpkt": rb"\x03\0",
    "uwsgi": rb"[\0\x05\x09\x1e\xc8]..",
    "x11": rb"[\x01-\xff]",
}

_COMPILED = {name: re.compile(pattern, re.DOTALL) for name, pattern in _SIGNS.items()}

# What peers send before the first frame.
PREFACES = (
    re.compile(rb"PRI \* HTTP/2\.0\r\n\r\nSM\r\n\r\n"),
    re.compile(rb"AMQP[\0-\x03][\0-\x09]{3}"),
    re.compile(rb"(?:[^\r\n]{0,200}\r?\n){0,4}?SSH-[^\r\n]{1,250}\r?\n"),
    re.compile(rb"\xff.{8}\x7f\x03.{53}", re.DOTALL),  # ZMTP 3
    re.compile(rb"\x13BitTorrent protocol.{48}", re.DOTALL),
    re.compile(rb"PROXY [^\r\n]{1,110}\r\n"),
    re.compile(rb"(?:GET|HTTP/1\.1) (?:[^\r\n]{1,4000}\r\n){1,100}\r\n"),  # WebSocket's upgrade
    re.compile(rb"\0\0[\0-\x27].\0\x03\0[\0\x02].{1,2000}?\0\0", re.DOTALL),  # PostgreSQL's startup
)


def sign(name: str, data: bytes, starts: Sequence[int]) -> bool | None:
    """Return whether every frame begins as those of a protocol; None if that has no sign."""
    pattern = _COMPILED.get(name)
    if pattern is None:
        return None
    return all(pattern.match(data, start, stop) for start, stop in itertools.pairwise(starts))


def sign_bits(name: str, data: bytes, starts: Sequence[int]) -> float:
    """Return how rarely the sign of a protocol is where no frame begins, in bits."""
    pattern = _COMPILED[name]
    begins = set(starts)
    places = [at for at in range(starts[0], min(starts[-1], starts[0] + 4096)) if at not in begins]
    hits = sum(pattern.match(data, at, at + 256) is not None for at in places)
    return -log2((hits + 0.5) / (len(places) + 0.5))
