"""What was accepted for sending and has not left yet; sans-I/O, one for every way to wait.

What an outbox must do
    Take messages, give buffers for one system call, drop what that call took, keep the rest. It
    knows no socket: `FrameSocket` hands the buffers to ``sendmsg``, the asyncio classes to
    ``writelines``.

How
    Small frames wait in a list and are joined when buffers are wanted: copying 64 bytes is cheaper
    than telling the kernel where they lie. A message from `GATHER_SIZE` up is never copied: it is a
    buffer of its own, and its header joins the small frames in front of it::

        put:      [small] [small] [header of a large one] [large] [trailer] [small] ...
        buffers:  [------------ one `bytes` ------------] [large] [--- one `bytes` ---] ...

    A large message of a mutable type is only borrowed from the caller: right while a blocking call
    lasts. Whoever keeps it for longer calls `own` first.

An outbox is not thread-safe; its owner holds a lock or lives in an event loop. But it may be
interrupted by a signal handler that raises. CPython runs those after calls and at loops, so the
lines that must happen together contain no call, and a system call's result is kept by the same
C-level step that makes it: ``outbox.left += map(sock.sendmsg, (buffers,))``, then `settle`.
Nor do those lines allocate, but for the first of them: memory may run out anywhere, and then either
all of them were done or none.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .codec import Codec

__all__ = ["GATHER_SIZE", "Outbox"]

# From this size up, in bytes, naming a message's place to the kernel is cheaper than copying it.
GATHER_SIZE = 4096


def _most_buffers() -> int:
    try:
        most = os.sysconf("SC_IOV_MAX")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, others not this name
        most = -1
    return most if most > 0 else 16  # 16 is what POSIX promises at least


# As many buffers as one system call takes.
_MOST_BUFFERS = _most_buffers()


@final
class Outbox:
    """The bytes of one connection that were accepted and have not left.

    Args:
        codec: The shape of the frames.
    """

    __slots__ = (
        "_encode",
        "_encode_small",
        "_frame_parts",
        "_parts",
        "borrows",
        "left",
        "size",
        "small",
    )

    def __init__(self, codec: Codec) -> None:
        self._encode = codec.encode
        self._encode_small = codec._encoder.encode_small
        self._frame_parts = codec.frame_parts
        self._parts: deque[Any] = deque()  # buffers that are ready to leave, ...
        self.small: list[Buffer] = []
        """... and behind them small frames that are still to be joined."""
        self.borrows = False
        """Some part is memory that its owner may change."""
        self.size = 0
        """Bytes held."""
        self.left: list[int] = []
        """Bytes that have left, a number a system call, and are still to be dropped by `settle`."""

    def put(self, message: object, /) -> None:
        """Takes one message.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was taken.
        """
        if type(message) is bytes and len(message) < GATHER_SIZE:
            self.put_bytes(self._encode(message))
        else:
            self._put_frames([self._frame_parts(message)])

    def put_many(self, messages: Iterable[object], /) -> None:
        """Takes many messages, all or none.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`, about the first message that is
                invalid; nothing was taken of any.
        """
        batch = messages if type(messages) is list else list(messages)
        frames = self._encode_small(batch, GATHER_SIZE - 1)
        if frames is not None:
            self.put_bytes(frames)
            return
        if batch is messages:
            batch = batch.copy()  # the user's code, which runs below, may change the list
        self._put_frames(
            [
                [self._encode(message)]
                if type(message) is bytes and len(message) < GATHER_SIZE
                else self._frame_parts(message)
                for message in batch
            ]
        )

    def put_bytes(self, data: bytes, /) -> None:
        """Takes bytes that are encoded already: frames, or the header of one that follows."""
        size = self.size + len(data)
        if data:
            self.small += (data,)
            self.size = size

    def _put_frames(self, frames: list[list[Buffer]]) -> None:
        parts: list[bytes | memoryview] = []
        small, size, borrows = self.small.copy(), 0, self.borrows
        for frame in frames:
            for part in frame:
                buffer = part if isinstance(part, bytes) else memoryview(part)
                buffer_size = len(buffer)
                size += buffer_size
                if 0 < buffer_size < GATHER_SIZE:
                    small.append(bytes(buffer))
                elif buffer_size:
                    if small:
                        parts.append(_join(small))
                        small = []
                    parts.append(buffer)
                    borrows = borrows or not _is_immutable(buffer)
        size += self.size
        held = len(self._parts)
        try:
            self._parts += parts
        except MemoryError:
            while len(self._parts) > held:
                self._parts.pop()
            raise
        self.small = small
        self.borrows = borrows
        self.size = size

    def _join_small(self) -> None:
        small = self.small
        if small:
            joined = _join(small)
            small = []
            self._parts += (joined,)
            self.small = small

    def buffers(self) -> list[Any]:
        """What to send next: `bytes` and `memoryview` objects, none of them empty, as many as one
        system call takes. Empty where nothing is held.

        The first buffer begins with the same bytes until `sent` drops them (TLS wants that).
        """
        self.settle()
        self._join_small()
        if len(self._parts) <= _MOST_BUFFERS:
            return list(self._parts)
        return list(islice(self._parts, _MOST_BUFFERS))

    def sent(self, count: int, /) -> None:
        """Drops bytes that have left, from the front.

        Args:
            count: Bytes, at most `size`.
        """
        if not 0 <= count <= self.size:
            raise ValueError(f"sent({count}): {self.size} bytes are held")
        self.left += (count,)
        self.settle()

    def settle(self) -> None:
        """Drops what `left` says has left."""
        left, parts = self.left, self._parts
        if left:
            self._join_small()
        while left:
            count = left[0]
            if not count:
                del left[0]
                continue
            part = parts[0]
            size = len(part)
            if count < size:
                rest = memoryview(part)[count:]
                held = self.size - count
                parts[0] = rest
                self.size = held
                del left[0]
            else:
                held, count = self.size - size, count - size
                del parts[0]
                self.size = held
                left[0] = count
        if not self.size:
            self.borrows = False

    def own(self) -> None:
        """Copies what is borrowed, so that the owner of a mutable message may change it again."""
        if self.borrows:
            # No generator: one that is closed without memory prints that its error is ignored.
            self._parts = deque(
                [part if _is_immutable(part) else bytes(part) for part in self._parts]
            )
            self.borrows = False

    def clear(self) -> None:
        """Drops everything."""
        empty: tuple[deque[Any], list[Buffer], list[int]] = (deque(), [], [])
        self._parts, self.small, self.left = empty
        self.borrows = False
        self.size = 0


def _join(small: list[Any]) -> Any:
    return small[0] if len(small) == 1 else b"".join(small)


def _is_immutable(part: bytes | memoryview) -> bool:
    # A read-only view of a bytearray is not immutable: what counts is whose memory it is.
    return isinstance(part, bytes) or type(part.obj) is bytes
