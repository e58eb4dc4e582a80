"""One system call on a connected stream socket, plain or TLS, and what to wait for after it.

Interruptions
    CPython runs the handlers of signals when a Python function begins, after a call from Python
    code and at the end of a loop. A handler that raises (Ctrl-C does) must not lose a result that
    cannot be had twice: a count of bytes that were received or sent, or bytes that an object gave
    up. This module is the one place for such calls:

    * Iterators of C call each other: ``for count in map(sock.recv_into, buffers)`` makes the
      system call and stores its result in a variable without a moment for a handler. So does
      ``counts.extend(map(sock.send, buffers))``.
    * Assignments that must all happen or none contain no call: CPython runs no handler between
      them.
    * If memory runs out, or a handler raises, where neither helps (inside the `ssl` module, inside
      the Python engine), a flag stays set: `Wire.torn`, `Intake.parsing`. The direction is over.

    The lines after such a call are safe in any order, because the result is stored.
    Do not put a loop inside a `try` whose cleanup must run: CPython can run a raising handler at
    the end of a loop, outside the enclosing `try` (cpython#130279).

Waiting
    A blocking socket waits in the system call itself. With a time-out the call is tried first, with
    MSG_DONTWAIT, and the thread waits in ``poll`` only if it would block: Python's own time-outs
    poll before every call, which costs more than the call. A TLS connection is non-blocking
    underneath in any case, because two threads must not read and write one TLS object at a time:
    each of its calls holds a lock, no wait does.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import repeat, takewhile
from time import monotonic
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, final

from .. import _error_texts, errors
from .._engine import sockets_fast_path as _fast_path
from .._peers import name_peer, peer_of
from .._states import ReceiveState
from ._fast_path_py import LONGEST_TURN
from .waiting import READ, WRITE, wait

if TYPE_CHECKING:
    from .._inbox import Inbox
    from .._outbox import Outbox
    from ..splitter import Splitter
    from .files import IncomingMessage, OutgoingFile
    from .sending import SendSide

try:
    import ssl
except ImportError:  # a Python without OpenSSL
    ssl = None  # type: ignore[assignment]

__all__ = ["Intake", "Wire", "hold_chunk", "hold_trailer", "hold_unsent", "is_time_out"]

_Result = TypeVar("_Result")

# The flag that makes one call non-blocking; 0 where the system has none (Windows).
_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)

_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")

_NO_ANCILLARY_DATA = ((),)

# Python 3.11 calls a Python function to look up a member of an Enum class.
_READY, _HALF_DELIVERED = ReceiveState.READY, ReceiveState.HALF_DELIVERED

_SENDFILE_SIZE = 16 * 1024 * 1024
# The errors by which a system refuses to copy from this file into this socket.
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP)

if ssl is not None:
    # A non-blocking socket raises BlockingIOError, the `ssl` module tells the event to wait for.
    class _TLSWantsRead(ssl.SSLWantReadError, BlockingIOError):
        pass

    class _TLSWantsWrite(ssl.SSLWantWriteError, BlockingIOError):
        pass

    _TLS_WANTS_READ: Any = ssl.SSLWantReadError
    _TLS_WANTS_WRITE: Any = ssl.SSLWantWriteError
    _TLS_EOF: Any = ssl.SSLEOFError
    _WOULD_BLOCK: Any = (
        BlockingIOError,
        InterruptedError,
        ssl.SSLWantReadError,
        ssl.SSLWantWriteError,
    )
else:  # a Python without OpenSSL
    _TLS_WANTS_READ = _TLS_WANTS_WRITE = _TLS_EOF = ()
    _WOULD_BLOCK = (BlockingIOError, InterruptedError)


def is_time_out(error: BaseException) -> bool:
    """Return whether an error is a time-out of Python's, not that of a TCP connection that died."""
    return isinstance(error, TimeoutError) and error.errno != errno.ETIMEDOUT


class Wire:
    """The system calls on one socket. `PipeWire` has them for files.

    Args:
        sock: A connected stream socket.
    """

    __slots__ = (
        "_tls_lock",
        "closed",
        "peer",
        "read_flags",
        "read_waits",
        "sock",
        "timeout",
        "tls",
        "torn",
        "was_reset",
        "write_flags",
        "write_waits",
    )

    is_socket = True
    """The calls are those of a socket, which compiled code can make itself."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tls: Any = None
        """The C-level object of a TLS connection; None for a plain one."""
        if ssl is not None and isinstance(sock, ssl.SSLSocket):
            self.tls = sock._sslobj  # type: ignore[attr-defined]
        self._tls_lock = threading.RLock()
        self.peer = peer_of(sock)
        """The peer's name, which errors get; empty if it has none."""
        self.timeout: float | None = None
        """Seconds that a call may take."""
        self.read_flags = self.write_flags = 0
        self.read_waits = self.write_waits = False
        """Whether a call that would block is followed by a wait."""
        self.torn = False
        """A TLS record was read or written, and how far is unknown."""
        self.closed = False
        """`close` or `detach` was called. It stays True: a call of another thread that ends
        meanwhile may store another state of its direction."""
        self.was_reset = False
        """A send failed because the peer reset the connection. The kernel reports that once."""

    def settimeout(self, timeout: float | None, *, wait_in_poll: bool) -> None:
        """Prepare the socket for calls with this time-out.

        Args:
            timeout: Seconds; None waits for ever, 0 does not wait.
            wait_in_poll: A receive without a time-out waits in ``poll``, too: the peer has a limit.
        """
        waits_in_read = timeout is None and not wait_in_poll
        waits_in_write = timeout is None
        read_flags = write_flags = 0
        if self.tls is not None or (not _DONTWAIT and not waits_in_read):
            self.sock.setblocking(False)
            waits_in_read = waits_in_write = False
        elif timeout == 0:
            self.sock.setblocking(False)
        else:
            self.sock.setblocking(True)
            read_flags = 0 if waits_in_read else _DONTWAIT
            write_flags = 0 if waits_in_write else _DONTWAIT
        self.read_flags, self.write_flags = read_flags, write_flags
        self.timeout = timeout
        self.read_waits = timeout != 0 and not waits_in_read
        self.write_waits = timeout != 0 and not waits_in_write

    def deadline(self) -> float | None:
        """Return when a call that begins now must end."""
        return None if self.timeout is None else monotonic() + self.timeout

    def closed_error(self) -> OSError:
        """Return the error of a call after `close` or `detach`."""
        return name_peer(_error_texts.connection_closed(), self.peer)

    def wait(self, event: int, deadline: float | None) -> bool:
        """Wait until the socket can be read or written, as `waiting.wait`."""
        return wait(self.sock, event, deadline)

    # --- what an error means ----------------------------------------------------------------------

    def would_block(self, error: OSError) -> bool:
        """Return whether a call failed only because the kernel has no bytes or no space."""
        return isinstance(error, _WOULD_BLOCK)

    def event_after(self, error: OSError, event: int) -> int:
        """Return the event to wait for after a call that failed, or 0: waiting does not help.

        Args:
            error: The error of the call.
            event: The event for which a plain socket waits.

        Raises:
            BlockingIOError: The call would have to wait, and the time-out is 0.
        """
        waits = self.read_waits if event == READ else self.write_waits
        refusal = error
        if isinstance(error, _TLS_WANTS_READ):
            event, refusal = READ, _TLSWantsRead(*error.args)
        elif isinstance(error, _TLS_WANTS_WRITE):
            event, refusal = WRITE, _TLSWantsWrite(*error.args)
        elif not isinstance(error, BlockingIOError | InterruptedError):
            return 0
        try:
            if not waits:
                raise refusal from None
            return event
        finally:
            del error, refusal  # they hold this frame: a cycle

    def is_end_of_stream(self, error: OSError) -> bool:
        """Return whether a peer closed the connection without closing TLS, as many do."""
        return isinstance(error, _TLS_EOF) and bool(self.sock.suppress_ragged_eofs)  # type: ignore[attr-defined]

    # --- receiving --------------------------------------------------------------------------------

    def counts(self, buffers: Iterator[Any]) -> Iterator[int]:
        """Return an iterator that receives into the next buffer and gives the number of bytes.

        It gives 0 at the end of the stream, and can be stepped again after an error.
        """
        if self.tls is not None:
            return map(self.tls.read, repeat(0), buffers)  # 0: as much as fits
        if self.read_flags:
            return map(self.sock.recv_into, buffers, repeat(0), repeat(self.read_flags))
        return map(self.sock.recv_into, buffers)

    def call_tls(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Call a function that receives or sends by TLS, while no other thread does.

        The `ssl` module runs the handlers of signals after a record was read or written and before
        it returns the number of bytes. A handler that raises would take the number with it, so
        signals are held back meanwhile. If the kernel gives the signal to another thread, Python
        runs the handler here all the same; then the connection is `torn`.
        """
        held = _fast_path.HeldSignals()
        begun = False
        try:
            try:
                self._tls_lock.acquire()
                held.hold()
                begun = True
                return function(*arguments)
            except (OSError, EOFError, errors.FrameError):
                raise
            except BaseException:
                if begun:
                    self.torn = True
                raise
            finally:
                for _ in held.release:
                    break
        finally:
            try:  # noqa: SIM105 (that would be a `with`, whose exit needs memory)
                self._tls_lock.release()
            except RuntimeError:  # a signal handler has interrupted acquire()
                pass

    def receive_direct(self, message: IncomingMessage, view: memoryview, keep: bool) -> bool:
        """Receive bytes of a message once, without the splitter.

        Args:
            message: It counts the bytes.
            view: The memory for them.
            keep: The message refers to the bytes afterwards.

        Returns:
            Whether there were bytes; False at the end of the stream.
        """
        for count in self.counts(iter((view,))):
            message.missing -= count
            if keep:
                message.chunk = view[:count]
            return count > 0
        return False  # pragma: no cover (the loop has one step)

    # --- sending ----------------------------------------------------------------------------------

    def send(self, outbox: Outbox, buffers: list[Any]) -> None:
        """Send the first of an outbox's buffers, or several. The outbox counts the sent bytes."""
        first, flags = buffers[:1], (self.write_flags,)
        if self.tls is not None:
            self.call_tls(outbox.sent_counts.extend, map(self.tls.write, first))
        elif len(buffers) == 1 or not _HAS_SENDMSG:
            outbox.sent_counts.extend(map(self.sock.send, first, flags))
        else:
            sendmsg = map(self.sock.sendmsg, (buffers,), _NO_ANCILLARY_DATA, flags)
            outbox.sent_counts.extend(sendmsg)

    def sendfile(self, file: OutgoingFile) -> bool:
        """Let the kernel copy from a file once. The file counts the bytes.

        Returns:
            Whether bytes were copied, or this file must be read instead (``file.sendfile`` is None
            then). False: the file has no more bytes.
        """
        if self.write_flags:  # sendfile has no flag that makes one call non-blocking
            self.sock.setblocking(False)
        try:
            for count in map(
                file.sendfile,
                (self.sock.fileno(),),
                (file.fileno,),
                (file.position,),
                (min(file.unsent, _SENDFILE_SIZE),),
            ):
                file.position += count
                file.unsent -= count
                if count:
                    return True
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                raise
            file.sendfile = None
            return True
        finally:
            if self.write_flags:
                self.sock.setblocking(True)
        return False

    def read_chunk(self, file: OutgoingFile) -> None:
        """Read the next piece of a file into ``file.chunk``."""
        for chunk in file.read():
            file.chunk = chunk

    def write_chunk(self, message: IncomingMessage, write: Callable[[Any], int | None]) -> bool:
        """Write received bytes to a file once. The message counts them.

        Returns:
            False if the file would block; nothing was written.
        """
        for written in map(write, (message.chunk,)):
            if written is None:
                return False
            message.chunk = message.chunk[written:]
        return True

    def say_goodbye(self) -> None:
        """Close TLS, if the connection has it, without waiting for the peer's answer."""
        if self.tls is not None:
            self.tls.shutdown()


# --- bytes that go into an outbox -----------------------------------------------------------------

# Of the lines that belong together only the first can fail, and none is a call: all were done or
# none.


def hold_unsent(sender: Any, outbox: Outbox) -> None:
    """Put the end of a message that the fast path has begun into the outbox."""
    size = outbox.size + sum(map(len, sender.unsent))
    outbox.small += sender.unsent
    outbox.size = size
    sender.unsent = ()


def hold_chunk(file: OutgoingFile, outbox: Outbox) -> None:
    """Put the bytes that were read from a file into the outbox."""
    data = (file.chunk or b"",)
    count = len(data[0])
    size, position, unsent = outbox.size + count, file.position + count, file.unsent - count
    outbox.small += data
    outbox.size = size
    file.chunk = None
    file.position = position
    file.unsent = unsent


def hold_trailer(side: SendSide, outbox: Outbox, file: OutgoingFile) -> None:
    """Put the trailer of a file's frame into the outbox; the side has no file then."""
    size = outbox.size + file.trailer_size
    outbox.small += file.trailer
    outbox.size = size
    side.file = None


# --- bytes that come out of a socket --------------------------------------------------------------


@final
class Intake:
    """The way of received bytes: from a `Wire` through a splitter into a list of messages.

    A byte is in the kernel, in the splitter, in `arrived` or in a batch, at every moment at which a
    handler can raise. Exception: while `parsing` is set, the Python engine holds bytes that are in
    none of these places.
    """

    __slots__ = ("_pipe", "arrived", "headers", "parsing")

    def __init__(self) -> None:
        self.arrived: list[Any] = []
        """Messages that the splitter gave and that are in no batch yet."""
        self.headers: list[Any] | None = None
        """Their headers, if the splitter keeps those."""
        self.parsing = False
        """The Python engine has bytes whose messages are not in `arrived` yet."""

    def use(
        self, splitter: Splitter, get_buffer: Callable[[int], Any], size: int, wire: Wire
    ) -> None:
        """Receive into this splitter from now on.

        Args:
            splitter: It gets the bytes.
            get_buffer: Gives its memory.
            size: Bytes to ask of one receive.
            wire: The socket.
        """
        self._pipe = self._new_pipe(splitter, get_buffer, size, wire)

    def _new_pipe(
        self, splitter: Splitter, get_buffer: Callable[[int], Any], size: int, wire: Wire
    ) -> tuple[Splitter, Iterator[Any], bool, bool]:
        """Return a splitter, an iterator, and whether the splitter is Python and keeps headers.

        A step of the iterator receives and gives the splitter's list of messages; with the Python
        engine the number of bytes in the splitter's buffer. It ends at the end of the stream.
        """
        counts = takewhile(bool, wire.counts(map(get_buffer, repeat(size))))
        keeps_headers = splitter.headers is not None
        if isinstance(splitter.feed, MethodType):  # it is Python code
            return splitter, counts, True, keeps_headers
        return splitter, map(splitter.buffer_updated, counts), False, keeps_headers

    def receive(
        self, receiver: Any, stop_after_chunk: Callable[[], bool] | None = None
    ) -> bool | None:
        """Receive until a message is whole, for `LONGEST_TURN` seconds at most.

        Args:
            receiver: It gets the messages, to deliver them.
            stop_after_chunk: Called after each receive that completed no message. If it returns
                True, that is all.

        Returns:
            Whether to go on with what has arrived; False if the time is over before that, None at
            the end of the stream.
        """
        splitter, arrivals, in_python, keeps_headers = self._pipe
        turn_ends_at = 0.0
        for result in arrivals:
            if in_python:
                self.parsing = True
                self.arrived = splitter.buffer_updated(result)
                if keeps_headers:
                    # It has one more if the engine was interrupted after it stored a header.
                    self.headers = splitter.headers[: len(self.arrived)]  # type: ignore[index]
                self.parsing = False
            else:
                self.arrived = result
                if keeps_headers:
                    self.headers = splitter.headers
            if self.arrived:
                batch = _fast_path.Batch(self.arrived, self.headers)
                no_messages: list[Any] = []
                # All of these or none: there is no call between them. After an interruption
                # before them, deliver() continues.
                receiver.ready = batch
                self.arrived = no_messages
                self.headers = None
                return True
            if stop_after_chunk is not None and stop_after_chunk():
                return True
            now = monotonic()
            if not turn_ends_at:
                turn_ends_at = now + LONGEST_TURN
            elif now >= turn_ends_at:
                return False
        return None

    def deliver(self, receiver: Any) -> None:  # pragma: no cover (tested without the tracer)
        """Give the receiver what arrived before `receive` was interrupted."""
        batch = _fast_path.Batch(self.arrived, self.headers)
        no_messages: list[Any] = []
        # All of these or none: there is no call between them.
        receiver.ready = batch
        self.arrived = no_messages
        self.headers = None

    def clear(self, receiver: Any) -> None:
        """Drop all messages."""
        self.arrived = []
        receiver.ready = _fast_path.Batch([])

    def take_first(self, receiver: Any, inbox: Inbox, message: IncomingMessage) -> None:
        """Take the first ready message, of which `message` is another form, out of the batch."""
        for _ in receiver.ready.take:  # one step
            inbox.direct = message
            receiver.state = _HALF_DELIVERED
            break

    def divert(
        self,
        inbox: Inbox,
        receiver: Any,
        message: IncomingMessage,
        next_splitter: Splitter,
        get_buffer: Callable[[int], Any],
        size: int,
        wire: Wire,
    ) -> None:
        """Give the unfinished frame to `message`, and what follows it to another splitter."""
        old = inbox.splitter
        pipe = self._new_pipe(next_splitter, get_buffer, size, wire)
        self.parsing = isinstance(old.feed, MethodType)  # until the bytes are stored
        for unfinished in map(type(old).detach, (old,)):
            message.unfinished = unfinished
            inbox.direct = message
            inbox.splitter = next_splitter
            self._pipe = pipe
            receiver.state = _HALF_DELIVERED
            self.parsing = False

    def give_back(
        self,
        inbox: Inbox,
        receiver: Any,
        splitter: Splitter,
        get_buffer: Callable[[int], Any],
        size: int,
        wire: Wire,
    ) -> None:
        """Let a splitter receive that has all bytes of the message that `divert` took."""
        pipe = self._new_pipe(splitter, get_buffer, size, wire)
        # No call in between.
        inbox.splitter = splitter
        inbox.direct = None
        self._pipe = pipe
        receiver.state = _READY
