"""Messages in files: `Codec.read` and `Codec.write`, on both engines."""

from __future__ import annotations

import gc
import gzip
import io
import mmap
import os
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from framecodec import (
    Codec,
    IncompleteFrameError,
    InvalidFrameError,
    MessageTooLargeError,
    formats,
)

pytestmark = pytest.mark.usefixtures("engine_in_use")

MESSAGES = [b"", b"hello", b"x" * 100_000, b"world" * 30_000, b"end"]


@pytest.fixture
def codec(engine_in_use: ModuleType) -> Codec:
    return Codec.uint(4)


@pytest.fixture
def stream(codec: Codec) -> bytes:
    return codec.encode_many(MESSAGES)


class OnlyRead:
    """A file that has nothing but ``read``, and gives at most 1000 bytes a call."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, 1000))


class SometimesNothing(io.RawIOBase):
    """A non-blocking file without a descriptor: each second call has nothing yet."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.calls = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.calls += 1
        if self.calls % 2:
            return None
        part, self.data = self.data[:50_000], self.data[50_000:]
        buffer[: len(part)] = part
        return len(part)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        self.calls += 1
        if self.calls % 2:
            return None
        part = bytes(data[:50_000])
        self.data += part
        return len(part)


class OnlyReadSometimes(OnlyRead):
    """A non-blocking file without readinto()."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.calls = 0

    def read(self, size: int) -> Any:
        self.calls += 1
        return None if self.calls % 2 else super().read(size)


class SerialPort:
    """A port that waits for as many bytes as are asked for; its time-out gives no bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[int] = []

    @property
    def in_waiting(self) -> int:
        return min(len(self.data), 700)

    def read(self, size: int) -> bytes:
        assert size <= max(self.in_waiting, 1), "this read would wait"
        part, self.data = self.data[:size], self.data[size:]
        return part

    def readinto(self, buffer: Any) -> int:
        raise AssertionError("this read would wait")


SOURCES: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda data, _: data,
    "bytearray": lambda data, _: bytearray(data),
    "memoryview": lambda data, _: memoryview(data),
    "str path": lambda _, path: str(path),
    "Path": lambda _, path: path,
    "opened file": lambda _, path: path.open("rb"),
    "unbuffered file": lambda _, path: path.open("rb", buffering=0),
    "BytesIO": lambda data, _: io.BytesIO(data),
    "gzip": lambda data, _: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data))),
    "only read": lambda data, _: OnlyRead(data),
    "only read, nothing at times": lambda data, _: OnlyReadSometimes(data),
    "nothing at times": lambda data, _: SometimesNothing(data),
    "serial port": lambda data, _: SerialPort(data),
    "list of chunks": lambda data, _: [data[:3], b"", memoryview(data)[3:]],
    "generator": lambda data, _: (data[i : i + 999] for i in range(0, len(data), 999)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_read_gives_the_messages_of_every_kind_of_source(
    name: str, codec: Codec, stream: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "frames"
    path.write_bytes(stream)
    source = SOURCES[name](stream, path)
    assert list(codec.read(source)) == MESSAGES
    if hasattr(source, "close"):
        assert not getattr(source, "closed", False)
        source.close()


@pytest.mark.parametrize("name", SOURCES)
def test_read_notices_a_last_frame_that_is_cut_off(
    name: str, codec: Codec, stream: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "frames"
    path.write_bytes(stream[:-1])
    source = SOURCES[name](stream[:-1], path)
    messages = codec.read(source)
    assert [next(messages) for _ in MESSAGES[:-1]] == MESSAGES[:-1]
    with pytest.raises(IncompleteFrameError) as caught:
        next(messages)
    assert (caught.value.received, caught.value.needed) == (6, 7)
    if hasattr(source, "close"):
        source.close()


@pytest.mark.parametrize("name", SOURCES)
def test_read_gives_the_messages_before_a_bad_frame(
    name: str, codec: Codec, stream: bytes, tmp_path: Path
) -> None:
    data = stream + b"\xff" * 8
    path = tmp_path / "frames"
    path.write_bytes(data)
    source = SOURCES[name](data, path)
    messages = codec.read(source)
    assert [next(messages) for _ in MESSAGES] == MESSAGES
    with pytest.raises(MessageTooLargeError) as caught:
        next(messages)
    assert caught.value.stream_offset == len(stream)
    assert list(messages) == []
    if hasattr(source, "close"):
        source.close()


def test_read_of_nothing_gives_nothing(codec: Codec) -> None:
    for source in (b"", io.BytesIO(), [], iter(())):
        assert list(codec.read(source)) == []


def test_read_takes_a_memory_map_and_lets_go_of_it(
    codec: Codec, stream: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "frames"
    path.write_bytes(stream)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert list(codec.read(mapped)) == MESSAGES
    messages = codec.read(mapped)
    next(messages)
    messages.close()  # type: ignore[attr-defined]
    mapped.close()


def test_read_gives_whole_frames_with_raw(codec: Codec, stream: bytes) -> None:
    frames = list(codec.read(stream, raw=True))
    assert frames == [codec.encode(message) for message in MESSAGES]
    assert list(codec.read(io.BytesIO(stream), raw=True)) == frames


def test_read_skips_what_is_too_large_on_request(stream: bytes) -> None:
    codec = Codec.uint(4, max_message_size=10)
    small = [message for message in MESSAGES if len(message) <= 10]
    for source in (stream, io.BytesIO(stream), [stream]):
        assert list(codec.read(source, on_oversize="skip")) == small
    with pytest.raises(ValueError, match="on_oversize"):
        codec.read(b"", on_oversize="drop")  # type: ignore[arg-type]


def test_read_opens_a_path_when_the_iteration_begins_and_closes_it_with_it(
    codec: Codec, stream: bytes, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "frames"
    messages = codec.read(path)
    path.write_bytes(stream)
    assert next(messages) == MESSAGES[0]
    del messages
    gc.collect()
    assert not recwarn.list
    with pytest.raises(FileNotFoundError):
        next(codec.read(tmp_path / "missing"))


def test_read_delivers_a_message_of_a_pipe_before_more_arrives(codec: Codec) -> None:
    receiving, sending = os.pipe()
    with open(receiving, "rb") as file, open(sending, "wb", buffering=0) as peer:
        messages = codec.read(file)
        for message in (b"first", b"second", b"x" * 5000):
            peer.write(codec.encode(message))
            assert next(messages) == message
        peer.close()
        assert list(messages) == []


def test_read_raises_the_error_of_a_pipe_before_more_arrives(codec: Codec) -> None:
    receiving, sending = os.pipe()
    with open(receiving, "rb", buffering=0) as file, open(sending, "wb", buffering=0) as peer:
        messages = codec.read(file)
        peer.write(codec.encode(b"first") + b"\xff" * 4)
        assert next(messages) == b"first"
        with pytest.raises(MessageTooLargeError):
            next(messages)


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="needs non-blocking pipes")
@pytest.mark.parametrize("buffering", [-1, 0])
def test_read_and_write_wait_for_a_non_blocking_pipe(codec: Codec, buffering: int) -> None:
    receiving, sending = os.pipe()
    os.set_blocking(receiving, False)
    os.set_blocking(sending, False)
    found: list[Any] = []

    def write() -> None:
        with open(sending, "wb", buffering=buffering) as peer:
            assert codec.write(peer, MESSAGES) == len(MESSAGES)
            os.set_blocking(sending, True)  # close() flushes, and does not wait

    thread = threading.Thread(target=write, daemon=True)
    with open(receiving, "rb", buffering=buffering) as file:
        messages = codec.read(file)
        thread.start()
        found = list(messages)
        thread.join(20)
    assert found == MESSAGES


def test_read_refuses_other_objects(codec: Codec) -> None:
    with pytest.raises(TypeError, match=r"source must be a path, a binary file.*not 'int'"):
        codec.read(5)
    with pytest.raises(TypeError, match=r'source is a text file; open it .*"rb"'):
        codec.read(io.StringIO("text"))
    with pytest.raises(TypeError, match=r"bytes-like object is required, not 'str'.*encode"):
        next(codec.read(["text"]))
    with pytest.raises(TypeError, match="bytes-like object is required, not 'int'"):
        next(codec.read([1, 2]))
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TypeError, match=r'\'socket\'; a FrameSocket.*file\("rb"\)'):
        codec.read(ours)


@pytest.mark.parametrize(
    "make_file",
    [tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile, tempfile.TemporaryFile],
)
def test_text_files_of_tempfile_are_refused_and_binary_ones_are_not(
    codec: Codec, make_file: Any
) -> None:
    with make_file(mode="w+") as file:
        with pytest.raises(TypeError, match=r'source is a text file; open it .*"rb"'):
            codec.read(file)
        with pytest.raises(TypeError, match=r"file is a text file.*sys\.stdout\.buffer"):
            codec.write(file, [b"a"])
    with make_file(mode="w+b") as file:
        assert codec.write(file, MESSAGES) == len(MESSAGES)
        file.seek(0)
        assert list(codec.read(file)) == MESSAGES


def test_read_lets_an_error_of_the_source_through(codec: Codec) -> None:
    def chunks() -> Iterator[bytes]:
        yield codec.encode(b"hello") + b"\0\0"
        raise OSError("the disk is gone")

    messages = codec.read(chunks())
    assert next(messages) == b"hello"
    with pytest.raises(OSError, match="the disk is gone"):
        next(messages)


def test_read_uses_constant_memory(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "frames"
    assert codec.write(path, (b"x" * 1000 for _ in range(5000))) == 5000
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for source in (path, mapped, [mapped]):
        tracemalloc.start()
        try:
            assert sum(len(message) for message in codec.read(source)) == 5_000_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 600_000, source
    mapped.close()


# --- writing --------------------------------------------------------------------------------------


class Collector:
    """A file whose write() keeps the object that it is given and returns nothing."""

    def __init__(self) -> None:
        self.parts: list[Any] = []

    def write(self, data: Any) -> None:
        self.parts.append(data)


class Short(io.RawIOBase):
    """A raw file that takes at most 7 bytes a call."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data[:7])
        return len(data[:7])


def test_write_writes_to_every_kind_of_file(codec: Codec, stream: bytes, tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_bytes(b"old" * 1_000_000)
    assert codec.write(path, MESSAGES) == len(MESSAGES)
    assert path.read_bytes() == stream
    assert codec.write(str(path), iter(MESSAGES[:2])) == 2
    assert path.read_bytes() == codec.encode_many(MESSAGES[:2])
    file = io.BytesIO(b"")
    assert codec.write(file, MESSAGES) == len(MESSAGES)
    assert not file.closed
    assert file.getvalue() == stream
    with gzip.open(path, "wb") as zipped:
        assert codec.write(zipped, MESSAGES) == len(MESSAGES)
    with gzip.open(path) as unzipped:
        assert list(codec.read(unzipped)) == MESSAGES
    collector = Collector()
    assert codec.write(collector, MESSAGES) == len(MESSAGES)
    assert b"".join(collector.parts) == stream


def test_write_continues_after_a_partial_write(codec: Codec) -> None:
    messages = [b"hello", bytearray(b"world"), memoryview(b"x" * 100)]
    raw = Short()
    assert codec.write(raw, messages) == 3
    assert raw.data == codec.encode_many(messages)
    non_blocking = SometimesNothing()
    assert codec.write(non_blocking, MESSAGES) == len(MESSAGES)
    assert non_blocking.data == codec.encode_many(MESSAGES)


class Full:
    """A file whose write() gives a count that no bytes explain."""

    def __init__(self, count: int) -> None:
        self.count = count

    def write(self, data: Any) -> int:
        return self.count if data else 0


@pytest.mark.parametrize("count", [0, -1, 1000])
def test_write_ends_where_the_file_takes_no_more(codec: Codec, count: int) -> None:
    with pytest.raises(OSError, match=rf"write\(\) of \d+ bytes returned {count}: the file takes"):
        codec.write(Full(count), [b"hello"])
    assert codec.write(Full(count), []) == 0


def test_write_takes_views_of_other_items_and_special_messages() -> None:
    numbers = memoryview(bytes(200_000)).cast("Q")
    file = io.BytesIO()
    assert Codec.uint(4).write(file, [numbers]) == 1
    assert file.getvalue() == Codec.uint(4).encode(bytes(200_000))
    file = io.BytesIO()
    assert formats.pkt_line.write(file, [b"a\n", formats.PktLine.FLUSH]) == 2
    assert list(formats.pkt_line.read(file.getvalue())) == [b"a\n", formats.PktLine.FLUSH]


def test_write_writes_each_frame_before_it_asks_for_the_next_message(codec: Codec) -> None:
    file = io.BytesIO()

    def messages() -> Iterator[bytes]:
        yield b"first"
        assert file.getvalue() == codec.encode(b"first")
        yield b"second"

    assert codec.write(file, messages()) == 2


def test_write_raises_at_a_message_without_a_frame_after_the_frames_before_it() -> None:
    codec = Codec.uint(1)
    file = io.BytesIO()
    with pytest.raises(MessageTooLargeError):
        codec.write(file, [b"a", b"b", bytes(256), b"c"])
    assert file.getvalue() == b"\1a\1b"
    with pytest.raises(InvalidFrameError):
        Codec.uint(1, length_offset=1).write(file, [b""])


def test_write_refuses_one_message_instead_of_several(codec: Codec) -> None:
    for message in (b"hello", "hello", bytearray(3), memoryview(b"a"), {"text": "hello"}):
        for each in (codec, codec.as_json()):
            with pytest.raises(TypeError, match=r"messages must be an iterable.*\[message\]"):
                each.write(io.BytesIO(), message)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'file is a text file.*"wb"'):
        codec.write(io.StringIO(), [b"a"])
    with pytest.raises(TypeError, match="file must be a path or a binary file, not 'int'"):
        codec.write(5, [b"a"])
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TypeError, match=r'\'socket\'; a FrameSocket.*file\("wb"\)'):
        codec.write(ours, [b"a"])


def test_write_refuses_wrong_messages_before_it_empties_a_file(
    codec: Codec, tmp_path: Path
) -> None:
    path = tmp_path / "records"
    codec.write(path, [b"a"])
    for wrong in (5, None, b"a", {b"a": 1}):
        with pytest.raises(TypeError, match="messages must be an iterable of messages, not"):
            codec.write(path, wrong)  # type: ignore[arg-type]
    assert list(codec.read(path)) == [b"a"]
