"""Whole messages over AnyIO's byte streams, on asyncio and on Trio.

It needs the extra ``framecodec[anyio]``. A `FrameStream` takes any byte stream of AnyIO: TCP, Unix,
TLS, processes, files. It works with both of AnyIO's event loops.

    import anyio
    from framecodec import Codec
    from framecodec.anyio import FrameStream

    async with FrameStream(await anyio.connect_tcp("localhost", 6000), Codec.uint(4)) as stream:
        await stream.send(b"hello")
        print(await stream.receive())
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, overload

from ._message_types import MessageT, SpecialT
from ._options import OnOversize
from .codec import DEFAULT_CODEC, Codec, check_codec

try:
    import anyio
    from anyio import abc, lowlevel
except ImportError as error:
    raise ImportError('framecodec.anyio needs anyio: pip install "framecodec[anyio]"') from error

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FrameStream"]

_READ_SIZE = 64 * 1024


def _stop_reading_ahead(stream: Any) -> None:
    """Let a connection of asyncio be read only while a task waits for its bytes.

    AnyIO 4 reads a connection that a listener has accepted into a queue, without limit, until that
    queue is empty for the first time. A peer that sends faster than its messages are
    handled would fill the memory. AnyIO resumes the transport when a task has to wait.
    """
    while hasattr(stream, "transport_stream"):  # TLS
        stream = stream.transport_stream
    pause = getattr(getattr(stream, "_transport", None), "pause_reading", None)
    if pause is not None:
        with contextlib.suppress(RuntimeError):  # it is closing
            pause()


class FrameStream(abc.ObjectStream[MessageT]):
    """A stream of whole messages over a byte stream; an `anyio.abc.ObjectStream`.

    A cancelled `receive` loses nothing: the next one continues. A cancelled `send` leaves whole
    frames: if a part of its message may have left, the rest of it leaves before the next message.

    One task may receive and any number may send; their frames go out whole, in the order of the
    calls.

    Args:
        stream: A byte stream of AnyIO. One that only receives, or only sends, will do for that
            direction. It is closed with this stream.
        codec: The shape of the frames.
        on_oversize: As for `Splitter`.

    Raises:
        TypeError, ValueError: An argument is invalid.
    """

    def __init__(
        self,
        stream: Any,
        codec: Codec[MessageT] = DEFAULT_CODEC,  # type: ignore[assignment]
        *,
        on_oversize: OnOversize = "raise",
    ) -> None:
        check_codec(codec)
        if not (hasattr(stream, "receive") or hasattr(stream, "send")):
            raise TypeError(f"stream must be a byte stream of AnyIO, not {type(stream).__name__!r}")
        _stop_reading_ahead(stream)
        self._stream = stream
        self._codec = codec
        self._splitter = codec.splitter(on_oversize=on_oversize)
        self._ready: deque[Any] = deque()
        self._has_more = False  # the splitter has an error, or messages after a refused one
        self._ended = False
        self._receiving = anyio.ResourceGuard("receiving from")
        self._sending = anyio.Lock()  # first in, first out
        self._write: _Write | None = None  # that is not finished: its send was cancelled
        self._send_failure: BaseException | None = None
        self._closed = False

    @property
    def codec(self) -> Codec[MessageT]:
        """The shape of the frames."""
        return self._codec

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of the byte stream."""
        attributes: Mapping[Any, Callable[[], Any]] = self._stream.extra_attributes
        return attributes

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<FrameStream {state} stream={self._stream!r} codec={self._codec}>"

    # --- receiving --------------------------------------------------------------------------------

    async def receive(self) -> MessageT:
        """Return the next message.

        Raises:
            anyio.EndOfStream: The peer closed the stream after a whole frame.
            IncompleteFrameError: It closed the stream inside a frame.
            InvalidMessageError: The codec refuses the message; the next call continues.
            FrameError: A frame is invalid; raised after the messages before it, by every later
                call.
            anyio.ClosedResourceError: The stream was closed on this side.
            anyio.BrokenResourceError: The connection is broken.
            anyio.BusyResourceError: Another task receives.
        """
        with self._receiving:
            await lowlevel.checkpoint_if_cancelled()
            while not self._ready:
                await self._fill()
            message: MessageT = self._ready.popleft()
            return message

    async def receive_many(self) -> list[MessageT]:
        """Return all messages that are ready; wait for the first one.

        Returns:
            At least one message, in order.

        Raises:
            Exception: As `receive`.
        """
        with self._receiving:
            await lowlevel.checkpoint_if_cancelled()
            while not self._ready:
                await self._fill()
            messages = [*self._ready]
            self._ready.clear()
            return messages

    async def _fill(self) -> None:
        """Receive once. No message is ready."""
        if self._closed:
            raise anyio.ClosedResourceError
        if self._has_more:
            self._take(self._splitter.feed, b"")
            return
        if self._ended:
            raise anyio.EndOfStream
        try:
            data = await self._stream.receive(_READ_SIZE)
        except anyio.EndOfStream:
            self._ended = True
            self._take(self._end, None)
        else:
            self._take(self._splitter.feed, data)

    def _end(self, _: object) -> list[Any]:
        self._splitter.feed_eof()
        return []

    def _take(self, take: Callable[[Any], list[Any]], argument: Any) -> None:
        self._has_more = True  # also if the call raises
        self._ready.extend(take(argument))
        error = self._splitter.error
        self._has_more = error is not None

    # --- sending ----------------------------------------------------------------------------------

    @overload
    async def send(self: FrameStream[bytes | SpecialT], item: Buffer | SpecialT) -> None: ...

    @overload
    async def send(self, item: MessageT) -> None: ...

    async def send(self, item: Any) -> None:
        """Send one message, after all that were sent before.

        A call that is cancelled before its turn sends nothing.

        Args:
            item: A contiguous bytes-like object, an object of the codec's ``specials``, or what a
                codec with objects takes.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing is sent.
            anyio.ClosedResourceError: The stream was closed on this side.
            anyio.BrokenResourceError: The connection is broken.
        """
        await self._send(self._codec.encode(item))

    @overload
    async def send_many(
        self: FrameStream[bytes | SpecialT], items: Iterable[Buffer | SpecialT]
    ) -> None: ...

    @overload
    async def send_many(self, items: Iterable[MessageT]) -> None: ...

    async def send_many(self, items: Iterable[Any]) -> None:
        """Send many messages, all or none.

        Args:
            items: As for `send`, in order.

        Raises:
            Exception: As `send`.
        """
        await self._send(self._codec.encode_many(items))

    async def _send(self, frames: bytes) -> None:
        async with self._sending:
            if self._write is not None:  # what a cancelled call has left goes out first
                await self._write.done.wait()
            if self._closed:
                raise anyio.ClosedResourceError
            self._raise_send_failure()
            if frames:
                await self._start(frames).done.wait()
            self._raise_send_failure()

    def _raise_send_failure(self) -> None:
        if self._send_failure is not None:
            raise self._send_failure.with_traceback(None)

    def _start(self, frames: bytes) -> _Write:
        """Write in a separate task, which is not cancelled with the caller."""
        self._write = write = _Write()
        _start_task(self._write_all, frames, write)
        return write

    async def _write_all(self, frames: bytes, write: _Write) -> None:
        try:
            with write.scope:
                await self._stream.send(frames)
            if write.scope.cancelled_caught:  # by aclose()
                self._send_failure = anyio.ClosedResourceError()
        except Exception as error:
            self._send_failure = error.with_traceback(None)
        except BaseException:  # the event loop ends
            self._send_failure = anyio.BrokenResourceError()
            raise
        finally:
            self._write = None
            write.done.set()

    async def send_eof(self) -> None:
        """Tell the peer that no more will be sent, after all messages. Receiving continues.

        Raises:
            NotImplementedError: The stream cannot end one direction alone, as over TLS.
        """
        async with self._sending:
            if self._write is not None:
                await self._write.done.wait()
            if self._closed:
                raise anyio.ClosedResourceError
            if not hasattr(self._stream, "send_eof"):
                raise NotImplementedError("this stream cannot end one direction alone; close it")
            await self._stream.send_eof()

    # --- the end ----------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the stream. What a cancelled `send` has left is dropped."""
        self._closed = True
        if self._write is not None:
            self._write.scope.cancel()
        await self._stream.aclose()


class _Write:
    """Frames that are being written."""

    __slots__ = ("done", "scope")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()


_tasks: set[Any] = set()  # asyncio keeps only weak references


def _start_task(function: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    """Start a task that belongs to no task group."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        trio.lowlevel.spawn_system_task(function, *arguments)
    else:
        task = asyncio.get_running_loop().create_task(function(*arguments))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
