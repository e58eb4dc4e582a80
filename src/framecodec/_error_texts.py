"""Make the errors that both engines or several modules raise.

Each function returns one error and is named after its cause, so that both engines raise the same
type with the same text and the same attributes. A text has one shape: what is wrong, what was
found, what is allowed, what to do. It does not depend on how the stream was cut. A text with one
use is written where it is raised.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from ._layout import MAX_VALUE, Layout
from ._likely_causes import likely_cause
from .errors import (
    FrameError,
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


def invalid_frame(
    reason: str, stream_offset: int, header: bytes, begun: bytes | None = None
) -> InvalidFrameError:
    """Return the error about a frame that the peer sent.

    Args:
        reason: What is wrong, what was found and what is allowed.
        stream_offset: Of the frame's first byte.
        header: The frame's bytes up to the one that decided.
        begun: The frame's first bytes, where the header alone says too little.
    """
    shown = show(header if begun is None else begun)
    return InvalidFrameError(
        f"invalid frame at stream offset {stream_offset}: {reason} (frame begins {shown})",
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
    text = f"the varint length does not end within {max_width} bytes (max_width)"
    return invalid_frame(text, stream_offset, header)


def varint_not_shortest(stream_offset: int, header: bytes) -> InvalidFrameError:
    """Return the error about a varint with superfluous bytes."""
    return invalid_frame("the varint length is not in its shortest form", stream_offset, header)


def too_many_digits(max_digits: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return invalid_frame(
        f"the length has more than {max_digits} digits (max_digits)", stream_offset, header
    )


def not_packed_decimal(position: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return invalid_frame(
        f"the byte 0x{header[position]:02x} at byte {position} of the frame is not two packed"
        " decimal digits",
        stream_offset,
        header,
    )


def bad_ber_length(max_width: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    if header[-1] == 0x80:
        reason = "the length has the indefinite form (0x80), only the definite one is read"
    else:
        reason = (
            f"the length begins with 0x{header[-1]:02x}; a length of more than 127 begins with "
            f"0x81 to 0x{0x80 + max_width:02x} (max_width={max_width})"
        )
    return invalid_frame(reason, stream_offset, header)


def wider_than_needed(value: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return invalid_frame(
        f"the length {value} is in a wider field than it needs "
        '(wider_than_needed="accept" reads it)',
        stream_offset,
        header,
    )


def wrong_constant(
    offset: int, constant: bytes, stream_offset: int, header: bytes
) -> InvalidFrameError:
    text = _other_constant(offset, constant, "a frame", header[offset:])
    return invalid_frame(text, stream_offset, header)


def _other_constant(offset: int, constant: bytes, whole: str, found: bytes) -> str:
    last = offset + len(constant) - 1
    place = f"bytes {offset} to {last} of {whole} are"
    if last == offset:
        place = f"byte {offset} of {whole} is"
    return f"{place} {show(constant)}, found {show(found) if found else 'its end'}"


def rest_before_constant(
    rest_size: int, least: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    return invalid_frame(
        f"the length leaves {rest_size} bytes after it, and the constants of the codec need at "
        f"least {least}",
        stream_offset,
        header,
    )


def declared_too_small(
    size: int, least: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    return invalid_frame(
        f"it declares a message of {size} bytes, the smallest has {least} (min_message_size)",
        stream_offset,
        header,
    )


def negative_length(
    value: int, unit: int, adjustment: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    """Return the error about a length that leaves less than nothing for the rest."""
    if value < 0:
        reason = f"the length is negative: {value}"
    else:
        reason = (
            f"the length {value} is too small: with the adjustment {adjustment} "
            f"it leaves {value * unit + adjustment} bytes"
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
        f"stream offset {stream_offset} begins {show(header)}; check that the peer uses the "
        "same codec, or raise the limit if it may send such messages",
        size=size,
        limit=limit,
        stream_offset=stream_offset,
        header=header,
    )


def complete_text(error: FrameError, layout: Layout, fragments: int) -> None:
    """Put the likely cause of a bad frame before the text of its error, if one is likely.

    An engine calls this once for each error about a received frame. The text of a joined message
    says which fragment has the bytes that it shows: the one after `fragments` others.
    """
    text = str(error)
    if fragments and not isinstance(error, IncompleteFrameError):
        place, shown = f"fragment {fragments + 1}", show(error.header)
        if text.endswith(f" (frame begins {shown})"):
            text = text.removesuffix(f"frame begins {shown})") + f"{place} begins {shown})"
        whole = f"at stream offset {error.stream_offset} begins {shown}"
        text = text.replace(f"the frame {whole}", f"{place} of the message {whole}", 1)
        error.args = (text,)
    cause = likely_cause(error.header, layout)
    if cause:
        error.args = (f"{cause}; {text}",)


class PendingFrame(NamedTuple):
    """What arrived of a frame that is not complete, as a splitter describes it."""

    layout: Layout
    where: str  # the part that the next missing byte belongs to: header, rest or trailer
    received: int  # bytes
    needed: int | None  # bytes of the whole frame; None where the header is incomplete
    stream_offset: int  # of its first byte
    header: bytes  # as far as it arrived
    sample: bytes  # its first bytes as they travelled, at most SAMPLE_SIZE of them

    def cause(self) -> str:
        """Return the likely cause that no more arrives, to be put before a text."""
        cause = likely_cause(self.sample, self.layout, self.received)
        return f"{cause}; " if cause else ""

    def part(self) -> str:
        """Return how much arrived, as "6 of 9 bytes of the frame"."""
        return _part_of(self.received, self.needed)

    def begins(self) -> str:
        """Return the frame's first bytes for the end of a text."""
        return _begins(self.sample)


def incomplete_frame(pending: PendingFrame) -> IncompleteFrameError:
    """Return the error about a stream that ended inside a frame."""
    return IncompleteFrameError(
        f"{pending.cause()}incomplete frame at stream offset {pending.stream_offset}: the stream "
        f"ended inside the {pending.where} after {pending.part()}{pending.begins()}",
        where=pending.where,
        received=pending.received,
        needed=pending.needed,
        stream_offset=pending.stream_offset,
        header=pending.header,
    )


def message_too_slow(timeout: float, pending: PendingFrame) -> MessageTimeoutError:
    """Return the error about a message whose last byte came too late."""
    return MessageTimeoutError(
        f"{pending.cause()}message too slow: {pending.part()} at stream offset "
        f"{pending.stream_offset} arrived, the whole frame is allowed {timeout:g} s "
        f"(message_timeout){pending.begins()}",
        timeout=timeout,
        stream_offset=pending.stream_offset,
        header=pending.header,
    )


def no_whole_message(timeout: float, pending: PendingFrame) -> TimeoutError:
    """Return the error about a receive during which no message became whole."""
    if not pending.received:
        return timed_out("no whole message", timeout)
    return TimeoutError(
        f"{pending.cause()}no whole message within {timeout:g} s: {pending.part()} arrived"
        f"{pending.begins()}; nothing is lost, the next call continues"
    )


def incomplete(
    where: str, received: int, needed: int | None, stream_offset: int, header: bytes
) -> IncompleteFrameError:
    """Return the error about a stream that ended inside a frame of unknown layout."""
    return IncompleteFrameError(
        f"incomplete frame at stream offset {stream_offset}: the stream ended inside the "
        f"{where} after {_part_of(received, needed)}{_begins(header)}",
        where=where,
        received=received,
        needed=needed,
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
    if needed is None:
        return f"{received} bytes of a frame of unknown size"
    return f"{received} of {needed} bytes of the frame"


def _begins(data: bytes) -> str:
    return f" (frame begins {show(data)})" if data else ""


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


def message_too_small(size: int, least: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"message too small: {size} bytes, the smallest has {least} (min_message_size)"
    )


def message_of_other_size(size: int, expected: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"a message of {size} bytes; all messages of this codec have {expected}"
    )


def not_in_units(rest_size: int, adjustment: int, unit: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"the length counts units of {unit} bytes (length_unit), and {rest_size - adjustment} "
        "bytes to count are not a multiple; pad the message"
    )


def length_not_held(value: int, mask: int) -> InvalidFrameError:
    reason = (
        f"which has bits outside length_mask={mask:#x}"
        if mask
        else "which announces a wider field (wider)"
    )
    return InvalidFrameError(f"the message needs the length {value}, {reason}")


def length_bits_in_message(position: int, byte: int, mask: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"byte {position} of the message travels in the length field, where the bits 0x{mask:02x} "
        f"belong to the length: they must be 0, the byte is 0x{byte:02x}"
    )


def own_bits_in_message(position: int, byte: int, mask: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"the bits 0x{mask:02x} of byte {position} of the message belong to the codec, which "
        f"chooses by them (keep=False): they must be 0, the byte is 0x{byte:02x}"
    )


def message_without_constant(position: int, constant: bytes, found: bytes) -> InvalidFrameError:
    return InvalidFrameError(_other_constant(position, constant, "a message", found))


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


def switch_in_skipped_frame() -> ValueError:
    """Return the error about a switch of codecs inside an oversized frame."""
    return ValueError(
        "switch() inside an oversized frame that is being skipped; call it after a message"
    )


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


def in_use(interrupted: str) -> RuntimeError:
    """Return the error about a signal handler's call that needs the end of what it interrupted."""
    return RuntimeError(
        f"a signal handler interrupted {interrupted} and called the same connection; call it after "
        "the handler"
    )


def bad_seconds(name: str, seconds: object) -> ValueError:
    """Return the error about an argument that is not a time."""
    return ValueError(f"{name} must be a positive number of seconds or None, not {seconds!r}")


def broadcast_backlog(waiting: int, limit: int) -> ConnectionAbortedError:
    """Return the error about a client that does not receive what its server broadcasts."""
    return ConnectionAbortedError(
        f"{waiting} bytes of broadcast messages wait for the client, the limit is {limit};"
        " it does not receive"
    )


def datagram_too_large(size: int, largest: int, message: object) -> MessageTooLargeError:
    """Return the error about a message whose frame does not fit one datagram."""
    try:
        message_size = memoryview(message).nbytes  # type: ignore[arg-type]
    except TypeError:  # an object, whose own size is not known
        message_size = size
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
