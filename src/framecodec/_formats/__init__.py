"""The rows of the catalogue, in the order in which it lists them.

Rules of the table:

* A message is its frame without the parts that the codec owns. Bytes before the length field (a
  type byte, flags) are the message's first bytes. Checksums are part of the message, too, unless
  the row says that the format verifies them.
* A format verifies what its specification fixes about a header: protocol ids, cookies, reserved
  bytes that a receiver may refuse, smallest sizes, types where the set of types is closed.
* A codec covers no authentication, no compression, no greeting before the first frame, and nothing
  that a flag asks for. An opening that is not a frame is another format.
* ``max_message_size`` is the limit of the specification if that has a fixed one of up to 64 MiB,
  else 16 MiB; ``codec.replace(max_message_size=...)`` changes it. The smaller limit of a choice and
  its alternative holds, so an alternative has none unless its part of the specification has one.
"""

from __future__ import annotations

from . import devices, general, internet, messaging, services

__all__ = ["ALIASES", "ROWS"]

ROWS = (*general.ROWS, *services.ROWS, *messaging.ROWS, *internet.ROWS, *devices.ROWS)

# Other names of a format, which people look for.
ALIASES = {
    "cql": "cassandra",
    "ethernet-ip": "enip",
    "git": "pkt-line",
    "h2": "http2",
    "ice-tcp": "rtp",
    "iso-tsap": "tpkt",
    "jsonrpc": "lsp",
    "mariadb": "mysql",
    "mongo": "mongodb",
    "mssql": "tds",
    "nfs": "oncrpc",
    "opc-ua": "opcua",
    "postgresql": "postgres",
    "rabbitmq": "amqp",
    "redis": "resp",
    "zeromq": "zmtp",
    "zmq": "zmtp",
}
