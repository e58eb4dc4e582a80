"""Messages of a stream that are never in memory as a whole: files, buffers, parts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, final

from .. import _error_texts
from .._custom_header import read_header
from .._unframed import PIECE_SIZE
from ..sockets.files import (
    NO_BYTES,
    IncomingMessage,
    OutgoingFile,
    check_binary_file,
    check_capacity,
    file_too_short,
)
from ..sockets.receiving import LARGE_SIZE
from .observed import note_sent
from .sending import SENDS
from .waiters import LARGE, QueuedSend

if TYPE_CHECKING:
    from .back_pressure import WaitingSendSide
    from .stream_protocol import StreamProtocol

__all__ = ["StreamFiles"]


class StreamFiles:
    """The methods of a `FrameStream` for files, buffers and parts."""

    __slots__ = ()

    _protocol: StreamProtocol
    _sending: WaitingSendSide

    async def send_file(self, file: Any, size: int | None = None) -> None:
        """Send one message from an open binary file, from its position on.

        The kernel copies it from the file into the socket where the loop can
        (``loop.sendfile``); otherwise it goes through memory in small pieces. Other sends wait
        meanwhile. If it is cancelled after the message was begun, the rest of it is still sent; the
        attribute ``message_started`` of the error says which.

        Args:
            file: A file opened for reading in binary mode.
            size: Bytes of the message; None: up to the file's end.

        Raises:
            TypeError, ValueError, FrameError: As `FrameSocket.send_file`; nothing was sent.
            OSError: The connection is closed or lost. Or the file has become shorter meanwhile:
                then the connection is aborted, because the frame cannot be finished.
        """
        await _send_file(self._sending, file, size)

    async def recv_file(self, file: Any, /) -> int:
        """Receive one message into a file, without holding it in memory.

        After a cancellation or a time-out, call it again with the same file: it continues.

        Args:
            file: A file opened for writing in binary mode.

        Returns:
            The message's size, in bytes.

        Raises:
            TypeError: It is not such a file; nothing was received.
            EOFError, FrameError, OSError: As `recv`.
        """
        return await _recv_file(self._protocol, file)

    async def recv_into(self, buffer: Any, /) -> int:
        """Receive one message into a buffer, without holding it in memory once more.

        After a cancellation or a time-out, call it again with the same buffer: it continues.

        Args:
            buffer: A writable bytes-like object.

        Returns:
            The message's size, in bytes; the buffer's end does not change.

        Raises:
            ValueError: The message is larger than the buffer; it can still be received.
            TypeError: The buffer cannot be written; nothing was received.
            EOFError, FrameError, OSError: As `recv`.
        """
        return await _recv_into(self._protocol, buffer)

    def recv_parts(self) -> AsyncIterator[bytes]:
        """Return an asynchronous iterator over the parts of one message, in constant memory.

        The codec's ``max_message_size`` holds. An iteration that was cancelled or left is continued
        by the next `recv_parts`, `recv_file` or `recv_into`; no other call can receive before.

        Returns:
            The parts as they arrive, in order; an empty message has none.

        Raises:
            EOFError, FrameError, OSError: As `recv`, from the iteration.
        """
        return _recv_parts(self._protocol)


# --- receiving ------------------------------------------------------------------------------------


@final
class _WatchedSplitter:
    """A splitter that wakes the waiting recv after every read.

    Args:
        splitter: The splitter.
        protocol: The protocol whose recv waits.
    """

    def __init__(self, splitter: Any, protocol: StreamProtocol) -> None:
        self._splitter = splitter
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._splitter, name)

    def buffer_updated(self, count: int) -> list[Any]:
        """Parse bytes, as `Splitter.buffer_updated`."""
        messages: list[Any] = self._splitter.buffer_updated(count)
        if not messages:
            self._protocol._wake()
        return messages


async def _wait(protocol: StreamProtocol) -> None:
    """Wait for the next read."""
    inbox = protocol._inbox
    splitter: Any = inbox.splitter
    watched: Any = _WatchedSplitter(splitter, protocol)
    inbox.splitter = watched
    try:
        await protocol.start_waiting()
    finally:
        protocol.stop_waiting()
        if inbox.splitter is watched:
            inbox.splitter = splitter


async def _recv_parts(protocol: StreamProtocol) -> AsyncIterator[bytes]:
    """Receive one message in parts, as `FrameStream.recv_parts`."""
    message = await _begin(protocol)
    while await _fill(protocol, message):
        part = bytes(message.chunk)
        _take_chunk(protocol, message)
        yield part


async def _recv_file(protocol: StreamProtocol, file: Any) -> int:
    """Receive one message into a file, as `FrameStream.recv_file`."""
    check_binary_file(file, "write")
    message = await _begin(protocol)
    while await _fill(protocol, message):
        try:
            while message.chunk:
                count = file.write(message.chunk)
                if count is None:
                    text = "the file takes no more bytes now; nothing is lost"
                    raise BlockingIOError(errno.EAGAIN, text)
                message.chunk = message.chunk[count:]
        except BaseException:
            with contextlib.suppress(RuntimeError):  # skipping
                protocol.unframe()  # no other call receives before the rest is written
            raise
        _take_chunk(protocol, message)
    return message.size


async def _recv_into(protocol: StreamProtocol, buffer: Any) -> int:
    """Receive one message into a buffer, as `FrameStream.recv_into`."""
    with memoryview(buffer) as whole, whole.cast("B") as target:
        if target.readonly:
            raise TypeError(f"a writable buffer is required, not {type(buffer).__name__!r}")
        message = await _begin(protocol, len(target))
        while await _fill(protocol, message):
            position = message.size - message.missing - len(message.chunk)
            target[position : position + len(message.chunk)] = message.chunk
            _take_chunk(protocol, message)
        return message.size


def _take_chunk(protocol: StreamProtocol, message: IncomingMessage) -> None:
    """Drop the bytes of a message that the caller has got."""
    message.chunk = NO_BYTES
    if not message.frame_size:  # it came whole
        protocol._inbox.direct = None


async def _begin(protocol: StreamProtocol, capacity: int | None = None) -> IncomingMessage:
    """Return the message that an earlier call has begun, or the next one."""
    inbox = protocol._inbox
    while True:
        protocol.check_no_recv_waits()
        if inbox.direct is not None:
            assert isinstance(inbox.direct, IncomingMessage)
            check_capacity(inbox.direct.size, capacity)
            return inbox.direct
        if inbox.unframed is not None:
            protocol.reframe()
        protocol.take_batch()
        if protocol._message_iterator.head:
            return _take_ready(protocol, capacity)
        splitter = inbox.splitter
        header = splitter.pending_header
        if header and splitter.bytes_needed > LARGE_SIZE and _can_divert(protocol):
            return _divert(protocol, capacity)
        await _wait(protocol)


def _can_divert(protocol: StreamProtocol) -> bool:
    """Return whether the pending frame can be received in parts: it has neither check nor padding.

    Other messages are held in memory until they are whole.
    """
    inbox = protocol._inbox
    layout = inbox.splitter._pending_frame().layout
    plain = layout.tail_size == len(layout.trailer) and not layout.front_check_size
    return plain and layout.align == 1 and not inbox.is_skipping()


def _take_ready(protocol: StreamProtocol, capacity: int | None) -> IncomingMessage:
    """Take a message that is whole and ready."""
    inbox = protocol._inbox
    message = IncomingMessage.whole(
        protocol._message_iterator.head[-1], inbox.codec.layout, capacity
    )
    for _ in protocol.ready:  # one step
        inbox.direct = message
        break
    return message


def _divert(protocol: StreamProtocol, capacity: int | None) -> IncomingMessage:
    """Take the pending frame from the splitter; its bytes are received as unframed ones."""
    inbox = protocol._inbox
    splitter = inbox.splitter
    layout = splitter._pending_frame().layout  # of a choice, that of the alternative
    header, received = splitter.pending_header, splitter.pending
    offset, frame_size = splitter.stream_offset, received + splitter.bytes_needed
    unframed = protocol.unframe()
    if layout.parse is not None:
        seen = unframed.first(min(unframed.size, len(layout.magic) + layout.max_header))
        parsed = read_header(layout, seen, offset)
        if parsed is None or parsed[0] != len(header):
            inbox.fail(_error_texts.parse_changed_its_answer(offset))
            inbox.raise_failure()
        lead = parsed[2]
    else:
        lead = layout.begun_message(header)
    rest_size = frame_size - len(header) - len(layout.trailer)
    message = IncomingMessage(
        layout=layout,
        size=len(lead) + rest_size,
        chunk=memoryview(lead),
        missing=rest_size,
        tail_size=len(layout.trailer),
        header=header,
        lead=lead,
        offset=offset,
        frame_size=frame_size,
    )
    check_capacity(message.size, capacity)  # the frame is parsed again by the next call
    unframed.drop(len(header))
    inbox.direct = message
    return message


async def _fill(protocol: StreamProtocol, message: IncomingMessage) -> bool:
    """Receive the next bytes of a message into its chunk; return False at its end."""
    inbox = protocol._inbox
    if inbox.direct is not message:  # it came whole, or another call has finished it
        return False
    if not message.chunk and message.missing and not message.in_trailer:
        part = await _receive(protocol, message.missing)
        message.missing -= len(part)
        message.chunk = memoryview(part)
    if message.chunk:
        return True
    message.in_trailer = True
    trailer = message.layout.trailer[: message.tail_size]  # none of a message that came whole
    while trailer and message.missing < len(trailer):  # counts what was verified
        found = await _receive(protocol, len(trailer) - message.missing)
        expected = trailer[message.missing : message.missing + len(found)]
        if found != expected:
            bad = trailer[: message.missing] + found
            inbox.direct = None
            inbox.fail(_error_texts.wrong_trailer(trailer, bad, message.offset, message.header))
            inbox.raise_failure()
        message.missing += len(found)
    inbox.direct = None
    observer = protocol._observer
    if message.frame_size and observer is not None and observer.frame_received is not None:
        observer.frame_received(protocol.stream, message.frame_size)  # the splitter saw no end
    return False


async def _receive(protocol: StreamProtocol, size: int) -> bytes:
    """Return the next unframed bytes, at least one and at most `size`."""
    while True:
        protocol.check_no_recv_waits()
        unframed = protocol.unframe()
        if unframed.size:
            return protocol.take_bytes(min(size, unframed.size, PIECE_SIZE))
        protocol.expect_bytes(min(size, PIECE_SIZE))
        await _wait(protocol)


# --- sending --------------------------------------------------------------------------------------


async def _send_file(sending: WaitingSendSide, file: Any, size: int | None) -> None:
    """Send one message from a file, as `FrameStream.send_file`."""
    outgoing = OutgoingFile.open(file, size, sending.codec)
    if isinstance(outgoing, bytes):
        await sending.call_and_wait(type(sending).put, outgoing)
        return
    send = QueuedSend(LARGE)
    started = False
    try:
        await sending.enter_queue(send)
        sending.check_open()
        outgoing.move_position()
        outgoing.own()
        task = asyncio.get_running_loop().create_task(_transfer(sending, outgoing, send))
        started = True
        sending.transfers.append(task)
        task.add_done_callback(sending.transfers.remove)
        await asyncio.shield(task)
    except (asyncio.CancelledError, OSError) as error:
        error.message_started = started  # type: ignore[union-attr]
        raise
    finally:
        if not started:
            sending.leave_queue(send)


async def _transfer(sending: WaitingSendSide, file: OutgoingFile, send: QueuedSend) -> None:
    """Send a frame, piece after piece; no other send comes between."""
    try:
        frame_size = len(file.header) + file.unsent + file.trailer_size
        sending.put_encoded(file.header)
        note_sent(sending._protocol, frame_size)
        await _drained(sending)
        if _has_sendfile(sending, file):
            await _sendfile(sending, file)
        loop = asyncio.get_running_loop()
        while file.unsent:
            if file.fileno < 0:
                piece = file.file.read(min(file.unsent, 4 * PIECE_SIZE))
            else:  # a disk can be slow
                count = min(file.unsent, 4 * PIECE_SIZE)
                piece = await loop.run_in_executor(
                    None, os.pread, file.fileno, count, file.position
                )
            if not piece:
                raise file_too_short(file.unsent)
            file.position += len(piece)
            file.unsent -= len(piece)
            sending.put_encoded(piece, 0)
            await _drained(sending)
        for trailer in file.trailer:
            sending.put_encoded(trailer, 0)
    except BaseException as error:
        sending.fail(error)  # the frame cannot be finished
        raise
    finally:
        file.close()
        sending.leave_queue(send)


async def _drained(sending: WaitingSendSide) -> None:
    """Wait until the transport accepts more; raise if the connection has ended."""
    sending.write_batch()
    while True:
        await sending.wait_for_space()
        if sending.state not in SENDS:
            raise sending.closed_error()
        if not sending.batch.paused:
            return


def _has_sendfile(sending: WaitingSendSide, file: OutgoingFile) -> bool:
    raw = type(sending.raw_transport)
    is_socket = raw.__module__.startswith("asyncio.") and "SocketTransport" in raw.__name__
    return is_socket and not sending.is_encrypted and file.sendfile is not None


async def _sendfile(sending: WaitingSendSide, file: OutgoingFile) -> None:
    """Let the kernel copy a file into the socket."""
    loop, raw = asyncio.get_running_loop(), sending.raw_transport
    was_reading = raw.is_reading()
    with os.fdopen(os.dup(file.fileno), "rb", 0) as source:
        sent = loop.create_task(
            loop.sendfile(raw, source, file.position, file.unsent, fallback=False)
        )
        await asyncio.sleep(0)
        # The loop has stopped reading: two peers that send files to each other would wait for ever.
        if was_reading and not raw.is_closing():
            raw.resume_reading()
        try:
            count = await sent
        except asyncio.SendfileNotAvailableError:
            return
    file.position += count
    file.unsent -= count
    if file.unsent:
        raise file_too_short(file.unsent)
