"""Files as messages: sent by the system, received without being held, framing enforced."""

# ruff: noqa: SIM117

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from framecodec import (
    Check,
    ChecksumError,
    Codec,
    FrameSocket,
    IncompleteFrameError,
    InvalidFrameError,
)
from framecodec._outbox import Outbox
from framecodec.errors import MessageTooLargeError
from tests.helpers.fault_injection import (
    KINDS,
    TIMEOUT,
    FaultySocket,
    Interruption,
    interrupted_at,
    stream_pair,
)
from tests.helpers.sample_codecs import crc_of_crc

pytestmark = pytest.mark.usefixtures("engine_in_use")

SIZES = [0, 1, 4095, 4096, 70_000, 3_000_000]
CODECS = {
    "uint": Codec.uint(4),
    "a trailer": Codec.text(b":", trailer=b","),
    "a lead": Codec.uint(4, length_offset=1),
    "headers": Codec.headers(),
    "a check": Codec.uint(4, check=Check("crc32", 4), trailer=b"!"),
    "a check at the front": Codec.varint(check=Check("crc32c", 4, position="front")),
    "a check of the frame": Codec.headers(
        check=Check("sum8", 3, digits=True, before=b"10=", covers="frame"), align=8
    ),
    "a check by a function": Codec.uint(4, check=Check(crc_of_crc, 5)),
}


@contextlib.contextmanager
def two(kind: str, codec: Codec) -> Iterator[tuple[FrameSocket, FrameSocket]]:
    with stream_pair(kind) as (left, right):
        right.settimeout(TIMEOUT)
        with (
            FrameSocket(left, codec.replace()) as one,
            FrameSocket(right, codec.replace()) as other,
        ):
            yield one, other


@contextlib.contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[None]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(TIMEOUT)
    assert not failures


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("kind", KINDS)
def test_send_file_sends_one_message_and_recv_file_writes_it(
    kind: str, name: str, size: int
) -> None:
    data = os.urandom(size) or (b"t" if name == "a lead" else b"")
    with two(kind, CODECS[name]) as (one, other), tempfile.TemporaryFile() as file:
        file.write(b"before" + data)
        file.seek(6)

        def send() -> None:
            one.send(b"first")
            one.send_file(file)
            one.send(b"last")

        with meanwhile(send):
            copy = io.BytesIO()
            assert other.recv() == b"first"
            assert other.recv_file(copy) == len(data)
            assert other.recv() == b"last"
        assert hashlib.sha256(copy.getvalue()).digest() == hashlib.sha256(data).digest()
        assert file.tell() == 6 + len(data)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CODECS)
def test_recv_into_fills_a_buffer(name: str, size: int) -> None:
    data = os.urandom(size) or (b"t" if name == "a lead" else b"")
    with two("socketpair", CODECS[name]) as (one, other):
        with meanwhile(lambda: one.send_many([b"first", data, data, b"last"])):
            buffer = bytearray(len(data) + 3)
            assert other.recv() == b"first"
            assert other.recv_into(buffer) == len(data)
            assert buffer == data + bytes(3)
            if data:
                with pytest.raises(ValueError, match="nothing is lost"):
                    other.recv_into(bytearray(len(data) - 1))
            assert other.recv_into(buffer) == len(data)
            assert other.recv() == b"last"


@pytest.mark.parametrize("size", [0, 1, 100, 65_536, 70_000, 1_000_000])
@pytest.mark.parametrize("name", CODECS)
def test_recv_into_keeps_a_message_too_large_for_the_buffer(name: str, size: int) -> None:
    data = b"t" + os.urandom(size)
    with two("socketpair", CODECS[name]) as (one, other):
        with meanwhile(lambda: one.send_many([data, data, b"last"])):
            for _ in range(2):
                for _ in range(2):
                    with pytest.raises(ValueError, match=f"has {len(data)} bytes"):
                        other.recv_into(bytearray(size))
                assert other.recv() == data
            assert other.recv_into(bytearray(4)) == 4


def test_send_file_reads_other_objects_by_their_read_method() -> None:
    data = os.urandom(100_000)
    packed = io.BytesIO(gzip.compress(data))
    with two("socketpair", CODECS["uint"]) as (one, other), gzip.open(packed) as file:
        with meanwhile(lambda: one.send_file(file, 90_000)):
            assert other.recv() == data[:90_000]
        with meanwhile(lambda: one.send_file(file)):
            assert other.recv() == data[90_000:]
        with meanwhile(lambda: one.send_file(io.BytesIO(data), 50_000)):
            assert other.recv() == data[:50_000]


def test_send_file_sends_a_part_and_not_more_than_the_file_has() -> None:
    data = os.urandom(20_000)
    with two("socketpair", CODECS["uint"]) as (one, other), tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        one.send_file(file, 12_000)
        assert other.recv() == data[:12_000]
        with pytest.raises(ValueError, match="has 8000 bytes"):
            one.send_file(file, 8001)
        with pytest.raises(TypeError, match="binary"):
            one.send_file(io.StringIO("text"))
        one.send_file(file)
        assert other.recv() == data[12_000:]


@pytest.mark.parametrize("size", [-1, -5000])
def test_send_file_refuses_a_negative_size(size: int) -> None:
    with two("TCP", Codec.uint(4)) as (one, other), tempfile.TemporaryFile() as file:
        for source in (file, io.BytesIO(bytes(6000))):
            with pytest.raises(ValueError, match=f"size must be 0 or more, not {size}"):
                one.send_file(source, size)
        one.send(b"next")
        assert other.recv() == b"next"


def test_send_file_has_the_limits_of_a_message() -> None:
    codec = Codec.uint(4, max_message_size=10_000)
    with two("socketpair", codec) as (one, other), tempfile.TemporaryFile() as file:
        file.truncate(10_001)
        with pytest.raises(MessageTooLargeError):
            one.send_file(file)
        assert one.pending_send == 0
        one.send(b"ok")
        assert other.recv() == b"ok"


def test_send_sends_an_unfinished_file_before_the_message() -> None:
    data = os.urandom(3_000_000)
    with two("socketpair", CODECS["a trailer"]) as (one, other):
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            one.setblocking(False)
            with pytest.raises(BlockingIOError) as caught:
                one.send_file(file)
            assert caught.value.message_started is True  # type: ignore[attr-defined]
        assert 0 < one.pending_send < len(data) + 10
        one.settimeout(TIMEOUT)
        with meanwhile(lambda: one.send(b"next")):
            assert other.recv() == data
            assert other.recv() == b"next"
        assert one.pending_send == 0


def refuse_to_copy(*_: Any) -> int:
    raise OSError(errno.EINVAL, "not this file")


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.parametrize("copied", [True, False], ids=["copied by the kernel", "read"])
def test_send_file_ends_sending_if_the_file_shrinks(
    monkeypatch: pytest.MonkeyPatch, copied: bool, timeout: float | None
) -> None:
    if not copied and hasattr(os, "sendfile"):
        monkeypatch.setattr(os, "sendfile", refuse_to_copy)
    with two("socketpair", CODECS["uint"]) as (one, other), tempfile.TemporaryFile() as file:
        file.truncate(3_000_000)
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.send_file(file)
        file.truncate(1000)
        one.settimeout(timeout)

        def drain() -> None:
            with contextlib.suppress(IncompleteFrameError):
                other.recv()

        with meanwhile(drain):
            for _ in range(2):
                for again in (lambda: one.send(b"next"), one.detach):
                    with pytest.raises(OSError, match="became shorter"):
                        again()
            one.close()


@pytest.mark.parametrize("way", ["file", "buffer"])
@pytest.mark.parametrize("name", CODECS)
def test_recv_file_continues_after_a_time_out_anywhere(name: str, way: str) -> None:
    codec = CODECS[name].replace()
    data = os.urandom(200_000)
    stream = codec.encode(data)
    cuts = [*range(0, 40), 60_000, 131_072, *range(len(stream) - 20, len(stream) + 1)]
    plan = {cut: [lambda: TimeoutError("timed out")] for cut in cuts}
    with (
        stream_pair() as (peer, sock),
        FrameSocket(FaultySocket(sock, reading=plan), codec) as conn,
    ):
        conn.settimeout(TIMEOUT)
        file, buffer = io.BytesIO(), bytearray(len(data))
        with meanwhile(lambda: peer.sendall(stream + codec.encode(b"next"))):
            for _ in range(len(cuts) + 1):
                with contextlib.suppress(TimeoutError):
                    size = conn.recv_file(file) if way == "file" else conn.recv_into(buffer)
                    break
            assert size == len(data)
            with contextlib.suppress(TimeoutError):
                assert conn.recv() == b"next"
        assert (file.getvalue() if way == "file" else buffer) == data


def test_recv_file_refuses_a_target_that_cannot_be_written() -> None:
    with two("TCP", Codec.uint(4)) as (one, other):
        one.send(b"whole")
        for place in ("a path", io.StringIO(), object()):
            with pytest.raises(TypeError, match="a file opened in binary mode"):
                other.recv_file(place)
        for buffer in (bytes(5), memoryview(bytearray(5)).toreadonly()):
            with pytest.raises(TypeError, match="a writable buffer"):
                other.recv_into(buffer)
        assert other.recv() == b"whole"
        for source in ("a path", io.StringIO("text"), object()):
            with pytest.raises(TypeError, match="a file opened in binary mode"):
                one.send_file(source)


def test_recv_is_refused_while_a_message_is_half_received() -> None:
    with stream_pair() as (peer, sock), FrameSocket(sock, Codec.uint(4)) as conn:
        conn.settimeout(0.01)
        peer.sendall(Codec.uint(4).encode(bytes(200_000))[:100_000])
        file = io.BytesIO()
        with pytest.raises(TimeoutError):
            conn.recv_file(file)
        for call in (conn.recv, conn.recv_many, conn.detach):
            with pytest.raises(RuntimeError, match="half"):
                call()
        peer.sendall(bytes(100_004))
        assert conn.recv_file(file) == 200_000


@pytest.mark.parametrize("cut", [2, 4, 100, 90_000, 200_006])
def test_recv_file_raises_an_end_inside_the_message(cut: int) -> None:
    codec = CODECS["a trailer"].replace()
    stream = codec.encode(bytes(200_000))
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(TIMEOUT)

        def send() -> None:
            peer.sendall(b"1:a," + stream[:cut])
            peer.close()

        with meanwhile(send):
            assert conn.recv() == b"a"
            with pytest.raises(IncompleteFrameError) as caught:
                conn.recv_file(io.BytesIO())
        assert caught.value.received == cut
        assert caught.value.stream_offset == 4
        with pytest.raises(IncompleteFrameError):
            conn.recv()


def test_recv_file_verifies_the_trailer() -> None:
    codec = CODECS["a trailer"].replace()
    with stream_pair() as (peer, sock), FrameSocket(sock, codec) as conn:
        conn.settimeout(TIMEOUT)
        stream = codec.encode(bytes(200_000))[:-1] + b";"
        with meanwhile(lambda: peer.sendall(stream)), pytest.raises(InvalidFrameError):
            conn.recv_file(io.BytesIO())


def test_send_file_does_not_hold_the_file_in_memory() -> None:
    size = 64 << 20
    codec = Codec.uint(4, max_message_size=None)
    with two("tcp", codec) as (one, other), tempfile.TemporaryFile() as file:
        file.truncate(size)
        tracemalloc.start()
        try:
            with meanwhile(lambda: one.send_file(file)), open(os.devnull, "wb") as nowhere:
                assert other.recv_file(nowhere) == size
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 << 20


# --- signals whose handlers raise -----------------------------------------------------------------


def test_send_file_has_not_begun_if_the_header_was_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with two("socketpair", CODECS["uint"]) as (one, other), tempfile.TemporaryFile() as file:
        file.write(bytes(5000))
        file.seek(0)
        with monkeypatch.context() as patched:
            patched.setattr(Outbox, "put_bytes", raising)
            with pytest.raises(Interruption) as caught:
                one.send_file(file)
        assert caught.value.message_started is False  # type: ignore[attr-defined]
        assert one.pending_send == 0
        one.send(b"next")
        assert other.recv() == b"next"


def raising(*_: object) -> None:
    raise Interruption


@pytest.mark.parametrize("method", ["recv_file", "recv_into"])
@pytest.mark.parametrize("size", [5, 300_000])
@pytest.mark.parametrize("name", [name for name in CODECS if "check" in name])
def test_a_wrong_check_of_a_file_is_no_success(name: str, size: int, method: str) -> None:
    codec, data = CODECS[name], b"t" * size
    frame = codec.encode(data)
    wrong = frame.replace(b"ttt", b"tut", 1)
    with stream_pair("socketpair") as (left, right):
        right.settimeout(TIMEOUT)
        with FrameSocket(right, codec.replace()) as other, meanwhile(lambda: left.sendall(wrong)):
            target: Any = io.BytesIO() if method == "recv_file" else bytearray(size)
            with pytest.raises(ChecksumError) as caught:
                getattr(other, method)(target)
            assert caught.value.expected != caught.value.found
            assert caught.value.stream_offset == 0
            with pytest.raises(ChecksumError):
                other.recv()


def test_send_file_computes_the_check_of_an_object_that_is_only_read() -> None:
    data = os.urandom(100_000)
    with two("socketpair", CODECS["a check"]) as (one, other):
        with meanwhile(lambda: one.send_file(io.BytesIO(data), 90_000)):
            assert other.recv() == data[:90_000]


def test_send_file_of_a_file_that_becomes_shorter_before_its_check_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with two("socketpair", CODECS["a check"]) as (one, other), tempfile.TemporaryFile() as file:
        file.write(bytes(100_000))
        file.seek(0)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pread", lambda *arguments: b"")
            with pytest.raises(ValueError, match="check was computed: 100000 bytes are missing"):
                one.send_file(file)
        one.send(b"next")
        assert other.recv() == b"next"


@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="no sendfile() here")
def test_send_file_reads_a_file_that_the_kernel_does_not_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sendfile", refuse_to_copy)
    data = os.urandom(300_000)
    with two("socketpair", CODECS["uint"]) as (one, other), tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        with meanwhile(lambda: one.send_file(file)):
            assert other.recv() == data


@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="no sendfile() here")
def test_send_file_reads_on_after_the_disk_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = os.pread, [OSError(errno.EIO, "the disk fails")]

    def read(*arguments: Any) -> bytes:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(os, "sendfile", refuse_to_copy)
    monkeypatch.setattr(os, "pread", read)
    data = os.urandom(300_000)
    with two("socketpair", CODECS["uint"]) as (one, other), tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        with pytest.raises(OSError, match="the disk fails") as caught:
            one.send_file(file)
        started = caught.value.message_started  # type: ignore[attr-defined]
        with meanwhile(lambda: one.flush() if started else one.send_file(file)):
            assert other.recv() == data


@pytest.mark.parametrize("timeout", [None, TIMEOUT])
@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="no sendfile() here")
def test_send_file_that_reads_tears_no_frame_at_an_interruption_at_any_moment(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    monkeypatch.setattr(os, "sendfile", refuse_to_copy)
    codec = CODECS["a trailer"].replace()
    moment, continued = 0, 0
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 5000)
        while True:
            moment += 1
            file.seek(0)
            with stream_pair() as (peer, sock):
                with FrameSocket(sock, codec) as conn:
                    conn.settimeout(timeout)
                    with interrupted_at(moment) as passed, contextlib.suppress(Interruption):
                        conn.send_file(file)
                    continued += conn.pending_send > 0
                    conn.send(b"after")
                wire = b"".join(iter(lambda: peer.recv(1 << 16), b""))
            messages, size = codec.split(wire)
            assert size == len(wire)
            assert messages in ([b"x" * 5000, b"after"], [b"after"])
            if moment > passed[0]:
                break
    assert moment > 1
    assert continued > 1


def test_recv_file_ends_if_the_parse_of_a_codec_changes_its_answer() -> None:
    sizes: list[int] = []

    def parse(view: memoryview) -> tuple[int, int] | None:
        if len(view) < 8:  # it looks further than its header
            return None
        sizes.append(5 if sizes else 4)
        return sizes[-1], 300_000

    codec = Codec.custom(parse, lambda message: b"head")
    with stream_pair("socketpair") as (left, right), FrameSocket(left, codec) as conn:
        right.sendall(b"headmessage")
        for receive in (lambda: conn.recv_file(io.BytesIO()), conn.recv):
            with pytest.raises(InvalidFrameError, match="parse") as caught:
                receive()
    assert sizes[:2] == [4, 5]
    assert caught.value.stream_offset == 0


@pytest.mark.parametrize("size", [5, 500_000])
@pytest.mark.parametrize("name", CODECS)
def test_recv_parts_ends_if_another_call_has_received_the_rest(name: str, size: int) -> None:
    data = os.urandom(size)
    with two("socketpair", CODECS[name]) as (one, other):
        with meanwhile(lambda: one.send_many([data, b"next"])):
            parts = other.recv_parts()
            first = next(parts)
            file = io.BytesIO()
            other.recv_file(file)
            assert list(parts) == []
            assert other.recv() == b"next"
        assert first + file.getvalue() == data


def test_send_file_reads_a_pipe_to_its_end() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", 0) as file, two("socketpair", CODECS["uint"]) as (one, other):
        os.write(writer, b"all of it")
        os.close(writer)
        one.send_file(file)
        assert other.recv() == b"all of it"


def test_recv_file_has_the_bytes_of_the_length_field_and_the_constants() -> None:
    codec = Codec.uint(
        4, length_offset=1, length_mask=0x00FFFFFF, constants={5: b"c"}, check=Check("crc32", 4)
    )
    data = b"l\x80c" + os.urandom(3_000_000)  # more than a socket holds
    with two("socketpair", codec) as (one, other), tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        with meanwhile(lambda: one.send_file(file)):
            copy = io.BytesIO()
            assert other.recv_file(copy) == len(data)
        assert copy.getvalue() == data


# --- what is rare ---------------------------------------------------------------------------------


def test_recv_file_refuses_a_special_message_and_leaves_it() -> None:
    codec = Codec.uint(1, specials={0: None})
    with two("socketpair", codec) as (one, other):
        one.send_many([None, b"a"])
        with pytest.raises(ValueError, match="the next message is None, which has no bytes"):
            other.recv_file(io.BytesIO())
        assert other.recv() is None
        assert other.recv_file(copy := io.BytesIO()) == 1
        assert copy.getvalue() == b"a"


def test_recv_file_shows_a_file_of_both_directions_where_it_ends() -> None:
    data = os.urandom(100_000)
    with two("socketpair", Codec.uint(4)) as (one, other), tempfile.TemporaryFile() as file:
        file.write(b"before")
        with meanwhile(lambda: one.send(data)):
            assert other.recv_file(file) == len(data)
        assert file.tell() == 6 + len(data)
        file.seek(0)
        assert file.read() == b"before" + data


def test_send_file_needs_all_bytes_of_an_object() -> None:
    with two("socketpair", Codec.uint(4)) as (one, other):
        with pytest.raises(ValueError, match="it has 2 bytes from its position on, not 5"):
            one.send_file(io.BytesIO(b"ab"), 5)
        one.send(b"next")
        assert other.recv() == b"next"


class Target(io.BytesIO):
    """A file whose first writes do what a test says."""

    def __init__(self, *plan: Any) -> None:
        super().__init__()
        self.plan = list(plan)

    def write(self, data: Any) -> Any:
        if self.plan:
            step = self.plan.pop(0)
            if isinstance(step, BaseException):
                raise step
            return step
        return super().write(data)


@pytest.mark.parametrize("size", [5, 200_000])
@pytest.mark.parametrize("name", CODECS)
def test_recv_file_can_be_repeated_after_a_target_failed(name: str, size: int) -> None:
    data = os.urandom(size)
    with two("socketpair", CODECS[name]) as (one, other):
        with meanwhile(lambda: one.send_many([data, b"next"])):
            target = Target(OSError(5, "the disk fails"), None)
            with pytest.raises(OSError, match="the disk fails"):
                other.recv_file(target)
            with pytest.raises(BlockingIOError, match="the file takes no more bytes now"):
                other.recv_file(target)
            assert other.recv_file(target) == len(data)
            assert other.recv() == b"next"
        assert target.getvalue() == data


@pytest.mark.parametrize("raised", [KeyboardInterrupt, MemoryError])
def test_recv_file_counts_no_bytes_that_an_interrupted_target_may_have(
    raised: type[BaseException],
) -> None:
    codec = Codec.uint(4)
    with stream_pair("socketpair") as (left, right), FrameSocket(left, codec) as conn:
        right.sendall(codec.encode(bytes(200_000))[:100_000])
        with pytest.raises(raised):
            conn.recv_file(Target(raised()))
        with pytest.raises(OSError, match="received"):
            conn.recv()


class Source(io.BytesIO):
    """An object to read from, whose second read raises."""

    def __init__(self, data: bytes, error: BaseException) -> None:
        super().__init__(data)
        self.error: BaseException | None = error
        self.reads = 0

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        self.reads += 1
        if self.reads == 3 and self.error is not None:
            error, self.error = self.error, None
            raise error
        return super().read(size)


def test_send_file_reads_on_after_an_object_failed() -> None:
    data = os.urandom(1_000_000)
    with two("socketpair", Codec.uint(4)) as (one, other):
        received: list[bytes] = []
        with meanwhile(lambda: received.append(other.recv())):
            with pytest.raises(OSError, match="the tape is torn"):
                one.send_file(Source(data, OSError(5, "the tape is torn")), len(data))
            one.flush()  # the read is made again
        assert received == [data]


def test_send_file_counts_no_bytes_that_an_interrupted_object_may_have_read() -> None:
    with stream_pair("socketpair") as (left, right), FrameSocket(left, Codec.uint(4)) as conn:
        received: list[int] = []

        def drain() -> None:
            while chunk := right.recv(1 << 16):
                received.append(len(chunk))

        with meanwhile(drain):
            with pytest.raises(KeyboardInterrupt):
                conn.send_file(Source(bytes(1_000_000), KeyboardInterrupt()), 1_000_000)
            with pytest.raises(OSError, match="sent"):
                conn.send(b"next")
            conn.close()
        assert sum(received) < 1_000_000


@pytest.mark.parametrize(
    ("codec", "tail", "error"),
    [
        (Codec.uint(4, trailer=b"END"), b"ENX", "trailer"),
        (Codec.uint(4, check=Check("crc32", 10, digits=True, before=b"c=")), b"cX", "begins with"),
        (Codec.uint(4, check=Check("crc32", 10, digits=True)), b"123456789x", "digits"),
    ],
)
def test_recv_file_names_what_is_wrong_after_a_large_message(
    codec: Codec, tail: bytes, error: str
) -> None:
    data = bytes(300_000)
    frame = codec.encode(data)
    with stream_pair("socketpair") as (left, right), FrameSocket(left, codec) as conn:
        with meanwhile(lambda: right.sendall(frame[: 4 + len(data)] + tail)):
            with pytest.raises(InvalidFrameError, match=error):
                conn.recv_file(io.BytesIO())
