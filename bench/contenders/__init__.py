"""The contenders: what a user would otherwise pick, the C floor, and framecodec's own engines.

One file a contender. Each defines classes derived from `Contender`. A class overrides the methods
that its contender supports; a benchmark of another method leaves the contender out. Importing a
file never fails: a class names the modules that it `requires`, and the benchmarks skip it, with
that reason, if one of them is not installed.
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

from ..remote_process import connect

Feed = Callable[[Any], list[bytes]]
Messages = list[bytes]

HEADER = struct.Struct(">I")

# In the order of the tables. A "reference" does less than the work (it makes no messages) and shows
# the kernel's limit. An "alternative" is what a Python program would otherwise use; the tables have
# a ratio to the best of them. A "native" contender is a program in another language.
ROLES = ("reference", "floor", "ours", "alternative", "native")


class Missing(Exception):
    """A contender that cannot take part here; the text says why."""


class Receiver(Protocol):
    """The receiving end of one connection."""

    def run(self, count: int) -> bytes:
        """Receive `count` messages, loop over them as a user would, return the last."""

    def collect(self, count: int) -> Messages:
        """Receive `count` messages and return them all, for the check."""

    def close(self) -> None:
        """Close the connection, and the event loop if the contender has one."""


class Contender:
    """What a contender can do. Every method but `wire` is overridden or None."""

    name: ClassVar[str]
    role: ClassVar[str] = "alternative"
    requires: ClassVar[tuple[str, ...]] = ()
    in_loop: ClassVar[bool] = False  # an event loop calls it: bench_asyncio.py
    greeting: ClassVar[str] = "none"  # what remote_process.py sends before the messages
    families: ClassVar[tuple[str, ...]] = ("TCP", "Unix")
    timeouts: ClassVar[bool] = False  # its `client` takes a socket with a time-out

    def wire(self, messages: Iterable[bytes]) -> bytes:
        """Return the bytes of the messages on the wire."""
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
        """Connect to the remote process and return a receiver on the socket."""
        assert self.receiver is not None
        return self.receiver(connect(family, address))

    def request_size(self, message: bytes) -> int:
        """Return the size of a request on the wire; a client that masks it overrides this."""
        return len(self.wire([message]))

    def ready(self) -> None:
        """Raise `Missing` if something that the contender needs is not installed."""
        for module in self.requires:
            _require(module)


class Exchange(Protocol):
    def run(self, message: bytes, count: int) -> bytes:
        """Make `count` round trips, one after the other; return the last reply."""

    def close(self) -> None: ...


class Sender(Protocol):
    def run(self, messages: Messages, times: int) -> None:
        """Send the messages `times` times; return when the kernel has all bytes."""

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
def everyone() -> dict[str, Contender]:
    """Return every contender by name, also those that are not installed."""
    found: list[Contender] = []
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found += [
            value()
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Contender)
            and "name" in vars(value)
            and value.__module__ == module.__name__
        ]
    found.sort(key=lambda contender: ROLES.index(contender.role))
    named = {contender.name: contender for contender in found}
    assert len(named) == len(found), "two contenders have the same name"
    return named


def able(ability: str, *, in_loop: bool = False) -> dict[str, Contender]:
    """Return the contenders that have this method."""
    return {
        name: contender
        for name, contender in everyone().items()
        if getattr(type(contender), ability) is not None and contender.in_loop == in_loop
    }
