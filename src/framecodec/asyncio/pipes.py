"""Streams over pipes: `open_pipes`, `open_stdio`, `open_process`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any

from .._message_types import MessageT
from .._options import OnInvalid, OnOversize, check_options
from ..codec import DEFAULT_CODEC, Codec
from ..sockets.pipe_ends import check_file, take_buffered
from .opening import Opening
from .pipe_transport import PipeTransport, ReadHalf, WriteHalf
from .pipe_writers import DescriptorWriter, FileWriter
from .stream import FrameStream
from .stream_protocol import StreamProtocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["open_pipes", "open_process", "open_stdio"]


def open_pipes(
    reader: Any,
    writer: Any = None,
    *,
    codec: Codec[MessageT] = DEFAULT_CODEC,  # type: ignore[assignment]
    received: Any = b"",
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
) -> Opening[FrameStream[MessageT]]:
    """Open a stream over pipes. Await the result, or use it by ``async with``.

    The event loop sets the pipes to non-blocking, as ``loop.connect_read_pipe`` does.

    Args:
        reader: A binary file to read from, with a descriptor: a pipe, a FIFO, a terminal; or None.
        writer: A binary file to write to; or None. The stream closes both.
        codec: The shape of the frames.
        received: Bytes that were read before: they come first.
        message_timeout: As for `open_connection`.
        idle_timeout: As for `open_connection`.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: As for `open_connection`.

    Returns:
        The stream.

    Raises:
        TypeError, ValueError: A file or an argument is invalid.
        OSError: The event loop cannot wait for a file.
    """
    if reader is None and writer is None:
        raise TypeError("a reader or a writer is required")
    if reader is not None:
        check_file(reader, "fileno")
    if writer is not None:
        check_file(writer, "fileno")
    factory = _factory(
        codec,
        received,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
    )
    return Opening(_open(reader, writer, factory))


def open_stdio(
    *,
    codec: Codec[MessageT] = DEFAULT_CODEC,  # type: ignore[assignment]
    received: Any = b"",
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
) -> Opening[FrameStream[MessageT]]:
    """Open a stream over the standard input and output of this process, as `open_pipes`.

    It uses copies of the descriptors: the end of the stream closes neither `sys.stdin` nor
    `sys.stdout`, and restores whether they block. Print nothing to standard output meanwhile.

    Args:
        codec: The shape of the frames.
        received: Bytes that were read before: they come first.
        message_timeout: As for `open_connection`.
        idle_timeout: As for `open_connection`.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: As for `open_connection`.

    Returns:
        The stream.

    Raises:
        TypeError, ValueError: An argument is invalid.
        OSError: A standard stream is closed.
    """
    factory = _factory(
        codec,
        received,
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
    )
    return Opening(_open_stdio(factory))


def open_process(
    *command: str | os.PathLike[str],
    codec: Codec[MessageT] = DEFAULT_CODEC,  # type: ignore[assignment]
    message_timeout: float | None = None,
    idle_timeout: float | None = None,
    on_oversize: OnOversize = "raise",
    on_invalid: OnInvalid = "raise",
    observer: object = None,
    **kwargs: Any,
) -> Opening[tuple[asyncio.subprocess.Process, FrameStream[MessageT]]]:
    """Start a process, and open a stream over its standard input and output.

    Await the result, or use it by ``async with``. Closing the stream closes the process's standard
    input. It neither ends the process nor waits for it: ``await process.wait()`` does.

    Args:
        *command: The program and its arguments.
        codec: The shape of the frames.
        message_timeout: As for `open_connection`.
        idle_timeout: As for `open_connection`.
        on_oversize: As for `Splitter`.
        on_invalid: As for `Splitter`.
        observer: As for `open_connection`.
        **kwargs: As for `asyncio.create_subprocess_exec`: stderr, cwd, env, ...

    Returns:
        The process and the stream.

    Raises:
        TypeError, ValueError: An argument is invalid; nothing was started.
        OSError: The process could not be started.
    """
    if not command:
        raise TypeError("a command is required: open_process(program, *arguments)")
    for name in ("stdin", "stdout"):
        if name in kwargs:
            raise TypeError(f"{name} is the stream's; open_process() takes no argument {name}")
    factory = _factory(
        codec,
        b"",
        message_timeout=message_timeout,
        idle_timeout=idle_timeout,
        on_oversize=on_oversize,
        on_invalid=on_invalid,
        observer=observer,
    )
    return Opening(_open_process(command, kwargs, factory), _stream_of)


def _factory(codec: Codec[Any], received: Any, **options: Any) -> Callable[[], StreamProtocol]:
    """Return what makes the protocol; reject invalid arguments before anything is opened."""
    options = check_options(codec, **options)
    received = bytes(received)
    return lambda: StreamProtocol(codec, received=received, **options)


def _stream_of(opened: tuple[Any, FrameStream[Any]]) -> FrameStream[Any]:
    return opened[1]


async def _open(
    reader: Any,
    writer: Any,
    factory: Callable[[], StreamProtocol],
    on_end: Callable[[], None] | None = None,
    buffered: bytes = b"",
) -> FrameStream[Any]:
    loop = asyncio.get_running_loop()
    protocol = factory()
    whole = PipeTransport(protocol)
    if on_end is not None:
        whole.on_end.append(on_end)
    try:
        if writer is not None:
            if writer is reader:  # each transport closes its file
                writer = os.fdopen(os.dup(reader.fileno()), "wb", 0)
            with contextlib.suppress(AttributeError):
                writer.flush()
            half = WriteHalf(whole)
            if _is_input_too(writer) and _is_pollable(writer):
                DescriptorWriter(writer, half)
            elif _is_pollable(writer):
                await loop.connect_write_pipe(lambda: half, _for_loop(loop, writer))
            else:
                FileWriter(writer, half)
        if reader is None:
            whole.begin()
            protocol._inbox.fail(io.UnsupportedOperation("this connection only writes to a pipe"))
        else:
            # The event loop may read before connect_read_pipe() returns.
            protocol._received += buffered + _take_buffered(reader)
            if not _is_pollable(reader):
                reader = _pumped(reader)
            await loop.connect_read_pipe(lambda: ReadHalf(whole), _for_loop(loop, reader))
    except BaseException:
        whole.abort()
        raise
    return protocol.stream


class _CopiedDescriptor:
    """A file whose `fileno` is a copy of the descriptor, which the event loop closes itself.

    uvloop closes the descriptor of a pipe, and then the file. By that time the number can be that
    of another file of the program, which the second close would take away (uvloop issue 763).
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._fd = os.dup(file.fileno())

    def fileno(self) -> int:
        """Return the copy."""
        return self._fd

    def close(self) -> None:
        """Close the file, and not the copy."""
        self._file.close()


def _for_loop(loop: asyncio.AbstractEventLoop, file: Any) -> Any:
    return _CopiedDescriptor(file) if type(loop).__module__.startswith("uvloop") else file


def _take_buffered(reader: Any) -> bytes:
    return take_buffered(reader, reader.fileno()) if type(reader) is io.BufferedReader else b""


def _is_pollable(file: Any) -> bool:
    """Return whether an event loop can wait for a file: no loop can for a regular file."""
    mode = os.fstat(file.fileno()).st_mode
    return not stat.S_ISREG(mode) and (not stat.S_ISCHR(mode) or os.isatty(file.fileno()))


def _is_input_too(file: Any) -> bool:
    """Return whether a file to write to can be read: a terminal, a serial port, a socket."""
    if fcntl is None:  # Windows
        return False
    mode = fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_ACCMODE
    return bool(mode == os.O_RDWR)


def _pumped(file: Any) -> Any:
    """Return a pipe into which a thread copies a file."""
    reader, writer = os.pipe()

    def pump() -> None:
        with contextlib.suppress(OSError), file, os.fdopen(writer, "wb", 0) as pipe:
            while chunk := os.read(file.fileno(), 64 * 1024):
                pipe.write(chunk)

    threading.Thread(target=pump, name="framecodec: file to pipe", daemon=True).start()
    return os.fdopen(reader, "rb", 0)


async def _open_stdio(factory: Callable[[], StreamProtocol]) -> FrameStream[Any]:
    if sys.stdin is None or sys.stdout is None:
        raise OSError("standard input or standard output is closed")
    sys.stdout.flush()
    blocking = [(fd, os.get_blocking(fd)) for fd in (0, 1)]

    def restore() -> None:
        for fd, was_blocking in blocking:
            with contextlib.suppress(OSError):
                os.set_blocking(fd, was_blocking)

    buffered = _take_buffered(getattr(sys.stdin, "buffer", None))
    reader = os.fdopen(os.dup(0), "rb", 0)
    writer = os.fdopen(os.dup(1), "wb", 0)
    return await _open(reader, writer, factory, restore, buffered)


async def _open_process(
    command: tuple[str | os.PathLike[str], ...],
    kwargs: dict[str, Any],
    factory: Callable[[], StreamProtocol],
) -> tuple[asyncio.subprocess.Process, FrameStream[Any]]:
    child_reader, our_writer = os.pipe()
    our_reader, child_writer = os.pipe()
    reader, writer = os.fdopen(our_reader, "rb", 0), os.fdopen(our_writer, "wb", 0)
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=child_reader, stdout=child_writer, **kwargs
        )
    except BaseException:
        reader.close()
        writer.close()
        raise
    finally:
        os.close(child_reader)
        os.close(child_writer)
    return process, await _open(reader, writer, factory)
