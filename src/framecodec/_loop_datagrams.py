"""Whole messages in datagrams, in an event loop.

A `DatagramStream` puts a queue behind asyncio's datagram protocol. It grows to a bound: datagrams
are not resent, so there is nobody whom a slow reader could stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from . import _error_texts
from ._bytes_like import view_bytes
from ._loop_senders import LARGE, Sender, SendQueue
from .codec import Codec
from .datagrams import largest_payload, pack_frames, split_datagram
from .splitter import Splitter

if TYPE_CHECKING:
    from typing import Self

__all__ = ["DatagramStream", "open_datagram_endpoint"]

# Above so many bytes that nobody has received, what arrives is dropped.
_HIGH_WATER = 256 * 1024
_ITEM_COST = 192  # of what stands in the queue beside the message's bytes: objects and an address


class _DatagramProtocol(asyncio.DatagramProtocol):
    def __init__(self, codec: Codec | None) -> None:
        self.codec = codec
        self.stream = DatagramStream(self)
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.queue: deque[tuple[Any, Any, int]] = deque()  # (message or error, address, cost)
        self.held = 0  # bytes in `queue`, as _HIGH_WATER counts them
        self.dropped = 0
        self.largest: int | None = None  # bytes that a datagram has room for, where that is known
        self.room = 0  # bytes that frames are packed into
        self.paused = False
        self.lost = False
        self.error: BaseException | None = None  # what ended it
        self.waiter: asyncio.Future[None] | None = None  # a recv that waits
        self.senders = SendQueue()  # sends that wait for the socket
        self.waiting: set[asyncio.Future[None]] = set()  # those that wait for the end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        self.largest = largest_payload(sock)
        self.room = self.largest or 0
        if self.largest is None:  # Unix: no more than the send buffer, and better much less
            self.largest = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            self.room = self.largest // 4

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.error = exc
        self._wake()
        for waiting in (*self.senders.futures(), *self.waiting):
            if not waiting.done():
                waiting.set_result(None)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.held > _HIGH_WATER:
            self.dropped += 1
            return
        # A broken datagram says nothing about the next one.
        messages, wrong = split_datagram(data, self.codec)
        for item in (*messages, *wrong):
            self._put(item, addr)
        self._wake()

    def error_received(self, exc: Exception) -> None:
        if self.held > _HIGH_WATER:
            self.dropped += 1
            return
        self._put(exc.with_traceback(None), None)  # its frames keep what was sent
        self._wake()

    def _put(self, item: Any, address: Any) -> None:
        cost = _cost(item)
        held = self.held + cost
        self.queue.append((item, address, cost))
        self.held = held

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.senders.wake_next()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def ended(self) -> ConnectionError:
        if self.error is None:
            return _error_texts.connection_closed()
        return _error_texts.connection_lost(self.error)

    async def wait_until_closed(self) -> None:
        while not self.lost:
            waiting = self.loop.create_future()
            self.waiting.add(waiting)
            try:
                await waiting
            finally:
                self.waiting.discard(waiting)

    async def send(self, datagram: bytes, address: Any) -> None:
        """Sends a datagram when the socket accepts it, after all that wait already."""
        if not (self.paused or self.senders) or self.lost:
            self.send_now(datagram, address)
            return
        sender = Sender(self.loop, LARGE)  # each is a write, which may be the last one for now
        self.senders.enter(sender)
        try:
            while not self.lost:
                await sender.wait()
                if not self.paused and self.senders.is_first(sender):
                    break
            self.send_now(datagram, address)
        finally:
            self.senders.leave(sender)
            if not self.paused:
                self.senders.wake_next()

    def send_now(self, datagram: bytes, address: Any) -> None:
        if self.lost or self.transport.is_closing():
            raise self.ended()
        if datagram or sys.version_info >= (3, 14):
            self.transport.sendto(datagram, address)
            return
        # An empty datagram is a message too. asyncio took it for nothing to do until 3.14.
        descriptor = os.dup(self.transport.get_extra_info("socket").fileno())
        with contextlib.closing(socket.socket(fileno=descriptor)) as sock:
            if address is None:
                sock.send(datagram)
            else:
                sock.sendto(datagram, address)

    async def wait_for_messages(self) -> None:
        """Waits until something is in the queue."""
        if self.waiter is not None:
            raise _error_texts.another_recv_waits()
        while not self.queue:
            if self.lost:
                raise self.ended()
            self.waiter = self.loop.create_future()
            try:
                await self.waiter
            finally:
                self.waiter = None

    def take_messages(self) -> list[Any]:
        """Takes all messages up to the first error; there may be none."""
        nothing: deque[tuple[Any, Any, int]] = deque()
        queue, held = self.queue, self.held
        self.queue, self.held = nothing, 0
        try:
            messages, rest, rest_held = _split(queue)
        except BaseException:
            self.queue, self.held = queue, held
            raise
        # No call up to here, so that a signal handler that raises loses nothing.
        self.queue, self.held = rest, rest_held
        return messages

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


def _split(queue: deque[Any]) -> tuple[list[Any], deque[Any], int]:
    """The messages up to the first error, what follows them, and what that costs."""
    items = list(queue)
    messages: list[Any] = []
    for item, _, _ in items:
        if isinstance(item, Exception):
            break
        messages.append(item)
    rest = deque(items[len(messages) :])
    return messages, rest, sum(cost for _, _, cost in rest)


def _cost(item: Any) -> int:
    return (len(item) if isinstance(item, bytes) else 0) + _ITEM_COST


class DatagramStream:
    """A datagram socket in an event loop, from `open_datagram_endpoint`.

    Without a codec a message is a datagram. With one a datagram carries any number of whole frames;
    one that does not is an error of the `recv` that meets it, and of no other.

    Datagrams are not resent, so there is no back-pressure to the peer: above 256 KiB of messages
    that nobody has received, what arrives is dropped and counted in `dropped`.
    """

    __slots__ = ("__weakref__", "_protocol")

    def __init__(self, protocol: _DatagramProtocol) -> None:
        self._protocol = protocol

    @property
    def codec(self) -> Codec | None:
        """The shape of the frames in a datagram, or None."""
        return self._protocol.codec

    @property
    def transport(self) -> asyncio.DatagramTransport:
        """asyncio's transport."""
        return self._protocol.transport  # type: ignore[no-any-return]

    @property
    def dropped(self) -> int:
        """Datagrams, and errors of the system, that came while too many waited to be received."""
        return self._protocol.dropped

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` would give without waiting."""
        return len(self._protocol.queue)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of asyncio's transports: "peername", "sockname", "socket", ..."""
        return self._protocol.transport.get_extra_info(name, default)

    async def send(self, message: object, /) -> None:
        """Sends one message, in one datagram, to the address that the socket is connected to. Waits
        only while the socket has no room.

        Raises:
            MessageTooLargeError: No datagram holds it; nothing is sent.
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing is sent.
            ConnectionError: The socket is closed.
        """
        await self._protocol.send(self._encode(message), None)

    async def send_to(self, message: object, address: Any, /) -> None:
        """As `send`, to an address as asyncio has them."""
        await self._protocol.send(self._encode(message), address)

    async def send_many(self, messages: Iterable[object], /) -> None:
        """Sends messages: with a codec, as many as fit in each datagram, else one in each.

        Raises:
            As `send`; nothing is sent where a message is invalid.
        """
        for datagram in self._pack(messages):
            await self._protocol.send(datagram, None)

    async def send_many_to(self, messages: Iterable[object], address: Any, /) -> None:
        """As `send_many`, to an address."""
        for datagram in self._pack(messages):
            await self._protocol.send(datagram, address)

    def _encode(self, message: object) -> bytes:
        protocol = self._protocol
        codec, largest = protocol.codec, protocol.largest
        datagram = bytes(view_bytes(message)) if codec is None else codec.encode(message)
        if largest is not None and len(datagram) > largest:
            raise _error_texts.datagram_too_large(len(datagram), largest, message)
        return datagram

    def _pack(self, messages: Iterable[object]) -> list[bytes]:
        # A copy: the user's code, which encodes them, may change a list.
        datagrams = [self._encode(message) for message in tuple(messages)]
        if self._protocol.codec is None:
            return datagrams
        return [datagram for datagram, _ in pack_frames(datagrams, self._protocol.room)]

    async def recv(self) -> Any:
        """The next message, whoever sent it.

        Raises:
            As `recv_from`.
        """
        return (await self.recv_from())[0]

    async def recv_many(self) -> list[Any]:
        """At least one message: all that are there without another wait.

        Raises:
            As `recv_from`.
        """
        protocol = self._protocol
        while True:
            await protocol.wait_for_messages()
            messages = protocol.take_messages()
            if messages:
                return messages
            if protocol.queue:
                return [await self.recv()]  # which is an error, and raised

    async def recv_from(self) -> tuple[Any, Any]:
        """The next message, and the address of its sender.

        Raises:
            FrameError: The next datagram does not consist of whole frames; raised behind those that
                are, and once.
            OSError: What the system reports, such as a refused connection; or the socket is closed.
            RuntimeError: Another `recv` waits.
        """
        protocol = self._protocol
        while True:
            await protocol.wait_for_messages()
            queue = protocol.queue
            if queue:
                # No call in between: nothing is lost to a signal handler that raises.
                item, address, cost = queue[0]
                protocol.held -= cost
                del queue[0]
                if isinstance(item, Exception):
                    raise item
                return item, address

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next message, until the socket is closed on this side."""
        try:
            return await self.recv()
        except ConnectionAbortedError:
            if self._protocol.lost:
                raise StopAsyncIteration from None
            raise

    async def aclose(self) -> None:
        """Closes the socket when all that was accepted is with the system."""
        protocol = self._protocol
        protocol.transport.close()
        try:
            await protocol.wait_until_closed()
        except asyncio.CancelledError:
            if not protocol.lost:
                protocol.transport.abort()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


async def open_datagram_endpoint(
    local_addr: Any = None,
    remote_addr: Any = None,
    *,
    codec: Codec | None = None,
    **kwargs: Any,
) -> DatagramStream:
    """Opens a datagram socket.

    Args:
        local_addr: ``(host, port)`` to bind to, or a path for a Unix socket.
        remote_addr: ``(host, port)`` to connect to, or a path.
        codec: The shape of the frames in a datagram; None where a message is a datagram.
        **kwargs: As of asyncio's ``loop.create_datagram_endpoint``: family, reuse_port, sock, ...
    """
    if codec is not None:
        Splitter(codec)  # a codec that is none is refused before there is a socket
    loop, own = asyncio.get_running_loop(), None
    if isinstance(local_addr or remote_addr, str | bytes | os.PathLike):
        # Not every loop knows paths.
        kwargs["sock"] = own = _unix_socket(local_addr, remote_addr)
        kwargs.pop("family", None)
        local_addr = remote_addr = None
    try:
        _, protocol = await loop.create_datagram_endpoint(
            lambda: _DatagramProtocol(codec), local_addr, remote_addr, **kwargs
        )
    except BaseException:
        if own is not None:
            own.close()
        raise
    return protocol.stream


def _unix_socket(local_addr: Any, remote_addr: Any) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if local_addr is not None:
            sock.bind(os.fspath(local_addr))
        if remote_addr is not None:
            sock.connect(os.fspath(remote_addr))
    except BaseException:
        sock.close()
        raise
    return sock
