"""Unframed bytes of a stream, and what another protocol gets of it."""

from __future__ import annotations

import errno
from collections.abc import Coroutine
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import _error_texts
from .._bytes_like import view_bytes
from .._engine import asyncio_fast_path as fast_path
from .._states import TransportState
from .._unframed import UnframedBytes, check_size
from ..codec import Codec, check_codec
from ..sockets.receiving import half_received
from .protocol import FrameProtocol
from .sending import encode_all, write_all

if TYPE_CHECKING:
    from .back_pressure import WaitingSendSide
    from .sending import SendSide
    from .stream_protocol import StreamProtocol

__all__ = [
    "ReadMessages",
    "UnframingProtocol",
    "detach",
    "for_recv",
    "in_order",
    "recv_bytes",
    "send_bytes",
    "switch",
]

ReadMessages: TypeAlias = tuple[list[Any], int, list[bytes] | None, list[tuple[int, int]] | None]
"""The messages of one read, reversed; what they count as held; their headers, the oldest first;
the bytes of the read that are in no message (`Splitter._gaps`)."""


def in_order(batch: ReadMessages) -> list[Any]:
    """Return the messages of a batch, the oldest first."""
    return batch[0][::-1]


def for_recv(error: BaseException) -> Exception:
    """Return what recv raises for an error; it must not end the program once more in each task."""
    if isinstance(error, Exception):
        return error
    return ConnectionAbortedError(errno.ECONNABORTED, f"receiving failed: {error!r}")


class UnframingProtocol(FrameProtocol):
    """The part of a stream's protocol that takes received bytes back."""

    __slots__ = ()

    @property
    def is_unframed(self) -> bool:
        """Whether received bytes are not parsed, since `unframe`."""
        return self._inbox.unframed is not None

    def _undelivered(self) -> tuple[list[Any], list[bytes] | None]:
        """Return the messages that no recv has returned, and their headers."""
        messages = self._message_iterator.head[::-1]
        headers: list[bytes] | None = None
        if self._inbox.splitter.headers is not None:
            kept = self._head_headers or []
            headers = kept[len(kept) - len(messages) :]
            headers = [*headers, *chain.from_iterable(batch[2] or () for batch in self.batches)]
        messages += chain.from_iterable(map(in_order, self.batches))
        return messages, headers

    def end_of_head(self) -> int:
        """Return where the last message of `_message_iterator.head` ends in the stream."""
        later: int = sum(
            batch[1] - fast_path.MESSAGE_COST * len(batch[0]) for batch in self.batches
        )
        return self._taken - later

    def detach(self) -> bytes:
        """Return the bytes that were read and not delivered, as they travelled, and forget them."""
        inbox = self._inbox
        unread = inbox.detach(*self._undelivered())
        inbox.splitter, inbox.unframed, inbox.failure = inbox.new_splitter(0), None, None
        inbox.fail(_error_texts.connection_closed())
        self._forget_messages(0, 0)
        return unread

    def unframe(self) -> UnframedBytes:
        """Take back the bytes after the received messages; the transport reads on if it may."""
        self._sending.check_thread()
        inbox = self._inbox
        inbox.check_unframe()
        try:
            unframed = inbox.unframe(*self._undelivered())
            self._forget_messages(unframed.offset + unframed.size, unframed.size)
        except BaseException as error:  # the bytes are in no certain place
            inbox.fail(for_recv(error))
            if inbox.unframed is not None:  # messages may be there, too: deliver none twice
                self._message_iterator.head.clear()
                self.batches.clear()
                inbox.unframed.drop(inbox.unframed.size)
            raise
        return unframed

    def _forget_messages(self, taken: int, held: int) -> None:
        self._message_iterator.head, self.batches = [], []
        self._head_size, self._head_headers, self._head_gaps = 0, None, None
        self._taken, self._held = taken, held
        if self._inbox.failure is None:
            self._receiving_failed = False

    def expect_bytes(self, wanted: int) -> None:
        """Receive unframed bytes until there are `wanted`: a recv waits for them."""
        inbox = self._inbox
        unframed = inbox.unframed
        assert unframed is not None
        unframed.wanted = wanted
        if inbox.ended:
            inbox.feed_eof()
        if inbox.failure is None:
            inbox.expect_bytes(wanted)
            self._held = 0  # what the caller asks for is not held back

    def take_bytes(self, size: int) -> bytes:
        """Take the first unframed bytes. There are that many."""
        unframed = self._inbox.unframed
        assert unframed is not None
        data = unframed.first(size)
        unframed.drop(size)
        self._held = unframed.size
        if self._reading_paused:
            self._resume_when_low()
        return data

    def reframe(self) -> None:
        """Parse the unframed bytes that were not taken, and all that follow."""
        inbox = self._inbox
        if inbox.direct is not None:
            raise half_received()
        unframed = self.unframe()
        try:
            messages = inbox.reframe()
            self._forget_messages(unframed.offset, 0)
            if messages:
                self._deliver(messages)
        except BaseException as error:
            inbox.fail(for_recv(error))
            raise
        if inbox.failure is not None and inbox.failure is inbox.splitter.error:
            self._receiving_failed = True
            self._end_receiving(inbox.failure)
        if self._peer_timer is not None:
            self._peer_timer.note_arrival()
        self._resume_when_low()


async def recv_bytes(protocol: StreamProtocol, size: int) -> bytes:
    """Receive unframed bytes, as `FrameStream.recv_bytes`."""
    size = check_size(size)
    while True:
        protocol.check_no_recv_waits()
        if protocol._inbox.direct is not None:
            raise half_received()
        if protocol.unframe().size >= size:
            return protocol.take_bytes(size)
        protocol.expect_bytes(size)
        try:
            await protocol.start_waiting()
        finally:
            protocol.stop_waiting()


def send_bytes(sending: WaitingSendSide, data: Any) -> Coroutine[Any, Any, None]:
    """Send unframed bytes, as `FrameStream.send_bytes`."""
    return sending.call_and_wait(_put, data)


def _put(sending: SendSide, data: Any) -> None:
    with view_bytes(data) as view:
        sending.check_open()
        if sending.busy or type(data) is not bytes:
            data = bytes(view)
    sending.put_encoded(data)


def switch(protocol: StreamProtocol, codec: Codec[Any]) -> None:
    """Use another codec from now on, as `FrameStream.switch`."""
    check_codec(codec)
    sending = protocol._sending
    _check_idle(protocol, "switch()")
    encode_all(sending)
    protocol.unframe()
    protocol._inbox.codec = codec
    protocol._use_codec(codec)
    sending.use(codec)
    protocol.reframe()


def _check_idle(protocol: StreamProtocol, call: str) -> None:
    """Raise an error if the connection has ended, or another call waits."""
    sending = protocol._sending
    sending.check_thread()
    if sending.state >= TransportState.FAILED:
        raise sending.closed_error()
    protocol.check_no_recv_waits()
    if protocol._inbox.direct is not None:
        raise half_received()
    if sending.batch.queued:
        raise RuntimeError(f"a send waits, because the peer is slow; await it before {call}")


def detach(protocol: StreamProtocol) -> tuple[Any, bytes]:
    """Give up the transport, as `FrameStream.detach`."""
    sending = protocol._sending
    _check_idle(protocol, "detach()")
    write_all(sending)
    transport = sending.raw_transport
    protocol._pause_reading()
    unread = protocol.detach()
    sending.set_closed_here()
    protocol._end(None)
    return transport, unread
