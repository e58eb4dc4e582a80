"""The texts of errors that both engines or several modules raise.

Each function makes one error and is named after its cause, so that the two engines raise the same
type with the same text and the same attributes. No text depends on how the stream was cut. A text
with one use is written where it is raised.
"""

from __future__ import annotations

import errno

from .errors import (
    FrameError,
    IdleTimeoutError,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTimeoutError,
    MessageTooLargeError,
    TruncatedDatagramError,
)

# As many header bytes as a text shows; the attribute has them all.
_SHOWN_SIZE = 32


def _show(data: bytes) -> str:
    return repr(data) if len(data) <= _SHOWN_SIZE else f"{data[:_SHOWN_SIZE]!r}..."


def _invalid(reason: str, stream_offset: int, header: bytes) -> InvalidFrameError:
    return InvalidFrameError(
        f"invalid frame at stream offset {stream_offset}: {reason} (frame begins {_show(header)})",
        stream_offset=stream_offset,
        header=header,
    )


# --- receiving ------------------------------------------------------------------------------------


def wrong_magic(magic: bytes, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
        f"a frame opens with the magic {_show(magic)}; "
        "the peer speaks another protocol, or the stream was entered in mid-frame",
        stream_offset,
        header,
    )


def not_a_digit(
    base: int, end: bytes, position: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    found = header[position : position + 1]
    or_end = f", nor the end mark {_show(end)}" if end else ""
    return _invalid(
        f"{found!r} at byte {position} of the frame is no digit of a base {base} length{or_end}",
        stream_offset,
        header,
    )


def no_digits(position: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
        f"the length at byte {position} of the frame has no digits", stream_offset, header
    )


def leading_zero(stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid("the length has a leading zero", stream_offset, header)


def length_over_64_bits(stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid("the length has more than 64 bits", stream_offset, header)


def varint_too_long(max_width: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
        f"the varint length does not end within {max_width} bytes", stream_offset, header
    )


def varint_not_shortest(stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid("the varint length is not in its shortest form", stream_offset, header)


def too_many_digits(max_digits: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
        f"the length has more than {max_digits} digits (max_digits)", stream_offset, header
    )


def not_packed_decimal(position: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
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
    return _invalid(reason, stream_offset, header)


def wider_than_needed(value: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
        f"the length {value} is in a wider field than it needs "
        '(wider_than_needed="accept" reads it)',
        stream_offset,
        header,
    )


def wrong_constant(
    offset: int, constant: bytes, stream_offset: int, header: bytes
) -> InvalidFrameError:
    return _invalid(
        f"bytes {offset} to {offset + len(constant) - 1} of a frame are {_show(constant)}, "
        f"found {_show(header[offset:])}",
        stream_offset,
        header,
    )


def rest_before_constant(
    rest_size: int, least: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    return _invalid(
        f"the length leaves {rest_size} bytes after it, and the constants of the codec need at "
        f"least {least}",
        stream_offset,
        header,
    )


def declared_too_small(
    size: int, least: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    return _invalid(
        f"it declares a message of {size} bytes, the smallest has {least} (min_message_size)",
        stream_offset,
        header,
    )


def negative_length(
    value: int, unit: int, adjustment: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    if value < 0:
        reason = f"the length is negative: {value}"
    else:
        reason = (
            f"the length {value} is too small: with the adjustment {adjustment} "
            f"it leaves {value * unit + adjustment} bytes"
        )
    return _invalid(reason, stream_offset, header)


def smaller_than_frame(
    value: int, least: int, stream_offset: int, header: bytes
) -> InvalidFrameError:
    return _invalid(
        f"the length {value} counts the whole frame, which has at least {least} bytes",
        stream_offset,
        header,
    )


def wrong_trailer(
    trailer: bytes, found: bytes, stream_offset: int, header: bytes
) -> InvalidFrameError:
    return _invalid(
        f"a frame closes with the trailer {_show(trailer)}, here stands {_show(found)}",
        stream_offset,
        header,
    )


def bytes_behind(count: int, header: bytes) -> InvalidFrameError:
    return InvalidFrameError(
        f"{count} bytes behind the frame; use split() or splitter() for more than one frame",
        stream_offset=0,
        header=header,
    )


def bad_header_line(line: bytes, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(f"{_show(line)} is not a 'Name: value' header line", stream_offset, header)


def bad_header_length(
    name: str, value: bytes, stream_offset: int, header: bytes
) -> InvalidFrameError:
    return _invalid(f"{name} is {_show(value)}, not a decimal number", stream_offset, header)


def second_header(name: str, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(f"a second {name} in one header block", stream_offset, header)


def missing_header(name: str, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(f"the header block has no {name}", stream_offset, header)


def header_too_long(max_header: int, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
        f"the header does not end within {max_header} bytes (max_header)", stream_offset, header
    )


def parse_failed(error: Exception, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
        f"the codec's parse() raised {type(error).__name__}: {error}", stream_offset, header
    )


def parse_nonsense(found: object, stream_offset: int, header: bytes) -> InvalidFrameError:
    return _invalid(
        "the codec's parse() must return None, (header_size, rest_size) or "
        f"(header_size, rest_size, lead), not {found!r:.80}",
        stream_offset,
        header,
    )


def declared_too_large(
    size: int, limit: int, stream_offset: int, header: bytes
) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"the frame at stream offset {stream_offset} declares a message of {size} bytes, "
        f"the limit is {limit} (frame begins {_show(header)}); raise max_message_size "
        "if such messages are expected, else the peer speaks another protocol",
        size=size,
        limit=limit,
        stream_offset=stream_offset,
        header=header,
    )


def incomplete(
    where: str, received: int, needed: int | None, stream_offset: int, header: bytes
) -> IncompleteFrameError:
    whole = "the frame's size is not known yet" if needed is None else f"the frame has {needed}"
    return IncompleteFrameError(
        f"the stream ends inside the {where} of the frame at stream offset {stream_offset}, "
        f"after {received} of its bytes; {whole}",
        where=where,
        received=received,
        needed=needed,
        stream_offset=stream_offset,
        header=header,
    )


def message_took_too_long(
    timeout: float, received: int, stream_offset: int, header: bytes
) -> MessageTimeoutError:
    return MessageTimeoutError(
        f"the message at stream offset {stream_offset} was not whole after {timeout:g} s "
        f"(message_timeout); {received} bytes of its frame arrived",
        timeout=timeout,
        stream_offset=stream_offset,
        header=header,
    )


def idle_too_long(timeout: float, stream_offset: int) -> IdleTimeoutError:
    return IdleTimeoutError(
        f"no message began within {timeout:g} s (idle_timeout), at stream offset {stream_offset}",
        timeout=timeout,
        stream_offset=stream_offset,
    )


# --- sending --------------------------------------------------------------------------------------


def message_too_large(size: int, limit: int, limited_by: str) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"a message of {size} bytes; the largest is {limit}, by the codec's {limited_by}",
        size=size,
        limit=limit,
    )


def shorter_than_lead(size: int, lead_size: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"a message of {size} bytes; it opens with the {lead_size} bytes "
        "that travel ahead of the length field"
    )


def unsayable_length(value: int, rest_size: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"a message with {rest_size} bytes behind the length field needs "
        f"the length {value}, which is negative"
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
    reason = f"which has bits outside length_mask={mask:#x}" if mask else "which is in wider"
    return InvalidFrameError(f"the message needs the length {value}, {reason}")


def length_bits_in_message(position: int, byte: int, mask: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"byte {position} of the message travels in the length field, where the bits 0x{mask:02x} "
        f"belong to the length: they must be 0, the byte is 0x{byte:02x}"
    )


def message_without_constant(position: int, constant: bytes, found: bytes) -> InvalidFrameError:
    return InvalidFrameError(
        f"bytes {position} to {position + len(constant) - 1} of a message are {_show(constant)}, "
        f"found {_show(found)}"
    )


def length_is_special(value: int, special: object) -> InvalidFrameError:
    return InvalidFrameError(
        f"the message needs the length {value}, which stands for {special!r} in this codec"
    )


def unsayable_message(reason: str) -> InvalidFrameError:
    return InvalidFrameError(f"the message has no frame: {reason}")


def build_nonsense(found: object) -> InvalidFrameError:
    return InvalidFrameError(
        "the codec's build() must return the header as bytes, or (header, n) with n at most "
        f"the message's size, not {found!r:.80}"
    )


def built_too_long(size: int, max_header: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"the codec's build() made a header of {size} bytes, max_header is {max_header}"
    )


# --- using ----------------------------------------------------------------------------------------


def not_a_codec(codec: object) -> TypeError:
    return TypeError(f"codec must be a framecodec.Codec, not {type(codec).__name__!r}")


def bad_on_oversize(on_oversize: object) -> ValueError:
    return ValueError(f'on_oversize must be "raise" or "skip", not {on_oversize!r}')


def bad_stream_offset(stream_offset: int) -> ValueError:
    return ValueError(f"stream_offset must be from 0 to {2**62}, not {stream_offset}")


def not_copied(of_a_connection: object) -> TypeError:
    name = type(of_a_connection).__name__
    return TypeError(f"a {name} stands for one connection; it is neither copied nor pickled")


def detached() -> ValueError:
    return ValueError("the splitter is detached; its unfinished bytes were handed over")


def reentered() -> RuntimeError:
    return RuntimeError("the splitter is in use by another call that has not returned yet")


def no_buffer_given() -> ValueError:
    return ValueError("buffer_updated() without a get_buffer() before it")


def updated_beyond_buffer(count: int, size: int) -> ValueError:
    return ValueError(f"buffer_updated({count}): get_buffer() gave a buffer of {size} bytes")


def unfinished_lost() -> MemoryError:
    return MemoryError(
        "memory ran out while the splitter kept the bytes of the broken stream; "
        "they are incomplete, so none is given back"
    )


def spans_growing() -> BufferError:
    return BufferError("scan() has not returned these spans yet; their positions still move")


def spans_not_copied() -> TypeError:
    return TypeError("spans refer to another object's memory; they cannot be copied or pickled")


def scan_with_lead() -> ValueError:
    return ValueError(
        "the codec has a lead, so a message is not in one piece; scan whole frames with raw=True"
    )


def scan_of_special(special: object, offset: int) -> ValueError:
    return ValueError(
        f"the frame at offset {offset} is the special {special!r:.80}, which is no bytes; "
        "scan whole frames with raw=True"
    )


def no_such_span(count: int) -> IndexError:
    return IndexError(f"index out of range: there are {count} spans")


# --- sockets --------------------------------------------------------------------------------------


def stream_ended() -> EOFError:
    return EOFError("the peer closed the connection; the last frame was whole")


def connection_closed() -> ConnectionAbortedError:
    return ConnectionAbortedError(
        errno.ECONNABORTED, "the connection was closed or detached on this side"
    )


def connection_reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "the peer reset the connection")


def another_threads_loop() -> RuntimeError:
    return RuntimeError(
        "the connection is one of an event loop in another thread; "
        "send by its call_soon_threadsafe()"
    )


def count_lost(done: str) -> ConnectionAbortedError:
    return ConnectionAbortedError(
        errno.ECONNABORTED,
        f"an earlier call failed (out of memory, or a signal handler raised) after bytes were "
        f"{done}, and how many is lost: close the connection",
    )


def interrupted_in_tls() -> ConnectionAbortedError:
    return ConnectionAbortedError(
        errno.ECONNABORTED,
        "a signal handler raised, or memory ran out, while a TLS record was read or written, and "
        "nobody knows how far that went",
    )


def lost_while_cutting() -> ConnectionAbortedError:
    return ConnectionAbortedError(
        errno.ECONNABORTED,
        "a signal handler raised while the Python engine cut received bytes into messages, and "
        "messages are lost: close the connection (the compiled engine is not interrupted)",
    )


def still_arriving() -> BlockingIOError:
    return BlockingIOError(
        errno.EAGAIN, "no message is whole yet, and the peer sends without a pause; call again"
    )


def parse_changed_its_answer(stream_offset: int) -> InvalidFrameError:
    return InvalidFrameError(
        f"parse() of the codec answered the same bytes in two ways, at stream offset "
        f"{stream_offset}; it must depend on nothing else",
        stream_offset=stream_offset,
    )


def timed_out(what: str, timeout: float) -> TimeoutError:
    return TimeoutError(f"{what} within {timeout:g} s; nothing is lost, the next call goes on")


def another_thread_is_inside(timeout: float) -> OSError:
    refusal: OSError = timed_out("another thread did not finish its call", timeout)
    if not timeout:
        refusal = BlockingIOError(
            errno.EAGAIN, "another thread is in the same call, and this socket does not wait"
        )
    refusal.message_started = False  # type: ignore[attr-defined]
    return refusal


def nobody_connected(timeout: float) -> TimeoutError:
    return TimeoutError(f"no connection within {timeout:g} s")


def in_use(what: str) -> RuntimeError:
    return RuntimeError(
        f"{what} was called from a signal handler that interrupted {what} of the same connection"
    )


def not_a_stream_socket(sock: object) -> Exception:
    found = getattr(sock, "type", None)
    if found is None:
        return TypeError(f"a connected stream socket is required, not {type(sock).__name__!r}")
    return ValueError(
        f"a stream socket is required, not one of type {found!r}; DatagramSocket is for datagrams"
    )


def bad_address(address: object) -> TypeError:
    return TypeError(
        "an address is (host, port), (host, port, flowinfo, scope_id) or the path of a Unix "
        f"socket, not {address!r:.80}"
    )


def bad_seconds(name: str, seconds: object) -> ValueError:
    return ValueError(f"{name} must be a positive number of seconds or None, not {seconds!r}")


def no_unix_sockets() -> OSError:
    return OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets; use (host, port)")


def unsent(size: int) -> RuntimeError:
    return RuntimeError(f"{size} bytes of accepted messages have not left; flush() first")


def stream_unfinished() -> RuntimeError:
    return RuntimeError("a message is half received; recv_file() or recv_into() finishes it")


def tls_half_close() -> OSError:
    return OSError(
        errno.EOPNOTSUPP,
        "TLS cannot be ended in one direction; say goodbye in a message, or close()",
    )


def buffer_too_small(size: int, room: int) -> ValueError:
    return ValueError(f"the message has {size} bytes, the buffer {room}; nothing is lost")


def buffer_is_readonly(buffer: object) -> TypeError:
    return TypeError(f"a writable buffer is required, not {type(buffer).__name__!r}")


def special_is_no_file(special: object) -> ValueError:
    return ValueError(f"the next message is {special!r}, which is no bytes; recv() gives it")


def file_would_block() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "the file cannot take more now; nothing is lost")


def not_a_binary_file(file: object) -> TypeError:
    return TypeError(f"a file opened in binary mode is required, not {type(file).__name__!r}")


def bad_port(port: int) -> OverflowError:  # as the methods of a socket
    return OverflowError(f"port must be 0-65535, not {port}")


def negative_size(size: int) -> ValueError:
    return ValueError(f"size must be 0 or more, not {size}")


def file_has_not(size: int, there: int) -> ValueError:
    return ValueError(f"the file has {there} bytes from its position on, not {size}")


def file_too_short(missing: int) -> OSError:
    return OSError(
        errno.EIO,
        f"the file became shorter while it was sent: {missing} bytes that its frame announced are "
        "missing, so nothing more can be sent on this connection",
    )


def moved(error: FrameError, base: int) -> FrameError:
    """Return the same error, for a stream that began `base` bytes earlier."""
    offset = error.stream_offset or 0
    error.args = tuple(
        arg.replace(f"stream offset {offset}", f"stream offset {offset + base}", 1)
        if isinstance(arg, str)
        else arg
        for arg in error.args
    )
    error.stream_offset = offset + base
    return error


def not_a_datagram_socket(sock: object) -> Exception:
    found = getattr(sock, "type", None)
    if found is None:
        return TypeError(f"a datagram socket is required, not {type(sock).__name__!r}")
    return ValueError(
        f"a datagram socket is required, not one of type {found!r}; FrameSocket is for streams"
    )


def bad_max_size(max_size: object) -> ValueError:
    return ValueError(f"max_size must be at least 1, not {max_size!r}")


def datagram_too_large(size: int, largest: int, message: object) -> MessageTooLargeError:
    message_size = memoryview(message).nbytes  # type: ignore[arg-type]
    return MessageTooLargeError(
        f"a message of {message_size} bytes makes a datagram of {size}; the largest has {largest}",
        size=message_size,
        limit=largest - (size - message_size),
    )


def datagram_refused(size: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"a datagram of {size} bytes is larger than this socket sends: a Unix socket by its send "
        "buffer (SO_SNDBUF), UDP by the way to the receiver",
        size=size,
    )


def nameless_sender() -> ValueError:
    return ValueError(
        "the datagram came from a Unix socket without a name; to be answered, it must bind() one"
    )


def receiving_ended() -> EOFError:
    return EOFError("receiving was shut down on this side")


def datagram_truncated(received: int, size: int | None) -> TruncatedDatagramError:
    had = "more" if size is None else str(size)
    return TruncatedDatagramError(
        f"a datagram of {had} bytes was cut short: max_size is {received}",
        received=received,
        size=size,
    )


# --- in an event loop -----------------------------------------------------------------------------


def connection_lost(cause: BaseException | None) -> ConnectionResetError:
    reason = "the peer closed it" if cause is None else str(cause) or type(cause).__name__
    error = ConnectionResetError(errno.ECONNRESET, f"the connection is lost: {reason}")
    error.__cause__ = cause
    return error


def sending_failed(cause: BaseException) -> ConnectionAbortedError:
    # Without the cause itself, whose traceback keeps the message.
    return ConnectionAbortedError(errno.ECONNABORTED, f"sending failed: {cause!r}")


def receiving_failed(cause: BaseException) -> ConnectionAbortedError:
    return ConnectionAbortedError(errno.ECONNABORTED, f"receiving failed: {cause!r}")


def sending_ended() -> RuntimeError:
    return RuntimeError("nothing can be sent after write_eof()")


def tls_ends_both() -> NotImplementedError:
    return NotImplementedError("write_eof: TLS cannot end one direction alone")


def handed_over() -> RuntimeError:
    return RuntimeError(
        "the transport has another protocol by now; after loop.start_tls(), set protocol.transport "
        "to what it returned"
    )


def another_recv_waits() -> RuntimeError:
    return RuntimeError("another recv of the same stream waits; only one task may receive")


def clear_text_left() -> RuntimeError:
    return RuntimeError(
        "start_tls: the peer sent clear text behind the last message, which must not pass for "
        "encrypted"
    )
