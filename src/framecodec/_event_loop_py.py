"""The way of a read and of a write through an event loop, in Python: a part of the fast path.

It belongs to `asyncio._fast_path_py`, which has its names, and whose compiled twin is one module.
It is in this folder because the engine is imported without asyncio.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, final

from . import _error_texts
from ._states import TransportState

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "FIRST_READ_SIZE",
    "MESSAGE_COST",
    "READ_SIZE",
    "ReadyTasks",
    "ReceivePath",
    "SendPath",
    "Waiter",
]

MESSAGE_COST = 48
"""Bytes that a message counts as held besides its frame: what a `bytes` object needs."""

# Above this mark a stream stops reading. It counts the bytes held for `recv`: the frames, and what
# each message costs.
_HIGH_WATER = 256 * 1024

FIRST_READ_SIZE = 4 * 1024
"""Bytes that a connection reads at first, where connections share no memory: most are idle."""
READ_SIZE = 128 * 1024
"""Bytes that it reads as soon as a read has filled the first size."""
SMALL_READ = 512
"""A read of fewer bytes than this had less than a segment of TCP to take."""

# The transport gets a view of a batch from this size on: TLS cuts records off it.
_JOIN_SIZE = 16 * 1024

# This many tasks run before what they have sent is written.
_MOST_TASKS = 16
# Where one connection is ready at a time, one of this many tasks waits to see if others are.
_TRY_AGAIN = 16

_OPEN, _CLOSING, _CLOSED = TransportState.OPEN, TransportState.CLOSING, TransportState.CLOSED


@final
class Waiter:
    """What a task waits for that receives: a future that can run the task at once.

    `run` is called when the transport has read a message: between tasks. There the waiting task can
    run without another iteration of the loop, and what it sends can leave in the same one. All else
    is as in asyncio's own future, of which one task waits for the end.

    Args:
        loop: The loop of the task.
        current_task: asyncio's function of that name.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_callback",
        "_cancelled_by",
        "_context",
        "_current_task",
        "_done",
        "_loop",
    )

    _asyncio_future_blocking: bool  # asyncio takes what has it for a future
    _callback: Callable[[Any], object] | None
    _cancelled_by: tuple[object] | None  # what `cancel` was given
    _context: Any
    _current_task: Callable[[], object]
    _done: bool
    _loop: Any

    def __new__(cls, loop: Any, current_task: Callable[[], object]) -> Self:
        self = super().__new__(cls)
        self._loop = loop
        self._current_task = current_task
        self._callback = self._context = self._cancelled_by = None
        self._asyncio_future_blocking = self._done = False
        return self

    def run(self) -> bool:
        """End the wait, and run the task that waits. Return False if it can only run later."""
        callback, context = self._callback, self._context
        if self._done or callback is None or context is None or not self._is_between_tasks():
            self.set_result(None)
            return False
        started = False

        def start() -> None:
            nonlocal started
            started = self._done = True
            self._callback = self._context = None
            callback(self)

        try:
            context.run(start)
        except BaseException as error:
            if not started:
                self.set_result(None)
                # A RuntimeError: something runs in the context.
                if not isinstance(error, RuntimeError):  # pragma: no cover (a signal handler's)
                    raise
                return False
            self._loop.call_soon(raise_error, error)  # it ends the program
        return True

    def _is_between_tasks(self) -> bool:
        try:
            return self._current_task() is None
        except RuntimeError:  # no loop runs
            return False

    def set_result(self, result: None, /) -> None:
        """End the wait; the task runs in the next iteration of the loop."""
        if not self._done:
            self._schedule()

    def cancel(self, msg: object = None) -> bool:
        """Cancel the wait. Return whether it had not ended."""
        if self._done:
            return False
        self._cancelled_by = (msg,)
        self._schedule()
        return True

    def _schedule(self) -> None:
        if self._callback is not None:
            self._loop.call_soon(self._callback, self, context=self._context)
        self._done = True
        self._callback = self._context = None

    def result(self) -> None:
        """Return None, or raise the error of a wait that was cancelled."""
        if self._cancelled_by is not None or not self._done:
            future = self._loop.create_future()
            if self._cancelled_by is not None:
                future.cancel(*self._cancelled_by)
            future.result()  # raises asyncio's own error

    def exception(self) -> None:
        """Return None, or raise as `result`."""
        self.result()

    def done(self) -> bool:
        """Return whether the wait has ended."""
        return self._done

    def cancelled(self) -> bool:
        """Return whether the wait was cancelled."""
        return self._cancelled_by is not None

    def get_loop(self) -> Any:
        """Return the loop of the task that waits."""
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], context: Any = None) -> None:
        """Call a function at the end of the wait: one that wakes the only task that waits."""
        if self._done:
            self._loop.call_soon(callback, self, context=context)
        elif self._callback is not None:
            raise _error_texts.another_recv_waits()
        else:
            self._callback, self._context = callback, context

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Call the function no more. Return how many were removed."""
        if self._callback is None or self._callback != callback:
            return 0
        self._callback = self._context = None
        return 1

    def __await__(self) -> Generator[Any]:
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        self.result()

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


def raise_error(error: BaseException) -> NoReturn:
    """Raise an error, as a callback of the loop."""
    raise error


class SendPath:
    """The part of a send side that each message passes."""

    __slots__ = (
        "_encode_many",
        "_get_protocol",
        "_is_closing",
        "_late",
        "_outbox",
        "_protocol",
        "batch",
        "busy",
        "fast_size",
        "flush_scheduled",
        "raw_transport",
        "socket_errno",
        "socket_fd",
        "state",
    )

    _encode_many: Callable[[list[Any]], bytes]
    _get_protocol: Callable[[], object] | None  # None if it cannot be asked
    _is_closing: Callable[[], object]  # returns False if it cannot be asked
    _late: list[bytes]  # encoded frames that were sent while `busy` was set
    _outbox: Any
    _protocol: Any
    batch: Any
    """Small messages of this iteration of the loop."""
    busy: bool
    """The outbox or the transport is in use: no other call may touch them."""
    fast_size: int
    """The `fast_size` of the batch while a flush is certain."""
    flush_scheduled: bool
    """A flush is certain: small messages may wait in the batch."""
    raw_transport: Any
    """The loop's transport; None before there is one."""
    socket_errno: int
    """Why the kernel refused what was sent past the transport; 0 if it did not."""
    socket_fd: int
    """The socket of the transport, if small messages are sent past it; -1 if not."""
    state: TransportState
    """What this side still does with the transport."""

    if TYPE_CHECKING:

        @property
        def closed_here(self) -> bool: ...
        def fail(self, error: BaseException) -> None: ...
        def flush_outbox(self) -> None: ...
        def _finish_work(self) -> None: ...
        def _handed_over(self) -> RuntimeError: ...
        def _move_batch(self) -> None: ...

    def flush(self) -> None:
        """Write what this iteration of the loop has gathered."""
        self.flush_scheduled = False
        self.batch.fast_size = 0
        self.write_batch()

    def write_batch(self) -> None:
        """Write the batch, or append it to the outbox and write that, as far as possible."""
        if self.busy:  # the call that is in progress writes everything
            return
        batch, outbox = self.batch, self._outbox
        if batch.messages:
            if batch.paused or outbox.size:
                self._move_batch()
            else:
                if self._get_protocol is not None and self._get_protocol() is not self._protocol:
                    batch.clear()  # it was for another transport
                    raise self._handed_over()
                self.busy, batch.fast_size = True, 0
                try:
                    data = self._encode_many(batch.messages)
                    batch.clear()
                    rest = data if self.socket_fd < 0 else self._send_at_once(data)
                    if rest is not None:
                        self._give_transport(rest)
                    if self._late or self.flush_scheduled:
                        self._finish_work()
                    self.busy = False
                except BaseException as error:
                    self.fail(error)
                    raise
                if self.state is _OPEN and not outbox.size:
                    return
        self.flush_outbox()

    def _send_at_once(self, data: bytes) -> bytes | memoryview | None:
        """Give the kernel bytes past the transport. Return those that are left, or None."""
        raw = self.raw_transport
        if self._is_closing() is True or raw.get_write_buffer_size():
            return data
        if getattr(raw, "_empty_waiter", None) is not None:
            return data  # loop.sendfile() is in progress: the transport refuses
        try:
            sent = os.write(self.socket_fd, data)
        except BlockingIOError:
            return data
        except OSError as error:
            self.socket_errno = error.errno or 0
            self.batch.paused = True
            raw.abort()
            return None
        return memoryview(data)[sent:] if sent < len(data) else None

    def _give_transport(self, data: bytes | memoryview) -> None:
        self.raw_transport.write(data if len(data) < _JOIN_SIZE else memoryview(data))
        if self._is_closing() is True and not self.closed_here:
            self.batch.paused = True  # as in _feed_transport()

    def _begin_gathering(self) -> bool:
        """Let small messages wait in the batch until `_end_gathering`. Return its argument."""
        if self.busy:  # the transport delivers inside its write: the call that writes takes them
            return True
        flush_scheduled = self.flush_scheduled
        if self.state is _OPEN:
            self.flush_scheduled = True
            self.batch.fast_size = self.fast_size
        return flush_scheduled

    def _end_gathering(self, flush_scheduled: bool) -> None:
        if not flush_scheduled:
            if self.state >= _CLOSED:
                self.batch.fast_size = 0
            else:
                self.flush()


class ReceivePath:
    """The part of a protocol that each read and each message pass.

    A `FrameProtocol` delivers the messages of a read to its user. The protocol of a `FrameStream`
    puts them into a queue and runs the task that waits for them.
    """

    __slots__: tuple[str, ...] = (
        "_delivering",
        "_flush_was_scheduled",
        "_has_run",
        "_head_gaps",
        "_head_headers",
        "_head_size",
        "_held",
        "_inbox",
        "_is_put_off",
        "_message_iterator",
        "_objects",
        "_one_at_a_time",
        "_peer_timer",
        "_queues",
        "_read_size",
        "_reading_paused",
        "_ready_tasks",
        "_receiving",
        "_receiving_failed",
        "_recv_waiter",
        "_runs",
        "_sending",
        "_switched",
        "_taken",
        "batches",
    )

    _delivering: bool  # messages_received() is being called
    _inbox: Any
    _objects: Any  # the functions of a codec with objects; None for messages that are bytes
    _one_at_a_time: bool
    _peer_timer: Any
    _queues: bool  # messages go into a queue
    _read_size: int
    _receiving: bool  # bytes were read, and their messages are not delivered yet
    _receiving_failed: bool  # the bytes that are still read are ignored
    _sending: Any
    # After a switch(): the messages to deliver, and the bytes that were unread then.
    _switched: tuple[list[Any], bytes] | None

    # The queue of a stream.
    _head_gaps: list[tuple[int, int]] | None
    _head_headers: list[bytes] | None  # those of `_message_iterator.head`, the oldest first
    _head_size: int  # what `_message_iterator.head` counts in `_held`
    _held: int  # bytes held for recv, as _HIGH_WATER counts them
    _reading_paused: bool  # by the stream
    _taken: int  # stream position up to which messages were counted
    _recv_waiter: Waiter | None  # of a recv that waits

    # The task that waits to receive, while it runs in the iteration of the loop that has read.
    _flush_was_scheduled: bool  # what `_begin_gathering` has returned
    _has_run: bool
    _is_put_off: bool  # until all connections were read
    _ready_tasks: ReadyTasks | None  # those of the loop
    _runs: bool
    batches: Any
    """The messages of each read, what they count in `_held`, their headers if the splitter keeps
    those, and the bytes between their frames if messages are objects."""
    _message_iterator: Any
    """The stream's iterator."""

    if TYPE_CHECKING:
        messages_received: Callable[[list[Any]], None]
        _current_task: Callable[[], object]
        _running_loop: Callable[[], Any]

        def _deliver_objects(self, messages: list[Any]) -> None: ...
        def _end_of_frames(self) -> int: ...
        def _end_receiving(self, error: BaseException) -> None: ...
        def _fail_receiving(self, error: BaseException) -> None: ...
        def _read(self, parse: Callable[[Any], list[Any]], data: Any) -> None: ...
        def _read_switched(self) -> None: ...
        def _resume_when_low(self) -> None: ...
        def _wake(self) -> None: ...

    def __new__(cls, *arguments: object, **options: object) -> Self:
        self = super().__new__(cls)
        self._recv_waiter = self._switched = self._ready_tasks = None
        self._queues = self._reading_paused = False
        self._flush_was_scheduled = self._has_run = self._is_put_off = self._runs = False
        return self

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return memory for the transport to read into.

        Args:
            sizehint: Ignored: asyncio gives -1, uvloop 64 KiB, TLS the size of encrypted bytes.
        """
        splitter = self._inbox.splitter
        if splitter.error is not None:
            return memoryview(bytearray(FIRST_READ_SIZE))  # the transport reads until it closes
        memory: memoryview = splitter.get_room(self._read_size)
        return memory

    def buffer_updated(self, nbytes: int) -> None:
        """Parse bytes that the transport has read, and deliver the messages that they complete.

        Args:
            nbytes: Bytes that were read into the memory that `get_buffer` returned.
        """
        is_full = nbytes >= self._read_size
        if is_full:
            self._read_size = READ_SIZE
        elif nbytes < SMALL_READ and self._peer_timer is not None:
            self._peer_timer.emptied = not self._sending.is_encrypted
        if self._receiving_failed:
            return
        if self._receiving:
            raise _error_texts.reentered()
        if self._one_at_a_time:
            self._read(self._inbox.splitter.buffer_updated, nbytes)
            return
        splitter = self._inbox.splitter
        self._receiving = True
        try:
            messages = splitter.buffer_updated(nbytes)
            if messages:
                self._deliver(messages)
        except BaseException as error:
            if not self._receiving:  # raised by messages_received()
                raise
            self._receiving = False
            messages = []
            self._fail_receiving(error)
            return
        self._receiving = False
        if self._switched is not None:
            self._read_switched()
        elif splitter.error is not None:
            if self._sending.state < _CLOSED:  # not by set_protocol()
                self._fail_receiving(splitter.error)
        elif self._peer_timer is not None:
            self._peer_timer.note_arrival()
        if self._recv_waiter is not None and self.batches:
            if is_full:  # uvloop reads on before other tasks run: what is held must stop it
                self._wake()
            elif self._ready_tasks is None or not self._ready_tasks.put_off(self):
                self._begin_receiver()
                self._end_receiver()

    def _deliver(self, messages: list[Any]) -> None:
        if self._queues:
            self._enqueue(messages)
            return
        sending = self._sending
        flush_scheduled = sending._begin_gathering()
        self._delivering = True
        try:
            if self._objects is not None:
                self._deliver_objects(messages)
            else:
                self._receiving = False  # no call from here to the user's own function
                self.messages_received(messages)
        finally:
            self._delivering = False
            sending._end_gathering(flush_scheduled)

    def _enqueue(self, messages: list[Any]) -> None:
        messages.reverse()
        splitter = self._inbox.splitter
        taken = splitter.stream_offset if self._objects is None else self._end_of_frames()
        size = taken - self._taken + MESSAGE_COST * len(messages)
        gaps = None if self._objects is None else splitter._gaps
        self.batches.append((messages, size, splitter.headers, gaps))
        self._taken = taken
        self._held += size
        if self._held > _HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self._sending.raw_transport.pause_reading()
        if not self._receiving:
            self._wake()

    def _begin_receiver(self) -> None:
        """Run the task that waits to receive. `_end_receiver` writes what it sends."""
        waiter = self._recv_waiter
        if self._runs or waiter is None or waiter.done() or not self.batches:
            return
        self._flush_was_scheduled = self._sending._begin_gathering()
        self._has_run, self._runs = False, True
        try:
            self._has_run = waiter.run()
        except BaseException:
            try:
                waiter.set_result(None)  # no other message may come that would wake the task
            finally:
                self._end_receiver()
            raise

    def _end_receiver(self) -> None:
        sending = self._sending
        if not self._runs:
            return
        self._runs = False
        if self._has_run or self._flush_was_scheduled or sending.state >= _CLOSED:
            sending._end_gathering(self._flush_was_scheduled)
        else:
            sending.flush_scheduled = False
            sending.batch.fast_size = 0
            if sending.state < _CLOSING:
                sending.flush_soon()  # runs after the task's next step

    # --- for a recv -------------------------------------------------------------------------------

    def begin_waiting(self) -> Waiter:
        """Return what a recv waits for; no message is ready, and receiving has not failed."""
        self._sending.check_thread()
        if self._reading_paused:  # an error in release_head() may have left it so
            self._resume_when_low()
        waiter = Waiter(self._running_loop(), self._current_task)
        if self._peer_timer is not None:
            self._peer_timer.start_waiting()
        self._recv_waiter = waiter
        return waiter

    def stop_waiting(self) -> None:
        """End the wait of a recv, also one that was cancelled or that did not start."""
        if self._sending.batch.thread not in (0, get_ident()):
            return  # it was refused: the wait is another one's
        self._recv_waiter = None
        if self._peer_timer is not None:
            self._peer_timer.stop_waiting(bool(self.batches))

    # No call separates the lines that belong together, and none of them allocates: a signal handler
    # that raises, or a garbage collection that receives, finds each batch in one place.

    def take_batch(self) -> None:
        """Move the next batch to `_message_iterator.head`, if that is empty."""
        self._sending.check_thread()
        batches = self.batches
        if batches and not self._message_iterator.head:
            messages = self._message_iterator
            messages.head, self._head_size, self._head_headers, self._head_gaps = batches[0]
            del batches[0]

    def release_head(self) -> None:
        """Count the last message of `_message_iterator.head` as taken."""
        self._sending.check_thread()
        self._held -= self._head_size
        self._head_size = 0
        if self._reading_paused:
            self._resume_when_low()


@final
class ReadyTasks:
    """The tasks for which messages were read in one iteration of an event loop.

    The connections of a loop share it. A task whose connection alone is ready runs inside the read.
    Where several are ready, all of them are read, then the tasks run, then what they have sent is
    written: the code of each step remains in the processor's caches, which takes a sixth less time.
    """

    __slots__ = ("_count_alone", "_paths", "_together")

    _count_alone: int  # tasks that ran inside the read since one was put off
    _paths: list[ReceivePath]  # the connections whose tasks wait
    _together: bool  # several were ready in the last iteration of the loop

    def __new__(cls) -> Self:
        self = super().__new__(cls)
        self._count_alone, self._paths, self._together = 0, [], False
        return self

    def put_off(self, path: ReceivePath) -> bool:
        """Let a task wait until all connections were read. Return whether it does."""
        waiter = path._recv_waiter
        if waiter is None:
            return False
        if not self._together:
            self._count_alone += 1
            if self._count_alone < _TRY_AGAIN:
                return False
        if not self._paths or path._is_put_off:  # again: an interruption has ended run()
            waiter.get_loop().call_soon(self.run)
        self._paths.append(path)
        path._is_put_off = True
        return True

    def run(self) -> None:
        """Run the tasks, then write what they have sent."""
        paths = self._paths
        self._together = len(paths) > 1
        self._count_alone = 0
        self._paths = []
        failure: BaseException | None = None
        for start in range(0, len(paths), _MOST_TASKS):
            failure = _run_some(paths[start : start + _MOST_TASKS], failure)
        if failure is not None:
            raise failure

    def __reduce__(self) -> NoReturn:
        raise _error_texts.not_copied(self)


def _run_some(paths: list[ReceivePath], failure: BaseException | None) -> BaseException | None:
    """Run some of the tasks, all of them even if one fails; return the failure."""
    for path in paths:
        path._is_put_off = False
        try:
            path._begin_receiver()
        except BaseException as error:
            failure = error
    for path in paths:
        try:
            path._end_receiver()
        except BaseException as error:
            failure = error
    return failure
