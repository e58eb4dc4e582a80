"""The calls that receive and send messages of a blocking connection, over a socket or pipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar, overload

from .. import _error_texts, errors
from .._bytes_like import list_of_messages
from .._locks import call_locked
from .._message_types import MessageT, OfMessages, SpecialT
from .._observer import frame_size
from .._states import ReceiveState, SendState, SocketState
from ..codec import Codec, check_codec
from . import _fast_path_py, files, parts, unframed
from .receiving import ReceiveSide
from .sending import SendSide

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BlockingCalls", "ObservedCalls"]

_Result = TypeVar("_Result")


class BlockingCalls(OfMessages[MessageT]):
    """A connection that sends and receives whole messages.

    Subclasses open it and close it.
    """

    __slots__ = ()

    _state: SocketState
    _receiving: ReceiveSide
    _sending: SendSide
    _receiver: _fast_path_py.Receiver
    _sender: _fast_path_py.Sender

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let iteration call the `recv` of a subclass that overrides only that."""
        super().__init_subclass__(**kwargs)
        cls._joined, cls._is_joined = {}, "_is_joined" in cls.__dict__
        for base in cls.__mro__:  # pragma: no branch (this class itself has __iter__)
            if "__iter__" in base.__dict__:
                return
            if "recv" in base.__dict__:
                cls.__iter__ = _iterate_by_recv  # type: ignore[method-assign]
                return

    # --- receiving --------------------------------------------------------------------------------

    def recv(self) -> MessageT:
        """Return the next message.

        Raises:
            EOFError: The peer closed the connection after a whole frame.
            IncompleteFrameError: The stream ended inside a frame.
            FrameError: The stream is broken, or the peer was too slow for the limits that were set.
            TimeoutError, BlockingIOError: No message is whole yet; nothing is lost.
            OSError: The connection is broken, or was closed on this side.
        """
        while True:
            try:
                # The `for` returns the message before a signal handler can run.
                for message in self._receiver:
                    return message  # type: ignore[no-any-return]
            except (OSError, errors.FrameError) as error:
                self._receiving.fail_fast_path(error)
            side = self._receiving
            side.guard.call(side.fill)

    def recv_many(self) -> list[MessageT]:
        """Return all ready messages, or if there are none, those of the next receive.

        Returns:
            At least one message.

        Raises:
            EOFError, FrameError, OSError: As `recv`.
        """
        receiver = self._receiver
        while True:
            try:
                receiver.fetch()
                for messages in receiver.ready.take_all:
                    if messages:
                        return messages
            except (OSError, errors.FrameError) as error:
                self._receiving.fail_fast_path(error)
            except MemoryError:  # the list was begun, and its messages are gone
                receiver.state = ReceiveState.LOST
                raise
            side = self._receiving
            side.guard.call(side.fill)

    def __iter__(self) -> Iterator[MessageT]:
        """Iterate over the messages until the clean end of the stream; errors are those of `recv`.

        An iterator ends with the error that it raises. After one that loses nothing, such as a
        time-out, another iteration of the connection resumes.
        """
        # No Python frame a message: the iterators that _batches() gives are read in C.
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[Iterator[Any]]:
        receiver, side = self._receiver, self._receiving
        while True:
            try:
                try:
                    receiver.fetch()
                except (OSError, errors.FrameError) as error:
                    side.fail_fast_path(error)
                if not receiver.ready:
                    side.guard.call(side.fill)
            except errors.IncompleteFrameError:
                raise
            except EOFError:
                return
            yield receiver.ready.take

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the peer exceeds ``message_timeout`` or ``idle_timeout``.

        None if no limit runs. It is the time-out for a selector, after which `recv` is to be called
        once more. The peer's time runs from then on: the caller is about to wait.
        """
        inbox = self._receiving.inbox
        if not inbox.has_limits or self._state is not SocketState.OPEN:
            return None
        now = monotonic()
        inbox.resume(now)
        return inbox.seconds_left(now)

    # --- sending ----------------------------------------------------------------------------------

    @overload
    def send(self: BlockingCalls[bytes | SpecialT], message: Buffer | SpecialT, /) -> None: ...

    @overload
    def send(self, message: MessageT, /) -> None: ...

    def send(self, message: object, /) -> None:
        """Send one message.

        Args:
            message: A contiguous bytes-like object, or an object of the codec's ``specials``.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was taken.
            TimeoutError, BlockingIOError: Not all of it is sent. The error's attribute
                ``message_started`` is True if the message is held, to be finished by `flush` or
                before the next message; False if nothing of it was taken.
            OSError: The connection is broken, or was closed on this side.
        """
        try:
            taken = self._sender.send(message)
        except (OSError, MemoryError) as error:
            self._fail_to_send(error)
        if not taken:
            self._sending.send_all(self._sending.outbox.put, message)
        elif self._sender.unsent:
            self._sending.finish()

    def _fail_to_send(self, error: OSError | MemoryError) -> NoReturn:
        """Raise what the fast path has raised."""
        try:
            sending = self._sending
            if isinstance(error, MemoryError):
                sending.mark_started(error, self._sender.state is SendState.LOST)
                raise error
            sending.mark_started(error, False)
            if self._state is not SocketState.OPEN:
                raise sending.wire.closed_error() from None
            sending.note_reset(error)
            raise error
        finally:
            del error  # which holds this frame: a cycle

    @overload
    def send_many(
        self: BlockingCalls[bytes | SpecialT], messages: Iterable[Buffer | SpecialT], /
    ) -> None: ...

    @overload
    def send_many(self, messages: Iterable[MessageT], /) -> None: ...

    def send_many(self, messages: Iterable[Any], /) -> None:
        """Send many messages, in as few system calls as possible.

        Args:
            messages: As for `send`; all are checked before anything is sent.

        Raises:
            FrameError, TypeError, BufferError, OSError: As `send`; ``message_started`` says whether
                all of them are held, or none was taken.
        """
        if not isinstance(messages, list | tuple):
            messages = list_of_messages(messages)
        self._sending.send_all(self._sending.outbox.put_many, messages)

    def flush(self) -> None:
        """Send the bytes that an earlier call could not send.

        Raises:
            TimeoutError, BlockingIOError: There are still unsent bytes.
            OSError: The connection is broken, or was closed on this side.
        """
        side, sender = self._sending, self._sender
        if sender.state is not SendState.IDLE or sender.unsent or side.wire.torn:
            side.guard.call(side.drain_in_time)

    # --- unframed bytes ---------------------------------------------------------------------------

    def recv_bytes(self, size: int, /) -> bytes:
        """Receive unframed bytes: those that follow the last received message.

        Frames may follow them. A time-out loses nothing: the next call, also `recv`, starts with
        the same byte. An error of the codec about these bytes is taken back.

        Args:
            size: The number of bytes, exactly.

        Raises:
            EOFError: The peer closed the connection before the first of them.
            IncompleteFrameError: It closed it after some of them; a call that asks for fewer
                returns those.
            RuntimeError: They are part of what is discarded as an oversized frame
                (``on_oversize="skip"``).
            TypeError, ValueError: `size` is not a number of bytes.
            FrameError, OSError: As `recv`.
        """
        return unframed.recv_bytes(self._receiving, size)

    def send_bytes(self, data: Any, /) -> None:
        """Send unframed bytes, after all messages that were sent before.

        Args:
            data: A contiguous bytes-like object.

        Raises:
            TypeError, BufferError, OSError: As `send`.
        """
        self._sending.send_all(self._sending.outbox.put_unframed, data)

    # --- files ------------------------------------------------------------------------------------

    def send_file(self, file: Any, size: int | None = None) -> None:
        """Send one message from an open binary file, from its position on.

        The kernel copies it from the file into a socket if it can (``sendfile``); otherwise it
        goes through memory in small pieces. A regular file's position is after the message then.

        Args:
            file: A file opened for reading in binary mode.
            size: Bytes of the message; None: up to the file's end.

        Raises:
            TypeError: It is not such a file; nothing was sent.
            ValueError: The file has fewer bytes than that; nothing was sent.
            FrameError: As `Codec.encode`; nothing was sent.
            TimeoutError, BlockingIOError, OSError: As `send`. If ``message_started`` is True the
                file may be closed, if it is a regular one: the rest of it is held and is sent by
                `flush` or before the next message. But if the file has become shorter meanwhile,
                or a pipe or a Python object gives less than `size`, the frame cannot be finished:
                this and every later call raises an `OSError`.
        """
        outgoing = files.OutgoingFile.open(file, size, self._sending.codec)
        if isinstance(outgoing, bytes):
            self._send_small_file(outgoing)
        else:
            self._send_file(outgoing)

    def _send_small_file(self, message: bytes) -> None:
        self.send(message)  # type: ignore[arg-type]  # this class, or one without objects

    def _send_file(self, outgoing: files.OutgoingFile) -> None:
        self._sending.send_file(outgoing)

    def recv_file(self, file: Any, /) -> int:
        """Receive one message into a file, without holding it in memory.

        The codec's ``max_message_size`` holds as for `recv`; raise it for large files. The time-out
        is for the message's beginning and for each wait after it, not for the whole file. After a
        time-out, call it again with the same file: it continues.

        Args:
            file: A file opened for writing in binary mode.

        Returns:
            The message's size, in bytes.

        Raises:
            TypeError: It is not such a file; nothing was received.
            EOFError, FrameError, OSError: As `recv`; and what writing to the file raises: then too
                the call can be repeated.
        """
        return files.recv_file(self._receiving, file)

    def recv_into(self, buffer: Any, /) -> int:
        """Receive one message into a buffer, without another copy in memory.

        The time-out is as for `recv_file`. After one, call it again with the same buffer: it
        continues.

        Args:
            buffer: A writable bytes-like object.

        Returns:
            The message's size, in bytes; the buffer's end does not change.

        Raises:
            ValueError: The message is larger than the buffer. It can still be received, by `recv`
                too, unless an earlier call has received its beginning.
            TypeError: The buffer cannot be written; nothing was received.
            EOFError, FrameError, OSError: As `recv`.
        """
        return files.recv_into(self._receiving, buffer)

    def recv_parts(self) -> Iterator[bytes]:
        """Return an iterator over the parts of one message, in constant memory.

        The codec's ``max_message_size`` holds, and the time-out is for each part. An iteration that
        timed out or was left is continued by the next `recv_parts`, `recv_file` or `recv_into`; no
        other call can receive before.

        Returns:
            The parts as they arrive, in order; an empty message has none.

        Raises:
            EOFError, FrameError, OSError: As `recv`, from the iteration.
        """
        return parts.recv_parts(self._receiving)

    # --- another codec ----------------------------------------------------------------------------

    def switch(self, codec: Codec[Any], /) -> None:
        """Use another codec from now on, in both directions.

        Accepted messages leave in the old framing. What was received and not delivered is read
        again with the new codec; an error that it has raised is forgotten. No other thread may be
        receiving: this call waits for it, at most until the time-out.

        Args:
            codec: The shape of the frames.

        Raises:
            TypeError: `codec` is not a `Codec`.
            RuntimeError: A message is half received into a file or a buffer, or bytes after the
                last delivered message were discarded as an oversized frame.
        """
        check_codec(codec)
        self._call_guarded(self._switch, codec)

    def _switch(self, codec: Codec[Any]) -> None:
        self._check_open()
        if self._sender.state is SendState.BUSY:
            raise _error_texts.in_use("send()")
        self._receiving.switch(codec)
        self._sending.switch(codec)
        self._use_class_for(codec)

    if TYPE_CHECKING:

        def _check_open(self) -> None: ...

    # What a connection becomes, by whether its codec has objects and whether it has an observer.
    _CLASSES: ClassVar[dict[tuple[bool, bool], type[Any]]]
    # Of a subclass of the user's: the classes that join it with one of those.
    _joined: ClassVar[dict[type[Any], type[Any]]]
    _is_joined: ClassVar[bool]

    def _use_class_for(self, codec: Codec[Any]) -> None:
        """Become a connection with this codec and this one's observer.

        A subclass of the user's stays the first class of the connection.
        """
        classes = self._CLASSES
        plain = classes[False, False]
        new = classes[codec._objects is not None, self._receiving.observer is not None]
        bases: tuple[type[Any], ...] = type(self).__mro__
        own: Any = next(c for c in bases if c in classes.values() or not c._is_joined)
        if own not in classes.values():  # a class of the user's
            if new is plain:
                new = own
            else:
                if new not in own._joined:
                    members = {"__slots__": (), "__module__": own.__module__, "_is_joined": True}
                    own._joined[new] = type(own.__name__, (own, new), members)
                new = own._joined[new]
        self.__class__ = new

    # --- what can be asked ------------------------------------------------------------------------

    @property
    def codec(self) -> Codec[MessageT]:
        """The shape of the frames."""
        return self._receiving.inbox.codec

    @property
    def read_ahead(self) -> bool:
        """Whether a receive may bring more than the requested frame."""
        return self._receiving.read_ahead

    @read_ahead.setter
    def read_ahead(self, value: bool) -> None:
        call_locked(self._receiving.lock, self._use_read_ahead, bool(value))

    def _use_read_ahead(self, value: bool) -> None:
        self._receiving.read_ahead = value
        self._receiving.use_splitter()

    @property
    def pending_messages(self) -> int:
        """Messages that `recv` gives without receiving."""
        side = self._receiving
        if side.inbox.unframed is not None:
            unframed.parse_rest(side)
        return len(self._receiver.ready) + len(side.intake.arrived)

    @property
    def pending_send(self) -> int:
        """Unsent bytes of accepted messages."""
        return self._sending.unsent

    def _call_guarded(self, function: Callable[..., _Result], /, *arguments: Any) -> _Result:
        """Call a function under the locks of both directions, while neither sends or receives."""
        result: _Result = self._receiving.guard.call(self._sending.guard.call, function, *arguments)
        return result

    def _use_guards(self, timeout: float | None) -> None:
        """Let calls wait for their direction's lock as long as a time-out allows."""
        receiving, sending = self._receiving, self._sending
        guard, limit = receiving.fast_path.Guard, -1.0 if timeout is None else timeout
        receiving.guard = guard(receiving.lock, limit)
        sending.guard = guard(sending.lock, limit)

    def _end(self, state: SocketState) -> None:
        """Let every call raise from now on, also those that wait in another thread."""
        self._receiving.wire.closed = True
        self._state = state  # type: ignore[misc]  # a slot of the subclasses
        self._receiver.state = ReceiveState.CLOSED
        self._sender.state = SendState.CLOSED


def _iterate_by_recv(conn: BlockingCalls[MessageT]) -> Iterator[MessageT]:
    """Iterate over what `recv` returns, until the clean end of the stream."""
    while True:
        try:
            message = conn.recv()
        except errors.IncompleteFrameError:
            raise
        except EOFError:
            return
        yield message
        del message  # an iterator that waits does not keep it


class ObservedCalls(BlockingCalls[Any]):
    """The methods of a connection that has an observer; a base before the connection's class."""

    __slots__ = ()

    def _notify(self, event: str, *arguments: object) -> None:
        observer = self._receiving.observer
        method = observer and getattr(observer, event)
        if method:
            method(self, *arguments)

    def _send_observed(self, send: Callable[[Any], None], argument: Any, sizes: list[int]) -> None:
        """Send, and tell the observer of the frames that were accepted."""
        accepted = False
        try:
            send(argument)
            accepted = True
        except OSError as error:
            accepted = bool(getattr(error, "message_started", False))
            if not isinstance(error, TimeoutError | BlockingIOError):
                self._sending.error = error
            raise
        finally:
            if accepted:
                for size in sizes:
                    self._notify("frame_sent", size)

    def send(self, message: object, /) -> None:
        """Send one message, as `BlockingCalls.send`."""
        size = frame_size(self._sending.codec, message)
        self._send_observed(super().send, message, [size])

    def send_many(self, messages: Iterable[object], /) -> None:
        """Send many messages, as `BlockingCalls.send_many`."""
        messages = list_of_messages(messages)
        sizes = [frame_size(self._sending.codec, message) for message in messages]
        self._send_observed(super().send_many, messages, sizes)

    def _send_file(self, outgoing: files.OutgoingFile) -> None:
        size = len(outgoing.header) + outgoing.unsent + outgoing.trailer_size
        self._send_observed(super()._send_file, outgoing, [size])

    def _end(self, state: SocketState) -> None:
        ends, error = self._state is SocketState.OPEN, self._failure()
        super()._end(state)
        if ends:
            self._notify("connection_closed", error)

    def _failure(self) -> BaseException | None:
        """Return why the connection has ended; None if one side closed it after a whole frame."""
        sending = self._sending
        for failure in (self._receiving.inbox.failure, sending.failure, sending.error):
            is_clean = isinstance(failure, EOFError) and not isinstance(failure, errors.FrameError)
            if failure is not None and not is_clean:
                return failure
        return None
