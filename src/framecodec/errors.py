"""The exceptions that users catch.

An exception is plain data (numbers, bytes, text), so that it pickles and outlives its connection.
Its ``header`` never holds more than the frame's header: an error about a 16 MiB message is small.
Texts that several modules raise are in `_error_texts`.
"""

from __future__ import annotations

__all__ = [
    "ChecksumError",
    "FrameError",
    "IdleTimeoutError",
    "IncompleteFrameError",
    "InvalidFrameError",
    "InvalidMessageError",
    "MessageTimeoutError",
    "MessageTooLargeError",
    "TruncatedDatagramError",
]


class FrameError(Exception):
    """Base of everything that framecodec raises about frames.

    Attributes:
        stream_offset: Position in the stream of the bad frame's first byte, counted in bytes from
            the first byte the splitter was given; None where there is no stream (encoding).
        header: The bad frame's bytes up to and including the one that decided, at most its whole
            header (magic, lead and length field).
        address: Where a bad datagram came from; None on a stream.
    """

    address: object = None

    def __init__(
        self, message: str = "", *, stream_offset: int | None = None, header: bytes = b""
    ) -> None:
        super().__init__(message)
        self.stream_offset = stream_offset
        self.header = header


class MessageTooLargeError(FrameError):
    """A message is larger than the codec allows, or than its length field can hold.

    Attributes:
        size: The message's size, in bytes, as declared by its header or as given to ``encode``;
            None where no header declares it.
        limit: The largest allowed size, in bytes; 0 if only the system knows it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        size: int | None = 0,
        limit: int = 0,
        stream_offset: int | None = None,
        header: bytes = b"",
    ) -> None:
        super().__init__(message, stream_offset=stream_offset, header=header)
        self.size = size
        self.limit = limit


class InvalidFrameError(FrameError):
    """Bytes are not a frame of the codec: an invalid length, a wrong magic or trailer."""


class ChecksumError(InvalidFrameError):
    """A frame's check is not the one that was computed of its bytes; see `Check`.

    Attributes:
        expected: The check that was computed of the received bytes.
        found: The check that the frame has.
    """

    def __init__(
        self,
        message: str = "",
        *,
        expected: int = 0,
        found: int = 0,
        stream_offset: int | None = None,
        header: bytes = b"",
    ) -> None:
        super().__init__(message, stream_offset=stream_offset, header=header)
        self.expected = expected
        self.found = found


class InvalidMessageError(FrameError):
    """The function that turns messages into objects has refused one; see `Codec.with_objects`.

    Its frame was whole, so the stream is not broken: the next message can be received. What the
    function raised is the ``__cause__``.

    Attributes:
        size: The message's size, in bytes.
    """

    def __init__(
        self,
        message: str = "",
        *,
        size: int = 0,
        stream_offset: int | None = None,
        header: bytes = b"",
    ) -> None:
        super().__init__(message, stream_offset=stream_offset, header=header)
        self.size = size


class IncompleteFrameError(FrameError, EOFError):
    """The stream ended inside a frame.

    Attributes:
        where: The part that the next missing byte belongs to: "header", "rest" or "trailer".
        received: Bytes of the frame that arrived.
        needed: Bytes of the whole frame; None if the header is incomplete.
    """

    def __init__(
        self,
        message: str = "",
        *,
        where: str = "header",
        received: int = 0,
        needed: int | None = None,
        stream_offset: int | None = None,
        header: bytes = b"",
    ) -> None:
        super().__init__(message, stream_offset=stream_offset, header=header)
        self.where = where
        self.received = received
        self.needed = needed


class MessageTimeoutError(FrameError, TimeoutError):
    """A message took longer than ``message_timeout`` from its first byte to its last.

    Attributes:
        timeout: The time allowed, in seconds.
    """

    def __init__(
        self,
        message: str = "",
        *,
        timeout: float = 0.0,
        stream_offset: int | None = None,
        header: bytes = b"",
    ) -> None:
        super().__init__(message, stream_offset=stream_offset, header=header)
        self.timeout = timeout


class IdleTimeoutError(FrameError, TimeoutError):
    """No byte arrived between two messages for longer than ``idle_timeout``.

    Attributes:
        timeout: The time allowed, in seconds.
    """

    def __init__(
        self, message: str = "", *, timeout: float = 0.0, stream_offset: int | None = None
    ) -> None:
        super().__init__(message, stream_offset=stream_offset)
        self.timeout = timeout


class TruncatedDatagramError(FrameError):
    """A datagram was larger than the buffer it was read into; the kernel dropped its end.

    Attributes:
        received: Bytes of it that were read.
        size: Bytes it had; None if the system does not report it.
    """

    def __init__(self, message: str = "", *, received: int = 0, size: int | None = None) -> None:
        super().__init__(message)
        self.received = received
        self.size = size
