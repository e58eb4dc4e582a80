"""Make the errors that both engines or several modules raise.

Each function returns one error and is named after its cause, so that both engines raise the same
type with the same text and the same attributes. A text has one shape: what is wrong, what was
found, what is allowed, what to do. It does not depend on how the stream was cut. A text with one
use is written where it is raised.
"""

from __future__ import annotations

import errno

from ._layout import MAX_VALUE
from .errors import (
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
    MessageTooLargeError,
    TruncatedDatagramError,
)

# A text shows at most this many header bytes; the attribute holds them all.
_SHOWN_SIZE = 32


def show(data: bytes) -> str:
    """Return the first bytes as Python writes them."""
    return repr(data) if len(data) <= _SHOWN_SIZE else f"{data[:_SHOWN_SIZE]!r}..."


def invalid_frame(reason: str, stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about a frame that the peer sent.

    Args:
        reason: What is wrong, what was found and what is allowed.
        stream_offset: Of the frame's first byte.
        header: The frame's bytes up to the one that decided.
    """
    return InvalidFrameError(
        f"invalid frame at stream offset {stream_offset}: {reason} (frame begins {show(header)})",
        stream_offset=stream_offset,
        header=header,
    )


# --- receiving ------------------------------------------------------------------------------------


def wrong_magic(magic: bytes, stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about first bytes that are not the magic."""
    return invalid_frame(
        f"wrong first bytes, a frame begins with the magic {show(magic)}; check that the peer uses "
        "the same codec and that reading began at the start of a frame",
        stream_offset,
        header,
    )


def not_a_digit(
    base: int, end: bytes, position: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    """Return the error about a byte of a length that is not a digit."""
    found = header[position : position + 1]
    or_end = f" or the end mark {show(end)}" if end else ""
    return invalid_frame(
        f"the length is not a base {base} number: found {found!r} at byte {position} of the "
        f"frame, the codec expects a digit{or_end}",
        stream_offset,
        header,
    )


def no_digits(position: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about an end mark without a digit before it."""
    return invalid_frame(
        f"the length has no digits: found the end mark at byte {position} of the frame",
        stream_offset,
        header,
    )


def leading_zero(stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about a length that begins with a zero."""
    return invalid_frame("the length has a leading zero", stream_offset, header)


def length_over_64_bits(stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about a length above 2**64 - 1."""
    return invalid_frame(
        "the length has more than 64 bits; no codec allows that", stream_offset, header
    )


def varint_too_long(max_width: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about a varint that has no last byte where the codec needs one."""
    return invalid_frame(
        f"the varint length does not end within {max_width} bytes (max_width)",
        stream_offset,
        header,
    )


def varint_not_shortest(stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about a varint with superfluous bytes."""
    return invalid_frame(
        "the varint length is not in its shortest form",
        stream_offset,
        header,
    )


def negative_length(
    value: int, adjustment: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    """Return the error about a length that leaves less than nothing for the rest."""
    if value < 0:
        reason = f"the length is negative: {value}"
    else:
        reason = (
            f"the length {value} is too small: with the adjustment {adjustment} "
            f"it leaves {value + adjustment} bytes"
        )
    return invalid_frame(reason, stream_offset, header)


def smaller_than_frame(
    value: int, least: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    """Return the error about a length of a whole frame that is too small for its own header."""
    return invalid_frame(
        f"the length {value} is too small: it counts the whole frame, which has at least "
        f'{least} bytes (length_includes="frame")',
        stream_offset,
        header,
    )


def wrong_trailer(
    trailer: bytes, found: bytes, stream_offset: int, header: bytes
) -> InvalidFrameError:
    """Return the error about bytes that are not the trailer."""
    return invalid_frame(
        f"wrong last bytes: found {show(found)}, a frame ends with the trailer {show(trailer)}",
        stream_offset,
        header,
    )


def bytes_after_frame(count: int, header: bytes) -> InvalidFrameError:
    """Return the error about more than the one frame that `Codec.decode` takes."""
    return InvalidFrameError(
        f"found {count} bytes after the frame, decode() takes one frame; use split() or splitter() "
        f"for several (frame begins {show(header)})",
        stream_offset=0,
        header=header,
    )


def header_too_long(max_header: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about a header that has no end where the codec needs one."""
    return invalid_frame(
        f"the header does not end within {max_header} bytes (max_header)", stream_offset, header
    )


def declared_too_large(
    size: int, limit: int, stream_offset: int, header: bytes
) -> MessageTooLargeError:
    """Return the error about a header that declares a message above the limit."""
    limited_by = "max_message_size" if limit < MAX_VALUE else "64 bits"
    return MessageTooLargeError(
        f"message too large: {size} bytes, the limit is {limit} ({limited_by}); the frame at "
        f"stream offset {stream_offset} begins {show(header)}; raise the limit if the peer may "
        "send such messages, else check that it uses the same codec",
        size=size,
        limit=limit,
        stream_offset=stream_offset,
        header=header,
    )


def incomplete(
    where: str, received: int, needed: int | None, stream_offset: int, header: bytes
) -> IncompleteFrameError:
    """Return the error about a stream that ended inside a frame."""
    return IncompleteFrameError(
        f"incomplete frame at stream offset {stream_offset}: the stream ended inside the "
        f"{where} after {_part_of(received, needed)}{_begins(header)}",
        where=where,
        received=received,
        needed=needed,
        stream_offset=stream_offset,
        header=header,
    )


def message_took_too_long(
    timeout: float, received: int, stream_offset: int, header: bytes
) -> MessageTimeoutError:
    """Return the error about a message whose last byte came too late."""
    return MessageTimeoutError(
        f"message too slow: {received} bytes of the frame at stream offset {stream_offset} "
        f"arrived, the whole frame is allowed {timeout:g} s (message_timeout){_begins(header)}",
        timeout=timeout,
        stream_offset=stream_offset,
        header=header,
    )


def idle_too_long(timeout: float, stream_offset: int) -> IdleTimeoutError:
    """Return the error about a peer that sends nothing."""
    return IdleTimeoutError(
        f"connection idle: no message began within {timeout:g} s (idle_timeout), at stream offset "
        f"{stream_offset}",
        timeout=timeout,
        stream_offset=stream_offset,
    )


def _part_of(received: int, needed: int | None) -> str:
    """Return how much of a frame arrived, as "6 of 9 bytes of the frame"."""
    if needed is None:
        return f"{received} bytes of the frame, whose size is not known yet"
    return f"{received} of {needed} bytes of the frame"


def _begins(header: bytes) -> str:
    return f" (frame begins {show(header)})" if header else ""


# --- sending --------------------------------------------------------------------------------------


def message_too_large(size: int, limit: int, limited_by: str) -> MessageTooLargeError:
    """Return the error about a message that the codec cannot or must not send."""
    return MessageTooLargeError(
        f"message too large: {size} bytes, the limit is {limit} ({limited_by})",
        size=size,
        limit=limit,
    )


def shorter_than_lead(size: int, lead_size: int) -> InvalidFrameError:
    """Return the error about a message without the bytes that travel before the length."""
    return InvalidFrameError(
        f"message too short: {size} bytes, at least {lead_size} bytes are needed, which travel "
        "before the length field"
    )


def unsayable_length(value: int, rest_size: int) -> InvalidFrameError:
    """Return the error about a message that needs a negative length."""
    return InvalidFrameError(
        f"message too short: its {rest_size} bytes after the length field need the length {value}, "
        "which is negative (length_adjustment)"
    )


def length_is_special(value: int, special: object) -> InvalidFrameError:
    """Return the error about a message whose length means something else."""
    return InvalidFrameError(
        f"message cannot be encoded: its length {value} means {special!r} (specials); send "
        "that object or a message of another size"
    )


def unsayable_message(reason: str) -> InvalidFrameError:
    """Return the error about a message that has no frame."""
    return InvalidFrameError(f"message cannot be encoded: {reason}")


# --- using ----------------------------------------------------------------------------------------


def not_a_codec(codec: object) -> TypeError:
    """Return the error about an argument that is not a codec."""
    return TypeError(f"codec must be a framecodec.Codec, not {type(codec).__name__!r}")


def bad_on_oversize(on_oversize: object) -> ValueError:
    """Return the error about an unknown value of `on_oversize`."""
    return ValueError(f'on_oversize must be "raise" or "skip", not {on_oversize!r}')


def bad_stream_offset(stream_offset: int) -> ValueError:
    return ValueError(f"stream_offset must be from 0 to {2**62}, not {stream_offset}")


def not_copied(of_a_connection: object) -> TypeError:
    """Return the error about the copy of an object that belongs to one connection."""
    name = type(of_a_connection).__name__
    return TypeError(f"a {name} belongs to one connection; it cannot be copied or pickled")


def detached() -> ValueError:
    """Return the error about a call after `detach`."""
    return ValueError("the splitter is detached; detach() returned its unfinished bytes")


def reentered() -> RuntimeError:
    """Return the error about a call during another call."""
    return RuntimeError("the splitter is in use by another call that has not returned yet")


def no_buffer_given() -> ValueError:
    """Return the error about `buffer_updated` without a buffer."""
    return ValueError("buffer_updated() without a get_buffer() before it; call that first")


def updated_beyond_buffer(count: int, size: int) -> ValueError:
    """Return the error about a count that does not fit the buffer."""
    return ValueError(f"buffer_updated({count}): get_buffer() returned a buffer of {size} bytes")


def unfinished_lost() -> MemoryError:
    """Return the error about bytes that `detach` cannot return."""
    return MemoryError(
        "memory ran out while the splitter kept the bytes of the broken stream; they are "
        "incomplete, so detach() returns none"
    )


def spans_growing() -> BufferError:
    """Return the error about spans that are used while `scan` adds to them."""
    return BufferError("scan() has not returned these spans yet; use them after it has")


def spans_not_copied() -> TypeError:
    """Return the error about a copy of spans."""
    return TypeError("spans refer to another object's memory; they cannot be copied or pickled")


def scan_with_lead() -> ValueError:
    """Return the error about messages that are in two pieces."""
    return ValueError(
        "the codec has a lead, so a message is not in one piece; scan whole frames with raw=True"
    )


def scan_of_special(special: object, offset: int) -> ValueError:
    """Return the error about a special, which has no bytes."""
    return ValueError(
        f"the frame at offset {offset} is the special {special!r:.80}, which has no bytes; "
        "scan whole frames with raw=True"
    )


def no_such_span(count: int) -> IndexError:
    """Return the error about an index beyond the spans."""
    return IndexError(f"index out of range: there are {count} spans")


# --- sockets --------------------------------------------------------------------------------------


def connection_closed() -> ConnectionAbortedError:
    """Return the error about a call after `close` or `detach`."""
    return ConnectionAbortedError(
        errno.ECONNABORTED, "the connection was closed or detached on this side"
    )


def parse_changed_its_answer(stream_offset: int) -> InvalidFrameError:
    """Return the error about a `parse` function that depends on more than its argument."""
    return InvalidFrameError(
        f"parse() of the codec returned two results for the same bytes, at stream offset "
        f"{stream_offset}; it must depend on nothing else",
        stream_offset=stream_offset,
    )


def timed_out(what: str, timeout: float) -> TimeoutError:
    """Return the error about a call that took too long; `what` says what did not happen."""
    return TimeoutError(f"{what} within {timeout:g} s; nothing is lost, the next call continues")


def another_thread_is_inside(timeout: float) -> OSError:
    """Return the error about a call that another thread has not finished."""
    refusal: OSError = timed_out("another thread did not finish its call", timeout)
    if not timeout:
        refusal = BlockingIOError(
            errno.EAGAIN, "another thread is in the same call, and this socket does not wait"
        )
    refusal.message_started = False  # type: ignore[attr-defined]
    return refusal


def in_use(what: str) -> RuntimeError:
    """Return the error about a signal handler that calls what it interrupted."""
    return RuntimeError(
        f"{what} was called from a signal handler that interrupted {what} of the same connection"
    )


def bad_seconds(name: str, seconds: object) -> ValueError:
    """Return the error about an argument that is not a time."""
    return ValueError(f"{name} must be a positive number of seconds or None, not {seconds!r}")


def bad_grace(grace: object) -> ValueError:
    """Return the error about a server's grace that is not a time."""
    return ValueError(f"grace must be a number of seconds that is at least 0, not {grace!r}")


def broadcast_backlog(waiting: int, limit: int) -> ConnectionAbortedError:
    """Return the error about a client that does not receive what its server broadcasts."""
    return ConnectionAbortedError(
        f"{waiting} bytes of broadcast messages wait for the client, the limit is {limit};"
        " it does not receive"
    )


def datagram_too_large(size: int, largest: int, message: object) -> MessageTooLargeError:
    """Return the error about a message whose frame does not fit one datagram."""
    message_size = memoryview(message).nbytes  # type: ignore[arg-type]
    limit = largest - (size - message_size)
    return MessageTooLargeError(
        f"message too large: {message_size} bytes, the limit is {limit} (a datagram of {largest} "
        f"bytes, this one has {size})",
        size=message_size,
        limit=limit,
    )


def datagram_refused(size: int) -> MessageTooLargeError:
    """Return the error about a datagram that the kernel refuses to send."""
    return MessageTooLargeError(
        f"message too large: the kernel refused a datagram of {size} bytes; the limit is the send "
        "buffer of a Unix socket (SO_SNDBUF), or the network's for UDP",
        size=size,
    )


def nameless_sender() -> ValueError:
    """Return the error about an answer to a Unix socket that has no name."""
    return ValueError(
        "the datagram came from a Unix socket without a name; its sender must bind() one before "
        "it can be answered"
    )


def datagram_truncated(received: int, size: int | None) -> TruncatedDatagramError:
    """Return the error about a datagram whose end the kernel dropped."""
    had = "more" if size is None else str(size)
    return TruncatedDatagramError(
        f"a datagram of {had} bytes was cut short: max_size is {received}",
        received=received,
        size=size,
    )


# --- in an event loop -----------------------------------------------------------------------------


def connection_lost(cause: BaseException | None) -> ConnectionResetError:
    """Return the error about a connection that ended on the other side."""
    reason = "the peer closed it" if cause is None else str(cause) or type(cause).__name__
    error = ConnectionResetError(errno.ECONNRESET, f"connection lost: {reason}")
    error.__cause__ = cause
    return error


def another_recv_waits() -> RuntimeError:
    """Return the error about a second receiver."""
    return RuntimeError("another recv of the same stream waits; only one task may receive")
