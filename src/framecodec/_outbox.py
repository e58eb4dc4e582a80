"""The send side of a connection: messages that were accepted and are unsent, without I/O.

What an outbox must do
    Take messages, give buffers for one system call, drop what that call sent, keep the rest. It has
    no socket: `FrameSocket` gives the buffers to ``sendmsg``, the asyncio classes to
    ``writelines``.

How
    Small frames are in a list and are joined when buffers are needed: copying 64 bytes is cheaper
    than one more buffer in a system call. A message from `GATHER_SIZE` up is never copied: it is
    one buffer, and its header joins the small frames before it::

        put:      [small] [small] [header of a large one] [large] [trailer] [small] ...
        buffers:  [------------ one `bytes` ------------] [large] [--- one `bytes` ---] ...

    A large message of a mutable type is only borrowed from the caller, which is right while a
    blocking call lasts. An owner that keeps it for longer calls `own` first.

An outbox is not thread-safe: its owner holds a lock or lives in an event loop. But a signal handler
that raises may interrupt it. CPython runs handlers after calls and at loops, so lines that must
happen together contain no call, and the same C-level step makes a system call and stores its
result: ``outbox.sent_counts.extend(map(sock.sendmsg, (buffers,)))``, then `drop_sent`. Of such
lines only the first allocates: if memory runs out, all of them were done or none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, final

from ._bytes_like import view_bytes
from ._layout import plain_codec

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .codec import Codec

__all__ = ["GATHER_SIZE", "Outbox"]

# From this size up, in bytes, one more buffer in a system call is cheaper than a copy.
GATHER_SIZE = 4096


def _buffer_limit() -> int:
    try:
        limit = os.sysconf("SC_IOV_MAX")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, others not this name
        limit = -1
    return limit if limit > 0 else 16  # POSIX promises at least 16


# One system call takes at most this many buffers.
_BUFFER_LIMIT = _buffer_limit()


@final
class Outbox:
    """The unsent bytes of one connection.

    Args:
        codec: The shape of the frames.
    """

    __slots__ = (
        "_encode",
        "_encode_small",
        "_frame_parts",
        "_parts",
        "borrows",
        "sent_counts",
        "size",
        "small",
    )

    def __init__(self, codec: Codec[Any]) -> None:
        self.use(codec)
        self._parts: list[Any] = []  # buffers that are ready to be sent, ...
        self.small: list[Buffer] = []
        """... and after them small frames that are not joined yet."""
        self.borrows = False
        """Whether some part is memory that its owner may change."""
        self.size = 0
        """Bytes held."""
        self.sent_counts: list[int] = []
        """Bytes that were sent, a number for each system call, and that `drop_sent` will drop."""

    def use(self, codec: Codec[Any]) -> None:
        """Encode messages with another codec from now on."""
        codec = plain_codec(codec)
        self._encode = codec.encode
        self._encode_small = codec._encoder.encode_small
        self._frame_parts = codec.frame_parts

    def put(self, message: object, /) -> None:
        """Take one message.

        Raises:
            FrameError, TypeError, BufferError: As `Codec.encode`; nothing was taken.
        """
        if type(message) is bytes and len(message) < GATHER_SIZE:
            self.put_bytes(self._encode(message))
        else:
            self._put_frames([self._frame_parts(message)])

    def put_many(self, messages: Iterable[object], /) -> None:
        """Take many messages, all or none.

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
        """Take encoded bytes: frames, or the header of a frame whose rest follows."""
        size = self.size + len(data)
        if data:
            self.small += (data,)
            self.size = size

    def put_unframed(self, data: object, /) -> None:
        """Take unframed bytes.

        Raises:
            TypeError, BufferError: They are not a contiguous bytes-like object.
        """
        if type(data) is bytes and len(data) < GATHER_SIZE:
            self.put_bytes(data)
        else:
            self._put_frames([[data if type(data) is bytes else view_bytes(data)]])

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
        """Return what to send next, at most as many buffers as one system call takes.

        The buffers are `bytes` and `memoryview` objects and not empty. There are none if nothing is
        held. The first one begins with the same bytes until `sent` drops them (TLS needs that).
        """
        self.drop_sent()
        self._join_small()
        return self._parts[:_BUFFER_LIMIT]

    def sent(self, count: int, /) -> None:
        """Drop bytes that were sent, from the front.

        Args:
            count: Bytes, at most `size`.
        """
        if not 0 <= count <= self.size:
            raise ValueError(f"sent({count}): {self.size} bytes are held")
        self.sent_counts += (count,)
        self.drop_sent()

    def drop_sent(self) -> None:
        """Drop the bytes that `sent_counts` counts."""
        counts, parts = self.sent_counts, self._parts
        if counts:
            self._join_small()
        while counts:
            count = counts[0]
            if not count:
                del counts[0]
                continue
            whole, size = _whole_parts(parts, count)
            if whole:
                held, count = self.size - size, count - size
                del parts[:whole]
                self.size = held
                counts[0] = count
            else:
                rest = memoryview(parts[0])[count:]
                held = self.size - count
                parts[0] = rest
                self.size = held
                del counts[0]
        if not self.size:
            self.borrows = False

    def own(self) -> None:
        """Copy what is borrowed, so that the owner of a mutable message may change it again."""
        if self.borrows:
            self._parts = [part if _is_immutable(part) else bytes(part) for part in self._parts]
            self.borrows = False

    def clear(self) -> None:
        """Drop everything."""
        empty: tuple[list[Any], list[Buffer], list[int]] = ([], [], [])
        self._parts, self.small, self.sent_counts = empty
        self.borrows = False
        self.size = 0


def _whole_parts(parts: list[Any], count: int) -> tuple[int, int]:
    """Return how many of the first parts lie in the first `count` bytes, and their size in bytes.

    They are dropped together: to drop one part moves all that follow it.
    """
    whole = size = 0
    for part in parts:
        part_size = len(part)
        if size + part_size > count:
            break
        whole += 1
        size += part_size
    return whole, size


def _join(small: list[Any]) -> Any:
    return small[0] if len(small) == 1 else b"".join(small)


def _is_immutable(part: bytes | memoryview) -> bool:
    # A read-only view of a bytearray is not immutable: its owner can change it.
    return isinstance(part, bytes) or type(part.obj) is bytes
