"""Twisted's own receivers, each sending back what it received; prints their ports as JSON."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor as untyped_reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import (
    Int8StringReceiver,
    Int16StringReceiver,
    Int32StringReceiver,
    NetstringReceiver,
)

reactor: Any = untyped_reactor


def echoing(receiver: Any) -> Any:
    class Echo(receiver):  # type: ignore[misc]
        MAX_LENGTH = 1 << 24

        def stringReceived(self, string: bytes) -> None:
            self.sendString(string)

    return Echo


ports = {}
for base in (Int8StringReceiver, Int16StringReceiver, Int32StringReceiver, NetstringReceiver):
    port = reactor.listenTCP(0, Factory.forProtocol(echoing(base)), interface="127.0.0.1")
    ports[base.__name__] = port.getHost().port
print(json.dumps(ports), flush=True)
reactor.run()
