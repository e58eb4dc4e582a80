"""`DatagramStream`: whole messages in datagrams, in an event loop.

The protocol appends received messages to a queue, which grows to a limit: datagrams are not resent,
so a slow reader cannot stop the sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn, overload

from .. import _error_texts
from .._bytes_like import view_bytes
from .._datagrams import largest_payload, not_connected, pack_frames, split_datagram
from .._files import Refusal
from .._message_types import MessageT, OfMessages, SpecialT
from ..codec import Codec
from ..splitter import Splitter
from .waiters import LARGE, QueuedSend, SendQueue, Waiters

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

__all__ = ["DatagramStream", "open_datagram_endpoint"]

# Datagrams that arrive while more than this many bytes wait to be received are dropped.
_HIGH_WATER = 256 * 1024
# What an entry of the queue needs besides the bytes of the message: objects and an address.
_ITEM_COST = 192


class _UnnamedPeer(str):
    """The address of a connected Unix socket's peer that has no name."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return True


class _DatagramProtocol(asyncio.DatagramProtocol):
    def __init__(self, codec: Codec[Any] | None) -> None:
        self.codec = codec
        self.stream: DatagramStream[Any] = DatagramStream(self)
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.queue: deque[tuple[Any, Any, int]] = deque()  # (message or error, address, cost)
        self.held = 0  # bytes in `queue`, as _HIGH_WATER counts them
        self.dropped = 0
        self.largest: int | None = None  # the largest datagram, in bytes, if that is known
        self.packed_size = 0  # bytes of frames that are packed into one datagram
        self.connected = False
        self.paused = False
        self.lost = False
        self.error: BaseException | None = None  # what ended it
        self.waiter: asyncio.Future[None] | None = None  # a recv that waits
        self.queued_sends = SendQueue()  # sends that wait for the socket
        self.waiters = Waiters()  # tasks that wait for the end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.getpeername()
            self.connected = True
        if self.connected and transport.get_extra_info("peername") == "":
            # asyncio takes an empty name for "not connected", and then loses what is sent.
            with contextlib.suppress(AttributeError, TypeError):
                transport._extra["peername"] = _UnnamedPeer()  # type: ignore[attr-defined]
        self.largest = largest_payload(sock)
        self.packed_size = self.largest or 0
        if self.largest is None:  # Unix: no more than the send buffer, and better much less
            self.largest = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            self.packed_size = self.largest // 4

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.error = exc
        self._wake()
        for waiting in (*self.queued_sends.futures(), *self.waiters):
            if not waiting.done():
                waiting.set_result(None)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.held > _HIGH_WATER:
            self.dropped += 1
            return
        # A broken datagram says nothing about the next one.
        messages, wrong = split_datagram(data, self.codec)
        for item in messages:
            if type(item) is Refusal:
                item = item.error
                item.address = addr
            self._put(item, addr)
        for error in wrong:
            self._put(error, addr)
        if messages and self.codec is not None and self.codec._objects is not None:
            self._count_objects(len(data))
        self._wake()

    def error_received(self, exc: Exception) -> None:
        if self.held > _HIGH_WATER:
            self.dropped += 1
            return
        self._put(exc.with_traceback(None), None)  # its frames keep what was sent
        self._wake()

    def _count_objects(self, size: int) -> None:
        """Count the bytes of a datagram, since the size of its objects is not known."""
        item, address, cost = self.queue[-1]
        self.queue[-1] = item, address, cost + size
        self.held += size

    def _put(self, item: Any, address: Any) -> None:
        cost = _cost(item)
        held = self.held + cost
        self.queue.append((item, address, cost))
        self.held = held

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.queued_sends.wake_next()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def ended(self) -> ConnectionError:
        if self.error is None:
            return _error_texts.connection_closed()
        return _error_texts.connection_lost(self.error)

    async def wait_until_closed(self) -> None:
        while not self.lost:
            await self.waiters.wait()

    async def send(self, datagram: bytes, address: Any) -> None:
        """Send a datagram when the socket accepts it, after all sends that wait already."""
        if not (self.paused or self.queued_sends) or self.lost:
            self.send_now(datagram, address)
            return
        send = QueuedSend(LARGE)  # each is a write, which may be the last one for now
        self.queued_sends.enter(send)
        try:
            while not self.lost:
                await send.wait()
                # If not, another task has sent meanwhile.
                if not self.paused and self.queued_sends.is_first(send):
                    break
            self.send_now(datagram, address)
        finally:
            self.queued_sends.leave(send)
            if not self.paused:
                self.queued_sends.wake_next()

    def send_now(self, datagram: bytes, address: Any) -> None:
        if self.lost or self.transport.is_closing():
            raise self.ended()
        if address is None and not self.connected:
            # asyncio's transport would end the socket for it.
            raise not_connected(errno.EDESTADDRREQ)
        if datagram or sys.version_info >= (3, 14):
            self.transport.sendto(datagram, address)
            return
        # An empty datagram is a message, too. asyncio ignored it until 3.14.
        descriptor = os.dup(self.transport.get_extra_info("socket").fileno())
        with contextlib.closing(socket.socket(fileno=descriptor)) as sock:
            if address is None:
                sock.send(datagram)
            else:
                sock.sendto(datagram, address)

    async def wait_for_messages(self) -> None:
        """Wait until something is in the queue."""
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
        """Take all messages before the first error; there may be none."""
        nothing: deque[tuple[Any, Any, int]] = deque()
        queue, held = self.queue, self.held
        self.queue, self.held = nothing, 0
        try:
            messages, rest, rest_held = _split(queue)
        except BaseException:
            self.queue, self.held = queue, held
            raise
        # No call before this line, so that a signal handler that raises loses nothing.
        self.queue, self.held = rest, rest_held
        return messages

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


def _split(queue: deque[Any]) -> tuple[list[Any], deque[Any], int]:
    """Return the messages before the first error, the rest of the queue, and what that costs."""
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


class DatagramStream(OfMessages[MessageT]):
    """A datagram socket in an event loop; `open_datagram_endpoint` returns one.

    Without a codec, each datagram is one message. With a codec, a datagram has any number of whole
    frames; one with other bytes is an error of one `recv`, and the next `recv` continues.

    Datagrams are not resent, so there is no back-pressure to the peer: while more than 256 KiB of
    messages wait to be received, datagrams that arrive are dropped and counted in `dropped`.
    """

    __slots__ = ("__weakref__", "_protocol")

    def __init__(self, protocol: _DatagramProtocol) -> None:
        self._protocol = protocol

    @property
    def codec(self) -> Codec[MessageT] | None:
        """The shape of the frames in a datagram, or None."""
        return self._protocol.codec

    @property
    def transport(self) -> asyncio.DatagramTransport:
        """The transport of the event loop."""
        return self._protocol.transport  # type: ignore[no-any-return]

    @property
    def dropped(self) -> int:
        """The number of datagrams, and errors of the system, that were dropped: too many waited."""
        return self._protocol.dropped

    @property
    def pending_messages(self) -> int:
        """The number of messages that `recv` would return without a wait."""
        return len(self._protocol.queue)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows of the socket.

        Args:
            name: As for asyncio's transports: "peername", "sockname", "socket", ...
            default: Returned if the transport does not know it.
        """
        return self._protocol.transport.get_extra_info(name, default)

    @overload
    async def send(
        self: DatagramStream[bytes | SpecialT], message: Buffer | SpecialT, /
    ) -> None: ...

    @overload
    async def send(self, message: MessageT, /) -> None: ...

    async def send(self, message: object, /) -> None:
        """Send one message, in one datagram, to the address that the socket is connected to.

        Wait only while the kernel's send buffer is full.

        Args:
            message: A contiguous bytes-like object; with a codec, or one of its ``specials``.

        Raises:
            MessageTooLargeError: The message is too large for one datagram; nothing is sent.
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing is sent.
            ConnectionError: The socket is closed.
            OSError: The socket is not connected; nothing is sent.
        """
        await self._protocol.send(self._encode(message), None)

    @overload
    async def send_to(
        self: DatagramStream[bytes | SpecialT], message: Buffer | SpecialT, address: Any, /
    ) -> None: ...

    @overload
    async def send_to(self, message: MessageT, address: Any, /) -> None: ...

    async def send_to(self, message: object, address: Any, /) -> None:
        """Send one message to an address, in one datagram; otherwise like `send`.

        Args:
            message: As for `send`.
            address: As for asyncio's ``sendto``: ``(host, port)``, or a path.
        """
        await self._protocol.send(self._encode(message), address)

    @overload
    async def send_many(
        self: DatagramStream[bytes | SpecialT], messages: Iterable[Buffer | SpecialT], /
    ) -> None: ...

    @overload
    async def send_many(self, messages: Iterable[MessageT], /) -> None: ...

    async def send_many(self, messages: Iterable[Any], /) -> None:
        """Send messages: with a codec, as many as fit in each datagram, else one in each.

        Args:
            messages: As for `send`, in order.

        Raises:
            FrameError, TypeError, BufferError: A message is invalid; nothing is sent.
            ConnectionError: The socket is closed.
        """
        for datagram in self._pack(messages):
            await self._protocol.send(datagram, None)

    async def send_many_to(self, messages: Iterable[Buffer | MessageT], address: Any, /) -> None:
        """Send messages to an address; otherwise like `send_many`.

        Args:
            messages: As for `send`, in order.
            address: As for `send_to`.
        """
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
        return [datagram for datagram, _ in pack_frames(datagrams, self._protocol.packed_size)]

    async def recv(self) -> MessageT:
        """Return the next message, from any sender.

        Raises:
            FrameError, OSError, RuntimeError: As `recv_from`.
        """
        return (await self.recv_from())[0]

    async def recv_many(self) -> list[MessageT]:
        """Return all messages that are ready; wait for the first one.

        Returns:
            At least one message, in order, up to the next error.

        Raises:
            FrameError, OSError, RuntimeError: As `recv_from`.
        """
        await self._protocol.wait_for_messages()
        # If it takes no message, the first item is an error, which recv() raises.
        return self._protocol.take_messages() or [await self.recv()]

    async def recv_from(self) -> tuple[MessageT, Any]:
        """Return the next message and the address of its sender.

        Raises:
            FrameError: The next datagram does not consist of whole frames; raised once, after the
                whole frames before the bad one.
            OSError: What the system reports, such as a refused connection; or the socket is closed.
            RuntimeError: Another `recv` waits.
        """
        protocol = self._protocol
        await protocol.wait_for_messages()
        queue = protocol.queue
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
        """Return the next message; end when this side has closed the socket."""
        try:
            return await self.recv()
        except ConnectionAbortedError:
            if self._protocol.lost:
                raise StopAsyncIteration from None
            raise

    async def aclose(self) -> None:
        """Close the socket when the kernel has all accepted messages, and wait for that."""
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
    codec: Codec[MessageT] | None = None,
    **kwargs: Any,
) -> DatagramStream[MessageT]:
    """Open a datagram socket.

    Args:
        local_addr: ``(host, port)`` to bind to, or a path for a Unix socket.
        remote_addr: ``(host, port)`` to connect to, or a path.
        codec: The shape of the frames in a datagram; None if each datagram is one message.
        **kwargs: As for asyncio's ``loop.create_datagram_endpoint``: family, reuse_port, sock, ...
    """
    if codec is not None:
        Splitter(codec)  # reject an invalid codec before there is a socket
    loop, own = asyncio.get_running_loop(), None
    if isinstance(local_addr or remote_addr, str | bytes | os.PathLike):
        # Not every loop takes paths.
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
