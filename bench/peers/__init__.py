"""The contenders: what a user would otherwise pick, the C floor, and framecodec's own engines.

One file a contender. Each defines classes derived from `Peer`; what a class does not override, its
contender cannot do, and it is left out of that question. Importing a file never fails: a class
names what it `requires`, and is skipped with that reason where it is not installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import socket
import struct
import warnings
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

from ..far_end import connect

Feed = Callable[[Any], list[bytes]]
Messages = list[bytes]

HEADER = struct.Struct(">I")

# In the order of the tables. A reference does less than the work (it makes no messages): it shows
# where the kernel's limit is, and no ratio is taken to it as to a peer.
ROLES = ("reference", "floor", "ours", "peer", "rival")


class Missing(Exception):
    """A contender that cannot take part here; the text says why."""


class Receiver(Protocol):
    """The receiving end of one connection."""

    def run(self, count: int) -> bytes:
        """Receives so many messages, looping over each as a user would; gives the last."""

    def collect(self, count: int) -> Messages:
        """Receives so many messages and keeps them: what the check compares."""

    def close(self) -> None:
        """Ends the connection, and the event loop where there is one."""


class Peer:
    """One contender; every method but `wire` is overridden or absent."""

    name: ClassVar[str]
    role: ClassVar[str] = "peer"
    requires: ClassVar[tuple[str, ...]] = ()
    in_loop: ClassVar[bool] = False  # an event loop calls it: bench_asyncio.py
    greeting: ClassVar[str] = "none"  # what far_end.py says before the messages
    families: ClassVar[tuple[str, ...]] = ("TCP", "Unix")
    timeouts: ClassVar[bool] = False  # its `client` takes a socket with a time-out

    def wire(self, messages: Iterable[bytes]) -> bytes:
        """The messages as they travel."""
        pack = HEADER.pack
        return b"".join(pack(len(message)) + message for message in messages)

    splitter: Callable[[], Feed] | None = None
    encode: Callable[[bytes], bytes] | None = None
    encode_many: Callable[[Messages], bytes] | None = None
    receiver: Callable[[socket.socket], Receiver] | None = None
    # The connection as a function: a request goes out, its reply comes back.
    client: Callable[[socket.socket], Exchange] | None = None
    sender: Callable[[socket.socket], Sender] | None = None

    def dial(self, family: str, address: Any) -> Receiver:
        """Connects to the far end and makes a receiver of the socket."""
        assert self.receiver is not None
        return self.receiver(connect(family, address))

    def request_size(self, message: bytes) -> int:
        """Bytes of a request on the wire, where its client masks them."""
        return len(self.wire([message]))

    def ready(self) -> None:
        """Raises `Missing` where something that the contender needs is not there."""
        for module in self.requires:
            _require(module)


class Exchange(Protocol):
    def run(self, message: bytes, count: int) -> bytes:
        """So many round trips, one after the other; gives the last reply."""

    def close(self) -> None: ...


class Sender(Protocol):
    def run(self, messages: Messages, times: int) -> None:
        """Sends the messages so many times over; returns when all is with the kernel."""

    def close(self) -> None: ...


@functools.cache
def _require(module: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(module)
        except ImportError as error:
            package = module.partition(".")[0]
            reason = f"{package} is not installed"
            if importlib.util.find_spec(package) is not None:
                reason = f"{module} cannot be imported: {error}"
            raise Missing(reason) from None


@functools.cache
def everyone() -> dict[str, Peer]:
    """Every contender by name, those that are not installed included."""
    found: list[Peer] = []
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found += [
            value()
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Peer)
            and "name" in vars(value)
            and value.__module__ == module.__name__
        ]
    found.sort(key=lambda peer: ROLES.index(peer.role))
    named = {peer.name: peer for peer in found}
    assert len(named) == len(found), "two contenders of one name"
    return named


def able(ability: str, *, in_loop: bool = False) -> dict[str, Peer]:
    """The contenders that can do this."""
    return {
        name: peer
        for name, peer in everyone().items()
        if getattr(type(peer), ability) is not None and peer.in_loop == in_loop
    }
