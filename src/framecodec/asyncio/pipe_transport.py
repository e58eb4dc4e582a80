"""One transport for the two ends of a connection over pipes.

An event loop has a transport for reading a pipe and another one for writing to one. `PipeTransport`
makes one of them, half-open as a TCP connection is: the end of the input does not close the output,
and what arrives after the output broke can still be received.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
from collections.abc import Callable, Iterable
from typing import Any, final

from .._states import TransportState

__all__ = [
    "PipeTransport",
    "ReadHalf",
    "WriteHalf",
    "give_bytes",
    "is_read_only",
    "refused",
]


def _half_of(transport: Any) -> str:
    """Return "reader" or "writer" if a loop's transport is one end of a pipe, else ""."""
    name = type(transport).__name__
    if "ReadPipe" in name or name == "ReadUnixTransport":
        return "reader"
    return "writer" if "WritePipe" in name or name == "WriteUnixTransport" else ""


@final
class PipeTransport(asyncio.Transport):
    """A transport that reads one pipe and writes to another one.

    Args:
        protocol: It gets what is read.
    """

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol
        self.reader: Any = None
        """The transport that reads, or None."""
        self.writer: Any = None
        """The transport that writes, or None."""
        self.on_end: list[Callable[[], None]] = []
        """Functions to call at the end of the connection."""
        self._begun = False
        self._is_direct = False  # the loop's transport calls the protocol itself
        self._closing = False
        self._ended = False
        self.eof_written = False
        """`write_eof` was called."""
        self._error: BaseException | None = None  # that broke the output
        # The same, if the peer closed it and no bytes were lost.
        self._output_ended: BaseException | None = None

    @classmethod
    def of(cls, protocol: Any, transport: Any) -> Any:
        """Return the transport, or one around the half that ``loop.connect_read_pipe`` made."""
        half = _half_of(transport)
        if not half:
            return transport
        whole = cls(protocol)
        setattr(whole, half, transport)
        whole._begun = whole._is_direct = True
        return whole

    # --- calls of the two halves ------------------------------------------------------------------

    def begin(self) -> None:
        """Tell the protocol that the connection is open: both ends are, as far as there are two."""
        self._begun = True
        self._protocol.connection_made(self)
        if self._error is not None:
            self._break_output(self._error)

    def data_received(self, data: bytes) -> None:
        """Give the protocol bytes that were read."""
        if hasattr(self._protocol, "data_received"):
            self._protocol.data_received(data)
        else:
            give_bytes(self._protocol, data)

    def eof_received(self) -> None:
        """Tell the protocol that the input has ended."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def pause_writing(self) -> None:
        """Tell the protocol that the output is full."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tell the protocol that the output accepts more."""
        self._protocol.resume_writing()

    def reader_lost(self, exc: BaseException | None) -> None:
        """Take the end of the transport that reads."""
        self.reader = None
        if exc is not None:
            self._error = exc
            self.close()
        if self.writer is None:
            self._end()

    def writer_lost(self, exc: BaseException | None) -> None:
        """Take the end of the transport that writes."""
        self.writer = None
        if not (self._closing or self.eof_written):
            error = exc or BrokenPipeError(errno.EPIPE, "the peer closed its end of the pipe")
            if exc is None and not self._has_unsent():
                self._output_ended = error
            self._error = error
            if self._begun:
                self._break_output(error)
        elif exc is not None and self._error is None:
            self._error = exc
        if self.reader is None:
            self._end()

    def _has_unsent(self) -> bool:
        sending = getattr(self._protocol, "_sending", None)
        return sending is not None and bool(sending.unsent_size())

    def _break_output(self, error: BaseException) -> None:
        # Receiving continues: the peer may have answered before it closed.
        sending = getattr(self._protocol, "_sending", None)
        is_open = sending is not None and sending.state < TransportState.CLOSING
        if is_open and self.reader is not None:
            _stop_sending(sending, error)
        elif not self._closing:
            self.close()

    def _end(self) -> None:
        if not self._ended and self._begun:
            self._ended = self._closing = True
            if self._error is self._output_ended:  # a peer that ends closes its input, too
                self._error = None
                sending = getattr(self._protocol, "_sending", None)
                if sending is not None and sending.error is self._output_ended:
                    sending.error = None
            for function in self.on_end:
                function()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, self._error)

    # --- a transport ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close both ends, when what was written has left."""
        if self._closing:
            return
        self._closing = True
        for half in (self.writer, self.reader):
            if half is not None:
                half.close()
        if self.reader is None and self.writer is None:
            self._end()

    def abort(self) -> None:
        """Close both ends at once."""
        self._closing = True
        if self.reader is not None:
            self.reader.close()
        if self.writer is not None:
            self.writer.abort()
        elif self.reader is None:
            self._end()

    def is_closing(self) -> bool:
        """Return whether the connection is closing or closed."""
        if self._is_direct:
            return bool((self.reader or self.writer).is_closing())
        return self._closing

    def write(self, data: Any) -> None:
        """Write bytes."""
        if self.writer is not None:
            self.writer.write(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Write bytes."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return whether the output can be ended alone."""
        return self.writer is not None

    def write_eof(self) -> None:
        """Close the output when what was written has left."""
        if self.writer is not None and not self.eof_written:
            self.eof_written = True
            self.writer.close()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the pipe has not taken."""
        return 0 if self.writer is None else int(self.writer.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the protocol's `pause_writing` and `resume_writing` are called."""
        if self.writer is not None:
            self.writer.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks, the low one first."""
        return (0, 0) if self.writer is None else self.writer.get_write_buffer_limits()

    def is_reading(self) -> bool:
        """Return whether the input is read."""
        return self.reader is not None and not self._closing and bool(self.reader.is_reading())

    def pause_reading(self) -> None:
        """Stop reading."""
        if self.is_reading():
            self.reader.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self.reader is not None and not self._closing and not self.reader.is_reading():
            self.reader.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the event loop's transports know of the pipes."""
        for half in (self.reader, self.writer):
            if half is not None:
                value = None
                with contextlib.suppress(OSError):  # uvloop asks the descriptor for its address
                    value = half.get_extra_info(name)
                if value is not None:
                    return value
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the pipes to another protocol."""
        self._protocol = protocol
        if self._is_direct:
            (self.reader or self.writer).set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol in use."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol


@final
class ReadHalf(asyncio.Protocol):
    """The protocol of the transport that reads.

    Args:
        whole: The transport of both ends.
    """

    def __init__(self, whole: PipeTransport) -> None:
        self._whole = whole

    def connection_made(self, transport: Any) -> None:
        """Begin: the other end is open already."""
        self._whole.reader = transport
        self._whole.begin()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._whole.data_received(data)

    def eof_received(self) -> None:
        """Pass the end on; the loop closes this transport."""
        self._whole.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Pass the end on."""
        self._whole.reader_lost(exc)


@final
class WriteHalf(asyncio.Protocol):
    """The protocol of the transport that writes.

    Args:
        whole: The transport of both ends.
    """

    def __init__(self, whole: PipeTransport) -> None:
        self._whole = whole

    def connection_made(self, transport: Any) -> None:
        """Store the transport."""
        self._whole.writer = transport

    def pause_writing(self) -> None:
        """Pass it on."""
        self._whole.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._whole.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Pass the end on."""
        self._whole.writer_lost(exc)


def is_read_only(transport: Any) -> bool:
    """Return whether a transport reads a pipe and writes to none."""
    return isinstance(transport, PipeTransport) and transport.writer is None


def refused(transport: Any) -> Exception:
    """Return the error of a send after the end of the output, or where there was none."""
    if isinstance(transport, PipeTransport) and not transport.eof_written:
        return io.UnsupportedOperation(
            "this connection only reads a pipe; nothing can be sent on it"
        )
    return RuntimeError("nothing can be sent after write_eof()")


def give_bytes(protocol: Any, data: bytes) -> None:
    """Copy bytes into the memory of a protocol that reads into its own."""
    unread = memoryview(data)
    while unread:
        buffer = memoryview(protocol.get_buffer(len(unread)))
        count = min(len(buffer), len(unread))
        buffer[:count] = unread[:count]
        protocol.buffer_updated(count)
        unread = unread[count:]


def _stop_sending(sending: Any, error: BaseException) -> None:
    """End the send side of a `FrameProtocol` because the output broke; receiving continues."""
    sending.stop(TransportState.FAILED)
    sending.error = sending.error or error
    sending.drop_unsent()
    for waiting in sending.futures() if hasattr(sending, "futures") else ():
        if not waiting.done():
            waiting.set_result(None)
